/*
 * test_starved.c - the incremental collector while the system refuses it memory: nothing that is reachable is lost, and
 * the next collection with memory makes good what this one could not.
 *
 * Every call of the library's for memory goes by the functions below (the linker's --wrap).
 */
#include "client/client.h"

#include <sys/mman.h>

enum { ANY = 1 };
static size_t refused;            /* calls for so many bytes get nothing; ANY: all calls */
static _Atomic unsigned refusals; /* how many did */

static bool refuse(size_t bytes) {
    if (!refused || (refused != ANY && refused != bytes)) return false;
    refusals++;
    return true;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);

void *__wrap_malloc(size_t bytes) { return refuse(bytes) ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t n, size_t bytes) { return refuse(n * bytes) ? NULL : __real_calloc(n, bytes); }
void *__wrap_realloc(void *old, size_t bytes) { return refuse(bytes) ? NULL : __real_realloc(old, bytes); }
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    return refuse(bytes) ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, file, offset);
}

static void starve(size_t bytes) {
    refusals = 0;
    refused = bytes;
}
static unsigned feed(void) {
    refused = 0;
    return refusals;
}

/* A heap in which nothing is born old and no major begins by itself. */
static client open_quiet(void) {
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_INCREMENTAL;
    o.pretenure = WN_NEVER;
    o.min_heap = (size_t)1 << 40;
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
            client_collect(m);
            assert_int_equal(wn_freeze(m), WN_OK);
            for (long i = 0; i < N; i += 2) wn_move(m, (pair *)all->items[i], a, client_relic(m, i, NULL, NULL));
            starve(ANY);
            assert_int_equal(wn_collect(m, 0, NULL), WN_OK);
            if (again) wn_collect(m, 2, NULL);
            assert_true(feed() > 0);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            for (long i = 1; i < N; i += 2) wn_move(m, (pair *)all->items[i], a, client_relic(m, i, NULL, NULL));
            for (int i = 0; i < 2; i++) client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), 0);
            for (long i = 0; i < N; i++) wn_set(m, (pair *)all->items[i], a, NULL);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), N);
            assert_int_equal(wn_unfreeze(m), WN_OK);
        }
        client_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_frozen_objects_refer_to_lives),
    };
    return CLIENT_MAIN("starved", tests);
}
