/*
 * client.h - what the client tests share: opening a heap, a few types, a log of what hooks said.
 *
 * These tests know the public interface only and are the same source for every collector. The collector comes from
 * WINNOW_COLLECTOR; one that this build lacks makes the whole program exit with CLIENT_SKIP. WINNOW_OPTIONS may add
 * stress and verification, WINNOW_TEST_SCALE divides sizes (sanitizers, stress).
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <winnow.h>
#include <cmocka.h>

enum { CLIENT_SKIP = 77, CLIENT_IDS = 1 << 18 };

typedef struct client {
    wn_heap *heap;
    wn_mutator *m;
} client;

/* A heap with these options (NULL: the defaults) and the calling thread attached to it. */
client client_open(const wn_options *options);
/* Of a heap of the incremental collector in which nothing is born old and no major begins by itself. */
wn_options client_quiet_options(void);
/* Verifies, detaches and frees; fails the test when any of it complains. */
void client_close(client *c);

/* Runs the tests unless the collector is missing; what main returns. */
int client_main(const char *name, const struct CMUnitTest *tests, size_t n);
#define CLIENT_MAIN(name, tests) client_main(name, tests, sizeof(tests) / sizeof((tests)[0]))

bool client_counts(const client *c); /* is this reference counting? */
bool client_moves(const client *c);  /* may objects move? */
bool client_stressed(void);          /* collections happen at every allocation, so no test may count them */
size_t client_scaled(size_t n);      /* n, or less (20 at least) when a sanitizer or stress makes everything slow */
bool client_sanitized(void);         /* address space limits and huge blocks are not to be tried */

/* Objects that exist, by a walk; under the tracing collectors dead ones may be among them. */
size_t client_alive(wn_mutator *m);

/* A full collection that must succeed. */
wn_collect_result client_collect(wn_mutator *m);

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Two references and a number; no hooks: allocated by the inline path. */
typedef struct pair {
    wn_object head;
    void *a, *b;
    long id;
} pair;
extern const wn_type pair_type;

/* The same, with hooks that log by id (below CLIENT_IDS): counts, and the order of everything that happened. */
typedef struct mortal {
    wn_object head;
    void *a, *b;
    long id;
    void (*will)(wn_mutator *m, struct mortal *self); /* what its finalizer does beyond logging; NULL: nothing */
} mortal;
extern const wn_type mortal_type; /* finalize and release */
extern const wn_type relic_type;  /* release only; same layout */

/* No references: a leaf. */
typedef struct leaf {
    wn_object head;
    long id;
    char bytes[48];
} leaf;
extern const wn_type leaf_type;

/* A flexible array of references. */
typedef struct vector {
    wn_object head;
    size_t length;
    void *items[];
} vector;
extern const wn_type vector_type;
extern const wn_type tuple_type; /* the same, immutable once filled */

/* A flexible array of bytes. */
typedef struct blob {
    wn_object head;
    size_t length;
    unsigned char bytes[];
} blob;
extern const wn_type blob_type;

/* New references; they fail the test when memory is out. a and b are borrowed. */
void *client_pair(wn_mutator *m, long id, void *a, void *b);
void *client_mortal(wn_mutator *m, long id, void *a, void *b);
void *client_relic(wn_mutator *m, long id, void *a, void *b);
void *client_new(wn_mutator *m, const wn_type *type);
void *client_new_array(wn_mutator *m, const wn_type *type, size_t length);

/* ---- a second thread --------------------------------------------------------------------------------------------- */

/* Holds what it is given and lets go of it at once, sooner or later by a little: for what may happen in two threads at
 * the same time. One per program, used by one thread. */
void client_rival_start(client *c, unsigned rounds);
void client_rival_take(wn_mutator *m, void *object); /* once per round; the caller keeps its own reference */
bool client_rival_let_go(void);                      /* has it, of what it was given last? */
void client_rival_end(client *c);                    /* after all rounds */

/* ---- the log ----------------------------------------------------------------------------------------------------- */

extern _Atomic unsigned client_finalized[CLIENT_IDS], client_released[CLIENT_IDS];

enum { EVENT_FINALIZE = 'F', EVENT_RELEASE = 'R', EVENT_CALLBACK = 'C', EVENT_OTHER = 'O' };
typedef struct client_event {
    char kind;
    long id;
} client_event;
void client_note(char kind, long id);
size_t client_events(void);
client_event client_event_at(size_t i);
/* Position of the first such event in the log, or -1. */
long client_when(char kind, long id);
unsigned client_total(char kind);
/* Forgets everything logged; client_open calls it. */
void client_forget(void);

#endif
