/*
 * test_embedding.c - the code that docs/embedding.md shows, run. The test source.docs sees that the page shows nothing
 * else: each of its C passages stands here, or in examples/, line by line.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <winnow.h>
#include <winnow/objects.h>

/* ---- a heap and a thread ----------------------------------------------------------------------------------------- */

static void test_a_heap_and_a_thread(void **state) {
    (void)state;
    bool started = false;

    wn_options options = wn_options_default();
    options.heap_limit = (size_t)512 << 20;
    wn_heap *heap;
    wn_mutator *m;
    if (wn_heap_new(&options, &heap) || wn_attach(heap, &m)) {
        fprintf(stderr, "cannot start: %s\n", wn_error_message());
        exit(EXIT_FAILURE);
    }
    started = true;
    /* ... the program ... */
    wn_detach(m);
    wn_heap_free(heap);

    assert_true(started);
    assert_int_equal(wn_options_set(&options, "heap_limit", "many"), WN_ERR_ARGUMENT);
    assert_non_null(strstr(wn_error_message(), "heap_limit"));
}

static wn_heap *heap;
static wn_mutator *m;

static int setup(void **state) {
    (void)state;
    return wn_heap_new(NULL, &heap) || wn_attach(heap, &m) ? -1 : 0;
}
static int teardown(void **state) {
    (void)state;
    return wn_detach(m) || wn_heap_free(heap) ? -1 : 0;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Two references and a number. */
typedef struct node {
    wn_object head;
    struct node *left, *right;
    long key;
} node;
static const wn_type node_type = WN_TYPE(node, WN_REFS(node, left, right));

/* Any number of references. */
typedef struct array {
    wn_object head;
    size_t length;
    wn_object *items[];
} array;
static const wn_type array_type = WN_TYPE(array, WN_ITEMS(array, length, items));

/* Bytes. A collection never looks into it. */
typedef struct blob {
    wn_object head;
    size_t length;
    unsigned char bytes[];
} blob;
static const wn_type blob_type = WN_TYPE(blob, WN_DATA(blob, length, bytes));

/* Records of which words 1 and 2 are references: a hash table. */
typedef struct table {
    wn_object head;
    size_t capacity;
    struct {
        uint64_t hash;
        wn_object *key, *value;
    } entries[];
} table;
static const wn_type table_type = WN_TYPE(table, WN_RECORDS(table, capacity, entries, 1 << 1 | 1 << 2));

/* References beyond the first 512 bytes, which a bitmap does not reach. */
typedef struct frame {
    wn_object head;
    long used;
    wn_object *registers[100];
} frame;
static void frame_trace(const void *object, wn_tracer *tracer) {
    const frame *f = object;
    for (int i = 0; i < 100; i++) wn_visit(tracer, (void *)&f->registers[i]);
}
static const wn_type frame_type = WN_TYPE(frame, .trace = frame_trace);

/* A runtime's class: what an object's type word points to. */
typedef struct class {
    wn_type type; /* first, so that a wn_type * is a class * */
    const char *(*to_string)(const wn_object *self);
} class;
static const class *class_of(const wn_object *object) { return (const class *)object->type; }

static const char *point_to_string(const wn_object *self) {
    (void)self;
    return "a point";
}
typedef struct point {
    wn_object head;
    double x, y;
} point;
static const class point_class = {.type = WN_TYPE(point), .to_string = point_to_string};

static void test_types(void **state) {
    (void)state;
    wn_root(m, array *, a, wn_new_array(m, &array_type, 3));
    wn_root(m, blob *, b, wn_new_array(m, &blob_type, 1000));
    wn_root(m, table *, t, wn_new_array(m, &table_type, 8));
    wn_root(m, frame *, f, wn_new(m, &frame_type));
    wn_root(m, wn_object *, p, wn_new(m, &point_class.type));
    assert_true(a && b && t && f && p);
    assert_int_equal(b->length, 1000);
    assert_string_equal(class_of(p)->to_string(p), "a point");
    wn_set(m, a, items[2], p);
    wn_set(m, t, entries[7].value, p);
    wn_set(m, f, registers[99], p);
    memset(b->bytes, 7, b->length);
    wn_assign(m, p, NULL);
    wn_collect(m, 2, NULL);
    assert_ptr_equal(a->items[2], t->entries[7].value);
    assert_ptr_equal(a->items[2], f->registers[99]);
    assert_ptr_equal(class_of(a->items[2]), &point_class);
    assert_int_equal(b->bytes[999], 7);
}

/* ---- the rule ---------------------------------------------------------------------------------------------------- */

/* Returns a new reference, or NULL. */
static node *leaf(wn_mutator *m, long key) {
    node *n = wn_new(m, &node_type);
    if (n) n->key = key; /* no safepoint between here and the return: nothing to declare */
    return n;
}

/* Inserts a key. `tree` is borrowed; the result is a new reference to the tree's root. */
static node *insert(wn_mutator *m, node *tree, long key) {
    if (!tree) return leaf(m, key);
    wn_borrow(m, node *, t, tree); /* leaf() may move the tree: this one follows it */
    if (key < t->key)
        wn_move(m, t, left, insert(m, t->left, key)); /* the new reference goes into the object */
    else
        wn_move(m, t, right, insert(m, t->right, key));
    return wn_keep(m, t); /* ours was borrowed: the caller gets a reference of its own */
}

static long sum(const node *n) { return n ? sum(n->left) + n->key + sum(n->right) : 0; }

static void test_the_rule(void **state) {
    (void)state;
    wn_root(m, node *, tree, NULL);
    for (long i = 0; i < 1000; i++) wn_take(m, tree, insert(m, tree, i * 7919 % 1000));
    assert_int_equal(sum(tree), 499500);
}

static struct {
    jmp_buf to;
    wn_scope scope;
} handler;

/* Leaves all that was called since the handler was set up. */
static void jump_back(wn_mutator *m) {
    wn_unwind(m, handler.scope); /* ends the scopes in between, as they would end by themselves */
    longjmp(handler.to, 1);
}

/* A tree of the keys, none of which may be negative. */
static node *tree_of(wn_mutator *m, const long *keys, size_t n) {
    wn_root(m, node *, tree, NULL);
    for (size_t i = 0; i < n; i++) {
        if (keys[i] < 0) jump_back(m);
        wn_take(m, tree, insert(m, tree, keys[i]));
    }
    return wn_give(m, tree);
}

static void test_jumps(void **state) {
    (void)state;
    const long keys[] = {3, 1, 4, -1, 5};
    wn_root(m, node *, tree, NULL);
    bool good = true;

    handler.scope = wn_scope_here(m);
    if (setjmp(handler.to) == 0)
        wn_take(m, tree, tree_of(m, keys, 5));
    else
        good = false;

    assert_false(good);
    assert_null(tree);
    wn_take(m, tree, tree_of(m, keys, 3));
    assert_int_equal(tree->left->key, 1);
}

static void test_mistakes(void **state) {
    (void)state;
    wn_objects *shared;
    assert_int_equal(wn_objects_new(m, &shared), WN_OK);
    {
        wn_root(m, wn_list *, list, wn_list_new(m, 0));
        wn_list_push(m, list, wn_str_text(m, "the first item"));

        /* A borrowed reference outlives its owner's hold on it: hold it. */
        wn_hold(m, wn_str *, first, wn_list_get(list, 0));
        wn_list_clear(m, list);
        assert_string_equal(wn_str_bytes(first), "the first item");

        /* A pointer into an object across a safepoint: find it again. */
        const char *bytes = wn_str_bytes(first);
        wn_poll(m);
        bytes = wn_str_bytes(first);
        assert_int_equal(bytes[0], 't');

        /* A new reference passed as an argument that is borrowed: nobody releases it. Declare it, or let it be taken
         * over. */
        wn_root(m, wn_int *, number, wn_int_new(m, 1000));
        wn_list_append(m, list, number);
        wn_list_push(m, list, wn_int_new(m, 1001));
        assert_int_equal(wn_list_length(list), 2);
    }
    wn_objects_free(m, shared);
}

/* ---- stores ------------------------------------------------------------------------------------------------------ */

static void test_stores(void **state) {
    (void)state;
    wn_root(m, array *, a, wn_new_array(m, &array_type, 10));
    wn_root(m, node *, n, leaf(m, 1));
    assert_true(a && n);
    size_t offset = offsetof(node, right);

    wn_set(m, a, items[3], (wn_object *)n);           /* a borrowed value: counted up */
    wn_move(m, a, items[4], (wn_object *)leaf(m, 2)); /* a new one: taken over */
    wn_store(m, n, (char *)n + offset, a->items[4]);  /* a field whose address was computed */
    wn_copy(m, a, &a->items[5], &a->items[3], 2);     /* several at once; may overlap, as memmove */
    wn_set(m, a, items[3], (wn_object *)NULL);        /* and this is how a reference is dropped */
    n->key = 42;                                      /* what is no reference is plain C */

    assert_ptr_equal(a->items[5], n);
    assert_int_equal(((node *)a->items[6])->key, 2);
    assert_ptr_equal(n->right, a->items[6]);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static node *list; /* declared by wn_global; guarded by the lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *worker(void *data) {
    wn_heap *heap = data;
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    for (long i = 0; i < 1000; i++) {
        wn_root(m, node *, n, leaf(m, i));
        wn_block_begin(m); /* waiting for a lock must not keep a collection waiting */
        pthread_mutex_lock(&lock);
        wn_block_end(m);
        wn_move(m, n, left, wn_give(m, list));
        wn_assign(m, list, n);
        pthread_mutex_unlock(&lock);
    }
    wn_detach(m);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    pthread_t threads[3];
    assert_int_equal(wn_global(heap, &list), WN_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, worker, heap), 0);
    wn_block_begin(m);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    wn_block_end(m);
    size_t n = 0;
    for (node *each = list; each; each = each->left) n++;
    assert_int_equal(n, 3000);
    assert_int_equal(wn_forget_global(m, &list), WN_OK);
}

/* ---- the end of objects ------------------------------------------------------------------------------------------ */

typedef struct file {
    wn_object head;
    FILE *stream;
} file;
static int closed;
static void file_release(void *object) {
    const file *f = object;
    if (f->stream) fclose(f->stream);
    closed++;
}
static const wn_type file_type = WN_TYPE(file, .release = file_release);

static void say_goodbye(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m;
    (void)ref; /* its target is gone already */
    ++*(int *)data;
}

static void test_the_end_of_objects(void **state) {
    (void)state;
    int goodbyes = 0;
    wn_root(m, node *, n, leaf(m, 1));
    wn_root(m, file *, f, wn_new(m, &file_type));
    assert_non_null(f);
    f->stream = fopen("/dev/null", "r");

    wn_root(m, wn_weakref *, weak, wn_weakref_new(m, n, say_goodbye, &goodbyes));
    wn_root(m, wn_ephemeron *, note, wn_ephemeron_new(m, n, f)); /* f lives as long as n does */
    wn_assign(m, f, NULL);
    {
        wn_root(m, node *, target, wn_weakref_get(m, weak)); /* a new reference: it cannot die now */
        assert_ptr_equal(target, n);
    }
    wn_assign(m, n, NULL);
    wn_collect(m, 2, NULL);
    assert_null(wn_weakref_get(m, weak));
    assert_null(wn_ephemeron_value(m, note));
    wn_poll(m);
    assert_int_equal(goodbyes, 1);
}

/* ---- control ----------------------------------------------------------------------------------------------------- */

static void log_collection(wn_mutator *m, const wn_event *event, void *data) {
    (void)m;
    if (event->kind == WN_EVENT_COLLECT_STOP) ++*(int *)data;
}

static void test_control(void **state) {
    (void)state;
    int collections = 0, requests = 3;
    wn_add_listener(heap, log_collection, &collections);

    wn_disable(heap); /* nothing long happens by itself from here */
    while (requests--) {
        /* ... serve a request ... */
        wn_step_result step;
        wn_collect_for(m, 500000, &step); /* half a millisecond, while the client reads the answer */
    }
    wn_enable(heap);

    wn_collect(m, 2, NULL);
    wn_remove_listener(heap, log_collection, &collections);
    assert_true(collections > 0);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

static void test_fork(void **state) {
    (void)state;
    wn_root(m, node *, tree, NULL);
    for (long i = 0; i < 100; i++) wn_take(m, tree, insert(m, tree, i * 37 % 100));

    wn_collect(m, 2, NULL); /* garbage that is frozen stays */
    wn_freeze(m);
    pid_t child = fork();
    if (child == 0) {
        /* Only this thread and its mutator are here. The tree is shared with the parent, and stays so. */
        wn_collect(m, 2, NULL);
        _exit(sum(tree) == 4950 ? 0 : 1);
    }

    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(wn_frozen_count(heap) >= 100);
    assert_int_equal(wn_unfreeze(m), WN_OK);
}

/* ---- a program that is there already ---------------------------------------------------------------------------- */

/* A graph as malloc left it: its vertices refer to each other in cycles. */
typedef struct vertex {
    wn_object head; /* new, and a type for each struct */
    struct vertex *next, *other;
    long id;
} vertex;
static const wn_type vertex_type = WN_TYPE(vertex, WN_REFS(vertex, next, other));

static vertex *ring(wn_mutator *m, long n) {
    vertex *first = NULL, *last = NULL; /* plain locals, found on the stack */
    for (long i = 0; i < n; i++) {
        vertex *v = wn_new(m, &vertex_type); /* was malloc */
        if (!v) return NULL;
        v->id = i;
        if (last) wn_set(m, last, next, v); /* was last->next = v */
        wn_set(m, v, other, first);
        last = v;
        if (!first) first = v;
    }
    if (last) wn_set(m, last, next, first);
    return first; /* nothing is freed, nothing released */
}

static void test_conservative_stacks(void **state) {
    (void)state;
    wn_options options = wn_options_default();
    if (wn_heap_collector(heap) == WN_COLLECTOR_REFCOUNT) {
        options.collector = WN_COLLECTOR_REFCOUNT;
        options.conservative_stacks = true;
        wn_heap *refused;
        assert_int_equal(wn_heap_new(&options, &refused), WN_ERR_UNSUPPORTED);
        options.collector = WN_COLLECTOR_INCREMENTAL;
        if (!wn_collector_available(options.collector)) return;
    }

    options.conservative_stacks = true; /* with the collector incremental or concurrent */

    wn_heap *own;
    wn_mutator *m;
    assert_int_equal(wn_heap_new(&options, &own), WN_OK);
    assert_int_equal(wn_attach(own, &m), WN_OK);
    vertex *kept = ring(m, 100);
    assert_non_null(kept);
    for (int i = 0; i < 100; i++) assert_non_null(ring(m, 100));
    wn_collect(m, 2, NULL);
    long sum = 0;
    vertex *v = kept;
    do sum += v->id, v = v->next;
    while (v != kept);
    assert_int_equal(sum, 4950);
    wn_stats stats;
    wn_get_stats(own, &stats);
    assert_true(stats.live_bytes < 5000 * sizeof *v); /* most of the rings are gone */
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(own), WN_OK);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void test_out_of_memory(void **state) {
    (void)state;
    wn_options options = wn_options_default();
    options.heap_limit = (size_t)128 << 20;
    wn_heap *small;
    wn_mutator *m;
    assert_int_equal(wn_heap_new(&options, &small), WN_OK);
    assert_int_equal(wn_attach(small, &m), WN_OK);
    {
        wn_root(m, array *, kept, wn_new_array(m, &array_type, 1000));
        bool out = false;

        for (int i = 0; i < 1000 && !out; i++) {
            wn_root(m, blob *, b, wn_new_array(m, &blob_type, 1 << 20));
            if (b)
                wn_set(m, kept, items[i], (wn_object *)b);
            else
                out = true; /* wn_error_message() says which limit; the heap is whole, the program goes on */
        }

        assert_true(out);
        assert_true(strlen(wn_error_message()) > 0);
        wn_take(m, kept, NULL);
        wn_collect(m, 2, NULL);
        wn_root(m, blob *, again, wn_new_array(m, &blob_type, 1 << 20));
        assert_non_null(again);
    }
    assert_int_equal(wn_detach(m), WN_OK);
    assert_int_equal(wn_heap_free(small), WN_OK);
}

int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
#define ON_A_HEAP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_heap_and_a_thread),
        ON_A_HEAP(test_types),
        ON_A_HEAP(test_the_rule),
        ON_A_HEAP(test_jumps),
        ON_A_HEAP(test_mistakes),
        ON_A_HEAP(test_stores),
        ON_A_HEAP(test_threads),
        ON_A_HEAP(test_the_end_of_objects),
        ON_A_HEAP(test_control),
        ON_A_HEAP(test_fork),
        ON_A_HEAP(test_conservative_stacks),
        cmocka_unit_test(test_out_of_memory),
    };
    int failed = cmocka_run_group_tests_name("embedding", tests, NULL, NULL);
    return failed || closed != 1;
}
