/*
 * Goal: a cohort is joined only when its members are who they should be, in each mode, and every
 * refusal names the member and the rule.
 * Method: a site's directory with real keys, an authority and lists that it signs; cohorts of
 * adverts with one thing wrong at a time.
 */
#include "worker/trust.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "runner.h"
#include "worker/trust_store.h"

enum { BANK, CLINIC, LIBRARY, WARD, STRANGER, SITES };

static const char *const names[SITES] = {"bank", "clinic", "library", "ward", "stranger"};
static struct fl_identity identities[SITES];
static struct fl_authority *authority;
static char site[FL_PATH_BYTES], list_path[FL_PATH_BYTES], key[FL_AUTHORITY_TEXT_BYTES];
static struct fl_siteconf *conf;
static struct fl_trust *trust;
static struct fl_error error;
static struct fl_secagg_advert adverts[FL_COHORT_MAX + 1];
static uint32_t count;

static void setup(void)
{
    fl_test_directory(site);
    fl_assert_ok(fl_path_join(list_path, site, "roster.txt", &error), &error);
    for (int i = 0; i < SITES; i++) {
        struct fl_keys *keys = NULL;
        ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &keys), FL_OK);
        identities[i] = *fl_keys_public(keys);
        fl_keys_destroy(&keys);
    }
    ck_assert_int_eq(fl_authority_generate(fl_entropy_system(), &authority), FL_OK);
    fl_authority_encode(fl_authority_public(authority), key);
}

static void teardown(void)
{
    fl_trust_close(&trust);
    fl_siteconf_free(&conf);
    fl_authority_destroy(&authority);
}

/* The bank's site under these lines of [policy]; '@' stands for the authority's key. */
static void open_site(const char *policy)
{
    char text[1024];
    const char *at = strchr(policy, '@');
    fl_trust_close(&trust);
    fl_siteconf_free(&conf);
    const int before = (int)(at ? at - policy : (ptrdiff_t)strlen(policy));
    const int length = snprintf(text, sizeof(text), "[policy]\n%.*s%s%s", before, policy,
                                at ? key : "", at ? at + 1 : "");
    conf = fl_calloc(1, sizeof(*conf));
    ck_assert(conf != NULL);
    fl_assert_ok(fl_siteconf_parse(text, (size_t)length, "worker.conf", conf, &error), &error);
    fl_assert_ok(fl_trust_open(site, conf, identities[BANK].ed25519, &trust, &error), &error);
}

static void add(const char *name, int whose)
{
    struct fl_secagg_advert *advert = &adverts[count++];
    memset(advert, 0, sizeof(*advert));
    snprintf(advert->name, sizeof(advert->name), "%s", name);
    memcpy(advert->identity, identities[whose].ed25519, FL_KEY_BYTES);
}

/* A cohort of sites under their own names, ended by -1. */
static void gather(const int *sites)
{
    count = 0;
    for (; *sites >= 0; sites++)
        add(names[*sites], *sites);
}
#define GATHER(...) gather((const int[]){__VA_ARGS__, -1})

static void joins(uint32_t minimum)
{
    fl_assert_ok(fl_trust_check(trust, adverts, count, minimum, NULL, &error), &error);
}

static void refuses(uint32_t minimum, const char *words)
{
    ck_assert_msg(fl_trust_check(trust, adverts, count, minimum, NULL, &error) == FL_EREFUSED,
                  "%s: %s", words, error.text);
    ck_assert_int_eq(error.status, FL_EREFUSED);
    ck_assert_msg(strncmp(error.text, "roster: ", 8) == 0, "%s", error.text);
    ck_assert_msg(strstr(error.text, words) != NULL, "'%s' lacks '%s'", error.text, words);
    ck_assert_msg(strstr(error.text, site) == NULL, "'%s' holds a path", error.text);
}

static void says(enum fl_trust_standing standing, const char *words)
{
    char text[FL_TRUST_TEXT_BYTES];
    ck_assert_msg(fl_trust_describe(trust, text) == standing, "%s", text);
    ck_assert_msg(strstr(text, words) != NULL, "'%s' lacks '%s'", text, words);
    ck_assert_msg(strchr(text, '\n') == NULL, "%s", text);
}

/* The signed text of a list of the first `members` sites; revoked may be -1. */
static void sign(uint64_t number, int members, int revoked, struct fl_buf *out)
{
    struct fl_buf text;
    struct fl_member_list list = {0};
    char identity[FL_IDENTITY_TEXT_BYTES];
    fl_buf_init(&text, 4096);
    fl_buf_init(out, FL_MEMBERS_TEXT_MAX);
    for (int i = 0; i < members; i++) {
        fl_identity_encode(&identities[i], identity);
        fl_buf_printf(&text, "%s %s%s\n", names[i], identity, i == revoked ? " revoked" : "");
    }
    enum fl_status status = fl_member_list_read(fl_buf_text(&text), text.length, &list, &error);
    if (status == FL_OK)
        status = fl_member_list_sign(&list, number, authority, out);
    fl_member_list_free(&list);
    fl_buf_free(&text);
    ck_assert_int_eq(status, FL_OK);
}

static enum fl_status accept_list(uint64_t number, int members, int revoked)
{
    struct fl_buf text;
    struct fl_member_list list = {0};
    sign(number, members, revoked, &text);
    const enum fl_status status = fl_trust_store_accept(site, fl_authority_public(authority), &text,
                                                        "list", &list, &error);
    fl_member_list_free(&list);
    fl_buf_free(&text);
    return status;
}

/* As someone who can write to the directory would, or a person by hand. */
static void put_list(uint64_t number, int members, int revoked)
{
    struct fl_buf text;
    sign(number, members, revoked, &text);
    const enum fl_status status = fl_fs_write(list_path, text.data, text.length, 0644, &error);
    fl_buf_free(&text);
    fl_assert_ok(status, &error);
}

static void pin(int whose)
{
    fl_assert_ok(fl_trust_store_pin(site, names[whose], &identities[whose], NULL, &error), &error);
}

/* ---- every mode ---- */

START_TEST(a_list_of_members_must_be_sound_in_itself)
{
    open_site("");
    GATHER(BANK, CLINIC, LIBRARY);
    add("clinic", WARD);
    refuses(3, "two members are called 'clinic'");
    GATHER(BANK, CLINIC, LIBRARY);
    add("other", CLINIC);
    refuses(3, "'clinic' and 'other' have the same key");
    GATHER(CLINIC, LIBRARY, WARD);
    refuses(3, "this site is not a member");
    GATHER(BANK, CLINIC, LIBRARY);
    memset(adverts[1].name, 'x', sizeof(adverts[1].name));
    refuses(3, "member 2 has no valid name");
    snprintf(adverts[1].name, sizeof(adverts[1].name), "../x");
    refuses(3, "member 2 has no valid name");
    count = 0;
    refuses(1, "this site is not a member");
    count = FL_COHORT_MAX + 1;
    refuses(3, "101 members; at most 100");
    GATHER(BANK, CLINIC, LIBRARY);
    refuses(4, "3 members, at least 4");
    joins(3);
}
END_TEST

START_TEST(partners_that_are_known_must_be_there)
{
    for (int i = CLINIC; i <= WARD; i++)
        pin(i);
    open_site("known_sites = clinic, ward\nmin_known = 2\n");
    GATHER(BANK, CLINIC, LIBRARY, STRANGER);
    refuses(3, "min_known = 2, but 1 of known_sites");
    GATHER(BANK, CLINIC, LIBRARY, WARD);
    joins(3);
    /* this site itself is no partner of its own */
    open_site("known_sites = bank,clinic,ward\nmin_known = 2\n");
    GATHER(BANK, CLINIC, LIBRARY);
    refuses(3, "min_known = 2, but 1 of known_sites");
    /* a cohort that was refused leaves nothing behind */
    GATHER(BANK, CLINIC, STRANGER);
    refuses(3, "min_known");
    GATHER(BANK, CLINIC, WARD);
    add("other", STRANGER);
    joins(3);
}
END_TEST

/* Else a coordinator would only have to call its own sites by those names. */
START_TEST(a_name_alone_makes_no_known_partner)
{
    open_site("known_sites = clinic, ward\nmin_known = 1\n");
    says(FL_TRUST_MISSING, "min_known = 1, but 0 of known_sites are there");
    GATHER(BANK, LIBRARY);
    add("clinic", STRANGER);
    refuses(3, "min_known = 1, but 0 of known_sites are in this cohort, verified");
    pin(CLINIC);
    refuses(3, "'clinic' has another key than the one pinned for it");
    GATHER(BANK, LIBRARY, CLINIC);
    joins(3);
    says(FL_TRUST_FIRST_USE, "1 pinned");
}
END_TEST

START_TEST(a_pin_is_never_contradicted)
{
    static const char *const modes[] = {"", "roster = pinned\n", "authority = @\n"};
    ck_assert_int_eq(accept_list(1, SITES, -1), FL_OK);
    pin(CLINIC);
    pin(LIBRARY);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        open_site(modes[i]);
        GATHER(BANK, LIBRARY, WARD);
        add("clinic", STRANGER);
        refuses(2, "'clinic' has another key than the one pinned for it");
        GATHER(BANK, LIBRARY, WARD);
        add("clinique", CLINIC);
        refuses(2, "'clinique' has the key that is pinned for 'clinic'");
        GATHER(BANK, CLINIC, LIBRARY);
        joins(3);
    }
}
END_TEST

/* ---- authority ---- */

START_TEST(members_of_the_signed_list_are_let_in_and_nobody_else)
{
    open_site("authority = @\n");
    GATHER(BANK, CLINIC, LIBRARY);
    refuses(3, "no list of the authority is taken yet: `fedlora-worker roster accept");
    says(FL_TRUST_MISSING, "no list of the authority is taken yet");
    ck_assert_int_eq(accept_list(7, STRANGER, -1), FL_OK);
    joins(3);
    GATHER(BANK, CLINIC, STRANGER);
    refuses(3, "'stranger' is not in list 7");
    GATHER(BANK, LIBRARY);
    add("clinic", STRANGER);
    refuses(3, "'clinic' has another key than list 7 gives it");
    GATHER(BANK, LIBRARY);
    add("clinique", CLINIC);
    refuses(3, "'clinique' has the key that list 7 gives to 'clinic'");
    GATHER(BANK, LIBRARY);
    add("clinic", WARD);
    refuses(3, "'clinic' has the key that list 7 gives to 'ward'");
    GATHER(CLINIC, LIBRARY);
    add("banque", BANK);
    refuses(3, "'banque' has the key that list 7 gives to 'bank'");
    GATHER(BANK, CLINIC);
    refuses(3, "2 members, at least 3");
}
END_TEST

START_TEST(who_is_revoked_is_out_at_the_next_check)
{
    ck_assert_int_eq(accept_list(1, STRANGER, -1), FL_OK);
    open_site("authority = @\n");
    GATHER(BANK, CLINIC, LIBRARY);
    joins(3);
    ck_assert_int_eq(accept_list(2, STRANGER, CLINIC), FL_OK);
    refuses(3, "'clinic' is revoked in list 2");
    says(FL_TRUST_ROOTED, "list 2: 3 members, 1 revoked");
    GATHER(BANK, LIBRARY);
    add("clinique", CLINIC);
    refuses(3, "'clinique' has the key that list 2 gives to 'clinic'");
    GATHER(BANK, LIBRARY, WARD);
    joins(3);
    ck_assert_int_eq(accept_list(3, STRANGER, BANK), FL_OK);
    refuses(3, "'bank' is revoked in list 3");
    says(FL_TRUST_MISSING, "this site is revoked in it");
}
END_TEST

START_TEST(an_older_list_put_in_place_is_not_believed)
{
    open_site("authority = @\n");
    GATHER(BANK, CLINIC, LIBRARY);
    put_list(4, STRANGER, -1); /* by hand: taken at its first use */
    joins(3);
    put_list(3, STRANGER, -1);
    refuses(3, "roster.txt: list 3 is older than list 4");
    says(FL_TRUST_MISSING, "list 3 is older than list 4, which was taken");
    put_list(4, LIBRARY + 1, -1);
    refuses(3, "says something else than the list 4 that was taken");
    put_list(5, STRANGER, -1);
    joins(3);
    ck_assert_int_eq(unlink(list_path), 0);
    refuses(3, "no list of the authority is taken yet");
    put_list(4, STRANGER, -1);
    refuses(3, "list 4 is older than list 5");
}
END_TEST

START_TEST(a_list_of_another_authority_or_a_damaged_one_is_not_believed)
{
    struct fl_authority *mine = authority;
    open_site("authority = @\n");
    GATHER(BANK, CLINIC, LIBRARY);
    authority = NULL;
    ck_assert_int_eq(fl_authority_generate(fl_entropy_system(), &authority), FL_OK);
    put_list(9, STRANGER, -1);
    fl_authority_destroy(&authority);
    authority = mine;
    refuses(3, "roster.txt: the list is signed by another authority");
    fl_assert_ok(fl_fs_write(list_path, "bank\n", 5, 0644, &error), &error);
    refuses(3, "roster.txt: not a signed list of members");
    says(FL_TRUST_MISSING, "not a signed list");
    put_list(1, STRANGER, -1); /* the other's number 9 is nothing to this one */
    joins(3);
}
END_TEST

START_TEST(the_statement_tells_the_fingerprint_and_what_a_list_lacks)
{
    char digits[FL_FINGERPRINT_TEXT_BYTES];
    fl_authority_fingerprint(fl_authority_public(authority), digits);
    open_site("authority = @\n");
    says(FL_TRUST_MISSING, digits);
    ck_assert_int_eq(accept_list(1, STRANGER, -1), FL_OK);
    open_site("authority = @\n");
    says(FL_TRUST_ROOTED, digits);
    says(FL_TRUST_ROOTED, "list 1: 4 members, 0 revoked");
    open_site("authority = @\nmin_cohort = 5\n");
    says(FL_TRUST_MISSING, "a cohort needs 5");
    open_site("authority = @\nknown_sites = clinic,libary\nmin_known = 2\n");
    says(FL_TRUST_MISSING, "min_known = 2, but 1 of known_sites");
    open_site("authority = @\nknown_sites = clinic,library\nmin_known = 2\n");
    says(FL_TRUST_ROOTED, "list 1");
    identities[BANK] = identities[STRANGER];
    open_site("authority = @\n");
    says(FL_TRUST_MISSING, "this site is not in it");
}
END_TEST

/* ---- pinned ---- */

START_TEST(only_pinned_members_count_towards_the_minimum)
{
    open_site("roster = pinned\n");
    says(FL_TRUST_MISSING, "0 pinned partners; a cohort needs 3 with this site");
    GATHER(BANK, CLINIC, LIBRARY, WARD);
    refuses(3,
            "1 of 4 members are pinned (this site counted), at least 3 must be; 'clinic' is not");
    pin(CLINIC);
    refuses(3, "2 of 4 members are pinned (this site counted), at least 3 must be; 'library'");
    says(FL_TRUST_MISSING, "1 pinned partners");
    pin(LIBRARY);
    joins(3); /* the ward takes part without counting */
    says(FL_TRUST_ROOTED, "2 pinned partners");
    refuses(4, "'ward' is not");
    pin(BANK);
    refuses(4, "3 of 4 members are pinned"); /* a pin of this site itself counts once */
    fl_assert_ok(fl_trust_store_unpin(site, "library", &error), &error);
    refuses(3, "2 of 4 members are pinned");
}
END_TEST

START_TEST(known_partners_must_be_pinned_to_count_as_known)
{
    pin(CLINIC);
    pin(LIBRARY);
    open_site("roster = pinned\nknown_sites = clinic,ward\nmin_known = 2\n");
    says(FL_TRUST_MISSING, "min_known = 2, but 1 of known_sites");
    GATHER(BANK, CLINIC, LIBRARY, WARD);
    refuses(3, "min_known = 2, but 1 of known_sites are in this cohort, verified");
    pin(WARD);
    joins(3);
}
END_TEST

START_TEST(damaged_pins_refuse_every_cohort)
{
    char path[FL_PATH_BYTES];
    static const char *const modes[] = {"", "roster = pinned\n"};
    fl_assert_ok(fl_path_join(path, site, "pins.txt", &error), &error);
    fl_assert_ok(fl_fs_write(path, "clinic\n", 7, 0600, &error), &error);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        open_site(modes[i]);
        says(FL_TRUST_MISSING, "pins.txt: does not begin with");
        GATHER(BANK, CLINIC, LIBRARY);
        refuses(1, "pins.txt: does not begin with");
    }
}
END_TEST

/* ---- first use ---- */

START_TEST(a_name_keeps_the_key_it_first_came_with)
{
    open_site("");
    says(FL_TRUST_FIRST_USE, "protects against a curious coordinator only");
    says(FL_TRUST_FIRST_USE, "0 partners remembered");
    GATHER(BANK, CLINIC, LIBRARY);
    joins(3);
    says(FL_TRUST_FIRST_USE, "2 partners remembered");
    open_site(""); /* as after a restart */
    says(FL_TRUST_FIRST_USE, "2 partners remembered");
    joins(3);
    GATHER(BANK, LIBRARY);
    add("clinic", STRANGER);
    refuses(3, "'clinic' has another key than when it was first met");
    GATHER(BANK, LIBRARY);
    add("clinique", CLINIC);
    refuses(3, "'clinique' has the key that was first met as 'clinic'");
    GATHER(BANK, LIBRARY);
    add("clinic", STRANGER);
    fl_assert_ok(fl_trust_store_unpin(site, "clinic", &error), &error);
    joins(3);
    GATHER(BANK, LIBRARY, CLINIC);
    refuses(3, "'clinic' has another key");
}
END_TEST

START_TEST(what_is_pinned_outdoes_what_was_first_met)
{
    open_site("");
    GATHER(BANK, LIBRARY);
    add("clinic", STRANGER);
    joins(3); /* a coordinator that lied from the start */
    pin(CLINIC);
    refuses(3, "'clinic' has another key than the one pinned for it");
    GATHER(BANK, LIBRARY, CLINIC);
    joins(3);
    says(FL_TRUST_FIRST_USE, "2 partners remembered, 1 pinned");
}
END_TEST

START_TEST(a_cohort_whose_keys_cannot_be_remembered_is_not_joined)
{
    char state[FL_PATH_BYTES];
    open_site("");
    GATHER(BANK, CLINIC, LIBRARY);
    fl_fs_fail_write_at(0);
    ck_assert_int_eq(fl_trust_check(trust, adverts, count, 3, NULL, &error), FL_EIO);
    ck_assert(strncmp(error.text, "roster: ", 8) == 0);
    fl_fs_fail_sync_at(0);
    ck_assert_int_eq(fl_trust_check(trust, adverts, count, 3, NULL, &error), FL_EIO);
    says(FL_TRUST_FIRST_USE, "0 partners remembered");
    joins(3);
    fl_assert_ok(fl_path_join(state, site, "state/first-use.txt", &error), &error);
    fl_assert_ok(fl_fs_write(state, "", 0, 0600, &error), &error);
    refuses(3, "state/first-use.txt: does not begin with");
}
END_TEST

START_TEST(a_mark_that_cannot_be_kept_lets_no_list_be_used)
{
    put_list(4, STRANGER, -1);
    open_site("authority = @\n");
    GATHER(BANK, CLINIC, LIBRARY);
    fl_fs_fail_sync_at(0);
    ck_assert_int_eq(fl_trust_check(trust, adverts, count, 3, NULL, &error), FL_EIO);
    joins(3);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_list_of_members_must_be_sound_in_itself);
    tcase_add_test(tc, partners_that_are_known_must_be_there);
    tcase_add_test(tc, a_name_alone_makes_no_known_partner);
    tcase_add_test(tc, a_pin_is_never_contradicted);
    tcase_add_test(tc, members_of_the_signed_list_are_let_in_and_nobody_else);
    tcase_add_test(tc, who_is_revoked_is_out_at_the_next_check);
    tcase_add_test(tc, an_older_list_put_in_place_is_not_believed);
    tcase_add_test(tc, a_list_of_another_authority_or_a_damaged_one_is_not_believed);
    tcase_add_test(tc, the_statement_tells_the_fingerprint_and_what_a_list_lacks);
    tcase_add_test(tc, only_pinned_members_count_towards_the_minimum);
    tcase_add_test(tc, known_partners_must_be_pinned_to_count_as_known);
    tcase_add_test(tc, damaged_pins_refuse_every_cohort);
    tcase_add_test(tc, a_name_keeps_the_key_it_first_came_with);
    tcase_add_test(tc, what_is_pinned_outdoes_what_was_first_met);
    tcase_add_test(tc, a_cohort_whose_keys_cannot_be_remembered_is_not_joined);
    tcase_add_test(tc, a_mark_that_cannot_be_kept_lets_no_list_be_used);
}
FL_TEST_MAIN("worker_trust", add_tests)
