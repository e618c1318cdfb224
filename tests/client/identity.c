/* identity.c - wn_identity and wn_pin: what stays the same although objects move; immortal objects. */
#include "client.h"

#include <pthread.h>
#include <sched.h>

static int compare(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static void identities_are_stable_and_unique(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(20000);
    uintptr_t *ids = calloc(n, sizeof *ids), *sorted = calloc(n, sizeof *sorted);
    assert_non_null(ids);
    assert_non_null(sorted);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
            if (i % 2) ids[i] = wn_identity(m, all->items[i]); /* half while young ... */
        }
        wn_collect(m, 0, NULL);
        for (size_t i = 0; i < n; i++)
            if (i % 2 == 0) ids[i] = wn_identity(m, all->items[i]); /* ... half when they may have moved */
        for (int round = 0; round < 3; round++) {
            wn_collect(m, round, NULL);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(((pair *)all->items[i])->id, i);
                assert_true(wn_identity(m, all->items[i]) == ids[i]);
            }
            for (size_t i = 0; i < 2000 && !client_stressed(); i++) { /* newcomers must not get a used number */
                wn_root(m, pair *, p, client_pair(m, -1, NULL, NULL));
                uintptr_t id = wn_identity(m, p);
                for (size_t k = 0; k < n; k += 97) assert_true(ids[k] != id);
            }
        }
        memcpy(sorted, ids, n * sizeof *ids);
        qsort(sorted, n, sizeof *sorted, compare);
        for (size_t i = 1; i < n; i++) assert_true(sorted[i - 1] != sorted[i]);
    }
    client_collect(m);
    free(ids);
    free(sorted);
    client_close(&c);
}

static void pinned_objects_stay(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_stressed() ? 20 : 500;
    void **addresses = calloc(n, sizeof *addresses);
    assert_non_null(addresses);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            wn_move(m, all, items[i], client_relic(m, (long)i, NULL, NULL));
            addresses[i] = all->items[i];
            assert_int_equal(wn_pin(m, all->items[i]), WN_OK);
            if (i % 3 == 0) assert_int_equal(wn_pin(m, all->items[i]), WN_OK); /* nests */
            for (int k = 0; k < 20; k++) wn_release(m, client_new(m, &leaf_type));
        }
        for (int round = 0; round < 3; round++) {
            for (int k = 0; k < 5000 && !client_stressed(); k++) wn_release(m, client_new(m, &leaf_type));
            wn_collect(m, round, NULL);
            for (size_t i = 0; i < n; i++) {
                assert_ptr_equal(all->items[i], addresses[i]);
                assert_int_equal(((mortal *)addresses[i])->id, i);
            }
        }
        for (size_t i = 0; i < n; i++) wn_unpin(m, all->items[i]); /* a third is pinned still */
        client_collect(m);
        for (size_t i = 0; i < n; i += 3) assert_ptr_equal(all->items[i], addresses[i]);
        for (size_t i = 0; i < n; i += 3) wn_unpin(m, all->items[i]);
        client_collect(m);
        for (size_t i = 0; i < n; i++) assert_int_equal(((mortal *)all->items[i])->id, i);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), n); /* a pin is no root */
    free(addresses);
    client_close(&c);
}

static void types_may_ask_never_to_move(void **state) {
    (void)state;
    static const wn_type fixed_type = {
        .name = "fixed", .size = sizeof(pair), WN_REFS(pair, a, b), .flags = WN_TYPE_PINNED};
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(2000);
    void **addresses = calloc(n, sizeof *addresses);
    assert_non_null(addresses);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            wn_root(m, pair *, p, client_new(m, &fixed_type));
            addresses[i] = p;
            p->id = (long)i;
            wn_set(m, all, items[i], p);
            wn_move(m, p, a, client_pair(m, -(long)i, p, NULL));
            assert_ptr_equal(p, addresses[i]);
        }
        for (int round = 0; round < 3; round++) wn_collect(m, round, NULL);
        for (size_t i = 0; i < n; i++) {
            pair *p = addresses[i];
            assert_ptr_equal(all->items[i], p);
            assert_int_equal(p->id, i);
            assert_int_equal(((pair *)p->a)->id, -(long)i);
            assert_ptr_equal(((pair *)p->a)->a, p);
        }
    }
    client_collect(m);
    free(addresses);
    client_close(&c);
}

static void the_pin_limit_is_reported(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.pin_limit = 10;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, 20));
        int pinned = 0;
        for (int i = 0; i < 20; i++) {
            wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
            wn_status s = wn_pin(m, all->items[i]);
            if (s == WN_OK) pinned++;
            if (s) {
                assert_int_equal(s, WN_ERR_MEMORY);
                assert_non_null(strstr(wn_error_message(), "pin"));
                break;
            }
        }
        assert_true(pinned >= 10);
        if (client_moves(&c) && !client_stressed()) assert_int_equal(pinned, 10);
        for (int i = 0; i < pinned; i++) wn_unpin(m, all->items[i]);
        assert_int_equal(wn_pin(m, all->items[0]), WN_OK);
        wn_unpin(m, all->items[0]);
    }
    client_close(&c);
}

/* In a full heap there is no place that an object could be promised. */
static void identities_in_a_full_heap(void **state) {
    (void)state;
    enum { N = 300, REST = 3000 };
    static const wn_type filler_type = {.name = "filler", .size = sizeof(pair), .flags = WN_TYPE_PINNED};
    wn_options o = wn_options_default();
    o.heap_limit = 4 << 20;
    o.nursery = 128 << 10;
    o.pin_limit = 10;
    o.pretenure = WN_NEVER;
    if (client_stressed()) skip();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    static uintptr_t ids[N];
    size_t n = 0;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        wn_root(m, pair *, list, NULL);
        for (pair *p; (p = wn_new(m, &pair_type));) {
            wn_move(m, p, a, wn_give(m, list));
            wn_take(m, list, p);
        }
        for (int i = 0; i < REST; i++) wn_assign(m, list, list->a); /* so that there is room again, but not in blocks */
        wn_collect(m, 2, NULL);
        wn_no_collect_begin(m);
        for (; n < N; n++) {
            pair *p = wn_new(m, &pair_type);
            if (!p) break;
            p->id = (long)n;
            wn_move(m, all, items[n], p);
        }
        wn_root(m, pair *, fillers, NULL);
        for (pair *p; (p = wn_new(m, &filler_type));) {
            p->a = fillers;
            fillers = p;
        }
        for (size_t i = 0; i < n; i++) ids[i] = wn_identity(m, all->items[i]);
        for (size_t i = 0; i < n; i++) assert_true(wn_identity(m, all->items[i]) == ids[i]);
        while (fillers) {
            pair *p = fillers;
            fillers = p->a;
            p->a = NULL;
            wn_release(m, p);
        }
        wn_no_collect_end(m);
        wn_take(m, list, NULL);
        for (int round = 0; round < 4; round++) {
            client_collect(m);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(((pair *)all->items[i])->id, i);
                assert_true(wn_identity(m, all->items[i]) == ids[i]);
            }
            if (round == 1) /* their places are used again, by objects that may move */
                for (size_t i = 0; i < n; i += 2) wn_set(m, all, items[i], NULL);
            if (round == 1) client_collect(m);
            for (size_t i = 0; i < n && round == 1; i += 2) {
                wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
                for (int k = 0; k < 20; k++) wn_release(m, client_pair(m, -1, NULL, NULL));
                ids[i] = wn_identity(m, all->items[i]);
            }
        }
    }
    client_close(&c);
}

/* ---- immortals --------------------------------------------------------------------------------------------------- */

static void immortals_never_die_and_are_never_counted(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
            wn_move(m, p, a, client_mortal(m, 2, NULL, p)); /* what it refers to lives as long */
            wn_make_immortal(m, p);
            wn_make_immortal(m, p); /* twice is once */
            wn_take(m, w, wn_weakref_new(m, p, NULL, NULL));
            if (client_counts(&c)) {
                assert_true(wn_refcount(m, p) == WN_IMMORTAL);
                for (int i = 0; i < 1000; i++) wn_retain(m, p);
                assert_true(wn_refcount(m, p) == WN_IMMORTAL);
                for (int i = 0; i < 5000; i++) wn_release(m, p);
                assert_true(wn_refcount(m, p) == WN_IMMORTAL);
            }
        }
        for (int i = 0; i < 3; i++) wn_collect(m, i, NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_FINALIZE), 0);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        {
            wn_root(m, mortal *, got, wn_weakref_get(m, w));
            assert_int_equal(got->id, 1);
            assert_int_equal(((mortal *)got->a)->id, 2);
            assert_ptr_equal(((mortal *)got->a)->b, got);
            wn_move(m, got, b, client_mortal(m, 3, NULL, NULL)); /* and it can still be written */
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        {
            wn_root(m, mortal *, got, wn_weakref_get(m, w));
            wn_set(m, got, a, NULL);
            client_collect(m);
            assert_int_equal(client_released[2], 1);
            assert_int_equal(((mortal *)got->b)->id, 3);
        }
        wn_stats s;
        wn_get_stats(c.heap, &s);
        assert_true(s.immortal >= 1);
    }
    client_collect(m);
    client_close(&c);
}

/* An immortal object that is pinned while it is young stays behind when younger immortals move on. */
static void pinned_immortals_are_not_forgotten(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, pair *, pinned, client_pair(m, 1, NULL, NULL));
            wn_root(m, pair *, other, client_pair(m, 2, NULL, NULL));
            assert_int_equal(wn_pin(m, pinned), WN_OK);
            wn_make_immortal(m, pinned);
            wn_make_immortal(m, other);
            wn_take(m, w, wn_weakref_new(m, pinned, NULL, NULL));
            wn_collect(m, 0, NULL);
            wn_unpin(m, pinned);
        }
        for (int i = 0; i < 3; i++) {
            wn_collect(m, 0, NULL);
            for (size_t n = client_scaled(20000); n; n--) wn_release(m, client_new(m, &pair_type));
            client_collect(m);
        }
        wn_root(m, pair *, got, wn_weakref_get(m, w));
        assert_non_null(got);
        assert_int_equal(got->id, 1);
    }
    client_close(&c);
}

/* ---- two threads ------------------------------------------------------------------------------------------------- */

/* What one thread notes about an object must not undo what another notes at the same time. */
static wn_heap *shared_heap;
static pair *shared;
static wn_weakref *to_shared;
static _Atomic size_t asked, answered;
static size_t rounds;

/* Spins, so that both go on at one moment; but not where the other has no processor. */
static void wait_for(wn_mutator *m, _Atomic size_t *turn, size_t k) {
    for (unsigned spins = 0; atomic_load(turn) != k; spins++) {
        wn_poll(m);
        if (spins > 2000) sched_yield();
    }
}

static void *note_beside(void *data) {
    wn_mutator *m;
    if (wn_attach(shared_heap, &m)) return NULL;
    for (size_t k = 1; k <= rounds; k++) {
        wait_for(m, &asked, k);
        if (k % 2)
            wn_identity(m, shared);
        else if (wn_pin(m, shared) == WN_OK)
            wn_unpin(m, shared);
        atomic_store(&answered, k);
    }
    wn_detach(m);
    return data;
}

static void two_threads_may_note_something_at_once(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    shared_heap = c.heap;
    rounds = client_stressed() ? 200 : client_scaled(100000);
    atomic_store(&asked, 0);
    atomic_store(&answered, 0);
    assert_int_equal(wn_global(c.heap, &shared), WN_OK);
    assert_int_equal(wn_global(c.heap, &to_shared), WN_OK);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, note_beside, c.heap), 0);
    for (size_t k = 1; k <= rounds; k++) {
        wn_take(m, shared, client_pair(m, (long)k, NULL, NULL));
        atomic_store(&asked, k);
        wn_take(m, to_shared, wn_weakref_new(m, shared, NULL, NULL));
        wait_for(m, &answered, k);
        if (k % 8 == 0) wn_collect(m, 0, NULL);
        wn_root(m, pair *, got, wn_weakref_get(m, to_shared));
        assert_ptr_equal(got, shared);
    }
    wn_block_begin(m);
    void *result = NULL;
    pthread_join(other, &result);
    wn_block_end(m);
    assert_non_null(result);
    assert_int_equal(wn_forget_global(m, &shared), WN_OK);
    assert_int_equal(wn_forget_global(m, &to_shared), WN_OK);
    client_close(&c);
}

/* An identity that was asked for makes no object, whether its object lives or dies. */
static void an_identity_is_no_object(void **state) {
    (void)state;
    enum { N = 20000 };
    if (client_stressed()) skip();
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats before, after;
    wn_get_stats(c.heap, &before);
    for (long i = 0; i < N; i++) {
        wn_root(m, pair *, p, client_pair(m, i, NULL, NULL));
        assert_true(wn_identity(m, p) != 0);
    }
    client_collect(m);
    wn_get_stats(c.heap, &after);
    uint64_t made = after.allocated_objects - before.allocated_objects; /* exact to an allocation buffer */
    assert_true(made >= N - 2048 && made <= N + 2048);
    uint64_t bytes = after.allocated_bytes - before.allocated_bytes;
    assert_true(bytes >= (N - 2048) * sizeof(pair) && bytes <= (N + 2048) * sizeof(pair));
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identities_are_stable_and_unique),
        cmocka_unit_test(pinned_objects_stay),
        cmocka_unit_test(identities_in_a_full_heap),
        cmocka_unit_test(types_may_ask_never_to_move),
        cmocka_unit_test(the_pin_limit_is_reported),
        cmocka_unit_test(immortals_never_die_and_are_never_counted),
        cmocka_unit_test(pinned_immortals_are_not_forgotten),
        cmocka_unit_test(two_threads_may_note_something_at_once),
        cmocka_unit_test(an_identity_is_no_object),
    };
    return CLIENT_MAIN("identity", tests);
}
