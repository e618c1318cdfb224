/*
 * documents.c - reads the documents of a store.
 *
 * What is wrong with an input is said with file and line, and nothing is loaded in part: either all files are good or
 * there are no documents.
 */
#include "documents.h"
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ISO_CODES "/usr/share/iso-codes/json"

static int add(documents *d, const char *collection, size_t number, const json_t *json) {
    if (d->n == d->room) {
        size_t room = d->room ? d->room * 2 : 1024;
        source *s = realloc(d->source, room * sizeof *s);
        if (!s) return -1;
        d->source = s;
        d->room = room;
    }
    char id[256];
    snprintf(id, sizeof id, "%s/%zu", collection, number);
    source *s = &d->source[d->n];
    *s = (source){strdup(collection), strdup(id), json};
    if (!s->collection || !s->id) return -1;
    d->n++;
    return 0;
}

static int add_array(documents *d, const char *collection, const json_t *array) {
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item) if (json_is_object(item) && add(d, collection, i, item)) return -1;
    return 0;
}

static bool holds_objects(const json_t *array) {
    return json_is_array(array) && json_is_object(json_array_get(array, 0));
}

/* "/a/b/codes.json" -> "codes" */
static void stem(const char *path, char *buf, size_t n) {
    const char *name = strrchr(path, '/');
    snprintf(buf, n, "%s", name ? name + 1 : path);
    char *dot = strrchr(buf, '.');
    if (dot && dot != buf) *dot = 0;
}

static int add_file(documents *d, const char *path, json_t *json) {
    char name[128];
    stem(path, name, sizeof name);
    size_t before = d->n;
    if (holds_objects(json)) return add_array(d, name, json);
    if (json_is_object(json)) {
        const char *key;
        json_t *value;
        json_object_foreach(json, key, value) if (holds_objects(value) && add_array(d, key, value)) return -1;
        if (d->n == before) return add(d, name, 0, json);
    }
    return 0;
}

/* A file as text; jansson could read it itself, but would not tell a directory or an empty file from bad JSON. */
static char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    size_t n = 0, room = 0;
    if (!f) return NULL;
    for (;;) {
        if (n == room) {
            char *more = realloc(text, room = room ? room * 2 : 1 << 16);
            if (!more) break;
            text = more;
        }
        size_t got = fread(text + n, 1, room - n, f);
        n += got;
        if (!got) {
            int failed = ferror(f) ? errno : 0;
            fclose(f);
            if (!failed) return *size = n, text;
            free(text);
            errno = failed;
            return NULL;
        }
    }
    fclose(f);
    free(text);
    errno = ENOMEM;
    return NULL;
}

static int load(documents *d, const char *path, char *error, size_t error_size) {
    size_t size;
    char *text = read_file(path, &size);
    if (!text) {
        snprintf(error, error_size, "%s: cannot be read: %s; name a readable JSON file by --file", path,
                 strerror(errno));
        return -1;
    }
    json_error_t e;
    json_t *json = json_loadb(text, size, 0, &e);
    free(text);
    if (!json) {
        snprintf(error, error_size, "%s:%d:%d: not valid JSON: %s; correct the file, or name another by --file", path,
                 e.line > 0 ? e.line : 1, e.column > 0 ? e.column : 1, e.text);
        return -1;
    }
    json_t **file = realloc(d->file, (d->files + 1) * sizeof *file);
    if (file) {
        d->file = file;
        file[d->files++] = json;
    } else {
        json_decref(json);
    }
    if (!file || add_file(d, path, json)) {
        snprintf(error, error_size, "%s: no memory for its documents", path);
        return -1;
    }
    return 0;
}

int documents_load(documents *d, const char *const *files, unsigned n, char *error, size_t error_size) {
    *d = (documents){0};
    int failed = 0;
    if (n) {
        for (unsigned i = 0; i < n && !failed; i++) failed = load(d, files[i], error, error_size);
    } else {
        glob_t found;
        if (glob(ISO_CODES "/iso_*.json", 0, NULL, &found)) {
            snprintf(error, error_size,
                     "the default documents, " ISO_CODES "/iso_*.json, are not there; install the package iso-codes, "
                     "or name JSON files by --file");
            return -1;
        }
        for (size_t i = 0; i < found.gl_pathc && !failed; i++) failed = load(d, found.gl_pathv[i], error, error_size);
        globfree(&found);
    }
    if (!failed && !d->n) {
        snprintf(error, error_size, "%s holds no document; a document is a JSON object, alone or in an array",
                 n == 1 ? files[0] : "none of the files");
        failed = -1;
    }
    if (failed) documents_free(d);
    return failed;
}

void documents_free(documents *d) {
    for (size_t i = 0; i < d->n; i++) free(d->source[i].collection), free(d->source[i].id);
    for (size_t i = 0; i < d->files; i++) json_decref(d->file[i]);
    free(d->source);
    free(d->file);
    *d = (documents){0};
}
