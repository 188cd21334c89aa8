#include "base/status.h"

#include <errno.h>
#include <string.h>

#include "runner.h"

START_TEST(a_failure_returns_its_status_and_fills_one_harmless_line)
{
    struct fl_error error;
    ck_assert_int_eq(fl_fail(&error, FL_EFORMAT, "bad %s", "a\nb\033[2J"), FL_EFORMAT);
    ck_assert_str_eq(error.text, "bad a?b?[2J");
    ck_assert_int_eq(error.status, FL_EFORMAT);
    ck_assert_int_eq(fl_fail(NULL, FL_EBUSY, "nobody reads this"), FL_EBUSY);
}
END_TEST

START_TEST(a_long_message_is_cut_and_terminated)
{
    struct fl_error error;
    char text[2 * FL_ERROR_TEXT_BYTES];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    fl_fail(&error, FL_EIO, "%s", text);
    ck_assert_uint_eq(strlen(error.text), FL_ERROR_TEXT_BYTES - 1);
    fl_error_prefix(&error, "%s", text);
    ck_assert_uint_eq(strlen(error.text), FL_ERROR_TEXT_BYTES - 1);
    fl_fail_errno(&error, ENOSPC, "%s", text);
    ck_assert_uint_eq(strlen(error.text), FL_ERROR_TEXT_BYTES - 1);
}
END_TEST

START_TEST(errno_chooses_the_status)
{
    struct fl_error error;
    ck_assert_int_eq(fl_fail_errno(&error, ENOENT, "x"), FL_ENOTFOUND);
    ck_assert_int_eq(fl_fail_errno(&error, ENOSPC, "x"), FL_ENOSPC);
    ck_assert_int_eq(fl_fail_errno(&error, EDQUOT, "x"), FL_ENOSPC);
    ck_assert_int_eq(fl_fail_errno(&error, EEXIST, "x"), FL_EEXIST);
    ck_assert_int_eq(fl_fail_errno(&error, ENOMEM, "x"), FL_ENOMEM);
    ck_assert_int_eq(fl_fail_errno(&error, EACCES, "%s", "f"), FL_EIO);
    ck_assert_str_eq(error.text, "f: Permission denied");
}
END_TEST

START_TEST(a_prefix_goes_in_front)
{
    struct fl_error error;
    fl_fail(&error, FL_EFORMAT, "no name");
    fl_error_prefix(&error, "job %d", 3);
    ck_assert_str_eq(error.text, "job 3: no name");
    ck_assert_int_eq(error.status, FL_EFORMAT);
}
END_TEST

START_TEST(exit_codes_are_those_of_the_command_line_contract)
{
    ck_assert_int_eq(fl_exit_code(FL_OK), 0);
    ck_assert_int_eq(fl_exit_code(FL_EIO), 1);
    ck_assert_int_eq(fl_exit_code(FL_ENOTFOUND), 1);
    ck_assert_int_eq(fl_exit_code(FL_EUSAGE), 2);
    ck_assert_int_eq(fl_exit_code(FL_EFORMAT), 3);
    ck_assert_int_eq(fl_exit_code(FL_EREFUSED), 4);
    ck_assert_int_eq(fl_exit_code(FL_ETIMEOUT), 5);
}
END_TEST

START_TEST(every_status_has_a_name)
{
    for (int s = 0; s < FL_STATUS_COUNT; s++)
        ck_assert_str_ne(fl_status_text((enum fl_status)s), "unknown status");
    ck_assert_str_eq(fl_status_text(FL_STATUS_COUNT), "unknown status");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_failure_returns_its_status_and_fills_one_harmless_line);
    tcase_add_test(tc, a_long_message_is_cut_and_terminated);
    tcase_add_test(tc, errno_chooses_the_status);
    tcase_add_test(tc, a_prefix_goes_in_front);
    tcase_add_test(tc, exit_codes_are_those_of_the_command_line_contract);
    tcase_add_test(tc, every_status_has_a_name);
}

FL_TEST_MAIN("base.status", add_tests)
