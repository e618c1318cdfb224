/*
 * concurrent_barrier.pml - the concurrent collector's barrier with stacks scanned one thread at a time.
 *
 * Two mutators change a small graph while one marker marks it; no step stops both. The claim: when marking has
 * ended, every object that a mutator can still reach is marked, so that sweeping frees only garbage.
 *
 * The steps carry the names that docs/design/concurrent.md gives them and that the comments in
 * src/collectors/concurrent/ refer to: B1-B3 (the barrier), H1-H3 (the handshakes), T1-T3 (termination),
 * W1-W2 (weak reads), A1 (allocation).
 *
 * Each of these variants must be found to be wrong (tests/spin/run.sh checks that it is):
 *   -DBREAK_EXCHANGE   B1 reads and stores in two steps even while the writer's stack is grey
 *   -DBREAK_DELETION   B2 does not shade the overwritten reference
 *   -DBREAK_INSERTION  B3 does not shade the new reference while the writer's stack is grey
 *   -DBREAK_ALLOC      A1 hands out white memory to threads whose stacks are black
 *   -DBREAK_BIRTH      A1 hands out black memory from H1 on: another thread, still without barrier, stores into it what
 *                      nobody will ever scan
 *   -DBREAK_EARLY      tracing begins before H1 is over
 *   -DBREAK_ROUND      H1 and H2 are one handshake: a stack is scanned before every thread has its barrier on
 *   -DBREAK_GLOBAL     a store into a global variable has no barrier
 *   -DBREAK_FLUSH      T2 is left out: marking ends when the marker's own queue is empty
 *   -DBREAK_WEAK       W1 returns a white target without shading it
 *   -DBREAK_REOPEN     T3 ignores the weak reads that happened during the round
 */

#define OBJECTS 3           /* 1 .. OBJECTS; 0 is NULL as a reference and the global variable as a holder */
#define BIT(o) (1 << (o))

byte field[OBJECTS + 1];    /* one reference per object; field[0] is a global root variable */
byte marked = 1;            /* bit per object; bit 0 (NULL) counts as marked */
byte queue = 0;             /* marked, not yet scanned: grey */
byte allocated = 0;
byte pool = 0;              /* buffers handed over to the marker */
byte weak_target = 0;
bool weak_read = false;     /* a weak read returned a white object since the round began */
bool closed = false;        /* marking has ended: weak reads no longer revive */

typedef mutator_state {
    byte held;              /* the reference in its stack */
    byte buffer;            /* references this thread has shaded and not yet handed over */
    byte request;           /* the poll word: 0, or the handshake that is asked for */
    bool shading;           /* WN_MODE_SHADE_ */
    bool grey;              /* its stack has not been scanned in this cycle */
    byte left;              /* operations that it may still do */
};
mutator_state thread[2];

/* What is marked already is a no-op in a buffer; leaving it out keeps the state space small and changes nothing else. */
inline normalise() {
    pool = pool & ~marked;
    thread[0].buffer = thread[0].buffer & ~marked;
    thread[1].buffer = thread[1].buffer & ~marked;
}

#define BARRIER_ON 1
#define SCAN 2
#define FLUSH 3

/* A safepoint: serves the request that is pending, on the thread itself. */
inline safepoint(m) {
    atomic {
        if
        :: thread[m].request == BARRIER_ON ->               /* H1 */
            thread[m].shading = true;
            thread[m].grey = true;
#ifdef BREAK_ROUND
            pool = pool | BIT(thread[m].held);
            thread[m].grey = false;
#endif
        :: thread[m].request == SCAN ->                     /* H2 */
            pool = pool | thread[m].buffer | BIT(thread[m].held);
            thread[m].buffer = 0;
            thread[m].grey = false;
        :: thread[m].request == FLUSH ->                    /* H3 */
            pool = pool | thread[m].buffer;
            thread[m].buffer = 0;
        :: else
        fi;
        thread[m].request = 0;
        normalise();
    }
}

proctype mutator(byte m) {
    byte holder, value, old;
    bool stored;
end:
    do
    :: thread[m].request != 0 -> safepoint(m)
    :: d_step { thread[m].buffer != 0 -> pool = pool | thread[m].buffer; thread[m].buffer = 0; } /* the buffer is full */
    :: atomic { thread[m].left > 0 -> thread[m].left--; /* load: held = holder.field; the global is holder 0 */
        if :: holder = 0 :: holder = thread[m].held fi;
        thread[m].held = field[holder];
        holder = 0;
       }
    :: atomic { thread[m].left > 0 -> thread[m].left--; thread[m].held = 0 }
    :: atomic { /* A1: allocate; black as soon as this thread's stack is */
        thread[m].left > 0 && m == 0 && !(allocated & BIT(OBJECTS)) ->
        thread[m].left--;
        allocated = allocated | BIT(OBJECTS);
#ifdef BREAK_BIRTH
        if :: thread[m].shading -> marked = marked | BIT(OBJECTS) :: else fi;
#else
#ifndef BREAK_ALLOC
        if :: thread[m].shading && !thread[m].grey -> marked = marked | BIT(OBJECTS) :: else fi;
#endif
#endif
        field[OBJECTS] = 0;
        thread[m].held = OBJECTS;
       }
    :: atomic { m == 1 && thread[m].left > 0 -> thread[m].left--; /* weak read, under the weak lock: W1, W2 */
        if
        :: closed -> if :: marked & BIT(weak_target) -> thread[m].held = weak_target :: else -> thread[m].held = 0 fi
        :: else ->
            thread[m].held = weak_target;
#ifndef BREAK_WEAK
            if
            :: !(marked & BIT(weak_target)) -> weak_read = true; pool = pool | BIT(weak_target); /* before H1, too */
            :: else
            fi;
#endif
        fi;
       }
    :: atomic { thread[m].left > 0 -> thread[m].left--; /* store: holder.field = value */
        if :: holder = 0 :: holder = thread[m].held :: holder = field[0] fi;
        if :: value = thread[m].held :: value = 0 fi;
        old = field[holder]; /* B1: read first, then written; the other thread may write in between ... */
#ifndef BREAK_EXCHANGE
        if :: thread[m].shading && thread[m].grey -> field[holder] = value; stored = true :: else fi; /* ... or not */
#endif
       }
       if :: stored :: else -> field[holder] = value fi;
       atomic { /* the other thread and the marker may have run in between */
        if
#ifdef BREAK_GLOBAL
        :: holder == 0
        :: holder != 0 && thread[m].shading ->
#else
        :: thread[m].shading ->
#endif
#ifndef BREAK_DELETION
            thread[m].buffer = thread[m].buffer | BIT(old); /* B2 */
#endif
#ifndef BREAK_INSERTION
            if :: thread[m].grey -> thread[m].buffer = thread[m].buffer | BIT(value) :: else fi; /* B3 */
#endif
            normalise();
        :: else
        fi;
        old = 0; value = 0; holder = 0; stored = false;
       }
    od
}

/* Asks both threads for a handshake, and waits until both have served it, whichever comes first. */
inline handshake(kind) {
    d_step { thread[0].request = kind; thread[1].request = kind; }
    thread[0].request == 0 && thread[1].request == 0;
}

/* Stacks are scanned while marking goes on already. */
bool stacks_scanned = false;
proctype scanner() {
#ifdef BREAK_EARLY
    handshake(BARRIER_ON);
#endif
    handshake(SCAN);
    stacks_scanned = true;
}

proctype marker() {
    byte o, r, reach, n;
    bool again;
#ifndef BREAK_EARLY
    handshake(BARRIER_ON);
#endif
#ifdef BREAK_ROUND
    stacks_scanned = true;
#else
    run scanner();
#endif
    pool = pool | BIT(field[0]); /* global variables: under the barrier, so any moment after H1 is good */
    do
    :: d_step { /* take what was handed over: white becomes grey */
        queue = queue | (pool & ~marked);
        marked = marked | pool;
        normalise();
       }
       if
       :: queue != 0 -> /* scan one grey object */
        atomic {
            if
            :: queue & BIT(1) -> o = 1
            :: queue & BIT(2) -> o = 2
            :: queue & BIT(3) -> o = 3
            fi;
            r = field[o];
            queue = queue & ~BIT(o);
            if :: marked & BIT(r) :: else -> marked = marked | BIT(r); queue = queue | BIT(r) fi;
            normalise();
            r = 0; o = 0;
        }
       :: queue == 0 && pool != 0
       :: queue == 0 && stacks_scanned -> /* T1: the queue is empty; ask every thread for its buffer */
        weak_read = false;
#ifndef BREAK_FLUSH
        handshake(FLUSH); /* T2 */
#endif
        atomic {          /* T3, under the weak lock: a round in which nothing white turned up ends marking */
            again = (pool & ~marked) != 0;
#ifdef BREAK_REOPEN
            if :: (pool & ~marked) == BIT(weak_target) && weak_read -> again = false :: else fi;
#else
            again = again || weak_read;
#endif
            if :: !again -> closed = true; break :: else fi;
        }
       fi
    od;
    atomic { /* what can be reached now must be marked */
        reach = BIT(field[0]) | BIT(thread[0].held) | BIT(thread[1].held);
        do
        :: n < OBJECTS ->
            if :: reach & BIT(1) -> reach = reach | BIT(field[1]) :: else fi;
            if :: reach & BIT(2) -> reach = reach | BIT(field[2]) :: else fi;
            if :: reach & BIT(3) -> reach = reach | BIT(field[3]) :: else fi;
            n++
        :: else -> break
        od;
        assert((reach & ~marked) == 0);
    }
}

/* A global that refers to an object, perhaps to a chain of two, the second perhaps in a stack; the third is still to be
 * allocated. */
init {
    atomic {
        allocated = BIT(1) | BIT(2);
        field[0] = 1;
        if
        :: thread[0].left = 1; thread[1].left = 3; thread[1].held = 2 /* BREAK_EXCHANGE is found only so */
        :: thread[0].left = 2; thread[1].left = 2;
            if :: field[1] = 2 :: field[1] = 0 fi;
            if :: thread[0].held = 0 :: thread[0].held = 2 fi;
            if :: thread[1].held = 0 :: thread[1].held = 2 fi
        fi;
        weak_target = 2;
        run mutator(0);
        run mutator(1);
        run marker();
    }
}
