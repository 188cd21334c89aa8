/*
 * Goal: coordinator and sites agree on every element; unequal ranks average exactly, and magnitudes
 * beside them; nothing that a hostile site can send enters a sum.
 * Method: two modules with worked offsets; each site encodes through its own view and the sum is
 * compared with the weighted mean computed by hand; every cut, and every forbidden value, is tried.
 */
#include "adapter/layout.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runner.h"

#define SITES   3
#define MODULES 2
#define BYTES   4096
#define B_AND_M ((enum fl_factors)(FL_FACTOR_B | FL_FACTOR_M))
#define RANGES  ((struct fl_ranges){.a = 0.05, .b = 0.05, .m = 0.05})

static struct fl_module modules[MODULES] = {
    {.name = "model.layers.0.self_attn.q_proj", .out = 5, .in = 6, .layer = 0},
    {.name = "model.layers.1.self_attn.v_proj", .out = 4, .in = 3, .layer = 1},
};
static const struct fl_inventory targets = {.modules = modules, .count = MODULES};
/* (sites, modules) */
static const uint16_t site_ranks[SITES][MODULES] = {{2, 3}, {4, 3}, {4, 1}};
static const uint16_t global_ranks[MODULES] = {4, 3};

/* A delta with room for the largest rank, at a site's own ranks. */
struct delta {
    struct fl_adapter adapter;
    struct fl_lora_module modules[MODULES];
    float a[MODULES][4 * 6], b[MODULES][5 * 4], m[MODULES][5];
};

static void delta_fill(struct delta *self, uint32_t site)
{
    memset(self, 0, sizeof *self);
    self->adapter.modules = self->modules;
    self->adapter.count = MODULES;
    for (uint32_t m = 0; m < MODULES; m++) {
        struct fl_lora_module *module = &self->modules[m];
        module->module = modules[m];
        module->rank = site_ranks[site][m];
        module->a = self->a[m];
        module->b = self->b[m];
        module->m = self->m[m];
        for (uint32_t i = 0; i < modules[m].out; i++)
            module->m[i] = 0.003f * (float)(site + 1) * (float)(i + 1);
        for (uint32_t j = 0; j < module->rank; j++) {
            for (uint32_t k = 0; k < modules[m].in; k++)
                module->a[j * modules[m].in + k] = 0.001f * (float)(site + 1) * (float)(j + k);
            for (uint32_t i = 0; i < modules[m].out; i++)
                module->b[i * module->rank + j] = -0.002f * (float)(site + 1) * (float)(i + j);
        }
    }
}

static const struct fl_update_stats stats[SITES] = {
    {.weight = 100,
     .eval_loss_sum = 50.5,
     .eval_tokens = 10,
     .train_loss_sum = 400.25,
     .train_tokens = 100},
    {.weight = 60,
     .eval_loss_sum = 20.0,
     .eval_tokens = 5,
     .train_loss_sum = 200.0,
     .train_tokens = 60},
    {.weight = 999, .train_loss_sum = 1.0, .train_tokens = 999}, /* above w_max = 128 */
};

static struct fl_layout *layout_of(enum fl_factors factors)
{
    struct fl_rank_plan plan = {SITES, MODULES, (uint16_t *)(uintptr_t)site_ranks,
                                (uint16_t *)(uintptr_t)global_ranks};
    struct fl_layout *layout;
    struct fl_error error;

    fl_assert_ok(fl_layout_create(&targets, &plan, factors, RANGES, &layout, &error), &error);
    return layout;
}

static struct fl_grid grid_of_test(void)
{
    struct fl_grid grid;
    ck_assert_int_eq(fl_grid_init(&grid, SITES, 1000, 4, 2, 16), FL_OK);
    return grid;
}

/* The update of one site, encoded through what the coordinator would send it. */
static void encode(const struct fl_layout *layout, uint32_t site, struct fl_buf *out)
{
    struct fl_grid grid = grid_of_test();
    struct fl_layout *own;
    struct fl_error error;
    struct delta delta;
    uint64_t cut = 7;

    delta_fill(&delta, site);
    fl_buf_init(out, BYTES);
    fl_assert_ok(fl_layout_create_site(&targets, global_ranks, site_ranks[site],
                                       fl_layout_site_tiers(layout, site), layout->tier_count,
                                       layout->factors, RANGES, &own, &error),
                 &error);
    enum fl_status status = fl_update_encode(own, &grid, 0, &delta.adapter, &stats[site], out, &cut,
                                             &error);
    fl_layout_destroy(&own);
    fl_assert_ok(status, &error);
    ck_assert_uint_eq(cut, 0);
    ck_assert_uint_eq(out->length, fl_layout_update_bytes(layout));
}

START_TEST(segments_follow_the_modules_and_a_comes_before_b)
{
    struct fl_layout *layout = layout_of(FL_FACTORS_BOTH);
    const struct fl_segment *s = layout->segments;

    ck_assert_uint_eq(layout->segment_count, 4);
    ck_assert_uint_eq(layout->elements, 4 * 6 + 5 * 4 + 3 * 3 + 4 * 3);
    ck_assert_int_eq(s[0].factor, FL_FACTOR_A);
    ck_assert_uint_eq(s[0].rows, 4);
    ck_assert_uint_eq(s[0].columns, 6);
    ck_assert_int_eq(s[1].factor, FL_FACTOR_B);
    ck_assert_uint_eq(s[1].rows, 5);
    ck_assert_uint_eq(s[1].columns, 4);
    ck_assert_uint_eq(s[1].offset, 24);
    ck_assert_uint_eq(s[2].offset, 44);
    ck_assert_uint_eq(s[3].offset, 53);
    ck_assert_uint_eq(s[3].module, 1);
    fl_layout_destroy(&layout);
    layout = layout_of(FL_FACTOR_B);
    ck_assert_uint_eq(layout->elements, 5 * 4 + 4 * 3);
    fl_layout_destroy(&layout);
    ck_assert_ptr_null(layout);
}
END_TEST

START_TEST(tiers_are_the_distinct_sets_of_sites)
{
    struct fl_layout *layout = layout_of(FL_FACTOR_B);
    /* q: directions 0-1 {0,1,2}, 2-3 {1,2}; v: 0 {0,1,2}, 1-2 {0,1} */
    static const uint32_t expected[7] = {0, 0, 1, 1, 0, 2, 2};
    static const uint8_t members[SITES][3] = {{1, 0, 1}, {1, 1, 1}, {1, 1, 0}};

    ck_assert_uint_eq(layout->tier_count, 3);
    ck_assert_uint_eq(layout->scalar_count, 3 + FL_SCALAR_COUNT);
    for (uint32_t i = 0; i < 7; i++)
        ck_assert_uint_eq(layout->tier_of[i], expected[i]);
    for (uint32_t i = 0; i < SITES; i++)
        ck_assert_mem_eq(fl_layout_site_tiers(layout, i), members[i], 3);
    ck_assert_uint_eq(fl_rank_plan_thinnest(&layout->ranks), 2);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(a_direction_that_nobody_trains_has_no_tier)
{
    static uint16_t ranks[2] = {2, 2}, global[1] = {4};
    struct fl_rank_plan plan = {2, 1, ranks, global};
    struct fl_inventory one = {.modules = modules, .count = 1};
    struct fl_layout *layout;
    struct fl_error error;

    fl_assert_ok(fl_layout_create(&one, &plan, FL_FACTOR_B, RANGES, &layout, &error), &error);
    ck_assert_uint_eq(layout->tier_count, 1);
    ck_assert_uint_eq(layout->tier_of[1], 0);
    ck_assert_uint_eq(layout->tier_of[2], FL_SITE_UNKNOWN);
    fl_layout_destroy(&layout);
}
END_TEST

/* The updates of all sites, in pieces of 7 bytes, into the sums. */
static void sum_sites(const struct fl_layout *layout, uint32_t *vector, uint64_t *scalars)
{
    struct fl_grid grid = grid_of_test();
    struct fl_error error;

    for (uint32_t site = 0; site < SITES; site++) {
        struct fl_update_reader reader;
        struct fl_buf bytes;
        encode(layout, site, &bytes);
        fl_update_reader_init(&reader, layout, &grid, site, vector, scalars);
        for (size_t i = 0; i < bytes.length; i += 7)
            fl_assert_ok(fl_update_reader_push(&reader, bytes.data + i,
                                               bytes.length - i < 7 ? bytes.length - i : 7, &error),
                         &error);
        fl_assert_ok(fl_update_reader_end(&reader, &error), &error);
        fl_buf_free(&bytes);
    }
}

START_TEST(unequal_ranks_average_exactly_by_prefix)
{
    struct fl_layout *layout = layout_of(FL_FACTORS_BOTH);
    struct fl_grid grid = grid_of_test();
    uint32_t vector[65] = {0};
    uint64_t scalars[16] = {0};

    ck_assert_uint_eq(layout->elements, 65);
    sum_sites(layout, vector, scalars);
    ck_assert_uint_eq(scalars[0], 100 + 60 + 128);
    ck_assert_uint_eq(scalars[1], 60 + 128);
    ck_assert_uint_eq(scalars[2], 100 + 60);
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_EVAL_LOSS], (uint64_t)(70.5 * 1048576));
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_EVAL_TOKENS], 15);
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_TRAIN_TOKENS], 100 + 60 + 999);
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_CUT], 0);
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_VALUES], (22 + 21) + (44 + 21) + (44 + 7));
    for (uint32_t s = 0; s < layout->segment_count; s++) {
        const struct fl_segment *segment = &layout->segments[s];
        for (uint32_t e = 0; e < segment->rows * segment->columns; e++) {
            uint32_t row = e / segment->columns, column = e % segment->columns;
            bool is_a = segment->factor == FL_FACTOR_A;
            uint32_t j = is_a ? row : column;
            double exact = 0.0, weights = 0.0;
            for (uint32_t site = 0; site < SITES; site++) {
                double w = fmin((double)stats[site].weight, 128.0);
                if (site_ranks[site][segment->module] <= j)
                    continue;
                exact += w * (double)(is_a ? 0.001f * (float)(site + 1) * (float)(row + column)
                                           : -0.002f * (float)(site + 1) * (float)(row + column));
                weights += w;
            }
            uint32_t tier = layout->tier_of[layout->direction_start[segment->module] + j];
            double mean = fl_grid_mean(&grid, vector[segment->offset + e], 0.05, scalars[tier]);
            ck_assert_uint_eq(scalars[tier], (uint64_t)weights);
            ck_assert_double_eq_tol(mean, exact / weights, 2e-9);
        }
    }
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(magnitudes_stand_behind_the_factors_of_their_module)
{
    struct fl_layout *layout = layout_of(B_AND_M), *without = layout_of(FL_FACTOR_B);
    const struct fl_segment *s = layout->segments;

    ck_assert_uint_eq(layout->segment_count, 4);
    ck_assert_uint_eq(layout->elements, 5 * 4 + 5 + 4 * 3 + 4);
    ck_assert_uint_eq(layout->elements, fl_layout_elements(&targets, global_ranks, B_AND_M));
    ck_assert_int_eq(s[0].factor, FL_FACTOR_B);
    ck_assert_int_eq(s[1].factor, FL_FACTOR_M);
    ck_assert_uint_eq(s[1].rows, 5);
    ck_assert_uint_eq(s[1].columns, 1);
    ck_assert_uint_eq(s[1].offset, 20);
    ck_assert_uint_eq(s[2].offset, 25);
    ck_assert_uint_eq(s[3].offset, 37);
    ck_assert_uint_eq(s[3].module, 1);
    /* they are no directions of their own: tiers and scalars stay */
    ck_assert_uint_eq(layout->tier_count, without->tier_count);
    ck_assert_mem_eq(layout->tiers, without->tiers, SITES * (size_t)layout->tier_count);
    ck_assert_uint_eq(layout->scalar_count, without->scalar_count);
    fl_layout_destroy(&without);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(magnitudes_are_averaged_over_all_who_train_the_module)
{
    struct fl_layout *layout = layout_of(B_AND_M);
    struct fl_grid grid = grid_of_test();
    uint32_t vector[41] = {0};
    uint64_t scalars[16] = {0};
    static const double weight[SITES] = {100, 60, 128};

    ck_assert_uint_eq(layout->elements, 41);
    sum_sites(layout, vector, scalars);
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_CUT], 0);
    ck_assert_uint_eq(scalars[3 + FL_SCALAR_VALUES],
                      (10 + 12) + (20 + 12) + (20 + 4) + 3 * (5 + 4));
    for (uint32_t s = 1; s < layout->segment_count; s += 2) {
        const struct fl_segment *segment = &layout->segments[s];
        uint32_t tier = layout->tier_of[layout->direction_start[segment->module]];
        ck_assert_uint_eq(scalars[tier], 288);
        for (uint32_t i = 0; i < segment->rows; i++) {
            double sum = 0.0;
            for (uint32_t site = 0; site < SITES; site++)
                sum += weight[site] * (double)(0.003f * (float)(site + 1) * (float)(i + 1));
            ck_assert_uint_eq(fl_segment_direction(segment, i, 0), 0);
            ck_assert_double_eq_tol(
                fl_grid_mean(&grid, vector[segment->offset + i], 0.05, scalars[tier]), sum / 288,
                2e-9);
        }
    }
    fl_layout_destroy(&layout);
}
END_TEST

/* Push bytes into a checking reader: FL_OK when they are a whole, allowed update of that site. */
static enum fl_status check(const struct fl_layout *layout, uint32_t site, const uint8_t *bytes,
                            size_t length)
{
    struct fl_grid grid = grid_of_test();
    struct fl_update_reader reader;
    struct fl_error error;
    enum fl_status status;

    fl_update_reader_init(&reader, layout, &grid, site, NULL, NULL);
    status = fl_update_reader_push(&reader, bytes, length, &error);
    return status == FL_OK ? fl_update_reader_end(&reader, &error) : status;
}

START_TEST(an_update_cut_or_lengthened_is_refused)
{
    struct fl_layout *layout = layout_of(_i ? B_AND_M : FL_FACTOR_B);
    struct fl_buf bytes;

    encode(layout, 1, &bytes);
    ck_assert_int_eq(check(layout, 1, bytes.data, bytes.length), FL_OK);
    for (size_t length = 0; length < bytes.length; length++)
        ck_assert_int_eq(check(layout, 1, bytes.data, length), FL_EFORMAT);
    fl_buf_u32(&bytes, 0);
    ck_assert_int_eq(check(layout, 1, bytes.data, bytes.length), FL_EFORMAT);
    fl_buf_free(&bytes);
    fl_layout_destroy(&layout);
}
END_TEST

/* Store a value over the update at an offset, check, and put the old bytes back. */
static enum fl_status check_with(const struct fl_layout *layout, uint32_t site,
                                 struct fl_buf *bytes, size_t at, uint64_t value, bool wide)
{
    uint8_t old[8];
    enum fl_status status;

    memcpy(old, bytes->data + at, sizeof old);
    if (wide)
        fl_store_u64(bytes->data + at, value);
    else
        fl_store_u32(bytes->data + at, (uint32_t)value);
    status = check(layout, site, bytes->data, bytes->length);
    memcpy(bytes->data + at, old, sizeof old);
    return status;
}

START_TEST(what_a_site_may_not_send_is_refused)
{
    struct fl_layout *layout = layout_of(FL_FACTOR_B);
    size_t scalars = FL_UPDATE_HEADER_BYTES, vector = scalars + 8ull * layout->scalar_count;
    uint32_t q = 104857599; /* (2^27 - 1) x its weight 100 / w_max 128: the range's end */
    struct fl_buf b;

    encode(layout, 0, &b); /* ranks 2, 3: tiers 0 and 2 */
    ck_assert_int_eq(check(layout, 0, b.data, b.length), FL_OK);
    ck_assert_int_eq(check(layout, 1, b.data, b.length), FL_EFORMAT);     /* as another site */
    ck_assert_int_eq(check_with(layout, 0, &b, 0, 1, true), FL_EFORMAT);  /* magic */
    ck_assert_int_eq(check_with(layout, 0, &b, 8, 31, true), FL_EFORMAT); /* D */
    ck_assert_int_eq(check_with(layout, 0, &b, 16, UINT64_MAX, true), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, scalars, 99, true), FL_EFORMAT); /* not as tier 2 */
    ck_assert_int_eq(check_with(layout, 0, &b, scalars, 0, true), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, scalars, 129, true), FL_EFORMAT); /* w_max */
    ck_assert_int_eq(check_with(layout, 0, &b, scalars + 8, 100, true), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, scalars + 24, FL_SCALAR_MAX + 1, true), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, vector - 8, 33, true), FL_EFORMAT); /* values */
    ck_assert_int_eq(check_with(layout, 0, &b, vector, q, false), FL_OK);
    ck_assert_int_eq(check_with(layout, 0, &b, vector, q + 1, false), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, vector, 0u - q, false), FL_OK);
    ck_assert_int_eq(check_with(layout, 0, &b, vector, 0u - q - 1, false), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, vector + 8, 1, false), FL_EFORMAT); /* prefix */
    fl_buf_free(&b);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(magnitudes_beyond_their_range_are_refused_and_have_no_prefix)
{
    struct fl_layout *layout = layout_of(B_AND_M), *without = layout_of(FL_FACTOR_B);
    size_t vector = FL_UPDATE_HEADER_BYTES + 8ull * layout->scalar_count;
    size_t first = vector + 4 * 20, last = first + 4 * 4; /* m of q_proj */
    uint32_t q = 104857599;                               /* as above */
    struct fl_buf b;

    encode(layout, 0, &b); /* of ranks 2, 3 */
    ck_assert_int_eq(check(layout, 0, b.data, b.length), FL_OK);
    ck_assert_int_eq(check_with(layout, 0, &b, first, q, false), FL_OK);
    ck_assert_int_eq(check_with(layout, 0, &b, first, q + 1, false), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, last, 0u - q, false), FL_OK);
    ck_assert_int_eq(check_with(layout, 0, &b, last, 0u - q - 1, false), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, last, 1u << 31, false), FL_EFORMAT);
    ck_assert_int_eq(check(without, 0, b.data, b.length), FL_EFORMAT);
    ck_assert_int_eq(check_with(layout, 0, &b, vector - 8, 42, true), FL_EFORMAT); /* values */
    fl_buf_free(&b);
    encode(without, 0, &b);
    ck_assert_int_eq(check(layout, 0, b.data, b.length), FL_EFORMAT);
    fl_buf_free(&b);
    fl_layout_destroy(&without);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(magnitudes_that_are_missing_or_not_finite_are_not_sent)
{
    struct fl_rank_plan plan = {SITES, MODULES, (uint16_t *)(uintptr_t)site_ranks,
                                (uint16_t *)(uintptr_t)global_ranks};
    struct fl_layout *layout = layout_of(B_AND_M), *none;
    struct fl_grid grid = grid_of_test();
    struct fl_ranges ranges = RANGES;
    struct delta delta;
    struct fl_error error;
    struct fl_buf out;

    fl_buf_init(&out, BYTES);
    delta_fill(&delta, 0);
    delta.m[1][3] = INFINITY;
    ck_assert_int_eq(
        fl_update_encode(layout, &grid, 0, &delta.adapter, &stats[0], &out, NULL, &error),
        FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "v_proj"));
    delta_fill(&delta, 0);
    delta.modules[1].m = NULL;
    ck_assert_int_eq(
        fl_update_encode(layout, &grid, 0, &delta.adapter, &stats[0], &out, NULL, &error),
        FL_EINVAL);
    ck_assert_uint_eq(out.length, 0);
    fl_layout_destroy(&layout);
    ranges.m = NAN;
    ck_assert_int_eq(fl_layout_create(&targets, &plan, B_AND_M, ranges, &none, &error), FL_EINVAL);
    ck_assert_ptr_null(none);
    fl_buf_free(&out);
}
END_TEST

START_TEST(a_site_refuses_to_send_what_makes_no_sense)
{
    struct fl_layout *layout = layout_of(FL_FACTOR_B);
    struct fl_grid grid = grid_of_test();
    struct fl_update_stats bad = stats[0];
    struct delta delta;
    struct fl_error error;
    struct fl_buf out;

    fl_buf_init(&out, BYTES);
    delta_fill(&delta, 0);
    delta.b[1][2] = NAN;
    ck_assert_int_eq(fl_update_encode(layout, &grid, 0, &delta.adapter, &bad, &out, NULL, &error),
                     FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "v_proj"));
    ck_assert_int_eq(fl_update_encode(layout, &grid, 1, &delta.adapter, &bad, &out, NULL, &error),
                     FL_EINVAL);
    delta_fill(&delta, 0);
    bad.weight = 0;
    ck_assert_int_eq(fl_update_encode(layout, &grid, 0, &delta.adapter, &bad, &out, NULL, &error),
                     FL_EINVAL);
    bad.weight = 1;
    bad.train_loss_sum = NAN;
    ck_assert_int_eq(fl_update_encode(layout, &grid, 0, &delta.adapter, &bad, &out, NULL, &error),
                     FL_EINVAL);
    fl_buf_free(&out);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(values_beyond_the_range_are_counted_in_the_update)
{
    struct fl_layout *layout = layout_of(FL_FACTOR_B);
    struct fl_grid grid = grid_of_test();
    struct delta delta;
    struct fl_error error;
    struct fl_buf out;
    uint64_t cut;

    fl_buf_init(&out, BYTES);
    delta_fill(&delta, 0);
    delta.b[0][0] = 0.06f;
    delta.b[1][1] = -1e30f;
    fl_assert_ok(fl_update_encode(layout, &grid, 0, &delta.adapter, &stats[0], &out, &cut, &error),
                 &error);
    ck_assert_uint_eq(cut, 2);
    ck_assert_uint_eq(fl_load_u64(out.data + FL_UPDATE_HEADER_BYTES +
                                  8ull * (layout->tier_count + FL_SCALAR_CUT)),
                      2);
    fl_buf_free(&out);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(a_round_that_only_evaluates_has_scalars_and_no_vector)
{
    struct fl_layout *layout = layout_of(FL_FACTORS_NONE);
    struct fl_grid grid = grid_of_test();
    struct fl_update_stats only_eval = {.eval_loss_sum = 3.5, .eval_tokens = 2};
    struct fl_error error;
    struct fl_buf out;

    ck_assert_uint_eq(layout->elements, 0);
    ck_assert_uint_eq(layout->tier_count, 0);
    fl_buf_init(&out, BYTES);
    fl_assert_ok(fl_update_encode(layout, &grid, 2, NULL, &only_eval, &out, NULL, &error), &error);
    ck_assert_uint_eq(out.length, 24 + 8 * FL_SCALAR_COUNT);
    ck_assert_int_eq(check(layout, 2, out.data, out.length), FL_OK);
    fl_buf_free(&out);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(the_hash_of_one_update_is_that_of_its_bytes)
{
    struct fl_layout *layout = layout_of(FL_FACTOR_A);
    struct fl_grid grid = grid_of_test();
    uint8_t of_bytes[FL_HASH_BYTES], of_sum[FL_HASH_BYTES];
    uint32_t vector[33] = {0};
    uint64_t scalars[16] = {0};
    struct fl_update_reader reader;
    struct fl_error error;
    struct fl_buf bytes;

    encode(layout, 2, &bytes);
    fl_update_reader_init(&reader, layout, &grid, FL_SITE_UNKNOWN, vector, scalars);
    fl_assert_ok(fl_update_reader_push(&reader, bytes.data, bytes.length, &error), &error);
    fl_update_sha256(layout, vector, scalars, of_sum);
    fl_sha256(bytes.data, bytes.length, of_bytes);
    ck_assert_mem_eq(of_sum, of_bytes, FL_HASH_BYTES);
    fl_buf_free(&bytes);
    fl_layout_destroy(&layout);
}
END_TEST

START_TEST(ranks_that_do_not_fit_are_refused)
{
    uint16_t ranks[SITES * MODULES], global[MODULES];
    struct fl_rank_plan plan = {SITES, MODULES, ranks, global};
    struct fl_layout *layout;
    struct fl_error error;

    for (int kind = 0; kind < 4; kind++) {
        memcpy(ranks, site_ranks, sizeof ranks);
        memcpy(global, global_ranks, sizeof global);
        if (kind == 0)
            ranks[3] = 0;
        if (kind == 1)
            ranks[0] = 5; /* above the global rank */
        if (kind == 2)
            global[1] = 4; /* above min(in, out) */
        plan.modules = kind == 3 ? 1 : MODULES;
        ck_assert_int_eq(fl_layout_create(&targets, &plan, FL_FACTOR_A, RANGES, &layout, &error),
                         FL_EINVAL);
        ck_assert_ptr_null(layout);
    }
}
END_TEST

START_TEST(a_plan_of_the_sites_that_trained_keeps_the_global_ranks)
{
    static const uint32_t trained[2] = {2, 0};
    struct fl_rank_plan plan = {SITES, MODULES, (uint16_t *)(uintptr_t)site_ranks,
                                (uint16_t *)(uintptr_t)global_ranks};
    struct fl_rank_plan part;

    ck_assert_int_eq(fl_rank_plan_select(&plan, trained, 2, &part), FL_OK);
    ck_assert_uint_eq(part.sites, 2);
    ck_assert_mem_eq(part.global, global_ranks, sizeof global_ranks);
    ck_assert_mem_eq(part.ranks, site_ranks[2], sizeof site_ranks[2]);
    ck_assert_mem_eq(part.ranks + MODULES, site_ranks[0], sizeof site_ranks[0]);
    fl_rank_plan_free(&part);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, segments_follow_the_modules_and_a_comes_before_b);
    tcase_add_test(tc, tiers_are_the_distinct_sets_of_sites);
    tcase_add_test(tc, a_direction_that_nobody_trains_has_no_tier);
    tcase_add_test(tc, unequal_ranks_average_exactly_by_prefix);
    tcase_add_test(tc, magnitudes_stand_behind_the_factors_of_their_module);
    tcase_add_test(tc, magnitudes_are_averaged_over_all_who_train_the_module);
    tcase_add_loop_test(tc, an_update_cut_or_lengthened_is_refused, 0, 2);
    tcase_add_test(tc, magnitudes_beyond_their_range_are_refused_and_have_no_prefix);
    tcase_add_test(tc, magnitudes_that_are_missing_or_not_finite_are_not_sent);
    tcase_add_test(tc, what_a_site_may_not_send_is_refused);
    tcase_add_test(tc, a_site_refuses_to_send_what_makes_no_sense);
    tcase_add_test(tc, values_beyond_the_range_are_counted_in_the_update);
    tcase_add_test(tc, a_round_that_only_evaluates_has_scalars_and_no_vector);
    tcase_add_test(tc, the_hash_of_one_update_is_that_of_its_bytes);
    tcase_add_test(tc, ranks_that_do_not_fit_are_refused);
    tcase_add_test(tc, a_plan_of_the_sites_that_trained_keeps_the_global_ranks);
}

FL_TEST_MAIN("adapter.layout", add_tests)
