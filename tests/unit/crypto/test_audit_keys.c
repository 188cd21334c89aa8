/*
 * Goal: a log signed with a site's keys is good to who has only the public key, and to nobody else.
 */
#include "crypto/audit_keys.h"

#include <string.h>
#include <unistd.h>

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

static struct fl_keys *make_keys(void)
{
    struct fl_keys *keys = NULL;
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &keys), FL_OK);
    return keys;
}

static void append(const struct fl_keys *keys, int count)
{
    struct fl_audit *log;
    const struct fl_audit_signer signer = fl_audit_signer_of(keys);
    fl_assert_ok(fl_audit_open(path, &signer, &log, &error), &error);
    enum fl_status status = FL_OK;
    for (int i = 0; i < count && status == FL_OK; i++)
        status = fl_audit_append(log, 1000, "x", NULL, &error);
    fl_audit_close(&log);
    fl_assert_ok(status, &error);
}

static enum fl_status verify_as(const char *key_text)
{
    uint8_t key[FL_AUDIT_KEY_BYTES];
    struct fl_audit_report report;
    fl_assert_ok(fl_audit_key_parse(key_text, key, &error), &error);
    enum fl_status status = fl_audit_verify(path, key, fl_audit_check_ed25519, &report, &error);
    ck_assert(status != FL_OK || report.is_signed);
    return status;
}

START_TEST(the_public_key_is_all_that_an_outsider_needs)
{
    struct fl_keys *keys = make_keys(), *other = make_keys();
    char hex[FL_KEY_HEX_BYTES], identity[FL_IDENTITY_TEXT_BYTES];
    append(keys, 3);
    fl_hex(fl_keys_public(keys)->ed25519, FL_KEY_BYTES, hex);
    fl_identity_encode(fl_keys_public(keys), identity);
    ck_assert_int_eq(verify_as(hex), FL_OK);
    ck_assert_int_eq(verify_as(identity), FL_OK);
    fl_identity_encode(fl_keys_public(other), identity);
    ck_assert_int_eq(verify_as(identity), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "audit.log:1: it is signed by another key"));
    fl_keys_destroy(&keys);
    fl_keys_destroy(&other);
}
END_TEST

/* Whoever can write the file but does not hold the key: a log with our key's name in it. */
START_TEST(a_forged_line_shows_though_its_hashes_fit)
{
    struct fl_keys *keys = make_keys(), *forger = make_keys();
    struct fl_audit_signer signer = fl_audit_signer_of(forger);
    struct fl_audit *log;
    char identity[FL_IDENTITY_TEXT_BYTES];
    memcpy(signer.key, fl_keys_public(keys)->ed25519, FL_AUDIT_KEY_BYTES);
    fl_assert_ok(fl_audit_open(path, &signer, &log, &error), &error);
    enum fl_status status = fl_audit_append(log, 1000, "x", NULL, &error);
    fl_audit_close(&log);
    fl_assert_ok(status, &error);
    fl_identity_encode(fl_keys_public(keys), identity);
    ck_assert_int_eq(verify_as(identity), FL_EFORMAT);
    char head[FL_PATH_BYTES + 8];
    (void)snprintf(head, sizeof(head), "%s.head", path);
    ck_assert_int_eq(unlink(head), 0);
    ck_assert_int_eq(verify_as(identity), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "audit.log:1: its signature is not good"));
    fl_keys_destroy(&keys);
    fl_keys_destroy(&forger);
}
END_TEST

START_TEST(what_is_no_key_is_refused)
{
    static const char *const texts[] = {"", "fl1:", "00", "fla1:AAAA", "zz"};
    uint8_t key[FL_AUDIT_KEY_BYTES];
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        ck_assert_int_eq(fl_audit_key_parse(texts[i], key, &error), FL_EFORMAT);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, make_path, NULL);
    tcase_add_test(tc, the_public_key_is_all_that_an_outsider_needs);
    tcase_add_test(tc, a_forged_line_shows_though_its_hashes_fit);
    tcase_add_test(tc, what_is_no_key_is_refused);
}

FL_TEST_MAIN("crypto.audit_keys", add_tests)
