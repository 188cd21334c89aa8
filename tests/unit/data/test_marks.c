/* Marks for spaces, tokens for bytes, and back. */
#include "worker/data/marks.h"

#include <string.h>

#include "base/buf.h"
#include "runner.h"
#include "worker/data/tokenizer_internal.h"

static struct fl_tokenizer tokenizer;

static void setup(void)
{
    memset(&tokenizer, 0, sizeof tokenizer);
    fl_buf_init(&tokenizer.scratch, 1 << 16);
    fl_buf_init(&tokenizer.marked, 1 << 16);
    fl_buf_init(&tokenizer.prefixed, 1 << 16);
}

static void teardown(void)
{
    fl_buf_free(&tokenizer.scratch);
    fl_buf_free(&tokenizer.marked);
    fl_buf_free(&tokenizer.prefixed);
}

static void normalises(const char *text, const char *expected)
{
    const char *out;
    size_t length;
    ck_assert_int_eq(fl_marks_normalise(&tokenizer, text, strlen(text), false, &out, &length),
                     FL_OK);
    ck_assert_uint_eq(length, strlen(expected));
    ck_assert_int_eq(memcmp(out, expected, length), 0);
}

START_TEST(the_normaliser_does_what_its_parts_say)
{
    normalises("a b", "a b");
    tokenizer.mark_spaces = true;
    normalises("a  b ", "a\u2581\u2581b\u2581");
    tokenizer.mark_prefix = true;
    normalises("a b", "\u2581a\u2581b");
    normalises("\u2581a", "\u2581\u2581a");
    normalises("", "");
    tokenizer.mark_spaces = false;
    normalises("a b", "\u2581a b");
    tokenizer.nfc = true;
    normalises("e\u0301", "\u2581\u00e9");
}
END_TEST

static void prefixed(enum fl_scheme scheme, enum fl_place place, const char *text,
                     const char *expected)
{
    const char *out;
    size_t length;
    tokenizer.scheme = scheme;
    ck_assert_int_eq(fl_marks_prefix(&tokenizer, text, strlen(text), place, &out, &length), FL_OK);
    ck_assert_uint_eq(length, strlen(expected));
    ck_assert_int_eq(memcmp(out, expected, length), 0);
}

START_TEST(a_mark_is_put_in_front_by_the_scheme)
{
    prefixed(FL_SCHEME_NEVER, FL_PLACE_START, "a b", "a\u2581b");
    prefixed(FL_SCHEME_FIRST, FL_PLACE_START, "a b", "\u2581a\u2581b");
    prefixed(FL_SCHEME_FIRST, FL_PLACE_INSIDE, "a b", "a\u2581b");
    prefixed(FL_SCHEME_ALWAYS, FL_PLACE_INSIDE, "a b", "\u2581a\u2581b");
    prefixed(FL_SCHEME_ALWAYS, FL_PLACE_CONTINUES, "a b", "a\u2581b");
    prefixed(FL_SCHEME_ALWAYS, FL_PLACE_INSIDE, " a", "\u2581a"); /* it has one */
    prefixed(FL_SCHEME_ALWAYS, FL_PLACE_INSIDE, "\u2581a", "\u2581a");
}
END_TEST

START_TEST(tokens_of_bytes_are_told_from_others)
{
    ck_assert_int_eq(fl_marks_byte("<0x00>", 6), 0);
    ck_assert_int_eq(fl_marks_byte("<0xFf>", 6), 255);
    ck_assert_int_eq(fl_marks_byte("<0xG0>", 6), -1);
    ck_assert_int_eq(fl_marks_byte("<0x0A>>", 7), -1);
    ck_assert_int_eq(fl_marks_byte("<0x0A)", 6), -1);
    ck_assert_int_eq(fl_marks_byte("", 0), -1);
}
END_TEST

START_TEST(marks_become_spaces_or_nothing)
{
    struct fl_buf out;
    fl_buf_init(&out, 100);
    fl_marks_append_spaces(&out, "\u2581a\u2581\xE2\x96", 9, " ");
    ck_assert_int_eq(fl_buf_status(&out), FL_OK);
    ck_assert_str_eq(fl_buf_text(&out), " a \xE2\x96");
    out.length = 0;
    fl_marks_append_spaces(&out, "\u2581a\u2581", 7, "");
    ck_assert_uint_eq(out.length, 1);
    fl_buf_free(&out);
}
END_TEST

static void show(uint32_t id, const char *expected, size_t expected_length)
{
    const char *bytes;
    size_t length;
    ck_assert(fl_bpe_shown(tokenizer.bpe, id, &bytes, &length));
    ck_assert_uint_eq(length, expected_length);
    ck_assert_int_eq(memcmp(bytes, expected, length), 0);
}

START_TEST(tokens_decode_to_bytes_and_spaces)
{
    static const char *const TOKENS[] = {"\u2581the", "<0x00>", "a\u2581", "plain"};
    tokenizer.bpe = fl_bpe_new(4, 0);
    ck_assert_ptr_nonnull(tokenizer.bpe);
    tokenizer.decoder = FL_DECODE_PIECES;
    for (uint32_t id = 0; id < 4; id++)
        ck_assert_int_eq(fl_bpe_add_token(tokenizer.bpe, id, TOKENS[id], strlen(TOKENS[id]), true),
                         FL_OK);
    ck_assert_int_eq(fl_marks_show(&tokenizer), FL_OK);
    show(0, " the", 4);
    show(1, "\0", 1);
    show(2, "a ", 2);
    show(3, "plain", 5);
    ck_assert_int_eq(fl_bpe_set_shown(tokenizer.bpe, 9, "x", 1), FL_ENOTFOUND);
    ck_assert_int_eq(fl_bpe_find(tokenizer.bpe, "\u2581the", 6), 0); /* still found as written */
    fl_bpe_free(tokenizer.bpe);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_normaliser_does_what_its_parts_say);
    tcase_add_test(tc, a_mark_is_put_in_front_by_the_scheme);
    tcase_add_test(tc, tokens_of_bytes_are_told_from_others);
    tcase_add_test(tc, marks_become_spaces_or_nothing);
    tcase_add_test(tc, tokens_decode_to_bytes_and_spaces);
}
FL_TEST_MAIN("data marks", add_tests)
