"""The workloads of the comparison and their parameters, which are the same for every system."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    name: str
    full: dict
    quick: dict = None  # None: not part of a quick comparison
    slow_in_quick: frozenset = frozenset()  # systems too slow for it within five minutes
    why: str = ""


def _biglive(name, ring, rewire, quick, why):
    full = {"nodes": 5_000_000, "allocations": 100_000_000, "ring": ring, "rewire": rewire}
    small = {"nodes": 1_000_000, "allocations": 20_000_000, "ring": ring, "rewire": rewire}
    return Workload(name, full, small if quick else None, frozenset({"cpython", "libgc-incremental", "libgc-2-markers"}), why)


_GCBENCH = {"stretch_depth": 18, "long_lived_depth": 16, "array": 500_000, "min_depth": 4, "max_depth": 16}

WORKLOADS = [
    Workload("gcbench", _GCBENCH, _GCBENCH, why="trees of many sizes, built top down and bottom up, beside a long-lived tree"),
    Workload("binarytrees", {"depth": 20}, {"depth": 17}, frozenset({"cpython"}), "trees built, walked, dropped"),
    Workload(
        "lru",
        {"entries": 1_000_000, "operations": 10_000_000},
        {"entries": 1_000_000, "operations": 2_000_000},
        frozenset({"cpython", "libgc-incremental", "libgc-2-markers"}),
        "a cache of a million linked entries: objects die old",
    ),
    Workload(
        "messages",
        {"kept": 200_000, "pushed": 10_000_000, "bytes": 1024},
        {"kept": 200_000, "pushed": 2_000_000, "bytes": 1024},
        frozenset({"libgc-incremental", "libgc-2-markers"}),
        why="messages of 1 KiB in a ring, the oldest dropped",
    ),
    Workload("messages-map", {"kept": 200_000, "pushed": 10_000_000, "bytes": 1024}, why="the same in a map by number"),
    _biglive("biglive", 1024, 0, True, "short-lived garbage beside a large live graph with cycles"),
    _biglive("biglive-ring", 500_000, 0, True, "the same with 500,000 medium-lived objects"),
    _biglive("biglive-rewired", 1024, 8, False, "the same while edges of the graph change"),
    Workload(
        "cycles",
        {"cycles": 10_000_000},
        {"cycles": 2_000_000},
        frozenset({"libgc-incremental", "libgc-2-markers"}),
        "small cycles dropped",
    ),
    Workload("mutate", {"nodes": 1_000_000, "operations": 20_000_000}, why="pointers of a graph rewritten at random"),
    Workload(
        "store",
        {"copies": 8, "rate": 20_000, "requests": 200_000},
        {"copies": 2, "rate": 20_000, "requests": 30_000},
        why="a JSON document store served at a fixed rate",
    ),
    Workload("control", {"seconds": 3}, {"seconds": 1}, why="only reads the clock: the machine's own stalls"),
]

BY_NAME = {workload.name: workload for workload in WORKLOADS}

# What the sweep over heap sizes runs: the same, small enough to be run a few hundred times.
SWEEP = {
    "gcbench": _GCBENCH,
    "binarytrees": {"depth": 16},
    "lru": {"entries": 200_000, "operations": 1_000_000},
}
SWEEP_FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
