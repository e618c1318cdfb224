/* test_counts.c - reference counts that several threads change just where their byte no longer holds them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sched.h>
#include <unistd.h>
#include <cmocka.h>

#include "collectors/refcount/refcount.h"

typedef struct thing {
    wn_object head;
} thing;
static const wn_type thing_type = WN_TYPE(thing);

static wn_mutator *open_heap(wn_heap **heap) {
    wn_mutator *m;
    wn_options options = wn_options_default();
    options.collector = WN_COLLECTOR_REFCOUNT;
    assert_int_equal(wn_heap_new(&options, heap), WN_OK);
    assert_int_equal(wn_attach(*heap, &m), WN_OK);
    return m;
}

static struct {
    wn_heap *heap;
    void *object, *got;
    unsigned begun, ended; /* atomic: rounds */
} other;

static unsigned now(const unsigned *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
static void step(unsigned *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELEASE); }
static void await(const unsigned *counter, unsigned round) {
    for (unsigned turns = 1; now(counter) < round; turns++)
        if (turns % 256 == 0) sched_yield();
}

static void await_at_safepoints(wn_mutator *m, const unsigned *counter, unsigned round) {
    for (unsigned turns = 1; now(counter) < round; turns++) {
        wn_poll(m);
        if (turns % 256 == 0) sched_yield();
    }
}

static void start(pthread_t *thread, wn_heap *heap, void *(*body)(void *)) {
    other.heap = heap;
    other.begun = other.ended = 0;
    assert_int_equal(pthread_create(thread, NULL, body, NULL), 0);
}

static void *read_weakly(void *data) {
    wn_mutator *m;
    if (wn_attach(other.heap, &m)) abort();
    wn_block_begin(m);
    step(&other.ended);
    await(&other.begun, 1);
    other.got = wn_rc_weak_get(wn_mutator_of(m), other.object);
    wn_block_end(m);
    wn_detach(m);
    return data;
}

/* The reader has seen the largest count that fits, and waits for the table's lock; meanwhile all of it goes. */
static void a_weak_read_does_not_raise_the_dead(void **state) {
    (void)state;
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    void *object = wn_new(m, &thing_type);
    assert_non_null(object);
    pthread_t thread;
    start(&thread, heap, read_weakly);
    wn_block_begin(m);
    await(&other.ended, 1);
    other.object = object;
    __atomic_store_n(wn_meta_(object), WN_COUNT_MAX_, __ATOMIC_RELAXED);
    pthread_mutex_lock(&wn_rc_of(heap)->overflow.lock);
    step(&other.begun);
    usleep(50000);
    __atomic_store_n(wn_meta_(object), 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&wn_rc_of(heap)->overflow.lock);
    pthread_join(thread, NULL);
    wn_block_end(m);
    assert_null(other.got);
    assert_int_equal(*wn_meta_(object), 0);
    *wn_meta_(object) = 1;
    wn_release(m, object);
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(heap), WN_OK);
}

enum { ROUNDS = 4000, HIGH = WN_COUNT_MAX_ + 5, LOW = WN_COUNT_MAX_ - 70 };

static void *count_down(void *data) {
    wn_mutator *m;
    if (wn_attach(other.heap, &m)) abort();
    for (unsigned r = 1; r <= ROUNDS; r++) {
        await_at_safepoints(m, &other.begun, r);
        for (int i = HIGH; i > LOW; i--) wn_release(m, other.object);
        step(&other.ended);
    }
    wn_detach(m);
    return data;
}

static void immortal_is_for_ever(void **state) {
    (void)state;
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    void *object = wn_new(m, &thing_type);
    assert_non_null(object);
    other.object = object;
    pthread_t thread;
    start(&thread, heap, count_down);
    for (unsigned r = 1; r <= ROUNDS; r++) {
        __atomic_store_n(wn_meta_(object), 1, __ATOMIC_RELAXED);
        for (int i = 1; i < HIGH; i++) wn_retain(m, object);
        step(&other.begun);
        for (volatile unsigned i = 0; i < r % 2048; i++) {
        }
        wn_make_immortal(m, object);
        await_at_safepoints(m, &other.ended, r);
        assert_int_equal(wn_refcount(m, object), WN_IMMORTAL);
        pthread_mutex_lock(&heap->roots_lock);
        heap->immortals.n = 0;
        pthread_mutex_unlock(&heap->roots_lock);
    }
    wn_block_begin(m);
    pthread_join(thread, NULL);
    wn_block_end(m);
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(heap), WN_OK);
}

/* ---- what lists of objects take ---------------------------------------------------------------------------------- */

typedef struct holder {
    wn_object head;
    void *other;
} holder;
static const wn_type holder_type = WN_TYPE(holder, WN_REFS(holder, other));

/* Young collections that no older one follows note each survivor, which may die the next moment. */
static void young_collections_alone_take_no_memory(void **state) {
    (void)state;
    enum { ALIVE = 2000, TIMES = 400 };
    static void *alive[ALIVE];
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    wn_disable(heap);
    for (size_t i = 0; i < ALIVE; i++) assert_int_equal(wn_global(heap, &alive[i]), WN_OK);
    size_t most = 0;
    for (int round = 0; round < TIMES; round++) {
        for (size_t i = 0; i < ALIVE; i++) wn_take(m, alive[i], wn_new(m, &holder_type));
        if (round == TIMES / 2) /* garbage among them, to be found later */
            for (size_t i = 1; i < ALIVE; i++) wn_set(m, (holder *)alive[i], other, alive[i]);
        assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
        if (wn_rc_of(heap)->middle.n > most) most = wn_rc_of(heap)->middle.n;
    }
    assert_true(most < (size_t)ALIVE * TIMES / 4);
    wn_collect_result result;
    for (size_t i = 0; i < ALIVE; i++) assert_int_equal(wn_generation(m, alive[i]), 1);
    assert_int_equal(wn_collect(m, 1, &result), WN_OK); /* the list is complete all the same */
    assert_int_equal(result.collected, ALIVE - 1);
    for (size_t i = 0; i < ALIVE; i++) assert_int_equal(wn_generation(m, alive[i]), 2);
    assert_int_equal(wn_verify(m, stderr), 0);
    for (size_t i = 0; i < ALIVE; i++) wn_forget_global(m, &alive[i]);
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(heap), WN_OK);
}

typedef struct holders {
    wn_object head;
    size_t length;
    void *item[];
} holders;
static const wn_type holders_type = WN_TYPE(holders, WN_ITEMS(holders, length, item));

/* Garbage that refers to itself so often that its count is in the table. */
static void large_counts_end_with_garbage(void **state) {
    (void)state;
    enum { TIMES = 100, REFERENCES = 300 };
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    wn_disable(heap);
    for (int i = 0; i < TIMES; i++) {
        wn_root(m, holders *, all, wn_new_array(m, &holders_type, REFERENCES));
        for (size_t k = 0; k < REFERENCES; k++) wn_set(m, all, item[k], all);
        assert_int_equal(wn_refcount(m, all), REFERENCES + 1);
    }
    assert_int_equal(wn_rc_of(heap)->overflow.live, TIMES);
    wn_collect_result result;
    assert_int_equal(wn_collect(m, 2, &result), WN_OK);
    assert_int_equal(result.collected, TIMES);
    assert_int_equal(wn_rc_of(heap)->overflow.live, 0);
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(heap), WN_OK);
}

/* However much garbage there was. */
static void what_lists_garbage_is_given_back(void **state) {
    (void)state;
    wn_heap *heap;
    wn_mutator *m = open_heap(&heap);
    wn_disable(heap);
    for (int generation = 0; generation < 3; generation += 2) {
        for (int i = 0; i < 50000; i++) {
            wn_root(m, holder *, h, wn_new(m, &holder_type));
            wn_set(m, h, other, h);
        }
        wn_collect_result result;
        assert_int_equal(wn_collect(m, generation, &result), WN_OK);
        assert_int_equal(result.collected, 50000);
        assert_int_equal(wn_rc_of_mutator(wn_mutator_of(m))->condemned.objects.room, 0);
    }
    assert_int_equal(wn_rc_of(heap)->candidates.room, 0);
    assert_int_equal(wn_rc_of(heap)->reached.room, 0);
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(heap), WN_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_weak_read_does_not_raise_the_dead),    cmocka_unit_test(immortal_is_for_ever),
        cmocka_unit_test(young_collections_alone_take_no_memory), cmocka_unit_test(large_counts_end_with_garbage),
        cmocka_unit_test(what_lists_garbage_is_given_back),
    };
    return cmocka_run_group_tests_name("counts", tests, NULL, NULL);
}
