package main

// lru; see bench/workloads/lru.c. Go's own map finds the entries.

type value struct{ number, unused uint64 }

type lruEntry struct {
	newer, older *lruEntry
	value        *value
	key          int
}

type cache struct {
	entries        map[int]*lruEntry
	newest, oldest *lruEntry
	capacity       int
}

func (c *cache) unlink(e *lruEntry) {
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

func (c *cache) pushNewest(e *lruEntry) {
	e.older = c.newest
	if c.newest != nil {
		c.newest.newer = e
	} else {
		c.oldest = e
	}
	c.newest = e
}

func (c *cache) insert(key int, number uint64) {
	e := &lruEntry{key: key, value: &value{number: number}}
	if len(c.entries) == c.capacity {
		oldest := c.oldest
		c.unlink(oldest)
		delete(c.entries, oldest.key)
	}
	c.entries[key] = e
	c.pushNewest(e)
}

func lru(p params) uint64 {
	entries, operations := p.get("entries"), p.get("operations")
	c := &cache{entries: make(map[int]*lruEntry, entries), capacity: entries}
	for key := 0; key < entries; key++ {
		c.insert(key, uint64(key))
		if key%8 == 0 {
			clock.tick()
		}
	}
	r := seed(1)
	var h, hits uint64
	for i := 0; i < operations; i++ {
		key := r.below(2 * entries)
		if e := c.entries[key]; e != nil {
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
