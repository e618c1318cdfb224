/* snapshot.c - cloning, watching and ending the child. */
#include "engines/snapshot.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEAD = 64, DONE = 1 };

static uint32_t *flag(const wn_snapshot *s) { return s->result; }
void *wn_snapshot_result(const wn_snapshot *s) { return (char *)s->result + HEAD; }

/* What is in the child's memory as it was in the program's: a copy. */
static pid_t program;
static unsigned seconds;

/* In the child, every second. Asking for a signal at the parent's death instead would take the end of the thread that
 * started us for that of the program. */
static void look_around(int signal) {
    (void)signal;
    if (getppid() != program || ++seconds > 600) _exit(1); /* the program has ended, or this hangs */
    alarm(1);
}

/* A socket or file that the program closes is to be closed, not held open for as long as the child searches. */
static void close_everything(void) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 0u, ~0u, 0u) == 0) return;
#endif
    struct rlimit files = {1024, 1024}; /* a kernel before 5.9 */
    getrlimit(RLIMIT_NOFILE, &files);
    for (int fd = 0; (rlim_t)fd < files.rlim_cur && fd < 1 << 16; fd++) close(fd);
}

/* The child has the program's signal handlers; none of them may run in it. */
static void be_quiet(void) {
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP, SIGALRM};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) signal(fatal[i], SIG_DFL);
    signal(SIGALRM, look_around);
    sigset_t these;
    sigemptyset(&these);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) sigaddset(&these, fatal[i]);
    sigprocmask(SIG_UNBLOCK, &these, NULL);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    close_everything();
    alarm(1);
}

/* True: that child is gone and has been reaped (or was by somebody else). */
static bool reaped(pid_t *child, int flags) {
    int status;
    pid_t p;
    do p = waitpid(*child, &status, flags | __WCLONE);
    while (p < 0 && errno == EINTR);
    if (p == 0) return false;
    *child = 0;
    return true;
}

/* Reaps those that have ended; a free place, or NULL when four are still about it. */
static pid_t *room_to_leave(wn_snapshot *s) {
    pid_t *room = NULL;
    for (size_t i = 0; i < sizeof s->leaving / sizeof *s->leaving; i++)
        if (!s->leaving[i] || reaped(&s->leaving[i], WNOHANG)) room = &s->leaving[i];
    return room;
}

static void forget_result(wn_snapshot *s) {
    if (s->result) munmap(s->result, s->bytes);
    s->result = NULL;
    s->child = 0;
}

bool wn_snapshot_start(wn_snapshot *s, size_t bytes, wn_snapshot_work *work, void *context) {
    if (!room_to_leave(s)) return false;
    s->bytes = bytes + HEAD;
    s->result = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->result == MAP_FAILED) {
        s->result = NULL;
        return false;
    }
    sigset_t all, before;
    sigfillset(&all);
    program = getpid();
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* No flags and no exit signal: a process of its own, copied, of which the program is never told. */
    pid_t child = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (child == 0) {
        be_quiet();
        bool complete = work(context, wn_snapshot_result(s), bytes);
        if (complete) __atomic_store_n(flag(s), DONE, __ATOMIC_RELEASE);
        syscall(SYS_exit_group, complete ? 0 : 1);
        __builtin_unreachable();
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (child < 0) {
        forget_result(s);
        return false;
    }
    s->child = child;
    return true;
}

wn_snapshot_state wn_snapshot_poll(wn_snapshot *s) {
    if (!s->result) return WN_SNAPSHOT_NONE;
    if (__atomic_load_n(flag(s), __ATOMIC_ACQUIRE) == DONE) return WN_SNAPSHOT_DONE;
    if (s->child && !reaped(&s->child, WNOHANG)) return WN_SNAPSHOT_RUNNING;
    /* It may have finished between the two questions. */
    return __atomic_load_n(flag(s), __ATOMIC_ACQUIRE) == DONE ? WN_SNAPSHOT_DONE : WN_SNAPSHOT_DIED;
}

bool wn_snapshot_ended(wn_snapshot *s) { return !s->child || reaped(&s->child, WNOHANG); }

void wn_snapshot_drop(wn_snapshot *s) {
    if (s->child) kill(s->child, SIGKILL);
    if (s->child && !reaped(&s->child, WNOHANG)) *room_to_leave(s) = s->child; /* there is one: start() saw to it */
    forget_result(s);
}

void wn_snapshot_reap(wn_snapshot *s) {
    for (size_t i = 0; i < sizeof s->leaving / sizeof *s->leaving; i++)
        if (s->leaving[i]) reaped(&s->leaving[i], 0);
}

void wn_snapshot_forget(wn_snapshot *s) {
    memset(s->leaving, 0, sizeof s->leaving);
    forget_result(s);
}
