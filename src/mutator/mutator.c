/*
 * mutator.c - attaching threads, the way out of the allocation fast path, and the calls that hand over to the
 * collector.
 *
 * A detached mutator is not freed but kept for the next thread that attaches, with empty buffers and no heap: a client
 * that goes on using it gets an error that says so instead of a crash, as long as no other thread has got it since.
 * What has no way to return an error does nothing, and leaves the message.
 *
 * A thread that ends while it is attached would be waited for at every later stop: it is detached as it ends.
 */
#include "mutator/heap.h"
#include "heap/mesh.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local mutator *of_thread;
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static mutator *spare;

/* ---- attaching --------------------------------------------------------------------------------------------------- */

wn_mutator *wn_current(wn_heap *heap) {
    for (mutator *m = of_thread; m; m = m->next_of_thread)
        if (m->heap == heap) return &m->fast;
    return NULL;
}

void wn_poll_own(void) {
    for (mutator *m = of_thread; m; m = m->next_of_thread)
        if (m->state == MUTATOR_RUNNING) wn_poll(&m->fast);
}

void wn_wait_in(const wn_heap *heap, bool begin) {
    for (mutator *m = of_thread; m; m = m->next_of_thread)
        if (m->heap != heap) __atomic_store_n(&m->waits_elsewhere, begin, __ATOMIC_RELAXED);
}

static void wait_to_fork(mutator *m, bool begin) {
    pthread_mutex_lock(&m->heap->world);
    m->waits_to_fork = begin;
    pthread_cond_broadcast(&m->heap->world_changed);
    pthread_mutex_unlock(&m->heap->world);
}

void wn_wait_to_fork(bool begin) {
    for (mutator *m = of_thread; m; m = m->next_of_thread)
        if (m->fast.nested) wait_to_fork(m, begin);
    if (wn_helper_that_tells()) wait_to_fork(wn_helper_that_tells(), begin);
}

wn_heap *wn_heap_of(const wn_mutator *m) { return ((const mutator *)m)->heap; }

static _Thread_local bool releasing; /* the calling thread is in a release hook of a heap with checks on */

void wn_run_release(const wn_heap *heap, const wn_type *type, void *object) {
    if (WN_LIKELY(!heap->options.check)) {
        type->release(object);
        return;
    }
    releasing = true;
    type->release(object);
    releasing = false;
}

bool wn_check_running(const mutator *m, const char *what) {
    if (!m->heap->options.check) return true;
    if (releasing) {
        wn_misuse("release-hook",
                  "%s in a release hook, which runs in the middle of a collection, on any thread: it may call nothing "
                  "of the library; what needs that belongs in a finalizer",
                  what);
        return false;
    }
    if (m->state != MUTATOR_STILL) return true;
    wn_misuse("blocking-section",
              "%s between wn_block_begin and wn_block_end, where other threads collect and may move every object: call "
              "wn_block_end first",
              what);
    return false;
}

static bool is_there(const mutator *m, const char *what) {
    if (WN_LIKELY(m->heap != NULL)) return true;
    wn_fail(WN_ERR_STATE, "%s on a detached mutator: this thread has called wn_detach; wn_attach again first", what);
    return false;
}

bool wn_is_usable(const mutator *m, const char *what) {
    if (!is_there(m, what)) return false;
    if (WN_LIKELY(!m->heap->options.check)) return true;
    if (!releasing && !pthread_equal(m->thread, pthread_self())) {
        wn_misuse("wrong-thread",
                  "%s by a thread that does not own the mutator: each thread attaches itself and uses its own", what);
        return false;
    }
    return wn_check_running(m, what);
}

bool wn_is_given(mutator *m, const void *object, const char *what) {
    if (WN_UNLIKELY(!object)) {
        wn_fail(WN_ERR_ARGUMENT, "%s: the object is NULL: look at what made it, which has failed", what);
        return false;
    }
    return !m->heap->options.check || wn_check_object(m, object, what, "object");
}

static mutator *take_spare(void) {
    pthread_mutex_lock(&spare_lock);
    mutator *m = spare;
    if (m) spare = m->next;
    pthread_mutex_unlock(&spare_lock);
    if (!m && posix_memalign((void **)&m, 64, (sizeof *m + 63) & ~(size_t)63) != 0) return NULL;
    memset(m, 0, sizeof *m);
    return m;
}

static void put_spare(mutator *m) {
    memset(m, 0, sizeof *m);
    m->fast.mode = WN_MODE_CHECK_; /* so that a store comes to wn_store_slow_, too, which says what is wrong */
    for (unsigned c = 0; c < WN_CLASSES_; c++) m->fast.from[c] = &m->fast.buffer[c];
    pthread_mutex_lock(&spare_lock);
    m->next = spare;
    spare = m;
    pthread_mutex_unlock(&spare_lock);
}

void wn_lock_spares(void) { pthread_mutex_lock(&spare_lock); }
void wn_unlock_spares(void) { pthread_mutex_unlock(&spare_lock); }

/* ---- threads that end -------------------------------------------------------------------------------------------- */

static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static bool has_key;
static void thread_ends(void *first);

/* Without a key to be had, or memory for its value, a thread that ends is not noticed. */
static void make_key(void) { has_key = pthread_key_create(&key, thread_ends) == 0; }
static void set_own(mutator *first) {
    of_thread = first;
    if (has_key) pthread_setspecific(key, first);
}

/* Where the calling thread's stack lies, for a collector that has to know; NULL and NULL otherwise. */
static wn_status find_stack(const wn_heap *heap, void **low, void **high) {
    bool scanned = heap->options.conservative_stacks && !heap->collector->count_up; /* counting finds none there */
    bool wanted = heap->collector->shade || scanned;
    if (wanted && wn_os_stack_bounds(low, high)) return WN_OK;
    *low = *high = NULL;
    if (!scanned) return WN_OK;
    return wn_fail(WN_ERR_IO, "the system does not say where this thread's stack ends, which conservative_stacks "
                              "has to know: see that a file descriptor is free and that /proc is there");
}

/* A mutator of the calling thread that nobody knows yet; NULL: no memory. */
static mutator *make_mutator(wn_heap *heap) {
    mutator *m = take_spare();
    if (!m) return NULL;
    m->thread = pthread_self();
    m->heap = heap;
    for (unsigned c = 0; c < WN_CLASSES_; c++) m->fast.from[c] = &m->fast.buffer[c];
    m->all_slow = heap->options.stress || heap->options.check;
    m->buffers = m->all_slow ? m->stash : m->fast.buffer;
    m->until_stress = heap->options.stress;
    return m;
}

/* Puts a mutator on its heap's list, unless the collector has no memory for its part of it. */
static wn_status join(mutator *m) {
    wn_heap *heap = m->heap;
    wn_world_stop(heap, NULL);
    wn_status status = heap->collector->attach(m);
    if (!status) {
        pthread_mutex_lock(&heap->world);
        m->next = heap->mutators;
        heap->mutators = m;
        heap->mutator_count++;
        pthread_mutex_unlock(&heap->world);
    }
    wn_world_start(heap, NULL);
    return status;
}

wn_status wn_attach(wn_heap *heap, wn_mutator **out) {
    if (!out)
        return wn_fail(WN_ERR_ARGUMENT,
                       "wn_attach: there is no place to put the mutator: pass the address of a wn_mutator *");
    *out = NULL;
    if (!heap) return wn_fail(WN_ERR_ARGUMENT, "wn_attach: the heap is NULL: look at what wn_heap_new returned");
    if (wn_current(heap))
        return wn_fail(WN_ERR_STATE,
                       "this thread is attached to the heap already: use wn_current(heap), or wn_detach first");
    void *low, *high;
    wn_status status = find_stack(heap, &low, &high);
    if (status) return status;
    mutator *m = make_mutator(heap);
    if (!m) return wn_fail(WN_ERR_MEMORY, "no memory for a mutator");
    m->stack_from = low;
    m->stack_high = high;
    status = join(m);
    if (status) {
        put_spare(m);
        return status;
    }
    pthread_once(&key_once, make_key);
    wn_note_globals_in_stack(m);
    m->next_of_thread = of_thread;
    set_own(m);
    *out = &m->fast;
    return WN_OK;
}

void wn_drop_blocks(mutator *m) {
    m->heap->collector->flush(m);
    for (unsigned k = 0; k < WN_KINDS; k++)
        for (unsigned c = 0; c < WN_CLASSES_; c++) wn_space_disown(&m->heap->space, &m->block[k][c]);
}

/* Takes the calling thread's mutator out of its heap. */
static void leave(mutator *m) {
    wn_heap *heap = m->heap;
    wn_world_stop(heap, m);
    wn_drop_blocks(m);
    heap->collector->detach(m);
    pthread_mutex_lock(&heap->world);
    mutator **at = &heap->mutators;
    while (*at != m) at = &(*at)->next;
    *at = m->next;
    heap->mutator_count--;
    pthread_mutex_lock(&heap->stats_lock);
    heap->stats.barrier_slow += m->barrier_slow;
    pthread_mutex_unlock(&heap->stats_lock);
    pthread_mutex_unlock(&heap->world);
    wn_world_start(heap, m);
    wn_vector_free(&m->callbacks);
    mutator *first = of_thread, **mine = &first;
    while (*mine != m) mine = &(*mine)->next_of_thread;
    *mine = m->next_of_thread;
    set_own(first);
    put_spare(m);
}

/* What is due, runs while the thread is still one of ours; all of it, because nobody else would. */
static void run_due(mutator *m) {
    do {
        if (m->heap->collector->poll) m->heap->collector->poll(m);
    } while (__atomic_exchange_n(&m->fast.poll, 0, __ATOMIC_RELAXED));
}

/* Roots that are still declared lie in frames that are gone: what they counted stays counted. */
static void end_of_thread(mutator *m) {
    static const char text[] =
        "a thread ends while it is attached to a heap: let it call wn_detach before, when its roots are out of scope; "
        "it is detached now, and what its roots refer to may be lost";
    if (m->heap->options.check)
        wn_misuse("thread-exit", "%s", text);
    else if (m->heap->options.trace)
        fprintf(stderr, "winnow: %s\n", text);
    m->fast.roots = NULL;
    wn_world_run(m);
    bool amid = m->fast.nested || m->in_callbacks || wn_is_telling(m->heap);
    m->fast.nested = 0;
    if (!amid) run_due(m);
    leave(m);
}

/* The client may detach in a destructor of its own, so this one waits for the second round of them. The list comes as
 * the key's value, because on some systems the thread's variables are gone. */
static void thread_ends(void *value) {
    mutator *first = value;
    bool again = first->ending;
    first->ending = true;
    set_own(first);
    while (again && of_thread) end_of_thread(of_thread);
}

wn_status wn_detach(wn_mutator *fast) {
    mutator *m = wn_mutator_of(fast);
    if (!m)
        return wn_fail(WN_ERR_ARGUMENT, "wn_detach: the mutator is NULL: look at what wn_attach returned, or ask "
                                        "wn_current(heap)");
    if (!m->heap) return wn_fail(WN_ERR_STATE, "this mutator is detached already");
    if (!pthread_equal(m->thread, pthread_self()))
        return wn_fail(WN_ERR_STATE, "a mutator can be detached only by the thread that attached it");
    if (fast->roots)
        return wn_fail(
            WN_ERR_STATE,
            "local roots are still declared: leave the scopes of wn_root, wn_hold and wn_borrow before wn_detach, and "
            "before a longjmp out of them call wn_unwind");
    if (fast->nested || wn_is_telling(m->heap))
        return wn_fail(WN_ERR_STATE, "wn_detach inside a no-collect scope or a collection: call it after "
                                     "wn_no_collect_end, outside of finalizers and listeners");
    if (m->state == MUTATOR_STILL)
        return wn_fail(WN_ERR_STATE, "wn_detach between wn_block_begin and wn_block_end: call wn_block_end first");
    run_due(m);
    leave(m);
    return WN_OK;
}

/* ---- making objects ---------------------------------------------------------------------------------------------- */

static bool is_right_type(const mutator *m, const wn_type *type, bool array, const char *what) {
    if (type) return wn_type_check(type, array) == WN_OK;
    wn_misuse_if(m->heap->options.check, "type",
                 "%s: the type is NULL: an object needs one, so pass the address of a wn_type", what);
    return false;
}

static void *allocate(mutator *m, const wn_type *type, size_t bytes) {
    wn_heap *heap = m->heap;
    if (WN_UNLIKELY(!m->buffers)) {
        wn_fail(WN_ERR_STATE,
                "wn_new by a listener on a thread of the collector's, which makes no objects: note what the "
                "event says, and make them on a thread that is attached");
        return NULL;
    }
    wn_poll(&m->fast);
    if (WN_UNLIKELY(m->until_stress) && --m->until_stress == 0) {
        m->until_stress = heap->options.stress;
        if (wn_may_collect(m)) heap->collector->collect(m, WN_DUE, NULL);
    }
    void *o = heap->collector->allocate(m, type, bytes);
    /* As by wn_pin: but nobody else knows the address of a weak reference. */
    uint32_t pinned = type->flags & (WN_TYPE_PINNED | WN_TYPE_WEAKREF | WN_TYPE_EPHEMERON);
    if (pinned == WN_TYPE_PINNED && o) __atomic_store_n(&wn_block_of(o)->pinned, 1, __ATOMIC_RELAXED);
    return o;
}

void *wn_new_slow_(wn_mutator *fast, const wn_type *type) {
    mutator *m = wn_mutator_of(fast);
    if (!wn_is_usable(m, "wn_new") || !is_right_type(m, type, false, "wn_new")) return NULL;
    return allocate(m, type, type->size);
}

void *wn_new_array(wn_mutator *fast, const wn_type *type, size_t length) {
    mutator *m = wn_mutator_of(fast);
    if (!wn_is_usable(m, "wn_new_array") || !is_right_type(m, type, true, "wn_new_array")) return NULL;
    size_t bytes;
    if (__builtin_mul_overflow(length, (size_t)type->item_size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)type->size, &bytes) || bytes > (size_t)1 << 46) {
        wn_fail(WN_ERR_ARGUMENT, "type %s: %zu items of %u bytes do not fit the address space: check the length",
                type->name ? type->name : "(unnamed)", length, type->item_size);
        return NULL;
    }
    void *o = allocate(m, type, bytes);
    /* A collector that lets other threads walk what this one makes has set it already, and they read it. */
    if (o && wn_length_of(o, type) != length) *(size_t *)((char *)o + type->length_at) = length;
    return o;
}

void wn_external(wn_mutator *fast, void *object, ptrdiff_t delta) {
    if (!wn_is_usable(wn_mutator_of(fast), "wn_external")) return;
    (void)object;
    mutator *m = wn_mutator_of(fast);
    __atomic_fetch_add(&m->heap->external_bytes, (size_t)delta, __ATOMIC_RELAXED);
    if (delta > 0 && m->heap->collector->external) m->heap->collector->external(m);
}

/* ---- out of the fast paths --------------------------------------------------------------------------------------- */

void wn_young_full_(wn_mutator *m) { wn_mutator_of(m)->heap->collector->young_full(wn_mutator_of(m)); }
void wn_count_up_slow_(wn_mutator *m, void *o) { wn_mutator_of(m)->heap->collector->count_up(wn_mutator_of(m), o); }
void wn_count_down_slow_(wn_mutator *m, void *o) { wn_mutator_of(m)->heap->collector->count_down(wn_mutator_of(m), o); }

void *wn_space_object_at_locked(wn_heap *heap, const void *address, bool exact) {
    wn_os_lock_brief(&heap->space.lock);
    void *o = wn_space_object_at(&heap->space, address, exact);
    pthread_mutex_unlock(&heap->space.lock);
    return o;
}

bool wn_check_object(mutator *m, const void *o, const char *what, const char *role) {
    if (!o) return true;
    if (!wn_heap_object_at(m->heap, o, true)) {
        wn_misuse(
            "use-after-free",
            "%s: the %s at %p is no object of this heap: it was freed or moved, is another heap's, or never was one. "
            "Hold it by wn_root or wn_hold across safepoints",
            what, role, o);
        return false;
    }
    if (m->heap->collector->is_live && !m->heap->collector->is_live(m->heap, o)) {
        wn_misuse("use-after-free",
                  "%s: the %s at %p was freed: its last reference is gone. A reference kept across a safepoint must be "
                  "declared by wn_root or wn_hold",
                  what, role, o);
        return false;
    }
    return true;
}

/* Of what the type names outside of items: else a collection would follow it to nowhere. Not where another thread may
 * be storing there, so that what is read is gone before it is looked up. */
static bool check_words(mutator *m, const void *holder, const char *name) {
    wn_heap *heap = m->heap;
    for (uint64_t map = heap->mutator_count > 1 ? 0 : wn_type_of(holder)->refs; map; map &= map - 1) {
        unsigned word = (unsigned)__builtin_ctzll(map);
        const void *o = ((void *const *)holder)[word];
        if (!o ||
            (wn_heap_object_at(heap, o, true) && (!heap->collector->is_live || heap->collector->is_live(heap, o))))
            continue;
        wn_misuse(
            "wrong-word",
            "wn_set: what lies at byte %zu of the %s at %p is a reference by its type, and %p is no object of this "
            "heap: the type names a word that is none; or it was stored other than by wn_set or wn_move",
            word * sizeof o, name, holder, o);
        return false;
    }
    return true;
}

static bool check_store(mutator *m, const void *holder, const void *slot, const void *value) {
    if (!wn_check_object(m, holder, "wn_set", "holder") || !wn_check_object(m, value, "wn_set", "value")) return false;
    size_t offset = (size_t)((const char *)slot - (const char *)holder), bytes = wn_bytes_of(holder);
    const char *name = wn_type_of(holder)->name ? wn_type_of(holder)->name : "(unnamed)";
    if (offset < bytes && wn_is_ref_at(holder, offset)) return check_words(m, holder, name);
    if (offset < bytes)
        wn_misuse("wrong-slot",
                  "wn_set: what lies at byte %zu of a %s is no reference by its type, so that no collection would see "
                  "what is stored there: name the field in the type (WN_REFS, WN_ITEMS, WN_RECORDS, .trace)",
                  offset, name);
    else
        wn_misuse("wrong-slot",
                  "wn_set: the slot at %p does not lie in the holder, a %s of %zu bytes at %p: look at the index, and "
                  "at which object the field belongs to",
                  slot, name, bytes, holder);
    return false;
}

void wn_store_slow_(wn_mutator *fast, void *holder, void *slot, void *value, bool takes_over) {
    mutator *m = wn_mutator_of(fast);
    if (!wn_is_usable(m, "wn_set")) return;
    __atomic_store_n(&m->barrier_slow, m->barrier_slow + 1, __ATOMIC_RELAXED); /* others may read it */
    if (m->heap->options.check && !check_store(m, holder, slot, value)) return;
    m->heap->collector->store(m, holder, slot, value, takes_over);
}

void wn_root_slow_(wn_mutator *fast, void *slot, void *value) {
    mutator *m = wn_mutator_of(fast);
    char *here = __builtin_frame_address(0);
    if ((char *)slot > here && (char *)slot < (char *)m->stack_high &&
        WN_LIKELY(!__atomic_load_n(&m->stack_is_shared, __ATOMIC_RELAXED))) {
        *(void **)slot = value;
        return;
    }
    m->heap->collector->store(m, NULL, slot, value, true); /* no object holds it */
}

void wn_copy(wn_mutator *fast, void *holder, void *slots, const void *values, size_t n) {
    wn_slot_ *to = (wn_slot_ *)slots;
    const wn_slot_ *from = (const wn_slot_ *)values;
    mutator *m = wn_mutator_of(fast);
    if (m->heap && m->heap->collector->copy) {
        for (size_t i = 0; i < n && m->heap->options.check; i++)
            if (!wn_is_usable(m, "wn_copy") || !check_store(m, holder, &to[i], from[i])) return;
        m->heap->collector->copy(m, (void **)slots, (void *const *)values, n);
    } else if ((uintptr_t)to <= (uintptr_t)from) {
        for (size_t i = 0; i < n; i++) wn_store(fast, holder, &to[i], from[i]);
    } else {
        for (size_t i = n; i-- > 0;) wn_store(fast, holder, &to[i], from[i]);
    }
}

void *wn_load_(wn_mutator *m, const void *slot) {
    return wn_keep_(m, __atomic_load_n((const wn_slot_ *)slot, __ATOMIC_ACQUIRE));
}

/* ---- collecting -------------------------------------------------------------------------------------------------- */

void wn_verify_at(mutator *m, const char *when) {
    if (!m->heap->options.verify || m->fast.nested) return;
    /* The one call to a layer above: a public one, and only when somebody looks for a mistake. */
    char *text = NULL;
    size_t length = 0;
    FILE *report = open_memstream(&text, &length);
    size_t faults = wn_verify(&m->fast, report);
    if (report) fclose(report);
    if (faults)
        wn_misuse("verify", "the heap is not sound %s a collection, in %zu ways: %s", when, faults, text ? text : "");
    free(text);
}

wn_status wn_collect(wn_mutator *fast, int generation, wn_collect_result *result) {
    mutator *m = wn_mutator_of(fast);
    wn_collect_result ignored;
    if (!result) result = &ignored;
    memset(result, 0, sizeof *result);
    if (!wn_is_usable(m, "wn_collect")) return WN_ERR_STATE;
    if (generation < 0 || generation > 2)
        return wn_fail(WN_ERR_ARGUMENT, "wn_collect: there is no generation %d; 0 is the youngest, 2 the whole heap",
                       generation);
    if (fast->nested)
        return wn_fail(WN_ERR_STATE, "wn_collect inside a no-collect scope or a collection: call it after "
                                     "wn_no_collect_end, outside of finalizers");
    if (wn_is_telling(m->heap))
        return wn_fail(WN_ERR_STATE, "wn_collect by a listener: call it when the event is over");
    return m->heap->collector->collect(m, generation, result);
}

static wn_status step(wn_mutator *fast, uint64_t budget, wn_step_result *result) {
    mutator *m = wn_mutator_of(fast);
    wn_step_result ignored;
    if (!result) result = &ignored;
    memset(result, 0, sizeof *result);
    if (!wn_is_usable(m, "wn_collect_step")) return WN_ERR_STATE;
    if (fast->nested)
        return wn_fail(WN_ERR_STATE, "wn_collect_step inside a no-collect scope or a collection: call it afterwards");
    if (wn_is_telling(m->heap))
        return wn_fail(WN_ERR_STATE, "wn_collect_step by a listener: call it when the event is over");
    if (m->heap->collector->step) return m->heap->collector->step(m, budget, result);
    wn_collect_result whole = {0};
    wn_status s = m->heap->collector->collect(m, 2, &whole);
    result->before = result->after = WN_PHASE_IDLE;
    result->major_is_done = true;
    result->freed_objects = whole.collected;
    result->freed_bytes = whole.freed_bytes;
    result->duration_ns = whole.duration_ns;
    return s;
}

wn_status wn_collect_step(wn_mutator *m, wn_step_result *result) { return step(m, 0, result); }
wn_status wn_collect_for(wn_mutator *m, uint64_t budget_ns, wn_step_result *result) {
    return step(m, budget_ns ? budget_ns : 1, result);
}

wn_status wn_freeze(wn_mutator *fast) {
    mutator *m = wn_mutator_of(fast);
    if (!wn_is_usable(m, "wn_freeze")) return WN_ERR_STATE;
    if (wn_is_telling(m->heap)) /* a thread of the collector's would wait for the cycle that it runs */
        return wn_fail(WN_ERR_STATE, "wn_freeze by a listener: call it when the event is over");
    if (fast->nested) /* what is young would move */
        return wn_fail(WN_ERR_STATE, "wn_freeze inside a no-collect scope or a collection: call it afterwards");
    wn_world_stop(m->heap, m);
    wn_status s = m->heap->collector->freeze(m);
    wn_world_start(m->heap, m);
    return s;
}

wn_status wn_unfreeze(wn_mutator *fast) {
    mutator *m = wn_mutator_of(fast);
    if (!wn_is_usable(m, "wn_unfreeze")) return WN_ERR_STATE;
    if (wn_is_telling(m->heap))
        return wn_fail(WN_ERR_STATE, "wn_unfreeze by a listener: call it when the event is over");
    wn_world_stop(m->heap, m);
    wn_status s = m->heap->collector->unfreeze(m);
    wn_world_start(m->heap, m);
    return s;
}

/* All threads give up their blocks, and slots that they keep for themselves, which may not be looked at. */
static void stop_and_drop(mutator *m) {
    wn_world_stop(m->heap, m);
    for (mutator *each = m->heap->mutators; each; each = each->next) wn_drop_blocks(each);
}

static size_t resident(wn_space *space) {
    pthread_mutex_lock(&space->lock);
    size_t bytes = wn_mesh_resident(space);
    pthread_mutex_unlock(&space->lock);
    return bytes;
}

/* All sparse blocks; the world is stopped, and goes on in between. Returns the bytes it gave back. */
static size_t lay_together(mutator *m) {
    enum { STOP_NS = 500000, REST_NS = 100000 };
    wn_space *space = &m->heap->space;
    size_t before = resident(space);
    if (!wn_mesh_plan(space, 0, NULL, NULL)) return 0;
    for (uint64_t deadline = wn_os_now() + STOP_NS; wn_mesh_choose(space);)
        while (wn_mesh_lay(space, deadline) || wn_os_now() >= deadline) {
            bool others = m->heap->mutator_count > 1;
            wn_world_start(m->heap, m);
            /* A thread that was stopped is asleep, and would find the world stopped again by the time it is awake. */
            if (others) wn_os_nap(REST_NS);
            stop_and_drop(m);
            deadline = wn_os_now() + STOP_NS;
        }
    size_t after = resident(space);
    return before > after ? before - after : 0;
}

size_t wn_trim(wn_mutator *fast) {
    if (!wn_is_usable(wn_mutator_of(fast), "wn_trim")) return 0;
    mutator *m = wn_mutator_of(fast);
    stop_and_drop(m);
    if (m->heap->collector->trim) m->heap->collector->trim(m);
    size_t laid = lay_together(m);
    wn_world_start(m->heap, m);
    return laid + wn_space_discard(&m->heap->space, (size_t)-1);
}

/* ---- single objects ---------------------------------------------------------------------------------------------- */

size_t wn_refcount(wn_mutator *fast, const void *object) {
    if (!wn_may_use(wn_mutator_of(fast), object, "wn_refcount")) return 0;
    mutator *m = wn_mutator_of(fast);
    return m->heap->collector->refcount ? m->heap->collector->refcount(m, object) : 0;
}

void wn_make_immortal(wn_mutator *fast, void *object) {
    if (!wn_may_use(wn_mutator_of(fast), object, "wn_make_immortal")) return;
    mutator *m = wn_mutator_of(fast);
    m->heap->collector->make_immortal(m, object);
}

wn_status wn_pin(wn_mutator *fast, void *object) {
    if (!wn_is_usable(wn_mutator_of(fast), "wn_pin")) return WN_ERR_STATE;
    if (!wn_is_given(wn_mutator_of(fast), object, "wn_pin")) return WN_ERR_ARGUMENT;
    /* Whoever pins an object may give its address to others, who write there although the world stands still: its
     * block must not be copied to other memory meanwhile. */
    __atomic_store_n(&wn_block_of(object)->pinned, 1, __ATOMIC_RELAXED);
    return wn_mutator_of(fast)->heap->collector->pin(wn_mutator_of(fast), object);
}
void wn_unpin(wn_mutator *fast, void *object) {
    if (!wn_is_usable(wn_mutator_of(fast), "wn_unpin")) return;
    if (!object && !wn_is_given(wn_mutator_of(fast), object, "wn_unpin")) return; /* else it may be gone by now */
    wn_mutator_of(fast)->heap->collector->unpin(wn_mutator_of(fast), object);
}
uintptr_t wn_identity(wn_mutator *fast, void *object) {
    if (!wn_may_use(wn_mutator_of(fast), object, "wn_identity")) return 0;
    return wn_mutator_of(fast)->heap->collector->identity(wn_mutator_of(fast), object);
}
