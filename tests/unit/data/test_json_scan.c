/* The scanner on JSON that is right, and on JSON that is not. */
#include "worker/data/json_scan.h"

#include <string.h>

#include "runner.h"

static void string_is(const char *json, const char *expected, size_t length)
{
    struct fl_scan scan;
    fl_scan_begin(&scan, json, strlen(json));
    bool fine = fl_scan_string(&scan);
    ck_assert_msg(fine == (expected != NULL), "%s", json);
    if (expected != NULL) {
        ck_assert_uint_eq(scan.string.length, length);
        ck_assert_int_eq(memcmp(fl_buf_text(&scan.string), expected, length), 0);
    }
    fl_scan_end(&scan);
}

START_TEST(strings_are_unescaped_and_must_be_utf8)
{
    string_is("\"\"", "", 0);
    string_is(" \"a\\n\\u00e9\\ud83d\\ude00\\/\"", "a\n\u00e9\U0001F600/", 9);
    string_is("\"\\u0000\"", "\0", 1);
    string_is("\"\\ud83d\"", NULL, 0);
    string_is("\"\\ude00\"", NULL, 0);
    string_is("\"\\ud83d\\u0041\"", NULL, 0);
    string_is("\"\\u12\"", NULL, 0);
    string_is("\"\\x\"", NULL, 0);
    string_is("\"\xFF\"", NULL, 0);
    string_is("\"a\nb\"", NULL, 0);
    string_is("\"open", NULL, 0);
    string_is("\"open\\", NULL, 0);
    string_is("12", NULL, 0);
}
END_TEST

START_TEST(an_object_is_walked_member_by_member)
{
    const char *json = "{\"a\": 1, \"b\" : {\"c\":[1,\"]}\",2]} , \"d\":true }  ";
    struct fl_scan scan;
    const char *text;
    size_t length;
    uint32_t number;
    fl_scan_begin(&scan, json, strlen(json));
    ck_assert(fl_scan_open(&scan, '{'));
    ck_assert(fl_scan_more(&scan, '}', true) && fl_scan_key(&scan));
    ck_assert(fl_scan_u32(&scan, &number) && number == 1);
    ck_assert(fl_scan_more(&scan, '}', false) && fl_scan_key(&scan));
    ck_assert(fl_scan_value(&scan, &text, &length));
    ck_assert_uint_eq(length, strlen("{\"c\":[1,\"]}\",2]}"));
    ck_assert(fl_scan_more(&scan, '}', false) && fl_scan_key(&scan));
    ck_assert(fl_scan_value(&scan, &text, &length));
    ck_assert_uint_eq(length, 4);
    ck_assert(!fl_scan_more(&scan, '}', false));
    ck_assert(fl_scan_finish(&scan) && !fl_scan_failed(&scan));
    fl_scan_end(&scan);
}
END_TEST

START_TEST(broken_values_are_refused_without_reading_past_the_end)
{
    static const char *const BAD[] = {"", "  ", "[", "{]", "[}", "[[1]", "\"", "{\"a", ",", "]"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct fl_scan scan;
        const char *text;
        size_t length;
        fl_scan_begin(&scan, BAD[i], strlen(BAD[i]));
        ck_assert_msg(!fl_scan_value(&scan, &text, &length), "%s", BAD[i]);
        ck_assert(fl_scan_failed(&scan));
        fl_scan_end(&scan);
    }
}
END_TEST

START_TEST(nesting_is_bounded)
{
    char deep[4096];
    memset(deep, '[', sizeof deep);
    struct fl_scan scan;
    const char *text;
    size_t length;
    fl_scan_begin(&scan, deep, sizeof deep);
    ck_assert(!fl_scan_value(&scan, &text, &length));
    ck_assert_str_eq(scan.problem, "nested too deep");
    ck_assert_uint_le(fl_scan_offset(&scan), FL_SCAN_DEPTH_MAX + 1);
    fl_scan_end(&scan);
}
END_TEST

START_TEST(numbers_are_bounded)
{
    static const char *const BAD[] = {"-1", "4294967296", "99999999999999999999", "x", ""};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct fl_scan scan;
        uint32_t number;
        fl_scan_begin(&scan, BAD[i], strlen(BAD[i]));
        ck_assert_msg(!fl_scan_u32(&scan, &number), "%s", BAD[i]);
        fl_scan_end(&scan);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, strings_are_unescaped_and_must_be_utf8);
    tcase_add_test(tc, an_object_is_walked_member_by_member);
    tcase_add_test(tc, broken_values_are_refused_without_reading_past_the_end);
    tcase_add_test(tc, nesting_is_bounded);
    tcase_add_test(tc, numbers_are_bounded);
}
FL_TEST_MAIN("data json_scan", add_tests)
