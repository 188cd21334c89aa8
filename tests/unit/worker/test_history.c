/*
 * What a site's status says of earlier runs.
 * Method: an audit log as the daemon writes it, folders of adapters, then rubbish in the log.
 */
#include "worker/history.h"

#include <stdio.h>
#include <string.h>

#include "base/audit.h"
#include "base/json.h"
#include "crypto/audit_keys.h"
#include "runner.h"
#include "stub_site.h"

#define NOON_MS 1764331200123 /* 2025-11-28T12:00:00.123Z */

static struct fl_error error;
static struct fl_history history;

static void path_in(const struct stub_site *site, const char *name, char *out)
{
    fl_assert_ok(fl_sitestore_path(&site->store, name, out, &error), &error);
}

static struct fl_audit *log_open(const struct stub_site *site)
{
    struct fl_audit *log = NULL;
    char path[FL_PATH_BYTES];
    const struct fl_audit_signer signer = fl_audit_signer_of(site->store.keys);
    path_in(site, "audit.log", path);
    fl_assert_ok(fl_audit_open(path, &signer, &log, &error), &error);
    return log;
}

static void sent(struct fl_audit *log, uint64_t job, uint32_t round)
{
    char sha256[FL_HASH_HEX_BYTES];
    snprintf(sha256, sizeof(sha256), "%064u", round);
    const struct fl_field fields[] = {FL_U64("job", job),       FL_U64("round", round),
                                      FL_U64("attempt", 1),     FL_U64("bytes", 1000 + round),
                                      FL_STR("sha256", sha256), {.kind = FL_FIELD_END}};
    fl_assert_ok(fl_audit_append(log, NOON_MS + round, "update_sent", fields, &error), &error);
}

static void kept(struct fl_audit *log, uint64_t job, uint32_t version)
{
    const struct fl_field fields[] = {
        FL_U64("job", job), FL_U64("version", version), {.kind = FL_FIELD_END}};
    fl_assert_ok(fl_audit_append(log, NOON_MS, "version_kept", fields, &error), &error);
}

/* An adapter is there. */
static void put_adapter(const struct stub_site *site, const char *job)
{
    char name[64], path[FL_PATH_BYTES];
    snprintf(name, sizeof(name), "adapters/%s", job);
    path_in(site, name, path);
    fl_assert_ok(fl_fs_make_directory(path, 0700, &error), &error);
    snprintf(name, sizeof(name), "adapters/%s/adapter_model.safetensors", job);
    path_in(site, name, path);
    fl_assert_ok(fl_fs_write(path, "x", 1, 0600, &error), &error);
}

static void load(const struct stub_site *site)
{
    fl_assert_ok(fl_history_load(site->store.site, &history, &error), &error);
}

START_TEST(a_site_without_a_log_has_no_history)
{
    struct stub_site site;
    stub_site_open(&site, NULL);
    load(&site);
    ck_assert_uint_eq(history.sent_count, 0);
    ck_assert_str_eq(history.adapter, "");
    json_t *status = json_object();
    fl_history_put(&history, status);
    ck_assert_uint_eq(json_array_size(json_object_get(status, "sent")), 0);
    ck_assert(json_is_null(json_object_get(status, "adapter")));
    json_decref(status);
    stub_site_close(&site);
}
END_TEST

START_TEST(what_left_the_site_is_there_after_a_restart)
{
    struct stub_site site;
    stub_site_open(&site, NULL);
    struct fl_audit *log = log_open(&site);
    for (uint32_t round = 1; round <= FL_SENT_KEPT + 3; round++)
        sent(log, 7, round);
    fl_audit_close(&log);
    load(&site);
    ck_assert_uint_eq(history.sent_count, FL_SENT_KEPT + 3);
    ck_assert_uint_eq(fl_history_kept(&history), FL_SENT_KEPT);
    const struct fl_kept_sent *newest = fl_history_newest(&history, 0);
    ck_assert_uint_eq(newest->key.job, 7);
    ck_assert_uint_eq(newest->key.round, FL_SENT_KEPT + 3);
    ck_assert_uint_eq(newest->key.attempt, 1);
    ck_assert_uint_eq(newest->bytes, 1000 + FL_SENT_KEPT + 3);
    ck_assert_int_eq(newest->wall_ms, NOON_MS + FL_SENT_KEPT + 3);
    ck_assert_uint_eq(fl_history_newest(&history, FL_SENT_KEPT - 1)->key.round, 4);

    json_t *status = json_object();
    fl_history_put(&history, status);
    const json_t *first = json_array_get(json_object_get(status, "sent"), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(first, "round")), 4);
    ck_assert_int_eq(json_integer_value(json_object_get(first, "at_ms")), NOON_MS + 4);
    ck_assert_str_eq(json_string_value(json_object_get(first, "sha256")),
                     "0000000000000000000000000000000000000000000000000000000000000004");
    json_decref(status);
    stub_site_close(&site);
}
END_TEST

START_TEST(the_newest_adapter_is_the_last_one_kept_that_is_still_there)
{
    struct stub_site site;
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    struct fl_audit *log = log_open(&site);
    kept(log, 4, 1);
    kept(log, 4, 2);
    kept(log, 5, 1);
    load(&site);
    ck_assert_str_eq(history.adapter, "");
    put_adapter(&site, "4");
    load(&site);
    path_in(&site, "adapters/4", path);
    ck_assert_str_eq(history.adapter, path);
    ck_assert_uint_eq(history.version, 2);
    put_adapter(&site, "5");
    load(&site);
    ck_assert_uint_eq(history.job, 5);
    ck_assert_uint_eq(history.version, 1);
    kept(log, 4, 1); /* a coordinator that went back to an earlier version */
    load(&site);
    ck_assert_uint_eq(history.job, 4);
    ck_assert_uint_eq(history.version, 1);
    fl_audit_close(&log);
    stub_site_close(&site);
}
END_TEST

START_TEST(lines_that_cannot_be_read_are_passed_over)
{
    static const char rubbish[] =
        "{\"event\":\"update_sent\",\"job\":\"x\",\"bytes\":-4,\"ts\":7}\n"
        "\"event\":\"update_sent\"\n\n[\"event\":\"version_kept\"]\n"
        "{\"name\":\"\\\"event\\\":\\\"update_sent\\\"\",\"event\":\"offer_refused\"}\n"
        "{\"event\":\"version_kept\",\"job\":99999999999999999999}\n"
        "{\"event\":\"update_sent\",\"job\":3,\"round\":2,\"bytes\":5,\"ts\":\"yesterday\"}\n"
        "{\"event\":\"update_sent\",\"job\":3,\"rou";
    struct stub_site site;
    char path[FL_PATH_BYTES];
    stub_site_open(&site, NULL);
    path_in(&site, "audit.log", path);
    fl_assert_ok(fl_fs_write(path, rubbish, sizeof(rubbish) - 1, 0600, &error), &error);
    load(&site);
    ck_assert_uint_eq(history.sent_count, 2);
    ck_assert_uint_eq(fl_history_newest(&history, 0)->key.round, 2);
    ck_assert_uint_eq(fl_history_newest(&history, 0)->bytes, 5);
    ck_assert_int_eq(fl_history_newest(&history, 0)->wall_ms, 0);
    ck_assert_uint_eq(fl_history_newest(&history, 1)->bytes, 0);
    ck_assert_str_eq(history.adapter, "");
    stub_site_close(&site);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_site_without_a_log_has_no_history);
    tcase_add_test(tc, what_left_the_site_is_there_after_a_restart);
    tcase_add_test(tc, the_newest_adapter_is_the_last_one_kept_that_is_still_there);
    tcase_add_test(tc, lines_that_cannot_be_read_are_passed_over);
}

FL_TEST_MAIN("worker/history", add_tests)
