"""For uWSGI: `import winnow.uwsgi` in the application, or `import = winnow.uwsgi` in its configuration.

Installs winnow in the master (mode and options from WINNOW_PYTHON, by default fork-friendly) and collects after requests.
"""

import uwsgi

import winnow
from winnow._start import from_environment, say_on_stderr


def _after(hook):
    """The application's own hook, if it has one, and then ours."""

    def after_request():
        if hook:
            hook()
        winnow.idle(budget_ms=2)

    return after_request


if from_environment(say_on_stderr):
    uwsgi.after_req_hook = _after(getattr(uwsgi, "after_req_hook", None))
