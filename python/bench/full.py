"""Full collections of live heaps: gc.collect() of the interpreter and of winnow, in turn, in the same process.

    python python/bench/full.py [--sizes 1e5,1e6,1e7] [--rounds 5] [--json FILE]

Prints a table of medians with spread and the ratio of the medians. Each heap is a process of its own.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time

import heaps
import winnow
from winnow import _native


def timed(call):
    t = time.perf_counter()
    n = call()
    return time.perf_counter() - t, n


def measure(containers, age, garbage, rounds):
    gc.disable()
    winnow.install("fast", threads=1)
    make = heaps.in_order if age == "ordered" else heaps.document
    heap = heaps.build(containers, age == "aged", make=make)
    gc.collect()
    gc.collect()
    times = {"stock": [], "1 thread": [], "2 threads": []}
    freed = {}
    parts = {}
    for i in range(rounds):
        for j, who in enumerate(times):
            if garbage:
                heaps.drop_some(heap, garbage, 3 * i + j, make)
            if who != "stock":
                winnow.install("fast", threads=int(who[0]))
            t, n = timed(_native.collect_stock if who == "stock" else gc.collect)
            times[who].append(t)
            freed[who] = n
            if who == "stock":
                gc.collect()  # gets to know once more what the interpreter has shuffled, as it would not where winnow is used
            else:
                s = winnow.stats()
                parts[who] = {k: round(s[k], 2) for k in ("walk_ms", "mark_ms", "trial_ms", "dispose_ms")}
    s = winnow.stats()
    result = {"containers": s["tracked"], "age": age, "garbage": garbage, "freed": freed, "parts": parts,
              "fallbacks": s["fallbacks"]}
    for who, t in times.items():
        result[who] = {"ms": [round(x * 1e3, 3) for x in t], "median": statistics.median(t) * 1e3}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="1e5,1e6", help="containers, of each heap (1e7 takes 2 GB and some minutes)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ages", default="ordered,fresh,aged", help="ordered: made in the order in which it is reached; "
                        "fresh: as parsed and loaded; aged: replaced at random, twice over")
    parser.add_argument("--garbage", default="0,0.1")
    parser.add_argument("--json", help="also write the results there, a line for each heap")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        print(json.dumps(measure(**json.loads(o.one))))
        return
    print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} processors; medians of {o.rounds}, ms (least..most)")
    print(f"{'heap':>24} {'containers':>10} {'stock':>24} {'1 thread':>22} {'ratio':>6} {'2 threads':>22} {'ratio':>6}")
    for size in o.sizes.split(","):
        for age in o.ages.split(","):
            for garbage in o.garbage.split(","):
                one = {"containers": int(float(size)), "age": age, "garbage": float(garbage), "rounds": o.rounds}
                p = subprocess.run([sys.executable, __file__, "--one", json.dumps(one)], stdout=subprocess.PIPE, text=True)
                if p.returncode:
                    sys.exit(f"the measurement of {one} failed")
                r = json.loads(p.stdout)

                def show(who):
                    ms = r[who]["ms"]
                    return f"{r[who]['median']:.1f} ({min(ms):.1f}..{max(ms):.1f})"

                ratio = [f"{r['stock']['median'] / r[who]['median']:.1f}x" for who in ("1 thread", "2 threads")]
                name = f"{age}, {float(garbage):.0%} garbage"
                print(f"{name:>24} {r['containers']:>10} {show('stock'):>24} {show('1 thread'):>22} {ratio[0]:>6} "
                      f"{show('2 threads'):>22} {ratio[1]:>6}", flush=True)
                if o.json:
                    with open(o.json, "a") as f:
                        f.write(json.dumps(r) + "\n")


if __name__ == "__main__":
    main()
