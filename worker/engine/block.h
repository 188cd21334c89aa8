/*
 * block.h - the parts of a transformer block, for block.c and its siblings only.
 *
 * Threads: each call runs the whole team; calls of one engine come one after the other.
 */
#ifndef FL_ENGINE_BLOCK_H
#define FL_ENGINE_BLOCK_H

#include "worker/engine/engine_internal.h"

/* self->n (T, hidden) = the norm of x once more, from its kept inverse (T). */
void fl_block_norm_again(const struct fl_engine *self, const struct fl_pass *pass,
                         const struct fl_norm *norm, const float *x, const float *inverse);
/* sum (T, hidden) += norm(x) of what a half of the block gave; keeps inverse (T), writes self->n.
 */
void fl_block_post_norm(const struct fl_engine *self, const struct fl_pass *pass,
                        const struct fl_norm *norm, const float *x, float *inverse, float *sum);
/* The gradient of that x (T, hidden) from self->dx: in self->dn. */
const float *fl_block_post_norm_backward(const struct fl_engine *self, const struct fl_pass *pass,
                                         const struct fl_norm *norm, const float *x,
                                         const float *inverse);
/* Does the adapter touch one of the linears first..last of this block? */
bool fl_block_adapted(const struct fl_engine_block *block, enum fl_linear_kind first,
                      enum fl_linear_kind last);

/*
 * self->joined (T, sum of the widths) holds several results of one linear side by side for each
 * token. They go apart, each (T, width) by itself; `back`: they come from there.
 */
struct fl_block_part {
    float *apart;
    size_t width;
};
void fl_block_split(const struct fl_engine *self, const struct fl_pass *pass,
                    const struct fl_block_part *parts, size_t count, bool back);

/* slot->mid (T, hidden) += the attention half of the block from self->n (T, hidden). */
void fl_block_attention_forward(const struct fl_engine *self, const struct fl_engine_block *block,
                                const struct fl_pass *pass, bool from_cache);
/* out (T, hidden) += the MLP half of the block from self->n; overwrites self->wide. */
void fl_block_mlp_forward(const struct fl_engine *self, const struct fl_engine_block *block,
                          const struct fl_pass *pass, float *out);
/*
 * From self->dx = dL/dmid: adds to the adapter's gradients; with `through`, self->dn becomes the
 * gradient of the first norm's output. Overwrites self->n, self->wide and self->v.
 */
void fl_block_attention_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                                 const struct fl_pass *pass, bool through);
/* The same for the MLP half, from self->dx = dL/dy to the second norm's output. */
void fl_block_mlp_backward(const struct fl_engine *self, const struct fl_engine_block *block,
                           const struct fl_pass *pass, bool through);

#endif
