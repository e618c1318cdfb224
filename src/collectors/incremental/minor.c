/*
 * minor.c - the minor collection: what is young and still reached moves to the old space, so a minor costs what
 * survives, not what died.
 *
 * Roots and remembered objects are scanned for young references; each young object found is copied once, leaves its new
 * address in its old type word, and is scanned in turn. The world is stopped from begin to end. While a major
 * collection marks, the same pass shades: whatever a black remembered object or a new object refers to is white no more
 * (step Minor of the model). New old objects are black because the runs of slots they are taken from were blackened
 * when they were taken (old.c).
 *
 * An object that cannot move, because it is pinned, because its address is its identity or because no old slot is to
 * be had, stays, is scanned where it is, and whatever old object refers to it stays in the remembered set.
 */
#include "incremental.h"

#include <string.h>

enum { AHEAD = 16 }; /* remembered objects fetched ahead of their scan */

/* ---- moving ------------------------------------------------------------------------------------------------------ */

void wn_inc_minor_stay(incremental *inc, void *o) {
    uint8_t *state = &wn_meta_(o)[1];
    if (*state & STATE_STAYS) return;
    *state |= STATE_STAYS;
    inc->stayed[inc->stayed_n++] = o;
    *inc->grey_top++ = o;
}

/* A reference was found to an object that does not move: its holder must be looked at by the next minor, too. */
static WN_NOINLINE void *met(incremental *inc, void *o) {
    wn_inc_minor_stay(inc, o);
    inc->met_young = true;
    return o;
}

/* Slots are multiples of 16 bytes and most are small: a loop costs less than a call. */
static WN_ALWAYS_INLINE void copy(void *to, const void *from, size_t slot) {
    if (WN_UNLIKELY(slot > 256)) {
        memcpy(to, from, slot);
        return;
    }
    for (size_t i = 0; i < slot; i += 16) memcpy((char *)to + i, (const char *)from + i, 16);
}

static WN_ALWAYS_INLINE void *move_to(incremental *inc, void *o, void *to, size_t slot, const wn_type *t) {
    copy(to, o, slot);
    wn_meta_(to)[0] = WN_OLD_CLEAN_;
    *(uintptr_t *)o = (uintptr_t)to | FORWARDED;
    inc->moved_bytes += slot;
    inc->moved_objects++;
    if (wn_has_refs_(t)) *inc->grey_top++ = to;
    return to;
}

/* n pairs: from where to where. */
static void weak_moved(incremental *inc, void *const *moves, size_t n) {
    wn_weak_moved(inc->heap, moves, n);
    if (!is_marking(inc)) return;
    for (size_t i = 0; i < n; i++) wn_inc_major_shade_values(inc, moves[2 * i + 1]);
}

/* The rare ones: those that stay (what is pinned has been told to), weakly referenced ones, and those with a shadow. */
static WN_NOINLINE void *move_noted(incremental *inc, void *o, const wn_type *t, size_t slot) {
    uint8_t *meta = wn_meta_(o);
    if (meta[1] & STATE_STAYS) return met(inc, o);
    void *to;
    if (meta[1] & STATE_SHADOWED) {
        map_entry *e = wn_inc_map_find(&inc->shadows, o);
        if (!e) return met(inc, o);
        to = (void *)e->value;
        wn_inc_map_remove(&inc->shadows, e);
        /* It may have been reserved before marking began. */
        if (inc->phase != IDLE && wn_block_of(to)->epoch != inc->epoch) set_mark(to);
    } else {
        to = wn_inc_old_take(inc, slot, KIND_PLAIN);
        if (!to) return met(inc, o);
    }
    uint8_t state = meta[1] & (uint8_t) ~(STATE_SHADOWED | WN_STATE_WEAK_);
    move_to(inc, o, to, slot, t);
    wn_meta_(to)[1] |= state;
    if (meta[1] & WN_STATE_WEAK_) {
        if (wn_vector_reserve(&inc->weak_moves, inc->weak_moves.n + 2)) {
            wn_vector_push(&inc->weak_moves, o);
            wn_vector_push(&inc->weak_moves, to);
        } else {
            weak_moved(inc, (void *[]){o, to}, 1);
        }
    }
    meta[1] = 0;
    return to;
}

static WN_ALWAYS_INLINE void *move(incremental *inc, void *o) {
    const wn_type *t = wn_type_of(o);
    size_t slot = wn_slot_size_(wn_bytes_of(o));
    if (WN_UNLIKELY(wn_meta_(o)[1])) return move_noted(inc, o, t, slot);
    unsigned cls = wn_class_of_slot_(slot);
    wn_buffer_ *b = &inc->room[KIND_PLAIN][cls];
    if (WN_UNLIKELY(b->cursor == b->limit) && !wn_inc_old_refill(inc, KIND_PLAIN, cls)) return met(inc, o);
    void *to = b->cursor;
    b->cursor += slot;
    return move_to(inc, o, to, slot, t);
}

/* One reference, dragged out of the nursery (PyPy's word): what is young moves, what is old and white is shaded if the
 * holder asks for it. */
static WN_ALWAYS_INLINE void drag(incremental *inc, void **slot, bool shading) {
    void *o = *slot;
    if (!is_young(inc, o)) {
        if (shading && o) shade(inc, o);
        return;
    }
    uintptr_t word = *(uintptr_t *)o;
    *slot = word & FORWARDED ? (void *)(word & ~(uintptr_t)FORWARDED) : move(inc, o);
}

static void drag_only(void **slot, void *inc) { drag(inc, slot, false); }
static void drag_and_shade(void **slot, void *inc) { drag(inc, slot, true); }

static WN_ALWAYS_INLINE void drag_all(incremental *inc, void *holder, bool shading) {
    if (shading)
        wn_each_ref(holder, drag_and_shade, inc);
    else
        wn_each_ref(holder, drag_only, inc);
    if (WN_UNLIKELY(wn_type_of(holder)->flags & WN_TYPE_EPHEMERON)) {
        /* To a minor an ephemeron's value is a plain reference; the next major is exact. A white value of a white key
         * is not shaded: when the key is marked, the value is. */
        wn_ephemeron *p = holder;
        bool key_lives = p->key && (is_young(inc, p->key) || is_marked(p->key));
        drag(inc, &p->value, shading && key_lives);
    }
}

/* ---- remembered sets --------------------------------------------------------------------------------------------- */

static void remember_again(incremental *inc, void *holder) {
    wn_meta_(holder)[0] = OLD_REMEMBERED;
    if (!wn_vector_push(&inc->kept, holder)) inc->remembered_lost = true;
}

static void scan_new(incremental *inc, bool shading) {
    while (inc->grey_top != inc->grey) {
        void *o = *--inc->grey_top;
        inc->met_young = false;
        drag_all(inc, o, shading);
        if (WN_UNLIKELY(inc->met_young) && !is_young(inc, o)) remember_again(inc, o);
    }
}

static void scan_holder(incremental *inc, void *holder, bool marking) {
    uint8_t *meta = wn_meta_(holder);
    if (meta[0] != OLD_REMEMBERED) return; /* recorded by two threads, and seen */
    meta[0] = WN_OLD_CLEAN_;
    if (is_frozen(holder)) wn_inc_freeze_written(inc, holder);
    inc->met_young = false;
    drag_all(inc, holder, marking && is_marked(holder));
    if (WN_UNLIKELY(inc->met_young)) remember_again(inc, holder);
    scan_new(inc, marking);
}

/* The part of a long array that a card covers, whose byte is 0. */
static void scan_part(incremental *inc, char *start, void *holder, uint8_t *card, unsigned shift, bool marking) {
    const wn_type *t = wn_type_of(holder);
    size_t length = wn_length_of(holder, t);
    size_t low = (size_t)(start - (char *)holder), high = low + ((size_t)1 << shift);
    size_t from = low <= t->size ? 0 : (low - t->size) / t->item_size;
    size_t to = high <= t->size ? 0 : (high - t->size + t->item_size - 1) / t->item_size;
    if (to > length) to = length;
    inc->met_young = false;
    bool shading = marking && is_marked(holder);
    for (uint64_t map = low < t->size ? t->refs : 0; map; map &= map - 1)
        drag(inc, (void **)holder + __builtin_ctzll(map), shading);
    if (shading)
        wn_each_item_ref(holder, t, from, to, drag_and_shade, inc);
    else
        wn_each_item_ref(holder, t, from, to, drag_only, inc);
    if (WN_UNLIKELY(inc->met_young)) {
        *card = 1;
        if (wn_vector_reserve(&inc->kept, inc->kept.n + 2)) { /* never half of an entry */
            wn_vector_push(&inc->kept, (void *)((uintptr_t)start | 1));
            wn_vector_push(&inc->kept, holder);
        } else {
            inc->remembered_lost = true;
        }
    }
    scan_new(inc, marking);
}

static void scan_card(incremental *inc, char *start, void *holder, bool marking) {
    unsigned shift = wn_inc_card_shift(wn_bytes_of(holder));
    uint8_t *card = card_of(holder, (size_t)(start - (char *)holder) >> shift);
    if (!*card) return; /* recorded by two threads, and seen */
    *card = 0;
    if (is_frozen(holder)) wn_inc_freeze_written(inc, holder);
    scan_part(inc, start, holder, card, shift, marking);
}

static void scan_set(incremental *inc, const wn_vector *set, bool marking) {
    for (size_t i = 0; i < set->n; i++) {
        uintptr_t word = (uintptr_t)set->at[i];
        if (i + AHEAD < set->n) {
            /* The side-table bytes first, the object half-way: each has arrived when it is needed. */
            char *later = set->at[i + AHEAD], *soon = set->at[i + AHEAD / 2];
            if ((uintptr_t)later & 1) {
                WN_PREFETCH(later);
                WN_PREFETCH(later + 64);
            } else {
                WN_PREFETCH(wn_meta_(later));
                WN_PREFETCH(soon);
            }
        }
        if (word & 1)
            scan_card(inc, (char *)(word & ~(uintptr_t)1), set->at[++i], marking);
        else
            scan_holder(inc, (void *)word, marking);
    }
}

/* All of an object whose entry may have been lost. A card or a count byte that went on saying that it is recorded would
 * keep every later store from being so. What is as it should be is not written: a forked child shares these pages. */
static void scan_unknown(incremental *inc, void *o, bool marking) {
    bool out = !is_frozen(o) || wn_inc_freeze_leads_out(inc, o); /* else it refers to nothing young */
    uint8_t *meta = wn_meta_(o);
    size_t bytes = wn_bytes_of(o);
    if (has_cards(wn_type_of(o), bytes)) {
        unsigned shift = wn_inc_card_shift(bytes);
        if (out && is_frozen(o)) wn_inc_freeze_written(inc, o);
        for (size_t n = 0; n << shift < bytes; n++) {
            uint8_t *card = card_of(o, n);
            if (*card) *card = 0;
            if (out) scan_part(inc, (char *)o + (n << shift), o, card, shift, marking);
        }
    } else if (out) {
        meta[0] = OLD_REMEMBERED;
        scan_holder(inc, o, marking);
    } else if (meta[0] != WN_OLD_CLEAN_) {
        meta[0] = WN_OLD_CLEAN_;
    }
}

/* The remembered set could not be kept for want of memory: every old object may be in it. */
static void scan_everything(incremental *inc, bool marking) {
    WN_EACH_BLOCK(&inc->heap->space, c, b) {
        size_t g = 0;
        for (void *o; (o = wn_block_next(b, &g));) {
            if (!wn_type_of(o) || !wn_meta_(o)[0]) continue;
            /* What is dead is whole until the sweep: a finalizer may need it. From then on it may dangle. */
            if (inc->phase == SWEEPING && b->epoch != inc->epoch && !is_marked(o)) continue;
            scan_unknown(inc, o, marking);
        }
    }
}

/* ---- the minor --------------------------------------------------------------------------------------------------- */

static void root(void **slot, void *context) {
    incremental *inc = context;
    if (is_young(inc, *slot)) drag(inc, slot, false);
}

static void stay_if_young(incremental *inc, void *o) {
    if (is_young(inc, o)) wn_inc_minor_stay(inc, o);
}

static bool weakref_is_alive(void *inc, void *ref) { return !is_found_dead(inc, ref); }

/* Young objects that are noted in a table and were not reached: their weak references are cleared, their shadows given
 * back. They are found by their bytes in the side table, the only ones of the nursery that are not zero. */
static void bury(incremental *inc, mutator *m) {
    uint8_t *bytes = wn_meta_(inc->nursery);
    size_t n = inc->nursery_size >> WN_GRANULE_SHIFT_;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, bytes + i, 8);
        if (WN_LIKELY(!eight)) continue;
        for (size_t j = i; j < i + 8; j++) {
            if (!bytes[j] || bytes[j] & STATE_STAYS) continue;
            uint8_t state = bytes[j];
            void *o = inc->nursery + ((j - 1) << WN_GRANULE_SHIFT_);
            if (state & WN_STATE_WEAK_) wn_weak_target_died(m, o, weakref_is_alive, inc, NULL);
            if (state & STATE_SHADOWED) {
                map_entry *e = wn_inc_map_find(&inc->shadows, o);
                if (e) {
                    wn_inc_old_unreserve(inc, (void *)e->value);
                    wn_inc_map_remove(&inc->shadows, e);
                } else {
                    inc->settled--;
                }
            }
            bytes[j] = 0;
        }
    }
}

/* Takes the buffers away; returns how much of them was not used. */
static size_t close_pieces(incremental *inc) {
    size_t unused = 0;
    for (mutator *each = inc->heap->mutators; each; each = each->next) {
        wn_buffer_ *b = &each->buffers[0];
        unused += (size_t)(b->limit - b->cursor);
        b->cursor = b->limit = NULL;
    }
    return unused;
}

/* Counts what was made in the pieces, and what of it survived: one by one while there are few pieces, or when a caller
 * has asked; else by the average of every sixteenth. */
static void count_pieces(incremental *inc, size_t unused) {
    size_t bytes = (size_t)0 - unused;
    bool telling = wn_inc_tenure_is_telling(inc) && !inc->keep_all; /* that all is kept says nothing */
    for (size_t i = inc->first_new; i < inc->pieces.n; i++) {
        stretch p = inc->pieces.at[i];
        bytes += (size_t)(p.end - p.start);
        bool sampling = !inc->count_all && inc->pieces_seen++ > 256;
        if (sampling && inc->pieces_seen % 16) continue;
        uint64_t objects = inc->walked_objects, walked = inc->walked_bytes;
        wn_inc_tenure_sample(inc, p, !telling ? 0 : sampling ? 16 : 1);
        inc->nursery_objects += (double)(inc->walked_objects - objects);
        inc->nursery_bytes += (double)(inc->walked_bytes - walked);
        bytes -= inc->walked_bytes - walked;
    }
    /* A piece's unused end is counted as used here: it is small beside the piece. */
    if (!inc->count_all && inc->pieces_seen > 256 && (ptrdiff_t)bytes > 0) {
        inc->nursery_bytes += (double)bytes;
        inc->nursery_objects += (double)bytes * (double)inc->walked_objects / (double)inc->walked_bytes;
    }
}

/* Counts what did not move and does not stay, for a caller that has asked. */
static void count_dead(incremental *inc) {
    inc->dead_objects = inc->dead_bytes = 0;
    for (size_t i = 0; i < inc->pieces.n; i++) {
        stretch p = inc->pieces.at[i];
        for (char *o = p.start; o < p.end && *(uintptr_t *)o;) {
            uintptr_t word = *(uintptr_t *)o;
            bool moved = word & FORWARDED;
            size_t slot = wn_slot_size_(wn_bytes_of(moved ? (void *)(word & ~(uintptr_t)FORWARDED) : o));
            if (!moved && !(wn_meta_(o)[1] & STATE_STAYS)) {
                inc->dead_objects++;
                inc->dead_bytes += slot;
            }
            o += slot;
        }
    }
}

/* Moves whatever lies in the nursery, garbage too. */
static void move_all(incremental *inc, bool marking) {
    for (size_t i = 0; i < inc->pieces.n; i++) {
        stretch p = inc->pieces.at[i];
        for (char *o = p.start; o < p.end && *(uintptr_t *)o;) {
            void *at = o;
            drag(inc, &at, false);
            scan_new(inc, marking);
            o += wn_slot_size_(wn_bytes_of(at));
        }
    }
}

static void scan_roots(incremental *inc, bool marking) {
    wn_heap *heap = inc->heap;
    /* First what stays, before anything else is met that refers to it and would move it. */
    if (heap->options.conservative_stacks) wn_inc_conservative_scan(inc, stay_if_young);
    if (inc->pinned_young)
        MAP_EACH(&inc->pins, e) stay_if_young(inc, e->key);
    scan_new(inc, marking);
    if (inc->keep_all) move_all(inc, marking);
    wn_each_root(heap, root, inc);
    scan_new(inc, marking);
    for (size_t i = inc->immortal_young; i < heap->immortals.n; i++) root(&heap->immortals.at[i], inc);
    scan_new(inc, marking);
    /* One that is pinned is young still, and may be followed by others that are old. */
    while (inc->immortal_young < heap->immortals.n && !is_young(inc, heap->immortals.at[inc->immortal_young]))
        inc->immortal_young++;
}

/* What has to be kept once more goes into a new `kept`. */
static void scan_remembered(incremental *inc, bool marking) {
    wn_vector kept = inc->kept;
    inc->kept = (wn_vector){0};
    bool lost = inc->remembered_lost;
    inc->remembered_lost = false;
    if (WN_UNLIKELY(lost))
        scan_everything(inc, marking);
    else
        scan_set(inc, &kept, marking);
    wn_vector_free(&kept);
    for (mutator *each = inc->heap->mutators; each; each = each->next) {
        if (WN_LIKELY(!lost)) scan_set(inc, remembered_of(each), marking);
        remembered_of(each)->n = 0;
    }
}

/* Places that are reserved for objects that stay survive the sweep as the objects do. */
static void keep_places(incremental *inc) {
    if (!inc->stayed_n || inc->phase == IDLE) return;
    MAP_EACH(&inc->shadows, e) {
        void *place = (void *)e->value;
        if (wn_meta_(e->key)[1] & STATE_STAYS && wn_block_of(place)->epoch != inc->epoch) set_mark(place);
    }
}

void wn_inc_minor_run(incremental *inc, mutator *m) {
    bool marking = is_marking(inc);
    pthread_mutex_lock(&inc->counts_lock);
    inc->moved_bytes = inc->moved_objects = 0;
    size_t unused = close_pieces(inc);
    size_t live = __atomic_load_n(&inc->heap->space.live_bytes, __ATOMIC_RELAXED) + inc->handed;
    if (live > inc->live_max) inc->live_max = live;

    scan_roots(inc, marking);
    scan_remembered(inc, marking);
    keep_places(inc);
    weak_moved(inc, inc->weak_moves.at, inc->weak_moves.n / 2);
    inc->weak_moves.n = 0;
    if (inc->heap->weak.live || inc->shadows.n || inc->settled) bury(inc, m);

    inc->moved_bytes_total += inc->moved_bytes;
    inc->moved_objects_total += inc->moved_objects;
    count_pieces(inc, unused);
    if (inc->count_all) count_dead(inc);
    wn_inc_tenure_judge(inc);
    wn_inc_nursery_reset(inc);
    inc->minors++;
    pthread_mutex_unlock(&inc->counts_lock);
}
