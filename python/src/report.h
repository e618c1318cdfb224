/*
 * report.h - the log's line for a full collection, with the types of what was found.
 *
 * Types are counted while they are certain to exist; a snapshot's child counts for the program, which takes its table
 * over. Invariant: nothing here keeps a type alive, so names are copied and types never looked into later.
 */
#ifndef WINNOW_PY_REPORT_H
#define WINNOW_PY_REPORT_H

#include "layout.h"

typedef struct type_counts {
    size_t names;
    struct {
        PyTypeObject *type;
        size_t n;
        char name[48];
    } type[64]; /* the first that were met; others are not told of */
} type_counts;

void report_count(type_counts *t, PyTypeObject *type);
/* "how" in so many ns; fork_ns 0: none. The counts begin anew. */
void report_line(type_counts *t, const char *how, uint64_t ns, uint64_t fork_ns, size_t garbage, size_t containers);

#endif
