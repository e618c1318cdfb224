/* stores.c - references in objects: wn_set, wn_move, wn_store, wn_load; what is evaluated when; old into young. */
#include "client.h"

static int evaluations;

/* Makes a new object after much garbage and a collection of everything: whatever can move has moved. */
static void *make_after_upheaval(wn_mutator *m, long id) {
    evaluations++;
    for (int i = 0; i < 100; i++) wn_release(m, client_new(m, &leaf_type));
    wn_collect(m, 0, NULL);
    client_collect(m);
    return client_relic(m, id, NULL, NULL);
}

static vector **count_holder(vector **v) {
    evaluations++;
    return v;
}

/* The promise of wn_move and wn_set: the value first, then the holder, each once. */
static void the_value_is_evaluated_before_the_holder(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 10));
        evaluations = 0;
        wn_move(m, p, a, make_after_upheaval(m, 10));
        assert_int_equal(evaluations, 1);
        assert_int_equal(((mortal *)p->a)->id, 10);
        for (long i = 0; i < 10; i++) wn_move(m, v, items[i], make_after_upheaval(m, 20 + i));
        for (long i = 0; i < 10; i++) assert_int_equal(((mortal *)v->items[i])->id, 20 + i);
        evaluations = 0;
        wn_move(m, *count_holder(&v), items[3], make_after_upheaval(m, 40));
        assert_int_equal(evaluations, 2);
        evaluations = 0;
        wn_set(m, *count_holder(&v), items[4], p);
        assert_int_equal(evaluations, 1);
        assert_ptr_equal(v->items[4], p);
        client_collect(m);
        assert_int_equal(client_released[23], 1);
        assert_int_equal(client_released[24], 1);
        assert_int_equal(client_total(EVENT_RELEASE), 2);
    }
    client_close(&c);
}

static void set_borrows_move_takes_over(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, target, client_relic(m, 1, NULL, NULL));
        wn_root(m, pair *, p, client_pair(m, 2, NULL, NULL));
        wn_set(m, p, a, target);
        wn_set(m, p, b, target);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, target), 3);
        wn_set(m, p, b, NULL);
        wn_move(m, p, b, wn_keep(m, target));
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, target), 3);
        wn_move(m, p, a, wn_give(m, target)); /* overwrites the same object */
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p->a), 2);
        assert_ptr_equal(p->a, p->b);
        client_collect(m);
        assert_int_equal(client_released[1], 0);
        wn_set(m, p, a, NULL);
        client_collect(m);
        assert_int_equal(client_released[1], 0);
        wn_set(m, p, b, NULL);
        if (client_counts(&c)) assert_int_equal(client_released[1], 1);
        client_collect(m);
        assert_int_equal(client_released[1], 1);
    }
    client_close(&c);
}

static void a_field_may_be_set_to_itself(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, p, client_pair(m, 2, NULL, NULL));
        wn_move(m, p, a, client_relic(m, 1, NULL, NULL));
        for (int i = 0; i < 10; i++) wn_set(m, p, a, p->a); /* the only reference */
        client_collect(m);
        for (int i = 0; i < 10; i++) wn_set(m, p, a, p->a);
        assert_int_equal(client_released[1], 0);
        assert_int_equal(((mortal *)p->a)->id, 1);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p->a), 1);
        wn_set(m, p, b, p); /* and a self-reference */
        client_collect(m);
        assert_ptr_equal(p->b, p);
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

/* The overwritten reference is the last to something that holds the last to the new value. */
static void the_new_value_survives_the_death_of_the_old(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, p, client_pair(m, 0, NULL, NULL));
        for (long i = 1; i <= 100; i++) { /* a list, built at its head */
            wn_root(m, mortal *, head, client_relic(m, i, NULL, p->a));
            wn_set(m, p, a, head);
        }
        for (long i = 100; i > 1; i--) { /* ... and eaten from there */
            wn_set(m, p, a, ((mortal *)p->a)->b);
            assert_int_equal(((mortal *)p->a)->id, i - 1);
            if (i % 10 == 0) client_collect(m);
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 99);
        assert_int_equal(client_released[1], 0);
    }
    client_close(&c);
}

/* Stores into objects of every age: each value must be found although only its holder knows it. */
static void old_objects_hold_young_ones(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(20000);
    {
        wn_root(m, vector *, old, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, old, items[i], client_pair(m, (long)i, NULL, NULL));
        for (int round = 0; round < 5; round++) {
            wn_collect(m, round % 3, NULL);
            for (size_t i = (size_t)round; i < n; i += 3) {
                wn_root(m, pair *, young, client_pair(m, (long)i + 1000000 * round, NULL, NULL));
                wn_move(m, young, a, client_pair(m, -(long)i, NULL, NULL));
                wn_set(m, (pair *)old->items[i], a, young);
                wn_set(m, (pair *)old->items[i], b, young->a);
            }
            wn_collect(m, (round + 1) % 3, NULL);
            for (size_t i = (size_t)round; i < n; i += 3) {
                pair *p = old->items[i], *a = p->a;
                assert_int_equal(p->id, i);
                assert_int_equal(a->id, (long)i + 1000000 * round);
                assert_ptr_equal(a->a, p->b);
                assert_int_equal(((pair *)p->b)->id, -(long)i);
            }
        }
    }
    client_close(&c);
}

static void computed_slots_and_loads(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 8));
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        wn_store(m, v, &v->items[3], p);
        wn_store_new(m, v, &v->items[4], wn_keep(m, p));
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 3);
        wn_root(m, mortal *, loaded, wn_load(m, v, items[3]));
        assert_ptr_equal(loaded, p);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 4);
        assert_null(wn_load(m, v, items[0]));
        wn_store(m, v, &v->items[3], NULL);
        wn_store_new(m, v, &v->items[4], NULL);
        wn_take(m, p, NULL);
        client_collect(m);
        assert_int_equal(client_released[1], 0);
        assert_int_equal(loaded->id, 1);
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

/* A finalizer that changes what is being copied. */
static vector *copied;
static void empty_the_source(wn_mutator *m, mortal *self) {
    (void)self;
    for (size_t i = 0; copied && i < copied->length; i++) wn_set(m, copied, items[i], NULL);
}

/* wn_copy of borrowed values whose only references are in the slots, as a sort writes back what it has put in order. */
static void an_array_may_be_permuted(void **state) {
    (void)state;
    enum { N = 300 };
    for (int checked = 0; checked < 2; checked++) {
        wn_options o = wn_options_default();
        o.check = checked;
        client c = client_open(&o);
        wn_mutator *m = c.m;
        {
            wn_root(m, vector *, v, client_new_array(m, &vector_type, N));
            for (long i = 0; i < N; i++) wn_move(m, v, items[i], client_relic(m, i, NULL, NULL));
            void *values[N];
            for (size_t i = 0; i < N; i++) values[i] = v->items[N - 1 - i];
            wn_copy(m, v, v->items, values, N);
            for (long i = 0; i < N; i++) wn_release(m, client_pair(m, -1, NULL, NULL)); /* in place of what was freed */
            for (long i = 0; i < N; i++) {
                assert_int_equal(((mortal *)v->items[i])->id, N - 1 - i);
                if (client_counts(&c)) assert_int_equal(wn_refcount(m, v->items[i]), 1);
            }
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            wn_copy(m, v, &v->items[1], v->items, N - 1); /* overlapping, either way */
            wn_copy(m, v, v->items, &v->items[1], N - 1);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 1);
            assert_int_equal(client_released[0], 1); /* the last one */
            for (long i = 0; i < N - 1; i++) assert_int_equal(((mortal *)v->items[i])->id, N - 1 - i);
            assert_ptr_equal(v->items[N - 1], v->items[N - 2]);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, v->items[N - 1]), 2);
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), N);
        client_close(&c);
    }
}

static void what_dies_of_a_copy_finds_it_done(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 3));
        wn_root(m, vector *, source, client_new_array(m, &vector_type, 3));
        for (long i = 0; i < 3; i++) {
            wn_root(m, mortal *, old, client_mortal(m, i, NULL, NULL));
            old->will = empty_the_source;
            wn_set(m, v, items[i], old);
            wn_move(m, source, items[i], client_relic(m, i + 10, NULL, NULL));
        }
        if (client_counts(&c)) copied = source; /* the others do not finalize here, and objects may move meanwhile */
        wn_copy(m, v, v->items, source->items, 3);
        client_collect(m);
        copied = NULL;
        for (long i = 0; i < 3; i++) {
            assert_int_equal(client_finalized[i], 1);
            assert_int_equal(((mortal *)v->items[i])->id, i + 10);
            if (client_counts(&c)) {
                assert_null(source->items[i]);
                assert_int_equal(wn_refcount(m, v->items[i]), 1);
            }
        }
    }
    client_collect(m);
    for (long i = 0; i < 3; i++) assert_int_equal(client_released[i + 10], 1);
    client_close(&c);
}

/* Counts beyond what a byte holds, up and down again, by every kind of reference. */
static void counts_are_exact_far_beyond_a_byte(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(100000) + 600;
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, n));
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        for (size_t i = 0; i < n; i++) {
            wn_set(m, v, items[i], p);
            if (client_counts(&c) && (i < 600 || i % 1000 == 0)) assert_int_equal(wn_refcount(m, p), i + 2);
        }
        client_collect(m);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), n + 1);
        for (size_t i = n; i-- > 0;) {
            wn_set(m, v, items[i], NULL);
            if (client_counts(&c) && (i < 600 || i % 1000 == 0)) assert_int_equal(wn_refcount(m, p), i + 1);
        }
        assert_int_equal(client_released[1], 0);
        for (int up = 250; up <= 260; up++) { /* to and fro over the edge */
            for (int i = 0; i < up; i++) wn_retain(m, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), (size_t)up + 1);
            for (int i = 0; i < up; i++) wn_release(m, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 1);
        }
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_value_is_evaluated_before_the_holder),
        cmocka_unit_test(set_borrows_move_takes_over),
        cmocka_unit_test(a_field_may_be_set_to_itself),
        cmocka_unit_test(the_new_value_survives_the_death_of_the_old),
        cmocka_unit_test(old_objects_hold_young_ones),
        cmocka_unit_test(computed_slots_and_loads),
        cmocka_unit_test(an_array_may_be_permuted),
        cmocka_unit_test(what_dies_of_a_copy_finds_it_done),
        cmocka_unit_test(counts_are_exact_far_beyond_a_byte),
    };
    return CLIENT_MAIN("stores", tests);
}
