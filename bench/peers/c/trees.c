/* trees.c - gcbench and binarytrees; see the files of those names in bench/workloads. */
#include "peer.h"

enum { TICK_DEPTH = 6 };

typedef struct tree {
    struct tree *left, *right;
    int i, j;
} tree;

static uint64_t tree_size(uint64_t depth) { return ((uint64_t)2 << depth) - 1; }
static tree *new_tree(void) { return peer_new(sizeof(tree)); }

static void populate(uint64_t depth, tree *t) {
    if (depth == 0) return;
    t->left = new_tree();
    t->right = new_tree();
    populate(depth - 1, t->left);
    populate(depth - 1, t->right);
    if (depth == TICK_DEPTH) tick();
}

static tree *make_tree(uint64_t depth) {
    if (depth == 0) return new_tree();
    tree *left = make_tree(depth - 1), *right = make_tree(depth - 1), *t = new_tree();
    t->left = left;
    t->right = right;
    if (depth == TICK_DEPTH) tick();
    return t;
}

static void free_tree(tree *t, uint64_t depth) {
    if (!PEER_MANUAL || !t) return;
    free_tree(t->left, depth - 1);
    free_tree(t->right, depth - 1);
    peer_free(t);
    if (depth == TICK_DEPTH) tick();
}

static uint64_t count_nodes(const tree *t) { return t ? 1 + count_nodes(t->left) + count_nodes(t->right) : 0; }

uint64_t gcbench(void) {
    uint64_t stretch = param("stretch_depth"), made = tree_size(stretch), n_array = param("array");
    free_tree(make_tree(stretch), stretch);
    tree *long_lived = new_tree();
    populate(param("long_lived_depth"), long_lived);
    double *array = peer_new_plain(n_array * sizeof *array);
    memset(array, 0, n_array * sizeof *array);
    for (uint64_t i = 1; i < n_array / 2; i++) array[i] = 1.0 / (double)i;
    for (uint64_t depth = param("min_depth"), last = param("max_depth"); depth <= last; depth += 2) {
        uint64_t n = 2 * tree_size(stretch) / tree_size(depth);
        for (uint64_t i = 0; i < n; i++) {
            tree *t = new_tree();
            populate(depth, t);
            free_tree(t, depth);
            if (depth < TICK_DEPTH) tick();
        }
        for (uint64_t i = 0; i < n; i++) {
            free_tree(make_tree(depth), depth);
            if (depth < TICK_DEPTH) tick();
        }
        made += 2 * n * tree_size(depth);
    }
    uint64_t element = n_array > 2000 ? (uint64_t)(1.0 / array[1000] + 0.5) : 0;
    return (made + count_nodes(long_lived) + element) & 0xffffffffu;
}

typedef struct node {
    struct node *left, *right;
} node;

static node *make(uint64_t depth) {
    node *n = peer_new(sizeof(node));
    if (depth) {
        n->left = make(depth - 1);
        n->right = make(depth - 1);
    }
    if (depth == TICK_DEPTH) tick();
    return n;
}

static void free_node(node *n, uint64_t depth) {
    if (!PEER_MANUAL) return;
    if (depth) {
        free_node(n->left, depth - 1);
        free_node(n->right, depth - 1);
    }
    peer_free(n);
    if (depth == TICK_DEPTH) tick();
}

static uint64_t count(const node *n) { return n->left ? 1 + count(n->left) + count(n->right) : 1; }

static uint64_t check(const node *n, uint64_t depth) {
    if (depth < TICK_DEPTH) return count(n);
    uint64_t sum = 1 + check(n->left, depth - 1) + check(n->right, depth - 1);
    if (depth == TICK_DEPTH) tick();
    return sum;
}

uint64_t binarytrees(void) {
    uint64_t max_depth = param("depth"), min_depth = 4;
    node *stretch = make(max_depth + 1);
    uint64_t h = fold(0, check(stretch, max_depth + 1));
    free_node(stretch, max_depth + 1);
    node *long_lived = make(max_depth);
    for (uint64_t depth = min_depth; depth <= max_depth; depth += 2) {
        uint64_t n = (uint64_t)1 << (max_depth - depth + min_depth), sum = 0;
        for (uint64_t i = 0; i < n; i++) {
            node *t = make(depth);
            sum += check(t, depth);
            free_node(t, depth);
            if (depth < TICK_DEPTH && i % 4 == 0) tick();
        }
        h = fold(h, sum);
    }
    return fold(h, check(long_lived, max_depth));
}
