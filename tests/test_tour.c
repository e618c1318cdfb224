/*
 * test_tour.c - the command `winnow` and its tour from outside: statuses, messages, JSON, the picture. That the tour's
 * claims hold is what the tests tour.* run it for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

static const char *command;
static char output[1 << 18];

/* Runs `winnow ARGUMENTS`; returns its exit status. */
static int run_as_is(const char *arguments) {
    char line[1024];
    snprintf(line, sizeof line, "%s %s", command, arguments);
    FILE *pipe = popen(line, "r");
    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = 0;
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* The same with its stderr in the output too. */
static int run(const char *arguments) {
    char with_errors[900];
    snprintf(with_errors, sizeof with_errors, "%s 2>&1", arguments);
    return run_as_is(with_errors);
}

static void says(const char *what) {
    if (!strstr(output, what)) fail_msg("the output does not say \"%s\":\n%s", what, output);
}

static void test_help_and_version(void **state) {
    (void)state;
    assert_int_equal(run("--help"), 0);
    says("bench");
    says("tour");
    says("options");
    assert_int_equal(run("--version"), 0);
    says("winnow 0.");
    says("refcount");
    assert_int_equal(run("help tour"), 0);
    says("--svg");
    assert_int_equal(run("tour --help"), 0);
    says("--collector");
    assert_int_equal(run("bench --help"), 0);
    assert_int_equal(run("options"), 0);
    says("heap_limit");
    assert_int_equal(run("options --help"), 0);
}

static void test_mistakes_name_the_remedy(void **state) {
    (void)state;
    assert_int_equal(run(""), 2);
    says("Usage:");
    assert_int_equal(run("tuor"), 2);
    says("there is no command 'tuor'");
    says("winnow --help");
    assert_int_equal(run("help tuor"), 2);
    setenv("WINNOW_OPTION", "check=on", 1);
    assert_int_equal(run("options"), 0);
    unsetenv("WINNOW_OPTION");
    says("nothing reads the environment variable WINNOW_OPTION;");
    assert_int_equal(run("options heap_limit"), 2);
    assert_int_equal(run("tour --colour"), 2);
    says("tour --help");
    assert_int_equal(run("tour everything"), 2);
    assert_int_equal(run("tour --collector marvellous"), 2);
    says("refcount"); /* what there is */
    assert_int_equal(run("tour --option stress"), 2);
    says("NAME=VALUE");
    assert_int_equal(run("tour --option size=1"), 2);
    assert_int_equal(run("tour --collector concurrent --option stress=5"), 1); /* to its end, on shorter lists */
    says("the claims are made for the default options");
    says("The same tour on the others");
    assert_int_equal(run("tour --option heap_limit=1"), 2);
    says("heap_limit");
}

static void test_what_is_not_written_is_no_success(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    static const char *const commands[] = {"options",
                                           "--version",
                                           "--help",
                                           "bench --list",
                                           "bench --help",
                                           "bench --scale 0.001 --repetitions 1 --quiet cycles",
                                           "bench --scale 0.001 --repetitions 1 --quiet --json - cycles"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "%s 2>&1 >/dev/full", commands[i]);
        if (run_as_is(arguments) != 1) fail_msg("winnow %s: a success", arguments);
        says("could not be written");
    }
}

static void test_options_that_change_what_holds(void **state) {
    (void)state;
    if (run("tour --collector refcount --option threshold0=100000") == 0) return;
    says("DOES NOT HOLD");
    says("default options");
}

static void test_json_lines(void **state) {
    (void)state;
    assert_int_equal(run("tour --json"), 0);
    int lines = 0;
    for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        json_error_t error;
        json_t *object = json_loads(line, 0, &error);
        if (!object) fail_msg("%s: %s", error.text, line);
        assert_true(json_is_string(json_object_get(object, "chapter")));
        assert_true(json_is_string(json_object_get(object, "claim")));
        assert_true(json_is_true(json_object_get(object, "holds")));
        assert_true(json_is_object(json_object_get(object, "measured")));
        json_decref(object);
    }
    assert_true(lines > 25);
}

static void test_the_picture(void **state) {
    (void)state;
    char directory[] = "/tmp/winnow-tour-XXXXXX", path[100], arguments[200], text[300] = "";
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/a picture.svg", directory);
    snprintf(arguments, sizeof arguments, "tour --svg '%s'", path);
    assert_int_equal(run(arguments), 0);
    FILE *picture = fopen(path, "r");
    if (!picture) {
        says("apt install graphviz");
        strcat(path, ".dot");
        picture = fopen(path, "r");
    }
    assert_non_null(picture);
    assert_true(fread(text, 1, sizeof text - 1, picture) > 0);
    assert_true(strstr(text, "svg") || strstr(text, "digraph"));
    fclose(picture);
    unlink(path);
    rmdir(directory);

    assert_int_equal(run("tour --svg /nowhere/at/all.svg"), 1);
    says("/nowhere/at/all.svg could not be written");
    assert_null(strstr(output, "DOES NOT HOLD"));
    assert_null(strchr(output, '\033')); /* no colours in a pipe */
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: test_tour COMMAND [FILTER]\n"), 2;
    command = argv[1];
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_mistakes_name_the_remedy),
        cmocka_unit_test(test_what_is_not_written_is_no_success),
        cmocka_unit_test(test_options_that_change_what_holds),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_the_picture),
    };
    return cmocka_run_group_tests_name("tour", tests, NULL, NULL);
}
