/* Opening model, adapter and data together; the stop flag. */
#include "runner.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "worker/local.h"

#define TINY FL_TEST_SOURCE_DIR "/golden/tiny-llama"
#define CASE FL_TEST_SOURCE_DIR "/golden/cases/gqa-tied"

START_TEST(a_model_and_its_data_open_together)
{
    struct fl_local local = {0};
    struct fl_error error = {0};
    struct fl_local_data data = {.path = TINY "/clinic.jsonl"};
    fl_assert_ok(fl_local_open_model(&local, TINY, &error), &error);
    fl_assert_ok(fl_local_open_data(&local, TINY, &data, &error), &error);
    ck_assert_uint_eq(local.count, 8);
    ck_assert_uint_gt(local.rows[0].length, 2);
    fl_local_close(&local);
    ck_assert_ptr_null(local.model);
}
END_TEST

START_TEST(rows_held_out_are_a_list_of_their_own_and_counted)
{
    struct fl_local local = {0};
    struct fl_error error = {0};
    struct fl_local_data data = {.path = TINY "/clinic.jsonl", .valid_split = 0.4};
    fl_assert_ok(fl_local_open_model(&local, TINY, &error), &error);
    fl_assert_ok(fl_local_open_data(&local, TINY, &data, &error), &error);
    ck_assert_uint_gt(local.valid_count, 0);
    ck_assert_uint_eq(local.count + local.valid_count, 8);
    json_t *counts = fl_local_counts(fl_dataset_valid(local.data));
    ck_assert_ptr_nonnull(counts);
    ck_assert_int_eq(json_integer_value(json_object_get(counts, "rows")), (int)local.valid_count);
    json_decref(counts);
    fl_local_close(&local);
}
END_TEST

START_TEST(rows_of_ids_need_no_tokenizer)
{
    struct fl_local local = {0};
    struct fl_error error = {0};
    struct fl_local_data data = {.path = CASE "/data.jsonl"};
    fl_assert_ok(fl_local_open_model(&local, CASE, &error), &error);
    fl_assert_ok(fl_local_open_adapter(&local, CASE "/init", &error), &error);
    ck_assert_ptr_nonnull(local.adapter);
    fl_assert_ok(fl_local_open_data(&local, CASE, &data, &error), &error);
    ck_assert_uint_eq(local.count, 5);
    fl_local_close(&local);
}
END_TEST

START_TEST(text_without_a_tokenizer_says_what_is_missing)
{
    struct fl_local local = {0};
    struct fl_error error = {0};
    struct fl_local_data data = {.path = TINY "/text.jsonl"};
    fl_assert_ok(fl_local_open_model(&local, CASE, &error), &error);
    enum fl_status status = fl_local_open_data(&local, CASE, &data, &error);
    ck_assert_int_eq(status, FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "text.jsonl"));
    ck_assert_ptr_nonnull(strstr(error.text, "tokenizer"));
    fl_local_close(&local);
}
END_TEST

START_TEST(no_adapter_is_no_error_and_a_missing_one_is)
{
    struct fl_local local = {0};
    struct fl_error error = {0};
    fl_assert_ok(fl_local_open_model(&local, TINY, &error), &error);
    ck_assert_int_eq(fl_local_open_adapter(&local, NULL, &error), FL_OK);
    ck_assert_int_eq(fl_local_open_adapter(&local, "/nowhere/at/all", &error), FL_ENOTFOUND);
    fl_local_close(&local);
}
END_TEST

START_TEST(words_of_compute_become_modes)
{
    ck_assert_int_eq(fl_local_compute("auto"), FL_COMPUTE_AUTO);
    ck_assert_int_eq(fl_local_compute("f32"), FL_COMPUTE_F32);
    ck_assert_int_eq(fl_local_compute("bf16"), FL_COMPUTE_BF16);
}
END_TEST

START_TEST(a_list_of_ids_is_read_and_held_against_the_vocabulary)
{
    static const char *const bad[] = {"",   ",", "1,",   "1,,2",       "1,10",
                                      "-1", "x", "1 ,2", "99999999999"};
    struct fl_ids ids = {0};
    struct fl_error error = {0};
    fl_assert_ok(fl_local_parse_ids("--tokens", "1,0,9", 10, &ids, &error), &error);
    ck_assert_uint_eq(ids.count, 3);
    ck_assert_int_eq(ids.ids[2], 9);
    fl_ids_free(&ids);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        enum fl_status status = fl_local_parse_ids("--tokens", bad[i], 10, &ids, &error);
        ck_assert_msg(status == FL_EUSAGE, "'%s': %s", bad[i], fl_status_text(status));
        ck_assert_ptr_nonnull(strstr(error.text, "--tokens"));
        fl_ids_free(&ids);
    }
}
END_TEST

START_TEST(a_signal_sets_the_stop_flag)
{
    const atomic_int *stop = fl_local_stop_on_signals();
    ck_assert_int_eq(atomic_load(stop), 0);
    ck_assert_int_eq(raise(SIGINT), 0);
    ck_assert_int_ne(atomic_load(stop), 0);
    struct sigaction now;
    ck_assert_int_eq(sigaction(SIGINT, NULL, &now), 0);
    ck_assert(now.sa_handler == SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}
END_TEST

START_TEST(this_process_uses_some_memory)
{
    ck_assert_uint_gt(fl_local_peak_rss_bytes(), 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_model_and_its_data_open_together);
    tcase_add_test(tc, rows_held_out_are_a_list_of_their_own_and_counted);
    tcase_add_test(tc, rows_of_ids_need_no_tokenizer);
    tcase_add_test(tc, text_without_a_tokenizer_says_what_is_missing);
    tcase_add_test(tc, no_adapter_is_no_error_and_a_missing_one_is);
    tcase_add_test(tc, words_of_compute_become_modes);
    tcase_add_test(tc, a_list_of_ids_is_read_and_held_against_the_vocabulary);
    tcase_add_test(tc, a_signal_sets_the_stop_flag);
    tcase_add_test(tc, this_process_uses_some_memory);
}
FL_TEST_MAIN("worker/local", add_tests)
