/*
 * trace.h - marking what known roots reach.
 *
 * The marker's stack and its sharing between threads are the library's. What comes between the stack and the scan is
 * not its queue but batches of objects of one kind: the search knows four kinds and reads each with a loop of its own.
 */
#ifndef WINNOW_PY_TRACE_H
#define WINNOW_PY_TRACE_H

#include "scan.h"

enum {
    TRACE_BATCH = 32, /* objects of a kind that are scanned together */
    TRACE_AHEAD = 64, /* objects between the stack and their batch, while their first words come; a power of two */
    TRACE_FEW = 4,    /* with fewer objects left no batch will fill: scanned at once, as along a chain */
    TRACE_TYPES = 512 /* that are remembered with their batch */
};

/* Objects of a kind, in two halves: one is filled, and the memory of those in the other has been asked for. */
typedef struct trace_batch {
    PyObject *object[2][TRACE_BATCH];
    PyObject **next; /* place in the half that is being filled */
    PyObject **end;  /* of that half */
    size_t asked;    /* objects in the other half */
} trace_batch;

typedef struct tracer {
    scanner scan;
    trace_batch batches[SCAN_KINDS]; /* SCAN_FOREIGN: also what has parts of several kinds */
    struct {
        PyTypeObject *type;
        trace_batch *batch;
    } types[TRACE_TYPES];
    wn_cycles *cycles;
    wn_marker *marker;
    object_list *untrackable; /* tuples and dictionaries seen to hold no container */
    object_list *gone;        /* members of the census that are no containers */
    object_list later;        /* a helper's: what only the thread that holds the interpreter's lock may ask */
    bool saw;                 /* a container among what an object holds */
    size_t marked;            /* objects that have left the row: scanned, once trace_mark has returned */
} tracer;

/* At installation: what the types hold that live as long as the process. Descriptors of methods are most of what no
 * module reaches, and a small heap is searched in half the time without them. Not all types: later ones are found by
 * trial deletion. Best effort; no exception is left. */
void trace_find_types(void);
void trace_forget_types(void);
void trace_lose_types(void); /* they have ended with the interpreter */
/* Before each search. `helper`: for a thread that does not hold the interpreter's lock. */
void trace_make(tracer *t, wn_cycles *c, wn_marker *m, object_list *untrackable, object_list *gone, bool helper);
/* Claims and pushes what is known to be alive: modules, and what the threads are working on. Anything missing is found
 * by trial deletion. */
void trace_push_roots(tracer *t);
/* Marks all that is reachable from what has been pushed. `shared`: together with another thread, see wn_mark_together.
 */
void trace_mark(tracer *t, bool shared);
/* What a helper left, once it has ended; trace_mark must follow. */
void trace_push_later(tracer *t, tracer *helper);

#endif
