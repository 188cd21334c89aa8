/*
 * Tests of the daemon's loop: when it ends, and what it has written by then.
 * Method: a transport on which nothing happens but that time passes.
 */
#include "coordinator/server.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/ending.h"
#include "runner.h"
#include "submit_text.h"

#define LINE_MOST_MS 60000 /* the daemon waits less for a line that it owes */

static const char job_text[] =
    "[job]\nname = tiny\nrounds = 2\nstrategy = fedit\n[model]\nname = m\nsha256 = "
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
    "[lora]\ntargets = q_proj\n[ranks]\ndefault = 2\n[train]\nsteps = 1\nbatch_size = 1\n"
    "seq_len = 8\nlr = 0.001\n[cohort]\nmin_workers = 3\n[privacy]\nsecure_aggregation = off\n";

static char directory[FL_PATH_BYTES];
static struct fl_desk *desk;
static struct fl_server *server;
static struct fl_error error;
static int64_t now;
static int64_t refuses_until; /* the disk does */
static volatile int stop;

static int64_t tell_now(void *context)
{
    (void)context;
    return now;
}

static const struct fl_clock stepped = {tell_now, tell_now, NULL};

static void refuse(void)
{
    fl_fs_fail_write_at(now < refuses_until ? 0 : -1);
}

static enum fl_status pass_time(struct fl_transport *self, int64_t timeout_ms,
                                struct fl_transport_event *event)
{
    (void)self;
    (void)event;
    now += timeout_ms > 0 ? timeout_ms : 1;
    refuse();
    return FL_ETIMEOUT;
}

static const struct fl_transport_table quiet_table = {.next = pass_time};
static struct fl_transport quiet = {&quiet_table};

static void setup(void)
{
    now = 1000;
    refuses_until = 0;
    stop = 0;
    fl_test_directory(directory);
    fl_assert_ok(fl_desk_create(directory, NULL, NULL, &error), &error);
    fl_assert_ok(fl_desk_open(directory, &stepped, &desk, &error), &error);
}

static void teardown(void)
{
    fl_fs_fail_write_at(-1);
    fl_server_destroy(&server);
    fl_desk_close(&desk);
}

/* A job that has ended, and whose line is not written yet. */
static void owe_a_line(void)
{
    const int64_t id = submit_text(desk->store, job_text);
    enum fl_status status = fl_queue_set_state(desk->store, id, FL_JOB_CANCELLED, "", now, &error);
    if (status == FL_OK)
        status = fl_ending_owe(desk->store, id, FL_JOB_CANCELLED, "", &error);
    fl_assert_ok(status, &error);
}

/* Returns how long it ran. */
static int64_t serve(int64_t refuses_ms)
{
    const struct fl_server_options options = {.exit_when_idle = true};
    const int64_t began = now;
    refuses_until = now + refuses_ms;
    refuse();
    fl_assert_ok(fl_server_create(desk, &options, &server, &error), &error);
    fl_server_attach(server, &quiet);
    fl_assert_ok(fl_server_run(server, &stop, &error), &error);
    return now - began;
}

static bool is_written(void)
{
    char path[FL_PATH_BYTES];
    struct fl_buf log;
    fl_assert_ok(fl_path_join(path, directory, "audit.log", &error), &error);
    if (!fl_path_exists(path))
        return false;
    fl_assert_ok(fl_fs_read(path, 1u << 20, &log, &error), &error);
    bool found = strstr(fl_buf_text(&log), "job_ended") != NULL;
    fl_buf_free(&log);
    return found;
}

START_TEST(a_daemon_without_work_ends_soon)
{
    ck_assert_int_lt(serve(0), 5000);
}
END_TEST

START_TEST(a_daemon_without_work_waits_for_a_line_that_it_owes)
{
    owe_a_line();
    ck_assert_int_ge(serve(12000), 12000);
    ck_assert(is_written());
}
END_TEST

START_TEST(a_line_that_the_disk_goes_on_to_refuse_keeps_no_daemon)
{
    owe_a_line();
    int64_t ran = serve(INT32_MAX);
    ck_assert_int_ge(ran, 2 * FL_ROUND_RETRY_MS);
    ck_assert_int_lt(ran, LINE_MOST_MS);
    ck_assert(!is_written());
    fl_server_destroy(&server);
    (void)serve(0); /* the next one writes it */
    ck_assert(is_written());
}
END_TEST

START_TEST(a_daemon_that_is_stopped_tries_once_more)
{
    owe_a_line();
    stop = 1;
    refuses_until = now + 1;
    const struct fl_server_options options = {.exit_when_idle = false};
    refuse();
    fl_assert_ok(fl_server_create(desk, &options, &server, &error), &error);
    fl_server_attach(server, &quiet);
    ck_assert(!is_written());
    fl_fs_fail_write_at(-1);
    fl_assert_ok(fl_server_run(server, &stop, &error), &error);
    ck_assert(is_written());
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_daemon_without_work_ends_soon);
    tcase_add_test(tc, a_daemon_without_work_waits_for_a_line_that_it_owes);
    tcase_add_test(tc, a_line_that_the_disk_goes_on_to_refuse_keeps_no_daemon);
    tcase_add_test(tc, a_daemon_that_is_stopped_tries_once_more);
}

FL_TEST_MAIN("coordinator.server", add_tests)
