/* mesh.c - choosing sparse blocks that fit together, and laying them on one frame. */
#include "heap/mesh.h"

#include <stdlib.h>
#include <string.h>

enum {
    SPARSE = 4,            /* a block is worth laying when at most one slot in so many is live */
    TOGETHER = 64,         /* blocks laid on a frame in one go, at most */
    PATIENCE = 128,        /* blocks in a row that do not fit, after which a frame counts as full */
    DEAD = 256,            /* frames that only forks keep: from then on a new file may be worth its while */
    LOOK = 32,             /* blocks looked at under the space's lock at a time */
    MOST = 1 << 20,        /* frames, at most, whatever the system grants: a fork looks through their counts */
    LEAVING = ~0u / 2 - 1, /* wn_mesh.blocks of a frame that no block is on and that is not yet given back */
    GOING                  /* the same while somebody gives it back */
};

/* A block that may be laid, and what it is sorted by: its group, then how many of its slots are live. */
typedef struct candidate {
    wn_block *block; /* NULL: taken */
    uint32_t key;
} candidate;

/* Kind and class: blocks of one group have their slots at the same offsets. */
static uint32_t group_of(const wn_block *b) { return (uint32_t)b->kind << 15 | b->cls; }

typedef struct wn_mesh {
    wn_os_file file;
    bool opened;       /* there is a file */
    bool off;          /* there can be none, or it was taken away: nothing is laid any more */
    uint32_t most;     /* frames in the file, candidates of a plan, and blocks that may be viewing */
    uint32_t viewing;  /* blocks that are; atomic */
    uint32_t shared;   /* blocks on frames, but those that were parted from them */
    uint32_t frames;   /* in use: some block is on them, or they are sealed */
    uint32_t leaving;  /* in use, but to be given back */
    uint32_t going;    /* in use, but being given back: not while the world stands still */
    uint32_t unsealed; /* the first that may be changed */
    uint32_t dead;     /* of the sealed ones: no block is on them */
    uint32_t *blocks;  /* how many are on each frame */

    /* the plan: of the one thread that lays */
    candidate *sparse;
    size_t count, next, enough;
    wn_block *chosen[TOGETHER];
    unsigned number; /* of the plan */
    unsigned chosen_count, laid;
    uint32_t group;                 /* of those */
    uint32_t frame;                 /* that they are laid on */
    char *window;                   /* its memory; NULL: nothing is chosen */
    uint64_t taken[WN_BLOCK_WORDS]; /* its slots that are live in one of its blocks */
} wn_mesh;

size_t wn_mesh_resident(const wn_space *space) {
    const wn_mesh *mesh = space->mesh;
    size_t bytes = __atomic_load_n(&space->block_bytes, __ATOMIC_RELAXED);
    return mesh ? bytes + ((size_t)mesh->frames << WN_BLOCK_SHIFT) - ((size_t)mesh->shared << WN_BLOCK_SHIFT) : bytes;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void drop(wn_mesh *mesh) {
    if (mesh->blocks) wn_os_release(mesh->blocks, mesh->most * sizeof *mesh->blocks);
    if (mesh->sparse) wn_os_release(mesh->sparse, mesh->most * sizeof *mesh->sparse);
    free(mesh);
}

static wn_mesh *make(void) {
    /* Each view may split a mapping in two, and the program has mappings of its own. */
    size_t most = wn_os_mappings() / 8 * 3;
    if (most > MOST) most = MOST;
    /* A view begins and ends where a page does. */
    if (WN_BLOCK_SIZE % wn_os_page_size()) most = 0;
    wn_mesh *mesh = most ? calloc(1, sizeof *mesh) : NULL;
    if (!mesh) return NULL;
    mesh->most = (uint32_t)most;
    mesh->blocks = wn_os_map(most * sizeof *mesh->blocks);
    mesh->sparse = wn_os_map(most * sizeof *mesh->sparse);
    if (mesh->blocks && mesh->sparse) return mesh;
    drop(mesh);
    return NULL;
}

/* False: there is no file to be had, or it was taken away. */
static bool open_file(wn_space *space) {
    if (!space->mesh) {
        wn_mesh *mesh = make();
        wn_os_lock_brief(&space->lock);
        space->mesh = mesh;
        pthread_mutex_unlock(&space->lock);
        if (!mesh) return false;
    }
    wn_mesh *mesh = space->mesh;
    if (!mesh->opened && !mesh->off) {
        mesh->opened = wn_os_file_open(&mesh->file, (size_t)mesh->most << WN_BLOCK_SHIFT);
        mesh->off = !mesh->opened;
    } else if (mesh->opened && !wn_os_file_is_open(&mesh->file)) {
        mesh->off = true;
    }
    return !mesh->off;
}

static void close_file(wn_mesh *mesh) {
    if (mesh->opened) wn_os_file_close(&mesh->file);
    mesh->opened = false;
}

/* No block is chosen; their window, if it is open, stays so. */
static void unchoose(wn_mesh *mesh) { mesh->chosen_count = mesh->laid = 0; }

/* Nothing is left to choose from either. */
static void end_plan(wn_mesh *mesh) {
    unchoose(mesh);
    mesh->count = mesh->next = 0;
}

/* Drops a plan as it is. The frame that was chosen stays as full as it is: after a fork it is the parent's. */
static void abandon_plan(wn_mesh *mesh) {
    if (mesh->window) wn_os_release(mesh->window, WN_BLOCK_SIZE);
    mesh->window = NULL;
    end_plan(mesh);
    mesh->number++;
}

void wn_mesh_fini(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    if (!mesh) return;
    abandon_plan(mesh);
    close_file(mesh);
    drop(mesh);
    space->mesh = NULL;
}

/* All blocks have left, whatever they view. */
static void forget_frames(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    for (wn_chunk *c = space->chunks; c; c = c->next)
        for (unsigned i = WN_FIRST_BLOCK; !c->huge && i < c->committed; i++) {
            wn_block *b = &c->block[i];
            if (!b->frame) continue;
            bool listed = wn_space_unlist_block(space, b);
            b->frame = b->parted = 0;
            if (listed) wn_space_list_block(space, b);
        }
    wn_os_discard(mesh->blocks, mesh->most * sizeof *mesh->blocks);
    mesh->shared = mesh->frames = mesh->leaving = mesh->unsealed = mesh->dead = 0;
    close_file(mesh);
}

void wn_mesh_forget(wn_space *space) {
    if (!space->mesh) return;
    abandon_plan(space->mesh);
    forget_frames(space);
}

void wn_mesh_seal(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    if (!mesh) return;
    abandon_plan(mesh);
    for (uint32_t f = mesh->most; f > mesh->unsealed; f--)
        if (mesh->blocks[f - 1]) {
            mesh->unsealed = f;
            break;
        }
    mesh->dead += mesh->leaving;
    mesh->leaving = 0;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

void wn_mesh_leave(wn_space *space, wn_block *b) {
    if (!b->frame) return;
    wn_mesh *mesh = space->mesh;
    uint32_t f = b->frame - 1;
    if (!b->parted) mesh->shared--;
    b->frame = 0;
    b->parted = 0;
    if (--mesh->blocks[f]) return;
    if (f < mesh->unsealed) {
        mesh->dead++;
        return;
    }
    mesh->blocks[f] = LEAVING;
    mesh->leaving++;
}

void wn_mesh_part(wn_space *space, wn_block *b) {
    if (!b->frame || b->parted) return;
    bool listed = wn_space_unlist_block(space, b);
    b->parted = 1;
    space->mesh->shared--;
    if (listed) wn_space_list_block(space, b);
}

void wn_mesh_give_back(wn_space *space) {
    wn_os_lock_brief(&space->lock);
    wn_mesh *mesh = space->mesh;
    for (uint32_t f = mesh ? mesh->unsealed : 0; mesh && mesh->leaving && f < mesh->most; f++) {
        if (mesh->blocks[f] != LEAVING) continue;
        mesh->blocks[f] = GOING;
        mesh->leaving--;
        mesh->going++;
        pthread_mutex_unlock(&space->lock);
        wn_os_file_discard(&mesh->file, (size_t)f << WN_BLOCK_SHIFT, WN_BLOCK_SIZE);
        wn_os_lock_brief(&space->lock);
        mesh->blocks[f] = 0;
        mesh->going--;
        mesh->frames--;
    }
    pthread_mutex_unlock(&space->lock);
}

void wn_mesh_renew(wn_space *space, wn_block *first, size_t n) {
    for (size_t i = 0, run; i < n; i += run) {
        bool viewing = first[i].viewing;
        for (run = 1; i + run < n && first[i + run].viewing == viewing; run++) {
        }
        char *start = wn_block_start(&first[i]);
        if (!viewing) {
            wn_os_discard(start, run << WN_BLOCK_SHIFT);
        } else if (wn_os_file_unview(start, run << WN_BLOCK_SHIFT)) {
            /* As its neighbours are, or the kernel would keep it apart from them. */
            if (space->large_pages) wn_os_prefer_large_pages(start, run << WN_BLOCK_SHIFT);
            for (size_t j = i; j < i + run; j++) first[j].viewing = 0;
            __atomic_fetch_sub(&space->mesh->viewing, (uint32_t)run, __ATOMIC_RELAXED);
        } else {
            memset(start, 0, run << WN_BLOCK_SHIFT);
        }
    }
}

/* ---- planning ---------------------------------------------------------------------------------------------------- */

/* Under the lock. One that is alone on its frame would leave that empty. */
static bool is_sparse(const wn_space *space, const wn_block *b) {
    uint32_t used = __atomic_load_n(&b->used, __ATOMIC_RELAXED), f = b->frame;
    return b->state == WN_BLOCK_SMALL && !b->owned && !b->inherited && !b->frozen &&
           !__atomic_load_n(&b->pinned, __ATOMIC_RELAXED) && used && used <= b->slots / SPARSE &&
           wn_space_is_swept(space, b) &&
           (!f || b->parted || (space->mesh->blocks[f - 1] == 1 && f > space->mesh->unsealed));
}

/* The chunk of blocks after `last`, the first after NULL. Those of huge objects may go at any time, so that none is
 * remembered. Under the lock. */
static wn_chunk *chunk_after(const wn_space *space, const wn_chunk *last) {
    wn_chunk *c = space->chunks;
    while (c && (c->huge || c <= last)) c = c->next;
    return c;
}

/* What the program has written to since it was laid has memory of its own again: such blocks count as parted. */
static void note_written(wn_space *space, wn_block *first, unsigned n) {
    size_t half = WN_BLOCK_SIZE / wn_os_page_size() / 2;
    uint16_t written[LOOK];
    if (!wn_os_file_written(wn_block_start(first), WN_BLOCK_SIZE, n, written)) return;
    wn_os_lock_brief(&space->lock);
    for (unsigned i = 0; i < n; i++)
        if (written[i] && written[i] >= half) wn_mesh_part(space, &first[i]);
    pthread_mutex_unlock(&space->lock);
}

static void find_sparse(wn_space *space, wn_block *first, unsigned n) {
    wn_mesh *mesh = space->mesh;
    wn_os_lock_brief(&space->lock);
    for (wn_block *b = first; b < first + n && mesh->count < mesh->most; b++) {
        if (!is_sparse(space, b)) continue;
        uint32_t used = __atomic_load_n(&b->used, __ATOMIC_RELAXED);
        mesh->sparse[mesh->count++] = (candidate){b, group_of(b) << 16 | used};
    }
    pthread_mutex_unlock(&space->lock);
}

static int by_key(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

/* By forks. The memory of a file goes back when nobody views it any more, here and there. */
static bool is_used_up(const wn_mesh *mesh) {
    return mesh->unsealed > mesh->most / 2 || (mesh->dead > DEAD && mesh->dead > mesh->frames / 2);
}

bool wn_mesh_plan(wn_space *space, size_t enough, bool (*go_on)(void *data), void *data) {
    wn_mesh_drop_plan(space);
    wn_mesh_give_back(space);
    if (!space->meshes || (!space->mesh && __atomic_load_n(&space->block_bytes, __ATOMIC_RELAXED) <= enough))
        return false;
    wn_os_lock_brief(&space->lock);
    if (space->mesh && is_used_up(space->mesh) && !space->mesh->going) forget_frames(space);
    pthread_mutex_unlock(&space->lock);
    if (!open_file(space)) return false;
    wn_mesh *mesh = space->mesh;
    unsigned number = mesh->number;
    wn_os_lock_brief(&space->lock);
    bool written = mesh->shared;
    pthread_mutex_unlock(&space->lock);
    for (wn_chunk *c = NULL;;) {
        wn_os_lock_brief(&space->lock);
        c = chunk_after(space, c);
        unsigned end = c ? c->committed : 0;
        pthread_mutex_unlock(&space->lock);
        if (!c) break;
        for (unsigned i = WN_FIRST_BLOCK; i < end; i += LOOK) {
            unsigned n = end - i < LOOK ? end - i : (unsigned)LOOK;
            if (written) note_written(space, &c->block[i], n);
            find_sparse(space, &c->block[i], n);
            bool on = !go_on || go_on(data);
            if (mesh->number != number) return false; /* what there is now is somebody else's */
            if (on) continue;
            wn_mesh_drop_plan(space);
            return false;
        }
    }
    wn_os_lock_brief(&space->lock);
    bool pays = wn_mesh_resident(space) > enough;
    pthread_mutex_unlock(&space->lock);
    if (!pays) mesh->count = 0;
    mesh->enough = enough;
    qsort(mesh->sparse, mesh->count, sizeof *mesh->sparse, by_key);
    return mesh->count > 1;
}

static void close_window(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    if (!mesh->window) return;
    wn_os_release(mesh->window, WN_BLOCK_SIZE);
    wn_os_lock_brief(&space->lock);
    bool empty = !mesh->blocks[mesh->frame];
    pthread_mutex_unlock(&space->lock);
    if (empty) wn_os_file_discard(&mesh->file, (size_t)mesh->frame << WN_BLOCK_SHIFT, WN_BLOCK_SIZE);
    mesh->window = NULL;
    unchoose(mesh);
}

void wn_mesh_drop_plan(wn_space *space) {
    if (!space->mesh) return;
    close_window(space);
    abandon_plan(space->mesh);
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static bool fits(const wn_mesh *mesh, const wn_block *b) {
    const uint64_t *alloc = wn_alloc_words(b);
    for (unsigned i = 0; i < WN_BLOCK_WORDS; i++)
        if (__atomic_load_n(&alloc[i], __ATOMIC_RELAXED) & mesh->taken[i]) return false;
    return true;
}

static void take(wn_mesh *mesh, const wn_block *b) {
    const uint64_t *alloc = wn_alloc_words(b);
    for (unsigned i = 0; i < WN_BLOCK_WORDS; i++) mesh->taken[i] |= __atomic_load_n(&alloc[i], __ATOMIC_RELAXED);
}

/* The first candidate that is left and what fits beside it. */
static void choose_some(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    memset(mesh->taken, 0, sizeof mesh->taken);
    unchoose(mesh);
    while (mesh->next < mesh->count && !mesh->sparse[mesh->next].block) mesh->next++;
    unsigned misses = 0;
    for (size_t i = mesh->next; i < mesh->count && misses < PATIENCE && mesh->chosen_count < TOGETHER;) {
        wn_os_lock_brief(&space->lock);
        for (unsigned j = 0; j < LOOK && i < mesh->count && mesh->chosen_count < TOGETHER; j++, i++) {
            candidate *each = &mesh->sparse[i];
            if (!each->block) continue;
            if (!mesh->chosen_count) mesh->group = each->key >> 16;
            if (each->key >> 16 != mesh->group) misses = PATIENCE;
            if (misses == PATIENCE) break;
            if (!is_sparse(space, each->block) || group_of(each->block) != mesh->group) {
                each->block = NULL;
            } else if (fits(mesh, each->block)) {
                take(mesh, each->block);
                mesh->chosen[mesh->chosen_count++] = each->block;
                each->block = NULL;
                misses = 0;
            } else {
                misses++;
            }
        }
        pthread_mutex_unlock(&space->lock);
    }
}

/* A frame that no block is on; false: there is none. */
static bool find_frame(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    wn_os_lock_brief(&space->lock);
    uint32_t f = mesh->unsealed;
    while (f < mesh->most && mesh->blocks[f]) f++;
    pthread_mutex_unlock(&space->lock);
    mesh->frame = f;
    return f < mesh->most;
}

bool wn_mesh_choose(wn_space *space) {
    wn_mesh *mesh = space->mesh;
    if (!mesh) return false;
    close_window(space);
    wn_mesh_give_back(space);
    wn_os_lock_brief(&space->lock);
    bool more = mesh->count && !mesh->off && wn_mesh_resident(space) > mesh->enough;
    pthread_mutex_unlock(&space->lock);
    while (more && mesh->next < mesh->count) {
        choose_some(space);
        /* Alone on a frame a block gains nothing. */
        if (mesh->chosen_count < 2) continue;
        if (!find_frame(space)) break;
        mesh->window = wn_os_file_map(&mesh->file, (size_t)mesh->frame << WN_BLOCK_SHIFT, WN_BLOCK_SIZE);
        if (!mesh->window) break;
        memset(mesh->taken, 0, sizeof mesh->taken);
        return true;
    }
    wn_mesh_drop_plan(space);
    return false;
}

/* ---- laying ------------------------------------------------------------------------------------------------------ */

/* Into the window, or back. */
static void copy_slots(char *window, const wn_block *b, bool back) {
    const char *start = wn_block_start(b);
    size_t g = 0;
    for (char *o, *there; (o = wn_block_next(b, &g));) {
        there = window + (o - start);
        memcpy(back ? o : there, back ? there : o, b->slot);
    }
}

/* A thread that does not stand still has closed the file, and its number is that of another: the block views that, and
 * gets memory of its own. If the system refuses even this, what it views is private, too. */
static void take_back(wn_space *space, wn_block *b) {
    char *start = wn_block_start(b);
    if (wn_os_file_unview(start, WN_BLOCK_SIZE) && space->large_pages) wn_os_prefer_large_pages(start, WN_BLOCK_SIZE);
    copy_slots(space->mesh->window, b, true);
    wn_mesh_part(space, b);
    space->mesh->off = true;
}

/* One block more is on the frame. All that were may have left it since it was chosen: then it does not go back. */
static void use_frame(wn_mesh *mesh) {
    uint32_t *blocks = &mesh->blocks[mesh->frame];
    if (*blocks == LEAVING) {
        *blocks = 0;
        mesh->leaving--;
        mesh->frames--;
    }
    if (!(*blocks)++) mesh->frames++;
}

/* False: no more blocks can be laid. What a view shows is in the frame before the view is there. */
static bool lay(wn_space *space, wn_block *b) {
    wn_mesh *mesh = space->mesh;
    if (!b->viewing && __atomic_load_n(&mesh->viewing, __ATOMIC_RELAXED) >= mesh->most) return false;
    copy_slots(mesh->window, b, false);
    if (!wn_os_file_view(&mesh->file, (size_t)mesh->frame << WN_BLOCK_SHIFT, wn_block_start(b), WN_BLOCK_SIZE))
        return false;
    if (!wn_os_file_is_open(&mesh->file)) {
        take_back(space, b);
        return false;
    }
    take(mesh, b);
    bool listed = wn_space_unlist_block(space, b);
    wn_mesh_leave(space, b);
    if (!b->viewing) __atomic_fetch_add(&mesh->viewing, 1, __ATOMIC_RELAXED);
    b->viewing = 1;
    b->frame = mesh->frame + 1;
    use_frame(mesh);
    mesh->shared++;
    if (listed) wn_space_list_block(space, b);
    return true;
}

bool wn_mesh_lay(wn_space *space, uint64_t deadline) {
    wn_mesh *mesh = space->mesh;
    while (mesh->laid < mesh->chosen_count) {
        wn_block *b = mesh->chosen[mesh->laid++];
        wn_os_lock_brief(&space->lock);
        bool fit = is_sparse(space, b) && group_of(b) == mesh->group && fits(mesh, b);
        if (fit && !lay(space, b)) end_plan(mesh);
        pthread_mutex_unlock(&space->lock);
        if (wn_os_now() >= deadline) break;
    }
    return mesh->laid < mesh->chosen_count;
}
