/*
 * census.h - which containers there are: a set of addresses that is kept from one search to the next.
 *
 * The interpreter knows its containers as members of linked lists, and nothing else says which they are. Walking a list
 * of a million objects whose order no longer follows addresses costs a cache miss for each, and the next link is not
 * known before. So nobody walks what was walked once: the set is the candidates of the cycle search (WN_CYCLES_ALL).
 *
 * Invariant: every container of the oldest list that stands before the bookmark *known* is a member. The other bookmark
 * is the first of that list, or else somebody has moved the whole of it (gc.freeze does) and the set begins anew.
 *
 * More are members than containers: who has died, or is not tracked any more, stays one until it is asked. That is no
 * harm to marking: what a reference leads to is alive, whatever it is. But who stays unmarked must be asked, and what
 * is asked for may not be there any more. So
 *
 *   - members lie in the arenas of the interpreter's allocator, which are given back to the system by way of a hook of
 *     ours that takes the members in them out; or they are noted as lying elsewhere (WN_CYCLES_OWN), perhaps, and are
 *     read by way of the kernel, which says whether the memory is there;
 *   - a member is in a list if somebody refers to it and its neighbours' links lead back to it, where a neighbour is a
 *     member, too, or the head of a list. A block that was freed, or given out for something else, has no such links.
 *
 * Where that cannot be (another allocator, a hook over ours, no leave to ask the kernel) and where there are other
 * interpreters, in whose lists a member might stand, the set begins anew with each search.
 *
 * All functions belong to the thread that holds the interpreter's lock.
 */
#ifndef WINNOW_PY_CENSUS_H
#define WINNOW_PY_CENSUS_H

#include "scan.h"

bool census_setup(PyTypeObject *bookmark_type); /* once; false: no memory */
/* At installation and its end. The members are `cycles`' candidates. */
void census_open(gc_state *gc, wn_cycles *cycles);
void census_close(void);
/* Instead of that, when the interpreter has ended, with its lists. */
void census_forget(void);
/* The head on which the collector parks. */
PyGC_Head *census_parked(void);

/* When a collection starts, before anything else of the census: begins anew where it must. Returns whether all of the
 * oldest list is known. */
bool census_check(void);
/* Those that are tracked. False: no memory, and not all of them are members. */
bool census_add(PyObject *const *o, size_t n);
/* The same for the younger lists, up to that generation's: about to become old. */
bool census_add_young(int level);
/* Knows some more of the oldest list. */
void census_step(size_t objects);
/* For a search: walks whatever of the lists is not known. False: no memory. */
bool census_take(void);
/* How many are members; how many the last census_take met in lists, and how many of them in the younger ones. */
size_t census_members(void);
size_t census_walked(void);
size_t census_young(void);
/* For tests: how many are before *known* and yet no members, contrary to the invariant. */
size_t census_missing(void);
/* Of the unmarked, takes out of *that* plane who is in no list, and adds them to `gone`. False: it cannot be known. */
bool census_settle(object_list *gone);
/* Takes out of the set who is in no list: all of them, or those who still are not. */
void census_remove(PyObject **o, size_t n);
void census_remove_gone(PyObject **o, size_t n);

/* Puts what was parked into the oldest list, before whatever others have put there meanwhile: behind all that is known,
 * or at the front where the oldest list itself was parked (`all`). `counted`: members all of them, and so known. */
void census_unpark(bool all, bool counted);
/* All of the oldest list has become known. */
void census_all_known(void);

#endif
