/*
 * gemm.h - single-threaded float32 matrix products, and the packed strips that they work on.
 *
 * On x86-64 with AVX2 or AVX-512 the register tiles are our own (gemm_kernel.h): frozen weights are
 * widened from their stored type straight into the packed form, once for all threads, which a BLAS
 * would copy again in every thread and call. Elsewhere everything goes through OpenBLAS, whose own
 * choice of a kernel is right on processors that it knows. FL_GEMM=openblas|avx2|avx512|amx in the
 * environment forces one that the processor has (amx: AVX-512 for float32).
 *
 * Numbers: each element of a result is summed in one fixed order, so a kernel repeats its bytes.
 * Threads: pure functions; the choice is made once, by whichever call is first.
 */
#ifndef FL_ENGINE_GEMM_H
#define FL_ENGINE_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/dtype.h"

/* Room of kilobytes that is written before it is read: the build's clearing of locals would cost.
 */
#define FL_GEMM_ROOM __attribute__((uninitialized)) _Alignas(64) float

enum { FL_GEMM_COLUMNS_MAX = 48 }; /* of any kernel's strip */

/*
 * C (m, n) = [C +] alpha A B for one strip of B: n <= columns of the kernel. Element (i, p) of A is
 * a[i rs + p cs]. Row p of B starts at b + p ldb and is padded to whole vectors (fl_gemm_padded).
 */
struct fl_gemm_strip {
    size_t m, n, k;
    float alpha;
    const float *a;
    size_t rs, cs;
    const float *b;
    size_t ldb;
    float *c;
    size_t ldc;
    bool add;
};

struct fl_gemm_kernel {
    const char *name;
    size_t lanes, columns; /* floats a vector; columns of a strip */
    void (*strip)(const struct fl_gemm_strip *s);
    /* B (k, n), row-major with ldb -> out (k rows, each padded with zeros; stride ldo) */
    void (*pack)(const float *b, size_t ldb, size_t k, size_t n, float *out, size_t ldo);
    /* the same from its transpose: b (n, k), row-major with ldb */
    void (*pack_turned)(const float *b, size_t ldb, size_t k, size_t n, float *out, size_t ldo);
    /* c (n) = [c +] W x, W (n, k) row-major with ldw: for few tokens, nothing is packed */
    void (*dots)(size_t n, size_t k, const float *x, const float *w, size_t ldw, float *c,
                 bool add);
};

/*
 * The same tiles on pairs of bfloat16 along k, with sums in float32 (VDPBF16PS of AVX512-BF16, or
 * AMX's TDPBF16PS: each product is exact, subnormals count as zero). k, rs and ldb of a strip then
 * count pairs; its alpha and cs are 1.
 */
struct fl_gemm_bf16 {
    const struct fl_gemm_kernel *tiles;
    /* n float32, n even, rounded to nearest even, as n / 2 pairs */
    void (*narrow)(const float *x, size_t n, float *out);
    /* count stored values as the same pairs; false: of this type, or so many, not directly */
    bool (*widen)(enum fl_dtype dtype, const uint8_t *src, size_t count, float *out);
    /* pairs (even[j], odd[j]) of two rows of B, padded with zeros to width; any alignment */
    void (*pair)(const float *even, const float *odd, size_t n, size_t width, float *out);
    /* the same of two rows that narrow() or widen() made, n values each, n even, width >= n; whole
     * vectors of out are written */
    void (*pair_narrow)(const float *even, const float *odd, size_t n, size_t width, float *out);
};

/* NULL: this processor has no AVX512-BF16, or FL_GEMM forces another kernel than avx512 or amx. */
const struct fl_gemm_bf16 *fl_gemm_bf16(void);

/* The kernel of this process; NULL: OpenBLAS does everything. */
const struct fl_gemm_kernel *fl_gemm_kernel(void);
/* What a log calls the kernel of float32 products, or of those in bfloat16: "openblas", "avx2",
 * "avx512", "avx512-bf16", "amx"; "none" where there is none. A constant. */
const char *fl_gemm_name(bool bf16);
/* n rounded up to whole vectors of the kernel. */
static inline size_t fl_gemm_padded(const struct fl_gemm_kernel *kernel, size_t n)
{
    return (n + kernel->lanes - 1) / kernel->lanes * kernel->lanes;
}

/* C (m, n) = alpha A (m, k) B^T + beta C, B (n, k); row-major with leading dimensions; beta is 0 or
 * 1. With beta = 0 C need not be initialised; k = 0 then clears it. */
void fl_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc);
/* C (m, n) = alpha A (m, k) B (k, n) + beta C */
void fl_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc);
/* C (m, n) = alpha A^T B + beta C, A (k, m), B (k, n) */
void fl_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc);

/* Once a process: OpenBLAS on one thread; a warning when it is not the OpenMP build. */
void fl_gemm_prepare(void);

#endif
