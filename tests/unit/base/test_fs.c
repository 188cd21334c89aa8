#include "base/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

static char directory[FL_PATH_BYTES];
static struct fl_error error;

static void make_directory(void)
{
    fl_test_directory(directory);
}

static const char *in_directory(const char *name)
{
    static char paths[16][FL_PATH_BYTES];
    static unsigned turn;
    char *path = paths[turn++ % 16];
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    return path;
}

static int count_entries(void)
{
    DIR *stream = opendir(directory);
    int count = 0;
    while (readdir(stream))
        count++;
    closedir(stream);
    return count - 2;
}

static void assert_content(const char *path, const char *expected)
{
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, 1000, &text, &error);
    bool same = status == FL_OK && strcmp(fl_buf_text(&text), expected) == 0;
    fl_buf_free(&text);
    ck_assert_msg(same, "%s does not hold '%s'", path, expected);
}

START_TEST(a_file_is_replaced_whole_with_its_mode)
{
    const char *path = in_directory("file");
    struct stat info;
    fl_assert_ok(fl_fs_write(path, "old", 3, 0644, &error), &error);
    fl_assert_ok(fl_fs_write(path, "new!", 4, 0600, &error), &error);
    assert_content(path, "new!");
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    ck_assert_int_eq(count_entries(), 1);
}
END_TEST

START_TEST(a_failed_write_or_fsync_leaves_the_old_file_and_no_litter)
{
    const char *path = in_directory("file");
    fl_assert_ok(fl_fs_write(path, "old", 3, 0644, &error), &error);
    fl_fs_fail_write_at(0);
    ck_assert_int_eq(fl_fs_write(path, "new", 3, 0644, &error), FL_EIO);
    ck_assert_int_eq(fl_fs_fault_fired(), 1);
    assert_content(path, "old");
    fl_fs_fail_sync_at(0);
    ck_assert_int_eq(fl_fs_write(path, "new", 3, 0644, &error), FL_EIO);
    assert_content(path, "old");
    ck_assert_int_eq(count_entries(), 1);
}
END_TEST

START_TEST(a_writer_shows_nothing_until_it_commits)
{
    const char *path = in_directory("file");
    struct fl_fs_writer writer;
    fl_assert_ok(fl_fs_writer_open(&writer, path, 0600, &error), &error);
    enum fl_status status = fl_fs_writer_write(&writer, "ab", 2, &error);
    if (status == FL_OK)
        status = fl_fs_writer_write(&writer, "c", 1, &error);
    bool early = fl_path_exists(path);
    if (status == FL_OK)
        status = fl_fs_writer_commit(&writer, &error);
    fl_fs_writer_close(&writer);
    ck_assert_int_eq(status, FL_OK);
    ck_assert(!early);
    ck_assert_uint_eq(writer.offset, 3);
    assert_content(path, "abc");
    fl_assert_ok(fl_fs_writer_open(&writer, path, 0600, &error), &error);
    fl_fs_writer_close(&writer);
    ck_assert_int_eq(count_entries(), 1);
}
END_TEST

START_TEST(reading_is_bounded_and_takes_regular_files_only)
{
    struct fl_buf text;
    const char *path = in_directory("file"), *fifo = in_directory("fifo");
    fl_assert_ok(fl_fs_write(path, "12345", 5, 0600, &error), &error);
    ck_assert_int_eq(fl_fs_read(path, 4, &text, &error), FL_ERANGE);
    fl_buf_free(&text);
    fl_assert_ok(fl_fs_read(path, 5, &text, &error), &error);
    ck_assert_uint_eq(text.length, 5);
    fl_buf_free(&text);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    ck_assert_int_eq(fl_fs_read(fifo, 5, &text, &error), FL_EIO);
    ck_assert_int_eq(fl_fs_read(directory, 5, &text, &error), FL_EIO);
    ck_assert_int_eq(fl_fs_read(in_directory("absent"), 5, &text, &error), FL_ENOTFOUND);
    fl_buf_free(&text);
}
END_TEST

START_TEST(standard_input_is_bounded_too)
{
    int ends[2];
    struct fl_buf text;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "hello", 5), 5);
    close(ends[1]);
    ck_assert_int_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    enum fl_status status = fl_fs_read_stdin(4, &text, &error);
    fl_buf_free(&text);
    ck_assert_int_eq(status, FL_ERANGE);
}
END_TEST

START_TEST(a_mapping_shows_the_bytes_and_refuses_what_is_no_file)
{
    struct fl_mapping map;
    const char *path = in_directory("file"), *fifo = in_directory("fifo");
    fl_assert_ok(fl_fs_write(path, "12345", 5, 0600, &error), &error);
    fl_assert_ok(fl_fs_map(path, &map, &error), &error);
    ck_assert_uint_eq(map.length, 5);
    ck_assert_mem_eq(map.data, "12345", 5);
    fl_fs_unmap(&map);
    ck_assert_ptr_null(map.data);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    ck_assert_int_eq(fl_fs_map(fifo, &map, &error), FL_EIO);
    fl_assert_ok(fl_fs_write(path, "", 0, 0600, &error), &error);
    fl_assert_ok(fl_fs_map(path, &map, &error), &error);
    ck_assert_ptr_null(map.data);
    fl_fs_unmap(&map);
}
END_TEST

START_TEST(what_a_mapping_forgets_is_read_again)
{
    static uint8_t bytes[40000];
    struct fl_mapping map;
    const char *path = in_directory("pages");
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i % 251);
    fl_assert_ok(fl_fs_write(path, bytes, sizeof bytes, 0600, &error), &error);
    fl_assert_ok(fl_fs_map(path, &map, &error), &error);
    ck_assert_mem_eq(map.data, bytes, sizeof bytes);
    fl_fs_forget(map.data + 1, sizeof bytes - 1);
    fl_fs_forget(map.data + 5, 10); /* no whole page */
    fl_fs_forget(map.data, 0);
    ck_assert_mem_eq(map.data, bytes, sizeof bytes);
    fl_fs_unmap(&map);
}
END_TEST

START_TEST(directories_are_made_with_their_parents_and_removed_with_their_children)
{
    const char *deep = in_directory("a/b/c"), *outside = in_directory("outside");
    fl_assert_ok(fl_fs_make_directory(deep, 0700, &error), &error);
    fl_assert_ok(fl_fs_make_directory(deep, 0700, &error), &error);
    ck_assert(fl_path_is_directory(deep));
    fl_assert_ok(fl_fs_write(outside, "kept", 4, 0600, &error), &error);
    fl_assert_ok(fl_fs_write(in_directory("a/b/file"), "x", 1, 0600, &error), &error);
    ck_assert_int_eq(symlink(directory, in_directory("a/link")), 0);
    fl_assert_ok(fl_fs_remove(in_directory("a"), &error), &error);
    ck_assert(!fl_path_exists(in_directory("a")));
    assert_content(outside, "kept");
    fl_assert_ok(fl_fs_remove(in_directory("absent"), &error), &error);
    ck_assert_int_ne(fl_fs_make_directory(in_directory("outside/x"), 0700, &error), FL_OK);
}
END_TEST

/* mkdir came through and the fsync after it did not: the next call takes it up. */
START_TEST(a_directory_that_was_not_synced_is_synced_by_the_next_call)
{
    const char *deep = in_directory("one/two");
    fl_assert_ok(fl_fs_make_directory(in_directory("one"), 0700, &error), &error);
    fl_fs_fail_sync_at(1); /* the first is for "one", which is found */
    ck_assert_int_eq(fl_fs_make_directory(deep, 0700, &error), FL_EIO);
    ck_assert(fl_path_is_directory(deep));
    fl_fs_fail_sync_at(0);
    ck_assert_int_eq(fl_fs_make_directory(deep, 0700, &error), FL_EIO);
    fl_fs_fail_sync_at(-1);
    fl_assert_ok(fl_fs_make_directory(deep, 0700, &error), &error);
}
END_TEST

START_TEST(renaming_moves_and_is_durable)
{
    fl_assert_ok(fl_fs_write(in_directory("a"), "x", 1, 0600, &error), &error);
    fl_assert_ok(fl_fs_rename(in_directory("a"), in_directory("b"), &error), &error);
    ck_assert(!fl_path_exists(in_directory("a")));
    assert_content(in_directory("b"), "x");
    ck_assert_int_eq(fl_fs_rename(in_directory("a"), in_directory("b"), &error), FL_ENOTFOUND);
}
END_TEST

START_TEST(a_lock_has_one_holder)
{
    const char *path = in_directory("lock");
    int first, second;
    fl_assert_ok(fl_fs_lock(path, &first, &error), &error);
    ck_assert_int_eq(fl_fs_lock(path, &second, &error), FL_EBUSY);
    ck_assert_int_eq(second, -1);
    close(first);
    fl_assert_ok(fl_fs_lock(path, &second, &error), &error);
    close(second);
}
END_TEST

START_TEST(a_path_that_does_not_fit_is_refused)
{
    static char longest[FL_PATH_BYTES + 10];
    char out[FL_PATH_BYTES];
    memset(longest, 'x', sizeof(longest) - 1);
    ck_assert_int_eq(fl_path_join(out, longest, "y", &error), FL_ERANGE);
    ck_assert_int_eq(fl_fs_write(longest, "", 0, 0600, &error), FL_ERANGE);
    ck_assert_int_eq(fl_fs_make_directory(longest, 0700, &error), FL_ERANGE);
    fl_assert_ok(fl_path_join(out, "a/", "b", &error), &error);
    ck_assert_str_eq(out, "a/b");
    fl_assert_ok(fl_path_join(out, "", "b", &error), &error);
    ck_assert_str_eq(out, "b");
    ck_assert_str_eq(fl_path_base("x/y/z"), "z");
    ck_assert_str_eq(fl_path_base("z"), "z");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, make_directory, NULL);
    tcase_add_test(tc, a_file_is_replaced_whole_with_its_mode);
    tcase_add_test(tc, a_failed_write_or_fsync_leaves_the_old_file_and_no_litter);
    tcase_add_test(tc, a_writer_shows_nothing_until_it_commits);
    tcase_add_test(tc, reading_is_bounded_and_takes_regular_files_only);
    tcase_add_test(tc, standard_input_is_bounded_too);
    tcase_add_test(tc, a_mapping_shows_the_bytes_and_refuses_what_is_no_file);
    tcase_add_test(tc, what_a_mapping_forgets_is_read_again);
    tcase_add_test(tc, directories_are_made_with_their_parents_and_removed_with_their_children);
    tcase_add_test(tc, a_directory_that_was_not_synced_is_synced_by_the_next_call);
    tcase_add_test(tc, renaming_moves_and_is_durable);
    tcase_add_test(tc, a_lock_has_one_holder);
    tcase_add_test(tc, a_path_that_does_not_fit_is_refused);
}

FL_TEST_MAIN("base.fs", add_tests)
