/*
 * type.h - how a client describes its objects to the collectors.
 *
 * An object is one type word followed by its owner's bytes; nothing else of Winnow's is in it. The type word points to
 * a wn_type, which a runtime can embed as the first member of its class structure. References inside the object are
 * found by a bitmap of words (the fast way, no call) or by a trace function.
 */
#ifndef WINNOW_TYPE_H
#define WINNOW_TYPE_H

#include "base.h"

WN_BEGIN

typedef struct wn_heap wn_heap;
typedef struct wn_mutator wn_mutator;
typedef struct wn_type wn_type;
typedef struct wn_tracer wn_tracer;

/* The head of every collected object: make it the first member. The library alone writes it. */
typedef struct wn_object {
    const wn_type *type;
} wn_object;

/* Flags of a type. */
enum {
    /* Once filled, an object of this type is never written again (a tuple): a collection that finds only untracked
     * values in it stops tracking it, as CPython does with tuples. One with a trace function stays tracked, because
     * nobody can tell when it is filled. */
    WN_TYPE_IMMUTABLE = 1u << 0,
    /* A reference cycle through such an object must not be broken by the collector: the cycle is reported as
     * uncollectable instead (CPython's legacy finalizers). Reference counting only; the others free it. */
    WN_TYPE_NO_CLEAR = 1u << 1,
    /* Objects of this type are never moved, whatever the collector; their address may be given to foreign code. */
    WN_TYPE_PINNED = 1u << 2,
    WN_TYPE_KNOWN_FLAGS = (1u << 3) - 1,
    /* Set by the library on its own types; a client's use is refused (where `check` is off, as everything about a type
     * is, only when memory for its class runs out). */
    WN_TYPE_WEAKREF = 1u << 16,
    WN_TYPE_EPHEMERON = 1u << 17
};

/*
 * A type. Fill it by WN_TYPE; it must outlive every heap that has objects of it, and must not change meanwhile.
 *
 * All four hooks are optional:
 *   trace     visits references that the bitmaps cannot describe, by wn_visit; called at any moment of a collection,
 *             from any thread, possibly while the object is half filled (its bytes start as zero). It must only read
 *             the object, must not allocate, and must visit exactly the references that were stored by wn_set/wn_move.
 *   finalize  runs once, when the object has become unreachable and before anything of it is taken apart (PEP 442);
 *             may do everything a mutator may, including storing the object somewhere: then it is resurrected. Should
 *             be short: it is no safepoint, so other threads' collections may wait for its end, unless it blocks
 *             (wn_block_begin).
 *   clear     drops references so as to break a cycle; default: every reference is set to NULL.
 *   release   runs when the memory is about to be reused, after the last call of the others: to give back what lies
 *             outside the heap (a file, a malloc block that trace reads). It must not touch other objects nor call the
 *             library.
 */
struct wn_type {
    const char *name;         /* shown in messages, graphs and statistics */
    uint32_t size;            /* bytes of the fixed part, type word included: at least 8, at most 1 MiB */
    uint32_t flags WN_UNSET_; /* WN_TYPE_... */
    uint64_t refs WN_UNSET_;  /* bit i: word i of the object (8 bytes each; word 0 is the type word) is a reference */
    uint32_t item_size WN_UNSET_; /* bytes per item of the variable part, which begins at `size`; 0: none */
    uint32_t length_at WN_UNSET_; /* byte offset of the size_t that wn_new_array sets to their number; then fixed */
    uint64_t item_refs WN_UNSET_; /* bit i: word i of each item is a reference */
    void (*trace)(const void *object, wn_tracer *tracer) WN_UNSET_;
    void (*finalize)(wn_mutator *m, void *object) WN_UNSET_;
    void (*clear)(wn_mutator *m, void *object) WN_UNSET_;
    void (*release)(void *object) WN_UNSET_;
    /* Writes a short label for graphs and messages into buf (at most n bytes, terminated); optional. */
    void (*describe)(const void *object, char *buf, size_t n) WN_UNSET_;
};

/* Visits one reference from a trace function or a root scanner: `slot` is the address of the reference. A collector
 * that moves objects updates it. */
WN_API void wn_visit(wn_tracer *tracer, void *slot);

#define WN_WORD_BIT_(T, field) ((uint64_t)1 << (offsetof(T, field) / sizeof(void *)))
#define WN_R1_(T, a) WN_WORD_BIT_(T, a)
#define WN_R2_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R1_(T, __VA_ARGS__)
#define WN_R3_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R2_(T, __VA_ARGS__)
#define WN_R4_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R3_(T, __VA_ARGS__)
#define WN_R5_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R4_(T, __VA_ARGS__)
#define WN_R6_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R5_(T, __VA_ARGS__)
#define WN_R7_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R6_(T, __VA_ARGS__)
#define WN_R8_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R7_(T, __VA_ARGS__)
#define WN_R9_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R8_(T, __VA_ARGS__)
#define WN_R10_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R9_(T, __VA_ARGS__)
#define WN_R11_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R10_(T, __VA_ARGS__)
#define WN_R12_(T, a, ...) WN_WORD_BIT_(T, a) | WN_R11_(T, __VA_ARGS__)
#define WN_PICK_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, N, ...) N
#define WN_REF_BITS(T, ...)                                                                                           \
    (WN_PICK_(__VA_ARGS__, WN_R12_, WN_R11_, WN_R10_, WN_R9_, WN_R8_, WN_R7_, WN_R6_, WN_R5_, WN_R4_, WN_R3_, WN_R2_, \
              WN_R1_, 0)(T, __VA_ARGS__))

/* static const wn_type node_type = WN_TYPE(node, WN_REFS(node, left, right), .finalize = node_finalize);
 * C++ (14 with the compiler's extensions, or 20) wants fields in the order of their declaration: flags, then WN_REFS,
 * then WN_ITEMS and its like, then hooks.
 * The struct's first member must be a wn_object; reference fields must lie in its first 512 bytes (else use .trace). */
#define WN_TYPE(T, ...) \
    { .name = #T, .size = sizeof(T), __VA_ARGS__ }
/* Up to 12 reference fields; for more, set .refs to an | of WN_REF_BITS. */
#define WN_REFS(T, ...) .refs = WN_REF_BITS(T, __VA_ARGS__)
/* A flexible array member of references, its length in the size_t member `length_field`. */
#define WN_ITEMS(T, length_field, items_field) WN_RECORDS(T, length_field, items_field, 1)
/* A flexible array member of plain bytes, numbers, ...: no references. */
#define WN_DATA(T, length_field, items_field) WN_RECORDS(T, length_field, items_field, 0)
/* A flexible array of structs of which the words in `mask` (bit i: word i) are references: a hash table's entries. */
#define WN_RECORDS(T, length_field, items_field, mask) \
    .item_size = sizeof(((T *)0)->items_field[0]), .length_at = offsetof(T, length_field), .item_refs = (mask)

WN_END
#endif
