/*
 * labour.h - what the work thread does for each kind of request: check an offer, train, seal an
 * update, keep a version. Runs without threads too (tests, the simulator).
 * Threads: one; `stop` and `name` may be set from another under compute.c's lock.
 */
#ifndef FL_WORKER_LABOUR_H
#define FL_WORKER_LABOUR_H

#include "secagg/secagg.h"
#include "worker/compute.h"
#include "worker/ledger.h"
#include "worker/trust.h"

/* The secrets of the attempt that is going on, and what its cohort turned out to be. */
struct fl_masking {
    struct fl_attempt key;
    struct fl_secagg_site *site; /* owned; NULL: no secrets */
    struct fl_layout *layout;    /* owned; NULL: the cohort is not known */
    struct fl_grid grid;
    uint32_t index; /* of this site in the cohort */
    /* who evaluated and does not share it, and whether so many did that their sum may be seen */
    struct fl_secagg_set measuring;
    bool sums_measures;
    bool has_delta; /* something was trained, and masked: */
    uint8_t delta[FL_HASH_BYTES];
};
void fl_masking_forget(struct fl_masking *self);

struct fl_labour {
    const struct fl_siteconf *conf;   /* borrowed */
    const struct fl_sitestore *store; /* borrowed */
    struct fl_trainer trainer;        /* owned */
    atomic_int stop;
    char name[FL_NAME_BYTES];
    void (*on_progress)(void *context, const struct fl_trainer_progress *progress);
    void *progress_context;
    /* the job that fits: its linears that are adapted */
    uint64_t job;
    struct fl_inventory targets; /* owned */
    uint8_t data[FL_HASH_BYTES]; /* of the rows that it trains and evaluates on */
    struct fl_attempt measured;  /* the last attempt that this site has evaluated in */
    struct fl_masking masking;
    struct fl_trust *trust;   /* owned; opened with the first cohort */
    struct fl_ledger *ledger; /* owned; opened with the first answer */
};

void fl_labour_init(struct fl_labour *self, const struct fl_siteconf *conf,
                    const struct fl_sitestore *store, struct fl_trainer *trainer,
                    void (*on_progress)(void *, const struct fl_trainer_progress *),
                    void *progress_context);
void fl_labour_free(struct fl_labour *self);
/* Do the work and fill the result, status and error included. */
void fl_labour_do(struct fl_labour *self, const struct fl_work *work,
                  struct fl_work_result *result);

#endif
