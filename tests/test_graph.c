/* test_graph.c - wn_heap_graph: what is drawn, that any text survives, and that limits are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include <winnow.h>
#include <winnow/objects.h>

static wn_heap *heap;
static wn_mutator *m;
static wn_objects *shared;

static int setup(void **state) {
    (void)state;
    return wn_heap_new(NULL, &heap) || wn_attach(heap, &m) || wn_objects_new(m, &shared) ? -1 : 0;
}
static int teardown(void **state) {
    (void)state;
    wn_objects_free(m, shared);
    return wn_detach(m) || wn_heap_free(heap) ? -1 : 0;
}

static char *graph_of(void *const *objects, size_t n, size_t max) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_int_equal(wn_heap_graph(m, out, objects, n, max), WN_OK);
    assert_int_equal(fclose(out), 0);
    return text;
}

static size_t occurrences(const char *text, const char *what) {
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what)) n++;
    return n;
}

static void test_the_cycle_of_two_dicts(void **state) {
    (void)state;
    wn_root(m, wn_dict *, obj_1, wn_dict_new(m, 0));
    wn_root(m, wn_dict *, obj_2, wn_dict_new(m, 0));
    wn_dict_put(m, obj_1, "next", wn_keep(m, obj_2));
    wn_dict_put(m, obj_2, "next", wn_keep(m, obj_1));
    void *objects[] = {obj_1, obj_2, NULL, obj_1};
    char *text = graph_of(objects, 4, 0);
    assert_ptr_equal(strstr(text, "digraph heap {"), text);
    assert_int_equal(occurrences(text, "label=\"{dict|1\\ key"), 2); /* each once, though one was given twice */
    assert_int_equal(occurrences(text, "penwidth=2"), 2);            /* those that were asked for */
    assert_int_equal(occurrences(text, "{str|'next'"), 2);
    assert_int_equal(occurrences(text, " -> "), 6); /* dict -> entries -> key and value, twice */
    if (wn_heap_collector(heap) == WN_COLLECTOR_REFCOUNT)
        assert_int_equal(occurrences(text, "|count\\ 2}"), 2);
    else
        assert_int_equal(occurrences(text, "count"), 0);
    assert_null(strstr(text, "more"));
    free(text);
}

static void test_any_text_is_escaped(void **state) {
    (void)state;
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    wn_list_push(m, l, wn_str_text(m, "{a|b} <\"c\"> \\ é\n"));
    wn_list_push(m, l, wn_str_new(m, "\xFF\xC3(", 3));
    void *objects[] = {l};
    char *text = graph_of(objects, 1, 0);
    assert_non_null(strstr(text, "'\\{a\\|b\\}\\ \\<\\\"c\\\"\\>\\ \\\\\\ é·'"));
    assert_non_null(strstr(text, "'··('"));
    free(text);
}

static void test_the_limit_is_kept(void **state) {
    (void)state;
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    for (int i = 0; i < 1000; i++) wn_list_push(m, l, wn_int_new(m, 1000 + i));
    void *objects[] = {l};
    char *text = graph_of(objects, 1, 12);
    assert_int_equal(occurrences(text, "fillcolor="), 12);
    assert_non_null(strstr(text, "… 990 more")); /* list, its items, ten ints are drawn */
    free(text);
    text = graph_of(objects, 1, 0);
    assert_int_equal(occurrences(text, "fillcolor="), 200);
    free(text);
    text = graph_of(objects, 1, 1);
    assert_int_equal(occurrences(text, "fillcolor="), 1);
    assert_non_null(strstr(text, "… 1 more"));
    free(text);
}

static void test_many_arrows_to_one_object_are_one(void **state) {
    (void)state;
    wn_root(m, wn_int *, i, wn_int_new(m, 12345));
    wn_root(m, wn_list *, l, wn_list_new(m, 0));
    for (int k = 0; k < 7; k++) wn_list_append(m, l, i);
    void *objects[] = {l};
    char *text = graph_of(objects, 1, 0);
    assert_non_null(strstr(text, "[label=\"7×\"]"));
    assert_int_equal(occurrences(text, " -> "), 2);
    free(text);
}

/* A type needs no name. */
static void test_an_object_without_a_name(void **state) {
    (void)state;
    static const wn_type nameless = {.size = sizeof(wn_object)};
    wn_root(m, wn_object *, o, wn_new(m, &nameless));
    void *objects[] = {o};
    char *text = graph_of(objects, 1, 0);
    assert_int_equal(occurrences(text, "label=\"{(unnamed)"), 1);
    free(text);
}

static void test_nothing_and_nonsense(void **state) {
    (void)state;
    char *text = graph_of(NULL, 0, 0);
    assert_int_equal(occurrences(text, "fillcolor="), 0);
    assert_string_equal(text + strlen(text) - 2, "}\n");
    free(text);
    void *objects[] = {wn_none(m)};
    assert_int_equal(wn_heap_graph(m, NULL, objects, 1, 0), WN_ERR_ARGUMENT);
    assert_int_equal(wn_heap_graph(m, stdout, NULL, 1, 0), WN_ERR_ARGUMENT);
    assert_int_equal(wn_heap_graph(m, stdout, objects, 1, SIZE_MAX), WN_ERR_ARGUMENT);
    void *two[] = {wn_none(m), wn_none(m)};
    assert_int_equal(wn_heap_graph(m, stdout, two, 2, 1), WN_ERR_ARGUMENT);
    assert_non_null(strstr(wn_error_message(), "max_objects"));
    FILE *full = fopen("/dev/full", "w");
    if (!full) return;
    setvbuf(full, NULL, _IONBF, 0);
    assert_int_equal(wn_heap_graph(m, full, objects, 1, 0), WN_ERR_IO);
    assert_non_null(strstr(wn_error_message(), "disk"));
    fclose(full);
}

enum { WIDE = 4000 }; /* objects whose graph fills a pipe several times over */

/* A reader that, like any thread of a program, is attached, and waits in blocking sections. */
static void *read_to_the_end(void *arg) {
    static size_t length;
    FILE *in = arg;
    char part[4096];
    wn_mutator *mine;
    if (wn_attach(heap, &mine)) return NULL;
    length = 0;
    for (size_t n = 1; n; length += n) {
        wn_block_begin(mine);
        n = fread(part, 1, sizeof part, in);
        wn_block_end(mine);
    }
    return wn_detach(mine) ? NULL : &length;
}

static void test_a_reader_that_is_attached(void **state) {
    (void)state;
    wn_root(m, wn_list *, list, wn_list_new(m, WIDE));
    for (int i = 0; i < WIDE; i++) assert_int_equal(wn_list_push(m, list, wn_int_new(m, i)), WN_OK);
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    FILE *in = fdopen(fd[0], "r"), *out = fdopen(fd[1], "w");
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_to_the_end, in), 0);
    void *objects[] = {list}, *length;
    wn_status status = wn_heap_graph(m, out, objects, 1, 2 * WIDE);
    wn_block_begin(m);
    fclose(out);
    pthread_join(reader, &length);
    wn_block_end(m);
    fclose(in);
    assert_int_equal(status, WN_OK);
    assert_non_null(length);
    assert_in_range(*(size_t *)length, 200000, SIZE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_cycle_of_two_dicts),
        cmocka_unit_test(test_any_text_is_escaped),
        cmocka_unit_test(test_a_reader_that_is_attached),
        cmocka_unit_test(test_the_limit_is_kept),
        cmocka_unit_test(test_many_arrows_to_one_object_are_one),
        cmocka_unit_test(test_nothing_and_nonsense),
        cmocka_unit_test(test_an_object_without_a_name),
    };
    return cmocka_run_group_tests_name("graph", tests, setup, teardown);
}
