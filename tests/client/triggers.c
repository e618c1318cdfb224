/*
 * triggers.c - when collections happen: on their own, never while disabled, and, under counting, exactly when CPython's
 * rules say: more than threshold0 allocations less deallocations of tracked objects start a young collection, more than
 * threshold1 of those a middle one, more than threshold2 of those a full one, if a quarter as many objects survived
 * middle collections since the last full one as were then alive.
 */
#include "client.h"

#include <pthread.h>
#include <sched.h>

static uint64_t collections(wn_heap *heap, int generation) {
    wn_stats s;
    wn_get_stats(heap, &s);
    return s.generation[generation].collections;
}

/* A heap in which collections can be counted: no stress, no early ones. */
static bool exact(client *c) {
    *c = client_open(NULL);
    if (client_counts(c) && !client_stressed()) return true;
    client_close(c);
    return false;
}

static void the_defaults_are_cpythons(void **state) {
    (void)state;
    client c = client_open(NULL);
    unsigned t[3];
    wn_get_threshold(c.heap, t);
    assert_int_equal(t[0], 700);
    assert_int_equal(t[1], 10);
    assert_int_equal(t[2], 10);
    wn_set_threshold(c.heap, 123, 4, 5);
    wn_get_threshold(c.heap, t);
    assert_int_equal(t[0], 123);
    assert_int_equal(t[1], 4);
    assert_int_equal(t[2], 5);
    client_close(&c);
}

static void counts_follow_tracked_objects(void **state) {
    (void)state;
    client c;
    if (!exact(&c)) skip();
    wn_mutator *m = c.m;
    client_collect(m);
    {
        unsigned count[3], before;
        wn_root(m, vector *, all, client_new_array(m, &vector_type, 200));
        wn_get_count(c.heap, count);
        before = count[0];
        assert_true(before <= 1);
        for (int i = 0; i < 200; i++) {
            wn_move(m, all, items[i], client_new(m, &pair_type));
            wn_get_count(c.heap, count);
            assert_int_equal(count[0], before + 1 + (unsigned)i);
        }
        for (int i = 0; i < 100; i++) wn_release(m, client_new(m, &leaf_type)); /* not tracked: not counted */
        wn_get_count(c.heap, count);
        assert_int_equal(count[0], before + 200);
        for (int i = 0; i < 150; i++) wn_set(m, all, items[i], NULL);
        wn_get_count(c.heap, count);
        assert_int_equal(count[0], before + 50);
        wn_collect(m, 0, NULL);
        wn_get_count(c.heap, count);
        assert_int_equal(count[0], 0);
        assert_int_equal(count[1], 1);
        wn_collect(m, 1, NULL);
        wn_get_count(c.heap, count);
        assert_int_equal(count[0], 0);
        assert_int_equal(count[1], 0);
        assert_int_equal(count[2], 1);
        client_collect(m);
        wn_get_count(c.heap, count);
        assert_int_equal(count[2], 0);
        for (int i = 150; i < 200; i++) wn_set(m, all, items[i], NULL); /* never below zero */
        wn_get_count(c.heap, count);
        assert_int_equal(count[0], 0);
    }
    client_close(&c);
}

static void the_young_threshold_is_exact(void **state) {
    (void)state;
    client c;
    if (!exact(&c)) skip();
    wn_mutator *m = c.m;
    const unsigned thresholds[] = {700, 50, 1, 5000};
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, 6000));
        for (size_t k = 0; k < 4; k++) {
            wn_set_threshold(c.heap, thresholds[k], 10, 10);
            client_collect(m);
            uint64_t before = collections(c.heap, 0);
            for (unsigned i = 0; i < thresholds[k]; i++) wn_move(m, all, items[i], client_new(m, &pair_type));
            assert_int_equal(collections(c.heap, 0), before);
            wn_root(m, pair *, one, client_new(m, &pair_type));
            wn_root(m, pair *, two, client_new(m, &pair_type)); /* the collection may run before or after this one */
            wn_poll(m);
            if (thresholds[k] > 1) assert_int_equal(collections(c.heap, 0), before + 1);
            assert_true(collections(c.heap, 0) > before);
            for (unsigned i = 0; i < thresholds[k]; i++) wn_set(m, all, items[i], NULL);
        }
    }
    client_close(&c);
}

/* What is allocated and freed at once never starts a collection. */
static void freeing_balances_allocating(void **state) {
    (void)state;
    client c;
    if (!exact(&c)) skip();
    wn_mutator *m = c.m;
    client_collect(m);
    uint64_t before = collections(c.heap, 0);
    for (int i = 0; i < 100000; i++) wn_release(m, client_new(m, &pair_type));
    for (int i = 0; i < 100000; i++) wn_release(m, client_new_array(m, &blob_type, 100));
    assert_int_equal(collections(c.heap, 0), before);
    client_close(&c);
}

/* CPython's own algorithm, beside the heap: a growing live set, no garbage. */
typedef struct model {
    unsigned threshold[3], count[3];
    uint64_t collections[3];
    size_t young, middle, old, long_lived_total, long_lived_pending;
} model;

static void model_allocate(model *g) {
    g->young++;
    g->count[0]++;
    if (g->count[0] <= g->threshold[0]) return;
    for (int i = 2; i >= 0; i--) {
        if (g->count[i] <= g->threshold[i]) continue;
        if (i == 2 && g->long_lived_pending < g->long_lived_total / 4) continue;
        if (i < 2) g->count[i + 1]++;
        for (int k = 0; k <= i; k++) g->count[k] = 0;
        g->collections[i]++;
        if (i == 0) {
            g->middle += g->young, g->young = 0;
        } else if (i == 1) {
            g->long_lived_pending += g->young + g->middle;
            g->old += g->young + g->middle, g->young = g->middle = 0;
        } else {
            g->old += g->young + g->middle, g->young = g->middle = 0;
            g->long_lived_total = g->old;
            g->long_lived_pending = 0;
        }
        return;
    }
}

static void generations_and_the_quarter_rule(void **state) {
    (void)state;
    const unsigned thresholds[][3] = {{700, 10, 10}, {100, 5, 5}, {50, 2, 0}};
    for (size_t k = 0; k < 3; k++) {
        client c;
        if (!exact(&c)) skip();
        wn_mutator *m = c.m;
        size_t n = client_scaled(1000000);
        {
            model g = {.threshold = {thresholds[k][0], thresholds[k][1], thresholds[k][2]}};
            wn_set_threshold(c.heap, WN_NEVER, 10, 10);
            wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
            wn_collect(m, 2, NULL);
            g.old = g.long_lived_total = 1;
            uint64_t before[3];
            for (int i = 0; i < 3; i++) before[i] = collections(c.heap, i);
            wn_set_threshold(c.heap, g.threshold[0], g.threshold[1], g.threshold[2]);
            for (size_t i = 0; i < n; i++) {
                wn_move(m, all, items[i], client_new(m, &pair_type));
                model_allocate(&g);
            }
            for (int i = 0; i < 3; i++) {
                uint64_t did = collections(c.heap, i) - before[i], expected = g.collections[i];
                uint64_t slack = i == 2 ? 1 : 1 + expected / 100;
                if (did + slack < expected || did > expected + slack)
                    fail_msg("thresholds %u %u %u: generation %d was collected %llu times, expected %llu",
                             g.threshold[0], g.threshold[1], g.threshold[2], i, (unsigned long long)did,
                             (unsigned long long)expected);
            }
            if (n >= 1000000) assert_true(g.collections[2] >= 2); /* the test says something */
        }
        client_close(&c);
    }
}

static void never_is_never(void **state) {
    (void)state;
    client c;
    if (!exact(&c)) skip();
    wn_mutator *m = c.m;
    wn_set_threshold(c.heap, WN_NEVER, 10, 10);
    for (int i = 0; i < 50000; i++) {
        wn_root(m, pair *, p, client_new(m, &pair_type));
        wn_set(m, p, a, p);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(collections(c.heap, i), 0);
    assert_int_equal(client_collect(m).collected, 50000);
    client_close(&c);
}

/* On every collector: garbage does not pile up for ever, whatever its shape. */
static void garbage_is_collected_without_being_asked(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.heap_limit = 256u << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_scaled(5000000);
    for (size_t i = 0; i < n; i++) {
        wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
        wn_move(m, p, a, client_pair(m, (long)i, p, NULL)); /* 64 bytes and more in a cycle */
    }
    wn_stats s;
    wn_get_stats(c.heap, &s);
    assert_true(s.heap_bytes_max <= 256u << 20);
    assert_true(s.collections > 0 || n < 1000);
    client_close(&c);
}

static void disabled_collectors_wait(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    assert_true(wn_is_enabled(c.heap));
    wn_disable(c.heap);
    assert_false(wn_is_enabled(c.heap));
    wn_disable(c.heap); /* nests */
    wn_enable(c.heap);
    assert_false(wn_is_enabled(c.heap));
    wn_stats before, after;
    if (!client_stressed()) {
        client_collect(m);
        wn_get_stats(c.heap, &before);
        for (int i = 0; i < 20000; i++) {
            wn_root(m, pair *, p, client_new(m, &pair_type));
            wn_set(m, p, a, p);
        }
        wn_get_stats(c.heap, &after);
        assert_int_equal(after.majors, before.majors);
        if (client_counts(&c)) assert_int_equal(after.collections, before.collections);
    }
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_set(m, p, a, p);
    }
    client_collect(m); /* what is asked for is done */
    assert_int_equal(client_released[1], 1);
    wn_enable(c.heap);
    assert_true(wn_is_enabled(c.heap));
    client_close(&c);
}

/* A major that waits for a minor goes on waiting while collections are disabled: death is not decided meanwhile. */
static void disabled_majors_wait_for_the_program(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_moves(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, p, NULL, NULL));
        client_collect(m);
        wn_take(m, p, NULL);
        wn_disable(c.heap);
        wn_step_result r;
        assert_int_equal(wn_collect_step(m, &r), WN_OK);
        assert_int_equal(r.after, WN_PHASE_MARKING);
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        do {
            wn_release(m, client_new(m, &pair_type));
            wn_get_stats(c.heap, &after);
        } while (after.minors == before.minors);
        assert_non_null(wn_weakref_get(m, w));
        while (!r.major_is_done) assert_int_equal(wn_collect_step(m, &r), WN_OK);
        wn_enable(c.heap);
        client_collect(m);
        assert_null(wn_weakref_get(m, w));
    }
    client_close(&c);
}

/* Stress collects where an allocation might. */
static void stress_keeps_the_rules(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.stress = 3;
    client c = client_open(&o);
    wn_stats before, after;
    for (int way = 0; way < 3; way++) {
        if (way == 1) wn_disable(c.heap);
        if (way == 2) wn_no_collect_begin(c.m);
        wn_get_stats(c.heap, &before);
        for (int i = 0; i < 60; i++) wn_release(c.m, client_new(c.m, &leaf_type));
        wn_get_stats(c.heap, &after);
        if (way)
            assert_int_equal(after.collections, before.collections);
        else
            assert_true(after.collections - before.collections >= 20);
        if (way == 1) wn_enable(c.heap);
        if (way == 2) wn_no_collect_end(c.m);
    }
    client_close(&c);
}

/* ... and goes on to what has grown old: cycles whose first half was there when the second was made. */
static void stress_lets_no_garbage_pile_up(void **state) {
    (void)state;
    enum { CYCLES = 300 };
    wn_options o = wn_options_default();
    o.stress = 1;
    client c = client_open(&o);
    for (long i = 0; i < CYCLES; i++) {
        wn_root(c.m, mortal *, p, client_relic(c.m, i, NULL, NULL));
        wn_move(c.m, p, a, client_relic(c.m, i, p, NULL));
    }
    assert_true(client_total(EVENT_RELEASE) > CYCLES); /* half of them at least, and nobody has asked */
    client_close(&c);
}

static void no_collection_in_a_no_collect_scope(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats before, after;
    client_collect(m);
    wn_get_stats(c.heap, &before);
    wn_no_collect_begin(m);
    wn_no_collect_begin(m);
    pair *undeclared = client_new(m, &pair_type); /* allowed here: nothing moves, nothing is collected */
    undeclared->id = 77;
    for (int i = 0; i < 3000; i++) {
        pair *next = client_new(m, &pair_type);
        next->id = i;
        wn_store_new(m, undeclared, &undeclared->a, next);
    }
    assert_int_equal(wn_collect(m, 2, NULL), WN_ERR_STATE);
    assert_int_equal(wn_collect_step(m, NULL), WN_ERR_STATE);
    assert_int_equal(wn_collect_for(m, 1000000, NULL), WN_ERR_STATE);
    wn_no_collect_end(m);
    wn_get_stats(c.heap, &after);
    assert_int_equal(after.majors, before.majors);
    assert_int_equal(after.minors, before.minors);
    assert_int_equal(after.generation[0].collections, before.generation[0].collections);
    assert_int_equal(undeclared->id, 77);
    assert_int_equal(((pair *)undeclared->a)->id, 2999);
    {
        wn_root(m, pair *, declared, undeclared);
        wn_no_collect_end(m);
        client_collect(m);
        assert_int_equal(declared->id, 77);
        assert_int_equal(((pair *)declared->a)->id, 2999);
    }
    client_collect(m);
    client_close(&c);
}

static void note_start(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    size_t *used = data;
    if (event->kind == WN_EVENT_COLLECT_START && !*used) *used = event->bytes_before;
}

/* Where objects move: a major that begins at the limit is too late, because minors then find no room to move anything.
 */
static void a_limit_leaves_room_for_a_major(void **state) {
    (void)state;
    if (client_stressed()) return;
    wn_options options = wn_options_default();
    options.heap_limit = 24 << 20;
    client c = client_open(&options);
    wn_mutator *m = c.m;
    size_t used = 0;
    assert_int_equal(wn_add_listener(c.heap, note_start, &used), WN_OK);
    if (client_moves(&c)) {
        wn_root(m, pair *, list, NULL);
        for (long i = 0; !used && i < 700000; i++) wn_take(m, list, client_pair(m, i, list, NULL));
        assert_in_range(used, 1, options.heap_limit * 3 / 4);
    }
    wn_remove_listener(c.heap, note_start, &used);
    client_close(&c);
}

/* Two threads enable what was disabled once: one of them has nothing to undo. */
static wn_heap *enabled_by_two;
static _Atomic unsigned enabling, enabled;
enum { ENABLED = 20000 };
static void *enable_too(void *unused) {
    (void)unused;
    for (unsigned round = 1; round <= ENABLED; round++) {
        for (unsigned turns = 0; atomic_load(&enabling) != round;)
            if (++turns % 256 == 0) sched_yield();
        wn_enable(enabled_by_two);
        atomic_store(&enabled, round);
    }
    return NULL;
}

/* What a thread leaves behind is as young as it was. */
static void *make_garbage(void *data) {
    wn_mutator *m;
    if (wn_attach(data, &m)) abort();
    for (long i = 0; i < 10; i++) {
        wn_root(m, mortal *, p, client_relic(m, i, NULL, NULL));
        wn_set(m, p, a, p);
    }
    wn_detach(m);
    return NULL;
}
static void the_young_of_a_thread_that_is_gone(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!client_counts(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, make_garbage, c.heap), 0);
    wn_block_begin(c.m);
    pthread_join(thread, NULL);
    wn_block_end(c.m);
    wn_collect_result result;
    assert_int_equal(wn_collect(c.m, 1, &result), WN_OK);
    assert_int_equal(result.collected, 10);
    assert_int_equal(client_total(EVENT_RELEASE), 10);
    client_close(&c);
}

static void two_threads_may_enable_at_once(void **state) {
    (void)state;
    if (client_stressed()) skip();
    client c = client_open(NULL);
    enabled_by_two = c.heap;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, enable_too, NULL), 0);
    unsigned stuck = 0;
    for (unsigned round = 1; round <= ENABLED; round++) {
        wn_disable(c.heap);
        atomic_store(&enabling, round);
        wn_enable(c.heap);
        for (unsigned turns = 0; atomic_load(&enabled) != round;)
            if (++turns % 256 == 0) sched_yield();
        stuck += !wn_is_enabled(c.heap);
    }
    pthread_join(thread, NULL);
    assert_int_equal(stuck, 0);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_threads_may_enable_at_once),
        cmocka_unit_test(the_young_of_a_thread_that_is_gone),
        cmocka_unit_test(a_limit_leaves_room_for_a_major),
        cmocka_unit_test(the_defaults_are_cpythons),
        cmocka_unit_test(counts_follow_tracked_objects),
        cmocka_unit_test(the_young_threshold_is_exact),
        cmocka_unit_test(freeing_balances_allocating),
        cmocka_unit_test(generations_and_the_quarter_rule),
        cmocka_unit_test(never_is_never),
        cmocka_unit_test(garbage_is_collected_without_being_asked),
        cmocka_unit_test(disabled_collectors_wait),
        cmocka_unit_test(disabled_majors_wait_for_the_program),
        cmocka_unit_test(stress_keeps_the_rules),
        cmocka_unit_test(stress_lets_no_garbage_pile_up),
        cmocka_unit_test(no_collection_in_a_no_collect_scope),
    };
    return CLIENT_MAIN("triggers", tests);
}
