/*
 * work.h - what the compute thread does for a round: make the start adapter, check and keep an
 * uploaded update, sum the updates into the next version.
 *
 * Every result depends only on the request and on files named in it, so that work which a crash
 * interrupted is simply done again, with the same bytes.
 * Threads: fl_work_*() functions run on the compute thread; contexts are counted in the loop only.
 */
#ifndef FL_COORDINATOR_WORK_H
#define FL_COORDINATOR_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/fixed.h"
#include "adapter/layout.h"
#include "coordinator/aggregate.h"
#include "coordinator/compute.h"
#include "coordinator/masks.h"
#include "job/job.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"
#include "crypto/keys.h"
#include "net/chunks.h"

/* What does not change while a job runs. */
struct fl_job_facts {
    uint32_t references;          /* counted in the loop */
    const struct fl_store *store; /* its file functions only */
    int64_t job;
    struct fl_job_spec *spec;
    struct fl_inventory inventory, targets; /* empty until the first site was accepted */
    struct fl_box_keys *keys;               /* the job's sealing pair */
};
void fl_job_facts_release(struct fl_job_facts *self);

/* What does not change once a round collects: who sends what, and on which grid. */
struct fl_stage {
    uint32_t references;
    struct fl_job_facts *facts;
    uint32_t round, attempt;
    uint32_t count;  /* n: sites that trained */
    uint32_t *sites; /* their ids, in the order of the layout */
    char (*names)[FL_NAME_BYTES];
    struct fl_layout *layout;
    struct fl_grid grid;
    uint64_t sealed_bytes; /* of every update */
    bool *checking;        /* an update of that position is with the compute thread */
};
void fl_stage_release(struct fl_stage *self);
/* The position of a site; UINT32_MAX: not in it. */
uint32_t fl_stage_position(const struct fl_stage *self, uint32_t site);

/* Where an update is kept; path has FL_PATH_BYTES bytes. */
FL_CHECKED enum fl_status fl_stage_path(const struct fl_stage *self, uint32_t position,
                                        bool complete, char *path, struct fl_error *error);
/* DIR/rounds/JOB/N.start.safetensors */
FL_CHECKED enum fl_status fl_start_path(const struct fl_store *store, int64_t job, uint32_t round,
                                        char *path, struct fl_error *error);

/* The adapter that a round starts from. */
struct fl_start_work {
    struct fl_chore chore;
    struct fl_job_facts *facts;
    uint32_t round, attempt;
    bool has_previous;            /* else version 0 is made first */
    struct fl_version previous;   /* version round - 1 */
    uint32_t *sites;              /* the cohort's ids, (count), owned; order of the plan's rows */
    char (*names)[FL_NAME_BYTES]; /* owned */
    uint32_t count;
    /* results */
    enum fl_status status;
    struct fl_error error;
    struct fl_attempt_row attempt_row;
    struct fl_object *object;
};
void fl_work_start(struct fl_chore *chore);
void fl_start_work_free(struct fl_start_work *self);

/* An update that has arrived whole. */
struct fl_check_work {
    struct fl_chore chore;
    struct fl_stage *stage;
    uint32_t position;
    /* FL_OK; FL_EFORMAT: the update is bad (it is deleted); else: storage */
    enum fl_status status;
    struct fl_error error;
    uint8_t sha256[FL_HASH_BYTES]; /* of the sealed bytes, when they are good */
};
void fl_work_check(struct fl_chore *chore);

/* The sum of a round. */
struct fl_sum_work {
    struct fl_chore chore;
    struct fl_stage *stage;
    uint32_t *positions; /* of those that uploaded, owned */
    uint32_t count;
    struct fl_attempt_row attempt_row; /* owned: ranks and version hash of the start */
    struct fl_unmask_request *unmask;  /* owned; NULL: no masks */
    /* FL_OK; FL_EFORMAT, FL_ERANGE: the attempt is void; else: storage, try again */
    enum fl_status status;
    struct fl_error error;
    struct fl_aggregate_result result;
    struct fl_version version; /* of a round that trains */
    struct fl_object *object;
};
void fl_work_sum(struct fl_chore *chore);
void fl_sum_work_free(struct fl_sum_work *self);

#endif
