/*
 * allocate.c - where the program's threads take memory, and what they do when there is none.
 *
 * Invariant: between its H2 and its H4 the mark bits of whatever a thread can still hand out of its buffers are set
 * (A1), so that a new object is black before anybody can see it. Not before H2: other threads may still be without
 * their barrier, and what they store into an object that is black already, nobody would ever scan. Setting them costs a
 * few words per run of slots, not a bit per object.
 */
#include "collectors/concurrent/concurrent.h"

/* ---- black memory ------------------------------------------------------------------------------------------------ */

/* Sets the mark bits of every granule in [from, to): those between slots mean nothing. */
static void blacken(const char *from, const char *to) {
    if (from == to) return;
    uint64_t *mark = (uint64_t *)((char *)wn_chunk_of(from) + WN_MARK_TABLE);
    size_t first = wn_granule_of(from), last = wn_granule_of(to - 1);
    for (size_t w = first >> 6; w <= last >> 6; w++) {
        uint64_t bits = ~(uint64_t)0;
        if (w == first >> 6) bits &= ~(uint64_t)0 << (first & 63);
        if (w == last >> 6) bits &= ~(uint64_t)0 >> (63 - (last & 63));
        if (bits == ~(uint64_t)0)
            __atomic_store_n(&mark[w], bits, __ATOMIC_RELAXED); /* all its slots are ours */
        else
            __atomic_fetch_or(&mark[w], bits, __ATOMIC_RELAXED);
    }
}

void wn_cc_blacken_buffers(mutator *m) {
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    for (unsigned i = 0; i < WN_CLASSES_; i++) {
        blacken(m->buffers[i].cursor, m->buffers[i].limit);
        blacken(c->leaf[i].cursor, c->leaf[i].limit);
    }
}

void wn_cc_flush(mutator *m) {
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    for (unsigned i = 0; i < WN_CLASSES_; i++) {
        if (m->buffers[i].cursor) wn_space_retire(&m->heap->space, i, &m->buffers[i]);
        if (c->leaf[i].cursor) wn_space_retire(&m->heap->space, i, &c->leaf[i]);
    }
}

/* ---- making objects ---------------------------------------------------------------------------------------------- */

static bool allocates_black(const mutator *m) { return wn_cc_shades(m) && !wn_cc_of_mutator(m)->grey; }

/* A request that finds no room waits for the cycle under way, and if that was not enough for a whole one. What the
 * program lets go of when it has failed even so, nobody sees: so the next request is worth a cycle again. But a program
 * that goes on asking, while nothing is handed out, must not spend its time on cycles in vain: the second request that
 * fails in a row makes others fail at once for as long as it has waited itself, each further one for longer. */
enum { PATIENCE = 10 };

static uint64_t allocated(const mutator *m) {
    return __atomic_load_n(&m->heap->space.allocated_bytes, __ATOMIC_RELAXED);
}

static bool is_futile(const mutator *m) {
    const wn_cc *cc = wn_cc_of(m->heap);
    return __atomic_load_n(&cc->futile_at, __ATOMIC_RELAXED) == allocated(m) + 1 &&
           wn_os_now() < __atomic_load_n(&cc->futile_until, __ATOMIC_RELAXED);
}

static void note_futile(const mutator *m, uint64_t since) {
    wn_cc *cc = wn_cc_of(m->heap);
    uint64_t at = allocated(m) + 1, now = wn_os_now();
    bool again = __atomic_load_n(&cc->futile_at, __ATOMIC_RELAXED) == at;
    unsigned times = again ? __atomic_load_n(&cc->futile_times, __ATOMIC_RELAXED) : 0;
    __atomic_store_n(&cc->futile_until, now + times * (now - since), __ATOMIC_RELAXED);
    __atomic_store_n(&cc->futile_times, times < PATIENCE ? times + 1 : times, __ATOMIC_RELAXED);
    __atomic_store_n(&cc->futile_at, at, __ATOMIC_RELAXED);
}

/* After a request has failed for the (tries + 1)th time; `since` is when it failed first. False: it fails for good. */
static bool make_room(mutator *m, int tries, uint64_t *since) {
    if (m->fast.nested) return false;
    if (tries == 0) {
        if (is_futile(m)) return false;
        *since = wn_os_now();
    }
    if (tries == 2) {
        note_futile(m, *since);
        return false;
    }
    wn_cc_wait_for_cycle(m, tries == 1);
    wn_cc_run_due(m, 1000000);
    return true;
}

static bool refill(mutator *m, unsigned kind, unsigned cls, wn_buffer_ *b) {
    wn_space *space = &m->heap->space;
    /* The rest of a run that is too short for a slot does not exist: runs are whole slots. */
    int tries = 0;
    uint64_t since = 0;
    for (bool listed = false; !wn_space_refill(space, &m->block[kind][cls], cls, kind, b);) {
        b->cursor = b->limit = NULL;
        listed = !listed && wn_space_list_last(space, kind, cls);
        if (!listed && !make_room(m, tries++, &since)) return false;
    }
    if (allocates_black(m)) blacken(b->cursor, b->limit); /* A1 */
    return true;
}

static void *small(mutator *m, const wn_type *type, size_t slot) {
    unsigned cls = wn_class_of_slot_(slot), kind = wn_has_refs_(type) ? 0 : WN_CC_LEAF;
    wn_buffer_ *b = kind ? &wn_cc_of_mutator(m)->leaf[cls] : &m->buffers[cls];
    if (WN_UNLIKELY(b->cursor == b->limit)) {
        wn_cc_pace(m);
        if (b->cursor == b->limit && !refill(m, kind, cls, b)) return NULL;
    }
    char *p = b->cursor;
    b->cursor = p + slot;
    return p;
}

static void *large(mutator *m, const wn_type *type, size_t bytes) {
    wn_space *space = &m->heap->space;
    void *p;
    wn_cc_pace_large(m, bytes);
    uint64_t since = 0;
    for (int tries = 0; !(p = wn_space_large(space, bytes)); tries++)
        if (!make_room(m, tries, &since)) return NULL;
    if (!wn_has_refs_(type)) wn_block_of(p)->kind = WN_CC_LEAF;
    if (allocates_black(m)) wn_cc_claim(p); /* A1 */
    return p;
}

void *wn_cc_allocate(mutator *m, const wn_type *type, size_t bytes) {
    size_t slot = wn_slot_size_(bytes);
    void *p = slot <= WN_SMALL_MAX_ ? small(m, type, slot) : large(m, type, bytes);
    if (WN_UNLIKELY(!p)) return wn_out_of_memory(m->heap, bytes);
    /* First: what cannot be noted stays part of a run that is not made yet, until it is swept. */
    if (WN_UNLIKELY(type->finalize != NULL) && !wn_cc_note_finalizable(m, p)) return NULL;
    ((wn_object *)p)->type = type;
    if (WN_UNLIKELY(type->release != NULL)) __atomic_store_n(&wn_block_of(p)->noted, 1, __ATOMIC_RELAXED);
    return p;
}
