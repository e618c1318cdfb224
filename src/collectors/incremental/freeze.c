/*
 * freeze.c - frozen objects: neither moved, marked nor swept, so that a forked child shares their memory and their side
 * tables with its parent however often it collects.
 *
 * A frozen object's mark bit stays set, so the marker never enters it and the sweep never takes it. Everything alive is
 * frozen at once, so frozen objects refer to frozen ones only, until one is written: the minor that finds it in a
 * remembered set puts it on the list `written`, and those alone are scanned as roots by a major. When there was no
 * memory for the list, the next major looks at all frozen objects once, in one stop, and notes them anew.
 */
#include "incremental.h"

#include <string.h>

/* A major that is under way is brought to a point where no colour means anything. */
static void settle(incremental *inc, mutator *m) {
    if (inc->phase == SCANNING || inc->phase == MARKING)
        wn_inc_major_abort(inc, true);
    else
        wn_inc_major_work(inc, m, UINT64_MAX, true);
}

void wn_inc_freeze_all(incremental *inc, mutator *m) {
    inc->keep_all = true; /* garbage is frozen, too: to find it is what a freeze is meant to save */
    wn_inc_minor_run(inc, m);
    inc->keep_all = false;
    settle(inc, m);
    wn_inc_old_retire(inc, true);
    WN_EACH_BLOCK(&inc->heap->space, c, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            if (is_frozen(o) || wn_type_of(o) == &wn_inc_shadow_type) continue;
            wn_meta_(o)[1] |= WN_STATE_GENERATION_;
            set_mark(o);
            __atomic_fetch_add(&inc->frozen, 1, __ATOMIC_RELAXED);
            b->flags |= BLOCK_FROZEN;
        }
    }
    wn_inc_barrier_adjust(inc);
}

void wn_inc_freeze_written(incremental *inc, void *frozen) {
    uint8_t *state = &wn_meta_(frozen)[1];
    if (*state & STATE_WRITTEN) return;
    if (stack_push(&inc->written, frozen))
        *state |= STATE_WRITTEN;
    else
        inc->written_lost = true;
}

typedef struct search {
    incremental *inc;
    void (*found)(incremental *inc, void *object);
    bool any;
} search;

static void look(void **slot, void *context) {
    search *s = context;
    if (!*slot || is_frozen(*slot)) return;
    s->any = true;
    if (s->found) s->found(s->inc, *slot);
}

/* Whether a frozen object refers to some that are not; calls `found`, unless NULL, for each of them. */
static bool leads_out(incremental *inc, void *o, void (*found)(incremental *inc, void *object)) {
    search s = {inc, found, false};
    wn_each_ref(o, look, &s);
    wn_ephemeron *p = wn_type_of(o)->flags & WN_TYPE_EPHEMERON ? o : NULL;
    if (p && p->value && !is_frozen(p->value)) {
        s.any = true;
        if (found && p->key && is_marked(p->key)) found(inc, p->value);
    }
    return s.any;
}

bool wn_inc_freeze_leads_out(incremental *inc, void *frozen) { return leads_out(inc, frozen, NULL); }

void wn_inc_freeze_search(incremental *inc, void (*found)(incremental *inc, void *object)) {
    inc->written_lost = false; /* unless one cannot be noted this time either */
    WN_EACH_BLOCK(&inc->heap->space, c, b) {
        if (!(b->flags & BLOCK_FROZEN)) continue;
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));)
            if (is_frozen(o) && leads_out(inc, o, found)) wn_inc_freeze_written(inc, o);
    }
}

void wn_inc_freeze_undo(incremental *inc, mutator *m) {
    settle(inc, m);
    WN_EACH_BLOCK(&inc->heap->space, c, b) {
        if (!(b->flags & BLOCK_FROZEN)) continue;
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));)
            if (is_frozen(o)) wn_meta_(o)[1] &= (uint8_t) ~(WN_STATE_GENERATION_ | STATE_WRITTEN);
        b->flags &= (uint8_t)~BLOCK_FROZEN;
        wn_inc_sweep_forget_marks(b);
    }
    while (inc->written.n) stack_pop(&inc->written);
    inc->written_lost = false;
    __atomic_store_n(&inc->frozen, 0, __ATOMIC_RELAXED);
    wn_inc_barrier_adjust(inc);
}
