/* hooks.c - what a type may bring: trace, clear, release, and references anywhere in an object. */
#include "client.h"

/* References that no bitmap describes: a count that says how many of the slots are in use, and a tagged word. */
typedef struct bag {
    wn_object head;
    long id;
    size_t used;
    void *slots[100];
    uintptr_t tagged; /* a number when odd, else a reference */
} bag;

static void bag_trace(const void *object, wn_tracer *tracer) {
    const bag *b = object;
    for (size_t i = 0; i < b->used; i++) wn_visit(tracer, (void *)&b->slots[i]);
    if (!(b->tagged & 1)) wn_visit(tracer, (void *)&b->tagged);
}
static void bag_release(void *object) {
    client_note(EVENT_RELEASE, ((bag *)object)->id);
    atomic_fetch_add(&client_released[((bag *)object)->id], 1);
}
static const wn_type bag_type = WN_TYPE(bag, .trace = bag_trace, .release = bag_release);

static void trace_functions_find_references(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, bag *, b, client_new(m, &bag_type));
        b->id = 1000;
        b->tagged = 7;
        for (size_t i = 0; i < 100; i++) {
            wn_root(m, mortal *, p, client_relic(m, (long)i, b, NULL)); /* and back: a cycle each */
            b->used = i + 1;
            wn_set(m, b, slots[i], p);
            if (i % 10 == 0) wn_collect(m, (int)(i / 10 % 3), NULL);
        }
        b->tagged = 0;
        {
            wn_root(m, mortal *, t, client_relic(m, 100, NULL, NULL));
            wn_store(m, b, &b->tagged, t);
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        for (size_t i = 0; i < 100; i++) {
            assert_int_equal(((mortal *)b->slots[i])->id, i);
            assert_ptr_equal(((mortal *)b->slots[i])->a, b);
        }
        assert_int_equal(((mortal *)b->tagged)->id, 100);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, b), 101);
        wn_store(m, b, &b->tagged, NULL);
        b->tagged = 9;
        client_collect(m);
        assert_int_equal(client_released[100], 1);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 102);
    client_close(&c);
}

/* Bitmap, items and a trace function in one type. */
typedef struct mixed {
    wn_object head;
    void *first;
    void *hidden; /* by the trace function */
    size_t length;
    void *items[];
} mixed;
static void mixed_trace(const void *object, wn_tracer *tracer) {
    wn_visit(tracer, (void *)&((const mixed *)object)->hidden);
}
static const wn_type mixed_type =
    WN_TYPE(mixed, WN_REFS(mixed, first), WN_ITEMS(mixed, length, items), .trace = mixed_trace);

static void all_three_ways_together(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mixed *, x, client_new_array(m, &mixed_type, 10));
        wn_move(m, x, first, client_relic(m, 1, x, NULL));
        wn_move(m, x, hidden, client_relic(m, 2, x, NULL));
        for (long i = 0; i < 10; i++) wn_move(m, x, items[i], client_relic(m, 10 + i, x, NULL));
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        assert_int_equal(((mortal *)x->first)->id, 1);
        assert_int_equal(((mortal *)x->hidden)->id, 2);
        for (long i = 0; i < 10; i++) assert_int_equal(((mortal *)x->items[i])->id, 10 + i);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 12);
    client_close(&c);
}

/* Reference fields in the last word of the bitmap, and types whose bitmap is full. */
typedef struct wide {
    wn_object head;
    void *fields[63];
} wide;
static const wn_type wide_type = {.name = "wide", .size = sizeof(wide), .refs = ~(uint64_t)1};

static void the_bitmap_reaches_64_words(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, wide *, w, client_new(m, &wide_type));
        for (long i = 0; i < 63; i++) wn_move(m, w, fields[i], client_relic(m, i, w, NULL));
        client_collect(m);
        for (long i = 0; i < 63; i++) assert_int_equal(((mortal *)w->fields[i])->id, i);
        for (long i = 0; i < 63; i++) {
            wn_set(m, w, fields[i], NULL);
            client_collect(m);
            assert_int_equal(client_total(EVENT_RELEASE), i + 1);
            assert_int_equal(client_released[i], 1);
        }
    }
    client_close(&c);
}

/* A clear hook breaks the cycle its own way; what it leaves must not be left hanging. */
typedef struct careful {
    wn_object head;
    void *next, *other;
    long id;
} careful;
static void careful_clear(wn_mutator *m, void *object) {
    careful *self = object;
    client_note(EVENT_OTHER, self->id);
    wn_set(m, self, next, NULL);
    wn_set(m, self, other, NULL);
}
static void careful_release(void *object) {
    client_note(EVENT_RELEASE, ((careful *)object)->id);
    atomic_fetch_add(&client_released[((careful *)object)->id], 1);
}
static const wn_type careful_type =
    WN_TYPE(careful, WN_REFS(careful, next, other), .clear = careful_clear, .release = careful_release);

static void clear_hooks_break_cycles(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, careful *, first, client_new(m, &careful_type));
        wn_hold(m, careful *, last, first);
        for (long i = 1; i < 20; i++) {
            wn_root(m, careful *, next, client_new(m, &careful_type));
            next->id = i;
            wn_set(m, last, next, next);
            wn_set(m, next, other, first);
            wn_assign(m, last, next);
        }
        wn_set(m, last, next, first);
        client_collect(m);
        assert_int_equal(client_events(), 0);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 20);
    for (int i = 0; i < 20; i++) assert_int_equal(client_released[i], 1);
    if (client_counts(&c)) assert_true(client_total(EVENT_OTHER) >= 1);
    client_close(&c);
}

/* Release hooks give back what lies outside: each exactly once, whatever way the object dies. */
typedef struct file {
    wn_object head;
    void *link;
    char *memory;
} file;
static _Atomic int outstanding;
static void file_release(void *object) {
    file *f = object;
    if (f->memory) atomic_fetch_sub(&outstanding, 1);
    free(f->memory);
    f->memory = NULL;
}
static const wn_type file_type = WN_TYPE(file, WN_REFS(file, link), .release = file_release);

static void release_gives_foreign_memory_back(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    outstanding = 0;
    size_t n = client_scaled(20000);
    file *global = NULL;
    assert_int_equal(wn_global(c.heap, &global), WN_OK);
    for (size_t i = 0; i < n; i++) {
        wn_root(m, file *, f, client_new(m, &file_type));
        f->memory = malloc(100);
        atomic_fetch_add(&outstanding, 1);
        if (i % 3 == 1) wn_set(m, f, link, f);
        if (i % 3 == 2) {
            wn_set(m, f, link, i % 1000 == 998 ? NULL : global);
            wn_assign(m, global, f);
        }
    }
    client_collect(m);
    wn_take(m, global, NULL);
    client_collect(m);
    assert_int_equal(outstanding, 0);
    wn_take(m, global, client_new(m, &file_type));
    global->memory = malloc(100);
    outstanding++;
    client_close(&c); /* the heap's end releases it too; the global itself is only forgotten with the heap */
    assert_int_equal(outstanding, 0);
}

/* What the trace function has to know lies outside the heap, and the release hook frees it. */
typedef struct frame {
    wn_object head;
    size_t *used;
    void *slots[4];
    size_t length;
    void *items[];
} frame;
static void frame_trace(const void *object, wn_tracer *tracer) {
    const frame *f = object;
    for (size_t i = 0; f->used && i < *f->used; i++) wn_visit(tracer, (void *)&f->slots[i]);
}
static void frame_release(void *object) {
    frame *f = object;
    free(f->used);
    f->used = NULL;
    client_note(EVENT_OTHER, 0);
}
static const wn_type frame_type =
    WN_TYPE(frame, WN_ITEMS(frame, length, items), .trace = frame_trace, .release = frame_release);

static void trace_may_read_what_release_frees(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    static const size_t lengths[] = {0, 5000}; /* the latter is taken apart piece by piece */
    long id = 0;
    for (unsigned way = 0; way < 4; way++) {
        bool cyclic = way & 1;
        {
            wn_root(m, frame *, f, client_new_array(m, &frame_type, lengths[way / 2]));
            f->used = calloc(1, sizeof *f->used);
            for (size_t i = 0; i < 4; i++) {
                wn_move(m, f, slots[i], client_relic(m, id++, cyclic ? f : NULL, NULL));
                *f->used = i + 1;
            }
            for (size_t i = 0; i < f->length; i += 1000)
                wn_move(m, f, items[i], client_relic(m, id++, cyclic ? f : NULL, NULL));
            client_collect(m);
            assert_int_equal(client_total(EVENT_OTHER), way);
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_OTHER), way + 1);
        for (long i = 0; i < id; i++) assert_int_equal(client_released[i], 1);
        if (client_counts(&c)) assert_int_equal(client_alive(m), 0);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trace_functions_find_references),   cmocka_unit_test(all_three_ways_together),
        cmocka_unit_test(the_bitmap_reaches_64_words),       cmocka_unit_test(clear_hooks_break_cycles),
        cmocka_unit_test(release_gives_foreign_memory_back), cmocka_unit_test(trace_may_read_what_release_frees),
    };
    return CLIENT_MAIN("hooks", tests);
}
