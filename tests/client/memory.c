/* memory.c - limits, running out and going on, giving memory back, bytes held outside the heap, bookkeeping. */
#include "client.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static client open_limited(void) {
    wn_options o = wn_options_default();
    o.heap_limit = 64u << 20;
    return client_open(&o);
}

/* Fills the heap until NULL, twice; what was there stays whole and the heap is as usable as before. */
static void running_out_is_a_result_not_an_end(void **state) {
    (void)state;
    client c = open_limited();
    wn_mutator *m = c.m;
    size_t step = client_stressed() ? 1 << 20 : client_sanitized() ? 200000 : 40;
    for (int round = 0; round < 3; round++) {
        wn_root(m, vector *, list, NULL);
        size_t n = 0;
        for (;;) {
            wn_root(m, vector *, next, wn_new_array(m, &vector_type, step / 8));
            if (!next) break;
            wn_set(m, next, items[0], list);
            wn_assign(m, list, next);
            n++;
            if (n * step > 200u << 20) fail_msg("no limit is kept");
        }
        const char *message = wn_error_message();
        if (!strstr(message, "limit")) fail_msg("the message does not name the limit: \"%s\"", message);
        assert_true(n * step > 20u << 20); /* most of it was to be had */
        wn_stats s;
        wn_get_stats(c.heap, &s);
        assert_true(s.heap_bytes <= 64u << 20);
        size_t length = 0;
        for (vector *at = list; at; at = at->items[0]) length++;
        assert_int_equal(length, n);
        assert_null(wn_new_array(m, &blob_type, 200u << 20)); /* never fits */
        assert_non_null(strstr(wn_error_message(), "limit"));
        wn_assign(m, list, list->items[0]);
        for (int i = 0; i < 10 && list; i++) wn_assign(m, list, list->items[0]);
        client_collect(m);
        wn_root(m, vector *, again, client_new_array(m, &vector_type, step / 8)); /* room again */
        assert_non_null(again);
    }
    client_collect(m);
    {
        wn_root(m, blob *, half, client_new_array(m, &blob_type, 24u << 20)); /* and in one piece */
        assert_non_null(half);
    }
    client_close(&c);
}

/* Nodes of 1 KiB in a list until NULL: a root for the list. */
static const wn_type fat_type = {.name = "fat", .size = 1024, WN_REFS(pair, a, b)};

static size_t fill(wn_mutator *m, pair **list) {
    size_t n = 0;
    for (pair *p; (p = wn_new(m, &fat_type)); n++) {
        wn_move(m, p, a, wn_give(m, *list));
        wn_take(m, *list, p);
    }
    return n;
}

/* What is dropped after a NULL may be had again at once: a program that frees its cache and tries again goes on. */
static void room_that_is_made_after_a_failure_is_found(void **state) {
    (void)state;
    if (client_stressed()) skip(); /* a collection at every allocation finds it anyway */
    for (int failures = 1; failures <= 20; failures += 19) {
        client c = open_limited();
        wn_mutator *m = c.m;
        {
            wn_root(m, pair *, list, NULL);
            assert_true(fill(m, &list) > 10000);
            for (int i = 1; i < failures; i++) assert_null(wn_new(m, &fat_type));
            while (list) wn_take(m, list, wn_keep(m, list->a)); /* counting frees it in slices */
            void *p = wn_new(m, &fat_type);
            /* Who has asked often in vain may be made to wait, but not for long. */
            for (int i = 0; !p && failures > 1 && i < 10000; i++) {
                usleep(1000);
                p = wn_new(m, &fat_type);
            }
            assert_non_null(p);
            wn_release(m, p);
        }
        client_close(&c);
    }
}

/* A program that goes on asking a full heap does not spend its time on collections in vain. */
static void a_full_heap_is_not_collected_without_end(void **state) {
    (void)state;
    if (client_stressed()) skip();
    client c = open_limited();
    wn_mutator *m = c.m;
    if (!strcmp(wn_collector_name(wn_heap_collector(c.heap)), "concurrent")) {
        wn_root(m, pair *, list, NULL);
        fill(m, &list);
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        for (int i = 0; i < 5000; i++) assert_null(wn_new(m, &fat_type));
        wn_get_stats(c.heap, &after);
        assert_in_range(after.collections - before.collections, 1, 1000);
    }
    client_close(&c);
}

/* A request that fails where no collection may start says nothing about what one would find. */
static void a_failure_in_a_no_collect_scope_is_forgotten(void **state) {
    (void)state;
    if (client_stressed()) skip();
    client c = open_limited();
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, list, NULL);
        wn_no_collect_begin(m);
        fill(m, &list);
        wn_no_collect_end(m);
        while (list) wn_take(m, list, wn_keep(m, list->a));
        wn_release(m, client_new(m, &fat_type));
    }
    client_close(&c);
}

/* Disabled collections run all the same at the limit. (Not counting's, which search for cycles.) */
static void garbage_does_not_fill_a_heap_while_collections_are_disabled(void **state) {
    (void)state;
    client c = open_limited();
    wn_mutator *m = c.m;
    wn_disable(c.heap);
    for (size_t i = 0; i < client_scaled(300000) && !client_counts(&c); i++) {
        wn_root(m, pair *, p, client_new(m, &fat_type));
        wn_set(m, p, a, p);
    }
    wn_enable(c.heap);
    client_close(&c);
}

static void a_full_heap_still_makes_every_kind_of_object_or_says_no(void **state) {
    (void)state;
    client c = open_limited();
    wn_mutator *m = c.m;
    {
        wn_root(m, vector *, list, NULL);
        size_t smallest = client_sanitized() ? 65536 : 64;
        for (size_t size = 1u << 20; size >= smallest; size /= 4) /* to the brim */
            for (;;) {
                wn_root(m, vector *, next, wn_new_array(m, &vector_type, size / 8));
                if (!next) break;
                wn_set(m, next, items[0], list);
                wn_assign(m, list, next);
                if (client_stressed() && size < 1u << 18) break;
            }
        for (int i = 0; i < (client_sanitized() ? 5 : 100); i++) { /* whatever comes back, it must not crash */
            wn_root(m, void *, p, wn_new(m, &pair_type));
            wn_root(m, void *, q, wn_new(m, &mortal_type));
            wn_root(m, wn_weakref *, w, wn_weakref_new(m, list, NULL, NULL));
            wn_root(m, wn_ephemeron *, e, wn_ephemeron_new(m, list, list));
            if (!p || !q || !w || !e) assert_true(strlen(wn_error_message()) > 0);
            wn_identity(m, list);
        }
        client_collect(m);
        assert_int_equal(wn_verify(m, stderr), 0);
    }
    client_collect(m);
    client_close(&c);
}

static void empty_memory_goes_back_to_the_system(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats full, empty;
    size_t n = client_scaled(1000000);
    {
        wn_root(m, pair *, list, NULL);
        for (size_t i = 0; i < n; i++) {
            wn_root(m, pair *, p, client_pair(m, (long)i, list, NULL));
            wn_assign(m, list, p);
        }
        wn_get_stats(c.heap, &full);
        while (list) wn_assign(m, list, list->a);
    }
    client_collect(m);
    size_t returned = wn_trim(m);
    wn_get_stats(c.heap, &empty);
    assert_true(empty.returned_bytes >= returned);
    assert_true(empty.live_bytes_max >= full.live_bytes);
    if (!client_stressed() && !client_sanitized()) {
        assert_true(full.heap_bytes >= n * 32);
        assert_true(empty.returned_bytes > full.heap_bytes / 2);
        assert_true(empty.heap_bytes < full.heap_bytes / 10);
    }
    for (size_t i = 0; i < client_scaled(10000); i++) { /* and comes again */
        wn_root(m, pair *, p, client_pair(m, (long)i, NULL, NULL));
        assert_int_equal(p->id, i);
        assert_null(p->a);
    }
    client_close(&c);
}

/* Where the last slots that were freed are kept for what is made next. */
static void a_trim_leaves_no_empty_block(void **state) {
    (void)state;
    if (client_stressed()) skip(); /* it takes whole blocks of objects */
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (size_t bytes = 32; bytes <= 4096; bytes *= 2)
        for (int order = 0; order < 3; order++) {
            wn_type type = {.name = "bytes", .size = (uint32_t)bytes};
            size_t n = 4 * 32768 / bytes; /* whole blocks, so that there is nothing left for the first that are freed */
            void *all[4096];
            for (size_t i = 0; i < n; i++) all[i] = NULL;
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(wn_global(c.heap, &all[i]), WN_OK);
                wn_take(m, all[i], client_new(m, &type));
            }
            for (size_t i = 0; i < n; i++)
                wn_forget_global(m, &all[order == 0 ? i : order == 1 ? n - 1 - i : (i * 5 + n / 2) % n]);
            for (int i = 0; i < 3; i++) client_collect(m);
            wn_trim(m);
            wn_stats s;
            wn_get_stats(c.heap, &s);
            assert_int_equal(s.live_bytes, 0);
            if (client_counts(&c)) assert_int_equal(s.heap_bytes, 0);
            if (client_counts(&c) && bytes == 32) assert_int_equal(s.allocated_objects, (size_t)(order + 1) * n);
        }
    client_close(&c);
}

static void external_bytes_count(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats s;
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_root(m, pair *, q, client_pair(m, 2, NULL, NULL));
        wn_external(m, p, 1000000);
        wn_external(m, q, 500000);
        wn_get_stats(c.heap, &s);
        assert_int_equal(s.external_bytes, 1500000);
        wn_external(m, p, -400000);
        wn_get_stats(c.heap, &s);
        assert_int_equal(s.external_bytes, 1100000);
        wn_external(m, p, -600000);
        wn_external(m, q, -500000);
        wn_get_stats(c.heap, &s);
        assert_int_equal(s.external_bytes, 0);
    }
    client_close(&c);
}

/* Small objects that hold much outside, in cycles: the collector must not wait for the heap itself to grow. */
typedef struct handle {
    wn_object head;
    void *self;
    bool open;
} handle;
static _Atomic size_t open_handles;
static void handle_finalize(wn_mutator *m, void *object) { wn_external(m, object, -(1 << 20)); }
static void handle_release(void *object) {
    if (((handle *)object)->open) atomic_fetch_sub(&open_handles, 1);
}
static const wn_type handle_type =
    WN_TYPE(handle, WN_REFS(handle, self), .finalize = handle_finalize, .release = handle_release);

static void external_bytes_start_collections(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t most = 0;
    atomic_store(&open_handles, 0);
    for (size_t i = 0; i < client_scaled(20000); i++) {
        wn_root(m, handle *, h, client_new(m, &handle_type));
        h->open = true;
        size_t now = atomic_fetch_add(&open_handles, 1) + 1;
        if (now > most) most = now;
        wn_external(m, h, 1 << 20);
        wn_set(m, h, self, h);
    }
    if (most > 4000) fail_msg("%zu handles of 1 MiB each were open at a time", most);
    client_close(&c);
    assert_int_equal(open_handles, 0);
}

/* So few that no count of objects would ever be looked at. */
static void a_few_objects_with_much_outside_are_enough(void **state) {
    (void)state;
    for (int limited = 0; limited < 2; limited++) {
        client c = limited ? open_limited() : client_open(NULL);
        wn_mutator *m = c.m;
        size_t most = 0;
        atomic_store(&open_handles, 0);
        for (int i = 0; i < 500; i++) {
            wn_root(m, handle *, h, client_new(m, &handle_type));
            h->open = true;
            size_t now = atomic_fetch_add(&open_handles, 1) + 1;
            if (now > most) most = now;
            wn_external(m, h, 16 << 20);
            wn_set(m, h, self, h);
            wn_poll(m);
        }
        if (client_counts(&c) && most > 4) fail_msg("%zu handles of 16 MiB each were open at a time", most);
        wn_disable(c.heap);
        client_collect(m); /* twice, where finalizers come first */
        client_collect(m);
        atomic_store(&open_handles, 0);
        for (int i = 0; i < 20; i++) {
            wn_root(m, handle *, h, client_new(m, &handle_type));
            h->open = true;
            atomic_fetch_add(&open_handles, 1);
            wn_external(m, h, 16 << 20);
            wn_set(m, h, self, h);
            wn_poll(m);
        }
        if (client_counts(&c) && !client_stressed()) assert_int_equal(open_handles, 20);
        client_close(&c);
    }
}

/* No object is made from one to the next, so that only wn_external can ask for the collection. */
static void growing_outside_alone_starts_a_collection(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (!client_moves(&c)) { /* which looks when its nursery is full */
        wn_stats before, now;
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_get_stats(c.heap, &before);
        now = before;
        for (int i = 0; i < 200; i++) {
            wn_external(m, p, 1 << 20);
            wn_poll(m);
        }
        for (int i = 0; i < 10000 && now.collections == before.collections; i++) {
            wn_poll(m);
            usleep(1000);
            wn_get_stats(c.heap, &now);
        }
        assert_true(now.collections > before.collections);
    }
    client_close(&c);
}

/* A release hook has no way to say what it gives back; what it never says must not earn room for more. */
static _Atomic size_t held_outside;
static void lump_release(void *object) {
    (void)object;
    atomic_fetch_sub(&held_outside, 1);
}

static void what_release_gives_back_is_no_room_for_garbage(void **state) {
    (void)state;
    static const wn_type lump_type = {.name = "lump", .size = sizeof(wn_object), .release = lump_release};
    wn_options o = wn_options_default();
    o.max_delta = 64u << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t most = 0;
    atomic_store(&held_outside, 0);
    for (size_t i = 0; i < client_scaled(20000); i++) {
        wn_root(m, wn_object *, p, client_new(m, &lump_type));
        size_t now = atomic_fetch_add(&held_outside, 1) + 1;
        if (now > most) most = now;
        wn_external(m, p, 1 << 20);
    }
    if (most > 1000) fail_msg("%zu lumps of 1 MiB each were held at a time", most);
    client_close(&c);
    assert_int_equal(held_outside, 0);
}

/* At most 9 % of the bytes in blocks that hold objects. */
static void bookkeeping_is_at_most_nine_percent(void **state) {
    (void)state;
    if (client_stressed() || client_sanitized()) skip(); /* it is the release build that has to be thrifty */
    const uint32_t sizes[] = {32, 48, 64, 128, 1024, 4000};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const wn_type type = {.name = "filler", .size = sizes[k], .refs = 2};
        client c = client_open(NULL);
        wn_mutator *m = c.m;
        size_t n = (client_sanitized() ? 8u << 20 : 64u << 20) / sizes[k];
        {
            wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
            for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_new(m, &type));
            client_collect(m);
            wn_stats s;
            wn_get_stats(c.heap, &s);
            assert_true(s.heap_bytes >= n * sizes[k]);
            assert_true(s.bookkeeping_bytes > 0);
            if (s.bookkeeping_bytes * 100 > s.heap_bytes * 9)
                fail_msg("objects of %u bytes: %llu bytes of bookkeeping for %llu of heap", sizes[k],
                         (unsigned long long)s.bookkeeping_bytes, (unsigned long long)s.heap_bytes);
            assert_true(s.heap_bytes <= n * sizes[k] * 5 / 4 + n * 8 * 5 / 4 + (8u << 20)); /* nor much empty space */
        }
        client_close(&c);
    }
}

/* Mappings of this process for which large pages were asked (flag `hg`). */
static unsigned large_mappings(void) {
    unsigned n = 0;
    char line[512];
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " hg")) n++;
    if (f) fclose(f);
    return n;
}

static void large_pages_are_asked_for_when_wanted(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    FILE *known = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (known) fclose(known);
    for (int large = 0; large < 2; large++) {
        o.large_pages = large;
        unsigned before = large_mappings();
        client c = client_open(&o);
        wn_mutator *m = c.m;
        {
            size_t n = client_scaled(100000);
            wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
            for (size_t i = 0; i < n; i++) wn_move(m, all, items[i], client_pair(m, (long)i, NULL, NULL));
            assert_int_equal(large_mappings() > before, large && known);
            client_collect(m);
            for (size_t i = 0; i < n; i++) assert_int_equal(((pair *)all->items[i])->id, i);
        }
        client_close(&c);
    }
}

/* What the system maps for this process, in bytes; 0: cannot be told. */
static size_t mapped(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%lu", &pages) != 1) pages = 0;
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Vectors of vectors, which need more room on a marker's stack than it begins with: of FAN items each, the one in the
 * middle the next vector and the others relics, numbered through. A new reference. */
enum { FAN = 1000, DEPTH = 200 };

static vector *fans(wn_mutator *m) {
    wn_root(m, vector *, first, client_new_array(m, &vector_type, FAN));
    wn_root(m, vector *, last, NULL);
    wn_assign(m, last, first);
    for (long i = 0; i < DEPTH; i++) {
        for (long k = 0; k < FAN; k++)
            if (k != FAN / 2) wn_move(m, last, items[k], client_relic(m, i * FAN + k, NULL, NULL));
        if (i == DEPTH - 1) break;
        wn_move(m, last, items[FAN / 2], client_new_array(m, &vector_type, FAN));
        wn_assign(m, last, last->items[FAN / 2]);
    }
    return wn_give(m, first);
}

static struct rlimit loose;
static void allow_memory_upto(size_t bytes) {
    assert_int_equal(getrlimit(RLIMIT_AS, &loose), 0);
    struct rlimit tight = {bytes, loose.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
}
/* Far below what is mapped, or what is given back meanwhile could be had again. */
static void allow_no_more_memory(void) { allow_memory_upto(1 << 20); }
static void allow_memory(void) { assert_int_equal(setrlimit(RLIMIT_AS, &loose), 0); }

static void count_what_is_gone(wn_mutator *m, mortal *self) {
    (void)m, (void)self;
    for (long id = 0; id < FAN * DEPTH; id++)
        if (client_released[id]) client_note(EVENT_OTHER, id);
}

/* A finalizer finds everything in one piece, even if there was no memory for finding out what it leads to. */
static void without_memory_for_marking_nothing_is_lost(void **state) {
    (void)state;
    if (client_sanitized() || client_stressed() || !mapped()) skip();
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    client_collect(m);  /* its threads exist, and its tables */
    wn_disable(c.heap); /* and no collection has more of them */
    {
        wn_root(m, mortal *, owner, client_mortal(m, FAN / 2, NULL, NULL));
        wn_move(m, owner, a, fans(m));
        owner->will = count_what_is_gone;
        wn_set(m, owner, b, owner); /* a cycle */
    }
    allow_no_more_memory();
    wn_status status = wn_collect(m, 2, NULL);
    allow_memory();
    assert_true(status == WN_OK || status == WN_ERR_MEMORY);
    wn_enable(c.heap);
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_finalized[FAN / 2], 1);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    for (long id = 0; id < FAN * DEPTH; id++)
        assert_int_equal(client_released[id], id % FAN != FAN / 2 || id == FAN / 2);
    client_close(&c);
}

/* Until the system has no more to give, with garbage that only a search can find: that must still have its memory. */
static void a_heap_full_to_the_systems_limit_is_collected(void **state) {
    (void)state;
    if (client_sanitized() || client_stressed() || !mapped()) skip();
    enum { ROUNDS = 2, MOST = 10000000 };
    static const size_t grants[] = {100 << 20, 180 << 20};
    for (size_t g = 0; g < sizeof grants / sizeof *grants; g++) {
        long made[ROUNDS] = {0};
        wn_status collected[ROUNDS];
        char message[200] = "";
        allow_memory_upto(mapped() + grants[g]);
        client c = client_open(NULL);
        wn_mutator *m = c.m;
        if (client_moves(&c)) { /* its search needs no memory, but the last of a heap comes in very small steps */
            allow_memory();
            client_close(&c);
            return;
        }
        for (int round = 0; round < ROUNDS; round++) {
            wn_root(m, pair *, list, NULL);
            for (pair *p; made[round] < MOST && (p = wn_new(m, &pair_type)); made[round]++) {
                wn_set(m, p, b, p);
                wn_move(m, p, a, wn_give(m, list));
                wn_take(m, list, p);
            }
            snprintf(message, sizeof message, "%s", wn_error_message());
            wn_assign(m, list, NULL);
            collected[round] = wn_collect(m, 2, NULL);
            wn_release(m, client_new(m, &pair_type));
        }
        allow_memory();
        for (int round = 0; round < ROUNDS; round++) {
            assert_int_equal(collected[round], WN_OK);
            assert_in_range(made[round], (grants[g] >> 20) * 4000, MOST - 1);
        }
        if (client_counts(&c) && !strstr(message, "system")) fail_msg("who refused? \"%s\"", message);
        client_collect(m);
        assert_int_equal(client_alive(m), 0);
        client_close(&c);
    }
}

static void a_heap_is_made_with_its_first_chunk_or_not_at_all(void **state) {
    (void)state;
    if (client_sanitized() || !mapped()) skip();
    wn_heap *heap = (wn_heap *)state;
    allow_memory_upto(mapped() + (16 << 20));
    wn_status status = wn_heap_new(NULL, &heap);
    allow_memory();
    assert_int_equal(status, WN_ERR_MEMORY);
    assert_null(heap);
    assert_true(strlen(wn_error_message()) > 20);
    client c = client_open(NULL); /* and no harm is done */
    wn_release(c.m, client_pair(c.m, 1, NULL, NULL));
    client_close(&c);
}

enum { COLLECTIONS = 20 };
static _Atomic bool attached;
static void *collect_often(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    atomic_store(&attached, true);
    for (int i = 0; i < COLLECTIONS; i++) wn_collect(m, 2, NULL);
    wn_detach(m);
    return heap;
}

/* Two threads that ask at the same time, each in the middle of what the other waits for. */
static void who_waits_for_a_collection_that_fails_goes_on(void **state) {
    (void)state;
    if (client_sanitized() || client_stressed() || !mapped()) skip();
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    client_collect(m);
    wn_disable(c.heap);
    {
        wn_root(m, vector *, all, fans(m));
        pthread_t other;
        assert_int_equal(pthread_create(&other, NULL, collect_often, c.heap), 0);
        while (!atomic_load(&attached)) wn_poll(m);
        allow_no_more_memory();
        for (int i = 0; i < COLLECTIONS; i++) wn_collect(m, 2, NULL);
        allow_memory();
        wn_block_begin(m);
        void *done;
        pthread_join(other, &done);
        wn_block_end(m);
        assert_ptr_equal(done, c.heap);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        long vectors = 0;
        for (vector *at = all; at; at = at->items[FAN / 2]) vectors++;
        assert_int_equal(vectors, DEPTH);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_out_is_a_result_not_an_end),
        cmocka_unit_test(room_that_is_made_after_a_failure_is_found),
        cmocka_unit_test(a_full_heap_is_not_collected_without_end),
        cmocka_unit_test(a_failure_in_a_no_collect_scope_is_forgotten),
        cmocka_unit_test(garbage_does_not_fill_a_heap_while_collections_are_disabled),
        cmocka_unit_test(a_full_heap_still_makes_every_kind_of_object_or_says_no),
        cmocka_unit_test(empty_memory_goes_back_to_the_system),
        cmocka_unit_test(a_trim_leaves_no_empty_block),
        cmocka_unit_test(external_bytes_count),
        cmocka_unit_test(external_bytes_start_collections),
        cmocka_unit_test(a_few_objects_with_much_outside_are_enough),
        cmocka_unit_test(growing_outside_alone_starts_a_collection),
        cmocka_unit_test(what_release_gives_back_is_no_room_for_garbage),
        cmocka_unit_test(bookkeeping_is_at_most_nine_percent),
        cmocka_unit_test(large_pages_are_asked_for_when_wanted),
        cmocka_unit_test(without_memory_for_marking_nothing_is_lost),
        cmocka_unit_test(a_heap_full_to_the_systems_limit_is_collected),
        cmocka_unit_test(a_heap_is_made_with_its_first_chunk_or_not_at_all),
        cmocka_unit_test(who_waits_for_a_collection_that_fails_goes_on),
    };
    return CLIENT_MAIN("memory", tests);
}
