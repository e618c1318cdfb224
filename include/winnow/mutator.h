/*
 * mutator.h - threads that use a heap: attaching, allocating, roots, stores, safepoints.
 *
 * Everything here that is `static inline` is a fast path; its cost is stated beside it and what lies behind it is in
 * fast.h. A wn_mutator belongs to one thread at a time; every call that takes one is made by that thread.
 */
#ifndef WINNOW_MUTATOR_H
#define WINNOW_MUTATOR_H

#include "heap.h"
#include "fast.h"

WN_BEGIN

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* Attaches the calling thread to a heap. WN_ERR_STATE when it already is, or, under counting with single_thread, when
 * another thread is; WN_ERR_ARGUMENT for NULL; WN_ERR_MEMORY; WN_ERR_IO when the heap has conservative_stacks and the
 * system does not say where the thread's stack ends. Like wn_detach, and a collection, it waits until every other
 * attached thread is at a safepoint or in a blocking section: one that waits for this thread meanwhile does so between
 * wn_block_begin and wn_block_end. With the options `trace` or `check` a line on stderr names the thread that is waited
 * for after 100 ms.
 *
 * A thread may attach to several heaps. A call on one is a safepoint of that one alone: others' objects do not move
 * under it, and their collections wait for it. So where other threads are attached, too, it keeps its mutators of all
 * other heaps in blocking sections while it works on one; else two threads may wait for each other, each in the heap in
 * which the other one runs.
 *
 * A thread that has attached detaches before it ends. For one that has not (nor in a destructor of a pthread key of its
 * own) that is done as it ends, so that nobody waits for it; `check` reports it as misuse. Roots that it still had
 * declared are gone with its stack; under counting what they held is then never freed. */
WN_API wn_status wn_attach(wn_heap *heap, wn_mutator **m);
/* Detaches; the mutator is gone when this returns WN_OK. May wait for others as wn_attach does. WN_ERR_STATE when roots
 * of it are still declared, inside a no-collect scope or a blocking section, by another thread than its own, and in
 * what a collection calls: finalizers, callbacks, listeners; WN_ERR_ARGUMENT for NULL. Calls with a mutator that is
 * gone do nothing and say so by their result (an error, NULL, false or 0), or only by wn_error_message where they have
 * none, until another thread attaches and gets it. */
WN_API wn_status wn_detach(wn_mutator *m);
/* The calling thread's mutator for this heap, or NULL. */
WN_API wn_mutator *wn_current(wn_heap *heap);
WN_API wn_heap *wn_heap_of(const wn_mutator *m);

/* Around a call that may block (I/O, a lock, waiting for a thread): between the two the thread touches no object but
 * the bytes of pinned ones and makes no call with its mutator, and collections go on without it. wn_block_end is a
 * safepoint and waits while a collection holds the world. They do not nest. With `check`, calls between the two, and a
 * wn_block_end without its wn_block_begin, are reported as misuse. */
WN_API void wn_block_begin(wn_mutator *m);
WN_API void wn_block_end(wn_mutator *m);

/* A safepoint, where a loop that neither allocates nor releases gives collectors their turn. One load and a branch. */
static inline void wn_poll(wn_mutator *m) {
    if (WN_UNLIKELY(__atomic_load_n(&m->poll, __ATOMIC_RELAXED))) wn_poll_slow_(m);
}

/* Between the two, no collection starts in this thread and none moves objects; allocation may therefore fail early.
 * Nests; the last end is a safepoint. For short passages only: other threads' collections wait for it. An end too many
 * is misuse, and ignored. */
WN_API void wn_no_collect_begin(wn_mutator *m);
WN_API void wn_no_collect_end(wn_mutator *m);

/* ---- making objects ---------------------------------------------------------------------------------------------- */

/* Makes an object of a type without items: a new reference, its bytes zero but for the type word; NULL when memory is
 * out (wn_error_message says which limit) or the type is NULL, which `check` reports as misuse. A safepoint. Where
 * `type` is a visible constant some 15 instructions with 3 tests, 15 more when the collector counts; with WN_COLLECTOR
 * set to one that does not, 13 with 2 tests. */
static inline void *wn_new(wn_mutator *m, const wn_type *type) { return wn_new_inline_(m, type); }

/* Makes an object with `length` items, all zero; as wn_new otherwise. */
WN_API void *wn_new_array(wn_mutator *m, const wn_type *type, size_t length);

/* Tells the collector that an object holds (delta > 0) or gave back (delta < 0) so many bytes outside the heap. Growth
 * of their sum brings the next collection nearer as that of the heap does; nothing is refused for it. What a release
 * hook gives back cannot be told, as it calls nothing: it stays in wn_stats.external_bytes, and collections go on
 * coming by the growth (incremental: with up to max_delta between two). No safepoint. */
WN_API void wn_external(wn_mutator *m, void *object, ptrdiff_t delta);

/* ---- references in objects --------------------------------------------------------------------------------------- */

/* wn_set(m, holder, field, value): holder->field = value, where value is borrowed. `field` may be an element,
 * `items[i]`. The value is evaluated before the holder is read, because evaluating it may move the holder.
 * A safepoint under counting (the overwritten reference may be the last). */
#define wn_set(m, holder, field, value)                         \
    do {                                                        \
        void *wn_value_ = (void *)(value);                      \
        __typeof__(&*(holder)) wn_holder_ = (holder);           \
        wn_store(m, wn_holder_, &wn_holder_->field, wn_value_); \
    } while (0)

/* wn_move(m, holder, field, value): the same for a *new* reference, which the holder takes over. */
#define wn_move(m, holder, field, value)                            \
    do {                                                            \
        void *wn_value_ = (void *)(value);                          \
        __typeof__(&*(holder)) wn_holder_ = (holder);               \
        wn_store_new(m, wn_holder_, &wn_holder_->field, wn_value_); \
    } while (0)

/* What wn_set and wn_move expand to; for runtimes that compute the address of the field. `slot` lies in `holder`.
 * Concurrent collector, idle: a load, a test, a store. */
static inline void wn_store(wn_mutator *m, void *holder, void *slot, void *value) {
    wn_store_inline_(m, holder, slot, value, false);
}
static inline void wn_store_new(wn_mutator *m, void *holder, void *slot, void *value) {
    wn_store_inline_(m, holder, slot, value, true);
}

/* Copies n references (borrowed) into consecutive slots of holder; source and destination may overlap, and the values
 * may have their only references in the slots: what is overwritten is released when all have been stored. A safepoint
 * under counting. */
WN_API void wn_copy(wn_mutator *m, void *holder, void *slots, const void *values, size_t n);

/* Reads a field that another thread may be writing at this moment: a new reference. Under counting such a field must
 * be guarded by the client's own lock; this is then a plain read and a count. */
#define wn_load(m, holder, field) ((__typeof__((holder)->field))wn_load_(m, &(holder)->field))
WN_API void *wn_load_(wn_mutator *m, const void *slot);

/* ---- roots ------------------------------------------------------------------------------------------------------- */

/* wn_root(m, T, name, value): declares the local `T name` (T a pointer to an object's struct) that takes over a *new*
 * reference; it stays alive, and is updated when the object moves, until the scope ends, where it is released. Three
 * stores; the scope's end one, and a count down when counting. */
#define wn_root(m, T, name, value) \
    T name = (T)(value);           \
    WN_ROOT_LINK_(m, name, WN_ROOT_OWNED_)

/* wn_hold(m, T, name, value): the same for a *borrowed* reference, which is counted up. */
#define wn_hold(m, T, name, value) \
    T name = (T)(value);           \
    wn_retain(m, (void *)name);    \
    WN_ROOT_LINK_(m, name, WN_ROOT_OWNED_)

/* wn_borrow(m, T, name, value): declares a local that only has to follow its object; somebody else (the caller, a
 * parent object) keeps it alive in the whole scope. Never counted: the cheapest way to keep an argument valid. */
#define wn_borrow(m, T, name, value) \
    T name = (T)(value);             \
    WN_ROOT_LINK_(m, name, WN_ROOT_BORROWED_)

/* Gives a root (wn_root, wn_hold) another value: wn_assign a borrowed one, wn_take a new one. */
#define wn_assign(m, name, value) wn_assign_(m, &(name), (void *)(value))
#define wn_take(m, name, value) wn_take_(m, &(name), (void *)(value))

/* Hands a root's reference over to the caller and leaves NULL behind: `return wn_give(m, n);` costs no count. */
#define wn_give(m, name) ((__typeof__(name))wn_give_(m, &(name)))

/* A new reference to what is borrowed: `return wn_keep(m, list->first);`. */
#define wn_keep(m, value) ((__typeof__(value))wn_keep_(m, (void *)(value)))

/* Counts a reference up or down by hand: for one in foreign memory, such as a stack that a root scanner shows. Under
 * the tracing collectors both do nothing, so there a scanner must show it. NULL is fine. wn_release is a safepoint. */
static inline void wn_retain(wn_mutator *m, void *object) {
    if (object && wn_counting_(m)) wn_count_up_(m, object);
}
static inline void wn_release(wn_mutator *m, void *object) {
    if (object && wn_counting_(m)) wn_count_down_(m, object);
}

/* For a jump out of scopes (longjmp), whose ends then do not run: what is open at the place to jump to is noted there,
 * and the jump preceded by wn_unwind, which ends all scopes that were opened since, as they would end: roots are
 * released, no-collect scopes left. A safepoint. What the jump carries along is kept alive by a root that was open
 * before, or a global one. A blocking section is ended first. What the library calls (finalizers, callbacks, listeners,
 * visitors, trace functions) returns, and is not jumped out of. C++ exceptions end scopes by themselves, as they do in
 * C compiled with -fexceptions.
 *
 * A thread that changes C stacks by itself (swapcontext) has none of these scopes open meanwhile: it keeps the
 * references of its coroutines where a root scanner sees them. */
typedef struct wn_scope {
    wn_root_link_ *roots_;
    uint32_t nested_;
} wn_scope;
static inline wn_scope wn_scope_here(const wn_mutator *m) {
    wn_scope here = {m->roots, m->nested};
    return here;
}
WN_API void wn_unwind(wn_mutator *m, wn_scope to);

/* Declares a variable outside any object (a static, a field of a malloc'd struct) as a root until wn_forget_global.
 * It starts with whatever it holds, as an owned reference; assign with wn_assign and wn_take. Any thread, but one that
 * is not attached, or is in a blocking section, has no references: the variable is then NULL. WN_ERR_ARGUMENT for NULL;
 * WN_ERR_MEMORY. */
WN_API wn_status wn_global(wn_heap *heap, void *variable);
/* The reference in it is released by m, the variable set to NULL: a safepoint. WN_ERR_STATE when it is no root. */
WN_API wn_status wn_forget_global(wn_mutator *m, void *variable);

/* Adds a scanner that a collection calls to learn the references of a runtime's own stack or tables: it calls
 * wn_visit(tracer, &slot) for each. Called while the mutators stand still; it calls nothing else of the library.
 * Under counting, each such reference must also have been counted (wn_retain), and the scanner serves only to find
 * cycles faster. Any thread adds and removes; when the latter returns, no collection is calling the scanner any more.
 * WN_ERR_ARGUMENT for NULL, WN_ERR_MEMORY; WN_ERR_STATE when there is none to remove with this function and data. */
typedef void (*wn_root_scanner)(wn_tracer *tracer, void *data);
WN_API wn_status wn_add_root_scanner(wn_heap *heap, wn_root_scanner scanner, void *data);
WN_API wn_status wn_remove_root_scanner(wn_heap *heap, wn_root_scanner scanner, void *data);

/* ---- single objects ---------------------------------------------------------------------------------------------- */

/* The exact number of references to an object; WN_IMMORTAL when it is immortal; 0 when the collector does not count. */
WN_API size_t wn_refcount(wn_mutator *m, const void *object);
#define WN_IMMORTAL ((size_t)-1)

/* The object is never freed and never counted again (and roots what it refers to). The tracing collectors need some
 * memory for that: without, the object stays as it was, and only wn_error_message says so. */
WN_API void wn_make_immortal(wn_mutator *m, void *object);

/* Keeps an object at its address, and that address on its memory, until as many wn_unpin: a buffer of bytes may be read
 * and written by others meanwhile, as read(2) does in a blocking section. On every collector, also on one that does not
 * move objects. It is kept there, not alive: who pins it holds a reference, too. WN_ERR_ARGUMENT for NULL,
 * WN_ERR_MEMORY when the pin limit is reached. */
WN_API wn_status wn_pin(wn_mutator *m, void *object);
WN_API void wn_unpin(wn_mutator *m, void *object);

/* A number that stays the same as long as the object lives and that no other living object has, wherever it moves:
 * what to hash by. */
WN_API uintptr_t wn_identity(wn_mutator *m, void *object);

WN_END
#endif
