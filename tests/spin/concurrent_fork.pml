/*
 * concurrent_fork.pml - fork() in the middle of a cycle.
 *
 * The conductor takes pieces of work off a list under a lock, has each in hand for a moment, and follows it; later it and
 * another thread that needs room claim blocks and sweep them. At any moment the program forks: the conductor is made to
 * stand still between two pieces, and in the child only the forking thread is left, with locks that are made anew and a
 * conductor that starts anew. The model follows the child, since in the parent everybody just goes on. Threads of the
 * program stand still, too, as the code is; the model does without that, so that the child owes nothing to it.
 *
 * Claims in the child: no lock stays locked; a cycle ends only when every piece has been followed; no block goes unswept,
 * whoever had claimed it.
 *
 * Each of these variants must be found to be wrong:
 *   -DBREAK_STILL   fork() does not wait until the conductor stands still, nor does the child give the cycle up
 *   -DBREAK_LOCK    the child does not make the lock of the list anew
 *   -DBREAK_REBUILD the child does not make the list of blocks anew, although another thread had claimed one
 */
#define MARKING 0
#define SWEEPING 1
#define IDLE 2

bool lock = false;    /* of the list of work */
bool forking = false;
bool still = false;   /* the conductor stands still */
bool child = false;   /* only the forking thread is left */
byte phase = MARKING;
byte listed = 3;      /* pieces of work that wait: bit per piece */
byte followed = 0;
byte unswept = 3;     /* blocks that nobody has claimed */
byte swept = 0;
bool finished = false;

inline take_one(set, item) {
    if :: set & 1 -> item = 1 :: !(set & 1) && set & 2 -> item = 2 :: set == 0 -> item = 0 fi;
    set = set & ~item
}

/* At the fork every other thread of the parent is gone, wherever it was: `unless`. */
proctype conductor(bool in_child) {
    byte hand = 0;
    {
    do
    :: forking -> still = true; !forking; still = false
    :: !forking && phase == MARKING ->
        atomic { !lock -> lock = true }
        atomic { take_one(listed, hand) }
        atomic { lock = false }
        atomic {
            if
            :: hand != 0 -> followed = followed | hand; hand = 0
            :: else -> if :: followed == 3 -> phase = SWEEPING :: else -> assert(!in_child) fi
            fi
        }
    :: !forking && phase == SWEEPING ->
        atomic { take_one(unswept, hand) }
        atomic {
            if
            :: hand != 0 -> swept = swept | hand; hand = 0
            :: else ->
                if
                :: swept == 3 -> phase = IDLE
                :: else -> assert(!in_child) /* somebody is still at one; in the child there is nobody */
                fi
            fi
        }
    :: phase == IDLE -> finished = true; break
    od
    } unless { child && !in_child }
}

/* A thread of the program that helps to mark, and sweeps a block for itself; it does not stand still for a fork. */
proctype starved() {
    byte hand = 0;
    {
        if
        :: phase == MARKING ->
            atomic { !lock -> lock = true }
            atomic { take_one(listed, hand) }
            atomic { lock = false }
            atomic { followed = followed | hand; hand = 0 }
        :: true
        fi;
        atomic { phase == SWEEPING -> take_one(unswept, hand) }
        atomic { swept = swept | hand; hand = 0 }
    } unless { child }
}

proctype forker() {
    forking = true;
#ifndef BREAK_STILL
    (still || finished); /* a thread that has gone home stands still, too */
#endif
    atomic {
        child = true; /* fork() */
        forking = false;
#ifndef BREAK_LOCK
        lock = false;
#endif
#ifndef BREAK_STILL
        if :: phase == MARKING -> listed = 3; followed = 0 :: else fi; /* the cycle is given up and starts again */
#endif
#ifndef BREAK_REBUILD
        if :: phase == SWEEPING -> unswept = 3 & ~swept :: else fi;
#endif
    }
    finished = false;
    run conductor(true);
    finished;
    assert(!lock && followed == 3 && swept == 3);
}

init {
    atomic {
        run conductor(false);
        run starved();
        run forker();
    }
}
