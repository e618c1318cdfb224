/*
 * due.c - callbacks and finalizers that are due are run, by whoever is there to do it, and callbacks first; nobody
 * waits in vain for a thread that does not come.
 *
 * Memory and threads are refused while a test wants it: the library's calls go by this program's own functions.
 */
#include "client.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

static atomic_bool no_threads, no_memory_elsewhere;
static _Thread_local bool is_main;

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg) {
    return atomic_load(&no_threads) ? EAGAIN : __real_pthread_create(t, a, run, arg);
}
void *__real_calloc(size_t, size_t);
void *__wrap_calloc(size_t n, size_t size) {
    return atomic_load(&no_memory_elsewhere) && !is_main ? NULL : __real_calloc(n, size);
}

static bool is_concurrent(const client *c) { return wn_heap_collector(c->heap) == WN_COLLECTOR_CONCURRENT; }

/* Polls, ten seconds at most. */
static bool poll_until_finalized(wn_mutator *m, unsigned n) {
    for (int i = 0; i < 10000 && client_total(EVENT_FINALIZE) < n; i++) {
        wn_poll(m);
        usleep(1000);
    }
    return client_total(EVENT_FINALIZE) == n;
}

static _Atomic unsigned starts, stops;
static void hear(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    if (event->kind == WN_EVENT_COLLECT_START) atomic_fetch_add(&starts, 1);
    if (event->kind == WN_EVENT_COLLECT_STOP) atomic_fetch_add(&stops, 1);
}

/* Mortals that are dead, and a cycle that has just begun to find that out. False: collections are not beside it. */
static bool begin_a_cycle(client *c, long n, void (*will)(wn_mutator *m, mortal *self)) {
    if (!is_concurrent(c) || client_stressed()) return false;
    atomic_store(&starts, 0);
    atomic_store(&stops, 0);
    assert_int_equal(wn_add_listener(c->heap, hear, NULL), WN_OK);
    for (long i = 0; i < n; i++) {
        wn_root(c->m, mortal *, p, client_mortal(c->m, i, NULL, NULL));
        p->will = will;
    }
    while (!atomic_load(&starts)) wn_release(c->m, client_new(c->m, &leaf_type));
    return true;
}

/* ---- the program's threads --------------------------------------------------------------------------------------- */

static void what_became_due_while_nobody_was_attached_is_run(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!begin_a_cycle(&c, 100, NULL)) {
        client_close(&c);
        skip();
    }
    assert_int_equal(wn_detach(c.m), WN_OK);
    while (!atomic_load(&stops)) usleep(1000);
    assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    assert_true(poll_until_finalized(c.m, 100));
    client_close(&c);
}

static void take_a_millisecond(wn_mutator *m, mortal *self) {
    (void)self;
    wn_block_begin(m);
    usleep(1000);
    wn_block_end(m);
}

/* More than one safepoint would run: nobody else is there for the rest. */
static void who_leaves_runs_all_that_is_due(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!begin_a_cycle(&c, 50, take_a_millisecond)) {
        client_close(&c);
        skip();
    }
    wn_block_begin(c.m);
    while (!atomic_load(&stops)) usleep(1000);
    wn_block_end(c.m);
    assert_true(client_total(EVENT_FINALIZE) > 0); /* it is a safepoint */
    assert_int_equal(wn_detach(c.m), WN_OK);
    assert_int_equal(client_total(EVENT_FINALIZE), 50);
    assert_int_equal(wn_heap_free(c.heap), WN_OK);
}

enum { WATCHED = 20 };
static atomic_bool was_called[WATCHED], over;
static void call_slowly(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref;
    take_a_millisecond(m, NULL);
    atomic_store(&was_called[(intptr_t)data], true);
}
static void expect_the_call(wn_mutator *m, mortal *self) {
    (void)m;
    if (!atomic_load(&was_called[self->id])) client_note(EVENT_OTHER, self->id);
}
static void *poll_until_over(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    while (!atomic_load(&over)) wn_poll(m);
    return wn_detach(m) ? heap : NULL;
}

static void callbacks_come_first_whichever_thread_runs_them(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    pthread_t other[2];
    atomic_store(&over, false);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&other[i], NULL, poll_until_over, c.heap), 0);
    {
        wn_root(m, vector *, watchers, client_new_array(m, &vector_type, WATCHED));
        for (long i = 0; i < WATCHED; i++) {
            atomic_store(&was_called[i], false);
            wn_root(m, mortal *, p, client_mortal(m, i, NULL, NULL));
            p->will = expect_the_call;
            wn_set(m, p, a, p);
            wn_move(m, watchers, items[i], wn_weakref_new(m, p, call_slowly, (void *)(intptr_t)i));
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_FINALIZE), WATCHED);
        assert_int_equal(client_total(EVENT_OTHER), 0);
    }
    atomic_store(&over, true);
    wn_block_begin(m);
    for (int i = 0; i < 2; i++) {
        void *failure;
        pthread_join(other[i], &failure);
        assert_null(failure);
    }
    wn_block_end(m);
    client_close(&c);
}

static atomic_int finalizing;
static void finalize_for_a_while(wn_mutator *m, mortal *self) {
    (void)self;
    wn_block_begin(m);
    atomic_store(&finalizing, 1);
    usleep(200000);
    atomic_store(&finalizing, 2);
    wn_block_end(m);
}
static void *leave_one_and_collect(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    {
        wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
        p->will = finalize_for_a_while;
        wn_set(m, p, a, p);
    }
    bool failed = wn_collect(m, 2, NULL);
    return wn_detach(m) || failed ? heap : NULL;
}

static void a_collection_waits_for_finalizers_of_other_threads(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (client_counts(&c)) { /* which does not promise it */
        client_close(&c);
        skip();
    }
    atomic_store(&finalizing, 0);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, leave_one_and_collect, c.heap), 0);
    wn_block_begin(c.m);
    while (!atomic_load(&finalizing)) usleep(100);
    wn_block_end(c.m);
    client_collect(c.m);
    assert_int_equal(atomic_load(&finalizing), 2);
    wn_block_begin(c.m);
    void *failure;
    pthread_join(other, &failure);
    wn_block_end(c.m);
    assert_null(failure);
    client_close(&c);
}

/* ---- the finalizer thread ---------------------------------------------------------------------------------------- */

static client open_with_finalizer_thread(void) {
    wn_options o = wn_options_default();
    o.finalizer_thread = true;
    return client_open(&o);
}

static void make_dead(client *c, long n, void (*will)(wn_mutator *m, mortal *self)) {
    for (long i = 0; i < n; i++) {
        wn_root(c->m, mortal *, p, client_mortal(c->m, i, NULL, NULL));
        p->will = will;
    }
}

static void the_finalizer_thread_keeps_no_heap_from_being_freed(void **state) {
    (void)state;
    client c = open_with_finalizer_thread();
    if (!is_concurrent(&c)) { /* what ignores the option runs them on this thread, 200 ms each */
        client_close(&c);
        skip();
    }
    atomic_store(&finalizing, 0);
    make_dead(&c, 5, finalize_for_a_while);
    client_collect(c.m);
    wn_block_begin(c.m);
    while (!atomic_load(&finalizing)) usleep(100);
    wn_block_end(c.m);
    assert_int_equal(wn_detach(c.m), WN_OK);
    if (wn_heap_free(c.heap)) fail_msg("%s", wn_error_message());
    assert_int_equal(atomic_load(&finalizing), 2); /* the one under way has ended, */
    assert_true(client_total(EVENT_FINALIZE) < 5); /* and the others were not begun */
    assert_int_equal(client_total(EVENT_RELEASE), 5);
}

/* A listener, and a finalizer on a thread of its own, are asked by a thread that would have to wait for itself. */
static atomic_bool nobody_attached, awake, tried;
static wn_status freed_by_finalizer, freed_by_listener;
static void free_in_finalizer(wn_mutator *m, mortal *self) {
    (void)self;
    wn_block_begin(m);
    while (!atomic_load(&nobody_attached)) usleep(1000);
    wn_block_end(m);
    atomic_store(&awake, true);
    /* Another attaches, stops the world for it and waits for this thread, which must not wait for him. */
    while (!__atomic_load_n(&m->poll, __ATOMIC_RELAXED)) usleep(1000);
    freed_by_finalizer = wn_heap_free(wn_heap_of(m));
    atomic_store(&tried, true);
}
static void free_in_listener(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    if (event->kind != WN_EVENT_COLLECT_STOP) return;
    freed_by_listener = wn_heap_free(data);
    atomic_store(&tried, true);
}

static void the_collectors_threads_do_not_free_the_heap(void **state) {
    (void)state;
    client c = open_with_finalizer_thread();
    if (!is_concurrent(&c) || client_stressed()) {
        client_close(&c);
        skip();
    }
    atomic_store(&nobody_attached, false);
    atomic_store(&awake, false);
    atomic_store(&tried, false);
    make_dead(&c, 1, free_in_finalizer);
    client_collect(c.m);
    assert_int_equal(wn_detach(c.m), WN_OK);
    atomic_store(&nobody_attached, true);
    while (!atomic_load(&awake)) usleep(1000);
    assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    assert_true(atomic_load(&tried));
    assert_int_equal(freed_by_finalizer, WN_ERR_STATE);
    atomic_store(&tried, false);
    assert_int_equal(wn_add_listener(c.heap, free_in_listener, c.heap), WN_OK);
    assert_true(begin_a_cycle(&c, 0, NULL)); /* which comes to its end when this thread has detached, if not before */
    assert_int_equal(wn_detach(c.m), WN_OK);
    while (!atomic_load(&tried)) usleep(1000);
    assert_int_equal(freed_by_listener, WN_ERR_STATE);
    assert_int_equal(wn_heap_free(c.heap), WN_OK);
}

static void without_a_finalizer_thread_the_program_runs_them(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.finalizer_thread = true;
    o.workers = 1;
    client c = client_open(&o);
    if (!begin_a_cycle(&c, 100, NULL)) {
        client_close(&c);
        skip();
    }
    atomic_store(&no_threads, true); /* the conductor is there, and it is too early for the other */
    assert_true(poll_until_finalized(c.m, 100));
    make_dead(&c, 10, NULL);
    client_collect(c.m);
    assert_int_equal(client_total(EVENT_FINALIZE), 110);
    atomic_store(&no_threads, false);
    make_dead(&c, 10, NULL);
    client_collect(c.m);
    assert_true(poll_until_finalized(c.m, 120));
    client_close(&c);
}

static void a_finalizer_thread_without_memory_tries_again(void **state) {
    (void)state;
    client c = open_with_finalizer_thread();
    if (!is_concurrent(&c)) {
        client_close(&c);
        skip();
    }
    client_collect(c.m);
    atomic_store(&no_memory_elsewhere, true);
    make_dead(&c, 5, NULL);
    client_collect(c.m);
    wn_block_begin(c.m);
    usleep(50000);
    wn_block_end(c.m);
    assert_int_equal(client_total(EVENT_FINALIZE), 0);
    atomic_store(&no_memory_elsewhere, false);
    assert_true(poll_until_finalized(c.m, 5));
    client_close(&c);
}

/* Held by nobody but the collector: what the finalizer thread has taken when it is held up, and what becomes due
 * then. */
static atomic_int held_up;
static void be_held_up(wn_mutator *m, wn_weakref *ref, void *data) {
    client_note(wn_is_object(m, ref) && data == &held_up ? EVENT_CALLBACK : EVENT_OTHER, 0);
    if (atomic_load(&held_up)) return;
    atomic_store(&held_up, 1);
    wn_block_begin(m);
    while (atomic_load(&held_up) != 2) usleep(1000);
    wn_block_end(m);
}
static void look_at_what_it_has(wn_mutator *m, mortal *self) {
    if (!wn_is_object(m, self->a) || ((mortal *)self->a)->id != 2) client_note(EVENT_OTHER, 0);
}

static void what_is_due_lives_until_it_has_run(void **state) {
    (void)state;
    client c = open_with_finalizer_thread();
    wn_mutator *m = c.m;
    if (!is_concurrent(&c)) {
        client_close(&c);
        skip();
    }
    atomic_store(&held_up, 0);
    {
        wn_root(m, vector *, weak, client_new_array(m, &vector_type, 2));
        {
            wn_root(m, pair *, target, client_pair(m, 0, NULL, NULL));
            for (int i = 0; i < 2; i++) wn_move(m, weak, items[i], wn_weakref_new(m, target, be_held_up, &held_up));
        }
        client_collect(m);
        wn_block_begin(m);
        while (!atomic_load(&held_up)) usleep(1000);
        wn_block_end(m);
        wn_set(m, weak, items[0], NULL);
        {
            wn_root(m, mortal *, dies, client_mortal(m, 1, NULL, NULL));
            dies->will = look_at_what_it_has;
            wn_move(m, dies, a, client_relic(m, 2, NULL, NULL));
            wn_root(m, pair *, target, client_pair(m, 0, NULL, NULL));
            wn_move(m, weak, items[1], wn_weakref_new(m, target, be_held_up, &held_up));
        }
        client_collect(m);
    }
    for (int i = 0; i < 2; i++) client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    assert_int_equal(client_total(EVENT_CALLBACK), 1);
    atomic_store(&held_up, 2);
    assert_true(poll_until_finalized(m, 1));
    assert_int_equal(client_total(EVENT_CALLBACK), 3);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    client_close(&c);
}

int main(void) {
    is_main = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_became_due_while_nobody_was_attached_is_run),
        cmocka_unit_test(who_leaves_runs_all_that_is_due),
        cmocka_unit_test(callbacks_come_first_whichever_thread_runs_them),
        cmocka_unit_test(a_collection_waits_for_finalizers_of_other_threads),
        cmocka_unit_test(the_finalizer_thread_keeps_no_heap_from_being_freed),
        cmocka_unit_test(the_collectors_threads_do_not_free_the_heap),
        cmocka_unit_test(without_a_finalizer_thread_the_program_runs_them),
        cmocka_unit_test(a_finalizer_thread_without_memory_tries_again),
        cmocka_unit_test(what_is_due_lives_until_it_has_run),
    };
    return CLIENT_MAIN("due", tests);
}
