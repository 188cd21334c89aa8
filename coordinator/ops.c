/* ops.c - commands on sites and on the coordinator as a whole, and what all commands share. */
#include "coordinator/ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/queue.h"
#include "coordinator/record.h"

enum fl_status fl_op_text(const struct fl_op *op, const char *key, const char **out,
                          struct fl_error *error)
{
    *out = json_string_value(json_object_get(op->request, key));
    return *out ? FL_OK : fl_fail(error, FL_EINVAL, "the request lacks \"%s\"", key);
}

int64_t fl_op_number(const struct fl_op *op, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(op->request, key);
    return json_is_integer(value) ? (int64_t)json_integer_value(value) : fallback;
}

enum fl_status fl_op_set(json_t *object, const char *key, json_t *value)
{
    return value && json_object_set_new(object, key, value) == 0 ? FL_OK : FL_ENOMEM;
}

json_t *fl_op_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *fl_op_hash(const uint8_t hash[FL_HASH_BYTES])
{
    char hex[FL_HASH_HEX_BYTES];
    fl_hex(hash, FL_HASH_BYTES, hex);
    return json_string(hex);
}

json_t *fl_op_time(int64_t wall_ms)
{
    char text[32];
    struct tm parts;
    time_t seconds = (time_t)(wall_ms / 1000);
    if (wall_ms == 0 || !gmtime_r(&seconds, &parts) ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        return json_null();
    return json_string(text);
}

/* ---- sites ---- */

enum fl_status fl_op_invite(const struct fl_op *op, struct fl_error *error)
{
    const char *name;
    struct fl_token token = {.expires_ms = 0};
    char text[FL_TOKEN_TEXT_BYTES];
    enum fl_status status = fl_op_text(op, "name", &name, error);
    if (status == FL_OK)
        status = fl_desk_address(op->desk, token.address, error);
    if (status == FL_OK)
        status = fl_roster_invite(op->desk->roster, op->desk->keys, name,
                                  fl_op_number(op, "ttl_ms", 86400000),
                                  fl_clock_wall(op->desk->clock), &token, error);
    if (status == FL_OK)
        status = fl_record_site(op->desk, "site_invited", name, NULL, error);
    if (status == FL_OK) {
        memcpy(token.coordinator, fl_keys_public(op->desk->keys)->x25519, FL_KEY_BYTES);
        fl_token_encode(&token, text);
        status = fl_op_set(op->answer, "token", json_string(text));
        sodium_memzero(text, sizeof text);
    }
    sodium_memzero(&token, sizeof token);
    return status;
}

static const char *site_state(const struct fl_site *site, const struct fl_live_worker *live)
{
    if (site->revoked)
        return "revoked";
    if (!live->online)
        return "offline";
    return live->training ? "training" : "online";
}

static void look_at_site(const struct fl_op *op, const struct fl_site *site,
                         struct fl_live_worker *out)
{
    *out = (struct fl_live_worker){.last_seen_ms_ago = -1};
    if (op->live)
        op->live->worker(op->live->context, site->id, out);
    if (out->last_seen_ms_ago < 0 && site->last_seen_ms != 0) {
        int64_t ago = fl_clock_wall(op->desk->clock) - site->last_seen_ms;
        out->last_seen_ms_ago = ago > 0 ? ago : 0;
    }
}

/* How the job stands to it: 0 failed sums where there is no job. */
static enum fl_status put_standing(const struct fl_op *op, const struct fl_site *site, int64_t job,
                                   json_t *out)
{
    struct fl_error error;
    struct fl_job_standing standing = {.failed_sums = 0};
    enum fl_status status = FL_OK;
    if (job)
        status = fl_queue_standing(op->desk->store, job, site->id, &standing, &error);
    if (status == FL_OK)
        status = fl_op_set(out, "failed_sums", json_integer(standing.failed_sums));
    return status == FL_OK ? fl_op_set(out, "left_out", json_boolean(standing.left_out)) : status;
}

/* job: 0 where all that is kept of a site is told, else what a job has to do with it */
static json_t *site_json(const struct fl_op *op, const struct fl_site *site, bool whole,
                         int64_t job)
{
    struct fl_live_worker live;
    char identity[FL_IDENTITY_TEXT_BYTES];
    json_t *out = json_object();
    look_at_site(op, site, &live);
    fl_identity_encode(&site->identity, identity);
    enum fl_status status = out ? FL_OK : FL_ENOMEM;
    if (status == FL_OK)
        status = fl_op_set(out, "name", json_string(site->name));
    if (status == FL_OK)
        status = fl_op_set(out, "state", json_string(site_state(site, &live)));
    if (status == FL_OK)
        status = fl_op_set(out, "last_seen_seconds",
                           live.last_seen_ms_ago < 0
                               ? json_null()
                               : json_real((double)live.last_seen_ms_ago / 1000.0));
    if (status == FL_OK && whole)
        status = fl_op_set(out, "identity", json_string(identity));
    if (status == FL_OK && whole)
        status = fl_op_set(out, "created", fl_op_time(site->created_ms));
    if (status == FL_OK && !whole)
        status = put_standing(op, site, job, out);
    if (status == FL_OK)
        return out;
    json_decref(out);
    return NULL;
}

static enum fl_status sites_json(const struct fl_op *op, const char *key, bool whole, int64_t job)
{
    json_t *list = json_array();
    enum fl_status status = fl_op_set(op->answer, key, list);
    for (uint32_t i = 0; status == FL_OK && i < fl_roster_count(op->desk->roster); i++) {
        if (json_array_append_new(list,
                                  site_json(op, fl_roster_at(op->desk->roster, i), whole, job)))
            status = FL_ENOMEM;
    }
    return status;
}

enum fl_status fl_op_roster_list(const struct fl_op *op, struct fl_error *error)
{
    (void)error;
    return sites_json(op, "sites", true, 0);
}

/*
 * What a site that did not join by a token must write in its worker.conf. The address is left out
 * where no public one is known: the site is enrolled all the same.
 */
static enum fl_status tell_coordinator(const struct fl_op *op)
{
    char key[FL_KEY_HEX_BYTES], address[FL_ADDRESS_BYTES];
    struct fl_error unknown;
    fl_hex(fl_keys_public(op->desk->keys)->x25519, FL_KEY_BYTES, key);
    enum fl_status status = fl_op_set(op->answer, "key", json_string(key));
    if (status == FL_OK && fl_desk_address(op->desk, address, &unknown) == FL_OK)
        status = fl_op_set(op->answer, "address", json_string(address));
    return status;
}

enum fl_status fl_op_roster_add(const struct fl_op *op, struct fl_error *error)
{
    const char *name, *text;
    struct fl_identity identity;
    enum fl_status status = fl_op_text(op, "name", &name, error);
    if (status == FL_OK)
        status = fl_op_text(op, "identity", &text, error);
    if (status == FL_OK)
        status = fl_identity_parse(text, &identity, error);
    if (status == FL_OK)
        status = fl_roster_add(op->desk->roster, name, &identity, fl_clock_wall(op->desk->clock),
                               error);
    if (status == FL_OK)
        status = fl_record_site(op->desk, "site_added", name, NULL, error);
    return status == FL_OK ? tell_coordinator(op) : status;
}

enum fl_status fl_op_roster_revoke(const struct fl_op *op, struct fl_error *error)
{
    const char *name;
    enum fl_status status = fl_op_text(op, "name", &name, error);
    if (status == FL_OK)
        status = fl_roster_revoke(op->desk->roster, name, fl_clock_wall(op->desk->clock), error);
    if (status != FL_OK)
        return status;
    const struct fl_site *site = fl_roster_by_name(op->desk->roster, name);
    if (op->live && site)
        op->live->site_revoked(op->live->context, site->id);
    return fl_record_site(op->desk, "site_revoked", name, NULL, error);
}

/* ---- the coordinator ---- */

enum fl_status fl_op_refusals(const struct fl_op *op, int64_t job, struct fl_error *error)
{
    struct fl_refusal_row *rows = NULL;
    uint32_t count = 0;
    json_t *list = json_array();
    enum fl_status status = fl_op_set(op->answer, "refusals", list);
    if (status == FL_OK && job)
        status = fl_queue_refusals(op->desk->store, job, &rows, &count, error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        json_t *item = json_pack("{s:s, s:s, s:s, s:b}", "worker", rows[i].worker, "reason",
                                 rows[i].reason, "code", fl_refusal_name(rows[i].code), "permanent",
                                 (int)rows[i].permanent);
        if (!item || json_array_append_new(list, item) != 0)
            status = FL_ENOMEM;
    }
    fl_free(rows);
    return status;
}

static const char *whole_state(const struct fl_op *op, const struct fl_job *job)
{
    if (job && job->state == FL_JOB_RUNNING)
        return op->live ? "running" : "stopped";
    if (job && job->state == FL_JOB_PAUSED)
        return "paused";
    return op->live ? "idle" : "stopped";
}

static enum fl_status job_part(const struct fl_op *op, const struct fl_job *job,
                               struct fl_error *error)
{
    struct fl_job_spec *spec = NULL;
    char reason[FL_REASON_BYTES];
    enum fl_status status = fl_queue_spec(op->desk->store, job->id, &spec, error);
    if (status != FL_OK)
        return status;
    uint32_t rounds = (uint32_t)spec->rounds;
    uint32_t round = job->round > rounds ? rounds : job->round;
    (void)snprintf(reason, sizeof reason, "%s", job->reason);
    if (op->live && op->live->running_job(op->live->context) == job->id)
        op->live->waiting(op->live->context, reason, sizeof reason);
    status = fl_op_set(op->answer, "job", json_integer(job->id));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "round", json_integer(round));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "rounds", json_integer(rounds));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "phase", json_string(fl_round_state_name(job->phase)));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "reason", json_string(reason));
    fl_free(spec);
    return status;
}

static enum fl_status no_job_part(const struct fl_op *op)
{
    static const char *const keys[] = {"job", "round", "rounds"};
    enum fl_status status = FL_OK;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == FL_OK; i++)
        status = fl_op_set(op->answer, keys[i], json_null());
    if (status == FL_OK)
        status = fl_op_set(op->answer, "phase", json_string("idle"));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "reason", json_string(""));
    return status;
}

/* The job that runs, else the first that is queued, else the newest. */
static enum fl_status job_of_interest(const struct fl_op *op, struct fl_job *out,
                                      struct fl_error *error)
{
    enum fl_status status = fl_queue_next(op->desk->store, out, error);
    if (status == FL_ENOTFOUND)
        status = fl_queue_get(op->desk->store, 0, out, error);
    return status;
}

enum fl_status fl_op_status(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    enum fl_status found = job_of_interest(op, &job, error);
    if (found != FL_OK && found != FL_ENOTFOUND)
        return found;
    bool any = found == FL_OK;
    enum fl_status status = fl_op_set(op->answer, "state",
                                      json_string(whole_state(op, any ? &job : NULL)));
    if (status == FL_OK)
        status = any ? job_part(op, &job, error) : no_job_part(op);
    if (status == FL_OK)
        status = sites_json(op, "workers", false, any ? job.id : 0);
    if (status == FL_OK)
        status = fl_op_refusals(op, any ? job.id : 0, error);
    return status;
}

enum fl_status fl_op_health(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    enum fl_status status = job_of_interest(op, &job, error);
    if (status == FL_ENOTFOUND)
        status = FL_OK;
    if (status == FL_OK && !op->live)
        return fl_fail(error, FL_EIO, "the coordinator is not running");
    return status;
}
