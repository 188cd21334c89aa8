/*
 * Goal: the authority's commands keep the contract: exit codes, files, numbers that only grow.
 * Method: the command's entry point with argument vectors, in directories of its own.
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

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, each_list_bears_the_next_number);
    tcase_add_test(tc, a_list_that_could_not_be_written_keeps_its_number_to_itself);
    tcase_add_test(tc, init_never_makes_a_second_authority_nor_counts_anew);
    tcase_add_test(tc, bad_input_is_3_and_a_wrong_authority_4);
    tcase_add_test(tc, a_number_that_is_lost_or_a_key_that_others_can_read_stops_signing);
}
FL_TEST_MAIN("cmd_roster", add_tests)
