/* Products with frozen weights: panels smaller than the weight, few tokens, interleaved rows. */
#include "engine/reference.h"
#include "runner.h"

#include <math.h>
#include <string.h>

#include "worker/engine/work.h"

enum { OUT = 100, IN = 24, TOKENS = 37 };

static uint16_t stored[OUT * IN]; /* bfloat16 */
static float wide[OUT * IN], x[TOKENS * OUT], y[TOKENS * OUT], panel[4096];

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
    fl_weight_widen(&weight, 0, OUT, wide);
    return weight;
}

static void compare(const struct fl_work *work, const struct fl_weight *weight, size_t tokens)
{
    for (int add = 0; add < 2; add++) {
        for (int i = 0; i < TOKENS * OUT; i++)
            y[i] = 1.0f;
        fl_weight_multiply(work, weight, x, tokens, y, OUT, add);
        for (size_t t = 0; t < tokens; t++) {
            for (size_t o = 0; o < OUT; o++) {
                double want = add;
                for (size_t i = 0; i < IN; i++)
                    want += (double)x[t * IN + i] * (double)wide[o * IN + i];
                ck_assert_double_eq_tol((double)y[t * OUT + o], want, 1e-5);
            }
        }
        for (int i = 0; i < TOKENS * OUT; i++)
            y[i] = 1.0f;
        fl_weight_multiply_back(work, weight, x, OUT, tokens, y, add);
        for (size_t t = 0; t < tokens; t++) {
            for (size_t i = 0; i < IN; i++) {
                double want = add;
                for (size_t o = 0; o < OUT; o++)
                    want += (double)x[t * OUT + o] * (double)wide[o * IN + i];
                ck_assert_double_eq_tol((double)y[t * IN + i], want, 2e-5);
            }
        }
    }
}

START_TEST(products_are_right_for_any_panel_and_any_team)
{
    const struct fl_weight weight = make_weight(0);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        for (size_t rows = 3; rows <= 120; rows += 39) {
            const struct fl_work work = {
                .threads = threads, .panel = panel, .panel_floats = rows * IN};
            compare(&work, &weight, TOKENS);
            compare(&work, &weight, 1);
            compare(&work, &weight, 5);
        }
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
    const struct fl_work work = {.threads = 2, .panel = panel, .panel_floats = 4096};
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
    tcase_add_test(tc, interleaved_rows_come_back_in_hugging_faces_order);
    tcase_add_test(tc, shares_cover_everything_once);
}

FL_TEST_MAIN("work", add_tests)
