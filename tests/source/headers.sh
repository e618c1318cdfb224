#!/usr/bin/env bash
# Every public header compiles alone, with warnings as errors, as C11 and as C++ and by each compiler that is here,
# and with the collector chosen at compile time; and what a client writes in C++ compiles and works.
#   headers.sh SOURCE LIBRARY
set -u
cd "$1"
library=$2
bad=0
try() { # label, command...; the source comes on stdin
    local label=$1 out
    shift
    out=$("$@" 2>&1) || { echo "$label:"; echo "$out"; bad=1; return 1; }
}
for header in include/winnow.h include/winnow/*.h; do
    name=${header#include/}
    for cc in gcc clang; do
        command -v $cc >/dev/null || continue
        for choice in "" -DWN_COLLECTOR=1 -DWN_COLLECTOR=2 -DWN_COLLECTOR=3; do
            echo "#include <$name>" | try "$name, $cc $choice" \
                $cc -std=c11 -Wall -Wextra -Wpedantic -Wstrict-prototypes -Wshadow -Wcast-align -Werror -fsyntax-only \
                    -Iinclude $choice -x c -
        done
    done
    for cxx in g++ clang++; do
        command -v $cxx >/dev/null || continue
        for standard in gnu++11 gnu++20; do
            echo "#include <$name>" | try "$name, $cxx $standard" \
                $cxx -std=$standard -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -x c++ -
        done
    done
done
program=$(mktemp)
trap 'rm -f "$program"' EXIT
for cxx in g++ clang++; do
    command -v $cxx >/dev/null || continue
    for standard in gnu++14 gnu++17 "c++20 -Wpedantic"; do
        # shellcheck disable=SC2086
        try "tests/source/headers.cc, $cxx $standard" $cxx -std=$standard -Wall -Wextra -Werror -Iinclude \
            tests/source/headers.cc "$library" -pthread -lm -o "$program" && try "and run" "$program"
    done
done
exit $bad
