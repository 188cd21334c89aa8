/* Bytes with their places. */
#include "worker/data/feed.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "runner.h"

static const bool NEWLINE[256] = {['\n'] = true};
static struct fl_error error;
static struct fl_feed feed;

static void open_bytes(const char *bytes, size_t length)
{
    static char path[FL_PATH_BYTES], directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "bytes", &error), &error);
    fl_assert_ok(fl_fs_write(path, bytes, length, 0644, &error), &error);
    fl_assert_ok(fl_feed_open(&feed, path, &error), &error);
}

START_TEST(every_byte_has_its_line_and_column)
{
    open_bytes("a\r\n\n bc", 7);
    ck_assert_int_eq(fl_feed_next(&feed), 'a');
    ck_assert_uint_eq(feed.place.column, 2);
    ck_assert_int_eq(fl_feed_skip_blanks(&feed), 'b');
    ck_assert_uint_eq(feed.place.line, 3);
    ck_assert_uint_eq(feed.place.column, 2);
    ck_assert_int_eq(fl_feed_next(&feed), 'b');
    ck_assert_int_eq(fl_feed_next(&feed), 'c');
    ck_assert_int_eq(fl_feed_next(&feed), -1);
    ck_assert_int_eq(fl_feed_peek(&feed), -1);
    fl_assert_ok(fl_feed_status(&feed, &error), &error);
    fl_feed_close(&feed);
}
END_TEST

START_TEST(a_byte_order_mark_counts_for_nothing)
{
    open_bytes("\xEF\xBB\xBFx\xEF\xBB\xBF", 7);
    ck_assert_int_eq(fl_feed_next(&feed), 'x');
    ck_assert_uint_eq(feed.place.column, 2);
    ck_assert_int_eq(fl_feed_next(&feed), 0xEF);
    fl_feed_close(&feed);
    open_bytes("\xEF\xBB\xBF", 3);
    ck_assert_int_eq(fl_feed_peek(&feed), -1);
    fl_feed_close(&feed);
}
END_TEST

START_TEST(a_stretch_longer_than_a_chunk_is_whole_and_bounded)
{
    size_t length = 200000;
    struct fl_buf out;
    char *bytes = fl_malloc(length);
    ck_assert_ptr_nonnull(bytes);
    memset(bytes, 'x', length);
    bytes[150000] = '\n';
    open_bytes(bytes, length);
    fl_buf_init(&out, 150000);
    fl_feed_until(&feed, NEWLINE, &out);
    ck_assert_int_eq(fl_buf_status(&out), FL_OK);
    ck_assert_uint_eq(out.length, 150000);
    ck_assert_int_eq(fl_feed_next(&feed), '\n');
    ck_assert_uint_eq(feed.place.line, 2);
    fl_feed_until(&feed, NEWLINE, &out);
    ck_assert_int_eq(fl_buf_status(&out), FL_ERANGE);
    fl_buf_free(&out);
    fl_feed_close(&feed);
    fl_free(bytes);
}
END_TEST

START_TEST(what_cannot_be_read_is_said)
{
    char directory[FL_PATH_BYTES];
    ck_assert_int_eq(fl_feed_open(&feed, "/no/such/file", &error), FL_ENOTFOUND);
    fl_feed_close(&feed);
    fl_test_directory(directory);
    fl_assert_ok(fl_feed_open(&feed, directory, &error), &error);
    ck_assert_int_eq(fl_feed_next(&feed), -1);
    ck_assert_int_eq(fl_feed_status(&feed, &error), FL_EIO);
    fl_feed_close(&feed);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, every_byte_has_its_line_and_column);
    tcase_add_test(tc, a_byte_order_mark_counts_for_nothing);
    tcase_add_test(tc, a_stretch_longer_than_a_chunk_is_whole_and_bounded);
    tcase_add_test(tc, what_cannot_be_read_is_said);
}
FL_TEST_MAIN("data feed", add_tests)
