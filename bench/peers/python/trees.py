"""gcbench and binarytrees; see bench/workloads/gcbench.c and binarytrees.c."""

from array import array

from clock import tick

TICK_DEPTH = 6


class Tree:
    __slots__ = ("left", "right", "i", "j")

    def __init__(self, left=None, right=None):
        self.left = left
        self.right = right
        self.i = self.j = 0


def tree_size(depth):
    return (2 << depth) - 1


def populate(depth, tree):
    if depth == 0:
        return
    tree.left = Tree()
    tree.right = Tree()
    populate(depth - 1, tree.left)
    populate(depth - 1, tree.right)
    if depth == TICK_DEPTH:
        tick()


def make_tree(depth):
    if depth == 0:
        return Tree()
    tree = Tree(make_tree(depth - 1), make_tree(depth - 1))
    if depth == TICK_DEPTH:
        tick()
    return tree


def count_nodes(tree):
    return 1 + count_nodes(tree.left) + count_nodes(tree.right) if tree else 0


def gcbench(stretch_depth, long_lived_depth, array_, min_depth, max_depth):
    made = tree_size(stretch_depth)
    make_tree(stretch_depth)

    long_lived = Tree()
    populate(long_lived_depth, long_lived)
    numbers = array("d", bytes(8 * array_))
    for i in range(1, array_ // 2):
        numbers[i] = 1.0 / i
    for depth in range(min_depth, max_depth + 1, 2):
        n = 2 * tree_size(stretch_depth) // tree_size(depth)
        for _ in range(n):
            populate(depth, Tree())
            if depth < TICK_DEPTH:
                tick()
        for _ in range(n):
            make_tree(depth)
            if depth < TICK_DEPTH:
                tick()
        made += 2 * n * tree_size(depth)
    element = int(1 / numbers[1000] + 0.5) if array_ > 2000 else 0
    return made + count_nodes(long_lived) + element & 0xFFFFFFFF


class Node:
    __slots__ = ("left", "right")

    def __init__(self, left, right):
        self.left = left
        self.right = right


def make(depth):
    if depth == 0:
        return Node(None, None)
    node = Node(make(depth - 1), make(depth - 1))
    if depth == TICK_DEPTH:
        tick()
    return node


def count(node):
    return 1 + count(node.left) + count(node.right) if node.left else 1


def check(node, depth):
    """count, with a look at the clock at every subtree of 127 nodes."""
    if depth < TICK_DEPTH:
        return count(node)
    total = 1 + check(node.left, depth - 1) + check(node.right, depth - 1)
    if depth == TICK_DEPTH:
        tick()
    return total


def binarytrees(depth):
    max_depth = depth
    h = check(make(max_depth + 1), max_depth + 1)
    long_lived = make(max_depth)
    for depth in range(4, max_depth + 1, 2):
        n, total = 1 << max_depth - depth + 4, 0
        for i in range(n):
            total += check(make(depth), depth)
            if depth < TICK_DEPTH and i % 4 == 0:
                tick()
        h = h * 31 + total & 0xFFFFFFFF
    return h * 31 + check(long_lived, max_depth) & 0xFFFFFFFF
