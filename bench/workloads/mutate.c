/*
 * mutate.c - random rewriting of the pointers of a graph: nearly nothing but barriers, on objects that are old and
 * cold. Every fourth operation puts a new node in the place of an old one, whose edges are cut so that what it kept
 * alive is bounded.
 */
#include "../bench.h"
#include "../random.h"

enum { EDGES = 4 };

typedef struct node {
    wn_object head;
    struct node *edge[EDGES];
    uint64_t key;
} node;
static const wn_type node_type = WN_TYPE(node, .refs = (((uint64_t)1 << EDGES) - 1) << 1);

typedef struct graph {
    wn_object head;
    size_t length;
    node *node[];
} graph;
static const wn_type graph_type = WN_TYPE(graph, WN_ITEMS(graph, length, node));

enum { NODES, OPERATIONS };

static node *make_node(bench *b, wn_mutator *m, graph *g_, bench_random *r, uint64_t key) {
    wn_borrow(m, graph *, g, g_);
    wn_root(m, node *, x, bench_new(b, m, &node_type));
    x->key = key;
    for (unsigned e = 0; e < EDGES; e++) wn_set(m, x, edge[e], g->node[bench_random_below(r, g->length)]);
    return wn_give(m, x);
}

static void replace_node(bench *b, wn_mutator *m, graph *g_, bench_random *r, uint64_t at, uint64_t key) {
    wn_borrow(m, graph *, g, g_);
    wn_root(m, node *, x, make_node(b, m, g, r, key));
    wn_hold(m, node *, old, g->node[at]);
    for (unsigned e = 0; e < EDGES; e++) wn_set(m, old, edge[e], NULL);
    wn_set(m, g, node[at], x);
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[NODES], h = 0;
    bench_random r = bench_random_seed(3);
    wn_root(m, graph *, g, bench_new_array(b, m, &graph_type, n));
    for (uint64_t i = 0; i < n; i++) {
        wn_move(m, g, node[i], make_node(b, m, g, &r, i));
        if (i % 8 == 0) bench_tick(b);
    }
    for (uint64_t i = 0; i < b->param[OPERATIONS]; i++) {
        uint64_t from = bench_random_below(&r, n);
        if (i % 4 == 0) {
            replace_node(b, m, g, &r, from, i);
        } else {
            uint64_t edge = bench_random_below(&r, EDGES), to = bench_random_below(&r, n);
            node *old = g->node[from]->edge[edge];
            if (old) h = bench_fold(h, old->key);
            wn_set(m, g->node[from], edge[edge], g->node[to]);
        }
        if (i % 8 == 0) {
            wn_poll(m);
            bench_tick(b);
        }
    }
    b->checksum = h;
}

const bench_workload bench_mutate = {
    .name = "mutate",
    .summary = "random rewriting of the pointers of a million nodes",
    .run = run,
    .params = {{"nodes", 1000000, 16, BENCH_LINEAR, "nodes of the graph, four edges each"},
               {"operations", 20000000, 16, BENCH_LINEAR, "edges rewritten or nodes replaced"}},
};
