"""Winnow and its peers side by side; `make compare` runs this.

    python3 bench/compare [--quick] [--workloads LIST] [--systems LIST] ...
    python3 bench/compare --revision A --revision B       a canary: two revisions of Winnow

Every run is a process of its own. Runs are interleaved: every system once, then every system again. Checksums must agree, or
the run is refused. See docs/performance.md for the method.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time

import measure
import systems as systems_
import table
from workloads import BY_NAME, WORKLOADS

QUICK_SECONDS = 225  # for the runs; building the peers and writing the page come on top
SLOW_SECONDS = {True: 4, False: 60}  # what takes longer is run once; by quick
TIMEOUT = {True: 40, False: 900}


def parse():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller workloads, done within five minutes")
    parser.add_argument("--repetitions", type=int, help="runs of each that takes less than a minute; default 5, quick: as many as there is time for, at most 5")
    parser.add_argument("--workloads", help="only these, separated by commas")
    parser.add_argument("--systems", help="only these, separated by commas, as winnow-refcount,go,pypy")
    parser.add_argument("--winnow", help="the winnow command; default build/bin/winnow")
    parser.add_argument("--output", help="folder for results.jsonl, results.md, overview.svg and index.html; default build/compare")
    parser.add_argument("--no-sweep", action="store_true", help="a full run without the sweep over heap sizes")
    parser.add_argument("--revision", action="append", default=[], help="twice: compare two revisions of Winnow instead")
    parser.add_argument("--tolerance", type=float, default=0.05, help="with --revision: slower by more than this fails; 0.05")
    parser.add_argument("--list", action="store_true", help="list workloads and systems")
    arguments = parser.parse_args()
    if arguments.revision and len(arguments.revision) != 2:
        parser.error("--revision must be given twice, or not at all")
    if arguments.repetitions is not None and arguments.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    arguments.winnow = arguments.winnow or os.path.join(systems_.ROOT, "build", "bin", "winnow")
    arguments.output = arguments.output or os.path.join(systems_.ROOT, "build", "compare")
    for name in (arguments.workloads or "").split(","):
        if name and name not in BY_NAME:
            parser.error("there is no workload %s; there are %s" % (name, ", ".join(BY_NAME)))
    return parser, arguments


class Progress:
    """A line on standard error: written over on a terminal, else only now and then."""

    def __init__(self):
        self.terminal = sys.stderr.isatty()
        self.last = 0

    def say(self, text):
        if self.terminal:
            sys.stderr.write("\r\033[K" + text[:110])
        elif time.monotonic() - self.last >= 15:
            self.last = time.monotonic()
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def clear(self):
        if self.terminal:
            sys.stderr.write("\r\033[K")


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) / 2**20
    text = "%s, %d processors, %.0f GB, Linux %s" % (model, os.cpu_count(), memory, platform.release())
    return "%s; load %.2f at the start; %s" % (text, os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))


def params_of(workload, quick):
    return workload.quick if quick else workload.full


def pairs_of(systems, workloads, quick):
    """(workload, system) in the order of a round."""
    return [
        (w, s) for w in workloads for s in systems if s.runs(w.name) and not (quick and s.name in w.slow_in_quick)
    ]


def run_rounds(pairs, arguments, progress):
    """Runs all pairs again and again; returns {(workload, system): [runs]} and {(workload, system): why it failed}."""
    quick, runs, failures, spent = arguments.quick, {}, {}, {}
    rounds = arguments.repetitions or 5
    budget = QUICK_SECONDS if quick else float("inf")
    began = time.monotonic()
    for number in range(rounds):
        for workload, system in pairs:
            key = (workload.name, system.name)
            elapsed = time.monotonic() - began
            # A pair that failed, that is slow, or for which there is no time any more, is not run again.
            if key in failures or number and (spent[key] > SLOW_SECONDS[quick] or elapsed + spent[key] > budget):
                continue
            progress.say("round %d of %d, %.0f s: %s on %s" % (number + 1, rounds, elapsed, workload.name, system.label))
            started = time.monotonic()
            try:
                result = measure.run(
                    system, workload.name, params_of(workload, quick), TIMEOUT[quick], sample=number == 0 or number == 1
                )
                runs.setdefault(key, []).append(result)
            except measure.RunFailed as failure:
                failures[key] = str(failure)
            spent[key] = time.monotonic() - started
        if number == 0 and not quick:
            progress.clear()
            one = time.monotonic() - began
            again = sum(seconds for seconds in spent.values() if seconds <= SLOW_SECONDS[quick])
            left = again * (rounds - 1) / 60
            print("The first round took %.0f s; %d more will take about %.0f minutes." % (one, rounds - 1, left), file=sys.stderr)
    progress.clear()
    return runs, failures


def refuse_differing(runs, failures):
    """Runs whose checksum is not that of the others are no comparison."""
    good = True
    for name in dict.fromkeys(key[0] for key in runs):
        sums = {key: {r["checksum"] for r in results} for key, results in runs.items() if key[0] == name}
        votes = [checksum for found in sums.values() for checksum in found]
        if not votes:
            continue
        right = max(set(votes), key=votes.count)
        for key, found in sums.items():
            if found != {right}:
                good = False
                failures[key] = "refused: checksum %s, the others' is %08x" % (" ".join("%08x" % c for c in found), right)
                runs[key] = []
    return good


def summarize(systems, workloads, arguments, runs, failures):
    lines = []
    for workload in workloads:
        for system in systems:
            key = (workload.name, system.name)
            failure = failures.get(key)
            if not system.runs(workload.name):
                continue
            if key not in runs and not failure:
                failure = "not part of a quick comparison: too slow" if arguments.quick else "not run"
            params = params_of(workload, arguments.quick)
            lines.append(measure.summarize(system, workload.name, params, runs.get(key, []), failure))
    return lines


def choose(parser, systems, names):
    if not names:
        return systems
    known = [system.name for system in systems]
    for name in names.split(","):
        if name not in known:
            parser.error("there is no system %s; there are %s" % (name, ", ".join(known)))
    return [system for system in systems if system.name in names.split(",")]


def main():
    parser, arguments = parse()
    progress = Progress()
    try:
        os.makedirs(arguments.output, exist_ok=True)
        with tempfile.TemporaryFile(dir=arguments.output):
            pass  # now, and not after the minutes or hours that the runs take
    except OSError as error:
        parser.error("nothing can be written to %s: %s; choose another folder by --output" % (arguments.output, error.strerror))
    try:
        if arguments.revision:
            built = [systems_.build_revision(revision, arguments.output) for revision in arguments.revision]
            suffixes = [commit for _, commit in built]
            everything = [system for binary, commit in built for system in systems_.winnow(binary, "@" + commit)]
        else:
            if not os.access(arguments.winnow, os.X_OK):
                parser.error("%s is not there; `make` builds it" % arguments.winnow)
            progress.say("building the peers")
            everything = systems_.winnow(arguments.winnow) + systems_.build_peers(os.path.join(arguments.output, "peers"))
            everything.append(systems_.control(arguments.winnow))
    except systems_.SetupError as error:
        progress.clear()
        print("compare: %s" % error, file=sys.stderr)
        return 1
    chosen = choose(parser, everything, arguments.systems)
    wanted = arguments.workloads.split(",") if arguments.workloads else list(BY_NAME)
    workloads = [w for w in WORKLOADS if w.name in wanted and params_of(w, arguments.quick)]
    if arguments.list:
        print("workloads: %s\nsystems:   %s" % (", ".join(BY_NAME), ", ".join(s.name for s in everything)))
        return 0

    where = machine()
    print(where)
    if not arguments.quick:
        print("A full comparison takes one to two hours; after the first round it says how long. --quick takes five minutes.")
    runs, failures = run_rounds(pairs_of(chosen, workloads, arguments.quick), arguments, progress)
    agreed = refuse_differing(runs, failures)
    lines = summarize(chosen, workloads, arguments, runs, failures)
    sweep = []
    if not (arguments.quick or arguments.no_sweep or arguments.revision):
        import sweep as sweep_

        sweep = sweep_.run(chosen, 3, TIMEOUT[True], progress.say)
        progress.clear()

    results = os.path.join(arguments.output, "results.jsonl")
    with open(results, "w") as out:
        for line in lines + [dict(point, sweep=True) for point in sweep]:
            out.write(json.dumps(line) + "\n")
    table.write(sys.stdout, lines, workloads)
    if arguments.revision:
        return 0 if table.write_revisions(sys.stdout, lines, suffixes, arguments.tolerance) and agreed else 1
    table.write_goals(sys.stdout, lines)

    import page
    import picture

    path = os.path.join(arguments.output, "index.html")
    kind = "A quick comparison: smaller workloads, few repetitions." if arguments.quick else "A full comparison."
    page.write(path, lines, workloads, where, sweep, kind)
    markdown = os.path.join(arguments.output, "results.md")
    with open(markdown, "w") as out:
        out.write(table.markdown(lines, workloads, where, kind))
    drawn = os.path.join(arguments.output, "overview.svg")
    if not picture.write(drawn, lines, workloads, where, kind):
        drawn = ""  # one system alone has nothing beside it
    print("\n" + "\n".join(f for f in (results, markdown, drawn, path) if f))
    if not agreed:
        print("compare: checksums differ; those runs are refused, see above", file=sys.stderr)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
