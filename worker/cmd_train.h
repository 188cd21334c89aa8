/*
 * cmd_train.h - what the two halves of `fedlora-worker train` share: cmd_train.c reads the options
 * and runs, cmd_train_words.c says everything that a person, a script or a later run reads.
 * Threads: main thread.
 */
#ifndef FL_WORKER_CMD_TRAIN_H
#define FL_WORKER_CMD_TRAIN_H

#include "adapter/choose.h"
#include "worker/local.h"
#include "worker/progress.h"
#include "worker/training.h"

#define FL_TRAIN_PROGRAM "fedlora-worker train"

/* The options as given, and what they open. */
struct fl_train {
    const char *model, *out, *init;
    struct fl_local_data data;
    uint64_t rank;
    double dropout;
    struct fl_choice choice; /* its rank is the one above, once options were read */
    bool rslora, dora;
    bool has_rank, has_alpha, has_targets, has_dropout, has_rslora, has_dora;
    uint64_t steps, epochs, batch_size, accumulate, warmup, seed, threads;
    bool has_steps, has_epochs;
    double lr, loraplus_ratio, weight_decay, grad_clip;
    const char *schedule, *compute, *quantize, *memory;
    uint64_t memory_limit; /* bytes; 0: none */
    bool shuffle, json;
    const char *valid, *keep;
    uint64_t eval_every, patience;
    bool has_eval_every, has_patience;
    uint64_t checkpoint_every, keep_checkpoints;
    bool resume;

    struct fl_local local;
    struct fl_finetune_options options;
    struct fl_training_result result;
    struct fl_progress progress;
    enum fl_status print_status; /* the first failure to print an event */
};

/* stderr, before the first step: parameters and rows. */
void fl_train_tell_start(struct fl_train *self);
/* Fill watch with the calls of this file; each takes self as its context. */
void fl_train_listen(struct fl_train *self, struct fl_training_watch *watch);
/* README.md of an adapter that is written before any step. */
void fl_train_start_card(const struct fl_train *self, struct fl_buf *card);
/* The end: one JSON event, or words on stderr. */
FL_CHECKED enum fl_status fl_train_tell_done(const struct fl_train *self, struct fl_error *error);
/* stderr: the command line that goes on from the checkpoint, argv with --resume. */
void fl_train_tell_resume(int argc, char **argv);

#endif
