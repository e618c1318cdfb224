/* collection.c - one collection from the inside: trial deletion by hand, finalizers and resurrection, callbacks,
 * pauses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tour.h"

/* ---- trial deletion ---------------------------------------------------------------------------------------------- */

enum { MEMBERS = 5 };

typedef struct trial {
    node *members[MEMBERS];
    long gc_refs[MEMBERS];
    bool reachable[MEMBERS], subtract;
} trial;

static bool visit_member(void *object, void *data) {
    trial *x = data;
    for (int i = 0; i < MEMBERS; i++) {
        if (x->members[i] != object) continue;
        if (x->subtract)
            x->gc_refs[i]--;
        else
            x->reachable[i] = true;
    }
    return true;
}

static void by_hand(tour *t, wn_mutator *m) {
    tour_say(
        t,
        "The cycle search, done by hand with the library's own questions (wn_refcount, wn_referents). A is held by a "
        "variable and refers to B, B to C, and C back to A; D and E refer to each other and nobody holds them:");
    tour_lines(t, "variable ──> A ──> B ──> C          D ──> E\n"
                  "             ^           │          ^     │\n"
                  "             └───────────┘          └─────┘");
    wn_root(m, wn_list *, watched, wn_list_new(m, MEMBERS));
    wn_root(m, node *, a, NULL);
    size_t counts[MEMBERS];
    trial x = {0};
    {
        /* Borrowed: declared so that they follow their objects, but not counted. */
        wn_borrow(m, node *, b, NULL);
        wn_borrow(m, node *, c, NULL);
        wn_borrow(m, node *, d, NULL);
        wn_borrow(m, node *, e, NULL);
        {
            node **variables[MEMBERS] = {&a, &b, &c, &d, &e};
            for (int i = 0; i < MEMBERS; i++) {
                wn_root(m, node *, n, NULL);
                tour_push_node(m, &n, 'A' + i);
                wn_list_push(m, watched, wn_weakref_new(m, n, NULL, NULL));
                *variables[i] = wn_give(m, n);
            }
        }
        /* b to e now own a reference that nobody will release: exactly the one that a member is to hold. */
        wn_move(m, a, next, b);
        wn_move(m, b, next, c);
        wn_set(m, c, next, a);
        wn_move(m, d, next, e);
        wn_move(m, e, next, d);

        node *members[MEMBERS] = {a, b, c, d, e}; /* no safepoint until `x` is done with */
        memcpy(x.members, members, sizeof members);
        for (int i = 0; i < MEMBERS; i++) x.gc_refs[i] = (long)(counts[i] = wn_refcount(m, members[i]));
        x.subtract = true;
        for (int i = 0; i < MEMBERS; i++) wn_referents(m, x.members[i], visit_member, &x);
        x.subtract = false;
        /* What is referred to from outside is alive (tracing: what the variable holds), and all it leads to. */
        for (int i = 0; i < MEMBERS; i++) x.reachable[i] = tour_counts(t) ? x.gc_refs[i] > 0 : i == 0;
        for (int round = 0; round < MEMBERS; round++)
            for (int i = 0; i < MEMBERS; i++)
                if (x.reachable[i]) wn_referents(m, x.members[i], visit_member, &x);
    }
    if (tour_counts(t)) {
        char table[512];
        int used = snprintf(table, sizeof table, "object              A  B  C  D  E\nreference count   ");
        for (int i = 0; i < MEMBERS; i++)
            used += snprintf(table + used, sizeof table - (size_t)used, "%3zu", counts[i]);
        used += snprintf(table + used, sizeof table - (size_t)used, "\nafter subtraction ");
        for (int i = 0; i < MEMBERS; i++)
            used += snprintf(table + used, sizeof table - (size_t)used, "%3ld", x.gc_refs[i]);
        used += snprintf(table + used, sizeof table - (size_t)used, "\nreachable         ");
        for (int i = 0; i < MEMBERS; i++)
            used += snprintf(table + used, sizeof table - (size_t)used, "%3s", x.reachable[i] ? "✓" : "-");
        tour_lines(t, "%s", table);
        tour_quiz(t, 4, "B and C have 0 after subtraction. Why may they still end up as reachable?");
        tour_answer(
            t, "Because A, which is referenced from outside, refers to them. So what can be collected is known only "
               "when the whole list has been scanned.");
    } else {
        tour_quiz(t, 4, "Why may an object that only others of its generation refer to still be reachable?");
        tour_answer(
            t, "Because one of those may be reachable itself. A tracing collector starts from the other end: from the "
               "variable to A, to B, to C.");
    }
    wn_collect_result result;
    wn_collect(m, 2, &result);
    bool agrees = true;
    for (int i = 0; i < MEMBERS; i++)
        agrees =
            agrees && tour_is_alive(m, wn_list_get(watched, (size_t)i)) == x.reachable[i] && x.reachable[i] == (i < 3);
    tour_count(t, "objects that wn_collect freed", result.collected);
    tour_claim(t, agrees && (!tour_counts(t) || (result.collected == 2 && x.gc_refs[0] == 1 && x.gc_refs[1] == 0)),
               "The collector agrees: A, B and C live, D and E are gone.");
}

static void trial_deletion(tour *t) {
    stage s = stage_open(t, NULL);
    wn_disable(s.heap);
    by_hand(t, s.m);
    stage_close(t, &s);
}

/* ---- finalizers -------------------------------------------------------------------------------------------------- */

typedef struct patient {
    wn_object head;
    struct patient *friend_;
    bool wants_to_live;
} patient;

/* What happened, in order: W a weak reference's callback, F a finalizer, R the memory of an object given back. */
static char journal[32];
static patient *saved; /* a global root, which a finalizer resurrects itself into */

static void note(char what) {
    size_t n = strlen(journal);
    if (n + 1 < sizeof journal) journal[n] = what;
}
static size_t noted(char what) {
    size_t n = 0;
    for (const char *p = journal; *p; p++) n += *p == what;
    return n;
}
static void on_death(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m, (void)ref, (void)data;
    note('W');
}
static void finalize(wn_mutator *m, void *object) {
    patient *p = object;
    note('F');
    if (p->wants_to_live) wn_assign(m, saved, p);
}
static void released(void *object) {
    (void)object;
    note('R');
}
static const wn_type patient_type =
    WN_TYPE(patient, WN_REFS(patient, friend_), .finalize = finalize, .release = released);

static void finalizers(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    memset(journal, 0, sizeof journal);
    saved = NULL;
    wn_global(s.heap, &saved);
    tour_say(t,
             "Before it frees what it found, the collector runs finalizers, and then looks again: a finalizer may have "
             "resurrected its object (PEP 442). Two objects in a cycle, both with finalizers; one of them stores "
             "itself in a global variable when its finalizer runs:");
    size_t first_f, first_r, w_position, f_position;
    bool resurrected, is_finalized, weak_is_cleared;
    {
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, patient *, p, wn_new(m, &patient_type));
            wn_root(m, patient *, q, wn_new(m, &patient_type));
            p->wants_to_live = true;
            wn_set(m, p, friend_, q);
            wn_set(m, q, friend_, p);
            wn_take(m, w, wn_weakref_new(m, p, on_death, NULL));
        }
        wn_collect(m, 2, NULL);
        wn_poll(m);
        first_f = noted('F'), first_r = noted('R');
        w_position = strcspn(journal, "W"), f_position = strcspn(journal, "F");
        resurrected = saved && saved->friend_ && saved->friend_->friend_ == saved;
        is_finalized = saved && wn_is_finalized(m, saved);
        weak_is_cleared = !tour_is_alive(m, w);
    }
    tour_text(t, "first collection: callbacks, finalizers, freed", "%zu, %zu, %zu", noted('W'), first_f, first_r);
    tour_text(t, "resurrected, with all that it refers to", "%s", resurrected ? "yes" : "no");
    tour_claim(
        t, resurrected && is_finalized && weak_is_cleared && first_f == 2 && first_r == 0 && w_position < f_position,
        "Weak references are cleared and their callbacks run, then finalizers, and what came back to life is kept "
        "whole.");
    wn_assign(m, saved, NULL);
    wn_collect(m, 2, NULL);
    wn_poll(m);
    wn_forget_global(m, &saved);
    stage_close(t, &s); /* with the heap the last memory is given back, if a lazy sweep had left it */
    tour_text(t, "dropped again: finalizers run, freed", "%zu, %zu", noted('F') - first_f, noted('R'));
    tour_text(t, "in all (Weak callback, Finalizer, Released)", "%s", journal);
    tour_claim(t, noted('F') == 2 && noted('R') == 2,
               "A finalizer runs once in an object's life; the second time it just dies.");
}

/* ---- callbacks --------------------------------------------------------------------------------------------------- */

typedef struct heard {
    char text[600];
    unsigned starts, stops;
    size_t collected;
} heard;

static void listen(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    heard *h = data;
    size_t used = strlen(h->text);
    if (event->kind == WN_EVENT_COLLECT_START) {
        h->starts++;
        snprintf(h->text + used, sizeof h->text - used, "start  generation %d\n", event->generation);
    } else if (event->kind == WN_EVENT_COLLECT_STOP) {
        h->stops++;
        h->collected += event->result.collected;
        snprintf(h->text + used, sizeof h->text - used,
                 "stop   generation %d, collected %zu, uncollectable %zu, %.1f µs\n", event->generation,
                 event->result.collected, event->result.uncollectable, (double)event->result.duration_ns / 1e3);
    }
}

static void callbacks(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    wn_disable(s.heap);
    tour_say(t,
             "Who wants to know can listen (gc.callbacks). A hundred cycles become garbage, then generation 0, 1 and 2 "
             "are collected:");
    static heard h;
    memset(&h, 0, sizeof h);
    for (int i = 0; i < 100; i++) {
        wn_root(m, node *, n, NULL);
        tour_push_node(m, &n, i);
        wn_set(m, n, other, n);
    }
    wn_add_listener(s.heap, listen, &h);
    for (int generation = 0; generation <= 2; generation++) wn_collect(m, generation, NULL);
    wn_remove_listener(s.heap, listen, &h);
    wn_enable(s.heap);
    if (*h.text) tour_lines(t, "%s", h.text);
    tour_count(t, "collected", h.collected);
    if (tour_counts(t))
        tour_claim(t, h.starts == 3 && h.stops == 3 && h.collected == 100,
                   "Each collection tells of its start, and at its stop what it did.");
    else
        tour_claim(t, h.starts >= 1 && h.starts == h.stops,
                   "Each collection of the whole heap tells of its start and its stop.");
    stage_close(t, &s);
}

/* ---- the pause --------------------------------------------------------------------------------------------------- */

static void stop_the_world(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t n = tour_scale(300000);
    tour_say(
        t,
        "CPython's collector stops the world: the program makes no progress until it is done. A full collection of "
        "%zu living nodes:",
        n);
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < n; i++) tour_push_node(m, &list, (long)i);
        wn_collect(m, 2, NULL);
        wn_collect_result result;
        uint64_t start = tour_now();
        wn_collect(m, 2, &result);
        uint64_t took = tour_now() - start;
        tour_time(t, "the call", took);
        tour_text(t, "per living object", "%.1f ns (CPython 3.11: 215 to 290)", (double)took / (double)n);
        tour_claim(t, result.collected == 0 && list->number == (long)n - 1 && !list->other,
                   "Nothing of it was garbage, all of it was looked at. %s",
                   tour_counts(t) ? "That is why generations and the 25 % rule matter." : "");
    }
    stage_close(t, &s);
}

void tour_collection(tour *t) {
    tour_chapter(t, "Inner details of a collection");
    trial_deletion(t);
    finalizers(t);
    callbacks(t);
    stop_the_world(t);
}
