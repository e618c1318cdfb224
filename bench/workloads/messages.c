/*
 * messages.c - a broker's buffer: messages of 1 KiB come in, the newest 200,000 are kept, the oldest dropped; kept in a
 * ring, or in a map by number. No message refers to anything: memory bandwidth and large live data, little to trace.
 */
#include "../bench.h"
#include "../random.h"
#include <string.h>

typedef struct message {
    wn_object head;
    size_t length;
    unsigned char byte[];
} message;
static const wn_type message_type = WN_TYPE(message, WN_DATA(message, length, byte));

typedef struct ring {
    wn_object head;
    size_t length;
    message *item[];
} ring;
static const wn_type ring_type = WN_TYPE(ring, WN_ITEMS(ring, length, item));

typedef struct entry {
    wn_object head;
    struct entry *chain;
    message *message;
    uint64_t key;
} entry;
static const wn_type entry_type = WN_TYPE(entry, WN_REFS(entry, chain, message));

typedef struct map {
    wn_object head;
    size_t length;
    entry *bucket[];
} map;
static const wn_type map_type = WN_TYPE(map, WN_ITEMS(map, length, bucket));

enum { KEPT, PUSHED, BYTES };

static message *make_message(bench *b, wn_mutator *m, uint64_t number) {
    message *t = bench_new_array(b, m, &message_type, b->param[BYTES]);
    memset(t->byte, (int)(number & 255), t->length);
    return t;
}

static uint64_t weigh(const message *t) { return t->byte[0] + (uint64_t)t->byte[t->length - 1]; }

static void run_ring(bench *b) {
    wn_mutator *m = b->m;
    uint64_t kept = b->param[KEPT], h = 0;
    wn_root(m, ring *, r, bench_new_array(b, m, &ring_type, kept));
    for (uint64_t i = 0; i < b->param[PUSHED]; i++) {
        uint64_t at = i % kept;
        if (i >= kept) h = bench_fold(h, weigh(r->item[at]));
        wn_move(m, r, item[at], make_message(b, m, i));
        if (i % 8 == 0) bench_tick(b);
    }
    b->checksum = h;
}

static size_t place(const map *t, uint64_t key) { return (key * 2654435761u >> 8) & (t->length - 1); }

static void put(bench *b, wn_mutator *m, map *t_, uint64_t key) {
    wn_borrow(m, map *, t, t_);
    wn_root(m, entry *, e, bench_new(b, m, &entry_type));
    e->key = key;
    wn_move(m, e, message, make_message(b, m, key));
    size_t at = place(t, key);
    wn_set(m, e, chain, t->bucket[at]);
    wn_set(m, t, bucket[at], e);
}

/* Takes an entry out of the map and returns the weight of its message. */
static uint64_t drop(wn_mutator *m, map *t, uint64_t key) {
    size_t at = place(t, key);
    entry *before = NULL, *e = t->bucket[at];
    while (e->key != key) before = e, e = e->chain;
    uint64_t weight = weigh(e->message);
    if (before)
        wn_set(m, before, chain, e->chain);
    else
        wn_set(m, t, bucket[at], e->chain);
    return weight;
}

static void run_map(bench *b) {
    wn_mutator *m = b->m;
    uint64_t kept = b->param[KEPT], h = 0;
    size_t buckets = 1;
    while (buckets < kept) buckets *= 2;
    wn_root(m, map *, t, bench_new_array(b, m, &map_type, buckets));
    for (uint64_t i = 0; i < b->param[PUSHED]; i++) {
        put(b, m, t, i);
        if (i >= kept) h = bench_fold(h, drop(m, t, i - kept));
        if (i % 8 == 0) bench_tick(b);
    }
    b->checksum = h;
}

#define PARAMS                                                                \
    {                                                                         \
        {"kept", 200000, 4, BENCH_LINEAR, "messages kept"},                   \
            {"pushed", 10000000, 4, BENCH_LINEAR, "messages that come in"}, { \
            "bytes", 1024, 1, BENCH_FIXED, "bytes of a message"               \
        }                                                                     \
    }

const bench_workload bench_messages = {
    .name = "messages", .summary = "200,000 messages of 1 KiB kept in a ring", .run = run_ring, .params = PARAMS};
const bench_workload bench_messages_map = {
    .name = "messages-map", .summary = "the same messages kept in a map by number", .run = run_map, .params = PARAMS};
