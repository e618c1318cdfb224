/* inspect.c - questions about objects and heaps: walks, referrers, referents, tracking, drawing, and the verifier. */
#include "client.h"

#include <pthread.h>

typedef struct tally {
    size_t count, limit;
    long sum;
    const void *seen[64];
} tally;

static bool count_object(void *object, void *data) {
    tally *t = data;
    if (t->count < 64) t->seen[t->count] = object;
    t->count++;
    if (((wn_object *)object)->type == &pair_type) t->sum += ((pair *)object)->id;
    return t->limit == 0 || t->count < t->limit;
}
static bool saw(const tally *t, const void *object) {
    for (size_t i = 0; i < t->count && i < 64; i++)
        if (t->seen[i] == object) return true;
    return false;
}

static void walks_visit_every_object_once(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(5000);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
        wn_root(m, leaf *, l, client_new(m, &leaf_type));
        wn_root(m, blob *, big, client_new_array(m, &blob_type, 100000));
        client_collect(m);
        tally t = {0};
        assert_int_equal(wn_each_object(m, count_object, &t), WN_OK);
        assert_int_equal(t.count, n + 3);
        assert_int_equal(t.sum, (long)(n * (n - 1) / 2));
        t = (tally){.limit = 3};
        wn_each_object(m, count_object, &t);
        assert_int_equal(t.count, 3);
        assert_non_null(l);
        assert_non_null(big);
    }
    client_collect(m);
    tally t = {0};
    wn_each_object(m, count_object, &t);
    if (client_counts(&c)) assert_int_equal(t.count, 0); /* the others may show the dead until they are swept */
    client_close(&c);
}

static void only_what_can_refer_is_tracked(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c)) {
        client_close(&c);
        skip();
    }
    {
        wn_disable(c.heap);
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_root(m, leaf *, l, client_new(m, &leaf_type));
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 3));
        wn_root(m, blob *, b, client_new_array(m, &blob_type, 3));
        assert_true(wn_is_tracked(m, p));
        assert_true(wn_is_tracked(m, v));
        assert_false(wn_is_tracked(m, l));
        assert_false(wn_is_tracked(m, b));
        assert_int_equal(wn_generation(m, l), -1);
        wn_stats s;
        wn_get_stats(c.heap, &s);
        assert_int_equal(s.tracked, 2);
        tally t = {0};
        wn_each_tracked(m, -1, count_object, &t);
        assert_int_equal(t.count, 2);
        assert_true(saw(&t, p) && saw(&t, v));
        wn_untrack(m, p);
        assert_false(wn_is_tracked(m, p));
        wn_untrack(m, p);
        t = (tally){0};
        wn_each_tracked(m, -1, count_object, &t);
        assert_int_equal(t.count, 1);
        client_collect(m);
        assert_int_equal(p->id, 1); /* untracked, counted, alive */
        wn_track(m, p);
        wn_track(m, p);
        assert_true(wn_is_tracked(m, p));
        t = (tally){0};
        wn_each_tracked(m, -1, count_object, &t);
        assert_int_equal(t.count, 2);
        wn_set(m, p, a, p);
        wn_take(m, p, NULL);
        assert_int_equal(client_collect(m).collected, 1); /* tracked again: its cycle is found */
        wn_enable(c.heap);
    }
    client_close(&c);
}

static void tuples_of_leaves_are_dropped_from_tracking(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c)) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, vector *, flat, client_new_array(m, &tuple_type, 2));
        wn_move(m, flat, items[0], client_new(m, &leaf_type));
        wn_move(m, flat, items[1], client_new(m, &leaf_type));
        wn_root(m, vector *, nested, client_new_array(m, &tuple_type, 1));
        wn_set(m, nested, items[0], flat);
        wn_root(m, vector *, holding, client_new_array(m, &tuple_type, 1));
        wn_move(m, holding, items[0], client_pair(m, 1, NULL, NULL));
        wn_root(m, vector *, mutable, client_new_array(m, &vector_type, 1)); /* not immutable: stays */
        wn_move(m, mutable, items[0], client_new(m, &leaf_type));
        for (int i = 0; i < 3; i++) client_collect(m);
        assert_false(wn_is_tracked(m, flat));
        assert_false(wn_is_tracked(m, nested));
        assert_true(wn_is_tracked(m, holding));
        assert_true(wn_is_tracked(m, mutable));
    }
    client_close(&c);
}

/* A tuple in a cycle: tracked as long as it must be, and found. */
static void cycles_through_tuples_are_collected(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int i = 0; i < 10; i++) {
        wn_root(m, mortal *, p, client_relic(m, i, NULL, NULL));
        wn_root(m, vector *, t, client_new_array(m, &tuple_type, 3));
        if (i % 2) client_collect(m); /* also when it is collected half filled: nothing in it yet */
        wn_set(m, t, items[0], p);
        if (i % 3 == 0) client_collect(m);
        wn_set(m, p, a, t);
        client_collect(m);
        assert_int_equal(client_released[i], 0);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 10);
    client_close(&c);
}

/* Whichever allocation it is that starts a collection, also the tuple's own. */
static void tuples_just_born_stay_tracked(void **state) {
    (void)state;
    static const unsigned thresholds[] = {50, 52, 700};
    for (size_t k = 0; k < sizeof thresholds / sizeof *thresholds; k++) {
        wn_options o = wn_options_default();
        o.threshold[0] = thresholds[k];
        client c = client_open(&o);
        wn_mutator *m = c.m;
        for (size_t i = client_scaled(20000); i; i--) {
            wn_root(m, vector *, t, client_new_array(m, &tuple_type, 1));
            wn_move(m, t, items[0], client_pair(m, 1, t, NULL));
        }
        client_collect(m);
        if (client_counts(&c)) assert_int_equal(client_alive(m), 0);
        client_close(&c);
    }
}

/* Immutable, and its trace function shows only what is filled. */
typedef struct record {
    wn_object head;
    size_t used;
    void *fields[2];
} record;
static void record_trace(const void *object, wn_tracer *tracer) {
    const record *r = object;
    for (size_t i = 0; i < r->used; i++) wn_visit(tracer, (void *)&r->fields[i]);
}
static const wn_type record_type = WN_TYPE(record, .flags = WN_TYPE_IMMUTABLE, .trace = record_trace);

static void records_being_filled_stay_tracked(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (long early = 0; early < 3; early++) {
        wn_root(m, record *, r, client_new(m, &record_type));
        if (early == 1) client_collect(m);
        r->used = 1;
        wn_move(m, r, fields[0], client_new(m, &leaf_type));
        if (early == 2) client_collect(m);
        r->used = 2;
        wn_move(m, r, fields[1], client_relic(m, early, r, NULL));
        client_collect(m);
        assert_int_equal(client_released[early], 0);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 3);
    client_close(&c);
}

/* A container that is tracked only while it holds something that is; a tuple of tuples was untracked for it. */
static void tuples_are_tracked_anew_with_their_values(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (long frozen = 0; frozen < 2; frozen++) {
        {
            wn_root(m, mortal *, p, client_relic(m, frozen, NULL, NULL));
            wn_untrack(m, p);
            wn_root(m, vector *, t, client_new_array(m, &tuple_type, 1));
            wn_set(m, t, items[0], p);
            client_collect(m);
            wn_root(m, vector *, outer, client_new_array(m, &tuple_type, 1));
            wn_set(m, outer, items[0], t);
            client_collect(m);
            if (client_counts(&c)) assert_false(wn_is_tracked(m, t) || wn_is_tracked(m, outer));
            if (frozen) assert_int_equal(wn_freeze(m), WN_OK);
            wn_track(m, p);
            wn_set(m, p, a, outer);
        }
        if (frozen) {
            client_collect(m);
            assert_int_equal(client_released[frozen], 0);
            assert_int_equal(wn_unfreeze(m), WN_OK);
        }
        client_collect(m);
        assert_int_equal(client_released[frozen], 1);
    }
    {
        wn_root(m, vector *, flat, client_new_array(m, &tuple_type, 1));
        wn_move(m, flat, items[0], client_new(m, &leaf_type));
        client_collect(m);
        wn_root(m, leaf *, l, client_new(m, &leaf_type));
        wn_track(m, l);
        client_collect(m);
        assert_false(client_counts(&c) && wn_is_tracked(m, flat)); /* looked at, and let go of again */
    }
    if (client_counts(&c)) assert_int_equal(client_alive(m), 0);
    client_close(&c);
}

static void generations_are_visible(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    wn_disable(c.heap);
    {
        wn_root(m, pair *, a, client_pair(m, 1, NULL, NULL));
        for (int g = 0; g <= 2; g++) {
            assert_int_equal(wn_generation(m, a), g);
            for (int k = 0; k <= 2; k++) {
                tally t = {0};
                wn_each_tracked(m, k, count_object, &t);
                assert_int_equal(t.count, k == g);
            }
            wn_collect(m, g, NULL);
        }
        assert_int_equal(wn_generation(m, a), 2);
        wn_freeze(m);
        assert_int_equal(wn_generation(m, a), 3);
        tally t = {0};
        wn_each_tracked(m, 3, count_object, &t);
        assert_int_equal(t.count, 1);
        t = (tally){0};
        wn_each_tracked(m, -1, count_object, &t);
        assert_int_equal(t.count, 0);
        wn_unfreeze(m);
    }
    wn_enable(c.heap);
    client_close(&c);
}

static void referrers_and_referents(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, leaf *, target, client_new(m, &leaf_type));
        wn_root(m, pair *, p, client_pair(m, 1, target, NULL));
        wn_root(m, pair *, twice, client_pair(m, 2, target, target));
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 100));
        wn_set(m, v, items[99], target);
        wn_root(m, pair *, stranger, client_pair(m, 3, p, p));
        wn_root(m, pair *, self, client_pair(m, 4, NULL, NULL));
        wn_set(m, self, a, self);
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, target, NULL, NULL));
        client_collect(m);
        tally t = {0};
        assert_int_equal(wn_referrers(m, target, count_object, &t), WN_OK);
        assert_true(saw(&t, p) && saw(&t, twice) && saw(&t, v));
        assert_false(saw(&t, stranger) || saw(&t, self) || saw(&t, w)); /* a weak reference is none */
        t = (tally){0};
        assert_int_equal(wn_referents(m, twice, count_object, &t), WN_OK);
        assert_int_equal(t.count, 2);
        assert_ptr_equal(t.seen[0], target);
        assert_ptr_equal(t.seen[1], target);
        t = (tally){0};
        wn_referents(m, target, count_object, &t);
        assert_int_equal(t.count, 0);
        t = (tally){0};
        wn_referents(m, v, count_object, &t);
        assert_int_equal(t.count, 1);
        t = (tally){0};
        wn_referrers(m, self, count_object, &t);
        assert_int_equal(t.count, 1);
        assert_ptr_equal(t.seen[0], self);
        t = (tally){.limit = 1};
        wn_referrers(m, target, count_object, &t);
        assert_int_equal(t.count, 1);
    }
    client_collect(m);
    client_close(&c);
}

static void describe_pair(const void *object, char *buf, size_t n) {
    snprintf(buf, n, "number-%ld-\"quoted\"\n", ((const pair *)object)->id);
}

static void graphs_are_graphviz(void **state) {
    (void)state;
    static const wn_type spoken_type = {
        .name = "spoken", .size = sizeof(pair), WN_REFS(pair, a, b), .describe = describe_pair};
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, p, client_new(m, &spoken_type));
        p->id = 41;
        wn_root(m, pair *, q, client_new(m, &spoken_type));
        q->id = 42;
        wn_set(m, p, a, q);
        wn_set(m, q, a, p);
        wn_move(m, q, b, client_new(m, &leaf_type));
        FILE *f = tmpfile();
        assert_non_null(f);
        void *objects[] = {p};
        assert_int_equal(wn_heap_graph(m, f, objects, 1, 0), WN_OK);
        rewind(f);
        char text[8192] = {0};
        size_t length = fread(text, 1, sizeof text - 1, f);
        fclose(f);
        assert_true(length > 0);
        assert_non_null(strstr(text, "digraph"));
        assert_non_null(strstr(text, "spoken"));
        assert_non_null(strstr(text, "leaf"));
        assert_non_null(strstr(text, "number-41"));
        assert_non_null(strstr(text, "number-42"));
        assert_non_null(strstr(text, "\\\"quoted\\\"")); /* escaped, or dot will not read it */
        size_t arrows = 0;
        for (const char *at = text; (at = strstr(at, "->")); at += 2) arrows++;
        assert_int_equal(arrows, 3);
        if (system("command -v dot >/dev/null 2>&1") == 0) {
            FILE *dot = popen("dot -Tsvg >/dev/null", "w");
            assert_non_null(dot);
            fwrite(text, 1, length, dot);
            assert_int_equal(pclose(dot), 0);
        }
    }
    client_collect(m);
    client_close(&c);
}

static void graphs_have_an_end(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 1000));
        for (size_t i = 0; i < v->length; i++) wn_move(m, v, items[i], client_pair(m, (long)i, v, NULL));
        FILE *f = tmpfile();
        assert_non_null(f);
        void *objects[] = {v};
        assert_int_equal(wn_heap_graph(m, f, objects, 1, 10), WN_OK);
        long length = ftell(f);
        assert_true(length > 0 && length < 100000);
        rewind(f);
        static char text[100001];
        memset(text, 0, sizeof text);
        assert_int_equal(fread(text, 1, sizeof text - 1, f), length);
        assert_non_null(strstr(text, "…"));
        fclose(f);
    }
    client_collect(m);
    client_close(&c);
}

/* The verifier must find what it is for: here a store that went past the barrier. */
static void the_verifier_finds_a_wrong_count(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_counts(&c)) {
        client_close(&c);
        skip();
    }
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_root(m, pair *, q, client_pair(m, 2, NULL, NULL));
        assert_int_equal(wn_verify(m, NULL), 0);
        FILE *f = tmpfile();
        assert_non_null(f);
        p->a = q; /* not counted */
        assert_true(wn_verify(m, f) > 0);
        assert_true(ftell(f) > 0);
        p->a = NULL;
        fclose(f);
        assert_int_equal(wn_verify(m, NULL), 0);
    }
    client_close(&c);
}

/* ---- beside a thread that allocates ------------------------------------------------------------------------------ */

static _Atomic uintptr_t newest;
static _Atomic bool enough;

static void *make_arrays(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    {
        wn_root(m, pair *, item, wn_new(m, &pair_type));
        while (item && !atomic_load(&enough)) {
            wn_root(m, vector *, v, wn_new_array(m, &vector_type, 6));
            if (!v) break;
            atomic_store(&newest, (uintptr_t)v);
            for (size_t i = 0; i < v->length; i++) wn_set(m, v, items[i], item);
        }
    }
    wn_detach(m);
    return heap;
}

/* What another thread is making at this moment is an object or not yet one, but never is its middle. */
static void addresses_are_asked_about_while_others_allocate(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    atomic_store(&newest, 0);
    atomic_store(&enough, false);
    pthread_t maker;
    assert_int_equal(pthread_create(&maker, NULL, make_arrays, c.heap), 0);
    while (!atomic_load(&newest)) wn_poll(m);
    size_t middles = 0;
    for (size_t n = client_stressed() ? 2000 : client_scaled(3000000); n; n--) {
        middles += wn_is_object(m, (void *)(atomic_load(&newest) + 32));
        if (n % 64 == 0) wn_poll(m);
    }
    atomic_store(&enough, true);
    wn_block_begin(m);
    void *result = NULL;
    pthread_join(maker, &result);
    wn_block_end(m);
    assert_non_null(result);
    assert_int_equal(middles, 0);
    client_close(&c);
}

static void *collect_young(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    while (!atomic_load(&enough)) {
        if (wn_collect(m, 0, NULL)) break;
        atomic_store(&newest, 1);
    }
    wn_detach(m);
    return heap;
}

/* What is asked about may move while the walk waits for the other thread's collection. That one comes to no safepoint
 * but its collections, which must be some on every collector. */
static void referrers_are_found_of_what_moves(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    atomic_store(&newest, 0);
    atomic_store(&enough, false);
    pthread_t collecting;
    assert_int_equal(pthread_create(&collecting, NULL, collect_young, c.heap), 0);
    while (!atomic_load(&newest)) wn_poll(m);
    size_t missed = 0;
    bool moves = wn_heap_collector(c.heap) == WN_COLLECTOR_INCREMENTAL;
    for (size_t n = client_stressed() || !moves ? 100 : client_scaled(50000); n; n--) {
        wn_root(m, pair *, target, client_pair(m, 1, NULL, NULL));
        wn_root(m, pair *, holder, client_pair(m, 2, target, NULL));
        tally t = {0};
        assert_int_equal(wn_referrers(m, target, count_object, &t), WN_OK);
        missed += !saw(&t, holder);
    }
    atomic_store(&enough, true);
    wn_block_begin(m);
    void *result = NULL;
    pthread_join(collecting, &result);
    wn_block_end(m);
    assert_non_null(result);
    assert_int_equal(missed, 0);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_visit_every_object_once),
        cmocka_unit_test(only_what_can_refer_is_tracked),
        cmocka_unit_test(tuples_of_leaves_are_dropped_from_tracking),
        cmocka_unit_test(cycles_through_tuples_are_collected),
        cmocka_unit_test(tuples_just_born_stay_tracked),
        cmocka_unit_test(records_being_filled_stay_tracked),
        cmocka_unit_test(tuples_are_tracked_anew_with_their_values),
        cmocka_unit_test(generations_are_visible),
        cmocka_unit_test(referrers_and_referents),
        cmocka_unit_test(referrers_are_found_of_what_moves),
        cmocka_unit_test(graphs_are_graphviz),
        cmocka_unit_test(graphs_have_an_end),
        cmocka_unit_test(the_verifier_finds_a_wrong_count),
        cmocka_unit_test(addresses_are_asked_about_while_others_allocate),
    };
    return CLIENT_MAIN("inspect", tests);
}
