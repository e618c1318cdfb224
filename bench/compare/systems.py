"""The systems that are compared: how each is built and started."""

import glob
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PEERS = os.path.join(ROOT, "bench", "peers")
COLLECTORS = ("refcount", "incremental", "concurrent")
C_WORKLOADS = {"gcbench", "binarytrees", "lru", "messages", "messages-map", "biglive", "biglive-ring", "biglive-rewired", "cycles"}

COLOURS = {
    "winnow-refcount": "#1b6ca8",
    "winnow-incremental": "#0a9396",
    "winnow-concurrent": "#5e60ce",
    "go": "#ee9b00",
    "go-chains": "#f4b942",
    "pypy": "#ca6702",
    "cpython": "#bb3e03",
    "libgc": "#6c757d",
    "libgc-2-markers": "#868e96",
    "libgc-incremental": "#adb5bd",
    "malloc": "#343a40",
    "mimalloc": "#000000",
    "control": "#d62828",
}


def colour(system):
    """One per system wherever it is drawn; revisions of one (`name@revision`) share it."""
    return COLOURS.get(system.split("@")[0], "#495057")


class SetupError(Exception):
    """Something that the comparison needs is missing; the message says how to get it."""


@dataclass(frozen=True)
class System:
    name: str
    label: str
    command: tuple
    env: dict = field(default_factory=dict)
    workloads: frozenset = None  # None: all but control
    winnow: bool = False
    heap_limit: str = ""  # how the sweep sets a heap's size: see limited()
    variant: dict = field(default_factory=dict)  # workloads that go by another name in its program

    def runs(self, workload):
        if workload == "control" or self.name == "control":
            return workload == self.name == "control"
        return self.workloads is None or workload in self.workloads

    def arguments(self, workload, params):
        pairs = ["%s=%d" % pair for pair in params.items()]
        if not self.winnow:
            return list(self.command) + [self.variant.get(workload, workload)] + pairs
        options = [word for pair in pairs for word in ("--param", pair)]
        if workload == "store":
            options += ["--param", "megabytes=0"]
        return list(self.command) + [workload] + options

    def limited(self, size):
        """The same system with its heap limited to so many bytes: (command prefix's extra words, environment)."""
        if self.heap_limit == "option":
            return ["--heap-limit", str(size)], {}
        if self.heap_limit == "go":
            return [], {"GOGC": "off", "GOMEMLIMIT": str(size)}
        if self.heap_limit == "pypy":
            return [], {"PYPY_GC_MAX": str(size)}
        return [], {"GC_INITIAL_HEAP_SIZE": str(size), "GC_MAXIMUM_HEAP_SIZE": str(size)}


def winnow(binary, suffix=""):
    """Winnow's collectors; `suffix` tells revisions apart."""
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    available = version.split("collectors:")[1].split() if "collectors:" in version else COLLECTORS
    systems = []
    for collector in available:
        command = (binary, "bench", "--collector", collector, "--repetitions", "1", "--json", "-", "--raw", "--quiet")
        systems.append(
            System("winnow-" + collector + suffix, "Winnow " + collector + suffix, command, winnow=True, heap_limit="option")
        )
    return systems


def control(binary):
    command = (binary, "bench", "--collector", "refcount", "--repetitions", "1", "--json", "-", "--raw", "--quiet")
    return System("control", "control: only reads the clock", command, winnow=True)


def _run(command, **keywords):
    result = subprocess.run(command, capture_output=True, text=True, **keywords)
    if result.returncode:
        raise SetupError("%s failed:\n%s" % (" ".join(command), result.stderr.strip()))
    return result.stdout


def _need(program, package):
    path = shutil.which(program)
    if not path:
        raise SetupError("%s is missing; `scripts/setup.sh compare` installs it (package %s)" % (program, package))
    return path


def newest_go():
    """The newest Go there is: the one in the path, the one of its own installer, or one of Debian's."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go"] + glob.glob("/usr/lib/go-*/bin/go")
    found = []
    for path in dict.fromkeys(c for c in candidates if c and os.access(c, os.X_OK)):
        version = re.search(r"go(\d+)\.(\d+)", _run([path, "version"]))
        if version:
            found.append((tuple(map(int, version.groups())), path))
    return max(found)[1] if found else _need("go", "golang")


def build_peers(folder):
    """Builds the peers into a folder and returns them as systems."""
    os.makedirs(folder, exist_ok=True)
    systems = []

    go = os.path.join(folder, "peer-go")
    env = dict(os.environ, CGO_ENABLED="0", GOFLAGS="-mod=mod", GOTOOLCHAIN="local")
    _run([newest_go(), "build", "-o", go, "."], cwd=os.path.join(PEERS, "go"), env=env)
    systems.append(System("go", "Go", (go,), heap_limit="go"))
    chains = {"lru": "lru-chains"}
    systems.append(System("go-chains", "Go, table of chains as in C", (go,), workloads=frozenset(chains), variant=chains))

    script = os.path.join(PEERS, "python", "peer.py")
    systems.append(System("pypy", "PyPy", (_need("pypy3", "pypy3"), "-B", script), heap_limit="pypy"))
    python = shutil.which("python3.11") or getattr(sys, "_base_executable", sys.executable)
    systems.append(System("cpython", "CPython", (python, "-B", script)))

    cc = os.environ.get("CC") or _need("cc", "gcc")
    folder_c = os.path.join(PEERS, "c")
    sources = sorted(os.path.join(folder_c, name) for name in os.listdir(folder_c) if name.endswith(".c"))
    flags = ["-std=gnu11", "-O2", "-DNDEBUG"]

    def c_peer(name, defines, libraries):
        path = os.path.join(folder, name)
        _run([cc, *flags, *defines, *sources, *libraries, "-o", path])
        return path

    gc_flags = _run([_need("pkg-config", "pkg-config"), "--cflags", "--libs", "bdw-gc"]).split()
    libgc = c_peer("peer-libgc", ["-DPEER_LIBGC"], gc_flags)
    c_and_mutate = frozenset(C_WORKLOADS | {"mutate"})
    systems.append(System("libgc", "libgc", (libgc,), {}, c_and_mutate, heap_limit="libgc"))
    systems.append(System("libgc-2-markers", "libgc, two markers", (libgc,), {"GC_MARKERS": "2"}, c_and_mutate))
    systems.append(System("libgc-incremental", "libgc, incremental", (libgc,), {"PEER_INCREMENTAL": "1"}, c_and_mutate))
    manual = frozenset(C_WORKLOADS)
    systems.append(System("malloc", "glibc malloc/free", (c_peer("peer-malloc", [], []),), {}, manual))
    systems.append(System("mimalloc", "mimalloc malloc/free", (c_peer("peer-mimalloc", [], ["-lmimalloc"]),), {}, manual))
    return systems


def build_revision(revision, folder):
    """Builds another revision of Winnow and returns the path of its command."""
    commit = _run(["git", "-C", ROOT, "rev-parse", "--verify", revision + "^{commit}"]).strip()
    source = os.path.join(folder, "revision-" + commit[:12])
    binary = os.path.join(source, "build", "bin", "winnow")
    if not os.path.exists(source):
        archive = source + ".tar"
        _run(["git", "-C", ROOT, "archive", "--output", archive, commit])
        os.makedirs(source)
        _run(["tar", "-xf", archive, "-C", source])
        os.remove(archive)
    if not os.path.exists(binary):
        configure = ["cmake", "-S", source, "-B", os.path.join(source, "build"), "-G", "Ninja"]
        _run(configure + ["-DCMAKE_BUILD_TYPE=Release", "-DWINNOW_BUILD_TESTS=OFF"])
        _run(["cmake", "--build", os.path.join(source, "build")])
    return binary, commit[:12]
