/* report.c - a set of runs as a JSON line and as a row of a table. Medians over the repetitions; histograms are merged.
 */
#include "run.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The figure of one run that a statistic is taken of. */
typedef double (*figure)(const bench_result *r);

static double wall(const bench_result *r) { return r->wall_s; }
static double cpu(const bench_result *r) { return r->cpu_s; }
static double gc_cpu(const bench_result *r) { return (double)r->gc.gc_cpu_ns / 1e9; }
static double collections(const bench_result *r) { return (double)r->gc.collections; }
static double allocated_bytes(const bench_result *r) { return (double)r->gc.allocated_bytes; }
static double allocated_objects(const bench_result *r) { return (double)r->gc.allocated_objects; }
static double live_bytes_max(const bench_result *r) { return (double)r->gc.live_bytes_max; }
static double heap_bytes_max(const bench_result *r) { return (double)r->gc.heap_bytes_max; }
static double bookkeeping(const bench_result *r) { return (double)r->gc.bookkeeping_bytes; }
static double peak_rss(const bench_result *r) { return (double)r->peak_rss_bytes; }

static bench_spread spread(const bench_set *set, figure f) {
    double values[set->n];
    for (unsigned i = 0; i < set->n; i++) values[i] = f(set->run[i]);
    return bench_spread_of(values, set->n);
}

/* The v-th value of the k-th note. */
static double note_median(const bench_set *set, unsigned k, unsigned v) {
    double values[set->n];
    for (unsigned i = 0; i < set->n; i++) values[i] = set->run[i]->note[k].value[v];
    return bench_spread_of(values, set->n).median;
}

static double mmu(const bench_set *set, unsigned window) {
    double least = 1;
    for (unsigned i = 0; i < set->n; i++)
        if (set->run[i]->mmu[window] < least) least = set->run[i]->mmu[window];
    return least;
}

enum which { PAUSE, STALL, REQUEST };

static wn_histogram *merged(const bench_set *set, enum which which) {
    wn_histogram *h = calloc(1, sizeof *h);
    for (unsigned i = 0; h && i < set->n; i++) {
        const bench_result *r = set->run[i];
        wn_histogram_merge(h, which == PAUSE ? &r->gc.pause : which == STALL ? &r->stall : &r->request);
    }
    return h;
}

static double us(uint64_t ns) { return (double)ns / 1e3; }

/* A quantile, but never more than what really occurred: buckets are upper bounds. */
static double quantile_us(const wn_histogram *h, double q) {
    uint64_t ns = wn_histogram_quantile(h, q);
    return us(ns < h->max ? ns : h->max);
}

static void json_histogram(FILE *out, const char *key, const bench_set *set, enum which which) {
    wn_histogram *h = merged(set, which);
    if (!h) return;
    fprintf(out, ",\"%s\":{\"count\":%llu,\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f,\"total\":%.3f}", key,
            (unsigned long long)h->count, quantile_us(h, .5), quantile_us(h, .99), quantile_us(h, .999), us(h->max),
            us(h->total));
    free(h);
}

/* The distribution of stalls as [upper bound in us, count] pairs. */
static void json_raw(FILE *out, const bench_set *set) {
    wn_histogram *h = merged(set, STALL);
    if (!h) return;
    fprintf(out, ",\"stall_histogram\":[");
    const char *comma = "";
    for (unsigned i = 0; i < WN_HISTOGRAM_BUCKETS; i++) {
        if (!h->bucket[i]) continue;
        fprintf(out, "%s[%.3f,%llu]", comma, us(wn_histogram_bound(i)), (unsigned long long)h->bucket[i]);
        comma = ",";
    }
    const bench_gaps *g = &set->run[0]->gaps;
    fprintf(out, "],\"run_us\":%.0f,\"gap_threshold_us\":%.0f,\"gaps_us\":[", us(g->run_ns), us(g->threshold));
    for (unsigned i = 0; i < g->n; i++)
        fprintf(out, "%s[%.0f,%.1f]", i ? "," : "", us(g->gap[i].end), us(g->gap[i].length));
    fprintf(out, "]");
    free(h);
}

void bench_write_json(FILE *out, const bench_set *set, bool raw) {
    const bench_job *job = set->job;
    const bench_result *first = set->run[0];
    bench_spread w = spread(set, wall), c = spread(set, cpu);
    fprintf(out, "{\"workload\":\"%s\",\"collector\":\"%s\",\"checksum\":%llu", job->workload->name,
            wn_collector_name(job->options.collector), (unsigned long long)first->checksum);
    fprintf(out, ",\"wall_s\":%.6f,\"cpu_s\":%.6f,\"gc_cpu_s\":%.6f", w.median, c.median, spread(set, gc_cpu).median);
    fprintf(out, ",\"collections\":%.0f,\"allocated_bytes\":%.0f,\"allocated_objects\":%.0f",
            spread(set, collections).median, spread(set, allocated_bytes).median,
            spread(set, allocated_objects).median);
    fprintf(out, ",\"live_bytes_max\":%.0f,\"heap_bytes_max\":%.0f,\"bookkeeping_bytes\":%.0f,\"peak_rss_bytes\":%.0f",
            spread(set, live_bytes_max).median, spread(set, heap_bytes_max).median, spread(set, bookkeeping).median,
            spread(set, peak_rss).median);
    json_histogram(out, "pause_us", set, PAUSE);
    json_histogram(out, "stall_us", set, STALL);
    if (job->workload->requests) json_histogram(out, "request_us", set, REQUEST);
    fprintf(out, ",\"mmu_1ms\":%.4f,\"mmu_10ms\":%.4f,\"mmu\":{", mmu(set, BENCH_WINDOW_1MS),
            mmu(set, BENCH_WINDOW_10MS));
    for (unsigned i = 0; i < BENCH_WINDOWS; i++)
        fprintf(out, "%s\"%u\":%.4f", i ? "," : "", bench_windows_ms[i], mmu(set, i));
    fprintf(out, "}");
    for (unsigned k = 0; k < first->notes; k++) {
        const bench_note *note = &first->note[k];
        fprintf(out, ",\"%s\":%s", note->name, note->n == 1 ? "" : "[");
        for (unsigned v = 0; v < note->n; v++) {
            fprintf(out, "%s%.10g", v ? "," : "", note_median(set, k, v));
        }
        if (note->n != 1) fprintf(out, "]");
    }
    fprintf(out, ",\"repetitions\":%u,\"threads\":%u,\"wall_s_spread\":[%.6f,%.6f],\"cpu_s_spread\":[%.6f,%.6f]",
            set->n, job->settings->threads, w.least, w.greatest, c.least, c.greatest);
    fprintf(out, ",\"parameters\":{");
    for (unsigned i = 0; i < BENCH_PARAMS && job->workload->params[i].name; i++)
        fprintf(out, "%s\"%s\":%llu", i ? "," : "", job->workload->params[i].name, (unsigned long long)job->param[i]);
    fprintf(out, "},\"options\":{");
    /* Names, and values without a quote, or no heap would have been made. */
    for (unsigned i = 0; i < job->settings->n_options; i++)
        fprintf(out, "%s\"%s\":\"%s\"", i ? "," : "", job->settings->options[i].name, job->settings->options[i].value);
    const char *environment = getenv("WINNOW_OPTIONS");
    fprintf(out, "},\"environment\":\"%s\",\"version\":\"%s\"", environment ? environment : "", wn_version());
    if (raw) json_raw(out, set);
    fprintf(out, "}\n");
    fflush(out);
}

/* A time in microseconds with three figures and its unit, in eight columns. */
static const char *show_us(char buf[16], double t) {
    if (t < 1000)
        snprintf(buf, 16, "%.*f us", t < 10 ? 2 : t < 100 ? 1 : 0, t);
    else if (t < 1e6)
        snprintf(buf, 16, "%.*f ms", t < 1e4 ? 2 : t < 1e5 ? 1 : 0, t / 1e3);
    else
        snprintf(buf, 16, "%.2f s", t / 1e6);
    return buf;
}

/* Seconds from the least to the greatest, with as many decimals for both as the larger has room for. */
static const char *show_range(char buf[32], bench_spread s) {
    int decimals = s.greatest < 10 ? 3 : s.greatest < 100 ? 2 : 1;
    snprintf(buf, 32, "%.*f-%.*f", decimals, s.least, decimals, s.greatest);
    return buf;
}

/* The table is at most 120 columns wide, what a terminal and a mail show unbroken; further figures have lines of their
 * own below a row. */
void bench_write_heading(FILE *out, const bench_workload *workload) {
    fprintf(out, "\n%s: %s\n", workload->name, workload->summary);
    fprintf(out, "  %-11s %7s %12s %7s %6s %8s %9s %8s %8s %9s %5s %5s %9s\n", "collector", "wall s", "spread", "cpu s",
            "gc %", "peak MiB", "pause p50", "p99.9", "longest", "stall max", "mmu1", "mmu10", "checksum");
}

void bench_write_row(FILE *out, const bench_set *set) {
    const bench_job *job = set->job;
    char a[16], b[16], c[16], d[16], range[32];
    bench_spread w = spread(set, wall);
    double cpu_s = spread(set, cpu).median;
    wn_histogram *pause = merged(set, PAUSE), *stall = merged(set, STALL), *request = merged(set, REQUEST);
    if (!pause || !stall || !request) return;
    fprintf(out, "  %-11s %7.3f %12s %7.3f %5.1f%% %8.1f %9s %8s %8s %9s %5.3f %5.3f  %08llx\n",
            wn_collector_name(job->options.collector), w.median, show_range(range, w), cpu_s,
            cpu_s > 0 ? 100 * spread(set, gc_cpu).median / cpu_s : 0, spread(set, peak_rss).median / 1048576,
            show_us(a, quantile_us(pause, .5)), show_us(b, quantile_us(pause, .999)), show_us(c, us(pause->max)),
            show_us(d, us(stall->max)), mmu(set, BENCH_WINDOW_1MS), mmu(set, BENCH_WINDOW_10MS),
            (unsigned long long)set->run[0]->checksum);
    if (job->workload->requests)
        fprintf(out, "    request: p50 %s, p99.9 %s, longest %s\n", show_us(a, quantile_us(request, .5)),
                show_us(b, quantile_us(request, .999)), show_us(c, us(request->max)));
    const bench_result *first = set->run[0];
    for (unsigned k = 0; k < first->notes; k++) {
        fprintf(out, "    %s:", first->note[k].name);
        for (unsigned v = 0; v < first->note[k].n; v++) {
            double x = note_median(set, k, v);
            fprintf(out, fabs(x) < 1e15 && x == floor(x) ? " %.0f" : " %.4g", x);
        }
        fprintf(out, "\n");
    }
    free(pause), free(stall), free(request);
    fflush(out);
}
