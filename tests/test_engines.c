/*
 * test_engines.c - bitmaps, marker and cycle search on a toy heap that is not Winnow's own, compared with a model so
 * simple that it is plainly right: repeated passes over arrays of indices.
 */
#include <setjmp.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engines/cycles.h"
#include "engines/snapshot.h"

typedef struct toy {
    size_t count; /* references from everywhere, as its owner counts them */
    uint32_t refs;
    uint32_t kept; /* its owner keeps it, if candidates alone refer to it */
    struct toy *ref[14];
} toy;

static size_t toy_count(void *context, void *object) {
    return *(size_t *)context ? WN_CYCLES_ROOT : ((toy *)object)->count;
}
static bool toy_keep(void *context, void *object) {
    (void)context;
    return ((toy *)object)->kept;
}
static WN_ALWAYS_INLINE void toy_fetch(void *context, void *object, int stage) {
    (void)context;
    if (stage == 0) WN_PREFETCH(object);
}
static WN_ALWAYS_INLINE void toy_scan(void *context, void *object, wn_visit_fn *visit, void *arg) {
    (void)context;
    toy *t = object;
    for (size_t i = 0; i < t->refs; i++) visit(arg, t->ref[i]);
}

static uint64_t seed;
static uint64_t random_below(uint64_t n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed * 0x2545F4914F6CDD1Dull >> 33) % n;
}

static toy *toys(size_t n) {
    toy *t = aligned_alloc(16, n * sizeof(toy));
    assert_non_null(t);
    memset(t, 0, n * sizeof(toy));
    return t;
}

static void link_to(toy *from, toy *to) {
    from->ref[from->refs++] = to;
    to->count++;
}

/* Garbage by the model: what no reference from outside the candidates reaches, directly or by way of candidates. */
static void model(const toy *t, size_t n, const bool *candidate, bool *garbage) {
    size_t *outside = calloc(n, sizeof *outside);
    assert_non_null(outside);
    for (size_t i = 0; i < n; i++) {
        garbage[i] = candidate[i];
        outside[i] = t[i].count;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; candidate[i] && k < t[i].refs; k++) outside[t[i].ref[k] - t]--;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < n; i++) {
            if (!candidate[i] || (garbage[i] && !outside[i] && !t[i].kept)) continue;
            if (garbage[i]) garbage[i] = false, changed = true;
            for (size_t k = 0; k < t[i].refs; k++) {
                size_t j = (size_t)(t[i].ref[k] - t);
                if (garbage[j]) garbage[j] = false, changed = true;
            }
        }
    }
    free(outside);
}

static void random_graphs_agree_with_the_model(void **state) {
    (void)state;
    wn_cycles c;
    assert_true(wn_cycles_make(&c));
    const char *given = getenv("WINNOW_TEST_SEED");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1;
    for (uint64_t round = first; round < first + 600; round++) {
        seed = round * 0x9E3779B97F4A7C15ull;
        size_t n = 1 + random_below(round % 10 ? 60 : 3000), zero = 0;
        toy *t = toys(n);
        bool *candidate = calloc(n, 1), *garbage = calloc(n, 1);
        size_t edges = random_below(2 * n + 1);
        for (size_t i = 0; i < edges; i++) {
            toy *from = &t[random_below(n)];
            if (from->refs < 14) link_to(from, &t[random_below(n)]);
        }
        for (size_t i = random_below(n / 8 + 2); i; i--) t[random_below(n)].count++;
        for (size_t i = random_below(n / 16 + 2); i; i--) t[random_below(n)].kept = 1;
        for (size_t i = 0; i < n; i++)
            if ((candidate[i] = random_below(20) != 0)) wn_cycles_add(&c, &t[i]);
        model(t, n, candidate, garbage);
        wn_cycles_begin(&c);
        /* Known roots are optional: any live candidates will do, even none. */
        for (size_t i = 0; i < n; i++)
            if (candidate[i] && !garbage[i] && random_below(3) == 0 && wn_cycles_claim(&c, &t[i]))
                wn_mark_push(&c.marker, &t[i]);
        wn_cycles_mark(&c, toy_fetch, toy_scan, &zero);
        assert_true(wn_cycles_search(&c, toy_count, toy_keep, toy_fetch, toy_scan, &zero));
        size_t expected = 0;
        for (size_t i = 0; i < n; i++) {
            expected += garbage[i];
            if (wn_cycles_is_garbage(&c, &t[i]) != garbage[i])
                fail_msg("WINNOW_TEST_SEED=%llu", (unsigned long long)round);
        }
        assert_int_equal(c.garbage, expected);
        wn_groups g;
        size_t target = 1 + random_below(50), start = 0;
        assert_true(wn_cycles_group(&c, target, toy_fetch, toy_scan, &zero, &g));
        assert_int_equal(g.objects, expected);
        size_t *batch = calloc(n, sizeof *batch);
        for (size_t b = 0; b < g.batches; start = g.end[b++])
            for (size_t i = start; i < g.end[b]; i++) {
                size_t k = (size_t)((toy *)g.object[i] - t);
                assert_true(garbage[k]);
                assert_int_equal(batch[k], 0);
                batch[k] = b + 1;
            }
        assert_int_equal(start, expected);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; garbage[i] && k < t[i].refs; k++)
                if (garbage[t[i].ref[k] - t]) assert_int_equal(batch[i], batch[t[i].ref[k] - t]);
        wn_groups_drop(&g);
        /* Candidates that are kept may be searched again. */
        if (round % 2)
            wn_cycles_rest(&c);
        else
            wn_cycles_trim_rest(&c);
        wn_cycles_begin(&c);
        assert_true(wn_cycles_search(&c, toy_count, toy_keep, toy_fetch, toy_scan, &zero));
        assert_int_equal(c.garbage, expected);
        for (size_t i = 0; i < n; i++) assert_int_equal(wn_cycles_is_garbage(&c, &t[i]), garbage[i]);
        wn_cycles_reset(&c);
        free(batch), free(candidate), free(garbage), free(t);
    }
    wn_cycles_drop(&c);
}

static void counts_that_say_root_keep_an_object(void **state) {
    (void)state;
    wn_cycles c;
    assert_true(wn_cycles_make(&c));
    toy *t = toys(2);
    link_to(&t[0], &t[1]);
    link_to(&t[1], &t[0]);
    for (size_t root = 0; root < 2; root++) {
        wn_cycles_add(&c, &t[0]);
        wn_cycles_add(&c, &t[1]);
        wn_cycles_begin(&c);
        assert_true(wn_cycles_search(&c, toy_count, NULL, toy_fetch, toy_scan, &root));
        assert_int_equal(c.garbage, root ? 0 : 2);
        wn_cycles_reset(&c);
    }
    free(t);
    wn_cycles_drop(&c);
}

static void a_reference_too_many_keeps_its_object(void **state) {
    (void)state;
    wn_cycles c;
    size_t zero = 0;
    assert_true(wn_cycles_make(&c));
    toy *t = toys(2);
    link_to(&t[0], &t[1]);
    link_to(&t[1], &t[0]);
    t[0].ref[t[0].refs++] = &t[1]; /* reported, never counted */
    wn_cycles_add(&c, &t[0]);
    wn_cycles_add(&c, &t[1]);
    wn_cycles_begin(&c);
    assert_true(wn_cycles_search(&c, toy_count, NULL, toy_fetch, toy_scan, &zero));
    assert_int_equal(c.garbage, 0);
    free(t);
    wn_cycles_drop(&c);
}

static void addresses_out_of_reach_are_no_members(void **state) {
    (void)state;
    wn_cycles c;
    assert_true(wn_cycles_make(&c));
    const uintptr_t strange[] = {0, 16, (uintptr_t)1 << 47, (uintptr_t)1 << 48, UINTPTR_MAX & ~(uintptr_t)15};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        assert_false(wn_cycles_has(&c, (void *)strange[i]));
        assert_false(wn_cycles_claim(&c, (void *)strange[i]));
    }
    /* On aarch64 the system gives addresses up to there. */
    wn_cycles_add(&c, (void *)(((uintptr_t)1 << 48) - 64));
    assert_false(c.failed);
    assert_true(wn_cycles_has(&c, (void *)(((uintptr_t)1 << 48) - 64)));
    wn_cycles_add(&c, (void *)((uintptr_t)1 << 48));
    assert_true(c.failed);
    wn_cycles_begin(&c);
    size_t zero = 0;
    assert_false(wn_cycles_search(&c, toy_count, NULL, toy_fetch, toy_scan, &zero));
    wn_cycles_reset(&c);
    assert_false(c.failed);
    wn_cycles_drop(&c);
}

/* ---- bits -------------------------------------------------------------------------------------------------------- */

/* Members are put in and taken out with and without a region at hand, over three regions of which two are neighbours,
 * and compared with an array; then the walk must meet them all, which it does only where pages were noted as touched.
 */
static void bits_are_the_same_from_near_and_far(void **state) {
    (void)state;
    enum { PER_REGION = 3 * WN_BITS_PAGE * 64, PLANE = 1 };
    static const uintptr_t region[] = {5, 6, 40};
    static bool member[3 * PER_REGION];
    wn_bits b;
    assert_true(wn_bits_make(&b));
    wn_bits_near to_put = wn_bits_near_nothing();
    seed = 11;
    memset(member, 0, sizeof member);
    size_t members = 0;
    for (int step = 0; step < 200000; step++) {
        size_t k = random_below(100) ? random_below(2000) * 131 : random_below(3 * PER_REGION);
        uintptr_t address =
            (region[k / PER_REGION] << WN_BITS_REGION) + (k % PER_REGION << WN_BITS_GRANULE) + random_below(16);
        bool near = k / (WN_BITS_PAGE * 64) % 2; /* always the same for a page: or else the other way would touch it */
        if (random_below(2)) {
            bool was = member[k];
            assert_true(near ? wn_bits_put_near(&b, &to_put, PLANE, address, &was) : wn_bits_put(&b, PLANE, address));
            assert_int_equal(was, member[k]);
            members += !member[k];
            member[k] = true;
        } else {
            assert_int_equal(wn_bits_take(&b, PLANE, address), member[k]);
            members -= member[k];
            member[k] = false;
        }
    }
    assert_false(wn_bits_take(&b, PLANE, 0)); /* no such region */
    assert_int_equal(wn_bits_count(&b, PLANE), members);
    for (int round = 0; round < 3000; round++) {
        size_t k = random_below(3 * PER_REGION), n = random_below(round % 100 ? 300 : PER_REGION), had = 0;
        if (k % PER_REGION + n > PER_REGION) n = PER_REGION - k % PER_REGION;
        uintptr_t start = (region[k / PER_REGION] << WN_BITS_REGION) + (k % PER_REGION << WN_BITS_GRANULE);
        /* Members are few, but not here: in the range and just beside it. */
        for (size_t i = k < 70 ? 0 : k - 70; round % 100 && i < k + n + 70 && i < 3 * (size_t)PER_REGION; i++) {
            if (member[i] || random_below(3) == 0) continue;
            uintptr_t at = (region[i / PER_REGION] << WN_BITS_REGION) + (i % PER_REGION << WN_BITS_GRANULE);
            assert_true(wn_bits_put(&b, PLANE, at));
            member[i] = true;
            members++;
        }
        for (size_t i = k; i < k + n; i++) {
            had += member[i];
            member[i] = false;
        }
        assert_int_equal(wn_bits_clear_range(&b, PLANE, start, n << WN_BITS_GRANULE), had);
        members -= had;
    }
    assert_int_equal(wn_bits_clear_range(&b, PLANE, (uintptr_t)7 << WN_BITS_REGION, (size_t)30 << WN_BITS_REGION), 0);
    assert_true(wn_bits_put(&b, PLANE + 1, region[2] << WN_BITS_REGION));
    wn_bits_trim_from(&b, PLANE + 1);
    assert_int_equal(wn_bits_count(&b, PLANE + 1), 0);
    wn_bits_cursor cursor;
    wn_bits_walk(&b, &cursor);
    for (uintptr_t a; (a = (uintptr_t)wn_bits_next(&cursor, PLANE)); members--) {
        size_t r = 0;
        while (region[r] != a >> WN_BITS_REGION) r++;
        assert_true(member[r * PER_REGION + ((a & (((uintptr_t)1 << WN_BITS_REGION) - 1)) >> WN_BITS_GRANULE)]);
    }
    assert_int_equal(members, 0);
    wn_bits_drop(&b);
}

/* ---- marking alone: a deep list, a wide array, several threads --------------------------------------------------- */

static void mark_from(wn_cycles *c, toy *t, size_t n, size_t expected) {
    size_t zero = 0;
    for (size_t i = 0; i < n; i++) wn_cycles_add(c, &t[i]);
    wn_cycles_begin(c);
    assert_true(wn_cycles_claim(c, t));
    wn_mark_push(&c->marker, t);
    assert_int_equal(wn_cycles_mark(c, toy_fetch, toy_scan, &zero), expected);
    assert_true(wn_mark_empty(&c->marker));
    wn_cycles_reset(c);
}

static void deep_and_wide_graphs_are_marked_whole(void **state) {
    (void)state;
    enum { N = 100000 };
    wn_cycles c;
    assert_true(wn_cycles_make(&c));
    toy *t = toys(N);
    for (size_t i = 1; i < N; i++) link_to(&t[i - 1], &t[i]);
    mark_from(&c, t, N, N);
    memset(t, 0, N * sizeof *t);
    for (size_t i = 1; i < N; i++) link_to(&t[(i - 1) / 14], &t[i]);
    mark_from(&c, t, N, N);
    free(t);
    wn_cycles_drop(&c);
}

typedef struct helper {
    wn_cycles *c;
    wn_marker m;
    size_t scanned;
} helper;

static WN_ALWAYS_INLINE void visit_shared(void *arg, void *reference) {
    helper *h = arg;
    if (wn_cycles_claim(h->c, reference)) wn_mark_push(&h->m, reference);
}

static size_t mark_some(void *arg, size_t budget) {
    helper *h = arg;
    return wn_mark_drain_stack(&h->m, budget, toy_fetch, toy_scan, visit_shared, h->c, h);
}

static void *help(void *arg) {
    helper *h = arg;
    h->scanned = wn_mark_together(&h->m, mark_some, h);
    return NULL;
}

static void threads_share_the_work(void **state) {
    (void)state;
    enum { N = 200000, THREADS = 4 };
    wn_cycles c;
    assert_true(wn_cycles_make(&c));
    toy *t = toys(N);
    for (size_t i = 1; i < N; i++) link_to(&t[(i - 1) / 3], &t[i]);
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < N; i++) wn_cycles_add(&c, &t[i]);
        wn_cycles_begin(&c);
        wn_mark_share(&c.pool, THREADS);
        helper h[THREADS];
        pthread_t id[THREADS];
        size_t scanned = 0;
        for (int i = 0; i < THREADS; i++) {
            h[i].c = &c;
            wn_mark_make(&h[i].m, &c.pool);
        }
        assert_true(wn_cycles_claim(&c, t));
        wn_mark_push(&h[0].m, t);
        for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&id[i], NULL, help, &h[i]), 0);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(id[i], NULL);
            scanned += h[i].scanned;
            assert_false(h[i].m.failed);
            wn_mark_drop(&h[i].m);
        }
        /* A mark that two threads lost to each other is made again, or left to trial deletion: never too few scans. */
        assert_true(scanned >= N);
        size_t zero = 0;
        t[0].count = 1;
        assert_true(wn_cycles_search(&c, toy_count, NULL, toy_fetch, toy_scan, &zero));
        assert_int_equal(c.garbage, 0);
        t[0].count = 0;
        wn_cycles_reset(&c);
    }
    free(t);
    wn_cycles_drop(&c);
}

static void marking_stops_at_its_budget_and_goes_on(void **state) {
    (void)state;
    enum { N = 50000 };
    wn_cycles c;
    size_t zero = 0, total = 0;
    assert_true(wn_cycles_make(&c));
    toy *t = toys(N);
    seed = 7;
    for (size_t i = 1; i < N; i++) {
        toy *parent = &t[random_below(i)];
        while (parent->refs == 14) parent = &t[random_below(i)];
        link_to(parent, &t[i]);
    }
    for (size_t i = 0; i < N; i++) wn_cycles_add(&c, &t[i]);
    wn_cycles_begin(&c);
    wn_cycles_claim(&c, t);
    wn_mark_push(&c.marker, t);
    for (size_t n; (n = wn_mark_drain_stack(&c.marker, 100, toy_fetch, toy_scan, wn_cycles_visit, &zero, &c));
         total += n) {
        assert_true(n <= 100);
        /* What was in the queue is on the stack again: a marker looks empty only when nothing is left. */
        assert_int_equal(wn_mark_empty(&c.marker), total + n == N);
    }
    assert_int_equal(total, N);
    free(t);
    wn_cycles_drop(&c);
}

/* ---- snapshots --------------------------------------------------------------------------------------------------- */

static volatile long present = 1;

static bool tell_the_present(void *context, void *result, size_t bytes) {
    (void)bytes;
    *(long *)result = present + *(long *)context;
    return true;
}
static bool crash(void *context, void *result, size_t bytes) {
    (void)context, (void)result, (void)bytes;
    kill(getpid(), SIGKILL);
    return true;
}
static bool give_up(void *context, void *result, size_t bytes) {
    (void)context, (void)result, (void)bytes;
    return false;
}

static bool beat(void *context, void *result, size_t bytes) {
    (void)result, (void)bytes;
    do __atomic_fetch_add((unsigned *)context, 1, __ATOMIC_RELAXED);
    while (usleep(1000) == 0 || errno == EINTR);
    return false;
}

static wn_snapshot_state outcome(wn_snapshot *s) {
    for (int i = 0; i < 20000; i++) {
        wn_snapshot_state state = wn_snapshot_poll(s);
        if (state != WN_SNAPSHOT_RUNNING) return state;
        usleep(1000);
    }
    return WN_SNAPSHOT_RUNNING;
}

static void a_snapshot_answers_crashes_or_gives_up(void **state) {
    (void)state;
    wn_snapshot s = {0};
    long add = 41;
    assert_int_equal(wn_snapshot_poll(&s), WN_SNAPSHOT_NONE);
    for (int round = 0; round < 10; round++) {
        present = 1;
        assert_true(wn_snapshot_start(&s, 100, tell_the_present, &add));
        present = 2; /* too late to be seen */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD); /* the program has no child that it could hear of */
        assert_int_equal(outcome(&s), WN_SNAPSHOT_DONE);
        assert_int_equal(*(long *)wn_snapshot_result(&s), 42);
        for (int i = 0; i < 20000 && !wn_snapshot_ended(&s); i++) usleep(1000);
        assert_true(wn_snapshot_ended(&s));
        assert_int_equal(wn_snapshot_poll(&s), WN_SNAPSHOT_DONE);
        wn_snapshot_drop(&s);
        assert_int_equal(wn_snapshot_poll(&s), WN_SNAPSHOT_NONE);
        assert_true(wn_snapshot_start(&s, 100, round % 2 ? crash : give_up, &add));
        assert_int_equal(outcome(&s), WN_SNAPSHOT_DIED);
        wn_snapshot_drop(&s);
    }
}

static void dropped_snapshots_leave_no_zombie(void **state) {
    (void)state;
    unsigned *beats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    wn_snapshot s = {0};
    for (int n = 0; n < 3; n++) {
        assert_true(wn_snapshot_start(&s, 100, beat, beats));
        wn_snapshot_drop(&s);
    }
    wn_snapshot_reap(&s);
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_int_equal(errno, ECHILD);
    munmap(beats, 4096);
}

static void a_snapshots_child_ends_soon_after_the_program(void **state) {
    (void)state;
    unsigned *beats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), before;
    pid_t program = fork();
    if (program == 0) {
        wn_snapshot s = {0};
        if (!wn_snapshot_start(&s, 100, beat, beats)) _exit(1);
        while (!__atomic_load_n(beats, __ATOMIC_RELAXED)) usleep(1000);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(program, &status, 0), program);
    assert_int_equal(status, 0);
    int tries = 0;
    do {
        before = __atomic_load_n(beats, __ATOMIC_RELAXED);
        usleep(300000);
    } while (__atomic_load_n(beats, __ATOMIC_RELAXED) != before && ++tries < 100);
    assert_true(tries < 100);
    munmap(beats, 4096);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_agree_with_the_model),
        cmocka_unit_test(counts_that_say_root_keep_an_object),
        cmocka_unit_test(a_reference_too_many_keeps_its_object),
        cmocka_unit_test(addresses_out_of_reach_are_no_members),
        cmocka_unit_test(bits_are_the_same_from_near_and_far),
        cmocka_unit_test(deep_and_wide_graphs_are_marked_whole),
        cmocka_unit_test(threads_share_the_work),
        cmocka_unit_test(marking_stops_at_its_budget_and_goes_on),
        cmocka_unit_test(a_snapshot_answers_crashes_or_gives_up),
        cmocka_unit_test(dropped_snapshots_leave_no_zombie),
        cmocka_unit_test(a_snapshots_child_ends_soon_after_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
