/*
 * snapshot.h - work on a frozen copy of this process, in a forked child that answers through shared memory.
 *
 * The child sees every object as it was at the fork, however the program goes on changing them. It is made by a bare
 * clone without an exit signal, so that neither the program's SIGCHLD handler nor its wait() ever hears of it; it runs
 * no atfork handler, takes no lock and may not use malloc. If it crashes, that is a result like another.
 *
 * One thread at a time may ask after a snapshot, and only in the process that made it: after the program itself forks,
 * the new process calls wn_snapshot_forget.
 */
#ifndef WN_SNAPSHOT_H
#define WN_SNAPSHOT_H

#include "platform/platform.h"

#include <sys/types.h>

typedef enum wn_snapshot_state {
    WN_SNAPSHOT_NONE,
    WN_SNAPSHOT_RUNNING,
    WN_SNAPSHOT_DONE,
    WN_SNAPSHOT_DIED
} wn_snapshot_state;

typedef struct wn_snapshot {
    pid_t child;
    pid_t leaving[4]; /* children about to end: reaped later, because that can take as long as the fork did */
    void *result;     /* shared with the child; its first word is the engine's own */
    size_t bytes;
} wn_snapshot;

/* What the child does: fills in the result. True: it is complete. */
typedef bool wn_snapshot_work(void *context, void *result, size_t bytes);

/* Starts work on a copy (of a zeroed or a dropped wn_snapshot); `bytes` of zeroed shared memory hold its result. False:
 * no memory or no process to be had. */
bool wn_snapshot_start(wn_snapshot *s, size_t bytes, wn_snapshot_work *work, void *context);
wn_snapshot_state wn_snapshot_poll(wn_snapshot *s);
/* The result, once it is done. */
void *wn_snapshot_result(const wn_snapshot *s);
/* When it is done: whether the child has ended as well, so that no page is shared with it any more. */
bool wn_snapshot_ended(wn_snapshot *s);
/* Ends the child if it still runs, without waiting for it, and gives the result's memory back. */
void wn_snapshot_drop(wn_snapshot *s);
/* After that, when no other will be started soon: waits for the children that are about to end, so that none stays
 * behind as a zombie. */
void wn_snapshot_reap(wn_snapshot *s);
/* In a process forked from the owner: the child is not ours. */
void wn_snapshot_forget(wn_snapshot *s);

#endif
