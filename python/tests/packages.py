"""Runs the tests of packages that services are made of, stock and with winnow collecting all the time.

    python python/tests/packages.py --folder DIR [--modes off,concurrent] [PACKAGE...]

In the folder a virtual environment is made, with winnow from this tree and the packages from the network, and kept for
the next time. Full collections come often (gc.set_threshold(50, 2, 2)), in concurrent mode with a snapshot for even the
smallest heap. Exit status 1 if a test fails with winnow that does not fail stock.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import cpython

HERE = os.path.dirname(os.path.abspath(__file__))
THRESHOLDS = "import gc\ngc.set_threshold(50, 2, 2)\n"
PYTEST = "-m pytest -q -p no:cacheprovider --timeout 120 -rfE -o addopts= ".split()


# What is installed, what its tests need besides, whether they are in the source distribution alone, and the commands
# that run them, from its root.
Tests = collections.namedtuple("Tests", "package needs source commands")


def installed(package, needs, *names, but=()):
    return Tests(package, needs, False, [[*PYTEST, "--pyargs", *names, *but]])


def in_source(package, needs, *tests, but=()):
    return Tests(package, needs, True, [[*PYTEST, *tests, *but]])


ORM = "mapper session unitofwork unitofworkv2 cycles pickled events attributes".split()
HTTP = "web_functional client_functional client_ws_functional web_websocket_functional helpers connector client_session".split()
GEVENT = "greenlet hub queue pool event core_watcher threadpool os socket pywsgi refcount destroy backdoor".split()
DJANGO = "dispatch signals template_tests model_forms queries serializers cache".split()

# A part of the tests where all would take long.
PACKAGES = {
    "msgpack": in_source("msgpack==1.2.4", "", "test"),
    "greenlet": installed("greenlet==3.5.6", "objgraph psutil", "greenlet", but=["-k", "not leak"]),
    "gevent": Tests("gevent==26.9.0", "psutil", False, [["-m", f"gevent.tests.test__{name}"] for name in GEVENT]),
    "aiohttp": in_source(
        "aiohttp==3.14.5",
        "pytest-mock pytest-cov re-assert proxy.py trustme freezegun brotli isal zlib-ng blockbuster pytest-codspeed "
        "python-on-whales pytest-xdist",
        *(f"tests/test_{name}.py" for name in HTTP),
        but=["-p", "no:codspeed"],
    ),
    "sqlalchemy": in_source("sqlalchemy==2.1.9", "", *(f"test/orm/test_{name}.py" for name in ORM), "test/ext"),
    "pydantic": in_source(
        "pydantic==2.14.4",
        "dirty-equals pytest-mock pytest-benchmark jsonschema pytz faker pytest-examples email-validator time-machine",
        "tests",
        but=[
            "-o",
            "markers=thread_unsafe\nskip_json_schema_validation",
            *(f"--ignore=tests/{name}" for name in ("mypy", "pyright", "benchmarks", "test_docs.py")),
        ],
    ),
    "numpy": installed(
        "numpy==2.4.6",
        "hypothesis",
        *(f"numpy._core.tests.test_{name}" for name in ("multiarray", "regression", "dtype", "nditer")),
        "numpy.ma",
        "numpy.lib",
        but=["-m", "not slow"],
    ),
    "pandas": installed("pandas==3.1.1", "hypothesis", "pandas.tests.groupby", "pandas.tests.reshape", but=["-m", "not slow"]),
    "django": Tests("django==5.2.9", "", True, [["tests/runtests.py", "--parallel=1", *DJANGO]]),
}


def prepare(folder, names):
    """Returns the environment's interpreter."""
    python = os.path.join(folder, "venv", "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", os.path.join(folder, "venv")], check=True)
    pip = [python, "-m", "pip", "-q"]
    wanted = sorted({word for name in names for word in f"{PACKAGES[name].package} {PACKAGES[name].needs}".split()})
    print("installing", " ".join(wanted), flush=True)
    tree = os.path.dirname(os.path.dirname(HERE))
    subprocess.run([*pip, "install", "pytest", "pytest-timeout", *wanted, tree], check=True)
    for name in names:
        package, place = PACKAGES[name].package, os.path.join(folder, name)
        if not PACKAGES[name].source or os.path.exists(place):
            continue
        print("the source of", package, flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as t:
            subprocess.run([*pip, "download", "--no-deps", "--no-binary", ":all:", "-d", t, package], check=True)
            with tarfile.open(os.path.join(t, os.listdir(t)[0])) as archive:
                archive.extractall(os.path.join(t, "all"), filter="data")
            shutil.move(os.path.join(t, "all", os.listdir(os.path.join(t, "all"))[0]), place)
    return python


def run(python, folder, name, mode, limit):
    """Returns the tests that failed, what the last command said, and winnow's statistics."""
    count = os.path.join(folder, "count")
    env = {k: v for k, v in os.environ.items() if not k.startswith("WINNOW_")}
    env["PYTHONPATH"] = os.path.join(folder, "start")
    if mode != "off":
        env["WINNOW_PYTHON"] = mode + ",budget_ms=0" * (mode == "concurrent")
        env["WINNOW_COUNT"] = count
    failed, said, stats = set(), "", {}
    for number, command in enumerate(PACKAGES[name].commands):
        if command[0] == "-m":
            env["PYTHONSAFEPATH"] = "1"  # or the source would be imported, whose extensions have not been built
        output = os.path.join(folder, f"{name}.{mode}.{number}.txt")
        place = os.path.join(folder, name if PACKAGES[name].source else "start")
        status, text = cpython.run_into(output, [python, *command], env=env, cwd=place, timeout=limit)
        here = cpython.failed_in(text) | set(re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", text, re.M))  # pytest's
        failed |= here or ({f"{' '.join(command[-2:])}: {'no end' if status is None else f'status {status}'}"} if status != 0 else set())
        said = (re.findall(r"^Ran \d+ tests?|\d+ passed", text, re.M) or ["nothing was run"])[-1]
        if os.path.exists(count):
            with open(count) as f:
                for key, value in json.load(f).items():
                    if key in ("full_collections", "snapshots", "proposed", "collected"):
                        stats[key] = stats.get(key, 0) + value
            os.remove(count)
    return failed, said, stats


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="for the virtual environment, sources and the output of each run")
    parser.add_argument("--modes", default="off,fast,concurrent")
    parser.add_argument("--limit", type=float, default=900, help="seconds that one command may take")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; default: all")
    o = parser.parse_args()
    unknown = [name for name in o.packages if name not in PACKAGES]
    if unknown:
        parser.error(f"no package {unknown[0]!r}; there are {', '.join(PACKAGES)}")
    names = o.packages or list(PACKAGES)
    folder = os.path.abspath(o.folder)
    os.makedirs(os.path.join(folder, "start"), exist_ok=True)
    with open(os.path.join(folder, "start", "sitecustomize.py"), "w") as f:
        f.write(cpython.START + THRESHOLDS)
    python = prepare(folder, names)
    print("CPython", sys.version.split()[0])
    worst = 0
    for name in names:
        stock = set()
        for mode in o.modes.split(","):
            start = time.monotonic()
            failed, said, stats = run(python, folder, name, mode, o.limit)
            took = time.monotonic() - start
            more = len(PACKAGES[name].commands) - 1
            counts = "".join(f", {value} {key.replace('_', ' ')}" for key, value in stats.items())
            print(f"{name:10} {mode:14} {took:4.0f} s  {said}{f' (and {more} commands more)' * bool(more)}, "
                  f"{len(failed)} failed{counts}", flush=True)  # fmt: skip
            if mode == "off":
                stock = failed
            for test in sorted(failed - stock):
                print("    only with winnow:" if "off" in o.modes else "   ", test)
                worst = 1
    sys.exit(worst)


if __name__ == "__main__":
    main()
