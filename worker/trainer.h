/*
 * trainer.h - the seam behind which a site trains: `native` is the engine of this project; another
 * trainer (a command of the site's, a simulator's stub) stands behind the same two calls.
 *
 * A task is: evaluate the starting adapter on held-out rows, then take some optimizer steps on the
 * prefix of it that this site was given, and hand back the difference.
 * Threads: a trainer belongs to the work thread; *stop may be set from any thread.
 */
#ifndef FL_WORKER_TRAINER_H
#define FL_WORKER_TRAINER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/layout.h"
#include "base/status.h"
#include "proto/wire.h"
#include "worker/siteconf.h"

/* Where the check of an offer ended that did not succeed. */
enum fl_trainer_fault { FL_FAULT_MODEL, FL_FAULT_DATA, FL_FAULT_MEMORY };

/* What a site finds when it checks an offer. */
struct fl_trainer_fit {
    enum fl_trainer_fault fault; /* of a check that failed; else without meaning */
    uint8_t manifest[FL_HASH_BYTES];
    uint8_t data[FL_HASH_BYTES];   /* of all rows that it would train and evaluate on */
    struct fl_inventory inventory; /* every linear of the base; owned by the caller */
    /* training data at the job's seq_len, as in struct fl_dataset_counts */
    uint64_t rows, truncated, completions_cut, dropped, empty, bad;
    uint64_t eval_rows;
    uint64_t memory_bytes; /* estimate for a step of this job */
};

struct fl_trainer_progress {
    enum fl_activity activity;
    uint32_t step, steps;
    double loss; /* of the last step; stays at the site */
    double tokens_per_second;
};

struct fl_trainer_task {
    const struct fl_siteconf *conf;
    const struct fl_wire_offer *offer;
    uint32_t round;
    const struct fl_adapter *start; /* modules at the round's global ranks */
    const uint16_t *site_ranks;     /* (start->count): the prefix to train */
    bool job_start; /* start is what the job begins with: is it of the site's base? */
    bool train, evaluate, train_a, train_b;
    uint64_t first_step, total_steps;
    uint64_t data_seed; /* PRF(job seed, site name, round, retraining) */
    void (*on_progress)(void *context, const struct fl_trainer_progress *progress);
    void *context;
    const atomic_int *stop;
};

struct fl_trainer_result {
    struct fl_adapter *delta; /* site ranks, trained minus start; NULL when nothing was trained;
                                 owned by the caller */
    struct fl_update_stats stats;
    uint32_t steps;
    double seconds; /* of the training steps */
    double eval_seconds;
    double train_loss; /* mean of the last step, for the site's own log */
};

struct fl_trainer {
    /*
     * Open the offer's model and data. FL_OK, or why not: FL_ENOTFOUND (no model, no data),
     * FL_EINVAL (another model), FL_EFORMAT (damaged), FL_EREFUSED (memory limit), with *error
     * filled and out->fault set.
     */
    enum fl_status (*fit)(void *context, const struct fl_siteconf *conf,
                          const struct fl_wire_offer *offer, struct fl_trainer_fit *out,
                          struct fl_error *error);
    /*
     * FL_ESTOPPED when *stop was set; FL_ERANGE when a loss or a value is not finite; FL_EINVAL:
     * the job's start was made with another model.
     */
    enum fl_status (*run)(void *context, const struct fl_trainer_task *task,
                          struct fl_trainer_result *out, struct fl_error *error);
    void (*destroy)(void *context);
    void *context;
};

/* The engine of this project. Keeps the last model and data open between calls. */
FL_CHECKED enum fl_status fl_trainer_native(struct fl_trainer *out);
void fl_trainer_destroy(struct fl_trainer *self);

#endif
