/*
 * pacer.c - when a cycle starts, and who must help so that it ends in time.
 *
 * After a cycle the heap may grow by heap_growth percent of what was traced as alive: that is the goal. The next cycle
 * starts so much earlier that at the measured rates (time per object marked, bytes allocated per time) it should end at
 * the goal. While it marks, each thread that takes another run of slots looks whether marking is as far as allocation:
 * the work done should be at least the same part of the work expected as the bytes allocated since the start are of the
 * room up to the goal. If it is behind, the thread helps, for WN_CC_ASSIST_NS at most: assists come often and are short
 * rather than rare and long, and when they do not suffice the heap overshoots rather than the program stalls. A thread
 * waits for the end of the cycle only far above the goal, above it where what objects hold outside the heap has grown
 * much since the last cycle began, which no assist makes up for, and at the hard limit, instead of failing.
 *
 * What objects hold outside the heap has a measure of its own: so much may be added to it between the starts of two
 * cycles as marking the heap is worth. It earns no room: which objects hold it is not known, so neither is whether
 * those are alive, and what a release hook gives back is never told: room for a part of it would grow with garbage.
 *
 * Near the limit the goal is what the limit leaves. It never comes closer to what is alive than an eighth of it, so
 * that a heap that hardly fits does not collect without end: it is allowed to run into the limit instead, which after a
 * cycle in vain is reported as out of memory.
 */
#include "collectors/concurrent/concurrent.h"

#include <stdio.h>

enum { LEAST_GOAL = 4 << 20, OVERSHOOT = 32 << 20, OUTSIDE = 32 << 20 };

static size_t at_least(size_t a, size_t b) { return a > b ? a : b; }

/* What may be allocated until the next cycle should be over, when so much is in use, of which a part was traced. As in
 * Go, a small heap has at least 4 MiB in all, times what heap_growth is of 100. */
static size_t room_beside(size_t used, size_t traced, unsigned percent) {
    size_t least = (size_t)LEAST_GOAL / 100 * percent;
    return at_least((size_t)((double)traced * percent / 100), least > used ? least - used : 0);
}

/* What may be in use at most: the limit less side tables, and less what is lost in partly filled blocks. */
static size_t most_in_use(const wn_cc *cc, size_t live) {
    const wn_space *space = &cc->heap->space;
    if (!space->limit) return SIZE_MAX;
    size_t blocks = __atomic_load_n(&space->block_bytes, __ATOMIC_RELAXED), whole = space->limit - space->limit / 13;
    size_t free_blocks = whole > blocks ? whole - blocks : 0, in_blocks = blocks > live ? blocks - live : 0;
    return live + free_blocks + in_blocks / 2;
}

static void set_goal(wn_cc *cc, size_t live) {
    unsigned percent = cc->heap->options.heap_growth;
    /* What was born black while the cycle marked is there, but most of it may be dead: room is earned by what was
     * traced. */
    size_t black = cc->now.used_at_close > cc->used_at_start ? cc->now.used_at_close - cc->used_at_start : 0;
    size_t traced = live > black + live / 4 ? live - black : live / 4;
    size_t room = SIZE_MAX / 4;
    if (percent != WN_NEVER) room = room_beside(live, traced, percent);
    size_t goal = live + room, most = most_in_use(cc, live);
    if (goal > most) goal = at_least(most, live + live / 8);
    room = goal - live;
    /* What will be allocated while the next cycle lasts, with a third more for what cannot be foreseen. */
    double lasts = (double)cc->now.work * cc->ns_per_work + cc->ns_beside + 1e5;
    double ahead = cc->bytes_per_ns * lasts * 1.33;
    double part = ahead / (double)room;
    if (part < 0.05) part = 0.05;
    if (part > 0.4) part = 0.4;
    __atomic_store_n(&cc->goal, goal, __ATOMIC_RELAXED);
    __atomic_store_n(&cc->trigger, goal - (size_t)(part * (double)room), __ATOMIC_RELAXED);
}

/* How much of what may come to be held outside between the starts of two cycles has: as much may as may be allocated
 * beside the heap, and enough for a small one not to collect all the time. */
static double part_outside(const wn_cc *cc) {
    size_t now = __atomic_load_n(&cc->heap->external_bytes, __ATOMIC_RELAXED);
    size_t before = __atomic_load_n(&cc->external_at_start, __ATOMIC_RELAXED), limit = cc->heap->space.limit;
    unsigned percent = cc->heap->options.heap_growth;
    if (WN_LIKELY((ptrdiff_t)(now - before) <= 0) || percent == WN_NEVER) return 0;
    double room = (double)(OUTSIDE + wn_cc_used(cc)) * percent / 100;
    if (limit && room > (double)limit / 2) room = (double)limit / 2;
    return (double)(now - before) / room;
}

/* For what is held outside when half of the room is used, so that the program need not wait for the cycle's end. */
static bool is_due(const wn_cc *cc) {
    return wn_cc_used(cc) >= __atomic_load_n(&cc->trigger, __ATOMIC_RELAXED) || part_outside(cc) > 0.5;
}

void wn_cc_pace_start(wn_cc *cc) {
    __atomic_store_n(&cc->used_at_start, wn_cc_used(cc), __ATOMIC_RELAXED);
    __atomic_store_n(&cc->external_at_start, __atomic_load_n(&cc->heap->external_bytes, __ATOMIC_RELAXED),
                     __ATOMIC_RELAXED);
    uint64_t now = wn_os_now();
    size_t allocated = __atomic_load_n(&cc->heap->space.allocated_bytes, __ATOMIC_RELAXED);
    if (cc->last_end && now > cc->last_end) {
        double rate = (double)(allocated - cc->last_allocated) / (double)(now - cc->last_end);
        cc->bytes_per_ns = cc->bytes_per_ns ? (cc->bytes_per_ns + rate) / 2 : rate;
    }
    __atomic_store_n(&cc->work_done, 0, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&cc->goal, __ATOMIC_RELAXED))
        set_goal(cc, cc->used_at_start); /* asked for before the first allocation */
}

void wn_cc_pace_end(wn_cc *cc) {
    size_t used = wn_cc_used(cc), done = __atomic_load_n(&cc->work_done, __ATOMIC_RELAXED);
    uint64_t now = wn_os_now();
    cc->now.work = done;
    /* What was allocated while the sweep went on is not known to be alive. */
    size_t since = cc->now.used_at_close > cc->now.freed_bytes ? cc->now.used_at_close - cc->now.freed_bytes : 0;
    cc->now.live = since < used ? since : used;
    if (done && cc->now.closed > cc->now.scan) {
        double rate = (double)(cc->now.closed - cc->now.scan) / (double)done;
        cc->ns_per_work = cc->ns_per_work ? (cc->ns_per_work + rate) / 2 : rate;
    }
    if (cc->now.sweep > cc->now.closed && cc->now.closed > cc->now.scan) {
        double beside = (double)(cc->now.scan - cc->now.start + (cc->now.sweep - cc->now.closed));
        cc->ns_beside = cc->ns_beside ? (cc->ns_beside + beside) / 2 : beside;
    }
    __atomic_store_n(&cc->work_expected, done, __ATOMIC_RELAXED);
    cc->last_end = now;
    cc->last_allocated = __atomic_load_n(&cc->heap->space.allocated_bytes, __ATOMIC_RELAXED);
    set_goal(cc, cc->now.live);
    __atomic_store_n(&cc->largest, 0, __ATOMIC_RELAXED);
    if (cc->now.freed_bytes) __atomic_store_n(&cc->futile_at, 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(&cc->cpu_total_ns, cc->now.cpu_ns + cc->now.assist_ns, __ATOMIC_RELAXED);
}

void wn_cc_pace_failed(wn_cc *cc) {
    unsigned percent = cc->heap->options.heap_growth;
    if (percent == WN_NEVER) return;
    size_t used = wn_cc_used(cc), room = room_beside(used, used, percent);
    __atomic_store_n(&cc->goal, used + room, __ATOMIC_RELAXED);
    __atomic_store_n(&cc->trigger, used + room / 2, __ATOMIC_RELAXED);
}

/* Whether marking is behind allocation, so that the thread must help. */
static bool behind(const wn_cc *cc, size_t used) {
    size_t goal = __atomic_load_n(&cc->goal, __ATOMIC_RELAXED);
    size_t start = __atomic_load_n(&cc->used_at_start, __ATOMIC_RELAXED);
    size_t expected = __atomic_load_n(&cc->work_expected, __ATOMIC_RELAXED);
    if (used >= goal) return true;
    if (used <= start) return false;
    double allocated = (double)(used - start) / (double)(goal - start);
    double marked = (double)__atomic_load_n(&cc->work_done, __ATOMIC_RELAXED) / ((double)expected + 1);
    return marked < allocated;
}

static void want_cycle(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    pthread_mutex_lock(&m->heap->world);
    if (wn_cc_phase_of(cc) == WN_CC_IDLE && cc->started == cc->finished) wn_cc_want(cc, cc->started + 1);
    pthread_mutex_unlock(&m->heap->world);
}

/* In a forked child: no cycle, but the thread that ends the parent's sweep. */
static void want_sweeper(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    pthread_mutex_lock(&m->heap->world);
    wn_cc_want(cc, cc->started);
    __atomic_store_n(&cc->unattended, !cc->worker[0].running, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&m->heap->world);
}

/* Whether so much more is taken than should be that the thread has to wait for the end of a cycle: assists do not hold
 * the heap when markers get no processor, and it must not grow without bound; and none makes up for what is held
 * outside. */
static bool must_wait(const wn_cc *cc, size_t used) {
    size_t goal = __atomic_load_n(&cc->goal, __ATOMIC_RELAXED);
    if (part_outside(cc) > 1) return true;
    if (WN_LIKELY(used <= goal) || !goal) return false; /* before the first cycle there is no goal to miss */
    /* Where single objects are large, one or two of them more are no reason to wait. */
    return used > goal + goal / 2 + OVERSHOOT + 2 * __atomic_load_n(&cc->largest, __ATOMIC_RELAXED);
}

void wn_cc_pace(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    size_t used = wn_cc_used(cc);
    switch (wn_cc_phase_of(cc)) {
    case WN_CC_IDLE:
        if (WN_LIKELY(!is_due(cc)) || !wn_may_collect(m)) return;
        want_cycle(m);
        break;
    case WN_CC_MARKING:
        if (behind(cc, used)) wn_cc_assist(m, WN_CC_ASSIST_NS);
        break;
    case WN_CC_SWEEPING:
        if (WN_UNLIKELY(__atomic_load_n(&cc->unattended, __ATOMIC_RELAXED)) && is_due(cc)) want_sweeper(m);
        break;
    default: break;
    }
    if (WN_UNLIKELY(must_wait(cc, used)) && wn_may_collect(m)) wn_cc_wait_for_cycle(m, false);
}

void wn_cc_pace_large(mutator *m, size_t bytes) {
    wn_cc *cc = wn_cc_of(m->heap);
    if (bytes > __atomic_load_n(&cc->largest, __ATOMIC_RELAXED))
        __atomic_store_n(&cc->largest, bytes, __ATOMIC_RELAXED); /* of two threads at once, either will do */
    wn_cc_pace(m);
}

/* The next safepoint looks at the pace. */
void wn_cc_external(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    size_t now = __atomic_load_n(&m->heap->external_bytes, __ATOMIC_RELAXED);
    size_t before = __atomic_load_n(&cc->external_at_start, __ATOMIC_RELAXED);
    /* What was given back since then and comes again has grown, too. */
    if ((ptrdiff_t)(now - before) < 0) __atomic_store_n(&cc->external_at_start, now, __ATOMIC_RELAXED);
    if (is_due(cc)) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

static double ms(uint64_t from, uint64_t to) { return to > from ? (double)(to - from) / 1e6 : 0; }

void wn_cc_trace(wn_cc *cc) {
    const wn_cc_cycle *c = &cc->now;
    uint64_t total = __atomic_load_n(&cc->cpu_total_ns, __ATOMIC_RELAXED), life = c->end - cc->heap->made_at;
    wn_trace_collection(
        cc->heap, cc->started, c->end,
        "heap %.1f -> %.1f -> %.1f MiB, goal %.1f, freed %zu; barrier %.3f + mark %.2f + dead %.2f + sweep %.2f ms; "
        "cpu %.2f + assist %.2f ms, %.1f%% so far; %u worker%s, %u round%s, handshake %.3f ms",
        wn_mib(cc->used_at_start), wn_mib(c->used_at_close), wn_mib(c->live),
        wn_mib(__atomic_load_n(&cc->goal, __ATOMIC_RELAXED)), c->freed_objects, ms(c->start, c->scan),
        ms(c->scan, c->closed), ms(c->closed, c->sweep), ms(c->sweep, c->end), (double)c->cpu_ns / 1e6,
        (double)c->assist_ns / 1e6, 100.0 * (double)total / ((double)life * cc->processors), cc->workers,
        cc->workers > 1 ? "s" : "", c->rounds, c->rounds > 1 ? "s" : "", (double)c->longest_wait_ns / 1e6);
}
