/*
 * emitted.h - the sequences of winnow/codegen.h, with nothing but its numbers, in place of the inline functions: a
 * program that is compiled with this before anything else uses the library as code does that a compiler has emitted.
 */
#ifndef EMITTED_H
#define EMITTED_H

#include <winnow.h>
#include <winnow/codegen.h>

typedef uintptr_t emitted_word_ __attribute__((may_alias));
typedef uint32_t emitted_u32_ __attribute__((may_alias));

static inline uint32_t emitted_u32(wn_mutator *m, uint32_t at) {
    return __atomic_load_n((emitted_u32_ *)((char *)m + at), __ATOMIC_RELAXED);
}
static inline emitted_word_ *emitted_ptr(wn_mutator *m, uint32_t at) { return (emitted_word_ *)((char *)m + at); }
static inline uint8_t *emitted_side(const void *object) {
    uintptr_t o = (uintptr_t)object, mask = ((uintptr_t)1 << wn_codegen_get()->chunk_shift) - 1;
    return (uint8_t *)((o & ~mask) + ((o & mask) >> wn_codegen_get()->granule_shift));
}

static inline void emitted_poll(wn_mutator *m) {
    if (emitted_u32(m, wn_codegen_get()->poll)) wn_poll(m);
}

static inline void *emitted_new(wn_mutator *m, const wn_type *type) {
    const wn_codegen *g = wn_codegen_get();
    wn_codegen_object how;
    if (!wn_codegen_object_of(type, &how)) return wn_new(m, type);
    emitted_word_ *b = (emitted_word_ *)*emitted_ptr(m, how.buffer);
    uintptr_t p = b[0];
    if (b[1] - p < how.bytes || emitted_u32(m, g->poll)) return wn_new(m, type);
    if (emitted_u32(m, g->mode) & g->counts) {
        emitted_word_ *young = emitted_ptr(m, g->young);
        if (how.tracked && *young + 8 == *emitted_ptr(m, g->young_end)) return wn_new(m, type);
        emitted_side((void *)p)[0] = 1;
        emitted_side((void *)p)[1] = how.state;
        if (how.tracked) {
            *(emitted_word_ *)*young = p;
            *young += 8;
        }
    }
    b[0] = p + how.bytes;
    *(emitted_word_ *)p = (uintptr_t)type;
    return (void *)p;
}

static inline void emitted_retain(wn_mutator *m, void *o) {
    const wn_codegen *g = wn_codegen_get();
    if (!o || !(emitted_u32(m, g->mode) & g->counts)) return;
    if (emitted_u32(m, g->mode) & g->counts_alone && emitted_side(o)[0] < g->count_most)
        emitted_side(o)[0]++;
    else
        wn_retain(m, o);
}
static inline void emitted_release(wn_mutator *m, void *o) {
    const wn_codegen *g = wn_codegen_get();
    if (!o || !(emitted_u32(m, g->mode) & g->counts)) return;
    if (emitted_u32(m, g->mode) & g->counts_alone && emitted_side(o)[0] > 1 && emitted_side(o)[0] <= g->count_most)
        emitted_side(o)[0]--;
    else
        wn_release(m, o);
}

/* Whether it was stored in place; else it is to be done by the call. */
static inline bool emitted_stored(wn_mutator *m, void *holder, void *slot, void *value, bool is_new) {
    const wn_codegen *g = wn_codegen_get();
    emitted_word_ *at = slot;
    uint32_t w = emitted_u32(m, g->mode);
    if (w & g->counts_alone) {
        void *old = (void *)*at;
        if (!is_new) emitted_retain(m, value);
        *at = (uintptr_t)value;
        emitted_release(m, old);
        return true;
    }
    if (w & g->store_calls) return false;
    if (!(w & g->store_young && (uintptr_t)value - *emitted_ptr(m, g->nursery) >= *emitted_ptr(m, g->nursery_size)) &&
        w & g->store_records && __atomic_load_n(emitted_side(holder), __ATOMIC_RELAXED) % 2)
        return false;
    __atomic_store_n(at, (uintptr_t)value, __ATOMIC_RELEASE);
    return true;
}
static inline void emitted_store(wn_mutator *m, void *holder, void *slot, void *value) {
    if (!emitted_stored(m, holder, slot, value, false)) wn_store(m, holder, slot, value);
}
static inline void emitted_store_new(wn_mutator *m, void *holder, void *slot, void *value) {
    if (!emitted_stored(m, holder, slot, value, true)) wn_store_new(m, holder, slot, value);
}

static inline wn_root_end_ emitted_root(wn_root_link_ *link, wn_mutator *m, void *slot, uintptr_t borrowed) {
    emitted_word_ *words = (emitted_word_ *)link, *roots = emitted_ptr(m, wn_codegen_get()->roots);
    words[0] = *roots;
    words[1] = (uintptr_t)slot | borrowed;
    *roots = (uintptr_t)link;
    return (wn_root_end_){m, (wn_root_link_ *)words[0], slot, borrowed};
}
static inline void emitted_root_end(const wn_root_end_ *end) {
    *emitted_ptr(end->m, wn_codegen_get()->roots) = (uintptr_t)end->up;
    if (!end->kind) emitted_release(end->m, (void *)*(emitted_word_ *)end->slot);
}

#define wn_poll emitted_poll
#define wn_new emitted_new
#define wn_store emitted_store
#define wn_store_new emitted_store_new
#define wn_retain emitted_retain
#define wn_release emitted_release
#define wn_root_push_ emitted_root
#define wn_root_pop_ emitted_root_end

#endif
