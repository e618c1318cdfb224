"""An hour's worth of requests (3.6 million, a thousand a second) in one run, under a limit of address space.

    python python/bench/soak.py [--mode concurrent] [--requests 3.6e6] [--live 2e5] [--limit 2.0]

Each request leaves cycles behind, some old, some with finalizers and weak references. Ends with status 1 if memory is
still growing at the end, if finalizers were missed, or if an object that is in use has changed.
"""

import argparse
import gc
import random
import resource
import sys
import time
import weakref

import heaps
import winnow

made = finalized = 0


class Job:
    def __init__(self, number):
        global made
        made += 1
        self.number = number
        self.parts = [{"job": self, "n": number}, (self, [number])]
        self.me = weakref.ref(self, lambda _: None)

    def __del__(self):
        global finalized
        finalized += 1


def resident_mb():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mode", choices=(*winnow.MODES, "stock", "all"), default="all", help="all: change mode as it runs")
    parser.add_argument("--requests", type=float, default=3.6e6)
    parser.add_argument("--live", type=float, default=2e5, help="containers that stay")
    parser.add_argument("--limit", type=float, default=2.0, help="address space, as a multiple of what the live heap takes")
    o = parser.parse_args()
    heap = heaps.build(int(o.live), aged=False)
    check = {i: heap[i].body["name"] for i in range(0, len(heap), 97)}
    with open("/proc/self/statm") as f:
        size = int(f.read().split()[0]) * 4096
    # Side tables reserve some addresses for every GiB of them that has objects, and a snapshot's answer more.
    limit = int(size * o.limit) + (256 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    modes = list(winnow.MODES) if o.mode == "all" else [o.mode]
    requests = int(o.requests)
    r = random.Random(1)
    recent = [Job(i) for i in range(5000)]
    samples = []
    start = time.perf_counter()
    print(f"{requests} requests, {len(heap)} documents live, address space limited to {limit / 1e6:.0f} MB", flush=True)
    for i in range(requests):
        if i % max(1, requests // 12) == 0:
            mode = modes[i * 12 // requests % len(modes)]
            if mode != "stock":
                winnow.install(mode, budget_ms=1 if i % 2 else 5)
        Job(i)
        recent[r.randrange(5000)] = Job(i)
        k = r.randrange(len(heap))
        if k % 97 and i % 20 == 0:
            heap[k] = heaps.document(k, r)
        if i % max(1, requests // 40) == 0:
            samples.append((resident_mb(), mode))
    wall = time.perf_counter() - start
    fallbacks = winnow.stats()["fallbacks"] if modes != ["stock"] else {}
    gc.collect()
    ok = True
    print(f"{wall:.0f} s, {requests / wall:.0f} requests a second")
    for mode in modes:
        mine = [mb for mb, m in samples[len(samples) // 4 :] if m == mode]
        early, late = max(mine[: len(mine) // 2]), max(mine[len(mine) // 2 :])
        print(f"{mode}: resident memory at most {early:.0f} MB in the first half, {late:.0f} MB in the second")
        if late > early * 1.1 + 5:
            print("memory grows")
            ok = False
    if made - finalized != len({id(j) for j in recent}):
        print(f"{made} objects with finalizers made, {finalized} finalized, {len(recent)} alive")
        ok = False
    if any(heap[i].body["name"] != name for i, name in check.items()):
        print("an object that was in use has changed")
        ok = False
    if modes != ["stock"]:
        winnow.report(sys.stdout)
        print("fallbacks:", fallbacks)
    print("ok" if ok else "NOT OK")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
