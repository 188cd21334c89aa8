/* Tests of who may ask over HTTP, and where it may be served. */
#include "web/access.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "runner.h"

static const char token[] = "correct-horse-battery-staple";
static char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
static struct fl_web_access access_;
static struct fl_error error;

static void put_token(const char *text, mode_t mode)
{
    fl_assert_ok(fl_path_join(path, directory, "http.token", &error), &error);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0600, &error), &error);
    ck_assert_int_eq(chmod(path, mode), 0);
}

static void setup(void)
{
    fl_test_directory(directory);
    put_token("correct-horse-battery-staple\n", 0600);
}

static enum fl_web_decision with(const char *authorization)
{
    return fl_web_access_decide(&access_, "anything", authorization);
}

START_TEST(what_is_no_address_is_refused)
{
    static const char *const bad[] = {"",
                                      "7480",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      ":7480",
                                      "127.0.0.1:65536",
                                      "[::1:7480",
                                      "example.org:7480",
                                      "::1:7480",
                                      "tcp://127.0.0.1:7480",
                                      "[]:7480",
                                      "127.0.0.1:74 80",
                                      "1.2.3:7480",
                                      "127.0.0.1.127.0.0.1.127.0.0.1.127.0.0.1.127."
                                      "0.0.1.127.0.0.1.127.0.0.1.127.0.0.1:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(fl_web_access_open(bad[i], "", &access_, &error) == FL_EFORMAT, "%s", bad[i]);
}
END_TEST

START_TEST(only_loopback_is_served_without_a_token)
{
    static const char *const own[] = {"127.0.0.1:7480", "127.9.9.9:0", "localhost:1", "[::1]:7480",
                                      "[::ffff:127.0.0.1]:7480"};
    static const char *const open_[] = {"0.0.0.0:7480", "[::]:7480", "10.0.0.1:7480",
                                        "[::ffff:10.0.0.1]:7480", "128.0.0.1:1"};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        fl_assert_ok(fl_web_access_open(own[i], "", &access_, &error), &error);
        ck_assert(access_.loopback && !access_.has_token);
    }
    for (size_t i = 0; i < sizeof open_ / sizeof open_[0]; i++) {
        ck_assert_int_eq(fl_web_access_open(open_[i], "", &access_, &error), FL_EREFUSED);
        ck_assert_ptr_nonnull(strstr(error.text, "token_file"));
        fl_assert_ok(fl_web_access_open(open_[i], path, &access_, &error), &error);
        ck_assert(!access_.loopback && access_.has_token);
    }
}
END_TEST

START_TEST(a_token_file_is_held_to_the_rules_of_key_files)
{
    char link_[FL_PATH_BYTES + 8];
    put_token("correct-horse-battery-staple\n", 0644);
    ck_assert_int_eq(fl_web_access_open("0.0.0.0:1", path, &access_, &error), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "chmod 600"));
    put_token("correct-horse-battery-staple\n", 0600);
    (void)snprintf(link_, sizeof link_, "%s.link", path);
    ck_assert_int_eq(symlink(path, link_), 0);
    ck_assert_int_eq(fl_web_access_open("0.0.0.0:1", link_, &access_, &error), FL_EREFUSED);
    ck_assert_int_eq(chmod(directory, 0777), 0);
    ck_assert_int_eq(fl_web_access_open("0.0.0.0:1", path, &access_, &error), FL_EREFUSED);
    ck_assert_int_eq(chmod(directory, 0700), 0);
    ck_assert_int_eq(fl_web_access_open("0.0.0.0:1", "/nowhere/token", &access_, &error),
                     FL_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(error.text, "make it: umask 077;"));
}
END_TEST

START_TEST(a_token_is_one_line_of_16_to_160_printable_characters)
{
    char text[256];
    static const char *const bad[] = {"",
                                      "short",
                                      "fifteen-letters",
                                      "sixteen letters!",
                                      "sixteen-letters!\nmore",
                                      "sixteen-letters\x01"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_token(bad[i], 0600);
        ck_assert_msg(fl_web_access_open("0.0.0.0:1", path, &access_, &error) != FL_OK, "%s",
                      bad[i]);
    }
    static const size_t lengths[] = {15, 16, 160, 161, 190, 191};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t length = lengths[i];
        memset(text, 'x', length);
        text[length] = '\0';
        put_token(text, 0600);
        ck_assert_int_eq(fl_web_access_open("0.0.0.0:1", path, &access_, &error) == FL_OK,
                         length >= 16 && length <= 160);
    }
}
END_TEST

START_TEST(the_token_is_taken_as_bearer_and_as_password)
{
    fl_assert_ok(fl_web_access_open("127.0.0.1:1", path, &access_, &error), &error);
    ck_assert_int_eq(with(NULL), FL_WEB_NO_TOKEN);
    ck_assert_int_eq(with("Bearer correct-horse-battery-staple"), FL_WEB_ALLOWED);
    ck_assert_int_eq(with("bearer  correct-horse-battery-staple"), FL_WEB_ALLOWED);
    /* "x:correct-horse-battery-staple", ":correct-horse-battery-staple" */
    ck_assert_int_eq(with("Basic eDpjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl"), FL_WEB_ALLOWED);
    ck_assert_int_eq(with("Basic OmNvcnJlY3QtaG9yc2UtYmF0dGVyeS1zdGFwbGU="), FL_WEB_ALLOWED);
}
END_TEST

START_TEST(anything_but_the_token_is_refused)
{
    char text[2048];
    static const char *const bad[] = {
        "", "Bearer", "Bearer ", "Bearer correct-horse-battery-stapl",
        "Bearer correct-horse-battery-staple ", "Bearer correct-horse-battery-staplf",
        "correct-horse-battery-staple", "Digest correct-horse-battery-staple", "Basic", "Basic ===",
        /* without a colon */
        "Basic Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==",
        /* token as the user's name */
        "Basic Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZTo="};
    fl_assert_ok(fl_web_access_open("127.0.0.1:1", path, &access_, &error), &error);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(with(bad[i]) == FL_WEB_WRONG_TOKEN, "%s", bad[i]);
    memset(text, 'A', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memcpy(text, "Basic ", 6);
    ck_assert_int_eq(with(text), FL_WEB_WRONG_TOKEN);
}
END_TEST

START_TEST(without_a_token_only_names_of_this_machine_are_answered)
{
    static const char *const own[] = {"localhost", "localhost:7480", "LOCALHOST:1",
                                      "127.0.0.1", "127.0.0.1:7480", "[::1]:7480"};
    static const char *const other[] = {
        "", "example.org", "localhost.example.org", "127.0.0.1.x", "10.0.0.1:7480", "[::2]"};
    fl_assert_ok(fl_web_access_open("127.0.0.1:7480", "", &access_, &error), &error);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        ck_assert_int_eq(fl_web_access_decide(&access_, own[i], NULL), FL_WEB_ALLOWED);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        ck_assert_int_eq(fl_web_access_decide(&access_, other[i], NULL), FL_WEB_OTHER_HOST);
    ck_assert_int_eq(fl_web_access_decide(&access_, NULL, NULL), FL_WEB_OTHER_HOST);
}
END_TEST

START_TEST(the_token_itself_is_not_kept)
{
    fl_assert_ok(fl_web_access_open("127.0.0.1:1", path, &access_, &error), &error);
    ck_assert_ptr_null(memmem(&access_, sizeof access_, token, sizeof token - 1));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, what_is_no_address_is_refused);
    tcase_add_test(tc, only_loopback_is_served_without_a_token);
    tcase_add_test(tc, a_token_file_is_held_to_the_rules_of_key_files);
    tcase_add_test(tc, a_token_is_one_line_of_16_to_160_printable_characters);
    tcase_add_test(tc, the_token_is_taken_as_bearer_and_as_password);
    tcase_add_test(tc, anything_but_the_token_is_refused);
    tcase_add_test(tc, without_a_token_only_names_of_this_machine_are_answered);
    tcase_add_test(tc, the_token_itself_is_not_kept);
}

FL_TEST_MAIN("web.access", add_tests)
