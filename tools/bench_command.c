/*
 * bench_command.c - `winnow bench`: which workloads, on which collectors, how often, shown how.
 *
 * Repetitions are interleaved (every collector once, then every collector again), so that a machine that drifts drifts
 * for all alike. Checksums must agree between repetitions and between collectors, or the command fails.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <run.h>

#include "commands.h"

enum { MAX_RUNS = 1000, MAX_NAMED = 64, MAX_OVERRIDES = 64, MAX_OPTIONS = 64, COLLECTORS = 3 };
static const uint64_t MAX_PARAM = (uint64_t)1 << 40;

typedef struct arguments {
    bench_settings settings;
    const bench_workload *workload[MAX_NAMED];
    unsigned workloads;
    wn_collector_id collector[COLLECTORS];
    unsigned collectors;
    wn_options options;
    bench_option option[MAX_OPTIONS]; /* what was set in them, each name once */
    const char *file[MAX_NAMED];
    const char *override[MAX_OVERRIDES]; /* NAME=VALUE of --param */
    unsigned overrides;
    const char *json;
    bool raw, quiet, in_process, repetitions_named, single_thread_named;
} arguments;

static int point_to_help(void) {
    fprintf(stderr, "`winnow bench --help` explains, `winnow bench --list` lists workloads and their parameters\n");
    return WINNOW_EXIT_USAGE;
}

static int misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int misuse(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "winnow bench: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    return point_to_help();
}

static void help(FILE *out) {
    fprintf(
        out,
        "Usage: winnow bench [WORKLOAD...] [OPTION...]\n"
        "Runs workloads on the collectors, each run in a process of its own, and reports medians with their spread:\n"
        "time, processor time, the collector's share, memory, pauses, and the stalls that the program itself saw.\n"
        "Without a WORKLOAD it runs them all, which takes many minutes.\n\n"
        "  --collector LIST     refcount, incremental, concurrent, separated by commas; default all\n"
        "  --repetitions N      runs of each, interleaved; default 3\n"
        "  --seconds N          repeat each for at least N seconds; for `store`, serve for N seconds\n"
        "  --scale F            make the workloads F times as large; for tests, smaller: 0.01\n"
        "  --param NAME=VALUE   set one parameter of a workload (see --list)\n"
        "  --threads N          N mutators, each on a graph of its own; default 1\n"
        "  --heap-limit SIZE    the heap may take no more: 64M, 2G; default the container's limit\n"
        "  --option NAME=VALUE  any option of the heap (see `winnow options`)\n"
        "  --file FILE          JSON documents for `store` and `fork`, may be repeated;\n"
        "                       default the ISO code tables of the package iso-codes\n"
        "  --json FILE          write JSON lines to FILE, `-` for standard output (and then no table)\n"
        "  --raw                with --json: also the histogram and the log of stalls\n"
        "  --in-process         run in this process, for a debugger or a profiler\n"
        "  --quiet              no progress on standard error\n"
        "  --list               list the workloads and their parameters\n"
        "  -h, --help           this text\n\n"
        "Exit status: 0; 1 when a run failed or checksums differ; 2 when the command line is wrong.\n");
}

static void list(void) {
    for (unsigned i = 0; bench_workloads[i]; i++) {
        const bench_workload *w = bench_workloads[i];
        printf("%-16s %s%s\n", w->name, w->summary, w->on_request ? " (only when named)" : "");
        for (unsigned k = 0; k < BENCH_PARAMS && w->params[k].name; k++)
            printf("    %-18s %10llu  %s\n", w->params[k].name, (unsigned long long)w->params[k].value,
                   w->params[k].meaning);
    }
}

static const bench_workload *find_workload(const char *name) {
    for (unsigned i = 0; bench_workloads[i]; i++)
        if (strcmp(bench_workloads[i]->name, name) == 0) return bench_workloads[i];
    return NULL;
}

/* A positive number, all of the text; 0 when it is none. */
static double positive(const char *text, double most) {
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    return !errno && end != text && !*end && isfinite(x) && x > 0 && x <= most ? x : 0;
}
static unsigned positive_integer(const char *text, unsigned most) {
    double x = positive(text, most);
    return x == floor(x) ? (unsigned)x : 0;
}

static int parse_collectors(arguments *a, char *text) {
    a->collectors = 0;
    if (strcmp(text, "all") == 0) {
        for (int id = WN_COLLECTOR_REFCOUNT; id <= WN_COLLECTOR_CONCURRENT; id++) {
            if (wn_collector_available((wn_collector_id)id))
                a->collector[a->collectors++] = (wn_collector_id)id;
            else
                fprintf(stderr, "winnow bench: skipping %s, which is not in this build\n",
                        wn_collector_name((wn_collector_id)id));
        }
        return a->collectors ? 0 : misuse("this build of the library contains no collector");
    }
    for (char *save = NULL, *name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        int id = WN_COLLECTOR_REFCOUNT;
        while (id <= WN_COLLECTOR_CONCURRENT && strcmp(name, wn_collector_name((wn_collector_id)id)) != 0) id++;
        if (id > WN_COLLECTOR_CONCURRENT)
            return misuse("there is no collector '%s'; there are refcount, incremental and concurrent, or all", name);
        if (!wn_collector_available((wn_collector_id)id))
            return misuse("the collector '%s' is not in this build; `winnow --version` tells which are", name);
        bool twice = false;
        for (unsigned i = 0; i < a->collectors; i++) twice |= a->collector[i] == (wn_collector_id)id;
        if (!twice) a->collector[a->collectors++] = (wn_collector_id)id;
    }
    return a->collectors ? 0 : misuse("--collector needs a name: refcount, incremental, concurrent or all");
}

/* The latest of a name counts; there are fewer names than places. */
static void note_option(arguments *a, const char *name, const char *value) {
    bench_settings *s = &a->settings;
    unsigned i = 0;
    while (i < s->n_options && strcmp(a->option[i].name, name) != 0) i++;
    a->option[i] = (bench_option){name, value};
    if (i == s->n_options) s->n_options++;
}

static int parse_option(arguments *a, char *text) {
    char *equals = strchr(text, '=');
    if (!equals) return misuse("--option %s: write it as NAME=VALUE; `winnow options` lists the names", text);
    *equals = 0;
    if (strcmp(text, "collector") == 0) return misuse("--option collector: name collectors by --collector LIST");
    a->single_thread_named |= strcmp(text, "single_thread") == 0;
    if (wn_options_set(&a->options, text, equals + 1)) return misuse("--option: %s", wn_error_message());
    note_option(a, text, equals + 1);
    return 0;
}

enum {
    OPT_COLLECTOR = 256,
    OPT_REPETITIONS,
    OPT_SECONDS,
    OPT_SCALE,
    OPT_PARAM,
    OPT_THREADS,
    OPT_HEAP_LIMIT,
    OPT_OPTION,
    OPT_FILE,
    OPT_JSON,
    OPT_RAW,
    OPT_IN_PROCESS,
    OPT_QUIET,
    OPT_LIST,
    OPT_HELP
};
static const struct option long_options[] = {{"collector", required_argument, NULL, OPT_COLLECTOR},
                                             {"repetitions", required_argument, NULL, OPT_REPETITIONS},
                                             {"seconds", required_argument, NULL, OPT_SECONDS},
                                             {"scale", required_argument, NULL, OPT_SCALE},
                                             {"param", required_argument, NULL, OPT_PARAM},
                                             {"threads", required_argument, NULL, OPT_THREADS},
                                             {"heap-limit", required_argument, NULL, OPT_HEAP_LIMIT},
                                             {"option", required_argument, NULL, OPT_OPTION},
                                             {"file", required_argument, NULL, OPT_FILE},
                                             {"json", required_argument, NULL, OPT_JSON},
                                             {"raw", no_argument, NULL, OPT_RAW},
                                             {"in-process", no_argument, NULL, OPT_IN_PROCESS},
                                             {"quiet", no_argument, NULL, OPT_QUIET},
                                             {"list", no_argument, NULL, OPT_LIST},
                                             {"help", no_argument, NULL, OPT_HELP},
                                             {NULL, 0, NULL, 0}};

enum { GO_ON = -1 };

/* One option; GO_ON, or the exit status. */
static int parse_one(arguments *a, int option, char *value) {
    bench_settings *s = &a->settings;
    switch (option) {
    case OPT_COLLECTOR: {
        int status = parse_collectors(a, value);
        return status ? status : GO_ON;
    }
    case OPT_REPETITIONS:
        a->repetitions_named = true;
        if (!(s->repetitions = positive_integer(value, MAX_RUNS)))
            return misuse("--repetitions %s: give a whole number from 1 to %d", value, MAX_RUNS);
        return GO_ON;
    case OPT_SECONDS:
        if (!(s->seconds = positive(value, 86400)))
            return misuse("--seconds %s: give a number from above 0 to 86400", value);
        return GO_ON;
    case OPT_SCALE:
        if (!(s->scale = positive(value, 1000))) return misuse("--scale %s: give a number from above 0 to 1000", value);
        return GO_ON;
    case OPT_PARAM:
        if (!strchr(value, '=')) return misuse("--param %s: write it as NAME=VALUE", value);
        if (a->overrides == MAX_OVERRIDES) return misuse("at most %d times --param", MAX_OVERRIDES);
        a->override[a->overrides++] = value;
        return GO_ON;
    case OPT_THREADS:
        if (!(s->threads = positive_integer(value, 256)))
            return misuse("--threads %s: give a whole number from 1 to 256", value);
        return GO_ON;
    case OPT_HEAP_LIMIT:
        if (wn_options_set(&a->options, "heap_limit", value)) return misuse("--heap-limit: %s", wn_error_message());
        note_option(a, "heap_limit", value);
        return GO_ON;
    case OPT_OPTION: {
        int status = parse_option(a, value);
        return status ? status : GO_ON;
    }
    case OPT_FILE:
        if (s->n_files == MAX_NAMED) return misuse("at most %d times --file", MAX_NAMED);
        a->file[s->n_files++] = value;
        return GO_ON;
    case OPT_JSON: a->json = value; return GO_ON;
    case OPT_RAW: a->raw = true; return GO_ON;
    case OPT_IN_PROCESS: a->in_process = true; return GO_ON;
    case OPT_QUIET: a->quiet = true; return GO_ON;
    case OPT_LIST: list(); return EXIT_SUCCESS;
    case 'h':
    case OPT_HELP: help(stdout); return EXIT_SUCCESS;
    default: return point_to_help(); /* getopt_long has said what is wrong */
    }
}

/* GO_ON, or the exit status. */
static int parse(arguments *a, int argc, char **argv) {
    *a = (arguments){.settings = {.scale = 1, .threads = 1, .repetitions = 3}, .options = wn_options_default()};
    a->settings.files = a->file;
    a->settings.options = a->option;
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        int status = parse_one(a, option, optarg);
        if (status != GO_ON) return status;
    }
    for (; optind < argc; optind++) {
        const bench_workload *w = find_workload(argv[optind]);
        if (!w) return misuse("there is no workload '%s'", argv[optind]);
        if (a->workloads == MAX_NAMED) return misuse("at most %d workloads", MAX_NAMED);
        if (w->one_thread && a->settings.threads > 1)
            return misuse("'%s' runs on one thread; leave out --threads", w->name);
        a->workload[a->workloads++] = w;
    }
    if (!a->workloads)
        for (unsigned i = 0; bench_workloads[i]; i++)
            if (!bench_workloads[i]->on_request && !(bench_workloads[i]->one_thread && a->settings.threads > 1))
                a->workload[a->workloads++] = bench_workloads[i];
    bool reads = false;
    for (unsigned i = 0; i < a->workloads; i++) reads |= a->workload[i]->reads_files;
    if (a->settings.n_files && !reads)
        return misuse("--file %s: no chosen workload reads documents; `store`, `fork` and `fork-freeze` do",
                      a->file[0]);
    char all[] = "all";
    if (!a->collectors && parse_collectors(a, all)) return WINNOW_EXIT_USAGE;
    if (a->settings.seconds > 0 && !a->repetitions_named) a->settings.repetitions = 1;
    if (a->in_process &&
        (a->workloads > 1 || a->collectors > 1 || a->settings.repetitions > 1 || a->settings.seconds > 0))
        return misuse(
            "--in-process is for one run: name one workload, one collector, --repetitions 1 and no --seconds");
    if (a->raw && !a->json) return misuse("--raw adds to what --json writes: add --json FILE, or --json -");
    return GO_ON;
}

/* The workload's parameters: the table's, scaled, then what --param says. */
static int choose_params(const arguments *a, const bench_workload *w, uint64_t param[BENCH_PARAMS]) {
    for (unsigned i = 0; i < BENCH_PARAMS && w->params[i].name; i++) {
        const bench_param *p = &w->params[i];
        double x = (double)p->value;
        if (p->scaling == BENCH_LINEAR) x *= a->settings.scale;
        if (p->scaling == BENCH_DEPTH) x += round(log2(a->settings.scale));
        param[i] = x < (double)p->least ? p->least : (uint64_t)x;
    }
    for (unsigned k = 0; k < a->overrides; k++) {
        const char *equals = strchr(a->override[k], '=');
        size_t length = (size_t)(equals - a->override[k]);
        for (unsigned i = 0; i < BENCH_PARAMS && w->params[i].name; i++) {
            const bench_param *p = &w->params[i];
            if (strlen(p->name) != length || strncmp(p->name, a->override[k], length) != 0) continue;
            char *end;
            errno = 0;
            unsigned long long x = strtoull(equals + 1, &end, 10);
            if (errno || end == equals + 1 || *end || equals[1] == '-' || x < p->least || x > MAX_PARAM)
                return misuse("--param %s: give a whole number from %llu to %llu", a->override[k],
                              (unsigned long long)p->least, (unsigned long long)MAX_PARAM);
            param[i] = x;
        }
    }
    return GO_ON;
}

static int check_overrides(const arguments *a) {
    for (unsigned k = 0; k < a->overrides; k++) {
        size_t length = strcspn(a->override[k], "=");
        bool known = false;
        for (unsigned i = 0; i < a->workloads; i++)
            for (unsigned p = 0; p < BENCH_PARAMS && a->workload[i]->params[p].name; p++)
                known |= strlen(a->workload[i]->params[p].name) == length &&
                         strncmp(a->workload[i]->params[p].name, a->override[k], length) == 0;
        if (!known) return misuse("--param %s: no chosen workload has such a parameter", a->override[k]);
    }
    return GO_ON;
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

typedef struct progress {
    bool terminal, shown;
    unsigned run;
    double last;
} progress;

/* From two seconds on: on a terminal one line that is written over, else a line every ten seconds. */
static void show_progress(const bench_job *job, double elapsed, void *data) {
    progress *p = data;
    if (elapsed < 2 || elapsed - p->last < (p->terminal ? .25 : 10)) return;
    p->last = elapsed;
    p->shown = true;
    fprintf(stderr, "%s%s on %s, run %u, %.0f s%s", p->terminal ? "\r\033[K" : "", job->workload->name,
            wn_collector_name(job->options.collector), p->run, elapsed, p->terminal ? "" : "\n");
}

static void clear_progress(progress *p) {
    if (p->shown && p->terminal) fprintf(stderr, "\r\033[K");
    p->shown = false;
    p->last = 0;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

typedef struct output {
    FILE *json, *table; /* either may be NULL */
} output;

/* Runs a workload on all collectors, interleaved; false when a run failed or a checksum differs. */
static bool run_all(const arguments *a, bench_job *job, bench_set *set, progress *p) {
    double spent[COLLECTORS] = {0};
    for (bool more = true; more;) {
        more = false;
        for (unsigned c = 0; c < a->collectors; c++) {
            bench_set *s = &set[c];
            bool enough = s->n >= a->settings.repetitions;
            if (a->settings.seconds > 0 && !job->workload->timed) enough &= spent[c] >= a->settings.seconds;
            if (enough || s->n == MAX_RUNS) continue;
            more = true;
            bench_result *r = bench_result_new();
            if (!r) return fprintf(stderr, "winnow bench: no memory for results\n"), false;
            s->run[s->n++] = r;
            p->run = s->n;
            job->options.collector = a->collector[c];
            bench_run(job, r);
            clear_progress(p);
            const char *name = wn_collector_name(a->collector[c]);
            if (!r->done) {
                fprintf(stderr, "winnow bench: %s on %s: %s\n", job->workload->name, name, r->error);
                return false;
            }
            spent[c] += r->wall_s;
            if (r->checksum != set[0].run[0]->checksum) {
                fprintf(
                    stderr,
                    "winnow bench: %s: checksum %08llx on %s, but %08llx on %s: one of them is wrong, no figures are "
                    "shown; narrow it down by --option verify=on --scale 0.01\n",
                    job->workload->name, (unsigned long long)r->checksum, name,
                    (unsigned long long)set[0].run[0]->checksum, wn_collector_name(a->collector[0]));
                return false;
            }
        }
    }
    return true;
}

static bool run_workload(const arguments *a, const bench_workload *w, const output *out) {
    bench_job job = {.workload = w, .settings = &a->settings, .options = a->options, .in_process = a->in_process};
    progress p = {.terminal = isatty(STDERR_FILENO)};
    if (!a->quiet) job.progress = show_progress, job.data = &p;
    choose_params(a, w, job.param);
    /* A program with one thread says so, and counts need no atomics. A collector without counts ignores it. */
    if (a->settings.threads == 1 && !a->single_thread_named) job.options.single_thread = true;

    static bench_result *runs[COLLECTORS][MAX_RUNS];
    bench_job jobs[COLLECTORS];
    bench_set set[COLLECTORS];
    for (unsigned c = 0; c < a->collectors; c++) {
        jobs[c] = job;
        jobs[c].options.collector = a->collector[c];
        set[c] = (bench_set){.job = &jobs[c], .run = runs[c]};
    }
    bool good = run_all(a, &job, set, &p);
    if (good && out->table) bench_write_heading(out->table, w);
    for (unsigned c = 0; c < a->collectors; c++) {
        if (good && out->table) bench_write_row(out->table, &set[c]);
        if (good && out->json) bench_write_json(out->json, &set[c], a->raw);
        for (unsigned i = 0; i < set[c].n; i++) bench_result_free(runs[c][i]);
    }
    return good;
}

int winnow_bench_main(int argc, char **argv) {
    arguments a;
    int status = parse(&a, argc, argv);
    if (status == GO_ON) status = check_overrides(&a);
    uint64_t ignored[BENCH_PARAMS];
    for (unsigned i = 0; status == GO_ON && i < a.workloads; i++) status = choose_params(&a, a.workload[i], ignored);
    if (status != GO_ON) return status;

    output out = {.table = stdout};
    if (a.json && strcmp(a.json, "-") == 0) {
        out = (output){.json = stdout};
    } else if (a.json) {
        out.json = fopen(a.json, "w");
        if (!out.json) return misuse("--json %s: %s; name a file that can be written, or -", a.json, strerror(errno));
    }
    bool good = true;
    for (unsigned i = 0; i < a.workloads; i++) good &= run_workload(&a, a.workload[i], &out);
    if (out.json && fflush(out.json) | ferror(out.json)) {
        fprintf(stderr, "winnow bench: --json %s: could not be written: %s\n", a.json, strerror(errno));
        good = false;
    }
    if (out.json && out.json != stdout) fclose(out.json);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
