/* collector.c - the hook in the interpreter's collector: when it searches, proposing, batches. */
#include "collector.h"

#include "census.h"
#include "pages.h"
#include "parking.h"
#include "snapshots.h"
#include "state.h"
#include "trace.h"
#include "young.h"

#include <pthread.h>
#include <string.h>

#define DEBUG_COLLECTABLE 2 /* gc.DEBUG_COLLECTABLE */

collector_state W;

static struct {
    PyObject *module, *callbacks, *callback, *s_generation, *s_collected;
    PyObject *collect, *original_collect; /* gc.collect: ours, and the interpreter's */
    young young_search;
    bool ready; /* the search's memory has been made */
    bool hears_of_forks;
    bool in_full;       /* between start and stop of a full collection */
    int searched;       /* 1 + the younger generation whose collection, between start and stop, was searched here */
    bool nested;        /* a batch before the last */
    bool asked;         /* gc.collect was called, by its name */
    bool bypass;        /* this collection is the interpreter's alone */
    Py_ssize_t extra;   /* what nested batches collected */
    Py_ssize_t pending; /* of a full collection put off: objects that had grown old */
    size_t survivors;   /* objects tracked after the current full collection, about */
    size_t grown_old;   /* objects that it leaves */
    uint64_t searched_at, dispose_start;
    double yield_due; /* proportional: old objects, as a part of all, before the next automatic full collection */
} C;

bool collector_installed(void) { return W.installed; }
const collector_options *collector_current(void) { return &W.o; }
const collector_statistics *collector_numbers(void) { return &W.n; }
void collector_clear_numbers(void) { memset(&W.n, 0, sizeof W.n); }
const char *collector_phase(void) { return W.phase == IDLE ? "idle" : W.phase == RUNNING ? "searching" : "reclaiming"; }

void note_pause(uint64_t ns) {
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

/* Not where a worker shares its parent's memory. */
static bool writes_freely(void) { return !(W.forked && W.o.mode == MODE_FORK_FRIENDLY); }

/* Callbacks can be cleared, and a finalizer can uninstall us, so a stop may never be heard of. */
static void repair(void) {
    if (C.nested) return;
    W.in_slice = false;
    if (!(C.in_full || C.searched || W.between)) return;
    if (parking_left()) {
        unpark();
        W.n.repaired++;
    }
    canary_take();
    C.in_full = W.between = false;
    C.searched = 0;
}

void log_line(uint64_t ns, size_t garbage, size_t containers) {
    if (W.o.log) report_line(&W.types, W.how, ns, W.phase != IDLE ? W.n.fork_ns : 0, garbage, containers);
}

/* ---- a full collection at once ----------------------------------------------------------------------------------- */

/* A collection of what has been handed over, inside the callback of the one that is about to begin. Nobody is told. */
static void collect_batch(void) {
    gc_state *gc = W.gc;
    PyObject *callbacks = gc->callbacks;
    gc->callbacks = NULL;
    gc->collecting = 0;
    C.nested = true;
    PyObject *n = PyObject_CallNoArgs(C.original_collect); /* PyGC_Collect would do nothing after gc.disable() */
    C.nested = false;
    if (n)
        C.extra += PyLong_AsSsize_t(n);
    else
        PyErr_Clear();
    Py_XDECREF(n);
    gc->generation_stats[2].collections--;
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
            if (wn_cycles_is_garbage(&s->cycles, object_of(g))) hand_over(W.gc, object_of(g));
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
            hand_over(W.gc, o[i]);
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
            if (b == 0 || gc_tracked(part[i])) hand_over(W.gc, part[i]);
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
        park(2, false);
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
    C.in_full = true;
    C.extra = 0;
    C.dispose_start = wn_os_now();
    C.survivors = s->tracked - garbage;
    wn_groups g = {0};
    /* The return value of a gc.collect that was not called by its name would miss the batches before the last, and
     * the interpreter's debugging output would come in parts. */
    bool batches = garbage > 2 * (size_t)W.o.batch && (C.asked || by_itself) && !W.gc->debug &&
                   wn_cycles_group(&s->cycles, (size_t)W.o.batch, scan_fetch, scan_together, search_scanner(), &g);
    if (W.o.log) {
        wn_bits_cursor c;
        PyObject *o;
        wn_bits_walk(&s->cycles.bits, &c);
        while ((o = wn_bits_next(&c, WN_CYCLES_UNMARKED))) report_count(&W.types, Py_TYPE(o));
    }
    park(2, true);
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

size_t expected_objects(void) {
    size_t last = W.n.tracked, now = (size_t)(W.gc->long_lived_total + W.gc->long_lived_pending);
    return (last > now ? last : now) + 10000;
}
double collector_expected_ms(void) {
    return (double)expected_objects() * (W.ns_per_object > 0 ? W.ns_per_object : 40) / 1e6;
}

bool collector_step(void) { return W.installed && snapshot_is_ready(); }

bool collector_start_snapshot(void) {
    return W.installed && W.o.mode == MODE_CONCURRENT && W.phase == IDLE && snapshot_start();
}

/* ---- when, and how ----------------------------------------------------------------------------------------------- */

/* Whether the interpreter's thresholds asked for this full collection. Somebody who kept gc.collect from before we came
 * is told apart by its conditions not being met; if they are, what he gets is what would have come anyway. Until 3.11
 * new objects are above their threshold, too; later the collection comes some time after that, and they may have died.
 */
static bool automatic(void) {
    gc_state *gc = W.gc;
    return !C.asked && gc->enabled && gc->generations[2].threshold &&
           gc->generations[2].count > gc->generations[2].threshold &&
           gc->long_lived_pending >= gc->long_lived_total / 4 &&
           (PY_VERSION_HEX >= 0x030c0000 || gc->generations[0].count > gc->generations[0].threshold);
}

/* For all that grow old without having been searched. False: the census could not be told. */
static bool count_young(void) { return census_check() && census_add_young(1); }

/* `counted`: the census has been told of the young. */
static void nothing_this_time(bool counted) {
    C.survivors = (size_t)(W.gc->long_lived_total + W.gc->long_lived_pending);
    C.in_full = true;
    C.extra = 0;
    park(2, counted);
}

/* As if it had not been asked for: it will be again. The interpreter forgets how many objects have grown old, so that
 * is put back when it has stopped, with those that grow old now. */
static void put_off(void) {
    bool known = census_check();
    size_t walked = census_walked();
    bool counted = census_add_young(1) && known;
    C.pending = W.gc->long_lived_pending + (Py_ssize_t)(census_walked() - walked);
    W.n.deferred++;
    W.how = "full collection put off";
    nothing_this_time(counted);
    C.survivors = (size_t)W.gc->long_lived_total;
}

static void full_start(void) {
    bool by_itself = automatic();
    if (C.bypass || (W.gc->debug & DEBUG_COLLECTABLE)) return; /* which would name the canary */
    W.n.full++;
    if (W.o.proportional && by_itself && W.phase == IDLE &&
        (double)W.gc->long_lived_pending < C.yield_due * (double)W.gc->long_lived_total) {
        put_off();
        return;
    }
    if (W.o.mode == MODE_CONCURRENT) {
        snapshot_poll();
        if (by_itself && W.phase != IDLE) {
            W.n.skipped++;
            W.how = "full collection while one goes on";
            nothing_this_time(count_young());
            return;
        }
        /* The fork will be much shorter once the huge pages are there; but garbage does not wait for ever. */
        if (by_itself && W.o.huge && pages_at_work() && W.gc->long_lived_pending < W.gc->long_lived_total / 2) {
            put_off();
            return;
        }
        if (!by_itself) snapshot_drop();
        bool snapshot = by_itself && !W.at_once && collector_expected_ms() > W.o.budget_ms;
        bool counted = snapshot && count_young(); /* afterwards the tables are shared */
        if (snapshot && snapshot_start()) {
            W.how = "snapshot taken in";
            nothing_this_time(counted);
            return;
        }
    }
    W.at_once = false;
    full_at_once(by_itself);
}

Py_ssize_t collected_of(PyObject *info) {
    PyObject *collected = PyDict_GetItemWithError(info, C.s_collected);
    Py_ssize_t n = collected ? PyLong_AsSsize_t(collected) : 0;
    if (PyErr_Occurred()) PyErr_Clear();
    return n > 0 ? n : 0;
}

static void full_stop(PyObject *info) {
    uint64_t now = wn_os_now();
    unpark();
    canary_take();
    C.in_full = false;
    W.gc->long_lived_total = (Py_ssize_t)C.survivors;
    W.gc->long_lived_pending += C.pending;
    C.pending = 0;
    Py_ssize_t n = collected_of(info);
    if (C.extra) {
        n += C.extra;
        PyObject *sum = PyLong_FromSsize_t(n);
        if (!sum || PyDict_SetItem(info, C.s_collected, sum) < 0) PyErr_Clear();
        Py_XDECREF(sum);
    }
    W.n.collected += (uint64_t)n;
    W.n.last_ns = now - W.start;
    W.n.dispose_ns = C.dispose_start ? now - C.dispose_start : 0;
    if (C.dispose_start) {
        double yield = W.n.tracked ? (double)n / (double)W.n.tracked : 0;
        C.yield_due = yield > .10           ? 0
                      : yield > .02         ? .25
                      : C.yield_due < .25   ? .5
                      : C.yield_due * 2 > 2 ? 2
                                            : C.yield_due * 2;
    }
    C.dispose_start = 0;
}

/* ---- younger generations ----------------------------------------------------------------------------------------- */

/* Always at once: there is little to be searched. */
static void younger_start(int level) {
    young *y = &C.young_search;
    if (W.gc->debug) return; /* debugging output tells of the generations' sizes */
    C.searched_at = wn_os_now();
    bool writes = writes_freely(), known = level && census_check();
    if (level && !known) census_step(8192 + 2 * C.grown_old);
    if (!young_search(y, W.gc, level, !writes)) {
        W.n.fallback_memory += y->lost;
        W.n.older_left += level && !y->lost;
        return;
    }
    level ? W.n.older++ : W.n.young++;
    W.n.proposed += y->garbage;
    C.searched = 1 + level;
    C.grown_old = y->n - y->garbage;
    /* In a worker too: what is young there it has made itself, but for little. */
    for (size_t i = 0; i < y->n; i++)
        if (y->t.count[i] && PyTuple_CheckExact(y->t.object[i])) C.grown_old -= search_untrack_one(y->t.object[i]);
    park(level, known && census_add(y->t.object, y->n));
    if (y->garbage) {
        for (size_t i = 0; i < y->n; i++)
            if (!y->t.count[i]) hand_over(W.gc, y->t.object[i]);
        canary_set();
    }
    young_done(y, !writes); /* the tables are a worker's private memory */
}

static void younger_stop(int level, PyObject *info) {
    unpark();
    canary_take();
    C.searched = 0;
    W.n.collected += (uint64_t)collected_of(info);
    if (!level) return;
    W.gc->long_lived_pending += (Py_ssize_t)C.grown_old;
    W.n.older_ns = wn_os_now() - C.searched_at;
    if (W.n.older_ns > W.n.older_max_ns) W.n.older_max_ns = W.n.older_ns;
}

/* ---- the callback ------------------------------------------------------------------------------------------------ */

static PyObject *on_collection(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    (void)self;
    if (nargs != 2 || !PyUnicode_Check(args[0]) || PyUnicode_GET_LENGTH(args[0]) < 4 || !PyDict_Check(args[1]) ||
        !W.installed || C.nested)
        Py_RETURN_NONE;
    bool start = PyUnicode_READ_CHAR(args[0], 2) == 'a';
    PyObject *which = PyDict_GetItemWithError(args[1], C.s_generation);
    long level = which ? PyLong_AsLong(which) : -1;
    if (level == -1 && PyErr_Occurred()) PyErr_Clear();
    if (start) {
        repair();
        if (level == 2) {
            W.start = wn_os_now();
            full_start();
            slice_forget_count();
        } else if (W.phase != IDLE) {
            W.start = wn_os_now();
            slice_start((int)level);
        }
        /* Not a slice: what it hands over is known to be garbage. */
        if (level == 1 || (level == 0 && !W.between && !W.in_slice)) younger_start((int)level);
        Py_RETURN_NONE;
    }
    if (level == 2 && C.in_full) {
        full_stop(args[1]);
        uint64_t ns = wn_os_now() - W.start;
        note_pause(ns);
        if (W.o.log && strcmp(W.how, "full collection") == 0)
            log_line(ns, (size_t)collected_of(args[1]), W.n.tracked);
        else if (W.o.log)
            log_line(ns, 0, (size_t)C.survivors);
    } else if (level < 2 && (W.phase != IDLE || W.in_slice || W.between)) {
        slice_stop((int)level, args[1]);
    }
    if (C.searched) younger_stop((int)level, args[1]);
    if (level == 1) {
        want_huge_pages();
        snapshot_early(1);
    } else if (level == 0 && snapshot_is_due()) {
        snapshot_early(0);
    }
    Py_RETURN_NONE;
}
static PyMethodDef callback_method = {"winnow", (PyCFunction)(void (*)(void))on_collection, METH_FASTCALL, NULL};

PyObject *collector_collect(PyObject *args, PyObject *kwargs) {
    if (!W.installed || W.gc->collecting) return PyObject_Call(C.original_collect, args, kwargs);
    repair();
    C.asked = true;
    C.extra = 0;
    PyObject *r = PyObject_Call(C.original_collect, args, kwargs);
    C.asked = false;
    if (!r || !C.extra) return r;
    Py_ssize_t n = PyLong_AsSsize_t(r);
    Py_DECREF(r);
    if (n == -1 && PyErr_Occurred()) return NULL;
    n += C.extra;
    C.extra = 0;
    return PyLong_FromSsize_t(n);
}

PyObject *collector_collect_stock(void) {
    if (!W.installed) return PyErr_Format(PyExc_RuntimeError, "winnow is not installed: call winnow.install() first");
    snapshot_drop();
    C.bypass = true;
    PyObject *r = PyObject_CallNoArgs(C.original_collect);
    C.bypass = false;
    return r;
}

PyObject *collector_find(unsigned threads) {
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    snapshot_drop();
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
    snapshots_forked();
    /* The young objects that came along would be written at the first young collections: they count as old now. */
    if (W.installed && W.o.mode == MODE_FORK_FRIENDLY && !W.gc->collecting)
        for (int i = 0; i < 2; i++) gc_list_insert(&W.gc->generations[i].head, &W.gc->generations[2].head);
}

/* ---- installing -------------------------------------------------------------------------------------------------- */

static bool refuse(const char *why) {
    PyErr_Format(PyExc_RuntimeError, "winnow: %s; the interpreter's own collector stays as it is. Nothing was changed.",
                 why);
    return false;
}

/* The collector's state lies where the headers said, in an interpreter whose modules do: its numbers are the ones the
 * gc module reports, and a new container stands at the end of its youngest list. */
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
    same = same && INTERPRETER_MODULES(PyInterpreterState_Get()) == PyImport_GetModuleDict();
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

/* A program may make another interpreter in the place of this one, which knows nothing of us. Whatever belonged to the
 * old one may be gone, and is not looked at. */
static void interpreter_ended(void) {
    if (W.installed) {
        snapshots_forget();
        census_forget();
    }
    trace_lose_types();
    parking_forget();
    C.module = C.callbacks = C.callback = C.s_generation = C.s_collected = C.collect = C.original_collect = NULL;
    C.in_full = W.installed = W.in_slice = W.between = false;
    C.searched = 0;
    W.gc = NULL;
    collector_clear_numbers();
}

bool collector_setup(PyObject *module) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "winnow works in the main interpreter only, not in subinterpreters");
        return false;
    }
    if (C.module) return true;
    if (PyType_Ready(&bookmark_type) < 0 || !parking_setup() || !scan_setup()) return false;
    if (!census_setup(&bookmark_type)) {
        PyErr_NoMemory();
        return false;
    }
    C.s_generation = PyUnicode_InternFromString("generation");
    C.s_collected = PyUnicode_InternFromString("collected");
    C.callback = PyCFunction_New(&callback_method, NULL);
    if (!C.s_generation || !C.s_collected || !C.callback) return false;
    if (Py_AtExit(interpreter_ended) < 0) {
        PyErr_SetString(PyExc_ImportError,
                        "winnow cannot be told when the interpreter ends: others have asked for that");
        return false;
    }
    if (!C.hears_of_forks && pthread_atfork(pages_stop, NULL, forked_child) != 0) {
        PyErr_NoMemory();
        return false;
    }
    C.hears_of_forks = true;
    Py_INCREF(module);
    C.module = module;
    return true;
}

/* gc.collect as the interpreter has made it, whatever stands in its place now; NULL with an exception set. */
static PyObject *make_collect(PyObject *gc_module) {
    PyModuleDef *gc = PyModule_GetDef(gc_module);
    for (PyMethodDef *m = gc ? gc->m_methods : NULL; m && m->ml_name; m++)
        if (strcmp(m->ml_name, "collect") == 0) return PyCFunction_New(m, gc_module);
    if (!PyErr_Occurred()) refuse("this build of the interpreter has its gc.collect in another form");
    return NULL;
}

static bool is_original_collect(PyObject *f) {
    return PyCFunction_Check(f) && PyCFunction_GET_FUNCTION(f) == PyCFunction_GET_FUNCTION(C.original_collect);
}

/* Ours in the place of the interpreter's. What somebody else has put there stays: it comes to one of the two. */
static bool replace_collect(PyObject *gc_module) {
    PyObject *now = PyObject_GetAttrString(gc_module, "collect");
    if (!now) return false;
    if (!is_original_collect(now)) {
        Py_DECREF(now);
        return true;
    }
    Py_XSETREF(C.original_collect, now);
    return PyObject_SetAttrString(gc_module, "collect", C.collect) == 0;
}

/* Where our callback stands in gc.callbacks; -1: somebody has cleared them. */
static Py_ssize_t hooked(void) {
    for (Py_ssize_t i = PyList_GET_SIZE(C.callbacks); i-- > 0;)
        if (PyList_GET_ITEM(C.callbacks, i) == C.callback) return i;
    return -1;
}
static bool hook(void) { return hooked() >= 0 || PyList_Insert(C.callbacks, 0, C.callback) == 0; }

bool collector_install(const collector_options *o) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) return refuse("it works in the main interpreter only");
    if (W.installed) {
        snapshots_close();
        W.o = *o;
        return hook();
    }
    PyObject *gc_module = PyImport_ImportModule("gc");
    if (!gc_module) return false;
    bool ok = W.gc || layout_check(gc_module);
    if (ok) {
        if (!W.gc) {
            W.gc = gc_state_now();
            parking_open(W.gc);
            C.callbacks = W.gc->callbacks;
            Py_INCREF(C.callbacks);
        }
        scan_check(W.gc, 20000); /* enough to meet every kind of object */
        if (!C.ready && !(C.ready = search_make(&W.search))) {
            PyErr_NoMemory();
            ok = false;
        }
    }
    if (ok && !C.collect) {
        C.original_collect = make_collect(gc_module);
        C.collect = C.original_collect ? PyObject_GetAttrString(C.module, "collect") : NULL;
        ok = C.collect != NULL;
    }
    if (ok) {
        W.o = *o;
        snapshots_setup();
        C.yield_due = 0;
        C.young_search.pass = 0;
        trace_find_types();
        ok = hook() && replace_collect(gc_module);
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
    snapshots_close();
    pages_stop();
    repair();
    census_close();
    W.installed = false;
    Py_ssize_t at = hooked();
    if (at >= 0 && PyList_SetSlice(C.callbacks, at, at + 1, NULL) < 0) PyErr_Clear(); /* it does nothing any more */
    PyObject *gc_module = PyImport_ImportModule("gc");
    if (gc_module) {
        PyObject *now = PyObject_GetAttrString(gc_module, "collect");
        if (now == C.collect) PyObject_SetAttrString(gc_module, "collect", C.original_collect);
        Py_XDECREF(now);
        Py_DECREF(gc_module);
    }
    search_trim(&W.search);
    trace_forget_types();
    PyErr_Restore(type, value, trace);
}
