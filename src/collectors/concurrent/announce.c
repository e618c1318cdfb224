/*
 * announce.c - finding stores that skipped the barrier, with the option `verify`.
 *
 * Such a store leaves no trace but the difference between what is there and what was announced. So every store notes
 * what it put where, and a verification compares all references there are with that.
 *
 * Invariant: a slot that was stored to through the barrier is in the table with the last value stored; one for which
 * there was no memory is missing, and is then reported although nothing is wrong with it.
 */
#include "collectors/concurrent/concurrent.h"

#include <stdlib.h>

static struct wn_cc_announced *announced_at(const wn_cc *cc, const void *slot) {
    size_t i = ((uintptr_t)slot >> 3) * 0x9E3779B97F4A7C15u >> 20 & (cc->announced_size - 1);
    while (cc->announced[i].slot && cc->announced[i].slot != slot) i = (i + 1) & (cc->announced_size - 1);
    return &cc->announced[i];
}

static bool grow_announced(wn_cc *cc) {
    struct wn_cc_announced *old = cc->announced;
    size_t old_size = cc->announced_size, size = old_size ? old_size * 2 : 1024;
    struct wn_cc_announced *bigger = calloc(size, sizeof *bigger);
    if (!bigger) return false;
    cc->announced = bigger;
    cc->announced_size = size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].slot) *announced_at(cc, old[i].slot) = old[i];
    free(old);
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
