/* garbage.c - the garbage list: save_all, and cycles that must not be broken (WN_TYPE_NO_CLEAR). Counting only. */
#include "client.h"

typedef mortal stubborn;
static void stubborn_release(void *object) {
    client_note(EVENT_RELEASE, ((stubborn *)object)->id);
    atomic_fetch_add(&client_released[((stubborn *)object)->id], 1);
}
static const wn_type stubborn_type =
    WN_TYPE(stubborn, WN_REFS(stubborn, a, b), .flags = WN_TYPE_NO_CLEAR, .release = stubborn_release);

static bool counting(client *c, const wn_options *o) {
    *c = client_open(o);
    if (client_counts(c)) return true;
    client_close(c);
    return false;
}

static void save_all_keeps_what_was_found(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.save_all = true;
    client c;
    if (!counting(&c, &o)) skip();
    wn_mutator *m = c.m;
    assert_int_equal(wn_garbage_count(m), 0);
    for (long i = 0; i < 10; i++) {
        wn_root(m, mortal *, p, client_relic(m, i, NULL, NULL));
        wn_set(m, p, a, p);
    }
    client_collect(m);
    assert_int_equal(wn_garbage_count(m), 10);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    long sum = 0;
    for (size_t i = 0; i < 10; i++) {
        mortal *p = wn_garbage_get(m, i);
        assert_ptr_equal(p->a, p); /* whole */
        sum += p->id;
    }
    assert_int_equal(sum, 45);
    assert_null(wn_garbage_get(m, 10));
    for (int i = 0; i < 3; i++) client_collect(m);
    assert_int_equal(wn_garbage_count(m), 10); /* alive, and not found again */
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    wn_release(m, client_relic(m, 20, NULL, NULL)); /* acyclic: freed as ever */
    assert_int_equal(client_released[20], 1);
    for (size_t i = 0; i < 10; i++) {
        wn_hold(m, mortal *, p, wn_garbage_get(m, i));
        wn_set(m, p, a, NULL); /* broken by hand */
    }
    wn_garbage_clear(m);
    assert_int_equal(wn_garbage_count(m), 0);
    assert_int_equal(client_total(EVENT_RELEASE), 11);
    client_close(&c);
}

static void cycles_not_to_be_broken_are_reported(void **state) {
    (void)state;
    client c;
    if (!counting(&c, NULL)) skip();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    {
        wn_root(m, stubborn *, p, client_new(m, &stubborn_type));
        p->id = 1;
        wn_move(m, p, a, client_relic(m, 2, p, NULL));
        wn_move(m, p, b, client_relic(m, 3, NULL, NULL)); /* hangs from the cycle */
    }
    wn_collect_result r = {0};
    assert_int_equal(wn_collect(m, 2, &r), WN_OK);
    if (!client_stressed()) assert_true(r.uncollectable >= 1);
    assert_int_equal(r.freed_bytes, 0);
    assert_true(wn_garbage_count(m) >= 1);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    stubborn *found = NULL;
    for (size_t i = 0; i < wn_garbage_count(m); i++) {
        wn_object *o = wn_garbage_get(m, i);
        if (o->type == &stubborn_type) found = (stubborn *)(void *)o;
    }
    assert_non_null(found);
    {
        wn_hold(m, stubborn *, p, found);
        assert_int_equal(p->id, 1);
        assert_int_equal(((mortal *)p->a)->id, 2);
        assert_int_equal(((mortal *)p->b)->id, 3);
        wn_set(m, p, a, NULL); /* the client breaks it */
    }
    wn_garbage_clear(m);
    client_collect(m);
    for (int i = 1; i <= 3; i++) assert_int_equal(client_released[i], 1);
    wn_enable(c.heap);
    client_close(&c);
}

/* Such an object outside of cycles dies like any other. */
static void stubborn_objects_outside_cycles_are_freed(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, stubborn *, p, client_new(m, &stubborn_type));
        p->id = 1;
        wn_move(m, p, a, client_relic(m, 2, NULL, NULL));
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    assert_int_equal(client_released[2], 1);
    client_close(&c);
}

static void the_tracing_collectors_free_them(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (client_counts(&c)) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, stubborn *, p, client_new(m, &stubborn_type));
        p->id = 1;
        wn_set(m, p, a, p);
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    assert_int_equal(wn_garbage_count(m), 0);
    client_close(&c);
}

static void come_back(wn_mutator *m, mortal *self) {
    if (self->id == 3) wn_set(m, (pair *)self->b, a, self);
}

/* What has a finalizer is kept as well, and counted as well; but not what its finalizer brought back. */
static void save_all_beside_finalizers(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.save_all = true;
    client c;
    if (!counting(&c, &o)) skip();
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, place, client_pair(m, 0, NULL, NULL));
        for (long i = 0; i < 10; i++) {
            wn_root(m, mortal *, p, client_mortal(m, i, NULL, place));
            p->will = come_back;
            wn_set(m, p, a, p);
        }
        size_t collected = 0;
        for (int i = 0; i < 3; i++) {
            if (!client_stressed()) assert_int_equal(wn_garbage_count(m), i ? 9 : 0);
            collected += client_collect(m).collected;
        }
        assert_int_equal(wn_garbage_count(m), 9);
        if (!client_stressed()) assert_int_equal(collected, 9);
        for (size_t i = 0; i < 9; i++) {
            mortal *p = wn_garbage_get(m, i);
            assert_int_not_equal(p->id, 3);
            assert_int_equal(wn_refcount(m, p), 2); /* its own and the list's */
        }
        for (long i = 0; i < 10; i++) assert_int_equal(client_finalized[i], 1);
        assert_int_equal(wn_refcount(m, place->a), 2);
        assert_int_equal(((mortal *)place->a)->id, 3);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        for (size_t i = 0; i < 9; i++) {
            wn_hold(m, mortal *, p, wn_garbage_get(m, i));
            wn_set(m, p, a, NULL);
        }
        wn_garbage_clear(m);
        assert_int_equal(client_total(EVENT_RELEASE), 9);
        wn_set(m, (mortal *)place->a, a, NULL);
        wn_set(m, (mortal *)place->a, b, NULL);
    }
    assert_int_equal(client_total(EVENT_RELEASE), 10);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(save_all_keeps_what_was_found),
        cmocka_unit_test(save_all_beside_finalizers),
        cmocka_unit_test(cycles_not_to_be_broken_are_reported),
        cmocka_unit_test(stubborn_objects_outside_cycles_are_freed),
        cmocka_unit_test(the_tracing_collectors_free_them),
    };
    return CLIENT_MAIN("garbage", tests);
}
