#!/usr/bin/env python3
"""A full collection of a live graph of a million containers: CPython's gc.collect() beside Winnow's wn_collect.

The same graph in both, built by the same rule: containers of three references, to the one before, to an earlier one and to
any one; at random, or to neighbours in the order of allocation. Nothing is garbage. Runs of the two alternate; the
medians of nanoseconds per object are compared.

    bench/cpython_collect.py [--winnow build/bin/winnow] [--python python3.11] [--containers N] [--repetitions N]
                             [--collector NAME] [--json]

Exit status 1 when Winnow's cost is above a fifth of CPython's in either order.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

GOAL = 1 / 5

# What the other interpreter runs. The random numbers are those of bench/random.h.
CPYTHON = """
import gc, json, sys, time
n, randomly, times = map(int, sys.argv[1:])
gc.disable()
x = 4 % 2147483646 + 1
graph = [None] * n
for i in range(n):
    if not i:
        graph[i] = [None, None, None]
    elif randomly:
        x = x * 48271 % 2147483647
        graph[i] = [graph[i - 1], graph[x % i], None]
    else:
        graph[i] = [graph[i - 1], graph[i // 2], None]
for i in range(n):
    if randomly:
        x = x * 48271 % 2147483647
        graph[i][2] = graph[x % n]
    else:
        graph[i][2] = graph[(i + 1) % n]
gc.collect()
ns = []
for _ in range(times):
    start = time.perf_counter_ns()
    found = gc.collect()
    ns.append((time.perf_counter_ns() - start) / n)
    assert not found
print(json.dumps(ns))
"""


def cpython(python, containers, randomly, times):
    out = subprocess.run(
        [python, "-c", CPYTHON, str(containers), str(randomly), str(times)], capture_output=True, text=True, check=True
    )
    return statistics.median(json.loads(out.stdout))


def winnow(binary, collector, containers, randomly, times):
    command = [binary, "bench", "collect", "--collector", collector, "--repetitions", "1", "--json", "-", "--quiet"]
    for pair in ("containers=%d" % containers, "random=%d" % randomly, "collections=%d" % times):
        command += ["--param", pair]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["ns_per_object"]


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--winnow", default=os.path.join(root, "build", "bin", "winnow"), help="the command; build/bin/winnow")
    parser.add_argument("--python", default=shutil.which("python3.11") or sys.executable, help="the CPython to compare with")
    parser.add_argument("--collector", default="refcount")
    parser.add_argument("--containers", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    if not os.access(arguments.winnow, os.X_OK):
        parser.error("%s is not there; build it by `make`, or name it by --winnow" % arguments.winnow)
    if arguments.containers < 16 or arguments.repetitions < 1:
        parser.error("--containers must be at least 16, --repetitions at least 1")

    version = subprocess.run([arguments.python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    reached, lines = True, []
    for randomly, order in ((0, "in order of allocation"), (1, "at random")):
        theirs, ours = [], []
        for _ in range(arguments.repetitions):
            theirs.append(cpython(arguments.python, arguments.containers, randomly, 5))
            ours.append(winnow(arguments.winnow, arguments.collector, arguments.containers, randomly, 5))
        a, b = statistics.median(theirs), statistics.median(ours)
        reached &= b <= a * GOAL
        lines.append({"order": order, "containers": arguments.containers, "cpython_ns": a, "winnow_ns": b, "ratio": b / a})
    if arguments.json:
        print(json.dumps({"python": version, "collector": arguments.collector, "results": lines}))
    else:
        print("Full collection of %d live containers, ns per object" % arguments.containers)
        for line in lines:
            print(
                "  references %-23s %s gc.collect() %6.1f   Winnow %s %5.1f   ratio %.3f"
                % (line["order"], version, line["cpython_ns"], arguments.collector, line["winnow_ns"], line["ratio"])
            )
        print("  at most %.2f is wanted: %s" % (GOAL, "reached" if reached else "missed"))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
