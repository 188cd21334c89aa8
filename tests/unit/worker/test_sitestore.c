/*
 * What a site keeps: deltas that only it can read, what it has seen, its newest adapters.
 * Method: save and load, then the same with every file damaged, of another round, or gone.
 */
#include "worker/sitestore.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"
#include "stub_site.h"

static const uint8_t fingerprint[FL_HASH_BYTES] = {1, 2, 3};
static const uint8_t other[FL_HASH_BYTES] = {1, 2, 4};

static const struct fl_delta_stats stats = {.stats = {.weight = 321,
                                                      .eval_loss_sum = 1.25,
                                                      .eval_tokens = 5,
                                                      .train_loss_sum = 2.5,
                                                      .train_tokens = 321},
                                            .steps = 9,
                                            .seconds = 0.75};

static void path_in(const struct stub_site *site, const char *name, char *out)
{
    struct fl_error error;
    fl_assert_ok(fl_sitestore_path(&site->store, name, out, &error), &error);
}

/* How many files a folder of the site holds; the path of the last one in path when not NULL. */
static unsigned count_in(const struct stub_site *site, const char *folder, char *path)
{
    char at[FL_PATH_BYTES];
    unsigned count = 0;
    struct fl_error error;
    path_in(site, folder, at);
    DIR *dir = opendir(at);
    ck_assert(dir != NULL);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (e->d_name[0] == '.')
            continue;
        count++;
        if (path)
            fl_assert_ok(fl_path_join(path, at, e->d_name, &error), &error);
    }
    closedir(dir);
    return count;
}

static void save(const struct stub_site *site, uint64_t job, uint32_t round, const uint8_t *print,
                 const struct fl_adapter *delta)
{
    struct fl_error error;
    fl_assert_ok(fl_sitestore_save_delta(&site->store, job, round, print, delta, &stats, &error),
                 &error);
}

static enum fl_status load(const struct stub_site *site, uint64_t job, uint32_t round,
                           const uint8_t *print, struct fl_adapter *shape)
{
    struct fl_delta_stats found;
    struct fl_error error;
    enum fl_status status = fl_sitestore_load_delta(&site->store, job, round, print, shape, &found,
                                                    &error);
    if (status == FL_OK)
        ck_assert(found.stats.weight == 321 && found.stats.eval_loss_sum == 1.25 &&
                  found.stats.eval_tokens == 5 && found.stats.train_loss_sum == 2.5 &&
                  found.stats.train_tokens == 321 && found.steps == 9 && found.seconds == 0.75);
    return status;
}

START_TEST(a_delta_is_kept_until_it_is_forgotten)
{
    struct stub_site site;
    struct fl_adapter *delta = stub_start(1), *shape = stub_start(2);
    stub_site_open(&site, NULL);
    ck_assert_int_eq(load(&site, 5, 1, fingerprint, shape), FL_ENOTFOUND);
    save(&site, 5, 1, fingerprint, delta);
    ck_assert_int_eq(load(&site, 5, 1, fingerprint, shape), FL_OK);
    for (uint32_t m = 0; m < delta->count; m++)
        ck_assert_int_eq(memcmp(delta->modules[m].a, shape->modules[m].a, 4 * 4 * 8), 0);
    ck_assert_int_eq(load(&site, 5, 2, fingerprint, shape), FL_ENOTFOUND);
    ck_assert_int_eq(load(&site, 6, 1, fingerprint, shape), FL_ENOTFOUND);
    ck_assert_int_eq(load(&site, 5, 1, other, shape), FL_ENOTFOUND);
    fl_adapter_destroy(&shape);
    fl_adapter_destroy(&delta);
    stub_site_close(&site);
}
END_TEST

START_TEST(a_round_that_only_evaluated_is_kept_without_a_delta)
{
    struct stub_site site;
    struct fl_adapter *shape = stub_start(2);
    stub_site_open(&site, NULL);
    save(&site, 5, 1, fingerprint, NULL);
    ck_assert_int_eq(load(&site, 5, 1, fingerprint, NULL), FL_OK);
    /* one who expects a delta there does the work again */
    ck_assert_int_eq(load(&site, 5, 1, fingerprint, shape), FL_ENOTFOUND);
    ck_assert_uint_eq(count_in(&site, "state/deltas", NULL), 0);
    fl_adapter_destroy(&shape);
    stub_site_close(&site);
}
END_TEST

START_TEST(a_delta_never_lies_on_the_disk_in_the_clear)
{
    struct stub_site site;
    struct fl_adapter *delta = stub_start(1);
    struct fl_buf bytes;
    struct fl_error error;
    struct stat info;
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    save(&site, 5, 1, fingerprint, delta);
    ck_assert_uint_eq(count_in(&site, "state/deltas", path), 1);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    fl_assert_ok(fl_fs_read(path, 1u << 20, &bytes, &error), &error);
    ck_assert(memmem(bytes.data, bytes.length, "lora_A", 6) == NULL);
    ck_assert(memmem(bytes.data, bytes.length, "FLDELT01", 8) == NULL);
    ck_assert(memmem(bytes.data, bytes.length, delta->modules[1].a, 16) == NULL);
    fl_buf_free(&bytes);
    fl_adapter_destroy(&delta);
    stub_site_close(&site);
}
END_TEST

static void damage(const char *path, size_t at, bool cut)
{
    struct fl_buf bytes;
    struct fl_error error;
    fl_assert_ok(fl_fs_read(path, 1u << 20, &bytes, &error), &error);
    if (!cut)
        bytes.data[at % bytes.length] ^= 1;
    size_t length = cut ? at % bytes.length : bytes.length;
    fl_assert_ok(fl_fs_write(path, bytes.data, length, 0600, &error), &error);
    fl_buf_free(&bytes);
}

START_TEST(a_damaged_delta_is_removed_and_the_work_done_again)
{
    struct stub_site site;
    struct fl_adapter *delta = stub_start(1), *shape = stub_start(2);
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    for (size_t i = 0; i < 24; i++) {
        save(&site, 5, 1, fingerprint, delta);
        ck_assert_uint_eq(count_in(&site, "state/deltas", path), 1);
        damage(path, i * 97, i % 2);
        ck_assert_int_eq(load(&site, 5, 1, fingerprint, shape), FL_ENOTFOUND);
        ck_assert_uint_eq(count_in(&site, "state/deltas", NULL), 0);
    }
    fl_adapter_destroy(&shape);
    fl_adapter_destroy(&delta);
    stub_site_close(&site);
}
END_TEST

START_TEST(a_delta_under_another_name_is_not_taken)
{
    struct stub_site site;
    struct fl_adapter *delta = stub_start(1), *shape = stub_start(2);
    char from[FL_PATH_BYTES], to[FL_PATH_BYTES], name[160], hex[FL_HASH_HEX_BYTES];
    stub_site_open(&site, NULL);
    save(&site, 5, 1, fingerprint, delta);
    ck_assert_uint_eq(count_in(&site, "state/deltas", from), 1);
    fl_hex(fingerprint, FL_HASH_BYTES, hex);
    snprintf(name, sizeof(name), "state/deltas/5-2-%s.delta", hex);
    path_in(&site, name, to);
    ck_assert_int_eq(rename(from, to), 0);
    ck_assert_int_eq(load(&site, 5, 2, fingerprint, shape), FL_ENOTFOUND);
    fl_adapter_destroy(&shape);
    fl_adapter_destroy(&delta);
    stub_site_close(&site);
}
END_TEST

static void put(const struct stub_site *site, const char *name, const char *text)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    path_in(site, name, path);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0600, &error), &error);
}

START_TEST(forgetting_removes_the_rounds_of_one_job_up_to_one)
{
    struct stub_site site;
    struct fl_error error;
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    save(&site, 5, 1, fingerprint, NULL);
    save(&site, 5, 2, fingerprint, NULL);
    save(&site, 5, 3, fingerprint, NULL);
    save(&site, 55, 1, fingerprint, NULL);
    put(&site, "state/uploads/5-1-1.sealed", "x");
    put(&site, "state/uploads/5-3-1.sealed", "x");
    put(&site, "state/uploads/notes", "x");
    fl_sitestore_forget(&site.store, 5, 2);
    ck_assert_uint_eq(count_in(&site, "state/deltas", NULL), 2);
    ck_assert_uint_eq(count_in(&site, "state/uploads", NULL), 2);
    ck_assert_int_eq(load(&site, 5, 3, fingerprint, NULL), FL_OK);
    ck_assert_int_eq(load(&site, 55, 1, fingerprint, NULL), FL_OK);
    fl_sitestore_forget(&site.store, 5, UINT32_MAX);
    ck_assert_uint_eq(count_in(&site, "state/deltas", NULL), 1);
    fl_assert_ok(fl_sitestore_upload_path(&site.store, 5, 3, 1, path, &error), &error);
    ck_assert(!fl_path_exists(path));
    stub_site_close(&site);
}
END_TEST

START_TEST(what_was_seen_survives)
{
    struct stub_site site;
    struct fl_seen seen, found;
    struct fl_error error;
    stub_site_open(&site, NULL);
    fl_assert_ok(fl_sitestore_load_seen(&site.store, &found, &error), &error);
    ck_assert(found.job == 0 && found.round == 0 && !found.has_version); /* nothing yet */
    seen = (struct fl_seen){.job = 12, .round = 3, .attempt = 2};
    fl_assert_ok(fl_sitestore_save_seen(&site.store, &seen, &error), &error);
    fl_assert_ok(fl_sitestore_load_seen(&site.store, &found, &error), &error);
    ck_assert(found.job == 12 && found.round == 3 && found.attempt == 2 && !found.has_version);
    seen.has_version = true;
    memset(seen.version, 0xab, sizeof(seen.version));
    seen.number = 4;
    memcpy(seen.coordinator, "0123456789abcdef", sizeof(seen.coordinator));
    fl_assert_ok(fl_sitestore_save_seen(&site.store, &seen, &error), &error);
    fl_assert_ok(fl_sitestore_load_seen(&site.store, &found, &error), &error);
    ck_assert(found.has_version && memcmp(found.version, seen.version, FL_HASH_BYTES) == 0);
    ck_assert(found.number == 4 && strcmp(found.coordinator, seen.coordinator) == 0);
    stub_site_close(&site);
}
END_TEST

START_TEST(a_damaged_record_of_what_was_seen_is_told)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "{}",
                                      "{\"job\":-1}",
                                      "{\"job\":\"1\"}",
                                      "{\"job\":1,\"round\":-1}",
                                      "{\"job\":1,\"round\":1,\"attempt\":1,\"version\":\"ab\"}",
                                      "{\"job\":1,\"round\":1,\"attempt\":1,\"version\":7}"};
    struct stub_site site;
    struct fl_seen found;
    struct fl_error error;
    stub_site_open(&site, NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(&site, "state/seen.json", bad[i]);
        ck_assert_msg(fl_sitestore_load_seen(&site.store, &found, &error) == FL_EFORMAT, "%s",
                      bad[i]);
        ck_assert(strstr(error.text, "seen.json") != NULL);
    }
    stub_site_close(&site);
}
END_TEST

static void keep(const struct stub_site *site, uint64_t job, uint32_t version, uint64_t limit,
                 char *path)
{
    struct fl_adapter *adapter = stub_start(version);
    struct fl_error error;
    fl_assert_ok(fl_sitestore_keep_adapter(&site->store, job, version, adapter, "# card\n", limit,
                                           path, &error),
                 &error);
    fl_adapter_destroy(&adapter);
}

static bool has(const struct stub_site *site, const char *name)
{
    char path[FL_PATH_BYTES];
    path_in(site, name, path);
    return fl_path_exists(path);
}

START_TEST(the_newest_adapter_and_some_before_it_stay)
{
    struct stub_site site;
    struct fl_adapter *newest = stub_start(11), *found;
    struct fl_error error;
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    keep(&site, 44, 1, 3, path); /* another job, whose versions count apart */
    for (uint32_t version = 8; version <= 11; version++)
        keep(&site, 4, version, 3, path);
    ck_assert(has(&site, "adapters/4/adapter_model.safetensors") &&
              has(&site, "adapters/4/README.md"));
    ck_assert(!has(&site, "adapters/4@8") && has(&site, "adapters/4@9") &&
              has(&site, "adapters/4@10") && has(&site, "adapters/4@11"));
    ck_assert(has(&site, "adapters/44@1"));
    fl_assert_ok(fl_adapter_load(path, NULL, &found, &error), &error);
    ck_assert_int_eq(memcmp(found->modules[0].a, newest->modules[0].a, 4 * 4 * 8), 0);
    fl_adapter_destroy(&found);
    fl_adapter_destroy(&newest);
    stub_site_close(&site);
}
END_TEST

START_TEST(what_a_crash_left_among_the_adapters_counts_for_nothing)
{
    struct stub_site site;
    uint32_t found[4];
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    keep(&site, 4, 1, 3, path);
    keep(&site, 4, 2, 3, path);
    path_in(&site, "adapters/4@2.tmp.99", path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    keep(&site, 4, 3, 3, path);
    ck_assert(has(&site, "adapters/4@1") && has(&site, "adapters/4@2") &&
              has(&site, "adapters/4@3"));
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 4, 1, found, 4), 2);
    ck_assert(found[0] == 3 && found[1] == 2);
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 4, 0, found, 1), 1);
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 4, 3, found, 4), 0);
    stub_site_close(&site);
}
END_TEST

static enum fl_status try_to_keep(const struct stub_site *site, uint64_t job, uint32_t version,
                                  uint64_t limit)
{
    struct fl_adapter *adapter = stub_start(version);
    struct fl_error error;
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_sitestore_keep_adapter(&site->store, job, version, adapter,
                                                      "# card\n", limit, path, &error);
    fl_adapter_destroy(&adapter);
    return status;
}

/* A keeping that ends between its two places: whoever can use it can give it back. */
START_TEST(the_newest_adapter_stands_under_its_number_before_it_can_be_used)
{
    struct stub_site site;
    struct fl_adapter *first = stub_start(1), *used;
    struct fl_error error;
    uint32_t found[4];
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    keep(&site, 4, 1, 3, path);
    put(&site, "adapters/4@2", "in the way");
    ck_assert_int_ne(try_to_keep(&site, 4, 2, 3), FL_OK);
    fl_assert_ok(fl_adapter_load(path, NULL, &used, &error), &error);
    ck_assert_int_eq(memcmp(used->modules[0].a, first->modules[0].a, 4 * 4 * 8), 0);
    put(&site, "adapters/5", "in the way");
    ck_assert_int_ne(try_to_keep(&site, 5, 2, 3), FL_OK);
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 5, 0, found, 4), 1);
    ck_assert_uint_eq(found[0], 2);
    fl_adapter_destroy(&used);
    fl_adapter_destroy(&first);
    stub_site_close(&site);
}
END_TEST

START_TEST(only_the_newest_is_kept_when_one_is_wanted)
{
    struct stub_site site;
    uint32_t found[4];
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    keep(&site, 4, 1, 1, path);
    keep(&site, 4, 2, 1, path);
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 4, 0, found, 4), 1);
    ck_assert_uint_eq(found[0], 2);
    ck_assert_uint_eq(count_in(&site, "adapters", NULL), 2); /* and the newest without a number */
    stub_site_close(&site);
}
END_TEST

START_TEST(a_version_that_is_made_again_stays_beside_those_of_higher_numbers)
{
    struct stub_site site;
    uint32_t found[4];
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    for (uint32_t version = 1; version <= 4; version++)
        keep(&site, 4, version, 2, path);
    keep(&site, 4, 2, 2, path);
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 4, 0, found, 4), 2);
    ck_assert(found[0] == 4 && found[1] == 2);
    keep(&site, 4, 3, 1, path);
    ck_assert_uint_eq(fl_sitestore_versions(&site.store, 4, 0, found, 4), 1);
    ck_assert_uint_eq(found[0], 3);
    stub_site_close(&site);
}
END_TEST

/* Some numbered adapter is whole, and what stands in adapters/4/ is one of them. */
static void ck_whole_versions(const struct stub_site *site)
{
    uint32_t found[4], whole = 0;
    char path[FL_PATH_BYTES], name[32];
    struct fl_error error;
    struct fl_adapter *used, *numbered, *expected;
    path_in(site, "adapters/4", path);
    fl_assert_ok(fl_adapter_load(path, NULL, &used, &error), &error);
    uint32_t count = fl_sitestore_versions(&site->store, 4, 0, found, 4);
    bool owned = false;
    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(name, sizeof(name), "adapters/4@%u", found[i]);
        path_in(site, name, path);
        if (fl_adapter_load(path, NULL, &numbered, &error) != FL_OK)
            continue;
        expected = stub_start(found[i]);
        ck_assert_mem_eq(numbered->modules[0].a, expected->modules[0].a, 4 * 4 * 8);
        owned = owned || memcmp(numbered->modules[0].a, used->modules[0].a, 4 * 4 * 8) == 0;
        whole++;
        fl_adapter_destroy(&expected);
        fl_adapter_destroy(&numbered);
    }
    ck_assert_uint_ge(whole, 1);
    ck_assert(owned);
    fl_adapter_destroy(&used);
}

/* In a process of its own, which goes no further than the first write or fsync that the disk
   refuses. Deaths between two steps are the simulator's (sim --walk). */
START_TEST(a_site_that_keeps_one_version_has_one_whichever_write_of_the_next_fails)
{
    long n = 0;
    for (bool ended = true; ended; n++) {
        struct stub_site site;
        char path[FL_PATH_BYTES];
        stub_site_open(&site, NULL);
        keep(&site, 4, 1, 1, path);
        ck_whole_versions(&site);
        pid_t child = fork();
        if (child == 0) {
            fl_fs_fail_write_at(n);
            enum fl_status status = try_to_keep(&site, 4, 2, 1);
            _exit(fl_fs_fault_fired() ? 1 : status == FL_OK ? 0 : 2);
        }
        int code = 0;
        ck_assert(child > 0 && waitpid(child, &code, 0) == child && WIFEXITED(code));
        ck_assert_int_le(WEXITSTATUS(code), 1);
        ended = WEXITSTATUS(code) == 1;
        ck_whole_versions(&site);
        stub_site_close(&site);
    }
    ck_assert_int_gt(n, 4);
}
END_TEST

START_TEST(a_site_has_keys_and_one_daemon)
{
    struct stub_site site;
    struct fl_sitestore first, second;
    struct fl_error error;
    char empty[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    fl_assert_ok(fl_sitestore_open(site.directory, true, &first, &error), &error);
    ck_assert_int_eq(fl_sitestore_open(site.directory, true, &second, &error), FL_EBUSY);
    fl_assert_ok(fl_sitestore_open(site.directory, false, &second, &error), &error);
    fl_sitestore_close(&second);
    fl_sitestore_close(&first);
    fl_assert_ok(fl_sitestore_open(site.directory, true, &first, &error), &error);
    fl_sitestore_close(&first);
    fl_test_directory(empty);
    ck_assert_int_eq(fl_sitestore_open(empty, false, &first, &error), FL_ENOTFOUND);
    ck_assert(strstr(error.text, "join") != NULL);
    ck_assert_int_eq(fl_sitestore_open("/nowhere", false, &first, &error), FL_ENOTFOUND);
    stub_site_close(&site);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_delta_is_kept_until_it_is_forgotten);
    tcase_add_test(tc, a_round_that_only_evaluated_is_kept_without_a_delta);
    tcase_add_test(tc, a_delta_never_lies_on_the_disk_in_the_clear);
    tcase_add_test(tc, a_damaged_delta_is_removed_and_the_work_done_again);
    tcase_add_test(tc, a_delta_under_another_name_is_not_taken);
    tcase_add_test(tc, forgetting_removes_the_rounds_of_one_job_up_to_one);
    tcase_add_test(tc, what_was_seen_survives);
    tcase_add_test(tc, a_damaged_record_of_what_was_seen_is_told);
    tcase_add_test(tc, the_newest_adapter_and_some_before_it_stay);
    tcase_add_test(tc, what_a_crash_left_among_the_adapters_counts_for_nothing);
    tcase_add_test(tc, the_newest_adapter_stands_under_its_number_before_it_can_be_used);
    tcase_add_test(tc, only_the_newest_is_kept_when_one_is_wanted);
    tcase_add_test(tc, a_version_that_is_made_again_stays_beside_those_of_higher_numbers);
    tcase_add_test(tc, a_site_that_keeps_one_version_has_one_whichever_write_of_the_next_fails);
    tcase_add_test(tc, a_site_has_keys_and_one_daemon);
}

FL_TEST_MAIN("worker_sitestore", add_tests)
