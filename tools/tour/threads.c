/* threads.c - "not thread safe": what two threads do to one count, and what the library does about it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tour.h"

/* A count as CPython's was written: load, add, store. The three steps are relaxed atomics, so that C gives the race a
 * meaning; on the machine they are the same three instructions. */
static _Atomic long naive;
static _Atomic bool go;

typedef struct hammer {
    pthread_t thread;
    long n, step;
} hammer;

static void *hammer_naive(void *data) {
    hammer *h = data;
    while (!atomic_load(&go)) {
    }
    for (long i = 0; i < h->n; i++) {
        long reg = atomic_load_explicit(&naive, memory_order_relaxed); /* CPU register <- refcnt */
        reg += h->step;
        atomic_store_explicit(&naive, reg, memory_order_relaxed); /* refcnt <- CPU register */
    }
    return NULL;
}

static void start(hammer *h, void *(*run)(void *)) {
    if (pthread_create(&h->thread, NULL, run, h)) {
        fputs("winnow tour: no thread can be started\n", stderr);
        exit(EXIT_FAILURE);
    }
}

/* Two threads change a count n times each, by `step`; returns how many changes were lost. On a busy machine the two may
 * not run at the same moment: then again, up to 20 times. */
static long lost_updates(long n, long step, int attempts) {
    hammer h[2] = {{.n = n, .step = step}, {.n = n, .step = step}};
    atomic_store(&naive, 0);
    atomic_store(&go, false);
    for (int i = 0; i < 2; i++) start(&h[i], hammer_naive);
    atomic_store(&go, true);
    for (int i = 0; i < 2; i++) pthread_join(h[i].thread, NULL);
    long lost = 2 * n - atomic_load(&naive) / step;
    return lost || attempts == 1 ? lost : lost_updates(n, step, attempts - 1);
}

static void the_race(tour *t) {
    long n = (long)tour_scale(2000000);
    tour_say(
        t,
        "Counting up is three steps: load, add, store. What if two threads do them at once? Here is such a count in "
        "plain C, and two threads that each change it %ld times:",
        n);
    long lost_down = lost_updates(n, -1, 20), lost_up = lost_updates(n, 1, 20);
    tour_count(t, "decrements lost", (uint64_t)lost_down);
    tour_claim(t, lost_down >= 0 && lost_down <= 2 * n,
               "Lost decrements leave the count too high%s: the object is never freed, a leak.",
               lost_down ? "" : " (none were lost in this run, which is what makes the bug so hard to find)");
    tour_quiz(t, 2, "What happens if two threads try to increase the same count at once?");
    tour_answer(t,
                "Even worse: the count stays too low for good, and the object is freed while it is still referenced.");
    tour_count(t, "increments lost", (uint64_t)lost_up);
    tour_claim(t, lost_up >= 0 && lost_up <= 2 * n,
               "Each lost increment is a reference that points to freed memory one day%s.",
               lost_up ? "" : " (none were lost in this run)");
}

typedef struct worker {
    hammer hammer;
    wn_heap *heap;
    node **shared;
    bool ok;
} worker;

static void *count_in_the_library(void *data) {
    worker *w = data;
    wn_mutator *m;
    if (wn_attach(w->heap, &m)) return NULL;
    {
        wn_borrow(m, node *, o, *w->shared);
        while (!atomic_load(&go)) wn_poll(m);
        for (long i = 0; i < w->hammer.n; i++) {
            wn_retain(m, o);
            if (i % 1024 == 0) wn_poll(m);
            wn_release(m, o);
        }
        w->ok = o->number == 42;
    }
    w->ok = wn_detach(m) == WN_OK && w->ok;
    return NULL;
}

static void the_library(tour *t) {
    wn_options options = tour_options(t);
    options.single_thread = false;
    stage s = stage_open(t, &options);
    wn_mutator *m = s.m;
    long n = (long)tour_scale(2000000);
    tour_say(
        t,
        "CPython's answer is the infamous GIL: one thread at a time. Winnow has no such lock; the same two threads "
        "now count one object of its heap up and down, %ld times each:",
        n);
    static node *shared;
    bool ok = wn_global(s.heap, &shared) == WN_OK;
    tour_push_node(m, &shared, 42);
    worker w[2] = {{.hammer = {.n = n}, .heap = s.heap, .shared = &shared},
                   {.hammer = {.n = n}, .heap = s.heap, .shared = &shared}};
    atomic_store(&go, false);
    for (int i = 0; i < 2; i++) start(&w[i].hammer, count_in_the_library);
    uint64_t began = tour_now();
    atomic_store(&go, true);
    wn_block_begin(m); /* this thread touches no object while it waits, so collections need not wait for it */
    for (int i = 0; i < 2; i++) pthread_join(w[i].hammer.thread, NULL);
    wn_block_end(m);
    uint64_t took = tour_now() - began;
    size_t count = wn_refcount(m, shared);
    ok = ok && w[0].ok && w[1].ok && shared->number == 42;
    tour_text(t, "one count up and one down, two threads at once", "%.1f ns", (double)took / (double)n);
    if (tour_counts(t)) {
        tour_count(t, "references afterwards (the tour's own)", count);
        tour_claim(t, ok && count == 1, "No count was lost, and no thread waited for a global lock.");
    } else {
        tour_claim(t, ok,
                   "There are no counts to lose: the calls cost nothing, and threads share objects as they like.");
    }
    wn_forget_global(m, &shared);
    stage_close(t, &s);
}

void tour_threads(tour *t) {
    tour_chapter(t, "The ugly, 1 of 2: not thread safe");
    the_race(t);
    the_library(t);
}
