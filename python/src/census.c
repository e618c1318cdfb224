/* census.c - the set of containers: counting them, and telling who is one no more. */
#include "census.h"

#include <string.h>

enum {
    SMALL = 512 - 80, /* bytes of an object that is in an arena whatever stands before it: allocators' and our debris */
    SMALL_INLINE = 120 /* the same where the values of attributes stand behind it, too */
};

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
    wn_bits pages; /* of 4 KiB, that an arena has for certain: a bit for each */
    size_t members, walked, young;
    bool empty;   /* nothing has been counted */
    bool fresh;   /* nor had it when the last census_take began: all members are in the lists */
    bool lasting; /* freed memory is seen, and absent memory can be asked for */
} census;

PyGC_Head *census_parked(void) { return &census.mark[PARKED].gc; }
bool census_is_bookmark(const void *object) { return (uintptr_t)object - (uintptr_t)census.mark < sizeof census.mark; }
size_t census_members(void) { return census.members; }
size_t census_walked(void) { return census.walked; }
size_t census_young(void) { return census.young; }

static PyGC_Head *oldest(void) { return &census.gc->generations[2].head; }

bool census_setup(PyTypeObject *type) {
    if (!census.pages.top && !wn_bits_make(&census.pages)) return false;
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

/* As an address, for bits that stand for 16 bytes. */
static uintptr_t page_of(const void *p) { return (uintptr_t)p >> 12 << WN_BITS_GRANULE; }

static struct {
    PyObjectArenaAllocator below;
    bool on, failed;
} arenas;

static void *arena_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    void *p = arenas.below.alloc(arenas.below.ctx, bytes);
    if (!p) arenas.failed = true; /* the interpreter asks malloc instead, for objects of any size */
    return p;
}
static void arena_free(void *ctx, void *start, size_t bytes) {
    (void)ctx;
    if (arenas
            .on) { /* perhaps on a thread of another interpreter: then none of ours are in it, and nothing is written */
        size_t n = wn_bits_clear_range(&census.cycles->bits, WN_CYCLES_ALL, (uintptr_t)start, bytes);
        if (n) census.members -= n;
        wn_bits_clear_range(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)start, bytes);
        wn_bits_clear_range(&census.pages, 0, page_of(start), page_of((char *)start + bytes) - page_of(start));
    }
    arenas.below.free(arenas.below.ctx, start, bytes);
}
static bool arenas_on_top(void) {
    PyObjectArenaAllocator a;
    PyObject_GetArenaAllocator(&a);
    return a.free == arena_free;
}
static void watch_arenas(void) {
    arenas.on = true;
    arenas.failed = false;
    if (arenas_on_top() || arenas.below.free) return; /* beneath another since an earlier installation */
    PyObject_GetArenaAllocator(&arenas.below);
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){NULL, arena_alloc, arena_free});
}
static void leave_arenas(void) {
    arenas.on = false;
    if (!arenas_on_top()) return;
    PyObject_SetArenaAllocator(&arenas.below);
    memset(&arenas.below, 0, sizeof arenas.below);
}

static bool lasts(void) { return census.lasting && !arenas.failed && arenas_on_top(); }

/* Whether an object may lie in memory that is not an arena's. Small ones of a fixed size do not, where nobody else has
 * asked for their memory. A tuple may have been a longer one before, and shrunk where it was: then it is known by its
 * page alone, of which an arena has the whole. */
static WN_ALWAYS_INLINE bool is_elsewhere(PyObject *o) {
    PyTypeObject *t = Py_TYPE(o);
    size_t bytes = (size_t)t->tp_basicsize, limit = HAS_MANAGED_DICT(t) ? SMALL_INLINE : SMALL;
    if (!t->tp_itemsize) {
        if (bytes > limit || !scan_is_interpreters(t)) return true;
        return !wn_bits_put(&census.pages, 0, page_of(o));
    }
    if (!PyTuple_Check(o)) return true; /* others keep something else where the number of items would be */
    return bytes + (size_t)Py_SIZE(o) * sizeof(PyObject *) > limit || !wn_bits_test(&census.pages, 0, page_of(o));
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

/* Nothing is known. */
static void begin_anew(void) {
    if (census.lasting)
        wn_cycles_trim(census.cycles); /* a forked worker would make its tables its own by clearing them */
    else
        wn_cycles_reset(census.cycles);
    wn_bits_clear(&census.pages, 0);
    census.members = 0;
    census.empty = true;
    put_before(FIRST, gc_next(oldest()));
    put_before(KNOWN, gc_next(&census.mark[FIRST].gc));
}

void census_open(gc_state *gc, wn_cycles *cycles) {
    census.gc = gc;
    census.cycles = cycles;
    const char *allocator = _PyMem_GetCurrentAllocatorName();
    const void *something = &census;
    void *copy;
    bool may_peek;
    wn_os_peek(&copy, &something, sizeof copy, 1, &may_peek);
    census.lasting = allocator && strncmp(allocator, "pymalloc", 8) == 0 && may_peek;
    watch_arenas();
    begin_anew();
}

void census_close(void) {
    leave_arenas();
    take_out(&census.mark[FIRST].gc);
    take_out(&census.mark[KNOWN].gc);
    wn_cycles_trim(census.cycles);
    wn_bits_trim(&census.pages);
}

static bool all_known(void) { return gc_prev(oldest()) == &census.mark[KNOWN].gc; }
bool census_in_place(void) { return gc_next(oldest()) == &census.mark[FIRST].gc; }
void census_first_again(void) { put_before(FIRST, gc_next(oldest())); }
void census_all_known(void) { put_before(KNOWN, oldest()); }

bool census_check(void) {
    if (!census_in_place() || !lasts()) begin_anew();
    return all_known() && lasts();
}

static WN_ALWAYS_INLINE bool add(PyObject *o, wn_bits_near *near) {
    bool was;
    if (!wn_bits_put_near(&census.cycles->bits, near, WN_CYCLES_ALL, (uintptr_t)o, &was)) return false;
    census.members += !was;
    census.empty = false;
    bool elsewhere = is_elsewhere(o), noted = wn_bits_test(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)o);
    if (__builtin_expect(elsewhere == noted, 1)) return true;
    if (!elsewhere) return wn_bits_take(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)o);
    return wn_bits_put(&census.cycles->bits, WN_CYCLES_OWN, (uintptr_t)o);
}

bool census_add(PyObject *o) {
    wn_bits_near near = wn_bits_near_nothing();
    return add(o, &near);
}

/* What is between two members of a list, from both ends, because a step waits for memory. */
static bool count_between(PyGC_Head *from, PyGC_Head *to, wn_bits_near *near) {
    PyGC_Head *f = gc_next(from), *b = gc_prev(to);
    if (f == to) return true;
    for (;; f = gc_next(f), b = gc_prev(b)) {
        ASK(gc_next(f));
        ASK(gc_prev(b));
        census.walked += 1 + (f != b);
        if (!census_is_bookmark(f) && !add(object_of(f), near)) return false;
        if (f == b) return true;
        if (!census_is_bookmark(b) && !add(object_of(b), near)) return false;
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
    if (!census_in_place()) return 0;
    for (PyGC_Head *g = gc_next(oldest()); g != &census.mark[KNOWN].gc && g != oldest(); g = gc_next(g))
        n += !census_is_bookmark(g) && !wn_bits_test(&census.cycles->bits, WN_CYCLES_ALL, (uintptr_t)object_of(g));
    return n;
}

void census_step(size_t objects) {
    if (!lasts()) return;
    wn_bits_near near = wn_bits_near_nothing();
    PyGC_Head *g = gc_next(&census.mark[KNOWN].gc);
    for (; objects && g != oldest(); g = gc_next(g), objects--)
        if (!census_is_bookmark(g) && !add(object_of(g), &near)) break;
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
    uintptr_t o = (uintptr_t)object_of(g);
    if (__builtin_expect(wn_bits_test(&census.cycles->bits, WN_CYCLES_ALL, o) && !((uintptr_t)g & 15), 1))
        return wn_bits_test(&census.cycles->bits, WN_CYCLES_OWN, o) ? ELSEWHERE : HERE;
    return (uintptr_t)g - (uintptr_t)census.gc < sizeof *census.gc || census_is_bookmark(g) ? HERE : NOWHERE;
}

/* What is asked of a number of members, in one step for all those that lie elsewhere. */
enum { ASKED = 64 };
static void read_links(PyGC_Head *const *g, size_t n, PyGC_Head *links, bool *read) {
    const void *from[2 * ASKED];
    size_t of[2 * ASKED], peeks = 0;
    for (size_t i = 0; i < n; i++) {
        place at = place_of(g[i]);
        if ((read[i] = at == HERE)) links[i] = *g[i];
        if (at != ELSEWHERE) continue;
        of[peeks] = i;
        from[peeks++] = g[i];
    }
    if (!peeks) return;
    PyGC_Head found[2 * ASKED];
    bool there[2 * ASKED];
    wn_os_peek(found, from, sizeof *found, peeks, there);
    for (size_t i = 0; i < peeks; i++)
        if ((read[of[i]] = there[i])) links[of[i]] = found[i];
}

/* Which of at most ASKED objects are in a list. */
static void ask_lists(PyObject *const *o, size_t n, bool *in) {
    PyGC_Head *g[2 * ASKED] = {NULL}, own[ASKED], links[2 * ASKED];
    bool read[2 * ASKED];
    for (size_t i = 0; i < n; i++) g[i] = gc_of(o[i]);
    read_links(g, n, own, in);
    for (size_t i = 0; i < n; i++) {
        in[i] = in[i] && gc_next(&own[i]) && gc_prev(&own[i]);
        g[2 * i] = in[i] ? gc_next(&own[i]) : NULL;
        g[2 * i + 1] = in[i] ? gc_prev(&own[i]) : NULL;
        ASK(g[2 * i]);
        ASK(g[2 * i + 1]);
    }
    read_links(g, 2 * n, links, read);
    for (size_t i = 0; i < n; i++)
        in[i] = in[i] && read[2 * i] && read[2 * i + 1] && gc_prev(&links[2 * i]) == gc_of(o[i]) &&
                gc_next(&links[2 * i + 1]) == gc_of(o[i]);
}

size_t census_settle(object_list *gone) {
    wn_cycles *c = census.cycles;
    if (census.fresh) return 0;
    PyObject *o[ASKED], *next[ASKED]; /* what is asked, and what is asked for meanwhile */
    bool in[ASKED];
    size_t n = 0, ahead, outside = 0;
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
            outside++;
        }
        memcpy(o, next, ahead * sizeof *o);
        n = ahead;
    } while (n);
    return outside;
}

void census_remove(PyObject **o, size_t n) {
    for (size_t i = 0; i < n; i++) census.members -= wn_bits_take(&census.cycles->bits, WN_CYCLES_ALL, (uintptr_t)o[i]);
}

void census_remove_gone(PyObject **o, size_t n) {
    bool in[ASKED];
    for (size_t done = 0, some; done < n; done += some) {
        some = n - done < ASKED ? n - done : ASKED;
        for (size_t i = 0; i < some; i++) ASK(gc_of(o[done + i]));
        ask_lists(o + done, some, in);
        for (size_t i = 0; i < some; i++)
            if (!in[i]) census_remove(&o[done + i], 1);
    }
}
