"""For uWSGI: `import winnow.uwsgi` in the application, or `import = winnow.uwsgi` in its configuration.

Installs winnow in the master (mode and options from WINNOW_PYTHON, by default fork-friendly) and collects after requests.
"""

import sys

import uwsgi

import winnow
from winnow._start import from_environment


def _after_request():
    winnow.idle(budget_ms=2)


if from_environment(lambda message: print(message, file=sys.stderr)):
    uwsgi.after_req_hook = _after_request
