/* cmd_roster.c - fedlora-coordinator roster list | add | revoke */
#include <stdio.h>

#include "coordinator/commands.h"

static const char *directory;
static bool as_json;
static const struct fl_option options[] = {
    {.name = "--dir",
     .value = "DIR",
     .kind = FL_OPTION_STRING,
     .target = &directory,
     .required = true,
     .doc = "the coordinator's directory"},
    {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print JSON lines"},
};
#define OPTIONS .options = options, .option_count = sizeof options / sizeof options[0]

static int list(int argc, char **argv)
{
    int code;
    size_t i;
    const json_t *site;
    const struct fl_usage usage = {
        .program = FL_PROGRAM " roster list", .summary = "The enrolled sites.", OPTIONS};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer = fl_ask(directory, json_pack("{s:s}", "command", "roster.list"), &code);
    if (!answer)
        return code;
    const json_t *sites = json_object_get(answer, "sites");
    if (as_json)
        code = fl_print_lines(sites);
    else
        json_array_foreach(sites, i, site)
        {
            (void)printf("%-24s %-9s %s\n", fl_member_text(site, "name"),
                         fl_member_text(site, "state"), fl_member_text(site, "identity"));
        }
    json_decref(answer);
    return code;
}

/* For a site that has no token: its worker.conf is written by hand. Returns the exit code. */
static int tell_site(const char *name, const json_t *answer)
{
    const char *address = json_string_value(json_object_get(answer, "address"));
    const char *key = fl_member_text(answer, "key");
    if (!as_json) {
        (void)fprintf(stderr,
                      "%s is enrolled; its worker.conf needs\n[coordinator]\naddress = %s\n"
                      "key = %s\n",
                      name, address ? address : "tcp://HOST:PORT", key);
        return 0;
    }
    json_t *line = json_pack("{s:s, s:s?, s:s}", "name", name, "address", address, "key", key);
    int code = line && fl_json_print(line) == FL_OK ? 0 : 1;
    json_decref(line);
    return code;
}

/* Returns the exit code. */
static int tell_revoked(const char *name)
{
    if (!as_json) {
        (void)fprintf(stderr, "%s is shut out; roster add with its key lets it in again\n", name);
        return 0;
    }
    json_t *line = json_pack("{s:s, s:s}", "name", name, "state", "revoked");
    int code = line && fl_json_print(line) == FL_OK ? 0 : 1;
    json_decref(line);
    return code;
}

static int add(int argc, char **argv)
{
    const char *name = NULL, *key = NULL;
    int code;
    const struct fl_positional positionals[] = {
        {.name = "NAME", .target = &name, .doc = "the site's name"},
        {.name = "PUBLIC_KEY",
         .target = &key,
         .doc = "its public identity, fl1:..., as fedlora-worker keys prints it"}};
    const struct fl_usage usage = {.program = FL_PROGRAM " roster add",
                                   .summary = "Enrol a site by its public identity, or allow a "
                                              "revoked one again.",
                                   OPTIONS,
                                   .positionals = positionals,
                                   .positional_count = 2};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer =
        fl_ask(directory,
               json_pack("{s:s, s:s, s:s}", "command", "roster.add", "name", name, "identity", key),
               &code);
    if (answer)
        code = tell_site(name, answer);
    json_decref(answer);
    return code;
}

static int revoke(int argc, char **argv)
{
    const char *name = NULL;
    int code;
    const struct fl_positional positionals[] = {
        {.name = "NAME", .target = &name, .doc = "the site's name"}};
    const struct fl_usage usage = {.program = FL_PROGRAM " roster revoke",
                                   .summary = "Shut a site out at once.",
                                   OPTIONS,
                                   .positionals = positionals,
                                   .positional_count = 1};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer =
        fl_ask(directory, json_pack("{s:s, s:s}", "command", "roster.revoke", "name", name), &code);
    if (answer)
        code = tell_revoked(name);
    json_decref(answer);
    return code;
}

int fl_cmd_roster(int argc, char **argv)
{
    static const struct fl_subcommand rows[] = {
        {"list", "the enrolled sites", list},
        {"add", "NAME PUBLIC_KEY: enrol a site by hand", add},
        {"revoke", "NAME: shut a site out at once", revoke},
    };
    return fl_run_subcommand("roster", rows, sizeof rows / sizeof rows[0], argc, argv);
}
