/*
 * attention.h - causal grouped-query attention over ragged rows, forward and backward.
 *
 *   S = Q K^T / sqrt(D), P = softmax over the keys at or before each query (with a window the
 *   newest of them only), O = P V
 *   backward: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dO O)); dQ = dS K / sqrt(D);
 *   dK = dS^T Q / sqrt(D)
 * A soft cap stands between the scores and their softmax: S' = cap tanh(S / cap).
 * In bfloat16 (fl_work.bf16) both sides of each product are rounded, softmax and sums are not.
 * Queries go in blocks; one block's scores against all of its keys are a strip of BLOCK x keys
 * floats a thread, so memory grows with the row's length, never with its square. P is computed
 * again in backward from the kept log-sum-exp.
 *
 * Source: Dao et al., "FlashAttention", 2022 (recomputation), without its online softmax.
 * Threads: one team; a (row, head) belongs to one thread and is summed in one order.
 */
#ifndef FL_ENGINE_ATTENTION_H
#define FL_ENGINE_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/work.h"

enum { FL_ATTENTION_BLOCK = 64 };

struct fl_attention {
    uint32_t heads, kv_heads, head_dim;
    uint32_t window; /* 0: none; else a query sees so many newest keys, its own included */
    float scalar;    /* scores are divided by its root; 0: head_dim */
    float cap;       /* scores become cap tanh(score / cap); 0: they do not */
};

/* One row of the micro-batch. */
struct fl_span {
    size_t first;  /* its first token in q, and in k and v unless `past` */
    size_t tokens; /* new tokens */
    size_t past;   /* keys in front of the first new token (generation; else 0): then k and v
                      hold past + tokens rows and `first` is 0 */
};

/* Floats of one thread's strips for rows of up to `keys` keys. */
size_t fl_attention_strip_floats(size_t keys, size_t head_dim, bool bf16);

/*
 * q, o (tokens, heads D); k, v (tokens, kv_heads D); lse (tokens, heads) is kept for backward,
 * NULL: not wanted.
 */
void fl_attention_forward(const struct fl_work *work, const struct fl_attention *shape,
                          const struct fl_span *spans, size_t count, const float *q, const float *k,
                          const float *v, float *o, float *lse);

/* dq, dk, dv are written (not added to); shapes as q, k, v. */
void fl_attention_backward(const struct fl_work *work, const struct fl_attention *shape,
                           const struct fl_span *spans, size_t count, const float *q,
                           const float *k, const float *v, const float *o, const float *lse,
                           const float *d_o, float *dq, float *dk, float *dv);

/*
 * Rotate every head of x (tokens, heads D) to its position in its row (sign 1), or back (sign -1:
 * the backward pass). cosine, sine (positions, D / 2).
 */
void fl_attention_rotate(const struct fl_work *work, const struct fl_span *spans, size_t count,
                         uint32_t heads, uint32_t head_dim, const float *cosine, const float *sine,
                         float sign, float *x);

#endif
