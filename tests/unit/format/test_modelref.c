/*
 * Goal: the manifest is the documented hash, and the cache never gives an old one.
 * Method: the hash calculated in the test from the definition; files changed behind the cache.
 */
#include "format/modelref.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "runner.h"

static char folder[FL_PATH_BYTES], cache[FL_PATH_BYTES];

static void setup(void)
{
    fl_test_directory(folder);
    fl_test_directory(cache);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", cache, 1), 0);
}

static void put(const char *name, const char *text)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    fl_assert_ok(fl_path_join(path, folder, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0644, &error), &error);
}

static void line_of(char *out, size_t bytes, const char *name, const char *text)
{
    uint8_t hash[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    fl_sha256(text, strlen(text), hash);
    fl_hex(hash, sizeof(hash), hex);
    snprintf(out, bytes, "%s %zu %s\n", hex, strlen(text), name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The definition: sha256 of the sorted lines of these files. */
static void expected(const char *const (*files)[2], size_t count, uint8_t out[FL_HASH_BYTES])
{
    char lines[16][200], all[16 * 200] = "";
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        line_of(lines[i], sizeof(lines[i]), files[i][0], files[i][1]);
    qsort(lines, count, sizeof(lines[0]), by_text);
    for (size_t i = 0; i < count; i++)
        n += (size_t)snprintf(all + n, sizeof(all) - n, "%s", lines[i]);
    fl_sha256(all, n, out);
}

static const char *const files[][2] = {
    {"config.json", "{}"},           {"tokenizer.json", "tok"},
    {"tokenizer_config.json", "{}"}, {"special_tokens_map.json", "{}"},
    {"merges.txt", "a b"},           {"model.safetensors.index.json", "idx"},
    {"model-1.safetensors", "one"},  {"model-2.safetensors", "one"},
};
#define FILES (sizeof(files) / sizeof(files[0]))

static void put_model(void)
{
    for (size_t i = 0; i < FILES; i++)
        put(files[i][0], files[i][1]);
    put("README.md", "not counted");
    put("generation_config.json", "not counted");
    put("training_args.bin", "not counted");
}

START_TEST(a_directory_is_the_hash_of_its_sorted_lines)
{
    uint8_t got[FL_HASH_BYTES], wanted[FL_HASH_BYTES];
    struct fl_error error = {0};
    put_model();
    expected(files, FILES, wanted);
    for (int i = 0; i < 3; i++) { /* calculated, then from the cache */
        fl_assert_ok(fl_modelref_manifest(folder, got, &error), &error);
        ck_assert_mem_eq(got, wanted, sizeof(got));
    }
    fl_assert_ok(fl_modelref_manifest_fresh(folder, got, &error), &error);
    ck_assert_mem_eq(got, wanted, sizeof(got));
}
END_TEST

START_TEST(a_file_is_its_own_hash)
{
    uint8_t got[FL_HASH_BYTES], wanted[FL_HASH_BYTES];
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    put("m.gguf", "GGUF...");
    fl_sha256("GGUF...", 7, wanted);
    fl_assert_ok(fl_path_join(path, folder, "m.gguf", &error), &error);
    fl_assert_ok(fl_modelref_manifest(path, got, &error), &error);
    ck_assert_mem_eq(got, wanted, sizeof(got));
}
END_TEST

START_TEST(a_changed_file_is_hashed_again)
{
    uint8_t before[FL_HASH_BYTES], after[FL_HASH_BYTES], fresh[FL_HASH_BYTES];
    struct fl_error error = {0};
    put_model();
    fl_assert_ok(fl_modelref_manifest(folder, before, &error), &error);
    put("model-1.safetensors", "two"); /* the same size */
    fl_assert_ok(fl_modelref_manifest(folder, after, &error), &error);
    fl_assert_ok(fl_modelref_manifest_fresh(folder, fresh, &error), &error);
    ck_assert_mem_eq(after, fresh, sizeof(after));
    ck_assert_mem_ne(after, before, sizeof(after));
    put("model-3.safetensors", "more");
    fl_assert_ok(fl_modelref_manifest(folder, after, &error), &error);
    ck_assert_mem_ne(after, fresh, sizeof(after));
}
END_TEST

START_TEST(a_cache_that_cannot_be_used_is_passed_over)
{
    uint8_t got[FL_HASH_BYTES], wanted[FL_HASH_BYTES];
    char command[FL_PATH_BYTES];
    struct fl_error error = {0};
    put_model();
    expected(files, FILES, wanted);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", "/dev/null/x", 1), 0);
    fl_assert_ok(fl_modelref_manifest(folder, got, &error), &error);
    ck_assert_mem_eq(got, wanted, sizeof(got));
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", "relative", 1), 0);
    ck_assert_int_eq(setenv("HOME", cache, 1), 0);
    fl_assert_ok(fl_modelref_manifest(folder, got, &error), &error);
    ck_assert_mem_eq(got, wanted, sizeof(got));
    fl_assert_ok(fl_path_join(command, cache, ".cache/fedlora/manifests", &error), &error);
    ck_assert(fl_path_is_directory(command));
    ck_assert_int_eq(unsetenv("XDG_CACHE_HOME"), 0);
    ck_assert_int_eq(unsetenv("HOME"), 0);
    fl_assert_ok(fl_modelref_manifest(folder, got, &error), &error);
    ck_assert_mem_eq(got, wanted, sizeof(got));
}
END_TEST

START_TEST(what_is_no_model_is_refused)
{
    uint8_t got[FL_HASH_BYTES];
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    put("README.md", "x");
    ck_assert_int_eq(fl_modelref_manifest(folder, got, &error), FL_EFORMAT);
    fl_assert_ok(fl_path_join(path, folder, "absent", &error), &error);
    ck_assert_int_eq(fl_modelref_manifest(path, got, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_path_join(path, folder, "x.safetensors", &error), &error);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    ck_assert_int_ne(fl_modelref_manifest(folder, got, &error), FL_OK);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, a_directory_is_the_hash_of_its_sorted_lines);
    tcase_add_test(tc, a_file_is_its_own_hash);
    tcase_add_test(tc, a_changed_file_is_hashed_again);
    tcase_add_test(tc, a_cache_that_cannot_be_used_is_passed_over);
    tcase_add_test(tc, what_is_no_model_is_refused);
}

FL_TEST_MAIN("format_modelref", add_tests)
