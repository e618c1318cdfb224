/*
 * gcbench.c - Boehm's GCBench (after Ellis and Kovac): trees of many sizes made and dropped beside a long-lived tree
 * and array; half of them built top down (old objects written), half bottom up (new objects written).
 *
 * The standard parameters; the checksum is the number of nodes made, the long-lived tree counted at the end and
 * one element of the array.
 */
#include "../bench.h"

typedef struct tree {
    wn_object head;
    struct tree *left, *right;
    int i, j;
} tree;
static const wn_type tree_type = WN_TYPE(tree, WN_REFS(tree, left, right));

typedef struct array {
    wn_object head;
    size_t length;
    double item[];
} array;
static const wn_type array_type = WN_TYPE(array, WN_DATA(array, length, item));

enum { STRETCH, LONG_LIVED, ARRAY, MIN_DEPTH, MAX_DEPTH };
enum { TICK_DEPTH = 6 };

static uint64_t tree_size(uint64_t depth) { return ((uint64_t)2 << depth) - 1; }

/* Top down: the nodes exist before their children. */
static void populate(bench *b, wn_mutator *m, uint64_t depth, tree *top) {
    if (depth == 0) return;
    wn_borrow(m, tree *, node, top);
    wn_move(m, node, left, bench_new(b, m, &tree_type));
    wn_move(m, node, right, bench_new(b, m, &tree_type));
    populate(b, m, depth - 1, node->left);
    populate(b, m, depth - 1, node->right);
    if (depth == TICK_DEPTH) bench_tick(b);
}

/* Bottom up: the children exist before their parent. */
static tree *make_tree(bench *b, wn_mutator *m, uint64_t depth) {
    if (depth == 0) return bench_new(b, m, &tree_type);
    wn_root(m, tree *, left, make_tree(b, m, depth - 1));
    wn_root(m, tree *, right, make_tree(b, m, depth - 1));
    tree *node = bench_new(b, m, &tree_type);
    wn_move(m, node, left, wn_give(m, left));
    wn_move(m, node, right, wn_give(m, right));
    if (depth == TICK_DEPTH) bench_tick(b);
    return node;
}

static uint64_t count_nodes(const tree *t) { return t ? 1 + count_nodes(t->left) + count_nodes(t->right) : 0; }

static uint64_t construct(bench *b, wn_mutator *m, uint64_t depth) {
    uint64_t n = 2 * tree_size(b->param[STRETCH]) / tree_size(depth);
    for (uint64_t i = 0; i < n; i++) {
        wn_root(m, tree *, t, bench_new(b, m, &tree_type));
        populate(b, m, depth, t);
        if (depth < TICK_DEPTH) bench_tick(b);
    }
    for (uint64_t i = 0; i < n; i++) {
        wn_release(m, make_tree(b, m, depth));
        if (depth < TICK_DEPTH) bench_tick(b);
    }
    return 2 * n * tree_size(depth);
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    const uint64_t *p = b->param;
    uint64_t made = tree_size(p[STRETCH]);
    wn_release(m, make_tree(b, m, p[STRETCH]));

    wn_root(m, tree *, long_lived, bench_new(b, m, &tree_type));
    populate(b, m, p[LONG_LIVED], long_lived);
    wn_root(m, array *, a, bench_new_array(b, m, &array_type, p[ARRAY]));
    for (uint64_t i = 1; i < p[ARRAY] / 2; i++) a->item[i] = 1.0 / (double)i;

    for (uint64_t depth = p[MIN_DEPTH]; depth <= p[MAX_DEPTH]; depth += 2) made += construct(b, m, depth);
    uint64_t element = p[ARRAY] > 2000 ? (uint64_t)(1.0 / a->item[1000] + 0.5) : 0;
    b->checksum = (made + count_nodes(long_lived) + element) & 0xffffffffu;
}

const bench_workload bench_gcbench = {
    .name = "gcbench",
    .summary = "Boehm's GCBench: trees of depth 4 to 16 beside a long-lived tree and array",
    .run = run,
    .params = {{"stretch_depth", 18, 6, BENCH_DEPTH, "depth of the first tree, dropped at once"},
               {"long_lived_depth", 16, 4, BENCH_DEPTH, "depth of the tree that stays"},
               {"array", 500000, 4, BENCH_LINEAR, "doubles in the array that stays"},
               {"min_depth", 4, 2, BENCH_FIXED, "depth of the smallest trees"},
               {"max_depth", 16, 4, BENCH_DEPTH, "depth of the largest trees"}},
};
