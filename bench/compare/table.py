"""The comparison as a table on a terminal."""

import verdict


def time_us(us):
    if us is None:
        return "-"
    if us < 1000:
        return "%.3g us" % us
    return "%.3g ms" % (us / 1e3) if us < 1e6 else "%.3g s" % (us / 1e6)


def rows(lines, workload):
    return [line for line in lines if line["workload"] == workload]


def write(out, lines, workloads):
    for workload in workloads:
        mine = rows(lines, workload.name)
        if not mine:
            continue
        print("\n%s: %s" % (workload.name, workload.why), file=out)
        print(
            "  %-28s %8s %15s %8s %8s %9s %9s %10s %6s %6s  %s"
            % ("system", "wall s", "spread", "cpu s", "gc cpu s", "peak MiB", "stall99.9", "longest", "mmu1", "mmu10", "runs"),
            file=out,
        )
        for line in mine:
            if "wall_s" not in line:
                print("  %-28s %s" % (line["label"], line.get("failure", "not run")), file=out)
                continue
            gc_cpu = "%.3f" % line["gc_cpu_s"] if "gc_cpu_s" in line else "-"
            spread = "%.3f-%.3f" % tuple(line["wall_s_spread"])
            print(
                "  %-28s %8.3f %15s %8.3f %8s %9.1f %9s %10s %6.3f %6.3f  %d%s"
                % (
                    line["label"],
                    line["wall_s"],
                    spread,
                    line["cpu_s"],
                    gc_cpu,
                    line["peak_rss_bytes"] / 2**20,
                    time_us(line["stall_p999_us"]),
                    time_us(line["stall_max_us"]),
                    line["mmu"]["1"],
                    line["mmu"]["10"],
                    line["repetitions"],
                    "  FAILED: " + line["failure"] if line.get("failure") else "",
                ),
                file=out,
            )
        requests = [line for line in mine if "request_us" in line]
        for line in requests:
            r = line["request_us"]
            print(
                "  %-28s requests: p50 %s, p99 %s, p99.9 %s, longest %s"
                % (line["label"], time_us(r["p50"]), time_us(r["p99"]), time_us(r["p999"]), time_us(r["max"])),
                file=out,
            )
        ratios(out, mine)


def ratios(out, mine):
    """Wall time of each of Winnow's collectors by each peer's."""
    ours = [line for line in mine if line["system"].startswith("winnow-") and "wall_s" in line]
    peers = [line for line in mine if not line["system"].startswith("winnow-") and "wall_s" in line and line["system"] != "control"]
    if not ours or not peers:
        return
    print("  ratio of wall (cpu) to      " + "".join("%20s" % line["system"] for line in peers), file=out)
    for line in ours:
        cells = ["%.2f (%.2f)" % (line["wall_s"] / peer["wall_s"], line["cpu_s"] / peer["cpu_s"]) for peer in peers]
        print("  %-27s " % line["label"] + "".join("%20s" % cell for cell in cells), file=out)


def write_goals(out, lines):
    print("\nGoals (ratio of medians, Winnow by peer; lower is better)", file=out)
    for v in verdict.judge(lines):
        goal = v["goal"]
        state = "not measured" if v["ratio"] is None else "reached" if v["reached"] else "MISSED"
        ratio = "-" if v["ratio"] is None else "%.2f" % v["ratio"]
        print(
            "  %-12s %-13s %-20s / %-18s %6s  (at most %.1f)  %s"
            % (goal.workload, goal.what, v["mine"], v["theirs"], ratio, goal.most, state),
            file=out,
        )


def markdown(lines, workloads, machine, note):
    """The same for a document: a row per workload and system, and the goals."""
    text = ["%s %s" % (note, machine + "."), ""]
    text.append("| workload | system | wall s | spread | CPU s | collector s | peak MiB | stall p99.9 | longest stall | MMU 10 ms | runs |")
    text.append("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |")
    for workload in workloads:
        for line in rows(lines, workload.name):
            if "wall_s" not in line:
                continue
            cells = [
                workload.name,
                line["label"],
                "%.3f" % line["wall_s"],
                "%.3f-%.3f" % tuple(line["wall_s_spread"]),
                "%.3f" % line["cpu_s"],
                "%.3f" % line["gc_cpu_s"] if "gc_cpu_s" in line else "-",
                "%.0f" % (line["peak_rss_bytes"] / 2**20),
                time_us(line["stall_p999_us"]),
                time_us(line["stall_max_us"]),
                "%.2f" % line["mmu"]["10"],
                str(line["repetitions"]),
            ]
            text.append("| " + " | ".join(cells) + " |")
    text += ["", "| goal | figure | Winnow | peer | ratio | at most | |", "| --- | --- | --- | --- | --: | --: | --- |"]
    for v in verdict.judge(lines):
        goal = v["goal"]
        state = "not measured" if v["ratio"] is None else "reached" if v["reached"] else "**missed**"
        ratio = "-" if v["ratio"] is None else "%.2f" % v["ratio"]
        cells = [goal.workload, goal.what, v["mine"], v["theirs"], ratio, "%.1f" % goal.most, state]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def write_revisions(out, lines, suffixes, tolerance):
    """The canary: two revisions side by side. Returns whether the second is nowhere slower beyond the tolerance."""
    by_name = {(line["workload"], line["system"]): line for line in lines}
    good = True
    print("\n%-16s %-14s %10s %10s %8s %8s" % ("workload", "collector", *suffixes, "wall", "cpu"), file=out)
    for (workload, name), old in sorted(by_name.items()):
        if not name.endswith("@" + suffixes[0]):
            continue
        collector = name[len("winnow-") : -len(suffixes[0]) - 1]
        new = by_name.get((workload, "winnow-%s@%s" % (collector, suffixes[1])))
        if not new or "wall_s" not in new or "wall_s" not in old:
            continue
        wall, cpu = new["wall_s"] / old["wall_s"], new["cpu_s"] / old["cpu_s"]
        # Slower only when the ranges do not overlap either: a single late run is the machine's.
        slower = wall > 1 + tolerance and new["wall_s_spread"][0] > old["wall_s_spread"][1]
        good &= not slower
        print(
            "%-16s %-14s %10.3f %10.3f %8.3f %8.3f%s"
            % (workload, collector, old["wall_s"], new["wall_s"], wall, cpu, "  SLOWER" if slower else ""),
            file=out,
        )
    return good
