/*
 * platform.h - everything Winnow asks of the operating system and the processor.
 *
 * The only layer with conditionals for an OS or a CPU; it knows nothing of heaps. Functions that can fail return NULL
 * or false and leave it to the caller to say what that means.
 */
#ifndef WN_PLATFORM_H
#define WN_PLATFORM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WN_ALWAYS_INLINE inline __attribute__((always_inline))
#define WN_NOINLINE __attribute__((noinline))
/* The empty statement is there for gcc, which takes a function that does nothing but prefetch for one without effect
 * and drops calls of it that are inlined late. */
#define WN_PREFETCH(p)                             \
    do {                                           \
        const void *prefetched_ = (p);             \
        __builtin_prefetch(prefetched_, 0, 3);     \
        __asm__ volatile("" : : "r"(prefetched_)); \
    } while (0)

/* Tells AddressSanitizer, or valgrind's memcheck (WN_VALGRIND), which memory a client may touch; nothing in other
 * builds. WN_WRITTEN: what has been read into this variable counts as written by somebody, as it need not be in memory
 * that is searched word by word. */
#if defined(__SANITIZE_ADDRESS__)
#define WN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WN_ASAN 1
#endif
#endif
#ifdef WN_ASAN
void __asan_poison_memory_region(const volatile void *start, size_t size);
void __asan_unpoison_memory_region(const volatile void *start, size_t size);
#define WN_FORBIDS true /* whether it is worth finding out what to forbid */
#define WN_FORBID(start, size) __asan_poison_memory_region(start, size)
#define WN_ALLOW(start, size) __asan_unpoison_memory_region(start, size)
#elif defined(WN_VALGRIND)
#include <valgrind/memcheck.h>
#define WN_FORBIDS true
#define WN_FORBID(start, size) ((void)VALGRIND_MAKE_MEM_NOACCESS(start, size))
#define WN_ALLOW(start, size) ((void)VALGRIND_MAKE_MEM_DEFINED(start, size))
#define WN_WRITTEN(variable) ((void)VALGRIND_MAKE_MEM_DEFINED(&(variable), sizeof(variable)))
#else
#define WN_FORBIDS false
#define WN_FORBID(start, size) ((void)(start), (void)(size))
#define WN_ALLOW(start, size) ((void)(start), (void)(size))
#endif
#ifndef WN_WRITTEN
#define WN_WRITTEN(variable) ((void)(variable))
#endif

/* ---- memory: addresses are reserved first, then committed; discarded pages read as zero -------------------------- */

/* Reserves `size` bytes of addresses aligned to `align` (a power of two); they count towards RLIMIT_AS but take no
 * memory. NULL when the process may have no more. */
void *wn_os_reserve(size_t size, size_t align);
/* Makes reserved pages usable. False under strict overcommit when the system has nothing to give. */
bool wn_os_commit(void *start, size_t size);
/* Both at once, for what is to be used as a whole: one way into the kernel instead of two, each of which waits for the
 * page faults of all other threads, up to 4 ms where they come without a break. Release with the same size. */
void *wn_os_map(size_t size);
/* Makes a range read as zero, and gives the pages back to the system that lie in it as a whole: none where a page is
 * larger than the range, or where the program has locked them in memory. */
void wn_os_discard(void *start, size_t size);
void wn_os_release(void *start, size_t size);
/* Touches committed pages, all at once: one way into the kernel instead of one per page. A wish, no more. */
void wn_os_populate(void *start, size_t size);
/* Asks for large pages in a range, as they are touched or later. A wish, no more. */
void wn_os_prefer_large_pages(void *start, size_t size);
/* Copies n pieces of memory, of `size` bytes each, that may not be there; `there` says of each whether it was. False:
 * nobody may ask, and nothing is known. */
bool wn_os_peek(void *to, const void *const *from, size_t size, size_t n, bool *there);
size_t wn_os_page_size(void);
/* Bytes of RAM, and what the container (cgroup v2) or a resource limit grants this process; 0: no limit. */
size_t wn_os_physical_memory(void);
size_t wn_os_memory_limit(void);
/* Bytes of the last-level cache; a guess of 4 MiB when unknown. */
size_t wn_os_cache_size(void);
/* The number that a one-line file of the kernel's holds; 0 when it is absent or says "max". */
size_t wn_os_number_in(const char *path);
/* How many processors' time this process may use: of those that are there and that it may run on, no more than the
 * container grants (cpu.max, cgroup v2), which may be a part of one. */
double wn_os_processors(void);
/* What a cpu.max grants, in processors; 0: all. */
double wn_os_quota_in(const char *path);
/* The one the calling thread runs on, for a moment at least; always 0 where that cannot be known. */
unsigned wn_os_processor(void);
/* Moves the calling thread to another of those it may use, if there is one and it is on this one. */
void wn_os_leave_processor(unsigned processor);

/* ---- memory behind more than one address ------------------------------------------------------------------------- */

/* A file that lies in memory and has no name. Ranges of addresses can be made *views* of a part of it: they show what
 * the part holds without taking memory of their own, until somebody writes to one: then that page of that view becomes
 * its own, the other views and the file stay as they are, and a fork treats all of it like any private memory. */
typedef struct wn_os_file {
    int descriptor;
    uint64_t device, number; /* whose it was: a program may close what it did not open */
} wn_os_file;
/* False where there is no such thing, or no descriptor to be had. */
bool wn_os_file_open(wn_os_file *file, size_t size);
void wn_os_file_close(const wn_os_file *file);
/* Whether the descriptor still is that file's. */
bool wn_os_file_is_open(const wn_os_file *file);
/* Maps a part to fill it: what is written there is what views show. NULL: no memory, or the descriptor is another's.
 * wn_os_release undoes it. */
void *wn_os_file_map(const wn_os_file *file, size_t offset, size_t size);
/* Makes committed pages, whose own memory goes back, a view. False, and nothing has changed: too many mappings, or no
 * descriptor. Of the file only if its descriptor still is that afterwards. */
bool wn_os_file_view(const wn_os_file *file, size_t offset, void *start, size_t size);
/* Gives the memory of a part back; it reads as zero. Its views must not be looked at any more. Nothing happens where
 * it cannot be mapped, or the descriptor is another's. */
void wn_os_file_discard(const wn_os_file *file, size_t offset, size_t size);
/* Makes views ordinary pages again, which read as zero. False, and nothing has changed: too many mappings. */
bool wn_os_file_unview(void *start, size_t size);
/* For each of n ranges of `size` bytes side by side: how many of their pages have memory of their own, as those of a
 * view have that were written to. False where it cannot be known. */
bool wn_os_file_written(const void *start, size_t size, size_t n, uint16_t *written);
/* How many mappings a process may have. */
size_t wn_os_mappings(void);

/* ---- clocks, in nanoseconds -------------------------------------------------------------------------------------- */

uint64_t wn_os_now(void);        /* monotonic */
uint64_t wn_os_thread_cpu(void); /* CPU time of the calling thread */
/* Sleeps for about so long: some microseconds more in a thread that has asked for it, else 50 us more at least, by
 * which Linux puts wakings together. */
void wn_os_nap(uint64_t ns);
void wn_os_nap_exactly(void); /* of the calling thread, from now on */

/* ---- locks ------------------------------------------------------------------------------------------------------- */

/* Takes a lock that is held for a microsecond or two at a time: tries for a few microseconds before it sleeps, because
 * whoever sleeps comes back 20 to 50 us later, and finds the lock taken again by one that was quicker. */
void wn_os_lock_brief(pthread_mutex_t *lock);

/* Lets a moment pass on the processor, between two looks at what is about to change. */
void wn_os_relax(void);

/* A condition whose waits can end at a time of wn_os_now; once that has passed, if nobody has signalled it before. */
void wn_os_cond_make(pthread_cond_t *condition);
void wn_os_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t at);

/* ---- registers --------------------------------------------------------------------------------------------------- */

/* What a conservative scan needs of a thread besides its stack: the callee-saved registers, spilled explicitly (setjmp
 * is no substitute, glibc mangles some), and a copy of the frames nearest the top. Those are of library functions that
 * may return before the scan, and what a register of the client's held may be in one of them alone: each function saves
 * what it is going to use. */
enum { WN_REGISTERS = 16, WN_TOP_OF_STACK = 128 }; /* words */
typedef struct wn_registers {
    uintptr_t word[WN_REGISTERS + WN_TOP_OF_STACK];
} wn_registers;
/* Returns where the calling thread's stack ends now; `high` is where it begins. */
void *wn_os_spill_registers(wn_registers *into, const void *high) __attribute__((noinline));
/* The bounds of the calling thread's C stack: [low, high). */
bool wn_os_stack_bounds(void **low, void **high);

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* Called once per process; the hooks run around every fork(). */
void wn_os_on_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
