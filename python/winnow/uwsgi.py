"""For uWSGI: `import winnow.uwsgi` in the application, or `import = winnow.uwsgi` in its configuration.

Installs winnow in the master (mode and options from WINNOW_PYTHON, by default fork-friendly) and collects after requests.
"""

import os

import uwsgi

import winnow
from winnow._start import options_from


def _after_request():
    winnow.idle(budget_ms=2)


_text = os.environ.get("WINNOW_PYTHON") or "fork-friendly"
if _text.split(",")[0].strip() != "off":
    winnow.install(**options_from(_text))
    uwsgi.after_req_hook = _after_request
