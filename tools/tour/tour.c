/*
 * tour.c - `winnow tour`: the claims of the talk about garbage collection that Winnow grew from, shown live. The
 * command line, and the stage that chapters play on.
 *
 * Invariant: the exit status is 0 only if every claim held and every file was written.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../commands.h"
#include "report.h"

static void usage(FILE *out) {
    fputs("Usage: winnow tour [OPTION...]\n"
          "Shows how garbage collection works, claim by claim, on a heap of this library: reference counting,\n"
          "interning, threads, cycles, generations, finalizers, freeze and fork, steps, marking beside the program.\n"
          "Everything that is shown is counted and timed while you watch.\n\n"
          "  -c, --collector NAME     refcount, incremental or concurrent; default WINNOW_COLLECTOR, or refcount\n"
          "  -o, --option NAME=VALUE  an option of the heap; `winnow options` lists them\n"
          "      --svg FILE           draw the cycle of two dicts into FILE (needs Graphviz)\n"
          "      --json               one JSON object per claim and line instead of text\n"
          "  -h, --help               this text\n\n"
          "The exit status is 0 when every claim holds, 1 when one does not or a file could not be written, 2 for a\n"
          "mistake in the arguments.\n",
          out);
}

/* ---- the stage --------------------------------------------------------------------------------------------------- */

wn_options tour_options(const tour *t) { return t->options; }

static void die(const char *what) {
    const char *message = wn_error_message();
    fprintf(stderr, "winnow tour: %s: %s\n", what, *message ? message : "out of memory");
    exit(EXIT_FAILURE);
}

stage stage_open(tour *t, const wn_options *options) {
    stage s;
    if (wn_heap_new(options ? options : &t->options, &s.heap)) die("cannot make a heap");
    if (wn_attach(s.heap, &s.m)) die("cannot attach to the heap");
    if (wn_objects_new(s.m, &s.shared)) die("cannot make the shared objects");
    return s;
}

void stage_close(tour *t, stage *s) {
    wn_objects_free(s->m, s->shared);
    if (wn_detach(s->m) || wn_heap_free(s->heap))
        tour_claim(t, false, "the chapter's heap can be given back: %s", wn_error_message());
}

bool tour_counts(const tour *t) { return t->collector == WN_COLLECTOR_REFCOUNT; }
bool tour_moves(const tour *t) { return t->collector == WN_COLLECTOR_INCREMENTAL; }
const char *tour_collector(const tour *t) { return wn_collector_name(t->collector); }
const char *tour_svg(const tour *t) { return t->svg; }
void tour_unwritten(tour *t, const char *file) {
    t->unwritten = true;
    fflush(stdout);
    fprintf(stderr, "winnow tour: %s could not be written; name another file\n", file);
}

bool tour_is_instrumented(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return false;
}
static bool stressed;
size_t tour_scale_to(size_t n, size_t instrumented) {
    if (tour_is_instrumented()) n = instrumented;
    return !stressed ? n : n > 10000 ? n / 500 : 20;
}
size_t tour_scale(size_t n) { return tour_scale_to(n, n / 10); }

/* ---- small things ------------------------------------------------------------------------------------------------ */

uint64_t tour_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void node_describe(const void *object, char *buf, size_t n) {
    snprintf(buf, n, "%ld", ((const node *)object)->number);
}
const wn_type tour_node_type = WN_TYPE(node, WN_REFS(node, next, other), .describe = node_describe);

void tour_push_node(wn_mutator *m, node **list, long number) {
    node *n = wn_new(m, &tour_node_type);
    if (!n) die("cannot make a node");
    n->number = number;
    wn_move(m, n, next, wn_give(m, *list));
    wn_take(m, *list, n);
}

bool tour_is_alive(wn_mutator *m, wn_weakref *w) {
    wn_root(m, wn_object *, target, wn_weakref_get(m, w));
    return target != NULL;
}

wn_stats *tour_stats(wn_heap *heap) {
    static wn_stats stats;
    wn_get_stats(heap, &stats);
    return &stats;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int usage_error(const char *message) {
    fprintf(stderr, "winnow tour: %s\nTry `winnow tour --help`.\n", message);
    return WINNOW_EXIT_USAGE;
}

/* Sets NAME=VALUE; false after a message. */
static bool set_option(wn_options *options, const char *text) {
    const char *equals = strchr(text, '=');
    if (!equals) {
        fprintf(stderr, "winnow tour: --option wants NAME=VALUE, not '%s'; `winnow options` lists the names\n", text);
        return false;
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
    if (wn_options_set(options, name, equals + 1)) {
        fprintf(stderr, "winnow tour: %s\n", wn_error_message());
        return false;
    }
    return true;
}

enum { GO_ON = -1 };

/* GO_ON, or the exit status. */
static int parse(tour *t, int argc, char **argv, bool *options_given) {
    enum { SVG = 256, JSON };
    static const struct option long_options[] = {{"collector", required_argument, NULL, 'c'},
                                                 {"option", required_argument, NULL, 'o'},
                                                 {"svg", required_argument, NULL, SVG},
                                                 {"json", no_argument, NULL, JSON},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "c:o:h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            if (wn_options_set(&t->options, "collector", optarg)) return usage_error(wn_error_message());
            break;
        case 'o':
            if (!set_option(&t->options, optarg)) return WINNOW_EXIT_USAGE;
            *options_given = true;
            break;
        case SVG: t->svg = optarg; break;
        case JSON: t->json = true; break;
        case 'h': usage(stdout); return EXIT_SUCCESS;
        default: fprintf(stderr, "Try `winnow tour --help`.\n"); return WINNOW_EXIT_USAGE;
        }
    }
    return optind < argc ? usage_error("it takes options only") : GO_ON;
}

static void play(tour *t) {
    if (!t->json) printf("An insight into garbage collection, live, on the %s collector.\n", tour_collector(t));
    tour_counting(t);
    tour_threads(t);
    tour_cycles(t);
    tour_generations(t);
    tour_collection(t);
    tour_fork(t);
    tour_steps(t);
    tour_concurrent(t);
    if (t->json) return;
    printf("\n%u claims, ", t->claims);
    printf(t->failed ? "%u of which do not hold.\n" : "all of which hold.\n", t->failed);
    printf("The same tour on the others: winnow tour --collector refcount | incremental | concurrent\n");
}

int winnow_tour_main(int argc, char **argv) {
    tour t = {.options = wn_options_default()};
    bool options_given = false;
    /* Checking keeps dead objects back for a while, which would show in every count of bytes. */
    t.options.check = false;
    int status = parse(&t, argc, argv, &options_given);
    if (status != GO_ON) return status;
    t.color = !t.json && isatty(STDOUT_FILENO) && !getenv("NO_COLOR");

    wn_heap *heap; /* to learn what the options and the environment mean together */
    if (wn_heap_new(&t.options, &heap)) return usage_error(wn_error_message());
    t.collector = wn_heap_collector(heap);
    stressed = wn_heap_options(heap).stress != 0;
    wn_heap_free(heap);

    play(&t);
    if (t.failed && (options_given || getenv("WINNOW_OPTIONS")))
        fputs("winnow tour: the claims are made for the default options; --option and WINNOW_OPTIONS change what "
              "happens when, and with it what holds\n",
              stderr);
    return t.failed || t.unwritten ? EXIT_FAILURE : EXIT_SUCCESS;
}
