/*
 * mark.h - the marker: a work stack, and a queue of prefetches that it uses only when the heap is out of order.
 *
 * Following references in random order waits about 100 ns for each object; a queue that asks for an object some dozens
 * of steps before it is scanned waits almost never. But where objects lie in the order in which they are reached the
 * processor fetches ahead by itself, and a queue costs five times the loop. So the marker looks at each object it
 * takes from the stack: near the one before, it is scanned at once; otherwise it goes through the queue.
 *
 * The queue has two stages: entering it, `fetch` asks for the head of an object; when that has arrived, some steps
 * before the scan, it is called again to ask for what the scan will read elsewhere (an array, a dictionary's table).
 *
 * The marker knows nothing of objects or mark bits. Its client gives functions that are compiled into the loop (each is
 * a constant where wn_mark_drain is used, so none is called through a pointer):
 *
 *     scan(context, entry, visit, arg)   calls visit(arg, reference) for each reference of the object;
 *     visit(arg, reference)              tests and sets the mark, and when it was not set, wn_mark_reach(walk, ...);
 *                                        outside of a drain wn_mark_push;
 *     fetch(context, entry, stage)       stage 0: WN_PREFETCH the head; 1: the head is here, prefetch what it points to
 *                                        that is not an object; 2: as 1, and the scan follows at once;
 *     more(context)                      called when the stack is empty, though perhaps not the queue: visits some
 *                                        more, if there is more (a slice of a long array); returns how many objects'
 *                                        worth of work that was. NULL: there never is more.
 *
 * So a chain of objects, each of them a cache miss, is followed beside other work.
 *
 * An entry is whatever the client pushed, best an object's address, perhaps with a tag in it for a slice of a large
 * one; the marker only compares addresses.
 *
 * Invariant: an entry is pushed once, by whoever claimed its mark, and it is on the stack, in the queue, in a pool's
 * list, with the client (wn_mark_together), or scanned. Only a failure to get memory drops one; `failed` then says that
 * the marks are not complete.
 *
 * Memory comes from the system in slabs, never from malloc, so a marker may run in a forked child.
 */
#ifndef WN_MARK_H
#define WN_MARK_H

#include "platform/platform.h"

enum {
    WN_MARK_QUEUE = 32,      /* objects between the first prefetch and the scan; a power of two */
    WN_MARK_STAGE = 16,      /* objects between the first prefetch and fetch() */
    WN_MARK_ORDER = 128,     /* trust in a heap's order at most: one for each entry near the last, less three else */
    WN_MARK_DISTRUST = 8192, /* entries until a heap that showed no order is given another chance */
    WN_MARK_AHEAD =
        2048, /* bytes asked for ahead in order: past the page, where the processor's own prefetching ends */
    WN_MARK_SEGMENT = 1022 /* entries of a segment of the stack; a segment is 8 KiB */
};

/* Bytes within which the processor's own prefetching is trusted. A client whose objects have much of what a scan reads
 * elsewhere may define another before it includes this; 1: none. */
#ifndef WN_MARK_NEAR
#define WN_MARK_NEAR 256
#endif

typedef struct wn_mark_segment {
    struct wn_mark_segment *next;
    size_t used; /* entries, while the segment waits in a pool */
    void *entry[WN_MARK_SEGMENT];
} wn_mark_segment;

/* Markers of several threads that share their work: whoever has nothing left takes from the list, and those who have
 * something see `hungry` and give. Also the owner of the segments' memory, for one marker or many. */
typedef struct wn_mark_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    wn_mark_segment *work;       /* segments with entries that nobody has */
    wn_mark_segment *spare;      /* segments without */
    char *fresh, *fresh_end;     /* of the newest slab: segments that were never used */
    struct wn_mark_slab *slabs;  /* memory of segments, the newest first */
    struct wn_mark_slab *unused; /* not begun yet */
    unsigned markers;            /* how many drain */
    unsigned waiting;            /* how many of them have nothing to do */
    uint32_t hungry;             /* waiting and the list is empty: give (read without the lock) */
} wn_mark_pool;

typedef struct wn_marker {
    void **top, **base, **end; /* of the current segment: [base, top) are entries */
    wn_mark_segment *segment;  /* current; further full ones behind it */
    wn_mark_segment *reserve;  /* one empty, so that a stack that swings at a border stays cheap */
    wn_mark_pool *pool;
    bool failed;                /* an entry was dropped for want of memory */
    uintptr_t here;             /* the entry scanned last */
    int order;                  /* above 0 while three entries of four lie next to the one before; see WN_MARK_ORDER */
    unsigned distrusted;        /* entries until that is tried again */
    void *queue[WN_MARK_QUEUE]; /* the places of a drain's queue */
} wn_marker;

/* A queue of prefetches, whose places are elsewhere: entries stand in a row from the oldest on, around the end. */
typedef struct wn_mark_queue {
    unsigned oldest, used;
} wn_mark_queue;

/* What a drain changes with each object. A local variable of whoever drains, of which no function that is not inlined
 * may be told: so it lives in registers, where five words of memory that each object reads and writes again would cost
 * as much as the object. */
typedef struct wn_mark_walk {
    wn_marker *marker;
    void *next;          /* what lies next to the entry scanned last, to be scanned next */
    uintptr_t here;      /* as in the marker, and brought back there by wn_mark_rest */
    int order;           /* the same */
    unsigned distrusted; /* the same */
    wn_mark_queue queue; /* of the marker's queue */
} wn_mark_walk;

typedef void wn_visit_fn(void *arg, void *reference);
typedef void wn_scan_fn(void *context, void *entry, wn_visit_fn *visit, void *arg);
typedef void wn_fetch_fn(void *context, void *entry, int stage);
typedef size_t wn_more_fn(void *context);

void wn_mark_pool_make(wn_mark_pool *pool);
void wn_mark_pool_drop(wn_mark_pool *pool);
void wn_mark_make(wn_marker *m, wn_mark_pool *pool);
/* Before `markers` threads drain together. */
void wn_mark_share(wn_mark_pool *pool, unsigned markers);
/* Gives the marker's segments back to the pool; it must be empty or its entries are forgotten. */
void wn_mark_drop(wn_marker *m);

/* For a marker beside which the program runs, and which therefore must not wait in wn_mark_get_: takes what another
 * gave, if there is something; and gives all it has to whoever comes. The marker is empty before and after. */
bool wn_mark_try_get(wn_marker *m);
void wn_mark_give_all(wn_marker *m);
/* An empty segment, for a list of the client's own, and back; NULL: no memory. */
wn_mark_segment *wn_mark_take_segment(wn_mark_pool *pool);
void wn_mark_put_segment(wn_mark_pool *pool, wn_mark_segment *s);

/* Off the fast path. */
bool wn_mark_grow_(wn_marker *m);
bool wn_mark_shrink_(wn_marker *m);
void wn_mark_give_(wn_marker *m);
bool wn_mark_get_(wn_marker *m); /* waits for work; false: all markers of the pool are done */

/* Adds an entry whose mark the caller has just claimed. */
static WN_ALWAYS_INLINE void wn_mark_push(wn_marker *m, void *entry) {
    if (__builtin_expect(m->top == m->end, 0) && !wn_mark_grow_(m)) return;
    *m->top++ = entry;
}

static WN_ALWAYS_INLINE bool wn_mark_empty(const wn_marker *m) {
    return m->top == m->base && (!m->segment || !m->segment->next);
}

static WN_ALWAYS_INLINE wn_mark_walk wn_mark_set_out(wn_marker *m) {
    return (wn_mark_walk){.marker = m, .here = m->here, .order = m->order, .distrusted = m->distrusted};
}

/* What the queue holds is for later: on the stack. */
static WN_ALWAYS_INLINE void wn_mark_settle_(wn_mark_walk *w) {
    for (; w->queue.used; w->queue.used--, w->queue.oldest++)
        wn_mark_push(w->marker, w->marker->queue[w->queue.oldest % WN_MARK_QUEUE]);
}

/* After the last wn_mark_drain of a walk: all entries are on the stack again. */
static WN_ALWAYS_INLINE void wn_mark_rest(wn_mark_walk *w) {
    wn_marker *m = w->marker;
    if (w->next) wn_mark_push(m, w->next);
    w->next = NULL;
    wn_mark_settle_(w);
    m->here = w->here;
    m->order = w->order;
    m->distrusted = w->distrusted;
}

static WN_ALWAYS_INLINE uintptr_t wn_mark_away_(const wn_mark_walk *w, const void *entry) {
    uintptr_t away = (uintptr_t)entry - w->here;
    return away <= UINTPTR_MAX / 2 ? away : -away;
}
/* Whether the processor will have fetched an entry by itself, because of the one scanned last. */
static WN_ALWAYS_INLINE bool wn_mark_is_near_(const wn_mark_walk *w, const void *entry) {
    return (uintptr_t)entry - w->here + WN_MARK_NEAR < 2 * WN_MARK_NEAR;
}

/* For visit: adds what the object being scanned refers to, whose mark has just been claimed. What lies next to the
 * object is scanned next, past the stack: so objects that lie in the order of a walk are scanned in that order, from
 * whichever side each was reached. */
static WN_ALWAYS_INLINE void wn_mark_reach(wn_mark_walk *w, void *entry) {
    if (wn_mark_is_near_(w, entry)) {
        void *other = w->next;
        if (!other || wn_mark_away_(w, entry) < wn_mark_away_(w, other)) {
            w->next = entry;
            if (!other) return;
            entry = other;
        }
    }
    wn_mark_push(w->marker, entry);
}

/* An entry goes into a queue of prefetches; the oldest comes out if that was full, else NULL. */
static WN_ALWAYS_INLINE void *wn_mark_pass_(void **places, wn_mark_queue *q, void *entry, wn_fetch_fn *fetch,
                                            void *context) {
    unsigned place = q->oldest + q->used;
    bool full = q->used == WN_MARK_QUEUE;
    void *due = full ? places[q->oldest % WN_MARK_QUEUE] : NULL;
    fetch(context, entry, 0);
    places[place % WN_MARK_QUEUE] = entry;
    if (full || q->used >= WN_MARK_STAGE) fetch(context, places[(place - WN_MARK_STAGE) % WN_MARK_QUEUE], 1);
    q->oldest += full;
    q->used += !full;
    return due;
}

/* The oldest comes out because nothing else is left to do: waiting for more to come in would not bring its memory any
 * sooner. The queue is not empty. */
static WN_ALWAYS_INLINE void *wn_mark_oldest_(void **places, wn_mark_queue *q, wn_fetch_fn *fetch, void *context) {
    void *due = places[q->oldest++ % WN_MARK_QUEUE];
    if (--q->used < WN_MARK_STAGE) fetch(context, due, 2); /* or else it has come past the second stage */
    return due;
}

/* For `more`: an entry whose mark was just claimed, one of many, goes past the stack; returns one to be scanned. */
static WN_ALWAYS_INLINE void *wn_mark_feed(wn_mark_walk *w, void *entry, wn_fetch_fn *fetch, void *context) {
    void *due = wn_mark_pass_(w->marker->queue, &w->queue, entry, fetch, context);
    if (due) w->here = (uintptr_t)due;
    return due;
}

/* Whether an entry may be scanned at once because it lies next to the one scanned last. Not even then where that is the
 * exception: an object of a random heap whose neighbour was fetched on purpose is as cold as any other. */
static WN_ALWAYS_INLINE bool wn_mark_trusts_(wn_mark_walk *w, const void *entry) {
    if (w->order <= 0) {
        if (!--w->distrusted) {
            w->order = WN_MARK_ORDER;
            wn_mark_settle_(w);
        }
        return false;
    }
    if (wn_mark_is_near_(w, entry)) {
        w->order += w->order < WN_MARK_ORDER;
        return true;
    }
    w->order -= 3;
    if (w->order <= 0) w->distrusted = WN_MARK_DISTRUST;
    return false;
}

/* Scans until nothing is left, or about `budget` objects have been scanned; returns how many. */
static WN_ALWAYS_INLINE size_t wn_mark_drain(wn_mark_walk *w, size_t budget, wn_fetch_fn *fetch, wn_scan_fn *scan,
                                             wn_visit_fn *visit, wn_more_fn *more, void *context, void *arg) {
    wn_marker *m = w->marker;
    size_t done = 0;
    while (done < budget) {
        void *entry = w->next, *due;
        w->next = NULL;
        if (!entry) {
            if (__builtin_expect(m->top != m->base, 1) || wn_mark_shrink_(m)) {
                entry = *--m->top;
            } else {
                size_t worth = more ? more(context) : 0;
                done += worth;
                if (worth) continue;
                if (!w->queue.used) break;
            }
        }
        if (!entry) {
            due = wn_mark_oldest_(m->queue, &w->queue, fetch, context);
        } else if (wn_mark_trusts_(w, entry)) {
            due = entry;
            fetch(context, due, 2);
        } else {
            due = wn_mark_pass_(m->queue, &w->queue, entry, fetch, context);
            if (!due) continue;
        }
        for (;;) {
            w->here = (uintptr_t)due;
            scan(context, due, visit, arg);
            done++;
            /* In order, one leads to the next. This is the loop that has to be short. */
            due = w->next;
            if (!due || w->order <= 0 || done >= budget) break;
            w->next = NULL;
            WN_PREFETCH((char *)due + WN_MARK_AHEAD);
            fetch(context, due, 2);
        }
    }
    return done;
}

/* The same for a client that never reaches past the stack. */
static WN_ALWAYS_INLINE size_t wn_mark_drain_stack(wn_marker *m, size_t budget, wn_fetch_fn *fetch, wn_scan_fn *scan,
                                                   wn_visit_fn *visit, void *context, void *arg) {
    wn_mark_walk w = wn_mark_set_out(m);
    size_t done = wn_mark_drain(&w, budget, fetch, scan, visit, NULL, context, arg);
    wn_mark_rest(&w);
    return done;
}

/* Marks together with the other markers of the pool, until none has work left: calls some(context, budget), which scans
 * from the marker's stack about as much and returns how much, 0 when the client has nothing left anywhere. Each thread
 * calls this with a marker of its own, after wn_mark_share. Marks are claimed with plain loads and stores or with
 * atomic ones, as the client can bear. */
static WN_ALWAYS_INLINE size_t wn_mark_together(wn_marker *m, size_t (*some)(void *context, size_t budget),
                                                void *context) {
    size_t done = 0;
    do {
        for (size_t n; (n = some(context, 2048)) != 0; done += n)
            if (__atomic_load_n(&m->pool->hungry, __ATOMIC_RELAXED)) wn_mark_give_(m);
    } while (wn_mark_get_(m));
    return done;
}

#endif
