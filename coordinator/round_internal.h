/* round_internal.h - what can be said of a member; shared by the files of the round. */
#ifndef FL_COORDINATOR_ROUND_INTERNAL_H
#define FL_COORDINATOR_ROUND_INTERNAL_H

#include "coordinator/round.h"

static inline uint32_t count_members(const struct fl_round *self,
                                     bool (*test)(const struct fl_member *))
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->count; i++)
        n += test(&self->members[i]);
    return n;
}

static inline bool is_online(const struct fl_member *m)
{
    return m->online && !m->revoked;
}

/* May be asked to take part. */
static inline bool is_wanted(const struct fl_member *m)
{
    return is_online(m) && !m->shunned;
}

/* It would take part if it were asked. */
static inline bool is_willing(const struct fl_member *m)
{
    return is_online(m) && m->answer != FL_ANSWER_REFUSED && m->answer != FL_ANSWER_DEFERRED;
}

static inline bool is_fit(const struct fl_member *m)
{
    return is_wanted(m) && m->answer == FL_ANSWER_FIT;
}

static inline bool is_candidate(const struct fl_member *m)
{
    return !m->revoked && m->answer != FL_ANSWER_REFUSED;
}

static inline bool is_refusing(const struct fl_member *m)
{
    return !m->revoked && m->answer == FL_ANSWER_REFUSED;
}

static inline bool is_silent(const struct fl_member *m)
{
    return is_wanted(m) && m->answer == FL_ANSWER_NONE;
}

static inline bool is_missing(const struct fl_member *m)
{
    return m->seen && !m->online && !m->shunned && is_candidate(m);
}

static inline bool is_cohort(const struct fl_member *m)
{
    return m->cohort;
}

static inline bool is_pledged(const struct fl_member *m)
{
    return m->pledged;
}

/* A pledge that it is part of can never be met. */
static inline bool is_lost_pledge(const struct fl_member *m)
{
    return m->pledged && (m->revoked || m->answer == FL_ANSWER_REFUSED);
}

static inline bool is_absent_pledge(const struct fl_member *m)
{
    return m->pledged && !is_fit(m);
}

/* T, U1, U2, U3 */
static inline bool is_trained(const struct fl_member *m)
{
    return m->cohort && m->trained;
}

static inline bool is_advertised(const struct fl_member *m)
{
    return m->cohort && m->advertised;
}

static inline bool is_shared(const struct fl_member *m)
{
    return m->cohort && m->shared;
}

static inline bool is_uploaded(const struct fl_member *m)
{
    return m->cohort && m->uploaded;
}

static inline bool is_signed(const struct fl_member *m)
{
    return is_uploaded(m) && m->signed_;
}

static inline bool is_answered(const struct fl_member *m)
{
    return is_uploaded(m) && m->answered;
}

/* Who may still come into a set: the members of the one before it that are well. */
static inline bool may_train(const struct fl_member *m)
{
    return m->cohort && !m->failed && !m->revoked;
}

static inline bool may_advertise(const struct fl_member *m)
{
    return is_trained(m) && !m->failed && !m->revoked;
}

static inline bool may_share(const struct fl_member *m)
{
    return is_advertised(m) && !m->failed && !m->revoked;
}

static inline bool may_upload(const struct fl_member *m)
{
    return is_trained(m) && !m->failed && !m->revoked;
}

static inline bool may_upload_masked(const struct fl_member *m)
{
    return is_shared(m) && !m->failed && !m->revoked;
}

static inline bool may_answer(const struct fl_member *m)
{
    return is_answered(m) || (is_uploaded(m) && !m->failed && !m->revoked);
}

static inline bool is_revoked_cohort(const struct fl_member *m)
{
    return m->cohort && m->revoked;
}

/* ---- round_heard.c ---- */
/* Enter what the event says of its site, a member. */
void fl_round_hear(struct fl_round *self, struct fl_member *m, const struct fl_round_input *input,
                   int64_t now_ms);

/* ---- round_left_out.c ---- */
/* SELECT: who is left out is not asked, unless too few others are there. Returns effects. */
uint32_t fl_round_shun(struct fl_round *self);
/* Whom the input names. */
void fl_round_leave_out(struct fl_round *self, const struct fl_round_input *input);
/* Members of the cohort that have not done what the stage waits for. */
void fl_round_leave_out_late(struct fl_round *self);
void fl_round_forgive(struct fl_round *self);
/* A sum over the members that uploaded failed, and nobody was blamed; or it held. */
void fl_round_suspect(struct fl_round *self);
void fl_round_clear(struct fl_round *self);
/* On the way into SELECT: who is to be kept apart. */
void fl_round_set_apart(struct fl_round *self);

#endif
