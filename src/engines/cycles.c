/* cycles.c - the cycle search's memory: making, ranks and counts, and the garbage put into batches. */
#include "engines/cycles.h"

#include <string.h>

static size_t whole_pages(size_t bytes) { return (bytes + 4095) & ~(size_t)4095; }

bool wn_cycles_make(wn_cycles *c) {
    memset(c, 0, sizeof *c);
    wn_mark_pool_make(&c->pool);
    wn_mark_make(&c->marker, &c->pool);
    return wn_bits_make(&c->bits);
}

size_t wn_cycles_most(size_t regions, size_t objects) {
    /* A stack that held every object at once, whose slabs are up to twice as large because they double; beside it the
     * counts. The list takes less than such a stack, and only of what was on none. */
    return regions * wn_bits_region_bytes() + objects * (2 * sizeof(void *) + sizeof(uint32_t)) + (256 << 10);
}

static void drop_counts(wn_cycles *c) {
    if (c->counts) wn_os_release(c->counts, c->counts_bytes);
    c->counts = NULL;
}

void wn_cycles_drop(wn_cycles *c) {
    drop_counts(c);
    wn_bits_drop(&c->bits);
    wn_mark_pool_drop(&c->pool);
}

void wn_cycles_rest(wn_cycles *c) {
    drop_counts(c);
    wn_mark_drop(&c->marker);
    c->candidates = c->garbage = 0;
    c->failed = false;
}

void wn_cycles_reset(wn_cycles *c) {
    wn_cycles_rest(c);
    wn_bits_clear(&c->bits, -1);
}

static void trim_pool(wn_cycles *c) {
    wn_mark_pool_drop(&c->pool);
    wn_mark_pool_make(&c->pool);
}

void wn_cycles_trim_rest(wn_cycles *c) {
    wn_cycles_rest(c);
    wn_bits_trim_from(&c->bits, WN_CYCLES_UNMARKED);
    trim_pool(c);
}

void wn_cycles_trim(wn_cycles *c) {
    wn_cycles_rest(c);
    wn_bits_trim(&c->bits);
    trim_pool(c);
}

void wn_cycles_begin(wn_cycles *c) {
    wn_bits_copy(&c->bits, WN_CYCLES_UNMARKED, WN_CYCLES_ALL);
    c->candidates = c->garbage = 0;
}

bool wn_cycles_fail_(wn_cycles *c) {
    wn_bits_clear(&c->bits, WN_CYCLES_UNMARKED);
    wn_mark_drop(&c->marker);
    c->garbage = 0;
    c->failed = true;
    return false;
}

bool wn_cycles_rank_(wn_cycles *c) {
    if (c->failed || c->marker.failed) return wn_cycles_fail_(c);
    drop_counts(c);
    wn_bits_copy(&c->bits, WN_CYCLES_RANKED, WN_CYCLES_UNMARKED);
    c->candidates = wn_bits_number(&c->bits, WN_CYCLES_RANKED);
    if (c->candidates >= UINT32_MAX) return wn_cycles_fail_(c);
    c->counts_bytes = whole_pages(c->candidates * sizeof(uint32_t) + 1);
    c->counts = wn_os_map(c->counts_bytes);
    return c->counts || wn_cycles_fail_(c);
}

bool wn_groups_ready_(wn_cycles *c, uint32_t **parents, size_t *bytes) {
    size_t n = wn_bits_number(&c->bits, WN_CYCLES_UNMARKED);
    *bytes = whole_pages(n * sizeof(uint32_t) + 1);
    *parents = wn_os_map(*bytes);
    if (!*parents) return false;
    for (size_t i = 0; i < n; i++) (*parents)[i] = (uint32_t)i;
    return true;
}

void wn_groups_drop(wn_groups *g) {
    if (g->object) wn_os_release(g->object, g->bytes_[0]);
    if (g->end) wn_os_release(g->end, g->bytes_[1]);
    memset(g, 0, sizeof *g);
}

/* A counting sort by component. Components are numbered by their leaders, which precede their members, so that one
 * pass in address order sees each leader first. */
bool wn_groups_build_(wn_cycles *c, uint32_t *parent, size_t target, wn_groups *g) {
    size_t n = c->garbage;
    memset(g, 0, sizeof *g);
    g->objects = n;
    g->bytes_[0] = whole_pages(n * sizeof(void *) + 1);
    g->bytes_[1] = whole_pages((n + 1) * sizeof(size_t));
    g->object = wn_os_map(g->bytes_[0]);
    g->end = wn_os_map(g->bytes_[1]);
    size_t place_bytes = whole_pages(n * sizeof(uint32_t) + 1);
    uint32_t *place = wn_os_map(place_bytes); /* by leader: first its members, then the place of its next one */
    bool ok = g->object && g->end && place;
    if (ok) {
        for (size_t i = 0; i < n; i++) {
            parent[i] = wn_groups_find_(parent, (uint32_t)i);
            place[parent[i]]++;
        }
        size_t at = 0, batch_start = 0;
        for (size_t i = 0; i < n; i++) {
            if (parent[i] != i) continue;
            size_t members = place[i];
            place[i] = (uint32_t)at;
            at += members;
            if (at - batch_start >= target || at == n) {
                g->end[g->batches++] = at;
                batch_start = at;
            }
        }
        wn_bits_cursor cursor;
        wn_bits_walk(&c->bits, &cursor);
        for (size_t i = 0; i < n; i++) g->object[place[parent[i]]++] = wn_bits_next(&cursor, WN_CYCLES_UNMARKED);
    }
    if (place) wn_os_release(place, place_bytes);
    if (!ok) wn_groups_drop(g);
    return ok;
}
