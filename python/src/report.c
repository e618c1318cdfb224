/* report.c - counting types, and writing the line. */
#include "report.h"

#include <string.h>
#include <unistd.h>

enum { SHOWN = 6 };

void report_count(type_counts *t, PyTypeObject *type) {
    size_t i = 0;
    while (i < t->names && t->type[i].type != type) i++;
    if (i == sizeof t->type / sizeof *t->type) return;
    if (i == t->names) {
        t->names++;
        t->type[i].type = type;
        t->type[i].n = 0;
        snprintf(t->type[i].name, sizeof t->type[i].name, "%s", type->tp_name);
    }
    t->type[i].n++;
}

/* In one piece, because several processes write to the same place. */
void report_line(type_counts *t, const char *how, uint64_t ns, uint64_t fork_ns, size_t garbage, size_t containers) {
    char line[256 + SHOWN * (sizeof t->type[0].name + 24)];
    int at = snprintf(line, 256, "winnow[%ld]: %s %.2f ms, %zu of %zu containers garbage", (long)getpid(), how,
                      (double)ns / 1e6, garbage, containers);
    if (fork_ns) at += sprintf(line + at, ", fork %.2f ms", (double)fork_ns / 1e6);
    for (int shown = 0; shown < SHOWN; shown++) {
        size_t most = 0;
        for (size_t i = 1; i < t->names; i++)
            if (t->type[i].n > t->type[most].n) most = i;
        if (!t->names || !t->type[most].n) break;
        at += sprintf(line + at, "%s %s %zu", shown ? "," : ":", t->type[most].name, t->type[most].n);
        t->type[most].n = 0;
    }
    fprintf(stderr, "%s\n", line);
    t->names = 0;
}
