/* steps.c - PyPy's way: marking in steps while the program changes the heap, the write barrier, semi-manual control. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tour.h"

static void young_in_old(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_say(
        t, "PyPy counts nothing: new objects are made in a nursery, and a minor collection looks at the nursery only. "
           "Then who finds a young object that only an old one refers to? An old node gets a new one, and a minor "
           "collection runs:");
    uint64_t slow;
    bool intact;
    {
        wn_root(m, node *, old, NULL);
        tour_push_node(m, &old, 1);
        wn_collect(m, 2, NULL);
        wn_collect(m, 2, NULL);
        slow = tour_stats(s.heap)->barrier_slow;
        {
            wn_root(m, node *, young, NULL);
            tour_push_node(m, &young, 2019);
            wn_set(m, old, other, young);
        }
        slow = tour_stats(s.heap)->barrier_slow - slow;
        wn_collect(m, 0, NULL);
        for (int i = 0; i < 1000; i++) { /* memory that was freed by mistake would be used again */
            wn_root(m, node *, n, NULL);
            tour_push_node(m, &n, i);
        }
        intact = old->other && old->other->number == 2019;
    }
    tour_count(t, "times the write barrier took note", slow);
    tour_claim(t, intact && (!tour_moves(t) || slow > 0),
               tour_moves(t)
                   ? "The write barrier noted the old object when it was written to, so the young one was found."
                   : "It lives: this collector does not depend on it, but the same call, wn_set, serves all three.");
    stage_close(t, &s);
}

enum { PHASES = WN_PHASE_FINALIZING + 1 };

/* What a major collection did, step by step. */
typedef struct walk {
    unsigned steps, in_phase[PHASES];
    uint64_t longest, all;
    size_t freed;
    char phases[160]; /* the states in order, repetitions left out */
    bool done;
} walk;

static void note_phase(walk *w, wn_phase phase) {
    const char *name = wn_phase_name(phase);
    size_t used = strlen(w->phases), n = strlen(name);
    if (used >= n && strcmp(w->phases + used - n, name) == 0) return;
    snprintf(w->phases + used, sizeof w->phases - used, "%s%s", used ? " → " : "", name);
}

static void one_step(wn_mutator *m, walk *w) {
    wn_step_result r;
    if (wn_collect_step(m, &r)) return;
    w->steps++;
    w->in_phase[r.before]++;
    w->all += r.duration_ns;
    w->freed += r.freed_objects;
    if (r.duration_ns > w->longest) w->longest = r.duration_ns;
    note_phase(w, r.before);
    note_phase(w, r.after);
    w->done = r.major_is_done;
}

static void tri_color(tour *t) {
    wn_options options = tour_options(t);
    if (tour_moves(t)) { /* small steps, so that there are many */
        options.nursery = 512 << 10;
        options.step_bytes = 256 << 10;
    }
    stage s = stage_open(t, &options);
    wn_mutator *m = s.m;
    size_t n = tour_scale(200000);
    tour_say(
        t, "A major collection is split into steps, and the program runs between them. While it marks, an object is "
           "white (not seen), grey (seen), or black (all its references followed), and no black object may refer to a "
           "white one. A malicious program: between the steps it takes nodes off the end of a long list that is not "
           "marked yet, and hangs them on one that has been marked long ago:");
    size_t moved = 0, found = 0;
    walk w = {.steps = 0};
    {
        wn_root(m, node *, black, NULL); /* marked first */
        wn_root(m, node *, list, NULL);
        tour_push_node(m, &black, -1);
        for (size_t i = 0; i < n; i++) tour_push_node(m, &list, (long)i);
        wn_collect(m, 2, NULL);
        wn_disable(s.heap);
        wn_root(m, node *, end, wn_keep(m, list)); /* the part that stays, up to a node in the last third */
        for (size_t i = 0; i < n - n / 3; i++) wn_assign(m, end, end->next);
        while (!w.done && w.steps < 100000) {
            one_step(m, &w);
            for (int k = 0; k < 20 && end->next; k++) {
                wn_hold(m, node *, white, end->next);
                wn_set(m, end, next, white->next);
                wn_set(m, white, next, black->next);
                wn_set(m, black, next, white);
                moved++;
            }
        }
        wn_enable(s.heap);
        wn_collect(m, 0, NULL);
        char *seen = calloc(n, 1);
        for (int part = 0; part < 2; part++)
            for (const node *p = part ? list : black->next; p; p = p->next)
                if (seen && p->number >= 0 && (size_t)p->number < n && !seen[p->number]) {
                    seen[p->number] = 1;
                    found++;
                }
        free(seen);
    }
    tour_text(t, "states", "%s", w.phases);
    tour_count(t, "steps", w.steps);
    tour_time(t, "the longest step", w.longest);
    tour_count(t, "nodes moved from white to black", moved);
    tour_count(t, "nodes lost", n - found);
    tour_claim(t, w.done && moved > 0 && found == n,
               "Nothing is lost: the write barrier makes a changed black object grey again%s.",
               tour_moves(t) ? "" : ", where a collector works in steps; this one did its work in one");
    stage_close(t, &s);
}

static void semi_manual(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t n = tour_scale(300000);
    tour_say(t,
             "When latency must be predictable, PyPy lets the program say when: gc.disable() stops the major "
             "collections, and gc.collect_step() runs one step. A busy time, in which %zu cycles become garbage, and "
             "then a quiet one:",
             n);
    uint64_t majors, full, slices = 0;
    bool waited, gone;
    walk w = {.steps = 0};
    wn_step_result budget = {.major_is_done = false};
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < n; i++) tour_push_node(m, &list, (long)i);
        wn_root(m, wn_weakref *, watch, NULL);
        uint64_t start = tour_now();
        wn_collect(m, 2, NULL);
        full = tour_now() - start;

        wn_disable(s.heap);
        majors = tour_stats(s.heap)->majors;
        for (size_t i = 0; i < n; i++) {
            wn_root(m, node *, garbage, NULL);
            tour_push_node(m, &garbage, (long)i);
            wn_set(m, garbage, other, garbage);
            if (i == 0) {
                wn_collect(m, 0, NULL); /* it is no longer young: only a major collection frees it */
                wn_take(m, watch, wn_weakref_new(m, garbage, NULL, NULL));
            }
        }
        majors = tour_stats(s.heap)->majors - majors;
        waited = tour_is_alive(m, watch);
        while (!w.done && w.steps < 100000) one_step(m, &w);
        /* A weak reference that has just been asked keeps its target for the collection under way; one more finds it.
         */
        for (walk again = {.steps = 0}; !again.done && again.steps < 100000;) one_step(m, &again);
        gone = !tour_is_alive(m, watch);

        for (size_t i = 0; i < n / 2; i++) {
            wn_root(m, node *, garbage, NULL);
            tour_push_node(m, &garbage, (long)i);
            wn_set(m, garbage, other, garbage);
        }
        while (!budget.major_is_done && slices < 100000 && wn_collect_for(m, 1000000, &budget) == WN_OK) slices++;
        wn_enable(s.heap);
    }
    tour_count(t, "major collections in the busy time", majors);
    tour_count(t, "steps in the quiet time", w.steps);
    tour_text(t, "states", "%s", w.phases);
    tour_time(t, "the longest step", w.longest);
    tour_time(t, "a full collection at one go", full);
    tour_count(t, "calls of wn_collect_for with 1 ms each for the next", slices);
    tour_claim(t, waited && gone && majors == 0 && w.done && budget.major_is_done,
               "While it is disabled nothing major happens; then the program pays when it has the time%s.",
               tour_moves(t) ? ", in small coins" : "");
    stage_close(t, &s);
}

void tour_steps(tour *t) {
    tour_chapter(t, "PyPy's way: in steps");
    young_in_old(t);
    tri_color(t);
    semi_manual(t);
}
