/*
 * generations.c - the cyclic collector: which objects to look at, when, and what to do with what was found.
 *
 * CPython's rules, as the talk tells them: three generations; a young collection when allocations less deallocations
 * of tracked objects exceed the first threshold; an older one when the younger one's collections exceed its own; a full
 * one only when, besides, what has become old since the last exceeds a quarter of what was old then. On unreachable
 * objects PEP 442's order: weak references, finalizers, a second search for what they resurrected, clear, free.
 *
 * The search itself is the engine's (engines/cycles.h). It reads counts and references and writes only side tables.
 */
#include "collectors/refcount/refcount.h"

#include <stdlib.h>
#include <string.h>

/* ---- the young log ----------------------------------------------------------------------------------------------- */

size_t wn_rc_young_count(const mutator *m) {
    const wn_rc_mutator *r = wn_rc_of_mutator(m);
    size_t made = r->net + (size_t)(m->fast.young - r->log_mark);
    return made > r->freed_tracked ? made - r->freed_tracked : 0;
}

void wn_rc_sum_tracked(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    __atomic_fetch_add(&wn_rc_of(m->heap)->tracked, wn_rc_tracked_since(m), __ATOMIC_RELAXED);
    r->log_summed = m->fast.young;
    r->freed_summed = r->freed_tracked;
}

/* The log ends elsewhere, or the counter of deaths starts anew; nothing was logged meanwhile. */
static void log_ends_at(mutator *m, void **end) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    m->fast.young = r->log_summed = end;
    r->freed_summed = r->freed_tracked;
}

size_t wn_rc_tracked_since(const mutator *m) {
    const wn_rc_mutator *r = wn_rc_of_mutator(m);
    return (size_t)(m->fast.young - r->log_summed) - (r->freed_tracked - r->freed_summed);
}

/* What the log names is left to a walk over the heap. Several threads may say so at once, and the world runs. */
static void lose_young(mutator *m) { __atomic_store_n(&wn_rc_of(m->heap)->young_lost, true, __ATOMIC_RELAXED); }

/* Sets the log's end so that the fast path comes back when the count may exceed the threshold. */
static void aim_log(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_rc_sum_tracked(m);
    size_t threshold = __atomic_load_n(&m->heap->threshold[0], __ATOMIC_RELAXED);
    size_t count = wn_rc_young_count(m), used = (size_t)(m->fast.young - r->log);
    /* Near the threshold, deaths would bring it back at every allocation: then it looks again a little later. */
    size_t slack = threshold / 8 < 1 ? 1 : threshold / 8 > 64 ? 64 : threshold / 8;
    size_t more = threshold >= count + slack ? threshold + 1 - count : slack;
    if (more > WN_RC_LOG_MOST) more = WN_RC_LOG_MOST;
    __atomic_store_n(&r->net, count, __ATOMIC_RELAXED);
    r->freed_tracked = 0;
    if (used + more > WN_RC_LOG_MOST) { /* nobody collects: leave them to a walk over the heap */
        lose_young(m);
        used = 0;
    }
    if (used + more > r->log_room) {
        size_t room = used + more + (used + more) / 2;
        void **log = realloc(r->log, room * sizeof *log);
        if (log) {
            r->log = log;
            r->log_room = room;
        } else {
            lose_young(m);
            used = 0;
            if (more > r->log_room) more = r->log_room;
        }
    }
    r->log_mark = r->log + used;
    log_ends_at(m, r->log_mark);
    m->fast.young_end = m->fast.young + more;
}

void wn_rc_young_reset(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_rc_sum_tracked(m);
    r->log_mark = r->log;
    __atomic_store_n(&r->net, 0, __ATOMIC_RELAXED);
    r->freed_tracked = r->compacted = 0;
    log_ends_at(m, r->log);
    aim_log(m);
}

bool wn_rc_young_init(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    r->log_room = 1024;
    r->log = malloc(r->log_room * sizeof *r->log);
    if (!r->log) return false;
    r->log_mark = r->log;
    log_ends_at(m, r->log);
    aim_log(m);
    return true;
}

void wn_rc_young_fini(mutator *m) {
    /* Its young objects go on living without it. */
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    wn_rc_sum_tracked(m);
    if (m->fast.young != r->log) lose_young(m);
    free(r->log);
}

/* A candidate of generation g has exactly TRACKED and g of these bits. */
enum { STATE_MASK = WN_STATE_TRACKED_ | WN_STATE_GENERATION_ | WN_STATE_CANDIDATE_ | WN_STATE_SCRATCH_ };

/* Whether an entry of a log or of `middle` still names a tracked object of a generation. Addresses are reused and huge
 * objects are unmapped, so nothing about it may be taken for granted. */
static bool still_of(wn_heap *heap, const void *object, unsigned generation, const wn_chunk **known) {
    const wn_chunk *c = wn_chunk_of(object);
    if (c != *known) {
        if (!wn_space_object_at(&heap->space, object, true)) return false;
        if (!c->huge) *known = c;
    } else if (!wn_is_allocated(object)) {
        return false;
    }
    const uint8_t *meta = wn_meta_(object);
    return meta[0] && (meta[1] & STATE_MASK) == (WN_STATE_TRACKED_ | generation);
}

/* Takes out of a list what is gone, and second entries for one object; returns how many are left. */
static size_t compact(wn_heap *heap, void **list, size_t n, unsigned generation) {
    const wn_chunk *known = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (still_of(heap, list[i], generation, &known)) {
            wn_meta_(list[i])[1] |= WN_STATE_SCRATCH_;
            list[kept++] = list[i];
        }
    for (size_t i = 0; i < kept; i++) wn_meta_(list[i])[1] &= (uint8_t)~WN_STATE_SCRATCH_;
    return kept;
}

static void compact_log(mutator *m) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    size_t count = wn_rc_young_count(m);
    wn_rc_sum_tracked(m);
    r->compacted = compact(m->heap, r->log, (size_t)(m->fast.young - r->log), 0);
    void **to = r->log + r->compacted;
    r->log_mark = to;
    __atomic_store_n(&r->net, count, __ATOMIC_RELAXED);
    r->freed_tracked = 0;
    log_ends_at(m, to);
}

/* Where young collections are not followed by older ones, the list would grow for ever. The world is stopped. */
static void compact_middle(wn_heap *heap) {
    wn_rc_heap *rc = wn_rc_of(heap);
    if (rc->middle.n < WN_RC_MIDDLE_MOST + 2 * rc->middle_compacted) return;
    rc->middle.n = rc->middle_compacted = compact(heap, rc->middle.at, rc->middle.n, 1);
}

/* Garbage that holds much memory outside the heap: its objects are few, so no count would ever say so. A full search
 * costs as much as the heap is large, however much is outside: that much may be added before the next, and more than a
 * limit leaves room for may not. */
static bool external_is_due(const wn_heap *heap) {
    size_t now = __atomic_load_n(&heap->external_bytes, __ATOMIC_RELAXED);
    size_t before = __atomic_load_n(&wn_rc_of(heap)->external_before, __ATOMIC_RELAXED);
    size_t most = ((size_t)32 << 20) + __atomic_load_n(&heap->space.live_bytes, __ATOMIC_RELAXED);
    if (heap->space.limit && most > heap->space.limit / 2) most = heap->space.limit / 2;
    return now > before && now - before > most;
}

static int due_generation(const wn_heap *heap) {
    const wn_rc_heap *rc = wn_rc_of(heap);
    unsigned t[3];
    wn_get_threshold(heap, t);
    if (external_is_due(heap)) return 2;
    if (rc->count2 > t[2] && rc->long_lived_pending >= rc->long_lived_total / 4) return 2;
    return rc->count1 > t[1] ? 1 : 0;
}

static wn_status collect(mutator *m, int generation, wn_collect_result *result, bool automatic);

static bool may_collect(const mutator *m) {
    return wn_may_collect(m) && __atomic_load_n(&m->heap->threshold[0], __ATOMIC_RELAXED) != WN_NEVER &&
           !wn_rc_of_mutator(m)->collecting;
}

void wn_rc_external(mutator *m) {
    wn_rc_heap *rc = wn_rc_of(m->heap);
    size_t now = __atomic_load_n(&m->heap->external_bytes, __ATOMIC_RELAXED);
    if (now < __atomic_load_n(&rc->external_before, __ATOMIC_RELAXED))
        __atomic_store_n(&rc->external_before, now, __ATOMIC_RELAXED);
    if (external_is_due(m->heap) && may_collect(m)) __atomic_store_n(&m->fast.poll, 1, __ATOMIC_RELAXED);
}

void wn_rc_collect_external(mutator *m) {
    if (!external_is_due(m->heap) || !may_collect(m)) return;
    wn_collect_result result = {0};
    collect(m, 2, &result, true);
}

void wn_rc_young_full(mutator *m) {
    size_t threshold = __atomic_load_n(&m->heap->threshold[0], __ATOMIC_RELAXED);
    if (wn_rc_young_count(m) > threshold && may_collect(m)) {
        wn_collect_result result = {0};
        aim_log(m); /* room for what a listener makes when it hears of the start */
        collect(m, due_generation(m->heap), &result, true);
        return;
    }
    /* The log is full of objects that are gone. To see which, they must stand still: other threads may free them. That
     * is worth a stop of the world only for many. It is worth looking only when the log has doubled: where old objects
     * die as fast as new ones are made, the count stays low and all that is in the log may be alive. */
    const wn_rc_mutator *r = wn_rc_of_mutator(m);
    bool alone = m->fast.mode & WN_MODE_COUNT_, doubled = (size_t)(m->fast.young - r->log) > 2 * r->compacted;
    if (!doubled) {
        aim_log(m);
        return;
    }
    if (alone) {
        compact_log(m);
    } else if ((size_t)(m->fast.young - r->log) > WN_RC_LOG_SHARED) {
        wn_world_stop(m->heap, m);
        compact_log(m);
        wn_world_start(m->heap, m);
    }
    aim_log(m);
}

void wn_rc_log_young(mutator *m, void *object) {
    *m->fast.young++ = object;
    if (m->fast.young == m->fast.young_end) wn_rc_young_full(m);
}

/* ---- the engine's view of this heap ------------------------------------------------------------------------------ */

typedef struct view {
    wn_heap *heap;
    wn_cycles *cycles;
    bool ephemerons; /* there are weak entries: look them up */
    unsigned held;   /* references the collection itself holds to each candidate */
} view;

typedef struct link {
    wn_visit_fn *visit;
    void *arg;
} link_;

static WN_ALWAYS_INLINE void visit_slot(void **slot, void *context) {
    link_ *l = context;
    if (*slot) l->visit(l->arg, *slot);
}

static WN_ALWAYS_INLINE void fetch_count(void *context, void *object, int stage) {
    (void)context;
    if (stage != 0) return;
    WN_PREFETCH(object);
    WN_PREFETCH(wn_meta_(object));
}

static WN_ALWAYS_INLINE size_t count_of(void *context, void *object) {
    view *v = context;
    uint8_t c = *wn_meta_(object);
    if (WN_UNLIKELY(c >= WN_COUNT_BIG_)) {
        size_t n = wn_rc_count_of(v->heap, object);
        return n == WN_IMMORTAL ? WN_CYCLES_ROOT : n - v->held;
    }
    return c - v->held;
}

/* The conditional references of ephemerons. An ephemeron's value counts as referenced while both it and its key are
 * alive; when references are subtracted, once, by the ephemeron if trial deletion looks at it (a candidate not marked
 * from the roots), else by its key. One that could not let go of its value when the key died holds it. */
static WN_NOINLINE void scan_weak(view *v, void *object, wn_visit_fn *visit, void *arg) {
    bool subtracting = visit == wn_cycles_subtract;
    if (wn_type_of(object)->flags & WN_TYPE_EPHEMERON) {
        wn_ephemeron *e = object;
        bool key_alive = !e->key || !(wn_cycles_has(v->cycles, e->key) && wn_cycles_is_garbage(v->cycles, e->key));
        if (e->value && (subtracting || key_alive)) visit(arg, e->value);
    }
    if (!(wn_meta_(object)[1] & WN_STATE_WEAK_)) return;
    wn_weak_entry *entry = wn_weak_find(v->heap, object);
    WN_EACH_EPHEMERON(entry, e) {
        bool by_key = subtracting ? !wn_bits_test(&v->cycles->bits, WN_CYCLES_RANKED, (uintptr_t)e)
                                  : !(wn_cycles_has(v->cycles, e) && wn_cycles_is_garbage(v->cycles, e));
        if (e->value && by_key) visit(arg, e->value);
    }
}

static WN_ALWAYS_INLINE void scan(void *context, void *object, wn_visit_fn *visit, void *arg) {
    view *v = context;
    link_ l = {visit, arg};
    wn_each_ref(object, visit_slot, &l);
    if (WN_UNLIKELY(v->ephemerons)) scan_weak(v, object, visit, arg);
}

static void claim_root(void **slot, void *context) {
    wn_cycles *c = context;
    if (*slot && wn_cycles_claim(c, *slot)) wn_mark_push(&c->marker, *slot);
}

/* Finds the garbage among the candidates. `from_roots`: what they reach is marked first, ephemerons and all. */
static bool search(view *v, bool from_roots) {
    wn_cycles *c = v->cycles;
    v->ephemerons = v->heap->weak.ephemerons != 0;
    wn_cycles_begin(c);
    if (from_roots) {
        wn_each_root(v->heap, claim_root, c);
        for (size_t i = 0; i < v->heap->immortals.n; i++) claim_root(&v->heap->immortals.at[i], c);
        wn_cycles_mark(c, wn_fetch_head, scan, v);
    }
    return wn_cycles_search(c, count_of, NULL, fetch_count, scan, v);
}

/* ---- one collection ---------------------------------------------------------------------------------------------- */

/* Moves valid, distinct entries to the front of `list` and makes them candidates; returns how many. */
static size_t gather(wn_heap *heap, void **list, size_t n, unsigned generation) {
    const wn_chunk *known = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (still_of(heap, list[i], generation, &known)) {
            wn_meta_(list[i])[1] |= WN_STATE_CANDIDATE_ | WN_STATE_SCRATCH_;
            list[kept++] = list[i];
        }
    return kept;
}

/* Calls each(context, object) for the entries that gather() left in the logs and, from generation 1 on, in `middle`. */
static WN_ALWAYS_INLINE void each_gathered(wn_heap *heap, size_t middle, void (*each)(void *context, void *object),
                                           void *context) {
    for (mutator *m = heap->mutators; m; m = m->next)
        for (void **at = wn_rc_of_mutator(m)->log; at < m->fast.young; at++) each(context, *at);
    for (size_t i = 0; i < middle; i++) each(context, wn_rc_of(heap)->middle.at[i]);
}

/* An immutable object all of whose values are untracked cannot be part of a cycle. One with a reference that is still
 * NULL is not filled yet; nor, maybe, is one that shows no reference at all, because an array gets its length only
 * after the collection that its birth starts, and one whose references a trace function shows may show more later. */
typedef struct values {
    bool some, tracked;
} values;
static void note_value(void **slot, void *context) {
    values *v = context;
    v->some = true;
    if (!*slot || (wn_meta_(*slot)[1] & WN_STATE_TRACKED_)) v->tracked = true;
}
static WN_NOINLINE bool holds_only_untracked(void *object) {
    if (wn_type_of(object)->trace) return false;
    if (wn_meta_(object)[1] & WN_STATE_WEAK_)
        return false; /* an ephemeron's key may be part of a cycle through its value */
    values v = {false, false};
    wn_each_ref(object, note_value, &v);
    return v.some && !v.tracked;
}
/* All that a young collection keeps is asked, and few types are immutable. */
static WN_ALWAYS_INLINE bool can_untrack(void *object) {
    return WN_UNLIKELY(wn_type_of(object)->flags & WN_TYPE_IMMUTABLE) && holds_only_untracked(object);
}
static void untrack(wn_heap *heap, void *object) {
    uint8_t *state = &wn_meta_(object)[1];
    *state = (uint8_t)((*state & ~(WN_STATE_TRACKED_ | WN_STATE_GENERATION_)) | 2);
    __atomic_fetch_sub(&wn_rc_of(heap)->tracked, 1, __ATOMIC_RELAXED);
}

/* Values of immutable objects may have become tracked after those were no longer: a full collection must look at them
 * all the same. They become candidates and, when it is over, are untracked again if they still can be. */
static void track_anew(wn_heap *heap) {
    wn_rc_heap *rc = wn_rc_of(heap);
    rc->track_anew = false;
    WN_EACH_BLOCK(&heap->space, chunk, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            uint8_t *meta = wn_meta_(o);
            enum { MASK = WN_STATE_TRACKED_ | WN_STATE_GENERATION_ | WN_STATE_SCRATCH_ };
            if (!meta[0] || (meta[1] & MASK) != 2) continue;
            if (!wn_vector_push(&rc->anew, o)) {
                rc->track_anew = true; /* next time */
                continue;
            }
            meta[1] |= WN_STATE_TRACKED_;
        }
    }
    __atomic_fetch_add(&rc->tracked, rc->anew.n, __ATOMIC_RELAXED);
}

/* Garbage is known by its scratch bit. Returns how many are untracked. */
static size_t untrack_again(wn_heap *heap) {
    wn_vector *anew = &wn_rc_of(heap)->anew;
    size_t n = 0;
    for (size_t i = 0; i < anew->n; i++) {
        if ((wn_meta_(anew->at[i])[1] & WN_STATE_SCRATCH_) || !can_untrack(anew->at[i])) continue;
        untrack(heap, anew->at[i]);
        n++;
    }
    wn_vector_free(anew);
    return n;
}

/* Ages what survived out of a list that gather() made; garbage still has its scratch bit. */
static void age(wn_heap *heap, void **list, size_t n, unsigned to, bool into_middle) {
    wn_rc_heap *rc = wn_rc_of(heap);
    for (size_t i = 0; i < n; i++) {
        uint8_t *state = &wn_meta_(list[i])[1];
        *state &= (uint8_t)~WN_STATE_CANDIDATE_;
        if (*state & WN_STATE_SCRATCH_) continue;
        unsigned g = to;
        if (can_untrack(list[i])) {
            untrack(heap, list[i]);
            continue;
        }
        if (into_middle && !wn_vector_push(&rc->middle, list[i])) g = 2; /* the old ones need no list */
        *state = (uint8_t)((*state & ~WN_STATE_GENERATION_) | g);
        if (g == 2) rc->long_lived_pending++;
    }
}

/* The garbage, and what kinds of care it needs. */
typedef struct finds {
    wn_vector objects;
    size_t bytes;
    bool no_clear; /* some may not be cleared */
    bool care;     /* some have finalizers due or clear hooks */
    bool weak;     /* some are known to weak references or ephemerons */
} finds;

static bool has_finalizer_due(const void *object) {
    return wn_type_of(object)->finalize && !(wn_meta_(object)[1] & WN_STATE_FINALIZED_);
}

/* Adds one object to the garbage; room was made. It becomes old, so that what a finalizer brings back has a generation,
 * and keeps or gets its scratch bit until it is decided what becomes of it. */
static WN_ALWAYS_INLINE void add_garbage(finds *f, void *o) {
    f->objects.at[f->objects.n++] = o;
    uint8_t *state = &wn_meta_(o)[1];
    *state = (uint8_t)((*state & ~WN_STATE_GENERATION_) | 2 | WN_STATE_SCRATCH_);
    const wn_type *t = wn_type_of(o);
    f->bytes += wn_bytes_of(o);
    f->no_clear |= (t->flags & WN_TYPE_NO_CLEAR) != 0;
    f->care |= t->clear || has_finalizer_due(o);
    f->weak |= (*state & WN_STATE_WEAK_) != 0;
}

static bool list_garbage(view *v, finds *f) {
    wn_cycles *c = v->cycles;
    if (!c->garbage) return true;
    if (!wn_vector_reserve(&f->objects, c->garbage)) return false;
    wn_bits_cursor cursor;
    wn_bits_walk(&c->bits, &cursor);
    for (void *o; (o = wn_bits_next(&cursor, WN_CYCLES_UNMARKED));) add_garbage(f, o);
    return true;
}

static void push_candidate(void *context, void *object) {
    wn_vector *v = context;
    v->at[v->n++] = object;
}

/* Trial deletion in place: for young candidates, when no ephemeron makes a reference conditional. */
static bool find_young(wn_heap *heap, size_t n, size_t middle, finds *f) {
    wn_rc_heap *rc = wn_rc_of(heap);
    rc->candidates.n = 0;
    if (!wn_vector_reserve(&rc->candidates, n)) return false;
    each_gathered(heap, middle, push_candidate, &rc->candidates);
    if (!wn_rc_search_young(rc->candidates.at, n, &rc->reached)) return false;
    for (size_t i = 0; i < n; i++) {
        void *o = rc->candidates.at[i];
        if (!(wn_meta_(o)[1] & WN_STATE_SCRATCH_)) continue;
        if (!f->objects.n && !wn_vector_reserve(&f->objects, n - i)) return false;
        add_garbage(f, o);
    }
    return true;
}

static void clear_scratch(void *context, void *object) {
    (void)context;
    wn_meta_(object)[1] &= (uint8_t)~WN_STATE_SCRATCH_;
}
static void add_candidate(void *context, void *object) {
    clear_scratch(NULL, object); /* the search has bits of its own */
    wn_cycles_add(context, object);
}

static void set_scratch(const wn_vector *v, bool on) {
    for (size_t i = 0; i < v->n; i++) {
        uint8_t *state = &wn_meta_(v->at[i])[1];
        *state = (uint8_t)(on ? *state | WN_STATE_SCRATCH_ : *state & ~WN_STATE_SCRATCH_);
    }
}

/* Walks from objects of a garbage list within it; what is reached loses its scratch bit and goes to `reached`. */
typedef struct flood {
    wn_vector *reached;
    bool failed;
} flood;
static void flood_visit(void **slot, void *context) {
    flood *f = context;
    if (!*slot) return;
    uint8_t *state = &wn_meta_(*slot)[1];
    if (!(*state & WN_STATE_SCRATCH_)) return;
    *state &= (uint8_t)~WN_STATE_SCRATCH_;
    if (!wn_vector_push(f->reached, *slot)) f->failed = true;
}

/* Takes out of the garbage what WN_TYPE_NO_CLEAR forbids to free, and all it reaches. */
static void keep_uncollectable(mutator *m, wn_vector *garbage, wn_collect_result *result) {
    wn_vector kept = {0};
    flood f = {&kept, false};
    for (size_t i = 0; i < garbage->n; i++)
        if (wn_type_of(garbage->at[i])->flags & WN_TYPE_NO_CLEAR) {
            flood_visit(&garbage->at[i], &f);
            if (wn_vector_push(&m->heap->garbage, garbage->at[i])) wn_count_up_(&m->fast, garbage->at[i]);
        }
    for (size_t i = 0; i < kept.n; i++) wn_each_ref(kept.at[i], flood_visit, &f);
    for (size_t i = 0; i < kept.n; i++) result->freed_bytes -= wn_bytes_of(kept.at[i]);
    result->uncollectable += kept.n;
    size_t n = 0;
    for (size_t i = 0; i < garbage->n; i++)
        if (wn_meta_(garbage->at[i])[1] & WN_STATE_SCRATCH_) garbage->at[n++] = garbage->at[i];
    if (f.failed) { /* without memory to know, keep all */
        set_scratch(garbage, false);
        n = result->freed_bytes = 0;
    }
    garbage->n = n;
    wn_vector_free(&kept);
}

/* With the world stopped, and garbage known by its scratch bit: nothing weak leads to it from now on. */
static void clear_weak(mutator *m, const wn_vector *garbage) {
    for (size_t i = 0; i < garbage->n; i++)
        if (wn_meta_(garbage->at[i])[1] & WN_STATE_WEAK_)
            wn_weak_target_died(m, garbage->at[i], wn_rc_hold, m, &wn_rc_of_mutator(m)->values);
}

/* With the option save_all: the garbage goes on the list of the program's instead. The world is stopped. */
static void save(mutator *m, const wn_vector *garbage) {
    for (size_t i = 0; i < garbage->n && m->heap->options.save_all; i++)
        if (wn_vector_push(&m->heap->garbage, garbage->at[i])) wn_rc_count_up(m, garbage->at[i]);
}

/* Finalizers and what must be asked again after them. The world runs on entry and on return; garbage that came back to
 * life is taken off the list and out of the result. Every object of the list carries one reference of ours meanwhile.
 */
static void finalize_all(mutator *m, wn_vector *garbage, wn_collect_result *result) {
    wn_heap *heap = m->heap;
    wn_rc_heap *rc = wn_rc_of(heap);
    m->fast.nested++;
    for (size_t i = 0; i < garbage->n; i++) {
        void *o = garbage->at[i];
        if (!has_finalizer_due(o)) continue;
        __atomic_fetch_or(&wn_meta_(o)[1], WN_STATE_FINALIZED_, __ATOMIC_RELAXED);
        wn_type_of(o)->finalize(&m->fast, o);
    }
    m->fast.nested--;
    uint64_t start = wn_os_now();
    wn_world_stop(heap, m);
    wn_cycles_reset(&rc->cycles);
    for (size_t i = 0; i < garbage->n; i++) wn_cycles_add(&rc->cycles, garbage->at[i]);
    view v = {.heap = heap, .cycles = &rc->cycles, .held = 1};
    bool found = search(&v, false);
    size_t n = 0, alive = 0;
    for (size_t i = 0; i < garbage->n; i++) {
        void *o = garbage->at[i];
        if (found && wn_cycles_is_garbage(&rc->cycles, o)) {
            garbage->at[i] = garbage->at[n];
            garbage->at[n++] = o;
        } else {
            result->freed_bytes -= wn_bytes_of(o);
            alive++;
        }
    }
    garbage->n = result->collected = n;
    set_scratch(garbage, true);
    clear_weak(m, garbage); /* made by a finalizer, or by another thread that one showed an object */
    set_scratch(garbage, false);
    for (size_t i = 0; i < n && !heap->options.save_all; i++) /* what they watch may die before they are taken apart */
        if (wn_type_of(garbage->at[i])->flags & WN_TYPE_WEAKREF) ((wn_weakref *)garbage->at[i])->callback = NULL;
    save(m, garbage);
    wn_world_start(heap, m);
    wn_note_pause(heap, wn_os_now() - start);
    wn_rc_release_values(m);
    /* The survivors, now behind the others, lose our reference. */
    for (size_t i = n; i < n + alive; i++) wn_count_down_(&m->fast, garbage->at[i]);
}

static void clear_all(mutator *m, const wn_vector *garbage) {
    m->fast.nested++;
    for (size_t i = 0; i < garbage->n; i++) {
        const wn_type *t = wn_type_of(garbage->at[i]);
        if (t->clear) t->clear(&m->fast, garbage->at[i]);
    }
    m->fast.nested--;
}

/* Hands the list to the slices of reclaim.c: all at once when the program asked for the collection. */
static void condemn(mutator *m, wn_vector *garbage, bool at_once) {
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    while (r->condemned.objects.n) { /* one batch at a time */
        bool was = r->reclaiming;
        r->reclaiming = false;
        wn_rc_reclaim(m, (size_t)-1);
        r->reclaiming = was;
        if (was) break;
    }
    for (size_t i = 0; i < garbage->n; i++) {
        uint8_t *state = &wn_meta_(garbage->at[i])[1];
        wn_rc_note_end(m, *state);
        __atomic_fetch_or(state, WN_STATE_SCRATCH_, __ATOMIC_RELAXED);
    }
    wn_vector empty = r->condemned.objects;
    r->condemned.objects = *garbage;
    *garbage = empty;
    garbage->n = 0;
    if (at_once)
        wn_rc_reclaim(m, (size_t)-1);
    else
        wn_rc_reclaim_slice(m);
}

static void dispose(mutator *m, wn_vector *garbage, bool care, bool at_once, wn_collect_result *result) {
    if (care) {
        if (m->in_callbacks)
            wn_run_callbacks_first(m);
        else
            wn_run_callbacks(m);
        finalize_all(m, garbage, result);
        if (!m->heap->options.save_all) clear_all(m, garbage);
    }
    if (m->heap->options.save_all)
        for (size_t i = 0; i < garbage->n; i++) wn_count_down_(&m->fast, garbage->at[i]);
    else
        condemn(m, garbage, at_once);
}

/* The candidates of a full collection: every tracked object that is not frozen. */
static void gather_all(wn_heap *heap, wn_cycles *c) {
    WN_EACH_BLOCK(&heap->space, chunk, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            const uint8_t *meta = wn_meta_(o);
            if (!meta[0] || !(meta[1] & WN_STATE_TRACKED_) || (meta[1] & WN_STATE_GENERATION_) == 3) continue;
            if (meta[1] & (WN_STATE_CANDIDATE_ | WN_STATE_SCRATCH_)) continue; /* gathered already, or condemned */
            wn_cycles_add(c, o);
        }
    }
}

static void add_unreached(void *context, void *object) { wn_cycles_add(context, object); }

/* A full collection's search. Most of a heap is alive and reachable from roots, so that is found first: in the heap's
 * own mark table, or, where ephemerons make references conditional, with the search's bitmaps. `*candidates` is how
 * many objects were looked at. */
static bool search_all(wn_heap *heap, view *v, size_t middle, size_t *candidates) {
    wn_cycles *c = v->cycles;
    if (heap->weak.ephemerons) {
        each_gathered(heap, middle, add_candidate, c);
        gather_all(heap, c);
        *candidates = wn_bits_count(&c->bits, WN_CYCLES_ALL);
        return !c->failed && search(v, true);
    }
    each_gathered(heap, middle, clear_scratch, NULL);
    *candidates = wn_rc_full_begin(heap);
    bool ok = wn_rc_full_mark(heap, &c->marker);
    wn_rc_full_end(heap, ok ? add_unreached : NULL, c);
    return ok && !c->failed && search(v, false);
}

/* A lost log: its objects are found by walking, and count as middle-aged from now on. */
static void find_lost_young(wn_heap *heap) {
    wn_rc_heap *rc = wn_rc_of(heap);
    WN_EACH_BLOCK(&heap->space, chunk, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            uint8_t *meta = wn_meta_(o);
            if (!meta[0] || (meta[1] & STATE_MASK) != WN_STATE_TRACKED_) continue;
            bool listed = wn_vector_push(&rc->middle, o);
            meta[1] = (uint8_t)(meta[1] | (listed ? 1 : 2));
        }
    }
    for (mutator *m = heap->mutators; m; m = m->next) {
        wn_rc_sum_tracked(m);
        log_ends_at(m, wn_rc_of_mutator(m)->log);
    }
    rc->young_lost = false;
}

/* The world runs, but nobody can stop it for a search before this is over: there is no safepoint in it. */
static void trim_search(wn_rc_heap *rc) {
    if (__atomic_exchange_n(&rc->trimming, true, __ATOMIC_ACQUIRE)) return; /* another thread does it */
    wn_cycles_trim(&rc->cycles);
    wn_vector_free(&rc->candidates);
    wn_vector_free(&rc->reached);
    __atomic_store_n(&rc->trimming, false, __ATOMIC_RELEASE);
}

static size_t live_bytes(const wn_heap *heap) { return __atomic_load_n(&heap->space.live_bytes, __ATOMIC_RELAXED); }

void wn_rc_set_counts(wn_rc_heap *rc, unsigned count1, unsigned count2) {
    __atomic_store_n(&rc->count1, count1, __ATOMIC_RELAXED);
    __atomic_store_n(&rc->count2, count2, __ATOMIC_RELAXED);
}

static wn_status collect(mutator *m, int generation, wn_collect_result *result, bool automatic) {
    wn_heap *heap = m->heap;
    wn_rc_heap *rc = wn_rc_of(heap);
    wn_verify_at(m, "before");
    wn_event event = {.kind = WN_EVENT_COLLECT_START, .generation = generation, .bytes_before = live_bytes(heap)};
    m->fast.nested++; /* a listener may allocate, but not collect again */
    wn_tell(m, &event);
    m->fast.nested--;
    wn_rc_of_mutator(m)->collecting++;
    uint64_t start = wn_os_now();
    wn_world_stop(heap, m);
    if (rc->young_lost) find_lost_young(heap);
    if (generation == 2 && rc->track_anew) track_anew(heap);
    wn_cycles *c = &rc->cycles;

    size_t n = 0;
    for (mutator *each = heap->mutators; each; each = each->next) {
        wn_rc_mutator *r = wn_rc_of_mutator(each);
        wn_rc_sum_tracked(each);
        size_t kept = gather(heap, r->log, (size_t)(each->fast.young - r->log), 0);
        log_ends_at(each, r->log + kept);
        n += kept;
    }
    size_t middle = generation >= 1 ? gather(heap, rc->middle.at, rc->middle.n, 1) : 0;
    finds found = {0};
    bool ok;
    size_t candidates = n + middle;
    if (generation < 2 && !heap->weak.ephemerons) {
        ok = find_young(heap, candidates, middle, &found);
    } else {
        view v = {.heap = heap, .cycles = c};
        wn_cycles_reset(c);
        if (generation == 2) {
            wn_space_let_held(&heap->space);
            ok = search_all(heap, &v, middle, &candidates);
        } else {
            each_gathered(heap, middle, add_candidate, c);
            ok = !c->failed && search(&v, false);
        }
        ok = ok && list_garbage(&v, &found);
    }
    if (!ok) { /* nothing is garbage */
        each_gathered(heap, middle, clear_scratch, NULL);
        found.objects.n = 0;
    }
    if (rc->anew.n) {
        if (!ok) rc->track_anew = true;
        candidates -= untrack_again(heap);
    }
    wn_vector garbage = found.objects;

    /* What survives grows older. */
    if (generation >= 1) {
        wn_vector aged = rc->middle;
        rc->middle = (wn_vector){0};
        age(heap, aged.at, middle, 2, false);
        rc->middle = aged;
        rc->middle.n = rc->middle_compacted = 0;
    } else {
        compact_middle(heap);
    }
    for (mutator *each = heap->mutators; each; each = each->next) {
        wn_rc_mutator *r = wn_rc_of_mutator(each);
        age(heap, r->log, (size_t)(each->fast.young - r->log), generation == 0 ? 1 : 2, generation == 0);
        wn_rc_young_reset(each);
    }
    if (generation == 2) {
        rc->long_lived_pending = 0;
        wn_rc_set_counts(rc, 0, 0);
    } else if (generation == 1) {
        wn_rc_set_counts(rc, 0, rc->count2 + 1);
    } else {
        wn_rc_set_counts(rc, rc->count1 + 1, rc->count2);
    }
    if (generation == 2 && ok) rc->long_lived_total = candidates - garbage.n;
    bool care = false;
    if (ok && garbage.n) {
        result->freed_bytes = found.bytes;
        if (found.no_clear) keep_uncollectable(m, &garbage, result);
        result->collected = garbage.n;
        if (found.weak) clear_weak(m, &garbage);
        care = found.care || wn_callbacks_are_due(m) || wn_rc_of_mutator(m)->values.n;
        if (care || heap->options.save_all) {
            set_scratch(&garbage, false);
            for (size_t i = 0; i < garbage.n; i++) wn_rc_count_up(m, garbage.at[i]); /* ours, until it is decided */
        }
        if (!care) save(m, &garbage); /* else when it is known what finalizers leave */
    }
    wn_world_start(heap, m);
    wn_note_pause(heap, wn_os_now() - start);
    if (!ok) wn_fail(WN_ERR_MEMORY, "no memory to search for cycles; nothing was freed");

    /* What ephemerons let go of, before anybody asks again who is alive; those that are garbage we hold ourselves. */
    wn_rc_release_values(m);
    if (garbage.n) dispose(m, &garbage, care, !automatic, result);
    wn_vector_free(&garbage);
    wn_rc_of_mutator(m)->collecting--;

    if (generation == 2) {
        trim_search(rc);
        wn_space_hold(&heap->space);
        size_t external = __atomic_load_n(&heap->external_bytes, __ATOMIC_RELAXED);
        __atomic_store_n(&rc->external_before, external, __ATOMIC_RELAXED);
    }
    if (heap->options.save_all) result->freed_bytes = 0;
    result->duration_ns = wn_os_now() - start;
    pthread_mutex_lock(&heap->stats_lock);
    wn_generation_stats *g = &heap->stats.generation[generation];
    g->collections++;
    g->collected += result->collected;
    g->uncollectable += result->uncollectable;
    uint64_t number = ++heap->stats.collections;
    pthread_mutex_unlock(&heap->stats_lock);
    event.kind = WN_EVENT_COLLECT_STOP;
    event.result = *result;
    event.bytes_after = live_bytes(heap);
    if (heap->options.trace)
        wn_trace_collection(heap, number, start + result->duration_ns,
                            "heap %.1f -> %.1f MiB, generation %d, freed %zu, uncollectable %zu; %.3f ms",
                            wn_mib(event.bytes_before), wn_mib(event.bytes_after), generation, result->collected,
                            result->uncollectable, (double)result->duration_ns / 1e6);
    m->fast.nested++;
    wn_tell(m, &event);
    m->fast.nested--;
    wn_verify_at(m, "after");
    return ok ? WN_OK : WN_ERR_MEMORY;
}

/* Takes over what other mutators still have to take apart, as far as it fits: a thread that sleeps would keep it, and
 * all it refers to, until it wakes. */
static bool take_over_work(mutator *m) {
    wn_rc_mutator *mine = wn_rc_of_mutator(m);
    wn_world_stop(m->heap, m);
    for (mutator *each = m->heap->mutators; each; each = each->next)
        if (each != m) wn_rc_take_over(mine, wn_rc_of_mutator(each));
    wn_rc_adopt(m);
    wn_world_start(m->heap, m);
    return wn_rc_has_work(m);
}

/* Takes apart all that waits, whoever it waits for: what it refers to may be garbage only then. */
static void finish_reclaiming(mutator *m, bool everybodys) {
    if (wn_rc_of_mutator(m)->reclaiming) return; /* asked for from within it */
    do {
        while (wn_rc_has_work(m)) wn_rc_reclaim(m, (size_t)-1);
        wn_run_callbacks(m);
    } while (wn_rc_has_work(m) || (everybodys && take_over_work(m)));
}

wn_status wn_rc_collect(mutator *m, int generation, wn_collect_result *result) {
    wn_collect_result ignored = {0};
    /* Young ones alone, which keep the automatic ones away, would leave what has grown old for ever. */
    if (generation == WN_DUE) generation = due_generation(m->heap);
    finish_reclaiming(m, generation == 2);
    wn_status s = collect(m, generation, result ? result : &ignored, false);
    finish_reclaiming(m, generation == 2);
    return s;
}

void wn_rc_thresholds_changed(wn_heap *heap) {
    for (mutator *m = heap->mutators; m; m = m->next) aim_log(m);
}
