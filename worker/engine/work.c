/* work.c - see work.h. */
#include "worker/engine/work.h"

#include <omp.h>

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

/*
 * A of this thread's tokens in the panel's units: columns [first, first + count) of x itself, or
 * narrowed into the scratch, a token every `stride` units there: the same for all panels of a
 * product, because threads are not at the same one. *rs: the row stride of the result.
 */
static const float *my_units(const struct fl_work *work, const struct fl_panel *panel,
                             const struct fl_product *p, size_t first, size_t count, size_t stride,
                             size_t *rs)
{
    size_t low, high;
    fl_my_tokens(p->tokens, &low, &high);
    const float *x = p->x + low * p->ldx + first;
    *rs = panel->bf16 ? stride : p->ldx;
    if (!panel->bf16)
        return x;
    float *narrow = work->narrow + low * *rs;
    for (size_t t = 0; t < high - low; t++)
        panel->bf16->narrow(x + t * p->ldx, count, narrow + t * *rs);
    return narrow;
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
    const struct fl_panel panel = fl_panel_for(p->weight, work->bf16, work->panel);
    const size_t step = packed_rows(work, rows, in, columns), units = fl_panel_units(&panel, in);
    size_t low, high, rs;
    fl_my_tokens(p->tokens, &low, &high);
    const float *a = my_units(work, &panel, p, 0, in, units, &rs);
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
            if (p->branch.rank)
                add_branch(kernel, &p->branch, s, low, first + j);
        }
    }
}

static void strips_back(const struct fl_work *work, const struct fl_gemm_kernel *kernel,
                        const struct fl_product *p)
{
    const size_t in = p->weight->columns, rows = p->weight->rows, columns = kernel->columns;
    const struct fl_panel panel = fl_panel_for(p->weight, work->bf16, work->panel);
    const size_t step = packed_rows(work, rows, fl_gemm_padded(kernel, in), FL_ROW_GRAIN);
    size_t low, high, rs;
    fl_my_tokens(p->tokens, &low, &high);
    for (size_t first = 0; first < rows; first += step) {
        const size_t count = rows - first < step ? rows - first : step;
        const size_t units = fl_panel_units(&panel, count);
        const float *a = my_units(work, &panel, p, first, count, step / 2, &rs);
        fl_panel_straight(&panel, p->weight, first, count);
        for (size_t j = 0; j < in && low < high; j += columns) {
            const size_t n = in - j < columns ? in - j : columns;
            struct fl_gemm_strip s = strip_of(&panel, p, j, n, panel.units + j * units);
            s.k = units;
            s.a = a;
            s.rs = rs;
            s.add = p->add || first;
            panel.tiles->strip(&s);
            if (p->branch.rank && first + count == rows)
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
