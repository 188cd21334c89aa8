/* kernels.c - see kernels.h. Built with -O3: the loops are written for the vectoriser. */
#include "worker/engine/kernels.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) &&                        \
    !defined(__SANITIZE_ADDRESS__)
#define FL_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FL_SIMD
#endif
#define FL_INLINE static inline __attribute__((always_inline))

enum { BLOCK = 512 }; /* float sums are carried over to double after so many elements */

/*
 * e^x = 2^k e^r, k = round(x / ln 2), |r| <= ln 2 / 2, e^r = 1 + r + r^2 q(r) with q fitted for
 * the smallest relative error (3e-9 before rounding).
 */
FL_INLINE float exp_approx(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float shifted = x * 1.44269504f + magic;
    float k = shifted - magic;
    float r = x - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float q = 0.0013814613f;
    q = q * r + 0.0083687101f;
    q = q * r + 0.0416683890f;
    q = q * r + 0.1666652113f;
    q = q * r + 0.4999999404f;
    float e = r * r * q + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u; /* 2^k: the low bits of shifted hold k */
    float power;
    memcpy(&power, &bits, sizeof power);
    return e * power;
}

FL_INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + exp_approx(-x));
}

FL_INLINE double sum_squares(const float *x, size_t n)
{
    double total = 0.0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = n - i < BLOCK ? n : i + BLOCK;
        float s = 0.0f;
#pragma omp simd reduction(+ : s)
        for (size_t j = i; j < end; j++)
            s += x[j] * x[j];
        total += (double)s;
    }
    return total;
}

FL_SIMD double fl_sum_squares(const float *x, size_t n)
{
    return sum_squares(x, n);
}

FL_SIMD void fl_rmsnorm(const float *x, const float *w, double epsilon, size_t rows, size_t n,
                        float *y, float *inverse)
{
    for (size_t t = 0; t < rows; t++, x += n, y += n) {
        float r = (float)(1.0 / sqrt(sum_squares(x, n) / (double)n + epsilon));
        inverse[t] = r;
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * r * w[i];
    }
}

FL_SIMD void fl_rmsnorm_again(const float *x, const float *w, const float *inverse, size_t rows,
                              size_t n, float *y)
{
    for (size_t t = 0; t < rows; t++, x += n, y += n) {
        float r = inverse[t];
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * r * w[i];
    }
}

FL_SIMD void fl_rmsnorm_backward(const float *dy, const float *x, const float *w,
                                 const float *inverse, size_t rows, size_t n, float *dx)
{
    for (size_t t = 0; t < rows; t++, dy += n, x += n, dx += n) {
        double total = 0.0; /* sum of dy w x */
        for (size_t i = 0; i < n; i += BLOCK) {
            size_t end = n - i < BLOCK ? n : i + BLOCK;
            float s = 0.0f;
#pragma omp simd reduction(+ : s)
            for (size_t j = i; j < end; j++)
                s += dy[j] * w[j] * x[j];
            total += (double)s;
        }
        float r = inverse[t];
        float c = (float)((double)r * r * r * total / (double)n);
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            dx[i] += r * (dy[i] * w[i]) - c * x[i];
    }
}

FL_INLINE double mean_of(const float *x, size_t n)
{
    double total = 0.0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = n - i < BLOCK ? n : i + BLOCK;
        float s = 0.0f;
#pragma omp simd reduction(+ : s)
        for (size_t j = i; j < end; j++)
            s += x[j];
        total += (double)s;
    }
    return total / (double)n;
}

FL_INLINE double variance_of(const float *x, size_t n, float mean)
{
    double total = 0.0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = n - i < BLOCK ? n : i + BLOCK;
        float s = 0.0f;
#pragma omp simd reduction(+ : s)
        for (size_t j = i; j < end; j++)
            s += (x[j] - mean) * (x[j] - mean);
        total += (double)s;
    }
    return total / (double)n;
}

FL_INLINE void layernorm_row(const float *x, const float *w, const float *b, float mean, float r,
                             size_t n, float *y)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * r * w[i] + b[i];
}

FL_SIMD void fl_layernorm(const float *x, const float *w, const float *b, double epsilon,
                          size_t rows, size_t n, float *y, float *inverse)
{
    for (size_t t = 0; t < rows; t++, x += n, y += n) {
        float mean = (float)mean_of(x, n);
        inverse[t] = (float)(1.0 / sqrt(variance_of(x, n, mean) + epsilon));
        layernorm_row(x, w, b, mean, inverse[t], n, y);
    }
}

FL_SIMD void fl_layernorm_again(const float *x, const float *w, const float *b,
                                const float *inverse, size_t rows, size_t n, float *y)
{
    for (size_t t = 0; t < rows; t++, x += n, y += n)
        layernorm_row(x, w, b, (float)mean_of(x, n), inverse[t], n, y);
}

FL_SIMD void fl_layernorm_backward(const float *dy, const float *x, const float *w,
                                   const float *inverse, size_t rows, size_t n, float *dx)
{
    for (size_t t = 0; t < rows; t++, dy += n, x += n, dx += n) {
        const float mean = (float)mean_of(x, n), r = inverse[t];
        double sum = 0.0, product = 0.0; /* of g, of g (x - mean) */
        for (size_t i = 0; i < n; i += BLOCK) {
            size_t end = n - i < BLOCK ? n : i + BLOCK;
            float s = 0.0f, p = 0.0f;
#pragma omp simd reduction(+ : s, p)
            for (size_t j = i; j < end; j++) {
                s += dy[j] * w[j];
                p += dy[j] * w[j] * (x[j] - mean);
            }
            sum += (double)s;
            product += (double)p;
        }
        float a = (float)(sum / (double)n), c = (float)((double)r * r * product / (double)n);
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            dx[i] += r * (dy[i] * w[i] - a - c * (x[i] - mean));
    }
}

/* sigmoid(2 z) of GELU */
FL_INLINE float gelu_gate(float x)
{
    return sigmoid(1.5957691216f * (x + 0.044715f * x * x * x));
}

/* The derivative of what gelu_gate() gives to the sigmoid. */
FL_INLINE float gelu_slope(float x)
{
    return 1.5957691216f * (1.0f + 0.134145f * x * x);
}

FL_SIMD void fl_gelu(const float *x, size_t n, float *h)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        h[i] = x[i] * gelu_gate(x[i]);
}

FL_SIMD void fl_gelu_backward(const float *dh, size_t n, float *x)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float s = gelu_gate(x[i]);
        x[i] = dh[i] * (s + x[i] * s * (1.0f - s) * gelu_slope(x[i]));
    }
}

FL_SIMD void fl_swiglu(const float *gate, const float *up, size_t n, float *h)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        h[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

FL_SIMD void fl_swiglu_backward(const float *dh, size_t n, float *gate, float *up)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float a = gate[i];
        float s = sigmoid(a);
        float du = dh[i] * (a * s);
        gate[i] = dh[i] * up[i] * (s * (1.0f + a * (1.0f - s)));
        up[i] = du;
    }
}

FL_SIMD void fl_geglu(const float *gate, const float *up, size_t n, float *h)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        h[i] = gate[i] * gelu_gate(gate[i]) * up[i];
}

FL_SIMD void fl_geglu_backward(const float *dh, size_t n, float *gate, float *up)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float a = gate[i];
        float s = gelu_gate(a);
        float du = dh[i] * (a * s);
        gate[i] = dh[i] * up[i] * (s + a * s * (1.0f - s) * gelu_slope(a));
        up[i] = du;
    }
}

/* 2 sigmoid(2 z) - 1; near 0, where that cancels, its series (relative error below 1e-8). */
FL_INLINE float tanh_approx(float z)
{
    float far = 2.0f * sigmoid(2.0f * z) - 1.0f;
    float q = z * z;
    float near = z * (1.0f + q * (-0.33333333f +
                                  q * (0.13333333f + q * (-0.053968254f + q * 0.021869488f))));
    return q < 0.04f ? near : far;
}

FL_SIMD void fl_soft_cap(float *x, size_t n, float factor, float cap)
{
    const float inner = factor / cap;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_approx(x[i] * inner);
}

FL_SIMD void fl_soft_cap_backward(const float *y, size_t n, float factor, float cap, float *d)
{
    const float inverse = 1.0f / cap;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        d[i] *= (1.0f - y[i] * inverse * (y[i] * inverse)) * factor;
}

FL_INLINE float max_of(const float *x, size_t n)
{
    float m = x[0];
#pragma omp simd reduction(max : m)
    for (size_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

FL_SIMD float fl_max(const float *x, size_t n)
{
    return max_of(x, n);
}

FL_SIMD float fl_softmax_row(float *s, size_t valid, size_t total, float scale)
{
    float shift = max_of(s, valid) * scale;
    double sum = 0.0;
    for (size_t i = 0; i < valid; i += BLOCK) {
        size_t end = valid - i < BLOCK ? valid : i + BLOCK;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (size_t j = i; j < end; j++) {
            s[j] = exp_approx(s[j] * scale - shift);
            part += s[j];
        }
        sum += (double)part;
    }
    float factor = (float)(1.0 / sum);
#pragma omp simd
    for (size_t i = 0; i < valid; i++)
        s[i] *= factor;
    for (size_t i = valid; i < total; i++)
        s[i] = 0.0f;
    return (float)((double)shift + log(sum));
}

FL_SIMD void fl_softmax_again(float *s, size_t valid, size_t total, float scale, float lse)
{
#pragma omp simd
    for (size_t i = 0; i < valid; i++)
        s[i] = exp_approx(s[i] * scale - lse);
    for (size_t i = valid; i < total; i++)
        s[i] = 0.0f;
}

FL_SIMD void fl_softmax_backward(const float *p, float *d, size_t total, float delta, float scale)
{
#pragma omp simd
    for (size_t i = 0; i < total; i++)
        d[i] = p[i] * (d[i] - delta) * scale;
}

FL_SIMD double fl_exp_sum(float *x, size_t n, float shift)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = n - i < BLOCK ? n : i + BLOCK;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (size_t j = i; j < end; j++) {
            x[j] = exp_approx(x[j] - shift);
            part += x[j];
        }
        sum += (double)part;
    }
    return sum;
}

FL_SIMD double fl_exp_sum_only(const float *x, size_t n, float shift)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = n - i < BLOCK ? n : i + BLOCK;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (size_t j = i; j < end; j++)
            part += exp_approx(x[j] - shift);
        sum += (double)part;
    }
    return sum;
}

FL_SIMD void fl_scale(float *x, size_t n, float factor)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

FL_SIMD float fl_dot(const float *x, const float *y, size_t n)
{
    float s = 0.0f;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++)
        s += x[i] * y[i];
    return s;
}

FL_SIMD void fl_add(const float *x, size_t n, float *y)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

FL_SIMD void fl_add_rows(const float *bias, size_t rows, size_t n, float *y)
{
    for (size_t t = 0; t < rows; t++, y += n) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] += bias[i];
    }
}

FL_SIMD void fl_rotate(float *x, const float *cosine, const float *sine, size_t half, float sign)
{
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float low = x[i], high = x[i + half];
        float s = sine[i] * sign;
        x[i] = low * cosine[i] - high * s;
        x[i + half] = high * cosine[i] + low * s;
    }
}

/* A 32-bit finaliser over the two halves of the counter, keyed (constants: C. Wellons, 2018). */
FL_INLINE uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

FL_SIMD void fl_dropout(const float *x, uint64_t key, uint64_t first_row, size_t rows, size_t n,
                        double p, float *y)
{
    const uint32_t threshold = (uint32_t)(p * 4294967296.0);
    const float factor = (float)(1.0 / (1.0 - p));
    for (size_t t = 0; t < rows; t++, x += n, y += n) {
        uint64_t row = first_row + t;
        uint32_t seed = mix((uint32_t)row ^ mix((uint32_t)(row >> 32) ^ (uint32_t)key)) ^
                        (uint32_t)(key >> 32);
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] = mix((uint32_t)i * 0x9e3779b9u ^ seed) >= threshold ? x[i] * factor : 0.0f;
    }
}

FL_SIMD void fl_adamw_update(const struct fl_adamw *c, const float *g, size_t n, float *p, float *m,
                             float *v)
{
    const struct fl_adamw k = *c;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * k.gradient;
        float moment = m[i] + k.rate1 * (gradient - m[i]);
        float square = k.beta2 * v[i] + k.rate2 * gradient * gradient;
        m[i] = moment;
        v[i] = square;
        float denominator = sqrtf(square) / k.correction + k.epsilon;
        p[i] = p[i] * k.decay - k.step * (moment / denominator);
    }
}
