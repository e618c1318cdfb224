/* parking.c - the parked list, and the canary that tells when it must go back. */
#include "parking.h"

#include "census.h"

#include <string.h>

static struct {
    gc_state *gc;
    int level;    /* the oldest generation that was parked last; what was searched has survived and grows older */
    bool young;   /* the youngest are, and stay that */
    bool counted; /* as park was told */
} parking;

static PyGC_Head *generation(int i) { return &parking.gc->generations[i].head; }

void parking_open(gc_state *gc) { parking.gc = gc; }
bool parking_left(void) { return !gc_list_empty(census_parked()); }

void park(int level, bool counted) {
    parking.counted = counted;
    parking.level = level;
    parking.young = false;
    for (int i = level; i >= 0; i--) gc_list_insert(generation(i), census_parked());
}
void park_young(void) {
    gc_list_insert(generation(0), census_parked());
    parking.young = true;
}

/* The census is told once: Python code may have moved the lists when this is called again. */
void unpark(void) {
    if (parking.young || parking.level == 0)
        gc_list_insert(census_parked(), generation(parking.young ? 0 : 1));
    else
        census_unpark(parking.level == 2, parking.counted);
    parking.counted = false;
}

/* ---- the canary -------------------------------------------------------------------------------------------------- */

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

static void take_out(void) {
    if (!canary.gc._gc_next) return;
    gc_unlink(&canary.gc);
    canary.gc._gc_next = canary.gc._gc_prev = 0;
}

static PyObject *canary_died(PyObject *self, PyObject *weak) {
    (void)self, (void)weak;
    take_out();
    unpark();
    Py_RETURN_NONE;
}
static PyMethodDef canary_method = {"canary_died", canary_died, METH_O, NULL};

void canary_set(void) {
    Py_SET_REFCNT((PyObject *)&canary.ob, 1); /* its own, whoever has got at it by gc.get_objects and holds it since */
    canary_watch = PyWeakref_NewRef((PyObject *)&canary.ob, canary_call);
    if (canary_watch)
        gc_link_before(&canary.gc, gc_next(generation(0)));
    else
        PyErr_Clear(); /* then the parked are put back at the stop */
}
void canary_take(void) {
    take_out();
    Py_CLEAR(canary_watch);
}

bool parking_setup(void) {
    if (PyType_Ready(&canary_type) < 0) return false;
    canary.ob.ob_base.ob_type = &canary_type;
    canary_call = PyCFunction_New(&canary_method, NULL);
    return canary_call != NULL;
}

void parking_forget(void) {
    canary.ob.weak = canary_watch = canary_call = NULL;
    memset(&canary.gc, 0, sizeof canary.gc);
}
