/* forks.c - fork() with every collector: parent and child both go on, whatever other threads were doing. */
#include "client.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Works on the heap after the fork; returns what is wrong, NULL when nothing. No cmocka in a child. */
static const char *go_on(client *c, vector *all, size_t n, long salt) {
    wn_mutator *m = c->m;
    wn_borrow(m, vector *, kept, all);
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < n; i++) {
            pair *p = kept->items[i];
            if (p->id != (long)i && p->id != (long)i + salt) return "an object has changed";
            if (p->a != kept) return "a reference has changed";
        }
        for (size_t i = (size_t)round; i < n; i += 3) {
            wn_root(m, pair *, p, wn_new(m, &pair_type));
            if (!p) return "no memory";
            p->id = (long)i + salt;
            wn_set(m, p, a, kept);
            wn_set(m, kept, items[i], p);
        }
        if (wn_collect(m, round % 3, NULL)) return "collect failed";
        if (wn_collect(m, 2, NULL)) return "collect failed";
    }
    if (wn_verify(m, stderr)) return "the verifier complains";
    return NULL;
}

static void wait_for(pid_t child) {
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) fail_msg("the child died of signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void exit_child(const char *failure) {
    if (failure) fprintf(stderr, "child: %s\n", failure);
    _exit(failure ? 1 : 0);
}

static void parent_and_child_go_on(void **state) {
    (void)state;
    client beside = client_open(NULL), c = client_open(NULL); /* fork() finds both in order */
    wn_release(beside.m, client_pair(beside.m, 1, NULL, NULL));
    wn_mutator *m = c.m;
    size_t n = client_scaled(20000);
    for (int frozen = 0; frozen < 2; frozen++) {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, all, NULL));
        if (frozen) assert_int_equal(wn_freeze(m), WN_OK);
        fflush(NULL);
        pid_t children[3];
        for (int k = 0; k < 3; k++) {
            children[k] = fork();
            assert_true(children[k] >= 0);
            if (children[k] == 0) exit_child(go_on(&c, all, n, 1000000 * (k + 1)));
        }
        const char *failure = go_on(&c, all, n, 500000000);
        if (failure) fail_msg("parent: %s", failure);
        for (int k = 0; k < 3; k++) wait_for(children[k]);
        if (frozen) assert_int_equal(wn_unfreeze(m), WN_OK);
    }
    client_collect(m);
    client_close(&c);
    client_close(&beside);
}

/* The child ends properly: detaches, frees the heap, and a child of the child does too. */
static void a_child_may_fork_and_free_the_heap(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_release(m, client_pair(m, 1, NULL, NULL));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        {
            wn_root(m, pair *, p, wn_new(m, &pair_type));
            wn_set(m, p, a, p);
        }
        if (wn_collect(m, 2, NULL)) exit_child("collect");
        if (wn_detach(m)) exit_child("detach");
        if (wn_heap_free(c.heap)) exit_child("free");
        wn_heap *other;
        if (wn_heap_new(NULL, &other) || wn_heap_free(other)) exit_child("a new heap");
        if (grandchild) {
            int status = 1;
            waitpid(grandchild, &status, 0);
            exit_child(status ? "grandchild" : NULL);
        }
        _exit(0);
    }
    assert_true(child > 0);
    wait_for(child);
    client_collect(m);
    client_close(&c);
}

/* Other threads allocate, count and collect all the time; in the child only the forking thread is left. */
static _Atomic bool enough;
static void *busy(void *data) {
    wn_mutator *m;
    if (wn_attach(data, &m)) return NULL;
    {
        wn_root(m, vector *, kept, wn_new_array(m, &vector_type, 100));
        for (size_t i = 0; kept && !atomic_load(&enough); i++) {
            wn_root(m, pair *, p, wn_new(m, &pair_type));
            if (!p) break;
            wn_set(m, p, a, kept);
            wn_set(m, kept, items[i % 100], p);
            if (i % 5000 == 0) wn_collect(m, (int)(i / 5000 % 3), NULL);
        }
    }
    wn_detach(m);
    return data;
}

static void fork_while_other_threads_run(void **state) {
    (void)state;
    if (client_sanitized()) skip(); /* the sanitizers' own run-time does not survive it */
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(2000);
    atomic_store(&enough, false);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, busy, c.heap), 0);
    const char *failure = NULL;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, all, NULL));
        for (int k = 0; k < 20 && !failure; k++) {
            for (int i = 0; i < 500 && !client_stressed(); i++) wn_release(m, client_new(m, &pair_type));
            fflush(NULL);
            pid_t child = fork();
            if (child == 0) {
                alarm(60); /* a child that hangs is a failure, not a nuisance */
                exit_child(go_on(&c, all, n, 1000));
            }
            if (child < 0) {
                failure = "fork failed";
                break;
            }
            int status = 0;
            wn_block_begin(m);
            waitpid(child, &status, 0);
            wn_block_end(m);
            if (WIFSIGNALED(status)) failure = WTERMSIG(status) == SIGALRM ? "the child hung" : "the child crashed";
            if (WIFEXITED(status) && WEXITSTATUS(status)) failure = "the child failed";
        }
        atomic_store(&enough, true);
        wn_block_begin(m);
        for (int i = 0; i < 3; i++) {
            void *result = NULL;
            pthread_join(threads[i], &result);
            if (!result) failure = "a thread had no memory";
        }
        wn_block_end(m);
        if (!failure) failure = go_on(&c, all, n, 0);
    }
    if (failure) fail_msg("%s", failure);
    client_collect(m);
    client_close(&c);
}

/* What a sleeping thread had not yet come to is done in the child, which does not have it. */
enum { LIVING = 300, CYCLES = 100, DEAD = 10000 };
static pair *living;
static _Atomic int asleep;
static void sleep_until_woken(wn_mutator *m) {
    wn_block_begin(m);
    atomic_store(&asleep, 1);
    while (atomic_load(&asleep) < 2) usleep(1000);
    wn_block_end(m);
}
static void *leave_work(void *data) {
    wn_mutator *m;
    if (wn_attach(data, &m)) return NULL;
    {
        wn_root(m, mortal *, list, NULL);
        for (long i = 0; i < DEAD; i++) {
            wn_root(m, mortal *, p, client_relic(m, i, list, NULL));
            wn_assign(m, list, p);
        }
        wn_collect(m, 2, NULL); /* those of the list are old */
        for (int i = 0; i < LIVING; i++) wn_take(m, living, client_pair(m, i, living, NULL));
        for (int i = 0; i < CYCLES; i++) {
            wn_root(m, pair *, p, client_pair(m, i, NULL, NULL));
            wn_set(m, p, a, p);
        }
    }
    sleep_until_woken(m);
    return wn_detach(m) ? NULL : data;
}

static const char *do_what_was_left(client *c) {
    wn_mutator *m = c->m;
    wn_collect_result r;
    if (!client_counts(c)) return wn_collect(m, 2, &r) ? "collect failed" : NULL;
    wn_stats s;
    if (wn_collect(m, 1, &r) || (!client_stressed() && r.collected != CYCLES)) return "young cycles are not found";
    if (wn_collect(m, 2, NULL) || client_alive(m) != LIVING) return "what is dead is still there";
    if (client_total(EVENT_RELEASE) != DEAD) return "release hooks did not run";
    wn_get_stats(c->heap, &s);
    if (s.tracked != LIVING) return "the statistics are wrong";
    if (s.allocated_objects < LIVING + CYCLES + DEAD) return "the statistics of allocation are wrong";
    if (wn_forget_global(m, &living)) return "a global is lost";
    return wn_detach(m) || wn_heap_free(c->heap) ? "the heap cannot be freed" : NULL;
}

/* Forks while a thread sleeps in a blocking section at the end of its work, and wakes it when the child has done its.
 */
static void fork_beside_a_sleeper(client *c, void *(*work)(void *heap), const char *(*in_child)(client *c)) {
    atomic_store(&asleep, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, work, c->heap), 0);
    wn_block_begin(c->m);
    while (!atomic_load(&asleep)) usleep(1000);
    wn_block_end(c->m);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        exit_child(in_child(c));
    }
    assert_true(child > 0);
    wait_for(child);
    atomic_store(&asleep, 2);
    void *result = NULL;
    wn_block_begin(c->m);
    pthread_join(thread, &result);
    wn_block_end(c->m);
    assert_non_null(result);
}

static void a_child_does_what_a_sleeping_thread_left(void **state) {
    (void)state;
    if (client_sanitized()) skip(); /* as above */
    wn_options o = wn_options_default();
    o.reclaim_slice = 100;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    assert_int_equal(wn_global(c.heap, &living), WN_OK);
    wn_disable(c.heap);
    fork_beside_a_sleeper(&c, leave_work, do_what_was_left);
    wn_enable(c.heap);
    client_collect(m);
    if (client_counts(&c)) assert_int_equal(client_alive(m), LIVING);
    assert_int_equal(wn_forget_global(m, &living), WN_OK);
    client_close(&c);
}

/* What a sleeping thread allocated from goes back in the child like all other memory. */
enum { SIZES = 40 };
static void *make_all_sizes(void *data) {
    wn_mutator *m;
    if (wn_attach(data, &m)) return NULL;
    for (size_t i = 0; i < SIZES; i++) {
        wn_root(m, blob *, b, client_new_array(m, &blob_type, 200 * i));
        wn_take(m, living, client_pair(m, (long)i, living, b));
    }
    wn_collect(m, 2, NULL);
    sleep_until_woken(m);
    return wn_detach(m) ? NULL : data;
}

static const char *let_go_of_all(client *c) {
    wn_stats s;
    wn_assign(c->m, living, NULL);
    for (int i = 0; i < 2; i++)
        if (wn_collect(c->m, 2, NULL)) return "collect failed";
    wn_trim(c->m);
    wn_get_stats(c->heap, &s);
    return s.heap_bytes ? "blocks are kept for a thread that is not there" : NULL;
}

static void a_child_has_the_memory_of_a_sleeping_thread(void **state) {
    (void)state;
    if (client_sanitized()) skip(); /* as above */
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    assert_int_equal(wn_global(c.heap, &living), WN_OK);
    fork_beside_a_sleeper(&c, make_all_sizes, let_go_of_all);
    wn_assign(m, living, NULL);
    assert_int_equal(wn_forget_global(m, &living), WN_OK);
    client_close(&c);
}

/* A thread that is in the middle of a finalizer and has slots in reserve: in the child neither is there. */
static atomic_int in_finalizer;
static void finalize_until_told(wn_mutator *m, mortal *self) {
    (void)self;
    wn_release(m, client_pair(m, 2, NULL, NULL));
    wn_block_begin(m);
    atomic_store(&in_finalizer, 1);
    while (atomic_load(&in_finalizer) < 2) usleep(1000);
    wn_block_end(m);
}
static void *die_and_hold(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    {
        wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
        p->will = finalize_until_told;
        wn_set(m, p, a, p);
    }
    bool failed = wn_collect(m, 2, NULL);
    return wn_detach(m) || failed ? heap : NULL;
}

static const char *collect_alone(client *c, size_t objects) {
    wn_collect_result r;
    if (wn_freeze(c->m)) return "freeze failed";
    if (!client_stressed() && wn_frozen_count(c->heap) > objects) return "what is no object is frozen";
    if (wn_unfreeze(c->m) || wn_collect(c->m, 2, &r)) return "collect failed";
    if (!client_stressed() && r.collected > objects) return "what is no object is collected";
    return wn_verify(c->m, stderr) ? "the verifier complains" : NULL;
}

static void a_child_has_nothing_of_a_thread_in_a_finalizer(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    client c = client_open(NULL);
    atomic_store(&in_finalizer, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, die_and_hold, c.heap), 0);
    wn_block_begin(c.m);
    while (!atomic_load(&in_finalizer)) usleep(1000);
    wn_block_end(c.m);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(30);
        exit_child(collect_alone(&c, 10));
    }
    assert_true(child > 0);
    wait_for(child);
    atomic_store(&in_finalizer, 2);
    void *failure = NULL;
    wn_block_begin(c.m);
    pthread_join(thread, &failure);
    wn_block_end(c.m);
    assert_null(failure);
    client_close(&c);
}

/* Two threads fork, one of them where no collection may begin, over and over. */
static void fork_and_wait(wn_mutator *m, const wn_event *event, void *data);

/* Where a listener was being called when the process was forked, nobody is calling it any more. */
static void listen_in_child(wn_heap *heap) {
    alarm(20);
    wn_remove_listener(heap, fork_and_wait, NULL);
    _exit(0);
}

static void *fork_in_a_scope(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return heap;
    bool failed = false;
    for (int i = 0; i < 50; i++) {
        wn_no_collect_begin(m);
        pid_t child = fork();
        if (child == 0) listen_in_child(heap);
        wn_no_collect_end(m);
        int status = -1;
        wn_block_begin(m);
        failed |= child < 0 || waitpid(child, &status, 0) != child || status;
        wn_block_end(m);
    }
    return wn_detach(m) || failed ? heap : NULL;
}

static void two_fork_at_once_and_one_in_a_no_collect_scope(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    client c = client_open(NULL);
    fflush(NULL);
    alarm(60); /* the failure is that they wait for each other */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fork_in_a_scope, c.heap), 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        assert_true(child > 0);
        wn_block_begin(c.m);
        wait_for(child);
        wn_block_end(c.m);
    }
    void *failure = NULL;
    wn_block_begin(c.m);
    pthread_join(thread, &failure);
    wn_block_end(c.m);
    alarm(0);
    assert_null(failure);
    client_close(&c);
}

/* A thread that attaches is in no heap yet, so no fork waits for it: it is held up where it has just taken a lock. */
static _Thread_local bool lingers;
static atomic_bool lingering;
int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock) {
    if (lingers) {
        lingers = false;
        atomic_store(&lingering, true);
        usleep(50000);
    }
    return __real_pthread_mutex_unlock(lock);
}
static void *attach_slowly(void *heap) {
    wn_mutator *m;
    lingers = true;
    return wn_attach(heap, &m) || wn_detach(m) ? heap : NULL;
}

static void a_child_attaches_whoever_was_attaching(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    client c = client_open(NULL);
    atomic_store(&lingering, false);
    fflush(NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, attach_slowly, c.heap), 0);
    while (!atomic_load(&lingering)) sched_yield();
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        if (wn_detach(c.m) || wn_attach(c.heap, &c.m)) exit_child("cannot attach anew");
        wn_release(c.m, wn_new(c.m, &pair_type));
        exit_child(wn_detach(c.m) || wn_heap_free(c.heap) ? "cannot free the heap" : NULL);
    }
    void *failure = NULL;
    wn_block_begin(c.m);
    pthread_join(thread, &failure);
    wait_for(child);
    wn_block_end(c.m);
    assert_null(failure);
    client_close(&c);
}

/* On whichever thread it is called. */
static atomic_int listener_forked;
static void fork_and_wait(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    if (event->kind != WN_EVENT_COLLECT_START && event->kind != WN_EVENT_COLLECT_STOP) return;
    pid_t child = fork();
    if (child == 0) _exit(0);
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status) atomic_store(&listener_forked, -1000);
    atomic_fetch_add(&listener_forked, 1);
}

static void a_listener_may_fork(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    client c = client_open(NULL);
    atomic_store(&listener_forked, 0);
    assert_int_equal(wn_add_listener(c.heap, fork_and_wait, NULL), WN_OK);
    fflush(NULL);
    alarm(60);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fork_in_a_scope, c.heap), 0);
    for (int i = 0; i < 20; i++) client_collect(c.m);
    void *failure = NULL;
    wn_block_begin(c.m);
    pthread_join(thread, &failure);
    wn_block_end(c.m);
    assert_null(failure);
    alarm(0);
    assert_int_equal(wn_remove_listener(c.heap, fork_and_wait, NULL), WN_OK);
    assert_true(atomic_load(&listener_forked) >= 2);
    wn_release(c.m, client_pair(c.m, 1, NULL, NULL));
    client_collect(c.m);
    client_close(&c);
}

/* It forks when the other thread is about to wait for it to return. */
static atomic_int removing;
static void fork_while_removed(wn_mutator *m, const wn_event *event, void *data) {
    if (atomic_exchange(&removing, 1)) return;
    while (atomic_load(&removing) != 2) sched_yield();
    usleep(20000);
    fork_and_wait(m, event, data);
}

static void a_listener_that_is_removed_may_fork(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    client c = client_open(NULL);
    if (wn_heap_collector(c.heap) != WN_COLLECTOR_CONCURRENT || client_stressed()) {
        client_close(&c);
        skip();
    }
    atomic_store(&listener_forked, 0);
    atomic_store(&removing, 0);
    assert_int_equal(wn_add_listener(c.heap, fork_while_removed, NULL), WN_OK);
    fflush(NULL);
    while (!atomic_load(&removing)) wn_release(c.m, client_new(c.m, &leaf_type));
    alarm(60); /* the failure is that they wait for each other */
    atomic_store(&removing, 2);
    assert_int_equal(wn_remove_listener(c.heap, fork_while_removed, NULL), WN_OK);
    alarm(0);
    assert_int_equal(atomic_load(&listener_forked), 1);
    client_close(&c);
}

/* The one thread that is attached has written to what is old, and does not fork: another does, which is not attached.
 */
static wn_heap *of_writer;
static vector *written;
static _Atomic bool has_written, may_end;
enum { WRITTEN = 50 };

static void *write_and_block(void *data) {
    wn_mutator *m;
    if (wn_attach(of_writer, &m)) return NULL;
    if (wn_global(of_writer, &written)) return NULL;
    wn_take(m, written, wn_new_array(m, &vector_type, WRITTEN));
    for (int i = 0; i < 2; i++) wn_collect(m, 0, NULL);
    for (long i = 0; i < WRITTEN; i++) {
        pair *p = wn_new(m, &pair_type);
        p->id = i;
        wn_move(m, written, items[i], p);
    }
    wn_block_begin(m);
    atomic_store(&has_written, true);
    while (!atomic_load(&may_end)) sched_yield();
    wn_block_end(m);
    wn_forget_global(m, &written);
    wn_detach(m);
    return data;
}

static const char *look_at_written(void) {
    wn_mutator *m;
    if (wn_attach(of_writer, &m)) return "attach";
    for (int round = 0; round < 3; round++) {
        for (long i = 0; i < WRITTEN; i++) {
            if (!wn_is_object(m, written->items[i])) return "an object is gone";
            if (((pair *)written->items[i])->id != i) return "an object has changed";
        }
        for (int i = 0; i < 20000 && !client_stressed(); i++) wn_release(m, wn_new(m, &pair_type));
        if (wn_collect(m, round, NULL)) return "collect failed";
    }
    return wn_verify(m, stderr) ? "the verifier complains" : NULL;
}

static void who_forks_need_not_be_attached(void **state) {
    (void)state;
    if (client_sanitized()) skip();
    client_forget();
    wn_options o = wn_options_default();
    o.pretenure = WN_NEVER;
    o.single_thread = true; /* in the child, nobody else is attached */
    assert_int_equal(wn_heap_new(&o, &of_writer), WN_OK);
    atomic_store(&has_written, false);
    atomic_store(&may_end, false);
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, write_and_block, of_writer), 0);
    while (!atomic_load(&has_written)) sched_yield();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        exit_child(look_at_written());
    }
    int status = -1;
    waitpid(child, &status, 0);
    atomic_store(&may_end, true);
    void *result = NULL;
    pthread_join(writer, &result);
    assert_non_null(result);
    assert_int_equal(status, 0);
    assert_int_equal(wn_heap_free(of_writer), WN_OK);
}

/* What a child makes does not lie beside what it shares with its parent, not even where something was freed. */
static void a_childs_objects_have_pages_of_their_own(void **state) {
    (void)state;
    enum { MOST = 3000 };
    const size_t many = client_stressed() ? MOST / 3 : MOST; /* each is made with two looks at all of them */
    client c = client_open(NULL);
    if (!client_counts(&c)) {
        client_close(&c);
        skip();
    }
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, many));
        for (size_t i = 0; i < many; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            static uintptr_t block[MOST];
            for (size_t i = 0; i < many; i++) {
                block[i] = (uintptr_t)all->items[i] >> 15;
                if (i % 2 == 0) wn_set(m, all, items[i], NULL);
            }
            for (size_t i = 0; i < many; i += 2) {
                wn_move(m, all, items[i], wn_new(m, &pair_type));
                for (size_t k = 1; k < many; k += 100)
                    if ((uintptr_t)all->items[i] >> 15 == block[k])
                        exit_child("a new object on a page of the parent's");
            }
            exit_child(NULL);
        }
        assert_true(child > 0);
        wait_for(child);
    }
    client_close(&c);
}

/* A callback that is due for a thread that cannot run it yet, and that a child does not have. */
static _Atomic int stage;
static _Atomic unsigned called_back;
static void call_back(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m, (void)ref, (void)data;
    called_back++;
}
static void *let_go_in_a_scope(void *data) {
    wn_mutator *m;
    if (wn_attach(data, &m)) abort();
    {
        wn_root(m, pair *, target, client_pair(m, 1, NULL, NULL));
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, target, call_back, NULL));
        wn_no_collect_begin(m);
        wn_assign(m, target, NULL);
        wn_block_begin(m);
        stage = 1;
        while (stage != 2) usleep(1000);
        wn_block_end(m);
        wn_no_collect_end(m);
        wn_poll(m);
        (void)w;
    }
    wn_detach(m);
    return NULL;
}

static void a_child_runs_callbacks_that_were_due(void **state) {
    (void)state;
    client c = client_open(NULL);
    if (!client_counts(&c)) {
        client_close(&c);
        skip();
    }
    stage = 0;
    called_back = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, let_go_in_a_scope, c.heap), 0);
    wn_block_begin(c.m);
    while (stage != 1) usleep(1000);
    wn_block_end(c.m);
    assert_int_equal(called_back, 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        wn_poll(c.m);
        exit_child(called_back == 1 ? NULL : "the callback was lost");
    }
    assert_true(child > 0);
    wait_for(child);
    stage = 2;
    wn_block_begin(c.m);
    pthread_join(thread, NULL);
    wn_block_end(c.m);
    assert_int_equal(called_back, 1);
    client_close(&c);
}

/* The same of a thread that is in the middle of a callback, which others are to follow. */
enum { CALLS = 5 };
static void call_and_block(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref, (void)data;
    called_back++;
    if (stage) return;
    wn_block_begin(m);
    stage = 1;
    while (stage != 2) usleep(1000);
    wn_block_end(m);
}
static void *let_go_of_many(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) abort();
    {
        wn_root(m, vector *, refs, client_new_array(m, &vector_type, CALLS));
        wn_root(m, vector *, targets, client_new_array(m, &vector_type, CALLS));
        for (long i = 0; i < CALLS; i++) {
            wn_move(m, targets, items[i], client_pair(m, i, NULL, NULL));
            wn_move(m, refs, items[i], wn_weakref_new(m, targets->items[i], call_and_block, NULL));
        }
        wn_assign(m, targets, NULL);
        wn_collect(m, 2, NULL);
    }
    wn_detach(m);
    return NULL;
}

static void a_child_runs_the_callbacks_after_one_that_blocks(void **state) {
    (void)state;
    for (int attached = 0; attached < 2; attached++) {
        client c = client_open(NULL);
        stage = 0;
        called_back = 0;
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, let_go_of_many, c.heap), 0);
        wn_block_begin(c.m);
        while (stage != 1) usleep(1000);
        wn_block_end(c.m);
        if (!attached) assert_int_equal(wn_detach(c.m), WN_OK);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            if (!attached && wn_attach(c.heap, &c.m)) exit_child("cannot attach");
            wn_poll(c.m);
            if (wn_collect(c.m, 2, NULL)) exit_child("collect failed");
            exit_child(called_back == CALLS ? NULL : "callbacks were lost");
        }
        assert_true(child > 0);
        stage = 2;
        if (!attached) assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
        wn_block_begin(c.m);
        pthread_join(thread, NULL);
        wn_block_end(c.m);
        wait_for(child);
        assert_int_equal(called_back, CALLS);
        client_close(&c);
    }
}

/* The thread that runs finalizers is not in the child, which has one of its own. */
static const char *wait_for_a_finalizer(client *c) {
    wn_release(c->m, client_mortal(c->m, 2, NULL, NULL));
    if (wn_collect(c->m, 2, NULL)) return "collect failed";
    while (!client_finalized[2]) wn_poll(c->m);
    return NULL;
}
static void a_child_has_a_finalizer_thread_of_its_own(void **state) {
    (void)state;
    if (client_sanitized()) skip(); /* no threads in a child */
    wn_options o = wn_options_default();
    o.finalizer_thread = true;
    client c = client_open(&o);
    wn_release(c.m, client_mortal(c.m, 1, NULL, NULL));
    client_collect(c.m);
    while (!client_finalized[1]) wn_poll(c.m);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        exit_child(wait_for_a_finalizer(&c));
    }
    assert_true(child > 0);
    wait_for(child);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parent_and_child_go_on),
        cmocka_unit_test(a_child_may_fork_and_free_the_heap),
        cmocka_unit_test(fork_while_other_threads_run),
        cmocka_unit_test(a_child_does_what_a_sleeping_thread_left),
        cmocka_unit_test(a_child_has_the_memory_of_a_sleeping_thread),
        cmocka_unit_test(who_forks_need_not_be_attached),
        cmocka_unit_test(a_child_has_nothing_of_a_thread_in_a_finalizer),
        cmocka_unit_test(two_fork_at_once_and_one_in_a_no_collect_scope),
        cmocka_unit_test(a_child_attaches_whoever_was_attaching),
        cmocka_unit_test(a_listener_may_fork),
        cmocka_unit_test(a_listener_that_is_removed_may_fork),
        cmocka_unit_test(a_childs_objects_have_pages_of_their_own),
        cmocka_unit_test(a_child_runs_callbacks_that_were_due),
        cmocka_unit_test(a_child_runs_the_callbacks_after_one_that_blocks),
        cmocka_unit_test(a_child_has_a_finalizer_thread_of_its_own),
    };
    return CLIENT_MAIN("forks", tests);
}
