/* Tests of the line that says that a job ended: it is written whenever the process died. */
#include "coordinator/ending.h"

#include <stdlib.h>
#include <string.h>

#include "runner.h"
#include "submit_text.h"

static const char job_text[] =
    "[job]\nname = tiny\nrounds = 2\nstrategy = fedit\n[model]\nname = m\nsha256 = "
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
    "[lora]\ntargets = q_proj\n[ranks]\ndefault = 2\n[train]\nsteps = 1\nbatch_size = 1\n"
    "seq_len = 8\nlr = 0.001\n[cohort]\nmin_workers = 3\n[privacy]\nsecure_aggregation = off\n";

static char directory[FL_PATH_BYTES];
static struct fl_desk *desk;
static struct fl_error error;

static void setup(void)
{
    fl_test_directory(directory);
    fl_assert_ok(fl_desk_create(directory, NULL, NULL, &error), &error);
    fl_assert_ok(fl_desk_open(directory, fl_clock_system(), &desk, &error), &error);
}

static void teardown(void)
{
    fl_fs_fail_write_at(-1);
    fl_store_crash_at(-1);
    fl_desk_close(&desk);
}

static int64_t submit(void)
{
    return submit_text(desk->store, job_text);
}

/* As after a crash: nothing but the files is left. */
static void open_again(void)
{
    fl_fs_fail_write_at(-1);
    fl_store_crash_at(-1);
    fl_desk_close(&desk);
    fl_assert_ok(fl_desk_open(directory, fl_clock_system(), &desk, &error), &error);
}

/* How many lines say that a job ended in that state. */
static unsigned lines(const char *state)
{
    char path[FL_PATH_BYTES], wanted[64];
    unsigned found = 0;
    struct fl_buf log;
    fl_assert_ok(fl_path_join(path, directory, "audit.log", &error), &error);
    if (!fl_path_exists(path))
        return 0;
    fl_assert_ok(fl_fs_read(path, 1u << 20, &log, &error), &error);
    (void)snprintf(wanted, sizeof wanted, "\"state\":\"%s\"", state);
    for (const char *at = strstr(fl_buf_text(&log), "job_ended"); at;
         at = strstr(at + 1, "job_ended")) {
        const char *word = strstr(at, wanted);
        found += word && word < strchr(at, '\n');
    }
    fl_buf_free(&log);
    return found;
}

START_TEST(a_line_that_is_owed_is_written_once)
{
    int64_t id = submit();
    fl_assert_ok(fl_store_begin(desk->store, &error), &error);
    fl_assert_ok(fl_ending_owe(desk->store, id, FL_JOB_DONE, "", &error), &error);
    fl_store_rollback(desk->store);
    fl_assert_ok(fl_ending_write(desk, &error), &error);
    ck_assert_uint_eq(lines("done"), 0);
    fl_assert_ok(fl_ending_owe(desk->store, id, FL_JOB_DONE, "", &error), &error);
    fl_assert_ok(fl_ending_write(desk, &error), &error);
    fl_assert_ok(fl_ending_write(desk, &error), &error);
    ck_assert_uint_eq(lines("done"), 1);
}
END_TEST

START_TEST(a_process_that_died_before_the_line_has_it_written_by_the_next)
{
    int64_t first = submit(), second = submit();
    for (int i = 0; i < 2; i++) /* it was resumed in between */
        fl_assert_ok(fl_ending_owe(desk->store, first, FL_JOB_PAUSED, "why", &error), &error);
    fl_assert_ok(fl_ending_owe(desk->store, second, FL_JOB_DONE, "", &error), &error);
    open_again();
    fl_assert_ok(fl_ending_write(desk, &error), &error);
    ck_assert_uint_eq(lines("paused"), 2);
    ck_assert_uint_eq(lines("done"), 1);
}
END_TEST

START_TEST(a_line_that_the_disk_refuses_stays_owed)
{
    int64_t id = submit();
    for (long n = 0; n < 2; n++) { /* the log itself, and that the line is there */
        fl_assert_ok(fl_ending_owe(desk->store, id, FL_JOB_DONE, "", &error), &error);
        if (n == 0)
            fl_fs_fail_write_at(0);
        else
            fl_store_crash_at(0);
        ck_assert_int_ne(fl_ending_write(desk, &error), FL_OK);
        ck_assert_uint_eq(lines("done"), n == 0 ? 0u : 2u);
        open_again();
        fl_assert_ok(fl_ending_write(desk, &error), &error);
    }
    ck_assert_uint_eq(lines("done"), 3); /* rather twice than not at all */
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_line_that_is_owed_is_written_once);
    tcase_add_test(tc, a_process_that_died_before_the_line_has_it_written_by_the_next);
    tcase_add_test(tc, a_line_that_the_disk_refuses_stays_owed);
}

FL_TEST_MAIN("coordinator.ending", add_tests)
