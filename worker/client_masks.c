/*
 * client_masks.c - secure aggregation as the I/O thread sees it: each message of the coordinator
 * becomes a request to the work thread, whose answer is kept and sent again whenever it is asked
 * for. What is computed, and what is refused, is in masking.c.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "worker/client_internal.h"

void fl_client_drop_masks(struct fl_client *self)
{
    if (self->masked.bytes)
        sodium_memzero(self->masked.bytes, self->masked.length);
    fl_free(self->masked.bytes);
    memset(&self->masked, 0, sizeof(self->masked));
}

void fl_client_keep_masked(struct fl_client *self, enum fl_wire_kind kind,
                           struct fl_work_result *result)
{
    fl_client_drop_masks(self);
    self->masked.kind = kind;
    self->masked.bytes = result->reply;
    self->masked.length = result->reply_bytes;
    result->reply = NULL;
}

/* ---- out ---- */

static struct fl_wire_bytes kept(const struct fl_client *self)
{
    return (struct fl_wire_bytes){self->masked.bytes, self->masked.length};
}

void fl_client_send_masked(struct fl_client *self)
{
    struct fl_wire out = fl_client_reply(self, self->masked.kind);
    if (!self->masked.bytes)
        return;
    switch (self->masked.kind) {
    case FL_WIRE_ADVERT:
        memcpy(out.as.advert.advert, self->masked.bytes, sizeof(out.as.advert.advert));
        break;
    case FL_WIRE_SHARES:
        out.as.shares.sealed = kept(self);
        break;
    case FL_WIRE_SIGNED:
        memcpy(out.as.signed_.signature, self->masked.bytes, sizeof(out.as.signed_.signature));
        break;
    case FL_WIRE_ANSWER:
        out.as.answer.answer = kept(self);
        break;
    default:
        return;
    }
    (void)!fl_client_send(self, &out);
}

/* In the audit log before it can leave: an answer is given once, and for these survivors. */
static bool record_answer(struct fl_client *self, const struct fl_work_result *r)
{
    const struct fl_field fields[] = {FL_U64("job", r->key.job),
                                      FL_U64("round", r->key.round),
                                      FL_U64("attempt", r->key.attempt),
                                      FL_U64("survivors", r->survivors),
                                      {.kind = FL_FIELD_END}};
    if (fl_client_audit(self, "unmask_answered", fields) != FL_OK)
        return false;
    fl_log_fields(FL_LOG_INFO, "unmask_answered",
                  "this site helped to open the sum of the survivors' updates", fields);
    return true;
}

/* In which stage each request is under way, and what its answer is sent as. */
static const struct {
    enum fl_stage stage;
    enum fl_wire_kind kind;
} requests[FL_WORK_KIND_COUNT] = {
    [FL_WORK_KEYS] = {FL_STAGE_KEYING, FL_WIRE_ADVERT},
    [FL_WORK_COHORT] = {FL_STAGE_SHARING, FL_WIRE_SHARES},
    [FL_WORK_SURVIVORS] = {FL_STAGE_SIGNING, FL_WIRE_SIGNED},
    [FL_WORK_UNMASK] = {FL_STAGE_ANSWERING, FL_WIRE_ANSWER},
};

void fl_client_mask_result(struct fl_client *self, struct fl_work_result *r)
{
    if (!fl_client_is_current(self, &r->key) || self->stage != requests[r->kind].stage)
        return;
    if (r->status == FL_OK && r->kind == FL_WORK_UNMASK && !record_answer(self, r))
        r->status = fl_fail(&r->error, FL_EIO, "the audit log cannot be written");
    if (r->status != FL_OK) {
        fl_client_failed(self, r, FL_SESSION_MASK_FAILED);
        return;
    }
    fl_client_keep_masked(self, requests[r->kind].kind, r);
    fl_client_event(self, FL_SESSION_MASK_DONE);
}

/* ---- in ---- */

static void submit(struct fl_client *self, struct fl_work *work, bool ok)
{
    if (ok) {
        fl_compute_submit(self->c.compute, work);
        return;
    }
    fl_work_free(work);
    fl_log(FL_LOG_ERROR, "out_of_memory", "the round cannot go on for lack of memory");
}

void fl_client_make_keys(struct fl_client *self)
{
    struct fl_work *work = fl_work_new(FL_WORK_KEYS, self->key);
    submit(self, work, work && fl_client_copy_task(self, work, false));
}

static void begin_cohort(struct fl_client *self, const struct fl_wire *m)
{
    struct fl_work *work = fl_work_new(FL_WORK_COHORT, self->key);
    bool ok = work && fl_client_copy_task(self, work, true);
    if (ok) {
        struct fl_wire_bytes *const lists[] = {&work->cohort.adverts, &work->cohort.plan};
        work->cohort = m->as.cohort;
        ok = fl_work_copy_lists(work, lists, 2);
    }
    submit(self, work, ok);
}

static void begin_collect(struct fl_client *self, const struct fl_wire *m)
{
    struct fl_work *work = fl_work_new(FL_WORK_SEAL, self->key);
    bool ok = work && fl_client_copy_task(self, work, false);
    if (ok) {
        struct fl_wire_bytes *const lists[] = {&work->collect.tiers, &work->collect.sharers,
                                               &work->collect.shares};
        work->collect = m->as.collect;
        ok = fl_work_copy_lists(work, lists, 3);
    }
    submit(self, work, ok);
}

static void begin_unmask(struct fl_client *self, const struct fl_wire *m)
{
    bool sign = m->kind == FL_WIRE_SURVIVORS;
    struct fl_work *work = fl_work_new(sign ? FL_WORK_SURVIVORS : FL_WORK_UNMASK, self->key);
    bool ok = work && fl_client_copy_task(self, work, false);
    if (ok) {
        struct fl_wire_bytes *const lists[] = {&work->unmask.survivors, &work->unmask.signed_by,
                                               &work->unmask.signatures};
        if (sign)
            work->unmask.survivors = m->as.survivors.survivors;
        else
            work->unmask = m->as.unmask;
        ok = fl_work_copy_lists(work, lists, 3);
    }
    submit(self, work, ok);
}

/* Does the coordinator ask for what comes behind a step that this process has not taken? It rests,
   so that the step is not under way either. */
static bool was_overtaken(enum fl_stage stage, enum fl_session_event event)
{
    static const enum fl_stage least[FL_SESSION_EVENT_COUNT] = {
        [FL_SESSION_COHORT] = FL_STAGE_KEYED,
        [FL_SESSION_COLLECT] = FL_STAGE_SHARED,
        [FL_SESSION_SURVIVORS] = FL_STAGE_UPLOADING,
        [FL_SESSION_UNMASK] = FL_STAGE_SIGNED,
    };
    const bool rests = stage == FL_STAGE_TRAINED || stage == FL_STAGE_KEYED ||
                       stage == FL_STAGE_SHARED || stage == FL_STAGE_UPLOADING ||
                       stage == FL_STAGE_DELIVERED;
    return rests && stage < least[event];
}

/* A process that does not know the secrets of this attempt, or not any more, is a dropout of it:
   who says nothing is waited for. */
static void say_lost(struct fl_client *self)
{
    struct fl_work_result lost = {
        .kind = FL_WORK_FORGET, .key = self->key, .code = FL_REFUSAL_INTERNAL};
    lost.status = fl_fail(&lost.error, FL_EBUSY, "secrets lost: %s",
                          self->stage == FL_STAGE_TRAINED
                              ? "this process began after the attempt's keys were made"
                              : "another process went on with the attempt under this site's key");
    fl_client_failed(self, &lost, FL_SESSION_LOST);
}

/* Feed the event, and make the request when the stage moves on. */
static void step(struct fl_client *self, const struct fl_wire *m, enum fl_session_event event,
                 enum fl_stage next, void (*begin)(struct fl_client *, const struct fl_wire *))
{
    enum fl_stage before = self->stage;
    if (was_overtaken(before, event)) {
        say_lost(self);
        return;
    }
    fl_client_event(self, event);
    if (before != next && self->stage == next)
        begin(self, m);
}

void fl_client_take_masked_collect(struct fl_client *self, const struct fl_wire *m)
{
    step(self, m, FL_SESSION_COLLECT, FL_STAGE_SEALING, begin_collect);
}

void fl_client_take_mask(struct fl_client *self, const struct fl_wire *m)
{
    if (!self->has_task || !fl_client_same_key(&self->key, m) || self->failed ||
        !self->offer.secure_aggregation)
        return;
    switch (m->kind) {
    case FL_WIRE_KEYS:
        fl_client_event(self, FL_SESSION_KEYS);
        break;
    case FL_WIRE_COHORT:
        step(self, m, FL_SESSION_COHORT, FL_STAGE_SHARING, begin_cohort);
        break;
    case FL_WIRE_SURVIVORS:
        step(self, m, FL_SESSION_SURVIVORS, FL_STAGE_SIGNING, begin_unmask);
        break;
    default:
        step(self, m, FL_SESSION_UNMASK, FL_STAGE_ANSWERING, begin_unmask);
        break;
    }
}
