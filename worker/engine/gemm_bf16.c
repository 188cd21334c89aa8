/* gemm_bf16.c - gemm_kernel.h on pairs of bfloat16 (AVX512-BF16), and what AMX shares of it. */
#include <immintrin.h>
#include <stdint.h>

#define FL_GEMM_LANES   16
#define FL_GEMM_ROWS    8
#define FL_GEMM_VECTORS 3
#define FL_GEMM_NAME    fl_gemm_bf16_tiles
#define FL_GEMM_TEXT    "avx512-bf16"
#define FL_GEMM_STEP(sum, a, w)                                                                    \
    ((vec)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_ps(a), (__m512bh)(__m512)(w)))

#include "worker/engine/gemm_internal.h"
#include "worker/engine/gemm_kernel.h"

/* Lanes of the last vector of n values. */
static __mmask16 mask_of(size_t n, size_t at)
{
    const size_t left = n > at ? n - at : 0;
    return (__mmask16)(0xffffu >> (left < 16 ? 16 - left : 0));
}

static void narrow(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = mask_of(n, i);
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
        _mm256_mask_storeu_epi16((uint16_t *)(void *)out + i, mask, (__m256i)half);
    }
}

static __m512i bits_of(const float *x, size_t n, size_t at)
{
    const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask_of(n, at), x + at));
    return _mm512_cvtepu16_epi32((__m256i)half);
}

static void pair(const float *even, const float *odd, size_t n, size_t width, float *out)
{
    for (size_t j = 0; j < width; j += 16) {
        const __m512i high = _mm512_slli_epi32(bits_of(odd, n, j), 16);
        _mm512_storeu_si512(out + j, _mm512_or_si512(bits_of(even, n, j), high));
    }
}

static __m512i words_of(const float *units, size_t n, size_t at)
{
    const uint16_t *words = (const uint16_t *)(const void *)units;
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask_of(n, at), words + at));
}

static void pair_narrow(const float *even, const float *odd, size_t n, size_t width, float *out)
{
    for (size_t j = 0; j < width; j += 16) {
        const __m512i high = _mm512_slli_epi32(words_of(odd, n, j), 16);
        _mm512_storeu_si512(out + j, _mm512_or_si512(words_of(even, n, j), high));
    }
}

const struct fl_gemm_bf16 fl_gemm_avx512_bf16 = {.tiles = &fl_gemm_bf16_tiles,
                                                 .narrow = narrow,
                                                 .widen = fl_panel_widen_pairs,
                                                 .pair = pair,
                                                 .pair_narrow = pair_narrow};

const struct fl_gemm_kernel fl_gemm_amx_tiles = {.name = "amx",
                                                 .lanes = LANES,
                                                 .columns = STRIP,
                                                 .strip = fl_gemm_amx_strip,
                                                 .pack = pack,
                                                 .pack_turned = pack_turned,
                                                 .dots = dots};
const struct fl_gemm_bf16 fl_gemm_amx_bf16 = {.tiles = &fl_gemm_amx_tiles,
                                              .narrow = narrow,
                                              .widen = fl_panel_widen_pairs,
                                              .pair = pair,
                                              .pair_narrow = pair_narrow};
