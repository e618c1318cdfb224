/* heaps.c - several heaps in a process, several threads on a heap, blocking sections, and options by name. */
#include "client.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- several heaps ----------------------------------------------------------------------------------------------- */

static void heaps_are_independent(void **state) {
    (void)state;
    enum { HEAPS = 8 };
    client c[HEAPS];
    for (int h = 0; h < HEAPS; h++) {
        assert_int_equal(wn_heap_new(NULL, &c[h].heap), WN_OK);
        assert_int_equal(wn_attach(c[h].heap, &c[h].m), WN_OK); /* one thread, many heaps */
    }
    client_forget();
    for (int h = 0; h < HEAPS; h++) {
        assert_ptr_equal(wn_current(c[h].heap), c[h].m);
        for (int g = 0; g < h; g++) assert_true(c[h].m != c[g].m);
    }
    for (int round = 0; round < 20; round++)
        for (int h = 0; h < HEAPS; h++) {
            wn_mutator *m = c[h].m;
            wn_root(m, mortal *, p, client_relic(m, h, NULL, NULL));
            wn_set(m, p, a, p);
            assert_true(wn_is_object(m, p));
            assert_false(wn_is_object(c[(h + 1) % HEAPS].m, p));
        }
    client_collect(c[3].m);
    assert_int_equal(client_released[3], 20);
    for (int h = 0; h < HEAPS; h++) {
        client_collect(c[h].m);
        assert_int_equal(client_released[h], 20);
    }
    for (int h = HEAPS - 1; h >= 0; h -= 2) client_close(&c[h]);
    {
        wn_mutator *m = c[0].m; /* the others go on */
        wn_root(m, pair *, p, client_pair(m, 5, NULL, NULL));
        client_collect(m);
        assert_int_equal(p->id, 5);
    }
    for (int h = 0; h < HEAPS; h += 2) client_close(&c[h]);
}

static void heaps_come_and_go(void **state) {
    (void)state;
    for (int i = 0; i < (client_sanitized() ? 20 : 200); i++) {
        wn_heap *heap;
        wn_mutator *m;
        assert_int_equal(wn_heap_new(NULL, &heap), WN_OK);
        assert_int_equal(wn_attach(heap, &m), WN_OK);
        assert_int_equal(wn_attach(heap, &m), WN_ERR_STATE); /* twice */
        m = wn_current(heap);
        wn_release(m, client_pair(m, 1, NULL, NULL));
        {
            wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
            wn_set(m, p, a, p);
        }
        assert_int_equal(wn_heap_free(heap), WN_ERR_STATE); /* a mutator is left */
        assert_int_equal(wn_detach(m), WN_OK);
        assert_null(wn_current(heap));
        assert_int_equal(wn_heap_free(heap), WN_OK);
    }
    assert_int_equal(wn_heap_free(NULL), WN_OK);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

enum { THREADS = 4 };
typedef struct worker {
    pthread_t thread;
    wn_heap *heap;
    int number;
    long done;
    const char *failure; /* cmocka's assertions belong to the main thread */
} worker;
#define CHECK(w, condition)                                           \
    do {                                                              \
        if (!(condition) && !(w)->failure) (w)->failure = #condition; \
    } while (0)

static void run_threads(wn_heap *heap, void *(*body)(void *), worker *w) {
    for (int i = 0; i < THREADS; i++) {
        w[i] = (worker){.heap = heap, .number = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, body, &w[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        if (w[i].failure) fail_msg("thread %d: not so: %s", i, w[i].failure);
}

/* Each thread builds, keeps and drops its own, while all of them collect. */
static void *own_objects(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    size_t rounds = client_scaled(400) + 3, n = client_scaled(1000);
    {
        wn_root(m, vector *, kept, wn_new_array(m, &vector_type, n));
        for (size_t r = 0; kept && r < rounds; r++) {
            for (size_t i = r % 7; i < n; i += 7) {
                wn_root(m, pair *, p, wn_new(m, &pair_type));
                if (!p) break;
                p->id = w->number * 1000000 + (long)i;
                wn_set(m, p, a, kept);
                wn_set(m, kept, items[i], p);
            }
            if (r % 97 == 0) wn_collect(m, (int)(r % 3), NULL);
            for (size_t i = 0; i < n; i++) {
                pair *p = kept->items[i];
                CHECK(w, !p || p->id == w->number * 1000000 + (long)i);
                CHECK(w, !p || p->a == kept);
            }
            w->done++;
        }
        CHECK(w, kept != NULL);
    }
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void threads_with_their_own_objects(void **state) {
    (void)state;
    client c = client_open(NULL);
    worker w[THREADS];
    wn_block_begin(c.m);
    run_threads(c.heap, own_objects, w);
    wn_block_end(c.m);
    client_collect(c.m);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    if (client_counts(&c)) assert_int_equal(client_alive(c.m), 0);
    client_close(&c);
}

/* One graph for all, under the client's own lock, taken in a blocking section. */
static struct {
    pthread_mutex_t lock;
    vector *shared;
    size_t made; /* under the lock */
} common = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock_common(wn_mutator *m) {
    if (pthread_mutex_trylock(&common.lock) == 0) return;
    wn_block_begin(m);
    pthread_mutex_lock(&common.lock);
    wn_block_end(m);
}

enum { SHARED = 64 };
static void *shared_objects(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    unsigned long long seed = 88172645463325252ull + (unsigned long long)w->number * 977;
    size_t rounds = client_scaled(60000) + 50;
    {
        wn_root(m, mortal *, hand, NULL); /* what this thread carries from one place to another */
        for (size_t r = 0; r < rounds; r++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            size_t i = seed % SHARED, k = (seed >> 8) % SHARED;
            lock_common(m);
            switch (seed >> 20 & 7) {
            case 0:
            case 1: wn_take(m, hand, wn_load(m, common.shared, items[i])); break;
            case 2: wn_set(m, common.shared, items[i], hand); break;
            case 3: wn_set(m, common.shared, items[i], NULL); break;
            case 4:
            case 5: {
                wn_root(m, mortal *, fresh, wn_new(m, &relic_type));
                if (!fresh) break;
                common.made++;
                fresh->id = w->number;
                wn_set(m, fresh, a, common.shared->items[k]);
                wn_set(m, fresh, b, hand);
                wn_set(m, common.shared, items[i], fresh);
                break;
            }
            case 6:
                if (common.shared->items[i]) wn_set(m, (mortal *)common.shared->items[i], a, common.shared->items[k]);
                break;
            default:
                if (common.shared->items[i]) wn_set(m, (mortal *)common.shared->items[i], b, NULL);
                break;
            }
            pthread_mutex_unlock(&common.lock);
            if (hand) CHECK(w, hand->id >= 0 && hand->id < THREADS); /* the object it carries is alive */
            if (hand && seed % 3 == 0) {
                wn_hold(m, mortal *, again, hand); /* counted by several threads at the same time */
                wn_retain(m, again);
                wn_release(m, again);
            }
            if (r % 10007 == 0) wn_collect(m, (int)(r % 3), NULL);
            wn_poll(m);
        }
    }
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void threads_with_shared_objects(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    common.made = 0;
    common.shared = client_new_array(m, &vector_type, SHARED);
    assert_int_equal(wn_global(c.heap, &common.shared), WN_OK);
    worker w[THREADS];
    wn_block_begin(m);
    run_threads(c.heap, shared_objects, w);
    wn_block_end(m);
    assert_int_equal(wn_verify(m, stderr), 0);
    client_collect(m);
    assert_int_equal(wn_verify(m, stderr), 0);
    assert_int_equal(wn_forget_global(m, &common.shared), WN_OK);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), common.made);
    client_close(&c);
}

/* Objects travel from hand to hand: made by one thread, used by the next, dropped by a third. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    mortal *slot[16];
    size_t in, out, made;
    bool full_stop;
} belt = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *along_the_belt(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    size_t n = client_scaled(20000) + 100;
    if (w->number < 2) {
        for (size_t i = 0; i < n; i++) {
            wn_root(m, mortal *, p, wn_new(m, &mortal_type));
            if (!p) break;
            p->id = w->number;
            wn_move(m, p, a, wn_new(m, &pair_type));
            wn_set(m, p, b, i % 2 ? p : NULL);
            wn_block_begin(m);
            pthread_mutex_lock(&belt.lock);
            while (belt.in - belt.out == 16) pthread_cond_wait(&belt.changed, &belt.lock);
            wn_block_end(m);
            wn_assign(m, belt.slot[belt.in % 16], p);
            belt.in++;
            belt.made++;
            pthread_cond_broadcast(&belt.changed);
            pthread_mutex_unlock(&belt.lock);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            wn_block_begin(m);
            pthread_mutex_lock(&belt.lock);
            while (belt.in == belt.out) pthread_cond_wait(&belt.changed, &belt.lock);
            wn_block_end(m);
            wn_root(m, mortal *, p, wn_keep(m, belt.slot[belt.out % 16]));
            wn_take(m, belt.slot[belt.out % 16], NULL);
            belt.out++;
            pthread_cond_broadcast(&belt.changed);
            pthread_mutex_unlock(&belt.lock);
            CHECK(w, p && (p->id == 0 || p->id == 1) && p->a);
            wn_set(m, p, a, NULL);
            wn_root(m, mortal *, q, wn_keep(m, p));
            wn_take(m, p, NULL);
            CHECK(w, q->a == NULL);
        }
    }
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void objects_travel_between_threads(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int i = 0; i < 16; i++) assert_int_equal(wn_global(c.heap, &belt.slot[i]), WN_OK);
    belt.in = belt.out = belt.made = 0;
    worker w[THREADS];
    wn_block_begin(m);
    run_threads(c.heap, along_the_belt, w);
    wn_block_end(m);
    for (int i = 0; i < 16; i++) assert_int_equal(wn_forget_global(m, &belt.slot[i]), WN_OK);
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_total(EVENT_FINALIZE), belt.made);
    assert_int_equal(client_total(EVENT_RELEASE), belt.made);
    client_close(&c);
}

/* Threads attach, work a little and detach, over and over, some while holding the last reference to much. */
static void *short_lived(void *data) {
    worker *w = data;
    for (size_t r = 0; r < client_scaled(2000) + 10; r++) {
        wn_mutator *m;
        if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
        CHECK(w, wn_current(w->heap) == m);
        {
            wn_root(m, pair *, list, NULL);
            for (int i = 0; i < 50; i++) {
                wn_root(m, pair *, p, wn_new(m, &pair_type));
                if (!p) break;
                wn_set(m, p, a, list);
                wn_assign(m, list, p);
            }
        }
        CHECK(w, wn_detach(m) == WN_OK);
        CHECK(w, wn_current(w->heap) == NULL);
        w->done++;
    }
    return NULL;
}

static void threads_come_and_go(void **state) {
    (void)state;
    client c = client_open(NULL);
    worker w[THREADS];
    wn_block_begin(c.m);
    run_threads(c.heap, short_lived, w);
    wn_block_end(c.m);
    client_collect(c.m);
    wn_stats s;
    wn_get_stats(c.heap, &s);
    if (client_counts(&c)) assert_int_equal(client_alive(c.m), 0);
    assert_true(s.heap_bytes < 64u << 20);
    client_close(&c);
}

/* A thread that drops much and leaves, or falls asleep: what it dropped is nobody's garbage for ever. */
static _Atomic int asleep;
static void *drop_and_leave(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    {
        wn_root(m, pair *, list, NULL);
        for (size_t i = 0; i < client_scaled(50000); i++) {
            wn_root(m, pair *, p, wn_new(m, &pair_type));
            if (!p) break;
            wn_set(m, p, a, list);
            wn_assign(m, list, p);
        }
    }
    wn_block_begin(m); /* much of it is still waiting to be reclaimed */
    atomic_fetch_add(&asleep, 1);
    while (w->number % 2 && atomic_load(&asleep) < 1000) usleep(1000);
    wn_block_end(m);
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void what_threads_leave_behind_is_reclaimed(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    worker w[THREADS];
    asleep = 0;
    for (int i = 0; i < THREADS; i++) {
        w[i] = (worker){.heap = c.heap, .number = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, drop_and_leave, &w[i]), 0);
    }
    wn_block_begin(m);
    while (atomic_load(&asleep) < THREADS) usleep(1000);
    for (int i = 0; i < THREADS; i += 2) pthread_join(w[i].thread, NULL);
    wn_block_end(m);
    client_collect(m);
    if (client_counts(&c)) assert_int_equal(client_alive(m), 0);
    atomic_store(&asleep, 1000);
    wn_block_begin(m);
    for (int i = 1; i < THREADS; i += 2) pthread_join(w[i].thread, NULL);
    wn_block_end(m);
    for (int i = 0; i < THREADS; i++)
        if (w[i].failure) fail_msg("thread %d: not so: %s", i, w[i].failure);
    client_collect(m);
    if (client_counts(&c)) assert_int_equal(client_alive(m), 0);
    client_close(&c);
}

/* A thread that blocks holds nobody up: collections go on, and its roots stay declared. */
static _Atomic int sleeping;
static void *sleeper(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    {
        wn_root(m, mortal *, p, wn_new(m, &relic_type));
        p->id = w->number;
        wn_set(m, p, a, p);
        wn_block_begin(m);
        atomic_fetch_add(&sleeping, 1);
        while (atomic_load(&sleeping) < 1000) usleep(1000);
        wn_block_end(m);
        CHECK(w, p->id == w->number);
        CHECK(w, p->a == p);
    }
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void blocked_threads_hold_nobody_up(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    worker w[THREADS];
    sleeping = 0;
    for (int i = 0; i < THREADS; i++) {
        w[i] = (worker){.heap = c.heap, .number = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, sleeper, &w[i]), 0);
    }
    wn_block_begin(m);
    while (atomic_load(&sleeping) < THREADS) usleep(1000);
    wn_block_end(m);
    for (int i = 0; i < 20; i++) { /* would hang if it waited for them */
        for (int k = 0; k < 1000 && !client_stressed(); k++) wn_release(m, client_new(m, &pair_type));
        client_collect(m);
    }
    assert_int_equal(wn_verify(m, stderr), 0);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    atomic_store(&sleeping, 1000);
    wn_block_begin(m);
    for (int i = 0; i < THREADS; i++) pthread_join(w[i].thread, NULL);
    wn_block_end(m);
    for (int i = 0; i < THREADS; i++)
        if (w[i].failure) fail_msg("thread %d: not so: %s", i, w[i].failure);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), THREADS);
    client_close(&c);
}

/* In a no-collect scope nothing is a safepoint, and its end is one. */
static _Atomic int holding, walked;
static bool note_walk(void *object, void *data) {
    (void)object, (void)data;
    atomic_store(&walked, 1);
    return false;
}
static void *walk_once(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    atomic_store(&holding, 1);
    while (atomic_load(&holding) != 2) wn_poll(m);
    CHECK(w, wn_each_object(m, note_walk, NULL) == WN_OK);
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void a_no_collect_scope_holds_others_off_to_its_end(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    worker w = {.heap = c.heap};
    holding = walked = 0;
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        assert_int_equal(pthread_create(&w.thread, NULL, walk_once, &w), 0);
        while (!atomic_load(&holding)) wn_poll(m);
        wn_no_collect_begin(m);
        atomic_store(&holding, 2);
        while (!__atomic_load_n(&m->poll, __ATOMIC_RELAXED)) usleep(100); /* the other wants the world */
        for (int i = 0; i < 200; i++) {
            wn_poll(m);
            wn_release(m, client_new(m, &leaf_type));
            usleep(100);
        }
        assert_int_equal(walked, 0);
        wn_no_collect_end(m);
        assert_int_equal(walked, 1);
        assert_int_equal(p->id, 1);
    }
    wn_block_begin(m);
    pthread_join(w.thread, NULL);
    wn_block_end(m);
    if (w.failure) fail_msg("not so: %s", w.failure);
    client_close(&c);
}

/* A call that takes no mutator may have to wait in a blocking section, while another thread has stopped the world. The
 * thread is in its blocking section afterwards as before. */
static bool hold_the_world(void *object, void *data) {
    (void)object, (void)data;
    atomic_store(&holding, 1);
    usleep(50000);
    return false;
}
static void *walk_and_collect(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    CHECK(w, wn_each_object(m, hold_the_world, NULL) == WN_OK);
    while (atomic_load(&holding) != 2) wn_poll(m);
    CHECK(w, wn_collect(m, 2, NULL) == WN_OK); /* would hang if it waited for the other thread */
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void a_blocking_section_lasts_to_its_end(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    worker w = {.heap = c.heap};
    holding = 0;
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL)); /* there is something to walk over */
        assert_int_equal(pthread_create(&w.thread, NULL, walk_and_collect, &w), 0);
        alarm(100);
        wn_block_begin(m);
        while (!atomic_load(&holding)) usleep(1000);
        wn_set_threshold(c.heap, 700, 10, 10);
        atomic_store(&holding, 2);
        pthread_join(w.thread, NULL);
        wn_block_end(m);
        alarm(0);
        assert_int_equal(p->id, 1);
    }
    if (w.failure) fail_msg("not so: %s", w.failure);
    client_close(&c);
}

typedef struct heard {
    _Atomic unsigned starts, stops;
} heard;
static void hear(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    heard *h = data;
    if (event->kind == WN_EVENT_COLLECT_START) atomic_fetch_add(&h->starts, 1);
    if (event->kind == WN_EVENT_COLLECT_STOP) atomic_fetch_add(&h->stops, 1);
}

/* A finalizer that waits: its thread's collection is not over, but no other has to wait for that. */
static _Atomic int waiting;
static void wait_until_told(wn_mutator *m, mortal *self) {
    (void)self;
    wn_block_begin(m);
    atomic_store(&waiting, 1);
    while (atomic_load(&waiting) < 2) usleep(1000);
    wn_block_end(m);
}

static void *collect_and_wait(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return w->failure = "attach", NULL;
    {
        wn_root(m, mortal *, p, wn_new(m, &mortal_type));
        p->id = 1;
        p->will = wait_until_told;
        wn_move(m, p, a, wn_new(m, &relic_type));
        ((mortal *)p->a)->id = 2;
        wn_set(m, p, b, p);
    }
    CHECK(w, wn_collect(m, 2, NULL) == WN_OK);
    CHECK(w, wn_detach(m) == WN_OK);
    return NULL;
}

static void a_finalizer_that_waits_holds_up_no_other_collection(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.heap_limit = 32 << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    if (!client_counts(&c)) { /* the others run one collection at a time */
        client_close(&c);
        skip();
    }
    heard h = {0, 0};
    assert_int_equal(wn_add_listener(c.heap, hear, &h), WN_OK);
    worker w = {.heap = c.heap};
    atomic_store(&waiting, 0);
    assert_int_equal(pthread_create(&w.thread, NULL, collect_and_wait, &w), 0);
    wn_block_begin(m);
    while (!atomic_load(&waiting)) usleep(1000);
    wn_block_end(m);
    for (int generation = 0; generation <= 2; generation += 2) {
        {
            wn_root(m, mortal *, p, client_relic(m, 10 + generation, NULL, NULL));
            wn_set(m, p, a, p);
        }
        wn_collect_result r;
        assert_int_equal(wn_collect(m, generation, &r), WN_OK);
        if (!client_stressed()) assert_int_equal(r.collected, 1);
        assert_int_equal(client_released[10 + generation], 1);
    }
    for (int i = 0; i < 20; i++) { /* at the limit it is what makes room */
        wn_root(m, vector *, v, client_new_array(m, &vector_type, (4 << 20) / sizeof(void *)));
        wn_set(m, v, items[0], v);
    }
    assert_int_equal(client_released[1] + client_released[2], 0);
    atomic_store(&waiting, 2);
    wn_block_begin(m);
    pthread_join(w.thread, NULL);
    wn_block_end(m);
    if (w.failure) fail_msg("not so: %s", w.failure);
    assert_int_equal(client_finalized[1], 1);
    assert_int_equal(client_released[1], 1);
    assert_int_equal(client_released[2], 1);
    assert_int_equal(h.starts, h.stops);
    assert_int_equal(wn_remove_listener(c.heap, hear, &h), WN_OK);
    client_close(&c);
}

/* ---- threads in two heaps ---------------------------------------------------------------------------------------- */

enum { TURNS = 100 };
typedef struct between {
    wn_heap *heap[2];
    unsigned first;   /* the one it works on, at first */
    bool keeps_apart; /* blocks in the one it does not work on, and takes turns */
    const char *failure;
    pthread_t thread;
} between;
static pthread_barrier_t both_attached;

static void *work_on_two_heaps(void *data) {
    between *w = data;
    wn_mutator *m[2];
    if (wn_attach(w->heap[0], &m[0]) || wn_attach(w->heap[1], &m[1])) return w->failure = "attach", NULL;
    wn_block_begin(m[0]);
    wn_block_begin(m[1]);
    pthread_barrier_wait(&both_attached);
    wn_block_end(m[w->first]);
    if (!w->keeps_apart) wn_block_end(m[!w->first]);
    for (unsigned i = w->first; !w->keeps_apart || i < TURNS + w->first; i++) { /* else until they are stuck */
        wn_mutator *at = m[w->keeps_apart ? i % 2 : w->first];
        wn_release(at, wn_new(at, &pair_type));
        CHECK(w, wn_collect(at, 2, NULL) == WN_OK);
        if (!w->keeps_apart) continue;
        wn_block_begin(at);
        wn_block_end(m[(i + 1) % 2]);
    }
    wn_block_end(m[(TURNS + w->first + 1) % 2]);
    CHECK(w, wn_detach(m[0]) == WN_OK);
    CHECK(w, wn_detach(m[1]) == WN_OK);
    return NULL;
}

static void work_between(const wn_options *o, bool keep_apart) {
    between w[2] = {{.first = 0, .keeps_apart = keep_apart}, {.first = 1, .keeps_apart = keep_apart}};
    for (int i = 0; i < 2; i++) assert_int_equal(wn_heap_new(o, &w[0].heap[i]), WN_OK);
    memcpy(w[1].heap, w[0].heap, sizeof w[0].heap);
    assert_int_equal(pthread_barrier_init(&both_attached, NULL, 2), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&w[i].thread, NULL, work_on_two_heaps, &w[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < 2; i++)
        if (w[i].failure) fail_msg("not so: %s", w[i].failure);
    for (int i = 0; i < 2; i++) assert_int_equal(wn_heap_free(w[0].heap[i]), WN_OK);
}

static void two_threads_work_on_two_heaps_by_turns(void **state) {
    (void)state;
    work_between(NULL, true);
}

/* Each waits in the heap in which the other one runs: the library cannot help it, but says so. */
static void threads_that_wait_for_each_other_in_two_heaps_are_named(void **state) {
    (void)state;
    if (client_sanitized() || client_stressed()) skip();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        alarm(2);
        wn_options o = wn_options_default();
        o.check = true;
        work_between(&o, false);
        _exit(0);
    }
    assert_true(child > 0);
    close(ends[1]);
    char said[4000];
    size_t n = 0;
    for (ssize_t got; n < sizeof said - 1 && (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = 0;
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!strstr(said, "waits in another heap")) fail_msg("status %#x: \"%s\"", status, said);
}

/* ---- single-threaded heaps --------------------------------------------------------------------------------------- */

static void *attach_second(void *data) {
    worker *w = data;
    wn_mutator *m = NULL;
    wn_status s = wn_attach(w->heap, &m);
    /* It is an option of counting: the others ignore it. */
    CHECK(w, s == (wn_heap_collector(w->heap) == WN_COLLECTOR_REFCOUNT ? WN_ERR_STATE : WN_OK));
    CHECK(w, !s || strlen(wn_error_message()) > 0);
    if (!s) wn_detach(m);
    return NULL;
}

static void counting_with_single_thread_refuses_a_second_thread(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.single_thread = true;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    worker w = {.heap = c.heap};
    wn_block_begin(m);
    assert_int_equal(pthread_create(&w.thread, NULL, attach_second, &w), 0);
    pthread_join(w.thread, NULL);
    wn_block_end(m);
    if (w.failure) fail_msg("second thread: not so: %s", w.failure);
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        for (int i = 0; i < 1000; i++) wn_retain(m, p);
        for (int i = 0; i < 1000; i++) wn_release(m, p);
        client_collect(m);
        assert_int_equal(client_released[1], 0);
        wn_set(m, p, a, p);
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heaps_are_independent),
        cmocka_unit_test(heaps_come_and_go),
        cmocka_unit_test(threads_with_their_own_objects),
        cmocka_unit_test(threads_with_shared_objects),
        cmocka_unit_test(objects_travel_between_threads),
        cmocka_unit_test(threads_come_and_go),
        cmocka_unit_test(what_threads_leave_behind_is_reclaimed),
        cmocka_unit_test(blocked_threads_hold_nobody_up),
        cmocka_unit_test(a_no_collect_scope_holds_others_off_to_its_end),
        cmocka_unit_test(a_blocking_section_lasts_to_its_end),
        cmocka_unit_test(a_finalizer_that_waits_holds_up_no_other_collection),
        cmocka_unit_test(two_threads_work_on_two_heaps_by_turns),
        cmocka_unit_test(threads_that_wait_for_each_other_in_two_heaps_are_named),
        cmocka_unit_test(counting_with_single_thread_refuses_a_second_thread),
    };
    return CLIENT_MAIN("heaps", tests);
}
