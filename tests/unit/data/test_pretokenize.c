/* The scanners against what the regular expressions match, piece by piece. */
#include "worker/data/pretokenize.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"

/* Pieces of text joined with '|'. */
static void pieces_are(enum fl_pre pre, const char *text, const char *expected)
{
    char joined[512] = "";
    size_t used = 0, length;
    const char *piece;
    struct fl_pre_iter iter;
    fl_pre_begin(&iter, pre, text, strlen(text));
    while (fl_pre_next(&iter, &piece, &length)) {
        ck_assert_uint_gt(length, 0);
        int n = snprintf(joined + used, sizeof joined - used, "%s%.*s", used > 0 ? "|" : "",
                         (int)length, piece);
        used += (size_t)n;
    }
    ck_assert_str_eq(joined, expected);
}

START_TEST(gpt2_leaves_the_last_space_to_the_word)
{
    pieces_are(FL_PRE_GPT2, "a   b", "a|  | b");
    pieces_are(FL_PRE_GPT2, "a \t\nb  ", "a| \t|\n|b|  ");
    pieces_are(FL_PRE_GPT2, "don't DON'T we'll 'sx", "don|'t| DON|'|T| we|'ll| '|sx");
    pieces_are(FL_PRE_GPT2, "x 123 ½!? ...", "x| 123| ½|!?| ...");
}
END_TEST

START_TEST(llama3_groups_three_digits_and_takes_newlines_along)
{
    pieces_are(FL_PRE_LLAMA3, "1234567", "123|456|7");
    pieces_are(FL_PRE_LLAMA3, "DON'T we'LL\t'ſx'ſx", "DON|'T| we|'LL|\t|'ſ|x|'ſ|x");
    pieces_are(FL_PRE_LLAMA3, "a!!\r\n\nb", "a|!!\r\n\n|b");
    pieces_are(FL_PRE_LLAMA3, "a \n \n  b", "a| \n \n| | b");
    pieces_are(FL_PRE_LLAMA3, "\tx (y", "\tx| (|y");
    pieces_are(FL_PRE_LLAMA3, "a 1", "a| |1");
}
END_TEST

START_TEST(qwen2_takes_single_digits)
{
    pieces_are(FL_PRE_QWEN2, "a12 3", "a|1|2| |3");
}
END_TEST

START_TEST(smollm_takes_digits_out_before_anything_else)
{
    pieces_are(FL_PRE_SMOLLM, "a  1", "a|  |1");
    pieces_are(FL_PRE_SMOLLM, "12 ab3", "1|2| ab|3");
    pieces_are(FL_PRE_SMOLLM, "'1s", "'|1|s");
}
END_TEST

START_TEST(metaspace_begins_a_piece_at_each_mark)
{
    pieces_are(FL_PRE_METASPACE, "a\u2581b c\u2581\u2581d\u2581",
               "a|\u2581b c|\u2581|\u2581d|\u2581");
    pieces_are(FL_PRE_METASPACE, "\xE2\x96", "\xE2\x96");
    pieces_are(FL_PRE_WHOLE, "a\u2581b c", "a\u2581b c");
    ck_assert_str_eq(fl_pre_name(FL_PRE_WHOLE), "whole");
    ck_assert_str_eq(fl_pre_name(FL_PRE_METASPACE), "metaspace");
}
END_TEST

START_TEST(any_bytes_give_pieces_that_join_to_the_text)
{
    unsigned state = 1;
    for (int round = 0; round < 2000; round++) {
        char text[64];
        for (size_t i = 0; i < sizeof text; i++) {
            state = state * 1103515245u + 12345u;
            static const char SOME[] = " \n\r'stS1aZ\xC5\xBF\xE3\x80\x80\xFF\0!";
            text[i] = round % 2 != 0 ? (char)(state >> 16) : SOME[(state >> 16) % sizeof SOME];
        }
        for (enum fl_pre pre = FL_PRE_GPT2; pre <= FL_PRE_METASPACE; pre++) {
            struct fl_pre_iter iter;
            const char *piece, *next = text;
            size_t length;
            fl_pre_begin(&iter, pre, text, sizeof text);
            while (fl_pre_next(&iter, &piece, &length)) {
                ck_assert_ptr_eq(piece, next);
                ck_assert_uint_gt(length, 0);
                next = piece + length;
            }
            ck_assert_ptr_eq(next, text + sizeof text);
        }
    }
}
END_TEST

START_TEST(names_and_expressions_are_recognised_exactly)
{
    enum fl_pre pre;
    ck_assert(fl_pre_from_gguf("smollm", &pre));
    ck_assert_int_eq(pre, FL_PRE_SMOLLM);
    ck_assert(!fl_pre_from_gguf("smollm2", &pre));
    ck_assert(!fl_pre_from_gguf("", &pre));
    ck_assert(!fl_pre_from_regex("\\s+", &pre));
    for (pre = FL_PRE_GPT2; pre <= FL_PRE_SMOLLM; pre++) {
        enum fl_pre back;
        ck_assert(fl_pre_from_gguf(fl_pre_name(pre), &back));
        ck_assert_int_eq(back, pre);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, gpt2_leaves_the_last_space_to_the_word);
    tcase_add_test(tc, llama3_groups_three_digits_and_takes_newlines_along);
    tcase_add_test(tc, qwen2_takes_single_digits);
    tcase_add_test(tc, smollm_takes_digits_out_before_anything_else);
    tcase_add_test(tc, metaspace_begins_a_piece_at_each_mark);
    tcase_add_test(tc, any_bytes_give_pieces_that_join_to_the_text);
    tcase_add_test(tc, names_and_expressions_are_recognised_exactly);
}
FL_TEST_MAIN("data pretokenize", add_tests)
