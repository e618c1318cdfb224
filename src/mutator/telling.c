/*
 * telling.c - what a collection tells: listeners, the line of the option trace, pauses in the statistics.
 *
 * Invariant: listeners are called with no lock held that they could want, so that one may add and remove listeners,
 * allocate and fork. A thread of the collector's holds tell_lock meanwhile: wn_remove_listener waits for that, so when
 * it returns the listener's data is no longer in use.
 */
#include "mutator/heap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

wn_status wn_add_listener(wn_heap *heap, wn_listener listener, void *data) {
    if (!listener) return wn_fail(WN_ERR_ARGUMENT, "wn_add_listener: pass a function, not NULL");
    pthread_mutex_lock(&heap->roots_lock);
    struct wn_listener_entry *s = realloc(heap->listeners, (heap->listener_count + 1) * sizeof *s);
    if (s) {
        heap->listeners = s;
        s[heap->listener_count] = (struct wn_listener_entry){listener, data};
        __atomic_store_n(&heap->listener_count, heap->listener_count + 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&heap->roots_lock);
    return s ? WN_OK : wn_fail(WN_ERR_MEMORY, "no memory to add a listener");
}

/* The heap whose listeners this thread is calling. */
static _Thread_local const wn_heap *telling;
static _Thread_local mutator *helper_that_tells;
bool wn_is_telling(const wn_heap *heap) { return telling == heap; }
mutator *wn_helper_that_tells(void) { return helper_that_tells; }

/* A call on a thread of the collector's may be under way: `data` is in use until it is over. The listener may fork, for
 * which this thread has to stand still. */
static void wait_for_listeners(wn_heap *heap) {
    wn_mutator *m = wn_current(heap);
    bool runs = m && wn_mutator_of(m)->state == MUTATOR_RUNNING;
    while (pthread_mutex_trylock(&heap->tell_lock)) {
        if (runs) wn_poll(m);
        wn_os_nap(20000);
    }
    pthread_mutex_unlock(&heap->tell_lock);
}

wn_status wn_remove_listener(wn_heap *heap, wn_listener listener, void *data) {
    wn_status status = WN_ERR_STATE;
    pthread_mutex_lock(&heap->roots_lock);
    for (size_t i = 0; i < heap->listener_count && status; i++)
        if (heap->listeners[i].listener == listener && heap->listeners[i].data == data) {
            memmove(&heap->listeners[i], &heap->listeners[i + 1],
                    (heap->listener_count - i - 1) * sizeof heap->listeners[0]);
            __atomic_store_n(&heap->listener_count, heap->listener_count - 1, __ATOMIC_RELAXED);
            status = WN_OK;
        }
    pthread_mutex_unlock(&heap->roots_lock);
    if (telling != heap) wait_for_listeners(heap);
    return status ? wn_fail(status, "no such listener: give the function and the data it was added with") : WN_OK;
}

void wn_tell(mutator *m, const wn_event *event) {
    wn_heap *heap = m->heap;
    if (!__atomic_load_n(&heap->listener_count, __ATOMIC_RELAXED)) return;
    /* A mutator's own thread holds no lock meanwhile: its listeners may allocate, and so wait for others. A thread of
     * the collector's, which makes no objects, has no buffers. */
    bool helper = !m->buffers;
    if (helper) {
        pthread_mutex_lock(&heap->tell_lock);
        helper_that_tells = m;
    }
    const wn_heap *outer = telling;
    telling = heap;
    /* By index, because a listener may add or remove listeners. */
    for (size_t i = 0;; i++) {
        struct wn_listener_entry entry = {NULL, NULL};
        pthread_mutex_lock(&heap->roots_lock);
        if (i < heap->listener_count) entry = heap->listeners[i];
        pthread_mutex_unlock(&heap->roots_lock);
        if (!entry.listener) break;
        entry.listener(&m->fast, event, entry.data);
    }
    telling = outer;
    if (helper) {
        helper_that_tells = NULL;
        pthread_mutex_unlock(&heap->tell_lock);
    }
}

void wn_trace_collection(const wn_heap *heap, uint64_t number, uint64_t at, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* In one call, so that threads do not write into each other's lines. */
    fprintf(stderr, "gc %llu %s @%.3fs: %s\n", (unsigned long long)number, heap->collector->name,
            (double)(at - heap->made_at) / 1e9, text);
}

void wn_note_pause(wn_heap *heap, uint64_t ns) {
    pthread_mutex_lock(&heap->stats_lock);
    wn_histogram_add(&heap->stats.pause, ns);
    heap->stats.gc_cpu_ns += ns;
    pthread_mutex_unlock(&heap->stats_lock);
}

void wn_note_wait(wn_heap *heap, uint64_t ns) {
    pthread_mutex_lock(&heap->stats_lock);
    wn_histogram_add(&heap->stats.pause, ns);
    pthread_mutex_unlock(&heap->stats_lock);
}
