/* cmd_invite.c - fedlora-coordinator invite */
#include <stdio.h>

#include "coordinator/commands.h"

int fl_cmd_invite(int argc, char **argv)
{
    const char *directory = NULL, *name = NULL;
    int64_t ttl_ms = 86400000;
    bool json = false;
    int code;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory"},
        {.name = "--ttl",
         .value = "TIME",
         .kind = FL_OPTION_DURATION,
         .target = &ttl_ms,
         .low = 1,
         .high = 31536000000.0,
         .doc = "how long it is good for"},
        {.name = "--json", .kind = FL_OPTION_FLAG, .target = &json, .doc = "print JSON"},
    };
    const struct fl_positional positionals[] = {
        {.name = "NAME", .target = &name, .doc = "the site's name"}};
    const struct fl_usage usage = {.program = FL_PROGRAM " invite",
                                   .summary = "Print a join token, good for one site, once.",
                                   .example = FL_PROGRAM " invite --dir coordinator clinic",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0],
                                   .positionals = positionals,
                                   .positional_count = 1};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer = fl_ask(directory,
                            json_pack("{s:s, s:s, s:I}", "command", "invite", "name", name,
                                      "ttl_ms", (json_int_t)ttl_ms),
                            &code);
    if (!answer)
        return code;
    if (json) {
        json_t *line = json_pack("{s:s, s:s}", "name", name, "token",
                                 fl_member_text(answer, "token"));
        code = line && fl_json_print(line) == FL_OK ? 0 : 1;
        json_decref(line);
    } else
        (void)printf("%s\n", fl_member_text(answer, "token"));
    json_decref(answer);
    return code;
}
