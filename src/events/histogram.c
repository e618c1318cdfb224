/*
 * histogram.c - durations in log-linear buckets: 16 per power of two, so a quantile is at most 6 % too high and adding
 * a value costs a count of leading zeros and three stores, whatever the range.
 */
#include "events/events.h"

#include <math.h>

/* Bucket i < 16 holds the value i; above, bucket 16 * (e - 3) + q holds [(16 + q) << (e - 4), (17 + q) << (e - 4)),
 * where e is the position of the value's highest bit. */
static unsigned bucket_of(uint64_t v) {
    if (v < 16) return (unsigned)v;
    unsigned e = 63u - (unsigned)__builtin_clzll(v);
    return 16 * (e - 3) + (unsigned)((v >> (e - 4)) & 15);
}

uint64_t wn_histogram_bound(unsigned i) {
    if (i < 16) return i;
    unsigned e = i / 16 + 3, q = i % 16;
    if (e > 63) return UINT64_MAX; /* there are more buckets than values need */
    return (((uint64_t)16 + q + 1) << (e - 4)) - 1;
}

void wn_histogram_add(wn_histogram *h, uint64_t ns) {
    if (!h->count || ns < h->min) h->min = ns;
    if (ns > h->max) h->max = ns;
    h->count++;
    h->total += ns;
    h->bucket[bucket_of(ns)]++;
}

void wn_histogram_merge(wn_histogram *into, const wn_histogram *from) {
    if (!from->count) return;
    if (!into->count || from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    into->count += from->count;
    into->total += from->total;
    for (unsigned i = 0; i < WN_HISTOGRAM_BUCKETS; i++) into->bucket[i] += from->bucket[i];
}

uint64_t wn_histogram_quantile(const wn_histogram *h, double q) {
    if (!h->count) return 0;
    if (!(q > 0)) return h->min; /* not a number, too */
    if (q >= 1) return h->max;
    uint64_t rank = (uint64_t)ceil(q * (double)h->count), seen = 0;
    for (unsigned i = 0; i < WN_HISTOGRAM_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank) {
            uint64_t top = wn_histogram_bound(i);
            return top < h->max ? top : h->max;
        }
    }
    return h->max;
}
