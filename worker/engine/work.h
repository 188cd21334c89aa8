/*
 * work.h - what every part of a pass shares: the team of threads, the scratch that frozen weights
 * are widened into, and the matrix products on top of single-threaded sgemm.
 *
 * Threads work on their own rows (tokens) of each matrix; OpenBLAS itself stays on one thread.
 * Measured on two cores this equals OpenBLAS' own threading on square products and is 1.5 to 2
 * times faster on the thin ones of LoRA.
 */
#ifndef FL_ENGINE_WORK_H
#define FL_ENGINE_WORK_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/model.h"

struct fl_work {
    uint32_t threads;
    float *panel; /* (panel_floats): rows of a widened weight, shared by the team */
    size_t panel_floats;
    float *strips; /* (threads, strip_floats): attention scores of one block of queries */
    size_t strip_floats;
    float *dropped; /* (batch tokens, widest in): input of a LoRA branch after dropout, or NULL */
};

/* Part `index` of `parts` of [0, total), cut at multiples of grain: [*low, *high). */
static inline void fl_share(size_t total, uint32_t index, uint32_t parts, size_t grain, size_t *low,
                            size_t *high)
{
    size_t units = (total + grain - 1) / grain;
    *low = units * index / parts * grain;
    *high = units * (index + 1) / parts * grain;
    *low = *low < total ? *low : total;
    *high = *high < total ? *high : total;
}

/* Once a process: OpenBLAS on one thread; a warning when it is not the OpenMP build. */
void fl_work_prepare_blas(void);

/* C (m, n) = alpha A (m, k) B^T + beta C, B (n, k); row-major with leading dimensions. */
void fl_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc);
/* C (m, n) = alpha A (m, k) B (k, n) + beta C */
void fl_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc);
/* C (m, n) = alpha A^T B + beta C, A (k, m), B (k, n) */
void fl_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc);

/*
 * y (tokens, ldy) = [y +] x W^T with the frozen W (out, in), by the whole team. x (tokens, in).
 */
void fl_weight_multiply(const struct fl_work *work, const struct fl_weight *weight, const float *x,
                        size_t tokens, float *y, size_t ldy, int add);
/* dx (tokens, in) = [dx +] g W, g (tokens, ldg). */
void fl_weight_multiply_back(const struct fl_work *work, const struct fl_weight *weight,
                             const float *g, size_t ldg, size_t tokens, float *dx, int add);

/*
 * The same from inside a parallel region, called by every thread once in that region: each gets
 * the result of its own tokens (fl_my_tokens) without a barrier at the end.
 */
void fl_team_multiply(const struct fl_work *work, const struct fl_weight *weight, const float *x,
                      size_t tokens, float *y, size_t ldy, int add);
void fl_team_multiply_back(const struct fl_work *work, const struct fl_weight *weight,
                           const float *g, size_t ldg, size_t tokens, float *dx, int add);
/* The calling thread's share [*low, *high) of the tokens in a parallel region. */
void fl_my_tokens(size_t tokens, size_t *low, size_t *high);
/* So few tokens that threads share the rows of W instead: fl_team_multiply() is not for them. */
int fl_work_is_narrow(const struct fl_work *work, size_t tokens);

#endif
