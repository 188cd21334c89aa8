/* thin.c - see thin.h. */
#include "worker/engine/thin.h"

enum {
    PIECE = 512,  /* values of k at once */
    ROWS = 32,    /* of x at once: two tiles */
    TOKENS = 256, /* that are summed over at once */
    RANKS = 64,   /* rows of V^T at once */
    COLUMNS = FL_GEMM_COLUMNS_MAX
};

static size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* Values [q, q + count) of k, columns [r, r + n) of F as pairs: (count / 2, padded n) into out. */
static void pack_factor(const struct fl_gemm_bf16 *bf16, const float *factor, size_t ld,
                        bool turned, size_t r, size_t n, size_t q, size_t count, float *out)
{
    FL_GEMM_ROOM rows[COLUMNS * PIECE / 2];
    const size_t width = fl_gemm_padded(bf16->tiles, n);
    if (!turned) {
        for (size_t p = 0; p < count; p += 2) {
            const float *even = factor + (q + p) * ld + r;
            bf16->pair(even, even + ld, n, width, out + p / 2 * width);
        }
        return;
    }
    for (size_t j = 0; j < n; j++)
        bf16->narrow(factor + (r + j) * ld + q, count, rows + j * (count / 2));
    bf16->tiles->pack_turned(rows, count / 2, count / 2, n, out, width);
}

void fl_thin_project(const struct fl_gemm_bf16 *bf16, size_t m, size_t k, size_t rank,
                     const float *x, size_t ldx, const float *factor, bool turned, float *out)
{
    FL_GEMM_ROOM packed[PIECE / 2 * COLUMNS];
    FL_GEMM_ROOM rows[ROWS * PIECE / 2];
    for (size_t r = 0; r < rank; r += COLUMNS) {
        const size_t n = least(rank - r, COLUMNS);
        for (size_t q = 0; q < k; q += PIECE) {
            const size_t count = least(k - q, PIECE);
            struct fl_gemm_strip s = {.n = n,
                                      .k = count / 2,
                                      .alpha = 1.0f,
                                      .a = rows,
                                      .rs = count / 2,
                                      .cs = 1,
                                      .b = packed,
                                      .ldb = fl_gemm_padded(bf16->tiles, n),
                                      .ldc = rank,
                                      .add = q > 0};
            pack_factor(bf16, factor, turned ? k : rank, turned, r, n, q, count, packed);
            for (size_t i = 0; i < m; i += ROWS) {
                s.m = least(m - i, ROWS);
                s.c = out + i * rank + r;
                for (size_t t = 0; t < s.m; t++)
                    bf16->narrow(x + (i + t) * ldx + q, count, rows + t * s.rs);
                bf16->tiles->strip(&s);
            }
        }
    }
}

/* Rows [0, count) of x, n columns from there, as pairs of rows; an odd last one beside zeros. */
static void pair_rows(const struct fl_gemm_bf16 *bf16, const float *x, size_t ldx, size_t count,
                      size_t n, size_t width, float *out)
{
    static const float zeros[RANKS];
    for (size_t t = 0; t < count; t += 2, x += 2 * ldx, out += width)
        bf16->pair(x, t + 1 < count ? x + ldx : zeros, n, width, out);
}

/* V^T of `count` tokens: (n, padded pairs) from v (count, rank), its n columns from r. */
static size_t turn_v(const struct fl_gemm_bf16 *bf16, const float *v, size_t rank, size_t count,
                     size_t n, float *out)
{
    FL_GEMM_ROOM paired[TOKENS / 2 * RANKS];
    const size_t width = fl_gemm_padded(bf16->tiles, n), pairs = (count + 1) / 2;
    const size_t stride = fl_gemm_padded(bf16->tiles, pairs);
    pair_rows(bf16, v, rank, count, n, width, paired);
    bf16->tiles->pack_turned(paired, width, n, pairs, out, stride);
    return stride;
}

static void add_sums(const float *sums, size_t rows, size_t n, float alpha, size_t r, size_t j,
                     const struct fl_thin_gradient *g)
{
    float *c = g->c + r * g->rs + j * g->cs;
    for (size_t i = 0; i < rows && g->cs == 1; i++)
        for (size_t p = 0; p < n; p++)
            c[i * g->rs + p] += alpha * sums[i * COLUMNS + p];
    for (size_t p = 0; p < n && g->cs != 1; p++)
        for (size_t i = 0; i < rows; i++)
            c[i * g->rs + p * g->cs] += alpha * sums[i * COLUMNS + p];
}

void fl_thin_gradient(const struct fl_gemm_bf16 *bf16, size_t tokens, size_t n, size_t rank,
                      float alpha, const float *v, const float *x, size_t ldx,
                      const struct fl_thin_gradient *gradient)
{
    FL_GEMM_ROOM turned[RANKS * TOKENS / 2];
    FL_GEMM_ROOM packed[TOKENS / 2 * COLUMNS];
    FL_GEMM_ROOM sums[RANKS * COLUMNS];
    for (size_t r = 0; r < rank; r += RANKS) {
        const size_t rows = least(rank - r, RANKS);
        for (size_t t = 0; t < tokens; t += TOKENS) {
            const size_t count = least(tokens - t, TOKENS);
            struct fl_gemm_strip s = {.m = rows,
                                      .k = (count + 1) / 2,
                                      .alpha = 1.0f,
                                      .a = turned,
                                      .cs = 1,
                                      .b = packed,
                                      .c = sums,
                                      .ldc = COLUMNS};
            s.rs = turn_v(bf16, v + t * rank + r, rank, count, rows, turned);
            for (size_t j = 0; j < n; j += COLUMNS) {
                s.n = least(n - j, COLUMNS);
                s.ldb = fl_gemm_padded(bf16->tiles, s.n);
                pair_rows(bf16, x + t * ldx + j, ldx, count, s.n, s.ldb, packed);
                bf16->tiles->strip(&s);
                add_sums(sums, rows, s.n, alpha, r, j, gradient);
            }
        }
    }
}
