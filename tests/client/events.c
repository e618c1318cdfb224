/* events.c - results of collections, listeners, statistics, histograms, steps. */
#include "client.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

typedef struct heard {
    unsigned starts, stops, open, minors, steps, slices;
    size_t collected, uncollectable;
    int last_generation;
    bool bad, allocate;
} heard;

static void listen(wn_mutator *m, const wn_event *event, void *data) {
    heard *h = data;
    switch (event->kind) {
    case WN_EVENT_COLLECT_START:
        if (h->open++) h->bad = true;
        h->starts++;
        h->last_generation = event->generation;
        break;
    case WN_EVENT_COLLECT_STOP:
        if (h->open-- != 1 || event->generation != h->last_generation) h->bad = true;
        h->stops++;
        h->collected += event->result.collected;
        h->uncollectable += event->result.uncollectable;
        break;
    case WN_EVENT_MINOR: h->minors++; break;
    case WN_EVENT_STEP:
        if (event->generation == 2 && h->starts == 0) h->bad = true;
        h->steps++;
        break;
    case WN_EVENT_FREE_SLICE: h->slices++; break;
    }
    if (h->allocate && (event->kind == WN_EVENT_COLLECT_START || event->kind == WN_EVENT_COLLECT_STOP)) {
        h->allocate = false; /* or it might never end in stress mode */
        for (int i = 0; i < 10; i++) wn_release(m, wn_new(m, &pair_type));
        h->allocate = true;
    }
}

static void make_cycles(wn_mutator *m, size_t n) {
    for (size_t i = 0; i < n; i++) {
        wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
        wn_move(m, p, a, client_pair(m, (long)i, p, NULL));
    }
}

static void collect_says_what_it_did(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    client_collect(m);
    size_t n = client_stressed() ? 20 : 1000;
    make_cycles(m, n);
    wn_collect_result r = client_collect(m);
    if (!client_stressed()) {
        if (client_counts(&c))
            assert_int_equal(r.collected, 2 * n);
        else
            assert_true(r.collected <= 2 * n); /* a minor may have come first */
        if (client_counts(&c)) assert_true(r.freed_bytes >= 2 * n * sizeof(pair));
        assert_true(r.duration_ns > 0);
    }
    assert_int_equal(r.uncollectable, 0);
    r = client_collect(m);
    assert_int_equal(r.collected, 0);
    for (size_t i = 0; i < n; i++) wn_release(m, client_new(m, &pair_type)); /* acyclic: not the collector's work */
    if (client_counts(&c)) assert_int_equal(client_collect(m).collected, 0);
    wn_enable(c.heap);
    client_close(&c);
}

/* A collection has started when listeners hear of its steps, and they hear of each minor collection once, also of those
 * that callbacks bring about within a full one. */
static unsigned called;
static void make_much(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref, (void)data;
    called++;
    for (int i = 0; i < 30000; i++) wn_release(m, client_pair(m, i, NULL, NULL));
    client_note(EVENT_CALLBACK, (long)((heard *)data)->minors);
}
static void minors_are_heard_of_once_and_steps_in_between(void **state) {
    (void)state;
    enum { DEAD = 600 };
    if (client_stressed()) skip();
    wn_options o = wn_options_default();
    o.nursery = 1 << 20;
    o.min_heap = (size_t)1 << 40;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    if (!client_moves(&c)) {
        client_close(&c);
        skip();
    }
    heard h = {0};
    called = 0;
    assert_int_equal(wn_add_listener(c.heap, listen, &h), WN_OK);
    {
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, DEAD));
        for (long i = 0; i < DEAD; i++) {
            wn_root(m, mortal *, x, client_mortal(m, i, NULL, NULL));
            wn_move(m, refs, items[i], wn_weakref_new(m, x, make_much, &h));
        }
        wn_step_result r;
        wn_disable(c.heap);
        while (!called) assert_int_equal(wn_collect_for(m, 1, &r), WN_OK);
        assert_true(called < DEAD); /* so that the rest is due within the next */
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        unsigned first = h.minors;
        client_collect(m);
        wn_get_stats(c.heap, &after);
        assert_int_equal(called, DEAD);
        long last = client_event_at(client_events() - 1).kind == EVENT_CALLBACK ? 0 : -1;
        for (size_t i = 0; i < client_events(); i++)
            if (client_event_at(i).kind == EVENT_CALLBACK) last = client_event_at(i).id;
        assert_true(last > (long)first + 50);
        assert_true(h.minors <= (unsigned)last + 10); /* two for each of its passes */
        assert_int_equal(after.minors - before.minors, h.minors - first);
        wn_enable(c.heap);
    }
    assert_false(h.bad);
    assert_int_equal(h.starts, h.stops);
    assert_int_equal(wn_remove_listener(c.heap, listen, &h), WN_OK);
    client_close(&c);
}

/* Memory is out, and a listener asks for some whenever it is called: it gets none, and that is all. */
static unsigned within, deepest;
static void want_more(wn_mutator *m, const wn_event *event, void *data) {
    void **kept = data;
    if (event->kind != WN_EVENT_COLLECT_START && event->kind != WN_EVENT_COLLECT_STOP) return;
    if (++within > deepest) deepest = within;
    for (int i = 0; i < 100 && deepest < 10; i++) {
        wn_root(m, vector *, more, wn_new_array(m, &vector_type, 500));
        if (!more) break;
        wn_set(m, more, items[0], *kept);
        wn_assign(m, *kept, more);
    }
    within--;
}
static void listeners_may_find_no_memory(void **state) {
    (void)state;
    if (client_stressed()) skip();
    wn_options o = wn_options_default();
    o.heap_limit = 16 << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    void *kept = NULL;
    within = deepest = 0;
    assert_int_equal(wn_global(c.heap, &kept), WN_OK);
    if (wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT) /* there it must not allocate */
        assert_int_equal(wn_add_listener(c.heap, want_more, &kept), WN_OK);
    {
        wn_root(m, vector *, all, NULL);
        for (bool room = true; room;) {
            wn_root(m, vector *, x, wn_new_array(m, &vector_type, 500));
            room = x;
            if (!room) break;
            wn_set(m, x, items[0], all);
            wn_assign(m, all, x);
        }
        assert_true(deepest < 10);
        wn_remove_listener(c.heap, want_more, &kept);
        wn_assign(m, all, NULL);
        wn_assign(m, kept, NULL);
        client_collect(m);
        wn_release(m, client_new_array(m, &vector_type, 500));
    }
    assert_int_equal(wn_forget_global(m, &kept), WN_OK);
    client_close(&c);
}

/* What is pinned does not move, and is alive all the same; what dies young has taken bytes as well. */
static void only_what_dies_is_counted(void **state) {
    (void)state;
    if (client_stressed()) skip();
    enum { N = 1000, PINNED = 100 };
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    wn_collect_result r;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, PINNED));
        client_collect(m);
        for (long i = 0; i < PINNED; i++) {
            wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
            assert_int_equal(wn_pin(m, all->items[i]), WN_OK);
        }
        for (int generation = 0; generation <= 2; generation++) {
            assert_int_equal(wn_collect(m, generation, &r), WN_OK);
            assert_int_equal(r.collected, 0);
        }
        for (long i = 0; i < PINNED; i++) wn_unpin(m, all->items[i]);
        assert_int_equal(wn_collect(m, 2, &r), WN_OK);
        assert_int_equal(r.collected, 0);
        for (int generation = 0; generation <= 2 && client_moves(&c); generation += 2) {
            for (long i = 0; i < N; i++) wn_release(m, client_pair(m, i, NULL, NULL));
            assert_int_equal(wn_collect(m, generation, &r), WN_OK);
            assert_int_equal(r.collected, N);
            assert_int_equal(r.freed_bytes, N * sizeof(pair));
        }
    }
    wn_enable(c.heap);
    client_close(&c);
}

static void nap(wn_mutator *m, mortal *self) {
    (void)m, (void)self;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Steps tell what each has freed, and together what the collection has: also when finalizers take steps of their own.
 */
static void steps_add_up(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.pause_budget_ns = 200000; /* so that sweeping takes several */
    client c = client_open(&o);
    wn_mutator *m = c.m;
    if (!client_moves(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    wn_disable(c.heap);
    for (int timed = 0; timed < 2; timed++) {
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, client_scaled(200000)));
            for (size_t i = 0; i < all->length; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
            wn_collect(m, 0, NULL);
        }
        for (long i = 0; i < 5; i++) {
            wn_root(m, mortal *, p, client_mortal(m, i, NULL, NULL));
            p->will = nap;
        }
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        wn_step_result r = {0};
        size_t objects = 0, bytes = 0;
        do {
            assert_int_equal(timed ? wn_collect_for(m, 200000, &r) : wn_collect_step(m, &r), WN_OK);
            objects += r.freed_objects;
            bytes += r.freed_bytes;
        } while (!r.major_is_done);
        wn_get_stats(c.heap, &after);
        assert_int_equal(objects, after.generation[2].collected - before.generation[2].collected);
        assert_true(bytes >= objects * sizeof(pair) || !objects);
    }
    wn_enable(c.heap);
    client_close(&c);
}

static void younger_collections_leave_older_garbage(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    wn_disable(c.heap);
    wn_collect_result r;
    for (int age = 0; age <= 2; age++) { /* garbage that was alive during `age` collections */
        {
            wn_root(m, mortal *, p, client_relic(m, age, NULL, NULL));
            wn_set(m, p, a, p);
            assert_int_equal(wn_generation(m, p), 0);
            for (int i = 0; i < age; i++) wn_collect(m, i, NULL);
            assert_int_equal(wn_generation(m, p), age);
        }
        for (int generation = 0; generation <= 2; generation++) {
            assert_int_equal(wn_collect(m, generation, &r), WN_OK);
            assert_int_equal(r.collected, generation == age);
            assert_int_equal(client_released[age], generation >= age);
        }
    }
    assert_int_equal(wn_collect(m, 3, &r), WN_ERR_ARGUMENT);
    assert_true(strlen(wn_error_message()) > 0);
    wn_enable(c.heap);
    client_close(&c);
}

static void listeners_hear_start_and_stop(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    /* On the concurrent collector listeners run on its own thread and must not allocate. */
    heard one = {0}, two = {.allocate = wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT};
    assert_int_equal(wn_add_listener(c.heap, listen, &one), WN_OK);
    assert_int_equal(wn_add_listener(c.heap, listen, &two), WN_OK);
    size_t n = client_stressed() ? 20 : 10000;
    make_cycles(m, n);
    client_collect(m);
    client_collect(m);
    assert_true(one.starts >= 2);
    assert_int_equal(one.starts, one.stops);
    if (!client_stressed()) assert_false(one.bad);
    if (client_counts(&c)) assert_int_equal(one.collected, 2 * n);
    assert_int_equal(one.uncollectable, 0);
    assert_int_equal(wn_remove_listener(c.heap, listen, &one), WN_OK);
    assert_int_not_equal(wn_remove_listener(c.heap, listen, &one), WN_OK);
    unsigned before = one.starts, before_two = two.starts;
    client_collect(m);
    assert_int_equal(one.starts, before);
    assert_true(two.starts > before_two);
    assert_int_equal(wn_remove_listener(c.heap, listen, &two), WN_OK);
    client_close(&c);
}

/* Makes more at the start than the log of new objects has room left for when it is full. */
static void make_many(wn_mutator *m, const wn_event *event, void *data) {
    if (event->kind != WN_EVENT_COLLECT_START) return;
    unsigned n = *(unsigned *)data;
    *(unsigned *)data = 0; /* or it might never end in stress mode */
    for (unsigned i = 0; i < n; i++) wn_release(m, wn_new(m, &pair_type));
    *(unsigned *)data = n;
}

static void listeners_may_allocate_when_an_automatic_collection_starts(void **state) {
    (void)state;
    static const unsigned threshold[] = {700, 1023};
    for (size_t i = 0; i < sizeof threshold / sizeof *threshold; i++)
        for (unsigned n = 1; n <= 400; n += 399) {
            wn_options o = wn_options_default();
            o.threshold[0] = threshold[i];
            client c = client_open(&o);
            if (wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT) {
                assert_int_equal(wn_add_listener(c.heap, make_many, &n), WN_OK);
                make_cycles(c.m, client_scaled(50000));
                client_collect(c.m);
                assert_int_equal(wn_remove_listener(c.heap, make_many, &n), WN_OK);
            }
            client_close(&c);
        }
}

/* A collection asked for in the middle of one is refused. */
static void ask_again(wn_mutator *m, const wn_event *event, void *data) {
    unsigned *refused = data;
    if (event->kind != WN_EVENT_COLLECT_START && event->kind != WN_EVENT_COLLECT_STOP) return;
    wn_step_result r;
    if (wn_collect(m, 2, NULL) == WN_ERR_STATE && wn_collect_step(m, &r) == WN_ERR_STATE) ++*refused;
}

static void listeners_ask_for_no_collection(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (client_stressed() || wn_heap_collector(c.heap) == WN_COLLECTOR_CONCURRENT) { /* not on a thread of its own */
        client_close(&c);
        skip();
    }
    unsigned refused = 0;
    heard h = {0};
    client_collect(m);
    assert_int_equal(wn_add_listener(c.heap, listen, &h), WN_OK);
    assert_int_equal(wn_add_listener(c.heap, ask_again, &refused), WN_OK);
    client_collect(m);
    assert_true(refused > 0);
    assert_int_equal(refused, h.starts + h.stops);
    assert_false(h.bad);
    assert_int_equal(wn_remove_listener(c.heap, ask_again, &refused), WN_OK);
    client_collect(m);
    assert_int_equal(wn_remove_listener(c.heap, listen, &h), WN_OK);
    client_close(&c);
}

/* Each start is followed by one stop, also when what was begun is thrown away: for a full collection, which begins it
 * anew, or for a freeze. */
static void what_starts_stops(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    heard h = {0};
    if (client_stressed() || wn_heap_collector(c.heap) == WN_COLLECTOR_CONCURRENT) { /* a cycle may be under way */
        client_close(&c);
        skip();
    }
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, client_scaled(200000)));
        for (size_t i = 0; i < all->length; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
        client_collect(m);
        wn_disable(c.heap);
        assert_int_equal(wn_add_listener(c.heap, listen, &h), WN_OK);
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        for (int i = 0; i < 6; i++) {
            wn_step_result r;
            assert_int_equal(wn_collect_step(m, &r), WN_OK);
            if (i % 3 == 1) {
                assert_int_equal(wn_freeze(m), WN_OK);
                assert_int_equal(wn_unfreeze(m), WN_OK);
            }
            if (i % 3 < 2) client_collect(m);
            if (i % 3 == 2)
                while (!r.major_is_done) assert_int_equal(wn_collect_step(m, &r), WN_OK);
            assert_int_equal(h.open, 0);
            assert_false(h.bad);
        }
        wn_get_stats(c.heap, &after);
        assert_true(h.starts >= 6);
        assert_int_equal(h.starts, h.stops);
        assert_int_equal(h.collected, after.generation[2].collected - before.generation[2].collected);
        if (client_moves(&c)) assert_int_equal(after.majors - before.majors, h.stops);
        assert_int_equal(wn_remove_listener(c.heap, listen, &h), WN_OK);
        wn_enable(c.heap);
    }
    client_close(&c);
}

static void statistics_add_up(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats a, b;
    wn_get_stats(c.heap, &a);
    heard h = {0};
    wn_add_listener(c.heap, listen, &h);
    make_cycles(m, client_stressed() ? 20 : 20000);
    for (int g = 0; g < 3; g++) wn_collect(m, g, NULL);
    wn_get_stats(c.heap, &b);
    if (client_counts(&c)) {
        uint64_t sum = 0, collected = 0;
        for (int g = 0; g < 3; g++) {
            sum += b.generation[g].collections - a.generation[g].collections;
            collected += b.generation[g].collected - a.generation[g].collected;
        }
        assert_int_equal(sum, h.stops);
        assert_int_equal(b.collections - a.collections, h.stops);
        assert_int_equal(collected, h.collected);
        assert_int_equal(collected, client_stressed() ? 40 : 40000);
        assert_int_equal(b.tracked, 0);
        assert_int_equal(client_alive(c.m), 0);
    } else {
        assert_true(b.majors > a.majors);
        assert_int_equal(b.minors - a.minors, h.minors);
        assert_int_equal(b.steps - a.steps, h.steps);
        /* On a collector that moves, a full collection takes one before marking, and one to end it. */
        wn_get_stats(c.heap, &a);
        client_collect(m);
        wn_get_stats(c.heap, &b);
        if (client_moves(&c)) assert_true(b.minors - a.minors >= 2);
    }
    assert_true(b.collections > a.collections);
    assert_true(b.gc_cpu_ns > a.gc_cpu_ns);
    assert_true(b.pause.count > a.pause.count);
    assert_true(b.pause.max >= b.pause.min);
    assert_true(b.pause.total >= b.pause.max);
    assert_true(b.heap_bytes_max >= b.heap_bytes);
    assert_true(b.live_bytes_max >= b.live_bytes);
    assert_true(b.live_bytes_max > 0);
    wn_remove_listener(c.heap, listen, &h);
    client_close(&c);
}

/* When finalizers have run, the world is stopped once more. */
static void both_stops_of_a_collection_are_pauses(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    wn_stats s[3];
    for (int finalizers = 0; finalizers < 2; finalizers++) {
        wn_get_stats(c.heap, &s[finalizers]);
        {
            wn_root(m, mortal *, p, finalizers ? client_mortal(m, 1, NULL, NULL) : client_relic(m, 0, NULL, NULL));
            wn_set(m, p, a, p);
        }
        client_collect(m);
    }
    wn_get_stats(c.heap, &s[2]);
    assert_int_equal(s[1].pause.count - s[0].pause.count, 1);
    assert_int_equal(s[2].pause.count - s[1].pause.count, 2);
    client_close(&c);
}

static uint64_t clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *make_list(wn_mutator *m, long n) {
    wn_root(m, pair *, list, NULL);
    for (long i = 0; i < n; i++) wn_take(m, list, client_pair(m, i, list, NULL));
    return wn_give(m, list);
}

static _Atomic bool over;
static void *block_until_over(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    wn_block_begin(m);
    while (!atomic_load(&over)) nanosleep(&(struct timespec){0, 1000000}, NULL);
    wn_block_end(m);
    return wn_detach(m) ? heap : NULL;
}

/* The thread that collects is held for about as long as that takes, and one that blocks is not held at all. */
static void waits_for_a_collection_are_pauses(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (client_stressed()) {
        client_close(&c);
        skip();
    }
    atomic_store(&over, false);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, block_until_over, c.heap), 0);
    {
        wn_root(m, pair *, list, make_list(m, 100000));
        client_collect(m);
        wn_stats a, b;
        wn_get_stats(c.heap, &a);
        wn_collect_result r = client_collect(m);
        wn_get_stats(c.heap, &b);
        assert_true(b.pause.total - a.pause.total >= r.duration_ns / 2);
        assert_true(b.pause.total - a.pause.total <= r.duration_ns);
        assert_true(b.pause.count - a.pause.count <= 4);
    }
    atomic_store(&over, true);
    wn_block_begin(m);
    void *failure;
    pthread_join(other, &failure);
    wn_block_end(m);
    assert_null(failure);
    client_close(&c);
}

/* Collecting takes what the process's other threads take, and what this one takes for it. */
static void processor_time_is_counted_once(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (client_stressed() || client_sanitized()) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, pair *, list, make_list(m, 200000));
        client_collect(m);
        wn_stats a, b;
        wn_get_stats(c.heap, &a);
        uint64_t own = clock_of(CLOCK_THREAD_CPUTIME_ID), all = clock_of(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < 10; i++) client_collect(m);
        own = clock_of(CLOCK_THREAD_CPUTIME_ID) - own;
        all = clock_of(CLOCK_PROCESS_CPUTIME_ID) - all;
        wn_get_stats(c.heap, &b);
        uint64_t spent = b.gc_cpu_ns - a.gc_cpu_ns, others = all > own ? all - own : 0;
        assert_true(spent >= others / 2);
        if (wn_heap_collector(c.heap) == WN_COLLECTOR_CONCURRENT) assert_true(spent <= all + all / 8 + 1000000);
    }
    client_close(&c);
}

/* What was counted by threads that are gone is counted. */
static void slow_stores_are_counted(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (client_counts(&c)) { /* its barrier has no slow path */
        client_close(&c);
        skip();
    }
    void *kept = NULL;
    assert_int_equal(wn_global(c.heap, &kept), WN_OK);
    wn_take(c.m, kept, client_pair(c.m, 1, NULL, NULL));
    assert_int_equal(wn_freeze(c.m), WN_OK);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    uint64_t before = s.barrier_slow;
    wn_set(c.m, (pair *)kept, a, kept);
    wn_get_stats(c.heap, &s);
    assert_true(s.barrier_slow > before);
    before = s.barrier_slow;
    assert_int_equal(wn_detach(c.m), WN_OK);
    wn_get_stats(c.heap, &s);
    assert_int_equal(s.barrier_slow, before);
    assert_int_equal(s.tracked, 0);
    assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    assert_int_equal(wn_unfreeze(c.m), WN_OK);
    assert_int_equal(wn_forget_global(c.m, &kept), WN_OK);
    client_close(&c);
}

/* A collection beside the program starts, and has come no further. False: there is none. */
static _Atomic unsigned beside_starts, beside_stops;
static void hear_beside(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    if (event->kind == WN_EVENT_COLLECT_START) atomic_fetch_add(&beside_starts, 1);
    if (event->kind == WN_EVENT_COLLECT_STOP) atomic_fetch_add(&beside_stops, 1);
}
static bool start_one_beside(client *c) {
    if (wn_heap_collector(c->heap) != WN_COLLECTOR_CONCURRENT || client_stressed()) return false;
    atomic_store(&beside_starts, 0);
    atomic_store(&beside_stops, 0);
    assert_int_equal(wn_add_listener(c->heap, hear_beside, NULL), WN_OK);
    while (!atomic_load(&beside_starts)) wn_release(c->m, client_new(c->m, &leaf_type));
    return true;
}

/* Nor do they ask for a freeze: a thread of the collector's that begins anew what another's freeze has ended would wait
 * for itself. */
static void ask_to_freeze(wn_mutator *m, const wn_event *event, void *data) {
    _Atomic unsigned *asked = data;
    (void)event;
    for (int undo = 0; undo < 2; undo++) {
        bool refused = (undo ? wn_unfreeze(m) : wn_freeze(m)) == WN_ERR_STATE && strstr(wn_error_message(), "listener");
        atomic_fetch_add(&asked[refused], 1);
    }
}

static void listeners_ask_for_no_freeze(void **state) {
    (void)state;
    static _Atomic unsigned asked[2];
    client c = client_open(NULL);
    bool beside = start_one_beside(&c);
    assert_int_equal(wn_add_listener(c.heap, ask_to_freeze, asked), WN_OK);
    assert_int_equal(wn_freeze(c.m), WN_OK); /* before this thread has answered a handshake */
    assert_int_equal(wn_unfreeze(c.m), WN_OK);
    client_collect(c.m);
    assert_int_equal(wn_remove_listener(c.heap, ask_to_freeze, asked), WN_OK);
    if (beside) assert_int_equal(wn_remove_listener(c.heap, hear_beside, NULL), WN_OK);
    assert_int_equal(asked[false], 0);
    assert_true(asked[true] > 0);
    client_close(&c);
}

static void a_collection_that_is_given_up_stops(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!start_one_beside(&c)) {
        client_close(&c);
        skip();
    }
    assert_int_equal(wn_freeze(c.m), WN_OK); /* before this thread has answered a handshake */
    assert_int_equal(wn_unfreeze(c.m), WN_OK);
    client_collect(c.m);
    assert_int_equal(wn_remove_listener(c.heap, hear_beside, NULL), WN_OK);
    assert_true(atomic_load(&beside_starts) >= 2);
    assert_int_equal(atomic_load(&beside_stops), atomic_load(&beside_starts));
    wn_stats s;
    wn_get_stats(c.heap, &s);
    assert_true(s.collections < atomic_load(&beside_starts));
    client_close(&c);
}

static void what_the_collection_under_way_frees_is_part_of_the_result(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!start_one_beside(&c)) {
        client_close(&c);
        skip();
    }
    wn_stats s;
    wn_get_stats(c.heap, &s);
    uint64_t before = s.generation[2].collected, allocated = s.allocated_objects;
    wn_collect_result r = client_collect(c.m);
    wn_get_stats(c.heap, &s);
    assert_int_equal(r.collected, s.generation[2].collected - before);
    assert_true(r.collected >= allocated / 2);
    assert_int_equal(wn_remove_listener(c.heap, hear_beside, NULL), WN_OK);
    client_close(&c);
}

/* There a listener must not make objects, nor collect: it is told so. */
static atomic_int made_none;
static void make_some(wn_mutator *m, const wn_event *event, void *data) {
    (void)event, (void)data;
    if (!wn_new(m, &pair_type) && strstr(wn_error_message(), "listener") && !wn_new_array(m, &vector_type, 3) &&
        !wn_weakref_new(m, data, NULL, NULL) && wn_collect(m, 2, NULL) == WN_ERR_STATE)
        atomic_fetch_add(&made_none, 1);
}
static void listeners_beside_the_program_make_nothing(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT) {
        client_close(&c);
        skip();
    }
    {
        wn_root(c.m, pair *, p, client_pair(c.m, 1, NULL, NULL));
        atomic_store(&made_none, 0);
        assert_int_equal(wn_add_listener(c.heap, make_some, p), WN_OK);
        client_collect(c.m);
        assert_int_equal(wn_remove_listener(c.heap, make_some, p), WN_OK);
        assert_true(atomic_load(&made_none) >= 2);
        assert_int_equal(p->id, 1);
    }
    client_close(&c);
}

/* A listener that a thread of the collector's is calling is in use until it returns. */
static atomic_int in_listener;
static void listen_slowly(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)event, (void)data;
    atomic_store(&in_listener, 1);
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    atomic_store(&in_listener, 2);
}
static void a_listener_that_is_being_called_is_waited_for(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT || client_stressed()) {
        client_close(&c);
        skip();
    }
    atomic_store(&in_listener, 0);
    assert_int_equal(wn_add_listener(c.heap, listen_slowly, NULL), WN_OK);
    while (!atomic_load(&in_listener)) wn_release(c.m, client_new(c.m, &leaf_type));
    assert_int_equal(wn_remove_listener(c.heap, listen_slowly, NULL), WN_OK);
    assert_int_equal(atomic_load(&in_listener), 2);
    client_close(&c);
}

/* Statistics are read by a thread of no heap while objects are made, move and die. */
static _Atomic unsigned wrong;

static void *read_statistics(void *heap) {
    uint64_t objects = 0, bytes = 0;
    do {
        wn_stats s;
        wn_get_stats(heap, &s);
        if (s.allocated_objects > 1u << 30 || s.allocated_bytes > (uint64_t)1 << 40) atomic_fetch_or(&wrong, 1);
        if (s.heap_bytes > s.heap_bytes_max) atomic_fetch_or(&wrong, 2);
        if (s.live_bytes > s.live_bytes_max) atomic_fetch_or(&wrong, 4);
        if (s.nursery_used > s.nursery_bytes) atomic_fetch_or(&wrong, 8);
        /* What was handed out to a thread and not used may be taken back. */
        if (s.allocated_objects + 8192 < objects || s.allocated_bytes + (512 << 10) < bytes)
            atomic_fetch_or(&wrong, 16);
        objects = s.allocated_objects;
        bytes = s.allocated_bytes;
    } while (!atomic_load(&over));
    return heap;
}

static void statistics_are_read_meanwhile(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.nursery = 1 << 20;
    for (int round = 0; round < (client_stressed() ? 1 : 20); round++) {
        client c = client_open(&o);
        wn_mutator *m = c.m;
        atomic_store(&over, false);
        atomic_store(&wrong, 0);
        pthread_t reader;
        assert_int_equal(pthread_create(&reader, NULL, read_statistics, c.heap), 0);
        {
            wn_root(m, pair *, list, NULL);
            for (size_t i = 0; i < (client_stressed() ? 100 : client_scaled(60000)); i++)
                wn_take(m, list, client_pair(m, (long)i, list, NULL));
            if (round % 4 == 0) {
                assert_int_equal(wn_freeze(m), WN_OK);
                assert_int_equal(wn_unfreeze(m), WN_OK);
            }
            client_collect(m);
            atomic_store(&over, true);
            pthread_join(reader, NULL);
            for (pair *next; list; wn_take(m, list, next)) next = wn_keep(m, list->a); /* not all at once */
        }
        assert_int_equal(wrong, 0);
        client_close(&c);
    }
}

static void steps_lead_to_the_end(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, live, client_new_array(m, &vector_type, client_scaled(50000)));
        for (size_t i = 0; i < live->length; i++) wn_move(m, live, items[i], client_pair(m, (long)i, live, NULL));
        client_collect(m);
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_set(m, p, a, p);
        wn_collect(m, 0, NULL);
        wn_take(m, p, NULL);
        size_t freed = 0, freed_bytes = 0;
        for (int major = 0; major < 2; major++) { /* what died after a major began may wait for the next */
            wn_step_result r = {0};
            wn_phase before = WN_PHASE_IDLE;
            int steps = 0;
            do {
                assert_int_equal(wn_collect_step(m, &r), WN_OK);
                freed += r.freed_objects;
                freed_bytes += r.freed_bytes;
                if (steps) assert_int_equal(r.before, before);
                before = r.after;
                assert_true(++steps < 1000000);
                assert_true(strlen(wn_phase_name(r.after)) > 0);
            } while (!r.major_is_done);
            assert_int_equal(r.after, WN_PHASE_IDLE);
        }
        assert_int_equal(client_released[1], 1);
        assert_int_equal(freed, 1);
        assert_true(freed_bytes >= sizeof(mortal));
        for (size_t i = 0; i < live->length; i++) assert_int_equal(((pair *)live->items[i])->id, i);

        wn_root(m, mortal *, q, client_relic(m, 2, NULL, NULL));
        wn_set(m, q, a, q);
        wn_collect(m, 0, NULL);
        wn_take(m, q, NULL);
        for (int done = 0, rounds = 0; done < 2 && rounds < 1000000; rounds++) {
            wn_step_result r = {0};
            assert_int_equal(wn_collect_for(m, 1000000, &r), WN_OK);
            done += r.major_is_done;
        }
        assert_int_equal(client_released[2], 1);
        for (size_t i = 0; i < live->length; i++) assert_int_equal(((pair *)live->items[i])->id, i);
    }
    client_collect(m);
    client_close(&c);
}

/* A step that was cut short leaves the rest to the next step, not to whoever allocates. */
static void time_given_once_is_not_owed(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.min_heap = (size_t)1 << 40;
    o.nursery = 2 << 20;
    o.step_bytes = 64 << 10; /* little is owed for what is allocated */
    client c = client_open(&o);
    wn_mutator *m = c.m;
    if (!client_moves(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, client_scaled(1000000)));
        for (size_t i = 0; i < all->length; i++) wn_move(m, all, items[i], client_pair(m, (long)i, all, NULL));
        client_collect(m);
        for (int timed = 0; timed < 2; timed++) {
            wn_step_result r;
            assert_int_equal(timed ? wn_collect_for(m, 1, &r) : wn_collect_step(m, &r), WN_OK);
            assert_false(r.major_is_done);
            wn_stats before, after;
            wn_get_stats(c.heap, &before);
            for (size_t i = 0; i < (1 << 20) / sizeof(pair); i++) wn_release(m, client_new(m, &pair_type));
            wn_get_stats(c.heap, &after);
            assert_true(after.steps - before.steps <= 2);
            client_collect(m);
        }
    }
    client_close(&c);
}

/* Another thread is in the middle of a finalizer, and will wait for this one to stand still. */
static wn_heap *of_both;
static _Atomic bool finalizing, stepping;

static void take_a_while(wn_mutator *m, mortal *self) {
    (void)self;
    wn_block_begin(m);
    atomic_store(&finalizing, true);
    while (!atomic_load(&stepping)) sched_yield();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    wn_block_end(m);
}

static void *die_and_collect(void *data) {
    wn_mutator *m;
    if (wn_attach(of_both, &m)) return NULL;
    {
        wn_root(m, mortal *, p, wn_new(m, &mortal_type));
        if (p) p->will = take_a_while;
    }
    wn_status s = wn_collect(m, 2, NULL);
    wn_detach(m);
    return s ? NULL : data;
}

static void steps_lead_to_the_end_beside_a_finalizer(void **state) {
    (void)state;
    for (int timed = 0; timed < 2; timed++) {
        client c = client_open(NULL);
        wn_mutator *m = c.m;
        of_both = c.heap;
        atomic_store(&finalizing, false);
        atomic_store(&stepping, false);
        pthread_t other;
        assert_int_equal(pthread_create(&other, NULL, die_and_collect, &c), 0);
        wn_block_begin(m);
        while (!atomic_load(&finalizing)) sched_yield();
        wn_block_end(m);
        atomic_store(&stepping, true);
        wn_step_result r = {0};
        for (int steps = 0; !r.major_is_done; steps++) {
            assert_int_equal(timed ? wn_collect_for(m, 1000000, &r) : wn_collect_step(m, &r), WN_OK);
            assert_true(steps < (timed ? 10000 : 10000000));
        }
        wn_block_begin(m);
        void *result = NULL;
        pthread_join(other, &result);
        wn_block_end(m);
        assert_non_null(result);
        client_close(&c);
    }
}

static void histograms_answer_within_six_percent(void **state) {
    (void)state;
    static wn_histogram h, all;
    memset(&h, 0, sizeof h);
    memset(&all, 0, sizeof all);
    assert_int_equal(wn_histogram_quantile(&h, 0.5), 0);
    uint64_t sum = 0;
    for (uint64_t v = 1; v <= 100000; v++) {
        wn_histogram_add(&h, v * 37);
        sum += v * 37;
    }
    assert_int_equal(h.count, 100000);
    assert_int_equal(h.total, sum);
    assert_int_equal(h.min, 37);
    assert_int_equal(h.max, 3700000);
    const double quantiles[] = {0.0001, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999};
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        double exact = quantiles[i] * 100000 * 37, got = (double)wn_histogram_quantile(&h, quantiles[i]);
        if (got < exact * 0.999 || got > exact * 1.07)
            fail_msg("quantile %g: %g, exactly %g", quantiles[i], got, exact);
    }
    assert_int_equal(wn_histogram_quantile(&h, 1.0), 3700000);
    assert_int_equal(wn_histogram_quantile(&h, 7), 3700000);
    const double least[] = {0, -1, NAN};
    for (size_t i = 0; i < 3; i++) assert_int_equal(wn_histogram_quantile(&h, least[i]), h.min);
    /* The buckets are all there is of a value: each is counted in the first whose bound it does not pass. */
    for (unsigned i = 0; i < WN_HISTOGRAM_BUCKETS; i++) {
        uint64_t bound = wn_histogram_bound(i), below = i ? wn_histogram_bound(i - 1) : 0;
        assert_true(i == 0 || bound > below || bound == UINT64_MAX);
        if (bound == below) continue;
        static wn_histogram one;
        memset(&one, 0, sizeof one);
        wn_histogram_add(&one, bound);
        wn_histogram_add(&one, below + (i > 0));
        assert_int_equal(one.bucket[i], 2);
    }
    assert_true(wn_histogram_bound(WN_HISTOGRAM_BUCKETS) == UINT64_MAX);
    static wn_histogram far;
    memset(&far, 0, sizeof far);
    wn_histogram_add(&far, 0);
    wn_histogram_add(&far, ~(uint64_t)0);
    wn_histogram_add(&far, (uint64_t)1 << 40);
    assert_int_equal(far.min, 0);
    assert_true(far.max == ~(uint64_t)0);
    wn_histogram_merge(&all, &h);
    wn_histogram_merge(&all, &far);
    assert_int_equal(all.count, 100003);
    assert_int_equal(all.min, 0);
    assert_true(all.max == ~(uint64_t)0);
    assert_true(wn_histogram_quantile(&all, 0.5) < 37 * 50000 * 1.08);
    uint64_t last = 0;
    for (double q = 0; q <= 1; q += 0.01) {
        uint64_t v = wn_histogram_quantile(&all, q);
        assert_true(v >= last);
        last = v;
    }
}

static void names_are_names(void **state) {
    (void)state;
    for (int s = WN_OK; s <= WN_ERR_IO; s++)
        assert_non_null(strstr(wn_status_name((wn_status)s), s ? "WN_ERR_" : "WN_OK"));
    assert_non_null(wn_status_name((wn_status)99));
    assert_string_equal(wn_collector_name(WN_COLLECTOR_REFCOUNT), "refcount");
    assert_string_equal(wn_collector_name(WN_COLLECTOR_INCREMENTAL), "incremental");
    assert_string_equal(wn_collector_name(WN_COLLECTOR_CONCURRENT), "concurrent");
    for (int p = WN_PHASE_IDLE; p <= WN_PHASE_FINALIZING; p++) assert_non_null(wn_phase_name((wn_phase)p));
    assert_string_equal(wn_version(), WN_VERSION);
    client c = client_open(NULL);
    const char *wanted = getenv("WINNOW_COLLECTOR");
    assert_string_equal(wn_collector_name(wn_heap_collector(c.heap)), wanted ? wanted : "refcount");
    assert_ptr_equal(wn_heap_of(c.m), c.heap);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collect_says_what_it_did),
        cmocka_unit_test(minors_are_heard_of_once_and_steps_in_between),
        cmocka_unit_test(listeners_may_find_no_memory),
        cmocka_unit_test(only_what_dies_is_counted),
        cmocka_unit_test(steps_add_up),
        cmocka_unit_test(younger_collections_leave_older_garbage),
        cmocka_unit_test(listeners_hear_start_and_stop),
        cmocka_unit_test(listeners_may_allocate_when_an_automatic_collection_starts),
        cmocka_unit_test(statistics_add_up),
        cmocka_unit_test(both_stops_of_a_collection_are_pauses),
        cmocka_unit_test(waits_for_a_collection_are_pauses),
        cmocka_unit_test(processor_time_is_counted_once),
        cmocka_unit_test(slow_stores_are_counted),
        cmocka_unit_test(listeners_ask_for_no_freeze),
        cmocka_unit_test(a_collection_that_is_given_up_stops),
        cmocka_unit_test(what_the_collection_under_way_frees_is_part_of_the_result),
        cmocka_unit_test(listeners_beside_the_program_make_nothing),
        cmocka_unit_test(a_listener_that_is_being_called_is_waited_for),
        cmocka_unit_test(listeners_ask_for_no_collection),
        cmocka_unit_test(what_starts_stops),
        cmocka_unit_test(statistics_are_read_meanwhile),
        cmocka_unit_test(steps_lead_to_the_end),
        cmocka_unit_test(time_given_once_is_not_owed),
        cmocka_unit_test(steps_lead_to_the_end_beside_a_finalizer),
        cmocka_unit_test(histograms_answer_within_six_percent),
        cmocka_unit_test(names_are_names),
    };
    return CLIENT_MAIN("events", tests);
}
