/* Leftmost-longest matching and the flags of added tokens. */
#include "worker/data/added_tokens.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"

static struct fl_added_tokens set;

static void push(const char *content, int32_t id, const char *flags)
{
    const struct fl_added_token token = {.content = (char *)content,
                                         .length = strlen(content),
                                         .id = id,
                                         .single_word = strchr(flags, 'w') != NULL,
                                         .lstrip = strchr(flags, 'l') != NULL,
                                         .rstrip = strchr(flags, 'r') != NULL,
                                         .special = strchr(flags, 's') != NULL};
    ck_assert_int_eq(fl_added_push(&set, &token), FL_OK);
}

static void seal(void)
{
    const char *duplicate;
    ck_assert_int_eq(fl_added_seal(&set, &duplicate), FL_OK);
}

/* Texts as they are, tokens as <id>, joined with '|'. */
static void split_is(const char *text, bool plain, const char *expected)
{
    char out[512] = "";
    struct fl_added_iter iter;
    struct fl_added_split split;
    fl_added_begin(&iter, &set, text, strlen(text), plain);
    while (fl_added_next(&iter, &split)) {
        size_t used = strlen(out);
        if (used > 0)
            out[used++] = '|';
        if (split.token != NULL)
            snprintf(out + used, sizeof out - used, "<%d>", split.token->id);
        else
            snprintf(out + used, sizeof out - used, "%.*s", (int)(split.end - split.start),
                     text + split.start);
    }
    ck_assert_str_eq(out, expected);
}

START_TEST(the_leftmost_and_then_the_longest_wins)
{
    push("ab", 1, "");
    push("abcd", 2, "");
    push("bcdef", 3, "");
    push("b", 4, "");
    seal();
    split_is("xabcdefx", false, "x|<2>|efx");
    split_is("abc", false, "<1>|c");
    split_is("bcde", false, "<4>|cde");
    split_is("", false, "");
    split_is("xyz", false, "xyz");
    ck_assert_ptr_nonnull(fl_added_find(&set, "abcd", 4));
    ck_assert_ptr_null(fl_added_find(&set, "abc", 3));
    fl_added_free(&set);
}
END_TEST

START_TEST(strips_swallow_neighbouring_space)
{
    push("<l>", 1, "l");
    push("<r>", 2, "r");
    seal();
    split_is("a  <l>  b", false, "a|<1>|  b");
    split_is("a  <r> \u3000b", false, "a  |<2>|b");
    split_is("<r>  <l>", false, "<2>|<1>");
    fl_added_free(&set);
}
END_TEST

START_TEST(a_single_word_needs_no_word_beside_it)
{
    push("word", 1, "w");
    seal();
    split_is("word words a_word (word) wordword \u00e9word", false,
             "<1>| words a_word (|<1>|) wordword \u00e9word");
    split_is("word\xFF", false, "<1>|\xFF");
    fl_added_free(&set);
}
END_TEST

START_TEST(specials_can_be_text)
{
    push("<s>", 1, "s");
    push("<u>", 2, "");
    seal();
    split_is("<s><u>", true, "<s>|<2>");
    split_is("<s><u>", false, "<1>|<2>");
    fl_added_free(&set);
}
END_TEST

START_TEST(duplicates_and_impossible_tokens_are_refused)
{
    const char *duplicate;
    push("x", 1, "");
    push("x", 2, "");
    ck_assert_int_eq(fl_added_seal(&set, &duplicate), FL_EEXIST);
    ck_assert_str_eq(duplicate, "x");
    const struct fl_added_token empty = {.content = (char *)"", .length = 0};
    const struct fl_added_token large = {.content = (char *)"",
                                         .length = FL_ADDED_TOKEN_BYTES_MAX + 1};
    ck_assert_int_eq(fl_added_push(&set, &empty), FL_ERANGE);
    ck_assert_int_eq(fl_added_push(&set, &large), FL_ERANGE);
    fl_added_free(&set);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_leftmost_and_then_the_longest_wins);
    tcase_add_test(tc, strips_swallow_neighbouring_space);
    tcase_add_test(tc, a_single_word_needs_no_word_beside_it);
    tcase_add_test(tc, specials_can_be_text);
    tcase_add_test(tc, duplicates_and_impossible_tokens_are_refused);
}
FL_TEST_MAIN("data added_tokens", add_tests)
