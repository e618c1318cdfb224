/* snapshots.c - the child, the slices, and their pace. */
#include "snapshots.h"

#include "census.h"
#include "engines/snapshot.h"
#include "notes.h"
#include "pages.h"
#include "parking.h"
#include "state.h"

#include <string.h>
#include <unistd.h>

enum {
    TOGETHER = 64, /* garbage that is never divided between slices, about, where components are small */
    FEW = 100000   /* objects of a heap whose pages the program may as well take back itself */
};
#define EARLY .15 /* growth of the old objects at which a snapshot is taken, where the interpreter waits for .25 */

/* What the child sends: the garbage in batches (the low bit set in the last of each), then what may be untracked, then,
 * when they are many, members of the census that were in no list any more. */
typedef struct entry {
    uintptr_t object;
    PyTypeObject *type;
} entry;
typedef struct answer {
    size_t tracked, marked, candidates, garbage, entries, untrackable, gone, told, walked;
    uint64_t ns, cpu_ns;
    type_counts types; /* for the log */
    entry entry[];
} answer;

static struct {
    wn_snapshot snapshot;
    answer *answer;
    size_t next;      /* entry */
    uint64_t at;      /* which it was taken */
    PyGC_Head frozen; /* the links of the list of frozen objects then */
    bool due;         /* one is to be taken at the next young collection */
    enum { SHARED, RETURNING, OURS } pages;
    uint64_t patience; /* until when reclaiming waits for the pages */
    bool split;        /* pages have been taken out of huge ones */
    size_t collapsed;  /* objects, about, when huge pages were last asked for */

    size_t handed;       /* objects in the current slice */
    uint64_t cpu;        /* at its start */
    size_t slice;        /* objects per slice */
    size_t asked;        /* where somebody asks for a young collection: as many as slice_ms allows */
    double ns_each;      /* per object, of recent slices */
    double ns_young;     /* of recent young collections */
    double paced;        /* garbage to be reclaimed for each young collection */
    unsigned slices;     /* in which that is done between two of them; 0: within them */
    Py_ssize_t borrowed; /* by how much the count of young objects is ahead of the truth, so that a slice comes */
    Py_ssize_t young;    /* their true count, during a slice */
} S;

void snapshots_setup(void) { S.slice = S.asked = 1000; }

/* In the child. */
static bool search_snapshot(void *context, void *result, size_t bytes) {
    (void)context;
    search *s = &W.search;
    answer *a = result;
    uint64_t start = wn_os_now(), cpu = wn_os_thread_cpu();
    size_t room = (bytes - sizeof *a) / sizeof(entry), at = 0;
    wn_groups g = {0};
    if (!search_run(s, 1)) return false;
    if (s->cycles.garbage && !wn_cycles_group(&s->cycles, TOGETHER, scan_fetch, scan_together, search_scanner(), &g))
        return false;
    a->tracked = s->tracked;
    a->marked = s->marked;
    a->candidates = s->cycles.candidates;
    a->garbage = s->cycles.garbage;
    a->walked = census_walked();
    a->gone = s->gone[0].n;
    for (size_t b = 0, from = 0; b < g.batches && g.end[b] <= room; from = g.end[b++])
        for (size_t i = from; i < g.end[b]; i++) {
            PyObject *o = g.object[i];
            a->entry[at++] = (entry){(uintptr_t)o | (i + 1 == g.end[b]), Py_TYPE(o)};
        }
    a->entries = at;
    for (size_t i = 0; i < s->untrackable[0].n && at < room; i++, a->untrackable++)
        a->entry[at++].object = (uintptr_t)s->untrackable[0].item[i];
    for (size_t i = 0; a->gone > a->tracked / 8 && i < a->gone && at < room; i++, a->told++)
        a->entry[at++].object = (uintptr_t)s->gone[0].item[i];
    for (size_t i = 0; W.o.log && i < a->entries; i++) report_count(&a->types, a->entry[i].type);
    a->ns = wn_os_now() - start;
    a->cpu_ns = wn_os_thread_cpu() - cpu;
    return true;
}

static void give_back_borrowed(void) {
    int *count = &W.gc->generations[0].count;
    *count = *count > S.borrowed ? (int)(*count - S.borrowed) : 0;
    S.borrowed = 0;
}

static void end_notes(void) {
    if (notes_end()) return;
    W.n.fallback_allocator++;
    if (W.o.log)
        fprintf(stderr, "winnow[%ld]: another allocator came over winnow's: no snapshots while it is there\n",
                (long)getpid());
}

void snapshot_drop(void) {
    if (W.phase == IDLE) return;
    give_back_borrowed();
    S.split = true;
    wn_snapshot_drop(&S.snapshot);
    end_notes();
    S.answer = NULL;
    W.phase = IDLE;
}

void snapshots_close(void) {
    snapshot_drop();
    wn_snapshot_reap(&S.snapshot);
}

bool snapshot_start(void) {
    uint64_t start = wn_os_now();
    size_t room = expected_objects() + expected_objects() / 4;
    if (!notes_possible()) return false;
    if (!notes_begin()) {
        W.n.fallback_memory++;
        return false;
    }
    if (!wn_snapshot_start(&S.snapshot, sizeof(answer) + room * sizeof(entry), search_snapshot, NULL)) {
        end_notes();
        W.n.fallback_fork++;
        return false;
    }
    W.n.fork_ns = wn_os_now() - start;
    W.n.snapshots++;
    S.at = start;
    S.frozen = W.gc->permanent_generation.head;
    W.phase = RUNNING;
    S.pages = SHARED;
    return true;
}

/* Huge pages pay when the heap has grown, or after a snapshot; not while one is about, whose pages are shared. */
void want_huge_pages(void) {
    if (!W.o.huge || W.o.mode != MODE_CONCURRENT || W.phase != IDLE) return;
    size_t now = (size_t)(W.gc->long_lived_total + W.gc->long_lived_pending);
    if (now < 50000 || (!S.split && now < S.collapsed + S.collapsed / 4)) return;
    if (!pages_begin(PAGES_HUGE)) return;
    S.split = false;
    S.collapsed = now;
}

static void plan_slices(uint64_t took);

void snapshot_poll(void) {
    if (W.phase != RUNNING) return;
    wn_snapshot_state state = wn_snapshot_poll(&S.snapshot);
    if (state == WN_SNAPSHOT_DONE) {
        S.answer = wn_snapshot_result(&S.snapshot);
        answer *a = S.answer;
        S.next = 0;
        S.handed = 0;
        W.phase = READY;
        W.n.child_ns = a->ns;
        W.n.child_cpu_ns = a->cpu_ns;
        W.n.tracked = a->tracked;
        W.n.marked = a->marked;
        W.n.candidates = a->candidates;
        W.n.walked = a->walked;
        W.n.gone = a->gone;
        W.n.proposed += a->garbage;
        S.patience = wn_os_now() + a->ns;
        if (a->tracked) W.ns_per_object = (double)a->ns / (double)a->tracked;
        W.gc->long_lived_total = (Py_ssize_t)(a->tracked - a->garbage);
        S.paced = 0;
        plan_slices(0);
        if (W.o.log) {
            W.types = a->types;
            W.how = "snapshot searched in";
            log_line(a->ns, a->garbage, a->tracked);
        }
    } else if (state == WN_SNAPSHOT_DIED) {
        W.n.fallback_child++;
        W.at_once = true;
        snapshot_drop();
    } else if ((double)(wn_os_now() - S.at) > W.o.snapshot_s * 1e9) {
        W.n.fallback_slow++;
        W.at_once = true;
        snapshot_drop();
    }
}

/* The fork protected every page against writing, and the program takes a fault for each that it writes to; while the
 * child lives, a copy. Reclaiming writes to most of them, so it waits until the child has ended and a thread has made
 * the pages writable, but not for ever. */
static bool pages_are_ours(void) {
    if (S.pages == SHARED && wn_snapshot_ended(&S.snapshot))
        S.pages = S.answer->tracked > FEW && pages_begin(PAGES_OURS) ? RETURNING : OURS;
    if ((S.pages == RETURNING && !pages_at_work()) || wn_os_now() > S.patience) S.pages = OURS;
    return S.pages == OURS;
}

bool snapshot_is_ready(void) {
    snapshot_poll();
    return W.phase == READY && pages_are_ours();
}

static void ask_to_write(void *ignored, void *reference) {
    (void)ignored;
    if (reference) __builtin_prefetch(reference, 1, 2);
}

/* Garbage has lain untouched for long, and its collection waits for each line of memory in turn: the objects, their
 * tables, what those hold. So all of them are asked for together: one step for all objects, then the next. */
static void ask_for(PyObject **o, size_t n) {
    for (size_t i = 0; i < n; i++) {
        PyTypeObject *type = Py_TYPE(o[i]);
        __builtin_prefetch(gc_next(gc_of(o[i])), 1, 2);
        __builtin_prefetch(gc_prev(gc_of(o[i])), 1, 2);
        if (type == &PyDict_Type) {
            char *keys = (char *)((PyDictObject *)o[i])->ma_keys;
            __builtin_prefetch(keys, 1, 2);
            __builtin_prefetch(keys + 64, 1, 2);
        } else if (type == &PyList_Type) {
            __builtin_prefetch(((PyListObject *)o[i])->ob_item, 1, 2);
        } else if (HAS_MANAGED_DICT(type)) {
            __builtin_prefetch(instance_values_hint(o[i]), 1, 2);
        }
    }
    for (size_t i = 0; i < n; i++) {
        PyTypeObject *type = Py_TYPE(o[i]);
        PyObject **values;
        size_t count = 0;
        if (type == &PyDict_Type)
            scan_dict(o[i], ask_to_write, NULL);
        else if (type == &PyList_Type)
            scan_list(o[i], ask_to_write, NULL);
        else if (type == &PyTuple_Type)
            scan_tuple(o[i], ask_to_write, NULL);
        else if (HAS_MANAGED_DICT(type))
            ask_to_write(NULL, instance_dict(o[i], type, &values, &count));
        for (size_t k = 0; k < count; k++) ask_to_write(NULL, values[k]);
    }
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

/* Hands over about that much of the garbage, whole components; then untracks; then tells the census; then it is over.
 */
static void reclaim_slice(size_t slice) {
    enum { TOGETHER_ASKED = 256, GONE = 256, LIGHT = 8 }; /* of the last two kinds so many take as long as one object */
    answer *a = S.answer;
    if (!notes_complete()) { /* frees went unseen: nothing of it can be trusted */
        bool lost = notes_lost();
        uint64_t told = W.n.fallback_allocator;
        snapshot_drop();
        if (lost)
            W.n.fallback_memory++;
        else if (W.n.fallback_allocator == told) /* what came over ours has gone */
            W.n.fallback_allocator++;
        return;
    }
    if (gc_frozen_since(W.gc, &S.frozen)) {
        W.n.rejected_stale += a->entries - S.next; /* any of it may have been frozen */
        snapshot_drop();
        return;
    }
    size_t handed = 0, looked = 0;
    for (bool whole = true; S.next < a->entries && !(whole && handed >= slice);) {
        PyObject *part[TOGETHER_ASKED];
        size_t n = 0, some = handed < slice ? slice - handed + TOGETHER : TOGETHER;
        if (some > TOGETHER_ASKED) some = TOGETHER_ASKED;
        size_t end = S.next + some < a->entries ? S.next + some : a->entries;
        for (size_t i = S.next; i < end; i++) {
            void *o = (void *)(a->entry[i].object & ~(uintptr_t)1);
            __builtin_prefetch(gc_of(o), 1, 2);
            if ((uintptr_t)o & 63) __builtin_prefetch((char *)o + 32, 1, 2);
        }
        for (; S.next < end && !(whole && handed + n >= slice); looked++) {
            entry *e = &a->entry[S.next++];
            PyObject *o = (PyObject *)(e->object & ~(uintptr_t)1);
            whole = e->object & 1;
            if (notes_freed(o) || !gc_tracked(o) || Py_TYPE(o) != e->type)
                W.n.rejected_stale++;
            else
                part[n++] = o;
        }
        ask_for(part, n);
        for (size_t i = 0; i < n; i++) hand_over(W.gc, part[i]);
        handed += n;
    }
    S.handed = handed;
    if (handed) {
        W.n.slices++;
        W.in_slice = true;
    }
    size_t untracked = a->entries + a->untrackable, end = untracked + a->told;
    for (; S.next >= a->entries && S.next < untracked && looked < slice; looked += S.next % LIGHT == 0) {
        PyObject *o = (PyObject *)a->entry[S.next++].object;
        if (notes_freed(o) || !gc_tracked(o)) continue;
        W.n.untracked += search_untrack_one(o);
    }
    for (; S.next >= untracked && S.next < end && looked < slice; looked += GONE / LIGHT) {
        PyObject *part[GONE];
        size_t n = 0;
        while (n < GONE && S.next < end) part[n++] = (PyObject *)a->entry[S.next++].object;
        census_remove_gone(part, n);
    }
    if (S.next == end) snapshot_drop();
}

/* ---- taking snapshots early -------------------------------------------------------------------------------------- */

/* A snapshot costs no stop to speak of, but garbage lives on while the child searches and while it is reclaimed. So the
 * automatic collection is begun before the interpreter would ask for it, when old objects have grown by 15 % instead of
 * 25 %, and the peak of memory stays where it was. */
void snapshot_early(int level) {
    gc_state *gc = W.gc;
    if (W.o.mode != MODE_CONCURRENT || W.o.proportional || W.phase != IDLE || W.at_once || !gc->enabled ||
        !gc->generations[2].threshold || gc->generations[2].count <= gc->generations[2].threshold ||
        gc->long_lived_pending < (Py_ssize_t)((double)gc->long_lived_total * EARLY) ||
        collector_expected_ms() <= W.o.budget_ms) {
        S.due = false;
        return;
    }
    S.due = true;
    if ((W.o.huge && pages_at_work()) || level) return; /* a young collection comes soon, and takes less by itself */
    S.due = false;
    W.start = wn_os_now();
    if (!snapshot_start()) return;
    W.n.early++;
    gc->generation_stats[2].collections++;
    gc->long_lived_pending = 0;
    gc->generations[2].count = 0;
    uint64_t ns = wn_os_now() - W.start;
    note_pause(ns);
    W.how = "snapshot taken early in";
    log_line(ns, 0, (size_t)gc->long_lived_total);
}

/* ---- pacing ------------------------------------------------------------------------------------------------------ */

/* Garbage is reclaimed at the pace at which the next snapshot can come nearer, as the old objects grow in number (when
 * that has gone on while the child searched, faster): what is done before then costs no memory, because new objects
 * take the place of those reclaimed. And it is done in slices that take about as long as a young collection, so that
 * the program's slowest steps are not much slower than they always were: several of them between two young collections.
 * For that the interpreter's count of new objects is put ahead, which makes it collect sooner, and in such a collection
 * the young objects are parked.
 *
 * Of what slices cost, a rise counts at once and a fall slowly. */
static void plan_slices(uint64_t took) {
    enum { MOST_BETWEEN = 16, LEAST_STEP = 32 };
    if (took && S.handed > 20) {
        double each = (double)took / (double)S.handed;
        S.ns_each = each > S.ns_each ? S.ns_each * .8 + each * .2 : S.ns_each * .95 + each * .05;
    }
    if (!S.answer) return; /* that was the last */
    double until_next = (double)W.gc->long_lived_total * EARLY, growth = until_next - (double)W.gc->long_lived_pending;
    if (growth < until_next / 8) growth = until_next / 8;
    double left = S.next < S.answer->entries ? (double)(S.answer->entries - S.next) : 0;
    double pace = left * W.gc->generations[0].threshold / (growth + 1);
    if (pace > S.paced) S.paced = pace;
    double each = S.ns_each > 0 ? S.ns_each : 500, limit = W.o.slice_ms * 8e5;
    double aim = .3 * (S.ns_young > 25e3 ? S.ns_young : 25e3);
    double slices = S.paced * each / (aim < limit ? aim : limit) + 1;
    int young = W.gc->generations[0].threshold,
        room = young / LEAST_STEP < MOST_BETWEEN ? young / LEAST_STEP : MOST_BETWEEN;
    S.slices = slices < room ? (unsigned)slices : (unsigned)room;
    double n = S.paced / (S.slices ? S.slices : 1);
    /* Longer than they should be only where garbage comes faster than it goes: as many objects as can grow old. */
    double least = (young < 133 ? 200 : young > 1000 ? 1000 : 1.5 * young) / (S.slices ? S.slices : 1);
    if (n * each > limit) n = limit / each > least ? limit / each : least;
    S.slice = n > TOGETHER / 2 ? (size_t)n : TOGETHER / 2;
    S.asked = (size_t)(limit / each) > S.slice ? (size_t)(limit / each) : S.slice;
}

/* At the end of a young collection or a slice. */
static void next_slice(void) {
    struct gc_generation *g = W.gc->generations;
    if (W.phase != READY || S.pages != OURS || !S.slices || !W.gc->enabled || g[1].count > g[1].threshold) return;
    Py_ssize_t step = g[0].threshold / (Py_ssize_t)(S.slices + 1);
    if (g[0].count + step > g[0].threshold) return;
    S.borrowed = g[0].threshold - step - g[0].count;
    g[0].count += (int)S.borrowed;
}

void slice_start(int level) {
    int count = W.gc->generations[0].count, threshold = W.gc->generations[0].threshold;
    bool by_itself = W.gc->enabled && threshold && count > threshold, slice = S.borrowed && by_itself && level == 0;
    S.cpu = wn_os_thread_cpu();
    give_back_borrowed();
    if (!snapshot_is_ready()) return;
    if (slice) {
        S.young = W.gc->generations[0].count;
        park_young();
        W.between = true;
        reclaim_slice(S.slice);
        canary_set();
    } else if (level == 0 && (!S.slices || !by_itself)) {
        reclaim_slice(by_itself ? S.slice : S.asked);
    }
}

void slice_stop(int level, PyObject *info) {
    uint64_t ns = wn_os_now() - W.start;
    if (W.between) {
        unpark();
        canary_take();
        W.between = false;
        W.gc->generations[0].count += (int)S.young;
        if (W.gc->generations[1].count) W.gc->generations[1].count--;
    } else if (level == 0 && !W.in_slice) {
        double now = (double)ns < 4 * S.ns_young || S.ns_young == 0 ? (double)ns : 4 * S.ns_young;
        S.ns_young = S.ns_young ? .8 * S.ns_young + .2 * now : now;
    }
    if (W.in_slice) {
        W.in_slice = false;
        note_pause(ns);
        W.n.collected += (uint64_t)collected_of(info);
        plan_slices(wn_os_thread_cpu() - S.cpu); /* not what others did meanwhile */
    }
    if (level == 0) next_slice();
}

void slice_forget_count(void) { S.borrowed = 0; }
bool snapshot_is_due(void) { return S.due; }

void snapshots_forked(void) {
    pages_forked();
    S.split = true;
    give_back_borrowed();
    wn_snapshot_forget(&S.snapshot);
    end_notes();
    S.answer = NULL;
    W.phase = IDLE;
}

void snapshots_forget(void) {
    pages_stop();
    wn_snapshot_drop(&S.snapshot);
    wn_snapshot_reap(&S.snapshot);
    notes_forget();
    S.answer = NULL;
    S.borrowed = 0;
    S.due = false;
    W.phase = IDLE;
}
