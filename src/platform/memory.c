/* memory.c - reserving, committing and giving back address ranges. */
#define _GNU_SOURCE
#include "platform/platform.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <sys/uio.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <mach/mach_vm.h>
#endif
#include <unistd.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

static void *map(size_t size, int access) {
    void *p = mmap(NULL, size, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}
static void *map_addresses(size_t size) { return map(size, PROT_NONE); }

void *wn_os_reserve(size_t size, size_t align) {
    /* The kernel places neighbouring mappings next to each other: a first try at the exact size often fits, and under
     * RLIMIT_AS it may be the only one that can. */
    char *p = map_addresses(size);
    if (!p) return NULL;
    if (((uintptr_t)p & (align - 1)) == 0) return p;
    munmap(p, size);
    p = map_addresses(size + align);
    if (!p) return NULL;
    char *start = (char *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
    if (start > p) munmap(p, (size_t)(start - p));
    size_t tail = (size_t)(p + align - start);
    if (tail) munmap(start + size, tail);
    return start;
}

void *wn_os_map(size_t size) { return map(size, PROT_READ | PROT_WRITE); }

bool wn_os_commit(void *start, size_t size) { return mprotect(start, size, PROT_READ | PROT_WRITE) == 0; }

/* Pages that a program has locked (mlock, mlockall) stay, and are written to. */
static void discard_pages(void *start, size_t size) {
    int before = errno;
#ifdef __linux__
    bool gone = madvise(start, size, MADV_DONTNEED) == 0;
#else
    /* Elsewhere MADV_DONTNEED need not zero: map fresh pages over the old ones. */
    bool gone = mmap(start, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
#endif
    if (!gone) memset(start, 0, size);
    errno = before;
}

void wn_os_discard(void *start, size_t size) {
    size_t page = wn_os_page_size(), before = (size_t)(-(uintptr_t)start & (page - 1));
    if (size < before + page) {
        memset(start, 0, size);
        return;
    }
    size_t pages = (size - before) & ~(page - 1), after = size - before - pages;
    char *first = (char *)start + before;
    if (before) memset(start, 0, before);
    discard_pages(first, pages);
    if (after) memset(first + pages, 0, after);
}

void wn_os_populate(void *start, size_t size) {
#ifdef MADV_POPULATE_WRITE
    int before = errno; /* a kernel before 5.14 does not know it, and memory that is short shows at the touch */
    madvise(start, size, MADV_POPULATE_WRITE);
    errno = before;
#else
    (void)start, (void)size;
#endif
}

void wn_os_prefer_large_pages(void *start, size_t size) {
#ifdef MADV_HUGEPAGE
    int before = errno;
    madvise(start, size, MADV_HUGEPAGE);
    errno = before;
#else
    (void)start, (void)size;
#endif
}

void wn_os_release(void *start, size_t size) {
    WN_ALLOW(start, size); /* whoever gets these addresses next must not meet our marks */
    munmap(start, size);
}

#ifdef __linux__
bool wn_os_peek(void *to, const void *const *from, size_t size, size_t n, bool *there) {
    enum { AT_ONCE = 64 };
    int before = errno;
    pid_t me = (pid_t)syscall(SYS_getpid); /* an old C library's is remembered from before a bare clone */
    bool may = true;
    for (size_t done = 0; done < n;) {
        struct iovec piece[AT_ONCE];
        size_t some = n - done < AT_ONCE ? n - done : AT_ONCE;
        for (size_t i = 0; i < some; i++) piece[i] = (struct iovec){(void *)(uintptr_t)from[done + i], size};
        struct iovec here = {(char *)to + done * size, some * size};
        ssize_t bytes = may ? process_vm_readv(me, &here, 1, piece, some, 0) : 0;
        if (bytes < 0 && errno != EFAULT) may = false;
        /* It stops at the first that is not there. */
        size_t whole = bytes > 0 ? (size_t)bytes / size : 0;
        for (size_t i = 0; i < whole; i++) there[done++] = true;
        if (whole < some) there[done++] = false;
    }
    errno = before;
    return may;
}
#elif defined(__APPLE__)
bool wn_os_peek(void *to, const void *const *from, size_t size, size_t n, bool *there) {
    for (size_t i = 0; i < n; i++) {
        mach_vm_size_t bytes = 0;
        mach_vm_address_t target = (mach_vm_address_t)(uintptr_t)((char *)to + i * size);
        kern_return_t r =
            mach_vm_read_overwrite(mach_task_self(), (mach_vm_address_t)(uintptr_t)from[i], size, target, &bytes);
        there[i] = r == KERN_SUCCESS && bytes == size;
    }
    return true;
}
#else
bool wn_os_peek(void *to, const void *const *from, size_t size, size_t n, bool *there) {
    (void)to, (void)from, (void)size;
    for (size_t i = 0; i < n; i++) there[i] = false;
    return false;
}
#endif

size_t wn_os_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }
