/* heap.h - making a heap, choosing its collector, running and watching collections. */
#ifndef WINNOW_HEAP_H
#define WINNOW_HEAP_H

#include "type.h"

WN_BEGIN

/* The collectors. WN_COLLECTOR_AUTO takes the environment variable WINNOW_COLLECTOR, or reference counting.
 *
 * A program whose heaps are all of one collector, set by wn_options.collector, may define WN_COLLECTOR as its number
 * (1, 2 or 3) wherever it includes winnow.h: the inlined paths then leave out what they do for others. Nothing sees
 * that a heap is of another one; it would be corrupted. */
typedef enum wn_collector_id {
    WN_COLLECTOR_AUTO = 0,
    WN_COLLECTOR_REFCOUNT = 1,
    WN_COLLECTOR_INCREMENTAL = 2,
    WN_COLLECTOR_CONCURRENT = 3
} wn_collector_id;

/* Options of a heap. Start from wn_options_default(); each field is also settable by name (wn_options_set), by
 * `WINNOW_OPTIONS="name=value,name=value"`, and by `winnow ... --option name=value`. A zero means "the default"
 * unless the field says otherwise. Options of a collector that is not chosen are checked and then ignored. */
typedef struct wn_options {
    size_t struct_size; /* set by wn_options_default */
    wn_collector_id collector;
    size_t heap_limit; /* bytes the heap may hold, side tables included; 0: what the container or ulimit -v grants, if
                          there is such a limit */

    /* reference counting */
    bool single_thread;     /* plain counts; a second thread's wn_attach is then refused */
    unsigned threshold[3];  /* 700, 10, 10 as in CPython; threshold0 = WN_NEVER: no automatic collection */
    unsigned reclaim_slice; /* objects reclaimed at most per safepoint; 2,000. WN_ALL: everything at once */

    /* incremental */
    size_t nursery;           /* bytes, below 32 MiB; half the last-level cache, between 512 KiB and 4 MiB. At most an
                                 eighth of heap_limit */
    double major_factor;      /* a major starts when the heap has grown by this factor; 1.82 */
    double growth;            /* the threshold grows by at most this factor from one major to the next; 1.4 */
    size_t min_heap;          /* no major below this many bytes; 8 nurseries */
    size_t max_heap;          /* PyPy's name of heap_limit, good on every collector; the smaller counts. 0: none */
    size_t max_delta;         /* the threshold exceeds what is in use by at most this; an eighth of the RAM */
    size_t step_bytes;        /* marked at least per nursery allocated; 12 nurseries */
    uint64_t pause_budget_ns; /* 0: none; else a step and a minor aim to stay below this */
    size_t pin_limit;         /* objects pinned in the nursery at most; 1,000 */
    unsigned pretenure;       /* objects of a size of which this percentage outlives the nursery are born old; 85, but
                                 under stress WN_NEVER, because that shows more mistakes */

    /* concurrent */
    unsigned heap_growth;  /* percent, as GOGC; 100. WN_NEVER: only near the limit */
    unsigned workers;      /* marking threads, 1..64; 0: by cpu_share and the processors there are */
    unsigned cpu_share;    /* percent of the processors that marking beside the program may use; 25. Of those that the
                              process may run on and its container grants; one that the program leaves idle is not
                              spared, and when the heap has reached its goal nothing is */
    bool finalizer_thread; /* finalizers and callbacks run on a thread of their own; no call waits for them. If the
                              system grants no thread, at safepoints as without the option */

    /* what more than one has */
    bool conservative_stacks; /* scan C stacks for undeclared roots. With reference counting WN_ERR_UNSUPPORTED, unless
                                 the environment has chosen that collector: then it is ignored */
    bool large_pages; /* ask for pages of 2 MiB: less time on the way to an object in a large heap, longer first touches
                       */
    bool meshing;     /* sparse blocks may be laid together on the same memory; on. Never with conservative_stacks */

    /* finding mistakes */
    unsigned stress; /* collect at every Nth allocation; 0: off. A collection of what is due: refcount looks at older
                        generations in their turn, incremental goes on marking, concurrent runs a whole cycle */
    bool check;      /* check the client's rules (slow); default on in debug builds of the library */
    bool verify;     /* re-derive reachability by a second method before and after every collection, minors too, and
                        compare (slower still) */
    bool trace;      /* one line per collection to stderr, and one that names a thread which others have waited for
                        (see wn_attach); also WINNOW_TRACE=gc */
    bool save_all;   /* reference counting: keep cyclic garbage on the garbage list (gc.DEBUG_SAVEALL) */
} wn_options;

#define WN_NEVER (~0u)
#define WN_ALL (~0u)

WN_API wn_options wn_options_default(void);

/* Sets one option by name from text: sizes take K, M, G, T (powers of 1024), times ns, us, ms, s, switches on/off.
 * WN_ERR_ARGUMENT with a message that lists what is allowed when the name or the value is wrong. */
WN_API wn_status wn_options_set(wn_options *options, const char *name, const char *value);

/* Writes the table of options (name, unit, default, range, meaning) for people. */
WN_API void wn_options_print(FILE *out);

/* Makes a heap. `options` may be NULL. Fields at their default are filled from WINNOW_COLLECTOR, WINNOW_OPTIONS and
 * WINNOW_TRACE. Several heaps may exist in a process; their objects must not refer to each other.
 * WN_ERR_ARGUMENT: a nonsensical option; WN_ERR_UNSUPPORTED: one that the collector cannot do; WN_ERR_MEMORY: there was
 * none even for the beginning: 32 MiB of addresses for the first chunk (twice that for a moment, to align it), under
 * counting also what is held back for a full collection, some 72 MiB in all. Any thread. */
WN_API wn_status wn_heap_new(const wn_options *options, wn_heap **heap);

/* Releases a heap and all its objects: `release` hooks run, finalizers do not. Every mutator must be detached first,
 * else WN_ERR_STATE and nothing happens; so, too, in a listener, finalizer or callback. With finalizer_thread it waits
 * for the finalizer that is under way there. NULL is fine. */
WN_API wn_status wn_heap_free(wn_heap *heap);

/* The collector a heap runs, and its name ("refcount", "incremental", "concurrent"). */
WN_API wn_collector_id wn_heap_collector(const wn_heap *heap);
WN_API const char *wn_collector_name(wn_collector_id id);
/* What a heap was made with: the options that were given, completed by the environment, the defaults and, for the
 * incremental collector, what it has chosen for nursery, min_heap, max_delta and step_bytes. `workers` stays 0 where
 * cpu_share decides. For a log. */
WN_API wn_options wn_heap_options(const wn_heap *heap);
/* Whether this build of the library contains the collector. */
WN_API bool wn_collector_available(wn_collector_id id);

/* ---- collecting -------------------------------------------------------------------------------------------------- */

typedef struct wn_collect_result {
    size_t collected;     /* unreachable objects that were freed (counting: those in cycles, with save_all those that
                             went on the list instead; concurrent: by a collection that was under way, too) */
    size_t uncollectable; /* unreachable objects that could not be freed (WN_TYPE_NO_CLEAR) */
    size_t freed_bytes;
    uint64_t duration_ns;
} wn_collect_result;

/* Collects. `generation` 0, 1, 2 as in CPython's gc.collect(); the youngest, the young and the whole heap. Collectors
 * without that many take: below the highest, a minor collection (or nothing); the highest, everything reachable only
 * from garbage is freed when the call returns (but for what waits for a finalizer on another thread: of the option
 * finalizer_thread, or of another's collection). `result` may be NULL. A safepoint; runs finalizers and callbacks.
 * WN_ERR_ARGUMENT: there is no such generation; WN_ERR_STATE in a listener, and inside a no-collect scope, of which a
 * collector may keep one open around finalizers; WN_ERR_MEMORY: there was no memory to find out what is unreachable,
 * and the older generations are as they were. */
WN_API wn_status wn_collect(wn_mutator *m, int generation, wn_collect_result *result);

/* The states of an incremental major collection. */
typedef enum wn_phase {
    WN_PHASE_IDLE,
    WN_PHASE_SCANNING,
    WN_PHASE_MARKING,
    WN_PHASE_SWEEPING,
    WN_PHASE_FINALIZING
} wn_phase;
WN_API const char *wn_phase_name(wn_phase phase);

typedef struct wn_step_result {
    wn_phase before, after;
    bool major_is_done;
    size_t freed_objects, freed_bytes;
    uint64_t duration_ns;
} wn_step_result;

/* Runs one step of a major collection, starting one if none is under way (PyPy's gc.collect_step). Collectors that
 * have no steps run a whole collection and say so by major_is_done. A safepoint, as the next. */
WN_API wn_status wn_collect_step(wn_mutator *m, wn_step_result *result);
/* Works on collection for about `budget_ns`, then returns; stops early when a major collection is done. */
WN_API wn_status wn_collect_for(wn_mutator *m, uint64_t budget_ns, wn_step_result *result);

/* Stops and resumes automatic collection: counting, the cycle collector; incremental, major steps only; concurrent,
 * cycles. Nests. What the program asks for by wn_collect runs all the same, and so does a whole collection of the
 * latter two where an allocation would fail without; under counting it fails. Any thread. */
WN_API void wn_disable(wn_heap *heap);
WN_API void wn_enable(wn_heap *heap);
WN_API bool wn_is_enabled(const wn_heap *heap);

/* The thresholds of the generations (counting; the others keep but do not use them). Any thread; under counting setting
 * them stops the world for a moment. */
WN_API void wn_set_threshold(wn_heap *heap, unsigned threshold0, unsigned threshold1, unsigned threshold2);
WN_API void wn_get_threshold(const wn_heap *heap, unsigned threshold[3]);
/* Allocations less deallocations of tracked objects since the last young collection; collections of each younger
 * generation since the next older one's. Any thread; what other running threads allocated last may be missing. */
WN_API void wn_get_count(const wn_heap *heap, unsigned count[3]);

/* Moves every object, garbage that has not been collected too, into a permanent generation that no collection looks at:
 * before fork() in a pre-fork server. References from frozen objects stay roots. WN_ERR_STATE inside a no-collect
 * scope, because objects may move; a collector may keep one open around finalizers. wn_unfreeze gives them back as the
 * oldest generation. A listener is refused both (WN_ERR_STATE). */
WN_API wn_status wn_freeze(wn_mutator *m);
WN_API wn_status wn_unfreeze(wn_mutator *m);
WN_API size_t wn_frozen_count(const wn_heap *heap);

/* Gives memory back to the system at once: that of empty blocks, and, with the option `meshing`, that of nearly empty
 * ones: those whose objects do not overlap are laid together on the same memory, and every object keeps its address.
 * Stops the world for half a millisecond at a time, after once to look at all blocks, which takes longer where many
 * were laid before: some 40 us per MiB. Returns the bytes given back. A safepoint. */
WN_API size_t wn_trim(wn_mutator *m);

/* ---- watching ---------------------------------------------------------------------------------------------------- */

/* Kinds of events that a listener hears. */
typedef enum wn_event_kind {
    WN_EVENT_COLLECT_START, /* a collection (for incremental: a major) starts */
    WN_EVENT_COLLECT_STOP,  /* ... and is over, or given up (for a freeze, say); `result` is filled */
    WN_EVENT_MINOR,         /* a minor collection is over */
    WN_EVENT_STEP,          /* one step of a major collection is over */
    WN_EVENT_FREE_SLICE     /* one slice of a cascade was reclaimed */
} wn_event_kind;

typedef struct wn_event {
    wn_event_kind kind;
    int generation;
    wn_phase before, after;
    wn_collect_result result;
    size_t bytes_before, bytes_after, pinned;
} wn_event;

/* Hears events, on the thread that collects. START and STOP of counting and incremental are called at a safepoint and
 * may allocate; all others must not (under concurrent wn_new is NULL there), and none asks for a collection
 * (WN_ERR_STATE). When wn_remove_listener returns, no thread of the collector's is calling the listener any more: where
 * it has to wait for that it is a safepoint. A listener may fork; under concurrent the thread that is left in the child
 * is then the collector's own, which has no mutator: it ends by exec or _exit. */
typedef void (*wn_listener)(wn_mutator *m, const wn_event *event, void *data);
WN_API wn_status wn_add_listener(wn_heap *heap, wn_listener listener, void *data);
WN_API wn_status wn_remove_listener(wn_heap *heap, wn_listener listener, void *data);

/* Durations in nanoseconds, in 16 buckets per power of two: a quantile is at most 6 % too high. */
enum { WN_HISTOGRAM_BUCKETS = 64 * 16 };
typedef struct wn_histogram {
    uint64_t count, total, min, max;
    uint64_t bucket[WN_HISTOGRAM_BUCKETS];
} wn_histogram;
WN_API void wn_histogram_add(wn_histogram *h, uint64_t ns);
WN_API void wn_histogram_merge(wn_histogram *into, const wn_histogram *from);
/* The least upper bound of the fraction q of the values: the least for q of 0 and what is no fraction, the largest from
 * 1 on; 0 when empty. */
WN_API uint64_t wn_histogram_quantile(const wn_histogram *h, double q);
/* The largest value that a bucket counts, for a program that shows or exports the whole distribution; that of the last
 * from there on. */
WN_API uint64_t wn_histogram_bound(unsigned bucket);

typedef struct wn_generation_stats {
    uint64_t collections, collected, uncollectable;
} wn_generation_stats;

typedef struct wn_stats {
    uint64_t collections; /* of every kind */
    uint64_t minors, majors, steps, slices;
    wn_generation_stats generation[3];
    uint64_t allocated_bytes, allocated_objects; /* since the heap was made */
    uint64_t live_bytes;                         /* in objects now, as slots; dead ones not yet swept included */
    uint64_t live_bytes_max;
    uint64_t heap_bytes; /* in blocks that hold objects */
    uint64_t heap_bytes_max;
    uint64_t meshed_bytes;      /* of heap_bytes: taken by no memory, because sparse blocks share it */
    uint64_t bookkeeping_bytes; /* side tables and descriptors of those blocks */
    uint64_t nursery_bytes, nursery_used, large_bytes, external_bytes;
    uint64_t returned_bytes; /* given back to the system */
    uint64_t gc_cpu_ns;      /* spent collecting, on all threads (counting: counts themselves not included); of the
                                program's own threads by the wall clock */
    uint64_t tracked;        /* counting: objects that the cycle search looks at; the others track none one by one: 0 */
    uint64_t frozen, immortal;
    uint64_t barrier_slow; /* times the barrier left its fast path */
    wn_histogram pause;    /* every time the collector held a mutator, one entry; waits for a collection included */
} wn_stats;

/* Fills `stats`. Any thread; counts of other running mutators may lag, by an allocation buffer or, `tracked`, by what
 * they made since they last looked at the threshold. */
WN_API void wn_get_stats(wn_heap *heap, wn_stats *stats);

WN_END
#endif
