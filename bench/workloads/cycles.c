/* cycles.c - ten million small cycles made and dropped: what counting alone cannot free. */
#include "../bench.h"

typedef struct link {
    wn_object head;
    struct link *next;
    uint64_t value;
} link;
static const wn_type link_type = WN_TYPE(link, WN_REFS(link, next));

enum { CYCLES };

static void run(bench *b) {
    wn_mutator *m = b->m;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < b->param[CYCLES]; i++) {
        uint64_t size = 2 + i % 9;
        wn_root(m, link *, first, bench_new(b, m, &link_type));
        first->value = i;
        wn_borrow(m, link *, last, first); /* alive as part of the chain that begins with `first` */
        for (uint64_t k = 1; k < size; k++) {
            wn_move(m, last, next, bench_new(b, m, &link_type));
            last = last->next;
            last->value = k;
        }
        wn_set(m, last, next, first);
        const link *x = first;
        do {
            sum += x->value;
            x = x->next;
        } while (x != first);
        if (i % 16 == 0) bench_tick(b);
    }
    b->checksum = sum & 0xffffffffu;
}

const bench_workload bench_cycles = {
    .name = "cycles",
    .summary = "ten million cycles of 2 to 10 objects dropped",
    .run = run,
    .params = {{"cycles", 10000000, 1, BENCH_LINEAR, "cycles made and dropped"}},
};
