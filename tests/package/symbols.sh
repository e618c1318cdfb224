#!/usr/bin/env bash
# symbols.sh SOURCE SHARED STATIC: the shared library exports names that begin with wn_ and no others, and every
# function and variable that the public headers declare is among them. The static library defines no other global names
# either, so that it clashes with nobody.
set -u
source=$1 library=$2 archive=$3 bad=0
exported=$(nm -D --defined-only "$library" | awk '{print $3}' | sort -u)
[ -n "$exported" ] || { echo "$library exports nothing"; exit 1; }

foreign=$(grep -v '^wn_' <<<"$exported")
[ -z "$foreign" ] || { echo "exported, but not named wn_:"; echo "$foreign"; bad=1; }

foreign=$(nm --defined-only --extern-only "$archive" 2>/dev/null | awk 'NF == 3 && $3 !~ /^wn_/ { print $3 }' | sort -u)
[ -z "$foreign" ] || { echo "global in the static library, but not named wn_:"; echo "$foreign"; bad=1; }

headers=$(cd "$source/include" && printf '#include <%s>\n' winnow.h winnow/*.h)
declared=$(cc -E -P -I"$source/include" -x c - <<<"$headers" | tr '\n' ' ' | tr ';{}' '\n\n\n' |
    grep 'visibility("default")' | sed 's/__attribute__ *((visibility("default")))//' |
    sed 's/(.*//' | tr ',' '\n' | grep -oE '\bwn_[a-z0-9_]+ *$' | tr -d ' ' | sort -u)
[ "$(wc -l <<<"$declared")" -gt 50 ] || { echo "found too few declarations in the headers: this test is broken"; bad=1; }
absent=$(comm -13 <(echo "$exported") <(echo "$declared"))
[ -z "$absent" ] || { echo "declared by a public header, but not in the library:"; echo "$absent"; bad=1; }

soname=$(readelf -dW "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[[ $soname =~ ^libwinnow\.so\.[0-9]+$ ]] || { echo "soname is '$soname', not libwinnow.so.N"; bad=1; }
exit $bad
