/*
 * gemm_kernel.h - the register tile of gemm.h, written once and compiled for each vector width: the
 * including file defines
 *   FL_GEMM_LANES    floats in a vector
 *   FL_GEMM_ROWS     rows of a tile
 *   FL_GEMM_VECTORS  vectors of a tile's row; ROWS x VECTORS sums, VECTORS columns of B and one
 *                    broadcast of A stay in registers
 *   FL_GEMM_NAME     the name of the struct fl_gemm_kernel that is defined here
 *   FL_GEMM_TEXT     what a log calls it
 *   FL_GEMM_STEP     optional: sum + a w as the instruction set has it, a scalar unit
 * and is built with the flags of that instruction set. Nothing here runs before the processor was
 * asked for it.
 *
 * Method: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008: B in
 * packed strips, K in blocks, so that a block of a strip stays in the first-level cache while all
 * rows of A pass over it.
 */
#include <string.h>

#include "worker/engine/gemm.h"

#ifndef FL_GEMM_STEP
#define FL_GEMM_STEP(sum, a, w) ((sum) + (a) * (w))
#endif

enum {
    LANES = FL_GEMM_LANES,
    ROWS = FL_GEMM_ROWS,
    VECTORS = FL_GEMM_VECTORS,
    STRIP = LANES * VECTORS,
    BLOCK_BYTES = 28 << 10 /* of a strip's block; the smallest first-level caches have 32 KiB */
};

typedef float vec __attribute__((vector_size(4 * FL_GEMM_LANES)));

#define FL_INLINE static inline __attribute__((always_inline))
#define FL_UNROLL _Pragma("GCC unroll 16")

FL_INLINE vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

FL_INLINE void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

struct tile {
    size_t k;
    float alpha;
    const float *a; /* element (i, p) at a[i rs + p cs] */
    size_t rs, cs;
    const float *b; /* row p at b + p ldb */
    size_t ldb;
    float *c;
    size_t ldc, columns; /* columns to store, <= vectors * LANES */
    bool add;
};

/* A tile whose last vector is short: sums (rows, STRIP), already scaled. */
static void put_short(const struct tile *t, size_t rows, const float *sums)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < t->columns; j++) {
            float *c = t->c + i * t->ldc + j;
            *c = t->add ? *c + sums[i * STRIP + j] : sums[i * STRIP + j];
        }
}

/* rows and vectors are constants wherever this is called: the sums live in registers. */
FL_INLINE void tile(const int rows, const int vectors, const struct tile *t)
{
    vec sum[ROWS][VECTORS];
    FL_UNROLL for (int i = 0; i < rows; i++) FL_UNROLL for (int j = 0; j < vectors; j++)
        sum[i][j] = (vec){0};
    const float *a = t->a, *b = t->b;
    const size_t rs = t->rs;
    for (size_t p = 0; p < t->k; p++, a += t->cs, b += t->ldb) {
        vec w[VECTORS];
        FL_UNROLL for (int j = 0; j < vectors; j++) w[j] = load(b + j * LANES);
        FL_UNROLL for (int i = 0; i < rows; i++) FL_UNROLL for (int j = 0; j < vectors; j++)
            sum[i][j] = FL_GEMM_STEP(sum[i][j], a[(size_t)i * rs], w[j]);
    }
    const bool whole = t->columns == (size_t)vectors * LANES;
    FL_GEMM_ROOM sums[ROWS * STRIP];
    float *c = whole ? t->c : sums;
    const size_t ldc = whole ? t->ldc : STRIP;
    const bool add = whole && t->add;
    FL_UNROLL for (int i = 0; i < rows; i++, c += ldc) FL_UNROLL for (int j = 0; j < vectors; j++)
    {
        const vec scaled = sum[i][j] * t->alpha;
        store(c + j * LANES, add ? load(c + j * LANES) + scaled : scaled);
    }
    if (!whole)
        put_short(t, (size_t)rows, sums);
}

typedef void tile_function(const struct tile *t);

#define FL_TILE(rows, vectors)                                                                     \
    static void tile_##rows##_##vectors(const struct tile *t)                                      \
    {                                                                                              \
        tile(rows, vectors, t);                                                                    \
    }
#define FL_TILES_OF(rows) FL_TILE(rows, 1) FL_TILE(rows, 2) FL_TILE_3(rows)
#if FL_GEMM_VECTORS > 2
#define FL_TILE_3(rows) FL_TILE(rows, 3)
#define FL_ENTRY(rows)                                                                             \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2, tile_##rows##_3                                          \
    }
#else
#define FL_TILE_3(rows)
#define FL_ENTRY(rows)                                                                             \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2                                                           \
    }
#endif

FL_TILES_OF(1)
FL_TILES_OF(2)
FL_TILES_OF(3)
FL_TILES_OF(4)
FL_TILES_OF(5)
FL_TILES_OF(6)
#if FL_GEMM_ROWS > 6
FL_TILES_OF(7)
FL_TILES_OF(8)
#endif

static tile_function *const tiles[ROWS][VECTORS] = {
    FL_ENTRY(1), FL_ENTRY(2), FL_ENTRY(3), FL_ENTRY(4), FL_ENTRY(5), FL_ENTRY(6),
#if FL_GEMM_ROWS > 6
    FL_ENTRY(7), FL_ENTRY(8),
#endif
};

/* Rows of K that pass at once: even parts of about a block. */
static size_t block_of(size_t k, size_t vectors)
{
    const size_t most = BLOCK_BYTES / (vectors * LANES * sizeof(float));
    const size_t blocks = (k + most - 1) / most;
    return (k + blocks - 1) / blocks;
}

static void strip(const struct fl_gemm_strip *s)
{
    const size_t vectors = (s->n + LANES - 1) / LANES;
    const size_t block = s->k ? block_of(s->k, vectors) : 1;
    for (size_t p = 0; p < s->k; p += block) {
        struct tile t = {.k = s->k - p < block ? s->k - p : block,
                         .alpha = s->alpha,
                         .rs = s->rs,
                         .cs = s->cs,
                         .b = s->b + p * s->ldb,
                         .ldb = s->ldb,
                         .ldc = s->ldc,
                         .columns = s->n,
                         .add = s->add || p};
        for (size_t i = 0; i < s->m; i += ROWS) {
            const size_t rows = s->m - i < ROWS ? s->m - i : ROWS;
            t.a = s->a + i * s->rs + p * s->cs;
            t.c = s->c + i * s->ldc;
            tiles[rows - 1][vectors - 1](&t);
        }
    }
}

static size_t padded(size_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

static void pack(const float *b, size_t ldb, size_t k, size_t n, float *out, size_t ldo)
{
    const size_t width = padded(n);
    for (size_t p = 0; p < k; p++, b += ldb, out += ldo) {
        memcpy(out, b, n * sizeof *b);
        for (size_t j = n; j < width; j++)
            out[j] = 0.0f;
    }
}

typedef float vec4 __attribute__((vector_size(16)));

/* 4 x 4 floats from rows b + j ldb, turned. */
FL_INLINE void turn(const float *b, size_t ldb, float *out, size_t ldo)
{
    vec4 r[4];
    for (int j = 0; j < 4; j++)
        memcpy(&r[j], b + (size_t)j * ldb, sizeof r[j]);
    const vec4 x = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
    const vec4 y = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    const vec4 z = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    const vec4 w = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    const vec4 columns[4] = {
        __builtin_shufflevector(x, y, 0, 1, 4, 5), __builtin_shufflevector(x, y, 2, 3, 6, 7),
        __builtin_shufflevector(z, w, 0, 1, 4, 5), __builtin_shufflevector(z, w, 2, 3, 6, 7)};
    for (int p = 0; p < 4; p++)
        memcpy(out + (size_t)p * ldo, &columns[p], sizeof columns[p]);
}

#if FL_GEMM_LANES == 16
typedef float vec8 __attribute__((vector_size(32)));

/* 4 floats of rows j, j + 4, j + 8 and j + 12 beside each other */
FL_INLINE vec four_rows(const float *b, size_t ldb)
{
    vec4 r[4];
    for (int i = 0; i < 4; i++)
        memcpy(&r[i], b + (size_t)(4 * i) * ldb, sizeof r[i]);
    const vec8 low = __builtin_shufflevector(r[0], r[1], 0, 1, 2, 3, 4, 5, 6, 7);
    const vec8 high = __builtin_shufflevector(r[2], r[3], 0, 1, 2, 3, 4, 5, 6, 7);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

#define FL_LOW(x, y)                                                                               \
    __builtin_shufflevector(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define FL_HIGH(x, y)                                                                              \
    __builtin_shufflevector(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define FL_FIRST(x, y)                                                                             \
    __builtin_shufflevector(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define FL_SECOND(x, y)                                                                            \
    __builtin_shufflevector(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)

/* 16 x 4 floats from rows b + j ldb, turned: 4 x 4 in each quarter of the vectors. */
FL_INLINE void turn_wide(const float *b, size_t ldb, float *out, size_t ldo)
{
    const vec r0 = four_rows(b, ldb), r1 = four_rows(b + ldb, ldb);
    const vec r2 = four_rows(b + 2 * ldb, ldb), r3 = four_rows(b + 3 * ldb, ldb);
    const vec x = FL_LOW(r0, r1), y = FL_LOW(r2, r3), z = FL_HIGH(r0, r1), w = FL_HIGH(r2, r3);
    store(out, FL_FIRST(x, y));
    store(out + ldo, FL_SECOND(x, y));
    store(out + 2 * ldo, FL_FIRST(z, w));
    store(out + 3 * ldo, FL_SECOND(z, w));
}
#endif

static void pack_turned(const float *b, size_t ldb, size_t k, size_t n, float *out, size_t ldo)
{
    const size_t width = padded(n), k4 = k / 4 * 4, n4 = n / 4 * 4;
#if FL_GEMM_LANES == 16
    const size_t wide = n / LANES * LANES;
    for (size_t p = 0; p < k4; p += 4)
        for (size_t j = 0; j < wide; j += 16)
            turn_wide(b + j * ldb + p, ldb, out + p * ldo + j, ldo);
#else
    const size_t wide = 0;
#endif
    for (size_t p = 0; p < k4; p += 4)
        for (size_t j = wide; j < n4; j += 4)
            turn(b + j * ldb + p, ldb, out + p * ldo + j, ldo);
    for (size_t p = 0; p < k; p++)
        for (size_t j = p < k4 ? n4 : 0; j < width; j++)
            out[p * ldo + j] = j < n ? b[j * ldb + p] : 0.0f;
}

FL_INLINE float sum_of(vec v)
{
    float lanes[LANES], s = 0.0f;
    store(lanes, v);
    for (int i = 0; i < LANES; i++)
        s += lanes[i];
    return s;
}

/* c[j] (+)= x . (row j of w), 4 rows at a time so that 4 sums are under way */
static void dots(size_t n, size_t k, const float *x, const float *w, size_t ldw, float *c, bool add)
{
    const size_t whole = k / LANES * LANES;
    for (size_t j = 0; j < n; j += 4) {
        const size_t rows = n - j < 4 ? n - j : 4;
        vec sum[4] = {{0}, {0}, {0}, {0}};
        const float *row[4];
        for (size_t i = 0; i < 4; i++)
            row[i] = w + (j + (i < rows ? i : 0)) * ldw;
        for (size_t p = 0; p < whole; p += LANES) {
            const vec v = load(x + p);
            FL_UNROLL for (int i = 0; i < 4; i++) sum[i] += v * load(row[i] + p);
        }
        for (size_t i = 0; i < rows; i++) {
            float s = sum_of(sum[i]);
            for (size_t p = whole; p < k; p++)
                s += x[p] * row[i][p];
            c[j + i] = add ? c[j + i] + s : s;
        }
    }
}

const struct fl_gemm_kernel FL_GEMM_NAME = {.name = FL_GEMM_TEXT,
                                            .lanes = LANES,
                                            .columns = STRIP,
                                            .strip = strip,
                                            .pack = pack,
                                            .pack_turned = pack_turned,
                                            .dots = dots};
