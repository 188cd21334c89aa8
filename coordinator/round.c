/*
 * round.c - the table of the round and the function that walks it.
 *
 * Invariants: enter() alone assigns the state; a version is entered once a round; a row's guard
 * looks only at the value itself and the time.
 */
#include "coordinator/round_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "job/attempt.h"

#define E(event) (1u << FL_EVENT_##event)

/* The events that change who may still finish, and with what a stage waits for: it is heard in that
   stage alone. Who says it later, or is heard later since the disk had refused, is in no set. */
#define MEMBERS  (E(ONLINE) | E(OFFLINE) | E(REVOKED) | E(SITE_FAILED) | E(TICK))
#define TRAINED  (MEMBERS | E(TRAINED))
#define KEYED    (MEMBERS | E(ADVERTISED))
#define SHARED   (MEMBERS | E(SHARED))
#define UPLOADED (MEMBERS | E(UPLOADED))
#define OPENED   (MEMBERS | E(SIGNED) | E(ANSWERED))
#define ANSWERS  (E(ONLINE) | E(OFFLINE) | E(REVOKED) | E(FIT) | E(REFUSED) | E(DEFERRED) | E(TICK))
#define PRESENCE (E(ONLINE) | E(OFFLINE))

typedef bool (*guard_function)(const struct fl_round *, int64_t now_ms);

enum move { /* what happens to round, attempt and breaks on the way */
            MOVE_STAY,
            MOVE_ON,
            MOVE_RETRY, /* another attempt that nobody is to blame for */
            MOVE_BREAK, /* another attempt after a broken one */
            MOVE_ANEW,  /* another attempt, for which all sites train again */
            MOVE_NEXT   /* the next round */
};

struct row {
    enum fl_round_state from;
    uint32_t events;
    guard_function guard; /* NULL: always */
    enum fl_round_state to;
    enum move move;
    uint32_t effects;
    const char *reason; /* where the event brings none */
};

/* ---- guards ---- */

static bool overdue(const struct fl_round *self, int64_t now_ms)
{
    return now_ms >= self->deadline_ms;
}

/* Refusals leave too few sites. Without any refusal more sites may still enrol. */
static bool too_few_left(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return count_members(self, is_refusing) > 0 &&
           count_members(self, is_candidate) < self->rules.min_workers;
}

static bool enough_fit(const struct fl_round *self)
{
    return count_members(self, is_fit) >= self->rules.min_workers;
}

static bool pledge_lost(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return count_members(self, is_lost_pledge) > 0;
}

/* A new attempt would end before anybody was asked. It is not counted: a life of the coordinator
   has a hundred numbers (job/attempt.h), and who resumes again and again would use them up. */
static bool resumes_in_vain(const struct fl_round *self, int64_t now_ms)
{
    return pledge_lost(self, now_ms) && !too_few_left(self, now_ms);
}

/* How many a stage needs: as many as the rules say, or all that the round is pledged to. */
static uint32_t least_of(const struct fl_round *self, uint32_t least)
{
    uint32_t pledged = fl_round_pledged(self);
    return pledged > least ? pledged : least;
}

static bool selected(const struct fl_round *self, int64_t now_ms)
{
    if (fl_round_pledged(self) > 0)
        return self->begun && count_members(self, is_absent_pledge) == 0;
    return self->begun && enough_fit(self) &&
           (count_members(self, is_silent) == 0 || overdue(self, now_ms));
}

static bool waited_too_long(const struct fl_round *self, int64_t now_ms)
{
    return now_ms - self->entered_at_ms >= self->rules.wait_timeout_ms;
}

/* The evaluation behind the last round is worth a short wait only. */
static bool give_up_evaluation(const struct fl_round *self, int64_t now_ms)
{
    return fl_round_only_evaluates(self) && (overdue(self, now_ms) || too_few_left(self, now_ms) ||
                                             self->breaks >= FL_ROUND_BREAKS_MAX);
}

static bool cohort_revoked(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return count_members(self, is_revoked_cohort) > 0;
}

/* A site whose session ended a moment ago still counts: connections break and return. */
static bool is_live(const struct fl_round *self, const struct fl_member *m, int64_t now_ms)
{
    return m->online || now_ms - m->gone_at_ms < self->rules.liveness_timeout_ms;
}

typedef bool (*member_test)(const struct fl_member *);

/* At least `least` members have it, and nobody who may still get it is worth waiting for. */
static bool complete(const struct fl_round *self, int64_t now_ms, member_test has, member_test may,
                     uint32_t least)
{
    if (count_members(self, has) < least_of(self, least))
        return false;
    if (overdue(self, now_ms))
        return true;
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_member *m = &self->members[i];
        if (may(m) && !has(m) && is_live(self, m, now_ms))
            return false;
    }
    return true;
}

static bool trained(const struct fl_round *self, int64_t now_ms)
{
    return complete(self, now_ms, is_trained, may_train, self->rules.min_workers);
}

static bool trained_secure(const struct fl_round *self, int64_t now_ms)
{
    return self->rules.secure && trained(self, now_ms);
}

static bool advertised(const struct fl_round *self, int64_t now_ms)
{
    return complete(self, now_ms, is_advertised, may_advertise, self->rules.min_workers);
}

static bool shared(const struct fl_round *self, int64_t now_ms)
{
    return complete(self, now_ms, is_shared, may_share, fl_round_needed(self));
}

static bool collected_plain(const struct fl_round *self, int64_t now_ms)
{
    return !self->rules.secure &&
           complete(self, now_ms, is_uploaded, may_upload, self->rules.min_workers);
}

static bool collected_secure(const struct fl_round *self, int64_t now_ms)
{
    return self->rules.secure &&
           complete(self, now_ms, is_uploaded, may_upload_masked, fl_round_needed(self));
}

/* Answers were asked for: whether any was given, a lost message may hide. */
static bool was_asked(const struct fl_round *self)
{
    return count_members(self, is_signed) >= fl_round_needed(self);
}

/* The one signature more that lets the survivors answer. */
static bool just_signed(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return count_members(self, is_signed) == fl_round_needed(self);
}

/* Enough answers open the sum; more are waited for only from who is there and may give one, since
   a spare answer is what shows who lies. */
static bool answered(const struct fl_round *self, int64_t now_ms)
{
    if (count_members(self, is_answered) < fl_round_needed(self))
        return false;
    for (uint32_t i = 0; i < self->count && !overdue(self, now_ms); i++) {
        const struct fl_member *m = &self->members[i];
        if (may_answer(m) && !is_answered(m) && m->online)
            return false;
    }
    return true;
}

static bool train_hopeless(const struct fl_round *self, int64_t now_ms)
{
    return count_members(self, may_train) < least_of(self, self->rules.min_workers) ||
           overdue(self, now_ms);
}

static bool keys_hopeless(const struct fl_round *self, int64_t now_ms)
{
    return count_members(self, may_advertise) < least_of(self, self->rules.min_workers) ||
           overdue(self, now_ms);
}

static bool shares_hopeless(const struct fl_round *self, int64_t now_ms)
{
    return count_members(self, may_share) < least_of(self, fl_round_needed(self)) ||
           overdue(self, now_ms);
}

static bool collect_hopeless(const struct fl_round *self, int64_t now_ms)
{
    bool secure = self->rules.secure;
    uint32_t least = secure ? fl_round_needed(self) : self->rules.min_workers;
    return count_members(self, secure ? may_upload_masked : may_upload) < least_of(self, least) ||
           overdue(self, now_ms);
}

static bool unmask_hopeless(const struct fl_round *self, int64_t now_ms)
{
    /* behind the first answer only the same sites can ever finish the round: they are waited for */
    return count_members(self, may_answer) < fl_round_needed(self) ||
           (overdue(self, now_ms) && !was_asked(self));
}

static bool last_break(const struct fl_round *self)
{
    return self->breaks + 1 >= FL_ROUND_BREAKS_MAX && !fl_round_only_evaluates(self);
}

static bool last_break_guard(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return last_break(self);
}

/* A sum over the same updates would fail again, and the sites help with no other one. */
static bool begins_anew(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return self->rules.secure && self->rules.draws && !fl_round_only_evaluates(self) &&
           self->retraining < FL_RETRAININGS_MAX;
}

/* In a later life of a restored job: the sites helped once with a sum of this work that the copy
   does not know, and will help with none over other sites. Elsewhere their refusal stands: whoever
   asks for the same work over fewer sites may not have it by training again. */
static bool sum_is_refused(const struct fl_round *self, int64_t now_ms)
{
    bool refused = false;
    for (uint32_t i = 0; i < self->count; i++)
        refused = refused || (self->members[i].cohort && self->members[i].differs);
    return refused && fl_attempt_life(self->attempt) > 0 && unmask_hopeless(self, now_ms) &&
           begins_anew(self, now_ms);
}

static bool train_ends_it(const struct fl_round *self, int64_t now_ms)
{
    return last_break(self) && train_hopeless(self, now_ms);
}

static bool keys_end_it(const struct fl_round *self, int64_t now_ms)
{
    return last_break(self) && keys_hopeless(self, now_ms);
}

static bool shares_end_it(const struct fl_round *self, int64_t now_ms)
{
    return last_break(self) && shares_hopeless(self, now_ms);
}

static bool collect_ends_it(const struct fl_round *self, int64_t now_ms)
{
    return last_break(self) && collect_hopeless(self, now_ms);
}

static bool unmask_ends_it(const struct fl_round *self, int64_t now_ms)
{
    return last_break(self) && unmask_hopeless(self, now_ms);
}

static bool is_last(const struct fl_round *self, int64_t now_ms)
{
    (void)now_ms;
    return self->round > self->rules.rounds ||
           (self->round == self->rules.rounds && !self->rules.final_round);
}

/* ---- the table ---- */

#define SELECT_AGAIN (FL_EFFECT_PERSIST | FL_EFFECT_ABANDON)
#define ENDED        (FL_EFFECT_PERSIST | FL_EFFECT_END)
#define BROKEN       (ENDED | FL_EFFECT_ABANDON)
#define KEEP         (FL_EFFECT_PERSIST | FL_EFFECT_SEND_SITE)
#define TOO_FEW      "too few sites could finish the round"
#define PLEDGE_LOST                                                                                \
    "a site left behind the first answers of this round, and the others may not open a sum "       \
    "without "                                                                                     \
    "it: cancel, and submit a job that starts from the newest version with another seed"
#define REVOKED_ONE "a site of the round was revoked"

#define REVOKES(state_, events_)                                                                   \
    {                                                                                              \
        FL_ROUND_##state_, events_, cohort_revoked, FL_ROUND_SELECT, MOVE_RETRY, SELECT_AGAIN,     \
            REVOKED_ONE                                                                            \
    }

#define BREAKS(state_, events_, hopeless, ends)                                                    \
    {FL_ROUND_##state_, events_, ends, FL_ROUND_PAUSED, MOVE_ON, BROKEN, TOO_FEW},                 \
    {                                                                                              \
        FL_ROUND_##state_, events_, hopeless, FL_ROUND_SELECT, MOVE_BREAK, SELECT_AGAIN, TOO_FEW   \
    }

#define CANCELS(state_)                                                                            \
    {                                                                                              \
        FL_ROUND_##state_, E(CANCEL), NULL, FL_ROUND_IDLE, MOVE_ON, BROKEN, "cancelled"            \
    }

/* clang-format off */
static const struct row table[] = {
    {FL_ROUND_IDLE, E(START), NULL, FL_ROUND_SELECT, MOVE_ON, FL_EFFECT_PERSIST, NULL},
    {FL_ROUND_IDLE, PRESENCE | E(REVOKED), NULL, FL_ROUND_IDLE, MOVE_STAY, 0, NULL},

    {FL_ROUND_SELECT, ANSWERS, give_up_evaluation, FL_ROUND_DONE, MOVE_ON, ENDED, NULL},
    {FL_ROUND_SELECT, ANSWERS, too_few_left, FL_ROUND_FAILED, MOVE_ON, ENDED,
     "refusals leave too few sites"},
    {FL_ROUND_SELECT, ANSWERS, pledge_lost, FL_ROUND_PAUSED, MOVE_ON, ENDED, PLEDGE_LOST},
    {FL_ROUND_SELECT, ANSWERS, selected, FL_ROUND_CONFIGURE, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_CONFIGURE, NULL},
    {FL_ROUND_SELECT, E(TICK), waited_too_long, FL_ROUND_FAILED, MOVE_ON, ENDED,
     "too few sites came within wait_timeout"},
    {FL_ROUND_SELECT, ANSWERS, NULL, FL_ROUND_SELECT, MOVE_STAY, FL_EFFECT_SEND_SITE, NULL},
    CANCELS(SELECT),

    REVOKES(CONFIGURE, E(REVOKED) | E(TICK) | E(CONFIGURED)),
    {FL_ROUND_CONFIGURE, E(CONFIGURED), NULL, FL_ROUND_TRAIN, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_SEND_ALL, NULL},
    {FL_ROUND_CONFIGURE, E(CONFIGURE_FAILED), NULL, FL_ROUND_FAILED, MOVE_ON, BROKEN, NULL},
    {FL_ROUND_CONFIGURE, E(STORAGE_FAILED), NULL, FL_ROUND_CONFIGURE, MOVE_STAY, 0, NULL},
    {FL_ROUND_CONFIGURE, E(TICK), overdue, FL_ROUND_CONFIGURE, MOVE_STAY, FL_EFFECT_CONFIGURE,
     NULL},
    {FL_ROUND_CONFIGURE, PRESENCE | E(REVOKED) | E(SITE_FAILED), NULL, FL_ROUND_CONFIGURE,
     MOVE_STAY, 0, NULL},
    CANCELS(CONFIGURE),

    REVOKES(TRAIN, TRAINED),
    {FL_ROUND_TRAIN, TRAINED, trained_secure, FL_ROUND_KEYS, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_SEND_ALL, NULL},
    {FL_ROUND_TRAIN, TRAINED, trained, FL_ROUND_COLLECT, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_COLLECT | FL_EFFECT_SEND_ALL, NULL},
    BREAKS(TRAIN, TRAINED, train_hopeless, train_ends_it),
    {FL_ROUND_TRAIN, E(TRAINED) | E(SITE_FAILED), NULL, FL_ROUND_TRAIN, MOVE_STAY,
     FL_EFFECT_PERSIST, NULL},
    {FL_ROUND_TRAIN, MEMBERS, NULL, FL_ROUND_TRAIN, MOVE_STAY, FL_EFFECT_SEND_SITE, NULL},
    CANCELS(TRAIN),

    REVOKES(KEYS, KEYED),
    {FL_ROUND_KEYS, KEYED, advertised, FL_ROUND_SHARES, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_COLLECT | FL_EFFECT_SEND_ALL, NULL},
    BREAKS(KEYS, KEYED, keys_hopeless, keys_end_it),
    {FL_ROUND_KEYS, E(ADVERTISED) | E(SITE_FAILED), NULL, FL_ROUND_KEYS, MOVE_STAY,
     FL_EFFECT_PERSIST, NULL},
    {FL_ROUND_KEYS, MEMBERS, NULL, FL_ROUND_KEYS, MOVE_STAY, FL_EFFECT_SEND_SITE, NULL},
    CANCELS(KEYS),

    REVOKES(SHARES, SHARED),
    {FL_ROUND_SHARES, SHARED, shared, FL_ROUND_COLLECT, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_SEND_ALL, NULL},
    BREAKS(SHARES, SHARED, shares_hopeless, shares_end_it),
    {FL_ROUND_SHARES, E(UNMASK_FAILED), last_break_guard, FL_ROUND_PAUSED, MOVE_ON, BROKEN, NULL},
    {FL_ROUND_SHARES, E(UNMASK_FAILED), NULL, FL_ROUND_SELECT, MOVE_BREAK, SELECT_AGAIN, NULL},
    {FL_ROUND_SHARES, E(SHARED) | E(SITE_FAILED), NULL, FL_ROUND_SHARES, MOVE_STAY,
     FL_EFFECT_PERSIST, NULL},
    {FL_ROUND_SHARES, MEMBERS, NULL, FL_ROUND_SHARES, MOVE_STAY, FL_EFFECT_SEND_SITE, NULL},
    CANCELS(SHARES),

    REVOKES(COLLECT, UPLOADED),
    {FL_ROUND_COLLECT, UPLOADED, collected_secure, FL_ROUND_UNMASK, MOVE_ON,
     KEEP | FL_EFFECT_SEND_ALL | FL_EFFECT_SURVIVORS, NULL},
    {FL_ROUND_COLLECT, UPLOADED, collected_plain, FL_ROUND_AGGREGATE, MOVE_ON,
     KEEP | FL_EFFECT_AGGREGATE, NULL},
    BREAKS(COLLECT, UPLOADED, collect_hopeless, collect_ends_it),
    {FL_ROUND_COLLECT, E(UPLOADED) | E(SITE_FAILED), NULL, FL_ROUND_COLLECT, MOVE_STAY, KEEP,
     NULL},
    {FL_ROUND_COLLECT, MEMBERS, NULL, FL_ROUND_COLLECT, MOVE_STAY, FL_EFFECT_SEND_SITE, NULL},
    CANCELS(COLLECT),

    REVOKES(UNMASK, OPENED),
    {FL_ROUND_UNMASK, OPENED, answered, FL_ROUND_AGGREGATE, MOVE_ON, KEEP | FL_EFFECT_AGGREGATE,
     NULL},
    {FL_ROUND_UNMASK, OPENED, sum_is_refused, FL_ROUND_SELECT, MOVE_ANEW, SELECT_AGAIN, NULL},
    BREAKS(UNMASK, OPENED, unmask_hopeless, unmask_ends_it),
    {FL_ROUND_UNMASK, E(UNMASK_FAILED), last_break_guard, FL_ROUND_PAUSED, MOVE_ON, BROKEN, NULL},
    {FL_ROUND_UNMASK, E(UNMASK_FAILED), NULL, FL_ROUND_SELECT, MOVE_BREAK, SELECT_AGAIN, NULL},
    {FL_ROUND_UNMASK, E(SIGNED), just_signed, FL_ROUND_UNMASK, MOVE_STAY,
     FL_EFFECT_PERSIST | FL_EFFECT_SEND_ALL, NULL},
    {FL_ROUND_UNMASK, E(SIGNED) | E(ANSWERED) | E(SITE_FAILED), NULL, FL_ROUND_UNMASK, MOVE_STAY,
     KEEP, NULL},
    {FL_ROUND_UNMASK, MEMBERS, NULL, FL_ROUND_UNMASK, MOVE_STAY, FL_EFFECT_SEND_SITE, NULL},
    CANCELS(UNMASK),

    REVOKES(AGGREGATE, E(REVOKED) | E(TICK) | E(AGGREGATED)),
    {FL_ROUND_AGGREGATE, E(AGGREGATED), NULL, FL_ROUND_COMMIT, MOVE_ON,
     FL_EFFECT_PERSIST | FL_EFFECT_COMMIT, NULL},
    {FL_ROUND_AGGREGATE, E(AGGREGATE_FAILED), begins_anew, FL_ROUND_SELECT, MOVE_ANEW, SELECT_AGAIN,
     NULL},
    {FL_ROUND_AGGREGATE, E(AGGREGATE_FAILED), last_break_guard, FL_ROUND_PAUSED, MOVE_ON, BROKEN,
     NULL},
    {FL_ROUND_AGGREGATE, E(AGGREGATE_FAILED), NULL, FL_ROUND_SELECT, MOVE_BREAK, SELECT_AGAIN,
     NULL},
    {FL_ROUND_AGGREGATE, E(STORAGE_FAILED), NULL, FL_ROUND_AGGREGATE, MOVE_STAY, 0, NULL},
    {FL_ROUND_AGGREGATE, E(TICK), overdue, FL_ROUND_AGGREGATE, MOVE_STAY, FL_EFFECT_AGGREGATE,
     NULL},
    {FL_ROUND_AGGREGATE, PRESENCE | E(REVOKED), NULL, FL_ROUND_AGGREGATE, MOVE_STAY,
     FL_EFFECT_SEND_SITE, NULL},
    CANCELS(AGGREGATE),

    {FL_ROUND_COMMIT, E(COMMITTED), is_last, FL_ROUND_DONE, MOVE_ON, ENDED | FL_EFFECT_NEXT, NULL},
    {FL_ROUND_COMMIT, E(COMMITTED), NULL, FL_ROUND_SELECT, MOVE_NEXT,
     FL_EFFECT_PERSIST | FL_EFFECT_NEXT, NULL},
    {FL_ROUND_COMMIT, E(AGGREGATE_FAILED), begins_anew, FL_ROUND_SELECT, MOVE_ANEW, SELECT_AGAIN,
     NULL},
    {FL_ROUND_COMMIT, E(AGGREGATE_FAILED), last_break_guard, FL_ROUND_PAUSED, MOVE_ON, BROKEN,
     NULL}, /* a restart sums again */
    {FL_ROUND_COMMIT, E(AGGREGATE_FAILED), NULL, FL_ROUND_SELECT, MOVE_BREAK, SELECT_AGAIN, NULL},
    {FL_ROUND_COMMIT, E(STORAGE_FAILED), NULL, FL_ROUND_COMMIT, MOVE_STAY, 0, NULL},
    {FL_ROUND_COMMIT, E(TICK), overdue, FL_ROUND_COMMIT, MOVE_STAY, FL_EFFECT_COMMIT, NULL},
    {FL_ROUND_COMMIT, PRESENCE | E(REVOKED), NULL, FL_ROUND_COMMIT, MOVE_STAY,
     FL_EFFECT_SEND_SITE, NULL},
    CANCELS(COMMIT),

    {FL_ROUND_PAUSED, E(RESUME), resumes_in_vain, FL_ROUND_PAUSED, MOVE_ON, ENDED, PLEDGE_LOST},
    {FL_ROUND_PAUSED, E(RESUME), NULL, FL_ROUND_SELECT, MOVE_RETRY, FL_EFFECT_PERSIST, NULL},
    {FL_ROUND_PAUSED, PRESENCE | E(REVOKED), NULL, FL_ROUND_PAUSED, MOVE_STAY, 0, NULL},
    CANCELS(PAUSED),
};
/* clang-format on */

#define ROWS (sizeof table / sizeof table[0])

bool fl_round_accepts(enum fl_round_state state, enum fl_round_event event)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (table[i].from == state && table[i].events & (1u << event))
            return true;
    }
    return false;
}

/* ---- events ---- */

static bool has_site(enum fl_round_event event)
{
    return ((E(ONLINE) | E(OFFLINE) | E(REVOKED) | E(FIT) | E(REFUSED) | E(DEFERRED) | E(TRAINED) |
             E(UPLOADED) | E(SITE_FAILED) | E(ADVERTISED) | E(SHARED) | E(SIGNED) | E(ANSWERED)) >>
            event) &
           1u;
}

/* Begin to send offers once enough sites are there and no known one is about to connect. */
static uint32_t begin_selection(struct fl_round *self, int64_t now_ms)
{
    if (count_members(self, is_wanted) < self->rules.min_workers) {
        self->settle_at_ms = 0;
        return 0;
    }
    if (self->settle_at_ms == 0)
        self->settle_at_ms = now_ms + (self->fresh ? FL_ROUND_SETTLE_MS : 0);
    if (now_ms < self->settle_at_ms && count_members(self, is_missing) > 0)
        return 0;
    self->begun = true;
    self->fresh = false;
    self->deadline_ms = now_ms + self->rules.select_timeout_ms;
    return FL_EFFECT_SEND_ALL;
}

/* Ask those again whose time of refusal is over. */
static uint32_t ask_again(struct fl_round *self, int64_t now_ms)
{
    uint32_t effects = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_member *m = &self->members[i];
        if (m->answer == FL_ANSWER_DEFERRED && now_ms >= m->retry_at_ms) {
            m->answer = FL_ANSWER_NONE;
            effects = FL_EFFECT_SEND_ALL;
        }
    }
    return effects;
}

/* Keys, shares and answers are made in a moment: who is there and says nothing is not waited for as
   long as a training may take. */
static int64_t mask_timeout(const struct fl_round *self)
{
    return FL_ROUND_MASK_MS < self->rules.round_timeout_ms ? FL_ROUND_MASK_MS
                                                           : self->rules.round_timeout_ms;
}

/* The deadline is over and decides nothing: it is armed anew, or nobody would sleep. */
static bool waits_for_answers(const struct fl_round *self, int64_t now_ms)
{
    return overdue(self, now_ms) && was_asked(self) &&
           count_members(self, is_answered) < fl_round_needed(self);
}

static uint32_t note(struct fl_round *self, const struct fl_round_input *input, int64_t now_ms)
{
    if (has_site(input->event)) {
        struct fl_member *m = fl_round_member(self, input->site);
        if (m)
            fl_round_hear(self, m, input, now_ms);
    }
    if (input->event == FL_EVENT_STORAGE_FAILED)
        self->deadline_ms = now_ms + FL_ROUND_RETRY_MS;
    if (self->state == FL_ROUND_UNMASK && waits_for_answers(self, now_ms))
        self->deadline_ms = now_ms + mask_timeout(self);
    if (self->state != FL_ROUND_SELECT)
        return 0;
    uint32_t effects = ask_again(self, now_ms) | fl_round_shun(self);
    if (!self->begun)
        effects |= begin_selection(self, now_ms);
    return effects;
}

/* ---- entering a state ---- */

static void unpledge(struct fl_round *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        self->members[i].pledged = false;
}

/* Of an attempt that ends without its version. */
static void pledge(struct fl_round *self)
{
    bool asked = self->state >= FL_ROUND_UNMASK && was_asked(self);
    for (uint32_t i = 0; i < self->count && asked; i++)
        self->members[i].pledged = is_uploaded(&self->members[i]);
}

static void forget_attempt(struct fl_round *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_member *m = &self->members[i];
        m->cohort = m->trained = m->uploaded = m->failed = m->differs = false;
        m->advertised = m->shared = m->signed_ = m->answered = false;
        if (m->answer == FL_ANSWER_FIT)
            m->answer = FL_ANSWER_NONE;
    }
}

static void fix_cohort(struct fl_round *self)
{
    uint32_t taken = 0, pledged = fl_round_pledged(self);
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_member *m = &self->members[i];
        bool room = self->rules.max_workers == 0 || taken < self->rules.max_workers;
        m->cohort = room && is_fit(m) && (pledged == 0 || m->pledged);
        taken += m->cohort;
    }
}

static void move_counters(struct fl_round *self, enum move move)
{
    if (move == MOVE_NEXT) {
        self->round++;
        self->attempt = 1;
        self->breaks = 0;
        self->retraining = self->anew_from = 0;
        self->reason[0] = '\0';
        fl_round_forgive(self);
    } else if (move == MOVE_RETRY) {
        self->attempt++;
        if (self->state == FL_ROUND_PAUSED) {
            self->breaks = 0;
            fl_round_forgive(self);
        }
    } else if (move == MOVE_BREAK) {
        self->attempt++;
        self->breaks++;
    } else if (move == MOVE_ANEW) {
        self->anew_from = ++self->attempt;
        self->retraining++;
    }
}

/* The only place that assigns the state. */
static void enter(struct fl_round *self, enum fl_round_state to, int64_t now_ms)
{
    self->state = to;
    self->entered_at_ms = now_ms;
    self->deadline_ms = INT64_MAX;
    switch (to) {
    case FL_ROUND_SELECT:
        self->begun = false;
        self->settle_at_ms = 0;
        if (fl_round_only_evaluates(self))
            self->deadline_ms = now_ms + self->rules.select_timeout_ms;
        break;
    case FL_ROUND_TRAIN:
    case FL_ROUND_COLLECT:
        self->deadline_ms = now_ms + self->rules.round_timeout_ms;
        break;
    case FL_ROUND_KEYS:
    case FL_ROUND_SHARES:
    case FL_ROUND_UNMASK:
        self->deadline_ms = now_ms + mask_timeout(self);
        break;
    default:
        break;
    }
}

static void set_reason(struct fl_round *self, const struct row *row,
                       const struct fl_round_input *input)
{
    const char *reason = input->reason && input->reason[0] ? input->reason : row->reason;
    if (reason && row->to != FL_ROUND_DONE)
        (void)snprintf(self->reason, sizeof self->reason, "%s", reason);
}

static void take(struct fl_round *self, const struct row *row, const struct fl_round_input *input,
                 int64_t now_ms)
{
    if (row->move == MOVE_STAY)
        return;
    set_reason(self, row, input);
    if (input->event == FL_EVENT_AGGREGATE_FAILED && self->rules.secure &&
        input->leave_out_count == 0)
        fl_round_suspect(self);
    if (input->event == FL_EVENT_COMMITTED)
        fl_round_clear(self);
    if (row->move == MOVE_NEXT || row->move == MOVE_ANEW)
        unpledge(self);
    else if (row->effects & FL_EFFECT_ABANDON)
        pledge(self);
    /* time was up: those that were waited for are why */
    if (row->move == MOVE_BREAK && input->event != FL_EVENT_UNMASK_FAILED && overdue(self, now_ms))
        fl_round_leave_out_late(self);
    move_counters(self, row->move);
    if (row->to == FL_ROUND_SELECT) {
        forget_attempt(self);
        fl_round_set_apart(self);
        (void)fl_round_shun(self);
    }
    if (row->to == FL_ROUND_CONFIGURE)
        fix_cohort(self);
    if (row->to == FL_ROUND_IDLE)
        self->cancelled = true;
    enter(self, row->to, now_ms);
}

/* ---- the end of a hundred ---- */

#define NO_NUMBER                                                                                  \
    "this round has used up the attempt numbers of its hundred, and the next are those of "        \
    "copies: "                                                                                     \
    "serve a `backup` of this coordinator in its place, or cancel, and submit a job that starts "  \
    "from the newest version"

static bool takes_a_number(const struct row *row)
{
    return row->move == MOVE_RETRY || row->move == MOVE_BREAK || row->move == MOVE_ANEW;
}

/* Returns the effects. What happens in place of an attempt that no number is left for: a copy of
   the database counts in the next hundred, and nobody here can know whether one does already. */
static uint32_t stop_counting(struct fl_round *self, const struct row *in_place_of,
                              const struct fl_round_input *input, int64_t now_ms)
{
    struct fl_round_input unexplained = *input;
    const struct row stop = {.from = self->state,
                             .to = fl_round_only_evaluates(self) ? FL_ROUND_DONE : FL_ROUND_PAUSED,
                             .move = MOVE_ON,
                             .effects = ENDED | (in_place_of->effects & FL_EFFECT_ABANDON),
                             .reason = NO_NUMBER};
    unexplained.reason = NULL;
    take(self, &stop, &unexplained, now_ms);
    return stop.effects;
}

uint32_t fl_round_step(struct fl_round *self, const struct fl_round_input *input, int64_t now_ms)
{
    assert(input->event < FL_EVENT_COUNT);
    if (!fl_round_accepts(self->state, input->event))
        return 0;
    if (has_site(input->event) && !fl_round_member(self, input->site))
        return 0;
    fl_round_leave_out(self, input);
    uint32_t effects = note(self, input, now_ms);
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *row = &table[i];
        if (row->from != self->state || !(row->events & (1u << input->event)))
            continue;
        if (row->guard && !row->guard(self, now_ms))
            continue;
        if (takes_a_number(row) && fl_attempt_is_last(self->attempt)) {
            effects |= stop_counting(self, row, input, now_ms);
            break;
        }
        take(self, row, input, now_ms);
        effects |= row->effects;
        if (row->effects & FL_EFFECT_CONFIGURE || row->effects & FL_EFFECT_AGGREGATE ||
            row->effects & FL_EFFECT_COMMIT)
            self->deadline_ms = INT64_MAX; /* the answer comes as an event */
        break;
    }
    if (!has_site(input->event))
        effects &= ~(uint32_t)FL_EFFECT_SEND_SITE;
    return effects;
}

/* ---- beginning, and beginning again ---- */

void fl_round_init(struct fl_round *self, const struct fl_round_rules *rules)
{
    memset(self, 0, sizeof *self);
    self->rules = *rules;
    self->round = 1;
    self->attempt = 1;
    self->fresh = true;
    enter(self, FL_ROUND_IDLE, 0);
}

void fl_round_restore(struct fl_round *self, enum fl_round_state state, uint32_t round,
                      uint32_t attempt, uint32_t breaks, int64_t now_ms)
{
    self->round = round;
    self->attempt = attempt;
    self->breaks = breaks;
    self->fresh = true;
    for (uint32_t i = 0; i < self->count; i++)
        self->members[i].gone_at_ms = now_ms;
    fl_round_set_apart(self);
    enter(self, state, now_ms);
    if (state == FL_ROUND_CONFIGURE || state == FL_ROUND_AGGREGATE || state == FL_ROUND_COMMIT)
        self->deadline_ms = now_ms; /* the work was lost with the process: begin it again */
}
