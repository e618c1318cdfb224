"""The comparison as one HTML page that opens offline: the plotting library is inside it."""

import html

import plotly.graph_objects as go
import plotly.io
import plotly.offline

import systems
import table
import verdict

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: .6em 0 1.4em; font-variant-numeric: tabular-nums; }
th, td { padding: .22em .7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.win { background: #d8f3dc; } td.loss { background: #ffd6d6; } td.none { color: #888; }
.scroll { overflow-x: auto; } h2 { margin-top: 2em; } .plots { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.note { color: #555; }
"""


def _measured(lines, workload):
    return [line for line in lines if line["workload"] == workload and "wall_s" in line]


def _figure(title, x, y, log_x=False, log_y=False, **layout):
    figure = go.Figure()
    figure.update_layout(
        title=title, height=380, margin=dict(l=60, r=10, t=50, b=50), template="plotly_white", legend=dict(font=dict(size=10)), **layout
    )
    figure.update_xaxes(title=x, type="log" if log_x else None)
    figure.update_yaxes(title=y, type="log" if log_y else None)
    return figure


def _line(figure, line, x, y, **keywords):
    figure.add_trace(
        go.Scatter(x=x, y=y, name=line["label"], mode="lines", line=dict(color=systems.colour(line["system"]), width=2), **keywords)
    )


def stalls(lines, workload):
    """How often the program stalled for longer than x."""
    figure = _figure("Stalls seen by the program", "stall, us", "share of readings above", log_x=True, log_y=True)
    for line in _measured(lines, workload) + _measured(lines, "control"):
        total = above = sum(n for _, n in line["stall_histogram"])
        x, y = [], []
        for upper, n in line["stall_histogram"]:
            above -= n
            x.append(max(upper, 0.01))
            y.append(above / total if above else 0.5 / total)
        _line(figure, line, x, y)
    return figure


def utilisation(lines, workload):
    figure = _figure("Minimum mutator utilisation", "window, ms", "least share for the program", log_x=True)
    for line in _measured(lines, workload) + _measured(lines, "control"):
        windows = sorted(line["mmu"], key=int)
        _line(figure, line, [int(w) for w in windows], [line["mmu"][w] for w in windows])
    figure.update_yaxes(range=[-0.02, 1.02])
    return figure


def memory(lines, workload):
    figure = _figure("Memory over time", "s", "resident MiB")
    for line in _measured(lines, workload):
        if "memory" in line:
            _line(figure, line, [t for t, _ in line["memory"]], [rss / 2**20 for _, rss in line["memory"]])
    return figure


def times(lines, workload):
    figure = _figure("Wall time, CPU time and the collector's share", "", "s", barmode="group")
    mine = _measured(lines, workload)
    labels = [line["label"] for line in mine]
    wall = [line["wall_s"] for line in mine]
    error = dict(
        type="data",
        symmetric=False,
        array=[line["wall_s_spread"][1] - line["wall_s"] for line in mine],
        arrayminus=[line["wall_s"] - line["wall_s_spread"][0] for line in mine],
    )
    figure.add_bar(x=labels, y=wall, name="wall", error_y=error, marker_color="#1b6ca8")
    figure.add_bar(x=labels, y=[line["cpu_s"] for line in mine], name="CPU", marker_color="#94d2bd")
    figure.add_bar(x=labels, y=[line.get("gc_cpu_s") for line in mine], name="collector", marker_color="#ee9b00")
    return figure


def sweep_figures(sweep):
    """Cost against heap size, and the same as overhead over the lower bound."""
    figures = []
    for workload in dict.fromkeys(point["workload"] for point in sweep):
        for key, title in (("wall_s", "wall s"), ("cpu_lbo", "CPU by lower bound"), ("wall_lbo", "wall by lower bound")):
            figure = _figure("%s: %s against heap size" % (workload, title), "heap limit / least heap of all", title)
            for name in dict.fromkeys(point["system"] for point in sweep if point["workload"] == workload):
                points = [p for p in sweep if p["workload"] == workload and p["system"] == name and p.get(key) is not None]
                if points:
                    _line(figure, points[0], [p["factor"] for p in points], [p[key] for p in points])
                    figure.data[-1].mode = "lines+markers"
            figures.append(figure)
    return figures


def _cell(text, kind=""):
    return "<td%s>%s</td>" % (' class="%s"' % kind if kind else "", html.escape(text))


def _table(head, rows):
    top = "".join("<th>%s</th>" % html.escape(h) for h in head)
    body = "".join("<tr>%s</tr>" % "".join(row) for row in rows)
    return '<div class="scroll"><table><thead><tr>%s</tr></thead><tbody>%s</tbody></table></div>' % (top, body)


def figures_table(lines, workload):
    head = "system, wall s, spread, CPU s, collector CPU s, peak MiB, stall p99.9, longest stall, MMU 1 ms, MMU 10 ms, runs"
    rows = []
    for line in (line for line in lines if line["workload"] == workload):
        if "wall_s" not in line:
            rows.append([_cell(line["label"]), '<td class="none" colspan="10">%s</td>' % html.escape(line["failure"])])
            continue
        cells = [
            line["label"],
            "%.3f" % line["wall_s"],
            "%.3f-%.3f" % tuple(line["wall_s_spread"]),
            "%.3f" % line["cpu_s"],
            "%.3f" % line["gc_cpu_s"] if "gc_cpu_s" in line else "not told",
            "%.1f" % (line["peak_rss_bytes"] / 2**20),
            table.time_us(line["stall_p999_us"]),
            table.time_us(line["stall_max_us"]),
            "%.3f" % line["mmu"]["1"],
            "%.3f" % line["mmu"]["10"],
            str(line["repetitions"]),
        ]
        rows.append([_cell(cell) for cell in cells])
    text = _table(head.split(", "), rows)
    requests = [line for line in lines if line["workload"] == workload and "request_us" in line]
    if requests:
        keys = ("p50", "p99", "p999", "max")
        rows = [[_cell(line["label"])] + [_cell(table.time_us(line["request_us"][k])) for k in keys] for line in requests]
        text += "<p>Latency of requests, metered: from when each was due.</p>"
        text += _table(("system", "p50", "p99", "p99.9", "longest"), rows)
    return text


def ratio_tables(lines, workloads):
    """Every workload by every peer, for each of Winnow's collectors: wins and losses alike."""
    text = []
    ours = [line for line in lines if line["system"].startswith("winnow-")]
    for name in dict.fromkeys(line["system"] for line in ours):
        label = next(line["label"] for line in ours if line["system"] == name)
        peers = [n for n in dict.fromkeys(line["system"] for line in lines) if not n.startswith("winnow-") and n != "control"]
        by = {(line["workload"], line["system"]): line for line in lines if "wall_s" in line}
        rows = []
        for workload in workloads:
            mine = by.get((workload.name, name))
            if not mine:
                continue
            row = [_cell(workload.name)]
            for peer in peers:
                other = by.get((workload.name, peer))
                if not other:
                    row.append(_cell("-", "none"))
                    continue
                ratio = mine["wall_s"] / other["wall_s"]
                text_ = "%.2f / %.2f" % (ratio, mine["cpu_s"] / other["cpu_s"])
                row.append(_cell(text_, "win" if ratio <= 1 else "loss"))
            rows.append(row)
        if rows:
            text.append("<h3>%s</h3>" % html.escape(label) + _table(["workload"] + peers, rows))
    return "".join(text)


def goals_table(lines):
    rows = []
    for v in verdict.judge(lines):
        goal = v["goal"]
        kind = "none" if v["ratio"] is None else "win" if v["reached"] else "loss"
        state = "not measured" if v["ratio"] is None else "reached" if v["reached"] else "missed"
        ratio = "-" if v["ratio"] is None else "%.2f" % v["ratio"]
        cells = [goal.workload, goal.what, v["mine"], v["theirs"], ratio, "%.1f" % goal.most]
        rows.append([_cell(cell) for cell in cells] + [_cell(state, kind)])
    return _table(("workload", "figure", "Winnow", "peer", "ratio", "at most", ""), rows)


def write(path, lines, workloads, machine, sweep, note):
    count = 0

    def plot(figure):
        nonlocal count
        count += 1
        return plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, div_id="plot-%d" % count, config={"displaylogo": False})

    parts = ["<h1>Winnow and its peers</h1>", "<p>%s</p>" % html.escape(machine), '<p class="note">%s</p>' % html.escape(note)]
    versions = sorted({"%s: %s" % (line["label"], line["version"]) for line in lines if line.get("version")})
    parts.append('<p class="note">%s</p>' % html.escape("; ".join(versions)))
    parts.append("<h2>Goals</h2><p>Ratio of medians, Winnow by peer; lower is better.</p>" + goals_table(lines))
    parts.append("<h2>Ratios</h2><p>Wall / CPU of Winnow by each peer's; green below 1, red above.</p>")
    parts.append(ratio_tables(lines, workloads))
    for workload in workloads:
        if not any(line["workload"] == workload.name for line in lines):
            continue
        parts.append("<h2>%s</h2><p>%s</p>" % (html.escape(workload.name), html.escape(workload.why)))
        parts.append(figures_table(lines, workload.name))
        if workload.name == "control" or not _measured(lines, workload.name):
            continue
        plots = [times, memory, stalls, utilisation]
        parts.append('<div class="plots">%s</div>' % "".join(plot(make(lines, workload.name)) for make in plots))
    if sweep:
        parts.append("<h2>Heap sizes</h2><p>Overhead: total cost by the lower bound of the same language, which is the least, over ")
        parts.append("collectors and sizes, of total cost less the collector's own cost.</p>")
        parts.append('<div class="plots">%s</div>' % "".join(plot(figure) for figure in sweep_figures(sweep)))
    with open(path, "w", encoding="utf-8") as out:
        out.write('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Winnow and its peers</title>')
        out.write("<style>%s</style><script>%s</script></head><body>" % (STYLE, plotly.offline.get_plotlyjs()))
        out.write("\n".join(parts))
        out.write("</body></html>\n")
    return count
