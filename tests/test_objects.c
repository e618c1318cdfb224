/*
 * test_objects.c - the ready-made objects: what each function promises, and lists and dicts against a plain C model.
 *
 * Runs on whatever collector WINNOW_COLLECTOR names, and under WINNOW_OPTIONS=stress=1, where every allocation moves or
 * frees what it may. WINNOW_TEST_SEED repeats a randomised run.
 */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include <winnow.h>
#include <winnow/objects.h>

static wn_heap *heap;
static wn_mutator *m;
static wn_objects *shared;

static int setup(void **state) {
    (void)state;
    wn_options options = wn_options_default();
    if (wn_heap_new(&options, &heap) || wn_attach(heap, &m) || wn_objects_new(m, &shared)) {
        fprintf(stderr, "%s\n", wn_error_message());
        return -1;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    wn_objects_free(m, shared);
    if (wn_detach(m) || wn_heap_free(heap)) {
        fprintf(stderr, "%s\n", wn_error_message());
        return -1;
    }
    return 0;
}

static bool counting(void) { return wn_heap_collector(heap) == WN_COLLECTOR_REFCOUNT; }

static bool count_one(void *object, void *data) {
    (void)object;
    ++*(size_t *)data;
    return true;
}
static size_t objects_alive(void) {
    size_t n = 0;
    assert_int_equal(wn_collect(m, 2, NULL), WN_OK);
    assert_int_equal(wn_each_object(m, count_one, &n), WN_OK);
    return n;
}

/* A call was refused with this status, and says why. */
static void refused(wn_status got, wn_status expected, const char *part) {
    assert_int_equal(got, expected);
    if (!strstr(wn_error_message(), part)) fail_msg("no \"%s\" in: %s", part, wn_error_message());
}

static void assert_repr(const void *object, const char *expected) {
    char *text = wn_repr_text(m, object);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

/* ---- shared values ----------------------------------------------------------------------------------------------- */

static void test_shared_values_are_made_once(void **state) {
    (void)state;
    refused(wn_objects_new(m, NULL), WN_ERR_STATE, "already");
    assert_ptr_equal(wn_none(m), wn_none(m));
    assert_ptr_equal(wn_bool(m, true), wn_bool(m, true));
    assert_ptr_not_equal(wn_bool(m, true), wn_bool(m, false));
    if (counting()) assert_true(wn_refcount(m, wn_none(m)) == WN_IMMORTAL);
}

static void test_small_ints_are_interned(void **state) {
    (void)state;
    for (int64_t v = -10; v <= 300; v++) {
        wn_root(m, wn_int *, a, wn_int_new(m, v));
        wn_root(m, wn_int *, b, wn_int_new(m, v));
        assert_true(wn_int_value(a) == v && wn_int_value(b) == v);
        assert_int_equal(a == b, v >= -5 && v <= 256);
        if (counting()) assert_true((wn_refcount(m, a) == WN_IMMORTAL) == (v >= -5 && v <= 256));
        assert_true(wn_equal(m, a, b));
    }
}

static void test_strings_of_one_character_are_interned(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool interned;
    } cases[] = {{"", true},         {"a", true},   {"\x7f", true},      {"é", true},  {"\xC2\x80", true},
                 {"\xC3\xBF", true}, {"ab", false}, {"\xC4\x80", false}, {"€", false}, {"\xFF", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wn_root(m, wn_str *, a, wn_str_text(m, cases[i].text));
        wn_root(m, wn_str *, b, wn_str_text(m, cases[i].text));
        assert_int_equal(a == b, cases[i].interned);
        assert_true(wn_equal(m, a, b));
        assert_string_equal(wn_str_bytes(a), cases[i].text);
        assert_int_equal(wn_str_length(a), strlen(cases[i].text));
    }
    wn_root(m, wn_str *, nul, wn_str_new(m, "", 1));
    assert_int_equal(wn_str_length(nul), 1);
}

/* A second heap has values of its own; a heap without wn_objects has none, and interns nothing. */
static void test_heaps_share_nothing(void **state) {
    (void)state;
    wn_heap *other;
    wn_mutator *o;
    wn_objects *values;
    assert_int_equal(wn_heap_new(NULL, &other), WN_OK);
    assert_int_equal(wn_attach(other, &o), WN_OK);
    assert_null(wn_none(o));
    {
        wn_root(o, wn_int *, a, wn_int_new(o, 7));
        wn_root(o, wn_int *, b, wn_int_new(o, 7));
        assert_ptr_not_equal(a, b);
    }
    assert_int_equal(wn_objects_new(o, &values), WN_OK);
    assert_non_null(wn_none(o));
    assert_ptr_not_equal(wn_none(o), wn_none(m));
    wn_objects_free(o, values);
    assert_null(wn_none(o));
    assert_non_null(wn_none(m));
    assert_int_equal(wn_objects_new(o, NULL), WN_OK);
    assert_non_null(wn_none(o));
    assert_int_equal(wn_detach(o), WN_OK);
    assert_int_equal(wn_heap_free(other), WN_OK);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void test_equality_and_hash_go_by_value(void **state) {
    (void)state;
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    wn_list_push(m, l, wn_int_new(m, 1));
    wn_list_push(m, l, wn_float_new(m, 1.0));
    wn_list_append(m, l, wn_bool(m, true));
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++) {
            assert_true(wn_equal(m, wn_list_get(l, i), wn_list_get(l, j)));
            assert_true(wn_hash(m, wn_list_get(l, i)) == wn_hash(m, wn_list_get(l, j)));
        }
    wn_list_clear(m, l);
    wn_list_push(m, l, wn_int_new(m, ((int64_t)1 << 53) + 1)); /* not equal, though converting the int would say so */
    wn_list_push(m, l, wn_float_new(m, ldexp(1, 53)));
    assert_false(wn_equal(m, wn_list_get(l, 0), wn_list_get(l, 1)));
    wn_list_clear(m, l);
    wn_list_push(m, l, wn_int_new(m, INT64_MAX));
    wn_list_push(m, l, wn_float_new(m, 9223372036854775808.0));
    wn_list_push(m, l, wn_float_new(m, NAN));
    wn_list_push(m, l, wn_str_text(m, "1"));
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) assert_int_equal(wn_equal(m, wn_list_get(l, i), wn_list_get(l, j)), i == j);
    wn_root(m, wn_list *, other, wn_list_new(m, 0));
    assert_false(wn_equal(m, l, other)); /* lists: by identity */
    assert_false(wn_equal(m, l, NULL));
}

static void test_tuples_are_compared_item_by_item(void **state) {
    (void)state;
    wn_root(m, wn_str *, text, wn_str_text(m, "a long enough text"));
    wn_root(m, wn_str *, same, wn_str_text(m, "a long enough text"));
    wn_root(m, wn_int *, number, wn_int_new(m, 123456));
    wn_root(m, wn_tuple *, a, wn_tuple_pair(m, text, number));
    wn_root(m, wn_tuple *, b, wn_tuple_pair(m, same, number));
    wn_root(m, wn_tuple *, c, wn_tuple_pair(m, number, text));
    assert_true(wn_equal(m, a, b));
    assert_true(wn_hash(m, a) == wn_hash(m, b));
    assert_false(wn_equal(m, a, c));
    assert_ptr_equal(wn_tuple_get(a, 1), number);
    assert_null(wn_tuple_get(a, 2));
    refused(wn_tuple_init(m, a, 0, text), WN_ERR_ARGUMENT, "filled before"); /* filled before */
    refused(wn_tuple_init(m, a, 2, text), WN_ERR_ARGUMENT, "no item 2");
    /* Two hundred thousand levels deep: no stack is overflown, and equal still means equal hashes. */
    wn_root(m, wn_tuple *, deep, wn_tuple_pair(m, text, number));
    for (int i = 0; i < (getenv("WINNOW_OPTIONS") ? 1000 : 200000); i++)
        wn_take(m, deep, wn_tuple_pair(m, deep, number));
    (void)wn_hash(m, deep);
    assert_true(wn_equal(m, deep, deep));
    wn_root(m, wn_tuple *, twin, wn_tuple_pair(m, wn_tuple_get(deep, 0), number));
    assert_true(wn_equal(m, deep, twin));
    assert_true(wn_hash(m, deep) == wn_hash(m, twin));
}

static void test_a_tuple_filled_late_keeps_what_it_holds(void **state) {
    (void)state;
    wn_root(m, wn_tuple *, t, wn_tuple_new(m, 3));
    wn_collect(m, 2, NULL); /* nothing in it yet: must not be mistaken for a tuple that holds no containers */
    wn_root(m, wn_int *, number, wn_int_new(m, 1000));
    assert_int_equal(wn_tuple_init(m, t, 1, number), WN_OK);
    wn_collect(m, 2, NULL);
    {
        wn_root(m, wn_list *, l, wn_list_new(m, 0));
        assert_int_equal(wn_list_append(m, l, t), WN_OK); /* a cycle through the tuple */
        assert_int_equal(wn_tuple_init(m, t, 0, l), WN_OK);
    }
    wn_collect(m, 2, NULL);
    assert_int_equal(wn_kind_of(wn_tuple_get(t, 0)), WN_KIND_LIST);
    assert_ptr_equal(wn_list_get(wn_tuple_get(t, 0), 0), t);
    wn_root(m, wn_weakref *, w, wn_weakref_new(m, t, NULL, NULL));
    wn_assign(m, t, NULL);
    wn_collect(m, 2, NULL);
    assert_null(wn_weakref_get(m, w));
}

static void test_strings(void **state) {
    (void)state;
    wn_root(m, wn_str *, s, wn_str_text(m, "reference counting"));
    wn_root(m, wn_str *, part, wn_str_slice(m, s, 0, 9));
    assert_string_equal(wn_str_bytes(part), "reference");
    wn_root(m, wn_str *, empty, wn_str_slice(m, s, 30, 40));
    assert_int_equal(wn_str_length(empty), 0);
    wn_root(m, wn_str *, one, wn_str_slice(m, s, 0, 1));
    wn_root(m, wn_str *, r, wn_str_text(m, "r"));
    assert_ptr_equal(one, r);
    wn_root(m, wn_str *, both, wn_str_concat(m, part, s));
    assert_string_equal(wn_str_bytes(both), "referencereference counting");
    wn_root(m, wn_str *, whole, wn_str_concat(m, s, empty));
    assert_true(wn_equal(m, whole, s));
    wn_root(m, wn_str *, nul, wn_str_new(m, "a\0b", 3));
    wn_root(m, wn_str *, not_nul, wn_str_new(m, "a\0c", 3));
    assert_false(wn_equal(m, nul, not_nul));
}

static void test_repr_reads_like_python(void **state) {
    (void)state;
    wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    assert_repr(d, "{}");
    assert_repr(l, "[]");
    wn_list_push(m, l, wn_int_new(m, -42));
    wn_list_push(m, l, wn_float_new(m, 0.1));
    wn_list_push(m, l, wn_float_new(m, 3));
    wn_list_push(m, l, wn_float_new(m, 1e300));
    wn_list_push(m, l, wn_float_new(m, -INFINITY));
    wn_list_append(m, l, wn_none(m));
    wn_list_append(m, l, wn_bool(m, true));
    wn_list_append(m, l, wn_bool(m, false));
    wn_list_push(m, l, wn_str_text(m, "it's\n\\ \"é\"\x01"));
    wn_list_push(m, l, wn_str_text(m, "it's"));
    assert_repr(l, "[-42, 0.1, 3.0, 1e+300, -inf, None, True, False, 'it\\'s\\n\\\\ \"é\"\\x01', \"it's\"]");
    wn_list_clear(m, l);
    wn_root(m, wn_tuple *, t, wn_tuple_new(m, 1));
    wn_tuple_init(m, t, 0, l);
    wn_list_append(m, l, t);
    assert_repr(t, "([(...)],)");
    wn_dict_set(m, d, t, d);
    assert_repr(d, "{([(...)],): {...}}");
    wn_root(m, wn_weakref *, w, wn_weakref_new(m, l, NULL, NULL));
    assert_int_equal(wn_kind_of(w), WN_KIND_WEAKREF);
    for (int i = 0; i < 1000; i++) { /* deeper than is written, and than a stack should go */
        wn_root(m, wn_list *, outer, wn_list_new(m, 1));
        wn_list_append(m, outer, l);
        wn_assign(m, l, outer);
    }
    char *text = wn_repr_text(m, l);
    assert_non_null(strstr(text, "[...]"));
    free(text);
}

/* ---- list -------------------------------------------------------------------------------------------------------- */

static void test_list_refuses_nonsense(void **state) {
    (void)state;
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    assert_null(wn_list_get(l, 0));
    assert_null(wn_list_pop(m, l));
    refused(wn_list_set(m, l, 0, wn_none(m)), WN_ERR_ARGUMENT, "no item 0");
    refused(wn_list_delete(m, l, 0), WN_ERR_ARGUMENT, "no item 0");
    refused(wn_list_insert(m, l, 1, wn_none(m)), WN_ERR_ARGUMENT, "no item 1");
    refused(wn_list_append(m, l, NULL), WN_ERR_ARGUMENT, "NULL");
    refused(wn_list_set(m, l, SIZE_MAX, NULL), WN_ERR_ARGUMENT, "no item 18446744073709551615");
    assert_int_equal(wn_list_push(m, l, NULL), WN_ERR_MEMORY);
    assert_int_equal(wn_list_length(l), 0);
}

static void test_list_counts_references(void **state) {
    (void)state;
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    wn_root(m, wn_int *, n, wn_int_new(m, 100000));
    for (int i = 0; i < 20; i++) assert_int_equal(wn_list_append(m, l, n), WN_OK);
    if (counting()) assert_int_equal(wn_refcount(m, n), 21);
    assert_int_equal(wn_list_insert(m, l, 3, n), WN_OK);
    if (counting()) assert_int_equal(wn_refcount(m, n), 22);
    assert_int_equal(wn_list_delete(m, l, 0), WN_OK);
    wn_release(m, wn_list_pop(m, l));
    if (counting()) assert_int_equal(wn_refcount(m, n), 20);
    wn_list_clear(m, l);
    assert_int_equal(wn_list_length(l), 0);
    if (counting()) assert_int_equal(wn_refcount(m, n), 1);
}

/* An object whose finalizer changes the container it is being removed from. */
typedef struct meddler {
    wn_object head;
    wn_object *container;
} meddler;
static int meddled;
static void meddle(wn_mutator *mutator, void *object) {
    wn_borrow(mutator, meddler *, self, object);
    meddled++;
    if (self->container->type == &wn_list_type) {
        assert_int_equal(wn_list_push(mutator, (wn_list *)self->container, wn_int_new(mutator, 1000 + meddled)), WN_OK);
    } else {
        char key[32];
        snprintf(key, sizeof key, "meddled %d", meddled);
        assert_int_equal(wn_dict_put(mutator, (wn_dict *)self->container, key, wn_int_new(mutator, 1000 + meddled)),
                         WN_OK);
    }
}
static const wn_type meddler_type = WN_TYPE(meddler, WN_REFS(meddler, container), .finalize = meddle);

static void *meddler_new(void *container) {
    wn_borrow(m, wn_object *, c, container);
    wn_root(m, meddler *, o, wn_new(m, &meddler_type));
    assert_non_null(o);
    wn_set(m, o, container, c);
    return wn_give(m, o);
}

static void test_finalizers_may_change_the_list(void **state) {
    (void)state;
    meddled = 0;
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    for (int i = 0; i < 8; i++) wn_list_push(m, l, meddler_new(l));
    assert_int_equal(wn_list_set(m, l, 0, wn_none(m)), WN_OK);
    assert_int_equal(wn_list_delete(m, l, 3), WN_OK);
    assert_int_equal(wn_list_insert(m, l, 0, wn_none(m)), WN_OK);
    wn_release(m, wn_list_pop(m, l));
    wn_list_clear(m, l);
    wn_collect(m, 2, NULL);
    wn_collect(m, 2, NULL);
    assert_int_equal(meddled, 8);
    for (size_t i = 0; i < wn_list_length(l); i++) assert_int_equal(wn_kind_of(wn_list_get(l, i)), WN_KIND_INT);
    assert_int_equal(wn_verify(m, stderr), 0);
}

/* ---- dict -------------------------------------------------------------------------------------------------------- */

static void test_dict_refuses_nonsense(void **state) {
    (void)state;
    wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
    size_t at = 0;
    assert_null(wn_dict_get(m, d, wn_none(m)));
    assert_null(wn_dict_get_text(d, "absent"));
    assert_false(wn_dict_delete(m, d, wn_none(m)));
    assert_false(wn_dict_next(d, &at, NULL, NULL));
    refused(wn_dict_set(m, d, NULL, wn_none(m)), WN_ERR_ARGUMENT, "NULL");
    refused(wn_dict_set(m, d, wn_none(m), NULL), WN_ERR_ARGUMENT, "NULL");
    assert_null(wn_dict_new(m, (size_t)1 << 62));
    assert_non_null(strstr(wn_error_message(), "at most"));
    assert_null(wn_str_new(m, "", SIZE_MAX));
    assert_non_null(strstr(wn_error_message(), "18446744073709551615 bytes"));
    FILE *full = fopen("/dev/full", "w");
    if (full) {
        setbuf(full, NULL);
        refused(wn_repr(m, d, full), WN_ERR_IO, "No space");
        fclose(full);
    }
    assert_int_equal(wn_dict_put(m, d, "key", NULL), WN_ERR_MEMORY);
    assert_int_equal(wn_dict_length(d), 0);
}

static void test_dict_keys_go_by_value(void **state) {
    (void)state;
    wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
    wn_root(m, wn_int *, one, wn_int_new(m, 1));
    wn_root(m, wn_float *, one_float, wn_float_new(m, 1.0));
    wn_root(m, wn_str *, name, wn_str_text(m, "a name"));
    wn_root(m, wn_str *, value, wn_str_text(m, "a value"));
    wn_root(m, wn_str *, other, wn_str_text(m, "another value"));
    assert_int_equal(wn_dict_set(m, d, one, value), WN_OK);
    assert_int_equal(wn_dict_set(m, d, one_float, other), WN_OK); /* the same key: the first one stays, as in Python */
    assert_int_equal(wn_dict_length(d), 1);
    assert_ptr_equal(wn_dict_get(m, d, wn_bool(m, true)), other);
    assert_repr(d, "{1: 'another value'}");
    assert_int_equal(wn_dict_set(m, d, name, value), WN_OK);
    assert_ptr_equal(wn_dict_get_text(d, "a name"), value);
    assert_ptr_equal(wn_dict_get_bytes(d, "a name and more", 6), value);
    assert_null(wn_dict_get_text(d, "a nam"));
    wn_root(m, wn_str *, name_again, wn_str_text(m, "a name"));
    assert_ptr_equal(wn_dict_get(m, d, name_again), value);
    wn_root(m, wn_tuple *, pair, wn_tuple_pair(m, one, name));
    assert_int_equal(wn_dict_set(m, d, pair, pair), WN_OK);
    wn_root(m, wn_tuple *, pair_again, wn_tuple_pair(m, one_float, name_again));
    assert_ptr_equal(wn_dict_get(m, d, pair_again), pair);
    /* By identity, wherever the objects move. */
    wn_root(m, wn_list *, l1, wn_list_new(m, 0));
    wn_root(m, wn_list *, l2, wn_list_new(m, 0));
    assert_int_equal(wn_dict_set(m, d, l1, one), WN_OK);
    assert_int_equal(wn_dict_set(m, d, l2, name), WN_OK);
    wn_collect(m, 0, NULL);
    wn_collect(m, 2, NULL);
    assert_ptr_equal(wn_dict_get(m, d, l1), one);
    assert_ptr_equal(wn_dict_get(m, d, l2), name);
}

static void test_finalizers_may_change_the_dict(void **state) {
    (void)state;
    meddled = 0;
    wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
    for (int i = 0; i < 30; i++) {
        char key[16];
        snprintf(key, sizeof key, "m%d", i);
        assert_int_equal(wn_dict_put(m, d, key, meddler_new(d)), WN_OK);
    }
    for (int i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "m%d", i);
        if (i % 2) {
            assert_int_equal(wn_dict_put(m, d, text, wn_int_new(m, i)), WN_OK);
        } else {
            wn_root(m, wn_str *, key, wn_str_text(m, text));
            assert_true(wn_dict_delete(m, d, key));
        }
    }
    wn_dict_clear(m, d);
    wn_collect(m, 2, NULL);
    wn_collect(m, 2, NULL);
    assert_int_equal(meddled, 30);
    void *value;
    for (size_t at = 0; wn_dict_next(d, &at, NULL, &value);) assert_int_equal(wn_kind_of(value), WN_KIND_INT);
    assert_int_equal(wn_verify(m, stderr), 0);
}

/* The oldest out, a new one in: dead entries must neither pile up nor be searched through each time. */
static void test_dict_as_a_queue(void **state) {
    (void)state;
    int rounds = getenv("WINNOW_OPTIONS") ? 2000 : 50000;
    wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
    for (int64_t i = 0; i < rounds; i++) {
        wn_root(m, wn_int *, n, wn_int_new(m, i));
        assert_int_equal(wn_dict_set(m, d, n, n), WN_OK);
        if (wn_dict_length(d) <= 100) continue;
        size_t at = 0;
        void *oldest;
        assert_true(wn_dict_next(d, &at, &oldest, NULL));
        assert_true(wn_int_value(oldest) == i - 100);
        assert_true(wn_dict_delete(m, d, oldest));
    }
    assert_int_equal(wn_dict_length(d), 100);
    assert_true(d->filled < 400);
}

static void test_two_dicts_in_a_cycle(void **state) {
    (void)state;
    wn_root(m, wn_weakref *, w, NULL);
    {
        wn_root(m, wn_dict *, a, wn_dict_new(m, 0));
        wn_root(m, wn_dict *, b, wn_dict_new(m, 0));
        wn_dict_put(m, a, "next", wn_keep(m, b));
        wn_dict_put(m, b, "next", wn_keep(m, a));
        if (counting()) assert_int_equal(wn_refcount(m, a), 2);
        wn_take(m, w, wn_weakref_new(m, a, NULL, NULL));
        wn_collect(m, 2, NULL);
        wn_root(m, wn_dict *, again, wn_weakref_get(m, w));
        assert_ptr_equal(again, a);
    }
    wn_collect(m, 2, NULL);
    assert_null(wn_weakref_get(m, w));
}

/* ---- against a model --------------------------------------------------------------------------------------------- */

static uint64_t random_state;
static uint64_t random_next(void) { /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1D;
}
static size_t random_below(size_t n) { return (size_t)(random_next() >> 33) % n; }

static int model_steps = 40000;

static int seed_and_steps(const char *what) {
    const char *given = getenv("WINNOW_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)clock();
    int steps = getenv("WINNOW_OPTIONS") ? 4000 : model_steps;
    print_message("%s: %d steps, WINNOW_TEST_SEED=%" PRIu64 "\n", what, steps, seed);
    random_state = seed | 1;
    return steps;
}

enum { LIST_MAX = 400 };

static void check_list(const wn_list *l, const int64_t *model, size_t n) {
    assert_int_equal(wn_list_length(l), n);
    for (size_t i = 0; i < n; i++) assert_true(wn_int_value(wn_list_get(l, i)) == model[i]);
    assert_null(wn_list_get(l, n));
}

static void test_list_against_a_model(void **state) {
    (void)state;
    int64_t model[LIST_MAX];
    size_t n = 0;
    int steps = seed_and_steps("list");
    wn_root(m, wn_list *, l, wn_list_new(m, random_below(10)));
    for (int step = 0; step < steps; step++) {
        int64_t v = (int64_t)random_below(2000) - 200;
        size_t at = n ? random_below(n) : 0;
        wn_root(m, wn_int *, value, wn_int_new(m, v));
        switch (random_below(n >= LIST_MAX ? 4 : 9)) {
        case 0:
            if (random_below(100) == 0) {
                wn_list_clear(m, l);
                n = 0;
            }
            break;
        case 1:
            assert_int_equal(wn_list_delete(m, l, at), n ? WN_OK : WN_ERR_ARGUMENT);
            if (n) memmove(model + at, model + at + 1, (--n - at) * sizeof *model);
            break;
        case 2: {
            wn_root(m, wn_int *, last, wn_list_pop(m, l));
            if (n)
                assert_true(wn_int_value(last) == model[--n]);
            else
                assert_null(last);
            break;
        }
        case 3:
            assert_int_equal(wn_list_set(m, l, at, value), n ? WN_OK : WN_ERR_ARGUMENT);
            if (n) model[at] = v;
            break;
        case 4:
        case 5:
            at = random_below(n + 1);
            assert_int_equal(wn_list_insert(m, l, at, value), WN_OK);
            memmove(model + at + 1, model + at, (n++ - at) * sizeof *model);
            model[at] = v;
            break;
        case 6:
            assert_int_equal(wn_list_push(m, l, wn_int_new(m, v)), WN_OK);
            model[n++] = v;
            break;
        default: assert_int_equal(wn_list_append(m, l, value), WN_OK); model[n++] = v;
        }
        if (step % 64 == 0) check_list(l, model, n);
    }
    check_list(l, model, n);
}

enum { KEYS = 300 };

/* Key number k of the model: ints small and large, floats, strings short and long, and lists, which go by identity and
 * so must be the very same object each time. */
static void *key_new(wn_list *by_identity, size_t k) {
    char text[64];
    switch (k % 5) {
    case 0: return wn_int_new(m, (int64_t)k * 7);
    case 1: return wn_float_new(m, (double)k + 0.5);
    case 2: return wn_keep(m, wn_list_get(by_identity, k));
    default:
        snprintf(text, sizeof text, k % 2 ? "%zu" : "a somewhat longer key, number %zu", k);
        return wn_str_text(m, text);
    }
}

typedef struct model_entry {
    bool present;
    int64_t value;
    uint64_t born;
} model_entry;

/* The next present key of the model in order of insertion, after the one that was born at `after`. */
static size_t next_in_model(const model_entry *model, uint64_t after) {
    size_t best = KEYS;
    for (size_t k = 0; k < KEYS; k++)
        if (model[k].present && model[k].born > after && (best == KEYS || model[k].born < model[best].born)) best = k;
    return best;
}

static void check_dict(const wn_dict *dict, wn_list *identities, const model_entry *model, size_t n) {
    wn_borrow(m, const wn_dict *, d, dict);
    wn_borrow(m, wn_list *, by_identity, identities);
    assert_int_equal(wn_dict_length(d), n);
    uint64_t born = 0;
    size_t at = 0, seen = 0;
    void *key, *value;
    while (wn_dict_next(d, &at, &key, &value)) {
        size_t k = next_in_model(model, born);
        assert_true(k < KEYS);
        assert_true(wn_int_value(value) == model[k].value);
        wn_hold(m, wn_object *, found, key);
        wn_root(m, wn_object *, expected, key_new(by_identity, k));
        assert_true(wn_equal(m, found, expected));
        born = model[k].born;
        seen++;
    }
    assert_int_equal(seen, n);
}

static void test_dict_against_a_model(void **state) {
    (void)state;
    static model_entry model[KEYS];
    memset(model, 0, sizeof model);
    uint64_t now = 0;
    size_t n = 0, keys = KEYS;
    int steps = seed_and_steps("dict");
    wn_root(m, wn_list *, by_identity, wn_list_new(m, KEYS));
    for (size_t k = 0; k < KEYS; k++) wn_list_push(m, by_identity, wn_list_new(m, 0));
    wn_root(m, wn_dict *, d, wn_dict_new(m, random_below(20)));
    for (int step = 0; step < steps; step++) {
        if (step % 1000 == 0) keys = random_below(4) ? KEYS : 1 + random_below(12); /* large and small in turn */
        size_t k = random_below(keys);
        int64_t v = (int64_t)random_below(2000) - 200;
        wn_root(m, wn_object *, key, key_new(by_identity, k));
        switch (random_below(8)) {
        case 0:
        case 1:
        case 2: {
            wn_root(m, wn_int *, value, wn_int_new(m, v));
            assert_int_equal(wn_dict_set(m, d, key, value), WN_OK);
            if (!model[k].present) {
                model[k].present = true;
                model[k].born = ++now;
                n++;
            }
            model[k].value = v;
            break;
        }
        case 3:
        case 4: {
            wn_int *found = wn_dict_get(m, d, key);
            assert_int_equal(found != NULL, model[k].present);
            if (found) assert_true(wn_int_value(found) == model[k].value);
            break;
        }
        case 5:
        case 6:
            assert_int_equal(wn_dict_delete(m, d, key), model[k].present);
            n -= model[k].present;
            model[k].present = false;
            break;
        default:
            if (random_below(50) == 0) { /* deleting while going through it */
                size_t at = 0, odds = 1 + random_below(4);
                void *each;
                uint64_t born = 0;
                while (wn_dict_next(d, &at, &each, NULL)) {
                    k = next_in_model(model, born);
                    born = model[k].born;
                    if (random_below(odds) == 0) {
                        assert_true(wn_dict_delete(m, d, each));
                        model[k].present = false;
                        n--;
                    }
                }
                assert_int_equal(next_in_model(model, born), KEYS);
            } else if (random_below(100) == 0) {
                wn_dict_clear(m, d);
                for (size_t i = 0; i < KEYS; i++) model[i].present = false;
                n = 0;
            }
        }
        if (step % 256 == 0) check_dict(d, by_identity, model, n);
    }
    check_dict(d, by_identity, model, n);
}

/* All index widths: one, two and four bytes per slot. */
static void test_a_large_dict(void **state) {
    (void)state;
    int64_t n = getenv("WINNOW_OPTIONS") ? 1000 : 60000;
    wn_root(m, wn_dict *, d, wn_dict_new(m, 0));
    for (int64_t i = 0; i < n; i++) {
        wn_root(m, wn_int *, k, wn_int_new(m, i * 1000003));
        assert_int_equal(wn_dict_set(m, d, k, k), WN_OK);
    }
    assert_int_equal(wn_dict_length(d), n);
    for (int64_t i = 0; i < n; i++) {
        wn_root(m, wn_int *, k, wn_int_new(m, i * 1000003));
        assert_true(wn_equal(m, wn_dict_get(m, d, k), k));
        if (i % 3) assert_true(wn_dict_delete(m, d, k));
    }
    for (int64_t i = 0; i < n; i++) {
        wn_root(m, wn_int *, k, wn_int_new(m, i * 1000003));
        assert_int_equal(wn_dict_get(m, d, k) != NULL, i % 3 == 0);
        if (i % 3 == 0) assert_true(wn_dict_delete(m, d, k));
    }
    assert_int_equal(wn_dict_length(d), 0);
    assert_null(d->entries); /* given back */
}

/* Whatever was made is gone when its containers are: nothing was counted once too often. */
static void test_nothing_leaks(void **state) {
    (void)state;
    size_t before = objects_alive();
    model_steps = 3000;
    for (int round = 0; round < 2; round++) {
        test_strings(NULL);
        test_tuples_are_compared_item_by_item(NULL);
        test_dict_keys_go_by_value(NULL);
        test_list_counts_references(NULL);
        test_finalizers_may_change_the_list(NULL);
        test_finalizers_may_change_the_dict(NULL);
        test_list_against_a_model(NULL);
        test_dict_against_a_model(NULL);
    }
    if (counting()) assert_int_equal(objects_alive(), before);
    assert_int_equal(wn_verify(m, stderr), 0);
}

/* Each on a heap of its own: one that fails leaves its roots behind. */
#define ON_A_HEAP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        ON_A_HEAP(test_shared_values_are_made_once),
        ON_A_HEAP(test_small_ints_are_interned),
        ON_A_HEAP(test_strings_of_one_character_are_interned),
        ON_A_HEAP(test_heaps_share_nothing),
        ON_A_HEAP(test_equality_and_hash_go_by_value),
        ON_A_HEAP(test_tuples_are_compared_item_by_item),
        ON_A_HEAP(test_a_tuple_filled_late_keeps_what_it_holds),
        ON_A_HEAP(test_strings),
        ON_A_HEAP(test_repr_reads_like_python),
        ON_A_HEAP(test_list_refuses_nonsense),
        ON_A_HEAP(test_list_counts_references),
        ON_A_HEAP(test_finalizers_may_change_the_list),
        ON_A_HEAP(test_dict_refuses_nonsense),
        ON_A_HEAP(test_dict_keys_go_by_value),
        ON_A_HEAP(test_finalizers_may_change_the_dict),
        ON_A_HEAP(test_dict_as_a_queue),
        ON_A_HEAP(test_two_dicts_in_a_cycle),
        ON_A_HEAP(test_list_against_a_model),
        ON_A_HEAP(test_dict_against_a_model),
        ON_A_HEAP(test_a_large_dict),
        ON_A_HEAP(test_nothing_leaks),
    };
    return cmocka_run_group_tests_name("objects", tests, NULL, NULL);
}
