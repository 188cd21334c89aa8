/*
 * round.h - the round as the coordinator sees it: a pure state machine walked from a static table.
 *
 * fl_round_step() takes an event and the time and gives the next state and what is to be done
 * (effects). It knows no clock, socket, disk or heap; the caller commits the new value to the
 * database before it carries out the effects, and throws it away when that fails.
 * What a site is owed at any moment follows from the state (fl_round_due), so a message that was
 * lost, or a site that returns, needs no memory of what was sent.
 * KEYS, SHARES and UNMASK are passed only by jobs with secure aggregation. The sets of secagg.h are
 * the members' marks, each fixed when its stage is left: U1 advertised (KEYS), U2 shared (SHARES),
 * U3 uploaded (COLLECT). Who fails in a stage loses its mark; who fails later stays in the set and
 * is one of its dropouts.
 * A pledge: a survivor that has answered helps with no other sum of this round's updates than one
 * over the same survivors (worker/ledger.h). An attempt that breaks after answers were asked for
 * pledges the round to that set: further attempts take exactly these sites, and all of them.
 * Who is blamed for an attempt, or was waited for in vain while it broke, is left out of the
 * round's next attempts as long as enough others are there: one site alone cannot stop a job.
 * A masked sum that turns out wrong names nobody, and tried again with the same updates it would be
 * wrong again. So the round is trained anew, a few times at most: to the sites that is other work,
 * the pledge does not bind it, and it may take other sites. How many failed sums a site was in is
 * counted over the whole job, until one with it holds. The most suspect are kept apart while enough
 * others are there: within the round all of them, or half if there are too few others; in a later
 * round half, so that those who did nothing come back (round_left_out.c).
 * Attempts are counted within one hundred (job/attempt.h). An attempt that it has no number left
 * for does not begin: the job pauses, and says that a backup has numbers of its own; resuming
 * pauses it again. An evaluation ends as done. Threads: a round is a plain value.
 */
#ifndef FL_COORDINATOR_ROUND_H
#define FL_COORDINATOR_ROUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

#define FL_ROUND_BREAKS_MAX 3    /* attempts that broke after training began: then the job pauses */
#define FL_ROUND_SETTLE_MS  2000 /* how long selection waits for sites that were seen before */
#define FL_ROUND_MASK_MS    300000 /* longest stage of secure aggregation, on a busy machine too */
#define FL_ROUND_RETRY_MS   5000   /* between two tries of work that the disk refused */

enum fl_round_state {
    FL_ROUND_IDLE,
    FL_ROUND_SELECT,
    FL_ROUND_CONFIGURE,
    FL_ROUND_TRAIN,
    FL_ROUND_KEYS,
    FL_ROUND_SHARES,
    FL_ROUND_COLLECT,
    FL_ROUND_UNMASK,
    FL_ROUND_AGGREGATE,
    FL_ROUND_COMMIT,
    FL_ROUND_DONE,
    FL_ROUND_PAUSED,
    FL_ROUND_FAILED,
    FL_ROUND_STATE_COUNT
};

enum fl_round_event {
    FL_EVENT_START,            /* the job's turn has come */
    FL_EVENT_ONLINE,           /* site: its session began */
    FL_EVENT_OFFLINE,          /* site: its session ended */
    FL_EVENT_REVOKED,          /* site */
    FL_EVENT_FIT,              /* site: it takes the offer, and its inventory is the job's */
    FL_EVENT_REFUSED,          /* site: never for this job */
    FL_EVENT_DEFERRED,         /* site: not now; wait_ms */
    FL_EVENT_CONFIGURED,       /* the start adapter and the rank plan are durable */
    FL_EVENT_CONFIGURE_FAILED, /* they cannot be made; reason */
    FL_EVENT_TRAINED,          /* site: its delta is durable there */
    FL_EVENT_SITE_FAILED,      /* site: dropped out of this attempt */
    FL_EVENT_ADVERTISED,       /* site: its advert is durable and good */
    FL_EVENT_SHARED,           /* site: its shares for the others are durable */
    FL_EVENT_SIGNED,           /* site: its signature under the survivors is durable and good */
    FL_EVENT_ANSWERED,         /* site: its answer is durable */
    FL_EVENT_UNMASK_FAILED,    /* this sum may not be opened; reason */
    FL_EVENT_UPLOADED,         /* site: its update is durable and well-formed */
    FL_EVENT_AGGREGATED,       /* the next version's file is durable */
    FL_EVENT_AGGREGATE_FAILED, /* the updates cannot be summed; reason */
    FL_EVENT_STORAGE_FAILED,   /* the disk refused; reason */
    FL_EVENT_COMMITTED,        /* the version is in the database */
    FL_EVENT_TICK,             /* time has passed */
    FL_EVENT_CANCEL,
    FL_EVENT_RESUME,
    FL_EVENT_COUNT
};

enum fl_effect { /* bits; the caller always commits the new value first when PERSIST is set */
                 FL_EFFECT_PERSIST = 1,
                 FL_EFFECT_SEND_SITE = 2,  /* send what the event's site is due */
                 FL_EFFECT_SEND_ALL = 4,   /* send every site what it is due */
                 FL_EFFECT_CONFIGURE = 8,  /* fix the cohort's rank plan, make the start adapter */
                 FL_EFFECT_COLLECT = 16,   /* fix the cohort and the layout of the updates */
                 FL_EFFECT_AGGREGATE = 32, /* sum the spooled updates, write the next version */
                 FL_EFFECT_COMMIT = 64,    /* enter the version into the database */
                 FL_EFFECT_NEXT = 128,     /* a version was committed: tell the sites */
                 FL_EFFECT_ABANDON =
                     256, /* an attempt is over without a version: delete its spool */
                 FL_EFFECT_SURVIVORS = 1024, /* hold the survivors against the ranks they trained */
                 FL_EFFECT_END =
                     512 /* the job's state changed to done, failed, paused or cancelled */
};

enum fl_due {
    FL_DUE_NOTHING,
    FL_DUE_OFFER,
    FL_DUE_TASK,
    FL_DUE_KEYS,   /* make keys */
    FL_DUE_COHORT, /* the list of all adverts: share */
    FL_DUE_COLLECT,
    FL_DUE_SURVIVORS, /* sign */
    FL_DUE_UNMASK,    /* answer */
    FL_DUE_RECEIPT
};

enum fl_answer { FL_ANSWER_NONE, FL_ANSWER_FIT, FL_ANSWER_REFUSED, FL_ANSWER_DEFERRED };

struct fl_member {
    uint32_t site; /* the site's id in the roster */
    bool seen;     /* it has connected at least once */
    bool online;
    bool revoked;
    enum fl_answer answer;
    int64_t gone_at_ms;                         /* when its session ended */
    int64_t retry_at_ms;                        /* FL_ANSWER_DEFERRED: when to ask again */
    bool cohort, trained, uploaded, failed;     /* of this attempt */
    bool advertised, shared, signed_, answered; /* secure aggregation */
    bool differs;  /* of this attempt: it refuses the sum, having helped with one too like it */
    bool pledged;  /* of this round, over its attempts */
    bool left_out; /* it spoiled an attempt of this round, or did not do its part */
    uint32_t failed_sums; /* of this job that it was in, and nobody was blamed for */
    uint32_t apart; /* SELECT: 0, or it is asked only if too few others are there, the less soon the
                       higher */
    bool shunned;   /* SELECT: it is not asked, as enough others are there */
};

struct fl_round_rules {                        /* of the job */
    uint32_t rounds, min_workers, max_workers; /* max_workers 0: any number */
    int64_t select_timeout_ms, round_timeout_ms, liveness_timeout_ms, wait_timeout_ms;
    bool secure;      /* secure aggregation */
    bool draws;       /* order of rows or dropout: trained anew, a round gives other deltas */
    bool final_round; /* after the last round one that only evaluates */
};

struct fl_round {
    struct fl_round_rules rules;
    enum fl_round_state state;
    uint32_t round, attempt; /* from 1; round = rules.rounds + 1 only evaluates */
    uint32_t breaks;         /* attempts of this round that broke after training began */
    uint32_t retraining;     /* of this round: how often its sum failed and it began anew */
    uint32_t anew_from;      /* the attempt that it last did so with; 0: none */
    bool cancelled;          /* IDLE was entered by FL_EVENT_CANCEL */
    bool begun;              /* SELECT: offers go out */
    bool fresh;              /* SELECT: the first of this process; sites may be about to connect */
    int64_t entered_at_ms;   /* the state */
    int64_t deadline_ms;     /* of the stage */
    int64_t settle_at_ms;    /* SELECT: 0 until min_workers are online */
    char reason[FL_REASON_BYTES]; /* why it failed, paused, or tries again */
    uint32_t count;
    struct fl_member members[FL_WORKERS_MAX];
};

struct fl_round_input {
    enum fl_round_event event;
    uint32_t site;   /* where the event has one */
    int64_t wait_ms; /* FL_EVENT_DEFERRED; FL_EVENT_SITE_FAILED: 0 = it may be asked at once */
    bool permanent;  /* FL_EVENT_SITE_FAILED: it will never do this job */
    bool differs;    /* FL_EVENT_SITE_FAILED: FL_REFUSAL_DIFFERENCING */
    const uint32_t *leave_out; /* sites that the rest of this round should do without; borrowed */
    uint32_t leave_out_count;
    const char *reason; /* may be NULL */
};

/* A job that has not begun: IDLE, round 1, attempt 1, no members. */
void fl_round_init(struct fl_round *self, const struct fl_round_rules *rules);
/* Take up a state that was read from the database; deadlines are armed anew. Members, retraining
   and anew_from come before. */
void fl_round_restore(struct fl_round *self, enum fl_round_state state, uint32_t round,
                      uint32_t attempt, uint32_t breaks, int64_t now_ms);
/* The member of that site, added if new; NULL when FL_WORKERS_MAX are there. */
struct fl_member *fl_round_member(struct fl_round *self, uint32_t site);
const struct fl_member *fl_round_find(const struct fl_round *self, uint32_t site);

/*
 * The step. Returns the effects (bits of enum fl_effect), 0 when the event means nothing in this
 * state (then *self is unchanged).
 */
uint32_t fl_round_step(struct fl_round *self, const struct fl_round_input *input, int64_t now_ms);

/* What that site is owed now. */
enum fl_due fl_round_due(const struct fl_round *self, uint32_t site);
/* A round behind the last one: no training, no new version. */
bool fl_round_only_evaluates(const struct fl_round *self);
/* true while a job occupies the machine (not IDLE, DONE, PAUSED or FAILED). */
bool fl_round_active(const struct fl_round *self);
/* When fl_round_step() with a TICK may next do something; INT64_MAX: never. */
int64_t fl_round_wake_ms(const struct fl_round *self);
/* Members of the cohort; those of them that trained; those that uploaded. */
uint32_t fl_round_cohort(const struct fl_round *self);
uint32_t fl_round_trained(const struct fl_round *self);
uint32_t fl_round_uploaded(const struct fl_round *self);
/* Secure aggregation: members of U1, and how many of them every later stage needs. */
uint32_t fl_round_advertised(const struct fl_round *self);
uint32_t fl_round_needed(const struct fl_round *self);
/* The same of any attempt of the job with that many members of U1. */
uint32_t fl_round_needed_of(const struct fl_round_rules *rules, uint32_t advertised);
/* Members that this round is pledged to; 0: no pledge. */
uint32_t fl_round_pledged(const struct fl_round *self);
/* Members that are online. */
uint32_t fl_round_online(const struct fl_round *self);

/* "select", "train", ...: the phases of the command-line contract. */
const char *fl_round_state_name(enum fl_round_state state);
const char *fl_round_event_name(enum fl_round_event event);
/* Does the table list this pair? */
bool fl_round_accepts(enum fl_round_state state, enum fl_round_event event);

#endif
