/*
 * Goal: each strategy trains what it says, and what a round starts from stands for the version
 * before. Method: products before and after, bit comparison where nothing may change, unequal
 * ranks.
 */
#include "job/strategy.h"

#include <math.h>
#include <string.h>

#include "adapter/algebra.h"
#include "runner.h"

#define MODULES 2

static struct fl_module modules[MODULES] = {
    {.name = "model.layers.0.self_attn.q_proj", .out = 9, .in = 7, .layer = 0},
    {.name = "model.layers.1.self_attn.v_proj", .out = 5, .in = 7, .layer = 1},
};
static const struct fl_inventory targets = {.modules = modules, .count = MODULES};

static struct fl_adapter *first(uint16_t rank)
{
    uint16_t ranks[MODULES] = {rank, rank};
    struct fl_adapter *adapter;
    struct fl_error error;

    fl_assert_ok(fl_strategy_first(&targets, ranks, 4, 16.0, 0.0, 42, &adapter, &error), &error);
    return adapter;
}

/* A version as training would leave it: B no longer zero. */
static struct fl_adapter *trained(uint16_t rank)
{
    struct fl_adapter *adapter = first(rank);
    uint32_t state = 5;

    for (uint32_t m = 0; m < MODULES; m++)
        for (size_t i = 0; i < (size_t)rank * modules[m].out; i++) {
            state = state * 1664525u + 1013904223u;
            adapter->modules[m].b[i] = (float)((int32_t)(state >> 16) - 32768) / 65536.0f;
        }
    return adapter;
}

static enum fl_status start(enum fl_strategy strategy, uint32_t round,
                            const struct fl_adapter *previous, uint16_t rank,
                            struct fl_adapter **out, struct fl_start_result *result)
{
    uint16_t ranks[MODULES] = {rank, rank}, global[MODULES] = {rank, rank};
    struct fl_rank_plan plan = {1, MODULES, ranks, global};
    struct fl_error error;

    return fl_strategy_start(strategy, 42, round, previous, &plan, out, result, &error);
}

/* The largest difference between the products B A of two adapters. */
static double apart(const struct fl_adapter *x, const struct fl_adapter *y)
{
    double worst = 0.0;

    for (uint32_t m = 0; m < MODULES; m++) {
        const struct fl_lora_module *p = &x->modules[m], *q = &y->modules[m];
        uint32_t in = modules[m].in;
        ck_assert_double_eq_tol(fl_adapter_scale(x, m), fl_adapter_scale(y, m), 1e-12);
        for (uint32_t i = 0; i < modules[m].out; i++)
            for (uint32_t k = 0; k < in; k++) {
                double difference = 0.0;
                for (uint32_t j = 0; j < p->rank; j++)
                    difference += (double)p->b[i * p->rank + j] * (double)p->a[j * in + k];
                for (uint32_t j = 0; j < q->rank; j++)
                    difference -= (double)q->b[i * q->rank + j] * (double)q->a[j * in + k];
                worst = fmax(worst, fabs(difference));
            }
    }
    return worst;
}

/* max |rows rows^T - I| of A, or of B's columns */
static double orthonormality(const struct fl_lora_module *m, enum fl_factors factor)
{
    double worst = 0.0;
    uint32_t width = factor == FL_FACTOR_A ? m->module.in : m->module.out;

    for (uint32_t p = 0; p < m->rank; p++)
        for (uint32_t q = 0; q < m->rank; q++) {
            double sum = p == q ? -1.0 : 0.0;
            for (uint32_t i = 0; i < width; i++)
                sum += factor == FL_FACTOR_A
                           ? (double)m->a[p * width + i] * (double)m->a[q * width + i]
                           : (double)m->b[i * m->rank + p] * (double)m->b[i * m->rank + q];
            worst = fmax(worst, fabs(sum));
        }
    return worst;
}

static bool same_factor(const struct fl_adapter *x, const struct fl_adapter *y, bool a)
{
    for (uint32_t m = 0; m < MODULES; m++) {
        const struct fl_lora_module *p = &x->modules[m], *q = &y->modules[m];
        size_t bytes = 4ull * p->rank * (a ? modules[m].in : modules[m].out);
        if (p->rank != q->rank || memcmp(a ? p->a : p->b, a ? q->a : q->b, bytes) != 0)
            return false;
    }
    return true;
}

START_TEST(each_strategy_trains_its_factors)
{
    ck_assert_int_eq(fl_strategy_factors(FL_STRATEGY_ALTERNATING, 1), FL_FACTOR_B);
    ck_assert_int_eq(fl_strategy_factors(FL_STRATEGY_ALTERNATING, 2), FL_FACTOR_A);
    ck_assert_int_eq(fl_strategy_factors(FL_STRATEGY_ROLORA, 3), FL_FACTOR_B);
    ck_assert_int_eq(fl_strategy_factors(FL_STRATEGY_FFA, 2), FL_FACTOR_B);
    ck_assert_int_eq(fl_strategy_factors(FL_STRATEGY_FEDIT, 7), FL_FACTORS_BOTH);
}
END_TEST

START_TEST(every_strategy_is_found_by_its_name)
{
    enum fl_strategy found;

    for (unsigned i = 0; i < FL_STRATEGY_COUNT; i++) {
        const struct fl_strategy_info *info = fl_strategy_info((enum fl_strategy)i);
        ck_assert_int_eq(fl_strategy_find(info->name, &found), FL_OK);
        ck_assert_uint_eq((unsigned)found, i);
        ck_assert(!info->needs_single || !info->built);
        ck_assert_ptr_nonnull(strstr(FL_STRATEGY_CHOICES, info->name));
    }
    ck_assert_int_eq(fl_strategy_find("fedavg", &found), FL_ENOTFOUND);
}
END_TEST

START_TEST(version_zero_has_a_seeded_a_and_no_effect)
{
    struct fl_adapter *one = first(3), *two = first(3);

    ck_assert(same_factor(one, two, true));
    ck_assert_double_gt(fl_adapter_max_abs(one, FL_FACTOR_A), 0.0);
    ck_assert_double_eq(fl_adapter_max_abs(one, FL_FACTOR_B), 0.0);
    ck_assert_double_eq_tol(fl_adapter_scale(one, 0), 4.0, 1e-12); /* alpha / default rank */
    fl_adapter_destroy(&one);
    fl_adapter_destroy(&two);
}
END_TEST

START_TEST(alternating_keeps_the_product_and_freezes_an_orthonormal_factor)
{
    struct fl_adapter *previous = trained(4), *next, *again;
    struct fl_start_result result;

    for (uint32_t round = 2; round <= 3; round++) {
        enum fl_factors frozen = round == 2 ? FL_FACTOR_B : FL_FACTOR_A;
        ck_assert_int_eq(start(FL_STRATEGY_ALTERNATING, round, previous, 4, &next, &result), FL_OK);
        ck_assert_double_le(apart(previous, next), 1e-6);
        for (uint32_t m = 0; m < MODULES; m++)
            ck_assert_double_le(orthonormality(&next->modules[m], frozen), 1e-6);
        ck_assert_double_eq(result.energy_lost, 0.0);
        ck_assert_int_eq(start(FL_STRATEGY_ALTERNATING, round, previous, 4, &again, NULL), FL_OK);
        ck_assert(same_factor(next, again, true) && same_factor(next, again, false));
        fl_adapter_destroy(&next);
        fl_adapter_destroy(&again);
    }
    fl_adapter_destroy(&previous);
}
END_TEST

START_TEST(the_first_round_of_alternating_starts_orthonormal_and_without_effect)
{
    struct fl_adapter *previous = first(4), *next;

    ck_assert_int_eq(start(FL_STRATEGY_ALTERNATING, 1, previous, 4, &next, NULL), FL_OK);
    ck_assert_double_eq(fl_adapter_max_abs(next, FL_FACTOR_B), 0.0);
    ck_assert_double_le(orthonormality(&next->modules[0], FL_FACTOR_A), 1e-6);
    fl_adapter_destroy(&previous);
    fl_adapter_destroy(&next);
}
END_TEST

START_TEST(without_refactoring_not_a_bit_changes)
{
    static const enum fl_strategy plain[3] = {FL_STRATEGY_FFA, FL_STRATEGY_ROLORA,
                                              FL_STRATEGY_FEDIT};

    for (int i = 0; i < 3; i++) {
        struct fl_adapter *previous = trained(4), *next;
        ck_assert_int_eq(start(plain[i], 2, previous, 4, &next, NULL), FL_OK);
        ck_assert(same_factor(previous, next, true) && same_factor(previous, next, false));
        fl_adapter_destroy(&previous);
        fl_adapter_destroy(&next);
    }
}
END_TEST

START_TEST(a_growing_rank_keeps_the_product_and_can_be_trained)
{
    for (unsigned s = 0; s <= FL_STRATEGY_FEDIT; s++) {
        for (uint32_t round = 2; round <= 3; round++) {
            struct fl_adapter *previous = trained(2), *next;
            bool b_is_frozen = fl_strategy_factors((enum fl_strategy)s, round) == FL_FACTOR_A;
            ck_assert_int_eq(start((enum fl_strategy)s, round, previous, 4, &next, NULL), FL_OK);
            ck_assert_double_le(apart(previous, next), 1e-6);
            for (uint32_t m = 0; m < MODULES; m++) {
                const struct fl_lora_module *module = &next->modules[m];
                double fresh = 0.0;
                ck_assert_uint_eq(module->rank, 4);
                for (uint32_t i = 0; b_is_frozen && i < modules[m].out; i++)
                    fresh += fabs((double)module->b[i * 4 + 3]);
                for (uint32_t k = 0; !b_is_frozen && k < modules[m].in; k++)
                    fresh += fabs((double)module->a[3 * modules[m].in + k]);
                ck_assert_double_gt(fresh, 0.01);
            }
            fl_adapter_destroy(&previous);
            fl_adapter_destroy(&next);
        }
    }
}
END_TEST

START_TEST(ffa_keeps_the_rows_of_a_when_the_rank_grows)
{
    struct fl_adapter *previous = trained(2), *next;

    ck_assert_int_eq(start(FL_STRATEGY_FFA, 2, previous, 4, &next, NULL), FL_OK);
    for (uint32_t m = 0; m < MODULES; m++)
        ck_assert_mem_eq(previous->modules[m].a, next->modules[m].a, 8ull * modules[m].in);
    fl_adapter_destroy(&previous);
    fl_adapter_destroy(&next);
}
END_TEST

START_TEST(only_refactoring_may_shrink_and_it_reports_the_loss)
{
    struct fl_adapter *previous = trained(4), *next;
    struct fl_start_result result;

    ck_assert_int_eq(start(FL_STRATEGY_FEDIT, 2, previous, 2, &next, NULL), FL_EINVAL);
    ck_assert_ptr_null(next);
    ck_assert_int_eq(start(FL_STRATEGY_ALTERNATING, 2, previous, 2, &next, &result), FL_OK);
    ck_assert_uint_eq(next->modules[0].rank, 2);
    ck_assert_double_gt(result.energy_lost, 0.0);
    ck_assert_double_lt(result.energy_lost, result.energy);
    fl_adapter_destroy(&previous);
    fl_adapter_destroy(&next);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, each_strategy_trains_its_factors);
    tcase_add_test(tc, every_strategy_is_found_by_its_name);
    tcase_add_test(tc, version_zero_has_a_seeded_a_and_no_effect);
    tcase_add_test(tc, alternating_keeps_the_product_and_freezes_an_orthonormal_factor);
    tcase_add_test(tc, the_first_round_of_alternating_starts_orthonormal_and_without_effect);
    tcase_add_test(tc, without_refactoring_not_a_bit_changes);
    tcase_add_test(tc, a_growing_rank_keeps_the_product_and_can_be_trained);
    tcase_add_test(tc, ffa_keeps_the_rows_of_a_when_the_rank_grows);
    tcase_add_test(tc, only_refactoring_may_shrink_and_it_reports_the_loss);
}

FL_TEST_MAIN("job.strategy", add_tests)
