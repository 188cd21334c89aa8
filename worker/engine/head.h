/*
 * head.h - the output head: final norm, logits, softmax and cross-entropy, only for the scored
 * positions and only a chunk of them at a time.
 *
 *   z = norm(x); logits = z W^T [cap tanh(logits / cap)]; loss = lse(logits) - logits[label]
 *   dlogits = softmax(logits) - onehot(label); dz = dlogits W; dx = norm backward
 * W (vocab, hidden) is the embedding when tied. No (tokens, vocab) matrix beyond a chunk exists.
 */
#ifndef FL_ENGINE_HEAD_H
#define FL_ENGINE_HEAD_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/norm.h"
#include "worker/engine/work.h"

struct fl_head {
    const struct fl_weight *weight; /* (vocab, hidden) */
    struct fl_norm norm;            /* (hidden) */
    uint32_t hidden, vocab;
    float cap;       /* logits become cap tanh(logits / cap); 0: they do not */
    size_t chunk;    /* positions at a time */
    float *logits;   /* (chunk, vocab) scratch */
    float *capped;   /* the same once more, where gradients pass a cap; else empty */
    float *z, *dz;   /* (chunk, hidden) scratch */
    float *gathered; /* (chunk, hidden) scratch: rows of x */
    float *inverse;  /* (chunk) scratch */
    double *losses;  /* (chunk) scratch */
};

/* A scored position: the row of x that predicts, and what it should predict. */
struct fl_target {
    uint32_t position;
    int32_t label;
};

/*
 * The sum of losses over the targets. dx (tokens, hidden): NULL, or all 0 at entry; the rows of
 * the targets get dL/dx.
 */
double fl_head_loss(const struct fl_work *work, const struct fl_head *head, const float *x,
                    const struct fl_target *targets, size_t count, float *dx);

/* logits (count, vocab) of the rows of x (count, hidden). */
void fl_head_logits(const struct fl_work *work, const struct fl_head *head, const float *x,
                    size_t count, float *logits);

#endif
