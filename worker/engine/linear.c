/* linear.c - see linear.h. Each thread takes its own tokens; gradients are split by rows of the
 * result, so that every element is summed by one thread in one order. */
#include "worker/engine/linear.h"

#include <omp.h>
#include <string.h>

#include "worker/engine/kernels.h"

enum { ROW_GRAIN = 16 };

static bool drops(const struct fl_pass *pass, const struct fl_linear *linear)
{
    return pass->dropout && linear->dropout > 0.0;
}

static uint64_t mask_key(const struct fl_pass *pass, const struct fl_linear *linear)
{
    return pass->dropout_key ^ (linear->index + 1) * 0x9e3779b97f4a7c15ull;
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

/* y += s U B^T + bias for this thread's tokens. */
static void branch_forward(const struct fl_pass *pass, const struct fl_linear *linear,
                           const float *x, float *u, float *y)
{
    const size_t in = linear->in, out = linear->out, rank = linear->rank;
    size_t low, high;
    fl_my_tokens(pass->tokens, &low, &high);
    if (rank && low < high) {
        const float *branch = branch_input(pass, linear, x, low, high);
        fl_gemm_nt(high - low, rank, in, 1.0f, branch, in, linear->a, in, 0.0f, u + low * rank,
                   rank);
        fl_gemm_nt(high - low, out, rank, linear->scale, u + low * rank, rank, linear->b, rank,
                   1.0f, y + low * out, out);
    }
    if (linear->bias)
        fl_add_rows(linear->bias, high - low, out, y + low * out);
}

void fl_linear_forward(const struct fl_pass *pass, const struct fl_linear *linear, const float *x,
                       float *u, float *y, bool add)
{
    const bool narrow = fl_work_is_narrow(pass->work, pass->tokens);
    if (narrow)
        fl_weight_multiply(pass->work, linear->weight, x, pass->tokens, y, linear->out, add);
    if (narrow && !linear->rank && !linear->bias)
        return;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        if (!narrow)
            fl_team_multiply(pass->work, linear->weight, x, pass->tokens, y, linear->out, add);
        branch_forward(pass, linear, x, u, y);
    }
}

/* dx += s V A for this thread's tokens; with dropout through the mask of x'. */
static void branch_back(const struct fl_pass *pass, const struct fl_linear *linear, const float *v,
                        float *dx)
{
    const size_t in = linear->in, rank = linear->rank;
    size_t low, high;
    fl_my_tokens(pass->tokens, &low, &high);
    const size_t n = high - low;
    if (!drops(pass, linear)) {
        fl_gemm_nn(n, in, rank, linear->scale, v + low * rank, rank, linear->a, in, 1.0f,
                   dx + low * in, in);
        return;
    }
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
    const uint32_t me = (uint32_t)omp_get_thread_num(), team = (uint32_t)omp_get_num_threads();
    size_t low, high;
    if (linear->db) {
        fl_share(out, me, team, ROW_GRAIN, &low, &high);
        fl_gemm_tn(high - low, rank, pass->tokens, linear->scale, g + low, out, u, rank, 1.0f,
                   linear->db + low * rank, rank);
    }
    if (linear->da) {
        fl_share(in, me, team, ROW_GRAIN, &low, &high);
        fl_gemm_tn(rank, high - low, pass->tokens, linear->scale, v, rank, branch + low, in, 1.0f,
                   linear->da + low, in);
    }
}

/* V, dB and dA; ends with a barrier, after which nobody reads x. */
static void branch_gradients(const struct fl_pass *pass, const struct fl_linear *linear,
                             const float *g, const float *x, const float *u, float *v)
{
    const size_t out = linear->out, rank = linear->rank;
    size_t low, high;
    fl_my_tokens(pass->tokens, &low, &high);
    fl_gemm_nn(high - low, rank, out, 1.0f, g + low * out, out, linear->b, rank, 0.0f,
               v + low * rank, rank);
    if (linear->da)
        (void)branch_input(pass, linear, x, low, high);
#pragma omp barrier
    add_gradients(pass, linear, g, drops(pass, linear) ? pass->work->dropped : x, u, v);
#pragma omp barrier
}

void fl_linear_backward(const struct fl_pass *pass, const struct fl_linear *linear, const float *g,
                        const float *x, const float *u, float *v, float *dx, bool add)
{
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        if (linear->rank)
            branch_gradients(pass, linear, g, x, u, v);
        if (dx)
            fl_team_multiply_back(pass->work, linear->weight, g, linear->out, pass->tokens, dx,
                                  add);
        if (dx && linear->rank)
            branch_back(pass, linear, v, dx);
    }
}
