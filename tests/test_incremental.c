/* test_incremental.c - what the incremental collector keeps to itself: what is owed, what is noted beside objects. */
#define _GNU_SOURCE
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

/* ---- the table of weak references ---------------------------------------------------------------------------------
 */

static void *place; /* where mappings of so many bytes are put, if it is free */
static size_t place_bytes;
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    if (place && bytes == place_bytes && !at) {
        void *there = __real_mmap(place, bytes, protection, flags | MAP_FIXED_NOREPLACE, file, offset);
        if (there == place) return there;
        if (there != MAP_FAILED) munmap(there, bytes); /* a kernel that does not know the flag */
    }
    return __real_mmap(at, bytes, protection, flags, file, offset);
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
        cmocka_unit_test(a_table_where_another_was),
    };
    return CLIENT_MAIN("incremental", tests);
}
