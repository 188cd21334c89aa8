/*
 * dora.h - DoRA: the rows of W + s B A give directions, a trained vector m their lengths.
 *
 *   n_j = ||(W + s B A)_j||, c = m / n
 *   y = c (x W^T + s (x A^T) B^T) + bias
 * n is a constant for gradients (section 4.3 of the paper), but follows A and B from step to step.
 * linear.h has both passes; here are norms and factors. W is widened a panel of rows at a time,
 * once a call of the engine: beside a pass over a batch that is as little as r + 1 more tokens.
 * Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024 (arXiv 2402.09353);
 * what it leaves open (dropout, biases, norms in float32) is as in PEFT.
 */
#ifndef FL_ENGINE_DORA_H
#define FL_ENGINE_DORA_H

#include "adapter/adapter.h"
#include "base/status.h"
#include "worker/engine/linear.h"
#include "worker/engine/model.h"

/* linear's norms and factors, both (out), from its A, B and m as they stand. One team. */
void fl_dora_factors(const struct fl_work *work, const struct fl_linear *linear);

/*
 * Make a LoRA adapter of this model one of DoRA that computes the same: m = n, for every module.
 * threads 0: all. FL_EINVAL: the model has no such linear. FL_ENOMEM.
 */
FL_CHECKED enum fl_status fl_dora_start(const struct fl_model *model, struct fl_adapter *adapter,
                                        uint32_t threads, struct fl_error *error);

/*
 * How far the magnitudes of an adapter of DoRA are from the lengths of this model's rows: the mean
 * of |m - n| / n over all rows of all modules (those of zeros left out). 0 where fl_dora_start()
 * made them for it; more by as much as it was trained, or made for another model. Errors as above.
 */
FL_CHECKED enum fl_status fl_dora_distance(const struct fl_model *model,
                                           const struct fl_adapter *adapter, uint32_t threads,
                                           double *out, struct fl_error *error);

#endif
