/* Narrowing: rounding, and what does not fit. */
#include "format/narrow.h"

#include <math.h>
#include <string.h>

#include "runner.h"

START_TEST(values_come_back_as_the_type_can_hold_them)
{
    static const enum fl_dtype types[] = {FL_DTYPE_F32, FL_DTYPE_F16, FL_DTYPE_BF16};
    const float values[] = {0.0f, -1.5f, 3.14159265f, 1e-3f, -60000.0f};
    const double relative[] = {0.0, 0x1p-11, 0x1p-8};
    uint8_t stored[sizeof(values)];
    float back[5];
    for (size_t t = 0; t < 3; t++) {
        ck_assert(fl_narrow(types[t], values, 5, stored));
        fl_dtype_widen(types[t], stored, 5, back);
        for (size_t i = 0; i < 5; i++)
            ck_assert_double_le(fabs((double)back[i] - (double)values[i]),
                                relative[t] * fabs((double)values[i]));
    }
}
END_TEST

START_TEST(what_is_not_finite_afterwards_is_told)
{
    const float nan[] = {0.0f, NAN}, infinite[] = {-INFINITY}, large[] = {65520.0f},
                huge[] = {3.4e38f};
    uint8_t stored[8];
    static const enum fl_dtype types[] = {FL_DTYPE_F32, FL_DTYPE_F16, FL_DTYPE_BF16};
    for (size_t t = 0; t < 3; t++) {
        ck_assert(!fl_narrow(types[t], nan, 2, stored));
        ck_assert(!fl_narrow(types[t], infinite, 1, stored));
    }
    ck_assert(!fl_narrow(FL_DTYPE_F16, large, 1, stored));
    ck_assert(fl_narrow(FL_DTYPE_BF16, large, 1, stored));
    ck_assert(!fl_narrow(FL_DTYPE_BF16, huge, 1, stored));
    ck_assert(fl_narrow(FL_DTYPE_F32, huge, 1, stored));
}
END_TEST

START_TEST(names_of_types_are_read)
{
    ck_assert_int_eq(fl_narrow_parse("f32"), FL_DTYPE_F32);
    ck_assert_int_eq(fl_narrow_parse("f16"), FL_DTYPE_F16);
    ck_assert_int_eq(fl_narrow_parse("bf16"), FL_DTYPE_BF16);
    ck_assert_int_eq(fl_narrow_parse("F16"), FL_DTYPE_OTHER);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, values_come_back_as_the_type_can_hold_them);
    tcase_add_test(tc, what_is_not_finite_afterwards_is_told);
    tcase_add_test(tc, names_of_types_are_read);
}

FL_TEST_MAIN("narrow", add_tests)
