/*
 * misuse.c - what happens to a client that breaks a rule: each documented misuse gives a message that names the rule
 * and the remedy, and a status that is not success; nothing crashes. What only checking finds (check=on) goes to the
 * misuse handler; those cases run in a forked child, which ends at the first report.
 */
#include "client/client.h"

#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* The last error message has these words; NULL ends the list. */
static void says(const char *first, ...) {
    const char *message = wn_error_message();
    va_list words;
    va_start(words, first);
    for (const char *word = first; word; word = va_arg(words, const char *))
        if (!strstr(message, word)) fail_msg("the message says nothing of \"%s\": \"%s\"", word, message);
    va_end(words);
    if (strlen(message) < 20) fail_msg("that is no help: \"%s\"", message);
}

static bool verifying, stressed;
static client checked(void) {
    wn_options o = wn_options_default();
    o.check = true;
    o.verify = verifying;
    o.stress = stressed;
    return client_open(&o);
}

/* ---- attaching --------------------------------------------------------------------------------------------------- */

static void attaching_twice(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *again = NULL;
    assert_int_equal(wn_attach(c.heap, &again), WN_ERR_STATE);
    says("attach", NULL);
    assert_null(again);
    client_close(&c);
}

static void allocating_when_detached(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_release(m, client_pair(m, 1, NULL, NULL)); /* buffers are warm: the fast path must not serve it either */
    assert_int_equal(wn_detach(m), WN_OK);
    assert_null(wn_current(c.heap));
    for (int i = 0; i < 3; i++) {
        assert_null(wn_new(m, &pair_type));
        says("detached", "wn_attach", NULL);
        assert_null(wn_new_array(m, &vector_type, 5));
        says("detached", "wn_attach", NULL);
    }
    assert_int_not_equal(wn_collect(m, 2, NULL), WN_OK);
    says("detached", "wn_attach", NULL);
    assert_int_equal(wn_detach(m), WN_ERR_STATE);
    says("detached", NULL);
    assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    wn_release(c.m, client_pair(c.m, 1, NULL, NULL));
    client_close(&c);
}

static bool see_nothing(void *object, void *data) { return (void)object, (void)data, true; }

/* Each call that takes a mutator says that it is gone, in a message of its own. */
static void any_call_when_detached(void **state) {
    (void)state;
    static void *global;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    pair *o = client_pair(m, 1, NULL, NULL);
    wn_make_immortal(m, o); /* it is there for others when this thread has left */
    wn_weakref *r = wn_weakref_new(m, o, NULL, NULL);
    wn_ephemeron *e = wn_ephemeron_new(m, o, o);
    wn_make_immortal(m, r);
    wn_make_immortal(m, e);
    assert_int_equal(wn_global(c.heap, &global), WN_OK);
    wn_step_result step;
    assert_int_equal(wn_detach(m), WN_OK);
#define REFUSED(call, result)                \
    do {                                     \
        wn_attach(NULL, NULL);               \
        assert_true((call) == (result));     \
        says("detached", "wn_attach", NULL); \
    } while (0)
    REFUSED(wn_weakref_new(m, o, NULL, NULL), NULL);
    REFUSED(wn_weakref_get(m, r), NULL);
    REFUSED(wn_weakref_count(m, o), 0);
    REFUSED(wn_ephemeron_new(m, o, o), NULL);
    REFUSED(wn_ephemeron_key(m, e), NULL);
    REFUSED(wn_ephemeron_value(m, e), NULL);
    REFUSED((wn_ephemeron_set(m, e, o), 0), 0);
    REFUSED((wn_external(m, o, 5), 0), 0);
    REFUSED(wn_trim(m), 0);
    REFUSED(wn_refcount(m, o), 0);
    REFUSED((wn_block_begin(m), 0), 0);
    REFUSED((wn_block_end(m), 0), 0);
    REFUSED((wn_make_immortal(m, o), 0), 0);
    REFUSED(wn_verify(m, NULL), 1);
    REFUSED(wn_pin(m, o), WN_ERR_STATE);
    REFUSED((wn_unpin(m, o), 0), 0);
    REFUSED(wn_identity(m, o), 0);
    REFUSED(wn_forget_global(m, &global), WN_ERR_STATE);
    REFUSED(wn_collect_step(m, &step), WN_ERR_STATE);
    REFUSED(wn_collect_for(m, 1000, &step), WN_ERR_STATE);
    REFUSED(wn_freeze(m), WN_ERR_STATE);
    REFUSED(wn_unfreeze(m), WN_ERR_STATE);
    REFUSED(wn_each_object(m, see_nothing, NULL), WN_ERR_STATE);
    REFUSED(wn_each_tracked(m, -1, see_nothing, NULL), WN_ERR_STATE);
    REFUSED(wn_referrers(m, o, see_nothing, NULL), WN_ERR_STATE);
    REFUSED(wn_referents(m, o, see_nothing, NULL), WN_ERR_STATE);
    REFUSED(wn_is_tracked(m, o), false);
    REFUSED(wn_is_finalized(m, o), false);
    REFUSED(wn_is_frozen(m, o), false);
    REFUSED(wn_generation(m, o), -1);
    REFUSED(wn_is_object(m, o), false);
    REFUSED(wn_size_of(m, o), 0);
    REFUSED((wn_track(m, o), 0), 0);
    REFUSED((wn_untrack(m, o), 0), 0);
    REFUSED(wn_garbage_count(m), 0);
    REFUSED(wn_garbage_get(m, 0), NULL);
    REFUSED((wn_garbage_clear(m), 0), 0);
    REFUSED(wn_heap_graph(m, stderr, (void *[]){o}, 1, 0), WN_ERR_STATE);
    REFUSED((wn_store(m, o, &o->a, o), 0), 0);
    REFUSED((wn_copy(m, o, &o->a, (void *[]){o}, 1), 0), 0);
    REFUSED((wn_unwind(m, (wn_scope){NULL, 0}), 0), 0);
    REFUSED((wn_no_collect_begin(m), 0), 0);
    REFUSED((wn_no_collect_end(m), 0), 0);
    wn_poll(m); /* nothing to say, and nothing to do */
    wn_retain(m, o);
    wn_release(m, o);
#undef REFUSED
    assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
    assert_int_equal(wn_forget_global(c.m, &global), WN_OK);
    client_close(&c);
}

/* The call has said so by its result; its message says whose object it was. */
static void no_object(bool refused, const char *call) {
    assert_true(refused);
    says(call, "NULL", NULL);
}

static void nothing_where_something_must_be(void **state) {
    (void)state;
    wn_mutator *m = NULL;
    assert_int_equal(wn_heap_new(NULL, NULL), WN_ERR_ARGUMENT);
    assert_int_equal(wn_attach(NULL, &m), WN_ERR_ARGUMENT);
    client c = client_open(NULL);
    assert_int_equal(wn_attach(c.heap, NULL), WN_ERR_ARGUMENT);
    assert_int_equal(wn_global(c.heap, NULL), WN_ERR_ARGUMENT);
    assert_int_equal(wn_add_root_scanner(c.heap, NULL, NULL), WN_ERR_ARGUMENT);
    assert_int_equal(wn_add_listener(c.heap, NULL, NULL), WN_ERR_ARGUMENT);
    wn_options o = wn_options_default();
    wn_attach(NULL, NULL);
    assert_int_equal(wn_options_set(NULL, "check", "on"), WN_ERR_ARGUMENT);
    says("wn_options_set", "structure", NULL);
    assert_int_equal(wn_options_set(&o, NULL, "on"), WN_ERR_ARGUMENT);
    says("wn_options_set", "name", NULL);
    assert_int_equal(wn_options_set(&o, "check", NULL), WN_ERR_ARGUMENT);
    says("wn_options_set", "value", NULL);
    assert_int_equal(wn_detach(NULL), WN_ERR_ARGUMENT);
    says("wn_detach", "wn_attach", NULL);
    no_object(wn_weakref_new(c.m, NULL, NULL, NULL) == NULL, "wn_weakref_new");
    no_object(wn_weakref_get(c.m, NULL) == NULL, "wn_weakref_get");
    no_object(wn_ephemeron_new(c.m, NULL, NULL) == NULL, "wn_ephemeron_new");
    no_object(wn_ephemeron_key(c.m, NULL) == NULL, "wn_ephemeron_key");
    no_object(wn_ephemeron_value(c.m, NULL) == NULL, "wn_ephemeron_value");
    no_object(wn_pin(c.m, NULL) == WN_ERR_ARGUMENT, "wn_pin");
    no_object((wn_unpin(c.m, NULL), true), "wn_unpin");
    no_object(wn_identity(c.m, NULL) == 0, "wn_identity");
    no_object(wn_refcount(c.m, NULL) == 0, "wn_refcount");
    no_object((wn_make_immortal(c.m, NULL), true), "wn_make_immortal");
    no_object(!wn_is_tracked(c.m, NULL), "wn_is_tracked");
    no_object(!wn_is_finalized(c.m, NULL), "wn_is_finalized");
    no_object(!wn_is_frozen(c.m, NULL), "wn_generation");
    no_object(wn_generation(c.m, NULL) == -1, "wn_generation");
    no_object((wn_track(c.m, NULL), true), "wn_track");
    no_object((wn_untrack(c.m, NULL), true), "wn_untrack");
    no_object(wn_referents(c.m, NULL, see_nothing, NULL) == WN_ERR_ARGUMENT, "wn_referents");
    wn_ephemeron_set(c.m, NULL, NULL);
    assert_int_equal(wn_size_of(c.m, NULL), 0);
    says("wn_size_of", "object", NULL);
    int local;
    assert_int_equal(wn_size_of(c.m, &local), 0);
    assert_int_equal(wn_size_of(c.m, (void *)8), 0);
    assert_int_equal(wn_collect(c.m, 3, NULL), WN_ERR_ARGUMENT);
    says("generation", NULL);
    assert_int_equal(wn_collect(c.m, -1, NULL), WN_ERR_ARGUMENT);
    client_close(&c);
}

static void heaps_in_use_are_not_freed(void **state) {
    (void)state;
    client c = client_open(NULL);
    assert_int_equal(wn_heap_free(c.heap), WN_ERR_STATE);
    says("wn_detach", NULL);
    {
        wn_mutator *m = c.m;
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        assert_int_equal(wn_detach(m), WN_ERR_STATE);
        says("root", NULL);
        assert_int_equal(p->id, 1);
    }
    client_close(&c);
}

/* Where the library still needs the mutator when the call returns. */
enum { BY_FINALIZER, BY_CALLBACK, BY_LISTENER, BY_SCOPE, BY_BLOCK, WAYS };
static wn_status detached_by[WAYS];
static unsigned asked[WAYS];
static void try_to_detach(wn_mutator *m, int by) {
    if (!asked[by]++ || !detached_by[by]) detached_by[by] = wn_detach(m);
}
static void detach_in_finalizer(wn_mutator *m, mortal *self) {
    (void)self;
    try_to_detach(m, BY_FINALIZER);
}
static void detach_in_callback(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)ref;
    (void)data;
    try_to_detach(m, BY_CALLBACK);
}
static void detach_in_listener(wn_mutator *m, const wn_event *event, void *data) {
    (void)event;
    (void)data;
    try_to_detach(m, BY_LISTENER);
}

static void detaching_in_the_middle(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    memset(asked, 0, sizeof asked);
    for (int by = 0; by < WAYS; by++) detached_by[by] = WN_ERR_STATE;
    wn_weakref *global = NULL;
    assert_int_equal(wn_global(c.heap, &global), WN_OK);
    for (int cyclic = 0; cyclic < 2; cyclic++) {
        mortal *p = client_mortal(m, 1, NULL, NULL);
        p->will = detach_in_finalizer;
        wn_assign(m, global, NULL);
        {
            wn_root(m, mortal *, r, p);
            wn_take(m, global, wn_weakref_new(m, r, detach_in_callback, NULL));
            if (cyclic) wn_set(m, r, a, r);
        }
        if (cyclic) assert_int_equal(wn_add_listener(c.heap, detach_in_listener, NULL), WN_OK);
        client_collect(m);
        client_collect(m);
    }
    assert_int_equal(wn_remove_listener(c.heap, detach_in_listener, NULL), WN_OK);
    assert_int_equal(wn_forget_global(m, &global), WN_OK);
    wn_no_collect_begin(m);
    try_to_detach(m, BY_SCOPE);
    says("wn_no_collect_end", NULL);
    wn_no_collect_end(m);
    wn_block_begin(m);
    try_to_detach(m, BY_BLOCK);
    says("wn_block_end", NULL);
    wn_block_end(m);
    for (int by = 0; by < WAYS; by++) {
        assert_true(asked[by] > 0);
        assert_int_equal(detached_by[by], WN_ERR_STATE);
    }
    client_close(&c);
}

/* ---- types and sizes --------------------------------------------------------------------------------------------- */

static void wrong_type_tables(void **state) {
    (void)state;
    static const struct {
        wn_type type;
        bool array;
        const char *word; /* what the message must name */
    } wrong[] = {
        {{.name = "broken", .size = 0}, false, "size"},
        {{.name = "broken", .size = 7}, false, "size"},
        {{.name = "broken", .size = (1 << 20) + 1}, false, "size"},
        {{.name = "broken", .size = 0xffffffff}, false, "size"},
        {{.name = "broken", .size = 24, .refs = 1}, false, "type word"},      /* the type word is no reference */
        {{.name = "broken", .size = 24, .refs = 1 << 3}, false, "reference"}, /* beyond the object */
        {{.name = "broken", .size = 24, .flags = 1 << 7}, false, "flag"},     /* unknown */
        {{.name = "broken", .size = 24, .flags = WN_TYPE_WEAKREF}, false, "flag"},
        {{.name = "broken", .size = 24, .flags = WN_TYPE_EPHEMERON}, false, "flag"},
        {{.name = "broken", .size = 24, .item_size = 8, .length_at = 0}, true, "length"},  /* the type word */
        {{.name = "broken", .size = 24, .item_size = 8, .length_at = 24}, true, "length"}, /* beyond */
        {{.name = "broken", .size = 24, .item_size = 8, .length_at = 13}, true, "length"}, /* not aligned */
        {{.name = "broken", .size = 24, .item_size = 8, .item_refs = 2, .length_at = 8}, true, "item references"},
        {{.name = "broken", .size = 24, .item_size = 12, .item_refs = 1, .length_at = 8}, true, "item"}, /* not words */
        {{.name = "broken", .size = 28, .item_size = 8, .item_refs = 1, .length_at = 8},
         true,
         "item"},                                                                                /* items not aligned */
        {{.name = "broken", .size = 24}, true, "item"},                                          /* no items at all */
        {{.name = "broken", .size = 24, .item_size = 8, .length_at = 8}, false, "wn_new_array"}, /* items, but wn_new */
        {{.name = "broken", .size = 24, .item_size = 8, .refs = 1 << 1, .length_at = 8}, true, "length"}, /* both */
    };
    client c = checked();
    wn_mutator *m = c.m;
    for (int warm = 0; warm < 2; warm++) {
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            void *o = wrong[i].array ? wn_new_array(m, &wrong[i].type, 3) : wn_new(m, &wrong[i].type);
            if (o) fail_msg("wrong type %zu (%s) was accepted", i, wrong[i].word);
            says("broken", wrong[i].word, NULL);
        }
        for (int k = 0; k < 100; k++) wn_release(m, client_new(m, &pair_type)); /* buffers for the inline path */
        for (int k = 0; k < 100; k++) wn_release(m, client_new(m, &leaf_type));
    }
    client_close(&c);
}

/* Limits of what is allowed: these are right. */
static void unusual_but_right_type_tables(void **state) {
    (void)state;
    static const wn_type right[] = {
        {.name = "least", .size = 8},
        {.name = "odd", .size = 13},
        {.name = "most", .size = 1 << 20},
        {.name = "items", .size = 16, .item_size = 1, .length_at = 8},
        {.name = "wide items", .size = 16, .item_size = 512, .item_refs = ~(uint64_t)0, .length_at = 8},
        {.name = "all refs", .size = 512, .refs = ~(uint64_t)1},
        {.size = 16}, /* nameless */
    };
    client c = checked();
    wn_mutator *m = c.m;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        wn_root(m, void *, o, right[i].item_size ? wn_new_array(m, &right[i], 3) : wn_new(m, &right[i]));
        if (!o) fail_msg("type %zu was refused: %s", i, wn_error_message());
    }
    client_collect(m);
    client_close(&c);
}

static void absurd_lengths(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    const size_t lengths[] = {SIZE_MAX,        SIZE_MAX / 8,    SIZE_MAX / 8 + 1, SIZE_MAX / 8 - 1,
                              (size_t)1 << 62, (size_t)1 << 61, (size_t)1 << 48};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_null(wn_new_array(m, &vector_type, lengths[i]));
        says("check the length", NULL);
        assert_null(wn_new_array(m, &blob_type, lengths[i]));
        says("check the length", NULL);
    }
    wn_release(m, client_new_array(m, &vector_type, 100)); /* no harm done */
    client_close(&c);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static void options_by_name(void **state) {
    (void)state;
    static const struct {
        const char *name, *value;
    } wrong[] = {
        {"no_such_option", "1"},    {"", "1"},
        {"heap_limit", "many"},     {"heap_limit", "-5M"},
        {"heap_limit", "5X"},       {"heap_limit", ""},
        {"nursery", "1"},           {"nursery", "4m4"},
        {"nursery", "1G"},          {"single_thread", "2"},
        {"single_thread", "maybe"}, {"check", ""},
        {"growth", "0.5"},          {"growth", "nan"},
        {"major_factor", "-1"},     {"major_factor", "inf"},
        {"threshold0", "-1"},       {"threshold0", "x"},
        {"cpu_share", "101"},       {"cpu_share", "0.5"},
        {"workers", "100000"},      {"collector", "mark"},
        {"collector", ""},          {"pause_budget", "1 ms"},
        {"pause_budget", "5h"},     {"reclaim_slice", "some"},
        {"stress", "1e99"},         {"heap_limit", "99999999999T"},
    };
    wn_options o = wn_options_default(), before = o;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (wn_options_set(&o, wrong[i].name, wrong[i].value) != WN_ERR_ARGUMENT)
            fail_msg("option %s=\"%s\" was accepted", wrong[i].name, wrong[i].value);
        says(wrong[i].name, NULL);
        assert_memory_equal(&o, &before, sizeof o); /* nothing was set */
    }
    assert_int_equal(wn_options_set(&o, "no_such_option", "1"), WN_ERR_ARGUMENT);
    says("heap_limit", "reclaim_slice", NULL); /* what there is instead */
    assert_int_equal(wn_options_set(&o, "collector", "mark"), WN_ERR_ARGUMENT);
    says("refcount", "incremental", "concurrent", NULL);
    assert_int_equal(wn_options_set(&o, "heap_limit", "512M"), WN_OK);
    assert_int_equal(o.heap_limit, 512u << 20);
    assert_int_equal(wn_options_set(&o, "heap_limit", "2G"), WN_OK);
    assert_int_equal(o.heap_limit, (size_t)2 << 30);
    assert_int_equal(wn_options_set(&o, "nursery", "1024K"), WN_OK);
    assert_int_equal(o.nursery, 1 << 20);
    assert_int_equal(wn_options_set(&o, "pause_budget", "2ms"), WN_OK);
    assert_int_equal(o.pause_budget_ns, 2000000);
    assert_int_equal(wn_options_set(&o, "pause_budget", "500us"), WN_OK);
    assert_int_equal(o.pause_budget_ns, 500000);
    assert_int_equal(wn_options_set(&o, "verify", "on"), WN_OK);
    assert_true(o.verify);
    assert_int_equal(wn_options_set(&o, "verify", "off"), WN_OK);
    assert_false(o.verify);
    assert_int_equal(wn_options_set(&o, "threshold0", "never"), WN_OK);
    assert_true(o.threshold[0] == WN_NEVER);
    assert_int_equal(wn_options_set(&o, "reclaim_slice", "all"), WN_OK);
    assert_true(o.reclaim_slice == WN_ALL);
    assert_int_equal(wn_options_set(&o, "growth", "1.5"), WN_OK);
    assert_true(o.growth == 1.5);
}

static void options_are_read_alike_in_every_locale(void **state) {
    (void)state;
    char directory[] = "/tmp/winnow-locale-XXXXXX", line[200];
    assert_non_null(mkdtemp(directory));
    snprintf(line, sizeof line, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", directory);
    bool made = system(line) == 0;
    setenv("LOCPATH", directory, 1);
    bool there = made && setlocale(LC_NUMERIC, "de_DE.UTF-8") && localeconv()->decimal_point[0] == ',';
    wn_options o = wn_options_default();
    wn_status point = wn_options_set(&o, "growth", "1.5"), comma = wn_options_set(&o, "growth", "1,7");
    setlocale(LC_NUMERIC, "C");
    unsetenv("LOCPATH");
    snprintf(line, sizeof line, "rm -r %s", directory);
    assert_int_equal(system(line), 0);
    if (!there) skip();
    assert_int_equal(point, WN_OK);
    assert_int_equal(comma, WN_ERR_ARGUMENT);
    assert_true(o.growth == 1.5);
}

static void the_table_of_options_is_complete(void **state) {
    (void)state;
    static const char *const names[] = {
        "collector",     "heap_limit",       "single_thread",       "threshold0", "threshold1",  "threshold2",
        "reclaim_slice", "nursery",          "major_factor",        "growth",     "min_heap",    "max_heap",
        "max_delta",     "step_bytes",       "pause_budget",        "pin_limit",  "heap_growth", "workers",
        "cpu_share",     "finalizer_thread", "conservative_stacks", "stress",     "check",       "verify",
        "trace",         "save_all",         "pretenure",           "meshing",    "large_pages"};
    FILE *f = tmpfile();
    assert_non_null(f);
    wn_options_print(f);
    long length = ftell(f);
    assert_true(length > 0);
    char *text = calloc(1, (size_t)length + 1);
    assert_non_null(text);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)length, f), length);
    fclose(f);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strstr(text, names[i])) fail_msg("the table does not name %s", names[i]);
    free(text);
}

static void options_in_the_structure(void **state) {
    (void)state;
    wn_heap *heap = NULL;
    for (int i = 0; i < 8; i++) {
        wn_options o = wn_options_default();
        const char *word;
        switch (i) {
        case 0: o.heap_limit = 1, word = "heap_limit"; break;
        case 1: o.growth = -2, word = "growth"; break;
        case 2: o.major_factor = 0.1, word = "major_factor"; break;
        case 3: o.cpu_share = 400, word = "cpu_share"; break;
        case 4: o.collector = (wn_collector_id)17, word = "collector"; break;
        case 5: o.nursery = 3, word = "nursery"; break;
        case 6: o.workers = 1u << 30, word = "workers"; break;
        default: o.struct_size = 3, word = "wn_options_default"; break;
        }
        heap = (wn_heap *)&o;
        assert_int_equal(wn_heap_new(&o, &heap), WN_ERR_ARGUMENT);
        says(word, NULL);
        assert_null(heap);
    }
}

/* In a child, because the environment is the process's. The child's exit status says whether it was refused. */
static int heap_in_environment(const char *name, const char *value, char *message, size_t n) {
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv(name, value, 1);
        wn_heap *heap = NULL;
        wn_status s = wn_heap_new(NULL, &heap);
        const char *text = wn_error_message();
        if (write(pipes[1], text, strlen(text)) < 0) _exit(99);
        _exit((int)s);
    }
    close(pipes[1]);
    size_t length = 0;
    for (ssize_t got; (got = read(pipes[0], message + length, n - 1 - length)) > 0;) length += (size_t)got;
    message[length] = 0;
    close(pipes[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) fail_msg("%s=%s: signal %d", name, value, WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* A program that relies on its stack being scanned is told that counting does not; where the environment has chosen the
 * collector the option is one of another collector's. */
static void stacks_that_nobody_scans(void **state) {
    (void)state;
    wn_heap *heap = NULL;
    wn_options o = wn_options_default();
    o.conservative_stacks = true;
    o.collector = WN_COLLECTOR_REFCOUNT;
    assert_int_equal(wn_heap_new(&o, &heap), WN_ERR_UNSUPPORTED);
    says("conservative_stacks", "refcount", "wn_hold", NULL);
    assert_null(heap);
    o.collector = WN_COLLECTOR_AUTO; /* WINNOW_COLLECTOR */
    assert_int_equal(wn_heap_new(&o, &heap), WN_OK);
    assert_int_equal(wn_heap_free(heap), WN_OK);
}

static void options_in_the_environment(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *word;
    } wrong[] = {
        {"WINNOW_OPTIONS", "nonsense", "nonsense"},
        {"WINNOW_OPTIONS", "nonsense=1", "nonsense"},
        {"WINNOW_OPTIONS", "heap_limit=lots", "heap_limit"},
        {"WINNOW_OPTIONS", "verify=on,growth=x", "growth"},
        {"WINNOW_OPTIONS", "verify", "verify"},
        {"WINNOW_OPTIONS", "=5", "WINNOW_OPTIONS"},
        {"WINNOW_COLLECTOR", "best", "best"},
        {"WINNOW_COLLECTOR", "REF COUNT", "REF COUNT"},
        {"WINNOW_TRACE", "everything", "the one value is gc"},
    };
    char message[2000];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (heap_in_environment(wrong[i].name, wrong[i].value, message, sizeof message) != WN_ERR_ARGUMENT)
            fail_msg("%s=%s was accepted", wrong[i].name, wrong[i].value);
        if (!strstr(message, wrong[i].word)) fail_msg("%s=%s: \"%s\"", wrong[i].name, wrong[i].value, message);
        if (!strstr(message, wrong[i].name))
            fail_msg("%s=%s: where from? \"%s\"", wrong[i].name, wrong[i].value, message);
    }
    assert_int_equal(
        heap_in_environment("WINNOW_OPTIONS", "verify=on,heap_limit=1G,growth=1.7", message, sizeof message), WN_OK);
    assert_int_equal(heap_in_environment("WINNOW_OPTIONS", "", message, sizeof message), WN_OK);
}

/* What the program has set stays; of what it has left open the environment's last word counts. */
static void the_environment_fills_what_is_left_open(void **state) {
    (void)state;
    static const struct {
        const char *list;
        unsigned set0, t0, t1;
    } cases[] = {
        {"", 0, 700, 10},
        {"", 44, 44, 10},
        {"threshold0=300", 0, 300, 10},
        {"threshold0=300, threshold1=20", 44, 44, 20},
        {" threshold1=20 ,,threshold0=300 ", 700, 300, 20},
        {"threshold0=300,threshold0=700", 0, 700, 10},
        {"threshold0=300,threshold1=5,threshold0=50", 0, 50, 5},
        {"threshold0=never,threshold1=1000000000", 0, WN_NEVER, 1000000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wn_options o = wn_options_default();
        if (cases[i].set0) o.threshold[0] = cases[i].set0;
        wn_heap *heap;
        setenv("WINNOW_OPTIONS", cases[i].list, 1);
        wn_status s = wn_heap_new(&o, &heap);
        unsetenv("WINNOW_OPTIONS");
        if (s) fail_msg("%s: %s", cases[i].list, wn_error_message());
        unsigned t[3];
        wn_get_threshold(heap, t);
        if (t[0] != cases[i].t0 || t[1] != cases[i].t1 || t[2] != 10)
            fail_msg("\"%s\" after %u: %u, %u, %u", cases[i].list, cases[i].set0, t[0], t[1], t[2]);
        wn_options made = wn_heap_options(heap);
        assert_memory_equal(made.threshold, t, sizeof t);
        assert_int_equal(wn_heap_free(heap), WN_OK);
    }
    static char list[1100] = "threshold0=300";
    memset(list + 14, ' ', 1023 - 14);
    char message[2000];
    assert_int_equal(heap_in_environment("WINNOW_OPTIONS", list, message, sizeof message), WN_OK);
    list[1023] = ' ';
    assert_int_equal(heap_in_environment("WINNOW_OPTIONS", list, message, sizeof message), WN_ERR_ARGUMENT);
    assert_non_null(strstr(message, "1023"));
    /* The collector, too, and what the environment says of it is not even looked at then. */
    const char *chosen = getenv("WINNOW_COLLECTOR");
    char *before = chosen ? strdup(chosen) : NULL;
    for (int id = WN_COLLECTOR_REFCOUNT; id <= WN_COLLECTOR_CONCURRENT; id++)
        for (int set = 0; set < 2; set++) {
            wn_options o = wn_options_default();
            wn_heap *heap;
            if (set) o.collector = (wn_collector_id)id;
            setenv("WINNOW_COLLECTOR", set ? "none" : wn_collector_name((wn_collector_id)id), 1);
            assert_int_equal(wn_heap_new(&o, &heap), WN_OK);
            assert_int_equal(wn_heap_collector(heap), id);
            assert_int_equal(wn_heap_free(heap), WN_OK);
        }
    if (before)
        setenv("WINNOW_COLLECTOR", before, 1);
    else
        unsetenv("WINNOW_COLLECTOR");
    free(before);
}

/* Of a structure of another size no more than its size is looked at. */
static void options_of_another_version(void **state) {
    (void)state;
    size_t *small = malloc(sizeof *small); /* all of it is the size, which comes first */
    wn_heap *heap = NULL;
    assert_non_null(small);
    *small = sizeof *small;
    assert_int_equal(wn_heap_new((wn_options *)small, &heap), WN_ERR_ARGUMENT);
    says("wn_options_default", "version", NULL);
    free(small);
}

static void a_heap_limit_too_small_to_work(void **state) {
    (void)state;
    const size_t limits[] = {1, 4096, 65536, 1 << 20, 4 << 20, 16 << 20};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        wn_options o = wn_options_default();
        o.heap_limit = limits[i];
        wn_heap *heap = NULL;
        if (wn_heap_new(&o, &heap)) { /* refused at once ... */
            says("heap_limit", NULL);
            continue;
        }
        wn_mutator *m; /* ... or it can be worked with, to some extent */
        if (wn_attach(heap, &m) == WN_OK) {
            wn_release(m, client_pair(m, 1, NULL, NULL));
            assert_null(wn_new_array(m, &blob_type, limits[i] + 1));
            says("limit", NULL);
            assert_int_equal(wn_detach(m), WN_OK);
        } else {
            says("limit", NULL);
        }
        assert_int_equal(wn_heap_free(heap), WN_OK);
    }
}

/* ---- what only checking finds ------------------------------------------------------------------------------------ */

static int report_to;
static void report(const char *rule, const char *message, void *data) {
    (void)data;
    dprintf(report_to, "%s\n%s\n", rule, message);
    _exit(42);
}

/* Runs `body` in a child on a checked heap; what the handler was told, or "". */
static void in_child(void (*body)(client *), bool handler, char *said, size_t n, int *status) {
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        report_to = pipes[1];
        if (handler)
            wn_set_misuse_handler(report, NULL);
        else
            dup2(pipes[1], 2); /* the default: stderr, and abort */
        signal(SIGABRT, SIG_DFL);
        client c = checked();
        body(&c);
        _exit(0);
    }
    close(pipes[1]);
    size_t length = 0;
    for (ssize_t got; (got = read(pipes[0], said + length, n - 1 - length)) > 0;) length += (size_t)got;
    said[length] = 0;
    close(pipes[0]);
    assert_int_equal(waitpid(child, status, 0), child);
}

#define expect(body, rule, remedy) expect_of(body, #body, rule, remedy)
static void expect_of(void (*body)(client *), const char *what, const char *rule, const char *remedy) {
    char said[4000];
    int status;
    in_child(body, true, said, sizeof said, &status);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
        fail_msg("%s: no %s reported (wait status %#x): \"%s\"", what, rule, status, said);
    if (strncmp(said, rule, strlen(rule)) || said[strlen(rule)] != '\n') fail_msg("%s: reported as \"%s\"", what, said);
    if (!strstr(said, remedy)) fail_msg("%s: the message says nothing of \"%s\": \"%s\"", what, remedy, said);
}

static void silent(void (*body)(client *), const char *what) {
    char said[4000];
    int status;
    in_child(body, true, said, sizeof said, &status);
    if (status || *said) fail_msg("%s: wait status %#x: \"%s\"", what, status, said);
}

/* The last reference goes, and the address is used. */
static pair *stale(client *c) {
    wn_mutator *m = c->m;
    pair *p = client_pair(m, 1, NULL, NULL);
    wn_release(m, p);
    client_collect(m);
    return p;
}
static void store_freed_value(client *c) {
    pair *old = stale(c);
    wn_root(c->m, vector *, v, client_new_array(c->m, &vector_type, 3));
    wn_set(c->m, v, items[0], old);
}
static void store_into_freed(client *c) {
    pair *old = stale(c);
    wn_store(c->m, old, &old->a, NULL);
}
static void watch_freed(client *c) { wn_weakref_new(c->m, stale(c), NULL, NULL); }
static void hold_freed(client *c) {
    pair *old = stale(c);
    wn_hold(c->m, pair *, p, old);
    (void)p;
}
static void release_twice(client *c) {
    wn_mutator *m = c->m;
    pair *p = client_pair(m, 1, NULL, NULL);
    wn_release(m, p);
    wn_release(m, p);
}
static void count_freed(client *c) { wn_refcount(c->m, stale(c)); }

static void pin_freed(client *c) { wn_pin(c->m, stale(c)); }
static void identify_freed(client *c) { wn_identity(c->m, stale(c)); }
static void make_freed_immortal(client *c) { wn_make_immortal(c->m, stale(c)); }
static void ask_for_generation_of_freed(client *c) { wn_generation(c->m, stale(c)); }
static void ask_whether_freed_is_finalized(client *c) { wn_is_finalized(c->m, stale(c)); }
static void ask_whether_freed_is_tracked(client *c) { wn_is_tracked(c->m, stale(c)); }
static void untrack_freed(client *c) { wn_untrack(c->m, stale(c)); }
static void look_from_freed(client *c) { wn_referents(c->m, stale(c), see_nothing, NULL); }
static void keep_freed_as_value(client *c) {
    wn_mutator *m = c->m;
    pair *old = stale(c);
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    wn_ephemeron_new(m, p, old);
}
static void read_freed_weakref(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    wn_weakref *w = wn_weakref_new(m, p, NULL, NULL);
    wn_release(m, w);
    client_collect(m);
    client_collect(m);
    wn_weakref_get(m, w);
}
static void declare_what_is_no_object(client *c) {
    static void *variable;
    variable = c;
    wn_global(c->heap, &variable);
}

static void using_what_was_freed(void **state) {
    (void)state;
    client c = client_open(NULL);
    bool counts = client_counts(&c);
    client_close(&c);
    expect(store_freed_value, "use-after-free", "wn_root");
    expect(store_into_freed, "use-after-free", "wn_root");
    expect(watch_freed, "use-after-free", "wn_root");
    expect(pin_freed, "use-after-free", "wn_pin");
    expect(identify_freed, "use-after-free", "wn_identity");
    expect(make_freed_immortal, "use-after-free", "wn_make_immortal");
    expect(ask_for_generation_of_freed, "use-after-free", "wn_generation");
    expect(ask_whether_freed_is_finalized, "use-after-free", "wn_is_finalized");
    expect(ask_whether_freed_is_tracked, "use-after-free", "wn_is_tracked");
    expect(untrack_freed, "use-after-free", "wn_untrack");
    expect(look_from_freed, "use-after-free", "wn_referents");
    expect(keep_freed_as_value, "use-after-free", "wn_ephemeron_new");
    expect(read_freed_weakref, "use-after-free", "wn_weakref_get");
    expect(declare_what_is_no_object, "use-after-free", "wn_global");
    if (counts) {
        expect(hold_freed, "use-after-free", "wn_");
        expect(release_twice, "use-after-free", "wn_");
        expect(count_freed, "use-after-free", "wn_");
    }
}

/* An error like any other, and where clients are checked a broken rule. Not inlined, or the compiler knows better. */
static __attribute__((noinline)) void *new_of(client *c, const wn_type *type) { return wn_new(c->m, type); }
static void new_without_type(client *c) { new_of(c, NULL); }
static void new_array_without_type(client *c) { wn_new_array(c->m, NULL, 3); }

static void types_that_are_missing(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.check = false;
    client c = client_open(&o);
    for (int warm = 0; warm < 2; warm++) {
        wn_attach(NULL, NULL);
        assert_null(new_of(&c, NULL));
        says("wn_new", "type", NULL);
        wn_attach(NULL, NULL);
        assert_null(wn_new_array(c.m, NULL, 3));
        says("wn_new_array", "type", NULL);
        for (int k = 0; k < 100; k++) wn_release(c.m, client_new(c.m, &pair_type));
    }
    client_close(&c);
    expect(new_without_type, "type", "wn_new: ");
    expect(new_array_without_type, "type", "wn_new_array: ");
}

/* A borrowed reference is kept in a plain local while its owner lets go. */
static void undeclared_local(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, holder, client_pair(m, 1, NULL, NULL));
    wn_move(m, holder, a, client_pair(m, 2, NULL, NULL));
    pair *borrowed = holder->a; /* not declared */
    wn_set(m, holder, a, NULL);
    client_collect(m);
    wn_set(m, holder, b, borrowed);
}
/* A new reference is kept in a plain local over an allocation. Counting does not mind; the others must find it. */
static void undeclared_new(client *c) {
    wn_mutator *m = c->m;
    pair *fresh = client_new(m, &pair_type);
    client_collect(m);
    wn_root(m, pair *, holder, client_pair(m, 1, NULL, NULL));
    wn_set(m, holder, b, fresh);
}

static void roots_that_were_not_declared(void **state) {
    (void)state;
    expect(undeclared_local, "use-after-free", "wn_hold");
    client c = client_open(NULL);
    bool counts = client_counts(&c);
    client_close(&c);
    if (!counts) expect(undeclared_new, "use-after-free", "wn_root");
}

static void store_without_barrier(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    client_collect(m);
    client_collect(m);
    wn_root(m, pair *, q, client_pair(m, 2, NULL, NULL));
    p->a = q; /* not wn_set */
    client_collect(m);
}

/* Only what is young is collected. */
static void store_without_barrier_then_minor(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    client_collect(m);
    wn_root(m, pair *, q, client_pair(m, 2, NULL, NULL));
    p->a = q; /* not wn_set */
    wn_collect(m, 0, NULL);
}
/* An object that only such a store refers to; nobody asks for a collection afterwards. */
static void store_without_barrier_under_stress(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    client_collect(m);
    p->a = client_pair(m, 2, NULL, NULL); /* not wn_move */
    for (int i = 0; i < 300; i++) wn_release(m, client_pair(m, 3, NULL, NULL));
}

static void stores_that_skip_the_barrier(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_collector_id collector = wn_heap_collector(c.heap);
    client_close(&c);
    verifying = true; /* found by comparing what is there with what was announced */
    expect(store_without_barrier, "verify", "wn_set");
    if (collector != WN_COLLECTOR_CONCURRENT) expect(store_without_barrier_then_minor, "verify", "wn_set");
    stressed = true;
    if (collector != WN_COLLECTOR_REFCOUNT) expect(store_without_barrier_under_stress, "verify", "wn_set");
    verifying = stressed = false;
}

/* ---- words that are no references, which a collection would follow to nowhere ------------------------------------ */

static const wn_type number_named_type = WN_TYPE(pair, WN_REFS(pair, a, b, id));
static void a_number_is_named(client *c) {
    wn_root(c->m, pair *, p, client_new(c->m, &number_named_type));
    p->id = 12345;
    client_collect(c->m);
}
static void a_number_is_named_and_another_word_stored(client *c) {
    wn_root(c->m, pair *, p, client_new(c->m, &number_named_type));
    p->id = 12345;
    wn_set(c->m, p, b, NULL);
}
static void trace_number(const void *object, wn_tracer *tracer) {
    wn_visit(tracer, (void *)&((const pair *)object)->id);
}
static const wn_type number_traced_type = WN_TYPE(pair, .trace = trace_number);
static void a_number_is_traced(client *c) {
    wn_root(c->m, pair *, p, client_new(c->m, &number_traced_type));
    p->id = 12345;
    wn_collect(c->m, 0, NULL);
    client_collect(c->m);
}
static void a_length_is_changed(client *c) {
    wn_root(c->m, vector *, v, client_new_array(c->m, &vector_type, 3));
    v->length = 1000000;
    client_collect(c->m);
}
static void a_root_is_released(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    wn_release(m, p);
    client_collect(m);
}

static void words_that_are_no_references(void **state) {
    (void)state;
    client c = client_open(NULL);
    bool counts = client_counts(&c);
    client_close(&c);
    expect(a_number_is_named_and_another_word_stored, "wrong-word", "byte 24");
    verifying = true;
    for (int each = 0; each < 2; each++, stressed = each) {
        expect(a_number_is_named, "verify", "the type names a word that is none");
        expect(a_number_is_traced, "verify", "the type names a word that is none");
        expect(a_length_is_changed, "verify", "wn_new_array");
        if (counts) expect(a_root_is_released, "verify", "a root refers to");
    }
    verifying = stressed = false;
}

static void store_outside_the_holder(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    wn_root(m, pair *, q, client_pair(m, 2, NULL, NULL));
    wn_store(m, p, &q->a, q);
}
static void store_into_plain_memory(client *c) {
    wn_mutator *m = c->m;
    static void *local;
    wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
    wn_store(m, &local, &local, p);
}

static void store_behind_the_last_item(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, vector *, v, client_new_array(m, &vector_type, 3));
    wn_store(m, v, &v->items[2], v);
    wn_store(m, v, &v->items[3], v);
}
static void copy_behind_the_last_item(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, vector *, v, client_new_array(m, &vector_type, 3));
    void *values[3] = {v, v, v};
    wn_copy(m, v, v->items, values, 3);
    if (v->items[2] != v) _exit(1);
    wn_copy(m, v, &v->items[1], values, 3);
}
static void copy_freed_value(client *c) {
    void *values[2] = {NULL, stale(c)};
    wn_root(c->m, vector *, v, client_new_array(c->m, &vector_type, 3));
    wn_copy(c->m, v, v->items, values, 2);
}

/* Within the holder, but no collection would look there. */
static void store_beside_the_references(client *c) {
    wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
    wn_store(c->m, p, &p->id, p);
}
static void store_between_the_references(client *c) {
    wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
    wn_store(c->m, p, (char *)&p->a + 4, p);
}
static void store_among_bytes(client *c) {
    wn_root(c->m, blob *, b, client_new_array(c->m, &blob_type, 64));
    wn_store(c->m, b, b->bytes + 16, b);
}
typedef struct records {
    wn_object head;
    void *fixed;
    size_t length;
    struct {
        uint64_t hash;
        void *key, *value;
    } record[];
} records;
static const wn_type records_type =
    WN_TYPE(records, WN_REFS(records, fixed), WN_RECORDS(records, length, record, 1 << 1 | 1 << 2));
static void store_over_a_hash(client *c) {
    wn_mutator *m = c->m;
    wn_root(m, records *, r, client_new_array(m, &records_type, 40));
    wn_set(m, r, fixed, r);
    for (size_t i = 0; i < 40; i++) {
        wn_set(m, r, record[i].key, r);
        wn_set(m, r, record[i].value, r);
    }
    wn_store(m, r, &r->record[39].hash, r);
}
/* A trace function may show a word only when it is filled. */
static void trace_nothing(const void *object, wn_tracer *tracer) { (void)object, (void)tracer; }
static const wn_type traced_type = WN_TYPE(pair, .trace = trace_nothing);
static void store_where_a_trace_function_may_look(client *c) {
    wn_root(c->m, pair *, p, client_new(c->m, &traced_type));
    wn_set(c->m, p, a, p);
}

static void slots_that_are_none(void **state) {
    (void)state;
    expect(store_beside_the_references, "wrong-slot", "WN_REFS");
    expect(store_between_the_references, "wrong-slot", "WN_REFS");
    expect(store_among_bytes, "wrong-slot", "byte 32 of a blob");
    expect(store_over_a_hash, "wrong-slot", "WN_RECORDS");
    silent(store_where_a_trace_function_may_look, "store_where_a_trace_function_may_look");
    expect(store_outside_the_holder, "wrong-slot", "holder");
    expect(store_behind_the_last_item, "wrong-slot", "holder");
    expect(copy_behind_the_last_item, "wrong-slot", "holder");
    expect(copy_freed_value, "use-after-free", "wn_root");
    expect(store_into_plain_memory, "use-after-free", "wn_");
}

static void *use_foreign_mutator(void *data) {
    wn_new(data, &pair_type);
    wn_new_array(data, &vector_type, 4);
    return NULL;
}
static void another_threads_mutator(client *c) {
    pthread_t thread;
    wn_release(c->m, client_pair(c->m, 1, NULL, NULL));
    if (pthread_create(&thread, NULL, use_foreign_mutator, c->m)) _exit(1);
    pthread_join(thread, NULL);
}

/* Any call, not those alone that make something. */
static void *block_foreign_mutator(void *data) { return wn_block_begin(data), NULL; }
static void *pin_by_foreign_mutator(void *data) {
    static int anything;
    return wn_pin(data, &anything), NULL;
}
static void *ask_foreign_mutator(void *data) { return wn_garbage_count(data), NULL; }
static void in_another_thread(client *c, void *(*use)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, use, c->m)) _exit(1);
    pthread_join(thread, NULL);
}
static void another_thread_blocks(client *c) { in_another_thread(c, block_foreign_mutator); }
static void another_thread_pins(client *c) { in_another_thread(c, pin_by_foreign_mutator); }
static void another_thread_asks(client *c) { in_another_thread(c, ask_foreign_mutator); }

static void mutators_of_other_threads(void **state) {
    (void)state;
    expect(another_thread_blocks, "wrong-thread", "wn_block_begin");
    expect(another_thread_pins, "wrong-thread", "wn_pin");
    expect(another_thread_asks, "wrong-thread", "wn_garbage_count");
    expect(another_threads_mutator, "wrong-thread", "attach");
}

/* A release hook may call nothing, whichever thread runs it. */
static wn_mutator *called;
static void (*call_of_hook)(wn_mutator *m);
static void call_in_hook(void *object) { (void)object, call_of_hook(called); }
static const wn_type calling_type = WN_TYPE(leaf, .release = call_in_hook);
static void make_in_hook(wn_mutator *m) { wn_new(m, &leaf_type); }
static void ask_in_hook(wn_mutator *m) { wn_weakref_count(m, called); }
static void store_in_hook(wn_mutator *m) {
    static pair nothing;
    wn_set(m, &nothing, a, NULL);
}
static void collect_in_hook(wn_mutator *m) { wn_collect(m, 0, NULL); }
static void block_in_hook(wn_mutator *m) { wn_block_begin(m); }
static void die_calling(client *c) {
    called = c->m;
    wn_release(c->m, client_new(c->m, &calling_type));
    client_collect(c->m);
    client_collect(c->m);
}
static void die_in_cycle_calling(client *c) {
    static const wn_type type = WN_TYPE(pair, WN_REFS(pair, a, b), .release = call_in_hook);
    called = c->m;
    {
        wn_root(c->m, pair *, p, client_new(c->m, &type));
        wn_set(c->m, p, a, p);
    }
    client_collect(c->m);
    client_collect(c->m);
}
static void release_hooks_that_call_the_library(void **state) {
    (void)state;
    static void (*const calls[])(wn_mutator *) = {make_in_hook, ask_in_hook, store_in_hook, collect_in_hook,
                                                  block_in_hook};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        call_of_hook = calls[i];
        expect(die_calling, "release-hook", "in a finalizer");
        expect(die_in_cycle_calling, "release-hook", "in a finalizer");
    }
}

/* ---- blocking sections and no-collect scopes --------------------------------------------------------------------- */

static void make_while_blocked(client *c) {
    wn_block_begin(c->m);
    wn_new(c->m, &pair_type);
}
static void make_array_while_blocked(client *c) {
    wn_block_begin(c->m);
    wn_new_array(c->m, &vector_type, 3);
}
static void store_while_blocked(client *c) {
    wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
    wn_block_begin(c->m);
    wn_set(c->m, p, a, p);
}
static void release_while_blocked(client *c) {
    pair *p = client_pair(c->m, 1, NULL, NULL);
    wn_block_begin(c->m);
    wn_release(c->m, p);
}
static void collect_while_blocked(client *c) {
    wn_block_begin(c->m);
    wn_collect(c->m, 2, NULL);
}
static void look_while_blocked(client *c) {
    wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
    wn_block_begin(c->m);
    wn_generation(c->m, p);
}
static void watch_while_blocked(client *c) {
    wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
    wn_block_begin(c->m);
    wn_weakref_new(c->m, p, NULL, NULL);
}
static void block_while_blocked(client *c) {
    wn_block_begin(c->m);
    wn_block_begin(c->m);
}
static void end_of_no_block(client *c) { wn_block_end(c->m); }
static void end_of_block_twice(client *c) {
    wn_block_begin(c->m);
    wn_block_end(c->m);
    wn_block_end(c->m);
}

static void blocking_sections_touch_nothing(void **state) {
    (void)state;
    client c = client_open(NULL);
    bool counts = client_counts(&c);
    client_close(&c);
    expect(make_while_blocked, "blocking-section", "wn_block_end first");
    expect(make_array_while_blocked, "blocking-section", "wn_block_end first");
    expect(store_while_blocked, "blocking-section", "wn_block_end first");
    if (counts) expect(release_while_blocked, "blocking-section", "wn_block_end first");
    expect(collect_while_blocked, "blocking-section", "wn_block_end first");
    expect(look_while_blocked, "blocking-section", "wn_block_end first");
    expect(watch_while_blocked, "blocking-section", "wn_block_end first");
    expect(block_while_blocked, "blocking-section", "wn_block_end first");
    expect(end_of_no_block, "blocking-section", "wn_block_begin");
    expect(end_of_block_twice, "blocking-section", "wn_block_begin");
}

static void end_of_no_scope(client *c) { wn_no_collect_end(c->m); }

static unsigned reports;
static void count_report(const char *rule, const char *message, void *data) {
    (void)message;
    (void)data;
    assert_string_equal(rule, "no-collect");
    reports++;
}

static void go_back_to_a_scope_that_has_ended(client *c) {
    wn_scope scope;
    {
        wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
        scope = wn_scope_here(c->m);
        (void)p;
    }
    wn_unwind(c->m, scope);
}
static void go_back_to_an_open_scope(client *c) {
    wn_root(c->m, pair *, p, client_pair(c->m, 1, NULL, NULL));
    wn_unwind(c->m, wn_scope_here(c->m));
    client_collect(c->m);
    if (p->id != 1) _exit(1);
}
static void scopes_that_have_ended(void **state) {
    (void)state;
    expect(go_back_to_a_scope_that_has_ended, "unwind", "wn_scope_here");
    silent(go_back_to_an_open_scope, "go_back_to_an_open_scope");
}

static void scopes_come_in_pairs(void **state) {
    (void)state;
    expect(end_of_no_scope, "no-collect", "wn_no_collect_begin");
    reports = 0;
    wn_set_misuse_handler(count_report, NULL);
    for (int checks = 0; checks < 2; checks++) {
        wn_options o = wn_options_default();
        o.check = checks;
        client c = client_open(&o);
        wn_no_collect_end(c.m);
        client_collect(c.m); /* it has opened none instead */
        assert_non_null(strstr(wn_error_message(), "no scope is open"));
        wn_no_collect_begin(c.m);
        wn_no_collect_end(c.m);
        client_close(&c);
    }
    assert_int_equal(reports, 1); /* with checks; without, the message is all */
    wn_set_misuse_handler(NULL, NULL);
}

/* ---- threads that are not there, or do not come ------------------------------------------------------------------ */

enum { PLAINLY, AMID_ROOTS, AMID_SCOPE, AMID_BLOCK, AMID_FINALIZER, WITH_CALLBACK, ENDS };
typedef struct leaver {
    client *c, *other;
    int how;
} leaver;

static void end_thread(wn_mutator *m, mortal *self) {
    (void)m;
    (void)self;
    pthread_exit(NULL);
}
static void do_nothing(wn_mutator *m, wn_weakref *ref, void *data) { (void)m, (void)ref, (void)data; }

/* What the thread of a test does: it forgets to detach. */
static void *leave_attached(void *data) {
    const leaver *l = data;
    wn_mutator *m, *also;
    if (wn_attach(l->c->heap, &m) || wn_attach(l->other->heap, &also)) return data;
    wn_release(m, wn_new(m, &pair_type));
    wn_release(also, wn_new(also, &pair_type));
    if (l->how == AMID_SCOPE) wn_no_collect_begin(m);
    if (l->how == AMID_BLOCK) wn_block_begin(m);
    if (l->how == AMID_ROOTS) {
        wn_root(m, pair *, p, wn_new(m, &pair_type));
        wn_set(m, p, a, p);
        pthread_exit(NULL);
    }
    if (l->how == AMID_FINALIZER) {
        mortal *dies = wn_new(m, &mortal_type);
        dies->id = -1;
        dies->will = end_thread;
        wn_release(m, dies);
        wn_collect(m, 2, NULL);
    }
    if (l->how == WITH_CALLBACK) {
        wn_root(m, pair *, p, wn_new(m, &pair_type));
        wn_root(m, wn_weakref *, w, wn_weakref_new(m, p, do_nothing, NULL));
        (void)w;
    }
    return NULL;
}

/* Nobody waits for it, and the heap can be freed. */
static void threads_that_end_attached(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.check = false;
    alarm(200); /* else it would be for ever */
    for (int how = 0; how < ENDS; how++) {
        client c = client_open(&o), other = client_open(&o);
        wn_mutator *m = c.m;
        leaver l = {&c, &other, how};
        pthread_t thread;
        void *result = &l;
        assert_int_equal(pthread_create(&thread, NULL, leave_attached, &l), 0);
        wn_block_begin(m);
        wn_block_begin(other.m);
        assert_int_equal(pthread_join(thread, &result), 0);
        wn_block_end(other.m);
        wn_block_end(m);
        assert_null(result);
        client_collect(m);
        client_collect(other.m);
        {
            wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
            wn_collect(m, 0, NULL);
            client_collect(m);
            assert_int_equal(p->id, 1);
        }
        client_close(&other);
        client_close(&c);
    }
    alarm(0);
}

static void thread_that_ends_attached(client *c) {
    pthread_t thread;
    leaver l = {c, c, PLAINLY};
    client other = checked();
    l.other = &other;
    if (pthread_create(&thread, NULL, leave_attached, &l)) _exit(1);
    wn_block_begin(c->m);
    wn_block_begin(other.m);
    pthread_join(thread, NULL);
}

/* A client may detach where it gives back what else belongs to the thread. */
static pthread_key_t of_client;
static void detach_at_end(void *m) { wn_detach(m); }
static void *leave_to_destructor(void *heap) {
    wn_mutator *m;
    if (!wn_attach(heap, &m)) pthread_setspecific(of_client, m);
    return NULL;
}
static void thread_with_destructor(client *c) {
    pthread_t thread;
    if (pthread_key_create(&of_client, detach_at_end)) _exit(1);
    if (pthread_create(&thread, NULL, leave_to_destructor, c->heap)) _exit(1);
    wn_block_begin(c->m);
    pthread_join(thread, NULL);
    wn_block_end(c->m);
    if (wn_detach(c->m) || wn_heap_free(c->heap)) _exit(2);
}

/* The first thread ends, and the process does not. */
static void *go_on_alone(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m) || wn_collect(m, 2, NULL) || wn_detach(m)) _exit(2);
    while (wn_heap_free(heap)) usleep(100); /* the first thread is still there, or on its way out */
    _exit(0);
}
static void first_thread_ends(client *c) {
    wn_options o = wn_options_default();
    o.check = false;
    client unchecked = client_open(&o);
    pthread_t thread;
    (void)c; /* its reports would end the process */
    wn_detach(c->m);
    alarm(100);
    if (pthread_create(&thread, NULL, go_on_alone, unchecked.heap)) _exit(1);
    pthread_exit(NULL);
}

static void threads_that_end_attached_are_reported(void **state) {
    (void)state;
    expect(thread_that_ends_attached, "thread-exit", "wn_detach");
    silent(thread_with_destructor, "thread_with_destructor");
    silent(first_thread_ends, "first_thread_ends");
}

static void *attach_and_detach(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m) || wn_detach(m)) _exit(2);
    return NULL;
}
static void come_late(client *c) {
    pthread_t thread;
    pthread_setname_np(pthread_self(), "sleepyhead");
    if (pthread_create(&thread, NULL, attach_and_detach, c->heap)) _exit(1);
    for (int i = 0; i < 5; i++) usleep(100000); /* no safepoint */
    wn_block_begin(c->m);
    pthread_join(thread, NULL);
    wn_block_end(c->m);
}

static void who_is_waited_for_has_a_name(void **state) {
    (void)state;
    char said[4000];
    int status;
    in_child(come_late, false, said, sizeof said, &status);
    if (status) fail_msg("wait status %#x: \"%s\"", status, said);
    char *line = strstr(said, "a stop of the world has waited");
    if (!line || !strstr(line, "sleepyhead") || !strstr(line, "safepoint") || !strstr(line, "wn_block_begin"))
        fail_msg("nobody is named: \"%s\"", said);
    /* Once per stop; attaching is one, and detaching may be another while this thread is on its way to a block. */
    line = strstr(line + 1, "a stop of the world has waited");
    if (line && strstr(line + 1, "a stop of the world has waited")) fail_msg("too often: \"%s\"", said);
}

/* ---- what the address sanitizer finds ---------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
/* All but every nth of them go, and one of those is looked at. */
static void look_at_freed(const wn_type *type, size_t length, size_t nth) {
    enum { SOME = 200 };
    wn_options o = wn_options_default();
    o.check = false;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    static void *at[SOME];
    wn_root(m, vector *, kept, client_new_array(m, &vector_type, SOME));
    for (size_t i = 0; i < SOME; i++) {
        wn_root(m, void *, o, length ? client_new_array(m, type, length) : client_new(m, type));
        at[i] = o;
        wn_set(m, kept, items[i], o);
    }
    for (size_t i = 0; i < SOME; i++)
        if (!nth || i % nth) wn_set(m, kept, items[i], NULL);
    client_collect(m);
    client_collect(m);
    printf("%ld\n", ((volatile pair *)at[SOME / 2])->id);
    fflush(stdout);
}
static void look_at_young(client *c) { (void)c, look_at_freed(&pair_type, 0, 0); }
static void look_between_young(client *c) { (void)c, look_at_freed(&pair_type, 0, 3); }
static void look_at_old(client *c) { (void)c, look_at_freed(&relic_type, 0, 0); }
static void look_between_old(client *c) { (void)c, look_at_freed(&relic_type, 0, 3); }
static void look_at_large(client *c) { (void)c, look_at_freed(&blob_type, 50000, 0); }

static void what_is_freed_is_poisoned(void **state) {
    (void)state;
    static void (*const looks[])(client *) = {look_at_young, look_between_young, look_at_old, look_between_old,
                                              look_at_large};
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        static char said[100000];
        int status;
        in_child(looks[i], false, said, sizeof said, &status);
        if (!status || !strstr(said, "use-after-poison")) fail_msg("look %zu: status %#x: \"%s\"", i, status, said);
    }
}
#else
static void what_is_freed_is_poisoned(void **state) {
    (void)state;
    skip();
}
#endif

static void the_default_handler_prints_and_aborts(void **state) {
    (void)state;
    char said[4000];
    int status;
    in_child(store_freed_value, false, said, sizeof said, &status);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    if (!strstr(said, "use-after-free")) fail_msg("stderr: \"%s\"", said);
    if (!strstr(said, "wn_root")) fail_msg("stderr: \"%s\"", said);
}

/* And a client that keeps the rules hears nothing. */
static void keep_the_rules(client *c) {
    wn_mutator *m = c->m;
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, 100));
        for (int round = 0; round < 5; round++) {
            for (size_t i = 0; i < 100; i++) {
                wn_root(m, pair *, p, client_pair(m, (long)i, v, v->items[(i * 7) % 100]));
                wn_set(m, v, items[i], p);
                wn_move(m, v, items[(i * 13) % 100], client_pair(m, (long)i, NULL, NULL));
            }
            wn_copy(m, v, &v->items[10], &v->items[5], 50);
            client_collect(m);
            wn_root(m, wn_weakref *, w, wn_weakref_new(m, v->items[3], NULL, NULL));
            wn_root(m, void *, got, wn_weakref_get(m, w));
            assert_ptr_equal(got, v->items[3]);
            wn_freeze(m);
            wn_unfreeze(m);
        }
    }
    client_collect(m);
    if (wn_verify(m, stderr)) _exit(1);
}

static void keeping_the_rules_is_silent(void **state) {
    (void)state;
    char said[4000];
    int status;
    in_child(keep_the_rules, true, said, sizeof said, &status);
    if (status) fail_msg("wait status %#x: \"%s\"", status, said);
    assert_string_equal(said, "");
}

/* A library on top adds what it knows to what it was told. */
static void a_message_may_be_part_of_the_next(void **state) {
    (void)state;
    wn_fail(WN_ERR_STATE, "the lid is open");
    assert_int_equal(wn_fail(WN_ERR_IO, "oven %d: %s: close it (%s)", 7, wn_error_message(), "E4"), WN_ERR_IO);
    assert_string_equal(wn_error_message(), "oven 7: the lid is open: close it (E4)");
    for (int i = 0; i < 100; i++) wn_fail(WN_ERR_IO, "again: %s", wn_error_message());
    assert_int_equal(strlen(wn_error_message()), 511);
}

typedef struct neighbour {
    wn_heap *heap;
    _Atomic bool stop;
} neighbour;
static void *use_one_object(void *data) {
    neighbour *n = data;
    wn_mutator *m;
    if (wn_attach(n->heap, &m)) abort();
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        while (!n->stop) {
            wn_hold(m, pair *, again, p);
            wn_set(m, p, a, again);
            wn_set(m, p, a, NULL);
            wn_poll(m);
        }
    }
    wn_detach(m);
    return data;
}
static _Atomic unsigned untrue;
static void note_untrue(const char *rule, const char *message, void *data) {
    (void)rule, (void)message, (void)data;
    untrue++;
}

/* Which addresses are the heap's changes with each huge object of another thread's. */
static void keeping_the_rules_beside_huge_objects_is_silent(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.check = true;
    client c = client_open(&o);
    neighbour n = {.heap = c.heap};
    pthread_t thread;
    untrue = 0;
    wn_set_misuse_handler(note_untrue, NULL);
    assert_int_equal(pthread_create(&thread, NULL, use_one_object, &n), 0);
    {
        wn_root(c.m, vector *, all, client_new_array(c.m, &vector_type, 32));
        for (size_t i = 0; i < client_scaled(4000); i++) {
            wn_move(c.m, all, items[i % all->length], wn_new_array(c.m, &blob_type, (size_t)9 << 20));
            if (!client_counts(&c) && i % all->length == 0) client_collect(c.m);
        }
    }
    n.stop = true;
    wn_block_begin(c.m);
    pthread_join(thread, NULL);
    wn_block_end(c.m);
    wn_set_misuse_handler(NULL, NULL);
    assert_int_equal(untrue, 0);
    client_close(&c);
}

static void messages_are_each_threads_own(void **state) {
    (void)state;
    client c = client_open(NULL);
    assert_int_equal(wn_collect(c.m, 77, NULL), WN_ERR_ARGUMENT);
    char first[300];
    snprintf(first, sizeof first, "%s", wn_error_message());
    assert_int_equal(wn_heap_free(c.heap), WN_ERR_STATE);
    assert_string_not_equal(first, wn_error_message());
    assert_non_null(wn_error_message());
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attaching_twice),
        cmocka_unit_test(allocating_when_detached),
        cmocka_unit_test(any_call_when_detached),
        cmocka_unit_test(nothing_where_something_must_be),
        cmocka_unit_test(heaps_in_use_are_not_freed),
        cmocka_unit_test(detaching_in_the_middle),
        cmocka_unit_test(wrong_type_tables),
        cmocka_unit_test(unusual_but_right_type_tables),
        cmocka_unit_test(absurd_lengths),
        cmocka_unit_test(options_by_name),
        cmocka_unit_test(options_are_read_alike_in_every_locale),
        cmocka_unit_test(the_table_of_options_is_complete),
        cmocka_unit_test(options_in_the_structure),
        cmocka_unit_test(stacks_that_nobody_scans),
        cmocka_unit_test(options_in_the_environment),
        cmocka_unit_test(the_environment_fills_what_is_left_open),
        cmocka_unit_test(options_of_another_version),
        cmocka_unit_test(a_heap_limit_too_small_to_work),
        cmocka_unit_test(types_that_are_missing),
        cmocka_unit_test(using_what_was_freed),
        cmocka_unit_test(roots_that_were_not_declared),
        cmocka_unit_test(stores_that_skip_the_barrier),
        cmocka_unit_test(words_that_are_no_references),
        cmocka_unit_test(slots_that_are_none),
        cmocka_unit_test(scopes_that_have_ended),
        cmocka_unit_test(mutators_of_other_threads),
        cmocka_unit_test(release_hooks_that_call_the_library),
        cmocka_unit_test(blocking_sections_touch_nothing),
        cmocka_unit_test(scopes_come_in_pairs),
        cmocka_unit_test(threads_that_end_attached),
        cmocka_unit_test(threads_that_end_attached_are_reported),
        cmocka_unit_test(who_is_waited_for_has_a_name),
        cmocka_unit_test(what_is_freed_is_poisoned),
        cmocka_unit_test(the_default_handler_prints_and_aborts),
        cmocka_unit_test(keeping_the_rules_is_silent),
        cmocka_unit_test(a_message_may_be_part_of_the_next),
        cmocka_unit_test(keeping_the_rules_beside_huge_objects_is_silent),
        cmocka_unit_test(messages_are_each_threads_own),
    };
    return CLIENT_MAIN("misuse", tests);
}
