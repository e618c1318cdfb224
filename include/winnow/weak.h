/*
 * weak.h - weak references, ephemerons; the same promises on every collector.
 *
 * Order when objects become unreachable together (PEP 442): weak references to them are cleared, the callbacks of those
 * weak references that are still reachable run, finalizers run once each, what they resurrected is kept, the rest is
 * cleared and freed. Under counting an object that loses its last reference goes through the same order at once.
 * A weak reference counts as reachable until a collection has found that it is not: where its target is known to be
 * dead before (by its count, by a minor collection), the callback runs.
 */
#ifndef WINNOW_WEAK_H
#define WINNOW_WEAK_H

#include "mutator.h"

WN_BEGIN

typedef struct wn_weakref wn_weakref;
typedef struct wn_ephemeron wn_ephemeron;

/* Runs once after the target is gone, at a safepoint; may do everything a mutator may. Not called when the weak
 * reference itself was found dead first, or together with its target. What becomes due within a callback waits for its
 * end, unless, under counting, finalizers are to run there that it has to precede. */
typedef void (*wn_weak_callback)(wn_mutator *m, wn_weakref *ref, void *data);

/* A new collected object that refers to `target` without keeping it alive. callback may be NULL. A new reference, or
 * NULL when memory is out or the target is NULL. A safepoint; `target` is borrowed. */
WN_API wn_weakref *wn_weakref_new(wn_mutator *m, void *target, wn_weak_callback callback, void *data);
/* The target as a new reference, or NULL once it is dead. */
WN_API void *wn_weakref_get(wn_mutator *m, wn_weakref *ref);
/* Weak references to an object that exist now. */
WN_API size_t wn_weakref_count(wn_mutator *m, const void *target);

/* A new collected pair that keeps `value` alive only while both itself and `key` are alive, even when the value refers
 * to the key (Hayes, OOPSLA 1997). key and value are borrowed; the value may be NULL. A new reference, or NULL when
 * memory is out or the key is NULL. A safepoint. */
WN_API wn_ephemeron *wn_ephemeron_new(wn_mutator *m, void *key, void *value);
/* Key and value as new references; NULL once the key is dead. */
WN_API void *wn_ephemeron_key(wn_mutator *m, wn_ephemeron *e);
WN_API void *wn_ephemeron_value(wn_mutator *m, wn_ephemeron *e);
/* Gives a living ephemeron another value (borrowed). A safepoint under counting. */
WN_API void wn_ephemeron_set(wn_mutator *m, wn_ephemeron *e, void *value);

/* The types of the two, to recognise them by. */
WN_API extern const wn_type wn_weakref_type, wn_ephemeron_type;

WN_END
#endif
