#!/usr/bin/env python3
"""Memory that forked workers make their own: a Winnow store beside CPython with as large a store.

Winnow: `winnow bench fork fork-freeze`: four workers, each running ten full collections, every second of them also reading
documents. CPython: the same documents as dicts, lists and strings with a link to their parent, and four forked workers
that do the same. Both tell what smaps_rollup counts as Private_Dirty beyond what it was right after fork().

    bench/fork_private.py [--winnow build/bin/winnow] [--python python3.11] [--megabytes 500] [--collector NAME]

Exit status 1 when, without freeze, a page that holds objects became private or a worker's private memory is above 10 % of
the store, or, with freeze, above 1 %.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys

CPYTHON = r"""
import gc, glob, json, os, sys
target, freeze, reads = int(sys.argv[1]) << 20, int(sys.argv[2]), int(sys.argv[3])

def memory(field):
    with open("/proc/self/smaps_rollup") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024

gc.disable()
texts = [open(file).read() for file in sorted(glob.glob("/usr/share/iso-codes/json/iso_*.json"))]
if not texts:
    sys.exit("the package iso-codes is not installed")
base = memory("Rss")
store = []
while memory("Rss") - base < target:
    for text in texts:
        for rows in json.loads(text).values():
            for row in rows:
                document = {"id": len(store), "root": row}
                row["parent"] = document
                store.append(document)
gc.collect()
if freeze:
    gc.freeze()
size = memory("Rss") - base
pipes = []
for worker in range(4):
    r, w = os.pipe()
    if not os.fork():
        before = memory("Private_Dirty")
        x = 101 + worker
        total = 0
        for _ in range(10):
            if worker % 2:
                for _ in range(reads // 10):
                    x = x * 48271 % 2147483647
                    for key, value in store[x % len(store)]["root"].items():
                        total += len(key)
            gc.collect()
        os.write(w, b"%d\n" % (memory("Private_Dirty") - before))
        os._exit(0)
    os.close(w)
    pipes.append(r)
dirty = [int(os.read(r, 100)) for r in pipes]
print(json.dumps({"store": size, "dirty": dirty}))
"""


def percent(dirty, store):
    return " ".join("%7.2f" % (100 * d / store) for d in dirty)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--winnow", default=os.path.join(root, "build", "bin", "winnow"), help="the command; build/bin/winnow")
    parser.add_argument("--python", default=shutil.which("python3.11") or sys.executable, help="the CPython to compare with")
    parser.add_argument("--collector", default="refcount")
    parser.add_argument("--megabytes", type=int, default=500, help="size of the store; 500")
    parser.add_argument("--reads", type=int, default=100_000, help="documents read by a worker that reads")
    parser.add_argument("--skip-python", action="store_true", help="only Winnow")
    arguments = parser.parse_args()
    if not os.access(arguments.winnow, os.X_OK):
        parser.error("%s is not there; build it by `make`, or name it by --winnow" % arguments.winnow)

    print("Private memory of each of four workers after ten full collections, in %% of a store of %d MB" % arguments.megabytes)
    print("%-34s %31s" % ("(the 2nd and the 4th also read)", "worker 1       2       3       4"))
    good = True
    for workload, limit in (("fork", 10), ("fork-freeze", 1)):
        command = [arguments.winnow, "bench", workload, "--collector", arguments.collector, "--repetitions", "1", "--json", "-"]
        command += ["--param", "megabytes=%d" % arguments.megabytes, "--param", "reads=%d" % arguments.reads]
        line = json.loads(subprocess.run(command + ["--quiet"], stdout=subprocess.PIPE, text=True, check=True).stdout)
        dirty, pages = line["private_dirty_bytes"], line["private_object_pages"]
        print("%-34s %s" % ("Winnow %s, %s" % (arguments.collector, workload), percent(dirty, line["store_heap_bytes"])))
        print(
            "%-34s %s  of %d"
            % ("  pages with objects made private", " ".join("%7d" % p for p in pages), line["object_pages"])
        )
        good &= all(100 * d / line["store_heap_bytes"] <= limit for d in dirty) and not any(pages)
    for freeze in () if arguments.skip_python else (0, 1):
        command = [arguments.python, "-c", CPYTHON, str(arguments.megabytes), str(freeze), str(arguments.reads)]
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        name = "CPython, gc.freeze()" if freeze else "CPython"
        print("%-34s %s" % (name, percent(result["dirty"], result["store"])))
    print("at most 10 %% without freeze and 1 %% with it, and no page with objects: %s" % ("reached" if good else "missed"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
