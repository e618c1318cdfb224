/*
 * reclaim.c - taking dead objects apart in bounded slices, and handing out memory.
 *
 * The talk's "cascading effect": the last reference to a list of a million nodes goes, and the program stops until all
 * are freed. Here an object whose count reached zero goes on its mutator's list of the dead; the list is worked off at
 * once up to a budget, and whatever is left at the following safepoints, before any new memory is taken. So a drop
 * costs at most a slice, and memory cannot grow while dead objects wait. What a finalizer drops is worked off within
 * it; only where finalizers run one within the other WN_RC_FINALIZERS deep does it wait for their end.
 */
#include "collectors/refcount/refcount.h"

#include <stdlib.h>
#include <string.h>

/* ---- freed slots ------------------------------------------------------------------------------------------------- */

static void count_reuse(mutator *m, size_t objects, size_t bytes) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    /* Only this thread adds; others may read. */
    __atomic_store_n(&m->fast.pending_objects, m->fast.pending_objects + objects, __ATOMIC_RELAXED);
    __atomic_store_n(&r->reused_bytes, r->reused_bytes + bytes, __ATOMIC_RELAXED);
}

/* Makes a freed slot the buffer of its class, so that the next allocation finds it on the fast path. */
static void reuse_as_buffer(mutator *m, unsigned cls, void *slot, size_t size) {
    WN_ALLOW(slot, size);
    memset(slot, 0, size);
    m->buffers[cls].cursor = slot;
    m->buffers[cls].limit = (char *)slot + size;
    count_reuse(m, 1, size);
}

/* Such a slot's block need not be the thread's own: if its last slot is free, it goes back. */
static void give_buffer_back(mutator *m, unsigned cls) {
    wn_buffer_ *b = &m->buffers[cls];
    if (b->cursor != b->limit && wn_block_of(b->cursor) != m->block[0][cls]) {
        void *slot = b->cursor;
        count_reuse(m, (size_t)-1, (size_t)0 - (size_t)(b->limit - b->cursor));
        wn_space_free(&m->heap->space, &slot, 1);
        b->cursor = b->limit;
    }
    wn_space_retire(&m->heap->space, cls, b);
}

static void free_large_or_cache(mutator *m, void *object, wn_block *b) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    if (b->state == WN_BLOCK_LARGE) {
        wn_space_free_large(&m->heap->space, object);
        return;
    }
    unsigned cls = b->cls;
    if (b->inherited) { /* writing a new object there would unshare the page: give it back instead */
        wn_space_free(&m->heap->space, &object, 1);
        return;
    }
    if (m->buffers[cls].cursor == m->buffers[cls].limit) {
        reuse_as_buffer(m, cls, object, b->slot);
        return;
    }
    if (r->cached[cls] == WN_RC_CACHE) { /* the older half goes back; what was freed last is warm */
        wn_space_free(&m->heap->space, r->cache[cls], WN_RC_CACHE / 2);
        memmove(r->cache[cls], r->cache[cls] + WN_RC_CACHE / 2, WN_RC_CACHE / 2 * sizeof(void *));
        r->cached[cls] = WN_RC_CACHE / 2;
    }
    r->cache[cls][r->cached[cls]++] = object;
}

void wn_rc_free_slot(mutator *m, void *object) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_block *b = wn_block_of(object);
    uint8_t *meta = wn_meta_(object);
    meta[0] = 0;
    __atomic_store_n(&meta[1], 0, __ATOMIC_RELAXED);
    if (b->state != WN_BLOCK_LARGE) WN_FORBID(object, b->slot);
    if (WN_LIKELY(!m->all_slow || b->state == WN_BLOCK_LARGE)) {
        free_large_or_cache(m, object, b);
        return;
    }
    /* Checked: poisoned, and not reused for a while, so that a late use meets a dead object and not a new one. Large
     * ones would hold too much meanwhile; their addresses lead nowhere at once. */
    WN_ALLOW(object, b->slot);
    memset(object, 0xDB, b->slot);
    WN_FORBID(object, b->slot);
    void *oldest = object;
    if (r->quarantine.n < WN_RC_QUARANTINE) {
        if (wn_vector_push(&r->quarantine, object)) return;
    } else {
        oldest = r->quarantine.at[r->quarantine_next];
        r->quarantine.at[r->quarantine_next] = object;
        r->quarantine_next = (r->quarantine_next + 1) % WN_RC_QUARANTINE;
    }
    free_large_or_cache(m, oldest, wn_block_of(oldest));
}

void wn_rc_flush(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    for (size_t i = 0; i < r->quarantine.n; i++)
        free_large_or_cache(m, r->quarantine.at[i], wn_block_of(r->quarantine.at[i]));
    r->quarantine.n = r->quarantine_next = 0;
    for (unsigned c = 0; c < WN_CLASSES_; c++) {
        if (r->cached[c]) wn_space_free(&m->heap->space, r->cache[c], r->cached[c]);
        r->cached[c] = 0;
        give_buffer_back(m, c);
    }
}

/* ---- the dead ---------------------------------------------------------------------------------------------------- */

static void drop_reference(void **slot, void *context) {
    mutator *m = context;
    if (*slot) wn_count_down_(&m->fast, *slot);
}

static void free_left(mutator *m) {
    for (wn_ephemeron *p = wn_weak_take_left(m->heap), *next; p; p = next) {
        next = p->next;
        wn_rc_free_slot(m, p);
    }
}

void wn_rc_release_values(mutator *m) {
    wn_vector *values = &wn_rc_of_mutator(m)->values;
    while (values->n) wn_count_down_(&m->fast, values->at[--values->n]);
    free_left(m);
}

/* Not one that is itself dying, in another thread, or condemned. */
bool wn_rc_hold(void *context, void *ref) {
    mutator *m = context;
    return !(__atomic_load_n(&wn_meta_(ref)[1], __ATOMIC_RELAXED) & WN_STATE_SCRATCH_) && wn_rc_weak_get(m, ref);
}

/* What weak references and ephemerons have to do with an object's end. */
static void drop_weak(mutator *m, void *object, const wn_type *t) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    if (t->flags & WN_TYPE_WEAKREF) wn_weak_ref_died(m->heap, object);
    if (t->flags & WN_TYPE_EPHEMERON) {
        void *value = wn_weak_take_value(m->heap, object);
        if (value) wn_count_down_(&m->fast, value);
    }
    if (__atomic_load_n(&wn_meta_(object)[1], __ATOMIC_ACQUIRE) & WN_STATE_WEAK_) { /* see wn_weak_remove_if_empty */
        wn_weak_target_died(m, object, wn_rc_hold, m, &r->values);
        wn_rc_release_values(m);
    }
}

/* Runs the finalizer; true when the object was resurrected. */
static bool finalized_back_to_life(mutator *m, void *object, const wn_type *t) {
    uint8_t *meta = wn_meta_(object);
    if (!t->finalize || (__atomic_fetch_or(&meta[1], WN_STATE_FINALIZED_, __ATOMIC_RELAXED) & WN_STATE_FINALIZED_))
        return false;
    wn_run_callbacks_first(m);                   /* of the weak references to it: they come before (PEP 442) */
    __atomic_store_n(meta, 1, __ATOMIC_RELAXED); /* the finalizer's own reference */
    m->fast.nested++;
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    bool was = r->reclaiming;
    r->reclaiming = r->finalizing == WN_RC_FINALIZERS; /* no list is being gone through: what dies here goes at once */
    r->finalizing++;
    t->finalize(&m->fast, object);
    r->finalizing--;
    r->reclaiming = was;
    m->fast.nested--;
    /* The reference goes again; what remains was stored by the finalizer. */
    uint8_t c = __atomic_load_n(meta, __ATOMIC_RELAXED);
    if (c == 1 && __atomic_compare_exchange_n(meta, &c, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) return false;
    wn_rc_count_down(m, object);
    return true;
}

/* Frees an ephemeron's slot, unless it is left on its key's ring: then another thread may do so from that moment on. */
static void free_ephemeron(mutator *m, void *object) {
    uint8_t *meta = wn_meta_(object);
    __atomic_store_n(meta, 0, __ATOMIC_RELAXED);
    __atomic_store_n(meta + 1, 0, __ATOMIC_RELAXED);
    if (wn_weak_leave_ring(m->heap, object)) wn_rc_free_slot(m, object);
    free_left(m);
}

/* All its references have been dropped. Its release hook comes only now: a trace function may read what that frees. */
static void finish(mutator *m, void *object, const wn_type *t) {
    if (t->release) wn_run_release(m->heap, t, object);
    wn_rc_note_end(m, __atomic_load_n(&wn_meta_(object)[1], __ATOMIC_RELAXED));
    if (WN_UNLIKELY(t->flags & WN_TYPE_EPHEMERON))
        free_ephemeron(m, object);
    else
        wn_rc_free_slot(m, object);
}

static bool is_long(const void *object, const wn_type *t) {
    return t->item_refs && wn_length_of(object, t) > WN_RC_LONG;
}

/* Puts a long array on its stack, to be taken apart piece by piece. False: no memory for that; it is done at once. */
static bool defer_long(wn_rc_mutator *r, wn_rc_long_dead d) {
    if (r->long_dead_n == r->long_dead_room) {
        size_t room = r->long_dead_room ? r->long_dead_room * 2 : 8;
        wn_rc_long_dead *bigger = realloc(r->long_dead, room * sizeof *bigger);
        if (!bigger) return false;
        r->long_dead = bigger;
        r->long_dead_room = room;
    }
    r->long_dead[r->long_dead_n++] = d;
    return true;
}

/* Drops some items of the latest long array; what dies of it comes first. Returns how many. */
static size_t drop_some_items(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_rc_long_dead *d = &r->long_dead[r->long_dead_n - 1];
    void *object = d->object;
    const wn_type *t = wn_type_of(object);
    size_t n = wn_length_of(object, t), from = d->item, to = n - from > WN_RC_LONG ? from + WN_RC_LONG : n;
    d->item = to;
    if (to == n) r->long_dead_n--;
    wn_each_item_ref(object, t, from, to, drop_reference, m);
    if (to == n) finish(m, object, t);
    return to - from;
}

static void take_apart(mutator *m, void *object) {
    const wn_type *t = wn_type_of(object);
    uint8_t state = __atomic_load_n(&wn_meta_(object)[1], __ATOMIC_ACQUIRE); /* see wn_weak_remove_if_empty */
    if (WN_UNLIKELY((state & WN_STATE_WEAK_) || (t->flags & (WN_TYPE_WEAKREF | WN_TYPE_EPHEMERON))))
        drop_weak(m, object, t);
    if (WN_UNLIKELY(t->finalize != NULL)) {
        if (finalized_back_to_life(m, object, t)) return;
        drop_weak(m, object, t); /* made by the finalizer, or by another thread that it showed the object */
    }
    if (WN_UNLIKELY(is_long(object, t)) && defer_long(wn_rc_of_mutator(m), (wn_rc_long_dead){object, 0})) {
        wn_each_fixed_ref(object, t, drop_reference, m);
        return;
    }
    wn_each_ref(object, drop_reference, m);
    finish(m, object, t);
}

/* ---- the condemned: cyclic garbage, see wn_rc_condemned ---------------------------------------------------------- */

static void drop_outside(void **slot, void *context) {
    mutator *m = context;
    void *o = *slot;
    if (o && !(__atomic_load_n(&wn_meta_(o)[1], __ATOMIC_RELAXED) & WN_STATE_SCRATCH_)) wn_count_down_(&m->fast, o);
}

static size_t work_off_condemned(mutator *m, size_t budget) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_rc_condemned *c = &r->condemned;
    size_t done = 0, n = c->objects.n;
    for (; c->dropped < n && done < budget; c->dropped++, done++) {
        if (c->dropped + 8 < n) WN_PREFETCH(c->objects.at[c->dropped + 8]);
        void *o = c->objects.at[c->dropped];
        const wn_type *t = wn_type_of(o);
        if (is_long(o, t)) {
            size_t length = wn_length_of(o, t), to = length - c->item > WN_RC_LONG ? c->item + WN_RC_LONG : length;
            wn_each_item_ref(o, t, c->item, to, drop_outside, m);
            done += to - c->item;
            c->item = to;
            if (to < length) {
                c->dropped--; /* come back to it */
                continue;
            }
            c->item = 0;
            wn_each_fixed_ref(o, t, drop_outside, m);
            if (t->release) wn_run_release(m->heap, t, o); /* see finish */
            continue;
        }
        if (t->flags & WN_TYPE_WEAKREF) wn_weak_ref_died(m->heap, o);
        if (t->flags & WN_TYPE_EPHEMERON) {
            void *value = wn_weak_take_value(m->heap, o);
            drop_outside(&value, m);
            c->ephemerons = true;
        }
        wn_each_ref(o, drop_outside, m);
        if (t->release) wn_run_release(m->heap, t, o);
    }
    for (; c->dropped == n && c->freed < n && done < budget; c->freed++, done++) {
        void *o = c->objects.at[c->freed];
        if (*wn_meta_(o) == WN_COUNT_BIG_) wn_rc_overflow_forget(m->heap, o);
        if (WN_UNLIKELY(c->ephemerons && wn_type_of(o)->flags & WN_TYPE_EPHEMERON))
            free_ephemeron(m, o);
        else
            wn_rc_free_slot(m, o);
    }
    if (c->freed == n) { /* eight bytes for each are not kept for the next batch, which brings its own list */
        wn_vector_free(&c->objects);
        c->dropped = c->freed = 0;
        c->ephemerons = false;
    }
    return done;
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

bool wn_rc_has_work(const mutator *m) {
    const wn_rc_mutator *r = wn_rc_of_mutator(m);
    return r->dead.n || r->long_dead_n || r->condemned.objects.n;
}

void wn_rc_take_over(wn_rc_mutator *mine, wn_rc_mutator *r) {
    while (r->dead.n && wn_vector_push(&mine->dead, r->dead.at[r->dead.n - 1])) r->dead.n--;
    while (r->long_dead_n && defer_long(mine, r->long_dead[r->long_dead_n - 1])) r->long_dead_n--;
    if (mine->condemned.objects.n) return;
    wn_rc_condemned empty = mine->condemned;
    mine->condemned = r->condemned;
    r->condemned = empty;
}

void wn_rc_adopt(mutator *m) {
    wn_rc_mutator *mine = wn_rc_of_mutator(m);
    for (mutator **at = &wn_rc_of(m->heap)->orphans, *each; (each = *at);) {
        wn_rc_mutator *r = wn_rc_of_mutator(each);
        wn_rc_take_over(mine, r);
        wn_vector *values = &r->values, *callbacks = &each->callbacks;
        while (values->n && wn_vector_push(&mine->values, values->at[values->n - 1])) values->n--;
        for (size_t i = 0; i < callbacks->n; i++) /* none are run meanwhile */
            if (callbacks->at[i] && wn_vector_push(&m->callbacks, callbacks->at[i])) callbacks->at[i] = NULL;
        if (each->late_callbacks) {
            *(m->late_callbacks ? &m->latest_callback->next : &m->late_callbacks) = each->late_callbacks;
            m->latest_callback = each->latest_callback;
            each->late_callbacks = NULL;
        }
        if (wn_rc_has_work(each))
            at = &r->next_orphan; /* a batch that did not fit */
        else
            *at = r->next_orphan;
    }
    if (wn_rc_has_work(m) || wn_callbacks_are_due(m)) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

static size_t slice_of(const mutator *m) {
    unsigned slice = m->heap->options.reclaim_slice;
    return slice == WN_ALL ? (size_t)-1 : slice;
}

void wn_rc_reclaim_slice(mutator *m) { wn_rc_reclaim(m, slice_of(m)); }

void wn_rc_reclaim(mutator *m, size_t budget) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    if (r->reclaiming) return;
    r->reclaiming = true;
    size_t done = 0;
    uint64_t start = 0;
    while (done < budget && wn_rc_has_work(m)) {
        if (done >= 64 && !start) start = wn_os_now(); /* short runs are not worth a look at the clock */
        if (!r->dead.n && r->long_dead_n) {
            done += drop_some_items(m);
            continue;
        }
        if (!r->dead.n) {
            size_t some = budget - done < 256 ? budget - done : 256;
            done += work_off_condemned(m, some);
            continue;
        }
        void *o = r->dead.at[--r->dead.n];
        if (r->dead.n) WN_PREFETCH(r->dead.at[r->dead.n - 1]);
        take_apart(m, o);
        done++;
    }
    r->reclaiming = false;
    if (start) {
        uint64_t ns = wn_os_now() - start;
        wn_note_pause(m->heap, ns);
        pthread_mutex_lock(&m->heap->stats_lock);
        m->heap->stats.slices++;
        pthread_mutex_unlock(&m->heap->stats_lock);
        wn_event e = {.kind = WN_EVENT_FREE_SLICE, .result = {.collected = done, .duration_ns = ns}};
        wn_tell(m, &e);
    }
    if (wn_rc_has_work(m))
        __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
    else if (wn_callbacks_are_due(m) && !m->fast.nested)
        wn_run_callbacks(m);
}

void wn_rc_object_died(mutator *m, void *object) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    if (!r->reclaiming && !wn_rc_has_work(m)) { /* most deaths: nothing waits, and nothing else dies of it */
        r->reclaiming = true;
        take_apart(m, object);
        r->reclaiming = false;
        if (wn_rc_has_work(m) || m->callbacks.n) wn_rc_reclaim(m, slice_of(m));
        return;
    }
    if (WN_UNLIKELY(!wn_vector_push(&r->dead, object))) {
        /* No memory even for the list: this one is kept for ever rather than lost in a half-done state. */
        __atomic_store_n(wn_meta_(object), WN_COUNT_IMMORTAL_, __ATOMIC_RELAXED);
        return;
    }
    if (!r->reclaiming) wn_rc_reclaim(m, slice_of(m));
}

/* ---- making objects ---------------------------------------------------------------------------------------------- */

/* A new object's side-table bytes and its place in the log. */
static void *born(mutator *m, void *p, const wn_type *type) {
    uint8_t *meta = wn_meta_(p);
    ((wn_object *)p)->type = type;
    meta[0] = 1;
    if (wn_has_refs_(type) || (type->flags & WN_TYPE_EPHEMERON)) {
        meta[1] = WN_STATE_TRACKED_;
        wn_rc_log_young(m, p);
    } else {
        meta[1] = 0;
    }
    return p;
}

static void *try_allocate(mutator *m, size_t bytes, size_t slot, unsigned cls) {
    wn_space *space = &m->heap->space;
    if (bytes > WN_SMALL_MAX_) return wn_space_large(space, bytes);
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_buffer_ *b = &m->buffers[cls];
    if (r->cached[cls]) {
        /* Two at once: one for now, one for the fast path. */
        void *p = r->cache[cls][--r->cached[cls]];
        WN_ALLOW(p, slot);
        memset(p, 0, slot);
        count_reuse(m, 1, slot);
        if (r->cached[cls] && b->cursor == b->limit) reuse_as_buffer(m, cls, r->cache[cls][--r->cached[cls]], slot);
        return p;
    }
    if (b->cursor == b->limit && !wn_space_refill(space, &m->block[0][cls], cls, 0, b)) return NULL;
    void *p = b->cursor;
    b->cursor += slot;
    return p;
}

void *wn_rc_allocate(mutator *m, const wn_type *type, size_t bytes) {
    size_t slot = wn_slot_size_(bytes);
    unsigned cls = bytes > WN_SMALL_MAX_ ? 0 : wn_class_of_slot_(slot);
    /* Dead objects pay for new ones before fresh memory does. */
    if (wn_rc_has_work(m) && !m->fast.nested) wn_rc_reclaim(m, 256);
    void *p = try_allocate(m, bytes, slot, cls);
    if (WN_UNLIKELY(!p)) {
        wn_rc_reclaim(m, (size_t)-1);
        p = try_allocate(m, bytes, slot, cls);
        if (!p && wn_may_collect(m)) {
            wn_rc_collect(m, 2, NULL);
            wn_rc_flush(m);
            p = try_allocate(m, bytes, slot, cls);
        }
        if (!p) return wn_out_of_memory(m->heap, bytes);
    }
    return born(m, p, type);
}
