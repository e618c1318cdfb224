/*
 * barrier.c - what the program's threads tell the marking: what they overwrite and store (the write barrier), what a
 * weak reference returns, what leaves or enters a place without a barrier of its own.
 *
 * Invariant: while a cycle marks, every object named here is marked, or in a buffer that the marking will see before it
 * ends: a thread's own (wn_cc_mutator.buffer), which it hands over when it is full and at a handshake, or the one that
 * threads share (wn_cc.shared).
 */
#include "collectors/concurrent/concurrent.h"

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

void wn_cc_hand_over(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    if (!c->buffer) return;
    wn_os_lock_brief(&cc->lock);
    c->buffer->next = cc->shaded;
    cc->shaded = c->buffer;
    pthread_mutex_unlock(&cc->lock);
    c->buffer = NULL;
}

void wn_cc_shade_own(mutator *m, void *object) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    if (WN_UNLIKELY(!c->buffer) && !(c->buffer = wn_mark_take_segment(&cc->pool))) {
        __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
        return;
    }
    c->buffer->entry[c->buffer->used++] = object;
    if (WN_UNLIKELY(c->buffer->used == WN_MARK_SEGMENT)) wn_cc_hand_over(m);
}

/* With cc->lock. */
static void shade_shared(wn_cc *cc, void *object) {
    if (!cc->shared && !(cc->shared = wn_mark_take_segment(&cc->pool))) {
        __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
        return;
    }
    cc->shared->entry[cc->shared->used++] = object;
    if (cc->shared->used < WN_MARK_SEGMENT) return;
    cc->shared->next = cc->shaded;
    cc->shaded = cc->shared;
    cc->shared = NULL;
}

void wn_cc_shade(wn_heap *heap, void *object) {
    wn_cc *cc = wn_cc_of(heap);
    wn_os_lock_brief(&cc->lock);
    if (wn_cc_phase_of(cc) == WN_CC_MARKING) shade_shared(cc, object);
    pthread_mutex_unlock(&cc->lock);
}

/* ---- the write barrier ------------------------------------------------------------------------------------------- */

/* A frozen object is written to for the first time: from now on every cycle scans it. */
static void remember(mutator *m, void *holder) {
    wn_cc *cc = wn_cc_of(m->heap);
    uint8_t *clean = wn_meta_(holder);
    wn_os_lock_brief(&cc->lock);
    if (*clean == WN_OLD_CLEAN_) {
        /* What a full list does not take, its block remembers, which needs no memory: all of it is scanned then. */
        if (!wn_vector_push(&cc->remembered, holder)) {
            __atomic_store_n(&wn_block_of(holder)->flags, WN_CC_WRITTEN, __ATOMIC_RELAXED);
            cc->written = true;
        }
        __atomic_store_n(clean, 0, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&cc->lock);
}

void wn_cc_store(mutator *m, void *holder, void **slot, void *value, bool takes_over) {
    (void)takes_over;
    if (holder && (m->fast.mode & WN_MODE_REMEMBER_) &&
        __atomic_load_n(wn_meta_(holder), __ATOMIC_RELAXED) == WN_OLD_CLEAN_)
        remember(m, holder);
    if (WN_UNLIKELY(m->heap->options.verify)) wn_cc_announce(wn_cc_of(m->heap), slot, value);
    if (!wn_cc_shades(m)) {
        __atomic_store_n(slot, value, __ATOMIC_RELEASE);
        return;
    }
    bool grey = wn_cc_of_mutator(m)->grey;
    void *old;               /* B1 */
    if (WN_UNLIKELY(grey)) { /* others may have no barrier yet, and what they store in between nobody would shade */
        old = __atomic_exchange_n(slot, value, __ATOMIC_ACQ_REL);
    } else {
        old = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
        __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    }
    if (old) wn_cc_shade_own(m, old);             /* B2 */
    if (value && grey) wn_cc_shade_own(m, value); /* B3 */
}

/* ---- weak reads -------------------------------------------------------------------------------------------------- */

void *wn_cc_weak_get(mutator *m, void *target) {
    wn_cc *cc = wn_cc_of(m->heap);
    switch (wn_cc_phase_of(cc)) {
    case WN_CC_MARKING:
        /* W1: the only reference to it may be this one, so marking must go on from it, and must not end unaware. */
        if (!wn_cc_is_marked(target)) {
            __atomic_fetch_add(&cc->found.weak_reads, 1, __ATOMIC_RELAXED);
            wn_cc_shade(m->heap, target);
        }
        return target;
    case WN_CC_CLOSED: return wn_cc_is_marked(target) ? target : NULL; /* W2 */
    default: return target;
    }
}
