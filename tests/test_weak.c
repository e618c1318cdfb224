/* test_weak.c - the walk through the table of weak references beside a program that goes on adding to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "engines/weak.h"

#include <winnow/inspect.h>

typedef struct thing {
    wn_object head;
    size_t number, seen;
} thing;
static const wn_type thing_type = WN_TYPE(thing);

typedef struct things {
    wn_object head;
    size_t length;
    void *at[];
} things;
static const wn_type things_type = WN_TYPE(things, WN_ITEMS(things, length, at));

/* On the collector that takes no walks of its own. */
static wn_mutator *open_heap(wn_heap **heap) {
    wn_mutator *m;
    wn_options options = wn_options_default();
    options.collector = WN_COLLECTOR_REFCOUNT;
    assert_int_equal(wn_heap_new(&options, heap), WN_OK);
    assert_int_equal(wn_attach(*heap, &m), WN_OK);
    return m;
}

/* Things [from, to), each with a weak reference. */
static void make(wn_mutator *m, things *all_, size_t from, size_t to) {
    wn_borrow(m, things *, all, all_);
    for (size_t i = from; i < to; i++) {
        wn_root(m, thing *, x, wn_new(m, &thing_type));
        x->number = i;
        wn_set(m, all, at[2 * i], x);
        wn_move(m, all, at[2 * i + 1], wn_weakref_new(m, x, NULL, NULL));
        assert_non_null(all->at[2 * i + 1]);
    }
}

static void see(void *context, wn_weak_entry *e) {
    ++*(size_t *)context;
    ((thing *)e->target)->seen++;
}

enum { AT_FIRST = 5000, EACH_TIME = 64 };

/* Goes through the table while `added` are added after each of so many calls; every entry that was there at first is
 * seen. */
static void walk(size_t added, size_t calls) {
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    {
        size_t most = 400000, made = AT_FIRST, visits = 0;
        wn_root(m, things *, all, wn_new_array(m, &things_type, 2 * most));
        make(m, all, 0, made);
        wn_weak_walk_reset(heap);
        while (wn_weak_walk(heap, EACH_TIME, see, &visits)) {
            if (!calls) continue;
            assert_true(made + added <= most); /* else it does not come to an end */
            make(m, all, made, made + added);
            made += added;
            calls--;
        }
        wn_weak_walk_reset(heap);
        for (size_t i = 0; i < AT_FIRST; i++) assert_true(((thing *)all->at[2 * i])->seen);
        if (!added) assert_int_equal(visits, AT_FIRST);
        /* The table is whole: each reference is found by its target. */
        for (size_t i = 0; i < made; i++) assert_int_equal(wn_weakref_count(m, all->at[2 * i]), 1);
        assert_null(heap->weak.walked);
    }
    wn_detach(m);
    wn_heap_free(heap);
}

static void a_walk_sees_all_entries(void **state) {
    (void)state;
    walk(0, 0);
}
static void a_walk_goes_on_while_the_table_grows(void **state) {
    (void)state;
    walk(40, SIZE_MAX);
}
/* So fast that the table grows again before the walk is through the one before: it begins anew. */
static void a_walk_that_is_outrun_begins_anew(void **state) {
    (void)state;
    walk(200, SIZE_MAX);
}

/* Its thread gets no processor: what it holds back must still find room when it is given up. */
static void a_walk_that_stands_still(void **state) {
    (void)state;
    walk(190000, 1);
}

static uint64_t seed;
static size_t below(size_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(seed >> 33) % n;
}

/* The walk comes on now and then, by some entries, while weak references are made and die at random places. */
static void random_walk(unsigned in_a_thousand) {
    enum { MOST = 20000 };
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    {
        size_t made = 0, at_first = 100 + below(3000), visits = 0;
        wn_root(m, things *, all, wn_new_array(m, &things_type, 2 * MOST));
        bool goes_on = true;
        while (made < MOST) {
            if (made == at_first) wn_weak_walk_reset(heap);
            if (made >= at_first && goes_on && below(1000) < in_a_thousand)
                goes_on = wn_weak_walk(heap, 1 + below(8), see, &visits);
            if (made && below(4) == 0) {
                wn_set(m, all, at[2 * below(made) + 1], NULL);
                continue;
            }
            make(m, all, made, made + 1);
            made++;
        }
        while (goes_on && wn_weak_walk(heap, EACH_TIME, see, &visits)) {
        }
        wn_weak_walk_reset(heap);
        for (size_t i = 0; i < made; i++) {
            const thing *x = all->at[2 * i];
            const bool there = all->at[2 * i + 1];
            assert_int_equal(wn_weakref_count(m, (void *)x), there);
            if (there && i < at_first) assert_true(x->seen);
        }
    }
    wn_detach(m);
    wn_heap_free(heap);
}

static void walks_of_any_pace(void **state) {
    (void)state;
    static const unsigned paces[] = {0, 3, 30, 300, 1000};
    for (unsigned i = 0; i < 20; i++) {
        seed = i + 1;
        random_walk(paces[i % 5]);
    }
}

/* Weak references to a few targets come and go, and so do the targets; each finds those that are left, once. */
static void check_chains(wn_heap *heap, wn_mutator *m, const things *targets, const things *refs, const size_t *of) {
    for (size_t t = 0; t < targets->length; t++) {
        size_t expected = 0;
        for (size_t i = 0; i < refs->length; i++) expected += refs->at[i] && of[i] == t;
        assert_int_equal(wn_weakref_count(m, targets->at[t]), expected);
        const wn_weak_entry *e = wn_weak_find(heap, targets->at[t]);
        assert_int_equal(e != NULL, expected > 0);
        for (const wn_weakref *r = e ? e->refs : NULL; r; r = r->next) {
            assert_ptr_equal(r->target, targets->at[t]);
            assert_ptr_equal(r->prev ? r->prev->next : e->refs, r);
        }
    }
}

static void chains_of_any_order(void **state) {
    (void)state;
    enum { TARGETS = 4, REFS = 40, STEPS = 5000, NONE = TARGETS };
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    for (uint64_t run = 1; run <= 10; run++) {
        seed = run;
        size_t of[REFS];
        wn_root(m, things *, targets, wn_new_array(m, &things_type, TARGETS));
        wn_root(m, things *, refs, wn_new_array(m, &things_type, REFS));
        for (size_t step = 0; step < STEPS; step++) {
            size_t i = below(REFS), t = below(TARGETS);
            if (!targets->at[t] || below(50) == 0) {
                wn_move(m, targets, at[t], wn_new(m, &thing_type));
                for (size_t k = 0; k < REFS; k++)
                    if (refs->at[k] && of[k] == t) of[k] = NONE;
            }
            if (refs->at[i]) {
                wn_root(m, void *, got, wn_weakref_get(m, refs->at[i]));
                assert_ptr_equal(got, of[i] == NONE ? NULL : targets->at[of[i]]);
                wn_set(m, refs, at[i], NULL);
            } else {
                wn_move(m, refs, at[i], wn_weakref_new(m, targets->at[t], NULL, NULL));
                of[i] = t;
            }
            if (step % 16 == 0 && targets->at[0] && targets->at[1] && targets->at[2] && targets->at[3])
                check_chains(heap, m, targets, refs, of);
        }
        assert_int_equal(wn_verify(m, stderr), 0);
    }
    wn_detach(m);
    wn_heap_free(heap);
}

/* ---- rings of ephemerons ------------------------------------------------------------------------------------------
 *
 * What is counted is steps along rings, never time. */

static unsigned values_released;
static void count_value(void *object) { (void)object, values_released++; }
static const wn_type value_type = WN_TYPE(thing, .release = count_value);

static size_t ring_of(const wn_weak_entry *e, const wn_ephemeron **out) {
    size_t n = 0;
    WN_EACH_EPHEMERON(e, p) out[n++] = p;
    return n;
}

static bool is_on(const wn_ephemeron *p, const wn_ephemeron *const *ring, size_t n) {
    while (n && ring[n - 1] != p) n--;
    return n;
}

/* One of an entry's ephemerons loses its last reference: how far along the ring, as it was before, anything changed. */
static size_t steps_of_a_death(wn_heap *heap, wn_mutator *m, const void *key, things *pairs_, size_t i, size_t most) {
    wn_borrow(m, things *, pairs, pairs_);
    const wn_ephemeron **before = test_malloc(most * sizeof(void *)), **after = test_malloc(most * sizeof(void *));
    size_t n = ring_of(wn_weak_find(heap, key), before), steps = 0;
    wn_set(m, pairs, at[i], NULL);
    const wn_weak_entry *e = wn_weak_find(heap, key);
    size_t left = ring_of(e, after);
    for (size_t k = 1; k <= n; k++) /* before[0] is where the last death has come to; it is looked at last */
        if (!is_on(before[k % n], after, left) || (e && e->ephemerons == before[k % n] && k < n)) steps = k;
    test_free(before);
    test_free(after);
    return steps;
}

/* Ephemerons of a few keys come and go in some order, and sometimes a key does. Each death looks at a few of the ring,
 * though its own place is anywhere on it; of those that died few are left there; each value goes once, with its
 * ephemeron or with the key. */
static void rings_of_any_order(void **state) {
    (void)state;
    enum { KEYS = 3, PAIRS = 600, STEPS = 6000, NONE = KEYS, A_FEW = 8 };
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    for (uint64_t run = 1; run <= 6; run++) {
        seed = run;
        size_t of[PAIRS], made = 0, oldest = 0, newest = 0, living[KEYS + 1] = {0};
        values_released = 0;
        wn_root(m, things *, keys, wn_new_array(m, &things_type, KEYS));
        wn_root(m, things *, pairs, wn_new_array(m, &things_type, PAIRS));
        for (size_t step = 0; step < STEPS; step++) {
            size_t t = below(KEYS), i = below(PAIRS);
            if (run % 3 == 1) i = oldest++ % PAIRS;             /* who is first goes first */
            if (run % 3 == 2) i = PAIRS - 1 - newest++ % PAIRS; /* who is last goes first */
            if (!keys->at[t] || below(2000) == 0) {
                wn_move(m, keys, at[t], wn_new(m, &thing_type));
                assert_null(heap->weak.left); /* what was on the ring of the former one has been freed */
                living[t] = 0;
                for (size_t k = 0; k < PAIRS; k++)
                    if (pairs->at[k] && of[k] == t) of[k] = NONE;
            }
            if (pairs->at[i]) {
                assert_ptr_equal(((wn_ephemeron *)pairs->at[i])->key, of[i] == NONE ? NULL : keys->at[of[i]]);
                if (of[i] == NONE) {
                    wn_set(m, pairs, at[i], NULL);
                } else {
                    assert_true(steps_of_a_death(heap, m, keys->at[of[i]], pairs, i, 2 * PAIRS) <= A_FEW);
                    living[of[i]]--;
                }
            }
            if (step < STEPS / 2 || below(4)) { /* at last they become fewer */
                wn_root(m, thing *, value, wn_new(m, &value_type));
                wn_move(m, pairs, at[i], wn_ephemeron_new(m, keys->at[t], value));
                of[i] = t;
                made++;
                living[t]++;
            }
            if (step % 64) continue;
            size_t there = 0;
            for (size_t k = 0; k < PAIRS; k++) there += pairs->at[k] && of[k] != NONE;
            assert_int_equal(values_released, made - there);
            assert_int_equal(heap->weak.ephemerons, there);
            for (size_t k = 0; k < KEYS; k++) {
                const wn_ephemeron *ring[2 * PAIRS];
                size_t n = keys->at[k] ? ring_of(wn_weak_find(heap, keys->at[k]), ring) : 0;
                assert_in_range(n, living[k], living[k] + living[k] / 5 + A_FEW);
                for (size_t l = 0; l < PAIRS; l++)
                    if (pairs->at[l] && of[l] == k) assert_true(is_on(pairs->at[l], ring, n));
            }
        }
        assert_int_equal(wn_verify(m, stderr), 0);
    }
    assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
    assert_int_equal(heap->weak.live, 0);
    wn_trim(m);
    assert_int_equal(heap->space.live_bytes, 0); /* not a slot is lost */
    wn_detach(m);
    wn_heap_free(heap);
}

/* Ephemerons that are part of garbage leave the ring of a key that is none, a few at a time or many, and what is left
 * there is given back. */
static void rings_that_garbage_leaves(void **state) {
    (void)state;
    enum { PAIRS = 500, ROUNDS = 40 };
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    wn_disable(heap);
    {
        wn_root(m, thing *, key, wn_new(m, &thing_type));
        for (size_t round = 0; round <= ROUNDS; round++) {
            {
                wn_root(m, things *, kept, wn_new_array(m, &things_type, PAIRS));
                for (size_t i = 0; i < PAIRS; i++) {
                    wn_root(m, things *, cycle, wn_new_array(m, &things_type, 2));
                    wn_set(m, cycle, at[0], cycle);
                    wn_move(m, cycle, at[1], wn_ephemeron_new(m, key, cycle));
                    if (i % (1 + round % 7)) wn_set(m, kept, at[i], cycle);
                }
                assert_int_equal(wn_collect(m, (int)(round % 3), NULL), WN_OK);
                for (size_t i = 0; i < PAIRS; i++)
                    if (kept->at[i]) assert_ptr_equal(((wn_ephemeron *)((things *)kept->at[i])->at[1])->key, key);
                assert_int_equal(wn_verify(m, stderr), 0);
            }
            assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
            const wn_ephemeron *ring[2 * PAIRS];
            assert_int_equal(heap->weak.ephemerons, 0);
            assert_in_range(ring_of(wn_weak_find(heap, key), ring), 0, 8);
        }
    }
    assert_null(heap->weak.left);
    wn_detach(m);
    wn_heap_free(heap);
}

/* Where a collection finds who is dead, all the dead of a ring leave it together. */
static size_t looks;
static wn_weak_dead_fn *is_dead;
static bool count_look(void *context, void *ephemeron) {
    looks++;
    return is_dead(context, ephemeron);
}
void __real_wn_weak_pair_died(wn_heap *heap, wn_ephemeron *p, wn_weak_dead_fn *dead, void *context);
void __wrap_wn_weak_pair_died(wn_heap *heap, wn_ephemeron *p, wn_weak_dead_fn *dead, void *context);
void __wrap_wn_weak_pair_died(wn_heap *heap, wn_ephemeron *p, wn_weak_dead_fn *dead, void *context) {
    is_dead = dead;
    __real_wn_weak_pair_died(heap, p, count_look, context);
}
void __real_wn_weak_prune_ring(wn_heap *heap, wn_weak_entry *e, wn_weak_dead_fn *dead, void *context);
void __wrap_wn_weak_prune_ring(wn_heap *heap, wn_weak_entry *e, wn_weak_dead_fn *dead, void *context);
void __wrap_wn_weak_prune_ring(wn_heap *heap, wn_weak_entry *e, wn_weak_dead_fn *dead, void *context) {
    is_dead = dead;
    __real_wn_weak_prune_ring(heap, e, count_look, context);
}

static void a_collection_looks_at_each_once(wn_collector_id collector) {
    enum { PAIRS = 5000, KEYS = 2 };
    if (!wn_collector_available(collector)) return;
    wn_heap *heap;
    wn_mutator *m;
    wn_options options = wn_options_default();
    options.collector = collector;
    assert_int_equal(wn_heap_new(&options, &heap), WN_OK);
    assert_int_equal(wn_attach(heap, &m), WN_OK);
    {
        wn_root(m, things *, keys, wn_new_array(m, &things_type, KEYS));
        for (size_t t = 0; t < KEYS; t++) wn_move(m, keys, at[t], wn_new(m, &thing_type));
        wn_root(m, things *, pairs, wn_new_array(m, &things_type, PAIRS));
        for (size_t i = 0; i < PAIRS; i++) {
            wn_root(m, thing *, value, wn_new(m, &thing_type));
            value->number = i;
            wn_move(m, pairs, at[i], wn_ephemeron_new(m, keys->at[i % KEYS], value));
        }
        assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
        for (size_t i = 0; i < PAIRS; i++)
            if (below(2)) wn_set(m, pairs, at[i], NULL);
        looks = 0;
        assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
        assert_in_range(looks, PAIRS, PAIRS);
        size_t there = 0;
        for (size_t i = 0; i < PAIRS; i++) {
            if (!pairs->at[i]) continue;
            there++;
            wn_root(m, thing *, value, wn_ephemeron_value(m, pairs->at[i]));
            assert_int_equal(value->number, i);
        }
        assert_int_equal(heap->weak.ephemerons, there);
        assert_int_equal(wn_verify(m, stderr), 0);
        wn_assign(m, pairs, NULL);
        assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
        assert_int_equal(heap->weak.live, 0);
    }
    wn_detach(m);
    wn_heap_free(heap);
}
static void an_incremental_collection_looks_at_each_once(void **state) {
    (void)state;
    a_collection_looks_at_each_once(WN_COLLECTOR_INCREMENTAL);
}
static void a_concurrent_collection_looks_at_each_once(void **state) {
    (void)state;
    a_collection_looks_at_each_once(WN_COLLECTOR_CONCURRENT);
}

/* ---- no memory ----------------------------------------------------------------------------------------------------
 */

static bool no_memory;
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n) { return no_memory ? NULL : __real_realloc(p, n); }

static unsigned calls, released;
static void count_call(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m, (void)ref;
    assert_ptr_equal((char *)data, (char *)&calls + calls); /* in order */
    calls++;
}
static void count_release(void *object) { (void)object, released++; }
static const wn_type resource_type = WN_TYPE(thing, .release = count_release);

/* The moment in which a key dies is a bad one for not finding memory: nothing is lost all the same. */
static void a_death_without_memory(void **state) {
    (void)state;
    enum { MANY = 40 };
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    calls = released = 0;
    {
        wn_root(m, thing *, key, wn_new(m, &thing_type));
        wn_root(m, things *, refs, wn_new_array(m, &things_type, MANY));
        wn_root(m, things *, pairs, wn_new_array(m, &things_type, MANY));
        for (size_t i = 0; i < MANY; i++) {
            wn_root(m, thing *, value, wn_new(m, &resource_type));
            wn_move(m, pairs, at[i], wn_ephemeron_new(m, key, value));
            wn_move(m, refs, at[MANY - 1 - i], wn_weakref_new(m, key, count_call, (char *)&calls + (MANY - 1 - i)));
        }
        no_memory = true;
        wn_assign(m, key, NULL);
        no_memory = false;
        wn_poll(m);
        assert_int_equal(calls, MANY);
        for (size_t i = 0; i < MANY; i++) assert_null(wn_ephemeron_value(m, pairs->at[i]));
        assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
        assert_int_equal(wn_verify(m, stderr), 0);
        wn_assign(m, pairs, NULL);
        assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
        assert_int_equal(released, MANY);
        assert_int_equal(heap->weak.ephemerons, 0);
    }
    wn_detach(m);
    wn_heap_free(heap);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_sees_all_entries),
        cmocka_unit_test(a_walk_goes_on_while_the_table_grows),
        cmocka_unit_test(a_walk_that_is_outrun_begins_anew),
        cmocka_unit_test(a_walk_that_stands_still),
        cmocka_unit_test(walks_of_any_pace),
        cmocka_unit_test(chains_of_any_order),
        cmocka_unit_test(rings_of_any_order),
        cmocka_unit_test(rings_that_garbage_leaves),
        cmocka_unit_test(an_incremental_collection_looks_at_each_once),
        cmocka_unit_test(a_concurrent_collection_looks_at_each_once),
        cmocka_unit_test(a_death_without_memory),
    };
    return cmocka_run_group_tests_name("weak", tests, NULL, NULL);
}
