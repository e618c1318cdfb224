/*
 * incremental.pml - the incremental collector's barrier, minor collections and marking in steps, as a model.
 *
 * Claim: whatever the program does between two steps, no object that it can still reach is freed. The names of the
 * steps (Store, Minor, Start, MarkStep, Terminate, WeakStep, SweepStep) are those in the comments of
 * src/collectors/incremental/; docs/design/incremental.md argues in prose what is searched exhaustively here.
 *
 * Steps run at safepoints of the program, so each is atomic against the program's loads and stores; what is explored
 * is every order of them, on every heap of N objects with one reference each and two roots.
 *
 * Variants that are wrong on purpose, each of which the search must find (run.sh checks that it does):
 *   -DNO_BARRIER   a store into an old object is not recorded
 *   -DNO_RESCAN    marking ends without looking at the roots again
 *   -DNO_SHADE     objects promoted during marking become black without shading what they refer to
 *   -DNO_WEAKTEST  reading a weak reference does not ask whether its target was found dead
 */
#define N 3
#define NIL 3

/* where an object is */
#define FREE 0
#define YOUNG 1
#define OLD 2
/* its colour, when old */
#define WHITE 0
#define GREY 1
#define BLACK 2
/* the state of the major collection */
#define IDLE 0
#define MARKING 1
#define WEAK 2
#define SWEEPING 3

byte age[N];
byte colour[N];
byte ref[N];
bool remembered[N]; /* in the remembered set: the count byte is no longer WN_OLD_CLEAN_ */
bool unswept[N];
byte root[2];
byte weak = NIL; /* the target of the one weak reference */
byte phase = IDLE;

hidden byte seen[N]; /* scratch of Minor and of the check */
hidden byte i, j, k;

inline shade(o) {
    if
    :: o != NIL && age[o] == OLD && colour[o] == WHITE -> colour[o] = GREY
    :: else
    fi
}

/* Re-derives what the program can reach and asserts that `o`, about to be freed, is not part of it. */
inline check_unreachable(o) {
    for (k : 0 .. N - 1) { seen[k] = (root[0] == k || root[1] == k) }
    for (j : 1 .. N - 1) {
        for (k : 0 .. N - 1) {
            if
            :: seen[k] && ref[k] != NIL -> seen[ref[k]] = true
            :: else
            fi
        }
    }
    assert(!seen[o]);
    for (k : 0 .. N - 1) { seen[k] = false }
}

inline release(o) {
    check_unreachable(o);
    age[o] = FREE;
    colour[o] = WHITE;
    ref[o] = NIL;
    remembered[o] = false;
    unswept[o] = false
}

/* Minor: what is young and reached from a root or from the remembered set becomes old, the rest is freed. During
 * marking survivors become black, and what they and the remembered black objects refer to is shaded. */
inline minor() {
    for (i : 0 .. N - 1) {
        seen[i] = age[i] == YOUNG && (root[0] == i || root[1] == i)
    }
    for (i : 0 .. N - 1) {
        if
        :: remembered[i] && ref[i] != NIL && age[ref[i]] == YOUNG -> seen[ref[i]] = true
        :: else
        fi
    }
    for (j : 1 .. N - 1) {
        for (i : 0 .. N - 1) {
            if
            :: seen[i] && ref[i] != NIL && age[ref[i]] == YOUNG -> seen[ref[i]] = true
            :: else
            fi
        }
    }
    for (i : 0 .. N - 1) {
        if
        :: seen[i] ->
            age[i] = OLD;
            seen[i] = false;
            unswept[i] = false; /* promoted into blocks that are already swept */
            if
            :: phase == MARKING || phase == WEAK -> colour[i] = BLACK; unswept[i] = (phase == WEAK)
            :: else -> colour[i] = WHITE
            fi;
            remembered[i] = phase == MARKING /* the loop below shades for it */
        :: else
        fi
    }
    for (i : 0 .. N - 1) {
        if
        :: age[i] == YOUNG ->
            if
            :: weak == i -> weak = NIL
            :: else
            fi;
            release(i)
        :: else
        fi
    }
    for (i : 0 .. N - 1) {
        if
        :: remembered[i] ->
            remembered[i] = false;
#ifndef NO_SHADE
            if
            :: phase == MARKING && colour[i] == BLACK -> shade(ref[i])
            :: else
            fi
#else
            skip
#endif
        :: else
        fi
    }
}

inline any_grey(result) {
    result = false;
    for (i : 0 .. N - 1) {
        if
        :: age[i] == OLD && colour[i] == GREY -> result = true
        :: else
        fi
    }
}

hidden byte grey_left;

active proctype program_and_collector() {
    byte a, b;
    atomic {
        for (i : 0 .. N - 1) { ref[i] = NIL }
        root[0] = NIL;
        root[1] = NIL
    }
    do
    :: atomic { /* New */
           select(a : 0 .. 1);
           select(b : 0 .. N - 1);
           if
           :: age[b] == FREE && (b == 0 || age[b - 1] != FREE) -> age[b] = YOUNG; ref[b] = NIL; root[a] = b
           :: else
           fi;
           a = 0; b = 0; i = 0; j = 0; k = 0
       }
    :: atomic { /* Load */
           select(a : 0 .. 1);
           if
           :: root[a] != NIL -> root[1 - a] = ref[root[a]]
           :: else
           fi;
           a = 0
       }
    :: atomic { /* Store, with the backward barrier */
           select(a : 0 .. 1);
           select(b : 0 .. 1);
           if
           :: root[a] != NIL ->
#ifndef NO_BARRIER
               if
               :: age[root[a]] == OLD -> remembered[root[a]] = true
               :: else
               fi;
#else
               if /* the generational half is kept: only the re-greying is lost */
               :: age[root[a]] == OLD && root[b] != NIL && age[root[b]] == YOUNG -> remembered[root[a]] = true
               :: else
               fi;
#endif
               if
               :: ref[root[a]] = root[b]
               :: ref[root[a]] = NIL
               fi
           :: else
           fi;
           a = 0; b = 0
       }
    :: atomic { select(a : 0 .. 1); root[a] = NIL; a = 0 } /* Drop */
    :: atomic { select(a : 0 .. 1); weak = root[a]; a = 0 } /* WeakNew */
    :: atomic { /* WeakGet */
           select(a : 0 .. 1);
           if
           :: weak == NIL -> root[a] = NIL
#ifndef NO_WEAKTEST
           :: weak != NIL && phase == WEAK && age[weak] == OLD && colour[weak] == WHITE -> root[a] = NIL
           :: weak != NIL && !(phase == WEAK && age[weak] == OLD && colour[weak] == WHITE) -> root[a] = weak
#else
           :: weak != NIL -> root[a] = weak
#endif
           fi;
           a = 0
       }
    :: atomic { minor(); i = 0; j = 0; k = 0 } /* Minor */
    :: atomic { /* Start */
           phase == IDLE ->
           phase = MARKING;
           shade(root[0]);
           shade(root[1])
       }
    :: atomic { /* MarkStep: any grey object, the search tries each */
           phase == MARKING ->
           select(a : 0 .. N - 1);
           if
           :: age[a] == OLD && colour[a] == GREY -> shade(ref[a]); colour[a] = BLACK
           :: else
           fi;
           a = 0
       }
    :: atomic { /* Terminate: nothing grey, then a minor and the roots once more, and still nothing grey */
           phase == MARKING ->
           any_grey(grey_left);
           if
           :: !grey_left ->
               minor();
#ifndef NO_RESCAN
               shade(root[0]);
               shade(root[1]);
#endif
               any_grey(grey_left);
               if
               :: !grey_left ->
                   phase = WEAK;
                   for (i : 0 .. N - 1) { unswept[i] = age[i] == OLD }
               :: else
               fi
           :: else
           fi;
           grey_left = false; i = 0; j = 0; k = 0
       }
    :: atomic { /* WeakStep */
           phase == WEAK ->
           if
           :: weak != NIL && age[weak] == OLD && colour[weak] == WHITE -> weak = NIL
           :: else
           fi;
           phase = SWEEPING
       }
    :: atomic { /* SweepStep: any block (here: object) not yet swept */
           phase == SWEEPING ->
           select(a : 0 .. N - 1);
           if
           :: age[a] == OLD && unswept[a] && colour[a] == WHITE -> release(a)
           :: age[a] == OLD && unswept[a] && colour[a] != WHITE -> colour[a] = WHITE; unswept[a] = false
           :: else
           fi;
           if
           :: !unswept[0] && !unswept[1] && !unswept[2] -> phase = IDLE
           :: else
           fi;
           a = 0; j = 0; k = 0
       }
    od
}
