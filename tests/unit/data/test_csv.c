/* Comma-separated values as RFC 4180 has them, and as it does not. */
#include "worker/data/csv.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "runner.h"

static struct fl_error error;
static struct fl_feed feed;
static struct fl_csv *csv;
static bool skippable;

static void begin(const char *text, size_t maximum)
{
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "rb");
    ck_assert_ptr_nonnull(file);
    fl_feed_begin(&feed, file, "t.csv");
    csv = fl_calloc(1, sizeof *csv);
    ck_assert_ptr_nonnull(csv);
    fl_csv_begin(csv, &feed, maximum);
}

static void end(void)
{
    fl_csv_end(csv);
    fl_free(csv);
    fl_feed_close(&feed);
}

/* The next record, its fields joined by '|'. */
static void record_is(const char *expected)
{
    struct fl_buf joined;
    fl_buf_init(&joined, 1000);
    fl_assert_ok(fl_csv_next(csv, &skippable, &error), &error);
    for (size_t i = 0; i < csv->count; i++) {
        fl_buf_append(&joined, "|", i > 0);
        fl_buf_append(&joined, fl_buf_text(&csv->bytes) + csv->fields[i].at, csv->fields[i].length);
    }
    ck_assert_str_eq(fl_buf_text(&joined), expected);
    fl_buf_free(&joined);
}

static void refused(const char *expected, bool goes_on, uint64_t line, uint64_t column)
{
    ck_assert_int_eq(fl_csv_next(csv, &skippable, &error), FL_EFORMAT);
    ck_assert_msg(strstr(error.text, expected) != NULL, "%s", error.text);
    ck_assert_int_eq(skippable, goes_on);
    ck_assert_uint_eq(csv->place.line, line);
    ck_assert_uint_eq(csv->place.column, column);
}

START_TEST(fields_are_plain_or_quoted)
{
    begin("a,b,c\r\n\"1\",\"two, \"\"2\"\"\",\"3\n4\r\n5\"\r\n,,\r\n\r\n\n\"\",x,\"\"\"\"\nlast,,",
          100);
    record_is("a|b|c");
    record_is("1|two, \"2\"|3\n4\r\n5");
    ck_assert_uint_eq(csv->place.line, 2);
    record_is("||");
    ck_assert_uint_eq(csv->place.line, 5);
    record_is("|x|\"");
    record_is("last||");
    fl_assert_ok(fl_csv_next(csv, &skippable, &error), &error);
    ck_assert_uint_eq(csv->count, 0);
    end();
}
END_TEST

START_TEST(a_broken_record_ends_with_its_line)
{
    begin("a\"b,c\nd\n\"e\"f,g\nh\ni\rj\nk", 100);
    refused("a quote inside a field", true, 1, 2);
    record_is("d");
    refused("text behind a closing quote", true, 3, 4);
    record_is("h");
    refused("a carriage return without a line feed", true, 5, 3);
    record_is("k");
    end();
}
END_TEST

START_TEST(a_quote_that_never_closes_is_the_end)
{
    begin("a,b\nc,\"d\ne,f\n", 100);
    record_is("a|b");
    refused("never closed", false, 2, 3);
    end();
}
END_TEST

START_TEST(records_are_bounded)
{
    struct fl_buf many;
    begin("12345,678901", 10);
    refused("longer than 10 bytes", false, 1, 1);
    end();
    begin("\"1234567890\n1\"", 10);
    refused("longer than 10 bytes", false, 1, 1);
    end();
    fl_buf_init(&many, 5000);
    for (int i = 0; i < FL_CSV_FIELDS_MAX; i++)
        fl_buf_append(&many, ",", 1);
    fl_buf_append(&many, "\nx", 2);
    begin(fl_buf_text(&many), 10);
    refused("more than 1024 fields", true, 1, 1025);
    record_is("x");
    end();
    fl_buf_free(&many);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, fields_are_plain_or_quoted);
    tcase_add_test(tc, a_broken_record_ends_with_its_line);
    tcase_add_test(tc, a_quote_that_never_closes_is_the_end);
    tcase_add_test(tc, records_are_bounded);
}
FL_TEST_MAIN("data csv", add_tests)
