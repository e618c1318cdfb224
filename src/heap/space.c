/* space.c - chunks and blocks: taking them from the system, giving them out, taking them back. */
#include "heap/space.h"
#include "heap/mesh.h"

#include <stdlib.h>
#include <string.h>

/* A call to the system commits so many blocks in a space's first chunk, and all of a further one: it waits for the page
 * faults of other threads, and what is not touched costs nothing. */
enum { COMMIT_BLOCKS = (2 << 20) / WN_BLOCK_SIZE };

/* Where the slots of a class begin, as a block's bitmap: the alloc bits of a block that is handed out whole. */
static uint64_t slot_starts[WN_CLASSES_][WN_BLOCK_WORDS];
static uint32_t slot_of_class[WN_CLASSES_];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void) {
    for (size_t size = WN_SLOT_MIN_; size <= WN_SMALL_MAX_; size = wn_slot_size_(size + 1)) {
        unsigned cls = wn_class_of_slot_(size);
        slot_of_class[cls] = (uint32_t)size;
        for (size_t at = 0; at + size <= WN_BLOCK_SIZE; at += size) {
            size_t g = at >> WN_GRANULE_SHIFT_;
            slot_starts[cls][g >> 6] |= (uint64_t)1 << (g & 63);
        }
    }
}

bool wn_space_init(wn_space *space, size_t limit) {
    pthread_once(&tables_once, make_tables);
    memset(space, 0, sizeof *space);
    pthread_mutex_init(&space->lock, NULL);
    space->limit = limit;
    space->known_size = 64;
    space->known = calloc(space->known_size, sizeof *space->known);
    return space->known != NULL;
}

static void let_held(wn_space *space) {
    if (space->held) wn_os_release(space->held, space->held_bytes);
    space->held = NULL;
    space->held_bytes = 0;
}

void wn_space_fini(wn_space *space) {
    wn_mesh_fini(space);
    for (wn_chunk *c = space->chunks, *next; c; c = next) {
        next = c->next;
        wn_os_release(c, c->size);
    }
    while (wn_space_let_go(space, SIZE_MAX)) {
    }
    let_held(space);
    free(space->known);
    pthread_mutex_destroy(&space->lock);
}

/* ---- which addresses are ours ------------------------------------------------------------------------------------ */

/* An entry is the unit's number and, in the upper half, how many units before it the chunk begins. */
static size_t known_at(const wn_space *space, uintptr_t unit) {
    size_t i = (size_t)((unit * 0x9E3779B97F4A7C15u) >> 40) & (space->known_size - 1);
    while (space->known[i] && (space->known[i] & 0xFFFFFFFFu) != unit) i = (i + 1) & (space->known_size - 1);
    return i;
}

static bool know(wn_space *space, const wn_chunk *c) {
    size_t units = (c->size + WN_CHUNK_SIZE - 1) >> WN_CHUNK_SHIFT_;
    if ((space->known_used + units) * 2 > space->known_size) {
        wn_space bigger = *space;
        while ((space->known_used + units) * 2 > bigger.known_size) bigger.known_size *= 2;
        bigger.known = calloc(bigger.known_size, sizeof *bigger.known);
        if (!bigger.known) return false;
        for (size_t i = 0; i < space->known_size; i++)
            if (space->known[i]) bigger.known[known_at(&bigger, space->known[i] & 0xFFFFFFFFu)] = space->known[i];
        free(space->known);
        space->known = bigger.known;
        space->known_size = bigger.known_size;
    }
    uintptr_t first = (uintptr_t)c >> WN_CHUNK_SHIFT_;
    for (size_t i = 0; i < units; i++) space->known[known_at(space, first + i)] = (first + i) | (uintptr_t)i << 32;
    space->known_used += units;
    return true;
}

/* A huge chunk goes: its units are taken out and the set is built anew, which is rare and keeps look-ups simple. */
static void forget(wn_space *space, const wn_chunk *gone) {
    memset(space->known, 0, space->known_size * sizeof *space->known);
    space->known_used = 0;
    for (wn_chunk *c = space->chunks; c; c = c->next)
        if (c != gone) know(space, c);
}

static wn_chunk *chunk_at(const wn_space *space, const void *address) {
    uintptr_t unit = (uintptr_t)address >> WN_CHUNK_SHIFT_;
    if (unit > 0xFFFFFFFFu || !unit) return NULL;
    uintptr_t e = space->known[known_at(space, unit)];
    return e ? (wn_chunk *)((unit - (e >> 32)) << WN_CHUNK_SHIFT_) : NULL;
}

void *wn_space_object_at(wn_space *space, const void *address, bool exact) {
    wn_chunk *c = chunk_at(space, address);
    if (!c) return NULL;
    size_t offset = (size_t)((const char *)address - (const char *)c);
    if (offset < WN_CHUNK_HEADER || offset >= c->size) return NULL;
    wn_block *b = &c->block[c->huge ? (size_t)WN_FIRST_BLOCK : offset >> WN_BLOCK_SHIFT];
    if (b->state == WN_BLOCK_TAIL)
        while (b->state == WN_BLOCK_TAIL) b--;
    char *start = wn_block_start(b), *object = start;
    if (b->state == WN_BLOCK_SMALL) {
        uint32_t number = wn_slot_number(b, (uint32_t)((const char *)address - start));
        if (number >= b->slots) return NULL;
        object = start + (size_t)number * b->slot;
    } else if (b->state != WN_BLOCK_LARGE) {
        return NULL;
    }
    if (exact && object != address) return NULL;
    return wn_is_allocated(object) ? object : NULL;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------ */

/* Under the lock. */
static bool hold(wn_space *space) {
    size_t bytes = space->holds ? space->holds(space) : 0, page = wn_os_page_size();
    bytes = (bytes + page - 1) & ~(page - 1);
    if (bytes <= space->held_bytes) return true;
    let_held(space);
    space->held = wn_os_reserve(bytes, page);
    if (space->held) space->held_bytes = bytes;
    return space->held != NULL;
}

void wn_space_let_held(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    let_held(space);
    pthread_mutex_unlock(&space->lock);
}

bool wn_space_hold(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    bool held = hold(space);
    pthread_mutex_unlock(&space->lock);
    return held;
}

static wn_chunk *make_chunk(wn_space *space, size_t size, bool huge) {
    wn_chunk *c = wn_os_reserve(size, WN_CHUNK_SIZE);
    if (!c) return NULL;
    if (space->large_pages) wn_os_prefer_large_pages(c, size);
    /* A huge chunk needs only the tables' first pages, but committing costs nothing until they are touched. */
    if (!wn_os_commit(c, huge ? size : (size_t)WN_CHUNK_HEADER)) {
        wn_os_release(c, size);
        return NULL;
    }
    c->space = space;
    c->size = size;
    c->huge = huge;
    c->committed = c->readied = WN_FIRST_BLOCK;
    c->end = WN_CHUNK_BLOCKS;
    if (!know(space, c)) {
        wn_os_release(c, size);
        return NULL;
    }
    if (!huge) {
        c->free_blocks = WN_CHUNK_BLOCKS - WN_FIRST_BLOCK;
        memset(c->free_map, 0xFF, sizeof c->free_map);
        for (unsigned i = 0; i < WN_FIRST_BLOCK; i++) c->free_map[i / 64] &= ~((uint64_t)1 << (i % 64));
    }
    /* Chunks in address order: free blocks are taken from the lowest, so the highest ones empty first. */
    wn_chunk **at = &space->chunks;
    while (*at && *at < c) at = &(*at)->next;
    c->next = *at;
    *at = c;
    if (hold(space)) return c;
    *at = c->next;
    forget(space, c);
    wn_os_release(c, size);
    hold(space); /* what was held before */
    return NULL;
}

static wn_chunk *new_chunk(wn_space *space, size_t size, bool huge) {
    wn_chunk *c = make_chunk(space, size, huge);
    space->system_refused = !c;
    return c;
}

bool wn_space_begin(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    bool begun = space->chunks || new_chunk(space, WN_CHUNK_SIZE, false);
    pthread_mutex_unlock(&space->lock);
    return begun;
}

/* The first run of n free blocks in a chunk, or 0. */
static unsigned find_run(const wn_chunk *c, size_t n) {
    if (c->free_blocks < n) return 0;
    unsigned run = 0;
    for (unsigned i = WN_FIRST_BLOCK; i < c->end; i++) {
        uint64_t w = c->free_map[i / 64];
        if (!w && i % 64 == 0 && i + 64 <= c->end) {
            run = 0;
            i += 63;
            continue;
        }
        run = (w >> (i % 64)) & 1 ? run + 1 : 0;
        if (run == n) return i + 1 - (unsigned)n;
    }
    return 0;
}

static bool within_limit(wn_space *space, size_t more) {
    /* One sixteenth for the byte table and as much again for the bitmaps and descriptors of the blocks. */
    size_t all = wn_mesh_resident(space) + more;
    bool within = !space->limit || all + all / 12 <= space->limit;
    if (!within) space->system_refused = false;
    return within;
}

static void count_blocks(wn_space *space, size_t more) {
    size_t now = __atomic_add_fetch(&space->block_bytes, more, __ATOMIC_RELAXED);
    if (now > space->block_bytes_max) space->block_bytes_max = now;
}

static void mark_free(wn_block *first, size_t n, bool are) {
    wn_chunk *c = wn_chunk_of(first);
    for (size_t i = (size_t)(first - c->block), end = i + n; i < end; i++) {
        uint64_t bit = (uint64_t)1 << (i % 64);
        c->free_map[i / 64] = are ? c->free_map[i / 64] | bit : c->free_map[i / 64] & ~bit;
    }
    c->free_blocks = are ? c->free_blocks + (uint32_t)n : c->free_blocks - (uint32_t)n;
}

static bool commit_upto(wn_chunk *c, size_t upto) {
    if (upto > c->end) upto = c->end;
    char *from = (char *)c + ((size_t)c->committed << WN_BLOCK_SHIFT);
    if (!wn_os_commit(from, (upto - c->committed) << WN_BLOCK_SHIFT)) return false;
    c->committed = (uint32_t)upto;
    return true;
}

/* Takes n adjacent free blocks; their state is set by the caller, who cleans them. Under the lock. */
static wn_block *take_run(wn_space *space, size_t n) {
    if (!within_limit(space, n << WN_BLOCK_SHIFT)) return NULL;
    wn_chunk *c;
    unsigned at = 0;
    for (c = space->chunks; c; c = c->next)
        if (!c->huge && (at = find_run(c, n))) break;
    if (!c) {
        c = new_chunk(space, WN_CHUNK_SIZE, false);
        if (!c) return NULL;
        at = find_run(c, n);
        if (!at) return NULL;
    }
    if (at + n > c->committed && !(space->chunks->next && commit_upto(c, c->end)) &&
        !commit_upto(c, (at + n + COMMIT_BLOCKS - 1) & ~(size_t)(COMMIT_BLOCKS - 1))) {
        space->system_refused = true;
        return NULL;
    }
    for (size_t i = at; i < at + n; i++) __atomic_store_n(&c->block[i].era, space->era, __ATOMIC_RELEASE);
    mark_free(&c->block[at], n, false);
    count_blocks(space, n << WN_BLOCK_SHIFT);
    WN_ALLOW(wn_block_start(&c->block[at]), n << WN_BLOCK_SHIFT);
    return &c->block[at];
}

/* The dirty ones of n blocks just taken count as clean from now on; the caller makes that true when it has let go of
 * the lock. Returns how many, which of them as bits if they are few. */
typedef struct dirty_run {
    size_t n;
    uint32_t few; /* of a run shorter than MANY */
} dirty_run;
enum { MANY = 8 };

static dirty_run claim_dirty(wn_space *space, wn_block *first, size_t n) {
    dirty_run run = {0, 0};
    for (size_t i = 0; i < n; i++) {
        if (!first[i].dirty) continue;
        first[i].dirty = 0;
        run.n++;
        if (n < MANY) run.few |= 1u << i;
    }
    wn_chunk_of(first)->dirty_blocks -= (uint32_t)run.n;
    if (run.n) __atomic_fetch_sub(&space->dirty_blocks, run.n, __ATOMIC_RELAXED);
    return run;
}

/* Zeroes them. A long run is discarded rather than written: the kernel zeroes pages only as they are touched. So is a
 * view, whose frame may have gone back: writing there would bring that into being again. */
static void clean_run(wn_space *space, wn_block *first, size_t n, dirty_run run) {
    if (!run.n) return;
    if (n >= MANY) {
        wn_mesh_renew(space, first, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!(run.few >> i & 1)) continue;
        if (first[i].viewing)
            wn_mesh_renew(space, &first[i], 1);
        else
            memset(wn_block_start(&first[i]), 0, WN_BLOCK_SIZE);
    }
}

/* Gives n blocks back to the chunk. Under the lock. */
static void give_run(wn_space *space, wn_block *first, size_t n) {
    wn_chunk *c = wn_chunk_of(first);
    size_t at = (size_t)(first - c->block);
    for (size_t i = at; i < at + n; i++) {
        wn_block *b = &c->block[i];
        wn_mesh_leave(space, b);
        bool viewing = b->viewing;
        memset(b, 0, sizeof *b);
        b->viewing = viewing;
        b->dirty = 1;
        WN_FORBID(wn_block_start(b), WN_BLOCK_SIZE);
    }
    mark_free(first, n, true);
    __atomic_fetch_add(&space->dirty_blocks, n, __ATOMIC_RELAXED);
    c->dirty_blocks += (uint32_t)n;
    __atomic_fetch_sub(&space->block_bytes, n << WN_BLOCK_SHIFT, __ATOMIC_RELAXED);
}

/* The next dirty blocks to give back, neighbours, at most `most`; they count as clean. From the highest address down,
 * while blocks are taken from the lowest up: what goes back is what is used least. */
static wn_block *take_dirty(wn_space *space, size_t most, size_t *n) {
    wn_chunk *last = NULL;
    for (wn_chunk *c = space->chunks; c; c = c->next)
        if (c->dirty_blocks) last = c;
    *n = 0;
    if (!last) return NULL;
    unsigned i = last->committed;
    while (!last->block[i - 1].dirty) i--;
    for (; *n < most && i > WN_FIRST_BLOCK && last->block[i - 1].dirty; ++*n) last->block[--i].dirty = 0;
    last->dirty_blocks -= (uint32_t)*n;
    __atomic_fetch_sub(&space->dirty_blocks, *n, __ATOMIC_RELAXED);
    space->returned_bytes += *n << WN_BLOCK_SHIFT;
    return &last->block[i];
}

/* Gives the memory of free blocks back. Where the system takes none it is written to. */
static void renew_free(wn_space *space, wn_block *first, size_t n) {
    WN_ALLOW(wn_block_start(first), n << WN_BLOCK_SHIFT);
    wn_mesh_renew(space, first, n);
    WN_FORBID(wn_block_start(first), n << WN_BLOCK_SHIFT);
}

/* Under the lock. */
static void discard(wn_space *space, size_t blocks) {
    size_t n;
    for (wn_block *b; blocks && (b = take_dirty(space, blocks, &n)); blocks -= n) renew_free(space, b, n);
}

/* Without the lock while the system takes the pages: meanwhile nobody can have the blocks. They would be lost to a
 * child that is forked then; but whoever calls this runs, and a fork waits until all stand still. */
size_t wn_space_discard(wn_space *space, size_t blocks) {
    enum { TOGETHER = 64 };
    size_t done = 0;
    wn_mesh_give_back(space);
    while (done < blocks) {
        size_t n;
        wn_os_lock_brief(&space->lock);
        wn_block *b = take_dirty(space, blocks - done < TOGETHER ? blocks - done : (size_t)TOGETHER, &n);
        if (b) mark_free(b, n, false);
        pthread_mutex_unlock(&space->lock);
        if (!b) break;
        renew_free(space, b, n);
        wn_os_lock_brief(&space->lock);
        mark_free(b, n, true);
        pthread_mutex_unlock(&space->lock);
        done += n;
    }
    return done << WN_BLOCK_SHIFT;
}

/* Keeps the free memory that is not given back below a quarter of what is in use and 2 MiB, or what the collector
 * expects to be in use again before it looks the next time. Called with the lock when blocks were freed; gives back a
 * little at a time, so that no single free pays for many. */
static void discard_surplus(wn_space *space) {
    if (space->keeps_dirty) return;
    size_t used = space->block_bytes >> WN_BLOCK_SHIFT, keep = 64 + used / 4, soon = space->expected >> WN_BLOCK_SHIFT;
    if (soon > used + keep) keep = soon - used;
    if (space->dirty_blocks > keep + 16) discard(space, 16);
}

wn_block *wn_space_take_blocks(wn_space *space, size_t n) {
    wn_os_lock_brief(&space->lock);
    wn_block *b = take_run(space, n);
    dirty_run dirty = {0, 0};
    if (b) {
        dirty = claim_dirty(space, b, n);
        for (size_t i = 0; i < n; i++) b[i].state = WN_BLOCK_OTHER;
    }
    pthread_mutex_unlock(&space->lock);
    if (b) clean_run(space, b, n, dirty);
    return b;
}

void wn_space_give_blocks(wn_space *space, wn_block *first, size_t n) {
    wn_os_lock_brief(&space->lock);
    give_run(space, first, n);
    discard_surplus(space);
    pthread_mutex_unlock(&space->lock);
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static void count_slots(wn_space *space, size_t objects, size_t bytes) {
    __atomic_fetch_add(&space->allocated_objects, objects, __ATOMIC_RELAXED);
    __atomic_fetch_add(&space->allocated_bytes, bytes, __ATOMIC_RELAXED);
    size_t now = __atomic_add_fetch(&space->live_bytes, bytes, __ATOMIC_RELAXED);
    size_t most = __atomic_load_n(&space->live_bytes_max, __ATOMIC_RELAXED);
    while (now > most &&
           !__atomic_compare_exchange_n(&space->live_bytes_max, &most, now, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

size_t wn_space_bookkeeping(const wn_space *space) {
    size_t blocks = space->block_bytes >> WN_BLOCK_SHIFT;
    return blocks * (WN_BLOCK_GRANULES + 2 * WN_BLOCK_GRANULES / 8 + sizeof(wn_block));
}

/* ---- blocks with room -------------------------------------------------------------------------------------------- */

static wn_block **list_of(wn_space *space, const wn_block *b) {
    return b->frame && !b->parted ? &space->laid[b->kind][b->cls] : &space->room[b->kind][b->cls];
}

void wn_space_list_block(wn_space *space, wn_block *b) {
    if (b->listed || b->owned || b->inherited || b->frozen) return;
    wn_block **head = list_of(space, b);
    b->prev = NULL;
    b->next = *head;
    if (*head) (*head)->prev = b;
    __atomic_store_n(head, b, __ATOMIC_RELAXED);
    b->listed = 1;
}

bool wn_space_unlist_block(wn_space *space, wn_block *b) {
    if (!b->listed) return false;
    if (b->prev)
        b->prev->next = b->next;
    else
        __atomic_store_n(list_of(space, b), b->next, __ATOMIC_RELAXED);
    if (b->next) b->next->prev = b->prev;
    b->next = b->prev = NULL;
    b->listed = 0;
    return true;
}

/* Puts a block that nobody owns where it belongs: back to the chunk when empty, on the list when an eighth of it is
 * free; a fuller one is not worth a visit yet. Under the lock. */
static void settle_block(wn_space *space, wn_block *b) {
    if (b->owned) return;
    uint32_t used = __atomic_load_n(&b->used, __ATOMIC_RELAXED);
    if (used == 0) {
        wn_space_unlist_block(space, b);
        give_run(space, b, 1);
        discard_surplus(space);
    } else if (wn_space_is_swept(space, b) && b->slots - used > b->slots / 8) {
        wn_space_list_block(space, b);
    }
}

/* ---- runs of free slots ------------------------------------------------------------------------------------------ */

/* Sets or clears the alloc bits of `n` slots from number `first`. Release: what is set has been zeroed before. */
static void change_bits(wn_block *b, uint32_t first, uint32_t n, bool set) {
    uint64_t *words = wn_alloc_words(b);
    size_t step = b->slot >> WN_GRANULE_SHIFT_, g = first * step;
    while (n) {
        size_t word = g >> 6;
        uint64_t mask = 0;
        for (; n && (g >> 6) == word; n--, g += step) mask |= (uint64_t)1 << (g & 63);
        if (set)
            __atomic_fetch_or(&words[word], mask, __ATOMIC_RELEASE);
        else
            __atomic_fetch_and(&words[word], ~mask, __ATOMIC_RELAXED);
    }
}

/* The next run of free slots of an owned block at or after its cursor; its length in slots, 0 at the end. */
static uint32_t next_run(wn_block *b, uint32_t *first) {
    const uint64_t *words = wn_alloc_words(b);
    size_t step = b->slot >> WN_GRANULE_SHIFT_;
    uint32_t i = b->cursor;
    /* Acquire: a slot that is free here is one whose last owner, perhaps another thread, is done with it
     * (wn_space_free). */
    while (i < b->slots && (__atomic_load_n(&words[i * step >> 6], __ATOMIC_ACQUIRE) >> (i * step & 63)) & 1) i++;
    *first = i;
    while (i < b->slots && !((__atomic_load_n(&words[i * step >> 6], __ATOMIC_ACQUIRE) >> (i * step & 63)) & 1)) i++;
    b->cursor = i;
    return i - *first;
}

bool wn_space_refill(wn_space *space, wn_block **current, unsigned cls, unsigned kind, wn_buffer_ *buffer) {
    wn_block *b = *current;
    for (;;) {
        if (b) {
            uint32_t first, n = next_run(b, &first);
            if (n) {
                buffer->cursor = wn_block_start(b) + (size_t)first * b->slot;
                buffer->limit = buffer->cursor + (size_t)n * b->slot;
                WN_ALLOW(buffer->cursor, (size_t)n * b->slot);
                memset(buffer->cursor, 0, (size_t)n * b->slot);
                change_bits(b, first, n, true);
                __atomic_fetch_add(&b->used, n, __ATOMIC_RELAXED);
                count_slots(space, n, (size_t)n * b->slot);
                return true;
            }
        }
        wn_os_lock_brief(&space->lock);
        if (b) {
            b->owned = 0;
            settle_block(space, b);
        }
        b = space->room[kind][cls];
        if (!b && space->starved) {
            *current = NULL;
            pthread_mutex_unlock(&space->lock);
            space->starved(space, kind, cls);
            wn_os_lock_brief(&space->lock);
            b = space->room[kind][cls];
        }
        if (!b) b = space->laid[kind][cls];
        bool fresh = !b;
        dirty_run dirty = {0, 0};
        if (b) {
            wn_space_unlist_block(space, b);
            wn_mesh_part(space, b);
        } else {
            b = take_run(space, 1);
            if (!b) {
                pthread_mutex_unlock(&space->lock);
                *current = NULL;
                return false;
            }
            dirty = claim_dirty(space, b, 1);
            b->state = WN_BLOCK_SMALL;
            b->cls = (uint8_t)cls;
            b->kind = (uint8_t)kind;
            b->slot = slot_of_class[cls];
            b->slots = WN_BLOCK_SIZE / b->slot;
            b->inverse = (uint32_t)(((uint64_t)1 << 32) / b->slot + 1);
        }
        b->owned = 1;
        b->cursor = 0;
        pthread_mutex_unlock(&space->lock);
        *current = b;
        if (fresh) {
            /* Whole and zero: nothing to search and nothing to clear. Counted first: after the clearing an atomic
             * addition waits until what was cleared has left for the cache. */
            count_slots(space, b->slots, (size_t)b->slots * b->slot);
            clean_run(space, b, 1, dirty);
            if (!dirty.n) wn_os_populate(wn_block_start(b), WN_BLOCK_SIZE);
            uint64_t *words = wn_alloc_words(b);
            for (size_t i = 0; i < WN_BLOCK_WORDS; i++)
                __atomic_store_n(&words[i], slot_starts[cls][i], __ATOMIC_RELEASE);
            __atomic_store_n(&b->used, b->slots, __ATOMIC_RELAXED);
            b->cursor = b->slots;
            buffer->cursor = wn_block_start(b);
            buffer->limit = buffer->cursor + (size_t)b->slots * b->slot;
            return true;
        }
    }
}

void wn_space_retire(wn_space *space, unsigned cls, wn_buffer_ *buffer) {
    if (buffer->cursor == buffer->limit) {
        buffer->cursor = buffer->limit = NULL;
        return;
    }
    wn_block *b = wn_block_of(buffer->cursor);
    uint32_t slot = slot_of_class[cls], n = (uint32_t)((size_t)(buffer->limit - buffer->cursor) / slot);
    uint32_t first = wn_slot_number(b, (uint32_t)(buffer->cursor - wn_block_start(b)));
    change_bits(b, first, n, false);
    __atomic_fetch_sub(&b->used, n, __ATOMIC_RELAXED);
    if (first < b->cursor) b->cursor = first;
    count_slots(space, (size_t)0 - n, (size_t)0 - (size_t)n * slot);
    buffer->cursor = buffer->limit = NULL;
}

void wn_space_disown(wn_space *space, wn_block **current) {
    if (!*current) return;
    wn_os_lock_brief(&space->lock);
    (*current)->owned = 0;
    settle_block(space, *current);
    pthread_mutex_unlock(&space->lock);
    *current = NULL;
}

void wn_space_free(wn_space *space, void *const *slots, size_t n) {
    wn_os_lock_brief(&space->lock);
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        void *p = slots[i];
        wn_block *b = wn_block_of(p);
        uint8_t *meta = wn_meta_(p);
        meta[0] = meta[1] = 0;
        uint64_t bit, *word = wn_bit_of(p, WN_ALLOC_TABLE, &bit);
        __atomic_fetch_and(word, ~bit, __ATOMIC_RELEASE); /* the block's owner may take the slot from here on */
        bytes += b->slot;
        __atomic_fetch_sub(&b->used, 1, __ATOMIC_RELAXED);
        settle_block(space, b);
    }
    __atomic_fetch_sub(&space->live_bytes, bytes, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&space->lock);
}

/* ---- large objects ----------------------------------------------------------------------------------------------- */

static size_t page_round(size_t bytes) {
    size_t page = wn_os_page_size();
    return (bytes + page - 1) & ~(page - 1);
}

static wn_block *take_huge(wn_space *space, size_t bytes) {
    size_t rounded = page_round(bytes);
    if (rounded < bytes || rounded > (size_t)1 << 46 || !within_limit(space, rounded)) return NULL;
    wn_chunk *c = new_chunk(space, WN_CHUNK_HEADER + rounded, true);
    if (!c) return NULL;
    count_blocks(space, rounded);
    __atomic_store_n(&c->block[WN_FIRST_BLOCK].era, space->era, __ATOMIC_RELEASE);
    return &c->block[WN_FIRST_BLOCK];
}

void *wn_space_large(wn_space *space, size_t bytes) {
    size_t blocks = (bytes + WN_BLOCK_SIZE - 1) >> WN_BLOCK_SHIFT;
    bool huge = bytes >= WN_HUGE_MIN;
    wn_os_lock_brief(&space->lock);
    wn_block *b = huge ? take_huge(space, bytes) : take_run(space, blocks);
    dirty_run dirty = {0, 0};
    if (b) {
        if (!huge) {
            dirty = claim_dirty(space, b, blocks);
            for (size_t i = 1; i < blocks; i++) b[i].state = WN_BLOCK_TAIL;
        }
        b->blocks = huge ? 1 : (uint32_t)blocks;
        b->bytes = bytes;
        b->slots = 1;
        b->used = 1;
        b->state = WN_BLOCK_LARGE;
        space->large_bytes += page_round(bytes);
    }
    pthread_mutex_unlock(&space->lock);
    if (!b) return NULL;
    if (!huge) clean_run(space, b, blocks, dirty);
    char *p = wn_block_start(b);
    uint64_t bit, *word = wn_bit_of(p, WN_ALLOC_TABLE, &bit);
    __atomic_fetch_or(word, bit, __ATOMIC_RELEASE);
    count_slots(space, 1, page_round(bytes));
    return p;
}

/* Under the lock. The chunk of a huge object is taken out of the space and returned: unmapping it takes long. */
static wn_chunk *free_large(wn_space *space, wn_block *b) {
    char *p = wn_block_start(b);
    wn_chunk *c = wn_chunk_of(p);
    uint8_t *meta = wn_meta_(p);
    meta[0] = meta[1] = 0;
    uint64_t bit, *word = wn_bit_of(p, WN_ALLOC_TABLE, &bit);
    __atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
    size_t bytes = page_round(b->bytes);
    space->large_bytes -= bytes;
    __atomic_fetch_sub(&space->live_bytes, bytes, __ATOMIC_RELAXED);
    if (!c->huge) {
        give_run(space, b, b->blocks);
        discard_surplus(space);
        return NULL;
    }
    __atomic_fetch_sub(&space->block_bytes, bytes, __ATOMIC_RELAXED);
    space->returned_bytes += bytes;
    wn_chunk **at = &space->chunks;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    forget(space, c);
    return c;
}

static void release_huge(wn_chunk *c) {
    if (c) wn_os_release(c, c->size);
}

void wn_space_free_large_later(wn_space *space, void *object) {
    wn_os_lock_brief(&space->lock);
    wn_chunk *huge = free_large(space, wn_block_of(object));
    if (huge) {
        huge->next = space->leaving;
        space->leaving = huge;
    }
    pthread_mutex_unlock(&space->lock);
}

/* From the end of the chunk to its beginning, where the chunk's own record is. */
bool wn_space_let_go(wn_space *space, size_t bytes) {
    wn_os_lock_brief(&space->lock);
    wn_chunk *c = space->leaving;
    size_t left = c ? c->size - WN_CHUNK_HEADER : 0, page = wn_os_page_size();
    size_t part = c && bytes < left ? (bytes + page - 1) & ~(page - 1) : left;
    if (c && part < left)
        c->size -= part;
    else if (c)
        space->leaving = c->next;
    pthread_mutex_unlock(&space->lock);
    if (!c) return false;
    if (part < left)
        wn_os_release((char *)c + c->size, part);
    else
        wn_os_release(c, c->size);
    return true;
}

void wn_space_free_large(wn_space *space, void *object) {
    wn_os_lock_brief(&space->lock);
    wn_chunk *huge = free_large(space, wn_block_of(object));
    pthread_mutex_unlock(&space->lock);
    release_huge(huge);
}

/* ---- sweeping ---------------------------------------------------------------------------------------------------- */

/* The slot of the lowest bit of `bits`, which are some of a block's word number i. */
static void *at_bit(const wn_block *b, unsigned i, uint64_t bits) {
    return wn_block_start(b) + (((size_t)i * 64 + (size_t)__builtin_ctzll(bits)) << WN_GRANULE_SHIFT_);
}

/* Makes the dead slots of one word of a block free; in a large object's block only its side bytes. */
static size_t sweep_word(wn_block *b, unsigned i, bool quietly, void (*dead)(void *object, void *data), void *data) {
    uint64_t *alloc = wn_alloc_words(b) + i;
    uint64_t a = __atomic_load_n(alloc, __ATOMIC_RELAXED);
    uint64_t gone = a & ~__atomic_load_n(wn_mark_words(b) + i, __ATOMIC_RELAXED);
    if (!gone) return 0;
    if (!quietly && !dead && gone == a) { /* as where a structure dies whole: all bytes at once, those between are 0 */
        int first = __builtin_ctzll(gone), last = 63 - __builtin_clzll(gone);
        memset(wn_meta_(at_bit(b, i, gone)), 0, (size_t)(last - first) + 2);
        quietly = true;
    }
    for (uint64_t w = quietly ? 0 : gone; w; w &= w - 1) {
        void *p = at_bit(b, i, w);
        if (dead) dead(p, data);
        uint8_t *meta = wn_meta_(p);
        if (meta[0] | meta[1]) meta[0] = meta[1] = 0;
    }
    if (b->state != WN_BLOCK_SMALL) return (size_t)__builtin_popcountll(gone);
    for (uint64_t w = WN_FORBIDS ? gone : 0; w; w &= w - 1) WN_FORBID(at_bit(b, i, w), b->slot);
    __atomic_store_n(alloc, a & ~gone, __ATOMIC_RELAXED);
    return (size_t)__builtin_popcountll(gone);
}

static size_t sweep_words(wn_block *b, bool quietly, void (*dead)(void *object, void *data), void *data) {
    size_t freed = 0;
    unsigned words = b->state == WN_BLOCK_LARGE ? 1 : WN_BLOCK_WORDS;
    for (unsigned i = 0; i < words; i++) freed += sweep_word(b, i, quietly, dead, data);
    return freed;
}

/* Under the lock. A huge object's chunk is returned: to be released when the lock is not held any more. */
static wn_chunk *swept(wn_space *space, wn_block *b, size_t freed) {
    __atomic_store_n(&b->era, space->era, __ATOMIC_RELEASE);
    if (b->state == WN_BLOCK_LARGE) return freed ? free_large(space, b) : NULL;
    __atomic_fetch_sub(&space->live_bytes, freed * b->slot, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&b->used, (uint32_t)freed, __ATOMIC_RELAXED);
    if (!space->quarantines || !freed) settle_block(space, b);
    return NULL;
}

size_t wn_space_sweep(wn_space *space, wn_block *b, void (*dead)(void *object, void *data), void *data) {
    size_t freed = sweep_words(b, false, dead, data);
    if (!freed) return 0;
    wn_os_lock_brief(&space->lock);
    wn_chunk *huge = swept(space, b, freed);
    pthread_mutex_unlock(&space->lock);
    release_huge(huge);
    return freed;
}

/* Whether a block of which nothing was freed stays as it is: off the lists, because it has no room worth a visit. */
static bool stays(const wn_block *b, size_t freed) {
    return !freed &&
           (b->state == WN_BLOCK_LARGE || b->slots - __atomic_load_n(&b->used, __ATOMIC_RELAXED) <= b->slots / 8);
}

/* At most as many as there are bits in a word are settled under the lock at a time. */
static wn_swept sweep_quietly(wn_space *space, void *const *blocks, size_t n, void (*dead)(void *object, void *data),
                              void *data) {
    wn_swept all = {0, 0};
    wn_chunk *huge = NULL;
    uint32_t freed[WN_SWEEP_TOGETHER];
    uint64_t change = 0;
    for (size_t i = 0; i < n; i++) {
        wn_block *b = blocks[i];
        freed[i] = (uint32_t)sweep_words(b, !__atomic_load_n(&b->noted, __ATOMIC_RELAXED), dead, data);
        all.objects += freed[i];
        all.bytes += freed[i] * (b->slot ? b->slot : b->bytes);
        if (stays(b, freed[i]))
            __atomic_store_n(&b->era, __atomic_load_n(&space->era, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
        else
            change |= (uint64_t)1 << i;
    }
    if (!change) return all;
    wn_os_lock_brief(&space->lock);
    for (; change; change &= change - 1) {
        unsigned i = (unsigned)__builtin_ctzll(change);
        wn_chunk *c = swept(space, blocks[i], freed[i]);
        if (!c) continue;
        c->next = huge;
        huge = c;
    }
    pthread_mutex_unlock(&space->lock);
    for (wn_chunk *next; huge; huge = next) {
        next = huge->next;
        release_huge(huge);
    }
    return all;
}

wn_swept wn_space_sweep_quietly(wn_space *space, void *const *blocks, size_t n, void (*dead)(void *object, void *data),
                                void *data) {
    wn_swept all = {0, 0};
    for (size_t i = 0; i < n; i += WN_SWEEP_TOGETHER) {
        size_t some = n - i < WN_SWEEP_TOGETHER ? n - i : (size_t)WN_SWEEP_TOGETHER;
        wn_swept part = sweep_quietly(space, blocks + i, some, dead, data);
        all.objects += part.objects;
        all.bytes += part.bytes;
    }
    return all;
}

bool wn_space_ready_marks(wn_space *space) {
    enum { AT_ONCE = (64 << 10) / (WN_BLOCK_GRANULES / 8) }; /* blocks */
    wn_os_lock_brief(&space->lock);
    wn_chunk *c = space->chunks;
    while (c && (c->huge || c->readied == c->committed)) c = c->next;
    uint32_t first = c ? c->readied : 0, n = c ? c->committed - first : 0;
    if (n > AT_ONCE) n = AT_ONCE;
    if (c) c->readied += n;
    pthread_mutex_unlock(&space->lock);
    if (!c) return false;
    uintptr_t page = wn_os_page_size(), from = (uintptr_t)wn_mark_words(&c->block[first]) & ~(page - 1);
    wn_os_populate((void *)from, (uintptr_t)(wn_mark_words(&c->block[first]) + n * WN_BLOCK_WORDS) - from);
    return true;
}

void wn_space_new_era(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    __atomic_store_n(&space->era, space->era + 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&space->lock);
}

/* At most n of a list; returns how many more there may be. */
static size_t unlist_old(wn_space *space, wn_block *b, size_t n) {
    for (wn_block *next; b && n; b = next) {
        next = b->next;
        if (!wn_space_is_swept(space, b) && wn_space_unlist_block(space, b)) n--;
    }
    return n;
}

bool wn_space_unlist(wn_space *space, size_t n) {
    wn_os_lock_brief(&space->lock);
    for (unsigned k = 0; k < WN_KINDS; k++)
        for (unsigned c = 0; c < WN_CLASSES_; c++)
            n = unlist_old(space, space->laid[k][c], unlist_old(space, space->room[k][c], n));
    pthread_mutex_unlock(&space->lock);
    return n == 0;
}

bool wn_space_list_last(wn_space *space, unsigned kind, unsigned cls) {
    wn_os_lock_brief(&space->lock);
    for (wn_chunk *c = space->chunks; c; c = c->next)
        for (unsigned i = WN_FIRST_BLOCK; !c->huge && i < c->committed; i++) {
            wn_block *b = &c->block[i];
            if (b->state == WN_BLOCK_SMALL && b->kind == kind && b->cls == cls &&
                __atomic_load_n(&b->used, __ATOMIC_RELAXED) < b->slots && /* its owner may take slots meanwhile */
                wn_space_is_swept(space, b))
                wn_space_list_block(space, b);
        }
    bool any = space->room[kind][cls] || space->laid[kind][cls];
    pthread_mutex_unlock(&space->lock);
    return any;
}

void wn_space_unlist_frozen(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    for (wn_chunk *c = space->chunks; c; c = c->next)
        for (unsigned i = WN_FIRST_BLOCK; !c->huge && i < c->committed; i++)
            if (c->block[i].frozen) wn_space_unlist_block(space, &c->block[i]);
    pthread_mutex_unlock(&space->lock);
}

void wn_space_relist(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    for (wn_chunk *c = space->chunks; c; c = c->next)
        for (unsigned i = WN_FIRST_BLOCK; i < (c->huge ? WN_FIRST_BLOCK + 1u : c->committed); i++) {
            wn_block *b = &c->block[i];
            __atomic_store_n(&b->era, space->era, __ATOMIC_RELEASE);
            if (b->state == WN_BLOCK_SMALL) settle_block(space, b);
        }
    pthread_mutex_unlock(&space->lock);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

void wn_space_inherit(wn_space *space) {
    for (wn_chunk *c = space->chunks; c; c = c->next)
        for (unsigned i = WN_FIRST_BLOCK; i < c->end && !c->huge; i++) {
            wn_block *b = &c->block[i];
            if (b->state != WN_BLOCK_SMALL) continue;
            wn_space_unlist_block(space, b);
            b->inherited = 1;
        }
    wn_mesh_forget(space);
}
