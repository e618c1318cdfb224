/* test_space.c - what the heap's space promises and no client can see: which free memory goes back, and what it is
 * then. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "heap/space.h"
#include "one_processor.h"

enum { BLOCKS = 64, BACK = 24 };

/* Where a page is larger than a block, the neighbours stay as they are. */
static void a_range_is_discarded_and_no_more(void **state) {
    (void)state;
    enum { PAGES = 4 };
    size_t page = wn_os_page_size(), all = PAGES * page;
    char *p = wn_os_map(all);
    assert_non_null(p);
    for (size_t start = 0; start < all; start += page / 2)
        for (size_t size = 0; start + size <= all; size += page / 2) {
            memset(p, 1, all);
            wn_os_discard(p + start, size);
            for (size_t i = 0; i < all; i += page / 4) assert_int_equal(p[i], i < start || i >= start + size);
        }
    wn_os_release(p, all);
}

/* What a program has locked in memory does not go back, but reads as zero all the same: an object is made there next.
 */
static void locked_pages_are_discarded_too(void **state) {
    (void)state;
    enum { PAGES = 4 };
    size_t page = wn_os_page_size(), all = PAGES * page;
    char *p = wn_os_map(all);
    assert_non_null(p);
    if (mlock(p + page, 2 * page) != 0) skip(); /* ulimit -l */
    memset(p, 1, all);
    errno = 0;
    wn_os_discard(p, all);
    int after = errno;
    for (size_t i = 0; i < all; i++) assert_int_equal(p[i], 0);
    assert_int_equal(after, 0);
    wn_os_release(p, all);
}

static double quota_of(const char *text) {
    char path[] = "/tmp/winnow-quota-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    double quota = wn_os_quota_in(path);
    unlink(path);
    return quota;
}

static void processors_are_those_that_may_be_used(void **state) {
    (void)state;
    assert_true(quota_of("max 100000\n") == 0);
    assert_true(quota_of("50000 100000\n") == .5);
    assert_true(quota_of("400000 100000\n") == 4);
    assert_true(quota_of("") == 0);
    assert_true(wn_os_quota_in("/nowhere/cpu.max") == 0);
    double all = wn_os_processors();
    assert_true(all > 0);
#ifdef __linux__
    cpu_set_t before;
    leave_one_processor(&before);
    assert_true(wn_os_processors() <= 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(wn_os_processors() == all);
#endif
}

/* Blocks are taken from the lowest address up and given back from the highest down, so that what is used again next is
 * what was kept. */
static void memory_goes_back_from_the_top_down(void **state) {
    (void)state;
    wn_space space;
    assert_true(wn_space_init(&space, 0));
    space.keeps_dirty = true;
    wn_block *first = wn_space_take_blocks(&space, BLOCKS);
    assert_non_null(first);
    memset(wn_block_start(first), 0x55, (size_t)BLOCKS * WN_BLOCK_SIZE);
    wn_space_give_blocks(&space, first, BLOCKS);
    assert_int_equal(space.dirty_blocks, BLOCKS);
    assert_int_equal(wn_space_discard(&space, BACK), (size_t)BACK * WN_BLOCK_SIZE);
    assert_int_equal(space.dirty_blocks, BLOCKS - BACK);
    for (int i = 0; i < BLOCKS; i++) assert_int_equal(first[i].dirty, i < BLOCKS - BACK);
    WN_ALLOW(wn_block_start(&first[BLOCKS - 1]), 16); /* it is free: under the address sanitizer nobody may look */
    assert_int_equal(*wn_block_start(&first[BLOCKS - 1]), 0);
    WN_FORBID(wn_block_start(&first[BLOCKS - 1]), 16);
    /* What is taken next is the memory that was kept, and zero all the same. */
    wn_block *again = wn_space_take_blocks(&space, 4);
    assert_ptr_equal(again, first);
    for (size_t i = 0; i < (size_t)4 * WN_BLOCK_SIZE; i++) assert_int_equal(wn_block_start(again)[i], 0);
    assert_int_equal(space.dirty_blocks, BLOCKS - BACK - 4);
    assert_int_equal(wn_space_discard(&space, (size_t)-1), (size_t)(BLOCKS - BACK - 4) * WN_BLOCK_SIZE);
    assert_int_equal(space.dirty_blocks, 0);
    wn_space_give_blocks(&space, again, 4);
    wn_space_fini(&space);
}

/* A fresh block comes populated: whole, zero, its slots handed out. */
static void a_fresh_block_is_handed_out_whole(void **state) {
    (void)state;
    wn_space space;
    assert_true(wn_space_init(&space, 0));
    wn_block *b = NULL;
    wn_buffer_ buffer = {0};
    unsigned cls = wn_class_of_slot_(64);
    assert_true(wn_space_refill(&space, &b, cls, 0, &buffer));
    assert_int_equal(buffer.limit - buffer.cursor, WN_BLOCK_SIZE);
    for (char *p = buffer.cursor; p < buffer.limit; p++) assert_int_equal(*p, 0);
    assert_int_equal(space.allocated_objects, WN_BLOCK_SIZE / 64);
    wn_space_retire(&space, cls, &buffer);
    wn_space_disown(&space, &b);
    assert_int_equal(space.block_bytes, 0);
    wn_space_fini(&space);
}

/* A huge object's memory goes back in as many calls as were asked for, and its address is no longer the space's. */
static void huge_memory_goes_back_a_little_at_a_time(void **state) {
    (void)state;
    enum { MEGABYTES = 20 };
    wn_space space;
    assert_true(wn_space_init(&space, 0));
    assert_false(wn_space_let_go(&space, 1 << 20));
    for (int round = 0; round < 2; round++) {
        char *p = wn_space_large(&space, (size_t)MEGABYTES << 20), *q = wn_space_large(&space, (size_t)MEGABYTES << 20);
        assert_non_null(p);
        memset(p, 0x55, (size_t)MEGABYTES << 20);
        wn_space_free_large_later(&space, p);
        assert_null(wn_space_object_at(&space, p, true));
        assert_ptr_equal(wn_space_object_at(&space, q, true), q);
        if (round) break; /* what is not let go is released with the space */
        int calls = 0;
        while (wn_space_let_go(&space, 1 << 20)) calls++;
        assert_in_range(calls, MEGABYTES, MEGABYTES + 1);
        wn_space_free_large(&space, q);
    }
    wn_space_fini(&space);
}

typedef struct owner {
    wn_space space;
    unsigned rounds; /* atomic */
} owner;

enum { ROUNDS = 1000 };

static void *take_and_give(void *arg) {
    owner *o = arg;
    unsigned cls = wn_class_of_slot_(64);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        wn_block *b = NULL;
        wn_buffer_ buffer = {0};
        if (!wn_space_refill(&o->space, &b, cls, 0, &buffer)) abort();
        buffer.cursor += 64; /* one stays */
        wn_space_retire(&o->space, cls, &buffer);
        wn_space_disown(&o->space, &b);
        __atomic_store_n(&o->rounds, i, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Whoever looks for the last room of a class passes blocks that another thread allocates from: for the thread
 * sanitizer. */
static void blocks_in_use_are_passed(void **state) {
    (void)state;
    owner o = {.rounds = 0};
    pthread_t thread;
    assert_true(wn_space_init(&o.space, (size_t)8 << 20));
    assert_int_equal(pthread_create(&thread, NULL, take_and_give, &o), 0);
    while (__atomic_load_n(&o.rounds, __ATOMIC_RELAXED) < ROUNDS)
        wn_space_list_last(&o.space, 0, wn_class_of_slot_(64));
    pthread_join(thread, NULL);
    wn_space_fini(&o.space);
}

static void mark_all(wn_block *b) {
    for (unsigned i = 0; i < WN_BLOCK_WORDS; i++) wn_mark_words(b)[i] = wn_alloc_words(b)[i];
}

/* More blocks than are settled together: of each three, one is all alive, one all dead, one has a single live object.
 */
static void blocks_are_swept_together(void **state) {
    (void)state;
    enum { SWEPT = 3 * (WN_SWEEP_TOGETHER - 1), PER_BLOCK = WN_BLOCK_SIZE / 64 };
    wn_space space;
    assert_true(wn_space_init(&space, 0));
    void *blocks[SWEPT];
    unsigned cls = wn_class_of_slot_(64);
    for (int i = 0; i < SWEPT; i++) {
        wn_block *b = NULL;
        wn_buffer_ buffer = {0};
        assert_true(wn_space_refill(&space, &b, cls, 0, &buffer));
        if (i % 3 == 0) mark_all(b);
        if (i % 3 == 2) wn_mark_words(b)[0] = 1;
        blocks[i] = b;
        wn_space_disown(&space, &b);
    }
    wn_space_new_era(&space);
    for (int i = 0; i < SWEPT; i++) assert_false(wn_space_is_swept(&space, blocks[i]));
    wn_swept freed = wn_space_sweep_quietly(&space, blocks, SWEPT, NULL, NULL);
    assert_int_equal(freed.objects, SWEPT / 3 * (2 * PER_BLOCK - 1));
    assert_int_equal(freed.bytes, freed.objects * 64);
    for (int i = 0; i < SWEPT; i++) {
        wn_block *b = blocks[i];
        assert_int_equal(b->state, i % 3 == 1 ? WN_BLOCK_FREE : WN_BLOCK_SMALL);
        assert_int_equal(b->listed, i % 3 == 2);
        if (i % 3 != 1) assert_true(wn_space_is_swept(&space, b));
    }
    assert_int_equal(space.block_bytes, (size_t)SWEPT / 3 * 2 * WN_BLOCK_SIZE);
    assert_int_equal(space.live_bytes, (size_t)SWEPT / 3 * (PER_BLOCK + 1) * 64);
    wn_space_fini(&space);
}

/* Who is alive comes in stretches, so that there are words of a bitmap all alive, all dead, and of both; slots of 48
 * bytes and more lie across two words. What a sweep makes free has no side bytes, and what lives has those it had. */
static void a_sweep_clears_the_bytes_of_the_dead_alone(void **state) {
    (void)state;
    enum { ROUNDS = 200 };
    static const unsigned slots[] = {32, 48, 80, 112, 512, 1040};
    wn_space space;
    assert_true(wn_space_init(&space, 0));
    srand(1);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned cls = wn_class_of_slot_(slots[round % (sizeof slots / sizeof *slots)]);
        wn_block *b = NULL;
        wn_buffer_ buffer = {0};
        assert_true(wn_space_refill(&space, &b, cls, 0, &buffer));
        char *start = buffer.cursor;
        uint8_t side[WN_BLOCK_SIZE / 32][2];
        bool lives[WN_BLOCK_SIZE / 32] = {false};
        size_t stretch = 0, dead = 0, n = b->slots;
        for (size_t i = 0; i < n; i++) {
            if (i && stretch) {
                lives[i] = lives[i - 1];
                stretch--;
            } else {
                lives[i] = !i || rand() % 2; /* the first, so that the block stays */
                stretch = (size_t)rand() % 80;
            }
            dead += !lives[i];
            char *slot = start + i * b->slot;
            for (int k = 0; k < 2; k++) wn_meta_(slot)[k] = side[i][k] = (uint8_t)rand();
            uint64_t bit, *word = wn_bit_of(slot, WN_MARK_TABLE, &bit);
            if (lives[i]) *word |= bit;
        }
        assert_int_equal(wn_space_sweep(&space, b, NULL, NULL), dead);
        for (size_t i = 0; i < n; i++) {
            const char *slot = start + i * b->slot;
            assert_int_equal(wn_is_allocated(slot), lives[i]);
            for (int k = 0; k < 2; k++) assert_int_equal(wn_meta_(slot)[k], lives[i] ? side[i][k] : 0);
        }
        memset(wn_mark_words(b), 0, WN_BLOCK_WORDS * sizeof(uint64_t));
        assert_int_equal(wn_space_sweep(&space, b, NULL, NULL), n - dead);
        wn_space_disown(&space, &b); /* and the block is the space's again */
    }
    assert_int_equal(space.block_bytes, 0);
    wn_space_fini(&space);
}

static bool is_resident(const void *at) {
    size_t page = wn_os_page_size();
    unsigned char there = 0;
    assert_int_equal(mincore((void *)((uintptr_t)at & ~(uintptr_t)(page - 1)), page, &there), 0);
    return there & 1;
}

/* The mark bits of all blocks are there before marking comes to the first of them; those of memory that the space has
 * taken since are next. */
static void mark_bits_are_made_ready(void **state) {
    (void)state;
    enum { CHUNKS = 3 };
    char *probe = wn_os_map(wn_os_page_size());
    wn_os_populate(probe, 1);
    bool can = is_resident(probe);
    wn_os_release(probe, wn_os_page_size());
    if (!can) skip(); /* a kernel before 5.14 */
    wn_space space;
    assert_true(wn_space_init(&space, 0));
    for (int round = 0; round < CHUNKS; round++) {
        wn_block *first = wn_space_take_blocks(&space, 600); /* of 944 in a chunk: each round another */
        assert_non_null(first);
        for (size_t i = 0; i < 600; i += 16) assert_false(is_resident(wn_mark_words(&first[i])));
        assert_true(wn_space_ready_marks(&space));
        int calls = 1;
        while (wn_space_ready_marks(&space)) calls++;
        assert_true(calls > 1);
        for (size_t i = 0; i < 600; i++) assert_true(is_resident(wn_mark_words(&first[i])));
    }
    wn_space_fini(&space);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_is_discarded_and_no_more),
        cmocka_unit_test(locked_pages_are_discarded_too),
        cmocka_unit_test(memory_goes_back_from_the_top_down),
        cmocka_unit_test(a_fresh_block_is_handed_out_whole),
        cmocka_unit_test(huge_memory_goes_back_a_little_at_a_time),
        cmocka_unit_test(blocks_are_swept_together),
        cmocka_unit_test(blocks_in_use_are_passed),
        cmocka_unit_test(processors_are_those_that_may_be_used),
        cmocka_unit_test(a_sweep_clears_the_bytes_of_the_dead_alone),
        cmocka_unit_test(mark_bits_are_made_ready),
    };
    return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
