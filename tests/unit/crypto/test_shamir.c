/*
 * Goal: any t shares give the secret back, fewer say nothing, wrong ones do not.
 * Method: every t-subset of small cases, random subsets of large ones, the formula by hand for t
 * = 2.
 */
#include "crypto/shamir.h"

#include <string.h>

#include "crypto/prg.h"
#include "runner.h"

static void seeded(void *context, void *out, size_t length)
{
    fl_prg_bytes(context, out, length);
}

static struct fl_prg stream;

static struct fl_entropy entropy_of(uint8_t seed)
{
    uint8_t key[FL_SEED_BYTES] = {seed};
    fl_prg_init(&stream, key);
    return (struct fl_entropy){seeded, &stream};
}

START_TEST(every_subset_of_t_shares_gives_the_secret)
{
    struct fl_entropy entropy = entropy_of(1);
    uint8_t secret[FL_SCALAR_BYTES], shares[5][FL_SCALAR_BYTES];
    fl_shamir_secret(&entropy, secret);
    ck_assert_int_eq(fl_shamir_split(secret, 3, 5, &entropy, shares[0]), FL_OK);
    for (uint32_t set = 0; set < 32; set++) {
        uint8_t x[5], chosen[5][FL_SCALAR_BYTES], back[FL_SCALAR_BYTES];
        uint32_t count = 0;
        for (uint32_t i = 0; i < 5; i++) {
            if (!(set >> i & 1))
                continue;
            x[count] = (uint8_t)(i + 1);
            memcpy(chosen[count++], shares[i], FL_SCALAR_BYTES);
        }
        if (count == 0)
            continue;
        ck_assert_int_eq(fl_shamir_combine(x, chosen[0], count, back), FL_OK);
        ck_assert_int_eq(memcmp(back, secret, FL_SCALAR_BYTES) == 0, count >= 3);
    }
}
END_TEST

START_TEST(one_wrong_share_gives_another_secret)
{
    struct fl_entropy entropy = entropy_of(2);
    uint8_t secret[FL_SCALAR_BYTES], shares[4][FL_SCALAR_BYTES], back[FL_SCALAR_BYTES];
    const uint8_t x[3] = {1, 2, 3};
    fl_shamir_secret(&entropy, secret);
    ck_assert_int_eq(fl_shamir_split(secret, 3, 4, &entropy, shares[0]), FL_OK);
    shares[1][0] ^= 1;
    ck_assert_int_eq(fl_shamir_combine(x, shares[0], 3, back), FL_OK);
    ck_assert_mem_ne(back, secret, FL_SCALAR_BYTES);
}
END_TEST

START_TEST(a_hundred_sites_with_a_threshold_of_two_thirds)
{
    struct fl_entropy entropy = entropy_of(3);
    uint8_t secret[FL_SCALAR_BYTES], back[FL_SCALAR_BYTES], x[67];
    static uint8_t shares[100][FL_SCALAR_BYTES], chosen[67][FL_SCALAR_BYTES];
    uint32_t order[100];
    fl_shamir_secret(&entropy, secret);
    ck_assert_int_eq(fl_shamir_split(secret, 67, 100, &entropy, shares[0]), FL_OK);
    for (uint32_t i = 0; i < 100; i++)
        order[i] = i;
    fl_prg_shuffle(&stream, order, 100);
    for (uint32_t i = 0; i < 67; i++) {
        x[i] = (uint8_t)(order[i] + 1);
        memcpy(chosen[i], shares[order[i]], FL_SCALAR_BYTES);
    }
    ck_assert_int_eq(fl_shamir_combine(x, chosen[0], 67, back), FL_OK);
    ck_assert_mem_eq(back, secret, FL_SCALAR_BYTES);
}
END_TEST

START_TEST(impossible_thresholds_and_places_are_refused)
{
    struct fl_entropy entropy = entropy_of(4);
    uint8_t secret[FL_SCALAR_BYTES], shares[3][FL_SCALAR_BYTES], out[FL_SCALAR_BYTES];
    fl_shamir_secret(&entropy, secret);
    ck_assert_int_eq(fl_shamir_split(secret, 0, 3, &entropy, shares[0]), FL_EINVAL);
    ck_assert_int_eq(fl_shamir_split(secret, 4, 3, &entropy, shares[0]), FL_EINVAL);
    ck_assert_int_eq(fl_shamir_split(secret, 2, 256, &entropy, shares[0]), FL_EINVAL);
    const uint8_t twice[2] = {2, 2}, zero[2] = {0, 1};
    ck_assert_int_eq(fl_shamir_combine(twice, shares[0], 2, out), FL_EINVAL);
    ck_assert_int_eq(fl_shamir_combine(zero, shares[0], 2, out), FL_EINVAL);
    memset(secret, 0xff, sizeof(secret));
    ck_assert_int_eq(fl_shamir_split(secret, 2, 3, &entropy, shares[0]), FL_EINVAL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, every_subset_of_t_shares_gives_the_secret);
    tcase_add_test(tc, one_wrong_share_gives_another_secret);
    tcase_add_test(tc, a_hundred_sites_with_a_threshold_of_two_thirds);
    tcase_add_test(tc, impossible_thresholds_and_places_are_refused);
}
FL_TEST_MAIN("shamir", add_tests)
