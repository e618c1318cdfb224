/*
 * list.c - a growable array: a fixed object that refers to an array of references.
 *
 * Invariants: slots from `length` on are NULL; the list is consistent at every safepoint. A store can run finalizers,
 * and they may change this very list; so whatever an operation removes is held until the list is whole again, and is
 * let go of at the end of the scope.
 *
 * Storing over NULL drops nothing and so is no safepoint: the fast paths use that, and declare nothing.
 */
#include "internal.h"

typedef struct wn_list_items_ {
    wn_object head;
    size_t capacity;
    wn_object *slots[];
} list_items;
static const wn_type list_items_type = {
    .name = "list items", .size = sizeof(list_items), WN_ITEMS(list_items, capacity, slots)};

static void list_describe(const void *object, char *buf, size_t n) {
    const wn_list *l = object;
    snprintf(buf, n, "%zu item%s", l->length, l->length == 1 ? "" : "s");
}
const wn_type wn_list_type = {
    .name = "list", .size = sizeof(wn_list), WN_REFS(wn_list, items), .describe = list_describe};

wn_status wn_no_item_(size_t index, size_t length) {
    return wn_fail(WN_ERR_ARGUMENT, "there is no item %zu: the number of items is %zu, and the first is item 0", index,
                   length);
}
wn_status wn_no_value_(void) {
    return wn_fail(WN_ERR_ARGUMENT,
                   "NULL cannot be stored in a container: store wn_none(m), or look why it could not be made");
}

static size_t capacity_of(const wn_list *l) { return l->items ? l->items->capacity : 0; }

/* Makes room for `capacity` items. */
static wn_status grow(wn_mutator *m, wn_list *l, size_t capacity) {
    wn_borrow(m, wn_list *, list, l);
    wn_root(m, list_items *, bigger, wn_new_array(m, &list_items_type, capacity));
    if (!bigger) return WN_ERR_MEMORY;
    /* Making it was a safepoint, where a finalizer may have appended: too little room is noticed by the caller. */
    size_t n = list->length < capacity ? list->length : capacity;
    if (n < list->length) return WN_OK;
    if (n) wn_copy(m, bigger, bigger->slots, list->items->slots, n);
    wn_set(m, list, items, bigger); /* the old items are all in `bigger` too: only the array dies */
    return WN_OK;
}

wn_list *wn_list_new(wn_mutator *m, size_t capacity) {
    wn_root(m, wn_list *, l, wn_new(m, &wn_list_type));
    if (!l || (capacity && grow(m, l, capacity))) return NULL;
    return wn_give(m, l);
}

void *wn_list_get(const wn_list *l, size_t index) { return index < l->length ? l->items->slots[index] : NULL; }

wn_status wn_list_set(wn_mutator *m, wn_list *l, size_t index, void *value) {
    if (index >= l->length) return wn_no_item_(index, l->length);
    if (!value) return wn_no_value_();
    wn_set(m, l->items, slots[index], (wn_object *)value);
    return WN_OK;
}

static wn_status append_growing(wn_mutator *m, wn_list *l, void *value) {
    wn_borrow(m, wn_list *, list, l);
    wn_borrow(m, wn_object *, v, value);
    do {
        wn_status status = grow(m, list, list->length + list->length / 2 + 4);
        if (status) return status;
    } while (list->length == capacity_of(list));
    wn_set(m, list->items, slots[list->length], v);
    list->length++;
    return WN_OK;
}

wn_status wn_list_append(wn_mutator *m, wn_list *l, void *value) {
    if (!value) return wn_no_value_();
    if (l->length == capacity_of(l)) return append_growing(m, l, value);
    wn_set(m, l->items, slots[l->length], (wn_object *)value);
    l->length++;
    return WN_OK;
}

wn_status wn_list_take_(wn_mutator *m, wn_list *l, void *value) {
    if (!value) return WN_ERR_MEMORY; /* making it failed */
    if (l->length == capacity_of(l)) {
        wn_root(m, wn_object *, v, value);
        return append_growing(m, l, v);
    }
    wn_move(m, l->items, slots[l->length], (wn_object *)value);
    l->length++;
    return WN_OK;
}

wn_status wn_list_insert(wn_mutator *m, wn_list *l, size_t index, void *value) {
    if (index > l->length) return wn_no_item_(index, l->length);
    if (!value) return wn_no_value_();
    wn_borrow(m, wn_list *, list, l);
    wn_borrow(m, wn_object *, v, value);
    wn_status status = wn_list_append(m, list, v); /* makes the room; the item itself is moved down below */
    if (status) return status;
    size_t after = list->length - 1;
    if (index < after) {
        wn_copy(m, list->items, &list->items->slots[index + 1], &list->items->slots[index], after - index);
        wn_set(m, list->items, slots[index], v); /* its old value is one slot further now */
    }
    return WN_OK;
}

/* Takes item `index` out and closes the gap. The result is a new reference. */
static void *take_out(wn_mutator *m, wn_list *l, size_t index) {
    wn_borrow(m, wn_list *, list, l);
    wn_hold(m, wn_object *, removed, list->items->slots[index]);
    size_t last = list->length - 1;
    if (index < last) wn_copy(m, list->items, &list->items->slots[index], &list->items->slots[index + 1], last - index);
    list->length = last;
    wn_set(m, list->items, slots[last], (wn_object *)NULL); /* `removed`, or what is one slot before now: stays alive */
    return wn_give(m, removed);
}

wn_status wn_list_delete(wn_mutator *m, wn_list *l, size_t index) {
    if (index >= l->length) return wn_no_item_(index, l->length);
    wn_release(m, take_out(m, l, index));
    return WN_OK;
}

void *wn_list_pop(wn_mutator *m, wn_list *l) { return l->length ? take_out(m, l, l->length - 1) : NULL; }

void wn_list_clear(wn_mutator *m, wn_list *l) {
    wn_borrow(m, wn_list *, list, l);
    list->length = 0;
    wn_set(m, list, items, (list_items *)NULL);
}
