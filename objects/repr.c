/*
 * repr.c - objects as text, the way Python's repr writes them. Reads only; no safepoint, so plain pointers will do.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { DEPTH_MAX = 200 }; /* containers nested deeper are written as "..." */

/* The containers being written, innermost first. */
typedef struct chain {
    const struct chain *up;
    const void *object;
    int depth;
} chain;

static void write_str(const wn_str *s, FILE *out) {
    size_t n = wn_str_length(s);
    char quote = memchr(s->bytes, '\'', n) && !memchr(s->bytes, '"', n) ? '"' : '\'';
    fputc(quote, out);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s->bytes[i];
        if (c == '\n')
            fputs("\\n", out);
        else if (c == '\r')
            fputs("\\r", out);
        else if (c == '\t')
            fputs("\\t", out);
        else if (c < 0x20 || c == 0x7F)
            fprintf(out, "\\x%02x", c);
        else if (c == '\\' || c == (unsigned char)quote)
            fprintf(out, "\\%c", c);
        else
            fputc(c, out);
    }
    fputc(quote, out);
}

/* The shortest of 15, 16 or 17 digits that reads back as the same number. */
static void write_float(double d, FILE *out) {
    char text[40];
    if (isnan(d) || isinf(d)) {
        fputs(isnan(d) ? "nan" : d < 0 ? "-inf" : "inf", out);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d) break;
    }
    fputs(text, out);
    if (!strpbrk(text, ".e")) fputs(".0", out);
}

static void write_object(wn_mutator *m, const void *object, const chain *up, FILE *out);

static void write_items(wn_mutator *m, const chain *here, FILE *out) {
    wn_kind kind = wn_kind_of(here->object);
    if (kind == WN_KIND_DICT) {
        const wn_dict *d = here->object;
        const char *before = "";
        void *key, *value;
        for (size_t at = 0; wn_dict_next(d, &at, &key, &value); before = ", ") {
            fputs(before, out);
            write_object(m, key, here, out);
            fputs(": ", out);
            write_object(m, value, here, out);
        }
        return;
    }
    size_t n = kind == WN_KIND_LIST ? wn_list_length(here->object) : wn_tuple_length(here->object);
    for (size_t i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        write_object(m, kind == WN_KIND_LIST ? wn_list_get(here->object, i) : wn_tuple_get(here->object, i), here, out);
    }
    if (kind == WN_KIND_TUPLE && n == 1) fputc(',', out);
}

static void write_container(wn_mutator *m, const void *object, const chain *up, FILE *out) {
    wn_kind kind = wn_kind_of(object);
    const char *brackets = kind == WN_KIND_DICT ? "{}" : kind == WN_KIND_LIST ? "[]" : "()";
    chain here = {up, object, up ? up->depth + 1 : 1};
    bool again = here.depth > DEPTH_MAX;
    for (const chain *c = up; c && !again; c = c->up) again = c->object == object;
    fputc(brackets[0], out);
    if (again)
        fputs("...", out);
    else
        write_items(m, &here, out);
    fputc(brackets[1], out);
}

static void write_object(wn_mutator *m, const void *object, const chain *up, FILE *out) {
    if (!object) {
        fputs("NULL", out);
        return;
    }
    switch (wn_kind_of(object)) {
    case WN_KIND_NONE: fputs("None", out); break;
    case WN_KIND_BOOL: fputs(((const wn_bool_object *)object)->value ? "True" : "False", out); break;
    case WN_KIND_INT: fprintf(out, "%" PRId64, ((const wn_int *)object)->value); break;
    case WN_KIND_FLOAT: write_float(((const wn_float *)object)->value, out); break;
    case WN_KIND_STR: write_str(object, out); break;
    case WN_KIND_TUPLE:
    case WN_KIND_LIST:
    case WN_KIND_DICT: write_container(m, object, up, out); break;
    default: {
        const wn_type *type = ((const wn_object *)object)->type;
        char label[64] = "";
        if (type->describe) type->describe(object, label, sizeof label);
        fprintf(out, "<%s%s%s>", type->name, *label ? " " : "", label);
    }
    }
}

wn_status wn_repr(wn_mutator *m, const void *object, FILE *out) {
    write_object(m, object, NULL, out);
    return ferror(out) ? wn_fail(WN_ERR_IO, "writing an object's text failed: %s", strerror(errno)) : WN_OK;
}

char *wn_repr_text(wn_mutator *m, const void *object) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out) {
        wn_fail(WN_ERR_MEMORY, "no memory for an object's text");
        return NULL;
    }
    wn_status status = wn_repr(m, object, out);
    if (fclose(out) != 0 || status) {
        free(text);
        return NULL;
    }
    return text;
}
