/* machine.c - what there is of processors, memory and caches, and how much of it the container grants. */
#define _GNU_SOURCE
#include "platform/platform.h"

#ifdef __linux__
#include <sched.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

size_t wn_os_number_in(const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    unsigned long long n = 0;
    if (fscanf(f, "%llu", &n) != 1) n = 0;
    fclose(f);
    return (size_t)n;
}

/* ---- the control group ------------------------------------------------------------------------------------------- */

/* The least that `ask` says of a file of this process's control group and its parents; 0: no limit. */
static double least_of_groups(const char *file, double (*ask)(const char *path)) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return 0;
    char line[1024], path[1200];
    double least = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3) != 0) continue; /* version 2 only */
        line[strcspn(line, "\n")] = 0;
        char *group = line + 3;
        for (;;) {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group[0] && group[1] ? group : "", file);
            double n = ask(path);
            if (n > 0 && (!least || n < least)) least = n;
            char *slash = strrchr(group, '/');
            if (!slash || !group[1]) break;
            slash[slash == group] = 0;
        }
    }
    fclose(f);
    return least;
}

static double bytes_in(const char *path) { return (double)wn_os_number_in(path); }

double wn_os_quota_in(const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    unsigned long long time, period;
    bool limited = fscanf(f, "%llu %llu", &time, &period) == 2 && period;
    fclose(f);
    return limited ? (double)time / (double)period : 0;
}

/* ---- what there is ----------------------------------------------------------------------------------------------- */

double wn_os_processors(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t mine; /* more than 1024 do not fit, and are taken as they are */
    if (sched_getaffinity(0, sizeof mine, &mine) == 0 && CPU_COUNT(&mine) < n) n = CPU_COUNT(&mine);
#endif
    double there = n > 0 ? (double)n : 1, granted = least_of_groups("cpu.max", wn_os_quota_in);
    return granted > 0 && granted < there ? granted : there;
}

size_t wn_os_physical_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? (size_t)pages * wn_os_page_size() : (size_t)1 << 30;
}

size_t wn_os_cache_size(void) {
#ifdef _SC_LEVEL3_CACHE_SIZE
    long n = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (n > 0) return (size_t)n;
    n = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (n > 0) return (size_t)n;
#endif
    return (size_t)4 << 20;
}

size_t wn_os_memory_limit(void) {
    size_t limit = (size_t)least_of_groups("memory.max", bytes_in);
    struct rlimit r;
    if (getrlimit(RLIMIT_AS, &r) == 0 && r.rlim_cur != RLIM_INFINITY && (!limit || r.rlim_cur < limit))
        limit = (size_t)r.rlim_cur;
    return limit;
}
