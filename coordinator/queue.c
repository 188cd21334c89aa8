/* queue.c - see queue.h. */
#include "coordinator/queue.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/list.h"

static const char *const state_names[FL_JOB_STATE_COUNT] = {"queued", "running",   "done",
                                                            "failed", "cancelled", "paused"};

const char *fl_job_state_name(enum fl_job_state state)
{
    return state < FL_JOB_STATE_COUNT ? state_names[state] : "unknown";
}

bool fl_job_state_ended(enum fl_job_state state)
{
    return state == FL_JOB_DONE || state == FL_JOB_FAILED || state == FL_JOB_CANCELLED;
}

#define JOB_COLUMNS                                                                                \
    "id, name, state, reason, round, attempt, breaks, phase, sha256, sealing_public, "             \
    "current_version, base_loss, base_tokens, created_ms, ended_ms"

static enum fl_status read_job(void *context, const struct fl_row *row)
{
    struct fl_job *out = context;
    *out = (struct fl_job){.id = fl_row_i64(row, 0),
                           .state = (enum fl_job_state)fl_row_i64(row, 2),
                           .round = (uint32_t)fl_row_i64(row, 4),
                           .attempt = (uint32_t)fl_row_i64(row, 5),
                           .breaks = (uint32_t)fl_row_i64(row, 6),
                           .phase = (enum fl_round_state)fl_row_i64(row, 7),
                           .has_current = !fl_row_is_null(row, 10),
                           .current = (uint32_t)fl_row_i64(row, 10),
                           .base_loss = fl_row_double(row, 11),
                           .base_tokens = (uint64_t)fl_row_i64(row, 12),
                           .created_ms = fl_row_i64(row, 13),
                           .ended_ms = fl_row_i64(row, 14)};
    fl_row_copy_text(row, 1, out->name, sizeof out->name);
    fl_row_copy_text(row, 3, out->reason, sizeof out->reason);
    enum fl_status status = fl_row_copy_blob(row, 8, out->sha256, sizeof out->sha256);
    if (status == FL_OK)
        status = fl_row_copy_blob(row, 9, out->sealing_key, sizeof out->sealing_key);
    if (out->state >= FL_JOB_STATE_COUNT || out->phase >= FL_ROUND_STATE_COUNT)
        return FL_EFORMAT;
    return status;
}

static enum fl_status append_job(void *context, const struct fl_row *row)
{
    struct fl_job job;
    enum fl_status status = read_job(&job, row);
    return status == FL_OK ? fl_list_append(context, &job) : status;
}

enum fl_status fl_queue_get(struct fl_store *store, int64_t id, struct fl_job *out,
                            struct fl_error *error)
{
    uint64_t rows = 0;
    enum fl_status status;
    if (id == 0)
        status = fl_store_select(store, error, read_job, out, &rows,
                                 "SELECT " JOB_COLUMNS " FROM jobs ORDER BY id DESC LIMIT 1", "");
    else
        status = fl_store_select(store, error, read_job, out, &rows,
                                 "SELECT " JOB_COLUMNS " FROM jobs WHERE id = ?", "i", id);
    if (status == FL_OK && rows == 0 && id == 0)
        return fl_fail(error, FL_ENOTFOUND, "no job was submitted yet");
    if (status == FL_OK && rows == 0)
        return fl_fail(error, FL_ENOTFOUND, "no job %lld", (long long)id);
    return status;
}

enum fl_status fl_queue_list(struct fl_store *store, struct fl_job **out, uint32_t *count,
                             struct fl_error *error)
{
    struct fl_list list = {.item_bytes = sizeof(struct fl_job)};
    enum fl_status status = fl_store_select(
        store, error, append_job, &list, NULL,
        "SELECT " JOB_COLUMNS " FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT 1000) ORDER BY id",
        "");
    return fl_list_take(&list, status, (void **)out, count);
}

enum fl_status fl_queue_next(struct fl_store *store, struct fl_job *out, struct fl_error *error)
{
    uint64_t rows = 0;
    enum fl_status status = fl_store_select(store, error, read_job, out, &rows,
                                            "SELECT " JOB_COLUMNS
                                            " FROM jobs WHERE state IN (0, 1) "
                                            "ORDER BY state DESC, id LIMIT 1",
                                            "");
    if (status == FL_OK && rows == 0)
        return fl_fail(error, FL_ENOTFOUND, "no job is queued");
    return status;
}

/* ---- submission ---- */

static enum fl_status key_path(const struct fl_store *store, int64_t id, char *path,
                               struct fl_error *error)
{
    return fl_store_path(store, path, error, "jobs/%lld.key", (long long)id);
}

static enum fl_status insert_job(struct fl_store *store, const struct fl_job_spec *spec,
                                 const struct fl_buf *text, const uint8_t *public_key,
                                 int64_t wall_ms, struct fl_error *error)
{
    uint8_t sha256[FL_HASH_BYTES];
    fl_sha256(text->data, text->length, sha256);
    return fl_store_run(store, error,
                        "INSERT INTO jobs(name, spec, sha256, state, sealing_public, created_ms) "
                        "VALUES(?,?,?,0,?,?)",
                        "ssbbi", spec->name, fl_buf_text(text), sha256, sizeof sha256, public_key,
                        (size_t)FL_KEY_BYTES, wall_ms);
}

static enum fl_status save_key(struct fl_store *store, int64_t id, const struct fl_box_keys *keys,
                               struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = key_path(store, id, path, error);
    if (status == FL_OK)
        status = fl_store_make_parent(path, error);
    if (status == FL_OK) /* of a submission that was never committed */
        status = fl_store_remove(path, error);
    return status == FL_OK ? fl_box_keys_save(keys, path, error) : status;
}

enum fl_status fl_queue_submit(struct fl_store *store, const struct fl_job_spec *spec,
                               int64_t wall_ms, int64_t *id, struct fl_error *error)
{
    struct fl_box_keys *keys = NULL;
    struct fl_buf text;
    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    *id = 0;
    enum fl_status status = fl_job_print(spec, &text);
    if (status != FL_OK) {
        (void)fl_fail(error, status, "the job is too long");
        goto out;
    }
    status = fl_box_keys_generate(fl_entropy_system(), &keys);
    if (status != FL_OK) {
        (void)fl_fail_memory(error);
        goto out;
    }
    status = fl_store_begin(store, error);
    if (status != FL_OK)
        goto out;
    status = insert_job(store, spec, &text, fl_box_keys_public(keys), wall_ms, error);
    if (status == FL_OK) {
        *id = fl_store_last_id(store);
        status = save_key(store, *id, keys, error);
    }
    if (status == FL_OK)
        status = fl_store_commit(store, error);
    else
        fl_store_rollback(store);
out:
    fl_box_keys_destroy(&keys);
    fl_buf_free(&text);
    return status;
}

static enum fl_status read_text(void *context, const struct fl_row *row)
{
    const char *text = fl_row_text(row, 0);
    fl_buf_append(context, text, strlen(text));
    return fl_buf_status(context);
}

enum fl_status fl_queue_text(struct fl_store *store, int64_t id, struct fl_buf *out,
                             struct fl_error *error)
{
    uint64_t rows = 0;
    fl_buf_init(out, FL_JOB_TEXT_MAX);
    enum fl_status status = fl_store_select(store, error, read_text, out, &rows,
                                            "SELECT spec FROM jobs WHERE id = ?", "i", id);
    if (status == FL_OK && rows == 0)
        return fl_fail(error, FL_ENOTFOUND, "no job %lld", (long long)id);
    return status;
}

enum fl_status fl_queue_spec(struct fl_store *store, int64_t id, struct fl_job_spec **out,
                             struct fl_error *error)
{
    struct fl_buf text;
    *out = NULL;
    enum fl_status status = fl_queue_text(store, id, &text, error);
    if (status == FL_OK) {
        *out = fl_calloc(1, sizeof **out);
        status = *out ? fl_job_parse(fl_buf_text(&text), text.length, "job", *out, error)
                      : fl_fail_memory(error);
    }
    if (status != FL_OK) {
        fl_free(*out);
        *out = NULL;
    }
    fl_buf_free(&text);
    return status;
}

enum fl_status fl_queue_keys(struct fl_store *store, int64_t id, struct fl_box_keys **out,
                             struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *out = NULL;
    enum fl_status status = key_path(store, id, path, error);
    return status == FL_OK ? fl_box_keys_load(path, out, error) : status;
}

/* ---- the end ---- */

enum fl_status fl_queue_set_state(struct fl_store *store, int64_t id, enum fl_job_state state,
                                  const char *reason, int64_t wall_ms, struct fl_error *error)
{
    return fl_store_run(
        store, error, "UPDATE jobs SET state = ?, reason = ?, ended_ms = ? WHERE id = ?", "isii",
        (int64_t)state, reason, fl_job_state_ended(state) ? wall_ms : (int64_t)0, id);
}

enum fl_status fl_queue_clean(struct fl_store *store, int64_t id, struct fl_error *error)
{
    static const char *const names[] = {"spool/%lld", "rounds/%lld", "jobs/%lld.key"};
    enum fl_status first = FL_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[FL_PATH_BYTES], name[64];
        int length = snprintf(name, sizeof name, "%.*s%lld%s",
                              (int)(strchr(names[i], '%') - names[i]), names[i], (long long)id,
                              i == 2 ? ".key" : "");
        assert(length > 0 && (size_t)length < sizeof name);
        enum fl_status status = fl_store_path(store, path, error, "%s", name);
        if (status == FL_OK)
            status = fl_store_remove(path, error);
        if (first == FL_OK)
            first = status;
    }
    return first;
}

/* ---- the inventory ---- */

enum fl_status fl_queue_set_inventory(struct fl_store *store, int64_t id,
                                      const uint8_t root[FL_HASH_BYTES], const void *bytes,
                                      size_t length, struct fl_error *error)
{
    return fl_store_run(store, error,
                        "UPDATE jobs SET inventory = ?, inventory_root = ? "
                        "WHERE id = ? AND inventory IS NULL",
                        "bbi", bytes, length, root, (size_t)FL_HASH_BYTES, id);
}

struct inventory_row {
    uint8_t *root;
    struct fl_inventory *out;
    struct fl_error *error;
    bool found;
};

static enum fl_status read_inventory(void *context, const struct fl_row *row)
{
    struct inventory_row *want = context;
    size_t length;
    const void *bytes = fl_row_blob(row, 0, &length);
    enum fl_status status = FL_OK;
    want->found = true;
    if (want->root)
        status = fl_row_copy_blob(row, 1, want->root, FL_HASH_BYTES);
    if (status == FL_OK && want->out)
        status = fl_inventory_decode(bytes, length, want->out, want->error);
    return status;
}

enum fl_status fl_queue_inventory(struct fl_store *store, int64_t id, uint8_t root[FL_HASH_BYTES],
                                  struct fl_inventory *out, struct fl_error *error)
{
    struct inventory_row want = {.root = root, .out = out, .error = error};
    enum fl_status status = fl_store_select(
        store, error, read_inventory, &want, NULL,
        "SELECT inventory, inventory_root FROM jobs WHERE id = ? AND inventory IS NOT NULL", "i",
        id);
    if (status == FL_OK && !want.found)
        return fl_fail(error, FL_ENOTFOUND,
                       "job %lld has no adapter yet: no site has told what its model holds",
                       (long long)id);
    return status;
}

/* ---- attempts ---- */

void fl_attempt_row_free(struct fl_attempt_row *self)
{
    fl_rank_plan_free(&self->plan);
}

/* u32 sites, u32 modules, global ranks, then each site's; u16 in this machine's order */
static enum fl_status encode_plan(const struct fl_rank_plan *plan, struct fl_buf *out)
{
    fl_buf_u32(out, plan->sites);
    fl_buf_u32(out, plan->modules);
    fl_buf_append(out, plan->global, plan->modules * sizeof plan->global[0]);
    fl_buf_append(out, plan->ranks, (size_t)plan->sites * plan->modules * sizeof plan->ranks[0]);
    return fl_buf_status(out);
}

static enum fl_status decode_plan(const uint8_t *bytes, size_t length, struct fl_rank_plan *out)
{
    if (!bytes || length < 8)
        return FL_EFORMAT;
    enum fl_status status = fl_rank_plan_create(out, fl_load_u32(bytes), fl_load_u32(bytes + 4));
    if (status != FL_OK)
        return status;
    size_t global = out->modules * sizeof out->global[0], ranks = out->sites * global;
    if (length != 8 + global + ranks) {
        fl_rank_plan_free(out);
        return FL_EFORMAT;
    }
    memcpy(out->global, bytes + 8, global);
    memcpy(out->ranks, bytes + 8 + global, ranks);
    return FL_OK;
}

enum fl_status fl_queue_set_attempt(struct fl_store *store, int64_t id, uint32_t round,
                                    uint32_t attempt, const struct fl_attempt_row *value,
                                    struct fl_error *error)
{
    struct fl_buf plan;
    fl_buf_init(&plan, 64u << 20);
    enum fl_status status = encode_plan(&value->plan, &plan);
    if (status != FL_OK)
        (void)fl_fail(error, status, "the rank plan is too large");
    else
        status = fl_store_run(
            store, error,
            "INSERT OR REPLACE INTO attempts(job, round, attempt, plan, start_root, start_bytes, "
            "version_hash, range_a, range_b, range_m) VALUES(?,?,?,?,?,?,?,?,?,?)",
            "iiibbibddd", id, (int64_t)round, (int64_t)attempt, plan.data, plan.length,
            value->start_root, (size_t)FL_HASH_BYTES, (int64_t)value->start_bytes,
            value->version_hash, (size_t)FL_HASH_BYTES, value->ranges.a, value->ranges.b,
            value->ranges.m);
    fl_buf_free(&plan);
    return status;
}

static enum fl_status read_attempt(void *context, const struct fl_row *row)
{
    struct fl_attempt_row *out = context;
    size_t length;
    const void *plan = fl_row_blob(row, 0, &length);
    out->start_bytes = (uint64_t)fl_row_i64(row, 2);
    out->ranges = (struct fl_ranges){
        .a = fl_row_double(row, 4), .b = fl_row_double(row, 5), .m = fl_row_double(row, 6)};
    enum fl_status status = fl_row_copy_blob(row, 1, out->start_root, FL_HASH_BYTES);
    if (status == FL_OK)
        status = fl_row_copy_blob(row, 3, out->version_hash, FL_HASH_BYTES);
    return status == FL_OK ? decode_plan(plan, length, &out->plan) : status;
}

enum fl_status fl_queue_attempt(struct fl_store *store, int64_t id, uint32_t round,
                                uint32_t attempt, struct fl_attempt_row *out,
                                struct fl_error *error)
{
    uint64_t rows = 0;
    memset(out, 0, sizeof *out);
    enum fl_status status =
        fl_store_select(store, error, read_attempt, out, &rows,
                        "SELECT plan, start_root, start_bytes, version_hash, range_a, range_b, "
                        "range_m FROM attempts WHERE job = ? AND round = ? AND attempt = ?",
                        "iii", id, (int64_t)round, (int64_t)attempt);
    if (status == FL_OK && rows == 0)
        return fl_fail(error, FL_ENOTFOUND, "attempt %u of round %u is not configured", attempt,
                       round);
    return status;
}

enum fl_status fl_queue_note_trained(struct fl_store *store, int64_t id, uint32_t round,
                                     uint32_t attempt, uint32_t site,
                                     const struct fl_wire_trained *trained, struct fl_error *error)
{
    double loss = trained->share_eval ? trained->eval_loss_sum : (double)NAN;
    int64_t tokens = trained->share_eval ? (int64_t)trained->eval_tokens : 0;
    return fl_store_run(store, error,
                        "UPDATE members SET steps = ?, seconds = ?, eval_loss_sum = ?, "
                        "eval_tokens = ? WHERE job = ? AND round = ? AND attempt = ? AND site = ?",
                        "iddiiiii", (int64_t)trained->steps, trained->seconds, loss, tokens, id,
                        (int64_t)round, (int64_t)attempt, (int64_t)site);
}

/* ---- refusals ---- */

enum fl_status fl_queue_refuse(struct fl_store *store, int64_t id, const struct fl_refusal_row *row,
                               int64_t wall_ms, struct fl_error *error)
{
    return fl_store_run(store, error,
                        "INSERT OR REPLACE INTO refusals(job, site, code, permanent, reason, at_ms)"
                        " VALUES(?,?,?,?,?,?)",
                        "iiiisi", id, (int64_t)row->site, (int64_t)row->code,
                        (int64_t)row->permanent, row->reason, wall_ms);
}

enum fl_status fl_queue_unrefuse(struct fl_store *store, int64_t id, uint32_t site,
                                 struct fl_error *error)
{
    return fl_store_run(store, error, "DELETE FROM refusals WHERE job = ? AND site = ?", "ii", id,
                        (int64_t)site);
}

static enum fl_status append_refusal(void *context, const struct fl_row *row)
{
    struct fl_refusal_row refusal = {.site = (uint32_t)fl_row_i64(row, 0),
                                     .code = (enum fl_refusal)fl_row_i64(row, 2),
                                     .permanent = fl_row_i64(row, 3) != 0};
    fl_row_copy_text(row, 1, refusal.worker, sizeof refusal.worker);
    fl_row_copy_text(row, 4, refusal.reason, sizeof refusal.reason);
    return fl_list_append(context, &refusal);
}

enum fl_status fl_queue_refusals(struct fl_store *store, int64_t id, struct fl_refusal_row **out,
                                 uint32_t *count, struct fl_error *error)
{
    struct fl_list list = {.item_bytes = sizeof(struct fl_refusal_row)};
    enum fl_status status =
        fl_store_select(store, error, append_refusal, &list, NULL,
                        "SELECT r.site, s.name, r.code, r.permanent, r.reason FROM refusals r "
                        "JOIN sites s ON s.id = r.site WHERE r.job = ? ORDER BY s.name",
                        "i", id);
    return fl_list_take(&list, status, (void **)out, count);
}
