/* tree.c - the example of the README: builds a binary tree on a Winnow heap and counts its nodes. */
#include <winnow.h>

typedef struct node {
    wn_object head;
    struct node *left, *right;
} node;
static const wn_type node_type = WN_TYPE(node, WN_REFS(node, left, right));

static node *build(wn_mutator *m, int depth) {
    wn_root(m, node *, n, wn_new(m, &node_type)); /* a local reference: declared, released at the end of the scope */
    if (n && depth > 0) {
        wn_move(m, n, left, build(m, depth - 1)); /* a stored reference: through wn_move or wn_set */
        wn_move(m, n, right, build(m, depth - 1));
    }
    return wn_give(m, n); /* everything else is plain C */
}

static long count(const node *n) { return n ? 1 + count(n->left) + count(n->right) : 0; }

int main(void) {
    wn_heap *heap;
    wn_mutator *m;
    if (wn_heap_new(NULL, &heap) || wn_attach(heap, &m)) return fprintf(stderr, "%s\n", wn_error_message()), 1;
    {
        wn_root(m, node *, tree, build(m, 16));
        printf("%ld nodes, collector %s\n", count(tree), wn_collector_name(wn_heap_collector(heap)));
    } /* under reference counting the tree is freed here, under the others by a later collection */
    return wn_detach(m) || wn_heap_free(heap);
}
