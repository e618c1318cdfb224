/* slice.c - the bits of runs, by the distance of their objects. */
#include "engines/slice.h"

_Static_assert(WN_GRANULE_SHIFT_ == 4 && WN_RUN_APART == 256, "a run's objects are 1 to 16 granules apart");

const uint64_t wn_run_pattern_[(WN_RUN_APART >> WN_GRANULE_SHIFT_) + 1] = {
    [1] = 0xffffffffffffffff, [2] = 0x5555555555555555,  [3] = 0x9249249249249249,  [4] = 0x1111111111111111,
    [5] = 0x1084210842108421, [6] = 0x1041041041041041,  [7] = 0x8102040810204081,  [8] = 0x101010101010101,
    [9] = 0x8040201008040201, [10] = 0x1004010040100401, [11] = 0x80100200400801,   [12] = 0x1001001001001001,
    [13] = 0x10008004002001,  [14] = 0x100040010004001,  [15] = 0x1000200040008001, [16] = 0x1000100010001,
};
