/*
 * optimizer.h - AdamW and SGD over the trainable factors of an adapter, with global-norm clipping.
 *
 * g = gradient / divisor; norm = ||g|| over every trained tensor; with clipping
 * g *= min(1, max_norm / (norm + 1e-6)). Then, in PyTorch's order (float32 tensors, scalars in
 * double):
 *   AdamW: p -= lr wd p; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g g;
 *          p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 *   SGD:   g += wd p; p -= lr g
 * A and B have learning rates of their own (LoRA+; rounds that train one factor); DoRA's magnitudes
 * move with B's, as in PEFT's LoRA+.
 *
 * Source: Loshchilov and Hutter, ICLR 2019; torch.optim.AdamW, torch.nn.utils.clip_grad_norm_.
 * Threads: one thread at a time.
 */
#ifndef FL_ENGINE_OPTIMIZER_H
#define FL_ENGINE_OPTIMIZER_H

#include <stdint.h>

#include "adapter/adapter.h"
#include "base/buf.h"
#include "base/status.h"
#include "worker/engine/engine.h"

struct fl_optimizer;

enum fl_optimizer_kind { FL_OPTIMIZER_ADAMW, FL_OPTIMIZER_SGD };

struct fl_optimizer_options {
    enum fl_optimizer_kind kind;
    double beta1, beta2, epsilon; /* AdamW: 0.9, 0.999, 1e-8 */
    double weight_decay;
    double grad_clip; /* largest global L2 norm; 0: off */
    unsigned train;   /* FL_TRAIN_*: the factors that move; the same as the engine's */
};

/* AdamW, 0.9, 0.999, 1e-8, weight_decay 0, grad_clip 1, both factors. */
struct fl_optimizer_options fl_optimizer_defaults(void);

/* State for an adapter of this shape; the adapter is only looked at. */
FL_CHECKED enum fl_status fl_optimizer_create(const struct fl_adapter *adapter,
                                              const struct fl_optimizer_options *options,
                                              struct fl_optimizer **out, struct fl_error *error);
void fl_optimizer_destroy(struct fl_optimizer **self);

/*
 * One step on adapter's A and B (shapes as at create). gradients: fl_engine_gradient();
 * divisor > 0: scored positions of the batch. *norm (may be NULL): global norm before clipping.
 * FL_ERANGE: the norm is not finite; nothing has moved then.
 */
FL_CHECKED enum fl_status fl_optimizer_step(struct fl_optimizer *self, struct fl_adapter *adapter,
                                            const struct fl_gradient *gradients, double divisor,
                                            double lr_a, double lr_b, double *norm,
                                            struct fl_error *error);

/* Steps taken so far. */
uint64_t fl_optimizer_steps(const struct fl_optimizer *self);

/*
 * The state as a safetensors file appended to *out, for a checkpoint: "step" (F64, 1), and for
 * AdamW ADAPTER_KEY.exp_avg and ADAPTER_KEY.exp_avg_sq of each trained tensor (F32, that tensor's
 * shape). adapter: that of create.
 */
FL_CHECKED enum fl_status fl_optimizer_encode(const struct fl_optimizer *self,
                                              const struct fl_adapter *adapter, struct fl_buf *out,
                                              struct fl_error *error);
/*
 * And back. what names the bytes in messages. FL_EFORMAT: of another adapter or optimizer, or
 * damaged; the state is then undefined, and the run must end.
 */
FL_CHECKED enum fl_status fl_optimizer_decode(struct fl_optimizer *self,
                                              const struct fl_adapter *adapter, const void *bytes,
                                              size_t length, const char *what,
                                              struct fl_error *error);

#endif
