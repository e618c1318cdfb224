/*
 * young.c - trial deletion over few candidates, in the side tables themselves.
 *
 * The shared search (engines/cycles.h) is made for large sets: it spends bitmaps and an array of counts on them. A
 * young collection has some hundreds of candidates, whose bytes are all in the nearest cache, and comes every few
 * hundred allocations; here the count bytes themselves serve as the trial counts and are put right again. Two state
 * bits carry the rest: CANDIDATE while the collection lasts, SCRATCH while nothing has been found to keep a candidate
 * alive.
 *
 * Invariant on return: every count byte is what it was on entry, and SCRATCH is set on exactly the garbage.
 *
 * A count too large for its byte, or immortal, is not subtracted from: such an object counts as referenced from
 * outside. If it is garbage all the same, a full collection finds it. The world is stopped.
 */
#include "refcount.h"

static bool has_plain_count(const uint8_t *meta) { return meta[0] < WN_COUNT_BIG_; }

static WN_ALWAYS_INLINE void subtract(void **slot, void *context) {
    (void)context;
    if (!*slot) return;
    uint8_t *meta = wn_meta_(*slot);
    if ((meta[1] & WN_STATE_CANDIDATE_) && has_plain_count(meta)) meta[0]--;
}

static WN_ALWAYS_INLINE void add_back(void **slot, void *context) {
    (void)context;
    if (!*slot) return;
    uint8_t *meta = wn_meta_(*slot);
    if ((meta[1] & WN_STATE_CANDIDATE_) && has_plain_count(meta)) meta[0]++;
}

/* The same for a reference of an object that is alive: what it refers to is alive too. */
static WN_ALWAYS_INLINE void add_back_and_reach(void **slot, void *context) {
    wn_vector *reached = context;
    if (!*slot) return;
    uint8_t *meta = wn_meta_(*slot);
    if (!(meta[1] & WN_STATE_CANDIDATE_)) return;
    if (has_plain_count(meta)) meta[0]++;
    if (!(meta[1] & WN_STATE_SCRATCH_)) return;
    meta[1] &= (uint8_t)~WN_STATE_SCRATCH_;
    reached->at[reached->n++] = *slot; /* room for every candidate was made before */
}

bool wn_rc_search_young(void *const *candidates, size_t n, wn_vector *reached) {
    reached->n = 0;
    if (!wn_vector_reserve(reached, n)) return false;
    for (size_t i = 0; i < n; i++) wn_each_ref(candidates[i], subtract, NULL);
    for (size_t i = 0; i < n; i++) {
        uint8_t *meta = wn_meta_(candidates[i]);
        if (!meta[0] || !(meta[1] & WN_STATE_SCRATCH_)) continue;
        /* Something outside refers to it. What it reaches may have been passed already, with a count of zero. */
        meta[1] &= (uint8_t)~WN_STATE_SCRATCH_;
        reached->at[reached->n++] = candidates[i];
        while (reached->n) wn_each_ref(reached->at[--reached->n], add_back_and_reach, reached);
    }
    for (size_t i = 0; i < n; i++)
        if (wn_meta_(candidates[i])[1] & WN_STATE_SCRATCH_) wn_each_ref(candidates[i], add_back, NULL);
    return true;
}
