/*
 * http_view.h - what HTTP shows of a coordinator at one moment: a snapshot that the loop makes and
 * the HTTP thread reads.
 *
 * What the database holds is read anew only when something was written to it, and what cannot
 * change any more (jobs that ended) is shared between snapshots. Of a view nothing is borrowed.
 * Threads: the maker is the loop's; a view is constant, and may be read and released by any.
 */
#ifndef FL_COORDINATOR_HTTP_VIEW_H
#define FL_COORDINATOR_HTTP_VIEW_H

#include <stdatomic.h>

#include "coordinator/http_tally.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"
#include "job/job.h"
#include "web/web.h"

#define FL_VIEW_JOBS_MAX     20  /* the newest */
#define FL_VIEW_VERSIONS_MAX 128 /* the newest of a job */

struct fl_view_version {
    uint32_t version, round, rank, workers;
    uint8_t sha256[FL_HASH_BYTES], parent_sha256[FL_HASH_BYTES];
    bool has_parent;
    uint64_t bytes, train_tokens, eval_tokens;
    int64_t created_ms;
    double train_loss, eval_loss, delta_norm; /* NaN: none */
    uint16_t *ranks;                          /* owned; of each target module */
};

struct fl_view_job { /* shared by the views that show it */
    atomic_uint references;
    struct fl_job row;
    struct fl_job_spec *spec;         /* owned */
    struct fl_inventory targets;      /* owned; empty until the first site was accepted */
    uint16_t layers;                  /* transformer blocks that have targets: 1 + the last index */
    struct fl_view_version *versions; /* owned; oldest first */
    uint32_t version_count;
    struct fl_refusal_row *refusals; /* owned */
    uint32_t refusal_count;
};

enum fl_view_site_state {
    FL_VIEW_OFFLINE,
    FL_VIEW_ONLINE,
    FL_VIEW_TRAINING,
    FL_VIEW_REVOKED,
    FL_VIEW_SITE_STATE_COUNT
};

struct fl_view_site {
    char name[FL_NAME_BYTES];
    enum fl_view_site_state state;
    double seen_seconds; /* since it was heard of; -1: never */
    enum fl_activity activity;
    uint32_t step, steps;
    double tokens_per_second; /* 0: unknown, or not training */
    bool cohort, trained, uploaded, left_out;
    uint32_t failed_sums;
};

struct fl_view {
    struct fl_web_view base;
    int64_t wall_ms, started_ms; /* wall time: of the view; of the process */
    bool running;                /* a job is */
    double phase_seconds;        /* how long the present phase has lasted */
    char waiting[FL_REASON_BYTES];
    struct fl_view_job *jobs[FL_VIEW_JOBS_MAX]; /* newest first */
    uint32_t job_count;
    int current; /* index of the job of interest; -1: none */
    uint64_t jobs_by_state[FL_JOB_STATE_COUNT];
    struct fl_view_site *sites; /* owned; in order of names */
    uint32_t site_count;
    struct fl_tally tally;
    char directory[FL_PATH_BYTES]; /* where versions lie; never shown */
};

struct fl_server;

/* What the loop keeps between views. */
struct fl_view_maker {
    int64_t started_ms;
    int64_t changes; /* of the database, when it was last read; -1: never */
    struct fl_view_job *jobs[FL_VIEW_JOBS_MAX];
    uint32_t job_count;
    uint64_t jobs_by_state[FL_JOB_STATE_COUNT];
};
void fl_view_maker_free(struct fl_view_maker *self);

/* FL_ENOMEM; FL_EIO and the like: the database can't be read. *out->base is ready to publish. */
FL_CHECKED enum fl_status fl_view_make(struct fl_view_maker *self, struct fl_server *server,
                                       struct fl_view **out, struct fl_error *error);
const char *fl_view_site_state_name(enum fl_view_site_state state);
/* "idle", "running", "paused" */
const char *fl_view_state(const struct fl_view *self);
/* The job with that number, or NULL; its version, or NULL. */
const struct fl_view_job *fl_view_find_job(const struct fl_view *self, int64_t id);
const struct fl_view_version *fl_view_find_version(const struct fl_view_job *job, uint32_t version);
/* The version that is handed out unless another is asked for, or NULL. */
const struct fl_view_version *fl_view_current_version(const struct fl_view_job *job);
/* The newest version whose held-out loss is known, or NULL. */
const struct fl_view_version *fl_view_evaluated(const struct fl_view_job *job);
/* The largest rank of a layer's modules in a version; 0: none. */
uint16_t fl_view_layer_rank(const struct fl_view_job *job, const struct fl_view_version *version,
                            uint32_t layer);
/* Tokens a second of all sites that train now. */
double fl_view_tokens_per_second(const struct fl_view *self);

/* ---- what is shown: http_metrics.c, http_json.c, http_page.c ---- */

void fl_view_metrics(const struct fl_view *self, struct fl_buf *out);
/* FL_ENOMEM, FL_ERANGE. */
FL_CHECKED enum fl_status fl_view_json(const struct fl_view *self, struct fl_buf *out);
/* job NULL: of the whole coordinator. */
void fl_view_page(const struct fl_view *self, const struct fl_view_job *job, struct fl_buf *out);

#endif
