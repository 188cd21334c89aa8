/*
 * finetune.h - the training loop and the evaluation that `fedlora-worker train`, `eval` and the
 * daemon's native trainer share: data order, schedule, clipping, optimizer, progress, stopping.
 *
 * A step takes accumulate batches of batch_size rows (ragged, unpadded), fewer at an epoch's end.
 * Its loss and gradient are those of
 *     L = (sum over scored tokens of the step of -log p(token)) / (number of scored tokens),
 * one mean over all its rows: N batches of b rows are one batch of N b rows but for rounding (and
 * the masks of dropout). Then: global L2 clip, AdamW (Loshchilov & Hutter, 2019).
 * Order: epoch e visits the rows in a Fisher-Yates shuffle drawn from ChaCha20 (crypto/prg.h) under
 * a key made of (seed, e), or in file order; the last partial step of an epoch is used; epochs
 * wrap around. Every random choice is a function of (seed, position): what a run needs to go on
 * elsewhere is its position, the adapter and the optimizer's state. Determinism: the same model,
 * rows, options, build and thread count give the same adapter bytes, in one run or in pieces.
 * Threads: one call at a time a model; *stop may be set from any thread or a signal handler.
 */
#ifndef FL_ENGINE_FINETUNE_H
#define FL_ENGINE_FINETUNE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "worker/data/row.h"
#include "worker/engine/engine.h"
#include "worker/engine/footprint.h"
#include "worker/engine/optimizer.h"
#include "worker/engine/schedule.h"

struct fl_finetune_options {
    uint64_t steps;      /* optimizer steps of this call, >= 1 (see fl_finetune_steps()) */
    uint32_t batch_size; /* rows of one batch, >= 1 */
    uint32_t accumulate; /* batches a step, >= 1 */
    double lr;           /* peak learning rate, >= 0 */
    double lr_a, lr_b;   /* override lr for that factor; negative: lr */
    enum fl_schedule schedule;
    uint64_t warmup;      /* steps of linear warm-up, counted on the schedule's own axis */
    uint64_t first_step;  /* position of this call's first step on the schedule's axis */
    uint64_t total_steps; /* length of that axis; 0: first_step + steps */
    enum fl_optimizer_kind optimizer;
    double weight_decay; /* >= 0 */
    double grad_clip;    /* global L2 norm; 0: off */
    uint64_t seed;       /* of the data order and of dropout */
    bool shuffle;
    unsigned train;   /* FL_TRAIN_*: a factor that is not trained keeps its bytes */
    uint32_t threads; /* 0: the processors that this process may use */
    enum fl_compute compute;
    uint32_t max_batch_tokens;  /* tokens that pass the layers at once; 0: chosen (engine.h) */
    const struct fl_row *valid; /* (valid_count) of fl_finetune_validate(), borrowed until the run
                                   is open; NULL: none */
    size_t valid_count;
    uint64_t memory_limit; /* bytes that the process may take: above it the micro-batch shrinks,
                              then activations are computed again; 0: none. Within the same
                              micro-batch the bytes of the result are the same */
    uint32_t copies;       /* of the adapter that the caller holds beside it, for the estimate */
};

/*
 * The command line's defaults: 1 batch of 4 rows, lr 1e-3 constant, clip 1, AdamW, both factors,
 * shuffled; steps is 0 and must be set.
 */
void fl_finetune_defaults(struct fl_finetune_options *options);

/* Steps of `epochs` passes over count rows: epochs * ceil(count / rows). rows: of a step, >= 1. */
uint64_t fl_finetune_steps(size_t count, uint64_t rows, uint64_t epochs);

/* What a finished step tells. */
struct fl_finetune_step {
    uint64_t step;   /* 1.. within this call */
    uint64_t tokens; /* processed in this step */
    uint64_t scored;
    double loss;      /* mean over the scored tokens, before the step's update */
    double lr;        /* the schedule's factor times lr */
    double grad_norm; /* before clipping */
    double seconds;   /* of this step */
};

struct fl_finetune_watch {
    void (*on_step)(void *context, const struct fl_finetune_step *step); /* may be NULL */
    void *context;
    const atomic_int *stop; /* non-zero: end before the next step; may be NULL */
};

struct fl_finetune_result {
    uint64_t steps, tokens, scored; /* done in this call */
    double loss;                    /* of the last step */
    double loss_sum;                /* over all scored tokens of all steps */
    double seconds;                 /* of all steps */
    const char *compute;            /* "f32": what the engine computed with; a constant */
    uint32_t threads;
};

/*
 * Train adapter (borrowed, changed in place) on rows. FL_ESTOPPED: stop was set; the adapter holds
 * the last finished step and *result what was done. FL_EINVAL: an option out of range, no row, a
 * row longer than the engine can take. FL_ERANGE: a loss or gradient that is not finite (the
 * adapter then keeps the last good step).
 */
FL_CHECKED enum fl_status fl_finetune(const struct fl_model *model, struct fl_adapter *adapter,
                                      const struct fl_row *rows, size_t count,
                                      const struct fl_finetune_options *options,
                                      const struct fl_finetune_watch *watch,
                                      struct fl_finetune_result *result, struct fl_error *error);

/*
 * The same, step by step, for callers that do something of their own between two steps. What is
 * borrowed (model, adapter, rows) must outlive the run; options are copied.
 */
struct fl_finetune_run; /* opaque */

/* Where a run stands between two steps. */
struct fl_finetune_position {
    uint64_t step;   /* steps that are done */
    uint64_t epoch;  /* of the last row that was taken, from 0 */
    uint32_t cursor; /* rows of that epoch that were taken */
};

/* The errors of fl_finetune() before its first step. *out is NULL on failure. */
FL_CHECKED enum fl_status fl_finetune_open(const struct fl_model *model, struct fl_adapter *adapter,
                                           const struct fl_row *rows, size_t count,
                                           const struct fl_finetune_options *options,
                                           struct fl_finetune_run **out, struct fl_error *error);
void fl_finetune_close(struct fl_finetune_run **self);

/* One step, also beyond options.steps. FL_ERANGE as in fl_finetune(). */
FL_CHECKED enum fl_status fl_finetune_advance(struct fl_finetune_run *self,
                                              struct fl_finetune_step *out, struct fl_error *error);

struct fl_finetune_position fl_finetune_position(const struct fl_finetune_run *self);
/*
 * Go on from a position of an earlier run with the same rows and options; the caller restores the
 * adapter and the optimizer of that run. FL_EFORMAT: a run over these rows can't be there.
 */
FL_CHECKED enum fl_status fl_finetune_seek(struct fl_finetune_run *self,
                                           const struct fl_finetune_position *position,
                                           struct fl_error *error);
/* What the run takes, and the micro-batch that it chose. */
struct fl_footprint fl_finetune_footprint(const struct fl_finetune_run *self);
/* The same before anything is opened. FL_ENOMEM: options.memory_limit is too small. */
FL_CHECKED enum fl_status fl_finetune_plan(const struct fl_model *model,
                                           const struct fl_adapter *adapter,
                                           const struct fl_row *rows, size_t count,
                                           const struct fl_finetune_options *options,
                                           struct fl_footprint *out, struct fl_error *error);
/* Add a finished step to the totals. */
void fl_finetune_count(struct fl_finetune_result *total, const struct fl_finetune_step *step);
/* Borrowed; its state is that behind the last step. */
struct fl_optimizer *fl_finetune_optimizer(struct fl_finetune_run *self);
/* "f32": a constant. */
const char *fl_finetune_compute(const struct fl_finetune_run *self);
uint32_t fl_finetune_threads(const struct fl_finetune_run *self);

struct fl_evaluation {
    double loss_sum; /* -log p summed over scored tokens */
    uint64_t scored; /* 0 when nothing is scored */
    uint64_t tokens; /* processed */
    double seconds;
};

struct fl_evaluate_options {
    uint32_t batch_size; /* rows between two looks at *stop, >= 1; changes no result */
    uint32_t threads;
    enum fl_compute compute;
    uint32_t max_batch_tokens;
    uint64_t memory_limit; /* as above */
};

/*
 * Evaluate model + adapter (NULL: the base alone) on rows, dropout off. options NULL: 16 rows, all
 * else 0. FL_ESTOPPED as above.
 */
FL_CHECKED enum fl_status fl_finetune_evaluate(const struct fl_model *model,
                                               const struct fl_adapter *adapter,
                                               const struct fl_row *rows, size_t count,
                                               const struct fl_evaluate_options *options,
                                               const atomic_int *stop, struct fl_evaluation *out,
                                               struct fl_error *error);

/*
 * Evaluate the run's adapter as it stands, in the run's engine; changes nothing that training sees.
 * No row may be longer than those of options.valid or of training. FL_ESTOPPED as above.
 */
FL_CHECKED enum fl_status fl_finetune_validate(struct fl_finetune_run *self,
                                               const struct fl_row *rows, size_t count,
                                               const atomic_int *stop, struct fl_evaluation *out,
                                               struct fl_error *error);

/* Tokens of the longest row; 1 when there is none. */
uint32_t fl_finetune_longest(const struct fl_row *rows, size_t count);

/* The visiting order, also used by tests: order has count entries and becomes epoch's permutation.
 */
void fl_finetune_order(uint64_t seed, uint64_t epoch, uint32_t *order, uint32_t count);

#endif
