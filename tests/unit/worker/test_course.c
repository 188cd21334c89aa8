/* The points of a run in memory and as JSON lines. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "worker/course.h"

static struct fl_error error;

static void fill(struct fl_course *metrics, uint64_t steps)
{
    for (uint64_t i = 1; i <= steps; i++) {
        const struct fl_finetune_step step = {.step = i,
                                              .tokens = 100 + i,
                                              .loss = 3.0 / (double)i,
                                              .lr = 1e-3,
                                              .grad_norm = 0.5,
                                              .seconds = 0.25};
        ck_assert_int_eq(fl_course_add(metrics, &step), FL_OK);
    }
}

static void path_in(char *path, const char *name)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
}

START_TEST(a_line_says_what_a_step_was)
{
    struct fl_course metrics = {0};
    struct fl_buf file;
    char path[FL_PATH_BYTES];
    path_in(path, "metrics.jsonl");
    fill(&metrics, 2);
    fl_course_validated(&metrics, 2, 1.75);
    fl_course_validated(&metrics, 7, 9.0); /* no such step */
    fl_assert_ok(fl_course_write(&metrics, path, &error), &error);
    fl_assert_ok(fl_fs_read(path, 1u << 20, &file, &error), &error);
    ck_assert_str_eq(fl_buf_text(&file),
                     "{\"step\":1,\"loss\":3,\"lr\":0.001,\"grad_norm\":0.5,\"tokens\":101,"
                     "\"tokens_per_second\":404,\"seconds\":0.25}\n"
                     "{\"step\":2,\"loss\":1.5,\"lr\":0.001,\"grad_norm\":0.5,\"tokens\":102,"
                     "\"tokens_per_second\":408,\"seconds\":0.25,\"val_loss\":1.75}\n");
    fl_buf_free(&file);
    fl_course_free(&metrics);
}
END_TEST

START_TEST(a_file_is_read_up_to_a_step)
{
    struct fl_course metrics = {0}, read = {0};
    char path[FL_PATH_BYTES];
    path_in(path, "metrics.jsonl");
    fill(&metrics, 1000);
    metrics.points[40].loss = (double)NAN;
    metrics.points[41].valid_loss = 2.5;
    fl_assert_ok(fl_course_write(&metrics, path, &error), &error);
    fl_assert_ok(fl_course_load(&read, path, 600, &error), &error);
    ck_assert_uint_eq(read.count, 600);
    ck_assert(isnan(read.points[40].loss));
    ck_assert(isnan(read.points[40].valid_loss));
    ck_assert_double_eq(read.points[41].valid_loss, 2.5);
    ck_assert_uint_eq(read.points[599].tokens, 700);
    fl_course_free(&metrics);
    fl_course_free(&read);
}
END_TEST

START_TEST(no_steps_are_an_empty_file)
{
    struct fl_course none = {0};
    char path[FL_PATH_BYTES];
    path_in(path, "metrics.jsonl");
    ck_assert_int_eq(fl_course_load(&none, path, 9, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_course_write(&none, path, &error), &error);
    fl_assert_ok(fl_course_load(&none, path, 9, &error), &error);
    ck_assert_uint_eq(none.count, 0);
}
END_TEST

START_TEST(a_broken_file_is_refused_with_its_line)
{
    static const char good[] = "{\"step\":3,\"loss\":1,\"lr\":1,\"grad_norm\":1,\"tokens\":1,"
                               "\"tokens_per_second\":1,\"seconds\":1}\n";
    static const char *const wrong[] = {
        "\n",
        "nonsense\n",
        "[]\n",
        "{\"step\":4}\n",
        "{\"step\":4,\"loss\":1",
        "{\"step\":3,\"loss\":1,\"lr\":1,\"grad_norm\":1,\"tokens\":1,\"seconds\":1}\n",
        "{\"step\":-4,\"loss\":1,\"lr\":1,\"grad_norm\":1,\"tokens\":1,\"seconds\":1}\n",
        "{\"step\":4,\"loss\":\"1\",\"lr\":1,\"grad_norm\":1,\"tokens\":1,\"seconds\":1}\n",
        "{\"step\":4,\"loss\":1,\"lr\":1,\"grad_norm\":1,\"tokens\":1.5,\"seconds\":1}\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct fl_course metrics = {0};
        char path[FL_PATH_BYTES], text[1024];
        path_in(path, "metrics.jsonl");
        int length = snprintf(text, sizeof text, "%s%s", good, wrong[i]);
        fl_assert_ok(fl_fs_write(path, text, (size_t)length, 0644, &error), &error);
        ck_assert_int_eq(fl_course_load(&metrics, path, 100, &error), FL_EFORMAT);
        ck_assert_ptr_nonnull(strstr(error.text, "metrics.jsonl:2"));
        ck_assert_uint_eq(metrics.count, 0);
        ck_assert_ptr_null(metrics.points);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_line_says_what_a_step_was);
    tcase_add_test(tc, a_file_is_read_up_to_a_step);
    tcase_add_test(tc, no_steps_are_an_empty_file);
    tcase_add_test(tc, a_broken_file_is_refused_with_its_line);
}

FL_TEST_MAIN("worker/metrics", add_tests)
