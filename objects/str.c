/*
 * str.c - strings: bytes, their number and their hash in one object; those of one character are interned.
 *
 * Invariant: a string is complete when its maker returns and never written again.
 */
#include <string.h>

#include "internal.h"

/* The first bytes in quotes; cut at a character's boundary. */
static void str_describe(const void *object, char *buf, size_t n) {
    const wn_str *s = object;
    size_t length = wn_str_length(s), room = n > 6 ? n - 6 : 0; /* two quotes, an ellipsis of 3 bytes, the NUL */
    if (room > 24) room = 24;
    size_t shown = length < room ? length : room;
    while (shown < length && shown > 0 && ((unsigned char)s->bytes[shown] & 0xC0) == 0x80) shown--;
    snprintf(buf, n, "'%.*s'%s", (int)shown, s->bytes, shown < length ? "…" : "");
}

const wn_type wn_str_type = {.name = "str",
                             .size = sizeof(wn_str),
                             .flags = WN_TYPE_IMMUTABLE,
                             WN_DATA(wn_str, size, bytes),
                             .describe = str_describe};

/* With room for `length` bytes and the NUL, all still zero. */
static wn_str *str_blank(wn_mutator *m, size_t length) {
    if (length < SIZE_MAX) return wn_new_array(m, &wn_str_type, length + 1);
    wn_fail(WN_ERR_MEMORY, "a string of %zu bytes: it and its final NUL are more than can be addressed", length);
    return NULL;
}

wn_str *wn_str_make_(wn_mutator *m, const char *bytes, size_t length) {
    wn_str *s = str_blank(m, length);
    if (!s) return NULL;
    if (length) memcpy(s->bytes, bytes, length);
    s->hash = wn_hash_bytes_(s->bytes, length);
    return s;
}

wn_str *wn_str_new(wn_mutator *m, const char *bytes, size_t length) {
    wn_str *known = wn_interned_str_(m, bytes, length);
    return known ? known : wn_str_make_(m, bytes, length);
}

wn_str *wn_str_text(wn_mutator *m, const char *text) { return wn_str_new(m, text, strlen(text)); }

wn_str *wn_str_slice(wn_mutator *m, const wn_str *s, size_t from, size_t to) {
    if (to > wn_str_length(s)) to = wn_str_length(s);
    size_t length = from < to ? to - from : 0;
    if (!length) from = 0;
    if (length == wn_str_length(s)) return wn_keep(m, (wn_str *)s);
    wn_str *known = wn_interned_str_(m, s->bytes + from, length);
    if (known) return known;
    wn_borrow(m, const wn_str *, source, s);
    wn_str *part = str_blank(m, length);
    if (!part) return NULL;
    memcpy(part->bytes, source->bytes + from, length);
    part->hash = wn_hash_bytes_(part->bytes, length);
    return part;
}

wn_str *wn_str_concat(wn_mutator *m, const wn_str *a, const wn_str *b) {
    size_t a_length = wn_str_length(a), b_length = wn_str_length(b);
    if (!a_length) return wn_keep(m, (wn_str *)b);
    if (!b_length) return wn_keep(m, (wn_str *)a);
    wn_borrow(m, const wn_str *, left, a);
    wn_borrow(m, const wn_str *, right, b);
    wn_str *both = str_blank(m, a_length + b_length);
    if (!both) return NULL;
    memcpy(both->bytes, left->bytes, a_length);
    memcpy(both->bytes + a_length, right->bytes, b_length);
    both->hash = wn_hash_bytes_(both->bytes, a_length + b_length);
    return both;
}
