/* search.c - marking what the census names, trial deletion on the rest. */
#include "search.h"
#include "census.h"
#include "trace.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

enum {
    ALONE = 60000,   /* with fewer objects a second thread is not worth its start */
    IN_ORDER = 30000 /* young tuples are untracked in the interpreter's order up to this many */
};

bool search_make(search *s) {
    memset(s, 0, sizeof *s);
    return wn_cycles_make(&s->cycles);
}
void search_reset(search *s) {
    wn_cycles_rest(&s->cycles);
    for (int i = 0; i < SEARCH_THREADS; i++) s->untrackable[i].n = s->gone[i].n = 0;
}
void search_trim(search *s) {
    wn_cycles_trim_rest(&s->cycles);
    for (int i = 0; i < SEARCH_THREADS; i++) {
        object_list_drop(&s->untrackable[i]);
        object_list_drop(&s->gone[i]);
    }
}

/* ---- one search -------------------------------------------------------------------------------------------------- */

static tracer tracers[SEARCH_THREADS];

scanner *search_scanner(void) { return &tracers[0].scan; }

/* The second thread: waits for the first to have prepared the marks, and marks. It runs no code that is not the
 * interpreter's own pure reading, because it holds no lock; the holder of the lock waits for it. */
typedef struct helper {
    wn_marker marker;
    enum { WAIT, MARK, LEAVE } go;
} helper;

static void *help(void *arg) {
    helper *h = arg;
    for (unsigned spins = 0; __atomic_load_n(&h->go, __ATOMIC_ACQUIRE) == WAIT; spins++)
        if (spins > 200) sched_yield();
    if (h->go == MARK) trace_mark(&tracers[1], true);
    return NULL;
}

/* Started early, because that takes as long as preparing the marks of a hundred thousand objects. */
static bool start_helper(pthread_t *id, helper *h) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(id, NULL, help, h) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static void mark(search *s, pthread_t id, helper *h) {
    wn_cycles *c = &s->cycles;
    tracer *t = &tracers[0];
    trace_make(t, c, &c->marker, &s->untrackable[0], &s->gone[0], false);
    trace_push_roots(t);
    if (h) {
        wn_mark_make(&h->marker, &c->pool);
        wn_mark_share(&c->pool, SEARCH_THREADS);
        trace_make(&tracers[1], c, &h->marker, &s->untrackable[1], &s->gone[1], true);
        __atomic_store_n(&h->go, MARK, __ATOMIC_RELEASE);
        trace_mark(t, true);
        pthread_join(id, NULL);
        t->marked += tracers[1].marked;
        c->failed |= h->marker.failed;
        wn_mark_drop(&h->marker);
        trace_push_later(t, &tracers[1]);
    }
    trace_mark(t, false);
    s->marked = t->marked - s->gone[0].n - s->gone[1].n;
}

bool search_run(search *s, unsigned threads) {
    wn_cycles *c = &s->cycles;
    helper h = {.go = WAIT};
    pthread_t id;
    uint64_t start = wn_os_now();
    search_reset(s);
    /* As many as at the last collection, about. */
    bool helped = threads > 1 && s->tracked >= ALONE && start_helper(&id, &h);
    if (!census_take()) {
        if (helped) {
            __atomic_store_n(&h.go, LEAVE, __ATOMIC_RELEASE);
            pthread_join(id, NULL);
        }
        return wn_cycles_fail_(c);
    }
    wn_cycles_begin(c);
    uint64_t walked = wn_os_now();
    mark(s, id, helped ? &h : NULL);
    uint64_t marked = wn_os_now();
    if (!census_settle(&s->gone[0])) return wn_cycles_fail_(c);
    s->tracked = census_members() - s->gone[0].n - s->gone[1].n;
    bool ok = wn_cycles_search(c, scan_count, scan_keep, scan_fetch, scan_object, search_scanner());
    s->walk_ns = walked - start;
    s->mark_ns = marked - walked;
    s->trial_ns = wn_os_now() - marked;
    return ok;
}

void search_tell_census(search *s) {
    for (int t = 0; t < SEARCH_THREADS; t++) census_remove(s->gone[t].item, s->gone[t].n);
}

/* ---- untracking -------------------------------------------------------------------------------------------------- */

static bool may_be_tracked(PyObject *o) { return o && PyObject_IS_GC(o) && (!PyTuple_CheckExact(o) || gc_tracked(o)); }

bool search_untrack_one(PyObject *o) {
    if (PyTuple_CheckExact(o)) {
        for (Py_ssize_t i = 0; i < Py_SIZE(o); i++) {
            PyObject *item = PyTuple_GET_ITEM(o, i);
            if (!item || may_be_tracked(item)) return false; /* NULL: it is still being filled */
        }
    } else if (DICTS_ARE_UNTRACKED && PyDict_CheckExact(o)) {
        PyObject *key, *value;
        for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &value);)
            if (may_be_tracked(value) || may_be_tracked(key)) return false;
    } else {
        return false;
    }
    PyObject_GC_UnTrack(o);
    census_remove(&o, 1);
    return true;
}

/* Young ones in the interpreter's order, because a tuple that holds tuples can be untracked after those alone. */
static void untrack_young(search *s, PyGC_Head *head) {
    for (PyGC_Head *g = gc_next(head), *next; g != head; g = next) {
        next = gc_next(g);
        PyObject *o = object_of(g);
        if ((PyTuple_CheckExact(o) || PyDict_CheckExact(o)) && !wn_cycles_is_garbage(&s->cycles, o))
            search_untrack_one(o);
    }
}

void search_untrack(search *s, gc_state *gc) {
    for (int i = 0; census_young() < IN_ORDER && i < 2; i++) untrack_young(s, &gc->generations[i].head);
    for (int t = 0; t < SEARCH_THREADS; t++)
        for (size_t i = 0; i < s->untrackable[t].n; i++) {
            PyObject *o = s->untrackable[t].item[i];
            if (gc_tracked(o)) search_untrack_one(o);
        }
}
