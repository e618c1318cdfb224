/* weakrefs.c - weak references: they do not keep alive, they clear in time, their callbacks run once or not at all. */
#include "client.h"

static wn_weakref *last_ref;

static void callback(wn_mutator *m, wn_weakref *ref, void *data) {
    client_note(EVENT_CALLBACK, (long)(intptr_t)data);
    void *target = wn_weakref_get(m, ref);
    if (target) client_note(EVENT_OTHER, (long)(intptr_t)data); /* it must be gone by now */
    wn_release(m, target);
    wn_assign(m, last_ref, ref);
}

static void open_with_last(client *c) {
    *c = client_open(NULL);
    last_ref = NULL;
    assert_int_equal(wn_global(c->heap, &last_ref), WN_OK);
}
static void close_with_last(client *c) {
    wn_forget_global(c->m, &last_ref);
    client_collect(c->m);
    client_close(c);
}

static void *weak_to(wn_mutator *m, void *target, long id) {
    void *w = wn_weakref_new(m, target, id < 0 ? NULL : callback, (void *)(intptr_t)id);
    assert_non_null(w);
    return w;
}

static void a_weak_reference_does_not_keep_alive(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_root(m, wn_weakref *, w, weak_to(m, p, -1));
        assert_ptr_equal(((wn_object *)w)->type, &wn_weakref_type);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 1);
        for (int i = 0; i < 3; i++) {
            wn_root(m, mortal *, got, wn_weakref_get(m, w));
            assert_ptr_equal(got, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 2);
            client_collect(m);
            assert_ptr_equal(got, p);
        }
        assert_int_equal(client_released[1], 0);
        wn_take(m, p, NULL);
        if (client_counts(&c)) assert_null(wn_weakref_get(m, w)); /* at once */
        client_collect(m);
        assert_null(wn_weakref_get(m, w));
        assert_int_equal(client_released[1], 1);
        for (int i = 0; i < 100; i++) { /* nor does it ever name what came into its place */
            wn_root(m, mortal *, q, client_relic(m, 2, NULL, NULL));
            assert_null(wn_weakref_get(m, w));
        }
    }
    close_with_last(&c);
}

static void what_is_got_is_a_reference(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_weakref *, w, NULL);
        wn_root(m, mortal *, got, NULL);
        {
            wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
            wn_take(m, w, weak_to(m, p, 1));
            wn_take(m, got, wn_weakref_get(m, w));
        }
        client_collect(m);
        assert_int_equal(got->id, 1);
        assert_int_equal(client_released[1], 0);
        assert_int_equal(client_total(EVENT_CALLBACK), 0);
        wn_take(m, got, NULL);
        client_collect(m);
        assert_int_equal(client_released[1], 1);
        assert_int_equal(client_total(EVENT_CALLBACK), 1);
    }
    close_with_last(&c);
}

static void callbacks_run_once_with_their_data(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    enum { N = 20 };
    for (int cyclic = 0; cyclic < 2; cyclic++) {
        client_forget();
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, N));
        {
            wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
            if (cyclic) wn_set(m, p, a, p);
            for (long i = 0; i < N; i++) wn_move(m, refs, items[i], weak_to(m, p, i));
        }
        for (int i = 0; i < 3; i++) client_collect(m);
        assert_int_equal(client_total(EVENT_OTHER), 0);
        assert_int_equal(client_total(EVENT_CALLBACK), N);
        for (long i = 0; i < N; i++) {
            assert_true(client_when(EVENT_CALLBACK, i) >= 0);
            assert_null(wn_weakref_get(m, refs->items[i]));
        }
        bool known = false; /* the callback was given the reference itself */
        for (long i = 0; i < N; i++) known |= refs->items[i] == (void *)last_ref;
        assert_true(known);
    }
    close_with_last(&c);
}

static void a_dead_weak_reference_calls_nobody(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_release(m, weak_to(m, p, 1));
        client_collect(m);
        assert_int_equal(wn_weakref_count(m, p), 0);
        wn_take(m, p, NULL);
        client_collect(m);
        assert_int_equal(client_released[1], 1);
        assert_int_equal(client_total(EVENT_CALLBACK), 0);
    }
    close_with_last(&c);
}

/* A weak reference that is itself part of the garbage: its callback must not run. */
static void garbage_does_not_call_back(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_set(m, p, a, p);
        wn_move(m, p, b, weak_to(m, p, 1)); /* held by its own target */
        wn_root(m, mortal *, q, client_relic(m, 2, NULL, NULL));
        wn_root(m, mortal *, r, client_relic(m, 3, q, NULL));
        wn_set(m, q, a, r);
        wn_move(m, q, b, weak_to(m, p, 2)); /* held by another cycle that dies at the same time */
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 3);
    assert_int_equal(client_total(EVENT_CALLBACK), 0);
    wn_enable(c.heap);
    close_with_last(&c);
}

/* The same when the target lives on and dies while the garbage is being taken apart in slices, the weak references
 * among it not yet. */
static void what_waits_to_be_freed_does_not_call_back(void **state) {
    (void)state;
    enum { RING = 600 };
    wn_options o = wn_options_default();
    o.reclaim_slice = 16;
    client c = client_open(&o);
    last_ref = NULL;
    assert_int_equal(wn_global(c.heap, &last_ref), WN_OK);
    wn_mutator *m = c.m;
    for (int round = 0; round < 20; round++) {
        wn_root(m, mortal *, target, client_relic(m, 1, NULL, NULL));
        wn_disable(c.heap); /* so that all of the ring is young */
        {
            wn_root(m, pair *, first, client_pair(m, 0, NULL, NULL));
            wn_hold(m, pair *, at, first);
            for (long i = 1; i < RING; i++) {
                wn_root(m, pair *, next, client_pair(m, i, NULL, NULL));
                wn_move(m, next, b, weak_to(m, target, i));
                wn_set(m, at, a, next);
                wn_assign(m, at, next);
            }
            wn_set(m, at, a, first);
        }
        wn_enable(c.heap);
        wn_stats before, now;
        wn_get_stats(c.heap, &before);
        wn_root(m, pair *, kept, NULL);
        for (int i = 0; i < 10000; i++) {
            wn_take(m, kept, client_pair(m, 0, kept, NULL));
            wn_get_stats(c.heap, &now);
            if (now.collections > before.collections) break;
        }
        wn_take(m, target, NULL);
        for (int i = 0; i < 100; i++) wn_poll(m);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 20);
    if (client_counts(&c)) assert_int_equal(client_total(EVENT_CALLBACK), 0);
    close_with_last(&c);
}

/* In any callback, all of the garbage is already out of reach. */
static wn_weakref *everybody[10];
static void none_left(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref;
    client_note(EVENT_CALLBACK, (long)(intptr_t)data);
    for (int i = 0; i < 10; i++) {
        void *o = wn_weakref_get(m, everybody[i]);
        if (o) client_note(EVENT_OTHER, i);
        wn_release(m, o);
    }
}

static void all_are_cleared_before_any_callback(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int i = 0; i < 10; i++) {
        everybody[i] = NULL;
        assert_int_equal(wn_global(c.heap, &everybody[i]), WN_OK);
    }
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 10));
        for (long i = 0; i < 10; i++) {
            wn_move(m, v, items[i], client_mortal(m, i, v, NULL)); /* one knot */
            wn_take(m, everybody[i], wn_weakref_new(m, v->items[i], none_left, (void *)(intptr_t)i));
        }
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_CALLBACK), 10);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    assert_int_equal(client_total(EVENT_RELEASE), 10);
    for (size_t i = 0; i < 10; i++) assert_int_equal(client_event_at(i).kind, EVENT_CALLBACK); /* then the finalizers */
    for (int i = 0; i < 10; i++) wn_forget_global(m, &everybody[i]);
    client_close(&c);
}

static void counts_of_weak_references(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        assert_int_equal(wn_weakref_count(m, p), 0);
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, 100));
        for (size_t i = 0; i < 100; i++) {
            wn_move(m, refs, items[i], weak_to(m, p, -1));
            assert_int_equal(wn_weakref_count(m, p), i + 1);
        }
        client_collect(m);
        assert_int_equal(wn_weakref_count(m, p), 100);
        for (size_t i = 0; i < 50; i++) wn_set(m, refs, items[2 * i], NULL);
        client_collect(m);
        assert_int_equal(wn_weakref_count(m, p), 50);
        wn_take(m, refs, NULL);
        client_collect(m);
        assert_int_equal(wn_weakref_count(m, p), 0);
        assert_int_equal(client_released[1], 0);
    }
    close_with_last(&c);
}

/* Weak references are objects: they have weak references, and live in fields. */
static void weak_references_to_weak_references(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_root(m, wn_weakref *, w, weak_to(m, p, 1));
        wn_root(m, wn_weakref *, ww, weak_to(m, w, 2));
        client_collect(m);
        {
            wn_root(m, void *, got, wn_weakref_get(m, ww));
            assert_ptr_equal(got, w);
        }
        wn_take(m, w, NULL);
        client_collect(m);
        assert_null(wn_weakref_get(m, ww));
        wn_take(m, p, NULL);
        client_collect(m);
        assert_int_equal(client_when(EVENT_CALLBACK, 1), -1);
        assert_int_equal(client_total(EVENT_CALLBACK), 1);
    }
    close_with_last(&c);
}

/* A callback that makes objects and weak references, and stores them. */
static vector *shelf;
static void busy(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref;
    size_t i = (size_t)(intptr_t)data;
    for (int k = 0; k < 20; k++) wn_release(m, client_new(m, &leaf_type));
    wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
    wn_move(m, p, a, wn_weakref_new(m, p, NULL, NULL));
    wn_set(m, shelf, items[i], p);
    client_note(EVENT_CALLBACK, (long)i);
}

static void a_callback_may_do_everything(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_stressed() ? 10 : 500;
    shelf = NULL;
    assert_int_equal(wn_global(c.heap, &shelf), WN_OK);
    wn_take(m, shelf, client_new_array(m, &vector_type, n));
    {
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            wn_root(m, mortal *, p, client_relic(m, (long)i, NULL, NULL));
            if (i % 2) wn_set(m, p, a, p);
            wn_move(m, refs, items[i], wn_weakref_new(m, p, busy, (void *)(intptr_t)i));
        }
        client_collect(m);
        client_collect(m);
    }
    assert_int_equal(client_total(EVENT_CALLBACK), n);
    for (size_t i = 0; i < n; i++) {
        pair *p = shelf->items[i];
        assert_int_equal(p->id, i);
        wn_root(m, void *, self, wn_weakref_get(m, p->a));
        assert_ptr_equal(self, shelf->items[i]);
    }
    wn_forget_global(m, &shelf);
    client_collect(m);
    client_close(&c);
}

/* Weak references of every age to targets of every age. */
static void old_and_young(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(50000);
    {
        wn_root(m, vector *, targets, client_new_array(m, &vector_type, n));
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            wn_move(m, targets, items[i], client_pair(m, (long)i, i % 3 ? NULL : targets, NULL));
            if (i % 1000 == 0) wn_collect(m, (int)(i / 1000 % 2), NULL);
            wn_move(m, refs, items[i], wn_weakref_new(m, targets->items[i], NULL, NULL));
        }
        wn_collect(m, 0, NULL);
        for (size_t i = 0; i < n; i++)
            if (i % 2) wn_set(m, targets, items[i], NULL);
        wn_collect(m, 1, NULL);
        client_collect(m);
        for (size_t i = 0; i < n; i++) {
            wn_root(m, pair *, got, wn_weakref_get(m, refs->items[i]));
            if (i % 2)
                assert_null(got);
            else
                assert_ptr_equal(got, targets->items[i]);
        }
    }
    client_collect(m);
    client_close(&c);
}

static void many_weak_references_to_many_dead(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(300000);
    {
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, n));
        {
            wn_root(m, vector *, targets, client_new_array(m, &vector_type, n));
            for (size_t i = 0; i < n; i++) {
                wn_move(m, targets, items[i], client_pair(m, (long)i, targets, NULL));
                wn_move(m, refs, items[i], wn_weakref_new(m, targets->items[i], NULL, NULL));
            }
        }
        client_collect(m);
        for (size_t i = 0; i < n; i++) assert_null(wn_weakref_get(m, refs->items[i]));
    }
    client_collect(m);
    if (client_counts(&c)) assert_int_equal(client_alive(c.m), 0);
    client_close(&c);
}

/* All of one target; they die one by one in no order, then together. */
static void many_weak_references_to_one_target(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(1000000);
    {
        wn_root(m, pair *, target, client_pair(m, 1, NULL, NULL));
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, refs, items[i], wn_weakref_new(m, target, NULL, NULL));
        assert_int_equal(wn_weakref_count(m, target), n);
        for (size_t i = 0; i < n / 2; i++) wn_set(m, refs, items[i * 7919 % n], NULL);
        client_collect(m);
        assert_int_equal(wn_weakref_count(m, target), n - n / 2);
        wn_take(m, refs, NULL);
        client_collect(m);
        assert_int_equal(wn_weakref_count(m, target), 0);
    }
    client_close(&c);
}

/* One that nobody can reach any more, but of which no collection has found that, calls back when its target dies; it is
 * whole then, and does so once. */
static void out_of_reach_but_not_found_out(void **state) {
    (void)state;
    enum { N = 20 };
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    {
        wn_root(m, vector *, targets, client_new_array(m, &vector_type, N));
        for (long i = 0; i < N; i++) {
            wn_move(m, targets, items[i], client_pair(m, i, NULL, NULL));
            wn_root(m, pair *, knot, client_pair(m, i, NULL, NULL));
            wn_set(m, knot, a, knot);
            wn_move(m, knot, b, weak_to(m, targets->items[i], i));
        }
    }
    wn_collect(m, 0, NULL); /* where it finds young objects only: the targets */
    if (!client_stressed() && wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT)
        assert_int_equal(client_total(EVENT_CALLBACK), N);
    for (int i = 0; i < 3; i++) client_collect(m);
    assert_true(client_total(EVENT_CALLBACK) <= N);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    wn_enable(c.heap);
    close_with_last(&c);
}

/* One thread lets go of the target while another lets go of the weak reference: the callback runs once or not at all,
 * and never on a weak reference that is gone. */
static void look_at_it(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)data;
    void *target = wn_weakref_get(m, ref);
    if (target) client_note(EVENT_OTHER, 1);
    wn_release(m, target);
}

static void both_die_at_once(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    unsigned rounds = (unsigned)client_scaled(4000);
    client_rival_start(&c, rounds);
    for (unsigned r = 1; r <= rounds; r++) {
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, 16));
        {
            wn_root(m, mortal *, target, client_relic(m, 1, NULL, NULL));
            for (int i = 0; i < 16; i++) wn_move(m, refs, items[i], wn_weakref_new(m, target, look_at_it, NULL));
            client_rival_take(m, target);
        }
        for (int i = 0; i < 16; i++) wn_set(m, refs, items[i], NULL);
        while (!client_rival_let_go()) wn_poll(m);
        if (r % 100 == 0) client_collect(m);
    }
    client_rival_end(&c);
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_released[1], rounds);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    client_close(&c);
}

/* What a callback collects is garbage of its own, and gone when the call returns. */
static unsigned starts, stops;
static void hear_collections(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    (void)data;
    starts += event->kind == WN_EVENT_COLLECT_START;
    stops += event->kind == WN_EVENT_COLLECT_STOP;
}
static void collect_in_callback(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref;
    for (long i = 0; i < 2; i++) {
        wn_root(m, mortal *, p, i ? client_mortal(m, 10, NULL, NULL) : client_relic(m, 11, NULL, NULL));
        wn_set(m, p, a, p);
    }
    *(wn_status *)data = wn_collect(m, 2, NULL);
    client_note(EVENT_CALLBACK, (long)client_released[11]);
}

static void a_callback_may_collect(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_status status = WN_ERR_STATE;
    starts = stops = 0;
    {
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL)); /* in a cycle: called during a collection */
            wn_set(m, p, a, p);
            wn_take(m, w, wn_weakref_new(m, p, collect_in_callback, &status));
        }
        assert_int_equal(wn_add_listener(c.heap, hear_collections, NULL), WN_OK);
        client_collect(m);
        client_collect(m);
        assert_int_equal(wn_remove_listener(c.heap, hear_collections, NULL), WN_OK);
    }
    assert_int_equal(status, WN_OK);
    assert_true(client_when(EVENT_CALLBACK, 1) >= 0);       /* released when the call returned */
    if (client_counts(&c)) assert_int_equal(starts, stops); /* a major of the others may be under way */
    client_collect(m);
    for (int i = 10; i < 12; i++) assert_int_equal(client_released[i], 1);
    assert_int_equal(client_finalized[1], 1);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

static mortal *watched;
static void drop_the_watched(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref, (void)data;
    client_note(EVENT_CALLBACK, 1);
    wn_assign(m, watched, NULL);
}
static void drop_and_collect(wn_mutator *m, wn_weakref *ref, void *data) {
    drop_the_watched(m, ref, data);
    wn_collect(m, 2, NULL);
}

/* What dies in a callback is called back before it is finalized, like everything else. */
static void callbacks_precede_finalizers_within_a_callback(void **state) {
    (void)state;
    for (int cyclic = 0; cyclic < 2; cyclic++) {
        client c;
        open_with_last(&c);
        wn_mutator *m = c.m;
        watched = NULL;
        assert_int_equal(wn_global(c.heap, &watched), WN_OK);
        {
            wn_root(m, mortal *, x, client_mortal(m, 2, NULL, NULL));
            wn_root(m, wn_weakref *, to_x, weak_to(m, x, 2));
            wn_assign(m, watched, x);
            if (cyclic && client_counts(&c)) wn_set(m, x, a, x);
            wn_assign(m, x, NULL);
            wn_root(m, pair *, y, client_pair(m, 1, NULL, NULL));
            wn_root(m, wn_weakref *, to_y,
                    wn_weakref_new(m, y, cyclic && client_counts(&c) ? drop_and_collect : drop_the_watched, NULL));
            wn_assign(m, y, NULL);
            for (int i = 0; i < 3; i++) client_collect(m);
            assert_int_equal(client_total(EVENT_CALLBACK), 2);
            assert_int_equal(client_finalized[2], 1);
            assert_true(client_when(EVENT_FINALIZE, 2) > client_when(EVENT_CALLBACK, 2));
        }
        assert_int_equal(wn_forget_global(m, &watched), WN_OK);
        close_with_last(&c);
    }
}

/* As many as the table of weak references has room for move together, from and to places at equal distances: each
 * weak reference goes on leading to its target, and what has none is found to have none. */
static void many_targets_move_at_once(void **state) {
    (void)state;
    enum { SIZES = 12, STEP = 16 };
    for (size_t n = 30; n <= client_scaled(1600); n += n / 8 + 1)
        for (size_t size = 1; size <= SIZES; size++) {
            client c;
            open_with_last(&c);
            wn_mutator *m = c.m;
            {
                wn_root(m, vector *, targets, client_new_array(m, &vector_type, n));
                wn_root(m, vector *, refs, client_new_array(m, &vector_type, n));
                for (size_t i = 0; i < n; i++) {
                    wn_move(m, targets, items[i], client_new_array(m, &blob_type, size * STEP));
                    wn_move(m, refs, items[i], weak_to(m, targets->items[i], -1));
                }
                assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
                assert_int_equal(wn_weakref_count(m, targets), 0);
                for (size_t i = 0; i < n; i++) {
                    wn_root(m, void *, target, wn_weakref_get(m, refs->items[i]));
                    assert_ptr_equal(target, targets->items[i]);
                    assert_int_equal(wn_weakref_count(m, target), 1);
                }
            }
            close_with_last(&c);
        }
}

/* The only one to hold a weak reference to what is alive dies: its finalizer can read it, and when that stores its
 * object somewhere, all is as before. */
static mortal *saved;
static void read_and_come_back(wn_mutator *m, mortal *self) {
    wn_root(m, pair *, target, wn_weakref_get(m, self->a));
    client_note(EVENT_OTHER, target ? target->id : -1);
    wn_assign(m, saved, self);
}

static void a_finalizer_reads_its_weak_reference(void **state) {
    (void)state;
    client c;
    open_with_last(&c);
    wn_mutator *m = c.m;
    saved = NULL;
    assert_int_equal(wn_global(c.heap, &saved), WN_OK);
    {
        wn_root(m, pair *, target, client_pair(m, 1, NULL, NULL));
        for (int dies = 1; dies >= 0; dies--) {
            wn_root(m, mortal *, dying, client_mortal(m, 2 + dies, NULL, NULL));
            dying->will = read_and_come_back;
            wn_move(m, dying, a, weak_to(m, target, 4 + dies));
            wn_set(m, dying, b, dying);
        }
        client_collect(m);
        client_collect(m);
        assert_int_equal(client_total(EVENT_OTHER), 2);
        assert_true(client_when(EVENT_OTHER, 1) >= 0);
        assert_int_equal(client_when(EVENT_OTHER, -1), -1);
        assert_non_null(saved);
        wn_root(m, void *, found, wn_weakref_get(m, saved->a));
        assert_ptr_equal(found, target);
    }
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_total(EVENT_CALLBACK), 1); /* of the one that came back last */
    assert_null(wn_weakref_get(m, saved->a));
    assert_int_equal(wn_forget_global(m, &saved), WN_OK);
    close_with_last(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_weak_reference_does_not_keep_alive),
        cmocka_unit_test(what_is_got_is_a_reference),
        cmocka_unit_test(callbacks_run_once_with_their_data),
        cmocka_unit_test(a_callback_may_collect),
        cmocka_unit_test(a_dead_weak_reference_calls_nobody),
        cmocka_unit_test(garbage_does_not_call_back),
        cmocka_unit_test(what_waits_to_be_freed_does_not_call_back),
        cmocka_unit_test(all_are_cleared_before_any_callback),
        cmocka_unit_test(counts_of_weak_references),
        cmocka_unit_test(weak_references_to_weak_references),
        cmocka_unit_test(a_callback_may_do_everything),
        cmocka_unit_test(old_and_young),
        cmocka_unit_test(many_weak_references_to_many_dead),
        cmocka_unit_test(many_weak_references_to_one_target),
        cmocka_unit_test(out_of_reach_but_not_found_out),
        cmocka_unit_test(both_die_at_once),
        cmocka_unit_test(callbacks_precede_finalizers_within_a_callback),
        cmocka_unit_test(many_targets_move_at_once),
        cmocka_unit_test(a_finalizer_reads_its_weak_reference),
    };
    return CLIENT_MAIN("weakrefs", tests);
}
