/*
 * test_starved.c - the incremental collector while the system refuses it memory: nothing that is reachable is lost, and
 * the next collection with memory makes good what this one could not.
 */
#include "client/client.h"

#include "collectors/incremental/incremental.h"
#include "starve.h"

#include <winnow/inspect.h>

static client open_quiet(void) {
    wn_options o = client_quiet_options();
    return client_open(&o);
}

/* A minor finds frozen objects written, and has no memory to note them. */
static void what_frozen_objects_refer_to_lives(void **state) {
    (void)state;
    enum { N = 100 };
    for (int again = 0; again < 2; again++) { /* the next major has no memory for them either */
        client c = open_quiet();
        wn_mutator *m = c.m;
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
            for (long i = 0; i < N; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
            wn_root(m, wn_ephemeron *, e, wn_ephemeron_new(m, all, NULL));
            client_collect(m);
            assert_int_equal(wn_freeze(m), WN_OK);
            for (long i = 0; i < N; i += 2) wn_move(m, (pair *)all->items[i], a, client_relic(m, i, NULL, NULL));
            {
                wn_root(m, mortal *, value, client_relic(m, N, NULL, NULL));
                wn_ephemeron_set(m, e, value);
            }
            starve(ANY);
            assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
            if (again) wn_collect(m, 2, NULL);
            assert_true(feed() > 0);
            assert_true(inc_of(c.heap)->written_lost);
            client_collect(m);
            assert_false(inc_of(c.heap)->written_lost); /* once is enough */
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            for (long i = 1; i < N; i += 2) wn_move(m, (pair *)all->items[i], a, client_relic(m, i, NULL, NULL));
            for (int i = 0; i < 2; i++) client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            for (long i = 0; i < N; i++) wn_set(m, (pair *)all->items[i], a, NULL);
            wn_ephemeron_set(m, e, NULL);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), N + 1);
            assert_int_equal(wn_unfreeze(m), WN_OK);
        }
        client_close(&c);
    }
}

/* The search for what finalizers need has no memory, so nothing is freed; what a finalizer then makes that is born old
 * is looked at by the next major like anything else. */
static pair *made;
enum { MADE = 2000 };

static void make_what_stays(wn_mutator *m, mortal *self) {
    static const wn_type fixed_type = {
        .name = "fixed", .size = sizeof(pair), WN_REFS(pair, a, b), .flags = WN_TYPE_PINNED};
    (void)self;
    feed();
    for (long i = 0; i < MADE; i++) {
        wn_root(m, pair *, p, client_new(m, &fixed_type));
        wn_set(m, p, b, made);
        wn_assign(m, made, p);
        wn_move(m, made, a, client_pair(m, i, NULL, NULL));
    }
}

static void what_is_made_after_a_search_that_failed_is_marked(void **state) {
    (void)state;
    enum { N = 5000 };
    static const wn_type filler_type = {
        .name = "filler", .size = sizeof(pair), WN_REFS(pair, a, b), .flags = WN_TYPE_PINNED};
    client c = open_quiet();
    wn_mutator *m = c.m;
    assert_int_equal(wn_global(c.heap, &made), WN_OK);
    wn_release(m, client_mortal(m, 1, NULL, NULL));
    client_collect(m); /* the list of what is due has a segment */
    {
        wn_root(m, vector *, sparse, client_new_array(m, &vector_type, N));
        for (size_t i = 0; i < 2 * N; i++) { /* blocks with room in them */
            wn_root(m, pair *, p, client_new(m, &filler_type));
            if (i % 2) wn_set(m, sparse, items[i / 2], p);
        }
        client_collect(m);
        {
            wn_root(m, mortal *, owner, client_mortal(m, 2, NULL, NULL));
            wn_move(m, owner, a, client_new_array(m, &vector_type, N));
            for (long i = 0; i < N; i++) wn_move(m, (vector *)owner->a, items[i], client_pair(m, i, NULL, NULL));
        }
        {
            wn_root(m, mortal *, found, client_mortal(m, 3, NULL, NULL)); /* before there is too much to search */
            found->will = make_what_stays;
        }
        starve(sizeof(stack_segment));
        wn_collect(m, 2, NULL);
        assert_true(feed() > 0);
        assert_int_equal(client_finalized[3], 1);
        for (int i = 0; i < 2; i++) {
            client_collect(m);
            long left = MADE;
            for (pair *p = made; p; p = p->b) {
                assert_true(wn_is_object(m, p->a));
                assert_int_equal(((pair *)p->a)->id, --left);
            }
            assert_int_equal(left, 0);
        }
    }
    assert_int_equal(wn_forget_global(m, &made), WN_OK);
    client_close(&c);
}

/* A long array's entry in a remembered set is two words, of which only one finds room; or neither does, and no entry of
 * another kind is lost as well. */
static void a_remembered_card_is_whole_or_none(void **state) {
    (void)state;
    enum { PINS = 40 };
    for (size_t way = 0; way < 6; way++) {
        size_t room = (size_t)16 << way / 2;
        bool alone = way % 2;
        client c = open_quiet();
        wn_mutator *m = c.m;
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, 5000));
            wn_root(m, pair *, odd, client_pair(m, -1, NULL, NULL)); /* its entry is one word */
            client_collect(m);
            if (!alone) {
                wn_move(m, odd, a, client_pair(m, -2, NULL, NULL));
                assert_int_equal(wn_pin(m, odd->a), WN_OK);
            }
            for (long i = 0; i < PINS; i++) {
                wn_move(m, all, items[i * 100], client_pair(m, i, NULL, NULL));
                assert_int_equal(wn_pin(m, all->items[i * 100]), WN_OK);
            }
            wn_step_result r;
            assert_int_equal(wn_collect_step(m, &r), WN_OK);
            starve(2 * room * sizeof(void *));
            do assert_int_equal(wn_collect_step(m, &r), WN_OK);
            while (!r.major_is_done);
            assert_true(feed() > 0);
            assert_int_equal(wn_verify(m, stderr), 0);
            for (long i = 0; i < PINS; i++) wn_unpin(m, all->items[i * 100]);
            if (!alone) wn_unpin(m, odd->a);
            client_collect(m);
            for (long i = 0; i < PINS; i++) assert_int_equal(((pair *)all->items[i * 100])->id, i);
            if (!alone) assert_int_equal(((pair *)odd->a)->id, -2);
            assert_int_equal(wn_verify(m, stderr), 0);
        }
        client_close(&c);
    }
}

/* A full collection without memory for marking says so, and counts nothing that an earlier one has freed. */
static void a_collection_without_memory_is_an_error(void **state) {
    (void)state;
    enum { DEAD = 300 };
    wn_options o = client_quiet_options();
    o.min_heap = 64 << 10;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    wn_collect_result r;
    {
        {
            wn_root(m, vector *, dead, client_new_array(m, &vector_type, DEAD));
            for (long i = 0; i < DEAD; i++) wn_move(m, dead, items[i], client_pair(m, i, NULL, NULL));
            wn_collect(m, 0, NULL);
        }
        assert_int_equal(wn_collect(m, 2, &r), WN_OK);
        assert_int_equal(r.collected, DEAD + 1);
        wn_root(m, vector *, kept, make_wide_and_deep(m));
        wn_collect(m, 0, NULL);
        starve(ANY);
        wn_status status = wn_collect(m, 2, &r);
        assert_true(feed() > 0);
        assert_int_equal(status, WN_ERR_MEMORY);
        assert_non_null(strstr(wn_error_message(), "memory"));
        assert_int_equal(inc_of(c.heap)->phase, IDLE);
        assert_true((double)inc_of(c.heap)->threshold > 1.3 * (double)wn_inc_major_used(inc_of(c.heap)));
        assert_int_equal(m->mode, wn_inc_barrier_mode(inc_of(c.heap)));
        assert_int_equal(inc_of(c.heap)->slices.n, 0);
        assert_int_equal(r.collected, 0);
        assert_int_equal(r.freed_bytes, 0);
        assert_int_equal(wn_collect(m, 2, &r), WN_OK);
        assert_int_equal(r.collected, 0);
    }
    client_close(&c);
}

static void make_and_drop(wn_mutator *m, size_t n) {
    for (size_t i = 0; i < n; i++) wn_release(m, client_pair(m, -1, NULL, NULL));
}

/* A major that had no memory for marking is not tried again before the heap has grown. */
static void a_major_that_gave_up_waits(void **state) {
    (void)state;
    enum { SOME = 100000 };
    wn_options o = client_quiet_options();
    o.min_heap = 1 << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    wn_disable(c.heap); /* or the marker would have memory from the majors before */
    {
        wn_root(m, vector *, kept, make_wide_and_deep(m));
        wn_root(m, pair *, more, NULL);
        wn_collect(m, 0, NULL);
        starve(ANY);
        uint64_t turns = inc->turns;
        wn_enable(c.heap);
        while (inc->turns < turns + 2) make_and_drop(m, SOME);
        assert_true(inc->gave_up);
        make_and_drop(m, 10 * SOME);
        assert_true(feed() > 0);
        assert_int_equal(inc->turns, turns + 2);
        for (size_t before = wn_inc_major_used(inc); inc->turns == turns + 2;) {
            assert_true(wn_inc_major_used(inc) < 2 * before);
            wn_take(m, more, client_pair(m, -1, more, NULL));
        }
        client_collect(m);
    }
    client_close(&c);
}

/* A long array is to be marked piece by piece, and there is no memory to note how far that has come. */
static void what_a_long_array_refers_to_lives(void **state) {
    (void)state;
    enum { LONG = 5000 };
    client c = open_quiet();
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, LONG));
        for (long i = 0; i < LONG; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, all->items[LONG - 1], NULL, NULL));
        wn_collect(m, 0, NULL);
        starve(sizeof(stack_segment));
        assert_int_equal(wn_collect(m, 2, NULL), WN_ERR_MEMORY);
        assert_true(feed() > 0);
        wn_root(m, pair *, last, wn_weakref_get(m, w));
        assert_ptr_equal(last, all->items[LONG - 1]);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(wn_verify(m, stderr), 0);
            for (long k = 0; k < LONG; k++) assert_int_equal(((pair *)all->items[k])->id, k);
            client_collect(m);
        }
    }
    client_close(&c);
}

/* The table of weak references has room for all that a minor moves; without memory for that they are only longer to
 * find. */
static void the_table_of_weak_references_is_never_full(void **state) {
    (void)state;
    for (int starved = 0; starved < 2; starved++)
        for (size_t n = 40; n <= 400; n += 8) {
            client c = open_quiet();
            wn_mutator *m = c.m;
            {
                wn_root(m, vector *, targets, client_new_array(m, &vector_type, n));
                wn_root(m, vector *, refs, client_new_array(m, &vector_type, n));
                for (size_t i = 0; i < n; i++) {
                    wn_move(m, targets, items[i], client_pair(m, (long)i, NULL, NULL));
                    wn_move(m, refs, items[i], wn_weakref_new(m, targets->items[i], NULL, NULL));
                }
                if (starved) starve(ANY);
                assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
                feed();
                const wn_weak_table *t = &c.heap->weak;
                if (!starved) assert_true(t->used * 4 <= t->size * 3);
                for (size_t i = 0; i < n; i++) assert_int_equal(wn_weakref_count(m, targets->items[i]), 1);
                assert_int_equal(wn_weakref_count(m, refs), 0);
            }
            client_close(&c);
        }
}

/* The search for what finalizers need finds no memory just when it has pushed the first half of what it notes about a
 * long array. */
static void a_search_that_failed_goes_no_further(void **state) {
    (void)state;
    enum { LONG = 5000 };
    unsigned failures = 0;
    for (size_t n = STACK_SEGMENT - 4; n <= STACK_SEGMENT + 2; n++) {
        client c = open_quiet();
        wn_mutator *m = c.m;
        wn_release(m, client_mortal(m, 0, NULL, NULL));
        client_collect(m); /* now there is one segment */
        {
            wn_root(m, mortal *, owner, client_mortal(m, 1, NULL, NULL));
            wn_move(m, owner, a, client_new_array(m, &vector_type, n));
            for (size_t i = 0; i + 1 < n; i++)
                wn_move(m, (vector *)owner->a, items[i], client_pair(m, (long)i, NULL, NULL));
            wn_move(m, (vector *)owner->a, items[n - 1], client_new_array(m, &vector_type, LONG));
        }
        starve(sizeof(stack_segment));
        wn_status status = wn_collect(m, 2, NULL);
        unsigned failed = feed();
        failures += failed;
        assert_int_equal(status, failed ? WN_ERR_MEMORY : WN_OK);
        client_collect(m);
        client_collect(m);
        assert_int_equal(client_finalized[1], 1);
        assert_int_equal(client_released[1], 1);
        client_close(&c);
    }
    assert_true(failures > 0);
}

/* An object that cannot be noted for its finalizer is not made; of each that is, it runs. */
static void what_is_made_is_finalized(void **state) {
    (void)state;
    enum { N = 3 * STACK_SEGMENT };
    client c = open_quiet();
    wn_mutator *m = c.m;
    unsigned failed = 0;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        for (long i = 0; i < N; i++) {
            starve(sizeof(stack_segment));
            wn_root(m, mortal *, x, wn_new(m, &mortal_type));
            bool refused_some = feed();
            assert_int_equal(!x, refused_some);
            failed += !x;
            if (!x) wn_take(m, x, client_new(m, &mortal_type));
            x->id = i;
            wn_set(m, all, items[i], x);
        }
        assert_int_equal(failed, N / STACK_SEGMENT);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_FINALIZE), N);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), N);
    client_close(&c);
}

/* No memory to remember that a dead object with a finalizer refers to a young one that had to stay; which moves, or
 * would be taken for dead, before the finalizer is found. */
static void read_a(wn_mutator *m, mortal *self) {
    (void)m;
    client_note(EVENT_OTHER, ((pair *)self->a)->id);
}
static void what_a_finalizer_needs_lives(void **state) {
    (void)state;
    client c = open_quiet();
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    pair *young = NULL;
    assert_int_equal(wn_global(c.heap, &young), WN_OK);
    {
        wn_root(m, mortal *, owner, client_mortal(m, 1, NULL, NULL));
        owner->will = read_a;
        wn_move(m, owner, a, client_pair(m, 7, NULL, NULL));
        wn_assign(m, young, owner->a);
        assert_int_equal(wn_pin(m, young), WN_OK);
    }
    wn_step_result r;
    starve(MALLOC);
    while (inc->phase <= MARKING) assert_int_equal(wn_collect_for(m, 1, &r), WN_OK);
    assert_true(feed() > 0);
    assert_true(inc->phase < SWEEPING && inc->remembered_lost);
    wn_unpin(m, young);
    wn_assign(m, young, NULL);
    assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
    for (int i = 0; i < 100; i++) wn_release(m, client_pair(m, -1, NULL, NULL)); /* in its place, if it is free */
    client_collect(m);
    assert_int_equal(client_finalized[1], 1);
    assert_int_equal(client_when(EVENT_OTHER, 7), 1);
    assert_int_equal(wn_forget_global(m, &young), WN_OK);
    client_close(&c);
}

/* After there was no memory for a remembered set a minor looks at everything: what is frozen stays out of majors all
 * the same, and long arrays are recorded by cards again. */
static void what_was_lost_is_remembered_as_before(void **state) {
    (void)state;
    enum { N = 1000, LONG = 5000, STORES = 1000 };
    client c = open_quiet();
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        for (long i = 0; i < N; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
        wn_root(m, vector *, frozen, client_new_array(m, &vector_type, LONG));
        assert_int_equal(wn_freeze(m), WN_OK);
        wn_move(m, (pair *)all->items[1], a,
                client_pair(m, -3, NULL, NULL)); /* recorded, for nothing as it turns out */
        wn_set(m, (pair *)all->items[1], a, NULL);
        wn_root(m, vector *, array, client_new_array(m, &vector_type, LONG));
        starve(ANY);
        for (int i = 0; i < LONG; i += 16) wn_move(m, array, items[i], client_pair(m, i, NULL, NULL));
        wn_move(m, frozen, items[LONG - 1], client_pair(m, -1, NULL, NULL));
        wn_move(m, (pair *)all->items[0], a, client_pair(m, -2, NULL, NULL));
        assert_true(feed() > 0);
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        assert_int_equal(inc_of(c.heap)->written.n, 2); /* `frozen` and a pair */
        for (int i = 0; i < LONG; i += 16) assert_int_equal(((pair *)array->items[i])->id, i);
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        for (int i = 0; i < STORES; i++) {
            wn_move(m, array, items[i % 8], client_pair(m, i, NULL, NULL));
            wn_move(m, frozen, items[i % 8], client_pair(m, i, NULL, NULL));
        }
        wn_get_stats(c.heap, &after);
        if (!c.heap->options.check) /* else all stores are slow */
            assert_true(after.barrier_slow - before.barrier_slow < STORES / 10);
        wn_move(m, (pair *)all->items[1], a, client_pair(m, -4, NULL, NULL));
        client_collect(m);
        assert_int_equal(wn_verify(m, stderr), 0);
        assert_int_equal(((pair *)((pair *)all->items[1])->a)->id, -4);
        assert_int_equal(((pair *)((pair *)all->items[0])->a)->id, -2);
        assert_int_equal(((pair *)frozen->items[LONG - 1])->id, -1);
        assert_int_equal(((pair *)frozen->items[7])->id, ((pair *)array->items[7])->id);
    }
    client_close(&c);
}

/* Without memory for the place that it would move to, a young object's address is its identity, and it stays there;
 * what dies so is forgotten. */
static void an_address_becomes_an_identity(void **state) {
    (void)state;
    client c = open_quiet();
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    {
        wn_root(m, pair *, x, client_pair(m, 1, NULL, NULL));
        wn_root(m, pair *, y, client_pair(m, 2, NULL, NULL));
        starve(ANY);
        assert_int_equal(wn_identity(m, x), (uintptr_t)x); /* no memory for the table of places */
        assert_int_equal(wn_identity(m, y), (uintptr_t)y);
        assert_true(feed() > 0);
        const pair *before = x;
        for (int i = 0; i < 3; i++) {
            assert_int_equal(wn_collect(m, i == 1 ? 2 : 0, NULL), WN_OK);
            assert_ptr_equal(x, before);
            assert_int_equal(wn_identity(m, x), (uintptr_t)x);
            assert_int_equal(inc->settled, i ? 1 : 2);
            wn_assign(m, y, NULL);
        }
        assert_int_equal(x->id, 1);
    }
    assert_int_equal(wn_collect(c.m, 0, NULL), WN_OK);
    assert_int_equal(inc->settled, 0);
    client_close(&c);
}

/* One store of one kind finds no memory to be recorded, and none of another kind says so for it. */
static void each_loss_is_noted(void **state) {
    (void)state;
    enum { LONG = 5000, ROOM = 16 }; /* the latter is what a remembered set begins with */
    for (int card = 0; card < 2; card++)
        for (size_t taken = 0; taken < ROOM; taken += ROOM - 1) { /* none, or all but one */
            client c = open_quiet();
            wn_mutator *m = c.m;
            {
                wn_root(m, vector *, array, client_new_array(m, &vector_type, LONG));
                wn_root(m, vector *, pairs, client_new_array(m, &vector_type, ROOM + 1));
                for (long i = 0; i <= ROOM; i++) wn_move(m, pairs, items[i], client_pair(m, i, NULL, NULL));
                client_collect(m);
                wn_root(m, vector *, young, client_new_array(m, &vector_type, ROOM + 1));
                for (long i = 0; i <= ROOM; i++) wn_move(m, young, items[i], client_pair(m, i, NULL, NULL));
                for (size_t i = 0; i < taken; i++) wn_set(m, (pair *)pairs->items[i], a, young->items[i]);
                starve(ANY);
                for (size_t i = taken; !card && i <= ROOM; i++) wn_set(m, (pair *)pairs->items[i], a, young->items[i]);
                if (card) wn_set(m, array, items[LONG - 1], young->items[ROOM]);
                assert_true(feed() > 0);
                wn_assign(m, young, NULL);
                assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
                assert_false(inc_of(c.heap)->remembered_lost); /* it has looked at everything, once */
                assert_int_equal(wn_verify(m, stderr), 0);
                if (card) assert_int_equal(((pair *)array->items[LONG - 1])->id, ROOM);
                for (size_t i = 0; i < (card ? taken : ROOM + 1); i++)
                    assert_int_equal(((pair *)((pair *)pairs->items[i])->a)->id, i);
            }
            client_close(&c);
        }
}

/* Objects that have to stay in the nursery, and no memory for the list of where they are. */
static __attribute__((noinline)) void make_and_forget(wn_mutator *m, pair **kept, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 3; k++) client_pair(m, -1, NULL, NULL);
        kept[i] = client_pair(m, (long)i, NULL, NULL);
    }
}
static void what_a_stack_refers_to_is_known(void **state) {
    (void)state;
    enum { N = 500 };
    wn_options o = client_quiet_options();
    o.conservative_stacks = true;
    client c = client_open(&o);
    pair *volatile kept[N];
    make_and_forget(c.m, (pair **)kept, N);
    starve(ANY);
    assert_int_equal(wn_collect(c.m, 0, NULL), WN_OK);
    feed();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wn_collect(c.m, 0, NULL), WN_OK);
        make_and_forget(c.m, (pair *[N]){0}, N);
        for (long k = 0; k < N; k++) {
            assert_true(wn_is_object(c.m, kept[k]));
            assert_int_equal(kept[k]->id, k);
        }
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_frozen_objects_refer_to_lives),
        cmocka_unit_test(what_is_made_after_a_search_that_failed_is_marked),
        cmocka_unit_test(a_remembered_card_is_whole_or_none),
        cmocka_unit_test(a_collection_without_memory_is_an_error),
        cmocka_unit_test(a_major_that_gave_up_waits),
        cmocka_unit_test(what_a_long_array_refers_to_lives),
        cmocka_unit_test(the_table_of_weak_references_is_never_full),
        cmocka_unit_test(a_search_that_failed_goes_no_further),
        cmocka_unit_test(what_is_made_is_finalized),
        cmocka_unit_test(what_a_finalizer_needs_lives),
        cmocka_unit_test(what_was_lost_is_remembered_as_before),
        cmocka_unit_test(an_address_becomes_an_identity),
        cmocka_unit_test(each_loss_is_noted),
        cmocka_unit_test(what_a_stack_refers_to_is_known),
    };
    return CLIENT_MAIN("starved", tests);
}
