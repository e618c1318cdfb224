/*
 * concurrent.h - Go's collector: mark and sweep beside the running program, without stopping it as a whole.
 *
 * A cycle is driven by one thread of the collector, the conductor (cycle.c). It talks to the program's threads by
 * handshakes: each serves one at its own safepoint, or it is served on its behalf while it stands still. The order of
 * things is that of docs/design/concurrent.md, and the names H1.., B1.., T1.., W1.., A1 in comments are those of the
 * models in tests/spin/.
 *
 * Invariants while a cycle marks:
 *   - an object is marked when its bit is set in the mark table; it is then scanned, waiting in a marker's stack or in
 *     `slices`, or it was allocated in this cycle and needs no scan;
 *   - every object that the program can reach and that is not marked is reachable from one that waits to be
 *     scanned, or from one that a thread has shaded (its buffer, `shaded`), or from a stack that is not scanned yet,
 *     by a path whose every link will be shaded when it is cut;
 *   - once a thread's stack is black, mark bits of what its buffers still hold are set: what it allocates is
 *     black (A1);
 *   - outside of cycles and while sweeping no thread sets a mark bit.
 * While sweeping: a block is swept by whoever claims it from `unswept`; until then nobody allocates from it, and its
 * alloc bits still show the dead. Nothing of the object is read or written, except by release hooks.
 *
 * Locks, in the order they may be nested, each with any of those after it: heap->world, `lists`, heap->roots_lock,
 * heap->weak.lock, heap->stats_lock, then heap->space.lock and `lock`, and last the pool's and announced_lock, with
 * nothing inside. heap->tell_lock is taken with none of them held, and listeners are called with it.
 */
#ifndef WN_CONCURRENT_H
#define WN_CONCURRENT_H

#include "engines/mark.h"
#include "engines/weak.h"

typedef enum wn_cc_phase {
    WN_CC_IDLE,
    WN_CC_MARKING, /* from before the first handshake until every reachable object is marked */
    WN_CC_CLOSED,  /* mark bits are final but for new objects: what is dead is being found out */
    WN_CC_ENDING,  /* nothing refers weakly to the dead any more; threads turn to blocks of the new era, one by one */
    WN_CC_SWEEPING
} wn_cc_phase;

/* What a handshake asks of a thread. */
typedef enum wn_cc_ask {
    WN_CC_ASK_NOTHING,
    WN_CC_ASK_BARRIER, /* H1: turn the barrier on */
    WN_CC_ASK_SCAN,    /* H2: shade what the stack refers to; it is black from then on, and so is what is allocated */
    WN_CC_ASK_FLUSH,   /* H3: hand over what was shaded */
    WN_CC_ASK_SWEEP    /* H4: barrier off; give up blocks that are not swept */
} wn_cc_ask;

enum {
    WN_CC_LEAF = 1,          /* wn_block.kind of blocks whose objects have no references */
    WN_CC_WRITTEN = 1,       /* wn_block.flags of frozen blocks in which any object may have been written to; atomic */
    WN_CC_UNIT = 512,        /* objects a marker scans between two looks around */
    WN_CC_SLICE = 512,       /* references of an array a marker scans at a time */
    WN_CC_ASSIST_NS = 15000, /* what one assist may take */
    WN_CC_ASSIST_UNIT = 64,  /* objects, or references of slices, between two looks at the clock */
    WN_CC_ASSIST_SLICE = 32  /* references of an array an assist scans at a time */
};

typedef struct wn_cc_mutator {
    uint32_t ask;            /* wn_cc_ask; set by the conductor, cleared when served; atomic */
    bool grey;               /* the stack has not been scanned in this cycle */
    bool finalizing;         /* runs finalizers at this moment */
    wn_mark_segment *buffer; /* references shaded and not yet handed over */
    wn_marker assist;
    wn_buffer_ leaf[WN_CLASSES_]; /* for objects without references; the others come from wn_mutator.buffer */
} wn_cc_mutator;

/* A marking thread. Number 0 is the conductor. */
typedef struct wn_cc_worker {
    mutator me; /* what stops of the world see of it */
    struct wn_cc *cc;
    pthread_t thread;
    bool running; /* the thread exists */
    bool busy;    /* its marker may hold work; under cc->lock */
    wn_marker marker;
    uint64_t cpu_ns; /* spent marking in this cycle; atomic */
} wn_cc_worker;

/* A long array of which the references from `next` on are still to be scanned. */
typedef struct wn_cc_slice {
    void *object;
    size_t next;
} wn_cc_slice;

/* Blocks that wait to be swept, of one kind and class: [next, end) of wn_cc.waiting; claimed by counting `next` up. */
typedef struct wn_cc_unswept {
    size_t next; /* atomic */
    size_t end;
} wn_cc_unswept;

/* What a cycle was like, for the pacer and for the trace line; the conductor's alone. Times in nanoseconds. */
typedef struct wn_cc_cycle {
    uint64_t start, barrier, scan, closed, sweep, end; /* when each part began */
    size_t used_at_close, live;                        /* bytes */
    size_t work;                                       /* objects scanned, and references of arrays / 8 */
    size_t freed_objects, freed_bytes;
    uint64_t cpu_ns, assist_ns, longest_wait_ns;
    unsigned rounds;
} wn_cc_cycle;

/* What has turned out white behind the marking's back, in this cycle and all before. */
typedef struct wn_cc_found {
    size_t shaded;       /* references that threads had shaded */
    uint64_t weak_reads; /* W1: targets that weak reads returned */
} wn_cc_found;

/* How the conductor keeps to its part of the processors where these are few; see cycle.c. */
typedef struct wn_cc_share {
    double part;          /* of one processor; 1: all of it */
    uint64_t from;        /* when the last cycle ended */
    uint64_t used;        /* processor time since then that counts */
    uint64_t looked, cpu; /* when that was last looked at, and what the thread had used */
} wn_cc_share;

typedef struct wn_cc {
    wn_heap *heap;
    uint32_t phase;     /* wn_cc_phase; changed by the conductor, or with the world stopped: to and from IDLE under
                           heap->world, else under heap->weak.lock, and from MARKING under `lock`, too; atomic */
    uint32_t shading;   /* whether a thread that attaches must start with its barrier on; under heap->world */
    bool barrier_is_up; /* H1 is over: every thread has its barrier on, so that tracing may begin; goes up
                           under heap->world, down under `lock`, after H4; atomic */
    wn_cc_found found;  /* .weak_reads is added to under heap->weak.lock; atomic */
    wn_cc_found at_dry; /* what that was when nothing was left to mark last; the conductor's alone */
    bool chased;        /* a round found white ones: threads help with what they hand over; atomic */
    bool failed;        /* no memory for the marking itself: the cycle frees nothing; atomic */
    bool aborted;       /* the cycle was given up; written under heap->world, or with the world stopped; atomic */

    /* the conductor's life; all under heap->world, and what others look at without it atomic */
    bool quit;
    pthread_cond_t wake, done;
    uint64_t wanted, started, finished; /* cycles, counted from 1 */
    bool given_up;                      /* the next one has been begun, and given up */
    bool scan_at_once;                  /* because of a root scanner that came amid H2: it scans at one stop */
    unsigned wanted_on;                 /* the processor of the thread that asked last */
    size_t total_objects, total_bytes;  /* what all finished ones have freed */
    bool last_failed;                   /* the last one had no memory for its work, and freed nothing */
    double processors;                  /* that the process may use */
    unsigned workers;                   /* marking threads, the conductor included */
    wn_cc_share share;
    bool marking_together; /* the other workers should look for work */
    wn_cc_worker worker[WN_MOST_WORKERS];

    /* work that has no owner */
    pthread_mutex_t lock;
    wn_mark_pool pool;
    wn_mark_segment *shaded; /* not claimed yet: some may be marked already */
    wn_mark_segment *shared; /* the segment that wn_cc_shade of threads without a buffer fills */
    wn_cc_slice *slices;
    size_t slice_count, slice_room;
    unsigned busy;        /* workers and assisting threads that may hold work */
    wn_vector remembered; /* frozen objects that were written to; never forgotten until unfrozen */
    bool written;         /* some block is WN_CC_WRITTEN; under `lock` */
    uint32_t hidden;      /* ephemerons are being followed: markers note keys; atomic */
    wn_vector keys;       /* keys and ephemerons that were marked since, not yet looked at */

    /* sweeping */
    wn_cc_unswept unswept[WN_KINDS][WN_CLASSES_], unswept_large;
    void **waiting; /* the lists' blocks */
    size_t waiting_room;
    size_t to_sweep, swept;            /* blocks; swept is atomic */
    bool unlisted;                     /* there was no memory for the lists: the conductor sweeps all, without them */
    bool unattended;                   /* in a forked child: no thread has gone on with the parent's sweep; atomic */
    size_t freed_objects, freed_bytes; /* in this cycle; atomic */
    size_t frozen;                     /* objects; atomic */

    /* laying sparse blocks together; the conductor's alone */
    bool mesh_due, meshing; /* a cycle has ended since it was last planned; there is a plan */
    uint64_t meshed_at;     /* when it was last planned */
    uint64_t mesh_until;    /* then a cycle that is wanted comes first */

    /* what became due; under `lists` */
    pthread_mutex_t lists;
    wn_vector finalizable; /* objects whose types have finalizers that have not run */
    wn_vector examined;    /* those of them that the conductor is looking at */
    size_t examined_next;
    size_t dead_finals;   /* so many at the front of `examined` were found dead, and are not yet marked again */
    wn_vector due_finals; /* dead but for their finalizer; roots */
    size_t due_finals_next;
    /* Weak references whose targets died; roots. Chained by wn_weakref.next, which the target's death has made free. */
    struct wn_weakref *due_callbacks, *last_due_callback;
    bool clearing; /* weak references to the dead are being cleared: some have been, some not; under heap->weak.lock */
    uint64_t ran;  /* finalizers and batches of callbacks that have run; atomic */
    uint32_t due;  /* something is in them; atomic */
    uint32_t finalizing;    /* threads that run some of them at this moment; atomic */
    uint32_t calling;       /* threads that run callbacks: no finalizer is begun meanwhile */
    bool finalizer_running; /* the finalizer thread exists; under heap->world */
    bool leaving;           /* it is to end; written under heap->world; atomic */
    pthread_t finalizer;
    pthread_cond_t finalizer_wake;

    /* checking the client (verify): what the barrier has stored where; under `announced_lock` */
    pthread_mutex_t announced_lock;
    struct wn_cc_announced {
        void *slot, *value;
    } * announced;
    size_t announced_size, announced_used;

    /* the pacer; see pacer.c */
    size_t trigger, goal;     /* bytes in use at which a cycle starts, and at which it should be over; atomic */
    size_t largest;           /* bytes of the largest object made since the last cycle ended; atomic */
    size_t external_at_start; /* bytes held outside when the last cycle started; atomic */
    size_t used_at_start;     /* bytes in use when the last cycle started; atomic, written by the conductor alone */
    size_t work_expected;     /* of the cycle under way; atomic */
    size_t work_done;         /* atomic */
    uint64_t assist_ns;       /* that threads of the program spent on it; atomic */
    double ns_per_work, bytes_per_ns, ns_beside; /* marking; allocation; what a cycle takes besides marking */
    uint64_t last_end;
    size_t last_allocated;
    uint64_t futile_at;    /* allocated bytes + 1 when a full cycle last failed to make room; 0: none did; atomic */
    uint64_t futile_until; /* so long requests fail at once if no more was allocated; atomic */
    unsigned futile_times; /* requests for which cycles were run in vain since something was handed out; atomic */
    wn_cc_cycle now;
    uint64_t cpu_total_ns; /* atomic */
} wn_cc;

static inline wn_cc *wn_cc_of(const wn_heap *heap) { return heap->state; }
static inline wn_cc_mutator *wn_cc_of_mutator(const mutator *m) { return m->state_of_collector; }
static inline wn_cc_phase wn_cc_phase_of(const wn_cc *cc) {
    return (wn_cc_phase)__atomic_load_n(&cc->phase, __ATOMIC_ACQUIRE);
}

static inline bool wn_cc_is_marked(const void *object) {
    uint64_t bit;
    return __atomic_load_n(wn_bit_of(object, WN_MARK_TABLE, &bit), __ATOMIC_RELAXED) & bit;
}
/* Sets the mark; true for the one who did. Looks first: a locked instruction costs as much as a scan. */
static inline bool wn_cc_claim(const void *object) {
    uint64_t bit, *word = wn_bit_of(object, WN_MARK_TABLE, &bit);
    if (__atomic_load_n(word, __ATOMIC_RELAXED) & bit) return false;
    return !(__atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit);
}

/* Bytes that count towards thresholds: slots handed out, dead ones not yet swept included. */
static inline size_t wn_cc_used(const wn_cc *cc) {
    return __atomic_load_n(&cc->heap->space.live_bytes, __ATOMIC_RELAXED);
}

/* ---- concurrent.c ---- */
/* What every thread's mode is, but for the barrier of a cycle, which goes on and off thread by thread. */
uint32_t wn_cc_mode(const wn_cc *cc);

/* ---- allocate.c ---- */
void *wn_cc_allocate(mutator *m, const wn_type *type, size_t bytes);
void wn_cc_flush(mutator *m);
/* Makes what is left of a thread's buffers black. */
void wn_cc_blacken_buffers(mutator *m);

/* ---- barrier.c ---- */
/* Whether a thread has its barrier on. */
static inline bool wn_cc_shades(const mutator *m) { return m->fast.mode & WN_MODE_SHADE_; }
void wn_cc_store(mutator *m, void *holder, void **slot, void *value, bool takes_over);
/* Shades on behalf of any thread, attached or not; nothing unless a cycle marks. */
void wn_cc_shade(wn_heap *heap, void *object);
/* Adds a reference to the thread's buffer; hands the buffer over when full. */
void wn_cc_shade_own(mutator *m, void *object);
void wn_cc_hand_over(mutator *m);
void *wn_cc_weak_get(mutator *m, void *target);

/* ---- announce.c: with the option `verify` ---- */
/* Notes a store. */
void wn_cc_announce(wn_cc *cc, void *slot, void *value);
/* Compares every reference there is with what was noted. */
void wn_cc_verify(mutator *m, void (*fault)(void *data, const char *format, ...), void *data);

/* ---- handshake.c ---- */
void wn_cc_serve(mutator *m, wn_cc_ask ask);
/* Asks every thread and waits until all have served; `meanwhile` is called as long as it returns true. False: the cycle
 * was aborted. */
bool wn_cc_handshake(wn_cc *cc, wn_cc_ask ask, bool (*meanwhile)(wn_cc *cc));
/* H2 at one stop, for heaps with root scanners, which have no barrier. */
bool wn_cc_scan_stopped(wn_cc *cc);
void wn_cc_scan_roots(mutator *m);

/* ---- mark.c ---- */
/* Scans about a unit of what a worker has or can get; false: there was nothing. */
bool wn_cc_mark_unit(wn_cc *cc, wn_cc_worker *w);
void wn_cc_mark_root(wn_cc_worker *w, void *object);
/* Gives what a marker still holds to the others, and counts it as idle: before it stops looking for work. */
void wn_cc_lay_down(wn_cc *cc, wn_marker *marker, bool *busy);
/* Whether no work is left anywhere but in buffers of running threads; notes what has been found white until then. */
bool wn_cc_is_dry(wn_cc *cc);
void wn_cc_assist(mutator *m, uint64_t budget_ns);
/* After a thread has served a flush: marks some of what it has handed over if marking runs after the program. */
void wn_cc_catch_up(mutator *m);
/* Goes through the table of weak references beside the program, n entries at a time. False: aborted. */
bool wn_cc_walk_weak(wn_cc_worker *w, size_t n, void (*visit)(void *context, wn_weak_entry *e), void *context);
/* Marks values of ephemerons whose keys are marked; call when dry. False: nothing (more) was to be done. */
bool wn_cc_follow_ephemerons(wn_cc *cc, wn_cc_worker *w);
/* Nothing more is marked in this cycle, or not until the table is searched anew. */
void wn_cc_stop_following(wn_cc *cc);
/* After H4: nobody takes what was shaded since marking has closed, and who has taken some is done with it. A worker
 * that the scheduler puts aside in the middle of it would else mark and trace before the next cycle's barrier is up.
 * False: aborted. */
bool wn_cc_end_work(wn_cc *cc);
/* Forgets all work. */
void wn_cc_drop_work(wn_cc *cc);

/* ---- cycle.c ---- */
/* Makes sure the conductor exists and asks for cycle number `cycle`. With heap->world held. */
void wn_cc_want(wn_cc *cc, uint64_t cycle);
/* Waits, standing still, for the end of a cycle: of the one under way if there is one, or, with `fresh`, of one that
 * begins after this call. False: there can be none, for want of a thread. */
bool wn_cc_wait_for_cycle(mutator *m, bool fresh);
wn_status wn_cc_collect(mutator *m, int generation, wn_collect_result *result);
/* A look at the world's poll word between units of work; false: the cycle was aborted meanwhile. */
bool wn_cc_pause(wn_cc *cc, wn_cc_worker *w);
/* Marks until nothing is left but what running threads have in their buffers, ephemerons included. False: aborted. */
bool wn_cc_mark_all(wn_cc *cc);
/* Gives up the cycle under way if it has not come to sweeping. The world is stopped, or only this thread exists. */
void wn_cc_abort(wn_cc *cc);
void wn_cc_stop_threads(wn_cc *cc);
/* False: the system has too many. */
bool wn_cc_start_thread(pthread_t *thread, void *(*run)(void *), void *arg);
void wn_cc_set_phase(wn_cc *cc, wn_cc_phase phase);

/* ---- sweep.c ---- */
bool wn_cc_begin_sweep(wn_cc *cc);
/* Sweeps some blocks that wait; false: none does. */
bool wn_cc_sweep_some(wn_cc *cc);
bool wn_cc_sweep_done(const wn_cc *cc);
bool wn_cc_starved(wn_space *space, unsigned kind, unsigned cls);
void wn_cc_collect_unswept(wn_cc *cc);
void wn_cc_drop_waiting(wn_cc *cc);
void wn_cc_clear_marks(wn_cc *cc);
bool wn_cc_wants_to_scavenge(const wn_cc *cc);
void wn_cc_scavenge(wn_cc *cc);
/* After each cycle; then wn_cc_mesh is called until it is not wanted any more. */
void wn_cc_mesh_later(wn_cc *cc);
bool wn_cc_wants_to_mesh(const wn_cc *cc, bool in_a_hurry);
void wn_cc_mesh(wn_cc *cc);

/* ---- final.c ---- */
bool wn_cc_find_dead(wn_cc *cc, wn_cc_worker *w);
/* Dead objects with finalizers are on the list of what is due. The caller notes that something is, and tells somebody;
 * so with wn_cc_end_clearing. */
void wn_cc_make_finals_due(wn_cc *cc);
/* Runs callbacks and finalizers that are due, until about `budget_ns` have passed; true: some were run. */
bool wn_cc_run_due(mutator *m, uint64_t budget_ns);
/* With something due: wakes the finalizer thread, or asks every thread to a safepoint. */
void wn_cc_wake_somebody(wn_cc *cc);
/* The latter; with heap->world, or with the world stopped. */
void wn_cc_ask_threads_to_run_due(wn_cc *cc);
/* Whether a thread of its own runs what is due; started or woken if need be. False: not wanted, or there can be none.
 */
bool wn_cc_leave_to_finalizer(wn_cc *cc);
/* Whether a mutator is that of the finalizer thread; with heap->world. */
bool wn_cc_is_finalizer(const mutator *m);
/* Ends that thread when it has run what it is in the middle of. */
void wn_cc_stop_finalizer(wn_cc *cc);
/* False: no memory for the lists. */
bool wn_cc_note_finalizable(mutator *m, void *object);
/* Ends the clearing of weak references that was interrupted. The world is stopped. */
void wn_cc_end_clearing(wn_cc *cc);
/* Callbacks that a thread took and has not run, or that the conductor has found, are on the list of what is due. With
 * cc->lists. */
void wn_cc_give_back_callbacks(mutator *m);
void wn_cc_each_callback(struct wn_weakref *first, void (*visit)(void **slot, void *context), void *context);

/* ---- pacer.c ---- */
void wn_cc_pace_start(wn_cc *cc);
void wn_cc_pace_end(wn_cc *cc);
/* The cycle had no memory for its work: the next is not due at once. */
void wn_cc_pace_failed(wn_cc *cc);
/* After a thread has been handed a run of slots: starts a cycle, or makes the thread help with the one under way. */
void wn_cc_pace(mutator *m);
/* The same before a large object. */
void wn_cc_pace_large(mutator *m, size_t bytes);
void wn_cc_external(mutator *m);
void wn_cc_trace(wn_cc *cc);

#endif
