"""One run of one system, watched from outside; and what a set of runs amounts to."""

import json
import os
import statistics
import subprocess
import tempfile
import time

SAMPLE_S = 0.01
MMU_WINDOWS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
PAGE = os.sysconf("SC_PAGE_SIZE")


class RunFailed(Exception):
    pass


def _resident(pid):
    """Resident bytes of a process and of its children (`winnow bench` runs a workload in one)."""
    total = 0
    try:
        with open("/proc/%d/statm" % pid) as f:
            total = int(f.read().split()[1]) * PAGE
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            for child in f.read().split():
                total += _resident(int(child))
    except (OSError, IndexError):
        pass  # it ended meanwhile
    return total


def run(system, workload, params, timeout, limit=None, sample=False):
    """Runs a workload and returns what it printed; with `sample`, its memory over time as well."""
    command = system.arguments(workload, params)
    env = dict(os.environ, **system.env)
    if limit:
        words, more = system.limited(limit)
        command += words
        env.update(more)
    started = time.monotonic()
    memory = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        try:
            while True:
                try:
                    process.wait(SAMPLE_S if sample else 0.25)
                    break
                except subprocess.TimeoutExpired:
                    elapsed = time.monotonic() - started
                    if sample:
                        memory.append((round(elapsed, 3), _resident(process.pid)))
                    if elapsed > timeout:
                        raise RunFailed("stopped after %.0f s" % elapsed) from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        text = out.read().decode()
        err.seek(0)
        complaint = err.read().decode(errors="replace").strip()
    if process.returncode:
        last = complaint.splitlines()[-1] if complaint else ""
        raise RunFailed(last or "ended with status %d" % process.returncode)
    try:
        result = json.loads(text)
    except ValueError:
        raise RunFailed("printed no result") from None
    result["elapsed_s"] = time.monotonic() - started
    if sample:
        result["memory"] = memory
    return result


def quantile(histogram, q):
    """The upper bound of a quantile of [upper bound, count] pairs."""
    total = sum(n for _, n in histogram)
    rank, seen = q * total, 0
    for upper, n in histogram:
        seen += n
        if seen >= rank and n:
            return upper
    return histogram[-1][0] if histogram else 0.0


def merge(histograms):
    total = {}
    for histogram in histograms:
        for upper, n in histogram:
            total[upper] = total.get(upper, 0) + n
    return sorted(total.items())


def mmu(gaps, run_us, window_ms):
    """Minimum mutator utilisation: see bench/clock.c, which does the same."""
    window = min(window_ms * 1000.0, run_us)
    if window <= 0:
        return 1.0
    worst = total = first = 0
    for end, length in gaps:
        begin = max(0.0, end - window)
        total += length
        while gaps[first][0] <= begin:
            total -= gaps[first][1]
            first += 1
        oldest = gaps[first][0] - gaps[first][1]
        worst = max(worst, total - max(0.0, begin - oldest))
    return max(0.0, 1 - worst / window)


def summarize(system, workload, params, runs, failure=None):
    """One JSON line: medians, spreads, distributions of all runs of a system on a workload."""
    line = {"workload": workload, "system": system.name, "label": system.label, "parameters": params, "repetitions": len(runs)}
    if failure:
        line["failure"] = failure
    if not runs:
        return line
    line["checksum"] = runs[0]["checksum"]
    line["version"] = next((r["version"] for r in runs if "version" in r), "")
    for key in ("wall_s", "cpu_s", "gc_cpu_s", "peak_rss_bytes", "collections"):
        values = [r[key] for r in runs if r.get(key) is not None]
        if values:
            line[key] = statistics.median(values)
            line[key + "_spread"] = [min(values), max(values)]
            line[key + "_all"] = values
    stalls = merge(r["stall_histogram"] for r in runs)
    line["stall_histogram"] = stalls
    longest = [max([length for _, length in r["gaps_us"]], default=quantile(r["stall_histogram"], 1)) for r in runs]
    line["stall_max_us"] = statistics.median(longest)
    line["stall_max_us_spread"] = [min(longest), max(longest)]
    line["stall_p50_us"], line["stall_p999_us"] = quantile(stalls, 0.5), quantile(stalls, 0.999)
    line["mmu"] = {str(w): min(mmu(r["gaps_us"], r["run_us"], w) for r in runs) for w in MMU_WINDOWS_MS}
    pauses = [r["pause_us"]["max"] if "pause_us" in r else r.get("pause_max_us") for r in runs]
    pauses = [p for p in pauses if p is not None]
    if pauses:
        line["pause_max_us"] = statistics.median(pauses)
    if "request_us" in runs[0]:
        line["request_us"] = {k: statistics.median(r["request_us"][k] for r in runs) for k in ("p50", "p99", "p999", "max")}
    elif "request_histogram" in runs[0]:
        quantiles = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1}
        line["request_us"] = {
            k: statistics.median(quantile(r["request_histogram"], q) for r in runs) for k, q in quantiles.items()
        }
    memory = next((r["memory"] for r in runs if r.get("memory")), None)
    if memory:
        line["memory"] = memory
    return line
