/* cli_internal.h - shared by the files of cli; nobody else includes it. */
#ifndef FL_BASE_CLI_INTERNAL_H
#define FL_BASE_CLI_INTERNAL_H

#include <stdio.h>

#include "base/cli.h"

/* low = high = 0 stands for "no bound but the type's". */
bool fl_cli_is_bounded(const struct fl_option *option);
/* A number (milliseconds for a duration) as the option takes it. */
void fl_cli_number_text(const struct fl_option *option, double value, char out[40]);

void fl_cli_print_help(const struct fl_usage *usage);
/* "fedlora-worker 0.1.0" for the program "fedlora-worker train" */
void fl_cli_print_version(const char *program);
void fl_cli_print_commands(const char *program, const char *summary,
                           const struct fl_command *commands, size_t count, FILE *out);

#endif
