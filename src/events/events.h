/*
 * events.h - error texts, the report of broken client rules, histograms of durations: what every layer above writes
 * into. The functions are declared where clients see them, but for those below.
 *
 * Invariant: nothing here knows of a heap, takes a lock or allocates, so it may be called from anywhere.
 */
#ifndef WN_EVENTS_H
#define WN_EVENTS_H

#include "winnow/heap.h"

/* Reports a broken client rule to the misuse handler. Returns only if the handler does. */
void wn_misuse(const char *rule, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same where rules are checked; elsewhere only the error text, for a call that has no result to say it by. */
void wn_misuse_if(bool checked, const char *rule, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
