/* Names of models in Hugging Face's cache: found through refs and snapshots, or a word on how. */
#include "format/hfcache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static struct fl_error error;
static char root[FL_PATH_BYTES];

/* A fresh cache that the environment names. */
static void setup(void)
{
    fl_test_directory(root);
    setenv("HF_HUB_CACHE", root, 1);
}

static const char *in_cache(const char *name)
{
    static char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, root, name, &error), &error);
    return path;
}

static void make_directory(const char *name)
{
    fl_assert_ok(fl_fs_make_directory(in_cache(name), 0700, &error), &error);
}

static void put(const char *name, const char *text)
{
    fl_assert_ok(fl_fs_write(in_cache(name), text, strlen(text), 0600, &error), &error);
}

static void make_model(const char *folder, const char *ref)
{
    char name[256];
    (void)snprintf(name, sizeof name, "%s/refs", folder);
    make_directory(name);
    (void)snprintf(name, sizeof name, "%s/snapshots/" COMMIT, folder);
    make_directory(name);
    (void)snprintf(name, sizeof name, "%s/refs/main", folder);
    put(name, ref);
}

/* expected NULL: the name itself. */
static void found(const char *model, const char *expected)
{
    char out[FL_PATH_BYTES];
    fl_assert_ok(fl_hfcache_find(model, out, &error), &error);
    ck_assert_str_eq(out, expected ? in_cache(expected) : model);
}

static void refused(const char *model, enum fl_status status, const char *word)
{
    char out[FL_PATH_BYTES];
    ck_assert_int_eq(fl_hfcache_find(model, out, &error), status);
    ck_assert_msg(strstr(error.text, word) != NULL, "'%s' does not say '%s'", error.text, word);
}

START_TEST(names_of_models_are_read)
{
    static const char *const bad[] = {"",         "/",          "a/",       "/a",   "a/b/c",
                                      "a@",       "@b",         "../x",     "a/..", "a b/c",
                                      "a/b@../x", "a--b/c",     "a/b@/x",   "-a/b", "a/b@x y",
                                      ".a",       "http://x/y", "a/b@v1@v2"};
    struct fl_hfcache_name model;
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_hfcache_parse("HuggingFaceTB/SmolLM2-135M", &model, &error), &error);
    ck_assert_str_eq(model.model, "HuggingFaceTB/SmolLM2-135M");
    ck_assert_str_eq(model.revision, "main");
    fl_assert_ok(fl_hfcache_parse("gpt2@refs/pr/3", &model, &error), &error);
    ck_assert_str_eq(model.model, "gpt2");
    ck_assert_str_eq(model.revision, "refs/pr/3");
    fl_assert_ok(fl_hfcache_directory("/models", &model, path, &error), &error);
    ck_assert_str_eq(path, "/models/models--gpt2");
    fl_assert_ok(fl_hfcache_parse("org/name", &model, &error), &error);
    fl_assert_ok(fl_hfcache_directory("/models", &model, path, &error), &error);
    ck_assert_str_eq(path, "/models/models--org--name");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(fl_hfcache_parse(bad[i], &model, &error) == FL_EUSAGE, "'%s'", bad[i]);
}
END_TEST

START_TEST(a_name_becomes_its_snapshot)
{
    make_model("models--acme--tiny", COMMIT);
    put("models--acme--tiny/snapshots/" COMMIT "/config.json", "{}");
    put("models--acme--tiny/snapshots/" COMMIT "/x.gguf", "");
    found("acme/tiny", "models--acme--tiny/snapshots/" COMMIT);
    found("acme/tiny@main", "models--acme--tiny/snapshots/" COMMIT);
    found("acme/tiny@" COMMIT, "models--acme--tiny/snapshots/" COMMIT);
    make_directory("models--acme--tiny/refs/refs/pr");
    put("models--acme--tiny/refs/refs/pr/3", COMMIT "\n");
    found("acme/tiny@refs/pr/3", "models--acme--tiny/snapshots/" COMMIT);
    make_model("models--gpt2", COMMIT);
    found("gpt2", "models--gpt2/snapshots/" COMMIT);
}
END_TEST

START_TEST(a_snapshot_of_one_gguf_file_is_that_file)
{
    make_model("models--acme--quantised", COMMIT);
    put("models--acme--quantised/snapshots/" COMMIT "/model.Q4_K_M.gguf", "");
    put("models--acme--quantised/snapshots/" COMMIT "/README.md", "");
    found("acme/quantised", "models--acme--quantised/snapshots/" COMMIT "/model.Q4_K_M.gguf");
    put("models--acme--quantised/snapshots/" COMMIT "/model.Q8_0.gguf", "");
    refused("acme/quantised", FL_EFORMAT, "2 GGUF files");
}
END_TEST

START_TEST(paths_stay_as_they_are)
{
    char cwd[FL_PATH_BYTES];
    static const char *const PATHS[] = {"/no/such", "a/b/c",      "../x",     "a/../b", ".hidden/x",
                                        "a b/c",    "model.gguf", "",         "a/",     "/",
                                        "a//b",     "a@b@c",      "x/y.gguf@"};
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++)
        found(PATHS[i], NULL);
    /* a path that exists wins over a name */
    make_model("models--acme--tiny", COMMIT);
    make_directory("acme/tiny");
    ck_assert_ptr_nonnull(getcwd(cwd, sizeof cwd));
    ck_assert_int_eq(chdir(root), 0);
    found("acme/tiny", NULL);
    ck_assert_int_eq(chdir(cwd), 0);
    char path[FL_PATH_BYTES + 1], out[FL_PATH_BYTES];
    memset(path, 'a', FL_PATH_BYTES);
    path[FL_PATH_BYTES] = '\0';
    ck_assert_int_eq(fl_hfcache_find(path, out, &error), FL_ERANGE);
}
END_TEST

START_TEST(what_is_missing_is_said_with_what_to_run)
{
    refused("acme/other", FL_ENOTFOUND, "run: fedlora-worker fetch acme/other");
    refused("acme/other@v2", FL_ENOTFOUND, "run: fedlora-worker fetch acme/other@v2");
    ck_assert_ptr_nonnull(strstr(error.text, root));
    make_model("models--acme--tiny", "ffffffffffffffffffffffffffffffffffffffff");
    refused("acme/tiny", FL_ENOTFOUND, "not complete");
    refused("acme/tiny@v1", FL_ENOTFOUND, "not that revision");
    refused("acme/tiny@abcdef0", FL_ENOTFOUND, "not complete");
}
END_TEST

START_TEST(a_reference_that_is_no_commit_is_refused)
{
    static const char *const BAD[] = {"",           "../../..",    "main",     "0123",
                                      COMMIT "/..", COMMIT COMMIT, COMMIT " x"};
    char large[1000];
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        make_model("models--acme--tiny", BAD[i]);
        refused("acme/tiny", FL_EFORMAT, "names no commit");
    }
    memset(large, 'a', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    put("models--acme--tiny/refs/main", large);
    refused("acme/tiny", FL_EFORMAT, "names no commit");
}
END_TEST

START_TEST(the_environment_says_where_the_cache_is)
{
    char out[FL_PATH_BYTES], home[FL_PATH_BYTES];
    fl_assert_ok(fl_hfcache_root(out, &error), &error);
    ck_assert_str_eq(out, root);
    setenv("HF_HUB_CACHE", "", 1);
    setenv("HF_HOME", "/h", 1);
    fl_assert_ok(fl_hfcache_root(out, &error), &error);
    ck_assert_str_eq(out, "/h/hub");
    unsetenv("HF_HOME");
    setenv("XDG_CACHE_HOME", "/c", 1);
    fl_assert_ok(fl_hfcache_root(out, &error), &error);
    ck_assert_str_eq(out, "/c/huggingface/hub");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/me", 1);
    fl_assert_ok(fl_hfcache_root(out, &error), &error);
    ck_assert_str_eq(out, "/me/.cache/huggingface/hub");
    memset(home, 'h', sizeof home - 1);
    home[sizeof home - 1] = '\0';
    setenv("HOME", home, 1);
    ck_assert_int_eq(fl_hfcache_root(out, &error), FL_ERANGE);
    unsetenv("HOME");
    ck_assert_int_eq(fl_hfcache_root(out, &error), FL_ENOTFOUND);
    ck_assert_int_eq(fl_hfcache_find("acme/tiny", out, &error), FL_ENOTFOUND);
    found("gpt2", NULL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, names_of_models_are_read);
    tcase_add_test(tc, a_name_becomes_its_snapshot);
    tcase_add_test(tc, a_snapshot_of_one_gguf_file_is_that_file);
    tcase_add_test(tc, paths_stay_as_they_are);
    tcase_add_test(tc, what_is_missing_is_said_with_what_to_run);
    tcase_add_test(tc, a_reference_that_is_no_commit_is_refused);
    tcase_add_test(tc, the_environment_says_where_the_cache_is);
}

FL_TEST_MAIN("format_hfcache", add_tests)
