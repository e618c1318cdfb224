/*
 * binarytrees.c - the binary trees of the Computer Language Benchmarks Game (after Hans Boehm): perfect trees of
 * growing depth and falling number, each built, walked and dropped, beside one that stays.
 */
#include "../bench.h"
#include "../random.h"

typedef struct node {
    wn_object head;
    struct node *left, *right;
} node;
static const wn_type node_type = WN_TYPE(node, WN_REFS(node, left, right));

enum { DEPTH };
enum { MIN_DEPTH = 4, TICK_DEPTH = 6 };

static node *make(bench *b, wn_mutator *m, uint64_t depth) {
    if (depth == 0) return bench_new(b, m, &node_type);
    wn_root(m, node *, n, bench_new(b, m, &node_type));
    wn_move(m, n, left, make(b, m, depth - 1));
    wn_move(m, n, right, make(b, m, depth - 1));
    if (depth == TICK_DEPTH) bench_tick(b);
    return wn_give(m, n);
}

static uint64_t count(const node *n) { return n->left ? 1 + count(n->left) + count(n->right) : 1; }

/* Walks a tree; the collector has its turn at every subtree of 127 nodes, below which references are plain C. */
static uint64_t check(bench *b, wn_mutator *m, node *top, uint64_t depth) {
    if (depth < TICK_DEPTH) return count(top);
    wn_borrow(m, node *, n, top);
    uint64_t sum = 1 + check(b, m, n->left, depth - 1);
    sum += check(b, m, n->right, depth - 1);
    if (depth == TICK_DEPTH) {
        wn_poll(m);
        bench_tick(b);
    }
    return sum;
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t max_depth = b->param[DEPTH];
    {
        wn_root(m, node *, stretch, make(b, m, max_depth + 1));
        b->checksum = bench_fold(b->checksum, check(b, m, stretch, max_depth + 1));
    }
    wn_root(m, node *, long_lived, make(b, m, max_depth));
    for (uint64_t depth = MIN_DEPTH; depth <= max_depth; depth += 2) {
        uint64_t n = (uint64_t)1 << (max_depth - depth + MIN_DEPTH), sum = 0;
        for (uint64_t i = 0; i < n; i++) {
            wn_root(m, node *, t, make(b, m, depth));
            sum += check(b, m, t, depth);
            if (depth < TICK_DEPTH && i % 4 == 0) bench_tick(b);
        }
        b->checksum = bench_fold(b->checksum, sum);
    }
    b->checksum = bench_fold(b->checksum, check(b, m, long_lived, max_depth));
}

const bench_workload bench_binarytrees = {
    .name = "binarytrees",
    .summary = "the Benchmarks Game's binary trees: built, walked, dropped",
    .run = run,
    .params = {{"depth", 20, 6, BENCH_DEPTH, "depth of the deepest tree"}},
};
