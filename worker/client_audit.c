/*
 * client_audit.c - what the site writes down about itself in its audit log.
 *
 * Of offers a coordinator can make any number: their lines are limited, and how many were left out
 * stands in the next one. What leaves the site is never left out: it is written down before it
 * can leave, or does not leave.
 */
#include <string.h>

#include "base/log.h"
#include "worker/client_internal.h"

#define OFFER_LINES    64    /* of them, at once */
#define OFFER_EARNS_MS 10000 /* one more each */

enum fl_status fl_client_audit(struct fl_client *self, const char *event,
                               const struct fl_field *fields)
{
    struct fl_error error;
    enum fl_status status = fl_audit_append(self->audit, fl_clock_wall(self->c.clock), event,
                                            fields, &error);
    if (status != FL_OK)
        fl_log(FL_LOG_ERROR, "audit_failed", error.text, FL_STR("entry", event));
    return status;
}

/* May one more line about offers be written? */
static bool earn(struct fl_client *self)
{
    struct fl_offer_lines *lines = &self->offer_lines;
    int64_t now = fl_client_now(self);
    int64_t earned = (now - lines->since_ms) / OFFER_EARNS_MS;
    if (lines->since_ms == 0 || earned >= lines->spent) {
        lines->since_ms = now;
        lines->spent = 0;
    } else {
        lines->since_ms += earned * OFFER_EARNS_MS;
        lines->spent -= earned;
    }
    if (lines->spent >= OFFER_LINES)
        return false;
    lines->spent++;
    return true;
}

/* An answer is sent again with every session: it is written down once. */
static bool said_before(struct fl_client *self, const struct fl_wire *message, uint32_t verdict,
                        uint32_t code)
{
    const struct fl_said said = {.key = {message->job, message->round, message->attempt},
                                 .kind = (uint32_t)message->kind,
                                 .verdict = verdict,
                                 .code = code};
    const struct fl_said *last = &self->said;
    if (last->key.job == said.key.job && last->key.round == said.key.round &&
        last->key.attempt == said.key.attempt && last->kind == said.kind &&
        last->verdict == said.verdict && last->code == said.code)
        return true;
    self->said = said;
    return false;
}

void fl_client_audit_said(struct fl_client *self, const struct fl_wire *message)
{
    const struct fl_wire_fit *fit = &message->as.fit;
    const struct fl_wire_failed *failed = &message->as.failed;
    bool is_fit = message->kind == FL_WIRE_FIT;
    if (!is_fit && message->kind != FL_WIRE_FAILED)
        return;
    bool accepted = is_fit && fit->verdict == FL_VERDICT_FIT;
    enum fl_refusal code = is_fit ? fit->code : failed->code;
    uint32_t verdict = is_fit ? (uint32_t)fit->verdict : (uint32_t)failed->permanent;
    if (said_before(self, message, verdict, (uint32_t)code))
        return;
    if (!earn(self)) {
        self->offer_lines.left_out++;
        return;
    }
    const char *reason = is_fit ? fit->reason : failed->reason;
    bool permanent = is_fit ? fit->verdict == FL_VERDICT_PERMANENT : failed->permanent;
    const struct fl_field fields[] = {
        FL_U64("job", message->job),
        FL_STR("name", self->offer.name),
        FL_U64("round", message->round),
        FL_U64("attempt", message->attempt),
        FL_STR("secure_aggregation", self->offer.secure_aggregation ? "on" : "off"),
        FL_STR("code", accepted ? NULL : fl_refusal_name(code)),
        FL_STR("permanent", accepted    ? NULL
                            : permanent ? "yes"
                                        : "no"),
        FL_STR("reason", accepted ? NULL : reason),
        FL_U64("left_out", self->offer_lines.left_out),
        {.kind = FL_FIELD_END}};
    const char *event = !is_fit ? "attempt_failed" : accepted ? "offer_accepted" : "offer_refused";
    if (fl_client_audit(self, event, fields) == FL_OK)
        self->offer_lines.left_out = 0;
}

void fl_client_audit_heard(struct fl_client *self, const struct fl_wire *message)
{
    const struct fl_wire_receipt *receipt = &message->as.receipt;
    if (message->kind != FL_WIRE_RECEIPT)
        return;
    for (uint32_t i = 0; i < fl_history_kept(&self->history); i++) {
        struct fl_kept_sent *sent = &self->history.sent[i];
        if (sent->answered || sent->key.job != message->job || sent->key.round != message->round ||
            sent->key.attempt != message->attempt)
            continue;
        bool accepted = receipt->status == FL_RECEIPT_ACCEPTED;
        const struct fl_field fields[] = {FL_U64("job", message->job),
                                          FL_U64("round", message->round),
                                          FL_U64("attempt", message->attempt),
                                          FL_STR("sha256", sent->sha256),
                                          FL_STR("reason", accepted ? NULL : receipt->reason),
                                          {.kind = FL_FIELD_END}};
        sent->answered = fl_client_audit(self, accepted ? "update_accepted" : "update_not_used",
                                         fields) == FL_OK;
    }
}
