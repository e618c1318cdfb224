"""The comparison at a glance, as one SVG: for documents, where a table of a hundred lines is too much."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import systems

SHOWN = ("winnow-refcount", "winnow-incremental", "winnow-concurrent", "go", "pypy", "cpython", "libgc", "mimalloc")
MARKS = {"go": "D", "pypy": "P", "cpython": "X", "libgc": "s", "mimalloc": "|"}


def _panel(axes, rows, lines, value, title):
    """A row per workload, a mark per system; the scale is logarithmic, smaller is better."""
    for i, name in enumerate(SHOWN):
        mine = [line for line in lines if line["system"] == name]
        if mine:
            axes.scatter(
                [value(line) for line in mine],
                [rows.index(line["workload"]) + (i / (len(SHOWN) - 1) - 0.5) * 0.5 for line in mine],  # not one over another
                s=60 if name.startswith("winnow") else 36,
                marker=MARKS.get(name, "o"),
                color=systems.colour(name),
                label=mine[0]["label"],
                alpha=0.85,
                linewidths=1.6 if name in MARKS else 0,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "%g" % x))
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", color="#ddd", linewidth=0.6)
    for row in range(len(rows)):
        axes.axhline(row, color="#eee", linewidth=0.8, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def write(path, lines, workloads, where, kind):
    """`lines` as in results.jsonl. Workloads that only one of the systems shown has run are left out."""
    measured = [line for line in lines if line["system"] in SHOWN and "wall_s" in line]
    rows = [w.name for w in workloads if sum(line["workload"] == w.name for line in measured) > 1]
    measured = [line for line in measured if line["workload"] in rows]
    if not rows:
        return False
    fastest = {row: min(line["wall_s"] for line in measured if line["workload"] == row) for row in rows}

    # Text stays text, so that it can be searched and read aloud; and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "winnow", "font.family": "sans-serif"})
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    _panel(panels[0], rows, measured, lambda line: line["wall_s"] / fastest[line["workload"]], "wall time, multiples of the fastest")
    _panel(panels[1], rows, measured, lambda line: max(line["stall_max_us"], 1) / 1000, "longest stall the program sees, ms")
    _panel(panels[2], rows, measured, lambda line: line["peak_rss_bytes"] / 2**20, "peak memory, MiB")
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8.5, frameon=False, handletextpad=0.2)
    figure.supxlabel("%s %s" % (kind, where), fontsize=7.5, color="#666")
    figure.savefig(path, metadata={"Date": None, "Title": "Winnow beside other systems"})
    return True
