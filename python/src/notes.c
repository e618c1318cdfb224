/* notes.c - an allocator over the interpreter's that notes what is given back. */
#include "notes.h"

wn_bits notes_addresses;

static struct {
    PyMemAllocatorEx below;
    bool on, made, lost;
    bool covered; /* another allocator came over ours */
    bool called;  /* ours */
} notes;

/* What other interpreters give back, under locks of their own, was never in our lists. */
static void note_free(void *p) {
    if (!holds_our_lock()) return;
    notes.called = true;
    if (p && notes.on && !wn_bits_put(&notes_addresses, 0, (uintptr_t)p)) notes.lost = true;
}
static void noting_free(void *ctx, void *p) {
    note_free(p);
    notes.below.free(ctx, p);
}
static void *noting_realloc(void *ctx, void *p, size_t n) {
    note_free(p);
    return notes.below.realloc(ctx, p, n);
}

static bool on_top(void) {
    PyMemAllocatorEx a;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &a);
    return a.free == noting_free;
}
static void leave(void) { PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &notes.below); }

/* For ours when it is not on top: it is beneath another, or was taken away by one that was there before, as tracemalloc
 * does when it stops. */
static bool is_beneath(void) {
    notes.called = false;
    PyObject_Free(PyObject_Malloc(1));
    return notes.called;
}

bool notes_possible(void) {
    if (notes.covered && on_top()) leave(); /* what came over ours has gone */
    if (notes.covered) notes.covered = is_beneath();
    return !notes.covered;
}

bool notes_begin(void) {
    if (!notes.made && !(notes.made = wn_bits_make(&notes_addresses))) return false;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &notes.below);
    PyMemAllocatorEx a = notes.below;
    a.free = noting_free;
    a.realloc = noting_realloc;
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &a);
    notes.lost = false;
    notes.on = true;
    return true;
}

void notes_forget(void) {
    if (!notes.on) return;
    notes.on = false;
    wn_bits_trim(&notes_addresses);
    notes.covered = !on_top();
    if (!notes.covered) leave();
}

bool notes_end(void) {
    if (!notes.on) return true;
    notes_forget();
    if (notes.covered) notes.covered = is_beneath();
    return !notes.covered;
}

bool notes_lost(void) { return notes.lost; }
bool notes_complete(void) { return notes.on && !notes.lost && on_top(); }
