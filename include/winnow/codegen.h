/*
 * codegen.h - for compilers that emit machine code: what the fast paths of mutator.h are made of, as numbers.
 *
 * Emitted code may do everything by calls. wn_new, wn_store, wn_store_new, wn_retain, wn_release and wn_poll are
 * functions whose addresses can be taken (inline ones: each file that takes one gets a copy). What this header adds is
 * how to do the common case in place. The cases it leaves out end in the same call with the same arguments, so to call
 * where a shortcut was allowed costs time and is never wrong; to leave out a step is.
 *
 * In the sequences below m is the thread's wn_mutator *, which emitted code keeps at hand; u32[x] and ptr[x] are the 32
 * and 64 bits at m + x, where x is a field of wn_codegen; addresses are unsigned, arithmetic is of 64 bits. The side
 * table's two bytes of an object at address o are side(o)[0] and side(o)[1], where
 *
 *     mask = (1 << chunk_shift) - 1
 *     side(o) = (o & ~mask) + ((o & mask) >> granule_shift)
 *
 * A safepoint, wn_poll(m):
 *
 *     if u32[poll] != 0: call
 *
 * A new object, wn_new(m, type), of a type of which wn_codegen_object_of has said how:
 *
 *     b = ptr[buffer]                                     (the buffer's two words: where it goes on, where it ends)
 *     p = b[0]
 *     if b[1] - p < bytes, or u32[poll] != 0: call
 *     if u32[mode] & counts:
 *         if tracked, and ptr[young] + 8 == ptr[young_end]: call
 *         side(p)[0] = 1, side(p)[1] = state
 *         if tracked: the word at ptr[young] = p, ptr[young] += 8
 *     b[0] = p + bytes
 *     the word at p = type; all other bytes of the object are zero
 *
 * A borrowed reference stored in an object, wn_store(m, holder, slot, value), slot being an address within holder:
 *
 *     w = u32[mode]
 *     if w & store_calls: call
 *     if w & store_young, and value - ptr[nursery] >= ptr[nursery_size]: store
 *     else if w & store_records, and side(holder)[0] is odd: call
 *     store: the word at slot = value, by an instruction that other threads see after all that was written before (on
 *     x86-64 each is; on aarch64 stlr)
 *
 * wn_store_new is the same with its own call. Where w & counts_alone, they may be done without a call as well: the
 * value's count up (not for wn_store_new), the old word's count down after the new one has been stored.
 *
 * A reference counted up, wn_retain(m, o), and down, wn_release(m, o), which is a safepoint:
 *
 *     if o == 0 or not (u32[mode] & counts): nothing
 *     if not (u32[mode] & counts_alone): call
 *     up:   if side(o)[0] < count_most: side(o)[0] += 1, else call
 *     down: if 1 < side(o)[0] <= count_most: side(o)[0] -= 1, else call
 *
 * A local root, wn_root, with a link of two words in the frame and the variable's address v:
 *
 *     link[0] = ptr[roots], link[1] = v, ptr[roots] = link          (a borrowed one, wn_borrow: link[1] = v | 1)
 *     at the end of its scope: ptr[roots] = link[0], then, unless it is borrowed, wn_release(m, what v holds)
 *
 * Such a variable is given another value by a plain store; of one that owns, the value is counted up before and what
 * was there down afterwards. A variable that wn_global has declared is assigned in C alone (wn_assign, wn_take).
 *
 * A runtime whose emitted code keeps references on a stack of its own needs no links: it shows the stack by a root
 * scanner.
 *
 * The numbers are the same for all heaps and threads of a process; code that is kept on disk is kept for one version of
 * the library (wn_version). The words at m change: they are read where the sequences read them. Code for heaps of one
 * collector alone may leave out steps for bits that are never set there: counts and counts_alone but by refcount,
 * store_young but by incremental, store_records by refcount. store_calls may be set by each of them.
 */
#ifndef WINNOW_CODEGEN_H
#define WINNOW_CODEGEN_H

#include "heap.h"

WN_BEGIN

typedef struct wn_codegen {
    uint32_t poll, mode, roots, young, young_end, nursery, nursery_size;    /* offsets from m, in bytes */
    uint32_t counts, counts_alone, store_calls, store_young, store_records; /* bits of the mode word */
    uint32_t chunk_shift, granule_shift;
    uint32_t count_most;
} wn_codegen;

/* How objects of one type are made in place. */
typedef struct wn_codegen_object {
    uint32_t buffer; /* offset from m of the pointer to the buffer */
    uint32_t bytes;  /* that the object takes of it */
    uint8_t state;
    bool tracked;
} wn_codegen_object;

/* The numbers; never NULL, and the caller does not free them. Any thread; no safepoint. */
WN_API const wn_codegen *wn_codegen_get(void);

/* How wn_new makes an object of this type in place; false for one whose objects are made by the call alone: those with
 * items (wn_new_array), with a finalize or release hook, pinned ones, and those of more than some 8 KiB. Depends on the
 * type alone, which must not change afterwards. Also false for NULL. Any thread; no safepoint. */
WN_API bool wn_codegen_object_of(const wn_type *type, wn_codegen_object *how);

WN_END
#endif
