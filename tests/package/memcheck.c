/*
 * memcheck.c - for valgrind: `memcheck good` makes no mistake, in any way in which memory is freed, moved and used
 * again; `memcheck bad` reads what was freed or has moved.
 */
#include <winnow.h>

#include <string.h>

typedef struct link {
    wn_object head;
    struct link *next, *other;
    long number;
} link;
static const wn_type link_type = WN_TYPE(link, WN_REFS(link, next, other));

typedef struct bytes {
    wn_object head;
    size_t length;
    unsigned char at[];
} bytes;
static const wn_type bytes_type = WN_TYPE(bytes, WN_DATA(bytes, length, at));

/* Rings of all lengths, held by a list that is cut now and then; what dies is all kinds of places among the living. */
static long work(wn_mutator *m) {
    long sum = 0;
    wn_root(m, link *, list, NULL);
    for (long i = 0; i < 4000; i++) {
        wn_root(m, link *, n, wn_new(m, &link_type));
        wn_root(m, bytes *, b, wn_new_array(m, &bytes_type, (size_t)(i * 7 % (i % 100 ? 300 : 20000))));
        if (!n || !b) return -1;
        for (size_t k = 0; k < b->length; k++) sum += b->at[k]; /* zero, and known to be */
        memset(b->at, (int)i, b->length);
        n->number = i;
        wn_set(m, n, next, list);
        wn_set(m, n, other, i % 3 ? list : n);
        if (i % 50 == 49)
            wn_assign(m, list, NULL);
        else
            wn_assign(m, list, n);
        if (i % 500 == 0) wn_collect(m, i % 1000 ? 0 : 2, NULL);
        for (link *l = list; l; l = l->next) sum += l->number;
    }
    return sum;
}

int main(int argc, char **argv) {
    bool bad = argc > 1 && strcmp(argv[1], "bad") == 0;
    wn_options options = wn_options_default();
    options.heap_limit = (size_t)64 << 20;
    options.conservative_stacks = !bad; /* where what looks like a pointer keeps it, it is not freed */
    wn_heap *heap;
    wn_mutator *m;
    if (wn_heap_new(&options, &heap) || wn_attach(heap, &m)) return fprintf(stderr, "%s\n", wn_error_message()), 1;
    if (bad) {
        link *n = wn_new(m, &link_type);
        if (n) wn_release(m, n);
        wn_collect(m, 2, NULL);
        if (n && n->number) puts("not zero");
    } else if (work(m) < 0) {
        return fprintf(stderr, "%s\n", wn_error_message()), 1;
    }
    return wn_detach(m) || wn_heap_free(heap);
}
