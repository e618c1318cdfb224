/*
 * incremental.c - the collector's operations: allocation and what it sets off, explicit collections, pacing,
 * statistics.
 *
 * Pacing. A major must end before allocation has filled memory, however fast the program allocates, and no stop may be
 * long. So allocation owes: for each piece of the nursery that is handed out, `ratio` times its bytes are to be marked
 * or swept, and twice what a minor moves. What is owed is worked off at the moments a piece is handed out, in steps
 * that end after target_ns whether all is paid or not; the rest stays owed. Steps therefore never follow each other,
 * nor a minor, without the program having a piece to itself in between; and since even a step cut short marks far more
 * than a piece holds, allocation cannot outrun marking.
 */
#include "incremental.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WINDOW_MIN = PIECE,
    OWED_MIN = 64 << 10, /* less is not worth a stop */
    FINALIZE_PASSES = 5  /* of a full collection: finalizers may make new garbage with finalizers */
};

static const uint64_t target_default_ns = 400000;
static const double ns_per_byte_default = 0.4;

static bool goes_on(const incremental *inc) { return __atomic_load_n(&inc->phase, __ATOMIC_RELAXED) != IDLE; }

static wn_phase public_phase(phase p) {
    static const wn_phase as[] = {WN_PHASE_IDLE,    WN_PHASE_SCANNING, WN_PHASE_MARKING,   WN_PHASE_MARKING,
                                  WN_PHASE_MARKING, WN_PHASE_SWEEPING, WN_PHASE_FINALIZING};
    return as[p];
}

/* Atomic, while the world runs: the table of weak references changes the same byte under a lock of its own. */
static void set_state(void *object, uint8_t bits) { __atomic_fetch_or(&wn_meta_(object)[1], bits, __ATOMIC_RELAXED); }

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

static void tell_turn(mutator *m, bool start) {
    incremental *inc = inc_of(m->heap);
    if (start) {
        wn_event e = {.kind = WN_EVENT_COLLECT_START,
                      .generation = 2,
                      .after = WN_PHASE_SCANNING,
                      .bytes_before = inc->bytes_at_start};
        tell_in_order(m, &e);
    } else {
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
                                wn_mib(e.bytes_before), wn_mib(e.bytes_after), wn_mib(inc->threshold),
                                e.result.collected, (double)e.result.duration_ns / 1e6,
                                (unsigned long long)inc->minors);
        tell_in_order(m, &e);
        wn_verify_at(m, "after");
    }
}

/* With the world running: tells listeners which majors have started and ended since this was asked last. */
static void tell_majors(mutator *m) {
    incremental *inc = inc_of(m->heap);
    uint64_t told = __atomic_load_n(&inc->told, __ATOMIC_RELAXED);
    while (WN_UNLIKELY(told != __atomic_load_n(&inc->turns, __ATOMIC_RELAXED)))
        if (__atomic_compare_exchange_n(&inc->told, &told, told + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            tell_turn(m, told++ % 2 == 0);
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
    } else if (inc->ns_per_byte > ns_per_byte_default) {
        inc->ns_per_byte += (ns_per_byte_default - inc->ns_per_byte) / 64; /* no news: forget slowly */
    }
    size_t w = inc->window;
    if (ns > inc->target_ns)
        w = (size_t)((double)w * (double)inc->target_ns / (double)ns);
    else if (ns < inc->target_ns / 2 && handed >= w / 2) /* else it says nothing about a window that is full */
        w += w / 4;
    double most = 2 * (double)inc->target_ns / inc->ns_per_byte;
    if ((double)w > most) w = (size_t)most;
    if (w < WINDOW_MIN) w = WINDOW_MIN;
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

/* The program allocated: what it owes for that is worked off if it is enough to be worth a stop. */
static void pace(mutator *m, size_t bytes) {
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

/* Everything unreachable goes: a major from start to end, with its finalizers, as often as those make new garbage. The
 * world goes on for a moment when it has started, so that listeners hear of that before it is over.
 * WN_ERR_MEMORY, without a text: there was none for that, and what is old and unreachable is still there. */
static wn_status full(mutator *m, wn_collect_result *result) {
    incremental *inc = inc_of(m->heap);
    wn_heap *heap = m->heap;
    uint64_t begun = wn_os_now();
    wn_status status = WN_OK;
    wn_verify_at(m, "before");
    tell_majors(m); /* of one that a freeze has ended */
    for (int pass = 0; pass < FINALIZE_PASSES; pass++) {
        uint64_t since = wn_os_now();
        wn_world_stop(heap, m);
        if (is_marking(inc)) wn_inc_major_abort(inc, false);
        wn_inc_major_work(inc, m, UINT64_MAX, true);
        while (inc->phase == FINALIZING) {
            note(inc, since, 0, false);
            wn_world_start(heap, m);
            end_finalizing(m);
            tell_majors(m);
            since = wn_os_now();
            wn_world_stop(heap, m);
            if (is_marking(inc)) wn_inc_major_abort(inc, false); /* another thread has begun the next one already */
            wn_inc_major_work(inc, m, UINT64_MAX, true);
        }
        counting_minor(m, result);
        size_t objects = inc->freed_objects, bytes = inc->freed_bytes;
        wn_inc_major_start(inc);
        wn_event e = minor_event(inc, since);
        note(inc, since, 1, false);
        wn_world_start(heap, m);
        wn_tell(m, &e);
        tell_majors(m);
        since = wn_os_now();
        wn_world_stop(heap, m);
        uint64_t minors = inc->minors;
        for (;;) {
            wn_inc_major_work(inc, m, UINT64_MAX, true);
            if (inc->phase != MARKING) break;
            wn_inc_minor_run(inc, m);
            wn_inc_major_try_to_end_marking(inc, UINT64_MAX);
            if (inc->phase == IDLE) break; /* given up for want of memory */
        }
        result->collected += inc->freed_objects - objects;
        result->freed_bytes += inc->freed_bytes - bytes;
        status = inc->gave_up ? WN_ERR_MEMORY : WN_OK;
        minors = inc->minors - minors;
        e = minor_event(inc, since);
        note(inc, since, minors, true);
        wn_world_start(heap, m);
        while (minors--) wn_tell(m, &e);
        wn_tell(m, &(wn_event){.kind = WN_EVENT_STEP, .generation = 2, .after = public_phase(inc->phase)});
        bool ran = end_finalizing(m);
        tell_majors(m);
        if (!ran) break;
    }
    result->duration_ns = wn_os_now() - begun;
    return status;
}

static wn_status collect(mutator *m, int generation, wn_collect_result *result) {
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

static wn_status collect_step(mutator *m, uint64_t budget, wn_step_result *result) {
    incremental *inc = inc_of(m->heap);
    uint64_t since = wn_os_now();
    result->before = public_phase(inc->phase);
    size_t objects = inc->freed_objects, bytes = inc->freed_bytes;
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
    result->freed_objects = inc->freed_objects - objects;
    result->freed_bytes = inc->freed_bytes - bytes;
    call_back(m);
    tell_majors(m);
    result->duration_ns = wn_os_now() - since;
    return WN_OK;
}

static void poll(mutator *m) {
    incremental *inc = inc_of(m->heap);
    if (m->fast.nested) return;
    if (remembered_of(m)->n >= inc->remembered_max) minor(m, NULL, wn_may_collect(m));
    run_due(m, wn_os_now() + inc->target_ns);
    tell_majors(m);
}

/* ---- allocation -------------------------------------------------------------------------------------------------- */

/* No memory: a collection may find some. Not for a listener, which might hear of it and ask again, without end. */
static bool make_room(mutator *m) {
    if (m->fast.nested || wn_is_telling(m->heap)) return false;
    wn_collect_result ignored = {0};
    full(m, &ignored);
    return true;
}

/* A place on the list of finalizable objects, or NULL. It is the caller's until the next safepoint. */
static void **take_place(incremental *inc) {
    stack *s = &inc->finalizable;
    pthread_mutex_lock(&inc->lock);
    void **place = stack_push(s, NULL) ? &s->top->at[s->top->n - 1] : NULL;
    pthread_mutex_unlock(&inc->lock);
    return place;
}

/* One that could not be noted would never be finalized, so that comes first; a place that stays empty is struck out. */
static void *make_old(incremental *inc, const wn_type *type, size_t bytes, unsigned kind) {
    void **place = type->finalize ? take_place(inc) : NULL;
    if (type->finalize && !place) return NULL;
    void *o = wn_inc_old_allocate(inc, type, bytes, kind);
    if (place) *place = o;
    return o;
}

static void *born_old(mutator *m, const wn_type *type, size_t bytes, bool special) {
    incremental *inc = inc_of(m->heap);
    unsigned kind = special ? KIND_SPECIAL : KIND_PLAIN;
    pace(m, bytes);
    void *o = make_old(inc, type, bytes, kind);
    if (!o && make_room(m)) o = make_old(inc, type, bytes, kind);
    if (!o) return wn_out_of_memory(m->heap, bytes);
    if (type->flags & WN_TYPE_EPHEMERON) __atomic_store_n(&inc->ephemerons, true, __ATOMIC_RELAXED);
    return o;
}

/* A place in the nursery, from a new piece or of its own. NULL when the window is used up. */
static void *young_slot(mutator *m, size_t slot, bool beyond) {
    wn_buffer_ *b = &m->buffers[0];
    stretch piece;
    if ((size_t)(b->limit - b->cursor) >= slot) {
        b->cursor += slot;
        return b->cursor - slot;
    }
    if (!wn_inc_nursery_take(inc_of(m->heap), slot, beyond, &piece)) return NULL;
    if ((size_t)(piece.end - piece.start) == slot) return piece.start;
    *b = (wn_buffer_){piece.start + slot, piece.end};
    return piece.start;
}

/* Objects of so many bytes without references are born old: a minor would have to copy those that survive, and to mark
 * and sweep one costs no more than a small one. */
enum { BORN_OLD = 512 };

/* An old slot of the mutator's own run, or of the next. NULL when memory is out. */
static void *old_slot(mutator *m, unsigned cls, size_t slot, bool tenured) {
    wn_buffer_ *b = &m->buffers[cls];
    if (b->cursor == b->limit) {
        size_t taken = own_of(m)->taken;
        own_of(m)->taken = 0;
        pace(m, taken);
        if (b->cursor == b->limit && !wn_inc_old_refill_own(m, cls)) return NULL;
        if (tenured) wn_inc_tenure_spend(inc_of(m->heap), (size_t)(b->limit - b->cursor));
    }
    b->cursor += slot;
    return b->cursor - slot;
}

static void *allocate(mutator *m, const wn_type *type, size_t bytes) {
    incremental *inc = inc_of(m->heap);
    bool special = type->finalize || type->release || type->flags & (WN_TYPE_WEAKREF | WN_TYPE_EPHEMERON);
    if (special || bytes > WN_SMALL_MAX_ || type->flags & WN_TYPE_PINNED) return born_old(m, type, bytes, special);
    size_t slot = wn_slot_size_(bytes);
    unsigned cls = wn_class_of_slot_(slot);
    wn_buffer_ *b = &m->buffers[0];
    wn_object *o = NULL;
    bool large_leaf = bytes >= BORN_OLD && !wn_has_refs_(type);
    if (large_leaf || wn_inc_tenure_is_born_old(inc, cls)) {
        o = old_slot(m, cls, slot, !large_leaf);
        if (o) o->type = type;
        if (o) return o;
        if (large_leaf) return born_old(m, type, bytes, false);
        wn_inc_tenure_end(inc); /* the nursery's memory is there already */
    }
    m->fast.from[cls] = &m->fast.buffer[0];
    if ((size_t)(b->limit - b->cursor) < slot) pace(m, slot > PIECE / SMALL_PIECES ? slot : PIECE);
    o = young_slot(m, slot, false);
    if (!o && !m->fast.nested) {
        minor(m, NULL, wn_may_collect(m));
        run_due(m, wn_os_now() + inc->target_ns);
        tell_majors(m);
        o = young_slot(m, slot, false);
    }
    /* Other threads may have used up what that minor left: no reason for a whole major. */
    if (!o) o = young_slot(m, slot, true);
    if (!o) {
        void *old = wn_inc_old_allocate(inc, type, bytes, KIND_PLAIN);
        if (old) return old;
        if (make_room(m)) o = young_slot(m, slot, true);
    }
    if (!o) return born_old(m, type, bytes, false);
    if (type->item_size) /* all of it is small: the narrower division is the cheaper one */
        *(size_t *)((char *)o + type->length_at) = (uint32_t)(bytes - type->size) / type->item_size;
    __atomic_store_n(&o->type, type, __ATOMIC_RELEASE);
    if (WN_UNLIKELY(m->all_slow)) wn_inc_nursery_note(o);
    return o;
}

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
    inc->ns_per_byte = ns_per_byte_default;
    inc->window = inc->nursery_size < 512 << 10 ? inc->nursery_size : 512 << 10;
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
    .allocate = allocate,
    .store = wn_inc_barrier_store,
    .poll = poll,
    .collect = collect,
    .step = collect_step,
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
