package main

import "time"

// biglive in its variants, cycles, mutate, control; see the files of those names in bench/workloads.

type graphNode struct {
	a, b, c *graphNode
	key     uint64
}

type item struct {
	before *item
	number uint64
}

func makeGraph(r *lehmer, n int) []*graphNode {
	g := make([]*graphNode, n)
	for i := range g {
		x := &graphNode{key: uint64(i)}
		if i > 0 {
			x.a = g[r.below(i)]
			x.b = g[i-1]
		}
		g[i] = x
		if i%16 == 0 {
			clock.tick()
		}
	}
	for i, x := range g {
		x.c = g[r.below(n)]
		if i%16 == 0 {
			clock.tick()
		}
	}
	return g
}

func bigLive(p params) uint64 {
	n, allocations, rewire := p.get("nodes"), p.get("allocations"), p.get("rewire")
	r := seed(2)
	g := makeGraph(&r, n)
	newest := make([]*item, p.get("ring"))
	var h uint64
	at := 0
	for i := 0; i < allocations; i++ {
		x := &item{number: uint64(i)}
		if old := newest[at]; old != nil {
			h += old.number & 7
		}
		newest[at] = x
		if at++; at == len(newest) {
			at = 0
		}
		if rewire != 0 && i%rewire == 0 {
			from, to := r.below(n), r.below(n)
			g[from].c = g[to]
		}
		if i%32 == 0 {
			clock.tick()
		}
	}
	for i, x := range g {
		h = fold(h, x.c.key)
		if i%16 == 0 {
			clock.tick()
		}
	}
	return h
}

type link struct {
	next  *link
	value int
}

var dropped *link // keeps cycles on the heap: the compiler could prove that they stay in the function

func cycles(p params) uint64 {
	n, sum := p.get("cycles"), 0
	for i := 0; i < n; i++ {
		size := 2 + i%9
		first := &link{value: i}
		last := first
		for k := 1; k < size; k++ {
			last.next = &link{value: k}
			last = last.next
		}
		last.next = first
		for x := first; ; {
			sum += x.value
			if x = x.next; x == first {
				break
			}
		}
		dropped = first
		if i%16 == 0 {
			clock.tick()
		}
	}
	return uint64(sum) & 0xffffffff
}

const edges = 4

type mutateNode struct {
	edge [edges]*mutateNode
	key  uint64
}

func mutate(p params) uint64 {
	n, operations := p.get("nodes"), p.get("operations")
	r := seed(3)
	g := make([]*mutateNode, n)
	makeNode := func(key int) *mutateNode {
		x := &mutateNode{key: uint64(key)}
		for e := range x.edge {
			x.edge[e] = g[r.below(n)]
		}
		return x
	}
	for i := range g {
		g[i] = makeNode(i)
		if i%8 == 0 {
			clock.tick()
		}
	}
	var h uint64
	for i := 0; i < operations; i++ {
		from := r.below(n)
		if i%4 == 0 {
			x := makeNode(i)
			g[from].edge = [edges]*mutateNode{}
			g[from] = x
		} else {
			edge, to := r.below(edges), r.below(n)
			if old := g[from].edge[edge]; old != nil {
				h = fold(h, old.key)
			}
			g[from].edge[edge] = g[to]
		}
		if i%8 == 0 {
			clock.tick()
		}
	}
	return h
}

func control(p params) uint64 {
	end := uint64(time.Duration(p.get("seconds")) * time.Second)
	for clock.tick() < end {
	}
	return 0
}
