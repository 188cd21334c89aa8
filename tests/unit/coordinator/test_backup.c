/*
 * Tests of the backup: a copy is whole, opens by itself, and leaves no number to be used twice.
 * Method: a coordinator's directory with jobs in several states and a version, copied while its
 * lock and its database are held, then opened like any other.
 */
#include "coordinator/backup.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "coordinator/desk.h"
#include "coordinator/registry.h"
#include "runner.h"
#include "submit_text.h"

static const char job_text[] =
    "[job]\nname = tiny\nrounds = 6\nstrategy = fedit\n[model]\nname = m\nsha256 = "
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
    "[lora]\ntargets = q_proj\n[ranks]\ndefault = 2\n[train]\nsteps = 1\nbatch_size = 1\n"
    "seq_len = 8\nlr = 0.001\n[cohort]\nmin_workers = 3\n[privacy]\nsecure_aggregation = off\n";

static char directory[FL_PATH_BYTES], out[FL_PATH_BYTES];
static struct fl_desk *desk;
static struct fl_error error;

static int64_t submit(enum fl_job_state state, enum fl_round_state phase)
{
    const int64_t id = submit_text(desk->store, job_text);
    fl_assert_ok(fl_store_run(desk->store, &error,
                              "UPDATE jobs SET state = ?, phase = ?, round = 3, attempt = 4 "
                              "WHERE id = ?",
                              "iii", (int64_t)state, (int64_t)phase, id),
                 &error);
    return id;
}

static void put_version(int64_t job, uint32_t number, const char *bytes)
{
    char path[FL_PATH_BYTES];
    struct fl_version *version = fl_calloc(1, sizeof *version);
    ck_assert_ptr_nonnull(version);
    version->job = job;
    version->version = version->round = number;
    version->rank_count = 1;
    version->bytes = strlen(bytes);
    fl_sha256(bytes, strlen(bytes), version->sha256);
    enum fl_status status = fl_registry_path(desk->store, job, number, path, &error);
    if (status == FL_OK)
        status = fl_store_put_file(desk->store, path, bytes, strlen(bytes), 0600, &error);
    if (status == FL_OK)
        status = fl_registry_put(desk->store, version, &error);
    fl_free(version);
    fl_assert_ok(status, &error);
}

static void note(const char *event)
{
    const struct fl_field fields[] = {{.kind = FL_FIELD_END}};
    fl_assert_ok(fl_desk_audit(desk, event, fields, &error), &error);
}

static void setup(void)
{
    char parent[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_test_directory(parent);
    fl_assert_ok(fl_path_join(out, parent, "copy", &error), &error);
    fl_assert_ok(fl_desk_create(directory, "tcp://127.0.0.1:7470", NULL, &error), &error);
    fl_assert_ok(fl_desk_open(directory, fl_clock_system(), &desk, &error), &error);
}

static void teardown(void)
{
    fl_desk_close(&desk);
}

static void expect_job(struct fl_store *store, int64_t id, enum fl_round_state phase,
                       uint32_t attempt)
{
    struct fl_job job;
    fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
    ck_assert_int_eq(job.phase, phase);
    ck_assert_uint_eq(job.round, 3);
    ck_assert_uint_eq(job.attempt, attempt);
}

START_TEST(a_copy_opens_by_itself_and_begins_its_attempts_and_jobs_in_the_next_hundred)
{
    struct fl_backup made;
    struct fl_desk *copy;
    struct fl_box_keys *keys = NULL;
    int64_t ended = submit(FL_JOB_DONE, FL_ROUND_DONE);
    int64_t running = submit(FL_JOB_RUNNING, FL_ROUND_COLLECT);
    int64_t paused = submit(FL_JOB_PAUSED, FL_ROUND_PAUSED);
    put_version(ended, 0, "start");
    note("before");
    put_version(ended, 1, "one");
    put_version(running, 2, "two");
    fl_assert_ok(fl_backup_make(directory, out, &made, &error), &error);
    ck_assert_uint_eq(made.jobs, 3);
    ck_assert_uint_eq(made.versions, 3);
    fl_assert_ok(fl_desk_open(out, fl_clock_system(), &copy, &error), &error);
    expect_job(copy->store, ended, FL_ROUND_DONE, 4);
    expect_job(copy->store, running, FL_ROUND_SELECT, 101);
    expect_job(copy->store, paused, FL_ROUND_PAUSED, 101);
    expect_job(desk->store, running, FL_ROUND_COLLECT, 4); /* the original goes on as it was */
    fl_assert_ok(fl_queue_keys(copy->store, running, &keys, &error), &error);
    fl_box_keys_destroy(&keys);
    fl_desk_close(&desk);
    desk = copy;
    note("after"); /* its audit log goes on */
    ck_assert_int_eq(submit(FL_JOB_QUEUED, FL_ROUND_IDLE), 101);
}
END_TEST

START_TEST(a_copy_is_private_and_whole)
{
    static const char *const names[] = {"state.db", "coordinator.conf", "coordinator.key",
                                        "jobs/1.key", "versions/1/1.safetensors"};
    struct fl_backup made;
    struct stat info;
    char path[FL_PATH_BYTES];
    put_version(submit(FL_JOB_RUNNING, FL_ROUND_TRAIN), 1, "one");
    fl_assert_ok(fl_backup_make(directory, out, &made, &error), &error);
    ck_assert_int_eq(stat(out, &info), 0);
    ck_assert_uint_eq(info.st_mode & 07777, 0700);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fl_assert_ok(fl_path_join(path, out, names[i], &error), &error);
        ck_assert_msg(stat(path, &info) == 0, "%s is there", names[i]);
        ck_assert_uint_eq(info.st_mode & 07777, 0600);
    }
    fl_assert_ok(fl_path_join(path, out, "state.db-wal", &error), &error);
    ck_assert(!fl_path_exists(path));
}
END_TEST

static void put_text(const char *name, const char *text)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0600, &error), &error);
}

START_TEST(the_token_that_the_configuration_names_is_copied)
{
    struct fl_backup made;
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    fl_buf_init(&text, 4096);
    put_text("own.token", "correct-horse-battery\n");
    put_text("coordinator.conf", "[http]\ntoken_file = own.token\n");
    fl_assert_ok(fl_backup_make(directory, out, &made, &error), &error);
    fl_assert_ok(fl_path_join(path, out, "own.token", &error), &error);
    fl_assert_ok(fl_fs_read(path, 4096, &text, &error), &error);
    ck_assert_str_eq(fl_buf_text(&text), "correct-horse-battery\n");
    fl_buf_free(&text);
}
END_TEST

static void expect_refusal(enum fl_status expected)
{
    struct fl_backup made;
    char text[FL_PATH_BYTES + 8];
    ck_assert_int_eq(fl_backup_make(directory, out, &made, &error), expected);
    (void)snprintf(text, sizeof text, "%s", out);
    ck_assert(!fl_path_exists(text) || expected == FL_EEXIST);
    *strrchr(text, '/') = '\0';
    fl_assert_ok(fl_fs_remove(out, &error), &error);
    ck_assert_msg(rmdir(text) == 0, "nothing is left beside it");
}

START_TEST(a_damaged_version_is_told_and_nothing_is_left)
{
    char path[FL_PATH_BYTES];
    int64_t id = submit(FL_JOB_DONE, FL_ROUND_DONE);
    put_version(id, 1, "one");
    fl_assert_ok(fl_registry_path(desk->store, id, 1, path, &error), &error);
    fl_assert_ok(fl_fs_write(path, "two", 3, 0600, &error), &error);
    expect_refusal(FL_EFORMAT);
}
END_TEST

START_TEST(a_missing_version_is_told_and_nothing_is_left)
{
    char path[FL_PATH_BYTES];
    int64_t id = submit(FL_JOB_DONE, FL_ROUND_DONE);
    put_version(id, 1, "one");
    fl_assert_ok(fl_registry_path(desk->store, id, 1, path, &error), &error);
    fl_assert_ok(fl_fs_remove(path, &error), &error);
    expect_refusal(FL_ENOTFOUND);
}
END_TEST

START_TEST(a_backup_replaces_nothing)
{
    fl_assert_ok(fl_fs_make_directory(out, 0700, &error), &error);
    expect_refusal(FL_EEXIST);
}
END_TEST

START_TEST(a_backup_of_nothing_is_refused)
{
    struct fl_backup made;
    char empty[FL_PATH_BYTES];
    fl_test_directory(empty);
    ck_assert_int_eq(fl_backup_make(empty, out, &made, &error), FL_ENOTFOUND);
    ck_assert_int_eq(fl_backup_make(directory, "", &made, &error), FL_EUSAGE);
    ck_assert_int_eq(fl_backup_make(directory, "/", &made, &error), FL_EEXIST);
    fl_assert_ok(fl_path_join(empty, out, "too/deep", &error), &error);
    ck_assert_int_eq(fl_backup_make(directory, empty, &made, &error), FL_ENOTFOUND);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_copy_opens_by_itself_and_begins_its_attempts_and_jobs_in_the_next_hundred);
    tcase_add_test(tc, a_copy_is_private_and_whole);
    tcase_add_test(tc, the_token_that_the_configuration_names_is_copied);
    tcase_add_test(tc, a_damaged_version_is_told_and_nothing_is_left);
    tcase_add_test(tc, a_missing_version_is_told_and_nothing_is_left);
    tcase_add_test(tc, a_backup_replaces_nothing);
    tcase_add_test(tc, a_backup_of_nothing_is_refused);
}

FL_TEST_MAIN("coordinator.backup", add_tests)
