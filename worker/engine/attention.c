/* attention.c - see attention.h. */
#include "worker/engine/attention_head.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "worker/engine/kernels.h"

enum {
    BLOCK = FL_ATTENTION_BLOCK,
    LINE = 16,
    BF16_TOKENS = 16 /* fewer queries do not pay for packing the keys */
};

size_t fl_attention_strip_floats(size_t keys, size_t head_dim, bool bf16)
{
    size_t padded = (keys + LINE - 1) / LINE * LINE, strip = (2 * (size_t)BLOCK + 1) * padded;
    size_t packed = bf16 && fl_head_fits_bf16(head_dim) ? fl_head_bf16_floats(keys, head_dim) : 0;
    return packed > strip ? packed : strip;
}

static float *my_strip(const struct fl_work *work)
{
    return work->strips + (size_t)omp_get_thread_num() * work->strip_floats;
}

static void head_forward(const struct fl_head_of_row *h, float *strip)
{
    for (size_t i = 0; i < h->tokens; i += BLOCK) {
        size_t n = h->tokens - i < BLOCK ? h->tokens - i : BLOCK;
        size_t low = fl_head_oldest(h, h->past + i),
               keys = h->past + i + n - low; /* that any query sees */
        fl_gemm_nt(n, keys, h->dim, 1.0f, h->q + i * h->lq, h->lq, h->k + low * h->lk, h->lk, 0.0f,
                   strip, keys);
        for (size_t t = 0; t < n; t++) {
            size_t skip = fl_head_oldest(h, h->past + i + t) - low;
            float *row = strip + t * keys;
            memset(row, 0, skip * sizeof *row);
            if (h->cap > 0.0f)
                fl_soft_cap(row, keys, h->scale, h->cap);
            float lse = fl_softmax_row(row + skip, h->past + i + t + 1 - low - skip, keys - skip,
                                       h->cap > 0.0f ? 1.0f : h->scale);
            if (h->lse)
                h->lse[(i + t) * h->heads] = lse;
        }
        fl_gemm_nn(n, h->dim, keys, 1.0f, strip, keys, h->v + low * h->lk, h->lk, 0.0f,
                   h->out + i * h->lq, h->lq);
    }
}

/* p (keys) from scores to probabilities, d from their gradient to that of the scores. */
static void row_backward(const struct fl_head_of_row *h, size_t skip, size_t seen, size_t keys,
                         float lse, float delta, float *p, float *d, float *capped)
{
    const bool cap = h->cap > 0.0f;
    memset(p, 0, skip * sizeof *p);
    if (cap) {
        fl_soft_cap(p, keys, h->scale, h->cap);
        memcpy(capped, p, keys * sizeof *p);
    }
    fl_softmax_again(p + skip, seen, keys - skip, cap ? 1.0f : h->scale, lse);
    fl_softmax_backward(p, d, keys, delta, cap ? 1.0f : h->scale);
    if (cap)
        fl_soft_cap_backward(capped, keys, h->scale, h->cap, d);
}

/* Adds to dk and dv (several query heads share them), writes dq. */
static void head_backward(const struct fl_head_of_row *h, float *strip)
{
    for (size_t i = 0; i < h->tokens; i += BLOCK) {
        size_t n = h->tokens - i < BLOCK ? h->tokens - i : BLOCK;
        size_t low = fl_head_oldest(h, i), keys = i + n - low, kv = low * h->lk;
        float *p = strip, *d = strip + n * keys; /* (n, keys) each */
        const float *q = h->q + i * h->lq, *d_o = h->d_o + i * h->lq, *o = h->o + i * h->lq;
        fl_gemm_nt(n, keys, h->dim, 1.0f, q, h->lq, h->k + kv, h->lk, 0.0f, p, keys);
        fl_gemm_nt(n, keys, h->dim, 1.0f, d_o, h->lq, h->v + kv, h->lk, 0.0f, d, keys);
        for (size_t t = 0; t < n; t++) {
            float delta = fl_dot(d_o + t * h->lq, o + t * h->lq, h->dim);
            size_t skip = fl_head_oldest(h, i + t) - low;
            row_backward(h, skip, i + t + 1 - low - skip, keys, h->known_lse[(i + t) * h->heads],
                         delta, p + t * keys, d + t * keys, strip + 2 * n * keys);
        }
        fl_gemm_tn(keys, h->dim, n, 1.0f, p, keys, d_o, h->lq, 1.0f, h->dv + kv, h->lk);
        fl_gemm_nn(n, h->dim, keys, 1.0f, d, keys, h->k + kv, h->lk, 0.0f, h->dq + i * h->lq,
                   h->lq);
        fl_gemm_tn(keys, h->dim, n, 1.0f, d, keys, q, h->lq, 1.0f, h->dk + kv, h->lk);
    }
}

static struct fl_head_of_row head_shape(const struct fl_attention *shape,
                                        const struct fl_span *span)
{
    return (struct fl_head_of_row){
        .lq = (size_t)shape->heads * shape->head_dim,
        .lk = (size_t)shape->kv_heads * shape->head_dim,
        .dim = shape->head_dim,
        .heads = shape->heads,
        .tokens = span->tokens,
        .past = span->past,
        .window = shape->window,
        .scale = (float)(1.0 / sqrt(shape->scalar > 0.0f ? (double)shape->scalar
                                                         : (double)shape->head_dim)),
        .cap = shape->cap};
}

void fl_attention_forward(const struct fl_work *work, const struct fl_attention *shape,
                          const struct fl_span *spans, size_t count, const float *q, const float *k,
                          const float *v, float *o, float *lse)
{
    const size_t group = shape->heads / shape->kv_heads;
    const bool fits = work->bf16 && fl_head_fits_bf16(shape->head_dim) && shape->cap == 0.0f;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)work->threads)
    for (size_t task = 0; task < count * shape->heads; task++) {
        const struct fl_span *span = &spans[task / shape->heads];
        const size_t j = task % shape->heads, g = j / group;
        const bool bf16 = fits && span->tokens >= BF16_TOKENS;
        struct fl_head_of_row h = head_shape(shape, span);
        h.q = q + span->first * h.lq + j * h.dim;
        h.k = k + span->first * h.lk + g * h.dim;
        h.v = v + span->first * h.lk + g * h.dim;
        h.out = o + span->first * h.lq + j * h.dim;
        h.lse = lse ? lse + span->first * h.heads + j : NULL;
        if (bf16)
            fl_head_forward_bf16(&h, my_strip(work));
        else
            head_forward(&h, my_strip(work));
    }
}

static void clear(float *x, size_t rows, size_t columns, size_t ld)
{
    for (size_t t = 0; t < rows; t++)
        memset(x + t * ld, 0, columns * sizeof *x);
}

static void begin_backward(const struct fl_head_of_row *h, bool bf16, float *strip)
{
    if (bf16) {
        fl_head_backward_bf16_begin(h, strip);
        return;
    }
    clear(h->dk, h->tokens, h->dim, h->lk);
    clear(h->dv, h->tokens, h->dim, h->lk);
}

void fl_attention_backward(const struct fl_work *work, const struct fl_attention *shape,
                           const struct fl_span *spans, size_t count, const float *q,
                           const float *k, const float *v, const float *o, const float *lse,
                           const float *d_o, float *dq, float *dk, float *dv)
{
    const size_t group = shape->heads / shape->kv_heads;
    const bool fits = work->bf16 && fl_head_fits_bf16(shape->head_dim) && shape->cap == 0.0f;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)work->threads)
    for (size_t task = 0; task < count * shape->kv_heads; task++) {
        const struct fl_span *span = &spans[task / shape->kv_heads];
        const size_t g = task % shape->kv_heads;
        const bool bf16 = fits && span->tokens >= BF16_TOKENS;
        struct fl_head_of_row h = head_shape(shape, span);
        const size_t kv = span->first * h.lk + g * h.dim;
        h.k = k + kv;
        h.v = v + kv;
        h.dk = dk + kv;
        h.dv = dv + kv;
        begin_backward(&h, bf16, my_strip(work));
        for (size_t j = g * group; j < (g + 1) * group; j++) {
            const size_t at = span->first * h.lq + j * h.dim;
            h.q = q + at;
            h.o = o + at;
            h.d_o = d_o + at;
            h.dq = dq + at;
            h.known_lse = lse + span->first * h.heads + j;
            if (bf16)
                fl_head_backward_bf16(&h, my_strip(work));
            else
                head_backward(&h, my_strip(work));
        }
        if (bf16)
            fl_head_backward_bf16_end(&h, my_strip(work));
    }
}

void fl_attention_rotate(const struct fl_work *work, const struct fl_span *spans, size_t count,
                         uint32_t heads, uint32_t head_dim, const float *cosine, const float *sine,
                         float sign, float *x)
{
    const size_t half = head_dim / 2, width = (size_t)heads * head_dim;
#pragma omp parallel num_threads((int)work->threads)
    for (size_t r = 0; r < count; r++) {
        const struct fl_span *span = &spans[r];
#pragma omp for schedule(static) nowait
        for (size_t t = 0; t < span->tokens; t++) {
            float *token = x + (span->first + t) * width;
            const size_t at = (span->past + t) * half;
            for (uint32_t j = 0; j < heads; j++)
                fl_rotate(token + (size_t)j * head_dim, cosine + at, sine + at, half, sign);
        }
    }
}
