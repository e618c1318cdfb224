/*
 * lru.c - a cache of linked entries in constant churn: a hash table, a list from the most to the least recently used, a
 * value object per entry. Half of the requests miss, make an entry and evict the oldest; objects therefore die old and
 * in the order in which they were last used, which is what generational collectors like least.
 */
#include "../bench.h"
#include "../random.h"

typedef struct value {
    wn_object head;
    uint64_t number, unused;
} value;
static const wn_type value_type = WN_TYPE(value);

typedef struct entry {
    wn_object head;
    struct entry *newer, *older, *chain;
    value *value;
    uint64_t key;
} entry;
static const wn_type entry_type = WN_TYPE(entry, WN_REFS(entry, newer, older, chain, value));

typedef struct table {
    wn_object head;
    size_t length;
    entry *bucket[];
} table;
static const wn_type table_type = WN_TYPE(table, WN_ITEMS(table, length, bucket));

typedef struct cache {
    wn_object head;
    table *table;
    entry *newest, *oldest;
    uint64_t count, capacity;
} cache;
static const wn_type cache_type = WN_TYPE(cache, WN_REFS(cache, table, newest, oldest));

enum { ENTRIES, OPERATIONS };

static size_t place(const table *t, uint64_t key) { return (key * 2654435761u >> 8) & (t->length - 1); }

static entry *find(const cache *c, uint64_t key) {
    entry *e = c->table->bucket[place(c->table, key)];
    while (e && e->key != key) e = e->chain;
    return e;
}

/* Every store below can, under counting, only release what another reference still holds, except the last of unlink's
 * and evict's; so plain borrowed pointers are good between them on every collector. */
static void unlink_entry(wn_mutator *m, cache *c, entry *e) {
    if (e->newer)
        wn_set(m, e->newer, older, e->older);
    else
        wn_set(m, c, newest, e->older);
    if (e->older)
        wn_set(m, e->older, newer, e->newer);
    else
        wn_set(m, c, oldest, e->newer);
    wn_set(m, e, newer, NULL);
    wn_set(m, e, older, NULL);
}

static void push_newest(wn_mutator *m, cache *c, entry *e) {
    wn_set(m, e, older, c->newest);
    if (c->newest)
        wn_set(m, c->newest, newer, e);
    else
        wn_set(m, c, oldest, e);
    wn_set(m, c, newest, e);
}

static void evict_oldest(wn_mutator *m, cache *c_) {
    wn_borrow(m, cache *, c, c_);
    wn_hold(m, entry *, e, c->oldest);
    unlink_entry(m, c, e);
    table *t = c->table;
    size_t at = place(t, e->key);
    if (t->bucket[at] == e) {
        wn_set(m, t, bucket[at], e->chain);
    } else {
        entry *before = t->bucket[at];
        while (before->chain != e) before = before->chain;
        wn_set(m, before, chain, e->chain);
    }
    wn_set(m, e, chain, NULL);
    c->count--;
}

static void insert(bench *b, wn_mutator *m, cache *c_, uint64_t key, uint64_t number) {
    wn_borrow(m, cache *, c, c_);
    wn_root(m, entry *, e, bench_new(b, m, &entry_type));
    e->key = key;
    value *v = bench_new(b, m, &value_type);
    v->number = number;
    wn_move(m, e, value, v);
    if (c->count == c->capacity) evict_oldest(m, c);
    table *t = c->table;
    size_t at = place(t, key);
    wn_set(m, e, chain, t->bucket[at]);
    wn_set(m, t, bucket[at], e);
    push_newest(m, c, e);
    c->count++;
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t entries = b->param[ENTRIES], hits = 0, h = 0;
    size_t buckets = 1;
    while (buckets < entries) buckets *= 2;

    wn_root(m, cache *, c, bench_new(b, m, &cache_type));
    c->capacity = entries;
    wn_move(m, c, table, bench_new_array(b, m, &table_type, buckets));
    for (uint64_t key = 0; key < entries; key++) {
        insert(b, m, c, key, key);
        if (key % 8 == 0) bench_tick(b);
    }
    bench_random r = bench_random_seed(1);
    for (uint64_t i = 0; i < b->param[OPERATIONS]; i++) {
        uint64_t key = bench_random_below(&r, 2 * entries);
        wn_hold(m, entry *, e, find(c, key));
        if (e) {
            hits++;
            h = bench_fold(h, e->value->number);
            if (e != c->newest) {
                unlink_entry(m, c, e);
                push_newest(m, c, e);
            }
            wn_poll(m);
        } else {
            insert(b, m, c, key, i);
        }
        if (i % 8 == 0) bench_tick(b);
    }
    b->checksum = bench_fold(h, hits);
}

const bench_workload bench_lru = {
    .name = "lru",
    .summary = "a cache of a million linked entries in constant churn",
    .run = run,
    .params = {{"entries", 1000000, 16, BENCH_LINEAR, "entries kept"},
               {"operations", 10000000, 16, BENCH_LINEAR, "look-ups, half of which miss and make an entry"}},
};
