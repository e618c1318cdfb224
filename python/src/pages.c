/* pages.c - reading the page map, making pages writable, collapsing them, in small steps on a thread of its own. */
#include "pages.h"

#include "platform/platform.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* newer than some C libraries */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
    PAGE = 4096,
    RANGE = 2 << 20,
    PAGES = RANGE / PAGE,
    ENOUGH = PAGES - PAGES / 16, /* pages of a range that must be in use for it to be collapsed */
    STEP = 64,                   /* pages made writable at once: about 40 us, for which a change of the maps waits */
    STACK = 128 << 10
};

/* Of an entry of the page map. */
#define PRESENT ((uint64_t)1 << 63)
#define OF_A_FILE ((uint64_t)1 << 61)
#define EXCLUSIVE ((uint64_t)1 << 56)

/* A file that the program may close behind our back, and use the number again: so it is only read at a place (which a
 * pipe or a socket refuses), and closed only if it is still ours. Its number is none of the standard ones, which a
 * program that has closed them expects to be free. */
typedef struct file {
    int fd;
    struct stat is;
} file;

static struct {
    pthread_mutex_t lock; /* of the next two */
    pthread_t thread;
    bool joinable;
    uint32_t running, stop;
    pages_errand errand;
    size_t ranges;
    /* the thread's alone */
    file pagemap;
    char text[16384]; /* of /proc/self/maps */
    uint64_t page[PAGES];
} pages = {.lock = PTHREAD_MUTEX_INITIALIZER};

size_t pages_huge_ranges(void) { return __atomic_load_n(&pages.ranges, __ATOMIC_RELAXED); }
bool pages_at_work(void) { return __atomic_load_n(&pages.running, __ATOMIC_ACQUIRE) != 0; }
static bool stopped(void) { return __atomic_load_n(&pages.stop, __ATOMIC_RELAXED) != 0; }

static void file_close(const file *f) {
    struct stat now;
    if (f->fd >= 0 && fstat(f->fd, &now) == 0 && now.st_dev == f->is.st_dev && now.st_ino == f->is.st_ino) close(f->fd);
}
static bool file_open(file *f, const char *name) {
    f->fd = open(name, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &f->is) != 0) return false;
    if (f->fd > STDERR_FILENO) return true;
    file standard = *f;
    f->fd = fcntl(standard.fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    file_close(&standard);
    return f->fd >= 0;
}

/* Reads the entries of [from, to), at most a range; false: that cannot be done. */
static bool look(uintptr_t from, uintptr_t to) {
    size_t bytes = (to - from) / PAGE * sizeof *pages.page;
    return pread(pages.pagemap.fd, pages.page, bytes, (off_t)(from / PAGE * sizeof *pages.page)) == (ssize_t)bytes;
}

/* A page that is in use, protected or not, but by nobody else: writing to it will copy nothing. */
static bool is_ours(uint64_t entry) { return (entry & (PRESENT | OF_A_FILE | EXCLUSIVE)) == (PRESENT | EXCLUSIVE); }

static void make_writable(uintptr_t from, uintptr_t to) {
    size_t n = (to - from) / PAGE;
    for (size_t i = 0, end; i < n && !stopped(); i = end) {
        for (end = i; end < n && end < i + STEP && is_ours(pages.page[end]); end++) {
        }
        if (end == i)
            end++;
        else if (madvise((void *)(from + i * PAGE), (end - i) * PAGE, MADV_POPULATE_WRITE) != 0)
            return; /* unmapped meanwhile, or a kernel before 5.14: the program faults as it always did */
    }
}

/* The kernel keeps the program from faulting while it copies a range, so there is a pause after each that took time. */
static bool collapse(uintptr_t range) {
    unsigned used = 0;
    for (unsigned i = 0; i < PAGES; i++) used += is_ours(pages.page[i]);
    if (used < ENOUGH) return false; /* of a shared page it would make a copy */
    uint64_t start = wn_os_now();
    bool done = madvise((void *)range, RANGE, MADV_COLLAPSE) == 0;
    uint64_t took = wn_os_now() - start;
    if (took > 20000)
        for (uint64_t rest = took < 200000000 ? took / 2 : 100000000; rest && !stopped();) {
            uint64_t now = rest < 1000000 ? rest : 1000000;
            nanosleep(&(struct timespec){.tv_nsec = (long)now}, NULL);
            rest -= now;
        }
    return done;
}

/* A line of the maps: private writable memory that belongs to no file. Returns how many ranges are huge. */
static size_t go_over(const char *line) {
    char *at;
    uintptr_t from = strtoul(line, &at, 16), to = strtoul(at + 1, &at, 16);
    if (strncmp(at, " rw-p ", 6) != 0) return 0;
    for (int field = 0; field < 4; field++) { /* permissions, offset, device, inode: the name, if any, is next */
        while (*at == ' ') at++;
        if (field == 3 && *at != '0') return 0;
        while (*at && *at != ' ') at++;
    }
    while (*at == ' ') at++;
    if (*at && strcmp(at, "[heap]") != 0 && strncmp(at, "[anon:", 6) != 0) return 0;
    size_t n = 0;
    for (uintptr_t next; from < to && !stopped(); from = next) {
        next = (from & ~(uintptr_t)(RANGE - 1)) + RANGE;
        if (next > to) next = to;
        if (pages.errand == PAGES_HUGE && next - from < RANGE) continue;
        if (!look(from, next)) return n;
        if (pages.errand == PAGES_OURS) make_writable(from, next);
        if (pages.errand == PAGES_HUGE) n += collapse(from);
    }
    return n;
}

static void *work(void *ignored) {
    (void)ignored;
    file maps;
    size_t have = 0, ranges = 0;
    ssize_t got;
    off_t at = 0;
    bool open = file_open(&pages.pagemap, "/proc/self/pagemap");
    open = file_open(&maps, "/proc/self/maps") && open;
    while (open && !stopped() && (got = pread(maps.fd, pages.text + have, sizeof pages.text - 1 - have, at)) > 0) {
        at += got;
        have += (size_t)got;
        pages.text[have] = 0;
        char *line = pages.text;
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            ranges += go_over(line);
        }
        have -= (size_t)(line - pages.text);
        memmove(pages.text, line, have);
    }
    file_close(&maps);
    file_close(&pages.pagemap);
    if (pages.errand == PAGES_HUGE) __atomic_store_n(&pages.ranges, ranges, __ATOMIC_RELAXED);
    __atomic_store_n(&pages.running, 0, __ATOMIC_RELEASE);
    return NULL;
}

/* With the lock held. */
static void join(void) {
    if (pages.joinable) pthread_join(pages.thread, NULL);
    pages.joinable = false;
}

bool pages_begin(pages_errand errand) {
    if (sysconf(_SC_PAGESIZE) != PAGE || pages_at_work() || pthread_mutex_trylock(&pages.lock) != 0) return false;
    join();
    pthread_attr_t a;
    sigset_t all, before;
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, STACK);
    sigfillset(&all);
    pages.errand = errand;
    pages.stop = 0;
    pages.running = 1;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pages.joinable = pthread_create(&pages.thread, &a, work, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&a);
    if (!pages.joinable) pages.running = 0;
    bool begun = pages.joinable;
    pthread_mutex_unlock(&pages.lock);
    return begun;
}

/* A thread without the interpreter's lock may fork, while another is about to begin. */
void pages_stop(void) {
    pthread_mutex_lock(&pages.lock);
    __atomic_store_n(&pages.stop, 1, __ATOMIC_RELAXED);
    join();
    pthread_mutex_unlock(&pages.lock);
}

void pages_forked(void) {
    pthread_mutex_init(&pages.lock, NULL);
    pages.joinable = false;
    pages.running = 0;
}
