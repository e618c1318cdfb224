/*
 * headers.cc - the public headers from C++: every macro that a client uses compiles without a warning, and works.
 */
#include <cstdio>

#include <winnow.h>
#include <winnow/objects.h>

namespace {

struct node {
    wn_object head;
    node *left, *right;
};
struct array {
    wn_object head;
    size_t length;
    wn_object *items[1];
};

int finalized;
void finalize(wn_mutator *, void *) { finalized++; }

const wn_type node_type = WN_TYPE(node, WN_REFS(node, left, right));
const wn_type array_type = WN_TYPE(array, .flags = WN_TYPE_PINNED, WN_ITEMS(array, length, items));
const wn_type closing_type = WN_TYPE(node, WN_REFS(node, left), .finalize = finalize);

node *build(wn_mutator *m, int depth) {
    wn_root(m, node *, n, wn_new(m, &node_type));
    if (n && depth > 0) {
        wn_move(m, n, left, build(m, depth - 1));
        wn_move(m, n, right, build(m, depth - 1));
    }
    return wn_give(m, n);
}
int count(const node *n) { return n ? 1 + count(n->left) + count(n->right) : 0; }

bool works(wn_mutator *m) {
    wn_root(m, node *, tree, build(m, 8));
    wn_root(m, array *, a, static_cast<array *>(wn_new_array(m, &array_type, 4)));
    wn_root(m, wn_list *, list, wn_list_new(m, 0));
    if (!tree || !a || !list) return false;
    wn_set(m, a, items[0], &tree->head);
    wn_list_push(m, list, wn_int_new(m, 3));
    wn_borrow(m, node *, left, tree->left);
    wn_hold(m, node *, right, tree->right);
    wn_assign(m, right, left);
    wn_take(m, right, build(m, 1));
    try {
        wn_root(m, node *, unwound, build(m, 2));
        throw 1;
    } catch (int) {
    }
    { wn_root(m, node *, closed, wn_new(m, &closing_type)); }
    wn_collect(m, 2, nullptr);
    return count(tree) == 511 && count(right) == 3 && wn_list_length(list) == 1 && finalized == 1;
}

} // namespace

int main() {
    wn_heap *heap;
    wn_mutator *m;
    wn_options options = wn_options_default();
    if (wn_heap_new(&options, &heap) || wn_attach(heap, &m) || !works(m) || wn_detach(m) || wn_heap_free(heap)) {
        std::fprintf(stderr, "headers: wrong, or %s\n", wn_error_message());
        return 1;
    }
}
