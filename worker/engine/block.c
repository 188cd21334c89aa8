/*
 * block.c - one transformer block, forward and backward side by side.
 *
 *   n1 = norm(x); mid = x + attention half(n1); n2 = norm(mid); y = mid + MLP half(n2)
 *   [each half's result through a norm of its own before it is added]
 *   attention half: q, k, v = linears(n1), or one linear in three; [q, k = rmsnorm of each head];
 *   [q, k rotated]; o(attention(q, k, v))
 *   MLP half: down(silu(gate(n2)) up(n2)), the same with gelu, or down(gelu(up(n2)))
 * The model's architecture decides among them (arch.h). block_attention.c and block_mlp.c have the
 * halves, this file the norms and residuals around them.
 */
#include "worker/engine/block.h"

#include <string.h>

/* self->n = norm(x), keeping inverse; and sum = x for the residual that follows. */
static void norm_forward(const struct fl_engine *self, const struct fl_pass *pass,
                         const struct fl_norm *norm, const float *x, float *inverse, float *sum)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_norm(norm, x + low * d, high - low, d, self->n + low * d, inverse + low);
        if (low < high)
            memcpy(sum + low * d, x + low * d, (high - low) * d * sizeof *x);
    }
}

void fl_block_norm_again(const struct fl_engine *self, const struct fl_pass *pass,
                         const struct fl_norm *norm, const float *x, const float *inverse)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_norm_again(norm, x + low * d, inverse + low, high - low, d, self->n + low * d);
    }
}

/* self->dx += gradient of norm(x) from self->dn */
static void norm_backward(const struct fl_engine *self, const struct fl_pass *pass,
                          const struct fl_norm *norm, const float *x, const float *inverse)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_norm_backward(norm, self->dn + low * d, x + low * d, inverse + low, high - low, d,
                         self->dx + low * d);
    }
}

void fl_block_post_norm(const struct fl_engine *self, const struct fl_pass *pass,
                        const struct fl_norm *norm, const float *x, float *inverse, float *sum)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_norm(norm, x + low * d, high - low, d, self->n + low * d, inverse + low);
        fl_add(self->n + low * d, (high - low) * d, sum + low * d);
    }
}

const float *fl_block_post_norm_backward(const struct fl_engine *self, const struct fl_pass *pass,
                                         const struct fl_norm *norm, const float *x,
                                         const float *inverse)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        if (low < high)
            memset(self->dn + low * d, 0, (high - low) * d * sizeof *self->dn);
        fl_norm_backward(norm, self->dx + low * d, x + low * d, inverse + low, high - low, d,
                         self->dn + low * d);
    }
    return self->dn;
}

void fl_block_split(const struct fl_engine *self, const struct fl_pass *pass,
                    const struct fl_block_part *parts, size_t count, bool back)
{
    size_t whole = 0;
    for (size_t i = 0; i < count; i++)
        whole += parts[i].width;
#pragma omp parallel for schedule(static) num_threads((int)pass->work->threads)
    for (size_t t = 0; t < pass->tokens; t++) {
        float *joined = self->joined + t * whole;
        for (size_t i = 0; i < count; joined += parts[i].width, i++) {
            float *apart = parts[i].apart + t * parts[i].width;
            memcpy(back ? joined : apart, back ? apart : joined, parts[i].width * sizeof(float));
        }
    }
}

void fl_block_forward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass,
                      float *out, bool from_cache)
{
    const struct fl_engine_block *block = &self->blocks[layer];
    const struct fl_slot *slot = block->slot;
    norm_forward(self, pass, &block->base->norm1, slot->x, slot->inverse1, slot->mid);
    fl_block_attention_forward(self, block, pass, from_cache);
    norm_forward(self, pass, &block->base->norm2, slot->mid, slot->inverse2, out);
    fl_block_mlp_forward(self, block, pass, out);
}

bool fl_block_adapted(const struct fl_engine_block *block, enum fl_linear_kind first,
                      enum fl_linear_kind last)
{
    for (enum fl_linear_kind i = first; i <= last; i++)
        if (block->linears[i].rank)
            return true;
    return false;
}

void fl_block_backward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass)
{
    const struct fl_engine_block *block = &self->blocks[layer];
    const struct fl_slot *slot = block->slot;
    const bool below = layer > self->lowest;
    const bool attention = below || fl_block_adapted(block, FL_LINEAR_Q, FL_LINEAR_O);
    fl_block_mlp_backward(self, block, pass, attention);
    if (!attention)
        return;
    norm_backward(self, pass, &block->base->norm2, slot->mid, slot->inverse2);
    fl_block_attention_backward(self, block, pass, below);
    if (below)
        norm_backward(self, pass, &block->base->norm1, slot->x, slot->inverse1);
}
