/*
 * fork.c - the Instagram story: what a collection in a forked worker does to the pages it shares with its parent,
 * measured with the kernel's own figure, the private dirty memory of /proc/self/smaps_rollup.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tour.h"

/* Bytes of this process that no other process shares; 0 when the kernel does not tell. */
static uint64_t private_dirty(void) {
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    unsigned long long kib = 0;
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Private_Dirty: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

/* A master process's data: dicts of strings and numbers, in a list. A global root, as a worker sees it after fork. */
static wn_list *documents;

static void load(wn_mutator *m, size_t n) {
    wn_take(m, documents, wn_list_new(m, n));
    for (size_t i = 0; i < n; i++) {
        char text[64];
        wn_root(m, wn_dict *, d, wn_dict_new(m, 4));
        wn_dict_put(m, d, "id", wn_int_new(m, (int64_t)i + 1000));
        snprintf(text, sizeof text, "user number %zu", i);
        wn_dict_put(m, d, "name", wn_str_text(m, text));
        snprintf(text, sizeof text, "somewhere in street %zu", i % 1000);
        wn_dict_put(m, d, "address", wn_str_text(m, text));
        wn_dict_put(m, d, "self", wn_keep(m, d)); /* cycles, as real documents have */
        wn_list_append(m, documents, d);
    }
}

/* Serves: follows references, and counts them up and down as a program that uses them does. */
static uint64_t serve(wn_mutator *m) {
    uint64_t sum = 0;
    for (size_t i = 0; i < wn_list_length(documents); i++) {
        wn_hold(m, wn_dict *, d, wn_list_get(documents, i));
        wn_hold(m, wn_str *, name, wn_dict_get_text(d, "name"));
        sum += wn_str_length(name) + (uint64_t)wn_int_value(wn_dict_get_text(d, "id"));
    }
    return sum;
}

typedef struct worker_report {
    uint64_t before, after_collecting, after_serving, sum;
    bool ok;
} worker_report;

/* What a worker does, and what became private by it. */
static worker_report work(wn_mutator *m) {
    worker_report r = {.before = private_dirty(), .ok = true};
    for (int i = 0; i < 3; i++) r.ok = wn_collect(m, 2, NULL) == WN_OK && r.ok;
    r.after_collecting = private_dirty();
    r.sum = serve(m);
    for (int i = 0; i < 2; i++) r.ok = wn_collect(m, 2, NULL) == WN_OK && r.ok;
    r.after_serving = private_dirty();
    return r;
}

/* Forks a worker and waits for its report. */
static worker_report fork_a_worker(wn_mutator *m) {
    worker_report r = {0};
    int ends[2];
    fflush(NULL);
    if (pipe(ends)) return r;
    pid_t child = fork();
    if (child == 0) {
        r = work(m);
        _exit(write(ends[1], &r, sizeof r) == (ssize_t)sizeof r ? 0 : 1);
    }
    close(ends[1]);
    if (child < 0 || read(ends[0], &r, sizeof r) != (ssize_t)sizeof r) r = (worker_report){0};
    close(ends[0]);
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    r.ok = r.ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return r;
}

static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

static void show(tour *t, const worker_report *r, uint64_t heap) {
    uint64_t collecting = less(r->after_collecting, r->before), serving = less(r->after_serving, r->before);
    tour_bytes(t, "became private by three full collections", collecting);
    tour_percent(t, "... of the heap", (double)collecting / (double)heap);
    tour_bytes(t, "and by reading everything, and two more", serving);
    tour_percent(t, "... of the heap", (double)serving / (double)heap);
}

static void the_first_attempt(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t requests = tour_scale(3000);
    tour_say(
        t,
        "Instagram's first attempt was to switch the collector off. They found that code without cycles is hard to "
        "write: %zu requests, each of which leaves a cycle with 20 KiB in it:",
        requests);
    wn_disable(s.heap);
    uint64_t before = tour_stats(s.heap)->live_bytes;
    for (size_t i = 0; i < requests; i++) {
        wn_root(m, wn_list *, l, wn_list_new(m, 0));
        wn_list_append(m, l, l);
        char *text = calloc(1, 2000);
        for (int k = 0; text && k < 10; k++) wn_list_push(m, l, wn_str_new(m, text, 1999));
        free(text);
    }
    uint64_t leaked = less(tour_stats(s.heap)->live_bytes, before);
    wn_enable(s.heap);
    wn_collect(m, 2, NULL);
    uint64_t left = less(tour_stats(s.heap)->live_bytes, before);
    tour_bytes(t, "leaked with the collector off", leaked);
    tour_bytes(t, "... and after one collection", left);
    bool freed = left < leaked / 20 || left < (1 << 20), grew = leaked / requests >= 16000;
    tour_claim(t, freed, "%s",
               grew ? "Without it the memory grows until the server is restarted, which is what they did."
                    : "Here wn_disable stops the long collections only; what dies young is freed all the same.");
    stage_close(t, &s);
}

static void copy_on_write(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    documents = NULL;
    wn_global(s.heap, &documents);
    load(m, tour_scale(100000));
    wn_collect(m, 2, NULL);
    uint64_t heap = tour_stats(s.heap)->heap_bytes;
    bool can_measure = private_dirty() > 0 && !tour_is_instrumented();
    tour_say(t,
             "Workers forked from a loaded master share its memory until one of them writes to a page. CPython's "
             "collector writes into every container (_gc_prev), and counting writes into everything that is only read "
             "(ob_refcnt); so most of the memory is copied soon. A worker here, without any precaution:");
    tour_bytes(t, "loaded by the master", heap);
    worker_report plain = fork_a_worker(m);
    if (can_measure) show(t, &plain, heap);
    uint64_t growth = less(plain.after_serving, plain.before);
    tour_claim(t, plain.ok && (!can_measure || growth <= heap / 5),
               "The pages that hold objects stay shared: what becomes private is the collector's own tables%s.",
               tour_counts(t) ? ", counts included" : "");

    tour_say(t, "The second attempt became part of Python 3.7, gc.freeze(): before the fork everything is moved to a "
                "permanent generation that no collection looks at.");
    wn_weakref *watch = NULL;
    wn_global(s.heap, &watch);
    {
        wn_root(m, node *, n, NULL); /* a cycle that is garbage when the heap is frozen */
        tour_push_node(m, &n, 1);
        wn_set(m, n, other, n);
        wn_take(m, watch, wn_weakref_new(m, n, NULL, NULL));
        wn_disable(s.heap);
    }
    wn_freeze(m);
    size_t frozen = wn_frozen_count(s.heap);
    worker_report ice = fork_a_worker(m);
    wn_collect(m, 2, NULL);
    bool kept = tour_is_alive(m, watch);
    wn_unfreeze(m);
    wn_enable(s.heap);
    size_t thawed = wn_frozen_count(s.heap);
    wn_collect(m, 2, NULL);
    bool gone = !tour_is_alive(m, watch);
    tour_count(t, "objects frozen", frozen);
    if (can_measure) show(t, &ice, heap);
    uint64_t frozen_collecting = less(ice.after_collecting, ice.before),
             collecting = less(plain.after_collecting, plain.before);
    tour_claim(t, ice.ok && ice.sum == plain.sum && (!can_measure || frozen_collecting <= collecting + heap / 20),
               "With freeze a collection in the worker hardly has anything to write at all.");
    tour_text(t, "garbage that was frozen too: after a collection", "%s", kept ? "still there" : "freed");
    tour_text(t, "... after unfreezing and another", "%s", gone ? "freed" : "still there");
    tour_count(t, "objects frozen now", thawed);
    tour_claim(t, frozen > 0 && kept && gone && thawed == 0,
               "Frozen objects are hidden from collections, garbage included, until wn_unfreeze gives them back.");
    wn_forget_global(m, &watch);
    wn_forget_global(m, &documents);
    stage_close(t, &s);
}

void tour_fork(tour *t) {
    tour_chapter(t, "Garbage collection in real life: an Instagram story");
    the_first_attempt(t);
    copy_on_write(t);
}
