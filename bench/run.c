/*
 * run.c - runs a workload in a forked child, with as many mutator threads as asked for.
 *
 * The invariant: whatever happens to the child (out of memory, a crash, a checksum it cannot finish), the parent learns
 * of it from the shared result and the exit status, and says it; it never reports a figure of a run that is not done.
 */
#include "run.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

bench_result *bench_result_new(void) {
    void *p = mmap(NULL, sizeof(bench_result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void bench_result_free(bench_result *r) {
    if (r) munmap(r, sizeof *r);
}

_Noreturn void bench_fail(bench *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(b->result->error, sizeof b->result->error, format, args);
    va_end(args);
    if (b->result->in_process) fprintf(stderr, "%s\n", b->result->error);
    _exit(1); /* other mutators may be running: nothing can be taken down in order */
}

_Noreturn void bench_out_of_memory(bench *b) {
    bench_fail(b, "out of memory: %s; give it more by --heap-limit, or make the workload smaller by --scale",
               wn_error_message());
}

void bench_note_values(bench *b, const char *name, const double *values, unsigned n) {
    bench_result *r = b->result;
    if (b->thread || r->notes == BENCH_NOTES) return;
    bench_note *note = &r->note[r->notes++];
    snprintf(note->name, sizeof note->name, "%s", name);
    note->n = n < BENCH_NOTE_VALUES ? n : BENCH_NOTE_VALUES;
    memcpy(note->value, values, note->n * sizeof(double));
}

uint64_t bench_full_collection(bench *b, wn_mutator *m) {
    wn_collect_result result;
    uint64_t start = bench_now();
    if (wn_collect(m, 2, &result)) bench_fail(b, "wn_collect failed: %s", wn_error_message());
    uint64_t ns = bench_now() - start;
    if (result.collected) bench_fail(b, "a full collection freed %zu live objects", result.collected);
    return ns;
}

static double cpu_seconds(int who) {
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* The process's greatest resident size: VmHWM, which, unlike ru_maxrss, does not begin with the parent's. */
static uint64_t peak_rss(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    if (kib) return kib * 1024;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_maxrss * 1024;
}

typedef struct thread {
    bench b;
    const bench_workload *workload;
    pthread_t id;
} thread;

/* A mutator thread: attaches, runs the workload on a graph of its own, detaches. */
static void *run_thread(void *arg) {
    thread *t = arg;
    bench *b = &t->b;
    if (wn_attach(b->heap, &b->m)) bench_fail(b, "wn_attach: %s", wn_error_message());
    bench_clock_start(&b->clock);
    t->workload->run(b);
    bench_tick(b);
    b->clock.gaps.run_ns = b->clock.last - b->clock.start;
    if (wn_detach(b->m)) bench_fail(b, "wn_detach: %s", wn_error_message());
    return NULL;
}

/* Collectors that run on the program's own thread are timed by the wall clock, which costs less to read: where the
 * processor had other work as well, they had the share of it that the whole program had. */
static void charge_collector(bench_result *r) {
    if (r->cpu_s < r->wall_s) r->gc.gc_cpu_ns = (uint64_t)((double)r->gc.gc_cpu_ns * r->cpu_s / r->wall_s);
}

/* All of a run, in this process. */
static void run_here(const bench_job *job, bench_result *r) {
    unsigned n = job->settings->threads;
    thread *threads = calloc(n, sizeof *threads);
    bench lost = {.result = r};
    if (!threads) bench_fail(&lost, "no memory for %u threads", n);
    uint64_t start = bench_now();
    double cpu = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN);
    wn_heap *heap;
    if (wn_heap_new(&job->options, &heap)) bench_fail(&lost, "the heap could not be made: %s", wn_error_message());
    for (unsigned i = 0; i < n; i++) {
        threads[i].workload = job->workload;
        threads[i].b = (bench){.heap = heap, .thread = i, .param = job->param, .settings = job->settings, .result = r};
        if (i && pthread_create(&threads[i].id, NULL, run_thread, &threads[i]))
            bench_fail(&lost, "thread %u of %u could not be made; ask for fewer by --threads", i + 1, n);
    }
    run_thread(&threads[0]);
    for (unsigned i = 1; i < n; i++) pthread_join(threads[i].id, NULL);

    r->wall_s = (double)(bench_now() - start) / 1e9;
    r->cpu_s = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN) - cpu;
    wn_get_stats(heap, &r->gc);
    if (wn_heap_collector(heap) != WN_COLLECTOR_CONCURRENT) charge_collector(r);
    r->peak_rss_bytes = peak_rss();
    const bench_gaps *gaps = &threads[0].b.clock.gaps;
    memcpy(&r->gaps, gaps, offsetof(bench_gaps, gap) + gaps->n * sizeof(bench_gap));
    for (unsigned w = 0; w < BENCH_WINDOWS; w++) r->mmu[w] = 1;
    for (unsigned i = 0; i < n; i++) {
        bench *b = &threads[i].b;
        r->checksum = (r->checksum + b->checksum) & 0xffffffffu;
        wn_histogram_merge(&r->stall, &b->clock.stall);
        wn_histogram_merge(&r->request, &b->request);
        for (unsigned w = 0; w < BENCH_WINDOWS; w++) {
            double mmu = bench_mmu(&b->clock.gaps, bench_windows_ms[w] * (uint64_t)1000000);
            if (mmu < r->mmu[w]) r->mmu[w] = mmu;
        }
    }
    if (wn_heap_free(heap)) bench_fail(&lost, "wn_heap_free: %s", wn_error_message());
    free(threads);
    r->done = true;
}

/* Waits for the child; the end of the pipe that it inherited hangs up when it is gone. */
static int await(const bench_job *job, pid_t child, int fd) {
    uint64_t start = bench_now();
    struct pollfd p = {.fd = fd};
    while (poll(&p, 1, 250) == 0 || !(p.revents & POLLHUP))
        if (job->progress) job->progress(job, (double)(bench_now() - start) / 1e9, job->data);
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return status;
}

/* Has the system end this process, by SIGIO, when the pipe's other end is closed: when the parent is gone, even killed,
 * nobody is left who would wait for what may take many minutes and gigabytes. */
static void end_with(int fd) {
    signal(SIGIO, SIG_DFL);
    fcntl(fd, F_SETOWN, getpid());
    fcntl(fd, F_SETFL, O_ASYNC);
    struct pollfd p = {.fd = fd};
    if (poll(&p, 1, 0)) _exit(1); /* it went before that was said */
}

void bench_run(const bench_job *job, bench_result *result) {
    memset(result, 0, sizeof *result);
    if (job->in_process) {
        result->in_process = true;
        run_here(job, result);
        return;
    }
    int fd[2] = {-1, -1}, life[2];
    if (pipe(fd) || pipe(life)) {
        snprintf(result->error, sizeof result->error, "no pipe: %s", strerror(errno));
        close(fd[0]);
        close(fd[1]);
        return;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(fd[0]);
        close(life[1]);
        end_with(life[0]);
        run_here(job, result);
        _exit(0);
    }
    close(fd[1]);
    close(life[0]);
    if (child < 0) {
        snprintf(result->error, sizeof result->error, "no process for the run: %s", strerror(errno));
    } else {
        int status = await(job, child, fd[0]);
        if (WIFSIGNALED(status)) {
            result->done = false;
            snprintf(result->error, sizeof result->error, "the run died by signal %d (%s)%s", WTERMSIG(status),
                     strsignal(WTERMSIG(status)),
                     WTERMSIG(status) == SIGKILL ? "; if the system ran out of memory, try --scale or --heap-limit"
                                                 : "");
        } else if (!result->done && !result->error[0]) {
            snprintf(result->error, sizeof result->error, "the run ended with status %d", WEXITSTATUS(status));
        }
    }
    close(fd[0]);
    close(life[1]);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_spread bench_spread_of(double *values, unsigned n) {
    qsort(values, n, sizeof *values, by_value);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return (bench_spread){values[0], median, values[n - 1]};
}
