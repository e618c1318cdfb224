/*
 * winnow.h - the public interface of Winnow, an embeddable garbage collector. Two headers are included by those who
 * want them: winnow/objects.h, ready-made types, and winnow/codegen.h, for compilers that emit machine code.
 *
 * The rule a client learns, and the only one: a reference that lives in a local across a safepoint is declared as a
 * root (wn_root, wn_hold); a reference stored in an object goes through wn_set or wn_move; everything else is plain C.
 * With that rule one source is correct on all three collectors (reference counting, incremental, concurrent), and
 * which one runs is chosen when the heap is made.
 *
 *     typedef struct node { wn_object head; struct node *left, *right; long key; } node;
 *     static const wn_type node_type = WN_TYPE(node, WN_REFS(node, left, right));
 *
 *     node *build(wn_mutator *m, int depth) {
 *         wn_root(m, node *, n, wn_new(m, &node_type));   // popped, and released, at scope end
 *         if (n && depth) {
 *             wn_move(m, n, left, build(m, depth - 1));    // stores and takes over the new reference
 *             wn_move(m, n, right, build(m, depth - 1));
 *         }
 *         return wn_give(m, n);                            // hands the reference to the caller
 *     }
 *
 * Who owns what: a function that makes an object returns a *new* reference, which the caller must store (wn_move),
 * declare (wn_root) or release (wn_release); arguments are *borrowed*: the caller keeps them alive during the call.
 * Under the tracing collectors owning costs nothing; the words mean the same.
 *
 * Safepoints: what can allocate (wn_new and its kin), what can drop the last reference to something (wn_set, wn_move,
 * wn_assign, wn_release, the end of a wn_root scope), what collects or looks at the whole heap (wn_collect and its kin,
 * wn_freeze, wn_trim, the walks of inspect.h), wn_poll, wn_block_end, wn_no_collect_end; and where other threads are
 * attached, fork(), wn_heap_new and wn_heap_free, which may have to wait for them. At a safepoint objects may move,
 * finalizers and weak reference callbacks may run, and other threads may collect.
 */
#ifndef WINNOW_H
#define WINNOW_H

#include "winnow/base.h"
#include "winnow/type.h"
#include "winnow/heap.h"
#include "winnow/mutator.h"
#include "winnow/weak.h"
#include "winnow/inspect.h"

#endif
