/* concurrent.c - Go's way: collecting beside the program. The same load on whatever collector runs, and what it cost.
 */
#include <stdlib.h>

#include "tour.h"

void tour_concurrent(tour *t) {
    tour_chapter(t, "Go's way: beside the program");
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t alive = tour_scale(200000), n = tour_scale(3000000);
    tour_say(t,
             "Go's collector is not generational; it marks while the program runs, and promises to stop it for less "
             "than 500 "
             "µs per cycle. The same load for every collector: %zu nodes stay, %zu small cycles come and go:",
             alive, n);
    uint64_t worst = 0, took;
    bool intact = true;
    uint64_t base_cpu, base_pause;
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < alive; i++) tour_push_node(m, &list, (long)i);
        const wn_stats *stats = tour_stats(s.heap);
        base_cpu = stats->gc_cpu_ns, base_pause = stats->pause.total;
        uint64_t start = tour_now(), last = start;
        for (size_t i = 0; i < n; i++) {
            wn_root(m, node *, garbage, NULL);
            tour_push_node(m, &garbage, (long)i);
            wn_set(m, garbage, other, garbage);
            if (i % 16 == 0) { /* what the program itself notices: time between two looks at the clock */
                uint64_t now = tour_now();
                if (now - last > worst) worst = now - last;
                last = now;
            }
        }
        took = tour_now() - start;
        long expected = (long)alive;
        for (const node *p = list; p; p = p->next) intact = intact && p->number == --expected;
        intact = intact && expected == 0;
    }
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
    tour_claim(t, intact && stats->collections > 0 && stats->heap_bytes_max < (uint64_t)(alive + n) * sizeof(node) / 2,
               "The garbage is collected while the program runs, and no living node is touched.");
    if (wn_heap_collector(s.heap) == WN_COLLECTOR_CONCURRENT)
        tour_claim(t, held < cpu, "Most of the collector's work is done while the program goes on.");
    stage_close(t, &s);
}
