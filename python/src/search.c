/*
 * search.c - walking the generation lists, marking, trial deletion.
 *
 * A linked list of a million objects whose order no longer follows addresses costs a cache miss for each link, and the
 * next link is not known before. Waypoints break that chain: dummy containers of our own, linked between the others,
 * from which the list can be walked at many places at once, by one thread with its prefetches or by two. They are
 * ordinary tracked objects, alive because we hold them, so whatever the interpreter does with its lists it may do with
 * them; that the segments still join up to the whole lists is checked after every walk.
 */
#include "search.h"
#include "trace.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

enum {
    WAYPOINTS = 4096,
    SEGMENT = 8192,  /* objects between waypoints, more when all of them are in use */
    LANES = 64,      /* segments that a thread walks in turn: a step waits for memory, up to 400 ns of it */
    ALONE = 60000,   /* with fewer objects a second thread is not worth its start */
    IN_ORDER = 30000 /* young tuples are untracked in the interpreter's order up to this many */
};

typedef struct waypoint {
    PyGC_Head gc;
    PyObject ob;
} waypoint;

static struct {
    waypoint *slab;           /* [0] is the head of the parked list, never an object */
    uint16_t free[WAYPOINTS]; /* a stack of those not in use */
    size_t frees;
    bool used[WAYPOINTS];
    size_t distance; /* objects between waypoints that the last walk aimed at */
    size_t since;    /* objects that came to the oldest list since its last waypoint */
} way;

PyGC_Head *search_parked(void) { return &way.slab[0].gc; }
bool search_is_waypoint(const void *object) {
    return (uintptr_t)object - (uintptr_t)way.slab < WAYPOINTS * sizeof(waypoint);
}
size_t search_waypoints(void) { return WAYPOINTS - 1 - way.frees; }

bool search_setup(PyTypeObject *type) {
    if (way.slab) return true;
    size_t bytes = (WAYPOINTS * sizeof(waypoint) + 4095) & ~(size_t)4095;
    waypoint *slab = wn_os_map(bytes);
    if (!slab) return false;
    way.slab = slab;
    gc_list_init(&slab[0].gc);
    for (size_t i = WAYPOINTS - 1; i; i--) {
        slab[i].ob.ob_type = type;
        Py_SET_REFCNT(&slab[i].ob, 1); /* ours, for ever */
        way.free[way.frees++] = (uint16_t)i;
    }
    return true;
}

static void link_waypoint(PyGC_Head *before) {
    if (!way.frees) return;
    uint16_t i = way.free[--way.frees];
    way.used[i] = true;
    way.slab[i].gc._gc_prev = 0;
    gc_link_before(&way.slab[i].gc, before);
}
static void unlink_waypoint(size_t i) {
    gc_unlink(&way.slab[i].gc);
    way.slab[i].gc._gc_next = way.slab[i].gc._gc_prev = 0;
    way.used[i] = false;
    way.free[way.frees++] = (uint16_t)i;
}
void search_withdraw(void) {
    for (size_t i = 1; i < WAYPOINTS; i++)
        if (way.used[i]) unlink_waypoint(i);
}
void search_append_waypoint(gc_state *gc, size_t new_objects) {
    way.since += new_objects;
    if (way.since < (way.distance ? way.distance : SEGMENT)) return;
    way.since = 0;
    link_waypoint(&gc->generations[2].head);
}

bool search_make(search *s) {
    memset(s, 0, sizeof *s);
    return wn_cycles_make(&s->cycles);
}
void search_reset(search *s) {
    wn_cycles_reset(&s->cycles);
    for (int i = 0; i < SEARCH_THREADS; i++) s->untrackable[i].n = 0;
}
void search_drop(search *s) {
    wn_cycles_drop(&s->cycles);
    for (int i = 0; i < SEARCH_THREADS; i++) object_list_drop(&s->untrackable[i]);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

/* A segment begins after a list's head or after a waypoint and ends before the next. */
static struct {
    PyGC_Head *begin[WAYPOINTS + 3];
    PyGC_Head *end[WAYPOINTS + 3]; /* NULL: the head of its list, from where somebody came who has seen the rest */
    size_t objects[WAYPOINTS + 3];
    size_t n;
    size_t next;         /* the next to be walked: shared by threads */
    size_t first, bytes; /* the memory of heads that are not waypoints: the interpreter's own */
    size_t distance;
    object_list split[SEARCH_THREADS]; /* heads after which a waypoint would stand well */
    bool doubly; /* whoever came from the far end may have walked a segment that the other thread walks, too */
} seg;

static inline bool ends_here(PyGC_Head *g) {
    /* Both asked at once: what is left is one branch. */
    return ((uintptr_t)g - seg.first < seg.bytes) | ((uintptr_t)g - (uintptr_t)way.slab < WAYPOINTS * sizeof(waypoint));
}

/* The young lists, which seldom have waypoints, and the old one while there are none, are walked from both ends. */
static bool from_both_ends(size_t segment) { return segment < 3 && (segment || seg.n == 3); }

static void walk(wn_cycles *c, int plane, object_list *split) {
    struct lane {
        PyGC_Head *at;
        size_t way;  /* of a head's link that is followed: 0, or that of the other direction */
        size_t left; /* objects until a waypoint would be due */
        size_t n;    /* seen then */
        size_t segment;
    } lane[LANES + 1];
    enum { BACK = offsetof(PyGC_Head, _gc_prev) };
    size_t lanes = 0;
    bool more = true;
    wn_bits_near near = wn_bits_near_nothing();
    for (;;) {
        while (more && lanes < LANES) {
            size_t i = __atomic_fetch_add(&seg.next, 1, __ATOMIC_RELAXED);
            if (!(more = i < seg.n)) break;
            struct lane a = {gc_next(seg.begin[i]), 0, seg.distance, seg.distance, i};
            lane[lanes++] = a;
            ASK(a.at);
            if (!from_both_ends(i)) continue;
            a.at = gc_prev(seg.begin[i]);
            a.way = BACK;
            lane[lanes++] = a;
            ASK(a.at);
        }
        if (!lanes) return;
        for (size_t l = 0; l < lanes;) {
            struct lane *a = &lane[l];
            PyGC_Head *g = a->at;
            bool end = ends_here(g), met = false;
            if (__builtin_expect(!end, 1)) {
                PyGC_Head *next = (PyGC_Head *)(*(uintptr_t *)((char *)g + a->way) & ~GC_FLAGS);
                ASK(next);
                if (!wn_bits_put_near(&c->bits, &near, plane, (uintptr_t)object_of(g), &met)) c->failed = true;
                a->at = next;
            }
            if (__builtin_expect(end | met, 0)) {
                seg.objects[a->segment] += a->n - a->left;
                if (a->way != BACK)
                    seg.end[a->segment] = met ? NULL : g;
                else if (end && search_is_waypoint(g))
                    __atomic_store_n(&seg.doubly, true, __ATOMIC_RELAXED);
                *a = lane[--lanes];
                if (more) break;
                continue;
            }
            if (__builtin_expect(--a->left == 0, 0)) {
                a->left = seg.distance;
                a->n += seg.distance;
                object_list_add(split, (PyObject *)g);
            }
            l++;
        }
    }
}

static void plan_walk(gc_state *gc) {
    seg.first = (size_t)gc;
    seg.bytes = sizeof *gc;
    seg.n = seg.next = 0;
    seg.doubly = false;
    seg.distance = way.distance ? way.distance : SEGMENT;
    for (int i = 2; i >= 0; i--) seg.begin[seg.n++] = &gc->generations[i].head;
    for (size_t i = 1; i < WAYPOINTS; i++)
        if (way.used[i]) seg.begin[seg.n++] = &way.slab[i].gc;
    for (size_t i = 0; i < seg.n; i++) seg.objects[i] = 0;
    for (int i = 0; i < SEARCH_THREADS; i++) seg.split[i].n = 0;
}

/* Whether the segments make up the three lists and nothing else (gc.freeze moves waypoints out of them). Also counts.
 */
static bool joined_up(gc_state *gc, search *s) {
    static uint16_t of[WAYPOINTS];
    for (size_t i = 3; i < seg.n; i++) of[(waypoint *)seg.begin[i] - way.slab] = (uint16_t)i;
    size_t seen = 0;
    s->tracked = 0;
    for (int i = 0; i < 3; i++) {
        PyGC_Head *end;
        for (size_t k = (size_t)i;; k = of[(waypoint *)end - way.slab]) {
            if (++seen > seg.n) return false;
            s->tracked += seg.objects[k];
            end = seg.end[k] ? seg.end[k] : &gc->generations[2 - i].head;
            if (!search_is_waypoint(end) || end == &way.slab[0].gc) break;
        }
        if (end != &gc->generations[2 - i].head) return false;
    }
    return seen == seg.n;
}

void search_tend(void) {
    /* Segments that have shrunk are joined to the one before; long ones are split where the walk noted. */
    for (size_t i = 3; i < seg.n; i++)
        if (seg.objects[i] < seg.distance / 4) unlink_waypoint((size_t)((waypoint *)seg.begin[i] - way.slab));
    for (int t = 0; t < SEARCH_THREADS; t++) {
        for (size_t i = 0; i < seg.split[t].n; i++) {
            PyGC_Head *after = gc_next((PyGC_Head *)seg.split[t].item[i]);
            if (!search_is_waypoint(after)) link_waypoint(after);
        }
        seg.split[t].n = 0;
    }
    way.since = 0;
}

void search_each_tending(void (*note)(void *arg, PyObject *before, size_t away), void *arg) {
    for (size_t i = 3; i < seg.n; i++)
        if (seg.objects[i] < seg.distance / 4) note(arg, NULL, (size_t)((waypoint *)seg.begin[i] - way.slab));
    for (size_t i = 0; i < seg.split[0].n; i++) {
        PyGC_Head *after = gc_next((PyGC_Head *)seg.split[0].item[i]);
        if (!ends_here(after)) note(arg, object_of(after), 0);
    }
}

void search_tend_one(PyObject *before, size_t away) {
    if (before) {
        if (!search_is_waypoint(gc_prev(gc_of(before)))) link_waypoint(gc_of(before));
    } else if (away < WAYPOINTS && way.used[away]) {
        unlink_waypoint(away);
    }
}

/* ---- one search -------------------------------------------------------------------------------------------------- */

static tracer tracers[SEARCH_THREADS];

scanner *search_scanner(void) { return &tracers[0].scan; }

/* The second thread: walks, waits for the first to have prepared the marks, marks. It runs no code that is not the
 * interpreter's own pure reading, because it holds no lock; the holder of the lock waits for it. */
typedef struct helper {
    search *s;
    wn_marker marker;
    uint32_t walked, go;
} helper;

static void wait_for(uint32_t *flag) {
    for (unsigned spins = 0; !__atomic_load_n(flag, __ATOMIC_ACQUIRE); spins++)
        if (spins > 200) sched_yield();
}

static void *help(void *arg) {
    helper *h = arg;
    walk(&h->s->cycles, WN_CYCLES_RANKED, &seg.split[1]);
    __atomic_store_n(&h->walked, 1, __ATOMIC_RELEASE);
    wait_for(&h->go);
    if (h->go != 2) trace_mark(&tracers[1], true);
    return NULL;
}

bool search_run(search *s, gc_state *gc, unsigned threads, bool child) {
    wn_cycles *c = &s->cycles;
    helper h = {.s = s};
    pthread_t id;
    uint64_t start = wn_os_now();
    search_reset(s);
    if (threads > 1 && (child || s->tracked < ALONE)) threads = 1; /* as many as at the last collection, about */
    plan_walk(gc);
    if (threads > 1) {
        wn_mark_make(&h.marker, &c->pool);
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        if (pthread_create(&id, NULL, help, &h) != 0) threads = 1;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    walk(c, WN_CYCLES_UNMARKED, &seg.split[0]);
    if (threads > 1) {
        wait_for(&h.walked);
        wn_bits_merge(&c->bits, WN_CYCLES_UNMARKED, WN_CYCLES_RANKED);
    }
    if (!joined_up(gc, s)) {
        /* Once more without waypoints: then there are only the lists themselves. A snapshot leaves it to its parent. */
        if (threads > 1) {
            __atomic_store_n(&h.go, 2, __ATOMIC_RELEASE);
            pthread_join(id, NULL);
            threads = 1;
        }
        if (child) return wn_cycles_fail_(c);
        search_withdraw();
        search_reset(s);
        plan_walk(gc);
        walk(c, WN_CYCLES_UNMARKED, &seg.split[0]);
        if (!joined_up(gc, s)) return wn_cycles_fail_(c);
    }
    if (threads > 1 && seg.doubly) s->tracked = wn_bits_count(&c->bits, WN_CYCLES_UNMARKED);
    way.distance = s->tracked / (WAYPOINTS / 2) > SEGMENT ? s->tracked / (WAYPOINTS / 2) : SEGMENT;
    s->segments = seg.n;
    uint64_t walked = wn_os_now();

    tracer *t = &tracers[0];
    trace_make(t, c, &c->marker, &s->untrackable[0], false);
    trace_push_roots(t);
    if (threads > 1) {
        wn_mark_share(&c->pool, threads);
        trace_make(&tracers[1], c, &h.marker, &s->untrackable[1], true);
        __atomic_store_n(&h.go, 1, __ATOMIC_RELEASE);
        trace_mark(t, true);
        pthread_join(id, NULL);
        t->marked += tracers[1].marked;
        c->failed |= h.marker.failed | tracers[1].later.lost;
        wn_mark_drop(&h.marker);
        trace_push_later(t, &tracers[1]);
    }
    trace_mark(t, false);
    s->marked = t->marked;
    uint64_t marked = wn_os_now();

    bool ok = wn_cycles_search(c, scan_count, scan_fetch, scan_object, &t->scan);
    s->walk_ns = walked - start;
    s->mark_ns = marked - walked;
    s->trial_ns = wn_os_now() - marked;
    return ok;
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
    return true;
}

void search_untrack(search *s, gc_state *gc) {
    size_t young = 0;
    for (int i = 0; i < 2; i++) young += seg.objects[2 - i];
    for (int i = 0; young < IN_ORDER && i < 2; i++) {
        PyGC_Head *head = &gc->generations[i].head;
        for (PyGC_Head *g = gc_next(head), *next; g != head; g = next) {
            next = gc_next(g);
            PyObject *o = object_of(g);
            if (!search_is_waypoint(g) && (PyTuple_CheckExact(o) || PyDict_CheckExact(o)) &&
                !wn_cycles_is_garbage(&s->cycles, o))
                search_untrack_one(o);
        }
    }
    for (int t = 0; t < SEARCH_THREADS; t++)
        for (size_t i = 0; i < s->untrackable[t].n; i++) {
            PyObject *o = s->untrackable[t].item[i];
            if (gc_tracked(o)) search_untrack_one(o);
        }
}
