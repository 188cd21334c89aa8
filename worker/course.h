/*
 *  course.h - the course of a training run, a point a step, and its file of JSON lines:
 *
 *   {"step":1,"loss":2.31,"lr":0.001,"grad_norm":0.52,"tokens":1024,"tokens_per_second":211.4,
 *    "seconds":4.84,"val_loss":2.4}
 *
 * loss: mean over the step's scored tokens, before its update. grad_norm: before clipping. tokens:
 * processed. seconds: of the step alone. val_loss: only where an evaluation followed the step.
 * Numbers have 9 significant digits. The points are kept in memory, FL_METRICS_MAX at most; later
 * steps are counted and not kept.
 * Threads: a struct belongs to one thread. All zero is an empty one.
 */
#ifndef FL_WORKER_COURSE_H
#define FL_WORKER_COURSE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "worker/engine/finetune.h"

#define FL_METRICS_MAX (1u << 22)

struct fl_metric {
    uint64_t step, tokens;
    double loss, lr, grad_norm, seconds;
    double valid_loss; /* NaN: not measured */
};

struct fl_course {
    struct fl_metric *points; /* (count), owned; steps rise */
    size_t count, capacity;
};

void fl_course_free(struct fl_course *self);

/* A finished step, behind those before it. FL_ENOMEM: it is not kept; nothing else has changed. */
FL_CHECKED enum fl_status fl_course_add(struct fl_course *self,
                                        const struct fl_finetune_step *step);
/* The evaluation that followed step `step`; without effect where that step is not kept. */
void fl_course_validated(struct fl_course *self, uint64_t step, double loss);

/* All points into a file, durably and at once (fl_fs_write()). */
FL_CHECKED enum fl_status fl_course_write(const struct fl_course *self, const char *path,
                                          struct fl_error *error);
/*
 * Read what fl_course_write() wrote, up to step `last`; *self is empty. FL_EFORMAT: another file,
 * with its line; FL_ENOTFOUND; *self is empty then too.
 */
FL_CHECKED enum fl_status fl_course_load(struct fl_course *self, const char *path, uint64_t last,
                                         struct fl_error *error);

#endif
