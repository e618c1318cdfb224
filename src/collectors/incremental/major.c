/*
 * major.c - the major collection of the old space, as a state machine that works in steps.
 *
 *     IDLE -> SCANNING -> MARKING -> ENDING -> RESURRECTING -> SWEEPING -> FINALIZING -> IDLE
 *
 * SCANNING, MARKING (steps Start, MarkStep): from the roots and from frozen objects that were written, the marker turns
 * grey objects black. Minors go on meanwhile and shade on behalf of what was written or moved.
 *
 * The end of marking (step Terminate) is the one moment that must be atomic: a minor, which empties the nursery and the
 * remembered sets, then the roots; if nothing grey is left, no black object refers to a white one, and what is white is
 * dead for good. It costs a minor and what the roots shade, because white objects only become fewer, and if that is
 * more than fits the time the program runs on and it is tried again after the next minor.
 *
 * From there on death is decided but takes effect step by step, and the program must not notice: it can come to a dead
 * object only by a weak reference, and is_found_dead answers for those (step WeakStep). Weak references to dead objects
 * are cleared first (ENDING), then those with finalizers are found and they and what they refer to become black again
 * (RESURRECTING), the rest is swept, and finalizers run at safepoints (FINALIZING): the order of PEP 442.
 *
 * Finalizers run in topological order as far as there is one: the depth-first search over what is dead appends an
 * object when all it leads to has been visited, and the list is worked off from its end. Objects that do not depend on
 * each other keep the order in which they were made.
 */
#include "incremental.h"

#include "engines/marks.h"
#include "engines/slice.h"

enum {
    DRAIN = 1024,              /* objects marked between two looks at the clock */
    OBJECT_BYTES = 48,         /* what marking one object pays of what is owed */
    SLICE_BYTES = 4 << 10,     /* of a long array, marked at a time: each reference may lead to a cache miss or two */
    SEARCHED_BYTES = 16 << 10, /* of a long array, searched for what a finalizer will see */
    FEW = 256                  /* entries of other lists between two looks at the clock */
};

/* ---- the marker's three functions -------------------------------------------------------------------------------- */

/* A drain: a local variable of mark_some, whose parts are in registers because only inlined functions see it. */
typedef struct drain {
    incremental *inc;
    wn_mark_walk walk;
    wn_marks marks;
    bool ephemerons; /* a constant: where there are none nothing asks for them */
} drain;

static WN_ALWAYS_INLINE void visit(void *arg, void *reference) {
    drain *d = arg;
    if (reference && wn_marks_claim(&d->marks, reference, false)) wn_mark_reach(&d->walk, reference);
}

static WN_ALWAYS_INLINE void visit_slot(void **slot, void *context) { visit(context, *slot); }
static void visit_traced_slot(void **slot, void *context) { visit_slot(slot, context); }

/* Outside of one, too. */
static void shade_found(incremental *inc, void *o) {
    if (o) shade(inc, o);
}

/* Items, trace functions, ephemerons. Takes and returns the walk's next. */
static WN_NOINLINE void *scan_rest(incremental *inc, void *o, const wn_type *t, void *next) {
    drain d = {inc, {.marker = &inc->marker, .here = (uintptr_t)o, .next = next}, wn_marks_at(o, false), true};
    if (t->item_refs) {
        size_t length = wn_length_of(o, t);
        if (length * t->item_size <= SLICE_BYTES) {
            wn_each_item_ref(o, t, 0, length, visit_slot, &d);
        } else {
            if (!stack_push(&inc->slices, NULL) || !stack_push(&inc->slices, o)) inc->marker.failed = true;
        }
    }
    if (t->trace) {
        struct wn_tracer tracer = {visit_traced_slot, &d};
        t->trace(o, &tracer);
    }
    if (t->flags & WN_TYPE_EPHEMERON) {
        const wn_ephemeron *p = o;
        if (p->key && is_marked(p->key)) visit(&d, p->value);
    }
    wn_marks_put_down(&d.marks, false);
    return d.walk.next;
}

static WN_ALWAYS_INLINE void scan(void *context, void *entry, wn_visit_fn *see, void *arg) {
    drain *d = context;
    const wn_type *t = wn_type_of(entry);
    for (uint64_t map = t->refs; map; map &= map - 1) see(arg, ((void **)entry)[(size_t)__builtin_ctzll(map)]);
    bool more = t->item_refs | (uintptr_t)t->trace || (d->ephemerons && t->flags & WN_TYPE_EPHEMERON);
    bool key = d->ephemerons && wn_meta_(entry)[1] & WN_STATE_WEAK_;
    if (WN_LIKELY(!more && !key)) return;
    wn_marks_put_down(&d->marks, false);
    if (more) d->walk.next = scan_rest(d->inc, entry, t, d->walk.next);
    if (key) wn_inc_major_shade_values(d->inc, entry);
    wn_marks_take_up(&d->marks, false);
}

void wn_inc_major_shade_values(incremental *inc, void *key) {
    wn_weak_entry *e = wn_weak_find(inc->heap, key);
    WN_EACH_EPHEMERON(e, p)
        if (is_marked(p)) shade_found(inc, p->value);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

size_t wn_inc_major_used(const incremental *inc) {
    return __atomic_load_n(&inc->heap->space.live_bytes, __ATOMIC_RELAXED) +
           __atomic_load_n(&inc->heap->external_bytes, __ATOMIC_RELAXED);
}

static void shade_root(void **slot, void *context) { shade_found(context, *slot); }

static void shade_roots(incremental *inc) {
    wn_heap *heap = inc->heap;
    wn_each_root(heap, shade_root, inc);
    for (size_t i = 0; i < heap->immortals.n; i++) shade_found(inc, heap->immortals.at[i]);
    MAP_EACH(&inc->pins, e) shade_found(inc, e->key);
    if (heap->options.conservative_stacks) wn_inc_conservative_scan(inc, shade_found);
}

/* A major begins or ends. */
static void turn(incremental *inc) { __atomic_store_n(&inc->turns, inc->turns + 1, __ATOMIC_RELAXED); }

void wn_inc_major_start(incremental *inc) {
    if (++inc->epoch == 0) inc->epoch = 2; /* 0 is that of a block that was just taken */
    wn_inc_old_retire(inc, true);          /* runs taken from here on are black */
    inc->written_at = stack_newest(&inc->written);
    if (inc->turns % 2 == 0) {
        turn(inc);
        inc->bytes_at_start = wn_inc_major_used(inc);
        inc->started_at = wn_os_now();
    }
    __atomic_store_n(&inc->owed, 0, __ATOMIC_RELAXED);
    /* What came to be held outside before has brought this major about, and is owed nothing. */
    __atomic_store_n(&inc->external_seen, __atomic_load_n(&inc->heap->external_bytes, __ATOMIC_RELAXED),
                     __ATOMIC_RELAXED);
    inc->gave_up = false;
    inc->phase = SCANNING;
    if (WN_UNLIKELY(inc->written_lost)) wn_inc_freeze_search(inc, shade_found);
    wn_inc_barrier_adjust(inc);
}

static bool scan_written(incremental *inc) {
    for (unsigned i = 0; i < FEW; i++) {
        void **word = wn_inc_stack_older(&inc->written_at);
        if (!word) return false;
        wn_mark_push(&inc->marker, *word); /* marked already, for good; pushed so as to be scanned once more */
    }
    return true;
}

bool wn_inc_major_waits_for_minor(const incremental *inc) {
    return inc->phase == MARKING && wn_mark_empty(&inc->marker) && !inc->slices.n;
}

static WN_ALWAYS_INLINE void visit_item(void **slot, void *context) {
    drain *d = context;
    void *o = *slot;
    if (!o || !wn_marks_claim(&d->marks, o, false)) return;
    void *due = wn_mark_feed(&d->walk, o, wn_fetch_head, d);
    if (due) scan(d, due, visit, d);
}
static WN_ALWAYS_INLINE uint64_t claim_run(void *context, void *first, uint64_t bits) {
    return wn_marks_claim_run(&((drain *)context)->marks, first, bits, false);
}

/* The slice that is next of the long array that was found last. */
static WN_NOINLINE bool take_slice(incremental *inc, void **array, size_t *from, size_t *to) {
    if (!inc->slices.n) return false;
    void *o = stack_pop(&inc->slices);
    const wn_type *t = wn_type_of(o);
    size_t length = wn_length_of(o, t);
    *array = o;
    *from = (uintptr_t)stack_pop(&inc->slices);
    *to = *from + SLICE_BYTES / t->item_size + 1;
    if (*to >= length)
        *to = length;
    else if (!stack_push(&inc->slices, (void *)*to) || !stack_push(&inc->slices, o))
        inc->marker.failed = true;
    return true;
}

/* Not inlined, for the sake of the registers of both loops. */
static WN_NOINLINE void scan_slice(drain *other, void *array, size_t from, size_t to) {
    drain d = *other;
    wn_mark_slice(&d.walk, array, from, to, claim_run, wn_fetch_head, scan, visit, visit_item, &d);
    *other = d;
}

static WN_ALWAYS_INLINE size_t scan_some_slice(void *context) {
    drain *d = context, copy = *d;
    void *array;
    size_t from, to;
    if (!take_slice(d->inc, &array, &from, &to)) return 0;
    scan_slice(&copy, array, from, to);
    d->walk = copy.walk;
    d->marks = copy.marks;
    return SLICE_BYTES / OBJECT_BYTES;
}

static WN_ALWAYS_INLINE size_t mark_some_as(incremental *inc, bool ephemerons) {
    drain d = {inc, wn_mark_set_out(&inc->marker), wn_marks_at(inc->nursery, false), ephemerons};
    size_t done = wn_mark_drain(&d.walk, DRAIN, wn_fetch_head, scan, visit, scan_some_slice, &d, &d);
    wn_mark_rest(&d.walk);
    wn_marks_put_down(&d.marks, false);
    return done;
}

/* Marks some; returns how many bytes it paid for. */
static size_t mark_some(incremental *inc) {
    return OBJECT_BYTES * (inc->ephemerons ? mark_some_as(inc, true) : mark_some_as(inc, false));
}

static bool weakref_is_alive(void *inc, void *ref) { return !is_found_dead(inc, ref); }

/* Some entries of the table of weak references; false at its end. */
static bool clear_weak(incremental *inc, mutator *m) {
    wn_weak_table *t = &inc->heap->weak;
    if (!wn_weak_settle(inc->heap, FEW)) return true;
    if (t->replaced != inc->weak_replaced) { /* the table grew meanwhile: again from the start */
        inc->weak_replaced = t->replaced;
        inc->weak_at = 0;
    }
    wn_weak_fetch(inc->heap, inc->weak_at, inc->weak_at + FEW);
    for (unsigned i = 0; i < FEW && inc->weak_at < t->size; i++) {
        void *target = t->entry[inc->weak_at++].target;
        if (target && target != WN_WEAK_GONE && is_found_dead(inc, target))
            wn_weak_target_died(m, target, weakref_is_alive, inc, NULL);
    }
    return inc->weak_at < t->size;
}

/* ---- resurrecting ---------------------------------------------------------------------------------------------------
 *
 * The search's stack holds objects to visit (marked when they are taken from it), objects | 1 whose visit ends when the
 * word comes to the top again, and long arrays | 2 with, below, the index to go on at. */

static void find(void **slot, void *context) {
    incremental *inc = context;
    void *o = *slot;
    if (o && !is_marked(o) && !stack_push(&inc->search, o)) inc->marker.failed = true;
}

static void seek(incremental *inc, void *word) {
    if (!stack_push(&inc->search, word)) inc->marker.failed = true;
}

static void find_items(incremental *inc, void *o, const wn_type *t, size_t from) {
    size_t length = wn_length_of(o, t), to = from + SEARCHED_BYTES / t->item_size + 1;
    if (to < length) {
        seek(inc, (void *)to);
        seek(inc, (void *)((uintptr_t)o | 2));
    }
    wn_each_item_ref(o, t, from, to < length ? to : length, find, inc);
}

static bool has_unrun_finalizer(const void *o) {
    return wn_type_of(o)->finalize && !(wn_meta_(o)[1] & WN_STATE_FINALIZED_);
}

static void search_on(incremental *inc) {
    uintptr_t word = (uintptr_t)stack_pop(&inc->search);
    void *o = (void *)(word & ~(uintptr_t)3);
    const wn_type *t = wn_type_of(o);
    if (word & 1) {
        stack_push(&inc->due, o); /* without memory for that another major will find it again */
    } else if (word & 2) {
        find_items(inc, o, t, (uintptr_t)stack_pop(&inc->search));
    } else if (!is_marked(o)) {
        set_mark(o);
        if (has_unrun_finalizer(o)) seek(inc, (void *)((uintptr_t)o | 1));
        if (t->item_refs) find_items(inc, o, t, 0);
        for (uint64_t map = t->refs; map; map &= map - 1) find((void **)o + __builtin_ctzll(map), inc);
        if (t->trace) {
            struct wn_tracer tracer = {find, inc};
            t->trace(o, &tracer);
        }
        /* An ephemeron that still has its key has a living one. */
        if (t->flags & WN_TYPE_EPHEMERON && ((wn_ephemeron *)o)->key) find(&((wn_ephemeron *)o)->value, inc);
    }
}

/* Looks at one segment of the list of finalizable objects and drops it when nothing is left in it; false at the end. */
static bool drop_empty_segment(incremental *inc) {
    stack *s = &inc->finalizable;
    if (!inc->drop_at) inc->drop_at = s->top ? &s->top->below : NULL;
    stack_segment *segment = inc->drop_at ? *inc->drop_at : NULL;
    if (!segment) return false;
    for (size_t i = 0; i < segment->n; i++)
        if (segment->at[i]) {
            inc->drop_at = &segment->below;
            return true;
        }
    *inc->drop_at = segment->below;
    s->n -= segment->n;
    wn_inc_stack_drop_segment(segment);
    return true;
}

/* Some objects of the search, or some candidates; false when all is done. A search that found no memory goes no
 * further: half of an entry may be on its stack. */
static bool resurrect_some(incremental *inc) {
    for (unsigned i = 0; i < FEW && !inc->marker.failed; i++) {
        if (inc->search.n) {
            search_on(inc);
            continue;
        }
        void **word = wn_inc_stack_older(&inc->finalizable_at);
        if (!word) return drop_empty_segment(inc);
        void *o = *word;
        if (!o) continue;
        if (wn_meta_(o)[1] & WN_STATE_FINALIZED_)
            *word = NULL; /* found in an earlier major */
        else if (!is_marked(o))
            seek(inc, o);
    }
    return true;
}

/* Remembered objects that are dead must not be looked at by minors once they may be swept. */
static void forget_dead_holders(incremental *inc) {
    size_t n = 0;
    for (size_t i = 0; i < inc->kept.n; i++) {
        void *word = inc->kept.at[i];
        bool card = (uintptr_t)word & 1;
        void *holder = card ? inc->kept.at[++i] : word;
        if (is_found_dead(inc, holder)) continue;
        inc->kept.at[n++] = word;
        if (card) inc->kept.at[n++] = holder;
    }
    inc->kept.n = n;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* Under a limit a major begins when half of what is left is used: the other half is for what is allocated while it goes
 * on. At the limit itself each minor would ask for a whole major. */
size_t wn_inc_major_bearable(const incremental *inc, size_t used) {
    size_t limit = inc->heap->options.heap_limit, room = limit - limit / 13; /* less side tables */
    if (!limit) return SIZE_MAX;
    room = room > inc->nursery_size ? room - inc->nursery_size : 0;
    return used < room ? used + (room - used) / 2 : used;
}

static void set_threshold(incremental *inc) {
    const wn_options *o = &inc->heap->options;
    /* What was allocated while the sweep went on is not taken for live, or it would raise the threshold, and a higher
     * threshold makes for a longer sweep. */
    size_t now = wn_inc_major_used(inc), freed = inc->freed_bytes - inc->freed_bytes_before;
    size_t lives = inc->bytes_at_sweep - freed;
    double used = (double)(inc->bytes_at_sweep > freed && lives < now ? lives : now), t = used * o->major_factor;
    if (t > used + (double)o->max_delta) t = used + (double)o->max_delta;
    /* Bounded growth keeps a heap that was large for a moment from staying so; but not below what is in use anyway. */
    double from = used > (double)inc->threshold ? used : (double)inc->threshold;
    if (t > from * o->growth) t = from * o->growth;
    if (t < (double)o->min_heap) t = (double)o->min_heap;
    size_t most = wn_inc_major_bearable(inc, (size_t)used), least = wn_inc_major_bearable(inc, now);
    if (least > now + inc->nursery_size) least = now + inc->nursery_size;
    if (t > (double)most) t = (double)most;
    if (t < (double)least) t = (double)least;
    inc->threshold = (size_t)t;
    /* Blocks that the sweep has freed are kept for the next major, which will need as many as this one did. */
    size_t next = inc->threshold + inc->nursery_size;
    inc->heap->space.expected = next > inc->blocks_at_sweep ? next : inc->blocks_at_sweep;
}

void wn_inc_major_finish(incremental *inc) {
    set_threshold(inc); /* now, because finalizers may have given back what their objects held outside the heap */
    inc->phase = IDLE;
    inc->pinned_at_stop = inc->pinned_young;
    turn(inc);
}

void wn_inc_major_abort(incremental *inc, bool over) {
    wn_mark_drop(&inc->marker);
    while (inc->slices.n) stack_pop(&inc->slices);
    WN_EACH_BLOCK(&inc->heap->space, c, b) {
        wn_inc_sweep_forget_marks(b);
        b->epoch = inc->epoch; /* white as after a sweep, and so is what is born in it */
    }
    inc->phase = IDLE;
    wn_inc_barrier_adjust(inc);
    inc->freed_objects_before = inc->freed_objects;
    inc->freed_bytes_before = inc->freed_bytes;
    inc->bytes_at_sweep = wn_inc_major_used(inc);
    if (!over) return;
    inc->pinned_at_stop = inc->pinned_young;
    turn(inc);
}

void wn_inc_major_try_to_end_marking(incremental *inc, uint64_t deadline) {
    if (inc->phase != MARKING || !wn_inc_major_waits_for_minor(inc)) return;
    shade_roots(inc);
    while (!wn_inc_major_waits_for_minor(inc)) {
        mark_some(inc);
        if (wn_os_now() >= deadline && !wn_inc_major_waits_for_minor(inc)) return;
    }
    if (inc->marker.failed) {
        /* No memory for the marker's stack: nothing is freed, and the heap grows before the next try. */
        inc->gave_up = true;
        wn_inc_major_abort(inc, true);
        set_threshold(inc);
        return;
    }
    inc->weak_at = 0;
    inc->weak_replaced = inc->heap->weak.replaced;
    inc->phase = ENDING;
    wn_inc_barrier_adjust(inc);
}

/* No memory for the search: nothing is freed this time. What was found has its finalizers run. */
static void give_up_search(incremental *inc) {
    inc->gave_up = true;
    while (inc->search.n) stack_pop(&inc->search);
    inc->drop_at = NULL;
    wn_inc_major_abort(inc, false);
    inc->phase = FINALIZING;
    if (!inc->due.n) wn_inc_major_finish(inc);
}

static void pay(incremental *inc, size_t bytes) {
    size_t owed = __atomic_load_n(&inc->owed, __ATOMIC_RELAXED);
    __atomic_store_n(&inc->owed, owed > bytes ? owed - bytes : 0, __ATOMIC_RELAXED);
}

/* Of each state: what it does at a time, and the way to the next. Returns what that pays of what is owed. */

static size_t work_on_scanning(incremental *inc) {
    if (wn_space_ready_marks(&inc->heap->space)) return FEW * OBJECT_BYTES;
    if (!scan_written(inc)) {
        shade_roots(inc);
        inc->phase = MARKING;
    }
    return FEW * OBJECT_BYTES;
}

static size_t work_on_ending(incremental *inc, mutator *m) {
    if (!clear_weak(inc, m)) {
        inc->finalizable_at = stack_newest(&inc->finalizable);
        inc->phase = RESURRECTING;
    }
    if (wn_callbacks_are_due(m)) __atomic_store_n(&own_of(m)->calls, true, __ATOMIC_RELAXED);
    return FEW * OBJECT_BYTES;
}

static size_t work_on_resurrecting(incremental *inc) {
    bool more = resurrect_some(inc);
    if (WN_UNLIKELY(inc->marker.failed)) {
        give_up_search(inc);
    } else if (!more) {
        wn_space *space = &inc->heap->space;
        inc->drop_at = NULL;
        forget_dead_holders(inc);
        inc->phase = SWEEPING;
        inc->bytes_at_sweep = wn_inc_major_used(inc);
        inc->blocks_at_sweep = __atomic_load_n(&space->block_bytes, __ATOMIC_RELAXED);
        if (space->expected < inc->blocks_at_sweep) space->expected = inc->blocks_at_sweep;
        wn_inc_sweep_begin(inc);
    }
    return FEW * OBJECT_BYTES;
}

static size_t work_on_sweeping(incremental *inc) {
    size_t paid = wn_inc_sweep_next(inc);
    if (!paid) {
        inc->phase = FINALIZING;
        if (!inc->due.n) wn_inc_major_finish(inc);
    }
    return paid;
}

void wn_inc_major_work(incremental *inc, mutator *m, uint64_t deadline, bool all) {
    for (;;) {
        size_t paid = 0;
        switch (inc->phase) {
        case IDLE:
        case FINALIZING: return;
        case SCANNING: paid = work_on_scanning(inc); break;
        case MARKING:
            if (wn_inc_major_waits_for_minor(inc)) return;
            paid = mark_some(inc);
            break;
        case ENDING: paid = work_on_ending(inc, m); break;
        case RESURRECTING: paid = work_on_resurrecting(inc); break;
        case SWEEPING: paid = work_on_sweeping(inc); break;
        }
        pay(inc, paid);
        if (!all && !__atomic_load_n(&inc->owed, __ATOMIC_RELAXED)) return;
        if (deadline != UINT64_MAX && wn_os_now() >= deadline) return;
    }
}
