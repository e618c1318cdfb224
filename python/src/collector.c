/* collector.c - the hook in the interpreter's collector: proposing, parking, batches, snapshots. */
#include "collector.h"

#include "census.h"
#include "engines/snapshot.h"
#include "pages.h"
#include "search.h"
#include "trace.h"
#include "young.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum {
    NAMES = 64,
    TOGETHER = 64, /* garbage that is never divided between slices, about, where components are small */
    FEW = 100000   /* objects of a heap whose pages the program may as well take back itself */
};

#define DEBUG_COLLECTABLE 2 /* gc.DEBUG_COLLECTABLE */
#define EARLY .15 /* growth of the old objects at which a snapshot is taken, where the interpreter waits for .25 */

typedef enum phase { IDLE, RUNNING, READY } phase;

typedef struct type_count {
    PyTypeObject *type;
    size_t n;
    char name[48];
} type_count;

/* What the child sends: the garbage in batches (the low bit set in the last of each), then what may be untracked, then,
 * when they are many, members of the census that were in no list any more. */
typedef struct entry {
    uintptr_t object;
    PyTypeObject *type;
} entry;
typedef struct answer {
    size_t tracked, marked, candidates, garbage, entries, untrackable, gone, told, walked, names;
    uint64_t ns, cpu_ns;
    type_count types[NAMES]; /* for the log */
    entry entry[];
} answer;

static struct {
    bool installed;
    collector_options o;
    collector_statistics n;
    gc_state *gc;
    PyObject *module, *callbacks, *callback, *collect, *original_collect, *s_generation, *s_collected;
    search search;
    young young_search;
    bool searching_ready; /* the search's memory has been made */

    bool in_full;       /* between start and stop of a full collection */
    int searched;       /* 1 + the younger generation whose collection, between start and stop, was searched here */
    bool nested;        /* a batch before the last */
    bool asked;         /* gc.collect was called, by its name */
    bool bypass;        /* this collection is the interpreter's alone */
    bool forked;        /* this process is a forked child of the one that installed */
    bool in_slice;      /* between start and stop of a collection that reclaims a slice */
    bool between;       /* and of nothing else: the young objects are parked */
    int parked;         /* the oldest generation that was parked last; what was searched has survived and grows older */
    bool counted;       /* the census knows all that is parked, or is about to be, and all that is older */
    Py_ssize_t extra;   /* what nested batches collected */
    Py_ssize_t pending; /* of a full collection put off: objects that had grown old */
    size_t survivors;   /* objects tracked after the current full collection, about */
    size_t grown_old;   /* objects that it leaves */
    uint64_t searched_at;
    uint64_t start, dispose_start, slice_cpu;

    phase phase;
    wn_snapshot snapshot;
    answer *answer;
    size_t next; /* entry */
    uint64_t snapshot_at;
    bool at_once; /* a child failed: the next full collection does without */
    bool due;     /* a snapshot is to be taken at the next young collection */
    enum { SHARED, RETURNING, OURS } pages;
    uint64_t patience;    /* until when reclaiming waits for the pages */
    size_t handed;        /* objects in the current slice */
    double paced;         /* garbage to be reclaimed for each young collection */
    unsigned slices;      /* in which that is done between two of them; 0: within them */
    Py_ssize_t borrowed;  /* by how much the count of young objects is ahead of the truth, so that a slice comes */
    Py_ssize_t young;     /* their true count, during a slice */
    double ns_of_young;   /* a young collection */
    size_t slice;         /* objects per slice */
    size_t slice_asked;   /* where somebody asks for a young collection: as many as slice_ms allows */
    double ns_of_slice;   /* per object, of recent slices */
    bool no_snapshots;    /* another allocator came over ours: frees cannot be seen */
    double ns_per_object; /* of recent searches */
    bool split;           /* a snapshot has taken pages out of huge ones */
    size_t collapsed;     /* objects, about, when huge pages were last asked for */

    double yield_due; /* proportional: old objects, as a part of all, before the next automatic full collection */

    type_count types[NAMES];
    size_t names, others;
    const char *how;
} W;

bool collector_installed(void) { return W.installed; }
const collector_options *collector_current(void) { return &W.o; }
const collector_statistics *collector_numbers(void) { return &W.n; }
void collector_clear_numbers(void) { memset(&W.n, 0, sizeof W.n); }
const char *collector_phase(void) { return W.phase == IDLE ? "idle" : W.phase == RUNNING ? "searching" : "reclaiming"; }

static void note_pause(uint64_t ns) {
    uint64_t us = ns / 1000;
    unsigned i = 0;
    if (us) {
        unsigned e = 63u - (unsigned)__builtin_clzll(us);
        i = 4 * e + (e >= 2 ? (unsigned)(us >> (e - 2)) & 3 : 0) + 1;
    }
    W.n.pause[i < PAUSES ? i : PAUSES - 1]++;
    W.n.total_ns += ns;
    if (ns > W.n.max_ns) W.n.max_ns = ns;
}

/* ---- notes of frees, while a snapshot is being searched ---------------------------------------------------------- */

/* What the child proposes may have been freed meanwhile (through a weak reference, by a young collection, by
 * gc.get_objects) and its memory may hold something else. So every address that is given back to the object allocator
 * while a snapshot is about is noted; a proposal whose memory was given back is dropped. Types that keep free lists of
 * their own give out the memory for the same type again, as a container that is tracked or says that it is not. */
static struct {
    PyMemAllocatorEx below;
    bool on, made, lost;
    wn_bits freed;
} notes;

static void note_free(void *p) {
    if (p && notes.on && !wn_bits_put(&notes.freed, 0, (uintptr_t)p)) notes.lost = true;
}
static void noting_free(void *ctx, void *p) {
    note_free(p);
    notes.below.free(ctx, p);
}
static void *noting_realloc(void *ctx, void *p, size_t n) {
    note_free(p);
    return notes.below.realloc(ctx, p, n);
}

static bool notes_on_top(void) {
    PyMemAllocatorEx a;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &a);
    return a.free == noting_free;
}
static bool notes_begin(void) {
    if (!notes.made && !(notes.made = wn_bits_make(&notes.freed))) return false;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &notes.below);
    PyMemAllocatorEx a = notes.below;
    a.free = noting_free;
    a.realloc = noting_realloc;
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &a);
    notes.lost = false;
    notes.on = true;
    return true;
}
static void notes_end(void) {
    if (!notes.on) return;
    notes.on = false;
    wn_bits_trim(&notes.freed);
    if (notes_on_top()) {
        PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &notes.below);
    } else if (!W.no_snapshots) {
        W.no_snapshots = true; /* ours stays beneath the other, doing nothing */
        W.n.fallback_allocator++;
        if (W.o.log) fputs("winnow: another allocator came over winnow's: no snapshots while it is there\n", stderr);
    }
}
/* Whether frees can be seen: once what came over ours has gone, ours is on top again and can be taken away. */
static bool notes_possible(void) {
    if (W.no_snapshots && notes_on_top()) {
        PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &notes.below);
        W.no_snapshots = false;
    }
    return !W.no_snapshots;
}
static bool was_freed(PyObject *o) {
    uintptr_t a = (uintptr_t)o; /* its memory begins with the list's head, or 16 bytes before that */
    return wn_bits_test(&notes.freed, 0, a - 16) || wn_bits_test(&notes.freed, 0, a - 32);
}

/* ---- parking ----------------------------------------------------------------------------------------------------- */

static PyGC_Head *generation(int i) { return &W.gc->generations[i].head; }

static void park(int level) {
    if (level == 2 && !census_in_place()) W.counted = false;
    W.parked = level;
    for (int i = level; i >= 0; i--) gc_list_insert(generation(i), census_parked());
}
/* The census is told once: Python code may have moved the lists when this is called again. */
static void unpark(void) {
    if (W.between || W.parked == 0)
        gc_list_insert(census_parked(), generation(W.between ? 0 : 1));
    else
        census_unpark(W.parked == 2, W.counted);
    W.counted = false;
}

static void hand_over(PyObject *o) {
    PyGC_Head *g = gc_of(o);
    gc_unlink(g);
    gc_link_before(g, generation(0));
}

/* Not where a worker shares its parent's memory. */
static bool writes_freely(void) { return !(W.forked && W.o.mode == MODE_FORK_FRIENDLY); }

static void canary_take(void);

/* Callbacks can be cleared, and a finalizer can uninstall us, so a stop may never be heard of. */
static void repair(void) {
    if (W.nested) return;
    W.in_slice = false;
    if (!(W.in_full || W.searched || W.between)) return;
    if (!gc_list_empty(census_parked())) {
        unpark();
        W.n.repaired++;
    }
    canary_take();
    W.in_full = W.between = false;
    W.searched = 0;
}

/* The canary is garbage that dies first: a container whose only reference is its own, at the head of what is handed
 * over, and a weak reference to it. The interpreter calls that reference back before it runs any Python code, and after
 * it has finished with its lists; so there the parked objects are put back. The canary itself is taken out of the list
 * of what is to be freed, and used again: CPython 3.8 would free nothing at all if it found it alive there. */
typedef struct canary_object {
    PyObject_HEAD PyObject *weak;
} canary_object;

static int canary_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(self);
    return 0;
}
static void canary_dealloc(PyObject *self) { Py_SET_REFCNT(self, 1); } /* never comes to it */
static PyTypeObject canary_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "winnow._Canary",
                                   .tp_basicsize = sizeof(canary_object),
                                   .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                                   .tp_traverse = canary_traverse,
                                   .tp_dealloc = canary_dealloc,
                                   .tp_weaklistoffset = offsetof(canary_object, weak)};
static struct {
    PyGC_Head gc;
    canary_object ob;
} canary __attribute__((aligned(16)));
static PyObject *canary_watch, *canary_call;

static PyObject *canary_died(PyObject *self, PyObject *weak) {
    (void)self, (void)weak;
    gc_unlink(&canary.gc);
    canary.gc._gc_next = canary.gc._gc_prev = 0;
    unpark();
    Py_RETURN_NONE;
}
static PyMethodDef canary_method = {"canary_died", canary_died, METH_O, NULL};

static void canary_set(void) {
    if (!canary_call) return;
    canary_take();
    Py_SET_REFCNT((PyObject *)&canary.ob, 1);
    canary_watch = PyWeakref_NewRef((PyObject *)&canary.ob, canary_call);
    Py_SET_REFCNT((PyObject *)&canary.ob, 1);
    if (!canary_watch) {
        PyErr_Clear(); /* then the parked are put back at the stop */
        return;
    }
    PyGC_Head *g = &canary.gc;
    g->_gc_prev = 0;
    gc_link_before(g, gc_next(generation(0)));
}
static void canary_take(void) {
    if (canary.gc._gc_next) {
        gc_unlink(&canary.gc);
        canary.gc._gc_next = canary.gc._gc_prev = 0;
    }
    Py_SET_REFCNT((PyObject *)&canary.ob, 1);
    Py_CLEAR(canary_watch);
}

/* ---- the types of what was found, for the log -------------------------------------------------------------------- */

static void count_type(PyTypeObject *t) {
    for (size_t i = 0; i < W.names; i++)
        if (W.types[i].type == t) {
            W.types[i].n++;
            return;
        }
    if (W.names == NAMES) {
        W.others++;
        return;
    }
    type_count *c = &W.types[W.names++];
    c->type = t;
    c->n = 1;
    strncpy(c->name, t->tp_name, sizeof c->name - 1);
}
static void log_line(uint64_t ns, size_t proposed, size_t tracked) {
    if (!W.o.log) return;
    fprintf(stderr, "winnow: %s %.2f ms, %zu of %zu containers garbage", W.how, (double)ns / 1e6, proposed, tracked);
    if (W.phase != IDLE) fprintf(stderr, ", fork %.2f ms", (double)W.n.fork_ns / 1e6);
    for (int shown = 0; shown < 6; shown++) {
        type_count *most = NULL;
        for (size_t i = 0; i < W.names; i++)
            if (W.types[i].n && (!most || W.types[i].n > most->n)) most = &W.types[i];
        if (!most) break;
        fprintf(stderr, "%s %s %zu", shown ? "," : ":", most->name, most->n);
        most->n = 0;
    }
    fputc('\n', stderr);
    W.names = W.others = 0;
    memset(W.types, 0, sizeof W.types);
}

/* ---- a full collection at once ----------------------------------------------------------------------------------- */

/* A collection of what has been handed over, inside the callback of the one that is about to begin. Nobody is told. */
static void collect_batch(void) {
    gc_state *gc = W.gc;
    PyObject *callbacks = gc->callbacks;
    int enabled = gc->enabled;
    gc->callbacks = NULL;
    gc->collecting = 0;
    gc->enabled = 1;
    W.nested = true;
    W.extra += PyGC_Collect();
    W.nested = false;
    gc->generation_stats[2].collections--;
    if (!enabled) gc->enabled = 0;
    gc->collecting = 1;
    gc->callbacks = callbacks;
    canary_take();
}

/* Links are scattered like the objects: asked for some objects ahead, in two steps. */
static void ask_links(PyObject **o, size_t i, size_t n) {
    if (i + 24 < n) WN_PREFETCH(gc_of(o[i + 24]));
    if (i + 12 < n) {
        WN_PREFETCH(gc_next(gc_of(o[i + 12])));
        WN_PREFETCH(gc_prev(gc_of(o[i + 12])));
    }
}

static void propose_all(void) {
    search *s = &W.search;
    if (s->tracked <= 30000) { /* few: in the interpreter's order */
        PyGC_Head *parked = census_parked();
        for (PyGC_Head *g = gc_next(parked), *next; g != parked; g = next) {
            next = gc_next(g);
            if (wn_cycles_is_garbage(&s->cycles, object_of(g))) hand_over(object_of(g));
        }
        return;
    }
    wn_bits_cursor c;
    PyObject *o[512];
    wn_bits_walk(&s->cycles.bits, &c);
    for (size_t n;;) {
        for (n = 0; n < 512 && (o[n] = wn_bits_next(&c, WN_CYCLES_UNMARKED)); n++) {
        }
        if (!n) break;
        for (size_t i = 0; i < n; i++) {
            ask_links(o, i, n);
            hand_over(o[i]);
        }
    }
}

static void propose_batches(wn_groups *g) {
    PyObject **o = (PyObject **)g->object;
    /* Python code that runs for one batch might get at an object of a later one through a weak reference, and let it be
     * freed: until their turn comes we hold them. */
    for (size_t i = g->end[0]; i < g->objects; i++) {
        if (i + 16 < g->objects) WN_PREFETCH(o[i + 16]);
        Py_INCREF(o[i]);
    }
    for (size_t b = 0, from = 0; b < g->batches; from = g->end[b++]) {
        PyObject **part = o + from;
        size_t n = g->end[b] - from;
        for (size_t i = 0; i < n; i++) {
            ask_links(part, i, n);
            if (b == 0 || gc_tracked(part[i])) hand_over(part[i]);
        }
        if (b)
            for (size_t i = 0; i < n; i++) Py_DECREF(part[i]);
        canary_set();
        if (b + 1 == g->batches) return;
        collect_batch();
        if (!W.installed) { /* a finalizer has seen to that: the rest is the interpreter's */
            unpark();
            for (size_t i = g->end[b]; i < g->objects; i++) Py_DECREF(o[i]);
            return;
        }
        park(2);
    }
}

static void full_at_once(bool by_itself) {
    search *s = &W.search;
    W.how = "full collection";
    bool writes = writes_freely();
    if (!search_run(s, writes ? W.o.threads : 1)) { /* the second thread has tables of its own */
        W.n.fallback_memory++;
        search_reset(s);
        return;
    }
    W.counted = true;
    size_t garbage = s->cycles.garbage;
    W.n.walk_ns = s->walk_ns;
    W.n.mark_ns = s->mark_ns;
    W.n.trial_ns = s->trial_ns;
    W.n.tracked = s->tracked;
    W.n.marked = s->marked;
    W.n.candidates = s->cycles.candidates;
    W.n.walked = census_walked();
    W.n.gone = s->gone[0].n + s->gone[1].n;
    W.n.proposed += garbage;
    if (s->tracked) W.ns_per_object = (double)(s->walk_ns + s->mark_ns + s->trial_ns) / (double)s->tracked;
    if (writes) {
        search_tell_census(s);
        search_untrack(s, W.gc);
    }
    W.in_full = true;
    W.extra = 0;
    W.dispose_start = wn_os_now();
    W.survivors = s->tracked - garbage;
    wn_groups g = {0};
    /* The return value of a gc.collect that was not called by its name would miss the batches before the last, and
     * the interpreter's debugging output would come in parts. */
    bool batches = garbage > 2 * (size_t)W.o.batch && (W.asked || by_itself) && !W.gc->debug &&
                   wn_cycles_group(&s->cycles, (size_t)W.o.batch, scan_fetch, scan_together, search_scanner(), &g);
    if (W.o.log) {
        wn_bits_cursor c;
        PyObject *o;
        wn_bits_walk(&s->cycles.bits, &c);
        while ((o = wn_bits_next(&c, WN_CYCLES_UNMARKED))) count_type(Py_TYPE(o));
    }
    park(2);
    if (batches) {
        propose_batches(&g);
        wn_groups_drop(&g);
    } else if (garbage) {
        propose_all();
        canary_set();
    }
    if (writes)
        search_reset(s);
    else
        search_trim(s); /* the tables themselves would be the worker's private memory */
}

/* ---- snapshots --------------------------------------------------------------------------------------------------- */

static size_t expected_objects(void) {
    size_t last = W.n.tracked, now = (size_t)(W.gc->long_lived_total + W.gc->long_lived_pending);
    return (last > now ? last : now) + 10000;
}
double collector_expected_ms(void) {
    return (double)expected_objects() * (W.ns_per_object > 0 ? W.ns_per_object : 40) / 1e6;
}

/* In the child. */
static bool search_snapshot(void *context, void *result, size_t bytes) {
    (void)context;
    search *s = &W.search;
    answer *a = result;
    uint64_t start = wn_os_now(), cpu = wn_os_thread_cpu();
    size_t room = (bytes - sizeof *a) / sizeof(entry), at = 0;
    wn_groups g = {0};
    if (!search_run(s, 1)) return false;
    if (s->cycles.garbage && !wn_cycles_group(&s->cycles, TOGETHER, scan_fetch, scan_together, search_scanner(), &g))
        return false;
    a->tracked = s->tracked;
    a->marked = s->marked;
    a->candidates = s->cycles.candidates;
    a->garbage = s->cycles.garbage;
    a->walked = census_walked();
    a->gone = s->gone[0].n;
    for (size_t b = 0, from = 0; b < g.batches && g.end[b] <= room; from = g.end[b++])
        for (size_t i = from; i < g.end[b]; i++) {
            PyObject *o = g.object[i];
            a->entry[at++] = (entry){(uintptr_t)o | (i + 1 == g.end[b]), Py_TYPE(o)};
        }
    a->entries = at;
    for (size_t i = 0; i < s->untrackable[0].n && at < room; i++, a->untrackable++) {
        PyObject *o = s->untrackable[0].item[i];
        a->entry[at++] = (entry){(uintptr_t)o, Py_TYPE(o)};
    }
    for (size_t i = 0; a->gone > a->tracked / 8 && i < a->gone && at < room; i++, a->told++)
        a->entry[at++].object = (uintptr_t)s->gone[0].item[i];
    if (W.o.log) {
        for (size_t i = 0; i < a->entries; i++) count_type(a->entry[i].type);
        memcpy(a->types, W.types, sizeof a->types);
        a->names = W.names;
    }
    a->ns = wn_os_now() - start;
    a->cpu_ns = wn_os_thread_cpu() - cpu;
    return true;
}

static void give_back_borrowed(void) {
    int *count = &W.gc->generations[0].count;
    *count = *count > W.borrowed ? (int)(*count - W.borrowed) : 0;
    W.borrowed = 0;
}

static void drop_snapshot(void) {
    if (W.phase == IDLE) return;
    give_back_borrowed();
    W.split = true;
    wn_snapshot_drop(&W.snapshot);
    notes_end();
    W.answer = NULL;
    W.phase = IDLE;
}

static bool start_snapshot(void) {
    if (!notes_possible()) return false;
    uint64_t start = wn_os_now();
    size_t room = expected_objects() + expected_objects() / 4;
    if (!notes_begin()) return false;
    if (!wn_snapshot_start(&W.snapshot, sizeof(answer) + room * sizeof(entry), search_snapshot, NULL)) {
        notes_end();
        W.n.fallback_fork++;
        return false;
    }
    W.n.fork_ns = wn_os_now() - start;
    W.n.snapshots++;
    W.snapshot_at = start;
    W.phase = RUNNING;
    W.pages = SHARED;
    return true;
}

/* Huge pages pay when the heap has grown, or after a snapshot; not while one is about, whose pages are shared. */
static void want_huge_pages(void) {
    if (!W.o.huge || W.o.mode != MODE_CONCURRENT || W.phase != IDLE) return;
    size_t now = (size_t)(W.gc->long_lived_total + W.gc->long_lived_pending);
    if (now < 50000 || (!W.split && now < W.collapsed + W.collapsed / 4)) return;
    if (!pages_begin(PAGES_HUGE)) return;
    W.split = false;
    W.collapsed = now;
}

static void plan_slices(uint64_t took);

/* Takes note of a child that has finished, died, or takes too long. */
static void poll_snapshot(void) {
    if (W.phase != RUNNING) return;
    wn_snapshot_state state = wn_snapshot_poll(&W.snapshot);
    if (state == WN_SNAPSHOT_DONE) {
        W.answer = wn_snapshot_result(&W.snapshot);
        answer *a = W.answer;
        W.next = 0;
        W.handed = 0;
        W.phase = READY;
        W.n.child_ns = a->ns;
        W.n.child_cpu_ns = a->cpu_ns;
        W.n.tracked = a->tracked;
        W.n.marked = a->marked;
        W.n.candidates = a->candidates;
        W.n.walked = a->walked;
        W.n.gone = a->gone;
        W.n.proposed += a->garbage;
        W.patience = wn_os_now() + a->ns;
        if (a->tracked) W.ns_per_object = (double)a->ns / (double)a->tracked;
        W.gc->long_lived_total = (Py_ssize_t)(a->tracked - a->garbage);
        W.paced = 0;
        plan_slices(0);
        if (W.o.log) {
            memcpy(W.types, a->types, sizeof W.types);
            W.names = a->names;
            W.how = "snapshot searched in";
            log_line(a->ns, a->garbage, a->tracked);
        }
    } else if (state == WN_SNAPSHOT_DIED) {
        W.n.fallback_child++;
        W.at_once = true;
        drop_snapshot();
    } else if ((double)(wn_os_now() - W.snapshot_at) > W.o.snapshot_s * 1e9) {
        W.n.fallback_slow++;
        W.at_once = true;
        drop_snapshot();
    }
}

/* The fork protected every page against writing, and the program takes a fault for each that it writes to; while the
 * child lives, a copy. Reclaiming writes to most of them, so it waits until the child has ended and a thread has made
 * the pages writable, but not for ever. */
static bool pages_are_ours(void) {
    if (W.pages == SHARED && wn_snapshot_ended(&W.snapshot))
        W.pages = W.answer->tracked > FEW && pages_begin(PAGES_OURS) ? RETURNING : OURS;
    if ((W.pages == RETURNING && !pages_at_work()) || wn_os_now() > W.patience) W.pages = OURS;
    return W.pages == OURS;
}

static void ask_to_write(void *ignored, void *reference) {
    (void)ignored;
    if (reference) __builtin_prefetch(reference, 1, 2);
}

/* Garbage has lain untouched for long, and its collection waits for each line of memory in turn: the objects, their
 * tables, what those hold. So all of them are asked for together: one step for all objects, then the next. */
static void ask_for(PyObject **o, size_t n) {
    for (size_t i = 0; i < n; i++) {
        PyTypeObject *type = Py_TYPE(o[i]);
        __builtin_prefetch(gc_next(gc_of(o[i])), 1, 2);
        __builtin_prefetch(gc_prev(gc_of(o[i])), 1, 2);
        if (type == &PyDict_Type) {
            char *keys = (char *)((PyDictObject *)o[i])->ma_keys;
            __builtin_prefetch(keys, 1, 2);
            __builtin_prefetch(keys + 64, 1, 2);
        } else if (type == &PyList_Type) {
            __builtin_prefetch(((PyListObject *)o[i])->ob_item, 1, 2);
        } else if (HAS_MANAGED_DICT(type)) {
            __builtin_prefetch(instance_values_hint(o[i]), 1, 2);
        }
    }
    for (size_t i = 0; i < n; i++) {
        PyTypeObject *type = Py_TYPE(o[i]);
        PyObject **values;
        size_t count = 0;
        if (type == &PyDict_Type)
            scan_dict(o[i], ask_to_write, NULL);
        else if (type == &PyList_Type)
            scan_list(o[i], ask_to_write, NULL);
        else if (type == &PyTuple_Type)
            scan_tuple(o[i], ask_to_write, NULL);
        else if (HAS_MANAGED_DICT(type))
            ask_to_write(NULL, instance_dict(o[i], type, &values, &count));
        for (size_t k = 0; k < count; k++) ask_to_write(NULL, values[k]);
    }
}

/* Hands over about that much of the garbage, whole components; then untracks; then tells the census; then it is over.
 */
static void reclaim_slice(size_t slice) {
    enum { TOGETHER_ASKED = 256, GONE = 256, LIGHT = 8 }; /* of the last two kinds so many take as long as one object */
    answer *a = W.answer;
    if (notes.lost || !notes_on_top()) { /* frees went unseen: nothing of it can be trusted */
        W.n.fallback_allocator++;
        drop_snapshot();
        return;
    }
    size_t handed = 0, looked = 0;
    for (bool whole = true; W.next < a->entries && !(whole && handed >= slice);) {
        PyObject *part[TOGETHER_ASKED];
        size_t n = 0, some = handed < slice ? slice - handed + TOGETHER : TOGETHER;
        if (some > TOGETHER_ASKED) some = TOGETHER_ASKED;
        size_t end = W.next + some < a->entries ? W.next + some : a->entries;
        for (size_t i = W.next; i < end; i++) {
            void *o = (void *)(a->entry[i].object & ~(uintptr_t)1);
            __builtin_prefetch(gc_of(o), 1, 2);
            if ((uintptr_t)o & 63) __builtin_prefetch((char *)o + 32, 1, 2);
        }
        for (; W.next < end && !(whole && handed + n >= slice); looked++) {
            entry *e = &a->entry[W.next++];
            PyObject *o = (PyObject *)(e->object & ~(uintptr_t)1);
            whole = e->object & 1;
            if (was_freed(o) || !gc_tracked(o) || Py_TYPE(o) != e->type)
                W.n.rejected_stale++;
            else
                part[n++] = o;
        }
        ask_for(part, n);
        for (size_t i = 0; i < n; i++) hand_over(part[i]);
        handed += n;
    }
    W.handed = handed;
    if (handed) {
        W.n.slices++;
        W.in_slice = true;
    }
    size_t untracked = a->entries + a->untrackable, end = untracked + a->told;
    for (; W.next >= a->entries && W.next < untracked && looked < slice; looked += W.next % LIGHT == 0) {
        entry *e = &a->entry[W.next++];
        PyObject *o = (PyObject *)e->object;
        if (was_freed(o) || !gc_tracked(o) || Py_TYPE(o) != e->type) continue;
        W.n.untracked += search_untrack_one(o);
    }
    for (; W.next >= untracked && W.next < end && looked < slice; looked += GONE / LIGHT) {
        PyObject *part[GONE];
        size_t n = 0;
        while (n < GONE && W.next < end) part[n++] = (PyObject *)a->entry[W.next++].object;
        census_remove_gone(part, n);
    }
    if (W.next == end) drop_snapshot();
}

bool collector_step(void) {
    if (!W.installed) return false;
    poll_snapshot();
    return W.phase == READY && pages_are_ours();
}

bool collector_start_snapshot(void) {
    return W.installed && W.o.mode == MODE_CONCURRENT && W.phase == IDLE && start_snapshot();
}

/* ---- the callback ------------------------------------------------------------------------------------------------ */

/* Whether the interpreter's thresholds asked for this full collection. Somebody who kept gc.collect from before we came
 * is told apart by its conditions not being met; if they are, what he gets is what would have come anyway. */
static bool automatic(void) {
    gc_state *gc = W.gc;
    return !W.asked && gc->enabled && gc->generations[2].threshold &&
           gc->generations[2].count > gc->generations[2].threshold &&
           gc->generations[0].count > gc->generations[0].threshold;
}

/* All are about to become old without having been searched. */
static void count_young(void) { W.counted = census_check() && census_add_young(1); }

static void nothing_this_time(void) {
    if (!W.counted) count_young();
    W.survivors = (size_t)(W.gc->long_lived_total + W.gc->long_lived_pending);
    W.in_full = true;
    W.extra = 0;
    park(2);
}

/* As if it had not been asked for: it will be again. The interpreter forgets how many objects have grown old, so that
 * is put back when it has stopped. */
static void put_off(void) {
    W.pending = W.gc->long_lived_pending;
    W.n.deferred++;
    W.how = "full collection put off";
    nothing_this_time();
    W.survivors = (size_t)W.gc->long_lived_total;
}

static void full_start(void) {
    bool by_itself = automatic();
    if (W.bypass || (W.gc->debug & DEBUG_COLLECTABLE)) return; /* which would name the canary */
    W.n.full++;
    if (W.o.proportional && by_itself && W.phase == IDLE &&
        (double)W.gc->long_lived_pending < W.yield_due * (double)W.gc->long_lived_total) {
        put_off();
        return;
    }
    if (W.o.mode == MODE_CONCURRENT) {
        poll_snapshot();
        if (by_itself && W.phase != IDLE) {
            W.n.skipped++;
            W.how = "full collection while one goes on";
            nothing_this_time();
            return;
        }
        /* The fork will be much shorter once the huge pages are there; but garbage does not wait for ever. */
        if (by_itself && W.o.huge && pages_at_work() && W.gc->long_lived_pending < W.gc->long_lived_total / 2) {
            put_off();
            return;
        }
        if (!by_itself) drop_snapshot();
        bool snapshot = by_itself && !W.at_once && collector_expected_ms() > W.o.budget_ms;
        if (snapshot) count_young(); /* afterwards the tables are shared */
        if (snapshot && start_snapshot()) {
            W.how = "snapshot taken in";
            nothing_this_time();
            return;
        }
    }
    W.at_once = false;
    full_at_once(by_itself);
}

/* A snapshot costs no stop to speak of, but garbage lives on while the child searches and while it is reclaimed. So the
 * automatic collection is begun before the interpreter would ask for it, when old objects have grown by 15 % instead of
 * 25 %, and the peak of memory stays where it was. */
static void start_early(int level) {
    gc_state *gc = W.gc;
    if (W.o.mode != MODE_CONCURRENT || W.o.proportional || W.phase != IDLE || W.at_once || !gc->enabled ||
        !gc->generations[2].threshold || gc->generations[2].count <= gc->generations[2].threshold ||
        gc->long_lived_pending < (Py_ssize_t)((double)gc->long_lived_total * EARLY) ||
        collector_expected_ms() <= W.o.budget_ms) {
        W.due = false;
        return;
    }
    W.due = true;
    if ((W.o.huge && pages_at_work()) || level) return; /* a young collection comes soon, and takes less by itself */
    W.due = false;
    W.start = wn_os_now();
    if (!start_snapshot()) return;
    W.n.early++;
    gc->generation_stats[2].collections++;
    gc->long_lived_pending = 0;
    gc->generations[2].count = 0;
    uint64_t ns = wn_os_now() - W.start;
    note_pause(ns);
    W.how = "snapshot taken early in";
    log_line(ns, 0, (size_t)gc->long_lived_total);
}

/* What the interpreter says it has collected; nothing where somebody has taken that out of the dictionary. */
static Py_ssize_t collected_of(PyObject *info) {
    PyObject *collected = PyDict_GetItemWithError(info, W.s_collected);
    Py_ssize_t n = collected ? PyLong_AsSsize_t(collected) : 0;
    if (PyErr_Occurred()) PyErr_Clear();
    return n > 0 ? n : 0;
}

static void full_stop(PyObject *info) {
    uint64_t now = wn_os_now();
    unpark();
    canary_take();
    W.in_full = false;
    W.gc->long_lived_total = (Py_ssize_t)W.survivors;
    W.gc->long_lived_pending += W.pending;
    W.pending = 0;
    Py_ssize_t n = collected_of(info);
    if (W.extra) {
        n += W.extra;
        PyObject *sum = PyLong_FromSsize_t(n);
        if (!sum || PyDict_SetItem(info, W.s_collected, sum) < 0) PyErr_Clear();
        Py_XDECREF(sum);
    }
    W.n.collected += (uint64_t)n;
    W.n.last_ns = now - W.start;
    W.n.dispose_ns = W.dispose_start ? now - W.dispose_start : 0;
    if (W.dispose_start) {
        double yield = W.n.tracked ? (double)n / (double)W.n.tracked : 0;
        W.yield_due = yield > .10           ? 0
                      : yield > .02         ? .25
                      : W.yield_due < .25   ? .5
                      : W.yield_due * 2 > 2 ? 2
                                            : W.yield_due * 2;
    }
    W.dispose_start = 0;
}

/* ---- younger generations ----------------------------------------------------------------------------------------- */

/* Always at once: there is little to be searched. */
static void younger_start(int level) {
    young *y = &W.young_search;
    if (W.bypass || W.gc->debug) return; /* debugging output tells of the generations' sizes */
    W.searched_at = wn_os_now();
    bool writes = writes_freely(), known = level && census_check();
    if (level && !known) census_step(8192 + 2 * W.grown_old);
    if (!young_search(y, W.gc, level, !writes)) {
        W.n.fallback_memory += y->lost;
        W.n.older_left += level && !y->lost;
        return;
    }
    level ? W.n.older++ : W.n.young++;
    W.n.proposed += y->garbage;
    W.searched = 1 + level;
    W.grown_old = y->n - y->garbage;
    /* In a worker too: what is young there it has made itself, but for little. */
    for (size_t i = 0; i < y->n; i++)
        if (y->t.count[i] && PyTuple_CheckExact(y->t.object[i])) W.grown_old -= search_untrack_one(y->t.object[i]);
    W.counted = known && census_add(y->t.object, y->n);
    park(level);
    if (y->garbage) {
        for (size_t i = 0; i < y->n; i++)
            if (!y->t.count[i]) hand_over(y->t.object[i]);
        canary_set();
    }
    young_done(y, !writes); /* the tables are a worker's private memory */
}

static void younger_stop(int level, PyObject *info) {
    unpark();
    canary_take();
    W.searched = 0;
    W.n.collected += (uint64_t)collected_of(info);
    if (!level) return;
    W.gc->long_lived_pending += (Py_ssize_t)W.grown_old;
    W.n.older_ns = wn_os_now() - W.searched_at;
    if (W.n.older_ns > W.n.older_max_ns) W.n.older_max_ns = W.n.older_ns;
}

/* ---- pacing ------------------------------------------------------------------------------------------------------ */

/* Garbage is reclaimed at the pace at which the next snapshot can come nearer, as the old objects grow in number (when
 * that has gone on while the child searched, faster): what is done before then costs no memory, because new objects
 * take the place of those reclaimed. And it is done in slices that take about as long as a young collection, so that
 * the program's slowest steps are not much slower than they always were: several of them between two young collections.
 * For that the interpreter's count of new objects is put ahead, which makes it collect sooner, and in such a collection
 * the young objects are parked.
 *
 * Of what slices cost, a rise counts at once and a fall slowly. */
static void plan_slices(uint64_t took) {
    enum { MOST_BETWEEN = 16, LEAST_STEP = 32 };
    if (took && W.handed > 20) {
        double each = (double)took / (double)W.handed;
        W.ns_of_slice = each > W.ns_of_slice ? W.ns_of_slice * .8 + each * .2 : W.ns_of_slice * .95 + each * .05;
    }
    if (!W.answer) return; /* that was the last */
    double until_next = (double)W.gc->long_lived_total * EARLY, growth = until_next - (double)W.gc->long_lived_pending;
    if (growth < until_next / 8) growth = until_next / 8;
    double left = W.next < W.answer->entries ? (double)(W.answer->entries - W.next) : 0;
    double pace = left * W.gc->generations[0].threshold / (growth + 1);
    if (pace > W.paced) W.paced = pace;
    double each = W.ns_of_slice > 0 ? W.ns_of_slice : 500, limit = W.o.slice_ms * 8e5;
    double aim = .6 * (W.ns_of_young > 25e3 ? W.ns_of_young : 25e3);
    double slices = W.paced * each / (aim < limit ? aim : limit) + 1;
    int young = W.gc->generations[0].threshold,
        room = young / LEAST_STEP < MOST_BETWEEN ? young / LEAST_STEP : MOST_BETWEEN;
    W.slices = slices < room ? (unsigned)slices : (unsigned)room;
    double n = W.paced / (W.slices ? W.slices : 1);
    /* Longer than they should be only where garbage comes faster than it goes: as many objects as can grow old. */
    double least = (young < 133 ? 200 : young > 1000 ? 1000 : 1.5 * young) / (W.slices ? W.slices : 1);
    if (n * each > limit) n = limit / each > least ? limit / each : least;
    W.slice = n > TOGETHER / 2 ? (size_t)n : TOGETHER / 2;
    W.slice_asked = (size_t)(limit / each) > W.slice ? (size_t)(limit / each) : W.slice;
}

/* At the end of a young collection or a slice. */
static void next_slice(void) {
    struct gc_generation *g = W.gc->generations;
    if (W.phase != READY || W.pages != OURS || !W.slices || !W.gc->enabled || g[1].count > g[1].threshold) return;
    Py_ssize_t step = g[0].threshold / (Py_ssize_t)(W.slices + 1);
    if (g[0].count + step > g[0].threshold) return;
    W.borrowed = g[0].threshold - step - g[0].count;
    g[0].count += (int)W.borrowed;
}

static void young_start(int level) {
    int count = W.gc->generations[0].count, threshold = W.gc->generations[0].threshold;
    bool by_itself = W.gc->enabled && threshold && count > threshold, slice = W.borrowed && by_itself && level == 0;
    W.start = wn_os_now();
    W.slice_cpu = wn_os_thread_cpu();
    give_back_borrowed();
    poll_snapshot();
    if (W.phase != READY || !pages_are_ours()) return;
    if (slice) {
        W.young = W.gc->generations[0].count;
        gc_list_insert(generation(0), census_parked());
        W.between = true;
        reclaim_slice(W.slice);
        canary_set();
    } else if (level == 0 && (!W.slices || !by_itself)) {
        reclaim_slice(by_itself ? W.slice : W.slice_asked);
    }
}

static void young_stop(int level, PyObject *info) {
    uint64_t ns = wn_os_now() - W.start;
    if (W.between) {
        unpark();
        canary_take();
        W.between = false;
        W.gc->generations[0].count += (int)W.young;
        if (W.gc->generations[1].count) W.gc->generations[1].count--;
    } else if (level == 0 && !W.in_slice) {
        double now = (double)ns < 4 * W.ns_of_young || W.ns_of_young == 0 ? (double)ns : 4 * W.ns_of_young;
        W.ns_of_young = W.ns_of_young ? .8 * W.ns_of_young + .2 * now : now;
    }
    if (W.in_slice) {
        W.in_slice = false;
        note_pause(ns);
        W.n.collected += (uint64_t)collected_of(info);
        plan_slices(wn_os_thread_cpu() - W.slice_cpu); /* not what others did meanwhile */
    }
    if (level == 0) next_slice();
}

static PyObject *on_collection(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    if (nargs != 2 || !PyUnicode_Check(args[0]) || PyUnicode_GET_LENGTH(args[0]) < 4 || !PyDict_Check(args[1]) ||
        !W.installed || W.nested)
        Py_RETURN_NONE;
    bool start = PyUnicode_READ_CHAR(args[0], 2) == 'a';
    PyObject *which = PyDict_GetItemWithError(args[1], W.s_generation);
    long level = which ? PyLong_AsLong(which) : -1;
    if (level == -1 && PyErr_Occurred()) PyErr_Clear();
    if (start) {
        repair();
        W.counted = false;
        if (level == 2) {
            W.start = wn_os_now();
            full_start();
            W.borrowed = 0; /* the interpreter begins all counts anew */
        } else if (W.phase != IDLE) {
            young_start((int)level);
        }
        /* Not a slice: what it hands over is known to be garbage. */
        if (level == 1 || (level == 0 && !W.between && !W.in_slice)) younger_start((int)level);
        Py_RETURN_NONE;
    }
    if (level == 2 && W.in_full) {
        full_stop(args[1]);
        uint64_t ns = wn_os_now() - W.start;
        note_pause(ns);
        if (W.o.log && strcmp(W.how, "full collection") == 0)
            log_line(ns, (size_t)collected_of(args[1]), W.n.tracked);
        else if (W.o.log)
            log_line(ns, 0, (size_t)W.survivors);
    } else if (level < 2 && (W.phase != IDLE || W.in_slice || W.between)) {
        young_stop((int)level, args[1]);
    }
    if (W.searched) younger_stop((int)level, args[1]);
    if (level == 1) {
        want_huge_pages();
        start_early(1);
    } else if (level == 0 && W.due) {
        start_early(0);
    }
    Py_RETURN_NONE;
}
static PyMethodDef callback_method = {"winnow", (PyCFunction)(void (*)(void))on_collection, METH_FASTCALL, NULL};

PyObject *collector_collect(PyObject *args, PyObject *kwargs) {
    if (!W.installed || W.gc->collecting) return PyObject_Call(W.original_collect, args, kwargs);
    repair();
    W.asked = true;
    W.extra = 0;
    PyObject *r = PyObject_Call(W.original_collect, args, kwargs);
    W.asked = false;
    if (!r || !W.extra) return r;
    Py_ssize_t n = PyLong_AsSsize_t(r);
    Py_DECREF(r);
    if (n == -1 && PyErr_Occurred()) return NULL;
    n += W.extra;
    W.extra = 0;
    return PyLong_FromSsize_t(n);
}

PyObject *collector_collect_stock(void) {
    if (!W.installed) return PyErr_Format(PyExc_RuntimeError, "winnow is not installed: call winnow.install() first");
    drop_snapshot();
    W.bypass = true;
    PyObject *r = PyObject_CallNoArgs(W.original_collect);
    W.bypass = false;
    return r;
}

PyObject *collector_find(unsigned threads) {
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    drop_snapshot();
    PyObject_GC_UnTrack(list); /* or it would be found, being on no known root */
    search *s = &W.search;
    if (!search_run(s, threads)) {
        Py_DECREF(list);
        return PyErr_NoMemory();
    }
    wn_bits_cursor c;
    PyObject *o;
    wn_bits_walk(&s->cycles.bits, &c);
    while (list && (o = wn_bits_next(&c, WN_CYCLES_UNMARKED)))
        if (PyList_Append(list, o) < 0) Py_CLEAR(list);
    search_tell_census(s);
    census_all_known();
    search_reset(s);
    if (list) PyObject_GC_Track(list);
    return list;
}

/* ---- forks of the program's own ---------------------------------------------------------------------------------- */

static void forked_child(void) {
    if (!W.gc) return;
    W.forked = true;
    pages_forked();
    W.split = true;
    give_back_borrowed();
    wn_snapshot_forget(&W.snapshot);
    notes_end();
    W.answer = NULL;
    W.phase = IDLE;
    /* The young objects that came along would be written at the first young collections: they count as old now. */
    if (W.installed && W.o.mode == MODE_FORK_FRIENDLY && !W.gc->collecting)
        for (int i = 0; i < 2; i++) gc_list_insert(generation(i), generation(2));
}

/* ---- installing -------------------------------------------------------------------------------------------------- */

static bool refuse(const char *why) {
    PyErr_Format(PyExc_RuntimeError, "winnow: %s; the interpreter's own collector stays as it is. Nothing was changed.",
                 why);
    return false;
}

/* The collector's state lies where the headers said: its numbers are the ones the gc module reports, and a new
 * container stands at the end of its youngest list. */
static bool layout_check(PyObject *gc_module) {
    gc_state *gc = gc_state_now();
    int expected[3];
    PyObject *t = PyObject_CallMethod(gc_module, "get_threshold", NULL);
    if (!t || !PyArg_ParseTuple(t, "iii", &expected[0], &expected[1], &expected[2])) {
        Py_XDECREF(t);
        return false;
    }
    Py_DECREF(t);
    bool same = true;
    for (int i = 0; i < 3; i++) {
        PyGC_Head *head = &gc->generations[i].head;
        same = same && gc->generations[i].threshold == expected[i] && head->_gc_next && head->_gc_prev;
    }
    PyObject *callbacks = PyObject_GetAttrString(gc_module, "callbacks");
    if (!callbacks) return false;
    same = same && gc->callbacks == callbacks;
    Py_DECREF(callbacks);
    PyObject *enabled = PyObject_CallMethod(gc_module, "isenabled", NULL);
    if (!enabled) return false;
    same = same && gc->enabled == (enabled == Py_True);
    Py_DECREF(enabled);
    if (!same) return refuse("this build of the interpreter keeps its collector's state in another form");
    PyObject *probe = PyList_New(0);
    if (!probe) return false;
    same = false;
    for (int i = 0; i < 3; i++) same = same || gc_prev(&gc->generations[i].head) == gc_of(probe);
    Py_DECREF(probe);
    return same || refuse("this build of the interpreter keeps its lists of containers in another form");
}

static int bookmark_traverse(PyObject *self, visitproc visit, void *arg) {
    (void)self, (void)visit, (void)arg;
    return 0;
}
static void bookmark_dealloc(PyObject *self) { Py_SET_REFCNT(self, 1); }
static PyTypeObject bookmark_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "winnow._Bookmark",
                                     .tp_basicsize = sizeof(PyObject),
                                     .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                                     .tp_traverse = bookmark_traverse,
                                     .tp_dealloc = bookmark_dealloc,
                                     .tp_doc = "A mark in the collector's list of old objects; holds nothing."};

bool collector_setup(PyObject *module) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "winnow works in the main interpreter only, not in subinterpreters");
        return false;
    }
    if (W.module) return true;
    if (PyType_Ready(&bookmark_type) < 0 || PyType_Ready(&canary_type) < 0 || !scan_setup()) return false;
    if (!census_setup(&bookmark_type)) {
        PyErr_NoMemory();
        return false;
    }
    canary.ob.ob_base.ob_type = &canary_type;
    Py_SET_REFCNT((PyObject *)&canary.ob, 1);
    W.s_generation = PyUnicode_InternFromString("generation");
    W.s_collected = PyUnicode_InternFromString("collected");
    W.callback = PyCFunction_New(&callback_method, NULL);
    canary_call = PyCFunction_New(&canary_method, NULL);
    if (!W.s_generation || !W.s_collected || !W.callback || !canary_call) return false;
    if (pthread_atfork(pages_stop, NULL, forked_child) != 0) {
        PyErr_NoMemory();
        return false;
    }
    Py_INCREF(module);
    W.module = module;
    return true;
}

static bool set_collect(PyObject *gc_module, PyObject *f) {
    return PyObject_SetAttrString(gc_module, "collect", f) == 0;
}

/* Where our callback stands in gc.callbacks; -1: somebody has cleared them. */
static Py_ssize_t hooked(void) {
    for (Py_ssize_t i = PyList_GET_SIZE(W.callbacks); i-- > 0;)
        if (PyList_GET_ITEM(W.callbacks, i) == W.callback) return i;
    return -1;
}
static bool hook(void) { return hooked() >= 0 || PyList_Insert(W.callbacks, 0, W.callback) == 0; }

bool collector_install(const collector_options *o) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) return refuse("it works in the main interpreter only");
    if (W.installed) {
        drop_snapshot();
        W.o = *o;
        return hook();
    }
    PyObject *gc_module = PyImport_ImportModule("gc");
    if (!gc_module) return false;
    bool ok = W.gc || layout_check(gc_module);
    if (ok) {
        if (!W.gc) {
            W.gc = gc_state_now();
            W.callbacks = W.gc->callbacks;
            Py_INCREF(W.callbacks);
        }
        scan_check(W.gc, 20000); /* enough to meet every kind of object */
        if (!W.searching_ready && !(W.searching_ready = search_make(&W.search))) {
            PyErr_NoMemory();
            ok = false;
        }
    }
    if (ok && !W.collect) {
        W.collect = PyObject_GetAttrString(W.module, "collect");
        W.original_collect = PyObject_GetAttrString(gc_module, "collect");
        ok = W.collect && W.original_collect;
    }
    if (ok) {
        W.o = *o;
        W.slice = W.slice_asked = 1000;
        W.yield_due = 0;
        W.young_search.pass = 0;
        trace_find_types();
        ok = hook() && set_collect(gc_module, W.collect);
        if (ok) census_open(W.gc, &W.search.cycles);
        W.installed = ok;
    }
    Py_DECREF(gc_module);
    return ok;
}

void collector_uninstall(void) {
    if (!W.installed) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    drop_snapshot();
    pages_stop();
    repair();
    census_close();
    W.installed = false;
    Py_ssize_t at = hooked();
    if (at >= 0 && PyList_SetSlice(W.callbacks, at, at + 1, NULL) < 0) PyErr_Clear(); /* it does nothing any more */
    PyObject *gc_module = PyImport_ImportModule("gc");
    if (gc_module) {
        PyObject *now = PyObject_GetAttrString(gc_module, "collect");
        if (now == W.collect) set_collect(gc_module, W.original_collect); /* unless somebody put his own there since */
        Py_XDECREF(now);
        Py_DECREF(gc_module);
    }
    search_trim(&W.search);
    trace_forget_types();
    PyErr_Restore(type, value, trace);
}
