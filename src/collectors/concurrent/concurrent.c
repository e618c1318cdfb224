/*
 * concurrent.c - the concurrent collector's struct of operations: threads that come and go, freezing, fork, questions
 * about single objects.
 *
 * Invariant: neither a freeze nor the child of a fork meets a cycle that has not come to sweeping: it is waited for, or
 * given up.
 */
#include "collectors/concurrent/concurrent.h"

#include <stdlib.h>
#include <string.h>

/* As many markers as the share of the processors allows, and at least one, which then may not work all the time. */
static void set_workers(wn_cc *cc, const wn_options *o) {
    double share = cc->processors * o->cpu_share / 100;
    unsigned n = o->workers ? o->workers : share < WN_MOST_WORKERS ? (unsigned)share : WN_MOST_WORKERS;
    cc->workers = n ? n : 1;
    cc->share = (wn_cc_share){.part = n ? 1 : share, .from = cc->heap->made_at};
}

static void init_locks(wn_cc *cc) {
    pthread_mutex_init(&cc->lock, NULL);
    pthread_mutex_init(&cc->lists, NULL);
    pthread_mutex_init(&cc->announced_lock, NULL);
    wn_os_cond_make(&cc->wake);
    pthread_cond_init(&cc->done, NULL);
    pthread_cond_init(&cc->finalizer_wake, NULL);
}

static void init_markers(wn_cc *cc) {
    wn_mark_pool_make(&cc->pool);
    for (unsigned i = 0; i < cc->workers; i++) wn_mark_make(&cc->worker[i].marker, &cc->pool);
}

static wn_status init(wn_heap *heap) {
    wn_cc *cc = calloc(1, sizeof *cc);
    if (!cc) return wn_fail(WN_ERR_MEMORY, "no memory for the concurrent collector");
    cc->heap = heap;
    cc->processors = wn_os_processors();
    set_workers(cc, &heap->options);
    init_locks(cc);
    init_markers(cc);
    heap->state = cc;
    heap->space.owner = cc;
    heap->space.starved = wn_cc_starved;
    heap->space.keeps_dirty = true;
    heap->space.quarantines = heap->options.check;
    cc->trigger =
        heap->options.heap_growth == WN_NEVER ? SIZE_MAX : (size_t)(4 << 20) / 100 * heap->options.heap_growth;
    if (heap->space.limit && cc->trigger > heap->space.limit / 2) cc->trigger = heap->space.limit / 2;
    return WN_OK;
}

static void fini(wn_heap *heap) {
    wn_cc *cc = wn_cc_of(heap);
    wn_cc_stop_finalizer(cc); /* first: it may be waiting for a cycle */
    wn_cc_stop_threads(cc);
    heap->helpers = NULL;
    wn_cc_drop_waiting(cc);
    wn_vector_free(&cc->remembered);
    wn_vector_free(&cc->keys);
    wn_vector_free(&cc->finalizable);
    wn_vector_free(&cc->examined);
    wn_vector_free(&cc->due_finals);
    for (unsigned i = 0; i < WN_MOST_WORKERS; i++) wn_vector_free(&cc->worker[i].me.callbacks);
    if (cc->slices) wn_os_release(cc->slices, cc->slice_room * sizeof *cc->slices);
    wn_mark_pool_drop(&cc->pool);
    pthread_cond_destroy(&cc->wake);
    pthread_cond_destroy(&cc->done);
    pthread_cond_destroy(&cc->finalizer_wake);
    pthread_mutex_destroy(&cc->lock);
    pthread_mutex_destroy(&cc->lists);
    pthread_mutex_destroy(&cc->announced_lock);
    free(cc->announced);
    free(cc);
    heap->state = NULL;
}

uint32_t wn_cc_mode(const wn_cc *cc) {
    uint32_t mode = cc->heap->options.check || cc->heap->options.verify ? WN_MODE_CHECK_ : 0;
    return __atomic_load_n(&cc->frozen, __ATOMIC_RELAXED) ? mode | WN_MODE_REMEMBER_ : mode;
}

/* A thread that comes in the middle of a cycle has an empty stack, and is black from the start. But while some threads
 * are still without barrier (H1) what it reads could be hidden from the marking by them: then it is grey, and will be
 * scanned with the others (H2). */
static wn_status attach(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = calloc(1, sizeof *c);
    if (!c) return wn_fail(WN_ERR_MEMORY, "no memory for a mutator's buffers");
    wn_mark_make(&c->assist, &cc->pool);
    m->state_of_collector = c;
    m->fast.mode = wn_cc_mode(cc) | (cc->shading ? WN_MODE_SHADE_ : 0);
    c->grey = cc->shading && !cc->barrier_is_up;
    if (__atomic_load_n(&cc->due, __ATOMIC_RELAXED)) /* those that were asked to run it may be gone */
        __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
    return WN_OK;
}

static void detach(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    if (wn_cc_phase_of(cc) == WN_CC_MARKING) {
        /* The tables may have been marked without the callbacks that go back there, and its stack will not be. */
        for (wn_weakref *r = m->late_callbacks; r; r = r->next) wn_cc_shade_own(m, r);
        wn_cc_hand_over(m);
    }
    if (c->buffer) wn_mark_put_segment(&cc->pool, c->buffer);
    wn_mark_drop(&c->assist);
    if (c->finalizing)
        __atomic_fetch_sub(&cc->finalizing, 1, __ATOMIC_RELEASE); /* the thread has ended in the middle */
    /* Callbacks it took and did not come to run are due again. */
    pthread_mutex_lock(&cc->lists);
    if (wn_callbacks_are_due(m)) __atomic_store_n(&cc->due, 1, __ATOMIC_RELAXED);
    wn_cc_give_back_callbacks(m);
    cc->calling -= m->in_callbacks != 0; /* a thread that goes in the middle of one */
    pthread_mutex_unlock(&cc->lists);
    free(c);
    m->state_of_collector = NULL;
}

/* At a safepoint: serves a handshake, then runs what is due. */
static void poll(mutator *m) {
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    if (!c) return; /* a thread of the collector */
    wn_cc_ask ask = (wn_cc_ask)__atomic_load_n(&c->ask, __ATOMIC_ACQUIRE);
    if (ask != WN_CC_ASK_NOTHING) {
        uint64_t start = wn_os_now();
        wn_cc_serve(m, ask);
        __atomic_store_n(&c->ask, WN_CC_ASK_NOTHING, __ATOMIC_RELEASE);
        wn_note_pause(m->heap, wn_os_now() - start);
        if (ask == WN_CC_ASK_FLUSH) wn_cc_catch_up(m);
    }
    wn_cc_pace(m);
    wn_cc *cc = wn_cc_of(m->heap);
    if (WN_UNLIKELY(__atomic_load_n(&cc->due, __ATOMIC_RELAXED)) && !wn_cc_leave_to_finalizer(cc))
        wn_cc_run_due(m, 100000);
}

/* ---- freezing -------------------------------------------------------------------------------------------------------
 *
 * Whole blocks are frozen: they are not allocated from, not swept, and count as marked. What they refer to is frozen
 * too, except where a reference is stored later: the backward barrier (WN_MODE_REMEMBER_, count byte WN_OLD_CLEAN_)
 * notes the object then, and every cycle scans what was noted. The world is stopped. */

static void finish_sweep(wn_cc *cc) {
    while (wn_cc_sweep_some(cc)) {
    }
}

/* A cycle that has been given up once before goes first, if it is still wanted: those who wait for it would else wait
 * as long as others freeze. The world goes on meanwhile. */
static void let_cycle_end(mutator *me) {
    wn_heap *heap = me->heap;
    wn_cc *cc = wn_cc_of(heap);
    pthread_mutex_lock(&heap->world);
    bool wait = cc->given_up && cc->wanted > cc->finished && heap->stop_depth == 1 && !me->fast.nested;
    pthread_mutex_unlock(&heap->world);
    if (!wait) return;
    wn_world_start(heap, me);
    wn_cc_wait_for_cycle(me, false);
    wn_world_stop(heap, me);
}

/* No cycle marks, so nobody has the barrier on. */
static void set_modes(wn_cc *cc) {
    for (mutator *m = cc->heap->mutators; m; m = m->next) m->fast.mode = wn_cc_mode(cc);
    for (mutator *m = cc->heap->helpers; m; m = m->next) m->fast.mode = wn_cc_mode(cc);
}

static wn_status freeze(mutator *me) {
    wn_heap *heap = me->heap;
    wn_cc *cc = wn_cc_of(heap);
    size_t n = 0;
    let_cycle_end(me);
    wn_cc_abort(cc);
    finish_sweep(cc);
    for (mutator *m = heap->mutators; m; m = m->next) wn_drop_blocks(m);
    pthread_mutex_lock(&heap->space.lock);
    WN_EACH_BLOCK(&heap->space, c, b) {
        if (b->frozen || !b->used) continue;
        b->frozen = 1;
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g)); n++) {
            wn_meta_(o)[0] = WN_OLD_CLEAN_;
            wn_meta_(o)[1] |= WN_STATE_GENERATION_; /* 3: frozen */
        }
        __atomic_store_n(&b->noted, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&heap->space.lock);
    wn_space_unlist_frozen(&heap->space);
    __atomic_fetch_add(&cc->frozen, n, __ATOMIC_RELAXED);
    set_modes(cc);
    return WN_OK;
}

static wn_status unfreeze(mutator *me) {
    wn_heap *heap = me->heap;
    wn_cc *cc = wn_cc_of(heap);
    let_cycle_end(me);
    wn_cc_abort(cc);
    finish_sweep(cc);
    WN_EACH_BLOCK(&heap->space, c, b) {
        if (!b->frozen) continue;
        b->frozen = 0;
        b->flags = 0;
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            wn_meta_(o)[0] = 0;
            wn_meta_(o)[1] &= (uint8_t)~WN_STATE_GENERATION_;
        }
    }
    __atomic_store_n(&cc->frozen, 0, __ATOMIC_RELAXED);
    cc->remembered.n = 0;
    cc->written = false;
    wn_space_relist(&heap->space);
    set_modes(cc);
    return WN_OK;
}

static size_t frozen(const wn_heap *heap) { return __atomic_load_n(&wn_cc_of(heap)->frozen, __ATOMIC_RELAXED); }

/* ---- fork -----------------------------------------------------------------------------------------------------------
 *
 * Helpers stand still across fork(), with the world's lock held, so the parent just goes on. In the child there is only
 * the forking thread: what other threads were in the middle of is given up (a cycle) or repaired (blocks they owned,
 * whose alloc bits may be ahead of their counts). Threads of the collector start again when they are needed. */

static void before_fork(wn_heap *heap) { pthread_mutex_lock(&wn_cc_of(heap)->lists); }

static void repair_blocks(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    WN_EACH_BLOCK(&heap->space, c, b) {
        if (b->state != WN_BLOCK_SMALL) continue;
        uint32_t used = 0;
        for (unsigned i = 0; i < WN_BLOCK_WORDS; i++) used += (uint32_t)__builtin_popcountll(wn_alloc_words(b)[i]);
        b->used = used;
        b->owned = 0;
    }
    for (mutator *m = heap->mutators; m; m = m->next)
        for (unsigned k = 0; k < WN_KINDS; k++)
            for (unsigned i = 0; i < WN_CLASSES_; i++)
                if (m->block[k][i]) m->block[k][i]->owned = 1;
}

/* What it was handed and has not made objects of is free; callbacks that it has taken and not come to run are due. */
static void orphaned(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_flush(m);
    if (wn_callbacks_are_due(m)) __atomic_store_n(&cc->due, 1, __ATOMIC_RELAXED);
    wn_cc_give_back_callbacks(m); /* before_fork has taken `lists` */
}

/* Which threads the child has. */
static void count_threads(wn_cc *cc) {
    /* A listener may fork: then the conductor is the thread that is there. */
    for (unsigned i = 0; i < cc->workers; i++)
        cc->worker[i].running = cc->worker[i].running && pthread_equal(cc->worker[i].thread, pthread_self());
    cc->finalizer_running = cc->finalizer_running && pthread_equal(cc->finalizer, pthread_self());
    cc->marking_together = false;
    cc->finalizing = cc->calling = 0; /* what other threads were running is not run to its end here */
    for (mutator *m = cc->heap->mutators; m; m = m->next) {
        cc->finalizing += wn_cc_of_mutator(m)->finalizing;
        cc->calling += m->in_callbacks != 0;
    }
}

/* Segments that other threads held are gone with them; all of the markers' memory starts anew. */
static void forget_work(wn_cc *cc) {
    wn_mark_pool_drop(&cc->pool);
    init_markers(cc);
    for (mutator *m = cc->heap->mutators; m; m = m->next) {
        wn_cc_mutator *c = wn_cc_of_mutator(m);
        wn_mark_make(&c->assist, &cc->pool);
        c->buffer = NULL;
    }
    cc->shaded = cc->shared = NULL;
    cc->slice_count = 0;
}

static void after_fork(wn_heap *heap, bool child) {
    wn_cc *cc = wn_cc_of(heap);
    pthread_mutex_unlock(&cc->lists);
    if (!child) return;
    init_locks(cc);
    count_threads(cc);
    repair_blocks(cc);
    forget_work(cc);
    wn_cc_abort(cc);
    __atomic_store_n(&cc->aborted, false, __ATOMIC_RELAXED);
    /* Who was about to run what is due may be gone. (Not by wn_cc_ask_threads_to_run_due, which takes `lists`: locks of
     * other heaps are still held.) */
    for (mutator *m = heap->mutators; m && __atomic_load_n(&cc->due, __ATOMIC_RELAXED); m = m->next)
        __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
    if (wn_cc_phase_of(cc) == WN_CC_SWEEPING) wn_cc_collect_unswept(cc);
    cc->unattended = wn_cc_phase_of(cc) == WN_CC_SWEEPING;
    cc->wanted = cc->finished = cc->started;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static void make_immortal(mutator *m, void *object) {
    pthread_mutex_lock(&m->heap->roots_lock);
    bool ok = wn_vector_push(&m->heap->immortals, object);
    pthread_mutex_unlock(&m->heap->roots_lock);
    wn_cc_shade(m->heap, object);
    if (!ok) wn_fail(WN_ERR_MEMORY, "no memory to make an object immortal");
}

static wn_status pin(mutator *m, void *object) { return (void)m, (void)object, WN_OK; }
static void unpin(mutator *m, void *object) { (void)m, (void)object; }
static uintptr_t identity(mutator *m, void *object) { return (void)m, (uintptr_t)object; }

static bool is_tracked(const wn_heap *heap, const void *object) { return (void)heap, wn_has_refs_(wn_type_of(object)); }
static int generation(const wn_heap *heap, const void *object) {
    (void)heap;
    return wn_block_of(object)->frozen ? 3 : -1;
}

/* Between the end of marking and the sweep of a block its alloc bits still show the dead. */
static bool is_live(const wn_heap *heap, const void *object) {
    const wn_cc *cc = wn_cc_of(heap);
    if (!__atomic_load_n((void *const *)object, __ATOMIC_RELAXED)) return false; /* part of a run, not made yet */
    if (!cc) return true; /* the heap is going: whatever is left must be released */
    switch (wn_cc_phase_of(cc)) {
    case WN_CC_CLOSED: return wn_cc_is_marked(object);
    case WN_CC_ENDING:
    case WN_CC_SWEEPING: return wn_cc_is_marked(object) || wn_space_is_swept(&heap->space, wn_block_of(object));
    default: return true;
    }
}

static void stats(wn_heap *heap, wn_stats *s) { s->frozen = frozen(heap); }

static void trim(mutator *m) { finish_sweep(wn_cc_of(m->heap)); }

const wn_collector wn_collector_concurrent = {
    .id = WN_COLLECTOR_CONCURRENT,
    .name = "concurrent",
    .init = init,
    .fini = fini,
    .attach = attach,
    .detach = detach,
    .is_own = wn_cc_is_finalizer,
    .allocate = wn_cc_allocate,
    .store = wn_cc_store,
    .poll = poll,
    .collect = wn_cc_collect,
    .freeze = freeze,
    .unfreeze = unfreeze,
    .frozen = frozen,
    .make_immortal = make_immortal,
    .pin = pin,
    .unpin = unpin,
    .identity = identity,
    .weak_get = wn_cc_weak_get,
    .generation = generation,
    .is_tracked = is_tracked,
    .shade = wn_cc_shade,
    .external = wn_cc_external,
    .flush = wn_cc_flush,
    .is_live = is_live,
    .stats = stats,
    .before_fork = before_fork,
    .orphaned = orphaned,
    .after_fork = after_fork,
    .trim = trim,
    .verify = wn_cc_verify,
};
