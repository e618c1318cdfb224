#!/usr/bin/env bash
# Builds and tests every preset that must be clean; prints one line per preset at the end. Exit status 0 only when all
# of them built and passed.   scripts/test.sh [PRESET...]     (default: release asan tsan)
set -u
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- release asan tsan
jobs=$(nproc)

# ThreadSanitizer of older compilers cannot place its shadow when the kernel randomises addresses widely; where a
# process may switch that off (not in every container) we do.
plain=()
setarch "$(uname -m)" -R true 2>/dev/null && plain=(setarch "$(uname -m)" -R)

summary=() failed=0
for preset in "$@"; do
    start=$SECONDS
    echo "== $preset: build"
    # Configured anew, because a folder of before may lack tests for want of what is installed by now.
    if cmake --preset "$preset" && cmake --build --preset "$preset"; then
        echo "== $preset: test"
        launcher=()
        [ "$preset" = tsan ] && launcher=("${plain[@]}")
        if "${launcher[@]}" ctest --preset "$preset" -j "$jobs"; then
            result="passed"
        else
            result="TESTS FAILED" failed=1
        fi
    else
        result="DOES NOT BUILD" failed=1
    fi
    summary+=("$(printf '%-8s %-15s %4d s' "$preset" "$result" $((SECONDS - start)))")
done

echo
echo "== summary"
printf '%s\n' "${summary[@]}"
[ $failed -eq 0 ] && echo "all good" || echo "not good: see above"
exit $failed
