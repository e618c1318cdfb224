/*
 * full.c - the candidates of a full collection, and marking from the roots those that are alive.
 *
 * The shared search (engines/cycles.h) keeps bitmaps of its own over any heap. This heap has a bitmap already, the mark
 * table at the head of each chunk, found from an address by arithmetic alone; and a whole heap's candidates are read
 * off its side bytes 64 granules at a time instead of one object after another. So a full collection first marks here,
 * and the search is left with what no root reaches: on a heap without garbage, with nothing.
 *
 * Invariant: outside of a full collection every word of the mark table is zero; during one a bit is set for each
 * candidate that no root is known to reach. A word that is zero already is not written, so that pages of the table that
 * a forked worker shares stay shared where all objects are frozen. The world is stopped.
 */
#include "collectors/refcount/refcount.h"
#include "engines/marks.h"
#include "engines/slice.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a group is its lowest");

#define EACH_BYTE (UINT64_MAX / 255) /* times a byte: eight of it */

static uint64_t eight_bytes(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* For eight granules, whose first byte is at `meta`: bit i is set when a tracked object that is alive, not frozen and
 * not condemned would begin at granule i. What is no object's first granule gives a bit without meaning. */
static uint64_t candidates_of_eight(const uint8_t *meta) {
    uint64_t counts = eight_bytes(meta), states = eight_bytes(meta + 1);
    uint64_t counted = (((counts & EACH_BYTE * 127) + EACH_BYTE * 127) | counts) >> 7;
    uint64_t is = counted & states / WN_STATE_TRACKED_ & ~(states & states >> 1) & ~(states / WN_STATE_SCRATCH_);
    return (is & EACH_BYTE) * 0x0102040810204080u >> 56; /* gathers the lowest bit of each byte in the highest byte */
}

static size_t words_of(const wn_block *b) { return b->state == WN_BLOCK_LARGE ? 1 : WN_BLOCK_WORDS; }

size_t wn_rc_full_needs(const wn_space *space) {
    size_t regions = 0, objects = 0;
    uintptr_t last = 0;
    for (const wn_chunk *c = space->chunks; c; c = c->next) { /* in address order */
        uintptr_t region = (uintptr_t)c >> WN_BITS_REGION;
        regions += region != last;
        last = region;
        objects += c->huge ? 1 : (WN_CHUNK_SIZE - WN_CHUNK_HEADER) / WN_SLOT_MIN_;
    }
    return wn_cycles_most(regions, objects);
}

size_t wn_rc_full_begin(wn_heap *heap) {
    size_t n = 0;
    WN_EACH_BLOCK(&heap->space, chunk, b) {
        const uint64_t *alloc = wn_alloc_words(b);
        uint64_t *unmarked = wn_mark_words(b);
        const uint8_t *meta = wn_meta_(wn_block_start(b));
        for (size_t i = 0; i < words_of(b); i++, meta += 64) {
            if (!alloc[i]) continue;
            uint64_t bits = 0;
            for (unsigned k = 0; k < 64; k += 8) bits |= candidates_of_eight(meta + k) << k;
            bits &= alloc[i];
            if (bits) unmarked[i] = bits;
            n += (size_t)__builtin_popcountll(bits);
        }
    }
    return n;
}

/* True when the object was a candidate and nothing had reached it. */
static WN_ALWAYS_INLINE bool claim(const void *object) {
    uint64_t bit, *word = wn_bit_of(object, WN_MARK_TABLE, &bit);
    if (!(*word & bit)) return false;
    *word &= ~bit;
    return true;
}

/* What is being marked: a local variable of wn_rc_full_mark, whose parts are in registers because only inlined
 * functions see it. Arrays with more items than a slice wait in `arrays`, each behind the number of items that are
 * done; one slice is taken when all else is marked. So the stack stays small enough to stay in the cache, and what an
 * array refers to is scanned soon after it was looked at. */
typedef struct marking {
    wn_mark_walk walk;
    wn_marks marks;
    wn_vector *arrays; /* pairs: object, items done */
} marking;

enum { SLICE = 1 << 14 }; /* items */

static WN_ALWAYS_INLINE void visit(void *m, void *object) {
    if (wn_marks_claim(&((marking *)m)->marks, object, true)) wn_mark_reach(&((marking *)m)->walk, object);
}
static WN_ALWAYS_INLINE void visit_slot(void **slot, void *m) {
    if (*slot) visit(m, *slot);
}
static void visit_traced_slot(void **slot, void *m) { visit_slot(slot, m); }
static void visit_root(void **slot, void *marker) {
    if (*slot && claim(*slot)) wn_mark_push(marker, *slot);
}

/* Items and trace functions. Takes and returns the walk's next. */
static WN_NOINLINE void *scan_rest(wn_marker *marker, wn_vector *arrays, void *object, const wn_type *type,
                                   void *next) {
    marking m = {{.marker = marker, .here = (uintptr_t)object, .next = next}, wn_marks_at(object, true), arrays};
    if (type->trace) {
        struct wn_tracer tracer = {visit_traced_slot, &m};
        type->trace(object, &tracer);
    }
    if (type->item_refs) {
        size_t n = wn_length_of(object, type);
        if (n > SLICE && wn_vector_reserve(arrays, arrays->n + 2)) {
            wn_vector_push(arrays, object);
            wn_vector_push(arrays, NULL);
        } else {
            wn_each_item_ref(object, type, 0, n, visit_slot, &m);
        }
    }
    wn_marks_put_down(&m.marks, true);
    return m.walk.next;
}

static WN_ALWAYS_INLINE void scan(void *context, void *object, wn_visit_fn *visit_ref, void *arg) {
    marking *m = context;
    const wn_type *type = wn_type_of(object);
    for (uint64_t map = type->refs; map; map &= map - 1) {
        void *reference = ((void **)object)[(size_t)__builtin_ctzll(map)];
        if (reference) visit_ref(arg, reference);
    }
    if (WN_LIKELY(!(type->item_refs | (uintptr_t)type->trace))) return;
    wn_marks_put_down(&m->marks, true);
    m->walk.next = scan_rest(m->walk.marker, m->arrays, object, type, m->walk.next);
    wn_marks_take_up(&m->marks, true);
}
/* An item of a long array. */
static WN_ALWAYS_INLINE void visit_item(void **slot, void *context) {
    marking *m = context;
    if (!*slot || !wn_marks_claim(&m->marks, *slot, true)) return;
    void *due = wn_mark_feed(&m->walk, *slot, wn_fetch_head, m);
    if (due) scan(m, due, visit, m);
}

static WN_ALWAYS_INLINE uint64_t claim_run(void *context, void *first, uint64_t bits) {
    return wn_marks_claim_run(&((marking *)context)->marks, first, bits, true);
}

static WN_NOINLINE bool take_slice(wn_vector *arrays, void **array, size_t *from, size_t *to) {
    if (!arrays->n) return false;
    void **pair = &arrays->at[arrays->n - 2];
    size_t n = wn_length_of(pair[0], wn_type_of(pair[0]));
    *array = pair[0];
    *from = (size_t)(uintptr_t)pair[1];
    *to = *from + SLICE < n ? *from + SLICE : n;
    pair[1] = (void *)(uintptr_t)*to;
    if (*to == n) arrays->n -= 2;
    return true;
}

/* Not inlined, for the sake of the registers of both loops. */
static WN_NOINLINE void scan_slice(marking *other, void *array, size_t from, size_t to) {
    marking m = *other;
    wn_mark_slice(&m.walk, array, from, to, claim_run, wn_fetch_head, scan, visit, visit_item, &m);
    *other = m;
}

/* How many items; 0: no array waits. */
static WN_ALWAYS_INLINE size_t scan_some_slice(void *context) {
    marking *m = context, copy = *m;
    void *array;
    size_t from, to;
    if (!take_slice(m->arrays, &array, &from, &to)) return 0;
    scan_slice(&copy, array, from, to);
    m->walk = copy.walk;
    m->marks = copy.marks;
    return to - from;
}

bool wn_rc_full_mark(wn_heap *heap, wn_marker *marker) {
    wn_each_root(heap, visit_root, marker);
    for (size_t i = 0; i < heap->immortals.n; i++) visit_root(&heap->immortals.at[i], marker);
    if (wn_mark_empty(marker)) return !marker->failed;
    wn_vector arrays = {0};
    marking m = {wn_mark_set_out(marker), wn_marks_at(heap->space.chunks, true), &arrays};
    wn_mark_drain(&m.walk, SIZE_MAX, wn_fetch_head, scan, visit, scan_some_slice, &m, &m);
    wn_mark_rest(&m.walk);
    wn_marks_put_down(&m.marks, true);
    wn_vector_free(&arrays);
    return !marker->failed;
}

void wn_rc_full_end(wn_heap *heap, void (*each)(void *context, void *object), void *context) {
    WN_EACH_BLOCK(&heap->space, chunk, b) {
        uint64_t *unmarked = wn_mark_words(b);
        for (size_t i = 0; i < words_of(b); i++) {
            if (!unmarked[i]) continue;
            for (uint64_t w = unmarked[i]; w && each; w &= w - 1)
                each(context, wn_block_start(b) + ((i * 64 + (size_t)__builtin_ctzll(w)) << WN_GRANULE_SHIFT_));
            unmarked[i] = 0;
        }
    }
}
