/*
 * commands.h - the subcommands of `winnow`, one source file each; main.c dispatches to them by name.
 *
 * Each gets the arguments from its own name on (argv[0] is "winnow bench", "winnow tour", ..., with which getopt_long
 * begins its messages), parses them with getopt_long, and returns the process's exit status: 0, EXIT_FAILURE when what
 * it did failed, or WINNOW_EXIT_USAGE after a message on stderr that says what to type instead.
 */
#ifndef WINNOW_TOOLS_COMMANDS_H
#define WINNOW_TOOLS_COMMANDS_H

enum { WINNOW_EXIT_USAGE = 2 };

int winnow_bench_main(int argc, char **argv);
int winnow_tour_main(int argc, char **argv);

#endif
