#include "base/process.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "runner.h"

START_TEST(a_process_with_secrets_leaves_no_core_dump_and_cannot_be_traced)
{
    struct rlimit limit;
    ck_assert_int_eq(unsetenv("FEDLORA_COREDUMP"), 0);
    ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 1);
    fl_process_no_dumps();
    ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_CORE, &limit), 0);
    ck_assert_uint_eq(limit.rlim_cur, 0);
    ck_assert_uint_eq(limit.rlim_max, 0);
}
END_TEST

START_TEST(who_hunts_a_bug_may_have_one)
{
    ck_assert_int_eq(setenv("FEDLORA_COREDUMP", "0", 1), 0);
    fl_process_no_dumps();
    ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 0);
    ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    ck_assert_int_eq(setenv("FEDLORA_COREDUMP", "1", 1), 0);
    fl_process_no_dumps();
    ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 1);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_process_with_secrets_leaves_no_core_dump_and_cannot_be_traced);
    tcase_add_test(tc, who_hunts_a_bug_may_have_one);
}

FL_TEST_MAIN("base.process", add_tests)
