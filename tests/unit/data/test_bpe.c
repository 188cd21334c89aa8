/* Merging on a vocabulary small enough to follow by hand. */
#include "worker/data/bpe.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "runner.h"

static struct fl_bpe *letters(void)
{
    struct fl_bpe *bpe = fl_bpe_new(0, 0);
    ck_assert_ptr_nonnull(bpe);
    static const char *const TOKENS[] = {"a", "b", "c", "ab", "bc", "abc", "aa", "aaaa"};
    for (uint32_t i = 0; i < 8; i++)
        ck_assert_int_eq(fl_bpe_add_token(bpe, i, TOKENS[i], strlen(TOKENS[i]), true), FL_OK);
    return bpe;
}

static void merge(struct fl_bpe *bpe, const char *a, const char *b, uint32_t rank)
{
    ck_assert_int_eq(fl_bpe_add_merge(bpe, a, strlen(a), b, strlen(b), rank), FL_OK);
}

static void word_is(struct fl_bpe *bpe, const char *word, const char *expected)
{
    for (int again = 0; again < 2; again++) { /* the second time out of the cache */
        struct fl_ids ids = {0};
        char text[256] = "";
        ck_assert_int_eq(fl_bpe_word(bpe, word, strlen(word), &ids), FL_OK);
        for (size_t i = 0; i < ids.count; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%d ", ids.ids[i]);
        fl_ids_free(&ids);
        ck_assert_str_eq(text, expected);
    }
}

START_TEST(the_lowest_rank_merges_first_and_the_leftmost_of_equals)
{
    struct fl_bpe *bpe = letters();
    merge(bpe, "b", "c", 0);
    merge(bpe, "a", "b", 1);
    merge(bpe, "a", "bc", 2);
    merge(bpe, "a", "a", 3);
    merge(bpe, "aa", "aa", 4);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = -1});
    word_is(bpe, "abc", "5 ");
    word_is(bpe, "ab", "3 ");
    word_is(bpe, "aaa", "6 0 ");
    word_is(bpe, "aaaaa", "7 0 ");
    word_is(bpe, "", "");
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(bytes_without_a_token_vanish_or_become_unk)
{
    struct fl_bpe *bpe = letters();
    merge(bpe, "a", "b", 0);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = -1});
    word_is(bpe, "axxb", "3 ");
    fl_bpe_free(bpe);
    bpe = letters();
    merge(bpe, "a", "b", 0);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = 2});
    word_is(bpe, "axxb", "0 2 2 1 ");
    fl_bpe_free(bpe);
    bpe = letters();
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = 2, .fuse_unk = true});
    word_is(bpe, "axxb", "0 2 1 ");
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(characters_without_a_token_fall_back_to_bytes_or_unk)
{
    struct fl_bpe *bpe = letters();
    ck_assert_int_eq(fl_bpe_add_token(bpe, 8, "\u00e9", 2, true), FL_OK);
    ck_assert_int_eq(fl_bpe_add_token(bpe, 9, "a\u00e9", 3, true), FL_OK);
    merge(bpe, "a", "\u00e9", 0);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = 2, .fuse_unk = true, .characters = true});
    word_is(bpe, "a\u00e9\u00e9", "9 8 ");
    word_is(bpe, "a\u00ea\u00ebb", "0 2 1 "); /* no tokens for bytes: one unk */
    fl_bpe_set_fallback(bpe, 0xC3, 6);
    fl_bpe_set_fallback(bpe, 0xAA, 7);
    word_is(bpe, "b\u00ea", "1 6 7 ");
    word_is(bpe, "b\u00eb\u00ea", "1 6 7 2 "); /* a due unk is laid down behind the bytes */
    word_is(bpe, "\xC3", "6 ");                /* a byte outside UTF-8 is a character */
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(ignore_merges_takes_a_whole_word_first)
{
    struct fl_bpe *bpe = letters();
    merge(bpe, "b", "c", 0);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = -1, .ignore_merges = true});
    word_is(bpe, "abc", "5 ");
    word_is(bpe, "abcb", "0 4 1 ");
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(tables_grow_and_refuse_what_is_taken)
{
    struct fl_bpe *bpe = fl_bpe_new(0, 0);
    ck_assert_ptr_nonnull(bpe);
    for (uint32_t i = 0; i < 5000; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        ck_assert_int_eq(fl_bpe_add_token(bpe, i * 3, name, strlen(name), true), FL_OK);
    }
    ck_assert_int_eq(fl_bpe_add_token(bpe, 3, "new", 3, true), FL_EEXIST);
    ck_assert_int_eq(fl_bpe_add_token(bpe, 4, "t7", 2, true), FL_EEXIST);
    ck_assert_int_eq(fl_bpe_add_token(bpe, 4, "t7", 2, false), FL_OK);
    ck_assert_int_eq(fl_bpe_add_token(bpe, 0xFFFFFFFF, "x", 1, true), FL_ERANGE);
    ck_assert_int_eq(fl_bpe_add_merge(bpe, "t7", 2, "no", 2, 0), FL_ENOTFOUND);
    ck_assert_int_eq(fl_bpe_find(bpe, "t4999", 5), 4999 * 3);
    const char *bytes;
    size_t length;
    ck_assert(!fl_bpe_token(bpe, 5, &bytes, &length));
    ck_assert(!fl_bpe_token(bpe, 1u << 30, &bytes, &length));
    ck_assert_uint_eq(fl_bpe_size(bpe), 4999 * 3 + 1);
    fl_bpe_free(bpe);
}
END_TEST

START_TEST(the_printable_alphabet_maps_all_bytes_once)
{
    char text[] = "\u0120a\u010a\u0143\u00a1\u0142";
    size_t length = strlen(text);
    ck_assert(fl_bpe_from_alphabet(text, &length));
    ck_assert_uint_eq(length, 6);
    ck_assert_int_eq(memcmp(text, " a\n\xAD\xA1\xA0", 6), 0);
    char raw[] = "a b";
    length = 3;
    ck_assert(!fl_bpe_from_alphabet(raw, &length));
    ck_assert_uint_eq(length, 3);
}
END_TEST

START_TEST(a_word_of_a_million_bytes_merges_in_time)
{
    struct fl_bpe *bpe = letters();
    merge(bpe, "a", "a", 0);
    merge(bpe, "aa", "aa", 1);
    fl_bpe_set_rules(bpe, &(struct fl_bpe_rules){.unk = -1});
    size_t length = 1000000;
    char *word = fl_malloc(length);
    ck_assert_ptr_nonnull(word);
    memset(word, 'a', length);
    struct fl_ids ids = {0};
    ck_assert_int_eq(fl_bpe_word(bpe, word, length, &ids), FL_OK);
    ck_assert_uint_eq(ids.count, length / 4);
    fl_ids_free(&ids);
    fl_free(word);
    fl_bpe_free(bpe);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_lowest_rank_merges_first_and_the_leftmost_of_equals);
    tcase_add_test(tc, bytes_without_a_token_vanish_or_become_unk);
    tcase_add_test(tc, characters_without_a_token_fall_back_to_bytes_or_unk);
    tcase_add_test(tc, ignore_merges_takes_a_whole_word_first);
    tcase_add_test(tc, tables_grow_and_refuse_what_is_taken);
    tcase_add_test(tc, the_printable_alphabet_maps_all_bytes_once);
    tcase_add_test(tc, a_word_of_a_million_bytes_merges_in_time);
}
FL_TEST_MAIN("data bpe", add_tests)
