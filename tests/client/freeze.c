/* freeze.c - the permanent generation: nothing in it is collected, what it refers to lives, and it can be undone. */
#include "client.h"

#include <pthread.h>
#include <time.h>

static void frozen_objects_are_left_alone(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(5000);
    assert_int_equal(wn_frozen_count(c.heap), 0);
    wn_disable(c.heap);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_relic(m, (long)i, all, NULL)); /* cycles */
        assert_false(wn_is_frozen(m, all));
        assert_int_equal(wn_freeze(m), WN_OK);
        assert_true(wn_frozen_count(c.heap) >= n + 1);
        assert_true(wn_is_frozen(m, all));
        assert_true(wn_is_frozen(m, all->items[n / 2]));
        wn_stats s;
        wn_get_stats(c.heap, &s);
        assert_int_equal(s.frozen, wn_frozen_count(c.heap));
        wn_root(m, pair *, later, client_pair(m, 1, NULL, NULL));
        assert_false(wn_is_frozen(m, later));
    }
    client_collect(m); /* a dead cycle, but frozen */
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    assert_true(wn_frozen_count(c.heap) >= n);
    assert_int_equal(wn_unfreeze(m), WN_OK);
    assert_int_equal(wn_frozen_count(c.heap), 0);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), n);
    wn_enable(c.heap);
    client_close(&c);
}

/* What is frozen and has died is taken apart sooner or later; what is counted does not hang on when. */
static void unfreezing_while_the_dead_wait(void **state) {
    (void)state;
    wn_options options = wn_options_default();
    options.reclaim_slice = 100;
    client c = client_open(&options);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, 500));
        for (size_t i = 0; i < all->length; i++) wn_move(m, all, items[i], client_relic(m, (long)i, NULL, NULL));
        assert_int_equal(wn_freeze(m), WN_OK);
    }
    assert_true(wn_frozen_count(c.heap) <= 501);
    assert_int_equal(wn_unfreeze(m), WN_OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(wn_frozen_count(c.heap), 0);
        wn_poll(m);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 500);
    assert_int_equal(wn_frozen_count(c.heap), 0);
    client_close(&c);
}

static void counts_begin_anew(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!client_counts(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    wn_mutator *m = c.m;
    unsigned count[3];
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        for (int i = 0; i < 3; i++) wn_collect(m, 0, NULL);
        wn_collect(m, 1, NULL);
        wn_collect(m, 0, NULL);
        wn_root(m, pair *, q, client_pair(m, 1, NULL, NULL));
        wn_get_count(c.heap, count);
        for (int i = 0; i < 3; i++) assert_int_equal(count[i], 1);
        assert_int_equal(wn_freeze(m), WN_OK);
        wn_get_count(c.heap, count);
        for (int i = 0; i < 3; i++) assert_int_equal(count[i], 0);
        assert_int_equal(wn_frozen_count(c.heap), 2);
        wn_untrack(m, p); /* then nobody looks at it for another reason */
        assert_int_equal(wn_frozen_count(c.heap), 1);
        assert_false(wn_is_frozen(m, p));
        wn_track(m, p);
        assert_int_equal(wn_generation(m, p), 0);
        assert_int_equal(wn_frozen_count(c.heap), 1);
        (void)q;
    }
    assert_int_equal(wn_frozen_count(c.heap), 0);
    client_close(&c);
}

/* A tuple that is untracked, for holding nothing that is, and what it holds becomes part of a cycle, all while they are
 * frozen: no collection sees it before they no longer are. */
static void what_changed_while_frozen_is_seen_later(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_ephemeron *e = NULL;
    assert_int_equal(wn_global(c.heap, &e), WN_OK);
    {
        wn_root(m, leaf *, key, client_new(m, &leaf_type));
        wn_root(m, vector *, t, client_new_array(m, &tuple_type, 1));
        wn_set(m, t, items[0], key);
        for (int i = 0; i < 3; i++) wn_collect(m, i, NULL);
        assert_int_equal(wn_freeze(m), WN_OK);
        wn_root(m, mortal *, value, client_relic(m, 1, t, NULL));
        wn_take(m, e, wn_ephemeron_new(m, key, value));
        client_collect(m);
        client_collect(m);
        assert_int_equal(wn_unfreeze(m), WN_OK);
    }
    for (int i = 0; i < 3; i++) client_collect(m);
    assert_int_equal(client_released[1], 1);
    assert_int_equal(wn_forget_global(m, &e), WN_OK);
    client_close(&c);
}

static void references_from_frozen_objects_are_roots(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(2000);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
        assert_int_equal(wn_freeze(m), WN_OK);
        for (int round = 0; round < 3; round++) {
            for (size_t i = (size_t)round; i < n; i += 2) { /* new objects known to frozen ones alone */
                wn_move(m, (pair *)all->items[i], a, client_relic(m, (long)i, NULL, NULL));
                wn_set(m, (mortal *)((pair *)all->items[i])->a, b, ((pair *)all->items[i])->a);
            }
            wn_collect(m, round, NULL);
            client_collect(m);
        }
        for (size_t i = 0; i < n; i++) {
            mortal *r = ((pair *)all->items[i])->a;
            assert_int_equal(r->id, i);
            assert_ptr_equal(r->b, r);
        }
        for (size_t i = 0; i < n; i++) wn_set(m, (pair *)all->items[i], a, NULL);
        client_collect(m);
        for (size_t i = 0; i < n; i++) assert_true(client_released[i] >= 1);
        assert_int_equal(wn_unfreeze(m), WN_OK);
        client_collect(m);
        for (size_t i = 0; i < n; i++) assert_int_equal(((pair *)all->items[i])->id, i);
    }
    client_collect(m);
    client_close(&c);
}

/* Counting still frees a frozen object that nobody refers to any more. */
static void counting_goes_on_in_frozen_objects(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c)) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_freeze(m);
        wn_hold(m, mortal *, q, p);
        assert_int_equal(wn_refcount(m, p), 2);
        size_t frozen = wn_frozen_count(c.heap);
        wn_take(m, q, NULL);
        wn_take(m, p, NULL);
        assert_int_equal(client_released[1], 1);
        assert_int_equal(wn_frozen_count(c.heap), frozen - 1);
        wn_unfreeze(m);
    }
    client_close(&c);
}

static void weak_references_and_finalizers_over_a_freeze(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    {
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
            wn_set(m, p, a, p);
            wn_take(m, w, wn_weakref_new(m, p, NULL, NULL));
            wn_freeze(m);
        }
        client_collect(m);
        {
            wn_root(m, mortal *, got, wn_weakref_get(m, w));
            assert_non_null(got);
            assert_int_equal(got->id, 1);
        }
        assert_int_equal(client_total(EVENT_FINALIZE), 0);
        wn_unfreeze(m);
        client_collect(m);
        assert_null(wn_weakref_get(m, w));
        assert_int_equal(client_finalized[1], 1);
        assert_int_equal(client_released[1], 1);
    }
    wn_enable(c.heap);
    client_close(&c);
}

/* It would move what is young. */
static void no_freeze_in_a_no_collect_scope(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_no_collect_begin(m);
    pair *undeclared = client_new(m, &pair_type);
    undeclared->id = 1;
    assert_int_equal(wn_freeze(m), WN_ERR_STATE);
    assert_non_null(strstr(wn_error_message(), "wn_freeze"));
    assert_true(wn_is_object(m, undeclared));
    assert_int_equal(undeclared->id, 1);
    wn_release(m, undeclared);
    wn_no_collect_end(m);
    assert_int_equal(wn_frozen_count(c.heap), 0);
    client_close(&c);
}

static void freezing_again_adds(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, 10));
        size_t last = 0;
        for (long i = 0; i < 10; i++) {
            wn_move(m, all, items[i], client_pair(m, i, all, NULL));
            wn_freeze(m);
            assert_true(wn_frozen_count(c.heap) > last);
            last = wn_frozen_count(c.heap);
            assert_int_equal(wn_freeze(m), WN_OK); /* nothing is new */
            assert_int_equal(wn_frozen_count(c.heap), last);
        }
        wn_unfreeze(m);
        assert_int_equal(wn_frozen_count(c.heap), 0);
        for (long i = 0; i < 10; i++) assert_false(wn_is_frozen(m, all->items[i]));
        if (client_counts(&c)) assert_int_equal(wn_generation(m, all), 2); /* given back as the oldest */
        wn_unfreeze(m);
    }
    client_collect(m);
    client_close(&c);
}

/* A finalizer may run in the middle of a collection that moves objects: then it is told that it may not freeze them. */
static void freeze_all(wn_mutator *m, mortal *self) {
    (void)self;
    client_note(EVENT_OTHER, wn_freeze(m));
}

static void a_finalizer_freezes_or_is_told(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
        p->will = freeze_all;
        wn_set(m, p, a, p);
    }
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_total(EVENT_OTHER), 1);
    bool refused = client_when(EVENT_OTHER, WN_ERR_STATE) >= 0;
    assert_int_equal(refused, wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT);
    if (refused) assert_int_equal(wn_frozen_count(c.heap), 0);
    wn_unfreeze(m);
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

/* Freezing gives up the collection that another thread waits for, but not again and again. */
static _Atomic bool has_collected;
static void *collect_once(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    bool failed = wn_collect(m, 2, NULL);
    atomic_store(&has_collected, true);
    return wn_detach(m) || failed ? heap : NULL;
}

static void freezing_over_and_over_lets_others_collect(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, list, NULL);
        for (size_t i = 0; i < client_scaled(200000); i++) wn_take(m, list, client_pair(m, (long)i, list, NULL));
        atomic_store(&has_collected, false);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, collect_once, c.heap), 0);
        time_t begun = time(NULL);
        bool in_time;
        while ((in_time = time(NULL) - begun < 10) && !atomic_load(&has_collected)) {
            assert_int_equal(wn_freeze(m), WN_OK);
            assert_int_equal(wn_unfreeze(m), WN_OK);
            for (int i = 0; i < 20000; i++) wn_poll(m);
        }
        void *failure;
        wn_block_begin(m);
        pthread_join(thread, &failure);
        wn_block_end(m);
        assert_null(failure);
        assert_true(in_time);
    }
    client_close(&c);
}

/* A listener is no reason to overlook a store, whichever thread calls it. */
static vector *frozen;
static mortal *carried;
static void put_down(wn_mutator *m, const wn_event *e, void *data) {
    (void)data;
    if (e->kind != WN_EVENT_COLLECT_STOP || !carried) return;
    wn_set(m, frozen, items[0], carried);
    wn_assign(m, carried, NULL);
}
static void what_a_listener_stores_is_seen_later(void **state) {
    (void)state;
    for (int before = 0; before < 2; before++) { /* threads of the collector's are there already */
        client c = client_open(NULL);
        wn_mutator *m = c.m;
        assert_int_equal(wn_global(c.heap, &frozen), WN_OK);
        assert_int_equal(wn_global(c.heap, &carried), WN_OK);
        wn_take(m, frozen, client_new_array(m, &vector_type, 1));
        if (before) client_collect(m);
        assert_int_equal(wn_freeze(m), WN_OK);
        wn_take(m, carried, client_relic(m, 1, NULL, NULL));
        assert_int_equal(wn_add_listener(c.heap, put_down, NULL), WN_OK);
        client_collect(m);
        assert_int_equal(wn_remove_listener(c.heap, put_down, NULL), WN_OK);
        assert_null(carried);
        for (int i = 0; i < 2; i++) client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        assert_int_equal(((mortal *)frozen->items[0])->id, 1);
        wn_set(m, frozen, items[0], NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 1);
        assert_int_equal(wn_unfreeze(m), WN_OK);
        assert_int_equal(wn_forget_global(m, &frozen), WN_OK);
        assert_int_equal(wn_forget_global(m, &carried), WN_OK);
        client_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freezing_over_and_over_lets_others_collect),
        cmocka_unit_test(frozen_objects_are_left_alone),
        cmocka_unit_test(counts_begin_anew),
        cmocka_unit_test(what_changed_while_frozen_is_seen_later),
        cmocka_unit_test(unfreezing_while_the_dead_wait),
        cmocka_unit_test(references_from_frozen_objects_are_roots),
        cmocka_unit_test(counting_goes_on_in_frozen_objects),
        cmocka_unit_test(weak_references_and_finalizers_over_a_freeze),
        cmocka_unit_test(no_freeze_in_a_no_collect_scope),
        cmocka_unit_test(freezing_again_adds),
        cmocka_unit_test(what_a_listener_stores_is_seen_later),
        cmocka_unit_test(a_finalizer_freezes_or_is_told),
    };
    return CLIENT_MAIN("freeze", tests);
}
