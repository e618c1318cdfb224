/* one_processor.h - leaves the calling thread, and those that it makes, one of the processors that it may use. */
#ifndef ONE_PROCESSOR_H
#define ONE_PROCESSOR_H

#ifdef __linux__
#include <sched.h>

/* `before`: those it had, for sched_setaffinity afterwards. */
static inline void leave_one_processor(cpu_set_t *before) {
    cpu_set_t one;
    assert_int_equal(sched_getaffinity(0, sizeof *before, before), 0);
    int first = 0;
    while (!CPU_ISSET(first, before)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
}
#endif

#endif
