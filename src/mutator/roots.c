/*
 * roots.c - what keeps objects alive from outside the heap: global roots, root scanners, scopes that a jump leaves; a
 * visit to all roots but the immortals; and the growable array that such lists are.
 *
 * Invariant: the lists of globals and scanners change under roots_lock alone, and a visit holds it, although the world
 * stands still then: a thread that is not attached may declare and forget meanwhile.
 */
#include "mutator/heap.h"

#include <stdlib.h>
#include <string.h>

bool wn_vector_reserve(wn_vector *v, size_t room) {
    if (room <= v->room) return true;
    size_t bigger = v->room ? v->room * 2 : 16;
    if (bigger < room) bigger = room;
    void **at = realloc(v->at, bigger * sizeof *at);
    if (!at) return false;
    v->at = at;
    v->room = bigger;
    return true;
}

void wn_vector_free(wn_vector *v) {
    free(v->at);
    memset(v, 0, sizeof *v);
}

/* A stack's own slots need no barrier, because nobody else reads them. A global root in it is no such slot: it was
 * scanned with the globals, and what another thread has read from it is held by that thread alone when it is
 * overwritten. */
static void note_in_stack(mutator *m, const void *variable) {
    if ((uintptr_t)variable >= (uintptr_t)m->stack_from && (uintptr_t)variable < (uintptr_t)m->stack_high)
        __atomic_store_n(&m->stack_is_shared, 1, __ATOMIC_RELAXED);
}

void wn_note_globals_in_stack(mutator *m) {
    if (!m->stack_high) return;
    pthread_mutex_lock(&m->heap->roots_lock);
    for (size_t i = 0; i < m->heap->globals.n; i++) note_in_stack(m, m->heap->globals.at[i]);
    pthread_mutex_unlock(&m->heap->roots_lock);
}

static void note_in_stacks(wn_heap *heap, const void *variable) {
    if (!heap->collector->shade) return;
    pthread_mutex_lock(&heap->world);
    for (mutator *m = heap->mutators; m; m = m->next) note_in_stack(m, variable);
    pthread_mutex_unlock(&heap->world);
}

wn_status wn_global(wn_heap *heap, void *variable) {
    if (!variable) return wn_fail(WN_ERR_ARGUMENT, "wn_global: pass the address of the variable, not NULL");
    wn_mutator *m = wn_current(heap);
    if (heap->options.check && m && !wn_check_object(wn_mutator_of(m), *(void **)variable, "wn_global", "value"))
        return wn_fail(WN_ERR_ARGUMENT, "wn_global: the variable holds what is no object of this heap: set it to NULL, "
                                        "or to a reference of its own, before it is declared");
    pthread_mutex_lock(&heap->roots_lock);
    bool ok = wn_vector_push(&heap->globals, variable);
    pthread_mutex_unlock(&heap->roots_lock);
    if (ok) note_in_stacks(heap, variable);
    /* It may have come from a stack that is still to be scanned, after the globals were. */
    if (ok && heap->collector->shade && *(void **)variable) heap->collector->shade(heap, *(void **)variable);
    return ok ? WN_OK : wn_fail(WN_ERR_MEMORY, "no memory to declare a global root");
}

wn_status wn_forget_global(wn_mutator *m, void *variable) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_forget_global")) return WN_ERR_STATE;
    wn_heap *heap = wn_heap_of(m);
    pthread_mutex_lock(&heap->roots_lock);
    wn_vector *g = &heap->globals;
    size_t i = g->n;
    while (i > 0 && g->at[i - 1] != variable) i--; /* the latest are forgotten first */
    if (i) g->at[i - 1] = g->at[--g->n];
    pthread_mutex_unlock(&heap->roots_lock);
    if (!i) return wn_fail(WN_ERR_STATE, "the variable is not a global root: declare it by wn_global first");
    wn_take_(m, variable, NULL);
    return WN_OK;
}

/* The innermost first, each off the list before it is released: that is a safepoint, for which the others stay roots.
 */
void wn_unwind(wn_mutator *m, wn_scope to) {
    if (!wn_is_usable(wn_mutator_of(m), "wn_unwind")) return;
    const wn_root_link_ *open = m->roots;
    while (open && open != to.roots_) open = open->up;
    if (open != to.roots_ || m->nested < to.nested_) {
        wn_misuse_if(wn_mutator_of(m)->heap->options.check, "unwind",
                     "wn_unwind: the scope to go back to has ended: wn_scope_here is called in a frame that is still "
                     "there, by the thread that jumps");
        return;
    }
    while (m->roots != to.roots_) {
        const wn_root_link_ *link = m->roots;
        m->roots = link->up;
        if (wn_root_is_owned_(link)) wn_release(m, *(wn_slot_ *)wn_root_slot_(link));
    }
    while (m->nested > to.nested_) wn_no_collect_end(m);
}

wn_status wn_add_root_scanner(wn_heap *heap, wn_root_scanner scanner, void *data) {
    if (!scanner) return wn_fail(WN_ERR_ARGUMENT, "wn_add_root_scanner: pass a function, not NULL");
    pthread_mutex_lock(&heap->roots_lock);
    struct wn_root_scanner_entry *s = realloc(heap->scanners, (heap->scanner_count + 1) * sizeof *s);
    if (s) {
        heap->scanners = s;
        s[heap->scanner_count++] = (struct wn_root_scanner_entry){scanner, data};
        heap->scanners_added++;
    }
    pthread_mutex_unlock(&heap->roots_lock);
    return s ? WN_OK : wn_fail(WN_ERR_MEMORY, "no memory to add a root scanner");
}

wn_status wn_remove_root_scanner(wn_heap *heap, wn_root_scanner scanner, void *data) {
    wn_status status = WN_ERR_STATE;
    pthread_mutex_lock(&heap->roots_lock);
    for (size_t i = 0; i < heap->scanner_count && status; i++)
        if (heap->scanners[i].scan == scanner && heap->scanners[i].data == data) {
            heap->scanners[i] = heap->scanners[--heap->scanner_count];
            status = WN_OK;
        }
    pthread_mutex_unlock(&heap->roots_lock);
    return status ? wn_fail(status, "no such root scanner: give the function and the data it was added with") : WN_OK;
}

void wn_each_root(wn_heap *heap, void (*visit)(void **slot, void *context), void *context) {
    for (mutator *m = heap->mutators; m; m = m->next) {
        wn_each_local_root(m, visit, context);
        for (size_t i = 0; i < m->callbacks.n; i++) visit(&m->callbacks.at[i], context);
    }
    for (size_t i = 0; i < heap->garbage.n; i++) visit(&heap->garbage.at[i], context);
    struct wn_tracer tracer = {visit, context};
    /* A thread that is not attached may declare some at this moment, and it does not stand still. */
    pthread_mutex_lock(&heap->roots_lock);
    for (size_t i = 0; i < heap->globals.n; i++) visit((void **)heap->globals.at[i], context);
    for (size_t i = 0; i < heap->scanner_count; i++) heap->scanners[i].scan(&tracer, heap->scanners[i].data);
    pthread_mutex_unlock(&heap->roots_lock);
}
