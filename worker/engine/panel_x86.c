/*
 * panel_x86.c - stored blocks straight to pairs of bfloat16: what narrow() makes of widened values,
 * without writing the widened ones. The float32 steps are those of dtype.h, none of them fused.
 *
 * A block of four bits holds sixteen different values: they are computed once and looked up.
 */
#include <immintrin.h>
#include <string.h>

#include "worker/engine/gemm_internal.h"

static float half_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return _cvtsh_ss(half);
}

/* 32 values in the order of GGUF: the low nibbles of 16 bytes, then the high ones. */
static void look_up(const uint8_t *bytes, __m512 values, uint8_t *out)
{
    const __m128i low = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    const __m256i both = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(low, 4), low),
                                          _mm256_set1_epi8(15));
    const __m512i table = _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(values));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(both), table));
}

static __m512 counting(float first)
{
    return _mm512_add_ps(_mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_ps(first));
}

static void q4_0(const uint8_t *src, size_t count, uint8_t *out)
{
    const __m512 steps = counting(-8.0f);
    for (size_t i = 0; i < count; i += 32, src += 18, out += 64)
        look_up(src + 2, _mm512_mul_ps(_mm512_set1_ps(half_at(src)), steps), out);
}

static void q4_1(const uint8_t *src, size_t count, uint8_t *out)
{
    const __m512 steps = counting(0.0f);
    for (size_t i = 0; i < count; i += 32, src += 20, out += 64) {
        const __m512 scaled = _mm512_mul_ps(_mm512_set1_ps(half_at(src)), steps);
        look_up(src + 4, _mm512_add_ps(scaled, _mm512_set1_ps(half_at(src + 2))), out);
    }
}

static void put(__m512 low, __m512 high, uint8_t *out)
{
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

static void q8_0(const uint8_t *src, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i += 32, src += 34, out += 64) {
        const __m512 d = _mm512_set1_ps(half_at(src));
        const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)(src + 2));
        const __m512i low = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(q));
        const __m512i high = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(q, 1));
        put(_mm512_mul_ps(d, _mm512_cvtepi32_ps(low)), _mm512_mul_ps(d, _mm512_cvtepi32_ps(high)),
            out);
    }
}

static void f16(const uint8_t *src, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i += 32, src += 64, out += 64)
        put(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)src)),
            _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(src + 32))), out);
}

static void bf16(const uint8_t *src, size_t count, uint8_t *out)
{
    memcpy(out, src, 2 * count);
}

bool fl_panel_widen_pairs(enum fl_dtype dtype, const uint8_t *src, size_t count, float *out)
{
    static void (*const KNOWN[FL_DTYPE_COUNT])(const uint8_t *, size_t, uint8_t *) = {
        [FL_DTYPE_F16] = f16,   [FL_DTYPE_BF16] = bf16, [FL_DTYPE_Q8_0] = q8_0,
        [FL_DTYPE_Q4_0] = q4_0, [FL_DTYPE_Q4_1] = q4_1,
    };
    if (!KNOWN[dtype] || count % 32 != 0)
        return false;
    KNOWN[dtype](src, count, (uint8_t *)out);
    return true;
}
