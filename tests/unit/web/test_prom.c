/* Tests of the text format of metrics. */
#include "web/prom.h"

#include <math.h>

#include "runner.h"

static struct fl_buf out;

static void setup(void)
{
    fl_buf_init(&out, 4096);
}

static void teardown(void)
{
    fl_buf_free(&out);
}

START_TEST(a_family_has_help_and_type_and_samples)
{
    fl_prom_head(&out, "fedlora_workers", "gauge", "Sites by state.");
    fl_prom(&out, "fedlora_workers", "", 3, "state", "online", NULL);
    fl_prom(&out, "fedlora_workers", "", 0.25, NULL);
    fl_prom(&out, "fedlora_phase_seconds", "_sum", 1e15, "a", "b", "c", "d", NULL);
    ck_assert_str_eq(fl_buf_text(&out), "# HELP fedlora_workers Sites by state.\n"
                                        "# TYPE fedlora_workers gauge\n"
                                        "fedlora_workers{state=\"online\"} 3\n"
                                        "fedlora_workers 0.25\n"
                                        "fedlora_phase_seconds_sum{a=\"b\",c=\"d\"} "
                                        "1000000000000000\n");
}
END_TEST

START_TEST(numbers_that_are_none_have_their_names)
{
    fl_prom(&out, "x", "", (double)NAN, NULL);
    fl_prom(&out, "x", "", (double)INFINITY, NULL);
    fl_prom(&out, "x", "", -(double)INFINITY, NULL);
    fl_prom(&out, "x", "", 1e300, NULL);
    ck_assert_str_eq(fl_buf_text(&out), "x NaN\nx +Inf\nx -Inf\nx 1e+300\n");
}
END_TEST

START_TEST(a_label_cannot_leave_its_quotes)
{
    fl_prom(&out, "x", "", 1, "worker", "a\"b\\c\nd\x01\xff\xc3\xa9", NULL);
    ck_assert_str_eq(fl_buf_text(&out), "x{worker=\"a\\\"b\\\\c\\nd \xef\xbf\xbd\xc3\xa9\"} 1\n");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_family_has_help_and_type_and_samples);
    tcase_add_test(tc, numbers_that_are_none_have_their_names);
    tcase_add_test(tc, a_label_cannot_leave_its_quotes);
}

FL_TEST_MAIN("web.prom", add_tests)
