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

/* out (m, n) with ldc of s = values [q, q + 2 k) of x times the packed factor */
static void project(const struct fl_gemm_bf16 *bf16, struct fl_gemm_strip s, size_t m,
                    const struct fl_thin_rows *x, size_t q)
{
    FL_GEMM_ROOM rows[ROWS * PIECE / 2];
    if (x->narrowed) {
        s.m = m;
        s.a = x->x + q / 2;
        s.rs = x->ld;
        bf16->tiles->strip(&s);
        return;
    }
    s.a = rows;
    s.rs = s.k;
    for (size_t i = 0; i < m; i += ROWS, s.c += ROWS * s.ldc) {
        s.m = least(m - i, ROWS);
        for (size_t t = 0; t < s.m; t++)
            bf16->narrow(x->x + (i + t) * x->ld + q, 2 * s.k, rows + t * s.rs);
        bf16->tiles->strip(&s);
    }
}

void fl_thin_project(const struct fl_gemm_bf16 *bf16, size_t m, size_t k, size_t rank,
                     const struct fl_thin_rows *x, const float *factor, bool turned, float *out)
{
    FL_GEMM_ROOM packed[PIECE / 2 * COLUMNS];
    for (size_t r = 0; r < rank; r += COLUMNS) {
        struct fl_gemm_strip s = {.n = least(rank - r, COLUMNS),
                                  .alpha = 1.0f,
                                  .cs = 1,
                                  .b = packed,
                                  .c = out + r,
                                  .ldc = rank};
        s.ldb = fl_gemm_padded(bf16->tiles, s.n);
        for (size_t q = 0; q < k; q += PIECE) {
            const size_t count = least(k - q, PIECE);
            s.k = count / 2;
            s.add = q > 0;
            pack_factor(bf16, factor, turned ? k : rank, turned, r, s.n, q, count, packed);
            project(bf16, s, m, x, q);
        }
    }
}

/* Rows [0, count) of x, n columns from there, as pairs of rows; an odd last one beside zeros. */
static void pair_rows(const struct fl_gemm_bf16 *bf16, const struct fl_thin_rows *x, size_t count,
                      size_t n, size_t width, float *out)
{
    static const float zeros[RANKS];
    const float *row = x->x;
    for (size_t t = 0; t < count; t += 2, row += 2 * x->ld, out += width)
        (x->narrowed ? bf16->pair_narrow : bf16->pair)(row, t + 1 < count ? row + x->ld : zeros, n,
                                                       width, out);
}

/* V^T of `count` tokens: (n, padded pairs) from v (count, rank), its n columns from r. */
static size_t turn_v(const struct fl_gemm_bf16 *bf16, const float *v, size_t rank, size_t count,
                     size_t n, float *out)
{
    FL_GEMM_ROOM paired[TOKENS / 2 * RANKS];
    const size_t width = fl_gemm_padded(bf16->tiles, n), pairs = (count + 1) / 2;
    const size_t stride = fl_gemm_padded(bf16->tiles, pairs);
    pair_rows(bf16, &(struct fl_thin_rows){v, rank, false}, count, n, width, paired);
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

/* x from its row t and column j on */
static struct fl_thin_rows part_of(const struct fl_thin_rows *x, size_t t, size_t j)
{
    struct fl_thin_rows part = *x;
    part.x += t * x->ld + (x->narrowed ? j / 2 : j);
    return part;
}

void fl_thin_gradient(const struct fl_gemm_bf16 *bf16, size_t tokens, size_t n, size_t rank,
                      float alpha, const float *v, const struct fl_thin_rows *x, size_t first,
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
                const struct fl_thin_rows part = part_of(x, t, first + j);
                pair_rows(bf16, &part, count, s.n, s.ldb, packed);
                bf16->tiles->strip(&s);
                add_sums(sums, rows, s.n, alpha, r, j, gradient);
            }
        }
    }
}
