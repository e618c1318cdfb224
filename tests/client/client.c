/* client.c - what the client tests share; see client.h. The log may be written from any thread. */
#include "client.h"

#include <pthread.h>
#include <sched.h>

_Atomic unsigned client_finalized[CLIENT_IDS], client_released[CLIENT_IDS];

enum { LOG_MAX = 1 << 16 };
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static client_event log_entries[LOG_MAX];
static size_t log_length;
static unsigned log_totals[256];

void client_note(char kind, long id) {
    pthread_mutex_lock(&log_lock);
    if (log_length < LOG_MAX) log_entries[log_length++] = (client_event){kind, id};
    log_totals[(unsigned char)kind]++;
    pthread_mutex_unlock(&log_lock);
}

size_t client_events(void) { return log_length; }
client_event client_event_at(size_t i) { return log_entries[i]; }
unsigned client_total(char kind) {
    pthread_mutex_lock(&log_lock);
    unsigned n = log_totals[(unsigned char)kind];
    pthread_mutex_unlock(&log_lock);
    return n;
}

long client_when(char kind, long id) {
    for (size_t i = 0; i < log_length; i++)
        if (log_entries[i].kind == kind && log_entries[i].id == id) return (long)i;
    return -1;
}

void client_forget(void) {
    pthread_mutex_lock(&log_lock);
    log_length = 0;
    memset(log_totals, 0, sizeof log_totals);
    pthread_mutex_unlock(&log_lock);
    for (size_t i = 0; i < CLIENT_IDS; i++) {
        atomic_store_explicit(&client_finalized[i], 0, memory_order_relaxed);
        atomic_store_explicit(&client_released[i], 0, memory_order_relaxed);
    }
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

static void mortal_finalize(wn_mutator *m, void *object) {
    mortal *self = object;
    if (self->id >= 0 && self->id < CLIENT_IDS) atomic_fetch_add(&client_finalized[self->id], 1);
    client_note(EVENT_FINALIZE, self->id);
    if (self->will) self->will(m, self);
}

static void mortal_release(void *object) {
    mortal *self = object;
    if (self->id >= 0 && self->id < CLIENT_IDS) atomic_fetch_add(&client_released[self->id], 1);
    client_note(EVENT_RELEASE, self->id);
}

const wn_type pair_type = WN_TYPE(pair, WN_REFS(pair, a, b));
const wn_type mortal_type =
    WN_TYPE(mortal, WN_REFS(mortal, a, b), .finalize = mortal_finalize, .release = mortal_release);
const wn_type relic_type = {.name = "relic", .size = sizeof(mortal), WN_REFS(mortal, a, b), .release = mortal_release};
const wn_type leaf_type = WN_TYPE(leaf, .flags = 0);
const wn_type vector_type = WN_TYPE(vector, WN_ITEMS(vector, length, items));
const wn_type tuple_type = {
    .name = "tuple", .size = sizeof(vector), .flags = WN_TYPE_IMMUTABLE, WN_ITEMS(vector, length, items)};
const wn_type blob_type = WN_TYPE(blob, WN_DATA(blob, length, bytes));

void *client_new(wn_mutator *m, const wn_type *type) {
    void *o = wn_new(m, type);
    if (!o) fail_msg("no memory for a %s: %s", type->name, wn_error_message());
    return o;
}

void *client_new_array(wn_mutator *m, const wn_type *type, size_t length) {
    void *o = wn_new_array(m, type, length);
    if (!o) fail_msg("no memory for a %s of %zu: %s", type->name, length, wn_error_message());
    return o;
}

static void *fill(wn_mutator *m, const wn_type *type, long id, void *a, void *b) {
    wn_borrow(m, void *, first, a);
    wn_borrow(m, void *, second, b);
    wn_root(m, mortal *, o, client_new(m, type)); /* a pair begins like a mortal */
    o->id = id;
    wn_set(m, o, a, first);
    wn_set(m, o, b, second);
    return wn_give(m, o);
}

void *client_pair(wn_mutator *m, long id, void *a, void *b) { return fill(m, &pair_type, id, a, b); }
void *client_mortal(wn_mutator *m, long id, void *a, void *b) { return fill(m, &mortal_type, id, a, b); }
void *client_relic(wn_mutator *m, long id, void *a, void *b) { return fill(m, &relic_type, id, a, b); }

/* ---- heaps ------------------------------------------------------------------------------------------------------- */

client client_open(const wn_options *options) {
    client c;
    client_forget();
    if (wn_heap_new(options, &c.heap)) fail_msg("no heap: %s", wn_error_message());
    if (wn_attach(c.heap, &c.m)) fail_msg("cannot attach: %s", wn_error_message());
    return c;
}

wn_options client_quiet_options(void) {
    wn_options o = wn_options_default();
    o.collector = WN_COLLECTOR_INCREMENTAL;
    o.pretenure = WN_NEVER;
    o.min_heap = (size_t)1 << 40;
    return o;
}

void client_close(client *c) {
    assert_int_equal(wn_verify(c->m, stderr), 0);
    if (wn_detach(c->m)) fail_msg("cannot detach: %s", wn_error_message());
    if (wn_heap_free(c->heap)) fail_msg("cannot free the heap: %s", wn_error_message());
    *c = (client){0};
}

wn_collect_result client_collect(wn_mutator *m) {
    wn_collect_result result = {0};
    if (wn_collect(m, 2, &result)) fail_msg("cannot collect: %s", wn_error_message());
    return result;
}

static bool count_object(void *object, void *data) {
    (void)object;
    ++*(size_t *)data;
    return true;
}
size_t client_alive(wn_mutator *m) {
    size_t n = 0;
    assert_int_equal(wn_each_object(m, count_object, &n), WN_OK);
    return n;
}

bool client_counts(const client *c) { return wn_heap_collector(c->heap) == WN_COLLECTOR_REFCOUNT; }
bool client_moves(const client *c) { return wn_heap_collector(c->heap) == WN_COLLECTOR_INCREMENTAL; }

bool client_stressed(void) {
    const char *options = getenv("WINNOW_OPTIONS");
    return options && strstr(options, "stress");
}

bool client_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return false;
}

size_t client_scaled(size_t n) {
    const char *text = getenv("WINNOW_TEST_SCALE");
    size_t divisor = text ? strtoul(text, NULL, 10) : 1;
    if (divisor == 0) divisor = 1;
    if (client_sanitized()) divisor *= 8;
    if (client_stressed()) divisor *= 1000;
    return n / divisor > 20 ? n / divisor : n < 20 ? n : 20;
}

/* A turn of a loop that waits for the other thread. At first it keeps the processor, because the two are to meet; but
 * where that is what the other waits for, it would get it only after some milliseconds. */
static void wait_a_turn(unsigned *turns) {
    if (++*turns % 256 == 0) sched_yield();
}

static struct rival {
    wn_heap *heap;
    pthread_t thread;
    void *held; /* a global */
    _Atomic unsigned given, gone;
    unsigned rounds;
} rival;

static void *be_a_rival(void *failure) {
    wn_mutator *m;
    if (wn_attach(rival.heap, &m)) return failure;
    for (unsigned r = 1; r <= rival.rounds; r++) {
        for (unsigned turns = 0; atomic_load(&rival.given) != r; wait_a_turn(&turns)) wn_poll(m);
        for (unsigned i = 0; i < r % 32; i++) wn_poll(m);
        wn_assign(m, rival.held, NULL);
        wn_poll(m);
        atomic_store(&rival.gone, r);
    }
    return wn_detach(m) ? failure : NULL;
}

void client_rival_start(client *c, unsigned rounds) {
    rival = (struct rival){.heap = c->heap, .rounds = rounds};
    assert_int_equal(wn_global(c->heap, &rival.held), WN_OK);
    assert_int_equal(pthread_create(&rival.thread, NULL, be_a_rival, &rival), 0);
}

void client_rival_take(wn_mutator *m, void *object) {
    wn_assign(m, rival.held, object);
    atomic_fetch_add(&rival.given, 1);
}

bool client_rival_let_go(void) {
    static unsigned turns;
    if (atomic_load(&rival.gone) == atomic_load(&rival.given)) return true;
    wait_a_turn(&turns);
    return false;
}

void client_rival_end(client *c) {
    void *failure;
    wn_block_begin(c->m);
    pthread_join(rival.thread, &failure);
    wn_block_end(c->m);
    assert_null(failure);
    assert_int_equal(wn_forget_global(c->m, &rival.held), WN_OK);
}

int client_main(const char *name, const struct CMUnitTest *tests, size_t n) {
    const char *wanted = getenv("WINNOW_COLLECTOR");
    if (wanted)
        for (int id = WN_COLLECTOR_REFCOUNT; id <= WN_COLLECTOR_CONCURRENT; id++)
            if (strcmp(wanted, wn_collector_name((wn_collector_id)id)) == 0 &&
                !wn_collector_available((wn_collector_id)id)) {
                fprintf(stderr, "%s: this build has no %s collector: skipped\n", name, wanted);
                return CLIENT_SKIP;
            }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return _cmocka_run_group_tests(name, tests, n, NULL, NULL) ? EXIT_FAILURE : EXIT_SUCCESS;
}
