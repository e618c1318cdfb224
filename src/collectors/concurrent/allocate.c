/*
 * allocate.c - what the program's own threads do for the collector: taking memory, the barrier, weak reads.
 *
 * Invariant: between its H2 and its H4 the mark bits of whatever a thread can still hand out of its buffers are set
 * (A1), so that a new object is black before anybody can see it. Not before H2: other threads may still be without
 * their barrier, and what they store into an object that is black already, nobody would ever scan. Setting them costs a
 * few words per run of slots, not a bit per object.
 */
#include "collectors/concurrent/concurrent.h"

#include <stdlib.h>

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

static bool shades(const mutator *m) { return m->fast.mode & WN_MODE_SHADE_; }
static bool allocates_black(const mutator *m) { return shades(m) && !wn_cc_of_mutator(m)->grey; }

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

/* ---- the barrier ------------------------------------------------------------------------------------------------- */

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
    if (!shades(m)) {
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

/* ---- checking the barrier ------------------------------------------------------------------------------------------
 *
 * A store that skipped the barrier leaves no trace but the difference between what is there and what was announced. */

static struct wn_cc_announced *announced_at(const wn_cc *cc, const void *slot) {
    size_t i = ((uintptr_t)slot >> 3) * 0x9E3779B97F4A7C15u >> 20 & (cc->announced_size - 1);
    while (cc->announced[i].slot && cc->announced[i].slot != slot) i = (i + 1) & (cc->announced_size - 1);
    return &cc->announced[i];
}

static bool grow_announced(wn_cc *cc) {
    wn_cc old = {.announced = cc->announced, .announced_size = cc->announced_size};
    size_t size = old.announced_size ? old.announced_size * 2 : 1024;
    struct wn_cc_announced *bigger = calloc(size, sizeof *bigger);
    if (!bigger) return false;
    cc->announced = bigger;
    cc->announced_size = size;
    for (size_t i = 0; i < old.announced_size; i++)
        if (old.announced[i].slot) *announced_at(cc, old.announced[i].slot) = old.announced[i];
    free(old.announced);
    return true;
}

void wn_cc_announce(wn_cc *cc, void *slot, void *value) {
    pthread_mutex_lock(&cc->announced_lock);
    if (cc->announced_used * 2 < cc->announced_size || grow_announced(cc)) {
        struct wn_cc_announced *a = announced_at(cc, slot);
        if (!a->slot) cc->announced_used++;
        *a = (struct wn_cc_announced){slot, value};
    }
    pthread_mutex_unlock(&cc->announced_lock);
}

typedef struct comparison {
    wn_cc *cc;
    void *holder;
    void (*fault)(void *data, const char *format, ...);
    void *data;
} comparison;

static void compare(void **slot, void *context) {
    const comparison *c = context;
    if (!*slot ||
        (c->cc->announced_size && announced_at(c->cc, slot)->slot && announced_at(c->cc, slot)->value == *slot))
        return;
    c->fault(c->data,
             "the %s at %p holds a reference at %p that no barrier announced: store references by wn_set or wn_move",
             wn_type_of(c->holder)->name, c->holder, (void *)slot);
}

void wn_cc_verify(mutator *m, void (*fault)(void *data, const char *format, ...), void *data) {
    wn_cc *cc = wn_cc_of(m->heap);
    if (!m->heap->options.verify) return; /* nothing was noted */
    WN_EACH_BLOCK(&m->heap->space, chunk, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            if (!wn_type_of(o)) continue;
            comparison c = {cc, o, fault, data};
            wn_each_ref(o, compare, &c);
        }
    }
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
