/* linear.c - see linear.h. Each thread takes its own tokens; gradients are split by rows of the
 * result, so that every element is summed by one thread in one order. */
#include "worker/engine/linear.h"

#include <string.h>

#include "worker/engine/kernels.h"
#include "worker/engine/thin.h"

enum { ROW_GRAIN = 16 };

static bool drops(const struct fl_pass *pass, const struct fl_linear *linear)
{
    return pass->dropout && linear->dropout > 0.0;
}

static uint64_t mask_key(const struct fl_pass *pass, const struct fl_linear *linear)
{
    return pass->dropout_key ^ (linear->index + 1) * 0x9e3779b97f4a7c15ull;
}

/* The branch's products in bfloat16 beside those with W; NULL: in float32. */
static const struct fl_gemm_bf16 *branch_bf16(const struct fl_pass *pass,
                                              const struct fl_linear *linear)
{
    return linear->rank && fl_work_narrows(pass->work, linear->weight) ? fl_gemm_bf16() : NULL;
}

/* Rows [low, high) of the branch's input: x itself, or x' in the scratch. */
static const float *branch_input(const struct fl_pass *pass, const struct fl_linear *linear,
                                 const float *x, size_t low, size_t high)
{
    if (!drops(pass, linear))
        return x + low * linear->in;
    float *dropped = pass->work->dropped + low * linear->in;
    fl_dropout(x + low * linear->in, mask_key(pass, linear), low, high - low, linear->in,
               linear->dropout, dropped);
    return dropped;
}

/* The product of the linear itself, and of its branch where no dropout mask is in the way. */
static struct fl_product product_forward(const struct fl_pass *pass, const struct fl_linear *linear,
                                         const float *x, const float *u, float *y, bool add)
{
    return (struct fl_product){.weight = linear->weight,
                               .tokens = pass->tokens,
                               .x = x,
                               .ldx = linear->in,
                               .y = y,
                               .ldy = linear->out,
                               .add = add,
                               .branch = {.rank = linear->rank,
                                          .scale = linear->scale,
                                          .u = u,
                                          .factor = linear->b,
                                          .turned = true}};
}

/* U = x' A^T of tokens [low, high) */
static void small_forward(const struct fl_pass *pass, const struct fl_linear *linear,
                          const float *x, float *u, size_t low, size_t high)
{
    const size_t in = linear->in, rank = linear->rank;
    if (!rank || low >= high)
        return;
    const float *branch = branch_input(pass, linear, x, low, high);
    fl_gemm_nt(high - low, rank, in, 1.0f, branch, in, linear->a, in, 0.0f, u + low * rank, rank);
}

/* The same of this thread's tokens in bfloat16; x itself, which the product needs too, is narrowed
 * once for both. */
static void small_forward_bf16(const struct fl_pass *pass, const struct fl_linear *linear,
                               const float *x, float *u, struct fl_product *product)
{
    const size_t in = linear->in;
    size_t low, high;
    fl_my_tokens(pass->tokens, &low, &high);
    const size_t stride = fl_team_narrow(pass->work, product, in);
    product->narrowed = true;
    if (low >= high)
        return;
    struct fl_thin_rows rows = {pass->work->narrow + low * stride, stride, true};
    if (drops(pass, linear))
        rows = (struct fl_thin_rows){branch_input(pass, linear, x, low, high), in, false};
    fl_thin_project(fl_gemm_bf16(), high - low, in, linear->rank, &rows, linear->a, true,
                    u + low * linear->rank);
}

/* y [+]= c z + bias */
static void scale_rows(const struct fl_linear *linear, size_t low, size_t high, float *y, bool add)
{
    const size_t out = linear->out;
    for (size_t t = low; t < high; t++) {
        const float *z = linear->z + t * out;
        float *to = y + t * out;
        for (size_t j = 0; j < out; j++)
            to[j] = (add ? to[j] : 0.0f) + linear->factor[j] * z[j];
    }
    if (linear->bias)
        fl_add_rows(linear->bias, high - low, out, y + low * out);
}

/* y, which has x W^T, += (c - 1) x' W^T + c s U' B^T + bias; z has x' W^T and gets the branch. */
static void finish_dropped(const struct fl_linear *linear, const float *u, size_t low, size_t high,
                           float *y)
{
    const size_t out = linear->out, rank = linear->rank;
    float *z = linear->z + low * out;
    for (size_t i = 0; i < (high - low) * out; i++)
        y[low * out + i] -= z[i];
    if (low < high)
        fl_gemm_nt(high - low, out, rank, linear->scale, u + low * rank, rank, linear->b, rank,
                   1.0f, z, out);
    scale_rows(linear, low, high, y, true);
}

/* The same linear without DoRA and bias, and with its branch or without. */
static struct fl_linear undone(const struct fl_linear *linear, bool branch)
{
    struct fl_linear plain = *linear;
    plain.m = NULL;
    plain.bias = NULL;
    plain.rank = branch ? linear->rank : 0;
    return plain;
}

static void dora_forward(const struct fl_pass *pass, const struct fl_linear *linear, const float *x,
                         float *u, float *y, bool add)
{
    const bool apart = drops(pass, linear);
    const struct fl_linear plain = undone(linear, !apart);
    if (apart) {
        fl_linear_forward(pass, &plain, x, u, y, add);
#pragma omp parallel num_threads((int)pass->work->threads)
        {
            size_t low, high;
            fl_my_tokens(pass->tokens, &low, &high);
            small_forward(pass, linear, x, u, low, high);
        }
    }
    fl_linear_forward(pass, &plain, apart ? pass->work->dropped : x, u, linear->z, false);
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        if (apart)
            finish_dropped(linear, u, low, high, y);
        else
            scale_rows(linear, low, high, y, add);
    }
}

void fl_linear_forward(const struct fl_pass *pass, const struct fl_linear *linear, const float *x,
                       float *u, float *y, bool add)
{
    if (linear->m) {
        dora_forward(pass, linear, x, u, y, add);
        return;
    }
    const struct fl_product product = product_forward(pass, linear, x, u, y, add);
    if (fl_work_is_narrow(pass->work, pass->tokens)) {
        small_forward(pass, linear, x, u, 0, pass->tokens);
        fl_weight_multiply(pass->work, &product);
        if (linear->bias)
            fl_add_rows(linear->bias, pass->tokens, linear->out, y);
        return;
    }
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        struct fl_product own = product;
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        if (branch_bf16(pass, linear))
            small_forward_bf16(pass, linear, x, u, &own);
        else
            small_forward(pass, linear, x, u, low, high);
        fl_team_multiply(pass->work, &own);
        if (linear->bias)
            fl_add_rows(linear->bias, high - low, linear->out, y + low * linear->out);
    }
}

/* dx += s V A for this thread's tokens through the mask of x'. */
static void branch_back_dropped(const struct fl_pass *pass, const struct fl_linear *linear,
                                const float *v, float *dx)
{
    const size_t in = linear->in, rank = linear->rank;
    size_t low, high;
    fl_my_tokens(pass->tokens, &low, &high);
    const size_t n = high - low;
    float *dropped = pass->work->dropped + low * in;
    fl_gemm_nn(n, in, rank, linear->scale, v + low * rank, rank, linear->a, in, 0.0f, dropped, in);
    fl_dropout(dropped, mask_key(pass, linear), low, n, in, linear->dropout, dropped);
    fl_add(dropped, n * in, dx + low * in);
}

/* This thread's share of dB += s G^T U (rows of B) and dA += s V^T x' (columns of A). */
static void add_gradients(const struct fl_pass *pass, const struct fl_linear *linear,
                          const float *g, const float *branch, const float *u, const float *v)
{
    const size_t in = linear->in, out = linear->out, rank = linear->rank;
    size_t low, high;
    if (linear->db) {
        fl_my_share(out, ROW_GRAIN, &low, &high);
        fl_gemm_tn(high - low, rank, pass->tokens, linear->scale, g + low, out, u, rank, 1.0f,
                   linear->db + low * rank, rank);
    }
    if (linear->da) {
        fl_my_share(in, ROW_GRAIN, &low, &high);
        fl_gemm_tn(rank, high - low, pass->tokens, linear->scale, v, rank, branch + low, in, 1.0f,
                   linear->da + low, in);
    }
}

/* The same in bfloat16, G from the scratch. */
static void add_gradients_bf16(const struct fl_pass *pass, const struct fl_linear *linear,
                               size_t stride, const float *branch, const float *u, const float *v)
{
    const size_t in = linear->in, rank = linear->rank;
    const struct fl_thin_rows g = {pass->work->narrow, stride, true}, x = {branch, in, false};
    size_t low, high;
    if (linear->db) {
        fl_my_share(linear->out, ROW_GRAIN, &low, &high);
        fl_thin_gradient(fl_gemm_bf16(), pass->tokens, high - low, rank, linear->scale, u, &g, low,
                         &(struct fl_thin_gradient){linear->db + low * rank, 1, rank});
    }
    if (linear->da) {
        fl_my_share(in, ROW_GRAIN, &low, &high);
        fl_thin_gradient(fl_gemm_bf16(), pass->tokens, high - low, rank, linear->scale, v, &x, low,
                         &(struct fl_thin_gradient){linear->da + low, in, 1});
    }
}

/* V, dB and dA; ends with a barrier, after which nobody reads x. */
static void branch_gradients(const struct fl_pass *pass, const struct fl_linear *linear,
                             const float *g, const float *x, const float *u, float *v,
                             struct fl_product *product)
{
    const size_t out = linear->out, rank = linear->rank;
    const struct fl_gemm_bf16 *bf16 = branch_bf16(pass, linear);
    size_t low, high, stride = 0;
    fl_my_tokens(pass->tokens, &low, &high);
    if (bf16) {
        stride = fl_team_narrow(pass->work, product, out);
        product->narrowed = true;
        const struct fl_thin_rows rows = {pass->work->narrow + low * stride, stride, true};
        fl_thin_project(bf16, high - low, out, rank, &rows, linear->b, false, v + low * rank);
    } else {
        fl_gemm_nn(high - low, rank, out, 1.0f, g + low * out, out, linear->b, rank, 0.0f,
                   v + low * rank, rank);
    }
    if (linear->da)
        (void)branch_input(pass, linear, x, low, high);
#pragma omp barrier
    const float *branch = drops(pass, linear) ? pass->work->dropped : x;
    if (bf16)
        add_gradients_bf16(pass, linear, stride, branch, u, v);
    else
        add_gradients(pass, linear, g, branch, u, v);
#pragma omp barrier
}

/* This thread's share of dm += sum over tokens of g z / n. */
static void magnitude_gradient(const struct fl_pass *pass, const struct fl_linear *linear,
                               const float *g)
{
    double sums[ROW_GRAIN];
    const size_t out = linear->out;
    size_t low, high;
    fl_my_share(out, ROW_GRAIN, &low, &high);
    for (size_t j = low; linear->dm && j < high; j += ROW_GRAIN) {
        const size_t n = high - j < ROW_GRAIN ? high - j : ROW_GRAIN;
        memset(sums, 0, sizeof sums);
        for (size_t t = 0; t < pass->tokens; t++)
            for (size_t i = 0; i < n; i++)
                sums[i] += (double)g[t * out + j + i] * (double)linear->z[t * out + j + i];
        for (size_t i = 0; i < n; i++)
            if (linear->norm[j + i] > 0.0f)
                linear->dm[j + i] += (float)(sums[i] / (double)linear->norm[j + i]);
    }
}

/* dx += mask((g' - g) W + s V A); g' is in the scratch, and is used up. */
static void dropped_back(const struct fl_pass *pass, const struct fl_linear *linear, const float *g,
                         const float *v, float *dx)
{
    const size_t in = linear->in, out = linear->out;
    float *scaled = pass->work->scaled, *dropped = pass->work->dropped;
    const struct fl_product product = {.weight = linear->weight,
                                       .tokens = pass->tokens,
                                       .x = scaled,
                                       .ldx = out,
                                       .y = dropped,
                                       .ldy = in,
                                       .branch = {.rank = linear->rank,
                                                  .scale = linear->scale,
                                                  .u = v,
                                                  .factor = linear->a,
                                                  .columns = in}};
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        for (size_t i = low * out; i < high * out; i++)
            scaled[i] -= g[i];
        fl_team_multiply_back(pass->work, &product);
        fl_dropout(dropped + low * in, mask_key(pass, linear), low, high - low, in, linear->dropout,
                   dropped + low * in);
        fl_add(dropped + low * in, (high - low) * in, dx + low * in);
    }
}

static void dora_backward(const struct fl_pass *pass, const struct fl_linear *linear,
                          const float *g, const float *x, const float *u, float *v, float *dx,
                          bool add)
{
    const bool apart = drops(pass, linear);
    const struct fl_linear plain = undone(linear, true), bare = undone(linear, false);
    const size_t out = linear->out;
    float *scaled = pass->work->scaled;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        for (size_t t = low; t < high; t++)
            for (size_t j = 0; j < out; j++)
                scaled[t * out + j] = linear->factor[j] * g[t * out + j];
        magnitude_gradient(pass, linear, g);
    }
    fl_linear_backward(pass, &plain, scaled, x, u, v, apart ? NULL : dx, add);
    if (apart && dx) {
        fl_linear_backward(pass, &bare, g, x, u, v, dx, add);
        dropped_back(pass, linear, g, v, dx);
    }
}

void fl_linear_backward(const struct fl_pass *pass, const struct fl_linear *linear, const float *g,
                        const float *x, const float *u, float *v, float *dx, bool add)
{
    if (linear->m) {
        dora_backward(pass, linear, g, x, u, v, dx, add);
        return;
    }
    const bool apart = linear->rank && drops(pass, linear);
    const struct fl_product product = {.weight = linear->weight,
                                       .tokens = pass->tokens,
                                       .x = g,
                                       .ldx = linear->out,
                                       .y = dx,
                                       .ldy = linear->in,
                                       .add = add,
                                       .branch = {.rank = apart ? 0 : linear->rank,
                                                  .scale = linear->scale,
                                                  .u = v,
                                                  .factor = linear->a,
                                                  .columns = linear->in}};
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        struct fl_product own = product;
        if (linear->rank)
            branch_gradients(pass, linear, g, x, u, v, &own);
        if (dx)
            fl_team_multiply_back(pass->work, &own);
        if (dx && apart)
            branch_back_dropped(pass, linear, v, dx);
    }
}
