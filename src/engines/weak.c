/* weak.c - the table of weak references and ephemerons, and the public calls on them. */
#include "engines/weak.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

const wn_type wn_weakref_type = {
    .name = "weakref", .size = sizeof(wn_weakref), .flags = WN_TYPE_PINNED | WN_TYPE_WEAKREF};
/* Visits nothing: what an ephemeron refers to is known only to those who know whether its key is alive. It has a trace
 * function all the same because it can be part of a cycle, and only types that can are tracked. */
static void trace_nothing(const void *object, wn_tracer *tracer) { (void)object, (void)tracer; }
const wn_type wn_ephemeron_type = {.name = "ephemeron",
                                   .size = sizeof(wn_ephemeron),
                                   .flags = WN_TYPE_PINNED | WN_TYPE_EPHEMERON,
                                   .trace = trace_nothing};

bool wn_weak_init(wn_heap *heap) {
    pthread_mutex_init(&heap->weak.lock, NULL);
    return true; /* the table comes with the first weak reference */
}

/* A table that grows to millions of entries must not do so in one go. The new one is taken from the system when the old
 * one is half full and gets its memory a piece at a time, because at first every place that is used in it would be a
 * page fault; entries are moved over a few with each that is added. */
enum { MOVED_PER_ENTRY = 8, DISCARDED = 1 << 20, PREPARED = 64 << 10, PREPARED_EVERY = 64 };

static size_t table_bytes(size_t size) {
    size_t page = wn_os_page_size();
    return (size * sizeof(wn_weak_entry) + page - 1) & ~(page - 1);
}

static wn_weak_entry *make_table(size_t size) { return wn_os_map(table_bytes(size)); }

static void drop_table(wn_weak_entry *t, size_t size) {
    if (t) wn_os_release(t, table_bytes(size));
}

void wn_weak_fini(wn_heap *heap) {
    drop_table(heap->weak.entry, heap->weak.size);
    drop_table(heap->weak.old, heap->weak.old_size);
    drop_table(heap->weak.next, heap->weak.next_size);
    pthread_mutex_destroy(&heap->weak.lock);
}

void wn_weak_lock(wn_heap *heap) {
    if (!pthread_mutex_trylock(&heap->weak.lock)) return;
    __atomic_fetch_add(&heap->weak.wanted, 1, __ATOMIC_RELAXED);
    wn_os_lock_brief(&heap->weak.lock);
    __atomic_fetch_sub(&heap->weak.wanted, 1, __ATOMIC_RELAXED);
}

void wn_weak_give_way(wn_heap *heap) {
    for (int i = 0; i < 1000 && __atomic_load_n(&heap->weak.wanted, __ATOMIC_RELAXED); i++) sched_yield();
}

static void fetch(const wn_weak_entry *table, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        const wn_weak_entry *e = &table[i];
        uint64_t bit;
        if (!e->target || e->target == WN_WEAK_GONE) continue;
        WN_PREFETCH(wn_bit_of(e->target, WN_MARK_TABLE, &bit));
        if (!e->refs) continue;
        WN_PREFETCH(wn_bit_of(e->refs, WN_MARK_TABLE, &bit));
        WN_PREFETCH(&e->refs->next);
    }
}

static size_t lesser(size_t a, size_t b) { return a < b ? a : b; }

void wn_weak_fetch(wn_heap *heap, size_t from, size_t to) {
    const wn_weak_table *t = &heap->weak;
    fetch(t->entry, from, lesser(to, t->size));
}

static size_t hash(const void *p) { return (size_t)(((uintptr_t)p >> WN_GRANULE_SHIFT_) * 0x9E3779B97F4A7C15u >> 20); }

/* Where a target is or would be put. There may be no place that was never used: see wn_weak_moved. */
static wn_weak_entry *place(const wn_weak_table *t, const void *target) {
    wn_weak_entry *gone = NULL;
    size_t i = hash(target) & (t->size - 1);
    for (size_t n = 0; n < t->size; n++, i = (i + 1) & (t->size - 1)) {
        wn_weak_entry *e = &t->entry[i];
        if (e->target == target) return e;
        if (e->target == WN_WEAK_GONE) {
            if (!gone) gone = e;
        } else if (!e->target) {
            return gone ? gone : e;
        }
    }
    return gone;
}

/* The same in the table before it grew; entries that were moved over count as deleted ones. */
static wn_weak_entry *find_old(const wn_weak_table *t, const void *target) {
    size_t i = hash(target) & (t->old_size - 1);
    for (size_t n = 0; n < t->old_size; n++, i = (i + 1) & (t->old_size - 1)) {
        if (i < t->old_at) i = t->old_at; /* all deleted up to there */
        if (t->old[i].target == target) return &t->old[i];
        if (!t->old[i].target) break;
    }
    return NULL;
}

wn_weak_entry *wn_weak_find(wn_heap *heap, const void *target) {
    if (!heap->weak.live) return NULL;
    wn_weak_entry *e = place(&heap->weak, target);
    if (e->target == target) return e;
    return heap->weak.old ? find_old(&heap->weak, target) : NULL;
}

static bool settle(wn_weak_table *t, size_t n) {
    if (!t->old) return true;
    size_t discarded = t->old_at * sizeof(wn_weak_entry) / DISCARDED;
    size_t end = t->walked == t->old ? t->walk_at : t->old_size;
    for (; n && t->old_at < end; n--, t->old_at++) {
        wn_weak_entry *e = &t->old[t->old_at];
        if (!e->target || e->target == WN_WEAK_GONE) continue;
        wn_weak_entry *there = place(t, e->target);
        if (!there->target) t->used++;
        *there = *e;
        t->old_left--;
    }
    if (t->old_at == t->old_size) {
        drop_table(t->old, t->old_size);
        t->old = NULL;
        t->old_left = 0;
        return true;
    }
    /* What is behind goes back at once, so that dropping the table later is short. */
    for (; discarded < t->old_at * sizeof(wn_weak_entry) / DISCARDED; discarded++)
        wn_os_discard((char *)t->old + discarded * DISCARDED, DISCARDED);
    return false;
}

/* Nothing of the old table stays where it is for the sake of a walk: that must begin anew. */
static void lose_walk(wn_weak_table *t) {
    if (!t->walked || t->walked != t->old) return;
    t->walked = NULL;
    t->walks_lost++;
}

bool wn_weak_settle(wn_heap *heap, size_t n) {
    lose_walk(&heap->weak);
    return settle(&heap->weak, n);
}

void wn_weak_walk_reset(wn_heap *heap) {
    wn_os_lock_brief(&heap->weak.lock);
    heap->weak.walked = NULL;
    heap->weak.walks_lost = 0;
    pthread_mutex_unlock(&heap->weak.lock);
}

/* Entries come over into the table until there is no old one; those made from then on may be missed. */
static bool begin_walk(wn_weak_table *t, size_t n) {
    if (!settle(t, 2 * n) || !t->entry) return false;
    t->walked = t->entry;
    t->walk_at = 0;
    return true;
}

static bool walk(wn_weak_table *t, size_t n, void (*visit)(void *context, wn_weak_entry *e), void *context) {
    n <<= lesser(t->walks_lost, 8); /* outrun by a table that grew twice: in longer steps, so that it comes to an end */
    if (!t->walked && !begin_walk(t, n)) return t->entry != NULL;
    size_t size = t->walked == t->old ? t->old_size : t->size, to = lesser(t->walk_at + n, size);
    fetch(t->walked, to, lesser(to + n, size)); /* for the next call */
    for (wn_weak_entry *e = t->walked + t->walk_at; e < t->walked + to; e++)
        if (e->target && e->target != WN_WEAK_GONE) visit(context, e);
    t->walk_at = to;
    if (to == size) t->walked = NULL;
    return to < size;
}

bool wn_weak_walk(wn_heap *heap, size_t n, void (*visit)(void *context, wn_weak_entry *e), void *context) {
    wn_weak_give_way(heap);
    wn_os_lock_brief(&heap->weak.lock);
    bool more = walk(&heap->weak, n, visit, context);
    pthread_mutex_unlock(&heap->weak.lock);
    return more;
}

/* At least half of what it was: in a smaller one there might not be room until all entries have been moved over. */
static size_t size_for(const wn_weak_table *t, size_t live) {
    size_t size = t->size / 2 > 64 ? t->size / 2 : 64;
    while (size < live * 2) size *= 2;
    return size;
}

static void prepare(wn_weak_table *t) {
    if (t->used % PREPARED_EVERY || t->used * 2 < t->size) return;
    if (!t->next) {
        t->next_size = size_for(t, t->live + t->size / 4);
        t->next_ready = 0;
        t->next = make_table(t->next_size);
    }
    size_t left = t->next ? table_bytes(t->next_size) - t->next_ready : 0, part = left < PREPARED ? left : PREPARED;
    if (part) wn_os_populate((char *)t->next + t->next_ready, part);
    t->next_ready += part;
}

static wn_weak_entry *take_prepared(wn_weak_table *t, size_t size) {
    wn_weak_entry *next = t->next;
    t->next = NULL;
    if (next && t->next_size == size) return next;
    drop_table(next, t->next_size);
    return make_table(size);
}

/* Room for so many more. */
static bool has_room(const wn_weak_table *t, size_t more) { return (t->used + t->old_left + more) * 4 <= t->size * 3; }

/* Makes room for all that the old table still holds, and more. A table begins half empty, so there is, unless a walk
 * that stands still, because its thread gets no processor, holds back what has to be moved: then the walk is lost. */
static bool make_room(wn_weak_table *t, size_t more) {
    if (has_room(t, more)) return true;
    lose_walk(t);
    while (!settle(t, 4096)) {
    }
    if (has_room(t, more)) return true; /* more were deleted than were moved */
    size_t size = size_for(t, t->live);
    wn_weak_entry *bigger = take_prepared(t, size);
    if (!bigger) return false;
    t->old = t->entry;
    t->old_size = t->size;
    t->old_at = 0;
    t->old_left = t->live;
    t->entry = bigger;
    t->size = size;
    t->used = 0;
    t->replaced++;
    settle(t, MOVED_PER_ENTRY);
    return true;
}

static wn_weak_entry *enter(wn_heap *heap, void *target) {
    wn_weak_table *t = &heap->weak;
    settle(t, MOVED_PER_ENTRY);
    prepare(t);
    if (!make_room(t, 1)) return NULL;
    wn_weak_entry *e = wn_weak_find(heap, target);
    if (!e) {
        e = place(t, target);
        if (!e->target) t->used++;
        t->live++;
        *e = (wn_weak_entry){.target = target};
        __atomic_fetch_or(&wn_meta_(target)[1], WN_STATE_WEAK_, __ATOMIC_RELAXED);
        __atomic_store_n(&wn_block_of(target)->noted, 1, __ATOMIC_RELAXED);
    }
    return e;
}

static void remove_entry(wn_heap *heap, wn_weak_entry *e) {
    e->target = WN_WEAK_GONE;
    heap->weak.live--;
}

void wn_weak_remove_if_empty(wn_heap *heap, wn_weak_entry *e) {
    if (e->refs || e->ephemerons) return;
    /* Release: who sees the bit gone frees the target without this table's lock, after all that was read of it here. */
    __atomic_fetch_and(&wn_meta_(e->target)[1], (uint8_t)~WN_STATE_WEAK_, __ATOMIC_RELEASE);
    remove_entry(heap, e);
}

/* ---- deaths and moves -------------------------------------------------------------------------------------------- */

/* What finds no place in the vector is chained by the link that the target's death has made free, if it is counted and
 * so lives without being a root, or the collector marks the chain; else its callback does not run. */
static void make_due(mutator *m, wn_weakref *r) {
    if (!m->late_callbacks && wn_vector_push(&m->callbacks, r)) return;
    if (m->heap->collector->id == WN_COLLECTOR_INCREMENTAL) return;
    if (m->late_callbacks)
        m->latest_callback->next = r;
    else
        m->late_callbacks = r;
    m->latest_callback = r;
    __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

/* What is left on a ring is known by a bit that an ephemeron has no other use for. Who counts references down to 0
 * clears the byte before it takes the lock. */
static bool is_left(const wn_ephemeron *p) {
    return __atomic_load_n(&wn_meta_(p)[1], __ATOMIC_RELAXED) & WN_STATE_FINALIZED_;
}

static void add_left(wn_weak_table *t, wn_ephemeron *p) {
    p->next = t->left;
    __atomic_store_n(&t->left, p, __ATOMIC_RELAXED); /* others ask without the lock whether there are any */
}

void wn_weak_entry_died(mutator *m, wn_weak_entry *e, wn_weak_hold_fn *hold, void *context, wn_vector *values) {
    wn_heap *heap = m->heap;
    for (wn_weakref *r = e->refs, *next; r; r = next) {
        next = r->next;
        r->target = NULL;
        r->next = r->prev = NULL;
        if (r->callback && hold(context, r)) make_due(m, r);
    }
    for (wn_ephemeron *p = e->ephemerons, *next; p; p = next) {
        next = p->next == e->ephemerons ? NULL : p->next;
        p->key = NULL;
        p->next = NULL;
        if (is_left(p)) {
            add_left(&heap->weak, p);
            continue;
        }
        /* Without memory for that the pair keeps its value, as it would any reference, until it dies itself. */
        if (p->value && values && !wn_vector_push(values, p->value)) continue;
        p->value = NULL;
        heap->weak.ephemerons--;
    }
    e->refs = NULL;
    e->ephemerons = NULL;
    wn_weak_remove_if_empty(heap, e);
}

void wn_weak_target_died(mutator *m, void *target, wn_weak_hold_fn *hold, void *context, wn_vector *values) {
    wn_weak_lock(m->heap);
    wn_weak_entry *e = wn_weak_find(m->heap, target);
    if (e) wn_weak_entry_died(m, e, hold, context, values);
    wn_weak_unlock(m->heap);
}

void wn_weak_unchain(wn_weak_entry *e, wn_weakref *r) {
    if (r->next) r->next->prev = r->prev;
    *(r->prev ? &r->prev->next : &e->refs) = r->next;
    r->target = NULL;
    r->next = r->prev = NULL;
}

void wn_weak_ref_died(wn_heap *heap, wn_weakref *r) {
    wn_weak_lock(heap);
    wn_weak_entry *e = r->target ? wn_weak_find(heap, r->target) : NULL;
    if (e) {
        wn_weak_unchain(e, r);
        wn_weak_remove_if_empty(heap, e);
    }
    wn_weak_unlock(heap);
}

/* A new one comes where the next death looks first: many are short-lived. */
static void put_on(wn_weak_entry *e, wn_ephemeron *p) {
    if (!e->ephemerons) e->ephemerons = p->next = p;
    p->next = e->ephemerons->next;
    e->ephemerons->next = p;
}

/* The one behind another. */
static wn_ephemeron *take_off(wn_weak_entry *e, wn_ephemeron *before) {
    wn_ephemeron *p = before->next;
    before->next = p->next;
    if (e->ephemerons == p) e->ephemerons = before == p ? NULL : before;
    p->key = NULL;
    p->next = NULL;
    return p;
}

void wn_weak_prune_ring(wn_heap *heap, wn_weak_entry *e, wn_weak_dead_fn *dead, void *context) {
    wn_ephemeron *before = e->ephemerons, *p;
    const wn_ephemeron *last = before;
    if (!last) return;
    do {
        p = before->next;
        if (dead(context, p)) {
            take_off(e, before);
            heap->weak.ephemerons--;
        } else {
            before = p;
        }
    } while (p != last);
}

void wn_weak_pair_died(wn_heap *heap, wn_ephemeron *p, wn_weak_dead_fn *dead, void *context) {
    wn_weak_lock(heap);
    wn_weak_entry *e = p->key ? wn_weak_find(heap, p->key) : NULL;
    if (e) {
        wn_weak_prune_ring(heap, e, dead, context);
        wn_weak_remove_if_empty(heap, e);
    }
    wn_weak_unlock(heap);
}

void *wn_weak_take_value(wn_heap *heap, wn_ephemeron *p) {
    wn_weak_lock(heap);
    void *value = p->value;
    if (value && !p->key) heap->weak.ephemerons--;
    p->value = NULL;
    wn_weak_unlock(heap);
    return value;
}

bool wn_weak_leave_ring(wn_heap *heap, wn_ephemeron *p) {
    enum { LOOKS = 8 };
    wn_weak_lock(heap);
    wn_weak_entry *e = p->key ? wn_weak_find(heap, p->key) : NULL;
    if (e) {
        heap->weak.ephemerons--;
        __atomic_store_n(&wn_meta_(p)[1], WN_STATE_FINALIZED_, __ATOMIC_RELAXED);
        for (unsigned n = 0; n < LOOKS && p->key; n++) {
            wn_ephemeron *before = e->ephemerons, *met = before->next;
            if (!is_left(met))
                e->ephemerons = met;
            else if (take_off(e, before) != p)
                add_left(&heap->weak, met);
        }
        wn_weak_remove_if_empty(heap, e);
    }
    bool is_off = !p->key;
    wn_weak_unlock(heap);
    return is_off;
}

wn_ephemeron *wn_weak_take_left(wn_heap *heap) {
    if (WN_LIKELY(!__atomic_load_n(&heap->weak.left, __ATOMIC_RELAXED))) return NULL;
    wn_weak_lock(heap);
    wn_ephemeron *first = heap->weak.left;
    __atomic_store_n(&heap->weak.left, NULL, __ATOMIC_RELAXED);
    wn_weak_unlock(heap);
    return first;
}

static void moved(wn_heap *heap, void *from, void *to) {
    wn_weak_entry *e = wn_weak_find(heap, from);
    if (!e) return;
    wn_weak_entry moved = *e;
    remove_entry(heap, e);
    if (heap->weak.old && e >= heap->weak.old && e < heap->weak.old + heap->weak.old_size) heap->weak.old_left--;
    wn_weak_entry *there = place(&heap->weak, to);
    if (!there->target) heap->weak.used++;
    heap->weak.live++;
    *there = moved;
    there->target = to;
    for (wn_weakref *r = moved.refs; r; r = r->next) r->target = to;
    WN_EACH_EPHEMERON(there, p) p->key = to;
    __atomic_fetch_or(&wn_meta_(to)[1], WN_STATE_WEAK_, __ATOMIC_RELAXED);
}

/* The places of an object in the table and in the one before it grew; then what the entry found there leads to. */
static void fetch_places(const wn_weak_table *t, const void *o) {
    WN_PREFETCH(&t->entry[hash(o) & (t->size - 1)]);
    if (t->old) WN_PREFETCH(&t->old[hash(o) & (t->old_size - 1)]);
}
static void fetch_chain(wn_heap *heap, const void *o) {
    const wn_weak_entry *e = wn_weak_find(heap, o);
    if (e && e->refs) WN_PREFETCH(&e->refs->target);
}

void wn_weak_moved(wn_heap *heap, void *const *moves, size_t n) {
    enum { NEAR = 8, FAR = 16 };
    if (!n || !heap->weak.live) return;
    wn_weak_lock(heap);
    /* Each leaves a deleted place behind and may take a free one: of as many as came since the last minor there might
     * be more than free ones. Without memory for a larger table they find their places by a longer search. */
    make_room(&heap->weak, n);
    for (size_t i = 0; i < n + FAR; i++) {
        if (i < n) fetch_places(&heap->weak, moves[2 * i]);
        if (i < n) fetch_places(&heap->weak, moves[2 * i + 1]);
        if (i >= NEAR && i - NEAR < n) fetch_chain(heap, moves[2 * (i - NEAR)]);
        if (i >= FAR) moved(heap, moves[2 * (i - FAR)], moves[2 * (i - FAR) + 1]);
    }
    wn_weak_unlock(heap);
}

/* Takes off the next that is due; NULL: none. */
static wn_weakref *next_callback(mutator *m) {
    while (m->callback_at < m->callbacks.n) {
        wn_weakref *r = m->callbacks.at[m->callback_at];
        m->callbacks.at[m->callback_at++] = NULL;
        if (r) return r;
    }
    wn_weakref *late = m->late_callbacks;
    if (!late) return NULL;
    m->late_callbacks = late->next;
    late->next = NULL;
    return late;
}

static void run_callbacks(mutator *m) {
    m->in_callbacks++;
    /* A callback may make others due: they are appended and run in this same loop. */
    for (wn_weakref *next; (next = next_callback(m));) {
        wn_root(&m->fast, wn_weakref *, r, next);
        if (r->callback) r->callback(&m->fast, r, r->data);
    }
    m->callbacks.n = m->callback_at = 0;
    m->in_callbacks--;
}

void wn_run_callbacks(mutator *m) {
    if (!m->in_callbacks && wn_callbacks_are_due(m)) run_callbacks(m);
}

void wn_run_callbacks_first(mutator *m) {
    enum { WITHIN_EACH_OTHER = 64 }; /* as deep as a C stack bears */
    if (m->in_callbacks >= WITHIN_EACH_OTHER || !wn_callbacks_are_due(m)) return;
    m->fast.nested++;
    run_callbacks(m);
    m->fast.nested--;
}

/* ---- the public calls -------------------------------------------------------------------------------------------- */

wn_weakref *wn_weakref_new(wn_mutator *m, void *target, wn_weak_callback callback, void *data) {
    if (!wn_may_use(wn_mutator_of(m), target, "wn_weakref_new")) return NULL;
    wn_heap *heap = wn_heap_of(m);
    wn_borrow(m, void *, t, target);
    wn_weakref *r = wn_new(m, &wn_weakref_type);
    if (!r) return NULL;
    r->callback = callback;
    r->data = data;
    wn_weak_lock(heap);
    wn_weak_entry *e = enter(heap, t);
    if (e) {
        r->target = t;
        r->next = e->refs;
        if (e->refs) e->refs->prev = r;
        e->refs = r;
    }
    wn_weak_unlock(heap);
    if (e) {
        /* Whether its callback runs depends on whether it is garbage itself when its target is: it must be a candidate.
         */
        if (callback && heap->collector->track) heap->collector->track(wn_mutator_of(m), r, true);
        return r;
    }
    wn_release(m, r);
    wn_fail(WN_ERR_MEMORY, "no memory for the table of weak references");
    return NULL;
}

void *wn_weakref_get(wn_mutator *fast, wn_weakref *r) {
    if (!wn_may_use(wn_mutator_of(fast), r, "wn_weakref_get")) return NULL;
    mutator *m = wn_mutator_of(fast);
    wn_weak_lock(m->heap);
    void *target = r->target ? m->heap->collector->weak_get(m, r->target) : NULL;
    wn_weak_unlock(m->heap);
    return target;
}

size_t wn_weakref_count(wn_mutator *m, const void *target) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_weakref_count")) return 0;
    wn_heap *heap = wn_heap_of(m);
    size_t n = 0;
    wn_weak_lock(heap);
    wn_weak_entry *e = wn_weak_find(heap, target);
    for (const wn_weakref *r = e ? e->refs : NULL; r; r = r->next) n++;
    wn_weak_unlock(heap);
    return n;
}

wn_ephemeron *wn_ephemeron_new(wn_mutator *m, void *key, void *value) {
    if (!wn_may_use(wn_mutator_of(m), key, "wn_ephemeron_new")) return NULL;
    wn_heap *heap = wn_heap_of(m);
    if (value && !wn_is_given(wn_mutator_of(m), value, "wn_ephemeron_new")) return NULL;
    wn_borrow(m, void *, k, key);
    wn_borrow(m, void *, v, value);
    wn_ephemeron *p = wn_new(m, &wn_ephemeron_type);
    if (!p) return NULL;
    wn_weak_lock(heap);
    wn_weak_entry *e = enter(heap, k);
    if (e) {
        p->key = k;
        put_on(e, p);
        heap->weak.ephemerons++;
    }
    wn_weak_unlock(heap);
    if (!e) {
        wn_release(m, p);
        wn_fail(WN_ERR_MEMORY, "no memory for the table of ephemerons");
        return NULL;
    }
    /* Through the value, even a key without references can be part of a cycle. */
    if (heap->collector->track) heap->collector->track(wn_mutator_of(m), k, true);
    wn_set(m, p, value, v);
    return p;
}

void *wn_ephemeron_key(wn_mutator *fast, wn_ephemeron *p) {
    if (!wn_may_use(wn_mutator_of(fast), p, "wn_ephemeron_key")) return NULL;
    mutator *m = wn_mutator_of(fast);
    wn_weak_lock(m->heap);
    void *key = p->key ? m->heap->collector->weak_get(m, p->key) : NULL;
    wn_weak_unlock(m->heap);
    return key;
}

void *wn_ephemeron_value(wn_mutator *fast, wn_ephemeron *p) {
    if (!wn_may_use(wn_mutator_of(fast), p, "wn_ephemeron_value")) return NULL;
    mutator *m = wn_mutator_of(fast);
    wn_weak_lock(m->heap);
    /* The key decides: a value may be alive for other reasons when the key is dead already. */
    void *key = p->key ? m->heap->collector->weak_get(m, p->key) : NULL, *value = NULL;
    if (key && p->value) value = m->heap->collector->weak_get(m, p->value);
    wn_weak_unlock(m->heap);
    wn_release(&m->fast, key);
    return value;
}

void wn_ephemeron_set(wn_mutator *m, wn_ephemeron *p, void *value) {
    /* The key is held, or the thread in which it dies could take the value out of the pair meanwhile. */
    void *key = wn_ephemeron_key(m, p);
    if (!key) return;
    wn_set(m, p, value, value);
    wn_release(m, key);
}
