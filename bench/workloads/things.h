/* things.h - an object of 32 bytes with a reference and a number, and an array of such: for workloads that need many.
 */
#ifndef BENCH_THINGS_H
#define BENCH_THINGS_H

#include "../bench.h"

typedef struct thing {
    wn_object head;
    struct thing *other;
    uint64_t number;
} thing;
static const wn_type thing_type = WN_TYPE(thing, WN_REFS(thing, other));

typedef struct things {
    wn_object head;
    size_t length;
    thing *thing[];
} things;
static const wn_type things_type = WN_TYPE(things, WN_ITEMS(things, length, thing));

#endif
