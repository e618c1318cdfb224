/* scan.c - plans for reading types, and the comparison with their own tp_traverse. */
#include "scan.h"

#include <string.h>

bool scan_distrusted[SCAN_KINDS];
embedding embedded_values;

static traverseproc class_traverse; /* that of every class written in Python */
static bool instances_report_class; /* not in all releases of 3.8 */
static traverseproc own[40];        /* of the interpreter's types: pure reads, for any thread */
static size_t owns;

void object_list_add(object_list *l, PyObject *o) {
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 512;
        PyObject **more = wn_os_map(room * sizeof *more);
        if (!more) return;
        if (l->item) {
            memcpy(more, l->item, l->n * sizeof *more);
            wn_os_release(l->item, l->room * sizeof *more);
        }
        l->item = more;
        l->room = room;
    }
    l->item[l->n++] = o;
}

void object_list_drop(object_list *l) {
    if (l->item) wn_os_release(l->item, l->room * sizeof *l->item);
    memset(l, 0, sizeof *l);
}

int scan_answer(PyObject *reference, void *asked) {
    scan_asked *a = asked;
    a->visit(a->arg, reference);
    return 0;
}

static int is_it(PyObject *reference, void *arg) {
    PyObject **sought = arg;
    if (reference == *sought) *sought = NULL;
    return 0;
}
static bool reports(PyObject *o, PyObject *sought) {
    Py_TYPE(o)->tp_traverse(o, is_it, &sought);
    return !sought;
}

/* An instance with a value, whose dictionary has been asked for: who reports what? */
static bool probe(PyObject *c) {
    bool ok = false;
    PyObject *o = PyObject_CallNoArgs(c), *value = PyList_New(0), *dict = NULL;
    if (o && value && PyObject_SetAttrString(o, "value", value) == 0 &&
        (dict = PyObject_GetAttrString(o, "__dict__"))) {
        instances_report_class = reports(o, c);
        embedded_values = (embedding){reports(o, value), reports(o, dict), reports(dict, value)};
        ok = true;
    }
    Py_XDECREF(dict);
    Py_XDECREF(value);
    Py_XDECREF(o);
    return ok;
}

bool scan_setup(void) {
    PyObject *c = PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "Probe");
    if (!c) return false;
    class_traverse = ((PyTypeObject *)c)->tp_traverse;
    bool ok = probe(c);
    Py_DECREF(c);
    if (!ok) return false;
    PyTypeObject *types[] = {&PyFunction_Type,    &PyMethod_Type,      &PyCFunction_Type,    &PyCell_Type,
                             &PySet_Type,         &PyFrozenSet_Type,   &PyProperty_Type,     &PyStaticMethod_Type,
                             &PyClassMethod_Type, &PyType_Type,        &PyGen_Type,          &PyCoro_Type,
                             &PyGetSetDescr_Type, &PyMethodDescr_Type, &PyWrapperDescr_Type, &PyMemberDescr_Type,
                             &PyDictProxy_Type,   &PySlice_Type,       &_PyWeakref_RefType,  &PyList_Type,
                             &PyTuple_Type,       &PyDict_Type};
    owns = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i]->tp_traverse) own[owns++] = types[i]->tp_traverse;
    return true;
}

void scan_forget(scanner *s) { memset(s->plans, 0, sizeof s->plans); }

void scan_plan_make(scan_plan *p, PyTypeObject *t) {
    memset(p, 0, sizeof *p);
    p->type = t;
    if (!PyType_IS_GC(t)) {
        p->kind = SCAN_ATOM;
        p->anywhere = p->plain = 1;
        return;
    }
    p->kind = SCAN_FOREIGN; /* unless all that follows knows better, as the interpreter's subtype_traverse does */
    p->weak =
        PyType_IsSubtype(t, &_PyWeakref_RefType) || t == &_PyWeakref_ProxyType || t == &_PyWeakref_CallableProxyType;
    for (size_t i = 0; i < owns; i++) p->anywhere |= t->tp_traverse == own[i];
    PyTypeObject *base = t;
    bool fits = true;
    while (base->tp_traverse == class_traverse) {
        PyMemberDef *m = type_members(base);
        for (Py_ssize_t i = 0, n = Py_SIZE(base); i < n; i++) {
            if (m[i].type != T_OBJECT_EX) continue;
            if (p->slots == SCAN_SLOTS)
                fits = false;
            else
                p->slot[p->slots++] = (int32_t)m[i].offset;
        }
        base = base->tp_base;
    }
    if (!fits) return;
    p->managed = HAS_MANAGED_DICT(t) ? 1 : 0;
    if (!p->managed && t->tp_dictoffset != base->tp_dictoffset) {
        if (t->tp_dictoffset < 0) return;
        p->dict = (int32_t)t->tp_dictoffset;
    }
    p->owns_type = base != t && instances_report_class && !BASE_REPORTS_CLASS(base);
    int kind = base->tp_traverse == NULL                       ? SCAN_INSTANCE
               : base->tp_traverse == PyList_Type.tp_traverse  ? SCAN_LIST
               : base->tp_traverse == PyTuple_Type.tp_traverse ? SCAN_TUPLE
               : base->tp_traverse == PyDict_Type.tp_traverse  ? SCAN_DICT
                                                               : SCAN_FOREIGN;
    if (kind == SCAN_FOREIGN || scan_distrusted[kind] || (base != t && scan_distrusted[SCAN_INSTANCE])) return;
    p->kind = (uint8_t)kind;
    p->anywhere = 1;
    p->plain = kind != SCAN_INSTANCE && !(p->slots | p->managed | p->owns_type | (p->dict != 0));
}

/* ---- the check --------------------------------------------------------------------------------------------------- */

/* References to containers as a multiset, folded into a number and a sum: both ways must give the same. */
typedef struct seen {
    size_t n;
    uint64_t sum;
} seen;

static void see(void *arg, void *reference) {
    seen *s = arg;
    PyObject *o = reference;
    if (!o || !PyObject_IS_GC(o)) return;
    s->n++;
    s->sum += ((uint64_t)(uintptr_t)o >> 4) * 0x9E3779B97F4A7C15ull;
}

size_t scan_check(gc_state *gc, size_t most) {
    static scanner s;
    size_t different = 0;
    scan_forget(&s);
    for (int generation = 0; generation < 3; generation++) {
        PyGC_Head *head = &gc->generations[generation].head;
        for (PyGC_Head *g = gc_next(head); g != head && most; g = gc_next(g), most--) {
            PyObject *o = object_of(g);
            scan_plan *p = scan_plan_of(&s, Py_TYPE(o));
            if (p->kind == SCAN_FOREIGN) continue;
            seen mine = {0, 0}, its = {0, 0};
            scan_asked asked = {see, &its};
            scan_object(&s, o, see, &mine);
            Py_TYPE(o)->tp_traverse(o, scan_answer, &asked);
            if (mine.n == its.n && mine.sum == its.sum) continue;
            different++;
            scan_distrusted[p->plain ? p->kind : SCAN_INSTANCE] = true;
        }
    }
    scan_forget(&s);
    return different;
}
