/* census.c - the set of containers: counting them, and telling who is one no more. */
#include "census.h"

#include <string.h>

/* Members of lists that are ours: ordinary tracked objects, alive because we hold them. */
typedef struct bookmark {
    PyGC_Head gc;
    PyObject ob;
} bookmark;
enum { PARKED, FIRST, KNOWN, BOOKMARKS }; /* the first is a head of a list, never an object */

static struct {
    bookmark mark[BOOKMARKS] __attribute__((aligned(16)));
    gc_state *gc;
    wn_cycles *cycles;
    wn_bits pools; /* of arenas: a bit for each that has been met */
    size_t members, walked, young;
    PyGC_Head frozen; /* the links of the list of frozen objects when the set began */
    bool empty;       /* nothing has been counted */
    bool fresh;       /* nor had it when the last census_take began: all members are in the lists */
    bool lasting;     /* freed memory is seen, and absent memory can be asked for */
    bool passing;     /* when last looked at, the set did not last */
} census;

PyGC_Head *census_parked(void) { return &census.mark[PARKED].gc; }
static bool is_bookmark(const void *object) { return (uintptr_t)object - (uintptr_t)census.mark < sizeof census.mark; }
size_t census_members(void) { return census.members; }
size_t census_walked(void) { return census.walked; }
size_t census_young(void) { return census.young; }

static PyGC_Head *oldest(void) { return &census.gc->generations[2].head; }

bool census_setup(PyTypeObject *type) {
    if (!census.pools.top && !wn_bits_make(&census.pools)) return false;
    gc_list_init(census_parked());
    for (int i = FIRST; i < BOOKMARKS; i++) {
        census.mark[i].ob.ob_type = type;
        Py_SET_REFCNT(&census.mark[i].ob, 1); /* ours, for ever */
    }
    return true;
}

static void take_out(PyGC_Head *g) {
    if (!g->_gc_next) return;
    gc_unlink(g);
    g->_gc_next = g->_gc_prev = 0;
}
static void put_before(int mark, PyGC_Head *before) {
    PyGC_Head *g = &census.mark[mark].gc;
    if (g == before) return;
    take_out(g);
    gc_link_before(g, before);
}

/* ---- memory that goes away --------------------------------------------------------------------------------------- */

#define SMALL 512 /* bytes of a block that the interpreter's own allocator gives out */

/* The start of a pool, which has blocks of one size; an arena has pools side by side. */
typedef struct pool {
    union {
        void *padding;
        unsigned blocks; /* given out */
    } used;
    char *free;
    void *next, *previous;
    unsigned arena, size_class, offset, last_offset; /* of blocks that were never given out */
} pool;

static struct {
    PyObjectArenaAllocator below;
    bool on;
    bool unseen; /* atomic: another interpreter has freed one, in which members may have been */
} arenas;

static const pool *pool_of(const void *p) { return (const pool *)((uintptr_t)p & ~(uintptr_t)(POOL_BYTES - 1)); }
/* As an address, for bits that stand for 16 bytes. */
static uintptr_t number_of(const void *p) { return (uintptr_t)p / POOL_BYTES << WN_BITS_GRANULE; }

/* Whether a block lies in a pool. Which memory has pools is the allocator's secret, so it is judged by what a pool says
 * of itself, once for each. There need be no memory where it would begin. */
static bool is_pool(const pool *at) {
    pool p;
    bool there;
    const void *from = at;
    wn_os_peek(&p, &from, sizeof p, 1, &there);
    if (!there || p.size_class >= SMALL / 16) return false;
    unsigned size = (p.size_class + 1) * 16;
    return p.last_offset == POOL_BYTES - size && p.offset >= sizeof p + size && p.offset <= POOL_BYTES &&
           (p.offset - sizeof p) % size == 0 && p.used.blocks > 0 && p.used.blocks <= (POOL_BYTES - sizeof p) / size &&
           (!p.free || pool_of(p.free) == at);
}

/* What is too large for a pool need not be looked into. What is small may be in none all the same: a tuple that shrank
 * where it was, an object that an extension found room for itself, or what malloc gave when there was no memory for
 * another arena. */
static WN_ALWAYS_INLINE bool is_elsewhere(PyObject *o) {
    if (wn_bits_test(&census.pools, 0, number_of(o))) return false;
    if (Py_TYPE(o)->tp_basicsize > SMALL || (PyTuple_CheckExact(o) && Py_SIZE(o) > SMALL / 8)) return true;
    return !is_pool(pool_of(o)) || !wn_bits_put(&census.pools, 0, number_of(o));
}

static void arena_free(void *ctx, void *start, size_t bytes) {
    if (!holds_our_lock()) { /* then the set is left alone */
        __atomic_store_n(&arenas.unseen, true, __ATOMIC_RELAXED);
    } else if (arenas.on) {
        uintptr_t first = number_of(start), end = number_of((char *)start + bytes);
        census.members -= wn_bits_clear_range(&census.cycles->bits, WN_CYCLES_ALL, (uintptr_t)start, bytes);
        wn_bits_clear_range(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)start, bytes);
        wn_bits_clear_range(&census.pools, 0, first, end - first);
    }
    arenas.below.free(ctx, start, bytes);
}
static bool arenas_on_top(void) {
    PyObjectArenaAllocator a;
    PyObject_GetArenaAllocator(&a);
    return a.free == arena_free;
}
static void watch_arenas(void) {
    arenas.on = true;
    if (arenas.below.free) return; /* beneath another since an earlier installation */
    PyObject_GetArenaAllocator(&arenas.below);
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){arenas.below.ctx, arenas.below.alloc, arena_free});
}
static void leave_arenas(void) {
    arenas.on = false;
    if (!arenas_on_top()) return;
    PyObject_SetArenaAllocator(&arenas.below);
    memset(&arenas.below, 0, sizeof arenas.below);
}

static bool lasts(void) { return census.lasting && !other_interpreters() && arenas_on_top(); }

/* ---- counting ---------------------------------------------------------------------------------------------------- */

/* Nothing is known. */
static void begin_anew(void) {
    if (census.lasting)
        wn_cycles_trim(census.cycles); /* a forked worker would make its tables its own by clearing them */
    else
        wn_cycles_reset(census.cycles);
    wn_bits_clear(&census.pools, 0);
    census.members = 0;
    census.frozen = census.gc->permanent_generation.head;
    census.empty = true;
    put_before(FIRST, gc_next(oldest()));
    put_before(KNOWN, gc_next(&census.mark[FIRST].gc));
}

void census_open(gc_state *gc, wn_cycles *cycles) {
    census.gc = gc;
    census.cycles = cycles;
    void *block = PyObject_Malloc(64);
    census.lasting = is_pool(pool_of(block)); /* or else they are another allocator's blocks */
    PyObject_Free(block);
    watch_arenas();
    begin_anew();
}

static void give_back(void) {
    leave_arenas();
    wn_cycles_trim(census.cycles);
    wn_bits_trim(&census.pools);
}
void census_close(void) {
    take_out(&census.mark[FIRST].gc);
    take_out(&census.mark[KNOWN].gc);
    give_back();
}
void census_forget(void) {
    memset(&census.mark[FIRST].gc, 0, sizeof census.mark[FIRST].gc);
    memset(&census.mark[KNOWN].gc, 0, sizeof census.mark[KNOWN].gc);
    give_back();
}

static bool all_known(void) { return gc_prev(oldest()) == &census.mark[KNOWN].gc; }
static bool in_place(void) { return gc_next(oldest()) == &census.mark[FIRST].gc; }
void census_all_known(void) { put_before(KNOWN, oldest()); }

/* Whether somebody has frozen objects or given them back: those in the set might be among them. */
static bool frozen_changed(void) { return gc_frozen_since(census.gc, &census.frozen); }

bool census_check(void) {
    bool passing = !lasts();
    if (__atomic_exchange_n(&arenas.unseen, false, __ATOMIC_RELAXED) || !in_place() || frozen_changed() || passing ||
        census.passing)
        begin_anew();
    census.passing = passing;
    return all_known() && !passing;
}

void census_unpark(bool all, bool counted) {
    PyGC_Head *parked = census_parked(), *known = &census.mark[KNOWN].gc;
    if (!all) {
        gc_list_insert(parked, counted && in_place() ? known : oldest());
        return;
    }
    if (counted) put_before(KNOWN, parked);
    gc_list_insert(parked, gc_next(oldest()));
}

static WN_ALWAYS_INLINE bool add(PyObject *o, wn_bits_near *near) {
    bool was;
    if (!wn_bits_put_near(&census.cycles->bits, near, WN_CYCLES_ALL, (uintptr_t)o, &was)) return false;
    census.members += !was;
    census.empty = false;
    if (census.passing) return true; /* the set will not be asked who is in a list */
    bool elsewhere = is_elsewhere(o), noted = wn_bits_test(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)o);
    if (__builtin_expect(elsewhere == noted, 1)) return true;
    if (!elsewhere) return wn_bits_take(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)o);
    return wn_bits_put(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)o);
}

bool census_add(PyObject *const *o, size_t n) {
    wn_bits_near near = wn_bits_near_nothing();
    for (size_t i = 0; i < n; i++)
        if (gc_tracked(o[i]) && !add(o[i], &near)) return false;
    return true;
}

/* What is between two members of a list, from both ends, because a step waits for memory. Bookmarks are not: both stand
 * before whatever is not known. */
static bool count_between(PyGC_Head *from, PyGC_Head *to, wn_bits_near *near) {
    PyGC_Head *f = gc_next(from), *b = gc_prev(to);
    if (f == to) return true;
    for (;; f = gc_next(f), b = gc_prev(b)) {
        ASK(gc_next(f));
        ASK(gc_prev(b));
        census.walked += 1 + (f != b);
        if (!add(object_of(f), near)) return false;
        if (f == b) return true;
        if (!add(object_of(b), near)) return false;
        if (gc_next(f) == b) return true;
    }
}

bool census_add_young(int level) {
    wn_bits_near near = wn_bits_near_nothing();
    for (int i = 0; i <= level; i++)
        if (!count_between(&census.gc->generations[i].head, &census.gc->generations[i].head, &near)) return false;
    return true;
}

size_t census_missing(void) {
    size_t n = 0;
    if (!in_place()) return 0;
    for (PyGC_Head *g = gc_next(oldest()); g != &census.mark[KNOWN].gc && g != oldest(); g = gc_next(g))
        n += !is_bookmark(g) && !wn_bits_test(&census.cycles->bits, WN_CYCLES_ALL, (uintptr_t)object_of(g));
    return n;
}

void census_step(size_t objects) {
    if (!lasts()) return;
    wn_bits_near near = wn_bits_near_nothing();
    PyGC_Head *g = gc_next(&census.mark[KNOWN].gc);
    for (; objects && g != oldest(); g = gc_next(g), objects--)
        if (!add(object_of(g), &near)) break;
    put_before(KNOWN, g);
}

bool census_take(void) {
    wn_bits_near near = wn_bits_near_nothing();
    census_check();
    census.fresh = census.empty;
    census.walked = 0;
    if (!count_between(&census.mark[KNOWN].gc, oldest(), &near)) return false;
    size_t old = census.walked;
    bool ok = census_add_young(1);
    census.young = census.walked - old;
    return ok;
}

/* ---- asking who is a container still ----------------------------------------------------------------------------- */

/* Where the links of a member of a list would be read, or of what may be one. */
typedef enum place { NOWHERE, HERE, ELSEWHERE } place;
static WN_ALWAYS_INLINE place place_of(PyGC_Head *g) {
    uintptr_t o = (uintptr_t)g + sizeof *g;
    if (__builtin_expect(wn_bits_test(&census.cycles->bits, WN_CYCLES_ALL, o) && !((uintptr_t)g & 15), 1))
        return wn_bits_test(&census.cycles->bits, WN_CYCLES_OWN, o) ? ELSEWHERE : HERE;
    return (uintptr_t)g - (uintptr_t)census.gc < sizeof *census.gc || is_bookmark(g) ? HERE : NOWHERE;
}

/* What is asked of a number of members, in one step for all those that lie elsewhere. */
enum { ASKED = 64 };
typedef struct standing {
    PyGC_Head links;
    Py_ssize_t count; /* of an object's references; a list's head has something else there */
} standing;
static void read_standing(PyGC_Head *const *g, size_t n, standing *of, bool *read) {
    const void *from[2 * ASKED];
    size_t which[2 * ASKED], peeks = 0;
    for (size_t i = 0; i < n; i++) {
        place at = place_of(g[i]);
        if ((read[i] = at == HERE)) of[i] = *(const standing *)g[i];
        if (at != ELSEWHERE) continue;
        which[peeks] = i;
        from[peeks++] = g[i];
    }
    if (!peeks) return;
    standing found[2 * ASKED];
    bool there[2 * ASKED];
    if (!wn_os_peek(found, from, sizeof *found, peeks, there)) census.lasting = false;
    for (size_t i = 0; i < peeks; i++)
        if ((read[which[i]] = there[i])) of[which[i]] = found[i];
}

/* Which of at most ASKED objects are in a list. An object that was freed without having been untracked has links, and
 * those of free blocks side by side lead to each other as its own once did; but nobody refers to it. */
static void ask_lists(PyObject *const *o, size_t n, bool *in) {
    PyGC_Head *g[2 * ASKED] = {NULL};
    standing own[ASKED], next[2 * ASKED];
    bool read[2 * ASKED];
    for (size_t i = 0; i < n; i++) g[i] = gc_of(o[i]);
    read_standing(g, n, own, in);
    for (size_t i = 0; i < n; i++) {
        in[i] = in[i] && own[i].count > 0;
        g[2 * i] = in[i] ? gc_next(&own[i].links) : NULL;
        g[2 * i + 1] = in[i] ? gc_prev(&own[i].links) : NULL;
        ASK(g[2 * i]);
        ASK(g[2 * i + 1]);
    }
    read_standing(g, 2 * n, next, read);
    for (size_t i = 0; i < n; i++)
        in[i] = in[i] && read[2 * i] && read[2 * i + 1] && gc_prev(&next[2 * i].links) == gc_of(o[i]) &&
                gc_next(&next[2 * i + 1].links) == gc_of(o[i]);
}

bool census_settle(object_list *gone) {
    wn_cycles *c = census.cycles;
    if (census.fresh) return true;
    PyObject *o[ASKED], *next[ASKED]; /* what is asked, and what is asked for meanwhile */
    bool in[ASKED];
    size_t n = 0, ahead;
    wn_bits_cursor cursor;
    wn_bits_walk(&c->bits, &cursor);
    do {
        for (ahead = 0; ahead < ASKED && (next[ahead] = wn_bits_next(&cursor, WN_CYCLES_UNMARKED)); ahead++)
            ASK(gc_of(next[ahead]));
        ask_lists(o, n, in);
        for (size_t i = 0; i < n; i++) {
            if (in[i]) continue;
            wn_cycles_claim(c, o[i]);
            object_list_add(gone, o[i]);
        }
        memcpy(o, next, ahead * sizeof *o);
        n = ahead;
    } while (n);
    return census.lasting;
}

void census_remove(PyObject **o, size_t n) {
    for (size_t i = 0; i < n; i++) census.members -= wn_bits_take(&census.cycles->bits, WN_CYCLES_ALL, (uintptr_t)o[i]);
}

void census_remove_gone(PyObject **o, size_t n) {
    bool in[ASKED];
    if (!lasts() || __atomic_load_n(&arenas.unseen, __ATOMIC_RELAXED))
        return; /* then it is not known what memory is there; the set will begin anew */
    for (size_t done = 0, some; done < n; done += some) {
        some = n - done < ASKED ? n - done : ASKED;
        for (size_t i = 0; i < some; i++) ASK(gc_of(o[done + i]));
        ask_lists(o + done, some, in);
        for (size_t i = 0; i < some; i++)
            if (!in[i] && census.lasting) census_remove(&o[done + i], 1);
    }
}
