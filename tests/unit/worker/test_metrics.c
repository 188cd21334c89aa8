/* Scores against published implementations (tests/golden/make_metrics.py), and the interval. */
#include "runner.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "worker/data/source.h"
#include "worker/lowercase.h"
#include "worker/metrics.h"

static struct fl_error error;

static const char *text_of(const json_t *row, const char *key, size_t *length)
{
    const json_t *value = json_object_get(row, key);
    *length = json_string_length(value);
    return json_string_value(value);
}

static void scores_are_right(const json_t *row, uint64_t line)
{
    size_t length, reference_length;
    const char *text = text_of(row, "text", &length);
    const char *reference = text_of(row, "reference", &reference_length);
    for (unsigned m = 0; m < FL_METRIC_COUNT; m++) {
        const char *name = fl_metric_name((enum fl_metric)m);
        const double want = json_number_value(json_object_get(row, name));
        double got;
        ck_assert_int_eq(
            fl_metric_score((enum fl_metric)m, text, length, reference, reference_length, &got),
            FL_OK);
        ck_assert_msg(fabs(got - want) < 1e-6, "line %llu: %s is %g, not %g",
                      (unsigned long long)line, name, got, want);
    }
}

static void lower_case_is_right(const json_t *row)
{
    size_t length;
    const char *text = text_of(row, "text", &length);
    struct fl_buf lower;
    fl_buf_init(&lower, 65536);
    fl_lowercase_append(&lower, text, length);
    ck_assert_int_eq(fl_buf_status(&lower), FL_OK);
    ck_assert_str_eq(fl_buf_text(&lower), text_of(row, "lower", &length));
    fl_buf_free(&lower);
}

START_TEST(scores_equal_those_of_published_implementations)
{
    struct fl_source *source = NULL;
    json_t *row = NULL;
    bool skippable;
    uint64_t number = 0;
    fl_assert_ok(fl_source_open(FL_TEST_SOURCE_DIR "/golden/metrics.jsonl", &source, &error),
                 &error);
    for (;;) {
        fl_assert_ok(fl_source_next(source, &row, &skippable, &error), &error);
        if (!row)
            break;
        scores_are_right(row, ++number);
        lower_case_is_right(row);
        json_decref(row);
    }
    ck_assert_uint_gt(number, 100);
    fl_source_close(source);
}
END_TEST

START_TEST(broken_text_is_scored_and_never_read_beyond)
{
    static const char broken[] = "\xE2\x82 the \xFF\xC3";
    for (unsigned m = 0; m < FL_METRIC_COUNT; m++) {
        for (size_t n = 0; n < sizeof broken; n++) {
            double score;
            ck_assert_int_eq(fl_metric_score((enum fl_metric)m, broken, n, broken, n, &score),
                             FL_OK);
            ck_assert(score >= 0.0 && score <= 1.0);
        }
    }
}
END_TEST

START_TEST(lists_of_metrics_are_read)
{
    static const char *const bad[] = {"", ",", "f1,", ",f1", "f2", "F1", "f1,,f1", "f1 "};
    unsigned bits;
    fl_assert_ok(fl_metrics_parse("rouge_l,f1", &bits, &error), &error);
    ck_assert_uint_eq(bits, 1u << FL_METRIC_F1 | 1u << FL_METRIC_ROUGE_L);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(fl_metrics_parse(bad[i], &bits, &error), FL_EUSAGE);
}
END_TEST

/* Of n values of 0 and 1 with mean p the interval is p +- 1.96 sqrt(p (1 - p) / n), nearly. */
START_TEST(the_interval_has_the_width_that_theory_gives)
{
    enum { N = 400 };
    double values[N];
    for (int i = 0; i < N; i++)
        values[i] = i % 4 == 0;
    struct fl_interval first, again, other;
    ck_assert_int_eq(fl_metric_interval(values, N, 4000, 1, &first), FL_OK);
    ck_assert_int_eq(fl_metric_interval(values, N, 4000, 1, &again), FL_OK);
    ck_assert_int_eq(fl_metric_interval(values, N, 4000, 2, &other), FL_OK);
    const double half = 1.96 * sqrt(0.25 * 0.75 / N);
    ck_assert_double_eq_tol(first.mean, 0.25, 1e-12);
    ck_assert_double_eq_tol(first.low, 0.25 - half, 0.1 * half);
    ck_assert_double_eq_tol(first.high, 0.25 + half, 0.1 * half);
    ck_assert_mem_eq(&first, &again, sizeof first);
    ck_assert(first.low != other.low || first.high != other.high);
}
END_TEST

START_TEST(a_single_value_and_no_resamples_give_the_mean)
{
    const double values[] = {0.5, 1.0};
    struct fl_interval i;
    ck_assert_int_eq(fl_metric_interval(values, 1, 100, 1, &i), FL_OK);
    ck_assert(i.mean == 0.5 && i.low == 0.5 && i.high == 0.5);
    ck_assert_int_eq(fl_metric_interval(values, 2, 0, 1, &i), FL_OK);
    ck_assert(i.mean == 0.75 && i.low == 0.75 && i.high == 0.75);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, scores_equal_those_of_published_implementations);
    tcase_add_test(tc, broken_text_is_scored_and_never_read_beyond);
    tcase_add_test(tc, lists_of_metrics_are_read);
    tcase_add_test(tc, the_interval_has_the_width_that_theory_gives);
    tcase_add_test(tc, a_single_value_and_no_resamples_give_the_mean);
}

FL_TEST_MAIN("metrics", add_tests)
