/*
 * report.c - how the tour is told: wrapped text with the measured in columns, or one JSON object per claim and line.
 *
 * What was measured is kept until the next claim, which it belongs to.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

enum { WIDTH = 92, INDENT = 2, NAME_WIDTH = 46 };

static const char *paint(const tour *t, const char *code) { return t->color ? code : ""; }
#define BOLD "\033[1m"
#define DIM "\033[2m"
#define GREEN "\033[32m"
#define RED "\033[31m"
#define YELLOW "\033[33m"
#define PLAIN "\033[0m"

static char *format_text(const char *format, va_list arguments) {
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0) {
        fputs("winnow tour: no memory for a line of text\n", stderr);
        exit(EXIT_FAILURE);
    }
    return text;
}
#define FORMATTED(text, format)                   \
    va_list arguments_;                           \
    va_start(arguments_, format);                 \
    char *text = format_text(format, arguments_); \
    va_end(arguments_)

/* Columns of a UTF-8 text: its bytes but for continuation bytes. */
static size_t columns(const char *text, size_t n) {
    size_t c = 0;
    for (size_t i = 0; i < n; i++) c += ((unsigned char)text[i] & 0xC0) != 0x80;
    return c;
}

/* Writes words, starting in column `at`, wrapped and indented. */
static void wrap(const char *text, size_t at, size_t indent) {
    bool first = true;
    while (*text) {
        size_t n = strcspn(text, " \n"), width = columns(text, n);
        if (!first && at + 1 + width > WIDTH) {
            printf("\n%*s", (int)indent, "");
            at = indent;
        } else if (!first) {
            putchar(' ');
            at++;
        }
        fwrite(text, 1, n, stdout);
        at += width;
        text += n;
        while (*text == ' ' || *text == '\n') text++;
        first = false;
    }
    putchar('\n');
}

void tour_chapter(tour *t, const char *title) {
    t->chapter = title;
    if (t->json) return;
    printf("\n%s%s%s\n", paint(t, BOLD), title, paint(t, PLAIN));
    for (size_t i = columns(title, strlen(title)); i--;) fputs("─", stdout);
    putchar('\n');
}

void tour_say(tour *t, const char *format, ...) {
    if (t->json) return;
    t->after_measure = false;
    FORMATTED(text, format);
    printf("\n%*s", INDENT, "");
    wrap(text, INDENT, INDENT);
    free(text);
}

void tour_lines(tour *t, const char *format, ...) {
    if (t->json) return;
    t->after_measure = false;
    FORMATTED(text, format);
    putchar('\n');
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        printf("%*s%s%.*s%s\n", INDENT + 4, "", paint(t, DIM), (int)n, line, paint(t, PLAIN));
        line += n + (line[n] == '\n');
    }
    free(text);
}

void tour_quiz(tour *t, int number, const char *format, ...) {
    if (t->json) return;
    t->after_measure = false;
    FORMATTED(text, format);
    printf("\n%*s%sQuick Quiz #%d:%s ", INDENT, "", paint(t, BOLD YELLOW), number, paint(t, PLAIN));
    wrap(text, INDENT + 15, INDENT);
    free(text);
}

void tour_answer(tour *t, const char *format, ...) {
    if (t->json) return;
    FORMATTED(text, format);
    printf("\n%*s%sAnswer:%s ", INDENT, "", paint(t, YELLOW), paint(t, PLAIN));
    wrap(text, INDENT + 8, INDENT);
    free(text);
}

static void measured(tour *t, const char *name, json_t *value, const char *text) {
    if (!t->values) t->values = json_object();
    json_object_set_new(t->values, name, value);
    if (t->json) return;
    if (!t->after_measure) putchar('\n');
    t->after_measure = true;
    size_t width = columns(name, strlen(name));
    printf("%*s%s %s", INDENT + 2, "", name, paint(t, DIM));
    for (size_t i = width; i < NAME_WIDTH; i++) putchar('.');
    printf("%s %s\n", paint(t, PLAIN), text);
}

void tour_count(tour *t, const char *name, uint64_t n) {
    char digits[32], text[48];
    if (n == (uint64_t)WN_IMMORTAL) {
        measured(t, name, json_string("immortal"), "immortal");
        return;
    }
    size_t length = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, n), at = 0;
    for (size_t i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = 0;
    measured(t, name, json_integer((json_int_t)n), text);
}

void tour_time(tour *t, const char *name, uint64_t ns) {
    char text[48];
    double d = (double)ns;
    if (ns < 10000)
        snprintf(text, sizeof text, "%" PRIu64 " ns", ns);
    else if (ns < 10000000)
        snprintf(text, sizeof text, "%.1f µs", d / 1e3);
    else
        snprintf(text, sizeof text, "%.1f ms", d / 1e6);
    measured(t, name, json_integer((json_int_t)ns), text);
}

void tour_bytes(tour *t, const char *name, uint64_t bytes) {
    char text[48];
    double d = (double)bytes;
    if (bytes < 10000)
        snprintf(text, sizeof text, "%" PRIu64 " bytes", bytes);
    else if (bytes < 10 << 20)
        snprintf(text, sizeof text, "%.1f KiB", d / 1024);
    else
        snprintf(text, sizeof text, "%.1f MiB", d / 1048576);
    measured(t, name, json_integer((json_int_t)bytes), text);
}

void tour_percent(tour *t, const char *name, double fraction) {
    char text[48];
    snprintf(text, sizeof text, "%.1f %%", fraction * 100);
    measured(t, name, json_real(fraction), text);
}

void tour_text(tour *t, const char *name, const char *format, ...) {
    FORMATTED(text, format);
    measured(t, name, json_string(text), text);
    free(text);
}

bool tour_claim(tour *t, bool holds, const char *format, ...) {
    FORMATTED(text, format);
    t->claims++;
    t->failed += !holds;
    if (t->json) {
        json_t *line = json_pack("{s:s, s:s, s:s, s:b, s:o}", "collector", tour_collector(t), "chapter", t->chapter,
                                 "claim", text, "holds", holds, "measured", t->values ? t->values : json_object());
        if (line) {
            json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
            putchar('\n');
        }
        json_decref(line);
    } else {
        printf("%s%*s%s%s%s ", t->after_measure ? "" : "\n", INDENT, "", paint(t, holds ? GREEN : RED),
               holds ? "✓" : "✗ DOES NOT HOLD:", paint(t, PLAIN));
        wrap(text, INDENT + 2, INDENT + 2);
        json_decref(t->values);
    }
    t->values = NULL;
    t->after_measure = false;
    fflush(stdout); /* chapters fork */
    free(text);
    return holds;
}
