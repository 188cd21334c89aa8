/* nf4.c - see nf4.h: tables, and widening. */
#include "format/nf4.h"

#include <assert.h>

#include "base/alloc.h"
#include "format/dtype_internal.h"
#include "format/nf4_internal.h"

const float fl_nf4_code[16] = {-1.0f,
                               -0.6961928009986877f,
                               -0.5250730514526367f,
                               -0.39491748809814453f,
                               -0.28444138169288635f,
                               -0.18477343022823334f,
                               -0.09105003625154495f,
                               0.0f,
                               0.07958029955625534f,
                               0.16093020141124725f,
                               0.24611230194568634f,
                               0.33791524171829224f,
                               0.44070982933044434f,
                               0.5626170039176941f,
                               0.7229568362236023f,
                               1.0f};

/* The positive half: decades cut into 1, 2, 4, ... 64 steps, and 1; -1 has no place below. */
static const float DYNAMIC[128] = {
    0x1.27476ep-21f, 0x1.b43528p-19f, 0x1.040bfep-17f, 0x1.64840cp-16f, 0x1.6f0068p-15f,
    0x1.15df66p-14f, 0x1.743e96p-14f, 0x1.47ae16p-13f, 0x1.19ce0ap-12f, 0x1.8fc506p-12f,
    0x1.02de02p-11f, 0x1.3dd982p-11f, 0x1.78d5p-11f,   0x1.b3d07cp-11f, 0x1.eecbfep-11f,
    0x1.4fdf3ap-10f, 0x1.e353f8p-10f, 0x1.3b645ap-9f,  0x1.851eb8p-9f,  0x1.ced914p-9f,
    0x1.0c49bap-8f,  0x1.3126e8p-8f,  0x1.56041ap-8f,  0x1.7ae148p-8f,  0x1.9fbe76p-8f,
    0x1.c49ba6p-8f,  0x1.e978d4p-8f,  0x1.072b02p-7f,  0x1.19999ap-7f,  0x1.2c083p-7f,
    0x1.3e76c8p-7f,  0x1.75c29p-7f,   0x1.d1eb86p-7f,  0x1.170a3ep-6f,  0x1.451ebap-6f,
    0x1.733334p-6f,  0x1.a147aep-6f,  0x1.cf5c2ap-6f,  0x1.fd70a4p-6f,  0x1.15c29p-5f,
    0x1.2ccccep-5f,  0x1.43d70ap-5f,  0x1.5ae146p-5f,  0x1.71eb86p-5f,  0x1.88f5c2p-5f,
    0x1.ap-5f,       0x1.b70a3ep-5f,  0x1.ce147ap-5f,  0x1.e51ebap-5f,  0x1.fc28f6p-5f,
    0x1.09999ap-4f,  0x1.151ebap-4f,  0x1.20a3d6p-4f,  0x1.2c28f6p-4f,  0x1.37ae14p-4f,
    0x1.433334p-4f,  0x1.4eb854p-4f,  0x1.5a3d7p-4f,   0x1.65c29p-4f,   0x1.7147aep-4f,
    0x1.7ccccep-4f,  0x1.8851eep-4f,  0x1.93d70ap-4f,  0x1.b66668p-4f,  0x1.fp-4f,
    0x1.14ccccp-3f,  0x1.31999ap-3f,  0x1.4e6666p-3f,  0x1.6b3334p-3f,  0x1.88p-3f,
    0x1.a4ccccp-3f,  0x1.c1999ap-3f,  0x1.de6666p-3f,  0x1.fb3332p-3f,  0x1.0cp-2f,
    0x1.1a6668p-2f,  0x1.28ccccp-2f,  0x1.373334p-2f,  0x1.459998p-2f,  0x1.54p-2f,
    0x1.626666p-2f,  0x1.70ccccp-2f,  0x1.7f3334p-2f,  0x1.8d9998p-2f,  0x1.9cp-2f,
    0x1.aa6666p-2f,  0x1.b8ccccp-2f,  0x1.c73334p-2f,  0x1.d59998p-2f,  0x1.e4p-2f,
    0x1.f26664p-2f,  0x1.006666p-1f,  0x1.079998p-1f,  0x1.0eccccp-1f,  0x1.16p-1f,
    0x1.1d3334p-1f,  0x1.246668p-1f,  0x1.2b999ap-1f,  0x1.32ccccp-1f,  0x1.3ap-1f,
    0x1.413334p-1f,  0x1.486668p-1f,  0x1.4f999ap-1f,  0x1.56ccccp-1f,  0x1.5ep-1f,
    0x1.653334p-1f,  0x1.6c6668p-1f,  0x1.73999ap-1f,  0x1.7accccp-1f,  0x1.82p-1f,
    0x1.893334p-1f,  0x1.906666p-1f,  0x1.97999ap-1f,  0x1.9eccccp-1f,  0x1.a6p-1f,
    0x1.ad3334p-1f,  0x1.b46666p-1f,  0x1.bb999ap-1f,  0x1.c2ccccp-1f,  0x1.cap-1f,
    0x1.d13334p-1f,  0x1.d86666p-1f,  0x1.df999ap-1f,  0x1.e6ccccp-1f,  0x1.eep-1f,
    0x1.f53334p-1f,  0x1.fc6666p-1f,  0x1p0f};

void fl_nf4_dynamic_map(float map[256])
{
    for (int i = 0; i < 127; i++)
        map[i] = -DYNAMIC[126 - i];
    map[127] = 0.0f;
    memcpy(map + 128, DYNAMIC, sizeof DYNAMIC);
}

/* ---- one block ---- */

/* pairs bytes -> 2 pairs values */
INLINE void lookup_body(const uint8_t *packed, size_t pairs, float scale, float *out)
{
    for (size_t i = 0; i < pairs; i++) {
        out[2 * i] = fl_nf4_code[packed[i] >> 4] * scale;
        out[2 * i + 1] = fl_nf4_code[packed[i] & 15] * scale;
    }
}

INLINE void round_bf16_body(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of_float(values[i]);
        values[i] = float_of_bits((bits + 0x7fffu + ((bits >> 16) & 1)) & 0xffff0000u);
    }
}

/* Through binary16: the addition of 0.5 rounds what is subnormal there. */
INLINE void round_f16_body(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = bits_of_float(values[i]), a = bits & 0x7fffffffu;
        const uint32_t normal = (a + 0xfffu + ((a >> 13) & 1)) & 0xffffe000u;
        const uint32_t small = bits_of_float(float_of_bits(a) + 0.5f - 0.5f);
        const uint32_t rounded = a < 0x38800000u ? small : normal;
        const uint32_t kept = a >= 0x477ff000u ? 0x7f800000u : rounded;
        values[i] = float_of_bits(kept | (bits & 0x80000000u));
    }
}

INLINE void round_body(enum fl_dtype dtype, float *values, size_t count)
{
    if (dtype == FL_DTYPE_BF16)
        round_bf16_body(values, count);
    else if (dtype == FL_DTYPE_F16)
        round_f16_body(values, count);
}

typedef void (*block_function)(const uint8_t *packed, size_t pairs, float scale,
                               enum fl_dtype rounding, float *out);

#define BLOCK_KERNEL(name, lookup, attribute)                                                      \
    attribute static void name(const uint8_t *packed, size_t pairs, float scale,                   \
                               enum fl_dtype rounding, float *out)                                 \
    {                                                                                              \
        lookup(packed, pairs, scale, out);                                                         \
        round_body(rounding, out, 2 * pairs);                                                      \
    }

BLOCK_KERNEL(block_scalar, lookup_body, )

#if HAVE_X86
/* The nibbles of eight bytes in the order of their values. */
AVX2 static inline __m128i nibbles_of(const uint8_t *packed)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)packed), mask = _mm_set1_epi8(15);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask);
    return _mm_unpacklo_epi8(high, _mm_and_si128(bytes, mask));
}

AVX2 static inline void lookup_avx2(const uint8_t *packed, size_t pairs, float scale, float *out)
{
    const __m256 below = _mm256_loadu_ps(fl_nf4_code), above = _mm256_loadu_ps(fl_nf4_code + 8);
    const __m256 scales = _mm256_set1_ps(scale);
    size_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        const __m128i q = nibbles_of(packed + i);
        for (int half = 0; half < 2; half++) {
            const __m256i index = _mm256_cvtepu8_epi32(half ? _mm_srli_si128(q, 8) : q);
            const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
            const __m256 value = _mm256_blendv_ps(_mm256_permutevar8x32_ps(below, index),
                                                  _mm256_permutevar8x32_ps(above, index), upper);
            _mm256_storeu_ps(out + 2 * i + 8 * half, _mm256_mul_ps(value, scales));
        }
    }
    lookup_body(packed + i, pairs - i, scale, out + 2 * i);
}

AVX512 static inline void lookup_avx512(const uint8_t *packed, size_t pairs, float scale,
                                        float *out)
{
    const __m512 code = _mm512_loadu_ps(fl_nf4_code), scales = _mm512_set1_ps(scale);
    size_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        const __m512i index = _mm512_cvtepu8_epi32(nibbles_of(packed + i));
        _mm512_storeu_ps(out + 2 * i, _mm512_mul_ps(_mm512_permutexvar_ps(index, code), scales));
    }
    lookup_body(packed + i, pairs - i, scale, out + 2 * i);
}

BLOCK_KERNEL(block_avx2, lookup_avx2, AVX2)
BLOCK_KERNEL(block_avx512, lookup_avx512, AVX512)
#endif

static block_function choose(void)
{
    static const block_function TABLE[] = {
        [FL_UNIT_SCALAR] = block_scalar,
#if HAVE_X86
        [FL_UNIT_AVX2] = block_avx2,
        [FL_UNIT_AVX512] = block_avx512,
#endif
    };
    return TABLE[fl_dtype_unit()];
}

/* ---- ranges ---- */

INLINE float load_float(const uint8_t *p)
{
    float value;
    memcpy(&value, p, sizeof value);
    return value;
}

static float scale_of(const struct fl_nf4 *self, uint64_t block)
{
    if (self->scales)
        return load_float(self->scales + 4 * block);
    const float nested = load_float(self->nested_scales + 4 * (block / self->nested_block));
    const float scaled = self->nested_map[self->codes[block]] * nested;
    return scaled + self->offset;
}

/* One value, for the ends of a range that fill no byte. */
static float widen_one(const struct fl_nf4 *self, uint64_t at)
{
    const uint8_t byte = self->packed[at / 2];
    float value = fl_nf4_code[at % 2 ? byte & 15 : byte >> 4] * scale_of(self, at / self->block);
    round_body(self->rounding, &value, 1);
    return value;
}

void fl_nf4_widen(const struct fl_nf4 *self, uint64_t first, size_t count, float *out)
{
    const block_function widen_block = choose();
    const uint64_t total = self->rows * self->columns;
    assert(first <= total && count <= total - first);
    if (count > 0 && first % 2 != 0) {
        *out++ = widen_one(self, first++);
        count--;
    }
    while (count > 1) {
        const uint64_t block = first / self->block, end = (block + 1) * self->block;
        const size_t here = end - first < count ? (size_t)(end - first) : count & ~(size_t)1;
        widen_block(self->packed + first / 2, here / 2, scale_of(self, block), self->rounding, out);
        first += here;
        out += here;
        count -= here;
    }
    if (count > 0)
        *out = widen_one(self, first);
}

void fl_nf4_free(struct fl_nf4 *self)
{
    for (size_t i = 0; i < sizeof self->owned / sizeof *self->owned; i++)
        fl_free(self->owned[i]);
    *self = (struct fl_nf4){0};
}

uint64_t fl_nf4_bytes(const struct fl_nf4 *self)
{
    const uint64_t packed = (self->rows * self->columns + 1) / 2;
    if (self->scales)
        return packed + 4 * self->blocks;
    return packed + self->blocks +
           4 * ((self->blocks + self->nested_block - 1) / self->nested_block);
}
