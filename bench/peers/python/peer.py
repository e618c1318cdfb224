"""Runs one of Winnow's workloads in Python, on CPython's collector or PyPy's.

    peer.py WORKLOAD NAME=VALUE...

Prints one JSON object: the checksum, which must be that of every other system, times, the collector's own figures, and the
stalls that the program saw. The parameters are those of `winnow bench --list`; all of a workload's are required.
"""

import gc
import json
import platform
import resource
import sys
import time

import graphs
import lru
import messages
import store
import trees
from clock import clock, requests, tick

WORKLOADS = {
    "gcbench": trees.gcbench,
    "binarytrees": trees.binarytrees,
    "lru": lru.lru,
    "messages": messages.ring,
    "messages-map": messages.by_number,
    "biglive": graphs.biglive,
    "biglive-ring": graphs.biglive,
    "biglive-rewired": graphs.biglive,
    "cycles": graphs.cycles,
    "mutate": graphs.mutate,
    "store": store.store,
    "control": graphs.control,
}


class CPythonWatch:
    """Times collections by gc.callbacks."""

    def __init__(self):
        self.seconds = self.longest = 0.0
        self.collections = 0
        gc.callbacks.append(self.hear)

    def hear(self, phase, info):
        now = time.perf_counter()
        if phase == "start":
            self.began = now
        else:
            self.seconds += now - self.began
            self.longest = max(self.longest, now - self.began)
            self.collections += 1

    def report(self):
        return {"gc_cpu_s": self.seconds, "pause_max_us": self.longest * 1e6, "collections": self.collections}


class PyPyWatch:
    """Adds up the seconds that PyPy's hooks tell of."""

    def __init__(self):
        self.seconds = self.longest = 0.0
        self.collections = 0
        gc.hooks.on_gc_minor = self.minor
        gc.hooks.on_gc_collect_step = self.step

    def minor(self, stats):
        self.collections += stats.count
        self.step(stats)

    def step(self, stats):
        self.seconds += stats.duration
        if stats.duration_max > self.longest:
            self.longest = stats.duration_max

    def report(self):
        return {"gc_cpu_s": self.seconds, "pause_max_us": self.longest * 1e6, "collections": self.collections}


def peak_rss():
    """The greatest resident size since the program began: VmHWM, which, unlike ru_maxrss, forgets who started it."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024


def fatal(message):
    sys.stderr.write("peer: %s\n" % message)
    raise SystemExit(2)


def main(arguments):
    if not arguments or arguments[0] not in WORKLOADS:
        fatal("name a workload: " + " ".join(WORKLOADS))
    try:
        params = {name: int(value) for name, value in (text.split("=") for text in arguments[1:])}
    except ValueError:
        fatal("write parameters as NAME=NUMBER")
    run = WORKLOADS[arguments[0]]
    wanted = run.__code__.co_varnames[: run.__code__.co_argcount]
    for name in wanted:
        if name.rstrip("_") not in params:
            fatal("the parameter %s is missing" % name.rstrip("_"))
    values = [params[name.rstrip("_")] for name in wanted]

    sys.setrecursionlimit(10000)
    watch = PyPyWatch() if platform.python_implementation() == "PyPy" else CPythonWatch()
    start = time.perf_counter()
    tick()
    checksum = run(*values)
    tick()
    wall = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "checksum": checksum,
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": peak_rss(),
        "version": platform.python_implementation() + " " + platform.python_version(),
    }
    if hasattr(sys, "pypy_version_info"):
        result["version"] = "PyPy %d.%d.%d" % sys.pypy_version_info[:3]
    result.update(watch.report())
    # It is timed by the wall clock: where the processor had other work as well, it had the share that the program had.
    result["gc_cpu_s"] *= min(1, result["cpu_s"] / wall)
    result.update(clock.report())
    if any(requests.bucket):
        result["request_histogram"] = requests.pairs()
    print(json.dumps(result))


main(sys.argv[1:])
