/*
 * object.h - finding the references of an object, and its size, from its type.
 *
 * The visitor is inlined into each loop: a type whose references are a bitmap of words costs no call per reference.
 */
#ifndef WN_OBJECT_H
#define WN_OBJECT_H

#include "heap/space.h"
#include "winnow/mutator.h"

/* What a client's trace function is handed: it leads wn_visit back to the loop that asked. */
struct wn_tracer {
    void (*visit)(void **slot, void *context);
    void *context;
};

static inline const wn_type *wn_type_of(const void *object) { return ((const wn_object *)object)->type; }

static inline size_t wn_length_of(const void *object, const wn_type *t) {
    return t->item_size ? *(const size_t *)((const char *)object + t->length_at) : 0;
}

/* Bytes of an object as its client asked for them. */
static inline size_t wn_bytes_of(const void *object) {
    const wn_type *t = wn_type_of(object);
    return t->size + wn_length_of(object, t) * t->item_size;
}

/* Visits the address of every reference among items [from, to) of an object. */
static WN_ALWAYS_INLINE void wn_each_item_ref(void *object, const wn_type *t, size_t from, size_t to,
                                              void (*visit)(void **slot, void *context), void *context) {
    char *items = (char *)object + t->size;
    if (t->item_refs == 1 && t->item_size == sizeof(void *)) {
        for (size_t i = from; i < to; i++) visit((void **)items + i, context);
    } else {
        for (size_t i = from; i < to; i++) {
            void **item = (void **)(items + i * t->item_size);
            for (uint64_t map = t->item_refs; map; map &= map - 1) visit(item + __builtin_ctzll(map), context);
        }
    }
}

/* Visits the address of every reference outside an object's items. */
static WN_ALWAYS_INLINE void wn_each_fixed_ref(void *object, const wn_type *t,
                                               void (*visit)(void **slot, void *context), void *context) {
    for (uint64_t map = t->refs; map; map &= map - 1) visit((void **)object + __builtin_ctzll(map), context);
    if (WN_UNLIKELY(t->trace != NULL)) {
        struct wn_tracer tracer = {visit, context};
        t->trace(object, &tracer);
    }
}

/* Visits the address of every reference of an object (those that are NULL too). */
static WN_ALWAYS_INLINE void wn_each_ref(void *object, void (*visit)(void **slot, void *context), void *context) {
    const wn_type *t = wn_type_of(object);
    wn_each_fixed_ref(object, t, visit, context);
    if (WN_UNLIKELY(t->item_refs)) wn_each_item_ref(object, t, 0, wn_length_of(object, t), visit, context);
}

/* A marker's fetch (engines/mark.h) for entries that are objects whose references lie in themselves. Every other object
 * of 48 bytes lies on two cache lines. */
static WN_ALWAYS_INLINE void wn_fetch_head(void *context, void *object, int stage) {
    (void)context;
    if (stage == 0) WN_PREFETCH(object);
    if (stage == 1) {
        const wn_type *t = wn_type_of(object);
        if (t->size > 32 || t->item_refs) WN_PREFETCH((char *)object + 40);
    }
}

/* Whether the word at an offset of an object is a reference by its bitmaps. With a trace function nobody can tell, as
 * it may show a word only when it is filled: then yes. */
bool wn_is_ref_at(const void *object, size_t offset);

/* Checks a type that a client hands in; WN_ERR_ARGUMENT with the rule it breaks. */
wn_status wn_type_check(const wn_type *type, bool array);

#endif
