/* test_incremental.c - what the incremental collector keeps to itself: what is owed, what is noted beside objects. */
#include "client/client.h"

#include "collectors/incremental/incremental.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
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
    for (uint64_t run = 1; run <= 5; run++) {
        seed = run;
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
        const uint8_t *side;
        size_t bytes;
        {
            wn_root(m, vector *, array, client_new_array(m, &vector_type, n));
            wn_set(m, array, items[n - 1], young);
            wn_collect(m, 0, NULL);
            assert_true(inc_of(c.heap)->kept.n > 0);
            side = wn_meta_(array);
            bytes = wn_bytes_of(array);
        }
        bool is_huge = bytes >= WN_HUGE_MIN; /* then its side table goes with it */
        client_collect(m);
        assert_null(c.heap->space.leaving);
        if (!is_huge)
            for (size_t i = 0; i < bytes >> WN_GRANULE_SHIFT_; i++) assert_int_equal(side[i], 0); /* no card is left */
        for (int i = 0; i < 2; i++) assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        assert_int_equal(inc_of(c.heap)->kept.n, 0);
        wn_unpin(m, young);
    }
    client_close(&c);
}

/* What is remembered and lives is remembered when a major is over, a pair as well as a part of a long array; what has
 * died is forgotten from among them. */
static void what_is_remembered_may_live(void **state) {
    (void)state;
    enum { LONG = 5000 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    wn_disable(c.heap);
    {
        wn_root(m, vector *, array, client_new_array(m, &vector_type, LONG));
        wn_root(m, pair *, holder, client_pair(m, 1, NULL, NULL));
        wn_root(m, pair *, dead, NULL);
        client_collect(m);
        for (int i = 0; i < 2; i++) {
            wn_take(m, dead, client_pair(m, i, NULL, NULL));
            wn_collect(m, 0, NULL);
            wn_move(m, dead, a, client_pair(m, i, NULL, NULL)); /* its entry comes before the array's */
            assert_int_equal(wn_pin(m, dead->a), WN_OK);
            wn_set(m, array, items[i * 1000], dead->a);
        }
        wn_take(m, dead, NULL);
        wn_set(m, holder, a, array->items[0]);
        wn_step_result r;
        do {
            assert_int_equal(wn_collect_for(m, 1, &r), WN_OK);
            if (inc->phase == ENDING) assert_int_equal(inc->kept.n, 7);
            if (inc->phase > RESURRECTING) assert_int_equal(inc->kept.n, 5);
        } while (!r.major_is_done);
        for (int i = 0; i < 2; i++) wn_unpin(m, array->items[i * 1000]);
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(wn_generation(m, array->items[i * 1000]), 2);
            assert_int_equal(((pair *)array->items[i * 1000])->id, i);
        }
        assert_ptr_equal(holder->a, array->items[0]);
        assert_int_equal(inc->kept.n, 0);
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
    incremental *inc = inc_of(c.heap);
    inc->window = 16 * PIECE;
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

/* ---- which objects are born old -----------------------------------------------------------------------------------
 */

/* The judgement beside the rule of the design note, class by class, minor by minor. */
static void classes_are_judged(void **state) {
    (void)state;
    enum { ENOUGH = 256 << 10, CLASSES = 5, PERCENT = 85, STEPS = 20000 };
    wn_options o = client_quiet_options();
    o.pretenure = PERCENT;
    o.nursery = 1 << 20;
    client c = client_open(&o);
    incremental *inc = inc_of(c.heap);
    size_t least = 2 * inc->nursery_size, most = 32 * inc->nursery_size, quota = 0, doublings = 0, disproofs = 0;
    uint64_t old = 0, believed = 0; /* born old now; and found to last when they were judged last */
    ptrdiff_t left = 0;
    unsigned dies = 0; /* the classes that mostly do, now */
    seed = 1;
    for (int step = 0; step < STEPS; step++) {
        uint64_t lasts = 0, does_not = 0;
        for (unsigned cls = 1; cls < CLASSES; cls++) {
            tenure *t = &inc->seen[cls];
            if (old >> cls & 1) continue; /* there are none in the nursery */
            size_t born = below(100 << 10);
            if (!below(30)) dies ^= 1u << cls;
            t->born += born;
            t->survived += dies >> cls & 1 ? born / 3 : born - below(born / 8 + 1);
            if (t->born < ENOUGH) continue;
            if (!below(10)) *t = (tenure){.born = 100 * ENOUGH, .survived = PERCENT * ENOUGH}; /* just so many */
            *(t->survived * 100 >= t->born * PERCENT ? &lasts : &does_not) |= (uint64_t)1 << cls;
        }
        wn_inc_tenure_judge(inc);
        if (believed & does_not) {
            quota = 0;
            disproofs++;
        }
        believed = (believed | lasts) & ~does_not;
        if (lasts && !old) {
            doublings += quota != 0;
            quota = !quota ? least : 2 * quota < most ? 2 * quota : most;
            left = (ptrdiff_t)quota;
        }
        old |= lasts;
        assert_int_equal(inc->born_old, old);
        for (unsigned cls = 1; cls < CLASSES; cls++) {
            if ((lasts | does_not) >> cls & 1) assert_int_equal(inc->seen[cls].born + inc->seen[cls].survived, 0);
            assert_int_equal(wn_inc_tenure_is_born_old(inc, cls), old >> cls & 1);
            if (old >> cls & 1) assert_ptr_equal(c.m->from[cls], &c.m->buffer[cls]);
        }
        if (!old) continue;
        assert_int_equal(inc->born_old_left, left);
        size_t spent = below(least / 2);
        wn_inc_tenure_spend(inc, spent);
        left -= (ptrdiff_t)spent;
        if (left <= 0) old = 0;
        assert_int_equal(inc->born_old, old);
        if (below(200)) continue;
        wn_inc_tenure_end(inc);
        old = 0;
    }
    assert_true(doublings > 20 && disproofs > 20);
    client_close(&c);
}

/* What a minor has seen is what was made since the last one, and of that what survived, pinned objects too; but it says
 * nothing when little was made. */
static void drop_leaves(wn_mutator *m, size_t n) {
    while (n--) wn_release(m, client_new(m, &leaf_type));
}
static void what_was_made_is_counted(void **state) {
    (void)state;
    enum { PAIRS = 6000, LEAVES = 1500, FEW = 100 };
    wn_options o = client_quiet_options();
    o.pretenure = 85;
    o.nursery = 4 << 20;
    o.pause_budget_ns = 10000000000; /* no minors but those asked for, however slow the machine is today */
    client c = client_open(&o);
    wn_mutator *m = c.m;
    incremental *inc = inc_of(c.heap);
    inc->window = 16 * PIECE;
    size_t pair_slot = wn_slot_size_(sizeof(pair)), leaf_slot = wn_slot_size_(sizeof(leaf)), kept = 0;
    const tenure *pairs = &inc->seen[wn_class_of_slot_(pair_slot)], *leaves = &inc->seen[wn_class_of_slot_(leaf_slot)];
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, PAIRS));
        for (size_t i = 0; i < PAIRS; i++) {
            wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
            if (i % 100 == 1) assert_int_equal(wn_pin(m, p), WN_OK);
            if (i % 100 != 1 && i % 3) continue;
            wn_set(m, all, items[i], p);
            kept++;
        }
        drop_leaves(m, LEAVES);
        size_t dropped = LEAVES, more = PIECE * 2 / leaf_slot + 1;
        for (int round = 0; round < 3; round++) {
            assert_int_equal(inc->minors, round);
            assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
            assert_int_equal(pairs->born, PAIRS * pair_slot);
            assert_int_equal(pairs->survived, kept * pair_slot);
            assert_int_equal(leaves->born, dropped * leaf_slot);
            assert_int_equal(leaves->survived, 0);
            drop_leaves(m, round ? FEW : more); /* the few are too few */
            if (!round) dropped += more;
        }
        for (size_t i = 1; i < PAIRS; i += 100) wn_unpin(m, all->items[i]);
    }
    client_close(&c);
}

/* When many pieces have been looked at one of sixteen stands for all: a habit is found out as soon as before. */
static void a_sample_stands_for_all(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    o.pretenure = 85;
    o.nursery = 256 << 10;
    o.pause_budget_ns = 10000000000; /* the nursery is used whole */
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    while (inc->pieces_seen < 300) drop_leaves(m, 100);
    assert_int_equal(inc->born_old, 0);
    {
        size_t made = 0;
        wn_root(m, pair *, list, NULL);
        for (; !inc->born_old; made++) {
            assert_true(made * sizeof(pair) < 2 << 20);
            wn_take(m, list, client_pair(m, 1, list, NULL));
        }
        assert_true(made * sizeof(pair) > 64 << 10);
    }
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

/* ---- when the next major begins -----------------------------------------------------------------------------------
 */

static double least_of(double a, double b) { return a < b ? a : b; }
static double most_of(double a, double b) { return a > b ? a : b; }

/* The rule of the design note: for what lives, what is in use now, and the threshold before. */
static double threshold_for(const wn_options *o, size_t nursery, double lives, double now, double before) {
    double t =
        least_of(least_of(lives * o->major_factor, lives + (double)o->max_delta), o->growth * most_of(lives, before));
    t = most_of(t, (double)o->min_heap);
    if (!o->heap_limit) return most_of(t, now + (double)nursery);
    double room = (double)o->heap_limit * 12 / 13 - (double)nursery;
    t = least_of(t, lives < room ? lives + (room - lives) / 2 : lives);
    return most_of(t, least_of(now + (double)nursery, now < room ? now + (room - now) / 2 : now));
}

static void assert_near(double a, double b) {
    if (a > b + 2 || a < b - 2) fail_msg("%.0f is not %.0f", a, b);
}

static void the_threshold_follows_what_lives(void **state) {
    (void)state;
    enum { MOST = 200, BLOB = 100 << 10, HEAPS = 40, ROUNDS = 12 };
    for (uint64_t run = 1; run <= HEAPS; run++) {
        seed = run;
        wn_options o = wn_options_default();
        o.collector = WN_COLLECTOR_INCREMENTAL;
        o.nursery = 256 << 10;
        o.min_heap = below(4) ? 1 << 20 : 64 << 20;
        o.major_factor = below(2) ? 1.3 : 4;
        o.growth = below(2) ? 1.2 : 10;
        o.max_delta = below(2) ? 1 << 20 : (size_t)1 << 40;
        o.heap_limit = below(2) ? (size_t)96 << 20 : 0;
        client c = client_open(&o);
        wn_mutator *m = c.m;
        const incremental *inc = inc_of(c.heap);
        const wn_options *given = &c.heap->options; /* the container may have a limit */
        wn_disable(c.heap);
        double room = (double)given->heap_limit * 12 / 13 - (double)inc->nursery_size;
        assert_near((double)inc->threshold,
                    given->heap_limit ? least_of((double)o.min_heap, room / 2) : (double)o.min_heap);
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, MOST));
            for (int round = 0; round < ROUNDS; round++) {
                for (size_t i = below(MOST), n = below(MOST); n; n--, i = (i + 1) % MOST)
                    if (below(2))
                        wn_set(m, all, items[i], NULL);
                    else
                        wn_move(m, all, items[i], client_new_array(m, &blob_type, BLOB));
                size_t outside = below(2) * below(8 << 20);
                wn_external(m, all, (ptrdiff_t)outside);
                double before = (double)inc->threshold;
                assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
                size_t blocks = c.heap->space.block_bytes;
                wn_step_result r;
                do assert_int_equal(wn_collect_step(m, &r), WN_OK);
                while (r.after != WN_PHASE_SWEEPING && !r.major_is_done);
                assert_true(c.heap->space.expected >= blocks); /* what is swept may be needed again */
                /* What comes while it is swept does not count as living; it counts as used. */
                size_t new = r.major_is_done ? 0 : below(20);
                for (size_t i = 0; i < new; i++) wn_move(m, all, items[i], client_new_array(m, &blob_type, BLOB));
                while (!r.major_is_done) assert_int_equal(wn_collect_step(m, &r), WN_OK);
                double now = (double)wn_inc_major_used(inc);
                double blob = (double)((BLOB + sizeof(blob) + 4095) & ~(size_t)4095);
                assert_near((double)inc->threshold,
                            threshold_for(given, inc->nursery_size, now - blob * (double)new, now, before));
                assert_near((double)c.heap->space.expected,
                            most_of((double)(inc->threshold + inc->nursery_size), (double)blocks));
                wn_external(m, all, -(ptrdiff_t)outside);
            }
        }
        client_close(&c);
    }
}

/* The list of objects with finalizers gets shorter when they have been finalized, wherever those are that live. */
static void the_list_of_finalizable_is_let_go(void **state) {
    (void)state;
    enum { SEGMENTS = 6, N = SEGMENTS * STACK_SEGMENT };
    static const size_t at[] = {STACK_SEGMENT / 2, 3 * STACK_SEGMENT + 1};
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    {
        wn_root(m, pair *, living, client_pair(m, 0, NULL, NULL));
        for (long round = 0; round < 3; round++) {
            client_forget();
            for (size_t i = 0; i < N; i++) {
                wn_root(m, mortal *, x, client_mortal(m, (long)i, NULL, NULL));
                if (i == at[0]) wn_set(m, living, a, x);
                if (i == at[1]) wn_set(m, living, b, x);
            }
            for (int i = 0; i < 2; i++) client_collect(m);
            assert_int_equal(client_total(EVENT_FINALIZE), N - 2);
            assert_int_equal(inc->finalizable.n, 3 * STACK_SEGMENT); /* theirs, and the one that is being filled */
            wn_set(m, living, a, NULL);
            wn_set(m, living, b, NULL);
            for (int i = 0; i < 2; i++) client_collect(m);
            assert_int_equal(client_total(EVENT_FINALIZE), N);
            assert_int_equal(client_total(EVENT_RELEASE), N);
            assert_int_equal(inc->finalizable.n, STACK_SEGMENT);
        }
    }
    client_close(&c);
}

/* A full collection begins marking anew: a long array that was half marked, and is garbage now, keeps nothing. */
static void what_was_begun_is_forgotten(void **state) {
    (void)state;
    enum { LONG = 300000, RELICS = 100 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    wn_disable(c.heap);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, LONG));
        for (long i = 1; i <= RELICS; i++) wn_move(m, all, items[LONG - i], client_relic(m, i, NULL, NULL));
        client_collect(m);
        while (!inc->slices.n) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
        assert_int_equal(inc->phase, MARKING);
        wn_take(m, all, NULL);
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), RELICS);
        assert_int_equal(inc->slices.n, 0);
    }
    client_close(&c);
}

/* While the old space is swept a minor has to look at all of it, and what is dead there refers to what is gone. */
static void what_dangles_is_not_looked_at(void **state) {
    (void)state;
    enum { FILLERS = 100000 };
    wn_options o = client_quiet_options();
    o.check = false; /* else addresses in the nursery are not used again soon */
    client c = client_open(&o);
    if (c.heap->options.check) { /* the environment asks for it */
        client_close(&c);
        skip();
    }
    wn_mutator *m = c.m;
    incremental *inc = inc_of(c.heap);
    wn_disable(c.heap);
    {
        wn_root(m, vector *, fillers, client_new_array(m, &vector_type, FILLERS)); /* to be swept before */
        for (long i = 0; i < FILLERS; i++) wn_move(m, fillers, items[i], client_pair(m, i, NULL, NULL));
        wn_root(m, pair *, young, NULL);
        const pair *dead;
        {
            wn_root(m, pair *, holder, client_pair(m, 1, NULL, NULL));
            client_collect(m);
            wn_take(m, young, client_pair(m, 2, NULL, NULL));
            assert_int_equal(wn_pin(m, young), WN_OK);
            wn_set(m, holder, a, young);
            dead = holder;
        }
        while (inc->phase != SWEEPING) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
        assert_true(is_found_dead(inc, dead));
        assert_ptr_equal(dead->a, young);
        wn_unpin(m, young);
        wn_take(m, young, NULL);
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, pair *, other, client_pair(m, 3, NULL, NULL));
            assert_ptr_equal(other, dead->a); /* it has its place */
            wn_take(m, w, wn_weakref_new(m, other, NULL, NULL));
        }
        assert_true(is_found_dead(inc, dead));
        inc->remembered_lost = true;
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        assert_null(wn_weakref_get(m, w));
    }
    client_close(&c);
}

/* ---- what is told -------------------------------------------------------------------------------------------------
 */

typedef struct told {
    unsigned starts, stops;
    wn_event stop; /* the last one */
} told;
static void note_turns(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    told *t = data;
    t->starts += event->kind == WN_EVENT_COLLECT_START;
    if (event->kind != WN_EVENT_COLLECT_STOP) return;
    t->stops++;
    t->stop = *event;
}

/* A major that a full collection begins anew is one; one that a freeze ends has freed nothing, whatever the one before
 * has; and each says at its end how many young objects are pinned. */
static void each_major_is_told_once(void **state) {
    (void)state;
    enum { LONG = 100000, DEAD = 1000, PINNED = 3 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    told t = {0};
    wn_disable(c.heap);
    assert_int_equal(wn_add_listener(c.heap, note_turns, &t), WN_OK);
    {
        wn_root(m, pair *, list, NULL);
        for (long i = 0; i < LONG; i++) wn_take(m, list, client_pair(m, i, list, NULL));
        for (int with = 0; with < 2; with++) {
            for (int way = 0; way < 2; way++) {
                {
                    wn_root(m, vector *, dead, client_new_array(m, &vector_type, DEAD));
                    for (long i = 0; i < DEAD; i++) wn_move(m, dead, items[i], client_pair(m, i, NULL, NULL));
                    wn_collect(m, 0, NULL);
                }
                client_collect(m);
                assert_int_equal(t.stop.result.collected, DEAD + 1);
                assert_int_equal(t.stop.pinned, 0);
                wn_root(m, vector *, pinned, client_new_array(m, &vector_type, PINNED));
                for (long i = 0; i < with * PINNED; i++) {
                    wn_move(m, pinned, items[i], client_pair(m, i, NULL, NULL));
                    assert_int_equal(wn_pin(m, pinned->items[i]), WN_OK);
                }
                t = (told){0};
                while (inc->phase != MARKING) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
                if (way) {
                    assert_int_equal(wn_freeze(m), WN_OK);
                    assert_int_equal(wn_unfreeze(m), WN_OK);
                    wn_poll(m);
                    wn_collect(m, 0, NULL);
                } else {
                    client_collect(m);
                }
                assert_int_equal(t.starts, 1);
                assert_int_equal(t.stops, 1);
                assert_int_equal(t.stop.result.collected, 0);
                assert_int_equal(t.stop.result.freed_bytes, 0);
                assert_int_equal(t.stop.pinned, with * PINNED);
                for (long i = 0; i < with * PINNED; i++) wn_unpin(m, pinned->items[i]);
                wn_take(m, pinned, NULL);
                client_collect(m);
            }
        }
    }
    assert_int_equal(wn_remove_listener(c.heap, note_turns, &t), WN_OK);
    client_close(&c);
}

/* Who hears of the start first makes so many objects that a major would be over: the others hear of its start before
 * its end all the same. */
static void make_many(wn_mutator *m, const wn_event *event, void *data) {
    (void)data;
    for (long i = 0; event->kind == WN_EVENT_COLLECT_START && i < 100000; i++)
        wn_release(m, client_pair(m, i, NULL, NULL));
}
static void note_order(wn_mutator *m, const wn_event *event, void *data) {
    note_turns(m, event, data);
    const told *t = data;
    assert_in_range(t->starts, t->stops, t->stops + 1);
}
static void a_start_is_told_before_its_end(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    o.min_heap = 1 << 20;
    o.nursery = 256 << 10;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    told t = {0};
    assert_int_equal(wn_add_listener(c.heap, make_many, NULL), WN_OK);
    assert_int_equal(wn_add_listener(c.heap, note_order, &t), WN_OK);
    while (t.stops < 3) wn_release(m, client_new_array(m, &blob_type, 20000));
    assert_int_equal(wn_remove_listener(c.heap, make_many, NULL), WN_OK);
    assert_int_equal(wn_remove_listener(c.heap, note_order, &t), WN_OK);
    client_close(&c);
}

/* ---- how long a stop is: by what it does, not by the clock ---------------------------------------------------------
 */

static size_t marked_of(const pair *list) {
    size_t n = 0;
    for (; list; list = list->a) n += is_marked(list);
    return n;
}

/* A step ends when what is owed is paid, and what a long list owes is not paid by one. */
static void a_step_ends_when_it_has_paid(void **state) {
    (void)state;
    enum { LONG = 100000, PAID = 64 << 10 };
    wn_options o = client_quiet_options();
    o.step_bytes = PAID;
    o.pause_budget_ns = 10000000000;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    wn_disable(c.heap);
    {
        wn_root(m, pair *, list, NULL);
        for (long i = 0; i < LONG; i++) wn_take(m, list, client_pair(m, i, list, NULL));
        client_collect(m);
        for (size_t before = 0, steps = 0; steps < 20; steps++) {
            assert_int_equal(wn_collect_step(m, NULL), WN_OK);
            size_t now = marked_of(list);
            if (steps) assert_in_range(now - before, 1000, PAID / 48 + 2048); /* 48 bytes are paid for each */
            before = now;
        }
        assert_int_equal(inc->phase, MARKING);
    }
    client_close(&c);
}

/* An object with a place of its own in the nursery owes for that place, not for a whole piece. */
static void what_is_owed_is_what_was_taken(void **state) {
    (void)state;
    enum { N = 10, ITEMS = 600 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    wn_disable(c.heap);
    while (!wn_inc_major_waits_for_minor(inc)) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
    wn_enable(c.heap);
    size_t slot = wn_slot_size_(sizeof(vector) + ITEMS * sizeof(void *)), before = inc->owed;
    assert_true(slot > ALONE_FROM);
    for (int i = 0; i < N; i++) wn_release(m, client_new_array(m, &vector_type, ITEMS));
    assert_int_equal(inc->phase, MARKING);
    assert_int_equal(inc->owed - before, (size_t)(N * (double)slot * inc->ratio));
    client_close(&c);
}

/* Roots that lead to more than fits the time put the end of marking off. */
static void the_end_of_marking_may_be_put_off(void **state) {
    (void)state;
    enum { LONG = 100000 };
    wn_options o = client_quiet_options();
    o.pause_budget_ns = 10000; /* the list takes longer than half of that on any machine */
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    wn_disable(c.heap);
    {
        wn_root(m, pair *, list, NULL);
        for (long i = 0; i < LONG; i++) wn_take(m, list, client_pair(m, i, list, NULL));
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, list, NULL, NULL));
        client_collect(m);
        wn_take(m, list, NULL);
        while (!wn_inc_major_waits_for_minor(inc)) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
        wn_take(m, list, wn_weakref_get(m, w));
        assert_int_equal(marked_of(list), 0);
        wn_enable(c.heap);
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        assert_int_equal(inc->phase, MARKING);
        assert_in_range(marked_of(list), 1, LONG / 2);
        while (inc->phase != IDLE) assert_int_equal(wn_collect_for(m, 1, NULL), WN_OK);
        long n = 0;
        for (const pair *p = list; p; p = p->a) n++;
        assert_int_equal(n, LONG);
    }
    client_close(&c);
}

/* ---- freezing -----------------------------------------------------------------------------------------------------
 */

static bool is_all_frozen(const wn_block *b) {
    if (b->state != WN_BLOCK_SMALL || b->used != b->slots) return false;
    size_t g = 0;
    for (const void *o; (o = wn_block_next(b, &g));)
        if (!is_frozen(o)) return false;
    return true;
}

/* Forbids writing, or allows it again, to the pages of a side table that serve none but frozen objects; a block has so
 * many bytes of it. Returns how many pages those are. */
static size_t protect(wn_heap *heap, size_t table, size_t bytes, int protection) {
    size_t page = wn_os_page_size(), each = page / bytes, n = 0;
    for (wn_chunk *chunk = heap->space.chunks; chunk && each; chunk = chunk->next)
        for (size_t first = (WN_FIRST_BLOCK + each - 1) / each * each; !chunk->huge && first + each <= chunk->end;
             first += each) {
            bool all = true;
            for (size_t i = first; i < first + each; i++) all = all && is_all_frozen(&chunk->block[i]);
            if (!all) continue;
            assert_int_equal(mprotect((char *)chunk + table + first * bytes, page, protection), 0);
            n++;
        }
    return n;
}

/* Neither marking nor sweeping writes to the tables of what is frozen, or a forked child would have pages of its own.
 */
static void what_is_frozen_is_not_written_to(void **state) {
    (void)state;
    enum { N = 100000 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        for (long i = 0; i < N; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, all));
        client_collect(m);
        assert_int_equal(wn_freeze(m), WN_OK);
        wn_root(m, pair *, list, NULL);
        for (long i = 0; i < N / 10; i++) wn_take(m, list, client_pair(m, i, all->items[i], NULL));
        enum { BYTES = WN_BLOCK_SIZE >> WN_GRANULE_SHIFT_, BITS = BYTES / 8 };
        for (int protection = PROT_READ;; protection |= PROT_WRITE) {
            assert_true(protect(c.heap, 0, BYTES, protection) > 10);
            assert_true(protect(c.heap, WN_MARK_TABLE, BITS, protection) > 2);
            if (protection & PROT_WRITE) break;
            for (int i = 0; i < 6; i++) {
                assert_int_equal(wn_collect(m, i % 3, NULL), WN_OK);
                wn_step_result r;
                do assert_int_equal(wn_collect_for(m, 1, &r), WN_OK);
                while (!r.major_is_done);
                wn_move(m, list, b, client_pair(m, i, all->items[i], NULL));
            }
        }
    }
    client_close(&c);
}

/* The place that waits for a young object is not frozen with what is there, nor the object when it has come. */
static void a_place_is_not_frozen(void **state) {
    (void)state;
    enum { N = 1000 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, N));
        for (long i = 0; i < N; i++) wn_move(m, all, items[i], client_pair(m, i, NULL, NULL));
        wn_root(m, pair *, x, client_pair(m, 1, NULL, NULL));
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, x, NULL, NULL));
        const pair *place = (const pair *)wn_identity(m, x); /* NOLINT: a number to others */
        assert_int_equal(wn_pin(m, x), WN_OK);
        assert_int_equal(wn_freeze(m), WN_OK);
        assert_int_equal(wn_frozen_count(c.heap), N + 2); /* the array, the weak reference */
        assert_false(is_frozen(place));
        wn_unpin(m, x);
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        assert_ptr_equal(x, place);
        assert_int_equal(wn_generation(m, x), 2);
        client_collect(m);
        assert_int_equal(x->id, 1);
        wn_take(m, x, NULL);
        client_collect(m);
        assert_null(wn_weakref_get(m, w));
    }
    client_close(&c);
}

/* ---- threads ------------------------------------------------------------------------------------------------------
 */

/* Another thread uses up what a minor has left before the thread that ran it comes to take some: that is no want of
 * memory, and no reason for a whole major. */
static _Atomic int turn;
static void wait_for_turn(wn_mutator *m, int which) {
    wn_block_begin(m);
    while (turn < which) usleep(100);
    wn_block_end(m);
}
static void *use_up(void *heap) {
    wn_mutator *m;
    const incremental *inc = inc_of(heap);
    if (wn_attach(heap, &m)) abort();
    turn = 0;
    wait_for_turn(m, 1);
    while (inc->handed < inc->nursery_size) wn_release(m, client_pair(m, 1, NULL, NULL));
    turn = 2;
    wait_for_turn(m, 3);
    wn_detach(m);
    return NULL;
}
static void let_the_other(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    if (event->kind != WN_EVENT_MINOR || turn) return;
    turn = 1;
    while (turn == 1) usleep(100);
}
static void other_threads_use_the_nursery_up(void **state) {
    (void)state;
    wn_options o = client_quiet_options();
    o.nursery = 2 * PIECE;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    pthread_t thread;
    turn = -1;
    assert_int_equal(pthread_create(&thread, NULL, use_up, c.heap), 0);
    wait_for_turn(m, 0);
    assert_int_equal(wn_add_listener(c.heap, let_the_other, NULL), WN_OK);
    while (turn < 2) wn_release(m, client_pair(m, 1, NULL, NULL));
    assert_int_equal(inc->turns, 0);
    assert_int_equal(wn_remove_listener(c.heap, let_the_other, NULL), WN_OK);
    turn = 3;
    wn_block_begin(m);
    pthread_join(thread, NULL);
    wn_block_end(m);
    client_close(&c);
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
    unsetenv("WINNOW_OPTIONS"); /* each counts collections and steps of the options that it names itself */
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
        cmocka_unit_test(classes_are_judged),
        cmocka_unit_test(what_was_made_is_counted),
        cmocka_unit_test(a_sample_stands_for_all),
        cmocka_unit_test(the_threshold_follows_what_lives),
        cmocka_unit_test(the_list_of_finalizable_is_let_go),
        cmocka_unit_test(what_was_begun_is_forgotten),
        cmocka_unit_test(what_dangles_is_not_looked_at),
        cmocka_unit_test(what_is_frozen_is_not_written_to),
        cmocka_unit_test(a_place_is_not_frozen),
        cmocka_unit_test(what_is_remembered_may_live),
        cmocka_unit_test(a_start_is_told_before_its_end),
        cmocka_unit_test(what_is_owed_is_what_was_taken),
        cmocka_unit_test(each_major_is_told_once),
        cmocka_unit_test(a_step_ends_when_it_has_paid),
        cmocka_unit_test(the_end_of_marking_may_be_put_off),
        cmocka_unit_test(other_threads_use_the_nursery_up),
        cmocka_unit_test(a_table_where_another_was),
    };
    return CLIENT_MAIN("incremental", tests);
}
