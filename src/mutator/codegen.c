/*
 * codegen.c - the numbers of codegen.h, taken from the structures that fast.h gives to C.
 *
 * Invariant: the sequences that codegen.h describes do what the inline functions of fast.h do, or call. Whoever changes
 * those changes the description; tests/emitted.h follows it to the letter and runs beside the model.
 */
#include <winnow/codegen.h>

#include <winnow/mutator.h>

#include <stddef.h>

_Static_assert(offsetof(wn_buffer_, cursor) == 0 && offsetof(wn_buffer_, limit) == 8, "a buffer is two words");
_Static_assert(offsetof(wn_root_link_, up) == 0 && offsetof(wn_root_link_, slot) == 8, "a link is two words");
_Static_assert(WN_OLD_CLEAN_ % 2 && WN_OLD_CARDS_ % 2, "an odd byte: a store may have to be recorded");
_Static_assert(WN_ROOT_BORROWED_ == 1, "the lowest bit of a link");

const wn_codegen *wn_codegen_get(void) {
    static const wn_codegen numbers = {
        .poll = offsetof(struct wn_mutator, poll),
        .mode = offsetof(struct wn_mutator, mode),
        .roots = offsetof(struct wn_mutator, roots),
        .young = offsetof(struct wn_mutator, young),
        .young_end = offsetof(struct wn_mutator, young_end),
        .nursery = offsetof(struct wn_mutator, nursery),
        .nursery_size = offsetof(struct wn_mutator, nursery_size),
        .counts = WN_MODE_COUNT_ | WN_MODE_ATOMIC_,
        .counts_alone = WN_MODE_COUNT_,
        /* While marking goes on the value's mark decides, which only the call can tell. */
        .store_calls = WN_MODE_COUNT_ | WN_MODE_ATOMIC_ | WN_MODE_SHADE_ | WN_MODE_CHECK_ | WN_MODE_MARKING_,
        .store_young = WN_MODE_YOUNG_,
        .store_records = WN_MODE_REMEMBER_,
        .chunk_shift = WN_CHUNK_SHIFT_,
        .granule_shift = WN_GRANULE_SHIFT_,
        .count_most = WN_COUNT_MAX_,
    };
    return &numbers;
}

bool wn_codegen_object_of(const wn_type *type, wn_codegen_object *how) {
    if (!type || !how || !wn_is_made_inline_(type)) return false;
    size_t slot = wn_slot_size_(type->size);
    bool tracked = wn_has_refs_(type);
    *how = (wn_codegen_object){
        .buffer = (uint32_t)(offsetof(struct wn_mutator, from) + wn_class_of_slot_(slot) * sizeof(wn_buffer_ *)),
        .bytes = (uint32_t)slot,
        .state = tracked ? WN_STATE_TRACKED_ : 0,
        .tracked = tracked,
    };
    return true;
}
