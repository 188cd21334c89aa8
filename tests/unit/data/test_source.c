/* Records in every form that a file may have. */
#include "worker/data/source.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "runner.h"

static struct fl_error error;
static struct fl_source *source;
static bool skippable;

static enum fl_status begin_named(const char *name, const char *text, size_t length)
{
    FILE *file = length > 0 ? fmemopen((void *)(uintptr_t)text, length, "rb")
                            : fopen("/dev/null", "rb");
    ck_assert_ptr_nonnull(file);
    return fl_source_begin(file, name, &source, &error);
}

static void begin(const char *name, const char *text)
{
    fl_assert_ok(begin_named(name, text, strlen(text)), &error);
}

static void record_is(const char *expected)
{
    json_t *record;
    struct fl_buf text;
    fl_buf_init(&text, 10000);
    fl_assert_ok(fl_source_next(source, &record, &skippable, &error), &error);
    ck_assert_ptr_nonnull(record);
    ck_assert_int_eq(fl_json_append(&text, record), FL_OK);
    ck_assert_str_eq(fl_buf_text(&text), expected);
    fl_buf_free(&text);
    json_decref(record);
}

static void refused(const char *expected, bool goes_on)
{
    json_t *record;
    ck_assert_int_eq(fl_source_next(source, &record, &skippable, &error), FL_EFORMAT);
    ck_assert_ptr_null(record);
    ck_assert_msg(strncmp(error.text, expected, strlen(expected)) == 0, "%s", error.text);
    ck_assert_int_eq(skippable, goes_on);
}

static void ends(void)
{
    json_t *record;
    for (int i = 0; i < 2; i++) {
        fl_assert_ok(fl_source_next(source, &record, &skippable, &error), &error);
        ck_assert_ptr_null(record);
    }
    fl_source_close(source);
}

START_TEST(lines_of_json_are_records)
{
    begin("a", "\xEF\xBB\xBF{\"text\":\"1\"}\r\n\n  \t\n {\"text\":\"2\"}");
    record_is("{\"text\":\"1\"}");
    record_is("{\"text\":\"2\"}");
    fl_source_blame(source, &error);
    ck_assert_ptr_nonnull(strstr(error.text, "a:4:2: "));
    ends();
    begin("a.jsonl", "broken\n{\"text\":\"2\"}\n{\"text\":}\n");
    refused("a.jsonl:1:6: not valid JSON", true);
    record_is("{\"text\":\"2\"}");
    refused("a.jsonl:3:9: not valid JSON", true);
    ends();
    fl_assert_ok(begin_named("a.jsonl", "", 0), &error);
    ends();
}
END_TEST

START_TEST(the_elements_of_one_array_are_records)
{
    begin("a.json", " [\n {\"text\": \"a, ]}\\\"\\\\\", \"n\": [1, {\"m\": []}]},\n"
                    "  {\"text\":\n  \"b\"} , 3, {\"text\":\nx}, {\"text\":\"c\"}\n]\n");
    record_is("{\"text\":\"a, ]}\\\"\\\\\",\"n\":[1,{\"m\":[]}]}");
    record_is("{\"text\":\"b\"}");
    refused("a.json:4:10: not valid JSON", true);
    refused("a.json:5:1: not valid JSON", true);
    record_is("{\"text\":\"c\"}");
    ends();
    begin("a.json", "[]");
    ends();
}
END_TEST

START_TEST(a_broken_array_is_the_end)
{
    static const struct {
        const char *text, *expected;
    } CASES[] = {
        {"[{\"text\":\"a\"} {\"text\":\"b\"}]", "a:1:15: a comma or the end of the array"},
        {"[{\"text\":\"a\"}", "a:1:14: the file ends inside its JSON array"},
        {"[{\"text\":\"a\"}]\n[]", "a:2:1: something follows"},
        {"[{\"text\":\"a\"}}", "a:1:14: a comma or the end"},
        {"[{\"text\":\"a\"},\n\n{\"text", "a:3:1: the file ends inside this element"},
        {"[{\"text\":\"a\"},[[[", "a:1:15: the file ends inside this element"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        begin("a", CASES[i].text);
        record_is("{\"text\":\"a\"}");
        refused(CASES[i].expected, false);
        fl_source_close(source);
    }
}
END_TEST

START_TEST(rows_of_a_table_are_records_of_strings)
{
    begin("a.csv", "\xEF\xBB\xBFid,prompt,completion\r\n1,\"a\r\nb\",\"c \"\"d\"\"\"\r\n2,,e\r\n");
    record_is("{\"id\":\"1\",\"prompt\":\"a\\r\\nb\",\"completion\":\"c \\\"d\\\"\"}");
    record_is("{\"id\":\"2\",\"prompt\":\"\",\"completion\":\"e\"}");
    ends();
    begin("a.csv", "text\na\nb,c\n\xFF\nd\n\"e\n");
    record_is("{\"text\":\"a\"}");
    refused("a.csv:3:1: 2 fields, and the header has 1", true);
    refused("a.csv:4:1: column \"text\" is not UTF-8", true);
    record_is("{\"text\":\"d\"}");
    refused("a.csv:6:1: the quote that opens here is never closed", false);
    fl_source_close(source);
}
END_TEST

START_TEST(what_is_no_data_is_refused_with_what_to_do)
{
    static const struct {
        const char *name, *text, *expected;
    } CASES[] = {
        {"d/a.parquet", "PAR1....",
         "d/a.parquet: it is a Parquet file; convert it: python3 -c \"import pandas; "
         "pandas.read_parquet('a.parquet').to_json('a.parquet.jsonl', orient='records', "
         "lines=True)\""},
        {"a.gz", "\x1F\x8B\x08", "a.gz: it is compressed with gzip; convert it: gunzip -c 'a.gz'"},
        {"a", "\xFF\xFEt", "a: it is in UTF-16"},
        {"a.csv", "a,b\n1,2\n", "a.csv:1:1: neither JSON nor a CSV header"},
        {"a.csv", "text,text\n1,2\n", "a.csv:1:1: column 2 of the header is named as one before"},
        {"a.csv", "\xFF,text\n", "a.csv:1:1: this is neither JSON nor the header"},
        {"a.csv", "text,\"b\n", "a.csv:1:6: the quote that opens here"},
        {"a", "prompt\nx\n", "a:1:1: neither JSON nor"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        ck_assert_int_eq(begin_named(CASES[i].name, CASES[i].text, strlen(CASES[i].text)),
                         FL_EFORMAT);
        ck_assert_ptr_null(source);
        ck_assert_msg(strncmp(error.text, CASES[i].expected, strlen(CASES[i].expected)) == 0, "%s",
                      error.text);
    }
    ck_assert_int_eq(begin_named("a.safetensors", "\x30\7\0\0\0\0\0\0{", 9), FL_EFORMAT);
    ck_assert_str_eq(error.text, "a.safetensors: it begins with binary data, not with text; name a "
                                 "JSONL, JSON, CSV or .txt file");
    ck_assert_int_eq(fl_source_open("/no/such/file", &source, &error), FL_ENOTFOUND);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, lines_of_json_are_records);
    tcase_add_test(tc, the_elements_of_one_array_are_records);
    tcase_add_test(tc, a_broken_array_is_the_end);
    tcase_add_test(tc, rows_of_a_table_are_records_of_strings);
    tcase_add_test(tc, what_is_no_data_is_refused_with_what_to_do);
}
FL_TEST_MAIN("data source", add_tests)
