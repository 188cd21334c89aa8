/* Scores as merges, on vocabularies small enough to follow by hand. */
#include "worker/data/spm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runner.h"
#include "worker/data/bpe.h"

#define PIECES_MAX 16

static struct fl_bpe *scored(const char *const *texts, const float *scores, uint32_t count)
{
    struct fl_spm_piece pieces[PIECES_MAX];
    struct fl_bpe *bpe = fl_bpe_new(0, 0);
    ck_assert_ptr_nonnull(bpe);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_int_eq(fl_bpe_add_token(bpe, i, texts[i], strlen(texts[i]), true), FL_OK);
        pieces[i] = (struct fl_spm_piece){i, scores[i]};
    }
    ck_assert_int_eq(fl_spm_add_merges(bpe, pieces, count), FL_OK);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = -1, .characters = true});
    return bpe;
}

static void word_is(struct fl_bpe *bpe, const char *word, const char *expected)
{
    struct fl_ids ids = {0};
    char text[256] = "";
    ck_assert_int_eq(fl_bpe_word(bpe, word, strlen(word), &ids), FL_OK);
    for (size_t i = 0; i < ids.count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d ", ids.ids[i]);
    fl_ids_free(&ids);
    ck_assert_str_eq(text, expected);
}

START_TEST(the_highest_score_is_joined_first_and_the_leftmost_of_equals)
{
    static const char *const TEXTS[] = {"a", "b", "c", "ab", "bc", "abc", "aa"};
    static const float SCORES[] = {-9, -9, -9, -2, -1, -3, -1};
    struct fl_bpe *bpe = scored(TEXTS, SCORES, 7);
    word_is(bpe, "abc", "5 "); /* bc, then a + bc */
    word_is(bpe, "abab", "3 3 ");
    word_is(bpe, "aaa", "6 0 ");
    word_is(bpe, "aabc", "6 4 "); /* equal scores: the left pair */
    word_is(bpe, "bcx", "4 ");    /* no token, no unk: it vanishes */
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(a_token_may_be_joined_from_any_two_tokens)
{
    static const char *const TEXTS[] = {"x", "y", "z", "\u00e9", "xy", "yz", "xyz", "\u00e9x"};
    static const float SCORES[] = {0, 0, 0, 0, -1, -5, -2, -8};
    struct fl_bpe *bpe = scored(TEXTS, SCORES, 8);
    word_is(bpe, "xyz", "6 ");         /* xy + z, though x + yz would do too */
    word_is(bpe, "\u00e9x", "7 ");     /* a character of two bytes is one symbol */
    word_is(bpe, "\u00e9xyz", "3 6 "); /* xy is taken first */
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(infinite_scores_are_ranks_like_others)
{
    static const char *const TEXTS[] = {"a", "b", "ab", "ba"};
    static const float SCORES[] = {0, 0, -INFINITY, INFINITY};
    struct fl_bpe *bpe = scored(TEXTS, SCORES, 4);
    word_is(bpe, "aba", "0 3 ");
    word_is(bpe, "ab", "2 ");
    fl_bpe_free(bpe);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_highest_score_is_joined_first_and_the_leftmost_of_equals);
    tcase_add_test(tc, a_token_may_be_joined_from_any_two_tokens);
    tcase_add_test(tc, infinite_scores_are_ranks_like_others);
}
FL_TEST_MAIN("data spm", add_tests)
