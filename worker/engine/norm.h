/*
 * norm.h - the two norms that bases have, behind one struct: RMSNorm, and LayerNorm where there is
 * a bias.
 *
 * Threads: serial; the caller gives every thread its own rows.
 */
#ifndef FL_ENGINE_NORM_H
#define FL_ENGINE_NORM_H

#include <stddef.h>

#include "worker/engine/kernels.h"

struct fl_norm {
    const float *weight; /* (n), borrowed */
    const float *bias;   /* (n), NULL: RMSNorm */
    double epsilon;
};

/* y (rows, n) = norm of x (rows, n); inverse (rows) is kept for the calls below. */
static inline void fl_norm(const struct fl_norm *self, const float *x, size_t rows, size_t n,
                           float *y, float *inverse)
{
    if (self->bias)
        fl_layernorm(x, self->weight, self->bias, self->epsilon, rows, n, y, inverse);
    else
        fl_rmsnorm(x, self->weight, self->epsilon, rows, n, y, inverse);
}

/* The same y once more. */
static inline void fl_norm_again(const struct fl_norm *self, const float *x, const float *inverse,
                                 size_t rows, size_t n, float *y)
{
    if (self->bias)
        fl_layernorm_again(x, self->weight, self->bias, inverse, rows, n, y);
    else
        fl_rmsnorm_again(x, self->weight, inverse, rows, n, y);
}

/* dx (rows, n) += gradient of x from dy (rows, n). */
static inline void fl_norm_backward(const struct fl_norm *self, const float *dy, const float *x,
                                    const float *inverse, size_t rows, size_t n, float *dx)
{
    if (self->bias)
        fl_layernorm_backward(dy, x, self->weight, inverse, rows, n, dx);
    else
        fl_rmsnorm_backward(dy, x, self->weight, inverse, rows, n, dx);
}

#endif
