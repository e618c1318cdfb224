/* arrays.c - the variable part of objects: references, bytes, records; wn_copy; arrays too long for one block. */
#include "client.h"

typedef struct entry {
    uint64_t hash;
    void *key, *value;
} entry;
typedef struct table {
    wn_object head;
    void *owner;
    size_t length;
    entry entries[];
} table;
static const wn_type table_type =
    WN_TYPE(table, WN_REFS(table, owner), WN_RECORDS(table, length, entries, WN_REF_BITS(entry, key, value)));

static void elements_live_as_long_as_the_array(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    const size_t lengths[] = {1, 2, 61, 62, 63, 64, 65, 127, 500, 1021, 1023, 1024, 5000, 30000};
    size_t n = sizeof lengths / sizeof *lengths - (client_stressed() ? 4 : 0);
    for (size_t k = 0; k < n; k++) {
        size_t length = lengths[k];
        {
            wn_root(m, vector *, v, client_new_array(m, &vector_type, length));
            for (size_t i = 0; i < length; i++) wn_move(m, v, items[i], client_relic(m, (long)i, NULL, NULL));
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            for (size_t i = 0; i < length; i++) assert_int_equal(((mortal *)v->items[i])->id, i);
            for (size_t i = 0; i < length; i += 2) wn_set(m, v, items[i], NULL);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), (length + 1) / 2);
        }
        client_collect(m);
        for (size_t i = 0; i < length; i++) assert_int_equal(client_released[i], 1);
        client_forget();
    }
    client_close(&c);
}

/* A hash table's entries: what the mask does not name is a number, even when it looks like an address. */
static void records_have_references_where_the_mask_says(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(3000);
    {
        wn_root(m, table *, t, client_new_array(m, &table_type, n));
        wn_move(m, t, owner, client_relic(m, (long)(3 * n), NULL, NULL));
        for (size_t i = 0; i < n; i++) {
            wn_move(m, t, entries[i].key, client_relic(m, (long)(2 * i), NULL, NULL));
            wn_move(m, t, entries[i].value, client_relic(m, (long)(2 * i + 1), NULL, NULL));
            t->entries[i].hash = (uint64_t)(uintptr_t)t->entries[i].key; /* an address that is no reference */
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(((mortal *)t->entries[i].key)->id, 2 * i);
            assert_int_equal(((mortal *)t->entries[i].value)->id, 2 * i + 1);
            wn_set(m, t, entries[i].key, NULL);
        }
        client_collect(m);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(client_released[2 * i], 1);
            assert_int_equal(client_released[2 * i + 1], 0);
        }
        assert_int_equal(client_released[3 * n], 0);
    }
    client_collect(m);
    for (size_t i = 0; i < n; i++) assert_int_equal(client_released[2 * i + 1], 1);
    assert_int_equal(client_released[3 * n], 1);
    client_close(&c);
}

static void bytes_are_never_taken_for_references(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, blob *, b, client_new_array(m, &blob_type, 4096));
        void *target = client_relic(m, 5, NULL, NULL);
        memcpy(b->bytes, &target, sizeof target);
        wn_release(m, target);
        client_collect(m);
        assert_int_equal(client_released[5], 1);
        memset(b->bytes, 0x5a, b->length);
        client_collect(m);
        for (size_t i = 0; i < b->length; i++) assert_int_equal(b->bytes[i], 0x5a);
    }
    client_close(&c);
}

static void copy_stores_every_reference(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    enum { N = 100 };
    {
        wn_root(m, vector *, from, client_new_array(m, &vector_type, N));
        wn_root(m, vector *, to, client_new_array(m, &vector_type, N));
        for (size_t i = 0; i < N; i++) {
            wn_move(m, from, items[i], client_relic(m, (long)i, NULL, NULL));
            wn_move(m, to, items[i], client_relic(m, (long)(1000 + i), NULL, NULL));
        }
        client_collect(m); /* both are old now where there are generations */
        wn_copy(m, to, to->items, from->items, N);
        wn_take(m, from, NULL);
        client_collect(m);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(client_released[i], 0);
            assert_int_equal(client_released[1000 + i], 1); /* what was overwritten */
            assert_int_equal(((mortal *)to->items[i])->id, i);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, to->items[i]), 1);
        }
        wn_copy(m, to, to->items, NULL, 0);
        wn_copy(m, to, to->items, to->items, N); /* onto itself */
        client_collect(m);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(client_released[i], 0);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, to->items[i]), 1);
        }
    }
    client_close(&c);
}

/* As memmove: deleting and inserting in the middle of a list. */
static void copy_may_overlap(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    enum { N = 50 };
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, N));
        for (size_t i = 0; i < N; i++) wn_move(m, v, items[i], client_relic(m, (long)i, NULL, NULL));
        client_collect(m);
        wn_copy(m, v, &v->items[10], &v->items[11], N - 11); /* delete number 10 */
        wn_set(m, v, items[N - 1], NULL);
        client_collect(m);
        for (size_t i = 0; i < N; i++) assert_int_equal(client_released[i], i == 10);
        for (size_t i = 0; i < N - 1; i++) assert_int_equal(((mortal *)v->items[i])->id, i < 10 ? i : i + 1);
        wn_copy(m, v, &v->items[21], &v->items[20], N - 21); /* make room at 20 */
        wn_move(m, v, items[20], client_relic(m, 100, NULL, NULL));
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 1);
        for (size_t i = 0; i < N; i++) {
            long expected = i < 10 ? (long)i : i < 20 ? (long)i + 1 : i == 20 ? 100 : (long)i;
            assert_int_equal(((mortal *)v->items[i])->id, expected);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, v->items[i]), 1);
        }
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), N + 1);
    client_close(&c);
}

/* One array of very many elements, written at random while everything else comes and goes. */
static void a_long_array_is_traced_to_its_end(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(2000000);
    unsigned long long seed = 88172645463325252ull;
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, n));
        for (size_t k = 0; k < n / 4; k++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            size_t i = seed % n;
            wn_move(m, v, items[i], client_pair(m, (long)i, NULL, NULL));
            if (k % 100000 == 99999) wn_collect(m, (int)(k / 100000 % 3), NULL);
        }
        wn_move(m, v, items[n - 1], client_pair(m, (long)(n - 1), NULL, NULL));
        wn_move(m, v, items[0], client_pair(m, 0, NULL, NULL));
        client_collect(m);
        size_t found = 0;
        for (size_t i = 0; i < n; i++)
            if (v->items[i]) {
                assert_int_equal(((pair *)v->items[i])->id, i);
                found++;
            }
        assert_true(found > n / 8 || n < 100);
        if (client_counts(&c)) {
            wn_stats s;
            wn_get_stats(c.heap, &s);
            assert_true(s.live_bytes <= n * sizeof(void *) + (found + 16) * 2 * sizeof(pair) + 65536);
        }
    }
    client_close(&c);
}

/* Fills items [0, n) with objects of `all` in stretches: neighbours upwards and downwards, every third, one again and
 * again, anywhere, none. A marker may take some of these in one go. */
static void fill_in_stretches(wn_mutator *m, vector *v_, vector *all_, size_t n, unsigned long long *seed) {
    wn_borrow(m, vector *, v, v_);
    wn_borrow(m, vector *, all, all_);
    for (size_t i = 0; i < n;) {
        *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
        size_t at = *seed % n, end = i + (*seed >> 32) % 100 + 1;
        const size_t steps[] = {1, n - 1, 3, 0, *seed >> 40, 1};
        size_t kind = (*seed >> 50) % 7;
        for (; i < n && i < end; i++, at = (at + (kind < 6 ? steps[kind] : 0)) % n)
            wn_set(m, v, items[i], kind < 6 ? all->items[at] : NULL);
    }
}

static void an_array_may_have_any_order(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    const size_t n = client_scaled(40000);
    unsigned long long seed = 88172645463325252ull;
    bool *reached = malloc(n);
    long *next = malloc(n * sizeof *next), *prior = malloc(n * sizeof *prior);
    assert_true(reached && next && prior);
    for (int round = 0; round < (client_stressed() ? 2 : 8); round++) {
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
            wn_root(m, vector *, v, client_new_array(m, &vector_type, n));
            for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_relic(m, (long)i, NULL, NULL));
            client_collect(m);
            /* Some refer to a neighbour, some to anyone; never in a circle, so that all collectors free the same. */
            for (size_t i = 0; i + 1 < n; i++) {
                seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                next[i] = seed % 3 == 0 ? (long)i + 1 : seed % 7 == 0 ? (long)(i + 1 + (seed >> 20) % (n - i - 1)) : -1;
                if (next[i] < 0) continue;
                wn_set(m, (mortal *)all->items[i], a, all->items[next[i]]);
            }
            next[n - 1] = -1;
            fill_in_stretches(m, v, all, n, &seed);
            memset(reached, 0, n);
            for (size_t i = 0; i < n; i++) {
                long id = v->items[i] ? ((mortal *)v->items[i])->id : -1;
                prior[i] = id;
                if (id >= 0) reached[id] = true;
            }
            for (size_t i = 0; i < n; i++)
                if (reached[i] && next[i] >= 0) reached[next[i]] = true;
            wn_take(m, all, NULL);
            client_collect(m);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(client_released[i], !reached[i]);
                assert_int_equal(v->items[i] ? ((mortal *)v->items[i])->id : -1, prior[i]);
            }
        }
        client_collect(m);
        client_forget();
    }
    free(reached);
    free(next);
    free(prior);
    client_close(&c);
}

/* Long arrays of records of many sizes, behind a fixed part that is long itself, are written at random while some of
 * what they refer to is pinned for a while: a model knows which object each slot has to lead to. */
enum { FIXED = 30, MOST_WORDS = 9, PINS = 8 };
typedef struct wide {
    wn_object head;
    void *fixed[FIXED];
    size_t length;
    void *words[];
} wide;

static uint64_t chance;
static size_t below(size_t n) {
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(chance >> 33) % n;
}

static void check_slots(void **slots, const long *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0) continue;
        assert_ptr_equal(((wn_object *)slots[i])->type, &pair_type);
        assert_int_equal(((pair *)slots[i])->id, ids[i]);
    }
}

static void write_at_random(unsigned words, uint64_t mask, size_t length, size_t stores) {
    const wn_type type = {.name = "wide",
                          .size = sizeof(wide),
                          .refs = (((uint64_t)1 << FIXED) - 1) << 1,
                          .item_size = words * (unsigned)sizeof(void *),
                          .length_at = offsetof(wide, length),
                          .item_refs = mask};
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = length * words;
    long fixed_ids[FIXED], *ids = malloc(n * sizeof *ids);
    void *pinned[PINS] = {0};
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++) ids[i] = -1;
    for (size_t i = 0; i < FIXED; i++) fixed_ids[i] = -1;
    {
        wn_root(m, wide *, w, client_new_array(m, &type, length));
        for (size_t k = 0; k < stores; k++) {
            bool fixed = below(8) == 0;
            size_t i = fixed ? below(FIXED) : below(n);
            if (!fixed && !(mask >> i % words & 1)) continue;
            wn_root(m, pair *, p, client_pair(m, (long)k, NULL, NULL));
            wn_store(m, w, fixed ? &w->fixed[i] : &w->words[i], p);
            *(fixed ? &fixed_ids[i] : &ids[i]) = (long)k;
            if (below(4) == 0) {
                void **place = &pinned[below(PINS)];
                if (*place) wn_unpin(m, *place);
                assert_int_equal(wn_pin(m, p), WN_OK);
                *place = p;
            }
            if (below(20) == 0) wn_collect(m, 0, NULL);
            if (below(60) == 0) wn_collect_step(m, NULL);
            if (below(200)) continue;
            check_slots(w->fixed, fixed_ids, FIXED);
            check_slots(w->words, ids, n);
        }
        for (size_t i = 0; i < PINS; i++)
            if (pinned[i]) wn_unpin(m, pinned[i]);
        client_collect(m);
        check_slots(w->fixed, fixed_ids, FIXED);
        check_slots(w->words, ids, n);
    }
    free(ids);
    client_close(&c);
}

static void records_are_written_at_random(void **state) {
    (void)state;
    static const struct {
        unsigned words;
        uint64_t mask;
    } shapes[] = {{1, 1}, {2, 2}, {3, 6}, {3, 5}, {5, 17}, {7, 65}, {MOST_WORDS, 0x181}};
    chance = 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        write_at_random(shapes[i].words, shapes[i].mask, 3000 / shapes[i].words, client_scaled(6000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_array_may_have_any_order),
        cmocka_unit_test(elements_live_as_long_as_the_array),
        cmocka_unit_test(records_have_references_where_the_mask_says),
        cmocka_unit_test(bytes_are_never_taken_for_references),
        cmocka_unit_test(copy_stores_every_reference),
        cmocka_unit_test(copy_may_overlap),
        cmocka_unit_test(a_long_array_is_traced_to_its_end),
        cmocka_unit_test(records_are_written_at_random),
    };
    return CLIENT_MAIN("arrays", tests);
}
