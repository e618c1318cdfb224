/*
 * starve.h - refuses the library memory while a test wants it. Every call of its for memory goes by the functions
 * below: link with --wrap=malloc, --wrap=realloc, --wrap=calloc and --wrap=mmap. Included by one file of a program.
 * And what shows it: a graph that a marker cannot go through without memory.
 */
#ifndef STARVE_H
#define STARVE_H

#include "client/client.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

enum { ANY = 1, MALLOC = 2 };
static size_t refused;            /* calls for so many bytes get nothing; ANY: all calls; MALLOC: all but mappings */
static _Atomic unsigned refusals; /* how many did */

static bool refuse(size_t bytes, bool mapping) {
    if (!refused || (refused == MALLOC ? mapping : refused != ANY && refused != bytes)) return false;
    refusals++;
    return true;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);

void *__wrap_malloc(size_t bytes) { return refuse(bytes, false) ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t n, size_t bytes) { return refuse(n * bytes, false) ? NULL : __real_calloc(n, bytes); }
void *__wrap_realloc(void *old, size_t bytes) { return refuse(bytes, false) ? NULL : __real_realloc(old, bytes); }
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    return refuse(bytes, true) ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, file, offset);
}

static void starve(size_t bytes) {
    refusals = 0;
    refused = bytes;
}
static unsigned feed(void) {
    refused = 0;
    return refusals;
}

/* Objects in such a shape that marking them needs more than a marker's stack begins with. A new reference. */
static vector *make_wide_and_deep(wn_mutator *m) {
    enum { FAN = 1000, DEPTH = 200 };
    wn_root(m, vector *, first, client_new_array(m, &vector_type, FAN));
    wn_root(m, vector *, last, NULL);
    wn_assign(m, last, first);
    for (int i = 0; i < DEPTH; i++) {
        for (long k = 1; k < FAN; k++) {
            wn_move(m, last, items[k], client_new_array(m, &vector_type, 1));
            wn_move(m, (vector *)last->items[k], items[0], client_pair(m, k, NULL, NULL));
        }
        wn_move(m, last, items[0], client_new_array(m, &vector_type, FAN));
        wn_assign(m, last, last->items[0]);
    }
    return wn_give(m, first);
}

#endif
