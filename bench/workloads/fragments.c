/*
 * fragments.c - a heap full of small objects of which one in 64 survives, chosen at random: nearly every page still
 * holds some. Tells how much memory the process takes then, within a second, after all survivors were read, and after
 * all were written to, while a program goes on making garbage beside them.
 *
 * Memory is the proportional set size: a page that several addresses share counts once. The workload stops its clock
 * while the kernel adds that up.
 */
#include "../random.h"
#include "things.h"
#include "../bench.h"
#include <string.h>
#include <unistd.h>

enum { OBJECTS, ONE_IN, BUSY };

/* Of this process; the resident size where the kernel does not tell more. */
static double memory_taken(bench *b) {
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long long pss = 0, pages = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pss: %llu kB", &pss) == 1) break;
    if (f) fclose(f);
    if (!pss && (f = fopen("/proc/self/statm", "r"))) {
        if (fscanf(f, "%*u %llu", &pages) != 1) pages = 0;
        fclose(f);
    }
    bench_clock_skip(&b->clock);
    return pss ? (double)pss * 1024 : (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* For so long, making garbage or waiting. */
static void go_on(bench *b, wn_mutator *m, uint64_t ns, bool busy) {
    uint64_t end = bench_now() + ns;
    if (!busy) {
        wn_block_begin(m);
        usleep((unsigned)(ns / 1000));
        wn_block_end(m);
        bench_clock_skip(&b->clock);
    }
    for (uint64_t i = 0; busy && (i % 64 || bench_now() < end); i++) {
        wn_root(m, thing *, x, bench_new(b, m, &thing_type));
        x->number = i;
        if (i % 64 == 0) bench_tick(b);
    }
}

static void note(bench *b, const char *name, double value) { bench_note_values(b, name, &value, 1); }

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t n = b->param[OBJECTS], one_in = b->param[ONE_IN], kept = 0, h = 0;
    bool busy = b->param[BUSY];
    bench_random r = bench_random_seed(8);
    wn_root(m, things *, survivors, bench_new_array(b, m, &things_type, n / one_in + 1));
    {
        wn_root(m, things *, all, bench_new_array(b, m, &things_type, n));
        for (uint64_t i = 0; i < n; i++) {
            thing *x = bench_new(b, m, &thing_type);
            x->number = i;
            wn_move(m, all, thing[i], x);
            if (i % 64 == 0) bench_tick(b);
        }
        for (uint64_t i = 0; i < n && kept < survivors->length; i++)
            if (bench_random_below(&r, one_in) == 0) {
                wn_set(m, survivors, thing[kept], all->thing[i]);
                kept++;
            }
        note(b, "full_bytes", memory_taken(b));
    }
    if (wn_collect(m, 2, NULL)) bench_fail(b, "wn_collect: %s", wn_error_message());
    bench_clock_skip(&b->clock); /* it was asked to wait */
    wn_stats stats;
    wn_get_stats(b->heap, &stats);
    double live = (double)stats.live_bytes;
    note(b, "live_bytes", live);
    note(b, "left_bytes", memory_taken(b));

    uint64_t begun = bench_now(), second = 1000000000;
    if (wn_heap_collector(b->heap) != WN_COLLECTOR_CONCURRENT) wn_trim(m); /* the others do nothing by themselves */
    bench_tick(b);
    double taken = memory_taken(b);
    while (taken > 4 * live && bench_now() - begun < second) {
        go_on(b, m, second / 20, busy);
        taken = memory_taken(b);
    }
    note(b, "settled_ms", (double)(bench_now() - begun) / 1e6);
    note(b, "settled_bytes", taken);
    for (uint64_t i = 0; i < kept; i++) {
        h = bench_fold(h, survivors->thing[i]->number);
        if (i % 64 == 0) bench_tick(b);
    }
    note(b, "read_bytes", taken = memory_taken(b));
    note(b, "read_per_live", taken / live);
    for (uint64_t i = 0; i < kept; i++) {
        survivors->thing[i]->number = i;
        if (i % 64 == 0) bench_tick(b);
    }
    if (wn_collect(m, 2, NULL)) bench_fail(b, "wn_collect: %s", wn_error_message());
    bench_clock_skip(&b->clock); /* it was asked to wait */
    if (wn_heap_collector(b->heap) != WN_COLLECTOR_CONCURRENT) wn_trim(m);
    bench_tick(b);
    go_on(b, m, second, busy);
    note(b, "written_bytes", memory_taken(b));
    b->checksum = bench_fold(h, kept);
}

const bench_workload bench_fragments = {
    .name = "fragments",
    .summary = "16 million objects of which one in 64 survives: the memory they take",
    .run = run,
    .params = {{"objects", 16000000, 4096, BENCH_LINEAR, "objects of 32 bytes made at first"},
               {"one_in", 64, 2, BENCH_FIXED, "one of so many survives, at random"},
               {"busy", 1, 0, BENCH_FIXED, "1: the program goes on making garbage; 0: it waits"}},
    .one_thread = true,
    .on_request = true,
};
