/*
 * test_given_up.c - moments of a cycle of the concurrent collector that a program meets by chance only. Cycles that do
 * not come to their end, for want of memory, for a freeze, in a forked child: nothing that is reachable is lost, no
 * death is half done, and the next cycle makes good what this one could not. And cycles amid which threads leave, roots
 * come and memory is given back, with the conductor held where the test wants it.
 */
#include "client/client.h"

#include "collectors/concurrent/concurrent.h"
#include "starve.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <winnow/inspect.h>

static client open_concurrent(void) {
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_CONCURRENT;
    return client_open(&o);
}

static void what_frozen_objects_refer_to_lives(void **state) {
    (void)state;
    enum { N = 1000 };
    client c = open_concurrent();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        for (long i = 0; i < N; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
        client_collect(m);
        assert_int_equal(wn_freeze(m), WN_OK);
        {
            wn_root(m, vector *, given, client_new_array(m, &vector_type, N));
            for (long i = 0; i < N; i++) wn_move(m, given, items[i], client_relic(m, i, NULL, NULL));
            starve(ANY);
            for (long i = 0; i < N; i++) wn_set(m, (pair *)all->items[i], a, given->items[i]);
            assert_true(feed() > 0);
        }
        for (int i = 0; i < 3; i++) client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        for (long i = 0; i < N; i++) assert_int_equal(((mortal *)((pair *)all->items[i])->a)->id, i);
        for (long i = 0; i < N; i++) wn_set(m, (pair *)all->items[i], a, NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), N);
        assert_int_equal(wn_unfreeze(m), WN_OK);
    }
    client_close(&c);
}

static _Atomic long called;
static void count_call(wn_mutator *m, wn_weakref *r, void *data) {
    (void)m, (void)r, (void)data;
    called++;
}

/* Of those that outlive a collection without memory, and of those that die in it. */
static void finalizers_and_callbacks_run_all(void **state) {
    (void)state;
    enum { N = 5000 };
    for (int dead = 0; dead < 2; dead++) {
        client c = open_concurrent();
        wn_mutator *m = c.m;
        wn_disable(c.heap);
        called = 0;
        {
            wn_root(m, vector *, weak, client_new_array(m, &vector_type, N));
            wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
            for (long i = 0; i < N; i++) {
                wn_move(m, all, items[i], client_mortal(m, i, NULL, NULL));
                wn_move(m, weak, items[i], wn_weakref_new(m, all->items[i], count_call, NULL));
            }
            client_collect(m); /* its threads exist */
            if (dead) wn_assign(m, all, NULL);
            starve(MALLOC);
            wn_status status = wn_collect(m, 2, NULL);
            feed();
            assert_int_equal(status, WN_OK);
            wn_assign(m, all, NULL);
            client_collect(m);
            assert_int_equal(called, N);
            assert_int_equal(client_total(EVENT_FINALIZE), N);
            assert_int_equal(client_total(EVENT_RELEASE), N);
        }
        client_close(&c);
    }
}

/* What cannot be noted as finalizable is not made. */
static void an_object_with_a_finalizer_is_noted_or_not_made(void **state) {
    (void)state;
    enum { MOST = 1 << 16 };
    client c = open_concurrent();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    for (long i = 0; i < 100; i++) wn_release(m, client_mortal(m, i, NULL, NULL));
    long made = 100;
    starve(ANY);
    for (mortal *p; made < MOST && (p = wn_new(m, &mortal_type)); made++) p->id = made;
    assert_true(feed() > 0);
    assert_true(made < MOST);
    assert_non_null(strstr(wn_error_message(), "finalizer"));
    assert_int_equal(wn_verify(m, stderr), 0);
    client_collect(m);
    assert_int_equal(client_total(EVENT_FINALIZE), made);
    assert_int_equal(client_total(EVENT_RELEASE), made);
    client_close(&c);
}

/* For what a thread shades, for the marker's stack, for the rest of long arrays: each by itself. */
static vector *everything;
static void a_collection_without_memory_is_an_error(void **state) {
    (void)state;
    enum { DEAD = 300, LONG = 5000, SLICES = 256 << 10 };
    static const struct {
        bool on_stack, is_long;
        size_t refused;
    } ways[] = {{true, false, ANY}, {false, false, ANY}, {false, true, SLICES}};
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        client c = open_concurrent();
        wn_mutator *m = c.m;
        wn_disable(c.heap);
        assert_int_equal(wn_global(c.heap, &everything), WN_OK);
        wn_take(m, everything, ways[way].is_long ? client_new_array(m, &vector_type, LONG) : make_wide_and_deep(m));
        for (size_t i = 0; i < everything->length && ways[way].is_long; i++)
            wn_move(m, everything, items[i], client_pair(m, (long)i, NULL, NULL));
        wn_collect_result r;
        {
            wn_root(m, vector *, kept, NULL);
            if (ways[way].on_stack) {
                wn_assign(m, kept, everything);
                wn_take(m, everything, NULL);
            }
            for (long i = 0; i < DEAD; i++) wn_release(m, client_pair(m, i, NULL, NULL));
            starve(ways[way].refused);
            wn_status status = wn_collect(m, 2, &r);
            assert_true(feed() > 0);
            assert_int_equal(status, WN_ERR_MEMORY);
            assert_non_null(strstr(wn_error_message(), "memory"));
            assert_int_equal(r.collected, 0);
            assert_int_equal(wn_collect(m, 2, &r), WN_OK);
            assert_int_equal(r.collected, DEAD);
        }
        assert_int_equal(wn_forget_global(m, &everything), WN_OK);
        client_close(&c);
    }
}

/* There is none for the lists of blocks to sweep: then they are swept without. Huge objects' memory goes with them. */
static void a_sweep_needs_no_memory(void **state) {
    (void)state;
    enum { N = 10000, HUGES = 3 };
    client c = open_concurrent();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    wn_collect_result r;
    for (long i = 0; i < N; i++) wn_release(m, client_relic(m, i, NULL, NULL));
    for (int i = 0; i < HUGES; i++) wn_release(m, client_new_array(m, &blob_type, WN_HUGE_MIN));
    starve((size_t)1 << 20);
    assert_int_equal(wn_collect(m, 2, &r), WN_OK);
    assert_true(feed() > 0);
    assert_int_equal(r.collected, N + HUGES);
    assert_int_equal(client_total(EVENT_RELEASE), N);
    client_close(&c);
}

static _Atomic unsigned starts;
static void count_start(wn_mutator *m, const wn_event *e, void *data) {
    (void)m, (void)data;
    if (e->kind == WN_EVENT_COLLECT_START) starts++;
}

/* A cycle that fails would fail again at once. */
static void cycles_without_memory_do_not_follow_each_other_without_end(void **state) {
    (void)state;
    client c = open_concurrent();
    wn_mutator *m = c.m;
    starts = 0;
    assert_int_equal(wn_add_listener(c.heap, count_start, NULL), WN_OK);
    {
        wn_root(m, pair *, list, NULL);
        starve(ANY);
        for (long i = 0; i < 5000; i++) { /* 20 MB, within the first chunk */
            wn_root(m, blob *, b, wn_new_array(m, &blob_type, 4000));
            assert_non_null(b);
            if (i > 1000) usleep(20);
            if (i > 1000) continue;
            wn_root(m, pair *, p, wn_new(m, &pair_type));
            assert_non_null(p);
            wn_set(m, p, a, list);
            wn_assign(m, list, p);
        }
        assert_true(feed() > 0);
    }
    assert_in_range(starts, 1, 30);
    assert_int_equal(wn_remove_listener(c.heap, count_start, NULL), WN_OK);
    client_collect(m);
    assert_int_equal(client_alive(m), 0);
    client_close(&c);
}

static _Atomic bool collected;
static void *collect_once(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    wn_collect(m, 2, NULL);
    collected = true;
    wn_detach(m);
    return heap;
}

/* Those of all weak references to a chain that are cleared; the others' targets must not lead to what they have
 * lost. */
static long cleared_of(wn_mutator *m, vector *weak) {
    long cleared = 0, first = -1;
    for (long i = 0; i < (long)weak->length; i++) {
        void *target = wn_weakref_get(m, weak->items[i]);
        if (!target) cleared++;
        if (target && first < 0) first = i;
    }
    return first < 0 || !cleared ? cleared : -1;
}

/* While weak references to the dead are being cleared, the cycle is given up. */
static void weak_references_are_cleared_all_or_none(void **state) {
    (void)state;
    const long n = (long)client_scaled(100000);
    for (int forked = 0, tries = 0; forked < 2 && tries < 50; tries++) {
        client c = open_concurrent();
        wn_mutator *m = c.m;
        wn_disable(c.heap);
        collected = false;
        called = 0;
        {
            wn_root(m, vector *, weak, client_new_array(m, &vector_type, (size_t)n));
            {
                wn_root(m, pair *, chain, NULL);
                for (long i = 0; i < n; i++) {
                    wn_root(m, pair *, p, client_pair(m, i, chain, NULL));
                    wn_assign(m, chain, p);
                    wn_move(m, weak, items[i], wn_weakref_new(m, chain, count_call, NULL));
                }
            }
            pthread_t other;
            assert_int_equal(pthread_create(&other, NULL, collect_once, c.heap), 0);
            wn_cc *cc = wn_cc_of(c.heap);
            while (wn_cc_phase_of(cc) != WN_CC_CLOSED && !collected) wn_poll(m);
            if (collected) {
                /* This thread was put aside meanwhile: once more. */
            } else if (forked++) {
                pid_t child = fork();
                if (child == 0) {
                    if (cleared_of(m, weak) != n) _exit(1);
                    wn_collect(m, 2, NULL);
                    _exit(called == n ? 0 : 2);
                }
                int status;
                wn_block_begin(m);
                waitpid(child, &status, 0);
                wn_block_end(m);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), 0);
            } else {
                assert_int_equal(wn_freeze(m), WN_OK);
                assert_int_equal(cleared_of(m, weak), n);
            }
            wn_block_begin(m);
            pthread_join(other, NULL);
            wn_block_end(m);
            client_collect(m);
            assert_int_equal(called, n);
            wn_unfreeze(m);
        }
        client_close(&c);
    }
}

/* ---- the conductor held amid a cycle ----------------------------------------------------------------------------- */

/* Where the conductor waits until it is told to go on, or has to stand still. */
static wn_heap *gated;
static _Atomic enum { OPEN, CLOSED, REACHED } gate;
static _Atomic bool for_all; /* a thread that helps waits there, too */

static bool is_conductor(void) { return pthread_equal(pthread_self(), wn_cc_of(gated)->worker[0].thread); }

/* The conductor waits before it takes a lock that is watched, for the nth time, until it has to stand still. */
static pthread_mutex_t *_Atomic watched;
static _Atomic bool comes; /* it has */
static _Atomic unsigned nth;
int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock) {
    if (lock == watched && is_conductor() && --nth == 0) {
        comes = true;
        while (lock == watched && !__atomic_load_n(&wn_cc_of(gated)->worker[0].me.fast.poll, __ATOMIC_ACQUIRE))
            sched_yield();
    }
    return __real_pthread_mutex_lock(lock);
}
static void watch(pthread_mutex_t *lock, unsigned times) {
    comes = false;
    nth = times;
    watched = lock;
}

/* Whether it waits when every thread has turned its barrier off. */
static _Atomic bool sees_the_end, waits;
int __real_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left) {
    if (sees_the_end && is_conductor() && wn_cc_phase_of(wn_cc_of(gated)) == WN_CC_ENDING &&
        !__atomic_load_n(&wn_cc_of(gated)->barrier_is_up, __ATOMIC_ACQUIRE))
        waits = true;
    return __real_nanosleep(time, left);
}

static bool world_stops(wn_heap *heap) {
    pthread_mutex_lock(&heap->world);
    bool stops = heap->stopped;
    pthread_mutex_unlock(&heap->world);
    return stops;
}

/* Told OPEN, the conductor waits nowhere any more; told CLOSED, at the next. */
static void wait_at_gate(void) {
    if (gate == OPEN || !(for_all || is_conductor())) return;
    gate = REACHED;
    while (gate == REACHED && !world_stops(gated)) usleep(100);
}

/* What it leads to is white while the conductor waits in it. */
typedef struct barred {
    wn_object head;
    void *behind;
} barred;
static void barred_trace(const void *object, wn_tracer *tracer) {
    wait_at_gate();
    wn_visit(tracer, (void *)&((const barred *)object)->behind);
}
static const wn_type barred_type = WN_TYPE(barred, .trace = barred_trace);

/* One that has been scanned, and is not scanned again, when the conductor waits at what it leads to. */
static pair *scanned;

/* With one marker, and no cycle but by begin_cycle. */
static client open_gated(void) {
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_CONCURRENT;
    o.workers = 1;
    client c = client_open(&o);
    wn_disable(c.heap);
    gated = c.heap;
    gate = CLOSED;
    for_all = false;
    assert_int_equal(wn_global(c.heap, &scanned), WN_OK);
    wn_take(c.m, scanned, client_pair(c.m, 0, NULL, NULL));
    wn_move(c.m, scanned, b, client_new(c.m, &barred_type));
    return c;
}

static void close_gated(client *c) {
    gate = OPEN;
    assert_int_equal(wn_forget_global(c->m, &scanned), WN_OK);
    client_close(c);
}

/* The next cycle frees the last of those that have been made. */
static void close_released(client *c, unsigned n) {
    client_collect(c->m);
    assert_int_equal(client_total(EVENT_RELEASE), n);
    close_gated(c);
}

static bool is_asked(wn_mutator *m, wn_cc_ask what) {
    return __atomic_load_n(&wn_cc_of_mutator(wn_mutator_of(m))->ask, __ATOMIC_ACQUIRE) == what;
}
static bool is_grey(wn_mutator *m) { return wn_cc_of_mutator(wn_mutator_of(m))->grey; }

/* A cycle of which every step waits for the caller: for who attaches, it would stand still. */
static _Atomic bool attached, may_collect;
static void *collect_when_told(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    attached = true;
    while (!may_collect) sched_yield();
    collected = !wn_collect(m, 2, NULL);
    wn_detach(m);
    return NULL;
}
static pthread_t begin_cycle(wn_mutator *m) {
    pthread_t other;
    wn_heap *heap = wn_heap_of(m);
    attached = may_collect = collected = false;
    assert_int_equal(pthread_create(&other, NULL, collect_when_told, heap), 0);
    while (!attached) wn_poll(m);
    may_collect = true;
    while (wn_cc_phase_of(wn_cc_of(heap)) != WN_CC_MARKING) sched_yield();
    return other;
}

/* The barrier is on, the tables of roots have been marked, and the stack is still to be scanned. */
static void become_grey(wn_mutator *m) {
    while (!is_grey(m)) wn_poll(m);
    while (!__atomic_load_n(&wn_cc_of(wn_heap_of(m))->barrier_is_up, __ATOMIC_ACQUIRE)) sched_yield();
}

static pthread_t begin_grey_cycle(wn_mutator *m) {
    pthread_t other = begin_cycle(m);
    become_grey(m);
    return other;
}

/* The stack has been scanned, and the conductor waits at the gate. */
static void reach_gate(wn_mutator *m) {
    while (gate != REACHED || is_grey(m)) wn_poll(m);
}

static void end_cycle(wn_mutator *m, pthread_t other) {
    gate = OPEN;
    wn_block_begin(m);
    pthread_join(other, NULL);
    wn_block_end(m);
    assert_true(collected);
}

/* A thread takes what is white from where it will be found no more, to where nobody looks again, and leaves. */
static void what_a_thread_has_shaded_is_marked_when_it_has_left(void **state) {
    (void)state;
    enum { FAR = 3000 /* the conductor goes on for a while before it stands still */ };
    client c = open_gated();
    wn_mutator *m = c.m;
    pair *last; /* no root: that would be scanned */
    {
        wn_root(m, pair *, chain, client_pair(m, 1, NULL, NULL));
        last = chain;
        wn_move(m, chain, a, client_relic(m, 1, NULL, NULL));
        for (long i = 0; i < FAR; i++) {
            wn_root(m, pair *, next, client_pair(m, i, chain, NULL));
            wn_assign(m, chain, next);
        }
        wn_set(m, (barred *)scanned->b, behind, chain);
    }
    pthread_t other = begin_grey_cycle(m);
    reach_gate(m);
    assert_false(wn_cc_is_marked(last->a));
    wn_set(m, scanned, a, last->a);
    wn_set(m, last, a, NULL);
    assert_int_equal(wn_detach(m), WN_OK);
    pthread_join(other, NULL);
    assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    assert_int_equal(((mortal *)scanned->a)->id, 1);
    close_gated(&c);
}

/* What a thread has shaded turns out to be white when all have handed over what they had, and by the time it is scanned
 * the thread has taken from it what nobody else will find. */
static void marking_goes_on_until_a_round_finds_nothing(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    barred *late; /* no root, either */
    pair *holder;
    {
        wn_root(m, pair *, chain, client_pair(m, 1, NULL, NULL));
        holder = chain;
        late = client_new(m, &barred_type);
        wn_move(m, chain, a, late);
        wn_move(m, late, behind, client_relic(m, 1, NULL, NULL));
        wn_set(m, (barred *)scanned->b, behind, chain);
    }
    pthread_t other = begin_grey_cycle(m);
    reach_gate(m);
    wn_set(m, scanned, a, late);
    wn_set(m, holder, a, NULL);
    assert_false(wn_cc_is_marked(late));
    gate = CLOSED;
    while (gate != REACHED) wn_poll(m);
    {
        wn_root(m, mortal *, taken, NULL);
        wn_assign(m, taken, late->behind);
        wn_set(m, late, behind, NULL);
        end_cycle(m, other);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
    }
    close_released(&c, 1);
}

/* A thread that helps with the marking once, when it is told to. */
static _Atomic bool help, helped, may_leave;
static void *help_when_told(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    attached = true;
    while (!help) wn_poll(m);
    wn_cc_assist(wn_mutator_of(m), UINT64_MAX);
    helped = true;
    while (!may_leave) wn_poll(m);
    wn_detach(m);
    return NULL;
}
static pthread_t attach_helper(wn_mutator *m) {
    pthread_t helper;
    attached = help = helped = may_leave = false;
    assert_int_equal(pthread_create(&helper, NULL, help_when_told, wn_heap_of(m)), 0);
    while (!attached) wn_poll(m);
    return helper;
}
static void detach_helper(wn_mutator *m, pthread_t helper) {
    may_leave = true;
    wn_block_begin(m);
    pthread_join(helper, NULL);
    wn_block_end(m);
}

/* What has been shaded is taken up just before the first round begins, by a thread that helps; and before that has
 * scanned it, the round has passed the thread that takes from it what nobody else will find. */
static void a_round_begins_with_nothing_left_to_scan(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    barred *late; /* no root */
    pair *holder;
    {
        wn_root(m, pair *, chain, client_pair(m, 1, NULL, NULL));
        holder = chain;
        late = client_new(m, &barred_type);
        wn_move(m, chain, a, late);
        wn_move(m, late, behind, client_relic(m, 1, NULL, NULL));
        wn_set(m, (barred *)scanned->b, behind, chain);
    }
    pthread_t helper = attach_helper(m), other = begin_grey_cycle(m);
    reach_gate(m);
    wn_set(m, scanned, a, late);
    wn_set(m, holder, a, NULL);
    watch(&c.heap->weak.lock, 1);
    gate = OPEN;
    while (!comes) wn_poll(m); /* nothing is left to mark but what is in this thread's buffer */
    assert_false(wn_cc_is_marked(late));
    for_all = true;
    gate = CLOSED;
    wn_cc_hand_over(wn_mutator_of(m)); /* as when it is full */
    help = true;
    while (gate != REACHED) sched_yield();
    assert_true(wn_cc_is_marked(late));
    watch(NULL, 0);
    while (!is_asked(m, WN_CC_ASK_FLUSH)) sched_yield();
    while (is_asked(m, WN_CC_ASK_FLUSH)) wn_poll(m);
    {
        wn_root(m, mortal *, taken, NULL);
        wn_assign(m, taken, late->behind);
        wn_set(m, late, behind, NULL);
        end_cycle(m, other);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        detach_helper(m, helper);
    }
    close_released(&c, 1);
}

/* A weak reference is read between the end of a round that found nothing and the end of marking; what it returned has
 * been scanned by then, but for what the reader has taken from it. */
static void marking_does_not_end_after_a_weak_read(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_weakref *, weak, NULL);
        {
            wn_root(m, pair *, target, client_pair(m, 1, NULL, NULL));
            wn_move(m, target, a, client_relic(m, 1, NULL, NULL));
            wn_take(m, weak, wn_weakref_new(m, target, NULL, NULL));
        }
        pthread_t helper = attach_helper(m), other = begin_grey_cycle(m);
        reach_gate(m);
        watch(&c.heap->roots_lock, 2); /* in the end of marking */
        gate = OPEN;
        while (!comes) wn_poll(m);
        wn_root(m, pair *, target, wn_weakref_get(m, weak));
        assert_false(wn_cc_is_marked(target));
        wn_root(m, mortal *, taken, NULL);
        wn_assign(m, taken, target->a);
        wn_set(m, target, a, NULL);
        help = true;
        while (!helped) sched_yield();
        assert_true(wn_cc_is_marked(target));
        watch(NULL, 0);
        end_cycle(m, other);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        detach_helper(m, helper);
    }
    close_released(&c, 1);
}

/* What is shaded since marking has ended says nothing about the next cycle. */
static void what_is_shaded_too_late_is_forgotten(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    wn_move(m, scanned, a, client_relic(m, 1, NULL, NULL));
    pthread_t other = begin_grey_cycle(m);
    reach_gate(m);
    watch(&wn_cc_of(c.heap)->lists, 1);
    gate = OPEN;
    while (!comes) wn_poll(m);
    assert_int_equal(wn_cc_phase_of(wn_cc_of(c.heap)), WN_CC_CLOSED);
    wn_set(m, scanned, a, NULL);
    wn_cc_hand_over(wn_mutator_of(m)); /* as when it is full */
    watch(NULL, 0);
    end_cycle(m, other);
    close_released(&c, 1);
}

/* Marking has ended, and somebody may still hold what was shaded since. */
static void a_sweep_waits_for_whoever_has_work(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    wn_cc *cc = wn_cc_of(c.heap);
    gate = OPEN;
    pthread_t other = begin_grey_cycle(m);
    watch(&cc->lists, 1);
    while (!comes) wn_poll(m);
    assert_int_equal(wn_cc_phase_of(cc), WN_CC_CLOSED);
    pthread_mutex_lock(&cc->lock);
    cc->busy++; /* as a thread that has taken some */
    pthread_mutex_unlock(&cc->lock);
    waits = false;
    sees_the_end = true;
    watch(NULL, 0);
    while (!waits && wn_cc_phase_of(cc) != WN_CC_SWEEPING && wn_cc_phase_of(cc) != WN_CC_IDLE) wn_poll(m);
    assert_int_equal(wn_cc_phase_of(cc), WN_CC_ENDING);
    pthread_mutex_lock(&cc->lock);
    cc->busy--;
    pthread_mutex_unlock(&cc->lock);
    end_cycle(m, other);
    sees_the_end = false;
    close_gated(&c);
}

/* A thread attaches when others have no barrier yet. What it has read it puts where the marking has been, before its
 * stack is scanned; and by then the place that it had read is empty, which a thread without barrier has told nobody. */
static pair *place;
static _Atomic bool take, has_taken, put, has_put;
static void *carry_when_told(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    attached = true;
    {
        wn_root(m, mortal *, taken, NULL);
        while (!take) sched_yield();
        wn_assign(m, taken, place->a);
        has_taken = true;
        while (!put) sched_yield();
        wn_set(m, scanned, a, taken);
        wn_assign(m, taken, NULL);
        has_put = true;
    }
    while (!may_leave) wn_poll(m);
    wn_detach(m);
    return NULL;
}
static bool conductor_is_still(wn_heap *heap) {
    pthread_mutex_lock(&heap->world);
    bool still = heap->stopped && wn_cc_of(heap)->worker[0].me.state == MUTATOR_STILL;
    pthread_mutex_unlock(&heap->world);
    return still;
}
static void who_attaches_before_all_have_a_barrier_is_grey(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, kept, client_pair(m, 1, NULL, NULL));
        wn_move(m, kept, a, client_relic(m, 1, NULL, NULL));
        place = kept;
        pthread_t carrier, other = begin_cycle(m);
        wn_no_collect_begin(m); /* no barrier before it ends */
        attached = take = has_taken = put = has_put = may_leave = false;
        assert_int_equal(pthread_create(&carrier, NULL, carry_when_told, c.heap), 0);
        while (!conductor_is_still(c.heap)) sched_yield();
        watch(&c.heap->world, 1); /* or it would give this thread the barrier while that stands still */
        wn_block_begin(m);
        wn_block_end(m);
        while (!attached) sched_yield();
        take = true;
        while (!has_taken) sched_yield();
        assert_false(is_grey(m));
        wn_set(m, place, a, NULL);
        watch(NULL, 0);
        wn_no_collect_end(m);
        become_grey(m);
        reach_gate(m);
        put = true;
        while (!has_put) sched_yield();
        may_leave = true;
        end_cycle(m, other);
        wn_block_begin(m);
        pthread_join(carrier, NULL);
        wn_block_end(m);
    }
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    wn_set(m, scanned, a, NULL);
    close_released(&c, 1);
}

/* Where memory runs out, threads mark: what has been shaded, though the conductor does not come to it. */
static void threads_help_when_the_goal_is_reached(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    const wn_cc *cc = wn_cc_of(c.heap);
    pair *holder, *late; /* no roots */
    {
        wn_root(m, pair *, chain, client_pair(m, 1, NULL, NULL));
        holder = chain;
        late = client_pair(m, 2, NULL, NULL);
        wn_move(m, chain, a, late);
        wn_set(m, (barred *)scanned->b, behind, chain);
    }
    pthread_t other = begin_grey_cycle(m);
    reach_gate(m);
    wn_set(m, scanned, a, late);
    wn_set(m, holder, a, NULL);
    wn_cc_hand_over(wn_mutator_of(m));
    assert_false(wn_cc_is_marked(late));
    while (wn_cc_used(cc) < cc->goal + WN_BLOCK_SIZE) wn_release(m, client_new(m, &leaf_type));
    assert_true(wn_cc_is_marked(late));
    end_cycle(m, other);
    close_gated(&c);
}

/* Taken from a stack before that is scanned, to where the marking has been already. */
static void what_leaves_a_grey_stack_is_shaded(void **state) {
    (void)state;
    enum { ALL = 3 };
    static mortal *global;
    client c = open_gated();
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, stored, client_relic(m, 0, NULL, NULL));
        wn_root(m, mortal *, declared, client_relic(m, 1, NULL, NULL));
        wn_root(m, mortal *, immortal, client_relic(m, 2, NULL, NULL));
        pthread_t other = begin_grey_cycle(m);
        while (gate != REACHED) sched_yield();
        wn_set(m, scanned, a, stored);
        global = declared;
        assert_int_equal(wn_global(c.heap, &global), WN_OK);
        wn_make_immortal(m, immortal);
        for (int i = 0; i < ALL; i++) assert_false(wn_cc_is_marked((mortal *[]){stored, declared, immortal}[i]));
        wn_assign(m, stored, NULL);
        wn_assign(m, declared, NULL);
        wn_assign(m, immortal, NULL);
        end_cycle(m, other);
    }
    for (int i = 0; i < ALL; i++) assert_int_equal(client_released[i], 0);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    assert_int_equal(wn_forget_global(m, &global), WN_OK);
    close_gated(&c);
}

/* A store is held between its reading and its writing: the page that it writes to is closed to writers. */
static char *closed_page;
static size_t page_size;
static vector *wide;
enum { ITEM = 1500 }; /* not on the page of the first ones, which the library writes to, too */
static _Atomic bool stands, may_store, has_stored;
static void hold_the_store(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    if ((uintptr_t)info->si_addr - (uintptr_t)closed_page >= page_size) abort();
    stands = true;
    while (!may_store) sched_yield();
}
static void *clear_when_grey(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    attached = true;
    while (!is_grey(m)) wn_poll(m);
    if (mprotect(closed_page, page_size, PROT_READ)) abort();
    wn_set(m, wide, items[ITEM], NULL);
    has_stored = true;
    while (!may_leave) wn_poll(m);
    wn_detach(m);
    return NULL;
}

/* Two threads store into one slot, of which one has no barrier yet, and has lost sight of what it stored. */
static void what_is_stored_while_another_clears_the_slot_is_shaded(void **state) {
    (void)state;
    if (client_sanitized()) skip(); /* one that looks for races holds a lock of its own around the store */
    client c = open_gated();
    wn_mutator *m = c.m;
    struct sigaction before, hold = {.sa_sigaction = hold_the_store, .sa_flags = SA_SIGINFO};
    assert_int_equal(sigaction(SIGSEGV, &hold, &before), 0);
    {
        wn_root(m, vector *, made, client_new_array(m, &vector_type, 2 * ITEM));
        wide = made; /* no root */
        wn_set(m, (barred *)scanned->b, behind, made);
    }
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    closed_page = (char *)((uintptr_t)&wide->items[ITEM] & ~(page_size - 1));
    {
        wn_root(m, mortal *, stored, client_relic(m, 1, NULL, NULL));
        pthread_t rival;
        attached = stands = may_store = has_stored = may_leave = false;
        assert_int_equal(pthread_create(&rival, NULL, clear_when_grey, c.heap), 0);
        while (!attached) wn_poll(m);
        pthread_t other = begin_cycle(m);
        while (!stands) sched_yield();
        assert_false(is_grey(m));
        assert_int_equal(mprotect(closed_page, page_size, PROT_READ | PROT_WRITE), 0);
        wn_set(m, wide, items[ITEM], stored);
        wn_assign(m, stored, NULL);
        become_grey(m);
        reach_gate(m);
        wn_assign(m, stored, wide->items[ITEM]); /* on a stack that has been scanned */
        may_store = true;
        while (!has_stored) sched_yield();
        may_leave = true;
        end_cycle(m, other);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        wn_block_begin(m);
        pthread_join(rival, NULL);
        wn_block_end(m);
    }
    assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
    close_released(&c, 1);
}

/* What only a weak reference led to is read when the stack of the reader is not scanned any more. */
static void what_a_weak_read_returns_is_marked(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_weakref *, weak, NULL);
        {
            wn_root(m, mortal *, target, client_relic(m, 1, NULL, NULL));
            wn_take(m, weak, wn_weakref_new(m, target, NULL, NULL));
        }
        pthread_t other = begin_grey_cycle(m);
        reach_gate(m);
        wn_root(m, mortal *, target, wn_weakref_get(m, weak));
        assert_non_null(target);
        end_cycle(m, other);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        assert_ptr_equal(wn_weakref_get(m, weak), target);
    }
    close_released(&c, 1);
}

/* A scanner shows what lay on a stack before that was scanned, and comes when those there were have run. */
static void *shown;
static void show(wn_tracer *tracer, void *data) {
    (void)data;
    wn_visit(tracer, &shown);
}
static void a_root_scanner_may_come_while_marking_goes_on(void **state) {
    (void)state;
    for (int before = 0; before < 2; before++) {
        client c = open_gated();
        wn_mutator *m = c.m;
        gate = OPEN;
        {
            wn_root(m, mortal *, kept, client_relic(m, 1, NULL, NULL));
            pthread_t other = begin_grey_cycle(m);
            shown = kept;
            wn_assign(m, kept, NULL);
            if (before) assert_int_equal(wn_add_root_scanner(c.heap, show, NULL), WN_OK);
            while (is_grey(m)) wn_poll(m);
            if (!before) assert_int_equal(wn_add_root_scanner(c.heap, show, NULL), WN_OK);
            end_cycle(m, other);
        }
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        assert_int_equal(((mortal *)shown)->id, 1);
        assert_int_equal(wn_remove_root_scanner(c.heap, show, NULL), WN_OK);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 1);
        close_gated(&c);
    }
}

/* One comes while stacks are scanned. Through what it shows a thread whose stack is still grey hands over to one whose
 * stack is black, and that puts where the marking has been, what nothing else has referred to. */
static _Atomic bool is_black;
static void *pass_when_told(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    attached = true;
    while (!__atomic_load_n(&wn_cc_of(heap)->barrier_is_up, __ATOMIC_ACQUIRE) || is_grey(m)) wn_poll(m);
    is_black = true;
    while (!put) wn_poll(m);
    wn_set(m, scanned, a, shown);
    shown = NULL;
    has_put = true;
    while (!may_leave) wn_poll(m);
    wn_detach(m);
    return NULL;
}
static void a_root_scanner_may_come_while_stacks_are_scanned(void **state) {
    (void)state;
    for (int stays = 0; stays < 2; stays++) {
        client c = open_gated();
        wn_mutator *m = c.m;
        pthread_t carrier;
        attached = is_black = put = has_put = may_leave = false;
        assert_int_equal(pthread_create(&carrier, NULL, pass_when_told, c.heap), 0);
        while (!attached) wn_poll(m);
        {
            wn_root(m, mortal *, kept, client_relic(m, 1, NULL, NULL));
            pthread_t other = begin_grey_cycle(m);
            while (gate != REACHED || !is_black) sched_yield();
            assert_true(is_grey(m));
            assert_int_equal(wn_add_root_scanner(c.heap, show, NULL), WN_OK);
            shown = kept;
            wn_assign(m, kept, NULL);
            put = true;
            while (!has_put) sched_yield();
            if (!stays) assert_int_equal(wn_remove_root_scanner(c.heap, show, NULL), WN_OK);
            may_leave = true;
            end_cycle(m, other);
            wn_block_begin(m);
            pthread_join(carrier, NULL);
            wn_block_end(m);
        }
        if (stays) assert_int_equal(wn_remove_root_scanner(c.heap, show, NULL), WN_OK);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        wn_set(m, scanned, a, NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 1);
        close_gated(&c);
    }
}

/* A thread ends in a callback, and has taken another: that is run by whoever is there. When a cycle marks, nothing else
 * has referred to it since the tables were marked. */
static vector *watchers;
static pthread_t collector;
static _Atomic unsigned ran, lost;
static bool amid_cycle;
static void end_the_thread(wn_mutator *m, wn_weakref *r, void *data) {
    (void)data;
    if (!wn_is_object(m, r)) lost++;
    if (ran++) return;
    wn_take(m, watchers, NULL);
    if (amid_cycle) collector = begin_cycle(m);
    if (amid_cycle) become_grey(m);
    pthread_exit(NULL);
}
static void *run_callbacks_to_the_end(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    wn_take(m, watchers, wn_new_array(m, &vector_type, 2));
    for (int i = 0; i < 2; i++) {
        wn_root(m, pair *, target, wn_new(m, &pair_type));
        wn_move(m, watchers, items[i], wn_weakref_new(m, target, end_the_thread, NULL));
    }
    wn_collect(m, 2, NULL);
    return NULL;
}
static void callbacks_of_a_thread_that_ends_live_until_they_run(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_CONCURRENT;
    o.check = false; /* which would say that threads should detach */
    for (int way = 0; way < 2; way++) {
        client c = client_open(&o);
        wn_mutator *m = c.m;
        wn_disable(c.heap);
        ran = lost = 0;
        amid_cycle = way;
        assert_int_equal(wn_global(c.heap, &watchers), WN_OK);
        pthread_t ends;
        assert_int_equal(pthread_create(&ends, NULL, run_callbacks_to_the_end, c.heap), 0);
        wn_block_begin(m);
        pthread_join(ends, NULL);
        if (amid_cycle) pthread_join(collector, NULL);
        wn_block_end(m); /* a safepoint */
        assert_int_equal(ran, 2);
        assert_int_equal(lost, 0);
        wn_release(m, client_mortal(m, 1, NULL, NULL)); /* whose finalizer waits for no callbacks any more */
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 1);
        assert_int_equal(wn_forget_global(m, &watchers), WN_OK);
        client_close(&c);
    }
}

/* The parent's cycle is not the child's: there, those that come due begin, and end. */
static void a_child_forked_amid_a_cycle_has_cycles_of_its_own(void **state) {
    (void)state;
    client c = open_concurrent();
    wn_mutator *m = c.m;
    starts = 0;
    assert_int_equal(wn_add_listener(c.heap, count_start, NULL), WN_OK);
    pthread_t other = begin_cycle(m);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60); /* the failure is that it waits for the parent's */
        unsigned before = starts;
        while (starts < before + 2)
            if (!wn_new(m, &leaf_type)) _exit(1);
        _exit(wn_collect(m, 2, NULL) ? 2 : 0);
    }
    end_cycle(m, other);
    int status;
    wn_block_begin(m);
    waitpid(child, &status, 0);
    wn_block_end(m);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(wn_remove_listener(c.heap, count_start, NULL), WN_OK);
    client_close(&c);
}

/* The cycle is given up while it marks what was found dead but for its finalizer. */
static void finalizers_of_a_cycle_given_up_run_once(void **state) {
    (void)state;
    enum { N = 500 };
    client c = open_gated();
    wn_mutator *m = c.m;
    wn_set(m, scanned, b, NULL);
    {
        wn_root(m, barred *, shared, client_new(m, &barred_type));
        for (long i = 0; i < N; i++) wn_release(m, client_mortal(m, i, shared, NULL));
    }
    pthread_t other = begin_cycle(m);
    while (gate != REACHED) wn_poll(m);
    assert_int_equal(wn_cc_phase_of(wn_cc_of(c.heap)), WN_CC_CLOSED);
    assert_int_equal(wn_freeze(m), WN_OK);
    gate = OPEN;
    assert_int_equal(wn_unfreeze(m), WN_OK);
    end_cycle(m, other);
    client_collect(m);
    for (long i = 0; i < N; i++) assert_int_equal(client_finalized[i], 1);
    assert_int_equal(client_total(EVENT_RELEASE), N);
    close_gated(&c);
}

/* The conductor has hardly begun to sweep, and does not come to do more: who gives memory back does it. */
static void release_at_gate(void *object) {
    (void)object;
    wait_at_gate();
}
static const wn_type heavy_type = WN_TYPE(blob, WN_DATA(blob, length, bytes), .release = release_at_gate);
static void a_trim_sweeps_what_is_left(void **state) {
    (void)state;
    enum { HEAVY = 100000, N = 10000 };
    client c = open_gated();
    wn_mutator *m = c.m;
    wn_set(m, scanned, b, NULL);
    for (int i = 0; i < 2; i++) wn_release(m, client_new_array(m, &heavy_type, HEAVY)); /* they are swept first */
    for (long i = 0; i < N; i++) wn_release(m, client_relic(m, i, NULL, NULL));
    pthread_t other = begin_cycle(m);
    while (gate != REACHED) wn_poll(m);
    wn_trim(m);
    unsigned swept = client_total(EVENT_RELEASE);
    end_cycle(m, other);
    assert_int_equal(swept, N);
    close_gated(&c);
}

/* Forked amid a sweep, a child that needs room goes on with it. */
static void a_child_ends_the_sweep_of_its_parent(void **state) {
    (void)state;
    enum { HEAVY = 100000, N = 10000 };
    client c = open_gated();
    wn_mutator *m = c.m;
    wn_set(m, scanned, b, NULL);
    for (int i = 0; i < 2; i++) wn_release(m, client_new_array(m, &heavy_type, HEAVY)); /* they are swept first */
    for (long i = 0; i < N; i++) wn_release(m, client_relic(m, i, NULL, NULL));
    pthread_t other = begin_cycle(m);
    while (gate != REACHED) wn_poll(m);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60); /* the failure is that it is never swept */
        gate = OPEN;
        const wn_cc *cc = wn_cc_of(c.heap);
        while (wn_cc_used(cc) < cc->trigger || cc->unattended)
            if (!wn_new(m, &leaf_type)) _exit(1);
        while (client_total(EVENT_RELEASE) < N) wn_poll(m);
        _exit(client_total(EVENT_RELEASE) == N ? 0 : 2);
    }
    end_cycle(m, other);
    int status;
    wn_block_begin(m);
    waitpid(child, &status, 0);
    wn_block_end(m);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close_gated(&c);
}

/* What was found dead when a cycle is given up runs at the next safepoint, whenever another one ends. */
static void what_a_cycle_given_up_has_found_runs_at_once(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    gate = OPEN;
    wn_release(m, client_mortal(m, 1, NULL, NULL));
    pthread_t other = begin_grey_cycle(m);
    watch(&wn_cc_of(c.heap)->lists, 4); /* it has looked at all, and comes to mark what was found */
    while (!comes) wn_poll(m);
    assert_int_equal(wn_freeze(m), WN_OK);
    watch(NULL, 0);
    assert_int_equal(client_finalized[1], 0);
    wn_poll(m);
    assert_int_equal(client_finalized[1], 1);
    end_cycle(m, other);
    assert_int_equal(wn_unfreeze(m), WN_OK);
    close_gated(&c);
}

/* The cycle is given up before it looks at those that have finalizers, and amid that. */
static void no_finalizer_is_forgotten_with_a_cycle(void **state) {
    (void)state;
    enum { N = 3000 };
    for (unsigned steps = 1; steps <= 4; steps += 3) {
        client c = open_gated();
        wn_mutator *m = c.m;
        gate = OPEN;
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
            for (long i = 0; i < N; i++) wn_move(m, all, items[i], client_mortal(m, i, NULL, NULL));
            for (long i = 0; i < N; i += 2) wn_set(m, all, items[i], NULL);
            pthread_t other = begin_grey_cycle(m);
            watch(&wn_cc_of(c.heap)->lists, steps);
            while (!comes) wn_poll(m);
            assert_int_equal(wn_cc_phase_of(wn_cc_of(c.heap)), WN_CC_CLOSED);
            assert_int_equal(wn_freeze(m), WN_OK);
            watch(NULL, 0);
            assert_int_equal(wn_unfreeze(m), WN_OK);
            end_cycle(m, other);
        }
        client_collect(m);
        for (long i = 0; i < N; i++) assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_total(EVENT_RELEASE), N);
        close_gated(&c);
    }
}

/* After a cycle that was given up the next one traces no earlier than the first: a thread without barrier moves what
 * only it knows of into what a weak read has shaded. */
static void after_a_cycle_given_up_nothing_is_traced_early(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    pthread_t helper = attach_helper(m), other = begin_grey_cycle(m);
    reach_gate(m);
    assert_int_equal(wn_freeze(m), WN_OK);
    gate = OPEN;
    wn_no_collect_begin(m); /* no barrier before it ends */
    {
        wn_root(m, pair *, from, client_pair(m, 1, NULL, NULL));
        wn_move(m, from, a, client_relic(m, 1, NULL, NULL));
        wn_root(m, pair *, to, client_pair(m, 2, NULL, NULL));
        wn_root(m, wn_weakref *, weak, wn_weakref_new(m, to, NULL, NULL));
        while (wn_cc_phase_of(wn_cc_of(c.heap)) != WN_CC_MARKING) sched_yield();
        wn_weakref_get(m, weak);
        help = true;
        while (!helped) sched_yield();
        assert_false(is_grey(m));
        wn_set(m, to, a, from->a);
        wn_set(m, from, a, NULL);
        wn_no_collect_end(m);
        end_cycle(m, other);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        detach_helper(m, helper);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 1);
    assert_int_equal(wn_unfreeze(m), WN_OK);
    close_gated(&c);
}

/* In a child that was forked amid marking nothing marks: what is overwritten there may go. */
static void a_child_has_no_barrier_before_its_first_cycle(void **state) {
    (void)state;
    client c = open_gated();
    wn_mutator *m = c.m;
    wn_move(m, scanned, a, client_relic(m, 1, NULL, NULL));
    pthread_t other = begin_grey_cycle(m);
    reach_gate(m);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        gate = OPEN;
        wn_set(m, scanned, a, NULL);
        if (wn_collect(m, 2, NULL)) _exit(1);
        _exit(client_released[1] == 1 ? 0 : 2);
    }
    end_cycle(m, other);
    int status;
    wn_block_begin(m);
    waitpid(child, &status, 0);
    wn_block_end(m);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close_gated(&c);
}

/* Weak references and ephemerons die, and their targets live: with and without a finalizer, for which the table is gone
 * through once more, nothing of them is left in it. */
static void the_table_of_weak_references_forgets_the_dead(void **state) {
    (void)state;
    enum { N = 100 };
    for (int finals = 0; finals < 2; finals++) {
        client c = open_concurrent();
        wn_mutator *m = c.m;
        wn_disable(c.heap);
        {
            wn_root(m, pair *, key, client_pair(m, 1, NULL, NULL));
            wn_root(m, mortal *, owner, NULL);
            if (finals) wn_take(m, owner, client_mortal(m, 1, NULL, NULL));
            for (int i = 0; i < N; i++) {
                wn_release(m, wn_ephemeron_new(m, key, owner));
                wn_release(m, wn_weakref_new(m, key, NULL, NULL));
            }
            assert_int_equal(c.heap->weak.ephemerons, N);
            client_collect(m);
            assert_int_equal(c.heap->weak.ephemerons, 0);
            assert_int_equal(c.heap->weak.live, 0);
        }
        client_close(&c);
    }
}

/* ---- the pacer ----------------------------------------------------------------------------------------------------
 */

static client open_limited(size_t limit) {
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_CONCURRENT;
    o.heap_limit = limit;
    return client_open(&o);
}

/* Room for a small heap, and for one that hardly fits its limit, or each would be collected all the time. */
static void the_goal_leaves_some_room(void **state) {
    (void)state;
    enum { LEAST = (4 << 20) / 100 * 100, LIMIT = 8 << 20, LIVE = LIMIT / 8 * 7 - (100 << 10) };
    client c = open_limited(LIMIT);
    wn_mutator *m = c.m;
    const wn_cc *cc = wn_cc_of(c.heap);
    wn_disable(c.heap);
    {
        client_collect(m);
        assert_in_range(cc->goal, LEAST, LIMIT);
        wn_root(m, blob *, big, client_new_array(m, &blob_type, LIVE));
        client_collect(m);
        assert_true(cc->now.live >= LIVE);
        assert_in_range(cc->goal, cc->now.live + cc->now.live / 8, LIMIT * 2);
    }
    client_close(&c);
}

/* Requests that fail in vain fail at once for a while, but not any more when a cycle has freed something. */
static void what_was_in_vain_is_not_when_something_was_freed(void **state) {
    (void)state;
    enum { LIMIT = 8 << 20, PART = LIMIT / 16 * 5, WHOLE = 2 * PART };
    client c = open_limited(LIMIT);
    wn_mutator *m = c.m;
    wn_cc *cc = wn_cc_of(c.heap);
    wn_disable(c.heap);
    {
        wn_root(m, blob *, first, client_new_array(m, &blob_type, PART));
        wn_root(m, blob *, second, client_new_array(m, &blob_type, PART));
        for (int i = 0; i < 2; i++) assert_null(wn_new_array(m, &blob_type, WHOLE));
        __atomic_store_n(&cc->futile_until, UINT64_MAX, __ATOMIC_RELAXED); /* it has waited for long */
        uint64_t before = cc->finished;
        assert_null(wn_new_array(m, &blob_type, WHOLE));
        assert_int_equal(cc->finished, before);
        wn_assign(m, first, NULL);
        client_collect(m);
        wn_assign(m, second, NULL);
        wn_release(m, client_new_array(m, &blob_type, WHOLE));
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_frozen_objects_refer_to_lives),
        cmocka_unit_test(finalizers_and_callbacks_run_all),
        cmocka_unit_test(an_object_with_a_finalizer_is_noted_or_not_made),
        cmocka_unit_test(a_collection_without_memory_is_an_error),
        cmocka_unit_test(a_sweep_needs_no_memory),
        cmocka_unit_test(cycles_without_memory_do_not_follow_each_other_without_end),
        cmocka_unit_test(weak_references_are_cleared_all_or_none),
        cmocka_unit_test(what_a_thread_has_shaded_is_marked_when_it_has_left),
        cmocka_unit_test(marking_goes_on_until_a_round_finds_nothing),
        cmocka_unit_test(a_round_begins_with_nothing_left_to_scan),
        cmocka_unit_test(marking_does_not_end_after_a_weak_read),
        cmocka_unit_test(what_is_shaded_too_late_is_forgotten),
        cmocka_unit_test(a_sweep_waits_for_whoever_has_work),
        cmocka_unit_test(who_attaches_before_all_have_a_barrier_is_grey),
        cmocka_unit_test(threads_help_when_the_goal_is_reached),
        cmocka_unit_test(what_leaves_a_grey_stack_is_shaded),
        cmocka_unit_test(what_is_stored_while_another_clears_the_slot_is_shaded),
        cmocka_unit_test(what_a_weak_read_returns_is_marked),
        cmocka_unit_test(a_root_scanner_may_come_while_marking_goes_on),
        cmocka_unit_test(a_root_scanner_may_come_while_stacks_are_scanned),
        cmocka_unit_test(callbacks_of_a_thread_that_ends_live_until_they_run),
        cmocka_unit_test(a_child_forked_amid_a_cycle_has_cycles_of_its_own),
        cmocka_unit_test(finalizers_of_a_cycle_given_up_run_once),
        cmocka_unit_test(a_trim_sweeps_what_is_left),
        cmocka_unit_test(a_child_ends_the_sweep_of_its_parent),
        cmocka_unit_test(what_a_cycle_given_up_has_found_runs_at_once),
        cmocka_unit_test(no_finalizer_is_forgotten_with_a_cycle),
        cmocka_unit_test(after_a_cycle_given_up_nothing_is_traced_early),
        cmocka_unit_test(a_child_has_no_barrier_before_its_first_cycle),
        cmocka_unit_test(the_table_of_weak_references_forgets_the_dead),
        cmocka_unit_test(the_goal_leaves_some_room),
        cmocka_unit_test(what_was_in_vain_is_not_when_something_was_freed),
    };
    return CLIENT_MAIN("given_up", tests);
}
