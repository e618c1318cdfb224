#!/usr/bin/env bash
# Makes a Python environment with what bench/compare needs (bench/compare/requirements.txt), or does nothing when it is
# there and up to date.   scripts/compare-venv.sh FOLDER
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: scripts/compare-venv.sh FOLDER" >&2; exit 2; }
requirements=$(dirname "$0")/../bench/compare/requirements.txt
if cmp -s "$requirements" "$1/requirements.txt"; then
    exit 0
fi
echo "compare: making a Python environment with the plotting library in $1"
python3 -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" || {
    echo "compare: pip could not install $(tr '\n' ' ' <"$requirements")" >&2
    echo "compare: connect to the network, or point pip at a mirror (pip config set global.index-url ...), and run it again" >&2
    exit 1
}
cp "$requirements" "$1/requirements.txt"
