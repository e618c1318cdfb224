/*
 * tenure.c - which objects are born old: those of size classes of which nearly everything outlived the nursery lately.
 *
 * To copy an object that survives costs more than to make it where it will stay, and an object that is old from the
 * start makes nobody remember it. So minors look, in a sample of the nursery's pieces, how much of each size class was
 * made and how much moved; a class of which at least `pretenure` percent did is born old from then on. It is the class
 * that is judged and not the type, because the inlined allocation path knows the class without a load.
 *
 * What is born old cannot be judged, and dead old objects that refer to young ones make those seem to survive. So after
 * a quota of bytes all classes are born young again, together, until the next minors have judged them. The quota
 * doubles each time they confirm what was thought before, and is small again as soon as one does not.
 *
 * Invariant: a class whose bit in `born_old` is not set is taken from the nursery by every mutator, at the latest from
 * the end of the run of slots on that it has at hand.
 */
#include "incremental.h"

enum {
    ENOUGH = 256 << 10,  /* bytes of a class, by the sample, for a judgement: what a program makes at its start lasts */
    TELLING = 2 * PIECE, /* bytes made between two minors; of fewer, much survives because it is so young */
    STRESS_QUOTA = 256,
    QUOTA_MAX = 16 /* times the first one */
};

/* Under stress every chance is taken: a class is judged by one object, and soon again. */
static size_t first_quota(const incremental *inc) {
    return inc->heap->options.stress ? STRESS_QUOTA : 2 * inc->nursery_size;
}

bool wn_inc_tenure_is_telling(const incremental *inc) {
    size_t least = inc->nursery_size / 4 < TELLING ? inc->nursery_size / 4 : TELLING;
    return inc->handed >= least || inc->heap->options.stress;
}

void wn_inc_tenure_sample(incremental *inc, stretch piece, unsigned stands_for) {
    for (char *o = piece.start; o < piece.end && *(uintptr_t *)o;) {
        uintptr_t word = *(uintptr_t *)o;
        bool moved = word & FORWARDED;
        size_t slot = wn_slot_size_(wn_bytes_of(moved ? (void *)(word & ~(uintptr_t)FORWARDED) : o));
        tenure *t = &inc->seen[wn_class_of_slot_(slot)];
        t->born += stands_for * slot;
        if (moved || wn_meta_(o)[1] & STATE_STAYS) t->survived += stands_for * slot;
        inc->walked_objects++;
        inc->walked_bytes += slot;
        o += slot;
    }
}

void wn_inc_tenure_judge(incremental *inc) {
    uint64_t percent = inc->heap->options.pretenure, old = 0, young = 0;
    if (percent == WN_NEVER) return;
    uint64_t enough = inc->heap->options.stress ? 1 : ENOUGH;
    for (unsigned cls = 0; cls < WN_CLASSES_; cls++) {
        tenure *t = &inc->seen[cls];
        if (t->born < enough) continue;
        bool lasts = t->survived * 100 >= t->born * percent;
        *(lasts ? &old : &young) |= (uint64_t)1 << cls;
        *t = (tenure){0};
    }
    if (inc->were_old & young) inc->quota = 0; /* the next one is small, whichever class is judged first */
    inc->were_old = (inc->were_old & ~young) | old;
    if (!old) return;
    if (!inc->born_old) {
        inc->quota = inc->quota ? 2 * inc->quota : first_quota(inc);
        if (inc->quota > QUOTA_MAX * first_quota(inc)) inc->quota = QUOTA_MAX * first_quota(inc);
        inc->born_old_left = (ptrdiff_t)inc->quota;
    }
    inc->born_old |= old;
    for (mutator *m = inc->heap->mutators; m; m = m->next)
        for (uint64_t left = old; left; left &= left - 1) {
            unsigned cls = (unsigned)__builtin_ctzll(left);
            m->fast.from[cls] = &m->fast.buffer[cls];
        }
}

bool wn_inc_tenure_is_born_old(const incremental *inc, unsigned cls) {
    return __atomic_load_n(&inc->born_old, __ATOMIC_RELAXED) >> cls & 1;
}

void wn_inc_tenure_end(incremental *inc) { __atomic_store_n(&inc->born_old, 0, __ATOMIC_RELAXED); }

void wn_inc_tenure_spend(incremental *inc, size_t bytes) {
    if (__atomic_sub_fetch(&inc->born_old_left, (ptrdiff_t)bytes, __ATOMIC_RELAXED) <= 0) wn_inc_tenure_end(inc);
}
