/*
 * incremental.c - the incremental collector's struct of operations: heaps and threads that come and go, fork, questions
 * about single objects.
 *
 * Invariant: a young object's pins and its identity are in tables under `lock`. A pinned one stays where it is; one
 * with an identity moves to the address that this is, or stays.
 */
#include "incremental.h"

#include <stdlib.h>

static const uint64_t target_default_ns = 400000;

/* ---- single objects ---------------------------------------------------------------------------------------------- */

static wn_status pin(mutator *m, void *object) {
    incremental *inc = inc_of(m->heap);
    wn_status status = WN_OK;
    pthread_mutex_lock(&inc->lock);
    bool young = is_young(inc, object);
    map_entry *e = wn_inc_map_find(&inc->pins, object);
    if (!e && young && inc->pinned_young >= m->heap->options.pin_limit)
        status =
            wn_fail(WN_ERR_MEMORY, "%zu young objects are pinned, which is pin_limit: unpin some, or raise the limit",
                    inc->pinned_young);
    else if (!e && !(e = wn_inc_map_enter(&inc->pins, object)))
        status = wn_fail(WN_ERR_MEMORY, "no memory for the table of pins");
    if (!status && e->value++ == 0 && young) inc->pinned_young++;
    pthread_mutex_unlock(&inc->lock);
    return status;
}

static void unpin(mutator *m, void *object) {
    incremental *inc = inc_of(m->heap);
    pthread_mutex_lock(&inc->lock);
    map_entry *e = wn_inc_map_find(&inc->pins, object);
    if (!e) {
        pthread_mutex_unlock(&inc->lock);
        wn_misuse_if(m->heap->options.check, "unpin",
                     "wn_unpin: the object at %p is not pinned: each wn_unpin ends one wn_pin", object);
        return;
    }
    if (--e->value == 0) {
        wn_inc_map_remove(&inc->pins, e);
        if (is_young(inc, object)) inc->pinned_young--;
    }
    pthread_mutex_unlock(&inc->lock);
}

/* Under the lock: the identity of a young object that has one, else 0. */
static uintptr_t known_identity(incremental *inc, void *young) {
    map_entry *e = wn_inc_map_find(&inc->shadows, young);
    if (e) return e->value;
    return __atomic_load_n(&wn_meta_(young)[1], __ATOMIC_RELAXED) & STATE_SHADOWED ? (uintptr_t)young : 0;
}

/* An old object's address; a young one's future address, which is reserved for it. Without memory for that it is the
 * address it has, where it stays from then on. */
static uintptr_t identity(mutator *m, void *object) {
    incremental *inc = inc_of(m->heap);
    if (!is_young(inc, object)) return (uintptr_t)object;
    pthread_mutex_lock(&inc->lock);
    uintptr_t id = known_identity(inc, object);
    pthread_mutex_unlock(&inc->lock);
    if (id) return id;
    void *place = wn_inc_old_reserve(inc, wn_bytes_of(object));
    pthread_mutex_lock(&inc->lock);
    id = known_identity(inc, object);
    if (!id) {
        map_entry *e = place ? wn_inc_map_enter(&inc->shadows, object) : NULL;
        if (e) {
            e->value = (uintptr_t)place;
            place = NULL;
        } else {
            inc->settled++;
        }
        set_state(object, STATE_SHADOWED);
        id = known_identity(inc, object);
    }
    pthread_mutex_unlock(&inc->lock);
    if (place) wn_inc_old_unreserve(inc, place);
    return id;
}

static void make_immortal(mutator *m, void *object) {
    wn_heap *heap = m->heap;
    pthread_mutex_lock(&heap->roots_lock);
    if (!wn_vector_push(&heap->immortals, object)) wn_fail(WN_ERR_MEMORY, "no memory to make an object immortal");
    pthread_mutex_unlock(&heap->roots_lock);
}

static void *weak_get(mutator *m, void *target) { return is_found_dead(inc_of(m->heap), target) ? NULL : target; }

static int generation(const wn_heap *heap, const void *object) {
    if (is_young(inc_of(heap), object)) return 0;
    return is_frozen(object) ? 3 : 2;
}
static bool is_tracked(const wn_heap *heap, const void *object) { return (void)heap, wn_has_refs_(wn_type_of(object)); }
static bool is_live(const wn_heap *heap, const void *object) {
    const incremental *inc = heap->state; /* NULL while the heap is released */
    return wn_type_of(object) != &wn_inc_shadow_type && !(inc && is_found_dead(inc, object));
}
static void *object_at(wn_heap *heap, const void *address, bool exact) {
    incremental *inc = inc_of(heap);
    if (is_young(inc, address)) return wn_inc_nursery_object_at(inc, address, exact);
    return wn_space_object_at_locked(heap, address, exact);
}
static bool each_young(wn_heap *heap, bool (*visit)(void *object, void *data), void *data) {
    return wn_inc_nursery_each(inc_of(heap), visit, data);
}

static wn_status freeze(mutator *m) {
    wn_inc_freeze_all(inc_of(m->heap), m);
    return WN_OK;
}
static wn_status unfreeze(mutator *m) {
    wn_inc_freeze_undo(inc_of(m->heap), m);
    return WN_OK;
}
static size_t frozen(const wn_heap *heap) { return __atomic_load_n(&inc_of(heap)->frozen, __ATOMIC_RELAXED); }

static void flush(mutator *m) { wn_inc_old_retire(inc_of(m->heap), false); }
static void trim(mutator *m) { wn_inc_old_retire(inc_of(m->heap), true); }

static void stats(wn_heap *heap, wn_stats *s) {
    incremental *inc = inc_of(heap);
    const wn_space *space = &heap->space;
    pthread_mutex_lock(&inc->counts_lock);
    pthread_mutex_lock(&inc->lock);
    /* Moving takes slots as allocation does, but makes no object. All are read between two minors. */
    s->allocated_objects = __atomic_load_n(&space->allocated_objects, __ATOMIC_RELAXED) +
                           (uint64_t)inc->nursery_objects - inc->moved_objects_total;
    s->allocated_bytes = __atomic_load_n(&space->allocated_bytes, __ATOMIC_RELAXED) + (uint64_t)inc->nursery_bytes -
                         inc->moved_bytes_total;
    /* The nursery has an entry of its own; here only what is used of it counts. */
    s->heap_bytes -= inc->nursery_size - inc->handed;
    s->heap_bytes_max -= inc->nursery_size - inc->window;
    if (s->heap_bytes_max < s->heap_bytes)
        s->heap_bytes_max = s->heap_bytes; /* more than the window may be handed out */
    s->nursery_bytes = inc->nursery_size;
    s->nursery_used = inc->handed;
    s->frozen = frozen(heap);
    s->live_bytes += inc->handed;
    if (s->live_bytes_max < inc->live_max) s->live_bytes_max = inc->live_max;
    if (s->live_bytes_max < s->live_bytes) s->live_bytes_max = s->live_bytes;
    pthread_mutex_unlock(&inc->lock);
    pthread_mutex_unlock(&inc->counts_lock);
}

/* ---- a heap's and a thread's beginning and end ------------------------------------------------------------------- */

/* Of the first minor nobody knows what moving costs, and memory that was never touched makes it cost the most: while a
 * program builds what it is about, all of the window survives. */
enum { WINDOW_AT_FIRST = 128 << 10 };

/* One range of one chunk: the option's range sees to that. */
static size_t nursery_size(const wn_heap *heap) {
    size_t n = heap->options.nursery;
    if (!n) {
        n = wn_os_cache_size() / 2;
        if (n < 512 << 10) n = 512 << 10;
        if (n > 4 << 20) n = 4 << 20;
    }
    if (heap->options.heap_limit && n > heap->options.heap_limit / 8) n = heap->options.heap_limit / 8;
    if (n < 2 * PIECE) n = 2 * PIECE;
    return n & ~(size_t)(WN_BLOCK_SIZE - 1);
}

static wn_status init(wn_heap *heap) {
    incremental *inc = calloc(1, sizeof *inc);
    if (!inc) return wn_fail(WN_ERR_MEMORY, "no memory for the incremental collector's state");
    inc->heap = heap;
    heap->state = inc;
    pthread_mutex_init(&inc->lock, NULL);
    pthread_mutex_init(&inc->counts_lock, NULL);
    wn_mark_pool_make(&inc->pool);
    wn_mark_make(&inc->marker, &inc->pool);
    inc->epoch = 2;
    if (!wn_inc_nursery_init(inc, nursery_size(heap))) {
        wn_inc_nursery_fini(inc);
        wn_mark_pool_drop(&inc->pool);
        pthread_mutex_destroy(&inc->lock);
        pthread_mutex_destroy(&inc->counts_lock);
        free(inc);
        heap->state = NULL;
        return wn_fail(
            WN_ERR_MEMORY,
            "no memory for a nursery of %zu bytes: make `nursery` smaller, or raise what limits it: heap_limit or the "
            "container (%zu bytes; 0: none), or addresses (ulimit -v)",
            nursery_size(heap), heap->options.heap_limit);
    }
    wn_options *o = &heap->options;
    inc->target_ns = o->pause_budget_ns ? o->pause_budget_ns / 2 : target_default_ns;
    inc->remembered_max = inc->target_ns / REMEMBERED_NS;
    if (inc->remembered_max < 64) inc->remembered_max = 64;
    inc->ns_per_byte = NS_PER_BYTE;
    inc->window = inc->nursery_size < WINDOW_AT_FIRST ? inc->nursery_size : WINDOW_AT_FIRST;
    if (!o->nursery) o->nursery = inc->nursery_size;
    if (!o->min_heap) o->min_heap = 8 * inc->nursery_size;
    if (!o->max_delta) o->max_delta = wn_os_physical_memory() / 8;
    if (!o->step_bytes) o->step_bytes = 12 * inc->nursery_size;
    inc->ratio = (double)o->step_bytes / (double)inc->nursery_size;
    size_t bearable = wn_inc_major_bearable(inc, 0);
    inc->threshold = o->min_heap < bearable ? o->min_heap : bearable;
    return WN_OK;
}

static void fini(wn_heap *heap) {
    incremental *inc = inc_of(heap);
    /* What death was decided for is dead: its release hooks run with all others. */
    wn_inc_old_retire(inc, true);
    inc->phase = IDLE;
    wn_inc_nursery_fini(inc);
    wn_mark_drop(&inc->marker);
    wn_mark_pool_drop(&inc->pool);
    wn_inc_stack_free(&inc->slices);
    wn_inc_stack_free(&inc->search);
    wn_inc_stack_free(&inc->finalizable);
    wn_inc_stack_free(&inc->due);
    wn_inc_stack_free(&inc->written);
    wn_vector_free(&inc->kept);
    wn_vector_free(&inc->weak_moves);
    wn_vector_free(&inc->orphaned);
    pthread_mutex_destroy(&inc->lock);
    pthread_mutex_destroy(&inc->counts_lock);
    free(inc);
    heap->state = NULL;
}

/* Callbacks that were due for threads which a forked child does not have. */
static void adopt_callbacks(incremental *inc, mutator *m) {
    wn_vector *due = &inc->orphaned;
    for (size_t i = 0; i < due->n; i++) wn_vector_push(&m->callbacks, due->at[i]); /* else it does not run */
    wn_vector_free(due);
    if (!wn_callbacks_are_due(m)) return;
    __atomic_store_n(&own_of(m)->calls, true, __ATOMIC_RELAXED);
    __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

static wn_status attach(mutator *m) {
    m->state_of_collector = calloc(1, sizeof(own));
    if (!m->state_of_collector) return wn_fail(WN_ERR_MEMORY, "no memory for a thread's remembered set");
    incremental *inc = inc_of(m->heap);
    m->fast.nursery = (uintptr_t)inc->nursery;
    m->fast.nursery_size = inc->nursery_size;
    m->fast.mode = wn_inc_barrier_mode(inc);
    for (unsigned c = 0; c < WN_CLASSES_; c++)
        m->fast.from[c] = &m->fast.buffer[wn_inc_tenure_is_born_old(inc, c) ? c : 0];
    adopt_callbacks(inc, m);
    return WN_OK;
}

static void detach(mutator *m) {
    incremental *inc = inc_of(m->heap);
    wn_vector *r = remembered_of(m);
    if (!wn_vector_reserve(&inc->kept, inc->kept.n + r->n))
        inc->remembered_lost = true;
    else
        for (size_t i = 0; i < r->n; i++) wn_vector_push(&inc->kept, r->at[i]);
    wn_vector_free(r);
    /* The thread has ended in the middle of a finalizer. */
    if (inc->finalizer == m) __atomic_store_n(&inc->finalizer, NULL, __ATOMIC_RELEASE);
    free(own_of(m));
    m->state_of_collector = NULL;
}

static void before_fork(wn_heap *heap) {
    incremental *inc = inc_of(heap);
    wn_inc_old_retire(inc, true); /* nobody could for the threads that the child does not have */
    pthread_mutex_lock(&inc->counts_lock);
    pthread_mutex_lock(&inc->lock);
    inc->alone_at_fork = true;
    for (const mutator *m = heap->mutators; m; m = m->next)
        if (!pthread_equal(m->thread, pthread_self())) inc->alone_at_fork = false;
}

static void orphaned(mutator *m) {
    for (size_t i = m->callback_at; i < m->callbacks.n; i++)
        if (m->callbacks.at[i]) wn_vector_push(&inc_of(m->heap)->orphaned, m->callbacks.at[i]);
}

static void after_fork(wn_heap *heap, bool child) {
    incremental *inc = inc_of(heap);
    /* Remembered sets of threads that are gone with the fork cannot be trusted. */
    if (child && !inc->alone_at_fork) inc->remembered_lost = true;
    /* Nor will such a thread end what it was finalizing. */
    if (child && inc->finalizer != wn_mutator_of(wn_current(heap))) inc->finalizer = NULL;
    if (child && heap->mutators) adopt_callbacks(inc, heap->mutators); /* else whoever attaches first does */
    pthread_mutex_unlock(&inc->lock);
    pthread_mutex_unlock(&inc->counts_lock);
}

const wn_collector wn_collector_incremental = {
    .id = WN_COLLECTOR_INCREMENTAL,
    .name = "incremental",
    .init = init,
    .fini = fini,
    .attach = attach,
    .detach = detach,
    .allocate = wn_inc_allocate,
    .store = wn_inc_barrier_store,
    .poll = wn_inc_collect_poll,
    .collect = wn_inc_collect,
    .step = wn_inc_collect_step,
    .freeze = freeze,
    .unfreeze = unfreeze,
    .frozen = frozen,
    .make_immortal = make_immortal,
    .pin = pin,
    .unpin = unpin,
    .identity = identity,
    .weak_get = weak_get,
    .generation = generation,
    .is_tracked = is_tracked,
    .object_at = object_at,
    .each_young = each_young,
    .flush = flush,
    .is_live = is_live,
    .stats = stats,
    .before_fork = before_fork,
    .orphaned = orphaned,
    .after_fork = after_fork,
    .trim = trim,
};
