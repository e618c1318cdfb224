/*
 * mark.c - the tracing itself: workers beside the program, and the program's threads when they have to help.
 *
 * Invariant: whoever may hold work is counted in `busy`, so that under cc->lock `busy == 0` and empty lists mean that
 * nothing is left but what running threads have shaded and not handed over.
 *
 * References are read with acquire loads, because the program writes them at the same time: what is reachable through a
 * reference was filled in before the reference was stored.
 */
#include "collectors/concurrent/concurrent.h"
#include "engines/slice.h"

#include <string.h>

enum { FIRST_SLICES = (256 << 10) / sizeof(wn_cc_slice) };

/* A drain: the walk, and what it found besides; an array's references count as work too. A local variable whose parts
 * are in registers, because only inlined functions see it. */
typedef struct tracing {
    wn_cc *cc;
    wn_mark_walk walk;
    size_t slice; /* references of an array scanned at a time; those of more than two wait for whoever has time */
    size_t array_refs;
    size_t sliced; /* how many of them were in slices */
} tracing;

static void found_hidden(wn_cc *cc, void *o);

/* True when the object was white and has to be scanned. */
static WN_ALWAYS_INLINE bool claim(wn_cc *cc, void *o) {
    if (!wn_cc_claim(o)) return false;
    if (WN_UNLIKELY(__atomic_load_n(&cc->hidden, __ATOMIC_RELAXED))) found_hidden(cc, o);
    return wn_block_of(o)->kind != WN_CC_LEAF;
}

/* In a drain. */
static WN_ALWAYS_INLINE void visit(void *arg, void *o) {
    tracing *t = arg;
    if (o && claim(t->cc, o)) wn_mark_reach(&t->walk, o);
}
/* Outside of one. */
static void push(wn_cc *cc, wn_marker *marker, void *o) {
    if (o && claim(cc, o)) wn_mark_push(marker, o);
}

static WN_ALWAYS_INLINE void visit_slot(void **slot, void *context) {
    visit(context, __atomic_load_n(slot, __ATOMIC_ACQUIRE));
}
static void visit_traced_slot(void **slot, void *context) { visit_slot(slot, context); }

/* For slices. Not malloc's, for the reason given at make_room in sweep.c. With cc->lock. */
static void more_room(wn_cc *cc) {
    size_t room = cc->slice_room ? 2 * cc->slice_room : FIRST_SLICES;
    wn_cc_slice *bigger = wn_os_map(room * sizeof *bigger);
    if (!bigger) return;
    if (cc->slices) {
        memcpy(bigger, cc->slices, cc->slice_count * sizeof *bigger);
        wn_os_release(cc->slices, cc->slice_room * sizeof *bigger);
    }
    cc->slices = bigger;
    cc->slice_room = room;
}

static void add_slice(wn_cc *cc, void *object, size_t next) {
    wn_os_lock_brief(&cc->lock);
    if (cc->slice_count == cc->slice_room) more_room(cc);
    if (cc->slice_count < cc->slice_room) {
        cc->slices[cc->slice_count] = (wn_cc_slice){object, next};
        __atomic_store_n(&cc->slice_count, cc->slice_count + 1, __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&cc->lock);
}

/* What scan_rest gives back to a walk. */
typedef struct rest {
    void *next;
    size_t array_refs;
} rest;

/* References of a variable part, or of a client's own tracing function. */
static WN_NOINLINE rest scan_rest(wn_cc *cc, wn_marker *marker, void *o, const wn_type *type, void *next,
                                  size_t slice) {
    tracing t = {cc, {.marker = marker, .here = (uintptr_t)o, .next = next}, slice, 0, 0};
    if (type->item_refs) {
        size_t n = wn_length_of(o, type);
        if (n > 2 * slice) {
            add_slice(cc, o, 0);
        } else {
            wn_each_item_ref(o, type, 0, n, visit_slot, &t);
            t.array_refs += n;
        }
    }
    if (type->trace) {
        struct wn_tracer tracer = {visit_traced_slot, &t};
        type->trace(o, &tracer);
    }
    return (rest){t.walk.next, t.array_refs};
}

static WN_ALWAYS_INLINE void scan(void *context, void *entry, wn_visit_fn *visit_ref, void *arg) {
    tracing *t = context;
    const wn_type *type = wn_type_of(entry);
    for (uint64_t map = type->refs; map; map &= map - 1)
        visit_ref(arg, __atomic_load_n((void **)entry + __builtin_ctzll(map), __ATOMIC_ACQUIRE));
    if (WN_UNLIKELY(type->item_refs | (uintptr_t)type->trace)) {
        rest r = scan_rest(t->cc, t->walk.marker, entry, type, t->walk.next, t->slice);
        t->walk.next = r.next;
        t->array_refs += r.array_refs;
    }
}

/* An item of a long array. */
static WN_ALWAYS_INLINE void visit_item(void **slot, void *context) {
    tracing *t = context;
    void *o = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (!o || !claim(t->cc, o)) return;
    void *due = wn_mark_feed(&t->walk, o, wn_fetch_head, t);
    if (due) scan(t, due, visit, t);
}

/* A slice of a long array, for a caller that is counted as busy: once it is on no list nobody else sees that work. */
static WN_NOINLINE void *take_slice(wn_cc *cc, size_t most, size_t *from, size_t *to) {
    wn_cc_slice slice = {NULL, 0};
    if (!__atomic_load_n(&cc->slice_count, __ATOMIC_RELAXED)) return NULL;
    wn_os_lock_brief(&cc->lock);
    if (cc->slice_count) {
        slice = cc->slices[cc->slice_count - 1];
        __atomic_store_n(&cc->slice_count, cc->slice_count - 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&cc->lock);
    if (!slice.object) return NULL;
    size_t n = wn_length_of(slice.object, wn_type_of(slice.object));
    *from = slice.next;
    *to = slice.next + most < n ? slice.next + most : n;
    if (*to < n) add_slice(cc, slice.object, *to); /* first, so that others can go on with the rest meanwhile */
    return slice.object;
}

/* All of them lie in one block: its kind is that of all. */
static WN_ALWAYS_INLINE uint64_t claim_run(void *context, void *first, uint64_t bits) {
    tracing *t = context;
    uint64_t bit, *word = wn_bit_of(first, WN_MARK_TABLE, &bit);
    bits &= ~__atomic_load_n(word, __ATOMIC_RELAXED);
    if (bits) bits &= ~__atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
    if (WN_UNLIKELY(__atomic_load_n(&t->cc->hidden, __ATOMIC_RELAXED)))
        for (uint64_t map = bits; map; map &= map - 1)
            found_hidden(t->cc, wn_span_of(first) + ((size_t)__builtin_ctzll(map) << WN_GRANULE_SHIFT_));
    return wn_block_of(first)->kind != WN_CC_LEAF ? bits : 0;
}

/* Not inlined, for the sake of the registers of both loops. */
static WN_NOINLINE void scan_slice(tracing *other, void *array, size_t from, size_t to) {
    tracing t = *other;
    wn_mark_slice(&t.walk, array, from, to, claim_run, wn_fetch_head, scan, visit, visit_item, &t);
    *other = t;
}

static WN_ALWAYS_INLINE size_t scan_some_slice(void *context) {
    tracing *t = context, copy = *t;
    size_t from, to;
    void *array = take_slice(t->cc, t->slice, &from, &to);
    if (!array) return 0;
    scan_slice(&copy, array, from, to);
    t->walk = copy.walk;
    t->array_refs = copy.array_refs + (to - from);
    t->sliced += to - from;
    return to - from;
}

/* Returns what it did, in objects; the budget counts each reference of a slice as one, because it may lead to one. */
static size_t drain(wn_cc *cc, wn_marker *marker, size_t budget, size_t slice) {
    tracing t = {cc, wn_mark_set_out(marker), slice, 0, 0};
    size_t done = wn_mark_drain(&t.walk, budget, wn_fetch_head, scan, visit, scan_some_slice, &t, &t);
    wn_mark_rest(&t.walk);
    return done - t.sliced + (t.array_refs + 7) / 8;
}

void wn_cc_mark_root(wn_cc_worker *w, void *o) {
    if (!w->busy) {
        wn_os_lock_brief(&w->cc->lock);
        w->cc->busy++;
        w->busy = true;
        pthread_mutex_unlock(&w->cc->lock);
    }
    push(w->cc, &w->marker, o);
}

/* ---- finding work ------------------------------------------------------------------------------------------------ */

/* With cc->lock. */
static wn_mark_segment *take_shaded(wn_cc *cc) {
    wn_mark_segment *s = cc->shaded ? cc->shaded : cc->shared;
    if (cc->shaded)
        cc->shaded = s->next;
    else
        cc->shared = NULL;
    return s;
}

/* The last `most` entries of a segment; the others are put back for whoever comes. */
static void claim_segment(wn_cc *cc, wn_marker *marker, wn_mark_segment *s, size_t most) {
    size_t found = 0, rest = s->used > most ? s->used - most : 0;
    for (size_t i = rest; i < s->used; i++) {
        if (i + 8 < s->used) {
            uint64_t bit;
            WN_PREFETCH(wn_bit_of(s->entry[i + 8], WN_MARK_TABLE, &bit));
        }
        if (wn_cc_is_marked(s->entry[i])) continue;
        push(cc, marker, s->entry[i]);
        found++;
    }
    if (found) __atomic_fetch_add(&cc->found.shaded, found, __ATOMIC_RELAXED);
    s->used = rest;
    if (!rest) {
        wn_mark_put_segment(marker->pool, s);
        return;
    }
    wn_os_lock_brief(&cc->lock);
    s->next = cc->shaded;
    cc->shaded = s;
    pthread_mutex_unlock(&cc->lock);
}

/* Gets something for an empty marker, at most so many entries that were shaded; `*busy` follows whether it may hold
 * work. Nothing before H1 is over, although weak reads shade from the beginning of the phase: into an object that is
 * scanned already, a thread without barrier would store what nobody marks (`BREAK_EARLY`). */
static bool get_work(wn_cc *cc, wn_marker *marker, bool *busy, size_t most) {
    wn_os_lock_brief(&cc->lock);
    /* Under the lock: a worker that was put aside after a look in one cycle would take what the next one shades. */
    if (WN_UNLIKELY(!__atomic_load_n(&cc->barrier_is_up, __ATOMIC_ACQUIRE))) {
        pthread_mutex_unlock(&cc->lock);
        return false;
    }
    bool got = wn_mark_try_get(marker);
    wn_mark_segment *s = NULL;
    if (!got && cc->slice_count) {
        got = true; /* the next drain takes one */
    } else if (!got && (cc->shaded || cc->shared)) {
        s = take_shaded(cc);
        got = true;
    }
    if (got != *busy) {
        cc->busy += got ? 1 : -1u;
        *busy = got;
    }
    pthread_mutex_unlock(&cc->lock);
    if (s) claim_segment(cc, marker, s, most);
    return got;
}

void wn_cc_lay_down(wn_cc *cc, wn_marker *marker, bool *busy) {
    if (!*busy) return;
    wn_mark_give_all(marker);
    wn_os_lock_brief(&cc->lock);
    cc->busy--;
    *busy = false;
    pthread_mutex_unlock(&cc->lock);
}

bool wn_cc_is_dry(wn_cc *cc) {
    wn_os_lock_brief(&cc->lock);
    bool dry = !cc->busy && !cc->pool.work && !cc->slice_count && !cc->shaded && !cc->shared;
    /* Under the lock: what is taken up from here on counts as found later. */
    if (dry)
        cc->at_dry = (wn_cc_found){__atomic_load_n(&cc->found.shaded, __ATOMIC_RELAXED),
                                   __atomic_load_n(&cc->found.weak_reads, __ATOMIC_RELAXED)};
    pthread_mutex_unlock(&cc->lock);
    return dry;
}

static void count_work(wn_cc *cc, size_t objects, const wn_marker *marker) {
    __atomic_fetch_add(&cc->work_done, objects, __ATOMIC_RELAXED);
    if (marker->failed) __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
}

bool wn_cc_mark_unit(wn_cc *cc, wn_cc_worker *w) {
    size_t n = w->busy ? drain(cc, &w->marker, WN_CC_UNIT, WN_CC_SLICE) : 0;
    bool more = n || get_work(cc, &w->marker, &w->busy, WN_MARK_SEGMENT);
    count_work(cc, n, &w->marker);
    /* Others have nothing, or threads that must help wait for some. */
    if (more && (__atomic_load_n(&cc->pool.hungry, __ATOMIC_RELAXED))) wn_mark_give_(&w->marker);
    return more;
}

void wn_cc_assist(mutator *m, uint64_t budget_ns) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    uint64_t start = wn_os_now(), now = start;
    bool busy = false;
    size_t done = 0;
    do {
        size_t n = busy ? drain(cc, &c->assist, WN_CC_ASSIST_UNIT, WN_CC_ASSIST_SLICE) : 0;
        done += n;
        if (!n && !get_work(cc, &c->assist, &busy, WN_CC_ASSIST_UNIT)) {
            __atomic_store_n(&cc->pool.hungry, 1, __ATOMIC_RELAXED);
            break;
        }
        now = wn_os_now();
    } while (now - start < budget_ns);
    wn_cc_lay_down(cc, &c->assist, &busy);
    count_work(cc, done, &c->assist);
    now = wn_os_now();
    __atomic_fetch_add(&cc->assist_ns, now - start, __ATOMIC_RELAXED);
    wn_note_pause(m->heap, now - start);
}

/* A program that takes a list apart from its front, where only the list leads to the rest, always has the next node in
 * its buffer and not yet marked. By the time a marker has seen the buffer the program is some nodes further, and as
 * long as that lasts rounds do not come to an end. What a thread marks itself it cannot take apart meanwhile, so the
 * marking gets ahead of it. */
void wn_cc_catch_up(mutator *m) {
    wn_cc *cc = wn_cc_of(m->heap);
    if (wn_cc_phase_of(cc) == WN_CC_MARKING && __atomic_load_n(&cc->chased, __ATOMIC_RELAXED))
        wn_cc_assist(m, WN_CC_ASSIST_NS);
}

/* With cc->lock. */
static void drop_shaded(wn_cc *cc) {
    while (cc->shaded) {
        wn_mark_segment *s = cc->shaded;
        cc->shaded = s->next;
        wn_mark_put_segment(&cc->pool, s);
    }
    if (cc->shared) wn_mark_put_segment(&cc->pool, cc->shared);
    cc->shared = NULL;
}

bool wn_cc_end_work(wn_cc *cc) {
    wn_os_lock_brief(&cc->lock);
    __atomic_store_n(&cc->barrier_is_up, false, __ATOMIC_RELEASE);
    drop_shaded(cc);
    bool busy = cc->busy;
    pthread_mutex_unlock(&cc->lock);
    while (busy) {
        if (!wn_cc_pause(cc, &cc->worker[0])) return false;
        wn_os_nap(10000);
        wn_os_lock_brief(&cc->lock);
        busy = cc->busy;
        pthread_mutex_unlock(&cc->lock);
    }
    return true;
}

void wn_cc_drop_work(wn_cc *cc) {
    for (unsigned i = 0; i < cc->workers; i++) {
        wn_mark_drop(&cc->worker[i].marker);
        cc->worker[i].busy = false;
    }
    for (mutator *m = cc->heap->mutators; m; m = m->next) {
        wn_cc_mutator *c = wn_cc_of_mutator(m);
        wn_mark_drop(&c->assist);
        if (c->buffer) c->buffer->used = 0;
    }
    wn_os_lock_brief(&cc->lock);
    while (cc->pool.work) {
        wn_mark_segment *s = cc->pool.work;
        cc->pool.work = s->next;
        wn_mark_put_segment(&cc->pool, s);
    }
    drop_shaded(cc);
    __atomic_store_n(&cc->barrier_is_up, false, __ATOMIC_RELEASE);
    __atomic_store_n(&cc->slice_count, 0, __ATOMIC_RELAXED);
    cc->keys.n = 0;
    cc->hidden = 0;
    cc->busy = 0;
    pthread_mutex_unlock(&cc->lock);
}

/* ---- ephemerons -----------------------------------------------------------------------------------------------------
 *
 * A value lives while both its ephemeron and its key do. When nothing else is left to mark, the table is searched once
 * for keys that are marked; from then on (`hidden`) every object that is marked and is a key or an ephemeron is noted
 * in `keys` and looked at in turn. So a chain of ephemerons costs its length, not its square, and no recursion. */

static WN_NOINLINE void found_hidden(wn_cc *cc, void *o) {
    if (!(__atomic_load_n(&wn_meta_(o)[1], __ATOMIC_RELAXED) & WN_STATE_WEAK_) &&
        !(wn_type_of(o)->flags & WN_TYPE_EPHEMERON))
        return;
    wn_os_lock_brief(&cc->lock);
    if (!wn_vector_push(&cc->keys, o)) __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&cc->lock);
}

static void follow_one(wn_cc_worker *w, wn_ephemeron *p) {
    void *value = __atomic_load_n(&p->value, __ATOMIC_ACQUIRE);
    if (value && p->key && wn_cc_is_marked(p) && wn_cc_is_marked(p->key)) push(w->cc, &w->marker, value);
}

/* With heap->weak.lock. */
static void follow_key(wn_cc_worker *w, void *o) {
    if (wn_type_of(o)->flags & WN_TYPE_EPHEMERON) follow_one(w, o);
    const wn_weak_entry *e = wn_weak_find(w->cc->heap, o);
    WN_EACH_EPHEMERON(e, p) follow_one(w, p);
}

static void follow_entry(void *context, wn_weak_entry *e) {
    WN_EACH_EPHEMERON(e, p) follow_one(context, p);
}

bool wn_cc_walk_weak(wn_cc_worker *w, size_t n, void (*visit)(void *context, wn_weak_entry *e), void *context) {
    wn_heap *heap = w->cc->heap;
    bool more = true;
    wn_weak_walk_reset(heap);
    while (more && wn_cc_pause(w->cc, w)) more = wn_weak_walk(heap, n, visit, context);
    wn_weak_walk_reset(heap);
    return !more;
}

/* What is entered meanwhile needs no look: its value was reachable, or is black. */
static bool follow_table(wn_cc_worker *w) { return wn_cc_walk_weak(w, 64, follow_entry, w); }

bool wn_cc_follow_ephemerons(wn_cc *cc, wn_cc_worker *w) {
    pthread_mutex_lock(&cc->heap->weak.lock);
    bool any = cc->heap->weak.ephemerons;
    pthread_mutex_unlock(&cc->heap->weak.lock);
    if (!any) { /* keys that a former cycle's search has led to note mean nothing; one made from now on is shaded */
        wn_os_lock_brief(&cc->lock);
        cc->keys.n = 0;
        pthread_mutex_unlock(&cc->lock);
        return false;
    }
    bool first;
    void *some[64];
    size_t n = 0;
    wn_os_lock_brief(&cc->lock);
    first = !cc->hidden;
    /* A thread that took work before the flag is up would mark a key without noting it, behind the search's back. */
    if (first && cc->busy > (w->busy ? 1u : 0u)) {
        pthread_mutex_unlock(&cc->lock);
        return true;
    }
    /* Whoever takes work from now on does so under this lock, and so sees the flag. */
    __atomic_store_n(&cc->hidden, 1, __ATOMIC_RELAXED);
    while (n < 64 && cc->keys.n) some[n++] = cc->keys.at[--cc->keys.n];
    if ((first || n) && !w->busy) {
        w->busy = true;
        cc->busy++;
    }
    pthread_mutex_unlock(&cc->lock);
    if (first) return follow_table(w);
    if (!n) return false;
    pthread_mutex_lock(&cc->heap->weak.lock);
    for (size_t i = 0; i < n; i++) follow_key(w, some[i]);
    pthread_mutex_unlock(&cc->heap->weak.lock);
    return true;
}

void wn_cc_stop_following(wn_cc *cc) {
    wn_os_lock_brief(&cc->lock);
    __atomic_store_n(&cc->hidden, 0, __ATOMIC_RELAXED);
    cc->keys.n = 0;
    pthread_mutex_unlock(&cc->lock);
}
