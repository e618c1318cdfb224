/*
 * fast.h - what the inlined fast paths need; names that end in _ are no part of the promised interface.
 *
 * Side tables are found from an address by arithmetic: memory comes in chunks of 32 MiB aligned to their size, and a
 * chunk begins with one byte per 16 bytes of itself. The two bytes of an object's first two granules are its count
 * byte (meaning: the collector's) and its state byte. Every object takes at least two granules.
 */
#ifndef WINNOW_FAST_H
#define WINNOW_FAST_H

#include "heap.h"

WN_BEGIN

enum {
    WN_CHUNK_SHIFT_ = 25,
    WN_GRANULE_SHIFT_ = 4,
    WN_SLOT_MIN_ = 32,
    WN_SMALL_MAX_ = 8192,               /* above: a large object with blocks of its own */
    WN_HEADER_ = 16,                    /* a type word and a length */
    WN_HEADED_MAX_ = 2048 + WN_HEADER_, /* slots above 256 and up to this one have room for a header */
    WN_CLASSES_ = 57,

    /* wn_mutator.mode, the one word that barriers test */
    WN_MODE_COUNT_ = 1,    /* references are counted, plainly */
    WN_MODE_ATOMIC_ = 2,   /* references are counted, other threads may count the same object */
    WN_MODE_REMEMBER_ = 4, /* the backward barrier: a store into an old (concurrent: a frozen) object is recorded */
    WN_MODE_SHADE_ = 8,    /* the hybrid barrier: marking goes on in another thread */
    WN_MODE_CHECK_ = 16,   /* every call checks its arguments */
    WN_MODE_YOUNG_ = 32,   /* with REMEMBER: only references into the nursery matter, so the value is looked at first */
    WN_MODE_MARKING_ = 64, /* with REMEMBER: the value's mark decides, out of line; a young holder needs no record */

    /* the count byte under counting */
    WN_COUNT_MAX_ = 253, /* the largest count that fits */
    WN_COUNT_BIG_ = 254, /* the count is in the overflow table */
    WN_COUNT_IMMORTAL_ = 255,
    /* the count byte under the tracing collectors: the backward barrier's one question */
    WN_OLD_CLEAN_ = 1, /* old, and not in the remembered set: the next store must record it */
    WN_OLD_CARDS_ = 3, /* an old array whose stores are recorded by cards, one byte for so many bytes of it: */
    WN_CARD_SHIFT_ = 7,

    /* the state byte, on every collector */
    WN_STATE_GENERATION_ = 3, /* bits 0-1; 3 is frozen */
    WN_STATE_TRACKED_ = 4,
    WN_STATE_FINALIZED_ = 8,
    WN_STATE_WEAK_ = 16,    /* weak references or ephemerons know it, or a pin or identity is noted in a table */
    WN_STATE_OWN_ = 32,     /* the collector's own use */
    WN_STATE_SCRATCH_ = 64, /* a collection's own use; 0 between collections */

    WN_ROOT_OWNED_ = 0,
    WN_ROOT_BORROWED_ = 1
};

/* A thread's allocation buffer: [cursor, limit) is free, zeroed and the thread's own. */
typedef struct wn_buffer_ {
    char *cursor, *limit;
} wn_buffer_;

/* A declared local root: a link of the mutator's list that lives in the client's frame. What only the end of its scope
 * needs is not in it but in a wn_root_end_, which never leaves the registers: behind stores to cold objects, each store
 * to the frame takes a place in the processor's queue, and when that is full nothing goes on. */
typedef struct wn_root_link_ {
    struct wn_root_link_ *up;
    uintptr_t slot; /* the variable's address; lowest bit: WN_ROOT_BORROWED_ */
} wn_root_link_;
typedef struct wn_root_end_ {
    wn_mutator *m;
    wn_root_link_ *up;
    void *slot;
    uintptr_t kind;
} wn_root_end_;

/* The part of a mutator that fast paths use; the rest of it is behind it and private. */
struct wn_mutator {
    uint32_t mode;                   /* WN_MODE_...; changed only by this thread or while it stands still */
    uint32_t poll;                   /* somebody wants this thread at a safepoint; atomic */
    uint32_t nested;                 /* no-collect scopes and finalizers running */
    uintptr_t nursery, nursery_size; /* WN_MODE_YOUNG_, WN_MODE_MARKING_: what points into it is young */
    wn_root_link_ *roots;
    void **young, **young_end;     /* counting: the log of newly tracked objects */
    uint64_t pending_objects;      /* objects made since the statistics were last summed */
    wn_buffer_ *from[WN_CLASSES_]; /* the buffer that a size class is taken from; several may share one (a nursery) */
    wn_buffer_ buffer[WN_CLASSES_];
};

#if defined(WN_COLLECTOR) && WN_COLLECTOR == 1
#define WN_MAY_(bits) ((bits) & (WN_MODE_COUNT_ | WN_MODE_ATOMIC_ | WN_MODE_CHECK_))
#elif defined(WN_COLLECTOR) && WN_COLLECTOR == 2
#define WN_MAY_(bits) ((bits) & (WN_MODE_REMEMBER_ | WN_MODE_YOUNG_ | WN_MODE_MARKING_ | WN_MODE_CHECK_))
#elif defined(WN_COLLECTOR) && WN_COLLECTOR == 3
#define WN_MAY_(bits) ((bits) & (WN_MODE_SHADE_ | WN_MODE_REMEMBER_ | WN_MODE_CHECK_))
#else
#define WN_MAY_(bits) (bits)
#endif

static inline bool wn_mode_(const wn_mutator *m, uint32_t bits) { return WN_MAY_(bits) && (m->mode & WN_MAY_(bits)); }
static inline bool wn_counting_(const wn_mutator *m) { return wn_mode_(m, WN_MODE_COUNT_ | WN_MODE_ATOMIC_); }

/* The side-table bytes of the object at an address: [0] count byte, [1] state byte. Four instructions, no load. */
static inline uint8_t *wn_meta_(const void *object) {
    uintptr_t a = (uintptr_t)object, mask = ((uintptr_t)1 << WN_CHUNK_SHIFT_) - 1;
    return (uint8_t *)((a & ~mask) + ((a & mask) >> WN_GRANULE_SHIFT_));
}

/* The slot that holds n bytes: steps of 16 up to 256, then eight steps per doubling; up to WN_HEADED_MAX_ a header more
 * than such a step, because behind the header of what is large there is most often a power of two. Above, where few
 * slots fill a block, that would cost more than it saves. Constant when n is. */
static inline size_t wn_slot_size_(size_t n) {
    if (n <= 256) return n <= WN_SLOT_MIN_ ? (size_t)WN_SLOT_MIN_ : (n + 15) & ~(size_t)15;
    size_t more = n <= WN_HEADED_MAX_ ? WN_HEADER_ : 0, m = n - more;
    size_t step = (size_t)1 << (60 - __builtin_clzll((unsigned long long)m - 1));
    return ((m + step - 1) & ~(step - 1)) + more;
}
/* The size class of a slot size (at most WN_SMALL_MAX_). */
static inline unsigned wn_class_of_slot_(size_t slot) {
    if (slot <= 256) return (unsigned)(slot / 16 - 1);
    size_t m = (slot <= WN_HEADED_MAX_ ? slot - WN_HEADER_ : slot) - 1;
    unsigned e = 63u - (unsigned)__builtin_clzll((unsigned long long)m);
    return 17 + (e - 8) * 8 + (unsigned)(m >> (e - 3)) - 8;
}

WN_API void wn_poll_slow_(wn_mutator *m);
WN_API void *wn_new_slow_(wn_mutator *m, const wn_type *type);
WN_API void wn_young_full_(wn_mutator *m);
WN_API void wn_count_up_slow_(wn_mutator *m, void *object);
WN_API void wn_count_down_slow_(wn_mutator *m, void *object);
WN_API void wn_store_slow_(wn_mutator *m, void *holder, void *slot, void *value, bool takes_over);

static inline bool wn_has_refs_(const wn_type *t) { return (t->refs | t->item_refs) != 0 || t->trace; }

/* Whether its objects are taken from a buffer as they are. */
static inline bool wn_is_made_inline_(const wn_type *type) {
    return !(wn_slot_size_(type->size) > WN_SMALL_MAX_ ||
             (uintptr_t)type->finalize | (uintptr_t)type->release | type->item_size || type->flags & WN_TYPE_PINNED);
}

static inline void *wn_new_inline_(wn_mutator *m, const wn_type *type) {
    if (WN_UNLIKELY(!type)) return wn_new_slow_(m, type); /* no test where the type is a visible constant */
    if (WN_UNLIKELY(!wn_is_made_inline_(type))) return wn_new_slow_(m, type);
    size_t slot = wn_slot_size_(type->size);
    wn_buffer_ *b = m->from[wn_class_of_slot_(slot)];
    char *p = b->cursor;
    if (WN_UNLIKELY((size_t)(b->limit - p) < slot || __atomic_load_n(&m->poll, __ATOMIC_RELAXED)))
        return wn_new_slow_(m, type);
    b->cursor = p + slot;
    ((wn_object *)(void *)p)->type = type;
    if (wn_counting_(m)) {
        uint8_t *meta = wn_meta_(p);
        meta[0] = 1;
        if (wn_has_refs_(type)) {
            meta[1] = WN_STATE_TRACKED_;
            *m->young++ = p;
            if (WN_UNLIKELY(m->young == m->young_end)) wn_young_full_(m);
        } else {
            meta[1] = 0;
        }
    }
    return p;
}

/* One more reference. Plain: load, compare, store; anything else out of line. */
static inline void wn_count_up_(wn_mutator *m, void *object) {
    uint8_t *c = wn_meta_(object);
    if (wn_mode_(m, WN_MODE_COUNT_) && WN_LIKELY(*c < WN_COUNT_MAX_))
        *c = (uint8_t)(*c + 1);
    else
        wn_count_up_slow_(m, object);
}

/* One reference less. Plain and not the last: load, compare, store; anything else out of line. */
static inline void wn_count_down_(wn_mutator *m, void *object) {
    uint8_t *c = wn_meta_(object);
    if (wn_mode_(m, WN_MODE_COUNT_) && WN_LIKELY((uint8_t)(*c - 2) < WN_COUNT_MAX_ - 1))
        *c = (uint8_t)(*c - 1);
    else
        wn_count_down_slow_(m, object);
}

typedef void *wn_slot_ __attribute__((may_alias)); /* a reference of whatever type the client gave it */

/* Whether a store into this slot must be recorded: a load and a test, for an array of cards one more load. */
static inline bool wn_unrecorded_(const void *holder, const void *slot) {
    const uint8_t *meta = wn_meta_(holder), byte = __atomic_load_n(meta, __ATOMIC_RELAXED);
    if (byte == WN_OLD_CARDS_) {
        size_t card = (size_t)((const char *)slot - (const char *)holder) >> WN_CARD_SHIFT_;
        return !__atomic_load_n(meta + 2 + card, __ATOMIC_RELAXED);
    }
    return byte == WN_OLD_CLEAN_;
}

static inline bool wn_is_young_(const wn_mutator *m, const void *o) {
    return (uintptr_t)o - m->nursery < m->nursery_size;
}

/* Whether the backward barrier may have something to record. The value is at hand; the holder's side-table byte is one
 * more cache miss where holders lie anywhere, and most stores of a program that rewires old objects do without it:
 * while nothing is marked the value must be young. While marking goes on it must not be marked yet, which its own bit
 * tells, in a table an eighth as large; that is asked out of line. */
static inline bool wn_may_record_(const wn_mutator *m, const void *holder, const void *slot, const void *value) {
    if (wn_mode_(m, WN_MODE_YOUNG_)) {
        if (!wn_is_young_(m, value)) return false;
    } else if (wn_mode_(m, WN_MODE_MARKING_)) {
        return value && !wn_is_young_(m, holder);
    }
    return wn_unrecorded_(holder, slot);
}

static inline void wn_store_inline_(wn_mutator *m, void *holder, void *slot, void *value, bool takes_over) {
    wn_slot_ *s = (wn_slot_ *)slot;
    if (wn_mode_(m, WN_MODE_SHADE_ | WN_MODE_CHECK_)) {
        wn_store_slow_(m, holder, slot, value, takes_over);
    } else if (wn_counting_(m)) {
        void *old = *s;
        if (value && !takes_over) wn_count_up_(m, value);
        *s = value;
        if (old) wn_count_down_(m, old);
    } else if (wn_mode_(m, WN_MODE_REMEMBER_) && wn_may_record_(m, holder, slot, value)) {
        wn_store_slow_(m, holder, slot, value, takes_over);
    } else {
        __atomic_store_n(s, value, __ATOMIC_RELEASE); /* a plain store on x86-64 */
    }
}

static inline void *wn_root_slot_(const wn_root_link_ *link) {
    return (void *)(link->slot & ~(uintptr_t)WN_ROOT_BORROWED_);
}
static inline bool wn_root_is_owned_(const wn_root_link_ *link) { return !(link->slot & WN_ROOT_BORROWED_); }

static inline wn_root_end_ wn_root_push_(wn_root_link_ *link, wn_mutator *m, void *slot, uintptr_t kind) {
    wn_root_end_ end = {m, m->roots, slot, kind};
    link->up = end.up;
    link->slot = (uintptr_t)slot | kind;
    m->roots = link;
    return end;
}
static inline void wn_root_pop_(const wn_root_end_ *end) {
    wn_mutator *m = end->m;
    m->roots = end->up;
    if (wn_counting_(m) && end->kind == WN_ROOT_OWNED_) {
        void *o = *(wn_slot_ *)end->slot;
        if (o) wn_count_down_(m, o);
    }
}
#define WN_ROOT_LINK_(mutator, name, kind)                                         \
    wn_root_link_ name##_root_link_;                                               \
    __attribute__((cleanup(wn_root_pop_), unused)) wn_root_end_ name##_root_end_ = \
        wn_root_push_(&name##_root_link_, mutator, &name, kind)

/* While marking goes on in another thread, a root that is not in a stack (wn_global) is changed with the barrier; a
 * stack's need none, and which it is is found out off the fast path. */
WN_API void wn_root_slow_(wn_mutator *m, void *slot, void *value);

static inline void *wn_give_(wn_mutator *m, void *slot) {
    wn_slot_ *s = (wn_slot_ *)slot;
    void *o = *s;
    if (wn_mode_(m, WN_MODE_SHADE_))
        wn_root_slow_(m, slot, NULL);
    else
        *s = NULL;
    return o;
}
static inline void *wn_keep_(wn_mutator *m, void *object) {
    if (object && wn_counting_(m)) wn_count_up_(m, object);
    return object;
}
static inline void wn_take_(wn_mutator *m, void *slot, void *value) {
    wn_slot_ *s = (wn_slot_ *)slot;
    if (wn_mode_(m, WN_MODE_SHADE_)) {
        wn_root_slow_(m, slot, value);
        return;
    }
    void *old = *s;
    __atomic_store_n(s, value, __ATOMIC_RELAXED);
    if (old && wn_counting_(m)) wn_count_down_(m, old);
}
static inline void wn_assign_(wn_mutator *m, void *slot, void *value) { wn_take_(m, slot, wn_keep_(m, value)); }

WN_END
#endif
