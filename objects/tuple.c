/* tuple.c - a fixed number of references in one object, each written once. */
#include "internal.h"

static void tuple_describe(const void *object, char *buf, size_t n) {
    const wn_tuple *t = object;
    snprintf(buf, n, "%zu item%s", t->length, t->length == 1 ? "" : "s");
}

const wn_type wn_tuple_type = {.name = "tuple",
                               .size = sizeof(wn_tuple),
                               .flags = WN_TYPE_IMMUTABLE,
                               WN_ITEMS(wn_tuple, length, items),
                               .describe = tuple_describe};

wn_tuple *wn_tuple_new(wn_mutator *m, size_t length) { return wn_new_array(m, &wn_tuple_type, length); }

wn_status wn_tuple_init(wn_mutator *m, wn_tuple *t, size_t index, void *value) {
    if (index >= t->length) return wn_no_item_(index, t->length);
    if (!value) return wn_no_value_();
    if (t->items[index])
        return wn_fail(WN_ERR_ARGUMENT,
                       "item %zu of this tuple was filled before: each is written once, as others may "
                       "rely on it",
                       index);
    wn_set(m, t, items[index], (wn_object *)value);
    return WN_OK;
}

wn_tuple *wn_tuple_pair(wn_mutator *m, void *first, void *second) {
    wn_borrow(m, wn_object *, a, first);
    wn_borrow(m, wn_object *, b, second);
    wn_tuple *t = wn_tuple_new(m, 2);
    if (!t) return NULL;
    wn_set(m, t, items[0], a); /* over NULL: nothing can die, so `t` needs no root */
    wn_set(m, t, items[1], b);
    return t;
}
