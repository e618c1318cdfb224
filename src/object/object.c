/* object.c - checking a client's type tables, and the way back from a trace function. */
#include "object/object.h"

#include "winnow/weak.h" /* only to know the library's own types */

void wn_visit(wn_tracer *tracer, void *slot) { tracer->visit((void **)slot, tracer->context); }

bool wn_is_ref_at(const void *object, size_t offset) {
    const wn_type *t = wn_type_of(object);
    if (t->trace) return true;
    uint64_t map = t->refs;
    if (offset >= t->size) {
        map = t->item_refs;
        offset = (offset - t->size) % t->item_size;
    }
    return offset % sizeof(void *) == 0 && offset < 64 * sizeof(void *) && map >> offset / sizeof(void *) & 1;
}

wn_status wn_type_check(const wn_type *t, bool array) {
    const char *name = t->name ? t->name : "(unnamed)";
    if (t->size < sizeof(wn_object) || t->size > 1u << 20)
        return wn_fail(WN_ERR_ARGUMENT,
                       "type %s: size %u is not between %zu (the type word) and 1 MiB: set it by WN_TYPE(struct), and "
                       "make wn_object the struct's first member",
                       name, t->size, sizeof(wn_object));
    if (t->flags & ~(uint32_t)(WN_TYPE_KNOWN_FLAGS | WN_TYPE_WEAKREF | WN_TYPE_EPHEMERON))
        return wn_fail(WN_ERR_ARGUMENT, "type %s: unknown flags 0x%x: use WN_TYPE_... only", name, t->flags);
    if ((t->flags & (WN_TYPE_WEAKREF | WN_TYPE_EPHEMERON)) && t != &wn_weakref_type && t != &wn_ephemeron_type)
        return wn_fail(
            WN_ERR_ARGUMENT,
            "type %s: the flags WN_TYPE_WEAKREF and WN_TYPE_EPHEMERON are the library's own: make weak references by "
            "wn_weakref_new, ephemerons by wn_ephemeron_new",
            name);
    unsigned words = t->size / sizeof(void *);
    if ((t->refs & 1) || (words < 64 && (t->refs >> words)))
        return wn_fail(WN_ERR_ARGUMENT,
                       "type %s: the reference bits 0x%llx name the type word or lie outside its %u bytes: set them by "
                       "WN_REFS(struct, fields)",
                       name, (unsigned long long)t->refs, t->size);
    if (array != (t->item_size != 0))
        return wn_fail(WN_ERR_ARGUMENT,
                       array ? "type %s has no items: make its objects by wn_new"
                             : "type %s has items: make its objects by wn_new_array",
                       name);
    if (array) {
        if (t->length_at < sizeof(wn_object) || t->length_at + sizeof(size_t) > t->size ||
            t->length_at % sizeof(size_t))
            return wn_fail(WN_ERR_ARGUMENT,
                           "type %s: its length at offset %u is not a size_t behind the type word and inside the fixed "
                           "part: use WN_ITEMS, WN_DATA or WN_RECORDS",
                           name, t->length_at);
        if (t->length_at < 512 && (t->refs >> (t->length_at / sizeof(void *)) & 1))
            return wn_fail(WN_ERR_ARGUMENT,
                           "type %s: the word of its length, at offset %u, is also a reference: take it out of WN_REFS",
                           name, t->length_at);
        unsigned item_words = t->item_size / (unsigned)sizeof(void *);
        if (t->item_refs && (t->item_size % sizeof(void *) || t->size % sizeof(void *) ||
                             (item_words < 64 && (t->item_refs >> item_words))))
            return wn_fail(WN_ERR_ARGUMENT,
                           "type %s: its item references 0x%llx do not lie in whole words of an item of %u bytes", name,
                           (unsigned long long)t->item_refs, t->item_size);
    }
    return WN_OK;
}
