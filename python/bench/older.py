"""Collections of the second generation in a server's loop over a large aged heap: the interpreter's and winnow's, in turn.

    python python/bench/older.py [--size 1e6] [--rounds 100]

A round lasts until such a collection has been made; the young collections before it are of the same kind. There are no full
ones. Set-up and taking down lie between rounds and are not timed.
"""

import argparse
import gc
import os
import random
import sys
import time

import heaps
import winnow
from winnow import _native
from server import Session


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=float, default=1e6)
    parser.add_argument("--rounds", type=int, default=100)
    o = parser.parse_args()
    gc.disable()
    winnow.install("fast")  # only to build the heap sooner
    heap = heaps.build(int(o.size), aged=True)
    gc.collect()
    winnow.uninstall()
    gc.set_threshold(gc.get_threshold()[0], gc.get_threshold()[1], 1 << 30)
    took = {(kind, generation): [] for kind in ("stock", "winnow") for generation in (0, 1)}
    kind, begun, over = "stock", 0, False

    def first(phase, info):
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter_ns()

    def last(phase, info):
        nonlocal over
        if phase == "stop":
            took[kind, info["generation"]].append(time.perf_counter_ns() - begun)
            over = info["generation"] == 1

    r = random.Random(2)
    sessions = [Session(i) for i in range(20000)]
    gc.collect()
    request = 0
    for turn in range(o.rounds):
        kind, over = ("stock", "winnow")[turn % 2], False
        winnow.install("fast")
        _native.find(1)  # a process that uses winnow has it from the start, and need not get to know the old objects
        if kind == "stock":
            winnow.uninstall()
        gc.callbacks.insert(0, first)
        gc.callbacks.append(last)
        gc.enable()
        while not over:
            request += 1
            d = heap[r.randrange(len(heap))].body
            answer = {"id": d["id"], "items": [dict(item) for item in d["items"]], "name": d["name"] + "!"}
            k = r.randrange(len(sessions))
            if request % 4 == 0:
                sessions[k] = Session(request)
            else:
                sessions[k].cart.append({"item": answer["id"], "session": sessions[k]})
                if len(sessions[k].cart) > 12:
                    del sessions[k].cart[:6]
        gc.disable()
        gc.callbacks.remove(first)
        gc.callbacks.remove(last)
        if kind == "winnow":
            winnow.uninstall()

    def at(kind, generation, part):
        values = sorted(took[kind, generation])
        return values[int(len(values) * part)] / 1e6

    print(f"CPython {sys.version.split()[0]}, {int(o.size)} live containers, {o.rounds // 2} rounds of each")
    for kind in ("stock", "winnow"):
        print(f"{kind:7} second generation: median {at(kind, 1, 0.5):.3f} ms, p90 {at(kind, 1, 0.9):.3f} ms; "
              f"youngest: median {at(kind, 0, 0.5):.4f} ms")
    print(f"{at('stock', 1, 0.5) / at('winnow', 1, 0.5):.2f} times")
    sys.stdout.flush()
    os._exit(0)  # not another full collection of all that


if __name__ == "__main__":
    main()
