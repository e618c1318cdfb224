/*
 * biglive.c - short-lived garbage beside a large graph with cycles that stays alive: what a collector without
 * generations pays for every time around.
 *
 * Three variants: the garbage is garbage almost at once (a ring of 1,024 newest); it lives for a while (a ring of
 * 500,000, which is what generational collectors pay for); the edges of the graph change meanwhile (which is what
 * barriers pay for).
 */
#include "../bench.h"
#include "../random.h"

typedef struct node {
    wn_object head;
    struct node *a, *b, *c;
    uint64_t key;
} node;
static const wn_type node_type = WN_TYPE(node, WN_REFS(node, a, b, c));

typedef struct graph {
    wn_object head;
    size_t length;
    node *node[];
} graph;
static const wn_type graph_type = WN_TYPE(graph, WN_ITEMS(graph, length, node));

typedef struct item {
    wn_object head;
    struct item *before;
    uint64_t number;
} item;
static const wn_type item_type = WN_TYPE(item, WN_REFS(item, before));

typedef struct ring {
    wn_object head;
    size_t length;
    item *item[];
} ring;
static const wn_type ring_type = WN_TYPE(ring, WN_ITEMS(ring, length, item));

enum { NODES, ALLOCATIONS, RING, REWIRE };

/* Each node refers to the one before it and to a random earlier one; then each to a random one, which makes cycles. */
static graph *make_graph(bench *b, wn_mutator *m, bench_random *r, uint64_t n) {
    wn_root(m, graph *, g, bench_new_array(b, m, &graph_type, n));
    for (uint64_t i = 0; i < n; i++) {
        node *x = bench_new(b, m, &node_type);
        x->key = i;
        wn_move(m, g, node[i], x);
        if (i) {
            wn_set(m, g->node[i], a, g->node[bench_random_below(r, i)]);
            wn_set(m, g->node[i], b, g->node[i - 1]);
        }
        if (i % 16 == 0) bench_tick(b);
    }
    for (uint64_t i = 0; i < n; i++) {
        wn_set(m, g->node[i], c, g->node[bench_random_below(r, n)]);
        if (i % 16 == 0) {
            wn_poll(m);
            bench_tick(b);
        }
    }
    return wn_give(m, g);
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    const uint64_t *p = b->param;
    uint64_t n = p[NODES], slots = p[RING], h = 0;
    bench_random r = bench_random_seed(2);
    wn_root(m, graph *, g, make_graph(b, m, &r, n));
    wn_root(m, ring *, newest, bench_new_array(b, m, &ring_type, slots));
    uint64_t at = 0;
    for (uint64_t i = 0; i < p[ALLOCATIONS]; i++) {
        item *x = bench_new(b, m, &item_type);
        x->number = i;
        item *old = newest->item[at];
        if (old) h += old->number & 7;
        wn_move(m, newest, item[at], x);
        if (++at == slots) at = 0;
        if (p[REWIRE] && i % p[REWIRE] == 0) {
            uint64_t from = bench_random_below(&r, n), to = bench_random_below(&r, n);
            wn_set(m, g->node[from], c, g->node[to]);
        }
        if (i % 32 == 0) bench_tick(b);
    }
    for (uint64_t i = 0; i < n; i++) {
        h = bench_fold(h, g->node[i]->c->key);
        if (i % 16 == 0) bench_tick(b);
    }
    b->checksum = h;
}

#define PARAMS(ring_entries, rewire_every)                                                                         \
    {                                                                                                              \
        {"nodes", 5000000, 16, BENCH_LINEAR, "nodes of the graph that stays alive"},                               \
            {"allocations", 100000000, 16, BENCH_LINEAR, "short-lived objects made beside it"},                    \
            {"ring", ring_entries, 1, BENCH_FIXED, "newest short-lived objects that are still referred to"}, {     \
            "rewire", rewire_every, 0, BENCH_FIXED, "an edge of the graph changes every so many objects; 0: never" \
        }                                                                                                          \
    }

const bench_workload bench_biglive = {
    .name = "biglive", .summary = "garbage beside 5 million live nodes", .run = run, .params = PARAMS(1024, 0)};
const bench_workload bench_biglive_ring = {.name = "biglive-ring",
                                           .summary = "the same with 500,000 medium-lived objects, always renewed",
                                           .run = run,
                                           .params = PARAMS(500000, 0)};
const bench_workload bench_biglive_rewired = {.name = "biglive-rewired",
                                              .summary = "the same while the edges of the live graph change",
                                              .run = run,
                                              .params = PARAMS(1024, 8)};
