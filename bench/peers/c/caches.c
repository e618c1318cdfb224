/* caches.c - lru, messages, messages-map; see bench/workloads/lru.c and messages.c. */
#include "peer.h"

static size_t place(uint64_t key, size_t buckets) { return (key * 2654435761u >> 8) & (buckets - 1); }

static size_t power_of_two(size_t least) {
    size_t n = 1;
    while (n < least) n *= 2;
    return n;
}

typedef struct value {
    uint64_t number, unused;
} value;

typedef struct entry {
    struct entry *newer, *older, *chain;
    value *value;
    uint64_t key;
} entry;

typedef struct cache {
    entry **bucket;
    size_t buckets, count, capacity;
    entry *newest, *oldest;
} cache;

static entry *find(const cache *c, uint64_t key) {
    entry *e = c->bucket[place(key, c->buckets)];
    while (e && e->key != key) e = e->chain;
    return e;
}

static void unlink_entry(cache *c, entry *e) {
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void push_newest(cache *c, entry *e) {
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void evict_oldest(cache *c) {
    entry *e = c->oldest;
    unlink_entry(c, e);
    entry **from = &c->bucket[place(e->key, c->buckets)];
    while (*from != e) from = &(*from)->chain;
    *from = e->chain;
    c->count--;
    peer_free(e->value);
    peer_free(e);
}

static void insert(cache *c, uint64_t key, uint64_t number) {
    entry *e = peer_new(sizeof *e);
    e->key = key;
    e->value = peer_new_plain(sizeof *e->value);
    *e->value = (value){number, 0};
    if (c->count == c->capacity) evict_oldest(c);
    entry **at = &c->bucket[place(key, c->buckets)];
    e->chain = *at;
    *at = e;
    push_newest(c, e);
    c->count++;
}

uint64_t lru(void) {
    uint64_t entries = param("entries"), operations = param("operations"), h = 0, hits = 0;
    cache *c = peer_new(sizeof *c);
    c->capacity = entries;
    c->buckets = power_of_two(entries);
    c->bucket = peer_new(c->buckets * sizeof *c->bucket);
    for (uint64_t key = 0; key < entries; key++) {
        insert(c, key, key);
        if (key % 8 == 0) tick();
    }
    lehmer r = lehmer_seed(1);
    for (uint64_t i = 0; i < operations; i++) {
        uint64_t key = below(&r, 2 * entries);
        entry *e = find(c, key);
        if (e) {
            hits++;
            h = fold(h, e->value->number);
            if (e != c->newest) {
                unlink_entry(c, e);
                push_newest(c, e);
            }
        } else {
            insert(c, key, i);
        }
        if (i % 8 == 0) tick();
    }
    return fold(h, hits);
}

static unsigned char *make_message(uint64_t number, size_t size) {
    return memset(peer_new_plain(size), (int)(number & 255), size);
}
static uint64_t weigh(const unsigned char *m, size_t size) { return m[0] + (uint64_t)m[size - 1]; }

uint64_t messages(void) {
    uint64_t kept = param("kept"), pushed = param("pushed"), size = param("bytes"), h = 0;
    unsigned char **ring = peer_new(kept * sizeof *ring);
    for (uint64_t i = 0; i < pushed; i++) {
        unsigned char **at = &ring[i % kept];
        if (i >= kept) {
            h = fold(h, weigh(*at, size));
            peer_free(*at);
        }
        *at = make_message(i, size);
        if (i % 8 == 0) tick();
    }
    return h;
}

typedef struct map_entry {
    struct map_entry *chain;
    unsigned char *message;
    uint64_t key;
} map_entry;

uint64_t messages_map(void) {
    uint64_t kept = param("kept"), pushed = param("pushed"), size = param("bytes"), h = 0;
    size_t buckets = power_of_two(kept);
    map_entry **bucket = peer_new(buckets * sizeof *bucket);
    for (uint64_t i = 0; i < pushed; i++) {
        map_entry *e = peer_new(sizeof *e), **at = &bucket[place(i, buckets)];
        *e = (map_entry){*at, make_message(i, size), i};
        *at = e;
        if (i >= kept) {
            at = &bucket[place(i - kept, buckets)];
            while ((*at)->key != i - kept) at = &(*at)->chain;
            e = *at;
            h = fold(h, weigh(e->message, size));
            *at = e->chain;
            peer_free(e->message);
            peer_free(e);
        }
        if (i % 8 == 0) tick();
    }
    return h;
}
