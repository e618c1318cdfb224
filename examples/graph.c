/*
 * graph.c - people who know each other: a graph full of cycles, with weak references to its nodes and a finalizer.
 *
 * Each person holds something outside the heap (here a number from a pool, as it could be a file or a socket), which
 * the finalizer gives back. A directory of weak references knows all people without keeping any of them alive.
 */
#include <stdlib.h>
#include <winnow.h>

enum { PEOPLE = 1000, FRIENDS = 4, CLUB = 10 }; /* people know others of their club, nobody else */

typedef struct person {
    wn_object head;
    struct person *friends[FRIENDS];
    int number; /* from the pool */
} person;

static bool pool[PEOPLE];
static int finalized;

/* Runs once, when the person cannot be reached any more; its friends are still whole, even those that die with it. */
static void person_finalize(wn_mutator *m, void *object) {
    (void)m;
    const person *p = object;
    for (int i = 0; i < FRIENDS; i++)
        if (!p->friends[i] || p->friends[i]->number / CLUB != p->number / CLUB) abort();
    pool[p->number] = false;
    finalized++;
}
/* An array inside an object: its words are named one by one. */
static const wn_type person_type =
    WN_TYPE(person, WN_REFS(person, friends[0], friends[1], friends[2], friends[3]), .finalize = person_finalize);

/* An object with a variable number of references. */
typedef struct directory {
    wn_object head;
    size_t length;
    wn_weakref *entries[];
} directory;
static const wn_type directory_type = WN_TYPE(directory, WN_ITEMS(directory, length, entries));

typedef struct people {
    wn_object head;
    size_t length;
    person *members[];
} people;
static const wn_type people_type = WN_TYPE(people, WN_ITEMS(people, length, members));

static int callbacks;
static void on_death(wn_mutator *m, wn_weakref *ref, void *data) {
    (void)data;
    if (wn_weakref_get(m, ref)) abort(); /* cleared before anybody is told */
    callbacks++;
}

static bool make_people(wn_mutator *m, people *borrowed_people, directory *borrowed_directory) {
    /* Arguments that are used after a safepoint are declared; not counted, since the caller keeps them alive. */
    wn_borrow(m, people *, all, borrowed_people);
    wn_borrow(m, directory *, known, borrowed_directory);
    for (int i = 0; i < PEOPLE; i++) {
        wn_root(m, person *, p, wn_new(m, &person_type));
        if (!p) return false;
        p->number = i; /* plain data: plain C */
        pool[i] = true;
        wn_set(m, all, members[i], p);
        wn_move(m, known, entries[i], wn_weakref_new(m, p, on_death, NULL));
        if (!known->entries[i]) return false;
    }
    for (int i = 0; i < PEOPLE; i++)
        for (int k = 0; k < FRIENDS; k++) {
            int friend_number = i / CLUB * CLUB + (i + k + 1) % CLUB;
            wn_set(m, all->members[i], friends[k], all->members[friend_number]);
        }
    return true;
}

/* How many people the directory still knows; all of them with their friends. */
static int count_alive(wn_mutator *m, directory *borrowed_directory) {
    wn_borrow(m, directory *, known, borrowed_directory);
    int alive = 0;
    for (int i = 0; i < PEOPLE; i++) {
        wn_root(m, person *, p, wn_weakref_get(m, known->entries[i])); /* a new reference, or NULL */
        if (!p) continue;
        if (p->number != i || !pool[i] || !p->friends[0]) abort();
        alive++;
    }
    return alive;
}

int main(void) {
    wn_heap *heap;
    wn_mutator *m;
    if (wn_heap_new(NULL, &heap) || wn_attach(heap, &m)) return fprintf(stderr, "%s\n", wn_error_message()), 1;
    int before, after, taken = 0;
    {
        wn_root(m, directory *, known, wn_new_array(m, &directory_type, PEOPLE));
        wn_root(m, people *, all, wn_new_array(m, &people_type, PEOPLE));
        if (!known || !all || !make_people(m, all, known)) return fprintf(stderr, "%s\n", wn_error_message()), 1;
        wn_collect(m, 2, NULL);
        before = count_alive(m, known);

        /* Only one person of every second club stays: and through her, her whole club. */
        for (int i = 0; i < PEOPLE; i++)
            if (i % (2 * CLUB) != 0) wn_set(m, all, members[i], (person *)NULL);
        wn_collect(m, 2, NULL);
        wn_collect(m, 2, NULL); /* whatever the finalizers of the first had still to let go of */
        after = count_alive(m, known);
        for (int i = 0; i < PEOPLE; i++) taken += pool[i];
    }
    printf("%d people, then %d; %d finalized, %d callbacks, %d numbers taken; collector %s\n", before, after, finalized,
           callbacks, taken, wn_collector_name(wn_heap_collector(heap)));
    bool right = before == PEOPLE && after == PEOPLE / 2 && finalized == PEOPLE / 2 && callbacks == PEOPLE / 2 &&
                 taken == PEOPLE / 2;
    return wn_detach(m) || wn_heap_free(heap) || !right;
}
