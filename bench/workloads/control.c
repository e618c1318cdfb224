/*
 * control.c - reads the clock and does nothing else: the stalls it sees are the machine's own, and whatever a collector
 * shows below them means nothing.
 */
#include "../bench.h"

static void run(bench *b) {
    double seconds = b->settings->seconds > 0 ? b->settings->seconds : (double)b->param[0];
    uint64_t end = b->clock.start + (uint64_t)(seconds * 1e9);
    while (b->clock.last < end) bench_tick(b);
}

const bench_workload bench_control = {
    .name = "control",
    .summary = "only reads the clock: the machine's own stalls",
    .run = run,
    .params = {{"seconds", 3, 1, BENCH_FIXED, "how long"}},
    .timed = true,
    .on_request = true,
};
