/* Tests of the roster: who gets in, once, and who does not. */
#include "coordinator/roster.h"

#include <string.h>

#include "runner.h"

static struct fl_store *store;
static struct fl_roster *roster;
static struct fl_keys *coordinator, *site;
static struct fl_error error;
static const int64_t now = 1000000;

static void setup(void)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_store_create(directory, &error), &error);
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
    fl_assert_ok(fl_roster_load(store, &roster, &error), &error);
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &coordinator), FL_OK);
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &site), FL_OK);
}

static void teardown(void)
{
    fl_keys_destroy(&site);
    fl_keys_destroy(&coordinator);
    fl_roster_free(&roster);
    fl_store_close(&store);
}

static void invite(const char *name, struct fl_token *token)
{
    fl_assert_ok(fl_roster_invite(roster, coordinator, name, 60000, now, token, &error), &error);
}

static void make_join(const struct fl_token *token, const struct fl_keys *keys,
                      struct fl_wire_join *join)
{
    memset(join, 0, sizeof *join);
    memcpy(join->invitation, token->invitation, sizeof join->invitation);
    memcpy(join->x25519, fl_keys_public(keys)->x25519, FL_KEY_BYTES);
    memcpy(join->ed25519, fl_keys_public(keys)->ed25519, FL_KEY_BYTES);
    strncpy(join->name, "whatever", sizeof join->name - 1);
    fl_join_mac(token->secret, fl_keys_public(coordinator)->x25519, fl_keys_public(keys),
                join->name, join->mac);
    fl_keys_sign(keys, FL_JOIN_LABEL, join->mac, sizeof join->mac, join->signature);
}

static enum fl_status join_at(const struct fl_wire_join *join, int64_t when)
{
    return fl_roster_join(roster, coordinator, join, join->x25519, when, &error);
}

START_TEST(a_token_enrols_one_site_under_the_invited_name)
{
    struct fl_token token;
    struct fl_wire_join join;
    invite("clinic", &token);
    make_join(&token, site, &join);
    fl_assert_ok(join_at(&join, now), &error);
    const struct fl_site *found = fl_roster_by_key(roster, join.x25519);
    ck_assert_ptr_nonnull(found);
    ck_assert_str_eq(found->name, "clinic");
    ck_assert_ptr_eq(found, fl_roster_by_name(roster, "clinic"));
    ck_assert_ptr_eq(found, fl_roster_by_id(roster, found->id));
    /* the same site may ask again: our answer may have been lost */
    fl_assert_ok(join_at(&join, now), &error);
    ck_assert_uint_eq(fl_roster_count(roster), 1);
}
END_TEST

START_TEST(a_used_token_admits_nobody_else)
{
    struct fl_token token;
    struct fl_wire_join join;
    struct fl_keys *other = NULL;
    invite("clinic", &token);
    make_join(&token, site, &join);
    fl_assert_ok(join_at(&join, now), &error);
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &other), FL_OK);
    make_join(&token, other, &join);
    ck_assert_int_eq(join_at(&join, now), FL_EREFUSED);
    ck_assert_uint_eq(fl_roster_count(roster), 1);
    fl_keys_destroy(&other);
}
END_TEST

START_TEST(an_expired_or_unknown_token_is_refused)
{
    struct fl_token token;
    struct fl_wire_join join;
    invite("clinic", &token);
    make_join(&token, site, &join);
    ck_assert_int_eq(join_at(&join, now + 60000), FL_EREFUSED);
    join.invitation[0] ^= 1;
    ck_assert_int_eq(join_at(&join, now), FL_EREFUSED);
    ck_assert_uint_eq(fl_roster_count(roster), 0);
}
END_TEST

START_TEST(a_wrong_proof_spends_the_invitation_after_five_tries)
{
    struct fl_token token;
    struct fl_wire_join join, good;
    invite("clinic", &token);
    make_join(&token, site, &good);
    join = good;
    join.mac[0] ^= 1;
    for (int i = 0; i < FL_INVITATION_TRIES; i++)
        ck_assert_int_eq(join_at(&join, now), FL_EREFUSED);
    ck_assert_int_eq(join_at(&good, now), FL_EREFUSED);
}
END_TEST

START_TEST(the_key_must_be_that_of_the_connection)
{
    struct fl_token token;
    struct fl_wire_join join;
    uint8_t other[FL_KEY_BYTES] = {1};
    invite("clinic", &token);
    make_join(&token, site, &join);
    ck_assert_int_eq(fl_roster_join(roster, coordinator, &join, other, now, &error), FL_EREFUSED);
}
END_TEST

START_TEST(the_database_holds_no_secret_of_a_token)
{
    struct fl_token token;
    struct fl_buf bytes;
    char path[FL_PATH_BYTES];
    static const char *const files[] = {"state.db", "state.db-wal"};
    invite("clinic", &token);
    for (size_t i = 0; i < 2; i++) {
        fl_assert_ok(fl_store_path(store, path, &error, "%s", files[i]), &error);
        if (!fl_path_exists(path))
            continue;
        fl_assert_ok(fl_fs_read(path, 1u << 24, &bytes, &error), &error);
        ck_assert_ptr_null(memmem(bytes.data, bytes.length, token.secret, sizeof token.secret));
        ck_assert_ptr_null(
            memmem(bytes.data, bytes.length, token.invitation, sizeof token.invitation));
        fl_buf_free(&bytes);
    }
}
END_TEST

START_TEST(a_revoked_site_returns_only_with_its_own_key)
{
    const struct fl_identity *identity = fl_keys_public(site);
    fl_assert_ok(fl_roster_add(roster, "clinic", identity, now, &error), &error);
    uint32_t id = fl_roster_by_name(roster, "clinic")->id;
    fl_assert_ok(fl_roster_revoke(roster, "clinic", now, &error), &error);
    ck_assert(fl_roster_by_name(roster, "clinic")->revoked);
    ck_assert_int_eq(fl_roster_add(roster, "clinic", fl_keys_public(coordinator), now, &error),
                     FL_EEXIST);
    ck_assert_ptr_nonnull(strstr(error.text, "new name"));
    ck_assert_int_eq(fl_roster_add(roster, "other", identity, now, &error), FL_EEXIST);
    fl_assert_ok(fl_roster_add(roster, "clinic", identity, now, &error), &error);
    ck_assert(!fl_roster_by_name(roster, "clinic")->revoked);
    ck_assert_uint_eq(fl_roster_by_name(roster, "clinic")->id, id);
}
END_TEST

START_TEST(names_that_are_no_names_are_refused)
{
    static const char *const bad[] = {"", "../x", "a b", ".hidden", "-x", "a/b"};
    struct fl_token token;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(fl_roster_add(roster, bad[i], fl_keys_public(site), now, &error),
                         FL_EINVAL);
        ck_assert_int_eq(fl_roster_invite(roster, coordinator, bad[i], 60000, now, &token, &error),
                         FL_EUSAGE);
    }
    ck_assert_int_eq(fl_roster_revoke(roster, "nobody", now, &error), FL_ENOTFOUND);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_token_enrols_one_site_under_the_invited_name);
    tcase_add_test(tc, a_used_token_admits_nobody_else);
    tcase_add_test(tc, an_expired_or_unknown_token_is_refused);
    tcase_add_test(tc, a_wrong_proof_spends_the_invitation_after_five_tries);
    tcase_add_test(tc, the_key_must_be_that_of_the_connection);
    tcase_add_test(tc, the_database_holds_no_secret_of_a_token);
    tcase_add_test(tc, a_revoked_site_returns_only_with_its_own_key);
    tcase_add_test(tc, names_that_are_no_names_are_refused);
}

FL_TEST_MAIN("coordinator.roster", add_tests)
