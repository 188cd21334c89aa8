/*
 * attention_head.h - one head of one row, for attention.c and attention_bf16.c only.
 */
#ifndef FL_ENGINE_ATTENTION_HEAD_H
#define FL_ENGINE_ATTENTION_HEAD_H

#include "worker/engine/attention.h"

/* Pointers at the head's first token. */
struct fl_head_of_row {
    const float *q, *k, *v;           /* leading dimension lq; k and v lk */
    const float *o, *d_o, *known_lse; /* backward reads these */
    float *out, *dq, *dk, *dv;
    float *lse; /* forward writes it, NULL: not wanted; every `heads` floats */
    size_t lq, lk, dim, heads;
    size_t tokens, past, window;
    float scale, cap; /* cap 0: none; a head with one is not computed in bfloat16 */
};

/* The oldest key that the query at `position` sees. */
static inline size_t fl_head_oldest(const struct fl_head_of_row *h, size_t position)
{
    return h->window && position >= h->window ? position + 1 - h->window : 0;
}

/* Heads of such a size have their products in bfloat16 where that is wanted. */
bool fl_head_fits_bf16(size_t head_dim);
size_t fl_head_bf16_floats(size_t keys, size_t head_dim);
/* As head_forward() of attention.c; strip has fl_head_bf16_floats(). */
void fl_head_forward_bf16(const struct fl_head_of_row *h, float *strip);
/* Heads of queries that share keys: begin, each of them, end, which writes dk and dv. */
void fl_head_backward_bf16_begin(const struct fl_head_of_row *h, float *strip);
void fl_head_backward_bf16(const struct fl_head_of_row *h, float *strip);
void fl_head_backward_bf16_end(const struct fl_head_of_row *h, float *strip);

#endif
