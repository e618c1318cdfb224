/* file.c - files in memory, and addresses as private views of them: the same page behind several addresses. */
#define _GNU_SOURCE
#include "platform/platform.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__) && defined(MFD_CLOEXEC)

bool wn_os_file_open(wn_os_file *file, size_t size) {
    struct stat s;
    struct rlimit largest; /* one beyond it would end the process by a signal */
    if (getrlimit(RLIMIT_FSIZE, &largest) != 0 || (largest.rlim_cur != RLIM_INFINITY && largest.rlim_cur < size))
        return false;
    /* Where memory is counted as it is promised, a view may be refused after what it replaces is gone. */
    if (wn_os_number_in("/proc/sys/vm/overcommit_memory") == 2) return false;
    file->descriptor = memfd_create("winnow", MFD_CLOEXEC);
    if (file->descriptor < 0) return false;
    if (ftruncate(file->descriptor, (off_t)size) != 0 || fstat(file->descriptor, &s) != 0) {
        close(file->descriptor);
        return false;
    }
    file->device = (uint64_t)s.st_dev;
    file->number = (uint64_t)s.st_ino;
    return true;
}

bool wn_os_file_is_open(const wn_os_file *file) {
    struct stat s;
    return fstat(file->descriptor, &s) == 0 && (uint64_t)s.st_dev == file->device && (uint64_t)s.st_ino == file->number;
}

void wn_os_file_close(const wn_os_file *file) {
    if (wn_os_file_is_open(file)) close(file->descriptor);
}

/* Another thread may close the descriptor, and open what gets its number, at any moment: asked afterwards, the answer
 * holds of the mapping. */
static void *map(const wn_os_file *file, size_t offset, size_t size, int flags) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, file->descriptor, (off_t)offset);
    if (p == MAP_FAILED) return NULL;
    if (wn_os_file_is_open(file)) return p;
    munmap(p, size);
    return NULL;
}

void *wn_os_file_map(const wn_os_file *file, size_t offset, size_t size) {
    return map(file, offset, size, MAP_POPULATE);
}

bool wn_os_file_view(const wn_os_file *file, size_t offset, void *start, size_t size) {
    return mmap(start, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file->descriptor,
                (off_t)offset) != MAP_FAILED;
}

void wn_os_file_discard(const wn_os_file *file, size_t offset, size_t size) {
    void *p = map(file, offset, size, 0);
    if (!p) return;
    madvise(p, size, MADV_REMOVE);
    munmap(p, size);
}

bool wn_os_file_unview(void *start, size_t size) {
    return mmap(start, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) !=
           MAP_FAILED;
}

/* From the kernel's table of this process's pages: present (63) and not a file's (61). */
bool wn_os_file_written(const void *start, size_t size, size_t n, uint16_t *written) {
    enum { TOGETHER = 512 };
    size_t page = wn_os_page_size(), each = size / page, left = n * each, at = (uintptr_t)start / page, done = 0;
    int table = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < n; i++) written[i] = 0;
    while (left && table >= 0) {
        uint64_t entry[TOGETHER];
        size_t some = left < TOGETHER ? left : (size_t)TOGETHER, bytes = some * sizeof *entry;
        if (pread(table, entry, bytes, (off_t)(at * sizeof *entry)) != (ssize_t)bytes) break;
        for (size_t i = 0; i < some; i++)
            if (entry[i] >> 63 & 1 && !(entry[i] >> 61 & 1)) written[(done + i) / each]++;
        at += some;
        done += some;
        left -= some;
    }
    if (table >= 0) close(table);
    return !left;
}

size_t wn_os_mappings(void) {
    enum { USUAL = 65530 };
    size_t n = wn_os_number_in("/proc/sys/vm/max_map_count");
    return n ? n : USUAL;
}

#else /* elsewhere nothing is laid together */

bool wn_os_file_open(wn_os_file *file, size_t size) { return (void)file, (void)size, false; }
bool wn_os_file_is_open(const wn_os_file *file) { return (void)file, false; }
void wn_os_file_close(const wn_os_file *file) { (void)file; }
void *wn_os_file_map(const wn_os_file *file, size_t offset, size_t size) {
    return (void)file, (void)offset, (void)size, NULL;
}
bool wn_os_file_view(const wn_os_file *file, size_t offset, void *start, size_t size) {
    return (void)file, (void)offset, (void)start, (void)size, false;
}
void wn_os_file_discard(const wn_os_file *file, size_t offset, size_t size) { (void)file, (void)offset, (void)size; }
bool wn_os_file_unview(void *start, size_t size) { return (void)start, (void)size, false; }
bool wn_os_file_written(const void *start, size_t size, size_t n, uint16_t *written) {
    return (void)start, (void)size, (void)n, (void)written, false;
}
size_t wn_os_mappings(void) { return 0; }

#endif
