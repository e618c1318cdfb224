/*
 * cycle.c - the conductor: one thread that takes each cycle through its phases, and the workers that mark with it.
 *
 *     clear marks -> H1 barrier -> globals, H2 stacks, marking -> T1..T3 until a clean round -> what is dead ->
 *     H4 barrier off -> sweep
 *
 * Nothing here stops the world, except where a heap has root scanners, which have no barrier (wn_cc_scan_stopped),
 * where a cycle is given up, and where the client is checked (`verify`).
 *
 * The conductor stands still (wn_helper_park) between units of work whenever somebody stops the world or forks. What it
 * knows is in wn_cc and not in its frames as far as a cycle can be given up: wn_cc_abort puts everything back to before
 * the cycle, and the conductor, when it runs again, finds `aborted` and goes home.
 */
#define _GNU_SOURCE
#include "collectors/concurrent/concurrent.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

void wn_cc_set_phase(wn_cc *cc, wn_cc_phase phase) { __atomic_store_n(&cc->phase, phase, __ATOMIC_RELEASE); }

bool wn_cc_pause(wn_cc *cc, wn_cc_worker *w) {
    if (WN_UNLIKELY(__atomic_load_n(&w->me.fast.poll, __ATOMIC_ACQUIRE))) wn_helper_park(&w->me);
    return !__atomic_load_n(&cc->aborted, __ATOMIC_ACQUIRE) && !__atomic_load_n(&cc->quit, __ATOMIC_RELAXED);
}

static wn_cc_worker *conductor_of(wn_cc *cc) { return &cc->worker[0]; }

/* Whether the program's threads leave a processor idle. With heap->world. */
static bool leaves_a_processor(const wn_cc *cc) {
    unsigned running = 0;
    for (const mutator *m = cc->heap->mutators; m; m = m->next) running += m->state == MUTATOR_RUNNING;
    return running + 1 <= cc->processors;
}

/* ---- the share ------------------------------------------------------------------------------------------------------
 *
 * Where processors are few, cpu_share of them is less than one: half of one, of two. That is the conductor's part of
 * the time from the end of one cycle to the end of the next. When it is used up, it rests between units of marking;
 * what it has it lays down, so that the program's threads can help. Where they leave a processor idle its time does not
 * count, and neither does it when the heap has grown to its goal: then marking is late, and whatever makes it end is
 * welcome. */

enum { SHARE_LOOK_NS = 200000, SHARE_REST_NS = 1000000 };

/* Rests, if it must; a long rest comes in parts, because there may be an idle processor by then. False: it need not. */
static WN_NOINLINE bool rest(wn_cc *cc, uint64_t now) {
    wn_cc_share *s = &cc->share;
    wn_cc_worker *w = conductor_of(cc);
    uint64_t cpu = wn_os_thread_cpu();
    pthread_mutex_lock(&cc->heap->world);
    bool free = leaves_a_processor(cc);
    pthread_mutex_unlock(&cc->heap->world);
    free = free || wn_cc_used(cc) >= __atomic_load_n(&cc->goal, __ATOMIC_RELAXED);
    if (!free) s->used += cpu - s->cpu;
    s->cpu = cpu;
    s->looked = now;
    uint64_t due = s->from + (uint64_t)((double)s->used / s->part);
    if (free || due <= now) return false;
    wn_cc_lay_down(cc, &w->marker, &w->busy);
    wn_helper_end(&w->me); /* whoever stops the world need not wait for it */
    wn_os_nap(due - now < SHARE_REST_NS ? due - now : SHARE_REST_NS);
    wn_helper_begin(&w->me);
    return true;
}

/* False: nothing was found to mark. */
static bool mark_meanwhile(wn_cc *cc) {
    if (WN_UNLIKELY(cc->share.part < 1)) {
        uint64_t now = wn_os_now();
        if (now - cc->share.looked > SHARE_LOOK_NS && rest(cc, now)) return true;
    }
    return wn_cc_mark_unit(cc, conductor_of(cc));
}

/* ---- marking ----------------------------------------------------------------------------------------------------- */

static void mark_slot(void **slot, void *context) { wn_cc_mark_root(context, *slot); }

static void mark_list(wn_cc_worker *w, wn_vector *list, size_t from) {
    for (size_t i = from; i < list->n; i++)
        if (list->at[i]) wn_cc_mark_root(w, list->at[i]);
}

/* All objects of the blocks that stand for some that were written to. */
static void push_written(wn_cc *cc, wn_cc_worker *w) {
    wn_os_lock_brief(&cc->heap->space.lock);
    WN_EACH_BLOCK(&cc->heap->space, c, b) {
        size_t g = 0;
        for (void *o; __atomic_load_n(&b->flags, __ATOMIC_RELAXED) && (o = wn_block_next(b, &g));)
            if (wn_type_of(o)) wn_mark_push(&w->marker, o);
    }
    pthread_mutex_unlock(&cc->heap->space.lock);
}

/* Roots outside of stacks. They change only through the barrier, so any moment after H1 will do. */
static void mark_tables(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    wn_cc_worker *w = conductor_of(cc);
    pthread_mutex_lock(&heap->roots_lock);
    for (size_t i = 0; i < heap->globals.n; i++) {
        void *o = __atomic_load_n((void **)heap->globals.at[i], __ATOMIC_ACQUIRE);
        if (o) wn_cc_mark_root(w, o);
    }
    mark_list(w, &heap->immortals, 0);
    pthread_mutex_unlock(&heap->roots_lock);
    mark_list(w, &heap->garbage, 0);
    pthread_mutex_lock(&cc->lists);
    mark_list(w, &cc->due_finals, cc->due_finals_next);
    wn_cc_each_callback(cc->due_callbacks, mark_slot, w);
    pthread_mutex_unlock(&cc->lists);
    /* Frozen objects are marked already; those that were written to are scanned like fresh finds. */
    wn_os_lock_brief(&cc->lock);
    for (size_t i = 0; i < cc->remembered.n; i++) wn_mark_push(&w->marker, cc->remembered.at[i]);
    bool written = cc->written;
    if ((cc->remembered.n || written) && !w->busy) {
        w->busy = true;
        cc->busy++;
    }
    pthread_mutex_unlock(&cc->lock);
    if (written) push_written(cc, w);
}

/* Until no work is left anywhere, not even with a thread that took some to help and is late. False: aborted. */
static bool mark_dry(wn_cc *cc) {
    for (;;) {
        if (!wn_cc_pause(cc, conductor_of(cc))) return false;
        if (mark_meanwhile(cc)) continue;
        if (wn_cc_is_dry(cc)) return true;
        /* Other workers or assisting threads still hold some. */
        __atomic_store_n(&cc->pool.hungry, 1, __ATOMIC_RELAXED);
        wn_os_nap(10000);
    }
}

bool wn_cc_mark_all(wn_cc *cc) {
    do {
        if (!mark_dry(cc)) return false;
    } while (wn_cc_follow_ephemerons(cc, conductor_of(cc)));
    return wn_cc_pause(cc, conductor_of(cc));
}

static void give_up(wn_cc *cc) {
    wn_cc_worker *w = conductor_of(cc);
    wn_world_stop(cc->heap, &w->me);
    if (!cc->aborted) wn_cc_abort(cc);
    wn_world_start(cc->heap, &w->me);
}

static uint64_t scanners_added(wn_cc *cc, size_t *now) {
    pthread_mutex_lock(&cc->heap->roots_lock);
    uint64_t added = cc->heap->scanners_added;
    *now = cc->heap->scanner_count;
    pthread_mutex_unlock(&cc->heap->roots_lock);
    return added;
}

/* Through what a scanner shows, references pass without a barrier from a grey stack to one that is black, whose thread
 * may put them where nobody looks again. So if one comes while stacks are scanned one by one, all begins anew. */
static bool scan_stacks(wn_cc *cc, size_t *scanners) {
    size_t later;
    uint64_t added = scanners_added(cc, scanners);
    if (*scanners || cc->scan_at_once) {
        cc->scan_at_once = false;
        return wn_cc_scan_stopped(cc);
    }
    if (!wn_cc_handshake(cc, WN_CC_ASK_SCAN, mark_meanwhile)) return false;
    if (scanners_added(cc, &later) == added) return true;
    cc->scan_at_once = true;
    give_up(cc);
    return false;
}

/* T3: ends marking if the round that has just ended found nothing white. */
static bool close_marking(wn_cc *cc, uint64_t reads_before, size_t scanners) {
    wn_heap *heap = cc->heap;
    bool closed = false;
    pthread_mutex_lock(&heap->world);
    pthread_mutex_lock(&heap->roots_lock);
    pthread_mutex_lock(&heap->weak.lock);
    wn_os_lock_brief(&cc->lock);
    closed = cc->found.weak_reads == reads_before && !cc->busy && !cc->pool.work && !cc->slice_count && !cc->shaded &&
             !cc->shared && !cc->keys.n && heap->scanner_count <= scanners && !cc->aborted;
    if (closed) {
        wn_cc_set_phase(cc, WN_CC_CLOSED);
        __atomic_store_n(&cc->hidden, 0, __ATOMIC_RELAXED); /* the next cycle searches the table anew */
    }
    pthread_mutex_unlock(&cc->lock);
    pthread_mutex_unlock(&heap->weak.lock);
    pthread_mutex_unlock(&heap->roots_lock);
    pthread_mutex_unlock(&heap->world);
    return closed;
}

static bool mark(wn_cc *cc) {
    size_t scanners;
    cc->now.barrier = wn_os_now();
    cc->share.looked = cc->now.barrier;
    cc->share.cpu = wn_os_thread_cpu();
    if (!wn_cc_handshake(cc, WN_CC_ASK_BARRIER, NULL)) return false;
    cc->now.scan = wn_os_now();
    mark_tables(cc);
    if (!scan_stacks(cc, &scanners)) return false;
    for (;;) {
        if (!wn_cc_mark_all(cc)) return false; /* T1 */
        /* Not what it is by now: what was taken up since may be grey still, and the round must begin with nothing. */
        wn_cc_found before = cc->at_dry;
        cc->now.rounds++;
        if (!wn_cc_handshake(cc, WN_CC_ASK_FLUSH, NULL)) return false; /* T2 */
        /* What was handed over may all be marked already: then nothing is pushed, and the round was clean. */
        if (!wn_cc_mark_all(cc)) return false;
        if (__atomic_load_n(&cc->found.shaded, __ATOMIC_RELAXED) != before.shaded) {
            __atomic_store_n(&cc->chased, true, __ATOMIC_RELAXED);
            continue;
        }
        if (close_marking(cc, before.weak_reads, scanners)) return true;
        /* A scanner that came meanwhile may show what it took from a stack before that was scanned. */
        size_t now;
        scanners_added(cc, &now);
        if (now > scanners && !scan_stacks(cc, &scanners)) return false;
    }
}

/* ---- a cycle ----------------------------------------------------------------------------------------------------- */

static void sweep_all(wn_cc *cc) {
    wn_cc_worker *w = conductor_of(cc);
    while (wn_cc_sweep_some(cc)) wn_cc_pause(cc, w);
    /* A thread that claimed a block and was put aside by the scheduler: wait for it. */
    while (!wn_cc_sweep_done(cc)) {
        wn_cc_pause(cc, w);
        wn_os_nap(20000);
    }
}

static void end_sweep(wn_cc *cc) {
    pthread_mutex_lock(&cc->heap->world);
    wn_cc_set_phase(cc, WN_CC_IDLE);
    pthread_mutex_unlock(&cc->heap->world);
}

/* `before`: how far it has come. One that was given up has freed nothing. */
static void tell(wn_cc *cc, wn_event_kind kind, wn_phase before) {
    wn_event event = {.kind = kind, .generation = 2};
    if (kind == WN_EVENT_COLLECT_STOP) {
        event.result = (wn_collect_result){.collected = cc->now.freed_objects,
                                           .freed_bytes = cc->now.freed_bytes,
                                           .duration_ns = cc->now.end - cc->now.start};
        event.after = WN_PHASE_IDLE;
        event.before = before;
        event.bytes_before = cc->now.used_at_close;
        event.bytes_after = cc->now.live;
    } else {
        event.bytes_before = cc->used_at_start;
    }
    wn_tell(&conductor_of(cc)->me, &event);
}

/* True: there was no memory for the work lists, so marks are not complete and nothing may be freed. */
static bool gave_up(wn_cc *cc) {
    if (!__atomic_load_n(&cc->failed, __ATOMIC_RELAXED)) return false;
    give_up(cc);
    return true;
}

/* False: given up. */
static bool mark_and_sweep(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    wn_cc_worker *w = conductor_of(cc);
    wn_cc_clear_marks(cc);
    pthread_mutex_lock(&heap->world);
    pthread_mutex_lock(&heap->weak.lock);
    __atomic_store_n(&cc->failed, false, __ATOMIC_RELAXED);
    __atomic_store_n(&cc->chased, false, __ATOMIC_RELAXED);
    cc->freed_objects = cc->freed_bytes = 0;
    wn_cc_set_phase(cc, WN_CC_MARKING);
    pthread_mutex_unlock(&heap->weak.lock);
    __atomic_store_n(&cc->marking_together, cc->workers > 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&cc->wake);
    pthread_mutex_unlock(&heap->world);

    bool ok = mark(cc);
    pthread_mutex_lock(&heap->world);
    __atomic_store_n(&cc->marking_together, false, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&heap->world);
    if (!ok) return false;
    cc->now.closed = wn_os_now();
    if (gave_up(cc)) return false;
    wn_verify_at(&w->me, "in the middle of");
    bool found = wn_cc_find_dead(cc, w);
    if (gave_up(cc) || !found) return false;
    cc->now.sweep = wn_os_now();
    cc->now.used_at_close = wn_cc_used(cc);
    if (!wn_cc_begin_sweep(cc)) return false;
    sweep_all(cc);
    cc->now.freed_objects = __atomic_load_n(&cc->freed_objects, __ATOMIC_RELAXED);
    cc->now.freed_bytes = __atomic_load_n(&cc->freed_bytes, __ATOMIC_RELAXED);
    return true;
}

/* What has been spent on a cycle, whether it came to its end or not. */
static void count_time(wn_cc *cc, uint64_t cpu_before) {
    cc->now.cpu_ns = wn_os_thread_cpu() - cpu_before;
    cc->now.assist_ns = __atomic_exchange_n(&cc->assist_ns, 0, __ATOMIC_RELAXED);
    for (unsigned i = 1; i < cc->workers; i++)
        cc->now.cpu_ns += __atomic_exchange_n(&cc->worker[i].cpu_ns, 0, __ATOMIC_RELAXED);
    pthread_mutex_lock(&cc->heap->stats_lock);
    cc->heap->stats.gc_cpu_ns += cc->now.cpu_ns;
    pthread_mutex_unlock(&cc->heap->stats_lock);
}

static bool cycle(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    memset(&cc->now, 0, sizeof cc->now);
    cc->now.start = wn_os_now();
    uint64_t cpu = wn_os_thread_cpu();
    wn_cc_pace_start(cc);
    wn_verify_at(&conductor_of(cc)->me, "before");
    tell(cc, WN_EVENT_COLLECT_START, WN_PHASE_IDLE);
    bool done = mark_and_sweep(cc);
    count_time(cc, cpu);
    cc->share.from = wn_os_now();
    cc->share.used = 0;
    if (!done) {
        cc->now.used_at_close = cc->now.live = wn_cc_used(cc);
        cc->now.end = wn_os_now();
        tell(cc, WN_EVENT_COLLECT_STOP, WN_PHASE_MARKING);
        return false;
    }
    wn_cc_pace_end(cc);
    cc->now.end = wn_os_now();
    end_sweep(cc);
    pthread_mutex_lock(&heap->stats_lock);
    heap->stats.collections++;
    heap->stats.majors++;
    heap->stats.generation[2].collections++;
    heap->stats.generation[2].collected += cc->now.freed_objects;
    pthread_mutex_unlock(&heap->stats_lock);
    wn_cc_mesh_later(cc);
    tell(cc, WN_EVENT_COLLECT_STOP, WN_PHASE_SWEEPING);
    if (heap->options.trace) wn_cc_trace(cc);
    return true;
}

/* ---- giving up --------------------------------------------------------------------------------------------------- */

void wn_cc_abort(wn_cc *cc) {
    wn_cc_phase phase = wn_cc_phase_of(cc);
    if (phase == WN_CC_IDLE || phase == WN_CC_SWEEPING) return;
    cc->shading = false;
    for (mutator *m = cc->heap->mutators; m; m = m->next) {
        wn_cc_mutator *c = wn_cc_of_mutator(m);
        m->fast.mode &= ~(uint32_t)WN_MODE_SHADE_;
        c->grey = false;
        __atomic_store_n(&c->ask, WN_CC_ASK_NOTHING, __ATOMIC_RELEASE);
    }
    wn_cc_drop_work(cc);
    wn_cc_end_clearing(cc);
    wn_cc_make_finals_due(cc);
    wn_cc_ask_threads_to_run_due(cc); /* a safepoint leaves it to the finalizer thread if there is one */
    __atomic_store_n(&cc->aborted, true, __ATOMIC_RELEASE);
    wn_os_lock_brief(&cc->lock);
    wn_cc_set_phase(cc, WN_CC_IDLE);
    pthread_mutex_unlock(&cc->lock);
    wn_space_relist(&cc->heap->space); /* blocks that wait to be swept are off the lists; they keep their dead */
}

/* ---- the threads ------------------------------------------------------------------------------------------------- */

static void wait_a_while(wn_cc *cc) { wn_os_cond_wait_until(&cc->wake, &cc->heap->world, wn_os_now() + 10000000); }

/* Still to be swept, after a fork in the middle of it: the child's conductor goes on. */
static bool has_work(const wn_cc *cc) { return cc->started < cc->wanted || wn_cc_phase_of(cc) == WN_CC_SWEEPING; }

/* Its name by itself: the program's thread, which makes it, would have to go through /proc. */
static void begin_thread(const char *name) {
    pthread_setname_np(pthread_self(), name);
    wn_os_nap_exactly();
}

/* Until there is a cycle to run: lays blocks together and gives memory back, a little at a time, or sleeps. With
 * heap->world. */
static void wait_for_work(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    wn_cc_worker *w = conductor_of(cc);
    while (!cc->quit) {
        bool mesh = wn_cc_wants_to_mesh(cc, has_work(cc)); /* for a while even so */
        if (has_work(cc) && !mesh) return;
        if (mesh || wn_cc_wants_to_scavenge(cc)) {
            pthread_mutex_unlock(&heap->world);
            wn_helper_begin(&w->me);
            mesh ? wn_cc_mesh(cc) : wn_cc_scavenge(cc);
            wn_helper_end(&w->me);
            pthread_mutex_lock(&heap->world);
            if (!cc->quit && !has_work(cc) && !mesh) wait_a_while(cc);
        } else if (cc->mesh_due) {
            wait_a_while(cc);
        } else {
            pthread_cond_wait(&cc->wake, &heap->world);
        }
    }
}

/* What a cycle has come to, for those who wait for it; with heap->world. `done`: it went to its end. */
static void note_outcome(wn_cc *cc, bool done) {
    if (done) {
        cc->finished = cc->started;
        cc->given_up = false;
        cc->total_objects += cc->now.freed_objects;
        cc->total_bytes += cc->now.freed_bytes;
        cc->last_failed = false;
    } else if (__atomic_load_n(&cc->failed, __ATOMIC_RELAXED)) {
        /* Nothing was freed, as those who wait will find; for whoever waits for the next one that is tried, too. */
        wn_cc_pace_failed(cc);
        cc->finished = cc->started;
        cc->given_up = false;
        cc->last_failed = true;
    } else {
        cc->started--; /* given up for a freeze or a root scanner: once more, if it is still wanted */
        cc->given_up = true;
    }
}

static void *conduct(void *arg) {
    wn_cc *cc = arg;
    wn_heap *heap = cc->heap;
    wn_cc_worker *w = conductor_of(cc);
    w->me.thread = pthread_self(); /* the mutator that a listener is handed is this thread's */
    begin_thread("winnow");
    for (;;) {
        pthread_mutex_lock(&heap->world);
        wait_for_work(cc);
        bool quit = cc->quit;
        /* Else there is only a sweep to be ended, that of the process which has forked this one. */
        bool fresh = cc->started < cc->wanted, alone = fresh && leaves_a_processor(cc);
        unsigned wanted_on = cc->wanted_on;
        if (!quit && fresh) cc->started++;
        __atomic_store_n(&cc->aborted, false, __ATOMIC_RELEASE);
        pthread_mutex_unlock(&heap->world);
        if (quit) return NULL;
        /* The kernel may put who is woken, and who has just come into being, on the processor of whoever woke it, and
         * on a machine whose processors share no cache leave it there for tens of milliseconds: then the two take
         * turns, a few milliseconds each. */
        if (alone) wn_os_leave_processor(wanted_on);
        wn_helper_begin(&w->me);
        if (wn_cc_phase_of(cc) == WN_CC_SWEEPING) {
            sweep_all(cc);
            wn_cc_pace_end(cc);
            end_sweep(cc);
        }
        bool done = fresh && cycle(cc);
        pthread_mutex_lock(&heap->world);
        if (fresh) note_outcome(cc, done);
        pthread_cond_broadcast(&cc->done);
        pthread_mutex_unlock(&heap->world);
        wn_helper_end(&w->me);
    }
}

static void *work(void *arg) {
    wn_cc_worker *w = arg;
    wn_cc *cc = w->cc;
    begin_thread("winnow marker");
    for (;;) {
        pthread_mutex_lock(&cc->heap->world);
        while (!cc->quit && !cc->marking_together) pthread_cond_wait(&cc->wake, &cc->heap->world);
        bool quit = cc->quit;
        pthread_mutex_unlock(&cc->heap->world);
        if (quit) return NULL;
        wn_helper_begin(&w->me);
        uint64_t start = wn_os_thread_cpu();
        while (__atomic_load_n(&cc->marking_together, __ATOMIC_RELAXED) && wn_cc_pause(cc, w)) {
            if (wn_cc_mark_unit(cc, w)) continue;
            __atomic_store_n(&cc->pool.hungry, 1, __ATOMIC_RELAXED);
            wn_os_nap(20000);
        }
        wn_cc_lay_down(cc, &w->marker, &w->busy);
        __atomic_fetch_add(&w->cpu_ns, wn_os_thread_cpu() - start, __ATOMIC_RELAXED);
        wn_helper_end(&w->me);
    }
}

bool wn_cc_start_thread(pthread_t *thread, void *(*run)(void *), void *arg) {
    /* Signals are for the program's own threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool started = pthread_create(thread, NULL, run, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return started;
}

static bool start_worker(wn_cc *cc, unsigned i) {
    wn_cc_worker *w = &cc->worker[i];
    if (w->running) return true;
    w->cc = cc;
    w->me.heap = cc->heap;
    w->me.state = MUTATOR_STILL;
    /* For listeners, which may store, and make nothing. */
    w->me.fast.mode = wn_cc_mode(cc);
    for (unsigned c = 0; c < WN_CLASSES_; c++) w->me.fast.from[c] = &w->me.fast.buffer[c];
    w->running = wn_cc_start_thread(&w->thread, i ? work : conduct, i ? (void *)w : (void *)cc);
    if (!w->running) return false;
    w->me.next = cc->heap->helpers;
    cc->heap->helpers = &w->me;
    return true;
}

void wn_cc_want(wn_cc *cc, uint64_t cycle) {
    if (cc->wanted < cycle) cc->wanted = cycle;
    cc->wanted_on = wn_os_processor();
    for (unsigned i = 0; i < cc->workers; i++)
        if (!start_worker(cc, i)) break;
    pthread_cond_broadcast(&cc->wake);
}

void wn_cc_stop_threads(wn_cc *cc) {
    pthread_mutex_lock(&cc->heap->world);
    __atomic_store_n(&cc->quit, true, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&cc->wake);
    pthread_mutex_unlock(&cc->heap->world);
    for (unsigned i = 0; i < cc->workers; i++)
        if (cc->worker[i].running) pthread_join(cc->worker[i].thread, NULL);
}

/* ---- waiting for a cycle ----------------------------------------------------------------------------------------- */

bool wn_cc_wait_for_cycle(mutator *m, bool fresh) {
    wn_cc *cc = wn_cc_of(m->heap);
    uint64_t start = wn_os_now();
    wn_world_spill(m);
    pthread_mutex_lock(&m->heap->world);
    uint64_t cycle = fresh || cc->started == cc->finished ? cc->started + 1 : cc->started;
    wn_cc_want(cc, cycle);
    bool possible = cc->worker[0].running;
    if (possible) {
        m->state = MUTATOR_STILL;
        pthread_cond_broadcast(&m->heap->world_changed);
        wn_wait_in(m->heap, true);
        while (cc->finished < cycle) pthread_cond_wait(&cc->done, &m->heap->world);
        while (m->heap->stopped && m->heap->stopper != m) pthread_cond_wait(&m->heap->world_changed, &m->heap->world);
        wn_wait_in(m->heap, false);
        m->state = MUTATOR_RUNNING;
    } else {
        cc->wanted = cc->started;
    }
    pthread_mutex_unlock(&m->heap->world);
    if (possible) wn_note_wait(m->heap, wn_os_now() - start);
    return possible;
}

/* Runs all that is due, and stands still until other threads have run what they took of it: a collection has promised
 * that it has been run when it returns. Not within a finalizer, where two threads could wait for each other. */
static void run_all_due(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_run_due(m, ~(uint64_t)0);
    if (wn_cc_of_mutator(m)->finalizing || m->in_callbacks) return;
    /* Another may end with some left, finalizers that waited for its callbacks among them. */
    for (bool others;
         (others = __atomic_load_n(&cc->finalizing, __ATOMIC_ACQUIRE)) || __atomic_load_n(&cc->due, __ATOMIC_RELAXED);
         wn_cc_run_due(m, ~(uint64_t)0))
        if (others) wn_stand_aside(m);
}

wn_status wn_cc_collect(mutator *m, int generation, wn_collect_result *result) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_collect_result ignored;
    if (!result) result = &ignored;
    /* Below the highest there is nothing to do, unless a test wants a collection at every chance; but it is a
     * safepoint, and others may wait for a thread that comes to no other. */
    if (generation < 2 && !m->heap->options.stress) {
        wn_poll(&m->fast);
        return WN_OK;
    }
    uint64_t start = wn_os_now();
    pthread_mutex_lock(&m->heap->world);
    size_t objects = cc->total_objects, bytes = cc->total_bytes;
    pthread_mutex_unlock(&m->heap->world);
    /* What finalizers let go of is freed by a further cycle; one that makes garbage with finalizers anew without end
     * is not followed for ever. */
    for (int i = 0; i < 8; i++) {
        /* Other threads may run them before this one is back. */
        uint64_t ran = __atomic_load_n(&cc->ran, __ATOMIC_RELAXED);
        if (!wn_cc_wait_for_cycle(m, true))
            return wn_fail(WN_ERR_MEMORY, "no thread could be started for the collection: the system has too many");
        pthread_mutex_lock(&m->heap->world); /* of all that ended meanwhile, the one under way among them */
        result->collected = cc->total_objects - objects;
        result->freed_bytes = cc->total_bytes - bytes;
        bool failed = cc->last_failed;
        pthread_mutex_unlock(&m->heap->world);
        if (failed)
            return wn_fail(
                WN_ERR_MEMORY,
                "no memory to find out what is reachable, so nothing could be freed: give some back and collect again");
        wn_poll(&m->fast); /* which may run some as well */
        if (!wn_cc_leave_to_finalizer(cc)) run_all_due(m);
        if (__atomic_load_n(&cc->ran, __ATOMIC_RELAXED) == ran || generation < 2) break;
    }
    result->duration_ns = wn_os_now() - start;
    return WN_OK;
}
