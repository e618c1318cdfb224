/*
 * walk.c - walking a heap and questions about single objects.
 *
 * Invariant: the world stands still during a walk, from before the first object is looked at until after the last, and
 * nothing in the heap is written. Questions about one object stop nothing.
 */
#include "mutator/heap.h"

static bool shown(const wn_heap *heap, const void *object) {
    return !heap->collector->is_live || heap->collector->is_live(heap, object);
}

/* Stops the world and makes the alloc bits tell the truth. */
static wn_heap *begin(wn_mutator *fast) {
    mutator *m = wn_mutator_of(fast);
    wn_world_stop(m->heap, m);
    for (mutator *each = m->heap->mutators; each; each = each->next) m->heap->collector->flush(each);
    return m->heap;
}
static void end(wn_mutator *fast) { wn_world_start(wn_mutator_of(fast)->heap, wn_mutator_of(fast)); }

/* Visits every object for which `wanted` holds (NULL: all) until visit says no. */
typedef struct walker {
    wn_heap *heap;
    bool (*wanted)(wn_heap *heap, void *object, const void *arg);
    const void *arg;
    wn_object_visitor visit;
    void *data;
} walker;
static bool walk_young(void *object, void *data) {
    const walker *w = data;
    return (w->wanted && !w->wanted(w->heap, object, w->arg)) || w->visit(object, w->data);
}
static void walk(wn_heap *heap, bool (*wanted)(wn_heap *heap, void *object, const void *arg), const void *arg,
                 wn_object_visitor visit, void *data) {
    walker w = {heap, wanted, arg, visit, data};
    if (heap->collector->each_young && !heap->collector->each_young(heap, walk_young, &w)) return;
    WN_EACH_BLOCK(&heap->space, c, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));)
            if (shown(heap, o) && (!wanted || wanted(heap, o, arg)) && !visit(o, data)) return;
    }
}

wn_status wn_each_object(wn_mutator *m, wn_object_visitor visit, void *data) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_each_object")) return WN_ERR_STATE;
    walk(begin(m), NULL, NULL, visit, data);
    end(m);
    return WN_OK;
}

static bool is_of_generation(wn_heap *heap, void *object, const void *arg) {
    int wanted = *(const int *)arg;
    if (!heap->collector->is_tracked(heap, object)) return false;
    int g = heap->collector->generation(heap, object);
    return wanted < 0 ? g != 3 : g == wanted;
}

wn_status wn_each_tracked(wn_mutator *m, int generation, wn_object_visitor visit, void *data) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_each_tracked")) return WN_ERR_STATE;
    if (generation < -1 || generation > 3)
        return wn_fail(WN_ERR_ARGUMENT,
                       "wn_each_tracked: there is no generation %d; use 0 to 2, 3 for the frozen, -1 for all",
                       generation);
    walk(begin(m), is_of_generation, &generation, visit, data);
    end(m);
    return WN_OK;
}

typedef struct seek {
    const void *target;
    bool found;
} seek;
static void seek_visit(void **slot, void *context) {
    seek *s = context;
    if (*slot == s->target) s->found = true;
}
static bool refers(wn_heap *heap, void *object, const void *arg) {
    (void)heap;
    seek s = {arg, false};
    wn_each_ref(object, seek_visit, &s);
    return s.found;
}

wn_status wn_referrers(wn_mutator *m, const void *target, wn_object_visitor visit, void *data) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_referrers")) return WN_ERR_STATE;
    /* Stopping the world may wait for another thread's collection, and that may move it. */
    wn_borrow(m, void *, here, (void *)target);
    wn_heap *heap = begin(m);
    walk(heap, refers, here, visit, data);
    end(m);
    return WN_OK;
}

typedef struct show {
    wn_object_visitor visit;
    void *data;
    bool ended;
} show;
static void show_visit(void **slot, void *context) {
    show *s = context;
    if (*slot && !s->ended) s->ended = !s->visit(*slot, s->data);
}

wn_status wn_referents(wn_mutator *m, const void *object, wn_object_visitor visit, void *data) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_referents")) return WN_ERR_STATE;
    if (!wn_is_given(wn_mutator_of(m), object, "wn_referents")) return WN_ERR_ARGUMENT;
    show s = {visit, data, false};
    wn_each_ref((void *)object, show_visit, &s);
    return WN_OK;
}

bool wn_is_tracked(wn_mutator *m, const void *object) {
    if (!wn_may_use(wn_mutator_of(m), object, "wn_is_tracked")) return false;
    return wn_heap_of(m)->collector->is_tracked(wn_heap_of(m), object);
}
bool wn_is_finalized(wn_mutator *m, const void *object) {
    if (!wn_may_use(wn_mutator_of(m), object, "wn_is_finalized")) return false;
    return __atomic_load_n(&wn_meta_(object)[1], __ATOMIC_RELAXED) & WN_STATE_FINALIZED_;
}
bool wn_is_frozen(wn_mutator *m, const void *object) { return wn_generation(m, object) == 3; }
int wn_generation(wn_mutator *m, const void *object) {
    if (!wn_may_use(wn_mutator_of(m), object, "wn_generation")) return -1;
    return wn_heap_of(m)->collector->generation(wn_heap_of(m), object);
}

bool wn_is_object(wn_mutator *m, const void *address) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_is_object")) return false;
    wn_heap *heap = wn_heap_of(m);
    void *o = wn_heap_object_at(heap, address, true);
    return o && shown(heap, o) && wn_type_of(o);
}

size_t wn_size_of(wn_mutator *m, const void *object) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_size_of")) return 0;
    if (wn_is_object(m, object)) return wn_bytes_of(object);
    wn_fail(WN_ERR_ARGUMENT, "wn_size_of: %p is no object of this heap: it was freed or moved, or never was one",
            object);
    return 0;
}

void wn_untrack(wn_mutator *m, void *object) {
    if (!wn_may_use(wn_mutator_of(m), object, "wn_untrack")) return;
    if (wn_heap_of(m)->collector->track) wn_heap_of(m)->collector->track(wn_mutator_of(m), object, false);
}
void wn_track(wn_mutator *m, void *object) {
    if (!wn_may_use(wn_mutator_of(m), object, "wn_track")) return;
    if (!wn_has_refs_(wn_type_of(object))) return;
    if (wn_heap_of(m)->collector->track) wn_heap_of(m)->collector->track(wn_mutator_of(m), object, true);
}

size_t wn_garbage_count(wn_mutator *m) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_garbage_count")) return 0;
    return wn_heap_of(m)->garbage.n;
}
void *wn_garbage_get(wn_mutator *m, size_t index) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_garbage_get")) return NULL;
    wn_heap *heap = wn_heap_of(m);
    return index < heap->garbage.n ? heap->garbage.at[index] : NULL;
}
void wn_garbage_clear(wn_mutator *m) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_garbage_clear")) return;
    wn_vector *g = &wn_heap_of(m)->garbage;
    while (g->n) wn_release(m, g->at[--g->n]);
}
