/*
 * bits.h - bitmaps over the address space: one bit for every 16 bytes, found from an address with one look-up.
 *
 * The engines work on any heap, so they cannot ask for room in an object: everything they know about one is a bit here.
 * Addresses are divided into regions of 256 MiB. A region comes into being when its first bit is set; it reserves 9 MiB
 * of addresses and takes memory only for the pages that are written, 1/128 of the heap for a plane. The planes of a
 * region lie at fixed distances, so that one look-up serves them all.
 *
 * Invariant: a word of any plane is non-zero only if `touched` is set for its page; clearing a plane and walking it
 * therefore cost what was used, not what was reserved.
 *
 * Addresses above 48 bits, which Linux gives only to those who ask, are never members.
 */
#ifndef WN_BITS_H
#define WN_BITS_H

#include "platform/platform.h"

enum {
    WN_BITS_GRANULE = 4,                                         /* log2 of the bytes that share a bit */
    WN_BITS_REGION = 28,                                         /* log2 of the bytes of a region */
    WN_BITS_WORDS = 1 << (WN_BITS_REGION - WN_BITS_GRANULE - 6), /* words of a plane */
    WN_BITS_PAGE = 512,                                          /* words that share a byte of `touched` */
    WN_BITS_PAGES = WN_BITS_WORDS / WN_BITS_PAGE,
    WN_BITS_TOP = 1 << (48 - WN_BITS_REGION),
    WN_BITS_PLANES = 4,
    WN_BITS_HEADER = 4096
};

/* The header of a region; its planes follow WN_BITS_HEADER bytes behind, then a word of 32 bits for each word of a
 * plane, used for ranks. */
typedef struct wn_bits_region {
    struct wn_bits_region *next;
    uintptr_t start; /* the first address */
    uint8_t touched[WN_BITS_PAGES];
} wn_bits_region;

typedef struct wn_bits {
    uint64_t **top;        /* by address >> WN_BITS_REGION: the region's first plane, or NULL */
    wn_bits_region *first; /* all regions */
} wn_bits;

/* False: no memory. A zeroed wn_bits may be dropped without having been made. */
bool wn_bits_make(wn_bits *b);
void wn_bits_drop(wn_bits *b);
/* What a region takes, of addresses at least. */
size_t wn_bits_region_bytes(void);
/* The words of an address's region, made if need be; NULL: no memory, or not an address a bit can stand for. */
uint64_t *wn_bits_region_for(wn_bits *b, uintptr_t address);
/* Zeroes a plane; all of them, and what was touched, with `plane` -1. */
void wn_bits_clear(wn_bits *b, int plane);
/* Takes all members of a plane out that lie in a range of addresses; returns how many those were. */
size_t wn_bits_clear_range(wn_bits *b, int plane, uintptr_t start, size_t bytes);
/* Gives the memory of all regions back, or of `plane` and those after it, with the ranks, which then are empty. */
void wn_bits_trim(wn_bits *b);
void wn_bits_trim_from(wn_bits *b, int plane);
/* plane `to` becomes a copy of plane `from`. */
void wn_bits_copy(wn_bits *b, int to, int from);
/* Numbers the members of a plane in address order, for wn_bits_rank. Returns how many there are. */
size_t wn_bits_number(wn_bits *b, int plane);
size_t wn_bits_count(const wn_bits *b, int plane);

static inline wn_bits_region *wn_bits_region_of(uint64_t *words) {
    return (wn_bits_region *)((char *)words - WN_BITS_HEADER);
}
static inline uint64_t *wn_bits_plane(uint64_t *words, int plane) { return words + (size_t)plane * WN_BITS_WORDS; }
static inline uint32_t *wn_bits_ranks(uint64_t *words) {
    return (uint32_t *)(words + (size_t)WN_BITS_PLANES * WN_BITS_WORDS);
}
static inline uint64_t *wn_bits_words(const wn_bits_region *r) { return (uint64_t *)((char *)r + WN_BITS_HEADER); }
static inline size_t wn_bits_index(uintptr_t address) {
    return (address >> (WN_BITS_GRANULE + 6)) & (WN_BITS_WORDS - 1);
}
static inline uint64_t wn_bits_mask(uintptr_t address) { return (uint64_t)1 << (address >> WN_BITS_GRANULE & 63); }

/* The region's words, or NULL when no member lies in its region: one load and two predictable tests. */
static WN_ALWAYS_INLINE uint64_t *wn_bits_find(const wn_bits *b, uintptr_t address) {
    uintptr_t i = address >> WN_BITS_REGION;
    return i < WN_BITS_TOP ? b->top[i] : NULL;
}

static WN_ALWAYS_INLINE bool wn_bits_test(const wn_bits *b, int plane, uintptr_t address) {
    uint64_t *w = wn_bits_find(b, address);
    return w && (wn_bits_plane(w, plane)[wn_bits_index(address)] & wn_bits_mask(address));
}

/* Of the word that an address has its bit in. */
static WN_ALWAYS_INLINE bool wn_bits_take_from_(uint64_t *w, uintptr_t address) {
    uint64_t old = __atomic_load_n(w, __ATOMIC_RELAXED);
    unsigned bit = (unsigned)(address >> WN_BITS_GRANULE);
    if (!(old >> (bit & 63) & 1)) return false;
    __atomic_store_n(w, old & ~((uint64_t)1 << (bit & 63)), __ATOMIC_RELAXED);
    return true;
}

/* Takes a member out; false when it was none. Two threads may do this at once: a lost update leaves a member in, which
 * every user of the engines must be able to bear, and saves a locked instruction for each object. */
static WN_ALWAYS_INLINE bool wn_bits_take(const wn_bits *b, int plane, uintptr_t address) {
    uint64_t *w = wn_bits_find(b, address);
    if (!w) return false;
    return wn_bits_take_from_(wn_bits_plane(w, plane) + wn_bits_index(address), address);
}

/* A plane of the region that was looked into last, for loops that look into one a million times: eight instructions to
 * a word instead of fourteen. A local variable, from wn_bits_near_nothing. Good until the bits are made anew. */
typedef struct wn_bits_near {
    uintptr_t region;  /* the addresses' common part, shifted */
    uintptr_t words;   /* where the word of address 0 would be, were it in the region */
    uintptr_t touched; /* the same of `touched` */
} wn_bits_near;

static inline wn_bits_near wn_bits_near_nothing(void) { return (wn_bits_near){UINTPTR_MAX, 0, 0}; }

static WN_ALWAYS_INLINE void wn_bits_go_near_(wn_bits_near *n, uint64_t *words, int plane, uintptr_t address) {
    n->region = address >> WN_BITS_REGION;
    n->words = (uintptr_t)wn_bits_plane(words, plane) - n->region * WN_BITS_WORDS * sizeof *words;
    n->touched = (uintptr_t)wn_bits_region_of(words)->touched - n->region * WN_BITS_PAGES;
}
static WN_ALWAYS_INLINE uint64_t *wn_bits_near_word_(const wn_bits_near *n, uintptr_t address) {
    return (uint64_t *)(n->words + (address >> (WN_BITS_GRANULE + 6)) * sizeof(uint64_t));
}

/* wn_bits_put, for the same plane each time. `was`: whether it was a member. */
static WN_ALWAYS_INLINE bool wn_bits_put_near(wn_bits *b, wn_bits_near *n, int plane, uintptr_t address, bool *was) {
    if (__builtin_expect(address >> WN_BITS_REGION != n->region, 0)) {
        uint64_t *words = wn_bits_region_for(b, address);
        *was = false;
        if (!words) return false;
        wn_bits_go_near_(n, words, plane, address);
    }
    __atomic_store_n((uint8_t *)(n->touched + address / (WN_BITS_PAGE * 64 << WN_BITS_GRANULE)), 1, __ATOMIC_RELAXED);
    uint64_t *w = wn_bits_near_word_(n, address), mask = wn_bits_mask(address);
    *was = *w & mask;
    *w |= mask;
    return true;
}

/* Makes an address a member; false: no memory. One thread for each plane at a time. */
static WN_ALWAYS_INLINE bool wn_bits_put(wn_bits *b, int plane, uintptr_t address) {
    uint64_t *w = wn_bits_find(b, address);
    if (!w && !(w = wn_bits_region_for(b, address))) return false;
    size_t i = wn_bits_index(address);
    __atomic_store_n(&wn_bits_region_of(w)->touched[i / WN_BITS_PAGE], 1, __ATOMIC_RELAXED);
    wn_bits_plane(w, plane)[i] |= wn_bits_mask(address);
    return true;
}

/* The number of a member (or where it would stand) in the plane numbered last. */
static WN_ALWAYS_INLINE size_t wn_bits_rank(uint64_t *words, int plane, uintptr_t address) {
    size_t i = wn_bits_index(address);
    return wn_bits_ranks(words)[i] +
           (size_t)__builtin_popcountll(wn_bits_plane(words, plane)[i] & (wn_bits_mask(address) - 1));
}

/* Walking a plane in address order within each region. Members taken out behind the cursor or put in ahead of it, in
 * another word, do not disturb it. */
typedef struct wn_bits_cursor {
    const wn_bits_region *region;
    size_t index;
    uint64_t rest;
} wn_bits_cursor;

void wn_bits_walk(const wn_bits *b, wn_bits_cursor *c);
bool wn_bits_next_word(wn_bits_cursor *c, int plane); /* the next word with members; false: the end */

static WN_ALWAYS_INLINE void *wn_bits_next(wn_bits_cursor *c, int plane) {
    if (!c->rest && !wn_bits_next_word(c, plane)) return NULL;
    unsigned bit = (unsigned)__builtin_ctzll(c->rest);
    c->rest &= c->rest - 1;
    return (void *)(c->region->start + ((c->index * 64 + bit) << WN_BITS_GRANULE));
}

#endif
