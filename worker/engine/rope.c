/* rope.c - see rope.h. Rounded to float32 where transformers rounds, so that angles are equal. */
#include "worker/engine/rope.h"

#include <assert.h>
#include <math.h>

static const double PI = 3.14159265358979323846;

static double llama3(const struct fl_rope *rope, double inverse)
{
    double wavelength = 2.0 * PI / inverse, context = rope->original_positions;
    if (wavelength < context / rope->high)
        return inverse;
    if (wavelength > context / rope->low)
        return inverse / rope->factor;
    double s = (context / wavelength - rope->low) / (rope->high - rope->low);
    return (1.0 - s) * inverse / rope->factor + s * inverse;
}

/* The pair that turns `rotations` times over the original context, as a real number. */
static double yarn_pair(const struct fl_rope *rope, double rotations, uint32_t head_dim)
{
    return head_dim * log(rope->original_positions / (rotations * 2.0 * PI)) /
           (2.0 * log(rope->theta));
}

/* What remains of pair i's own frequency: 1 for the fast ones, 0 for the slow. */
static double yarn_share(const struct fl_rope *rope, uint32_t i, uint32_t head_dim)
{
    const double low = fmax(floor(yarn_pair(rope, rope->fast, head_dim)), 0.0);
    double high = fmin(ceil(yarn_pair(rope, rope->slow, head_dim)), head_dim - 1.0);
    if (high == low)
        high += 0.001;
    return 1.0 - fmin(fmax((i - low) / (high - low), 0.0), 1.0);
}

double fl_rope_yarn_attention(double factor)
{
    return factor <= 1.0 ? 1.0 : 0.1 * log(factor) + 1.0;
}

void fl_rope_frequencies(const struct fl_rope *rope, uint32_t head_dim, float *inverse)
{
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double f = (double)(float)(1.0 / (double)(float)pow(rope->theta, 2.0 * i / head_dim));
        if (rope->kind == FL_ROPE_LINEAR)
            f /= rope->factor;
        else if (rope->kind == FL_ROPE_LLAMA3)
            f = llama3(rope, f);
        else if (rope->kind == FL_ROPE_YARN)
            f = f / rope->factor + yarn_share(rope, i, head_dim) * (f - f / rope->factor);
        if (rope->divisors)
            f /= (double)rope->divisors[i];
        inverse[i] = (float)f;
    }
}

void fl_rope_table(const struct fl_rope *rope, uint32_t head_dim, size_t positions, float *cosine,
                   float *sine)
{
    enum { HALF_MAX = 512 };
    const uint32_t half = head_dim / 2;
    float inverse[HALF_MAX];
    assert(half <= HALF_MAX);
    fl_rope_frequencies(rope, head_dim, inverse);
    const double attention = rope->kind == FL_ROPE_YARN ? rope->attention : 1.0;
    for (size_t t = 0; t < positions; t++) {
        for (uint32_t i = 0; i < half; i++) {
            float angle = (float)t * inverse[i];
            cosine[t * half + i] = (float)(attention * cos((double)angle));
            sine[t * half + i] = (float)(attention * sin((double)angle));
        }
    }
}
