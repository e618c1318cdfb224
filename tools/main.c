/*
 * main.c - the `winnow` command: finds the subcommand that was named and hands the arguments on.
 *
 * What concerns the command as a whole (--help, --version, the table of options) is here; everything else is in the
 * subcommand's own file.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <winnow.h>

#include "commands.h"

static int options_main(int argc, char **argv) {
    if (argc > 1) {
        bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
        if (!help) fprintf(stderr, "winnow options: it takes no '%s'\n", argv[1]);
        fprintf(help ? stdout : stderr,
                "Usage: winnow options\n"
                "Writes the table of heap options: name, default, meaning and what is allowed.\n"
                "Set them with --option NAME=VALUE, or WINNOW_OPTIONS=\"NAME=VALUE,...\".\n");
        return help ? EXIT_SUCCESS : WINNOW_EXIT_USAGE;
    }
    wn_options_print(stdout);
    return EXIT_SUCCESS;
}

static const struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"bench", "run workloads on the collectors and measure them", winnow_bench_main},
    {"tour", "show how the collectors work, live, claim by claim", winnow_tour_main},
    {"options", "list the options of a heap", options_main},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static const struct command *find(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

/* argv[0] is the subcommand's name. */
static int run_command(const struct command *command, int argc, char **argv) {
    static char name[32];
    snprintf(name, sizeof name, "winnow %s", command->name);
    argv[0] = name;
    return command->run(argc, argv);
}

static void usage(FILE *out) {
    fprintf(out, "Usage: winnow COMMAND [OPTION...]\n"
                 "       winnow --help | --version\n\n"
                 "Winnow is an embeddable garbage collector with three collectors behind one API; this command runs,\n"
                 "measures and shows them.\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++) fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fprintf(out,
            "\n`winnow COMMAND --help` tells about one of them.\n\n"
            "Environment:\n"
            "  WINNOW_COLLECTOR  the collector where none is named: refcount, incremental or concurrent (bench: all)\n"
            "  WINNOW_OPTIONS    heap options, NAME=VALUE separated by commas (see `winnow options`)\n"
            "  WINNOW_TRACE=gc   one line per collection on stderr\n");
}

static void version(void) {
    printf("winnow %s\ncollectors:", wn_version());
    for (int id = WN_COLLECTOR_REFCOUNT; id <= WN_COLLECTOR_CONCURRENT; id++)
        if (wn_collector_available((wn_collector_id)id)) printf(" %s", wn_collector_name((wn_collector_id)id));
    printf("\n");
}

/* Of a name that is almost right nothing else would tell. */
static void warn_of_unknown_variables(void) {
    static const char *const known[] = {"WINNOW_COLLECTOR=", "WINNOW_OPTIONS=", "WINNOW_TRACE=", "WINNOW_PYTHON"};
    for (char **e = environ; *e; e++) {
        bool is_known = strncmp(*e, "WINNOW_", 7) != 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            is_known |= strncmp(*e, known[i], strlen(known[i])) == 0;
        if (!is_known)
            fprintf(
                stderr,
                "winnow: nothing reads the environment variable %.*s; there are WINNOW_COLLECTOR, WINNOW_OPTIONS and "
                "WINNOW_TRACE\n",
                (int)strcspn(*e, "="), *e);
    }
}

static int run(int argc, char **argv) {
    if (argc < 2) {
        usage(stderr);
        return WINNOW_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0 || strcmp(name, "version") == 0) {
        version();
        return EXIT_SUCCESS;
    }
    bool help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (help && argc == 2) {
        usage(stdout);
        return EXIT_SUCCESS;
    }
    if (help) { /* `winnow help tour` is `winnow tour --help` */
        const struct command *command = find(argv[2]);
        char *arguments[] = {argv[2], (char *)"--help", NULL};
        if (command) return run_command(command, 2, arguments);
        name = argv[2];
    }
    const struct command *command = find(name);
    warn_of_unknown_variables();
    if (command) return run_command(command, argc - 1, argv + 1);
    fprintf(stderr, "winnow: there is no command '%s'; `winnow --help` lists what there is\n", name);
    return WINNOW_EXIT_USAGE;
}

/* What was not written must not look like success. */
int main(int argc, char **argv) {
    int status = run(argc, argv);
    if (!(fflush(stdout) | ferror(stdout))) return status;
    fputs("winnow: standard output could not be written\n", stderr);
    return status ? status : EXIT_FAILURE;
}
