#include "base/audit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "runner.h"

static char path[FL_PATH_BYTES];
static struct fl_error error;

static void make_path(void)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "audit.log", &error), &error);
}

/* Open, append count lines, close. */
static void append_lines(int count)
{
    struct fl_audit *log;
    fl_assert_ok(fl_audit_open(path, &log, &error), &error);
    enum fl_status status = FL_OK;
    for (int i = 0; i < count && status == FL_OK; i++)
        status = fl_audit_append(
            log, 1709210096789 + i, "joined",
            (struct fl_field[]){
                FL_STR("site", "a\"b\n"), FL_U64("n", 7), FL_NUM("x", 0.5), {.kind = FL_FIELD_END}},
            &error);
    fl_audit_close(&log);
    ck_assert_ptr_null(log);
    fl_assert_ok(status, &error);
}

static uint64_t verified(void)
{
    uint64_t lines;
    fl_assert_ok(fl_audit_verify(path, &lines, &error), &error);
    return lines;
}

static void read_log(struct fl_buf *out)
{
    fl_assert_ok(fl_fs_read(path, 1 << 20, out, &error), &error);
}

/* Write the bytes over the log and expect line `line` to be found wrong. */
static void assert_broken(const void *bytes, size_t length, uint64_t line)
{
    char place[32];
    uint64_t lines;
    fl_assert_ok(fl_fs_write(path, bytes, length, 0600, &error), &error);
    ck_assert_int_eq(fl_audit_verify(path, &lines, &error), FL_EFORMAT);
    ck_assert_uint_eq(lines, line - 1);
    snprintf(place, sizeof(place), "audit.log:%d:", (int)line);
    ck_assert_ptr_nonnull(strstr(error.text, place));
}

START_TEST(the_chain_goes_on_after_a_restart)
{
    struct stat info;
    append_lines(3);
    append_lines(2);
    ck_assert_uint_eq(verified(), 5);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    struct fl_buf text;
    read_log(&text);
    ck_assert_ptr_nonnull(strstr(
        fl_buf_text(&text), "{\"seq\":1,\"ts\":\"2024-02-29T12:34:56.789Z\",\"event\":"
                            "\"joined\",\"site\":\"a\\\"b\\n\",\"n\":7,\"x\":0.5,\"prev\":\"00"));
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_change_a_removal_and_a_reordering_show)
{
    append_lines(4);
    struct fl_buf text;
    read_log(&text);
    char *start = (char *)text.data;
    size_t line = (size_t)((char *)memchr(start, '\n', text.length) + 1 - start);
    ck_assert_uint_eq(line * 4, text.length);
    assert_broken(start + line, 3 * line, 1); /* the first is gone */
    char changed[4096];
    memcpy(changed, start, text.length);
    memmove(changed + line, changed + 2 * line, 2 * line); /* the second is gone */
    assert_broken(changed, 3 * line, 2);
    memcpy(changed, start, text.length);
    *strstr(changed + line, "\"n\":7") = '\'';
    assert_broken(changed, 4 * line, 2);
    memcpy(changed, start, text.length);
    strstr(changed + line, "\"n\":7")[4] = '8'; /* still JSON: the next line tells */
    assert_broken(changed, 4 * line, 3);
    memcpy(changed + line, start + 2 * line, line);
    memcpy(changed + 2 * line, start + line, line);
    assert_broken(changed, 4 * line, 2);
    assert_broken(start, 4 * line - 1, 4); /* a torn end */
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_torn_last_line_is_cut_off_when_the_log_is_opened)
{
    append_lines(2);
    int fd = open(path, O_WRONLY | O_APPEND);
    ck_assert_int_eq(write(fd, "{\"seq\":3,", 9), 9);
    close(fd);
    append_lines(1);
    ck_assert_uint_eq(verified(), 3);
    ck_assert_int_eq(truncate(path, 20), 0); /* nothing but a torn first line */
    append_lines(1);
    ck_assert_uint_eq(verified(), 1);
}
END_TEST

START_TEST(a_failed_write_leaves_a_log_that_goes_on)
{
    struct fl_audit *log;
    fl_assert_ok(fl_audit_open(path, &log, &error), &error);
    fl_fs_fail_write_at(0);
    ck_assert_int_eq(fl_audit_append(log, 0, "x", NULL, &error), FL_EIO);
    enum fl_status after = fl_audit_append(log, 0, "y", NULL, &error);
    fl_audit_close(&log);
    fl_assert_ok(after, &error);
    ck_assert_uint_eq(verified(), 1);
}
END_TEST

START_TEST(after_a_failed_fsync_the_log_is_written_anew_and_goes_on)
{
    struct fl_audit *log;
    fl_assert_ok(fl_audit_open(path, &log, &error), &error);
    enum fl_status first = fl_audit_append(log, 0, "w", NULL, &error);
    fl_fs_fail_sync_at(0);
    enum fl_status failed = fl_audit_append(log, 0, "x", NULL, &error);
    fl_fs_fail_sync_at(0); /* it cannot be written anew either */
    enum fl_status again = fl_audit_append(log, 0, "y", NULL, &error);
    enum fl_status after = fl_audit_append(log, 0, "z", NULL, &error);
    fl_audit_close(&log);
    fl_assert_ok(first, &error);
    ck_assert_int_eq(failed, FL_EIO);
    ck_assert_int_eq(again, FL_EIO);
    fl_assert_ok(after, &error);
    ck_assert_uint_eq(verified(), 2);
}
END_TEST

START_TEST(what_is_no_audit_log_is_refused)
{
    static char rubbish[100000];
    struct fl_audit *log;
    memset(rubbish, 'x', sizeof(rubbish));
    fl_assert_ok(fl_fs_write(path, rubbish, sizeof(rubbish), 0600, &error), &error);
    ck_assert_int_eq(fl_audit_open(path, &log, &error), FL_EFORMAT);
    ck_assert_ptr_null(log);
    fl_assert_ok(fl_fs_write(path, "[1]\n", 4, 0600, &error), &error);
    ck_assert_int_eq(fl_audit_open(path, &log, &error), FL_EFORMAT);
    fl_assert_ok(fl_fs_write(path, "", 0, 0600, &error), &error);
    append_lines(1);
    ck_assert_uint_eq(verified(), 1);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, make_path, NULL);
    tcase_add_test(tc, the_chain_goes_on_after_a_restart);
    tcase_add_test(tc, a_change_a_removal_and_a_reordering_show);
    tcase_add_test(tc, a_torn_last_line_is_cut_off_when_the_log_is_opened);
    tcase_add_test(tc, a_failed_write_leaves_a_log_that_goes_on);
    tcase_add_test(tc, after_a_failed_fsync_the_log_is_written_anew_and_goes_on);
    tcase_add_test(tc, what_is_no_audit_log_is_refused);
}

FL_TEST_MAIN("base.audit", add_tests)
