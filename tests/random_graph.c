/*
 * random_graph.c - a heap driven at random beside a model of it in plain memory, and compared.
 *
 * The model knows every object by number: its type, what each of its references names, and what its bytes are. The
 * invariant that is checked: what the model says is reachable is in the heap, whole, with the same references and (when
 * counting) the exact counts; after a full collection, what the model says is unreachable has been finalized once,
 * released once, and its weak references and ephemerons are empty. Nothing else is assumed: what the library says in
 * between (finalizers, callbacks, releases) is taken as news, and checked for being allowed.
 *
 * An operation is a pure function of the seed, the thread and its index, and names roots, not objects; so any subset of
 * the operations is a script too. A failing run is repeated in forked children with fewer and fewer of them (delta
 * debugging), and the shortest script that still fails is printed.
 *
 * With several threads each has roots and objects of its own, that only it touches, and all share one set of roots and
 * objects under a lock; private objects refer to shared ones. The model is compared while all threads stand still.
 */
#include <winnow.h>

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FREE, BUSY, READY }; /* a grave */

enum {
    TYPES = 24,
    ROOTS = 48, /* per universe */
    WEAKS = 32,
    EPHEMERONS = 32,
    PINS = 4,
    GRAVES = 8,
    THREADS_MAX = 16,
    EPOCH = 2000,    /* operations of a thread between two comparisons */
    FIELDS_MAX = 24, /* fixed references an object may have */
    ITEMS_MAX = 40,
    IMMORTALS_MAX = 20,
    SKIPPED = 77
};

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* ---- what went wrong --------------------------------------------------------------------------------------------- */

static struct settings {
    uint64_t seed, ops;
    int threads;
    unsigned limit; /* seconds */
    bool shrink, verify, fork;
    bool inexact; /* garbage may stay: a stale word of a scanned stack keeps it, or a thread has yet to finalize it */
} set = {.seed = 0, .ops = 10000000, .threads = 1, .shrink = true, .verify = true, .fork = true};

/* Shared with the parent that shrinks: how far each thread was. */
typedef struct progress {
    _Atomic uint64_t at[THREADS_MAX];
    _Atomic uint64_t done;
    _Atomic int claimed;
    char failure[512];
} progress;
static progress *report;

static __attribute__((noreturn, format(printf, 1, 2))) void wrong(const char *format, ...) {
    int expected = 0;
    if (atomic_compare_exchange_strong(&report->claimed, &expected, 1)) {
        va_list args;
        va_start(args, format);
        vsnprintf(report->failure, sizeof report->failure, format, args);
        va_end(args);
        if (!set.fork) fprintf(stderr, "random_graph: FAILED: %s\n", report->failure);
    }
    if (!set.fork) abort(); /* for a debugger */
    _exit(1);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

typedef struct record record;
typedef struct universe universe;

/* One object, from its making to its known death. `self` (below, in the object) leads here. */
struct record {
    uint64_t id;
    universe *home;
    const wn_type *type;
    size_t length, n_refs;   /* items; references in all */
    uint32_t version;        /* of its bytes */
    record **refs;           /* what each reference names; NULL: nothing */
    _Atomic long in_edges;   /* references to it from objects not known to be gone, and from roots */
    _Atomic long as_value;   /* ephemerons that had it as value since the last full comparison */
    _Atomic bool was_value;  /* an ephemeron ever had it as value */
    _Atomic long live_edges; /* the same, from reachable objects and roots; valid during a comparison */
    _Atomic bool finalized, released, immortal, frozen;
    bool reachable, may_live; /* valid during a comparison */
    void *address;            /* while pinned */
    uintptr_t identity;
    record *next; /* all records of a universe */
};

typedef struct weak {
    universe *home;
    record *target;
    struct weak *next; /* all that ever were: a tracing collector may call one late */
    _Atomic int calls;
    _Atomic bool held;
    bool with_callback;
    uint64_t resurrections; /* in the whole run when it was made: later ones may clear it */
} weak;

typedef struct pair_of {
    record *key, *value;
    uint64_t resurrections;
    bool empty; /* found so by the comparison under way */
} pair_of;

/* Roots and objects that belong together: a thread's own, or the shared ones. */
struct universe {
    int number; /* the thread, or -1: shared */
    record *roots[ROOTS];
    void *root_objects[ROOTS]; /* the real ones; each is a wn_global */
    weak *weaks[WEAKS], *all_weaks;
    wn_weakref *weak_objects[WEAKS];
    pair_of pairs[EPHEMERONS];
    wn_ephemeron *pair_objects[EPHEMERONS];
    int pins[PINS]; /* root slots + 1 whose object is pinned */
    record *pinned[PINS];
    void *pin_objects[PINS];
    /* what finalizers brought back, until the owner takes it */
    _Atomic int grave_state[GRAVES];
    record *grave[GRAVES];
    void *grave_objects[GRAVES];
    record *all;
    size_t n_records, immortals;
};

typedef struct mutator_thread {
    pthread_t thread;
    int number;
    wn_mutator *m;
    universe own;
    uint64_t at;
} mutator_thread;

static wn_heap *heap;
static bool counting;
static wn_type types[TYPES];
static char type_names[TYPES][24];
static bool resurrects[TYPES];
static universe shared_universe;
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static mutator_thread threads[THREADS_MAX];
static _Atomic uint64_t next_id, resurrections;
static _Atomic bool may_resurrect, closing;
static _Atomic int resurrecting; /* finalizers that may be about to */
static int frozen_depth;

/* The object: its type word, the record, its bytes and references by the type's bitmaps. */
typedef struct object {
    wn_object head;
    record *self;
    size_t length;
    uintptr_t words[];
} object;
enum { FIRST_WORD = 3 };

static size_t fixed_words(const wn_type *t) { return t->size / sizeof(void *); }

/* The k-th reference of an object: its word. References first in the fixed part, then in the items. */
static uintptr_t *slot_of(void *o, const wn_type *t, size_t k) {
    uintptr_t *words = o;
    if (t->trace) return &words[FIRST_WORD + k]; /* the first ones, by the trace function */
    for (uint64_t bits = t->refs; bits; bits &= bits - 1, k--)
        if (k == 0) return &words[__builtin_ctzll(bits)];
    size_t per_item = (size_t)__builtin_popcountll(t->item_refs);
    uintptr_t *item = (uintptr_t *)((char *)o + t->size + k / per_item * t->item_size);
    k %= per_item;
    for (uint64_t bits = t->item_refs; bits; bits &= bits - 1, k--)
        if (k == 0) return &item[__builtin_ctzll(bits)];
    abort();
}

/* Whether a word of the fixed part, or of an item, is plain data of ours. */
static bool plain_word(const wn_type *t, size_t w) {
    if (w < FIRST_WORD) return false;
    if (t->trace) return w >= FIRST_WORD + 2;
    return !(t->refs >> w & 1);
}

static uintptr_t data_of(const record *r, size_t w) { return (uintptr_t)mix(r->id * 1000003 + r->version * 7919 + w); }

/* Writes or checks every byte that is no reference: the plain words of the fixed part and of each item. */
static void write_data(void *o, const record *r) {
    const wn_type *t = r->type;
    uintptr_t *words = o;
    for (size_t w = FIRST_WORD; w < fixed_words(t) && w < 64; w++)
        if (plain_word(t, w)) words[w] = data_of(r, w);
    size_t per_item = t->item_size / sizeof(void *);
    if (t->item_size && per_item == 0) {
        unsigned char *bytes = (unsigned char *)o + t->size;
        for (size_t i = 0; i < r->length; i++) bytes[i] = (unsigned char)data_of(r, i);
        return;
    }
    for (size_t i = 0; i < r->length; i++) {
        uintptr_t *item = (uintptr_t *)((char *)o + t->size + i * t->item_size);
        for (size_t w = 0; w < per_item; w++)
            if (!(t->item_refs >> w & 1)) item[w] = data_of(r, 1000 + i * per_item + w);
    }
}

static void check_data(const void *o, const record *r) {
    const wn_type *t = r->type;
    const uintptr_t *words = o;
    for (size_t w = FIRST_WORD; w < fixed_words(t) && w < 64; w++)
        if (plain_word(t, w) && words[w] != data_of(r, w))
            wrong("object %llu (%s): word %zu is %#llx, not %#llx", (unsigned long long)r->id, t->name, w,
                  (unsigned long long)words[w], (unsigned long long)data_of(r, w));
    size_t per_item = t->item_size / sizeof(void *);
    if (t->item_size && per_item == 0) {
        const unsigned char *bytes = (const unsigned char *)o + t->size;
        for (size_t i = 0; i < r->length; i++)
            if (bytes[i] != (unsigned char)data_of(r, i))
                wrong("object %llu (%s): byte %zu of its items is wrong", (unsigned long long)r->id, t->name, i);
        return;
    }
    for (size_t i = 0; i < r->length; i++) {
        const uintptr_t *item = (const uintptr_t *)((const char *)o + t->size + i * t->item_size);
        for (size_t w = 0; w < per_item; w++)
            if (!(t->item_refs >> w & 1) && item[w] != data_of(r, 1000 + i * per_item + w))
                wrong("object %llu (%s): item %zu, word %zu is wrong", (unsigned long long)r->id, t->name, i, w);
    }
}

static record *record_of(const void *o) { return o ? ((const object *)o)->self : NULL; }

static void edge_added(record *to) {
    if (to) atomic_fetch_add_explicit(&to->in_edges, 1, memory_order_relaxed);
}
static void edge_removed(record *to) {
    if (to) atomic_fetch_sub_explicit(&to->in_edges, 1, memory_order_relaxed);
}

/* ---- what the library tells -------------------------------------------------------------------------------------- */

static void on_release(void *o) {
    record *r = record_of(o);
    if (!r || atomic_load(&closing)) return; /* never filled: out of memory came between */
    if (atomic_exchange(&r->released, true))
        wrong("object %llu (%s) was released twice", (unsigned long long)r->id, r->type->name);
    if (atomic_load(&r->immortal))
        wrong("object %llu (%s) is immortal and was released", (unsigned long long)r->id, r->type->name);
    if (r->type->finalize && !atomic_load(&r->finalized))
        wrong("object %llu (%s) was released without having been finalized", (unsigned long long)r->id, r->type->name);
    for (size_t k = 0; k < r->n_refs; k++) edge_removed(r->refs[k]);
}

static void on_finalize(wn_mutator *m, void *o) {
    record *r = record_of(o);
    if (!r) return;
    if (atomic_exchange(&r->finalized, true))
        wrong("object %llu (%s) was finalized twice", (unsigned long long)r->id, r->type->name);
    if (atomic_load(&r->released))
        wrong("object %llu (%s) was finalized after its release", (unsigned long long)r->id, r->type->name);
    if (atomic_load(&r->immortal))
        wrong("object %llu (%s) is immortal and was finalized", (unsigned long long)r->id, r->type->name);
    universe *u = r->home;
    for (size_t k = 0; k < r->n_refs; k++) { /* nothing of it was taken apart yet */
        record *to = r->refs[k];
        if (record_of((void *)*slot_of(o, r->type, k)) != to)
            wrong("object %llu (%s): reference %zu changed before its finalizer", (unsigned long long)r->id,
                  r->type->name, k);
        if (to && atomic_load(&to->released))
            wrong("object %llu (%s): reference %zu was released before its finalizer", (unsigned long long)r->id,
                  r->type->name, k);
    }
    check_data(o, r);
    if (!resurrects[r->type - types]) return;
    atomic_fetch_add(&resurrecting, 1);
    for (int i = 0; i < GRAVES && atomic_load(&may_resurrect); i++) {
        int expected = FREE;
        if (!atomic_compare_exchange_strong(&u->grave_state[i], &expected, BUSY)) continue;
        edge_added(r);
        u->grave[i] = r;
        wn_assign(m, u->grave_objects[i], o);
        atomic_fetch_add(&resurrections, 1);
        atomic_store(&u->grave_state[i], READY);
        break;
    }
    atomic_fetch_sub(&resurrecting, 1);
}

static void on_callback(wn_mutator *m, wn_weakref *ref, void *data) {
    weak *w = data;
    if (atomic_fetch_add(&w->calls, 1)) wrong("the callback of a weak reference ran twice");
    void *target = wn_weakref_get(m, ref);
    if (target) wrong("a weak reference still has its target in its callback");
    if (counting && set.threads == 1 && !atomic_load(&w->held))
        wrong("the callback of a weak reference ran after that had died");
}

static void on_trace(const void *o, wn_tracer *tracer) {
    uintptr_t *words = (uintptr_t *)(uintptr_t)o;
    for (size_t k = 0; k < 2; k++) wn_visit(tracer, &words[FIRST_WORD + k]);
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

static void make_types(void) {
    for (int i = 0; i < TYPES; i++) {
        uint64_t r = mix(set.seed * 31 + (uint64_t)i);
        wn_type *t = &types[i];
        size_t words = FIRST_WORD + 1 + r % (i % 6 == 5 ? 61 : 9);
        if (words > 64) words = 64;
        *t = (wn_type){.name = type_names[i], .size = (uint32_t)(words * sizeof(void *))};
        snprintf(type_names[i], sizeof type_names[i], "type%d", i);
        uint64_t candidates = (words == 64 ? ~(uint64_t)0 : ((uint64_t)1 << words) - 1) & ~(uint64_t)7;
        t->refs = candidates & mix(r) & (i % 3 ? ~(uint64_t)0 : mix(mix(r)));
        while (__builtin_popcountll(t->refs) > FIELDS_MAX) t->refs &= t->refs - 1;
        switch (i % 8) {
        case 0: t->refs = 0; break; /* leaves */
        case 1:                     /* an array of references */
        case 2: t->item_size = sizeof(void *), t->item_refs = 1, t->length_at = 16; break;
        case 3: t->item_size = 3 * sizeof(void *), t->item_refs = 1 + (r >> 20) % 7, t->length_at = 16; break;
        case 4: t->item_size = 1, t->length_at = 16; break; /* bytes */
        case 5:
            if (words >= FIRST_WORD + 2) t->refs = 0, t->trace = on_trace;
            break;
        default: break;
        }
        uint64_t hooks = mix(r + 5);
        if (hooks % 3 == 0) t->release = on_release;
        if (hooks % 5 == 0) t->finalize = on_finalize;
        if (hooks % 10 == 0 || i == 9 || i == 10) resurrects[i] = true, t->finalize = on_finalize;
        if (i == 7 || i == 10 || i == 15) t->release = on_release;
        if (i == 6) t->release = NULL, t->finalize = NULL; /* at least one plain record for the inline path */
        if (i == 17) t->flags |= WN_TYPE_IMMUTABLE;
        if (i == 14) t->flags |= WN_TYPE_PINNED;
    }
}

static size_t count_refs(const wn_type *t, size_t length) {
    if (t->trace) return 2;
    return (size_t)__builtin_popcountll(t->refs) + length * (size_t)__builtin_popcountll(t->item_refs);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

typedef enum kind {
    OP_NEW,
    OP_LINK,
    OP_LINK_NEW,
    OP_UNLINK,
    OP_FOLLOW,
    OP_DROP,
    OP_COPY_ROOT,
    OP_COPY_FIELDS,
    OP_WRITE,
    OP_WEAK,
    OP_WEAK_GET,
    OP_WEAK_DROP,
    OP_EPHEMERON,
    OP_EPHEMERON_SET,
    OP_EPHEMERON_GET,
    OP_EPHEMERON_DROP,
    OP_COLLECT,
    OP_STEP,
    OP_POLL,
    OP_COUNT,
    OP_PIN,
    OP_UNPIN,
    OP_IDENTITY,
    OP_IMMORTAL,
    OP_DIG,
    OP_TREE,
    OP_EXTERNAL,
    OP_SHARE,
    OP_TRIM,
    OP_FREEZE,
    OP_DISABLE,
    OP_VERIFY,
    OP_LOOK,
    OP_WALK,
    OP_LISTEN,
    OP_THRESHOLD,
    OP_KINDS
} kind;
static const char *const kind_names[OP_KINDS] = {
    "new",     "link", "link-new", "unlink",    "follow",    "drop",          "copy-root",     "copy-fields",
    "write",   "weak", "weak-get", "weak-drop", "ephemeron", "ephemeron-set", "ephemeron-get", "ephemeron-drop",
    "collect", "step", "poll",     "count",     "pin",       "unpin",         "identity",      "immortal",
    "dig",     "tree", "external", "share",     "trim",      "freeze",        "disable",       "verify",
    "look",    "walk", "listen",   "threshold"};
static const unsigned weights[OP_KINDS] = {
    [OP_NEW] = 150,      [OP_LINK] = 200,        [OP_LINK_NEW] = 120,     [OP_UNLINK] = 50,
    [OP_FOLLOW] = 140,   [OP_DROP] = 70,         [OP_COPY_ROOT] = 40,     [OP_COPY_FIELDS] = 20,
    [OP_WRITE] = 30,     [OP_WEAK] = 25,         [OP_WEAK_GET] = 25,      [OP_WEAK_DROP] = 10,
    [OP_EPHEMERON] = 10, [OP_EPHEMERON_SET] = 5, [OP_EPHEMERON_GET] = 10, [OP_EPHEMERON_DROP] = 4,
    [OP_COLLECT] = 2,    [OP_STEP] = 3,          [OP_POLL] = 10,          [OP_COUNT] = 20,
    [OP_PIN] = 3,        [OP_UNPIN] = 4,         [OP_IDENTITY] = 5,       [OP_IMMORTAL] = 1,
    [OP_DIG] = 8,        [OP_TREE] = 4,          [OP_EXTERNAL] = 3,       [OP_SHARE] = 30,
    [OP_TRIM] = 1,       [OP_FREEZE] = 1,        [OP_DISABLE] = 1,        [OP_VERIFY] = 0,
    [OP_LOOK] = 10,      [OP_WALK] = 1,          [OP_LISTEN] = 2,         [OP_THRESHOLD] = 1};
static uint8_t kind_table[2048];
static unsigned kind_table_size;

static void make_kind_table(void) {
    for (unsigned k = 0; k < OP_KINDS; k++)
        for (unsigned i = 0; i < weights[k]; i++) kind_table[kind_table_size++] = (uint8_t)k;
}

typedef struct operation {
    kind kind;
    bool shared; /* on the shared universe, under the lock */
    uint32_t a, b, c;
} operation;

static operation operation_at(int thread, uint64_t index) {
    uint64_t x = mix(mix(set.seed + (uint64_t)thread * 0x51ed2701) + index), y = mix(x);
    operation op = {.kind = (kind)kind_table[(x & 0xffff) % kind_table_size],
                    .shared = (x >> 16 & 7) == 0,
                    .a = (uint32_t)(x >> 32),
                    .b = (uint32_t)y,
                    .c = (uint32_t)(y >> 32)};
    return op;
}

/* The script: which indexes of each thread to run; NULL: all. One bit each, used while shrinking. */
static uint8_t *script[THREADS_MAX];
static bool in_script(int thread, uint64_t index) {
    return !script[thread] || (script[thread][index / 8] >> (index % 8) & 1);
}

static void set_root(wn_mutator *m, universe *u, uint32_t i, record *r, void *borrowed) {
    edge_added(r);
    edge_removed(u->roots[i]);
    u->roots[i] = r;
    wn_assign(m, u->root_objects[i], borrowed);
}

static void take_root(wn_mutator *m, universe *u, uint32_t i, record *r, void *fresh) {
    edge_added(r);
    edge_removed(u->roots[i]);
    u->roots[i] = r;
    wn_take(m, u->root_objects[i], fresh);
}

/* Makes an object and its record; a new reference. */
static void *make_object(wn_mutator *m, universe *u, uint32_t which, uint32_t size, record **made) {
    const wn_type *t = &types[which % TYPES];
    size_t length = 0;
    if (t->item_size == 1)
        length = size % 50 == 0 ? 20000 + size % 30000 : size % 300;
    else if (t->item_size)
        length = size % 400 == 0 ? 1500 : size % ITEMS_MAX;
    void *o = t->item_size ? wn_new_array(m, t, length) : wn_new(m, t);
    if (!o) wrong("no memory for a %s of %zu: %s", t->name, length, wn_error_message());
    object *head = o;
    for (size_t w = 1; w < fixed_words(t); w++)
        if (((uintptr_t *)o)[w] && w != 2) wrong("a new %s is not zero", t->name);
    if (t->item_size && head->length != length) wrong("a new %s has %zu items, not %zu", t->name, head->length, length);
    size_t n_refs = count_refs(t, length);
    record *r = calloc(1, sizeof *r + n_refs * sizeof(record *));
    if (!r) wrong("the model is out of memory");
    *r = (record){.id = atomic_fetch_add(&next_id, 1) + 1,
                  .home = u,
                  .type = t,
                  .length = length,
                  .n_refs = n_refs,
                  .refs = (record **)(r + 1)};
    for (size_t k = 0; k < n_refs; k++)
        if (*slot_of(o, t, k)) wrong("a new %s has a reference", t->name);
    head->self = r;
    write_data(o, r);
    r->next = u->all;
    u->all = r;
    u->n_records++;
    *made = r;
    return o;
}

/* holder.refs[k] = value in the model; the caller does the same in the heap. */
static void model_link(record *holder, size_t k, record *value) {
    edge_added(value);
    edge_removed(holder->refs[k]);
    holder->refs[k] = value;
}

static bool may_refer(const record *holder, const record *value) {
    return !value || holder->home == value->home || value->home == &shared_universe;
}
static bool writable(const record *r) { return !(r->type->flags & WN_TYPE_IMMUTABLE); }

static void check_object(const void *o, const record *r) {
    if (record_of(o) != r)
        wrong("a root or reference to object %llu leads to another", (unsigned long long)(r ? r->id : 0));
    if (r && ((const wn_object *)o)->type != r->type) wrong("object %llu has lost its type", (unsigned long long)r->id);
}

static void *make_tree(wn_mutator *m, universe *u, uint32_t which, int depth, record **made) {
    wn_root(m, void *, o, make_object(m, u, which, which >> 7, made));
    record *r = *made;
    if (depth > 0 && writable(r))
        for (size_t k = 0; k < r->n_refs && k < 3; k++) {
            record *child;
            void *fresh = make_tree(m, u, which + (uint32_t)k + 1, depth - 1, &child);
            model_link(r, k, child);
            wn_store_new(m, o, slot_of(o, r->type, k), fresh);
        }
    return wn_give(m, o);
}

/* Questions that anybody may ask at any time; of an object, if there is one. */
static void look(wn_mutator *m, const void *o, const record *r) {
    wn_stats stats;
    unsigned three[3];
    wn_get_stats(heap, &stats);
    wn_get_count(heap, three);
    wn_get_threshold(heap, three);
    if (stats.live_bytes > stats.live_bytes_max) wrong("more bytes live than ever were");
    (void)wn_frozen_count(heap);
    if (!o) return;
    if (!wn_is_object(m, o)) wrong("object %llu is a root but wn_is_object denies it", (unsigned long long)r->id);
    if (wn_size_of(m, o) < r->type->size) wrong("object %llu is too small", (unsigned long long)r->id);
    (void)(wn_generation(m, o) + wn_is_frozen(m, o) + wn_is_tracked(m, o));
    (void)wn_is_finalized(m, o);
    (void)wn_weakref_count(m, o);
}

static bool count_one(void *o, void *data) {
    *(size_t *)data += o != NULL;
    return true;
}

static _Atomic uint64_t heard;
static void hear(wn_mutator *m, const wn_event *event, void *data) {
    (void)m, (void)data;
    atomic_fetch_add(&heard, 1 + event->result.collected + event->pinned);
}
static void listen_or_not(void) {
    static _Atomic bool listening;
    if (!atomic_exchange(&listening, true)) {
        if (wn_add_listener(heap, hear, NULL)) wrong("cannot listen: %s", wn_error_message());
    } else if (!wn_remove_listener(heap, hear, NULL)) {
        atomic_store(&listening, false);
    }
}

/* One operation on a universe that the caller owns at this moment. Everything is read from global roots, so nothing
 * is held in a local over a safepoint but what is declared. */
static void run(wn_mutator *m, universe *u, operation op, int thread) {
    uint32_t i = op.a % ROOTS, j = op.b % ROOTS;
    record *ri = u->roots[i], *rj = u->roots[j];
    switch (op.kind) {
    case OP_NEW: {
        record *r;
        void *fresh = make_object(m, u, op.b, op.c, &r);
        take_root(m, u, i, r, fresh);
        if (!writable(r)) { /* filled once, from the roots there are */
            for (size_t k = 0; k < r->n_refs; k++) {
                uint32_t from = (op.c + (uint32_t)k * 7) % ROOTS;
                if (!u->roots[from] || !may_refer(r, u->roots[from])) continue;
                model_link(r, k, u->roots[from]);
                wn_store(m, u->root_objects[i], slot_of(u->root_objects[i], r->type, k), u->root_objects[from]);
            }
        }
        break;
    }
    case OP_TREE: {
        record *r;
        void *fresh = make_tree(m, u, op.b, 3, &r);
        take_root(m, u, i, r, fresh);
        break;
    }
    case OP_LINK:
        if (!ri || ri->home != u || !ri->n_refs || !writable(ri) || !may_refer(ri, rj)) break;
        model_link(ri, op.c % ri->n_refs, rj);
        wn_store(m, u->root_objects[i], slot_of(u->root_objects[i], ri->type, op.c % ri->n_refs), u->root_objects[j]);
        break;
    case OP_LINK_NEW: {
        if (!ri || ri->home != u || !ri->n_refs || !writable(ri)) break;
        record *r;
        void *fresh = make_object(m, u, op.b, op.c >> 8, &r);
        void *holder = u->root_objects[i];
        model_link(ri, op.c % ri->n_refs, r);
        wn_store_new(m, holder, slot_of(holder, ri->type, op.c % ri->n_refs), fresh);
        break;
    }
    case OP_UNLINK:
        if (!ri || ri->home != u || !ri->n_refs || !writable(ri)) break;
        model_link(ri, op.c % ri->n_refs, NULL);
        wn_store(m, u->root_objects[i], slot_of(u->root_objects[i], ri->type, op.c % ri->n_refs), NULL);
        break;
    case OP_FOLLOW: {
        if (!ri || ri->home != u || !ri->n_refs) break;
        size_t k = op.c % ri->n_refs;
        void *o = (void *)*slot_of(u->root_objects[i], ri->type, k);
        check_object(o, ri->refs[k]);
        if (o && ri->refs[k]->home == u) check_data(o, ri->refs[k]);
        set_root(m, u, j, ri->refs[k], o);
        break;
    }
    case OP_DROP: set_root(m, u, i, NULL, NULL); break;
    case OP_COPY_ROOT: set_root(m, u, j, ri, u->root_objects[i]); break;
    case OP_COPY_FIELDS: { /* wn_copy of a stretch of items, from another object or overlapping within one */
        if (!ri || !rj || ri->home != u || rj->home != u || !writable(ri)) break;
        const wn_type *ti = ri->type, *tj = rj->type;
        if (ti->item_refs != 1 || ti->item_size != 8 || tj->item_refs != 1 || tj->item_size != 8) break;
        if (!ri->length || !rj->length) break;
        size_t to = op.c % ri->length, from = (op.c >> 8) % rj->length, n = (op.c >> 16) % ITEMS_MAX;
        if (n > ri->length - to) n = ri->length - to;
        if (n > rj->length - from) n = rj->length - from;
        size_t base_i = ri->n_refs - ri->length, base_j = rj->n_refs - rj->length;
        record **copy = malloc((n + 1) * sizeof *copy);
        if (!copy) wrong("the model is out of memory");
        memcpy(copy, &rj->refs[base_j + from], n * sizeof *copy);
        for (size_t k = 0; k < n; k++) model_link(ri, base_i + to + k, copy[k]);
        free(copy);
        void *holder = u->root_objects[i];
        uintptr_t *slots = (uintptr_t *)((char *)holder + ti->size) + to;
        wn_copy(m, holder, slots, (uintptr_t *)((char *)u->root_objects[j] + tj->size) + from, n);
        break;
    }
    case OP_WRITE:
        if (!ri || ri->home != u) break;
        check_object(u->root_objects[i], ri);
        check_data(u->root_objects[i], ri);
        ri->version++;
        write_data(u->root_objects[i], ri);
        break;
    case OP_WEAK: {
        if (!ri || ri->home != u) break;
        uint32_t k = op.b % WEAKS;
        weak *w = calloc(1, sizeof *w);
        if (!w) wrong("the model is out of memory");
        *w = (weak){.home = u,
                    .target = ri,
                    .held = true,
                    .with_callback = op.c & 1,
                    .resurrections = atomic_load(&resurrections)};
        wn_weakref *ref = wn_weakref_new(m, u->root_objects[i], w->with_callback ? on_callback : NULL, w);
        if (!ref) wrong("no memory for a weak reference: %s", wn_error_message());
        w->next = u->all_weaks;
        u->all_weaks = w;
        if (u->weaks[k]) atomic_store(&u->weaks[k]->held, false);
        u->weaks[k] = w;
        wn_take(m, u->weak_objects[k], ref);
        break;
    }
    case OP_WEAK_GET: {
        uint32_t k = op.b % WEAKS;
        weak *w = u->weaks[k];
        if (!w) break;
        void *o = wn_weakref_get(m, u->weak_objects[k]);
        if (o) {
            if (record_of(o) != w->target) wrong("a weak reference leads to the wrong object");
            if (atomic_load(&w->target->released)) wrong("a weak reference leads to a released object");
            if (atomic_load(&w->calls)) wrong("a weak reference came back after its callback");
            take_root(m, u, i, w->target, o);
        } else {
            for (int r = 0; r < ROOTS; r++)
                if (u->roots[r] == w->target && w->resurrections == atomic_load(&resurrections))
                    wrong("a weak reference to object %llu, which is a root, is empty",
                          (unsigned long long)w->target->id);
        }
        break;
    }
    case OP_WEAK_DROP: {
        uint32_t k = op.b % WEAKS;
        if (u->weaks[k]) atomic_store(&u->weaks[k]->held, false);
        u->weaks[k] = NULL;
        wn_take(m, u->weak_objects[k], NULL);
        break;
    }
    case OP_EPHEMERON: {
        if (!ri || ri->home != u || (rj && rj->home != u)) break;
        /* One, or most of those there are: they die one by one, and leave the others of their key. */
        for (uint32_t n = op.c >> 16 & 7 ? 1 : EPHEMERONS - 4, k = op.c % EPHEMERONS; n;
             n--, k = (k + 1) % EPHEMERONS) {
            wn_ephemeron *e = wn_ephemeron_new(m, u->root_objects[i], u->root_objects[j]);
            if (!e) wrong("no memory for an ephemeron: %s", wn_error_message());
            if (rj) atomic_fetch_add(&rj->as_value, 1), atomic_store(&rj->was_value, true);
            u->pairs[k] = (pair_of){ri, rj, atomic_load(&resurrections), false};
            wn_take(m, u->pair_objects[k], e);
        }
        break;
    }
    case OP_EPHEMERON_SET: {
        uint32_t k = op.c % EPHEMERONS;
        if (!u->pairs[k].key || (rj && rj->home != u)) break;
        wn_root(m, void *, key, wn_ephemeron_key(m, u->pair_objects[k]));
        if (!key) break; /* a dead one takes no value */
        if (rj) atomic_fetch_add(&rj->as_value, 1), atomic_store(&rj->was_value, true);
        u->pairs[k].value = rj;
        wn_ephemeron_set(m, u->pair_objects[k], u->root_objects[j]);
        break;
    }
    case OP_EPHEMERON_GET: {
        uint32_t k = op.c % EPHEMERONS;
        if (!u->pairs[k].key) break;
        wn_root(m, void *, key, wn_ephemeron_key(m, u->pair_objects[k]));
        if (!key) break;
        if (record_of(key) != u->pairs[k].key) wrong("an ephemeron has the wrong key");
        wn_root(m, void *, value, wn_ephemeron_value(m, u->pair_objects[k]));
        if (record_of(value) != u->pairs[k].value) wrong("an ephemeron has the wrong value");
        set_root(m, u, i, u->pairs[k].key, key);
        set_root(m, u, j, u->pairs[k].value, value);
        break;
    }
    case OP_EPHEMERON_DROP: {
        uint32_t k = op.c % EPHEMERONS;
        u->pairs[k] = (pair_of){0};
        wn_take(m, u->pair_objects[k], NULL);
        break;
    }
    case OP_COLLECT:
        if (wn_collect(m, (int)(op.a % 3), NULL)) wrong("cannot collect: %s", wn_error_message());
        break;
    case OP_STEP: {
        wn_step_result result;
        wn_status s = op.a & 1 ? wn_collect_step(m, &result) : wn_collect_for(m, 10000, &result);
        if (s) wrong("cannot step: %s", wn_error_message());
        break;
    }
    case OP_POLL: wn_poll(m); break;
    case OP_COUNT:
        if (!ri || !counting || ri->home != u) break;
        {
            size_t count = wn_refcount(m, u->root_objects[i]);
            if (atomic_load(&ri->immortal) != (count == WN_IMMORTAL))
                wrong("object %llu: immortal or not?", (unsigned long long)ri->id);
            if (count == WN_IMMORTAL) break;
            size_t roots = 0;
            for (int r = 0; r < ROOTS; r++) roots += u->roots[r] == ri;
            size_t most =
                (size_t)(atomic_load(&ri->in_edges) + atomic_load(&ri->as_value)); /* a value is counted too */
            if (count < roots || (set.threads == 1 && count > most))
                wrong("object %llu (%s) has count %zu; the model knows %zu roots and %zu references in all",
                      (unsigned long long)ri->id, ri->type->name, count, roots, most);
        }
        break;
    case OP_PIN: {
        uint32_t k = op.b % PINS;
        if (!ri || ri->home != u || u->pinned[k] || ri->address) break;
        if (wn_pin(m, u->root_objects[i])) break; /* too many in the nursery */
        ri->address = u->root_objects[i];
        u->pinned[k] = ri;
        edge_added(ri);
        wn_assign(m, u->pin_objects[k], u->root_objects[i]);
        break;
    }
    case OP_UNPIN: {
        uint32_t k = op.b % PINS;
        record *r = u->pinned[k];
        if (!r) break;
        if (u->pin_objects[k] != r->address) wrong("object %llu moved although pinned", (unsigned long long)r->id);
        wn_unpin(m, u->pin_objects[k]);
        r->address = NULL;
        edge_removed(r);
        u->pinned[k] = NULL;
        wn_take(m, u->pin_objects[k], NULL);
        break;
    }
    case OP_IDENTITY:
        if (!ri || ri->home != u) break;
        {
            uintptr_t id = wn_identity(m, u->root_objects[i]);
            if (!id || (ri->identity && ri->identity != id))
                wrong("object %llu changed its identity", (unsigned long long)ri->id);
            ri->identity = id;
        }
        break;
    case OP_IMMORTAL:
        if (!ri || ri->home != u || u->immortals >= IMMORTALS_MAX || op.c % 16) break;
        if (!atomic_exchange(&ri->immortal, true)) u->immortals++;
        wn_make_immortal(m, u->root_objects[i]);
        break;
    case OP_DIG: { /* the owner takes what a finalizer brought back */
        uint32_t k = op.b % GRAVES;
        if (atomic_load(&u->grave_state[k]) != READY) break;
        record *r = u->grave[k];
        check_object(u->grave_objects[k], r);
        check_data(u->grave_objects[k], r);
        set_root(m, u, i, r, u->grave_objects[k]);
        u->grave[k] = NULL;
        edge_removed(r);
        wn_take(m, u->grave_objects[k], NULL);
        atomic_store(&u->grave_state[k], FREE);
        break;
    }
    case OP_EXTERNAL:
        if (!ri || ri->home != u) break;
        wn_external(m, u->root_objects[i], (ptrdiff_t)(op.c % 100000));
        wn_external(m, u->root_objects[i], -(ptrdiff_t)(op.c % 100000));
        break;
    case OP_TRIM: wn_trim(m); break;
    case OP_DISABLE:
        wn_disable(heap);
        for (int k = 0; k < 20; k++) {
            record *r;
            void *fresh = make_object(m, u, op.b + (uint32_t)k, op.c, &r);
            take_root(m, u, (i + (uint32_t)k) % ROOTS, r, fresh);
        }
        wn_enable(heap);
        break;
    case OP_LOOK: look(m, ri ? u->root_objects[i] : NULL, ri); break;
    case OP_WALK: {
        size_t seen = 0;
        wn_status s = op.a & 1 ? wn_each_tracked(m, (int)(op.c % 5) - 1, count_one, &seen)
                               : wn_referrers(m, u->root_objects[i], count_one, &seen);
        if (s && (op.a & 1 || u->root_objects[i])) wrong("cannot walk: %s", wn_error_message());
        break;
    }
    case OP_LISTEN: listen_or_not(); break;
    case OP_THRESHOLD: wn_set_threshold(heap, 50 + op.b % 1000, 1 + op.b % 10, 1 + op.c % 10); break;
    case OP_VERIFY:
        if (wn_verify(m, stderr)) wrong("the verifier complains");
        break;
    case OP_SHARE:
    case OP_FREEZE:
    case OP_KINDS: break; /* done by the caller */
    }
    (void)thread;
}

static void lock_in_blocking_section(wn_mutator *m, pthread_mutex_t *lock) {
    if (pthread_mutex_trylock(lock) == 0) return;
    wn_block_begin(m);
    pthread_mutex_lock(lock);
    wn_block_end(m);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* Runs over every universe; all other threads stand still. */
#define EACH_UNIVERSE(u)                                              \
    for (universe *u = &shared_universe, *next_ = &threads[0].own; u; \
         u = next_, next_ = u && u->number + 1 < set.threads ? &threads[u->number + 1].own : NULL)

static record **work;
static size_t work_size, work_capacity;
static void push(record *r) {
    if (work_size == work_capacity) {
        work_capacity = work_capacity ? 2 * work_capacity : 4096;
        work = realloc(work, work_capacity * sizeof *work);
        if (!work) wrong("the model is out of memory");
    }
    work[work_size++] = r;
}

/* Marks from the roots; `all` also from what may be alive though nobody asked for it: frozen objects, and garbage that
 * an inexact heap may not know for such yet. */
static void mark_from(record *r, bool all) {
    if (!r) return;
    bool *mark = all ? &r->may_live : &r->reachable;
    if (*mark) return;
    *mark = true;
    push(r);
}
static void drain(bool all) {
    while (work_size) {
        record *r = work[--work_size];
        for (size_t k = 0; k < r->n_refs; k++) {
            if (!all && r->refs[k]) atomic_fetch_add_explicit(&r->refs[k]->live_edges, 1, memory_order_relaxed);
            mark_from(r->refs[k], all);
        }
    }
}
static void mark(bool all) {
    EACH_UNIVERSE(u) {
        for (record *r = u->all; r; r = r->next) {
            if (atomic_load(&r->immortal)) mark_from(r, all);
            if (all && (set.inexact || atomic_load(&r->frozen)) && !atomic_load(&r->released)) mark_from(r, all);
            /* A frozen ephemeron stays, and keeps its value, when its last root is gone. */
            if (all && frozen_depth && atomic_load(&r->was_value)) mark_from(r, all);
        }
        for (int i = 0; i < ROOTS; i++) {
            if (!all && u->roots[i]) u->roots[i]->live_edges++;
            mark_from(u->roots[i], all);
        }
        for (int i = 0; i < PINS; i++) {
            if (!all && u->pinned[i]) u->pinned[i]->live_edges++;
            mark_from(u->pinned[i], all);
        }
        for (int i = 0; i < GRAVES; i++) {
            if (!all && u->grave[i]) u->grave[i]->live_edges++;
            mark_from(u->grave[i], all);
        }
    }
    drain(all);
    for (bool again = true; again;) { /* ephemerons, the simple way */
        again = false;
        EACH_UNIVERSE(u)
        for (int i = 0; i < EPHEMERONS; i++) {
            record *key = u->pairs[i].key, *value = u->pairs[i].value;
            if (!key || !value || u->pairs[i].empty || !(all ? key->may_live : key->reachable) ||
                (all ? value->may_live : value->reachable))
                continue;
            mark_from(value, all);
            drain(all);
            again = true;
        }
    }
}

/* Compares an object and its references with its record. */
static void compare_object(wn_mutator *m, const void *o, record *r) {
    check_object(o, r);
    check_data(o, r);
    if (atomic_load(&r->released))
        wrong("object %llu (%s) is reachable and was released", (unsigned long long)r->id, r->type->name);
    if (!wn_is_object(m, o))
        wrong("object %llu (%s) is reachable but wn_is_object denies it", (unsigned long long)r->id, r->type->name);
    if (r->type->item_size && ((const object *)o)->length != r->length)
        wrong("object %llu has lost its length", (unsigned long long)r->id);
    if (r->address && o != r->address) wrong("object %llu moved although pinned", (unsigned long long)r->id);
    for (size_t k = 0; k < r->n_refs; k++) {
        const void *to = (const void *)*slot_of((void *)(uintptr_t)o, r->type, k);
        if ((to != NULL) != (r->refs[k] != NULL) || record_of(to) != r->refs[k])
            wrong("object %llu (%s): reference %zu leads to %s, not to object %llu", (unsigned long long)r->id,
                  r->type->name, k, to ? "another object" : "nothing",
                  (unsigned long long)(r->refs[k] ? r->refs[k]->id : 0));
    }
}

/* Walks the real graph from the real roots, beside the model. */
static void compare_reachable(wn_mutator *m) {
    static struct walk { const void *o; } * stack;
    static size_t capacity;
    size_t size = 0;
#define VISIT(object_, record_)                                                                                  \
    do {                                                                                                         \
        record *r_ = (record_);                                                                                  \
        const void *o_ = (object_);                                                                              \
        if ((o_ != NULL) != (r_ != NULL)) wrong("a root is %s, the model says otherwise", o_ ? "set" : "empty"); \
        if (o_ && r_->reachable) {                                                                               \
            compare_object(m, o_, r_);                                                                           \
            r_->reachable = false; /* seen; set again below */                                                   \
            if (size == capacity) {                                                                              \
                capacity = capacity ? 2 * capacity : 4096;                                                       \
                stack = realloc(stack, capacity * sizeof *stack);                                                \
                if (!stack) wrong("the model is out of memory");                                                 \
            }                                                                                                    \
            stack[size++].o = o_;                                                                                \
            push(r_);                                                                                            \
        }                                                                                                        \
    } while (0)
    work_size = 0;
    EACH_UNIVERSE(u) {
        for (int i = 0; i < ROOTS; i++) VISIT(u->root_objects[i], u->roots[i]);
        for (int i = 0; i < PINS; i++) VISIT(u->pin_objects[i], u->pinned[i]);
        for (int i = 0; i < GRAVES; i++) VISIT(u->grave_objects[i], u->grave[i]);
    }
    while (size) {
        const void *o = stack[--size].o;
        record *r = record_of(o);
        if (counting && !atomic_load(&r->immortal)) {
            size_t count = wn_refcount(m, o), least = (size_t)atomic_load(&r->live_edges);
            size_t most = (size_t)(atomic_load(&r->in_edges) + atomic_load(&r->as_value));
            if (count < least || count > most)
                wrong(
                    "object %llu (%s) has count %zu; the model knows %zu references from what is alive and %zu in all",
                    (unsigned long long)r->id, r->type->name, count, least, most);
        }
        for (size_t k = 0; k < r->n_refs; k++)
            if (r->refs[k]) VISIT((const void *)*slot_of((void *)(uintptr_t)o, r->type, k), r->refs[k]);
    }
    while (work_size) work[--work_size]->reachable = true;
#undef VISIT
}

static void check_weaks(wn_mutator *m, bool collected) {
    uint64_t now = atomic_load(&resurrections);
    EACH_UNIVERSE(u) {
        for (int i = 0; i < WEAKS; i++) {
            weak *w = u->weaks[i];
            if (!w) continue;
            wn_root(m, void *, o, wn_weakref_get(m, u->weak_objects[i]));
            if (o && record_of(o) != w->target) wrong("a weak reference leads to the wrong object");
            if (!o && w->target->reachable && w->resurrections == now)
                wrong("a weak reference to object %llu, which is reachable, is empty",
                      (unsigned long long)w->target->id);
            if (o && collected && !w->target->may_live)
                wrong("a weak reference to object %llu, which is garbage, is not empty",
                      (unsigned long long)w->target->id);
            /* With several threads the callback may still be due on one that stands still, or on the finalizers'. */
            int calls = atomic_load(&w->calls);
            if (!o && w->with_callback && calls != 1 && (calls || (collected && set.threads == 1 && !set.inexact)))
                wrong("the callback of an empty weak reference ran %d times", calls);
            if (o && atomic_load(&w->calls)) wrong("the callback of a weak reference ran while it has its target");
        }
        for (int i = 0; i < EPHEMERONS; i++) {
            pair_of *p = &u->pairs[i];
            if (!p->key) continue;
            wn_root(m, void *, key, wn_ephemeron_key(m, u->pair_objects[i]));
            wn_root(m, void *, value, wn_ephemeron_value(m, u->pair_objects[i]));
            if (key && record_of(key) != p->key) wrong("an ephemeron has the wrong key");
            if (key && record_of(value) != p->value) wrong("an ephemeron has the wrong value");
            if (!key && value) wrong("an ephemeron without a key has a value");
            if (!key && p->key->reachable && p->resurrections == now)
                wrong("an ephemeron has lost its key, object %llu, which is reachable", (unsigned long long)p->key->id);
            if (key && collected && !p->key->may_live)
                wrong("an ephemeron keeps its key, object %llu, which is garbage", (unsigned long long)p->key->id);
            if (p->empty) *p = (pair_of){0};
        }
    }
}

/* In the heap, counting, there is nothing that the model does not know to be possibly alive. */
static bool must_be_known(void *o, void *data) {
    size_t *seen = data;
    const wn_type *t = ((wn_object *)o)->type;
    if (t < types || t >= types + TYPES) return true;
    record *r = record_of(o);
    if (r && !r->may_live)
        wrong("object %llu (%s) is garbage and still in the heap after a full collection", (unsigned long long)r->id,
              t->name);
    ++*seen;
    return true;
}

/* All threads stand still; `m` is the caller's. `full`: collect everything first and demand completeness. */
static void compare(wn_mutator *m, bool full) {
    if (full)
        for (int i = 0; i < 2; i++) /* twice: finalizers may have resurrected what the next one finds */
            if (wn_collect(m, 2, NULL)) wrong("cannot collect: %s", wn_error_message());
    EACH_UNIVERSE(u)
    for (int i = 0; i < EPHEMERONS; i++) {
        if (!u->pairs[i].key) continue;
        wn_root(m, void *, key, wn_ephemeron_key(m, u->pair_objects[i]));
        u->pairs[i].empty = !key;
    }
    EACH_UNIVERSE(u)
    for (record *r = u->all; r; r = r->next) {
        r->reachable = r->may_live = false;
        atomic_store_explicit(&r->live_edges, 0, memory_order_relaxed);
    }
    mark(false);
    mark(true);
    EACH_UNIVERSE(u)
    for (record *r = u->all; r; r = r->next)
        if (r->reachable && atomic_load(&r->released))
            wrong("object %llu (%s) is reachable and was released", (unsigned long long)r->id, r->type->name);
    compare_reachable(m);
    if (full) {
        if (counting) {
            size_t seen = 0;
            wn_each_object(m, must_be_known, &seen);
        }
        EACH_UNIVERSE(u)
        for (record **at = &u->all; *at;) {
            record *r = *at;
            if (r->may_live) {
                at = &r->next;
                continue;
            }
            if (r->type->release && !atomic_load(&r->released))
                wrong("object %llu (%s) is garbage and was not released by a full collection",
                      (unsigned long long)r->id, r->type->name);
            if (r->type->finalize && !atomic_load(&r->finalized))
                wrong("object %llu (%s) is garbage and was not finalized by a full collection",
                      (unsigned long long)r->id, r->type->name);
            if (!r->type->release) /* now it is known to be gone */
                for (size_t k = 0; k < r->n_refs; k++) edge_removed(r->refs[k]);
            at = &r->next;
        }
    }
    check_weaks(m, full);
    if (set.verify && wn_verify(m, stderr)) wrong("the verifier complains");
    if (!full) return;
    EACH_UNIVERSE(u) /* forget the dead; weak references and ephemerons to them are empty, and are forgotten too */
    for (int i = 0; i < WEAKS; i++)
        if (u->weaks[i] && !u->weaks[i]->target->may_live) {
            atomic_store(&u->weaks[i]->held, false);
            u->weaks[i] = NULL;
            wn_take(m, u->weak_objects[i], NULL);
        }
    EACH_UNIVERSE(u)
    for (record *r = u->all; r; r = r->next) atomic_store(&r->as_value, 0);
    EACH_UNIVERSE(u) {
        for (int i = 0; i < EPHEMERONS; i++)
            if (u->pairs[i].value) atomic_fetch_add(&u->pairs[i].value->as_value, 1);
        for (int i = 0; i < EPHEMERONS; i++)
            if (u->pairs[i].key && (!u->pairs[i].key->may_live || (u->pairs[i].value && !u->pairs[i].value->may_live)))
                u->pairs[i] = (pair_of){0};
        for (record **at = &u->all; *at;) {
            record *r = *at;
            if (r->may_live) {
                at = &r->next;
                continue;
            }
            *at = r->next;
            u->n_records--;
            free(r);
        }
    }
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static pthread_barrier_t barrier;
static void meet(wn_mutator *m) {
    if (set.threads == 1) return;
    wn_block_begin(m);
    pthread_barrier_wait(&barrier);
    wn_block_end(m);
}

static void toggle_freeze(wn_mutator *m) {
    if (frozen_depth) {
        if (wn_unfreeze(m)) wrong("cannot unfreeze: %s", wn_error_message());
        frozen_depth = 0;
        EACH_UNIVERSE(u)
        for (record *r = u->all; r; r = r->next) atomic_store(&r->frozen, false);
    } else {
        if (wn_freeze(m)) wrong("cannot freeze: %s", wn_error_message());
        frozen_depth = 1;
        EACH_UNIVERSE(u) /* whatever was alive, which is for the collector to know: everything may be */
        for (record *r = u->all; r; r = r->next) atomic_store(&r->frozen, true);
    }
}

/* A finalizer may run on a thread that comes out of a blocking section, or on one of its own, beside a comparison. */
static void forbid_resurrection(wn_mutator *m) {
    atomic_store(&may_resurrect, false);
    while (atomic_load(&resurrecting)) wn_poll(m);
}

static void *body(void *data) {
    mutator_thread *t = data;
    if (wn_attach(heap, &t->m)) wrong("cannot attach: %s", wn_error_message());
    wn_mutator *m = t->m;
    uint64_t share = set.ops / (uint64_t)set.threads;
    meet(m);
    for (uint64_t at = 0; at < share; at++) {
        if (at % EPOCH == 0) {
            meet(m);
            if (t->number == 0) {
                uint64_t epoch = at / EPOCH, r = mix(set.seed * 77 + epoch);
                forbid_resurrection(m);
                compare(m, epoch % 4 == 0);
                if (r % 5 == 0) toggle_freeze(m);
                atomic_store(&may_resurrect, r % 3 == 0);
                for (int i = 0; i < set.threads; i++) atomic_store_explicit(&report->at[i], at, memory_order_relaxed);
            }
            meet(m);
        }
        atomic_store_explicit(&report->at[t->number], at, memory_order_relaxed);
        if (!in_script(t->number, at)) continue;
        operation op = operation_at(t->number, at);
        if (op.kind == OP_SHARE && set.threads > 0) { /* a private root gets a shared object */
            lock_in_blocking_section(m, &shared_lock);
            uint32_t from = op.a % ROOTS;
            set_root(m, &t->own, op.b % ROOTS, shared_universe.roots[from], shared_universe.root_objects[from]);
            pthread_mutex_unlock(&shared_lock);
        } else if (op.shared) {
            lock_in_blocking_section(m, &shared_lock);
            run(m, &shared_universe, op, t->number);
            pthread_mutex_unlock(&shared_lock);
        } else {
            run(m, &t->own, op, t->number);
        }
    }
    atomic_store(&report->at[t->number], share);
    meet(m);
    if (t->number == 0) {
        forbid_resurrection(m);
        if (frozen_depth) toggle_freeze(m);
        compare(m, true);
    }
    meet(m);
    if (wn_detach(m)) wrong("cannot detach: %s", wn_error_message());
    return NULL;
}

static void universe_start(universe *u, int number) {
    *u = (universe){.number = number};
    bool bad = false;
    for (int i = 0; i < ROOTS; i++) bad |= wn_global(heap, &u->root_objects[i]) != WN_OK;
    for (int i = 0; i < WEAKS; i++) bad |= wn_global(heap, &u->weak_objects[i]) != WN_OK;
    for (int i = 0; i < EPHEMERONS; i++) bad |= wn_global(heap, &u->pair_objects[i]) != WN_OK;
    for (int i = 0; i < PINS; i++) bad |= wn_global(heap, &u->pin_objects[i]) != WN_OK;
    for (int i = 0; i < GRAVES; i++) bad |= wn_global(heap, &u->grave_objects[i]) != WN_OK;
    if (bad) wrong("cannot declare a global: %s", wn_error_message());
}

/* The whole run, in this process. Ends it by wrong() on failure. */
static void run_all(void) {
    if (wn_heap_new(NULL, &heap)) wrong("no heap: %s", wn_error_message());
    counting = wn_heap_collector(heap) == WN_COLLECTOR_REFCOUNT;
    universe_start(&shared_universe, -1);
    for (int i = 0; i < set.threads; i++) {
        threads[i].number = i;
        universe_start(&threads[i].own, i);
    }
    if (set.threads == 1) {
        body(&threads[0]);
    } else {
        pthread_barrier_init(&barrier, NULL, (unsigned)set.threads);
        for (int i = 0; i < set.threads; i++)
            if (pthread_create(&threads[i].thread, NULL, body, &threads[i])) wrong("cannot start a thread");
        for (int i = 0; i < set.threads; i++) pthread_join(threads[i].thread, NULL);
    }
    atomic_store(&closing, true);
    if (wn_heap_free(heap)) wrong("cannot free the heap: %s", wn_error_message());
    atomic_store(&report->done, 1);
}

/* Runs in a forked child. True: it failed. */
static bool fails(unsigned seconds) {
    atomic_store(&report->claimed, 0);
    atomic_store(&report->done, 0);
    report->failure[0] = 0;
    for (int i = 0; i < THREADS_MAX; i++) atomic_store(&report->at[i], 0);
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(2);
    }
    if (child == 0) {
        if (seconds) alarm(seconds);
        run_all();
        exit(0); /* and not _exit: a sanitizer may have more to say */
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        if (!report->failure[0])
            snprintf(report->failure, sizeof report->failure,
                     WTERMSIG(status) == SIGALRM ? "the run hangs" : "signal %d (%s)", WTERMSIG(status),
                     strsignal(WTERMSIG(status)));
        return true;
    }
    if (WEXITSTATUS(status) && !report->failure[0])
        snprintf(report->failure, sizeof report->failure, "exit status %d", WEXITSTATUS(status));
    return WEXITSTATUS(status) != 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- shrinking --------------------------------------------------------------------------------------------------- */

static void print_script(void) {
    size_t total = 0;
    for (int t = 0; t < set.threads; t++)
        for (uint64_t i = 0; i < set.ops / (uint64_t)set.threads; i++) {
            if (!in_script(t, i)) continue;
            if (++total > 200) continue;
            operation op = operation_at(t, i);
            fprintf(stderr, "  thread %d, %9llu: %s%s %u %u %u\n", t, (unsigned long long)i, op.shared ? "shared " : "",
                    kind_names[op.kind], op.a % ROOTS, op.b % ROOTS, op.c);
        }
    fprintf(stderr, "  %zu operations\n", total);
}

/* Delta debugging over the union of all threads' operations. With several threads a script fails only sometimes, so
 * each is tried a few times. */
static void shrink(void) {
    uint64_t share = set.ops / (uint64_t)set.threads, n = 0;
    double deadline = now() + 120;
    uint64_t last = 0;
    for (int t = 0; t < set.threads; t++)
        if (atomic_load(&report->at[t]) > last) last = atomic_load(&report->at[t]);
    if (last + 1 < share) share = last + 1; /* nothing after the failure matters */
    uint64_t keep_ops = share * (uint64_t)set.threads;
    int tries = set.threads == 1 ? 1 : 4;
    char original[sizeof report->failure];
    memcpy(original, report->failure, sizeof original);
    set.ops = keep_ops;
    uint64_t *list = malloc((size_t)keep_ops * sizeof *list);
    if (!list) return;
    for (int t = 0; t < set.threads; t++) {
        script[t] = malloc((size_t)share / 8 + 1);
        if (!script[t]) return;
        memset(script[t], 0xff, (size_t)share / 8 + 1);
        for (uint64_t i = 0; i < share; i++) list[n++] = i * (uint64_t)set.threads + (uint64_t)t;
    }
    char kept[sizeof report->failure];
    memcpy(kept, original, sizeof kept);
#define BIT(k, on)                                                                                      \
    do {                                                                                                \
        uint8_t *byte_ = &script[list[k] % (uint64_t)set.threads][list[k] / (uint64_t)set.threads / 8]; \
        uint8_t bit_ = (uint8_t)(1 << (list[k] / (uint64_t)set.threads % 8));                           \
        *byte_ = (uint8_t)((on) ? *byte_ | bit_ : *byte_ & ~bit_);                                      \
    } while (0)
    uint64_t chunk = n / 2;
    while (chunk >= 1 && now() < deadline) {
        bool smaller = false;
        for (uint64_t start = 0; start < n && now() < deadline;) {
            uint64_t end = start + chunk < n ? start + chunk : n;
            for (uint64_t k = start; k < end; k++) BIT(k, false);
            bool failed = false;
            for (int k = 0; k < tries && !failed; k++) failed = fails(60);
            if (failed) {
                memcpy(kept, report->failure, sizeof kept);
                memmove(&list[start], &list[end], (size_t)(n - end) * sizeof *list);
                n -= end - start;
                smaller = true;
            } else {
                for (uint64_t k = start; k < end; k++) BIT(k, true);
                start = end;
            }
        }
        if (chunk == 1 && !smaller) break;
        if (chunk > 1) chunk /= 2;
        if (chunk > n) chunk = n / 2 ? n / 2 : 1;
    }
#undef BIT
    fprintf(stderr, "the shortest script found (seed %llu, %d threads), failing with: %s\n",
            (unsigned long long)set.seed, set.threads, kept);
    print_script();
    free(list);
}

/* Reads a script as print_script wrote it: only its operations are run. */
static void read_script(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "random_graph: cannot read %s: %s\n", path, strerror(errno));
        exit(2);
    }
    uint64_t share = set.ops / (uint64_t)set.threads;
    for (int t = 0; t < set.threads; t++)
        if (!(script[t] = calloc(1, (size_t)share / 8 + 1))) exit(2);
    char line[200];
    int t;
    unsigned long long i;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, " thread %d, %llu:", &t, &i) == 2 && t >= 0 && t < set.threads && i < share)
            script[t][i / 8] |= (uint8_t)(1 << (i % 8));
    fclose(f);
}

/* ---- command line ------------------------------------------------------------------------------------------------ */

static uint64_t number(const char *text, const char *option) {
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 0);
    if (errno || end == text || *end) {
        fprintf(stderr, "random_graph: --%s needs a number, not \"%s\"\n", option, text);
        exit(2);
    }
    return n;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"ops", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"no-shrink", no_argument, NULL, 'x'},
                                            {"no-verify", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"script", required_argument, NULL, 'r'},
                                            {"no-fork", no_argument, NULL, 'f'},
                                            {"limit", required_argument, NULL, 'l'},
                                            {"inexact", no_argument, NULL, 'i'},
                                            {NULL, 0, NULL, 0}};
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const char *replay = NULL;
    set.seed = mix((uint64_t)t.tv_nsec ^ (uint64_t)t.tv_sec << 20 ^ (uint64_t)getpid()) % 1000000000;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 's': set.seed = number(optarg, "seed"); break;
        case 'n': set.ops = number(optarg, "ops"); break;
        case 't': set.threads = (int)number(optarg, "threads"); break;
        case 'r': replay = optarg; break;
        case 'x': set.shrink = false; break;
        case 'v': set.verify = false; break;
        case 'f': set.fork = false; break;
        case 'l': set.limit = (unsigned)number(optarg, "limit"); break;
        case 'i': set.inexact = true; break;
        default:
            fprintf(o == 'h' ? stdout : stderr,
                    "usage: random_graph [--seed N] [--ops N] [--threads N] [--limit SECONDS]\n"
                    "                    [--script FILE] [--no-shrink] [--no-verify] [--no-fork] [--inexact]\n"
                    "The collector and its options come from WINNOW_COLLECTOR and WINNOW_OPTIONS.\n"
                    "--inexact: garbage may outlive a full collection, as with conservative_stacks=on or\n"
                    "finalizer_thread=on; what is reachable must be there and whole all the same.\n");
            return o == 'h' ? 0 : 2;
        }
    }
    if (set.threads < 1 || set.threads > THREADS_MAX) {
        fprintf(stderr, "random_graph: --threads must be 1 to %d\n", THREADS_MAX);
        return 2;
    }
    const char *wanted = getenv("WINNOW_COLLECTOR");
    for (int id = WN_COLLECTOR_REFCOUNT; wanted && id <= WN_COLLECTOR_CONCURRENT; id++)
        if (!strcmp(wanted, wn_collector_name((wn_collector_id)id)) && !wn_collector_available((wn_collector_id)id)) {
            fprintf(stderr, "random_graph: this build has no %s collector: skipped\n", wanted);
            return SKIPPED;
        }
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    make_types();
    make_kind_table();
    if (replay) read_script(replay);
    printf("random_graph: collector %s, seed %llu, %llu operations, %d threads\n", wanted ? wanted : "default",
           (unsigned long long)set.seed, (unsigned long long)set.ops, set.threads);
    double start = now();
    if (!set.fork) {
        run_all();
        printf("random_graph: passed in %.1f s\n", now() - start);
        return 0;
    }
    if (!fails(set.limit)) {
        printf("random_graph: passed in %.1f s\n", now() - start);
        return 0;
    }
    fprintf(stderr, "random_graph: FAILED: %s\n  again: --seed %llu --ops %llu --threads %d\n", report->failure,
            (unsigned long long)set.seed, (unsigned long long)set.ops, set.threads);
    for (int i = 0; i < set.threads; i++)
        fprintf(stderr, "  thread %d was at operation %llu\n", i, (unsigned long long)atomic_load(&report->at[i]));
    if (set.shrink) shrink();
    return 1;
}
