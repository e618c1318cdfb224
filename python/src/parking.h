/*
 * parking.h - setting tracked objects aside while the interpreter's collector looks at the rest, and putting them back
 * before any Python code runs.
 *
 * Objects are parked by splicing whole lists, in constant time; what is garbage is taken out one by one and handed over
 * to the youngest generation. The canary is garbage that dies first: a container whose only reference is its own, at
 * the head of what is handed over, and a weak reference to it. The interpreter calls that reference back before it runs
 * any Python code, and after it has finished with its lists; so there the parked objects are put back. The canary
 * itself is taken out of the list of what is to be freed, and used again: CPython 3.8 would free nothing at all if it
 * found it alive there.
 *
 * Invariant: what was parked is put back once, whoever comes first: the canary's callback, the collection's stop, or
 * the start of the next.
 */
#ifndef WINNOW_PY_PARKING_H
#define WINNOW_PY_PARKING_H

#include "layout.h"

bool parking_setup(void); /* once per process; false with an exception set */
void parking_open(gc_state *gc);
void parking_forget(void); /* when the interpreter has ended */

/* Generations 0 to `level`. `counted`: the census knows all that is parked, or is about to be, and all that is older.
 */
void park(int level, bool counted);
/* The youngest generation alone, which stays the youngest: for a collection of nothing but what is handed over. */
void park_young(void);
void unpark(void);
/* Whether anything is: at a start, nobody has put it back. */
bool parking_left(void);

/* Before a collection of what was handed over, and after it, heard of or not. */
void canary_set(void);
void canary_take(void);

/* Of what is parked. Two links are changed, in memory that may be far away: see ask_links. */
static inline void hand_over(gc_state *gc, PyObject *o) {
    PyGC_Head *g = gc_of(o);
    gc_unlink(g);
    gc_link_before(g, &gc->generations[0].head);
}

#endif
