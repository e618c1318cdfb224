/*
 * cycles.h - the cycle search: which of a set of counted objects are kept alive by each other alone.
 *
 * For the candidates the client has added, in any order and from any heap:
 *
 *   1. wn_cycles_begin;
 *   2. if it knows roots, it claims them (wn_cycles_claim, wn_mark_push) and drains with wn_cycles_mark. Marking costs
 *      one visit of each object and needs no counts; trial deletion costs two, so it is left with as little as can be;
 *   3. wn_cycles_search: exact trial deletion on what stayed unmarked. Each candidate's count is copied aside, into an
 *      array that is dense because a candidate's place is its rank in the bitmap; each reference between unmarked
 *      candidates takes one off; whatever keeps a count is referenced from outside and, with all it reaches, alive.
 *
 * What remains is in no reference held outside the set, and stays so however long one waits, unless the client itself
 * can still reach it (a weak reference, a walk over the heap).
 *
 * Nothing is written into an object and nothing is asked of its memory except its count and its references, so the
 * search may run in a forked child, and costs no page of a shared heap. A search that runs out of memory says so and
 * finds nothing. Counts that are too high, references that are not reported, and marks lost between two threads all
 * err to the safe side: an object is kept. A reference reported that is not counted could lose one, so a client whose
 * types are written by others must check before it frees (as CPython's own collector does for the Python package).
 *
 * The client's functions are compiled in, as in mark.h; in addition
 *
 *     count(context, object)   its reference count; WN_CYCLES_ROOT: alive whatever the count.
 */
#ifndef WN_CYCLES_H
#define WN_CYCLES_H

#include "engines/bits.h"
#include "engines/mark.h"

/* The planes. OWN is the client's, for whatever it has to know of candidates; the last two are the search's. */
enum { WN_CYCLES_ALL, WN_CYCLES_OWN, WN_CYCLES_UNMARKED, WN_CYCLES_RANKED };

#define WN_CYCLES_ROOT SIZE_MAX

typedef struct wn_cycles {
    wn_bits bits;
    wn_mark_pool pool;
    wn_marker marker;
    uint32_t *counts; /* by rank */
    size_t counts_bytes;
    size_t candidates; /* filled in by wn_cycles_search: those that were unmarked when it began */
    size_t garbage;    /* and how many of them nothing reaches */
    bool failed;       /* memory ran out since wn_cycles_begin or while adding */
} wn_cycles;

typedef size_t wn_count_fn(void *context, void *object);
/* Asked of what only other candidates refer to: whether it counts as alive all the same. */
typedef bool wn_keep_fn(void *context, void *object);

bool wn_cycles_make(wn_cycles *c);
/* The most bytes that a search takes for `objects` candidates in so many regions of wn_bits, whatever they look like,
 * with a list of the garbage made after it. */
size_t wn_cycles_most(size_t regions, size_t objects);
void wn_cycles_drop(wn_cycles *c);
/* Forgets all candidates; keeps the memory for the next time. wn_cycles_trim gives it back. */
void wn_cycles_reset(wn_cycles *c);
void wn_cycles_trim(wn_cycles *c);
/* The same for what the last search has found alone: the candidates stay, and may be searched again. */
void wn_cycles_rest(wn_cycles *c);
void wn_cycles_trim_rest(wn_cycles *c);
/* All candidates are known: unmarks them. */
void wn_cycles_begin(wn_cycles *c);

static WN_ALWAYS_INLINE void wn_cycles_add(wn_cycles *c, const void *object) {
    if (!wn_bits_put(&c->bits, WN_CYCLES_ALL, (uintptr_t)object)) c->failed = true;
}
static WN_ALWAYS_INLINE bool wn_cycles_has(const wn_cycles *c, const void *object) {
    return wn_bits_test(&c->bits, WN_CYCLES_ALL, (uintptr_t)object);
}
/* Marks a candidate; true when it was one and not yet marked: then push it. */
static WN_ALWAYS_INLINE bool wn_cycles_claim(wn_cycles *c, const void *object) {
    return wn_bits_take(&c->bits, WN_CYCLES_UNMARKED, (uintptr_t)object);
}
/* After the search: whether it is garbage. */
static WN_ALWAYS_INLINE bool wn_cycles_is_garbage(const wn_cycles *c, const void *object) {
    return wn_bits_test(&c->bits, WN_CYCLES_UNMARKED, (uintptr_t)object);
}

static WN_ALWAYS_INLINE void wn_cycles_visit(void *cycles, void *reference) {
    wn_cycles *c = cycles;
    if (wn_cycles_claim(c, reference)) wn_mark_push(&c->marker, reference);
}
/* Marks all that is reachable from what has been pushed; returns how many objects were scanned. */
static WN_ALWAYS_INLINE size_t wn_cycles_mark(wn_cycles *c, wn_fetch_fn *fetch, wn_scan_fn *scan, void *context) {
    return wn_mark_drain_stack(&c->marker, SIZE_MAX, fetch, scan, wn_cycles_visit, context, c);
}

static WN_ALWAYS_INLINE void wn_cycles_subtract(void *cycles, void *reference) {
    wn_cycles *c = cycles;
    uint64_t *w = wn_bits_find(&c->bits, (uintptr_t)reference);
    if (!w ||
        !(wn_bits_plane(w, WN_CYCLES_RANKED)[wn_bits_index((uintptr_t)reference)] & wn_bits_mask((uintptr_t)reference)))
        return;
    c->counts[wn_bits_rank(w, WN_CYCLES_RANKED, (uintptr_t)reference)]--;
}

/* Off the fast path: ranks and zeroed counts for the unmarked; giving up, so that nothing is garbage. */
bool wn_cycles_rank_(wn_cycles *c);
bool wn_cycles_fail_(wn_cycles *c);

/* A walk over the candidates of a plane in address order, with the same two-stage queue as the marker's. */
typedef struct wn_cycles_walk_ {
    wn_bits_cursor cursor;
    void *places[WN_MARK_QUEUE];
    wn_mark_queue queue;
} wn_cycles_walk_;

static inline void wn_cycles_walk_start_(wn_cycles *c, wn_cycles_walk_ *walk) {
    walk->queue = (wn_mark_queue){0, 0};
    wn_bits_walk(&c->bits, &walk->cursor);
}

/* The next object, whose memory has arrived; NULL at the end. */
static WN_ALWAYS_INLINE void *wn_cycles_walk_next_(wn_cycles_walk_ *walk, unsigned plane, wn_fetch_fn *fetch,
                                                   void *context) {
    for (void *object; (object = wn_bits_next(&walk->cursor, plane));) {
        void *due = wn_mark_pass_(walk->places, &walk->queue, object, fetch, context);
        if (due) return due;
    }
    return walk->queue.used ? wn_mark_oldest_(walk->places, &walk->queue, fetch, context) : NULL;
}

/* Trial deletion over what is unmarked; leaves exactly the garbage unmarked. False: no memory, and nothing is. `keep`
 * may be NULL. */
static WN_ALWAYS_INLINE bool wn_cycles_search(wn_cycles *c, wn_count_fn *count, wn_keep_fn *keep, wn_fetch_fn *fetch,
                                              wn_scan_fn *scan, void *context) {
    if (!wn_cycles_rank_(c)) return false;
    /* One pass. Counts start at zero and wrap, so an object's references may be taken off before or after its own count
     * is added. */
    wn_cycles_walk_ walk;
    size_t rank = 0;
    wn_cycles_walk_start_(c, &walk);
    for (void *due; (due = wn_cycles_walk_next_(&walk, WN_CYCLES_RANKED, fetch, context)); rank++) {
        size_t n = count(context, due);
        if (n < INT32_MAX)
            c->counts[rank] += (uint32_t)n;
        else if (wn_cycles_claim(c, due))
            wn_mark_push(&c->marker, due);
        scan(context, due, wn_cycles_subtract, c);
    }
    /* A count below zero means a reference that was reported and not counted: whatever that is, it is kept. */
    wn_bits_cursor cursor;
    wn_bits_walk(&c->bits, &cursor);
    rank = 0;
    for (void *object; (object = wn_bits_next(&cursor, WN_CYCLES_RANKED)); rank++)
        if ((c->counts[rank] || (keep && keep(context, object))) && wn_cycles_claim(c, object))
            wn_mark_push(&c->marker, object);
    size_t alive = wn_cycles_mark(c, fetch, scan, context);
    if (c->failed || c->marker.failed) return wn_cycles_fail_(c);
    c->garbage = c->candidates - alive;
    return true;
}

/* ---- groups: garbage that hangs together, so that it can be given back in parts ---------------------------------- */

/* The weakly connected components of the garbage, in batches of about `target` objects: a component is never divided,
 * because what a batch leaves behind would hold it. Made after the search; false: no memory. */
typedef struct wn_groups {
    void **object; /* all garbage, batch after batch, in address order within a batch's component */
    size_t *end;   /* by batch: where it ends */
    size_t objects, batches;
    size_t bytes_[2];
} wn_groups;

bool wn_groups_ready_(wn_cycles *c, uint32_t **parents, size_t *bytes);
bool wn_groups_build_(wn_cycles *c, uint32_t *parents, size_t target, wn_groups *g);
void wn_groups_drop(wn_groups *g);

typedef struct wn_groups_link_ {
    wn_cycles *cycles;
    uint32_t *parent;
    uint32_t from;
} wn_groups_link_;

static inline uint32_t wn_groups_find_(uint32_t *parent, uint32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

static WN_ALWAYS_INLINE void wn_groups_join_(void *arg, void *reference) {
    wn_groups_link_ *l = arg;
    uint64_t *w = wn_bits_find(&l->cycles->bits, (uintptr_t)reference);
    if (!w || !(wn_bits_plane(w, WN_CYCLES_UNMARKED)[wn_bits_index((uintptr_t)reference)] &
                wn_bits_mask((uintptr_t)reference)))
        return;
    uint32_t a = wn_groups_find_(l->parent, l->from);
    uint32_t b = wn_groups_find_(l->parent, (uint32_t)wn_bits_rank(w, WN_CYCLES_UNMARKED, (uintptr_t)reference));
    if (a == b) return;
    /* The lower number leads, so that components come out in address order of their first members. */
    l->parent[a < b ? b : a] = a < b ? a : b;
    l->from = a < b ? a : b;
}

static WN_ALWAYS_INLINE bool wn_cycles_group(wn_cycles *c, size_t target, wn_fetch_fn *fetch, wn_scan_fn *scan,
                                             void *context, wn_groups *g) {
    uint32_t *parent;
    size_t bytes;
    if (!wn_groups_ready_(c, &parent, &bytes)) return false;
    wn_groups_link_ link = {c, parent, 0};
    wn_cycles_walk_ walk;
    uint32_t rank = 0;
    wn_cycles_walk_start_(c, &walk);
    for (void *due; (due = wn_cycles_walk_next_(&walk, WN_CYCLES_UNMARKED, fetch, context));) {
        link.from = rank++;
        scan(context, due, wn_groups_join_, &link);
    }
    bool ok = wn_groups_build_(c, parent, target, g);
    wn_os_release(parent, bytes);
    return ok;
}

#endif
