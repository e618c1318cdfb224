/* concurrent.c - Go's way: collecting beside the program. The same load on whatever collector runs, and what it cost.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "tour.h"

/* Whether a collection is under way; may be called on the collector's thread. */
static _Atomic bool under_way;
static void listen(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    (void)data;
    if (event->kind == WN_EVENT_COLLECT_START) atomic_store(&under_way, true);
    if (event->kind == WN_EVENT_COLLECT_STOP) atomic_store(&under_way, false);
}

void tour_concurrent(tour *t) {
    tour_chapter(t, "Go's way: beside the program");
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t alive = tour_scale(200000), n = tour_scale(3000000);
    tour_say(
        t,
        "Go's collector is not generational; it marks while the program runs, and promises to stop it for less than "
        "500 µs per cycle. The same load for every collector: %zu nodes stay in a list, some %zu small cycles come "
        "and go, and meanwhile the program takes nodes from the end of the list and puts them in at its front, behind "
        "the back of whoever is marking:",
        alive, n);
    uint64_t worst = 0, took;
    size_t moved = 0, found = 0, meanwhile = 0, made = 0;
    wn_add_listener(s.heap, listen, NULL);
    uint64_t base_cpu, base_pause;
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < alive; i++) tour_push_node(m, &list, (long)i);
        wn_root(m, node *, end, wn_keep(m, list)); /* behind it is what will be moved */
        for (size_t i = 0; i < alive / 2; i++) wn_assign(m, end, end->next);
        const wn_stats *stats = tour_stats(s.heap);
        base_cpu = stats->gc_cpu_ns, base_pause = stats->pause.total;
        uint64_t start = tour_now(), last = start;
        /* A collection beside a program this short may get no processor before it is over: then it goes on for a while.
         */
        for (; made < n || (made < 100 * n && !tour_stats(s.heap)->collections); made++) {
            size_t i = made;
            wn_root(m, node *, garbage, NULL);
            tour_push_node(m, &garbage, (long)i);
            wn_set(m, garbage, other, garbage);
            meanwhile += atomic_load_explicit(&under_way, memory_order_relaxed);
            if (i % 64 == 0 && end->next) {
                wn_hold(m, node *, last, end->next);
                wn_set(m, end, next, last->next);
                wn_set(m, last, next, list->next);
                wn_set(m, list, next, last);
                moved++;
            }
            if (i % 16 == 0) { /* what the program itself notices: time between two looks at the clock */
                uint64_t now = tour_now();
                if (now - last > worst) worst = now - last;
                last = now;
            }
        }
        took = tour_now() - start;
        char *seen = calloc(alive, 1);
        for (const node *p = list; p && seen; p = p->next)
            if (p->number >= 0 && (size_t)p->number < alive && !seen[p->number]) {
                seen[p->number] = 1;
                found++;
            }
        free(seen);
    }
    wn_remove_listener(s.heap, listen, NULL);
    const wn_stats *stats = tour_stats(s.heap);
    uint64_t cpu = stats->gc_cpu_ns - base_cpu, held = stats->pause.total - base_pause;
    tour_time(t, "the program took", took);
    tour_count(t, "collections", stats->collections);
    tour_time(t, "collector's processor time", cpu);
    tour_time(t, "... of it with the program held up", held);
    tour_time(t, "pause, median", wn_histogram_quantile(&stats->pause, .5));
    tour_time(t, "pause, longest", stats->pause.max);
    tour_time(t, "longest stall that the program noticed", worst);
    tour_bytes(t, "heap at its largest", stats->heap_bytes_max);
    tour_count(t, "objects made while a collection was under way", meanwhile);
    tour_count(t, "nodes moved", moved);
    tour_count(t, "nodes lost", alive - found);
    tour_claim(t,
               found == alive && moved > 0 && stats->collections > 0 &&
                   stats->heap_bytes_max < (uint64_t)(alive + made) * sizeof(node) * 3 / 4 + (16 << 20),
               "The garbage is collected while the program runs, and no living node is lost.");
    if (wn_heap_collector(s.heap) == WN_COLLECTOR_CONCURRENT)
        tour_claim(t, meanwhile > 0, "The collector works while the program goes on.");
    stage_close(t, &s);
}
