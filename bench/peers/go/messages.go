package main

import "bytes"

// messages and messages-map; see bench/workloads/messages.c.

func makeMessage(number, size int) []byte { return bytes.Repeat([]byte{byte(number)}, size) }

func weigh(m []byte) uint64 { return uint64(m[0]) + uint64(m[len(m)-1]) }

func messagesRing(p params) uint64 {
	kept, pushed, size := p.get("kept"), p.get("pushed"), p.get("bytes")
	ring := make([][]byte, kept)
	var h uint64
	for i := 0; i < pushed; i++ {
		at := i % kept
		if i >= kept {
			h = fold(h, weigh(ring[at]))
		}
		ring[at] = makeMessage(i, size)
		if i%8 == 0 {
			clock.tick()
		}
	}
	return h
}

func messagesMap(p params) uint64 {
	kept, pushed, size := p.get("kept"), p.get("pushed"), p.get("bytes")
	messages := make(map[int][]byte, kept)
	var h uint64
	for i := 0; i < pushed; i++ {
		messages[i] = makeMessage(i, size)
		if i >= kept {
			h = fold(h, weigh(messages[i-kept]))
			delete(messages, i-kept)
		}
		if i%8 == 0 {
			clock.tick()
		}
	}
	return h
}
