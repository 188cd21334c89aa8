/*
 * cli.h - the command line: a table of subcommands a program, a table of options a subcommand.
 * From the same tables come parser, --help and (by tests) the man page.
 *
 * Rules: data on stdout, words on stderr; exit codes of fl_exit_code(); `--name value` and
 * `--name=value`; "-" and "--" as usual; an unknown option is FL_EUSAGE and names the nearest one.
 * Threads: main thread only.
 */
#ifndef FL_BASE_CLI_H
#define FL_BASE_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum fl_option_kind {
    FL_OPTION_FLAG,     /* bool *: set to true */
    FL_OPTION_ONOFF,    /* bool *: "on" or "off" */
    FL_OPTION_STRING,   /* const char **: borrowed from argv */
    FL_OPTION_U64,      /* uint64_t * within [low, high] */
    FL_OPTION_DOUBLE,   /* double * within [low, high] */
    FL_OPTION_DURATION, /* int64_t * milliseconds within [low, high] */
    FL_OPTION_CHOICE,   /* const char **: one of choices, "a|b|c" */
    FL_OPTION_LIST      /* struct fl_option_list *: may be given several times */
};

#define FL_OPTION_LIST_MAX 16

/* Every value of an option that may be given several times, borrowed from argv. */
struct fl_option_list {
    const char *items[FL_OPTION_LIST_MAX];
    size_t count;
};

struct fl_option {
    const char *name;  /* "--seq-len" */
    const char *value; /* what --help shows for the value, "T"; NULL for a flag */
    enum fl_option_kind kind;
    void *target;     /* holds the default before parsing */
    double low, high; /* for numbers; both 0: no bound but the type's */
    const char *choices;
    bool required;
    bool *given; /* may be NULL: set to true when the option was present */
    const char *doc;
};

struct fl_positional {
    const char *name; /* "NAME" */
    const char **target;
    bool optional; /* only the last ones may be */
    const char *doc;
};

struct fl_command {
    const char *name;    /* "train" */
    const char *summary; /* one line for the list of commands */
    /* argv[0] is the command's name. Returns the exit code. */
    int (*run)(int argc, char **argv);
};

struct fl_usage {
    const char *program; /* "fedlora-worker train" */
    const char *summary; /* one or more lines */
    const char *example; /* a full command line, may be NULL */
    const struct fl_option *options;
    size_t option_count;
    const struct fl_positional *positionals;
    size_t positional_count;
};

/*
 * Parse argv[1..]. FL_OK: all targets are set. FL_ESTOPPED: --help was given and printed (exit 0).
 * FL_EUSAGE: *error says what is wrong.
 */
FL_CHECKED enum fl_status fl_cli_parse(const struct fl_usage *usage, int argc, char **argv,
                                       struct fl_error *error);
/*
 * The same for a command's run(): prints the error and the hint to stderr. Returns true when the
 * command shall go on, else *exit_code is what it returns.
 */
bool fl_cli_begin(const struct fl_usage *usage, int argc, char **argv, int *exit_code);
/* Print "program: text" on stderr for a failed command and return fl_exit_code(error->status). */
int fl_cli_fail(const char *program, const struct fl_error *error);

/* main(): finds the command in the table, handles --help, --version; returns the exit code. */
int fl_cli_main(const char *program, const char *summary, const struct fl_command *commands,
                size_t count, int argc, char **argv);

/*
 * The entry of names that word may have been meant for, to suggest it; NULL: none. Dashes in front
 * aside, it is a name that begins with word (two letters or more), else one at a
 * Damerau-Levenshtein distance of at most a third of the longer of the two (one edit for the
 * shortest); the nearest of these, and of equals the first.
 */
const char *fl_nearest(const char *word, const char *const *names, size_t count);

/* true when stderr is a terminal and NO_COLOR is unset (colour, redrawn progress lines). */
bool fl_cli_is_terminal(void);

#endif
