/* Answers against those of transformers (tests/golden/make_answers.py), and their samples. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "worker/answering.h"
#include "worker/data/source.h"
#include "worker/data/tokenizer.h"
#include "worker/metrics.h"

#define TINY FL_TEST_SOURCE_DIR "/golden/tiny-llama"

static struct fl_error error;
static json_t *golden, *report;
static struct fl_local local;
static struct fl_samples samples;
static struct fl_answering answering;
static char directory[FL_PATH_BYTES], data_path[FL_PATH_BYTES], samples_path[FL_PATH_BYTES];

static void setup(void)
{
    fl_test_directory(directory);
    (void)snprintf(data_path, sizeof data_path, "%.4000s/data.jsonl", directory);
    (void)snprintf(samples_path, sizeof samples_path, "%.4000s/samples.jsonl", directory);
    fl_assert_ok(fl_json_load(FL_TEST_SOURCE_DIR "/golden/answers.json", 1 << 20, &golden, &error),
                 &error);
    report = json_object();
    ck_assert_ptr_nonnull(report);
    fl_assert_ok(fl_local_open_model(&local, TINY, &error), &error);
    answering = (struct fl_answering){.local = &local,
                                      .samples = &samples,
                                      .data_path = data_path,
                                      .threads = 1,
                                      .resamples = 10,
                                      .max_tokens = 20,
                                      .specials_plain = true};
    fl_assert_ok(fl_tokenizer_open(TINY, &answering.tokenizer, &error), &error);
}

static void teardown(void)
{
    fl_tokenizer_close(answering.tokenizer);
    fl_local_close(&local);
    json_decref(report);
    json_decref(golden);
}

static void write_data(const char *text)
{
    fl_assert_ok(fl_fs_write(data_path, text, strlen(text), 0644, &error), &error);
}

/* Every element of an array as a line of the data file. */
static void write_rows(const json_t *rows)
{
    struct fl_buf text;
    fl_buf_init(&text, 1 << 20);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        ck_assert_int_eq(fl_json_append(&text, json_array_get(rows, i)), FL_OK);
        fl_buf_append(&text, "\n", 1);
    }
    write_data(fl_buf_text(&text));
    fl_buf_free(&text);
}

/* The kept samples, checked one by one. */
static void each_sample(const json_t *rows, void (*check)(const json_t *want, const json_t *got))
{
    struct fl_source *source = NULL;
    json_t *got = NULL;
    bool skippable;
    fl_assert_ok(fl_samples_commit(&samples, &error), &error);
    fl_samples_close(&samples);
    fl_assert_ok(fl_source_open(samples_path, &source, &error), &error);
    for (size_t i = 0;; i++) {
        fl_assert_ok(fl_source_next(source, &got, &skippable, &error), &error);
        if (!got) {
            ck_assert_uint_eq(i, json_array_size(rows));
            break;
        }
        ck_assert_int_eq(json_integer_value(json_object_get(got, "row")), (json_int_t)i + 1);
        check(json_array_get(rows, i), got);
        json_decref(got);
    }
    fl_source_close(source);
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_number(value), "no number %s", key);
    return json_number_value(value);
}

static double mean_of(const char *metric)
{
    return number(json_object_get(json_object_get(report, "metrics"), metric), "mean");
}

static void choice_sample(const json_t *want, const json_t *got)
{
    const json_t *logprobs = json_object_get(want, "logprobs");
    ck_assert_uint_eq(json_array_size(logprobs), json_array_size(json_object_get(got, "logprobs")));
    size_t best = 0, best_norm = 0;
    double norm[8];
    for (size_t i = 0; i < json_array_size(logprobs); i++) {
        const double value = json_number_value(json_array_get(logprobs, i));
        const double ours = json_number_value(json_array_get(json_object_get(got, "logprobs"), i));
        ck_assert_double_eq_tol(ours, value, 1e-4 * fabs(value));
        const char *text = json_string_value(json_array_get(json_object_get(want, "choices"), i));
        size_t characters = 0;
        for (const char *c = text; *c; c++)
            characters += ((unsigned char)*c & 0xC0) != 0x80;
        norm[i] = value / (double)characters;
        best = value > json_number_value(json_array_get(logprobs, best)) ? i : best;
        best_norm = norm[i] > norm[best_norm] ? i : best_norm;
    }
    ck_assert_double_eq(number(got, "chosen"), (double)best);
    ck_assert_double_eq(number(got, "chosen_norm"), (double)best_norm);
    ck_assert_double_eq(number(got, "answer"), number(want, "answer"));
}

START_TEST(likelihoods_of_choices_equal_those_of_transformers)
{
    const json_t *rows = json_object_get(golden, "choices");
    write_rows(rows);
    fl_assert_ok(fl_samples_open(&samples, samples_path, &error), &error);
    fl_assert_ok(fl_answer_choices(&answering, report, &error), &error);
    each_sample(rows, choice_sample);
    ck_assert_double_eq(number(report, "rows"), (double)json_array_size(rows));
    ck_assert(mean_of("accuracy") >= 0.0 && mean_of("accuracy_norm") <= 1.0);
}
END_TEST

static void row_sample(const json_t *want, const json_t *got)
{
    ck_assert_str_eq(json_string_value(json_object_get(got, "prompt")),
                     json_string_value(json_object_get(want, "prompt")));
    ck_assert_str_eq(json_string_value(json_object_get(got, "completion")),
                     json_string_value(json_object_get(want, "completion")));
    ck_assert_double_eq(number(got, "tokens"), number(want, "tokens"));
}

START_TEST(answers_equal_those_of_transformers)
{
    const json_t *rows = json_object_get(golden, "rows");
    struct fl_local_data data = {.path = data_path};
    write_rows(rows);
    answering.metrics = 1u << FL_METRIC_F1 | 1u << FL_METRIC_EXACT_MATCH;
    fl_assert_ok(fl_local_open_data(&local, TINY, &data, &error), &error);
    fl_assert_ok(fl_samples_open(&samples, samples_path, &error), &error);
    fl_assert_ok(fl_answer_rows(&answering, report, &error), &error);
    each_sample(rows, row_sample);
    ck_assert(mean_of("f1") >= mean_of("exact_match"));
    ck_assert_ptr_null(json_object_get(json_object_get(report, "metrics"), "rouge_l"));
}
END_TEST

/* A reference is what stands up to the end-of-text token, the conversation's last turn. */
START_TEST(the_last_scored_run_is_the_reference)
{
    struct fl_local_data data = {.path = data_path};
    static const char *const stops[] = {"~"};
    static struct fl_option_list list;
    write_data("{\"messages\":[{\"role\":\"user\",\"content\":\"one\"},"
               "{\"role\":\"assistant\",\"content\":\"two\"},"
               "{\"role\":\"user\",\"content\":\"three\"},"
               "{\"role\":\"assistant\",\"content\":\"four\"}]}\n");
    list.items[0] = stops[0];
    list.count = 1;
    answering.metrics = 1u << FL_METRIC_ACCURACY;
    answering.stops = &list;
    fl_assert_ok(fl_local_open_data(&local, TINY, &data, &error), &error);
    fl_assert_ok(fl_samples_open(&samples, samples_path, &error), &error);
    fl_assert_ok(fl_answer_rows(&answering, report, &error), &error);
    fl_assert_ok(fl_samples_commit(&samples, &error), &error);
    fl_samples_close(&samples);
    struct fl_buf text;
    fl_assert_ok(fl_fs_read(samples_path, 1 << 20, &text, &error), &error);
    ck_assert_ptr_nonnull(strstr(fl_buf_text(&text), "\"reference\":\"four\""));
    ck_assert_ptr_nonnull(strstr(fl_buf_text(&text), "assistant\\ntwo<|im_end|>"));
    const char *completion = strstr(fl_buf_text(&text), "\"completion\"");
    ck_assert_ptr_null(strchr(completion, '~'));
    fl_buf_free(&text);
}
END_TEST

START_TEST(rows_without_a_prompt_are_refused)
{
    struct fl_local_data data = {.path = TINY "/text.jsonl"};
    answering.metrics = 1u << FL_METRIC_F1;
    fl_assert_ok(fl_local_open_data(&local, TINY, &data, &error), &error);
    ck_assert_int_eq(fl_answer_rows(&answering, report, &error), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "prompt"));
}
END_TEST

START_TEST(broken_choices_are_refused_with_their_line)
{
    static const char *const bad[] = {
        "{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"]}",
        "{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":2}",
        "{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":-1}",
        "{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":\"d\"}",
        "{\"prompt\":\"a\",\"choices\":[\"b\"],\"answer\":0}",
        "{\"prompt\":\"a\",\"choices\":[\"b\",7],\"answer\":0}",
        "{\"prompt\":\"a\",\"choices\":[\"b\",\"\"],\"answer\":0}",
        "{\"prompt\":7,\"choices\":[\"b\",\"c\"],\"answer\":0}",
        "{\"prompt\":\"\",\"choices\":[\"b\",\"c\"],\"answer\":0}",
        "{\"choices\":[\"b\",\"c\"],\"answer\":0}",
        "[1]",
        "{\"prompt\":",
    };
    char text[512];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        (void)snprintf(text, sizeof text, "\n%s\n", bad[i]);
        write_data(text);
        enum fl_status status = fl_answer_choices(&answering, report, &error);
        ck_assert_msg(status == FL_EFORMAT, "%s: %s", bad[i], fl_status_text(status));
        ck_assert_msg(strstr(error.text, "data.jsonl:2") != NULL, "%s", error.text);
    }
    answering.skip_bad_rows = true;
    (void)snprintf(text, sizeof text,
                   "%s\n{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":\"c\"}\n", bad[5]);
    write_data(text);
    fl_assert_ok(fl_answer_choices(&answering, report, &error), &error);
    ck_assert_double_eq(number(report, "bad"), 1.0);
    ck_assert_double_eq(number(report, "rows"), 1.0);
    write_data("\n");
    ck_assert_int_eq(fl_answer_choices(&answering, report, &error), FL_EFORMAT);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, likelihoods_of_choices_equal_those_of_transformers);
    tcase_add_test(tc, answers_equal_those_of_transformers);
    tcase_add_test(tc, the_last_scored_run_is_the_reference);
    tcase_add_test(tc, rows_without_a_prompt_are_refused);
    tcase_add_test(tc, broken_choices_are_refused_with_their_line);
}

FL_TEST_MAIN("answering", add_tests)
