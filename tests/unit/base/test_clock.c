#include "base/clock.h"

#include "runner.h"

START_TEST(the_system_clock_does_not_run_backwards)
{
    const struct fl_clock *clock = fl_clock_system();
    int64_t before = fl_clock_now(clock);
    double seconds = fl_clock_seconds();
    ck_assert_int_ge(fl_clock_now(clock), before);
    ck_assert(fl_clock_seconds() >= seconds);
    ck_assert_int_gt(fl_clock_wall(clock), 1700000000000);
}
END_TEST

START_TEST(time_is_written_as_rfc_3339)
{
    char text[FL_TIME_TEXT_BYTES];
    fl_time_text(0, text);
    ck_assert_str_eq(text, "1970-01-01T00:00:00.000Z");
    fl_time_text(1709210096789, text);
    ck_assert_str_eq(text, "2024-02-29T12:34:56.789Z");
    fl_time_text(-1, text);
    ck_assert_str_eq(text, "1969-12-31T23:59:59.999Z");
    fl_time_text(INT64_MAX, text); /* no crash, whatever it says */
    fl_time_text(INT64_MIN, text);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_system_clock_does_not_run_backwards);
    tcase_add_test(tc, time_is_written_as_rfc_3339);
}

FL_TEST_MAIN("base.clock", add_tests)
