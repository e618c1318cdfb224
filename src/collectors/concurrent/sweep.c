/*
 * sweep.c - giving dead slots back, block by block, by whoever needs room first; and memory back to the system.
 *
 * When marking has ended, the blocks that existed then get a list per kind and class. A thread that runs out of room of
 * a class claims some of that class; the conductor claims the rest. Sweeping a block is alloc &= mark, word by word.
 *
 * Nobody waits for a sweep: a thread looks at no more than STARVED_LOOK blocks before it takes a fresh one, and the
 * conductor, which sweeps about 20 GB a second, is done long before the next cycle, which it starts itself.
 */
#include "collectors/concurrent/concurrent.h"
#include "heap/mesh.h"

#include <string.h>

enum { STARVED_LOOK = 16, LOOK = 64 /* blocks under the space's lock */, DISCARD_BLOCKS = 16 };

/* The chunk after c, the first after NULL, and where its blocks end. Chunks go only when they are swept, so that during
 * the rest of a cycle one can be looked at without the lock. It takes a while, and threads must not wait for it; blocks
 * that are committed meanwhile have no marks. */
static wn_chunk *next_chunk(wn_space *space, const wn_chunk *c, unsigned *end) {
    wn_os_lock_brief(&space->lock);
    wn_chunk *next = c ? c->next : space->chunks;
    if (next) *end = next->huge ? WN_FIRST_BLOCK + 1u : next->committed;
    pthread_mutex_unlock(&space->lock);
    return next;
}

/* Frozen blocks count as marked; everything else is white again. */
void wn_cc_clear_marks(wn_cc *cc) {
    unsigned end;
    for (wn_chunk *c = NULL; (c = next_chunk(&cc->heap->space, c, &end));) {
        size_t first = (size_t)WN_FIRST_BLOCK * WN_BLOCK_WORDS,
               last = c->huge ? first + 1 : (size_t)end * WN_BLOCK_WORDS;
        /* Word by word and atomically: in checked mode threads ask meanwhile whether an object is alive. */
        uint64_t *words = (uint64_t *)((char *)c + WN_MARK_TABLE);
        for (size_t i = first; i < last; i++) __atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
        for (unsigned i = WN_FIRST_BLOCK; cc->frozen && i < end; i++)
            for (unsigned j = 0; c->block[i].frozen && j < WN_BLOCK_WORDS; j++)
                __atomic_store_n(&wn_mark_words(&c->block[i])[j], ~(uint64_t)0, __ATOMIC_RELAXED);
    }
}

/* ---- lists of blocks that wait ----------------------------------------------------------------------------------- */

static void release_dead(void *object, void *heap) {
    const wn_type *type = wn_type_of(object);
    if (type && type->release) wn_run_release(heap, type, object);
}

static void sweep_blocks(wn_cc *cc, void *const *blocks, size_t n) {
    wn_swept freed = wn_space_sweep_quietly(&cc->heap->space, blocks, n, release_dead, cc->heap);
    if (!freed.objects) return;
    __atomic_fetch_add(&cc->freed_objects, freed.objects, __ATOMIC_RELAXED);
    __atomic_fetch_add(&cc->freed_bytes, freed.bytes, __ATOMIC_RELAXED);
}

static void each_list(wn_cc *cc, void (*act)(wn_cc *cc, wn_cc_unswept *list)) {
    for (unsigned k = 0; k < WN_KINDS; k++)
        for (unsigned i = 0; i < WN_CLASSES_; i++) act(cc, &cc->unswept[k][i]);
    act(cc, &cc->unswept_large);
}

static void empty_list(wn_cc *cc, wn_cc_unswept *list) {
    (void)cc;
    list->end = 0;
    __atomic_store_n(&list->next, 0, __ATOMIC_RELAXED);
}

/* Lists stand one behind the other; each is empty at first, and ends where the next begins when it is full. */
static void lay_out(wn_cc *cc, wn_cc_unswept *list) {
    size_t n = list->end;
    list->end = cc->to_sweep;
    __atomic_store_n(&list->next, list->end, __ATOMIC_RELAXED);
    cc->to_sweep += n;
}

static void count(wn_cc *cc, wn_cc_unswept *list, wn_block *b) {
    (void)cc, (void)b;
    list->end++;
}
static void enter(wn_cc *cc, wn_cc_unswept *list, wn_block *b) { cc->waiting[list->end++] = b; }

/* Blocks [from, to) of a chunk. What is of an older era stays as it is until it is swept. */
static void each_unswept(wn_cc *cc, wn_chunk *c, unsigned from, unsigned to,
                         void (*act)(wn_cc *cc, wn_cc_unswept *list, wn_block *b)) {
    wn_space *space = &cc->heap->space;
    wn_block *found[LOOK];
    size_t n = 0;
    wn_os_lock_brief(&space->lock);
    for (unsigned i = from; i < to; i++) {
        wn_block *b = &c->block[i];
        if ((b->state == WN_BLOCK_SMALL || b->state == WN_BLOCK_LARGE) && !wn_space_is_swept(space, b)) found[n++] = b;
    }
    pthread_mutex_unlock(&space->lock);
    for (size_t i = 0; i < n; i++) {
        wn_block *b = found[i];
        act(cc, b->state == WN_BLOCK_LARGE ? &cc->unswept_large : &cc->unswept[b->kind][b->cls], b);
    }
}

static void each_unswept_block(wn_cc *cc, void (*act)(wn_cc *cc, wn_cc_unswept *list, wn_block *b)) {
    unsigned end, next_end = 0;
    for (wn_chunk *next, *c = next_chunk(&cc->heap->space, NULL, &end); c; c = next, end = next_end) {
        next = next_chunk(&cc->heap->space, c, &next_end); /* first: a huge object's chunk goes when that is swept */
        for (unsigned i = WN_FIRST_BLOCK; i < end; i += LOOK)
            each_unswept(cc, c, i, i + LOOK < end ? i + LOOK : end, act);
    }
}

/* False: no memory. Not malloc's: a thread's first call of that makes an arena, with three changes of the process's
 * mappings, each of which waits while the program meets fresh pages, and the sweep with it. */
static bool make_room(wn_cc *cc) {
    if (cc->to_sweep <= cc->waiting_room) return true;
    size_t room = cc->waiting_room ? cc->waiting_room : (1 << 20) / sizeof(void *);
    while (room < cc->to_sweep) room *= 2;
    void **bigger = wn_os_map(room * sizeof *bigger);
    if (!bigger) return false;
    wn_cc_drop_waiting(cc);
    cc->waiting = bigger;
    cc->waiting_room = room;
    return true;
}

void wn_cc_drop_waiting(wn_cc *cc) {
    if (cc->waiting) wn_os_release(cc->waiting, cc->waiting_room * sizeof *cc->waiting);
    cc->waiting = NULL;
    cc->waiting_room = 0;
}

/* Twice through the blocks, first to know how many there are of each list. */
void wn_cc_collect_unswept(wn_cc *cc) {
    each_list(cc, empty_list);
    __atomic_store_n(&cc->swept, 0, __ATOMIC_RELAXED);
    each_unswept_block(cc, count);
    cc->to_sweep = 0;
    each_list(cc, lay_out);
    cc->unlisted = !make_room(cc);
    if (!cc->unlisted) {
        each_unswept_block(cc, enter);
    } else {
        each_list(cc, empty_list);
        cc->to_sweep = 0;
    }
}

bool wn_cc_begin_sweep(wn_cc *cc) {
    wn_space *space = &cc->heap->space;
    wn_space_new_era(space);
    pthread_mutex_lock(&cc->heap->weak.lock);
    wn_cc_set_phase(cc, WN_CC_ENDING);
    pthread_mutex_unlock(&cc->heap->weak.lock);
    while (wn_space_unlist(space, 64))
        if (!wn_cc_pause(cc, &cc->worker[0])) return false;
    if (!wn_cc_handshake(cc, WN_CC_ASK_SWEEP, NULL) || !wn_cc_end_work(cc)) return false;
    wn_cc_collect_unswept(cc);
    /* From here on the cycle is not given up any more: the lists are complete. */
    pthread_mutex_lock(&cc->heap->world);
    pthread_mutex_lock(&cc->heap->weak.lock);
    pthread_mutex_lock(&cc->lock);
    wn_cc_set_phase(cc, WN_CC_SWEEPING);
    pthread_mutex_unlock(&cc->lock);
    pthread_mutex_unlock(&cc->heap->weak.lock);
    pthread_mutex_unlock(&cc->heap->world);
    return true;
}

/* ---- sweeping ---------------------------------------------------------------------------------------------------- */

/* Up to n of a list. */
static bool sweep_next(wn_cc *cc, wn_cc_unswept *list, size_t n) {
    if (__atomic_load_n(&list->next, __ATOMIC_RELAXED) >= list->end) return false;
    size_t i = __atomic_fetch_add(&list->next, n, __ATOMIC_RELAXED);
    if (i >= list->end) return false;
    if (list->end - i < n) n = list->end - i;
    sweep_blocks(cc, &cc->waiting[i], n);
    __atomic_fetch_add(&cc->swept, n, __ATOMIC_RELEASE);
    return true;
}

static void sweep_one(wn_cc *cc, wn_cc_unswept *list, wn_block *b) {
    void *block = b;
    (void)list;
    sweep_blocks(cc, &block, 1);
}

bool wn_cc_sweep_some(wn_cc *cc) {
    if (WN_UNLIKELY(cc->unlisted)) {
        each_unswept_block(cc, sweep_one);
        cc->unlisted = false;
    }
    if (sweep_next(cc, &cc->unswept_large, 1)) return true;
    for (unsigned k = 0; k < WN_KINDS; k++)
        for (unsigned i = 0; i < WN_CLASSES_; i++)
            if (sweep_next(cc, &cc->unswept[k][i], WN_SWEEP_TOGETHER)) return true;
    return false;
}

bool wn_cc_sweep_done(const wn_cc *cc) { return __atomic_load_n(&cc->swept, __ATOMIC_ACQUIRE) == cc->to_sweep; }

bool wn_cc_starved(wn_space *space, unsigned kind, unsigned cls) {
    wn_cc *cc = space->owner;
    if (wn_cc_phase_of(cc) != WN_CC_SWEEPING) return false;
    for (int i = 0; i < STARVED_LOOK; i++) {
        if (!sweep_next(cc, &cc->unswept[kind][cls], 1)) return false;
        if (__atomic_load_n(&space->room[kind][cls], __ATOMIC_RELAXED)) return true;
    }
    return false;
}

/* ---- memory back to the system ----------------------------------------------------------------------------------- */

/* What the next cycles will need again stays: free memory up to the goal. The rest goes back in pieces of 512 KiB, one
 * every 10 ms, so at 50 MB a second, or faster when there is much of it. */
static size_t surplus(const wn_cc *cc) {
    const wn_space *space = &cc->heap->space;
    size_t in_use = __atomic_load_n(&space->block_bytes, __ATOMIC_RELAXED),
           goal = __atomic_load_n(&cc->goal, __ATOMIC_RELAXED);
    size_t dirty = __atomic_load_n(&space->dirty_blocks, __ATOMIC_RELAXED) << WN_BLOCK_SHIFT, want = goal + goal / 10;
    size_t keep = want > in_use ? want - in_use : 0;
    return dirty > keep + DISCARD_BLOCKS * WN_BLOCK_SIZE ? dirty - keep : 0;
}

bool wn_cc_wants_to_scavenge(const wn_cc *cc) { return surplus(cc) > 0; }

void wn_cc_scavenge(wn_cc *cc) {
    size_t bytes = surplus(cc), blocks = (bytes >> WN_BLOCK_SHIFT) / 64;
    if (blocks < DISCARD_BLOCKS) blocks = DISCARD_BLOCKS;
    for (size_t done = 0; done < blocks && wn_cc_pause(cc, &cc->worker[0]); done += DISCARD_BLOCKS)
        if (!wn_space_discard(&cc->heap->space, DISCARD_BLOCKS)) break;
}

/* ---- sparse blocks laid together -----------------------------------------------------------------------------------
 *
 * Between cycles, while more memory is taken than the goal asks for; where one cycle follows the other, for as long as
 * the last one took. A few blocks at a time are laid, and only if all threads get to a safepoint at once; then they
 * stand still for some 30 us, and run as long before the next stop. While the program stands still anyway,
 * nobody is waited for. */

enum {
    MESH_STOP_NS = 30000,
    MESH_ARRIVE_NS = 50000,
    MESH_REST = 1,               /* the program runs for so many times as long as it stood still */
    MESH_LONG_REST_NS = 2000000, /* where a thread is on its way for longer than MESH_ARRIVE_NS each time */
    MESH_PATIENCE_NS = 500000000,
    MESH_EVERY_NS = 100000000,
    MESH_FROM = 8 << 20 /* bytes more than the goal that are worth it */
};

void wn_cc_mesh_later(wn_cc *cc) {
    cc->mesh_due = true;
    cc->mesh_until = cc->now.end + (cc->now.end - cc->now.start);
}

bool wn_cc_wants_to_mesh(const wn_cc *cc, bool in_a_hurry) {
    if (!cc->meshing && !cc->mesh_due) return false;
    uint64_t now = wn_os_now();
    return (cc->meshing || cc->heap->options.stress || now - cc->meshed_at >= MESH_EVERY_NS) &&
           (!in_a_hurry || now < cc->mesh_until);
}

static unsigned running_threads(wn_heap *heap) {
    unsigned n = 0;
    pthread_mutex_lock(&heap->world);
    for (const mutator *m = heap->mutators; m; m = m->next) n += m->state == MUTATOR_RUNNING;
    pthread_mutex_unlock(&heap->world);
    return n;
}

/* False: interrupted, or given up because some thread has not come to a safepoint for a while. */
static bool lay_chosen(wn_cc *cc) {
    wn_heap *heap = cc->heap;
    wn_cc_worker *w = &cc->worker[0];
    uint64_t rest = MESH_ARRIVE_NS, in_vain = 0;
    for (bool more = true; more;) {
        if (!wn_cc_pause(cc, w) || in_vain > MESH_PATIENCE_NS) return false;
        unsigned running = running_threads(heap);
        uint64_t asked = wn_os_now();
        bool stopped = wn_world_try_stop(heap, &w->me, MESH_ARRIVE_NS);
        uint64_t start = wn_os_now(), end = start;
        if (stopped) {
            more = wn_mesh_lay(&heap->space, start + MESH_STOP_NS);
            wn_world_start(heap, &w->me);
            end = wn_os_now();
            rest = (end - start) * MESH_REST;
            in_vain = 0;
        } else {
            in_vain += rest;
            if (rest < MESH_LONG_REST_NS) rest *= 2;
        }
        /* One of several threads may have stood still while the others were waited for. */
        if (running) wn_note_wait(heap, end - (running > 1 ? asked : start));
        if (running || !stopped) wn_os_nap(rest);
    }
    return true;
}

static bool go_on(void *cc) { return wn_cc_pause(cc, &((wn_cc *)cc)->worker[0]); }

void wn_cc_mesh(wn_cc *cc) {
    wn_space *space = &cc->heap->space;
    size_t goal = __atomic_load_n(&cc->goal, __ATOMIC_RELAXED), enough = goal + goal / 4 + MESH_FROM;
    if (cc->heap->options.stress) enough = 0;
    uint64_t cpu = wn_os_thread_cpu();
    if (!cc->meshing) {
        cc->meshed_at = wn_os_now();
        cc->mesh_due = false;
        cc->meshing = wn_mesh_plan(space, enough, go_on, cc);
    } else if (!wn_mesh_choose(space)) {
        cc->meshing = false;
    } else if (!lay_chosen(cc)) {
        wn_mesh_drop_plan(space);
        cc->meshing = false;
    }
    pthread_mutex_lock(&cc->heap->stats_lock);
    cc->heap->stats.gc_cpu_ns += wn_os_thread_cpu() - cpu;
    pthread_mutex_unlock(&cc->heap->stats_lock);
}
