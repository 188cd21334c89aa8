#include "base/buf.h"

#include <stdint.h>
#include <string.h>

#include "runner.h"

START_TEST(appends_add_up_and_end_with_a_nul)
{
    struct fl_buf buf;
    fl_buf_init(&buf, 1000);
    ck_assert_str_eq(fl_buf_text(&buf), "");
    for (int i = 0; i < 100; i++)
        fl_buf_printf(&buf, "%d,", i % 10);
    fl_buf_append(&buf, "end", 3);
    ck_assert_int_eq(fl_buf_status(&buf), FL_OK);
    ck_assert_uint_eq(buf.length, 203);
    ck_assert_uint_eq(strlen(fl_buf_text(&buf)), 203);
    fl_buf_free(&buf);
    ck_assert_uint_eq(buf.maximum, 1000);
}
END_TEST

START_TEST(the_maximum_is_reached_but_not_passed_and_the_refusal_sticks)
{
    struct fl_buf buf;
    fl_buf_init(&buf, 100);
    char text[100] = {0};
    fl_buf_append(&buf, text, 100);
    ck_assert_int_eq(fl_buf_status(&buf), FL_OK);
    ck_assert_uint_le(buf.capacity, 101);
    fl_buf_append(&buf, text, 1);
    ck_assert_int_eq(fl_buf_status(&buf), FL_ERANGE);
    ck_assert_uint_eq(buf.length, 100);
    fl_buf_append(&buf, text, 0);
    fl_buf_u32(&buf, 1);
    ck_assert_int_eq(fl_buf_status(&buf), FL_ERANGE);
    ck_assert_ptr_null(fl_buf_extend(&buf, 0));
    fl_buf_free(&buf);
    fl_buf_init(&buf, SIZE_MAX);
    ck_assert_ptr_null(fl_buf_extend(&buf, SIZE_MAX));
    ck_assert_int_eq(fl_buf_status(&buf), FL_ERANGE);
}
END_TEST

START_TEST(an_extension_is_zeroed)
{
    struct fl_buf buf;
    fl_buf_init(&buf, 1000);
    uint8_t *start = fl_buf_extend(&buf, 70);
    ck_assert_ptr_nonnull(start);
    for (int i = 0; i < 70; i++)
        ck_assert_uint_eq(start[i], 0);
    ck_assert_uint_eq(buf.length, 70);
    fl_buf_free(&buf);
}
END_TEST

START_TEST(numbers_are_little_endian_at_any_alignment)
{
    struct fl_buf buf;
    fl_buf_init(&buf, 100);
    fl_buf_append(&buf, "x", 1);
    fl_buf_u32(&buf, 0x04030201);
    fl_buf_u64(&buf, 0x0807060504030201ull);
    ck_assert_int_eq(fl_buf_status(&buf), FL_OK);
    ck_assert_mem_eq(buf.data, "x\1\2\3\4\1\2\3\4\5\6\7\10", 13);
    ck_assert_uint_eq(fl_load_u16(buf.data + 1), 0x0201);
    ck_assert_uint_eq(fl_load_u32(buf.data + 1), 0x04030201);
    ck_assert_uint_eq(fl_load_u64(buf.data + 5), 0x0807060504030201ull);
    fl_buf_free(&buf);
}
END_TEST

START_TEST(hexadecimal_goes_there_and_back)
{
    uint8_t bytes[4] = {0, 0x9f, 0xa0, 0xff}, back[4];
    char hex[9];
    fl_hex(bytes, 4, hex);
    ck_assert_str_eq(hex, "009fa0ff");
    ck_assert_int_eq(fl_unhex("009FA0ff", back, 4), FL_OK);
    ck_assert_mem_eq(back, bytes, 4);
    ck_assert_int_eq(fl_unhex("009fa0f", back, 4), FL_EFORMAT);
    ck_assert_int_eq(fl_unhex("009fa0ff0", back, 4), FL_EFORMAT);
    ck_assert_int_eq(fl_unhex("009fa0fg", back, 4), FL_EFORMAT);
    ck_assert_int_eq(fl_unhex("", back, 0), FL_OK);
}
END_TEST

START_TEST(whole_numbers_are_whole_and_within_their_range)
{
    static const char *const wrong[] = {"", " 1", "1 ", "-1", "+1", "0x10", "1.0", "1e3", "one"};
    uint64_t value;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_int_eq(fl_parse_u64(wrong[i], 0, 100, &value), FL_EFORMAT);
    ck_assert_int_eq(fl_parse_u64("007", 0, 100, &value), FL_OK);
    ck_assert_uint_eq(value, 7);
    ck_assert_int_eq(fl_parse_u64("18446744073709551615", 0, UINT64_MAX, &value), FL_OK);
    ck_assert(value == UINT64_MAX);
    ck_assert_int_eq(fl_parse_u64("18446744073709551616", 0, UINT64_MAX, &value), FL_ERANGE);
    ck_assert_int_eq(fl_parse_u64("101", 0, 100, &value), FL_ERANGE);
    ck_assert_int_eq(fl_parse_u64("4", 5, 100, &value), FL_ERANGE);
}
END_TEST

START_TEST(numbers_are_finite_and_decimal)
{
    static const char *const wrong[] = {"", "nan", "inf", "0x1p3", "1,5", " 1", "1 ", "--1", "e"};
    double value;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_int_eq(fl_parse_double(wrong[i], &value), FL_EFORMAT);
    ck_assert_int_eq(fl_parse_double("1e999", &value), FL_ERANGE);
    ck_assert_int_eq(fl_parse_double("-2.5e-3", &value), FL_OK);
    ck_assert_double_eq_tol(value, -0.0025, 1e-15);
}
END_TEST

START_TEST(durations_have_units)
{
    static const struct {
        const char *text;
        int64_t ms;
    } right[] = {{"500ms", 500},    {"60s", 60000}, {"30m", 1800000}, {"24h", 86400000},
                 {"7d", 604800000}, {"5", 5000},    {"0", 0}};
    static const char *const wrong[] = {"", "s", "1 s", "-1s", "1.5h", "1w", "1ss"};
    int64_t value;
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        ck_assert_int_eq(fl_parse_duration(right[i].text, &value), FL_OK);
        ck_assert_int_eq(value, right[i].ms);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_int_eq(fl_parse_duration(wrong[i], &value), FL_EFORMAT);
    ck_assert_int_eq(fl_parse_duration("99999999999999999999d", &value), FL_ERANGE);
    ck_assert_int_eq(fl_parse_duration("9223372036854775807s", &value), FL_ERANGE);
}
END_TEST

START_TEST(sizes_have_units_of_powers_of_two)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {{"0", 0},           {"1000000", 1000000},
                 {"3K", 3 << 10},    {"700M", 700ull << 20},
                 {"2G", 2ull << 30}, {"17179869183G", 17179869183ull << 30}};
    static const char *const wrong[] = {"", "G", "-4G", "4 G", "4g", "4GB", "4T", "1.5G", "lots"};
    uint64_t value;
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        ck_assert_int_eq(fl_parse_bytes(right[i].text, &value), FL_OK);
        ck_assert(value == right[i].bytes);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(fl_parse_bytes(wrong[i], &value) == FL_EFORMAT, "%s", wrong[i]);
    ck_assert_int_eq(fl_parse_bytes("17179869184G", &value), FL_ERANGE);
    ck_assert_int_eq(fl_parse_bytes("18446744073709551616", &value), FL_ERANGE);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, appends_add_up_and_end_with_a_nul);
    tcase_add_test(tc, the_maximum_is_reached_but_not_passed_and_the_refusal_sticks);
    tcase_add_test(tc, an_extension_is_zeroed);
    tcase_add_test(tc, numbers_are_little_endian_at_any_alignment);
    tcase_add_test(tc, hexadecimal_goes_there_and_back);
    tcase_add_test(tc, whole_numbers_are_whole_and_within_their_range);
    tcase_add_test(tc, numbers_are_finite_and_decimal);
    tcase_add_test(tc, durations_have_units);
    tcase_add_test(tc, sizes_have_units_of_powers_of_two);
}

FL_TEST_MAIN("base.buf", add_tests)
