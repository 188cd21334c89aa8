/* The elementwise loops against double precision; schedules. */
#include "runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/kernels.h"
#include "worker/engine/rope.h"
#include "worker/engine/schedule.h"

enum { N = 1027 };

static float x[N], y[N], z[N], w[N];

static void fill(void)
{
    for (int i = 0; i < N; i++) {
        x[i] = (float)sin(i * 1.7) * 3.0f;
        y[i] = (float)cos(i * 0.9) * 2.0f;
        w[i] = 1.0f + 0.3f * (float)sin(i * 0.31);
    }
}

START_TEST(exponentials_are_right_to_two_ulp_over_their_range)
{
    float worst = 0.0f;
    for (double at = -86.0; at < 86.0; at += 0.0137) {
        float value = (float)at;
        (void)fl_exp_sum(&value, 1, 0.0f);
        const double want = exp((double)(float)at);
        const float off = (float)fabs((double)value / want - 1.0);
        worst = off > worst ? off : worst;
    }
    ck_assert_float_lt(worst, 2.5e-7f);
}
END_TEST

/* An error of 1e-5 here is one of 1e-4 in the gradients of SmolLM2's last attention. */
START_TEST(sums_of_exponentials_over_a_large_vocabulary_lose_nothing)
{
    enum { VOCAB = 49152 };
    static float logits[VOCAB];
    double want = 0.0;
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = 3.0f * (float)(sin(i * 1.7) + sin(i * 0.0113) + cos(i * 0.311));
        want += exp((double)logits[i] - 9.0);
    }
    const double only = fl_exp_sum_only(logits, VOCAB, 9.0f);
    const double sum = fl_exp_sum(logits, VOCAB, 9.0f);
    double kept = 0.0;
    for (int i = 0; i < VOCAB; i++)
        kept += (double)logits[i];
    ck_assert_double_eq_tol(only / want, 1.0, 2.5e-7);
    ck_assert_double_eq_tol(sum / want, 1.0, 2.5e-7);
    /* the sum runs in short float32 pieces, whose length is the compiler's choice */
    ck_assert_double_eq_tol(kept / sum, 1.0, 2.5e-7);
}
END_TEST

START_TEST(rmsnorm_and_its_gradient_are_right)
{
    float inverse, dx[N];
    fill();
    memset(dx, 0, sizeof dx);
    fl_rmsnorm(x, w, 1e-5, 1, N, z, &inverse);
    double squares = 0.0, inner = 0.0;
    for (int i = 0; i < N; i++)
        squares += (double)x[i] * (double)x[i];
    const double r = 1.0 / sqrt(squares / N + 1e-5);
    for (int i = 0; i < N; i++) {
        ck_assert_double_eq_tol((double)z[i], (double)x[i] * r * (double)w[i], 2e-6);
        inner += (double)y[i] * (double)w[i] * (double)x[i];
    }
    fl_rmsnorm_backward(y, x, w, &inverse, 1, N, dx);
    for (int i = 0; i < N; i++)
        ck_assert_double_eq_tol(
            (double)dx[i], r * (double)y[i] * (double)w[i] - (double)x[i] * r * r * r * inner / N,
            2e-6);
    fl_rmsnorm_again(x, w, &inverse, 1, N, dx);
    ck_assert_int_eq(memcmp(dx, z, sizeof z), 0);
}
END_TEST

START_TEST(layernorm_and_its_gradient_are_right)
{
    float inverse, dx[N], shifted[N];
    double mean = 0.0, variance = 0.0, g = 0.0, gz = 0.0;
    fill();
    memset(dx, 0, sizeof dx);
    for (int i = 0; i < N; i++) {
        shifted[i] = x[i] + 7.0f; /* a mean far from 0 */
        mean += (double)shifted[i] / N;
    }
    for (int i = 0; i < N; i++)
        variance += ((double)shifted[i] - mean) * ((double)shifted[i] - mean) / N;
    const double r = 1.0 / sqrt(variance + 1e-5);
    fl_layernorm(shifted, w, y, 1e-5, 1, N, z, &inverse);
    for (int i = 0; i < N; i++) {
        const double unit = ((double)shifted[i] - mean) * r;
        ck_assert_double_eq_tol((double)z[i], unit * (double)w[i] + (double)y[i], 4e-6);
        g += (double)y[i] * (double)w[i] / N;
        gz += (double)y[i] * (double)w[i] * unit / N;
    }
    fl_layernorm_backward(y, shifted, w, &inverse, 1, N, dx);
    for (int i = 0; i < N; i++)
        ck_assert_double_eq_tol(
            (double)dx[i],
            r * ((double)y[i] * (double)w[i] - g - ((double)shifted[i] - mean) * r * gz), 4e-6);
    fl_layernorm_again(shifted, w, y, &inverse, 1, N, dx);
    ck_assert_int_eq(memcmp(dx, z, sizeof z), 0);
}
END_TEST

START_TEST(gelu_and_its_gradient_are_right)
{
    const double c = sqrt(2.0 / 3.14159265358979323846);
    float dx[N];
    fill();
    memcpy(dx, x, sizeof dx);
    fl_gelu(x, N, z);
    fl_gelu_backward(w, N, dx);
    for (int i = 0; i < N; i++) {
        const double a = (double)x[i], t = tanh(c * (a + 0.044715 * a * a * a));
        const double slope = 0.5 * (1.0 + t) +
                             0.5 * a * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * a * a);
        ck_assert_double_eq_tol((double)z[i], 0.5 * a * (1.0 + t), 3e-6);
        ck_assert_double_eq_tol((double)dx[i], (double)w[i] * slope, 3e-6);
    }
}
END_TEST

START_TEST(swiglu_and_its_gradient_are_right)
{
    float gate[N], up[N];
    fill();
    fl_swiglu(x, y, N, z);
    memcpy(gate, x, sizeof gate);
    memcpy(up, y, sizeof up);
    fl_swiglu_backward(w, N, gate, up);
    for (int i = 0; i < N; i++) {
        const double a = (double)x[i], s = 1.0 / (1.0 + exp(-a));
        ck_assert_double_eq_tol((double)z[i], a * s * (double)y[i], 3e-6);
        ck_assert_double_eq_tol((double)up[i], (double)w[i] * a * s, 3e-6);
        ck_assert_double_eq_tol((double)gate[i],
                                (double)w[i] * (double)y[i] * s * (1.0 + a * (1.0 - s)), 3e-6);
    }
}
END_TEST

START_TEST(geglu_and_its_gradient_are_right)
{
    const double c = sqrt(2.0 / 3.14159265358979323846);
    float gate[N], up[N];
    fill();
    fl_geglu(x, y, N, z);
    memcpy(gate, x, sizeof gate);
    memcpy(up, y, sizeof up);
    fl_geglu_backward(w, N, gate, up);
    for (int i = 0; i < N; i++) {
        const double a = (double)x[i], t = tanh(c * (a + 0.044715 * a * a * a));
        const double gelu = 0.5 * a * (1.0 + t);
        const double slope = 0.5 * (1.0 + t) +
                             0.5 * a * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * a * a);
        ck_assert_double_eq_tol((double)z[i], gelu * (double)y[i], 3e-6);
        ck_assert_double_eq_tol((double)up[i], (double)w[i] * gelu, 3e-6);
        ck_assert_double_eq_tol((double)gate[i], (double)w[i] * (double)y[i] * slope, 3e-6);
    }
}
END_TEST

/* Far out, in between, and near 0, where the relative error counts. */
START_TEST(a_soft_cap_and_its_gradient_are_right)
{
    static const float SCALES[] = {40.0f, 1.0f, 0.1f, 1e-4f};
    for (size_t s = 0; s < sizeof SCALES / sizeof *SCALES; s++) {
        float d[N];
        fill();
        for (int i = 0; i < N; i++)
            x[i] *= SCALES[s];
        memcpy(z, x, sizeof z);
        memcpy(d, w, sizeof d);
        fl_soft_cap(z, N, 0.5f, 3.0f);
        fl_soft_cap_backward(z, N, 0.5f, 3.0f, d);
        for (int i = 0; i < N; i++) {
            const double t = tanh(0.5 * (double)x[i] / 3.0);
            ck_assert_double_eq_tol((double)z[i], 3.0 * t, fmax(2e-6 * fabs(3.0 * t), 1e-30));
            ck_assert_double_eq_tol((double)d[i], (double)w[i] * 0.5 * (1.0 - t * t), 2e-6);
        }
    }
}
END_TEST

START_TEST(softmax_sees_only_what_it_may)
{
    float again[N];
    fill();
    memcpy(z, x, sizeof z);
    memcpy(again, x, sizeof again);
    const float lse = fl_softmax_row(z, 1000, N, 0.5f);
    double total = 0.0, sum = 0.0;
    for (int i = 0; i < 1000; i++)
        sum += exp(0.5 * (double)x[i]);
    ck_assert_double_eq_tol((double)lse, log(sum), 1e-5);
    fl_softmax_again(again, 1000, N, 0.5f, lse);
    for (int i = 0; i < N; i++) {
        total += (double)z[i];
        ck_assert_double_eq_tol((double)z[i], i < 1000 ? exp(0.5 * (double)x[i]) / sum : 0.0, 1e-8);
        ck_assert_float_eq_tol(again[i], z[i], 1e-8f);
    }
    ck_assert_double_eq_tol(total, 1.0, 1e-5);
}
END_TEST

START_TEST(rotation_and_its_backward_undo_each_other)
{
    enum { HALF = 32 };
    const struct fl_rope rope = {.kind = FL_ROPE_DEFAULT, .theta = 10000.0};
    float cosine[5 * HALF], sine[5 * HALF], v[2 * HALF];
    fill();
    fl_rope_table(&rope, 2 * HALF, 5, cosine, sine);
    memcpy(v, x, sizeof v);
    fl_rotate(v, cosine + 4 * HALF, sine + 4 * HALF, HALF, 1.0f);
    ck_assert_float_eq_tol(v[0], x[0] * (float)cos(4.0) - x[HALF] * (float)sin(4.0), 1e-5f);
    fl_rotate(v, cosine + 4 * HALF, sine + 4 * HALF, HALF, -1.0f);
    for (int i = 0; i < 2 * HALF; i++)
        ck_assert_float_eq_tol(v[i], x[i], 1e-5f);
}
END_TEST

START_TEST(rope_scalings_follow_their_definitions)
{
    float plain[8], scaled[8];
    const float divisors[8] = {1, 1, 2, 2, 4, 4, 8, 8};
    struct fl_rope rope = {.kind = FL_ROPE_DEFAULT, .theta = 500.0};
    fl_rope_frequencies(&rope, 16, plain);
    ck_assert_float_eq(plain[0], 1.0f);
    rope.kind = FL_ROPE_LINEAR;
    rope.factor = 4.0;
    fl_rope_frequencies(&rope, 16, scaled);
    ck_assert_float_eq_tol(scaled[3], plain[3] / 4.0f, 1e-7f);
    rope.kind = FL_ROPE_DEFAULT;
    rope.divisors = divisors;
    fl_rope_frequencies(&rope, 16, scaled);
    ck_assert_float_eq_tol(scaled[7], plain[7] / 8.0f, 1e-8f);
    rope = (struct fl_rope){.kind = FL_ROPE_LLAMA3,
                            .theta = 500.0,
                            .factor = 8.0,
                            .low = 1.0,
                            .high = 4.0,
                            .original_positions = 32.0};
    fl_rope_frequencies(&rope, 16, scaled);
    ck_assert_float_eq(scaled[0], plain[0]);                     /* wavelength 6.3 < 32 / 4 */
    ck_assert_float_eq_tol(scaled[7], plain[7] / 8.0f, 1e-8f);   /* longer than 32 */
    ck_assert(scaled[1] < plain[1] && scaled[1] > plain[1] / 8); /* between */
}
END_TEST

START_TEST(yarn_blends_between_its_corrections_and_scales_the_table)
{
    float plain[8], scaled[8], cosine[16], sine[16];
    struct fl_rope rope = {.kind = FL_ROPE_DEFAULT, .theta = 30.0};
    fl_rope_frequencies(&rope, 16, plain);
    rope = (struct fl_rope){.kind = FL_ROPE_YARN,
                            .theta = 30.0,
                            .factor = 4.0,
                            .fast = 4.0,
                            .slow = 1.0,
                            .original_positions = 32.0,
                            .attention = 1.5};
    fl_rope_frequencies(&rope, 16, scaled);
    /* corrections at pairs 0.57 and 3.83: from 0 to 4 */
    ck_assert_float_eq(scaled[0], plain[0]);
    ck_assert_float_eq_tol(scaled[1], plain[1] * (0.75f + 0.25f / 4.0f), 1e-7f);
    ck_assert_float_eq_tol(scaled[3], plain[3] * (0.25f + 0.75f / 4.0f), 1e-7f);
    for (int i = 4; i < 8; i++)
        ck_assert_float_eq_tol(scaled[i], plain[i] / 4.0f, 1e-8f);
    fl_rope_table(&rope, 16, 2, cosine, sine);
    ck_assert_float_eq(cosine[0], 1.5f);
    ck_assert_float_eq_tol(sine[8], 1.5f * sinf(scaled[0]), 1e-6f);
    ck_assert_double_eq_tol(fl_rope_yarn_attention(4.0), 1.1386294361, 1e-9);
    ck_assert_double_eq(fl_rope_yarn_attention(0.5), 1.0);
}
END_TEST

START_TEST(dropout_keeps_its_share_and_repeats)
{
    float first[N], second[N];
    int kept = 0;
    fill();
    for (int row = 0; row < 20; row++) {
        fl_dropout(x, 77, (uint64_t)row, 1, N, 0.25, first);
        fl_dropout(x, 77, (uint64_t)row, 1, N, 0.25, second);
        ck_assert_int_eq(memcmp(first, second, sizeof first), 0);
        for (int i = 0; i < N; i++) {
            kept += first[i] != 0.0f;
            ck_assert(first[i] == 0.0f || fabsf(first[i] - x[i] / 0.75f) < 1e-6f);
        }
    }
    ck_assert_int_gt(kept, (int)(0.735 * 20 * N));
    ck_assert_int_lt(kept, (int)(0.765 * 20 * N));
    fl_dropout(x, 78, 0, 1, N, 0.25, second);
    fl_dropout(x, 77, 0, 1, N, 0.25, first);
    ck_assert_int_ne(memcmp(first, second, sizeof first), 0);
}
END_TEST

START_TEST(schedules_equal_those_of_transformers)
{
    ck_assert_double_eq(fl_schedule_factor(FL_SCHEDULE_CONSTANT, 0, 0, 10), 1.0);
    ck_assert_double_eq(fl_schedule_factor(FL_SCHEDULE_CONSTANT, 1, 4, 10), 0.25);
    ck_assert_double_eq(fl_schedule_factor(FL_SCHEDULE_LINEAR, 0, 2, 10), 0.0);
    ck_assert_double_eq(fl_schedule_factor(FL_SCHEDULE_LINEAR, 2, 2, 10), 1.0);
    ck_assert_double_eq(fl_schedule_factor(FL_SCHEDULE_LINEAR, 6, 2, 10), 0.5);
    ck_assert_double_eq(fl_schedule_factor(FL_SCHEDULE_LINEAR, 12, 2, 10), 0.0);
    ck_assert_double_eq_tol(fl_schedule_factor(FL_SCHEDULE_COSINE, 4, 2, 10),
                            0.5 * (1.0 + cos(acos(-1.0) * 0.25)), 1e-12);
    ck_assert_double_eq_tol(fl_schedule_factor(FL_SCHEDULE_COSINE, 10, 2, 10), 0.0, 1e-12);
    enum fl_schedule kind;
    ck_assert_int_eq(fl_schedule_parse("cosine", &kind), FL_OK);
    ck_assert_int_eq(kind, FL_SCHEDULE_COSINE);
    ck_assert_int_eq(fl_schedule_parse("Cosine", &kind), FL_EINVAL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, exponentials_are_right_to_two_ulp_over_their_range);
    tcase_add_test(tc, sums_of_exponentials_over_a_large_vocabulary_lose_nothing);
    tcase_add_test(tc, rmsnorm_and_its_gradient_are_right);
    tcase_add_test(tc, layernorm_and_its_gradient_are_right);
    tcase_add_test(tc, gelu_and_its_gradient_are_right);
    tcase_add_test(tc, swiglu_and_its_gradient_are_right);
    tcase_add_test(tc, geglu_and_its_gradient_are_right);
    tcase_add_test(tc, a_soft_cap_and_its_gradient_are_right);
    tcase_add_test(tc, softmax_sees_only_what_it_may);
    tcase_add_test(tc, rotation_and_its_backward_undo_each_other);
    tcase_add_test(tc, rope_scalings_follow_their_definitions);
    tcase_add_test(tc, yarn_blends_between_its_corrections_and_scales_the_table);
    tcase_add_test(tc, dropout_keeps_its_share_and_repeats);
    tcase_add_test(tc, schedules_equal_those_of_transformers);
}

FL_TEST_MAIN("kernels", add_tests)
