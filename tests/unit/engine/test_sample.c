/* Sampling: the distribution that is drawn from against its formula, written down naively. */
#include "runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/sample.h"

enum { VOCAB = 300, DRAWS = 20000 };

static struct fl_error error;
static float logits[VOCAB];
static double want[VOCAB], got[VOCAB];

static void fill(uint64_t seed)
{
    for (int i = 0; i < VOCAB; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        logits[i] = (float)(seed >> 40) / (float)(1 << 21) - 4.0f;
    }
    logits[17] = logits[40] = 4.25f; /* two that are equal, at the top */
}

static int falling(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    if (logits[x] != logits[y])
        return logits[x] > logits[y] ? -1 : 1;
    return x - y;
}

/* softmax, sort, keep k, renormalise, keep the shortest run that reaches p, renormalise */
static void formula(double temperature, uint32_t k, double p)
{
    int order[VOCAB];
    double total = 0.0, sum = 0.0;
    uint32_t kept = k && k < VOCAB ? k : VOCAB, n = 0;
    memset(want, 0, sizeof want);
    for (int i = 0; i < VOCAB; i++)
        order[i] = i;
    qsort(order, VOCAB, sizeof *order, falling);
    for (uint32_t i = 0; i < kept; i++)
        total += exp((double)logits[order[i]] / temperature);
    while (n < kept && (n == 0 || p <= 0.0 || p >= 1.0 || sum < p * total))
        sum += exp((double)logits[order[n++]] / temperature);
    for (uint32_t i = 0; i < n; i++)
        want[order[i]] = exp((double)logits[order[i]] / temperature) / sum;
}

static struct fl_sampler *make(struct fl_sampling how, uint32_t vocab)
{
    struct fl_sampler *sampler = NULL;
    fl_assert_ok(fl_sampler_create(&how, vocab, &sampler, &error), &error);
    return sampler;
}

static void compare(double temperature, uint32_t k, double p)
{
    struct fl_sampler *s = make((struct fl_sampling){temperature, p, k, 1}, VOCAB);
    double sum = 0.0;
    formula(temperature, k, p);
    fl_sampler_probabilities(s, logits, got);
    for (int i = 0; i < VOCAB; i++) {
        ck_assert_msg(fabs(got[i] - want[i]) < 1e-12, "T %g k %u p %g: token %d has %g, not %g",
                      temperature, k, p, i, got[i], want[i]);
        sum += got[i];
    }
    ck_assert_double_eq_tol(sum, 1.0, 1e-12);
    fl_sampler_destroy(&s);
}

START_TEST(the_distribution_is_that_of_the_formula)
{
    static const double temperatures[] = {0.3, 1.0, 2.5}, ps[] = {0.0, 1e-9, 0.05, 0.5, 0.93, 1.0};
    static const uint32_t ks[] = {0, 1, 2, 7, 50, VOCAB - 1, VOCAB, 1000000};
    for (uint64_t seed = 1; seed <= 5; seed++) {
        fill(seed);
        for (size_t t = 0; t < 3; t++)
            for (size_t k = 0; k < sizeof ks / sizeof *ks; k++)
                for (size_t p = 0; p < sizeof ps / sizeof *ps; p++)
                    compare(temperatures[t], ks[k], ps[p]);
    }
}
END_TEST

START_TEST(sampling_is_greedy_at_zero_and_follows_the_distribution)
{
    const float four[4] = {0.0f, 2.0f, 2.0f, -30.0f};
    const struct fl_sampling how = {.temperature = 2.0, .seed = 1};
    struct fl_sampler *greedy = make((struct fl_sampling){.seed = 1}, 4);
    struct fl_sampler *warm = make(how, 4), *same = make(how, 4);
    int seen[4] = {0};
    ck_assert_int_eq(fl_sampler_next(greedy, four), 1);
    fl_sampler_probabilities(greedy, four, got);
    ck_assert_double_eq(got[1], 1.0);
    for (int i = 0; i < DRAWS; i++) {
        const int32_t id = fl_sampler_next(warm, four);
        ck_assert_int_eq(fl_sampler_next(same, four), id);
        seen[id]++;
    }
    const double e = exp(1.0), total = 1.0 + 2.0 * e;
    ck_assert_double_eq_tol(seen[0] / (double)DRAWS, 1.0 / total, 0.01);
    ck_assert_double_eq_tol(seen[1] / (double)DRAWS, e / total, 0.015);
    ck_assert_int_eq(seen[3], 0);
    fl_sampler_destroy(&greedy);
    fl_sampler_destroy(&warm);
    fl_sampler_destroy(&same);
}
END_TEST

START_TEST(draws_from_a_cut_distribution_have_its_frequencies)
{
    fill(9);
    struct fl_sampler *s = make((struct fl_sampling){1.0, 0.6, 20, 42}, VOCAB);
    int seen[VOCAB] = {0};
    formula(1.0, 20, 0.6);
    for (int i = 0; i < DRAWS; i++)
        seen[fl_sampler_next(s, logits)]++;
    for (int i = 0; i < VOCAB; i++) {
        const double deviation = sqrt(want[i] * (1.0 - want[i]) / DRAWS);
        ck_assert_double_le(fabs(seen[i] / (double)DRAWS - want[i]), 5.0 * deviation);
    }
    fl_sampler_destroy(&s);
}
END_TEST

START_TEST(logits_far_apart_leave_the_likeliest)
{
    const float far[3] = {-3e38f, 3e38f, 0.0f};
    struct fl_sampler *s = make((struct fl_sampling){1e-3, 0.5, 2, 1}, 3);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(fl_sampler_next(s, far), 1);
    fl_sampler_destroy(&s);
    s = make((struct fl_sampling){1.0, 0.5, 1, 1}, 1);
    ck_assert_int_eq(fl_sampler_next(s, far), 0);
    fl_sampler_destroy(&s);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_distribution_is_that_of_the_formula);
    tcase_add_test(tc, sampling_is_greedy_at_zero_and_follows_the_distribution);
    tcase_add_test(tc, draws_from_a_cut_distribution_have_its_frequencies);
    tcase_add_test(tc, logits_far_apart_leave_the_likeliest);
}

FL_TEST_MAIN("sample", add_tests)
