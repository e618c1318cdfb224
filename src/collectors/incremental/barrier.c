/*
 * barrier.c - the backward write barrier's slow path, reached for stores that may have to be recorded.
 *
 * One set serves two purposes (step Store of the model): an old object that may refer to a young one is a root of the
 * next minor; a black object that may refer to a white one must have it shaded before marking ends, which the next
 * minor does. Unlike PyPy's, the barrier looks at the value: a store that creates neither kind of reference leaves no
 * trace, so a program that rewires old objects does not make its minors longer. While nothing is frozen the value is
 * looked at first, and most stores do not touch the holder's side table: while nothing is marked only young values
 * matter, and the inlined part asks for those (WN_MODE_YOUNG_); else those that are young or not marked, which is asked
 * here (WN_MODE_MARKING_).
 *
 * A long array is not recorded as a whole but by the card of the slot; its count byte stays WN_OLD_CARDS_, and the
 * inlined part asks the card itself. The cards are the side-table bytes of the array's own inner granules, of which
 * there are more than enough. An array so long that its cards must be larger (hundreds of megabytes) has
 * WN_OLD_CLEAN_ instead: every store of a young value into it comes here.
 */
#include "incremental.h"

/* Cards of 128 bytes, 16 references. PyPy's are eight times as large: but a hash table's array is written at random,
 * and each card that a minor looks at is that many cache lines. */
unsigned wn_inc_card_shift(size_t bytes) {
    unsigned shift = WN_CARD_SHIFT_;
    /* A huge array has the bytes of the chunk it begins in, and no more. */
    size_t room = (WN_CHUNK_SIZE - WN_CHUNK_HEADER) / 16 - 16;
    while ((bytes >> shift) >= room) shift++;
    return shift;
}

uint32_t wn_inc_barrier_mode(const incremental *inc) {
    uint32_t mode = WN_MODE_REMEMBER_;
    if (!inc->frozen) mode |= is_marking(inc) ? WN_MODE_MARKING_ : WN_MODE_YOUNG_;
    if (inc->heap->options.check) mode |= WN_MODE_CHECK_;
    return mode;
}

void wn_inc_barrier_adjust(const incremental *inc) {
    for (mutator *m = inc->heap->mutators; m; m = m->next) m->fast.mode = wn_inc_barrier_mode(inc);
}

/* There was no memory to record a store: the next minor looks at every old object. */
static void lose_track(incremental *inc) { __atomic_store_n(&inc->remembered_lost, true, __ATOMIC_RELAXED); }

static void remember(incremental *inc, mutator *m, void *holder, void **slot) {
    wn_vector *set = remembered_of(m);
    const wn_type *t = wn_type_of(holder);
    size_t bytes = wn_bytes_of(holder);
    if (WN_UNLIKELY(has_cards(t, bytes))) {
        size_t number = (size_t)((char *)slot - (char *)holder) >> wn_inc_card_shift(bytes);
        if (__atomic_exchange_n(card_of(holder, number), 1, __ATOMIC_RELAXED)) return;
        if (!wn_vector_reserve(set, set->n + 2)) return lose_track(inc);
        wn_vector_push(set, (void *)(((uintptr_t)holder + (number << wn_inc_card_shift(bytes))) | 1));
        wn_vector_push(set, holder);
    } else {
        __atomic_store_n(wn_meta_(holder), OLD_REMEMBERED, __ATOMIC_RELAXED);
        if (!wn_vector_push(set, holder)) lose_track(inc);
    }
    if (WN_UNLIKELY(set->n >= inc->remembered_max)) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

void wn_inc_barrier_store(mutator *m, void *holder, void **slot, void *value, bool takes_over) {
    (void)takes_over;
    incremental *inc = inc_of(m->heap);
    /* First what is known without the holder: see wn_may_record_. */
    bool young = is_young(inc, value), white = value && !young && is_marking(inc) && !is_marked(value);
    if ((young || white || (value && inc->frozen)) && wn_unrecorded_(holder, slot))
        if (young || (white && is_marked(holder)) || is_frozen(holder)) remember(inc, m, holder, slot);
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
}
