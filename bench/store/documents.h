/* documents.h - the JSON documents that a store is filled with, read by jansson: client memory, not collected. */
#ifndef BENCH_DOCUMENTS_H
#define BENCH_DOCUMENTS_H

#include <jansson.h>
#include <stddef.h>

typedef struct source {
    char *collection; /* the table that the document is of, such as "639-3" */
    char *id;         /* "639-3/17" */
    const json_t *json;
} source;

typedef struct documents {
    json_t **file;
    size_t files;
    source *source;
    size_t n;
    size_t room;
} documents;

/* Reads the files, or, when there are none, Debian's ISO code tables. A file's documents are the objects in its arrays
 * of objects; a file without any is one document. Returns 0, or -1 with a message (file, line, remedy) in `error`. */
int documents_load(documents *d, const char *const *files, unsigned n, char *error, size_t error_size);
void documents_free(documents *d);

#endif
