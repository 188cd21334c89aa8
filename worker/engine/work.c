/* work.c - see work.h. */
#include "worker/engine/work.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

#include "worker/engine/gemm.h"
#include "worker/engine/panel.h"

/* Below so many tokens a thread, threads share the rows of W instead of the tokens. */
enum { NARROW_TOKENS = 8, TOKEN_GRAIN = 8, RANK_ONCE = 64 };

void fl_my_share(size_t total, size_t grain, size_t *low, size_t *high)
{
    fl_share(total, (uint32_t)omp_get_thread_num(), (uint32_t)omp_get_num_threads(), grain, low,
             high);
}

void fl_my_tokens(size_t tokens, size_t *low, size_t *high)
{
    fl_my_share(tokens, TOKEN_GRAIN, low, high);
}

int fl_work_is_narrow(const struct fl_work *work, size_t tokens)
{
    return tokens < (size_t)NARROW_TOKENS * work->threads;
}

/* ---- W in strips: the kernels of gemm.h ---- */

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
    FL_GEMM_ROOM packed[FL_GEMM_COLUMNS_MAX * RANK_ONCE];
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

bool fl_work_narrows(const struct fl_work *work, const struct fl_weight *weight)
{
    return fl_panel_for(weight, work->bf16, NULL).bf16 != NULL;
}

/* Pairs for the branch behind k, where it is part of the panels; 0: it is added apart. */
static size_t extra_of(const struct fl_work *work, const struct fl_product *p)
{
    const size_t rank = p->branch.rank;
    if (!rank || rank % 2 || rank > FL_PANEL_RANK_MOST || !fl_work_narrows(work, p->weight))
        return 0;
    return fl_branch_pairs(rank);
}

static struct fl_panel panel_of(const struct fl_work *work, const struct fl_product *p)
{
    struct fl_panel panel = fl_panel_for(p->weight, work->bf16, work->panel);
    panel.rank = p->branch.rank;
    panel.factor = p->branch.factor;
    return panel;
}

/* Columns [first, first + count) of x of this thread's tokens, `stride` pairs a token. */
static void narrow_rows(const struct fl_work *work, const struct fl_product *p, size_t first,
                        size_t count, size_t stride)
{
    const struct fl_gemm_bf16 *bf16 = fl_gemm_bf16();
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t t = low; t < high; t++)
        bf16->narrow(p->x + t * p->ldx + first, count, work->narrow + t * stride);
}

size_t fl_team_narrow(const struct fl_work *work, const struct fl_product *product, size_t columns)
{
    const size_t stride = columns / 2 + extra_of(work, product);
    narrow_rows(work, product, 0, columns, stride);
    return stride;
}

/* s u of this thread's tokens, `at` pairs behind each token's first, and zeros up to whole tiles.
 */
static void narrow_branch(const struct fl_work *work, const struct fl_branch *branch, size_t tokens,
                          size_t at, size_t stride)
{
    float scaled[FL_PANEL_RANK_MOST];
    const size_t rank = branch->rank, extra = fl_branch_pairs(rank);
    size_t low, high;
    fl_my_tokens(tokens, &low, &high);
    for (size_t t = low; t < high; t++) {
        float *to = work->narrow + t * stride + at;
        for (size_t r = 0; r < rank; r++)
            scaled[r] = branch->scale * branch->u[t * rank + r];
        fl_gemm_bf16()->narrow(scaled, rank, to);
        memset(to + rank / 2, 0, (extra - rank / 2) * sizeof *to);
    }
}

/*
 * A of this thread's tokens in the panel's units: columns [first, first + count) of x itself, or
 * narrowed into the scratch, a token every *rs units there: the same for all panels of a product,
 * because threads are not at the same one. `most`: the most that count is.
 */
static const float *my_units(const struct fl_work *work, const struct fl_panel *panel,
                             const struct fl_product *p, size_t first, size_t count, size_t most,
                             size_t *rs)
{
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    *rs = p->ldx;
    if (!panel->bf16)
        return p->x + low * p->ldx + first;
    const size_t at = p->narrowed ? first / 2 : 0;
    *rs = (p->narrowed ? p->ldx : most) / 2 + extra_of(work, p);
    if (!p->narrowed)
        narrow_rows(work, p, first, count, *rs);
    if (panel->extra)
        narrow_branch(work, &p->branch, p->tokens, at + count / 2, *rs);
    return work->narrow + low * *rs + at;
}

/* y's columns [column, column + n) of this thread's tokens from one strip. */
static struct fl_gemm_strip strip_of(const struct fl_panel *panel, const struct fl_product *p,
                                     size_t column, size_t n, const float *b)
{
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    return (struct fl_gemm_strip){.m = high - low,
                                  .n = n,
                                  .alpha = 1.0f,
                                  .cs = 1,
                                  .b = b,
                                  .ldb = fl_gemm_padded(panel->tiles, n),
                                  .c = p->y + low * p->ldy + column,
                                  .ldc = p->ldy,
                                  .add = p->add};
}

static void strips_forward(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                           const struct fl_product *p)
{
    const size_t in = p->weight->columns, rows = p->weight->rows, columns = kernel->columns;
    struct fl_panel panel = panel_of(work, p);
    panel.extra = extra_of(work, p);
    const size_t units = fl_panel_units(&panel, in) + panel.extra;
    const size_t step = packed_rows(work, rows, units > in ? units : in, columns);
    size_t low, high, rs;
    fl_my_tokens(p->tokens, &low, &high);
    const float *a = my_units(work, &panel, p, 0, in, in, &rs);
    for (size_t first = 0; first < rows; first += step) {
        const size_t count = rows - first < step ? rows - first : step;
        fl_panel_turned(&panel, p->weight, first, count);
        for (size_t j = 0; j < count && low < high; j += columns) {
            const size_t n = count - j < columns ? count - j : columns;
            struct fl_gemm_strip s = strip_of(&panel, p, first + j, n, panel.units + j * units);
            s.k = units;
            s.a = a;
            s.rs = rs;
            panel.tiles->strip(&s);
            if (p->branch.rank && !panel.extra)
                add_branch(kernel, &p->branch, s, low, first + j);
        }
    }
}

/* Rows of W that fit the panel with the branch's. */
static size_t back_rows(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                        const struct fl_product *p)
{
    const size_t width = fl_gemm_padded(kernel, p->weight->columns);
    const size_t step = packed_rows(work, p->weight->rows, width, FL_ROW_GRAIN);
    assert(step / 2 + extra_of(work, p) <= work->panel_floats / width);
    return step;
}

static void strips_back(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                        const struct fl_product *p)
{
    const size_t in = p->weight->columns, rows = p->weight->rows, columns = kernel->columns;
    struct fl_panel panel = panel_of(work, p);
    const size_t step = back_rows(work, kernel, p);
    size_t low, high, rs;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t first = 0; first < rows; first += step) {
        const size_t count = rows - first < step ? rows - first : step;
        const bool last = first + count == rows;
        panel.extra = last ? extra_of(work, p) : 0;
        const size_t units = fl_panel_units(&panel, count) + panel.extra;
        const float *a = my_units(work, &panel, p, first, count, step, &rs);
        fl_panel_straight(&panel, p->weight, first, count);
        for (size_t j = 0; j < in && low < high; j += columns) {
            const size_t n = in - j < columns ? in - j : columns;
            struct fl_gemm_strip s = strip_of(&panel, p, j, n, panel.units + j * units);
            s.k = units;
            s.a = a;
            s.rs = rs;
            s.add = p->add || first;
            panel.tiles->strip(&s);
            if (p->branch.rank && !panel.extra && last)
                add_branch(kernel, &p->branch, s, low, j);
        }
    }
}

/* ---- W row by row: OpenBLAS, and few tokens ---- */

/* Rows of W that fit the panel at once; all of them if W needs no widening. */
static size_t panel_rows(const struct fl_work *work, const struct fl_weight *weight)
{
    return fl_panel_in_place(weight)
               ? weight->rows
               : packed_rows(work, weight->rows, weight->columns, FL_ROW_GRAIN);
}

/* Called by every thread: rows [first, first + count) of W, widened by all, each its share. */
static const float *team_panel(const struct fl_work *work, const struct fl_weight *weight,
                               size_t first, size_t count)
{
    const float *direct = fl_panel_in_place(weight);
    if (direct)
        return direct + first * weight->columns;
    size_t low, high;
    fl_my_share(count, FL_ROW_GRAIN, &low, &high);
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
    const float *direct = fl_panel_in_place(weight);
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
