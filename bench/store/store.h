/*
 * store.h - an in-memory store of JSON documents, every part of it a collected object.
 *
 * A document's values refer to what they lie in (so every document is a cycle), and the document is found by its id and
 * by three secondary indexes: the collection it is of, the initial of its name, and its shelf, a field that updates
 * change. An index entry knows its documents and a document its place in each, so that leaving an index takes constant
 * time. The documents can be loaded several times over; each copy has its own ids and indexes, as the tenants of a
 * shared service have.
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include "../bench.h"
#include "documents.h"

typedef struct text {
    wn_object head;
    size_t length;
    char byte[];
} text;

typedef struct number {
    wn_object head;
    double value;
} number;

typedef struct array {
    wn_object head;
    wn_object *parent;
    size_t length;
    wn_object *item[];
} array;

typedef struct field {
    text *key;
    wn_object *value;
} field;

typedef struct object {
    wn_object head;
    wn_object *parent;
    size_t length;
    field field[];
} object;

typedef struct store_store store_root;
typedef struct index_entry index_entry;

enum { INDEX_COLLECTION, INDEX_SHELF, INDEX_INITIAL, INDEXES };
enum { SHELVES = 64 };

typedef struct document {
    wn_object head;
    text *id;
    object *root;
    struct document *chain;
    index_entry *index[INDEXES];
    size_t place[INDEXES];
} document;

typedef struct document_list {
    wn_object head;
    size_t length;
    document *item[];
} document_list;

typedef struct store {
    bench *b;
    wn_heap *heap;
    store_root *root;
    documents sources;
    uint64_t copies;
    size_t bytes; /* asked for by the objects of the store */
} store;

/* Loads copies of the documents, `copies` or as many as it takes until the objects of the store take at least `bytes`.
 */
void store_open(store *s, bench *b, size_t bytes, uint64_t copies);
void store_close(store *s, wn_mutator *m);

/* Documents are numbered: number / sources.n is the copy, number % sources.n the source. Borrowed, or NULL. */
document *store_find(store *s, uint64_t number);
/* Builds, indexes and adds the document of that number, which must not be there. A safepoint. */
void store_insert(store *s, wn_mutator *m, uint64_t number);
/* Takes a document (borrowed) out of the store and its indexes. */
void store_delete(store *s, wn_mutator *m, document *d);
/* Counts the document's revision up and puts it on another shelf. Returns the revision. A safepoint. */
uint64_t store_update(store *s, wn_mutator *m, document *d, unsigned shelf);
/* The documents of a copy on a shelf: a new reference, of an object of its own. A safepoint. */
document_list *store_query(store *s, wn_mutator *m, uint64_t copy, unsigned shelf);
/* The document as text: a new reference. A safepoint. */
text *store_serialize(store *s, wn_mutator *m, document *d);
/* Reads all of a document, holding each value for a moment as an interpreter does; makes no object. Returns a digest.
 */
uint64_t store_read(wn_mutator *m, document *d);

uint64_t store_revision(const document *d);

/* Makes what all documents share, and optionally all of the store, immortal. */
void store_make_immortal(store *s, wn_mutator *m);

#endif
