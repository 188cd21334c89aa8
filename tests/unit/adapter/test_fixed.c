/*
 * Goal: the grid is the documented one to the last bit, and sums on it are exact.
 * Method: worked numbers; rounding under every mode of the machine; sums in several orders.
 */
#include "adapter/fixed.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "runner.h"

static struct fl_grid grid_of(uint32_t sites)
{
    struct fl_grid grid;
    ck_assert_int_eq(fl_grid_init(&grid, sites, 1000000, 8, 4, 256), FL_OK);
    return grid;
}

START_TEST(the_grid_leaves_two_guard_bits)
{
    static const struct {
        uint32_t sites, bits;
    } cases[] = {{1, 30}, {2, 29}, {3, 28}, {4, 28}, {5, 27}, {10, 26}, {100, 23}, {4096, 18}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fl_grid grid = grid_of(cases[i].sites);
        ck_assert_uint_eq(grid.bits, cases[i].bits);
        ck_assert_int_eq(grid.q_max, ((int64_t)1 << (cases[i].bits - 1)) - 1);
        ck_assert_uint_eq(grid.w_max, 8192);
        ck_assert_int_lt(grid.q_max * (int64_t)cases[i].sites, (int64_t)1 << 29);
    }
}
END_TEST

START_TEST(the_largest_weight_is_the_cap_or_the_tokens_of_a_round)
{
    struct fl_grid grid;

    ck_assert_int_eq(fl_grid_init(&grid, 3, 1000000, 1000, 64, 2048), FL_OK);
    ck_assert_uint_eq(grid.w_max, 1000000);
    ck_assert_int_eq(fl_grid_init(&grid, 3, 1000000, UINT64_MAX, UINT64_MAX, 7), FL_OK);
    ck_assert_uint_eq(grid.w_max, 1000000);
    ck_assert_int_eq(fl_grid_init(&grid, 0, 1000000, 1, 1, 1), FL_EINVAL);
    ck_assert_int_eq(fl_grid_init(&grid, 4097, 1000000, 1, 1, 1), FL_EINVAL);
    ck_assert_int_eq(fl_grid_init(&grid, 3, 1000000, 0, 1, 1), FL_EINVAL);
}
END_TEST

START_TEST(halves_go_to_the_even_neighbour_in_every_rounding_mode)
{
    static const struct {
        double x;
        int64_t nearest;
    } cases[] = {{0.0, 0},
                 {0.5, 0},
                 {1.5, 2},
                 {2.5, 2},
                 {-0.5, 0},
                 {-1.5, -2},
                 {-2.5, -2},
                 {0.49, 0},
                 {0.51, 1},
                 {-0.51, -1},
                 {3.49, 3},
                 {-7.5, -8},
                 {1e15, (int64_t)1e15},
                 {0.49999999999999994, 0}};
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

    for (size_t m = 0; m < 4; m++) {
        fesetround(modes[m]);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            ck_assert_int_eq(fl_round_half_even(cases[i].x), cases[i].nearest);
    }
    fesetround(FE_TONEAREST);
}
END_TEST

START_TEST(values_land_where_the_formula_says)
{
    struct fl_grid grid = grid_of(3); /* Q = 134217727, w_max = 8192 */
    uint64_t cut = 0;

    ck_assert_uint_eq(fl_grid_encode(&grid, 0.016, 0.016, 8192, &cut), 134217727u);
    ck_assert_uint_eq(fl_grid_encode(&grid, -0.016, 0.016, 8192, &cut), (uint32_t)-134217727);
    ck_assert_uint_eq(fl_grid_encode(&grid, 0.5, 1.0, 8192, &cut), 67108864u); /* ...863.5 */
    ck_assert_uint_eq(fl_grid_encode(&grid, 1.0, 1.0, 1, &cut), 16384u);       /* 16383.9998 */
    ck_assert_uint_eq(fl_grid_encode(&grid, 0.25, 1.0, 4096, &cut), 16777216u);
    ck_assert_uint_eq(fl_grid_encode(&grid, 0.0, 1.0, 8192, &cut), 0u);
    ck_assert_uint_eq(cut, 0);
}
END_TEST

START_TEST(values_beyond_the_range_are_cut_and_counted)
{
    struct fl_grid grid = grid_of(3);
    uint64_t cut = 0;

    ck_assert_uint_eq(fl_grid_encode(&grid, 1.0001, 1.0, 8192, &cut), 134217727u);
    ck_assert_uint_eq(fl_grid_encode(&grid, -INFINITY, 1.0, 8192, &cut), (uint32_t)-134217727);
    ck_assert_uint_eq(fl_grid_encode(&grid, NAN, 1.0, 8192, &cut), 0u);
    ck_assert_uint_eq(cut, 3);
}
END_TEST

START_TEST(a_sum_decodes_to_the_weighted_mean_in_any_order)
{
    static const double values[4] = {0.011, -0.003, 0.0159, -0.016};
    static const uint64_t weights[4] = {8192, 17, 4001, 900};
    static const int orders[3][4] = {{0, 1, 2, 3}, {3, 1, 0, 2}, {2, 3, 1, 0}};
    struct fl_grid grid = grid_of(4);
    double exact = 0.0, total = 0.0;
    uint32_t first = 0;
    uint64_t cut = 0;

    for (int i = 0; i < 4; i++) {
        exact += (double)weights[i] * values[i];
        total += (double)weights[i];
    }
    for (int o = 0; o < 3; o++) {
        uint32_t sum = 0;
        uint8_t bytes[4];
        for (int i = 0; i < 4; i++) {
            int site = orders[o][i];
            fl_store_u32(bytes, fl_grid_encode(&grid, values[site], 0.016, weights[site], &cut));
            fl_ring_add(&sum, bytes, 1);
        }
        if (o == 0)
            first = sum;
        ck_assert_uint_eq(sum, first);
        ck_assert(fl_grid_holds(&grid, sum, false));
    }
    double step = 0.016 * 8192.0 / (134217727.0 * total);
    ck_assert_double_le(fabs(fl_grid_mean(&grid, first, 0.016, (uint64_t)total) - exact / total),
                        2.0 * step + 1e-18);
    ck_assert_double_eq(fl_grid_mean(&grid, first, 0.016, 0), 0.0);
}
END_TEST

START_TEST(what_is_added_can_be_taken_away_again)
{
    uint32_t sum[3] = {1, 0xffffffffu, 7}, before[3];
    uint8_t bytes[12];

    for (int i = 0; i < 12; i++)
        bytes[i] = (uint8_t)(200 + i);
    memcpy(before, sum, sizeof sum);
    fl_ring_add(sum, bytes, 3);
    ck_assert_uint_eq(sum[0], 1u + 0xcbcac9c8u);
    fl_ring_subtract(sum, bytes, 3);
    ck_assert_mem_eq(sum, before, sizeof sum);
}
END_TEST

START_TEST(a_sum_beyond_n_q_is_noticed)
{
    struct fl_grid grid = grid_of(3);
    uint32_t bound = 3u * 134217727u;

    ck_assert(fl_grid_holds(&grid, bound, false));
    ck_assert(fl_grid_holds(&grid, (uint32_t)0 - bound, false));
    ck_assert(!fl_grid_holds(&grid, bound + 1, false));
    ck_assert(!fl_grid_holds(&grid, (uint32_t)0 - bound - 1, false));
    ck_assert(!fl_grid_holds(&grid, 0x80000000u, false));
    ck_assert(fl_grid_holds(&grid, 134217727u, true));
    ck_assert(!fl_grid_holds(&grid, 134217728u, true));
}
END_TEST

START_TEST(the_automatic_range_follows_the_optimizer)
{
    struct fl_error error;
    double range;

    fl_assert_ok(fl_auto_range(FL_RULE_ADAMW, 1e-3, 8, 0, 1, 5.0, &range, &error), &error);
    ck_assert_double_eq_tol(range, 0.016, 1e-15);
    fl_assert_ok(fl_auto_range(FL_RULE_ADAMW, 1e-3, 8, 0.1, 1, 0.5, &range, &error), &error);
    ck_assert_double_eq_tol(range, 0.016 + 0.008 * 0.1 * 0.516, 1e-15);
    fl_assert_ok(fl_auto_range(FL_RULE_SGD, 0.1, 10, 0, 0.5, 5.0, &range, &error), &error);
    ck_assert_double_eq_tol(range, 0.5, 1e-15);
    ck_assert_int_eq(fl_auto_range(FL_RULE_SGD, 0.1, 10, 0, 0, 5.0, &range, &error), FL_EINVAL);
    ck_assert_int_eq(fl_auto_range(FL_RULE_ADAMW, 0, 10, 0, 0, 5.0, &range, &error), FL_EINVAL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_grid_leaves_two_guard_bits);
    tcase_add_test(tc, the_largest_weight_is_the_cap_or_the_tokens_of_a_round);
    tcase_add_test(tc, halves_go_to_the_even_neighbour_in_every_rounding_mode);
    tcase_add_test(tc, values_land_where_the_formula_says);
    tcase_add_test(tc, values_beyond_the_range_are_cut_and_counted);
    tcase_add_test(tc, a_sum_decodes_to_the_weighted_mean_in_any_order);
    tcase_add_test(tc, what_is_added_can_be_taken_away_again);
    tcase_add_test(tc, a_sum_beyond_n_q_is_noticed);
    tcase_add_test(tc, the_automatic_range_follows_the_optimizer);
}

FL_TEST_MAIN("adapter.fixed", add_tests)
