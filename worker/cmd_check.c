/*
 * cmd_check.c - `fedlora-worker check`: a dry run that sends nothing of the site's: configuration,
 * keys, connection, model hash, data, memory, measured speed and policy, one line each.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cli.h"
#include "base/clock.h"
#include "base/json.h"
#include "format/modelref.h"
#include "job/offer.h"
#include "net/zmq_transport.h"
#include "worker/commands.h"
#include "worker/daemon.h"
#include "worker/policy.h"
#include "worker/trainer.h"

#define CONNECT_MS 10000

struct check {
    struct fl_daemon daemon;
    json_t *list;
    bool as_json;
    unsigned failed;
};

static void report(struct check *self, const char *name, bool ok, const char *text)
{
    self->failed += !ok;
    if (self->as_json)
        (void)!json_array_append_new(
            self->list, json_pack("{s:s,s:b,s:s}", "check", name, "ok", (int)ok, "text", text));
    else
        printf("%-12s %-6s %s\n", name, ok ? "ok" : "FAILED", text);
}

/* ---- connection ---- */

static bool wait_up(struct fl_link *link, char *text, size_t bytes)
{
    const struct fl_clock *clock = fl_clock_system();
    int64_t deadline = fl_clock_now(clock) + CONNECT_MS;
    for (int64_t now = fl_clock_now(clock); now < deadline; now = fl_clock_now(clock)) {
        struct fl_link_event event;
        enum fl_status status = fl_link_next(link, deadline - now, &event);
        if (status == FL_OK && event.kind == FL_LINK_UP) {
            snprintf(text, bytes, "reached, and it accepts this site's key");
            return true;
        }
        if (status == FL_OK && event.kind == FL_LINK_DENIED) {
            snprintf(text, bytes, "reached, but it does not accept this site's key");
            return false;
        }
        if (status == FL_OK && event.kind == FL_LINK_DOWN && fl_link_reset(link) != FL_OK)
            break;
    }
    snprintf(text, bytes,
             "nothing answered within %d s: see whether it is served there, whether the way out is "
             "open, and whether [coordinator] address and key are its own",
             CONNECT_MS / 1000);
    return false;
}

static void check_connection(struct check *self)
{
    char text[512], answer[192];
    struct fl_link *link = NULL;
    struct fl_error error;
    if (fl_daemon_link(&self->daemon, -1, &link, &error) != FL_OK) {
        report(self, "connection", false, error.text);
        return;
    }
    bool ok = wait_up(link, answer, sizeof(answer));
    fl_link_close(&link);
    snprintf(text, sizeof(text), "%s: %s", self->daemon.conf->address, answer);
    report(self, "connection", ok, text);
}

/* ---- models ---- */

static void check_models(struct check *self)
{
    const struct fl_siteconf *conf = self->daemon.conf;
    const char *lacks = fl_siteconf_lacks_models(conf);
    if (lacks)
        report(self, "model", false, lacks);
    for (uint32_t i = 0; i < conf->model_count; i++) {
        uint8_t hash[FL_HASH_BYTES];
        char hex[FL_HASH_HEX_BYTES], text[FL_ERROR_TEXT_BYTES + FL_NAME_BYTES + 80];
        struct fl_error error;
        bool ok = fl_modelref_manifest(conf->models[i].path, hash, &error) == FL_OK;
        if (ok)
            fl_hex(hash, sizeof(hash), hex);
        snprintf(text, sizeof(text), "%s: %s", conf->models[i].name, ok ? hex : error.text);
        report(self, "model", ok, text);
    }
}

/* ---- data: that it is there; rows are read against a job ---- */

static void check_path(struct check *self, const char *path)
{
    char text[FL_PATH_BYTES + 64];
    bool ok = access(path, R_OK) == 0;
    snprintf(text, sizeof(text), "%s: %s", path,
             ok ? "there, and readable (--job reads the rows)" : strerror(errno));
    report(self, "data", ok, text);
}

static void check_data(struct check *self)
{
    const struct fl_siteconf *conf = self->daemon.conf;
    const char *lacks = fl_siteconf_lacks_data(conf);
    if (lacks)
        report(self, "data", false, lacks);
    if (conf->data_path[0])
        check_path(self, conf->data_path);
    if (conf->data_eval[0])
        check_path(self, conf->data_eval);
    for (uint32_t i = 0; i < conf->data_count; i++) {
        if (conf->data[i].path[0])
            check_path(self, conf->data[i].path);
        if (conf->data[i].eval[0])
            check_path(self, conf->data[i].eval);
    }
}

/* ---- who the partners are ---- */

static void check_roster(struct check *self)
{
    static const char *const modes[] = {
        [FL_ROSTER_AUTHORITY] = "authority",
        [FL_ROSTER_PINNED] = "pinned",
        [FL_ROSTER_FIRST_USE] = "first-use",
    };
    char statement[FL_TRUST_TEXT_BYTES], text[FL_TRUST_TEXT_BYTES + 32];
    const enum fl_trust_standing standing = fl_trust_describe(self->daemon.trust, statement);
    snprintf(text, sizeof(text), "roster = %s: %s", modes[self->daemon.conf->roster], statement);
    report(self, "roster", standing != FL_TRUST_MISSING, text);
}

/* ---- a job ---- */

static unsigned minute_of_day(void)
{
    time_t now = time(NULL);
    struct tm local;
    return localtime_r(&now, &local) ? (unsigned)(local.tm_hour * 60 + local.tm_min) : 0;
}

static void check_policy(struct check *self, const struct fl_wire_offer *offer)
{
    struct fl_policy_answer answer;
    fl_policy_check(self->daemon.conf, offer, minute_of_day(), true, &answer);
    report(self, "policy", answer.verdict == FL_VERDICT_FIT,
           answer.verdict == FL_VERDICT_FIT ? "nothing speaks against it" : answer.reason);
}

/* Two steps at the job's shape on a copy that is thrown away: the site's speed. */
static void check_speed(struct check *self, struct fl_trainer *trainer, struct fl_wire_offer *offer,
                        const struct fl_inventory *inventory)
{
    char text[256];
    struct fl_error error = {0};
    struct fl_inventory targets = {0};
    struct fl_adapter *start = NULL;
    struct fl_trainer_result result = {0};
    uint16_t *ranks = NULL;
    offer->steps = 2;
    enum fl_status status = fl_inventory_select(inventory, offer->targets, &targets, &error);
    if (status == FL_OK)
        status = fl_adapter_create(&targets, offer->rank_default, offer->alpha, NULL, &start,
                                   &error);
    if (status == FL_OK && offer->dora && fl_adapter_add_magnitudes(start) != FL_OK)
        status = fl_fail_memory(&error);
    if (status == FL_OK) {
        fl_adapter_init(start, 1);
        ranks = fl_calloc(start->count, sizeof(*ranks));
        status = ranks ? FL_OK : fl_fail_memory(&error);
    }
    for (uint32_t i = 0; status == FL_OK && i < start->count; i++)
        ranks[i] = (uint16_t)start->modules[i].rank;
    struct fl_trainer_task task = {.conf = self->daemon.conf,
                                   .offer = offer,
                                   .round = 1,
                                   .start = start,
                                   .site_ranks = ranks,
                                   .train = true,
                                   .train_a = true,
                                   .train_b = true,
                                   .total_steps = 2};
    if (status == FL_OK)
        status = trainer->run(trainer->context, &task, &result, &error);
    double tokens = 2.0 * offer->batch_size * offer->seq_len;
    snprintf(text, sizeof(text),
             "at least %.0f scored tokens/s (2 steps, %.1f s, up to %.0f tokens)",
             result.seconds > 0.0 ? (double)result.stats.train_tokens / result.seconds : 0.0,
             result.seconds, tokens);
    report(self, "speed", status == FL_OK, status == FL_OK ? text : error.text);
    fl_adapter_destroy(&result.delta);
    fl_adapter_destroy(&start);
    fl_inventory_free(&targets);
    fl_free(ranks);
}

/* What the job needs and this site does not have, under the name of the check that passes it. */
static const char *name_of_fault(enum fl_trainer_fault fault)
{
    static const char *const names[] = {
        [FL_FAULT_MODEL] = "model", [FL_FAULT_DATA] = "data", [FL_FAULT_MEMORY] = "memory"};
    return names[fault];
}

static void check_fit(struct check *self, struct fl_wire_offer *offer)
{
    char text[256];
    struct fl_error error = {0};
    struct fl_trainer trainer = {0};
    struct fl_trainer_fit fit = {.rows = 0};
    if (fl_trainer_native(&trainer) != FL_OK)
        return;
    enum fl_status status = trainer.fit(trainer.context, self->daemon.conf, offer, &fit, &error);
    if (status != FL_OK) {
        report(self, name_of_fault(fit.fault), false, error.text);
    } else {
        snprintf(text, sizeof(text),
                 "%" PRIu64 " rows, %" PRIu64 " cut to %u tokens (%" PRIu64
                 " of them in what is scored), %" PRIu64 " dropped, %" PRIu64 " empty, %" PRIu64
                 " broken; %" PRIu64 " rows to evaluate on",
                 fit.rows, fit.truncated, offer->seq_len, fit.completions_cut, fit.dropped,
                 fit.empty, fit.bad, fit.eval_rows);
        report(self, "data", true, text);
        snprintf(text, sizeof(text), "about %" PRIu64 " MiB for a step, beside the mapped model",
                 fit.memory_bytes >> 20);
        report(self, "memory", true, text);
        check_speed(self, &trainer, offer, &fit.inventory);
    }
    fl_inventory_free(&fit.inventory);
    fl_trainer_destroy(&trainer);
}

/* The job file as this site would be offered it; secure aggregation is the policy's to judge. */
static enum fl_status load_offer(const char *path, struct fl_wire_offer *out,
                                 struct fl_error *error)
{
    uint8_t hash[FL_HASH_BYTES];
    struct fl_job_spec *spec = fl_calloc(1, sizeof(*spec));
    if (!spec)
        return fl_fail_memory(error);
    enum fl_status status = fl_job_load(path, spec, error);
    if (status == FL_OK)
        status = fl_job_sha256(spec, hash);
    if (status == FL_OK)
        fl_job_offer(spec, hash, "", out);
    fl_free(spec);
    return status;
}

static enum fl_status check_all(struct check *self, const char *site, const char *job,
                                struct fl_error *error)
{
    struct fl_wire_offer *offer = NULL;
    enum fl_status status = fl_daemon_open(site, false, &self->daemon, error);
    if (status != FL_OK)
        return status;
    report(self, "conf", true, "worker.conf is well-formed; the key file's modes are right");
    check_connection(self);
    check_models(self);
    check_roster(self);
    if (!job) {
        check_data(self);
        if (!self->daemon.conf->require_secure_aggregation)
            report(self, "policy", true,
                   "require_secure_aggregation = off: in jobs without it the coordinator can read "
                   "this site's own update");
        return FL_OK;
    }
    offer = fl_calloc(1, sizeof(*offer));
    status = offer ? load_offer(job, offer, error) : fl_fail_memory(error);
    if (status == FL_OK) {
        check_policy(self, offer);
        check_fit(self, offer);
    }
    fl_free(offer);
    return status;
}

int fl_cmd_check(int argc, char **argv)
{
    struct check self = {.daemon = {.store = {.lock = -1}}};
    const char *site = NULL, *job = NULL;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "SITE",
         .kind = FL_OPTION_STRING,
         .target = &site,
         .required = true,
         .doc = "the site's directory"},
        {.name = "--job",
         .value = "FILE",
         .kind = FL_OPTION_STRING,
         .target = &job,
         .doc = "also hold policy, data, memory and speed against this job file"},
        {.name = "--json",
         .kind = FL_OPTION_FLAG,
         .target = &self.as_json,
         .doc = "print {\"ok\":...,\"checks\":[...]}"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker check",
        .summary = "Dry run: nothing of the site's is sent. Exit 0 when all is well, 1 when not.",
        .example = "fedlora-worker check --dir SITE --job glossaries.conf",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0])};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    self.list = json_array();
    enum fl_status status = check_all(&self, site, job, &error);
    fl_daemon_close(&self.daemon);
    if (status == FL_OK && self.as_json) {
        json_t *root = json_pack("{s:b,s:O}", "ok", (int)(self.failed == 0), "checks", self.list);
        status = root ? fl_json_print(root) : fl_fail_memory(&error);
        json_decref(root);
    }
    json_decref(self.list);
    if (status != FL_OK)
        return fl_cli_fail(usage.program, &error);
    return self.failed == 0 ? 0 : 1;
}
