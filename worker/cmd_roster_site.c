/*
 * cmd_roster_site.c - `fedlora-worker roster accept | pin | unpin`: what a site knows of its
 * partners by another way than the coordinator (trust.h). All of it holds at once, beside a running
 * daemon too.
 */
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/cmd_roster.h"
#include "worker/siteconf.h"
#include "worker/trust_store.h"

#define OPTIONS .options = options, .option_count = sizeof(options) / sizeof(options[0])

static const char *directory;
static bool as_json;
static const struct fl_option options[] = {
    {.name = "--dir",
     .value = "SITE",
     .kind = FL_OPTION_STRING,
     .target = &directory,
     .required = true,
     .doc = "the site's directory"},
    {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print one JSON object"},
};

static int finish(const char *program, enum fl_status status, const struct fl_error *error)
{
    return status == FL_OK ? 0 : fl_cli_fail(program, error);
}

/* ---- accept ---- */

static enum fl_status read_text(const char *from, struct fl_buf *text, const char **what,
                                struct fl_error *error)
{
    const bool is_stdin = strcmp(from, "-") == 0;
    *what = is_stdin ? "standard input" : from;
    enum fl_status status = is_stdin ? fl_fs_read_stdin(FL_MEMBERS_TEXT_MAX, text, error)
                                     : fl_fs_read(from, FL_MEMBERS_TEXT_MAX, text, error);
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_EFORMAT, "%s: too long for a list of members", *what);
    return status;
}

static enum fl_status accept_list(const char *from, struct fl_error *error)
{
    const char *what;
    struct fl_buf text;
    struct fl_siteconf *conf = NULL;
    struct fl_member_list list = {0};
    fl_buf_init(&text, FL_MEMBERS_TEXT_MAX);
    enum fl_status status = fl_siteconf_load(directory, &conf, error);
    if (status == FL_OK && !conf->authority_text[0])
        status = fl_fail(error, FL_EFORMAT,
                         "%s/worker.conf: [policy] authority = fla1:... is missing; have the key "
                         "from the authority itself",
                         directory);
    if (status == FL_OK)
        status = read_text(from, &text, &what, error);
    if (status == FL_OK)
        status = fl_trust_store_accept(directory, conf->authority, &text, what, &list, error);
    if (status == FL_OK)
        status = fl_roster_print(&list, as_json, error);
    fl_member_list_free(&list);
    fl_siteconf_free(&conf);
    fl_buf_free(&text);
    return status;
}

int fl_roster_run_accept(int argc, char **argv)
{
    const char *from = NULL;
    const struct fl_positional positionals[] = {
        {.name = "FILE", .target = &from, .doc = "a signed list; - reads standard input"}};
    const struct fl_usage usage = {
        .program = FL_ROSTER_PROGRAM " accept",
        .summary =
            "At a site: take the authority's newest list, which members of cohorts are held\n"
            "against. Exit 3: not a list, or worker.conf pins no authority; 4: another\n"
            "authority, a signature that does not fit, or older than a list taken before.",
        .example = FL_ROSTER_PROGRAM " accept roster.txt --dir SITE",
        OPTIONS,
        .positionals = positionals,
        .positional_count = 1};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return finish(usage.program, accept_list(from, &error), &error);
}

/* ---- pin and unpin ---- */

/* Nothing is made for a mistyped path. */
static enum fl_status check_site(struct fl_error *error)
{
    return fl_path_is_directory(directory)
               ? FL_OK
               : fl_fail(error, FL_ENOTFOUND,
                         "%s is no directory: run `fedlora-worker join TOKEN --dir %s` first",
                         directory, directory);
}

static enum fl_status say_json(json_t *line, struct fl_error *error)
{
    const enum fl_status status = line ? fl_json_print(line) : FL_ENOMEM;
    json_decref(line);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "writing the answer failed");
}

static enum fl_status pin(const char *name, const char *text, struct fl_error *error)
{
    uint32_t count = 0;
    struct fl_identity identity;
    enum fl_status status = check_site(error);
    if (status == FL_OK)
        status = fl_identity_parse(text, &identity, error);
    if (status == FL_OK)
        status = fl_trust_store_pin(directory, name, &identity, &count, error);
    if (status == FL_OK && as_json)
        return say_json(json_pack("{s:s, s:s, s:I}", "name", name, "state", "pinned", "pins",
                                  (json_int_t)count),
                        error);
    if (status == FL_OK)
        (void)fprintf(stderr, "%s is pinned, %u in all\n", name, count);
    return status;
}

int fl_roster_run_pin(int argc, char **argv)
{
    const char *name = NULL, *identity = NULL;
    const struct fl_positional positionals[] = {
        {.name = "NAME", .target = &name, .doc = "the partner's name at the coordinator"},
        {.name = "IDENTITY",
         .target = &identity,
         .doc = "its public identity, fl1:..., as its own `fedlora-worker keys` prints it"}};
    const struct fl_usage usage = {
        .program = FL_ROSTER_PROGRAM " pin",
        .summary = "At a site: pin a partner's identity, had from the partner itself. A cohort in\n"
                   "which the name has another key is refused; with [policy] roster = pinned only\n"
                   "pinned partners count. Exit 4: the name is pinned with another identity.",
        .example = FL_ROSTER_PROGRAM " pin clinic fl1:... --dir SITE",
        OPTIONS,
        .positionals = positionals,
        .positional_count = 2};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return finish(usage.program, pin(name, identity, &error), &error);
}

static enum fl_status unpin(const char *name, struct fl_error *error)
{
    enum fl_status status = check_site(error);
    if (status == FL_OK)
        status = fl_trust_store_unpin(directory, name, error);
    if (status == FL_OK && as_json)
        return say_json(json_pack("{s:s, s:s}", "name", name, "state", "forgotten"), error);
    if (status == FL_OK)
        (void)fprintf(stderr, "%s is forgotten\n", name);
    return status;
}

int fl_roster_run_unpin(int argc, char **argv)
{
    const char *name = NULL;
    const struct fl_positional positionals[] = {
        {.name = "NAME", .target = &name, .doc = "the partner's name at the coordinator"}};
    const struct fl_usage usage = {
        .program = FL_ROSTER_PROGRAM " unpin",
        .summary =
            "At a site: forget a partner's identity, its pin and what was remembered when it\n"
            "was first met, so that it may come with new keys. Exit 1: neither is there.",
        .example = FL_ROSTER_PROGRAM " unpin clinic --dir SITE",
        OPTIONS,
        .positionals = positionals,
        .positional_count = 1};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return finish(usage.program, unpin(name, &error), &error);
}
