/*
 * graph.c - draws a part of the heap as a Graphviz DOT graph: boxes of type, label and count, an arrow per reference.
 *
 * Breadth first from the given objects, so that what is near is drawn when there is too much; the rest is one "…" per
 * object that refers to something not drawn. The order, and so the text, depends on nothing but the objects' contents.
 *
 * Invariant: the world stands still from the first look at an object to the last; nothing in the heap is written. The
 * text goes to memory meanwhile, because whoever reads the client's file may be a thread that stands still.
 */
#include "mutator/heap.h"

#include <stdlib.h>
#include <string.h>

#include "winnow/inspect.h"

enum { DEFAULT_MAX = 200, LABEL_MAX = 96 };

/* Fills by type, in order of appearance: pale enough for black text, told apart by the colour-blind too. */
static const char *const fills[] = {"#cfe3f7", "#fde0b8", "#cdeedd", "#f9d3e3", "#f6f0b4", "#dcd5f2",
                                    "#f8cfc0", "#d5ecf3", "#e4edc4", "#ead9cb", "#d9dee3", "#f0d9f5"};
enum { FILLS = sizeof fills / sizeof fills[0] };

typedef struct node {
    void *object;
    size_t arrows_from; /* the node (plus 1) whose arrows are being counted, ... */
    size_t arrows;      /* ... and how many of them lead here */
} node;

typedef struct graph {
    wn_mutator *m;
    FILE *out; /* in memory */
    node *nodes;
    size_t n, max;
    size_t *slots, mask;   /* object -> node number plus 1 */
    const wn_type **types; /* in order of appearance, for the colours */
    size_t type_count;

    size_t source;            /* the node whose references are being followed */
    size_t *targets, touched; /* the nodes it leads to, each once */
    size_t left_out;          /* references from it to what is not drawn */
} graph;

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at p, 0 when it is none (a label cut in the middle, or no text at all). */
static size_t utf8_length(const unsigned char *p) {
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
               : (p[0] & 0xF0) == 0xE0       ? 3
               : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                             : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return n;
}

/* Writes text into a record label: what means something to DOT is escaped, what is not text becomes a dot. */
static void write_escaped(FILE *out, const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = utf8_length(p);
        if (!n || *p < 0x20 || *p == 0x7F) {
            fputs("·", out);
            p += n ? n : 1;
            continue;
        }
        if (n == 1 && strchr("\\\"{}<>|", *p)) fputc('\\', out);
        if (*p == ' ')
            fputs("\\ ", out); /* a record label would merge spaces */
        else
            fwrite(p, 1, n, out);
        p += n;
    }
}

static size_t color_of(graph *g, const wn_type *type) {
    size_t i = 0;
    while (i < g->type_count && g->types[i] != type) i++;
    if (i == g->type_count) g->types[g->type_count++] = type;
    return i % FILLS;
}

static void write_node(graph *g, size_t i, bool given) {
    const void *object = g->nodes[i].object;
    const wn_type *type = wn_type_of(object);
    mutator *m = wn_mutator_of(g->m);
    char label[LABEL_MAX] = "";
    if (type->describe) type->describe(object, label, sizeof label);
    label[sizeof label - 1] = 0;

    fprintf(g->out, "  n%zu [fillcolor=\"%s\"%s, label=\"{", i, fills[color_of(g, type)], given ? ", penwidth=2" : "");
    write_escaped(g->out, type->name ? type->name : "(unnamed)");
    if (*label) {
        fputs("|", g->out);
        write_escaped(g->out, label);
    }
    if (m->heap->collector->refcount) {
        size_t count = m->heap->collector->refcount(m, object);
        if (count == WN_IMMORTAL)
            fputs("|immortal", g->out);
        else
            fprintf(g->out, "|count\\ %zu", count);
    }
    fputs("}\"];\n", g->out);
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static size_t *slot_of(graph *g, const void *object) {
    size_t i = (size_t)(((uintptr_t)object >> 4) * 0x9E3779B97F4A7C15u >> 20) & g->mask;
    while (g->slots[i] && g->nodes[g->slots[i] - 1].object != object) i = (i + 1) & g->mask;
    return &g->slots[i];
}

/* The node of an object, made if it is new; max when there is no room for it. */
static size_t node_of(graph *g, void *object) {
    size_t *slot = slot_of(g, object);
    if (*slot) return *slot - 1;
    if (g->n == g->max) return g->max;
    g->nodes[g->n] = (node){object, 0, 0};
    *slot = ++g->n;
    return g->n - 1;
}

static void follow(void **slot, void *context) {
    graph *g = context;
    void *object = *slot;
    if (!object) return;
    size_t to = node_of(g, object);
    if (to == g->max) {
        g->left_out++;
        return;
    }
    node *target = &g->nodes[to];
    if (target->arrows_from != g->source + 1) {
        target->arrows_from = g->source + 1;
        target->arrows = 0;
        g->targets[g->touched++] = to;
    }
    target->arrows++;
}

static void write_arrows(graph *g, size_t from) {
    g->source = from;
    g->touched = g->left_out = 0;
    wn_each_ref(g->nodes[from].object, follow, g);
    for (size_t i = 0; i < g->touched; i++) {
        size_t to = g->targets[i], arrows = g->nodes[to].arrows;
        fprintf(g->out, "  n%zu -> n%zu", from, to);
        if (arrows > 1) fprintf(g->out, " [label=\"%zu×\"]", arrows);
        fputs(";\n", g->out);
    }
    if (g->left_out) {
        fprintf(g->out, "  more%zu [shape=plaintext, style=\"\", label=\"… %zu more\"];\n", from, g->left_out);
        fprintf(g->out, "  n%zu -> more%zu [style=dashed];\n", from, from);
    }
}

static void draw(graph *g, wn_root_link_ *links, size_t n) {
    fputs("digraph heap {\n"
          "  graph [rankdir=LR, bgcolor=\"white\", nodesep=0.3, ranksep=0.5, fontname=\"Helvetica\"];\n"
          "  node [shape=record, style=\"rounded,filled\", color=\"#4a5560\", fontname=\"Helvetica\", fontsize=11];\n"
          "  edge [color=\"#4a5560\", arrowsize=0.7, fontname=\"Helvetica\", fontsize=9];\n",
          g->out);
    for (size_t i = 0; i < n; i++) {
        void *object = *(void **)wn_root_slot_(&links[i]);
        if (object) (void)node_of(g, object);
    }
    size_t given = g->n;
    for (size_t i = 0; i < g->n; i++) { /* following the references of node i adds nodes */
        write_node(g, i, i < given);
        write_arrows(g, i);
    }
    fputs("}\n", g->out);
}

static wn_status no_room(size_t max_objects) {
    return wn_fail(WN_ERR_MEMORY, "no memory to draw %zu objects; ask for fewer", max_objects);
}

/* In a blocking section, where one may be: whoever reads a pipe may have to attach, or to collect, before. */
static wn_status write_out(mutator *self, const char *text, size_t length, FILE *out) {
    bool blocks = !self->fast.nested && !wn_helper_that_tells();
    if (blocks) wn_block_begin(&self->fast);
    bool ok = fwrite(text, 1, length, out) == length && fflush(out) == 0;
    if (blocks) wn_block_end(&self->fast);
    return ok ? WN_OK : wn_fail(WN_ERR_IO, "the graph could not be written; is the disk full?");
}

static wn_status check_arguments(const FILE *out, void *const *objects, size_t n, size_t max_objects) {
    if (!out || (n && !objects))
        return wn_fail(WN_ERR_ARGUMENT, "wn_heap_graph needs a file to write to and an array of %zu objects", n);
    if (max_objects > UINT32_MAX)
        return wn_fail(WN_ERR_ARGUMENT,
                       "wn_heap_graph: max_objects is %zu; nobody can look at more than some thousands", max_objects);
    if (n > max_objects)
        return wn_fail(WN_ERR_ARGUMENT, "wn_heap_graph: %zu objects are given, but max_objects lets only %zu be drawn",
                       n, max_objects);
    return WN_OK;
}

/* Draws with the world stopped. The objects are roots until it is, because stopping it may wait for another thread's
 * collection, and that may move them; `held` and `links` have room for n. */
static void draw_stopped(graph *g, void *const *objects, size_t n, void **held, wn_root_link_ *links) {
    mutator *self = wn_mutator_of(g->m);
    wn_root_link_ *roots = g->m->roots;
    for (size_t i = 0; i < n; i++) {
        held[i] = objects[i];
        (void)wn_root_push_(&links[i], g->m, &held[i], WN_ROOT_BORROWED_);
    }
    wn_world_stop(self->heap, self);
    draw(g, links, n);
    wn_world_start(self->heap, self);
    g->m->roots = roots;
}

wn_status wn_heap_graph(wn_mutator *m, FILE *out, void *const *objects, size_t n, size_t max_objects) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_heap_graph")) return WN_ERR_STATE;
    if (!max_objects) max_objects = DEFAULT_MAX;
    wn_status status = check_arguments(out, objects, n, max_objects);
    if (status) return status;
    size_t slots = 16;
    while (slots < 2 * max_objects) slots *= 2;
    char *text = NULL;
    size_t length;
    graph g = {.m = m, .out = open_memstream(&text, &length), .max = max_objects, .mask = slots - 1};
    g.nodes = malloc(max_objects * sizeof *g.nodes);
    g.slots = calloc(slots, sizeof *g.slots);
    g.types = malloc(max_objects * sizeof *g.types);
    g.targets = malloc(max_objects * sizeof *g.targets);
    void **held = malloc((n ? n : 1) * sizeof *held);
    wn_root_link_ *links = malloc((n ? n : 1) * sizeof *links);

    status = no_room(max_objects);
    if (g.out && g.nodes && g.slots && g.types && g.targets && held && links) {
        draw_stopped(&g, objects, n, held, links);
        if (!fflush(g.out) && !ferror(g.out)) status = write_out(wn_mutator_of(m), text, length, out);
    }
    if (g.out) fclose(g.out);
    free(text);
    free(g.nodes);
    free(g.slots);
    free(g.types);
    free(g.targets);
    free(held);
    free(links);
    return status;
}
