/* cmd_status.c - `fedlora-worker status`: what the daemon last wrote, and whether it runs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/commands.h"
#include "worker/daemon.h"
#include "worker/history.h"

#define STATUS_BYTES_MAX (1u << 20)

static bool daemon_runs(const char *site)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    int fd;
    if (fl_path_join(path, site, "lock", &error) != FL_OK || !fl_path_exists(path))
        return false;
    enum fl_status status = fl_fs_lock(path, &fd, &error);
    if (status == FL_OK)
        close(fd);
    return status == FL_EBUSY;
}

static enum fl_status load(const char *site, json_t **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, site, "status.json", error);
    if (status == FL_OK)
        status = fl_json_load(path, STATUS_BYTES_MAX, out, error);
    if (status == FL_ENOTFOUND) {
        *out = json_object();
        status = *out ? FL_OK : fl_fail_memory(error);
    }
    if (status == FL_OK && !json_is_object(*out))
        status = fl_fail(error, FL_EFORMAT, "%s is damaged", path);
    return status;
}

static const char *text_of(const json_t *root, const char *key, const char *fallback)
{
    const char *text = json_string_value(json_object_get(root, key));
    return text ? text : fallback;
}

static long long number_of(const json_t *root, const char *key)
{
    return (long long)json_integer_value(json_object_get(root, key));
}

static void print_lists(const json_t *root)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "refusals"), i, entry)
    {
        printf("refused     job %lld: %s\n", number_of(entry, "job"), text_of(entry, "reason", ""));
    }
    json_array_foreach(json_object_get(root, "sent"), i, entry)
    {
        char when[FL_TIME_TEXT_BYTES];
        fl_time_text(number_of(entry, "at_ms"), when);
        printf("sent        job %lld round %lld attempt %lld: %lld bytes, sha256 %s, %s\n",
               number_of(entry, "job"), number_of(entry, "round"), number_of(entry, "attempt"),
               number_of(entry, "bytes"), text_of(entry, "sha256", ""), when);
    }
}

/* After the last round the sites evaluate what it made, as if one more had begun. */
static void print_job(const json_t *root)
{
    long long round = number_of(root, "round"), rounds = number_of(root, "rounds");
    bool after = rounds > 0 && round > rounds;
    printf("job         %lld (%s), round %lld of %lld%s, %s\n", number_of(root, "job"),
           text_of(root, "job_name", ""), after ? rounds : round, rounds,
           after ? " and the last evaluation" : "", text_of(root, "stage", "idle"));
}

static void print_adapter(const json_t *root)
{
    const char *path = text_of(root, "adapter", NULL);
    if (path)
        printf("adapter     %s (version %lld of job %lld)\n", path,
               number_of(root, "adapter_version"), number_of(root, "adapter_job"));
    else
        printf("adapter     none yet\n");
}

static void print_text(const json_t *root, bool running)
{
    printf("daemon      %s\n", running ? "running" : "not running");
    printf("name        %s\n", text_of(root, "name", "-"));
    printf("coordinator %s (%s)\n", text_of(root, "coordinator", "-"),
           running ? text_of(root, "state", "offline") : "offline");
    if (number_of(root, "job") > 0)
        print_job(root);
    if (json_object_get(root, "eval_loss") && json_is_number(json_object_get(root, "eval_loss")))
        printf("held-out    loss %.4f at this site\n",
               json_number_value(json_object_get(root, "eval_loss")));
    print_adapter(root);
    print_lists(root);
    size_t i;
    json_t *warning;
    json_array_foreach(json_object_get(root, "warnings"), i, warning)
    {
        printf("warning     %s\n", json_string_value(warning));
    }
    printf("trust       %s\n", text_of(root, "secure_aggregation_root", "-"));
}

/* The audit log is ahead of status.json, and stays when that is lost. */
static void refresh_history(const char *site, json_t *root)
{
    struct fl_history history;
    struct fl_error ignored;
    if (fl_history_load(site, &history, &ignored) == FL_OK &&
        (history.sent_count > 0 || history.adapter[0]))
        fl_history_put(&history, root);
}

/* Why every job will be refused: "warnings" is not there where nothing is to be said. */
static void put_warnings(const struct fl_siteconf *conf, json_t *root)
{
    const char *lacks[] = {fl_siteconf_lacks_models(conf), fl_siteconf_lacks_data(conf)};
    json_t *list = json_array();
    for (size_t i = 0; list && i < sizeof(lacks) / sizeof(lacks[0]); i++) {
        if (lacks[i])
            (void)!json_array_append_new(list, json_string(lacks[i]));
    }
    if (json_array_size(list) > 0)
        (void)!json_object_set(root, "warnings", list);
    json_decref(list);
}

/* As of now: a list may have been taken since the daemon wrote its status, or none may run. */
static void refresh(const char *site, json_t *root)
{
    struct fl_daemon daemon;
    struct fl_error error;
    char text[FL_TRUST_TEXT_BYTES];
    if (fl_daemon_open(site, false, &daemon, &error) == FL_OK) {
        (void)fl_trust_describe(daemon.trust, text);
        (void)!json_object_set_new(root, "secure_aggregation_root", json_string(text));
        put_warnings(daemon.conf, root);
    }
    refresh_history(daemon.store.site[0] ? daemon.store.site : site, root);
    fl_daemon_close(&daemon);
}

static enum fl_status show(const char *site, bool as_json, struct fl_error *error)
{
    json_t *root = NULL;
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, site, "worker.conf", error);
    if (status == FL_OK && !fl_path_exists(path))
        status = fl_fail(error, FL_ENOTFOUND,
                         "%s is not there: run `fedlora-worker join TOKEN --dir %s` first", path,
                         site);
    if (status == FL_OK)
        status = load(site, &root, error);
    if (status != FL_OK)
        goto out;
    bool running = daemon_runs(site);
    if (json_object_set_new(root, "running", json_boolean(running)) != 0 ||
        (!running && json_object_set_new(root, "state", json_string("offline")) != 0)) {
        status = fl_fail_memory(error);
        goto out;
    }
    refresh(site, root);
    if (as_json)
        status = fl_json_print(root);
    else
        print_text(root, running);
out:
    json_decref(root);
    return status;
}

int fl_cmd_status(int argc, char **argv)
{
    const char *site = NULL;
    bool as_json = false;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "SITE",
         .kind = FL_OPTION_STRING,
         .target = &site,
         .required = true,
         .doc = "the site's directory"},
        {.name = "--json",
         .kind = FL_OPTION_FLAG,
         .target = &as_json,
         .doc = "print one JSON object"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker status",
        .summary =
            "Connection, job and round, refusals with their reasons, what left the site, and\n"
            "where the newest global adapter is: of earlier runs too, whether or not the daemon "
            "runs.",
        .example = "fedlora-worker status --dir /var/lib/fedlora/site --json",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0])};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return show(site, as_json, &error) == FL_OK ? 0 : fl_cli_fail(usage.program, &error);
}
