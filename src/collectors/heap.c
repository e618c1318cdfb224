/*
 * heap.c - making and releasing a heap; questions and wishes that go to it rather than to a thread. The one file that
 * knows all collectors by name.
 *
 * Invariant: a heap is on the list of those that fork() must find in order from when it is whole until it begins to go.
 */
#include "mutator/heap.h"
#include "heap/mesh.h"
#include "engines/weak.h"

#include <stdlib.h>
#include <string.h>

static const wn_collector *collector_of(wn_collector_id id) {
    switch (id) {
    case WN_COLLECTOR_REFCOUNT: return &wn_collector_refcount;
    case WN_COLLECTOR_INCREMENTAL: return &wn_collector_incremental;
    case WN_COLLECTOR_CONCURRENT: return &wn_collector_concurrent;
    default: return NULL;
    }
}

bool wn_collector_available(wn_collector_id id) { return id == WN_COLLECTOR_AUTO || collector_of(id) != NULL; }

const char *wn_phase_name(wn_phase phase) {
    static const char *const names[] = {"idle", "scanning", "marking", "sweeping", "finalizing"};
    return (unsigned)phase < 5 ? names[phase] : "unknown";
}

wn_status wn_heap_new(const wn_options *given, wn_heap **out) {
    if (!out) return wn_fail(WN_ERR_ARGUMENT, "wn_heap_new has no place for the heap: pass the address of a wn_heap *");
    *out = NULL;
    wn_options options;
    wn_status status = wn_options_resolve(given, &options);
    if (status) return status;
    if (!wn_collector_available(options.collector))
        return wn_fail(WN_ERR_UNSUPPORTED, "this build of the library has no %s collector",
                       wn_collector_name(options.collector));
    wn_heap *h = calloc(1, sizeof *h);
    if (!h) return wn_fail(WN_ERR_MEMORY, "no memory for a heap's descriptor");
    h->options = options;
    h->collector = collector_of(options.collector);
    h->made_at = wn_os_now();
    memcpy(h->threshold, options.threshold, sizeof h->threshold);
    pthread_mutex_init(&h->world, NULL);
    wn_os_cond_make(&h->world_changed);
    pthread_mutex_init(&h->roots_lock, NULL);
    pthread_mutex_init(&h->tell_lock, NULL);
    pthread_mutex_init(&h->stats_lock, NULL);
    if (!wn_space_init(&h->space, options.heap_limit) || !wn_weak_init(h)) {
        status = wn_fail(WN_ERR_MEMORY, "no memory for a heap's tables");
    } else {
        /* Frames that are not declared may hand addresses to calls that write to them in a blocking section. */
        h->space.large_pages = options.large_pages;
        h->space.meshes = options.meshing && !options.conservative_stacks;
        status = h->collector->init(h);
        if (!status && !wn_space_begin(&h->space)) {
            h->collector->fini(h);
            status = wn_fail(WN_ERR_MEMORY,
                             "the system grants too few addresses for the first chunk of a heap, of %d MiB, "
                             "and what a collection needs beside it: raise the process's limit (ulimit -v)",
                             WN_CHUNK_SIZE >> 20);
        }
    }
    if (status) {
        wn_space_fini(&h->space);
        wn_weak_fini(h);
        free(h);
        return status;
    }
    wn_heap_register(h);
    *out = h;
    return WN_OK;
}

/* Runs the release hooks of whatever is left, so that what lies outside the heap is given back. */
static void release_all(wn_heap *h) {
    WN_EACH_BLOCK(&h->space, c, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            if (h->collector->is_live && !h->collector->is_live(h, o)) continue;
            const wn_type *t = wn_type_of(o);
            if (t && t->release) wn_run_release(h, t, o);
        }
    }
}

/* The threads that the client has attached: those of the library's own see to themselves. */
static unsigned clients(const wn_heap *h) {
    unsigned n = 0;
    for (const mutator *m = h->mutators; m; m = m->next) n += !(h->collector->is_own && h->collector->is_own(m));
    return n;
}

wn_status wn_heap_free(wn_heap *h) {
    if (!h) return WN_OK;
    bool own = wn_is_telling(h) || wn_current(h); /* a thread that ends with the heap, or an attached one */
    pthread_mutex_lock(&h->world);
    unsigned left;
    /* None left: the last one is about to let the world go on. Who has stopped it may wait for a thread of its own. */
    while (!(left = clients(h)) && h->stopped && !own) pthread_cond_wait(&h->world_changed, &h->world);
    pthread_mutex_unlock(&h->world);
    if (left)
        return wn_fail(WN_ERR_STATE, "%u mutator%s still attached: wn_detach every thread before wn_heap_free", left,
                       left > 1 ? "s are" : " is");
    if (own)
        return wn_fail(WN_ERR_STATE, "wn_heap_free on a thread of the heap's own collector, by a listener, a finalizer "
                                     "or a callback: call it on a thread of the program's");
    wn_heap_unregister(h);
    h->collector->fini(h);
    release_all(h);
    wn_weak_fini(h);
    wn_space_fini(&h->space);
    wn_vector_free(&h->globals);
    wn_vector_free(&h->immortals);
    wn_vector_free(&h->garbage);
    free(h->scanners);
    free(h->listeners);
    pthread_mutex_destroy(&h->world);
    pthread_cond_destroy(&h->world_changed);
    pthread_mutex_destroy(&h->roots_lock);
    pthread_mutex_destroy(&h->tell_lock);
    pthread_mutex_destroy(&h->stats_lock);
    free(h);
    return WN_OK;
}

wn_collector_id wn_heap_collector(const wn_heap *heap) { return heap->collector->id; }
wn_options wn_heap_options(const wn_heap *heap) { return heap->options; }

void wn_disable(wn_heap *heap) { __atomic_add_fetch(&heap->disabled, 1, __ATOMIC_RELAXED); }
void wn_enable(wn_heap *heap) {
    int n = __atomic_load_n(&heap->disabled, __ATOMIC_RELAXED);
    while (n > 0 &&
           !__atomic_compare_exchange_n(&heap->disabled, &n, n - 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}
bool wn_is_enabled(const wn_heap *heap) { return __atomic_load_n(&heap->disabled, __ATOMIC_RELAXED) == 0; }

void wn_set_threshold(wn_heap *heap, unsigned t0, unsigned t1, unsigned t2) {
    unsigned t[3] = {t0, t1, t2};
    for (int i = 0; i < 3; i++) __atomic_store_n(&heap->threshold[i], t[i], __ATOMIC_RELAXED);
    if (!heap->collector->thresholds_changed) return;
    wn_mutator *current = wn_current(heap);
    mutator *me = current ? wn_mutator_of(current) : NULL;
    wn_world_stop(heap, me);
    heap->collector->thresholds_changed(heap);
    wn_world_start(heap, me);
}
void wn_get_threshold(const wn_heap *heap, unsigned threshold[3]) {
    for (int i = 0; i < 3; i++) threshold[i] = __atomic_load_n(&heap->threshold[i], __ATOMIC_RELAXED);
}
void wn_get_count(const wn_heap *heap, unsigned count[3]) {
    memset(count, 0, 3 * sizeof *count);
    if (heap->collector->get_count) heap->collector->get_count((wn_heap *)heap, count); /* it takes a lock */
}

size_t wn_frozen_count(const wn_heap *heap) { return heap->collector->frozen(heap); }

void wn_get_stats(wn_heap *heap, wn_stats *stats) {
    pthread_mutex_lock(&heap->world); /* a thread that goes hands over what it has counted */
    pthread_mutex_lock(&heap->stats_lock);
    *stats = heap->stats;
    pthread_mutex_unlock(&heap->stats_lock);
    for (const mutator *m = heap->mutators; m; m = m->next)
        stats->barrier_slow += __atomic_load_n(&m->barrier_slow, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&heap->world);
    wn_space *s = &heap->space;
    pthread_mutex_lock(&s->lock);
    stats->allocated_bytes += __atomic_load_n(&s->allocated_bytes, __ATOMIC_RELAXED);
    stats->allocated_objects += __atomic_load_n(&s->allocated_objects, __ATOMIC_RELAXED);
    stats->live_bytes = __atomic_load_n(&s->live_bytes, __ATOMIC_RELAXED);
    stats->live_bytes_max = __atomic_load_n(&s->live_bytes_max, __ATOMIC_RELAXED);
    /* A thread that has counted what it was handed has yet to raise the maximum. */
    if (stats->live_bytes_max < stats->live_bytes) stats->live_bytes_max = stats->live_bytes;
    stats->heap_bytes = __atomic_load_n(&s->block_bytes, __ATOMIC_RELAXED);
    stats->heap_bytes_max = s->block_bytes_max;
    size_t resident = wn_mesh_resident(s); /* more than heap_bytes while frames serve blocks that were written to */
    stats->meshed_bytes = stats->heap_bytes > resident ? stats->heap_bytes - resident : 0;
    stats->bookkeeping_bytes = wn_space_bookkeeping(s);
    stats->large_bytes = s->large_bytes;
    stats->returned_bytes = s->returned_bytes;
    pthread_mutex_unlock(&s->lock);
    stats->external_bytes = __atomic_load_n(&heap->external_bytes, __ATOMIC_RELAXED);
    pthread_mutex_lock(&heap->roots_lock);
    stats->immortal = heap->immortals.n;
    pthread_mutex_unlock(&heap->roots_lock);
    if (heap->collector->stats) heap->collector->stats(heap, stats);
}

void *wn_out_of_memory(wn_heap *heap, size_t bytes) {
    wn_space *s = &heap->space;
    pthread_mutex_lock(&s->lock);
    bool refused = s->system_refused;
    pthread_mutex_unlock(&s->lock);
    if (s->limit && !refused)
        wn_fail(WN_ERR_MEMORY,
                "no room for %zu bytes: the heap holds %zu of the %zu bytes that heap_limit (or the container) allows; "
                "raise the limit or keep less alive",
                bytes, __atomic_load_n(&s->block_bytes, __ATOMIC_RELAXED), s->limit);
    else
        wn_fail(WN_ERR_MEMORY,
                "no room for %zu bytes: the system gives the process no more memory or addresses (ulimit -v); the heap "
                "holds %zu bytes: keep less alive",
                bytes, __atomic_load_n(&s->block_bytes, __ATOMIC_RELAXED));
    return NULL;
}
