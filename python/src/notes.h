/*
 * notes.h - which memory was given back to the object allocator while a snapshot is about.
 *
 * What the child proposes may have been freed meanwhile (through a weak reference, by a young collection, by
 * gc.get_objects) and its memory may hold something else. So every address that is given back is noted; a proposal
 * whose memory was given back is dropped. Types that keep free lists of their own give out the memory for the same type
 * again, as a container that is tracked or says that it is not.
 *
 * Invariant: as long as notes_complete says so, notes_freed is true of every object whose memory was given back since
 * notes_begin.
 */
#ifndef WINNOW_PY_NOTES_H
#define WINNOW_PY_NOTES_H

#include "layout.h"

#include "engines/bits.h"

/* False: another allocator came over ours at an earlier time and is still there. */
bool notes_possible(void);
/* Begins to note. False: no memory. */
bool notes_begin(void);
/* Ends it, and forgets everything. False: another allocator has come over ours, which stays beneath it and does
 * nothing: no notes can be taken while it is there. */
bool notes_end(void);
/* Ends it when the interpreter has ended. */
void notes_forget(void);
bool notes_complete(void);
/* Whether that is for want of memory; if not, another allocator is, or was, over ours. */
bool notes_lost(void);

extern wn_bits notes_addresses; /* notes_freed's alone */
static inline bool notes_freed(PyObject *o) {
    uintptr_t a = (uintptr_t)o; /* its memory begins with the list's head, or 16 bytes before that */
    return wn_bits_test(&notes_addresses, 0, a - 16) || wn_bits_test(&notes_addresses, 0, a - 32);
}

#endif
