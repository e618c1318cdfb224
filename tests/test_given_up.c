/*
 * test_given_up.c - cycles of the concurrent collector that do not come to their end: for want of memory, for a freeze,
 * in a forked child. Nothing that is reachable is lost, no death is half done, and the next cycle makes good what this
 * one could not.
 */
#include "client/client.h"

#include "collectors/concurrent/concurrent.h"
#include "starve.h"

#include <pthread.h>
#include <sys/wait.h>
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

static void a_collection_without_memory_is_an_error(void **state) {
    (void)state;
    enum { DEAD = 300 };
    client c = open_concurrent();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    wn_collect_result r;
    {
        wn_root(m, vector *, kept, make_wide_and_deep(m));
        for (long i = 0; i < DEAD; i++) wn_release(m, client_pair(m, i, NULL, NULL));
        starve(ANY);
        wn_status status = wn_collect(m, 2, &r);
        assert_true(feed() > 0);
        assert_int_equal(status, WN_ERR_MEMORY);
        assert_non_null(strstr(wn_error_message(), "memory"));
        assert_int_equal(r.collected, 0);
        assert_int_equal(wn_collect(m, 2, &r), WN_OK);
        assert_int_equal(r.collected, DEAD);
    }
    client_close(&c);
}

/* There is none for the lists of blocks to sweep: then they are swept without. */
static void a_sweep_needs_no_memory(void **state) {
    (void)state;
    enum { N = 10000 };
    client c = open_concurrent();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    wn_collect_result r;
    for (long i = 0; i < N; i++) wn_release(m, client_relic(m, i, NULL, NULL));
    starve((size_t)1 << 20);
    assert_int_equal(wn_collect(m, 2, &r), WN_OK);
    assert_true(feed() > 0);
    assert_int_equal(r.collected, N);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_frozen_objects_refer_to_lives),
        cmocka_unit_test(finalizers_and_callbacks_run_all),
        cmocka_unit_test(an_object_with_a_finalizer_is_noted_or_not_made),
        cmocka_unit_test(a_collection_without_memory_is_an_error),
        cmocka_unit_test(a_sweep_needs_no_memory),
        cmocka_unit_test(cycles_without_memory_do_not_follow_each_other_without_end),
        cmocka_unit_test(weak_references_are_cleared_all_or_none),
    };
    return CLIENT_MAIN("given_up", tests);
}
