package main

// lru-chains: lru with the hash table of the C programs, whose buckets are chains through the entries, instead of Go's map;
// beside lru it tells what of a difference is the table's.

type chainedEntry struct {
	newer, older, chain *chainedEntry
	value               *value
	key                 uint64
}

type chainedCache struct {
	bucket          []*chainedEntry
	newest, oldest  *chainedEntry
	count, capacity int
}

func (c *chainedCache) place(key uint64) *(*chainedEntry) {
	return &c.bucket[key*2654435761>>8&uint64(len(c.bucket)-1)]
}

func (c *chainedCache) find(key uint64) *chainedEntry {
	e := *c.place(key)
	for e != nil && e.key != key {
		e = e.chain
	}
	return e
}

func (c *chainedCache) unlink(e *chainedEntry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		c.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		c.oldest = e.newer
	}
	e.newer, e.older = nil, nil
}

func (c *chainedCache) pushNewest(e *chainedEntry) {
	e.older = c.newest
	if c.newest != nil {
		c.newest.newer = e
	} else {
		c.oldest = e
	}
	c.newest = e
}

func (c *chainedCache) evictOldest() {
	e := c.oldest
	c.unlink(e)
	at := c.place(e.key)
	for *at != e {
		at = &(*at).chain
	}
	*at = e.chain
	e.chain = nil
	c.count--
}

func (c *chainedCache) insert(key, number uint64) {
	e := &chainedEntry{key: key, value: &value{number: number}}
	if c.count == c.capacity {
		c.evictOldest()
	}
	at := c.place(key)
	e.chain = *at
	*at = e
	c.pushNewest(e)
	c.count++
}

func lruChains(p params) uint64 {
	entries, operations := p.get("entries"), p.get("operations")
	buckets := 1
	for buckets < entries {
		buckets *= 2
	}
	c := &chainedCache{bucket: make([]*chainedEntry, buckets), capacity: entries}
	for key := 0; key < entries; key++ {
		c.insert(uint64(key), uint64(key))
		if key%8 == 0 {
			clock.tick()
		}
	}
	r := seed(1)
	var h, hits uint64
	for i := 0; i < operations; i++ {
		key := uint64(r.below(2 * entries))
		if e := c.find(key); e != nil {
			hits++
			h = fold(h, e.value.number)
			if e != c.newest {
				c.unlink(e)
				c.pushNewest(e)
			}
		} else {
			c.insert(key, uint64(i))
		}
		if i%8 == 0 {
			clock.tick()
		}
	}
	return fold(h, hits)
}
