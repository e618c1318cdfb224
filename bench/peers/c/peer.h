/*
 * peer.h - Winnow's workloads in plain C, to run on Boehm's collector (libgc) or on malloc and free.
 *
 * One source serves both: memory comes from peer_new, and where the program knows that an object is dead it calls
 * peer_free, which is free() under malloc and nothing under the collector. PEER_MANUAL tells which it is where walking
 * a structure in order to free it is itself the cost. The clock is that of bench/clock.h, the same method as in all
 * other languages.
 */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef PEER_LIBGC
#define PEER_MANUAL 0
#define GC_THREADS
#include <gc/gc.h>
/* Zeroed memory that may hold references. */
static inline void *peer_new(size_t n) { return GC_MALLOC(n); }
/* Memory without references, which the collector need not scan; not zeroed. */
static inline void *peer_new_plain(size_t n) { return GC_MALLOC_ATOMIC(n); }
static inline void peer_free(void *p) { (void)p; }
#else
#define PEER_MANUAL 1
static inline void *peer_new(size_t n) { return calloc(1, n); }
static inline void *peer_new_plain(size_t n) { return malloc(n); }
static inline void peer_free(void *p) { free(p); }
#endif

/* ---- the clock --------------------------------------------------------------------------------------------------- */

enum { PEER_GAPS = 1 << 15, PEER_BUCKETS = 64 * 16, PEER_FIRST_THRESHOLD_NS = 10000 };

typedef struct peer_gap {
    uint64_t end, length;
} peer_gap;

typedef struct peer_clock {
    uint64_t start, last, threshold;
    unsigned gaps;
    uint64_t bucket[PEER_BUCKETS];
    peer_gap gap[PEER_GAPS];
} peer_clock;
extern peer_clock the_clock;

static inline uint64_t peer_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline unsigned peer_bucket(uint64_t ns) {
    if (ns < 16) return (unsigned)ns;
    unsigned e = 59u - (unsigned)__builtin_clzll(ns);
    return e * 16 + (unsigned)(ns >> e);
}

void peer_long_gap(uint64_t now, uint64_t gap);

static inline uint64_t tick(void) {
    uint64_t now = peer_now(), gap = now - the_clock.last;
    the_clock.last = now;
    the_clock.bucket[peer_bucket(gap)]++;
    if (gap >= the_clock.threshold) peer_long_gap(now, gap);
    return now;
}

/* ---- parameters, random numbers, workloads ----------------------------------------------------------------------- */

/* A parameter by name; the program ends when it is missing. */
uint64_t param(const char *name);

typedef uint64_t lehmer; /* the generator of bench/random.h */
static inline lehmer lehmer_seed(uint64_t seed) { return seed % 2147483646 + 1; }
static inline uint64_t below(lehmer *r, uint64_t n) { return (*r = *r * 48271 % 2147483647) % n; }
static inline uint64_t fold(uint64_t h, uint64_t v) { return (h * 31 + v) & 0xffffffffu; }

uint64_t gcbench(void), binarytrees(void), lru(void), messages(void), messages_map(void), biglive(void), cycles(void),
    mutate(void), control(void);

#endif
