/*
 * slice.h - marking what a long array refers to, a slice at a time.
 *
 * The items of a slice are as many objects in a row of which none was found through another, so they go past the
 * marker's stack. Those that lie anywhere go through its queue of prefetches. An array that was filled with objects as
 * they were made refers to them in the order of their addresses and at equal distances: of such a run all that share a
 * word of the mark bits are claimed at once and scanned on the spot, without the steps that make a queue cost more than
 * the scan.
 *
 * Invariant: as in mark.h; whoever claimed a mark scans the object or queues it.
 */
#ifndef WN_SLICE_H
#define WN_SLICE_H

#include "engines/mark.h"
#include "object/object.h"

enum {
    WN_RUN_LEAST = 4,   /* objects that make a run */
    WN_RUN_APART = 256, /* bytes between two of them at most */
    WN_RUN_RETRY = 32   /* items for which nobody looks for a run after none was found */
};

/* Tests and sets the marks of objects, which are bits of one word; `first` is the one of the lowest bit. Returns the
 * bits of those that have to be scanned. */
typedef uint64_t wn_claim_run_fn(void *context, void *first, uint64_t bits);

static WN_ALWAYS_INLINE void *wn_item_(void *const *item) { return __atomic_load_n(item, __ATOMIC_ACQUIRE); }

/* How many items from the first on lie at equal distances, each behind the one before, all in one word of the mark
 * bits; 1 when there are too few for a run. Four at a time, because a loop that ends after some thirty turns is
 * mispredicted. */
static WN_ALWAYS_INLINE size_t wn_run_(void *const *item, size_t n, void *first, size_t *apart) {
    if (n < WN_RUN_LEAST) return 1;
    size_t step = *apart = (size_t)((uintptr_t)wn_item_(item + 1) - (uintptr_t)first);
    if (step - 1 >= WN_RUN_APART) return 1;
    uintptr_t end = (uintptr_t)wn_span_of(first) + WN_SPAN_SIZE, expected = (uintptr_t)first + step;
    size_t run = 1;
    for (; run + 4 <= n && expected + 3 * step < end; run += 4, expected += 4 * step)
        if (((uintptr_t)wn_item_(item + run) ^ expected) | ((uintptr_t)wn_item_(item + run + 1) ^ (expected + step)) |
            ((uintptr_t)wn_item_(item + run + 2) ^ (expected + 2 * step)) |
            ((uintptr_t)wn_item_(item + run + 3) ^ (expected + 3 * step)))
            break;
    for (; run < n && expected < end && (uintptr_t)wn_item_(item + run) == expected; run++) expected += step;
    return run;
}

/* By n: every nth bit of a word, from the first on. */
extern const uint64_t wn_run_pattern_[(WN_RUN_APART >> WN_GRANULE_SHIFT_) + 1];

/* The bits of a run. */
static WN_ALWAYS_INLINE uint64_t wn_run_bits_(const void *first, size_t run, size_t apart) {
    size_t step = apart >> WN_GRANULE_SHIFT_, width = run * step;
    uint64_t bits = wn_run_pattern_[step];
    if (width < 64) bits &= ((uint64_t)1 << width) - 1;
    return bits << ((uintptr_t)first >> WN_GRANULE_SHIFT_ & 63);
}

/* Items [from, to) of an array, within wn_mark_drain's `more`. `each` takes one that is in no run: it claims its mark
 * and feeds it to the marker. */
static WN_ALWAYS_INLINE void wn_mark_slice(wn_mark_walk *w, void *array, size_t from, size_t to,
                                           wn_claim_run_fn *claim_run, wn_fetch_fn *fetch, wn_scan_fn *scan,
                                           wn_visit_fn *visit, void (*each)(void **slot, void *context),
                                           void *context) {
    const wn_type *t = wn_type_of(array);
    const bool plain = t->item_refs == 1 && t->item_size == sizeof(void *);
    while (from < to) {
        void **item = (void **)((char *)array + t->size) + from, *o = plain ? wn_item_(item) : NULL;
        size_t apart = 0, run = o ? wn_run_(item, to - from, o, &apart) : 1;
        if (run >= WN_RUN_LEAST) {
            from += run;
            char *due = o;
            uint64_t white = claim_run(context, o, wn_run_bits_(o, run, apart));
            for (; run; run--, due += apart) {
                if (!(white >> ((uintptr_t)due >> WN_GRANULE_SHIFT_ & 63) & 1)) continue;
                w->here = (uintptr_t)due;
                WN_PREFETCH(due + WN_MARK_AHEAD);
                fetch(context, due, 2);
                scan(context, due, visit, context);
            }
        } else {
            size_t next = to - from < WN_RUN_RETRY ? to : from + WN_RUN_RETRY;
            wn_each_item_ref(array, t, from, next, each, context);
            from = next;
        }
    }
}

#endif
