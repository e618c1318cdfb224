"""The heaps that the benchmarks collect: documents of some thirteen containers, in order, fresh or aged."""

import gc
import json
import random

CONTAINERS = 13  # of a document: 12.97 or 12.99 on average


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


def in_order(number, r):
    """The same parts, each made after what it hangs on: so the interpreter's lists are in the order of addresses, and of
    reaching, and its collector never moves an object. Programs do not build their data so; it is the stock collector's
    best case. (A dictionary is tracked from the first container on that it holds, hence the references upwards.)"""
    record = Record(number, None)
    body = record.body = {"of": record, "id": number, "name": f"n{number}"}
    items = body["items"] = []
    for _ in range(r.randrange(1, 4)):
        item = {"of": items, "k": r.randrange(1000)}
        items.append(item)
        item["v"] = [1.5, number]
    by = body["by"] = {"of": body}
    by["first"] = {"a": number}
    by["list"] = list(range(r.randrange(8)))
    return record


def build(containers, aged, seed=1, make=document):
    """A list of documents. Aged: replaced at random, twice over, so that the collector's lists are in another order than
    the addresses."""
    r = random.Random(seed)
    was = gc.isenabled()
    gc.disable()
    n = containers // CONTAINERS
    heap = [make(i, r) for i in range(n)]
    if aged:
        for _ in range(8):
            for _ in range(n // 4):
                heap[r.randrange(n)] = document(0, r)
            gc.collect()
    if was:
        gc.enable()
    return heap


def drop_some(heap, part, seed, make=document):
    """Makes that part of the documents garbage and puts new ones in their places."""
    r = random.Random(seed)
    n = len(heap)
    for i in r.sample(range(n), int(n * part)):
        heap[i] = make(i, r)
