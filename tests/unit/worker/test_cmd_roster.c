/*
 * Goal: the commands of the authority and of sites keep the contract: exit codes, files, numbers
 * that only grow. Method: the command's entry point with argument vectors, in directories of its
 * own.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "crypto/authority.h"
#include "runner.h"
#include "worker/commands.h"

#define WORDS_MAX 12

static struct fl_error error;
static char place[FL_PATH_BYTES], directory[FL_PATH_BYTES], members[FL_PATH_BYTES],
    list[FL_PATH_BYTES], key[FL_AUTHORITY_TEXT_BYTES];

static int run(const char *const *words)
{
    char *argv[WORDS_MAX + 2] = {(char *)(uintptr_t) "roster"};
    int argc = 1;
    for (; words[argc - 1]; argc++) {
        ck_assert_int_le(argc, WORDS_MAX);
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    }
    return fl_cmd_roster(argc, argv);
}
#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

static void write_members(const char *last)
{
    struct fl_buf text;
    fl_buf_init(&text, 4096);
    for (char name = 'a'; name < 'd'; name++) {
        struct fl_keys *keys = NULL;
        char identity[FL_IDENTITY_TEXT_BYTES];
        ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &keys), FL_OK);
        fl_identity_encode(fl_keys_public(keys), identity);
        fl_keys_destroy(&keys);
        fl_buf_printf(&text, "%c %s\n", name, identity);
    }
    fl_buf_printf(&text, "%s", last);
    fl_assert_ok(fl_fs_write(members, text.data, text.length, 0644, &error), &error);
    fl_buf_free(&text);
}

static void setup(void)
{
    struct fl_authority *authority = NULL;
    char path[FL_PATH_BYTES];
    fl_test_directory(place);
    fl_assert_ok(fl_path_join(directory, place, "authority", &error), &error);
    fl_assert_ok(fl_path_join(members, place, "members.txt", &error), &error);
    fl_assert_ok(fl_path_join(list, place, "roster.txt", &error), &error);
    fl_assert_ok(fl_path_join(path, directory, "authority.key", &error), &error);
    ck_assert_int_eq(RUN("init", "--dir", directory), 0);
    fl_assert_ok(fl_authority_load(path, &authority, &error), &error);
    fl_authority_encode(fl_authority_public(authority), key);
    fl_authority_destroy(&authority);
    write_members("");
}

static uint64_t number_of(const char *path)
{
    struct fl_buf text;
    struct fl_member_list signed_list = {0};
    fl_assert_ok(fl_fs_read(path, FL_MEMBERS_TEXT_MAX, &text, &error), &error);
    fl_assert_ok(fl_member_list_verify(fl_buf_text(&text), text.length, NULL, &signed_list, &error),
                 &error);
    const uint64_t number = signed_list.number;
    fl_member_list_free(&signed_list);
    fl_buf_free(&text);
    return number;
}

START_TEST(each_list_bears_the_next_number)
{
    for (uint64_t i = 1; i <= 3; i++) {
        ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 0);
        ck_assert(number_of(list) == i);
    }
    ck_assert_int_eq(RUN("verify", list, "--authority", key), 0);
    ck_assert_int_eq(RUN("verify", list, "--authority", key, "--at-least", "3"), 0);
    ck_assert_int_eq(RUN("verify", list, "--authority", key, "--at-least", "4"), 4);
    ck_assert_int_eq(RUN("show", list), 0);
    ck_assert_int_eq(RUN("show", list, "--json"), 0);
}
END_TEST

START_TEST(a_list_that_could_not_be_written_keeps_its_number_to_itself)
{
    char nowhere[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(nowhere, place, "missing/roster.txt", &error), &error);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", nowhere), 1);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 0);
    ck_assert(number_of(list) == 2);
}
END_TEST

START_TEST(init_never_makes_a_second_authority_nor_counts_anew)
{
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 0);
    ck_assert_int_eq(RUN("init", "--dir", directory, "--json"), 0);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 0);
    ck_assert_int_eq(RUN("verify", list, "--authority", key, "--at-least", "2"), 0);
}
END_TEST

START_TEST(bad_input_is_3_and_a_wrong_authority_4)
{
    char other[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(other, place, "other", &error), &error);
    ck_assert_int_eq(RUN("init", "--dir", other), 0);
    ck_assert_int_eq(RUN("sign", "--dir", other, "--list", members, "--out", list), 0);
    ck_assert_int_eq(RUN("verify", list, "--authority", key), 4);
    ck_assert_int_eq(RUN("verify", list, "--authority", "fla1:short"), 3);
    ck_assert_int_eq(RUN("verify", members, "--authority", key), 3);
    ck_assert_int_eq(RUN("show", members), 3);
    ck_assert_int_eq(RUN("show", place), 1);
    write_members("d fl1:nothing\n");
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 3);
    ck_assert_int_eq(RUN("sign", "--dir", directory), 2);
    ck_assert_int_eq(RUN("resign"), 2);
}
END_TEST

START_TEST(a_number_that_is_lost_or_a_key_that_others_can_read_stops_signing)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, directory, "number", &error), &error);
    fl_assert_ok(fl_fs_write(path, "many\n", 5, 0600, &error), &error);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 3);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 1);
    fl_assert_ok(fl_fs_write(path, "41\n", 3, 0600, &error), &error);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 0);
    ck_assert(number_of(list) == 42);
    fl_assert_ok(fl_path_join(path, directory, "authority.key", &error), &error);
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 4);
}
END_TEST

/* ---- at a site ---- */

static void make_site(char *site, const char *policy)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(site, place, "site", &error), &error);
    fl_assert_ok(fl_fs_make_directory(site, 0700, &error), &error);
    fl_assert_ok(fl_path_join(path, site, "worker.conf", &error), &error);
    fl_assert_ok(fl_fs_write(path, policy, strlen(policy), 0600, &error), &error);
}

START_TEST(a_site_takes_newer_lists_of_its_own_authority_only)
{
    char site[FL_PATH_BYTES], taken[FL_PATH_BYTES], older[FL_PATH_BYTES], policy[128];
    snprintf(policy, sizeof(policy), "[policy]\nauthority = %s\n", key);
    make_site(site, policy);
    fl_assert_ok(fl_path_join(taken, site, "roster.txt", &error), &error);
    fl_assert_ok(fl_path_join(older, place, "older.txt", &error), &error);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", older), 0);
    ck_assert_int_eq(RUN("sign", "--dir", directory, "--list", members, "--out", list), 0);
    ck_assert_int_eq(RUN("accept", list, "--dir", site), 0);
    ck_assert_int_eq(RUN("accept", list, "--dir", site, "--json"), 0);
    ck_assert_int_eq(RUN("accept", older, "--dir", site), 4);
    ck_assert(number_of(taken) == 2);
    ck_assert_int_eq(RUN("accept", members, "--dir", site), 3);
    ck_assert_int_eq(RUN("accept", place, "--dir", site), 1);
    ck_assert_int_eq(RUN("accept", list), 2);
    ck_assert_int_eq(RUN("accept", list, "--dir", place), 1);
    make_site(site, "[policy]\n");
    ck_assert_int_eq(RUN("accept", list, "--dir", site), 3);
    ck_assert(number_of(taken) == 2);
}
END_TEST

START_TEST(a_site_pins_and_forgets_partners)
{
    char site[FL_PATH_BYTES], identity[FL_IDENTITY_TEXT_BYTES], other[FL_IDENTITY_TEXT_BYTES];
    struct fl_keys *keys = NULL;
    make_site(site, "");
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &keys), FL_OK);
    fl_identity_encode(fl_keys_public(keys), identity);
    fl_keys_destroy(&keys);
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &keys), FL_OK);
    fl_identity_encode(fl_keys_public(keys), other);
    fl_keys_destroy(&keys);
    ck_assert_int_eq(RUN("pin", "clinic", identity, "--dir", site), 0);
    ck_assert_int_eq(RUN("pin", "clinic", identity, "--dir", site, "--json"), 0);
    ck_assert_int_eq(RUN("pin", "clinic", other, "--dir", site), 4);
    ck_assert_int_eq(RUN("pin", "ward", identity, "--dir", site), 4);
    ck_assert_int_eq(RUN("pin", "../ward", other, "--dir", site), 3);
    ck_assert_int_eq(RUN("pin", "ward", "fl1:short", "--dir", site), 3);
    ck_assert_int_eq(RUN("pin", "ward", "--dir", site), 2);
    ck_assert_int_eq(RUN("unpin", "ward", "--dir", site), 1);
    ck_assert_int_eq(RUN("unpin", "clinic", "--dir", site), 0);
    ck_assert_int_eq(RUN("pin", "clinic", other, "--dir", site), 0);
    ck_assert_int_eq(RUN("unpin", "clinic", "--dir", site, "--json"), 0);
    fl_assert_ok(fl_path_join(site, place, "nowhere", &error), &error);
    ck_assert_int_eq(RUN("pin", "clinic", other, "--dir", site), 1);
    ck_assert_int_eq(RUN("unpin", "clinic", "--dir", site), 1);
    ck_assert(!fl_path_exists(site));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, each_list_bears_the_next_number);
    tcase_add_test(tc, a_list_that_could_not_be_written_keeps_its_number_to_itself);
    tcase_add_test(tc, init_never_makes_a_second_authority_nor_counts_anew);
    tcase_add_test(tc, bad_input_is_3_and_a_wrong_authority_4);
    tcase_add_test(tc, a_number_that_is_lost_or_a_key_that_others_can_read_stops_signing);
    tcase_add_test(tc, a_site_takes_newer_lists_of_its_own_authority_only);
    tcase_add_test(tc, a_site_pins_and_forgets_partners);
}
FL_TEST_MAIN("cmd_roster", add_tests)
