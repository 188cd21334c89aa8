/*
 * Goal: a round's updates become the next version exactly, in any order, with no room for a liar.
 * Method: three sites with made-up deltas through the real encoder; the mean by hand; every order
 * of arrival; broken, repeated, cut and masked updates.
 */
#include "coordinator/aggregate.h"

#include <math.h>
#include <string.h>

#include "adapter/algebra.h"
#include "job/strategy.h"
#include "runner.h"

#define SITES   3
#define MODULES 2
#define RANK    4
#define RANGE   0.05
#define B_AND_M ((enum fl_factors)(FL_FACTOR_B | FL_FACTOR_M))

static struct fl_module modules[MODULES] = {
    {.name = "model.layers.0.self_attn.q_proj", .out = 9, .in = 7, .layer = 0},
    {.name = "model.layers.1.self_attn.v_proj", .out = 5, .in = 7, .layer = 1},
};
static const struct fl_inventory targets = {.modules = modules, .count = MODULES};
static const uint64_t weights[SITES] = {512, 100, 333};

/* Everything of one round. */
struct round {
    struct fl_layout *layout;
    struct fl_grid grid;
    struct fl_adapter *start;
    struct fl_adapter *deltas[SITES]; /* at each site's ranks */
    struct fl_buf updates[SITES];
};

static struct fl_adapter *make_start(void)
{
    static const uint16_t ranks[MODULES] = {RANK, RANK};
    struct fl_adapter *adapter;
    struct fl_error error;

    fl_assert_ok(fl_strategy_first(&targets, ranks, RANK, 16.0, 0.0, 1, &adapter, &error), &error);
    for (uint32_t m = 0; m < MODULES; m++)
        for (uint32_t i = 0; i < RANK * modules[m].out; i++)
            adapter->modules[m].b[i] = 0.01f * (float)((i * 7 + m) % 11) - 0.05f;
    return adapter;
}

static void add_magnitudes(struct fl_adapter *adapter)
{
    ck_assert_int_eq(fl_adapter_add_magnitudes(adapter), FL_OK);
    for (uint32_t m = 0; m < MODULES; m++)
        for (uint32_t i = 0; i < modules[m].out; i++)
            adapter->modules[m].m[i] = 2.0f + 0.25f * (float)i;
}

/* A delta of a site: values within +-0.04 that follow no pattern. */
static struct fl_adapter *make_delta(const struct fl_adapter *start, uint32_t site,
                                     const uint16_t *ranks)
{
    struct fl_adapter *delta;
    uint32_t state = 77 + site;

    ck_assert_int_eq(fl_adapter_prefix(start, ranks, &delta), FL_OK);
    for (uint32_t m = 0; m < MODULES; m++) {
        struct fl_lora_module *module = &delta->modules[m];
        for (size_t i = 0; i < (size_t)module->rank * modules[m].in; i++) {
            state = state * 1664525u + 1013904223u;
            module->a[i] = 0.04f * (float)((int32_t)(state >> 16) - 32768) / 32768.0f;
        }
        for (size_t i = 0; i < (size_t)module->rank * modules[m].out; i++) {
            state = state * 1664525u + 1013904223u;
            module->b[i] = 0.04f * (float)((int32_t)(state >> 16) - 32768) / 32768.0f;
        }
        for (size_t i = 0; module->m != NULL && i < modules[m].out; i++) {
            state = state * 1664525u + 1013904223u;
            module->m[i] = 0.04f * (float)((int32_t)(state >> 16) - 32768) / 32768.0f;
        }
    }
    return delta;
}

static void round_open(struct round *self, enum fl_factors factors, uint16_t rank_of_site_0,
                       double range)
{
    uint16_t ranks[SITES * MODULES], global[MODULES] = {RANK, RANK};
    struct fl_rank_plan plan = {SITES, MODULES, ranks, global};
    struct fl_error error;

    for (uint32_t i = 0; i < SITES * MODULES; i++)
        ranks[i] = i < MODULES ? rank_of_site_0 : RANK;
    self->start = make_start();
    if ((factors & FL_FACTOR_M) != 0)
        add_magnitudes(self->start);
    ck_assert_int_eq(fl_grid_init(&self->grid, SITES, 1000000, 4, 4, 32), FL_OK);
    fl_assert_ok(fl_layout_create(&targets, &plan, factors, (struct fl_ranges){range, range, range},
                                  &self->layout, &error),
                 &error);
    for (uint32_t i = 0; i < SITES; i++) {
        struct fl_update_stats stats = {.weight = weights[i],
                                        .eval_loss_sum = 4.0 * (double)(i + 1),
                                        .eval_tokens = i + 1,
                                        .train_loss_sum = 3.0 * (double)weights[i],
                                        .train_tokens = weights[i]};
        self->deltas[i] = make_delta(self->start, i, ranks + i * MODULES);
        fl_buf_init(&self->updates[i], 1 << 16);
        fl_assert_ok(fl_update_encode(self->layout, &self->grid, i, self->deltas[i], &stats,
                                      &self->updates[i], NULL, &error),
                     &error);
    }
}

static void round_close(struct round *self)
{
    for (uint32_t i = 0; i < SITES; i++) {
        fl_buf_free(&self->updates[i]);
        fl_adapter_destroy(&self->deltas[i]);
    }
    fl_adapter_destroy(&self->start);
    fl_layout_destroy(&self->layout);
}

static enum fl_status add(struct fl_aggregate *aggregate, uint32_t site, const struct fl_buf *bytes,
                          size_t piece, struct fl_error *error)
{
    enum fl_status status = fl_aggregate_begin(aggregate, site, error);

    for (size_t i = 0; i < bytes->length && status == FL_OK; i += piece)
        status = fl_aggregate_push(aggregate, bytes->data + i,
                                   bytes->length - i < piece ? bytes->length - i : piece, error);
    return status == FL_OK ? fl_aggregate_end(aggregate, error) : status;
}

/* Sum the sites in that order; *next is the caller's. */
static void run(const struct round *round, const uint32_t *order, uint32_t count, size_t piece,
                struct fl_adapter **next, struct fl_aggregate_result *result)
{
    struct fl_aggregate *aggregate;
    struct fl_error error;

    ck_assert_int_eq(fl_aggregate_create(round->layout, &round->grid, false, &aggregate), FL_OK);
    for (uint32_t i = 0; i < count; i++)
        fl_assert_ok(add(aggregate, order[i], &round->updates[order[i]], piece, &error), &error);
    fl_assert_ok(fl_aggregate_finish(aggregate, round->start, next, result, &error), &error);
    fl_aggregate_destroy(&aggregate);
}

static bool same_bytes(const struct fl_adapter *x, const struct fl_adapter *y, bool a)
{
    for (uint32_t m = 0; m < MODULES; m++) {
        const struct fl_lora_module *p = &x->modules[m], *q = &y->modules[m];
        if (memcmp(a ? p->a : p->b, a ? q->a : q->b,
                   4ull * RANK * (a ? modules[m].in : modules[m].out)) != 0)
            return false;
    }
    return true;
}

static const uint32_t in_order[SITES] = {0, 1, 2};

START_TEST(any_order_of_arrival_gives_the_same_bytes)
{
    static const uint32_t orders[6][SITES] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                              {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    struct round round;
    struct fl_adapter *first, *next;
    struct fl_aggregate_result expected, result;

    round_open(&round, FL_FACTORS_BOTH, 2, RANGE);
    run(&round, orders[0], SITES, 1 << 16, &first, &expected);
    for (int i = 1; i < 6; i++) {
        run(&round, orders[i], SITES, (size_t)(3 * i), &next, &result);
        ck_assert(same_bytes(first, next, true) && same_bytes(first, next, false));
        ck_assert_mem_eq(expected.sum_sha256, result.sum_sha256, FL_HASH_BYTES);
        fl_adapter_destroy(&next);
    }
    fl_adapter_destroy(&first);
    round_close(&round);
}
END_TEST

START_TEST(the_sum_has_the_same_hash_on_every_machine)
{
    struct round round;
    struct fl_adapter *next;
    struct fl_aggregate_result result;
    char hex[FL_HASH_HEX_BYTES];

    round_open(&round, FL_FACTOR_B, 2, RANGE);
    run(&round, in_order, SITES, 1000, &next, &result);
    fl_hex(result.sum_sha256, FL_HASH_BYTES, hex);
    ck_assert_str_eq(hex, "31c0476a69eaf07619ab75a56e16e002895f3cd37955de4c5ddde082a9f2a809");
    fl_adapter_destroy(&next);
    round_close(&round);
}
END_TEST

START_TEST(a_direction_is_the_weighted_mean_over_the_sites_that_train_it)
{
    struct round round;
    struct fl_adapter *next;
    struct fl_aggregate_result result;

    round_open(&round, FL_FACTOR_B, 2, RANGE);
    run(&round, in_order, SITES, 1000, &next, &result);
    for (uint32_t m = 0; m < MODULES; m++)
        for (uint32_t i = 0; i < modules[m].out; i++)
            for (uint32_t j = 0; j < RANK; j++) {
                double sum = 0.0, total = 0.0;
                for (uint32_t s = 0; s < SITES; s++) {
                    const struct fl_lora_module *delta = &round.deltas[s]->modules[m];
                    if (delta->rank <= j)
                        continue;
                    sum += (double)weights[s] * (double)delta->b[i * delta->rank + j];
                    total += (double)weights[s];
                }
                ck_assert_double_eq_tol(
                    (double)next->modules[m].b[i * RANK + j],
                    (double)round.start->modules[m].b[i * RANK + j] + sum / total, 1e-8);
            }
    ck_assert(same_bytes(round.start, next, true)); /* A was frozen: not a bit */
    ck_assert_uint_eq(result.sites, SITES);
    ck_assert_uint_eq(result.weight, 512 + 100 + 333);
    ck_assert_uint_eq(result.train_tokens, 512 + 100 + 333);
    ck_assert_double_eq_tol(result.train_loss, 3.0, 1e-9);
    ck_assert_double_eq_tol(result.eval_loss, 24.0 / 6.0, 1e-9);
    ck_assert_uint_eq(result.eval_tokens, 6);
    ck_assert_double_gt(result.delta_norm, 0.0);
    fl_adapter_destroy(&next);
    round_close(&round);
}
END_TEST

/* product of module 0 at (i, k), with delta added to B, or to A and B */
static double entry(const struct fl_adapter *start, const struct fl_adapter *delta, uint32_t i,
                    uint32_t k, bool both)
{
    const struct fl_lora_module *s = &start->modules[0];
    double sum = 0.0;

    for (uint32_t j = 0; j < RANK; j++) {
        double b = (double)s->b[i * RANK + j], a = (double)s->a[j * modules[0].in + k];
        if (delta != NULL) {
            b += (double)delta->modules[0].b[i * RANK + j];
            a += both ? (double)delta->modules[0].a[j * modules[0].in + k] : 0.0;
        }
        sum += b * a;
    }
    return sum;
}

/* The largest distance between the new product and the weighted mean of the sites' products. */
static double product_error(enum fl_factors factors)
{
    bool both = factors == FL_FACTORS_BOTH;
    struct round round;
    struct fl_adapter *next;
    struct fl_aggregate_result result;
    double worst = 0.0;

    round_open(&round, factors, RANK, RANGE);
    run(&round, in_order, SITES, 1000, &next, &result);
    for (uint32_t i = 0; i < modules[0].out; i++)
        for (uint32_t k = 0; k < modules[0].in; k++) {
            double ideal = 0.0, total = 0.0;
            for (uint32_t s = 0; s < SITES; s++) {
                ideal += (double)weights[s] * entry(round.start, round.deltas[s], i, k, both);
                total += (double)weights[s];
            }
            worst = fmax(worst, fabs(entry(next, NULL, i, k, false) - ideal / total));
        }
    fl_adapter_destroy(&next);
    round_close(&round);
    return worst;
}

START_TEST(with_one_factor_frozen_the_mean_of_products_is_exact_and_with_none_it_is_not)
{
    ck_assert_double_le(product_error(FL_FACTOR_B), 1e-7);
    ck_assert_double_ge(product_error(FL_FACTORS_BOTH), 1e-5);
}
END_TEST

START_TEST(a_lost_site_changes_the_mean_and_nothing_else)
{
    static const uint32_t survivors[2] = {2, 1};
    struct round round;
    struct fl_adapter *next;
    struct fl_aggregate_result result;

    round_open(&round, FL_FACTOR_B, 2, RANGE);
    run(&round, survivors, 2, 1000, &next, &result);
    ck_assert_uint_eq(result.sites, 2);
    ck_assert_uint_eq(result.weight, 433);
    double expected = (100.0 * (double)round.deltas[1]->modules[0].b[0] +
                       333.0 * (double)round.deltas[2]->modules[0].b[0]) /
                      433.0;
    ck_assert_double_eq_tol((double)next->modules[0].b[0] - (double)round.start->modules[0].b[0],
                            expected, 1e-8);
    fl_adapter_destroy(&next);
    round_close(&round);
}
END_TEST

START_TEST(directions_that_nobody_trained_stay_as_they_were)
{
    static const uint32_t only_small[1] = {0};
    struct round round;
    struct fl_adapter *next;
    struct fl_aggregate_result result;

    round_open(&round, FL_FACTOR_B, 2, RANGE);
    run(&round, only_small, 1, 1000, &next, &result);
    for (uint32_t i = 0; i < modules[0].out; i++)
        for (uint32_t j = 2; j < RANK; j++)
            ck_assert(next->modules[0].b[i * RANK + j] == round.start->modules[0].b[i * RANK + j]);
    fl_adapter_destroy(&next);
    round_close(&round);
}
END_TEST

START_TEST(too_many_cut_values_fail_the_round_with_the_range_to_set)
{
    struct round round;
    struct fl_aggregate *aggregate;
    struct fl_aggregate_result result;
    struct fl_adapter *next;
    struct fl_error error;

    round_open(&round, FL_FACTOR_B, RANK, 0.02);
    ck_assert_int_eq(fl_aggregate_create(round.layout, &round.grid, false, &aggregate), FL_OK);
    for (uint32_t i = 0; i < SITES; i++)
        fl_assert_ok(add(aggregate, i, &round.updates[i], 100, &error), &error);
    ck_assert_int_eq(fl_aggregate_finish(aggregate, round.start, &next, &result, &error),
                     FL_ERANGE);
    ck_assert_ptr_null(next);
    ck_assert_ptr_nonnull(strstr(error.text, "update_range = 0.08"));
    ck_assert_double_gt(result.cut_fraction, 0.3);
    fl_aggregate_destroy(&aggregate);
    round_close(&round);
}
END_TEST

START_TEST(a_broken_update_spoils_the_sum_for_good)
{
    struct round round;
    struct fl_aggregate *aggregate;
    struct fl_aggregate_result result;
    struct fl_adapter *next;
    struct fl_error error;

    round_open(&round, FL_FACTOR_B, 2, RANGE);
    ck_assert_int_eq(fl_aggregate_create(round.layout, &round.grid, false, &aggregate), FL_OK);
    ck_assert_int_eq(fl_aggregate_finish(aggregate, round.start, &next, &result, &error),
                     FL_EINVAL); /* nothing summed */
    fl_assert_ok(add(aggregate, 1, &round.updates[1], 100, &error), &error);
    ck_assert_int_eq(add(aggregate, 1, &round.updates[1], 100, &error), FL_EEXIST);
    ck_assert_int_eq(add(aggregate, SITES, &round.updates[1], 100, &error), FL_EINVAL);
    round.updates[2].length -= 4;
    ck_assert_int_eq(add(aggregate, 2, &round.updates[2], 100, &error), FL_EFORMAT);
    ck_assert_int_eq(add(aggregate, 0, &round.updates[0], 100, &error), FL_EINVAL);
    ck_assert_int_eq(fl_aggregate_finish(aggregate, round.start, &next, &result, &error),
                     FL_EINVAL);
    fl_aggregate_destroy(&aggregate);
    round_close(&round);
}
END_TEST

START_TEST(a_mask_that_does_not_cancel_is_noticed)
{
    struct round round;
    struct fl_aggregate *aggregate;
    struct fl_aggregate_result result;
    struct fl_adapter *next;
    struct fl_error error;

    round_open(&round, FL_FACTOR_B, 2, RANGE);
    for (size_t i = round.updates[0].length - 4ull * round.layout->elements;
         i < round.updates[0].length; i++)
        round.updates[0].data[i] ^= (uint8_t)(0x5a + 31 * i);
    ck_assert_int_eq(fl_aggregate_create(round.layout, &round.grid, true, &aggregate), FL_OK);
    for (uint32_t i = 0; i < SITES; i++)
        fl_assert_ok(add(aggregate, i, &round.updates[i], 100, &error), &error);
    ck_assert_int_eq(fl_aggregate_finish(aggregate, round.start, &next, &result, &error),
                     FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "mask"));
    fl_aggregate_destroy(&aggregate);
    round_close(&round);
}
END_TEST

START_TEST(masked_and_plain_sums_give_the_same_bytes)
{
    struct round round;
    struct fl_aggregate *aggregate;
    struct fl_aggregate_result plain, masked;
    struct fl_adapter *one, *two;
    struct fl_error error;

    round_open(&round, _i ? B_AND_M : FL_FACTOR_B, _i ? RANK : 2, RANGE);
    run(&round, in_order, SITES, 1000, &one, &plain);
    /* a pairwise mask: added at site 0, subtracted at site 1, words and scalars alike */
    uint8_t *x = round.updates[0].data, *y = round.updates[1].data;
    for (uint32_t i = 0; i < round.layout->scalar_count; i++) {
        size_t at = FL_UPDATE_HEADER_BYTES + 8ull * i;
        fl_store_u64(x + at, fl_load_u64(x + at) + 0x9e3779b97f4a7c15ull * (i + 1));
        fl_store_u64(y + at, fl_load_u64(y + at) - 0x9e3779b97f4a7c15ull * (i + 1));
    }
    for (uint32_t i = 0; i < round.layout->elements; i++) {
        size_t at = FL_UPDATE_HEADER_BYTES + 8ull * round.layout->scalar_count + 4ull * i;
        fl_store_u32(x + at, fl_load_u32(x + at) + 2654435761u * (i + 1));
        fl_store_u32(y + at, fl_load_u32(y + at) - 2654435761u * (i + 1));
    }
    ck_assert_int_eq(fl_aggregate_create(round.layout, &round.grid, true, &aggregate), FL_OK);
    for (uint32_t i = 0; i < SITES; i++)
        fl_assert_ok(add(aggregate, i, &round.updates[i], 100, &error), &error);
    fl_assert_ok(fl_aggregate_finish(aggregate, round.start, &two, &masked, &error), &error);
    ck_assert(same_bytes(one, two, false));
    for (uint32_t m = 0; _i && m < MODULES; m++)
        ck_assert_mem_eq(one->modules[m].m, two->modules[m].m, modules[m].out * sizeof(float));
    ck_assert_mem_eq(plain.sum_sha256, masked.sum_sha256, FL_HASH_BYTES);
    fl_adapter_destroy(&one);
    fl_adapter_destroy(&two);
    fl_aggregate_destroy(&aggregate);
    round_close(&round);
}
END_TEST

START_TEST(magnitudes_move_by_their_weighted_mean)
{
    static const enum fl_factors kinds[] = {FL_FACTOR_M | FL_FACTOR_A, FL_FACTOR_M | FL_FACTOR_B,
                                            FL_FACTOR_M | FL_FACTORS_BOTH};
    struct round round;
    struct fl_adapter *next;
    struct fl_aggregate_result result;

    round_open(&round, kinds[_i], RANK, RANGE);
    run(&round, in_order, SITES, 777, &next, &result);
    ck_assert(next->use_dora);
    for (uint32_t m = 0; m < MODULES; m++)
        for (uint32_t i = 0; i < modules[m].out; i++) {
            double sum = 0.0, total = 0.0;
            for (uint32_t s = 0; s < SITES; s++) {
                sum += (double)weights[s] * (double)round.deltas[s]->modules[m].m[i];
                total += (double)weights[s];
            }
            ck_assert_double_eq_tol((double)next->modules[m].m[i],
                                    (double)(2.0f + 0.25f * (float)i) + sum / total, 1e-6);
        }
    /* what was not trained stays, bit for bit */
    ck_assert(same_bytes(round.start, next, true) == !(kinds[_i] & FL_FACTOR_A));
    ck_assert(same_bytes(round.start, next, false) == !(kinds[_i] & FL_FACTOR_B));
    fl_adapter_destroy(&next);
    round_close(&round);
}
END_TEST

START_TEST(a_start_without_magnitudes_takes_no_mean_of_them)
{
    struct round round;
    struct fl_aggregate *aggregate;
    struct fl_aggregate_result result;
    struct fl_adapter *next, *plain = make_start();
    struct fl_error error;

    round_open(&round, B_AND_M, RANK, RANGE);
    ck_assert_int_eq(fl_aggregate_create(round.layout, &round.grid, false, &aggregate), FL_OK);
    for (uint32_t i = 0; i < SITES; i++)
        fl_assert_ok(add(aggregate, i, &round.updates[i], 100, &error), &error);
    ck_assert_int_eq(fl_aggregate_finish(aggregate, plain, &next, &result, &error), FL_EINVAL);
    ck_assert_ptr_null(next);
    fl_aggregate_destroy(&aggregate);
    fl_adapter_destroy(&plain);
    round_close(&round);
}
END_TEST

START_TEST(a_round_that_only_evaluates_gives_losses_and_no_adapter)
{
    struct round round;
    struct fl_aggregate *aggregate;
    struct fl_aggregate_result result;
    struct fl_error error;

    round_open(&round, FL_FACTORS_NONE, 2, RANGE);
    ck_assert_int_eq(fl_aggregate_create(round.layout, &round.grid, false, &aggregate), FL_OK);
    for (uint32_t i = 0; i < SITES; i++)
        fl_assert_ok(add(aggregate, i, &round.updates[i], 5, &error), &error);
    fl_assert_ok(fl_aggregate_finish(aggregate, NULL, NULL, &result, &error), &error);
    ck_assert_double_eq_tol(result.eval_loss, 4.0, 1e-9);
    fl_aggregate_destroy(&aggregate);
    round_close(&round);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, any_order_of_arrival_gives_the_same_bytes);
    tcase_add_test(tc, the_sum_has_the_same_hash_on_every_machine);
    tcase_add_test(tc, a_direction_is_the_weighted_mean_over_the_sites_that_train_it);
    tcase_add_test(tc,
                   with_one_factor_frozen_the_mean_of_products_is_exact_and_with_none_it_is_not);
    tcase_add_test(tc, a_lost_site_changes_the_mean_and_nothing_else);
    tcase_add_test(tc, directions_that_nobody_trained_stay_as_they_were);
    tcase_add_test(tc, too_many_cut_values_fail_the_round_with_the_range_to_set);
    tcase_add_test(tc, a_broken_update_spoils_the_sum_for_good);
    tcase_add_test(tc, a_mask_that_does_not_cancel_is_noticed);
    tcase_add_loop_test(tc, masked_and_plain_sums_give_the_same_bytes, 0, 2);
    tcase_add_loop_test(tc, magnitudes_move_by_their_weighted_mean, 0, 3);
    tcase_add_test(tc, a_start_without_magnitudes_takes_no_mean_of_them);
    tcase_add_test(tc, a_round_that_only_evaluates_gives_losses_and_no_adapter);
}

FL_TEST_MAIN("coordinator.aggregate", add_tests)
