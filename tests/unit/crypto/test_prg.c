/*
 * Goal: a seed gives the same numbers for ever, however they are asked for, and they are fair.
 * Method: ChaCha20's published keystream; seek against straight reading; pinned values; moments.
 */
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "crypto/prg.h"
#include "runner.h"

static const uint8_t zero_seed[FL_SEED_BYTES];

START_TEST(the_stream_is_chacha20)
{
    /* key and nonce zero: RFC 7539 appendix A.1, vector 1 */
    static const char expected[] =
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7";
    struct fl_prg prg;
    uint8_t bytes[32];
    char hex[65];
    fl_prg_init(&prg, zero_seed);
    fl_prg_bytes(&prg, bytes, sizeof(bytes));
    fl_hex(bytes, sizeof(bytes), hex);
    ck_assert_str_eq(hex, expected);
}
END_TEST

START_TEST(pieces_of_any_size_and_seeks_give_the_same_stream)
{
    static uint8_t straight[5000], pieces[5000];
    struct fl_prg prg;
    fl_prg_init(&prg, zero_seed);
    fl_prg_bytes(&prg, straight, sizeof(straight));
    fl_prg_init(&prg, zero_seed);
    for (size_t at = 0, n = 1; at < sizeof(pieces); at += n, n = (n * 7 + 3) % 1300 + 1) {
        if (n > sizeof(pieces) - at)
            n = sizeof(pieces) - at;
        fl_prg_bytes(&prg, pieces + at, n);
    }
    ck_assert_mem_eq(straight, pieces, sizeof(straight));
    for (size_t at = 0; at + 100 < sizeof(straight); at += 61) {
        uint8_t some[100];
        fl_prg_seek(&prg, at);
        fl_prg_bytes(&prg, some, sizeof(some));
        ck_assert_mem_eq(some, straight + at, sizeof(some));
    }
}
END_TEST

START_TEST(numbers_below_a_bound_are_fair)
{
    struct fl_prg prg;
    unsigned count[7] = {0};
    fl_prg_init(&prg, zero_seed);
    for (int i = 0; i < 70000; i++) {
        const uint64_t x = fl_prg_below(&prg, 7);
        ck_assert_uint_lt(x, 7);
        count[x]++;
    }
    for (int i = 0; i < 7; i++)
        ck_assert_msg(count[i] > 9500 && count[i] < 10500, "%d came %u times", i, count[i]);
    ck_assert_uint_eq(fl_prg_below(&prg, 1), 0);
    for (int i = 0; i < 100; i++)
        ck_assert_uint_lt(fl_prg_below(&prg, UINT64_MAX), UINT64_MAX);
}
END_TEST

START_TEST(gaussians_have_the_moments_of_a_normal_distribution)
{
    struct fl_prg prg;
    const int n = 200000;
    double sum = 0.0, squares = 0.0, fourth = 0.0, largest = 0.0;
    fl_prg_init(&prg, zero_seed);
    for (int i = 0; i < n; i++) {
        const double x = fl_prg_gaussian(&prg);
        ck_assert(isfinite(x));
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
        largest = fmax(largest, fabs(x));
    }
    ck_assert_double_eq_tol(sum / n, 0.0, 0.01);
    ck_assert_double_eq_tol(squares / n, 1.0, 0.02);
    ck_assert_double_eq_tol(fourth / n, 3.0, 0.1);
    ck_assert_double_gt(largest, 4.0);
    ck_assert_double_lt(largest, 6.5);
}
END_TEST

START_TEST(gaussians_are_the_same_bytes_on_any_machine)
{
    struct fl_prg prg;
    struct fl_blake2b hash;
    uint8_t digest[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    fl_prg_init(&prg, zero_seed);
    fl_blake2b_init(&hash, NULL, 0);
    for (int i = 0; i < 10000; i++) {
        const double x = fl_prg_gaussian(&prg);
        uint64_t bits;
        uint8_t raw[8];
        memcpy(&bits, &x, sizeof(bits));
        fl_store_u64(raw, bits);
        fl_blake2b_update(&hash, raw, sizeof(raw));
    }
    fl_blake2b_final(&hash, digest);
    fl_hex(digest, sizeof(digest), hex);
    ck_assert_str_eq(hex, "238db103e66c2ae601261357dc4fd9d800226b0218b20c3bcf5f099e60a7d305");
}
END_TEST

START_TEST(a_shuffle_is_a_permutation_that_the_seed_decides)
{
    struct fl_prg prg;
    uint32_t one[100], two[100];
    bool seen[100] = {false};
    for (uint32_t i = 0; i < 100; i++)
        one[i] = two[i] = i;
    fl_prg_init(&prg, zero_seed);
    fl_prg_shuffle(&prg, one, 100);
    fl_prg_init(&prg, zero_seed);
    fl_prg_shuffle(&prg, two, 100);
    ck_assert_mem_eq(one, two, sizeof(one));
    unsigned fixed = 0;
    for (uint32_t i = 0; i < 100; i++) {
        ck_assert(!seen[one[i]]);
        seen[one[i]] = true;
        fixed += one[i] == i;
    }
    ck_assert_uint_lt(fixed, 8);
    fl_prg_shuffle(&prg, one, 0);
    fl_prg_shuffle(&prg, one, 1);
}
END_TEST

START_TEST(derived_seeds_differ_with_every_part_and_its_borders)
{
    uint8_t seed[6][FL_SEED_BYTES];
    struct fl_prf prf;
#define DERIVE(k, number, label, a, b, value)                                                      \
    do {                                                                                           \
        fl_prf_begin_u64(&prf, (number), (label));                                                 \
        fl_prf_text(&prf, (a));                                                                    \
        fl_prf_text(&prf, (b));                                                                    \
        fl_prf_u64(&prf, (value));                                                                 \
        fl_prf_end(&prf, seed[k]);                                                                 \
    } while (0)
    DERIVE(0, 1, "order", "ab", "c", 3);
    DERIVE(1, 1, "order", "a", "bc", 3);
    DERIVE(2, 1, "order", "ab", "c", 4);
    DERIVE(3, 2, "order", "ab", "c", 3);
    DERIVE(4, 1, "ordera", "b", "c", 3);
    DERIVE(5, 1, "order", "ab", "c", 3);
#undef DERIVE
    ck_assert_mem_eq(seed[0], seed[5], FL_SEED_BYTES);
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < i; k++)
            ck_assert_mem_ne(seed[i], seed[k], FL_SEED_BYTES);
    char hex[FL_HASH_HEX_BYTES];
    fl_hex(seed[0], FL_SEED_BYTES, hex);
    ck_assert_str_eq(hex, "9199cb78079950ae60498f9cfa712911d9a797c7599dc42684d30b602a0440a2");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_stream_is_chacha20);
    tcase_add_test(tc, pieces_of_any_size_and_seeks_give_the_same_stream);
    tcase_add_test(tc, numbers_below_a_bound_are_fair);
    tcase_add_test(tc, gaussians_have_the_moments_of_a_normal_distribution);
    tcase_add_test(tc, gaussians_are_the_same_bytes_on_any_machine);
    tcase_add_test(tc, a_shuffle_is_a_permutation_that_the_seed_decides);
    tcase_add_test(tc, derived_seeds_differ_with_every_part_and_its_borders);
}

FL_TEST_MAIN("crypto.prg", add_tests)
