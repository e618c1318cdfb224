package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// store; see bench/workloads/store.c and bench/store. Documents are what encoding/json makes of them; the index of shelves is
// a map of slices in which a document knows its place.

const shelves = 64

const isoCodes = "/usr/share/iso-codes/json/iso_*.json"

type sourceDocument struct {
	collection, id, initial string
	raw                     json.RawMessage
}

// loadSources lists the objects in the arrays of the ISO code tables in the order of the files.
func loadSources() []sourceDocument {
	files, _ := filepath.Glob(isoCodes)
	if len(files) == 0 {
		fatal("%s: not there; install the package iso-codes", isoCodes)
	}
	sort.Strings(files)
	var sources []sourceDocument
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			fatal("%v", err)
		}
		var tables map[string][]json.RawMessage
		if err := json.Unmarshal(text, &tables); err != nil {
			fatal("%s: %v", file, err)
		}
		for collection, rows := range tables { // each of these files has one table
			for i, raw := range rows {
				id := collection + "/" + strconv.Itoa(i)
				var named struct{ Name string }
				if err := json.Unmarshal(raw, &named); err != nil {
					fatal("%s: %v", file, err)
				}
				if named.Name == "" {
					named.Name = id
				}
				sources = append(sources, sourceDocument{collection, id, named.Name[:1], raw})
			}
		}
	}
	return sources
}

// object is a JSON object whose values know what they lie in, as the other systems' do.
type object struct {
	parent any
	fields map[string]any
}

type list struct {
	parent any
	items  []any
}

func adopt(value, parent any) any {
	switch v := value.(type) {
	case map[string]any:
		o := &object{parent: parent, fields: v}
		for key, inner := range v {
			v[key] = adopt(inner, o)
		}
		return o
	case []any:
		l := &list{parent: parent, items: v}
		for i, inner := range v {
			v[i] = adopt(inner, l)
		}
		return l
	}
	return value
}

const (
	indexCollection = iota
	indexShelf
	indexInitial
	indexes
)

type indexEntry struct{ documents []*storeDocument }

type storeDocument struct {
	id    string
	root  *object
	index [indexes]*indexEntry
	place [indexes]int
}

func (d *storeDocument) revision() int { return d.root.fields["revision"].(int) }

type documentStore struct {
	sources   []sourceDocument
	copies    int
	documents map[string]*storeDocument
	entries   map[string]*indexEntry
}

func (s *documentStore) id(number int) string {
	return s.sources[number%len(s.sources)].id + "#" + strconv.Itoa(number/len(s.sources))
}

func (s *documentStore) enter(d *storeDocument, which int, key string) {
	e := s.entries[key]
	if e == nil {
		e = &indexEntry{}
		s.entries[key] = e
	}
	d.index[which] = e
	d.place[which] = len(e.documents)
	e.documents = append(e.documents, d)
}

func (d *storeDocument) leave(which int) {
	e := d.index[which]
	last := len(e.documents) - 1
	moved := e.documents[last]
	e.documents[d.place[which]] = moved
	moved.place[which] = d.place[which]
	e.documents[last] = nil
	e.documents = e.documents[:last]
	d.index[which] = nil
}

func key(copy int, kind byte, value string) string { return strconv.Itoa(copy) + string(kind) + value }

func shelfName(shelf int) string { return "s" + strconv.Itoa(shelf) }

func (s *documentStore) insert(number int) {
	src := &s.sources[number%len(s.sources)]
	copy, shelf := number/len(s.sources), shelfName(number%shelves)
	d := &storeDocument{id: s.id(number)}
	var fields map[string]any
	if err := json.Unmarshal(src.raw, &fields); err != nil {
		fatal("%v", err)
	}
	d.root = adopt(fields, d).(*object)
	d.root.fields["shelf"] = shelf
	d.root.fields["revision"] = 0
	s.documents[d.id] = d
	s.enter(d, indexCollection, key(copy, ':', src.collection))
	s.enter(d, indexInitial, key(copy, '^', src.initial))
	s.enter(d, indexShelf, key(copy, '=', shelf))
}

func (s *documentStore) remove(d *storeDocument) {
	delete(s.documents, d.id)
	for which := 0; which < indexes; which++ {
		d.leave(which)
	}
}

func (s *documentStore) update(d *storeDocument, copy, shelf int) int {
	revision := d.revision() + 1
	d.root.fields["revision"] = revision
	d.root.fields["shelf"] = shelfName(shelf)
	d.leave(indexShelf)
	s.enter(d, indexShelf, key(copy, '=', shelfName(shelf)))
	return revision
}

func (s *documentStore) query(copy, shelf int) []*storeDocument {
	e := s.entries[key(copy, '=', shelfName(shelf))]
	if e == nil {
		return nil
	}
	return append([]*storeDocument(nil), e.documents...)
}

func serialize(b *strings.Builder, value any) {
	switch v := value.(type) {
	case *object:
		b.WriteByte('{')
		first := true
		for name, inner := range v.fields {
			if !first {
				b.WriteByte(',')
			}
			first = false
			serialize(b, name)
			b.WriteByte(':')
			serialize(b, inner)
		}
		b.WriteByte('}')
	case *list:
		b.WriteByte('[')
		for i, inner := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			serialize(b, inner)
		}
		b.WriteByte(']')
	case string:
		b.WriteByte('"')
		b.WriteString(v)
		b.WriteByte('"')
	case int:
		b.WriteString(strconv.Itoa(v))
	case float64:
		b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	default:
		b.WriteString("null")
	}
}

// response keeps the text of the last request alive, as a socket's buffer would.
var response string

func (s *documentStore) get(number int) uint64 {
	d := s.documents[s.id(number)]
	if d == nil {
		return 0
	}
	var b strings.Builder
	serialize(&b, d.root)
	response = b.String()
	return uint64(d.revision() + len(d.root.fields) + len(d.id))
}

func (s *documentStore) serve(r *lehmer, deleted *[]int) uint64 {
	total := s.copies * len(s.sources)
	kind := r.below(100)
	number := r.zipf(total) * 1000003 % total
	shelf := r.below(shelves)
	copy := number / len(s.sources)
	switch {
	case kind < 60:
		return s.get(number)
	case kind < 80:
		if d := s.documents[s.id(number)]; d != nil {
			return uint64(s.update(d, copy, shelf))
		}
		return 0
	case kind < 90:
		found := s.query(copy, shelf)
		sum := len(found)
		for _, d := range found {
			sum += d.revision()
		}
		return uint64(sum)
	case kind < 95:
		if len(*deleted) == 0 {
			return 1
		}
		number = (*deleted)[0]
		*deleted = (*deleted)[1:]
		s.insert(number)
		return 2
	}
	d := s.documents[s.id(number)]
	if d == nil || len(*deleted) == len(s.sources) {
		return 3
	}
	*deleted = append(*deleted, number)
	s.remove(d)
	return 4
}

func store(p params) uint64 {
	s := &documentStore{sources: loadSources(), copies: p.get("copies"),
		documents: map[string]*storeDocument{}, entries: map[string]*indexEntry{}}
	clock.skip()
	for number := 0; number < s.copies*len(s.sources); number++ {
		s.insert(number)
		clock.tick()
	}
	rate, n := p.get("rate"), p.get("requests")
	r := seed(5)
	var deleted []int
	var h uint64
	start := clock.tick()
	now := start
	for i := 0; i < n; i++ {
		due := start + uint64(i)*uint64(time.Second)/uint64(rate)
		for now < due {
			now = clock.tick()
		}
		h = fold(h, s.serve(&r, &deleted))
		now = clock.tick()
		requests.add(now - due)
	}
	return h
}
