/* number.c - int (64 bits, -5 to 256 interned) and float. */
#include <inttypes.h>

#include "internal.h"

static void int_describe(const void *object, char *buf, size_t n) {
    snprintf(buf, n, "%" PRId64, ((const wn_int *)object)->value);
}
static void float_describe(const void *object, char *buf, size_t n) {
    snprintf(buf, n, "%.6g", ((const wn_float *)object)->value);
}

const wn_type wn_int_type = {
    .name = "int", .size = sizeof(wn_int), .flags = WN_TYPE_IMMUTABLE, .describe = int_describe};
const wn_type wn_float_type = {
    .name = "float", .size = sizeof(wn_float), .flags = WN_TYPE_IMMUTABLE, .describe = float_describe};

wn_int *wn_int_make_(wn_mutator *m, int64_t value) {
    wn_int *i = wn_new(m, &wn_int_type);
    if (i) i->value = value;
    return i;
}

wn_int *wn_int_new(wn_mutator *m, int64_t value) {
    wn_int *known = wn_interned_int_(m, value);
    return known ? known : wn_int_make_(m, value);
}

wn_float *wn_float_new(wn_mutator *m, double value) {
    wn_float *f = wn_new(m, &wn_float_type);
    if (f) f->value = value;
    return f;
}
