/*
 * nursery.c - where objects are born: one contiguous range, so that "is it young" is a single comparison.
 *
 * Between two minors stretches of it (pieces) are handed to threads, which fill them from the start without gaps: the
 * first zero type word ends the objects of a piece. An array's length is there before its type word is, so that other
 * threads can walk a piece while it is filled. After a minor everything is free again but the objects that had to
 * stay (pinned, or no old memory was to be had), so there may be several free stretches.
 *
 * Invariant: a piece is zero when it is handed out; its bytes in the side tables are zero but for objects that are
 * weakly referenced or have a shadow; every young object lies in exactly one piece; all mark bits are set, so
 * that a marker, which leaves young objects to the minors, need not ask whether one is.
 */
#include "incremental.h"

#include <stdlib.h>
#include <string.h>

enum {
    DEAD_BYTE = 0xDB,
    MAPPED = 2 * sizeof(void *) + sizeof(stretch) /* bytes for each object that fits: grey, stayed, pieces */
};

static bool add(stretches *s, char *start, char *end) {
    if (s->n == s->room) {
        size_t room = s->room ? s->room * 2 : 64;
        stretch *at = realloc(s->at, room * sizeof *at);
        if (!at) return false;
        s->at = at;
        s->room = room;
    }
    s->at[s->n++] = (stretch){start, end, start};
    return true;
}

bool wn_inc_nursery_init(incremental *inc, size_t bytes) {
    size_t blocks = bytes >> WN_BLOCK_SHIFT;
    wn_block *first = wn_space_take_blocks(&inc->heap->space, blocks);
    if (!first) return false;
    inc->nursery = wn_block_start(first);
    inc->nursery_size = blocks << WN_BLOCK_SHIFT;
    memset(wn_mark_words(first), 0xff, blocks * WN_BLOCK_WORDS * sizeof(uint64_t));
    /* Three arrays with room for every object that fits, so that a minor cannot run out of memory half-way, nor lose a
     * piece in which an object stays; pages that are never touched cost nothing. */
    size_t most = inc->nursery_size / WN_SLOT_MIN_;
    inc->grey = wn_os_map(most * MAPPED);
    if (!inc->grey) return false;
    inc->grey_top = inc->grey;
    inc->asked = inc->heap->options.check || inc->heap->options.stress;
    inc->stayed = inc->grey + most;
    inc->pieces = (stretches){.at = (stretch *)(inc->stayed + most), .room = most};
    return add(&inc->free, inc->nursery, inc->nursery + inc->nursery_size);
}

void wn_inc_nursery_fini(incremental *inc) {
    if (inc->grey) wn_os_release(inc->grey, inc->nursery_size / WN_SLOT_MIN_ * MAPPED);
    free(inc->free.at);
    wn_inc_map_free(&inc->pins);
    wn_inc_map_free(&inc->shadows);
}

bool wn_inc_nursery_take(incremental *inc, size_t least, bool beyond, stretch *out) {
    bool found = false;
    pthread_mutex_lock(&inc->lock);
    size_t left = inc->window > inc->handed && !beyond ? inc->window - inc->handed : 0;
    if (beyond) left = inc->nursery_size;
    while (inc->free_at < inc->free.n && inc->free.at[inc->free_at].start == inc->free.at[inc->free_at].end)
        inc->free_at++;
    for (size_t i = inc->free_at; i < inc->free.n && least <= left && !found; i++) {
        stretch *f = &inc->free.at[i];
        size_t room = (size_t)(f->end - f->start);
        if (room < least) continue;
        size_t take = least > ALONE_FROM ? least : room < PIECE ? room : PIECE;
        *out = (stretch){f->start, f->start + take, f->start};
        f->start += take;
        inc->turn = f->start;
        inc->handed += take;
        found = true;
    }
    pthread_mutex_unlock(&inc->lock);
    if (!found) return false;
    WN_ALLOW(out->start, (size_t)(out->end - out->start));
    memset(out->start, 0, (size_t)(out->end - out->start));
    /* Entered when it is zero, because other threads walk what is entered. */
    pthread_mutex_lock(&inc->lock);
    add(&inc->pieces, out->start, out->end);
    pthread_mutex_unlock(&inc->lock);
    return true;
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

static size_t slot_of(const void *o) { return wn_slot_size_(wn_bytes_of(o)); }

/* Divides the free stretches at `turn` and puts what lies behind it first: an address is used again only when all
 * others have been, so that a stale reference does not happen to point to a new object. */
static void turn(incremental *inc) {
    size_t n = inc->free.n;
    for (size_t i = 0; i < n; i++) {
        stretch f = inc->free.at[i];
        if (f.end <= inc->turn) {
            add(&inc->free, f.start, f.end);
        } else if (f.start < inc->turn) {
            add(&inc->free, f.start, inc->turn);
            inc->free.at[i].start = inc->turn;
            continue;
        } else {
            continue;
        }
        inc->free.at[i].end = inc->free.at[i].start; /* it is at the end of the list now */
    }
}

void wn_inc_nursery_reset(incremental *inc) {
    if (inc->heap->options.check)
        for (size_t i = 0; i < inc->pieces.n; i++) {
            /* What moved away is made unusable, so that a reference that was not declared is found out. */
            char *p = inc->pieces.at[i].start, *end = inc->pieces.at[i].end;
            while (p < end) {
                size_t j = 0, n = 0;
                if (wn_meta_(p)[1] & STATE_STAYS)
                    while (j < inc->stayed_n && inc->stayed[j] != p) j++;
                if (wn_meta_(p)[1] & STATE_STAYS && j < inc->stayed_n) n = slot_of(p);
                if (!n) memset(p, DEAD_BYTE, n = 16);
                p += n;
            }
        }
    if (inc->asked) memset(wn_alloc_words(wn_block_of(inc->nursery)), 0, inc->nursery_size >> WN_GRANULE_SHIFT_ >> 3);
    inc->asked = inc->heap->options.check || inc->heap->options.stress;
    inc->pieces.n = inc->free.n = inc->free_at = inc->handed = 0;
    char *at = inc->nursery;
    qsort(inc->stayed, inc->stayed_n, sizeof(void *), by_address);
    for (size_t i = 0; i < inc->stayed_n; i++) {
        char *o = inc->stayed[i], *end = o + slot_of(o);
        wn_meta_(o)[1] &= (uint8_t)~STATE_STAYS;
        /* A free stretch that is not entered for want of memory is only not used until the next minor. */
        if (at < o) add(&inc->free, at, o);
        add(&inc->pieces, o, end);
        if (inc->asked) wn_inc_nursery_note(o);
        at = end;
    }
    if (at < inc->nursery + inc->nursery_size) add(&inc->free, at, inc->nursery + inc->nursery_size);
    if (inc->heap->options.check) turn(inc);
    for (size_t i = 0; WN_FORBIDS && i < inc->free.n; i++)
        WN_FORBID(inc->free.at[i].start, (size_t)(inc->free.at[i].end - inc->free.at[i].start));
    inc->stayed_n = 0;
    inc->first_new = inc->pieces.n;
}

/* ---- walking ----------------------------------------------------------------------------------------------------- */

void wn_inc_nursery_note(const void *young) {
    uint64_t bit, *word = wn_bit_of(young, WN_ALLOC_TABLE, &bit);
    __atomic_fetch_or(word, bit, __ATOMIC_RELEASE);
}

/* Sets the alloc bits of a piece's objects as far as there are some, where that was not done when they were made. Its
 * thread may be filling it: an object is there when its type word is, and then so is an array's length. */
static void learn(incremental *inc, stretch *p) {
    const wn_options *o = &inc->heap->options;
    if (o->check || o->stress) return;
    inc->asked = true;
    while (p->known < p->end && __atomic_load_n((const wn_type **)p->known, __ATOMIC_ACQUIRE)) {
        wn_inc_nursery_note(p->known);
        p->known += slot_of(p->known);
    }
}

void *wn_inc_nursery_object_at(incremental *inc, const void *address, bool exact) {
    if ((uintptr_t)address % 16 == 0 && wn_is_allocated(address)) return (void *)address;
    void *found = NULL;
    pthread_mutex_lock(&inc->lock);
    for (size_t i = 0; i < inc->pieces.n; i++) {
        stretch *p = &inc->pieces.at[i];
        if ((const char *)address < p->start || (const char *)address >= p->end) continue;
        learn(inc, p);
        char *o = (char *)((uintptr_t)address & ~(uintptr_t)15);
        if (exact) {
            if (o == address && wn_is_allocated(o)) found = o;
            break;
        }
        while (o > p->start && !wn_is_allocated(o)) o -= 16;
        if (wn_is_allocated(o) && (const char *)address < o + slot_of(o)) found = o;
        break;
    }
    pthread_mutex_unlock(&inc->lock);
    return found;
}

bool wn_inc_nursery_each(const incremental *inc, bool (*visit)(void *object, void *data), void *data) {
    for (size_t i = 0; i < inc->pieces.n; i++)
        for (char *o = inc->pieces.at[i].start; o < inc->pieces.at[i].end && wn_type_of(o);) {
            char *next = o + slot_of(o);
            if (!visit(o, data)) return false;
            o = next;
        }
    return true;
}
