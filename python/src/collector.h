/*
 * collector.h - Winnow proposes, CPython disposes.
 *
 * The collector hooks into the interpreter's own through gc.callbacks. When a full collection starts it searches, parks
 * every tracked object that is not proposed as garbage on a list of its own (a splice, constant time), and returns: the
 * interpreter's collector then examines the proposed set alone, with its own counts, and does everything it always
 * does. When it stops, or before it runs any Python code, the parked objects are put back.
 *
 * Collections of the second generation go the same way, over the two younger generations alone.
 *
 * Invariant: an object leaves the interpreter's lists only by a splice onto the parked list, and the parked list is
 * empty whenever Python code runs, but for callbacks of gc.callbacks themselves. Whatever goes wrong before the splice
 * leaves the collection to the interpreter, and is counted in the statistics.
 */
#ifndef WINNOW_PY_COLLECTOR_H
#define WINNOW_PY_COLLECTOR_H

#include "layout.h"

#include "platform/platform.h"

enum { MODE_OFF, MODE_FAST, MODE_FORK_FRIENDLY, MODE_CONCURRENT };

typedef struct collector_options {
    int mode;
    unsigned threads;
    double budget_ms;  /* concurrent: a full collection expected to take less is done at once */
    double slice_ms;   /* concurrent: aim of a reclaiming slice */
    double snapshot_s; /* concurrent: patience with a child */
    Py_ssize_t batch;  /* garbage objects handed over at once */
    int proportional;  /* automatic full collections in proportion to what they find */
    int huge;          /* concurrent: keep the heap in huge pages */
    int log;           /* a line for each full collection on stderr */
} collector_options;

enum { PAUSES = 96 }; /* buckets of the histogram: four for each doubling, from 1 us */

typedef struct collector_statistics {
    uint64_t full, older, older_left, young, slices, snapshots, early, skipped, deferred;
    uint64_t fallback_memory, fallback_child, fallback_slow, fallback_fork, fallback_allocator, repaired;
    uint64_t proposed, collected, rejected_stale, untracked, tracked, marked, candidates, walked, gone;
    uint64_t last_ns, walk_ns, mark_ns, trial_ns, dispose_ns, fork_ns, child_ns, child_cpu_ns, max_ns, total_ns;
    uint64_t older_ns, older_max_ns;
    uint64_t pause[PAUSES];
} collector_statistics;

bool collector_setup(PyObject *module);             /* once per process; false with an exception set */
bool collector_install(const collector_options *o); /* false with an exception set */
void collector_uninstall(void);
bool collector_installed(void);
const collector_options *collector_current(void);
const collector_statistics *collector_numbers(void);
void collector_clear_numbers(void);
/* A snapshot runs, or its garbage waits to be reclaimed. */
const char *collector_phase(void);
PyObject *collector_collect(PyObject *args, PyObject *kwargs); /* gc.collect's stand-in */
/* A full collection by the interpreter alone, to compare with. */
PyObject *collector_collect_stock(void);
/* Searches only: the garbage there is now, as a new list; for tests. Drops any snapshot. */
PyObject *collector_find(unsigned threads);
/* Asks the snapshot's child whether it is done, and lets gc.collect(0) reclaim a slice. */
bool collector_step(void);
bool collector_start_snapshot(void);
double collector_expected_ms(void);

#endif
