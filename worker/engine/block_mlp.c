/* block_mlp.c - the MLP half of a block: down(silu(gate) up), down(gelu(gate) up) in Gemma, or
 * down(gelu(up)) where there is no gate. */
#include "worker/engine/block.h"

static bool has_gate(const struct fl_engine_block *block)
{
    return block->linears[FL_LINEAR_GATE].weight != NULL;
}

/* gate and up (tokens, ffn) from the linear that has both, or back to it. */
static void split(const struct fl_engine *self, const struct fl_pass *pass,
                  const struct fl_slot *slot, bool back)
{
    const size_t f = self->model->config.ffn;
    const struct fl_block_part parts[] = {{slot->gate, f}, {slot->up, f}};
    fl_block_split(self, pass, parts, sizeof parts / sizeof *parts, back);
}

/* h into self->wide (T, ffn) */
static void activate(const struct fl_engine *self, const struct fl_engine_block *block,
                     const struct fl_pass *pass)
{
    const size_t f = self->model->config.ffn;
    const struct fl_slot *slot = block->slot;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        const size_t at = low * f, n = (high - low) * f;
        if (self->model->arch->gemma)
            fl_geglu(slot->gate + at, slot->up + at, n, self->wide + at);
        else if (has_gate(block))
            fl_swiglu(slot->gate + at, slot->up + at, n, self->wide + at);
        else
            fl_gelu(slot->up + at, n, self->wide + at);
    }
}

/* gate and up become their gradients, from dh in self->wide */
static void activate_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                              const struct fl_pass *pass)
{
    const size_t f = self->model->config.ffn;
    const struct fl_slot *slot = block->slot;
#pragma omp parallel num_threads((int)pass->work->threads)
    {
        size_t low, high;
        fl_my_tokens(pass->tokens, &low, &high);
        const size_t at = low * f, n = (high - low) * f;
        if (self->model->arch->gemma)
            fl_geglu_backward(self->wide + at, n, slot->gate + at, slot->up + at);
        else if (has_gate(block))
            fl_swiglu_backward(self->wide + at, n, slot->gate + at, slot->up + at);
        else
            fl_gelu_backward(self->wide + at, n, slot->up + at);
    }
}

void fl_block_mlp_forward(const struct fl_engine *self, const struct fl_engine_block *block,
                          const struct fl_pass *pass, float *out)
{
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    float *const *u = slot->u;
    const bool joined = fl_arch_joins_gate(self->model->arch);
    if (has_gate(block))
        fl_linear_forward(pass, &linears[FL_LINEAR_GATE], self->n, u[FL_LINEAR_GATE],
                          joined ? self->joined : slot->gate, false);
    if (joined)
        split(self, pass, slot, false);
    else
        fl_linear_forward(pass, &linears[FL_LINEAR_UP], self->n, u[FL_LINEAR_UP], slot->up, false);
    activate(self, block, pass);
    const bool post = block->base->post2.weight != NULL;
    fl_linear_forward(pass, &linears[FL_LINEAR_DOWN], self->wide, u[FL_LINEAR_DOWN],
                      post ? slot->given2 : out, !post);
    if (post)
        fl_block_post_norm(self, pass, &block->base->post2, slot->given2, slot->inverse_post2, out);
}

void fl_block_mlp_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                           const struct fl_pass *pass, bool through)
{
    const struct fl_linear *linears = block->linears;
    const struct fl_slot *slot = block->slot;
    const bool inner = through || fl_block_adapted(block, FL_LINEAR_GATE, FL_LINEAR_UP);
    if (linears[FL_LINEAR_DOWN].da)
        activate(self, block, pass);
    const float *dy = self->dx;
    if (block->base->post2.weight)
        dy = fl_block_post_norm_backward(self, pass, &block->base->post2, slot->given2,
                                         slot->inverse_post2);
    fl_linear_backward(pass, &linears[FL_LINEAR_DOWN], dy, self->wide, slot->u[FL_LINEAR_DOWN],
                       self->v, inner ? self->wide : NULL, false);
    if (!inner)
        return;
    activate_backward(self, block, pass);
    if (linears[FL_LINEAR_GATE].da || linears[FL_LINEAR_UP].da)
        fl_block_norm_again(self, pass, &block->base->norm2, slot->mid, slot->inverse2);
    const bool joined = fl_arch_joins_gate(self->model->arch);
    float *dn = through ? self->dn : NULL;
    if (joined)
        split(self, pass, slot, true);
    if (has_gate(block))
        fl_linear_backward(pass, &linears[FL_LINEAR_GATE], joined ? self->joined : slot->gate,
                           self->n, slot->u[FL_LINEAR_GATE], self->v, dn, false);
    if (!joined)
        fl_linear_backward(pass, &linears[FL_LINEAR_UP], slot->up, self->n, slot->u[FL_LINEAR_UP],
                           self->v, dn, has_gate(block));
}
