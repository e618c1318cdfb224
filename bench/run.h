/* run.h - one run of one workload on one collector, in a process of its own; and what a set of runs amounts to. */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "bench.h"

typedef struct bench_job {
    const bench_workload *workload;
    const bench_settings *settings;
    wn_options options;
    uint64_t param[BENCH_PARAMS];
    bool in_process; /* run here instead of in a child: for profilers and debuggers */
    /* Called every quarter of a second while the run goes on. */
    void (*progress)(const struct bench_job *job, double elapsed_s, void *data);
    void *data;
} bench_job;

/* Memory for a result that a child can fill. NULL when there is none. */
bench_result *bench_result_new(void);
void bench_result_free(bench_result *r);

/* Runs. The result's `done` tells whether it finished; if not, `error` is filled. */
void bench_run(const bench_job *job, bench_result *result);

/* The runs of one workload on one collector: `run[i]`, n of them, all done. */
typedef struct bench_set {
    const bench_job *job;
    bench_result **run;
    unsigned n;
} bench_set;

/* The JSON line of a set. raw: with the histogram of stalls and the log of gaps, for the comparison's plots. */
void bench_write_json(FILE *out, const bench_set *set, bool raw);
/* The table for people: a heading, and one row per set. */
void bench_write_heading(FILE *out, const bench_workload *workload);
void bench_write_row(FILE *out, const bench_set *set);

#endif
