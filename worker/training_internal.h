/*
 * training_internal.h - a run in progress, shared by training.c, which leads it, and
 * training_files.c, which keeps its files. Threads: as training.h.
 */
#ifndef FL_WORKER_TRAINING_INTERNAL_H
#define FL_WORKER_TRAINING_INTERNAL_H

#include "worker/checkpoint.h"
#include "worker/course.h"
#include "worker/training.h"

struct fl_life {
    const struct fl_training *plan;
    struct fl_training_result *result;
    struct fl_finetune_run *run;
    struct fl_adapter *best; /* owned; NULL: no validation */
    json_t *settings;        /* owned; NULL: not asked for yet */
    struct fl_course metrics;
    uint64_t saved; /* step of the newest checkpoint */
    bool ours;      /* OUT is this run's own already */
    int lock;       /* of OUT/checkpoints; -1: not held */
};

/* One line for the person who watches; the run goes on. */
void fl_life_tell_trouble(const struct fl_life *self, const char *text);

/* Ask once for what makes this run this run, into self->settings. */
FL_CHECKED enum fl_status fl_life_need_settings(struct fl_life *self, struct fl_error *error);
/* What of the run a checkpoint holds. */
struct fl_checkpoint_parts fl_life_parts(struct fl_life *self);

/* Everything into OUT; with_checkpoint: so that a later run can go on from here. */
FL_CHECKED enum fl_status fl_life_save(struct fl_life *self, bool with_checkpoint,
                                       struct fl_error *error);
/* FL_EBUSY: another process leads a run with this OUT. Once held, held to the end. */
FL_CHECKED enum fl_status fl_life_lock(struct fl_life *self, struct fl_error *error);
/* What the run told up to `step`. It shapes nothing: without it the run goes on, and says so. */
void fl_life_load_metrics(struct fl_life *self, uint64_t step);

#endif
