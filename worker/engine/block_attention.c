/* block_attention.c - the attention half of a block: projections, norms of heads, rotation, cache,
 * and their gradients. */
#include <string.h>

#include "worker/engine/block.h"

/* out = norm(raw) of each head by itself; all (tokens, heads D), inverse (tokens, heads). */
static void norm_heads(const struct fl_engine *self, const struct fl_pass *pass, const float *raw,
                       const struct fl_norm *norm, uint32_t heads, float *inverse, float *out)
{
    const size_t d = self->shape.head_dim;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        fl_norm(norm, raw + low * heads * d, (high - low) * heads, d, out + low * heads * d,
                inverse + low * heads);
    }
}

/* draw (tokens, heads D) = the gradient of raw from that of out */
static void norm_heads_backward(const struct fl_engine *self, const struct fl_pass *pass,
                                const float *dout, const float *raw, const struct fl_norm *norm,
                                uint32_t heads, const float *inverse, float *draw)
{
    const size_t d = self->shape.head_dim;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        const size_t at = low * heads * d, rows = (high - low) * heads;
        if (low < high)
            memset(draw + at, 0, rows * d * sizeof *draw);
        fl_norm_backward(norm, dout + at, raw + at, inverse + low * heads, rows, d, draw + at);
    }
}

static void rotate(const struct fl_engine *self, const struct fl_engine_block *block, float *q,
                   float *k, float sign)
{
    const float *cosine = block->near ? self->near_cosine : self->cosine;
    const float *sine = block->near ? self->near_sine : self->sine;
    if (self->model->positions) /* they are in the embeddings */
        return;
    fl_attention_rotate(&self->work, self->spans, self->span_count, self->shape.heads,
                        self->shape.head_dim, cosine, sine, sign, q);
    fl_attention_rotate(&self->work, self->spans, self->span_count, self->shape.kv_heads,
                        self->shape.head_dim, cosine, sine, sign, k);
}

/* q (tokens, H D), k and v (tokens, K D) from the linear that has them all, or back to it. */
static void split(const struct fl_engine *self, const struct fl_pass *pass, float *q, float *k,
                  float *v, bool back)
{
    const size_t wq = (size_t)self->shape.heads * self->shape.head_dim;
    const size_t wk = (size_t)self->shape.kv_heads * self->shape.head_dim;
    const struct fl_block_part parts[] = {{q, wq}, {k, wk}, {v, wk}};
    fl_block_split(self, pass, parts, sizeof parts / sizeof *parts, back);
}

static struct fl_attention shape_of(const struct fl_engine *self,
                                    const struct fl_engine_block *block)
{
    struct fl_attention shape = self->shape;
    shape.window = block->window;
    return shape;
}

/* Generation: a span's keys and values go behind those of its cache row, which attention reads. */
static void attend_cached(const struct fl_engine *self, const struct fl_engine_block *block,
                          const struct fl_span *span, uint32_t row)
{
    const struct fl_attention shape = shape_of(self, block);
    const struct fl_slot *slot = block->slot;
    const size_t wq = (size_t)self->shape.heads * self->shape.head_dim;
    const size_t wk = (size_t)self->shape.kv_heads * self->shape.head_dim;
    const size_t start = (size_t)row * self->options.cache_tokens * wk;
    const size_t bytes = span->tokens * wk * sizeof *slot->k;
    float *k = block->cache_k + start, *v = block->cache_v + start;
    memcpy(k + span->past * wk, slot->k + span->first * wk, bytes);
    memcpy(v + span->past * wk, slot->v + span->first * wk, bytes);
    const struct fl_span alone = {.tokens = span->tokens, .past = span->past};
    fl_attention_forward(&self->work, &shape, &alone, 1, slot->q + span->first * wq, k, v,
                         slot->ctx + span->first * wq, NULL);
}

static void attend(const struct fl_engine *self, const struct fl_engine_block *block,
                   bool from_cache)
{
    const struct fl_attention shape = shape_of(self, block);
    const struct fl_slot *slot = block->slot;
    for (size_t i = 0; from_cache && i < self->span_count; i++)
        attend_cached(self, block, &self->spans[i], self->span_rows[i]);
    if (!from_cache)
        fl_attention_forward(&self->work, &shape, self->spans, self->span_count, slot->q, slot->k,
                             slot->v, slot->ctx, slot->lse);
}

/* q and k before rotation, and v, from self->n. */
static void project(const struct fl_engine *self, const struct fl_engine_block *block,
                    const struct fl_pass *pass)
{
    const struct fl_norm *q_norm = &block->base->q_norm, *k_norm = &block->base->k_norm;
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    float *const *u = slot->u;
    float *q = q_norm->weight ? slot->q_raw : slot->q, *k = k_norm->weight ? slot->k_raw : slot->k;
    if (fl_arch_joins_qkv(self->model->arch)) {
        fl_linear_forward(pass, &linears[FL_LINEAR_QKV], self->n, u[FL_LINEAR_QKV], self->joined,
                          false);
        split(self, pass, q, k, slot->v, false);
    } else {
        fl_linear_forward(pass, &linears[FL_LINEAR_Q], self->n, u[FL_LINEAR_Q], q, false);
        fl_linear_forward(pass, &linears[FL_LINEAR_K], self->n, u[FL_LINEAR_K], k, false);
        fl_linear_forward(pass, &linears[FL_LINEAR_V], self->n, u[FL_LINEAR_V], slot->v, false);
    }
    if (q_norm->weight)
        norm_heads(self, pass, q, q_norm, self->shape.heads, slot->inverse_q, slot->q);
    if (k_norm->weight)
        norm_heads(self, pass, k, k_norm, self->shape.kv_heads, slot->inverse_k, slot->k);
}

void fl_block_attention_forward(const struct fl_engine *self, const struct fl_engine_block *block,
                                const struct fl_pass *pass, bool from_cache)
{
    const struct fl_slot *slot = block->slot;
    project(self, block, pass);
    rotate(self, block, slot->q, slot->k, 1.0f);
    attend(self, block, from_cache);
    const bool post = block->base->post1.weight != NULL;
    fl_linear_forward(pass, &block->linears[FL_LINEAR_O], slot->ctx, slot->u[FL_LINEAR_O],
                      post ? slot->given1 : slot->mid, !post);
    if (post)
        fl_block_post_norm(self, pass, &block->base->post1, slot->given1, slot->inverse_post1,
                           slot->mid);
}

/* What backward keeps in self->wide. */
struct gradients {
    float *ctx, *q; /* (tokens, H D) each */
    float *k, *v;   /* (tokens, K D) each */
};

/* q's and k's gradients from those of their norms; a pass leaves what it read free for the next. */
static void norms_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                           const struct fl_pass *pass, struct gradients *g)
{
    const struct fl_slot *slot = block->slot;
    norm_heads_backward(self, pass, g->q, slot->q_raw, &block->base->q_norm, self->shape.heads,
                        slot->inverse_q, g->ctx);
    norm_heads_backward(self, pass, g->k, slot->k_raw, &block->base->k_norm, self->shape.kv_heads,
                        slot->inverse_k, g->q);
    g->k = g->q;
    g->q = g->ctx;
}

/* From the gradients of the projections to self->dn (if `through`), adding to the adapter's. */
static void project_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                             const struct fl_pass *pass, const struct gradients *g, bool through)
{
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    float *const *u = slot->u;
    float *dn = through ? self->dn : NULL;
    if (linears[FL_LINEAR_Q].da || linears[FL_LINEAR_K].da || linears[FL_LINEAR_V].da)
        fl_block_norm_again(self, pass, &block->base->norm1, slot->x, slot->inverse1);
    if (fl_arch_joins_qkv(self->model->arch)) {
        split(self, pass, g->q, g->k, g->v, true);
        fl_linear_backward(pass, &linears[FL_LINEAR_QKV], self->joined, self->n, u[FL_LINEAR_QKV],
                           self->v, dn, false);
        return;
    }
    fl_linear_backward(pass, &linears[FL_LINEAR_Q], g->q, self->n, u[FL_LINEAR_Q], self->v, dn,
                       false);
    fl_linear_backward(pass, &linears[FL_LINEAR_K], g->k, self->n, u[FL_LINEAR_K], self->v, dn,
                       true);
    fl_linear_backward(pass, &linears[FL_LINEAR_V], g->v, self->n, u[FL_LINEAR_V], self->v, dn,
                       true);
}

void fl_block_attention_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                                 const struct fl_pass *pass, bool through)
{
    const struct fl_slot *slot = block->slot;
    const size_t wq = pass->tokens * self->shape.heads * self->shape.head_dim;
    const size_t wk = pass->tokens * self->shape.kv_heads * self->shape.head_dim;
    const struct fl_attention shape = shape_of(self, block);
    const bool inner = through || fl_block_adapted(block, FL_LINEAR_Q, FL_LINEAR_V);
    struct gradients g = {.ctx = self->wide,
                          .q = self->wide + wq,
                          .k = self->wide + 2 * wq,
                          .v = self->wide + 2 * wq + wk};
    const float *dy = self->dx;
    if (block->base->post1.weight)
        dy = fl_block_post_norm_backward(self, pass, &block->base->post1, slot->given1,
                                         slot->inverse_post1);
    fl_linear_backward(pass, &block->linears[FL_LINEAR_O], dy, slot->ctx, slot->u[FL_LINEAR_O],
                       self->v, inner ? g.ctx : NULL, false);
    if (!inner)
        return;
    fl_attention_backward(&self->work, &shape, self->spans, self->span_count, slot->q, slot->k,
                          slot->v, slot->ctx, slot->lse, g.ctx, g.q, g.k, g.v);
    rotate(self, block, g.q, g.k, -1.0f);
    if (block->base->q_norm.weight)
        norms_backward(self, block, pass, &g);
    project_backward(self, block, pass, &g, through);
}
