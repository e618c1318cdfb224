/* system.c - clocks, registers and stack bounds, fork hooks. */
#define _GNU_SOURCE
#include "platform/platform.h"

#include <time.h>
#ifdef __linux__
#include <sched.h>
#include <sys/prctl.h>
#endif

static uint64_t read_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t wn_os_now(void) { return read_clock(CLOCK_MONOTONIC); }
uint64_t wn_os_thread_cpu(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

void wn_os_nap(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

void wn_os_nap_exactly(void) {
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
#endif
}

#ifdef __linux__
unsigned wn_os_processor(void) {
    int n = sched_getcpu();
    return n < 0 ? 0 : (unsigned)n;
}

void wn_os_leave_processor(unsigned processor) {
    cpu_set_t all, others;
    if (wn_os_processor() != processor || processor >= CPU_SETSIZE || sched_getaffinity(0, sizeof all, &all)) return;
    others = all;
    CPU_CLR(processor, &others);
    if (!CPU_COUNT(&others) || sched_setaffinity(0, sizeof others, &others)) return;
    sched_setaffinity(0, sizeof all, &all); /* it stays where it is now, as long as the kernel sees no reason */
}
#else
unsigned wn_os_processor(void) { return 0; }
void wn_os_leave_processor(unsigned processor) { (void)processor; }
#endif

void wn_os_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void wn_os_lock_brief(pthread_mutex_t *lock) {
    for (int i = 0; i < 64; i++) {
        if (!pthread_mutex_trylock(lock)) return;
        for (int j = 0; j < 4; j++) wn_os_relax();
    }
    pthread_mutex_lock(lock);
}

#ifdef __APPLE__
void wn_os_cond_make(pthread_cond_t *condition) { pthread_cond_init(condition, NULL); }
void wn_os_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t at) {
    uint64_t now = wn_os_now(), ns = at > now ? at - now : 0;
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    pthread_cond_timedwait_relative_np(condition, lock, &t);
}
#else
void wn_os_cond_make(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}
void wn_os_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t at) {
    struct timespec t = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
    pthread_cond_timedwait(condition, lock, &t);
}
#endif

/* A sanitizer's guards lie between the words of a frame: they are read all the same. */
__attribute__((no_sanitize("address", "thread", "undefined"))) void *wn_os_spill_registers(wn_registers *into,
                                                                                           const void *high) {
    const uintptr_t *top;
#if defined(__x86_64__)
    __asm__ volatile("movq %%rbx, 0(%0)\n\tmovq %%rbp, 8(%0)\n\tmovq %%r12, 16(%0)\n\tmovq %%r13, 24(%0)\n\t"
                     "movq %%r14, 32(%0)\n\tmovq %%r15, 40(%0)"
                     :
                     : "r"(into->word)
                     : "memory");
    __asm__ volatile("movq %%rsp, %0" : "=r"(top));
    for (int i = 6; i < WN_REGISTERS; i++) into->word[i] = 0;
#elif defined(__aarch64__)
    __asm__ volatile("stp x19, x20, [%0, 0]\n\tstp x21, x22, [%0, 16]\n\tstp x23, x24, [%0, 32]\n\t"
                     "stp x25, x26, [%0, 48]\n\tstp x27, x28, [%0, 64]\n\tstp x29, x30, [%0, 80]"
                     :
                     : "r"(into->word)
                     : "memory");
    __asm__ volatile("mov %0, sp" : "=r"(top));
    for (int i = 12; i < WN_REGISTERS; i++) into->word[i] = 0;
#else
#error "conservative stack scanning needs the callee-saved registers of this processor: spill them here"
#endif
    for (size_t i = 0; i < WN_TOP_OF_STACK; i++)
        into->word[WN_REGISTERS + i] = top + i < (const uintptr_t *)high ? top[i] : 0;
    return (void *)(uintptr_t)top;
}

bool wn_os_stack_bounds(void **low, void **high) {
#if defined(__APPLE__)
    *high = pthread_get_stackaddr_np(pthread_self());
    *low = (char *)*high - pthread_get_stacksize_np(pthread_self());
    return true;
#else
    pthread_attr_t attr;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attr) != 0) return false;
    bool ok = pthread_attr_getstack(&attr, low, &size) == 0;
    pthread_attr_destroy(&attr);
    if (ok) *high = (char *)*low + size;
    return ok;
#endif
}

void wn_os_on_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    pthread_atfork(prepare, parent, child);
}
