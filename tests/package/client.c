/* The smallest program that uses Winnow as a dependency: builds a list, drops it, and sees it gone. */
#include <winnow.h>

typedef struct link {
    wn_object head;
    struct link *next;
} link;
static const wn_type link_type = WN_TYPE(link, WN_REFS(link, next));

int main(void) {
    wn_heap *heap;
    wn_mutator *m;
    if (wn_heap_new(NULL, &heap) || wn_attach(heap, &m)) return fprintf(stderr, "%s\n", wn_error_message()), 1;
    {
        wn_root(m, link *, first, wn_new(m, &link_type));
        for (int i = 0; i < 1000; i++) wn_move(m, first, next, wn_new(m, &link_type));
        if (!first || !first->next) return 1;
    }
    if (wn_detach(m) || wn_heap_free(heap)) return fprintf(stderr, "%s\n", wn_error_message()), 1;
    return puts(wn_version()) < 0;
}
