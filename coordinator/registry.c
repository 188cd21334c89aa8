/* registry.c - see registry.h. */
#include "coordinator/registry.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

#define COLUMNS                                                                                    \
    "job, version, round, strategy, sha256, sum_sha256, root, bytes, ranks, rank, workers, "       \
    "created_ms, train_loss, train_tokens, eval_loss, eval_tokens, delta_norm, cut_fraction, "     \
    "parent_sha256"

enum fl_status fl_registry_path(const struct fl_store *store, int64_t job, uint32_t version,
                                char *path, struct fl_error *error)
{
    return fl_store_path(store, path, error, "versions/%lld/%u.safetensors", (long long)job,
                         version);
}

enum fl_status fl_registry_put(struct fl_store *store, const struct fl_version *v,
                               struct fl_error *error)
{
    return fl_store_run(
        store, error,
        "INSERT OR IGNORE INTO versions(" COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        "iiisbbbibiiidididdb", v->job, (int64_t)v->version, (int64_t)v->round, v->strategy,
        v->sha256, (size_t)FL_HASH_BYTES, v->has_sum ? v->sum_sha256 : NULL, (size_t)FL_HASH_BYTES,
        v->root, (size_t)FL_HASH_BYTES, (int64_t)v->bytes, v->ranks,
        v->rank_count * sizeof v->ranks[0], (int64_t)v->rank, (int64_t)v->workers, v->created_ms,
        v->train_loss, (int64_t)v->train_tokens, v->eval_loss, (int64_t)v->eval_tokens,
        v->delta_norm, v->cut_fraction, v->has_parent ? v->parent_sha256 : NULL,
        (size_t)FL_HASH_BYTES);
}

static enum fl_status read_ranks(const struct fl_row *row, int column, struct fl_version *out)
{
    size_t length;
    const void *bytes = fl_row_blob(row, column, &length);
    if (!bytes || length > sizeof out->ranks || length % sizeof out->ranks[0] != 0)
        return FL_EFORMAT;
    memcpy(out->ranks, bytes, length);
    out->rank_count = (uint32_t)(length / sizeof out->ranks[0]);
    return FL_OK;
}

static enum fl_status read_version(void *context, const struct fl_row *row)
{
    struct fl_version *out = context;
    memset(out, 0, sizeof *out);
    out->job = fl_row_i64(row, 0);
    out->version = (uint32_t)fl_row_i64(row, 1);
    out->round = (uint32_t)fl_row_i64(row, 2);
    fl_row_copy_text(row, 3, out->strategy, sizeof out->strategy);
    out->bytes = (uint64_t)fl_row_i64(row, 7);
    out->rank = (uint32_t)fl_row_i64(row, 9);
    out->workers = (uint32_t)fl_row_i64(row, 10);
    out->created_ms = fl_row_i64(row, 11);
    out->train_loss = fl_row_double(row, 12);
    out->train_tokens = (uint64_t)fl_row_i64(row, 13);
    out->eval_loss = fl_row_double(row, 14);
    out->eval_tokens = (uint64_t)fl_row_i64(row, 15);
    out->delta_norm = fl_row_double(row, 16);
    out->cut_fraction = fl_row_double(row, 17);
    out->has_sum = fl_row_copy_blob(row, 5, out->sum_sha256, FL_HASH_BYTES) == FL_OK;
    out->has_parent = fl_row_copy_blob(row, 18, out->parent_sha256, FL_HASH_BYTES) == FL_OK;
    enum fl_status status = fl_row_copy_blob(row, 4, out->sha256, FL_HASH_BYTES);
    if (status == FL_OK)
        status = fl_row_copy_blob(row, 6, out->root, FL_HASH_BYTES);
    return status == FL_OK ? read_ranks(row, 8, out) : status;
}

enum fl_status fl_registry_get(struct fl_store *store, int64_t job, uint32_t version,
                               struct fl_version *out, struct fl_error *error)
{
    uint64_t rows = 0;
    enum fl_status status = fl_store_select(store, error, read_version, out, &rows,
                                            "SELECT " COLUMNS
                                            " FROM versions WHERE job = ? AND version = ?",
                                            "ii", job, (int64_t)version);
    if (status == FL_OK && rows == 0)
        return fl_fail(error, FL_ENOTFOUND, "job %lld has no version %u", (long long)job, version);
    return status;
}

enum fl_status fl_registry_newest(struct fl_store *store, int64_t job, struct fl_version *out,
                                  struct fl_error *error)
{
    uint64_t rows = 0;
    enum fl_status status = fl_store_select(
        store, error, read_version, out, &rows,
        "SELECT " COLUMNS " FROM versions WHERE job = ? ORDER BY version DESC LIMIT 1", "i", job);
    if (status == FL_OK && rows == 0)
        return fl_fail(error, FL_ENOTFOUND, "job %lld has no version yet; --job names another",
                       (long long)job);
    return status;
}

struct walk {
    enum fl_status (*each)(void *context, const struct fl_version *);
    void *context;
    struct fl_version version;
};

static enum fl_status walk_row(void *context, const struct fl_row *row)
{
    struct walk *walk = context;
    enum fl_status status = read_version(&walk->version, row);
    return status == FL_OK ? walk->each(walk->context, &walk->version) : status;
}

enum fl_status fl_registry_each(struct fl_store *store, int64_t job,
                                enum fl_status (*each)(void *context, const struct fl_version *),
                                void *context, struct fl_error *error)
{
    struct walk *walk = fl_calloc(1, sizeof *walk);
    if (!walk)
        return fl_fail_memory(error);
    walk->each = each;
    walk->context = context;
    enum fl_status status = fl_store_select(store, error, walk_row, walk, NULL,
                                            "SELECT " COLUMNS
                                            " FROM versions WHERE version > 0 AND (?1 = 0 OR job = "
                                            "?1) ORDER BY job, version",
                                            "i", job);
    fl_free(walk);
    return status;
}

enum fl_status fl_registry_last(struct fl_store *store, int64_t job, uint32_t most,
                                enum fl_status (*each)(void *context, const struct fl_version *),
                                void *context, struct fl_error *error)
{
    struct walk *walk = fl_calloc(1, sizeof *walk);
    if (!walk)
        return fl_fail_memory(error);
    walk->each = each;
    walk->context = context;
    enum fl_status status = fl_store_select(
        store, error, walk_row, walk, NULL,
        "SELECT " COLUMNS " FROM (SELECT * FROM versions WHERE version > 0 AND job = ? ORDER BY "
        "version DESC LIMIT ?) ORDER BY version",
        "ii", job, (int64_t)most);
    fl_free(walk);
    return status;
}

enum fl_status fl_registry_set_eval(struct fl_store *store, int64_t job, uint32_t version,
                                    double loss, uint64_t tokens, struct fl_error *error)
{
    if (version == 0)
        return fl_store_run(store, error,
                            "UPDATE jobs SET base_loss = ?, base_tokens = ? WHERE id = ?", "dii",
                            loss, (int64_t)tokens, job);
    return fl_store_run(
        store, error,
        "UPDATE versions SET eval_loss = ?, eval_tokens = ? WHERE job = ? AND version = ?", "diii",
        loss, (int64_t)tokens, job, (int64_t)version);
}

enum fl_status fl_registry_rollback(struct fl_store *store, const struct fl_job *job,
                                    uint32_t version, struct fl_error *error)
{
    struct fl_version *found = fl_calloc(1, sizeof *found);
    if (!found)
        return fl_fail_memory(error);
    enum fl_status status = fl_registry_get(store, job->id, version, found, error);
    fl_free(found);
    if (status != FL_OK)
        return status;
    if (job->state == FL_JOB_RUNNING)
        return fl_fail(error, FL_EBUSY, "job %lld is running; cancel it first", (long long)job->id);
    return fl_store_run(store, error, "UPDATE jobs SET current_version = ? WHERE id = ?", "ii",
                        (int64_t)version, job->id);
}

enum fl_status fl_registry_shape(const struct fl_inventory *targets, const struct fl_job_spec *spec,
                                 const uint16_t *ranks, struct fl_adapter **out,
                                 struct fl_error *error)
{
    *out = NULL;
    uint32_t *wide = fl_calloc(targets->count, sizeof *wide);
    if (!wide)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < targets->count; i++)
        wide[i] = ranks[i];
    enum fl_status status = fl_adapter_create(targets, (uint32_t)spec->ranks.fallback, spec->alpha,
                                              wide, out, error);
    fl_free(wide);
    if (status != FL_OK)
        return status;
    (*out)->dropout = spec->dropout;
    (void)snprintf((*out)->base_model, sizeof(*out)->base_model, "%s", spec->model);
    if (!spec->dora || fl_adapter_add_magnitudes(*out) == FL_OK)
        return FL_OK;
    fl_adapter_destroy(out);
    return fl_fail_memory(error);
}

enum fl_status fl_registry_read(const char *path, const struct fl_inventory *targets,
                                const struct fl_job_spec *spec, const uint16_t *ranks,
                                const uint8_t *sha256, struct fl_adapter **out,
                                struct fl_error *error)
{
    struct fl_mapping file = {NULL, 0};
    uint8_t actual[FL_HASH_BYTES];
    *out = NULL;
    enum fl_status status = fl_fs_map(path, &file, error);
    if (status != FL_OK)
        return status;
    fl_sha256(file.data, file.length, actual);
    if (sha256 && memcmp(actual, sha256, sizeof actual) != 0)
        status = fl_fail(error, FL_EFORMAT, "%s: damaged: its hash is not the recorded one", path);
    if (status == FL_OK)
        status = fl_registry_shape(targets, spec, ranks, out, error);
    if (status == FL_OK)
        status = fl_adapter_decode(*out, file.data, file.length, error);
    if (status != FL_OK)
        fl_adapter_destroy(out);
    fl_fs_unmap(&file);
    return status;
}
