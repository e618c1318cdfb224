/*
 * objects.h - ready-made collected types: none, true and false, int, float, str, tuple, list, dict.
 *
 * Written on the public API alone, so they are also the example to copy from. Not included by winnow.h: a runtime with
 * types of its own does not pay for these.
 *
 * Ownership is as everywhere: functions that make an object return a *new* reference (NULL when memory is out; then
 * wn_error_message says which limit); arguments are *borrowed*, except where "takes over" is said. What the getters
 * return is borrowed from the container: declare it (wn_hold) if the container may let go of it. Functions marked
 * [safepoint] can allocate or drop the last reference of something; all others are plain reads.
 *
 * Beware of `wn_list_append(m, list, wn_int_new(m, 1))`: it leaks the int under counting, and may read `list` before
 * making the int has moved it. wn_list_push and wn_dict_put are for that: they take the new reference over and
 * evaluate it first.
 *
 * Strings, numbers and tuples never change and may be shared by threads. A list or dict that one thread changes must
 * not be used by another at the same time: guard it with a lock, taken inside wn_block_begin/wn_block_end.
 */
#ifndef WINNOW_OBJECTS_H
#define WINNOW_OBJECTS_H

#include "../winnow.h"

WN_BEGIN

/* ---- the values a heap has once ---------------------------------------------------------------------------------- */

/* What the objects of one heap share: none, true, false, the ints from -5 to 256, the empty string and the 256 strings
 * of one character below U+0100. All immortal. */
typedef struct wn_objects wn_objects;

/* Makes the shared values of m's heap; call it once, before the heap has other threads. `objects` may be NULL.
 * WN_ERR_MEMORY, or WN_ERR_STATE when the heap has them already. Without it ints and strings work but none are
 * interned, and wn_none and wn_bool return NULL. [safepoint] */
WN_API wn_status wn_objects_new(wn_mutator *m, wn_objects **objects);
/* Forgets them, before wn_heap_free (the immortal values go with the heap). NULL is fine. [safepoint] */
WN_API void wn_objects_free(wn_mutator *m, wn_objects *objects);

/* ---- kinds ------------------------------------------------------------------------------------------------------- */

typedef enum wn_kind {
    WN_KIND_OTHER, /* a type of the client's */
    WN_KIND_NONE,
    WN_KIND_BOOL,
    WN_KIND_INT,
    WN_KIND_FLOAT,
    WN_KIND_STR,
    WN_KIND_TUPLE,
    WN_KIND_LIST,
    WN_KIND_DICT,
    WN_KIND_WEAKREF,
    WN_KIND_EPHEMERON
} wn_kind;
WN_API wn_kind wn_kind_of(const void *object);

/* ISO C++ has no flexible array members; the compilers do. */
#ifdef __cplusplus
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#endif
/* The fields below are for reading only; change objects through the functions. */
typedef struct wn_none_object {
    wn_object head;
} wn_none_object;
typedef struct wn_bool_object {
    wn_object head;
    uint64_t value;
} wn_bool_object;
typedef struct wn_int {
    wn_object head;
    int64_t value;
} wn_int;
typedef struct wn_float {
    wn_object head;
    double value;
} wn_float;
/* The hash is computed when the string is made: a string is never written again, not even to cache something, so that
 * reading it after fork() unshares no page. */
typedef struct wn_str {
    wn_object head;
    size_t size; /* bytes, and one for the NUL behind them */
    uint64_t hash;
    char bytes[];
} wn_str;
typedef struct wn_tuple {
    wn_object head;
    size_t length;
    wn_object *items[];
} wn_tuple;
#ifdef __cplusplus
#pragma GCC diagnostic pop
#endif
struct wn_list_items_;
typedef struct wn_list {
    wn_object head;
    size_t length;
    struct wn_list_items_ *items;
} wn_list;
struct wn_dict_index_;
struct wn_dict_entries_;
typedef struct wn_dict {
    wn_object head;
    size_t length; /* keys present */
    size_t filled; /* entries in use, deleted ones included */
    size_t first;  /* no entry before this one is alive */
    struct wn_dict_index_ *index;
    struct wn_dict_entries_ *entries;
} wn_dict;

WN_API extern const wn_type wn_none_type, wn_bool_type, wn_int_type, wn_float_type, wn_str_type, wn_tuple_type,
    wn_list_type, wn_dict_type;

/* ---- none, true, false, numbers ---------------------------------------------------------------------------------- */

WN_API void *wn_none(wn_mutator *m);                        /* borrowed; immortal */
WN_API void *wn_bool(wn_mutator *m, bool value);            /* borrowed; immortal */
WN_API wn_int *wn_int_new(wn_mutator *m, int64_t value);    /* [safepoint] */
WN_API wn_float *wn_float_new(wn_mutator *m, double value); /* [safepoint] */
static inline int64_t wn_int_value(const wn_int *i) { return i->value; }
static inline double wn_float_value(const wn_float *f) { return f->value; }

/* ---- str: bytes that are meant as UTF-8 (not checked), with a NUL behind them ------------------------------------ */

/* `bytes` is copied; it must not lie in a collected object, which may move meanwhile (wn_str_slice copies from one).
 * [safepoint] */
WN_API wn_str *wn_str_new(wn_mutator *m, const char *bytes, size_t length);
WN_API wn_str *wn_str_text(wn_mutator *m, const char *text);                         /* [safepoint] */
WN_API wn_str *wn_str_slice(wn_mutator *m, const wn_str *s, size_t from, size_t to); /* [safepoint] */
WN_API wn_str *wn_str_concat(wn_mutator *m, const wn_str *a, const wn_str *b);       /* [safepoint] */
static inline size_t wn_str_length(const wn_str *s) { return s->size - 1; }
/* Valid until the next safepoint, where the string may move. */
static inline const char *wn_str_bytes(const wn_str *s) { return s->bytes; }

/* ---- tuple ------------------------------------------------------------------------------------------------------- */

/* A tuple whose items are still NULL: fill each once with wn_tuple_init before anybody else sees it. [safepoint] */
WN_API wn_tuple *wn_tuple_new(wn_mutator *m, size_t length);
/* WN_ERR_ARGUMENT when there is no such item or it was filled before. */
WN_API wn_status wn_tuple_init(wn_mutator *m, wn_tuple *t, size_t index, void *value);
WN_API wn_tuple *wn_tuple_pair(wn_mutator *m, void *first, void *second); /* [safepoint] */
static inline size_t wn_tuple_length(const wn_tuple *t) { return t->length; }
/* Borrowed; NULL when there is no such item. */
static inline void *wn_tuple_get(const wn_tuple *t, size_t index) { return index < t->length ? t->items[index] : NULL; }

/* ---- list -------------------------------------------------------------------------------------------------------- */

/* An empty list with room for `capacity` items. [safepoint] */
WN_API wn_list *wn_list_new(wn_mutator *m, size_t capacity);
static inline size_t wn_list_length(const wn_list *l) { return l->length; }
/* Borrowed; NULL when there is no such item. */
WN_API void *wn_list_get(const wn_list *l, size_t index);
/* The four: WN_ERR_ARGUMENT: no such item, or a NULL value; WN_ERR_MEMORY: nothing was changed. Each is a [safepoint].
 */
WN_API wn_status wn_list_set(wn_mutator *m, wn_list *l, size_t index, void *value);
WN_API wn_status wn_list_append(wn_mutator *m, wn_list *l, void *value);
WN_API wn_status wn_list_insert(wn_mutator *m, wn_list *l, size_t index, void *value); /* before item `index` */
WN_API wn_status wn_list_delete(wn_mutator *m, wn_list *l, size_t index);
/* Removes the last item and hands it over: a new reference, NULL when the list is empty. */
WN_API void *wn_list_pop(wn_mutator *m, wn_list *l);
WN_API void wn_list_clear(wn_mutator *m, wn_list *l); /* [safepoint] */

/* wn_list_push(m, list, value): appends a *new* reference, which the list takes over; the value is evaluated before the
 * list is read. WN_ERR_MEMORY also when the value is NULL, so that it can be made on the spot. [safepoint] */
#define wn_list_push(m, list, value)          \
    __extension__({                           \
        void *wn_pushed_ = (void *)(value);   \
        wn_list_take_(m, (list), wn_pushed_); \
    })
WN_API wn_status wn_list_take_(wn_mutator *m, wn_list *l, void *value);

/* ---- dict: insertion-ordered ------------------------------------------------------------------------------------- */

/* Keys are compared by wn_equal and hashed by wn_hash: numbers, strings and tuples by value, all else by identity. */

/* An empty dict with room for `capacity` keys. [safepoint] */
WN_API wn_dict *wn_dict_new(wn_mutator *m, size_t capacity);
static inline size_t wn_dict_length(const wn_dict *d) { return d->length; }
/* Borrowed; NULL when the key is absent. */
WN_API void *wn_dict_get(wn_mutator *m, const wn_dict *d, const void *key);
/* The same for a string key that is not an object: nothing is allocated. */
WN_API void *wn_dict_get_bytes(const wn_dict *d, const char *bytes, size_t length);
WN_API void *wn_dict_get_text(const wn_dict *d, const char *text);
/* WN_ERR_ARGUMENT: a NULL key or value; WN_ERR_MEMORY: nothing was changed. A key that is present stays where it is in
 * the order. [safepoint] */
WN_API wn_status wn_dict_set(wn_mutator *m, wn_dict *d, void *key, void *value);
/* Whether the key was there. [safepoint] */
WN_API bool wn_dict_delete(wn_mutator *m, wn_dict *d, const void *key);
WN_API void wn_dict_clear(wn_mutator *m, wn_dict *d); /* [safepoint] */
/* Goes through the dict in order of insertion: start with *position = 0; false at the end. Key and value (each may be
 * NULL) are borrowed. Between two calls keys may be deleted, and values replaced; after adding a key start anew. */
WN_API bool wn_dict_next(const wn_dict *d, size_t *position, void *key, void *value);

/* wn_dict_put(m, dict, text, value): sets the string key `text` to a *new* reference, which the dict takes over; the
 * value is evaluated before the dict is read. WN_ERR_MEMORY also when the value is NULL. [safepoint] */
#define wn_dict_put(m, dict, text, value)          \
    __extension__({                                \
        void *wn_put_ = (void *)(value);           \
        wn_dict_take_(m, (dict), (text), wn_put_); \
    })
WN_API wn_status wn_dict_take_(wn_mutator *m, wn_dict *d, const char *text, void *value);

/* ---- any object -------------------------------------------------------------------------------------------------- */

/* Numbers are equal by value (1 == 1.0 == true), strings by their bytes, tuples item by item (below 64 levels of
 * nesting by identity); everything else by identity. */
WN_API bool wn_equal(wn_mutator *m, const void *a, const void *b);
/* Equal objects have equal hashes. Not keyed: do not rely on it against hostile keys. */
WN_API uint64_t wn_hash(wn_mutator *m, const void *object);

/* Writes an object as Python's repr would: 'text', [1, 2.5, None], {'k': (1, 2)}; a container inside itself as [...].
 * WN_ERR_IO when writing fails. */
WN_API wn_status wn_repr(wn_mutator *m, const void *object, FILE *out);
/* The same as a string of the C heap, to be freed by the caller; NULL when memory is out. */
WN_API char *wn_repr_text(wn_mutator *m, const void *object);

WN_END
#endif
