/* stack.c - the borders of segments. */
#include "stack.h"

#include <stdlib.h>
#include <string.h>

bool wn_inc_stack_grow(stack *s) {
    stack_segment *fresh = s->spare;
    s->spare = NULL;
    if (!fresh && !(fresh = malloc(sizeof *fresh))) return false;
    fresh->below = s->top;
    fresh->n = 0;
    s->top = fresh;
    return true;
}

void wn_inc_stack_shrink(stack *s) {
    stack_segment *empty = s->top;
    s->top = empty->below;
    free(s->spare);
    s->spare = empty;
}

void wn_inc_stack_free(stack *s) {
    for (stack_segment *below; s->top; s->top = below) {
        below = s->top->below;
        free(s->top);
    }
    free(s->spare);
    memset(s, 0, sizeof *s);
}

void **wn_inc_stack_older(stack_at *at) {
    while (at->segment && !at->i) {
        at->segment = at->segment->below;
        at->i = at->segment ? at->segment->n : 0;
    }
    return at->segment ? &at->segment->at[--at->i] : NULL;
}

void wn_inc_stack_drop_segment(stack_segment *segment) { free(segment); }
