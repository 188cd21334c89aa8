/* commands.h - the subcommands of fedlora-coordinator; each returns the exit code. */
#ifndef FL_COORDINATOR_COMMANDS_H
#define FL_COORDINATOR_COMMANDS_H

#include "base/cli.h"
#include "base/json.h"

#define FL_PROGRAM "fedlora-coordinator"

int fl_cmd_init(int argc, char **argv);
int fl_cmd_serve(int argc, char **argv);
int fl_cmd_invite(int argc, char **argv);
int fl_cmd_roster(int argc, char **argv);
int fl_cmd_job(int argc, char **argv);
int fl_cmd_adapters(int argc, char **argv);
int fl_cmd_status(int argc, char **argv);
int fl_cmd_top(int argc, char **argv);
int fl_cmd_health(int argc, char **argv);
int fl_cmd_audit(int argc, char **argv);
int fl_cmd_backup(int argc, char **argv);

/* One row of a command that has commands of its own ("roster add"). */
struct fl_subcommand {
    const char *name, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name */
};
int fl_run_subcommand(const char *command, const struct fl_subcommand *rows, size_t count, int argc,
                      char **argv);

/*
 * Make the call and give its answer; NULL: it failed, the reason is printed, *exit_code is set.
 * request is consumed.
 */
json_t *fl_ask(const char *directory, json_t *request, int *exit_code);
/* "-" for null and absent members; borrowed. */
const char *fl_member_text(const json_t *object, const char *key);
/* Print each element as a line of JSON. Returns the exit code. */
int fl_print_lines(const json_t *list);

#endif
