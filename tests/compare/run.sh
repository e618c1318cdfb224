#!/usr/bin/env bash
# Tests of bench/compare: its arithmetic, and its page in a real browser.   run.sh SOURCE-FOLDER BUILD-FOLDER
# Exit status 77 (skipped) where the plotting library cannot be had, as without a network.
set -euo pipefail
"$1/scripts/compare-venv.sh" "$2/compare-venv" || exit 77
PYTHONPATH="$1/bench/compare" PYTHONDONTWRITEBYTECODE=1 WINNOW="$2/bin/winnow" exec "$2/compare-venv/bin/python" -m unittest discover -s "$1/tests/compare" -p 'test_*.py' -v
