/*
 * mark.c - what marking costs per object: ten million small objects that an array holds in the order of their
 * addresses, or shuffled, each referring to the one behind it in the array; or the same objects as a binary tree whose
 * nodes lie in the order in which a depth-first walk meets them, or anywhere, and that nothing else refers to.
 *
 * In order the processor fetches ahead by itself; shuffled, every object is a cache miss that only a prefetch hides. So
 * the figures show whether a marker notices which it faces. Beside them stands what this machine can do: two loops that
 * do no more than touch the same objects in the same order and mark them and what they refer to in a bitmap, one plain,
 * one with a prefetch.
 */
#include "../bench.h"
#include "../random.h"
#include <stdlib.h>
#include <string.h>

typedef struct node {
    wn_object head;
    struct node *a, *b;
} node;
static const wn_type node_type = WN_TYPE(node, WN_REFS(node, a, b));

typedef struct list {
    wn_object head;
    size_t length;
    node *node[];
} list;
static const wn_type list_type = WN_TYPE(list, WN_ITEMS(list, length, node));

enum { OBJECTS, RANDOM, TREE, COLLECTIONS };
enum { MAX_COLLECTIONS = 64 };

/* Items [from, to) of the list as a tree in the order of a depth-first walk. */
static void link_tree(wn_mutator *m, list *all, uint64_t from, uint64_t to) {
    uint64_t left = from + 1, right = left + (to - left + 1) / 2;
    if (left < right) {
        wn_set(m, all->node[from], a, all->node[left]);
        link_tree(m, all, left, right);
    }
    if (right < to) {
        wn_set(m, all->node[from], b, all->node[right]);
        link_tree(m, all, right, to);
    }
}

static uint64_t count(const node *x) { return x ? 1 + count(x->a) + count(x->b) : 0; }

/* The time that the steps of one major collection spent marking; 0: this collector has no such steps. */
static uint64_t mark_by_steps(bench *b, wn_mutator *m) {
    wn_step_result step;
    uint64_t marking = 0;
    do {
        if (wn_collect_step(m, &step)) bench_fail(b, "wn_collect_step failed: %s", wn_error_message());
        if (step.before == WN_PHASE_SCANNING || step.before == WN_PHASE_MARKING) marking += step.duration_ns;
        bench_tick(b);
    } while (!step.major_is_done);
    return marking;
}

/* What the machine can do: the same objects, marked by a loop that knows nothing else. */
typedef struct loop_node {
    const uint64_t *type;
    struct loop_node *a, *b;
    uint64_t unused;
} loop_node;

typedef struct loop {
    loop_node *base, **all;
    uint64_t *marks, n;
    size_t ahead; /* objects asked for before they are needed; a power of two, or 0 */
    bool tree;
} loop;

static inline bool loop_mark(const loop *l, const loop_node *x) {
    size_t granule = (size_t)(x - l->base) * 2;
    uint64_t bit = (uint64_t)1 << granule % 64;
    if (l->marks[granule / 64] & bit) return false;
    l->marks[granule / 64] |= bit;
    return true;
}

static uint64_t loop_array(const loop *l) {
    uint64_t sum = 0;
    for (uint64_t k = 0; k < l->n; k++) {
        if (l->ahead && k + l->ahead < l->n) __builtin_prefetch(l->all[k + l->ahead]);
        loop_mark(l, l->all[k]);
        sum += *l->all[k]->type;
        loop_mark(l, l->all[k]->a);
    }
    return sum;
}

/* Depth first; with a queue of so many objects between the stack and the scan. */
static uint64_t loop_tree(const loop *l) {
    enum { DEEP = 4096 };
    loop_node *stack[DEEP], *queue[64] = {NULL};
    size_t top = 0, at = 0, queued = 0;
    uint64_t sum = 0;
    stack[top++] = l->all[0];
    while (top || queued) {
        loop_node *x = top ? stack[--top] : NULL;
        if (l->ahead) {
            if (x) __builtin_prefetch(x);
            loop_node *due = queue[at];
            queued += (x != NULL) - (due != NULL);
            queue[at] = x;
            at = (at + 1) % l->ahead;
            x = due;
        }
        if (!x) continue;
        sum += *x->type;
        if (x->b && loop_mark(l, x->b)) stack[top++] = x->b;
        if (x->a && loop_mark(l, x->a)) stack[top++] = x->a;
    }
    return sum;
}

/* The least of three times, per object. */
static void time_loop(bench *b, loop *l, size_t ahead, const char *name) {
    double least = 0;
    l->ahead = ahead;
    for (int i = 0; i < 3; i++) {
        memset(l->marks, 0, (l->n / 32 + 1) * sizeof *l->marks);
        uint64_t start = bench_now(), sum = l->tree ? loop_tree(l) : loop_array(l);
        double ns = (double)(bench_now() - start) / (double)l->n;
        if (sum != l->n) bench_fail(b, "%s lost objects: %llu", name, (unsigned long long)sum);
        if (!i || ns < least) least = ns;
    }
    bench_note_values(b, name, &least, 1);
}

static void link_loop_tree(const loop *l, uint64_t from, uint64_t to) {
    uint64_t left = from + 1, right = left + (to - left + 1) / 2;
    if (left < right) {
        l->all[from]->a = l->all[left];
        link_loop_tree(l, left, right);
    }
    if (right < to) {
        l->all[from]->b = l->all[right];
        link_loop_tree(l, right, to);
    }
}

static void time_loops(bench *b, uint64_t n, bool shuffled, bool tree) {
    static const uint64_t type = 1;
    loop l = {.n = n, .tree = tree};
    l.base = calloc(n, sizeof *l.base);
    l.all = malloc(n * sizeof *l.all);
    l.marks = malloc((n / 32 + 1) * sizeof *l.marks);
    if (!l.base || !l.all || !l.marks) bench_out_of_memory(b);
    bench_random r = bench_random_seed(5);
    for (uint64_t i = 0; i < n; i++) {
        l.all[i] = &l.base[i];
        l.base[i].type = &type;
    }
    for (uint64_t i = n; shuffled && --i > 0;) {
        uint64_t j = bench_random_below(&r, i + 1);
        loop_node *x = l.all[i];
        l.all[i] = l.all[j];
        l.all[j] = x;
    }
    if (tree)
        link_loop_tree(&l, 0, n);
    else
        for (uint64_t i = 0; i < n; i++) l.all[i]->a = l.all[(i + 1) % n];
    time_loop(b, &l, 0, "plain_loop_ns");
    time_loop(b, &l, 32, "prefetching_loop_ns");
    free(l.marks);
    free(l.all);
    free(l.base);
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[OBJECTS], times = b->param[COLLECTIONS];
    if (times > MAX_COLLECTIONS) times = MAX_COLLECTIONS;
    bench_random r = bench_random_seed(5);
    wn_disable(b->heap); /* the collections asked for are those to be timed */
    wn_root(m, list *, all, bench_new_array(b, m, &list_type, n));
    for (uint64_t i = 0; i < n; i++) {
        node *x = bench_new(b, m, &node_type);
        wn_move(m, all, node[i], x);
        if (i % 16 == 0) bench_tick(b);
    }
    for (uint64_t i = n; b->param[RANDOM] && --i > 0;) {
        uint64_t j = bench_random_below(&r, i + 1);
        wn_root(m, node *, x, wn_keep(m, all->node[i]));
        wn_set(m, all, node[i], all->node[j]);
        wn_set(m, all, node[j], x);
    }
    wn_root(m, node *, tree, NULL);
    if (b->param[TREE]) {
        link_tree(m, all, 0, n);
        wn_assign(m, tree, all->node[0]);
        wn_assign(m, all, NULL);
    } else {
        for (uint64_t i = 0; i < n; i++) wn_set(m, all->node[i], a, all->node[(i + 1) % n]);
    }

    double ns[MAX_COLLECTIONS], cpu[MAX_COLLECTIONS], marking[MAX_COLLECTIONS];
    wn_stats before, after;
    if (wn_collect(m, 2, NULL)) bench_fail(b, "wn_collect failed: %s", wn_error_message());
    for (uint64_t i = 0; i < times; i++) {
        wn_get_stats(b->heap, &before);
        ns[i] = (double)bench_full_collection(b, m) / (double)n;
        wn_get_stats(b->heap, &after);
        cpu[i] = (double)(after.gc_cpu_ns - before.gc_cpu_ns) / (double)n;
        marking[i] = (double)mark_by_steps(b, m) / (double)n;
    }
    wn_enable(b->heap);
    double figure = bench_spread_of(ns, (unsigned)times).median;
    bench_note_values(b, "ns_per_object", &figure, 1);
    figure = bench_spread_of(cpu, (unsigned)times).median;
    bench_note_values(b, "cpu_ns_per_object", &figure, 1);
    figure = bench_spread_of(marking, (unsigned)times).median;
    if (figure > 0) bench_note_values(b, "mark_ns_per_object", &figure, 1);
    b->checksum = tree ? count(tree) : all->length;
    time_loops(b, n, b->param[RANDOM], b->param[TREE]);
}

const bench_workload bench_mark = {
    .name = "mark",
    .summary = "full collections of ten million small objects",
    .run = run,
    .params = {{"objects", 10000000, 16, BENCH_LINEAR, "objects, all alive"},
               {"random", 1, 0, BENCH_FIXED, "1: in random order; 0: in the order of allocation"},
               {"tree", 0, 0, BENCH_FIXED, "1: a binary tree instead of an array"},
               {"collections", 5, 1, BENCH_FIXED, "collections timed; the medians are shown"}},
    .one_thread = true,
    .on_request = true,
};
