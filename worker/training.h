/*
 * training.h - the life of a local training run around engine/finetune.h: it begins or is resumed,
 * leaves checkpoints, ends or is stopped, and keeps its PEFT directory.
 *
 *   OUT/                the adapter as PEFT reads it, as of the newest save (keep_best: the best)
 *   OUT/best/           the adapter of the best validation, as PEFT reads it (not with keep_best)
 *   OUT/metrics.jsonl   a line a step (metrics.h), and
 *   OUT/training.html   the same for people (report_html.h), as of the newest save
 *   OUT/checkpoints/    see checkpoint.h; removed by nobody but the run's own --keep-checkpoints
 *
 * OUT appears, whole, with the first save (a checkpoint or the end) and replaces an older adapter
 * then; until then nothing is written. A run that is resumed ends with the bytes of one that was
 * never stopped, on the same machine, build, thread count and memory limit. A checkpoint that can't
 * be written (a full disk) is told and does not end the run; the last save must succeed.
 * Threads: one run at a time an OUT; *stop may be set from a signal handler.
 */
#ifndef FL_WORKER_TRAINING_H
#define FL_WORKER_TRAINING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/status.h"
#include "worker/engine/finetune.h"
#include "worker/validation.h"

/* What a run tells and asks; context goes with each call. What tells may be NULL. */
struct fl_training_watch {
    void *context;
    /* resume was asked for: step and directory of the checkpoint; 0 and "": there is none */
    void (*on_resume)(void *context, uint64_t step, const char *directory);
    void (*on_step)(void *context, const struct fl_finetune_step *step);
    /* brought: FL_VALIDATION_* of this evaluation, which is in *so_far already */
    void (*on_validation)(void *context, const struct fl_validation *so_far,
                          const struct fl_evaluation *evaluation, unsigned brought);
    void (*on_checkpoint)(void *context, uint64_t step, const char *directory);
    void (*on_trouble)(void *context, const char *text); /* one line; the run goes on */
    /*
     * Add to settings (an object of strings) everything that shapes the run's numbers, by names
     * that people know; data is added by the run itself. Called once, when first needed.
     */
    enum fl_status (*identify)(void *context, json_t *settings, struct fl_error *error);
    /* Add to facts (an object of strings) what the report shall say of the run; may be NULL. */
    enum fl_status (*describe)(void *context, json_t *facts, struct fl_error *error);
    /* README.md of the adapter after these steps; best: of the one of the best validation. */
    void (*card)(void *context, const struct fl_finetune_result *total,
                 const struct fl_validation *validation, bool best, struct fl_buf *out);
    /* before the first step: what the run will take */
    void (*on_memory)(void *context, const struct fl_footprint *footprint);
};

/* All pointers are borrowed. */
struct fl_training {
    const struct fl_model *model;
    struct fl_adapter *adapter; /* trained in place */
    const struct fl_row *rows;  /* (count) */
    size_t count;
    const struct fl_row *valid; /* (valid_count), evaluated; NULL: none */
    size_t valid_count;
    struct fl_finetune_options options; /* valid is set here */
    uint64_t
        eval_every;    /* steps between evaluations, >= 1 with valid rows; the last step has one */
    uint64_t patience; /* evaluations without improvement that end the run; 0: none do */
    bool keep_best;    /* OUT itself holds the best adapter instead of the last */
    const char *out;
    uint64_t checkpoint_every; /* steps; 0: a checkpoint only when stopped */
    uint32_t keep_checkpoints; /* the newest; 0: all */
    bool resume;               /* go on from the newest checkpoint under out, if there is one */
    const atomic_int *stop;    /* may be NULL */
    struct fl_training_watch watch;
};

struct fl_training_result {
    struct fl_finetune_result total; /* of all steps, those before a resume too */
    struct fl_validation validation;
    bool early;                /* patience ended the run */
    uint64_t resumed;          /* steps that were done before this call */
    char saved[FL_PATH_BYTES]; /* FL_ESTOPPED: the checkpoint; "" when no step was done */
};

/*
 * May a run write to out? FL_EEXIST: something else is there, or, without resume, the checkpoints
 * of a run. FL_ENOTFOUND: resume, and an adapter without checkpoints is there. To be asked early.
 */
FL_CHECKED enum fl_status fl_training_check_out(const char *out, bool resume,
                                                struct fl_error *error);

/*
 * Train to the end and save. FL_ESTOPPED: *stop was set; the run was saved as a checkpoint, and the
 * message says where. FL_EUSAGE, FL_EFORMAT: what is to be resumed is of another run, or damaged.
 * Else as fl_finetune() and the writing of files.
 */
FL_CHECKED enum fl_status fl_training_run(const struct fl_training *self,
                                          struct fl_training_result *result,
                                          struct fl_error *error);

#endif
