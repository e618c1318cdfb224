/*
 * value.c - what "the same value" means: equality and hashing for every kind, neither of them a safepoint.
 *
 * Invariant: objects that are equal hash alike; in particular an int, a float and a bool of the same value.
 */
#include <string.h>

#include "internal.h"

enum { DEPTH_MAX = 64 }; /* tuples nested deeper count by identity, so that no nesting overflows the C stack */

wn_kind wn_kind_of(const void *object) {
    const wn_type *t = ((const wn_object *)object)->type;
    return t == &wn_str_type         ? WN_KIND_STR
           : t == &wn_int_type       ? WN_KIND_INT
           : t == &wn_dict_type      ? WN_KIND_DICT
           : t == &wn_list_type      ? WN_KIND_LIST
           : t == &wn_float_type     ? WN_KIND_FLOAT
           : t == &wn_tuple_type     ? WN_KIND_TUPLE
           : t == &wn_bool_type      ? WN_KIND_BOOL
           : t == &wn_none_type      ? WN_KIND_NONE
           : t == &wn_weakref_type   ? WN_KIND_WEAKREF
           : t == &wn_ephemeron_type ? WN_KIND_EPHEMERON
                                     : WN_KIND_OTHER;
}

/* ---- hashing ----------------------------------------------------------------------------------------------------- */

/* Both halves of the 128-bit product in one word: every bit of the result depends on every bit of both factors. */
static uint64_t fold(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}
/* Odd numbers with bits all over: the fractions of the square roots of 2, 3 and 5. */
static const uint64_t K2 = 0x6a09e667f3bcc909, K3 = 0xbb67ae8584caa73b, K5 = 0x3c6ef372fe94f82b;

uint64_t wn_hash_word_(uint64_t word) { return fold(word ^ K2, K3); }

uint64_t wn_hash_bytes_(const char *bytes, size_t length) {
    uint64_t h = K5 ^ length, word;
    for (; length >= sizeof word; length -= sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        h = fold(h ^ word, K3);
    }
    word = 0;
    memcpy(&word, bytes, length);
    return fold(h ^ word ^ K2, K3);
}

/* A float with an integer value within the ints' range. */
static bool is_integral(double d) {
    return d >= -9223372036854775808.0 && d < 9223372036854775808.0 && (double)(int64_t)d == d;
}

static uint64_t hash_double(double d) {
    if (is_integral(d)) return wn_hash_word_((uint64_t)(int64_t)d);
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return wn_hash_word_(bits ^ K5);
}

static uint64_t hash_at(wn_mutator *m, const void *object, int depth) {
    switch (wn_kind_of(object)) {
    case WN_KIND_STR: return ((const wn_str *)object)->hash;
    case WN_KIND_INT: return wn_hash_word_((uint64_t)((const wn_int *)object)->value);
    case WN_KIND_BOOL: return wn_hash_word_(((const wn_bool_object *)object)->value);
    case WN_KIND_FLOAT: return hash_double(((const wn_float *)object)->value);
    case WN_KIND_TUPLE: {
        const wn_tuple *t = object;
        uint64_t h = K2 ^ t->length;
        for (size_t i = 0; i < t->length && depth < DEPTH_MAX; i++)
            h = fold(h ^ (t->items[i] ? hash_at(m, t->items[i], depth + 1) : K5), K3);
        return h;
    }
    default: return wn_hash_word_(wn_identity(m, (void *)object));
    }
}

uint64_t wn_hash(wn_mutator *m, const void *object) { return hash_at(m, object, 0); }

/* ---- equality ---------------------------------------------------------------------------------------------------- */

typedef struct number {
    bool is_number, is_float;
    int64_t integer;
    double real;
} number;

static number number_of(const void *object) {
    switch (wn_kind_of(object)) {
    case WN_KIND_INT: return (number){true, false, ((const wn_int *)object)->value, 0};
    case WN_KIND_BOOL: return (number){true, false, (int64_t)((const wn_bool_object *)object)->value, 0};
    case WN_KIND_FLOAT: return (number){true, true, 0, ((const wn_float *)object)->value};
    default: return (number){false, false, 0, 0};
    }
}

/* Exact: an int is not rounded to a float first, or 2**53 + 1 would equal 2.0**53. */
static bool numbers_equal(number a, number b) {
    if (a.is_float && b.is_float) return a.real == b.real;
    if (a.is_float) return is_integral(a.real) && (int64_t)a.real == b.integer;
    if (b.is_float) return is_integral(b.real) && (int64_t)b.real == a.integer;
    return a.integer == b.integer;
}

static bool equal_at(const void *a, const void *b, int depth) {
    if (a == b) return true;
    if (!a || !b) return false;
    const wn_type *type = ((const wn_object *)a)->type;
    if (type != ((const wn_object *)b)->type || type == &wn_int_type || type == &wn_float_type) {
        number x = number_of(a), y = number_of(b);
        return x.is_number && y.is_number && numbers_equal(x, y);
    }
    if (type == &wn_str_type) {
        const wn_str *s = a, *t = b;
        return s->size == t->size && s->hash == t->hash && memcmp(s->bytes, t->bytes, s->size) == 0;
    }
    if (type == &wn_tuple_type && depth < DEPTH_MAX) {
        const wn_tuple *s = a, *t = b;
        if (s->length != t->length) return false;
        for (size_t i = 0; i < s->length; i++)
            if (!equal_at(s->items[i], t->items[i], depth + 1)) return false;
        return true;
    }
    return false;
}

bool wn_equal(wn_mutator *m, const void *a, const void *b) {
    (void)m;
    return equal_at(a, b, 0);
}
