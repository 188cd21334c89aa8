/*
 * checkpoint.h - a training run on disk, between two steps: what it takes to go on to the same
 * bytes. Checkpoints of a run lie in OUT/checkpoints/, one directory a step:
 *
 *   step-N/  adapter_config.json, adapter_model.safetensors, README.md   as PEFT reads them
 *            optimizer.safetensors       step count and moments (engine/optimizer.h)
 *            best_model.safetensors      the adapter of the best validation, if there was one
 *            training_state.json         position in the data, totals, the run's settings, and the
 *                                        SHA-256 of the files above
 *
 * Random numbers have no state of their own: order and dropout follow from seed and position. A
 * directory is written under another name and renamed when all of it is on the disk, so whatever is
 * called step-N is whole. Reading distrusts it all the same: sizes are bounded, hashes compared,
 * numbers held against what a run can reach.
 * Threads: one at a time for an OUT.
 */
#ifndef FL_WORKER_CHECKPOINT_H
#define FL_WORKER_CHECKPOINT_H

#include <stdint.h>

#include "adapter/adapter.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/status.h"
#include "worker/engine/finetune.h"
#include "worker/validation.h"

#define FL_CHECKPOINT_STATE "training_state.json"

/* What a run knows of itself besides its adapter and its optimizer. */
struct fl_checkpoint {
    struct fl_finetune_position position;
    struct fl_finetune_result total; /* of all steps so far, and its threads; compute is not kept */
    struct fl_validation validation;
};

/* What is written, or filled when reading; all borrowed. */
struct fl_checkpoint_parts {
    struct fl_adapter *adapter;     /* has its names, shapes and ranks before reading */
    struct fl_optimizer *optimizer; /* made for that adapter */
    struct fl_adapter *best;        /* of the best evaluation; used when there was one; may be NULL
                                       in a run without any */
    /* An object of strings: everything that shapes the run's numbers, by names that people know
       ("--lr": "0.001", "--model": a hash in hexadecimal); compared when reading. */
    const json_t *settings;
};

/*
 * The newest checkpoint under out: its directory into path (FL_PATH_BYTES) and its step. FL_OK with
 * *step 0: there is none.
 */
FL_CHECKED enum fl_status fl_checkpoint_newest(const char *out, char *path, uint64_t *step,
                                               struct fl_error *error);

/*
 * Write OUT/checkpoints/step-N and then forget all but the newest `keep` (0: all are kept). OUT
 * exists. A step that is there already is left as it is. card: README.md, NULL for a short one.
 */
FL_CHECKED enum fl_status fl_checkpoint_save(const char *out, const struct fl_checkpoint *self,
                                             const struct fl_checkpoint_parts *parts,
                                             const char *card, uint32_t keep,
                                             struct fl_error *error);

/*
 * Read the checkpoint in directory into *self, the adapter and the optimizer. FL_EUSAGE: a
 * setting differs; the message names it with both values. FL_EFORMAT: damaged, with the file.
 */
FL_CHECKED enum fl_status fl_checkpoint_load(const char *directory, struct fl_checkpoint *self,
                                             const struct fl_checkpoint_parts *parts,
                                             struct fl_error *error);

/* Remove what a run that was killed left unfinished under out. */
FL_CHECKED enum fl_status fl_checkpoint_clear(const char *out, struct fl_error *error);

#endif
