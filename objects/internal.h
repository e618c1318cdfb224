/* internal.h - what the sources of objects/ share. They use the public API alone: winnow.h, and each other. */
#ifndef WINNOW_OBJECTS_INTERNAL_H
#define WINNOW_OBJECTS_INTERNAL_H

#include <winnow.h>
#include <winnow/objects.h>

/* Shared immortal values; NULL when the heap has no wn_objects. Borrowed, and as good as new: immortals are not
 * counted, so handing one out needs no count. */
enum {
    INTERNED_INT_MIN = -5,
    INTERNED_INT_MAX = 256,
    INTERNED_INTS = INTERNED_INT_MAX - INTERNED_INT_MIN + 1,
    INTERNED_CHARACTERS = 256
};
wn_int *wn_interned_int_(wn_mutator *m, int64_t value); /* NULL also when out of range */
wn_str *wn_interned_str_(wn_mutator *m, const char *bytes,
                         size_t length); /* NULL also when longer than one character */

/* The hash of a string's bytes, and of a number. */
uint64_t wn_hash_bytes_(const char *bytes, size_t length);
uint64_t wn_hash_word_(uint64_t word);

/* What calls with wrong arguments return; the error text is set. */
wn_status wn_no_item_(size_t index, size_t length);
wn_status wn_no_value_(void);

/* Never interned: for the table of interned values itself. New references. */
wn_int *wn_int_make_(wn_mutator *m, int64_t value);
wn_str *wn_str_make_(wn_mutator *m, const char *bytes, size_t length);

#endif
