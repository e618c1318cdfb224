"""Hooks for gunicorn: in gunicorn.conf.py,

    from winnow.gunicorn import *          # when_ready, post_fork, post_request

The application is loaded before the fork (preload_app = True) so that workers share it; each worker collects between
requests, when there is something to collect. WINNOW_PYTHON in the environment chooses mode and options, by default
fork-friendly.
"""

import os

import winnow
from winnow._start import options_from

__all__ = ["when_ready", "post_fork", "post_request"]


def _options():
    text = os.environ.get("WINNOW_PYTHON") or "fork-friendly"
    return None if text.split(",")[0].strip() == "off" else options_from(text)


def when_ready(server):
    """The application is loaded: what it left is collected once, so that no worker has to."""
    import gc

    options = _options()
    if options is None:
        return
    try:
        winnow.install(**options)
    except (winnow.WinnowError, ValueError) as e:
        server.log.warning("%s", e)
        return
    gc.collect()


def post_fork(server, worker):
    """A worker that is started later, by another path, has winnow too."""
    if not winnow.installed() and (options := _options()) is not None:
        try:
            winnow.install(**options)
        except (winnow.WinnowError, ValueError) as e:
            server.log.warning("%s", e)


def post_request(worker, request, environ=None, response=None):
    winnow.idle(budget_ms=2)
