/* large.c - objects above the small classes, up to 100 MiB and beyond a chunk. */
#include "client.h"

static const size_t sizes[] = {8 << 10, (8 << 10) + 1, 12345,   32 << 10,       (64 << 10) - 24, 64 << 10, 100000,
                               1 << 20, 3 << 20,       5000001, (16 << 20) - 8, 32 << 20,        50000000, 100 << 20};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static size_t biggest(void) { return client_stressed() ? 6 : client_sanitized() ? 10 : N_SIZES; }

static void every_size_is_zero_and_whole(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int round = 0; round < 3; round++)
        for (size_t k = 0; k < biggest(); k++) {
            wn_root(m, blob *, b, client_new_array(m, &blob_type, sizes[k]));
            assert_int_equal(b->length, sizes[k]);
            assert_int_equal(wn_size_of(m, b), sizeof(blob) + sizes[k]);
            assert_true(wn_is_object(m, b));
            for (size_t i = 0; i < sizes[k]; i += 509) assert_int_equal(b->bytes[i], 0);
            assert_int_equal(b->bytes[sizes[k] - 1], 0);
            memset(b->bytes, 0xee, sizes[k]);
        }
    client_close(&c);
}

static void large_objects_keep_what_they_refer_to(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (size_t k = 0; k < biggest(); k++) {
        size_t n = sizes[k] / sizeof(void *), marks[] = {0, 1, n / 3, n / 2, n - 2, n - 1};
        {
            wn_root(m, vector *, v, client_new_array(m, &vector_type, n));
            wn_collect(m, 0, NULL);
            for (long i = 0; i < 6; i++) wn_move(m, v, items[marks[i]], client_relic(m, i, NULL, v));
            client_collect(m);
            wn_collect(m, 0, NULL);
            for (long i = 0; i < 6; i++) {
                assert_int_equal(client_released[i], 0);
                assert_int_equal(((mortal *)v->items[marks[i]])->id, i);
                assert_ptr_equal(((mortal *)v->items[marks[i]])->b, v);
            }
        }
        client_collect(m); /* they are cycles */
        for (long i = 0; i < 6; i++) assert_int_equal(client_released[i], 1);
        client_forget();
    }
    client_close(&c);
}

static void large_objects_are_counted(void **state) {
    (void)state;
    enum { N = 10, LENGTH = 5000 };
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    for (int i = 0; i < N; i++) {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, LENGTH));
        wn_set(m, v, items[LENGTH - 1], v);
    }
    wn_collect_result r = client_collect(m);
    if (!client_stressed()) {
        assert_int_equal(r.collected, N);
        assert_true(r.freed_bytes >= N * LENGTH * sizeof(void *));
    }
    wn_enable(c.heap);
    client_close(&c);
}

/* A hundred times 8 MiB pass through a heap that may hold 64 MiB. */
static void memory_of_dead_large_objects_is_used_again(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.heap_limit = 96u << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_sanitized() || client_stressed() ? 20 : 100;
    for (size_t i = 0; i < n; i++) {
        wn_root(m, blob *, b, client_new_array(m, &blob_type, (8 << 20) + i * 4097));
        b->bytes[0] = 1;
        b->bytes[b->length - 1] = 2;
    }
    client_collect(m);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    assert_true(s.heap_bytes_max <= 96u << 20);
    assert_true(s.large_bytes <= 9u << 20);
    client_close(&c);
}

static void statistics_know_large_objects(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats s;
    {
        wn_root(m, blob *, b, client_new_array(m, &blob_type, 5000000));
        wn_get_stats(c.heap, &s);
        assert_true(s.large_bytes >= 5000000);
        assert_true(s.large_bytes <= 5000000 + 131072);
        assert_true(s.live_bytes >= 5000000);
        assert_non_null(b);
    }
    client_collect(m);
    wn_get_stats(c.heap, &s);
    assert_int_equal(s.large_bytes, 0);
    assert_true(s.live_bytes < 5000000);
    assert_true(s.live_bytes_max >= 5000000);
    client_close(&c);
}

static void large_objects_have_weak_references_and_hooks(void **state) {
    (void)state;
    typedef struct page {
        wn_object head;
        long id;
        char bytes[20000];
        void *last;
    } page;
    /* its reference lies beyond the 64 words of the bitmap, so a trace function finds it: see hooks.c; here none */
    static const wn_type page_type = WN_TYPE(page, .flags = 0);
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, page *, p, client_new(m, &page_type));
        assert_null(p->last);
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, p, NULL, NULL));
        client_collect(m);
        wn_root(m, void *, got, wn_weakref_get(m, w));
        assert_ptr_equal(got, p);
        wn_take(m, got, NULL);
        wn_take(m, p, NULL);
        client_collect(m);
        assert_null(wn_weakref_get(m, w));
    }
    client_close(&c);
}

/* A large holder of what is young and stays where it is has to be looked at by each young collection, until it is dead:
 * then its memory goes back. */
static void young_collections_do_not_look_at_dead_holders(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = sizes[biggest() - 1] / sizeof(void *);
    for (int round = 0; round < 3; round++) {
        wn_root(m, pair *, pinned, NULL);
        {
            wn_root(m, vector *, v, client_new_array(m, &vector_type, n));
            client_collect(m); /* the holder is old, where there are generations */
            wn_take(m, pinned, client_pair(m, round, NULL, NULL));
            assert_int_equal(wn_pin(m, pinned), WN_OK);
            wn_set(m, v, items[n - 1], pinned);
            wn_collect(m, 0, NULL);
            assert_ptr_equal(v->items[n - 1], pinned);
        }
        client_collect(m);
        for (int i = 0; i < 3; i++) wn_collect(m, 0, NULL);
        assert_int_equal(pinned->id, round);
        wn_unpin(m, pinned);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_zero_and_whole),
        cmocka_unit_test(large_objects_keep_what_they_refer_to),
        cmocka_unit_test(memory_of_dead_large_objects_is_used_again),
        cmocka_unit_test(large_objects_are_counted),
        cmocka_unit_test(statistics_know_large_objects),
        cmocka_unit_test(large_objects_have_weak_references_and_hooks),
        cmocka_unit_test(young_collections_do_not_look_at_dead_holders),
    };
    return CLIENT_MAIN("large", tests);
}
