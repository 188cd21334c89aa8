/* engine_internal.h - what an engine holds; for the files of this room only. */
#ifndef FL_ENGINE_ENGINE_INTERNAL_H
#define FL_ENGINE_ENGINE_INTERNAL_H

#include <stdbool.h>

#include "worker/engine/attention.h"
#include "worker/engine/engine.h"
#include "worker/engine/head.h"
#include "worker/engine/linear.h"
#include "worker/engine/model_internal.h"

/*
 * Activations of one block for one micro-batch of T tokens, kept from forward to backward. Norms,
 * h = silu(gate) up or gelu(up), and attention probabilities are computed again.
 */
struct fl_slot {
    float *x;               /* (T, hidden) input of the block */
    float *q, *k, *v;       /* (T, H D), (T, K D) twice; q and k after rotation */
    float *q_raw, *k_raw;   /* as q and k, before their norms; empty where there are none */
    float *inverse_q;       /* (T, H) of q's norms */
    float *inverse_k;       /* (T, K) of k's norms */
    float *ctx;             /* (T, H D) attention output */
    float *mid;             /* (T, hidden) after attention */
    float *given1, *given2; /* (T, hidden) what attention and MLP give, before the norms behind
                               them; empty where there are none, as inverses of those */
    float *inverse_post1, *inverse_post2; /* (T) */
    float *gate, *up;           /* (T, ffn); backward turns them into their gradients; gate is
                                   empty where the MLP has none */
    float *lse;                 /* (T, H) log-sum-exp of the scores */
    float *inverse1, *inverse2; /* (T) of the two norms */
    float *u[FL_LINEAR_COUNT];  /* (T, rank) x A^T of the adapted linears */
    float *z[FL_LINEAR_COUNT];  /* (T, out) of those with DoRA */
};

struct fl_engine_block {
    struct fl_linear linears[FL_LINEAR_COUNT];
    const struct fl_block *base; /* the norms */
    uint32_t window;             /* of attention; 0: none */
    bool near;                   /* it turns by the engine's near_cosine and near_sine */
    struct fl_slot *slot;        /* own when gradients pass here, else shared */
    float *cache_k, *cache_v;    /* (cache rows, cache_tokens, K D) or NULL */
};

struct fl_engine {
    const struct fl_model *model;
    const struct fl_adapter *adapter; /* NULL: the base alone */
    struct fl_engine_options options;
    struct fl_work work;
    struct fl_attention shape; /* without a layer's window */
    struct fl_head head;
    uint32_t layers, lowest; /* gradients stop at block `lowest`; layers when there are none */
    uint32_t max_rank;
    uint32_t dora_out[FL_LINEAR_COUNT]; /* out of the linears that have DoRA somewhere, else 0 */
    size_t batch;                       /* T: tokens of a micro-batch */
    bool recompute;                 /* slots share all but x; backward runs a block forward first */
    struct fl_engine_block *blocks; /* (layers) */
    struct fl_slot *slots;
    float **dora;                  /* (adapter modules): norms (out) and factors (out) */
    struct fl_gradient *gradients; /* (adapter modules) */
    float *gradient_data;
    size_t gradient_floats;
    float *x;      /* (T, hidden) output of the last block */
    float *dx;     /* (T, hidden) gradient of the residual stream */
    float *n, *dn; /* (T, hidden) a norm's output, and its gradient */
    float *wide;   /* (T, max(ffn, 2 H D + 2 K D)): h and dh, or dctx dq dk dv */
    float *joined; /* (T, H D + 2 K D) or (T, 2 ffn) where one linear has several; or empty */
    float *v;      /* (T, max_rank) */
    float *cosine, *sine;           /* (positions, D / 2); empty with learned positions */
    float *near_cosine, *near_sine; /* the same for layers with a window; empty where they have no
                                       rotation of their own */
    struct fl_span *spans;          /* (T) rows of the micro-batch */
    struct fl_target *targets;      /* (T) */
    size_t span_count, target_count, tokens;
    size_t cached[FL_CACHE_ROWS_MAX]; /* tokens in each row of the key/value cache */
    uint32_t *span_rows;              /* (T) the cache row of each span, when generating */
    void *arena;                      /* owned: everything above */
    size_t arena_bytes;
};

/* Run the block on the engine's micro-batch: slot->x in, `out` (T, hidden) out. */
void fl_block_forward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass,
                      float *out, bool from_cache);
/* self->dx: gradient of the block's output in, of its input out (unless layer is the lowest). */
void fl_block_backward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass);

/* DoRA's norms and factors from the adapter as it stands; nothing without DoRA. */
void fl_engine_refresh(struct fl_engine *self);
/* Every adapter module against the model's inventory; finds `lowest` and max_rank. */
FL_CHECKED enum fl_status fl_engine_check_adapter(struct fl_engine *self, struct fl_error *error);
/* Fill the blocks' linears from model and adapter; the arena is laid out. Nothing is copied. */
FL_CHECKED enum fl_status fl_engine_bind(struct fl_engine *self, struct fl_error *error);

#endif
