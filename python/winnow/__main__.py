"""python -m winnow run [OPTION...] program.py [arguments]"""

import argparse
import atexit
import io
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

import winnow


def _parser():
    parser = argparse.ArgumentParser(prog="python -m winnow", description="Runs a Python program with winnow's collector.")
    parser.add_argument("--version", action="version", version=f"winnow {winnow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a program", description="Runs a program or module with winnow installed.")
    run.add_argument("--mode", choices=winnow.MODES, default="fast")
    run.add_argument("--threads", type=int, choices=(1, 2), help="threads that search (default: 2 on two processors)")
    run.add_argument("--policy", choices=("interpreter", "garbage"), default="interpreter")
    run.add_argument("--batch", type=int, default=2000, help="garbage objects that are handed to the interpreter at once")
    run.add_argument("--budget-ms", type=float, default=5.0, help="concurrent: searches expected to be shorter take no snapshot")
    run.add_argument("--slice-ms", type=float, default=1.0, help="concurrent: how long reclaiming a part should take at most")
    run.add_argument("--snapshot-s", type=float, default=60.0, help="concurrent: patience with a snapshot")
    run.add_argument("--huge-pages", action="store_true", help="concurrent: memory in huge pages, which makes forks short")
    run.add_argument("--log", action="store_true", help="a line on stderr for each full collection")
    run.add_argument("--report", action="store_true", help="print the statistics at the end")
    run.add_argument("-m", dest="module", action="store_true", help="the program is a module's name")
    run.add_argument("program", help="a script, or a module after -m")
    rest = run.add_argument("arguments", nargs=argparse.REMAINDER, help="its own")
    rest.required = False  # or it is said to be missing, too, where the program is
    return parser


def _search_first(path):
    """Where modules are looked for first. Nowhere else than always with -I and -P, which take away what would stand there."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = path


def _from_spec(spec):
    names = {"__file__": spec.origin, "__spec__": spec, "__package__": spec.parent, "__loader__": spec.loader}
    return spec.loader.get_code(spec.name), names


def _script(path):
    """Code, and what __main__ says of itself."""
    if not os.path.exists(path):
        sys.exit(f"python -m winnow run: there is no file {path!r}; for a module, put -m before its name")
    spec = PathFinder.find_spec("__main__", [path])  # a folder or an archive with a __main__.py
    if spec:
        _search_first(path)
        if sys.path[0] != path:
            sys.path.insert(0, path)  # as the interpreter does even with -I
        return _from_spec(spec)
    if os.path.isdir(path):
        sys.exit(f"python -m winnow run: there is no __main__.py in {path!r}; name the script in it")
    _search_first(os.path.dirname(os.path.abspath(path)))
    with io.open_code(path) as f:
        return compile(f.read(), path, "exec"), {"__file__": path, "__spec__": None, "__package__": None, "__loader__": None}


def _module(name):
    _search_first(os.getcwd())
    try:
        spec = find_spec(name)
        if spec and spec.submodule_search_locations is not None:
            spec = find_spec(name + ".__main__")
    except (ImportError, ValueError) as e:
        sys.exit(f"python -m winnow run: module {name!r} cannot be found: {e}")
    if not spec or not spec.origin:
        sys.exit(f"python -m winnow run: there is no module {name!r} that can be run; for a script, leave out -m")
    sys.argv[0] = spec.origin
    return _from_spec(spec)


def main(arguments=None):
    o = _parser().parse_args(arguments)
    try:
        winnow.install(
            o.mode,
            threads=o.threads,
            policy=o.policy,
            batch=o.batch,
            budget_ms=o.budget_ms,
            slice_ms=o.slice_ms,
            snapshot_s=o.snapshot_s,
            huge_pages=o.huge_pages,
            log=o.log,
        )
    except winnow.WinnowError as e:
        sys.exit(str(e))
    sys.argv = [o.program, *o.arguments]
    code, names = (_module if o.module else _script)(o.program)
    if o.report:
        atexit.register(winnow.report)  # when the program's last thread has ended
    # Threads, pickle and atexit look for the program's names in the one and only __main__, which is this module.
    names = dict(names, __name__="__main__", __doc__=None, __builtins__=__builtins__)
    space = sys.modules["__main__"].__dict__
    space.clear()
    space.update(names)
    exec(code, space)


if __name__ == "__main__":
    main()
