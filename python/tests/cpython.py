"""Runs CPython's own tests with winnow installed in each mode, and stock beside it.

    python python/tests/cpython.py [--modes off,fast,...] [--budget-ms 0] [TEST...]

Needs the interpreter's `test` package (Debian: libpython3.11-testsuite). Exit status 1 if a test fails with winnow that does
not fail stock.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

TESTS = "test_gc test_weakref test_finalization test_io test_threading test_asyncio test_dict test_tuple test_generators test_descr"

# Tests that are left out with winnow, and why.
SKIP = {}

START = """import os
if os.environ.get("WINNOW_PYTHON"):
    import winnow._start
    winnow._start.start(os.environ["WINNOW_PYTHON"])
    count = os.environ.pop("WINNOW_COUNT", None)  # the tests' own process only: others must print nothing more
    if count:
        import atexit

        @atexit.register
        def write(count=count, pid=os.getpid()):
            if os.getpid() == pid:
                import json

                with open(count, "w") as f:
                    json.dump(winnow.stats(), f)
"""


def run_into(path, command, **how):
    """Returns the status and what was printed. Into a file: a process that a test has left behind would keep a pipe open,
    and the end of it would never come. The status is None when the command took too long."""
    with open(path, "w+", errors="replace") as output:
        try:
            status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, **how).returncode
        except subprocess.TimeoutExpired:
            status = None
        output.seek(0)
        return status, output.read()


def failed_in(text):
    return set(re.findall(r"^(?:FAIL|ERROR): (\S+ \(\S+\))", text, re.M))


def run(tests, mode, budget, folder, timeout):
    env = dict(os.environ)
    env.pop("WINNOW_PYTHON", None)
    if mode != "off":
        env["WINNOW_PYTHON"] = f"{mode},budget_ms={budget}"
        env["WINNOW_COUNT"] = os.path.join(folder, "count")
    env["PYTHONPATH"] = folder + os.pathsep + env.get("PYTHONPATH", "")
    skips = [word for name in SKIP for word in ("-i", name)] if mode != "off" else []
    command = [sys.executable, "-m", "test", "-v", *skips, *tests]
    status, text = run_into(os.path.join(folder, "output"), command, env=env, cwd=folder, timeout=timeout)
    if status is None:
        sys.exit(f"{mode}: the tests took longer than {timeout:.0f} s; --timeout gives them more")
    failed = sorted(failed_in(text))
    count = sum(int(n) for n in re.findall(r"^Ran (\d+) tests?", text, re.M))
    skipped = len(re.findall(r"\.\.\. skipped", text))
    full = 0
    if mode != "off":
        with open(os.path.join(folder, "count")) as f:
            full = json.load(f)["full_collections"]
    return status, count, skipped, failed, full, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--modes", default="off,fast,fork-friendly,concurrent")
    parser.add_argument("--budget-ms", default="0", help="0: concurrent mode snapshots even the smallest heap")
    parser.add_argument("--timeout", type=float, default=1800)
    parser.add_argument("--output", help="folder for the full output of each run")
    parser.add_argument("tests", nargs="*", default=TESTS.split())
    o = parser.parse_args()
    print("CPython", sys.version.split()[0], "tests:", " ".join(o.tests), flush=True)
    for name, why in SKIP.items():
        print(f"left out with winnow: {name}: {why}")
    worst, stock = 0, set()
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "sitecustomize.py"), "w") as f:
            f.write(START)
        for mode in o.modes.split(","):
            status, count, skipped, failed, full, text = run(o.tests, mode, o.budget_ms, folder, o.timeout)
            if o.output:
                os.makedirs(o.output, exist_ok=True)
                with open(os.path.join(o.output, f"{mode}.txt"), "w") as f:
                    f.write(text)
            print(f"{mode:14} {count:6} tests, {skipped} skipped by themselves, {full} full collections: "
                  f"{'passed' if status == 0 else 'FAILED'}", flush=True)
            for name in failed:
                print("   ", name, "(stock too)" if name in stock else "")
            if mode == "off":
                stock = set(failed)
            elif status and not (failed and set(failed) <= stock):
                worst = 1
    sys.exit(worst)


if __name__ == "__main__":
    main()
