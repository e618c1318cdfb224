/*
 * worst.c - the cases that make an otherwise short pause long, each beside a program that goes on making garbage:
 * millions of weak references, millions of objects with finalizers that die together, an array of millions of slots
 * that is written to at random.
 */
#include "../bench.h"
#include "../random.h"
#include "things.h"

typedef struct refs {
    wn_object head;
    size_t length;
    wn_weakref *ref[];
} refs;
static const wn_type refs_type = WN_TYPE(refs, WN_ITEMS(refs, length, ref));

/* Objects of the garbage that are alive at a time: so many that generations do not spare the rest of the heap. */
enum { KEPT = 1 << 19 };
/* Garbage made at most while waiting for something to die: objects per object of the workload's. */
enum { PATIENCE = 64, LEAST = 1 << 23 };

/* One more object that lives for a while, in a ring of such. */
static void make_garbage(bench *b, wn_mutator *m, things *ring_, uint64_t number) {
    wn_borrow(m, things *, ring, ring_);
    thing *x = bench_new(b, m, &thing_type);
    x->number = number;
    wn_move(m, ring, thing[number % KEPT], x);
    if (number % 16 == 0) bench_tick(b);
}

static void report(bench *b, const char *what, uint64_t left) {
    if (left)
        bench_fail(b, "%llu %s after %d times as much garbage; the collector is behind", (unsigned long long)left, what,
                   PATIENCE);
}

/* ---- weak references --------------------------------------------------------------------------------------------- */

enum { WEAK_REFERENCES, WEAK_GARBAGE };

static uint64_t dead_among(bench *b, wn_mutator *m, refs *all, uint64_t *scanned, uint64_t n) {
    uint64_t dead = 0;
    while (*scanned < n) {
        wn_root(m, void *, target, wn_weakref_get(m, all->ref[*scanned]));
        if (target) break;
        ++*scanned;
        dead++;
        if (dead % 16 == 0) bench_tick(b);
    }
    return dead;
}

static void weakrefs(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[WEAK_REFERENCES], made = 0, garbage = b->param[WEAK_GARBAGE];
    wn_root(m, things *, ring, bench_new_array(b, m, &things_type, KEPT));
    wn_root(m, things *, targets, bench_new_array(b, m, &things_type, n));
    wn_root(m, refs *, all, bench_new_array(b, m, &refs_type, n));
    for (uint64_t i = 0; i < n; i++) {
        thing *x = bench_new(b, m, &thing_type);
        wn_move(m, targets, thing[i], x);
        wn_weakref *ref = wn_weakref_new(m, targets->thing[i], NULL, NULL);
        if (!ref) bench_out_of_memory(b);
        wn_move(m, all, ref[i], ref);
        if (i % 16 == 0) bench_tick(b);
    }
    for (uint64_t i = 0; i < garbage; i++) make_garbage(b, m, ring, made++);
    /* All targets die together. To look for one keeps it alive for the cycle that is going on, so that is done rarely.
     */
    wn_assign(m, targets, NULL);
    uint64_t looked = 0, dead = 0, next = n;
    for (uint64_t i = 0; i < n * PATIENCE + LEAST && dead < n; i++) {
        make_garbage(b, m, ring, made++);
        if (i < next) continue;
        dead += dead_among(b, m, all, &looked, n);
        next += next / 2;
    }
    report(b, "weak references live", n - dead);
    b->checksum = bench_fold(dead, n);
}

const bench_workload bench_weakrefs = {
    .name = "weakrefs",
    .summary = "5 million weak references whose targets die together",
    .run = weakrefs,
    .params = {{"references", 5000000, 16, BENCH_LINEAR, "weak references, each to an object of its own"},
               {"garbage", 20000000, 16, BENCH_LINEAR, "objects made meanwhile, while all of them live"}},
    .one_thread = true,
    .on_request = true,
};

/* ---- finalizers -------------------------------------------------------------------------------------------------- */

enum { FINALIZERS };

static _Atomic uint64_t finalized; /* finalizers may run on a thread of their own */
static void finalize(wn_mutator *m, void *object) {
    (void)m, (void)object;
    finalized++;
}
static const wn_type final_type = WN_TYPE(thing, WN_REFS(thing, other), .finalize = finalize);

static void finalizers(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[FINALIZERS], made = 0;
    finalized = 0;
    wn_root(m, things *, ring, bench_new_array(b, m, &things_type, KEPT));
    wn_root(m, things *, all, bench_new_array(b, m, &things_type, n));
    for (uint64_t i = 0; i < n; i++) {
        thing *x = bench_new(b, m, &final_type);
        wn_move(m, all, thing[i], x);
        if (i) wn_set(m, all->thing[i - 1], other, all->thing[i]);
        if (i % 16 == 0) bench_tick(b);
    }
    wn_assign(m, all, NULL);
    for (uint64_t i = 0; i < n * PATIENCE + LEAST && finalized < n; i++) make_garbage(b, m, ring, made++);
    report(b, "finalizers have not run", n - finalized);
    b->checksum = bench_fold(finalized, n);
}

const bench_workload bench_finalizers = {
    .name = "finalizers",
    .summary = "2 million objects with finalizers that die together",
    .run = finalizers,
    .params = {{"objects", 2000000, 16, BENCH_LINEAR, "objects with a finalizer, a list"}},
    .one_thread = true,
    .on_request = true,
};

/* ---- a long array ------------------------------------------------------------------------------------------------ */

enum { SLOTS, WRITES };

static void longarray(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[SLOTS], h = 0;
    bench_random r = bench_random_seed(6);
    wn_root(m, things *, all, bench_new_array(b, m, &things_type, n));
    for (uint64_t i = 0; i < b->param[WRITES]; i++) {
        uint64_t at = bench_random_below(&r, n);
        thing *x = bench_new(b, m, &thing_type);
        x->number = i;
        thing *old = all->thing[at];
        if (old) h = bench_fold(h, old->number);
        wn_move(m, all, thing[at], x);
        if (i % 16 == 0) bench_tick(b);
    }
    b->checksum = h;
}

const bench_workload bench_longarray = {
    .name = "longarray",
    .summary = "an array of 20 million slots, written to at random",
    .run = longarray,
    .params = {{"slots", 20000000, 16, BENCH_LINEAR, "slots of the array"},
               {"writes", 40000000, 16, BENCH_LINEAR, "new objects stored into random slots"}},
    .one_thread = true,
    .on_request = true,
};
