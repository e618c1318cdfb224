/*
 * marks.h - the mark bits of a heap as a marker sees them that has them for itself, because the world is stopped.
 *
 * Objects that lie next to each other have their bits in one word, that of their span (space.h). It is kept in a
 * register as long as what is claimed lies in that span: then a claim is nine instructions and no memory.
 *
 * Invariant: the word in memory is right for every span but the current one; wn_marks_put_down makes it right for that
 * one too, and must be called before anybody else looks at marks, after which wn_marks_take_up reads it again.
 */
#ifndef WN_MARKS_H
#define WN_MARKS_H

#include "heap/space.h"

/* A local variable, of which only inlined functions may be told. */
typedef struct wn_marks {
    uintptr_t span; /* the address of what it covers, shifted */
    uint64_t *word; /* where it is */
    uint64_t bits;  /* what it holds; inverted where a set bit means white */
} wn_marks;

/* Starts at an object's span; any address within a chunk will do. `white_is_set`, a constant throughout: a mark is a
 * bit that was cleared. */
static WN_ALWAYS_INLINE wn_marks wn_marks_at(const void *object, bool white_is_set) {
    uint64_t bit, *word = wn_bit_of(object, WN_MARK_TABLE, &bit);
    return (wn_marks){(uintptr_t)object >> WN_SPAN_SHIFT, word, white_is_set ? ~*word : *word};
}
/* What did not change is not written: pages of the table that a forked process shares with others stay shared. */
static WN_ALWAYS_INLINE void wn_marks_put_down(const wn_marks *h, bool white_is_set) {
    uint64_t now = white_is_set ? ~h->bits : h->bits;
    if (*h->word != now) *h->word = now;
}
static WN_ALWAYS_INLINE void wn_marks_take_up(wn_marks *h, bool white_is_set) {
    h->bits = white_is_set ? ~*h->word : *h->word;
}

static WN_ALWAYS_INLINE void wn_marks_go_to_(wn_marks *h, const void *object, bool white_is_set) {
    if (WN_LIKELY((uintptr_t)object >> WN_SPAN_SHIFT == h->span)) return;
    wn_marks_put_down(h, white_is_set);
    *h = wn_marks_at(object, white_is_set);
}

/* Tests and sets a mark; true when the object was white. */
static WN_ALWAYS_INLINE bool wn_marks_claim(wn_marks *h, const void *object, bool white_is_set) {
    wn_marks_go_to_(h, object, white_is_set);
    uint64_t bit = (uint64_t)1 << ((uintptr_t)object >> WN_GRANULE_SHIFT_ & 63);
    if (h->bits & bit) return false;
    h->bits |= bit;
    return true;
}

/* The same for several objects of the span of `first`; returns the bits of those that were white. */
static WN_ALWAYS_INLINE uint64_t wn_marks_claim_run(wn_marks *h, const void *first, uint64_t bits, bool white_is_set) {
    wn_marks_go_to_(h, first, white_is_set);
    bits &= ~h->bits;
    h->bits |= bits;
    return bits;
}

#endif
