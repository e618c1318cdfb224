/* cycles.c - "doesn't detect cycles": the two dicts of the talk, counted, drawn and freed. */
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tour.h"

extern char **environ;

/* Runs `dot -Tsvg -o svg` on the file; 0, 127 when there is no dot, else its exit status. */
static int run_dot(FILE *graph, const char *svg) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(graph), 0);
    char *arguments[] = {(char *)"dot", (char *)"-Tsvg", (char *)"-o", (char *)svg, NULL};
    pid_t child;
    int error = posix_spawnp(&child, "dot", &actions, NULL, arguments, environ), status = 0;
    posix_spawn_file_actions_destroy(&actions);
    if (error) return 127;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Writes the DOT text beside where the picture was to be. */
static bool save_dot(FILE *graph, const char *svg, char *name, size_t n) {
    snprintf(name, n, "%s.dot", svg);
    FILE *out = fopen(name, "w");
    if (!out) return false;
    rewind(graph);
    for (int c; (c = fgetc(graph)) != EOF;) fputc(c, out);
    return fclose(out) == 0;
}

static void draw(tour *t, wn_mutator *m, wn_dict *obj_1, wn_dict *obj_2) {
    const char *svg = tour_svg(t);
    FILE *graph = tmpfile();
    void *objects[] = {obj_1, obj_2};
    bool drawn = graph && wn_heap_graph(m, graph, objects, 2, 0) == WN_OK && fflush(graph) == 0;
    long bytes = drawn ? ftell(graph) : 0;
    tour_text(t, "wn_heap_graph wrote", "%ld bytes of Graphviz DOT", bytes);
    if (drawn && svg) {
        rewind(graph);
        int status = run_dot(graph, svg);
        char name[4096];
        if (status == 0)
            tour_text(t, "and dot made of them", "%s", svg);
        else if (status == 127 && save_dot(graph, svg, name, sizeof name))
            tour_text(t, "no picture", "Graphviz is not installed (apt install graphviz); then: dot -Tsvg %s", name);
        else
            tour_unwritten(t, svg);
    }
    tour_claim(t, drawn && bytes > 0, "The heap itself confirms that this is a cycle%s.",
               svg ? "" : "; --svg FILE draws it");
    if (graph) fclose(graph);
}

void tour_cycles(tour *t) {
    tour_chapter(t, "The ugly, 2 of 2: cyclical references");
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    wn_disable(s.heap); /* no automatic collection: only what counting does by itself */
    tour_say(t, "Only containers can form a cycle. The talk's example:");
    tour_lines(t, "obj_1, obj_2 = {}, {}\n"
                  "obj_1['next'], obj_2['next'] = obj_2, obj_1\n"
                  "\n"
                  "obj_1 ──> { 'next': ──────> { 'next': · } <── obj_2\n"
                  "            ^                         │\n"
                  "            └─────────────────────────┘");
    {
        wn_root(m, wn_weakref *, w1, NULL);
        wn_root(m, wn_weakref *, w2, NULL);
        size_t named;
        {
            wn_root(m, wn_dict *, obj_1, wn_dict_new(m, 0));
            wn_root(m, wn_dict *, obj_2, wn_dict_new(m, 0));
            wn_dict_put(m, obj_1, "next", wn_keep(m, obj_2));
            wn_dict_put(m, obj_2, "next", wn_keep(m, obj_1));
            char *text = wn_repr_text(m, obj_1);
            if (text) tour_text(t, "obj_1", "%s", text);
            free(text);
            named = wn_refcount(m, obj_1);
            draw(t, m, obj_1, obj_2);
            wn_take(m, w1, wn_weakref_new(m, obj_1, NULL, NULL));
            wn_take(m, w2, wn_weakref_new(m, obj_2, NULL, NULL));
        }
        tour_say(t, "Now both names go out of scope.");
        for (int i = 0; i < 1000; i++) wn_poll(m);
        bool alive = tour_is_alive(m, w1) && tour_is_alive(m, w2);
        size_t unnamed = 0;
        {
            wn_root(m, wn_dict *, still, wn_weakref_get(m, w1));
            if (still) unnamed = wn_refcount(m, still) - tour_counts(t); /* less the one of `still` */
        }
        if (tour_counts(t)) {
            tour_count(t, "references to obj_1 before", named);
            tour_count(t, "... and after", unnamed);
        }
        tour_text(t, "still in memory", "%s", alive ? "both" : "no");
        if (tour_counts(t))
            tour_claim(t, alive && named == 2 && unnamed == 1,
                       "Each dict keeps the other's count at 1: counting alone never frees them.");
        else
            tour_claim(t, alive, "They wait for a collection, as everything does on this collector.");
        wn_collect_result result;
        wn_collect(m, 2, &result);
        tour_count(t, "objects that wn_collect(m, 2) freed", result.collected);
        tour_time(t, "in", result.duration_ns);
        tour_claim(t, !tour_is_alive(m, w1) && !tour_is_alive(m, w2) && result.collected >= 2,
                   tour_counts(t) ? "So there is a second collector, a tracing one, for cycles: it frees them."
                                  : "A tracing collector sees no difference between a cycle and other garbage.");
    }
    wn_enable(s.heap);
    stage_close(t, &s);
}
