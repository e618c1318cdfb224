"""Installs winnow as the environment says: for winnow.pth, which imports this at start-up if WINNOW_PYTHON is set, and for
the hooks of servers. A server or program never fails to start because of it: what is wrong is said, and the
interpreter's own collector stays.

WINNOW_PYTHON=fast|fork-friendly|concurrent|off, optionally with options as install() takes them:
WINNOW_PYTHON=concurrent,budget_ms=10,log=1. WINNOW_PYTHON_REPORT=1 prints the statistics at exit.
"""

_KINDS = {"threads": int, "budget_ms": float, "slice_ms": float, "snapshot_s": float, "batch": int, "policy": str}
_WORDS = {int: "a whole number", float: "a number"}
_SWITCHES = ("huge_pages", "log")
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def options_from(text):
    mode, *rest = [part.strip() for part in text.split(",")]
    options = {"mode": mode}
    for part in rest:
        name, given, value = part.partition("=")
        if name in _SWITCHES:
            if given and value.lower() not in _ON + _OFF:
                raise ValueError(f"{name}={value!r} is neither on nor off: write {name}=1 or {name}=0")
            options[name] = not given or value.lower() in _ON
        elif name in _KINDS:
            try:
                options[name] = _KINDS[name](value)
            except ValueError:
                raise ValueError(f"{name}={value!r} is not {_WORDS[_KINDS[name]]}") from None
        else:
            raise ValueError(f"there is no option {name!r}; there are {', '.join(sorted([*_KINDS, *_SWITCHES]))}")
    return options


def is_off(text):
    return text.partition(",")[0].strip() == "off"


def try_install(text, say):
    """Installs winnow with these options, unless the text begins with off. True if that was done; if not, why is said."""
    if is_off(text):
        return False
    try:
        import winnow

        winnow.install(**options_from(text))
        return True
    except Exception as e:
        if not getattr(e, "quiet", False):
            message = str(e)
            message = message[len("winnow: ") :] if message.startswith("winnow: ") else message
            say(f"winnow: WINNOW_PYTHON={text}: {message.rstrip('.')}. It starts without winnow; unset the variable, or set it to off.")
        return False


def say_on_stderr(message):
    """If there is one that takes it: none of it may keep the program from starting, or change how it ends."""
    import os
    import sys

    try:
        try:
            number = sys.stderr.fileno()
        except (OSError, ValueError):  # no file of the system's
            print(message, file=sys.stderr)
        else:  # past its buffer: what stays there because the file is full would be the program's exit status
            os.write(number, (message + "\n").encode(errors="backslashreplace"))
    except (AttributeError, OSError, ValueError):  # none; full; closed
        pass


def from_environment(say):
    """The same with what is in the environment, by default fork-friendly: for servers, where somebody asked for us."""
    import os

    return try_install(os.environ.get("WINNOW_PYTHON") or "fork-friendly", say)


_started = False  # the site module of a virtual environment reads .pth files twice


def start(text):
    import os

    global _started
    if _started:
        return
    _started = True
    if try_install(text, say_on_stderr):
        if os.environ.get("WINNOW_PYTHON_REPORT", "0") not in ("", "0"):
            import atexit

            import winnow

            atexit.register(winnow.report)
