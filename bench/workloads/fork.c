/*
 * fork.c - a pre-fork server: loads a store, forks workers that collect ten times, every second of which also reads,
 * and tells how much memory each worker has made its own.
 *
 * Reading changes counts and collecting changes marks; neither writes into an object, so the pages that hold objects
 * stay shared, frozen or not. `private_dirty_bytes` is what smaps_rollup counts in a worker beyond what it had right
 * after fork(); `private_object_pages` are pages with objects that are the worker's alone, by pagemap.
 */
#include "../random.h"
#include "../store/store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEGABYTES, WORKERS, READS, COLLECTIONS, FREEZE };
enum { MAX_WORKERS = BENCH_NOTE_VALUES };

/* What a worker tells, in shared memory. */
typedef struct report {
    bool done;
    double dirty_bytes, object_pages, reads;
    uint64_t digest;
} report;

/* The pages that hold objects, sorted, each once. */
typedef struct pages {
    uintptr_t *page;
    size_t n, room, page_size;
    bool failed;
} pages;

static bool note_page(void *object, void *data) {
    pages *p = data;
    uintptr_t page = (uintptr_t)object / p->page_size;
    if (p->n && p->page[p->n - 1] == page) return true;
    if (p->n == p->room) {
        size_t room = p->room ? p->room * 2 : 1 << 16;
        uintptr_t *more = realloc(p->page, room * sizeof *more);
        if (!more) return p->failed = true, false;
        p->page = more;
        p->room = room;
    }
    p->page[p->n++] = page;
    return true;
}

static int by_page(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

static pages object_pages(bench *b) {
    pages p = {.page_size = (size_t)sysconf(_SC_PAGESIZE)};
    if (wn_each_object(b->m, note_page, &p) || p.failed) bench_fail(b, "the pages of objects could not be listed");
    qsort(p.page, p.n, sizeof *p.page, by_page);
    size_t kept = 0;
    for (size_t i = 0; i < p.n; i++)
        if (!kept || p.page[kept - 1] != p.page[i]) p.page[kept++] = p.page[i];
    p.n = kept;
    return p;
}

/* Pages with objects that only this process maps (bit 56 of its pagemap entry); -1 where the kernel does not tell. */
static double private_pages(const pages *p) {
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (fd < 0) return -1;
    size_t private = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint64_t e;
        if (pread(fd, &e, sizeof e, (off_t)(p->page[i] * sizeof e)) != sizeof e) return close(fd), -1;
        if (e >> 63 && e >> 56 & 1) private++;
    }
    close(fd);
    return (double)private;
}

static double private_dirty(void) {
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Private_Dirty: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return (double)kib * 1024;
}

static void work(bench *b, store *s, const pages *p, unsigned worker, double dirty_at_fork, report *report) {
    wn_mutator *m = b->m;
    uint64_t total = s->copies * s->sources.n, rounds = b->param[COLLECTIONS];
    bool reads = worker % 2;
    bench_random r = bench_random_seed(100 + worker);
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint64_t i = 0; reads && i < b->param[READS] / rounds; i++) {
            document *d = store_find(s, bench_random_zipf(&r, total) * 1000003 % total);
            if (d) report->digest = bench_fold(report->digest, store_read(m, d));
            report->reads++;
        }
        wn_collect_result result;
        if (wn_collect(m, 2, &result)) bench_fail(b, "worker %u: wn_collect: %s", worker, wn_error_message());
        if (result.collected) bench_fail(b, "worker %u: a collection freed %zu live objects", worker, result.collected);
    }
    report->dirty_bytes = private_dirty() - dirty_at_fork;
    report->object_pages = private_pages(p);
    report->done = true;
}

static void run(bench *b) {
    wn_mutator *m = b->m;
    unsigned workers = b->param[WORKERS] < MAX_WORKERS ? (unsigned)b->param[WORKERS] : MAX_WORKERS;
    store s;
    store_open(&s, b, b->param[MEGABYTES] << 20, 1);
    if (wn_collect(m, 2, NULL)) bench_fail(b, "wn_collect: %s", wn_error_message());
    if (b->param[FREEZE]) {
        store_make_immortal(&s, m);
        if (wn_freeze(m)) bench_fail(b, "wn_freeze: %s", wn_error_message());
    }
    wn_disable(b->heap); /* a server's workers collect when they are asked to */
    pages p = object_pages(b);
    report *reports =
        mmap(NULL, sizeof(report) * MAX_WORKERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reports == MAP_FAILED) bench_fail(b, "no shared memory for the workers: %s", strerror(errno));

    pid_t pid[MAX_WORKERS];
    for (unsigned i = 0; i < workers; i++) {
        pid[i] = fork();
        if (pid[i] < 0) bench_fail(b, "fork: %s", strerror(errno));
        if (pid[i] == 0) {
            work(b, &s, &p, i, private_dirty(), &reports[i]);
            _exit(0);
        }
    }
    double dirty[MAX_WORKERS], pages_[MAX_WORKERS], percent[MAX_WORKERS], reads[MAX_WORKERS];
    wn_block_begin(m);
    for (unsigned i = 0; i < workers; i++) {
        int status;
        while (waitpid(pid[i], &status, 0) < 0 && errno == EINTR) continue;
        if (b->result->error[0]) bench_fail(b, "%s", b->result->error);
        if (!reports[i].done) bench_fail(b, "worker %u died with wait status %#x", i, (unsigned)status);
    }
    wn_block_end(m);
    bench_clock_skip(&b->clock); /* it waited */
    wn_stats *stats = malloc(sizeof *stats);
    if (!stats) bench_fail(b, "no memory for statistics");
    wn_get_stats(b->heap, stats);
    double store_bytes = (double)stats->heap_bytes;
    free(stats);
    for (unsigned i = 0; i < workers; i++) {
        b->checksum = bench_fold(b->checksum, reports[i].digest);
        dirty[i] = reports[i].dirty_bytes;
        percent[i] = 100 * dirty[i] / store_bytes;
        pages_[i] = reports[i].object_pages;
        reads[i] = reports[i].reads;
    }
    bench_note_values(b, "private_dirty_bytes", dirty, workers);
    bench_note_values(b, "private_dirty_percent", percent, workers);
    bench_note_values(b, "private_object_pages", pages_, workers);
    bench_note_values(b, "reads", reads, workers);
    bench_note_values(b, "store_heap_bytes", &store_bytes, 1);
    bench_note_values(b, "object_pages", &(double){(double)p.n}, 1);
    wn_enable(b->heap);
    if (b->param[FREEZE] && wn_unfreeze(m)) bench_fail(b, "wn_unfreeze: %s", wn_error_message());
    munmap(reports, sizeof(report) * MAX_WORKERS);
    free(p.page);
    store_close(&s, m);
}

#define PARAMS(freeze)                                                                                           \
    {                                                                                                            \
        {"megabytes", 500, 0, BENCH_LINEAR, "size of the store; its documents are loaded as often as it takes"}, \
            {"workers", 4, 1, BENCH_FIXED, "processes forked, at most 8; every second one also reads"},          \
            {"reads", 100000, 1, BENCH_LINEAR, "documents read by a worker that reads"},                         \
            {"collections", 10, 1, BENCH_FIXED, "full collections per worker"}, {                                \
            "freeze", freeze, 0, BENCH_FIXED, "1: documents immortal, heap frozen before fork()"                 \
        }                                                                                                        \
    }

const bench_workload bench_fork = {.name = "fork",
                                   .summary = "private memory of forked workers that read and collect",
                                   .run = run,
                                   .params = PARAMS(0),
                                   .reads_files = true,
                                   .one_thread = true};
const bench_workload bench_fork_freeze = {.name = "fork-freeze",
                                          .summary = "the same, frozen before fork() and with immortal documents",
                                          .run = run,
                                          .params = PARAMS(1),
                                          .reads_files = true,
                                          .one_thread = true};
