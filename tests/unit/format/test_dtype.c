/*
 * Goal: every stored value widens to the one float that it stands for, whatever vector unit the
 * machine has.
 * Method: all 65,536 halves against ldexp(); blocks by hand; each kernel set in a process of its
 * own (the choice is made once a process), compared bit by bit; rounding against a search.
 */
#include "format/dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

#define HALVES 65536

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* By the definition of binary16. */
static double half_by_definition(uint16_t half)
{
    int exponent = (half >> 10) & 31, mantissa = half & 1023;
    double sign = half & 0x8000 ? -1.0 : 1.0;
    if (exponent == 31)
        return mantissa ? NAN : sign * INFINITY;
    return exponent == 0 ? sign * ldexp(mantissa, -24)
                         : sign * ldexp(1024 + mantissa, exponent - 25);
}

START_TEST(every_half_has_the_value_that_ieee_754_gives_it)
{
    for (uint32_t h = 0; h < HALVES; h++) {
        double wanted = half_by_definition((uint16_t)h);
        float found = fl_f16_to_f32((uint16_t)h);
        if (isnan(wanted))
            ck_assert_msg(isnan(found), "half %04x", h);
        else
            ck_assert_msg(bits_of((float)wanted) == bits_of(found), "half %04x", h);
    }
}
END_TEST

START_TEST(a_half_comes_back_from_a_float_unchanged)
{
    for (uint32_t h = 0; h < HALVES; h++) {
        float value = fl_f16_to_f32((uint16_t)h);
        if (!isnan(value))
            ck_assert_uint_eq(fl_f32_to_f16(value), h);
        else
            ck_assert(isnan(fl_f16_to_f32(fl_f32_to_f16(value))));
        uint16_t b = (uint16_t)h;
        float wide = float_of((uint32_t)b << 16);
        if (!isnan(wide))
            ck_assert_uint_eq(fl_f32_to_bf16(wide), b);
        else
            ck_assert(isnan(float_of((uint32_t)fl_f32_to_bf16(wide) << 16)));
    }
}
END_TEST

/* The nearest half by comparing distances in double; the even one on a tie. */
static uint16_t nearest_half(double value)
{
    double size = fabs(value);
    uint16_t sign = signbit(value) ? 0x8000 : 0, low = 0, high = 0x7c00;
    while (high - low > 1) { /* half_by_definition() grows with the bits */
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (half_by_definition(middle) <= size)
            low = middle;
        else
            high = middle;
    }
    /* the step above the largest half is 65536: infinity stands there when rounding */
    double above = high == 0x7c00 ? 65536.0 : half_by_definition(high);
    double down = size - half_by_definition(low), up = above - size;
    uint16_t chosen = down < up || (down == up && low % 2 == 0) ? low : high;
    return sign | (size >= 65536.0 ? 0x7c00 : chosen);
}

START_TEST(floats_round_to_the_nearest_half_ties_to_even)
{
    static const float edges[] = {0.0f,       -0.0f,           1.0f,       65504.0f, 65519.996f,
                                  65520.0f,   65536.0f,        1e30f,      0x1p-24f, 0x1p-25f,
                                  0x1.8p-25f, 0x1.000002p-25f, 0x1.8p-24f, 0x1p-14f, 0x1.ffcp-15f,
                                  2049.0f,    2051.0f,         -2049.0f,   1e-30f,   -65520.0f};
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        ck_assert_msg(fl_f32_to_f16(edges[i]) == nearest_half((double)edges[i]), "%a",
                      (double)edges[i]);
    uint32_t state = 1;
    for (int i = 0; i < 200000; i++) {
        state = state * 1664525u + 1013904223u;
        /* exponents around those of halves */
        float value = float_of((state & 0x807fffffu) | ((100 + state % 47) << 23));
        ck_assert_msg(fl_f32_to_f16(value) == nearest_half((double)value), "%a gives %04x",
                      (double)value, fl_f32_to_f16(value));
    }
    ck_assert_uint_eq(fl_f32_to_f16(INFINITY), 0x7c00);
    ck_assert_uint_eq(fl_f32_to_f16(-INFINITY), 0xfc00);
}
END_TEST

START_TEST(floats_round_to_the_nearest_bfloat_ties_to_even)
{
    ck_assert_uint_eq(fl_f32_to_bf16(float_of(0x3f808000)), 0x3f80); /* tie, even below */
    ck_assert_uint_eq(fl_f32_to_bf16(float_of(0x3f818000)), 0x3f82); /* tie, even above */
    ck_assert_uint_eq(fl_f32_to_bf16(float_of(0x3f808001)), 0x3f81);
    ck_assert_uint_eq(fl_f32_to_bf16(float_of(0x3f807fff)), 0x3f80);
    ck_assert_uint_eq(fl_f32_to_bf16(float_of(0x7f7fffff)), 0x7f80); /* overflow: infinity */
    ck_assert_uint_eq(fl_f32_to_bf16(float_of(0x00000001)), 0x0000);
    ck_assert(isnan(float_of((uint32_t)fl_f32_to_bf16(float_of(0x7f800001)) << 16)));
}
END_TEST

START_TEST(blocks_of_eight_bits_hold_d_times_q)
{
    uint8_t block[34] = {0x00, 0x38}; /* d = 0.5 */
    float out[32];
    for (int i = 0; i < 32; i++)
        block[2 + i] = (uint8_t)(int8_t)(i * 8 - 128);
    fl_dtype_widen(FL_DTYPE_Q8_0, block, 32, out);
    for (int i = 0; i < 32; i++)
        ck_assert(out[i] == 0.5f * (float)(i * 8 - 128));
}
END_TEST

START_TEST(blocks_of_four_bits_hold_low_nibbles_first_less_eight)
{
    uint8_t block[18] = {0x00, 0x40}; /* d = 2 */
    float out[32];
    for (int i = 0; i < 16; i++)
        block[2 + i] = (uint8_t)(i | (15 - i) << 4);
    fl_dtype_widen(FL_DTYPE_Q4_0, block, 32, out);
    for (int i = 0; i < 16; i++) {
        ck_assert(out[i] == 2.0f * (float)(i - 8));
        ck_assert(out[16 + i] == 2.0f * (float)(15 - i - 8));
    }
}
END_TEST

START_TEST(blocks_of_four_bits_with_a_minimum_hold_d_q_plus_m)
{
    uint8_t block[20] = {0x00, 0xb8, 0x00, 0x3e}; /* d = -0.5, m = 1.5 */
    float out[32];
    for (int i = 0; i < 16; i++)
        block[4 + i] = (uint8_t)(i << 4 | (15 - i));
    fl_dtype_widen(FL_DTYPE_Q4_1, block, 32, out);
    for (int i = 0; i < 16; i++) {
        ck_assert(out[i] == -0.5f * (float)(15 - i) + 1.5f);
        ck_assert(out[16 + i] == -0.5f * (float)i + 1.5f);
    }
}
END_TEST

START_TEST(doubles_round_once_and_floats_are_copied)
{
    double wide[3] = {0.1, -1e300, 3.0};
    float narrow[3] = {0.1f, -0.0f, 1e-40f}, out[3];
    fl_dtype_widen(FL_DTYPE_F64, wide, 3, out);
    ck_assert(out[0] == 0.1f && isinf(out[1]) && out[2] == 3.0f);
    fl_dtype_widen(FL_DTYPE_F32, narrow, 3, out);
    ck_assert_int_eq(memcmp(narrow, out, sizeof(out)), 0);
}
END_TEST

/* What fl_dtype_widen() gives under FL_KERNELS=kernels, in memory shared with the child. */
static void widen_with(const char *kernels, enum fl_dtype dtype, const uint8_t *src, size_t count,
                       float *shared)
{
    int code;
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        setenv("FL_KERNELS", kernels, 1);
        fl_dtype_widen(dtype, src, count, shared);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &code, 0), child);
    ck_assert_int_eq(code, 0);
}

static void compare_kernels(enum fl_dtype dtype, const uint8_t *src, size_t count)
{
    size_t bytes = count * sizeof(float);
    float *shared = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                         0);
    ck_assert(shared != MAP_FAILED);
    widen_with("scalar", dtype, src, count, shared);
    static const char *const others[] = {"avx2", "auto"};
    for (int i = 0; i < 2; i++) {
        widen_with(others[i], dtype, src, count, shared + count);
        ck_assert_msg(memcmp(shared, shared + count, bytes) == 0, "%s, FL_KERNELS=%s",
                      fl_dtype_name(dtype), others[i]);
    }
    munmap(shared, 2 * bytes);
}

START_TEST(every_vector_unit_gives_the_bits_of_the_scalar_code)
{
    static uint8_t halves[2 * HALVES + 1], blocks[34 * 300 + 1];
    for (uint32_t h = 0; h < HALVES; h++) { /* at an odd address, and every value once */
        halves[1 + 2 * h] = (uint8_t)h;
        halves[2 + 2 * h] = (uint8_t)(h >> 8);
    }
    compare_kernels(FL_DTYPE_F16, halves + 1, HALVES);
    compare_kernels(FL_DTYPE_BF16, halves + 1, HALVES);
    compare_kernels(FL_DTYPE_F16, halves + 1, 77); /* a tail that fills no vector */
    uint32_t state = 7;
    for (size_t i = 0; i < sizeof(blocks); i++) {
        state = state * 1664525u + 1013904223u;
        blocks[i] = (uint8_t)(state >> 24);
    }
    compare_kernels(FL_DTYPE_Q8_0, blocks + 1, 32 * 300);
    compare_kernels(FL_DTYPE_Q4_0, blocks + 1, 32 * 300);
    compare_kernels(FL_DTYPE_Q4_1, blocks + 1, 32 * 300);
    compare_kernels(FL_DTYPE_Q5_0, blocks + 1, 32 * 300);
    compare_kernels(FL_DTYPE_Q5_1, blocks + 1, 32 * 300);
    compare_kernels(FL_DTYPE_Q4_K, blocks + 1, 256 * 48);
    compare_kernels(FL_DTYPE_Q5_K, blocks + 1, 256 * 48);
    compare_kernels(FL_DTYPE_Q6_K, blocks + 1, 256 * 48);
    compare_kernels(FL_DTYPE_F64, blocks + 1, 1000);
}
END_TEST

START_TEST(rows_of_blocks_have_the_bytes_that_the_format_says)
{
    ck_assert_uint_eq(fl_dtype_row_bytes(FL_DTYPE_Q8_0, 64), 68);
    ck_assert_uint_eq(fl_dtype_row_bytes(FL_DTYPE_Q4_0, 64), 36);
    ck_assert_uint_eq(fl_dtype_row_bytes(FL_DTYPE_Q4_1, 64), 40);
    ck_assert_uint_eq(fl_dtype_row_bytes(FL_DTYPE_BF16, 3), 6);
    ck_assert_uint_eq(fl_dtype_row_bytes(FL_DTYPE_Q5_0, 64), 44);
    ck_assert_uint_eq(fl_dtype_row_bytes(FL_DTYPE_Q4_K, 512), 288);
    ck_assert_str_eq(fl_dtype_name(FL_DTYPE_Q4_1), "Q4_1");
    ck_assert(!fl_dtype_is_float(FL_DTYPE_OTHER));
    ck_assert(!fl_dtype_is_float(FL_DTYPE_COUNT));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, every_half_has_the_value_that_ieee_754_gives_it);
    tcase_add_test(tc, a_half_comes_back_from_a_float_unchanged);
    tcase_add_test(tc, floats_round_to_the_nearest_half_ties_to_even);
    tcase_add_test(tc, floats_round_to_the_nearest_bfloat_ties_to_even);
    tcase_add_test(tc, blocks_of_eight_bits_hold_d_times_q);
    tcase_add_test(tc, blocks_of_four_bits_hold_low_nibbles_first_less_eight);
    tcase_add_test(tc, blocks_of_four_bits_with_a_minimum_hold_d_q_plus_m);
    tcase_add_test(tc, doubles_round_once_and_floats_are_copied);
    tcase_add_test(tc, every_vector_unit_gives_the_bits_of_the_scalar_code);
    tcase_add_test(tc, rows_of_blocks_have_the_bytes_that_the_format_says);
}

FL_TEST_MAIN("format_dtype", add_tests)
