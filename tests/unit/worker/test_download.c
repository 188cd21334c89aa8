/* A model fetched from a server on this machine: whole, continued, refused. */
#include "runner.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "worker/download.h"
#include "worker/engine/model.h"
#include "worker/http_server.h"

#define TINY   FL_TEST_SOURCE_DIR "/golden/tiny-llama/"
#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define GIT    "89abcdef0123456789abcdef0123456789abcdef"

enum { API, CONFIG, WEIGHTS, CDN, PAGES };

static struct fl_error error;
static struct fl_buf config, weights;
static char sha256[FL_HASH_HEX_BYTES], answer[2048], root[FL_PATH_BYTES], blob[FL_PATH_BYTES];
static struct fl_test_page pages[PAGES];
static struct fl_test_server server;
static struct fl_option_list only;
static struct fl_download download;
static struct fl_hfcache_name model;

static void setup(void)
{
    uint8_t hash[FL_HASH_BYTES];
    fl_test_directory(root);
    fl_assert_ok(fl_fs_read(TINY "config.json", 1 << 20, &config, &error), &error);
    fl_assert_ok(fl_fs_read(TINY "model.safetensors", 1 << 24, &weights, &error), &error);
    fl_sha256(weights.data, weights.length, hash);
    fl_hex(hash, sizeof hash, sha256);
    (void)snprintf(answer, sizeof answer,
                   "{\"sha\":\"" COMMIT "\",\"siblings\":["
                   "{\"rfilename\":\"config.json\",\"size\":%zu,\"blobId\":\"" GIT "\"},"
                   "{\"rfilename\":\"model.safetensors\",\"blobId\":\"" GIT "\","
                   "\"lfs\":{\"sha256\":\"%s\",\"size\":%zu}}]}",
                   config.length, sha256, weights.length);
    pages[API] = (struct fl_test_page){.path = "/api/models/org/tiny/revision/main?blobs=true",
                                       .body = answer,
                                       .length = strlen(answer)};
    pages[CONFIG] = (struct fl_test_page){.path = "/org/tiny/resolve/" COMMIT "/config.json",
                                          .body = config.data,
                                          .length = config.length};
    pages[WEIGHTS] = (struct fl_test_page){.path = "/org/tiny/resolve/" COMMIT "/model.safetensors",
                                           .location = "/cdn/blob"};
    pages[CDN] =
        (struct fl_test_page){.path = "/cdn/blob", .body = weights.data, .length = weights.length};
    fl_assert_ok(fl_hfcache_parse("org/tiny", &model, &error), &error);
    (void)snprintf(blob, sizeof blob, "%.3900s/models--org--tiny/blobs/%s", root, sha256);
}

static enum fl_status fetch(unsigned attempts)
{
    fl_test_server_start(&server, pages, PAGES);
    download = (struct fl_download){.endpoint = server.endpoint,
                                    .token = "hf_secret",
                                    .root = root,
                                    .only = &only,
                                    .attempts = attempts,
                                    .pause_ms = 1,
                                    .quiet = true};
    return fl_download(&download, &model, &error);
}

static void teardown(void)
{
    fl_test_server_stop(&server);
    fl_buf_free(&config);
    fl_buf_free(&weights);
}

static bool blob_exists(const char *end)
{
    char path[FL_PATH_BYTES + 16];
    (void)snprintf(path, sizeof path, "%s%s", blob, end);
    return fl_path_exists(path);
}

static void is_whole(void)
{
    struct fl_model *opened = NULL;
    struct fl_buf bytes;
    fl_assert_ok(fl_fs_read(blob, 1 << 24, &bytes, &error), &error);
    ck_assert_uint_eq(bytes.length, weights.length);
    ck_assert_mem_eq(bytes.data, weights.data, weights.length);
    fl_buf_free(&bytes);
    ck_assert(!blob_exists(".incomplete"));
    fl_assert_ok(fl_model_open(download.snapshot, &opened, &error), &error);
    fl_model_close(&opened);
}

START_TEST(a_model_is_fetched_into_the_cache)
{
    char path[FL_PATH_BYTES], target[FL_PATH_BYTES] = "";
    struct fl_buf ref;
    fl_assert_ok(fetch(1), &error);
    is_whole();
    ck_assert_uint_eq(download.files, 2);
    ck_assert_uint_eq(download.downloaded, config.length + weights.length);
    ck_assert_str_eq(download.commit, COMMIT);
    (void)snprintf(path, sizeof path, "%.3900s/models--org--tiny/refs/main", root);
    fl_assert_ok(fl_fs_read(path, 100, &ref, &error), &error);
    ck_assert_str_eq(fl_buf_text(&ref), COMMIT);
    fl_buf_free(&ref);
    (void)snprintf(path, sizeof path, "%.4000s/config.json", download.snapshot);
    ck_assert_int_gt(readlink(path, target, sizeof target - 1), 0);
    ck_assert_str_eq(target, "../../blobs/" GIT);
    ck_assert_str_eq(server.hits[API].authorization, "Bearer hf_secret");
}
END_TEST

START_TEST(what_is_there_is_not_fetched_again)
{
    fl_assert_ok(fetch(1), &error);
    fl_test_server_stop(&server);
    fl_assert_ok(fetch(1), &error);
    ck_assert_uint_eq(download.downloaded, 0);
    ck_assert_int_eq(server.hits[WEIGHTS].count, 0);
    is_whole();
}
END_TEST

START_TEST(a_broken_transfer_goes_on_where_it_broke)
{
    pages[CDN].cut = 1000;
    fl_assert_ok(fetch(3), &error);
    is_whole();
    ck_assert_int_eq(server.hits[CDN].count, 2);
    ck_assert_int_eq(server.hits[CDN].range, 1000);
    ck_assert_uint_eq(download.downloaded, config.length + weights.length);
}
END_TEST

START_TEST(the_next_run_goes_on_too)
{
    pages[CDN].cut = 1000;
    ck_assert_int_eq(fetch(1), FL_EIO);
    ck_assert(blob_exists(".incomplete"));
    ck_assert(!blob_exists(""));
    fl_test_server_stop(&server);
    pages[CDN].cut = 0;
    fl_assert_ok(fetch(1), &error);
    ck_assert_int_eq(server.hits[CDN].range, 1000);
    is_whole();
}
END_TEST

START_TEST(a_server_without_ranges_sends_all_again)
{
    pages[CDN].cut = 1000;
    pages[CDN].no_ranges = true;
    fl_assert_ok(fetch(2), &error);
    is_whole();
}
END_TEST

START_TEST(other_bytes_than_announced_are_thrown_away)
{
    weights.data[weights.length - 1] ^= 1;
    ck_assert_int_eq(fetch(3), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "SHA-256"));
    ck_assert_int_eq(server.hits[CDN].count, 1);
    ck_assert(!blob_exists("") && !blob_exists(".incomplete"));
    char path[FL_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%.4000s/model.safetensors", download.snapshot);
    ck_assert(!fl_path_exists(path));
}
END_TEST

START_TEST(more_and_fewer_bytes_than_announced_are_refused)
{
    static char longer[1 << 20];
    memcpy(longer, weights.data, weights.length);
    pages[CDN].body = longer;
    pages[CDN].length = weights.length + 1;
    ck_assert_int_eq(fetch(2), FL_EFORMAT);
    ck_assert(!blob_exists("") && !blob_exists(".incomplete"));
    fl_test_server_stop(&server);
    pages[CDN].length = weights.length - 1;
    ck_assert_int_eq(fetch(2), FL_EIO);
    ck_assert(!blob_exists(""));
}
END_TEST

static enum fl_status answers(int page, int status, unsigned attempts)
{
    pages[page].status = status;
    pages[page].location = NULL;
    return fetch(attempts);
}

START_TEST(refusals_and_failures_of_the_server_are_told_apart)
{
    ck_assert_int_eq(answers(API, 401, 3), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "HF_TOKEN"));
    ck_assert_int_eq(server.hits[API].count, 1);
    fl_test_server_stop(&server);
    ck_assert_int_eq(answers(API, 404, 3), FL_ENOTFOUND);
    fl_test_server_stop(&server);
    ck_assert_int_eq(answers(API, 503, 3), FL_EIO);
    ck_assert_int_eq(server.hits[API].count, 3);
    fl_test_server_stop(&server);
    pages[API].status = 0;
    ck_assert_int_eq(answers(WEIGHTS, 403, 3), FL_EREFUSED);
}
END_TEST

START_TEST(a_second_process_is_kept_out)
{
    char path[FL_PATH_BYTES];
    int fd = -1;
    (void)snprintf(path, sizeof path, "%.3900s/.locks/models--org--tiny", root);
    fl_assert_ok(fl_fs_make_directory(path, 0755, &error), &error);
    (void)snprintf(path, sizeof path, "%.3900s/.locks/models--org--tiny/fedlora.lock", root);
    fl_assert_ok(fl_fs_lock(path, &fd, &error), &error);
    ck_assert_int_eq(fetch(1), FL_EBUSY);
    close(fd);
}
END_TEST

START_TEST(only_https_and_this_machine_are_spoken_to)
{
    static const char *const bad[] = {"http://huggingface.co", "http://127.0.0.1.evil.example",
                                      "http://localhostx",     "http://127.0.0.1@evil.example",
                                      "ftp://127.0.0.1",       "file:///etc",
                                      "huggingface.co",        "",
                                      "https://user@host"};
    struct fl_http *http = NULL;
    fl_test_server_start(&server, pages, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(fl_http_open(bad[i], NULL, NULL, &http, &error) == FL_EUSAGE, "%s", bad[i]);
    fl_assert_ok(fl_http_open("http://localhost:1", NULL, NULL, &http, &error), &error);
    fl_http_close(&http);
    fl_assert_ok(fl_http_open("https://huggingface.co", NULL, NULL, &http, &error), &error);
    fl_http_close(&http);
}
END_TEST

START_TEST(a_stop_ends_the_attempts)
{
    const atomic_int stop = 1;
    fl_test_server_start(&server, pages, PAGES);
    download = (struct fl_download){.endpoint = server.endpoint,
                                    .root = root,
                                    .only = &only,
                                    .attempts = 5,
                                    .pause_ms = 60000,
                                    .stop = &stop,
                                    .quiet = true};
    ck_assert_int_eq(fl_download(&download, &model, &error), FL_ESTOPPED);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_model_is_fetched_into_the_cache);
    tcase_add_test(tc, what_is_there_is_not_fetched_again);
    tcase_add_test(tc, a_broken_transfer_goes_on_where_it_broke);
    tcase_add_test(tc, the_next_run_goes_on_too);
    tcase_add_test(tc, a_server_without_ranges_sends_all_again);
    tcase_add_test(tc, other_bytes_than_announced_are_thrown_away);
    tcase_add_test(tc, more_and_fewer_bytes_than_announced_are_refused);
    tcase_add_test(tc, refusals_and_failures_of_the_server_are_told_apart);
    tcase_add_test(tc, a_second_process_is_kept_out);
    tcase_add_test(tc, only_https_and_this_machine_are_spoken_to);
    tcase_add_test(tc, a_stop_ends_the_attempts);
}

FL_TEST_MAIN("download", add_tests)
