/* sizes.c - what a size costs: the slot of every size, the waste inside slots, measured on a heap and by the formula.
 */
#include "client.h"

static void every_size_has_the_smallest_slot_that_holds_it(void **state) {
    (void)state;
    size_t last = 0;
    unsigned last_class = 0;
    for (size_t n = 1; n <= WN_SMALL_MAX_; n++) {
        size_t slot = wn_slot_size_(n);
        unsigned class = wn_class_of_slot_(slot);
        assert_true(slot >= n && slot <= WN_SMALL_MAX_);
        assert_int_equal(slot % 16, 0);
        assert_true(slot >= last); /* steps up, and each step is the next class */
        assert_true(class < WN_CLASSES_);
        if (slot != last && last) assert_true(class > last_class);
        if (slot == last) assert_int_equal(class, last_class);
        if (last && slot != last) assert_int_equal(n, last + 1); /* the slot before was full at the size before */
        last = slot;
        last_class = class;
    }
    assert_int_equal(last, WN_SMALL_MAX_);
}

static void waste_by_the_formula(void **state) {
    (void)state;
    size_t asked = 0, given = 0;
    for (size_t n = 16; n <= 2048; n++) {
        asked += n;
        given += wn_slot_size_(n);
    }
    double waste = 1 - (double)asked / (double)given;
    if (waste > 0.125) fail_msg("%.1f %% of the slots is wasted", 100 * waste);
    for (size_t n = 257; n <= WN_SMALL_MAX_; n++) { /* and nowhere more than a ninth above the smallest */
        double one = 1 - (double)n / (double)wn_slot_size_(n);
        if (one > 1.0 / 9) fail_msg("size %zu: %.1f %% wasted", n, 100 * one);
    }
}

/* Uniform sizes from 16 to 2048 on a real heap: what objects asked for, what their slots take, what the heap holds. */
static void waste_as_measured(void **state) {
    (void)state;
    client c = client_open(NULL);
    wn_mutator *m = c.m;
    if (client_stressed() || client_moves(&c)) { /* a nursery has no slots */
        client_close(&c);
        skip();
    }
    size_t n = client_scaled(40000), asked = 0;
    {
        wn_root(m, vector *, all, client_new_array(m, &vector_type, n));
        wn_stats before, after;
        wn_get_stats(c.heap, &before);
        unsigned long long seed = 88172645463325252ull;
        for (size_t i = 0; i < n; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            size_t bytes = 16 + seed % 2033;
            wn_move(m, all, items[i], client_new_array(m, &blob_type, bytes - sizeof(blob)));
            assert_int_equal(wn_size_of(m, all->items[i]), bytes);
            asked += bytes;
        }
        wn_get_stats(c.heap, &after);
        /* Statistics are exact to an allocation buffer per size: too coarse for a small run. */
        double slots = (double)(after.live_bytes - before.live_bytes),
               held = (double)(after.heap_bytes - before.heap_bytes);
        if (n >= 40000 && 1 - (double)asked / slots > 0.125)
            fail_msg("asked for %zu bytes, slots take %.0f", asked, slots);
        if (n >= 40000 && slots / held < 0.85) fail_msg("slots take %.0f bytes of blocks of %.0f", slots, held);
    }
    client_collect(m);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_has_the_smallest_slot_that_holds_it),
        cmocka_unit_test(waste_by_the_formula),
        cmocka_unit_test(waste_as_measured),
    };
    return CLIENT_MAIN("sizes", tests);
}
