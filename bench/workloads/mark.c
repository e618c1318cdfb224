/*
 * mark.c - what marking costs per object: ten million small objects that an array holds in the order of their
 * addresses, or shuffled, each referring to the one behind it in the array.
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
    struct node *next;
    uint64_t number;
} node;
static const wn_type node_type = WN_TYPE(node, WN_REFS(node, next));

typedef struct list {
    wn_object head;
    size_t length;
    node *node[];
} list;
static const wn_type list_type = WN_TYPE(list, WN_ITEMS(list, length, node));

enum { OBJECTS, RANDOM, COLLECTIONS };
enum { MAX_COLLECTIONS = 64 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *value, uint64_t n) {
    qsort(value, n, sizeof *value, by_value);
    return value[n / 2];
}

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

typedef struct loop_node {
    const uint64_t *type;
    struct loop_node *next;
    uint64_t number, unused;
} loop_node;

static inline void loop_mark(uint64_t *marks, const loop_node *base, const loop_node *x) {
    size_t granule = (size_t)(x - base) * 2;
    uint64_t bit = (uint64_t)1 << granule % 64;
    if (!(marks[granule / 64] & bit)) marks[granule / 64] |= bit;
}

/* The least of three times, per object; `ahead` objects are asked for before they are needed. */
static double time_loop(loop_node **all, const loop_node *base, uint64_t n, size_t ahead, uint64_t *marks) {
    double least = 0;
    for (int i = 0; i < 3; i++) {
        memset(marks, 0, (n / 32 + 1) * sizeof *marks);
        uint64_t start = bench_now(), sum = 0;
        for (uint64_t k = 0; k < n; k++) {
            if (ahead && k + ahead < n) __builtin_prefetch(all[k + ahead]);
            loop_mark(marks, base, all[k]);
            sum += *all[k]->type;
            loop_mark(marks, base, all[k]->next);
        }
        double ns = (double)(bench_now() - start) / (double)n;
        if (sum != n) return 0; /* the sum is what keeps the loads */
        if (!i || ns < least) least = ns;
    }
    return least;
}

static void time_loops(bench *b, uint64_t n, bool shuffled) {
    static const uint64_t type = 1;
    loop_node *base = malloc(n * sizeof *base), **all = malloc(n * sizeof *all);
    uint64_t *marks = malloc((n / 32 + 1) * sizeof *marks);
    if (!base || !all || !marks) bench_out_of_memory(b);
    bench_random r = bench_random_seed(5);
    for (uint64_t i = 0; i < n; i++) {
        all[i] = &base[i];
        base[i].type = &type;
    }
    for (uint64_t i = n; shuffled && --i > 0;) {
        uint64_t j = bench_random_below(&r, i + 1);
        loop_node *x = all[i];
        all[i] = all[j];
        all[j] = x;
    }
    for (uint64_t i = 0; i < n; i++) all[i]->next = all[(i + 1) % n];
    double figure = time_loop(all, base, n, 0, marks);
    bench_note_values(b, "plain_loop_ns", &figure, 1);
    figure = time_loop(all, base, n, 32, marks);
    bench_note_values(b, "prefetching_loop_ns", &figure, 1);
    free(marks);
    free(all);
    free(base);
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
        x->number = i;
        wn_move(m, all, node[i], x);
        if (i % 16 == 0) bench_tick(b);
    }
    for (uint64_t i = n; b->param[RANDOM] && --i > 0;) {
        uint64_t j = bench_random_below(&r, i + 1);
        wn_root(m, node *, x, wn_keep(m, all->node[i]));
        wn_set(m, all, node[i], all->node[j]);
        wn_set(m, all, node[j], x);
    }
    for (uint64_t i = 0; i < n; i++) wn_set(m, all->node[i], next, all->node[(i + 1) % n]);

    double ns[MAX_COLLECTIONS], cpu[MAX_COLLECTIONS], marking[MAX_COLLECTIONS];
    wn_stats before, after;
    if (wn_collect(m, 2, NULL)) bench_fail(b, "wn_collect failed: %s", wn_error_message());
    for (uint64_t i = 0; i < times; i++) {
        wn_collect_result result;
        wn_get_stats(b->heap, &before);
        uint64_t start = bench_now();
        if (wn_collect(m, 2, &result)) bench_fail(b, "wn_collect failed: %s", wn_error_message());
        ns[i] = (double)(bench_now() - start) / (double)n;
        wn_get_stats(b->heap, &after);
        cpu[i] = (double)(after.gc_cpu_ns - before.gc_cpu_ns) / (double)n;
        if (result.collected) bench_fail(b, "a full collection freed %zu live objects", result.collected);
        marking[i] = (double)mark_by_steps(b, m) / (double)n;
    }
    wn_enable(b->heap);
    double figure = median(ns, times);
    bench_note_values(b, "ns_per_object", &figure, 1);
    figure = median(cpu, times);
    bench_note_values(b, "cpu_ns_per_object", &figure, 1);
    figure = median(marking, times);
    if (figure > 0) bench_note_values(b, "mark_ns_per_object", &figure, 1);
    uint64_t h = 0;
    for (uint64_t i = 0; i < n; i++) h = bench_fold(h, all->node[i]->number);
    b->checksum = h;
    time_loops(b, n, b->param[RANDOM]);
}

const bench_workload bench_mark = {
    .name = "mark",
    .summary = "full collections of ten million small objects (only when named)",
    .run = run,
    .params = {{"objects", 10000000, 16, BENCH_LINEAR, "objects of one reference, all alive, in one array"},
               {"random", 1, 0, BENCH_FIXED, "1: the array is shuffled; 0: in the order of allocation"},
               {"collections", 5, 1, BENCH_FIXED, "collections timed; the medians are shown"}},
    .one_thread = true,
    .on_request = true,
};
