/* round_due.c - what follows from a round as it stands: counts, what a site is owed, when to wake.
 */
#include "coordinator/round_internal.h"

#include "secagg/secagg.h"

const struct fl_member *fl_round_find(const struct fl_round *self, uint32_t site)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->members[i].site == site)
            return &self->members[i];
    }
    return NULL;
}

struct fl_member *fl_round_member(struct fl_round *self, uint32_t site)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->members[i].site == site)
            return &self->members[i];
    }
    if (self->count == FL_WORKERS_MAX)
        return NULL;
    struct fl_member *added = &self->members[self->count++];
    *added = (struct fl_member){.site = site};
    return added;
}

uint32_t fl_round_cohort(const struct fl_round *self)
{
    return count_members(self, is_cohort);
}

uint32_t fl_round_trained(const struct fl_round *self)
{
    return count_members(self, is_trained);
}

uint32_t fl_round_uploaded(const struct fl_round *self)
{
    return count_members(self, is_uploaded);
}

uint32_t fl_round_advertised(const struct fl_round *self)
{
    return count_members(self, is_advertised);
}

uint32_t fl_round_pledged(const struct fl_round *self)
{
    return count_members(self, is_pledged);
}

uint32_t fl_round_needed_of(const struct fl_round_rules *rules, uint32_t advertised)
{
    uint32_t threshold = fl_secagg_threshold(advertised);
    return threshold > rules->min_workers ? threshold : rules->min_workers;
}

uint32_t fl_round_needed(const struct fl_round *self)
{
    return fl_round_needed_of(&self->rules, fl_round_advertised(self));
}

uint32_t fl_round_online(const struct fl_round *self)
{
    return count_members(self, is_online);
}

bool fl_round_only_evaluates(const struct fl_round *self)
{
    return self->round > self->rules.rounds;
}

bool fl_round_active(const struct fl_round *self)
{
    return self->state >= FL_ROUND_SELECT && self->state <= FL_ROUND_COMMIT;
}

static enum fl_due due_in_unmask(const struct fl_round *self, const struct fl_member *m)
{
    if (!m->signed_)
        return FL_DUE_SURVIVORS;
    return !m->answered && count_members(self, is_signed) >= fl_round_needed(self) ? FL_DUE_UNMASK
                                                                                   : FL_DUE_NOTHING;
}

enum fl_due fl_round_due(const struct fl_round *self, uint32_t site)
{
    const struct fl_member *m = fl_round_find(self, site);
    if (!m || !is_online(m))
        return FL_DUE_NOTHING;
    if (self->state == FL_ROUND_SELECT)
        return self->begun && !m->shunned && m->answer == FL_ANSWER_NONE ? FL_DUE_OFFER
                                                                         : FL_DUE_NOTHING;
    if (!m->cohort || m->failed)
        return FL_DUE_NOTHING;
    if (self->state == FL_ROUND_TRAIN)
        return m->trained ? FL_DUE_NOTHING : FL_DUE_TASK;
    if (self->state == FL_ROUND_KEYS)
        return m->trained && !m->advertised ? FL_DUE_KEYS : FL_DUE_NOTHING;
    if (self->state == FL_ROUND_SHARES)
        return m->advertised && !m->shared ? FL_DUE_COHORT : FL_DUE_NOTHING;
    if (self->state == FL_ROUND_UNMASK && m->uploaded)
        return due_in_unmask(self, m);
    if (m->uploaded && self->state >= FL_ROUND_COLLECT && self->state <= FL_ROUND_COMMIT)
        return FL_DUE_RECEIPT;
    if (self->state == FL_ROUND_COLLECT && (self->rules.secure ? m->shared : m->trained))
        return FL_DUE_COLLECT;
    return FL_DUE_NOTHING;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t fl_round_wake_ms(const struct fl_round *self)
{
    if (!fl_round_active(self))
        return INT64_MAX;
    int64_t wake = self->deadline_ms;
    if (self->state == FL_ROUND_SELECT) {
        wake = earlier(wake, self->entered_at_ms + self->rules.wait_timeout_ms);
        if (!self->begun && self->settle_at_ms)
            wake = earlier(wake, self->settle_at_ms);
    }
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_member *m = &self->members[i];
        if (self->state == FL_ROUND_SELECT && m->answer == FL_ANSWER_DEFERRED)
            wake = earlier(wake, m->retry_at_ms);
        if (m->cohort && !m->online)
            wake = earlier(wake, m->gone_at_ms + self->rules.liveness_timeout_ms);
    }
    return wake;
}

/* ---- names ---- */

static const char *const state_names[FL_ROUND_STATE_COUNT] = {
    "idle",   "select",    "configure", "train", "keys",   "shares", "collect",
    "unmask", "aggregate", "commit",    "done",  "paused", "failed"};

static const char *const event_names[FL_EVENT_COUNT] = {"start",
                                                        "online",
                                                        "offline",
                                                        "revoked",
                                                        "fit",
                                                        "refused",
                                                        "deferred",
                                                        "configured",
                                                        "configure_failed",
                                                        "trained",
                                                        "site_failed",
                                                        "advertised",
                                                        "shared",
                                                        "signed",
                                                        "answered",
                                                        "unmask_failed",
                                                        "uploaded",
                                                        "aggregated",
                                                        "aggregate_failed",
                                                        "storage_failed",
                                                        "committed",
                                                        "tick",
                                                        "cancel",
                                                        "resume"};

const char *fl_round_state_name(enum fl_round_state state)
{
    return state < FL_ROUND_STATE_COUNT ? state_names[state] : "unknown";
}

const char *fl_round_event_name(enum fl_round_event event)
{
    return event < FL_EVENT_COUNT ? event_names[event] : "unknown";
}
