/*
 * Goal: masks are reproducible, differ by every input, and cancel.
 * Method: apply and remove; vectors longer than a block of keystream; the same keystream computed
 * once more by hand.
 */
#include "secagg/masks.h"

#include <string.h>

#include "base/buf.h"
#include "runner.h"

#define ELEMENTS 40000 /* more than two blocks of keystream */

static uint32_t first[ELEMENTS], second[ELEMENTS];

START_TEST(a_mask_that_is_removed_leaves_nothing)
{
    uint8_t seed[FL_HASH_BYTES] = {1}, cohort[FL_HASH_BYTES] = {2};
    uint64_t scalars[5] = {1, 2, 3, 4, UINT64_MAX};
    for (uint32_t i = 0; i < ELEMENTS; i++)
        first[i] = i * 2654435761u;
    fl_mask_apply(seed, cohort, false, first, ELEMENTS, scalars, 5);
    uint32_t same = 0;
    for (uint32_t i = 0; i < ELEMENTS; i++)
        same += first[i] == i * 2654435761u;
    ck_assert_uint_lt(same, 3);
    fl_mask_apply(seed, cohort, true, first, ELEMENTS, scalars, 5);
    for (uint32_t i = 0; i < ELEMENTS; i++)
        ck_assert_uint_eq(first[i], i * 2654435761u);
    for (uint64_t i = 0; i < 4; i++)
        ck_assert(scalars[i] == i + 1);
    ck_assert(scalars[4] == UINT64_MAX);
}
END_TEST

START_TEST(seed_and_cohort_and_label_each_change_the_mask)
{
    uint8_t seed[FL_HASH_BYTES] = {1}, cohort[FL_HASH_BYTES] = {2};
    uint64_t scalars[8] = {0}, other[8] = {0};
    memset(first, 0, sizeof(first));
    memset(second, 0, sizeof(second));
    fl_mask_apply(seed, cohort, false, first, 16, scalars, 8);
    cohort[31] ^= 1;
    fl_mask_apply(seed, cohort, false, second, 16, other, 8);
    ck_assert_mem_ne(first, second, 64);
    ck_assert_mem_ne(scalars, other, sizeof(scalars));
    ck_assert_mem_ne(first, scalars, 64); /* vector and scalars have streams of their own */
    cohort[31] ^= 1;
    seed[0] = 3;
    memset(second, 0, sizeof(second));
    fl_mask_apply(seed, cohort, false, second, 16, other, 8);
    ck_assert_mem_ne(first, second, 64);
}
END_TEST

/* The stream itself, in one piece: what fl_mask_apply() must add under this label. */
static void expected_stream(const char *label, uint8_t *stream, size_t bytes)
{
    const uint8_t seed[FL_HASH_BYTES] = {9}, cohort[FL_HASH_BYTES] = {8};
    static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    uint8_t key[FL_HASH_BYTES];
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, seed, sizeof(seed));
    fl_blake2b_update(&hash, "fedlora-mask-v1", 15);
    fl_blake2b_update(&hash, cohort, sizeof(cohort));
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_final(&hash, key);
    crypto_stream_chacha20(stream, bytes, nonce, key);
}

START_TEST(the_stream_is_chacha20_across_blocks)
{
    const uint8_t seed[FL_HASH_BYTES] = {9}, cohort[FL_HASH_BYTES] = {8};
    static uint8_t stream[4 * ELEMENTS];
    static const uint32_t lengths[] = {0, 1, 15, 16, 17, 4095, 4096, 4097, 16385, ELEMENTS};
    expected_stream("vector", stream, sizeof(stream));
    for (size_t k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
        memset(first, 0, sizeof(first));
        memset(second, 0, sizeof(second));
        fl_mask_apply(seed, cohort, false, first, lengths[k], NULL, 0);
        fl_mask_apply(seed, cohort, true, second, lengths[k], NULL, 0);
        for (uint32_t i = 0; i < ELEMENTS; i++) {
            const uint32_t mask = i < lengths[k] ? fl_load_u32(stream + 4 * (size_t)i) : 0;
            ck_assert_uint_eq(first[i], mask);
            ck_assert_uint_eq(second[i], 0u - mask);
        }
    }
}
END_TEST

START_TEST(the_stream_of_scalars_is_chacha20_across_blocks)
{
    const uint8_t seed[FL_HASH_BYTES] = {9}, cohort[FL_HASH_BYTES] = {8};
    static uint8_t stream[8 * 9001];
    static uint64_t scalars[9002];
    expected_stream("scalars", stream, sizeof(stream));
    fl_mask_apply(seed, cohort, false, NULL, 0, scalars, 9001);
    for (size_t i = 0; i < 9001; i++)
        ck_assert(scalars[i] == fl_load_u64(stream + 8 * i));
    ck_assert(scalars[9001] == 0);
}
END_TEST

START_TEST(two_members_agree_and_a_weak_key_is_refused)
{
    uint8_t a[32] = {1, 2, 3}, b[32] = {4, 5, 6}, pa[32], pb[32], ab[32], ba[32], cohort[32] = {7};
    static const uint8_t weak[32];
    crypto_scalarmult_base(pa, a);
    crypto_scalarmult_base(pb, b);
    ck_assert_int_eq(fl_mask_agree(a, pa, pb, cohort, "x", ab), FL_OK);
    ck_assert_int_eq(fl_mask_agree(b, pb, pa, cohort, "x", ba), FL_OK);
    ck_assert_mem_eq(ab, ba, 32);
    ck_assert_int_eq(fl_mask_agree(b, pb, pa, cohort, "y", ba), FL_OK);
    ck_assert_mem_ne(ab, ba, 32);
    ck_assert_int_eq(fl_mask_agree(a, pa, weak, cohort, "x", ab), FL_EREFUSED);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_mask_that_is_removed_leaves_nothing);
    tcase_add_test(tc, seed_and_cohort_and_label_each_change_the_mask);
    tcase_add_test(tc, the_stream_is_chacha20_across_blocks);
    tcase_add_test(tc, the_stream_of_scalars_is_chacha20_across_blocks);
    tcase_add_test(tc, two_members_agree_and_a_weak_key_is_refused);
}
FL_TEST_MAIN("masks", add_tests)
