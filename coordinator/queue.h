/*
 * queue.h - the jobs in the database: submitted, run one at a time in the order of their ids, with
 * all that a round must find again after a crash (phase, cohort, rank plan, refusals).
 *
 * A job's sealing key is a file of its own (DIR/jobs/ID.key), destroyed when the job ends.
 * Threads: the loop's.
 */
#ifndef FL_COORDINATOR_QUEUE_H
#define FL_COORDINATOR_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/limits.h"
#include "job/job.h"
#include "coordinator/round.h"
#include "coordinator/store.h"
#include "crypto/keys.h"
#include "proto/wire.h"

enum fl_job_state { /* stored as numbers: append only */
                    FL_JOB_QUEUED,
                    FL_JOB_RUNNING,
                    FL_JOB_DONE,
                    FL_JOB_FAILED,
                    FL_JOB_CANCELLED,
                    FL_JOB_PAUSED,
                    FL_JOB_STATE_COUNT
};

struct fl_job {
    int64_t id;
    char name[FL_NAME_BYTES];
    enum fl_job_state state;
    char reason[FL_REASON_BYTES];
    uint32_t round, attempt, breaks;
    enum fl_round_state phase;
    uint8_t sha256[FL_HASH_BYTES];
    uint8_t sealing_key[FL_KEY_BYTES];
    bool has_current; /* rolled back to: */
    uint32_t current;
    double base_loss; /* NaN: not measured */
    uint64_t base_tokens;
    int64_t created_ms, ended_ms; /* wall time; 0: not ended */
};

const char *fl_job_state_name(enum fl_job_state state);
/* Done, failed or cancelled: it never runs again. */
bool fl_job_state_ended(enum fl_job_state state);

/* Enter a job; *id is its number. */
FL_CHECKED enum fl_status fl_queue_submit(struct fl_store *store, const struct fl_job_spec *spec,
                                          int64_t wall_ms, int64_t *id, struct fl_error *error);
/* FL_ENOTFOUND with "no job N". id 0: the newest. */
FL_CHECKED enum fl_status fl_queue_get(struct fl_store *store, int64_t id, struct fl_job *out,
                                       struct fl_error *error);
/* The newest 1000 jobs, oldest first; *out is released with fl_free(). */
FL_CHECKED enum fl_status fl_queue_list(struct fl_store *store, struct fl_job **out,
                                        uint32_t *count, struct fl_error *error);
/* The job that is running, else the first one queued; FL_ENOTFOUND: none. */
FL_CHECKED enum fl_status fl_queue_next(struct fl_store *store, struct fl_job *out,
                                        struct fl_error *error);
/* The job file in canonical form, parsed; released with fl_free(). */
FL_CHECKED enum fl_status fl_queue_spec(struct fl_store *store, int64_t id,
                                        struct fl_job_spec **out, struct fl_error *error);
/* The canonical text itself; free the buffer. */
FL_CHECKED enum fl_status fl_queue_text(struct fl_store *store, int64_t id, struct fl_buf *out,
                                        struct fl_error *error);
FL_CHECKED enum fl_status fl_queue_keys(struct fl_store *store, int64_t id,
                                        struct fl_box_keys **out, struct fl_error *error);

/* ---- queue_round.c ---- */

/* What the database holds of a job's round, as far as this process knows; job 0: nothing. */
struct fl_queue_saved {
    int64_t job;
    uint32_t round, attempt, retraining, count;
    struct fl_queue_saved_member {
        uint32_t site, marks, failed_sums;
        bool left_out;
    } members[FL_WORKERS_MAX]; /* in the order of the round's */
};

/*
 * The round as it stands, and the job's state, in one transaction with the members' rows. Rows that
 * *saved knows to be there already are not written again; it is brought up to date. saved may be
 * NULL: all are written. Whoever rolls back a transaction around it sets saved->job to 0.
 */
FL_CHECKED enum fl_status fl_queue_save(struct fl_store *store, int64_t id, enum fl_job_state state,
                                        const struct fl_round *round, struct fl_queue_saved *saved,
                                        int64_t wall_ms, struct fl_error *error);
/*
 * The members of the job's present attempt into round, how often it was trained anew, whom it is
 * pledged to, who is left out of it or suspect, and who refuses the job.
 */
FL_CHECKED enum fl_status fl_queue_load_members(struct fl_store *store, const struct fl_job *job,
                                                struct fl_round *round, struct fl_error *error);

struct fl_job_standing { /* of one site */
    bool left_out;
    uint32_t failed_sums;
};
FL_CHECKED enum fl_status fl_queue_standing(struct fl_store *store, int64_t id, uint32_t site,
                                            struct fl_job_standing *out, struct fl_error *error);

/* ---- queue.c ---- */

/* Change the state alone (a job that no loop holds): cancel, resume. */
FL_CHECKED enum fl_status fl_queue_set_state(struct fl_store *store, int64_t id,
                                             enum fl_job_state state, const char *reason,
                                             int64_t wall_ms, struct fl_error *error);
/* Delete what only a running job needs: spool, start adapters, sealing key. */
FL_CHECKED enum fl_status fl_queue_clean(struct fl_store *store, int64_t id,
                                         struct fl_error *error);

/* The module inventory of the job's base model: the first accepted one. */
FL_CHECKED enum fl_status fl_queue_set_inventory(struct fl_store *store, int64_t id,
                                                 const uint8_t root[FL_HASH_BYTES],
                                                 const void *bytes, size_t length,
                                                 struct fl_error *error);
/* FL_ENOTFOUND: none yet. root and bytes may be NULL. */
FL_CHECKED enum fl_status fl_queue_inventory(struct fl_store *store, int64_t id,
                                             uint8_t root[FL_HASH_BYTES], struct fl_inventory *out,
                                             struct fl_error *error);

struct fl_attempt_row {                /* what CONFIGURE fixed */
    uint8_t start_root[FL_HASH_BYTES]; /* of the start adapter as a bulk object */
    uint64_t start_bytes;
    uint8_t version_hash[FL_HASH_BYTES]; /* SHA-256 of the version it was made from */
    struct fl_ranges ranges;             /* of the update; 1 where a factor is not trained */
    struct fl_rank_plan plan;            /* owned; rows in the order of the cohort's site ids */
};
void fl_attempt_row_free(struct fl_attempt_row *self);
FL_CHECKED enum fl_status fl_queue_set_attempt(struct fl_store *store, int64_t id, uint32_t round,
                                               uint32_t attempt, const struct fl_attempt_row *value,
                                               struct fl_error *error);
FL_CHECKED enum fl_status fl_queue_attempt(struct fl_store *store, int64_t id, uint32_t round,
                                           uint32_t attempt, struct fl_attempt_row *out,
                                           struct fl_error *error);

struct fl_refusal_row {
    uint32_t site;
    char worker[FL_NAME_BYTES];
    enum fl_refusal code;
    bool permanent;
    char reason[FL_REASON_BYTES];
};
FL_CHECKED enum fl_status fl_queue_refuse(struct fl_store *store, int64_t id,
                                          const struct fl_refusal_row *row, int64_t wall_ms,
                                          struct fl_error *error);
/* The site takes part after all. */
FL_CHECKED enum fl_status fl_queue_unrefuse(struct fl_store *store, int64_t id, uint32_t site,
                                            struct fl_error *error);
/* In order of names; released with fl_free(). */
FL_CHECKED enum fl_status fl_queue_refusals(struct fl_store *store, int64_t id,
                                            struct fl_refusal_row **out, uint32_t *count,
                                            struct fl_error *error);
/* What a TRAINED said, kept for the record. */
FL_CHECKED enum fl_status fl_queue_note_trained(struct fl_store *store, int64_t id, uint32_t round,
                                                uint32_t attempt, uint32_t site,
                                                const struct fl_wire_trained *trained,
                                                struct fl_error *error);

#endif
