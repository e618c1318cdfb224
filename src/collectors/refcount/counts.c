/*
 * counts.c - counting references up and down where the inlined paths could not: large counts, immortals, counts that
 * several threads change, the last reference.
 *
 * A count byte enters WN_COUNT_BIG_ only under the overflow table's lock, and leaves it only under the lock or for
 * WN_COUNT_IMMORTAL_; all other changes are one atomic exchange when the mutator counts atomically, and plain when it
 * is alone.
 */
#include "collectors/refcount/refcount.h"

#include <stdlib.h>
#include <string.h>

/* ---- the overflow table ------------------------------------------------------------------------------------------ */

bool wn_rc_overflow_init(wn_rc_overflow *o) {
    pthread_mutex_init(&o->lock, NULL);
    o->size = 64;
    o->entry = calloc(o->size, sizeof *o->entry);
    return o->entry != NULL;
}

void wn_rc_overflow_fini(wn_rc_overflow *o) {
    free(o->entry);
    pthread_mutex_destroy(&o->lock);
}

#define GONE ((void *)1)

static struct wn_rc_overflow_entry *overflow_place(const wn_rc_overflow *o, const void *object) {
    struct wn_rc_overflow_entry *gone = NULL;
    for (size_t i = (((uintptr_t)object >> 4) * 0x9E3779B97F4A7C15u >> 20) & (o->size - 1);;
         i = (i + 1) & (o->size - 1)) {
        struct wn_rc_overflow_entry *e = &o->entry[i];
        if (e->object == object) return e;
        if (e->object == GONE) {
            if (!gone) gone = e;
        } else if (!e->object) {
            return gone ? gone : e;
        }
    }
}

/* Under the lock. False: no memory, and the object becomes immortal, which loses nothing but its memory. */
static bool overflow_add(wn_rc_overflow *o, void *object, size_t count) {
    if ((o->used + 1) * 4 > o->size * 3) {
        wn_rc_overflow bigger = *o;
        while (o->live * 3 > bigger.size) bigger.size *= 2;
        bigger.entry = calloc(bigger.size, sizeof *bigger.entry);
        if (!bigger.entry) return false;
        for (size_t i = 0; i < o->size; i++)
            if (o->entry[i].object && o->entry[i].object != GONE)
                *overflow_place(&bigger, o->entry[i].object) = o->entry[i];
        free(o->entry);
        o->entry = bigger.entry;
        o->size = bigger.size;
        o->used = o->live;
    }
    struct wn_rc_overflow_entry *e = overflow_place(o, object);
    if (!e->object) o->used++;
    o->live++;
    *e = (struct wn_rc_overflow_entry){object, count};
    return true;
}

static void overflow_remove(wn_rc_overflow *o, struct wn_rc_overflow_entry *e) {
    e->object = GONE;
    o->live--;
}

void wn_rc_overflow_forget(wn_heap *heap, const void *object) {
    wn_rc_overflow *o = &wn_rc_of(heap)->overflow;
    pthread_mutex_lock(&o->lock);
    struct wn_rc_overflow_entry *e = overflow_place(o, object);
    if (e->object == object) overflow_remove(o, e);
    pthread_mutex_unlock(&o->lock);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

size_t wn_rc_count_of(wn_heap *heap, const void *object) {
    uint8_t c = __atomic_load_n(wn_meta_(object), __ATOMIC_RELAXED);
    if (c == WN_COUNT_IMMORTAL_) return WN_IMMORTAL;
    if (c != WN_COUNT_BIG_) return c;
    wn_rc_overflow *o = &wn_rc_of(heap)->overflow;
    pthread_mutex_lock(&o->lock);
    c = __atomic_load_n(wn_meta_(object), __ATOMIC_RELAXED);
    size_t n = c == WN_COUNT_BIG_ ? overflow_place(o, object)->count : c == WN_COUNT_IMMORTAL_ ? WN_IMMORTAL : c;
    pthread_mutex_unlock(&o->lock);
    return n;
}

size_t wn_rc_refcount(mutator *m, const void *object) { return wn_rc_count_of(m->heap, object); }

/* ---- up and down ------------------------------------------------------------------------------------------------- */

/* One up for a count that is, or becomes, too large for its byte. False: other threads have taken it down to zero
 * meanwhile, which only a weak reference can meet with. */
static bool count_up_big(mutator *m, void *object) {
    uint8_t *byte = wn_meta_(object);
    wn_rc_overflow *o = &wn_rc_of(m->heap)->overflow;
    pthread_mutex_lock(&o->lock);
    uint8_t c = __atomic_load_n(byte, __ATOMIC_RELAXED);
    while (c && c != WN_COUNT_IMMORTAL_) {
        if (c == WN_COUNT_BIG_) {
            overflow_place(o, object)->count++;
            break;
        }
        uint8_t to = (uint8_t)(c + 1); /* another thread has counted down meanwhile */
        bool added = false;
        if (c == WN_COUNT_MAX_) {
            added = overflow_add(o, object, WN_COUNT_MAX_ + 1);
            to = added ? WN_COUNT_BIG_ : WN_COUNT_IMMORTAL_;
        }
        if (__atomic_compare_exchange_n(byte, &c, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
        if (added) overflow_remove(o, overflow_place(o, object));
    }
    pthread_mutex_unlock(&o->lock);
    return c != 0;
}

static void count_down_big(mutator *m, void *object) {
    uint8_t *byte = wn_meta_(object);
    wn_rc_overflow *o = &wn_rc_of(m->heap)->overflow;
    pthread_mutex_lock(&o->lock);
    bool again = __atomic_load_n(byte, __ATOMIC_RELAXED) != WN_COUNT_BIG_;
    if (!again) {
        struct wn_rc_overflow_entry *e = overflow_place(o, object);
        /* Well below the limit before the byte takes over again, so that a count at the border does not go in and out.
         */
        if (--e->count == WN_COUNT_MAX_ - 64) {
            overflow_remove(o, e);
            uint8_t c = WN_COUNT_BIG_; /* or immortal since, which is said without the lock */
            __atomic_compare_exchange_n(byte, &c, WN_COUNT_MAX_ - 64, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
        }
    }
    pthread_mutex_unlock(&o->lock);
    if (again) wn_rc_count_down(m, object);
}

/* In checked mode every count comes here: a use of something that is not alive is caught. */
static bool check_alive(mutator *m, const void *object, const char *what) {
    if (!m->heap->options.check) return true;
    if (!wn_check_running(m, what)) return false;
    if (wn_space_object_at_locked(m->heap, object, true) && __atomic_load_n(wn_meta_(object), __ATOMIC_RELAXED))
        return true;
    wn_misuse("use-after-free",
              "%s: the object at %p was freed: its last reference is gone. A reference that is kept must be counted: "
              "wn_root or wn_hold "
              "for a local, wn_set for a field, wn_retain otherwise",
              what, object);
    return false;
}

void wn_rc_count_up(mutator *m, void *object) {
    if (!m->heap || !check_alive(m, object, "counting a reference up")) return;
    uint8_t *byte = wn_meta_(object), c = __atomic_load_n(byte, __ATOMIC_RELAXED);
    if (m->fast.mode & WN_MODE_ATOMIC_) {
        while (c < WN_COUNT_MAX_)
            if (__atomic_compare_exchange_n(byte, &c, (uint8_t)(c + 1), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                return;
    } else if (c < WN_COUNT_MAX_) {
        *byte = (uint8_t)(c + 1);
        return;
    }
    if (c != WN_COUNT_IMMORTAL_) count_up_big(m, object);
}

void wn_rc_count_down(mutator *m, void *object) {
    if (!m->heap || !check_alive(m, object, "counting a reference down")) return;
    uint8_t *byte = wn_meta_(object), c = __atomic_load_n(byte, __ATOMIC_RELAXED);
    if (m->fast.mode & WN_MODE_ATOMIC_) {
        /* Release, so that what this thread did to the object comes before its end; acquire, for whoever ends it. */
        while (c - 1u < WN_COUNT_MAX_)
            if (__atomic_compare_exchange_n(byte, &c, (uint8_t)(c - 1), true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
                if (c == 1) wn_rc_object_died(m, object);
                return;
            }
    } else if (c - 1u < WN_COUNT_MAX_) {
        *byte = (uint8_t)(c - 1);
        if (c == 1) wn_rc_object_died(m, object);
        return;
    }
    if (c == WN_COUNT_BIG_) count_down_big(m, object);
}

void wn_rc_store(mutator *m, void *holder, void **slot, void *value, bool takes_over) {
    (void)holder;
    void *old = *slot;
    if (value && !takes_over) wn_count_up_(&m->fast, value);
    *slot = value;
    if (old) wn_count_down_(&m->fast, old);
}

/* Each value may have its only reference in a slot that is overwritten before its own turn comes: all are counted
 * first. What dies waits until all are stored, because finalizers could change what is copied. Where nothing dies, no
 * other death is worked off either: a client that copies into a new array relies on it. */
void wn_rc_copy(mutator *m, void **slots, void *const *values, size_t n) {
    wn_slot_ *to = (wn_slot_ *)slots;
    const wn_slot_ *from = (const wn_slot_ *)values;
    for (size_t i = 0; i < n; i++)
        if (from[i]) wn_count_up_(&m->fast, from[i]);
    wn_rc_mutator *r = wn_rc_of_mutator(m);
    bool was = r->reclaiming, down = (uintptr_t)to > (uintptr_t)from;
    size_t dead = r->dead.n;
    r->reclaiming = true; /* deaths only go on the list */
    for (size_t k = 0; k < n; k++) {
        size_t i = down ? n - 1 - k : k;
        void *old = to[i];
        to[i] = from[i];
        if (old) wn_count_down_(&m->fast, old);
    }
    r->reclaiming = was;
    if (!was && r->dead.n > dead) wn_rc_reclaim_slice(m);
}

void wn_rc_make_immortal(mutator *m, void *object) {
    uint8_t *byte = wn_meta_(object);
    uint8_t c = __atomic_exchange_n(byte, WN_COUNT_IMMORTAL_, __ATOMIC_RELAXED);
    if (c == WN_COUNT_IMMORTAL_) return;
    if (c == WN_COUNT_BIG_) wn_rc_overflow_forget(m->heap, object);
    pthread_mutex_lock(&m->heap->roots_lock);
    wn_vector_push(&m->heap->immortals, object); /* without the entry it is still immortal, only found more slowly */
    pthread_mutex_unlock(&m->heap->roots_lock);
}

/* The target may be losing its last reference in another thread: one more only if there is one. */
void *wn_rc_weak_get(mutator *m, void *target) {
    uint8_t *byte = wn_meta_(target), c = __atomic_load_n(byte, __ATOMIC_RELAXED);
    while (c && c < WN_COUNT_MAX_)
        if (__atomic_compare_exchange_n(byte, &c, (uint8_t)(c + 1), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return target;
    return c && (c == WN_COUNT_IMMORTAL_ || count_up_big(m, target)) ? target : NULL;
}
