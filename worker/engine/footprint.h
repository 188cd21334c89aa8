/*
 * footprint.h - what a training run or an evaluation takes of memory, known before it begins, and
 * how it is made to fit a limit.
 *
 * Counted is what stays resident at the peak, which is what limits of the operating system count:
 * the base's weights (mapped from the file, or held), adapter and gradients, the optimizer's state,
 * activations and scratch, the rows, the program with its libraries. It is a function of model,
 * adapter, rows and options alone, so that the same call makes the same choices.
 * Threads: pure functions.
 */
#ifndef FL_ENGINE_FOOTPRINT_H
#define FL_ENGINE_FOOTPRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "worker/data/row.h"
#include "worker/engine/engine.h"

/* All in bytes. */
struct fl_footprint {
    uint64_t weights;     /* of the base */
    uint64_t adapter;     /* itself, its gradients, its bytes when saved, and copies */
    uint64_t optimizer;   /* its state */
    uint64_t activations; /* and scratch */
    uint64_t rest;        /* rows, program, libraries */
    uint64_t total;
    uint32_t batch_tokens; /* of a micro-batch */
    bool recompute;        /* activations are computed again in the backward pass */
};

/* Rows that are worked on so many at a time. */
struct fl_row_set {
    const struct fl_row *rows; /* (count), borrowed; NULL: none */
    size_t count;
    uint32_t at_once; /* rows of one call of the engine, >= 1 */
};

/* Largest sum over at_once rows of one set of their tokens, and of their scored positions. */
struct fl_row_bounds {
    uint32_t row_tokens; /* of the longest row; 1 without rows */
    uint32_t call_tokens, call_scored;
    uint64_t bytes; /* that the rows take */
};
/* FL_ENOMEM. */
FL_CHECKED enum fl_status fl_row_bounds(const struct fl_row_set *sets, size_t count,
                                        struct fl_row_bounds *out, struct fl_error *error);

/*
 * What an engine with these options takes; limit: of the whole process, 0: none. copies: of the
 * adapter that are held beside it; moments: values an optimizer keeps for each trained one (AdamW:
 * 2). options->memory_limit becomes what is left for the engine. bytes: of rows. FL_ENOMEM: it does
 * not fit, and the message says what would; else as fl_engine_create().
 */
FL_CHECKED enum fl_status fl_footprint(const struct fl_model *model,
                                       const struct fl_adapter *adapter, uint64_t limit,
                                       uint32_t copies, uint32_t moments, uint64_t bytes,
                                       struct fl_engine_options *options, struct fl_footprint *out,
                                       struct fl_error *error);

#endif
