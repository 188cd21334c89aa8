/*
 * client_offer.c - the offer of the last round, kept in SITE/state/offer.frame as it came. A site
 * that was away while its job ended is then still able to take the final adapter: only the offer
 * says which modules it has.
 */
#include <string.h>

#include "base/log.h"
#include "worker/client_internal.h"
#include "worker/policy.h"

#define OFFER_FILE "state/offer.frame"

static bool policy_allows(const struct fl_client *self, const struct fl_wire_offer *offer)
{
    struct fl_policy_answer answer;
    fl_policy_check(self->c.conf, offer, 0, false, &answer);
    return answer.verdict == FL_VERDICT_FIT;
}

void fl_client_keep_offer(struct fl_client *self, const struct fl_wire *message)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_buf frame;
    fl_buf_init(&frame, FL_CONTROL_BYTES_MAX);
    enum fl_status status = fl_wire_encode(message, &frame);
    if (status == FL_OK)
        status = fl_sitestore_path(self->c.store, OFFER_FILE, path, &error);
    if (status == FL_OK)
        status = fl_fs_write(path, frame.data, frame.length, 0600, &error);
    if (status == FL_OK)
        self->offer_job = message->job;
    else
        fl_log(FL_LOG_WARN, "offer_not_kept", "the offer could not be written",
               FL_U64("job", message->job));
    fl_buf_free(&frame);
}

/* A file that is absent or damaged is as good as none: the coordinator offers anew. */
void fl_client_recall_offer(struct fl_client *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_wire message;
    struct fl_buf frame;
    if (fl_sitestore_path(self->c.store, OFFER_FILE, path, &error) != FL_OK ||
        !fl_path_exists(path))
        return;
    enum fl_status status = fl_fs_read(path, FL_CONTROL_BYTES_MAX, &frame, &error);
    if (status == FL_OK)
        status = fl_wire_decode(frame.data, frame.length, &message, &error);
    if (status == FL_OK && message.kind == FL_WIRE_OFFER) {
        self->key = (struct fl_attempt){message.job, message.round, message.attempt};
        self->offer = message.as.offer;
        self->has_offer = true;
        self->offer_job = message.job;
        self->allowed = policy_allows(self, &self->offer);
    }
    if (status == FL_OK)
        fl_wire_free(&message);
    fl_buf_free(&frame);
}
