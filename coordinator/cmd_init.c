/* cmd_init.c - fedlora-coordinator init */
#include <stdio.h>

#include "base/log.h"
#include "coordinator/commands.h"
#include "coordinator/desk.h"

int fl_cmd_init(int argc, char **argv)
{
    const char *directory = NULL, *listen = NULL, *public_address = NULL;
    int code;
    struct fl_error error;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory, made if absent"},
        {.name = "--listen",
         .value = "tcp://HOST:PORT",
         .kind = FL_OPTION_STRING,
         .target = &listen,
         .doc = "where sessions are taken (default tcp://127.0.0.1:7470); enrolment listens on the "
                "next port"},
        {.name = "--public",
         .value = "tcp://HOST:PORT",
         .kind = FL_OPTION_STRING,
         .target = &public_address,
         .doc = "what sites dial, where it differs from --listen"},
    };
    const struct fl_usage usage = {.program = FL_PROGRAM " init",
                                   .summary = "Make keys, database and a commented "
                                              "coordinator.conf.",
                                   .example = FL_PROGRAM " init --dir coordinator",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    if (fl_desk_create(directory, listen, public_address, &error) != FL_OK)
        return fl_cli_fail(FL_PROGRAM, &error);
    (void)fprintf(stderr, "made %s; next: " FL_PROGRAM " serve --dir %s\n", directory, directory);
    return 0;
}
