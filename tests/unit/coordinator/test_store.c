/* Tests of the store: what is committed stays, what is not leaves no trace. */
#include "coordinator/store.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "runner.h"

static char directory[FL_PATH_BYTES];
static struct fl_store *store;
static struct fl_error error;

static void setup(void)
{
    fl_test_directory(directory);
    fl_assert_ok(fl_store_create(directory, &error), &error);
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
}

static void teardown(void)
{
    fl_store_crash_at(-1);
    fl_store_close(&store);
}

static enum fl_status add_site(const char *name)
{
    uint8_t key[32] = {0};
    memcpy(key, name, strlen(name));
    return fl_store_run(store, &error,
                        "INSERT INTO sites(name, x25519, ed25519, created_ms) VALUES(?,?,?,?)",
                        "sbbi", name, key, sizeof key, key, sizeof key, (int64_t)5);
}

static uint64_t count_sites(void)
{
    uint64_t rows = 0;
    fl_assert_ok(fl_store_select(store, &error, NULL, NULL, &rows, "SELECT id FROM sites", ""),
                 &error);
    return rows;
}

START_TEST(a_second_database_is_not_made_over_the_first)
{
    ck_assert_int_eq(fl_store_create(directory, &error), FL_EEXIST);
}
END_TEST

START_TEST(opening_says_that_there_is_no_coordinator)
{
    struct fl_store *none;
    char other[FL_PATH_BYTES];
    fl_test_directory(other);
    ck_assert_int_eq(fl_store_open(other, &none, &error), FL_ENOTFOUND);
    ck_assert_ptr_null(none);
}
END_TEST

START_TEST(a_damaged_database_is_refused)
{
    char path[FL_PATH_BYTES];
    struct fl_store *again;
    fl_store_close(&store);
    fl_assert_ok(fl_path_join(path, directory, "state.db", &error), &error);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, "no database at all", 18, 0), 18);
    (void)close(fd);
    ck_assert_int_eq(fl_store_open(directory, &again, &error), FL_EFORMAT);
    ck_assert_ptr_null(again);
}
END_TEST

START_TEST(what_was_committed_is_there_after_reopening)
{
    fl_assert_ok(add_site("clinic"), &error);
    fl_store_close(&store);
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
    ck_assert_uint_eq(count_sites(), 1);
}
END_TEST

static enum fl_status read_range(void *context, const struct fl_row *row)
{
    *(double *)context = fl_row_double(row, 0);
    return FL_OK;
}

START_TEST(a_database_of_an_earlier_program_gets_the_column_that_it_lacks)
{
    double range = 1.0;
    uint64_t rows = 0;
    fl_assert_ok(fl_store_run(store, &error,
                              "INSERT INTO jobs(name, spec, sha256, state, sealing_public, "
                              "created_ms) VALUES('a', '', x'00', 0, x'00', 1)",
                              ""),
                 &error);
    fl_assert_ok(fl_store_run(store, &error, "ALTER TABLE attempts DROP COLUMN range_m", ""),
                 &error);
    fl_assert_ok(fl_store_run(store, &error,
                              "INSERT INTO attempts(job, round, attempt, plan, start_root, "
                              "start_bytes, version_hash) VALUES(1, 1, 1, x'00', x'00', 1, x'00')",
                              ""),
                 &error);
    for (int times = 0; times < 2; times++) {
        fl_store_close(&store);
        fl_assert_ok(fl_store_open(directory, &store, &error), &error);
        fl_assert_ok(fl_store_select(store, &error, read_range, &range, &rows,
                                     "SELECT range_m FROM attempts", ""),
                     &error);
        ck_assert_uint_eq(rows, 1);
        ck_assert(isnan(range));
    }
}
END_TEST

static void copy_file(const char *name, const char *to)
{
    char from_path[FL_PATH_BYTES], to_path[FL_PATH_BYTES];
    struct fl_buf bytes;
    fl_assert_ok(fl_path_join(from_path, directory, name, &error), &error);
    fl_assert_ok(fl_path_join(to_path, to, name, &error), &error);
    fl_assert_ok(fl_fs_read(from_path, 1u << 24, &bytes, &error), &error);
    enum fl_status status = fl_fs_write(to_path, bytes.data, bytes.length, 0600, &error);
    fl_buf_free(&bytes);
    fl_assert_ok(status, &error);
}

/* An fsync that failed may have left the end of the log in the page cache only. */
START_TEST(opening_after_a_crash_brings_the_log_into_the_database)
{
    char other[FL_PATH_BYTES], log[FL_PATH_BYTES];
    struct fl_buf bytes;
    fl_test_directory(other);
    fl_assert_ok(add_site("clinic"), &error);
    copy_file("state.db", other);
    copy_file("state.db-wal", other);
    fl_store_close(&store);
    fl_assert_ok(fl_store_open(other, &store, &error), &error);
    fl_assert_ok(fl_path_join(log, other, "state.db-wal", &error), &error);
    fl_assert_ok(fl_fs_read(log, 1u << 24, &bytes, &error), &error);
    size_t left = bytes.length;
    fl_buf_free(&bytes);
    ck_assert_uint_eq(left, 0);
    ck_assert_uint_eq(count_sites(), 1);
}
END_TEST

START_TEST(a_rollback_leaves_no_trace_and_spoils_the_outer_transaction)
{
    fl_assert_ok(fl_store_begin(store, &error), &error);
    fl_assert_ok(add_site("clinic"), &error);
    fl_store_rollback(store);
    ck_assert_uint_eq(count_sites(), 0);
    fl_assert_ok(fl_store_begin(store, &error), &error);
    fl_assert_ok(fl_store_begin(store, &error), &error);
    fl_assert_ok(add_site("bank"), &error);
    fl_store_rollback(store);
    ck_assert_int_eq(fl_store_commit(store, &error), FL_EIO);
    ck_assert_uint_eq(count_sites(), 0);
}
END_TEST

START_TEST(uniqueness_is_told_apart_from_other_failures)
{
    fl_assert_ok(add_site("clinic"), &error);
    ck_assert_int_eq(add_site("clinic"), FL_EEXIST);
    ck_assert_int_eq(fl_store_run(store, &error,
                                  "INSERT INTO members(job, round, attempt, site) "
                                  "VALUES(9, 1, 1, 9)",
                                  ""),
                     FL_EIO);
}
END_TEST

START_TEST(after_a_crash_nothing_is_durable_any_more)
{
    fl_store_crash_at(1);
    fl_assert_ok(add_site("clinic"), &error);
    ck_assert_int_eq(add_site("bank"), FL_EIO);
    ck_assert_int_eq(add_site("library"), FL_EIO);
    ck_assert(fl_store_crashed());
    fl_store_crash_at(-1);
    ck_assert_uint_eq(count_sites(), 1);
}
END_TEST

START_TEST(a_finished_file_gets_its_name_whole)
{
    char part[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_buf bytes;
    fl_assert_ok(fl_store_path(store, part, &error, "spool/%d/x.part", 1), &error);
    fl_assert_ok(fl_store_path(store, path, &error, "spool/%d/x", 1), &error);
    fl_assert_ok(fl_store_put_file(store, part, "abc", 3, 0600, &error), &error);
    fl_assert_ok(fl_store_adopt_file(part, path, &error), &error);
    ck_assert(!fl_path_exists(part));
    fl_assert_ok(fl_fs_read(path, 10, &bytes, &error), &error);
    ck_assert_uint_eq(bytes.length, 3);
    fl_buf_free(&bytes);
    fl_assert_ok(fl_store_remove(path, &error), &error);
    fl_assert_ok(fl_store_remove(path, &error), &error);
    ck_assert_int_eq(fl_store_adopt_file(part, path, &error), FL_ENOTFOUND);
}
END_TEST

START_TEST(a_file_whose_fsync_failed_is_not_taken_the_second_time)
{
    char part[FL_PATH_BYTES], path[FL_PATH_BYTES];
    fl_assert_ok(fl_store_path(store, part, &error, "spool/%d/x.part", 1), &error);
    fl_assert_ok(fl_store_path(store, path, &error, "spool/%d/x", 1), &error);
    fl_assert_ok(fl_store_put_file(store, part, "abc", 3, 0600, &error), &error);
    fl_fs_fail_sync_at(0);
    ck_assert_int_eq(fl_store_adopt_file(part, path, &error), FL_EIO);
    fl_fs_fail_sync_at(-1);
    ck_assert(!fl_path_exists(part) && !fl_path_exists(path));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_second_database_is_not_made_over_the_first);
    tcase_add_test(tc, opening_says_that_there_is_no_coordinator);
    tcase_add_test(tc, a_damaged_database_is_refused);
    tcase_add_test(tc, what_was_committed_is_there_after_reopening);
    tcase_add_test(tc, a_database_of_an_earlier_program_gets_the_column_that_it_lacks);
    tcase_add_test(tc, opening_after_a_crash_brings_the_log_into_the_database);
    tcase_add_test(tc, a_rollback_leaves_no_trace_and_spoils_the_outer_transaction);
    tcase_add_test(tc, uniqueness_is_told_apart_from_other_failures);
    tcase_add_test(tc, after_a_crash_nothing_is_durable_any_more);
    tcase_add_test(tc, a_finished_file_gets_its_name_whole);
    tcase_add_test(tc, a_file_whose_fsync_failed_is_not_taken_the_second_time);
}

FL_TEST_MAIN("coordinator.store", add_tests)
