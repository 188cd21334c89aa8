#include "base/escape.h"

#include <string.h>

#include "runner.h"

static void assert_escape(const char *text, size_t length, size_t consumed, const char *expected)
{
    char out[FL_ESCAPE_BYTES];
    ck_assert_uint_eq(fl_escape(text, length, out), consumed);
    ck_assert_str_eq(out, expected);
}

START_TEST(plain_text_stays_as_it_is)
{
    assert_escape("a", 1, 1, "a");
    assert_escape("\xc3\xa9x", 3, 2, "\xc3\xa9");
    assert_escape("\xe2\x82\xac", 3, 3, "\xe2\x82\xac");
    assert_escape("\xf0\x9f\x98\x80", 4, 4, "\xf0\x9f\x98\x80");
}
END_TEST

START_TEST(what_json_or_a_terminal_would_obey_is_escaped)
{
    assert_escape("\"", 1, 1, "\\\"");
    assert_escape("\\", 1, 1, "\\\\");
    assert_escape("\n", 1, 1, "\\n");
    assert_escape("\t", 1, 1, "\\t");
    assert_escape("\0", 1, 1, "\\u0000");
    assert_escape("\033", 1, 1, "\\u001b");
    assert_escape("\x7f", 1, 1, "\\u007f");
    assert_escape("\xc2\x9b", 2, 2, "\\u009b");
    assert_escape("\xe2\x80\xae", 3, 3, "\\u202e");
}
END_TEST

START_TEST(invalid_utf8_becomes_the_replacement_character)
{
    static const char *const wrong[] = {"\x80",
                                        "\xc0\x80",
                                        "\xc3",
                                        "\xe2\x82",
                                        "\xed\xa0\x80",
                                        "\xf4\x90\x80\x80",
                                        "\xf8\x88\x80\x80\x80",
                                        "\xff",
                                        "\xe0\x80\x80",
                                        "\xc3(",
                                        "\xf0\x80\x80\x80"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_uint_eq(fl_utf8_length(wrong[i], strlen(wrong[i])), 0);
        assert_escape(wrong[i], strlen(wrong[i]), 1, "\\ufffd");
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, plain_text_stays_as_it_is);
    tcase_add_test(tc, what_json_or_a_terminal_would_obey_is_escaped);
    tcase_add_test(tc, invalid_utf8_becomes_the_replacement_character);
}

FL_TEST_MAIN("base.escape", add_tests)
