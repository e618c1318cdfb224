/*
 * young.h - which objects of the younger generations are kept alive by each other alone: what a collection of the first
 * or the second generation asks.
 *
 * Older objects are not looked at, not even where the young ones lead to them: a table of addresses says whether a
 * reference leads to a young object. And each young object is read once, on the way through the list: they lie on as
 * many pages as there are, nearly, so what takes time is to get at them. (The interpreter walks its list several times,
 * reads each object twice, and the head of whatever it refers to.)
 *
 * Nothing is written but side tables.
 */
#ifndef WINNOW_PY_YOUNG_H
#define WINNOW_PY_YOUNG_H

#include "scan.h"

/* Objects, and references they hold: more are the interpreter's business, because no cache would hold the tables. Of
 * the youngest generation it is a quarter. */
enum { YOUNG_MOST = 1 << 18, YOUNG_MOST_REFERENCES = 1 << 21 };

typedef struct young_tables {
    PyObject **object; /* all of them; the second generation first, as the interpreter would have them */
    uint32_t *count;   /* by the same number; after a search 0: garbage */
    uint32_t *from;    /* where the object's references begin */
    uint32_t *rest;    /* alive, and not followed yet */
    uint32_t *slot;    /* a hash table: 1 + the number of an object */
    size_t room;       /* for objects; there are a few times as many slots */
} young_tables;

typedef struct young {
    young_tables t;
    size_t n, garbage;
    size_t most, most_references; /* that are searched */
    unsigned pass;                /* collections of the youngest that are still to be left alone */
    bool lost;                    /* there was no memory */
    bool too_many;                /* references, or there was no memory for them */

    uintptr_t *held; /* all references, then the numbers of the young objects among them */
    size_t references, held_room;
    size_t mask;    /* of the slots in use */
    unsigned shift; /* of a hash, to one of them */
    scanner scan;
} young;

/* Of generations 0 to `level`, which is 0 or 1; `sparing`: of the youngest with tables of 300 KB and no more. False: no
 * memory, or too much to be searched; then there is nothing to be read. */
bool young_search(young *y, gc_state *gc, int level, bool sparing);
/* After a search its tables are kept for the next, unless they are much larger than those use to be. */
void young_done(young *y, bool sparing);

#endif
