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

#include <stdlib.h>

/* A marker and what it found besides: an array's references count as work too. */
typedef struct tracing {
    wn_cc *cc;
    wn_marker *marker;
    size_t array_refs;
} tracing;

static void found_hidden(tracing *t, void *o);

/* True when the object was white and has to be scanned. */
static WN_ALWAYS_INLINE bool claim(tracing *t, void *o) {
    if (!wn_cc_claim(o)) return false;
    if (WN_UNLIKELY(__atomic_load_n(&t->cc->hidden, __ATOMIC_RELAXED))) found_hidden(t, o);
    return wn_block_of(o)->kind != WN_CC_LEAF;
}

/* In a drain. */
static WN_ALWAYS_INLINE void visit(void *arg, void *o) {
    tracing *t = arg;
    if (o && claim(t, o)) wn_mark_reach(t->marker, o);
}
/* Outside of one. */
static void push(tracing *t, void *o) {
    if (o && claim(t, o)) wn_mark_push(t->marker, o);
}

static WN_ALWAYS_INLINE void visit_slot(void **slot, void *context) {
    visit(context, __atomic_load_n(slot, __ATOMIC_ACQUIRE));
}
static void visit_traced_slot(void **slot, void *context) { visit_slot(slot, context); }

static void add_slice(wn_cc *cc, void *object, size_t next) {
    pthread_mutex_lock(&cc->lock);
    if (cc->slice_count == cc->slice_room) {
        size_t room = cc->slice_room ? 2 * cc->slice_room : 64;
        wn_cc_slice *bigger = realloc(cc->slices, room * sizeof *bigger);
        if (bigger) {
            cc->slices = bigger;
            cc->slice_room = room;
        }
    }
    if (cc->slice_count < cc->slice_room) {
        cc->slices[cc->slice_count] = (wn_cc_slice){object, next};
        __atomic_store_n(&cc->slice_count, cc->slice_count + 1, __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&cc->lock);
}

/* References of a variable part, or of a client's own tracing function. */
static WN_NOINLINE void scan_rest(tracing *t, void *o, const wn_type *type) {
    if (type->item_refs) {
        size_t n = wn_length_of(o, type);
        if (n > WN_CC_LONG)
            add_slice(t->cc, o, 0);
        else
            wn_each_item_ref(o, type, 0, n, visit_slot, t);
        t->array_refs += n > WN_CC_LONG ? 0 : n;
    }
    if (type->trace) {
        struct wn_tracer tracer = {visit_traced_slot, t};
        type->trace(o, &tracer);
    }
}

static WN_ALWAYS_INLINE void scan(void *context, void *entry, wn_visit_fn *visit_ref, void *arg) {
    const wn_type *type = wn_type_of(entry);
    for (uint64_t map = type->refs; map; map &= map - 1)
        visit_ref(arg, __atomic_load_n((void **)entry + __builtin_ctzll(map), __ATOMIC_ACQUIRE));
    if (WN_UNLIKELY(type->item_refs || type->trace)) scan_rest(context, entry, type);
}

/* An item of a long array. */
static WN_ALWAYS_INLINE void visit_item(void **slot, void *context) {
    tracing *t = context;
    void *o = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (!o || !claim(t, o)) return;
    void *due = wn_mark_feed(t->marker, o, wn_fetch_head, t);
    if (due) scan(t, due, visit, t);
}

static void scan_slice(tracing *t, wn_cc_slice slice) {
    const wn_type *type = wn_type_of(slice.object);
    size_t n = wn_length_of(slice.object, type), to = slice.next + WN_CC_SLICE < n ? slice.next + WN_CC_SLICE : n;
    if (to < n) add_slice(t->cc, slice.object, to); /* first, so that others can go on with the rest meanwhile */
    wn_each_item_ref(slice.object, type, slice.next, to, visit_item, t);
}

/* Only for who is counted as busy: a slice that is on no list is work that nobody else sees. */
static size_t more_slices(void *context) {
    tracing *t = context;
    wn_cc *cc = t->cc;
    wn_cc_slice slice = {NULL, 0};
    if (!__atomic_load_n(&cc->slice_count, __ATOMIC_RELAXED)) return 0;
    pthread_mutex_lock(&cc->lock);
    if (cc->slice_count) {
        slice = cc->slices[cc->slice_count - 1];
        __atomic_store_n(&cc->slice_count, cc->slice_count - 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&cc->lock);
    if (!slice.object) return 0;
    scan_slice(t, slice);
    return WN_CC_SLICE / 8;
}

static size_t drain(tracing *t, size_t budget) {
    return wn_mark_drain(t->marker, budget, wn_fetch_head, scan, visit, more_slices, t, t);
}

void wn_cc_mark_root(wn_cc_worker *w, void *o) {
    tracing t = {w->cc, &w->marker, 0};
    if (!w->busy) {
        pthread_mutex_lock(&w->cc->lock);
        w->cc->busy++;
        w->busy = true;
        pthread_mutex_unlock(&w->cc->lock);
    }
    push(&t, o);
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
static void claim_segment(tracing *t, wn_mark_segment *s, size_t most) {
    wn_cc *cc = t->cc;
    size_t found = 0, rest = s->used > most ? s->used - most : 0;
    for (size_t i = rest; i < s->used; i++) {
        if (i + 8 < s->used) {
            uint64_t bit;
            WN_PREFETCH(wn_bit_of(s->entry[i + 8], WN_MARK_TABLE, &bit));
        }
        if (wn_cc_is_marked(s->entry[i])) continue;
        push(t, s->entry[i]);
        found++;
    }
    if (found) __atomic_fetch_add(&cc->white_shaded, found, __ATOMIC_RELAXED);
    s->used = rest;
    if (!rest) {
        wn_mark_put_segment(t->marker->pool, s);
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
static bool get_work(tracing *t, bool *busy, size_t most) {
    wn_cc *cc = t->cc;
    if (WN_UNLIKELY(!__atomic_load_n(&cc->barrier_is_up, __ATOMIC_ACQUIRE))) return false;
    wn_os_lock_brief(&cc->lock);
    bool got = wn_mark_try_get(t->marker);
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
    if (s) claim_segment(t, s, most);
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
    pthread_mutex_unlock(&cc->lock);
    return dry;
}

static void count_work(wn_cc *cc, size_t objects, const tracing *t) {
    __atomic_fetch_add(&cc->work_done, objects + t->array_refs / 8, __ATOMIC_RELAXED);
    if (t->marker->failed) __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
}

bool wn_cc_mark_unit(wn_cc *cc, wn_cc_worker *w) {
    tracing t = {cc, &w->marker, 0};
    size_t n = w->busy ? drain(&t, WN_CC_UNIT) : 0;
    bool more = n || get_work(&t, &w->busy, WN_MARK_SEGMENT);
    count_work(cc, n, &t);
    /* Others have nothing, or threads that must help wait for some. */
    if (more && (__atomic_load_n(&cc->pool.hungry, __ATOMIC_RELAXED))) wn_mark_give_(&w->marker);
    return more;
}

void wn_cc_assist(mutator *m, uint64_t budget_ns) {
    wn_cc *cc = wn_cc_of(m->heap);
    wn_cc_mutator *c = wn_cc_of_mutator(m);
    uint64_t start = wn_os_now(), now = start;
    bool busy = false;
    tracing t = {cc, &c->assist, 0};
    size_t done = 0;
    do {
        size_t n = busy ? drain(&t, WN_CC_ASSIST_UNIT) : 0;
        done += n;
        if (!n && !get_work(&t, &busy, WN_CC_ASSIST_UNIT)) {
            __atomic_store_n(&cc->pool.hungry, 1, __ATOMIC_RELAXED);
            break;
        }
        now = wn_os_now();
    } while (now - start < budget_ns);
    wn_cc_lay_down(cc, &c->assist, &busy);
    count_work(cc, done, &t);
    now = wn_os_now();
    __atomic_fetch_add(&cc->now.assist_ns, now - start, __ATOMIC_RELAXED);
    wn_note_pause(m->heap, now - start);
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
    while (cc->shaded) {
        wn_mark_segment *s = cc->shaded;
        cc->shaded = s->next;
        wn_mark_put_segment(&cc->pool, s);
    }
    if (cc->shared) wn_mark_put_segment(&cc->pool, cc->shared);
    cc->shared = NULL;
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

static WN_NOINLINE void found_hidden(tracing *t, void *o) {
    wn_cc *cc = t->cc;
    if (!(__atomic_load_n(&wn_meta_(o)[1], __ATOMIC_RELAXED) & WN_STATE_WEAK_) &&
        !(wn_type_of(o)->flags & WN_TYPE_EPHEMERON))
        return;
    wn_os_lock_brief(&cc->lock);
    if (!wn_vector_push(&cc->keys, o)) __atomic_store_n(&cc->failed, true, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&cc->lock);
}

static void follow_one(tracing *t, wn_ephemeron *p) {
    void *value = __atomic_load_n(&p->value, __ATOMIC_ACQUIRE);
    if (value && p->key && wn_cc_is_marked(p) && wn_cc_is_marked(p->key)) push(t, value);
}

/* With heap->weak.lock. */
static void follow_key(tracing *t, void *o) {
    if (wn_type_of(o)->flags & WN_TYPE_EPHEMERON) follow_one(t, o);
    const wn_weak_entry *e = wn_weak_find(t->cc->heap, o);
    for (wn_ephemeron *p = e ? e->ephemerons : NULL; p; p = p->next) follow_one(t, p);
}

static void follow_entry(void *context, wn_weak_entry *e) {
    for (wn_ephemeron *p = e->ephemerons; p; p = p->next) follow_one(context, p);
}

/* What is entered meanwhile needs no look: its value was reachable, or is black. */
static bool follow_table(tracing *t, wn_cc_worker *w) {
    bool more = true;
    wn_weak_walk_reset(t->cc->heap);
    while (more && wn_cc_pause(t->cc, w)) more = wn_weak_walk(t->cc->heap, 64, follow_entry, t);
    wn_weak_walk_reset(t->cc->heap);
    return !more;
}

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
    tracing t = {cc, &w->marker, 0};
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
    if (first) return follow_table(&t, w);
    if (!n) return false;
    pthread_mutex_lock(&cc->heap->weak.lock);
    for (size_t i = 0; i < n; i++) follow_key(&t, some[i]);
    pthread_mutex_unlock(&cc->heap->weak.lock);
    return true;
}
