/*
 * cmd_roster.h - shared by the files of `fedlora-worker roster`; nobody else includes it.
 * Threads: main thread.
 */
#ifndef FL_WORKER_CMD_ROSTER_H
#define FL_WORKER_CMD_ROSTER_H

#include <stdbool.h>

#include "crypto/authority.h"

#define FL_ROSTER_PROGRAM "fedlora-worker roster"

/* What a list is, on stdout: a line for people, or one JSON object. */
FL_CHECKED enum fl_status fl_roster_print(const struct fl_member_list *list, bool json,
                                          struct fl_error *error);

/* The commands at a site (cmd_roster_site.c). Each returns its exit code. */
int fl_roster_run_accept(int argc, char **argv);
int fl_roster_run_pin(int argc, char **argv);
int fl_roster_run_unpin(int argc, char **argv);

#endif
