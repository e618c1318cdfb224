/*
 * pages.h - what the kernel has to do for snapshots, done beside the program instead of by it.
 *
 * A thread goes over the program's private memory once, with one errand:
 *
 * - PAGES_OURS: after a snapshot's child has ended, makes the pages writable again that the fork had protected. Else
 * the program takes a fault for each that it writes to, and in reclaiming garbage it writes to most.
 * - PAGES_HUGE: puts pages together into huge ones (MADV_COLLAPSE, Linux 6.1 and later), so that a fork has a five
 *   hundredth of the page table to copy. Pages that are written while a child looks at them are taken out of their huge
 *   page again.
 *
 * Nothing moves as far as addresses are concerned.
 *
 * Invariant: memory hardly grows: only ranges of which nearly every page is in use are collapsed, and a page that
 * another process shares is left alone. The thread touches no object and calls no allocator; the program's forks wait
 * for its end.
 */
#ifndef WINNOW_PY_PAGES_H
#define WINNOW_PY_PAGES_H

#include <stdbool.h>
#include <stddef.h>

typedef enum pages_errand { PAGES_OURS, PAGES_HUGE } pages_errand;

/* Starts the thread; false: it is at work already, or there is none to be had, or pages are not of 4 KiB. */
bool pages_begin(pages_errand errand);
bool pages_at_work(void);
/* Before the program forks: the thread has ended when this returns. */
void pages_stop(void);
/* In a forked child. */
void pages_forked(void);
/* Ranges of 2 MiB that were in huge pages when the thread last went over them. */
size_t pages_huge_ranges(void);

#endif
