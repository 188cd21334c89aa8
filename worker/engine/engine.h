/*
 * engine.h - forward and backward pass of a base model with a LoRA adapter, on the CPU.
 *
 *   y = x W^T + s (x A^T) B^T          W frozen, in its stored type; A (r, in), B (out, r)
 *   loss = sum over scored positions of -log softmax(logits)[label]
 *
 * Rows are ragged and never padded: the rows of a micro-batch are one (tokens, hidden) matrix for
 * all linears, attention runs row by row. No gradient of a frozen weight exists, nothing is
 * computed below the lowest adapted layer, only scored positions pass through the output head.
 * All memory is one arena taken by fl_engine_create(); a step allocates nothing.
 *
 * Source: Hu et al., "LoRA", ICLR 2022; numbers agree with PEFT over transformers (float32).
 * Determinism: same model, adapter, rows, options and thread count give the same bytes.
 * Threads: an engine belongs to one thread at a time and runs its own OpenMP team inside a call.
 */
#ifndef FL_ENGINE_ENGINE_H
#define FL_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "base/status.h"
#include "worker/data/row.h"
#include "worker/engine/model.h"

struct fl_engine;

enum fl_compute {
    FL_COMPUTE_AUTO, /* f32: as exact as the peers, and the same but for the order of sums at every
                        site; bf16 with AMX is several times faster and has to be asked for */
    FL_COMPUTE_F32,
    FL_COMPUTE_BF16 /* both sides of the products with frozen weights, of LoRA branches and of
                       attention rounded to bfloat16; sums, softmax, norms, parameters and gradients
                       in float32; FL_EUSAGE without AVX512-BF16 */
};

/* Factors that get gradients; a federated round may train only one. */
enum { FL_TRAIN_NONE = 0, FL_TRAIN_A = 1, FL_TRAIN_B = 2, FL_TRAIN_BOTH = 3 };

#define FL_CACHE_ROWS_MAX 64u

struct fl_engine_options {
    uint32_t threads; /* 0: the processors that this process may use */
    enum fl_compute compute;
    uint32_t max_row_tokens;   /* longest row of any later call, >= 1 */
    uint32_t max_batch_tokens; /* tokens that pass through the layers at once; memory grows with
                                  it; 0: chosen; raised to max_row_tokens. Rows are grouped in
                                  their order; the sums do not depend on whole rows per group
                                  beyond float rounding */
    uint32_t
        call_tokens; /* most tokens that one call brings in all its rows, and how many of them */
    uint32_t call_scored;  /* are scored: no room is kept for more. A call with more is done in more
                              pieces; 0: not known */
    unsigned train;        /* FL_TRAIN_*: which factors fl_engine_gradients() serves */
    uint32_t cache_tokens; /* key/value cache for generation, in tokens; 0: none */
    uint32_t cache_rows;   /* sequences side by side in the cache, cache_tokens each, at most
                              FL_CACHE_ROWS_MAX; 0: one */
    uint64_t seed;         /* of LoRA dropout */
    uint64_t memory_limit; /* bytes that the engine itself may take (fl_engine_memory()); 0: no
                              limit. Above it first the micro-batch shrinks, as far as one row,
                              then activations are computed again in the backward pass; with
                              the same micro-batch that gives the same bytes */
};

/* Gradient of the loss sum for one adapter module, summed over calls since the last zeroing. */
struct fl_gradient {
    float *a; /* (rank, in); NULL when A is not trained */
    float *b; /* (out, rank); NULL when B is not trained */
    float *m; /* (out); NULL without DoRA. Magnitudes are trained whenever a factor is */
};

/*
 * model and adapter are borrowed and must outlive the engine. adapter may be NULL (the base
 * alone); its modules must be in the model's inventory with the same shapes (FL_EINVAL). The
 * adapter's values are read anew in every call, so an optimizer may change them in between (DoRA's
 * norms are those of the last call that was no generation, or found the cache empty).
 */
FL_CHECKED enum fl_status fl_engine_create(const struct fl_model *model,
                                           const struct fl_adapter *adapter,
                                           const struct fl_engine_options *options,
                                           struct fl_engine **out, struct fl_error *error);
void fl_engine_destroy(struct fl_engine **self);

/* What an engine takes, beside the mapped weights and the adapter, and how it works within that. */
struct fl_engine_need {
    uint64_t bytes;        /* all of it */
    uint64_t gradients;    /* of these, for the adapter's gradients */
    uint32_t batch_tokens; /* of a micro-batch */
    bool recompute;        /* blocks run forward a second time */
};

/*
 * What fl_engine_create() with these arguments would take. FL_ENOMEM: the limit is too small, and
 * *out is the least that is possible; else the errors of create.
 */
FL_CHECKED enum fl_status fl_engine_plan(const struct fl_model *model,
                                         const struct fl_adapter *adapter,
                                         const struct fl_engine_options *options,
                                         struct fl_engine_need *out, struct fl_error *error);
/* Its bytes alone; 0 when create would refuse. */
uint64_t fl_engine_memory(const struct fl_model *model, const struct fl_adapter *adapter,
                          const struct fl_engine_options *options);

/* Tokens of a micro-batch, and whether blocks run forward a second time: chosen under the limit. */
uint32_t fl_engine_batch_tokens(const struct fl_engine *self);
bool fl_engine_recomputes(const struct fl_engine *self);

/* The same before an engine exists: what `compute` means here; *kernel: what its products run on
 * (fl_gemm_name()), both constants. */
const char *fl_compute_text(enum fl_compute compute, const char **kernel);
/* "f32" or "bf16": what the engine computes with, for logs and version records. */
const char *fl_engine_compute(const struct fl_engine *self);
uint32_t fl_engine_threads(const struct fl_engine *self);

/*
 * logits (n, vocab) of ids (n), n <= max_row_tokens; dropout off. FL_ERANGE: an id outside the
 * vocabulary or n too large.
 */
FL_CHECKED enum fl_status fl_engine_forward_logits(struct fl_engine *self, const int32_t *ids,
                                                   uint32_t n, float *logits,
                                                   struct fl_error *error);

/*
 * Evaluation: the sum of the scored positions' losses (natural logarithm) over all rows and the
 * number of scored positions. Position t >= 1 is scored when labels[t] != FL_IGNORE.
 */
FL_CHECKED enum fl_status fl_engine_loss(struct fl_engine *self, const struct fl_row *rows,
                                         uint32_t count, double *loss_sum, uint64_t *scored,
                                         struct fl_error *error);

/*
 * The same with gradients of loss_sum added into the gradient arrays: the caller zeroes them at
 * the start of a step and divides by the scored positions of the whole batch (fl_optimizer_step
 * takes that divisor). Dropout of the adapter, if any, is active; `step` numbers its masks.
 */
FL_CHECKED enum fl_status fl_engine_gradients(struct fl_engine *self, const struct fl_row *rows,
                                              uint32_t count, uint64_t step, double *loss_sum,
                                              uint64_t *scored, struct fl_error *error);
void fl_engine_zero_gradients(struct fl_engine *self);
/* One entry for each adapter module, in its order. Borrowed. NULL without an adapter. */
const struct fl_gradient *fl_engine_gradient(const struct fl_engine *self);

/*
 * Generation with the key/value cache: append n tokens behind those already cached of the cache's
 * row `row` and give the logits (vocab) after the last of them. FL_ERANGE: the row is full.
 */
FL_CHECKED enum fl_status fl_engine_extend_row(struct fl_engine *self, uint32_t row,
                                               const int32_t *ids, uint32_t n, float *logits,
                                               struct fl_error *error);
/* The same for the first row. */
FL_CHECKED enum fl_status fl_engine_extend(struct fl_engine *self, const int32_t *ids, uint32_t n,
                                           float *logits, struct fl_error *error);
/*
 * Append one token to each of count different rows in one pass, which reads every weight once:
 * ids[i] goes behind rows[i], logits (count, vocab). They are those of fl_engine_extend_row() but
 * for float rounding. FL_ERANGE: a row is full; then none has changed.
 */
FL_CHECKED enum fl_status fl_engine_extend_rows(struct fl_engine *self, const uint32_t *rows,
                                                const int32_t *ids, uint32_t count, float *logits,
                                                struct fl_error *error);
/* Forget what all rows, or one row, hold. */
void fl_engine_reset_cache(struct fl_engine *self);
void fl_engine_reset_row(struct fl_engine *self, uint32_t row);
/* Tokens in the first row. */
uint32_t fl_engine_cached(const struct fl_engine *self);
uint32_t fl_engine_cache_tokens(const struct fl_engine *self); /* capacity of a row */
uint32_t fl_engine_vocab(const struct fl_engine *self);

#endif
