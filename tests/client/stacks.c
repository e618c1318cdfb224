/*
 * stacks.c - conservative_stacks=on: a program that declares no roots keeps what its C stacks and registers refer to,
 * wherever a thread stands while a collection runs; what nothing refers to still goes.
 *
 * Counting needs no roots to keep an object, so there these tests check only that the option does no harm.
 */
#define _GNU_SOURCE
#include "client.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

static client open_conservative(void) {
    wn_options o = wn_options_default();
    o.conservative_stacks = true;
    return client_open(&o);
}

/* Overwrites what former calls left on the stack below, so that nothing is kept by chance. */
static __attribute__((noinline)) void scrub(void) {
    volatile char junk[4096];
    for (size_t i = 0; i < sizeof junk; i++) junk[i] = 0;
}

static void churn(wn_mutator *m, size_t n) {
    for (size_t i = 0; i < n; i++) wn_release(m, client_new(m, &leaf_type));
}

/* A list and a tree that only locals know, while as much garbage is made as it takes to collect many times. */
static void locals_are_roots(void **state) {
    (void)state;
    client c = open_conservative();
    wn_mutator *m = c.m;
    size_t n = client_scaled(20000);
    pair *list = NULL;
    for (size_t i = 0; i < n; i++) {
        pair *p = wn_new(m, &pair_type);
        p->id = (long)i;
        wn_move(m, p, a, list);
        list = p;
        if (i % 4 == 0) churn(m, 4);
    }
    client_collect(m);
    client_collect(m);
    size_t length = 0;
    for (pair *p = list; p; p = p->a) assert_int_equal(p->id, (long)(n - ++length));
    assert_int_equal(length, n);
    wn_release(m, list);
    client_close(&c);
}

/* More pointers alive across a collection than there are registers that calls preserve; some of them lie in those. */
static void registers_are_roots(void **state) {
    (void)state;
    client c = open_conservative();
    wn_mutator *m = c.m;
    for (int round = 0; round < 10; round++) {
        pair *p0 = client_new(m, &pair_type), *p1 = client_new(m, &pair_type), *p2 = client_new(m, &pair_type),
             *p3 = client_new(m, &pair_type), *p4 = client_new(m, &pair_type), *p5 = client_new(m, &pair_type),
             *p6 = client_new(m, &pair_type), *p7 = client_new(m, &pair_type), *p8 = client_new(m, &pair_type),
             *p9 = client_new(m, &pair_type), *p10 = client_new(m, &pair_type), *p11 = client_new(m, &pair_type);
        p0->id = 0, p1->id = 1, p2->id = 2, p3->id = 3, p4->id = 4, p5->id = 5;
        p6->id = 6, p7->id = 7, p8->id = 8, p9->id = 9, p10->id = 10, p11->id = 11;
        client_collect(m);
        churn(m, 1000);
        assert_int_equal(p0->id, 0), assert_int_equal(p1->id, 1), assert_int_equal(p2->id, 2);
        assert_int_equal(p3->id, 3), assert_int_equal(p4->id, 4), assert_int_equal(p5->id, 5);
        assert_int_equal(p6->id, 6), assert_int_equal(p7->id, 7), assert_int_equal(p8->id, 8);
        assert_int_equal(p9->id, 9), assert_int_equal(p10->id, 10), assert_int_equal(p11->id, 11);
        pair *all[] = {p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) wn_release(m, all[i]);
    }
    client_close(&c);
}

/* Only a pointer into the middle is left of it. */
static void pointers_into_objects_keep_them(void **state) {
    (void)state;
    client c = open_conservative();
    wn_mutator *m = c.m;
    leaf *whole = client_new(m, &leaf_type);
    char *volatile inside = whole->bytes + 20;
    memcpy(inside, "still here", 11);
    whole = NULL;
    scrub();
    for (int i = 0; i < 3; i++) {
        client_collect(m);
        churn(m, client_scaled(20000));
        assert_string_equal(inside, "still here");
    }
    wn_release(m, inside - 20 - offsetof(leaf, bytes));
    client_close(&c);
}

static __attribute__((noinline)) void make_mortals(wn_mutator *m, size_t n) {
    for (size_t i = 0; i < n; i++) wn_release(m, client_mortal(m, (long)i, NULL, NULL));
}

static void what_nothing_refers_to_goes(void **state) {
    (void)state;
    client c = open_conservative();
    wn_mutator *m = c.m;
    size_t n = client_scaled(2000);
    make_mortals(m, n);
    scrub();
    for (int i = 0; i < 4; i++) client_collect(m);
    /* A word that happens to look like an address may keep one or another. */
    assert_true(client_total(EVENT_RELEASE) + 20 > n);
    client_close(&c);
}

/* ---- threads that stand still in other places -------------------------------------------------------------------- */

typedef struct holder {
    wn_heap *heap;
    pthread_t thread;
    _Atomic int stage; /* 1: holds its list; 2: may look at it */
    bool blocks;       /* stands in a blocking section meanwhile, not at safepoints */
    bool fine;
} holder;

static void *hold_a_list(void *arg) {
    holder *h = arg;
    wn_mutator *m;
    if (wn_attach(h->heap, &m)) return NULL;
    pair *list = NULL;
    for (long i = 0; i < 500; i++) {
        pair *p = wn_new(m, &pair_type);
        p->id = i;
        wn_move(m, p, a, list);
        list = p;
    }
    if (h->blocks) wn_block_begin(m);
    atomic_store(&h->stage, 1);
    while (atomic_load(&h->stage) != 2) {
        if (!h->blocks) wn_poll(m);
        sched_yield();
    }
    if (h->blocks) wn_block_end(m);
    long i = 500;
    h->fine = true;
    for (pair *p = list; p; p = p->a) h->fine &= p->id == --i;
    h->fine &= i == 0;
    wn_release(m, list);
    h->fine &= wn_detach(m) == WN_OK;
    return NULL;
}

static void stacks_of_other_threads_are_roots(void **state) {
    (void)state;
    client c = open_conservative();
    wn_mutator *m = c.m;
    holder h[2] = {{.heap = c.heap, .blocks = true}, {.heap = c.heap}};
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&h[i].thread, NULL, hold_a_list, &h[i]), 0);
    for (int i = 0; i < 2; i++)
        while (!atomic_load(&h[i].stage)) {
            wn_poll(m);
            sched_yield();
        }
    for (int i = 0; i < 3; i++) {
        client_collect(m);
        churn(m, client_scaled(20000));
    }
    for (int i = 0; i < 2; i++) atomic_store(&h[i].stage, 2);
    wn_block_begin(m);
    for (int i = 0; i < 2; i++) pthread_join(h[i].thread, NULL);
    wn_block_end(m);
    assert_true(h[0].fine);
    assert_true(h[1].fine);
    client_close(&c);
}

/* On Linux the main thread's stack is looked up in /proc, which takes a descriptor. */
static void a_stack_without_bounds_is_refused(void **state) {
    (void)state;
    client c = open_conservative();
    assert_int_equal(wn_detach(c.m), WN_OK);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    pthread_attr_t attr;
    bool known = pthread_getattr_np(pthread_self(), &attr) == 0;
    wn_status status = wn_attach(c.heap, &c.m);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (known) pthread_attr_destroy(&attr);
    if (known || client_counts(&c)) {
        assert_int_equal(status, WN_OK);
    } else {
        assert_int_equal(status, WN_ERR_IO);
        assert_null(c.m);
        assert_non_null(strstr(wn_error_message(), "conservative_stacks"));
        assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locals_are_roots),
        cmocka_unit_test(registers_are_roots),
        cmocka_unit_test(pointers_into_objects_keep_them),
        cmocka_unit_test(what_nothing_refers_to_goes),
        cmocka_unit_test(stacks_of_other_threads_are_roots),
        cmocka_unit_test(a_stack_without_bounds_is_refused),
    };
    return CLIENT_MAIN("stacks", tests);
}
