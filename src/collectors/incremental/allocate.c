/*
 * allocate.c - where an object is born when the inlined path could not: in the nursery, or old.
 *
 * Invariant: a young object's type word is stored last, when all else of it is in order, because other threads walk
 * the nursery's pieces while they are filled; and one with a finalizer is on the list of those before the next
 * safepoint.
 */
#include "incremental.h"

/* Objects of so many bytes without references are born old: a minor would have to copy those that survive, and to mark
 * and sweep one costs no more than a small one. */
enum { BORN_OLD = 512 };

/* No memory: a collection may find some. Not for a listener, which might hear of it and ask again, without end. */
static bool make_room(mutator *m) {
    if (m->fast.nested || wn_is_telling(m->heap)) return false;
    wn_inc_collect_all(m);
    return true;
}

/* A place on the list of finalizable objects, or NULL. It is the caller's until the next safepoint. */
static void **take_place(incremental *inc) {
    stack *s = &inc->finalizable;
    pthread_mutex_lock(&inc->lock);
    void **place = stack_push(s, NULL) ? &s->top->at[s->top->n - 1] : NULL;
    pthread_mutex_unlock(&inc->lock);
    return place;
}

/* One that could not be noted would never be finalized, so that comes first; a place that stays empty is struck out. */
static void *make_old(incremental *inc, const wn_type *type, size_t bytes, unsigned kind) {
    void **place = type->finalize ? take_place(inc) : NULL;
    if (type->finalize && !place) return NULL;
    void *o = wn_inc_old_allocate(inc, type, bytes, kind);
    if (place) *place = o;
    return o;
}

static void *born_old(mutator *m, const wn_type *type, size_t bytes, bool special) {
    incremental *inc = inc_of(m->heap);
    unsigned kind = special ? KIND_SPECIAL : KIND_PLAIN;
    wn_inc_collect_pace(m, bytes);
    void *o = make_old(inc, type, bytes, kind);
    if (!o && make_room(m)) o = make_old(inc, type, bytes, kind);
    if (!o) return wn_out_of_memory(m->heap, bytes);
    if (type->flags & WN_TYPE_EPHEMERON) __atomic_store_n(&inc->ephemerons, true, __ATOMIC_RELAXED);
    return o;
}

/* A place in the nursery, from a new piece or of its own. NULL when the window is used up. */
static void *young_slot(mutator *m, size_t slot, bool beyond) {
    wn_buffer_ *b = &m->buffers[0];
    stretch piece;
    if ((size_t)(b->limit - b->cursor) >= slot) {
        b->cursor += slot;
        return b->cursor - slot;
    }
    if (!wn_inc_nursery_take(inc_of(m->heap), slot, beyond, &piece)) return NULL;
    if ((size_t)(piece.end - piece.start) == slot) return piece.start;
    *b = (wn_buffer_){piece.start + slot, piece.end};
    return piece.start;
}

/* An old slot of the mutator's own run, or of the next. NULL when memory is out. */
static void *old_slot(mutator *m, unsigned cls, size_t slot, bool tenured) {
    wn_buffer_ *b = &m->buffers[cls];
    if (b->cursor == b->limit) {
        size_t taken = own_of(m)->taken;
        own_of(m)->taken = 0;
        wn_inc_collect_pace(m, taken);
        if (b->cursor == b->limit && !wn_inc_old_refill_own(m, cls)) return NULL;
        if (tenured) wn_inc_tenure_spend(inc_of(m->heap), (size_t)(b->limit - b->cursor));
    }
    b->cursor += slot;
    return b->cursor - slot;
}

/* A small object in the nursery, or, where that is full and no old memory is to be had for a minor, wherever there is
 * room. NULL, with an error text, when memory is out. */
static void *born_young(mutator *m, const wn_type *type, size_t bytes, size_t slot) {
    incremental *inc = inc_of(m->heap);
    wn_buffer_ *b = &m->buffers[0];
    if ((size_t)(b->limit - b->cursor) < slot) wn_inc_collect_pace(m, slot > ALONE_FROM ? slot : PIECE);
    wn_object *o = young_slot(m, slot, false);
    if (!o && !m->fast.nested) {
        wn_inc_collect_young(m);
        o = young_slot(m, slot, false);
    }
    /* Other threads may have used up what that minor left: no reason for a whole major. */
    if (!o) o = young_slot(m, slot, true);
    if (!o) {
        void *old = wn_inc_old_allocate(inc, type, bytes, KIND_PLAIN);
        if (old) return old;
        if (make_room(m)) o = young_slot(m, slot, true);
    }
    if (!o) return born_old(m, type, bytes, false);
    if (type->item_size) /* all of it is small: the narrower division is the cheaper one */
        *(size_t *)((char *)o + type->length_at) = (uint32_t)(bytes - type->size) / type->item_size;
    __atomic_store_n(&o->type, type, __ATOMIC_RELEASE);
    if (WN_UNLIKELY(m->all_slow)) wn_inc_nursery_note(o);
    return o;
}

void *wn_inc_allocate(mutator *m, const wn_type *type, size_t bytes) {
    incremental *inc = inc_of(m->heap);
    bool special = type->finalize || type->release || type->flags & (WN_TYPE_WEAKREF | WN_TYPE_EPHEMERON);
    if (special || bytes > WN_SMALL_MAX_ || type->flags & WN_TYPE_PINNED) return born_old(m, type, bytes, special);
    size_t slot = wn_slot_size_(bytes);
    unsigned cls = wn_class_of_slot_(slot);
    bool large_leaf = bytes >= BORN_OLD && !wn_has_refs_(type);
    if (large_leaf || wn_inc_tenure_is_born_old(inc, cls)) {
        wn_object *o = old_slot(m, cls, slot, !large_leaf);
        if (o) o->type = type;
        if (o) return o;
        if (large_leaf) return born_old(m, type, bytes, false);
        wn_inc_tenure_end(inc); /* the nursery's memory is there already */
    }
    m->fast.from[cls] = &m->fast.buffer[0];
    return born_young(m, type, bytes, slot);
}
