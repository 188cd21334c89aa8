/*
 * tiny_run.h - a small model with an adapter and three rows, as the tests of checkpoints and of
 * whole training runs need them.
 */
#ifndef FL_TESTS_WORKER_TINY_RUN_H
#define FL_TESTS_WORKER_TINY_RUN_H

#include "worker/engine/finetune.h"

#define TINY_ROWS 3

struct tiny_run {
    struct fl_model *model;
    struct fl_adapter *adapter; /* dropout 0.2 */
    struct fl_finetune_options options;
    struct fl_error error;
};

extern const struct fl_row tiny_rows[TINY_ROWS];

/* false: memory was refused; close in any case. 6 steps of 2 rows, shuffled, cosine. */
bool tiny_open(struct tiny_run *self);
void tiny_close(struct tiny_run *self);

#endif
