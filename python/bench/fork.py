"""How much memory a forked worker makes private by collecting: stock, after gc.freeze(), and with winnow.

    python python/bench/fork.py [--megabytes 500] [--collections 10] [--json FILE]

The parent builds a heap of that size, forks a worker, and the worker runs full collections; its private dirty memory is
read from /proc/self/smaps_rollup before the first and after the last.
"""

import argparse
import gc
import json
import os
import subprocess
import sys

import heaps


def kilobytes(name):
    with open("/proc/self/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(name + ":"))


def measure(mode, megabytes, collections):
    gc.disable()
    if mode not in ("stock", "freeze"):
        import winnow

        winnow.install(mode)
    before = kilobytes("Rss")
    heap = heaps.build(20000, aged=False)
    each = (kilobytes("Rss") - before) / 20000
    more = heaps.build(max(0, int((megabytes * 1024 - kilobytes("Rss")) / each)), aged=False, seed=2)
    gc.collect()
    gc.collect()
    if mode == "freeze":
        gc.freeze()
    rss = kilobytes("Rss")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        kilobytes("Rss")
        first = kilobytes("Private_Dirty")
        steps = []
        for _ in range(collections):
            gc.collect()
            steps.append(kilobytes("Private_Dirty") - first)
        os.write(write, json.dumps(steps).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    steps = json.loads(os.read(read, 65536))
    print(json.dumps({"mode": mode, "heap_kb": rss, "objects": len(heap) + len(more), "private_kb": steps}))
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--collections", type=int, default=10)
    parser.add_argument("--modes", default="stock,freeze,fast,fork-friendly")
    parser.add_argument("--json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        return measure(**json.loads(o.one))
    print(f"CPython {sys.version.split()[0]}; private memory of a forked worker after {o.collections} full collections")
    print(f"{'mode':>14} {'parent':>9} {'after the first':>18} {'after the last':>18}")
    for mode in o.modes.split(","):
        one = {"mode": mode, "megabytes": o.megabytes, "collections": o.collections}
        p = subprocess.run([sys.executable, __file__, "--one", json.dumps(one)], stdout=subprocess.PIPE, text=True)
        if p.returncode:
            sys.exit(f"the measurement of {mode} failed")
        r = json.loads(p.stdout)
        show = [f"{kb / 1024:8.1f} MB {kb / r['heap_kb']:6.1%}" for kb in (r["private_kb"][0], r["private_kb"][-1])]
        print(f"{mode:>14} {r['heap_kb'] / 1024:6.0f} MB {show[0]:>18} {show[1]:>18}", flush=True)
        if o.json:
            with open(o.json, "a") as f:
                f.write(p.stdout)


if __name__ == "__main__":
    main()
