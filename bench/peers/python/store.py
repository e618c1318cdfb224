"""store; see bench/workloads/store.c and bench/store. Documents are what json makes of them, their values adopted."""

import glob
import json
from collections import deque

from clock import Lehmer, clock, requests, tick

SHELVES = 64
ISO_CODES = "/usr/share/iso-codes/json/iso_*.json"
COLLECTION, SHELF, INITIAL = range(3)


class Source:
    __slots__ = ("collection", "id", "initial", "text")

    def __init__(self, collection, number, row):
        self.collection = collection
        self.id = "%s/%d" % (collection, number)
        self.initial = row.get("name", self.id)[0]
        self.text = json.dumps(row)


def load_sources():
    files = sorted(glob.glob(ISO_CODES))
    if not files:
        raise SystemExit("peer: %s: not there; install the package iso-codes" % ISO_CODES)
    sources = []
    for file in files:
        with open(file, encoding="utf-8") as f:
            for collection, rows in json.load(f).items():
                sources += [Source(collection, i, row) for i, row in enumerate(rows)]
    return sources


class Object:
    """A JSON object whose values know what they lie in, as the other systems' do."""

    __slots__ = ("parent", "fields")

    def __init__(self, parent, fields):
        self.parent = parent
        self.fields = {key: adopt(value, self) for key, value in fields.items()}


class List:
    __slots__ = ("parent", "items")

    def __init__(self, parent, items):
        self.parent = parent
        self.items = [adopt(item, self) for item in items]


def adopt(value, parent):
    if isinstance(value, dict):
        return Object(parent, value)
    if isinstance(value, list):
        return List(parent, value)
    return value


def serialize(value, out):
    if isinstance(value, Object):
        out.append("{")
        for i, (key, inner) in enumerate(value.fields.items()):
            out.append(',"' if i else '"')
            out.append(key)
            out.append('":')
            serialize(inner, out)
        out.append("}")
    elif isinstance(value, List):
        out.append("[")
        for i, inner in enumerate(value.items):
            if i:
                out.append(",")
            serialize(inner, out)
        out.append("]")
    elif isinstance(value, str):
        out.append('"')
        out.append(value)
        out.append('"')
    else:
        out.append(json.dumps(value))


class Document:
    __slots__ = ("id", "root", "index", "place")

    def __init__(self, id, fields):
        self.id = id
        self.root = Object(self, fields)
        self.index = [None, None, None]
        self.place = [0, 0, 0]

    def leave(self, which):
        entry, place = self.index[which], self.place[which]
        moved = entry.pop()
        if moved is not self:
            entry[place] = moved
            moved.place[which] = place
        self.index[which] = None


class Store:
    def __init__(self, copies):
        self.sources = load_sources()
        self.copies = copies
        self.documents = {}
        self.entries = {}

    def id(self, number):
        copy, source = divmod(number, len(self.sources))
        return "%s#%d" % (self.sources[source].id, copy)

    def enter(self, document, which, key):
        entry = self.entries.setdefault(key, [])
        document.index[which] = entry
        document.place[which] = len(entry)
        entry.append(document)

    def insert(self, number):
        copy, at = divmod(number, len(self.sources))
        source = self.sources[at]
        fields = json.loads(source.text)
        fields["shelf"] = shelf = "s%d" % (number % SHELVES)
        fields["revision"] = 0
        document = self.documents[self.id(number)] = Document(self.id(number), fields)
        self.enter(document, COLLECTION, (copy, ":", source.collection))
        self.enter(document, INITIAL, (copy, "^", source.initial))
        self.enter(document, SHELF, (copy, "=", shelf))

    def get(self, number):
        document = self.documents.get(self.id(number))
        if not document:
            return 0
        out = []
        serialize(document.root, out)
        response = "".join(out)
        fields = document.root.fields
        return fields["revision"] + len(fields) + len(document.id) if response else 0

    def update(self, number, shelf):
        document = self.documents.get(self.id(number))
        if not document:
            return 0
        fields = document.root.fields
        fields["revision"] += 1
        fields["shelf"] = "s%d" % shelf
        document.leave(SHELF)
        self.enter(document, SHELF, (number // len(self.sources), "=", fields["shelf"]))
        return fields["revision"]

    def query(self, number, shelf):
        found = list(self.entries.get((number // len(self.sources), "=", "s%d" % shelf), ()))
        return len(found) + sum(document.root.fields["revision"] for document in found)

    def delete(self, number):
        document = self.documents.pop(self.id(number))
        for which in range(3):
            document.leave(which)


def serve(store, r, deleted):
    total = store.copies * len(store.sources)
    kind = r.below(100)
    number = r.zipf(total) * 1000003 % total
    shelf = r.below(SHELVES)
    if kind < 60:
        return store.get(number)
    if kind < 80:
        return store.update(number, shelf)
    if kind < 90:
        return store.query(number, shelf)
    if kind < 95:
        if not deleted:
            return 1
        store.insert(deleted.popleft())
        return 2
    if store.id(number) not in store.documents or len(deleted) == len(store.sources):
        return 3
    deleted.append(number)
    store.delete(number)
    return 4


def store(copies, rate, requests_):
    s = Store(copies)
    clock.skip()
    for number in range(copies * len(s.sources)):
        s.insert(number)
        tick()
    r = Lehmer(5)
    deleted = deque()
    h = 0
    start = now = tick()
    for i in range(requests_):
        due = start + i * 1_000_000_000 // rate
        while now < due:
            now = tick()
        h = h * 31 + serve(s, r, deleted) & 0xFFFFFFFF
        now = tick()
        requests.add(now - due)
    return h
