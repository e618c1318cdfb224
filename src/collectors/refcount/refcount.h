/*
 * refcount.h - CPython's collector: reference counts, reclaimed at zero, and a generational search for cycles.
 *
 * Invariants:
 *   - an object's count byte is the exact number of counted references to it (WN_COUNT_BIG_: the overflow table has
 *     it; WN_COUNT_IMMORTAL_: never counted); 0 means dead or free;
 *   - a dead object is in exactly one mutator's `dead` or `long_dead` list until it is taken apart, or, when it was
 * found in a cycle, has WN_STATE_SCRATCH_ set and is in a `condemned` batch: then nothing looks at its count any more.
 * An ephemeron that has been taken apart may be left on its key's ring for a while (weak.h);
 *   - a tracked object of generation 0 is in some mutator's log (or `young_lost` says that logs are not complete), one
 *     of generation 1 in `middle`; logs and `middle` may also name objects that are gone, so every entry is checked;
 *   - an untracked object has generation 0, or, when it is an immutable one that a collection stopped tracking, 2 (3
 * when it is frozen), for then it is tracked anew if what it refers to may have become part of a cycle (`track_anew`);
 *   - what the heap's searches work with is used only while the world is stopped: between the two searches of a
 *     collection, when finalizers run, another one may begin and end. To it the garbage of the first, which holds a
 *     reference to each, is alive;
 *   - nothing is ever written into an object that is alive.
 */
#ifndef WN_REFCOUNT_H
#define WN_REFCOUNT_H

#include "engines/cycles.h"
#include "engines/weak.h"

/* The bit of the state byte that is the collector's own: the object is looked at by the collection under way. With it,
 * SCRATCH says that nothing has been found yet to keep it alive; without it, that it is condemned. */
#define WN_STATE_CANDIDATE_ WN_STATE_OWN_

enum {
    WN_RC_CACHE = 64,           /* freed slots a mutator keeps per size class, for its next allocations of that size */
    WN_RC_LOG_MOST = 1 << 20,   /* young objects a log holds before it gives up and leaves them to a walk of the heap */
    WN_RC_LOG_SHARED = 1 << 16, /* entries of a log that is compacted while other threads run */
    WN_RC_MIDDLE_MOST = 1 << 16, /* and of `middle`, before it is worth a look */
    WN_RC_FINALIZERS = 32,       /* run one within the other at most: as deep as any C stack bears */
    WN_RC_LONG = 1024,           /* items of an array that are dropped in one go */
    WN_RC_QUARANTINE = 8192      /* freed slots kept from reuse in checked mode */
};

/* Counts above WN_COUNT_MAX_, by object. */
typedef struct wn_rc_overflow {
    pthread_mutex_t lock;
    struct wn_rc_overflow_entry {
        void *object;
        size_t count;
    } * entry;
    size_t size, used, live;
} wn_rc_overflow;

/* Garbage found by a cycle search, taken apart in two passes that may both be interrupted: first every reference out
 * of the batch is dropped, and only when none of its members is looked at any more are their slots freed. */
typedef struct wn_rc_condemned {
    wn_vector objects;
    size_t dropped, freed;
    size_t item;     /* of the member at `dropped`, when it is a long array */
    bool ephemerons; /* some of those dropped are */
} wn_rc_condemned;

/* A dead array too long to be taken apart at once, and the first item that has not been dropped yet. */
typedef struct wn_rc_long_dead {
    void *object;
    size_t item;
} wn_rc_long_dead;

typedef struct wn_rc_mutator {
    void **log; /* the young log; fast.young is its end */
    size_t log_room;
    void **log_mark;      /* where the log ended when `net` was computed */
    size_t compacted;     /* entries that the last compaction left */
    size_t net;           /* net new tracked objects up to then; atomic */
    size_t freed_tracked; /* tracked objects freed since */
    void **log_summed;    /* the log's end, and freed_tracked, when they went into the heap's `tracked` */
    size_t freed_summed;
    wn_vector dead;             /* count zero, not yet taken apart */
    wn_rc_long_dead *long_dead; /* a stack, the arrays being taken apart piece by piece */
    size_t long_dead_n, long_dead_room;
    bool reclaiming;
    unsigned collecting; /* collections of this thread: more than one when a callback asks for one */
    unsigned finalizing; /* finalizers of what lost its last reference that run, one within the other */
    wn_rc_condemned condemned;
    wn_vector values; /* what ephemerons let go of, for release */
    wn_vector quarantine;
    size_t quarantine_next;
    mutator *next_orphan;
    uint64_t reused_bytes; /* of slots handed out from the cache; atomic */
    uint32_t cached[WN_CLASSES_];
    void *cache[WN_CLASSES_][WN_RC_CACHE];
} wn_rc_mutator;

typedef struct wn_rc_heap {
    wn_rc_overflow overflow;
    wn_vector middle;        /* generation 1 */
    size_t middle_compacted; /* entries that its last compaction left */
    bool young_lost;         /* atomic; read and reset while the world is stopped */
    unsigned count1, count2; /* young collections since a middle one, middle ones since a full one; atomic */
    size_t long_lived_total, long_lived_pending;
    size_t external_before; /* bytes outside the heap when the last full collection ended, or fewer since; atomic */
    size_t frozen;          /* atomic */
    size_t tracked;         /* atomic; without what mutators have not summed */
    wn_cycles cycles;       /* for full collections */
    wn_vector candidates;   /* for young ones */
    wn_vector reached;
    bool track_anew;  /* atomic: something has become tracked that immutable objects may have been untracked for */
    wn_vector anew;   /* the immutable objects that the full collection under way tracks again */
    mutator *orphans; /* in a forked child: those of threads that it does not have, and may have left work */
    bool trimming;    /* atomic: a thread gives back what `cycles` no longer needs */
} wn_rc_heap;

static inline wn_rc_heap *wn_rc_of(const wn_heap *heap) { return heap->state; }
static inline wn_rc_mutator *wn_rc_of_mutator(const mutator *m) { return m->state_of_collector; }

/* An object with this state byte ends: it is no longer counted among the tracked ones, nor among the frozen. */
static inline void wn_rc_note_end(mutator *m, uint8_t state) {
    if (!(state & WN_STATE_TRACKED_)) return;
    wn_rc_of_mutator(m)->freed_tracked++;
    if ((state & WN_STATE_GENERATION_) == 3) __atomic_fetch_sub(&wn_rc_of(m->heap)->frozen, 1, __ATOMIC_RELAXED);
}

/* ---- counts.c ---- */
void wn_rc_count_up(mutator *m, void *object);
void wn_rc_count_down(mutator *m, void *object);
size_t wn_rc_count_of(wn_heap *heap, const void *object); /* WN_IMMORTAL for immortals */
size_t wn_rc_refcount(mutator *m, const void *object);
void wn_rc_make_immortal(mutator *m, void *object);
void *wn_rc_weak_get(mutator *m, void *target);
void wn_rc_store(mutator *m, void *holder, void **slot, void *value, bool takes_over);
void wn_rc_copy(mutator *m, void **slots, void *const *values, size_t n);
bool wn_rc_overflow_init(wn_rc_overflow *o);
void wn_rc_overflow_fini(wn_rc_overflow *o);
/* Forgets a count that was kept in the overflow table. */
void wn_rc_overflow_forget(wn_heap *heap, const void *object);

/* ---- reclaim.c ---- */
/* The last reference is gone: takes the object apart now, or later when a cascade is being worked off. */
void wn_rc_object_died(mutator *m, void *object);
/* Works off at most `budget` objects of what is dead or condemned. */
void wn_rc_reclaim(mutator *m, size_t budget);
/* The same with the budget of the option reclaim_slice. */
void wn_rc_reclaim_slice(mutator *m);
/* For wn_weak_target_died: holds a weak reference whose callback is to run, if it is alive; `context`: the mutator. */
bool wn_rc_hold(void *context, void *ref);
/* Lets go of the values of ephemerons whose keys have died, and of what was left on their rings. */
void wn_rc_release_values(mutator *m);
bool wn_rc_has_work(const mutator *m);
/* Moves what waits in `r` over to `mine`, as far as it fits; r's thread stands still, or is gone. */
void wn_rc_take_over(wn_rc_mutator *mine, wn_rc_mutator *r);
/* The same for all that orphans left, due callbacks too. */
void wn_rc_adopt(mutator *m);
/* Frees the slot of an object that has been taken apart. */
void wn_rc_free_slot(mutator *m, void *object);
void *wn_rc_allocate(mutator *m, const wn_type *type, size_t bytes);
void wn_rc_flush(mutator *m);

/* ---- young.c ---- */
/* Takes SCRATCH from every candidate that something outside keeps alive. All have CANDIDATE and SCRATCH set on entry;
 * `reached` is scratch memory. False: no memory, and nothing was done. The world is stopped. */
bool wn_rc_search_young(void *const *candidates, size_t n, wn_vector *reached);

/* ---- full.c ---- */
/* For wn_space.holds: the addresses that a search of all these chunks may need. */
size_t wn_rc_full_needs(const wn_space *space);
/* Makes every tracked object a candidate that is neither frozen nor condemned; returns how many there are. */
size_t wn_rc_full_begin(wn_heap *heap);
/* Takes out what the roots reach. False: no memory, and nothing may be taken for garbage. Ephemerons are not known. */
bool wn_rc_full_mark(wn_heap *heap, wn_marker *marker);
/* Calls each (unless NULL) for the candidates that are left, in address order within a chunk, and forgets them. */
void wn_rc_full_end(wn_heap *heap, void (*each)(void *context, void *object), void *context);

/* ---- generations.c ---- */
bool wn_rc_young_init(mutator *m);
void wn_rc_young_fini(mutator *m);
void wn_rc_young_full(mutator *m);
void wn_rc_young_reset(mutator *m); /* forgets the log, counts from zero */
void wn_rc_log_young(mutator *m, void *object);
size_t wn_rc_young_count(const mutator *m);
void wn_rc_set_counts(wn_rc_heap *rc, unsigned count1, unsigned count2);
void wn_rc_sum_tracked(mutator *m);           /* brings it up to date; before the log or its counters are changed */
size_t wn_rc_tracked_since(const mutator *m); /* net, since the heap's `tracked` was last brought up to date */
wn_status wn_rc_collect(mutator *m, int generation, wn_collect_result *result);
/* For wn_collector.external; and, at a safepoint, the collection that it may have found to be due. */
void wn_rc_external(mutator *m);
void wn_rc_collect_external(mutator *m);
void wn_rc_thresholds_changed(wn_heap *heap); /* the world is stopped */

#endif
