/* client_results.c - what the work thread and finished downloads bring. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "worker/client_internal.h"
#include "worker/http_site.h"

bool fl_client_is_current(const struct fl_client *self, const struct fl_attempt *key)
{
    return self->key.job == key->job && self->key.round == key->round &&
           self->key.attempt == key->attempt;
}

/* What a failure means for the round: its code, and whether trying again could help. */
static enum fl_refusal refusal_of(enum fl_status status, bool *permanent)
{
    *permanent = false;
    switch (status) {
    case FL_ENOSPC:
    case FL_EIO:
        return FL_REFUSAL_DISK;
    case FL_ENOMEM:
        return FL_REFUSAL_MEMORY;
    case FL_EREFUSED:
        *permanent = true;
        return FL_REFUSAL_MEMORY;
    case FL_ENOTFOUND:
    case FL_EFORMAT:
        *permanent = true;
        return FL_REFUSAL_DATA;
    case FL_EINVAL:
        *permanent = true;
        return FL_REFUSAL_MODEL;
    case FL_ERANGE:
        return FL_REFUSAL_TRAINING;
    default:
        return FL_REFUSAL_INTERNAL;
    }
}

/*
 * The reason as it may leave the site: every other site hears it too when it ends the job. What an
 * error says of data, disk and a model that cannot be read names files, rows and columns, and a
 * path may stand in any of them; those words stay in the site's own log and status. Other errors of
 * "data" are of what the coordinator sent, and it is told which.
 */
static const char *reason_told(const struct fl_work_result *r, enum fl_refusal code)
{
    if (r->of_own_data && code == FL_REFUSAL_DATA)
        return "its data cannot be used as it is; its own log and `status` say why";
    if (r->of_own_data && code == FL_REFUSAL_MODEL && r->status != FL_EINVAL)
        return "its model cannot be read; its own log and `status` say why";
    if (r->kind <= FL_WORK_KEEP && code == FL_REFUSAL_DISK)
        return "reading or writing a file failed there; its own log and `status` say why";
    if (strchr(r->error.text, '/') != NULL)
        return "the reason names files there; its own log and `status` say it";
    return r->error.text;
}

#define RETRY_MS 30000

static bool same_offer(const struct fl_wire_offer *a, const struct fl_wire_offer *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static void fit_result(struct fl_client *self, struct fl_work_result *r)
{
    if (self->key.job != r->key.job || !self->allowed || !same_offer(&r->offer, &self->offer))
        return; /* of an offer that is over, or that the policy refused */
    memset(&self->answer, 0, sizeof(self->answer));
    self->fit_known = false;
    if (r->status == FL_OK) {
        self->answer.verdict = FL_VERDICT_FIT;
        self->answer.has_manifest = self->answer.has_inventory = true;
        memcpy(self->answer.manifest, r->fit.manifest, FL_HASH_BYTES);
        memcpy(self->answer.inventory.root, fl_object_root(r->object), FL_HASH_BYTES);
        self->answer.inventory.size = fl_object_size(r->object);
        self->start_bytes_max = r->start_bytes_max;
        self->fit_known = fl_shelf_put(self->shelf, &r->object) == FL_OK;
        self->fit_job = r->key.job;
        self->fit_offer = self->offer;
        fl_log(FL_LOG_INFO, "fit", "model and data are ready for the job",
               FL_U64("job", r->key.job), FL_U64("rows", r->fit.rows),
               FL_U64("truncated", r->fit.truncated),
               FL_U64("completions_cut", r->fit.completions_cut), FL_U64("dropped", r->fit.dropped),
               FL_U64("empty", r->fit.empty), FL_U64("bad", r->fit.bad),
               FL_U64("eval_rows", r->fit.eval_rows), FL_U64("memory_bytes", r->fit.memory_bytes));
    } else {
        bool permanent;
        self->answer.code = refusal_of(r->status, &permanent);
        if (r->code != FL_REFUSAL_NONE)
            self->answer.code = r->code;
        self->answer.verdict = permanent ? FL_VERDICT_PERMANENT : FL_VERDICT_TEMPORARY;
        self->answer.retry_after_ms = permanent ? 0 : RETRY_MS;
        fl_wire_set_text(self->answer.reason, sizeof(self->answer.reason),
                         reason_told(r, self->answer.code));
        fl_client_refused(self, self->answer.code, r->error.text);
    }
    if (self->stage == FL_STAGE_FITTING) {
        fl_client_event(self, FL_SESSION_FIT_DONE);
        fl_client_feed_pending(self);
    }
}

void fl_client_failed(struct fl_client *self, struct fl_work_result *r, enum fl_session_event event)
{
    bool permanent;
    memset(&self->failure, 0, sizeof(self->failure));
    self->failure.code = refusal_of(r->status, &permanent);
    if (r->code != FL_REFUSAL_NONE)
        self->failure.code = r->code;
    if (r->kind >= FL_WORK_KEYS ||
        (r->kind == FL_WORK_SEAL &&
         self->offer.secure_aggregation)) /* another cohort, or another try with this one, may do */
        permanent = false;
    self->failure.permanent = permanent;
    self->failure.retry_after_ms = permanent || r->status == FL_EBUSY ? 0 : RETRY_MS;
    fl_wire_set_text(self->failure.reason, sizeof(self->failure.reason),
                     reason_told(r, self->failure.code));
    self->failed = true;
    fl_client_refused(self, self->failure.code, r->error.text);
    fl_client_event(self, event);
}

static void log_training(struct fl_client *self, const struct fl_work_result *r)
{
    const struct fl_update_stats *s = &r->stats.stats;
    if (s->eval_tokens > 0) {
        self->eval_loss = s->eval_loss_sum / (double)s->eval_tokens;
        fl_log(FL_LOG_INFO, "evaluated", "held-out loss of the adapter that the round began with",
               FL_U64("job", r->key.job), FL_U64("round", r->key.round),
               FL_U64("version", self->task.version), FL_NUM("eval_loss", self->eval_loss),
               FL_U64("eval_tokens", s->eval_tokens));
        fl_http_site_evaluated(self->c.http, r->key.job, r->key.round, self->eval_loss);
    }
    if (s->train_tokens > 0) {
        fl_http_site_trained(self->c.http, r->key.job, r->key.round,
                             s->train_loss_sum / (double)s->train_tokens, r->stats.seconds,
                             r->reused);
        fl_log(FL_LOG_INFO, "trained", r->reused ? "the kept delta is used again" : "trained",
               FL_U64("job", r->key.job), FL_U64("round", r->key.round),
               FL_U64("steps", r->stats.steps),
               FL_NUM("loss", s->train_loss_sum / (double)s->train_tokens),
               FL_U64("scored_tokens", s->train_tokens), FL_NUM("seconds", r->stats.seconds),
               FL_U64("reused", r->reused));
    }
}

static void train_result(struct fl_client *self, struct fl_work_result *r)
{
    if (!fl_client_is_current(self, &r->key) || self->stage != FL_STAGE_TRAINING)
        return; /* of an attempt that is over; its delta is kept all the same */
    if (r->status == FL_ESTOPPED)
        return;
    if (r->status != FL_OK) {
        fl_client_failed(self, r, FL_SESSION_TRAIN_FAILED);
        return;
    }
    log_training(self, r);
    memset(&self->trained, 0, sizeof(self->trained));
    self->trained.steps = r->stats.steps;
    self->trained.seconds = r->stats.seconds;
    self->trained.share_eval = self->c.conf->share_eval && r->stats.stats.eval_tokens > 0;
    if (self->trained.share_eval) {
        self->trained.eval_loss_sum = r->stats.stats.eval_loss_sum;
        self->trained.eval_tokens = r->stats.stats.eval_tokens;
    }
    fl_client_event(self, FL_SESSION_TRAIN_DONE);
    fl_client_feed_pending(self);
}

/* In the audit log before the first byte can leave. */
static bool record_sent(struct fl_client *self, const struct fl_work_result *r, uint64_t bytes)
{
    struct fl_kept_sent *sent = fl_history_next(&self->history);
    sent->key = r->key;
    sent->bytes = bytes;
    sent->answered = false;
    sent->wall_ms = fl_clock_wall(self->c.clock);
    fl_hex(r->sha256, FL_HASH_BYTES, sent->sha256);
    const struct fl_field fields[] = {
        FL_U64("job", r->key.job),         FL_U64("round", r->key.round),
        FL_U64("attempt", r->key.attempt), FL_U64("bytes", bytes),
        FL_STR("sha256", sent->sha256),    {.kind = FL_FIELD_END}};
    if (fl_client_audit(self, "update_sent", fields) != FL_OK)
        return false;
    self->history.sent_count++;
    fl_log_fields(FL_LOG_INFO, "update_sent", "the sealed update is offered to the coordinator",
                  fields);
    return true;
}

static void seal_result(struct fl_client *self, struct fl_work_result *r)
{
    if (!fl_client_is_current(self, &r->key) || self->stage != FL_STAGE_SEALING)
        return;
    if (r->status != FL_OK) {
        fl_client_failed(self, r, FL_SESSION_SEAL_FAILED);
        return;
    }
    fl_client_keep_masked(self, FL_WIRE_UPLOAD, r);
    memcpy(self->update.root, fl_object_root(r->object), FL_HASH_BYTES);
    self->update.size = fl_object_size(r->object);
    if (r->cut > 0)
        fl_log(FL_LOG_WARN, "values_cut", "values beyond the update range were cut",
               FL_U64("cut", r->cut));
    if (!record_sent(self, r, self->update.size)) {
        r->status = fl_fail(&r->error, FL_EIO, "the audit log cannot be written");
        fl_client_failed(self, r, FL_SESSION_SEAL_FAILED);
        return;
    }
    if (fl_shelf_put(self->shelf, &r->object) != FL_OK)
        fl_log(FL_LOG_ERROR, "out_of_memory", "the update cannot be offered for lack of memory");
    fl_client_event(self, FL_SESSION_SEAL_DONE);
}

static void say_how_to_try(struct fl_client *self, const struct fl_work_result *r)
{
    char text[2 * FL_PATH_BYTES + 160];
    const char *model = fl_siteconf_model(self->c.conf, self->offer.model);
    snprintf(text, sizeof(text),
             "the job's final adapter; try it: fedlora-worker generate --model %s --adapter %s "
             "--prompt TEXT",
             model ? model : "MODEL", r->path);
    fl_log(FL_LOG_INFO, "adapter_final", text, FL_U64("job", r->key.job));
}

/* A new session says what is missing here; in the middle of a job the next version comes anyway. */
void fl_client_ask_again(struct fl_client *self)
{
    if (!self->unkept || self->keeping || self->stage != FL_STAGE_IDLE || !self->welcomed)
        return;
    self->unkept = false;
    fl_client_later(self, RETRY_MS);
}

static void record_kept(struct fl_client *self, const struct fl_work_result *r)
{
    char sha256[FL_HASH_HEX_BYTES];
    fl_hex(r->sha256, FL_HASH_BYTES, sha256);
    const struct fl_field fields[] = {FL_U64("job", r->key.job),
                                      FL_U64("version", r->version),
                                      FL_STR("sha256", sha256),
                                      {.kind = FL_FIELD_END}};
    (void)!fl_client_audit(self, "version_kept", fields);
}

static void keep_result(struct fl_client *self, struct fl_work_result *r)
{
    self->keeping--;
    if (r->status != FL_OK) {
        fl_log(FL_LOG_ERROR, "adapter_not_kept", r->error.text, FL_U64("job", r->key.job));
        self->handed_version = 0;
        if (r->status == FL_EIO || r->status == FL_ENOSPC || r->status == FL_ENOMEM)
            self->unkept = true;
        fl_client_ask_again(self);
        return;
    }
    self->newest_job = r->key.job;
    self->newest_version = r->version;
    self->history.job = r->key.job;
    self->history.version = r->version;
    memcpy(self->history.adapter, r->path, sizeof(self->history.adapter));
    self->status_dirty = true;
    record_kept(self, r);
    if (self->key.job == r->key.job)
        fl_client_remember(self, r->sha256, r->version);
    fl_log(FL_LOG_INFO, "adapter_kept", "the newest global adapter is here",
           FL_U64("job", r->key.job), FL_U64("version", r->version), FL_STR("path", r->path));
    if (r->last)
        say_how_to_try(self, r);
    fl_client_ask_again(self);
}

static void forget_result(struct fl_client *self, struct fl_work_result *r)
{
    (void)self;
    (void)r;
}

void fl_client_result(struct fl_client *self, struct fl_work_result *result)
{
    static void (*const kinds[])(struct fl_client *, struct fl_work_result *) = {
        [FL_WORK_FIT] = fit_result,
        [FL_WORK_TRAIN] = train_result,
        [FL_WORK_SEAL] = seal_result,
        [FL_WORK_KEEP] = keep_result,
        [FL_WORK_KEYS] = fl_client_mask_result,
        [FL_WORK_COHORT] = fl_client_mask_result,
        [FL_WORK_SURVIVORS] = fl_client_mask_result,
        [FL_WORK_UNMASK] = fl_client_mask_result,
        [FL_WORK_FORGET] = forget_result,
    };
    kinds[result->kind](self, result);
    fl_work_result_free(result);
}

/* ---- finished downloads ---- */

static uint8_t *copy_bytes(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = fl_malloc(length);
    if (copy && length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

static void version_fetched(struct fl_client *self, struct fl_incoming *in, const uint8_t *bytes,
                            size_t length)
{
    if (!self->allowed)
        return;
    struct fl_work *work = fl_work_new(FL_WORK_KEEP, in->key);
    if (!work)
        return;
    work->offer = self->offer;
    work->bytes = copy_bytes(bytes, length);
    work->length = length;
    work->ranks = in->ranks;
    work->version = in->version;
    in->ranks = NULL; /* now the work's */
    if (work->bytes) {
        self->keeping++;
        self->handed_job = work->key.job;
        self->handed_version = work->version.version;
        fl_compute_submit(self->c.compute, work);
    } else
        fl_work_free(work);
}

void fl_client_fetched(struct fl_client *self, struct fl_incoming *in)
{
    size_t length = 0;
    const uint8_t *bytes = fl_fetch_data(in->fetch, &length);
    if (in == &self->version_in) {
        version_fetched(self, in, bytes, length);
        fl_client_incoming_close(in);
        return;
    }
    uint8_t *copy = copy_bytes(bytes, length);
    if (copy) {
        fl_free(self->start);
        self->start = copy;
        self->start_length = length;
        memcpy(self->start_root, fl_fetch_root(in->fetch), FL_HASH_BYTES);
    }
    fl_client_incoming_close(in);
    if (copy)
        fl_client_event(self, FL_SESSION_START_HERE);
}
