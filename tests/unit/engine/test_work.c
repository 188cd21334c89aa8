/* Products with frozen weights: panels smaller than the weight, few tokens, interleaved rows. */
#include "engine/forced.h"
#include "engine/reference.h"
#include "runner.h"

#include <math.h>
#include <string.h>

#include "worker/engine/work.h"

enum { OUT = 100, IN = 24, TOKENS = 37, RANK = 6, ROWS_LEAST = 64 };

static uint16_t stored[OUT * IN]; /* bfloat16 */
static float wide[OUT * IN], x[TOKENS * OUT], y[TOKENS * OUT], panel[3 * 200 * IN];
static float u[TOKENS * RANK], factor_a[RANK * IN], factor_b[OUT * RANK];

static struct fl_weight make_weight(uint32_t interleave)
{
    uint64_t seed = 3;
    struct fl_weight weight = {.dtype = FL_DTYPE_BF16,
                               .rows = OUT,
                               .columns = IN,
                               .data = (const uint8_t *)stored,
                               .interleave = interleave};
    for (int i = 0; i < OUT * IN; i++)
        stored[i] = fl_f32_to_bf16((float)toy_random(&seed));
    for (int i = 0; i < TOKENS * OUT; i++)
        x[i] = (float)toy_random(&seed);
    for (int i = 0; i < TOKENS * RANK; i++)
        u[i] = (float)toy_random(&seed);
    for (int i = 0; i < RANK * IN; i++)
        factor_a[i] = (float)toy_random(&seed);
    for (int i = 0; i < OUT * RANK; i++)
        factor_b[i] = (float)toy_random(&seed);
    fl_weight_widen(&weight, 0, OUT, wide);
    return weight;
}

/* y (tokens, OUT) = add + x W^T + 2 u B^T */
static void compare_forward(const struct fl_work *work, const struct fl_weight *weight,
                            size_t tokens, bool add, bool branch)
{
    for (int i = 0; i < TOKENS * OUT; i++)
        y[i] = 1.0f;
    fl_weight_multiply(work, &(struct fl_product){.weight = weight,
                                                  .tokens = tokens,
                                                  .x = x,
                                                  .ldx = IN,
                                                  .y = y,
                                                  .ldy = OUT,
                                                  .add = add,
                                                  .branch = {.rank = branch ? RANK : 0,
                                                             .scale = 2.0f,
                                                             .u = u,
                                                             .factor = factor_b,
                                                             .turned = true}});
    for (size_t t = 0; t < tokens; t++) {
        for (size_t o = 0; o < OUT; o++) {
            double want = add;
            for (size_t i = 0; i < IN; i++)
                want += (double)x[t * IN + i] * (double)wide[o * IN + i];
            for (size_t r = 0; branch && r < RANK; r++)
                want += 2.0 * (double)u[t * RANK + r] * (double)factor_b[o * RANK + r];
            ck_assert_double_eq_tol((double)y[t * OUT + o], want, 1e-5);
        }
    }
    for (size_t i = tokens * OUT; i < TOKENS * OUT; i++)
        ck_assert(y[i] == 1.0f);
}

/* y (tokens, IN) = add + x W + 2 u A, x (tokens, OUT) */
static void compare_back(const struct fl_work *work, const struct fl_weight *weight, size_t tokens,
                         bool add, bool branch)
{
    for (int i = 0; i < TOKENS * OUT; i++)
        y[i] = 1.0f;
    fl_weight_multiply_back(work, &(struct fl_product){.weight = weight,
                                                       .tokens = tokens,
                                                       .x = x,
                                                       .ldx = OUT,
                                                       .y = y,
                                                       .ldy = IN,
                                                       .add = add,
                                                       .branch = {.rank = branch ? RANK : 0,
                                                                  .scale = 2.0f,
                                                                  .u = u,
                                                                  .factor = factor_a,
                                                                  .columns = IN}});
    for (size_t t = 0; t < tokens; t++) {
        for (size_t i = 0; i < IN; i++) {
            double want = add;
            for (size_t o = 0; o < OUT; o++)
                want += (double)x[t * OUT + o] * (double)wide[o * IN + i];
            for (size_t r = 0; branch && r < RANK; r++)
                want += 2.0 * (double)u[t * RANK + r] * (double)factor_a[r * IN + i];
            ck_assert_double_eq_tol((double)y[t * IN + i], want, 2e-5);
        }
    }
    for (size_t i = tokens * IN; i < TOKENS * OUT; i++)
        ck_assert(y[i] == 1.0f);
}

static void compare(const struct fl_work *work, const struct fl_weight *weight, size_t tokens)
{
    for (int i = 0; i < 4; i++) {
        compare_forward(work, weight, tokens, i % 2 != 0, i / 2 != 0);
        compare_back(work, weight, tokens, i % 2 != 0, i / 2 != 0);
    }
}

START_TEST(products_are_right_for_any_panel_and_any_team)
{
    const struct fl_weight weight = make_weight(0);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        for (size_t rows = ROWS_LEAST; rows <= 200; rows += 39) {
            const struct fl_work work = {
                .threads = threads, .panel = panel, .panel_floats = threads * rows * IN};
            compare(&work, &weight, TOKENS);
            compare(&work, &weight, 1);
            compare(&work, &weight, 5);
        }
    }
}
END_TEST

static void round_all(float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint16_t rounded = fl_f32_to_bf16(values[i]);
        fl_dtype_widen(FL_DTYPE_BF16, &rounded, 1, &values[i]);
    }
}

/* W is stored in bfloat16 already; with x rounded too, every product is exact. */
START_TEST(bfloat16_products_are_those_of_the_rounded_values)
{
    static float narrow[TOKENS * (OUT + 32)];
    const struct fl_weight weight = make_weight(0);
    if (!fl_gemm_bf16())
        return;
    round_all(x, TOKENS * OUT);
    round_all(u, TOKENS * RANK);
    round_all(factor_a, RANK * IN);
    round_all(factor_b, OUT * RANK);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        const struct fl_work work = {.threads = threads,
                                     .bf16 = true,
                                     .narrow = narrow,
                                     .panel = panel,
                                     .panel_floats = threads * ROWS_LEAST * IN};
        compare(&work, &weight, TOKENS);
        compare(&work, &weight, 1);
    }
}
END_TEST

START_TEST(interleaved_rows_come_back_in_hugging_faces_order)
{
    float row[IN];
    const struct fl_weight weight = make_weight(10);
    for (uint32_t head = 0; head < OUT / 10; head++) {
        for (uint32_t i = 0; i < 5; i++) {
            fl_dtype_widen(FL_DTYPE_BF16, stored + (size_t)(head * 10 + 2 * i) * IN, IN, row);
            ck_assert_int_eq(memcmp(row, wide + (size_t)(head * 10 + i) * IN, sizeof row), 0);
            fl_dtype_widen(FL_DTYPE_BF16, stored + (size_t)(head * 10 + 2 * i + 1) * IN, IN, row);
            ck_assert_int_eq(memcmp(row, wide + (size_t)(head * 10 + i + 5) * IN, sizeof row), 0);
        }
    }
    const struct fl_work work = {
        .threads = 2, .panel = panel, .panel_floats = sizeof panel / sizeof *panel};
    compare(&work, &weight, TOKENS);
}
END_TEST

START_TEST(shares_cover_everything_once)
{
    for (size_t total = 0; total < 60; total++) {
        size_t next = 0;
        for (uint32_t i = 0; i < 7; i++) {
            size_t low, high;
            fl_share(total, i, 7, 4, &low, &high);
            ck_assert_uint_eq(low, next);
            ck_assert(low % 4 == 0 || low == total);
            next = high;
        }
        ck_assert_uint_eq(next, total);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, products_are_right_for_any_panel_and_any_team);
    tcase_add_test(tc, bfloat16_products_are_those_of_the_rounded_values);
    tcase_add_test(tc, interleaved_rows_come_back_in_hugging_faces_order);
    tcase_add_test(tc, shares_cover_everything_once);
}

int main(int argc, char **argv)
{
    if (forced_kernel_is_missing())
        return FL_TEST_SKIPPED;
    return fl_runner_main("work", add_tests, argc, argv);
}
