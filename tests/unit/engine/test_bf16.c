/* What bfloat16 adds: stored blocks straight to pairs, thin products, attention. */
#include "engine/forced.h"
#include "engine/reference.h"
#include "runner.h"

#include <math.h>
#include <string.h>

#include "worker/engine/attention.h"
#include "worker/engine/thin.h"

static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)toy_random(&seed);
}

static float rounded(float x)
{
    const uint16_t bits = fl_f32_to_bf16(x);
    float value;
    fl_dtype_widen(FL_DTYPE_BF16, &bits, 1, &value);
    return value;
}

/* Random bytes, but scales (halves at the front of a block) near 1. */
START_TEST(stored_blocks_become_the_pairs_of_their_rounded_values)
{
    static const enum fl_dtype types[] = {FL_DTYPE_F16, FL_DTYPE_BF16, FL_DTYPE_Q8_0, FL_DTYPE_Q4_0,
                                          FL_DTYPE_Q4_1};
    enum { COUNT = 32 * 40 };
    static uint8_t stored[COUNT * 2 + 1];
    static float wide[COUNT], got[COUNT / 2], want[COUNT / 2];
    const struct fl_gemm_bf16 *bf16 = fl_gemm_bf16();
    const enum fl_dtype type = types[_i];
    const size_t bytes = fl_dtype_block_bytes(type), values = fl_dtype_block_values(type);
    uint64_t seed = 5;
    if (!bf16)
        return;
    for (size_t i = 0; i < sizeof stored; i++)
        stored[i] = (uint8_t)(toy_random(&seed) * 1e4);
    uint8_t *data = stored + 1; /* at any alignment */
    for (size_t i = 0; i < COUNT / values; i++)
        for (size_t j = 0; j < (values == 1 || type == FL_DTYPE_Q4_1 ? bytes : 2) && j < 4;
             j += 2) {
            const float value = (float)toy_random(&seed);
            const uint16_t half = type == FL_DTYPE_BF16 ? fl_f32_to_bf16(value)
                                                        : fl_f32_to_f16(value);
            memcpy(data + i * bytes + j, &half, sizeof half);
        }
    fl_dtype_widen(type, data, COUNT, wide);
    bf16->narrow(wide, COUNT, want);
    ck_assert(bf16->widen(type, data, COUNT, got));
    ck_assert_int_eq(memcmp(got, want, sizeof got), 0);
    ck_assert(!bf16->widen(FL_DTYPE_Q6_K, data, 256, got));
    ck_assert(!bf16->widen(FL_DTYPE_BF16, data, 30, got));
}
END_TEST

enum { TOKENS = 261, WIDE = 530, RANKS = 70 };

static float x[TOKENS * WIDE], v[TOKENS * RANKS], factor[RANKS * WIDE], out[RANKS * WIDE];

static void near(float got, double want, const char *what, size_t i, size_t j)
{
    ck_assert_msg(fabs((double)got - want) < 1e-4 * (1.0 + fabs(want)), "%s at %zu %zu: %g, %g",
                  what, i, j, (double)got, want);
}

static void round_all(void)
{
    fill(x, sizeof x / sizeof *x, 1);
    fill(v, sizeof v / sizeof *v, 2);
    fill(factor, sizeof factor / sizeof *factor, 3);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = rounded(x[i]);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        v[i] = rounded(v[i]);
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++)
        factor[i] = rounded(factor[i]);
}

/* x as it is, or all of it narrowed. */
static struct fl_thin_rows rows_of_x(bool narrowed)
{
    static float units[TOKENS * WIDE / 2];
    if (!narrowed)
        return (struct fl_thin_rows){x, WIDE, false};
    fl_gemm_bf16()->narrow(x, sizeof x / sizeof *x, units);
    return (struct fl_thin_rows){units, WIDE / 2, true};
}

static void check_project(size_t m, size_t k, size_t rank, bool turned, bool narrowed)
{
    const struct fl_thin_rows rows = rows_of_x(narrowed);
    fl_thin_project(fl_gemm_bf16(), m, k, rank, &rows, factor, turned, out);
    for (size_t i = 0; i < m; i++)
        for (size_t r = 0; r < rank; r++) {
            double want = 0.0;
            for (size_t p = 0; p < k; p++)
                want += (double)x[i * WIDE + p] *
                        (double)(turned ? factor[r * k + p] : factor[p * rank + r]);
            near(out[i * rank + r], want, "projection", i, r);
        }
}

static void check_gradient(size_t tokens, size_t n, size_t rank, bool by_rank, bool narrowed)
{
    enum { FIRST = 2 };
    const struct fl_thin_rows rows = rows_of_x(narrowed);
    const struct fl_thin_gradient g = {out, by_rank ? 1 : n, by_rank ? rank : 1};
    for (size_t i = 0; i < n * rank; i++)
        out[i] = 1.0f;
    fl_thin_gradient(fl_gemm_bf16(), tokens, n, rank, 0.5f, v, &rows, FIRST, &g);
    for (size_t r = 0; r < rank; r++)
        for (size_t j = 0; j < n; j++) {
            double want = 0.0;
            for (size_t t = 0; t < tokens; t++)
                want += (double)v[t * rank + r] * (double)x[t * WIDE + FIRST + j];
            near(out[r * g.rs + j * g.cs], 1.0 + 0.5 * want, "gradient", r, j);
        }
}

START_TEST(thin_products_are_those_of_the_rounded_values)
{
    static const size_t ranks[] = {1, 8, 16, 49, RANKS};
    if (!fl_gemm_bf16())
        return;
    round_all();
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
        for (int way = 0; way < 4; way++) {
            check_project(37, WIDE, ranks[i], way % 2, way / 2);
            check_project(64, 32, ranks[i], way % 2, way / 2);
            check_gradient(TOKENS, 50, ranks[i], way % 2, way / 2);
            check_gradient(32, 96, ranks[i], way % 2, way / 2);
        }
}
END_TEST

/* ---- attention ---- */

enum { HEADS = 4, GROUPS = 2, DIM = 32, LONG = 230, SHORT = 7, ALL = LONG + SHORT };

struct attended {
    float o[ALL * HEADS * DIM], lse[ALL * HEADS], dq[ALL * HEADS * DIM];
    float dk[ALL * GROUPS * DIM], dv[ALL * GROUPS * DIM];
};

static void attend(bool bf16, uint32_t window, struct attended *a)
{
    static float q[ALL * HEADS * DIM], k[ALL * GROUPS * DIM], values[ALL * GROUPS * DIM];
    static float d_o[ALL * HEADS * DIM];
    const struct fl_attention shape = {
        .heads = HEADS, .kv_heads = GROUPS, .head_dim = DIM, .window = window};
    const struct fl_span spans[] = {{0, LONG, 0}, {LONG, SHORT, 0}};
    const size_t floats = fl_attention_strip_floats(LONG, DIM, bf16);
    float *strips = calloc(2 * floats, sizeof *strips);
    const struct fl_work work = {
        .threads = 2, .bf16 = bf16, .strips = strips, .strip_floats = floats};
    fill(q, sizeof q / sizeof *q, 1);
    fill(k, sizeof k / sizeof *k, 2);
    fill(values, sizeof values / sizeof *values, 3);
    fill(d_o, sizeof d_o / sizeof *d_o, 4);
    fl_attention_forward(&work, &shape, spans, 2, q, k, values, a->o, a->lse);
    fl_attention_backward(&work, &shape, spans, 2, q, k, values, a->o, a->lse, d_o, a->dq, a->dk,
                          a->dv);
    free(strips);
}

static double distance(const float *got, const float *want, size_t n)
{
    double off = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        off += pow((double)got[i] - (double)want[i], 2);
        size += pow((double)want[i], 2);
    }
    return sqrt(off / size);
}

#define ck_near(member)                                                                            \
    ck_assert_double_lt(distance(narrow.member, wide.member, sizeof wide.member / sizeof(float)),  \
                        0.01)

START_TEST(attention_in_bfloat16_is_that_of_float32_but_for_rounding)
{
    static const uint32_t windows[] = {0, 1, 50, 100, 150, LONG};
    static struct attended wide, narrow;
    if (!fl_gemm_bf16())
        return;
    attend(false, windows[_i], &wide);
    attend(true, windows[_i], &narrow);
    ck_near(o);
    ck_near(lse);
    ck_near(dv);
    if (windows[_i] == 1) /* one key: its probability does not depend on it */
        return;
    ck_near(dq);
    ck_near(dk);
    ck_assert(distance(narrow.o, wide.o, LONG * HEADS * DIM) > 1e-5);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, stored_blocks_become_the_pairs_of_their_rounded_values, 0, 5);
    tcase_add_test(tc, thin_products_are_those_of_the_rounded_values);
    tcase_add_loop_test(tc, attention_in_bfloat16_is_that_of_float32_but_for_rounding, 0, 6);
}

int main(int argc, char **argv)
{
    if (forced_kernel_is_missing())
        return FL_TEST_SKIPPED;
    return fl_runner_main("bf16", add_tests, argc, argv);
}
