"""A small Django application over a large shared catalogue; each request leaves reference cycles behind.

HOW in the environment: stock, disable, freeze, winnow, winnow+freeze. Loaded before the workers are forked.
"""

import gc
import os
import random

HOW = os.environ.get("HOW", "stock")
if HOW == "disable":
    gc.disable()
elif HOW.startswith("winnow"):
    import winnow

    winnow.install(os.environ.get("WINNOW_MODE", "fork-friendly"), threads=1)

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, JsonResponse
from django.template import Context, Template
from django.urls import path

settings.configure(
    DEBUG=False,
    SECRET_KEY="for a benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    LOGGING_CONFIG=None,
)
django.setup()

import heaps  # noqa: E402

CATALOGUE = heaps.build(int(float(os.environ.get("CATALOGUE", "5e5"))), aged=False)
PAGE = Template("<h1>{{ title }}</h1><ul>{% for i in items %}<li>{{ i.k }}: {{ i.v }}</li>{% endfor %}</ul>")
RANDOM = random.Random()
KEPT = []  # a few requests' objects stay for a while, so that cycles grow old


class Cycle:
    def __init__(self, request, document):
        self.request = request
        self.parts = [{"of": self, "text": str(i) * 20} for i in range(100)]
        self.document = document


SERVED = 0


def page(request):
    global SERVED
    SERVED += 1
    document = RANDOM.choice(CATALOGUE)
    KEPT.append(Cycle(request, document))
    if len(KEPT) > 200:
        del KEPT[:100]
    return HttpResponse(PAGE.render(Context({"title": document.body["name"], "items": document.body["items"]})))


def memory(request):
    """This worker's memory, in kB, and what its collector has done since the fork."""
    with open("/proc/self/smaps_rollup") as f:
        kb = {line.split()[0][:-1]: int(line.split()[1]) for line in f if line.endswith("kB\n")}
    return JsonResponse({"pid": os.getpid(), "rss": kb["Rss"], "pss": kb["Pss"], "private": kb["Private_Dirty"],
                         "full": gc.get_stats()[2]["collections"] - BEFORE, "served": SERVED})


urlpatterns = [path("", page), path("memory", memory)]
application = WSGIHandler()

if HOW != "disable":
    gc.collect()
if HOW in ("freeze", "winnow+freeze"):
    gc.freeze()
BEFORE = gc.get_stats()[2]["collections"]
