/* clock.c - the log of stalls and the minimum mutator utilisation that follows from it. See clock.h. */
#include "clock.h"

const unsigned bench_windows_ms[BENCH_WINDOWS] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};

void bench_clock_start(bench_clock *c) {
    c->gaps.threshold = BENCH_FIRST_THRESHOLD_NS; /* all else is zero, and untouched memory */
    c->start = c->last = bench_now();
}

void bench_clock_long_gap(bench_clock *c, uint64_t now, uint64_t gap) {
    bench_gaps *g = &c->gaps;
    while (g->n == BENCH_GAPS) {
        g->threshold *= 2;
        unsigned kept = 0;
        for (unsigned i = 0; i < g->n; i++)
            if (g->gap[i].length >= g->threshold) g->gap[kept++] = g->gap[i];
        g->n = kept;
    }
    if (gap >= g->threshold) g->gap[g->n++] = (bench_gap){.end = now - c->start, .length = gap};
}

/* The stalled time in a window, as the window slides, has a maximum where the window ends with a stall; so it is enough
 * to look at those windows. `first` is the oldest stall that reaches into the window, `sum` the length of all from it
 * on. */
double bench_mmu(const bench_gaps *gaps, uint64_t window) {
    if (gaps->run_ns < window) window = gaps->run_ns;
    if (!window) return 1;
    uint64_t worst = 0, sum = 0;
    unsigned first = 0;
    for (unsigned i = 0; i < gaps->n; i++) {
        uint64_t end = gaps->gap[i].end, begin = end > window ? end - window : 0;
        sum += gaps->gap[i].length;
        while (gaps->gap[first].end <= begin) sum -= gaps->gap[first++].length;
        uint64_t stalled = sum, oldest = gaps->gap[first].end - gaps->gap[first].length;
        if (oldest < begin) stalled -= begin - oldest;
        if (stalled > worst) worst = stalled;
    }
    return worst >= window ? 0 : 1 - (double)worst / (double)window;
}
