/*
 * shared.c - the values each heap has once: none, true, false, the small ints, the strings of one character.
 *
 * They live in one table object per heap, held by a global root, so that a collector may move them. A heap's table is
 * found through a list of contexts that only grows: a context that is freed stays in the list for the next heap, so
 * that threads can search it without a lock. Each thread remembers the context it found last.
 *
 * Invariant: a context's `heap` is set exactly while its table is that heap's.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "internal.h"

typedef struct shared_table {
    wn_object head;
    wn_objects *context;
    size_t length;
    wn_object *items[];
} shared_table;
static void shared_table_release(void *object);
static const wn_type shared_table_type =
    WN_TYPE(shared_table, WN_ITEMS(shared_table, length, items), .release = shared_table_release);

enum {
    AT_NONE,
    AT_FALSE,
    AT_TRUE,
    AT_EMPTY_STR,
    AT_INTS,
    AT_CHARACTERS = AT_INTS + INTERNED_INTS,
    AT_END = AT_CHARACTERS + INTERNED_CHARACTERS
};

struct wn_objects {
    _Atomic(wn_heap *) heap;
    shared_table *table; /* a global root */
    wn_objects *next;
};

static _Atomic(wn_objects *) all_contexts;
static _Thread_local wn_objects *last_used;

/* A heap that is freed with its table takes it off its context, so that a new heap at the same address starts afresh.
 */
static void shared_table_release(void *object) {
    wn_objects *o = ((shared_table *)object)->context;
    if (!o || (void *)o->table != object) return;
    o->table = NULL;
    atomic_store_explicit(&o->heap, NULL, memory_order_release);
}

const wn_type wn_none_type = {.name = "none", .size = sizeof(wn_none_object)};
static void bool_describe(const void *object, char *buf, size_t n) {
    snprintf(buf, n, "%s", ((const wn_bool_object *)object)->value ? "true" : "false");
}
const wn_type wn_bool_type = {.name = "bool", .size = sizeof(wn_bool_object), .describe = bool_describe};

static wn_objects *find(wn_heap *heap) {
    wn_objects *o = last_used;
    if (o && atomic_load_explicit(&o->heap, memory_order_acquire) == heap) return o;
    for (o = atomic_load_explicit(&all_contexts, memory_order_acquire); o; o = o->next)
        if (atomic_load_explicit(&o->heap, memory_order_acquire) == heap) return last_used = o;
    return NULL;
}

/* A context for the heap: one that a freed heap left, or a new one. */
static wn_objects *claim(wn_heap *heap) {
    wn_objects *o;
    for (o = atomic_load_explicit(&all_contexts, memory_order_acquire); o; o = o->next) {
        wn_heap *nobody = NULL;
        if (atomic_compare_exchange_strong(&o->heap, &nobody, heap)) return o;
    }
    o = calloc(1, sizeof *o);
    if (!o) return NULL;
    atomic_init(&o->heap, heap);
    o->next = atomic_load(&all_contexts);
    while (!atomic_compare_exchange_weak(&all_contexts, &o->next, o)) {
    }
    return o;
}

static void *make(wn_mutator *m, size_t at) {
    if (at == AT_NONE) return wn_new(m, &wn_none_type);
    if (at == AT_FALSE || at == AT_TRUE) {
        wn_bool_object *b = wn_new(m, &wn_bool_type);
        if (b) b->value = at == AT_TRUE;
        return b;
    }
    if (at == AT_EMPTY_STR) return wn_str_make_(m, "", 0);
    if (at < AT_CHARACTERS) return wn_int_make_(m, (int64_t)(at - AT_INTS) + INTERNED_INT_MIN);
    unsigned c = (unsigned)(at - AT_CHARACTERS);
    char utf8[2] = {(char)(c < 0x80 ? c : 0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))};
    return wn_str_make_(m, utf8, c < 0x80 ? 1 : 2);
}

wn_status wn_objects_new(wn_mutator *m, wn_objects **objects) {
    wn_heap *heap = wn_heap_of(m);
    if (objects) *objects = NULL;
    if (find(heap))
        return wn_fail(WN_ERR_STATE,
                       "this heap has its shared objects already: one wn_objects_new, by whoever made it");
    wn_objects *o = claim(heap);
    if (!o) return wn_fail(WN_ERR_MEMORY, "no memory for the context of a heap's shared objects");
    if (wn_global(heap, &o->table)) {
        atomic_store(&o->heap, NULL);
        return WN_ERR_MEMORY;
    }
    wn_take(m, o->table, wn_new_array(m, &shared_table_type, AT_END));
    if (o->table) o->table->context = o;
    for (size_t at = 0; o->table && at < AT_END; at++) {
        void *value = make(m, at);
        if (!value) {
            wn_objects_free(m, o);
            return WN_ERR_MEMORY;
        }
        wn_move(m, o->table, items[at], value);
        wn_make_immortal(m, o->table->items[at]);
    }
    if (!o->table) {
        wn_objects_free(m, o);
        return WN_ERR_MEMORY;
    }
    if (objects) *objects = o;
    return WN_OK;
}

void wn_objects_free(wn_mutator *m, wn_objects *o) {
    if (!o) return;
    wn_forget_global(m, &o->table);
    atomic_store_explicit(&o->heap, NULL, memory_order_release);
}

/* The table is not there yet, or only partly, while wn_objects_new is filling it. */
static void *shared(wn_mutator *m, size_t at) {
    wn_objects *o = find(wn_heap_of(m));
    return o && o->table ? o->table->items[at] : NULL;
}

void *wn_none(wn_mutator *m) { return shared(m, AT_NONE); }
void *wn_bool(wn_mutator *m, bool value) { return shared(m, value ? AT_TRUE : AT_FALSE); }

wn_int *wn_interned_int_(wn_mutator *m, int64_t value) {
    if (value < INTERNED_INT_MIN || value > INTERNED_INT_MAX) return NULL;
    return shared(m, (size_t)(AT_INTS + value - INTERNED_INT_MIN));
}

wn_str *wn_interned_str_(wn_mutator *m, const char *bytes, size_t length) {
    const unsigned char *b = (const unsigned char *)bytes;
    if (length == 0) return shared(m, AT_EMPTY_STR);
    if (length == 1 && b[0] < 0x80) return shared(m, AT_CHARACTERS + (size_t)b[0]);
    if (length == 2 && (b[0] == 0xC2 || b[0] == 0xC3) && (b[1] & 0xC0) == 0x80)
        return shared(m, AT_CHARACTERS + (size_t)((b[0] & 3) << 6 | (b[1] & 0x3F)));
    return NULL;
}
