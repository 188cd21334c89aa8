/*
 * kernels.h - the elementwise loops of the engine, each forward beside its backward. Serial: the
 * caller gives every thread its own rows. Compiled for several x86-64 levels and chosen at load
 * time; every reduction has a fixed order, so a build repeats its bytes on one machine.
 *
 * exp is our own polynomial (relative error below 2 ulp, arguments clamped to +-87), because the C
 * library's does not vectorise.
 * Threads: pure functions.
 */
#ifndef FL_ENGINE_KERNELS_H
#define FL_ENGINE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/*
 * RMSNorm of rows: y = x * inverse * w, inverse = 1 / sqrt(mean(x x) + epsilon).
 * x, y (rows, n); w (n); inverse (rows) is kept for the backward pass.
 */
void fl_rmsnorm(const float *x, const float *w, double epsilon, size_t rows, size_t n, float *y,
                float *inverse);
/* The same from a known inverse: y = x * inverse * w. */
void fl_rmsnorm_again(const float *x, const float *w, const float *inverse, size_t rows, size_t n,
                      float *y);
/*
 * dx += inverse (dy w) - x inverse^3 mean(dy w x); the weight w is frozen and has no gradient.
 * dy, x, dx (rows, n); inverse (rows).
 */
void fl_rmsnorm_backward(const float *dy, const float *x, const float *w, const float *inverse,
                         size_t rows, size_t n, float *dx);

/*
 * LayerNorm of rows: y = (x - mean) inverse w + b, inverse = 1 / sqrt(mean((x - mean)^2) +
 * epsilon). Shapes as above, b (n).
 */
void fl_layernorm(const float *x, const float *w, const float *b, double epsilon, size_t rows,
                  size_t n, float *y, float *inverse);
/* The same from a known inverse; the mean is taken again. */
void fl_layernorm_again(const float *x, const float *w, const float *b, const float *inverse,
                        size_t rows, size_t n, float *y);
/* dx += inverse (g - mean(g) - z mean(g z)), g = dy w, z = (x - mean) inverse; w and b are frozen.
 */
void fl_layernorm_backward(const float *dy, const float *x, const float *w, const float *inverse,
                           size_t rows, size_t n, float *dx);

/*
 * GELU with tanh ("gelu_new"): h = x (1 + tanh(c (x + 0.044715 x^3))) / 2, c = sqrt(2 / pi), over n
 * values; (1 + tanh(z)) / 2 is computed as sigmoid(2 z).
 */
void fl_gelu(const float *x, size_t n, float *h);
/* x becomes dx, from dh (n). */
void fl_gelu_backward(const float *dh, size_t n, float *x);

/* h = gate sigmoid(gate) up, elementwise over n values. */
void fl_swiglu(const float *gate, const float *up, size_t n, float *h);
/* gate becomes d gate and up becomes d up, from dh (n). */
void fl_swiglu_backward(const float *dh, size_t n, float *gate, float *up);

/* h = gelu(gate) up */
void fl_geglu(const float *gate, const float *up, size_t n, float *h);
/* gate becomes d gate and up becomes d up, from dh (n). */
void fl_geglu_backward(const float *dh, size_t n, float *gate, float *up);

/* Soft cap: x becomes cap tanh(factor x / cap), over n values. */
void fl_soft_cap(float *x, size_t n, float factor, float cap);
/* From y (n), what it gave: d becomes its own gradient, d (1 - (y / cap)^2) factor. */
void fl_soft_cap_backward(const float *y, size_t n, float factor, float cap, float *d);

/*
 * One row of causal attention: s (total) scores, the first `valid` of them seen. They become
 * softmax(scale * s), the rest 0. Returns log sum exp(scale * s) over the seen.
 */
float fl_softmax_row(float *s, size_t valid, size_t total, float scale);
/* s becomes exp(scale * s - lse) where seen, else 0: the same probabilities again. */
void fl_softmax_again(float *s, size_t valid, size_t total, float scale, float lse);
/* ds: d becomes p (d - delta) scale; p, d (total). */
void fl_softmax_backward(const float *p, float *d, size_t total, float delta, float scale);

/* Largest of n values, n >= 1. */
float fl_max(const float *x, size_t n);
/* sum of exp(x - shift); x itself becomes exp(x - shift). */
double fl_exp_sum(float *x, size_t n, float shift);
/* The same sum, x left alone. */
double fl_exp_sum_only(const float *x, size_t n, float shift);
void fl_scale(float *x, size_t n, float factor);
float fl_dot(const float *x, const float *y, size_t n);
double fl_sum_squares(const float *x, size_t n);
/* y += x */
void fl_add(const float *x, size_t n, float *y);
/* Every row of y (rows, n) += bias (n). */
void fl_add_rows(const float *bias, size_t rows, size_t n, float *y);

/*
 * Rotary embedding of one head, Hugging Face's pairs (i, i + half):
 * x_i' = x_i cos - x_{i+half} sin, x_{i+half}' = x_{i+half} cos + x_i sin.
 * cosine, sine (half). Backward is the same with sign = -1.
 */
void fl_rotate(float *x, const float *cosine, const float *sine, size_t half, float sign);

/*
 * Inverted dropout with a counter-based mask, so that it can be repeated: element (row, i) is kept
 * when hash(key, row * n + i) >= p. y = x keep / (1 - p). x, y (rows, n); may be the same.
 */
void fl_dropout(const float *x, uint64_t key, uint64_t first_row, size_t rows, size_t n, double p,
                float *y);

/* AdamW on n values (float32, PyTorch's order); see optimizer.h. */
struct fl_adamw {
    float decay;        /* 1 - lr wd */
    float rate1;        /* 1 - beta1 */
    float beta2, rate2; /* rate2 = 1 - beta2 */
    float step;         /* lr / (1 - beta1^t) */
    float correction;   /* sqrt(1 - beta2^t) */
    float epsilon;
    float gradient; /* factor of the gradient: clipping / divisor */
};
void fl_adamw_update(const struct fl_adamw *c, const float *g, size_t n, float *p, float *m,
                     float *v);

#endif
