/* messages.c - what the coordinator says to sites about the running job. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/server_internal.h"
#include "job/offer.h"

struct fl_wire fl_send_about(const struct fl_server *self, enum fl_wire_kind kind)
{
    return (struct fl_wire){.kind = kind,
                            .job = (uint64_t)self->job.id,
                            .round = self->round->round,
                            .attempt = self->round->attempt};
}

static struct fl_told this_attempt(const struct fl_server *self)
{
    return (struct fl_told){self->job.id, self->round->round, self->round->attempt};
}

static bool was_told(const struct fl_server *self, const struct fl_told *told)
{
    struct fl_told now = this_attempt(self);
    return told->job == now.job && told->round == now.round && told->attempt == now.attempt;
}

void fl_send_fill_offer(const struct fl_server *self, const char *name, struct fl_wire_offer *offer)
{
    fl_job_offer(self->facts->spec, self->job.sha256, name, offer);
    offer->retraining = self->round->retraining;
}

static void send_offer(struct fl_server *self, struct fl_seat *seat)
{
    seat->offered = this_attempt(self);
    seat->fresh = false;
    struct fl_wire message = fl_send_about(self, FL_WIRE_OFFER);
    fl_send_fill_offer(self, seat->name, &message.as.offer);
    fl_seat_send(self, seat, &message);
}

void fl_send_store_ranks(const uint16_t *ranks, uint32_t count, uint8_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        out[2 * i] = (uint8_t)(ranks[i] & 0xff);
        out[2 * i + 1] = (uint8_t)(ranks[i] >> 8);
    }
}

uint32_t fl_send_plan_row(const struct fl_round *round, uint32_t site)
{
    uint32_t row = 0;
    for (uint32_t i = 0; i < round->count; i++)
        row += round->members[i].cohort && round->members[i].site < site;
    return row;
}

void fl_send_fill_task(const struct fl_server *self, struct fl_wire_task *task)
{
    const struct fl_job_spec *spec = self->facts->spec;
    uint32_t round = self->round->round;
    bool only = fl_round_only_evaluates(self->round);
    enum fl_factors factors = only ? FL_FACTORS_NONE
                                   : fl_strategy_factors((enum fl_strategy)spec->strategy, round);
    memcpy(task->start.root, self->attempt.start_root, FL_HASH_BYTES);
    task->start.size = self->attempt.start_bytes;
    task->version = round - 1;
    memcpy(task->version_hash, self->attempt.version_hash, FL_HASH_BYTES);
    task->train_a = (factors & FL_FACTOR_A) != 0;
    task->train_b = (factors & FL_FACTOR_B) != 0;
    task->train = !only;
    /* measured once: a second sum of the same numbers without a site would show that site's */
    task->evaluate = spec->eval_every > 0 && self->round->retraining == 0 &&
                     (only || (round - 1) % spec->eval_every == 0);
    task->total_steps = spec->rounds * spec->steps;
    task->first_step = only ? task->total_steps : (round - 1) * spec->steps;
}

void fl_send_task(struct fl_server *self, struct fl_seat *seat)
{
    const struct fl_rank_plan *plan = &self->attempt.plan;
    uint32_t row = fl_send_plan_row(self->round, seat->site);
    if (!self->has_attempt || row >= plan->sites)
        return;
    if (!was_told(self, &seat->offered))
        send_offer(self, seat);
    seat->tasked = this_attempt(self);
    size_t bytes = 2 * (size_t)plan->modules;
    uint8_t *ranks = fl_malloc(2 * bytes);
    if (!ranks) {
        seat->owed = true;
        return;
    }
    fl_send_store_ranks(plan->global, plan->modules, ranks);
    fl_send_store_ranks(plan->ranks + (size_t)row * plan->modules, plan->modules, ranks + bytes);
    struct fl_wire message = fl_send_about(self, FL_WIRE_TASK);
    fl_send_fill_task(self, &message.as.task);
    message.as.task.global_ranks = (struct fl_wire_bytes){ranks, bytes};
    message.as.task.site_ranks = (struct fl_wire_bytes){ranks + bytes, bytes};
    fl_seat_send(self, seat, &message);
    fl_free(ranks);
}

static void send_collect(struct fl_server *self, struct fl_seat *seat)
{
    if (!self->stage)
        return;
    uint32_t position = fl_stage_position(self->stage, seat->site);
    if (position == UINT32_MAX)
        return;
    if (!was_told(self, &seat->tasked))
        fl_send_task(self, seat);
    struct fl_wire message = fl_send_about(self, FL_WIRE_COLLECT);
    message.as.collect.cohort = self->stage->count;
    message.as.collect.tiers = (struct fl_wire_bytes){
        fl_layout_site_tiers(self->stage->layout, position), self->stage->layout->tier_count};
    memcpy(message.as.collect.sealing_key, self->job.sealing_key,
           sizeof message.as.collect.sealing_key);
    if (self->round->rules.secure) {
        struct fl_error error;
        if (fl_masks_fill_collect(self, seat, &message.as.collect, &error) != FL_OK) {
            fl_log(FL_LOG_ERROR, "collect_failed", error.text);
            seat->owed = true;
            return;
        }
    }
    fl_seat_send(self, seat, &message);
}

void fl_send_receipt(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *about,
                     enum fl_receipt status, const char *reason)
{
    struct fl_wire message = {.kind = FL_WIRE_RECEIPT,
                              .job = about->job,
                              .round = about->round,
                              .attempt = about->attempt};
    message.as.receipt.status = status;
    fl_wire_set_text(message.as.receipt.reason, sizeof message.as.receipt.reason, reason);
    fl_seat_send(self, seat, &message);
}

bool fl_send_is_midway(const struct fl_server *self, const struct fl_seat *seat)
{
    const struct fl_member *m = self->job.id ? fl_round_find(self->round, seat->site) : NULL;
    if (!m || !m->cohort || m->failed || m->revoked)
        return false;
    if (self->round->state == FL_ROUND_UNMASK)
        return m->uploaded && !m->answered;
    return !m->uploaded && self->round->state >= FL_ROUND_TRAIN &&
           self->round->state <= FL_ROUND_COLLECT;
}

void fl_send_due(struct fl_server *self, struct fl_seat *seat)
{
    if (!self->job.id || !seat->live)
        return;
    if (seat->fresh && fl_send_is_midway(self, seat))
        send_offer(self, seat); /* its process may be a new one that knows nothing */
    struct fl_wire about = fl_send_about(self, FL_WIRE_RECEIPT);
    switch (fl_round_due(self->round, seat->site)) {
    case FL_DUE_OFFER:
        send_offer(self, seat);
        break;
    case FL_DUE_TASK:
        fl_send_task(self, seat);
        break;
    case FL_DUE_KEYS:
        about.kind = FL_WIRE_KEYS;
        fl_seat_send(self, seat, &about);
        break;
    case FL_DUE_COHORT:
        fl_masks_send_cohort(self, seat);
        break;
    case FL_DUE_COLLECT:
        send_collect(self, seat);
        break;
    case FL_DUE_SURVIVORS:
        fl_masks_send_survivors(self, seat);
        break;
    case FL_DUE_UNMASK:
        fl_masks_send_unmask(self, seat);
        break;
    case FL_DUE_RECEIPT:
        fl_send_receipt(self, seat, &about, FL_RECEIPT_ACCEPTED, "");
        break;
    case FL_DUE_NOTHING:
        break;
    }
}

/* ---- versions and the end ---- */

/* The loss that stands for a version: of the version before it, which this round measured. */
static void fill_eval(struct fl_server *self, const struct fl_version *version,
                      struct fl_wire_version *out)
{
    struct fl_error error;
    double loss = self->job.base_loss;
    uint64_t tokens = self->job.base_tokens;
    if (version->version > 1) {
        struct fl_version *before = fl_calloc(1, sizeof *before);
        loss = (double)NAN;
        if (before && fl_registry_get(self->desk->store, version->job, version->version - 1, before,
                                      &error) == FL_OK) {
            loss = before->eval_loss;
            tokens = before->eval_tokens;
        }
        fl_free(before);
    }
    out->has_eval = isfinite(loss) && tokens > 0;
    out->eval_loss = out->has_eval ? loss : 0.0;
    out->eval_tokens = out->has_eval ? tokens : 0;
}

void fl_send_later(struct fl_server *self, struct fl_seat *seat, int64_t job)
{
    seat->missed_job = (uint64_t)job;
    seat->retry_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
}

/* The object must be on the shelf before it is announced. */
static enum fl_status shelve_version(struct fl_server *self, const struct fl_version *version)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_object *object = NULL;
    if (fl_shelf_find(self->shelf, version->root))
        return FL_OK;
    enum fl_status status = fl_registry_path(self->desk->store, version->job, version->version,
                                             path, &error);
    if (status == FL_OK)
        status = fl_object_open_file(path, &object, &error);
    if (status == FL_OK)
        status = fl_shelf_put(self->shelf, &object);
    fl_object_close(&object);
    if (status != FL_OK)
        fl_log(FL_LOG_ERROR, "version_unreadable", error.text);
    return status;
}

void fl_send_version(struct fl_server *self, struct fl_seat *seat, const struct fl_version *version)
{
    struct fl_error error;
    struct fl_job_spec *spec = NULL;
    uint8_t *ranks = fl_malloc(2 * (size_t)version->rank_count);
    enum fl_status status = ranks ? shelve_version(self, version) : FL_ENOMEM;
    if (status != FL_OK) {
        if (fl_server_is_storage(status))
            fl_send_later(self, seat, version->job);
        fl_free(ranks);
        return;
    }
    fl_send_store_ranks(version->ranks, version->rank_count, ranks);
    struct fl_wire message = {.kind = FL_WIRE_VERSION,
                              .job = (uint64_t)version->job,
                              .round = version->round,
                              .attempt = 1};
    struct fl_wire_version *out = &message.as.version;
    out->version = version->version;
    memcpy(out->adapter.root, version->root, FL_HASH_BYTES);
    out->adapter.size = version->bytes;
    memcpy(out->sha256, version->sha256, FL_HASH_BYTES);
    out->ranks = (struct fl_wire_bytes){ranks, 2 * (size_t)version->rank_count};
    out->workers = version->workers;
    fill_eval(self, version, out);
    if (fl_queue_spec(self->desk->store, version->job, &spec, &error) == FL_OK)
        out->last = version->version == spec->rounds;
    fl_seat_send(self, seat, &message);
    fl_free(spec);
    fl_free(ranks);
}

void fl_send_version_to_all(struct fl_server *self, const struct fl_version *version)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        struct fl_seat *seat = self->seats[i];
        const struct fl_member *m = fl_round_find(self->round, seat->site);
        if (seat->live && m && m->answer != FL_ANSWER_REFUSED)
            fl_send_version(self, seat, version);
    }
}

static enum fl_wire_job_end end_of(enum fl_job_state state)
{
    if (state == FL_JOB_DONE)
        return FL_JOB_END_DONE;
    return state == FL_JOB_CANCELLED ? FL_JOB_END_CANCELLED : FL_JOB_END_FAILED;
}

/* *out: NULL if there is none yet. */
static enum fl_status newest_version(struct fl_server *self, int64_t job, struct fl_version **out,
                                     struct fl_error *error)
{
    *out = fl_calloc(1, sizeof **out);
    enum fl_status status = *out ? fl_registry_newest(self->desk->store, job, *out, error)
                                 : fl_fail_memory(error);
    if (status != FL_OK) {
        fl_free(*out);
        *out = NULL;
    }
    return status == FL_ENOTFOUND ? FL_OK : status;
}

void fl_send_job_end(struct fl_server *self, struct fl_seat *seat, const struct fl_job *job)
{
    struct fl_error error;
    struct fl_version *newest;
    if (newest_version(self, job->id, &newest, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "store_failed", error.text);
        fl_send_later(self, seat, job->id);
        return;
    }
    struct fl_wire message = {.kind = FL_WIRE_JOB_END,
                              .job = (uint64_t)job->id,
                              .round = job->round,
                              .attempt = job->attempt};
    message.as.job_end.state = end_of(job->state);
    message.as.job_end.version = newest ? newest->version : 0;
    fl_wire_set_text(message.as.job_end.reason, sizeof message.as.job_end.reason, job->reason);
    fl_seat_send(self, seat, &message);
    fl_free(newest);
}

void fl_send_missed(struct fl_server *self, struct fl_seat *seat, const struct fl_wire_hello *hello)
{
    struct fl_error error;
    struct fl_job job;
    struct fl_version *newest = NULL;
    if (hello->last_job == 0 || hello->last_job > INT64_MAX)
        return;
    enum fl_status status = fl_queue_get(self->desk->store, (int64_t)hello->last_job, &job, &error);
    if (status == FL_OK)
        status = newest_version(self, job.id, &newest, &error);
    if (fl_server_is_storage(status)) {
        fl_log(FL_LOG_ERROR, "store_failed", error.text);
        fl_send_later(self, seat, (int64_t)hello->last_job);
    }
    if (status != FL_OK)
        return;
    if (self->job.id == job.id && fl_send_is_midway(self, seat) &&
        !fl_round_only_evaluates(self->round)) {
        fl_free(newest);
        return; /* the task holds all that it needs; the next version is on its way */
    }
    if (newest && (!hello->has_last_version ||
                   memcmp(hello->last_version, newest->sha256, FL_HASH_BYTES) != 0))
        fl_send_version(self, seat, newest);
    fl_free(newest);
    if (job.state == FL_JOB_DONE || job.state == FL_JOB_FAILED || job.state == FL_JOB_CANCELLED)
        fl_send_job_end(self, seat, &job);
}
