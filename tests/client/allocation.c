/* allocation.c - wn_new and wn_new_array: zeroed, aligned, disjoint, of the right type and size, at every size. */
#include "client.h"

#include <winnow/codegen.h>

enum { SIZES = 1100 };

/* Types of 8 to 8,800 bytes, in steps of 8: every small class, both sides of each boundary, and some large objects. */
static wn_type sized[SIZES];

static void make_sized_types(void) {
    for (size_t i = 0; i < SIZES; i++) sized[i] = (wn_type){.name = "sized", .size = (uint32_t)(8 + 8 * i)};
}

static bool all_zero(const void *object, size_t size) {
    const unsigned char *bytes = object;
    for (size_t i = sizeof(wn_object); i < size; i++)
        if (bytes[i]) return false;
    return true;
}

/* Objects are written full of ones and dropped; what comes back in their place must be zero again. */
static void memory_is_zero_also_when_reused(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t step = client_stressed() || client_sanitized() ? 17 : 1;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < SIZES; i += step) {
            wn_root(m, wn_object *, first, client_new(m, &sized[i]));
            wn_root(m, wn_object *, second, client_new(m, &sized[i]));
            assert_true(all_zero(first, sized[i].size));
            assert_true(all_zero(second, sized[i].size));
            assert_ptr_equal(first->type, &sized[i]);
            assert_int_equal(wn_size_of(m, first), sized[i].size);
            memset(first + 1, 0xff, sized[i].size - sizeof *first);
            memset(second + 1, 0xff, sized[i].size - sizeof *second);
        }
        client_collect(m);
    }
    client_close(&c);
}

/* Everything stays where it was put: each object is filled with its own pattern and all are read back at the end. */
static void objects_are_aligned_and_do_not_overlap(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(20000);
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            const wn_type *t = &sized[i * 7919 % SIZES];
            wn_move(m, all, items[i], client_new(m, t));
            assert_int_equal((uintptr_t)all->items[i] % 16, 0);
            memset((wn_object *)all->items[i] + 1, (int)(i % 251), t->size - sizeof(wn_object));
        }
        client_collect(m);
        for (size_t i = 0; i < n; i++) {
            const wn_type *t = &sized[i * 7919 % SIZES];
            const unsigned char *bytes = all->items[i];
            assert_ptr_equal(((wn_object *)all->items[i])->type, t);
            for (size_t b = sizeof(wn_object); b < t->size; b++) assert_int_equal(bytes[b], i % 251);
        }
    }
    client_close(&c);
}

static void arrays_of_every_length(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t step = client_stressed() || client_sanitized() ? 131 : 3;
    for (size_t length = 0; length < 9000; length += step) {
        wn_root(m, blob *, b, client_new_array(m, &blob_type, length));
        assert_int_equal(b->length, length);
        assert_int_equal(wn_size_of(m, b), sizeof(blob) + length);
        for (size_t i = 0; i < length; i++) assert_int_equal(b->bytes[i], 0);
        memset(b->bytes, 0xff, length);
    }
    for (size_t length = 0; length < 1200; length += 1 + length / 16) {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, length));
        assert_int_equal(v->length, length);
        assert_int_equal(wn_size_of(m, v), sizeof(vector) + length * sizeof(void *));
        for (size_t i = 0; i < length; i++) assert_null(v->items[i]);
    }
    client_close(&c);
}

static void only_the_address_of_an_object_is_one(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        wn_root(m, blob *, big, client_new_array(m, &blob_type, 300000));
        int local = 0;
        assert_true(wn_is_object(m, p));
        assert_true(wn_is_object(m, big));
        assert_false(wn_is_object(m, NULL));
        assert_false(wn_is_object(m, &p->b));
        assert_false(wn_is_object(m, (char *)p + 16));
        assert_false(wn_is_object(m, (char *)p + 1));
        assert_false(wn_is_object(m, big->bytes + 100000));
        assert_false(wn_is_object(m, &local));
        assert_false(wn_is_object(m, &pair_type));
        assert_false(wn_is_object(m, (void *)8));
        assert_false(wn_is_object(m, (void *)~(uintptr_t)0));
        void *freed = p;
        wn_take(m, p, NULL);
        client_collect(m);
        assert_false(wn_is_object(m, freed));
    }
    client_close(&c);
}

static void statistics_count_every_allocation(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_stats before, after;
    wn_get_stats(c.heap, &before);
    size_t n = client_scaled(5000);
    for (size_t i = 0; i < n; i++) wn_release(m, client_new(m, &leaf_type));
    client_collect(m);
    wn_get_stats(c.heap, &after);
    uint64_t made = after.allocated_objects - before.allocated_objects; /* exact to an allocation buffer */
    assert_true(made + 600 >= n && made <= n + 600);
    assert_true(after.allocated_bytes - before.allocated_bytes >= n * sizeof(leaf));
    assert_true(after.allocated_bytes - before.allocated_bytes <= n * (sizeof(leaf) + 32) + 65536);
    client_close(&c);
}

/* A type of every shape fits the same class structure: the type word is the runtime's own class pointer. */
static void a_type_can_be_embedded(void **state) {
    (void)state;
    struct class {
        wn_type type;
        int number;
    };
    static const struct class number_class = {{.name = "number", .size = 16}, 42};
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, wn_object *, o, client_new(m, &number_class.type));
        assert_int_equal(((const struct class *)o->type)->number, 42);
    }
    client_close(&c);
}

/* What emitted code may make in place takes as much of the buffer as it is told; all else is for the call. */
static void compilers_learn_what_can_be_made_in_place(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_codegen_object how;
    const wn_type pinned = {.name = "pinned", .size = 32, .flags = WN_TYPE_PINNED};
    const wn_type *by_call[] = {&mortal_type, &relic_type, &vector_type, &blob_type, &pinned, &sized[SIZES - 1], NULL};
    for (size_t i = 0; i < sizeof by_call / sizeof *by_call; i++) assert_false(wn_codegen_object_of(by_call[i], &how));
    assert_false(wn_codegen_object_of(&pair_type, NULL));
    assert_true(wn_codegen_object_of(&pair_type, &how) && how.tracked);
    assert_true(wn_codegen_object_of(&leaf_type, &how) && !how.tracked);
    size_t in_place = 0;
    for (size_t i = 0; i < SIZES && wn_codegen_object_of(&sized[i], &how); i++, in_place++) {
        assert_true(how.bytes >= sized[i].size);
        const char *const *buffer = *(const char *const **)((char *)m + how.buffer);
        const char *next = buffer[0];
        size_t room = (size_t)(buffer[1] - next);
        wn_root(m, wn_object *, o, client_new(m, &sized[i]));
        if (room < how.bytes) continue; /* the call: it fetched another buffer, or none */
        assert_ptr_equal(o, next);
        assert_ptr_equal(buffer[0], next + how.bytes);
    }
    assert_true(in_place > 1000);
    client_close(&c);
}

int main(void) {
    make_sized_types();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zero_also_when_reused),
        cmocka_unit_test(objects_are_aligned_and_do_not_overlap),
        cmocka_unit_test(arrays_of_every_length),
        cmocka_unit_test(only_the_address_of_an_object_is_one),
        cmocka_unit_test(statistics_count_every_allocation),
        cmocka_unit_test(a_type_can_be_embedded),
        cmocka_unit_test(compilers_learn_what_can_be_made_in_place),
    };
    return CLIENT_MAIN("allocation", tests);
}
