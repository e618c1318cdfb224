#!/bin/sh
# Checks one Spin model: `run.sh MODEL.pml` must find no error in it, `run.sh MODEL.pml VARIANT` (a macro that breaks
# the model on purpose) must find one. Exit status 77 (skipped) when spin is not installed.
set -eu
if [ $# -lt 1 ]; then
    echo "usage: $0 MODEL.pml [VARIANT]; VARIANT is a macro that breaks the model on purpose" >&2
    exit 2
fi
command -v spin >/dev/null 2>&1 || { echo "spin is not installed; run scripts/setup.sh to get it"; exit 77; }
model=$(realpath "$1")
variant=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
spin ${variant:+-D"$variant"} -a "$model" >generate.log || { cat generate.log; exit 1; }
# -DSAFETY: assertions and dead ends only; -DCOLLAPSE: states compressed, so that the search fits into small machines.
${CC:-cc} -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=4096 -o pan pan.c
./pan -m5000000 -w24 >pan.log 2>&1 || true
cat pan.log
if ! grep -q "^State-vector" pan.log; then
    echo "the search did not finish"
    exit 1
fi
if grep -q "search not completed\|max search depth too small\|out of memory" pan.log && [ -z "$variant" ]; then
    echo "$1: the search was cut short, so it proves nothing; enlarge its limits in $0"
    exit 1
fi
if grep -q "errors: 0" pan.log; then found=no; else found=yes; fi
if [ -z "$variant" ] && [ $found = yes ]; then
    echo "$1: violated"
    exit 1
fi
if [ -n "$variant" ] && [ $found = no ]; then
    echo "$1: the mistake $variant was not found, so the model is too weak"
    exit 1
fi
