"""Hooks for gunicorn: in gunicorn.conf.py,

    from winnow.gunicorn import *          # when_ready, post_fork, post_request

The application is loaded before the fork (preload_app = True) so that workers share it; each worker collects between
requests, when there is something to collect. WINNOW_PYTHON in the environment chooses mode and options, by default
fork-friendly.
"""

import winnow
from winnow._start import from_environment

__all__ = ["when_ready", "post_fork", "post_request"]


def when_ready(server):
    """The application is loaded: what it left is collected once, so that no worker has to."""
    import gc

    if from_environment(server.log.warning):
        gc.collect()


def post_fork(server, worker):
    """The worker's statistics are its own. One that is started later, by another path, has winnow too."""
    if winnow.installed():
        winnow.clear_stats()
    else:
        from_environment(server.log.warning)


def post_request(worker, request, environ=None, response=None):
    winnow.idle(budget_ms=2)
