/*
 * Goal: QR, SVD and re-factoring are right, and give the same bytes on every machine.
 * Method: defining properties (orthonormal, reconstructs, sorted) on regular, singular and zero
 * matrices; a worked 2 x 2; a frozen hash of a re-factoring.
 */
#include "adapter/algebra.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "runner.h"

#define OUT  12
#define IN   10
#define RANK 4

struct sample {
    struct fl_lora_module module;
    float a[8 * IN], b[OUT * 8];
};

static void sample_init(struct sample *self, uint32_t rank)
{
    memset(self, 0, sizeof *self);
    snprintf(self->module.module.name, sizeof self->module.module.name, "model.layers.0.q_proj");
    self->module.module.out = OUT;
    self->module.module.in = IN;
    self->module.rank = rank;
    self->module.alpha = 16.0;
    self->module.a = self->a;
    self->module.b = self->b;
}

/* A regular sample: exact small fractions, no pattern. */
static void sample_fill(struct sample *self, uint32_t rank, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1;

    sample_init(self, rank);
    for (size_t i = 0; i < rank * IN; i++) {
        state = state * 1664525u + 1013904223u;
        self->a[i] = (float)((int32_t)(state >> 16) - 32768) / 65536.0f;
    }
    for (size_t i = 0; i < rank * OUT; i++) {
        state = state * 1664525u + 1013904223u;
        self->b[i] = (float)((int32_t)(state >> 16) - 32768) / 65536.0f;
    }
}

/* product (OUT, IN) = B A in double */
static void product(const struct fl_lora_module *m, double out[OUT * IN])
{
    for (size_t i = 0; i < OUT; i++)
        for (size_t k = 0; k < IN; k++) {
            double sum = 0.0;
            for (size_t j = 0; j < m->rank; j++)
                sum += (double)m->b[i * m->rank + j] * (double)m->a[j * IN + k];
            out[i * IN + k] = sum;
        }
}

static double distance(const double *x, const double *y, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sqrt(sum);
}

/* max |rows rows^T - I| of the frozen factor */
static double orthonormality(const struct fl_lora_module *m, enum fl_factors factor)
{
    double worst = 0.0;
    size_t width = factor == FL_FACTOR_A ? IN : OUT;

    for (size_t p = 0; p < m->rank; p++)
        for (size_t q = 0; q < m->rank; q++) {
            double sum = 0.0;
            for (size_t i = 0; i < width; i++)
                sum += factor == FL_FACTOR_A
                           ? (double)m->a[p * IN + i] * (double)m->a[q * IN + i]
                           : (double)m->b[i * m->rank + p] * (double)m->b[i * m->rank + q];
            worst = fmax(worst, fabs(sum - (p == q ? 1.0 : 0.0)));
        }
    return worst;
}

static void refactor(const struct sample *from, enum fl_factors frozen, uint32_t rank,
                     struct sample *to, struct fl_refactor_result *result)
{
    sample_init(to, rank);
    ck_assert_int_eq(fl_refactor(&from->module, frozen, 7, 3, &to->module, result), FL_OK);
}

static void check_qr(const double *a, size_t rows, size_t columns)
{
    double q[64], r[16], worst = 0.0;

    memcpy(q, a, rows * columns * sizeof *a);
    ck_assert_int_eq(fl_qr(q, rows, columns, r), FL_OK);
    for (size_t i = 0; i < columns; i++)
        for (size_t j = 0; j < columns; j++) {
            double sum = 0.0;
            for (size_t k = 0; k < rows; k++)
                sum += q[i * rows + k] * q[j * rows + k];
            worst = fmax(worst, fabs(sum - (i == j ? 1.0 : 0.0)));
            if (i > j)
                ck_assert_double_eq(r[j * columns + i], 0.0);
        }
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++) {
            double sum = 0.0;
            for (size_t k = 0; k < columns; k++)
                sum += q[k * rows + i] * r[j * columns + k];
            worst = fmax(worst, fabs(sum - a[j * rows + i]));
        }
    ck_assert_double_le(worst, 1e-14);
}

START_TEST(qr_reconstructs_regular_singular_and_zero_matrices)
{
    struct sample s;
    double a[40] = {0};

    check_qr(a, 10, 4);
    sample_fill(&s, RANK, 1);
    for (size_t i = 0; i < 40; i++)
        a[i] = (double)s.a[i];
    check_qr(a, 10, 4);
    memcpy(a + 20, a, 10 * sizeof *a); /* columns 0 and 2 are the same */
    check_qr(a, 10, 4);
    check_qr(a, 4, 4);
}
END_TEST

START_TEST(qr_refuses_what_is_not_finite_or_wide)
{
    double a[4] = {1, 2, 3, NAN}, r[4];

    ck_assert_int_eq(fl_qr(a, 2, 2, r), FL_EINVAL);
    ck_assert_int_eq(fl_qr(a, 1, 2, r), FL_EINVAL);
    ck_assert_int_eq(fl_svd(a, 2, r, r), FL_EINVAL);
}
END_TEST

START_TEST(svd_of_a_worked_matrix)
{
    double c[4] = {3, 4, 0, 5}, s[2], v[4]; /* [3 0; 4 5]: s^2 = 45 and 5 */

    ck_assert_int_eq(fl_svd(c, 2, s, v), FL_OK);
    ck_assert_double_eq_tol(s[0], sqrt(45.0), 1e-14);
    ck_assert_double_eq_tol(s[1], sqrt(5.0), 1e-14);
    ck_assert_double_eq_tol(c[0], 1 / sqrt(10.0), 1e-14); /* u_1 = (1, 3) / sqrt 10 */
    ck_assert_double_eq_tol(c[1], 3 / sqrt(10.0), 1e-14);
    ck_assert_double_eq_tol(v[0], 1 / sqrt(2.0), 1e-14);
    ck_assert_double_eq_tol(v[1], 1 / sqrt(2.0), 1e-14);
}
END_TEST

START_TEST(svd_reconstructs_singular_and_zero_matrices)
{
    for (int kind = 0; kind < 3; kind++) {
        double a[16], u[16], s[4], v[16];
        struct sample sample;
        sample_fill(&sample, RANK, 9);
        for (size_t i = 0; i < 16; i++)
            a[i] = kind == 2 ? 0.0 : (double)sample.a[i];
        if (kind == 1)
            memcpy(a + 8, a, 4 * sizeof *a);
        memcpy(u, a, sizeof u);
        ck_assert_int_eq(fl_svd(u, 4, s, v), FL_OK);
        for (size_t j = 0; j < 3; j++)
            ck_assert_double_ge(s[j], s[j + 1]);
        for (size_t i = 0; i < 4; i++)
            for (size_t j = 0; j < 4; j++) {
                double sum = 0.0;
                for (size_t k = 0; k < 4; k++)
                    sum += u[k * 4 + i] * s[k] * v[k * 4 + j];
                ck_assert_double_eq_tol(sum, a[j * 4 + i], 1e-14);
            }
        if (kind == 1)
            ck_assert_double_le(s[3], 1e-15);
    }
}
END_TEST

START_TEST(averaging_factors_apart_misses_their_covariance)
{
    /* sum w B A - Bbar Abar = sum w (B - Bbar)(A - Abar) */
    static const double w[3] = {0.5, 0.3, 0.2};
    struct sample sites[3], mean, apart;
    double ideal[OUT * IN] = {0}, naive[OUT * IN], covariance[OUT * IN] = {0}, p[OUT * IN];

    sample_init(&mean, RANK);
    for (uint32_t i = 0; i < 3; i++) {
        sample_fill(&sites[i], RANK, i + 20);
        product(&sites[i].module, p);
        for (size_t k = 0; k < OUT * IN; k++)
            ideal[k] += w[i] * p[k];
        for (size_t k = 0; k < RANK * IN; k++)
            mean.a[k] += (float)w[i] * sites[i].a[k];
        for (size_t k = 0; k < RANK * OUT; k++)
            mean.b[k] += (float)w[i] * sites[i].b[k];
    }
    product(&mean.module, naive);
    for (uint32_t i = 0; i < 3; i++) {
        sample_init(&apart, RANK);
        for (size_t k = 0; k < RANK * IN; k++)
            apart.a[k] = sites[i].a[k] - mean.a[k];
        for (size_t k = 0; k < RANK * OUT; k++)
            apart.b[k] = sites[i].b[k] - mean.b[k];
        product(&apart.module, p);
        for (size_t k = 0; k < OUT * IN; k++)
            covariance[k] += w[i] * p[k];
    }
    for (size_t k = 0; k < OUT * IN; k++)
        naive[k] += covariance[k];
    ck_assert_double_gt(distance(covariance, (double[OUT * IN]){0}, OUT * IN), 0.1);
    ck_assert_double_le(distance(ideal, naive, OUT * IN), 1e-6);
}
END_TEST

START_TEST(refactoring_keeps_the_product_and_makes_the_frozen_factor_orthonormal)
{
    static const enum fl_factors frozen[2] = {FL_FACTOR_A, FL_FACTOR_B};
    double before[OUT * IN], after[OUT * IN];

    for (int i = 0; i < 2; i++) {
        struct sample from, to;
        struct fl_refactor_result result;
        sample_fill(&from, RANK, 3);
        refactor(&from, frozen[i], RANK, &to, &result);
        product(&from.module, before);
        product(&to.module, after);
        ck_assert_double_le(distance(before, after, OUT * IN), 1e-6);
        ck_assert_double_le(orthonormality(&to.module, frozen[i]), 1e-6);
        ck_assert_uint_eq(result.kept, RANK);
        ck_assert_double_eq(result.energy_lost, 0.0);
        double norm = distance(before, (double[OUT * IN]){0}, OUT * IN);
        ck_assert_double_eq_tol(result.energy, norm * norm, 1e-9);
    }
}
END_TEST

START_TEST(the_first_round_gets_random_orthonormal_directions_and_zeros)
{
    struct sample from, to, other;
    struct fl_refactor_result result;

    sample_fill(&from, RANK, 4);
    memset(from.b, 0, sizeof from.b);
    refactor(&from, FL_FACTOR_A, RANK, &to, &result);
    ck_assert_uint_eq(result.kept, 0);
    ck_assert_double_le(orthonormality(&to.module, FL_FACTOR_A), 1e-6);
    for (size_t i = 0; i < RANK * OUT; i++)
        ck_assert(to.b[i] == 0.0f);
    refactor(&from, FL_FACTOR_A, RANK, &other, &result);
    ck_assert_mem_eq(to.a, other.a, sizeof to.a);
    sample_init(&other, RANK);
    ck_assert_int_eq(fl_refactor(&from.module, FL_FACTOR_A, 8, 3, &other.module, &result), FL_OK);
    ck_assert_mem_ne(to.a, other.a, sizeof to.a);
}
END_TEST

START_TEST(a_growing_rank_adds_orthogonal_directions_and_keeps_the_product)
{
    struct sample from, to;
    struct fl_refactor_result result;
    double before[OUT * IN], after[OUT * IN];

    sample_fill(&from, RANK, 5);
    refactor(&from, FL_FACTOR_B, 8, &to, &result);
    ck_assert_uint_eq(result.kept, RANK);
    product(&from.module, before);
    product(&to.module, after);
    ck_assert_double_le(distance(before, after, OUT * IN), 1e-6);
    ck_assert_double_le(orthonormality(&to.module, FL_FACTOR_B), 1e-6);
    for (size_t i = RANK * IN; i < 8 * IN; i++)
        ck_assert(to.a[i] == 0.0f);
}
END_TEST

START_TEST(a_shrinking_rank_loses_exactly_the_smallest_directions)
{
    struct sample from, to;
    struct fl_refactor_result result;
    double before[OUT * IN], after[OUT * IN];

    sample_fill(&from, RANK, 6);
    refactor(&from, FL_FACTOR_A, 2, &to, &result);
    product(&from.module, before);
    product(&to.module, after);
    ck_assert_uint_eq(result.kept, 2);
    ck_assert_double_gt(result.energy_lost, 0.0);
    ck_assert_double_eq_tol(distance(before, after, OUT * IN), sqrt(result.energy_lost), 1e-6);
}
END_TEST

START_TEST(dead_directions_are_replaced)
{
    struct sample from, to;
    struct fl_refactor_result result;

    sample_fill(&from, RANK, 7);
    memcpy(from.a + IN, from.a, IN * sizeof(float)); /* two equal rows: rank 3 */
    refactor(&from, FL_FACTOR_A, RANK, &to, &result);
    ck_assert_uint_eq(result.kept, 3);
    ck_assert_double_le(orthonormality(&to.module, FL_FACTOR_A), 1e-6);
    for (size_t i = 0; i < OUT; i++)
        ck_assert(to.b[i * RANK + 3] == 0.0f);
}
END_TEST

START_TEST(signs_depend_on_the_product_only)
{
    struct sample from, flipped, one, two;
    struct fl_refactor_result result;

    sample_fill(&from, RANK, 8);
    flipped = from;
    flipped.module.a = flipped.a;
    flipped.module.b = flipped.b;
    for (size_t i = 0; i < RANK * IN; i++)
        flipped.a[i] = -flipped.a[i];
    for (size_t i = 0; i < RANK * OUT; i++)
        flipped.b[i] = -flipped.b[i];
    refactor(&from, FL_FACTOR_A, RANK, &one, &result);
    refactor(&flipped, FL_FACTOR_A, RANK, &two, &result);
    for (size_t i = 0; i < RANK * IN; i++)
        ck_assert_double_eq_tol((double)one.a[i], (double)two.a[i], 1e-6);
}
END_TEST

START_TEST(refactoring_refuses_what_it_cannot_do)
{
    struct sample from, to;
    struct fl_refactor_result result;

    sample_fill(&from, RANK, 8);
    sample_init(&to, 8);
    ck_assert_int_eq(fl_refactor(&from.module, FL_FACTORS_BOTH, 1, 1, &to.module, &result),
                     FL_EINVAL);
    from.a[3] = NAN;
    ck_assert_int_eq(fl_refactor(&from.module, FL_FACTOR_A, 1, 1, &to.module, &result), FL_EINVAL);
}
END_TEST

START_TEST(gaussians_have_mean_zero_and_variance_one)
{
    double x[4000], mean = 0.0, square = 0.0, fourth = 0.0;

    fl_gaussians(1, 2, "name", 3, 4000, x);
    for (size_t i = 0; i < 4000; i++) {
        mean += x[i] / 4000;
        square += x[i] * x[i] / 4000;
        fourth += x[i] * x[i] * x[i] * x[i] / 4000;
    }
    ck_assert_double_le(fabs(mean), 0.05);
    ck_assert_double_eq_tol(square, 1.0, 0.07);
    ck_assert_double_eq_tol(fourth, 3.0, 0.5);
}
END_TEST

START_TEST(a_refactoring_has_the_same_bytes_on_every_machine)
{
    struct sample from, to;
    struct fl_refactor_result result;
    struct fl_sha256 hash;
    uint8_t digest[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];

    sample_fill(&from, RANK, 11);
    refactor(&from, FL_FACTOR_A, 8, &to, &result);
    fl_sha256_init(&hash);
    fl_sha256_update(&hash, to.a, sizeof to.a);
    fl_sha256_update(&hash, to.b, sizeof to.b);
    fl_sha256_final(&hash, digest);
    fl_hex(digest, sizeof digest, hex);
    ck_assert_str_eq(hex, "6b8fc271b0ed34ea8a8778e0ca403a6b90e0d485b8f2679e811ff8d2d1e89f30");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, qr_reconstructs_regular_singular_and_zero_matrices);
    tcase_add_test(tc, qr_refuses_what_is_not_finite_or_wide);
    tcase_add_test(tc, svd_of_a_worked_matrix);
    tcase_add_test(tc, svd_reconstructs_singular_and_zero_matrices);
    tcase_add_test(tc, averaging_factors_apart_misses_their_covariance);
    tcase_add_test(tc, refactoring_keeps_the_product_and_makes_the_frozen_factor_orthonormal);
    tcase_add_test(tc, the_first_round_gets_random_orthonormal_directions_and_zeros);
    tcase_add_test(tc, a_growing_rank_adds_orthogonal_directions_and_keeps_the_product);
    tcase_add_test(tc, a_shrinking_rank_loses_exactly_the_smallest_directions);
    tcase_add_test(tc, dead_directions_are_replaced);
    tcase_add_test(tc, signs_depend_on_the_product_only);
    tcase_add_test(tc, refactoring_refuses_what_it_cannot_do);
    tcase_add_test(tc, gaussians_have_mean_zero_and_variance_one);
    tcase_add_test(tc, a_refactoring_has_the_same_bytes_on_every_machine);
}

FL_TEST_MAIN("adapter.algebra", add_tests)
