/* test_incremental.c - what the incremental collector keeps to itself: what is owed, what is noted beside objects. */
#include "client/client.h"

#include "collectors/incremental/incremental.h"

#include <winnow/inspect.h>

/* What lies outside the heap when a major begins has brought it about; only what comes to it later is allocation. */
static void a_major_owes_nothing_for_what_was_before(void **state) {
    (void)state;
    enum { LIVING = 100000, MUCH = 1 << 30 };
    wn_options o = client_quiet_options();
    client c = client_open(&o);
    wn_mutator *m = c.m;
    const incremental *inc = inc_of(c.heap);
    {
        wn_root(m, pair *, list, NULL);
        for (long i = 0; i < LIVING; i++) wn_take(m, list, client_pair(m, i, list, NULL));
        wn_collect(m, 0, NULL);
        wn_external(m, list, MUCH);
        wn_collect_for(m, 1, NULL);
        assert_true(is_marking(inc));
        for (size_t i = 0; i < 2 * PIECE / sizeof(pair); i++) wn_release(m, client_pair(m, -1, NULL, NULL));
        assert_true(inc->owed < MUCH);
        assert_true(is_marking(inc));
        wn_external(m, list, MUCH);
        for (size_t i = 0; i < 2 * PIECE / sizeof(pair); i++) wn_release(m, client_pair(m, -1, NULL, NULL));
        assert_true(inc->owed >= MUCH || !is_marking(inc));
        wn_external(m, list, -MUCH);
        wn_external(m, list, -MUCH);
    }
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_major_owes_nothing_for_what_was_before),
    };
    return CLIENT_MAIN("incremental", tests);
}
