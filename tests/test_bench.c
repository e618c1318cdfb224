/*
 * test_bench.c - `winnow bench`: what it prints can be read by a machine, checksums agree between collectors, and what
 * is misused is answered by a message that says what to do, and the right exit status.
 *
 * The path of the command is the first argument, that of its man page the second. Which collectors there are the test
 * asks of the library.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include <run.h>

static const char *command;
static char page[1 << 16]; /* the man page */

typedef struct outcome {
    int status;
    char *text;
} outcome;

/* Runs `winnow bench ARGUMENTS`; both streams together unless the arguments redirect one. */
static outcome bench_(const char *arguments, bool with_errors) {
    char line[1024];
    snprintf(line, sizeof line, "'%s' bench %s %s", command, arguments, with_errors ? "2>&1" : "2>/dev/null");
    FILE *p = popen(line, "r");
    assert_non_null(p);
    size_t n = 0, room = 1 << 20;
    outcome o = {.text = malloc(room)};
    assert_non_null(o.text);
    for (size_t got; n < room - 1 && (got = fread(o.text + n, 1, room - 1 - n, p)) > 0;) n += got;
    o.text[n] = 0;
    int status = pclose(p);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return o;
}

static void expect(const char *arguments, int status, const char *part) {
    outcome o = bench_(arguments, true);
    if (o.status != status || !strstr(o.text, part))
        fail_msg("winnow bench %s: status %d, expected %d; no \"%s\" in:\n%s", arguments, o.status, status, part,
                 o.text);
    free(o.text);
}

static void check_quantiles(const json_t *line, const char *key) {
    static const char *const parts[] = {"count", "p50", "p99", "p999", "max", "total"};
    const json_t *h = json_object_get(line, key);
    assert_true(json_is_object(h));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!json_is_number(json_object_get(h, parts[i]))) fail_msg("%s has no %s", key, parts[i]);
    double p50 = json_number_value(json_object_get(h, "p50")), p999 = json_number_value(json_object_get(h, "p999")),
           max = json_number_value(json_object_get(h, "max"));
    assert_true(p50 <= p999 && p999 <= max);
}

/* What --raw adds is the distribution whose quantiles the line has: whoever merges those of several runs relies on it.
 */
static void check_raw(const json_t *line) {
    const json_t *h = json_object_get(line, "stall_histogram"), *stall = json_object_get(line, "stall_us");
    double count = json_number_value(json_object_get(stall, "count")),
           max = json_number_value(json_object_get(stall, "max"));
    double below = -1, seen = 0, p999 = -1;
    assert_true(json_array_size(h) > 0);
    for (size_t i = 0; i < json_array_size(h); i++) {
        double bound = json_number_value(json_array_get(json_array_get(h, i), 0));
        assert_true(bound > below);
        seen += json_number_value(json_array_get(json_array_get(h, i), 1));
        if (p999 < 0 && seen >= .999 * count) p999 = bound < max ? bound : max;
        below = bound;
    }
    assert_true(seen == count && below >= max);
    double told = json_number_value(json_object_get(stall, "p999"));
    assert_true(p999 > told - .001 && p999 < told + .001);
    assert_true(json_is_array(json_object_get(line, "gaps_us")));
}

/* One line per collector, each with every key that is promised and none that the man page does not name, all with one
 * checksum. */
static void check_lines(const char *workload, const char *arguments, bool requests) {
    static const char *const numbers[] = {
        "checksum",          "wall_s",         "cpu_s",          "gc_cpu_s", "collections", "allocated_bytes",
        "allocated_objects", "live_bytes_max", "peak_rss_bytes", "mmu_1ms",  "mmu_10ms"};
    char all[256];
    snprintf(all, sizeof all, "%s %s --scale 0.002 --json - --raw", workload, arguments);
    outcome o = bench_(all, false);
    if (o.status) fail_msg("winnow bench %s: status %d", all, o.status);
    json_int_t checksum = -1;
    unsigned lines = 0, collectors = 0;
    for (int id = WN_COLLECTOR_REFCOUNT; id <= WN_COLLECTOR_CONCURRENT; id++)
        collectors += wn_collector_available((wn_collector_id)id);
    char *save = NULL;
    for (char *text = strtok_r(o.text, "\n", &save); text; text = strtok_r(NULL, "\n", &save), lines++) {
        json_error_t error;
        json_t *line = json_loads(text, 0, &error);
        if (!line) fail_msg("%s: %s in: %s", all, error.text, text);
        assert_string_equal(json_string_value(json_object_get(line, "workload")), workload);
        assert_true(json_is_string(json_object_get(line, "collector")));
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            if (!json_is_number(json_object_get(line, numbers[i]))) fail_msg("%s: no %s in: %s", all, numbers[i], text);
        check_quantiles(line, "pause_us");
        check_quantiles(line, "stall_us");
        check_raw(line);
        if (requests) check_quantiles(line, "request_us");
        if (strncmp(workload, "fork", 4) == 0)
            assert_int_equal(json_array_size(json_object_get(line, "private_dirty_bytes")), 4);
        const char *key;
        json_t *value;
        json_object_foreach(line, key, value) if (!strstr(page, key))
            fail_msg("%s: the man page says nothing of %s", all, key);
        json_int_t sum = json_integer_value(json_object_get(line, "checksum"));
        if (lines) assert_int_equal(sum, checksum);
        checksum = sum;
        json_decref(line);
    }
    assert_int_equal(lines, collectors);
    free(o.text);
}

static void every_workload_agrees(void **state) {
    (void)state;
    for (unsigned i = 0; bench_workloads[i]; i++) {
        const bench_workload *w = bench_workloads[i];
        if (w->timed && !w->requests) continue; /* control has nothing to agree on */
        check_lines(w->name, "--repetitions 1", w->requests);
        if (!w->one_thread) check_lines(w->name, "--repetitions 1 --threads 2", w->requests);
    }
    check_lines("cycles", "--repetitions 2", false);
}

/* A line tells how to make it again. */
static void what_was_set_is_said(void **state) {
    (void)state;
    setenv("WINNOW_OPTIONS", "meshing=off", 1);
    outcome o = bench_("cycles --scale 0.0001 --collector refcount --repetitions 1 --json - --option threshold0=5 "
                       "--heap-limit 256M --option threshold0=6 --option nursery=1M --param cycles=7",
                       false);
    unsetenv("WINNOW_OPTIONS");
    json_t *line = json_loads(o.text, 0, NULL), *wanted;
    wanted = json_pack("{s:s, s:s, s:s}", "threshold0", "6", "heap_limit", "256M", "nursery", "1M");
    if (!line || !json_equal(json_object_get(line, "options"), wanted)) fail_msg("other options: %s", o.text);
    assert_string_equal(json_string_value(json_object_get(line, "environment")), "meshing=off");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(line, "parameters"), "cycles")), 7);
    json_decref(line);
    json_decref(wanted);
    free(o.text);
}

static void misuse_is_explained(void **state) {
    (void)state;
    expect("nosuch", 2, "no workload 'nosuch'");
    expect("cycles --collector marksweep", 2, "refcount, incremental and concurrent");
    expect("cycles --collector ''", 2, "--collector needs a name");
    expect("cycles --repetitions 0", 2, "whole number from 1");
    expect("cycles --repetitions 2.5", 2, "whole number from 1");
    expect("cycles --scale -1", 2, "above 0");
    expect("cycles --seconds nan", 2, "above 0");
    expect("cycles --threads 100000", 2, "whole number from 1 to 256");
    expect("collect --threads 2", 2, "one thread");
    expect("cycles --heap-limit potato", 2, "heap_limit: 'potato'");
    expect("cycles --option nursery", 2, "NAME=VALUE");
    expect("cycles --option nosuch=1", 2, "no option 'nosuch'");
    expect("cycles --param nosuch=1", 2, "no chosen workload has such a parameter");
    expect("cycles --param cycles=-5", 2, "whole number from");
    expect("cycles --json /nonexistent/file", 2, "name a file that can be written");
    expect("cycles --nosuch", 2, "winnow bench: unrecognized option");
    expect("cycles --nosuch", 2, "--help");
    expect("cycles --param cycles=99999999999999", 2, "whole number from 1 to 1099511627776");
    expect("cycles --option collector=refcount", 2, "--collector LIST");
    expect("cycles --file orders.json", 2, "no chosen workload reads documents");
    expect("-h", 0, "--collector LIST");
    expect("--in-process", 2, "one run");
    expect("cycles --raw", 2, "--json");
    expect("--help", 0, "--collector LIST");
    expect("--list", 0, "binarytrees");
}

/* The length in characters of the longest line that a command prints. */
static unsigned longest_line(const char *arguments) {
    char line[1024];
    snprintf(line, sizeof line, "'%s' %s", command, arguments);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    unsigned length = 0, longest = 0;
    for (int c; (c = getc(p)) != EOF;) {
        length = c == '\n' ? 0 : length + ((c & 0xC0) != 0x80);
        if (length > longest) longest = length;
    }
    assert_int_equal(pclose(p), 0);
    assert_true(longest > 0);
    return longest;
}

static void tables_fit_a_terminal(void **state) {
    (void)state;
    assert_in_range(longest_line("options"), 1, 100);
    assert_in_range(longest_line("--help"), 1, 120);
    assert_in_range(longest_line("bench --help"), 1, 120);
    assert_in_range(longest_line("bench --list"), 1, 120);
    assert_in_range(longest_line("tour --help"), 1, 120);
    assert_in_range(longest_line("bench cycles store fork --scale 0.002 --repetitions 2 --quiet"), 1, 120);
}

static void wrong_input_is_explained(void **state) {
    (void)state;
    char path[] = "/tmp/winnow-bench-XXXXXX", arguments[256];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char bad[] = "{\"rows\": [\n  {\"name\": \"a\"},\n  {\"name\" \"b\"}\n]}\n";
    assert_int_equal(write(fd, bad, sizeof bad - 1), sizeof bad - 1);
    snprintf(arguments, sizeof arguments, "store --scale 0.001 --repetitions 1 --file %s", path);
    char where[64];
    snprintf(where, sizeof where, "%s:3:", path);
    expect(arguments, 1, where);
    expect(arguments, 1, "not valid JSON");
    expect(arguments, 1, "correct the file");
    assert_int_equal(ftruncate(fd, 0), 0);
    expect(arguments, 1, "not valid JSON");
    assert_int_equal(pwrite(fd, "[1, 2]", 6, 0), 6);
    expect(arguments, 1, "holds no document");
    close(fd);
    unlink(path);
    expect(arguments, 1, "cannot be read");
    expect("store --scale 0.001 --repetitions 1 --file /tmp", 1, "cannot be read");
    expect("lru --repetitions 1 --scale 0.1 --heap-limit 1M", 1, "--heap-limit");
}

/* The curve of utilisation, on stalls that can be reckoned by hand. */
static void utilisation(void **state) {
    (void)state;
    bench_gaps *g = calloc(1, sizeof *g);
    assert_non_null(g);
    g->run_ns = 100000000;
    assert_true(bench_mmu(g, 1000000) == 1);
    g->gap[g->n++] = (bench_gap){.end = 5000000, .length = 400000};   /* 4.6 - 5.0 ms */
    g->gap[g->n++] = (bench_gap){.end = 5500000, .length = 200000};   /* 5.3 - 5.5 ms */
    g->gap[g->n++] = (bench_gap){.end = 50000000, .length = 2000000}; /* 48 - 50 ms */
    assert_float_equal(bench_mmu(g, 1000000), 0, 1e-9);
    assert_float_equal(bench_mmu(g, 10000000), 0.8, 1e-9);
    g->n = 2;
    assert_float_equal(bench_mmu(g, 1000000), 0.4, 1e-9); /* 4.6 .. 5.5 lies in one millisecond: 0.6 stalled */
    assert_float_equal(bench_mmu(g, 500000), 0.2, 1e-9);  /* 4.5 .. 5.0 */
    assert_float_equal(bench_mmu(g, 10000000), 0.94, 1e-9);
    free(g);
}

/* However many stalls there are, the log keeps the longest. */
static void log_keeps_the_longest(void **state) {
    (void)state;
    bench_clock *c = calloc(1, sizeof *c);
    assert_non_null(c);
    bench_clock_start(c);
    for (uint64_t i = 0; i < 3 * BENCH_GAPS; i++)
        bench_clock_long_gap(c, c->start + i * 1000000, i % 1000 == 0 ? 900000 : BENCH_FIRST_THRESHOLD_NS + i % 7);
    unsigned longest = 0;
    for (unsigned i = 0; i < c->gaps.n; i++) longest += c->gaps.gap[i].length == 900000;
    assert_int_equal(longest, (3 * BENCH_GAPS + 999) / 1000);
    free(c);
}

/* Whoever kills the command has killed the run, too: it holds the pipe open no longer. */
static void a_run_ends_with_its_parent(void **state) {
    (void)state;
    int fd[2];
    char nothing;
    assert_int_equal(pipe(fd), 0);
    pid_t bench = fork();
    if (bench == 0) {
        setpgid(0, 0);
        dup2(fd[1], STDOUT_FILENO);
        close(fd[0]);
        close(fd[1]);
        execl(command, command, "bench", "biglive", "--collector", "incremental", "--param", "nodes=1000", "--param",
              "allocations=100000000000", "--quiet", NULL);
        _exit(127);
    }
    close(fd[1]);
    usleep(500000);
    assert_int_equal(kill(bench, SIGKILL), 0);
    assert_int_equal(waitpid(bench, NULL, 0), bench);
    struct pollfd p = {.fd = fd[0], .events = POLLIN};
    int ready = poll(&p, 1, 20000);
    kill(-bench, SIGKILL); /* or it stays for ever */
    assert_int_equal(ready, 1);
    assert_int_equal(read(fd[0], &nothing, 1), 0);
    close(fd[0]);
}

int main(int argc, char **argv) {
    FILE *f = argc == 3 ? fopen(argv[2], "r") : NULL;
    if (!f) {
        fprintf(stderr, "usage: test_bench PATH-OF-WINNOW PATH-OF-ITS-MAN-PAGE\n");
        return 2;
    }
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    command = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utilisation),
        cmocka_unit_test(log_keeps_the_longest),
        cmocka_unit_test(misuse_is_explained),
        cmocka_unit_test(wrong_input_is_explained),
        cmocka_unit_test(a_run_ends_with_its_parent),
        cmocka_unit_test(tables_fit_a_terminal),
        cmocka_unit_test(what_was_set_is_said),
        cmocka_unit_test(every_workload_agrees),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
