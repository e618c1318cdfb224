#!/usr/bin/env bash
# Each passage of C in docs/embedding.md stands, line by line, in tests/test_embedding.c or an example: what the page shows
# is what the tests run. Indentation does not matter.
set -u
cd "$1"
flat() { sed 's/^[ \t]*//; s/[ \t]*$//' "$@"; }
sources=()
for file in tests/test_embedding.c examples/*.c; do sources+=("$(flat "$file")"); done
bad=0 passages=0 passage= inside=
while IFS= read -r line; do
    if [ "$line" = '```c' ]; then
        inside=1 passage=
    elif [ -n "$inside" ] && [ "$line" = '```' ]; then
        inside= found=
        passages=$((passages + 1))
        for source in "${sources[@]}"; do [[ $source == *"${passage%$'\n'}"* ]] && found=1; done
        [ -n "$found" ] || { echo "docs/embedding.md shows what no test runs:"; echo "$passage"; bad=1; }
    elif [ -n "$inside" ]; then
        passage+="$(flat <<<"$line")"$'\n'
    fi
done <docs/embedding.md
[ "$passages" -gt 10 ] || { echo "docs/embedding.md has only $passages passages of C; is the page whole?"; bad=1; }
exit $bad
