"""What the comparison is judged by: ratios of medians, Winnow's by its peer's, lower is better.

A goal names the best of some systems on each side; a goal whose systems did not run is reported as not measured, never
as reached.
"""

from dataclasses import dataclass

WINNOW = ("winnow-refcount", "winnow-incremental", "winnow-concurrent")
LIBGC = ("libgc", "libgc-2-markers", "libgc-incremental")

# The peer of each collector's kind.
KIN = {"winnow-refcount": "cpython", "winnow-incremental": "pypy", "winnow-concurrent": "go"}


@dataclass(frozen=True)
class Goal:
    workload: str
    mine: tuple
    theirs: tuple
    key: str
    most: float
    what: str


def _goals():
    goals = []
    for workload in ("gcbench", "lru", "messages"):
        goals.append(Goal(workload, ("winnow-incremental",), ("pypy",), "wall_s", 0.5, "wall"))
    for workload in ("gcbench", "binarytrees", "lru", "cycles"):
        goals.append(Goal(workload, ("winnow-concurrent",), ("go",), "wall_s", 0.8, "wall"))
        goals.append(Goal(workload, ("winnow-concurrent",), ("go",), "cpu_s", 0.8, "CPU"))
    for workload in ("binarytrees", "gcbench"):
        goals.append(Goal(workload, WINNOW, LIBGC, "wall_s", 0.4, "wall"))
    goals.append(Goal("binarytrees", WINNOW, ("mimalloc",), "wall_s", 1.0, "wall"))
    goals.append(Goal("cycles", ("winnow-refcount",), ("cpython",), "wall_s", 0.2, "wall"))
    for workload in ("lru", "biglive"):
        goals.append(Goal(workload, ("winnow-concurrent",), ("go",), "stall_max_us", 0.2, "longest stall"))
        goals.append(Goal(workload, ("winnow-incremental",), ("pypy",), "stall_max_us", 0.2, "longest stall"))
    for workload in ("gcbench", "binarytrees", "lru", "messages", "biglive", "biglive-ring", "cycles", "store"):
        goals.append(Goal(workload, ("winnow-concurrent",), ("go",), "peak_rss_bytes", 1.0, "peak memory"))
    return goals


GOALS = _goals()


def best(lines, workload, systems, key):
    """(system, value) of the system with the least value, or None."""
    found = [
        (line[key], line["system"])
        for line in lines
        if line["workload"] == workload and line["system"] in systems and key in line and not line.get("failure")
    ]
    return tuple(reversed(min(found))) if found else None


def judge(lines):
    """For each goal: the goal, the two systems, the ratio and whether it is reached; ratio None: not measured."""
    verdicts = []
    for goal in GOALS:
        mine, theirs = best(lines, goal.workload, goal.mine, goal.key), best(lines, goal.workload, goal.theirs, goal.key)
        ratio = mine[1] / theirs[1] if mine and theirs and theirs[1] else None
        verdicts.append(
            {
                "goal": goal,
                "mine": mine[0] if mine else goal.mine[0],
                "theirs": theirs[0] if theirs else goal.theirs[0],
                "ratio": ratio,
                "reached": ratio is not None and ratio <= goal.most,
            }
        )
    return verdicts
