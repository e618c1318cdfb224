"""The heaps that the benchmarks collect: documents of about ten containers, fresh or aged."""

import gc
import json
import random

CONTAINERS = 10  # of a document, about; the benchmarks report the real number


class Record:
    def __init__(self, number, body):
        self.number = number
        self.body = body
        self.tags = [number, str(number)]
        self.place = (number, [number])
        self.owner = Owner(self)


class Owner:
    __slots__ = ("record", "__weakref__")

    def __init__(self, record):
        self.record = record  # a cycle: a document is freed by nobody but the collector


def document(number, r):
    """Parsed JSON inside instances, with slots, tuples and a cycle."""
    text = json.dumps(
        {
            "id": number,
            "name": f"n{number}",
            "items": [{"k": r.randrange(1000), "v": [1.5, number]} for _ in range(r.randrange(1, 4))],
            "by": {"first": {"a": number}, "list": list(range(r.randrange(8)))},
        }
    )
    return Record(number, json.loads(text))


def build(containers, aged, seed=1):
    """A list of documents. Aged: replaced at random, twice over, so that the collector's lists are in another order than
    the addresses."""
    r = random.Random(seed)
    was = gc.isenabled()
    gc.disable()
    n = containers // CONTAINERS
    heap = [document(i, r) for i in range(n)]
    if aged:
        for _ in range(8):
            for _ in range(n // 4):
                heap[r.randrange(n)] = document(0, r)
            gc.collect()
    if was:
        gc.enable()
    return heap


def drop_some(heap, part, seed):
    """Makes that part of the documents garbage and puts new ones in their places."""
    r = random.Random(seed)
    n = len(heap)
    for i in r.sample(range(n), int(n * part)):
        heap[i] = document(i, r)
