/* graphs.c - biglive in its variants, cycles, mutate; see the files of those names in bench/workloads. */
#include "peer.h"

typedef struct node {
    struct node *a, *b, *c;
    uint64_t key;
} node;

typedef struct item {
    struct item *before;
    uint64_t number;
} item;

static node **make_graph(lehmer *r, uint64_t n) {
    node **g = peer_new(n * sizeof *g);
    for (uint64_t i = 0; i < n; i++) {
        node *x = g[i] = peer_new(sizeof *x);
        x->key = i;
        if (i) {
            x->a = g[below(r, i)];
            x->b = g[i - 1];
        }
        if (i % 16 == 0) tick();
    }
    for (uint64_t i = 0; i < n; i++) {
        g[i]->c = g[below(r, n)];
        if (i % 16 == 0) tick();
    }
    return g;
}

uint64_t biglive(void) {
    uint64_t n = param("nodes"), allocations = param("allocations"), slots = param("ring"), rewire = param("rewire");
    uint64_t h = 0, at = 0;
    lehmer r = lehmer_seed(2);
    node **g = make_graph(&r, n);
    item **newest = peer_new(slots * sizeof *newest);
    for (uint64_t i = 0; i < allocations; i++) {
        item *x = peer_new(sizeof *x), *old = newest[at];
        x->number = i;
        if (old) {
            h += old->number & 7;
            peer_free(old);
        }
        newest[at] = x;
        if (++at == slots) at = 0;
        if (rewire && i % rewire == 0) {
            uint64_t from = below(&r, n), to = below(&r, n);
            g[from]->c = g[to];
        }
        if (i % 32 == 0) tick();
    }
    for (uint64_t i = 0; i < n; i++) {
        h = fold(h, g[i]->c->key);
        if (i % 16 == 0) tick();
    }
    return h;
}

typedef struct ring_link {
    struct ring_link *next;
    uint64_t value;
} ring_link;

uint64_t cycles(void) {
    uint64_t n = param("cycles"), sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        ring_link *first = peer_new(sizeof *first), *last = first;
        first->value = i;
        for (uint64_t k = 1; k < 2 + i % 9; k++) {
            last = last->next = peer_new(sizeof *last);
            last->value = k;
        }
        last->next = first;
        ring_link *x = first;
        do {
            sum += x->value;
            x = x->next;
        } while (x != first);
        for (ring_link *next; PEER_MANUAL && x; x = next) {
            next = x->next == first ? NULL : x->next;
            peer_free(x);
        }
        if (i % 16 == 0) tick();
    }
    return sum & 0xffffffffu;
}

#ifdef PEER_LIBGC
enum { EDGES = 4 };

typedef struct vertex {
    struct vertex *edge[EDGES];
    uint64_t key;
} vertex;

static vertex *make_vertex(vertex **g, lehmer *r, uint64_t n, uint64_t key) {
    vertex *v = peer_new(sizeof *v);
    v->key = key;
    for (unsigned e = 0; e < EDGES; e++) v->edge[e] = g[below(r, n)];
    return v;
}

uint64_t mutate(void) {
    uint64_t n = param("nodes"), operations = param("operations"), h = 0;
    lehmer r = lehmer_seed(3);
    vertex **g = peer_new(n * sizeof *g);
    for (uint64_t i = 0; i < n; i++) {
        g[i] = make_vertex(g, &r, n, i);
        if (i % 8 == 0) tick();
    }
    for (uint64_t i = 0; i < operations; i++) {
        uint64_t from = below(&r, n);
        if (i % 4 == 0) {
            vertex *v = make_vertex(g, &r, n, i);
            memset(g[from]->edge, 0, sizeof g[from]->edge);
            g[from] = v;
        } else {
            uint64_t edge = below(&r, EDGES), to = below(&r, n);
            vertex *old = g[from]->edge[edge];
            if (old) h = fold(h, old->key);
            g[from]->edge[edge] = g[to];
        }
        if (i % 8 == 0) tick();
    }
    return h;
}
#endif
