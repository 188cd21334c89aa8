/* ops_jobs.c - commands on jobs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/ops.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"
#include "job/strategy.h"

static enum fl_status audit_job(const struct fl_op *op, const char *event, int64_t id,
                                struct fl_error *error)
{
    struct fl_job job;
    char sha256[FL_HASH_HEX_BYTES];
    enum fl_status status = fl_queue_get(op->desk->store, id, &job, error);
    if (status != FL_OK)
        return status;
    fl_hex(job.sha256, FL_HASH_BYTES, sha256);
    const struct fl_field fields[] = {FL_I64("job", id),
                                      FL_STR("name", job.name),
                                      FL_STR("settings_sha256", sha256),
                                      {.kind = FL_FIELD_END}};
    return fl_desk_audit(op->desk, event, fields, error);
}

static void queue_changed(const struct fl_op *op)
{
    if (op->live)
        op->live->queue_changed(op->live->context);
}

/* ---- submission ---- */

/* `[lora] start = JOB@N`: that version as a PEFT directory of this coordinator's own. */
static enum fl_status resolve_start(const struct fl_op *op, struct fl_job_spec *spec,
                                    struct fl_error *error)
{
    char path[FL_PATH_BYTES], *end;
    long long job = strtoll(spec->start, &end, 10);
    if (job <= 0 || *end != '@')
        return FL_OK; /* a PEFT directory, which the command looked at */
    long long version = strtoll(end + 1, &end, 10);
    if (*end != '\0' || version < 0 || version > UINT32_MAX)
        return fl_fail(error, FL_EFORMAT, "[lora] start = %s: not JOB@VERSION", spec->start);
    struct fl_inventory inventory = {0}, targets = {0};
    struct fl_job_spec *other = NULL;
    struct fl_adapter *adapter = NULL;
    struct fl_version *row = fl_calloc(1, sizeof *row);
    enum fl_status status = row ? fl_registry_get(op->desk->store, job, (uint32_t)version, row,
                                                  error)
                                : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_queue_spec(op->desk->store, job, &other, error);
    if (status == FL_OK)
        status = fl_queue_inventory(op->desk->store, job, NULL, &inventory, error);
    if (status == FL_OK)
        status = fl_inventory_select(&inventory, other->targets, &targets, error);
    if (status == FL_OK)
        status = fl_registry_path(op->desk->store, job, (uint32_t)version, path, error);
    if (status == FL_OK)
        status = fl_registry_read(path, &targets, other, row->ranks, row->sha256, &adapter, error);
    if (status == FL_OK)
        status = fl_job_check_start(spec, adapter, spec->start, error);
    if (status == FL_OK)
        status = fl_store_path(op->desk->store, path, error, "starts/%lld-%lld", job, version);
    if (status == FL_OK)
        status = fl_store_make_parent(path, error);
    if (status == FL_OK)
        status = fl_adapter_save(adapter, path, NULL, error);
    if (status == FL_OK && strlen(path) >= sizeof spec->start)
        status = fl_fail(error, FL_ERANGE, "%s: the path is too long", path);
    if (status == FL_OK)
        (void)snprintf(spec->start, sizeof spec->start, "%s", path);
    fl_adapter_destroy(&adapter);
    fl_inventory_free(&targets);
    fl_inventory_free(&inventory);
    fl_free(other);
    fl_free(row);
    return status;
}

/* What is not wrong, since sites may still join, but keeps a job waiting or a rule idle for long.
 */
static enum fl_status add_notes(const struct fl_op *op, const struct fl_job_spec *spec)
{
    const struct fl_roster *roster = op->desk->roster;
    char text[FL_REASON_BYTES];
    unsigned allowed = 0;
    json_t *notes = json_array();
    for (uint32_t i = 0; i < fl_roster_count(roster); i++)
        allowed += fl_roster_at(roster, i)->revoked ? 0 : 1;
    if (spec->min_workers > allowed) {
        (void)snprintf(
            text, sizeof text,
            "[cohort] min_workers = %llu, but sites that are enrolled: %u; the job waits "
            "until more have joined",
            (unsigned long long)spec->min_workers, allowed);
        (void)json_array_append_new(notes, json_string(text));
    }
    for (uint32_t i = 0; i < spec->ranks.count; i++) {
        const struct fl_rank_rule *rule = &spec->ranks.rules[i];
        if (rule->kind != FL_RANK_WORKER || fl_roster_by_name(roster, rule->worker))
            continue;
        (void)snprintf(text, sizeof text, "[ranks] worker.%s: no site of that name is enrolled",
                       rule->worker);
        (void)json_array_append_new(notes, json_string(text));
    }
    return fl_op_set(op->answer, "notes", notes);
}

enum fl_status fl_op_job_submit(const struct fl_op *op, struct fl_error *error)
{
    const char *text, *what;
    int64_t id = 0;
    struct fl_job_spec *spec = fl_calloc(1, sizeof *spec);
    if (!spec)
        return fl_fail_memory(error);
    enum fl_status status = fl_op_text(op, "text", &text, error);
    if (status == FL_OK)
        status = fl_op_text(op, "what", &what, error);
    if (status == FL_OK)
        status = fl_job_parse(text, strlen(text), what, spec, error);
    const char *start = json_string_value(json_object_get(op->request, "start"));
    if (status == FL_OK && start && strlen(start) < sizeof spec->start)
        (void)snprintf(spec->start, sizeof spec->start, "%s", start);
    if (status == FL_OK && spec->start[0])
        status = resolve_start(op, spec, error);
    if (status == FL_OK && (status = add_notes(op, spec)) != FL_OK)
        status = fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_queue_submit(op->desk->store, spec, fl_clock_wall(op->desk->clock), &id, error);
    fl_free(spec);
    if (status == FL_OK)
        status = audit_job(op, "job_submitted", id, error);
    if (status == FL_OK)
        queue_changed(op);
    return status == FL_OK ? fl_op_set(op->answer, "job", json_integer(id)) : status;
}

/* ---- reading ---- */

/* What `job list` and `job show` say of a job. */
static enum fl_status fill_job(const struct fl_op *op, const struct fl_job *job, json_t *out,
                               struct fl_error *error)
{
    struct fl_job_spec *spec = NULL;
    char reason[FL_REASON_BYTES];
    enum fl_status status = fl_queue_spec(op->desk->store, job->id, &spec, error);
    if (status != FL_OK)
        return status;
    int64_t rounds = (int64_t)spec->rounds;
    int64_t round = job->round > rounds ? rounds : (int64_t)job->round;
    (void)snprintf(reason, sizeof reason, "%s", job->reason);
    if (op->live && op->live->running_job(op->live->context) == job->id)
        op->live->waiting(op->live->context, reason, sizeof reason);
    json_t *parts = json_pack(
        "{s:I, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:s, s:o, s:o}", "job", (json_int_t)job->id,
        "name", job->name, "state", fl_job_state_name(job->state), "strategy",
        fl_strategy_info((enum fl_strategy)spec->strategy)->name, "round", (json_int_t)round,
        "rounds", (json_int_t)rounds, "phase", fl_round_state_name(job->phase), "attempt",
        (json_int_t)job->attempt, "reason", reason, "created", fl_op_time(job->created_ms), "ended",
        fl_op_time(job->ended_ms));
    if (!parts || json_object_update(out, parts) != 0)
        status = FL_ENOMEM;
    json_decref(parts);
    fl_free(spec);
    return status;
}

enum fl_status fl_op_job_list(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job *jobs = NULL;
    uint32_t count = 0;
    json_t *list = json_array();
    enum fl_status status = fl_op_set(op->answer, "jobs", list);
    if (status == FL_OK)
        status = fl_queue_list(op->desk->store, &jobs, &count, error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        json_t *item = json_object();
        if (!item || json_array_append_new(list, item) != 0)
            status = FL_ENOMEM;
        else
            status = fill_job(op, &jobs[i], item, error);
    }
    fl_free(jobs);
    return status;
}

static enum fl_status newest_number(const struct fl_op *op, int64_t job, json_t **out,
                                    struct fl_error *error)
{
    struct fl_version *version = fl_calloc(1, sizeof *version);
    *out = NULL;
    if (!version)
        return fl_fail_memory(error);
    enum fl_status status = fl_registry_newest(op->desk->store, job, version, error);
    if (status == FL_OK)
        *out = json_integer(version->version);
    else if (status == FL_ENOTFOUND)
        *out = json_null();
    fl_free(version);
    return *out ? FL_OK : status;
}

enum fl_status fl_op_job_show(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    struct fl_buf text;
    json_t *newest = NULL;
    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    enum fl_status status = fl_queue_get(op->desk->store, fl_op_number(op, "job", 0), &job, error);
    if (status == FL_OK)
        status = fill_job(op, &job, op->answer, error);
    if (status == FL_OK)
        status = fl_op_refusals(op, job.id, error);
    if (status == FL_OK)
        status = newest_number(op, job.id, &newest, error);
    if (status == FL_OK)
        status = fl_op_set(op->answer, "version",
                           job.has_current ? json_integer(job.current) : json_incref(newest));
    json_decref(newest);
    if (status == FL_OK)
        status = fl_op_set(op->answer, "base_loss", fl_op_real(job.base_loss));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "sha256", fl_op_hash(job.sha256));
    if (status == FL_OK)
        status = fl_queue_text(op->desk->store, job.id, &text, error);
    if (status == FL_OK)
        status = fl_op_set(op->answer, "spec", json_string(fl_buf_text(&text)));
    fl_buf_free(&text);
    return status;
}

/* ---- changing ---- */

enum fl_status fl_op_job_cancel(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    int64_t id = fl_op_number(op, "job", -1);
    enum fl_status status = fl_queue_get(op->desk->store, id, &job, error);
    if (status != FL_OK)
        return status;
    if (job.state == FL_JOB_DONE || job.state == FL_JOB_FAILED || job.state == FL_JOB_CANCELLED)
        return fl_fail(error, FL_EINVAL, "job %lld is %s already", (long long)id,
                       fl_job_state_name(job.state));
    if (op->live && op->live->running_job(op->live->context) == id)
        status = op->live->cancel(op->live->context, error);
    else {
        status = fl_queue_set_state(op->desk->store, id, FL_JOB_CANCELLED,
                                    "cancelled by the operator", fl_clock_wall(op->desk->clock),
                                    error);
        if (status == FL_OK)
            status = fl_queue_clean(op->desk->store, id, error);
    }
    return status == FL_OK ? audit_job(op, "job_cancelled", id, error) : status;
}

enum fl_status fl_op_job_resume(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    int64_t id = fl_op_number(op, "job", -1);
    enum fl_status status = fl_queue_get(op->desk->store, id, &job, error);
    if (status == FL_OK && job.state != FL_JOB_PAUSED)
        return fl_fail(error, FL_EINVAL, "job %lld is %s, not paused", (long long)id,
                       fl_job_state_name(job.state));
    if (status == FL_OK)
        status = fl_queue_set_state(op->desk->store, id, FL_JOB_QUEUED, "",
                                    fl_clock_wall(op->desk->clock), error);
    if (status == FL_OK)
        status = audit_job(op, "job_resumed", id, error);
    if (status == FL_OK)
        queue_changed(op);
    return status;
}
