/*
 * work.h - what every part of a pass shares: the team of threads, the scratch that frozen weights
 * are widened into, and the matrix products on top of single-threaded sgemm.
 *
 * Threads work on their own rows (tokens) of each matrix; OpenBLAS itself stays on one thread.
 * Measured on two cores this equals OpenBLAS' own threading on square products and is 1.5 to 2
 * times faster on the thin ones of LoRA.
 */
#ifndef FL_ENGINE_WORK_H
#define FL_ENGINE_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/engine/gemm.h"
#include "worker/engine/model.h"

enum { FL_PANEL_ROWS = 64, FL_ROW_GRAIN = 8 /* rows of W are shared out by so many */ };

struct fl_work {
    uint32_t threads;
    float *panel;        /* (panel_floats): rows of a widened weight, shared by the team */
    size_t panel_floats; /* room for FL_PANEL_ROWS of the widest weight's rows a thread */
    bool bf16;           /* products with frozen weights in bfloat16, sums in float32 */
    float *narrow;       /* bf16: (batch tokens, widest k and a branch's rank) as pairs */
    float *strips;       /* (threads, strip_floats): attention scores of one block of queries */
    size_t strip_floats;
    float *scaled;  /* (batch tokens, widest out): gradients times DoRA's factors, or NULL */
    float *dropped; /* (batch tokens, widest in): input of a LoRA branch after dropout, or NULL */
};

/* Part `index` of `parts` of [0, total), cut at multiples of grain: [*low, *high). */
static inline void fl_share(size_t total, uint32_t index, uint32_t parts, size_t grain, size_t *low,
                            size_t *high)
{
    size_t units = (total + grain - 1) / grain;
    *low = units * index / parts * grain;
    *high = units * (index + 1) / parts * grain;
    *low = *low < total ? *low : total;
    *high = *high < total ? *high : total;
}

/* A LoRA branch's last product, added to a strip of the result while that is in the cache. */
struct fl_branch {
    size_t rank;         /* 0: none */
    float scale;         /* s */
    const float *u;      /* (tokens, rank) */
    const float *factor; /* turned: B (columns, rank), s u B^T; else A (rank, columns), s u A */
    bool turned;
    size_t columns; /* of A */
};

/*
 * Forward: y (tokens, ldy) = [y +] x W^T + branch, x (tokens, ldx), with the frozen W (out, in).
 * Back: y = [y +] x W + branch; x then is the gradient (tokens, out) and y that of the input.
 */
struct fl_product {
    const struct fl_weight *weight;
    size_t tokens;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
    bool add;
    bool narrowed; /* fl_team_narrow() was called for it in this parallel region */
    struct fl_branch branch;
};

/* By a team of its own. Back is not for few tokens' sake made narrow: training has many. */
void fl_weight_multiply(const struct fl_work *work, const struct fl_product *product);
void fl_weight_multiply_back(const struct fl_work *work, const struct fl_product *product);

/*
 * The same from inside a parallel region, called by every thread once in that region: each gets
 * the result of its own tokens (fl_my_tokens) without a barrier at the end, and reads x and u of
 * its own tokens only. Not for few tokens (fl_work_is_narrow).
 */
void fl_team_multiply(const struct fl_work *work, const struct fl_product *product);
void fl_team_multiply_back(const struct fl_work *work, const struct fl_product *product);
/*
 * bf16 products only (fl_work_narrows): this thread's tokens of x, which has `columns`, into the
 * scratch. Pairs of token t begin at narrow + t times the result.
 */
size_t fl_team_narrow(const struct fl_work *work, const struct fl_product *product, size_t columns);
/* Are this weight's products, and those of a branch beside it, in bfloat16? */
bool fl_work_narrows(const struct fl_work *work, const struct fl_weight *weight);
/* Pairs that a token of the scratch has for a branch of `rank`, whole tiles of them. */
static inline size_t fl_branch_pairs(size_t rank)
{
    return (rank + 31) / 32 * 16;
}
/* The calling thread's share [*low, *high) of [0, total) in a parallel region, and of the tokens.
 */
void fl_my_share(size_t total, size_t grain, size_t *low, size_t *high);
void fl_my_tokens(size_t tokens, size_t *low, size_t *high);
/* So few tokens that threads share the rows of W instead: fl_team_multiply() is not for them. */
int fl_work_is_narrow(const struct fl_work *work, size_t tokens);

#endif
