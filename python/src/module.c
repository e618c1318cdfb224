/* module.c - winnow._native: the collector as Python sees it. The package winnow is what people use. */
#include "collector.h"

#include "census.h"
#include "pages.h"

#include <string.h>

static PyObject *m_install(PyObject *self, PyObject *args, PyObject *kwargs) {
    (void)self;
    collector_options o = {
        .mode = MODE_FAST, .threads = 1, .budget_ms = 5, .slice_ms = 1, .snapshot_s = 60, .batch = 2000};
    static char *names[] = {"mode",  "threads",      "budget_ms", "slice_ms", "snapshot_s",
                            "batch", "proportional", "huge",      "log",      NULL};
    int threads = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|$idddnppp", names, &o.mode, &threads, &o.budget_ms, &o.slice_ms,
                                     &o.snapshot_s, &o.batch, &o.proportional, &o.huge, &o.log))
        return NULL;
    o.threads = (unsigned)threads;
    if (!collector_install(&o)) return NULL;
    Py_RETURN_NONE;
}
static PyObject *m_uninstall(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    collector_uninstall();
    Py_RETURN_NONE;
}
static PyObject *m_installed(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyBool_FromLong(collector_installed());
}
static PyObject *m_collect(PyObject *self, PyObject *args, PyObject *kwargs) {
    (void)self;
    return collector_collect(args, kwargs);
}
static PyObject *m_collect_stock(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return collector_collect_stock();
}
static PyObject *m_find(PyObject *self, PyObject *args) {
    (void)self;
    int threads = 1;
    if (!PyArg_ParseTuple(args, "|i", &threads)) return NULL;
    if (!collector_installed()) {
        PyErr_SetString(PyExc_RuntimeError, "winnow is not installed: call winnow.install() first");
        return NULL;
    }
    return collector_find((unsigned)threads);
}
static PyObject *m_check(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyLong_FromSize_t(scan_check(gc_state_now(), SIZE_MAX));
}
static PyObject *m_missing(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyLong_FromSize_t(collector_installed() ? census_missing() : 0);
}
static PyObject *m_phase(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyUnicode_FromString(collector_phase());
}
static PyObject *m_step(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyBool_FromLong(collector_step());
}
static PyObject *m_snapshot(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyBool_FromLong(collector_start_snapshot());
}
static PyObject *m_expected(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyFloat_FromDouble(collector_installed() ? collector_expected_ms() : 0);
}
static PyObject *m_pending(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    return PyLong_FromSsize_t(gc_state_now()->long_lived_pending);
}
static PyObject *m_clear(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    collector_clear_numbers();
    Py_RETURN_NONE;
}

static int put(PyObject *d, const char *name, PyObject *value) {
    if (!value) return -1;
    int r = PyDict_SetItemString(d, name, value);
    Py_DECREF(value);
    return r;
}

static PyObject *m_stats(PyObject *self, PyObject *ignored) {
    (void)self, (void)ignored;
    const collector_statistics *n = collector_numbers();
    struct {
        const char *name;
        uint64_t value;
    } count[] = {{"full_collections", n->full},
                 {"older_collections", n->older},
                 {"older_left", n->older_left},
                 {"young_collections", n->young},
                 {"slices", n->slices},
                 {"snapshots", n->snapshots},
                 {"early", n->early},
                 {"skipped", n->skipped},
                 {"deferred", n->deferred},
                 {"proposed", n->proposed},
                 {"collected", n->collected},
                 {"stale_proposals", n->rejected_stale},
                 {"untracked", n->untracked},
                 {"repaired", n->repaired},
                 {"tracked", n->tracked},
                 {"marked_from_roots", n->marked},
                 {"trial_candidates", n->candidates},
                 {"walked", n->walked},
                 {"gone", n->gone},
                 {"huge_ranges", pages_huge_ranges()}};
    struct {
        const char *name;
        uint64_t ns;
    } time[] = {{"last_ms", n->last_ns},   {"walk_ms", n->walk_ns},           {"mark_ms", n->mark_ns},
                {"trial_ms", n->trial_ns}, {"dispose_ms", n->dispose_ns},     {"fork_ms", n->fork_ns},
                {"child_ms", n->child_ns}, {"child_cpu_ms", n->child_cpu_ns}, {"longest_ms", n->max_ns},
                {"total_ms", n->total_ns}, {"older_ms", n->older_ns},         {"longest_older_ms", n->older_max_ns}};
    PyObject *d = PyDict_New();
    if (!d) return NULL;
    for (size_t i = 0; i < sizeof count / sizeof *count; i++)
        if (put(d, count[i].name, PyLong_FromUnsignedLongLong(count[i].value)) < 0) goto bad;
    for (size_t i = 0; i < sizeof time / sizeof *time; i++)
        if (put(d, time[i].name, PyFloat_FromDouble((double)time[i].ns / 1e6)) < 0) goto bad;
    if (put(d, "fallbacks",
            Py_BuildValue("{sK sK sK sK sK}", "memory", n->fallback_memory, "fork", n->fallback_fork, "child_died",
                          n->fallback_child, "child_slow", n->fallback_slow, "allocator", n->fallback_allocator)) < 0)
        goto bad;
    PyObject *pauses = PyList_New(0);
    if (!pauses) goto bad;
    for (unsigned i = 0; i < PAUSES; i++) {
        if (!n->pause[i]) continue;
        unsigned e = (i - 1) / 4, q = (i - 1) % 4;
        double below = i == 0 ? 1 : e < 2 ? (double)(2u << e) : (double)((uint64_t)(5 + q) << (e - 2));
        PyObject *pair = Py_BuildValue("(dK)", below, n->pause[i]);
        if (!pair || PyList_Append(pauses, pair) < 0) {
            Py_XDECREF(pair);
            Py_DECREF(pauses);
            goto bad;
        }
        Py_DECREF(pair);
    }
    if (put(d, "pauses_us", pauses) < 0) goto bad;
    return d;
bad:
    Py_DECREF(d);
    return NULL;
}

static PyMethodDef methods[] = {
    {"install", (PyCFunction)(void (*)(void))m_install, METH_VARARGS | METH_KEYWORDS, NULL},
    {"uninstall", m_uninstall, METH_NOARGS, NULL},
    {"installed", m_installed, METH_NOARGS, NULL},
    {"collect", (PyCFunction)(void (*)(void))m_collect, METH_VARARGS | METH_KEYWORDS,
     "collect($module, /, generation=2)\n--\n\nRun the garbage collector (gc.collect, by way of winnow)."},
    {"collect_stock", m_collect_stock, METH_NOARGS, NULL},
    {"find", m_find, METH_VARARGS, NULL},
    {"check", m_check, METH_NOARGS, NULL},
    {"missing", m_missing, METH_NOARGS, NULL},
    {"phase", m_phase, METH_NOARGS, NULL},
    {"step", m_step, METH_NOARGS, NULL},
    {"start_snapshot", m_snapshot, METH_NOARGS, NULL},
    {"expected_ms", m_expected, METH_NOARGS, NULL},
    {"pending", m_pending, METH_NOARGS, NULL},
    {"clear_stats", m_clear, METH_NOARGS, NULL},
    {"stats", m_stats, METH_NOARGS, NULL},
    {0}};

/* One phase: the module belongs to the process, as the collector's hooks do. */
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "winnow._native", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__native(void);
__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__native(void) {
    PyObject *m = PyModule_Create(&definition);
    if (!m) return NULL;
    if (!collector_setup(m) || PyModule_AddIntConstant(m, "BUILT_FOR", PY_VERSION_HEX >> 16) < 0) Py_CLEAR(m);
    return m;
}
