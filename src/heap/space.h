/*
 * space.h - where objects live: chunks of 32 MiB, blocks of one size class, side tables found by arithmetic.
 *
 * A chunk begins with its side tables and is followed by blocks of 32 KiB:
 *
 *     0       2 MiB      2.25 MiB    2.5 MiB                                             32 MiB
 *     | bytes | mark bits | alloc bits | block 80 | block 81 | ...                          |
 *
 * `bytes` has one byte per 16 bytes of the chunk. The bytes that would describe the tables themselves are never needed,
 * so the chunk's descriptor and those of its blocks lie there. A space knows nothing of collectors; the invariants it
 * keeps are:
 *   - an alloc bit is set at the first granule of every slot that has been handed out, and nowhere else;
 *   - the two bytes of a slot that is not handed out are zero, and so are all bytes of inner granules;
 *   - a free block that is not `dirty` reads as zero; a buffer that was handed out is zero from cursor to limit;
 *   - chunks of blocks are never unmapped while the space lives, so a stale address can always be looked up.
 *
 * Locking: `lock` guards lists, block states and limits. It is held for a microsecond or so: nothing that asks the
 * system for memory to be zeroed, or zeroes it, happens under it, except that addresses are committed, and that half a
 * mebibyte goes back when many blocks have become free (not with `keeps_dirty`). Alloc words are atomic because a slot
 * may be given back to a block that another thread allocates from.
 */
#ifndef WN_SPACE_H
#define WN_SPACE_H

#include "events/events.h"
#include "platform/platform.h"
#include "winnow/fast.h"

enum {
    WN_BLOCK_SHIFT = 15,
    WN_BLOCK_SIZE = 1 << WN_BLOCK_SHIFT,
    WN_BLOCK_GRANULES = WN_BLOCK_SIZE >> WN_GRANULE_SHIFT_,
    WN_BLOCK_WORDS = WN_BLOCK_GRANULES / 64, /* of its part of a bitmap */
    WN_SPAN_SHIFT = WN_GRANULE_SHIFT_ + 6,   /* a span: what a word of a bitmap covers, 1 KiB */
    WN_SPAN_SIZE = 1 << WN_SPAN_SHIFT,
    WN_CHUNK_SIZE = 1 << WN_CHUNK_SHIFT_,
    WN_CHUNK_BLOCKS = WN_CHUNK_SIZE / WN_BLOCK_SIZE,
    WN_MARK_TABLE = 2 << 20,
    WN_ALLOC_TABLE = WN_MARK_TABLE + (WN_CHUNK_SIZE >> WN_GRANULE_SHIFT_) / 8,
    WN_CHUNK_HEADER = WN_ALLOC_TABLE + (WN_CHUNK_SIZE >> WN_GRANULE_SHIFT_) / 8,
    WN_FIRST_BLOCK = WN_CHUNK_HEADER / WN_BLOCK_SIZE,
    WN_HUGE_MIN = 8 << 20 /* objects from here on have a mapping of their own */
};

typedef enum wn_block_state {
    WN_BLOCK_FREE = 0,
    WN_BLOCK_SMALL, /* slots of one class */
    WN_BLOCK_LARGE, /* the first block of a large object */
    WN_BLOCK_TAIL,  /* a further block of one */
    WN_BLOCK_OTHER  /* taken by a collector for a purpose of its own (a nursery) */
} wn_block_state;

typedef struct wn_block {
    uint8_t state;     /* wn_block_state */
    uint8_t cls;       /* size class of a SMALL block */
    uint8_t owned;     /* a mutator allocates from it */
    uint8_t listed;    /* it is on its class's list of blocks with room */
    uint8_t dirty;     /* FREE: its pages may not be zero */
    uint8_t kind;      /* the collector's: 0 unless it keeps blocks of several kinds apart */
    uint8_t flags;     /* the collector's */
    uint8_t inherited; /* existed at a fork: not allocated from in the child, so that its pages stay shared */
    uint32_t slot;     /* bytes per slot; LARGE: 0 */
    uint32_t slots;
    uint32_t used;    /* alloc bits set; atomic */
    uint32_t cursor;  /* the slot where the owner looks for the next run */
    uint32_t epoch;   /* the collector's: when it was last swept */
    uint32_t inverse; /* 2^32 / slot, rounded up: a slot's number without a division */
    uint32_t blocks;  /* LARGE: how many blocks it takes */
    uint32_t era;     /* of the space, when it was taken or last swept; atomic */
    uint8_t frozen;   /* kept as it is: not allocated from, not swept */
    uint8_t noted;    /* some object of it may have side bytes that are not zero, or a release hook; atomic */
    uint8_t pinned;   /* some object of it was pinned since it was taken: its memory may be known outside; atomic */
    uint8_t viewing : 1, parted : 1; /* mesh.h: its pages are views; it has been allocated from or written to since */
    uint32_t frame;                  /* mesh.h: the frame it is on, plus 1; 0: none */
    size_t bytes;                    /* LARGE: bytes asked for */
    struct wn_block *next, *prev;
} wn_block;

typedef struct wn_chunk {
    struct wn_space *space;
    struct wn_chunk *next;
    size_t size;        /* bytes reserved; above WN_CHUNK_SIZE for a huge object */
    uint32_t committed; /* blocks below this one are committed */
    uint32_t end;       /* blocks in it */
    uint32_t free_blocks;
    uint32_t dirty_blocks; /* of the free ones */
    uint32_t readied;      /* blocks below this one have had their mark bits touched, see wn_space_ready_marks */
    bool huge;
    uint64_t free_map[WN_CHUNK_BLOCKS / 64];
    wn_block block[WN_CHUNK_BLOCKS];
} wn_chunk;

enum { WN_KINDS = 2 };

typedef struct wn_space {
    pthread_mutex_t lock;
    wn_chunk *chunks;
    uintptr_t *known; /* hash set of the 32 MiB units in use; unit number + 1, see wn_space_chunk_at */
    size_t known_size, known_used;
    wn_block *room[WN_KINDS][WN_CLASSES_]; /* blocks with free slots that nobody owns; written atomically */
    wn_block
        *laid[WN_KINDS][WN_CLASSES_]; /* those on frames, which would need memory of their own: for want of others */
    size_t limit;                     /* bytes, side tables included; 0: none */
    bool system_refused;              /* the last time there was no room: it was not for the limit */
    /* Addresses held back from the heap and from everybody else, for what a collection notes aside: as many as `holds`
     * says (NULL: none) that it may need for the chunks there are, and the space grows only if they can be had. Else,
     * where the system grants the process so many addresses and no more, a full heap could not be collected. */
    size_t (*holds)(const struct wn_space *space);
    void *held;
    size_t held_bytes;
    size_t block_bytes; /* of blocks that are not free, huge objects page-rounded; atomic */
    size_t block_bytes_max;
    size_t live_bytes; /* of slots handed out; atomic */
    size_t live_bytes_max;
    size_t large_bytes;
    size_t dirty_blocks;   /* free blocks that are not zero */
    size_t expected;       /* bytes of blocks that the collector expects to need soon: not given back before */
    size_t returned_bytes; /* discarded since the space was made */
    wn_chunk *leaving;     /* huge chunks on their way back to the system: see wn_space_let_go */
    size_t allocated_bytes, allocated_objects; /* atomic; see wn_space_count */
    bool inherited;                            /* this is a forked child: allocate from blocks of its own */
    uint32_t era;     /* blocks of an older one wait to be swept and are not listed until then */
    bool keeps_dirty; /* free memory goes back only by wn_space_discard, not when blocks become free */
    /* Asked, without the lock, when a class has no block with room, before a fresh one is taken: true when it has
     * listed some. NULL: never. */
    bool (*starved)(struct wn_space *space, unsigned kind, unsigned cls);
    void *owner;      /* for `starved` */
    bool large_pages; /* are asked for */
    bool meshes;      /* sparse blocks may be laid together: no thread touches objects while the world stands still */
    struct wn_mesh *mesh; /* mesh.h; NULL until blocks are laid together for the first time */
    bool quarantines; /* what a sweep has freed is not handed out before the next sweep, so that misuse is noticed */
} wn_space;

bool wn_space_init(wn_space *space, size_t limit);
void wn_space_fini(wn_space *space);
/* Makes the first chunk if there is none. */
bool wn_space_begin(wn_space *space);
/* Lets go of the addresses held back, for whoever needs them now, and holds them again; false: not to be had, and the
 * space does not grow until they are. */
void wn_space_let_held(wn_space *space);
bool wn_space_hold(wn_space *space);

/* ---- from address to tables -------------------------------------------------------------------------------------- */

static inline wn_chunk *wn_chunk_of(const void *p) {
    return (wn_chunk *)((uintptr_t)p & ~((uintptr_t)WN_CHUNK_SIZE - 1));
}
static inline size_t wn_granule_of(const void *p) { return ((uintptr_t)p & (WN_CHUNK_SIZE - 1)) >> WN_GRANULE_SHIFT_; }
static inline wn_block *wn_block_of(const void *p) {
    return &wn_chunk_of(p)->block[((uintptr_t)p & (WN_CHUNK_SIZE - 1)) >> WN_BLOCK_SHIFT];
}
static inline char *wn_block_start(const wn_block *b) {
    wn_chunk *c = wn_chunk_of(b);
    return (char *)c + ((size_t)(b - c->block) << WN_BLOCK_SHIFT);
}
static inline uint64_t *wn_bits_of_block(const wn_block *b, size_t table) {
    wn_chunk *c = wn_chunk_of(b);
    return (uint64_t *)((char *)c + table) + (size_t)(b - c->block) * WN_BLOCK_WORDS;
}
static inline uint64_t *wn_mark_words(const wn_block *b) { return wn_bits_of_block(b, WN_MARK_TABLE); }
static inline uint64_t *wn_alloc_words(const wn_block *b) { return wn_bits_of_block(b, WN_ALLOC_TABLE); }

/* The word of a bitmap (WN_MARK_TABLE, WN_ALLOC_TABLE) that holds the bit of an object, and the bit. */
static inline uint64_t *wn_bit_of(const void *object, size_t table, uint64_t *bit) {
    size_t g = wn_granule_of(object);
    *bit = (uint64_t)1 << (g & 63);
    return (uint64_t *)((char *)wn_chunk_of(object) + table) + (g >> 6);
}
/* Where the span of an object begins. */
static inline char *wn_span_of(const void *object) {
    return (char *)((uintptr_t)object & ~(uintptr_t)(WN_SPAN_SIZE - 1));
}
/* Acquire: whoever finds a slot allocated, by a stale word on a stack, finds it zeroed too, or what became of it. */
static inline bool wn_is_allocated(const void *object) {
    uint64_t bit;
    return __atomic_load_n(wn_bit_of(object, WN_ALLOC_TABLE, &bit), __ATOMIC_ACQUIRE) & bit;
}

/* The object whose slot holds an address of anything, or NULL: bounds and alloc bits are checked. `exact`: only when
 * the address is the object's own. */
void *wn_space_object_at(wn_space *space, const void *address, bool exact);
/* The number of a slot from its offset in the block. */
static inline uint32_t wn_slot_number(const wn_block *b, uint32_t offset) {
    return (uint32_t)(((uint64_t)offset * b->inverse) >> 32);
}

/* ---- handing out and taking back --------------------------------------------------------------------------------- */

/* Fills an empty buffer with the next run of free slots of class `cls`, zeroed, alloc bits set, going on in the block
 * `*current` that the caller owns and taking another when that has no more. False when the limit or the system's
 * memory is reached. Takes the lock only to change blocks. */
bool wn_space_refill(wn_space *space, wn_block **current, unsigned cls, unsigned kind, wn_buffer_ *buffer);
/* Gives the unused rest of a buffer back. */
void wn_space_retire(wn_space *space, unsigned cls, wn_buffer_ *buffer);
/* Gives up the block a thread allocates from. */
void wn_space_disown(wn_space *space, wn_block **current);
/* Gives slots back: their bytes are cleared here. The objects may be of different blocks and classes. */
void wn_space_free(wn_space *space, void *const *slots, size_t n);

/* A large object (above WN_SMALL_MAX_), zeroed; NULL as above. */
void *wn_space_large(wn_space *space, size_t bytes);
void wn_space_free_large(wn_space *space, void *object);
/* The same, but the memory of a huge object goes back only by calls of wn_space_let_go: a tenth of a millisecond for
 * every MiB, which is more than a pause bears. */
void wn_space_free_large_later(wn_space *space, void *object);
/* Gives back about `bytes` of such memory; false when there is none. */
bool wn_space_let_go(wn_space *space, size_t bytes);

/* Takes `n` adjacent free blocks for the caller's own purpose (state WN_BLOCK_OTHER), zeroed; NULL as above. */
wn_block *wn_space_take_blocks(wn_space *space, size_t n);
void wn_space_give_blocks(wn_space *space, wn_block *first, size_t n);

/* ---- sweeping ---------------------------------------------------------------------------------------------------- */

/* Makes the slots of a block free whose mark bit is not set: alloc &= mark, word by word; touches no object. Each dead
 * slot is first shown to `dead` when that is not NULL. The block must not be owned. Returns the number freed.
 * An empty block goes back to the free ones. Takes the lock. */
size_t wn_space_sweep(wn_space *space, wn_block *block, void (*dead)(void *object, void *data), void *data);

/* The same where side tables need no look: dead slots have no hooks and their side bytes are zero, unless the block is
 * `noted`. For blocks of an older era, which are of the space's era afterwards. Takes the lock once for up to
 * WN_SWEEP_TOGETHER of them, and for none whose objects are all alive. */
enum { WN_SWEEP_TOGETHER = 16 };
typedef struct wn_swept {
    size_t objects, bytes;
} wn_swept;
wn_swept wn_space_sweep_quietly(wn_space *space, void *const *blocks, size_t n, void (*dead)(void *object, void *data),
                                void *data);
/* Touches memory of mark bits that was never written to, 64 KiB at a time; false when there is no more. Marking comes
 * to them in any order: of a thousand objects each may else be the first on a page, which the kernel then has to make,
 * at a microsecond and more for each. */
bool wn_space_ready_marks(wn_space *space);

/* From now on blocks that are in use wait to be swept: nothing is allocated from them by those who take a block after
 * wn_space_unlist has returned false. It takes up to n blocks off the lists; true: there are more. */
void wn_space_new_era(wn_space *space);
static inline bool wn_space_is_swept(const wn_space *space, const wn_block *b) {
    return __atomic_load_n(&b->era, __ATOMIC_ACQUIRE) == __atomic_load_n(&space->era, __ATOMIC_RELAXED);
}
bool wn_space_unlist(wn_space *space, size_t n);
/* Lists blocks of a class that have any room at all, for want of better ones; false: there are none. */
bool wn_space_list_last(wn_space *space, unsigned kind, unsigned cls);
/* Takes a block off its list, true if it was on one, and puts it on the list where it belongs now. Under the lock. */
bool wn_space_unlist_block(wn_space *space, wn_block *block);
void wn_space_list_block(wn_space *space, wn_block *block);
/* Takes frozen blocks off the lists. */
void wn_space_unlist_frozen(wn_space *space);
/* Gives that up: what waits to be swept counts as swept, dead or not, and blocks with room are listed. */
void wn_space_relist(wn_space *space);

/* Gives pages of at most `blocks` dirty free blocks back to the system; returns the bytes. */
size_t wn_space_discard(wn_space *space, size_t blocks);

/* In a forked child: blocks that exist now are not allocated from unless they become empty. */
void wn_space_inherit(wn_space *space);

/* Bytes of side tables and descriptors that serve the blocks in use. */
size_t wn_space_bookkeeping(const wn_space *space);

/* ---- walking ----------------------------------------------------------------------------------------------------- */

/* Each block in use, in address order within a chunk: WN_EACH_BLOCK(space, c, b) { ... } */
#define WN_EACH_BLOCK(space, chunk, b)                                              \
    for (wn_chunk *chunk = (space)->chunks; chunk; chunk = chunk->next)             \
        for (wn_block *b = &chunk->block[WN_FIRST_BLOCK];                           \
             b < &chunk->block[chunk->huge ? WN_FIRST_BLOCK + 1 : chunk->end]; b++) \
            if (b->state == WN_BLOCK_SMALL || b->state == WN_BLOCK_LARGE)

/* The next allocated object of block b at or after granule *g (0 at first), or NULL; *g moves behind it. */
static inline void *wn_block_next(const wn_block *b, size_t *g) {
    const uint64_t *words = wn_alloc_words(b);
    size_t i = *g;
    while (i < WN_BLOCK_GRANULES) {
        uint64_t w = __atomic_load_n(&words[i >> 6], __ATOMIC_RELAXED) >> (i & 63);
        if (w) {
            i += (size_t)__builtin_ctzll(w);
            *g = i + 1;
            return wn_block_start(b) + (i << WN_GRANULE_SHIFT_);
        }
        i = (i | 63) + 1;
    }
    *g = i;
    return NULL;
}

#endif
