/* refcount.c - the counting collector's struct of operations: coming and going, freezing, and what is asked of it. */
#include "collectors/refcount/refcount.h"

#include <stdlib.h>

static wn_status init(wn_heap *heap) {
    wn_rc_heap *rc = calloc(1, sizeof *rc);
    if (!rc || !wn_rc_overflow_init(&rc->overflow) || !wn_cycles_make(&rc->cycles)) {
        if (rc) wn_rc_overflow_fini(&rc->overflow);
        free(rc);
        return wn_fail(WN_ERR_MEMORY, "no memory for the reference counting collector");
    }
    heap->state = rc;
    heap->space.holds = wn_rc_full_needs;
    return WN_OK;
}

static void fini(wn_heap *heap) {
    wn_rc_heap *rc = wn_rc_of(heap);
    wn_rc_overflow_fini(&rc->overflow);
    wn_cycles_drop(&rc->cycles);
    wn_vector_free(&rc->middle);
    wn_vector_free(&rc->candidates);
    wn_vector_free(&rc->reached);
    wn_vector_free(&rc->anew);
    free(rc);
}

/* Counts are plain while one thread is attached; the second one makes all count atomically. The world is stopped, so
 * nobody is in the middle of a count. */
static void set_mode(wn_heap *heap, mutator *coming, unsigned threads) {
    uint32_t mode = heap->options.check ? WN_MODE_CHECK_ | WN_MODE_ATOMIC_
                    : threads > 1       ? WN_MODE_ATOMIC_
                                        : WN_MODE_COUNT_;
    for (mutator *m = heap->mutators; m; m = m->next) m->fast.mode = mode;
    if (coming) coming->fast.mode = mode;
}

static wn_status attach(mutator *m) {
    if (m->heap->options.single_thread && m->heap->mutator_count)
        return wn_fail(WN_ERR_STATE,
                       "the heap was made with single_thread=on and another thread is attached: detach it, or make the "
                       "heap without that option");
    m->state_of_collector = calloc(1, sizeof(wn_rc_mutator));
    if (!m->state_of_collector || !wn_rc_young_init(m)) {
        free(m->state_of_collector);
        return wn_fail(WN_ERR_MEMORY, "no memory for a mutator's log");
    }
    set_mode(m->heap, m, m->heap->mutator_count + 1);
    wn_rc_adopt(m);
    return WN_OK;
}

/* What a mutator that goes has counted itself. */
static void add_allocated(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    __atomic_fetch_add(&m->heap->space.allocated_objects, m->fast.pending_objects, __ATOMIC_RELAXED);
    __atomic_fetch_add(&m->heap->space.allocated_bytes, r->reused_bytes, __ATOMIC_RELAXED);
    m->fast.pending_objects = 0;
    r->reused_bytes = 0;
}

static void detach(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    add_allocated(m);
    wn_rc_young_fini(m);
    wn_vector_free(&r->dead);
    free(r->long_dead);
    wn_vector_free(&r->values);
    wn_vector_free(&r->quarantine);
    wn_vector_free(&r->condemned.objects);
    free(r);
    /* m is still on the heap's list, and still counted. */
    set_mode(m->heap, NULL, m->heap->mutator_count - 1);
}

static void poll(mutator *m) {
    if (wn_rc_has_work(m)) wn_rc_reclaim_slice(m);
    wn_run_callbacks(m);
    wn_rc_collect_external(m);
}

/* ---- freezing ---------------------------------------------------------------------------------------------------- */

/* What waits to be taken apart counts as frozen until then, and must not any more when nothing is frozen. */
static size_t change_generation(wn_heap *heap, bool freeze) {
    size_t n = 0;
    WN_EACH_BLOCK(&heap->space, c, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            uint8_t *meta = wn_meta_(o);
            bool tracked = meta[1] & WN_STATE_TRACKED_, frozen = (meta[1] & WN_STATE_GENERATION_) == 3;
            if ((freeze && !meta[0]) || !(meta[1] & (WN_STATE_TRACKED_ | WN_STATE_GENERATION_))) continue;
            if ((meta[1] & WN_STATE_SCRATCH_) || freeze == frozen) continue;
            meta[1] = (uint8_t)((meta[1] & ~WN_STATE_GENERATION_) | (freeze ? 3 : 2));
            n += tracked;
        }
    }
    return n;
}

static wn_status freeze(mutator *m) {
    wn_rc_heap *rc = wn_rc_of(m->heap);
    size_t n = change_generation(m->heap, true);
    __atomic_fetch_add(&rc->frozen, n, __ATOMIC_RELAXED);
    rc->middle.n = rc->middle_compacted = 0;
    wn_rc_set_counts(rc, 0, 0);
    rc->long_lived_total = rc->long_lived_pending = 0;
    rc->young_lost = false;
    for (mutator *each = m->heap->mutators; each; each = each->next) wn_rc_young_reset(each);
    return WN_OK;
}

static wn_status unfreeze(mutator *m) {
    wn_rc_heap *rc = wn_rc_of(m->heap);
    size_t n = change_generation(m->heap, false);
    __atomic_store_n(&rc->frozen, 0, __ATOMIC_RELAXED);
    rc->long_lived_total += n;
    rc->track_anew = true; /* what was frozen has been passed over */
    return WN_OK;
}

static size_t frozen(const wn_heap *heap) { return __atomic_load_n(&wn_rc_of(heap)->frozen, __ATOMIC_RELAXED); }

/* ---- fork -------------------------------------------------------------------------------------------------------- */

static void before_fork(wn_heap *heap) {
    wn_rc_heap *rc = wn_rc_of(heap);
    pthread_mutex_lock(&rc->overflow.lock);
    for (mutator *m = heap->mutators; m; m = m->next) wn_rc_sum_tracked(m);
}

/* Its objects are left to a walk of the heap, its work to a thread that the child has. */
static void orphaned(mutator *m) {
    wn_rc_heap *rc = wn_rc_of(m->heap);
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    if (m->fast.young != r->log) rc->young_lost = true;
    r->next_orphan = rc->orphans;
    rc->orphans = m;
}

static void after_fork(wn_heap *heap, bool child) {
    pthread_mutex_unlock(&wn_rc_of(heap)->overflow.lock);
    if (!child) return;
    /* What they were handed and have not made objects of is free, and their blocks go back when they are empty. */
    for (mutator *m = wn_rc_of(heap)->orphans; m; m = wn_rc_of_mutator(m)->next_orphan) {
        wn_drop_blocks(m);
        add_allocated(m);
    }
    if (heap->mutators) wn_rc_adopt(heap->mutators); /* else whoever attaches first */
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static wn_status pin(mutator *m, void *object) { return (void)m, (void)object, WN_OK; }
static void unpin(mutator *m, void *object) { (void)m, (void)object; }
static uintptr_t identity(mutator *m, void *object) { return (void)m, (uintptr_t)object; }

static bool is_tracked(const wn_heap *heap, const void *object) {
    (void)heap;
    return __atomic_load_n(&wn_meta_(object)[1], __ATOMIC_RELAXED) & WN_STATE_TRACKED_;
}
static int generation(const wn_heap *heap, const void *object) {
    return is_tracked(heap, object) ? __atomic_load_n(&wn_meta_(object)[1], __ATOMIC_RELAXED) & WN_STATE_GENERATION_
                                    : -1;
}
/* One that has a callback is tracked from its birth, so nothing can have been untracked for referring to it. As the key
 * of an ephemeron it is known to be weakly referred to. */
static bool is_new_weakref(const void *object) {
    return (wn_type_of(object)->flags & WN_TYPE_WEAKREF) && ((const wn_weakref *)object)->callback &&
           !(__atomic_load_n(&wn_meta_(object)[1], __ATOMIC_RELAXED) & WN_STATE_WEAK_);
}
static void track(mutator *m, void *object, bool on) {
    uint8_t *state = &wn_meta_(object)[1];
    if (on == is_tracked(m->heap, object)) return;
    if (on) {
        __atomic_fetch_and(state, (uint8_t)~WN_STATE_GENERATION_, __ATOMIC_RELAXED);
        __atomic_fetch_or(state, WN_STATE_TRACKED_, __ATOMIC_RELAXED);
        if (!is_new_weakref(object)) __atomic_store_n(&wn_rc_of(m->heap)->track_anew, true, __ATOMIC_RELAXED);
        wn_rc_log_young(m, object);
        return;
    }
    if (generation(m->heap, object) == 3) __atomic_fetch_sub(&wn_rc_of(m->heap)->frozen, 1, __ATOMIC_RELAXED);
    __atomic_fetch_and(state, (uint8_t) ~(WN_STATE_TRACKED_ | WN_STATE_GENERATION_), __ATOMIC_RELAXED);
    __atomic_fetch_sub(&wn_rc_of(m->heap)->tracked, 1, __ATOMIC_RELAXED);
}
static bool is_live(const wn_heap *heap, const void *object) {
    (void)heap;
    return __atomic_load_n(wn_meta_(object), __ATOMIC_RELAXED) &&
           !(__atomic_load_n(&wn_meta_(object)[1], __ATOMIC_RELAXED) & WN_STATE_SCRATCH_);
}

/* Of other threads' logs only what they have published: they write on in them meanwhile. */
static void get_count(wn_heap *heap, unsigned count[3]) {
    const wn_mutator *mine = wn_current(heap);
    pthread_mutex_lock(&heap->world);
    for (const mutator *m = heap->mutators; m; m = m->next)
        count[0] += (unsigned)(&m->fast == mine ? wn_rc_young_count(m)
                                                : __atomic_load_n(&wn_rc_of_mutator(m)->net, __ATOMIC_RELAXED));
    pthread_mutex_unlock(&heap->world);
    count[1] = __atomic_load_n(&wn_rc_of(heap)->count1, __ATOMIC_RELAXED);
    count[2] = __atomic_load_n(&wn_rc_of(heap)->count2, __ATOMIC_RELAXED);
}

static void stats(wn_heap *heap, wn_stats *s) {
    const wn_mutator *mine = wn_current(heap);
    pthread_mutex_lock(&heap->world);
    s->tracked = __atomic_load_n(&wn_rc_of(heap)->tracked, __ATOMIC_RELAXED);
    for (const mutator *m = heap->mutators; m; m = m->next) {
        if (&m->fast == mine) s->tracked += wn_rc_tracked_since(m);
        s->allocated_objects += __atomic_load_n(&m->fast.pending_objects, __ATOMIC_RELAXED);
        s->allocated_bytes += __atomic_load_n(&wn_rc_of_mutator(m)->reused_bytes, __ATOMIC_RELAXED);
    }
    if ((int64_t)s->tracked < 0) s->tracked = 0; /* freed here what another thread has made and not yet published */
    pthread_mutex_unlock(&heap->world);
    s->frozen = frozen(heap);
}

const wn_collector wn_collector_refcount = {
    .id = WN_COLLECTOR_REFCOUNT,
    .name = "refcount",
    .init = init,
    .fini = fini,
    .attach = attach,
    .detach = detach,
    .allocate = wn_rc_allocate,
    .store = wn_rc_store,
    .copy = wn_rc_copy,
    .count_up = wn_rc_count_up,
    .count_down = wn_rc_count_down,
    .refcount = wn_rc_refcount,
    .young_full = wn_rc_young_full,
    .poll = poll,
    .collect = wn_rc_collect,
    .freeze = freeze,
    .unfreeze = unfreeze,
    .frozen = frozen,
    .make_immortal = wn_rc_make_immortal,
    .pin = pin,
    .unpin = unpin,
    .identity = identity,
    .weak_get = wn_rc_weak_get,
    .generation = generation,
    .is_tracked = is_tracked,
    .get_count = get_count,
    .thresholds_changed = wn_rc_thresholds_changed,
    .track = track,
    .external = wn_rc_external,
    .flush = wn_rc_flush,
    .is_live = is_live,
    .stats = stats,
    .before_fork = before_fork,
    .orphaned = orphaned,
    .after_fork = after_fork,
};
