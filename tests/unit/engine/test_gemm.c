/* The kernel that was chosen or forced, and the whole products, against double precision. */
#include "engine/forced.h"
#include "engine/reference.h"
#include "runner.h"

#include <stdlib.h>
#include <string.h>

#include "worker/engine/gemm.h"

enum { M = 40, N = 120, K = 300 };

static float a[K * M + M * K], b[K * N + N * K], c[M * (N + 3)], packed[K * 64];

static bool abs_tol(double got, double want)
{
    const double off = got > want ? got - want : want - got;
    return off <= 1e-4; /* up to 300 products of values below 1 */
}

static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)toy_random(&seed);
}

/* A by rows (turned: by columns), B by rows or by columns; C has 3 columns that are not its own. */
static void check(size_t m, size_t n, size_t k, bool a_turned, bool b_turned, bool add)
{
    const size_t lda = a_turned ? M : K, ldb = b_turned ? K : N, ldc = N + 3;
    for (size_t i = 0; i < M * (N + 3); i++)
        c[i] = 1.0f;
    const float beta = add ? 1.0f : 0.0f;
    if (a_turned)
        fl_gemm_tn(m, n, k, 0.5f, a, lda, b, ldb, beta, c, ldc);
    else if (b_turned)
        fl_gemm_nt(m, n, k, 0.5f, a, lda, b, ldb, beta, c, ldc);
    else
        fl_gemm_nn(m, n, k, 0.5f, a, lda, b, ldb, beta, c, ldc);
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < ldc; j++) {
            double want = 1.0;
            if (i < m && j < n) {
                double sum = 0.0;
                for (size_t p = 0; p < k; p++)
                    sum += (double)a[a_turned ? p * lda + i : i * lda + p] *
                           (double)b[b_turned ? j * ldb + p : p * ldb + j];
                want = add + 0.5 * sum;
            }
            ck_assert_msg(abs_tol((double)c[i * ldc + j], want), "%zu %zu %zu at %zu %zu: %g, %g",
                          m, n, k, i, j, (double)c[i * ldc + j], want);
        }
    }
}

START_TEST(whole_products_are_right_in_every_shape)
{
    static const size_t ms[] = {1, 4, 8, 13, 40}, ns[] = {1, 16, 48, 64, 120},
                        ks[] = {0, 1, 7, 300};
    fill(a, sizeof a / sizeof *a, 1);
    fill(b, sizeof b / sizeof *b, 2);
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t p = 0; p < sizeof ks / sizeof *ks; p++)
                for (int way = 0; way < 6; way++)
                    check(ms[i], ns[j], ks[p], way % 3 == 1, way % 3 == 2, way > 2);
}
END_TEST

static void check_kernel(const struct fl_gemm_kernel *kernel, size_t n, size_t k)
{
    const size_t width = fl_gemm_padded(kernel, n);
    ck_assert(width <= 64);
    memset(packed, 0xff, sizeof packed); /* NaN */
    kernel->pack_turned(b, K, k, n, packed, width);
    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < width; j++)
            ck_assert(packed[p * width + j] == (j < n ? b[j * K + p] : 0.0f));
    memset(packed, 0xff, sizeof packed);
    kernel->pack(b, N, k, n, packed, width);
    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < width; j++)
            ck_assert(packed[p * width + j] == (j < n ? b[p * N + j] : 0.0f));
    for (int add = 0; add < 2; add++) {
        for (size_t j = 0; j < n; j++)
            c[j] = 1.0f;
        kernel->dots(n, k, a, b, K, c, add);
        for (size_t j = 0; j < n; j++) {
            double want = add;
            for (size_t p = 0; p < k; p++)
                want += (double)a[p] * (double)b[j * K + p];
            ck_assert(abs_tol((double)c[j], want));
        }
        ck_assert(c[n] == 1.0f);
    }
}

START_TEST(packing_pads_with_zeros_and_dots_need_none)
{
    const struct fl_gemm_kernel *kernel = fl_gemm_kernel();
    fill(a, sizeof a / sizeof *a, 3);
    fill(b, sizeof b / sizeof *b, 4);
    c[48] = 1.0f;
    for (size_t n = 1; kernel && n <= kernel->columns; n++) {
        c[n] = 1.0f;
        check_kernel(kernel, n, 1);
        c[n] = 1.0f;
        check_kernel(kernel, n, 37);
    }
}
END_TEST

START_TEST(a_result_repeats_its_bytes)
{
    static float again[M * (N + 3)];
    fill(a, sizeof a / sizeof *a, 5);
    fill(b, sizeof b / sizeof *b, 6);
    check(M, N, K, false, true, false);
    memcpy(again, c, sizeof c);
    check(M, N, K, false, true, false);
    ck_assert_int_eq(memcmp(again, c, sizeof c), 0);
}
END_TEST

/* Strips of bfloat16: MOST rows or columns with a border that must not be touched. */
enum { ROWS_MOST = 70, PAIRS_MOST = 1100, BORDER = 3 };

static float pairs_a[ROWS_MOST * PAIRS_MOST], pairs_b[PAIRS_MOST * FL_GEMM_COLUMNS_MAX];
static float strip_c[(ROWS_MOST + 1) * (FL_GEMM_COLUMNS_MAX + BORDER)];

static double half_of(const float *units, size_t unit, size_t odd)
{
    uint16_t bits;
    float value;
    memcpy(&bits, (const char *)(units + unit) + 2 * odd, sizeof bits);
    fl_dtype_widen(FL_DTYPE_BF16, &bits, 1, &value);
    return (double)value;
}

static double strip_sum(const struct fl_gemm_strip *s, size_t i, size_t j)
{
    double sum = 0.0;
    for (size_t p = 0; p < s->k; p++)
        for (size_t odd = 0; odd < 2; odd++)
            sum += half_of(s->a, i * s->rs + p, odd) * half_of(s->b, p * s->ldb + j, odd);
    return sum;
}

static void check_strip(const struct fl_gemm_bf16 *bf16, size_t m, size_t n, size_t k, bool add)
{
    const size_t ldc = n + BORDER, width = fl_gemm_padded(bf16->tiles, n);
    const struct fl_gemm_strip s = {.m = m,
                                    .n = n,
                                    .k = k,
                                    .alpha = 1.0f,
                                    .a = pairs_a,
                                    .rs = k + 1,
                                    .cs = 1,
                                    .b = pairs_b,
                                    .ldb = width,
                                    .c = strip_c,
                                    .ldc = ldc,
                                    .add = add};
    for (size_t i = 0; i < (m + 1) * ldc; i++)
        strip_c[i] = 0.5f;
    bf16->tiles->strip(&s);
    for (size_t i = 0; i <= m; i++)
        for (size_t j = 0; j < ldc; j++) {
            const bool inside = i < m && j < n;
            const double want = inside ? strip_sum(&s, i, j) + (add ? 0.5 : 0.0) : 0.5;
            ck_assert_msg(abs_tol((double)strip_c[i * ldc + j], want),
                          "%zu %zu %zu at %zu %zu: %g, %g", m, n, k, i, j,
                          (double)strip_c[i * ldc + j], want);
        }
}

static void fill_pairs(const struct fl_gemm_bf16 *bf16, float *units, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        const float two[2] = {(float)toy_random(&seed), (float)toy_random(&seed)};
        bf16->narrow(two, 2, units + i);
    }
}

START_TEST(bfloat16_strips_are_right_in_every_shape)
{
    static const size_t ms[] = {1, 15, 16, 17, 32, 33, 70}, ns[] = {1, 15, 16, 17, 32, 33, 48},
                        ks[] = {1, 15, 16, 17, 48};
    const struct fl_gemm_bf16 *bf16 = fl_gemm_bf16();
    if (!bf16)
        return;
    fill_pairs(bf16, pairs_a, sizeof pairs_a / sizeof *pairs_a, 7);
    fill_pairs(bf16, pairs_b, sizeof pairs_b / sizeof *pairs_b, 8);
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t p = 0; p < sizeof ks / sizeof *ks; p++)
                for (int add = 0; add < 2; add++)
                    check_strip(bf16, ms[i], ns[j], ks[p], add);
    check_strip(bf16, 37, 48, PAIRS_MOST - 1, false); /* more than a block of k, and a rest */
    check_strip(bf16, 5, 20, PAIRS_MOST - 1, true);
}
END_TEST

START_TEST(bfloat16_packing_rounds_and_pads_with_zeros)
{
    static float out[FL_GEMM_COLUMNS_MAX];
    const struct fl_gemm_bf16 *bf16 = fl_gemm_bf16();
    fill(a, sizeof a / sizeof *a, 9);
    for (size_t n = 1; bf16 && n <= bf16->tiles->columns; n++) {
        const size_t width = fl_gemm_padded(bf16->tiles, n);
        memset(out, 0xff, sizeof out);
        bf16->pair(a, a + 101, n, width, out);
        for (size_t j = 0; j < width; j++)
            for (size_t odd = 0; odd < 2; odd++) {
                uint16_t bits;
                memcpy(&bits, (const char *)(out + j) + 2 * odd, sizeof bits);
                ck_assert_uint_eq(bits, j < n ? fl_f32_to_bf16(a[101 * odd + j]) : 0);
            }
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, bfloat16_strips_are_right_in_every_shape);
    tcase_add_test(tc, bfloat16_packing_rounds_and_pads_with_zeros);
    tcase_add_test(tc, whole_products_are_right_in_every_shape);
    tcase_add_test(tc, packing_pads_with_zeros_and_dots_need_none);
    tcase_add_test(tc, a_result_repeats_its_bytes);
}

int main(int argc, char **argv)
{
    if (forced_kernel_is_missing())
        return FL_TEST_SKIPPED;
    return fl_runner_main("gemm", add_tests, argc, argv);
}
