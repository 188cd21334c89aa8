/*
 * Goal: what a process that died left in SQLite's log is on the disk before anybody acts on it.
 * Method: SQLite's own files, with a look at what is done to the log and a database that finds the
 * disk full.
 */
#include <sqlite3.h>
#include <string.h>

#include "base/fs.h"
#include "coordinator/desk.h"
#include "coordinator/server.h"
#include "runner.h"

static char directory[FL_PATH_BYTES];
static struct fl_store *store;
static struct fl_error error;

static sqlite3_vfs *plain, watched;
static sqlite3_io_methods plain_log, watched_log, plain_database, watched_database;
static bool full, cut, cut_is_durable;

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    cut = true;
    cut_is_durable = false;
    return plain_log.xTruncate(file, size);
}

static int log_sync(sqlite3_file *file, int flags)
{
    cut_is_durable = cut;
    return plain_log.xSync(file, flags);
}

static int database_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset)
{
    return full ? SQLITE_FULL : plain_database.xWrite(file, bytes, count, offset);
}

static int watch(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs;
    int code = plain->xOpen(plain, name, file, flags, out);
    if (code == SQLITE_OK && flags & SQLITE_OPEN_WAL) {
        watched_log = plain_log = *file->pMethods;
        watched_log.xTruncate = log_truncate;
        watched_log.xSync = log_sync;
        file->pMethods = &watched_log;
    } else if (code == SQLITE_OK && flags & SQLITE_OPEN_MAIN_DB) {
        watched_database = plain_database = *file->pMethods;
        watched_database.xWrite = database_write;
        file->pMethods = &watched_database;
    }
    return code;
}

static void copy_file(const char *name, const char *from, const char *to)
{
    char path[FL_PATH_BYTES];
    struct fl_buf bytes;
    fl_assert_ok(fl_path_join(path, from, name, &error), &error);
    fl_assert_ok(fl_fs_read(path, 1u << 24, &bytes, &error), &error);
    fl_assert_ok(fl_path_join(path, to, name, &error), &error);
    enum fl_status status = fl_fs_write(path, bytes.data, bytes.length, 0600, &error);
    fl_buf_free(&bytes);
    fl_assert_ok(status, &error);
}

static enum fl_status add_site(const char *name)
{
    uint8_t key[32] = {0};
    memcpy(key, name, strlen(name));
    return fl_store_run(store, &error,
                        "INSERT INTO sites(name, x25519, ed25519, created_ms) VALUES(?,?,?,?)",
                        "sbbi", name, key, sizeof key, key, sizeof key, (int64_t)5);
}

/* A coordinator's directory as a process leaves it that dies with a commit in the log. */
static void setup(void)
{
    char first[FL_PATH_BYTES];
    fl_test_directory(first);
    fl_test_directory(directory);
    fl_assert_ok(fl_desk_create(first, NULL, NULL, &error), &error);
    fl_assert_ok(fl_desk_create(directory, NULL, NULL, &error), &error);
    fl_assert_ok(fl_store_open(first, &store, &error), &error);
    fl_assert_ok(add_site("clinic"), &error);
    copy_file("state.db", first, directory);
    copy_file("state.db-wal", first, directory);
    fl_store_close(&store);
    plain = sqlite3_vfs_find(NULL);
    watched = *plain;
    watched.zName = "watched";
    watched.xOpen = watch;
    ck_assert_int_eq(sqlite3_vfs_register(&watched, 1), SQLITE_OK);
    full = cut = cut_is_durable = false;
}

static void teardown(void)
{
    full = false;
    fl_store_close(&store);
    (void)sqlite3_vfs_unregister(&watched);
}

/* Else a power cut brings back what the disk has of the log, maybe less than was in it. */
START_TEST(the_log_is_empty_on_the_disk_too)
{
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
    ck_assert(cut && cut_is_durable);
    fl_assert_ok(fl_store_settle(store, &error), &error);
}
END_TEST

START_TEST(on_a_full_disk_it_is_read_and_nothing_is_written)
{
    uint64_t rows = 0;
    full = true;
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
    fl_assert_ok(fl_store_select(store, &error, NULL, NULL, &rows, "SELECT id FROM sites", ""),
                 &error);
    ck_assert_uint_eq(rows, 1);
    ck_assert_int_eq(fl_store_settle(store, &error), FL_ENOSPC);
    ck_assert_ptr_nonnull(strstr(error.text, "free some space"));
    ck_assert_int_eq(add_site("bank"), FL_ENOSPC);
    ck_assert_int_eq(fl_store_begin(store, &error), FL_ENOSPC);
    full = false;
    fl_assert_ok(add_site("bank"), &error);
    fl_assert_ok(fl_store_settle(store, &error), &error);
    ck_assert(cut_is_durable);
}
END_TEST

START_TEST(a_daemon_does_not_begin_on_what_may_not_be_on_the_disk)
{
    const struct fl_server_options options = {.exit_when_idle = false, .threaded = false};
    struct fl_desk *desk = NULL;
    struct fl_server *server = NULL;
    full = true;
    fl_assert_ok(fl_desk_open(directory, fl_clock_system(), &desk, &error), &error);
    ck_assert_int_eq(fl_server_create(desk, &options, &server, &error), FL_ENOSPC);
    ck_assert_ptr_null(server);
    full = false;
    enum fl_status status = fl_server_create(desk, &options, &server, &error);
    fl_server_destroy(&server);
    fl_desk_close(&desk);
    fl_assert_ok(status, &error);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_log_is_empty_on_the_disk_too);
    tcase_add_test(tc, on_a_full_disk_it_is_read_and_nothing_is_written);
    tcase_add_test(tc, a_daemon_does_not_begin_on_what_may_not_be_on_the_disk);
}

FL_TEST_MAIN("coordinator.store_log", add_tests)
