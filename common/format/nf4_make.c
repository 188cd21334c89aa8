/*
 * nf4_make.c - floats to NF4, in the steps of bitsandbytes: a whole block is multiplied by the
 * reciprocal of its largest magnitude, the short block at the end is divided by it; the nibble is
 * the number of midpoints below. Scales are quantised on a grid of 65,536 steps, as its CPU code
 * does it; the offset that is taken from them first is their mean.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "format/dtype_internal.h"
#include "format/nf4_internal.h"

#define SMALLEST 1e-38f /* instead of a scale of 0 */

enum { PACKED, SCALES, NESTED };

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

enum fl_status fl_nf4_begin(struct fl_nf4 *self, uint64_t rows, uint64_t columns,
                            enum fl_dtype rounding, struct fl_error *error)
{
    assert(rows <= UINT32_MAX && columns <= UINT32_MAX);
    const bool rounded = rounding == FL_DTYPE_F16 || rounding == FL_DTYPE_BF16;
    *self = (struct fl_nf4){.rows = rows,
                            .columns = columns,
                            .block = FL_NF4_BLOCK,
                            .blocks = ceil_div(rows * columns, FL_NF4_BLOCK),
                            .nested_block = FL_NF4_NESTED_BLOCK,
                            .rounding = rounded ? rounding : FL_DTYPE_F32};
    self->owned[PACKED] = fl_malloc((size_t)ceil_div(rows * columns, 2));
    self->owned[SCALES] = fl_calloc((size_t)self->blocks, sizeof(float));
    self->packed = self->owned[PACKED];
    self->scales = self->owned[SCALES];
    if (self->packed && self->scales)
        return FL_OK;
    fl_nf4_free(self);
    return fl_fail_memory(error);
}

/* ---- one block ---- */

INLINE float clamp(float value)
{
    return value < -1.0f ? -1.0f : value > 1.0f ? 1.0f : value;
}

/* The largest magnitude's bits, which order as the magnitudes do, NaN above infinity. */
INLINE uint32_t largest_body(const float values[FL_NF4_BLOCK])
{
    int32_t largest = 0;
    for (unsigned i = 0; i < FL_NF4_BLOCK; i++) {
        const int32_t bits = (int32_t)(bits_of_float(values[i]) & 0x7fffffffu);
        largest = bits > largest ? bits : largest;
    }
    return (uint32_t)largest;
}

/* A nibble is the number of midpoints between neighbouring codes that are below the value. */
INLINE void encode_body(const float scaled[FL_NF4_BLOCK], uint8_t packed[FL_NF4_BLOCK / 2])
{
    int32_t below[FL_NF4_BLOCK] = {0};
    for (unsigned k = 0; k < 15; k++) {
        const float middle = (fl_nf4_code[k] + fl_nf4_code[k + 1]) / 2.0f;
        for (unsigned i = 0; i < FL_NF4_BLOCK; i++)
            below[i] += scaled[i] > middle;
    }
    for (unsigned i = 0; i < FL_NF4_BLOCK / 2; i++)
        packed[i] = (uint8_t)(below[2 * i] << 4 | below[2 * i + 1]);
}

/*
 * A block of count values, filled up with zeros; *scale is its largest magnitude. A short block is
 * divided by it, a whole one multiplied by the reciprocal. false: a value is not finite.
 */
INLINE bool block_body(const float values[FL_NF4_BLOCK], size_t count,
                       uint8_t packed[FL_NF4_BLOCK / 2], float *scale)
{
    float scaled[FL_NF4_BLOCK];
    const float largest = float_of_bits(largest_body(values));
    const float divisor = largest > SMALLEST ? largest : SMALLEST, factor = 1.0f / divisor;
    if (!(largest < INFINITY))
        return false;
    if (count == FL_NF4_BLOCK) {
        for (unsigned i = 0; i < FL_NF4_BLOCK; i++)
            scaled[i] = clamp(values[i] * factor);
        *scale = largest;
    } else {
        for (unsigned i = 0; i < FL_NF4_BLOCK; i++)
            scaled[i] = clamp(values[i] / divisor);
        *scale = divisor;
    }
    encode_body(scaled, packed);
    return true;
}

typedef bool (*block_function)(const float values[FL_NF4_BLOCK], size_t count,
                               uint8_t packed[FL_NF4_BLOCK / 2], float *scale);

#define BLOCK_KERNEL(name, attribute)                                                              \
    attribute static bool name(const float values[FL_NF4_BLOCK], size_t count,                     \
                               uint8_t packed[FL_NF4_BLOCK / 2], float *scale)                     \
    {                                                                                              \
        return block_body(values, count, packed, scale);                                           \
    }

BLOCK_KERNEL(block_scalar, )
#if HAVE_X86
BLOCK_KERNEL(block_avx2, AVX2)
BLOCK_KERNEL(block_avx512, AVX512)
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

static bool put_short(block_function put_block, const float *values, size_t count, uint8_t *packed,
                      float *scale)
{
    float filled[FL_NF4_BLOCK] = {0};
    uint8_t bytes[FL_NF4_BLOCK / 2];
    memcpy(filled, values, count * sizeof *values);
    if (!put_block(filled, count, bytes, scale))
        return false;
    memcpy(packed, bytes, (count + 1) / 2);
    return true;
}

enum fl_status fl_nf4_put(struct fl_nf4 *self, uint64_t first, const float *values, size_t count,
                          struct fl_error *error)
{
    uint8_t *packed = self->owned[PACKED];
    float *scales = self->owned[SCALES];
    assert(first % FL_NF4_BLOCK == 0 && first + count <= self->rows * self->columns);
    assert(count % FL_NF4_BLOCK == 0 || first + count == self->rows * self->columns);
    const block_function put_block = choose();
    bool fine = true;
    for (size_t at = 0; fine && at < count; at += FL_NF4_BLOCK) {
        const size_t here = count - at < FL_NF4_BLOCK ? count - at : FL_NF4_BLOCK;
        uint8_t *to = packed + (first + at) / 2;
        float *scale = scales + (first + at) / FL_NF4_BLOCK;
        fine = here == FL_NF4_BLOCK ? put_block(values + at, here, to, scale)
                                    : put_short(put_block, values + at, here, to, scale);
    }
    if (!fine)
        return fl_fail(error, FL_EFORMAT, "a value is not finite: NF4 can't hold it");
    return FL_OK;
}

/* ---- scales ---- */

/*
 * The mean in PyTorch's order of additions, so that its last bit is the same: eight lanes of four
 * rows each, in partial sums of four levels that are folded into the next one every `step` items.
 */
enum { LANES = 8, ROWS = 4, LEVELS = 4 };

typedef float lane_sums[ROWS][LANES];

static uint32_t ceil_log2(uint64_t value)
{
    uint32_t bits = 0;
    while (((uint64_t)1 << bits) < value)
        bits++;
    return bits;
}

static void add_lanes(lane_sums to, const float *from)
{
    for (int row = 0; row < ROWS; row++) {
        for (int lane = 0; lane < LANES; lane++)
            to[row][lane] += from[row * LANES + lane];
    }
}

/* values of items * ROWS * LANES */
static void cascade(const float *values, size_t items, lane_sums out)
{
    lane_sums level[LEVELS] = {{{0}}};
    const uint32_t power = ceil_log2(items) / LEVELS > 4 ? ceil_log2(items) / LEVELS : 4;
    const size_t step = (size_t)1 << power;
    size_t at = 0;
    while (items - at >= step) {
        for (size_t end = at + step; at < end; at++)
            add_lanes(level[0], values + at * ROWS * LANES);
        for (uint32_t j = 1; j < LEVELS; j++) {
            add_lanes(level[j], level[j - 1][0]);
            memset(level[j - 1], 0, sizeof level[j - 1]);
            if ((at & (step - 1) << (j * power)) != 0)
                break;
        }
    }
    for (; at < items; at++)
        add_lanes(level[0], values + at * ROWS * LANES);
    for (uint32_t j = 1; j < LEVELS; j++)
        add_lanes(level[0], level[j][0]);
    memcpy(out, level[0], sizeof level[0]);
}

static float mean_of(const float *values, size_t count)
{
    const size_t vectors = count / LANES, items = vectors / ROWS;
    lane_sums sums;
    float total = 0.0f;
    cascade(values, items, sums);
    for (size_t i = items * ROWS; i < vectors; i++) {
        for (int lane = 0; lane < LANES; lane++)
            sums[0][lane] += values[i * LANES + lane];
    }
    for (int row = 1; row < ROWS; row++) {
        for (int lane = 0; lane < LANES; lane++)
            sums[0][lane] += sums[row][lane];
    }
    for (size_t i = vectors * LANES; i < count; i++)
        total += values[i];
    for (int lane = 0; lane < LANES; lane++)
        total += sums[0][lane];
    return total / (float)count;
}

/* The index of the map's value that is nearest to the grid point of a value in [-1, 1]. */
static uint8_t nearest(const float map[256], float value)
{
    const uint32_t step = (uint32_t)((clamp(value) + 1.0f) * 0.5f * 65535.0f + 0.5f);
    const float point = -1.0f + 2.0f * (float)step / 65535.0f;
    int low = 0, high = 255; /* midpoints below the point */
    while (low < high) {
        const int middle = (low + high) / 2;
        if (0.5f * (map[middle] + map[middle + 1]) < point)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)low;
}

static float quantise_scales(const float map[256], const float *scales, size_t count, float offset,
                             uint8_t *codes)
{
    float largest = 0.0f;
    for (size_t i = 0; i < count; i++) {
        const float size = fabsf(scales[i] - offset);
        largest = size > largest ? size : largest;
    }
    const float factor = largest > 0.0f ? 1.0f / largest : 0.0f;
    for (size_t i = 0; i < count; i++)
        codes[i] = largest > 0.0f ? nearest(map, (scales[i] - offset) * factor) : 0;
    return largest;
}

enum fl_status fl_nf4_finish(struct fl_nf4 *self, struct fl_error *error)
{
    const size_t blocks = (size_t)self->blocks;
    float *scales = self->owned[SCALES];
    uint8_t *codes = fl_malloc(blocks);
    float *nested = fl_calloc((size_t)ceil_div(blocks, FL_NF4_NESTED_BLOCK), sizeof *nested);
    if (!codes || !nested) {
        fl_free(codes);
        fl_free(nested);
        fl_nf4_free(self);
        return fl_fail_memory(error);
    }
    self->offset = blocks ? mean_of(scales, blocks) : 0.0f;
    fl_nf4_dynamic_map(self->nested_map);
    for (size_t at = 0; at < blocks; at += FL_NF4_NESTED_BLOCK) {
        const size_t here = blocks - at < FL_NF4_NESTED_BLOCK ? blocks - at : FL_NF4_NESTED_BLOCK;
        nested[at / FL_NF4_NESTED_BLOCK] = quantise_scales(self->nested_map, scales + at, here,
                                                           self->offset, codes + at);
    }
    fl_free(scales);
    self->scales = NULL;
    self->owned[SCALES] = codes;
    self->owned[NESTED] = nested;
    self->codes = codes;
    self->nested_scales = self->owned[NESTED];
    return FL_OK;
}
