#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "runner.h"

static int captured;
static char text[65536];

/* stderr into a memory file for the length of one test (a process of its own) */
static void capture_stderr(void)
{
    captured = memfd_create("stderr", MFD_CLOEXEC);
    ck_assert_int_ge(captured, 0);
    ck_assert_int_ge(dup2(captured, STDERR_FILENO), 0);
}

static const char *written(void)
{
    ssize_t got = pread(captured, text, sizeof(text) - 1, 0);
    ck_assert_int_ge(got, 0);
    text[got] = 0;
    return text;
}

static int count_lines(const char *lines)
{
    int count = 0;
    for (; *lines; lines++)
        count += *lines == '\n';
    return count;
}

START_TEST(a_line_is_one_json_object_with_typed_fields)
{
    struct fl_error error;
    json_t *line;
    fl_log(FL_LOG_INFO, "round_committed", "round 3 is committed", FL_U64("round", 3),
           FL_NUM("loss", 0.5), FL_I64("change", -2), FL_STR("site", "a\"b"), FL_STR("none", NULL));
    const char *got = written();
    fl_assert_ok(fl_json_parse(got, strlen(got), "line", &line, &error), &error);
    const char *event, *level, *site, *ts;
    ck_assert_int_eq(fl_json_string(line, "event", "", &event), FL_OK);
    ck_assert_str_eq(event, "round_committed");
    ck_assert_int_eq(fl_json_string(line, "level", "", &level), FL_OK);
    ck_assert_str_eq(level, "info");
    ck_assert_int_eq(fl_json_string(line, "site", "", &site), FL_OK);
    ck_assert_str_eq(site, "a\"b");
    ck_assert_int_eq(fl_json_string(line, "ts", "", &ts), FL_OK);
    ck_assert_uint_eq(strlen(ts), 24);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "round")), 3);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "change")), -2);
    ck_assert(json_is_null(json_object_get(line, "none")));
    json_decref(line);
}
END_TEST

START_TEST(text_is_for_people_and_obeys_no_peer)
{
    setenv("FEDLORA_LOG", "text", 1);
    fl_log(FL_LOG_WARN, "refused", "peer said \033[2J\nroot:", FL_STR("why", "\xff\r"));
    const char *got = written();
    ck_assert_ptr_nonnull(strstr(got, " warn  refused: peer said \\u001b[2J\\nroot: "
                                      "why=\"\\ufffd\\r\"\n"));
    ck_assert_int_eq(count_lines(got), 1);
}
END_TEST

START_TEST(a_long_string_is_cut_and_too_many_fields_are_left_out_whole)
{
    static char longest[20000];
    memset(longest, '\1', sizeof(longest) - 1);
    struct fl_field fields[41];
    for (int i = 0; i < 40; i++)
        fields[i] = FL_STR("field", longest);
    fields[40].kind = FL_FIELD_END;
    fl_log_fields(FL_LOG_ERROR, "big", longest, fields);
    const char *got = written();
    ck_assert_int_eq(count_lines(got), 1);
    ck_assert_uint_le(strlen(got), 8192);
    ck_assert_ptr_nonnull(strstr(got, "\"cut\":true}\n"));
}
END_TEST

START_TEST(lines_below_the_level_are_dropped)
{
    fl_log(FL_LOG_DEBUG, "quiet", "not wanted");
    fl_log_set_level(FL_LOG_ERROR);
    fl_log(FL_LOG_WARN, "quiet", "not wanted");
    ck_assert_str_eq(written(), "");
    fl_log_set_level(FL_LOG_DEBUG);
    fl_log(FL_LOG_DEBUG, "loud", "wanted");
    ck_assert_int_eq(count_lines(written()), 1);
}
END_TEST

START_TEST(a_frequent_event_is_written_twenty_times_and_does_not_silence_another)
{
    for (int i = 0; i < 1000; i++)
        fl_log(FL_LOG_WARN, "rubbish", "a peer sends rubbish");
    ck_assert_int_eq(count_lines(written()), 20);
    fl_log(FL_LOG_WARN, "other", "something else");
    ck_assert_int_eq(count_lines(written()), 21);
}
END_TEST

START_TEST(a_copy_is_json_whatever_stderr_gets)
{
    int copy = memfd_create("copy", MFD_CLOEXEC);
    char got[1000] = {0};
    setenv("FEDLORA_LOG", "text", 1);
    fl_log_copy_to(copy);
    fl_log(FL_LOG_INFO, "both", "twice");
    fl_log_copy_to(-1);
    fl_log(FL_LOG_INFO, "both", "once");
    ck_assert_int_gt(pread(copy, got, sizeof(got) - 1, 0), 0);
    ck_assert_int_eq(count_lines(got), 1);
    ck_assert_ptr_nonnull(strstr(got, "\"event\":\"both\""));
    ck_assert_int_eq(count_lines(written()), 2);
    close(copy);
}
END_TEST

START_TEST(more_events_than_the_table_holds_are_all_written)
{
    char event[32];
    for (int i = 0; i < 100; i++) {
        snprintf(event, sizeof(event), "event_%d", i);
        fl_log(FL_LOG_INFO, event, "one of many");
    }
    ck_assert_int_eq(count_lines(written()), 100);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, capture_stderr, NULL);
    tcase_add_test(tc, a_line_is_one_json_object_with_typed_fields);
    tcase_add_test(tc, text_is_for_people_and_obeys_no_peer);
    tcase_add_test(tc, a_long_string_is_cut_and_too_many_fields_are_left_out_whole);
    tcase_add_test(tc, lines_below_the_level_are_dropped);
    tcase_add_test(tc, a_frequent_event_is_written_twenty_times_and_does_not_silence_another);
    tcase_add_test(tc, a_copy_is_json_whatever_stderr_gets);
    tcase_add_test(tc, more_events_than_the_table_holds_are_all_written);
}

FL_TEST_MAIN("base.log", add_tests)
