/*
 * collect.c - when a collection runs, and for how long: minors and the window, pacing, steps, what is asked for, what
 * is due afterwards.
 *
 * Pacing. A major must end before allocation has filled memory, however fast the program allocates, and no stop may be
 * long. So allocation owes: for each piece of the nursery that is handed out, `ratio` times its bytes are to be marked
 * or swept, and twice what a minor moves. What is owed is worked off at the moments a piece is handed out, in steps
 * that end after target_ns whether all is paid or not; the rest stays owed. Steps therefore never follow each other,
 * nor a minor, without the program having a piece to itself in between; and since even a step cut short marks far more
 * than a piece holds, allocation cannot outrun marking.
 *
 * Invariant: the world is stopped while a minor or a step works, and goes on before anybody is told of it: listeners,
 * callbacks and finalizers may allocate, and wait for other threads.
 */
#include "incremental.h"

#include <stdio.h>

enum {
    OWED_MIN = 64 << 10, /* less is not worth a stop */
    FINALIZE_PASSES = 5  /* of a full collection: finalizers may make new garbage with finalizers */
};

static bool goes_on(const incremental *inc) { return __atomic_load_n(&inc->phase, __ATOMIC_RELAXED) != IDLE; }

static wn_phase public_phase(phase p) {
    static const wn_phase as[] = {WN_PHASE_IDLE,    WN_PHASE_SCANNING, WN_PHASE_MARKING,   WN_PHASE_MARKING,
                                  WN_PHASE_MARKING, WN_PHASE_SWEEPING, WN_PHASE_FINALIZING};
    return as[p];
}

/* What all sweeps have freed so far. */
typedef struct freed {
    size_t objects, bytes;
} freed;

static freed freed_so_far(const incremental *inc) { return (freed){inc->freed_objects, inc->freed_bytes}; }

/* ---- telling ----------------------------------------------------------------------------------------------------- */

/* With the world stopped: counts a pause and notes what happened in it. */
static void note(incremental *inc, uint64_t since, uint64_t minors, bool step) {
    wn_heap *heap = inc->heap;
    uint64_t ns = wn_os_now() - since;
    pthread_mutex_lock(&heap->stats_lock);
    heap->stats.minors += minors;
    heap->stats.steps += step;
    heap->stats.generation[0].collections += minors;
    heap->stats.collections += minors;
    pthread_mutex_unlock(&heap->stats_lock);
    wn_note_pause(heap, ns);
}

/* A listener may allocate; but what that owes is worked off later, or the next would hear of the end before the start.
 */
static void tell_in_order(mutator *m, const wn_event *e) {
    m->fast.nested++;
    wn_tell(m, e);
    m->fast.nested--;
}

static void tell_start(mutator *m) {
    tell_in_order(m, &(wn_event){.kind = WN_EVENT_COLLECT_START,
                                 .generation = 2,
                                 .after = WN_PHASE_SCANNING,
                                 .bytes_before = inc_of(m->heap)->bytes_at_start});
}

/* A major is over: statistics, the trace, listeners. */
static void tell_stop(mutator *m) {
    incremental *inc = inc_of(m->heap);
    wn_event e = {.kind = WN_EVENT_COLLECT_STOP,
                  .generation = 2,
                  .result = {.collected = inc->freed_objects - inc->freed_objects_before,
                             .freed_bytes = inc->freed_bytes - inc->freed_bytes_before,
                             .duration_ns = wn_os_now() - inc->started_at},
                  .bytes_before = inc->bytes_at_start,
                  .bytes_after = wn_inc_major_used(inc),
                  .pinned = inc->pinned_at_stop};
    pthread_mutex_lock(&m->heap->stats_lock);
    wn_stats *s = &m->heap->stats;
    s->majors++;
    s->collections++;
    s->generation[2].collections++;
    s->generation[2].collected += e.result.collected;
    uint64_t number = s->majors;
    pthread_mutex_unlock(&m->heap->stats_lock);
    if (m->heap->options.trace)
        wn_trace_collection(m->heap, number, inc->started_at + e.result.duration_ns,
                            "heap %.1f -> %.1f MiB, next at %.1f, freed %zu; %.1f ms from start to end; "
                            "%llu minors so far",
                            wn_mib(e.bytes_before), wn_mib(e.bytes_after), wn_mib(inc->threshold), e.result.collected,
                            (double)e.result.duration_ns / 1e6, (unsigned long long)inc->minors);
    tell_in_order(m, &e);
    wn_verify_at(m, "after");
}

/* With the world running: tells listeners which majors have started and ended since this was asked last. */
static void tell_majors(mutator *m) {
    incremental *inc = inc_of(m->heap);
    uint64_t told = __atomic_load_n(&inc->told, __ATOMIC_RELAXED);
    while (WN_UNLIKELY(told != __atomic_load_n(&inc->turns, __ATOMIC_RELAXED)))
        if (__atomic_compare_exchange_n(&inc->told, &told, told + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            told++ % 2 == 0 ? tell_start(m) : tell_stop(m);
}

/* ---- minors ------------------------------------------------------------------------------------------------------ */

/* The window follows what minors cost: so long as they stay far below the target it grows, when they exceed it it
 * shrinks, and it is never so large that a minor in which everything survives takes more than twice the target. */
static void adapt_window(incremental *inc, uint64_t ns, size_t handed) {
    if (inc->moved_bytes > PIECE) {
        /* Bad news is believed sooner, because where most is born old minors that move much are few; but only so much
         * of it, because the thread may have been off the processor. */
        double now = (double)ns / (double)inc->moved_bytes, before = inc->ns_per_byte;
        if (now > 2 * before) now = 2 * before;
        inc->ns_per_byte += (now - before) / (now > before ? 2 : 8);
    } else if (inc->ns_per_byte > NS_PER_BYTE) {
        inc->ns_per_byte += (NS_PER_BYTE - inc->ns_per_byte) / 64; /* no news: forget slowly */
    }
    size_t w = inc->window;
    if (ns > inc->target_ns)
        w = (size_t)((double)w * (double)inc->target_ns / (double)ns);
    else if (ns < inc->target_ns / 2 && handed >= w / 2) /* else it says nothing about a window that is full */
        w += w / 4;
    double most = 2 * (double)inc->target_ns / inc->ns_per_byte;
    if ((double)w > most) w = (size_t)most;
    if (w < PIECE) w = PIECE;
    pthread_mutex_lock(&inc->counts_lock);
    inc->window = w < inc->nursery_size ? w : inc->nursery_size;
    pthread_mutex_unlock(&inc->counts_lock);
}

/* With the world stopped: a minor that counts what it leaves behind. */
static void counting_minor(mutator *m, wn_collect_result *result) {
    incremental *inc = inc_of(m->heap);
    inc->count_all = true;
    wn_inc_minor_run(inc, m);
    inc->count_all = false;
    result->collected += inc->dead_objects;
    result->freed_bytes += inc->dead_bytes;
}

/* Right after a minor in a stop that began then. */
static wn_event minor_event(const incremental *inc, uint64_t since) {
    return (wn_event){.kind = WN_EVENT_MINOR,
                      .result = {.duration_ns = wn_os_now() - since},
                      .bytes_after = wn_inc_major_used(inc),
                      .bytes_before = wn_inc_major_used(inc) - inc->moved_bytes,
                      .pinned = inc->pinned_young};
}

/* A minor, unless another thread ran one while this one waited for the world. `result`: counts what died, unless NULL.
 * `major`: one that waits for a minor goes on. */
static void minor(mutator *m, wn_collect_result *result, bool major) {
    incremental *inc = inc_of(m->heap);
    wn_verify_at(m, "before");
    uint64_t seen = inc->minors, since = wn_os_now();
    wn_world_stop(m->heap, m);
    if (inc->minors != seen) {
        wn_world_start(m->heap, m);
        return;
    }
    size_t handed = inc->handed;
    if (result)
        counting_minor(m, result);
    else
        wn_inc_minor_run(inc, m);
    uint64_t ns = wn_os_now() - since;
    if (inc->phase == MARKING) {
        __atomic_fetch_add(&inc->owed, 2 * inc->moved_bytes, __ATOMIC_RELAXED);
        if (major) wn_inc_major_try_to_end_marking(inc, since + inc->target_ns);
    }
    adapt_window(inc, ns, handed);
    wn_event e = minor_event(inc, since);
    note(inc, since, 1, false);
    wn_world_start(m->heap, m);
    wn_tell(m, &e);
    wn_verify_at(m, "after");
}

/* ---- finalizers and callbacks ------------------------------------------------------------------------------------ */

static void call_back(mutator *m) {
    wn_run_callbacks(m);
    if (!m->in_callbacks && own_of(m)->calls) __atomic_store_n(&own_of(m)->calls, false, __ATOMIC_RELAXED);
}

/* Whether another thread has callbacks to run that come before the finalizers that are due. Not one that came to block
 * before it could, which may last; and within a callback nobody waits, or two threads could wait for each other. */
static bool others_call(const mutator *me) {
    bool some = false;
    if (me->in_callbacks) return false;
    pthread_mutex_lock(&me->heap->world);
    for (mutator *m = me->heap->mutators; m && !some; m = m->next)
        some = m != me && __atomic_load_n(&own_of(m)->calls, __ATOMIC_RELAXED) &&
               (m->state == MUTATOR_RUNNING || m->in_callbacks);
    pthread_mutex_unlock(&me->heap->world);
    return some;
}

/* Runs weak reference callbacks, then finalizers until the deadline. Within a callback, where those that come first
 * have not all run, finalizers run all the same: for a client that asks there for a collection. Returns how many ran.
 */
static size_t run_due_now(mutator *m, uint64_t deadline) {
    incremental *inc = inc_of(m->heap);
    size_t n = m->callbacks.n - m->callback_at;
    mutator *nobody = NULL;
    call_back(m);
    if (__atomic_load_n(&inc->phase, __ATOMIC_RELAXED) != FINALIZING || others_call(m) ||
        !__atomic_compare_exchange_n(&inc->finalizer, &nobody, m, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return n;
    m->fast.nested++;
    while (inc->due.n) {
        wn_root(&m->fast, wn_object *, o, stack_pop(&inc->due));
        set_state(o, WN_STATE_FINALIZED_);
        o->type->finalize(&m->fast, o);
        n++;
        if (wn_os_now() >= deadline) break;
    }
    m->fast.nested--;
    if (!inc->due.n) {
        wn_world_stop(m->heap, m);
        if (inc->phase == FINALIZING) wn_inc_major_finish(inc);
        wn_world_start(m->heap, m);
    }
    __atomic_store_n(&inc->finalizer, NULL, __ATOMIC_RELEASE);
    return n;
}

/* What is due at a safepoint. */
static size_t run_due(mutator *m, uint64_t deadline) { return m->in_callbacks ? 0 : run_due_now(m, deadline); }

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void step(mutator *m, uint64_t deadline, bool all) {
    incremental *inc = inc_of(m->heap);
    uint64_t since = wn_os_now();
    wn_world_stop(m->heap, m);
    wn_event e = {.kind = WN_EVENT_STEP,
                  .generation = 2,
                  .before = public_phase(inc->phase),
                  .bytes_before = wn_inc_major_used(inc)};
    wn_inc_major_work(inc, m, deadline, all);
    e.after = public_phase(inc->phase);
    e.bytes_after = wn_inc_major_used(inc);
    e.result.duration_ns = wn_os_now() - since;
    note(inc, since, 0, true);
    wn_world_start(m->heap, m);
    wn_tell(m, &e);
}

/* Bytes outside the heap that objects came to hold since the last look: as good as allocated. */
static size_t external_growth(incremental *inc) {
    size_t now = __atomic_load_n(&inc->heap->external_bytes, __ATOMIC_RELAXED);
    size_t before = __atomic_exchange_n(&inc->external_seen, now, __ATOMIC_RELAXED);
    return (ptrdiff_t)(now - before) > 0 ? now - before : 0;
}

void wn_inc_collect_pace(mutator *m, size_t bytes) {
    incremental *inc = inc_of(m->heap);
    if (m->fast.nested) return;
    if (wn_callbacks_are_due(m)) call_back(m);
    if (WN_LIKELY(!goes_on(inc))) {
        if (WN_LIKELY(wn_inc_major_used(inc) < inc->threshold) || !wn_may_collect(m)) return;
        wn_world_stop(m->heap, m);
        if (inc->phase == IDLE) wn_inc_major_start(inc);
        wn_world_start(m->heap, m);
        tell_majors(m);
        return;
    }
    if (!wn_may_collect(m)) return;
    bytes += external_growth(inc);
    if (__atomic_load_n(&inc->phase, __ATOMIC_RELAXED) == FINALIZING) {
        run_due(m, wn_os_now() + inc->target_ns);
    } else {
        size_t owed = __atomic_add_fetch(&inc->owed, (size_t)((double)bytes * inc->ratio), __ATOMIC_RELAXED);
        if (!wn_inc_major_waits_for_minor(inc)) {
            if (owed >= OWED_MIN) step(m, wn_os_now() + inc->target_ns, false);
        } else if (owed >= inc->heap->options.step_bytes) {
            /* A nursery's worth was allocated elsewhere: what is born old must not put the end of marking off. */
            __atomic_store_n(&inc->owed, 0, __ATOMIC_RELAXED);
            minor(m, NULL, wn_may_collect(m));
        }
    }
    if (wn_callbacks_are_due(m)) call_back(m); /* others wait for it to run finalizers */
    tell_majors(m);
}

/* Ends a major that waits for its finalizers. Another thread may be running them: then this one stands still until that
 * is done, because a full collection has promised to have run them all. True: there were some. */
static bool end_finalizing(mutator *m) {
    incremental *inc = inc_of(m->heap);
    bool any = run_due_now(m, UINT64_MAX);
    while (__atomic_load_n(&inc->phase, __ATOMIC_RELAXED) == FINALIZING) {
        any = true;
        if (__atomic_load_n(&inc->finalizer, __ATOMIC_RELAXED) || others_call(m)) wn_stand_aside(m);
        run_due_now(m, UINT64_MAX);
    }
    return any;
}

/* Stops the world and ends the major that is under way: anew if it still marks, because what it has marked may be dead
 * by now, and with its finalizers, for which the world goes on. Returns when the last stop began. */
static uint64_t stop_between_majors(mutator *m) {
    incremental *inc = inc_of(m->heap);
    for (;;) {
        uint64_t since = wn_os_now();
        wn_world_stop(m->heap, m);
        if (is_marking(inc)) wn_inc_major_abort(inc, false);
        wn_inc_major_work(inc, m, UINT64_MAX, true);
        if (inc->phase != FINALIZING) return since;
        note(inc, since, 0, false);
        wn_world_start(m->heap, m);
        end_finalizing(m);
        tell_majors(m);
    }
}

/* In a stop that began then, which it ends: a minor that counts what it leaves behind, and the beginning of a major. */
static void begin_major(mutator *m, uint64_t since, wn_collect_result *result) {
    incremental *inc = inc_of(m->heap);
    counting_minor(m, result);
    wn_inc_major_start(inc);
    wn_event e = minor_event(inc, since);
    note(inc, since, 1, false);
    wn_world_start(m->heap, m);
    wn_tell(m, &e);
    tell_majors(m);
}

/* In one stop: all of the major that has begun but its finalizers. What is freed beyond `before` is added to the
 * result. WN_ERR_MEMORY, without a text: there was none for that. */
static wn_status run_major(mutator *m, freed before, wn_collect_result *result) {
    incremental *inc = inc_of(m->heap);
    uint64_t since = wn_os_now();
    wn_world_stop(m->heap, m);
    uint64_t minors = inc->minors;
    for (;;) {
        wn_inc_major_work(inc, m, UINT64_MAX, true);
        if (inc->phase != MARKING) break;
        wn_inc_minor_run(inc, m);
        wn_inc_major_try_to_end_marking(inc, UINT64_MAX);
        if (inc->phase == IDLE) break; /* given up for want of memory */
    }
    result->collected += inc->freed_objects - before.objects;
    result->freed_bytes += inc->freed_bytes - before.bytes;
    wn_status status = inc->gave_up ? WN_ERR_MEMORY : WN_OK;
    minors = inc->minors - minors;
    wn_event e = minor_event(inc, since);
    note(inc, since, minors, true);
    wn_world_start(m->heap, m);
    while (minors--) wn_tell(m, &e);
    wn_tell(m, &(wn_event){.kind = WN_EVENT_STEP, .generation = 2, .after = public_phase(inc->phase)});
    return status;
}

/* Everything unreachable goes: a major from start to end, with its finalizers, as often as those make new garbage. The
 * world goes on for a moment when it has started, so that listeners hear of that before it is over.
 * WN_ERR_MEMORY, without a text: there was none for that, and what is old and unreachable is still there. */
static wn_status full(mutator *m, wn_collect_result *result) {
    uint64_t begun = wn_os_now();
    wn_status status = WN_OK;
    wn_verify_at(m, "before");
    tell_majors(m); /* of one that a freeze has ended */
    for (int pass = 0; pass < FINALIZE_PASSES; pass++) {
        uint64_t since = stop_between_majors(m);
        freed before = freed_so_far(inc_of(m->heap));
        begin_major(m, since, result);
        status = run_major(m, before, result);
        bool ran = end_finalizing(m);
        tell_majors(m);
        if (!ran) break;
    }
    result->duration_ns = wn_os_now() - begun;
    return status;
}

void wn_inc_collect_all(mutator *m) {
    wn_collect_result ignored = {0};
    full(m, &ignored);
}

void wn_inc_collect_young(mutator *m) {
    minor(m, NULL, wn_may_collect(m));
    run_due(m, wn_os_now() + inc_of(m->heap)->target_ns);
    tell_majors(m);
}

wn_status wn_inc_collect(mutator *m, int generation, wn_collect_result *result) {
    incremental *inc = inc_of(m->heap);
    wn_collect_result ignored = {0};
    if (!result) result = &ignored;
    if (generation == 2) {
        if (!full(m, result)) return WN_OK;
        return wn_fail(WN_ERR_MEMORY,
                       "no memory for marking: only what was young has been collected; give back some, and "
                       "collect again");
    }
    uint64_t since = wn_os_now();
    minor(m, result, wn_may_collect(m));
    if (m->heap->options.stress && wn_may_collect(m)) {
        /* Under stress every chance is taken: a major is always under way, a short step at a time. */
        wn_world_stop(m->heap, m);
        if (inc->phase == IDLE) wn_inc_major_start(inc);
        __atomic_store_n(&inc->owed, 1, __ATOMIC_RELAXED);
        wn_inc_major_work(inc, m, UINT64_MAX, false);
        wn_world_start(m->heap, m);
    }
    run_due(m, UINT64_MAX);
    tell_majors(m);
    result->duration_ns = wn_os_now() - since;
    return WN_OK;
}

/* One step for the client: a minor if marking waits for one, then work until the deadline. */
static void client_step(mutator *m, uint64_t deadline, size_t owed) {
    incremental *inc = inc_of(m->heap);
    if (inc->phase == FINALIZING) {
        /* The thread that runs them may wait for this one to stand still. */
        wn_poll(&m->fast);
        run_due_now(m, deadline);
        if (__atomic_load_n(&inc->finalizer, __ATOMIC_RELAXED) || others_call(m)) wn_stand_aside(m);
        return;
    }
    if (inc->phase == IDLE) {
        wn_world_stop(m->heap, m);
        if (inc->phase == IDLE) wn_inc_major_start(inc);
        wn_world_start(m->heap, m);
        tell_majors(m);
    }
    if (wn_inc_major_waits_for_minor(inc)) minor(m, NULL, true);
    __atomic_store_n(&inc->owed, owed, __ATOMIC_RELAXED);
    step(m, deadline, false);
}

wn_status wn_inc_collect_step(mutator *m, uint64_t budget, wn_step_result *result) {
    incremental *inc = inc_of(m->heap);
    uint64_t since = wn_os_now();
    result->before = public_phase(inc->phase);
    freed before = freed_so_far(inc);
    size_t owed = __atomic_load_n(&inc->owed, __ATOMIC_RELAXED);
    if (!budget) {
        client_step(m, since + inc->target_ns, inc->heap->options.step_bytes);
    } else {
        /* A little is kept back for what a step does after its last look at the clock. */
        uint64_t deadline = since + budget - budget / 8;
        do {
            client_step(m, deadline, (size_t)-1);
        } while (inc->phase != IDLE && wn_os_now() < deadline);
    }
    /* What this was to do and did not is not owed by whoever allocates next. */
    if (__atomic_load_n(&inc->owed, __ATOMIC_RELAXED) > owed) __atomic_store_n(&inc->owed, owed, __ATOMIC_RELAXED);
    result->after = public_phase(inc->phase);
    result->major_is_done = inc->phase == IDLE;
    result->freed_objects = inc->freed_objects - before.objects;
    result->freed_bytes = inc->freed_bytes - before.bytes;
    call_back(m);
    tell_majors(m);
    result->duration_ns = wn_os_now() - since;
    return WN_OK;
}

void wn_inc_collect_poll(mutator *m) {
    incremental *inc = inc_of(m->heap);
    if (m->fast.nested) return;
    if (remembered_of(m)->n >= inc->remembered_max) minor(m, NULL, wn_may_collect(m));
    run_due(m, wn_os_now() + inc->target_ns);
    tell_majors(m);
}
