/*
 * verify.c - the heap verifier: re-derives what is reachable by a second, simple method and compares.
 *
 * It shares nothing with the engines: references are found through the slot visitor one by one, visited objects are
 * kept in a hash map of its own with the number of references found to each, and the work list is a plain array. What
 * it checks holds on every collector; counts are checked where there are any, and a collector adds what only it knows.
 */
#include "engines/weak.h"

#include <stdarg.h>
#include <stdlib.h>

typedef struct seen {
    void *object;
    size_t references; /* counted ones: from objects, owned roots, ephemerons */
    bool reached;
} seen;

typedef struct verifier {
    wn_heap *heap;
    FILE *report;
    size_t faults;
    seen *map;
    size_t size, used;
    wn_vector work;
    void *holder; /* whose references are being visited; NULL: a root */
    bool torn;    /* an object is not whole: nothing else can be said of it */
    bool failed;
} verifier;

static void fault(void *data, const char *format, ...) {
    verifier *v = data;
    if (v->faults++ < 20 && v->report) {
        va_list args;
        va_start(args, format);
        fprintf(v->report, "verify: ");
        vfprintf(v->report, format, args);
        fprintf(v->report, "\n");
        va_end(args);
    }
}

static seen *look_up(verifier *v, void *object) {
    if ((v->used + 1) * 2 > v->size) {
        size_t size = v->size ? v->size * 2 : 1024;
        seen *map = calloc(size, sizeof *map), *old = v->map;
        if (!map) {
            v->failed = true;
            return NULL;
        }
        for (size_t i = 0; i < v->size; i++)
            if (old[i].object) {
                size_t j = ((uintptr_t)old[i].object >> 4) * 0x9E3779B97F4A7C15u >> 16 & (size - 1);
                while (map[j].object) j = (j + 1) & (size - 1);
                map[j] = old[i];
            }
        free(old);
        v->map = map;
        v->size = size;
    }
    size_t i = ((uintptr_t)object >> 4) * 0x9E3779B97F4A7C15u >> 16 & (v->size - 1);
    while (v->map[i].object && v->map[i].object != object) i = (i + 1) & (v->size - 1);
    if (!v->map[i].object) {
        v->map[i].object = object;
        v->used++;
    }
    return &v->map[i];
}

static const char *name_of(const void *object) {
    const wn_type *t = object ? wn_type_of(object) : NULL;
    return t && t->name ? t->name : "root";
}

/* Notes one reference to an object; `counted`: it is one that a count should include. */
static void note(verifier *v, void *object, bool counted) {
    bool there = wn_heap_object_at(v->heap, object, true);
    if (!there || (v->heap->collector->is_live && !v->heap->collector->is_live(v->heap, object))) {
        const char *how = there ? "which is dead" : "which is no object of this heap";
        if (v->holder)
            fault(v,
                  "the %s at %p refers to %p, %s: it was freed or moved, and the reference was not known, so store "
                  "references by wn_set or wn_move; or the type names a word that is none",
                  name_of(v->holder), v->holder, object, how);
        else
            fault(v,
                  "a root refers to %p, %s: what wn_root, wn_global or a root scanner shows is NULL or a reference of "
                  "its own, and this one was released once too often, or never was one",
                  object, how);
        return;
    }
    seen *s = look_up(v, object);
    if (!s) return;
    if (counted) s->references++;
    if (s->reached) return;
    s->reached = true;
    if (!wn_vector_push(&v->work, object)) v->failed = true;
}

static void note_slot(void **slot, void *context) {
    if (*slot) note(context, *slot, true);
}
static void note_root_slot(void **slot, void *context) {
    if (*slot) note(context, *slot, false);
}

/* Whether the last byte that an object has by its length is its own. */
static bool is_whole(verifier *v, void *object) {
    const wn_type *t = wn_type_of(object);
    size_t length = wn_length_of(object, t), bytes;
    if (!__builtin_mul_overflow(length, (size_t)t->item_size, &bytes) &&
        !__builtin_add_overflow(bytes, (size_t)t->size, &bytes) &&
        wn_heap_object_at(v->heap, (char *)object + bytes - 1, false) == object)
        return true;
    fault(v, "the %s at %p has room for less than its length, %zu, says: wn_new_array sets it, and nobody changes it",
          name_of(object), object, length);
    v->torn = true;
    return false;
}

static void follow(verifier *v) {
    while (v->work.n) {
        void *o = v->work.at[--v->work.n];
        const wn_type *t = wn_type_of(o);
        v->holder = o;
        if (wn_type_check(t, t->item_size != 0))
            fault(v, "the object at %p has a broken type: %s", o, wn_error_message());
        if (is_whole(v, o)) wn_each_ref(o, note_slot, v);
    }
    v->holder = NULL;
}

/* The entry itself is good only until the next look-up, which may make the table larger. */
static bool is_reached(verifier *v, void *object) {
    const seen *s = look_up(v, object);
    return s && s->reached;
}

/* Values of ephemerons whose key and self were reached, until nothing new comes. */
static void follow_ephemerons(verifier *v) {
    for (bool more = true; more && !v->failed;) {
        more = false;
        WN_EACH_WEAK(v->heap, e) {
            WN_EACH_EPHEMERON(e, p) {
                if (!p->value) continue;
                if (!is_reached(v, p->key) || !is_reached(v, p) || is_reached(v, p->value)) continue;
                v->holder = p;
                note(v, p->value, false);
                follow(v);
                more = true;
            }
        }
    }
}

static void check_blocks(verifier *v) {
    WN_EACH_BLOCK(&v->heap->space, c, b) {
        size_t g = 0, n = 0;
        for (void *o; (o = wn_block_next(b, &g)); n++) {
            if (wn_space_object_at(&v->heap->space, o, true) != o)
                fault(v, "an alloc bit at %p is not the start of a slot", o);
            if (v->heap->collector->is_live && !v->heap->collector->is_live(v->heap, o)) continue;
            if (!wn_type_of(o)) fault(v, "the object at %p has no type", o);
        }
        if (b->state == WN_BLOCK_SMALL && n != b->used)
            fault(v, "block %p counts %u slots in use and has %zu", (void *)b, b->used, n);
    }
}

static void check_weak(verifier *v) {
    WN_EACH_WEAK(v->heap, e) {
        const wn_weakref *before = NULL;
        for (const wn_weakref *r = e->refs; r; before = r, r = r->next)
            if (r->target != e->target || r->prev != before)
                fault(v, "the weak reference at %p is not on the list of those to its target %p", (const void *)r,
                      r->target);
        WN_EACH_EPHEMERON(e, p)
            if (p->key != e->target)
                fault(v, "the ephemeron at %p is not on the ring of those of its key %p", (const void *)p, p->key);
    }
}

/* Counts, where there are some: at least as many as the references found, since a client may hold more by wn_retain. */
static void check_counts(verifier *v, mutator *m) {
    WN_EACH_WEAK(v->heap, e) {
        WN_EACH_EPHEMERON(e, p)
            if (p->value) {
                seen *s = look_up(v, p->value);
                if (s) s->references++;
            }
    }
    for (mutator *each = v->heap->mutators; each; each = each->next)
        for (wn_root_link_ *link = each->fast.roots; link; link = link->up) {
            void *o = *(void **)wn_root_slot_(link);
            seen *s = o && wn_root_is_owned_(link) ? look_up(v, o) : NULL;
            if (s) s->references++;
        }
    for (size_t i = 0; i < v->size; i++) {
        const seen *s = &v->map[i];
        if (!s->object || !s->reached) continue; /* what a root holds although it is gone was said before */
        size_t count = v->heap->collector->refcount(m, s->object);
        if (count < s->references)
            fault(v,
                  "the %s at %p has count %zu but %zu references: a reference was stored without wn_set or wn_move, "
                  "or a borrowed one by wn_move",
                  name_of(s->object), s->object, count, s->references);
    }
}

size_t wn_verify(wn_mutator *fast, FILE *report) {
    if (!wn_is_usable(wn_mutator_of(fast), "wn_verify")) return 1;
    mutator *m = wn_mutator_of(fast);
    wn_heap *heap = m->heap;
    verifier v = {.heap = heap, .report = report};
    wn_world_stop(heap, m);
    for (mutator *each = heap->mutators; each; each = each->next) heap->collector->flush(each);
    wn_weak_settle(heap, (size_t)-1);
    check_blocks(&v);
    check_weak(&v);
    wn_each_root(heap, note_root_slot, &v);
    for (size_t i = 0; i < heap->immortals.n; i++) note(&v, heap->immortals.at[i], false);
    follow(&v);
    follow_ephemerons(&v);
    /* What is alive but not found from the declared roots is held by wn_retain: what it refers to must be sound too. */
    if (heap->collector->refcount) {
        WN_EACH_BLOCK(&heap->space, c, b) {
            size_t g = 0;
            for (void *o; (o = wn_block_next(b, &g));)
                if (!heap->collector->is_live || heap->collector->is_live(heap, o)) {
                    note(&v, o, false);
                    follow(&v);
                }
        }
        check_counts(&v, m);
    }
    if (heap->collector->verify && !v.torn) heap->collector->verify(m, fault, &v);
    wn_world_start(heap, m);
    if (v.failed) fault(&v, "no memory to verify a heap of this size");
    free(v.map);
    wn_vector_free(&v.work);
    return v.faults;
}
