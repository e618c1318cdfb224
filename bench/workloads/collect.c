/*
 * collect.c - what a full collection of a live graph costs per object, when there is nothing to free: two passes over a
 * million containers of three references each, laid out in the order of their allocation or referring at random.
 *
 * bench/cpython_collect.py builds the same graph in CPython and times gc.collect() on it in the same run.
 */
#include "../bench.h"
#include "../random.h"

typedef struct container {
    wn_object head;
    size_t length;
    struct container *item[];
} container;
static const wn_type container_type = WN_TYPE(container, WN_ITEMS(container, length, item));

enum { CONTAINERS, RANDOM, COLLECTIONS };
enum { MAX_COLLECTIONS = 64 };

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[CONTAINERS], times = b->param[COLLECTIONS];
    if (times > MAX_COLLECTIONS) times = MAX_COLLECTIONS;
    bench_random r = bench_random_seed(4);
    wn_disable(b->heap); /* the collections asked for are those to be timed */
    wn_root(m, container *, all, bench_new_array(b, m, &container_type, n));
    for (uint64_t i = 0; i < n; i++) {
        wn_root(m, container *, c, bench_new_array(b, m, &container_type, 3));
        if (i) wn_set(m, c, item[0], all->item[i - 1]);
        if (i) wn_set(m, c, item[1], all->item[b->param[RANDOM] ? bench_random_below(&r, i) : i / 2]);
        wn_set(m, all, item[i], c);
        bench_tick(b);
    }
    /* The third references close cycles: nothing of this can be told dead or alive by its count alone. */
    for (uint64_t i = 0; i < n; i++)
        wn_set(m, all->item[i], item[2], all->item[b->param[RANDOM] ? bench_random_below(&r, n) : (i + 1) % n]);

    double ns[MAX_COLLECTIONS];
    if (wn_collect(m, 2, NULL)) bench_fail(b, "wn_collect failed: %s", wn_error_message());
    for (uint64_t i = 0; i < times; i++) {
        ns[i] = (double)bench_full_collection(b, m) / (double)n;
        bench_tick(b);
    }
    wn_enable(b->heap);
    double median = bench_spread_of(ns, (unsigned)times).median;
    bench_note_values(b, "ns_per_object", &median, 1);
    uint64_t h = 0;
    for (uint64_t i = 0; i < n; i++) h = bench_fold(h, all->item[i]->length);
    b->checksum = h;
}

const bench_workload bench_collect = {
    .name = "collect",
    .summary = "full collections of a live graph of a million containers",
    .run = run,
    .params = {{"containers", 1000000, 16, BENCH_LINEAR, "containers of three references, all alive"},
               {"random", 1, 0, BENCH_FIXED, "1: references at random; 0: to neighbours"},
               {"collections", 7, 1, BENCH_FIXED, "full collections timed; the median is shown"}},
    .one_thread = true,
    .on_request = true,
};
