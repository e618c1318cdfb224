/* generations.c - the generational hypothesis, the three generations, their thresholds and counts, the 25 % rule. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tour.h"

/* ---- the hypothesis ---------------------------------------------------------------------------------------------- */

static void hypothesis(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t n = tour_scale(300000);
    tour_say(
        t, "The generational hypothesis: the most recently created objects are those most likely to become unreachable "
           "soon. A loop computes averages and joins strings, as the talk's examples do, and keeps every hundredth "
           "result:");
    tour_lines(t, "avg = (a + b + c) / 3                      # temporary floats\n"
                  "text = 'Py' + 'Py' + '/' + 'Jython'        # temporary strings");
    uint64_t made, kept;
    {
        wn_root(m, wn_list *, results, wn_list_new(m, 0));
        uint64_t made_before = tour_stats(s.heap)->allocated_bytes, live_before = tour_stats(s.heap)->live_bytes;
        for (size_t i = 0; i < n; i++) {
            wn_root(m, wn_float *, sum, wn_float_new(m, (double)i));
            wn_take(m, sum, wn_float_new(m, wn_float_value(sum) + 0.5));
            wn_root(m, wn_float *, avg, wn_float_new(m, wn_float_value(sum) / 3));
            wn_root(m, wn_str *, text, wn_str_text(m, "PyPy/"));
            wn_root(m, wn_str *, jython, wn_str_text(m, "Jython"));
            wn_take(m, text, wn_str_concat(m, text, jython));
            if (i % 100 == 0) {
                wn_list_append(m, results, avg);
                wn_list_append(m, results, text);
            }
        }
        wn_collect(m, 2, NULL);
        const wn_stats *stats = tour_stats(s.heap);
        made = stats->allocated_bytes - made_before;
        kept = stats->live_bytes > live_before ? stats->live_bytes - live_before : 0;
    }
    double share = made ? (double)kept / (double)made : 1;
    tour_bytes(t, "made", made);
    tour_bytes(t, "still alive at the end", kept);
    tour_percent(t, "lived on", share);
    /* A run of a tenth the length has the same buffers and half-used blocks to carry. */
    tour_claim(t, share < (tour_is_instrumented() ? .1 : .05), "It holds: nearly everything dies young.");
    stage_close(t, &s);
}

/* ---- tracking ---------------------------------------------------------------------------------------------------- */

static void tracking(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_say(t, "Only containers can be part of a cycle, so only they are tracked (Py_TPFLAGS_HAVE_GC). Here a type "
                "says where its references are, and one without any is never looked at:");
    bool i, str, list, dict, tuple, tuple_later;
    {
        wn_root(m, wn_int *, number, wn_int_new(m, 100000));
        wn_root(m, wn_str *, text, wn_str_text(m, "some text"));
        wn_root(m, wn_list *, l, wn_list_new(m, 0));
        wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
        wn_root(m, wn_tuple *, pair, wn_tuple_pair(m, number, text));
        i = wn_is_tracked(m, number), str = wn_is_tracked(m, text), list = wn_is_tracked(m, l);
        dict = wn_is_tracked(m, d), tuple = wn_is_tracked(m, pair);
        wn_collect(m, 0, NULL);
        tuple_later = wn_is_tracked(m, pair);
    }
    if (tour_counts(t)) {
        tour_text(t, "tracked: an int, a str", "%s, %s", i ? "yes" : "no", str ? "yes" : "no");
        tour_text(t, "tracked: a list, a dict", "%s, %s", list ? "yes" : "no", dict ? "yes" : "no");
        tour_text(t, "tracked: the tuple (100000, 'some text')", "%s, and after a collection %s", tuple ? "yes" : "no",
                  tuple_later ? "yes" : "no");
        tour_claim(
            t, !i && !str && list && dict && tuple && !tuple_later,
            "Containers are tracked; a tuple that turns out to hold none is dropped from tracking, as in CPython.");
    } else {
        tour_claim(
            t, !wn_int_type.refs && wn_list_type.refs,
            "This collector tracks nothing: it finds what is alive by following references, and passes over types "
            "that have none.");
    }
    tour_quiz(t, 3, "Why does CPython use one field, _gc_prev, both as a pointer and as a count?");
    tour_answer(t,
                "To save memory: every container has a PyGC_Head on top of it. And the price is that a collection "
                "writes to every container. Here the generation, the marks and the counts of a collection are aside:");
    unsigned char before[sizeof(node)], after[sizeof(node)];
    {
        wn_root(m, node *, lone, NULL);
        tour_push_node(m, &lone, 7);
        wn_collect(m, 2, NULL);
        memcpy(before, lone, sizeof before);
        for (int generation = 0; generation <= 2; generation++) wn_collect(m, generation, NULL);
        memcpy(after, lone, sizeof after);
    }
    tour_bytes(t, "a node with two references and a number", sizeof(node));
    tour_bytes(t, "... of which the collector's", 0);
    tour_claim(t, memcmp(before, after, sizeof before) == 0 && sizeof(node) == 4 * 8,
               "Three collections have written no byte of it.");
    stage_close(t, &s);
}

/* ---- three generations ------------------------------------------------------------------------------------------- */

static void promotion(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_say(t, "CPython keeps three lists of containers. A new one is in generation 0; what survives a collection of "
                "its generation is promoted to the next. The age of one node:");
    int age[4];
    {
        wn_root(m, node *, n, NULL);
        tour_push_node(m, &n, 1);
        age[0] = wn_generation(m, n);
        for (int generation = 0; generation <= 2; generation++) {
            wn_collect(m, generation, NULL);
            age[generation + 1] = wn_generation(m, n);
        }
    }
    if (age[0] >= 0)
        tour_text(t, "generation: new, then after collecting 0, 1, 2", "%d, then %d, %d, %d", age[0], age[1], age[2],
                  age[3]);
    if (tour_counts(t))
        tour_claim(t, age[0] == 0 && age[1] == 1 && age[2] == 2 && age[3] == 2,
                   "It moves up with each collection that it survives, and stays in the oldest.");
    else if (age[0] >= 0)
        tour_claim(t, age[0] <= age[1] && age[1] <= age[2] && age[2] <= age[3] && age[0] < age[3],
                   "Here the young live in a nursery, and what survives is moved out of it.");
    else
        tour_claim(t, age[3] < 0, "This collector has no generations: it marks beside the program instead.");
    stage_close(t, &s);
}

/* ---- thresholds and counts --------------------------------------------------------------------------------------- */

typedef struct heard {
    _Atomic unsigned starts[3], minors;
    /* for the 25 % rule: how many objects were alive when each full collection began */
    const size_t *alive;
    size_t full[64];
    _Atomic unsigned fulls;
} heard;

static void listen(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    heard *h = data;
    if (event->kind == WN_EVENT_MINOR) atomic_fetch_add(&h->minors, 1);
    if (event->kind != WN_EVENT_COLLECT_START) return;
    int generation = event->generation < 0 ? 0 : event->generation > 2 ? 2 : event->generation;
    atomic_fetch_add(&h->starts[generation], 1);
    if (generation < 2 || !h->alive) return;
    unsigned i = atomic_fetch_add(&h->fulls, 1);
    if (i < 64) h->full[i] = __atomic_load_n(h->alive, __ATOMIC_RELAXED);
}

static void counts(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    wn_set_threshold(s.heap, 700, 10, 10);
    unsigned threshold[3], before[3], made[3], dropped[3];
    wn_get_threshold(s.heap, threshold);
    tour_say(t,
             "Each generation has a threshold and a count: for the youngest, allocations less deallocations; for the "
             "others, collections of the generation below. 100 nodes are made, then 40 of them dropped:");
    {
        wn_root(m, node *, list, NULL);
        wn_collect(m, 2, NULL);
        wn_get_count(s.heap, before);
        for (int i = 0; i < 100; i++) tour_push_node(m, &list, i);
        wn_get_count(s.heap, made);
        for (int i = 0; i < 40; i++) wn_assign(m, list, list->next);
        wn_poll(m);
        wn_get_count(s.heap, dropped);
    }
    tour_text(t, "thresholds", "%u, %u, %u", threshold[0], threshold[1], threshold[2]);
    if (tour_counts(t)) {
        tour_text(t, "counts before", "%u, %u, %u", before[0], before[1], before[2]);
        tour_text(t, "... with 100 nodes more", "%u, %u, %u", made[0], made[1], made[2]);
        tour_text(t, "... and 40 of them dropped", "%u, %u, %u", dropped[0], dropped[1], dropped[2]);
        tour_claim(t, made[0] == before[0] + 100 && dropped[0] == before[0] + 60,
                   "The count of the youngest generation is allocations less deallocations.");
    }

    size_t n = tour_scale(200000);
    tour_say(
        t,
        "When a count exceeds its threshold, the oldest such generation is collected with all younger ones. A list "
        "grows to %zu nodes:",
        n);
    heard h = {0};
    wn_add_listener(s.heap, listen, &h);
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < n; i++) tour_push_node(m, &list, (long)i);
    }
    wn_remove_listener(s.heap, listen, &h);
    unsigned all = h.starts[0] + h.starts[1] + h.starts[2];
    if (tour_counts(t)) {
        tour_text(t, "collections of generation 0, 1, 2", "%u, %u, %u", h.starts[0], h.starts[1], h.starts[2]);
        tour_text(t, "nodes per collection", "%.0f", (double)n / all);
        /* As many as the thresholds say, give or take the one that was due or is about to be. */
        long wanted = (long)(n / 701), wanted_older = wanted / 11;
        long off = labs((long)all - wanted), off_older = labs((long)(h.starts[1] + h.starts[2]) - wanted_older);
        tour_claim(t, off <= 1 && off_older <= 1,
                   "One collection per 701 allocations, each twelfth of an older generation.");
    } else {
        tour_count(t, "minor collections", h.minors);
        tour_count(t, "collections of the whole heap", h.starts[2]);
        tour_claim(t, all + h.minors < n / 700, "The thresholds of CPython mean nothing here; %s.",
                   tour_moves(t)
                       ? "a minor collection comes when the nursery is full, a major one when the heap has grown"
                       : "a collection comes when the heap has grown by its factor");
    }
    stage_close(t, &s);
}

/* ---- the 25 % rule ----------------------------------------------------------------------------------------------- */

static void the_rule(tour *t) {
    wn_options options = tour_options(t);
    options.min_heap = 2 << 20; /* incremental: the rule is to show on a small heap already */
    stage s = stage_open(t, &options);
    wn_mutator *m = s.m;
    /* Small thresholds, so that a full collection is due often and only the rule holds it back. */
    if (tour_counts(t)) wn_set_threshold(s.heap, 100, 2, 2);
    size_t n = tour_counts(t) ? tour_scale(200000) : tour_scale_to(3000000, 1000000), alive = 0;
    tour_say(t,
             "Full collections are the expensive ones: their cost grows with the heap. CPython starts one only if "
             "more objects wait for their first full collection than a quarter of those that survived the last. The "
             "list grows to %zu nodes once more%s:",
             n, tour_counts(t) ? ", with thresholds of 100, 2, 2" : "");
    heard h = {.alive = &alive};
    wn_add_listener(s.heap, listen, &h);
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < n; i++) {
            tour_push_node(m, &list, (long)i);
            __atomic_store_n(&alive, i + 1, __ATOMIC_RELAXED);
        }
    }
    wn_remove_listener(s.heap, listen, &h);
    unsigned fulls = h.fulls < 64 ? h.fulls : 64, due = (unsigned)(n / 101 / 9);
    double least = 99;
    size_t visited = 0;
    char sizes[200] = "";
    for (unsigned i = 0; i < fulls; i++) {
        visited += h.full[i];
        /* Below some thousands of objects single ones weigh too much. */
        if (i && h.full[i - 1] > 2000) {
            double growth = (double)h.full[i] / (double)h.full[i - 1];
            if (growth < least) least = growth;
        }
        size_t used = strlen(sizes);
        if (i + 8 >= fulls) snprintf(sizes + used, sizeof sizes - used, "%s%zu", used ? ", " : "", h.full[i]);
    }
    tour_count(t, "full collections", h.fulls);
    if (*sizes) tour_text(t, "objects alive when the last ones began", "%s", sizes);
    if (least < 99) tour_text(t, "growth from one to the next, at least", "%.2f times", least);
    if (tour_counts(t)) {
        tour_count(t, "full collections without the rule, about", due);
        tour_text(t, "objects visited by all of them", "%.1f times the list", (double)visited / (double)n);
        tour_claim(
            t, h.fulls >= 5 && h.fulls < 64 && h.fulls < due && least >= 1.24,
            "The heap must have grown by 25 %% for the next full collection, so all of them together cost no more "
            "than some visits per object.");
    } else {
        tour_claim(
            t, h.fulls >= 1 && h.fulls < 64 && least >= 1.1,
            "This collector has a rule of the same kind: from one collection to the next the heap grows by a factor.");
    }
    stage_close(t, &s);
}

void tour_generations(tour *t) {
    tour_chapter(t, "Generational garbage collection");
    hypothesis(t);
    tracking(t);
    promotion(t);
    counts(t);
    the_rule(t);
}
