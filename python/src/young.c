/* young.c - trial deletion over the younger generations, with a hash table of their addresses. */
#include "young.h"

#include <string.h>

enum {
    LEAST = 4096, /* objects there is room for, enough for most collections of the youngest */
    LEAST_REFERENCES = 4 * LEAST,
    PER_OBJECT = 4,
    AHEAD = 12,
    PASS = 16, /* collections of the youngest that are not begun after one that was too much */
    ROOM_KEPT = 1 << 16,
    REFERENCES_KEPT = 1 << 19
};

static void release(void *memory, size_t bytes) {
    if (memory) wn_os_release(memory, bytes);
}

static void drop_tables(young_tables *t) {
    release(t->object, t->room * sizeof *t->object);
    release(t->count, t->room * sizeof *t->count);
    release(t->rest, t->room * sizeof *t->rest);
    release(t->from, (t->room + 1) * sizeof *t->from);
    release(t->slot, PER_OBJECT * t->room * sizeof *t->slot);
    memset(t, 0, sizeof *t);
}
static void trim(young *y) {
    drop_tables(&y->t);
    release(y->held, y->held_room * sizeof *y->held);
    y->held = NULL;
    y->held_room = 0;
}

/* Of tables that are kept. */
static size_t kept(bool sparing) { return sparing ? LEAST : ROOM_KEPT; }
static size_t references_kept(bool sparing) { return sparing ? LEAST_REFERENCES : REFERENCES_KEPT; }

void young_done(young *y, bool sparing) {
    if (y->t.room > kept(sparing) || y->held_room > references_kept(sparing)) trim(y);
}

/* Room for twice as many objects. */
static bool grow(young *y) {
    young_tables t = {.room = y->t.room ? 2 * y->t.room : LEAST};
    if (t.room > y->most) return false;
    t.object = wn_os_map(t.room * sizeof *t.object);
    t.count = wn_os_map(t.room * sizeof *t.count);
    t.rest = wn_os_map(t.room * sizeof *t.rest);
    t.from = wn_os_map((t.room + 1) * sizeof *t.from);
    t.slot = wn_os_map(PER_OBJECT * t.room * sizeof *t.slot);
    if (!t.object || !t.count || !t.rest || !t.from || !t.slot) {
        drop_tables(&t);
        y->lost = true;
        return false;
    }
    if (y->n) {
        memcpy(t.object, y->t.object, y->n * sizeof *t.object);
        memcpy(t.count, y->t.count, y->n * sizeof *t.count);
        memcpy(t.from, y->t.from, y->n * sizeof *t.from);
    }
    drop_tables(&y->t);
    y->t = t;
    return true;
}

static bool grow_references(young *y) {
    size_t room = y->held_room ? 2 * y->held_room : LEAST_REFERENCES;
    if (room > y->most_references) return false;
    uintptr_t *held = wn_os_map(room * sizeof *held);
    if (!held) {
        y->lost = true;
        return false;
    }
    if (y->references) memcpy(held, y->held, y->references * sizeof *held);
    release(y->held, y->held_room * sizeof *y->held);
    y->held = held;
    y->held_room = room;
    return true;
}

static WN_ALWAYS_INLINE size_t place(const young *y, const void *object) {
    return (size_t)(((uint64_t)(uintptr_t)object >> 4) * 0x9E3779B97F4A7C15ull >> y->shift);
}

static WN_ALWAYS_INLINE void hold(void *arg, void *reference) {
    young *y = arg;
    if (!reference) return;
    if (y->references == y->held_room && !grow_references(y))
        y->too_many = true;
    else
        y->held[y->references++] = (uintptr_t)reference;
}

/* The pages of young objects are many and far apart, so each object is visited once: on the way through the list it is
 * asked for, and read a little later. */
static WN_ALWAYS_INLINE void read_object(young *y, size_t i) {
    y->t.from[i] = (uint32_t)y->references;
    PyObject *o = y->t.object[i];
    if ((PyTuple_CheckExact(o) || PyList_CheckExact(o)) && (size_t)Py_SIZE(o) > y->most_references) {
        y->too_many = true;
        return;
    }
    size_t n = scan_count(NULL, o);
    y->t.count[i] = n < INT32_MAX ? (uint32_t)n : INT32_MAX; /* an immortal object's is huge */
    scan_object(&y->scan, o, hold, y);
}

static bool read_objects(young *y, gc_state *gc, int level) {
    for (; level >= 0; level--) {
        PyGC_Head *head = &gc->generations[level].head;
        for (PyGC_Head *g = gc_next(head); g != head; g = gc_next(g)) {
            if (y->n == y->t.room && !grow(y)) return false;
            size_t i = y->n++;
            y->t.object[i] = object_of(g);
            scan_fetch(&y->scan, y->t.object[i], 0);
            if (i >= AHEAD) scan_fetch(&y->scan, y->t.object[i - AHEAD], 1);
            if (i >= 2 * AHEAD) read_object(y, i - 2 * AHEAD);
            if (y->too_many) return false;
        }
    }
    for (size_t i = y->n > 2 * AHEAD ? y->n - 2 * AHEAD : 0; i < y->n; i++) read_object(y, i);
    y->t.from[y->n] = (uint32_t)y->references;
    return !y->too_many;
}

static void number_objects(young *y) {
    size_t slots = LEAST;
    while (slots < PER_OBJECT * y->n) slots *= 2;
    y->mask = slots - 1;
    y->shift = 64u - (unsigned)__builtin_ctzll(slots);
    memset(y->t.slot, 0, slots * sizeof *y->t.slot);
    for (size_t i = 0; i < y->n; i++) {
        size_t at = place(y, y->t.object[i]);
        while (y->t.slot[at]) at = (at + 1) & y->mask;
        y->t.slot[at] = (uint32_t)i + 1;
    }
}

/* Takes the references among them off their counts, and keeps those alone. */
static void subtract(young *y) {
    uint32_t kept = 0, k = 0;
    for (size_t i = 0; i < y->n; i++) {
        uint32_t end = y->t.from[i + 1];
        y->t.from[i] = kept;
        for (; k < end; k++) {
            const void *reference = (void *)y->held[k];
            for (size_t at = place(y, reference); y->t.slot[at]; at = (at + 1) & y->mask) {
                uint32_t j = y->t.slot[at] - 1;
                if (y->t.object[j] != reference) continue;
                y->t.count[j]--;
                y->held[kept++] = j;
                break;
            }
        }
    }
    y->t.from[y->n] = kept;
}

bool young_search(young *y, gc_state *gc, int level, bool sparing) {
    y->n = y->garbage = y->references = 0;
    y->lost = y->too_many = false;
    /* Of the youngest no more than the tables that are kept have room for: tables to be made anew each time cost more
     * than a search of what is in the caches saves. */
    y->most = level ? YOUNG_MOST : kept(sparing);
    y->most_references = level ? YOUNG_MOST_REFERENCES : references_kept(sparing);
    if (!level && (gc->generations[0].count > (int)y->most || y->pass)) {
        y->pass -= y->pass > 0;
        return false;
    }
    scan_forget(&y->scan);
    if (gc_list_empty(&gc->generations[0].head) && (!level || gc_list_empty(&gc->generations[1].head))) return true;
    if (!read_objects(y, gc, level)) {
        if (level || y->lost) trim(y);
        if (!level) y->pass = PASS;
        return false;
    }
    number_objects(y);
    subtract(y);
    /* What is left of a count comes from elsewhere. Below zero: a reference that is reported and not counted; kept. */
    size_t rests = 0;
    for (size_t i = 0; i < y->n; i++) {
        if (!y->t.count[i] && scan_keep(NULL, y->t.object[i])) y->t.count[i] = 1;
        if (!y->t.count[i])
            y->garbage++;
        else if (y->t.from[i] < y->t.from[i + 1])
            y->t.rest[rests++] = (uint32_t)i;
    }
    while (rests && y->garbage) {
        uint32_t i = y->t.rest[--rests];
        for (uint32_t k = y->t.from[i]; k < y->t.from[i + 1]; k++) {
            size_t j = y->held[k];
            if (y->t.count[j]) continue;
            y->t.count[j] = 1;
            y->garbage--;
            y->t.rest[rests++] = (uint32_t)j;
        }
    }
    return true;
}
