/*
 * finalizers.c - the promises of PEP 442 on every collector: once, before anything is taken apart, after the weak
 * references are cleared; what a finalizer resurrects lives, and its second death runs no finalizer.
 */
#include "client.h"

#include <pthread.h>
#include <time.h>

static void once_then_released(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(10000);
    for (size_t i = 0; i < n; i++) wn_release(m, client_mortal(m, (long)i, NULL, NULL));
    client_collect(m);
    client_collect(m);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_released[i], 1);
    }
    for (long i = 0; i < (long)(n < 100 ? n : 100); i++)
        assert_true(client_when(EVENT_FINALIZE, i) < client_when(EVENT_RELEASE, i));
    client_close(&c);
}

static void not_while_reachable(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
        wn_move(m, p, a, client_mortal(m, 2, NULL, p)); /* a cycle that is alive */
        for (int i = 0; i < 5; i++) client_collect(m);
        assert_int_equal(client_total(EVENT_FINALIZE), 0);
        assert_false(wn_is_finalized(m, p));
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_FINALIZE), 2);
    assert_int_equal(client_total(EVENT_RELEASE), 2);
    client_close(&c);
}

/* A ring of n: every finalizer sees all the others whole, so none was taken apart before all had run. */
enum { RING = 50 };
static void look_around(wn_mutator *m, mortal *self) {
    (void)m;
    mortal *at = self;
    for (int i = 0; i < RING; i++) {
        mortal *next = at->a;
        if (!next || next->id != (at->id + 1) % RING || next->b != at) client_note(EVENT_OTHER, at->id);
        if (client_released[at->id]) client_note(EVENT_OTHER, at->id);
        at = next ? next : at;
    }
    if (at != self) client_note(EVENT_OTHER, self->id);
}

static void *make_ring(wn_mutator *m, const wn_type *type, void (*will)(wn_mutator *, mortal *)) {
    wn_root(m, mortal *, first, client_new(m, type));
    wn_hold(m, mortal *, last, first);
    if (type == &mortal_type) first->will = will;
    for (long i = 1; i < RING; i++) {
        wn_root(m, mortal *, next, client_new(m, type));
        next->id = i;
        if (type == &mortal_type) next->will = will;
        wn_set(m, last, a, next);
        wn_set(m, next, b, last);
        wn_assign(m, last, next);
    }
    wn_set(m, last, a, first);
    wn_set(m, first, b, last);
    return wn_give(m, first);
}

/* Those whose turn has not come are not finalized, even if it is decided that they will be. */
static void ask_who_is_finalized(wn_mutator *m, mortal *self) {
    mortal *at = self;
    for (int i = 0; i < RING; i++, at = at->a)
        if (wn_is_finalized(m, at) != (client_finalized[at->id] > 0)) client_note(EVENT_OTHER, at->id);
}

static void finalized_is_what_has_been(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_release(m, make_ring(m, &mortal_type, ask_who_is_finalized));
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_total(EVENT_FINALIZE), RING);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    client_close(&c);
}

static void all_of_a_cycle_before_anything_is_cleared(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int round = 0; round < 4; round++) {
        client_forget();
        wn_release(m, make_ring(m, &mortal_type, look_around));
        client_collect(m);
        assert_int_equal(client_total(EVENT_OTHER), 0);
        for (int i = 0; i < RING; i++) {
            assert_int_equal(client_finalized[i], 1);
            assert_int_equal(client_released[i], 1);
        }
    }
    client_close(&c);
}

/* An acyclic chain dies from its head; each finalizer still has what it refers to. */
static void look_below(wn_mutator *m, mortal *self) {
    (void)m;
    mortal *below = self->a;
    if (self->id > 0 && (!below || below->id != self->id - 1 || client_released[below->id]))
        client_note(EVENT_OTHER, self->id);
}

static void children_are_whole_in_a_finalizer(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(3000);
    {
        wn_root(m, mortal *, top, NULL);
        for (size_t i = 0; i < n; i++) {
            wn_root(m, mortal *, above, client_mortal(m, (long)i, top, NULL));
            above->will = look_below;
            wn_assign(m, top, above);
        }
    }
    client_collect(m);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    assert_int_equal(client_total(EVENT_FINALIZE), n);
    assert_int_equal(client_total(EVENT_RELEASE), n);
    client_close(&c);
}

/* ---- resurrection ------------------------------------------------------------------------------------------------ */

static mortal *saved;
static void save_self(wn_mutator *m, mortal *self) { wn_assign(m, saved, self); }

static void a_resurrected_object_lives_and_dies_once_more(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    saved = NULL;
    assert_int_equal(wn_global(c.heap, &saved), WN_OK);
    {
        wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
        p->will = save_self;
        wn_move(m, p, a, client_mortal(m, 2, NULL, NULL)); /* what it refers to lives too */
    }
    client_collect(m);
    assert_non_null(saved);
    assert_int_equal(client_finalized[1], 1);
    assert_int_equal(client_finalized[2], client_counts(&c) ? 0 : client_finalized[2]);
    assert_int_equal(client_released[1], 0);
    assert_int_equal(client_released[2], 0);
    assert_int_equal(saved->id, 1);
    assert_int_equal(((mortal *)saved->a)->id, 2);
    assert_true(wn_is_finalized(m, saved));
    if (client_counts(&c)) assert_int_equal(wn_refcount(m, saved), 1);
    for (int i = 0; i < 3; i++) client_collect(m);
    assert_int_equal(saved->id, 1);
    assert_int_equal(client_finalized[1], 1);
    wn_take(m, saved, NULL);
    client_collect(m);
    assert_null(saved);
    assert_int_equal(client_finalized[1], 1); /* not again */
    assert_int_equal(client_released[1], 1);
    assert_int_equal(client_finalized[2], 1);
    assert_int_equal(client_released[2], 1);
    wn_forget_global(m, &saved);
    client_close(&c);
}

/* One member of a ring is stored somewhere: the whole ring lives on, whole, and nobody is finalized again. */
static void save_the_seventh(wn_mutator *m, mortal *self) {
    look_around(m, self);
    if (self->id == 7) wn_assign(m, saved, self);
}

static void resurrecting_one_of_a_cycle_keeps_all(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    saved = NULL;
    assert_int_equal(wn_global(c.heap, &saved), WN_OK);
    wn_release(m, make_ring(m, &mortal_type, save_the_seventh));
    wn_collect_result r = client_collect(m);
    if (client_counts(&c)) assert_int_equal(r.collected + r.freed_bytes, 0);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    assert_int_equal(client_total(EVENT_RELEASE), 0);
    assert_int_equal(client_total(EVENT_FINALIZE), RING);
    assert_non_null(saved);
    look_around(m, saved);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    client_collect(m);
    look_around(m, saved);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    wn_take(m, saved, NULL);
    r = client_collect(m);
    if (client_counts(&c)) {
        assert_int_equal(r.collected, RING);
        assert_int_equal(r.freed_bytes, RING * sizeof(mortal));
    }
    assert_int_equal(client_total(EVENT_FINALIZE), RING);
    assert_int_equal(client_total(EVENT_RELEASE), RING);
    wn_forget_global(m, &saved);
    client_close(&c);
}

/* Only part of the garbage comes back: two rings die together, one is saved. */
static void resurrection_keeps_no_more_than_it_reaches(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    saved = NULL;
    assert_int_equal(wn_global(c.heap, &saved), WN_OK);
    wn_disable(c.heap);
    {
        wn_root(m, mortal *, a, client_mortal(m, 1, NULL, NULL));
        wn_set(m, a, a, a);
        a->will = save_self;
        wn_root(m, mortal *, b, client_mortal(m, 2, a, NULL)); /* refers to the saved one, but not the other way */
        wn_set(m, b, b, b);
    }
    client_collect(m);
    assert_non_null(saved);
    assert_int_equal(client_released[1], 0);
    assert_int_equal(client_released[2], 1);
    assert_int_equal(saved->id, 1);
    if (client_counts(&c)) assert_int_equal(wn_refcount(m, saved), 2);
    wn_enable(c.heap);
    wn_take(m, saved, NULL);
    client_collect(m);
    assert_int_equal(client_released[1], 1);
    wn_forget_global(m, &saved);
    client_close(&c);
}

/* ---- what a finalizer may do ------------------------------------------------------------------------------------- */

static wn_weakref *watcher;
static void ask_watcher(wn_mutator *m, mortal *self) {
    void *target = wn_weakref_get(m, watcher);
    if (target) client_note(EVENT_OTHER, self->id);
    wn_release(m, target);
}
static void callback_note(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)m, (void)ref;
    client_note(EVENT_CALLBACK, (long)(intptr_t)data);
}

static void weak_references_are_cleared_before_finalizers(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (int cyclic = 0; cyclic < 2; cyclic++) {
        client_forget();
        watcher = NULL;
        assert_int_equal(wn_global(c.heap, &watcher), WN_OK);
        {
            wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
            p->will = ask_watcher;
            if (cyclic) wn_set(m, p, a, p);
            wn_take(m, watcher, wn_weakref_new(m, p, callback_note, (void *)(intptr_t)1));
        }
        client_collect(m);
        assert_int_equal(client_total(EVENT_OTHER), 0);
        assert_int_equal(client_total(EVENT_CALLBACK), 1);
        assert_true(client_when(EVENT_CALLBACK, 1) < client_when(EVENT_FINALIZE, 1));
        assert_int_equal(client_released[1], 1);
        wn_forget_global(m, &watcher);
    }
    client_close(&c);
}

/* What a finalizer lets watch the dying object is watching nothing once that is gone, and not what comes after it. */
static wn_ephemeron *paired;
static void let_watch(wn_mutator *m, mortal *self) {
    wn_take(m, watcher, wn_weakref_new(m, self, callback_note, (void *)(intptr_t)2));
    wn_root(m, mortal *, value, client_relic(m, 3, NULL, NULL));
    wn_take(m, paired, wn_ephemeron_new(m, self, value));
}

static void a_weak_reference_made_by_a_finalizer_is_cleared(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    watcher = NULL;
    paired = NULL;
    assert_int_equal(wn_global(c.heap, &watcher), WN_OK);
    assert_int_equal(wn_global(c.heap, &paired), WN_OK);
    for (int cyclic = 0; cyclic < 2; cyclic++) {
        client_forget();
        {
            wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
            p->will = let_watch;
            if (cyclic) wn_set(m, p, a, p);
        }
        client_collect(m);
        client_collect(m);
        assert_int_equal(client_finalized[1], 1);
        assert_int_equal(client_released[1], 1);
        for (int i = 0; i < 100; i++) wn_release(m, client_mortal(m, 4, NULL, NULL)); /* where it was */
        wn_root(m, mortal *, next, client_mortal(m, 4, NULL, NULL));
        assert_null(wn_weakref_get(m, watcher));
        assert_null(wn_ephemeron_key(m, paired));
        assert_null(wn_ephemeron_value(m, paired));
        assert_int_equal(wn_weakref_count(m, next), 0);
        client_collect(m);
        assert_int_equal(client_total(EVENT_CALLBACK), 1);
        assert_int_equal(client_released[3], 1);
    }
    wn_forget_global(m, &paired);
    wn_forget_global(m, &watcher);
    client_close(&c);
}

static void allocate_much(wn_mutator *m, mortal *self) {
    wn_root(m, vector *, v, client_new_array(m, &vector_type, 100));
    for (size_t i = 0; i < 100; i++) wn_move(m, v, items[i], client_pair(m, self->id, NULL, NULL));
    for (size_t i = 0; i < 100; i++)
        if (((pair *)v->items[i])->id != self->id) client_note(EVENT_OTHER, self->id);
}

static void a_finalizer_may_allocate(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_stressed() ? 10 : 1000;
    for (size_t i = 0; i < n; i++) {
        wn_root(m, mortal *, p, client_mortal(m, (long)i, NULL, NULL));
        p->will = allocate_much;
        if (i % 2) wn_set(m, p, b, p);
    }
    client_collect(m);
    client_collect(m);
    assert_int_equal(client_total(EVENT_OTHER), 0);
    for (size_t i = 0; i < n; i++) assert_int_equal(client_finalized[i], 1);
    for (size_t i = 0; i < n; i++) assert_int_equal(client_released[i], 1);
    client_close(&c);
}

static void collect_inside(wn_mutator *m, mortal *self) {
    (void)self;
    wn_collect(m, 2, NULL); /* what it does is the collector's choice; it must come back */
    wn_collect(m, 0, NULL);
}

static void a_finalizer_may_ask_for_a_collection(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    for (long i = 0; i < 20; i++) {
        wn_root(m, mortal *, p, client_mortal(m, i, NULL, NULL));
        p->will = collect_inside;
        if (i % 2) wn_set(m, p, b, p);
    }
    client_collect(m);
    client_collect(m);
    for (long i = 0; i < 20; i++) {
        assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_released[i], 1);
    }
    client_close(&c);
}

static void drop_neighbours(wn_mutator *m, mortal *self) { /* takes the ring apart while it is being finalized */
    if (self->a) wn_set(m, self, a, NULL);
    if (self->b) wn_set(m, self, b, NULL);
}

static void a_finalizer_may_take_garbage_apart(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    wn_release(m, make_ring(m, &mortal_type, drop_neighbours));
    client_collect(m);
    client_collect(m);
    for (int i = 0; i < RING; i++) {
        assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_released[i], 1);
    }
    client_close(&c);
}

/* A finalizer that makes another object with a finalizer, which makes another, ... */
static void make_heir(wn_mutator *m, mortal *self) {
    if (self->id >= 20) return;
    wn_root(m, mortal *, heir, client_mortal(m, self->id + 1, NULL, NULL));
    heir->will = make_heir;
}

static void finalizers_may_make_finalizable_garbage(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    {
        wn_root(m, mortal *, p, client_mortal(m, 0, NULL, NULL));
        p->will = make_heir;
    }
    for (int i = 0; i < 25; i++) client_collect(m);
    for (int i = 0; i <= 20; i++) {
        assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_released[i], 1);
    }
    client_close(&c);
}

static void weak_reference_to_the_dying(wn_mutator *m, mortal *self) {
    wn_take(m, watcher, wn_weakref_new(m, self, callback_note, (void *)(intptr_t)self->id));
    wn_assign(m, saved, self);
}

static void a_resurrected_object_can_be_watched_again(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    saved = NULL, watcher = NULL;
    assert_int_equal(wn_global(c.heap, &saved), WN_OK);
    assert_int_equal(wn_global(c.heap, &watcher), WN_OK);
    {
        wn_root(m, mortal *, p, client_mortal(m, 3, NULL, NULL));
        p->will = weak_reference_to_the_dying;
        wn_set(m, p, a, p);
    }
    client_collect(m);
    assert_non_null(saved);
    {
        wn_root(m, mortal *, got, wn_weakref_get(m, watcher));
        assert_ptr_equal(got, saved);
    }
    assert_int_equal(client_total(EVENT_CALLBACK), 0);
    wn_take(m, saved, NULL);
    client_collect(m);
    assert_null(wn_weakref_get(m, watcher));
    assert_int_equal(client_total(EVENT_CALLBACK), 1);
    assert_int_equal(client_released[3], 1);
    wn_forget_global(m, &saved);
    wn_forget_global(m, &watcher);
    client_close(&c);
}

static void many_that_die_together(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    size_t n = client_scaled(200000);
    {
        wn_root(m, vector *, v, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) wn_move(m, v, items[i], client_mortal(m, (long)i, v, NULL));
    }
    client_collect(m);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(client_finalized[i], 1);
        assert_int_equal(client_released[i], 1);
    }
    client_close(&c);
}

static void the_end_of_the_heap_releases_but_does_not_finalize(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    saved = client_mortal(m, 1, NULL, NULL);
    assert_int_equal(wn_global(c.heap, &saved), WN_OK);
    wn_move(m, saved, a, client_relic(m, 2, NULL, NULL));
    wn_move(m, saved, b, client_mortal(m, 3, NULL, saved));
    {
        wn_hold(m, mortal *, immortal, saved->b);
        wn_make_immortal(m, immortal);
    }
    client_close(&c);
    assert_int_equal(client_total(EVENT_FINALIZE), 0);
    for (int i = 1; i <= 3; i++) assert_int_equal(client_released[i], 1);
    saved = NULL;
}

/* finalizer_thread=on: where there is such a thread, no finalizer runs on the program's own; the same ones run. */
static pthread_t program;
static _Atomic unsigned elsewhere, used_the_heap, watched;
static void note_the_thread(wn_mutator *m, mortal *self) {
    if (!pthread_equal(pthread_self(), program)) atomic_fetch_add(&elsewhere, 1);
    if (self->id % 10 == 0) { /* and it may use the heap like any thread */
        wn_root(m, pair *, p, client_pair(m, self->id, self, NULL));
        if (p->a == self) atomic_fetch_add(&used_the_heap, 1);
    }
    atomic_fetch_add(&watched, 1);
}
static __attribute__((noinline)) void drop_watched(wn_mutator *m, size_t n) {
    for (size_t i = 0; i < n; i++) {
        wn_root(m, mortal *, o, client_mortal(m, (long)i, NULL, NULL));
        o->will = note_the_thread;
    }
}

static void on_a_thread_of_their_own(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.finalizer_thread = true;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    size_t n = client_scaled(5000);
    program = pthread_self();
    atomic_store(&elsewhere, 0);
    atomic_store(&used_the_heap, 0);
    atomic_store(&watched, 0);
    drop_watched(m, n);
    for (int i = 0; i < 4000 && atomic_load(&watched) < n; i++) {
        if (i % 100 == 0) client_collect(m);
        wn_poll(m);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    for (size_t i = 0; i < n; i++) assert_int_equal(client_finalized[i], 1);
    assert_int_equal(used_the_heap, (n + 9) / 10);
    assert_int_equal(elsewhere, wn_heap_collector(c.heap) == WN_COLLECTOR_CONCURRENT ? n : 0);
    client_close(&c);
}

/* Under a limit that holds a fraction of them. */
static size_t made_in_finalizer;
static void make_and_drop(wn_mutator *m, mortal *self) {
    (void)self;
    for (size_t i = 0; i < client_scaled(2000000); i++) {
        void *o = wn_new(m, &pair_type);
        if (!o) return;
        wn_release(m, o);
        made_in_finalizer++;
    }
}
static void a_finalizer_gets_back_what_it_drops(void **state) {
    (void)state;
    wn_options o = wn_options_default();
    o.heap_limit = 16 << 20;
    client c = client_open(&o);
    wn_mutator *m = c.m;
    if (client_counts(&c)) { /* the others would have to collect */
        made_in_finalizer = 0;
        wn_root(m, mortal *, p, client_mortal(m, 1, NULL, NULL));
        p->will = make_and_drop;
        wn_take(m, p, NULL);
        assert_int_equal(client_finalized[1], 1);
        assert_int_equal(made_in_finalizer, client_scaled(2000000));
    }
    client_close(&c);
}

static void drop_the_next(wn_mutator *m, mortal *self) {
    wn_set(m, self, a, NULL);
    wn_release(m, client_pair(m, 0, NULL, NULL));
}
/* Each the last reference to the next, which its finalizer drops: no chain of them is too long for the C stack. */
static void finalizers_that_drop_what_is_finalized(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    long n = (long)client_scaled(CLIENT_IDS - 1);
    {
        wn_root(m, mortal *, list, NULL);
        for (long i = 0; i < n; i++) {
            wn_take(m, list, client_mortal(m, i, list, NULL));
            list->will = drop_the_next;
        }
    }
    for (int i = 0; i < 3; i++) client_collect(m);
    for (long i = 0; i < n; i++) assert_int_equal(client_finalized[i], 1);
    client_close(&c);
}

/* What lay in the memory of a new object before has been finalized; the object has not. A type without release hook,
 * of which collectors note less. */
static void finalize_nothing(wn_mutator *m, void *object) { (void)m, (void)object; }
static void a_new_object_is_not_finalized(void **state) {
    (void)state;
    static const wn_type type = WN_TYPE(pair, WN_REFS(pair, a, b), .finalize = finalize_nothing);
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    const size_t n = client_scaled(2000);
    for (int round = 0; round < 2; round++) {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        for (size_t i = 0; i < n; i++) {
            wn_move(m, all, items[i], client_new(m, &type));
            wn_set(m, (pair *)all->items[i], a, all);
            assert_false(wn_is_finalized(m, all->items[i]));
        }
        wn_assign(m, all, NULL);
        for (int i = 0; i < 2; i++) client_collect(m);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once_then_released),
        cmocka_unit_test(not_while_reachable),
        cmocka_unit_test(finalized_is_what_has_been),
        cmocka_unit_test(all_of_a_cycle_before_anything_is_cleared),
        cmocka_unit_test(children_are_whole_in_a_finalizer),
        cmocka_unit_test(a_resurrected_object_lives_and_dies_once_more),
        cmocka_unit_test(resurrecting_one_of_a_cycle_keeps_all),
        cmocka_unit_test(resurrection_keeps_no_more_than_it_reaches),
        cmocka_unit_test(weak_references_are_cleared_before_finalizers),
        cmocka_unit_test(a_weak_reference_made_by_a_finalizer_is_cleared),
        cmocka_unit_test(a_finalizer_may_allocate),
        cmocka_unit_test(a_finalizer_may_ask_for_a_collection),
        cmocka_unit_test(a_finalizer_may_take_garbage_apart),
        cmocka_unit_test(finalizers_may_make_finalizable_garbage),
        cmocka_unit_test(a_resurrected_object_can_be_watched_again),
        cmocka_unit_test(many_that_die_together),
        cmocka_unit_test(on_a_thread_of_their_own),
        cmocka_unit_test(the_end_of_the_heap_releases_but_does_not_finalize),
        cmocka_unit_test(a_finalizer_gets_back_what_it_drops),
        cmocka_unit_test(finalizers_that_drop_what_is_finalized),
        cmocka_unit_test(a_new_object_is_not_finalized),
    };
    return CLIENT_MAIN("finalizers", tests);
}
