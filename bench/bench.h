/*
 * bench.h - what a workload sees of the harness.
 *
 * A workload is a function on the public interface of Winnow alone. It runs in a forked process of its own, so that
 * memory and processor time are its own; once per mutator thread, each thread on a graph of its own. It tells the
 * harness three things: that time passes (bench_tick, from which the stalls it suffered follow), a checksum of what it
 * computed (which must be the same on every collector), and any further figures (bench_note).
 */
#ifndef BENCH_H
#define BENCH_H

#include "clock.h"
#include <winnow.h>

enum { BENCH_PARAMS = 8, BENCH_NOTES = 8, BENCH_NOTE_VALUES = 8, BENCH_REQUEST_KINDS = 6 };

/* How --scale F changes a parameter. */
typedef enum bench_scaling {
    BENCH_FIXED,
    BENCH_LINEAR, /* times F */
    BENCH_DEPTH   /* plus log2 F: the depth of a tree */
} bench_scaling;

typedef struct bench_param {
    const char *name;
    uint64_t value, least;
    bench_scaling scaling;
    const char *meaning;
} bench_param;

/* A further figure of a run: one value or one per worker. */
typedef struct bench_note {
    char name[32];
    unsigned n;
    double value[BENCH_NOTE_VALUES];
} bench_note;

/* What one run of one workload on one collector yields. It lies in memory that the run's process shares with ours. */
typedef struct bench_result {
    bool done, in_process;
    char error[1024]; /* what went wrong and what to do; empty: nothing */
    uint64_t checksum;
    double wall_s, cpu_s;
    uint64_t peak_rss_bytes;
    double mmu[BENCH_WINDOWS];
    wn_stats gc;
    wn_histogram stall, request;
    unsigned notes;
    bench_note note[BENCH_NOTES];
    bench_gaps gaps; /* of the first thread */
} bench_result;

/* An option of the heap as the command line named it. */
typedef struct bench_option {
    const char *name, *value;
} bench_option;

/* What the user chose, for the workloads that care. */
typedef struct bench_settings {
    double scale;
    double seconds; /* 0: not said */
    unsigned threads, repetitions;
    const char *const *files; /* documents for `store` and `fork` */
    unsigned n_files;
    const bench_option *options;
    unsigned n_options;
} bench_settings;

/* One mutator thread's view of a run. */
typedef struct bench {
    wn_heap *heap;
    wn_mutator *m;
    unsigned thread;
    const uint64_t *param; /* in the order of the workload's table */
    const bench_settings *settings;
    bench_result *result;
    uint64_t checksum;
    bench_clock clock;
    wn_histogram request; /* latency of requests, where there are any */
} bench;

typedef struct bench_workload {
    const char *name, *summary;
    void (*run)(bench *b);
    bench_param params[BENCH_PARAMS];
    bool requests;    /* fills bench.request */
    bool reads_files; /* documents, those of --file */
    bool one_thread;  /* --threads makes no sense */
    bool timed;       /* --seconds is how long it runs, not how often */
    bool on_request;  /* runs only when named, not as part of "everything" */
} bench_workload;

/* All workloads, the last entry NULL. */
extern const bench_workload *const bench_workloads[];

/* Ends this run: the message says what broke and what to do. Never returns. */
_Noreturn void bench_fail(bench *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void bench_out_of_memory(bench *b);

/* Notes a further figure; `name` becomes a key of the JSON line. */
void bench_note_values(bench *b, const char *name, const double *values, unsigned n);

/* Least, median and greatest of n values; sorts them. */
typedef struct bench_spread {
    double least, median, greatest;
} bench_spread;
bench_spread bench_spread_of(double *values, unsigned n);

/* Times a full collection of a graph that is all alive, in ns; the end of the run when it fails or frees something. */
uint64_t bench_full_collection(bench *b, wn_mutator *m);

/* Objects or the end of the run: a workload has no use for half a graph. */
static inline void *bench_new(bench *b, wn_mutator *m, const wn_type *type) {
    void *object = wn_new(m, type);
    if (WN_UNLIKELY(!object)) bench_out_of_memory(b);
    return object;
}
static inline void *bench_new_array(bench *b, wn_mutator *m, const wn_type *type, size_t length) {
    void *object = wn_new_array(m, type, length);
    if (WN_UNLIKELY(!object)) bench_out_of_memory(b);
    return object;
}

/* The mutator's clock: to be called every microsecond or so of the workload's own work. */
static inline void bench_tick(bench *b) { bench_clock_tick(&b->clock); }

#endif
