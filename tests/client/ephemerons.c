/* ephemerons.c - a value lives while its key and the ephemeron do, even when the value itself refers to the key. */
#include "client.h"

#include <pthread.h>

static void *ephemeron(wn_mutator *m, void *key, void *value) {
    void *e = wn_ephemeron_new(m, key, value);
    if (!e) fail_msg("no ephemeron: %s", wn_error_message());
    return e;
}

static void the_key_keeps_the_value(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
        wn_root(m, wn_ephemeron *, e, NULL);
        {
            wn_root(m, mortal *, value, client_relic(m, 2, NULL, NULL));
            wn_take(m, e, ephemeron(m, key, value));
        }
        assert_ptr_equal(((wn_object *)e)->type, &wn_ephemeron_type);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        {
            wn_root(m, mortal *, k, wn_ephemeron_key(m, e));
            wn_root(m, mortal *, v, wn_ephemeron_value(m, e));
            assert_ptr_equal(k, key);
            assert_int_equal(v->id, 2);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, key), 2);
        }
        wn_take(m, key, NULL);
        client_collect(m);
        assert_int_equal(client_released[1], 1);
        assert_int_equal(client_released[2], 1);
        assert_null(wn_ephemeron_key(m, e));
        assert_null(wn_ephemeron_value(m, e));
    }
    client_close(&c);
}

static void the_ephemeron_does_not_keep_its_key(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_ephemeron *, e, NULL);
        {
            wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
            wn_root(m, mortal *, value, client_relic(m, 2, NULL, key)); /* value -> key, the case it is made for */
            wn_take(m, e, ephemeron(m, key, value));
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 2);
        assert_null(wn_ephemeron_key(m, e));
        assert_null(wn_ephemeron_value(m, e));
    }
    client_close(&c);
}

static void a_dead_ephemeron_lets_its_value_go(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
        {
            wn_root(m, mortal *, value, client_relic(m, 2, NULL, key));
            wn_root(m, wn_ephemeron *, e, ephemeron(m, key, value));
        }
        client_collect(m);
        assert_int_equal(client_released[2], 1);
        assert_int_equal(client_released[1], 0);
        assert_int_equal(key->id, 1);
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

static void the_value_can_be_replaced(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
        wn_root(m, wn_ephemeron *, e, ephemeron(m, key, NULL));
        assert_null(wn_ephemeron_value(m, e));
        for (long i = 2; i < 10; i++) {
            client_collect(m);
            wn_root(m, mortal *, value, client_relic(m, i, key, NULL));
            wn_ephemeron_set(m, e, value);
            wn_root(m, mortal *, got, wn_ephemeron_value(m, e));
            assert_ptr_equal(got, value);
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 7);
        assert_int_equal(client_released[9], 0);
        wn_ephemeron_set(m, e, NULL);
        client_collect(m);
        assert_int_equal(client_released[9], 1);
        wn_root(m, void *, k, wn_ephemeron_key(m, e));
        assert_ptr_equal(k, key);
    }
    client_close(&c);
}

/* Key i is held only by value i - 1: a chain that must be followed to its end, and fall as one. */
static void long_chains(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int backwards = 0; backwards < 2; backwards++) {
        size_t n = client_scaled(100000);
        client_forget();
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
            wn_root(m, mortal *, first, client_relic(m, 0, NULL, NULL));
            if (!backwards) {
                wn_hold(m, mortal *, key, first);
                for (size_t i = 0; i < n; i++) {
                    wn_root(m, mortal *, next, client_relic(m, (long)i + 1, NULL, NULL));
                    wn_root(m, mortal *, value, client_relic(m, -1, next, NULL));
                    wn_move(m, all, items[i], ephemeron(m, key, value));
                    wn_assign(m, key, next);
                }
            } else { /* the ephemerons are made in the opposite order */
                wn_root(m, mortal *, key, client_relic(m, (long)n, NULL, NULL));
                for (size_t i = n; i-- > 0;) {
                    wn_root(m, mortal *, previous, i ? client_relic(m, (long)i, NULL, NULL) : wn_keep(m, first));
                    wn_root(m, mortal *, value, client_relic(m, -1, key, NULL));
                    wn_move(m, all, items[i], ephemeron(m, previous, value));
                    wn_assign(m, key, previous);
                }
            }
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            wn_hold(m, mortal *, at, first);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(at->id, i);
                wn_root(m, mortal *, value, wn_ephemeron_value(m, all->items[i]));
                assert_non_null(value);
                wn_assign(m, at, value->a);
            }
            wn_take(m, at, NULL);
            wn_take(m, first, NULL);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 2 * n + 1);
            for (size_t i = 0; i < n; i++) assert_null(wn_ephemeron_key(m, all->items[i]));
        }
        client_collect(m);
    }
    client_close(&c);
}

static void a_key_in_a_cycle_with_its_value(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, table, client_new_array(m, &vector_type, 50));
        {
            wn_root(m, vector *, keys, client_new_array(m, &vector_type, 50));
            for (size_t i = 0; i < 50; i++) {
                wn_root(m, mortal *, key, client_mortal(m, (long)i, NULL, NULL));
                wn_root(m, mortal *, value, client_mortal(m, 100 + (long)i, key, NULL));
                wn_set(m, key, a, value); /* both ways, beside the ephemeron */
                wn_root(m, wn_ephemeron *, e, ephemeron(m, key, value));
                wn_set(m, value, b, e); /* and the value knows the ephemeron */
                wn_set(m, table, items[i], e);
                wn_set(m, keys, items[i], key);
            }
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            for (size_t i = 1; i < 50; i += 2) wn_set(m, keys, items[i], NULL);
            client_collect(m);
            for (size_t i = 0; i < 50; i++) {
                assert_int_equal(client_released[i], i % 2);
                assert_int_equal(client_finalized[i], i % 2);
                assert_int_equal(client_released[100 + i], i % 2);
                wn_root(m, mortal *, key, wn_ephemeron_key(m, table->items[i]));
                assert_true(i % 2 ? key == NULL : key == keys->items[i]);
            }
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 100);
    }
    client_close(&c);
}

/* A key that refers to nothing is part of a cycle all the same when the value refers to it. */
static void keys_without_references(void **state) {
    (void)state;
    static const wn_type frozen_leaf = {.name = "frozen leaf", .size = sizeof(leaf), .flags = WN_TYPE_IMMUTABLE};
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int immutable = 0; immutable < 2; immutable++) {
        wn_root(m, wn_ephemeron *, e, NULL);
        {
            wn_root(m, leaf *, key, client_new(m, immutable ? &frozen_leaf : &leaf_type));
            wn_root(m, mortal *, value, client_relic(m, immutable, key, NULL));
            wn_take(m, e, ephemeron(m, key, value));
            for (int i = 0; i < 3; i++) wn_collect(m, i, NULL);
            assert_int_equal(client_released[immutable], 0);
        }
        client_collect(m);
        assert_int_equal(client_released[immutable], 1);
        assert_null(wn_ephemeron_key(m, e));
    }
    client_close(&c);
}

/* A tuple of the key that a collection looked at before the key was one, as the value or on the way from it. */
static void tuples_made_before_the_ephemeron(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int direct = 0; direct < 2; direct++) {
        wn_root(m, wn_weakref *, w, NULL);
        wn_root(m, wn_ephemeron *, e, NULL);
        {
            wn_root(m, leaf *, key, client_new(m, &leaf_type));
            wn_root(m, vector *, t, client_new_array(m, &tuple_type, 1));
            wn_set(m, t, items[0], key);
            client_collect(m);
            if (client_counts(&c)) assert_false(wn_is_tracked(m, t));
            wn_take(m, w, wn_weakref_new(m, key, NULL, NULL));
            wn_root(m, pair *, value, client_pair(m, 1, NULL, NULL));
            wn_take(m, e, ephemeron(m, key, direct ? (void *)t : (void *)value));
            wn_set(m, value, a, t);
            client_collect(m);
            wn_root(m, void *, alive, wn_weakref_get(m, w));
            assert_ptr_equal(alive, key);
        }
        client_collect(m);
        assert_null(wn_weakref_get(m, w));
        assert_null(wn_ephemeron_key(m, e));
    }
    client_close(&c);
}

/* A tuple that holds nothing tracked can be part of a cycle all the same, through what it is the key of. */
static void a_tuple_as_key_stays_tracked(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_ephemeron *e = NULL;
    assert_int_equal(wn_global(c.heap, &e), WN_OK);
    {
        wn_root(m, leaf *, number, client_new(m, &leaf_type));
        wn_root(m, vector *, key, client_new_array(m, &tuple_type, 1));
        wn_root(m, mortal *, value, client_relic(m, 1, key, NULL));
        wn_set(m, key, items[0], number);
        wn_take(m, e, wn_ephemeron_new(m, key, value));
        for (int i = 0; i < 3; i++) wn_collect(m, i, NULL);
        if (client_counts(&c)) assert_true(wn_is_tracked(m, key));
    }
    for (int i = 0; i < 3; i++) client_collect(m);
    assert_int_equal(client_released[1], 1);
    assert_int_equal(wn_forget_global(m, &e), WN_OK);
    client_close(&c);
}

/* Two keys, either of which holds the other's value's key: alive together, dead together. */
static void several_ephemerons_for_one_key(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, table, client_new_array(m, &vector_type, 20));
        wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
        for (long i = 0; i < 20; i++) {
            wn_root(m, mortal *, value, client_relic(m, 100 + i, key, NULL));
            wn_move(m, table, items[i], ephemeron(m, key, value));
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        for (long i = 0; i < 10; i++) wn_set(m, table, items[i], NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 10);
        wn_take(m, key, NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 21);
    }
    client_close(&c);
}

/* The value is reachable on its own: the death of the key empties the pair and leaves the value alone. */
static void a_value_held_elsewhere_survives(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, value, client_relic(m, 2, NULL, NULL));
        wn_root(m, wn_ephemeron *, e, NULL);
        {
            wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
            wn_take(m, e, ephemeron(m, key, value));
        }
        client_collect(m);
        assert_int_equal(client_released[1], 1);
        assert_int_equal(client_released[2], 0);
        assert_null(wn_ephemeron_value(m, e));
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, value), 1);
        assert_int_equal(value->id, 2);
    }
    client_close(&c);
}

/* One thread gives the pair values while another lets go of its key: each value is released once, and the last is not
 * left behind in a pair without a key. */
static void setting_a_value_while_the_key_dies(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    unsigned rounds = (unsigned)client_scaled(2000), values = 0;
    client_rival_start(&c, rounds);
    for (unsigned r = 1; r <= rounds; r++) {
        wn_root(m, wn_ephemeron *, e, NULL);
        {
            wn_root(m, mortal *, key, client_relic(m, 1, NULL, NULL));
            wn_take(m, e, ephemeron(m, key, NULL));
            client_rival_take(m, key);
        }
        do {
            wn_root(m, mortal *, value, client_relic(m, 2, NULL, NULL));
            values++;
            wn_ephemeron_set(m, e, value);
        } while (!client_rival_let_go());
        if (r % 100 == 0) client_collect(m);
    }
    client_rival_end(&c);
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_released[1], rounds);
    assert_int_equal(client_released[2], values);
    client_close(&c);
}

/* A finalizer finds everything whole: the values of its ephemerons whose keys are alive, too. */
static void read_value(wn_mutator *m, mortal *self) {
    wn_root(m, mortal *, value, wn_ephemeron_value(m, self->a));
    client_note(EVENT_OTHER, value && !client_released[3] ? value->id : -1);
}

static void a_finalizer_finds_the_value(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, key, client_pair(m, 1, NULL, NULL));
        {
            wn_root(m, mortal *, dying, client_mortal(m, 2, NULL, NULL));
            dying->will = read_value;
            wn_root(m, mortal *, value, client_relic(m, 3, NULL, NULL));
            wn_move(m, dying, a, ephemeron(m, key, value));
            wn_set(m, dying, b, dying);
        }
        client_collect(m);
        client_collect(m);
        assert_int_equal(client_finalized[2], 1);
        assert_int_equal(client_total(EVENT_OTHER), 1);
        assert_true(client_when(EVENT_OTHER, 3) >= 0);
        assert_int_equal(client_released[3], 1);
    }
    client_close(&c);
}

/* Many that share a key, of which each thread drops its own, in an order of its own. */
enum { SHARED = 10000 };
typedef struct share {
    wn_heap *heap;
    void *key; /* declared by who starts the threads */
    int order;
} share;

static void make_and_drop(wn_mutator *m, void *key_, int order, size_t n) {
    wn_borrow(m, void *, key, key_);
    wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
    uint64_t random = (uint64_t)order + 1;
    for (size_t i = 0; i < n; i++) {
        wn_root(m, mortal *, value, client_relic(m, order, key, NULL));
        wn_move(m, all, items[i], ephemeron(m, key, value));
    }
    for (size_t i = 0; i < n; i++) { /* first, last, any */
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t k = order % 3 == 0 ? i : order % 3 == 1 ? n - 1 - i : (size_t)(random >> 33) % n;
        if (!all->items[k]) continue;
        wn_root(m, void *, same, wn_ephemeron_key(m, all->items[k]));
        assert_ptr_equal(same, key);
        wn_set(m, all, items[k], NULL);
    }
    for (size_t i = 0; i < n; i++) wn_set(m, all, items[i], NULL);
}

static void *drop_in_a_thread(void *data) {
    share *s = data;
    wn_mutator *m;
    if (wn_attach(s->heap, &m)) return "cannot attach";
    make_and_drop(m, s->key, s->order, client_scaled(SHARED));
    return wn_detach(m) ? "cannot detach" : NULL;
}

static void many_share_a_key(void **state) {
    (void)state;
    enum { THREADS = 3 };
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, key, client_pair(m, 1, NULL, NULL));
        assert_int_equal(wn_pin(m, key), WN_OK); /* its address goes to other threads */
        pthread_t thread[THREADS];
        share s[THREADS];
        for (int i = 0; i < THREADS; i++) {
            s[i] = (share){c.heap, key, i};
            assert_int_equal(pthread_create(&thread[i], NULL, drop_in_a_thread, &s[i]), 0);
        }
        make_and_drop(m, key, THREADS, client_scaled(SHARED));
        wn_block_begin(m);
        for (int i = 0; i < THREADS; i++) {
            void *failure;
            pthread_join(thread[i], &failure);
            assert_null(failure);
        }
        wn_block_end(m);
        for (int i = 0; i < 2; i++) client_collect(m);
        for (int i = 0; i <= THREADS; i++) assert_int_equal(client_released[i], client_scaled(SHARED));
        wn_unpin(m, key);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_key_keeps_the_value),
        cmocka_unit_test(the_ephemeron_does_not_keep_its_key),
        cmocka_unit_test(a_dead_ephemeron_lets_its_value_go),
        cmocka_unit_test(the_value_can_be_replaced),
        cmocka_unit_test(long_chains),
        cmocka_unit_test(a_key_in_a_cycle_with_its_value),
        cmocka_unit_test(keys_without_references),
        cmocka_unit_test(tuples_made_before_the_ephemeron),
        cmocka_unit_test(a_tuple_as_key_stays_tracked),
        cmocka_unit_test(several_ephemerons_for_one_key),
        cmocka_unit_test(a_value_held_elsewhere_survives),
        cmocka_unit_test(setting_a_value_while_the_key_dies),
        cmocka_unit_test(a_finalizer_finds_the_value),
        cmocka_unit_test(many_share_a_key),
    };
    return CLIENT_MAIN("ephemerons", tests);
}
