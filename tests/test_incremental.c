/* test_incremental.c - what the incremental collector keeps to itself: what is owed, what is noted beside objects. */
#include "client/client.h"

#include "collectors/incremental/incremental.h"

#include <sys/mman.h>
#include <winnow/inspect.h>

/* What lies outside the heap when a major begins has brought it about; only what comes to it later is allocation. */
static void a_major_owes_nothing_for_what_was_before(void **state) {
    (void)state;
    enum { LIVING = 100000, MUCH = 1 << 30 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    {
        wn_root(m, pair *, list, NULL);
        for (long i = 0; i < LIVING; i++) wn_take(m, list, client_pair(m, i, list, NULL));
        wn_collect(m, 0, NULL);
        wn_external(m, list, MUCH);
        wn_collect_for(m, 1, NULL);
        assert_true(is_marking(inc));
        for (size_t i = 0; i < 2 * PIECE / sizeof(pair); i++) wn_release(m, client_pair(m, -1, NULL, NULL));
        assert_true(inc->owed < MUCH);
        assert_true(is_marking(inc));
        wn_external(m, list, MUCH);
        for (size_t i = 0; i < 2 * PIECE / sizeof(pair); i++) wn_release(m, client_pair(m, -1, NULL, NULL));
        assert_true(inc->owed >= MUCH || !is_marking(inc));
        wn_external(m, list, -MUCH);
        wn_external(m, list, -MUCH);
    }
    client_close(&c);
}

/* ---- what is recorded beside objects ------------------------------------------------------------------------------
 */

/* A program that writes, and comes to safepoints, but allocates nothing: what it records is scanned at some of them. */
static void what_is_recorded_is_bounded(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    size_t n = 4 * inc->remembered_max;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
        wn_collect(m, 0, NULL);
        wn_root(m, pair *, young, client_pair(m, -1, NULL, NULL));
        assert_int_equal(wn_pin(m, young), WN_OK); /* so that it stays young */
        uint64_t minors = inc->minors;
        for (size_t i = 0; i < n; i++) {
            wn_set(m, (pair *)all->items[i], a, young);
            wn_poll(m);
            assert_true(remembered_of(wn_mutator_of(m))->n <= inc->remembered_max);
        }
        assert_true(inc->minors >= minors + 3);
        wn_unpin(m, young);
    }
    client_close(&c);
}

/* An array so long that its cards must cover more each, or they would not fit its side table. */
static void cards_of_a_huge_array(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    enum { SOME = 64 };
    size_t n = (size_t)48 << 20;
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, wn_new_array(m, &vector_type, n));
        if (all) { /* else the system has not so many addresses */
            assert_true(wn_inc_card_shift(wn_bytes_of(all)) > WN_CARD_SHIFT_);
            for (int round = 0; round < 2; round++) {
                for (size_t i = 0; i < SOME; i++)
                    wn_move(m, all, items[(n - 1) / (SOME - 1) * i], client_pair(m, (long)i + round, NULL, NULL));
                assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
                for (size_t i = 0; i < SOME; i++) {
                    pair *x = all->items[(n - 1) / (SOME - 1) * i];
                    assert_int_equal(wn_generation(m, x), 2);
                    assert_int_equal(x->id, i + (size_t)round);
                }
            }
            assert_false(is_marked(all)); /* no card lies where mark bits are */
            const uint8_t *meta = wn_meta_(all);
            assert_true(&meta[2 + (wn_bytes_of(all) >> wn_inc_card_shift(wn_bytes_of(all)))] <
                        (const uint8_t *)wn_chunk_of(all) + WN_MARK_TABLE);
        }
    }
    client_close(&c);
}

static uint64_t seed;
static size_t below(size_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(seed >> 33) % n;
}

/* The side-table bytes of the nursery are zero but for young objects that are known to a table, whatever died or moved.
 */
static void check_nursery(client *c, size_t shadows, size_t settled) {
    const incremental *inc = inc_of(c->heap);
    const uint8_t *bytes = wn_meta_(inc->nursery);
    for (size_t i = 0; i < inc->nursery_size >> WN_GRANULE_SHIFT_; i++) {
        if (!bytes[i]) continue;
        void *o = inc->nursery + ((i - 1) << WN_GRANULE_SHIFT_);
        assert_ptr_equal(wn_inc_nursery_object_at((incremental *)inc, o, true), o);
        assert_int_equal(bytes[i] & ~(WN_STATE_WEAK_ | STATE_SHADOWED), 0);
        if (bytes[i] & WN_STATE_WEAK_) assert_non_null(wn_weak_find(c->heap, o));
    }
    assert_int_equal(inc->shadows.n, shadows);
    assert_int_equal(inc->settled, settled);
}

static void the_nursery_is_left_clean(void **state) {
    (void)state;
    enum { N = 50, ROUNDS = 300 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    for (seed = 1; seed <= 5; seed++) {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, N));
        uintptr_t known[N] = {0};
        bool pinned[N] = {false};
        for (int round = 0; round < ROUNDS; round++) {
            for (size_t k = 0; k < 20; k++) {
                size_t i = below(N), what = below(8);
                pair *x = all->items[i];
                if (!x || (what == 0 && !pinned[i])) {
                    wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
                    known[i] = 0;
                } else if (what == 1) {
                    uintptr_t id = wn_identity(m, x);
                    assert_true(!known[i] || known[i] == id);
                    known[i] = id;
                } else if (what == 2) {
                    wn_move(m, refs, items[i], wn_weakref_new(m, x, NULL, NULL));
                } else if (what == 3) {
                    pinned[i] ? wn_unpin(m, x) : (void)wn_pin(m, x);
                    pinned[i] = !pinned[i];
                } else if (what == 4 && !pinned[i]) {
                    wn_set(m, all, items[i], NULL);
                    known[i] = 0;
                }
            }
            assert_int_equal(wn_collect(m, below(10) ? 0 : 2, NULL), WN_OK);
            size_t shadows = 0;
            for (size_t i = 0; i < N; i++) {
                if (!all->items[i]) continue;
                assert_int_equal(wn_generation(m, all->items[i]) == 0,
                                 pinned[i] && wn_generation(m, all->items[i]) == 0);
                if (known[i]) assert_int_equal(wn_identity(m, all->items[i]), known[i]);
                shadows += known[i] && wn_generation(m, all->items[i]) == 0;
            }
            check_nursery(&c, shadows, 0);
        }
        for (size_t i = 0; i < N; i++)
            if (pinned[i]) wn_unpin(m, all->items[i]);
    }
    client_close(&c);
}

/* ---- majors ------------------------------------------------------------------------------------------------------ */

/* What was found dead is freed before the rest is frozen: else it would be frozen while what it refers to is gone. */
static void a_freeze_ends_what_is_decided(void **state) {
    (void)state;
    enum { LIVING = 500, DEAD = 20000 };
    for (phase p = SCANNING; p <= FINALIZING; p++) {
        wn_options o = client_quiet_options();
        client c = client_open(&o);
        wn_mutator *m = c.m;
        const incremental *inc = inc_of(c.heap);
        wn_disable(c.heap);
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, LIVING + DEAD));
            wn_root(m, wn_weakref *, w, wn_weakref_new(m, all, NULL, NULL)); /* so that there is a table to clear */
            for (long i = 0; i < LIVING + DEAD; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
            client_collect(m);
            size_t alive = client_alive(m);
            for (long i = LIVING; i < LIVING + DEAD; i++) wn_set(m, all, items[i], NULL);
            wn_step_result r = {0};
            for (int steps = 0; inc->phase < p && !(steps && r.major_is_done); steps++)
                assert_int_equal(wn_collect_for(m, 1, &r), WN_OK);
            bool decided = inc->phase > MARKING || r.major_is_done;
            assert_int_equal(wn_freeze(m), WN_OK);
            assert_int_equal(inc->phase, IDLE);
            assert_int_equal(wn_frozen_count(c.heap), alive - (decided ? DEAD : 0));
            assert_int_equal(wn_unfreeze(m), WN_OK);
            client_collect(m);
            assert_int_equal(client_alive(m), alive - DEAD);
        }
        client_close(&c);
    }
}

/* A frozen object that is written over and over is on the list of those once, in a long array's case too. */
static void what_is_written_is_listed_once(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    {
        wn_root(m, pair *, x, client_pair(m, 1, NULL, NULL));
        wn_root(m, vector *, array, client_new_array(m, &vector_type, 5000));
        assert_int_equal(wn_freeze(m), WN_OK);
        for (long i = 0; i < 10; i++) {
            wn_move(m, x, a, client_pair(m, i, NULL, NULL));
            wn_move(m, array, items[i * 100], client_pair(m, i, NULL, NULL));
            assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
            assert_int_equal(inc->written.n, 2);
        }
        for (int again = 0; again < 2; again++) { /* and after an unfreeze it is on none */
            assert_int_equal(wn_unfreeze(m), WN_OK);
            assert_int_equal(inc->written.n, 0);
            assert_int_equal(wn_freeze(m), WN_OK);
            wn_move(m, x, a, client_pair(m, again, NULL, NULL));
            client_collect(m);
            assert_int_equal(inc->written.n, 1);
            assert_int_equal(((pair *)x->a)->id, again);
        }
        assert_int_equal(wn_unfreeze(m), WN_OK);
        assert_int_equal(m->mode, wn_inc_barrier_mode(inc));
    }
    client_close(&c);
}

/* A pin keeps its object, young or old, and what that refers to. */
static void a_pin_keeps_its_object(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    for (int old = 0; old < 2; old++) {
        client_forget();
        pair *pinned;
        {
            wn_root(m, pair *, x, client_pair(m, 7, NULL, NULL));
            wn_move(m, x, a, client_relic(m, 1, NULL, NULL));
            if (old) wn_collect(m, 0, NULL);
            assert_int_equal(wn_generation(m, x), old ? 2 : 0);
            assert_int_equal(wn_pin(m, x), WN_OK);
            pinned = x;
        }
        for (int i = 0; i < 3; i++) client_collect(m);
        assert_int_equal(client_released[1], 0);
        assert_int_equal(pinned->id, 7);
        assert_int_equal(((mortal *)pinned->a)->id, 1);
        wn_unpin(m, pinned);
        client_collect(m);
        assert_int_equal(client_released[1], 1);
    }
    client_close(&c);
}

/* Long arrays with nothing in them but at the end: marking finds nothing grey for a while, and is not done. */
static void a_long_array_is_marked_to_its_end(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    for (size_t n = 1000; n < 100000; n += n / 4) {
        client_forget();
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        wn_move(m, all, items[n - 1], client_relic(m, 1, NULL, NULL));
        wn_step_result r;
        do {
            assert_int_equal(wn_collect_for(m, 1, &r), WN_OK);
            assert_int_equal(m->mode, wn_inc_barrier_mode(inc_of(c.heap)));
        } while (!r.major_is_done);
        assert_int_equal(client_released[1], 0);
        client_collect(m);
        assert_int_equal(client_released[1], 0);
        wn_take(m, all, NULL);
        client_collect(m);
        assert_int_equal(client_released[1], 1);
    }
    client_close(&c);
}

/* What is remembered because a young object stays in it dies, and its memory goes back to the system. */
static void what_is_remembered_may_die(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    for (size_t n = 5000; n <= (size_t)8 << 20; n *= 40) { /* the last one has a mapping of its own */
        wn_root(m, pair *, young, client_pair(m, 1, NULL, NULL));
        assert_int_equal(wn_pin(m, young), WN_OK);
        {
            wn_root(m, vector *, array, client_new_array(m, &vector_type, n));
            wn_set(m, array, items[n - 1], young);
            wn_collect(m, 0, NULL);
            assert_true(inc_of(c.heap)->kept.n > 0);
        }
        client_collect(m);
        for (int i = 0; i < 2; i++) assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        assert_int_equal(inc_of(c.heap)->kept.n, 0);
        wn_unpin(m, young);
    }
    client_close(&c);
}

/* That a freeze keeps all that is young, garbage too, does not count as survival. */
static void what_a_freeze_keeps_is_not_judged(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    o.pretenure = 85;
    o.nursery = 4 << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    for (size_t made = 0; made < inc->window - 2 * PIECE; made += sizeof(pair))
        wn_release(m, client_pair(m, 1, NULL, NULL));
    assert_int_equal(inc->minors, 0);
    assert_int_equal(wn_freeze(m), WN_OK);
    assert_true(wn_frozen_count(c.heap) * sizeof(pair) > inc->window / 2);
    assert_int_equal(wn_unfreeze(m), WN_OK);
    for (size_t made = 0; made < 2 * PIECE; made += sizeof(pair)) wn_release(m, client_pair(m, 1, NULL, NULL));
    assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
    assert_int_equal(inc->born_old, 0);
    client_close(&c);
}

/* A weak reference that was found dead, but is still there, does not call back when its target dies. */
static void call(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m, (void)ref, (void)data;
    client_note(EVENT_CALLBACK, 1);
}
static void what_is_found_dead_does_not_call_back(void **state) {
    (void)state;
    for (phase p = ENDING; p <= SWEEPING; p++) {
        wn_options o = client_quiet_options();
        client c = client_open(&o);
        wn_mutator *m = c.m;
        const incremental *inc = inc_of(c.heap);
        wn_disable(c.heap);
        {
            wn_root(m, pair *, target, client_pair(m, 1, NULL, NULL));
            assert_int_equal(wn_pin(m, target), WN_OK); /* so that it is young at the end of marking */
            const wn_weakref *r;
            {
                wn_root(m, wn_weakref *, w, wn_weakref_new(m, target, call, NULL));
                client_collect(m);
                r = w;
            }
            while (inc->phase < p) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
            assert_true(is_found_dead(inc, r));
            wn_unpin(m, target);
            wn_take(m, target, NULL);
            assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
            client_collect(m);
            assert_int_equal(client_total(EVENT_CALLBACK), 0);
        }
        client_close(&c);
    }
}

/* What is black is given a value that the marker has not come to, and which nothing else leads to afterwards. */
static void what_is_black_keeps_what_it_is_given(void **state) {
    (void)state;
    enum { LONG = 50000, ITEMS = 5000, PAIR_OLD_KEY = 0, PAIR_YOUNG_KEY, ARRAY, ARRAY_HEAD, KINDS };
    typedef struct table {
        wn_object head;
        size_t length;
        void *first, *at[];
    } table;
    static const wn_type table_type = WN_TYPE(table, WN_REFS(table, first), WN_ITEMS(table, length, at));
    for (int kind = 0; kind < KINDS; kind++) {
        wn_options o = client_quiet_options();
        client c = client_open(&o);
        wn_mutator *m = c.m;
        const incremental *inc = inc_of(c.heap);
        wn_disable(c.heap);
        {
            wn_root(m, pair *, list, client_relic(m, 1, NULL, NULL));
            for (long i = 0; i < LONG; i++) wn_take(m, list, client_pair(m, i, list, NULL));
            wn_root(m, pair *, key, client_pair(m, -1, NULL, NULL));
            client_collect(m);
            while (inc->phase != MARKING) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
            for (int i = 0; i < 3; i++) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK); /* the key is scanned */
            assert_true(is_marked(key));
            if (kind == PAIR_YOUNG_KEY) wn_take(m, key, client_pair(m, -2, NULL, NULL));
            wn_root(m, wn_ephemeron *, e, wn_ephemeron_new(m, key, NULL));
            wn_root(m, table *, t, client_new_array(m, &table_type, ITEMS));
            assert_true(is_marked(e) && is_marked(t));
            {
                wn_borrow(m, pair *, last, list);
                while (((wn_object *)last->a)->type == &pair_type) last = last->a;
                assert_false(is_marked(last->a));
                if (kind == ARRAY)
                    wn_set(m, t, at[ITEMS - 1], last->a);
                else if (kind == ARRAY_HEAD)
                    wn_set(m, t, first, last->a);
                else
                    wn_ephemeron_set(m, e, last->a);
                wn_set(m, last, a, NULL);
            }
            while (inc->phase != IDLE) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
            assert_int_equal(client_released[1], 0);
            wn_root(m, mortal *, value, kind < ARRAY ? wn_ephemeron_value(m, e) : NULL);
            if (kind >= ARRAY) wn_assign(m, value, kind == ARRAY ? t->at[ITEMS - 1] : t->first);
            assert_int_equal(value->id, 1);
        }
        client_close(&c);
    }
}

/* ---- the table of weak references ---------------------------------------------------------------------------------
 */

static void *place; /* a mapping of so many bytes that, once it is given back, is handed out again next */
static size_t place_bytes;
static bool place_is_free;
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __wrap_munmap(void *at, size_t bytes);

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    if (!place_is_free || bytes != place_bytes) return __real_mmap(at, bytes, protection, flags, file, offset);
    place_is_free = false;
    return memset(place, 0, bytes);
}
int __wrap_munmap(void *at, size_t bytes) {
    if (!place || at != place || bytes != place_bytes) return __real_munmap(at, bytes);
    place_is_free = true;
    return 0;
}

/* While a major clears weak references step by step, the table is replaced, and the new one by one where the first was:
 * what it holds has not been looked at. */
static void a_table_where_another_was(void **state) {
    (void)state;
    enum { DEAD = 16000, CHURN = 1000, ROUNDS = 200 };
    wn_options o = client_quiet_options();
    o.check = true; /* addresses in the nursery are not used again soon, so deleted entries fill the table */
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    const wn_weak_table *t = &c.heap->weak;
    wn_disable(c.heap); /* only the steps asked for */
    {
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, DEAD));
        {
            wn_root(m, vector *, targets, client_new_array(m, &vector_type, DEAD));
            for (size_t i = 0; i < DEAD; i++) wn_move(m, targets, items[i], client_pair(m, (long)i, NULL, NULL));
            client_collect(m);
            for (size_t i = 0; i < DEAD; i++)
                wn_move(m, refs, items[i], wn_weakref_new(m, targets->items[i], NULL, NULL));
        }
        while (inc->phase < ENDING || inc->weak_at < t->size / 4) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
        assert_int_equal(inc->phase, ENDING);
        assert_true(t->live > DEAD / 2);
        const void *first = t->entry;
        place = t->entry;
        place_bytes = t->size * sizeof *t->entry;
        uint64_t before = t->replaced;
        for (int round = 0; t->replaced == before || t->entry != first; round++) {
            assert_true(round < ROUNDS);
            for (int i = 0; i < CHURN; i++) {
                wn_root(m, pair *, target, client_pair(m, -1, NULL, NULL));
                wn_release(m, wn_weakref_new(m, target, NULL, NULL));
            }
            assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        }
        place = NULL;
        while (inc->phase != IDLE) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
        for (size_t i = 0; i < DEAD; i++) assert_null(wn_weakref_get(m, refs->items[i]));
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_major_owes_nothing_for_what_was_before),
        cmocka_unit_test(what_is_recorded_is_bounded),
        cmocka_unit_test(cards_of_a_huge_array),
        cmocka_unit_test(the_nursery_is_left_clean),
        cmocka_unit_test(a_freeze_ends_what_is_decided),
        cmocka_unit_test(a_pin_keeps_its_object),
        cmocka_unit_test(a_long_array_is_marked_to_its_end),
        cmocka_unit_test(what_is_remembered_may_die),
        cmocka_unit_test(what_a_freeze_keeps_is_not_judged),
        cmocka_unit_test(what_is_found_dead_does_not_call_back),
        cmocka_unit_test(what_is_written_is_listed_once),
        cmocka_unit_test(what_is_black_keeps_what_it_is_given),
        cmocka_unit_test(a_table_where_another_was),
    };
    return CLIENT_MAIN("incremental", tests);
}
