/*
 * fork.c - fork() with heaps, and the list of all heaps that it needs.
 *
 * Invariant: the forking thread has stopped the world of every heap and holds every lock across fork(), so the child
 * finds no object half made and no count half changed by a thread that it does not have. In the child the mutators of
 * other threads are taken off the lists; what was handed out to them stays so unless the collector takes it back, and
 * the references in their frames are gone with the frames.
 *
 * Threads that wait for the lock to fork, or to make a heap, stand still for that: so a thread of the collector's in a
 * listener, too, and tell_lock is made anew in the child.
 */
#include "mutator/heap.h"
#include "heap/mesh.h"

#include <sched.h>

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static wn_heap *all_heaps;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* Another thread that forks, or makes a heap, may hold the lock and wait for this one to stand still. Within a
 * no-collect scope it does so for the fork alone, which moves nothing. */
static void lock_all(void) {
    if (pthread_mutex_trylock(&all_lock) == 0) return;
    wn_wait_to_fork(true);
    while (pthread_mutex_trylock(&all_lock) != 0) {
        wn_poll_own();
        sched_yield();
    }
    wn_wait_to_fork(false); /* nobody forks now */
}

/* The calling thread, if it is one of the heap's collector and forks in a listener. */
static mutator *helper_of(const wn_heap *h) {
    mutator *m = wn_helper_that_tells();
    return m && m->heap == h ? m : NULL;
}

static void lock_heap(wn_heap *h) {
    mutator *me = wn_mutator_of(wn_current(h));
    wn_world_stop_to_fork(h, me ? me : helper_of(h));
    pthread_mutex_lock(&h->world);
    h->forking = true;
    if (h->collector->before_fork) h->collector->before_fork(h);
    pthread_mutex_lock(&h->roots_lock);
    pthread_mutex_lock(&h->weak.lock);
    pthread_mutex_lock(&h->stats_lock);
    pthread_mutex_lock(&h->space.lock);
}

static void unlock_heap(wn_heap *h) {
    h->forking = false;
    pthread_mutex_unlock(&h->space.lock);
    pthread_mutex_unlock(&h->stats_lock);
    pthread_mutex_unlock(&h->weak.lock);
    pthread_mutex_unlock(&h->roots_lock);
    pthread_mutex_unlock(&h->world);
}

static void prepare_fork(void) {
    lock_all();
    for (wn_heap *h = all_heaps; h; h = h->next) lock_heap(h);
    wn_lock_spares();
}

/* All are unlocked before one is locked again: nobody holds the locks of two heaps but to fork, in the order of the
 * list. */
static void after_in_parent(void) {
    wn_unlock_spares();
    for (wn_heap *h = all_heaps; h; h = h->next) {
        wn_mesh_seal(&h->space);
        unlock_heap(h);
        if (h->collector->after_fork) h->collector->after_fork(h, false);
    }
    for (wn_heap *h = all_heaps; h; h = h->next) wn_world_start(h, wn_mutator_of(wn_current(h)));
    pthread_mutex_unlock(&all_lock);
}

/* Takes the mutators of threads that the child does not have off the heap's list. */
static void orphan_others(wn_heap *h) {
    mutator **at = &h->mutators;
    while (*at) {
        mutator *m = *at;
        if (pthread_equal(m->thread, pthread_self())) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        h->mutator_count--;
        if (h->collector->orphaned) h->collector->orphaned(m);
    }
    h->helpers = helper_of(h);
    if (h->helpers) h->helpers->next = NULL;
}

/* Nobody is here who waits for what threads of the parent were waiting for. */
static void forget_waits(wn_heap *h) {
    /* Whoever called listeners has it, in the middle of one that waited to fork, and is here only as this thread. */
    if (!h->helpers) pthread_mutex_init(&h->tell_lock, NULL);
    h->stopped = false;
    h->stopper = NULL;
    h->stop_depth = 0;
    h->weak.wanted = 0;
    h->weak.walked = NULL;
}

static void after_in_child(void) {
    wn_unlock_spares();
    for (wn_heap *h = all_heaps; h; h = h->next) {
        orphan_others(h);
        forget_waits(h);
        wn_space_inherit(&h->space);
        unlock_heap(h);
        wn_os_cond_make(&h->world_changed); /* it still knows of waiters */
        if (h->collector->after_fork) h->collector->after_fork(h, true);
    }
    /* The rest of a buffer lies on a page that parent and child share: go on in a block of one's own. */
    for (wn_heap *h = all_heaps; h; h = h->next)
        for (mutator *m = h->mutators; m; m = m->next) wn_drop_blocks(m);
    pthread_mutex_unlock(&all_lock);
}

static void install_hooks(void) { wn_os_on_fork(prepare_fork, after_in_parent, after_in_child); }

void wn_heap_register(wn_heap *heap) {
    pthread_once(&fork_once, install_hooks);
    lock_all();
    heap->next = all_heaps;
    all_heaps = heap;
    pthread_mutex_unlock(&all_lock);
}

void wn_heap_unregister(wn_heap *heap) {
    lock_all();
    wn_heap **at = &all_heaps;
    while (*at != heap) at = &(*at)->next;
    *at = heap->next;
    pthread_mutex_unlock(&all_lock);
}
