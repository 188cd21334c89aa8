/*
 * dtype_internal.h - what the files that widen share: exact steps on one value, and the targets
 * that a kernel is compiled for.
 */
#ifndef FL_FORMAT_DTYPE_INTERNAL_H
#define FL_FORMAT_DTYPE_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#include <immintrin.h>
#define AVX2   __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define HAVE_X86 0
#endif

#define INLINE static inline __attribute__((always_inline))

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

INLINE float half_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return widen_half(half);
}

/* The vector units that kernels are compiled for; which one is chosen once a process. */
enum fl_unit { FL_UNIT_SCALAR, FL_UNIT_AVX2, FL_UNIT_AVX512 };
enum fl_unit fl_dtype_unit(void);

/* count values, a multiple of the block, from src at any alignment */
typedef void (*fl_widen_function)(const uint8_t *src, size_t count, float *out);

#define KERNEL(name, body, attribute)                                                              \
    attribute static void name(const uint8_t *src, size_t count, float *out)                       \
    {                                                                                              \
        body(src, count, out);                                                                     \
    }

/* dtype_blocks.c, once for each target */
#define FL_BLOCK_KERNELS(suffix)                                                                   \
    void fl_widen_q5_0_##suffix(const uint8_t *src, size_t count, float *out);                     \
    void fl_widen_q5_1_##suffix(const uint8_t *src, size_t count, float *out);                     \
    void fl_widen_q4_k_##suffix(const uint8_t *src, size_t count, float *out);                     \
    void fl_widen_q5_k_##suffix(const uint8_t *src, size_t count, float *out);                     \
    void fl_widen_q6_k_##suffix(const uint8_t *src, size_t count, float *out);

FL_BLOCK_KERNELS(scalar)
#if HAVE_X86
FL_BLOCK_KERNELS(avx2)
FL_BLOCK_KERNELS(avx512)
#endif

#endif
