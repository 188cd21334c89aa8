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

void fl_rope_frequencies(const struct fl_rope *rope, uint32_t head_dim, float *inverse)
{
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double f = (double)(float)(1.0 / (double)(float)pow(rope->theta, 2.0 * i / head_dim));
        if (rope->kind == FL_ROPE_LINEAR)
            f /= rope->factor;
        else if (rope->kind == FL_ROPE_LLAMA3)
            f = llama3(rope, f);
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
    for (size_t t = 0; t < positions; t++) {
        for (uint32_t i = 0; i < half; i++) {
            float angle = (float)t * inverse[i];
            cosine[t * half + i] = (float)cos((double)angle);
            sine[t * half + i] = (float)sin((double)angle);
        }
    }
}
