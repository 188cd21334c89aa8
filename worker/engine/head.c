/* head.c - see head.h. */
#include "worker/engine/head.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "worker/engine/kernels.h"

/* Rows of x at the targets, and their norm. */
static void gather(const struct fl_work *work, const struct fl_head *head, const float *x,
                   const struct fl_target *targets, size_t count)
{
    const size_t d = head->hidden;
#pragma omp parallel for schedule(static) num_threads((int)work->threads)
    for (size_t i = 0; i < count; i++) {
        memcpy(head->gathered + i * d, x + targets[i].position * d, d * sizeof *x);
        fl_norm(&head->norm, head->gathered + i * d, 1, d, head->z + i * d, head->inverse + i);
    }
}

/* losses[i] of each row; with `gradients` the logits become softmax - onehot. */
static void cross_entropy(const struct fl_work *work, const struct fl_head *head,
                          const struct fl_target *targets, size_t count, int gradients)
{
    const size_t vocab = head->vocab;
#pragma omp parallel for schedule(static) num_threads((int)work->threads)
    for (size_t i = 0; i < count; i++) {
        float *row = head->logits + i * vocab;
        if (gradients && head->cap > 0.0f)
            memcpy(head->capped + i * vocab, row, vocab * sizeof *row);
        const size_t label = (size_t)targets[i].label;
        const float shift = fl_max(row, vocab), right = row[label];
        double sum = gradients ? fl_exp_sum(row, vocab, shift) : fl_exp_sum_only(row, vocab, shift);
        head->losses[i] = log(sum) + (double)shift - (double)right;
        if (gradients) {
            fl_scale(row, vocab, (float)(1.0 / sum));
            row[label] -= 1.0f;
        }
        if (gradients && head->cap > 0.0f)
            fl_soft_cap_backward(head->capped + i * vocab, vocab, 1.0f, head->cap, row);
    }
}

static void cap_logits(const struct fl_work *work, const struct fl_head *head, size_t n,
                       float *logits)
{
#pragma omp parallel for schedule(static) num_threads((int)work->threads)
    for (size_t i = 0; i < n; i++)
        fl_soft_cap(logits + i * head->vocab, head->vocab, 1.0f, head->cap);
}

/* logits (n, vocab) of the gathered rows' norms */
static void multiply_head(const struct fl_work *work, const struct fl_head *head, size_t n,
                          float *logits)
{
    fl_weight_multiply(work, &(struct fl_product){.weight = head->weight,
                                                  .tokens = n,
                                                  .x = head->z,
                                                  .ldx = head->hidden,
                                                  .y = logits,
                                                  .ldy = head->vocab});
    if (head->cap > 0.0f)
        cap_logits(work, head, n, logits);
}

static void scatter(const struct fl_work *work, const struct fl_head *head,
                    const struct fl_target *targets, size_t count, float *dx)
{
    const size_t d = head->hidden;
#pragma omp parallel for schedule(static) num_threads((int)work->threads)
    for (size_t i = 0; i < count; i++)
        fl_norm_backward(&head->norm, head->dz + i * d, head->gathered + i * d, head->inverse + i,
                         1, d, dx + targets[i].position * d);
}

double fl_head_loss(const struct fl_work *work, const struct fl_head *head, const float *x,
                    const struct fl_target *targets, size_t count, float *dx)
{
    double total = 0.0;
    for (size_t first = 0; first < count; first += head->chunk) {
        size_t n = count - first < head->chunk ? count - first : head->chunk;
        gather(work, head, x, targets + first, n);
        multiply_head(work, head, n, head->logits);
        cross_entropy(work, head, targets + first, n, dx != NULL);
        for (size_t i = 0; i < n; i++)
            total += head->losses[i];
        if (!dx)
            continue;
        fl_weight_multiply_back(work, &(struct fl_product){.weight = head->weight,
                                                           .tokens = n,
                                                           .x = head->logits,
                                                           .ldx = head->vocab,
                                                           .y = head->dz,
                                                           .ldy = head->hidden});
        scatter(work, head, targets + first, n, dx);
    }
    return total;
}

void fl_head_logits(const struct fl_work *work, const struct fl_head *head, const float *x,
                    size_t count, float *logits)
{
    const size_t d = head->hidden;
    for (size_t first = 0; first < count; first += head->chunk) {
        size_t n = count - first < head->chunk ? count - first : head->chunk;
        for (size_t i = 0; i < n; i++)
            fl_norm(&head->norm, x + (first + i) * d, 1, d, head->z + i * d, head->inverse + i);
        multiply_head(work, head, n, logits + first * head->vocab);
    }
}
