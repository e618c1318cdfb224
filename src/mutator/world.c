/*
 * world.c - making every mutator stand still; safepoints, blocking sections and no-collect scopes.
 *
 * A mutator is RUNNING or STILL; it changes from one to the other under heap->world. The world is stopped when
 * heap->stopped is set and every mutator but the stopper is STILL: it is then safe to read and change their fast
 * parts, because a mutator becomes RUNNING only under the lock and only while the world is not stopped.
 */
#include "mutator/heap.h"

void wn_world_spill(mutator *me) {
    if (WN_LIKELY(!me->heap->options.conservative_stacks)) return;
    me->stack_low = wn_os_spill_registers(&me->registers, me->stack_high);
}

enum { BRIEF_NS = 200000 };

/* Lets others have the world's lock for a moment. */
static void let_pass(wn_heap *heap) {
    pthread_mutex_unlock(&heap->world);
    for (int i = 0; i < 16; i++) wn_os_relax();
    pthread_mutex_lock(&heap->world);
}

/* A thread in a blocking section, too, may come here, by a call that takes no mutator and stops the world (fork); it is
 * still in the section afterwards. */
static void wait_while_stopped(wn_heap *heap, mutator *me) {
    mutator_state before = me->state;
    wn_world_spill(me);
    me->state = MUTATOR_STILL;
    pthread_cond_broadcast(&heap->world_changed);
    wn_wait_in(heap, true);
    /* Whoever sleeps is back 50 us after it was woken. */
    uint64_t until = heap->brief ? wn_os_now() + BRIEF_NS : 0;
    while (heap->stopped) {
        if (until) {
            let_pass(heap);
            if (wn_os_now() >= until) until = 0;
        } else {
            pthread_cond_wait(&heap->world_changed, &heap->world);
        }
    }
    wn_wait_in(heap, false);
    me->state = before;
}

void wn_world_interrupt(wn_heap *heap) {
    for (mutator *m = heap->mutators; m; m = m->next) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
    for (mutator *m = heap->helpers; m; m = m->next) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

static bool all_still(const mutator *list, const mutator *me, bool to_fork) {
    for (const mutator *m = list; m; m = m->next)
        if (m != me && m->state != MUTATOR_STILL && !(to_fork && m->waits_to_fork)) return false;
    return true;
}

static bool others_still(const wn_heap *heap, const mutator *me, bool to_fork) {
    return all_still(heap->mutators, me, to_fork) && all_still(heap->helpers, me, to_fork);
}

void wn_world_say_who_is_waited_for(const mutator *m, const char *who, uint64_t waited) {
    char name[32] = "";
    pthread_getname_np(m->thread, name, sizeof name);
    const char *rule = "to reach a safepoint: put wn_poll into its loops, wn_block_begin and wn_block_end around what "
                       "it waits for";
    if (__atomic_load_n(&m->waits_elsewhere, __ATOMIC_RELAXED))
        rule = "which waits in another heap: while a thread works on one heap it keeps its mutators of all others "
               "between wn_block_begin and wn_block_end, or two threads wait for each other for ever";
    fprintf(stderr, "winnow: %s has waited %.0f ms for thread %#lx (%s) %s\n", who, (double)waited / 1e6,
            (unsigned long)m->thread, name, rule);
}

/* With the world's lock: waits until all others stand still. */
static void wait_for_others(wn_heap *heap, const mutator *me, bool to_fork) {
    bool naming = wn_world_names_waits(heap);
    uint64_t start = naming ? wn_os_now() : 0;
    wn_wait_in(heap, true);
    while (!others_still(heap, me, to_fork)) {
        if (!naming) {
            pthread_cond_wait(&heap->world_changed, &heap->world);
            continue;
        }
        wn_os_cond_wait_until(&heap->world_changed, &heap->world, start + WN_LONG_WAIT_NS);
        uint64_t waited = wn_os_now() - start;
        if (waited < WN_LONG_WAIT_NS) continue;
        naming = false; /* once is enough */
        const mutator *m = heap->mutators;
        while (m && (m == me || m->state == MUTATOR_STILL)) m = m->next;
        if (m) wn_world_say_who_is_waited_for(m, "a stop of the world", waited);
    }
    wn_wait_in(heap, false);
}

static void stop(wn_heap *heap, mutator *me, bool to_fork) {
    pthread_mutex_lock(&heap->world);
    if (heap->stopped && me && heap->stopper == me) {
        heap->stop_depth++;
        pthread_mutex_unlock(&heap->world);
        return;
    }
    if (me) {
        if (heap->stopped) wait_while_stopped(heap, me);
    } else {
        wn_wait_in(heap, true);
        while (heap->stopped) pthread_cond_wait(&heap->world_changed, &heap->world);
        wn_wait_in(heap, false);
    }
    heap->stopped = true;
    heap->stopper = me;
    heap->stop_depth = 1;
    wn_world_interrupt(heap);
    wait_for_others(heap, me, to_fork);
    pthread_mutex_unlock(&heap->world);
}

void wn_world_stop(wn_heap *heap, mutator *me) { stop(heap, me, false); }
void wn_world_stop_to_fork(wn_heap *heap, mutator *me) { stop(heap, me, true); }

/* With the world's lock. */
static void start(wn_heap *heap) {
    if (--heap->stop_depth) return;
    heap->stopped = heap->brief = false;
    heap->stopper = NULL;
    pthread_cond_broadcast(&heap->world_changed);
}

void wn_world_start(wn_heap *heap, mutator *me) {
    (void)me;
    pthread_mutex_lock(&heap->world);
    start(heap);
    pthread_mutex_unlock(&heap->world);
}

bool wn_world_try_stop(wn_heap *heap, mutator *me, uint64_t ns) {
    pthread_mutex_lock(&heap->world);
    bool all = !heap->stopped && !heap->forking;
    if (all) {
        heap->stopped = heap->brief = true;
        heap->stopper = me;
        heap->stop_depth = 1;
        wn_world_interrupt(heap);
        for (uint64_t until = wn_os_now() + ns; !(all = others_still(heap, me, false)) && wn_os_now() < until;)
            let_pass(heap);
        if (!all) start(heap);
    }
    pthread_mutex_unlock(&heap->world);
    return all;
}

void wn_world_park(mutator *me) {
    wn_heap *heap = me->heap;
    pthread_mutex_lock(&heap->world);
    if (heap->stopped && heap->stopper != me) wait_while_stopped(heap, me);
    pthread_mutex_unlock(&heap->world);
}

/* With the world's lock. */
static void run_helper(mutator *me) {
    wn_heap *heap = me->heap;
    while ((heap->stopped && heap->stopper != me) || heap->forking)
        pthread_cond_wait(&heap->world_changed, &heap->world);
    me->state = MUTATOR_RUNNING;
}
static void still_helper(mutator *me) {
    me->state = MUTATOR_STILL;
    pthread_cond_broadcast(&me->heap->world_changed);
}
void wn_helper_begin(mutator *me) {
    pthread_mutex_lock(&me->heap->world);
    run_helper(me);
    pthread_mutex_unlock(&me->heap->world);
}
void wn_helper_end(mutator *me) {
    pthread_mutex_lock(&me->heap->world);
    still_helper(me);
    pthread_mutex_unlock(&me->heap->world);
}
void wn_helper_park(mutator *me) {
    pthread_mutex_lock(&me->heap->world);
    __atomic_store_n(&me->fast.poll, 0, __ATOMIC_RELAXED);
    if ((me->heap->stopped && me->heap->stopper != me) || me->heap->forking) {
        still_helper(me);
        run_helper(me);
    }
    pthread_mutex_unlock(&me->heap->world);
}

void wn_poll_slow_(wn_mutator *fast) {
    mutator *m = wn_mutator_of(fast);
    if (!m->heap || fast->nested || !wn_check_running(m, "wn_poll")) return;
    __atomic_store_n(&fast->poll, 0, __ATOMIC_RELAXED);
    wn_world_park(m);
    if (m->heap->collector->poll) m->heap->collector->poll(m);
}

void wn_world_run(mutator *me) {
    pthread_mutex_lock(&me->heap->world);
    while (me->state == MUTATOR_STILL && me->heap->stopped && me->heap->stopper != me)
        pthread_cond_wait(&me->heap->world_changed, &me->heap->world);
    me->state = MUTATOR_RUNNING;
    pthread_mutex_unlock(&me->heap->world);
}

void wn_block_begin(wn_mutator *fast) {
    if (!wn_is_usable(wn_mutator_of(fast), "wn_block_begin")) return;
    mutator *m = wn_mutator_of(fast);
    wn_world_spill(m);
    pthread_mutex_lock(&m->heap->world);
    m->state = MUTATOR_STILL;
    pthread_cond_broadcast(&m->heap->world_changed);
    pthread_mutex_unlock(&m->heap->world);
}

void wn_block_end(wn_mutator *fast) {
    mutator *m = wn_mutator_of(fast);
    if (m->state == MUTATOR_RUNNING) {
        if (wn_is_usable(m, "wn_block_end") && m->heap->options.check)
            wn_misuse("blocking-section",
                      "wn_block_end without wn_block_begin: they come in pairs and do not nest; look "
                      "for one that was left by a jump or ended twice");
        return;
    }
    wn_world_run(m);
    wn_poll(fast);
}

void wn_stand_aside(mutator *m) {
    wn_block_begin(&m->fast);
    wn_os_nap(20000);
    wn_block_end(&m->fast);
}

void wn_no_collect_begin(wn_mutator *m) {
    if (wn_is_usable(wn_mutator_of(m), "wn_no_collect_begin")) m->nested++;
}
void wn_no_collect_end(wn_mutator *m) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_no_collect_end")) return;
    if (m->nested == 0)
        wn_misuse_if(wn_mutator_of(m)->heap->options.check, "no-collect",
                     "wn_no_collect_end: no scope is open: each wn_no_collect_end ends one wn_no_collect_begin");
    else if (--m->nested == 0)
        wn_poll(m);
}
