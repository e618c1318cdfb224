/*
 * huge.h - the program's memory in huge pages, so that the fork of a snapshot has a five hundredth of the page table to
 * copy.
 *
 * A thread beside the program asks the kernel to put what is there together (MADV_COLLAPSE, Linux 6.1 and later). It is
 * started when the heap has grown and after each snapshot, because pages written while a child looks at them are taken
 * out of their huge page again. Nothing moves as far as addresses are concerned.
 *
 * Invariant: only ranges of which nearly every page is in use are collapsed, so memory hardly grows; the thread touches
 * no object, takes no lock but the kernel's and calls no allocator.
 */
#ifndef WINNOW_PY_HUGE_H
#define WINNOW_PY_HUGE_H

#include <stdbool.h>
#include <stddef.h>

/* Starts the thread unless it is at work; false: no thread to be had. */
bool huge_begin(void);
bool huge_at_work(void);
/* In a forked child: there the thread is not. */
void huge_forked(void);
/* Ranges of 2 MiB that were in huge pages when the thread last came to its end. */
size_t huge_ranges(void);

#endif
