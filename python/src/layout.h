/*
 * layout.h - what this interpreter's objects look like inside, for the versions that are supported.
 *
 * The only file that asks which version it is compiled for. Everything it relies on is checked against the running
 * interpreter when the package is installed (`layout_check` in collector.c, `scan_check` in scan.c): a build
 * that differs is refused, or traversed with its own tp_traverse.
 */
#ifndef WINNOW_PY_LAYOUT_H
#define WINNOW_PY_LAYOUT_H

#define PY_SSIZE_T_CLEAN
#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#include <frameobject.h>
#include <structmember.h>
#include <stdbool.h>

#if PY_VERSION_HEX < 0x03080000 || PY_VERSION_HEX >= 0x030f0000
#error "winnow supports CPython 3.8 to 3.14"
#endif
#if PY_VERSION_HEX >= 0x030e0000 && PY_VERSION_HEX < 0x030e0500
#error "CPython 3.14.0 to 3.14.4 collect incrementally, which leaves winnow nothing to replace: use 3.14.5 or later"
#endif
#ifdef Py_GIL_DISABLED
#error "winnow does not support free-threaded builds: their collector keeps no lists"
#endif

#if PY_VERSION_HEX >= 0x03090000
#include "internal/pycore_gc.h"
#include "internal/pycore_interp.h"
#else
#include "internal/pycore_pystate.h"
#define PyInterpreterState_Get _PyInterpreterState_Get
#define PyObject_CallNoArgs _PyObject_CallNoArg
#define Py_SET_REFCNT(o, n) ((void)(Py_REFCNT(o) = (n)))
#endif
#if PY_VERSION_HEX >= 0x030b0000
#include "internal/pycore_dict.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_object.h"
#endif

typedef struct _gc_runtime_state gc_state;

#if PY_VERSION_HEX >= 0x03090000
static inline gc_state *gc_state_now(void) { return &PyInterpreterState_Get()->gc; }
#else
static inline gc_state *gc_state_now(void) { return &_PyRuntime.gc; } /* of all interpreters together */
#endif

/* ---- list links: a head of two words before each container ------------------------------------------------------- */

#define GC_FLAGS ((uintptr_t)3) /* the low bits of _gc_prev: finalized, collecting */

static inline PyGC_Head *gc_of(void *object) { return (PyGC_Head *)object - 1; }
static inline PyObject *object_of(PyGC_Head *g) { return (PyObject *)(g + 1); }
static inline PyGC_Head *gc_next(PyGC_Head *g) { return (PyGC_Head *)g->_gc_next; }
static inline PyGC_Head *gc_prev(PyGC_Head *g) { return (PyGC_Head *)(g->_gc_prev & ~GC_FLAGS); }
static inline void gc_set_prev(PyGC_Head *g, PyGC_Head *p) { g->_gc_prev = (g->_gc_prev & GC_FLAGS) | (uintptr_t)p; }
static inline void gc_set_next(PyGC_Head *g, PyGC_Head *n) { g->_gc_next = (uintptr_t)n; }
static inline int gc_tracked(PyObject *o) { return gc_of(o)->_gc_next != 0; }

static inline void gc_list_init(PyGC_Head *l) { l->_gc_next = l->_gc_prev = (uintptr_t)l; }
static inline int gc_list_empty(PyGC_Head *l) { return gc_next(l) == l; }
/* Whether the list of frozen objects is another than when its head was `then`. */
static inline int gc_frozen_since(const gc_state *gc, const PyGC_Head *then) {
    const PyGC_Head *now = &gc->permanent_generation.head;
    return now->_gc_next != then->_gc_next || now->_gc_prev != then->_gc_prev;
}
static inline void gc_unlink(PyGC_Head *g) {
    PyGC_Head *p = gc_prev(g), *n = gc_next(g);
    gc_set_next(p, n);
    gc_set_prev(n, p);
}
static inline void gc_link_before(PyGC_Head *g, PyGC_Head *n) {
    PyGC_Head *p = gc_prev(n);
    gc_set_next(p, g);
    gc_set_prev(g, p);
    gc_set_next(g, n);
    gc_set_prev(n, g);
}
/* Everything of `from`, before a member of another list or at its end, before its head; four heads are written, however
 * long the lists. */
static inline void gc_list_insert(PyGC_Head *from, PyGC_Head *before) {
    if (gc_list_empty(from)) return;
    PyGC_Head *last = gc_prev(before), *first = gc_next(from), *end = gc_prev(from);
    gc_set_next(last, first);
    gc_set_prev(first, last);
    gc_set_next(end, before);
    gc_set_prev(before, end);
    gc_list_init(from);
}

/* ---- the object allocator ---------------------------------------------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030a0000
#define POOL_BYTES 16384u
#else
#define POOL_BYTES 4096u
#endif

/* ---- dictionaries ------------------------------------------------------------------------------------------------ */

/* From 3.14 on dictionaries are tracked as long as they live. */
#define DICTS_ARE_UNTRACKED (PY_VERSION_HEX < 0x030e0000)

/* 3.13 and later: who reports what, where an instance's values are in place and a dictionary was made for them too.
 * Releases differ in it, even within 3.13, so scan_setup tries it. */
typedef struct embedding {
    bool values;           /* the instance its values */
    bool dict;             /* and the dictionary */
    bool reported_by_dict; /* the dictionary the values */
} embedding;
extern embedding embedded_values;

#if PY_VERSION_HEX < 0x030b0000
typedef struct {
    Py_hash_t me_hash;
    PyObject *me_key, *me_value;
} PyDictKeyEntry;
struct _dictkeysobject {
    Py_ssize_t dk_refcnt, dk_size;
    void *dk_lookup;
    Py_ssize_t dk_usable, dk_nentries;
    char dk_indices[];
};
static inline PyDictKeyEntry *dict_entries(PyDictKeysObject *k) {
    size_t bytes = (size_t)k->dk_size * (k->dk_size <= 0xff         ? 1
                                         : k->dk_size <= 0xffff     ? 2
                                         : k->dk_size <= 0xffffffff ? 4
                                                                    : 8);
    return (PyDictKeyEntry *)(k->dk_indices + bytes);
}
/* From the table's start to the end of that many entries, about. */
#define DICT_BYTES(used) (48 + 24 * (size_t)(used))
#define DICT_VALUES(d) ((d)->ma_values)
#define DICT_OWNS_VALUES(d) 1
#else
#define DICT_VALUES(d) ((d)->ma_values->values)
#define DICT_BYTES(used) (40 + 16 * (size_t)(used))
#if PY_VERSION_HEX >= 0x030d0000
#define DICT_OWNS_VALUES(d) (embedded_values.reported_by_dict || !(d)->ma_values->embedded)
#else
#define DICT_OWNS_VALUES(d) 1
#endif
#endif

/* ---- instances: where attribute values are that have no dictionary of their own ---------------------------------- */

#if PY_VERSION_HEX >= 0x030b0000
#define HAS_MANAGED_DICT(t) (((t)->tp_flags & Py_TPFLAGS_MANAGED_DICT) != 0)
#else
#define HAS_MANAGED_DICT(t) 0
#endif

/* Where an instance reports its class, whether it leaves that to a base that is a heap type and has a tp_traverse of
 * its own. */
#define BASE_REPORTS_CLASS(base) \
    (PY_VERSION_HEX >= 0x03090000 && (base)->tp_traverse && ((base)->tp_flags & Py_TPFLAGS_HEAPTYPE))

/* The instance's dictionary, or NULL, and the values it holds without one. */
static inline PyObject *instance_dict(PyObject *o, PyTypeObject *type, PyObject ***values, size_t *n) {
    *n = 0;
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *dict = (PyObject *)_PyObject_ManagedDictPointer(o)->dict;
    if ((type->tp_flags & Py_TPFLAGS_INLINE_VALUES) && (!dict || embedded_values.values)) {
        PyDictValues *v = _PyObject_InlineValues(o);
        if (v->valid) {
            *values = v->values;
            *n = v->capacity;
            if (!embedded_values.dict) return NULL;
        }
    }
    return dict;
#elif PY_VERSION_HEX >= 0x030c0000
    PyDictOrValues d = *_PyObject_DictOrValuesPointer(o);
    if (!_PyDictOrValues_IsValues(d)) return _PyDictOrValues_GetDict(d);
    *values = _PyDictOrValues_GetValues(d)->values;
    *n = (size_t)((PyHeapTypeObject *)type)->ht_cached_keys->dk_nentries;
    return NULL;
#elif PY_VERSION_HEX >= 0x030b0000
    PyDictValues *v = *_PyObject_ValuesPointer(o);
    if (v) {
        *values = v->values;
        *n = (size_t)((PyHeapTypeObject *)type)->ht_cached_keys->dk_nentries;
    }
    return *_PyObject_ManagedDictPointer(o);
#else
    (void)o, (void)type, (void)values;
    return NULL;
#endif
}

/* The address that instance_dict will read from, to be asked for before. */
static inline void *instance_values_hint(PyObject *o) {
#if PY_VERSION_HEX >= 0x030d0000
    return (char *)o + 64;
#elif PY_VERSION_HEX >= 0x030c0000
    return ((char **)o)[-3];
#elif PY_VERSION_HEX >= 0x030b0000
    void *v = ((void **)o)[-4];
    return v ? v : ((void **)o)[-3];
#else
    return o;
#endif
}

/* A type's dictionary, as a new reference, or NULL, and the table of its subclasses, or NULL. */
#if PY_VERSION_HEX >= 0x030c0000
static inline PyObject *type_dict(PyTypeObject *t) { return PyType_GetDict(t); }
static inline PyObject *type_subclasses(PyTypeObject *t) {
    (void)t; /* may be a number */
    return NULL;
}
#else
static inline PyObject *type_dict(PyTypeObject *t) {
    Py_XINCREF(t->tp_dict);
    return t->tp_dict;
}
static inline PyObject *type_subclasses(PyTypeObject *t) { return t->tp_subclasses; }
#endif

static inline PyMemberDef *type_members(PyTypeObject *t) {
    return (PyMemberDef *)((char *)t + Py_TYPE(t)->tp_basicsize);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

#if PY_VERSION_HEX >= 0x030e0000
/* A place in a frame: an address with a tag in the low bits, a small number, or nothing. */
static inline PyObject *frame_object(_PyStackRef r) {
    return (r.bits & 3) == 3 ? NULL : (PyObject *)(r.bits & ~(uintptr_t)3);
}
#elif PY_VERSION_HEX >= 0x030b0000
static inline PyObject *frame_object(void *o) { return o; }
#else
typedef struct frame_seen {
    void (*see)(void *, void *);
    void *arg;
} frame_seen;
static inline int frame_answer(PyObject *reference, void *seen) {
    frame_seen *s = seen;
    s->see(s->arg, reference);
    return 0;
}
#endif

/* Calls see(arg, object) with what the running frames of a thread hold: known roots, so it need not be everything. */
static inline void each_frame_reference(PyThreadState *ts, void (*see)(void *, void *), void *arg) {
#if PY_VERSION_HEX < 0x030b0000
    /* Most running frames are not tracked, so they are asked for what they hold. */
    frame_seen seen = {see, arg};
    for (PyFrameObject *f = ts->frame; f; f = f->f_back) {
        see(arg, f);
        Py_TYPE(f)->tp_traverse((PyObject *)f, frame_answer, &seen);
    }
    see(arg, ts->dict);
#else
#if PY_VERSION_HEX >= 0x030d0000
    struct _PyInterpreterFrame *f = ts->current_frame;
#else
    struct _PyInterpreterFrame *f = ts->cframe ? ts->cframe->current_frame : NULL;
#endif
    for (; f; f = f->previous) {
#if PY_VERSION_HEX >= 0x030d0000
        PyObject *code = frame_object(f->f_executable);
#else
        PyObject *code = (PyObject *)f->f_code;
#endif
        if (!code || !PyCode_Check(code)) continue;
#if PY_VERSION_HEX >= 0x030e0000
        if (f->owner >= FRAME_OWNED_BY_INTERPRETER) continue;
        see(arg, frame_object(f->f_funcobj));
#elif PY_VERSION_HEX >= 0x030c0000
        if (f->owner == FRAME_OWNED_BY_CSTACK) continue;
        see(arg, f->f_funcobj);
#else
        see(arg, f->f_func);
#endif
        see(arg, f->f_globals);
        see(arg, f->f_locals);
        for (int i = 0; i < ((PyCodeObject *)code)->co_nlocalsplus; i++) see(arg, frame_object(f->localsplus[i]));
    }
    see(arg, ts->dict);
#endif
}

#if PY_VERSION_HEX >= 0x030c0000
#define INTERPRETER_MODULES(i) ((i)->imports.modules)
#else
#define INTERPRETER_MODULES(i) ((i)->modules)
#endif
#if PY_VERSION_HEX >= 0x030b0000
#define FIRST_THREAD(i) ((i)->threads.head)
#else
#define FIRST_THREAD(i) ((i)->tstate_head)
#endif

/* NULL where the calling thread is none of the interpreter's. */
static inline PyThreadState *thread_state(void) {
#if PY_VERSION_HEX >= 0x030d0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}
/* Whether the calling thread holds the lock that all of this relies on: from 3.12 on interpreters may have their own.
 */
static inline bool holds_our_lock(void) {
#if PY_VERSION_HEX >= 0x030c0000
    PyThreadState *ts = thread_state();
    return ts && PyThreadState_GetInterpreter(ts) == PyInterpreterState_Main();
#else
    return true;
#endif
}

/* Whether there are interpreters whose objects are in other lists. */
static inline bool other_interpreters(void) {
    return PY_VERSION_HEX >= 0x03090000 && PyInterpreterState_Next(PyInterpreterState_Head()) != NULL;
}
/* The interpreters whose objects are in the lists: a loop over them. */
#if PY_VERSION_HEX >= 0x03090000
#define EACH_INTERPRETER(i) for (PyInterpreterState *i = PyInterpreterState_Get(); i; i = NULL)
#else
#define EACH_INTERPRETER(i) for (PyInterpreterState *i = PyInterpreterState_Head(); i; i = PyInterpreterState_Next(i))
#endif

#endif
