/* counting.c - the tour's first chapter: reference counts, interned values, what is good and what is bad about
 * counting. */
#include <stdlib.h>
#include <string.h>

#include "tour.h"

/* ---- counts ------------------------------------------------------------------------------------------------------ */

static size_t in_a_function(wn_mutator *m, wn_list *argument) { return wn_refcount(m, argument); }
static size_t in_a_function_that_keeps(wn_mutator *m, wn_list *argument) {
    wn_hold(m, wn_list *, mine, argument);
    return wn_refcount(m, mine);
}

static void counts_go_up_and_down(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_say(t,
             "For each object a counter of the references to it: an assignment, an argument, an append count up, the "
             "end of a scope counts down. CPython's sys.getrefcount(foo) says 2 where one would expect 1, because "
             "its own argument counts. Here arguments are borrowed, so asking costs no count:");
    tour_lines(t, "wn_root(m, wn_list *, foo, wn_list_new(m, 0));      /* foo = [] */\n"
                  "wn_refcount(m, foo);                                /* sys.getrefcount(foo) */");
    size_t made, borrowed, kept, assigned, appended, after;
    {
        wn_root(m, wn_list *, foo, wn_list_new(m, 0));
        made = wn_refcount(m, foo);
        borrowed = in_a_function(m, foo);
        kept = in_a_function_that_keeps(m, foo);
        {
            wn_hold(m, wn_list *, bar, foo);
            assigned = wn_refcount(m, bar);
        }
        {
            wn_root(m, wn_list *, list, wn_list_new(m, 0));
            wn_list_append(m, list, foo);
            appended = wn_refcount(m, foo);
        }
        after = wn_refcount(m, foo);
    }
    tour_count(t, "foo = []", made);
    tour_count(t, "... passed to a function as a borrowed argument", borrowed);
    tour_count(t, "... in a function that keeps it (wn_hold)", kept);
    tour_count(t, "bar = foo", assigned);
    tour_count(t, "[].append(foo)", appended);
    tour_count(t, "... after these scopes have ended", after);
    if (tour_counts(t))
        tour_claim(t, made == 1 && borrowed == 1 && kept == 2 && assigned == 2 && appended == 2 && after == 1,
                   "Every reference is counted, exactly, and uncounted when its scope ends.");
    else
        tour_claim(t, !made && !borrowed && !kept && !assigned && !appended && !after,
                   "The %s collector keeps no counts: the same calls declare roots and run the write barrier, and an "
                   "object is alive as long as it can be reached.",
                   tour_collector(t));
    stage_close(t, &s);
}

static void on_death(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m, (void)ref;
    *(uint64_t *)data = tour_now();
}

static void the_last_reference(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_say(t, "What happens when the last reference goes? A weak reference watches a list that a scope lets go of:");
    uint64_t died = 0, dropped;
    bool at_once, after_collection;
    {
        wn_root(m, wn_weakref *, w, NULL);
        {
            wn_root(m, wn_list *, foo, wn_list_new(m, 0));
            wn_take(m, w, wn_weakref_new(m, foo, on_death, &died));
            dropped = tour_now();
        }
        wn_poll(m);
        at_once = died != 0;
        wn_collect(m, 2, NULL);
        wn_poll(m);
        after_collection = died != 0 && !tour_is_alive(m, w);
    }
    tour_text(t, "dead when the scope has ended", "%s", at_once ? "yes" : "no");
    if (died) tour_time(t, "from the scope's end to its death", died - dropped);
    if (tour_counts(t))
        tour_claim(t, at_once, "When the count reaches 0 the object is deleted immediately.");
    else
        tour_claim(t, !at_once && after_collection,
                   "Nothing is deleted at the scope's end; a collection finds later that the object cannot be "
                   "reached any more.");
    stage_close(t, &s);
}

/* ---- interning --------------------------------------------------------------------------------------------------- */

static bool same_int_twice(wn_mutator *m, int64_t v) {
    wn_root(m, wn_int *, a, wn_int_new(m, v));
    wn_root(m, wn_int *, b, wn_int_new(m, v));
    return a == b;
}
static bool same_str_twice(wn_mutator *m, const char *text) {
    wn_root(m, wn_str *, a, wn_str_text(m, text));
    wn_root(m, wn_str *, b, wn_str_text(m, text));
    return a == b;
}

static void interning(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_quiz(t, 1, "a = 1; sys.getrefcount(a) gives 118 in CPython 3.7. Why?");
    tour_answer(t, "The numbers from -5 to 256 are interned, and so are strings of one character: everybody shares one "
                   "object, and 118 references to 1 existed already. Here too; let us look where it begins and ends:");
    int64_t first = 1, last = -1;
    for (int64_t v = -50; v <= 500; v++)
        if (same_int_twice(m, v)) {
            if (first > last) first = v;
            last = v;
        }
    bool one_character = same_str_twice(m, "a") && same_str_twice(m, "é") && !same_str_twice(m, "ab");
    size_t before, after;
    {
        wn_root(m, wn_int *, a, wn_int_new(m, 1));
        wn_root(m, wn_list *, many, wn_list_new(m, 0));
        before = wn_refcount(m, a);
        for (int i = 0; i < 1000; i++) wn_list_append(m, many, a);
        after = wn_refcount(m, a);
        wn_collect(m, 2, NULL);
    }
    tour_text(t, "ints made once for all", "%lld to %lld", (long long)first, (long long)last);
    tour_text(t, "'a' is 'a', 'é' is 'é', 'ab' is not 'ab'", "%s", one_character ? "yes" : "no");
    tour_count(t, "references to 1", before);
    tour_count(t, "... and after a list has got 1,000 of them", after);
    tour_claim(t, first == -5 && last == 256 && one_character && same_int_twice(m, 1),
               "The ints from -5 to 256 and the strings of one character exist once per heap.");
    if (tour_counts(t))
        tour_claim(
            t, before == WN_IMMORTAL && after == WN_IMMORTAL,
            "Not 118, nor any other number: the shared values are immortal. Their counts are not even written, so "
            "processes can share their pages and threads their cache lines.");
    stage_close(t, &s);
}

/* ---- the bookkeeping --------------------------------------------------------------------------------------------- */

static void space_overhead(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    tour_say(
        t,
        "CPython stores the count in the object (ob_refcnt) and writes it at every reference. Winnow's counts, marks "
        "and ages lie in side tables, found from the object's address by arithmetic. A number is referenced 100 "
        "times, collected and released again; are its bytes ever written?");
    unsigned char before[sizeof(wn_float)], after[sizeof(wn_float)];
    bool same = true;
    size_t highest = 0;
    {
        wn_root(m, wn_float *, f, wn_float_new(m, 2.5));
        memcpy(before, f, sizeof before);
        {
            wn_root(m, wn_list *, l, wn_list_new(m, 0));
            for (int i = 0; i < 100; i++) wn_list_append(m, l, f);
            highest = wn_refcount(m, f);
            wn_collect(m, 2, NULL);
            memcpy(after, f, sizeof after);
            same = memcmp(before, after, sizeof before) == 0;
        }
        memcpy(after, f, sizeof after);
        same = same && memcmp(before, after, sizeof before) == 0;
    }
    if (tour_counts(t)) tour_count(t, "highest count", highest);
    tour_claim(
        t, same && sizeof(wn_object) == 8,
        "No: an object is its owner's bytes and one type word of %zu bytes, and nothing of the collector's is in it.",
        sizeof(wn_object));

    /* So many that a collector's fixed part does not weigh. */
    size_t nodes = tour_scale_to(2000000, 1000000);
    tour_say(
        t,
        "The first of the bad things about counting is the space it takes. In CPython a container pays 16 bytes for "
        "count and type and 16 more for the collector's list. What %zu nodes of %zu bytes take here:",
        nodes, sizeof(node));
    {
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < nodes; i++) tour_push_node(m, &list, (long)i);
        wn_collect(m, 2, NULL);
        const wn_stats *stats = tour_stats(s.heap);
        double share = stats->heap_bytes ? (double)stats->bookkeeping_bytes / (double)stats->heap_bytes : 1;
        tour_bytes(t, "in objects", stats->live_bytes);
        tour_bytes(t, "in blocks of the heap", stats->heap_bytes);
        tour_bytes(t, "bookkeeping, all of it aside", stats->bookkeeping_bytes);
        tour_percent(t, "bookkeeping, of the heap", share);
        tour_claim(t, share <= (tour_is_instrumented() ? .1 : .09), "Bookkeeping is at most 9 %% of the heap.");
    }
    stage_close(t, &s);
}

static void execution_overhead(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t n = tour_scale(2000000);
    tour_say(
        t,
        "The second is time: each reference that is stored or dropped costs an extra check. One field is written %zu "
        "times, by a plain C assignment to a C struct and by wn_set:",
        n);
    uint64_t plain, barrier;
    {
        wn_root(m, node *, holder, NULL);
        wn_root(m, node *, a, NULL);
        wn_root(m, node *, b, NULL);
        tour_push_node(m, &holder, 0);
        tour_push_node(m, &a, 1);
        tour_push_node(m, &b, 2);
        struct {
            node *volatile field;
        } c = {NULL};
        uint64_t start = tour_now();
        for (size_t i = 0; i < n; i++) c.field = i & 1 ? a : b;
        plain = tour_now() - start;
        start = tour_now();
        for (size_t i = 0; i < n; i++) wn_set(m, holder, other, i & 1 ? a : b);
        barrier = tour_now() - start;
        tour_text(t, "a plain assignment", "%.2f ns", (double)plain / (double)n);
        tour_text(t, "wn_set", "%.2f ns", (double)barrier / (double)n);
        tour_claim(t, c.field && (holder->other == a || holder->other == b),
                   "Storing a reference has a price on every collector: %s.",
                   tour_counts(t) ? "here two counts, one up and one down"
                                  : "no counts here, but a write barrier that tells the collector of the store");
    }
    stage_close(t, &s);
}

/* ---- the cascade ------------------------------------------------------------------------------------------------- */

typedef struct slices {
    uint64_t n;
} slices;
static void count_slice(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    if (event->kind == WN_EVENT_FREE_SLICE) ((slices *)data)->n++;
}

typedef struct cascade {
    uint64_t drop, longest;
    size_t safepoints, slices;
    bool all_freed;
} cascade;

/* Drops a list of n nodes at its head and goes on allocating until all of it is freed. */
static cascade drop_a_list(tour *t, size_t n, bool at_once) {
    wn_options options = tour_options(t);
    if (at_once) options.reclaim_slice = WN_ALL;
    stage s = stage_open(t, &options);
    wn_mutator *m = s.m;
    slices heard = {0};
    wn_add_listener(s.heap, count_slice, &heard);
    cascade c = {0};
    {
        uint64_t empty = tour_stats(s.heap)->live_bytes;
        wn_root(m, node *, list, NULL);
        for (size_t i = 0; i < n; i++) tour_push_node(m, &list, (long)i);
        uint64_t start = tour_now();
        wn_assign(m, list, NULL);
        c.drop = c.longest = tour_now() - start;
        for (; !c.all_freed && c.safepoints < n; c.safepoints++) {
            start = tour_now();
            wn_release(m, wn_float_new(m, 1));
            wn_poll(m);
            uint64_t stall = tour_now() - start;
            if (stall > c.longest) c.longest = stall;
            if (c.safepoints % 16 == 0) c.all_freed = tour_stats(s.heap)->live_bytes < empty + n * sizeof(node) / 100;
            if (!tour_counts(t) && c.safepoints > 1000) break;
        }
    }
    wn_remove_listener(s.heap, count_slice, &heard);
    c.slices = heard.n;
    stage_close(t, &s);
    return c;
}

static void cascading(tour *t) {
    size_t n = tour_scale(1000000);
    tour_say(t,
             "The third is latency without bound: freeing one object may free all that it refers to, a cascade "
             "through the heap. The first node of a list of %zu is dropped:",
             n);
    cascade sliced = drop_a_list(t, n, false), whole = drop_a_list(t, n, true);
    if (tour_counts(t)) {
        tour_time(t, "all at once (reclaim_slice=all): the stall", whole.longest);
        tour_time(t, "in slices (the default): the drop itself", sliced.drop);
        tour_time(t, "... the longest stall at any safepoint after it", sliced.longest);
        tour_count(t, "... slices until all was freed", sliced.slices);
        tour_count(t, "... safepoints, at most", sliced.safepoints);
        tour_claim(
            t, whole.all_freed && whole.safepoints <= 1 && sliced.all_freed && sliced.slices > n / 4000,
            "The cascade is real, and it is cut: at each safepoint a slice of it is freed, until nothing is left.");
    } else {
        tour_time(t, "the drop", sliced.drop);
        tour_time(t, "the longest stall of the next 1,000 allocations", sliced.longest);
        tour_claim(
            t, sliced.slices == 0,
            "There is no cascade: dropping a reference frees nothing, and so takes no time. The list waits for the "
            "next collection.");
    }
}

/* ---- fragmentation ----------------------------------------------------------------------------------------------- */

static void fragmentation(tour *t) {
    stage s = stage_open(t, NULL);
    wn_mutator *m = s.m;
    size_t n = tour_scale(200000);
    tour_say(
        t,
        "The fourth is fragmentation. %zu strings of 20 to 200 bytes are made, 15 of 16 dropped at random; then the "
        "program makes as many again:",
        n);
    uint64_t full, holes, taken, again;
    char text[256];
    memset(text, 'x', sizeof text);
    {
        wn_root(m, wn_list *, l, wn_list_new(m, n));
        uint32_t random = 2019;
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            wn_list_push(m, l, wn_str_new(m, text, 20 + (random >> 16) % 180));
        }
        wn_collect(m, 2, NULL);
        full = tour_stats(s.heap)->heap_bytes;
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            if (random >> 28) wn_list_set(m, l, i, wn_none(m));
        }
        wn_collect(m, 2, NULL);
        wn_trim(m);
        holes = tour_stats(s.heap)->heap_bytes;
        taken = holes - tour_stats(s.heap)->meshed_bytes;
        for (size_t i = 0; i < n; i++) {
            if (wn_kind_of(wn_list_get(l, i)) != WN_KIND_NONE) continue;
            random = random * 1664525 + 1013904223;
            wn_root(m, wn_str *, str, wn_str_new(m, text, 20 + (random >> 16) % 180));
            wn_list_set(m, l, i, str);
        }
        wn_collect(m, 2, NULL);
        again = tour_stats(s.heap)->heap_bytes;
    }
    tour_bytes(t, "heap, all strings there", full);
    tour_bytes(t, "... one in 16 left", holes);
    tour_bytes(t, "... the memory of it, shared by sparse blocks", taken);
    tour_bytes(t, "... filled up again", again);
    tour_claim(t, again <= full + full / 4 + (8 << 20),
               "Holes are bounded by size classes and are used again: the heap does not grow by being dug through. "
               "Where they are large, blocks whose objects do not overlap share the same memory.");
    stage_close(t, &s);
}

void tour_counting(tour *t) {
    tour_chapter(t, "Reference counting");
    counts_go_up_and_down(t);
    the_last_reference(t);
    interning(t);
    tour_chapter(t, "The good and the bad about reference counting");
    space_overhead(t);
    execution_overhead(t);
    cascading(t);
    fragmentation(t);
}
