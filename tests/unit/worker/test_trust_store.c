/*
 * Goal: what a site keeps of its partners survives, has one form, and is refused when damaged; no
 * list is taken that is older than one taken before.
 */
#include "worker/trust_store.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "runner.h"

static char site[FL_PATH_BYTES];
static struct fl_error error;

static void setup(void)
{
    fl_test_directory(site);
}

static struct fl_identity identity_of(uint8_t number)
{
    struct fl_identity identity;
    memset(&identity, number + 9, sizeof(identity)); /* no point of low order */
    return identity;
}

static enum fl_status pin(const char *name, uint8_t number)
{
    const struct fl_identity identity = identity_of(number);
    return fl_trust_store_pin(site, name, &identity, NULL, &error);
}

static void put(const char *name, const char *text)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, site, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0600, &error), &error);
}

static void get(const char *name, struct fl_buf *out)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, site, name, &error), &error);
    fl_assert_ok(fl_fs_read(path, 1u << 20, out, &error), &error);
}

static enum fl_status load(enum fl_partner_file which, uint32_t *count)
{
    struct fl_partners list;
    const enum fl_status status = fl_partners_load(site, which, &list, &error);
    *count = list.count;
    fl_partners_free(&list);
    return status;
}

START_TEST(pins_are_kept_in_one_form_sorted_by_name)
{
    uint32_t count = 0;
    struct fl_buf before, after;
    const struct fl_identity other = identity_of(9);
    ck_assert_int_eq(load(FL_PARTNERS_PINNED, &count), FL_OK);
    ck_assert_uint_eq(count, 0);
    fl_assert_ok(pin("ward", 1), &error);
    fl_assert_ok(pin("bank", 2), &error);
    fl_assert_ok(fl_trust_store_pin(site, "clinic", &other, &count, &error), &error);
    ck_assert_uint_eq(count, 3);
    get("pins.txt", &before);
    ck_assert_msg(strncmp(fl_buf_text(&before), "fedlora-pins-v1\nbank fl1:", 25) == 0, "%s",
                  fl_buf_text(&before));
    fl_assert_ok(pin("ward", 1), &error); /* once more changes nothing */
    fl_assert_ok(pin("archive", 3), &error);
    fl_assert_ok(fl_trust_store_unpin(site, "archive", &error), &error);
    get("pins.txt", &after);
    ck_assert_str_eq(fl_buf_text(&before), fl_buf_text(&after));
    fl_buf_free(&before);
    fl_buf_free(&after);
}
END_TEST

START_TEST(a_pin_changes_only_by_being_taken_away_first)
{
    struct fl_identity half = identity_of(1);
    half.x25519[0] ^= 1;
    fl_assert_ok(pin("clinic", 1), &error);
    ck_assert_int_eq(pin("clinic", 2), FL_EREFUSED);
    ck_assert(strstr(error.text, "`roster unpin clinic` first") != NULL);
    ck_assert_int_eq(fl_trust_store_pin(site, "clinic", &half, NULL, &error), FL_EREFUSED);
    ck_assert_int_eq(pin("clinique", 1), FL_EREFUSED);
    ck_assert(strstr(error.text, "this key is pinned as 'clinic'") != NULL);
    ck_assert_int_eq(pin("../clinic", 3), FL_EFORMAT);
    ck_assert_int_eq(pin("", 3), FL_EFORMAT);
    fl_assert_ok(fl_trust_store_unpin(site, "clinic", &error), &error);
    ck_assert_int_eq(fl_trust_store_unpin(site, "clinic", &error), FL_ENOTFOUND);
    fl_assert_ok(pin("clinic", 2), &error);
}
END_TEST

START_TEST(a_write_that_fails_leaves_the_pins_as_they_were)
{
    uint32_t count;
    fl_assert_ok(pin("clinic", 1), &error);
    fl_fs_fail_write_at(0);
    ck_assert_int_eq(pin("ward", 2), FL_EIO);
    fl_fs_fail_sync_at(0);
    ck_assert_int_eq(fl_trust_store_unpin(site, "clinic", &error), FL_EIO);
    fl_assert_ok(load(FL_PARTNERS_PINNED, &count), &error);
    ck_assert_uint_eq(count, 1);
}
END_TEST

#define HEX "0101010101010101010101010101010101010101010101010101010101010101"
#define HEY "0202020202020202020202020202020202020202020202020202020202020202"
#define HEZ "abababababababababababababababababababababababababababababababab"

START_TEST(damage_is_refused_with_its_place)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "does not begin with"},
        {"fedlora-pins-v1\nclinic " HEX "\n", "does not begin with"},
        {"fedlora-first-use-v1\nclinic " HEX, "first-use.txt:2: not a whole line"},
        {"fedlora-first-use-v1\nclinic\n", "first-use.txt:2: not a line"},
        {"fedlora-first-use-v1\n\n", "first-use.txt:2: not a line"},
        {"fedlora-first-use-v1\n../c " HEX "\n", "first-use.txt:2: not a line"},
        {"fedlora-first-use-v1\nclinic " HEX "0\n", "not 64 hex digits"},
        {"fedlora-first-use-v1\nclinic  " HEX "\n", "not 64 hex digits"},
        {"fedlora-first-use-v1\nclinic " HEX "\r\n", "not 64 hex digits"},
        {"fedlora-first-use-v1\nclinic " HEX "\nclinic " HEY "\n", ":3: a name or a key"},
        {"fedlora-first-use-v1\nclinic " HEX "\nward " HEX "\n", ":3: a name or a key"},
        {"fedlora-first-use-v1\nward " HEX "\nclinic " HEY "\n", "damaged (order"},
        {"fedlora-first-use-v1\nclinic AB" HEZ "\n", "not 64 hex digits"},
        {"fedlora-first-use-v1\nclinic "
         "ABabababababababababababababababababababababababababababababab"
         "ab\n",
         "damaged (order or spelling"},
    };
    uint32_t count;
    fl_assert_ok(pin("clinic", 1), &error); /* makes the folder */
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put("state/first-use.txt", bad[i].text);
        ck_assert_msg(load(FL_PARTNERS_FIRST_USE, &count) == FL_EFORMAT, "%s", bad[i].text);
        ck_assert_msg(strstr(error.text, bad[i].words) != NULL, "'%s' lacks '%s'", error.text,
                      bad[i].words);
        ck_assert_msg(strstr(error.text, site) == NULL, "%s", error.text);
    }
    put("state/first-use.txt", "fedlora-first-use-v1\nclinic " HEZ "\nward " HEX "\n");
    fl_assert_ok(load(FL_PARTNERS_FIRST_USE, &count), &error);
    ck_assert_uint_eq(count, 2);
    put("pins.txt", "fedlora-pins-v1\nclinic fl1:nothing\n");
    ck_assert_int_eq(load(FL_PARTNERS_PINNED, &count), FL_EFORMAT);
    ck_assert(strstr(error.text, "pins.txt:2: ") != NULL);
    ck_assert_int_eq(pin("ward", 2), FL_EFORMAT); /* damage is not written over */
}
END_TEST

START_TEST(there_is_a_most_of_partners)
{
    struct fl_partners list = {0};
    struct fl_identity identity = identity_of(1);
    enum fl_status status = FL_OK;
    for (uint32_t i = 0; i < FL_WORKERS_MAX && status == FL_OK; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%04u", i);
        fl_store_u32(identity.ed25519, i);
        status = fl_partners_add(&list, name, &identity);
    }
    fl_store_u32(identity.ed25519, FL_WORKERS_MAX);
    const enum fl_status more = fl_partners_add(&list, "more", &identity);
    for (uint32_t i = 1; i < list.count; i++)
        ck_assert_int_lt(strcmp(list.rows[i - 1].name, list.rows[i].name), 0);
    fl_partners_free(&list);
    ck_assert_int_eq(status, FL_OK);
    ck_assert_int_eq(more, FL_ERANGE);
}
END_TEST

/* ---- the authority's list ---- */

static enum fl_status accept_list(const struct fl_authority *signer, const uint8_t *pinned,
                                  uint64_t number, const char *name)
{
    struct fl_buf text;
    struct fl_member_list list = {0}, taken = {0};
    char line[FL_NAME_BYTES + FL_IDENTITY_TEXT_BYTES], identity[FL_IDENTITY_TEXT_BYTES];
    const struct fl_identity member = identity_of(1);
    fl_identity_encode(&member, identity);
    snprintf(line, sizeof(line), "%s %s\n", name, identity);
    fl_buf_init(&text, FL_MEMBERS_TEXT_MAX);
    enum fl_status status = fl_member_list_read(line, strlen(line), &list, &error);
    if (status == FL_OK)
        status = fl_member_list_sign(&list, number, signer, &text);
    if (status == FL_OK)
        status = fl_trust_store_accept(site, pinned, &text, "new.txt", &taken, &error);
    fl_member_list_free(&list);
    fl_member_list_free(&taken);
    fl_buf_free(&text);
    return status;
}

static uint64_t number_in_force(const uint8_t *pinned)
{
    struct fl_member_list list;
    const enum fl_status status = fl_trust_store_list(site, pinned, false, &list, &error);
    const uint64_t number = list.number;
    fl_member_list_free(&list);
    fl_assert_ok(status, &error);
    return number;
}

START_TEST(numbers_of_lists_only_grow)
{
    struct fl_authority *mine = NULL, *other = NULL;
    ck_assert_int_eq(fl_authority_generate(fl_entropy_system(), &mine), FL_OK);
    ck_assert_int_eq(fl_authority_generate(fl_entropy_system(), &other), FL_OK);
    const uint8_t *key = fl_authority_public(mine), *second = fl_authority_public(other);
    fl_assert_ok(accept_list(mine, key, 7, "a"), &error);
    fl_assert_ok(accept_list(mine, key, 7, "a"), &error);
    ck_assert_int_eq(accept_list(mine, key, 6, "a"), FL_EREFUSED);
    ck_assert_msg(strcmp(error.text, "new.txt: list 6 is older than list 7, which was taken") == 0,
                  "%s", error.text);
    ck_assert_int_eq(accept_list(mine, key, 7, "b"), FL_EREFUSED);
    ck_assert_int_eq(accept_list(other, key, 9, "a"), FL_EREFUSED);
    ck_assert(number_in_force(key) == 7);
    fl_assert_ok(accept_list(mine, key, 8, "b"), &error);
    ck_assert(number_in_force(key) == 8);
    /* another authority's lists are counted apart, and this one's count is not forgotten */
    fl_assert_ok(accept_list(other, second, 1, "a"), &error);
    ck_assert(number_in_force(second) == 1);
    ck_assert_int_eq(accept_list(mine, key, 7, "a"), FL_EREFUSED);
    fl_authority_destroy(&mine);
    fl_authority_destroy(&other);
}
END_TEST

START_TEST(a_crash_between_list_and_mark_opens_no_way_back)
{
    struct fl_authority *mine = NULL;
    ck_assert_int_eq(fl_authority_generate(fl_entropy_system(), &mine), FL_OK);
    const uint8_t *key = fl_authority_public(mine);
    fl_assert_ok(accept_list(mine, key, 1, "a"), &error);
    fl_fs_fail_write_at(1); /* the list's text is the first write, the mark's the second */
    ck_assert_int_eq(accept_list(mine, key, 3, "a"), FL_EIO);
    ck_assert_int_eq(accept_list(mine, key, 2, "a"), FL_EREFUSED);
    ck_assert(number_in_force(key) == 3);
    fl_authority_destroy(&mine);
}
END_TEST

START_TEST(a_damaged_mark_lets_nothing_in)
{
    struct fl_authority *mine = NULL;
    struct fl_member_list list;
    char hex[FL_KEY_HEX_BYTES], name[64];
    static const char *const bad[] = {"", "{}", "{\"number\":0,\"hash\":\"" HEX "\"}",
                                      "{\"number\":2,\"hash\":\"01\"}", "{\"number\":\"2\"}"};
    ck_assert_int_eq(fl_authority_generate(fl_entropy_system(), &mine), FL_OK);
    const uint8_t *key = fl_authority_public(mine);
    fl_assert_ok(accept_list(mine, key, 1, "a"), &error);
    fl_hex(key, FL_KEY_BYTES, hex);
    snprintf(name, sizeof(name), "state/roster-%.32s.mark", hex);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(name, bad[i]);
        ck_assert_int_eq(fl_trust_store_list(site, key, true, &list, &error), FL_EFORMAT);
        fl_member_list_free(&list);
        ck_assert_int_eq(accept_list(mine, key, 2, "a"), FL_EFORMAT);
        ck_assert_msg(strstr(error.text, ".mark: damaged") != NULL, "%s", error.text);
    }
    fl_authority_destroy(&mine);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, pins_are_kept_in_one_form_sorted_by_name);
    tcase_add_test(tc, a_pin_changes_only_by_being_taken_away_first);
    tcase_add_test(tc, a_write_that_fails_leaves_the_pins_as_they_were);
    tcase_add_test(tc, damage_is_refused_with_its_place);
    tcase_add_test(tc, there_is_a_most_of_partners);
    tcase_add_test(tc, numbers_of_lists_only_grow);
    tcase_add_test(tc, a_crash_between_list_and_mark_opens_no_way_back);
    tcase_add_test(tc, a_damaged_mark_lets_nothing_in);
}
FL_TEST_MAIN("worker_trust_store", add_tests)
