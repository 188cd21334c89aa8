/*
 * block.c - one transformer block, forward and backward side by side.
 *
 *   n1 = rmsnorm(x); q, k, v = linears(n1); [q, k = rmsnorm of each head]; q, k rotated
 *   ctx = attention(q, k, v); mid = x + o(ctx)
 *   n2 = rmsnorm(mid); h = silu(gate(n2)) up(n2); y = mid + down(h)
 */
#include <string.h>

#include "worker/engine/block.h"
#include "worker/engine/kernels.h"

/* y = rmsnorm(x), keeping inverse; and sum = x for the residual that follows. */
static void norm_forward(const struct fl_engine *self, const struct fl_pass *pass, const float *x,
                         const float *w, float *inverse, float *sum)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_rmsnorm(x + low * d, w, self->head.epsilon, high - low, d, self->n + low * d,
                   inverse + low);
        if (low < high)
            memcpy(sum + low * d, x + low * d, (high - low) * d * sizeof *x);
    }
}

void fl_block_norm_again(const struct fl_engine *self, const struct fl_pass *pass, const float *x,
                         const float *w, const float *inverse)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_rmsnorm_again(x + low * d, w, inverse + low, high - low, d, self->n + low * d);
    }
}

/* self->dx += gradient of rmsnorm(x) from self->dn */
static void norm_backward(const struct fl_engine *self, const struct fl_pass *pass, const float *x,
                          const float *w, const float *inverse)
{
    const size_t d = self->head.hidden;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_rmsnorm_backward(self->dn + low * d, x + low * d, w, inverse + low, high - low, d,
                            self->dx + low * d);
    }
}

/* h = silu(gate) up into self->wide (T, ffn) */
static void swiglu_forward(const struct fl_engine *self, const struct fl_pass *pass,
                           const struct fl_slot *slot)
{
    const size_t f = self->model->config.ffn;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_swiglu(slot->gate + low * f, slot->up + low * f, (high - low) * f, self->wide + low * f);
    }
}

/* gate, up become their gradients, from dh in self->wide */
static void swiglu_backward(const struct fl_engine *self, const struct fl_pass *pass,
                            const struct fl_slot *slot)
{
    const size_t f = self->model->config.ffn;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_swiglu_backward(self->wide + low * f, (high - low) * f, slot->gate + low * f,
                           slot->up + low * f);
    }
}

void fl_block_forward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass,
                      float *out, bool from_cache)
{
    const struct fl_engine_block *block = &self->blocks[layer];
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    float *const *u = slot->u;
    norm_forward(self, pass, slot->x, block->norm1, slot->inverse1, slot->mid);
    fl_block_attention_forward(self, block, pass, from_cache);
    norm_forward(self, pass, slot->mid, block->norm2, slot->inverse2, out);
    fl_linear_forward(pass, &linears[FL_LINEAR_GATE], self->n, u[FL_LINEAR_GATE], slot->gate,
                      false);
    fl_linear_forward(pass, &linears[FL_LINEAR_UP], self->n, u[FL_LINEAR_UP], slot->up, false);
    swiglu_forward(self, pass, slot);
    fl_linear_forward(pass, &linears[FL_LINEAR_DOWN], self->wide, u[FL_LINEAR_DOWN], out, true);
}

bool fl_block_adapted(const struct fl_engine_block *block, enum fl_linear_kind first,
                      enum fl_linear_kind last)
{
    for (enum fl_linear_kind i = first; i <= last; i++)
        if (block->linears[i].rank)
            return true;
    return false;
}

/* From dx = dL/dy to dx = dL/dmid; `through`: something below wants it. */
static void mlp_backward(struct fl_engine *self, const struct fl_engine_block *block,
                         const struct fl_pass *pass, bool through)
{
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    const bool inner = through || fl_block_adapted(block, FL_LINEAR_GATE, FL_LINEAR_UP);
    if (linears[FL_LINEAR_DOWN].da)
        swiglu_forward(self, pass, slot);
    fl_linear_backward(pass, &linears[FL_LINEAR_DOWN], self->dx, self->wide,
                       slot->u[FL_LINEAR_DOWN], self->v, inner ? self->wide : NULL, false);
    if (!inner)
        return;
    swiglu_backward(self, pass, slot);
    if (linears[FL_LINEAR_GATE].da || linears[FL_LINEAR_UP].da)
        fl_block_norm_again(self, pass, slot->mid, block->norm2, slot->inverse2);
    float *dn = through ? self->dn : NULL;
    fl_linear_backward(pass, &linears[FL_LINEAR_GATE], slot->gate, self->n, slot->u[FL_LINEAR_GATE],
                       self->v, dn, false);
    fl_linear_backward(pass, &linears[FL_LINEAR_UP], slot->up, self->n, slot->u[FL_LINEAR_UP],
                       self->v, dn, true);
    if (through)
        norm_backward(self, pass, slot->mid, block->norm2, slot->inverse2);
}

void fl_block_backward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass)
{
    const struct fl_engine_block *block = &self->blocks[layer];
    const bool below = layer > self->lowest;
    const bool attention = below || fl_block_adapted(block, FL_LINEAR_Q, FL_LINEAR_O);
    mlp_backward(self, block, pass, attention);
    if (!attention)
        return;
    fl_block_attention_backward(self, block, pass, below);
    if (below)
        norm_backward(self, pass, block->slot->x, block->norm1, block->slot->inverse1);
}
