/*
 * reclamation.c - large structures that die at once. Counting: in slices of at most reclaim_slice objects, one per
 * safepoint, and all of it within a bounded number of safepoints. Everywhere: no C stack overflows, however deep.
 */
#include "client.h"

#include <limits.h>
#include <pthread.h>

typedef struct slices {
    uint64_t count;
    size_t largest, objects;
} slices;

static void hear_slices(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    slices *s = data;
    if (event->kind != WN_EVENT_FREE_SLICE) return;
    s->count++;
    s->objects += event->result.collected;
    if (event->result.collected > s->largest) s->largest = event->result.collected;
}

static void *make_list(wn_mutator *m, size_t n) {
    wn_root(m, pair *, list, NULL);
    for (size_t i = 0; i < n; i++) {
        wn_root(m, pair *, p, client_new(m, &pair_type));
        p->id = (long)i;
        wn_set(m, p, a, list);
        wn_assign(m, list, p);
    }
    return wn_give(m, list);
}

/* Ten million, plainly built. */
static size_t list_length(void) { return client_scaled(10000000); }

static void a_long_list_dies_in_slices(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c) || client_stressed()) { /* stress collects everything all the time */
        client_close(&c);
        skip();
    }
    wn_disable(c.heap);
    size_t n = list_length();
    slices heard = {0};
    {
        wn_root(m, pair *, list, make_list(m, n));
        wn_add_listener(c.heap, hear_slices, &heard);
        wn_take(m, list, NULL); /* the drop itself frees one slice at most */
    }
    assert_true(heard.objects <= 3 * 2000);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    if (n > 10000) assert_true(s.live_bytes > 65536);
    size_t safepoints = 0, bound = n / 2000 + 100; /* a slice per safepoint: no more are needed */
    for (;;) {
        wn_get_stats(c.heap, &s);
        /* Exact to the slots a thread keeps, more when it is checked; a walk is exact. */
        if (s.live_bytes < 1u << 20 && client_alive(m) == 0) break;
        if (++safepoints > bound)
            fail_msg("%zu safepoints and still %llu bytes", safepoints, (unsigned long long)s.live_bytes);
        size_t before = heard.objects;
        if (safepoints % 2)
            wn_poll(m);
        else
            wn_release(m, client_new(m, &leaf_type));
        assert_true(heard.objects - before <= 3 * 2000);
    }
    assert_true(heard.largest <= 2000);
    wn_get_stats(c.heap, &s);
    if (n > 10000) assert_true(s.slices >= n / 2000);
    wn_remove_listener(c.heap, hear_slices, &heard);
    wn_enable(c.heap);
    client_close(&c);
}

static void the_slice_is_an_option(void **state) {
    (void)state;
    const unsigned sizes[] = {16, 100, 500, WN_ALL};
    for (size_t k = 0; k < 4; k++) {
        wn_options o = wn_options_default();
        o.reclaim_slice = sizes[k];
        client c = client_open(&o);
        wn_mutator *m = c.m;
        if (!client_counts(&c)) {
            client_close(&c);
            skip();
        }
        size_t n = client_scaled(sizes[k] == WN_ALL ? 1000000 : 20000);
        slices heard = {0};
        wn_add_listener(c.heap, hear_slices, &heard);
        wn_stats s;
        wn_release(m, make_list(m, n));
        if (sizes[k] == WN_ALL) {
            wn_get_stats(c.heap, &s);
            assert_int_equal(client_alive(c.m), 0); /* everything, at once */
        } else {
            for (size_t i = 0; i <= n / sizes[k] + 10; i++) wn_poll(m);
            wn_get_stats(c.heap, &s);
            assert_int_equal(client_alive(c.m), 0);
            assert_true(heard.largest <= sizes[k]);
        }
        wn_remove_listener(c.heap, hear_slices, &heard);
        client_close(&c);
    }
}

/* wn_collect does not leave slices behind. */
static void a_full_collection_finishes_what_waits(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(100000);
    {
        wn_root(m, mortal *, list, NULL);
        for (size_t i = 0; i < n; i++) {
            wn_root(m, mortal *, p, client_relic(m, (long)i, list, NULL));
            wn_assign(m, list, p);
        }
    }
    client_collect(m);
    for (size_t i = 0; i < n; i++) assert_int_equal(client_released[i], 1);
    client_close(&c);
}

/* Memory that waits to be reclaimed is there for whoever allocates: it never runs out because of a queue. */
static void allocation_does_not_outrun_reclamation(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.heap_limit = 256u << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_scaled(1000000);
    for (int round = 0; round < 12; round++) { /* 12 lists of 48 MB and more in 256 MB */
        wn_root(m, pair *, list, make_list(m, n));
        assert_int_equal(list->id, n - 1);
    }
    client_close(&c);
}

/* ---- deep structures --------------------------------------------------------------------------------------------- */

static void everything_on_a_deep_list(wn_mutator *m, size_t n) {
    wn_root(m, pair *, list, make_list(m, n));
    wn_set(m, list, b, list);
    for (int g = 0; g < 3; g++) wn_collect(m, g, NULL);
    client_collect(m);
    size_t length = 0;
    for (pair *p = list; p; p = p->a) length++;
    assert_int_equal(length, n);
    if (!client_stressed()) assert_int_equal(wn_verify(m, stderr), 0);
    FILE *null = fopen("/dev/null", "w");
    assert_non_null(null);
    void *objects[] = {list};
    assert_int_equal(wn_heap_graph(m, null, objects, 1, 0), WN_OK);
    fclose(null);
}

static void *deep_in_a_small_stack(void *data) {
    client *c = data;
    wn_mutator *m;
    if (wn_attach(c->heap, &m)) return NULL;
    {
        size_t n = list_length() / 4 + 4;
        wn_root(m, pair *, list, NULL);
        for (size_t i = 0; i < n; i++) { /* made at its end: each object older than what it refers to */
            wn_root(m, pair *, p, wn_new(m, &pair_type));
            if (!p) return NULL;
            if (list) wn_set(m, p, a, list);
            wn_assign(m, list, p);
        }
        wn_set(m, list, b, list);
        wn_collect(m, 2, NULL);
    }
    wn_collect(m, 2, NULL); /* a cycle with a very long tail dies */
    return wn_detach(m) ? NULL : data;
}

static void deep_structures_do_not_overflow_the_stack(void **state) {
    (void)state;
    client c = client_open(NULL);
    everything_on_a_deep_list(c.m, list_length() / 5 + 1); /* verifying takes its time */
    client_collect(c.m);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    if (client_counts(&c)) assert_int_equal(client_alive(c.m), 0);
    client_close(&c);
}

static void a_small_stack_is_enough(void **state) {
    (void)state;
    client c = client_open(NULL);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    size_t least = (size_t)PTHREAD_STACK_MIN > 64 << 10 ? (size_t)PTHREAD_STACK_MIN : 64 << 10; /* aarch64: 128 KiB */
    assert_int_equal(pthread_attr_setstacksize(&attr, client_sanitized() ? 512 << 10 : least), 0);
    pthread_t thread;
    wn_block_begin(c.m);
    assert_int_equal(pthread_create(&thread, &attr, deep_in_a_small_stack, &c), 0);
    void *result = NULL;
    pthread_join(thread, &result);
    wn_block_end(c.m);
    assert_non_null(result);
    pthread_attr_destroy(&attr);
    client_collect(c.m);
    client_close(&c);
}

/* Finalizers all the way down: each object's death is its finalizer's end. */
static void deep_chains_of_finalizers(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(200000);
    {
        wn_root(m, mortal *, list, NULL);
        for (size_t i = 0; i < n; i++) {
            wn_root(m, mortal *, p, client_mortal(m, (long)i, list, NULL));
            wn_assign(m, list, p);
        }
    }
    client_collect(m);
    client_collect(m);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_released[i], 1);
    }
    client_close(&c);
}

/* A wide fan, a full binary tree: other shapes for the same queues. */
static void *make_tree(wn_mutator *m, int depth) {
    wn_root(m, pair *, p, client_pair(m, depth, NULL, NULL));
    if (depth) {
        wn_move(m, p, a, make_tree(m, depth - 1));
        wn_move(m, p, b, make_tree(m, depth - 1));
    }
    return wn_give(m, p);
}

static void wide_structures_die_too(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, fan, client_new_array(m, &vector_type, client_scaled(500000)));
        for (size_t i = 0; i < fan->length; i++) wn_move(m, fan, items[i], client_pair(m, (long)i, NULL, NULL));
        wn_root(m, pair *, tree, make_tree(m, client_stressed() ? 5 : client_sanitized() ? 13 : 18));
        client_collect(m);
        assert_non_null(tree->a);
    }
    client_collect(m);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    if (client_counts(&c)) assert_int_equal(client_alive(c.m), 0);
    client_close(&c);
}

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int stage;
} meeting = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static void come_to(int stage) {
    pthread_mutex_lock(&meeting.lock);
    meeting.stage = stage;
    pthread_cond_broadcast(&meeting.changed);
    pthread_mutex_unlock(&meeting.lock);
}
static void wait_for(wn_mutator *m, int stage) {
    wn_block_begin(m);
    pthread_mutex_lock(&meeting.lock);
    while (meeting.stage < stage) pthread_cond_wait(&meeting.changed, &meeting.lock);
    pthread_mutex_unlock(&meeting.lock);
    wn_block_end(m);
}

/* Drops an array of which a slice takes only a part, and sleeps. */
static void *drop_and_sleep(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    size_t n = client_scaled(400000);
    {
        wn_root(m, vector *, v, wn_new_array(m, &vector_type, n));
        for (size_t i = 0; v && i < n; i++) wn_move(m, v, items[i], wn_new(m, &pair_type));
    }
    wn_block_begin(m);
    come_to(1);
    pthread_mutex_lock(&meeting.lock);
    while (meeting.stage < 2) pthread_cond_wait(&meeting.changed, &meeting.lock);
    pthread_mutex_unlock(&meeting.lock);
    wn_block_end(m);
    return wn_detach(m) ? heap : NULL;
}

static void a_full_collection_finishes_what_a_sleeping_thread_left(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    pthread_t thread;
    void *failure;
    come_to(0);
    assert_int_equal(pthread_create(&thread, NULL, drop_and_sleep, c.heap), 0);
    wait_for(m, 1);
    client_collect(m);
    if (client_counts(&c)) assert_int_equal(client_alive(m), 0);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    size_t left = s.live_bytes;
    come_to(2);
    wn_block_begin(m);
    pthread_join(thread, &failure);
    wn_block_end(m);
    assert_null(failure);
    /* Not even the array, which no walk shows any more. */
    if (!client_stressed()) assert_true(left < client_scaled(400000) * sizeof(void *));
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_list_dies_in_slices),
        cmocka_unit_test(the_slice_is_an_option),
        cmocka_unit_test(a_full_collection_finishes_what_waits),
        cmocka_unit_test(a_full_collection_finishes_what_a_sleeping_thread_left),
        cmocka_unit_test(allocation_does_not_outrun_reclamation),
        cmocka_unit_test(deep_structures_do_not_overflow_the_stack),
        cmocka_unit_test(a_small_stack_is_enough),
        cmocka_unit_test(deep_chains_of_finalizers),
        cmocka_unit_test(wide_structures_die_too),
    };
    return CLIENT_MAIN("reclamation", tests);
}
