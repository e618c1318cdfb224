"""A server's loop over a large live heap: the longest request with the interpreter's collector, gc.freeze() and winnow.

    python python/bench/server.py [--sizes 1e6] [--seconds 10] [--modes stock,freeze,fast,concurrent] [--json FILE]

Each request makes and drops some objects; sessions live for thousands of requests and die in cycles when they are old,
so full collections are really needed. Thresholds are the interpreter's own. Every mode serves the same requests in a
process of its own; `clock` does nothing but read the clock, which shows what the machine itself does to a request, and
the longest request is given in the thread's own CPU time too, which leaves out waiting for a processor. `concurrent+huge`
is concurrent mode with huge_pages=True.
"""

import argparse
import array
import gc
import json
import os
import random
import subprocess
import sys
import time

import heaps


SESSIONS, OF_A_SESSION = 20000, 8  # the containers of one, on average


class Session:
    def __init__(self, number):
        self.number = number
        self.cart = [{"item": i, "session": self} for i in range(3)]
        self.me = self


def memory_kb(name):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(name):
                return int(line.split()[1])


def percentile(sorted_values, p):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * p))]


def serve(mode, containers, requests, budget_ms):
    import winnow

    gc.disable()
    winnow.install("fast")  # as a service has it from its start; for the others only to build the heap sooner
    heap = heaps.build(max(0, containers - SESSIONS * OF_A_SESSION), aged=True)
    gc.collect()
    if mode in ("stock", "clock", "freeze"):
        winnow.uninstall()
    else:
        winnow.install(mode.partition("+")[0], budget_ms=budget_ms, huge_pages=mode.endswith("+huge"))
    gc.collect()
    winnow.clear_stats()
    gc.enable()
    if mode == "freeze":
        gc.freeze()
    r = random.Random(2)
    sessions = [Session(i) for i in range(SESSIONS)]
    took = array.array("Q", bytes(8 * requests))  # in a list, young collections would go through a million of ours
    most_cpu = 0
    start, cpu = time.perf_counter(), time.process_time()
    clock, cpu_clock = time.perf_counter_ns, time.thread_time_ns
    n = len(heap)
    for i in range(requests):
        c, t = cpu_clock(), clock()
        if mode != "clock":
            d = heap[r.randrange(n)].body
            answer = {"id": d["id"], "items": [dict(item) for item in d["items"]], "name": d["name"] + "!"}
            k = r.randrange(len(sessions))
            if i % 4 == 0:
                sessions[k] = Session(i)
            else:
                sessions[k].cart.append({"item": answer["id"], "session": sessions[k]})
                if len(sessions[k].cart) > 12:
                    del sessions[k].cart[:6]
        took[i] = clock() - t
        c = cpu_clock() - c
        if c > most_cpu:
            most_cpu = c
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    took = sorted(took)
    us = {p: percentile(took, p) / 1e3 for p in (0.5, 0.99, 0.999, 0.9999)}
    result = {"mode": mode, "containers": containers, "requests": requests, "wall_s": wall, "cpu_s": cpu,
              "max_ms": took[-1] / 1e6, "max_cpu_ms": most_cpu / 1e6, "p50_us": us[0.5], "p99_us": us[0.99], "p999_us": us[0.999], "p9999_us": us[0.9999],
              "peak_mb": memory_kb("VmHWM") / 1024, "full": gc.get_stats()[2]["collections"]}
    if winnow.installed():
        s = winnow.stats()
        result["winnow"] = {k: v for k, v in s.items() if k != "pauses_us"}
    print(json.dumps(result))
    os._exit(0)  # not another full collection of all that


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="1e6", help="live containers (1e7 takes 2 GB and a minute to build, each time)")
    parser.add_argument("--requests", type=float, default=1.5e6)
    parser.add_argument("--budget-ms", type=float, default=5)
    parser.add_argument("--modes", default="clock,stock,freeze,fast,concurrent,concurrent+huge")
    parser.add_argument("--json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        return serve(**json.loads(o.one))
    print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} processors, {int(o.requests)} requests")
    print(f"{'live':>9} {'mode':>15} {'longest':>12} {'of CPU':>12} {'p99':>9} {'p99.9':>9} {'p99.99':>10} {'wall':>8} {'CPU':>8} "
          f"{'peak':>8} {'full':>5}  longest stop, fork")
    for size in o.sizes.split(","):
        for mode in o.modes.split(","):
            one = {"mode": mode, "containers": int(float(size)), "requests": int(o.requests), "budget_ms": o.budget_ms}
            p = subprocess.run([sys.executable, __file__, "--one", json.dumps(one)], stdout=subprocess.PIPE, text=True)
            if p.returncode:
                sys.exit(f"the measurement of {one} failed")
            r = json.loads(p.stdout)
            w = r.get("winnow")
            more = f"{w['longest_ms']:.1f} ms, {w['fork_ms']:.1f} ms, {w['snapshots']} snapshots" if w else ""
            print(f"{size:>9} {mode:>15} {r['max_ms']:9.2f} ms {r['max_cpu_ms']:9.2f} ms {r['p99_us']:6.1f} us {r['p999_us']:6.1f} us "
                  f"{r['p9999_us']:7.1f} us {r['wall_s']:6.1f} s {r['cpu_s']:6.1f} s {r['peak_mb']:5.0f} MB {r['full']:>5}  {more}",
                  flush=True)
            if o.json:
                with open(o.json, "a") as f:
                    f.write(p.stdout)


if __name__ == "__main__":
    main()
