/* roots.c - what keeps objects alive: wn_root, wn_hold, wn_borrow, give, keep, assign, take, globals, scanners. */
#include "client.h"

#include <pthread.h>

static void *keep_from(wn_mutator *m, pair *p) { return wn_keep(m, (pair *)p->a); }

static void a_root_lives_until_its_scope_ends(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        client_collect(m);
        assert_int_equal(p->id, 1);
        assert_int_equal(client_released[1], 0);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 1);
    }
    if (client_counts(&c)) assert_int_equal(client_released[1], 1); /* zero frees at once */
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

static void a_hold_counts_a_borrow_does_not(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 2, NULL, NULL));
        {
            wn_hold(m, mortal *, h, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 2);
            wn_borrow(m, mortal *, b, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), 2);
            client_collect(m);
            assert_ptr_equal(h, p); /* all three follow the object */
            assert_ptr_equal(b, p);
            wn_take(m, p, NULL);
            client_collect(m);
            assert_int_equal(client_released[2], 0); /* the hold keeps it */
            assert_int_equal(h->id, 2);
            assert_int_equal(b->id, 2);
        }
        client_collect(m);
        assert_int_equal(client_released[2], 1);
    }
    client_close(&c);
}

static void roots_hold_null_and_change(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, none, NULL);
        wn_hold(m, mortal *, nothing, NULL);
        client_collect(m);
        assert_null(none);
        assert_null(nothing);
        wn_root(m, mortal *, a, client_relic(m, 1, NULL, NULL));
        wn_root(m, mortal *, b, client_relic(m, 2, NULL, NULL));
        wn_assign(m, none, a);
        wn_assign(m, a, b); /* 1 lives through none */
        client_collect(m);
        assert_int_equal(client_total(EVENT_RELEASE), 0);
        if (client_counts(&c)) {
            assert_int_equal(wn_refcount(m, none), 1);
            assert_int_equal(wn_refcount(m, b), 2);
        }
        wn_take(m, none, client_relic(m, 3, NULL, NULL));
        client_collect(m);
        assert_int_equal(client_released[1], 1);
        assert_int_equal(none->id, 3);
        wn_assign(m, b, b); /* to itself */
        wn_take(m, a, NULL);
        client_collect(m);
        assert_int_equal(client_released[2], 0);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, b), 1);
        wn_assign(m, b, b); /* the only reference to itself */
        client_collect(m);
        assert_int_equal(client_released[2], 0);
        assert_int_equal(b->id, 2);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 3);
    client_close(&c);
}

static void *build(wn_mutator *m, int depth, long *made) {
    wn_root(m, pair *, n, client_pair(m, (*made)++, NULL, NULL));
    if (depth) {
        wn_move(m, n, a, build(m, depth - 1, made));
        wn_move(m, n, b, build(m, depth - 1, made));
    }
    return wn_give(m, n);
}
static long sum(const pair *p) { return p ? p->id + sum(p->a) + sum(p->b) : 0; }

static void functions_hand_references_over(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        long made = 0;
        wn_root(m, pair *, tree, build(m, client_stressed() || client_sanitized() ? 6 : 14, &made));
        client_collect(m);
        assert_int_equal(sum(tree), made * (made - 1) / 2);
        if (client_counts(&c)) {
            assert_int_equal(wn_refcount(m, tree), 1);
            assert_int_equal(wn_refcount(m, tree->a), 1);
        }
        wn_root(m, pair *, kept, keep_from(m, tree));
        assert_ptr_equal(kept, tree->a);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, kept), 2);
        wn_take(m, tree, NULL);
        client_collect(m);
        assert_int_equal(kept->id, 1);
        wn_root(m, pair *, given, wn_give(m, kept));
        assert_null(kept);
        assert_int_equal(given->id, 1);
        if (client_counts(&c)) assert_int_equal(wn_refcount(m, given), 1);
    }
    client_collect(m);
    if (client_counts(&c)) assert_int_equal(client_alive(c.m), 0);
    client_close(&c);
}

/* A counted reference by hand; under the tracing collectors the object needs a root of its own. */
static void retain_and_release(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_relic(m, 1, NULL, NULL));
        for (int i = 0; i < 1000; i++) {
            wn_retain(m, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), (size_t)i + 2);
        }
        for (int i = 1000; i > 0; i--) {
            wn_release(m, p);
            if (client_counts(&c)) assert_int_equal(wn_refcount(m, p), (size_t)i);
        }
        wn_retain(m, NULL);
        wn_release(m, NULL);
        if (!client_counts(&c)) assert_int_equal(wn_refcount(m, p), 0);
    }
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    client_close(&c);
}

static pair *global_pair;

static void globals_are_roots_until_forgotten(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    vector **fields = calloc(100, sizeof *fields);
    assert_non_null(fields);
    global_pair = client_relic(m, 1, NULL, NULL);
    assert_int_equal(wn_global(c.heap, &global_pair), WN_OK);
    for (int i = 0; i < 100; i++) assert_int_equal(wn_global(c.heap, &fields[i]), WN_OK);
    for (int i = 0; i < 100; i++) wn_take(m, fields[i], client_relic(m, 100 + i, NULL, global_pair));
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    for (int i = 0; i < 100; i++) assert_ptr_equal(((mortal *)(void *)fields[i])->b, global_pair);
    if (client_counts(&c)) assert_int_equal(wn_refcount(m, global_pair), 101);
    wn_assign(m, fields[7], global_pair);
    client_collect(m);
    assert_int_equal(client_released[107], 1);
    for (int i = 99; i >= 0; i--) {
        assert_int_equal(wn_forget_global(m, &fields[i]), WN_OK);
        assert_null(fields[i]);
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 100);
    assert_int_equal(global_pair->id, 1);
    assert_int_equal(wn_forget_global(m, &global_pair), WN_OK);
    assert_null(global_pair);
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    free(fields);
    client_close(&c);
}

static void forgetting_a_stranger_is_an_error(void **state) {
    (void)state;
    client c = client_open(NULL);
    pair *stranger = NULL;
    assert_int_not_equal(wn_forget_global(c.m, &stranger), WN_OK);
    assert_true(strlen(wn_error_message()) > 0);
    client_close(&c);
}

/* A runtime's own stack, grown and shrunk by hand, that a scanner reports. */
typedef struct machine {
    void *stack[1000];
    size_t top, scans;
} machine;

static void scan_machine(wn_tracer *tracer, void *data) {
    machine *vm = data;
    vm->scans++;
    for (size_t i = 0; i < vm->top; i++) wn_visit(tracer, &vm->stack[i]);
}

static void scanners_report_foreign_roots(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    static machine vm;
    vm = (machine){.top = 0};
    assert_int_equal(wn_add_root_scanner(c.heap, scan_machine, &vm), WN_OK);
    size_t n = client_stressed() ? 50 : 1000;
    for (size_t i = 0; i < n; i++) {
        void *o = client_relic(m, (long)i, NULL, i ? vm.stack[i - 1] : NULL); /* new: the stack owns it */
        vm.stack[i] = o;
        vm.top = i + 1;
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(((mortal *)vm.stack[i])->id, i);
        if (i) assert_ptr_equal(((mortal *)vm.stack[i])->b, vm.stack[i - 1]);
    }
    if (!client_counts(&c)) assert_true(vm.scans > 0);
    while (vm.top > n / 2) {
        void *o = vm.stack[--vm.top];
        wn_release(m, o);
    }
    client_collect(m);
    for (size_t i = 0; i < n; i++) assert_int_equal(client_released[i], i >= n / 2);
    while (vm.top) wn_release(m, vm.stack[--vm.top]);
    assert_int_equal(wn_remove_root_scanner(c.heap, scan_machine, &vm), WN_OK);
    assert_int_not_equal(wn_remove_root_scanner(c.heap, scan_machine, &vm), WN_OK);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), n);
    client_close(&c);
}

/* A thread that is not attached declares roots while collections go on. */
enum { DECLARED = 5000 };
static pair *declared[DECLARED];
static _Atomic bool all_declared;

static void *declare(void *heap) {
    static machine empty;
    for (int i = 0; i < DECLARED; i++) {
        if (wn_global(heap, &declared[i])) return NULL;
        if (wn_add_root_scanner(heap, scan_machine, &empty)) return NULL;
        if (i % 4 && wn_remove_root_scanner(heap, scan_machine, &empty)) return NULL;
    }
    atomic_store(&all_declared, true);
    return heap;
}

static void roots_are_declared_while_collections_go_on(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (client_stressed()) { /* all those roots at each allocation: half a minute, and nothing that is not seen without
                              */
        client_close(&c);
        skip();
    }
    atomic_store(&all_declared, false);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, declare, c.heap), 0);
    for (int i = 0; !atomic_load(&all_declared); i++) {
        wn_release(m, client_new(m, &pair_type));
        wn_collect(m, i % 16 ? 0 : 2, NULL);
    }
    void *result = NULL;
    pthread_join(other, &result);
    assert_non_null(result);
    for (int i = 0; i < DECLARED; i++) wn_take(m, declared[i], client_relic(m, i, NULL, NULL));
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    for (int i = DECLARED; i--;) assert_int_equal(wn_forget_global(m, &declared[i]), WN_OK);
    client_collect(m);
    assert_int_equal(client_total(EVENT_RELEASE), DECLARED);
    client_close(&c);
}

/* Roots in a deep recursion, in loops, and left by return in the middle. */
static long descend(wn_mutator *m, int depth, pair *up) {
    wn_borrow(m, pair *, above, up);
    wn_root(m, pair *, mine, client_pair(m, depth, above, NULL));
    if (depth == 0) return mine->id;
    for (int i = 0; i < 3; i++) {
        wn_root(m, pair *, inner, client_pair(m, i, mine, above));
        if (i == 1 && depth % 2) break;
        if (i == 0) continue;
        assert_ptr_equal(inner->a, mine);
    }
    long below = descend(m, depth - 1, mine);
    assert_int_equal(mine->id, depth);
    assert_ptr_equal(mine->a, above);
    return below + mine->id;
}

static void roots_nest_like_scopes(void **state) {
    (void)state;
    client c = client_open(NULL);
    long depth = (long)client_scaled(5000);
    assert_int_equal(descend(c.m, (int)depth, NULL), depth * (depth + 1) / 2);
    client_collect(c.m);
    client_close(&c);
}

static void detaching_with_roots_is_refused(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, pair *, p, client_pair(m, 1, NULL, NULL));
        assert_int_equal(wn_detach(m), WN_ERR_STATE);
        assert_true(strlen(wn_error_message()) > 0);
        assert_int_equal(wn_heap_free(c.heap), WN_ERR_STATE);
        assert_int_equal(p->id, 1); /* nothing happened */
        assert_ptr_equal(wn_current(c.heap), m);
    }
    client_close(&c);
}

static _Atomic bool is_attached, may_collect;

static void *collect_once(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    is_attached = true;
    wn_block_begin(m);
    while (!may_collect) {
    }
    wn_block_end(m);
    wn_collect(m, 2, NULL);
    wn_detach(m);
    return heap;
}

/* Another thread collects. This one returns between two handshakes: it has its barrier, globals and tables have been
 * marked, its stack has not and will be at the next safepoint. */
static pthread_t begin_between_handshakes(client *c) {
    pthread_t other;
    is_attached = may_collect = false;
    wn_disable(c->heap);
    assert_int_equal(pthread_create(&other, NULL, collect_once, c->heap), 0);
    while (!is_attached) wn_poll(c->m);
    may_collect = true; /* and this thread runs: who stands still is asked nothing */
    while (!(c->m->mode & WN_MODE_SHADE_)) wn_poll(c->m);
    while (!__atomic_load_n(&c->m->poll, __ATOMIC_RELAXED)) {
    }
    return other;
}

static void end_between_handshakes(client *c, pthread_t other) {
    void *done;
    wn_block_begin(c->m);
    pthread_join(other, &done);
    wn_block_end(c->m);
    wn_enable(c->heap);
    assert_ptr_equal(done, c->heap);
}

static void what_leaves_a_stack_before_it_is_scanned_is_found(void **state) {
    (void)state;
    enum { IN_FRAME, IN_FRAME_BEFORE_ATTACHED, DECLARED_LATE, MADE_IMMORTAL, WAYS };
    static mortal *late;
    for (int way = 0; way < WAYS; way++) {
        client c = client_open(NULL);
        /* Verifying stops the world before the first handshake, and who stands still is asked nothing. */
        if (wn_heap_collector(c.heap) == WN_COLLECTOR_CONCURRENT && !wn_heap_options(c.heap).verify) {
            mortal *in_frame = NULL, *seen = NULL;
            if (way == IN_FRAME) assert_int_equal(wn_global(c.heap, &in_frame), WN_OK);
            if (way == IN_FRAME_BEFORE_ATTACHED) {
                assert_int_equal(wn_detach(c.m), WN_OK);
                assert_int_equal(wn_global(c.heap, &in_frame), WN_OK);
                assert_int_equal(wn_attach(c.heap, &c.m), WN_OK);
            }
            wn_mutator *m = c.m;
            wn_root(m, mortal *, kept, client_relic(m, 1, NULL, NULL));
            pthread_t other = begin_between_handshakes(&c);
            seen = kept;
            if (way <= IN_FRAME_BEFORE_ATTACHED) wn_take(m, in_frame, wn_give(m, kept));
            if (way == DECLARED_LATE) {
                late = wn_give(m, kept);
                assert_int_equal(wn_global(c.heap, &late), WN_OK);
            }
            if (way == MADE_IMMORTAL) {
                wn_make_immortal(m, kept);
                wn_assign(m, kept, NULL);
            }
            end_between_handshakes(&c, other);
            assert_int_equal(client_released[1], 0);
            assert_int_equal(seen->id, 1);
            if (way <= IN_FRAME_BEFORE_ATTACHED) assert_int_equal(wn_forget_global(m, &in_frame), WN_OK);
            if (way == DECLARED_LATE) assert_int_equal(wn_forget_global(m, &late), WN_OK);
        }
        client_close(&c);
    }
}

static _Atomic bool stop_collecting;
static void *collect_again_and_again(void *heap) {
    wn_mutator *m;
    if (wn_attach(heap, &m)) return NULL;
    while (!stop_collecting) wn_collect(m, 2, NULL);
    wn_detach(m);
    return heap;
}

/* At whatever moment of another's collection a reference is overwritten: one that is asked for then frees it. */
static void a_collection_frees_what_was_dropped_during_another(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    const long n = (long)client_scaled(2000);
    stop_collecting = false;
    {
        wn_root(m, pair *, holder, client_pair(m, 0, NULL, NULL));
        pthread_t other;
        assert_int_equal(pthread_create(&other, NULL, collect_again_and_again, c.heap), 0);
        for (long i = 0; i < n; i++) {
            wn_move(m, holder, a, client_relic(m, i, NULL, NULL));
            for (long k = i % 50; k > 0; k--) wn_poll(m);
            wn_set(m, holder, a, NULL);
            client_collect(m);
            assert_int_equal(client_released[i], 1);
        }
        stop_collecting = true;
        wn_block_begin(m);
        pthread_join(other, NULL);
        wn_block_end(m);
    }
    client_close(&c);
}

/* ---- jumps ------------------------------------------------------------------------------------------------------- */

enum { DEPTH = 12, MOST_OPEN = 4 * DEPTH };

/* The model: which objects the open scopes hold, and where one may jump to. */
static struct {
    long open[MOST_OPEN], next;
    size_t n;
    unsigned quiet; /* no-collect scopes */
    struct place {
        jmp_buf to;
        wn_scope scope;
        size_t n;
        unsigned quiet;
    } place[DEPTH];
    size_t places, jumps;
    uint64_t x;
} model;

static unsigned below(unsigned n) {
    model.x = model.x * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(model.x >> 33) % n;
}

/* What was opened since the place was noted is gone, and nothing else. */
static void land(client *c, const struct place *place) {
    size_t gone = model.n;
    model.n = place->n;
    model.quiet = place->quiet;
    model.jumps++;
    if (model.quiet) return;
    if (!client_counts(c)) client_collect(c->m);
    for (size_t i = 0; i < gone; i++) assert_int_equal(client_released[model.open[i]], i >= model.n);
}

static void dig(client *c, int depth);
static void dig_with_a_place(client *c, int depth) {
    struct place *place = &model.place[model.places++];
    place->n = model.n;
    place->quiet = model.quiet;
    place->scope = wn_scope_here(c->m);
    if (setjmp(place->to) == 0)
        dig(c, depth);
    else
        land(c, place);
    model.places = (size_t)(place - model.place);
}

static void dig(client *c, int depth) {
    wn_mutator *m = c->m;
    const long id = model.next++;
    wn_root(m, mortal *, p, client_relic(m, id, NULL, NULL));
    wn_hold(m, mortal *, held, p);
    wn_borrow(m, mortal *, follows, p);
    model.open[model.n++] = id;
    const bool quiet = below(8) == 0;
    if (quiet) wn_no_collect_begin(m), model.quiet++;
    if (depth && below(8)) {
        if (below(3))
            dig(c, depth - 1);
        else
            dig_with_a_place(c, depth - 1);
    } else if (model.places && below(4)) {
        const struct place *place = &model.place[below((unsigned)model.places)];
        wn_unwind(m, place->scope);
        longjmp(((struct place *)place)->to, 1);
    }
    if (!model.quiet && below(2)) client_collect(m);
    assert_int_equal(p->id, id);
    assert_ptr_equal(held, p);
    assert_ptr_equal(follows, p);
    if (quiet) wn_no_collect_end(m), model.quiet--;
    model.n--;
}

static void jumps_end_the_scopes_they_leave(void **state) {
    (void)state;
    client c = client_open(NULL);
    memset(&model, 0, sizeof model);
    while (model.next < (long)client_scaled(100000)) {
        dig(&c, DEPTH);
        assert_int_equal(model.n + model.places + model.quiet, 0);
    }
    assert_true(model.jumps > 0);
    client_collect(c.m);
    for (long i = 0; i < model.next; i++) assert_int_equal(client_released[i], 1);
    client_close(&c); /* detaches: no root is declared */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_root_lives_until_its_scope_ends),
        cmocka_unit_test(a_hold_counts_a_borrow_does_not),
        cmocka_unit_test(roots_hold_null_and_change),
        cmocka_unit_test(functions_hand_references_over),
        cmocka_unit_test(retain_and_release),
        cmocka_unit_test(globals_are_roots_until_forgotten),
        cmocka_unit_test(forgetting_a_stranger_is_an_error),
        cmocka_unit_test(scanners_report_foreign_roots),
        cmocka_unit_test(roots_are_declared_while_collections_go_on),
        cmocka_unit_test(roots_nest_like_scopes),
        cmocka_unit_test(detaching_with_roots_is_refused),
        cmocka_unit_test(a_collection_frees_what_was_dropped_during_another),
        cmocka_unit_test(what_leaves_a_stack_before_it_is_scanned_is_found),
        cmocka_unit_test(jumps_end_the_scopes_they_leave),
    };
    return CLIENT_MAIN("roots", tests);
}
