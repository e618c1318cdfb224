/*
 * concurrent_handshake.pml - how the conductor talks to threads one at a time, while they block, come, go, and stop the
 * world.
 *
 * Claims: each request is served exactly once, by the thread itself at a safepoint or by the conductor on its behalf
 * while it stands still, never by both at once; a thread is never served on its behalf while it runs; a handshake ends
 * although threads sit in blocking sections; whoever stops the world has it to himself, conductor included; nothing
 * deadlocks.
 *
 * `world` is heap->world: code between LOCK and UNLOCK has it. Conditions are waited for with the lock released.
 *
 * Each of these variants must be found to be wrong:
 *   -DBREAK_BLOCKEND   a thread leaves a blocking section without taking the lock
 *   -DBREAK_BEHALF     the conductor serves a still thread after it has let go of the lock
 *   -DBREAK_ATTACH     a thread that comes is put on the list without what the handshake asks for
 *   -DBREAK_HELPERS    a stop of the world does not wait until the conductor stands still
 */
#define THREADS 2
#define ROUNDS 2
#define RUNNING 0
#define STILL 1
#define ABSENT 2

bool world = false;          /* the lock */
byte state[THREADS];         /* RUNNING, STILL, ABSENT */
bool asked[THREADS];
byte served[THREADS];        /* the round a thread has been brought to */
bool serving[THREADS];       /* somebody is at it */
byte round = 0;              /* what a thread that comes must start with */
bool stopped = false;
byte stopper = 255;
byte conductor_state = STILL;
bool over = false;

#define LOCK atomic { !world -> world = true }
#define UNLOCK world = false

inline serve(i) {
    assert(!serving[i]); /* never by both */
    serving[i] = true;
    served[i] = served[i] + 1;
    serving[i] = false;
}

proctype thread(byte me) {
    byte moves = 3;
end:
    do
    :: asked[me] -> /* a safepoint: first stand still for a stop, then serve */
        LOCK;
        if
        :: stopped && stopper != me ->
            state[me] = STILL;
            UNLOCK;
            atomic { !world && !stopped -> world = true };
            state[me] = RUNNING;
        :: else
        fi;
        UNLOCK;
        if
        :: asked[me] -> serve(me); asked[me] = false;
        :: else /* it was served on its behalf meanwhile */
        fi;
    :: stopped && stopper != me && !asked[me] -> /* a safepoint where nothing but the stop is waiting */
        LOCK;
        if
        :: stopped -> state[me] = STILL; UNLOCK; atomic { !world && !stopped -> world = true }; state[me] = RUNNING;
        :: else
        fi;
        UNLOCK;
    :: atomic { moves > 0 -> moves-- }; /* a blocking section */
        LOCK; state[me] = STILL; UNLOCK;
        skip;
#ifdef BREAK_BLOCKEND
        state[me] = RUNNING;
#else
        atomic { !world && !stopped -> world = true };
        state[me] = RUNNING;
        UNLOCK;
#endif
        skip; /* ... where it uses what belongs to it */
        assert(state[me] == RUNNING && !serving[me]);
    :: atomic { moves > 0 && me == 1 -> moves-- }; /* stop the world, look around, let it go on */
        LOCK;
        if
        :: stopped -> state[me] = STILL; UNLOCK; atomic { !world && !stopped -> world = true }; state[me] = RUNNING;
        :: else
        fi;
        stopped = true; stopper = me;
        UNLOCK;
#ifdef BREAK_HELPERS
        atomic { !world && state[1 - me] != RUNNING -> world = true };
#else
        atomic { !world && state[1 - me] != RUNNING && conductor_state == STILL -> world = true };
#endif
        UNLOCK;
        assert(state[1 - me] != RUNNING && conductor_state == STILL);
        skip;
        assert(state[1 - me] != RUNNING && conductor_state == STILL && !serving[1 - me]);
        LOCK; stopped = false; stopper = 255; UNLOCK;
    :: atomic { moves > 0 && me == 0 -> moves-- }; /* go, and come again; what it is asked for goes with it */
        LOCK;
        if
        :: stopped -> UNLOCK; /* not now */
        :: else ->
            state[me] = ABSENT;
            asked[me] = false;
            UNLOCK;
            atomic { !world && !stopped -> world = true };
#ifndef BREAK_ATTACH
            served[me] = round;
#endif
            asked[me] = false;
            state[me] = RUNNING;
            UNLOCK;
        fi;
    od
}

/* The conductor stands still between looks when somebody wants the world. */
inline park() {
    LOCK;
    if
    :: stopped ->
        conductor_state = STILL;
        UNLOCK;
        atomic { !world && !stopped -> world = true };
        conductor_state = RUNNING;
    :: else
    fi;
    UNLOCK;
}

proctype conductor() {
    byte n = 0, waiting;
    atomic { !world && !stopped -> world = true };
    conductor_state = RUNNING;
    UNLOCK;
    do
    :: n < ROUNDS ->
        n++;
        LOCK;
        round = n;
        atomic {
            if :: state[0] != ABSENT -> asked[0] = true :: else fi;
            if :: state[1] != ABSENT -> asked[1] = true :: else fi;
        }
        do
        :: waiting = 0;
            if
            :: asked[0] && state[0] == STILL ->
#ifdef BREAK_BEHALF
                UNLOCK;
#endif
                serve(0);
                asked[0] = false;
#ifdef BREAK_BEHALF
                LOCK;
#endif
            :: asked[0] && state[0] == RUNNING -> waiting++;
            :: else
            fi;
            if
            :: asked[1] && state[1] == STILL -> serve(1); asked[1] = false;
            :: asked[1] && state[1] == RUNNING -> waiting++;
            :: else
            fi;
            UNLOCK;
            park();
            if :: waiting == 0 -> break :: else fi;
            LOCK;
        od;
        /* H: every thread there is has come to this round, exactly */
        LOCK;
        assert(state[0] == ABSENT || served[0] == n);
        assert(state[1] == ABSENT || served[1] == n);
        UNLOCK;
    :: else -> break
    od;
    LOCK;
    conductor_state = STILL;
    UNLOCK;
    over = true;
}

init {
    atomic {
        run thread(0);
        run thread(1);
        run conductor();
    }
}
