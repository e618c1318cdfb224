/* huge.c - finding the ranges worth collapsing, and collapsing them in small steps. */
#include "huge.h"

#include "platform/platform.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* newer than some C libraries */
#endif

enum {
    PAGE = 4096,
    RANGE = 2 << 20,
    PAGES = RANGE / PAGE,
    ENOUGH = PAGES - PAGES / 16, /* pages of a range that must be in use */
    STACK = 128 << 10
};

static struct {
    uint32_t running;
    size_t ranges;
    char text[16384]; /* of /proc/self/maps; the thread's alone */
    uint64_t page[PAGES];
} huge;

size_t huge_ranges(void) { return __atomic_load_n(&huge.ranges, __ATOMIC_RELAXED); }
bool huge_at_work(void) { return __atomic_load_n(&huge.running, __ATOMIC_ACQUIRE) != 0; }
void huge_forked(void) { huge.running = 0; }

static bool in_use(int pagemap, uintptr_t range) {
    if (pread(pagemap, huge.page, sizeof huge.page, (off_t)(range / PAGE * sizeof *huge.page)) != sizeof huge.page)
        return false;
    unsigned n = 0;
    for (unsigned i = 0; i < PAGES; i++) n += huge.page[i] >> 63; /* present */
    return n >= ENOUGH;
}

/* The kernel keeps the program from faulting while it copies a range, so there is a pause after each that took time. */
static bool collapse(uintptr_t range) {
    uint64_t start = wn_os_now();
    bool done = madvise((void *)range, RANGE, MADV_COLLAPSE) == 0;
    uint64_t took = wn_os_now() - start;
    if (took > 20000) nanosleep(&(struct timespec){.tv_nsec = took < 100000000 ? (long)(2 * took) : 200000000}, NULL);
    return done;
}

/* A line of the maps: private writable memory that belongs to no file. */
static size_t collapse_line(const char *line, int pagemap) {
    char *at;
    uintptr_t from = strtoul(line, &at, 16), to = strtoul(at + 1, &at, 16);
    if (strncmp(at, " rw-p ", 6) != 0) return 0;
    for (int field = 0; field < 4; field++) { /* permissions, offset, device, inode: the name, if any, is next */
        while (*at == ' ') at++;
        if (field == 3 && *at != '0') return 0;
        while (*at && *at != ' ') at++;
    }
    while (*at == ' ') at++;
    if (*at && strcmp(at, "[heap]") != 0) return 0;
    size_t n = 0;
    for (uintptr_t range = (from + RANGE - 1) & ~(uintptr_t)(RANGE - 1); range + RANGE <= to; range += RANGE)
        if (in_use(pagemap, range)) n += collapse(range);
    return n;
}

static void *work(void *ignored) {
    (void)ignored;
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC),
        pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    size_t have = 0, ranges = 0;
    ssize_t got;
    while (maps >= 0 && pagemap >= 0 && (got = read(maps, huge.text + have, sizeof huge.text - 1 - have)) > 0) {
        have += (size_t)got;
        huge.text[have] = 0;
        char *line = huge.text;
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            ranges += collapse_line(line, pagemap);
        }
        have -= (size_t)(line - huge.text);
        memmove(huge.text, line, have);
    }
    if (maps >= 0) close(maps);
    if (pagemap >= 0) close(pagemap);
    __atomic_store_n(&huge.ranges, ranges, __ATOMIC_RELAXED);
    __atomic_store_n(&huge.running, 0, __ATOMIC_RELEASE);
    return NULL;
}

bool huge_begin(void) {
    if (__atomic_exchange_n(&huge.running, 1, __ATOMIC_ACQ_REL)) return true;
    pthread_t id;
    pthread_attr_t a;
    sigset_t all, before;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&a, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&id, &a, work, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&a);
    if (!started) __atomic_store_n(&huge.running, 0, __ATOMIC_RELEASE);
    return started;
}
