/*
 * heap.h - a heap, its mutators and what a collector has to provide: the meeting place of all layers above.
 *
 * Invariants: a mutator's fast part is written by its own thread, or by another while the mutator stands still (parked
 * at a safepoint or in a blocking section). The world is stopped by one mutator (or collector thread) at a time.
 */
#ifndef WN_HEAP_H
#define WN_HEAP_H

#include "object/object.h"
#include "winnow.h"

typedef struct mutator mutator;
typedef struct wn_collector wn_collector;

/* A growable array of pointers; its memory comes from malloc. */
typedef struct wn_vector {
    void **at;
    size_t n, room;
} wn_vector;
bool wn_vector_reserve(wn_vector *v, size_t room);
static inline bool wn_vector_push(wn_vector *v, void *p) {
    if (WN_UNLIKELY(v->n == v->room) && !wn_vector_reserve(v, v->n + 1)) return false;
    v->at[v->n++] = p;
    return true;
}
void wn_vector_free(wn_vector *v);

typedef enum mutator_state { MUTATOR_RUNNING, MUTATOR_STILL } mutator_state;

struct mutator {
    wn_mutator fast; /* first: a wn_mutator * is a mutator * */
    wn_heap *heap;   /* NULL once detached */
    pthread_t thread;
    mutator *next;           /* of the heap */
    mutator *next_of_thread; /* of this thread's mutators for several heaps */
    mutator_state state;     /* under heap->world */
    bool ending;             /* its thread ends, and may still detach */
    bool waits_to_fork;   /* within a no-collect scope or, on a thread of the collector's, a listener: stands still for
                             another's fork, and for nothing else; under heap->world */
    bool waits_elsewhere; /* its thread waits in another heap, and does not come here meanwhile; atomic */
    uint32_t stack_is_shared; /* a variable in it is a global root, of which other threads may know; stays; atomic */
    void *stack_high;         /* the end of its C stack; NULL: not needed, or unknown (conservative stacks: known) */
    void *stack_from;         /* ... and where all of it begins, in use or not */
    void *stack_low;          /* conservative stacks, while it stands still: where the part in use ends */
    wn_registers registers;   /* ... and what its registers held */
    wn_block *block[WN_KINDS][WN_CLASSES_];
    wn_buffer_ stash[WN_CLASSES_]; /* the buffers when every allocation must take the slow path */
    wn_buffer_ *buffers;           /* fast.buffer or stash */
    bool all_slow;                 /* stress or check: the fast path never succeeds */
    unsigned until_stress;
    uint64_t barrier_slow;
    wn_vector callbacks; /* weak references (owned) whose callbacks are due, in order */
    size_t callback_at;  /* those before have been taken off to run */
    /* Those that are due after them, chained, because there was no memory for a place. Concurrent: all that are. */
    struct wn_weakref *late_callbacks, *latest_callback;
    unsigned in_callbacks;    /* callbacks running, one within the other */
    void *state_of_collector; /* the collector's own part */
};

/* The generation whose turn it is; a collector without that many takes it for the youngest. */
enum { WN_DUE = -1 };

struct wn_root_scanner_entry {
    wn_root_scanner scan;
    void *data;
};
struct wn_listener_entry {
    wn_listener listener;
    void *data;
};

/* weak references and ephemerons by target: engines/weak.h */
typedef struct wn_weak_table {
    pthread_mutex_t lock;
    uint32_t wanted; /* threads of the program that wait for the lock; atomic */
    struct wn_weak_entry *entry;
    size_t size, used;            /* used: filled and deleted entries */
    uint64_t replaced;            /* how often `entry` has become another; its address may be that of one before */
    struct wn_weak_entry *old;    /* the table before it grew, while its entries are moved over a few at a time */
    size_t old_size, old_at;      /* those before old_at have been */
    size_t old_left;              /* how many there are at most that have not: `entry` keeps room for them */
    struct wn_weak_entry *next;   /* the one that it will grow into, filled with memory a little at a time */
    size_t next_size, next_ready; /* bytes that are */
    struct wn_weak_entry *walked; /* `entry` or `old`, while a thread of the collector's goes through it beside the */
    size_t walk_at;               /* program, and has come so far; NULL: none does */
    unsigned walks_lost;          /* how often it had to begin anew */
    size_t live;                  /* in both */
    size_t ephemerons;            /* with a key, but not those that are left on a ring */
    struct wn_ephemeron *left;    /* those that were, and are off it: to be freed */
} wn_weak_table;

struct wn_heap {
    wn_space space;
    const wn_collector *collector;
    void *state; /* the collector's own part */
    wn_options options;

    pthread_mutex_t world;
    pthread_cond_t world_changed;
    mutator *mutators;
    unsigned mutator_count;
    mutator *helpers; /* threads of the collector: they stand still like mutators, but have no roots and no buffers */
    bool forking;     /* helpers stand still until fork() is over */
    bool stopped;     /* somebody holds the world */
    mutator *stopper; /* who; NULL: a thread that attaches, or one that is not attached and forks */
    unsigned stop_depth;
    bool brief; /* it will be over before a thread that sleeps would be awake again */

    pthread_mutex_t roots_lock; /* guards the five below; with the world stopped, too */
    wn_vector globals;
    struct wn_root_scanner_entry *scanners;
    struct wn_listener_entry *listeners;
    size_t scanner_count, listener_count;
    uint64_t scanners_added; /* ever */

    wn_vector immortals; /* under roots_lock */
    wn_vector garbage;   /* owned references; changed with the world stopped or by one thread */
    wn_weak_table weak;

    int disabled;          /* atomic */
    unsigned threshold[3]; /* atomic */
    size_t external_bytes; /* atomic */

    pthread_mutex_t tell_lock; /* held by a thread of the collector's while it calls listeners; before roots_lock */

    pthread_mutex_t stats_lock;
    wn_stats stats;   /* what events add up to; the rest is computed when asked for */
    uint64_t made_at; /* by the monotonic clock */

    wn_heap *next; /* all heaps of the process, for fork */
};

/*
 * A collector: one struct of operations. Unless it says otherwise an operation runs on the calling mutator's thread,
 * with the world running.
 */
struct wn_collector {
    wn_collector_id id;
    const char *name;

    /* Makes heap->state from heap->options; the space is ready. Error text by wn_fail. */
    wn_status (*init)(wn_heap *heap);
    /* Releases heap->state; no mutator is left, objects are not looked at any more. */
    void (*fini)(wn_heap *heap);
    /* A mutator comes and goes, with the world stopped. */
    wn_status (*attach)(mutator *m);
    void (*detach)(mutator *m);
    /* Whether a mutator is that of a thread of the collector's own, which fini ends; with heap->world. NULL: none is.
     */
    bool (*is_own)(const mutator *m);

    /* Makes an object of `bytes` when the fast path could not: zero but for its type. A safepoint. NULL with an error
     * text when memory is out, after having tried to collect. */
    void *(*allocate)(mutator *m, const wn_type *type, size_t bytes);
    /* The barrier's slow path (every store in checked mode). */
    void (*store)(mutator *m, void *holder, void **slot, void *value, bool takes_over);
    /* Borrowed references into consecutive slots of one holder; both may overlap. NULL: the same as a store for each.
     */
    void (*copy)(mutator *m, void **slots, void *const *values, size_t n);
    /* Counting; NULL otherwise. */
    void (*count_up)(mutator *m, void *object);
    void (*count_down)(mutator *m, void *object);
    size_t (*refcount)(mutator *m, const void *object);
    void (*young_full)(mutator *m);
    /* What the collector wants done at a safepoint besides standing still for others. NULL: nothing. */
    void (*poll)(mutator *m);

    /* WN_DUE: what the option stress asks for at an allocation; with NULL for the result. */
    wn_status (*collect)(mutator *m, int generation, wn_collect_result *result);
    /* Budget 0: one step. NULL: its collections cannot be divided, or need not be; a step is a whole one. */
    wn_status (*step)(mutator *m, uint64_t budget_ns, wn_step_result *result);

    wn_status (*freeze)(mutator *m);   /* the world is stopped */
    wn_status (*unfreeze)(mutator *m); /* the world is stopped */
    size_t (*frozen)(const wn_heap *heap);
    void (*make_immortal)(mutator *m, void *object);
    wn_status (*pin)(mutator *m, void *object);
    void (*unpin)(mutator *m, void *object);
    uintptr_t (*identity)(mutator *m, void *object);

    /* The target of a weak reference if it is alive, as a new reference; called under heap->weak.lock. */
    void *(*weak_get)(mutator *m, void *target);
    int (*generation)(const wn_heap *heap, const void *object);
    bool (*is_tracked)(const wn_heap *heap, const void *object);
    void (*get_count)(wn_heap *heap, unsigned count[3]);
    /* heap->threshold is another; the world is stopped. NULL: it is read when needed. */
    void (*thresholds_changed)(wn_heap *heap);
    /* Starts or stops to track an object for cycles; NULL: nothing is tracked by object. */
    void (*track)(mutator *m, void *object, bool on);

    /* For a collector that keeps young objects outside of the space's slots (NULL: there are none): the object that an
     * address points to, or into unless `exact`; and a walk over the young ones, world stopped, until visit says no. */
    void *(*object_at)(wn_heap *heap, const void *address, bool exact);
    bool (*each_young)(wn_heap *heap, bool (*visit)(void *object, void *data), void *data);
    /* A reference leaves or enters a place without a barrier of its own (a global variable, a table of the library):
     * what marks concurrently keeps the object for this cycle. Any thread, no lock of the collector held. NULL:
     * nothing. */
    void (*shade)(wn_heap *heap, void *object);

    /* The bytes that objects hold outside the heap have grown. No safepoint. NULL: nothing. */
    void (*external)(mutator *m);

    /* Gives back what the mutator caches, so that alloc bits tell the truth; the world is stopped. */
    void (*flush)(mutator *m);
    /* Whether an allocated slot holds an object a walk should show; NULL: every one. The world is stopped. */
    bool (*is_live)(const wn_heap *heap, const void *object);
    void (*stats)(wn_heap *heap, wn_stats *stats);
    /* The collector's own part of wn_verify: reports each fault by `fault`. The world is stopped; NULL: nothing. */
    void (*verify)(mutator *m, void (*fault)(void *data, const char *format, ...), void *data);
    /* Around fork(): before, with the world's lock held by the forking thread; after, with no lock held, in the parent
     * or the child. In the child only the forking thread's mutator is left, and no helper. NULL: nothing. */
    void (*before_fork)(wn_heap *heap);
    /* In the child, before after_fork: the thread of this mutator is not there, and it has left the heap's list. */
    void (*orphaned)(mutator *m);
    void (*after_fork)(wn_heap *heap, bool child);
    /* Called by wn_trim before the space discards; NULL: nothing. */
    void (*trim)(mutator *m);
};

extern const wn_collector wn_collector_refcount;
extern const wn_collector wn_collector_incremental;
extern const wn_collector wn_collector_concurrent;

/* wn_space_object_at under the space's lock, for callers with the world running. */
void *wn_space_object_at_locked(wn_heap *heap, const void *address, bool exact);

/* The object of a heap that an address points to, or into unless `exact`; NULL when there is none. */
static inline void *wn_heap_object_at(wn_heap *heap, const void *address, bool exact) {
    return heap->collector->object_at ? heap->collector->object_at(heap, address, exact)
                                      : wn_space_object_at_locked(heap, address, exact);
}

/* Checked mode: whether an argument is an object of this heap, or NULL; reports it otherwise, as the `role` of `what`.
 */
bool wn_check_object(mutator *m, const void *o, const char *what, const char *role);

static inline mutator *wn_mutator_of(wn_mutator *m) { return (mutator *)m; }

/* Whether a call, `what`, may use a mutator; false, with the error's text, when it is a detached one, and in checked
 * mode, with a report, when it is another thread's, in a blocking section or in a release hook. */
bool wn_is_usable(const mutator *m, const char *what);
/* The latter alone, and whether it is made by a release hook; by the mutator's own thread. */
bool wn_check_running(const mutator *m, const char *what);
/* Runs the release hook of an object, whose type has one. */
void wn_run_release(const wn_heap *heap, const wn_type *type, void *object);
/* Whether an argument is not NULL; false with the error's text. In checked mode an object of the heap, too. */
bool wn_is_given(mutator *m, const void *object, const char *what);
/* Both. */
static inline bool wn_may_use(mutator *m, const void *object, const char *what) {
    return wn_is_usable(m, what) && wn_is_given(m, object, what);
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

/* Whoever waits so long for a thread to come to a safepoint says so on stderr, where the options ask for that: what
 * looks like a hang is then a thread with a name. `who` waits, for m; with the world's lock. */
enum { WN_LONG_WAIT_NS = 100000000 };
static inline bool wn_world_names_waits(const wn_heap *heap) { return heap->options.trace || heap->options.check; }
void wn_world_say_who_is_waited_for(const mutator *m, const char *who, uint64_t waited);

/* Makes every other mutator stand still and keeps new ones out; nests for the same thread. `me` is the calling thread's
 * mutator or, on a thread of the collector's, what it is on heap->helpers; NULL if it is not attached. While it waits
 * for another stopper the caller itself counts as still. */
void wn_world_stop(wn_heap *heap, mutator *me);
/* The same for fork(), for which a mutator that waits to fork itself is as good as still. */
void wn_world_stop_to_fork(wn_heap *heap, mutator *me);
void wn_world_start(wn_heap *heap, mutator *me);
/* Notes what a conservative scan of the calling thread's stack needs while it stands still; nothing when off. */
void wn_world_spill(mutator *me);
/* Gives up what a mutator allocates from: its buffers and its blocks. It is the caller's own, or stands still. */
void wn_drop_blocks(mutator *m);
/* Stands still for 20 us: between two looks at what another thread has to end first. A safepoint. */
void wn_stand_aside(mutator *m);
/* For a thread of the collector, which `me` is: stops the world for some microseconds if every mutator gets to a
 * safepoint within `ns`; else those that have stood still meanwhile go on, and the answer is false. They do not sleep.
 */
bool wn_world_try_stop(wn_heap *heap, mutator *me, uint64_t ns);
/* Stands still while the world is stopped. */
void wn_world_park(mutator *me);
/* Ends a blocking section, if the calling thread is in one; no safepoint beyond that. */
void wn_world_run(mutator *me);
/* The same for a thread of the collector, which is on heap->helpers: it begins as still, runs between the first two
 * calls, and in between stands still in the third for a stop of the world and for fork(). */
void wn_helper_begin(mutator *me);
void wn_helper_end(mutator *me);
void wn_helper_park(mutator *me);
/* Comes to a safepoint of every heap the calling thread is attached to and runs in. */
void wn_poll_own(void);
/* Around a wait of the calling thread in a heap. It stands still there, but not in others that it is attached to: a
 * call on one heap is a safepoint of that one alone, because what it refers to in the others may be undeclared. Those
 * who wait for it there can name the reason. */
void wn_wait_in(const wn_heap *heap, bool begin);
/* Begins and ends a wait of the calling thread for another's fork, during which it touches no heap. */
void wn_wait_to_fork(bool begin);

/* The lock of the list of spare mutators, around fork() and after all other locks: a thread that attaches or detaches
 * may hold it while it is on no heap's list, so that no stop of the world waits for it. */
void wn_lock_spares(void);
void wn_unlock_spares(void);

/* Puts a heap on the list of those that fork() must find in order, and takes it off. */
void wn_heap_register(wn_heap *heap);
void wn_heap_unregister(wn_heap *heap);

/* Asks every mutator to come to a safepoint. */
void wn_world_interrupt(wn_heap *heap);

/* ---- roots ------------------------------------------------------------------------------------------------------- */

/* For a mutator that has just come to the list of them: whether a global root lies in its stack. */
void wn_note_globals_in_stack(mutator *m);

static WN_ALWAYS_INLINE void wn_each_local_root(mutator *m, void (*visit)(void **slot, void *context), void *context) {
    for (wn_root_link_ *link = m->fast.roots; link; link = link->up) visit((void **)wn_root_slot_(link), context);
}

/* Visits the address of every root but the immortals: locals of all mutators, globals, scanners, due callbacks, the
 * garbage list. The world is stopped; roots_lock is taken inside. */
void wn_each_root(wn_heap *heap, void (*visit)(void **slot, void *context), void *context);

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Marking threads of one heap at most: they are a part of its collector's state. */
enum { WN_MOST_WORKERS = 64 };

/* Resolves what a client gave (may be NULL) against the environment, checks it and fills the defaults. */
wn_status wn_options_resolve(const wn_options *given, wn_options *out);

/* ---- telling ----------------------------------------------------------------------------------------------------- */

void wn_tell(mutator *m, const wn_event *event);
/* Whether the calling thread is in a listener of the heap. */
bool wn_is_telling(const wn_heap *heap);
/* The thread of a collector's that the calling thread is, if it is in a listener; else NULL. */
mutator *wn_helper_that_tells(void);
/* Adds one pause to the statistics, of a mutator that collected itself. */
void wn_note_pause(wn_heap *heap, uint64_t ns);
/* Adds one in which a mutator waited for a thread of the collector's: no processor time, which is counted there. */
void wn_note_wait(wn_heap *heap, uint64_t ns);

/* Option trace: the line on stderr about a collection that is over, the heap's `number`th, which ended `at`; what all
 * collectors' lines begin with, and then what this one has to say. */
void wn_trace_collection(const wn_heap *heap, uint64_t number, uint64_t at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static inline double wn_mib(size_t bytes) { return (double)bytes / (1 << 20); }

/* Called by a collector while the world runs, "before", "in the middle of" and "after" a collection: verifies the heap
 * if the option says so. Before, because a collection would follow a word that is no reference to nowhere. */
void wn_verify_at(mutator *m, const char *when);

/* The message and NULL for an allocation that failed. */
void *wn_out_of_memory(wn_heap *heap, size_t bytes);

/* True when the collector may start on its own. */
static inline bool wn_may_collect(const mutator *m) {
    return !m->fast.nested && __atomic_load_n(&m->heap->disabled, __ATOMIC_RELAXED) == 0;
}

#endif
