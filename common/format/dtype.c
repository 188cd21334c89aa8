/*
 * dtype.c - see dtype.h. Each kernel is an inline body in plain C, which is the reference; where
 * the compiler does not vectorise it well, x86 has a body of its own. Five-bit and super-block
 * types are in dtype_blocks.c. Integer and float steps are exact or single-rounded in the same
 * order everywhere, so every path gives the same bits.
 */
#include "format/dtype.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "format/dtype_internal.h"

static const struct {
    const char *name;
    uint16_t values, bytes;
    bool is_float;
} types[FL_DTYPE_COUNT] = {
    [FL_DTYPE_F32] = {"F32", 1, 4, true},       [FL_DTYPE_F16] = {"F16", 1, 2, true},
    [FL_DTYPE_BF16] = {"BF16", 1, 2, true},     [FL_DTYPE_F64] = {"F64", 1, 8, true},
    [FL_DTYPE_Q8_0] = {"Q8_0", 32, 34, true},   [FL_DTYPE_Q4_0] = {"Q4_0", 32, 18, true},
    [FL_DTYPE_Q4_1] = {"Q4_1", 32, 20, true},   [FL_DTYPE_Q5_0] = {"Q5_0", 32, 22, true},
    [FL_DTYPE_Q5_1] = {"Q5_1", 32, 24, true},   [FL_DTYPE_Q4_K] = {"Q4_K", 256, 144, true},
    [FL_DTYPE_Q5_K] = {"Q5_K", 256, 176, true}, [FL_DTYPE_Q6_K] = {"Q6_K", 256, 210, true},
    [FL_DTYPE_NF4] = {"NF4", 2, 1, false},      [FL_DTYPE_OTHER] = {"other", 1, 1, false},
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

/* The bodies that differ are named; bf16 and f64 are vectorised well by the compiler. */
#define KERNELS(suffix, attribute, f16, q8_0, q4_0, q4_1)                                          \
    KERNEL(f16_##suffix, f16, attribute)                                                           \
    KERNEL(bf16_##suffix, bf16_body, attribute)                                                    \
    KERNEL(f64_##suffix, f64_body, attribute)                                                      \
    KERNEL(q8_0_##suffix, q8_0, attribute)                                                         \
    KERNEL(q4_0_##suffix, q4_0, attribute)                                                         \
    KERNEL(q4_1_##suffix, q4_1, attribute)                                                         \
    static const fl_widen_function suffix##_table[FL_DTYPE_COUNT] = {                              \
        [FL_DTYPE_F16] = f16_##suffix,                                                             \
        [FL_DTYPE_BF16] = bf16_##suffix,                                                           \
        [FL_DTYPE_F64] = f64_##suffix,                                                             \
        [FL_DTYPE_Q8_0] = q8_0_##suffix,                                                           \
        [FL_DTYPE_Q4_0] = q4_0_##suffix,                                                           \
        [FL_DTYPE_Q4_1] = q4_1_##suffix,                                                           \
        [FL_DTYPE_Q5_0] = fl_widen_q5_0_##suffix,                                                  \
        [FL_DTYPE_Q5_1] = fl_widen_q5_1_##suffix,                                                  \
        [FL_DTYPE_Q4_K] = fl_widen_q4_k_##suffix,                                                  \
        [FL_DTYPE_Q5_K] = fl_widen_q5_k_##suffix,                                                  \
        [FL_DTYPE_Q6_K] = fl_widen_q6_k_##suffix,                                                  \
    };

KERNELS(scalar, , f16_body, q8_0_body, q4_0_body, q4_1_body)

#if HAVE_X86
/* widen_half() for eight at once: the same integer steps and the same one multiplication */
AVX2 static inline void f16_body_avx2(const uint8_t *src, size_t count, float *out)
{
    const __m256i exponent = _mm256_set1_epi32(0x7c00), infinite = _mm256_set1_epi32(0x7f800000);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(src + 2 * i)));
        __m256i sign = _mm256_slli_epi32(_mm256_and_si256(h, _mm256_set1_epi32(0x8000)), 16);
        __m256i size = _mm256_slli_epi32(_mm256_and_si256(h, _mm256_set1_epi32(0x7fff)), 13);
        __m256i huge = _mm256_cmpeq_epi32(_mm256_and_si256(h, exponent), exponent);
        __m256 scaled = _mm256_mul_ps(_mm256_castsi256_ps(size), _mm256_set1_ps(0x1p112f));
        __m256i bits = _mm256_blendv_epi8(_mm256_castps_si256(scaled),
                                          _mm256_or_si256(size, infinite), huge);
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_or_si256(bits, sign)));
    }
    f16_body(src + 2 * i, count - i, out + i);
}

/* The nibbles of 16 bytes: those below, then those above. */
AVX2 static inline void nibbles(const uint8_t *src, __m128i half[2])
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)src);
    half[0] = _mm_and_si128(bytes, _mm_set1_epi8(15));
    half[1] = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
}

AVX2 static inline void q8_0_body_avx2(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 34, out += 32) {
        __m256 d = _mm256_set1_ps(half_at(src));
        for (int i = 0; i < 32; i += 8) {
            __m128i q = _mm_loadl_epi64((const __m128i *)(src + 2 + i));
            __m256 value = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
            _mm256_storeu_ps(out + i, _mm256_mul_ps(d, value));
        }
    }
}

AVX2 static inline void q4_0_body_avx2(const uint8_t *src, size_t count, float *out)
{
    const __m256i eight = _mm256_set1_epi32(8);
    for (size_t block = 0; block < count / 32; block++, src += 18, out += 32) {
        __m128i half[2];
        __m256 d = _mm256_set1_ps(half_at(src));
        nibbles(src + 2, half);
        for (int i = 0; i < 4; i++) {
            __m128i eights = i % 2 ? _mm_srli_si128(half[i / 2], 8) : half[i / 2];
            __m256i q = _mm256_sub_epi32(_mm256_cvtepu8_epi32(eights), eight);
            _mm256_storeu_ps(out + 8 * i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(q)));
        }
    }
}

AVX2 static inline void q4_1_body_avx2(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 20, out += 32) {
        __m128i half[2];
        __m256 d = _mm256_set1_ps(half_at(src)), m = _mm256_set1_ps(half_at(src + 2));
        nibbles(src + 4, half);
        for (int i = 0; i < 4; i++) {
            __m128i eights = i % 2 ? _mm_srli_si128(half[i / 2], 8) : half[i / 2];
            __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eights));
            _mm256_storeu_ps(out + 8 * i, _mm256_add_ps(_mm256_mul_ps(d, q), m));
        }
    }
}

AVX512 static inline void q8_0_body_avx512(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 34, out += 32) {
        __m512 d = _mm512_set1_ps(half_at(src));
        for (int i = 0; i < 32; i += 16) {
            __m128i q = _mm_loadu_si128((const __m128i *)(src + 2 + i));
            __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
            _mm512_storeu_ps(out + i, _mm512_mul_ps(d, value));
        }
    }
}

AVX512 static inline void q4_0_body_avx512(const uint8_t *src, size_t count, float *out)
{
    const __m512i eight = _mm512_set1_epi32(8);
    for (size_t block = 0; block < count / 32; block++, src += 18, out += 32) {
        __m128i half[2];
        __m512 d = _mm512_set1_ps(half_at(src));
        nibbles(src + 2, half);
        for (int i = 0; i < 2; i++) {
            __m512i q = _mm512_sub_epi32(_mm512_cvtepu8_epi32(half[i]), eight);
            _mm512_storeu_ps(out + 16 * i, _mm512_mul_ps(d, _mm512_cvtepi32_ps(q)));
        }
    }
}

AVX512 static inline void q4_1_body_avx512(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 20, out += 32) {
        __m128i half[2];
        __m512 d = _mm512_set1_ps(half_at(src)), m = _mm512_set1_ps(half_at(src + 2));
        nibbles(src + 4, half);
        for (int i = 0; i < 2; i++) {
            __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(half[i]));
            _mm512_storeu_ps(out + 16 * i, _mm512_add_ps(_mm512_mul_ps(d, q), m));
        }
    }
}

KERNELS(avx2, AVX2, f16_body_avx2, q8_0_body_avx2, q4_0_body_avx2, q4_1_body_avx2)
KERNELS(avx512, AVX512, f16_body, q8_0_body_avx512, q4_0_body_avx512, q4_1_body_avx512)
#endif

static enum fl_unit find_unit(void)
{
    const char *wanted = getenv("FL_KERNELS");
    if (wanted && strcmp(wanted, "scalar") == 0)
        return FL_UNIT_SCALAR;
#if HAVE_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        !(wanted && strcmp(wanted, "avx2") == 0))
        return FL_UNIT_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return FL_UNIT_AVX2;
#endif
    return FL_UNIT_SCALAR;
}

enum fl_unit fl_dtype_unit(void)
{
    static int chosen = -1;
    int unit = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (unit < 0) {
        unit = (int)find_unit();
        __atomic_store_n(&chosen, unit, __ATOMIC_RELAXED);
    }
    return (enum fl_unit)unit;
}

void fl_dtype_widen(enum fl_dtype dtype, const void *src, size_t count, float *out)
{
    static const fl_widen_function *const TABLES[] = {
        [FL_UNIT_SCALAR] = scalar_table,
#if HAVE_X86
        [FL_UNIT_AVX2] = avx2_table,
        [FL_UNIT_AVX512] = avx512_table,
#endif
    };
    assert(fl_dtype_is_float(dtype));
    if (dtype == FL_DTYPE_F32)
        memcpy(out, src, count * sizeof(*out));
    else
        TABLES[fl_dtype_unit()][dtype](src, count, out);
}
