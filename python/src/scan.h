/*
 * scan.h - the references an object holds, as its tp_traverse would report them, for the shared engines.
 *
 * Lists, tuples, dictionaries and instances of classes written in Python are read in place; all others are asked
 * through their tp_traverse. What is read in place must be exactly what tp_traverse reports: a reference too many could
 * make trial deletion propose a live object (the interpreter would refuse it), one too few keeps garbage. scan_check
 * compares the two on every object of the running program; tests call it, and so does installing.
 */
#ifndef WINNOW_PY_SCAN_H
#define WINNOW_PY_SCAN_H

#include "layout.h"

/* Of a dictionary or a list the scan reads more than what lies near the one before: never without asking ahead. */
#define WN_MARK_NEAR 1
#include "engines/cycles.h"

enum {
    SCAN_FOREIGN,
    SCAN_INSTANCE,
    SCAN_LIST,
    SCAN_TUPLE,
    SCAN_DICT,
    SCAN_ATOM, /* no container */
    SCAN_KINDS,
    SCAN_PLANS = 1024,
    SCAN_SLOTS = 12
};

/* Asks for a line, into the second cache: the first can await only a few at a time. */
#define ASK(p) __builtin_prefetch((p), 0, 2)

/* How the instances of one type are read. Made when the first is met in a collection and forgotten with it, because
 * types change and their addresses are used again. */
typedef struct scan_plan {
    PyTypeObject *type;
    uint8_t kind;    /* of the nearest base that is no class written in Python; SCAN_FOREIGN: ask tp_traverse */
    uint8_t managed; /* has values or a dictionary that the interpreter places itself */
    uint8_t slots;
    uint8_t owns_type; /* reports its type */
    uint8_t weak;      /* weak references */
    uint8_t anywhere;  /* tp_traverse is the interpreter's own: may be called on any thread */
    uint8_t plain;     /* of a kind read in place, with nothing that a class written in Python added */
    int32_t dict;      /* offset of the dictionary's place, or 0 */
    int32_t slot[SCAN_SLOTS];
} scan_plan;

typedef struct scanner {
    scan_plan plans[SCAN_PLANS];
    bool helper;               /* not the thread that holds the interpreter's lock */
    struct object_list *later; /* helper: objects that only the main thread may ask */
} scanner;

/* A growing array outside malloc's reach. An entry for which there is no memory is lost: an object is tracked, or in
 * the census, a while longer, or what it holds is found by trial deletion. */
typedef struct object_list {
    PyObject **item;
    size_t n, room;
} object_list;

void object_list_add(object_list *l, PyObject *o);
void object_list_drop(object_list *l);

bool scan_setup(void); /* once, with the lock; false with an exception set */
void scan_forget(scanner *s);
void scan_plan_make(scan_plan *p, PyTypeObject *t);
/* Compares the two ways of reading on the first `most` objects of the generation lists. The kinds that differ are read
 * through tp_traverse from now on; returns how many objects differed. */
size_t scan_check(gc_state *gc, size_t most);
extern bool scan_distrusted[SCAN_KINDS];

/* A type's place in a table, to be taken modulo its size. */
static WN_ALWAYS_INLINE uintptr_t scan_hash(PyTypeObject *t) { return (uintptr_t)t >> 4 ^ (uintptr_t)t >> 12; }

static WN_ALWAYS_INLINE scan_plan *scan_plan_of(scanner *s, PyTypeObject *t) {
    scan_plan *p = &s->plans[scan_hash(t) % SCAN_PLANS];
    if (__builtin_expect(p->type != t, 0)) scan_plan_make(p, t);
    return p;
}

static WN_ALWAYS_INLINE void scan_list(PyObject *o, wn_visit_fn *visit, void *arg) {
    PyObject **item = ((PyListObject *)o)->ob_item;
    for (Py_ssize_t n = Py_SIZE(o), i = 0; i < n; i++) visit(arg, item[i]);
}
static WN_ALWAYS_INLINE void scan_tuple(PyObject *o, wn_visit_fn *visit, void *arg) {
    PyObject **item = ((PyTupleObject *)o)->ob_item;
    for (Py_ssize_t n = Py_SIZE(o), i = 0; i < n; i++) visit(arg, item[i]);
}
static WN_ALWAYS_INLINE void scan_dict(PyObject *o, wn_visit_fn *visit, void *arg) {
    PyDictObject *d = (PyDictObject *)o;
    PyDictKeysObject *k = d->ma_keys;
    Py_ssize_t n = k->dk_nentries;
    if (d->ma_values) {
        if (!DICT_OWNS_VALUES(d)) return;
        PyObject **v = DICT_VALUES(d);
        for (Py_ssize_t i = 0; i < n; i++) visit(arg, v[i]);
        return;
    }
#if PY_VERSION_HEX >= 0x030b0000
    if (DK_IS_UNICODE(k)) { /* the keys are strings, which hold nothing */
        PyDictUnicodeEntry *e = DK_UNICODE_ENTRIES(k);
        for (Py_ssize_t i = 0; i < n; i++) visit(arg, e[i].me_value);
        return;
    }
    PyDictKeyEntry *e = DK_ENTRIES(k);
#else
    PyDictKeyEntry *e = dict_entries(k);
#endif
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!e[i].me_value) continue;
        visit(arg, e[i].me_value);
        visit(arg, e[i].me_key);
    }
}

typedef struct scan_asked {
    wn_visit_fn *visit;
    void *arg;
} scan_asked;
int scan_answer(PyObject *reference, void *asked); /* a visitproc */

static WN_ALWAYS_INLINE void scan_instance(scan_plan *p, PyObject *o, wn_visit_fn *visit, void *arg) {
    for (int i = 0; i < p->slots; i++) visit(arg, *(PyObject **)((char *)o + p->slot[i]));
    if (p->managed) {
        PyObject **values;
        size_t n;
        PyObject *dict = instance_dict(o, p->type, &values, &n);
        for (size_t i = 0; i < n; i++) visit(arg, values[i]);
        visit(arg, dict);
    } else if (p->dict) {
        visit(arg, *(PyObject **)((char *)o + p->dict));
    }
    if (p->owns_type) visit(arg, p->type);
}

/* What is read in place: of every kind but SCAN_FOREIGN. */
static WN_ALWAYS_INLINE void scan_known(scan_plan *p, PyObject *o, wn_visit_fn *visit, void *arg) {
    switch (p->kind) {
    case SCAN_DICT: scan_dict(o, visit, arg); break;
    case SCAN_LIST: scan_list(o, visit, arg); break;
    case SCAN_TUPLE: scan_tuple(o, visit, arg); break;
    default: break;
    }
    if (p->slots | p->managed | p->owns_type | (p->dict != 0)) scan_instance(p, o, visit, arg);
}

static WN_ALWAYS_INLINE void scan_foreign(scanner *s, scan_plan *p, PyObject *o, wn_visit_fn *visit, void *arg) {
    if (s->helper && !p->anywhere) {
        object_list_add(s->later, o);
        return;
    }
    scan_asked asked = {visit, arg};
    Py_TYPE(o)->tp_traverse(o, scan_answer, &asked);
}

static WN_ALWAYS_INLINE void scan_object(void *context, void *object, wn_visit_fn *visit, void *arg) {
    scan_plan *p = scan_plan_of(context, Py_TYPE((PyObject *)object));
    if (p->kind == SCAN_FOREIGN)
        scan_foreign(context, p, object, visit, arg);
    else
        scan_known(p, object, visit, arg);
}

/* What must be disposed of together: what is referred to, and by a weak reference that would be called back. Where both
 * are garbage the interpreter does not call it, unless its object goes first. */
static WN_ALWAYS_INLINE void scan_together(void *context, void *object, wn_visit_fn *visit, void *arg) {
    PyWeakReference *weak = object;
    scan_object(context, object, visit, arg);
    if (scan_plan_of(context, Py_TYPE((PyObject *)object))->weak && weak->wr_callback) visit(arg, weak->wr_object);
}

static WN_ALWAYS_INLINE void scan_ask_list(PyObject *o) { ASK(((PyListObject *)o)->ob_item); }
static WN_ALWAYS_INLINE void scan_ask_dict(PyObject *o) {
    PyDictObject *d = (PyDictObject *)o;
    char *k = (char *)d->ma_keys;
    ASK(k);
    if (d->ma_values) {
        ASK(d->ma_values);
        return;
    }
    size_t bytes = DICT_BYTES(d->ma_used);
    ASK(k + (bytes < 64 ? bytes : 64));
    if (bytes > 64) ASK(k + (bytes < 128 ? bytes : 128));
}

/* Memory is what a search waits for, some ten nanoseconds a cache line however far ahead it is asked for, so no line is
 * asked for that the scan will not read. Stage 0: the object's first words, which hold its type; what lies before them
 * matters only to instances, which where the allocator puts them never begin a line. Then the arrays behind it. */
static WN_ALWAYS_INLINE void scan_fetch(void *context, void *object, int stage) {
    scanner *s = context;
    PyObject *o = object;
    if (stage == 0) {
        static const int8_t second[4] = {0, -32, 40, 40}; /* by the place in its line */
        ASK(o);
        ASK((char *)o + second[(uintptr_t)o >> 4 & 3]);
        return;
    }
    PyTypeObject *t = Py_TYPE(o);
    if (t == &PyDict_Type) {
        scan_ask_dict(o);
    } else if (t == &PyList_Type) {
        scan_ask_list(o);
    } else if (t == &PyTuple_Type) {
        return;
    } else if (scan_plan_of(s, t)->managed) {
        char *values = instance_values_hint(o);
        ASK(values);
        ASK(values + 56);
    }
}
static WN_ALWAYS_INLINE size_t scan_count(void *context, void *object) {
    (void)context;
    return (size_t)Py_REFCNT((PyObject *)object); /* an immortal object's is huge, which makes it a root */
}
/* What is tracked may say for the time being that it is no container, as a greenlet does while it is suspended. The
 * interpreter then takes no reference to it off its count. It asks this only of what something refers to, and so do we:
 * what is still being made could not answer. */
static WN_ALWAYS_INLINE bool scan_keep(void *context, void *object) {
    (void)context;
    return !PyObject_IS_GC((PyObject *)object);
}

#endif
