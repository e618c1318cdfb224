/*
 * old.c - old slots: where minors move objects to, and where objects are born that never move.
 *
 * Slots come in runs of neighbours, so that moving is bump allocation, too. Invariant: what lies in a block that the
 * major going on has not swept yet is black from the moment its run is taken, so the sweep keeps it and marking need
 * not look at it; in a swept block, and between majors, it is white.
 */
#include "incremental.h"

#include <string.h>

/* Sets or clears the mark bits of a run of slots, a word at a time; atomic, because the barrier and the questions of
 * weak references read them in other threads. */
static void change_marks(const wn_buffer_ *b, size_t slot, bool set) {
    for (char *p = b->cursor; p < b->limit;) {
        uint64_t bit, *word = wn_bit_of(p, WN_MARK_TABLE, &bit), bits = 0;
        for (uint64_t *same = word; p < b->limit && same == word; p += slot) {
            same = wn_bit_of(p, WN_MARK_TABLE, &bit);
            if (same != word) break;
            bits |= bit;
        }
        if (set)
            __atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
        else
            __atomic_fetch_and(word, ~bits, __ATOMIC_RELAXED);
    }
}

/* The first side byte of each slot of a run. */
static void set_first_bytes(const wn_buffer_ *b, size_t slot, uint8_t value) {
    uint8_t *meta = wn_meta_(b->cursor), *end = meta + ((size_t)(b->limit - b->cursor) >> WN_GRANULE_SHIFT_);
    for (size_t step = slot >> WN_GRANULE_SHIFT_; meta < end; meta += step) *meta = value;
}

/* Whether a new object in a block must be black. A block that was free until now (epoch 0) is as good as swept once
 * sweeping has begun; before, the sweep must come by to make it white again. */
static bool is_born_black(const incremental *inc, wn_block *b) {
    if (inc->phase == IDLE || (inc->phase >= SWEEPING && b->epoch == 0))
        b->epoch = inc->epoch;
    else if (b->epoch == 0)
        b->epoch = inc->epoch - 1;
    return b->epoch != inc->epoch;
}

static bool refill(incremental *inc, wn_block **block, wn_buffer_ *b, unsigned kind, unsigned cls) {
    b->cursor = b->limit = NULL;
    if (!wn_space_refill(&inc->heap->space, block, cls, kind, b)) return false;
    if (is_born_black(inc, *block)) change_marks(b, (*block)->slot, true);
    return true;
}

WN_NOINLINE bool wn_inc_old_refill(incremental *inc, unsigned kind, unsigned cls) {
    return refill(inc, &inc->block[kind][cls], &inc->room[kind][cls], kind, cls);
}

bool wn_inc_old_refill_own(mutator *m, unsigned cls) {
    wn_block **block = &m->block[KIND_PLAIN][cls];
    wn_buffer_ *b = &m->buffers[cls];
    if (!refill(inc_of(m->heap), block, b, KIND_PLAIN, cls)) return false;
    set_first_bytes(b, (*block)->slot, WN_OLD_CLEAN_);
    own_of(m)->taken += (size_t)(b->limit - b->cursor);
    return true;
}

static void retire(incremental *inc, wn_block **block, wn_buffer_ *b, bool disown) {
    if (*block) {
        if (b->cursor != b->limit) {
            change_marks(b, (*block)->slot, false);
            set_first_bytes(b, (*block)->slot, 0);
        }
        wn_space_retire(&inc->heap->space, (*block)->cls, b);
        if (disown) wn_space_disown(&inc->heap->space, block);
    }
}

void wn_inc_old_retire(incremental *inc, bool disown) {
    for (unsigned kind = 0; kind < WN_KINDS; kind++)
        for (unsigned cls = 0; cls < WN_CLASSES_; cls++)
            retire(inc, &inc->block[kind][cls], &inc->room[kind][cls], disown);
    for (mutator *m = inc->heap->mutators; m; m = m->next)
        for (unsigned cls = 1; cls < WN_CLASSES_; cls++)
            retire(inc, &m->block[KIND_PLAIN][cls], &m->buffers[cls], disown);
}

void wn_inc_old_retire_block(incremental *inc, wn_block *b) {
    if (inc->block[b->kind][b->cls] == b) retire(inc, &inc->block[b->kind][b->cls], &inc->room[b->kind][b->cls], true);
    for (mutator *m = inc->heap->mutators; m && b->owned; m = m->next)
        if (m->block[KIND_PLAIN][b->cls] == b) retire(inc, &m->block[KIND_PLAIN][b->cls], &m->buffers[b->cls], true);
}

void *wn_inc_old_take(incremental *inc, size_t slot, unsigned kind) {
    unsigned cls = wn_class_of_slot_(slot);
    wn_buffer_ *b = &inc->room[kind][cls];
    if (b->cursor == b->limit && !wn_inc_old_refill(inc, kind, cls)) return NULL;
    char *o = b->cursor;
    b->cursor += slot;
    wn_meta_(o)[0] = WN_OLD_CLEAN_;
    return o;
}

static void *take_large(incremental *inc, const wn_type *type, size_t bytes) {
    void *o = wn_space_large(&inc->heap->space, bytes);
    if (!o) return NULL;
    if (is_born_black(inc, wn_block_of(o))) set_mark(o);
    wn_meta_(o)[0] = large_clean(type, bytes);
    return o;
}

void *wn_inc_old_allocate(incremental *inc, const wn_type *type, size_t bytes, unsigned kind) {
    pthread_mutex_lock(&inc->lock);
    wn_object *o =
        bytes > WN_SMALL_MAX_ ? take_large(inc, type, bytes) : wn_inc_old_take(inc, wn_slot_size_(bytes), kind);
    if (o) o->type = type;
    pthread_mutex_unlock(&inc->lock);
    return o;
}

/* What lies in a reserved slot until its object moves there. */
const wn_type wn_inc_shadow_type = {.name = "(place of a young object)", .size = sizeof(wn_object)};

void *wn_inc_old_reserve(incremental *inc, size_t bytes) {
    return wn_inc_old_allocate(inc, &wn_inc_shadow_type, bytes, KIND_PLAIN);
}

void wn_inc_old_unreserve(incremental *inc, void *slot) {
    pthread_mutex_lock(&inc->lock);
    inc->moved_objects_total++; /* as a move does, it took a slot and made no object */
    inc->moved_bytes_total += wn_block_of(slot)->slot;
    pthread_mutex_unlock(&inc->lock);
    uint64_t bit, *word = wn_bit_of(slot, WN_MARK_TABLE, &bit);
    __atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
    wn_space_free(&inc->heap->space, &slot, 1);
}
