/* store.c - the document store. See store.h. */
#include "store.h"
#include <stdlib.h>
#include <string.h>

static const wn_type text_type = WN_TYPE(text, WN_DATA(text, length, byte));
static const wn_type number_type = WN_TYPE(number);
static const wn_type array_type = WN_TYPE(array, WN_REFS(array, parent), WN_ITEMS(array, length, item));
static const wn_type object_type = WN_TYPE(object, WN_REFS(object, parent), WN_RECORDS(object, length, field, 3));
static const wn_type document_type =
    WN_TYPE(document, .refs = WN_REF_BITS(document, id, root, chain, index[0], index[1], index[2]));
static const wn_type document_list_type = WN_TYPE(document_list, WN_ITEMS(document_list, length, item));

/* true, false, null. */
typedef struct constant {
    wn_object head;
    const char *name;
} constant;
static const wn_type constant_type = WN_TYPE(constant);

struct index_entry {
    wn_object head;
    text *key;
    index_entry *chain;
    document_list *documents; /* the first `count` are used */
    size_t count;
};
static const wn_type index_entry_type = WN_TYPE(index_entry, WN_REFS(index_entry, key, chain, documents));

/* Hash tables: of documents by id, of index entries and of names, which all documents share, by key. */
typedef struct document_table {
    wn_object head;
    size_t length;
    document *bucket[];
} document_table;
static const wn_type document_table_type = WN_TYPE(document_table, WN_ITEMS(document_table, length, bucket));

typedef struct index_table {
    wn_object head;
    size_t length;
    index_entry *bucket[];
} index_table;
static const wn_type index_table_type = WN_TYPE(index_table, WN_ITEMS(index_table, length, bucket));

typedef struct name_table {
    wn_object head;
    size_t length;
    text *name[];
} name_table;
static const wn_type name_table_type = WN_TYPE(name_table, WN_ITEMS(name_table, length, name));

enum { CONSTANT_NULL, CONSTANT_FALSE, CONSTANT_TRUE, CONSTANTS };

struct store_store {
    wn_object head;
    document_table *documents;
    index_table *indexes;
    name_table *names;
    text *shelf_key, *revision_key;
    constant *constant[CONSTANTS];
    size_t n_documents, n_indexes, n_names;
};
static const wn_type store_type =
    WN_TYPE(store_root, .refs = WN_REF_BITS(store_root, documents, indexes, names, shelf_key, revision_key, constant[0],
                                            constant[1], constant[2]));

/* ---- making things ----------------------------------------------------------------------------------------------- */

static void *make(store *s, wn_mutator *m, const wn_type *type) {
    s->bytes += type->size;
    return bench_new(s->b, m, type);
}

static void *make_array(store *s, wn_mutator *m, const wn_type *type, size_t length) {
    s->bytes += type->size + length * type->item_size;
    return bench_new_array(s->b, m, type, length);
}

static text *make_text(store *s, wn_mutator *m, const char *bytes, size_t length) {
    text *t = make_array(s, m, &text_type, length);
    memcpy(t->byte, bytes, length);
    return t;
}

static number *make_number(store *s, wn_mutator *m, double value) {
    number *n = make(s, m, &number_type);
    n->value = value;
    return n;
}

static uint64_t hash(const char *bytes, size_t length) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) h = (h ^ (unsigned char)bytes[i]) * 1099511628211u;
    return h ^ h >> 29;
}
static uint64_t text_hash(const text *t) { return hash(t->byte, t->length); }
static bool text_is(const text *t, const char *bytes, size_t length) {
    return t->length == length && memcmp(t->byte, bytes, length) == 0;
}

/* The one text of that name: field names and shelves are shared by all documents. Borrowed, the table keeps it. */
static text *name(store *s, wn_mutator *m, const char *bytes, size_t length) {
    if (s->root->n_names * 2 >= s->root->names->length) {
        wn_root(m, name_table *, larger, make_array(s, m, &name_table_type, s->root->names->length * 2));
        name_table *old = s->root->names;
        for (size_t i = 0; i < old->length; i++) {
            if (!old->name[i]) continue;
            size_t at = text_hash(old->name[i]) & (larger->length - 1);
            while (larger->name[at]) at = (at + 1) & (larger->length - 1);
            wn_set(m, larger, name[at], old->name[i]);
        }
        wn_set(m, s->root, names, larger);
    }
    size_t at = hash(bytes, length) & (s->root->names->length - 1);
    for (text *t; (t = s->root->names->name[at]);) {
        if (text_is(t, bytes, length)) return t;
        at = (at + 1) & (s->root->names->length - 1);
    }
    wn_move(m, s->root->names, name[at], make_text(s, m, bytes, length));
    s->root->n_names++;
    return s->root->names->name[at];
}

static text *shelf_name(store *s, wn_mutator *m, unsigned shelf) {
    char buf[16];
    return name(s, m, buf, (size_t)snprintf(buf, sizeof buf, "s%u", shelf));
}

static wn_object *make_value(store *s, wn_mutator *m, const json_t *json, wn_object *parent);

/* `extra` fields are left at the end for what the store itself adds to a document. */
static object *make_object(store *s, wn_mutator *m, const json_t *json, wn_object *parent_, size_t extra) {
    wn_borrow(m, wn_object *, parent, parent_);
    wn_root(m, object *, o, make_array(s, m, &object_type, json_object_size(json) + extra));
    wn_set(m, o, parent, parent);
    const char *key;
    json_t *value;
    size_t i = 0;
    json_object_foreach((json_t *)json, key, value) {
        wn_set(m, o, field[i].key, name(s, m, key, strlen(key)));
        wn_move(m, o, field[i].value, make_value(s, m, value, &o->head));
        i++;
    }
    return wn_give(m, o);
}

static array *make_list(store *s, wn_mutator *m, const json_t *json, wn_object *parent_) {
    wn_borrow(m, wn_object *, parent, parent_);
    wn_root(m, array *, a, make_array(s, m, &array_type, json_array_size(json)));
    wn_set(m, a, parent, parent);
    for (size_t i = 0; i < a->length; i++) wn_move(m, a, item[i], make_value(s, m, json_array_get(json, i), &a->head));
    return wn_give(m, a);
}

static wn_object *make_value(store *s, wn_mutator *m, const json_t *json, wn_object *parent) {
    switch (json_typeof(json)) {
    case JSON_OBJECT: return &make_object(s, m, json, parent, 0)->head;
    case JSON_ARRAY: return &make_list(s, m, json, parent)->head;
    case JSON_STRING: return &make_text(s, m, json_string_value(json), json_string_length(json))->head;
    case JSON_INTEGER:
    case JSON_REAL: return &make_number(s, m, json_number_value(json))->head;
    case JSON_TRUE: return &wn_keep(m, s->root->constant[CONSTANT_TRUE])->head;
    case JSON_FALSE: return &wn_keep(m, s->root->constant[CONSTANT_FALSE])->head;
    case JSON_NULL: break;
    }
    return &wn_keep(m, s->root->constant[CONSTANT_NULL])->head;
}

/* ---- the indexes ------------------------------------------------------------------------------------------------- */

enum { KEY_MAX = 320 };

static size_t index_key(char buf[KEY_MAX], uint64_t copy, char kind, const char *value, size_t length) {
    int n =
        snprintf(buf, KEY_MAX, "%llu%c%.*s", (unsigned long long)copy, kind, length < 256 ? (int)length : 256, value);
    return (size_t)n;
}

static index_entry *find_entry(const store *s, const char *key, size_t length) {
    const index_table *t = s->root->indexes;
    index_entry *e = t->bucket[hash(key, length) & (t->length - 1)];
    while (e && !text_is(e->key, key, length)) e = e->chain;
    return e;
}

static void grow_indexes(store *s, wn_mutator *m) {
    wn_root(m, index_table *, larger, make_array(s, m, &index_table_type, s->root->indexes->length * 2));
    for (size_t i = 0; i < s->root->indexes->length; i++) {
        if (i % 64 == 0) bench_tick(s->b); /* the table that grows is the program's own work, of milliseconds */
        wn_hold(m, index_entry *, e, s->root->indexes->bucket[i]);
        while (e) {
            wn_hold(m, index_entry *, next, e->chain);
            size_t at = text_hash(e->key) & (larger->length - 1);
            wn_set(m, e, chain, larger->bucket[at]);
            wn_set(m, larger, bucket[at], e);
            wn_assign(m, e, next);
        }
    }
    wn_set(m, s->root, indexes, larger);
}

/* The entry of that key, made if it is not there: borrowed, the table keeps it. */
static index_entry *entry(store *s, wn_mutator *m, const char *key, size_t length) {
    index_entry *found = find_entry(s, key, length);
    if (found) return found;
    if (s->root->n_indexes >= s->root->indexes->length) grow_indexes(s, m);
    wn_root(m, index_entry *, e, make(s, m, &index_entry_type));
    wn_move(m, e, key, make_text(s, m, key, length));
    wn_move(m, e, documents, make_array(s, m, &document_list_type, 4));
    index_table *t = s->root->indexes;
    size_t at = hash(key, length) & (t->length - 1);
    wn_set(m, e, chain, t->bucket[at]);
    wn_set(m, t, bucket[at], e);
    s->root->n_indexes++;
    return e; /* the table holds it, so it outlives the root */
}

static void enter(store *s, wn_mutator *m, document *d_, unsigned which, const char *key, size_t length) {
    wn_borrow(m, document *, d, d_);
    wn_borrow(m, index_entry *, e, entry(s, m, key, length));
    if (e->count == e->documents->length) {
        document_list *larger = make_array(s, m, &document_list_type, e->count * 2);
        wn_copy(m, larger, larger->item, e->documents->item, e->count);
        wn_move(m, e, documents, larger);
    }
    wn_set(m, e->documents, item[e->count], d);
    wn_set(m, d, index[which], e);
    d->place[which] = e->count++;
}

/* The last document of the entry takes the place that becomes free. */
static void leave(wn_mutator *m, document *d, unsigned which) {
    index_entry *e = d->index[which];
    document *last = e->documents->item[--e->count];
    size_t place = d->place[which];
    last->place[which] = place;
    wn_set(m, e->documents, item[place], last);
    wn_set(m, e->documents, item[e->count], NULL);
    wn_set(m, d, index[which], NULL);
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

static size_t document_id(const store *s, uint64_t number, char buf[KEY_MAX]) {
    return (size_t)snprintf(buf, KEY_MAX, "%.256s#%llu", s->sources.source[number % s->sources.n].id,
                            (unsigned long long)(number / s->sources.n));
}

document *store_find(store *s, uint64_t number) {
    char id[KEY_MAX];
    size_t length = document_id(s, number, id);
    const document_table *t = s->root->documents;
    document *d = t->bucket[hash(id, length) & (t->length - 1)];
    while (d && !text_is(d->id, id, length)) d = d->chain;
    return d;
}

static void grow_documents(store *s, wn_mutator *m) {
    wn_root(m, document_table *, larger, make_array(s, m, &document_table_type, s->root->documents->length * 2));
    for (size_t i = 0; i < s->root->documents->length; i++) {
        if (i % 64 == 0) bench_tick(s->b);
        wn_hold(m, document *, d, s->root->documents->bucket[i]);
        while (d) {
            wn_hold(m, document *, next, d->chain);
            size_t at = text_hash(d->id) & (larger->length - 1);
            wn_set(m, d, chain, larger->bucket[at]);
            wn_set(m, larger, bucket[at], d);
            wn_assign(m, d, next);
        }
    }
    wn_set(m, s->root, documents, larger);
}

/* The store adds two fields to a document: its shelf, the last but one, and its revision, the last. */
uint64_t store_revision(const document *d) {
    return (uint64_t)((const number *)d->root->field[d->root->length - 1].value)->value;
}

static void enter_shelf(store *s, wn_mutator *m, document *d, uint64_t copy, unsigned shelf) {
    char key[KEY_MAX], value[16];
    int length = snprintf(value, sizeof value, "s%u", shelf);
    enter(s, m, d, INDEX_SHELF, key, index_key(key, copy, '=', value, (size_t)length));
}

void store_insert(store *s, wn_mutator *m, uint64_t number) {
    const source *src = &s->sources.source[number % s->sources.n];
    uint64_t copy = number / s->sources.n;
    unsigned shelf = (unsigned)(number % SHELVES);
    char key[KEY_MAX];
    if (s->root->n_documents >= s->root->documents->length) grow_documents(s, m);

    wn_root(m, document *, d, make(s, m, &document_type));
    size_t length = document_id(s, number, key);
    wn_move(m, d, id, make_text(s, m, key, length));
    wn_move(m, d, root, make_object(s, m, src->json, &d->head, 2));
    object *root = d->root;
    wn_set(m, root, field[root->length - 2].key, s->root->shelf_key);
    wn_set(m, root, field[root->length - 1].key, s->root->revision_key);
    text *shelf_text = shelf_name(s, m, shelf);
    root = d->root;
    wn_set(m, root, field[root->length - 2].value, &shelf_text->head);
    wn_move(m, d->root, field[d->root->length - 1].value, &make_number(s, m, 0)->head);

    document_table *t = s->root->documents;
    size_t at = text_hash(d->id) & (t->length - 1);
    wn_set(m, d, chain, t->bucket[at]);
    wn_set(m, t, bucket[at], d);
    s->root->n_documents++;

    const char *title = json_string_value(json_object_get(src->json, "name"));
    enter(s, m, d, INDEX_COLLECTION, key, index_key(key, copy, ':', src->collection, strlen(src->collection)));
    enter(s, m, d, INDEX_INITIAL, key, index_key(key, copy, '^', title ? title : src->id, 1));
    enter_shelf(s, m, d, copy, shelf);
}

void store_delete(store *s, wn_mutator *m, document *d_) {
    wn_hold(m, document *, d, d_);
    document_table *t = s->root->documents;
    size_t at = text_hash(d->id) & (t->length - 1);
    document *before = t->bucket[at];
    if (before == d) {
        wn_set(m, t, bucket[at], d->chain);
    } else {
        while (before->chain != d) before = before->chain;
        wn_set(m, before, chain, d->chain);
    }
    wn_set(m, d, chain, NULL);
    for (unsigned i = 0; i < INDEXES; i++) leave(m, d, i);
    s->root->n_documents--;
}

/* The copy a document is of stands at the end of its id. */
static uint64_t copy_of(const document *d) {
    uint64_t copy = 0, unit = 1;
    for (size_t i = d->id->length; d->id->byte[--i] != '#'; unit *= 10) copy += unit * (uint64_t)(d->id->byte[i] - '0');
    return copy;
}

uint64_t store_update(store *s, wn_mutator *m, document *d_, unsigned shelf) {
    wn_hold(m, document *, d, d_);
    uint64_t revision = store_revision(d) + 1;
    wn_move(m, d->root, field[d->root->length - 1].value, &make_number(s, m, (double)revision)->head);
    wn_borrow(m, text *, shelf_text, shelf_name(s, m, shelf));
    wn_set(m, d->root, field[d->root->length - 2].value, &shelf_text->head);
    leave(m, d, INDEX_SHELF);
    enter_shelf(s, m, d, copy_of(d), shelf);
    return revision;
}

document_list *store_query(store *s, wn_mutator *m, uint64_t copy, unsigned shelf) {
    char key[KEY_MAX], value[16];
    int length = snprintf(value, sizeof value, "s%u", shelf);
    wn_borrow(m, index_entry *, e, find_entry(s, key, index_key(key, copy, '=', value, (size_t)length)));
    size_t n = e ? e->count : 0;
    document_list *found = bench_new_array(s->b, m, &document_list_type, n);
    if (n) wn_copy(m, found, found->item, e->documents->item, n);
    return found;
}

/* Writes a value as JSON to p, or only counts when p is NULL; returns the length. */
static size_t write_value(char *p, const wn_object *v) {
    size_t n = 0;
#define PUT(bytes, length)                   \
    do {                                     \
        if (p) memcpy(p + n, bytes, length); \
        n += (length);                       \
    } while (0)
    if (v->type == &text_type) {
        const text *t = (const text *)v;
        PUT("\"", 1);
        PUT(t->byte, t->length);
        PUT("\"", 1);
    } else if (v->type == &number_type) {
        char buf[32];
        double x = ((const number *)v)->value;
        int length = x == (double)(long long)x ? snprintf(buf, sizeof buf, "%lld", (long long)x)
                                               : snprintf(buf, sizeof buf, "%.17g", x);
        PUT(buf, (size_t)length);
    } else if (v->type == &array_type) {
        const array *a = (const array *)v;
        for (size_t i = 0; i < a->length; i++) {
            PUT(i ? "," : "[", 1);
            n += write_value(p ? p + n : NULL, a->item[i]);
        }
        PUT(a->length ? "]" : "[]", a->length ? 1u : 2u);
    } else if (v->type == &object_type) {
        const object *o = (const object *)v;
        for (size_t i = 0; i < o->length; i++) {
            PUT(i ? "," : "{", 1);
            n += write_value(p ? p + n : NULL, &o->field[i].key->head);
            PUT(":", 1);
            n += write_value(p ? p + n : NULL, o->field[i].value);
        }
        PUT(o->length ? "}" : "{}", o->length ? 1u : 2u);
    } else {
        const char *word = ((const constant *)v)->name;
        PUT(word, strlen(word));
    }
#undef PUT
    return n;
}

text *store_serialize(store *s, wn_mutator *m, document *d_) {
    wn_borrow(m, document *, d, d_);
    text *t = bench_new_array(s->b, m, &text_type, write_value(NULL, &d->root->head));
    write_value(t->byte, &d->root->head);
    return t;
}

static uint64_t read_value(wn_mutator *m, wn_object *v_) {
    wn_hold(m, wn_object *, v, v_);
    if (v->type == &text_type) {
        const text *t = (const text *)v;
        return t->length + (t->length ? (unsigned char)t->byte[0] : 0);
    }
    if (v->type == &number_type) return (uint64_t)((const number *)v)->value;
    uint64_t sum = 1;
    if (v->type == &array_type) {
        const array *a = (const array *)v;
        for (size_t i = 0; i < a->length; i++) sum += read_value(m, a->item[i]);
    } else if (v->type == &object_type) {
        const object *o = (const object *)v;
        for (size_t i = 0; i < o->length; i++)
            sum += read_value(m, &o->field[i].key->head) + read_value(m, o->field[i].value);
    }
    return sum;
}

uint64_t store_read(wn_mutator *m, document *d_) {
    wn_hold(m, document *, d, d_);
    return read_value(m, &d->root->head);
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

static constant *make_constant(store *s, wn_mutator *m, const char *word) {
    constant *c = make(s, m, &constant_type);
    c->name = word;
    wn_make_immortal(m, c);
    return c;
}

void store_open(store *s, bench *b, size_t bytes, uint64_t copies) {
    wn_mutator *m = b->m;
    char error[512];
    *s = (store){.b = b, .heap = b->heap};
    if (documents_load(&s->sources, b->settings->files, b->settings->n_files, error, sizeof error))
        bench_fail(b, "%s", error);
    bench_clock_skip(&b->clock); /* reading and parsing files */
    s->root = make(s, m, &store_type);
    if (wn_global(s->heap, &s->root)) bench_fail(b, "wn_global: %s", wn_error_message());
    wn_move(m, s->root, documents, make_array(s, m, &document_table_type, 1024));
    wn_move(m, s->root, indexes, make_array(s, m, &index_table_type, 1024));
    wn_move(m, s->root, names, make_array(s, m, &name_table_type, 1024));
    wn_set(m, s->root, shelf_key, name(s, m, "shelf", 5));
    wn_set(m, s->root, revision_key, name(s, m, "revision", 8));
    wn_move(m, s->root, constant[CONSTANT_NULL], make_constant(s, m, "null"));
    wn_move(m, s->root, constant[CONSTANT_FALSE], make_constant(s, m, "false"));
    wn_move(m, s->root, constant[CONSTANT_TRUE], make_constant(s, m, "true"));
    do {
        for (uint64_t i = 0; i < s->sources.n; i++) {
            store_insert(s, m, s->copies * s->sources.n + i);
            bench_tick(b);
        }
        s->copies++;
    } while (s->bytes < bytes || s->copies < copies);
}

void store_close(store *s, wn_mutator *m) {
    if (wn_forget_global(m, &s->root)) bench_fail(s->b, "wn_forget_global: %s", wn_error_message());
    documents_free(&s->sources);
}

static void immortal_value(wn_mutator *m, wn_object *v) {
    wn_make_immortal(m, v);
    if (v->type == &array_type) {
        array *a = (array *)v;
        for (size_t i = 0; i < a->length; i++) immortal_value(m, a->item[i]);
    } else if (v->type == &object_type) {
        object *o = (object *)v;
        for (size_t i = 0; i < o->length; i++)
            immortal_value(m, &o->field[i].key->head), immortal_value(m, o->field[i].value);
    }
}

void store_make_immortal(store *s, wn_mutator *m) {
    for (size_t i = 0; i < s->root->documents->length; i++)
        for (document *d = s->root->documents->bucket[i]; d; d = d->chain) {
            wn_make_immortal(m, d);
            immortal_value(m, &d->root->head);
        }
}
