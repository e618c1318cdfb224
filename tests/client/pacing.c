/*
 * pacing.c - when the concurrent collector starts a cycle, when a thread waits for one, and when memory goes back: by
 * what the options and the headers say, not by how fast anything is.
 */
#include "client.h"
#include "one_processor.h"

#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, PIECE = 4064 };

static wn_options concurrent(void) {
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_CONCURRENT;
    o.check = false; /* which keeps freed memory apart for a while */
    return o;
}

static uint64_t cycles(const client *c) {
    wn_stats s;
    wn_get_stats(c->heap, &s);
    return s.collections;
}

static void make_garbage(wn_mutator *m, unsigned mib) {
    for (unsigned i = 0; i < mib * 256; i++) wn_release(m, client_new_array(m, &blob_type, PIECE));
}

static _Atomic unsigned starts, stops;
static void hear(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    if (event->kind == WN_EVENT_COLLECT_START) atomic_fetch_add(&starts, 1);
    if (event->kind == WN_EVENT_COLLECT_STOP) atomic_fetch_add(&stops, 1);
}

/* A cycle costs next to nothing here, where nothing has references, and is waited for: what is left is how much is
 * allocated between two. */
static void heap_growth_says_how_often(void **state) {
    (void)state;
    static const unsigned growth[] = {10, 200};
    uint64_t found[2];
    for (int i = 0; i < 2; i++) {
        wn_options o = concurrent();
        o.heap_growth = growth[i];
        client c = client_open(&o);
        starts = stops = 0;
        {
            wn_root(c.m, blob *, kept, client_new_array(c.m, &blob_type, 64 * MIB));
            client_collect(c.m);
            uint64_t before = cycles(&c);
            assert_int_equal(wn_add_listener(c.heap, hear, NULL), WN_OK);
            for (int mib = 0; mib < 400; mib++) {
                make_garbage(c.m, 1);
                wn_block_begin(c.m);
                usleep(200);
                while (atomic_load(&starts) != atomic_load(&stops)) usleep(100);
                wn_block_end(c.m);
            }
            found[i] = cycles(&c) - before;
            assert_int_equal(kept->length, 64 * MIB);
        }
        client_close(&c);
    }
    /* Each 6 MiB at most, and each 77 MiB at least. */
    if (found[1] < 1 || found[1] > 6 || found[0] < 3 * found[1])
        fail_msg("%llu cycles at 10 percent, %llu at 200", (unsigned long long)found[0], (unsigned long long)found[1]);
}

/* Whether one more cycle than so many comes by itself. */
static bool comes(client *c, uint64_t before, int ms) {
    for (int i = 0; i < ms && cycles(c) == before; i++) {
        wn_poll(c->m);
        usleep(1000);
    }
    return cycles(c) > before;
}

static void growth_outside_starts_a_cycle(void **state) {
    (void)state;
    static const struct {
        size_t limit;
        unsigned growth;
        int mib[5]; /* the last decides, and before it all there is to come comes */
        bool starts;
    } cases[] = {
        {0, 100, {10}, false},
        {0, 100, {20}, true}, /* half of 32 MiB and what the heap holds */
        {0, 20, {5}, true},
        {0, 400, {20}, false},
        {0, WN_NEVER, {2000}, false},
        {32 * MIB, WN_NEVER, {2000}, false},
        {32 * MIB, 100, {5}, false},
        {32 * MIB, 100, {10}, true}, /* half of half the limit */
        {0, 100, {100, -100, 20}, false},
        {0, 100, {100, -100, 1, 20}, true}, /* what was given back and comes again */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wn_options o = concurrent();
        o.heap_limit = cases[i].limit;
        o.heap_growth = cases[i].growth;
        client c = client_open(&o);
        {
            wn_root(c.m, leaf *, holder, client_new(c.m, &leaf_type));
            client_collect(c.m);
            uint64_t before = cycles(&c);
            for (int step = 0; step < 5 && cases[i].mib[step]; step++) {
                bool last = step == 4 || !cases[i].mib[step + 1];
                before = cycles(&c);
                wn_external(c.m, holder, (ptrdiff_t)cases[i].mib[step] * MIB);
                if (!last && cases[i].mib[step] > 50) assert_true(comes(&c, before, 20000));
            }
            if (comes(&c, before, cases[i].starts ? 20000 : 50) != cases[i].starts)
                fail_msg("case %zu: %s", i, cases[i].starts ? "none came" : "one came");
        }
        client_close(&c);
    }
}

static void a_disabled_collector_neither_starts_nor_waits(void **state) {
    (void)state;
    wn_options o = concurrent();
    client c = client_open(&o);
    client_collect(c.m);
    wn_disable(c.heap);
    uint64_t before = cycles(&c);
    make_garbage(c.m, 120);
    assert_int_equal(cycles(&c), before);
    wn_enable(c.heap);
    make_garbage(c.m, 1);
    assert_true(comes(&c, before, 20000));
    client_close(&c);
}

/* A collector that gets no processor: threads wait for it, far above the goal, and the heap does not grow without end.
 */
static void listen_for_long(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    if (event->kind == WN_EVENT_COLLECT_START) usleep(500000);
}
static void the_heap_does_not_outgrow_its_goal(void **state) {
    (void)state;
    wn_options o = concurrent();
    client c = client_open(&o);
    client_collect(c.m);
    assert_int_equal(wn_add_listener(c.heap, listen_for_long, NULL), WN_OK);
    make_garbage(c.m, 120);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    if (s.live_bytes_max > 64 * MIB) fail_msg("%llu bytes at a time", (unsigned long long)s.live_bytes_max);
    client_close(&c);
}

/* Without wn_trim, and without anybody who allocates. */
static void memory_goes_back_in_the_background(void **state) {
    (void)state;
    enum { N = 64 * 256 };
    wn_options o = concurrent();
    client c = client_open(&o);
    {
        wn_root(c.m, vector *, all, client_new_array(c.m, &vector_type, N));
        for (size_t i = 0; i < N; i++) wn_move(c.m, all, items[i], client_new_array(c.m, &blob_type, PIECE));
    }
    wn_collect_result r = client_collect(c.m);
    assert_true(r.collected > N);
    assert_true(r.freed_bytes >= (size_t)N * PIECE);
    assert_true(r.freed_bytes < (size_t)N * PIECE * 5 / 4);
    wn_stats s = {0};
    wn_block_begin(c.m);
    for (int i = 0; i < 20000 && s.returned_bytes < 32 * MIB; i++) {
        usleep(1000);
        wn_get_stats(c.heap, &s);
    }
    wn_block_end(c.m);
    assert_true(s.returned_bytes >= 32 * MIB);
    client_close(&c);
}

#ifdef __linux__
/* On a single processor that the program does not leave idle, from the end of one cycle to the end of the next. What
 * else the machine does takes from the collector's part as from the program's. */
static _Atomic uint64_t cycle_cpu, cycle_ns, ended_at;
static uint64_t ns_by(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static void time_cycle(wn_mutator *m, const wn_event *event, void *data) { /* on the collector's thread */
    uint64_t cpu = ns_by(CLOCK_THREAD_CPUTIME_ID), now = ns_by(CLOCK_MONOTONIC);
    if (event->kind == WN_EVENT_COLLECT_START) atomic_store(&cycle_cpu, cpu);
    if (event->kind == WN_EVENT_COLLECT_STOP) {
        atomic_store(&cycle_cpu, cpu - atomic_load(&cycle_cpu));
        atomic_store(&cycle_ns, now - atomic_load(&ended_at));
        atomic_store(&ended_at, now);
    }
    hear(m, event, data);
}
static void the_collector_keeps_to_its_share(void **state) {
    (void)state;
    cpu_set_t before;
    leave_one_processor(&before);
    size_t n = client_scaled(1000000);
    wn_options o = concurrent();
    o.cpu_share = 5;
    o.heap_growth = 5;
    client c = client_open(&o);
    {
        wn_root(c.m, vector *, all, client_new_array(c.m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(c.m, all, items[i], client_pair(c.m, (long)i, NULL, NULL));
        assert_int_equal(wn_add_listener(c.heap, time_cycle, NULL), WN_OK);
        client_collect(c.m);
        starts = stops = 0;
        while (!atomic_load(&starts)) {
            wn_release(c.m, client_new_array(c.m, &blob_type, PIECE));
            sched_yield();
        }
        while (!atomic_load(&stops)) wn_poll(c.m); /* it allocates nothing: no threshold comes nearer */
        double share = (double)cycle_cpu / (double)cycle_ns;
        if (share > .15)
            fail_msg("%.0f%% of the processor in %llu us", 100 * share, (unsigned long long)cycle_ns / 1000);
    }
    client_close(&c);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_growth_says_how_often),
        cmocka_unit_test(growth_outside_starts_a_cycle),
        cmocka_unit_test(a_disabled_collector_neither_starts_nor_waits),
        cmocka_unit_test(the_heap_does_not_outgrow_its_goal),
        cmocka_unit_test(memory_goes_back_in_the_background),
#ifdef __linux__
        cmocka_unit_test(the_collector_keeps_to_its_share),
#endif
    };
    return CLIENT_MAIN("pacing", tests);
}
