/* Tokens to text: whole characters, broken bytes, stop strings that arrive in pieces. */
#include "runner.h"

#include <string.h>

#include "base/fs.h"
#include "worker/data/unicode.h"
#include "worker/textout.h"

static struct fl_textout out;

/* Push `bytes` one by one; what was taken along the way is `shown` with a '|' after each take. */
static void stream(const char *bytes, size_t length, const char *const *stops, size_t stop_count,
                   struct fl_buf *shown)
{
    fl_textout_init(&out, stops, stop_count);
    fl_buf_init(shown, 1 << 20);
    for (size_t i = 0; i <= length; i++) {
        if (i == length)
            fl_textout_end(&out);
        bool more = i < length ? fl_textout_push(&out, bytes + i, 1) : false;
        size_t taken;
        const char *text = fl_textout_take(&out, &taken);
        ck_assert(fl_utf8_valid(text, taken));
        fl_buf_append(shown, text, taken);
        if (taken > 0)
            fl_buf_append(shown, "|", 1);
        if (!more && i < length)
            break;
    }
}

static void shows(const char *bytes, const char *const *stops, size_t stop_count, const char *want)
{
    struct fl_buf shown;
    stream(bytes, strlen(bytes), stops, stop_count, &shown);
    ck_assert_int_eq(fl_buf_status(&shown), FL_OK);
    ck_assert_str_eq(fl_buf_text(&shown), want);
    fl_buf_free(&shown);
    fl_textout_free(&out);
}

START_TEST(characters_appear_whole)
{
    shows("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z", NULL, 0,
          "a|\xC3\xA9|\xE2\x82\xAC|\xF0\x9F\x98\x80|z|");
    shows("", NULL, 0, "");
}
END_TEST

/* The expected texts are Python's bytes.decode("utf-8", "replace"). */
START_TEST(bytes_that_are_no_character_are_replaced)
{
    shows("\xE2\x82", NULL, 0, "\xEF\xBF\xBD|");
    shows("\xE2\x82x", NULL, 0, "\xEF\xBF\xBDx|");
    shows("\xC3\xC3\xA9", NULL, 0, "\xEF\xBF\xBD|\xC3\xA9|");
    shows("\x80\xFF", NULL, 0, "\xEF\xBF\xBD|\xEF\xBF\xBD|");
    shows("\xE0\x80\x80", NULL, 0, "\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD|");
    shows("\xED\xA0\x80", NULL, 0, "\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD|");
    shows("\xF4\x90\x80\x80", NULL, 0, "\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD|\xEF\xBF\xBD|");
    shows("\xF0\x9F\x98z", NULL, 0, "\xEF\xBF\xBDz|");
}
END_TEST

START_TEST(a_stop_string_ends_the_text_before_it_and_is_never_shown)
{
    static const char *const stops[] = {"\n\n", "END.", "NDA"};
    shows("one\ntwo\n\nthree", stops, 3, "o|n|e|\nt|w|o|");
    shows("WEND it EN", stops, 3, "W|END |i|t| |EN|");
    shows("ENDA", stops, 3, "E|");
    ck_assert(out.stopped);
    shows("\n", stops, 3, "\n|");
    ck_assert(!out.stopped);
    static const char *const whole[] = {"\xE2\x82\xAC"};
    shows("5\xE2\x82\xAC!", whole, 1, "5|");
}
END_TEST

START_TEST(a_stop_string_within_one_token_is_found)
{
    static const char *const stops[] = {"</s>"};
    size_t length;
    fl_textout_init(&out, stops, 1);
    ck_assert(fl_textout_push(&out, "some <", 6));
    ck_assert_str_eq(fl_textout_take(&out, &length), "some <");
    ck_assert_uint_eq(length, 5);
    ck_assert(!fl_textout_push(&out, "/s> more </s>", 13));
    (void)fl_textout_take(&out, &length);
    ck_assert_uint_eq(length, 0);
    ck_assert_str_eq(fl_buf_text(&out.text), "some ");
    ck_assert(!fl_textout_push(&out, "x", 1));
    fl_textout_end(&out);
    (void)fl_textout_take(&out, &length);
    ck_assert_uint_eq(length, 0);
    fl_textout_free(&out);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, characters_appear_whole);
    tcase_add_test(tc, bytes_that_are_no_character_are_replaced);
    tcase_add_test(tc, a_stop_string_ends_the_text_before_it_and_is_never_shown);
    tcase_add_test(tc, a_stop_string_within_one_token_is_found);
}

FL_TEST_MAIN("textout", add_tests)
