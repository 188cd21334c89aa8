/*
 * commands.h - the subcommands of fedlora-worker. Each lives in cmd_<name>.c, takes argv with its
 * own name first and returns the exit code of the command-line contract (base/cli.h).
 * Threads: main thread.
 */
#ifndef FL_WORKER_COMMANDS_H
#define FL_WORKER_COMMANDS_H

int fl_cmd_eval(int argc, char **argv);
int fl_cmd_export(int argc, char **argv);
int fl_cmd_fetch(int argc, char **argv);
int fl_cmd_generate(int argc, char **argv);
int fl_cmd_inspect(int argc, char **argv);
int fl_cmd_logits(int argc, char **argv);
int fl_cmd_merge(int argc, char **argv);
int fl_cmd_tokenize(int argc, char **argv);
int fl_cmd_train(int argc, char **argv);

int fl_cmd_audit(int argc, char **argv);
int fl_cmd_check(int argc, char **argv);
int fl_cmd_join(int argc, char **argv);
int fl_cmd_keys(int argc, char **argv);
int fl_cmd_roster(int argc, char **argv);
int fl_cmd_run(int argc, char **argv);
int fl_cmd_status(int argc, char **argv);

#endif
