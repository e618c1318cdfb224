/*
 * incremental.h - the incremental collector's own part of a heap, and what its files offer each other.
 *
 * Objects are born in the nursery by bumping a pointer. A minor collection (minor.c) moves what is still reached into
 * the old space and leaves the rest; a major collection (major.c) marks the old space in steps between which the
 * program runs, and sweeps it in steps. Three invariants carry everything; docs/design/incremental.md argues why they
 * suffice and tests/spin/incremental.pml searches for a counterexample:
 *
 *   remembered  an old object that refers to a young one is in a remembered set: its count byte is not WN_OLD_CLEAN_,
 *               or, in a large array, the card of the slot is dirty;
 *   tricolour   while marking, a black object that refers to a white one is in a remembered set as well, so the next
 *               minor shades the white one. There is one barrier and one set for both purposes;
 *   black birth what becomes old while marking is black when the minor that moved it ends, and what it refers to is
 *               not white. So the set of white objects only shrinks, and marking ends however fast the program runs.
 *
 * Colours: black or grey = mark bit set (grey ones are also on the marker's stack), white = not set. Frozen objects
 * keep their mark bits for ever. An old object's count byte is never 0; a young one's always is.
 */
#ifndef WN_INCREMENTAL_H
#define WN_INCREMENTAL_H

#include "engines/mark.h"
#include "engines/weak.h"
#include "map.h"
#include "stack.h"
#include <string.h>

enum {
    PIECE = 32 << 10,       /* of the nursery, handed to a thread at a time */
    ALONE_FROM = PIECE / 8, /* an object that takes more gets a stretch of its own */
    FORWARDED = 1,          /* in the type word of a dead copy: the rest is the address of the living one */
    OLD_REMEMBERED = 2,     /* count byte: old, and in the remembered set */
    KIND_PLAIN = 0,
    KIND_SPECIAL = 1, /* blocks of objects whose death has consequences: release hooks, weak references, ephemerons */
    /* state byte: a frozen object that was written since, and is on the list of those */
    STATE_WRITTEN = WN_STATE_TRACKED_,
    /* state byte: a young object that stays where it is in the minor going on, and was reached */
    STATE_STAYS = WN_STATE_SCRATCH_,
    /* state byte: a young object that has a shadow; or, if it is not on the list of those, its address is its identity,
     * and it stays there */
    STATE_SHADOWED = WN_STATE_OWN_,
    REMEMBERED_NS = 150, /* what scanning an entry of a remembered set may cost: the object is a cache miss */
    /* block flags: some of its slots are frozen */
    BLOCK_FROZEN = 1
};

/* What moving a byte is taken to cost before it has been measured. */
#define NS_PER_BYTE 0.4

/* The states of a major collection. Clients see ENDING and RESURRECTING as part of marking. */
typedef enum phase {
    IDLE,
    SCANNING,     /* frozen objects that were written since are scanned as roots */
    MARKING,      /* the marker runs; ends in a minor that finds nothing left to shade */
    ENDING,       /* what is white is dead: weak references to it are cleared */
    RESURRECTING, /* dead objects with finalizers, and what they refer to, become black again */
    SWEEPING,
    FINALIZING /* finalizers run */
} phase;

/* A stretch of the nursery: handed out (then objects lie in it back to back from `start`), or free. */
typedef struct stretch {
    char *start, *end;
    char *known; /* objects before this have their alloc bits set, for questions what an address is */
} stretch;

typedef struct stretches {
    stretch *at;
    size_t n, room;
} stretches;

/* A mutator's own part. Its buffer 0 is a piece of the nursery; the others are runs of old slots, of the blocks
 * block[KIND_PLAIN] of the mutator, for size classes that are born old: count bytes set, black where old.c says so. */
typedef struct own {
    /* What its barrier records between two minors: objects, or the address of a card | 1 followed by the long array it
     * is part of. */
    wn_vector remembered;
    size_t taken; /* bytes of runs not yet paid for */
    bool calls;   /* callbacks are due, or run, that come before the finalizers of the same deaths; atomic */
} own;

static inline own *own_of(mutator *m) { return m->state_of_collector; }
static inline wn_vector *remembered_of(mutator *m) { return &own_of(m)->remembered; }

/* What sampled pieces of the nursery held of a size class since it was judged, in bytes. */
typedef struct tenure {
    uint64_t born, survived;
} tenure;

typedef struct incremental {
    wn_heap *heap;
    pthread_mutex_t lock; /* for mutators that run: the nursery's stretches, the old buffers, pins, finalizable */
    /* For statistics, which any thread reads: held while objects move, and by the reader. Taken before `lock`. */
    pthread_mutex_t counts_lock;

    /* nursery.c */
    char *nursery;
    size_t nursery_size;
    size_t window;    /* bytes handed out between two minors: adapts to the time a minor may take */
    size_t handed;    /* of the window, already */
    stretches free;   /* in address order */
    size_t free_at;   /* the first of them that may have room */
    stretches pieces; /* where objects are: those that stayed, then what was handed out since the last minor */
    size_t first_new; /* where the latter begin */
    char *turn;       /* checked mode: where handing out goes on, so that addresses are not used again soon */
    bool asked;       /* some alloc bits of the nursery are set */
    map pins;         /* how often an object is pinned */
    size_t pinned_young;
    map shadows;    /* where a young object whose identity was asked for will be moved */
    size_t settled; /* young objects whose address is their identity */

    /* minor.c */
    wn_buffer_ room[WN_KINDS][WN_CLASSES_]; /* old slots, the next to be taken */
    wn_block *block[WN_KINDS][WN_CLASSES_];
    void **grey, **grey_top; /* moved, not yet scanned for young references; has room for a whole nursery */
    void **stayed;           /* young objects reached that could not move; as large */
    size_t stayed_n;
    wn_vector kept;        /* remembered set of what refers to young objects that stayed; entries as in `remembered` */
    bool met_young;        /* the object being scanned refers to one of those */
    wn_vector weak_moves;  /* of the minor going on: pairs, from where to where a weakly referenced object moved */
    bool remembered_lost;  /* no memory for the remembered set: the next minor looks at every old object */
    size_t immortal_young; /* heap->immortals from here on may be young */
    bool keep_all;         /* everything young is moved, reached or not: before a freeze */
    bool alone_at_fork;    /* no mutator is another thread's than the one that forks */
    wn_vector orphaned;    /* in a forked child without mutators: callbacks that are due */
    uint64_t minors;

    /* tenure.c */
    tenure seen[WN_CLASSES_];
    uint64_t born_old;       /* size classes that are born old now, as bits; atomic */
    uint64_t were_old;       /* ... that were when they were judged last */
    ptrdiff_t born_old_left; /* bytes until then; atomic */
    size_t quota;            /* ... when they began; 0: the next one is small */

    /* major.c */
    phase phase;
    uint32_t epoch; /* of this major; a block of another one has not been swept */
    wn_mark_pool pool;
    wn_marker marker;
    stack slices;      /* long arrays partly marked: the index, then the object */
    bool ephemerons;   /* there has been one, so the marker has to ask */
    stack search;      /* RESURRECTING: the depth-first search */
    stack finalizable; /* old objects whose finalizers have not run; NULL: struck out */
    stack_at finalizable_at;
    stack_segment **drop_at;
    stack due;         /* whose finalizers run next, last first */
    bool gave_up;      /* the last major ended early for want of memory, and freed nothing */
    stack written;     /* frozen objects that were written since */
    bool written_lost; /* no memory for one of those: the next major has to search for them */
    stack_at written_at;
    size_t frozen;          /* atomic */
    uint64_t weak_replaced; /* how often the table had been replaced that weak_at refers to */
    size_t weak_at;
    wn_chunk *sweep_chunk;
    unsigned sweep_block;

    /* pacing */
    size_t threshold;      /* a major starts when this many bytes are in use */
    size_t owed;           /* bytes to be marked or swept before allocation goes on; atomic */
    size_t external_seen;  /* heap->external_bytes at the last look; atomic */
    double ratio;          /* owed per byte allocated */
    uint64_t target_ns;    /* a step and a minor aim to stay below */
    size_t remembered_max; /* words in a remembered set after which the next safepoint runs a minor to scan them */
    double ns_per_byte;    /* of moving, measured */
    mutator *finalizer;    /* the thread that runs finalizers at this moment; atomic */

    /* what happened, for events, results and statistics; changed with the world stopped */
    size_t freed_objects, freed_bytes;               /* by all sweeps so far */
    size_t freed_objects_before, freed_bytes_before; /* ... when this major's began */
    size_t bytes_at_start;
    size_t bytes_at_sweep; /* in use when sweeping began: what lives is that less what is freed */
    size_t blocks_at_sweep;
    uint64_t started_at;
    size_t pinned_at_stop;             /* young objects that were pinned when the last major ended */
    uint64_t turns;                    /* beginnings and ends of majors: odd while one is under way; atomic */
    uint64_t told;                     /* ... of which listeners have heard; atomic */
    size_t live_max;                   /* in old slots and the nursery, before a minor */
    size_t moved_objects, moved_bytes; /* by the last minor */
    size_t dead_objects, dead_bytes;   /* that it left behind in the nursery, when `count_all` */
    bool count_all;
    uint64_t pieces_seen;
    uint64_t walked_objects, walked_bytes; /* of the pieces that were counted one by one */
    double nursery_objects, nursery_bytes; /* made there, all in all; the objects are partly estimated */
    uint64_t moved_objects_total, moved_bytes_total;
} incremental;

static inline incremental *inc_of(const wn_heap *heap) { return heap->state; }

static WN_ALWAYS_INLINE bool is_young(const incremental *inc, const void *o) {
    return (uintptr_t)o - (uintptr_t)inc->nursery < inc->nursery_size;
}

static inline bool is_marked(const void *old) {
    uint64_t bit;
    return __atomic_load_n(wn_bit_of(old, WN_MARK_TABLE, &bit), __ATOMIC_RELAXED) & bit;
}
static inline void set_mark(const void *old) {
    uint64_t bit, *word = wn_bit_of(old, WN_MARK_TABLE, &bit);
    __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
}
/* Atomic, while the world runs: the table of weak references changes the same byte under a lock of its own. */
static inline void set_state(void *object, uint8_t bits) {
    __atomic_fetch_or(&wn_meta_(object)[1], bits, __ATOMIC_RELAXED);
}
static inline bool is_frozen(const void *old) {
    return (wn_meta_(old)[1] & WN_STATE_GENERATION_) == WN_STATE_GENERATION_;
}

/* Marking goes on: what is shaded must be, and what is born old is born black. */
static inline bool is_marking(const incremental *inc) { return inc->phase == SCANNING || inc->phase == MARKING; }

/* True when an object was old and white; it no longer is. The world is stopped. */
static WN_ALWAYS_INLINE bool claim(void *object) {
    uint64_t bit, *word = wn_bit_of(object, WN_MARK_TABLE, &bit), before = *word;
    if (before & bit) return false;
    *word = before | bit;
    return true;
}
/* Shade: a white old object becomes grey. */
static WN_ALWAYS_INLINE void shade(incremental *inc, void *old) {
    if (claim(old)) wn_mark_push(&inc->marker, old);
}

/* Whether an object that is about to be handed out by a weak reference is alive: after MARKING what is white is dead,
 * although its memory may still be there. */
static inline bool is_found_dead(const incremental *inc, const void *o) {
    return inc->phase > MARKING && inc->phase < FINALIZING && !is_young(inc, o) &&
           wn_block_of(o)->epoch != inc->epoch && !is_marked(o);
}

/* ---- nursery.c: its `lock` is taken inside, or the world is stopped ---------------------------------------------- */

bool wn_inc_nursery_init(incremental *inc, size_t bytes);
void wn_inc_nursery_fini(incremental *inc);
/* A stretch of at least `least` and about PIECE bytes, zeroed; false when the window is used up. With `beyond` what
 * lies beyond the window may be used. */
bool wn_inc_nursery_take(incremental *inc, size_t least, bool beyond, stretch *out);
/* After a minor: everything is free but what stayed. */
void wn_inc_nursery_reset(incremental *inc);
/* The young object that an address points to, or into unless `exact`; NULL when there is none. */
void *wn_inc_nursery_object_at(incremental *inc, const void *address, bool exact);
/* In checked and in stress mode, where each allocation comes by: sets the alloc bit of a new object, so that questions
 * about addresses are answered without a walk. */
void wn_inc_nursery_note(const void *young);
bool wn_inc_nursery_each(const incremental *inc, bool (*visit)(void *object, void *data), void *data);

/* ---- old.c: old slots, for minors and for what is born old ------------------------------------------------------- */

bool wn_inc_old_refill(incremental *inc, unsigned kind, unsigned cls);
/* The same for a mutator's own buffer of a class, whose objects are made by the inlined path: count bytes are set. */
bool wn_inc_old_refill_own(mutator *m, unsigned cls);
/* Gives the unused rest of the minors' runs and of all mutators' back, so that alloc bits tell the truth; with `disown`
 * the blocks, too. The world is stopped. */
void wn_inc_old_retire(incremental *inc, bool disown);
/* The same for one block, whoever owns it. */
void wn_inc_old_retire_block(incremental *inc, wn_block *b);
/* A small slot whose count byte is set; NULL when memory is out. The world is stopped or the lock held. */
void *wn_inc_old_take(incremental *inc, size_t slot, unsigned kind);
/* An object that is born old, zeroed but for its type; NULL when memory is out. */
void *wn_inc_old_allocate(incremental *inc, const wn_type *type, size_t bytes, unsigned kind);
/* Reserves the slot that a young object will move to. */
void *wn_inc_old_reserve(incremental *inc, size_t bytes);
void wn_inc_old_unreserve(incremental *inc, void *slot);
extern const wn_type wn_inc_shadow_type;

/* ---- tenure.c ---------------------------------------------------------------------------------------------------- */

/* At the end of a minor, with the world stopped: whether enough was made since the last one for what survives to say
 * anything. */
bool wn_inc_tenure_is_telling(const incremental *inc);
/* ... counts what was in a piece, which stands for so many, and adds it to walked_objects and walked_bytes. */
void wn_inc_tenure_sample(incremental *inc, stretch piece, unsigned stands_for);
/* ... and decides which classes are born old. */
void wn_inc_tenure_judge(incremental *inc);
bool wn_inc_tenure_is_born_old(const incremental *inc, unsigned cls);
/* All are born young again until the next judgement. */
void wn_inc_tenure_end(incremental *inc);
/* A run of a class that is born old was taken. */
void wn_inc_tenure_spend(incremental *inc, size_t bytes);

/* ---- allocate.c -------------------------------------------------------------------------------------------------- */

void *wn_inc_allocate(mutator *m, const wn_type *type, size_t bytes);

/* ---- collect.c --------------------------------------------------------------------------------------------------- */

/* The program allocated so many bytes: starts a major if one is due, or works off what is owed if it is enough to be
 * worth a stop. A safepoint. */
void wn_inc_collect_pace(mutator *m, size_t bytes);
/* A minor, and what has become due by it. */
void wn_inc_collect_young(mutator *m);
/* A full collection, for want of memory. */
void wn_inc_collect_all(mutator *m);
wn_status wn_inc_collect(mutator *m, int generation, wn_collect_result *result);
wn_status wn_inc_collect_step(mutator *m, uint64_t budget, wn_step_result *result);
void wn_inc_collect_poll(mutator *m);

/* ---- minor.c; the world is stopped ------------------------------------------------------------------------------- */

void wn_inc_minor_run(incremental *inc, mutator *m);
/* Keeps a young object where it is for this minor. */
void wn_inc_minor_stay(incremental *inc, void *young);

/* ---- barrier.c --------------------------------------------------------------------------------------------------- */

void wn_inc_barrier_store(mutator *m, void *holder, void **slot, void *value, bool takes_over);
/* The mode of mutators now; and, with the world stopped: marking begins or ends, or a freeze, and it is another. */
uint32_t wn_inc_barrier_mode(const incremental *inc);
void wn_inc_barrier_adjust(const incremental *inc);
/* The cards of a large array: how many bytes one covers, as a shift, and the byte of one of them. */
unsigned wn_inc_card_shift(size_t bytes);
static inline uint8_t *card_of(void *large, size_t number) { return wn_meta_(large) + 2 + number; }
static inline bool has_cards(const wn_type *t, size_t bytes) {
    return bytes > WN_SMALL_MAX_ && t->item_refs && !t->trace;
}
static inline void clear_cards(void *o, const wn_type *t, size_t bytes) {
    if (has_cards(t, bytes)) memset(card_of(o, 0), 0, (bytes >> wn_inc_card_shift(bytes)) + 1);
}
/* The count byte of a large object that is in no remembered set. */
static inline uint8_t large_clean(const wn_type *t, size_t bytes) {
    return has_cards(t, bytes) && wn_inc_card_shift(bytes) == WN_CARD_SHIFT_ ? WN_OLD_CARDS_ : WN_OLD_CLEAN_;
}

/* ---- major.c; the world is stopped ------------------------------------------------------------------------------- */

void wn_inc_major_start(incremental *inc);
/* Works until the clock passes `deadline` or what is owed is paid (ignored when `all`), until marking waits for a
 * minor, or until finalizers are due or the major is over. */
void wn_inc_major_work(incremental *inc, mutator *m, uint64_t deadline, bool all);
/* Whether marking has nothing left to do but a minor and the roots. */
bool wn_inc_major_waits_for_minor(const incremental *inc);
/* Right after a minor: ends marking unless more is left than can be marked before the deadline. */
void wn_inc_major_try_to_end_marking(incremental *inc, uint64_t deadline);
/* Forgets what is marked: all is white again. The major is over, or else goes on: the caller begins marking anew, or
 * has finalizers run. */
void wn_inc_major_abort(incremental *inc, bool over);
/* The finalizers that were due have run. */
void wn_inc_major_finish(incremental *inc);
/* A key becomes black: so do the values of its black ephemerons. */
void wn_inc_major_shade_values(incremental *inc, void *key);
size_t wn_inc_major_used(const incremental *inc);
/* How many bytes may be in use when a major begins, where so many are alive; SIZE_MAX without a limit. */
size_t wn_inc_major_bearable(const incremental *inc, size_t used);

/* ---- sweep.c; the world is stopped ------------------------------------------------------------------------------- */

void wn_inc_sweep_begin(incremental *inc);
/* Sweeps the next block; returns what that pays of what is owed, 0 when none is left. */
size_t wn_inc_sweep_next(incremental *inc);
/* Makes all of a block white but what is frozen. */
void wn_inc_sweep_forget_marks(const wn_block *b);

/* ---- freeze.c; the world is stopped ------------------------------------------------------------------------------ */

void wn_inc_freeze_all(incremental *inc, mutator *m);
void wn_inc_freeze_undo(incremental *inc, mutator *m);
/* Notes a frozen object that was written, for majors. */
void wn_inc_freeze_written(incremental *inc, void *frozen);
/* Whether a frozen object refers to one that is not. */
bool wn_inc_freeze_leads_out(incremental *inc, void *frozen);
/* After written_lost: calls `found` for each object that is not frozen and that a frozen one refers to, and notes the
 * latter. */
void wn_inc_freeze_search(incremental *inc, void (*found)(incremental *inc, void *object));

/* ---- conservative.c; the world is stopped ------------------------------------------------------------------------ */

/* Calls `found` for each object that a word of a stack or a register points to or into. */
void wn_inc_conservative_scan(incremental *inc, void (*found)(incremental *inc, void *object));

#endif
