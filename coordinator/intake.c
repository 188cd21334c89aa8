/*
 * intake.c - what sites say. Every message may come twice, late, or from a liar: it is held against
 * the session, the running job's round and attempt, and what that site may say at all.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/record.h"
#include "coordinator/server_internal.h"
#include "net/bulk.h"

#define RETRY_LEAST_MS 1000
#define RETRY_MOST_MS  3600000

/* a message costs 100, 20 a second are earned: 60 at once, 20 a second for ever; a chunk or a
   request for an object that is not wanted or not there costs 10 */
#define CREDIT_PER_MS 2
#define CREDIT_MOST   FL_SEAT_CREDIT
#define MESSAGE_COST  100
#define STRAY_COST    10

/* ---- fits ---- */

static void accept_fit(struct fl_server *self, struct fl_seat *seat)
{
    struct fl_error error;
    if (fl_queue_unrefuse(self->desk->store, self->job.id, seat->site, &error) != FL_OK)
        fl_log(FL_LOG_WARN, "store_failed", error.text);
    fl_conduct_site(self, FL_EVENT_FIT, seat->site);
    fl_conduct_tick(self, fl_server_now(self));
}

static void refuse(struct fl_server *self, struct fl_seat *seat, enum fl_refusal code,
                   const char *reason)
{
    fl_log(FL_LOG_WARN, "site_refused", reason, FL_STR("worker", seat->name),
           FL_STR("code", fl_refusal_name(code)), FL_I64("job", self->job.id));
    fl_conduct_note_refusal(self, seat->site, code, true, reason);
    char named[FL_REASON_BYTES];
    (void)snprintf(named, sizeof named, "%s refused: %.180s", seat->name, reason);
    const struct fl_round_input input = {
        .event = FL_EVENT_REFUSED, .site = seat->site, .reason = named};
    fl_conduct(self, &input);
}

static int64_t bounded_wait(uint32_t retry_after_ms)
{
    int64_t wait = retry_after_ms;
    wait = wait < RETRY_LEAST_MS ? RETRY_LEAST_MS : wait;
    return wait > RETRY_MOST_MS ? RETRY_MOST_MS : wait;
}

static void defer(struct fl_server *self, struct fl_seat *seat, enum fl_refusal code,
                  const char *reason, uint32_t retry_after_ms)
{
    int64_t wait = bounded_wait(retry_after_ms);
    fl_log(FL_LOG_INFO, "site_deferred", reason, FL_STR("worker", seat->name),
           FL_STR("code", fl_refusal_name(code)), FL_I64("wait_ms", wait));
    fl_conduct_note_refusal(self, seat->site, code, false, reason);
    const struct fl_round_input input = {
        .event = FL_EVENT_DEFERRED, .site = seat->site, .wait_ms = wait, .reason = reason};
    fl_conduct(self, &input);
}

static bool knows_inventory(const struct fl_server *self)
{
    return self->facts->inventory.count > 0;
}

static void check_inventory(struct fl_server *self, struct fl_seat *seat,
                            const struct fl_object_ref *ref)
{
    if (!knows_inventory(self)) {
        fl_seat_fetch(self, seat, FL_FETCH_INVENTORY, ref, NULL);
        return;
    }
    if (memcmp(self->inventory_root, ref->root, FL_HASH_BYTES) == 0)
        accept_fit(self, seat);
    else
        refuse(self, seat, FL_REFUSAL_MODEL,
               "its model has other modules than the one that the job began with");
}

/* A site that returned in the middle of the round, asked again because it may be a new process. */
static void take_late_fit(struct fl_server *self, struct fl_seat *seat,
                          const struct fl_wire_fit *fit)
{
    if (!fl_send_is_midway(self, seat))
        return;
    if (fit->verdict == FL_VERDICT_FIT) {
        fl_send_task(self, seat);
        return;
    }
    bool permanent = fit->verdict == FL_VERDICT_PERMANENT;
    fl_log(FL_LOG_WARN, "site_refused", fit->reason, FL_STR("worker", seat->name),
           FL_STR("code", fl_refusal_name(fit->code)), FL_I64("job", self->job.id));
    fl_conduct_note_refusal(self, seat->site, fit->code, permanent, fit->reason);
    const struct fl_round_input input = {
        .event = FL_EVENT_SITE_FAILED, .site = seat->site, .permanent = permanent};
    fl_conduct(self, &input);
}

static void take_fit(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    const struct fl_wire_fit *fit = &message->as.fit;
    char text[FL_REASON_BYTES], theirs[FL_HASH_HEX_BYTES];
    if (!fl_conduct_is_current(self, message))
        return;
    if (self->round->state != FL_ROUND_SELECT) {
        take_late_fit(self, seat, fit);
        return;
    }
    if (fit->verdict == FL_VERDICT_PERMANENT) {
        refuse(self, seat, fit->code, fit->reason);
        return;
    }
    if (fit->verdict == FL_VERDICT_TEMPORARY) {
        defer(self, seat, fit->code, fit->reason, fit->retry_after_ms);
        return;
    }
    fl_hex(fit->manifest, FL_HASH_BYTES, theirs);
    if (strcmp(theirs, self->facts->spec->model_sha256) != 0) {
        (void)snprintf(text, sizeof text, "its model is %s, the job's %s", theirs,
                       self->facts->spec->model_sha256);
        refuse(self, seat, FL_REFUSAL_MODEL, text);
        return;
    }
    check_inventory(self, seat, &fit->inventory);
}

static void take_inventory(struct fl_server *self, struct fl_seat *seat)
{
    struct fl_error error;
    size_t length;
    struct fl_object_ref ref = seat->fetching;
    const uint8_t *bytes = fl_fetch_data(seat->fetch, &length);
    if (!self->job.id || self->round->state != FL_ROUND_SELECT)
        return;
    if (!knows_inventory(self)) {
        enum fl_status status = fl_conduct_set_inventory(self, ref.root, bytes, length, &error);
        if (status == FL_EFORMAT || status == FL_EINVAL || status == FL_ERANGE) {
            refuse(self, seat, FL_REFUSAL_MODEL, error.text);
            return;
        }
        if (status != FL_OK) {
            defer(self, seat, FL_REFUSAL_INTERNAL, error.text, FL_ROUND_RETRY_MS);
            return;
        }
    }
    check_inventory(self, seat, &ref);
}

/* ---- training ---- */

static enum fl_status note_trained(struct fl_server *self, void *context, struct fl_error *error)
{
    const struct fl_seat *seat = ((void **)context)[0];
    const struct fl_wire *message = ((void **)context)[1];
    return fl_queue_note_trained(self->desk->store, self->job.id, self->round->round,
                                 self->round->attempt, seat->site, &message->as.trained, error);
}

static void take_trained(struct fl_server *self, struct fl_seat *seat,
                         const struct fl_wire *message)
{
    const struct fl_member *m = fl_round_find(self->round, seat->site);
    if (!fl_conduct_is_current(self, message) || !m || !m->cohort)
        return;
    if (self->round->state == FL_ROUND_TRAIN && !m->trained) {
        const void *context[2] = {seat, message};
        const struct fl_round_input input = {.event = FL_EVENT_TRAINED, .site = seat->site};
        fl_log(FL_LOG_INFO, "site_trained", "a site finished its training",
               FL_STR("worker", seat->name), FL_U64("round", message->round),
               FL_U64("steps", message->as.trained.steps),
               FL_NUM("seconds", message->as.trained.seconds));
        fl_conduct_also(self, &input, note_trained, context);
        return;
    }
    if (self->round->state > FL_ROUND_TRAIN && m->trained)
        fl_send_due(self, seat);
    else if (self->round->state > FL_ROUND_TRAIN)
        fl_send_receipt(self, seat, message, FL_RECEIPT_SUPERSEDED,
                        "the round went on without this site");
}

static void take_failed(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    const struct fl_wire_failed *failed = &message->as.failed;
    if (!fl_conduct_is_current(self, message))
        return;
    fl_log(FL_LOG_WARN, "site_failed", failed->reason, FL_STR("worker", seat->name),
           FL_STR("code", fl_refusal_name(failed->code)), FL_U64("round", message->round));
    fl_conduct_note_refusal(self, seat->site, failed->code, failed->permanent, failed->reason);
    char named[FL_REASON_BYTES];
    (void)snprintf(named, sizeof named, "%s failed: %.180s", seat->name, failed->reason);
    const struct fl_round_input input = {.event = FL_EVENT_SITE_FAILED,
                                         .site = seat->site,
                                         .reason = named,
                                         .permanent = failed->permanent,
                                         .differs = failed->code == FL_REFUSAL_DIFFERENCING,
                                         .wait_ms = bounded_wait(failed->retry_after_ms)};
    fl_conduct(self, &input);
}

/* ---- updates ---- */

static void reject_update(struct fl_server *self, struct fl_seat *seat, const char *reason)
{
    const struct fl_wire about = {.job = (uint64_t)self->job.id,
                                  .round = self->round->round,
                                  .attempt = self->round->attempt};
    fl_log(FL_LOG_WARN, "update_rejected", reason, FL_STR("worker", seat->name),
           FL_U64("round", about.round));
    fl_send_receipt(self, seat, &about, FL_RECEIPT_REJECTED, reason);
    fl_conduct_note_refusal(self, seat->site, FL_REFUSAL_TRAINING, false, reason);
    const struct fl_round_input input = {.event = FL_EVENT_SITE_FAILED,
                                         .site = seat->site,
                                         .leave_out = &seat->site,
                                         .leave_out_count = 1};
    fl_conduct(self, &input);
}

static void take_upload(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    char part[FL_PATH_BYTES];
    struct fl_error error;
    const struct fl_object_ref *ref = &message->as.upload.update;
    const struct fl_member *m = self->job.id ? fl_round_find(self->round, seat->site) : NULL;
    bool current = fl_conduct_is_current(self, message) && m;
    if (current && m->uploaded) {
        fl_send_receipt(self, seat, message, FL_RECEIPT_ACCEPTED, "");
        return;
    }
    uint32_t position = current && self->stage ? fl_stage_position(self->stage, seat->site)
                                               : UINT32_MAX;
    bool may = current && (self->round->rules.secure ? m->shared : m->trained) && !m->failed;
    if (!may || self->round->state != FL_ROUND_COLLECT) {
        fl_send_receipt(self, seat, message, FL_RECEIPT_SUPERSEDED, "the round went on without it");
        return;
    }
    if (position == UINT32_MAX || self->stage->checking[position])
        return;
    if (ref->size != self->stage->sealed_bytes) {
        reject_update(self, seat, "the update has not the size that its layout gives");
        return;
    }
    if (self->round->rules.secure && !fl_masks_note_opened(self, seat, message)) {
        reject_update(self, seat, "the update comes without a word on whose shares opened");
        return;
    }
    if (fl_stage_path(self->stage, position, false, part, &error) != FL_OK ||
        fl_store_make_parent(part, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "spool_failed", error.text);
        return;
    }
    fl_seat_fetch(self, seat, FL_FETCH_UPDATE, ref, part);
}

static void finish_check(struct fl_chore *chore, void *context)
{
    struct fl_check_work *work = (struct fl_check_work *)chore;
    struct fl_server *self = context;
    work->stage->checking[work->position] = false;
    if (self && work->stage == self->stage && self->round->state == FL_ROUND_COLLECT) {
        uint32_t site = work->stage->sites[work->position];
        struct fl_seat *seat = fl_seat_of(self, site);
        if (work->status == FL_OK) /* no update is acknowledged that the log does not know */
            work->status = fl_record_update(self->desk, work, &work->error);
        if (work->status == FL_OK) {
            self->tally.updates++;
            self->tally.update_bytes += work->stage->sealed_bytes;
        }
        if (work->status == FL_OK && self->round->rules.secure)
            fl_masks_take_update(self, site);
        else if (work->status == FL_OK)
            fl_conduct_site(self, FL_EVENT_UPLOADED, site);
        else if (work->status == FL_EFORMAT && seat)
            reject_update(self, seat, work->error.text);
        else if (work->status == FL_EFORMAT)
            fl_conduct_site(self, FL_EVENT_SITE_FAILED, site);
        else { /* the disk: the site sends it again when it is asked again */
            fl_log(FL_LOG_ERROR, "spool_failed", work->error.text,
                   FL_STR("worker", work->stage->names[work->position]));
            if (seat)
                seat->retry_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
        }
    }
    fl_stage_release(work->stage);
    fl_free(work);
}

/* One at a time for each site, and none once one is accepted: what was counted stays what it was.
 */
static void check_update(struct fl_server *self, const struct fl_seat *seat)
{
    uint32_t position = self->stage ? fl_stage_position(self->stage, seat->site) : UINT32_MAX;
    const struct fl_member *m = fl_round_find(self->round, seat->site);
    if (position == UINT32_MAX || self->round->state != FL_ROUND_COLLECT || !m || m->uploaded ||
        self->stage->checking[position])
        return;
    struct fl_check_work *work = fl_calloc(1, sizeof *work);
    if (!work) {
        fl_log(FL_LOG_ERROR, "spool_failed", "out of memory", FL_STR("worker", seat->name));
        return;
    }
    work->chore.run = fl_work_check;
    work->chore.finish = finish_check;
    work->stage = self->stage;
    work->stage->references++;
    work->position = position;
    work->stage->checking[position] = true;
    fl_mill_submit(self->mill, &work->chore);
}

/* Who sent other bytes than it announced, or does not have them, is out of this attempt. */
static void fetch_failed(struct fl_server *self, struct fl_seat *seat,
                         enum fl_fetch_purpose purpose)
{
    struct fl_error why = *fl_fetch_error(seat->fetch);
    fl_log(FL_LOG_WARN, "fetch_failed", why.text, FL_STR("worker", seat->name));
    fl_seat_stop_fetch(seat);
    if (!self->job.id)
        return;
    if (purpose == FL_FETCH_INVENTORY)
        defer(self, seat, FL_REFUSAL_INTERNAL, "its inventory could not be fetched", 0);
    else if (why.status == FL_EFORMAT || why.status == FL_ENOTFOUND)
        reject_update(self, seat, why.text);
    else
        seat->retry_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
}

void fl_intake_fetched(struct fl_server *self, struct fl_seat *seat)
{
    enum fl_fetch_purpose purpose = seat->purpose;
    self->busy_until_ms = fl_server_now(self) + 2000;
    if (purpose == FL_FETCH_RECALL) {
        fl_recall_fetched(self, seat);
        return;
    }
    if (fl_fetch_state(seat->fetch) == FL_FETCH_FAILED) {
        fetch_failed(self, seat, purpose);
        return;
    }
    if (purpose == FL_FETCH_INVENTORY) {
        struct fl_fetch *fetch = seat->fetch;
        take_inventory(self, seat);
        if (seat->fetch == fetch)
            fl_seat_stop_fetch(seat);
        return;
    }
    fl_seat_stop_fetch(seat);
    check_update(self, seat);
}

/* ---- frames ---- */

static void take_chunk(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    struct fl_chunk_message chunk;
    if (seat->fetch && fl_bulk_from_wire(message, &chunk))
        fl_seat_step_fetch(self, seat, FL_FETCH_MESSAGE, &chunk);
}

static bool take_need(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    struct fl_chunk_message chunk;
    if (!fl_bulk_from_wire(message, &chunk) || fl_serve_need(seat->serve, &chunk) == FL_EFORMAT)
        return false;
    fl_seat_pump(self, seat);
    return true;
}

/* false: a site may not say this */
static bool take(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    switch (message->kind) {
    case FL_WIRE_HEARTBEAT:
        seat->activity = message->as.heartbeat.activity;
        seat->step = message->as.heartbeat.step;
        seat->steps = message->as.heartbeat.steps;
        seat->tokens_per_second = message->as.heartbeat.tokens_per_second;
        return true;
    case FL_WIRE_GOODBYE:
        fl_log(FL_LOG_INFO, "site_leaves", message->as.goodbye.text, FL_STR("worker", seat->name));
        return true;
    case FL_WIRE_NEED:
        return take_need(self, seat, message);
    case FL_WIRE_PAGE:
    case FL_WIRE_CHUNK:
    case FL_WIRE_MISSING:
        take_chunk(self, seat, message);
        return true;
    case FL_WIRE_UPLOAD:
        take_upload(self, seat, message);
        return true;
    case FL_WIRE_RECALLED:
        fl_recall_take(self, seat, message);
        return true;
    default:
        break;
    }
    static void (*const kinds[FL_WIRE_KIND_COUNT])(struct fl_server *, struct fl_seat *,
                                                   const struct fl_wire *) = {
        [FL_WIRE_FIT] = take_fit,
        [FL_WIRE_TRAINED] = take_trained,
        [FL_WIRE_FAILED] = take_failed,
        [FL_WIRE_ADVERT] = fl_masks_take_advert,
        [FL_WIRE_SHARES] = fl_masks_take_shares,
        [FL_WIRE_SIGNED] = fl_masks_take_signed,
        [FL_WIRE_ANSWER] = fl_masks_take_answer,
    };
    if (!kinds[message->kind])
        return false;
    if (self->job.id && fl_conduct_is_current(self, message))
        kinds[message->kind](self, seat, message);
    return true;
}

/*
 * A site that says more than any site has to is cut off: each of its messages may cost a commit.
 * Objects on their way cost nothing, as the receiver's credit bounds them.
 */
static bool floods(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    int64_t now = fl_server_now(self), cost = MESSAGE_COST;
    const uint8_t *root = NULL;
    if (message->kind == FL_WIRE_NEED)
        cost = fl_shelf_find(self->shelf, message->as.need.root) ? 0 : STRAY_COST;
    else if (message->kind == FL_WIRE_PAGE)
        root = message->as.page.root;
    else if (message->kind == FL_WIRE_CHUNK)
        root = message->as.chunk.root;
    else if (message->kind == FL_WIRE_MISSING)
        root = message->as.missing.root;
    if (root)
        cost = seat->fetch && memcmp(fl_fetch_root(seat->fetch), root, FL_HASH_BYTES) == 0
                   ? 0
                   : STRAY_COST;
    seat->credit += (now - seat->credit_ms) * CREDIT_PER_MS;
    seat->credit_ms = now;
    if (seat->credit > CREDIT_MOST)
        seat->credit = CREDIT_MOST;
    seat->credit -= cost;
    return seat->credit < 0;
}

static void violation(struct fl_server *self, struct fl_seat *seat, const char *why)
{
    fl_log(FL_LOG_WARN, "peer_dropped", why, FL_STR("worker", seat->name));
    fl_seat_dismiss(self, seat, FL_GOODBYE_PROTOCOL, why, 5000);
}

void fl_intake_frame(struct fl_server *self, struct fl_seat *seat, const uint8_t *frame,
                     size_t length)
{
    struct fl_wire message;
    struct fl_error error;
    if (seat->leaving)
        return;
    self->tally.received_bytes += length;
    enum fl_status status = fl_wire_decode(frame, length, &message, &error);
    if (status == FL_ENOMEM)
        return;
    if (status != FL_OK) {
        violation(self, seat, error.text);
        return;
    }
    if (floods(self, seat, &message)) {
        violation(self, seat, "a site says far more than it has to");
    } else if (message.kind == FL_WIRE_HELLO) {
        seat->heard_ms = fl_server_now(self);
        fl_seat_hello(self, seat, &message);
    } else if (seat->live && message.has_nonce &&
               memcmp(message.nonce, seat->nonce, FL_NONCE_BYTES) == 0) {
        seat->heard_ms = fl_server_now(self);
        if (!take(self, seat, &message))
            violation(self, seat, "a site may not send this message");
    }
    fl_wire_free(&message);
}

/* ---- enrolment ---- */

static void answer_join(struct fl_server *self, fl_peer peer, const struct fl_wire_join *join,
                        enum fl_status status, const struct fl_error *error, const char *name)
{
    struct fl_wire answer = {.kind = FL_WIRE_JOIN_ANSWER};
    answer.as.join_answer.accepted = status == FL_OK;
    (void)snprintf(answer.as.join_answer.name, FL_NAME_BYTES, "%s", name ? name : join->name);
    if (status != FL_OK)
        fl_wire_set_text(answer.as.join_answer.reason, FL_REASON_BYTES, error->text);
    fl_buf_free(&self->frame);
    fl_buf_init(&self->frame, FL_FRAME_BYTES_MAX);
    if (fl_wire_encode(&answer, &self->frame) == FL_OK)
        (void)!fl_transport_send(self->transport, peer, self->frame.data, self->frame.length);
}

/* The count of an address; a table that is full counts the rest together in its last place. */
static uint32_t *joins_of(struct fl_server *self, const char *address)
{
    uint32_t i = 0;
    while (i < FL_JOIN_SOURCES - 1 && self->join_sources[i].joins > 0 &&
           strcmp(self->join_sources[i].address, address) != 0)
        i++;
    if (self->join_sources[i].joins == 0)
        (void)snprintf(self->join_sources[i].address, FL_PEER_ADDRESS_BYTES, "%s", address);
    return &self->join_sources[i].joins;
}

/*
 * Refused joins are limited by source address, so that one guesser does not shut out the rest, and
 * in all. Joins that succeed cost an invitation each, and are not counted.
 */
static bool joins_too_often(struct fl_server *self, const char *address)
{
    int64_t now = fl_server_now(self);
    if (now >= self->joins_reset_ms) {
        self->joins_reset_ms = now + 60000;
        self->joins = 0;
        memset(self->join_sources, 0, sizeof self->join_sources);
    }
    return *joins_of(self, address) >= FL_JOINS_OF_AN_ADDRESS || self->joins >= FL_JOINS_PER_MINUTE;
}

static void take_join(struct fl_server *self, fl_peer peer, const char *user, const char *address,
                      const struct fl_wire_join *join)
{
    struct fl_error error;
    uint8_t key[FL_KEY_BYTES];
    enum fl_status status = FL_OK;
    if (joins_too_often(self, address))
        status = fl_fail(&error, FL_EBUSY, "too many joins at once; try again in a minute");
    if (status == FL_OK)
        status = fl_unhex(user, key, sizeof key);
    if (status == FL_OK)
        status = fl_roster_join(self->desk->roster, self->desk->keys, join, key,
                                fl_clock_wall(self->desk->clock), &error);
    if (status != FL_OK) {
        ++*joins_of(self, address);
        ++self->joins;
        ++self->tally.refused_joins;
    } else
        ++self->tally.joins;
    const struct fl_site *site = status == FL_OK ? fl_roster_by_key(self->desk->roster, key) : NULL;
    const struct fl_field fields[] = {FL_STR("worker", site ? site->name : join->name),
                                      FL_STR("address", address),
                                      FL_STR("reason", status == FL_OK ? NULL : error.text),
                                      {.kind = FL_FIELD_END}};
    fl_log_fields(status == FL_OK ? FL_LOG_INFO : FL_LOG_WARN,
                  status == FL_OK ? "site_enrolled" : "join_refused",
                  status == FL_OK ? "a site enrolled" : "a join was refused", fields);
    answer_join(self, peer, join, status, &error, site ? site->name : NULL);
    if (!site) /* a stranger keeps no place among the connections */
        fl_transport_drop(self->transport, peer);
    if (site)
        (void)!fl_record_site(self->desk, "site_enrolled", site->name, address, &error);
}

void fl_intake_join(struct fl_server *self, const struct fl_transport_event *event)
{
    struct fl_wire message;
    struct fl_error error;
    enum fl_status status = fl_wire_decode(event->frame, event->length, &message, &error);
    if (status == FL_ENOMEM)
        return;
    if (status != FL_OK || message.kind != FL_WIRE_JOIN) {
        fl_log(FL_LOG_WARN, "peer_dropped",
               status != FL_OK ? error.text : "only JOIN is read on this port");
        fl_transport_drop(self->transport, event->peer);
    } else
        take_join(self, event->peer, event->user, event->address, &message.as.join);
    if (status == FL_OK)
        fl_wire_free(&message);
}
