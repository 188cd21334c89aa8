/* UTF-8, classes and form C, on the places where implementations go wrong. */
#include "worker/data/unicode.h"

#include <string.h>

#include "runner.h"

static void nfc_is(const char *text, const char *expected)
{
    struct fl_buf out;
    fl_buf_init(&out, 4096);
    ck_assert_int_eq(fl_unicode_nfc(text, strlen(text), &out), FL_OK);
    ck_assert_str_eq(fl_buf_text(&out), expected);
    fl_buf_free(&out);
}

START_TEST(every_scalar_value_survives_put_and_next)
{
    for (uint32_t code = 0; code < 0x110000; code++) {
        if (code >= 0xD800 && code < 0xE000)
            continue;
        char bytes[4];
        size_t written = fl_utf8_put(code, bytes), used;
        if (fl_utf8_next(bytes, written, &used) != code || used != written)
            ck_abort_msg("U+%04X", code);
        if (fl_utf8_last(bytes, written, &used) != code || used != written)
            ck_abort_msg("backwards U+%04X", code);
    }
}
END_TEST

START_TEST(ill_formed_sequences_are_single_invalid_bytes)
{
    static const char *const BAD[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x80\x80",
                                      "\xED\xA0\x80",
                                      "\xF0\x80\x80\x80",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xE2\x82",
                                      "\xFF"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        size_t used;
        ck_assert_uint_eq(fl_utf8_next(BAD[i], strlen(BAD[i]), &used), FL_UTF8_INVALID);
        ck_assert_uint_eq(used, 1);
        ck_assert(!fl_utf8_valid(BAD[i], strlen(BAD[i])));
    }
    ck_assert(fl_utf8_valid("", 0));
}
END_TEST

START_TEST(classes_are_those_of_the_reference)
{
    ck_assert_uint_eq(fl_unicode_class('a'), FL_UC_LETTER | FL_UC_WORD);
    ck_assert_uint_eq(fl_unicode_class('7'), FL_UC_NUMBER | FL_UC_DIGIT | FL_UC_WORD);
    ck_assert_uint_eq(fl_unicode_class('\v'), FL_UC_SPACE);
    ck_assert_uint_eq(fl_unicode_class('_'), FL_UC_WORD);
    ck_assert_uint_eq(fl_unicode_class(0), 0);
    ck_assert(fl_unicode_class(0x3000) & FL_UC_SPACE);
    ck_assert(!(fl_unicode_class(0x200B) & FL_UC_SPACE));
    ck_assert(fl_unicode_class(0xBD) & FL_UC_NUMBER);               /* one half */
    ck_assert(fl_unicode_class(0x1C89) & FL_UC_LETTER);             /* new in Unicode 16 */
    ck_assert_uint_eq(fl_unicode_class(0x11DE0) & FL_UC_NUMBER, 0); /* new in Unicode 17: */
    ck_assert(fl_unicode_class(0x11DE0) & FL_UC_DIGIT);             /* only Rust knows it */
    ck_assert_uint_eq(fl_unicode_class(FL_UTF8_INVALID), 0);
}
END_TEST

START_TEST(form_c_composes_orders_and_blocks)
{
    nfc_is("", "");
    nfc_is("plain", "plain");
    nfc_is("e\u0301", "\u00e9");
    nfc_is("A\u030a \u212b", "\u00c5 \u00c5");
    nfc_is("q\u0307\u0323", "q\u0323\u0307");
    nfc_is("\u1e9b\u0323", "\u1e9b\u0323");
    nfc_is("\u1112\u1161\u11ab", "\ud55c");
    nfc_is("\uac01\u11a8", "\uac01\u11a8");
    nfc_is("\u0958", "\u0915\u093c"); /* a composition exclusion */
    nfc_is("\u0344", "\u0308\u0301");
    nfc_is("\u0301e", "\u0301e");
    nfc_is("e\u0301\u0301", "\u00e9\u0301");
}
END_TEST

START_TEST(invalid_bytes_pass_through_normalisation)
{
    nfc_is("e\xFF\u0301\x80 e\u0301\xC3", "e\xFF\u0301\x80 \u00e9\xC3");
}
END_TEST

START_TEST(the_quick_check_never_lets_a_changing_text_pass)
{
    for (uint32_t code = 0x80; code < 0x30000; code++) {
        if (code >= 0xD800 && code < 0xE000)
            continue;
        char text[5] = {0};
        size_t length = fl_utf8_put(code, text);
        struct fl_buf out;
        fl_buf_init(&out, 64);
        ck_assert_int_eq(fl_unicode_nfc(text, length, &out), FL_OK);
        if (strcmp(fl_buf_text(&out), text) != 0 && fl_unicode_is_nfc(text, length))
            ck_abort_msg("U+%04X", code);
        fl_buf_free(&out);
    }
}
END_TEST

START_TEST(a_long_run_of_marks_is_ordered_in_time)
{
    struct fl_buf text, out;
    fl_buf_init(&text, 1 << 20);
    fl_buf_init(&out, 1 << 20);
    for (int i = 0; i < 50000; i++)
        fl_buf_append(&text, i % 2 == 0 ? "\u0301" : "\u0323", 2);
    ck_assert_int_eq(fl_buf_status(&text), FL_OK);
    ck_assert_int_eq(fl_unicode_nfc(fl_buf_text(&text), text.length, &out), FL_OK);
    ck_assert_uint_eq(out.length, text.length);
    ck_assert_int_eq(memcmp(out.data, "\u0323\u0323", 4), 0);
    fl_buf_free(&text);
    fl_buf_free(&out);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, every_scalar_value_survives_put_and_next);
    tcase_add_test(tc, ill_formed_sequences_are_single_invalid_bytes);
    tcase_add_test(tc, classes_are_those_of_the_reference);
    tcase_add_test(tc, form_c_composes_orders_and_blocks);
    tcase_add_test(tc, invalid_bytes_pass_through_normalisation);
    tcase_add_test(tc, the_quick_check_never_lets_a_changing_text_pass);
    tcase_add_test(tc, a_long_run_of_marks_is_ordered_in_time);
}
FL_TEST_MAIN("data unicode", add_tests)
