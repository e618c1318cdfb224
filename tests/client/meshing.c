/* meshing.c - nearly empty blocks are laid together on the same memory, and no object notices. */
#include "client.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MANY = 800000, ONE_IN = 64 };

/* Only where there are files in memory and as large as need be, pages no larger than a block, and memory is not counted
 * as it is promised. */
static bool possible;

static bool is_possible(void) {
    int promised = 0;
    struct rlimit largest;
    if (getrlimit(RLIMIT_FSIZE, &largest) != 0 || largest.rlim_cur != RLIM_INFINITY) return false;
    FILE *f = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (!f) return false;
    if (fscanf(f, "%d", &promised) != 1) promised = 0;
    fclose(f);
    return promised != 2 && sysconf(_SC_PAGESIZE) <= 32768;
}

/* One in so many, anywhere among them: every 64th would be at the same place of each block. */
static size_t chosen(size_t i) { return i * ONE_IN + (size_t)((uint32_t)i * 2654435761u >> 16) % ONE_IN; }

/* Makes pairs with their numbers as ids and keeps few of them, in a new array. */
static vector *fragment(wn_mutator *m, size_t n) {
    wn_root(m, vector *, kept, client_new_array(m, &vector_type, n / ONE_IN));
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
        client_collect(m); /* who moves objects has them in order of age now, not of survival */
        for (size_t i = 0; i < kept->length; i++) wn_set(m, kept, items[i], all->items[chosen(i)]);
    }
    client_collect(m);
    return wn_give(m, kept);
}

static void check(vector *kept, long more) {
    for (size_t i = 0; i < kept->length; i++) {
        pair *p = kept->items[i];
        if (p->id != (long)chosen(i) + more) fail_msg("object %zu holds %ld", i, p->id);
    }
}

static wn_stats stats_of(client *c) {
    wn_stats s;
    wn_get_stats(c->heap, &s);
    return s;
}

static void nearly_empty_blocks_share_memory(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        size_t n = client_scaled(MANY);
        wn_root(m, vector *, kept, fragment(m, n));
        wn_trim(m);
        wn_stats s = stats_of(&c);
        if (possible && n == MANY) assert_true(s.meshed_bytes > s.heap_bytes / 2);
        check(kept, 0);
        for (size_t i = 0; i < kept->length; i++) ((pair *)kept->items[i])->id += 7;
        check(kept, 7);
        {
            wn_root(m, vector *, others, fragment(m, n)); /* in the room between them */
            check(kept, 7);
            check(others, 0);
            client_collect(m);
            wn_trim(m);
            check(kept, 7);
            check(others, 0);
        }
        wn_assign(m, kept, NULL);
        for (int i = 0; i < 2; i++) client_collect(m); /* where rules are checked, what is free is kept for a while */
        wn_trim(m);
        assert_true(stats_of(&c).meshed_bytes < (size_t)1 << 20); /* little is left that could share */
    }
    client_close(&c);
}

static void not_when_it_is_not_wanted(void **state) {
    (void)state;
    for (int conservative = 0; conservative < 2; conservative++) {
        wn_options o = wn_options_default();
        if (conservative)
            o.conservative_stacks = true;
        else
            o.meshing = false;
        client c = client_open(&o);
        wn_mutator *m = c.m;
        {
            wn_root(m, vector *, kept, fragment(m, client_scaled(MANY)));
            wn_trim(m);
            assert_int_equal(stats_of(&c).meshed_bytes, 0);
            check(kept, 0);
        }
        client_close(&c);
    }
}

/* ---- beside a running program ------------------------------------------------------------------------------------ */

typedef struct worker {
    wn_heap *heap;
    vector **kept; /* a global */
    atomic_bool stop;
    atomic_long rounds;
} worker;

/* Adds one to every id, over and over. */
static void *work(void *arg) {
    worker *w = arg;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return NULL;
    while (!w->stop) {
        wn_hold(m, vector *, kept, *w->kept);
        for (size_t i = 0; i < kept->length; i++) {
            pair *p = kept->items[i];
            p->id++;
            wn_root(m, pair *, garbage, wn_new(m, &pair_type));
            (void)garbage;
        }
        w->rounds++;
    }
    wn_detach(m);
    return NULL;
}

static uint64_t seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

/* Objects of a type whose addresses may be given away, written to by who knows nothing of the heap. */
static const wn_type shared_type = WN_TYPE(pair, WN_REFS(pair, a, b), .flags = WN_TYPE_PINNED);
enum { SHARED = 512 };
typedef struct foreign {
    pair *object[SHARED];
    _Atomic bool stop;
    _Atomic long rounds;
} foreign;
static void *write_to_all(void *arg) {
    foreign *f = arg;
    while (!f->stop) {
        for (size_t i = 0; i < SHARED; i++) ++*(volatile long *)&f->object[i]->id;
        f->rounds++;
    }
    return NULL;
}

static void pinned_types_are_left_alone(void **state) {
    (void)state;
    if (client_stressed()) skip(); /* it takes some thousand objects to have blocks that fit together */
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    static foreign f;
    {
        wn_root(m, vector *, kept, client_new_array(m, &vector_type, SHARED));
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, SHARED * ONE_IN));
            for (size_t i = 0; i < all->length; i++) wn_move(m, all, items[i], client_new(m, &shared_type));
            for (size_t i = 0; i < SHARED; i++) wn_set(m, kept, items[i], all->items[chosen(i)]);
        }
        for (int i = 0; i < 2; i++) client_collect(m);
        for (size_t i = 0; i < SHARED; i++) f.object[i] = kept->items[i];
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, write_to_all, &f), 0);
        for (uint64_t patience = seconds() + 60, i = 0; i < 20 || (f.rounds < 20 && seconds() < patience); i++) {
            wn_trim(m);
            usleep(500);
        }
        assert_int_equal(stats_of(&c).meshed_bytes, 0);
        f.stop = true;
        pthread_join(thread, NULL);
        for (size_t i = 0; i < SHARED; i++) assert_int_equal(f.object[i]->id, f.rounds);
    }
    client_close(&c);
}

/* The concurrent collector does it by itself, the others when they are told to. */
static void beside_a_running_program(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    static vector *kept;
    kept = NULL;
    assert_int_equal(wn_global(c.heap, &kept), WN_OK);
    bool by_itself = wn_heap_collector(c.heap) == WN_COLLECTOR_CONCURRENT && possible && !client_stressed();
    size_t n = by_itself ? (size_t)MANY : client_scaled(MANY);
    wn_take(m, kept, fragment(m, n));
    worker w = {.heap = c.heap, .kept = &kept};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, work, &w), 0);
    uint64_t patience = seconds() + 60;
    for (long until = 3; w.rounds < until || (by_itself && !stats_of(&c).meshed_bytes);) {
        if (seconds() > patience) break;
        if (!by_itself) wn_trim(m);
        wn_block_begin(m);
        usleep(1000);
        wn_block_end(m);
    }
    if (by_itself) assert_true(stats_of(&c).meshed_bytes > 0);
    wn_block_begin(m);
    w.stop = true;
    pthread_join(thread, NULL);
    wn_block_end(m);
    check(kept, w.rounds);
    assert_true(w.rounds > 0);
    wn_forget_global(m, &kept);
    client_close(&c);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

static const char *change(client *c, vector *kept_, long by) {
    wn_mutator *m = c->m;
    wn_borrow(m, vector *, kept, kept_);
    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < kept->length; i++) {
            pair *p = kept->items[i];
            if (p->id != (long)chosen(i) + by * (round - 1)) return "an object has changed";
            p->id += by;
        }
        for (size_t i = 0; i < kept->length * 4; i++) {
            wn_root(m, pair *, garbage, wn_new(m, &pair_type));
            if (!garbage) return "no memory";
        }
        if (wn_collect(m, 2, NULL)) return "collect failed";
        wn_trim(m);
    }
    return wn_verify(m, stderr) ? "the verifier complains" : NULL;
}

static void parent_and_child_have_their_own(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, kept, fragment(m, client_scaled(MANY)));
        wn_trim(m);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        const char *failure = change(&c, kept, child ? 1 : 1000000);
        if (!child) {
            if (failure) fprintf(stderr, "child: %s\n", failure);
            _exit(failure ? 1 : 0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (failure) fail_msg("parent: %s", failure);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    client_close(&c);
}

int main(void) {
    possible = is_possible();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearly_empty_blocks_share_memory), cmocka_unit_test(not_when_it_is_not_wanted),
        cmocka_unit_test(beside_a_running_program),         cmocka_unit_test(pinned_types_are_left_alone),
        cmocka_unit_test(parent_and_child_have_their_own),
    };
    return CLIENT_MAIN("meshing", tests);
}
