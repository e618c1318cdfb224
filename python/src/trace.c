/*
 * trace.c - marking in batches of one kind.
 *
 * What a scan costs where memory does not keep it waiting is the choice between kinds, which a processor guesses
 * wrongly at every second object, and thirty instructions more for each reference than the test of a bit needs, because
 * a scan that could be of any kind keeps nothing in registers. So objects wait for others of their kind, and one loop
 * scans them all. The path of an object: it is claimed and pushed; popped, and its first words are asked for;
 * TRACE_AHEAD objects later its type is read and chooses the batch; when the batch is full the arrays of all its
 * objects are asked for; and when it is full again they are scanned. When nothing else is left, batches are taken as
 * they are.
 *
 * Invariant: an object whose mark was claimed is on the stack, in the row between stack and batches, or in a batch,
 * until it has been scanned. Between two calls of mark_some the row is empty; when it returns 0 all are.
 */
#include "trace.h"

#include <string.h>

void trace_make(tracer *t, wn_cycles *c, wn_marker *m, object_list *untrackable, object_list *gone, bool helper) {
    scan_forget(&t->scan);
    memset(t->types, 0, sizeof t->types);
    for (int kind = 0; kind < SCAN_KINDS; kind++) {
        trace_batch *b = &t->batches[kind];
        b->next = b->object[0];
        b->end = b->next + TRACE_BATCH;
        b->asked = 0;
    }
    t->cycles = c;
    t->marker = m;
    t->untrackable = untrackable;
    t->gone = gone;
    t->later.n = 0;
    t->scan.helper = helper;
    t->scan.later = &t->later;
    t->marked = 0;
}

/* ---- claims ------------------------------------------------------------------------------------------------------ */

/* For what is asked through tp_traverse. */
static void push(void *arg, void *reference) {
    tracer *t = arg;
    if (wn_cycles_claim(t->cycles, reference)) wn_mark_push(t->marker, reference);
}

static void root(void *arg, void *object) {
    if (object) push(arg, object);
}

/* Held by us, and so alive for certain. */
static PyObject *of_types;

static void add_type(PyTypeObject *type) {
    PyObject *dict = type_dict(type), *held[] = {dict, type->tp_mro, type->tp_bases, type_subclasses(type)};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i] && PyList_Append(of_types, held[i]) < 0) PyErr_Clear();
    Py_XDECREF(dict);
}

static void find_types_from(PyTypeObject *type) {
    add_type(type);
    PyObject *below = PyObject_CallMethod((PyObject *)&PyType_Type, "__subclasses__", "O", type);
    for (Py_ssize_t i = 0; below && i < PyList_GET_SIZE(below); i++) {
        PyTypeObject *sub = (PyTypeObject *)PyList_GET_ITEM(below, i);
        /* Each by way of one of its bases. A type that may end is not to be kept from it. */
        if (!(sub->tp_flags & Py_TPFLAGS_HEAPTYPE) && sub->tp_base == type) find_types_from(sub);
    }
    if (!below) PyErr_Clear();
    Py_XDECREF(below);
}

void trace_find_types(void) {
    if (of_types || !(of_types = PyList_New(0))) {
        PyErr_Clear();
        return;
    }
    find_types_from(&PyBaseObject_Type);
}
void trace_forget_types(void) { Py_CLEAR(of_types); }
void trace_lose_types(void) { of_types = NULL; }

void trace_push_roots(tracer *t) {
    root(t, of_types);
    EACH_INTERPRETER(i) {
        root(t, INTERPRETER_MODULES(i));
        root(t, i->sysdict);
        root(t, i->builtins);
        for (PyThreadState *ts = FIRST_THREAD(i); ts; ts = ts->next) each_frame_reference(ts, root, t);
    }
}

/* What the scan of a batch changes, in registers: no function that is not inlined is told of it. */
typedef struct claims {
    void **top, **end;
    wn_bits bits;
    wn_marker *marker;
    bool any; /* was claimed */
} claims;

/* A heap spans several regions of the bitmap, and references lead from any to any: so each is looked up anew. (To keep
 * the last region at hand takes a twentieth less while there is only one, and a quarter more when there are ten.) */
static WN_ALWAYS_INLINE void claim(void *arg, void *reference) {
    claims *k = arg;
    if (!wn_bits_take(&k->bits, WN_CYCLES_UNMARKED, (uintptr_t)reference)) return;
    k->any = true;
    if (__builtin_expect(k->top == k->end, 0)) {
        wn_marker *m = k->marker;
        m->top = k->top;
        if (!wn_mark_grow_(m)) return;
        k->top = m->top;
        k->end = m->end;
    }
    *k->top++ = reference;
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static void note_container(void *arg, void *reference) {
    PyObject *o = reference;
    if (o && PyObject_IS_GC(o) && gc_tracked(o)) ((tracer *)arg)->saw = true;
}

/* Tuples and dictionaries that hold no container need not be tracked. Those that gave the marker something to do are
 * none of them; the few others are read once more, which spares all objects a second table. */
static void note_untrackable(tracer *t, PyObject *o) {
    if (!PyTuple_CheckExact(o) && !PyDict_CheckExact(o)) return;
    if (!gc_tracked(o)) { /* it came where a container was, before */
        object_list_add(t->gone, o);
        return;
    }
    t->saw = false;
    if (PyTuple_CheckExact(o))
        scan_tuple(o, note_container, t);
    else
        scan_dict(o, note_container, t);
    if (!t->saw) object_list_add(t->untrackable, o);
}

static void scan_batch(tracer *t, int kind, PyObject **object, size_t n) {
    wn_marker *m = t->marker;
    if (kind == SCAN_FOREIGN) {
        for (size_t i = 0; i < n; i++) {
            bool type = PyType_Check(object[i]);
            if (type && !PyObject_IS_GC(object[i])) { /* a static one, loaded where a container was; not to be asked */
                object_list_add(t->gone, object[i]);
                continue;
            }
            scan_object(&t->scan, object[i], push, t);
            /* What a type knows its subclasses by lives as long as it does, and no tp_traverse tells of it. */
            if (type) root(t, type_subclasses((PyTypeObject *)object[i]));
        }
        return;
    }
    if (kind == SCAN_ATOM) { /* came where a container was, before */
        for (size_t i = 0; i < n; i++) object_list_add(t->gone, object[i]);
        return;
    }
    claims k = {m->top, m->end, t->cycles->bits, m, false};
    switch (kind) {
    case SCAN_LIST:
        for (size_t i = 0; i < n; i++) scan_list(object[i], claim, &k);
        break;
    case SCAN_TUPLE:
        for (size_t i = 0; i < n; i++) {
            k.any = false;
            scan_tuple(object[i], claim, &k);
            if (!k.any) note_untrackable(t, object[i]);
        }
        break;
    case SCAN_DICT:
        for (size_t i = 0; i < n; i++) {
            k.any = false;
            scan_dict(object[i], claim, &k);
            if (DICTS_ARE_UNTRACKED && !k.any) note_untrackable(t, object[i]);
        }
        break;
    case SCAN_INSTANCE:
        for (size_t i = 0; i < n; i++) scan_instance(scan_plan_of(&t->scan, Py_TYPE(object[i])), object[i], claim, &k);
        break;
    }
    m->top = k.top;
}

static void ask_batch(tracer *t, int kind, PyObject **object, size_t n) {
    switch (kind) {
    case SCAN_LIST:
        for (size_t i = 0; i < n; i++) scan_ask_list(object[i]);
        break;
    case SCAN_DICT:
        for (size_t i = 0; i < n; i++) scan_ask_dict(object[i]);
        break;
    case SCAN_TUPLE:
    case SCAN_ATOM: break;
    default:
        for (size_t i = 0; i < n; i++) scan_fetch(&t->scan, object[i], 1);
    }
}

/* The half that was being filled is asked for, the other scanned, and filled next. */
static WN_NOINLINE void turn(tracer *t, trace_batch *b) {
    int kind = (int)(b - t->batches);
    PyObject **filled = b->end - TRACE_BATCH, **other = b->object[filled == b->object[0]];
    size_t asked = b->asked;
    b->asked = (size_t)(b->next - filled);
    b->next = other;
    b->end = other + TRACE_BATCH;
    ask_batch(t, kind, filled, b->asked);
    scan_batch(t, kind, other, asked);
}

static bool turn_all(tracer *t) {
    bool some = false;
    for (trace_batch *b = t->batches; b < t->batches + SCAN_KINDS; b++) {
        if (!b->asked && b->next == b->end - TRACE_BATCH) continue;
        some = true;
        turn(t, b);
    }
    return some;
}

static WN_NOINLINE trace_batch *choose_batch(tracer *t, PyTypeObject *type) {
    scan_plan *p = scan_plan_of(&t->scan, type);
    return &t->batches[p->plain || p->kind == SCAN_INSTANCE ? p->kind : SCAN_FOREIGN];
}

static WN_ALWAYS_INLINE trace_batch *batch_for(tracer *t, PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    size_t i = scan_hash(type) % TRACE_TYPES;
    if (__builtin_expect(t->types[i].type != type, 0)) {
        t->types[i].batch = choose_batch(t, type);
        t->types[i].type = type;
    }
    return t->types[i].batch;
}

static WN_ALWAYS_INLINE void sort_in(tracer *t, PyObject *o) {
    trace_batch *b = batch_for(t, o);
    *b->next++ = o;
    if (b->next == b->end) turn(t, b);
}

static size_t mark_some(void *context, size_t budget) {
    tracer *t = context;
    wn_marker *m = t->marker;
    size_t done = 0;
    PyObject *row[TRACE_AHEAD];
    unsigned first = 0, used = 0;
    while (done < budget) {
        if (__builtin_expect(m->top != m->base, 1) || wn_mark_shrink_(m)) {
            PyObject *in = *--m->top;
            scan_fetch(&t->scan, in, 0);
            if (__builtin_expect(used < TRACE_AHEAD, 0)) {
                row[(first + used++) % TRACE_AHEAD] = in;
                continue;
            }
            PyObject **place = &row[first++ % TRACE_AHEAD], *out = *place;
            *place = in;
            done++;
            sort_in(t, out);
        } else if (used) {
            PyObject *out = row[first++ % TRACE_AHEAD];
            done++;
            if (used-- >= TRACE_FEW)
                sort_in(t, out);
            else
                scan_batch(t, (int)(batch_for(t, out) - t->batches), &out, 1);
        } else if (!turn_all(t)) {
            break;
        }
    }
    for (; used; used--) wn_mark_push(m, row[first++ % TRACE_AHEAD]);
    return done;
}

void trace_mark(tracer *t, bool shared) {
    t->marked += shared ? wn_mark_together(t->marker, mark_some, t) : mark_some(t, SIZE_MAX);
}

void trace_push_later(tracer *t, tracer *helper) {
    for (size_t i = 0; i < helper->later.n; i++) scan_object(&t->scan, helper->later.item[i], push, t);
}
