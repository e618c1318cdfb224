/*
 * tour.h - what the chapters of `winnow tour` share: the stage they play on and the way they report.
 *
 * A chapter shows claims live: it runs a little program on a heap of its own, shows what was counted and timed, and
 * says by tour_claim whether the claim held. Claims rest on counts and states, never on how fast a machine is; times
 * are shown beside them. No chapter knows how the report looks, and none has a version per collector: where the
 * collectors differ, what it says hangs on what was measured or on what wn_heap_collector answers.
 */
#ifndef WINNOW_TOOLS_TOUR_H
#define WINNOW_TOOLS_TOUR_H

#include <winnow.h>
#include <winnow/objects.h>

typedef struct tour tour;

/* ---- chapters, in the talk's order ------------------------------------------------------------------------------- */

void tour_counting(tour *t);    /* counts, interning, the good and the bad of counting */
void tour_threads(tour *t);     /* the first ugly: counts and threads */
void tour_cycles(tour *t);      /* the second ugly: the two dicts */
void tour_generations(tour *t); /* generations, thresholds, counts, the 25 % rule */
void tour_collection(tour *t);  /* one collection from the inside: trial deletion, finalizers, callbacks */
void tour_fork(tour *t);        /* copy-on-write, disable, freeze */
void tour_steps(tour *t);       /* incremental marking, the write barrier, semi-manual control */
void tour_concurrent(tour *t);  /* marking beside the program */

/* ---- the stage: a heap with this thread on it -------------------------------------------------------------------- */

typedef struct stage {
    wn_heap *heap;
    wn_mutator *m;
    wn_objects *shared;
} stage;

/* The options that the user asked for; a chapter may change a copy. */
wn_options tour_options(const tour *t);
/* Makes a heap; options NULL: the user's. Ends the program with the library's message when that fails. */
stage stage_open(tour *t, const wn_options *options);
/* Gives everything back; that this works is a claim too. */
void stage_close(tour *t, stage *s);

bool tour_counts(const tour *t); /* the collector counts references */
bool tour_moves(const tour *t);  /* the collector moves objects */
const char *tour_collector(const tour *t);
/* Whether the program is built so that memory and time say nothing about the library (sanitizers). */
bool tour_is_instrumented(void);
/* n, or a tenth of it when instrumented; of either a five-hundredth (20 at least) under stress, where everything that
 * is made costs a collection of all that there is. */
size_t tour_scale(size_t n);
/* The same where a tenth would be too little to see something. */
size_t tour_scale_to(size_t n, size_t instrumented);
/* Where the picture goes, or NULL. */
const char *tour_svg(const tour *t);
/* A file could not be written: says so, and the tour fails without a claim that would. */
void tour_unwritten(tour *t, const char *file);

/* ---- reporting --------------------------------------------------------------------------------------------------- */

#define TOUR_PRINTF(f) __attribute__((format(printf, f, f + 1)))

void tour_chapter(tour *t, const char *title);
/* A paragraph; it is wrapped. */
void tour_say(tour *t, const char *format, ...) TOUR_PRINTF(2);
/* Lines that stay as they are: code, a drawing, a table. */
void tour_lines(tour *t, const char *format, ...) TOUR_PRINTF(2);
void tour_quiz(tour *t, int number, const char *format, ...) TOUR_PRINTF(3);
void tour_answer(tour *t, const char *format, ...) TOUR_PRINTF(2);

/* Something measured. The name is also the key in the JSON of the claim that follows. */
void tour_count(tour *t, const char *name, uint64_t n);
void tour_time(tour *t, const char *name, uint64_t ns);
void tour_bytes(tour *t, const char *name, uint64_t bytes);
void tour_percent(tour *t, const char *name, double fraction);
void tour_text(tour *t, const char *name, const char *format, ...) TOUR_PRINTF(3);

/* What the measured shows, and whether it does. Returns `holds`. */
bool tour_claim(tour *t, bool holds, const char *format, ...) TOUR_PRINTF(3);

/* ---- small things every chapter needs ---------------------------------------------------------------------------- */

uint64_t tour_now(void); /* nanoseconds */

/* The simplest container: two references and a number. */
typedef struct node {
    wn_object head;
    struct node *next, *other;
    long number;
} node;
extern const wn_type tour_node_type;
/* A new node in front of a list that the caller holds as a root or global; ends the program when memory is out. */
void tour_push_node(wn_mutator *m, node **list, long number);

/* Whether a weak reference still has its target. */
bool tour_is_alive(wn_mutator *m, wn_weakref *w);
wn_stats *tour_stats(wn_heap *heap); /* valid until the next call; too large for the stack of a small thread */

#endif
