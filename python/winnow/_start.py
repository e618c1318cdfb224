"""Installs winnow at start-up if the environment asks for it; imported by winnow.pth, which does nothing otherwise.

WINNOW_PYTHON=fast|fork-friendly|concurrent, optionally with options as install() takes them:
WINNOW_PYTHON=concurrent,budget_ms=10,log=1. WINNOW_PYTHON_REPORT=1 prints the statistics at exit.
"""


def options_from(text):
    mode, *rest = [part.strip() for part in text.split(",")]
    options = {"mode": mode}
    kinds = {"threads": int, "budget_ms": float, "slice_ms": float, "snapshot_s": float, "batch": int, "policy": str}
    for part in rest:
        name, _, value = part.partition("=")
        if name in ("log", "huge_pages"):
            options[name] = value not in ("", "0")
        elif name in kinds:
            try:
                options[name] = kinds[name](value)
            except ValueError:
                raise ValueError(f"{name}={value!r} is not a {kinds[name].__name__}") from None
        else:
            raise ValueError(f"there is no option {name!r}; there are {', '.join(sorted([*kinds, 'huge_pages', 'log']))}")
    return options


def start(text):
    """Never stops the program from starting: what is wrong is said, and the interpreter's own collector stays."""
    import os
    import sys

    if text.partition(",")[0].strip() == "off":
        return
    try:
        import winnow

        winnow.install(**options_from(text))
    except Exception as e:
        message = str(e)
        print(message if message.startswith("winnow") else f"winnow: WINNOW_PYTHON={text}: {message}", file=sys.stderr)
        return
    if os.environ.get("WINNOW_PYTHON_REPORT", "0") not in ("", "0"):
        import atexit

        atexit.unregister(winnow.report)  # a folder that is on the path by two names brings us here twice
        atexit.register(winnow.report)
