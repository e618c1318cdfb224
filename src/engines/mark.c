/* mark.c - the marker's stack beyond its current segment, and sharing between threads. */
#include "engines/mark.h"

#include <string.h>

/* A pool's first slab is small, for the many markings that need no more; each further one is as large as all before
 * together, because making one waits for the page faults of other threads. A slab gets its memory a segment at a time,
 * as each is used for the first time: two page faults, which an assist can bear, as it could not bear those of a whole
 * slab, and all at once they would cost no less. */
enum { SEGMENT_BYTES = 8192, FIRST_SLAB = 64 << 10, LARGEST_SLAB = 32 << 20 };

_Static_assert(sizeof(wn_mark_segment) <= SEGMENT_BYTES, "segments divide a slab");

/* At the head of a slab, in the place of its first segment. */
typedef struct wn_mark_slab {
    struct wn_mark_slab *next;
    size_t size;
} slab;

void wn_mark_pool_make(wn_mark_pool *pool) {
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->markers = 1;
}

static void release_slabs(slab *s) {
    for (slab *next; s; s = next) {
        next = s->next;
        wn_os_release(s, s->size);
    }
}

void wn_mark_pool_drop(wn_mark_pool *pool) {
    release_slabs(pool->slabs);
    release_slabs(pool->unused);
    pool->slabs = pool->unused = NULL;
    pool->spare = pool->work = NULL;
    pool->fresh = pool->fresh_end = NULL;
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
}

void wn_mark_make(wn_marker *m, wn_mark_pool *pool) {
    memset(m, 0, sizeof *m);
    m->order = WN_MARK_ORDER;
    m->pool = pool;
}

void wn_mark_share(wn_mark_pool *pool, unsigned markers) {
    pool->markers = markers;
    pool->waiting = 0;
    pool->hungry = 0;
}

static void spare(wn_mark_pool *pool, wn_mark_segment *s) {
    s->next = pool->spare;
    pool->spare = s;
}

void wn_mark_drop(wn_marker *m) {
    wn_os_lock_brief(&m->pool->lock);
    for (wn_mark_segment *s = m->segment, *next; s; s = next) {
        next = s->next;
        spare(m->pool, s);
    }
    if (m->reserve) spare(m->pool, m->reserve);
    pthread_mutex_unlock(&m->pool->lock);
    wn_mark_make(m, m->pool);
}

/* A slab more, for a pool whose last one is used up. With the lock held, which is let go of meanwhile: whoever maps
 * memory may wait for milliseconds, and nobody should wait for him. */
static bool new_slab(wn_mark_pool *pool) {
    const slab *last = pool->slabs;
    size_t size = !last ? FIRST_SLAB : last->size < LARGEST_SLAB ? 2 * last->size : LARGEST_SLAB;
    if (!pool->unused) {
        pthread_mutex_unlock(&pool->lock);
        slab *more = wn_os_map(size);
        if (more) more->size = size;
        wn_os_lock_brief(&pool->lock);
        if (more) {
            more->next = pool->unused;
            pool->unused = more;
        }
        if (pool->fresh != pool->fresh_end) return true; /* another thread was first; this one is for the next time */
    }
    slab *s = pool->unused;
    if (!s) return false;
    pool->unused = s->next;
    s->next = pool->slabs;
    pool->slabs = s;
    pool->fresh = (char *)s + SEGMENT_BYTES;
    pool->fresh_end = (char *)s + s->size;
    return true;
}

/* With the lock held; see new_slab. */
static wn_mark_segment *new_segment(wn_mark_pool *pool) {
    while (!pool->spare && pool->fresh == pool->fresh_end)
        if (!new_slab(pool)) return NULL;
    wn_mark_segment *s = pool->spare;
    if (s) {
        pool->spare = s->next;
        return s;
    }
    s = (wn_mark_segment *)pool->fresh;
    pool->fresh += SEGMENT_BYTES;
    return s;
}

static void use(wn_marker *m, wn_mark_segment *s, size_t used) {
    m->segment = s;
    m->base = s->entry;
    m->top = s->entry + used;
    m->end = s->entry + WN_MARK_SEGMENT;
}

bool wn_mark_grow_(wn_marker *m) {
    wn_mark_segment *s = m->reserve;
    m->reserve = NULL;
    if (!s) {
        wn_os_lock_brief(&m->pool->lock);
        s = new_segment(m->pool);
        pthread_mutex_unlock(&m->pool->lock);
    }
    if (!s) {
        m->failed = true;
        return false;
    }
    s->next = m->segment;
    use(m, s, 0);
    return true;
}

bool wn_mark_shrink_(wn_marker *m) {
    wn_mark_segment *s = m->segment;
    if (!s || !s->next) return false;
    if (m->reserve) {
        wn_os_lock_brief(&m->pool->lock);
        spare(m->pool, m->reserve);
        pthread_mutex_unlock(&m->pool->lock);
    }
    m->reserve = s;
    use(m, s->next, WN_MARK_SEGMENT); /* the one behind is full */
    return true;
}

/* Gives the oldest entries, which tend to be the roots of the largest parts: a whole segment behind the current one,
 * or else the lower half of the current. */
void wn_mark_give_(wn_marker *m) {
    wn_mark_pool *pool = m->pool;
    wn_mark_segment *s = m->segment;
    if (!s) return;
    size_t here = (size_t)(m->top - m->base);
    if (!s->next && here < 16) return;
    wn_os_lock_brief(&pool->lock);
    wn_mark_segment *gift = NULL;
    if (s->next) {
        while (s->next->next) s = s->next;
        gift = s->next;
        s->next = NULL;
        gift->used = WN_MARK_SEGMENT;
    } else if ((gift = new_segment(pool))) {
        gift->used = here / 2;
        memcpy(gift->entry, m->base, gift->used * sizeof(void *));
        memmove(m->base, m->base + gift->used, (here - gift->used) * sizeof(void *));
        m->top -= gift->used;
    }
    if (gift) {
        gift->next = pool->work;
        pool->work = gift;
        __atomic_store_n(&pool->hungry, 0, __ATOMIC_RELAXED);
        pthread_cond_signal(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
}

bool wn_mark_get_(wn_marker *m) {
    wn_mark_pool *pool = m->pool;
    bool got = false;
    pthread_mutex_lock(&pool->lock);
    pool->waiting++;
    for (;;) {
        wn_mark_segment *s = pool->work;
        if (s) {
            pool->work = s->next;
            pool->waiting--;
            if (pool->waiting && !pool->work) __atomic_store_n(&pool->hungry, 1, __ATOMIC_RELAXED);
            if (m->segment) spare(pool, m->segment); /* it is empty, and the only one */
            s->next = NULL;
            use(m, s, s->used);
            got = true;
            break;
        }
        if (pool->waiting == pool->markers) { /* all have run dry: everyone may go */
            pthread_cond_broadcast(&pool->wake);
            break;
        }
        __atomic_store_n(&pool->hungry, 1, __ATOMIC_RELAXED);
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return got;
}

/* ---- beside a running program ------------------------------------------------------------------------------------ */

bool wn_mark_try_get(wn_marker *m) {
    wn_mark_pool *pool = m->pool;
    wn_os_lock_brief(&pool->lock);
    wn_mark_segment *s = pool->work;
    if (s) {
        pool->work = s->next;
        if (m->segment) spare(pool, m->segment);
        s->next = NULL;
        use(m, s, s->used);
    }
    pthread_mutex_unlock(&pool->lock);
    return s != NULL;
}

void wn_mark_give_all(wn_marker *m) {
    wn_mark_pool *pool = m->pool;
    if (!m->segment) return;
    wn_os_lock_brief(&pool->lock);
    size_t used = (size_t)(m->top - m->base);
    for (wn_mark_segment *s = m->segment, *next; s; s = next, used = WN_MARK_SEGMENT) {
        next = s->next;
        s->used = used;
        if (used) {
            s->next = pool->work;
            pool->work = s;
        } else {
            spare(pool, s);
        }
    }
    m->segment = NULL;
    m->top = m->base = m->end = NULL;
    pthread_mutex_unlock(&pool->lock);
}

wn_mark_segment *wn_mark_take_segment(wn_mark_pool *pool) {
    wn_os_lock_brief(&pool->lock);
    wn_mark_segment *s = new_segment(pool);
    pthread_mutex_unlock(&pool->lock);
    if (s) s->used = 0;
    return s;
}

void wn_mark_put_segment(wn_mark_pool *pool, wn_mark_segment *s) {
    wn_os_lock_brief(&pool->lock);
    spare(pool, s);
    pthread_mutex_unlock(&pool->lock);
}
