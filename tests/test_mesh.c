/* test_mesh.c - sparse blocks laid together: a space driven at random beside a model of what each slot holds, and what
 * a fork, a pin and a file that was taken away do to it. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "heap/mesh.h"

static uint64_t seed;
static uint64_t random_below(uint64_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % n;
}

/* ---- a space with a model ---------------------------------------------------------------------------------------- */

enum { SIZES = 4, MOST = 60000 };
static const size_t sizes[SIZES] = {32, 48, 272, 2064};

typedef struct slot {
    uint64_t *at;
    uint64_t value; /* every word of it */
    size_t size;
} slot;

typedef struct model {
    wn_space space;
    wn_block *current[SIZES];
    wn_buffer_ buffer[SIZES];
    slot *slots;
    size_t n;
    bool stop; /* for threads beside it; atomic */
} model;

static void open_model(model *m) {
    memset(m, 0, sizeof *m);
    assert_true(wn_space_init(&m->space, 0));
    m->space.meshes = true;
    m->slots = calloc(MOST, sizeof *m->slots);
}
static void close_model(model *m) {
    wn_space_fini(&m->space);
    free(m->slots);
}

static void fill(slot *s, uint64_t value) {
    s->value = value;
    for (size_t i = 0; i < s->size / sizeof value; i++) s->at[i] = value;
}
static bool holds(const slot *s, uint64_t value) {
    for (size_t i = 0; i < s->size / sizeof value; i++)
        if (s->at[i] != value) return false;
    return true;
}
static bool is_whole(const model *m) {
    for (size_t i = 0; i < m->n; i++)
        if (!holds(&m->slots[i], m->slots[i].value)) return false;
    return true;
}

static void make(model *m, unsigned kind) {
    size_t size = sizes[kind];
    wn_buffer_ *b = &m->buffer[kind];
    if (m->n == MOST) return;
    if (b->cursor == b->limit)
        assert_true(wn_space_refill(&m->space, &m->current[kind], wn_class_of_slot_(size), 0, b));
    slot *s = &m->slots[m->n++];
    *s = (slot){(uint64_t *)(void *)b->cursor, 0, size};
    b->cursor += size;
    assert_true(holds(s, 0)); /* what is handed out is zero */
    fill(s, seed);
}
static void drop(model *m, size_t i) {
    void *at = m->slots[i].at;
    wn_space_free(&m->space, &at, 1);
    m->slots[i] = m->slots[--m->n];
}
static void settle(model *m) {
    for (unsigned i = 0; i < SIZES; i++) {
        if (m->buffer[i].cursor) wn_space_retire(&m->space, wn_class_of_slot_(sizes[i]), &m->buffer[i]);
        wn_space_disown(&m->space, &m->current[i]);
    }
}
static void lay_chosen(model *m) {
    while (wn_mesh_lay(&m->space, 0)) {
    }
}
static size_t resident(model *m) {
    pthread_mutex_lock(&m->space.lock);
    size_t bytes = wn_mesh_resident(&m->space);
    pthread_mutex_unlock(&m->space.lock);
    return bytes;
}
/* Returns how many bytes less the blocks take. */
static size_t lay(model *m, size_t enough) {
    settle(m);
    size_t before = resident(m);
    if (!wn_mesh_plan(&m->space, enough, NULL, NULL)) return 0;
    while (wn_mesh_choose(&m->space)) lay_chosen(m);
    size_t after = resident(m);
    return before > after ? before - after : 0; /* what was written to since it was laid counts for itself again */
}
static void make_many(model *m, size_t n) {
    for (size_t i = 0; i < n; i++) make(m, (unsigned)random_below(SIZES));
}
static void keep_one_in(model *m, size_t n) {
    for (size_t i = m->n; i-- > 0;)
        if (random_below(n)) drop(m, i);
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

/* Long runs of each of the operations, so that blocks become sparse, are laid, written to, allocated from, laid again,
 * emptied, and come back as blocks of another class or as parts of a large object. */
static void slots_keep_what_they_hold(void **state) {
    (void)state;
    seed = 1;
    size_t gained = 0;
    model m;
    open_model(&m);
    for (int round = 0; round < 60; round++) {
        make_many(&m, random_below(12000));
        if (random_below(2)) keep_one_in(&m, 2 + random_below(40));
        gained += lay(&m, random_below(3) ? 0 : (size_t)4 << 20);
        assert_true(is_whole(&m));
        for (size_t i = random_below(300); i && m.n; i--) fill(&m.slots[random_below(m.n)], seed);
        if (!random_below(4)) {
            size_t bytes = WN_SMALL_MAX_ + random_below((size_t)20 * WN_BLOCK_SIZE);
            uint64_t *large = wn_space_large(&m.space, bytes);
            for (size_t i = 0; i < bytes / sizeof *large; i++) assert_int_equal(large[i], 0);
            memset(large, 0x55, bytes);
            wn_space_free_large(&m.space, large);
        }
        if (!random_below(3)) wn_space_discard(&m.space, random_below(2) ? 8 : (size_t)-1);
        if (!random_below(8)) wn_mesh_seal(&m.space); /* as after a fork */
        assert_true(is_whole(&m));
    }
    assert_true(gained > (size_t)8 << 20);
    keep_one_in(&m, SIZE_MAX);
    settle(&m);
    assert_int_equal(m.n, 0);
    assert_int_equal(m.space.block_bytes, 0);
    close_model(&m);
}

/* A fragmented space, sparse enough for all of its blocks to share. */
static void fragment(model *m) {
    seed = 2;
    open_model(m);
    for (size_t i = 0; i < MOST; i++) make(m, 0);
    keep_one_in(m, 64);
    settle(m);
}

static void a_sparse_space_takes_little(void **state) {
    (void)state;
    model m;
    fragment(&m);
    size_t all = m.space.block_bytes, live = m.n * sizes[0];
    assert_true(all > 50 * live);
    lay(&m, 0);
    assert_true(resident(&m) < all / 5);
    assert_true(is_whole(&m));
    assert_int_equal(lay(&m, 0), 0);
    /* Frames go back when their blocks are empty. */
    keep_one_in(&m, SIZE_MAX);
    wn_mesh_give_back(&m.space);
    assert_int_equal(resident(&m), 0);
    close_model(&m);
}

static void enough_is_enough(void **state) {
    (void)state;
    model m;
    fragment(&m);
    size_t all = m.space.block_bytes;
    assert_int_equal(lay(&m, all), 0);
    lay(&m, all / 2);
    assert_in_range(resident(&m), all / 4, all / 2);
    lay(&m, 0);
    assert_true(resident(&m) < all / 4);
    assert_true(is_whole(&m));
    close_model(&m);
}

static unsigned mappings(void) {
    unsigned n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    for (int c; f && (c = getc(f)) != EOF;) n += c == '\n';
    if (f) fclose(f);
    return n;
}

/* Pages that are no views any more are like their neighbours, and one mapping with them. */
static void mappings_come_back(void **state) {
    (void)state;
    for (int large = 0; large < 2; large++) {
        model m;
        seed = 4;
        open_model(&m);
        m.space.large_pages = large;
        make(&m, 0);
        unsigned before = mappings();
        for (size_t i = 0; i < 6000; i++) make(&m, 3);
        keep_one_in(&m, 8);
        lay(&m, 0);
        assert_true(mappings() > before + 100);
        keep_one_in(&m, 2); /* so that not all go back together */
        wn_space_discard(&m.space, (size_t)-1);
        keep_one_in(&m, SIZE_MAX);
        wn_space_discard(&m.space, (size_t)-1);
        assert_true(mappings() < before + 20);
        close_model(&m);
    }
}

/* The lowest number that is free: the next file that is opened gets it. */
static int next_descriptor(void) {
    int next = dup(0);
    close(next);
    return next;
}

/* The program closes the file of frames and opens one of its own, which gets its number; and finds in that what it has
 * written. */
static FILE *put_in_place_of(int file) {
    assert_int_equal(close(file), 0);
    FILE *other = tmpfile();
    assert_non_null(other);
    assert_int_equal(fileno(other), file);
    assert_int_equal(fputs("not ours", other), 1);
    assert_int_equal(fflush(other), 0);
    return other;
}
static void close_untouched(FILE *other) {
    char text[16] = "";
    rewind(other);
    assert_non_null(fgets(text, sizeof text, other));
    assert_string_equal(text, "not ours");
    fclose(other);
}

/* A view of a frame that went back would bring it into being again when its block is used for something else. */
static void frames_stay_away(void **state) {
    (void)state;
    model m;
    struct stat s;
    int file = next_descriptor();
    seed = 5;
    open_model(&m);
    for (size_t i = 0; i < 6000; i++) make(&m, 3);
    keep_one_in(&m, 8);
    lay(&m, 0);
    assert_int_equal(fstat(file, &s), 0);
    assert_true(s.st_blocks > 0);
    keep_one_in(&m, SIZE_MAX);
    wn_mesh_give_back(&m.space);
    for (size_t i = 0; i < 6000; i++) make(&m, 3);
    settle(&m);
    assert_int_equal(fstat(file, &s), 0);
    assert_int_equal(s.st_blocks, 0);
    close_model(&m);
}

/* However often a program forks, and however quickly its children are gone. */
static void forks_do_not_use_up_memory(void **state) {
    (void)state;
    model m;
    struct stat s;
    int file = next_descriptor();
    seed = 6;
    open_model(&m);
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < 6000; i++) make(&m, 3);
        keep_one_in(&m, 8);
        assert_true(lay(&m, 0));
        assert_true(is_whole(&m));
        wn_mesh_seal(&m.space); /* as after a fork */
        assert_int_equal(fstat(file, &s), 0);
        assert_true(s.st_blocks * 512 < (16 << 20));
        assert_true(resident(&m) < (size_t)16 << 20);
        keep_one_in(&m, SIZE_MAX);
        wn_space_discard(&m.space, (size_t)-1);
    }
    close_model(&m);
}

/* What the program writes to is its own again, and is laid again. */
static void what_is_written_to_is_laid_again(void **state) {
    (void)state;
    model m;
    fragment(&m);
    assert_true(lay(&m, 0));
    size_t laid = resident(&m);
    for (size_t i = 0; i < m.n; i++) fill(&m.slots[i], seed + i);
    uint16_t written;
    if (!wn_os_file_written(wn_block_start(wn_block_of(m.slots[0].at)), WN_BLOCK_SIZE, 1, &written)) skip();
    assert_true(written >= 1);
    lay(&m, 0);
    for (size_t i = 0; i < m.n; i++) {
        const wn_block *b = wn_block_of(m.slots[i].at);
        assert_true(wn_os_file_written(wn_block_start(b), WN_BLOCK_SIZE, 1, &written));
        assert_true(written < WN_BLOCK_SIZE / wn_os_page_size() / 2);
    }
    assert_true(resident(&m) <= laid + laid / 2);
    assert_true(is_whole(&m));
    close_model(&m);
}

static void what_is_in_use_is_not_touched(void **state) {
    (void)state;
    model m;
    fragment(&m);
    wn_block *pinned = wn_block_of(m.slots[0].at), *frozen = wn_block_of(m.slots[m.n / 3].at),
             *owned = wn_block_of(m.slots[2 * m.n / 3].at);
    pinned->pinned = frozen->frozen = owned->owned = 1;
    assert_true(lay(&m, 0));
    assert_false(pinned->viewing || frozen->viewing || owned->viewing);
    assert_true(is_whole(&m));
    m.space.meshes = false;
    assert_false(wn_mesh_plan(&m.space, 0, NULL, NULL));
    close_model(&m);
}

/* Between planning, choosing and laying the program goes on, and blocks come back as those of another class. */
static void blocks_of_another_class_do_not_fit(void **state) {
    (void)state;
    for (int chosen = 0; chosen < 2; chosen++) {
        model m;
        fragment(&m);
        assert_true(wn_mesh_plan(&m.space, 0, NULL, NULL));
        if (chosen) assert_true(wn_mesh_choose(&m.space));
        size_t others = 0;
        for (size_t i = m.n; i-- > 0;)
            if ((uintptr_t)m.slots[i].at / WN_BLOCK_SIZE & 1) drop(&m, i);
        for (size_t i = 0; i < 3000; i++) make(&m, 2);
        for (size_t i = m.n; i-- > 0;)
            if (m.slots[i].size == sizes[2] && random_below(20)) drop(&m, i);
        settle(&m);
        for (size_t i = 0; i < m.n; i++) others += m.slots[i].size == sizes[2];
        assert_in_range(others, 50, 1000);
        if (chosen) lay_chosen(&m);
        while (wn_mesh_choose(&m.space)) lay_chosen(&m);
        assert_true(is_whole(&m));
        close_model(&m);
    }
}

static void drop_blocks(model *m, uint32_t frame, const wn_block *but) {
    for (size_t i = m->n; i-- > 0;) {
        const wn_block *b = wn_block_of(m->slots[i].at);
        if (b->frame == frame && b != but) drop(m, i);
    }
}
static wn_block *block_on(const model *m, uint32_t frame) {
    for (size_t i = 0; i < m->n; i++)
        if (wn_block_of(m->slots[i].at)->frame == frame) return wn_block_of(m->slots[i].at);
    return NULL;
}

/* While a frame is being filled what lies on it may die: it is about to go back, and is in use again by the next block.
 * In the end it counts like any other: the last block on it is laid elsewhere. */
static void a_frame_is_left_while_it_is_filled(void **state) {
    (void)state;
    for (int back = 0; back < 2; back++) { /* it has gone back meanwhile */
        model m;
        fragment(&m);
        assert_true(wn_mesh_plan(&m.space, 0, NULL, NULL) && wn_mesh_choose(&m.space));
        assert_true(wn_mesh_lay(&m.space, 0));
        size_t i = 0;
        while (!wn_block_of(m.slots[i].at)->frame) i++;
        uint32_t frame = wn_block_of(m.slots[i].at)->frame;
        drop_blocks(&m, frame, NULL);
        if (back) wn_mesh_give_back(&m.space);
        lay_chosen(&m);
        wn_mesh_drop_plan(&m.space);
        assert_true(is_whole(&m));
        wn_block *last = block_on(&m, frame);
        assert_non_null(last);
        drop_blocks(&m, frame, last);
        assert_true(lay(&m, 0));
        assert_int_not_equal(last->frame, frame);
        assert_true(is_whole(&m));
        keep_one_in(&m, SIZE_MAX);
        wn_mesh_give_back(&m.space);
        assert_int_equal(resident(&m), 0);
        close_model(&m);
    }
}

static bool another_plans(void *space) { return wn_mesh_plan(space, 0, NULL, NULL); }
static bool nobody_goes_on(void *space) { return space == NULL; }

static void a_plan_gives_way(void **state) {
    (void)state;
    model m;
    fragment(&m);
    assert_false(wn_mesh_plan(&m.space, 0, nobody_goes_on, &m.space));
    assert_false(wn_mesh_choose(&m.space));
    assert_false(wn_mesh_plan(&m.space, 0, another_plans, &m.space));
    assert_true(wn_mesh_choose(&m.space)); /* by the other plan */
    lay_chosen(&m);
    assert_true(is_whole(&m));
    close_model(&m);
}

static void *give_back(void *arg) {
    model *m = arg;
    while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) wn_mesh_give_back(&m->space);
    return NULL;
}

/* A frame goes back once, whoever does it, and is not laid on before. */
static void frames_go_back_once(void **state) {
    (void)state;
    enum { HELPERS = 3 };
    model m;
    pthread_t helper[HELPERS];
    void *all[2000];
    seed = 3;
    open_model(&m);
    for (int i = 0; i < HELPERS; i++) assert_int_equal(pthread_create(&helper[i], NULL, give_back, &m), 0);
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < 6000; i++) make(&m, 3);
        keep_one_in(&m, 8);
        lay(&m, m.space.block_bytes / 2);
        /* Many frames are left at once, and wanted again. */
        size_t n = 0;
        for (size_t i = m.n; i-- > 0 && n < 2000;) {
            if (!wn_block_of(m.slots[i].at)->frame) continue;
            all[n++] = m.slots[i].at;
            m.slots[i] = m.slots[--m.n];
        }
        wn_space_free(&m.space, all, n);
        lay(&m, 0);
        assert_true(is_whole(&m));
        keep_one_in(&m, SIZE_MAX);
    }
    __atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < HELPERS; i++) pthread_join(helper[i], NULL);
    settle(&m);
    keep_one_in(&m, SIZE_MAX);
    wn_mesh_give_back(&m.space);
    assert_int_equal(resident(&m), 0);
    close_model(&m);
}

static void ends_with(pid_t child, int code) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

/* A frame that was chosen when the program forked is the parent's alone, however late the child finds that out. */
static void a_fork_leaves_what_was_chosen_to_the_parent(void **state) {
    (void)state;
    model m;
    int told[2];
    char byte = 0;
    fragment(&m);
    assert_true(wn_mesh_plan(&m.space, 0, NULL, NULL) && wn_mesh_choose(&m.space));
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        bool ok = read(told[0], &byte, 1) == 1;
        wn_space_inherit(&m.space);
        _exit(ok && is_whole(&m) ? 0 : 1);
    }
    wn_mesh_seal(&m.space);
    assert_true(lay(&m, 0));
    assert_int_equal(write(told[1], &byte, 1), 1);
    ends_with(child, 0);
    assert_true(is_whole(&m));
    for (int i = 0; i < 2; i++) close(told[i]);
    close_model(&m);
}

/* The child sees its slots as they were, whatever the parent lays on the frames and gives back, and the other way. */
static void a_fork_parts_what_is_shared(void **state) {
    (void)state;
    enum { THERE = 7 };
    for (int busy = 0; busy < 2; busy++) { /* the child, or the parent, changes everything while the other looks on */
        model m;
        int told[2], heard[2];
        char byte = 0;
        fragment(&m);
        for (size_t i = 0; i < 2000 && m.n < MOST; i++) make(&m, 1);
        assert_true(lay(&m, (size_t)1 << 20));
        assert_int_equal(pipe(told) | pipe(heard), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child)
            wn_mesh_seal(&m.space);
        else
            wn_space_inherit(&m.space);
        bool ok = true;
        if ((child == 0) == busy) {
            for (size_t i = 0; i < m.n; i++) fill(&m.slots[i], ~m.slots[i].value);
            keep_one_in(&m, 3);
            make_many(&m, 3000);
            keep_one_in(&m, 20);
            lay(&m, 0);
            wn_space_discard(&m.space, (size_t)-1);
            ok = is_whole(&m);
            keep_one_in(&m, SIZE_MAX);
            wn_space_discard(&m.space, (size_t)-1); /* and the frames, if they were its own */
            ok = ok && write(child ? told[1] : heard[1], &byte, 1) == 1;
        } else {
            ok = read(child ? heard[0] : told[0], &byte, 1) == 1 && is_whole(&m);
        }
        if (!child) _exit(ok ? THERE : 1);
        ends_with(child, THERE);
        assert_true(ok);
        for (int i = 0; i < 2; i++) close(told[i]), close(heard[i]);
        close_model(&m);
    }
}

/* A program that closes all descriptors closes the file's, too; its number is soon another file's. */
static void a_file_that_was_taken_away_is_missed_in_time(void **state) {
    (void)state;
    model m;
    int before = next_descriptor();
    fragment(&m);
    assert_true(lay(&m, m.space.block_bytes / 2));
    FILE *other = put_in_place_of(before);
    lay(&m, 0);
    keep_one_in(&m, SIZE_MAX);
    wn_space_discard(&m.space, (size_t)-1);
    close_untouched(other);
    close_model(&m);
}

/* Between choosing and laying, where all that has to do with the file is done already. */
static void a_file_that_was_taken_away_when_blocks_were_chosen(void **state) {
    (void)state;
    model m;
    int file = next_descriptor();
    fragment(&m);
    assert_true(lay(&m, m.space.block_bytes / 2)); /* some blocks view the file, and are to be laid elsewhere */
    for (size_t i = 0; i < m.n; i++) fill(&m.slots[i], seed + i);
    assert_true(wn_mesh_plan(&m.space, 0, NULL, NULL) && wn_mesh_choose(&m.space));
    FILE *other = put_in_place_of(file);
    lay_chosen(&m);
    assert_true(is_whole(&m));
    assert_false(wn_mesh_choose(&m.space));
    assert_int_equal(lay(&m, 0), 0);
    for (size_t i = 0; i < m.n; i++) fill(&m.slots[i], seed - i);
    assert_true(is_whole(&m));
    keep_one_in(&m, SIZE_MAX);
    wn_space_discard(&m.space, (size_t)-1);
    make_many(&m, 3000); /* on memory that is zero */
    close_untouched(other);
    close_model(&m);
}

int main(void) {
    wn_os_file file;
    /* Nothing is laid together here? */
    if (WN_BLOCK_SIZE % wn_os_page_size() || !wn_os_file_open(&file, WN_BLOCK_SIZE)) return 77;
    wn_os_file_close(&file);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_keep_what_they_hold),
        cmocka_unit_test(a_sparse_space_takes_little),
        cmocka_unit_test(enough_is_enough),
        cmocka_unit_test(mappings_come_back),
        cmocka_unit_test(frames_stay_away),
        cmocka_unit_test(forks_do_not_use_up_memory),
        cmocka_unit_test(what_is_written_to_is_laid_again),
        cmocka_unit_test(what_is_in_use_is_not_touched),
        cmocka_unit_test(blocks_of_another_class_do_not_fit),
        cmocka_unit_test(a_frame_is_left_while_it_is_filled),
        cmocka_unit_test(a_plan_gives_way),
        cmocka_unit_test(frames_go_back_once),
        cmocka_unit_test(a_fork_leaves_what_was_chosen_to_the_parent),
        cmocka_unit_test(a_fork_parts_what_is_shared),
        cmocka_unit_test(a_file_that_was_taken_away_is_missed_in_time),
        cmocka_unit_test(a_file_that_was_taken_away_when_blocks_were_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
