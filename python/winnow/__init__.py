"""Winnow: full garbage collections of an unmodified CPython, cheaper, shorter, and without touching the heap.

    import winnow
    winnow.install()                    # or mode="fork-friendly", "concurrent"
    ...
    winnow.stats()
    winnow.uninstall()

Winnow proposes, CPython disposes: it finds the unreachable containers with tables of its own, and the interpreter's
own collector then examines and frees those and only those. `gc` keeps its meaning. See docs/python.md.
"""

import os as _os
import sys as _sys

__all__ = ["install", "uninstall", "installed", "mode", "stats", "clear_stats", "report", "idle", "WinnowError", "MODES"]
__version__ = "0.1.0"

MODES = ("fast", "fork-friendly", "concurrent")


class WinnowError(RuntimeError):
    """Winnow cannot work here, or was asked for something that makes no sense. Nothing was changed."""

    quiet = False  # a start-up hook need not speak of it


def _why_not():
    """Why this interpreter is not supported; None if it is."""
    if _sys.implementation.name != "cpython":
        return f"this is {_sys.implementation.name}, not CPython: its collector is another"
    if not (3, 8) <= _sys.version_info[:2] <= (3, 14):
        return "CPython 3.8 to 3.14 are supported, this is %d.%d" % _sys.version_info[:2]
    if (3, 14) <= _sys.version_info[:3] < (3, 14, 5):
        return "CPython 3.14.0 to 3.14.4 collect incrementally, 3.14.5 and later are supported; this is %d.%d.%d" % (
            _sys.version_info[:3]
        )
    if "t" in getattr(_sys, "abiflags", ""):  # sysconfig would say so too, but imports threading
        return "this is a free-threaded build, whose collector keeps no lists of objects"
    if not _sys.platform.startswith("linux"):
        return f"Linux is supported, this is {_sys.platform}"
    return None


def _not_main():
    """WINNOW_PYTHON speaks to the program; that it has other interpreters too is nothing to be told of for each."""
    e = WinnowError(
        "winnow: it works in the main interpreter only; the interpreter's own collector stays as it is. Install it there"
    )
    e.quiet = True
    return e


def _load():
    why = _why_not()
    if why:
        raise WinnowError(f"winnow: {why}. The interpreter's own collector stays as it is.")
    try:
        from . import _native
    except ImportError as e:
        if "subinterpreter" in str(e):
            raise _not_main() from None
        raise WinnowError(
            f"winnow: its extension cannot be loaded ({e}). Install winnow with this interpreter: "
            f"{_sys.executable} -m pip install . in winnow's source tree"
        ) from e
    if _native.BUILT_FOR != _sys.hexversion >> 16:
        raise WinnowError("winnow: its extension was built for another version of Python; install it again")
    return _native


_mode = None


def install(
    mode="fast",
    *,
    threads=None,
    budget_ms=5.0,
    slice_ms=1.0,
    snapshot_s=60.0,
    batch=2000,
    policy="interpreter",
    huge_pages=False,
    log=False,
):
    """Takes over full collections, and those of the second generation; calling it again changes the options.

    mode        "fast"; "fork-friendly": as fast, and a forked worker's collections write to no object; "concurrent":
                automatic full collections search a copy-on-write snapshot in a child process
    threads     1 or 2 for searches at once; by default 2 where the process may use two processors, else 1
    budget_ms   concurrent: a search expected to take less is done at once, without a child
    slice_ms    concurrent: how long reclaiming some of the garbage should take at most
    snapshot_s  concurrent: patience with a child
    batch       garbage objects that are handed to the interpreter at once
    policy      "interpreter": full collections when its thresholds say so; "garbage": put off those whose
                predecessors found little
    huge_pages  concurrent: keep the program's memory in huge pages, which makes the fork of a snapshot several times
                shorter (Linux 6.1 and later; elsewhere it changes nothing)
    log         a line on stderr for each full collection, with the types it found
    """
    global _mode
    if mode not in MODES:
        raise WinnowError(f"winnow: mode must be one of {', '.join(MODES)}, not {mode!r}")
    if policy not in ("interpreter", "garbage"):
        raise WinnowError(f'winnow: policy must be "interpreter" or "garbage", not {policy!r}')
    if threads is None:
        threads = min(2, len(_os.sched_getaffinity(0)))
    if type(threads) is not int or threads not in (1, 2):
        raise WinnowError(f"winnow: threads must be 1 or 2, not {threads!r}")
    if type(batch) is not int:
        raise WinnowError(f"winnow: batch must be a whole number, not {batch!r}")
    for name, value in (("huge_pages", huge_pages), ("log", log)):
        if value not in (True, False):
            raise WinnowError(f"winnow: {name} must be True or False, not {value!r}")
    for name, value, least in (
        ("budget_ms", budget_ms, 0),
        ("slice_ms", slice_ms, 0.01),
        ("snapshot_s", snapshot_s, 0.01),
        ("batch", batch, 1),
    ):
        if not isinstance(value, (int, float)) or not least <= value < 1e12:
            raise WinnowError(f"winnow: {name} must be a number from {least} on, not {value!r}")
    native = _load()
    try:
        native.install(
            MODES.index(mode) + 1,
            threads=threads,
            budget_ms=budget_ms,
            slice_ms=slice_ms,
            snapshot_s=snapshot_s,
            batch=batch,
            proportional=policy == "garbage",
            huge=bool(huge_pages),
            log=bool(log),
        )
    except RuntimeError as e:
        raise (_not_main() if "main interpreter" in str(e) else WinnowError(str(e))) from None
    _mode = mode


def uninstall():
    """Gives collections back to the interpreter; drops a snapshot. Harmless when not installed."""
    global _mode
    if _mode is not None:
        _load().uninstall()
        _mode = None


def installed():
    return _mode is not None


def mode():
    """The mode that is installed, or None."""
    return _mode


def stats():
    """What has happened since installing, as a dictionary; docs/python.md explains the keys."""
    return dict(_load().stats(), mode=_mode or "off", phase=_native_phase())


def _native_phase():
    return _load().phase()


def clear_stats():
    _load().clear_stats()


def idle(budget_ms=5.0, pending=0.1):
    """To be called when nothing waits: collects, if that is worth while and fits into the budget.

    Garbage that a snapshot found is reclaimed slice by slice while time is left. Otherwise, if objects that have grown
    old since the last full collection make up more than `pending` of all, a full collection is made when it is
    expected to fit, and a snapshot is started (in concurrent mode) when not. Returns the number of objects collected.
    """
    if _mode is None:
        return 0
    import gc
    from time import perf_counter

    native = _load()
    until = perf_counter() + budget_ms / 1000
    collected = 0
    if native.phase() != "idle":
        while native.step() and perf_counter() < until:
            collected += gc.collect(0)
        return collected
    tracked = native.stats()["tracked"]
    if native.pending() > pending * tracked:
        if native.expected_ms() <= budget_ms:
            return gc.collect()
        native.start_snapshot()
    return collected


def report(file=None):
    """Prints the statistics for people."""
    s = stats()
    out = file or _sys.stderr
    if out is None:  # the program has no stderr, and print would take stdout instead
        return
    lines = [
        f"winnow {__version__}[{_os.getpid()}]: mode {s['mode']}, {s['full_collections']} full collections",
        f"  garbage proposed {s['proposed']}, collected {s['collected']}, snapshots {s['snapshots']}",
    ]
    if not s["pauses_us"]:
        lines.append("  no pause yet: nothing was collected by winnow")
    else:
        lines.append(f"  pauses: longest {s['longest_ms']:.2f} ms, in all {s['total_ms']:.1f} ms")
    coarse = {}
    for below, n in s["pauses_us"]:
        limit = 1.0
        while limit < below:
            limit *= 2
        coarse[limit] = coarse.get(limit, 0) + n
    total, seen = sum(coarse.values()), 0
    for limit, n in sorted(coarse.items()):
        seen += n
        lines.append(f"    up to {limit / 1000:9.3f} ms: {n:6d}  {seen / total:7.2%}")
    bad = {k: v for k, v in s["fallbacks"].items() if v}
    if bad:
        lines.append("  left to the interpreter or repeated: " + ", ".join(f"{k} {v}" for k, v in bad.items()))
    print("\n".join([*lines, ""]), end="", file=out)  # in one piece: others may write there too
