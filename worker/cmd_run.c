/* cmd_run.c - `fedlora-worker run`: the site's daemon. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/log.h"
#include "base/process.h"
#include "net/zmq_transport.h"
#include "worker/client.h"
#include "worker/commands.h"
#include "worker/daemon.h"
#include "worker/http_site.h"

static atomic_int stop;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop, 1);
}

/* No SA_RESTART: a signal shall interrupt the wait of the loop. */
static void catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

static void say_start(const struct fl_daemon *daemon)
{
    char trust[FL_TRUST_TEXT_BYTES];
    const enum fl_trust_standing standing = fl_trust_describe(daemon->trust, trust);
    fl_log(FL_LOG_INFO, "start", "the site's daemon starts",
           FL_STR("coordinator", daemon->conf->address), FL_STR("site", daemon->store.site),
           FL_STR("version", FL_VERSION), FL_U64("models", daemon->conf->model_count));
    fl_log(standing == FL_TRUST_ROOTED ? FL_LOG_INFO : FL_LOG_WARN, "roster", trust);
    if (!daemon->conf->require_secure_aggregation)
        fl_log(FL_LOG_WARN, "no_secure_aggregation",
               "policy: require_secure_aggregation = off; in jobs without it the coordinator can "
               "read this site's own update");
}

/* Neither is an error: a site may be set up before it has them. */
static void say_what_lacks(const struct fl_daemon *daemon)
{
    char path[FL_PATH_BYTES];
    struct fl_error ignored;
    const char *models = fl_siteconf_lacks_models(daemon->conf);
    const char *data = fl_siteconf_lacks_data(daemon->conf);
    if (fl_sitestore_path(&daemon->store, "worker.conf", path, &ignored) != FL_OK)
        return;
    if (models)
        fl_log(FL_LOG_WARN, "no_models", models, FL_STR("file", path));
    if (data)
        fl_log(FL_LOG_WARN, "no_data", data, FL_STR("file", path));
}

static enum fl_status run(const char *site, struct fl_error *error)
{
    struct fl_daemon daemon;
    struct fl_trainer trainer = {0};
    struct fl_compute *compute = NULL;
    struct fl_link *link = NULL;
    struct fl_client *client = NULL;
    struct fl_http_site *http = NULL;
    char trust[FL_TRUST_TEXT_BYTES];
    enum fl_status status = fl_daemon_open(site, true, &daemon, error);
    const bool started = status == FL_OK;
    if (!started)
        goto out;
    say_start(&daemon);
    say_what_lacks(&daemon);
    if (fl_trainer_native(&trainer) != FL_OK) {
        status = fl_fail_memory(error);
        goto out;
    }
    status = fl_compute_start(daemon.conf, &daemon.store, &trainer, &compute, error);
    if (status == FL_OK)
        status = fl_daemon_link(&daemon, fl_compute_fd(compute), &link, error);
    (void)fl_trust_describe(daemon.trust, trust);
    if (status == FL_OK)
        status = fl_http_site_open(daemon.conf, &daemon.store, trust, &http, error);
    struct fl_client_config config = {.conf = daemon.conf,
                                      .store = &daemon.store,
                                      .compute = compute,
                                      .link = link,
                                      .clock = fl_clock_system(),
                                      .stop = &stop,
                                      .progress = true,
                                      .http = http};
    if (status == FL_OK)
        status = fl_client_create(&config, &client, error);
    if (status == FL_OK)
        status = fl_client_run(client, error);
out:
    fl_http_site_close(&http);
    fl_client_destroy(&client);
    if (link)
        fl_link_close(&link);
    fl_compute_stop(&compute);
    fl_trainer_destroy(&trainer);
    fl_daemon_close(&daemon);
    if (started)
        fl_log(FL_LOG_INFO, "stop", "the site's daemon has stopped");
    return status;
}

int fl_cmd_run(int argc, char **argv)
{
    const char *site = NULL;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "SITE",
         .kind = FL_OPTION_STRING,
         .target = &site,
         .required = true,
         .doc = "the site's directory, made by join"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker run",
        .summary =
            "The site's daemon: connects to the coordinator, obeys the policy of worker.conf\n"
            "first, trains when a round is offered, and keeps the global adapter under\n"
            "SITE/adapters/JOB/. SIGTERM ends it within seconds; nothing finished is lost.",
        .example = "fedlora-worker run --dir /var/lib/fedlora/site",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0])};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    catch_signals();
    fl_process_no_dumps();
    return run(site, &error) == FL_OK ? 0 : fl_cli_fail(usage.program, &error);
}
