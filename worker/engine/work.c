/* work.c - see work.h. */
#include "worker/engine/work.h"

#include <cblas.h>
#include <omp.h>
#include <pthread.h>

#include "base/log.h"

/* Below so many tokens a thread, threads share the rows of W instead of the tokens. */
enum { NARROW_TOKENS = 8, ROW_GRAIN = 8, TOKEN_GRAIN = 4 };

static void prepare_blas(void)
{
    static const struct fl_field NONE = {.kind = FL_FIELD_END};
    if (openblas_get_parallel() != 2)
        fl_log_fields(FL_LOG_WARN, "blas_build",
                      "OpenBLAS is not its OpenMP build: install libopenblas0-openmp and choose it "
                      "with update-alternatives --config libopenblas.so.0-$(uname -m)-linux-gnu",
                      &NONE);
    openblas_set_num_threads(1);
}

void fl_work_prepare_blas(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_blas);
}

void fl_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    if (m && n)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, alpha, a,
                    (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void fl_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    if (m && n)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                    (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void fl_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    if (m && n)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                    (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

/* The rows of W as float32 where the file already holds them so, in order and aligned. */
static const float *in_place(const struct fl_weight *weight)
{
    if (weight->dtype != FL_DTYPE_F32 || weight->interleave ||
        (uintptr_t)weight->data % _Alignof(float) != 0)
        return NULL;
    return (const float *)(const void *)weight->data;
}

/* Rows of W that fit the panel at once; all of them if W needs no widening. */
static size_t panel_rows(const struct fl_work *work, const struct fl_weight *weight)
{
    if (in_place(weight))
        return weight->rows;
    size_t rows = work->panel_floats / weight->columns;
    return rows < weight->rows ? rows : weight->rows;
}

void fl_my_tokens(size_t tokens, size_t *low, size_t *high)
{
    fl_share(tokens, (uint32_t)omp_get_thread_num(), (uint32_t)omp_get_num_threads(), TOKEN_GRAIN,
             low, high);
}

int fl_work_is_narrow(const struct fl_work *work, size_t tokens)
{
    return tokens < (size_t)NARROW_TOKENS * work->threads;
}

/*
 * Called by every thread of the team: rows [first, first + count) of W, widened into the panel by
 * all, each its share. A barrier before the second and later panels of a region (nobody reads the
 * old one any more) and one after each widening.
 */
static const float *team_panel(const struct fl_work *work, const struct fl_weight *weight,
                               size_t first, size_t count)
{
    const float *direct = in_place(weight);
    if (direct)
        return direct + first * weight->columns;
    size_t low, high;
    fl_share(count, (uint32_t)omp_get_thread_num(), (uint32_t)omp_get_num_threads(), ROW_GRAIN,
             &low, &high);
    if (first) {
#pragma omp barrier
    }
    if (low < high)
        fl_weight_widen(weight, (uint32_t)(first + low), (uint32_t)(high - low),
                        work->panel + low * weight->columns);
#pragma omp barrier
    return work->panel;
}

/* Few tokens (generation): each thread widens and multiplies its own rows of W, piece by piece. */
static void multiply_narrow(const struct fl_work *work, const struct fl_weight *weight,
                            const float *x, size_t tokens, float *y, size_t ldy, float beta)
{
    const size_t in = weight->columns;
    const float *direct = in_place(weight);
    size_t share = work->panel_floats / work->threads / in;
    size_t piece = share < 64 ? share : 64;
    size_t pieces = (weight->rows + piece - 1) / piece;
#pragma omp parallel for schedule(static) num_threads((int)work->threads)
    for (size_t p = 0; p < pieces; p++) {
        size_t first = p * piece;
        size_t count = weight->rows - first < piece ? weight->rows - first : piece;
        const float *rows = direct ? direct + first * in : NULL;
        if (!rows) {
            float *own = work->panel + (size_t)omp_get_thread_num() * share * in;
            fl_weight_widen(weight, (uint32_t)first, (uint32_t)count, own);
            rows = own;
        }
        fl_gemm_nt(tokens, count, in, 1.0f, x, in, rows, in, beta, y + first, ldy);
    }
}

void fl_team_multiply(const struct fl_work *work, const struct fl_weight *weight, const float *x,
                      size_t tokens, float *y, size_t ldy, int add)
{
    const size_t in = weight->columns, step = panel_rows(work, weight);
    size_t low, high;
    fl_my_tokens(tokens, &low, &high);
    for (size_t first = 0; first < weight->rows; first += step) {
        size_t count = weight->rows - first < step ? weight->rows - first : step;
        const float *rows = team_panel(work, weight, first, count);
        fl_gemm_nt(high - low, count, in, 1.0f, x + low * in, in, rows, in, add ? 1.0f : 0.0f,
                   y + low * ldy + first, ldy);
    }
}

void fl_team_multiply_back(const struct fl_work *work, const struct fl_weight *weight,
                           const float *g, size_t ldg, size_t tokens, float *dx, int add)
{
    const size_t in = weight->columns, step = panel_rows(work, weight);
    size_t low, high;
    fl_my_tokens(tokens, &low, &high);
    for (size_t first = 0; first < weight->rows; first += step) {
        size_t count = weight->rows - first < step ? weight->rows - first : step;
        const float *rows = team_panel(work, weight, first, count);
        fl_gemm_nn(high - low, in, count, 1.0f, g + low * ldg + first, ldg, rows, in,
                   add || first ? 1.0f : 0.0f, dx + low * in, in);
    }
}

void fl_weight_multiply(const struct fl_work *work, const struct fl_weight *weight, const float *x,
                        size_t tokens, float *y, size_t ldy, int add)
{
    if (fl_work_is_narrow(work, tokens)) {
        multiply_narrow(work, weight, x, tokens, y, ldy, add ? 1.0f : 0.0f);
        return;
    }
#pragma omp parallel num_threads((int)work->threads)
    fl_team_multiply(work, weight, x, tokens, y, ldy, add);
}

void fl_weight_multiply_back(const struct fl_work *work, const struct fl_weight *weight,
                             const float *g, size_t ldg, size_t tokens, float *dx, int add)
{
#pragma omp parallel num_threads((int)work->threads)
    fl_team_multiply_back(work, weight, g, ldg, tokens, dx, add);
}
