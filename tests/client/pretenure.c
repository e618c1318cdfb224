/*
 * pretenure.c - objects of a size that outlives the nursery are born old: when they are, when they are not any more,
 * and that they are objects like all others meanwhile. What is kept must be kept on every collector.
 */
#include "client.h"

enum { KEPT = 40000, ROUNDS = 8, NURSERY = 256 << 10 };

static wn_options small_nursery(void) {
    wn_options o = wn_options_default();
    o.nursery = NURSERY;
    o.min_heap = 1 << 20;
    o.pretenure = 80;              /* not the default, which is never under stress */
    o.pause_budget_ns = 200000000; /* the nursery is used whole, however slow the machine is today */
    return o;
}

/* Whether the collector can be watched at it: it is the incremental one, and not under stress. */
static bool is_exact(const client *c) { return client_moves(c) && !client_stressed(); }

/* Makes n pairs that are all kept in a ring; returns how many of them were old at once. */
static size_t keep(wn_mutator *m, vector *ring_, size_t n) {
    wn_borrow(m, vector *, ring, ring_);
    size_t old = 0;
    for (size_t i = 0; i < n; i++) {
        wn_move(m, ring, items[i % ring->length], client_pair(m, (long)i, NULL, NULL));
        if (wn_generation(m, ring->items[i % ring->length])) old++;
    }
    return old;
}

/* Makes n pairs that are dropped at once; returns how many of the last quarter were born old. */
static size_t waste(wn_mutator *m, size_t n) {
    size_t old = 0;
    for (size_t i = 0; i < n; i++) {
        wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
        if (i >= n - n / 4 && wn_generation(m, p)) old++;
    }
    return old;
}

static void what_lasts_is_born_old_until_it_does_not(void **state) {
    (void)state;
    wn_options o = small_nursery();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_scaled(ROUNDS * KEPT);
    {
        wn_root(m, vector *, ring, client_new_array(m, &vector_type, KEPT));
        size_t old = keep(m, ring, n);
        /* Before the first judgement, and between one quota and the next, all are young; of n as small as in a
         * sanitized build two fifths are left. */
        if (is_exact(&c) && n >= KEPT) assert_true(old > n / 3);
        old = waste(m, 4 * n);
        if (is_exact(&c) && n >= KEPT) assert_int_equal(old, 0);
        old = keep(m, ring, n); /* not as many: the quota begins small, and first it has to be seen */
        if (is_exact(&c) && n >= KEPT) assert_true(old > n / 4);
    }
    client_close(&c);
}

static void never_is_never(void **state) {
    (void)state;
    wn_options o = small_nursery();
    o.pretenure = WN_NEVER;
    client c = client_open(&o);
    {
        wn_root(c.m, vector *, ring, client_new_array(c.m, &vector_type, KEPT));
        size_t old = keep(c.m, ring, client_scaled(ROUNDS * KEPT));
        if (is_exact(&c)) assert_int_equal(old, 0);
    }
    client_close(&c);
}

/* A program that keeps a little at its start does not have everything of that size born old. */
static void a_few_prove_nothing(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, few, client_new_array(m, &vector_type, 1000));
        keep(m, few, 1000);
        wn_collect(m, 0, NULL);
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        if (is_exact(&c)) assert_int_equal(wn_generation(m, p), 0);
    }
    client_close(&c);
}

/* Minors that come too soon to say anything: everything they find lives, because it was made a moment ago. */
static void minors_that_come_early_prove_nothing(void **state) {
    (void)state;
    wn_options o = small_nursery();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, ring, client_new_array(m, &vector_type, 1000));
        size_t n = client_scaled(100000), old = 0;
        for (size_t i = 0; i < n; i++) {
            size_t at = i % ring->length;
            wn_move(m, ring, items[at], client_pair(m, (long)i, NULL, NULL));
            if (wn_generation(m, ring->items[at])) old++;
            if (i % 100 == 0 && client_moves(&c)) wn_collect(m, 0, NULL);
        }
        if (is_exact(&c)) assert_int_equal(old, 0);
    }
    client_close(&c);
}

/* Pairs that are born old refer to young leaves, of a size that mostly dies, and to each other. */
static void what_is_born_old_keeps_what_is_young(void **state) {
    (void)state;
    wn_options o = small_nursery();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_scaled(ROUNDS * KEPT);
    {
        wn_root(m, vector *, ring, client_new_array(m, &vector_type, KEPT));
        for (size_t i = 0; i < n; i++) {
            size_t at = i % KEPT;
            wn_move(m, ring, items[at], client_pair(m, (long)i, NULL, at ? ring->items[at - 1] : NULL));
            for (int garbage = 0; garbage < 8; garbage++) wn_release(m, client_new(m, &leaf_type));
            leaf *l = client_new(m, &leaf_type);
            l->id = (long)i;
            wn_move(m, (pair *)ring->items[at], a, l);
        }
        size_t kept = n < KEPT ? n : KEPT;
        for (size_t i = 0; i < kept; i++) {
            pair *p = ring->items[i];
            assert_int_equal(p->id % KEPT, i);
            assert_int_equal(((leaf *)p->a)->id, p->id);
            if (i) assert_int_equal(((pair *)p->b)->id % KEPT, i - 1);
        }
    }
    client_close(&c);
}

/* What is born old while marking goes on is taken for marked; the only reference to a white object moves into it. */
static void what_is_born_while_marking_hides_nothing(void **state) {
    (void)state;
    wn_options o = small_nursery();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_scaled(ROUNDS * KEPT);
    {
        wn_root(m, vector *, ring, client_new_array(m, &vector_type, KEPT));
        for (size_t i = 0; i < n; i++) {
            size_t at = i % KEPT, other = i * 7919 % KEPT;
            wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
            pair *q = ring->items[other];
            if (q && q->a) {
                wn_set(m, p, a, q->a); /* the leaf changes hands */
                wn_set(m, q, a, NULL);
            } else {
                leaf *l = client_new(m, &leaf_type);
                l->id = 4711;
                wn_move(m, p, a, l);
            }
            wn_set(m, ring, items[at], p);
            if (i % (client_moves(&c) ? 100 : 20000) == 0) wn_collect_step(m, NULL);
        }
        client_collect(m);
        for (size_t i = 0; i < KEPT; i++) {
            pair *p = ring->items[i];
            if (p && p->a) assert_int_equal(((leaf *)p->a)->id, 4711);
        }
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lasts_is_born_old_until_it_does_not),
        cmocka_unit_test(never_is_never),
        cmocka_unit_test(a_few_prove_nothing),
        cmocka_unit_test(minors_that_come_early_prove_nothing),
        cmocka_unit_test(what_is_born_old_keeps_what_is_young),
        cmocka_unit_test(what_is_born_while_marking_hides_nothing),
    };
    return CLIENT_MAIN("pretenure", tests);
}
