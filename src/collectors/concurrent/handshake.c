/*
 * handshake.c - talking to the program's threads one at a time, instead of stopping them all.
 *
 * A thread that runs serves a request at its next safepoint; one that stands still (in a blocking section, or waiting
 * for a cycle) is served by the conductor, under heap->world, which it needs to start running again. So each request is
 * served exactly once, by one of the two, and a thread that does not come to a safepoint holds up nothing but the
 * cycle.
 *
 * Served threads are not woken for it and do not wake anybody: the conductor looks again after a while.
 */
#include "collectors/concurrent/concurrent.h"

#include <stdio.h>

/* ---- what a thread does when asked ------------------------------------------------------------------------------- */

static void shade_slot(void **slot, void *context) {
    if (*slot) wn_cc_shade_own(context, *slot);
}

#define NO_SANITIZER __attribute__((no_sanitize("address", "thread", "undefined")))

/* Every word of a stack that is the address of something inside an object keeps that object. Reads what is no variable
 * of anybody, and what a blocked thread's callees may be changing: sanitizers must look away. */
NO_SANITIZER static void scan_words(mutator *m, const uintptr_t *from, const uintptr_t *to) {
    wn_space *space = &m->heap->space;
    while (from < to) {
        const uintptr_t *stop = to - from > 256 ? from + 256 : to;
        wn_os_lock_brief(&space->lock); /* the set of chunks must not change during a look-up */
        for (; from < stop; from++) {
            uintptr_t word = *from;
            WN_WRITTEN(word);
            void *o = word ? wn_space_object_at(space, (void *)word, false) : NULL;
            if (o && __atomic_load_n((void **)o, __ATOMIC_RELAXED)) wn_cc_shade_own(m, o);
        }
        pthread_mutex_unlock(&space->lock);
    }
}

void wn_cc_scan_roots(mutator *m) {
    wn_each_local_root(m, shade_slot, m);
    wn_cc_each_callback(m->late_callbacks, shade_slot, m);
    if (!m->heap->options.conservative_stacks || !m->stack_high) return;
    if (m->state == MUTATOR_STILL && m->stack_low) {
        scan_words(m, m->registers.word, m->registers.word + sizeof m->registers.word / sizeof m->registers.word[0]);
        scan_words(m, m->stack_low, m->stack_high);
    } else {
        wn_registers here;
        const uintptr_t *low = wn_os_spill_registers(&here, m->stack_high);
        scan_words(m, here.word, here.word + sizeof here.word / sizeof here.word[0]);
        scan_words(m, low, m->stack_high);
    }
}

/* H2: what is on the stack is shaded; from here on it is black, and so is what the thread makes (A1). */
static void scan_thread(mutator *m) {
    wn_cc_scan_roots(m);
    wn_cc_hand_over(m);
    wn_cc_of_mutator(m)->grey = false;
    wn_cc_blacken_buffers(m);
}

void wn_cc_serve(mutator *m, wn_cc_ask ask) {
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    switch (ask) {
    case WN_CC_ASK_BARRIER: /* H1 */
        m->fast.mode |= WN_MODE_SHADE_;
        c->grey = true;
        break;
    case WN_CC_ASK_SCAN: scan_thread(m); break; /* H2 */
    case WN_CC_ASK_FLUSH: /* H3 */ wn_cc_hand_over(m); break;
    case WN_CC_ASK_SWEEP: /* H4 */
        m->fast.mode &= ~(uint32_t)WN_MODE_SHADE_;
        if (c->buffer) c->buffer->used = 0; /* what it shaded since the end of marking means nothing */
        wn_drop_blocks(m);
        break;
    case WN_CC_ASK_NOTHING: break;
    }
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static void say_who_is_waited_for(wn_cc *cc, const mutator *m, wn_cc_ask ask, uint64_t waited) {
    static const char *const names[] = {"", "the barrier", "its stack", "its buffer", "sweeping"};
    char who[64];
    snprintf(who, sizeof who, "cycle %llu, with a handshake for %s,", (unsigned long long)cc->started, names[ask]);
    wn_world_say_who_is_waited_for(m, who, waited);
}

/* Puts the request to every thread; with heap->world. */
static void ask_all(wn_cc *cc, wn_cc_ask ask) {
    if (ask == WN_CC_ASK_BARRIER) cc->shading = true;
    if (ask == WN_CC_ASK_SCAN) __atomic_store_n(&cc->barrier_is_up, true, __ATOMIC_RELEASE);
    if (ask == WN_CC_ASK_SWEEP) cc->shading = false;
    for (mutator *m = cc->heap->mutators; m; m = m->next) {
        __atomic_store_n(&wn_cc_of_mutator(m)->ask, ask, __ATOMIC_RELEASE);
        __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELEASE);
    }
}

/* Serves on behalf of those that stand still; with heap->world. Returns one that runs and has not served yet, or NULL.
 */
static mutator *serve_still(wn_cc *cc, wn_cc_ask ask) {
    mutator *waiting = NULL;
    for (mutator *m = cc->heap->mutators; m; m = m->next) {
        wn_cc_mutator *c = wn_cc_of_mutator(m);
        if (__atomic_load_n(&c->ask, __ATOMIC_ACQUIRE) == WN_CC_ASK_NOTHING) continue;
        if (m->state == MUTATOR_STILL) {
            wn_cc_serve(m, ask);
            __atomic_store_n(&c->ask, WN_CC_ASK_NOTHING, __ATOMIC_RELEASE);
        } else {
            waiting = m;
        }
    }
    return waiting;
}

bool wn_cc_handshake(wn_cc *cc, wn_cc_ask ask, bool (*meanwhile)(wn_cc *cc)) {
    wn_heap *heap = cc->heap;
    uint64_t start = wn_os_now(), told = WN_LONG_WAIT_NS, sleep = 5000;
    pthread_mutex_lock(&heap->world);
    ask_all(cc, ask);
    for (;;) {
        mutator *waiting = serve_still(cc, ask);
        uint64_t waited = wn_os_now() - start;
        if (waited > cc->now.longest_wait_ns) cc->now.longest_wait_ns = waited;
        if (waiting && waited > told && wn_world_names_waits(heap)) {
            say_who_is_waited_for(cc, waiting, ask, waited);
            told *= 4;
        }
        pthread_mutex_unlock(&heap->world);
        if (!wn_cc_pause(cc, &cc->worker[0])) return false;
        if (!waiting) return true;
        if (!meanwhile || !meanwhile(cc)) {
            wn_os_nap(sleep);
            if (sleep < 100000) sleep *= 2;
        }
        pthread_mutex_lock(&heap->world);
    }
}

static void shade_root(void **slot, void *context) {
    void *o = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (o) wn_cc_mark_root(context, o);
}

bool wn_cc_scan_stopped(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    wn_cc_worker *w = &cc->worker[0];
    wn_world_stop(heap, &w->me);
    bool go_on = !cc->aborted;
    __atomic_store_n(&cc->barrier_is_up, go_on, __ATOMIC_RELEASE);
    uint64_t start = wn_os_now();
    for (mutator *m = heap->mutators; m && go_on; m = m->next) {
        __atomic_store_n(&wn_cc_of_mutator(m)->ask, WN_CC_ASK_NOTHING, __ATOMIC_RELEASE);
        scan_thread(m);
    }
    struct wn_tracer tracer = {shade_root, w};
    pthread_mutex_lock(&heap->roots_lock); /* threads that are not attached may add some */
    for (size_t i = 0; i < heap->scanner_count && go_on; i++) heap->scanners[i].scan(&tracer, heap->scanners[i].data);
    pthread_mutex_unlock(&heap->roots_lock);
    uint64_t stop = wn_os_now() - start;
    wn_world_start(heap, &w->me);
    wn_note_wait(heap, stop);
    return go_on && wn_cc_pause(cc, w);
}
