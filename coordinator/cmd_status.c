/* cmd_status.c - fedlora-coordinator status, health and audit verify */
#include <stdio.h>

#include "coordinator/commands.h"
#include "coordinator/control.h"
#include "crypto/audit_keys.h"

static void print_status(const json_t *answer)
{
    size_t i;
    const json_t *item;
    (void)printf("%s", fl_member_text(answer, "state"));
    if (json_is_integer(json_object_get(answer, "job")))
        (void)printf(": job %lld, round %lld of %lld, %s",
                     (long long)json_integer_value(json_object_get(answer, "job")),
                     (long long)json_integer_value(json_object_get(answer, "round")),
                     (long long)json_integer_value(json_object_get(answer, "rounds")),
                     fl_member_text(answer, "phase"));
    if (fl_member_text(answer, "reason")[0] != '-')
        (void)printf("; %s", fl_member_text(answer, "reason"));
    (void)printf("\n");
    json_array_foreach(json_object_get(answer, "workers"), i, item)
    {
        const json_t *seen = json_object_get(item, "last_seen_seconds");
        (void)printf("  %-24s %-9s", fl_member_text(item, "name"), fl_member_text(item, "state"));
        if (json_is_number(seen))
            (void)printf(" %.0f s ago", json_number_value(seen));
        else
            (void)printf(" never seen");
        if (json_integer_value(json_object_get(item, "failed_sums")) > 0)
            (void)printf("; in %lld failed sums",
                         (long long)json_integer_value(json_object_get(item, "failed_sums")));
        if (json_is_true(json_object_get(item, "left_out")))
            (void)printf("; left out of this round while enough others are there");
        (void)printf("\n");
    }
    json_array_foreach(json_object_get(answer, "refusals"), i, item)
    {
        (void)printf("  refused by %s: %s\n", fl_member_text(item, "worker"),
                     fl_member_text(item, "reason"));
    }
}

int fl_cmd_status(int argc, char **argv)
{
    const char *directory = NULL;
    bool as_json = false;
    int code;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory"},
        {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print JSON"},
    };
    const struct fl_usage usage = {.program = FL_PROGRAM " status",
                                   .summary = "What the coordinator is doing.",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer = fl_ask(directory, json_pack("{s:s}", "command", "status"), &code);
    if (!answer)
        return code;
    (void)json_object_del(answer, "ok");
    if (as_json)
        code = fl_json_print(answer) == FL_OK ? 0 : 1;
    else
        print_status(answer);
    json_decref(answer);
    return code;
}

int fl_cmd_health(int argc, char **argv)
{
    const char *directory = NULL;
    int code;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory"},
    };
    const struct fl_usage usage = {.program = FL_PROGRAM " health",
                                   .summary = "Exit 0 if a coordinator runs here and answers, "
                                              "else 1.",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer = fl_ask(directory, json_pack("{s:s}", "command", "health"), &code);
    if (!answer)
        return 1;
    json_decref(answer);
    (void)printf("ok\n");
    return 0;
}

static int verify(int argc, char **argv)
{
    static const struct fl_audit_place place = {FL_PROGRAM " audit verify", "DIR",
                                                "the coordinator's directory", FL_DESK_KEYS};
    return fl_audit_verify_command(&place, argc, argv);
}

int fl_cmd_audit(int argc, char **argv)
{
    static const struct fl_subcommand rows[] = {
        {"verify", "check chain and signatures of the audit log", verify}};
    return fl_run_subcommand("audit", rows, 1, argc, argv);
}
