/*
 * conservative.c - C stacks and registers as roots, for programs that do not declare theirs.
 *
 * Whatever a word of them might point to, or into, is kept: a young object does not move in that minor, because the
 * word cannot be told from a number and so must not be changed; an old one, which never moves, is shaded. A word that
 * is no pointer at all may keep an object longer than needed, never shorter.
 *
 * The callee-saved registers of a thread are spilled when it stops (world.c), those of the collecting one here: a
 * reference that lives only in a register of some outer function is then in the array or in a frame in between.
 */
#include "incremental.h"

typedef void found_fn(incremental *inc, void *object);

static void scan_words(incremental *inc, const uintptr_t *at, const uintptr_t *end, found_fn *found) {
    for (; at < end; at++) {
        const void *word = (const void *)*at;
        WN_WRITTEN(word);
        void *o = is_young(inc, word) ? wn_inc_nursery_object_at(inc, word, false)
                                      : wn_space_object_at(&inc->heap->space, word, false);
        if (o) found(inc, o);
    }
}

/* A stack holds words of every kind of use, and a sanitizer's guards between them: they are read all the same. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static void
scan_stack(incremental *inc, const void *low, const void *high, found_fn *found) {
    const uintptr_t *at = (const uintptr_t *)((uintptr_t)low & ~(sizeof(uintptr_t) - 1)), *end = high;
    uintptr_t some[64];
    while (at < end) {
        size_t n = 0;
        for (; n < 64 && at < end; n++) some[n] = *at++;
        scan_words(inc, some, some + n, found);
    }
}

void wn_inc_conservative_scan(incremental *inc, found_fn *found) {
    for (mutator *m = inc->heap->mutators; m; m = m->next) {
        if (!m->stack_high) continue;
        if (pthread_equal(m->thread, pthread_self())) {
            wn_registers here;
            const void *low = wn_os_spill_registers(&here, m->stack_high);
            scan_words(inc, here.word, here.word + sizeof here.word / sizeof here.word[0], found);
            scan_stack(inc, low, m->stack_high, found);
        } else {
            scan_words(inc, m->registers.word,
                       m->registers.word + sizeof m->registers.word / sizeof m->registers.word[0], found);
            scan_stack(inc, m->stack_low, m->stack_high, found);
        }
    }
}
