/*
 * stack.h - a stack of words in segments: never copied to grow, so that a push is never a pause.
 *
 * `n` counts all words; a failed push (malloc has nothing) loses the word and says so.
 */
#ifndef WN_INCREMENTAL_STACK_H
#define WN_INCREMENTAL_STACK_H

#include "platform/platform.h"

enum { STACK_SEGMENT = 1022 };

typedef struct stack_segment {
    struct stack_segment *below;
    size_t n; /* words in it */
    void *at[STACK_SEGMENT];
} stack_segment;

typedef struct stack {
    stack_segment *top;
    stack_segment *spare; /* one empty, so that a stack that swings at a border stays cheap */
    size_t n;
} stack;

bool wn_inc_stack_grow(stack *s);
void wn_inc_stack_shrink(stack *s);
void wn_inc_stack_free(stack *s);
/* Frees a segment that was taken out of its chain. */
void wn_inc_stack_drop_segment(stack_segment *segment);

static WN_ALWAYS_INLINE bool stack_push(stack *s, void *word) {
    stack_segment *top = s->top;
    if (__builtin_expect(!top || top->n == STACK_SEGMENT, 0)) {
        if (!wn_inc_stack_grow(s)) return false;
        top = s->top;
    }
    top->at[top->n++] = word;
    s->n++;
    return true;
}

/* The top word; the stack must not be empty. */
static WN_ALWAYS_INLINE void *stack_pop(stack *s) {
    stack_segment *top = s->top;
    void *word = top->at[--top->n];
    s->n--;
    if (__builtin_expect(!top->n, 0)) wn_inc_stack_shrink(s);
    return word;
}

/* A place in a stack, for walks from the newest word to the oldest that strike words out. What is pushed meanwhile is
 * not visited; nothing may be popped. */
typedef struct stack_at {
    stack_segment *segment;
    size_t i; /* words of the segment not yet visited */
} stack_at;

static inline stack_at stack_newest(const stack *s) { return (stack_at){s->top, s->top ? s->top->n : 0}; }
/* The address of the next word; NULL at the end. */
void **wn_inc_stack_older(stack_at *at);

#endif
