/*
 * search.h - finding the unreachable containers of this interpreter: marking from known roots what the census names,
 * and trial deletion on the rest, by the library's engines.
 *
 * Invariant: between search_run and the first change to any object the garbage plane names only linked, tracked
 * objects. Nothing is written but side tables, except by search_untrack.
 */
#ifndef WINNOW_PY_SEARCH_H
#define WINNOW_PY_SEARCH_H

#include "scan.h"

enum { SEARCH_THREADS = 2 };

typedef struct search {
    wn_cycles cycles; /* whose candidates are the census's members */
    size_t tracked;   /* containers in the lists */
    size_t marked;    /* of them found from known roots */
    uint64_t walk_ns, mark_ns, trial_ns;
    object_list untrackable[SEARCH_THREADS]; /* tuples and dictionaries seen to hold no container */
    object_list gone[SEARCH_THREADS];        /* members of the census that are in no list any more */
} search;

bool search_make(search *s);
/* Forgets what was found; the census stays. search_trim gives the memory back, too. */
void search_reset(search *s);
void search_trim(search *s);

/* Fills in everything; false: no memory, and nothing is garbage. In a snapshot on one thread, there are no others. */
bool search_run(search *s, unsigned threads);
/* After a run, where the census is to be kept: takes out of it who is gone. */
void search_tell_census(search *s);
/* Stops tracking tuples and dictionaries that hold no container, as the interpreter's full collection does. */
void search_untrack(search *s, gc_state *gc);
bool search_untrack_one(PyObject *o);

/* The scanner of the last run: its plans stay good until objects change. */
scanner *search_scanner(void);

#endif
