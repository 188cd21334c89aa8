/* Durations for people, and how often a plain progress line is written. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/progress.h"

START_TEST(durations_read_as_people_write_them)
{
    char text[24];
    fl_progress_duration(0, text);
    ck_assert_str_eq(text, "0:00");
    fl_progress_duration(62.4, text);
    ck_assert_str_eq(text, "1:02");
    fl_progress_duration(3723, text);
    ck_assert_str_eq(text, "1:02:03");
}
END_TEST

START_TEST(a_duration_that_is_not_known_is_a_question_mark)
{
    char text[24];
    fl_progress_duration((double)NAN, text);
    ck_assert_str_eq(text, "?");
    fl_progress_duration(-1, text);
    ck_assert_str_eq(text, "?");
    fl_progress_duration((double)INFINITY, text);
    ck_assert_str_eq(text, "?");
}
END_TEST

/* Lines that 1000 quick steps write on a stderr that is a file. */
static int lines_of_many_steps(char *last, size_t last_bytes)
{
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(fileno(file), STDERR_FILENO), 0);
    struct fl_progress progress;
    fl_progress_start(&progress, "step", 1000);
    for (uint64_t step = 1; step <= 1000; step++) {
        fl_progress_step(&progress, step, 2.5, 10, 1e-3);
    }
    fl_progress_end(&progress);
    fflush(stderr);
    ck_assert_int_ge(dup2(kept, STDERR_FILENO), 0);
    close(kept);
    int lines = 0;
    char line[256];
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        lines++;
        snprintf(last, last_bytes, "%s", line);
    }
    fclose(file);
    return lines;
}

START_TEST(plain_lines_are_few_and_hold_the_last_step)
{
    char last[256] = "";
    int lines = lines_of_many_steps(last, sizeof last);
    ck_assert_int_ge(lines, 2);
    ck_assert_int_le(lines, 20);
    ck_assert_ptr_nonnull(strstr(last, "step 1000/1000  loss 2.5000  10000 tokens/s  ETA 0:00"));
    ck_assert_ptr_null(strchr(last, '\r'));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, durations_read_as_people_write_them);
    tcase_add_test(tc, a_duration_that_is_not_known_is_a_question_mark);
    tcase_add_test(tc, plain_lines_are_few_and_hold_the_last_step);
}
FL_TEST_MAIN("worker/progress", add_tests)
