/* Lines as files have them. */
#include "worker/data/lines.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "runner.h"

static char path[FL_PATH_BYTES];

static void write_file(const char *bytes, size_t length)
{
    static char directory[FL_PATH_BYTES];
    struct fl_error error;
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "lines", &error), &error);
    fl_assert_ok(fl_fs_write(path, bytes, length, 0644, &error), &error);
}

static void lines_are(const char *bytes, size_t length, const char *const *expected, size_t count)
{
    struct fl_lines lines;
    struct fl_error error;
    const char *text;
    size_t got;
    write_file(bytes, length);
    fl_assert_ok(fl_lines_open(&lines, path, 1000, &error), &error);
    for (size_t i = 0; i < count; i++) {
        fl_assert_ok(fl_lines_next(&lines, &text, &got, &error), &error);
        ck_assert_ptr_nonnull(text);
        ck_assert_uint_eq(got, strlen(expected[i]));
        ck_assert_int_eq(memcmp(text, expected[i], got), 0);
        ck_assert_uint_eq(lines.number, i + 1);
    }
    fl_assert_ok(fl_lines_next(&lines, &text, &got, &error), &error);
    ck_assert_ptr_null(text);
    fl_lines_close(&lines);
}

START_TEST(line_ends_marks_and_a_missing_last_end_are_fine)
{
    lines_are("", 0, NULL, 0);
    lines_are("a\nb", 3, (const char *const[]){"a", "b"}, 2);
    lines_are("a\r\n\r\n\nb\n", 8, (const char *const[]){"a", "", "", "b"}, 4);
    lines_are("\xEF\xBB\xBFx\n\xEF\xBB\xBFy", 9, (const char *const[]){"x", "\xEF\xBB\xBFy"}, 2);
}
END_TEST

START_TEST(a_line_longer_than_a_chunk_is_whole)
{
    size_t length = 200000;
    char *bytes = fl_malloc(length);
    ck_assert_ptr_nonnull(bytes);
    memset(bytes, 'x', length);
    bytes[150000] = '\n';
    write_file(bytes, length);
    fl_free(bytes);
    struct fl_lines lines;
    struct fl_error error;
    const char *text;
    size_t got;
    fl_assert_ok(fl_lines_open(&lines, path, 150000, &error), &error);
    fl_assert_ok(fl_lines_next(&lines, &text, &got, &error), &error);
    ck_assert_uint_eq(got, 150000);
    fl_assert_ok(fl_lines_next(&lines, &text, &got, &error), &error);
    ck_assert_uint_eq(got, 49999);
    fl_lines_close(&lines);
    fl_assert_ok(fl_lines_open(&lines, path, 149999, &error), &error);
    ck_assert_int_eq(fl_lines_next(&lines, &text, &got, &error), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, ":1: the line is longer than 149999 bytes"));
    fl_lines_close(&lines);
}
END_TEST

START_TEST(a_missing_file_is_not_found)
{
    struct fl_lines lines;
    struct fl_error error;
    ck_assert_int_eq(fl_lines_open(&lines, "/no/such/file", 10, &error), FL_ENOTFOUND);
    fl_lines_close(&lines);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, line_ends_marks_and_a_missing_last_end_are_fine);
    tcase_add_test(tc, a_line_longer_than_a_chunk_is_whole);
    tcase_add_test(tc, a_missing_file_is_not_found);
}
FL_TEST_MAIN("data lines", add_tests)
