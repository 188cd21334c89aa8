/* What the names in a directory say. */
#include "worker/data/files.h"

#include <string.h>

#include "base/fs.h"
#include "runner.h"

static struct fl_error error;

START_TEST(names_say_what_files_are_for)
{
    static const struct {
        const char *name;
        int role; /* -1: not listed */
    } CASES[] = {
        {".hidden.jsonl", -1},
        {"README.md", -1},
        {"dataset_info.json", -1},
        {"dev.csv", FL_FILE_VALID},
        {"eval.json", FL_FILE_TEST},
        {"notes.txt", FL_FILE_OTHER},
        {"test-00000-of-00001.parquet", FL_FILE_TEST},
        {"train-00000-of-00001.jsonl", FL_FILE_TRAIN},
        {"train.jsonl", FL_FILE_TRAIN},
        {"trains.jsonl", FL_FILE_OTHER},
        {"valid.ndjson", FL_FILE_VALID},
        {"validation_1.csv", FL_FILE_VALID},
    };
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_files files = {0};
    fl_test_directory(directory);
    ck_assert_int_eq(fl_files_list(directory, &files, &error), FL_EFORMAT);
    for (size_t i = sizeof CASES / sizeof CASES[0]; i > 0; i--) {
        fl_assert_ok(fl_path_join(path, directory, CASES[i - 1].name, &error), &error);
        fl_assert_ok(fl_fs_write(path, "x", 1, 0644, &error), &error);
    }
    fl_assert_ok(fl_files_list(directory, &files, &error), &error);
    size_t at = 0;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        if (CASES[i].role < 0)
            continue;
        ck_assert_uint_lt(at, files.count);
        ck_assert_str_eq(files.files[at].name, CASES[i].name);
        ck_assert_int_eq((int)files.files[at++].role, CASES[i].role);
    }
    ck_assert_uint_eq(at, files.count);
    ck_assert_uint_eq(files.of_role[FL_FILE_VALID], 3);
    fl_files_free(&files);
    ck_assert_int_eq(fl_files_list("/no/such", &files, &error), FL_ENOTFOUND);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, names_say_what_files_are_for);
}
FL_TEST_MAIN("data files", add_tests)
