/*
 * linear.h - one linear of the model: frozen W (out, in), optional bias, optional LoRA branch, with
 * DoRA's magnitudes or without.
 *
 *   forward:   U = x A^T;  y = x W^T + bias + s U B^T
 *   backward:  V = G B;  dB += s G^T U;  dA += s V^T x;  dx = G W + s V A
 * With dropout the branch reads x' = dropout(x) instead of x, and s V A passes the same mask.
 * Small products come first; B A is never formed.
 *
 * DoRA (dora.h), c = m / n of each row, z = x W^T + s U B^T:
 *   forward:   y = c z + bias;  with dropout y = x W^T + (c - 1) x' W^T + c s U' B^T + bias
 *   backward:  g' = c g takes the place of g;  dm += sum over tokens of g z / n
 *              with dropout dx = g W + mask((g' - g) W + s V A), and z is made of x'
 */
#ifndef FL_ENGINE_LINEAR_H
#define FL_ENGINE_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/work.h"

struct fl_linear {
    const struct fl_weight *weight; /* (out, in) */
    const float *bias;              /* (out), NULL: none */
    uint32_t out, in;
    uint32_t rank;  /* 0: not adapted */
    const float *a; /* (rank, in), the adapter's */
    const float *b; /* (out, rank) */
    float *da;      /* (rank, in) gradient; NULL: A is not trained */
    float *db;      /* (out, rank) gradient; NULL: B is not trained */
    float scale;    /* s */
    const float *m; /* (out) DoRA's magnitudes, the adapter's; NULL: LoRA */
    float *dm;      /* (out) gradient; NULL: not trained */
    float *norm;    /* (out) n */
    float *factor;  /* (out) c */
    float *z;       /* (tokens, out) kept for backward; belongs to the block's slot */
    double dropout; /* p of the branch's input */
    uint32_t index; /* of the adapter module: tells dropout masks apart */
};

/* What one pass knows beyond the matrices. */
struct fl_pass {
    const struct fl_work *work;
    size_t tokens;
    uint64_t dropout_key; /* of this step and micro-batch */
    bool dropout;         /* masks are active (training) */
};

/* y (tokens, out) = [y +] linear(x); x (tokens, in); u (tokens, rank) is kept for backward. */
void fl_linear_forward(const struct fl_pass *pass, const struct fl_linear *linear, const float *x,
                       float *u, float *y, bool add);

/*
 * g (tokens, out) = dL/dy. Adds to da and db. dx (tokens, in) = [dx +] dL/dx, NULL: not wanted.
 * v (tokens, rank) is scratch. Without `add` dx may be x: x is read first.
 */
void fl_linear_backward(const struct fl_pass *pass, const struct fl_linear *linear, const float *g,
                        const float *x, const float *u, float *v, float *dx, bool add);

#endif
