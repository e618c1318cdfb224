/*
 * clock.h - stalls as the program itself sees them.
 *
 * The workload reads the clock at short, regular amounts of its own work; the time between two readings is a gap, and
 * a long gap is a stall, whoever caused it: a pause of the collector, an assist, a page fault, the machine. The peers
 * in other languages do exactly the same (bench/peers), so the figures compare. Gaps of at least `threshold` are kept
 * with their time, for the minimum mutator utilisation (MMU); when the log is full the threshold doubles and what has
 * become too short leaves it, so memory is bounded and the worst is never lost.
 */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>
#include <winnow/heap.h>

enum { BENCH_GAPS = 1 << 15, BENCH_WINDOWS = 10, BENCH_FIRST_THRESHOLD_NS = 10000 };

/* The windows of the MMU curve in milliseconds, and which of them are 1 and 10 ms. */
extern const unsigned bench_windows_ms[BENCH_WINDOWS];
enum { BENCH_WINDOW_1MS = 0, BENCH_WINDOW_10MS = 3 };

typedef struct bench_gap {
    uint64_t end, length; /* ns; end counts from the start of the run */
} bench_gap;

typedef struct bench_gaps {
    uint64_t threshold, run_ns;
    unsigned n;
    bench_gap gap[BENCH_GAPS];
} bench_gaps;

typedef struct bench_clock {
    uint64_t start, last;
    wn_histogram stall;
    bench_gaps gaps;
} bench_clock;

static inline uint64_t bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_clock_start(bench_clock *c);
void bench_clock_long_gap(bench_clock *c, uint64_t now, uint64_t gap);

static inline void bench_clock_tick(bench_clock *c) {
    uint64_t now = bench_now(), gap = now - c->last;
    c->last = now;
    wn_histogram_add(&c->stall, gap);
    if (WN_UNLIKELY(gap >= c->gaps.threshold)) bench_clock_long_gap(c, now, gap);
}

/* What happened since the last reading was preparation, not part of the workload: it is no gap. */
static inline void bench_clock_skip(bench_clock *c) { c->last = bench_now(); }

/* Minimum mutator utilisation: the least share of any window of that length in which the program itself ran. */
double bench_mmu(const bench_gaps *gaps, uint64_t window_ns);

#endif
