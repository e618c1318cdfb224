"""python -m winnow run [--mode MODE] [--report] program.py [arguments]"""

import argparse
import os
import runpy
import sys

import winnow


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m winnow", description="Runs a Python program with winnow's collector.")
    parser.add_argument("--version", action="version", version=f"winnow {winnow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a program", description="Runs a program or module with winnow installed.")
    run.add_argument("--mode", choices=winnow.MODES, default="fast")
    run.add_argument("--threads", type=int, choices=(1, 2), help="threads that search (default: 2 on two processors)")
    run.add_argument("--policy", choices=("interpreter", "garbage"), default="interpreter")
    run.add_argument("--budget-ms", type=float, default=5.0, help="concurrent: searches expected to be shorter take no snapshot")
    run.add_argument("--huge-pages", action="store_true", help="concurrent: memory in huge pages, which makes forks short")
    run.add_argument("--log", action="store_true", help="a line on stderr for each full collection")
    run.add_argument("--report", action="store_true", help="print the statistics at the end")
    run.add_argument("-m", dest="module", action="store_true", help="the program is a module's name")
    run.add_argument("program", help="a script, or a module after -m")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    o = parser.parse_args(arguments)
    try:
        winnow.install(o.mode, threads=o.threads, policy=o.policy, budget_ms=o.budget_ms, huge_pages=o.huge_pages, log=o.log)
    except winnow.WinnowError as e:
        sys.exit(str(e))
    sys.argv = [o.program, *o.arguments]
    try:
        if o.module:
            sys.path[0] = os.getcwd()
            runpy.run_module(o.program, run_name="__main__", alter_sys=True)
        elif not os.path.exists(o.program):
            sys.exit(f"python -m winnow run: there is no file {o.program!r}; for a module, put -m before its name")
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(o.program))
            runpy.run_path(o.program, run_name="__main__")
    finally:
        if o.report:
            winnow.report()


if __name__ == "__main__":
    main()
