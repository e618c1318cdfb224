"""biglive in its variants, cycles, mutate, control; see the files of those names in bench/workloads."""

from clock import Lehmer, clock, tick


class Node:
    __slots__ = ("a", "b", "c", "key")

    def __init__(self, key):
        self.a = self.b = self.c = None
        self.key = key


class Item:
    __slots__ = ("before", "number")

    def __init__(self, number):
        self.before = None
        self.number = number


def make_graph(r, n):
    graph = [None] * n
    for i in range(n):
        node = Node(i)
        if i:
            node.a = graph[r.below(i)]
            node.b = graph[i - 1]
        graph[i] = node
        if i % 16 == 0:
            tick()
    for i in range(n):
        graph[i].c = graph[r.below(n)]
        if i % 16 == 0:
            tick()
    return graph


def biglive(nodes, allocations, ring, rewire):
    r = Lehmer(2)
    graph = make_graph(r, nodes)
    newest = [None] * ring
    h = at = 0
    for i in range(allocations):
        item = Item(i)
        old = newest[at]
        if old:
            h += old.number & 7
        newest[at] = item
        at += 1
        if at == ring:
            at = 0
        if rewire and i % rewire == 0:
            source = r.below(nodes)
            graph[source].c = graph[r.below(nodes)]
        if i % 32 == 0:
            tick()
    for i, node in enumerate(graph):
        h = h * 31 + node.c.key & 0xFFFFFFFF
        if i % 16 == 0:
            tick()
    return h


class Link:
    __slots__ = ("next", "value")

    def __init__(self, value):
        self.next = None
        self.value = value


def cycles(cycles):
    total = 0
    for i in range(cycles):
        first = last = Link(i)
        for k in range(1, 2 + i % 9):
            last.next = Link(k)
            last = last.next
        last.next = first
        x = first
        while True:
            total += x.value
            x = x.next
            if x is first:
                break
        if i % 16 == 0:
            tick()
    return total & 0xFFFFFFFF


class Vertex:
    __slots__ = ("e0", "e1", "e2", "e3", "key")

    def __init__(self, key):
        self.e0 = self.e1 = self.e2 = self.e3 = None
        self.key = key


def make_vertex(graph, r, n, key):
    v = Vertex(key)
    v.e0 = graph[r.below(n)]
    v.e1 = graph[r.below(n)]
    v.e2 = graph[r.below(n)]
    v.e3 = graph[r.below(n)]
    return v


def mutate(nodes, operations):
    n = nodes
    r = Lehmer(3)
    graph = [None] * n
    for i in range(n):
        graph[i] = make_vertex(graph, r, n, i)
        if i % 8 == 0:
            tick()
    h = 0
    for i in range(operations):
        source = r.below(n)
        v = graph[source]
        if i % 4 == 0:
            new = make_vertex(graph, r, n, i)
            v.e0 = v.e1 = v.e2 = v.e3 = None
            graph[source] = new
        else:
            edge = r.below(4)
            target = graph[r.below(n)]
            if edge == 0:
                old, v.e0 = v.e0, target
            elif edge == 1:
                old, v.e1 = v.e1, target
            elif edge == 2:
                old, v.e2 = v.e2, target
            else:
                old, v.e3 = v.e3, target
            if old:
                h = h * 31 + old.key & 0xFFFFFFFF
        if i % 8 == 0:
            tick()
    return h


def control(seconds):
    end = clock.start + seconds * 1_000_000_000
    while tick() < end:
        pass
    return 0
