/*
 * options.c - the one table of options: names, units, ranges, defaults and what they mean; everything that reads,
 * checks or prints an option goes through it.
 */
#include "mutator/heap.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum kind { COLLECTOR, SIZE, TIME, COUNT, COUNT_OR_ALL, COUNT_OR_NEVER, FACTOR, SWITCH } kind;

typedef struct option {
    const char *name;
    kind kind;
    size_t at;
    double low, high; /* what a number may be; bytes, nanoseconds, counts, factors */
    const char *usual, *meaning;
} option;

#define AT(field) offsetof(wn_options, field)
static const option options[] = {
    {"collector", COLLECTOR, AT(collector), 0, 0, "refcount",
     "which collector manages the heap; also WINNOW_COLLECTOR"},
    {"heap_limit", SIZE, AT(heap_limit), 1 << 20, 1e15, "the container's",
     "bytes the heap may hold, side tables included"},
    {"single_thread", SWITCH, AT(single_thread), 0, 1, "off", "refcount: refuse a second thread, counts stay plain"},
    {"threshold0", COUNT_OR_NEVER, AT(threshold[0]), 1, 1e9, "700",
     "refcount: net new tracked objects before a young collection"},
    {"threshold1", COUNT_OR_NEVER, AT(threshold[1]), 1, 1e9, "10", "refcount: young collections before a middle one"},
    {"threshold2", COUNT_OR_NEVER, AT(threshold[2]), 1, 1e9, "10", "refcount: middle collections before a full one"},
    {"reclaim_slice", COUNT_OR_ALL, AT(reclaim_slice), 16, 1e9, "2000",
     "refcount: objects of a cascade reclaimed per safepoint, or all"},
    {"nursery", SIZE, AT(nursery), 64 << 10, WN_CHUNK_SIZE - WN_CHUNK_HEADER, "from the cache",
     "incremental: bytes of the nursery"},
    {"major_factor", FACTOR, AT(major_factor), 1.05, 100, "1.82", "incremental: heap growth that starts a major"},
    {"growth", FACTOR, AT(growth), 1.05, 100, "1.4", "incremental: most growth of the threshold between majors"},
    {"min_heap", SIZE, AT(min_heap), 64 << 10, 1e15, "8 nurseries", "incremental: no major below"},
    {"max_heap", SIZE, AT(max_heap), 1 << 20, 1e15, "none", "as heap_limit, by PyPy's name; the smaller counts"},
    {"max_delta", SIZE, AT(max_delta), 64 << 10, 1e15, "RAM / 8", "incremental: most bytes of growth before a major"},
    {"step_bytes", SIZE, AT(step_bytes), 4 << 10, 1e12, "12 nurseries",
     "incremental: marked at least per nursery allocated"},
    {"pause_budget", TIME, AT(pause_budget_ns), 1e4, 1e10, "none", "incremental: steps and minors stay below (99.9 %)"},
    {"pin_limit", COUNT, AT(pin_limit), 1, 1e7, "1000", "incremental: objects pinned in the nursery at most"},
    {"pretenure", COUNT_OR_NEVER, AT(pretenure), 1, 100, "85; stress: never",
     "incremental: percent of a size outliving the nursery for it to be born old"},
    {"heap_growth", COUNT_OR_NEVER, AT(heap_growth), 5, 10000, "100",
     "concurrent: percent of growth between cycles, as GOGC"},
    {"workers", COUNT, AT(workers), 1, WN_MOST_WORKERS, "by cpu_share", "concurrent: marking threads"},
    {"cpu_share", COUNT, AT(cpu_share), 1, 100, "25", "concurrent: percent of the processors for collection"},
    {"finalizer_thread", SWITCH, AT(finalizer_thread), 0, 1, "off", "concurrent: finalizers on a thread of their own"},
    {"conservative_stacks", SWITCH, AT(conservative_stacks), 0, 1, "off",
     "incremental, concurrent: scan C stacks for roots"},
    {"large_pages", SWITCH, AT(large_pages), 0, 1, "off",
     "pages of 2 MiB: faster in a large heap, longer stalls as it grows"},
    {"meshing", SWITCH, AT(meshing), 0, 1, "on", "lay sparse blocks together on the same memory: wn_trim, concurrent"},
    {"stress", COUNT, AT(stress), 0, 1e9, "0", "collect at every Nth allocation"},
    {"check", SWITCH, AT(check), 0, 1, WINNOW_CHECK ? "on" : "off", "check the client's rules"},
    {"verify", SWITCH, AT(verify), 0, 1, "off", "verify the heap before and after every collection"},
    {"trace", SWITCH, AT(trace), 0, 1, "off", "a line per collection on stderr; also WINNOW_TRACE=gc"},
    {"save_all", SWITCH, AT(save_all), 0, 1, "off", "refcount: keep cyclic garbage on the garbage list"},
};
enum { OPTION_COUNT = sizeof options / sizeof options[0] };

wn_options wn_options_default(void) {
    wn_options o = {.struct_size = sizeof(wn_options),
                    .threshold = {700, 10, 10},
                    .reclaim_slice = 2000,
                    .major_factor = 1.82,
                    .growth = 1.4,
                    .pin_limit = 1000,
                    .pretenure = 85,
                    .heap_growth = 100,
                    .cpu_share = 25,
                    .meshing = true};
#if WINNOW_CHECK
    o.check = true;
#endif
    return o;
}

/* Bytes of the field that holds an option. */
static size_t width_of(const option *o) {
    switch (o->kind) {
    case SWITCH: return sizeof(bool);
    case SIZE:
    case TIME:
    case FACTOR: return 8;
    default: return o->at == AT(pin_limit) ? sizeof(size_t) : sizeof(unsigned);
    }
}

static const option *find(const char *name) {
    for (unsigned i = 0; i < OPTION_COUNT; i++)
        if (strcmp(options[i].name, name) == 0) return &options[i];
    return NULL;
}

/* A number with an optional unit out of `units`, pairs of a suffix and its factor. */
typedef struct unit {
    const char *suffix;
    double factor;
} unit;
static const unit sizes[] = {{"", 1},
                             {"B", 1},
                             {"K", 1024},
                             {"M", 1048576.0},
                             {"G", 1073741824.0},
                             {"T", 1099511627776.0},
                             {"KiB", 1024},
                             {"MiB", 1048576.0},
                             {"GiB", 1073741824.0},
                             {"KB", 1024},
                             {"MB", 1048576.0},
                             {"GB", 1073741824.0},
                             {NULL, 0}};
static const unit times[] = {{"", 1}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
static const unit plain[] = {{"", 1}, {NULL, 0}};

/* The digits at *text, behind which it moves, appended to a number; returns how many. */
static int read_digits(const char **text, double *number) {
    int n = 0;
    for (; **text >= '0' && **text <= '9'; ++*text, n++) *number = *number * 10 + (**text - '0');
    return n;
}

/* Not strtod, which takes a comma for the point where the program's locale has one. */
static bool parse_number(const char *text, const unit *units, double *value) {
    const char *end = text;
    double v = 0, tenths = 1;
    int whole = read_digits(&end, &v), behind = 0;
    if (*end == '.') {
        end++;
        behind = read_digits(&end, &v);
    }
    if (whole + behind == 0 || whole + behind > 18) return false;
    while (behind--) tenths *= 10;
    v /= tenths;
    for (; units->suffix; units++)
        if (strcasecmp(end, units->suffix) == 0) {
            *value = v * units->factor;
            return true;
        }
    return false;
}

static bool parse_switch(const char *text, bool *value) {
    static const char *const on[] = {"on", "1", "yes", "true"}, *const off[] = {"off", "0", "no", "false"};
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(text, on[i]) == 0) return *value = true, true;
        if (strcasecmp(text, off[i]) == 0) return *value = false, true;
    }
    return false;
}

/* A bound of a size, never more than it is: in the largest unit that divides it, or of which it has a hundred. */
static void show_size(char text[32], double bytes) {
    static const char units[] = "TGMK";
    double unit = 1099511627776.0;
    int i = 0;
    while (units[i] && bytes < 100 * unit && bytes / unit != (double)(uint64_t)(bytes / unit)) unit /= 1024, i++;
    snprintf(text, 32, "%llu%.1s", (unsigned long long)(bytes / unit), units + i);
}

static const char *allowed(const option *o) {
    static _Thread_local char text[160];
    char low[32], high[32];
    switch (o->kind) {
    case COLLECTOR: return "refcount, incremental or concurrent";
    case SWITCH: return "on or off";
    case SIZE:
        show_size(low, o->low), show_size(high, o->high);
        snprintf(text, sizeof text, "a size from %s to %s", low, high);
        break;
    case TIME: snprintf(text, sizeof text, "a time from %.0fus to %.0fs", o->low / 1e3, o->high / 1e9); break;
    case FACTOR: snprintf(text, sizeof text, "a factor from %g to %g", o->low, o->high); break;
    default:
        snprintf(text, sizeof text, "a whole number from %.0f to %.0f%s", o->low, o->high,
                 o->kind == COUNT_OR_ALL     ? ", or all"
                 : o->kind == COUNT_OR_NEVER ? ", or never"
                                             : "");
    }
    return text;
}

static wn_status bad_value(const option *o, const char *value) {
    const char *as = o->kind == SIZE ? ", as 65536, 64K, 4M, 2G" : o->kind == TIME ? ", as 500us, 2ms, 1s" : "";
    return wn_fail(WN_ERR_ARGUMENT, "option %s: '%s' is not %s%s", o->name, value, allowed(o), as);
}

static bool in_range(const option *o, double v) { return v >= o->low && v <= o->high; }

static wn_status unknown_option(const char *name) {
    char names[400];
    size_t n = 0;
    for (unsigned i = 0; i < OPTION_COUNT; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", options[i].name);
    return wn_fail(WN_ERR_ARGUMENT, "there is no option '%s'; there are %s", name, names);
}

const char *wn_collector_name(wn_collector_id id) {
    switch (id) {
    case WN_COLLECTOR_AUTO: return "auto";
    case WN_COLLECTOR_REFCOUNT: return "refcount";
    case WN_COLLECTOR_INCREMENTAL: return "incremental";
    case WN_COLLECTOR_CONCURRENT: return "concurrent";
    }
    return "unknown";
}

static bool parse_collector(const char *text, wn_collector_id *collector) {
    for (int id = WN_COLLECTOR_REFCOUNT; id <= WN_COLLECTOR_CONCURRENT; id++)
        if (strcmp(text, wn_collector_name((wn_collector_id)id)) == 0) return *collector = (wn_collector_id)id, true;
    return false;
}

/* A number in the option's units and range. */
static bool parse_in_range(const option *o, const char *text, const unit *units, double *value) {
    return parse_number(text, units, value) && in_range(o, *value);
}

/* Reads a value into the field of an option; false when it is not allowed. */
static bool read_value(const option *o, const char *text, void *at) {
    double v = 0;
    switch (o->kind) {
    case COLLECTOR: return parse_collector(text, at);
    case SWITCH: return parse_switch(text, at);
    case SIZE:
        if (!parse_in_range(o, text, sizes, &v)) return false;
        *(size_t *)at = (size_t)v;
        return true;
    case TIME:
        if (!parse_in_range(o, text, times, &v)) return false;
        *(uint64_t *)at = (uint64_t)v;
        return true;
    case FACTOR:
        if (!parse_in_range(o, text, plain, &v)) return false;
        *(double *)at = v;
        return true;
    case COUNT_OR_ALL:
    case COUNT_OR_NEVER:
        if (strcasecmp(text, o->kind == COUNT_OR_ALL ? "all" : "never") == 0) return *(unsigned *)at = WN_NEVER, true;
        /* fall through */
    case COUNT:
        if (!parse_in_range(o, text, plain, &v) || v != (double)(uint64_t)v) return false;
        if (o->at == AT(pin_limit))
            *(size_t *)at = (size_t)v;
        else
            *(unsigned *)at = (unsigned)v;
        return true;
    }
    return false;
}

wn_status wn_options_set(wn_options *opts, const char *name, const char *value) {
    if (!opts || !name || !value)
        return wn_fail(WN_ERR_ARGUMENT,
                       "wn_options_set: the %s is NULL: pass the address of a wn_options, and the option's "
                       "name and value as text",
                       !opts   ? "structure"
                       : !name ? "name"
                               : "value");
    const option *o = find(name);
    if (!o) return unknown_option(name);
    return read_value(o, value, (char *)opts + o->at) ? WN_OK : bad_value(o, value);
}

void wn_options_print(FILE *out) {
    fprintf(out, "%-19s %-17s %s\n    %s\n\n", "option", "default", "allowed", "meaning");
    for (unsigned i = 0; i < OPTION_COUNT; i++)
        fprintf(out, "%-19s %-17s %s\n    %s\n", options[i].name, options[i].usual, allowed(&options[i]),
                options[i].meaning);
    fprintf(out, "\nSizes: bytes, or with K, M, G, T (times 1024). Times: ns, or with us, ms, s.\n");
}

/* The number an option holds, for the check of a struct that was filled by hand. 0 where 0 means the default. */
static double number_of(const wn_options *opts, const option *o) {
    const void *at = (const char *)opts + o->at;
    switch (o->kind) {
    case SIZE: return (double)*(const size_t *)at;
    case TIME: return (double)*(const uint64_t *)at;
    case FACTOR: return *(const double *)at;
    case COUNT: return o->at == AT(pin_limit) ? (double)*(const size_t *)at : *(const unsigned *)at;
    case COUNT_OR_ALL:
    case COUNT_OR_NEVER: return *(const unsigned *)at == WN_NEVER ? 0 : *(const unsigned *)at;
    default: return 0;
    }
}

/* Checks a whole struct and fills what was left at 0. */
static wn_status check(wn_options *opts) {
    wn_options usual = wn_options_default();
    if ((unsigned)opts->collector > WN_COLLECTOR_CONCURRENT)
        return wn_fail(WN_ERR_ARGUMENT, "option collector: %d is no collector; use WN_COLLECTOR_...",
                       (int)opts->collector);
    for (unsigned i = 0; i < OPTION_COUNT; i++) {
        const option *o = &options[i];
        double v = number_of(opts, o);
        if (o->kind == FACTOR && !(v >= 0 && v < 1e9)) v = -1; /* NaN */
        if (v != 0 && !in_range(o, v))
            return wn_fail(WN_ERR_ARGUMENT, "option %s: %g is not %s", o->name, v, allowed(o));
        if (v != 0 || o->kind == SWITCH || o->kind == COLLECTOR || o->kind == SIZE || o->kind == TIME) continue;
        if (memcmp((char *)opts + o->at, "\0\0\0\0\0\0\0\0", width_of(o)) == 0)
            memcpy((char *)opts + o->at, (char *)&usual + o->at, width_of(o));
    }
    return WN_OK;
}

/* The last error again, with the variable it came from. */
static wn_status from_environment(wn_status s, const char *variable) {
    return wn_fail(s, "environment variable %s: %s", variable, wn_error_message());
}

/* Applies "name=value,name=value" of an environment variable. */
static wn_status apply_list(wn_options *opts, const char *list) {
    char text[1024];
    if (strlen(list) >= sizeof text) return wn_fail(WN_ERR_ARGUMENT, "WINNOW_OPTIONS is longer than 1023 characters");
    strcpy(text, list);
    const wn_options given = *opts, usual = wn_options_default();
    char *rest = NULL;
    for (char *item = strtok_r(text, ", ", &rest); item; item = strtok_r(NULL, ", ", &rest)) {
        char *eq = strchr(item, '=');
        if (!eq)
            return wn_fail(WN_ERR_ARGUMENT, "WINNOW_OPTIONS: '%s' is not of the form name=value, as check=on", item);
        *eq = 0;
        /* An option that the program itself set stays as it set it. Of one that is here twice the latter counts. */
        const option *o = find(item);
        wn_options probe = usual;
        wn_status s = wn_options_set(&probe, item, eq + 1);
        if (s) return from_environment(s, "WINNOW_OPTIONS");
        if (memcmp((char *)&given + o->at, (char *)&usual + o->at, width_of(o)) == 0)
            memcpy((char *)opts + o->at, (char *)&probe + o->at, width_of(o));
    }
    return WN_OK;
}

/* An option the program set itself wins over the environment. */
wn_status wn_options_resolve(const wn_options *given, wn_options *out) {
    if (given && given->struct_size != sizeof *given) /* before more of it is read than there is */
        return wn_fail(WN_ERR_ARGUMENT,
                       "the options were not made by wn_options_default(), or by that of another version of "
                       "the library (%zu bytes instead of %zu)",
                       given->struct_size, sizeof *given);
    *out = given ? *given : wn_options_default();
    const char *env = getenv("WINNOW_OPTIONS");
    wn_status s;
    if (env && *env && (s = apply_list(out, env))) return s;
    env = getenv("WINNOW_COLLECTOR");
    if (out->collector == WN_COLLECTOR_AUTO && env && *env && (s = wn_options_set(out, "collector", env)))
        return from_environment(s, "WINNOW_COLLECTOR");
    env = getenv("WINNOW_TRACE");
    if (env && *env && strcmp(env, "gc") != 0)
        return wn_fail(WN_ERR_ARGUMENT, "environment variable WINNOW_TRACE: '%s' is not known; the one value is gc",
                       env);
    if (env && *env) out->trace = true;
    if ((s = check(out))) return s;
    bool tried = out->collector != WN_COLLECTOR_AUTO && given && given->collector == WN_COLLECTOR_AUTO;
    if (out->collector == WN_COLLECTOR_AUTO) out->collector = WN_COLLECTOR_REFCOUNT;
    /* Ignored as the options of other collectors are where the environment has chosen: a program that owns its
     * references runs all the same. */
    if (given && given->conservative_stacks && out->collector == WN_COLLECTOR_REFCOUNT && !tried)
        return wn_fail(WN_ERR_UNSUPPORTED,
                       "conservative_stacks: refcount frees an object with its last counted reference, whatever the C "
                       "stack holds: choose the collector incremental or concurrent, or hold locals by wn_root and "
                       "wn_hold and leave the option off");
    /* What is born old survives without a barrier: stress would hide the stores that have skipped theirs. */
    if (out->stress && out->pretenure == wn_options_default().pretenure) out->pretenure = WN_NEVER;
    if (out->max_heap && (!out->heap_limit || out->max_heap < out->heap_limit)) out->heap_limit = out->max_heap;
    if (!out->heap_limit) out->heap_limit = wn_os_memory_limit();
    return WN_OK;
}
