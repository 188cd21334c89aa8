/*
 * thin.h - products in bfloat16 one side of which is a LoRA rank; sums in float32.
 *
 * Both sides are rounded piece by piece on the way into the tiles of gemm.h, so that no matrix is
 * kept twice. What is summed over (k, or pairs of tokens) has one fixed order.
 * Threads: pure functions.
 */
#ifndef FL_ENGINE_THIN_H
#define FL_ENGINE_THIN_H

#include "worker/engine/gemm.h"

/* The long side: float32 rows with ld, or (narrowed) pairs of bfloat16 with ld in pairs. */
struct fl_thin_rows {
    const float *x;
    size_t ld;
    bool narrowed;
};

/*
 * out (m, rank) = x F, x (m, k), k even. F is factor (k, rank), or turned: the transpose
 * of factor (rank, k).
 */
void fl_thin_project(const struct fl_gemm_bf16 *bf16, size_t m, size_t k, size_t rank,
                     const struct fl_thin_rows *x, const float *factor, bool turned, float *out);

/* Where element (r, j) of a gradient is: c[r rs + j cs]. */
struct fl_thin_gradient {
    float *c;
    size_t rs, cs;
};
/* c (rank, n) += alpha V^T X, v (tokens, rank), x (tokens, n) from its column `first`, which is
 * even. */
void fl_thin_gradient(const struct fl_gemm_bf16 *bf16, size_t tokens, size_t n, size_t rank,
                      float alpha, const float *v, const struct fl_thin_rows *x, size_t first,
                      const struct fl_thin_gradient *gradient);

#endif
