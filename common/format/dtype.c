/*
 * dtype.c - see dtype.h. Each kernel is written once as an inline body in plain C; the wrappers
 * compile it again for wider vector units. Integer and float steps are exact or single-rounded in
 * the same order everywhere, so every path gives the same bits.
 */
#include "format/dtype.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#include <immintrin.h>
#else
#define HAVE_X86 0
#endif

#define INLINE static inline __attribute__((always_inline))

static const struct {
    const char *name;
    uint16_t values, bytes;
    bool is_float;
} types[FL_DTYPE_COUNT] = {
    [FL_DTYPE_F32] = {"F32", 1, 4, true},     [FL_DTYPE_F16] = {"F16", 1, 2, true},
    [FL_DTYPE_BF16] = {"BF16", 1, 2, true},   [FL_DTYPE_F64] = {"F64", 1, 8, true},
    [FL_DTYPE_Q8_0] = {"Q8_0", 32, 34, true}, [FL_DTYPE_Q4_0] = {"Q4_0", 32, 18, true},
    [FL_DTYPE_Q4_1] = {"Q4_1", 32, 20, true}, [FL_DTYPE_OTHER] = {"other", 1, 1, false},
};

const char *fl_dtype_name(enum fl_dtype dtype)
{
    return dtype < FL_DTYPE_COUNT ? types[dtype].name : "unknown";
}

bool fl_dtype_is_float(enum fl_dtype dtype)
{
    return dtype < FL_DTYPE_COUNT && types[dtype].is_float;
}

size_t fl_dtype_block_values(enum fl_dtype dtype)
{
    assert(dtype < FL_DTYPE_COUNT);
    return types[dtype].values;
}

size_t fl_dtype_block_bytes(enum fl_dtype dtype)
{
    assert(dtype < FL_DTYPE_COUNT);
    return types[dtype].bytes;
}

size_t fl_dtype_row_bytes(enum fl_dtype dtype, size_t columns)
{
    assert(columns % fl_dtype_block_values(dtype) == 0);
    return columns / types[dtype].values * types[dtype].bytes;
}

/* ---- one value ---- */

INLINE float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

INLINE uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Shift the half's exponent and mantissa into place, then scale by 2^112; exact, subnormals too. */
INLINE float widen_half(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    float scaled = float_of_bits(magnitude) * 0x1p112f;
    uint32_t bits = (half & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000u : bits_of_float(scaled);
    return float_of_bits(bits | sign);
}

float fl_f16_to_f32(uint16_t half)
{
    return widen_half(half);
}

uint16_t fl_f32_to_f16(float value)
{
    uint32_t bits = bits_of_float(value), sign = (bits >> 16) & 0x8000, a = bits & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00); /* NaN */
    if (a >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00); /* rounds to infinity */
    if (a < 0x38800000u) { /* subnormal half: let float addition round at the right bit */
        float shifted = float_of_bits(a) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3f000000u));
    }
    a += 0xc8000fffu + ((a >> 13) & 1); /* exponent bias and round half to even */
    return (uint16_t)(sign | (a >> 13));
}

uint16_t fl_f32_to_bf16(float value)
{
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40); /* keep NaN a NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

/* ---- bodies of the kernels ---- */

INLINE void f16_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, src + 2 * i, 2);
        out[i] = widen_half(half);
    }
}

INLINE void bf16_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, src + 2 * i, 2);
        out[i] = float_of_bits((uint32_t)half << 16);
    }
}

INLINE void f64_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, src + 8 * i, 8);
        out[i] = (float)value;
    }
}

INLINE float half_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return widen_half(half);
}

INLINE void q8_0_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 34, out += 32) {
        float d = half_at(src);
        const int8_t *q = (const int8_t *)(src + 2);
        for (int i = 0; i < 32; i++)
            out[i] = d * (float)q[i];
    }
}

INLINE void q4_0_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 18, out += 32) {
        float d = half_at(src);
        const uint8_t *q = src + 2;
        for (int i = 0; i < 16; i++)
            out[i] = d * (float)((int)(q[i] & 15) - 8);
        for (int i = 0; i < 16; i++)
            out[16 + i] = d * (float)((int)(q[i] >> 4) - 8);
    }
}

INLINE void q4_1_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 20, out += 32) {
        float d = half_at(src), m = half_at(src + 2);
        const uint8_t *q = src + 4;
        for (int i = 0; i < 16; i++)
            out[i] = d * (float)(int)(q[i] & 15) + m;
        for (int i = 0; i < 16; i++)
            out[16 + i] = d * (float)(int)(q[i] >> 4) + m;
    }
}

/* ---- the same for wider vector units ---- */

typedef void (*widen_function)(const uint8_t *src, size_t count, float *out);

#define KERNELS(suffix, attribute)                                                                 \
    attribute static void f16_##suffix(const uint8_t *src, size_t count, float *out)               \
    {                                                                                              \
        f16_body(src, count, out);                                                                 \
    }                                                                                              \
    attribute static void bf16_##suffix(const uint8_t *src, size_t count, float *out)              \
    {                                                                                              \
        bf16_body(src, count, out);                                                                \
    }                                                                                              \
    attribute static void f64_##suffix(const uint8_t *src, size_t count, float *out)               \
    {                                                                                              \
        f64_body(src, count, out);                                                                 \
    }                                                                                              \
    attribute static void q8_0_##suffix(const uint8_t *src, size_t count, float *out)              \
    {                                                                                              \
        q8_0_body(src, count, out);                                                                \
    }                                                                                              \
    attribute static void q4_0_##suffix(const uint8_t *src, size_t count, float *out)              \
    {                                                                                              \
        q4_0_body(src, count, out);                                                                \
    }                                                                                              \
    attribute static void q4_1_##suffix(const uint8_t *src, size_t count, float *out)              \
    {                                                                                              \
        q4_1_body(src, count, out);                                                                \
    }                                                                                              \
    static const widen_function suffix##_table[FL_DTYPE_COUNT] = {                                 \
        [FL_DTYPE_F16] = f16_##suffix,   [FL_DTYPE_BF16] = bf16_##suffix,                          \
        [FL_DTYPE_F64] = f64_##suffix,   [FL_DTYPE_Q8_0] = q8_0_##suffix,                          \
        [FL_DTYPE_Q4_0] = q4_0_##suffix, [FL_DTYPE_Q4_1] = q4_1_##suffix,                          \
    };

KERNELS(scalar, )

#if HAVE_X86
KERNELS(avx2, __attribute__((target("avx2"))))
KERNELS(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

static const widen_function *choose(void)
{
    const char *wanted = getenv("FL_KERNELS");
    if (wanted && strcmp(wanted, "scalar") == 0)
        return scalar_table;
#if HAVE_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        !(wanted && strcmp(wanted, "avx2") == 0))
        return avx512_table;
    if (__builtin_cpu_supports("avx2"))
        return avx2_table;
#endif
    return scalar_table;
}

void fl_dtype_widen(enum fl_dtype dtype, const void *src, size_t count, float *out)
{
    static const widen_function *chosen;
    assert(fl_dtype_is_float(dtype));
    if (dtype == FL_DTYPE_F32) {
        memcpy(out, src, count * sizeof(*out));
        return;
    }
    const widen_function *table = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!table) {
        table = choose();
        __atomic_store_n(&chosen, table, __ATOMIC_RELAXED);
    }
    table[dtype](src, count, out);
}
