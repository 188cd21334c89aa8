/*
 * attention_bf16.c - the products of attention.h in bfloat16 with sums in float32; softmax stays in
 * float32.
 *
 * A head's keys and values are packed once into strips (K^T and V^T with pairs along D, K and V
 * with pairs of keys). Gradients of keys and values are summed up turned, (D, keys), because then P
 * and dS are the right sides of their products and are packed along their rows. Columns of scores
 * are computed in whole strips; what no query sees is cleared before anything is summed over keys.
 */
#include <string.h>

#include "worker/engine/attention_head.h"
#include "worker/engine/kernels.h"

enum {
    BLOCK = FL_ATTENTION_BLOCK,
    STRIP = 48,        /* keys of a strip: the columns of both kernels */
    WHOLE = 2 * STRIP, /* whole strips, and whole tiles of pairs */
    DIM_MOST = 256
};

bool fl_head_fits_bf16(size_t head_dim)
{
    const struct fl_gemm_bf16 *bf16 = fl_gemm_bf16();
    return bf16 && bf16->tiles->columns == STRIP && head_dim % bf16->tiles->lanes == 0 &&
           head_dim <= DIM_MOST;
}

static size_t whole(size_t keys)
{
    return (keys + WHOLE - 1) / WHOLE * WHOLE;
}

static size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* Scratch of a thread; keys are `room` floats apart. */
struct scratch {
    const struct fl_gemm_bf16 *bf16;
    size_t room, dim;
    float *p, *d;                 /* (BLOCK, room) */
    float *narrow;                /* (BLOCK, room / 2) pairs of keys, of p or d */
    float *k_turned, *v_turned;   /* strips (D / 2, STRIP) of pairs along D */
    float *k_pairs, *v_pairs;     /* strips (room / 2, at most STRIP columns of D) */
    float *dk, *dv;               /* (D, room) sums */
    float *q, *d_o;               /* (BLOCK, D / 2) pairs along D */
    float *q_turned, *d_o_turned; /* (D, BLOCK / 2) pairs of queries */
};

static size_t lay_out(struct scratch *s, size_t keys, size_t dim, float *base)
{
    const size_t room = whole(keys), block = (size_t)BLOCK * dim / 2;
    struct {
        float **at;
        size_t floats;
    } parts[] = {{&s->p, BLOCK * room},
                 {&s->d, BLOCK * room},
                 {&s->narrow, BLOCK * room / 2},
                 {&s->k_turned, dim / 2 * room},
                 {&s->v_turned, dim / 2 * room},
                 {&s->k_pairs, room / 2 * dim},
                 {&s->v_pairs, room / 2 * dim},
                 {&s->dk, dim * room},
                 {&s->dv, dim * room},
                 {&s->q, block},
                 {&s->d_o, block},
                 {&s->q_turned, block},
                 {&s->d_o_turned, block}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].at = base ? base + used : NULL;
        used += parts[i].floats;
    }
    s->bf16 = fl_gemm_bf16();
    s->room = room;
    s->dim = dim;
    return used;
}

size_t fl_head_bf16_floats(size_t keys, size_t head_dim)
{
    struct scratch s;
    return lay_out(&s, keys, head_dim, NULL);
}

static struct scratch scratch_of(const struct fl_head_of_row *h, float *strip)
{
    struct scratch s;
    (void)lay_out(&s, h->past + h->tokens, h->dim, strip);
    return s;
}

/* x (keys, D) with lk -> strips of its transpose, missing keys as zeros. */
static void pack_turned(const struct scratch *s, const float *x, size_t lk, size_t keys, float *out)
{
    FL_GEMM_ROOM rows[STRIP * DIM_MOST / 2];
    const size_t units = s->dim / 2;
    for (size_t first = 0; first < s->room; first += STRIP, out += STRIP * units) {
        const size_t n = first < keys ? least(keys - first, STRIP) : 0;
        for (size_t i = 0; i < n; i++)
            s->bf16->narrow(x + (first + i) * lk, s->dim, rows + i * units);
        if (n < STRIP)
            memset(rows + n * units, 0, (STRIP - n) * units * sizeof *rows);
        s->bf16->tiles->pack_turned(rows, units, units, STRIP, out, STRIP);
    }
}

/* x (keys, D) with lk -> strips of D's columns, keys in pairs, missing ones as zeros. */
static void pack_pairs(const struct scratch *s, const float *x, size_t lk, size_t keys, float *out)
{
    static const float zeros[DIM_MOST];
    for (size_t j = 0; j < s->dim; j += STRIP) {
        const size_t n = least(s->dim - j, STRIP);
        for (size_t i = 0; i < s->room; i += 2, out += n) {
            const float *even = i < keys ? x + i * lk + j : zeros;
            const float *odd = i + 1 < keys ? x + (i + 1) * lk + j : zeros;
            s->bf16->pair(even, odd, n, n, out);
        }
    }
}

/* A block of queries' rows x (n, D) with ld -> pairs along D, and turned (if wanted) pairs of rows.
 */
static void pack_queries(const struct scratch *s, const float *x, size_t ld, size_t n,
                         float *narrow, float *turned)
{
    static const float zeros[DIM_MOST];
    FL_GEMM_ROOM pairs[BLOCK / 2 * DIM_MOST];
    for (size_t t = 0; t < n; t++)
        s->bf16->narrow(x + t * ld, s->dim, narrow + t * (s->dim / 2));
    for (size_t t = 0; turned && t < n; t += 2)
        s->bf16->pair(x + t * ld, t + 1 < n ? x + (t + 1) * ld : zeros, s->dim, s->dim,
                      pairs + t / 2 * s->dim);
    if (turned)
        s->bf16->tiles->pack_turned(pairs, s->dim, s->dim, (n + 1) / 2, turned, BLOCK / 2);
}

/* What one block of queries sees: keys [low, low + keys), whole strips. */
struct seen {
    size_t first, n; /* queries */
    size_t low, keys;
};

static struct seen seen_by(const struct fl_head_of_row *h, size_t first)
{
    struct seen b = {.first = first, .n = least(h->tokens - first, BLOCK)};
    b.low = fl_head_oldest(h, h->past + first) / WHOLE * WHOLE;
    b.keys = whole(h->past + first + b.n - b.low);
    return b;
}

/* out (n, keys) = x T, T the strips of a transpose */
static void scores(const struct scratch *s, const struct seen *b, const float *x,
                   const float *turned, float *out)
{
    const size_t units = s->dim / 2;
    for (size_t j = 0; j < b->keys; j += STRIP)
        s->bf16->tiles->strip(&(struct fl_gemm_strip){.m = b->n,
                                                      .n = STRIP,
                                                      .k = units,
                                                      .alpha = 1.0f,
                                                      .a = x,
                                                      .rs = units,
                                                      .cs = 1,
                                                      .b = turned + (b->low + j) * units,
                                                      .ldb = STRIP,
                                                      .c = out + j,
                                                      .ldc = s->room});
}

/* out (n, D) with ld = x (n, keys) times the packed pairs of keys */
static void sum_over_keys(const struct scratch *s, const struct seen *b, const float *x,
                          const float *pairs, float *out, size_t ld)
{
    const size_t stride = s->room / 2;
    for (size_t t = 0; t < b->n; t++)
        s->bf16->narrow(x + t * s->room, b->keys, s->narrow + t * stride);
    for (size_t j = 0; j < s->dim; j += STRIP) {
        const size_t n = least(s->dim - j, STRIP);
        s->bf16->tiles->strip(&(struct fl_gemm_strip){.m = b->n,
                                                      .n = n,
                                                      .k = b->keys / 2,
                                                      .alpha = 1.0f,
                                                      .a = s->narrow,
                                                      .rs = stride,
                                                      .cs = 1,
                                                      .b = pairs + j * stride + b->low / 2 * n,
                                                      .ldb = n,
                                                      .c = out + j,
                                                      .ldc = ld});
    }
}

/* sums (D, room) += turned (D, n) x (n, keys), whose row n is cleared where n is odd */
static void sum_over_queries(const struct scratch *s, const struct seen *b, const float *turned,
                             const float *x, float *sums)
{
    FL_GEMM_ROOM pairs[BLOCK / 2 * STRIP];
    for (size_t j = 0; j < b->keys; j += STRIP) {
        for (size_t t = 0; t < b->n; t += 2)
            s->bf16->pair(x + t * s->room + j, x + (t + 1) * s->room + j, STRIP, STRIP,
                          pairs + t / 2 * STRIP);
        s->bf16->tiles->strip(&(struct fl_gemm_strip){.m = s->dim,
                                                      .n = STRIP,
                                                      .k = (b->n + 1) / 2,
                                                      .alpha = 1.0f,
                                                      .a = turned,
                                                      .rs = BLOCK / 2,
                                                      .cs = 1,
                                                      .b = pairs,
                                                      .ldb = STRIP,
                                                      .c = sums + b->low + j,
                                                      .ldc = s->room,
                                                      .add = true});
    }
}

void fl_head_forward_bf16(const struct fl_head_of_row *h, float *strip)
{
    const struct scratch s = scratch_of(h, strip);
    pack_turned(&s, h->k, h->lk, h->past + h->tokens, s.k_turned);
    pack_pairs(&s, h->v, h->lk, h->past + h->tokens, s.v_pairs);
    for (size_t i = 0; i < h->tokens; i += BLOCK) {
        const struct seen b = seen_by(h, i);
        pack_queries(&s, h->q + i * h->lq, h->lq, b.n, s.q, NULL);
        scores(&s, &b, s.q, s.k_turned, s.p);
        for (size_t t = 0; t < b.n; t++) {
            const size_t at = h->past + i + t, skip = fl_head_oldest(h, at) - b.low;
            float *row = s.p + t * s.room;
            memset(row, 0, skip * sizeof *row);
            const float lse = fl_softmax_row(row + skip, at + 1 - b.low - skip, b.keys - skip,
                                             h->scale);
            if (h->lse)
                h->lse[(i + t) * h->heads] = lse;
        }
        sum_over_keys(&s, &b, s.p, s.v_pairs, h->out + i * h->lq, h->lq);
    }
}

void fl_head_backward_bf16_begin(const struct fl_head_of_row *h, float *strip)
{
    const struct scratch s = scratch_of(h, strip);
    pack_turned(&s, h->k, h->lk, h->tokens, s.k_turned);
    pack_turned(&s, h->v, h->lk, h->tokens, s.v_turned);
    pack_pairs(&s, h->k, h->lk, h->tokens, s.k_pairs);
    memset(s.dk, 0, s.dim * s.room * sizeof *s.dk);
    memset(s.dv, 0, s.dim * s.room * sizeof *s.dv);
}

/* p and d of a block become P and dS. */
static void gradients_of_scores(const struct fl_head_of_row *h, const struct scratch *s,
                                const struct seen *b)
{
    for (size_t t = 0; t < b->n; t++) {
        const size_t at = b->first + t, skip = fl_head_oldest(h, at) - b->low;
        float *p = s->p + t * s->room, *d = s->d + t * s->room;
        const float delta = fl_dot(h->d_o + at * h->lq, h->o + at * h->lq, h->dim);
        memset(p, 0, skip * sizeof *p);
        fl_softmax_again(p + skip, at + 1 - b->low - skip, b->keys - skip, h->scale,
                         h->known_lse[at * h->heads]);
        fl_softmax_backward(p, d, b->keys, delta, h->scale);
    }
    if (b->n % 2) {
        memset(s->p + b->n * s->room, 0, b->keys * sizeof *s->p);
        memset(s->d + b->n * s->room, 0, b->keys * sizeof *s->d);
    }
}

void fl_head_backward_bf16(const struct fl_head_of_row *h, float *strip)
{
    const struct scratch s = scratch_of(h, strip);
    for (size_t i = 0; i < h->tokens; i += BLOCK) {
        const struct seen b = seen_by(h, i);
        pack_queries(&s, h->q + i * h->lq, h->lq, b.n, s.q, s.q_turned);
        pack_queries(&s, h->d_o + i * h->lq, h->lq, b.n, s.d_o, s.d_o_turned);
        scores(&s, &b, s.q, s.k_turned, s.p);
        scores(&s, &b, s.d_o, s.v_turned, s.d);
        gradients_of_scores(h, &s, &b);
        sum_over_keys(&s, &b, s.d, s.k_pairs, h->dq + i * h->lq, h->lq);
        sum_over_queries(&s, &b, s.d_o_turned, s.p, s.dv);
        sum_over_queries(&s, &b, s.q_turned, s.d, s.dk);
    }
}

void fl_head_backward_bf16_end(const struct fl_head_of_row *h, float *strip)
{
    const struct scratch s = scratch_of(h, strip);
    s.bf16->tiles->pack_turned(s.dk, s.room, h->tokens, s.dim, h->dk, h->lk);
    s.bf16->tiles->pack_turned(s.dv, s.room, h->tokens, s.dim, h->dv, h->lk);
}
