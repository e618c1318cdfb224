/* bits.c - what of the bitmaps is not on a fast path: making regions, walking, copying and numbering planes. */
#include "engines/bits.h"

#include <string.h>

enum {
    PAGE_BYTES = WN_BITS_PAGE * sizeof(uint64_t),
    REGION_BYTES =
        WN_BITS_HEADER + WN_BITS_PLANES * WN_BITS_WORDS * sizeof(uint64_t) + WN_BITS_WORDS * sizeof(uint32_t),
    TOP_BYTES = WN_BITS_TOP * sizeof(uint64_t *)
};

_Static_assert(sizeof(wn_bits_region) <= WN_BITS_HEADER, "a region's header fits before its words");

bool wn_bits_make(wn_bits *b) {
    b->first = NULL;
    b->top = wn_os_map(TOP_BYTES);
    return b->top != NULL;
}

size_t wn_bits_region_bytes(void) { return REGION_BYTES; }

void wn_bits_trim(wn_bits *b) {
    for (wn_bits_region *r = b->first, *next; r; r = next) {
        next = r->next;
        b->top[r->start >> WN_BITS_REGION] = NULL;
        wn_os_release(r, REGION_BYTES);
    }
    b->first = NULL;
}

void wn_bits_trim_from(wn_bits *b, int plane) {
    for (wn_bits_region *r = b->first; r; r = r->next) {
        char *start = (char *)wn_bits_plane(wn_bits_words(r), plane);
        wn_os_discard(start, (size_t)((char *)r + REGION_BYTES - start));
    }
}

void wn_bits_drop(wn_bits *b) {
    if (!b->top) return;
    wn_bits_trim(b);
    wn_os_release(b->top, TOP_BYTES);
    b->top = NULL;
}

uint64_t *wn_bits_region_for(wn_bits *b, uintptr_t address) {
    uintptr_t i = address >> WN_BITS_REGION;
    if (i >= WN_BITS_TOP) return NULL;
    uint64_t *words = __atomic_load_n(&b->top[i], __ATOMIC_ACQUIRE);
    if (words) return words;
    wn_bits_region *r = wn_os_map(REGION_BYTES);
    if (!r) return NULL;
    r->start = i << WN_BITS_REGION;
    words = wn_bits_words(r);
    uint64_t *present = NULL;
    if (!__atomic_compare_exchange_n(&b->top[i], &present, words, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        wn_os_release(r, REGION_BYTES); /* another thread was first */
        return present;
    }
    r->next = __atomic_load_n(&b->first, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&b->first, &r->next, r, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    }
    return words;
}

/* Every page of every region that has been touched, with its first word's index. */
#define EACH_PAGE(b, r, i)                                       \
    for (wn_bits_region *r = (b)->first; r; r = r->next)         \
        for (size_t i = 0; i < WN_BITS_WORDS; i += WN_BITS_PAGE) \
            if (r->touched[i / WN_BITS_PAGE])

/* Reading a page before writing it costs little, and a write would take memory for a page that never held a bit, or
 * unshare one in a forked process. */
static bool has_members(const uint64_t *page) {
    uint64_t any = 0;
    for (size_t k = 0; k < WN_BITS_PAGE; k++) any |= page[k];
    return any != 0;
}
static void clear_page(uint64_t *page) {
    if (has_members(page)) memset(page, 0, PAGE_BYTES);
}

void wn_bits_clear(wn_bits *b, int plane) {
    EACH_PAGE(b, r, i) {
        uint64_t *w = wn_bits_words(r) + i;
        if (plane >= 0) {
            clear_page(wn_bits_plane(w, plane));
            continue;
        }
        for (int p = 0; p < WN_BITS_PLANES; p++) clear_page(wn_bits_plane(w, p));
        r->touched[i / WN_BITS_PAGE] = 0;
    }
}

void wn_bits_copy(wn_bits *b, int to, int from) {
    EACH_PAGE(b, r, i) {
        uint64_t *w = wn_bits_words(r) + i;
        if (has_members(wn_bits_plane(w, from)))
            memcpy(wn_bits_plane(w, to), wn_bits_plane(w, from), PAGE_BYTES);
        else
            clear_page(wn_bits_plane(w, to));
    }
}

size_t wn_bits_clear_range(wn_bits *b, int plane, uintptr_t start, size_t bytes) {
    size_t n = 0;
    uintptr_t word = (uintptr_t)64 << WN_BITS_GRANULE, end = start + bytes;
    for (uintptr_t at = start & ~(word - 1); at < end; at += word) {
        uint64_t *w = wn_bits_find(b, at);
        if (!w) { /* nor in the rest of the region */
            at |= ((uintptr_t)1 << WN_BITS_REGION) - word;
            continue;
        }
        w = wn_bits_plane(w, plane) + wn_bits_index(at);
        if (!*w) continue;
        uint64_t in = ~(uint64_t)0;
        if (at < start) in &= ~(uint64_t)0 << ((start - at) >> WN_BITS_GRANULE);
        if (end - at < word) in &= ((uint64_t)1 << ((end - at) >> WN_BITS_GRANULE)) - 1;
        n += (size_t)__builtin_popcountll(*w & in);
        *w &= ~in;
    }
    return n;
}

size_t wn_bits_number(wn_bits *b, int plane) {
    size_t n = 0;
    EACH_PAGE(b, r, i) {
        uint64_t *w = wn_bits_plane(wn_bits_words(r), plane);
        uint32_t *rank = wn_bits_ranks(wn_bits_words(r));
        if (!has_members(w + i)) continue;
        for (size_t k = i; k < i + WN_BITS_PAGE; k++) {
            if (!w[k]) continue;
            rank[k] = (uint32_t)n;
            n += (size_t)__builtin_popcountll(w[k]);
        }
    }
    return n;
}

size_t wn_bits_count(const wn_bits *b, int plane) {
    size_t n = 0;
    EACH_PAGE(b, r, i) {
        const uint64_t *w = wn_bits_plane(wn_bits_words(r), plane) + i;
        for (size_t k = 0; k < WN_BITS_PAGE; k++)
            if (w[k]) n += (size_t)__builtin_popcountll(w[k]);
    }
    return n;
}

void wn_bits_walk(const wn_bits *b, wn_bits_cursor *c) {
    c->region = b->first;
    c->index = (size_t)-1;
    c->rest = 0;
}

/* Most of what a plane covers late in a search is empty, so a page is first looked at whole. */
bool wn_bits_next_word(wn_bits_cursor *c, int plane) {
    for (; c->region; c->region = c->region->next, c->index = (size_t)-1) {
        const uint64_t *w = wn_bits_plane(wn_bits_words(c->region), plane);
        for (size_t i = c->index + 1; i < WN_BITS_WORDS;) {
            bool first = i % WN_BITS_PAGE == 0;
            if (!c->region->touched[i / WN_BITS_PAGE] || (first && !has_members(w + i))) {
                i = (i / WN_BITS_PAGE + 1) * WN_BITS_PAGE;
                continue;
            }
            if (w[i]) {
                c->index = i;
                c->rest = w[i];
                return true;
            }
            i++;
        }
    }
    return false;
}
