/*
 * store.c - serves a JSON document store at a fixed offered rate and reports the latency of its requests.
 *
 * Requests are scheduled, not sent when the last one is done: a request that had to wait because the program stalled
 * counts its waiting (what is called metered latency, or corrected for coordinated omission). Documents are chosen by
 * Zipf.
 */
#include "../random.h"
#include "../store/store.h"
#include <stdlib.h>

enum { MEGABYTES, COPIES, RATE, REQUESTS };

/* Ids of deleted documents, which inserts bring back, oldest first. */
typedef struct queue {
    uint64_t *number;
    uint64_t first, n, room;
} queue;

static uint64_t get(store *s, wn_mutator *m, uint64_t number) {
    wn_hold(m, document *, d, store_find(s, number));
    if (!d) return 0;
    wn_root(m, text *, response, store_serialize(s, m, d));
    return response->byte[0] == '{' ? store_revision(d) + d->root->length + d->id->length : 0;
}

static uint64_t query(store *s, wn_mutator *m, uint64_t number, unsigned shelf) {
    wn_root(m, document_list *, found, store_query(s, m, number / s->sources.n, shelf));
    uint64_t sum = found->length;
    for (size_t i = 0; i < found->length; i++) sum += store_revision(found->item[i]);
    return sum;
}

static uint64_t serve(store *s, wn_mutator *m, bench_random *r, queue *deleted) {
    uint64_t total = s->copies * s->sources.n;
    uint64_t kind = bench_random_below(r, 100);
    uint64_t number = bench_random_zipf(r, total) * 1000003 % total; /* the popular ones lie scattered */
    unsigned shelf = (unsigned)bench_random_below(r, SHELVES);
    if (kind < 60) return get(s, m, number);
    if (kind < 80) {
        document *d = store_find(s, number);
        return d ? store_update(s, m, d, shelf) : 0;
    }
    if (kind < 90) return query(s, m, number, shelf);
    if (kind < 95) {
        if (!deleted->n) return 1;
        number = deleted->number[deleted->first];
        deleted->first = (deleted->first + 1) % deleted->room;
        deleted->n--;
        store_insert(s, m, number);
        return 2;
    }
    document *d = store_find(s, number);
    if (!d || deleted->n == deleted->room) return 3;
    deleted->number[(deleted->first + deleted->n++) % deleted->room] = number;
    store_delete(s, m, d);
    return 4;
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    store s;
    store_open(&s, b, b->param[MEGABYTES] << 20, b->param[COPIES]);
    uint64_t rate = b->param[RATE], requests = b->param[REQUESTS], h = 0;
    if (b->settings->seconds > 0) requests = (uint64_t)(b->settings->seconds * (double)rate);
    queue deleted = {.room = s.sources.n};
    deleted.number = calloc(deleted.room, sizeof *deleted.number);
    if (!deleted.number) bench_fail(b, "no memory for the queue of deleted ids");
    bench_random r = bench_random_seed(5);

    double load_s = (double)(bench_now() - b->clock.start) / 1e9;
    uint64_t start = bench_now(), now = start;
    for (uint64_t i = 0; i < requests; i++) {
        uint64_t due = start + i * 1000000000u / rate;
        while (now < due) {
            wn_poll(m);
            bench_tick(b);
            now = b->clock.last;
        }
        h = bench_fold(h, serve(&s, m, &r, &deleted));
        bench_tick(b);
        now = b->clock.last;
        wn_histogram_add(&b->request, now - due);
    }
    b->checksum = h;
    bench_note_values(b, "load_s", &load_s, 1);
    bench_note_values(b, "documents", &(double){(double)(s.copies * s.sources.n)}, 1);
    bench_note_values(b, "store_bytes", &(double){(double)s.bytes}, 1);
    free(deleted.number);
    store_close(&s, m);
    bench_clock_skip(&b->clock); /* giving back the parsed files */
}

const bench_workload bench_store = {
    .name = "store",
    .summary = "a JSON document store with indexes, served at a fixed rate",
    .run = run,
    .params = {{"megabytes", 64, 0, BENCH_LINEAR, "the documents are loaded as often as it takes to fill so much"},
               {"copies", 1, 1, BENCH_FIXED, "... and at least so often"},
               {"rate", 50000, 1, BENCH_FIXED, "requests offered per second"},
               {"requests", 150000, 1, BENCH_LINEAR, "requests in all; --seconds N: N times the rate"}},
    .requests = true,
    .reads_files = true,
    .timed = true,
};
