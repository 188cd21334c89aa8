/*
 * client_messages.c - frames become session events, and actions become frames and work. Anything a
 * coordinator sends may come twice, late or out of order; what does not belong to the current
 * (job, round, attempt) is dropped.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "crypto/prg.h"
#include "job/offer.h"
#include "net/bulk.h"
#include "worker/client_internal.h"
#include "worker/policy.h"

#define FETCH_PROGRESS_MS 60000
/* of a version that comes before this process has checked the job's model */
#define RECALLED_BYTES_MAX (256ull << 20)
#define KEEPING_MAX        4 /* versions handed to the work thread and not written yet */

bool fl_client_same_key(const struct fl_attempt *a, const struct fl_wire *m)
{
    return a->job == m->job && a->round == m->round && a->attempt == m->attempt;
}

struct fl_wire fl_client_reply(const struct fl_client *self, enum fl_wire_kind kind)
{
    struct fl_wire out = {.kind = kind};
    out.job = self->key.job;
    out.round = self->key.round;
    out.attempt = self->key.attempt;
    return out;
}

/* ---- incoming bulk objects ---- */

void fl_client_incoming_close(struct fl_incoming *self)
{
    if (self->fetch)
        fl_fetch_close(&self->fetch);
    fl_free(self->ranks);
    memset(self, 0, sizeof(*self));
}

static void send_need(struct fl_client *self, const struct fl_chunk_message *m)
{
    struct fl_wire need = {.job = 0};
    fl_bulk_to_wire(m, &need);
    (void)!fl_client_send(self, &need); /* a lost one is asked for again */
}

void fl_client_step_fetch(struct fl_client *self, struct fl_incoming *in, enum fl_fetch_event event,
                          const struct fl_chunk_message *message)
{
    if (!in->fetch)
        return;
    struct fl_fetch_effects effects = {.count = 0};
    enum fl_fetch_state state = fl_fetch_step(in->fetch, event, message, fl_client_now(self),
                                              &effects);
    for (size_t i = 0; i < effects.count && self->welcomed; i++)
        send_need(self, &effects.messages[i]);
    if (state == FL_FETCH_FAILED) {
        fl_log(FL_LOG_WARN, "fetch_failed", fl_fetch_error(in->fetch)->text);
        fl_client_incoming_close(in); /* the next TASK or VERSION begins it anew */
    } else if (state == FL_FETCH_DONE) {
        fl_client_fetched(self, in);
    }
}

static void begin_fetch(struct fl_client *self, struct fl_incoming *in,
                        const struct fl_object_ref *ref, uint64_t bytes_max)
{
    struct fl_fetch_config config = {
        .size = ref->size, .size_max = bytes_max, .progress_ms = FETCH_PROGRESS_MS};
    struct fl_error error;
    memcpy(config.root, ref->root, FL_HASH_BYTES);
    if (fl_fetch_open(&config, &in->fetch, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "fetch_failed", error.text);
        return;
    }
    fl_client_step_fetch(self, in, FL_FETCH_ONLINE, NULL);
}

static void take_chunk(struct fl_client *self, const struct fl_chunk_message *message)
{
    struct fl_incoming *both[2] = {&self->start_in, &self->version_in};
    for (int i = 0; i < 2; i++) {
        if (both[i]->fetch &&
            memcmp(fl_fetch_root(both[i]->fetch), message->root, FL_HASH_BYTES) == 0)
            fl_client_step_fetch(self, both[i], FL_FETCH_MESSAGE, message);
    }
}

static void take_bulk(struct fl_client *self, const struct fl_wire *m)
{
    struct fl_chunk_message c;
    if (!fl_bulk_from_wire(m, &c))
        return;
    if (c.kind != FL_CHUNK_NEED)
        take_chunk(self, &c);
    else if (fl_serve_need(self->serve, &c) != FL_OK)
        fl_log(FL_LOG_WARN, "bad_need", "the coordinator asked for nonsense; ignored");
}

/* ---- offers ---- */

static void reset_attempt(struct fl_client *self)
{
    fl_client_incoming_close(&self->start_in);
    self->has_task = self->has_collect = self->failed = false;
    fl_client_drop_masks(self);
}

void fl_client_refused(struct fl_client *self, enum fl_refusal code, const char *reason)
{
    struct fl_kept_refusal *kept = &self->refusals[self->refusal_count++ % FL_REFUSALS_KEPT];
    kept->job = self->key.job;
    kept->code = code;
    fl_wire_set_text(kept->reason, sizeof(kept->reason), reason);
    self->status_dirty = true;
    fl_log(FL_LOG_WARN, "refused", reason, FL_U64("job", self->key.job),
           FL_STR("code", fl_refusal_name(code)));
}

static void submit_fit(struct fl_client *self)
{
    struct fl_work *work = fl_work_new(FL_WORK_FIT, self->key);
    if (!work)
        return;
    work->offer = self->offer;
    fl_compute_submit(self->c.compute, work);
}

static unsigned minute_of_day(const struct fl_client *self)
{
    time_t seconds = (time_t)(fl_clock_wall(self->c.clock) / 1000);
    struct tm local;
    return localtime_r(&seconds, &local) ? (unsigned)(local.tm_hour * 60 + local.tm_min) : 0;
}

#define OFFER_RETRY_MS 30000

/* The policy first, before anything is opened; then what an earlier check of this job found. */
static void check_fit(struct fl_client *self)
{
    struct fl_policy_answer policy;
    bool fresh = !(self->seen.job == self->key.job && self->seen.round == self->key.round);
    fl_policy_check(self->c.conf, &self->offer, minute_of_day(self), fresh, &policy);
    if (policy.verdict == FL_VERDICT_FIT && self->key.round - 1 > self->offer.rounds) {
        policy.verdict = FL_VERDICT_PERMANENT;
        policy.code = FL_REFUSAL_POLICY;
        fl_wire_set_text(policy.reason, sizeof(policy.reason),
                         "the offered round lies beyond the job's last one");
    }
    if (policy.verdict == FL_VERDICT_FIT && self->offer_job != self->key.job) {
        /* a process that began anew could take neither this job's versions nor its end */
        policy.verdict = FL_VERDICT_TEMPORARY;
        policy.code = FL_REFUSAL_DISK;
        policy.retry_after_ms = OFFER_RETRY_MS;
        fl_wire_set_text(policy.reason, sizeof(policy.reason),
                         "the offer cannot be written to the site's disk");
    }
    self->allowed = policy.verdict == FL_VERDICT_FIT;
    fl_compute_abandon(self->c.compute, &self->key);
    if (policy.verdict != FL_VERDICT_FIT) {
        memset(&self->answer, 0, sizeof(self->answer));
        self->fit_known = false;
        self->answer.verdict = policy.verdict;
        self->answer.code = policy.code;
        self->answer.retry_after_ms = policy.retry_after_ms;
        memcpy(self->answer.reason, policy.reason, sizeof(policy.reason));
        fl_client_refused(self, policy.code, policy.reason);
        fl_client_event(self, FL_SESSION_FIT_DONE);
    } else if (self->fit_known && self->fit_job == self->key.job &&
               memcmp(&self->fit_offer, &self->offer, sizeof(self->offer)) == 0) {
        fl_client_event(self, FL_SESSION_FIT_DONE);
    } else {
        self->fit_known = false;
        submit_fit(self);
    }
}

static void take_offer(struct fl_client *self, const struct fl_wire *m)
{
    if (m->job == 0 || m->round == 0 || m->attempt == 0)
        return;
    /* what stood in the way of it for a time may be over */
    bool again = self->stage == FL_STAGE_READY && !self->failed &&
                 self->answer.verdict == FL_VERDICT_TEMPORARY;
    if (self->has_offer && fl_client_same_key(&self->key, m) && self->stage != FL_STAGE_IDLE &&
        !again) {
        fl_client_event(self, FL_SESSION_OFFER_SAME);
        return;
    }
    if (self->key.job != m->job)
        self->fit_known = false;
    self->key = (struct fl_attempt){m->job, m->round, m->attempt};
    self->offer = m->as.offer;
    self->has_offer = true;
    self->allowed = false;
    reset_attempt(self);
    fl_client_keep_offer(self, m);
    fl_log(FL_LOG_INFO, "offer", "a round is offered", FL_U64("job", m->job),
           FL_STR("name", self->offer.name), FL_U64("round", m->round),
           FL_U64("attempt", m->attempt), FL_U64("retraining", self->offer.retraining));
    fl_client_event(self, FL_SESSION_OFFER);
}

/* ---- tasks ---- */

static bool same_task(const struct fl_client *self, const struct fl_wire_task *task)
{
    const struct fl_wire_task *own = &self->task;
    size_t n = task->global_ranks.length;
    return self->has_task && memcmp(own->start.root, task->start.root, FL_HASH_BYTES) == 0 &&
           own->global_ranks.length == n &&
           memcmp(own->global_ranks.data, task->global_ranks.data, n) == 0 &&
           memcmp(own->site_ranks.data, task->site_ranks.data, n) == 0;
}

static bool keep_task(struct fl_client *self, const struct fl_wire_task *task)
{
    size_t n = task->global_ranks.length;
    uint8_t *ranks = fl_malloc(2 * n);
    if (!ranks)
        return false;
    memcpy(ranks, task->global_ranks.data, n);
    memcpy(ranks + n, task->site_ranks.data, n);
    fl_free(self->task_ranks);
    self->task_ranks = ranks;
    self->task = *task;
    self->task.global_ranks.data = ranks;
    self->task.site_ranks.data = ranks + n;
    self->has_task = true;
    return true;
}

static void take_task(struct fl_client *self, const struct fl_wire *m)
{
    if (!self->has_offer || !fl_client_same_key(&self->key, m))
        return;
    if (same_task(self, &m->as.task)) {
        if (self->failed)
            fl_client_event(self, FL_SESSION_WELCOME); /* says again why it failed */
        else
            fl_client_event(self, FL_SESSION_TASK_SAME);
        return;
    }
    if (!self->allowed ||
        (self->has_task && self->stage != FL_STAGE_READY && self->stage != FL_STAGE_FITTING)) {
        fl_log(FL_LOG_WARN, "task_ignored",
               self->allowed ? "another task came while one is being done"
                             : "a task of an offer that this site's policy refused",
               FL_U64("job", m->job), FL_U64("round", m->round));
        return;
    }
    if (!keep_task(self, &m->as.task))
        return;
    self->failed = self->has_collect = false;
    fl_client_remember(self, NULL, 0);
    if (self->stage == FL_STAGE_READY && self->answer.verdict == FL_VERDICT_FIT)
        fl_client_event(self, FL_SESSION_TASK);
    /* while FITTING it waits: fl_client_feed_pending() */
}

/* What came before the check of its offer had ended. */
void fl_client_feed_pending(struct fl_client *self)
{
    if (self->stage == FL_STAGE_READY && self->has_task && !self->failed &&
        self->answer.verdict == FL_VERDICT_FIT)
        fl_client_event(self, FL_SESSION_TASK);
    if (self->stage == FL_STAGE_TRAINED && self->has_collect)
        fl_client_event(self, FL_SESSION_COLLECT);
}

static void fetch_start(struct fl_client *self)
{
    if (self->start && memcmp(self->start_root, self->task.start.root, FL_HASH_BYTES) == 0) {
        fl_client_event(self, FL_SESSION_START_HERE);
        return;
    }
    if (self->start_in.fetch &&
        memcmp(fl_fetch_root(self->start_in.fetch), self->task.start.root, FL_HASH_BYTES) == 0)
        return;
    fl_client_incoming_close(&self->start_in);
    self->start_in.key = self->key;
    begin_fetch(self, &self->start_in, &self->task.start, self->start_bytes_max);
}

bool fl_client_copy_task(struct fl_client *self, struct fl_work *work, bool start)
{
    size_t n = self->task.global_ranks.length;
    work->offer = self->offer;
    work->task = self->task;
    work->ranks = fl_malloc(2 * n);
    if (!work->ranks)
        return false;
    memcpy(work->ranks, self->task_ranks, 2 * n);
    work->task.global_ranks.data = work->ranks;
    work->task.site_ranks.data = work->ranks + n;
    if (!start)
        return true;
    work->bytes = fl_malloc(self->start_length);
    if (!work->bytes)
        return false;
    memcpy(work->bytes, self->start, self->start_length);
    work->length = self->start_length;
    return true;
}

/* What a round trains, whatever its attempt, its retraining and the ranks that it came to. */
static void name_work(const struct fl_client *self, uint8_t out[FL_HASH_BYTES])
{
    static const uint8_t none[FL_SEED_BYTES];
    struct fl_wire_task task = self->task;
    struct fl_prf prf;
    task.global_ranks.length = 0;
    fl_job_training_settings(&self->offer, &task, out);
    fl_prf_begin(&prf, none, "fedlora-begun-v1");
    fl_prf_bytes(&prf, out, FL_HASH_BYTES);
    fl_prf_bytes(&prf, self->offer.manifest, FL_HASH_BYTES);
    fl_prf_text(&prf, self->offer.name);
    fl_prf_u64(&prf, self->offer.seed);
    fl_prf_end(&prf, out);
}

/*
 * A round that has begun is finished at any hour: the same work. Other work in its name is begun
 * anew, for which the policy's hours must be open.
 */
static bool may_begin(struct fl_client *self)
{
    uint8_t work[FL_HASH_BYTES];
    struct fl_policy_answer policy;
    name_work(self, work);
    const bool same_round = self->begun.job == self->key.job &&
                            self->begun.round == self->key.round;
    if (same_round && memcmp(self->begun.work, work, FL_HASH_BYTES) != 0) {
        fl_policy_check(self->c.conf, &self->offer, minute_of_day(self), true, &policy);
        if (policy.verdict != FL_VERDICT_FIT) {
            struct fl_work_result refused = {
                .kind = FL_WORK_TRAIN, .key = self->key, .code = policy.code};
            refused.status = fl_fail(&refused.error, FL_ETIMEOUT, "%s", policy.reason);
            fl_client_failed(self, &refused, FL_SESSION_TRAIN_FAILED);
            return false;
        }
    }
    self->begun.job = self->key.job;
    self->begun.round = self->key.round;
    memcpy(self->begun.work, work, FL_HASH_BYTES);
    return true;
}

static void begin_training(struct fl_client *self)
{
    if (!may_begin(self))
        return;
    struct fl_work *work = fl_work_new(FL_WORK_TRAIN, self->key);
    if (!work || !fl_client_copy_task(self, work, true)) {
        fl_work_free(work);
        fl_log(FL_LOG_ERROR, "out_of_memory", "the round cannot begin for lack of memory");
        return;
    }
    fl_compute_submit(self->c.compute, work);
}

/* ---- updates ---- */

static void take_collect(struct fl_client *self, const struct fl_wire *m)
{
    if (!self->has_task || !fl_client_same_key(&self->key, m))
        return;
    if (self->offer.secure_aggregation) {
        fl_client_take_masked_collect(self, m);
        return;
    }
    size_t n = m->as.collect.tiers.length;
    uint8_t *tiers = fl_malloc(n);
    if (!tiers)
        return;
    if (n > 0)
        memcpy(tiers, m->as.collect.tiers.data, n);
    if (self->stage != FL_STAGE_SEALING && self->stage != FL_STAGE_UPLOADING) {
        fl_free(self->collect_tiers);
        self->collect_tiers = tiers;
        self->collect = m->as.collect;
        self->collect.tiers.data = tiers;
        self->has_collect = true;
    } else {
        fl_free(tiers); /* what is being sealed or sent in this attempt is final */
    }
    fl_client_event(self, FL_SESSION_COLLECT);
}

/* Without masks; with them the request is made from the message (client_masks.c). */
static void begin_sealing(struct fl_client *self)
{
    struct fl_work *work;
    if (self->offer.secure_aggregation)
        return;
    work = fl_work_new(FL_WORK_SEAL, self->key);
    bool ok = work && fl_client_copy_task(self, work, true);
    if (ok) {
        work->collect = self->collect;
        ok = fl_work_copy_lists(work, (struct fl_wire_bytes *const[]){&work->collect.tiers}, 1);
    }
    if (!ok) {
        fl_work_free(work);
        fl_log(FL_LOG_ERROR, "out_of_memory", "the update cannot be sealed for lack of memory");
        return;
    }
    fl_compute_submit(self->c.compute, work);
}

static void take_receipt(struct fl_client *self, const struct fl_wire *m)
{
    if (!fl_client_same_key(&self->key, m))
        return;
    if (m->as.receipt.status == FL_RECEIPT_ACCEPTED)
        fl_log(FL_LOG_INFO, "update_accepted", "the coordinator has the update",
               FL_U64("job", m->job), FL_U64("round", m->round));
    else
        fl_log(FL_LOG_WARN, "update_not_used", m->as.receipt.reason, FL_U64("job", m->job),
               FL_U64("round", m->round));
    fl_client_event(self, FL_SESSION_RECEIPT);
}

/* ---- versions and ends ---- */

static void take_version(struct fl_client *self, const struct fl_wire *m)
{
    const struct fl_wire_version *v = &m->as.version;
    if (!self->has_offer || self->key.job != m->job || v->ranks.length == 0)
        return;
    if (!self->allowed ||
        (self->keeping && self->handed_job == m->job && self->handed_version >= v->version))
        return;
    if (self->keeping >= KEEPING_MAX) {
        self->unkept = true;
        return;
    }
    /* a coordinator that went on from an older version makes later ones again, and they count */
    bool again = v->version == self->key.round &&
                 memcmp(self->seen.version, v->sha256, FL_HASH_BYTES) != 0;
    if (self->newest_job == m->job && self->newest_version >= v->version && !again)
        return;
    struct fl_incoming *in = &self->version_in;
    if (in->fetch && in->version.version >= v->version && in->key.job == m->job)
        return;
    uint8_t *ranks = fl_malloc(v->ranks.length);
    if (!ranks)
        return;
    memcpy(ranks, v->ranks.data, v->ranks.length);
    fl_client_incoming_close(in);
    in->key = (struct fl_attempt){m->job, m->round, m->attempt};
    in->version = *v;
    in->ranks = ranks;
    in->version.ranks.data = ranks;
    fl_log(FL_LOG_INFO, "round_committed", "a new version of the global adapter",
           FL_U64("job", m->job), FL_U64("version", v->version), FL_U64("workers", v->workers),
           FL_NUM("eval_loss_before", v->has_eval ? v->eval_loss : (double)NAN));
    if (self->key.round <= v->version)
        fl_client_event(self, FL_SESSION_VERSION);
    begin_fetch(self, in, &v->adapter,
                self->start_bytes_max ? self->start_bytes_max : RECALLED_BYTES_MAX);
}

static void take_job_end(struct fl_client *self, const struct fl_wire *m)
{
    static const char *const states[FL_JOB_END_COUNT] = {"done", "failed", "cancelled"};
    if (!self->has_offer || self->key.job != m->job || self->stage == FL_STAGE_COUNT)
        return;
    fl_log(FL_LOG_INFO, "job_end",
           m->as.job_end.reason[0] ? m->as.job_end.reason : "the job has ended",
           FL_U64("job", m->job), FL_STR("state", states[m->as.job_end.state]),
           FL_U64("version", m->as.job_end.version),
           FL_STR("adapter", self->newest_job == m->job ? self->history.adapter : NULL));
    fl_client_event(self, FL_SESSION_JOB_END);
    fl_client_ask_again(self);
}

/* ---- actions ---- */

static void send_fit(struct fl_client *self)
{
    struct fl_wire out = fl_client_reply(self, self->failed ? FL_WIRE_FAILED : FL_WIRE_FIT);
    if (self->failed)
        out.as.failed = self->failure;
    else
        out.as.fit = self->answer;
    (void)!fl_client_send(self, &out);
}

static void send_trained(struct fl_client *self)
{
    struct fl_wire out = fl_client_reply(self, FL_WIRE_TRAINED);
    out.as.trained = self->trained;
    (void)!fl_client_send(self, &out);
}

static void send_upload(struct fl_client *self)
{
    struct fl_wire out = fl_client_reply(self, FL_WIRE_UPLOAD);
    out.as.upload.update = self->update;
    if (self->masked.kind == FL_WIRE_UPLOAD)
        out.as.upload.opened = (struct fl_wire_bytes){self->masked.bytes, self->masked.length};
    (void)!fl_client_send(self, &out);
}

static void clean(struct fl_client *self)
{
    fl_shelf_remove(self->shelf, self->update.root);
    memset(&self->update, 0, sizeof(self->update));
}

static void end_job(struct fl_client *self)
{
    struct fl_attempt none = {0};
    clean(self);
    reset_attempt(self);
    fl_compute_abandon(self->c.compute, &none);
    struct fl_work *forget = fl_work_new(FL_WORK_FORGET, none);
    if (forget)
        fl_compute_submit(self->c.compute, forget);
    fl_sitestore_forget(self->c.store, self->key.job, UINT32_MAX);
}

static void act(struct fl_client *self, enum fl_session_action action)
{
    static void (*const actions[FL_ACTION_COUNT])(struct fl_client *) = {
        [FL_ACTION_CHECK_FIT] = check_fit,
        [FL_ACTION_SEND_FIT] = send_fit,
        [FL_ACTION_FETCH_START] = fetch_start,
        [FL_ACTION_TRAIN] = begin_training,
        [FL_ACTION_SEND_TRAINED] = send_trained,
        [FL_ACTION_SEND_FAILED] = send_fit,
        [FL_ACTION_MAKE_KEYS] = fl_client_make_keys,
        [FL_ACTION_SIGN] = clean, /* the update arrived; the request itself comes of the message */
        [FL_ACTION_SEND_MASKED] = fl_client_send_masked,
        [FL_ACTION_SEAL] = begin_sealing,
        [FL_ACTION_SEND_UPLOAD] = send_upload,
        [FL_ACTION_CLEAN] = clean,
        [FL_ACTION_KEEP_VERSION] = clean,
        [FL_ACTION_END_JOB] = end_job,
    };
    if (actions[action])
        actions[action](self);
}

void fl_client_event(struct fl_client *self, enum fl_session_event event)
{
    enum fl_session_action action;
    enum fl_stage before = self->stage;
    if (!fl_session_step(&self->stage, event, &action))
        return;
    if (before != self->stage)
        self->status_dirty = true;
    act(self, action);
}

void fl_client_take(struct fl_client *self, const struct fl_wire *m)
{
    switch (m->kind) {
    case FL_WIRE_OFFER:
        take_offer(self, m);
        break;
    case FL_WIRE_TASK:
        take_task(self, m);
        break;
    case FL_WIRE_COLLECT:
        take_collect(self, m);
        break;
    case FL_WIRE_KEYS:
    case FL_WIRE_COHORT:
    case FL_WIRE_SURVIVORS:
    case FL_WIRE_UNMASK:
        fl_client_take_mask(self, m);
        break;
    case FL_WIRE_RECEIPT:
        take_receipt(self, m);
        break;
    case FL_WIRE_VERSION:
        take_version(self, m);
        break;
    case FL_WIRE_JOB_END:
        take_job_end(self, m);
        break;
    case FL_WIRE_NEED:
    case FL_WIRE_PAGE:
    case FL_WIRE_CHUNK:
    case FL_WIRE_MISSING:
        take_bulk(self, m);
        break;
    case FL_WIRE_RECALL:
        fl_client_recall(self, m);
        break;
    default:
        break; /* HEARTBEAT needs no answer; the rest is not for a site */
    }
}
