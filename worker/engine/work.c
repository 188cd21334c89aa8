/* work.c - see work.h. */
#include "worker/engine/work.h"

#include <omp.h>

#include "worker/engine/gemm.h"

/* Below so many tokens a thread, threads share the rows of W instead of the tokens. */
enum {
    NARROW_TOKENS = 8,
    ROW_GRAIN = 8,
    TOKEN_GRAIN = 8,
    COLUMNS_MAX = 48, /* of any kernel's strip */
    PIECE = 256,      /* values of a row widened at once: whole blocks of any type */
    WIDE_PIECE = PIECE * COLUMNS_MAX / 16, /* the same, and whole strips */
    RANK_ONCE = 64
};

/* The rows of W as float32 where the file already holds them so, in order and aligned. */
static const float *in_place(const struct fl_weight *weight)
{
    if (weight->dtype != FL_DTYPE_F32 || weight->interleave ||
        (uintptr_t)weight->data % _Alignof(float) != 0)
        return NULL;
    return (const float *)(const void *)weight->data;
}

static void my_share(size_t total, size_t grain, size_t *low, size_t *high)
{
    fl_share(total, (uint32_t)omp_get_thread_num(), (uint32_t)omp_get_num_threads(), grain, low,
             high);
}

void fl_my_tokens(size_t tokens, size_t *low, size_t *high)
{
    my_share(tokens, TOKEN_GRAIN, low, high);
}

int fl_work_is_narrow(const struct fl_work *work, size_t tokens)
{
    return tokens < (size_t)NARROW_TOKENS * work->threads;
}

/* ---- W in strips: the kernels of gemm.h ---- */

/* Columns [first, first + count) of row `row` of W as float32: in the file, or widened into room.
 */
static const float *piece_of(const struct fl_weight *weight, size_t row, size_t first, size_t count,
                             float *room)
{
    const float *direct = in_place(weight);
    if (direct)
        return direct + row * weight->columns + first;
    fl_weight_widen_part(weight, (uint32_t)row, (uint32_t)first, (uint32_t)count, room);
    return room;
}

/* One strip of W^T from its rows [first, first + n): (columns, width) into out. */
static void pack_strip(const struct fl_gemm_kernel *kernel, const struct fl_weight *weight,
                       size_t first, size_t n, float *out)
{
    FL_GEMM_ROOM room[COLUMNS_MAX * PIECE];
    const size_t in = weight->columns, width = fl_gemm_padded(kernel, n);
    const float *direct = in_place(weight);
    if (direct) {
        kernel->pack_turned(direct + first * in, in, in, n, out, width);
        return;
    }
    for (size_t q = 0; q < in; q += PIECE) {
        const size_t count = in - q < PIECE ? in - q : PIECE;
        for (size_t j = 0; j < n; j++)
            (void)piece_of(weight, first + j, q, count, room + j * count);
        kernel->pack_turned(room, count, count, n, out + q * width, width);
    }
}

/*
 * Called by every thread of the team: rows [first, first + count) of W become strips of W^T, strip
 * j at panel + j columns in. A barrier before the second and later panels of a region (nobody reads
 * the old one any more) and one after each packing.
 */
static void team_pack_turned(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                             const struct fl_weight *weight, size_t first, size_t count)
{
    size_t low, high;
    my_share(count, kernel->columns, &low, &high);
    if (first) {
#pragma omp barrier
    }
    for (size_t j = low; j < high; j += kernel->columns) {
        const size_t n = high - j < kernel->columns ? high - j : kernel->columns;
        pack_strip(kernel, weight, first + j, n, work->panel + j * weight->columns);
    }
#pragma omp barrier
}

/* The same rows as strips of W itself: the strip of columns j at panel + j count. */
static void team_pack(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                      const struct fl_weight *weight, size_t first, size_t count)
{
    FL_GEMM_ROOM room[WIDE_PIECE];
    const size_t in = weight->columns;
    size_t low, high;
    my_share(count, ROW_GRAIN, &low, &high);
    if (first) {
#pragma omp barrier
    }
    for (size_t row = low; row < high; row++)
        for (size_t q = 0; q < in; q += WIDE_PIECE) {
            const size_t whole = in - q < WIDE_PIECE ? in - q : WIDE_PIECE;
            const float *piece = piece_of(weight, first + row, q, whole, room);
            for (size_t j = 0; j < whole; j += kernel->columns) {
                const size_t n = whole - j < kernel->columns ? whole - j : kernel->columns;
                const size_t width = fl_gemm_padded(kernel, n);
                kernel->pack(piece + j, in, 1, n, work->panel + (q + j) * count + row * width,
                             width);
            }
        }
#pragma omp barrier
}

/* Rows of W that fit the panel at once, each padded to `width` floats; whole grains of them. */
static size_t packed_rows(const struct fl_work *work, size_t rows, size_t width, size_t grain)
{
    const size_t fit = work->panel_floats / width / grain * grain;
    return fit < rows ? fit : rows;
}

/* y += scale u b^T for one strip of y's columns, which is still in the cache. */
static void add_branch(const struct fl_gemm_kernel *kernel, const struct fl_branch *branch,
                       struct fl_gemm_strip s, size_t low, size_t column)
{
    FL_GEMM_ROOM packed[COLUMNS_MAX * RANK_ONCE];
    const size_t width = fl_gemm_padded(kernel, s.n), rank = branch->rank;
    s.alpha = branch->scale;
    s.rs = rank;
    s.b = packed;
    s.ldb = width;
    s.add = true;
    for (size_t q = 0; q < rank; q += RANK_ONCE) {
        s.k = rank - q < RANK_ONCE ? rank - q : RANK_ONCE;
        s.a = branch->u + low * rank + q;
        if (branch->turned)
            kernel->pack_turned(branch->factor + column * rank + q, rank, s.k, s.n, packed, width);
        else
            kernel->pack(branch->factor + q * branch->columns + column, branch->columns, s.k, s.n,
                         packed, width);
        kernel->strip(&s);
    }
}

static void strips_forward(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                           const struct fl_product *p)
{
    const size_t in = p->weight->columns, rows = p->weight->rows;
    const size_t step = packed_rows(work, rows, in, kernel->columns);
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t first = 0; first < rows; first += step) {
        const size_t count = rows - first < step ? rows - first : step;
        team_pack_turned(work, kernel, p->weight, first, count);
        for (size_t j = 0; j < count && low < high; j += kernel->columns) {
            const size_t n = count - j < kernel->columns ? count - j : kernel->columns;
            const struct fl_gemm_strip s = {.m = high - low,
                                            .n = n,
                                            .k = in,
                                            .alpha = 1.0f,
                                            .a = p->x + low * p->ldx,
                                            .rs = p->ldx,
                                            .cs = 1,
                                            .b = work->panel + j * in,
                                            .ldb = fl_gemm_padded(kernel, n),
                                            .c = p->y + low * p->ldy + first + j,
                                            .ldc = p->ldy,
                                            .add = p->add};
            kernel->strip(&s);
            if (p->branch.rank)
                add_branch(kernel, &p->branch, s, low, first + j);
        }
    }
}

static void strips_back(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                        const struct fl_product *p)
{
    const size_t in = p->weight->columns, rows = p->weight->rows;
    const size_t step = packed_rows(work, rows, fl_gemm_padded(kernel, in), ROW_GRAIN);
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t first = 0; first < rows; first += step) {
        const size_t count = rows - first < step ? rows - first : step;
        team_pack(work, kernel, p->weight, first, count);
        for (size_t j = 0; j < in && low < high; j += kernel->columns) {
            const size_t n = in - j < kernel->columns ? in - j : kernel->columns;
            const struct fl_gemm_strip s = {.m = high - low,
                                            .n = n,
                                            .k = count,
                                            .alpha = 1.0f,
                                            .a = p->x + low * p->ldx + first,
                                            .rs = p->ldx,
                                            .cs = 1,
                                            .b = work->panel + j * count,
                                            .ldb = fl_gemm_padded(kernel, n),
                                            .c = p->y + low * p->ldy + j,
                                            .ldc = p->ldy,
                                            .add = p->add || first};
            kernel->strip(&s);
            if (p->branch.rank && first + count == rows)
                add_branch(kernel, &p->branch, s, low, j);
        }
    }
}

/* ---- W row by row: OpenBLAS, and few tokens ---- */

/* Rows of W that fit the panel at once; all of them if W needs no widening. */
static size_t panel_rows(const struct fl_work *work, const struct fl_weight *weight)
{
    return in_place(weight) ? weight->rows
                            : packed_rows(work, weight->rows, weight->columns, ROW_GRAIN);
}

/* Called by every thread: rows [first, first + count) of W, widened by all, each its share. */
static const float *team_panel(const struct fl_work *work, const struct fl_weight *weight,
                               size_t first, size_t count)
{
    const float *direct = in_place(weight);
    if (direct)
        return direct + first * weight->columns;
    size_t low, high;
    my_share(count, ROW_GRAIN, &low, &high);
    if (first) {
#pragma omp barrier
    }
    if (low < high)
        fl_weight_widen(weight, (uint32_t)(first + low), (uint32_t)(high - low),
                        work->panel + low * weight->columns);
#pragma omp barrier
    return work->panel;
}

static void branch_apart(const struct fl_product *p, size_t columns, size_t low, size_t high)
{
    const struct fl_branch *branch = &p->branch;
    const size_t rank = branch->rank;
    const float *u = branch->u + low * rank;
    float *y = p->y + low * p->ldy;
    if (rank && branch->turned)
        fl_gemm_nt(high - low, columns, rank, branch->scale, u, rank, branch->factor, rank, 1.0f, y,
                   p->ldy);
    else if (rank)
        fl_gemm_nn(high - low, columns, rank, branch->scale, u, rank, branch->factor,
                   branch->columns, 1.0f, y, p->ldy);
}

static void rows_forward(const struct fl_work *work, const struct fl_product *p)
{
    const struct fl_weight *weight = p->weight;
    const size_t in = weight->columns, step = panel_rows(work, weight);
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t first = 0; first < weight->rows; first += step) {
        const size_t count = weight->rows - first < step ? weight->rows - first : step;
        const float *rows = team_panel(work, weight, first, count);
        fl_gemm_nt(high - low, count, in, 1.0f, p->x + low * p->ldx, p->ldx, rows, in,
                   p->add ? 1.0f : 0.0f, p->y + low * p->ldy + first, p->ldy);
    }
    branch_apart(p, weight->rows, low, high);
}

static void rows_back(const struct fl_work *work, const struct fl_product *p)
{
    const struct fl_weight *weight = p->weight;
    const size_t in = weight->columns, step = panel_rows(work, weight);
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t first = 0; first < weight->rows; first += step) {
        const size_t count = weight->rows - first < step ? weight->rows - first : step;
        const float *rows = team_panel(work, weight, first, count);
        fl_gemm_nn(high - low, in, count, 1.0f, p->x + low * p->ldx + first, p->ldx, rows, in,
                   p->add || first ? 1.0f : 0.0f, p->y + low * p->ldy, p->ldy);
    }
    branch_apart(p, in, low, high);
}

/* Few tokens (generation): each thread widens and multiplies its own rows of W, piece by piece. */
static void multiply_narrow(const struct fl_work *work, const struct fl_product *p)
{
    const struct fl_weight *weight = p->weight;
    const size_t in = weight->columns;
    const float *direct = in_place(weight);
    size_t share = work->panel_floats / work->threads / in;
    size_t piece = share < 64 ? share : 64;
    size_t pieces = (weight->rows + piece - 1) / piece;
#pragma omp parallel for schedule(static) num_threads((int)work->threads)
    for (size_t i = 0; i < pieces; i++) {
        size_t first = i * piece;
        size_t count = weight->rows - first < piece ? weight->rows - first : piece;
        const float *rows = direct ? direct + first * in : NULL;
        if (!rows) {
            float *own = work->panel + (size_t)omp_get_thread_num() * share * in;
            fl_weight_widen(weight, (uint32_t)first, (uint32_t)count, own);
            rows = own;
        }
        fl_gemm_nt(p->tokens, count, in, 1.0f, p->x, p->ldx, rows, in, p->add ? 1.0f : 0.0f,
                   p->y + first, p->ldy);
    }
    branch_apart(p, weight->rows, 0, p->tokens);
}

void fl_team_multiply(const struct fl_work *work, const struct fl_product *product)
{
    const struct fl_gemm_kernel *kernel = fl_gemm_kernel();
    if (kernel)
        strips_forward(work, kernel, product);
    else
        rows_forward(work, product);
}

void fl_team_multiply_back(const struct fl_work *work, const struct fl_product *product)
{
    const struct fl_gemm_kernel *kernel = fl_gemm_kernel();
    if (kernel)
        strips_back(work, kernel, product);
    else
        rows_back(work, product);
}

void fl_weight_multiply(const struct fl_work *work, const struct fl_product *product)
{
    if (fl_work_is_narrow(work, product->tokens)) {
        multiply_narrow(work, product);
        return;
    }
#pragma omp parallel num_threads((int)work->threads)
    fl_team_multiply(work, product);
}

void fl_weight_multiply_back(const struct fl_work *work, const struct fl_product *product)
{
#pragma omp parallel num_threads((int)work->threads)
    fl_team_multiply_back(work, product);
}
