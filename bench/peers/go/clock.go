package main

import (
	"math/bits"
	"time"
)

// Stalls as the program itself sees them: the same method as bench/clock.h. The clock is read at short, regular amounts
// of work; the time between two readings is a gap, and a long gap is a stall, whoever caused it.

const (
	maxGaps        = 1 << 15
	firstThreshold = 10_000 // ns; doubles when the log of gaps is full
)

// histogram has 16 buckets per power of two.
type histogram [64 * 16]uint64

func (h *histogram) add(ns uint64) {
	if ns < 16 {
		h[ns]++
		return
	}
	e := bits.Len64(ns) - 5
	h[uint64(e)*16+ns>>e]++
}

func (h *histogram) count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// pairs lists the buckets in use as (upper bound in µs, count).
func (h *histogram) pairs() [][2]float64 {
	var pairs [][2]float64
	for i, n := range h {
		if n == 0 {
			continue
		}
		upper := float64(i)
		if i >= 16 {
			e := i/16 - 1
			upper = float64(uint64(i-e*16+1)<<e - 1)
		}
		pairs = append(pairs, [2]float64{upper / 1e3, float64(n)})
	}
	return pairs
}

type gap struct{ end, length uint64 }

type stallClock struct {
	base            time.Time
	last, threshold uint64
	stalls          histogram
	gaps            []gap
}

var (
	clock    stallClock
	requests histogram
)

func (c *stallClock) start() {
	c.threshold = firstThreshold
	c.gaps = make([]gap, 0, maxGaps)
	c.base = time.Now()
}

func (c *stallClock) tick() uint64 {
	now := uint64(time.Since(c.base))
	length := now - c.last
	c.last = now
	c.stalls.add(length)
	if length >= c.threshold {
		c.long(now, length)
	}
	return now
}

func (c *stallClock) long(now, length uint64) {
	for len(c.gaps) == maxGaps {
		c.threshold *= 2
		kept := c.gaps[:0]
		for _, g := range c.gaps {
			if g.length >= c.threshold {
				kept = append(kept, g)
			}
		}
		c.gaps = kept
	}
	if length >= c.threshold {
		c.gaps = append(c.gaps, gap{now, length})
	}
}

// skip makes what happened since the last reading no gap: it was preparation, not part of the workload.
func (c *stallClock) skip() { c.last = uint64(time.Since(c.base)) }

func (c *stallClock) stop() { c.tick() }

func (c *stallClock) report(result map[string]any) {
	gaps := make([][2]float64, len(c.gaps))
	for i, g := range c.gaps {
		gaps[i] = [2]float64{float64(g.end) / 1e3, float64(g.length) / 1e3}
	}
	result["stall_histogram"] = c.stalls.pairs()
	result["run_us"] = float64(c.last) / 1e3
	result["gap_threshold_us"] = float64(c.threshold) / 1e3
	result["gaps_us"] = gaps
}

// lehmer is the generator of bench/random.h.
type lehmer uint64

func seed(n uint64) lehmer { return lehmer(n%2147483646 + 1) }

func (r *lehmer) below(n int) int {
	*r = *r * 48271 % 2147483647
	return int(uint64(*r) % uint64(n))
}

// zipf draws a rank below n: every power of two of ranks is equally likely.
func (r *lehmer) zipf(n int) int {
	octaves := bits.Len(uint(n))
	for {
		low := 1 << r.below(octaves)
		if rank := low - 1 + r.below(low); rank < n {
			return rank
		}
	}
}

func fold(h, v uint64) uint64 { return (h*31 + v) & 0xffffffff }
