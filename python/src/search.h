/*
 * search.h - finding the unreachable containers of this interpreter: the walk over its lists, marking from known roots,
 * and trial deletion on the rest, by the library's engines.
 *
 * Invariant: between search_run and the first change to any object the garbage plane names only linked, tracked
 * objects. Nothing is written but side tables, except by search_tend, which links waypoints, and search_untrack.
 */
#ifndef WINNOW_PY_SEARCH_H
#define WINNOW_PY_SEARCH_H

#include "scan.h"

enum { SEARCH_THREADS = 2 };

typedef struct search {
    wn_cycles cycles;
    size_t tracked;  /* containers in the lists */
    size_t marked;   /* of them found from known roots */
    size_t segments; /* in which the lists were walked */
    uint64_t walk_ns, mark_ns, trial_ns;
    object_list untrackable[SEARCH_THREADS]; /* tuples and dictionaries seen to hold no container */
} search;

bool search_setup(PyTypeObject *waypoint_type); /* once; false: no memory */
bool search_make(search *s);
void search_drop(search *s);
void search_reset(search *s);

/* Fills in everything; false: no memory, and nothing is garbage. `child`: in a snapshot, on one thread. */
bool search_run(search *s, gc_state *gc, unsigned threads, bool child);
/* After a run: keeps waypoints at even distances. Writes a few links of the lists. */
void search_tend(void);
/* The same for a search in a snapshot, whose lists are not the program's: there each change is noted, here it is made.
 * A waypoint comes to stand before an object, which must be tracked, or one is taken away, by its number. */
void search_each_tending(void (*note)(void *arg, PyObject *before, size_t away), void *arg);
void search_tend_one(PyObject *before, size_t away);
/* A waypoint at the end of the oldest list when many objects have come since the last. */
void search_append_waypoint(gc_state *gc, size_t new_objects);
/* Takes all waypoints out of whatever list they are in. */
void search_withdraw(void);
size_t search_waypoints(void);
bool search_is_waypoint(const void *object);
/* Stops tracking tuples and dictionaries that hold no container, as the interpreter's full collection does. */
void search_untrack(search *s, gc_state *gc);
bool search_untrack_one(PyObject *o);

/* The scanner of the last run: its plans stay good until objects change. */
scanner *search_scanner(void);
/* The head on which the collector parks, and its canary: in the waypoints' memory, so that walks stop there. */
PyGC_Head *search_parked(void);

#endif
