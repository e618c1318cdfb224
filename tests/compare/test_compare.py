"""The comparison's arithmetic, what it refuses, and its page as a browser without a network shows it."""

import html
import importlib.util
import io
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import measure
import page
import picture
import sweep
import systems
import table
import verdict
from workloads import BY_NAME, WORKLOADS

_spec = importlib.util.spec_from_file_location("compare_main", os.path.join(os.path.dirname(measure.__file__), "__main__.py"))
compare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compare)


def run(wall, checksum=7, stall=100.0, **more):
    return {
        "checksum": checksum,
        "wall_s": wall,
        "cpu_s": wall * 1.5,
        "gc_cpu_s": wall / 4,
        "peak_rss_bytes": int(wall * 2**24),
        "collections": 3,
        "run_us": wall * 1e6,
        "stall_histogram": [[1.0, 900], [10.0, 99], [stall, 1]],
        "gaps_us": [[5000.0, stall], [9000.0, 20.0]],
        "memory": [[0.01 * i, 2**20 * (10 + i % 5)] for i in range(50)],
        **more,
    }


def system(name, winnow=False):
    return systems.System(name, name.replace("-", " "), ("true",), winnow=winnow, heap_limit="option" if winnow else "go")


def lines():
    result = []
    for workload in WORKLOADS:
        if workload.name == "control":
            result.append(measure.summarize(system("control"), "control", workload.full, [run(1.0, 0)]))
            continue
        for i, name in enumerate(("winnow-refcount", "winnow-incremental", "winnow-concurrent", "go", "pypy", "cpython", "libgc")):
            runs = [run(0.1 * (i + 1 + j / 10), stall=50.0 * (i + 1)) for j in range(3)]
            if workload.name == "store":
                for r in runs:
                    r["request_us"] = {"p50": 2.0, "p99": 9.0, "p999": 20.0, "max": 300.0}
            result.append(measure.summarize(system(name), workload.name, workload.full, runs))
        result.append(measure.summarize(system("mimalloc"), workload.name, workload.full, [], "ended with status 9"))
    return result


class Arithmetic(unittest.TestCase):
    def test_quantiles(self):
        histogram = [[1.0, 90], [2.0, 9], [50.0, 1]]
        self.assertEqual([measure.quantile(histogram, q) for q in (0.5, 0.95, 0.999, 1)], [1.0, 2.0, 50.0, 50.0])
        self.assertEqual(measure.quantile([], 0.5), 0.0)
        self.assertEqual(measure.merge([[[1.0, 2]], [[1.0, 3], [2.0, 1]]]), [(1.0, 5), (2.0, 1)])

    def test_utilisation_is_that_of_the_c_harness(self):
        """The figures of tests/test_bench.c."""
        gaps = [[5000.0, 400.0], [5500.0, 200.0], [50000.0, 2000.0]]
        self.assertAlmostEqual(measure.mmu(gaps, 100000, 1), 0.0)
        self.assertAlmostEqual(measure.mmu(gaps, 100000, 10), 0.8)
        self.assertAlmostEqual(measure.mmu(gaps[:2], 100000, 1), 0.4)
        self.assertAlmostEqual(measure.mmu(gaps[:2], 100000, 0.5), 0.2)
        self.assertAlmostEqual(measure.mmu([], 100000, 1), 1.0)

    def test_medians_and_spread(self):
        line = measure.summarize(system("go"), "lru", {}, [run(3.0), run(1.0), run(2.0)])
        self.assertEqual((line["wall_s"], line["wall_s_spread"], line["repetitions"]), (2.0, [1.0, 3.0], 3))

    def test_lower_bound(self):
        points = [
            {"language": "C", "cpu_s": 3.0, "gc_cpu_s": 1.0, "wall_s": 2.5},
            {"language": "C", "cpu_s": 4.0, "gc_cpu_s": 2.5, "wall_s": 4.0},
        ]
        sweep.bounds(points)
        self.assertEqual([p["cpu_lbo"] for p in points], [2.0, 4.0 / 1.5])

    def test_goals_compare_the_best_of_each_side(self):
        found = {(v["goal"].workload, v["goal"].what, v["goal"].theirs): v for v in verdict.judge(lines())}
        v = found[("cycles", "wall", ("cpython",))]
        self.assertAlmostEqual(v["ratio"], 0.11 / 0.61)
        self.assertTrue(v["reached"])
        v = found[("binarytrees", "wall", ("mimalloc",))]
        self.assertIsNone(v["ratio"])
        self.assertFalse(v["reached"])


class Sweep(unittest.TestCase):
    # Takes as long as it says and needs a heap of 3 MB.
    SCRIPT = """for word; do case $word in [0-9]*) size=$word ;; esac; done
        [ $size -ge 3000000 ] || { echo out of memory >&2; exit 1; }
        echo '{"checksum": 1, "wall_s": 2, "cpu_s": 3, "gc_cpu_s": 1}'"""

    def test_least_heap_and_points(self):
        one = systems.System("winnow-x", "x", ("sh", "-c", self.SCRIPT, "sh"), winnow=True, heap_limit="option")
        least = sweep.least_heap(one, "gcbench", {}, 10)
        self.assertTrue(3_000_000 <= least <= 3_200_000, least)
        points = sweep.run([one], 1, 10, lambda text: None)
        self.assertEqual([p["factor"] for p in points if p["workload"] == "lru"], list(sweep.SWEEP_FACTORS))
        self.assertEqual({p["cpu_lbo"] for p in points}, {1.5})


class Refusals(unittest.TestCase):
    def test_a_differing_checksum_is_refused(self):
        runs = {("lru", "go"): [run(1)], ("lru", "pypy"): [run(1)], ("lru", "libgc"): [run(1, checksum=8)]}
        failures = {}
        self.assertFalse(compare.refuse_differing(runs, failures))
        self.assertEqual(list(failures), [("lru", "libgc")])
        self.assertEqual(runs[("lru", "libgc")], [])

    def test_a_run_that_fails_is_reported(self):
        failing = systems.System("sh", "sh", ("sh", "-c", "echo first >&2; echo why >&2; exit 3"))
        with self.assertRaisesRegex(measure.RunFailed, "why"):
            measure.run(failing, "lru", {}, 10)
        with self.assertRaisesRegex(measure.RunFailed, "stopped after"):
            measure.run(systems.System("sleep", "sleep", ("sh", "-c", "exec sleep 60")), "lru", {}, 0.1)

    def test_losses_are_shown(self):
        out = io.StringIO()
        table.write_goals(out, [line for line in lines() if line["system"] != "pypy"])
        self.assertIn("MISSED", out.getvalue())
        self.assertIn("not measured", out.getvalue())
        text = table.markdown(lines(), WORKLOADS, "a machine", "A note.")
        self.assertIn("**missed**", text)
        widths = {row.count("|") for row in text.splitlines() if row.startswith("| lru")}
        self.assertEqual(widths, {12, 8})

    def test_winnow_runs_with_the_peers_parameters(self):
        binary = os.environ.get("WINNOW", "")
        if not os.access(binary, os.X_OK):
            self.skipTest("the winnow command is not built")
        one = systems.winnow(binary)[0]
        result = measure.run(one, "cycles", {"cycles": 1000}, 60, sample=True)
        self.assertEqual(result["parameters"], {"cycles": 1000})
        line = measure.summarize(one, "cycles", {"cycles": 1000}, [result])
        self.assertEqual(line["checksum"], sum(i + sum(range(1, 2 + i % 9)) for i in range(1000)) & 0xFFFFFFFF)


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        points = []
        for i, name in enumerate(("winnow-refcount", "go")):
            for factor in (1.25, 2.0, 4.0):
                points.append({"workload": "lru", "system": name, "label": name, "language": name, "factor": factor,
                               "wall_s": i + 1 / factor, "cpu_s": i + 2 / factor, "gc_cpu_s": 0.1})  # fmt: skip
        sweep.bounds(points)
        cls.path = os.path.join(cls.folder, "index.html")
        cls.plots = page.write(cls.path, lines(), WORKLOADS, "a machine", points, "a note <with> markup")
        with open(cls.path, encoding="utf-8") as f:
            cls.text = f.read()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_nothing_is_fetched(self):
        """No element of the page itself refers outside (the library's own text is data)."""
        own = re.sub(r"<script.*?</script>", "", self.text, flags=re.S)
        self.assertNotRegex(own, r"""(src|href)\s*=\s*["']?(https?:)?//""")
        self.assertIsNone(re.search(r"<script[^>]+src", self.text))
        self.assertIn("a note &lt;with&gt; markup", own)

    def test_losses_are_as_visible_as_wins(self):
        self.assertIn('class="win"', self.text)
        self.assertIn('class="loss"', self.text)
        self.assertIn("ended with status 9", self.text)

    def test_a_browser_draws_every_plot(self):
        browser = shutil.which("chromium") or shutil.which("chromium-browser")
        if not browser:
            self.skipTest("chromium is not installed; scripts/setup.sh test installs it")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", "--user-data-dir=" + os.path.join(self.folder, "profile"),
                   "--virtual-time-budget=20000", "--dump-dom", "file://" + self.path]  # fmt: skip
        dom = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=240, check=True).stdout.decode()
        drawn = re.findall(r'<div id="(plot-\d+)"[^>]*class="[^"]*js-plotly-plot', dom)
        self.assertEqual(len(set(drawn)), self.plots)
        self.assertGreaterEqual(dom.count('class="main-svg"'), self.plots)
        titles = [html.unescape(t) for t in re.findall(r'class="gtitle"[^>]*>([^<]*)<', dom)]
        self.assertIn("Memory over time", titles)
        self.assertIn("Minimum mutator utilisation", titles)


class Picture(unittest.TestCase):
    def draw(self, some):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "overview.svg")
            if not picture.write(path, some, WORKLOADS, "a machine", "a note <with> markup"):
                return None
            with open(path, encoding="utf-8") as f:
                return f.read()

    def test_every_system_and_workload_is_named(self):
        svg = self.draw(lines())
        shown = [line for line in lines() if line["system"] in picture.SHOWN and "wall_s" in line]
        text = [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)<", svg)]
        for word in {line["label"] for line in shown} | {line["workload"] for line in shown} | {"a note <with> markup a machine"}:
            self.assertIn(word, text)
        marks = len(re.findall(r'<use xlink:href="#[^"]*" x="[^"]*" y="[^"]*" style="fill', svg))
        self.assertGreaterEqual(marks, 3 * len(shown))

    def test_the_same_figures_give_the_same_file(self):
        self.assertEqual(self.draw(lines()), self.draw(lines()))

    def test_a_system_alone_is_no_comparison(self):
        self.assertIsNone(self.draw([line for line in lines() if line["system"] == "go"]))


class Workloads(unittest.TestCase):
    def test_quick_and_full_name_the_same_parameters(self):
        for workload in BY_NAME.values():
            if workload.quick:
                self.assertEqual(set(workload.quick), set(workload.full), workload.name)


if __name__ == "__main__":
    unittest.main()
