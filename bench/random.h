/*
 * random.h - the generator that every workload uses, here and in every peer language.
 *
 * Lehmer's x <- 48271 x mod (2^31 - 1): short, the same in every language without overflow of 63 bits, and good enough
 * to choose nodes by.
 */
#ifndef BENCH_RANDOM_H
#define BENCH_RANDOM_H

#include <stdint.h>

typedef struct bench_random {
    uint64_t x;
} bench_random;

static inline bench_random bench_random_seed(uint64_t seed) { return (bench_random){seed % 2147483646 + 1}; }
static inline uint64_t bench_random_next(bench_random *r) { return r->x = r->x * 48271 % 2147483647; }
static inline uint64_t bench_random_below(bench_random *r, uint64_t n) { return bench_random_next(r) % n; }

/* Zipf with exponent 1, stepwise: every power of two of ranks is equally likely, and within one every rank. Integers
 * only, so that every language draws the same. */
static inline uint64_t bench_random_zipf(bench_random *r, uint64_t n) {
    unsigned octaves = 64 - (unsigned)__builtin_clzll(n);
    for (;;) {
        uint64_t low = (uint64_t)1 << bench_random_below(r, octaves);
        uint64_t rank = low - 1 + bench_random_below(r, low);
        if (rank < n) return rank;
    }
}

/* Checksums are folded into 32 bits. */
static inline uint64_t bench_fold(uint64_t h, uint64_t v) { return (h * 31 + v) & 0xffffffffu; }

#endif
