/*
 * inspect.h - looking at a heap: walking, questions about single objects, drawing, verifying. Reads, never changes, but
 * for what says so (wn_untrack, wn_track, wn_garbage_clear).
 *
 * What looks at the whole heap stops the world meanwhile, and so is a safepoint; questions about one object are none.
 */
#ifndef WINNOW_INSPECT_H
#define WINNOW_INSPECT_H

#include "mutator.h"

WN_BEGIN

/* Called once per object; returning false ends the walk. Must not allocate, store or release. */
typedef bool (*wn_object_visitor)(void *object, void *data);

/* Visits every object alive (and, under the tracing collectors, what is dead and not yet found to be). A safepoint. */
WN_API wn_status wn_each_object(wn_mutator *m, wn_object_visitor visit, void *data);
/* Visits the tracked objects of a generation: 0, 1, 2, or 3 for the frozen ones; -1: of all but the frozen. A
 * safepoint. WN_ERR_ARGUMENT: there is no such generation. */
WN_API wn_status wn_each_tracked(wn_mutator *m, int generation, wn_object_visitor visit, void *data);
/* Visits the objects that refer to `target`, each once. A safepoint: `target` is kept by a root of the caller's. */
WN_API wn_status wn_referrers(wn_mutator *m, const void *target, wn_object_visitor visit, void *data);
/* Visits the objects that `object` refers to, each once per reference. No safepoint. */
WN_API wn_status wn_referents(wn_mutator *m, const void *object, wn_object_visitor visit, void *data);

WN_API bool wn_is_tracked(wn_mutator *m, const void *object);
/* Whether the object's finalizer has run, or is running. */
WN_API bool wn_is_finalized(wn_mutator *m, const void *object);
WN_API bool wn_is_frozen(wn_mutator *m, const void *object);
/* 0, 1, 2; 3 when frozen; -1 when the collector has no generations or does not track the object. */
WN_API int wn_generation(wn_mutator *m, const void *object);
/* Whether an address is that of an object of this heap now. */
WN_API bool wn_is_object(wn_mutator *m, const void *address);
/* Bytes the object takes, as asked for (not as rounded); 0 when it is no object of this heap. */
WN_API size_t wn_size_of(wn_mutator *m, const void *object);

/* Stops (and starts again) to track an object for cycles; counting only, the others ignore it. An untracked object
 * must not be part of a cycle. */
WN_API void wn_untrack(wn_mutator *m, void *object);
WN_API void wn_track(wn_mutator *m, void *object);

/* The garbage list, of counting: what a collection found uncollectable, or all it found when `save_all` is on. Each is
 * alive until wn_garbage_clear, which is a safepoint. */
WN_API size_t wn_garbage_count(wn_mutator *m);
WN_API void *wn_garbage_get(wn_mutator *m, size_t index); /* borrowed */
WN_API void wn_garbage_clear(wn_mutator *m);

/* Draws the part of the heap that is reachable from `objects` as a Graphviz DOT graph; at most `max_objects` (0: 200)
 * nodes, the rest is shown as "…". Labels: type, wn_type.describe, and the count where there is one. A safepoint; the
 * world stands still while the text is made, in memory, and `out` is written as in a blocking section. WN_ERR_ARGUMENT
 * when more objects are given than may be drawn, WN_ERR_MEMORY, WN_ERR_IO. */
WN_API wn_status wn_heap_graph(wn_mutator *m, FILE *out, void *const *objects, size_t n, size_t max_objects);

/* Re-derives what is reachable by a second, simple method (a search with a plain list and a hash set, references one by
 * one), compares it with the collector's own view and checks every side table against every object. Writes what
 * is wrong to `report` (may be NULL) and returns how many things are: 0 is good, and 1 says a mutator that is gone.
 * Slow. A safepoint; the world stands still. */
WN_API size_t wn_verify(wn_mutator *m, FILE *report);

WN_END
#endif
