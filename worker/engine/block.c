/*
 * block.c - one transformer block, forward and backward side by side.
 *
 *   n1 = rmsnorm(x); q, k, v = linears(n1); q, k rotated; ctx = attention(q, k, v)
 *   mid = x + o(ctx); n2 = rmsnorm(mid); h = silu(gate(n2)) up(n2); y = mid + down(h)
 */
#include <string.h>

#include "worker/engine/engine_internal.h"
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

static void norm_again(const struct fl_engine *self, const struct fl_pass *pass, const float *x,
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

static void rotate(const struct fl_engine *self, float *q, float *k, float sign)
{
    fl_attention_rotate(&self->work, self->spans, self->span_count, self->shape.heads,
                        self->shape.head_dim, self->cosine, self->sine, sign, q);
    fl_attention_rotate(&self->work, self->spans, self->span_count, self->shape.kv_heads,
                        self->shape.head_dim, self->cosine, self->sine, sign, k);
}

/* Generation: a span's keys and values go behind those of its cache row, which attention reads. */
static void attend_cached(const struct fl_engine *self, const struct fl_engine_block *block,
                          const struct fl_span *span, uint32_t row)
{
    const struct fl_slot *slot = block->slot;
    const size_t wq = (size_t)self->shape.heads * self->shape.head_dim;
    const size_t wk = (size_t)self->shape.kv_heads * self->shape.head_dim;
    const size_t start = (size_t)row * self->options.cache_tokens * wk;
    const size_t bytes = span->tokens * wk * sizeof *slot->k;
    float *k = block->cache_k + start, *v = block->cache_v + start;
    memcpy(k + span->past * wk, slot->k + span->first * wk, bytes);
    memcpy(v + span->past * wk, slot->v + span->first * wk, bytes);
    const struct fl_span alone = {.tokens = span->tokens, .past = span->past};
    fl_attention_forward(&self->work, &self->shape, &alone, 1, slot->q + span->first * wq, k, v,
                         slot->ctx + span->first * wq, NULL);
}

static void attend(const struct fl_engine *self, const struct fl_engine_block *block,
                   bool from_cache)
{
    const struct fl_slot *slot = block->slot;
    for (size_t i = 0; from_cache && i < self->span_count; i++)
        attend_cached(self, block, &self->spans[i], self->span_rows[i]);
    if (!from_cache)
        fl_attention_forward(&self->work, &self->shape, self->spans, self->span_count, slot->q,
                             slot->k, slot->v, slot->ctx, slot->lse);
}

void fl_block_forward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass,
                      float *out, bool from_cache)
{
    const struct fl_engine_block *block = &self->blocks[layer];
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    float *const *u = slot->u;
    norm_forward(self, pass, slot->x, block->norm1, slot->inverse1, slot->mid);
    fl_linear_forward(pass, &linears[FL_LINEAR_Q], self->n, u[FL_LINEAR_Q], slot->q, false);
    fl_linear_forward(pass, &linears[FL_LINEAR_K], self->n, u[FL_LINEAR_K], slot->k, false);
    fl_linear_forward(pass, &linears[FL_LINEAR_V], self->n, u[FL_LINEAR_V], slot->v, false);
    rotate(self, slot->q, slot->k, 1.0f);
    attend(self, block, from_cache);
    fl_linear_forward(pass, &linears[FL_LINEAR_O], slot->ctx, u[FL_LINEAR_O], slot->mid, true);
    norm_forward(self, pass, slot->mid, block->norm2, slot->inverse2, out);
    fl_linear_forward(pass, &linears[FL_LINEAR_GATE], self->n, u[FL_LINEAR_GATE], slot->gate,
                      false);
    fl_linear_forward(pass, &linears[FL_LINEAR_UP], self->n, u[FL_LINEAR_UP], slot->up, false);
    swiglu_forward(self, pass, slot);
    fl_linear_forward(pass, &linears[FL_LINEAR_DOWN], self->wide, u[FL_LINEAR_DOWN], out, true);
}

static bool adapted(const struct fl_engine_block *block, enum fl_linear_kind first,
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
    const bool inner = through || adapted(block, FL_LINEAR_GATE, FL_LINEAR_UP);
    if (linears[FL_LINEAR_DOWN].da)
        swiglu_forward(self, pass, slot);
    fl_linear_backward(pass, &linears[FL_LINEAR_DOWN], self->dx, self->wide,
                       slot->u[FL_LINEAR_DOWN], self->v, inner ? self->wide : NULL, false);
    if (!inner)
        return;
    swiglu_backward(self, pass, slot);
    if (linears[FL_LINEAR_GATE].da || linears[FL_LINEAR_UP].da)
        norm_again(self, pass, slot->mid, block->norm2, slot->inverse2);
    float *dn = through ? self->dn : NULL;
    fl_linear_backward(pass, &linears[FL_LINEAR_GATE], slot->gate, self->n, slot->u[FL_LINEAR_GATE],
                       self->v, dn, false);
    fl_linear_backward(pass, &linears[FL_LINEAR_UP], slot->up, self->n, slot->u[FL_LINEAR_UP],
                       self->v, dn, true);
    if (through)
        norm_backward(self, pass, slot->mid, block->norm2, slot->inverse2);
}

/* From dx = dL/dmid to dx = dL/dx of the block's input; `through`: a block below wants it. */
static void attention_backward(struct fl_engine *self, const struct fl_engine_block *block,
                               const struct fl_pass *pass, bool through)
{
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    const size_t wq = (size_t)self->shape.heads * self->shape.head_dim;
    const size_t wk = (size_t)self->shape.kv_heads * self->shape.head_dim;
    const bool inner = through || adapted(block, FL_LINEAR_Q, FL_LINEAR_V);
    float *dctx = self->wide, *dq = dctx + pass->tokens * wq;         /* (tokens, H D) each */
    float *dk = dq + pass->tokens * wq, *dv = dk + pass->tokens * wk; /* (tokens, K D) each */
    fl_linear_backward(pass, &linears[FL_LINEAR_O], self->dx, slot->ctx, slot->u[FL_LINEAR_O],
                       self->v, inner ? dctx : NULL, false);
    if (!inner)
        return;
    fl_attention_backward(&self->work, &self->shape, self->spans, self->span_count, slot->q,
                          slot->k, slot->v, slot->ctx, slot->lse, dctx, dq, dk, dv);
    rotate(self, dq, dk, -1.0f);
    if (linears[FL_LINEAR_Q].da || linears[FL_LINEAR_K].da || linears[FL_LINEAR_V].da)
        norm_again(self, pass, slot->x, block->norm1, slot->inverse1);
    float *dn = through ? self->dn : NULL;
    fl_linear_backward(pass, &linears[FL_LINEAR_Q], dq, self->n, slot->u[FL_LINEAR_Q], self->v, dn,
                       false);
    fl_linear_backward(pass, &linears[FL_LINEAR_K], dk, self->n, slot->u[FL_LINEAR_K], self->v, dn,
                       true);
    fl_linear_backward(pass, &linears[FL_LINEAR_V], dv, self->n, slot->u[FL_LINEAR_V], self->v, dn,
                       true);
    if (through)
        norm_backward(self, pass, slot->x, block->norm1, slot->inverse1);
}

void fl_block_backward(struct fl_engine *self, uint32_t layer, const struct fl_pass *pass)
{
    const struct fl_engine_block *block = &self->blocks[layer];
    const bool below = layer > self->lowest;
    const bool attention = below || adapted(block, FL_LINEAR_Q, FL_LINEAR_O);
    mlp_backward(self, block, pass, attention);
    if (attention)
        attention_backward(self, block, pass, below);
}
