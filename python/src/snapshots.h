/*
 * snapshots.h - concurrent mode: searches in a forked child, and what it finds reclaimed in slices.
 *
 * The child proposes, as a search at once does; what was proposed is looked at again before it is handed over, because
 * the program has gone on. Slices are reclaimed in young collections, and in collections between them that winnow
 * brings about by putting the interpreter's count of new objects ahead.
 *
 * Invariant: while a snapshot is about, frees are noted (notes.h), and nothing is handed over whose memory was given
 * back since the fork. Whatever fails drops the snapshot, is counted, and leaves the garbage to the next collection.
 */
#ifndef WINNOW_PY_SNAPSHOTS_H
#define WINNOW_PY_SNAPSHOTS_H

#include "layout.h"

void snapshots_setup(void); /* at each installation */
bool snapshot_start(void);
/* Takes note of a child that has finished, died, or takes too long. */
void snapshot_poll(void);
/* Whether there is garbage to be reclaimed, and pages to do it in: see pages.h. */
bool snapshot_is_ready(void);
void snapshot_drop(void);
/* When no other may come: drops it, and its child has gone when this returns. */
void snapshots_close(void);
void snapshots_forked(void);
/* When the interpreter has ended. */
void snapshots_forget(void);

/* At the start and the stop of a collection of a younger generation, when a snapshot is about or was at the start. */
void slice_start(int level);
void slice_stop(int level, PyObject *info);
/* The interpreter has begun to count new objects anew. */
void slice_forget_count(void);

/* After a young (0) or second generation's (1) collection: whether to take a snapshot before the interpreter asks. */
void snapshot_early(int level);
bool snapshot_is_due(void);
void want_huge_pages(void);

#endif
