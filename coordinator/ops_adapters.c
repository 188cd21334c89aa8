/* ops_adapters.c - commands on versions. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/ops.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"

static json_t *version_json(const struct fl_version *v)
{
    return json_pack("{s:I, s:I, s:I, s:s, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "version", (json_int_t)v->version, "job", (json_int_t)v->job, "round",
                     (json_int_t)v->round, "strategy", v->strategy, "sha256", fl_op_hash(v->sha256),
                     "rank", (json_int_t)v->rank, "workers", (json_int_t)v->workers, "created",
                     fl_op_time(v->created_ms), "eval_loss",
                     v->eval_tokens ? fl_op_real(v->eval_loss) : json_null(), "eval_tokens",
                     v->eval_tokens ? json_integer((json_int_t)v->eval_tokens) : json_null(),
                     "train_loss", fl_op_real(v->train_loss), "sum_sha256",
                     v->has_sum ? fl_op_hash(v->sum_sha256) : json_null(), "parent_sha256",
                     v->has_parent ? fl_op_hash(v->parent_sha256) : json_null(), "delta_norm",
                     fl_op_real(v->delta_norm));
}

static enum fl_status append_version(void *context, const struct fl_version *version)
{
    json_t *item = version_json(version);
    return item && json_array_append_new(context, item) == 0 ? FL_OK : FL_ENOMEM;
}

/* The current version of a job is the one it was rolled back to, or its newest: the last here. */
static enum fl_status mark_current(const struct fl_op *op, json_t *list, struct fl_error *error)
{
    struct fl_job job = {.id = 0};
    enum fl_status status = FL_OK;
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const json_t *next = json_array_get(list, i + 1);
        json_int_t id = json_integer_value(json_object_get(item, "job"));
        bool current = !next || json_integer_value(json_object_get(next, "job")) != id;
        if (id != job.id)
            status = fl_queue_get(op->desk->store, id, &job, error);
        if (status == FL_OK && job.has_current)
            current = json_integer_value(json_object_get(item, "version")) == job.current;
        if (status == FL_OK)
            status = fl_op_set(item, "current", json_boolean(current));
        if (status != FL_OK)
            return status;
    }
    return FL_OK;
}

enum fl_status fl_op_adapters_list(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job found;
    int64_t job = fl_op_number(op, "job", 0);
    json_t *list = json_array();
    enum fl_status status = fl_op_set(op->answer, "versions", list);
    if (status == FL_OK && job)
        status = fl_queue_get(op->desk->store, job, &found, error);
    if (status == FL_OK)
        status = fl_registry_each(op->desk->store, job, append_version, list, error);
    return status == FL_OK ? mark_current(op, list, error) : status;
}

static json_t *inventory_json(const struct fl_inventory *inventory)
{
    struct fl_buf bytes;
    char *text = NULL;
    json_t *out = NULL;
    fl_buf_init(&bytes, 16u << 20);
    if (fl_inventory_encode(inventory, &bytes) == FL_OK) {
        size_t size = sodium_base64_encoded_len(bytes.length, sodium_base64_VARIANT_ORIGINAL);
        text = fl_malloc(size);
        if (text)
            out = json_string(sodium_bin2base64(text, size, bytes.data, bytes.length,
                                                sodium_base64_VARIANT_ORIGINAL));
    }
    fl_free(text);
    fl_buf_free(&bytes);
    return out;
}

static json_t *ranks_json(const struct fl_version *version)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < version->rank_count; i++) {
        if (json_array_append_new(list, json_integer(version->ranks[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* All that the command needs to write a PEFT directory; the version's file it reads itself. */
static enum fl_status fill_export(const struct fl_op *op, const struct fl_job *job,
                                  const struct fl_version *version, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    struct fl_inventory inventory = {0};
    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    enum fl_status status = fl_registry_path(op->desk->store, job->id, version->version, path,
                                             error);
    if (status == FL_OK)
        status = fl_queue_inventory(op->desk->store, job->id, NULL, &inventory, error);
    if (status == FL_OK)
        status = fl_queue_text(op->desk->store, job->id, &text, error);
    if (status == FL_OK)
        status = fl_op_set(op->answer, "version", version_json(version));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "path", json_string(path));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "spec", json_string(fl_buf_text(&text)));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "inventory", inventory_json(&inventory));
    if (status == FL_OK)
        status = fl_op_set(op->answer, "ranks", ranks_json(version));
    fl_inventory_free(&inventory);
    fl_buf_free(&text);
    return status;
}

static enum fl_status audit_version(const struct fl_op *op, const char *event,
                                    const struct fl_version *version, struct fl_error *error)
{
    char sha256[FL_HASH_HEX_BYTES];
    fl_hex(version->sha256, FL_HASH_BYTES, sha256);
    const struct fl_field fields[] = {FL_I64("job", version->job),
                                      FL_U64("version", version->version),
                                      FL_STR("sha256", sha256),
                                      {.kind = FL_FIELD_END}};
    return fl_desk_audit(op->desk, event, fields, error);
}

enum fl_status fl_op_adapters_get(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    int64_t number = fl_op_number(op, "version", -1);
    struct fl_version *version = fl_calloc(1, sizeof *version);
    if (!version)
        return fl_fail_memory(error);
    enum fl_status status = fl_queue_get(op->desk->store, fl_op_number(op, "job", 0), &job, error);
    if (status == FL_OK && number < 0 && job.has_current)
        number = job.current;
    if (status == FL_OK && number < 0)
        status = fl_registry_newest(op->desk->store, job.id, version, error);
    else if (status == FL_OK && number > UINT32_MAX)
        status = fl_fail(error, FL_ENOTFOUND, "no such version");
    else if (status == FL_OK)
        status = fl_registry_get(op->desk->store, job.id, (uint32_t)number, version, error);
    if (status == FL_OK)
        status = fill_export(op, &job, version, error);
    if (status == FL_OK)
        status = audit_version(op, "version_exported", version, error);
    fl_free(version);
    return status;
}

enum fl_status fl_op_adapters_rollback(const struct fl_op *op, struct fl_error *error)
{
    struct fl_job job;
    int64_t number = fl_op_number(op, "version", -1);
    enum fl_status status = fl_queue_get(op->desk->store, fl_op_number(op, "job", 0), &job, error);
    if (status != FL_OK)
        return status;
    if (number < 0 || number > UINT32_MAX)
        return fl_fail(error, FL_ENOTFOUND, "no such version");
    status = fl_registry_rollback(op->desk->store, &job, (uint32_t)number, error);
    if (status == FL_OK)
        status = fl_op_set(op->answer, "job", json_integer(job.id));
    if (status != FL_OK)
        return status;
    const struct fl_field fields[] = {
        FL_I64("job", job.id), FL_I64("version", number), {.kind = FL_FIELD_END}};
    return fl_desk_audit(op->desk, "rolled_back", fields, error);
}
