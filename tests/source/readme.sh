#!/usr/bin/env bash
# What the documentation says of the tree is true of it: the README's program is examples/tree.c to the letter, and every
# file that a Markdown page links to exists.
set -u
cd "$1"
bad=0
shown=$(awk '/^```c$/ { n++; on = n == 1; next } /^```$/ { on = 0 } on' README.md)
[ "$shown" = "$(sed 1d examples/tree.c)" ] || {
    echo "README.md's first program differs from examples/tree.c:"
    diff <(echo "$shown") <(sed 1d examples/tree.c)
    bad=1
}
while IFS=: read -r page link; do
    target=${link#*](}
    target=${target%)}
    target=${target%%#*}
    case $target in http*|mailto:*|"") continue ;; esac
    [ -e "$(dirname "$page")/$target" ] || { echo "$page links to $target, which is not there"; bad=1; }
done < <(find . -name '*.md' -not -path './build*' -not -path './.git/*' -print0 | xargs -0 grep -oHE '\]\([^) ]+\)')
exit $bad
