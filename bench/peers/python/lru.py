"""lru; see bench/workloads/lru.c. A dict finds the entries."""

from clock import Lehmer, tick


class Value:
    __slots__ = ("number", "unused")

    def __init__(self, number):
        self.number = number
        self.unused = 0


class Entry:
    __slots__ = ("newer", "older", "value", "key")

    def __init__(self, key, value):
        self.newer = self.older = None
        self.key = key
        self.value = value


class Cache:
    def __init__(self, capacity):
        self.entries = {}
        self.newest = self.oldest = None
        self.capacity = capacity

    def unlink(self, e):
        if e.newer:
            e.newer.older = e.older
        else:
            self.newest = e.older
        if e.older:
            e.older.newer = e.newer
        else:
            self.oldest = e.newer
        e.newer = e.older = None

    def push_newest(self, e):
        e.older = self.newest
        if self.newest:
            self.newest.newer = e
        else:
            self.oldest = e
        self.newest = e

    def insert(self, key, number):
        e = Entry(key, Value(number))
        if len(self.entries) == self.capacity:
            oldest = self.oldest
            self.unlink(oldest)
            del self.entries[oldest.key]
        self.entries[key] = e
        self.push_newest(e)


def lru(entries, operations):
    cache = Cache(entries)
    for key in range(entries):
        cache.insert(key, key)
        if key % 8 == 0:
            tick()
    r = Lehmer(1)
    h = hits = 0
    for i in range(operations):
        key = r.below(2 * entries)
        e = cache.entries.get(key)
        if e:
            hits += 1
            h = h * 31 + e.value.number & 0xFFFFFFFF
            if e is not cache.newest:
                cache.unlink(e)
                cache.push_newest(e)
        else:
            cache.insert(key, i)
        if i % 8 == 0:
            tick()
    return h * 31 + hits & 0xFFFFFFFF
