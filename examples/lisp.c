/*
 * lisp.c - a tiny Lisp, to show how a runtime with a value stack of its own uses Winnow.
 *
 * The interpreter keeps every value that it works with on vm.stack and declares no local at all: a root scanner shows
 * the whole stack to the collector, which updates the entries when it moves objects. Two rules make that work:
 *
 *   - an entry of the stack owns its reference: what is put there is a new reference, what leaves is released;
 *   - a C variable never holds an object across a safepoint (making an object, releasing one): values are named by
 *     their place on the stack instead.
 *
 * Recursive functions refer to the environment that refers to them, so this runtime makes cycles by nature.
 */
#include <stdlib.h>
#include <string.h>
#include <winnow.h>

/* ---- values: NULL is the empty list, and false ------------------------------------------------------------------- */

typedef struct cons {
    wn_object head;
    wn_object *car, *cdr;
} cons;
typedef struct number {
    wn_object head;
    long n;
} number;
typedef struct symbol {
    wn_object head;
    size_t length;
    char name[];
} symbol;
typedef struct closure {
    wn_object head;
    wn_object *parameters, *body, *env;
} closure;
typedef struct builtin {
    wn_object head;
    long operation;
} builtin;

static const wn_type cons_type = WN_TYPE(cons, WN_REFS(cons, car, cdr));
static const wn_type number_type = WN_TYPE(number);
static const wn_type symbol_type = WN_TYPE(symbol, WN_DATA(symbol, length, name));
static const wn_type closure_type = WN_TYPE(closure, WN_REFS(closure, parameters, body, env));
static const wn_type builtin_type = WN_TYPE(builtin);

static wn_object *car(const wn_object *o) { return o && o->type == &cons_type ? ((const cons *)o)->car : NULL; }
static wn_object *cdr(const wn_object *o) { return o && o->type == &cons_type ? ((const cons *)o)->cdr : NULL; }

/* ---- the machine ------------------------------------------------------------------------------------------------- */

enum { STACK = 100000, GLOBALS = 0, SYMBOLS = 1 }; /* the first two entries are the machine's own */

static struct vm {
    wn_heap *heap;
    wn_mutator *m;
    wn_object *stack[STACK];
    size_t top;
} vm;

/* What the collector calls to learn the references on the stack. */
static void scan_stack(wn_tracer *tracer, void *data) {
    (void)data;
    for (size_t i = 0; i < vm.top; i++)
        if (vm.stack[i]) wn_visit(tracer, &vm.stack[i]);
}

static void fail(const char *message) {
    fprintf(stderr, "lisp: %s\n", message);
    exit(EXIT_FAILURE);
}

/* Takes over a new reference. */
static void push(void *new_reference) {
    if (vm.top == STACK) fail("the stack is full: recursion too deep");
    vm.stack[vm.top++] = new_reference;
}
static void push_copy(wn_object *o) { push(wn_keep(vm.m, o)); }

static void drop_to(size_t top) {
    while (vm.top > top) {
        wn_object *o = vm.stack[--vm.top]; /* off the stack first: releasing it is a safepoint */
        wn_release(vm.m, o);
    }
}
/* The top value takes the place of everything from `place` on. */
static void slide(size_t place) {
    wn_object *o = vm.stack[place];
    vm.stack[place] = vm.stack[vm.top - 1];
    vm.stack[vm.top - 1] = o;
    drop_to(place + 1);
}
static void replace(size_t place, wn_object *borrowed) {
    push_copy(borrowed);
    wn_object *o = vm.stack[place];
    vm.stack[place] = vm.stack[--vm.top];
    wn_release(vm.m, o);
}

static void *make(const wn_type *type) {
    void *o = wn_new(vm.m, type);
    if (!o) fail(wn_error_message());
    return o;
}
/* The two values on top become a pair of them. */
static void pair(void) {
    cons *c = make(&cons_type);
    vm.top -= 2; /* their references move from the stack into the pair */
    wn_move(vm.m, c, car, vm.stack[vm.top]);
    wn_move(vm.m, c, cdr, vm.stack[vm.top + 1]);
    push(c);
}
static void push_number(long n) {
    number *o = make(&number_type);
    o->n = n;
    push(o);
}
static void push_symbol(const char *name, size_t length) {
    for (wn_object *l = vm.stack[SYMBOLS]; l; l = cdr(l)) {
        const symbol *s = (const symbol *)car(l);
        if (s->length == length && memcmp(s->name, name, length) == 0) {
            push_copy(car(l));
            return;
        }
    }
    symbol *s = wn_new_array(vm.m, &symbol_type, length);
    if (!s) fail(wn_error_message());
    memcpy(s->name, name, length);
    push(s);
    push_copy((wn_object *)s);
    push_copy(vm.stack[SYMBOLS]);
    pair();
    replace(SYMBOLS, vm.stack[vm.top - 1]);
    drop_to(vm.top - 1);
}
static bool is_symbol(const wn_object *o, const char *name) {
    return o && o->type == &symbol_type && ((const symbol *)o)->length == strlen(name) &&
           memcmp(((const symbol *)o)->name, name, strlen(name)) == 0;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const char *skip(const char *p) { return p + strspn(p, " \t\n"); }

/* Reads one expression onto the stack. */
static const char *read_expression(const char *p) {
    p = skip(p);
    if (*p == '(') {
        size_t base = vm.top;
        for (p = skip(p + 1); *p != ')'; p = skip(p)) {
            if (!*p) fail("a ) is missing");
            p = read_expression(p);
        }
        push(NULL);
        while (vm.top - base > 1) pair();
        return p + 1;
    }
    char *end;
    long n = strtol(p, &end, 10);
    if (end != p) {
        push_number(n);
        return end;
    }
    size_t length = strcspn(p, " \t\n()");
    push_symbol(p, length);
    return p + length;
}

/* ---- evaluating -------------------------------------------------------------------------------------------------- */

static long number_at(size_t place) {
    wn_object *o = place < vm.top ? vm.stack[place] : NULL;
    if (!o || o->type != &number_type) fail("a number was expected");
    return ((number *)o)->n;
}

enum { ADD, SUBTRACT, LESS, EQUAL, CONS, CAR, CDR };
static const char *const builtins[] = {"+", "-", "<", "=", "cons", "car", "cdr"};

/* Applies a built-in function to the values from `arguments` on, and pushes the result. */
static void apply_builtin(long operation, size_t arguments) {
    wn_object **argument = &vm.stack[arguments];
    switch (operation) {
    case ADD: push_number(number_at(arguments) + number_at(arguments + 1)); break;
    case SUBTRACT: push_number(number_at(arguments) - number_at(arguments + 1)); break;
    case LESS:
    case EQUAL: {
        long a = number_at(arguments), b = number_at(arguments + 1);
        if (operation == LESS ? a < b : a == b)
            push_number(1);
        else
            push(NULL);
        break;
    }
    case CONS:
        push_copy(argument[0]);
        push_copy(argument[1]);
        pair();
        break;
    case CAR: push_copy(car(argument[0])); break;
    default: push_copy(cdr(argument[0])); break;
    }
}

/* Pushes the environment in which a closure's body runs: its parameters bound to the values from `arguments` on. */
static void bind(size_t function, size_t arguments) {
    push_copy(((closure *)vm.stack[function])->env);
    push_copy(((closure *)vm.stack[function])->parameters);
    for (size_t left = vm.top - 1; vm.stack[left]; arguments++) {
        if (arguments >= left - 1) fail("too few arguments");
        push_copy(car(vm.stack[left]));
        push_copy(vm.stack[arguments]);
        pair();
        push_copy(vm.stack[left - 1]);
        pair();
        replace(left - 1, vm.stack[vm.top - 1]);
        drop_to(left + 1);
        replace(left, cdr(vm.stack[left]));
    }
    drop_to(vm.top - 1);
}

/* Takes the pair of a name and a value from the top of the stack into the globals. */
static void define_global(void) {
    push_copy(cdr(vm.stack[GLOBALS]));
    pair();
    vm.top--; /* its reference moves from the stack into the cell */
    wn_move(vm.m, (cons *)vm.stack[GLOBALS], cdr, vm.stack[vm.top]);
}

static wn_object *look_up(const wn_object *env, const wn_object *name) {
    for (; env; env = cdr(env))
        if (car(car(env)) == name) return car(env);
    fail("an unknown name is used");
    return NULL;
}

/* Replaces the expression on top of the stack by its value; `env` is the place of the environment. */
static void eval(size_t env) {
    size_t place = vm.top - 1;
    for (;;) {
        wn_object *x = vm.stack[place];
        if (x && x->type == &symbol_type) {
            replace(place, cdr(look_up(vm.stack[env], x)));
            return;
        }
        if (!x || x->type != &cons_type) return;
        if (is_symbol(car(x), "quote")) {
            replace(place, car(cdr(x)));
            return;
        }
        if (is_symbol(car(x), "if")) {
            push_copy(car(cdr(x)));
            eval(env);
            bool yes = vm.stack[vm.top - 1] != NULL;
            drop_to(place + 1);
            wn_object *branches = cdr(cdr(vm.stack[place])); /* read again: eval was full of safepoints */
            replace(place, car(yes ? branches : cdr(branches)));
            continue;
        }
        if (is_symbol(car(x), "lambda")) {
            closure *c = make(&closure_type);
            x = vm.stack[place]; /* making it may have moved the expression */
            wn_set(vm.m, c, parameters, car(cdr(x)));
            wn_set(vm.m, c, body, car(cdr(cdr(x))));
            wn_set(vm.m, c, env, vm.stack[env]);
            push(c);
            slide(place);
            return;
        }
        if (is_symbol(car(x), "define")) {
            push_copy(car(cdr(x)));
            push_copy(car(cdr(cdr(x))));
            eval(env);
            pair();
            define_global();
            replace(place, NULL);
            return;
        }
        break;
    }
    /* A call: the function and its arguments are evaluated onto the stack. */
    push_copy(vm.stack[place]);
    size_t rest = vm.top - 1, function = vm.top, arguments = vm.top + 1;
    while (vm.stack[rest]) {
        push_copy(car(vm.stack[rest]));
        eval(env);
        replace(rest, cdr(vm.stack[rest]));
    }
    wn_object *f = vm.stack[function];
    if (f && f->type == &builtin_type) {
        apply_builtin(((builtin *)f)->operation, arguments);
    } else if (f && f->type == &closure_type) {
        bind(function, arguments);
        push_copy(((closure *)vm.stack[function])->body);
        eval(vm.top - 2);
    } else {
        fail("something that is no function is called");
    }
    slide(place);
}

static long run(const char *program) {
    size_t base = vm.top;
    while (*(program = skip(program))) {
        drop_to(base);
        program = read_expression(program);
        push_copy(vm.stack[GLOBALS]); /* the outermost environment */
        wn_object *expression = vm.stack[base];
        vm.stack[base] = vm.stack[base + 1];
        vm.stack[base + 1] = expression;
        eval(base);
        slide(base);
    }
    long result = vm.top > base && vm.stack[base] ? number_at(base) : 0;
    drop_to(base);
    return result;
}

int main(void) {
    if (wn_heap_new(NULL, &vm.heap) || wn_attach(vm.heap, &vm.m)) fail(wn_error_message());
    if (wn_add_root_scanner(vm.heap, scan_stack, NULL)) fail(wn_error_message());
    push(make(&cons_type)); /* GLOBALS: every environment ends in this cell, behind which the globals are listed */
    push(NULL);             /* SYMBOLS */
    for (long i = 0; i <= CDR; i++) {
        push_symbol(builtins[i], strlen(builtins[i]));
        builtin *b = make(&builtin_type);
        b->operation = i;
        push(b);
        pair();
        define_global();
    }

    long fib = run("(define fib (lambda (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2))))))"
                   "(fib 18)");
    long sum = run("(define range (lambda (n) (if (= n 0) (quote ()) (cons n (range (- n 1))))))"
                   "(define map (lambda (f l) (if l (cons (f (car l)) (map f (cdr l))) (quote ()))))"
                   "(define sum (lambda (l) (if l (+ (car l) (sum (cdr l))) 0)))"
                   "(define adder (lambda (k) (lambda (x) (+ x k))))"
                   "(sum (map (adder 1000) (range 200)))");
    drop_to(0);
    wn_collect_result garbage;
    wn_collect(vm.m, 2, &garbage); /* functions and the environment they are defined in refer to each other */
    printf("fib(18) = %ld, sum = %ld; then %zu objects were garbage; collector %s\n", fib, sum, garbage.collected,
           wn_collector_name(wn_heap_collector(vm.heap)));

    wn_remove_root_scanner(vm.heap, scan_stack, NULL);
    if (wn_detach(vm.m) || wn_heap_free(vm.heap)) fail(wn_error_message());
    return fib == 2584 && sum == 220100 ? EXIT_SUCCESS : EXIT_FAILURE;
}
