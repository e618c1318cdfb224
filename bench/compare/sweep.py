"""Cost against heap size, and the lower-bound overhead that follows (Cai et al., ISPASS 2022).

Every system gets the same heap sizes: multiples of the least heap in which the most frugal of Winnow's collectors finishes.
A system that cannot run in a size has no point there. Go's limit is soft: it never fails, it collects more.
"""

import statistics

import measure
from workloads import SWEEP, SWEEP_FACTORS

LEAST, MOST = 1 << 20, 1 << 33


def least_heap(system, workload, params, timeout, tolerance=0.04):
    """The least heap limit at which a run succeeds, by bisection."""
    def works(size):
        try:
            measure.run(system, workload, params, timeout, limit=size)
            return True
        except measure.RunFailed:
            return False

    high = LEAST
    while not works(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > low * tolerance:
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle
    return high


def language(system):
    """Systems whose programs do the same work but for the collector share a lower bound."""
    return "Winnow" if system.winnow else system.name


def run(systems, repetitions, timeout, say):
    """Points: {workload, system, label, factor, heap_bytes, wall_s, cpu_s, gc_cpu_s, wall_lbo, cpu_lbo}."""
    systems = [s for s in systems if s.heap_limit]
    points = []
    for workload, params in SWEEP.items():
        frugal = []
        for system in (s for s in systems if s.winnow and s.runs(workload)):
            say("least heap of %s on %s" % (workload, system.name))
            least = least_heap(system, workload, params, timeout)
            if least:
                frugal.append(least)
        if not frugal:
            continue
        mine = []
        for factor in SWEEP_FACTORS:
            size = int(min(frugal) * factor)
            runs = {}
            for _ in range(repetitions):
                for system in (s for s in systems if s.runs(workload)):
                    say("%s at %.2f times the least heap, %s" % (workload, factor, system.name))
                    try:
                        runs.setdefault(system.name, []).append(measure.run(system, workload, params, timeout, limit=size))
                    except measure.RunFailed:
                        continue
            for system in systems:
                results = runs.get(system.name)
                if not results:
                    continue
                point = {"workload": workload, "system": system.name, "label": system.label, "factor": factor, "heap_bytes": size}
                for key in ("wall_s", "cpu_s", "gc_cpu_s"):
                    values = [r[key] for r in results if r.get(key) is not None]
                    point[key] = statistics.median(values) if values else None
                point["language"] = language(system)
                mine.append(point)
        bounds(mine)
        points += mine
    return points


def bounds(points):
    """Adds each point's overhead over the lower bound of its language."""
    for name in {point["language"] for point in points}:
        group = [p for p in points if p["language"] == name and p["gc_cpu_s"] is not None]
        if not group:
            continue
        cpu = min(max(p["cpu_s"] - p["gc_cpu_s"], 1e-9) for p in group)
        # What a collector does beside the program costs no wall time: wall's bound takes off at most all of the collector's.
        wall = min(max(p["wall_s"] - p["gc_cpu_s"], 0.1 * p["wall_s"]) for p in group)
        for p in points:
            if p["language"] == name:
                p["cpu_lbo"], p["wall_lbo"] = p["cpu_s"] / cpu, p["wall_s"] / wall
