/*
 * dtype_blocks.c - the stored types that keep their bits in several places: five-bit blocks of 32
 * values and super-blocks of 256 (Q4_K, Q5_K, Q6_K).
 *
 * One plain body a type, compiled once for each vector unit. Every loop has a fixed length of 16 or
 * 32 and no branch, so that the compiler turns it into vector code (five-bit blocks apart, which
 * have a body of their own on x86); all steps are exact or rounded
 * once in the order of the reference, so that every unit gives the same bits.
 * Source: GGUF's block layouts; the order of the float steps is that of the gguf package.
 */
#include "format/dtype_internal.h"

enum { SUPER = 256, SUB_BLOCKS = 8 };

INLINE uint32_t load_bits(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* 32 values of five bits: low nibbles, then high ones, with their fifth bits. */
INLINE void five_bits(const uint8_t *high, const uint8_t *nibbles, int32_t q[32])
{
    const uint32_t bits = load_bits(high);
    for (int i = 0; i < 16; i++)
        q[i] = (int32_t)((nibbles[i] & 15u) | (bits >> i & 1u) << 4);
    for (int i = 0; i < 16; i++)
        q[16 + i] = (int32_t)((nibbles[i] >> 4) | (bits >> (16 + i) & 1u) << 4);
}

/* 22 bytes: f16 d, 32 fifth bits, 16 bytes of nibbles; d (q - 16) */
INLINE void q5_0_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 22, out += 32) {
        int32_t q[32];
        const float d = half_at(src);
        five_bits(src + 2, src + 6, q);
        for (int i = 0; i < 32; i++)
            out[i] = d * (float)(q[i] - 16);
    }
}

/* 24 bytes: f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles; d q + m */
INLINE void q5_1_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 24, out += 32) {
        int32_t q[32];
        const float d = half_at(src), m = half_at(src + 2);
        five_bits(src + 4, src + 8, q);
        for (int i = 0; i < 32; i++)
            out[i] = d * (float)q[i] + m;
    }
}

/* f16 d, f16 dmin and 12 bytes of 6-bit numbers: scale and minimum of each sub-block of 32. */
INLINE void sub_scales(const uint8_t *src, float scale[SUB_BLOCKS], float minimum[SUB_BLOCKS])
{
    const float d = half_at(src), dmin = half_at(src + 2);
    const uint8_t *s = src + 4;
    for (int j = 0; j < 4; j++) {
        scale[j] = d * (float)(s[j] & 63);
        minimum[j] = dmin * (float)(s[j + 4] & 63);
        scale[j + 4] = d * (float)((s[j + 8] & 15) | (s[j] >> 6) << 4);
        minimum[j + 4] = dmin * (float)((s[j + 8] >> 4) | (s[j + 4] >> 6) << 4);
    }
}

/* 144 bytes: scales, 128 bytes of nibbles; 32 bytes hold sub-blocks 2k (low) and 2k + 1 (high). */
INLINE void q4_k_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / SUPER; block++, src += 144) {
        float scale[SUB_BLOCKS], minimum[SUB_BLOCKS];
        const uint8_t *q = src + 16;
        sub_scales(src, scale, minimum);
        for (int k = 0; k < SUB_BLOCKS; k += 2, q += 32, out += 64) {
            for (int i = 0; i < 32; i++)
                out[i] = scale[k] * (float)(q[i] & 15) - minimum[k];
            for (int i = 0; i < 32; i++)
                out[32 + i] = scale[k + 1] * (float)(q[i] >> 4) - minimum[k + 1];
        }
    }
}

/* 176 bytes: scales, 32 bytes whose bit k is the fifth bit of sub-block k, nibbles as in Q4_K. */
INLINE void q5_k_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / SUPER; block++, src += 176) {
        float scale[SUB_BLOCKS], minimum[SUB_BLOCKS];
        const uint8_t *high = src + 16, *q = src + 48;
        sub_scales(src, scale, minimum);
        for (int k = 0; k < SUB_BLOCKS; k += 2, q += 32, out += 64) {
            for (int i = 0; i < 32; i++)
                out[i] = scale[k] * (float)((q[i] & 15) | (high[i] >> k & 1) << 4) - minimum[k];
            for (int i = 0; i < 32; i++)
                out[32 + i] = scale[k + 1] * (float)((q[i] >> 4) | (high[i] >> (k + 1) & 1) << 4) -
                              minimum[k + 1];
        }
    }
}

/* Sixteen values of Q6_K: nibbles of low (shifted), bits of high (shifted), one scale. */
INLINE void six_bits(const uint8_t *low, int low_shift, const uint8_t *high, int high_shift,
                     float scale, float *out)
{
    for (int i = 0; i < 16; i++) {
        int32_t q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
        out[i] = scale * (float)(q - 32);
    }
}

/* 210 bytes: 128 bytes of nibbles, 64 of two-bit tops, 16 i8 scales (one for 16 values), f16 d. */
INLINE void q6_k_body(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / SUPER; block++, src += 210) {
        const uint8_t *low = src, *high = src + 128, *scales = src + 192;
        const float d = half_at(src + 208);
        for (int half = 0; half < 2; half++, low += 64, high += 32, scales += 8, out += 128) {
            for (int k = 0; k < 8; k++) { /* 16 values each */
                const float scale = d * (float)(int8_t)scales[k];
                six_bits(low + 16 * (k % 4), k < 4 ? 0 : 4, high + 16 * (k % 2), k / 2 * 2, scale,
                         out + 16 * k);
            }
        }
    }
}

#if HAVE_X86
/* The five-bit values of one block as bytes; compilers turn five_bits() into slow code. */
AVX2 static inline __m256i five_bits_avx2(const uint8_t *high, const uint8_t *nibbles)
{
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i others = _mm256_set1_epi64x(0x7fbfdfeff7fbfdfell);
    __m256i bits = _mm256_shuffle_epi8(_mm256_set1_epi32((int)load_bits(high)), spread);
    bits = _mm256_cmpeq_epi8(_mm256_or_si256(bits, others), _mm256_set1_epi8(-1));
    __m128i bytes = _mm_loadu_si128((const __m128i *)nibbles);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
    both = _mm256_and_si256(both, _mm256_set1_epi8(15));
    return _mm256_or_si256(both, _mm256_and_si256(bits, _mm256_set1_epi8(16)));
}

/* Values 8 part to 8 part + 7 of 32 signed bytes. */
AVX2 static inline __m256 eight_floats(__m256i bytes, int part)
{
    __m128i half = part < 2 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1);
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(part % 2 ? _mm_unpackhi_epi64(half, half) : half));
}

AVX2 static inline void q5_0_body_avx2(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 22, out += 32) {
        const __m256 d = _mm256_set1_ps(half_at(src));
        __m256i q = _mm256_sub_epi8(five_bits_avx2(src + 2, src + 6), _mm256_set1_epi8(16));
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(out + 8 * i, _mm256_mul_ps(d, eight_floats(q, i)));
    }
}

AVX2 static inline void q5_1_body_avx2(const uint8_t *src, size_t count, float *out)
{
    for (size_t block = 0; block < count / 32; block++, src += 24, out += 32) {
        const __m256 d = _mm256_set1_ps(half_at(src)), m = _mm256_set1_ps(half_at(src + 2));
        __m256i q = five_bits_avx2(src + 4, src + 8);
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(out + 8 * i, _mm256_add_ps(_mm256_mul_ps(d, eight_floats(q, i)), m));
    }
}
#endif

#define KERNELS(suffix, attribute, q5_0, q5_1)                                                     \
    PUBLIC(fl_widen_q5_0_##suffix, q5_0, attribute)                                                \
    PUBLIC(fl_widen_q5_1_##suffix, q5_1, attribute)                                                \
    PUBLIC(fl_widen_q4_k_##suffix, q4_k_body, attribute)                                           \
    PUBLIC(fl_widen_q5_k_##suffix, q5_k_body, attribute)                                           \
    PUBLIC(fl_widen_q6_k_##suffix, q6_k_body, attribute)
#define PUBLIC(name, body, attribute)                                                              \
    attribute void name(const uint8_t *src, size_t count, float *out)                              \
    {                                                                                              \
        body(src, count, out);                                                                     \
    }

KERNELS(scalar, , q5_0_body, q5_1_body)
#if HAVE_X86
KERNELS(avx2, AVX2, q5_0_body_avx2, q5_1_body_avx2)
KERNELS(avx512, AVX512, q5_0_body_avx2, q5_1_body_avx2)
#endif
