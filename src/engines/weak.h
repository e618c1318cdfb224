/*
 * weak.h - weak references and ephemerons by their target, for every collector.
 *
 * Both are objects of the heap whose targets are hidden from tracing; a hash table beside the heap leads from a target
 * to them. Invariant: an object has an entry exactly while its WN_STATE_WEAK bit is set by this table, every weak
 * reference with a target is on its target's chain and every ephemeron with a key on its key's ring, and these lead
 * only to what has not been freed. They are pinned types, so chains and rings may run through them.
 *
 * An ephemeron has no room for a way back, and keys may have a hundred thousand: to look for each that dies would take
 * a time that grows with the square of their number. So nobody does. Where deaths are found by a collection, all the
 * dead of a ring leave it together. Where references are counted, each death looks at eight of the ring at most, from
 * where the last one has come to; one that does not meet itself is left on the ring, for one of the next deaths to
 * find. At most about one in six of a ring are such. So a death costs up to eight steps under the lock, each of which
 * reads an ephemeron and its state byte, two cache misses where they lie anywhere; where the key has no other, one
 * step.
 *
 * heap->weak.lock guards all of it. It is taken last, and no client code runs under it. The program's threads take it
 * by wn_weak_lock; a thread of the collector's that takes it again and again calls wn_weak_give_way in between, because
 * a mutex is not fair, and who has to be woken up first would wait for milliseconds.
 */
#ifndef WN_ENGINES_WEAK_H
#define WN_ENGINES_WEAK_H

#include "mutator/heap.h"

struct wn_weakref {
    wn_object head;
    void *target; /* not traced, not counted; NULL once dead */
    wn_weak_callback callback;
    void *data;
    wn_weakref *next, *prev; /* of the same target; what is due is chained by `next` alone */
};

struct wn_ephemeron {
    wn_object head;
    void *key;          /* not traced, not counted; NULL once dead */
    void *value;        /* counted; traced only by whoever knows that the key is alive. With no key, see
                           wn_weak_entry_died: an ordinary reference */
    wn_ephemeron *next; /* of the same key, around. A way back, too, would not fit the smallest slot */
};

typedef struct wn_weak_entry {
    void *target; /* NULL: never used; WN_WEAK_GONE: deleted */
    wn_weakref *refs;
    wn_ephemeron *ephemerons; /* one of the ring: where deaths have come to */
} wn_weak_entry;

/* Each ephemeron of an entry (NULL: none): WN_EACH_EPHEMERON(e, p) { ... }. The ring must not change meanwhile. Where
 * references are counted, some may be dead: they have no value. */
#define WN_EACH_EPHEMERON(e, p) \
    for (wn_ephemeron *p = (e) ? (e)->ephemerons : NULL; p; p = p->next == (e)->ephemerons ? NULL : p->next)

#define WN_WEAK_GONE ((void *)1)

bool wn_weak_init(wn_heap *heap);
void wn_weak_fini(wn_heap *heap);

void wn_weak_lock(wn_heap *heap);
static inline void wn_weak_unlock(wn_heap *heap) { pthread_mutex_unlock(&heap->weak.lock); }
/* Without the lock: lets those who wait for it have it first. */
void wn_weak_give_way(wn_heap *heap);

/* A walk through the table by a thread of the collector's, beside the program: `visit` sees, under the lock, each entry
 * that there was when the walk began, in calls of wn_weak_walk that show it at most n of them. False: that was the end.
 * An entry made meanwhile it may not see. The table may grow: then the walk goes on in the old one, whose entries are
 * not moved over before they have been seen. Begin and end it, come to its end or not, with wn_weak_walk_reset. */
void wn_weak_walk_reset(wn_heap *heap);
bool wn_weak_walk(wn_heap *heap, size_t n, void (*visit)(void *context, wn_weak_entry *e), void *context);

/* Asks for what a look at entries [from, to) will read elsewhere: marks of targets, their weak references. */
void wn_weak_fetch(wn_heap *heap, size_t from, size_t to);

/* Goes on moving entries into a table that has grown, at most n; true when none is left elsewhere. Whoever goes through
 * the table from end to end calls it until it says so. Under the lock, or with the world stopped. */
bool wn_weak_settle(wn_heap *heap, size_t n);

/* The entry of a target, or NULL. Under the lock, or with the world stopped. */
wn_weak_entry *wn_weak_find(wn_heap *heap, const void *target);

/* The target is dead: its weak references are cleared, and those that have a callback and that `hold` says are alive
 * become due for m; where references are counted, `hold` has counted that one. Its ephemerons lose key and value; the
 * values are appended to `values` (the caller owns them then; NULL: nobody does). */
typedef bool wn_weak_hold_fn(void *context, void *ref);
void wn_weak_target_died(mutator *m, void *target, wn_weak_hold_fn *hold, void *context, wn_vector *values);
/* The same for an entry at hand, under the lock. */
void wn_weak_entry_died(mutator *m, wn_weak_entry *e, wn_weak_hold_fn *hold, void *context, wn_vector *values);
/* A weak reference is itself about to be freed. */
void wn_weak_ref_died(wn_heap *heap, wn_weakref *r);
/* Takes a weak reference of this entry off its chain, and leaves it without a target; under the lock. */
void wn_weak_unchain(wn_weak_entry *e, wn_weakref *r);

/* An ephemeron is about to be freed, and so is each that `dead` tells of: all of the same key leave its ring. */
typedef bool wn_weak_dead_fn(void *context, void *ephemeron);
void wn_weak_pair_died(wn_heap *heap, wn_ephemeron *p, wn_weak_dead_fn *dead, void *context);
/* The same for an entry at hand, under the lock. */
void wn_weak_prune_ring(wn_heap *heap, wn_weak_entry *e, wn_weak_dead_fn *dead, void *context);

/* Where references are counted: an ephemeron is dead, and what it holds is returned for release; */
void *wn_weak_take_value(wn_heap *heap, wn_ephemeron *p);
/* then it may be freed, if the answer is true, or it is left on its ring, and nobody else may look at it again. Its
 * bytes in the side table are zero. */
bool wn_weak_leave_ring(wn_heap *heap, wn_ephemeron *p);
/* Those that have been left and are off their rings now, chained by `next`: they may be freed. */
wn_ephemeron *wn_weak_take_left(wn_heap *heap);

/* An entry whose chains may have become empty; under the lock. */
void wn_weak_remove_if_empty(wn_heap *heap, wn_weak_entry *e);
/* Targets were moved: `moves` are n pairs of where they were and where they are. Each is two or three cache misses in
 * the table and one in a weak reference, so many at a time cost a fraction of as many calls. */
void wn_weak_moved(wn_heap *heap, void *const *moves, size_t n);

/* Each entry in use: WN_EACH_WEAK(heap, e) { ... }; under the lock or with the world stopped. The table is
 * NULL as long as there are none. */
#define WN_EACH_WEAK(heap, e)                                                                               \
    for (wn_weak_entry *e = (heap)->weak.entry, *e##_end = e ? e + (heap)->weak.size : e; e < e##_end; e++) \
        if (e->target && e->target != WN_WEAK_GONE)

/* Whether there are callbacks that wn_run_callbacks would run. */
static inline bool wn_callbacks_are_due(const mutator *m) {
    return m->callback_at < m->callbacks.n || m->late_callbacks;
}
/* Runs the callbacks that are due for this thread, in the order in which they became due; within a callback, none. A
 * safepoint. */
void wn_run_callbacks(mutator *m);
/* The same before finalizers run, which comes after the callbacks of weak references to what is finalized: also within
 * a callback, but for more than 64 of them one within the other. */
void wn_run_callbacks_first(mutator *m);

#endif
