/* round_heard.c - what a site's event says of that site, in the state that the round is in; see
   round.h. */
#include "coordinator/round_internal.h"

static void note_presence(struct fl_round *self, struct fl_member *m, bool online, int64_t now_ms)
{
    m->online = online;
    if (online)
        m->seen = true;
    else
        m->gone_at_ms = now_ms;
    /* whoever connects anew is asked anew, whatever it said before, except a final no */
    if (self->state == FL_ROUND_SELECT && m->answer != FL_ANSWER_REFUSED)
        m->answer = FL_ANSWER_NONE;
}

/* Sets of stages that are over never change: neither grid, nor tiers, nor masks may move. */
static void lose_mark(const struct fl_round *self, struct fl_member *m)
{
    if (self->state <= FL_ROUND_TRAIN)
        m->trained = false;
    else if (self->state == FL_ROUND_KEYS)
        m->advertised = false;
    else if (self->state == FL_ROUND_SHARES)
        m->shared = false;
    else if (self->state == FL_ROUND_COLLECT)
        m->uploaded = false;
}

void fl_round_hear(struct fl_round *self, struct fl_member *m, const struct fl_round_input *input,
                   int64_t now_ms)
{
    switch (input->event) {
    case FL_EVENT_ONLINE:
        if (m->revoked) /* allowed again: the answers of its earlier life are void */
            *m = (struct fl_member){.site = m->site,
                                    .pledged = m->pledged,
                                    .failed_sums = m->failed_sums,
                                    .apart = m->apart};
        note_presence(self, m, true, now_ms);
        break;
    case FL_EVENT_OFFLINE:
        note_presence(self, m, false, now_ms);
        break;
    case FL_EVENT_REVOKED:
        m->revoked = true;
        m->online = false;
        break;
    case FL_EVENT_FIT:
        m->answer = FL_ANSWER_FIT;
        break;
    case FL_EVENT_REFUSED:
        m->answer = FL_ANSWER_REFUSED;
        break;
    case FL_EVENT_DEFERRED:
        m->answer = FL_ANSWER_DEFERRED;
        m->retry_at_ms = now_ms + input->wait_ms;
        break;
    case FL_EVENT_TRAINED:
        m->trained = m->cohort && !m->failed;
        break;
    case FL_EVENT_ADVERTISED:
        m->advertised = may_advertise(m);
        break;
    case FL_EVENT_SHARED:
        m->shared = may_share(m);
        break;
    case FL_EVENT_UPLOADED:
        m->uploaded = self->rules.secure ? may_upload_masked(m) : may_upload(m);
        break;
    case FL_EVENT_SIGNED:
        m->signed_ = m->signed_ || (is_uploaded(m) && !m->failed);
        break;
    case FL_EVENT_ANSWERED:
        m->answered = m->answered || (is_signed(m) && !m->failed);
        break;
    case FL_EVENT_SITE_FAILED:
        m->failed = m->cohort;
        m->differs = m->cohort && input->differs;
        lose_mark(self, m);
        if (input->permanent)
            m->answer = FL_ANSWER_REFUSED;
        else if (m->cohort &&
                 input->wait_ms > 0) { /* asked again at once it would only fail again */
            m->answer = FL_ANSWER_DEFERRED;
            m->retry_at_ms = now_ms + input->wait_ms;
        }
        break;
    default:
        break;
    }
}
