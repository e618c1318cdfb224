package main

// gcbench and binarytrees; see bench/workloads/gcbench.c and binarytrees.c.

const tickDepth = 6

type tree struct {
	left, right *tree
	i, j        int32
}

func treeSize(depth int) int { return 2<<depth - 1 }

func populate(depth int, t *tree) {
	if depth == 0 {
		return
	}
	t.left = new(tree)
	t.right = new(tree)
	populate(depth-1, t.left)
	populate(depth-1, t.right)
	if depth == tickDepth {
		clock.tick()
	}
}

func makeTree(depth int) *tree {
	if depth == 0 {
		return new(tree)
	}
	t := &tree{left: makeTree(depth - 1), right: makeTree(depth - 1)}
	if depth == tickDepth {
		clock.tick()
	}
	return t
}

func (t *tree) count() int {
	if t == nil {
		return 0
	}
	return 1 + t.left.count() + t.right.count()
}

var temporary *tree // keeps the compiler from removing trees that nothing reads

func gcbench(p params) uint64 {
	stretch := p.get("stretch_depth")
	made := treeSize(stretch)
	temporary = makeTree(stretch)
	temporary = nil

	longLived := new(tree)
	populate(p.get("long_lived_depth"), longLived)
	array := make([]float64, p.get("array"))
	for i := 1; i < len(array)/2; i++ {
		array[i] = 1 / float64(i)
	}
	for depth := p.get("min_depth"); depth <= p.get("max_depth"); depth += 2 {
		n := 2 * treeSize(stretch) / treeSize(depth)
		for i := 0; i < n; i++ {
			temporary = new(tree)
			populate(depth, temporary)
			if depth < tickDepth {
				clock.tick()
			}
		}
		for i := 0; i < n; i++ {
			temporary = makeTree(depth)
			if depth < tickDepth {
				clock.tick()
			}
		}
		temporary = nil
		made += 2 * n * treeSize(depth)
	}
	element := 0
	if len(array) > 2000 {
		element = int(1/array[1000] + .5)
	}
	return uint64(made+longLived.count()+element) & 0xffffffff
}

type node struct{ left, right *node }

func bottomUp(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	n := &node{bottomUp(depth - 1), bottomUp(depth - 1)}
	if depth == tickDepth {
		clock.tick()
	}
	return n
}

func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

// check is count with a look at the clock at every subtree of 127 nodes.
func (n *node) check(depth int) int {
	if depth < tickDepth {
		return n.count()
	}
	sum := 1 + n.left.check(depth-1) + n.right.check(depth-1)
	if depth == tickDepth {
		clock.tick()
	}
	return sum
}

func binaryTrees(p params) uint64 {
	const minDepth = 4
	maxDepth := p.get("depth")
	h := fold(0, uint64(bottomUp(maxDepth+1).check(maxDepth+1)))
	longLived := bottomUp(maxDepth)
	for depth := minDepth; depth <= maxDepth; depth += 2 {
		n, sum := 1<<(maxDepth-depth+minDepth), 0
		for i := 0; i < n; i++ {
			sum += bottomUp(depth).check(depth)
			if depth < tickDepth && i%4 == 0 {
				clock.tick()
			}
		}
		h = fold(h, uint64(sum))
	}
	return fold(h, uint64(longLived.check(maxDepth)))
}
