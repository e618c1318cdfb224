/*
 * state.h - what the collector's parts know in common: collector.c, which the interpreter calls, and snapshots.c, which
 * sees to concurrent mode. Only these two include it; the holder of the interpreter's lock alone uses it.
 */
#ifndef WINNOW_PY_STATE_H
#define WINNOW_PY_STATE_H

#include "collector.h"
#include "report.h"
#include "search.h"

typedef enum phase { IDLE, RUNNING, READY } phase;

typedef struct collector_state {
    bool installed;
    bool forked; /* this process is a forked child of the one that installed */
    collector_options o;
    collector_statistics n;
    gc_state *gc;
    search search;

    phase phase;          /* no snapshot, one being searched, one whose garbage is being reclaimed */
    bool at_once;         /* a child failed: the next full collection does without */
    bool in_slice;        /* between start and stop of a collection that reclaims a slice */
    bool between;         /* and of nothing else: the young objects are parked */
    uint64_t start;       /* of the current collection */
    double ns_per_object; /* of recent searches */
    const char *how;      /* the current collection came about, for the log */
    type_counts types;    /* of what it found */
} collector_state;

extern collector_state W;

size_t expected_objects(void); /* at the next full collection, and some more */
void note_pause(uint64_t ns);
void log_line(uint64_t ns, size_t garbage, size_t containers);
/* What the interpreter says it has collected; nothing where somebody has taken that out of the dictionary. */
Py_ssize_t collected_of(PyObject *info);

#endif
