/*
 * dict.c - an insertion-ordered hash table: entries (hash, key, value) in one array in order of insertion, and an index
 * of open addressing that says which entry a hash leads to.
 *
 * The index has one, two or four bytes per slot, as the number of entries needs, and holds no references, so that no
 * collector looks at it; up to 8 entries there is none, and hashes are compared one after the other. A deleted entry
 * keeps its place in both, without key and value, and serves as the tombstone of its probe sequence; when the entries
 * are full, everything is copied to new arrays of the size that the living ones need: larger, equal or smaller.
 *
 * Invariants: entries from `filled` on have neither key nor value; a living entry's key and value are both set; index
 * slots hold entry numbers plus 1, 0 is empty, and at least one slot in four is empty; the dict is consistent at every
 * safepoint. Looking up is no safepoint: wn_equal and wn_hash run no code of the client's.
 */
#include <string.h>

#include "internal.h"

typedef struct dict_entry {
    uint64_t hash;
    wn_object *key, *value;
} dict_entry;
typedef struct wn_dict_entries_ {
    wn_object head;
    size_t capacity;
    dict_entry items[];
} dict_entries;
typedef struct wn_dict_index_ {
    wn_object head;
    size_t bytes;
    unsigned char slots[] __attribute__((aligned(8)));
} dict_index;

static const wn_type dict_entries_type = {
    .name = "dict entries", .size = sizeof(dict_entries), WN_RECORDS(dict_entries, capacity, items, 1 << 1 | 1 << 2)};
static const wn_type dict_index_type = {
    .name = "dict index", .size = sizeof(dict_index), WN_DATA(dict_index, bytes, slots)};

static void dict_describe(const void *object, char *buf, size_t n) {
    const wn_dict *d = object;
    snprintf(buf, n, "%zu key%s", d->length, d->length == 1 ? "" : "s");
}
const wn_type wn_dict_type = {
    .name = "dict", .size = sizeof(wn_dict), WN_REFS(wn_dict, index, entries), .describe = dict_describe};

enum { UNINDEXED_MAX = 8 };
static const size_t ABSENT = SIZE_MAX;

/* ---- the index --------------------------------------------------------------------------------------------------- */

/* Slots for that many entries: a power of two, at most three quarters of it used. */
static size_t slots_for(size_t capacity) {
    size_t slots = 16;
    while (slots / 4 * 3 < capacity) slots *= 2;
    return slots;
}
static size_t slot_width(size_t slots) { return slots <= 256 ? 1 : slots <= 65536 ? 2 : 4; }

/* The number of slots, from the bytes. The three widths' ranges of bytes do not overlap: up to 256 slots of one byte,
 * from 512 of two (1 KiB to 128 KiB), from 131,072 of four (512 KiB and more). */
static size_t slots_in(const dict_index *x) {
    return x->bytes <= 256 ? x->bytes : x->bytes <= 131072 ? x->bytes / 2 : x->bytes / 4;
}

static size_t slot_get(const dict_index *x, size_t width, size_t i) {
    if (width == 1) return x->slots[i];
    if (width == 2) return ((const uint16_t *)(const void *)x->slots)[i];
    return ((const uint32_t *)(const void *)x->slots)[i];
}
static void slot_put(dict_index *x, size_t width, size_t i, size_t value) {
    if (width == 1)
        x->slots[i] = (unsigned char)value;
    else if (width == 2)
        ((uint16_t *)(void *)x->slots)[i] = (uint16_t)value;
    else
        ((uint32_t *)(void *)x->slots)[i] = (uint32_t)value;
}

static void index_add(dict_index *x, uint64_t hash, size_t entry) {
    size_t slots = slots_in(x), width = slot_width(slots), i = hash & (slots - 1);
    while (slot_get(x, width, i)) i = (i + 1) & (slots - 1);
    slot_put(x, width, i, entry + 1);
}

/* ---- looking up -------------------------------------------------------------------------------------------------- */

/* What is looked for: an object, or a string that is none. */
typedef struct wanted {
    wn_mutator *m;
    uint64_t hash;
    const wn_object *key; /* NULL: the bytes */
    const char *bytes;
    size_t length;
} wanted;

static bool matches(const dict_entry *e, const wanted *w) {
    if (e->hash != w->hash || !e->key) return false;
    if (w->key) return e->key == w->key || wn_equal(w->m, e->key, w->key);
    const wn_str *s = (const wn_str *)e->key;
    return e->key->type == &wn_str_type && wn_str_length(s) == w->length && memcmp(s->bytes, w->bytes, w->length) == 0;
}

static size_t find(const wn_dict *d, const wanted *w) {
    if (!d->length) return ABSENT;
    const dict_entry *items = d->entries->items;
    if (!d->index) {
        for (size_t e = d->first; e < d->filled; e++)
            if (matches(&items[e], w)) return e;
        return ABSENT;
    }
    size_t slots = slots_in(d->index), width = slot_width(slots), e;
    for (size_t i = w->hash & (slots - 1); (e = slot_get(d->index, width, i)) != 0; i = (i + 1) & (slots - 1))
        if (matches(&items[e - 1], w)) return e - 1;
    return ABSENT;
}

static wanted want(wn_mutator *m, const void *key) { return (wanted){m, wn_hash(m, key), key, NULL, 0}; }

void *wn_dict_get(wn_mutator *m, const wn_dict *d, const void *key) {
    if (!key || !d->length) return NULL;
    wanted w = want(m, key);
    size_t e = find(d, &w);
    return e == ABSENT ? NULL : d->entries->items[e].value;
}

void *wn_dict_get_bytes(const wn_dict *d, const char *bytes, size_t length) {
    if (!d->length) return NULL;
    wanted w = {NULL, wn_hash_bytes_(bytes, length), NULL, bytes, length};
    size_t e = find(d, &w);
    return e == ABSENT ? NULL : d->entries->items[e].value;
}

void *wn_dict_get_text(const wn_dict *d, const char *text) { return wn_dict_get_bytes(d, text, strlen(text)); }

bool wn_dict_next(const wn_dict *d, size_t *position, void *key, void *value) {
    size_t e = *position < d->first ? d->first : *position;
    while (e < d->filled && !d->entries->items[e].key) e++;
    if (e >= d->filled) {
        *position = e;
        return false;
    }
    /* memcpy: the caller's variables are pointers of types of the caller's choice */
    if (key) memcpy(key, &d->entries->items[e].key, sizeof(void *));
    if (value) memcpy(value, &d->entries->items[e].value, sizeof(void *));
    *position = e + 1;
    return true;
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

/* Gives the dict other arrays (borrowed). The old ones are held until both are exchanged: letting go of an array may
 * run finalizers, even of objects that have nothing to do with it. */
static void put_arrays(wn_mutator *m, wn_dict *dict, dict_index *new_index, dict_entries *new_entries) {
    wn_borrow(m, wn_dict *, d, dict);
    wn_hold(m, dict_index *, old_index, d->index);
    wn_hold(m, dict_entries *, old_entries, d->entries);
    wn_set(m, d, index, new_index);
    wn_set(m, d, entries, new_entries);
}

/* Copies the living entries to new arrays with room for `capacity` of them. */
static wn_status resize(wn_mutator *m, wn_dict *dict, size_t capacity) {
    wn_borrow(m, wn_dict *, d, dict);
    if (capacity < d->length) capacity = d->length;
    if (capacity > UINT32_MAX / 2)
        return wn_fail(WN_ERR_MEMORY, "a dict of %zu entries: it has room for %u at most", capacity, UINT32_MAX / 2);
    wn_root(m, dict_entries *, entries, wn_new_array(m, &dict_entries_type, capacity));
    if (!entries) return WN_ERR_MEMORY;
    wn_root(m, dict_index *, index, NULL);
    if (capacity > UNINDEXED_MAX) {
        size_t slots = slots_for(capacity);
        wn_take(m, index, wn_new_array(m, &dict_index_type, slots * slot_width(slots)));
        if (!index) return WN_ERR_MEMORY;
    }
    /* Both were safepoints: finalizers may have changed the dict. If there are more keys now than fit, nothing is done,
     * and the caller sees that there is still no room. */
    if (d->length > capacity) return WN_OK;
    size_t n = 0;
    for (size_t e = d->first; e < d->filled; e++) {
        const dict_entry *old = &d->entries->items[e];
        if (!old->key) continue;
        entries->items[n].hash = old->hash;
        wn_set(m, entries, items[n].key, old->key); /* over NULL: no safepoint, `old` stays valid */
        wn_set(m, entries, items[n].value, old->value);
        if (index) index_add(index, old->hash, n);
        n++;
    }
    d->filled = n;
    d->first = 0;
    put_arrays(m, d, index, entries);
    return WN_OK;
}

static bool full(const wn_dict *d) { return d->filled == (d->entries ? d->entries->capacity : 0); }

wn_dict *wn_dict_new(wn_mutator *m, size_t capacity) {
    wn_root(m, wn_dict *, d, wn_new(m, &wn_dict_type));
    if (!d || (capacity && resize(m, d, capacity))) return NULL;
    return wn_give(m, d);
}

/* Adds a key that is absent. There is room. No safepoint. */
static void add(wn_mutator *m, wn_dict *d, uint64_t hash, void *key, void *value) {
    size_t e = d->filled;
    d->entries->items[e].hash = hash;
    wn_set(m, d->entries, items[e].value, (wn_object *)value);
    wn_set(m, d->entries, items[e].key, (wn_object *)key);
    if (d->index) index_add(d->index, hash, e);
    if (!d->length) d->first = e;
    d->filled++;
    d->length++;
}

static wn_status add_growing(wn_mutator *m, wn_dict *dict, uint64_t hash, void *key, void *value) {
    wn_borrow(m, wn_dict *, d, dict);
    wn_borrow(m, wn_object *, k, key);
    wn_borrow(m, wn_object *, v, value);
    do {
        size_t wish = d->length < 4 ? 4 : d->length < 8 ? 8 : d->length * 2;
        wn_status status = resize(m, d, wish);
        if (status) return status;
    } while (full(d));
    /* A finalizer that ran meanwhile may have added this very key. */
    wanted w = {m, hash, k, NULL, 0};
    size_t e = find(d, &w);
    if (e == ABSENT)
        add(m, d, hash, k, v);
    else
        wn_set(m, d->entries, items[e].value, v);
    return WN_OK;
}

wn_status wn_dict_set(wn_mutator *m, wn_dict *d, void *key, void *value) {
    if (!key || !value) return wn_no_value_();
    wanted w = want(m, key);
    size_t e = find(d, &w);
    if (e != ABSENT) {
        wn_set(m, d->entries, items[e].value, (wn_object *)value);
        return WN_OK;
    }
    if (full(d)) return add_growing(m, d, w.hash, key, value);
    add(m, d, w.hash, key, value);
    return WN_OK;
}

wn_status wn_dict_take_(wn_mutator *m, wn_dict *dict, const char *text, void *value) {
    if (!value) return WN_ERR_MEMORY; /* making it failed */
    wn_borrow(m, wn_dict *, d, dict);
    wn_root(m, wn_object *, v, value);
    wn_root(m, wn_str *, key, wn_str_text(m, text));
    return key ? wn_dict_set(m, d, key, v) : WN_ERR_MEMORY;
}

bool wn_dict_delete(wn_mutator *m, wn_dict *dict, const void *key) {
    if (!key || !dict->length) return false;
    wanted w = want(m, key);
    size_t e = find(dict, &w);
    if (e == ABSENT) return false;
    wn_borrow(m, wn_dict *, d, dict);
    wn_hold(m, wn_object *, k, d->entries->items[e].key);
    wn_hold(m, wn_object *, v, d->entries->items[e].value);
    wn_set(m, d->entries, items[e].key, (wn_object *)NULL);
    wn_set(m, d->entries, items[e].value, (wn_object *)NULL);
    d->length--;
    if (!d->length) { /* start anew; and if it was large, give the arrays back */
        d->first = d->filled = 0;
        if (d->index) put_arrays(m, d, NULL, NULL);
    } else if (e == d->first) {
        while (!d->entries->items[d->first].key) d->first++;
    }
    return true; /* and the key and the value are let go of */
}

void wn_dict_clear(wn_mutator *m, wn_dict *dict) {
    dict->length = dict->filled = dict->first = 0;
    put_arrays(m, dict, NULL, NULL);
}
