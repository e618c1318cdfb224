/*
 * final.c - what follows from death: weak references, finalizers, callbacks, in PEP 442 order and beside the program.
 *
 * When marking has closed, what is not marked is dead and nobody can reach it: weak reads say so from that moment (W2).
 * Then weak references to the dead are cleared, the callbacks of those weak references that are alive become due, dead
 * objects with a finalizer that has not run become due, and they and all they refer to are marked, so that the
 * finalizer finds everything in one piece, its weak references to what is alive and its ephemerons included. A cycle
 * later they are freed, unless the finalizer has stored them somewhere. Weak references and ephemerons that are dead
 * even so leave the chains of their targets.
 *
 * What is due is a root until it has run. It runs at safepoints, a little at a time, or on a thread of its own.
 */
#include "collectors/concurrent/concurrent.h"

#include <string.h>

enum { ENTRIES = 32, OBJECTS = 1024 };

static bool is_marked(void *context, void *object) {
    (void)context;
    return wn_cc_is_marked(object);
}

static bool is_white(void *context, void *object) { return !is_marked(context, object); }

/* Takes dead weak references and ephemerons off the chain and the ring of a target that is alive. */
static void prune(void *context, wn_weak_entry *e) {
    wn_heap *heap = context;
    for (wn_weakref *r = e->refs, *next; r; r = next) {
        next = r->next;
        if (!wn_cc_is_marked(r)) wn_weak_unchain(e, r);
    }
    wn_weak_prune_ring(heap, e, is_white, NULL);
    wn_weak_remove_if_empty(heap, e);
}

typedef struct clearing {
    wn_cc_worker *w;
    bool prunes; /* what is not marked will not be */
} clearing;

static void clear_entry(void *context, wn_weak_entry *e) {
    clearing *c = context;
    if (!wn_cc_is_marked(e->target))
        wn_weak_entry_died(&c->w->me, e, is_marked, NULL,
                           NULL); /* values: dead like their keys, or alive for reasons of their own */
    else if (c->prunes)
        prune(c->w->cc->heap, e);
}

/* Appends a chain to what is due; with cc->lists. */
static void chain_callbacks(wn_cc *cc, wn_weakref *first, wn_weakref *last) {
    *(cc->due_callbacks ? &cc->last_due_callback->next : &cc->due_callbacks) = first;
    cc->last_due_callback = last;
}

void wn_cc_give_back_callbacks(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    for (size_t i = m->callback_at; i < m->callbacks.n; i++) {
        wn_weakref *r = m->callbacks.at[i];
        if (r) chain_callbacks(cc, r, r);
    }
    m->callbacks.n = m->callback_at = 0;
    if (m->late_callbacks) chain_callbacks(cc, m->late_callbacks, m->latest_callback);
    m->late_callbacks = NULL;
}
static void give_back_found(wn_cc *cc, wn_cc_worker *w) {
    pthread_mutex_lock(&cc->lists);
    wn_cc_give_back_callbacks(&w->me);
    pthread_mutex_unlock(&cc->lists);
}

void wn_cc_each_callback(wn_weakref *first, void (*visit)(void **slot, void *context), void *context) {
    for (void *r = first; r; r = ((wn_weakref *)r)->next) visit(&r, context);
}

static void set_clearing(wn_cc *cc, bool on) {
    pthread_mutex_lock(&cc->heap->weak.lock);
    cc->clearing = on;
    pthread_mutex_unlock(&cc->heap->weak.lock);
}

/* What is entered meanwhile refers to what is alive. */
static bool clear_weak(wn_cc *cc, wn_cc_worker *w, bool prunes) {
    clearing c = {w, prunes};
    bool more = true;
    wn_weak_walk_reset(cc->heap);
    set_clearing(cc, true);
    while (more && wn_cc_pause(cc, w)) {
        more = wn_weak_walk(cc->heap, ENTRIES, clear_entry, &c);
        if (!more) set_clearing(cc, false);
        give_back_found(cc, w);
    }
    wn_weak_walk_reset(cc->heap);
    return !more && wn_cc_pause(cc, w);
}

/* The marks are final, so what the walk would have found is known. It cannot stay half done: what is dead, but not
 * cleared yet, is alive again when the cycle is given up, and with it what it leads to. */
void wn_cc_end_clearing(wn_cc *cc) {
    if (!cc->clearing) return;
    wn_cc_worker *w = &cc->worker[0];
    clearing c = {w, false};
    w->me.heap = cc->heap;
    wn_weak_walk_reset(cc->heap);
    while (wn_weak_walk(cc->heap, OBJECTS, clear_entry, &c)) {
    }
    wn_weak_walk_reset(cc->heap);
    give_back_found(cc, w);
    set_clearing(cc, false);
}

/* With cc->lists: the lists have room for all that is noted and `more`, wherever it goes, so that a death is not lost
 * for want of memory. */
static bool has_room(wn_cc *cc, size_t more) {
    size_t n = cc->finalizable.n + cc->examined.n + more;
    return wn_vector_reserve(&cc->finalizable, n) && wn_vector_reserve(&cc->examined, n) &&
           wn_vector_reserve(&cc->due_finals, cc->due_finals.n + n);
}

static bool find_finals(wn_cc *cc, wn_cc_worker *w) {
    pthread_mutex_lock(&cc->lists);
    wn_vector empty = cc->examined;
    cc->examined = cc->finalizable; /* threads go on adding to the other */
    cc->finalizable = empty;
    cc->finalizable.n = 0;
    cc->examined_next = cc->dead_finals = 0;
    pthread_mutex_unlock(&cc->lists);
    for (bool more = true; more && wn_cc_pause(cc, w);) {
        pthread_mutex_lock(&cc->lists);
        for (int n = 0; n < OBJECTS && cc->examined_next < cc->examined.n; n++) {
            void *o = cc->examined.at[cc->examined_next++];
            if (wn_cc_is_marked(o)) {
                wn_vector_push(&cc->finalizable, o); /* it has room, as the two below */
                continue;
            }
            cc->examined.at[cc->dead_finals++] = o;
        }
        more = cc->examined_next < cc->examined.n;
        pthread_mutex_unlock(&cc->lists);
    }
    /* After all of them were found: one that is reachable from another is dead all the same. They become due when they
     * are marked, and not before. */
    for (size_t i = 0; wn_cc_pause(cc, w); i++) {
        pthread_mutex_lock(&cc->lists); /* a thread that notes one may move the list */
        void *o = i < cc->dead_finals ? cc->examined.at[i] : NULL;
        pthread_mutex_unlock(&cc->lists);
        if (!o) break;
        wn_cc_mark_root(w, o);
        if (i % 64 == 0) wn_cc_mark_unit(cc, w);
    }
    if (!wn_cc_mark_all(cc)) return false;
    wn_cc_stop_following(cc);
    wn_cc_make_finals_due(cc);
    return true;
}

void wn_cc_make_finals_due(wn_cc *cc) {
    pthread_mutex_lock(&cc->lists);
    for (size_t i = 0; i < cc->dead_finals; i++) wn_vector_push(&cc->due_finals, cc->examined.at[i]);
    for (; cc->examined_next < cc->examined.n; cc->examined_next++)
        wn_vector_push(&cc->finalizable, cc->examined.at[cc->examined_next]);
    cc->examined.n = cc->examined_next = cc->dead_finals = 0;
    pthread_mutex_unlock(&cc->lists);
}

bool wn_cc_find_dead(wn_cc *cc, wn_cc_worker *w) {
    /* A verification may have waited while the cycle was given up: then marks mean nothing, and the lists stay. */
    if (__atomic_load_n(&cc->aborted, __ATOMIC_ACQUIRE)) return false;
    bool weak, finals; /* what is made from now on is black: it comes to neither */
    pthread_mutex_lock(&cc->heap->weak.lock);
    weak = cc->heap->weak.live;
    pthread_mutex_unlock(&cc->heap->weak.lock);
    pthread_mutex_lock(&cc->lists);
    finals = cc->finalizable.n;
    pthread_mutex_unlock(&cc->lists);
    if (weak && !clear_weak(cc, w, !finals)) return false;
    if (finals && !find_finals(cc, w)) return false;
    if (weak && finals && !(wn_cc_walk_weak(w, ENTRIES, prune, cc->heap) && wn_cc_pause(cc, w))) return false;
    wn_cc_wake_somebody(cc);
    return true;
}

/* ---- running what is due ----------------------------------------------------------------------------------------- */

bool wn_cc_note_finalizable(mutator *m, void *object) {
    wn_cc *cc = wn_cc_of(m->heap);
    pthread_mutex_lock(&cc->lists);
    bool ok = has_room(cc, 1) && wn_vector_push(&cc->finalizable, object);
    pthread_mutex_unlock(&cc->lists);
    if (!ok) wn_fail(WN_ERR_MEMORY, "no memory to note that the object has a finalizer");
    return ok;
}

/* The next object to finalize, or NULL: none is due, or callbacks come first, those of the same deaths among them, that
 * are due (`callbacks`) or that another thread is running. What is due when a cycle begins is marked before the first
 * stack is scanned, so that none on its way from the list to a stack is missed. */
static void *next_final(wn_cc *cc, bool *callbacks) {
    void *o = NULL;
    pthread_mutex_lock(&cc->lists);
    *callbacks = cc->due_callbacks;
    if (!*callbacks && !cc->calling && cc->due_finals_next < cc->due_finals.n) {
        o = cc->due_finals.at[cc->due_finals_next];
        cc->due_finals.at[cc->due_finals_next++] = NULL;
        if (cc->due_finals_next == cc->due_finals.n) cc->due_finals.n = cc->due_finals_next = 0;
    }
    __atomic_store_n(&cc->due, cc->due_finals.n || cc->due_callbacks, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&cc->lists);
    return o;
}

static bool take_callbacks(wn_cc *cc, mutator *m) {
    pthread_mutex_lock(&cc->lists);
    wn_weakref *first = cc->due_callbacks;
    if (first) {
        *(m->late_callbacks ? &m->latest_callback->next : &m->late_callbacks) = first;
        m->latest_callback = cc->last_due_callback;
    }
    cc->due_callbacks = NULL;
    cc->calling += first != NULL;
    __atomic_store_n(&cc->due, cc->due_finals.n != 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&cc->lists);
    return first;
}

/* True: there were some. */
static bool call_back(wn_cc *cc, mutator *m) {
    if (!take_callbacks(cc, m)) return false;
    wn_run_callbacks(m);
    pthread_mutex_lock(&cc->lists);
    cc->calling--;
    pthread_mutex_unlock(&cc->lists);
    return true;
}

/* Whether something is due that this thread could run: finalizers wait for callbacks of another's. */
static bool may_go_on(wn_cc *cc) {
    pthread_mutex_lock(&cc->lists);
    bool may = cc->due_callbacks || (cc->due_finals.n && !cc->calling);
    pthread_mutex_unlock(&cc->lists);
    return may;
}

/* The heap is not freed before the finalizer thread has ended: it begins nothing more then. */
static bool has_time(const wn_cc *cc, uint64_t start, uint64_t budget_ns) {
    if (__atomic_load_n(&cc->leaving, __ATOMIC_RELAXED)) return false;
    return budget_ns == ~(uint64_t)0 || wn_os_now() - start < budget_ns;
}

bool wn_cc_run_due(mutator *m, uint64_t budget_ns) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    if (!__atomic_load_n(&cc->due, __ATOMIC_RELAXED) || c->finalizing || m->in_callbacks || m->fast.nested)
        return false;
    uint64_t start = wn_os_now(), ran = 0;
    __atomic_fetch_add(&cc->finalizing, 1, __ATOMIC_RELAXED); /* before anything leaves the lists */
    c->finalizing = true;
    for (bool callbacks = true; callbacks && has_time(cc, start, budget_ns);) {
        ran += call_back(cc, m);
        for (void *o; has_time(cc, start, budget_ns) && (o = next_final(cc, &callbacks));) {
            wn_root(&m->fast, void *, kept, o);
            __atomic_store_n(&wn_block_of(o)->noted, 1, __ATOMIC_RELAXED);
            __atomic_fetch_or(&wn_meta_(o)[1], WN_STATE_FINALIZED_, __ATOMIC_RELAXED);
            wn_type_of(kept)->finalize(&m->fast, kept);
            ran++;
        }
    }
    c->finalizing = false;
    __atomic_fetch_add(&cc->ran, ran, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&cc->finalizing, 1, __ATOMIC_RELEASE);
    /* Whoever runs the callbacks that finalizers wait for goes on with those himself. */
    if (__atomic_load_n(&cc->due, __ATOMIC_RELAXED) && may_go_on(cc))
        __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
    return ran;
}

/* ---- the finalizer thread ---------------------------------------------------------------------------------------- */

static void *run_finalizers(void *arg) {
    wn_cc *cc = arg;
    wn_heap *heap = cc->heap;
    for (;;) {
        pthread_mutex_lock(&heap->world);
        while (!cc->leaving && !__atomic_load_n(&cc->due, __ATOMIC_RELAXED))
            pthread_cond_wait(&cc->finalizer_wake, &heap->world);
        bool leaving = cc->leaving;
        pthread_mutex_unlock(&heap->world);
        if (leaving) return NULL;
        wn_mutator *m;
        bool ran = false;
        if (!wn_attach(heap, &m)) {
            ran = wn_cc_run_due(wn_mutator_of(m), ~(uint64_t)0);
            wn_detach(m);
        }
        /* There was no memory to attach, which may be temporary, or another thread runs the callbacks. */
        if (!ran) wn_os_nap(1000000);
    }
}

bool wn_cc_leave_to_finalizer(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    if (!heap->options.finalizer_thread) return false;
    pthread_mutex_lock(&heap->world);
    if (!cc->finalizer_running && !cc->leaving)
        cc->finalizer_running = wn_cc_start_thread(&cc->finalizer, run_finalizers, cc);
    bool running = cc->finalizer_running;
    if (running) pthread_cond_broadcast(&cc->finalizer_wake);
    pthread_mutex_unlock(&heap->world);
    return running;
}

bool wn_cc_is_finalizer(const mutator *m) {
    const wn_cc *cc = wn_cc_of(m->heap);
    return cc->finalizer_running && pthread_equal(m->thread, cc->finalizer);
}

void wn_cc_stop_finalizer(wn_cc *cc) {
    pthread_mutex_lock(&cc->heap->world);
    __atomic_store_n(&cc->leaving, true, __ATOMIC_RELAXED);
    bool running = cc->finalizer_running;
    pthread_cond_broadcast(&cc->finalizer_wake);
    pthread_mutex_unlock(&cc->heap->world);
    if (running) pthread_join(cc->finalizer, NULL);
}

/* Whether there is some is said to those who attach later, too. */
static bool note_due(wn_cc *cc) {
    pthread_mutex_lock(&cc->lists);
    bool due = cc->due_finals.n || cc->due_callbacks;
    __atomic_store_n(&cc->due, due, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&cc->lists);
    return due;
}

void wn_cc_ask_threads_to_run_due(wn_cc *cc) {
    if (!note_due(cc)) return;
    for (mutator *m = cc->heap->mutators; m; m = m->next) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

void wn_cc_wake_somebody(wn_cc *cc) {
    if (!note_due(cc) || wn_cc_leave_to_finalizer(cc)) return;
    pthread_mutex_lock(&cc->heap->world);
    wn_cc_ask_threads_to_run_due(cc);
    pthread_mutex_unlock(&cc->heap->world);
}
