/*
 * sweep.c - sweeping in steps, block by block, on the bitmaps alone: dead objects are not touched, except those whose
 * death has consequences, which live in blocks of their own kind (and large ones).
 *
 * Invariant: a block whose epoch is the major's has been swept and is white, but for frozen objects; sweeping is over
 * when there is no other.
 */
#include "incremental.h"

#include <string.h>

void wn_inc_sweep_begin(incremental *inc) {
    wn_inc_old_retire(inc, true);
    inc->sweep_chunk = inc->heap->space.chunks;
    inc->sweep_block = WN_FIRST_BLOCK;
    inc->freed_objects_before = inc->freed_objects;
    inc->freed_bytes_before = inc->freed_bytes;
}

void wn_inc_sweep_forget_marks(const wn_block *b) {
    uint64_t *marks = wn_mark_words(b);
    if (b->state == WN_BLOCK_LARGE) {
        if (!(b->flags & BLOCK_FROZEN)) marks[0] = 0;
        return;
    }
    if (!(b->flags & BLOCK_FROZEN)) {
        memset(marks, 0, WN_BLOCK_WORDS * sizeof *marks);
        return;
    }
    /* Only what changes is written: in a forked child these pages are shared. */
    uint64_t keep[WN_BLOCK_WORDS] = {0};
    size_t g = 0;
    for (void *o; (o = wn_block_next(b, &g));) {
        size_t granule = wn_granule_of(o) % WN_BLOCK_GRANULES;
        if (is_frozen(o)) keep[granule / 64] |= (uint64_t)1 << granule % 64;
    }
    for (size_t i = 0; i < WN_BLOCK_WORDS; i++)
        if (marks[i] != keep[i]) marks[i] = keep[i];
}

static bool is_to_be_swept(void *inc, void *ephemeron) { return is_found_dead(inc, ephemeron); }

static void dead(void *o, void *data) {
    incremental *inc = data;
    const wn_type *t = wn_type_of(o);
    if (t->flags & WN_TYPE_WEAKREF)
        wn_weak_ref_died(inc->heap, o);
    else if (t->flags & WN_TYPE_EPHEMERON)
        wn_weak_pair_died(inc->heap, o, is_to_be_swept, inc);
    else if (t->release)
        wn_run_release(inc->heap, t, o);
}

static void sweep_large(incremental *inc, wn_block *b) {
    void *o = wn_block_start(b);
    if (is_marked(o)) {
        wn_inc_sweep_forget_marks(b);
        b->epoch = inc->epoch;
        return;
    }
    const wn_type *t = wn_type_of(o);
    wn_space *space = &inc->heap->space;
    size_t before = __atomic_load_n(&space->live_bytes, __ATOMIC_RELAXED);
    dead(o, inc);
    clear_cards(o, t, b->bytes);
    wn_space_free_large_later(space, o);
    inc->freed_objects++;
    /* As slots: the next major's threshold is set by what was in use less this. */
    inc->freed_bytes += before - __atomic_load_n(&space->live_bytes, __ATOMIC_RELAXED);
}

static void sweep_small(incremental *inc, wn_block *b) {
    if (b->owned) wn_inc_old_retire_block(inc, b);
    if (b->state != WN_BLOCK_SMALL) return; /* it was empty */
    size_t slot = b->slot;
    size_t freed = wn_space_sweep(&inc->heap->space, b, b->kind == KIND_SPECIAL ? dead : NULL, inc);
    inc->freed_objects += freed;
    inc->freed_bytes += freed * slot;
    if (b->state != WN_BLOCK_SMALL) return;
    wn_inc_sweep_forget_marks(b);
    b->epoch = inc->epoch; /* only now: until then what is not marked in it is dead */
}

/* What sweeping a block, and freeing an object in it, pay of what is owed: by the time they take, beside OBJECT_BYTES
 * for marking one. A block of a few large objects is swept in no time; if it paid for its size, a heap of such blocks
 * would grow by a quarter while it is swept. */
enum { SWEEP_BLOCK = 1024, SWEEP_OBJECT = 8, LET_GO = 1 << 20 };

size_t wn_inc_sweep_next(incremental *inc) {
    while (inc->sweep_chunk) {
        wn_chunk *c = inc->sweep_chunk;
        unsigned end = c->huge ? WN_FIRST_BLOCK + 1 : c->end;
        wn_chunk *next = c->next; /* a huge chunk goes with its object */
        while (inc->sweep_block < end) {
            wn_block *b = &c->block[inc->sweep_block++];
            if (b->epoch == inc->epoch) continue;
            if (b->state == WN_BLOCK_LARGE) {
                if (c->huge) {
                    inc->sweep_chunk = next;
                    inc->sweep_block = WN_FIRST_BLOCK;
                }
                sweep_large(inc, b);
                return SWEEP_BLOCK;
            }
            if (b->state == WN_BLOCK_SMALL) {
                size_t freed = inc->freed_objects;
                sweep_small(inc, b);
                return SWEEP_BLOCK + (inc->freed_objects - freed) * SWEEP_OBJECT;
            }
        }
        inc->sweep_chunk = next;
        inc->sweep_block = WN_FIRST_BLOCK;
    }
    return wn_space_let_go(&inc->heap->space, LET_GO) ? SWEEP_BLOCK : 0;
}
