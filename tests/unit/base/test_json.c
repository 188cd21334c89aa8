#include "base/json.h"

#include <string.h>

#include "base/fs.h"
#include "runner.h"

static struct fl_error error;

static json_t *parse(const char *text)
{
    json_t *value;
    fl_assert_ok(fl_json_parse(text, strlen(text), "input", &value, &error), &error);
    return value;
}

static void assert_refused(const char *text, size_t length)
{
    json_t *value;
    ck_assert_int_eq(fl_json_parse(text, length, "data.jsonl:12", &value, &error), FL_EFORMAT);
    ck_assert_ptr_null(value);
    ck_assert_ptr_nonnull(strstr(error.text, "data.jsonl:12: "));
}

START_TEST(what_is_not_one_json_document_is_refused_with_its_place)
{
    static const char *const wrong[] = {"",
                                        "{",
                                        "{}{}",
                                        "{\"a\":1,\"a\":2}",
                                        "[1e999]",
                                        "[nan]",
                                        "{\"a\":\"\xff\"}",
                                        "[\"\\ud800\"]"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_refused(wrong[i], strlen(wrong[i]));
    assert_refused("[1\0]", 4);
}
END_TEST

START_TEST(a_document_nested_too_deep_is_refused)
{
    static char deep[100000];
    memset(deep, '[', sizeof(deep));
    assert_refused(deep, sizeof(deep));
}
END_TEST

START_TEST(numbers_of_more_than_64_bits_are_read_as_reals)
{
    json_t *value = parse("{\"model_max_length\":1000000000000000019884624838656,\"n\":7}");
    uint32_t n = 0;
    enum fl_status status = fl_json_u32(value, "n", 0, &n);
    double length = json_number_value(json_object_get(value, "model_max_length"));
    json_decref(value);
    ck_assert_int_eq(status, FL_OK);
    ck_assert_uint_eq(n, 7);
    ck_assert_double_gt(length, 1e29);
}
END_TEST

START_TEST(members_have_the_type_they_must_have)
{
    json_t *o = parse("{\"n\":8,\"neg\":-1,\"big\":4294967296,\"half\":0.5,\"s\":\"x\",\"b\":true,"
                      "\"null\":null}");
    uint32_t n;
    double d;
    bool b;
    const char *s;
    ck_assert_int_eq(fl_json_u32(o, "n", 1, &n), FL_OK);
    ck_assert_uint_eq(n, 8);
    ck_assert_int_eq(fl_json_u32(o, "absent", 5, &n), FL_OK);
    ck_assert_uint_eq(n, 5);
    ck_assert_int_eq(fl_json_u32(o, "null", 6, &n), FL_OK);
    ck_assert_uint_eq(n, 6);
    ck_assert_int_eq(fl_json_u32(o, "neg", 0, &n), FL_ERANGE);
    ck_assert_int_eq(fl_json_u32(o, "big", 0, &n), FL_ERANGE);
    ck_assert_int_eq(fl_json_u32(o, "half", 0, &n), FL_EFORMAT);
    ck_assert_int_eq(fl_json_u32(o, "s", 0, &n), FL_EFORMAT);
    ck_assert_int_eq(fl_json_double(o, "n", 0, &d), FL_OK);
    ck_assert_double_eq(d, 8);
    ck_assert_int_eq(fl_json_double(o, "s", 0, &d), FL_EFORMAT);
    ck_assert_int_eq(fl_json_bool(o, "b", false, &b), FL_OK);
    ck_assert(b);
    ck_assert_int_eq(fl_json_bool(o, "n", false, &b), FL_EFORMAT);
    ck_assert_int_eq(fl_json_string(o, "s", NULL, &s), FL_OK);
    ck_assert_str_eq(s, "x");
    ck_assert_int_eq(fl_json_string(o, "absent", NULL, &s), FL_OK);
    ck_assert_ptr_null(s);
    ck_assert_int_eq(fl_json_string(o, "n", NULL, &s), FL_EFORMAT);
    json_decref(o);
}
END_TEST

START_TEST(writing_keeps_order_and_nine_digits)
{
    json_t *value = parse(
        "{ \"z\": 0.1234567890123, \"a\": [1, 2.0, 1e30, -3e-7, true, false, null,"
        " {}, []], \"text\": \"q\\\"\\n\\u001b\\u00e9\" }");
    struct fl_buf out;
    fl_buf_init(&out, 1000);
    enum fl_status status = fl_json_append(&out, value);
    json_decref(value);
    bool same = strcmp(fl_buf_text(&out),
                       "{\"z\":0.123456789,\"a\":[1,2.0,1e+30,-3e-07,true,false,null,{},[]],"
                       "\"text\":\"q\\\"\\n\\u001b\xc3\xa9\"}") == 0;
    fl_buf_free(&out);
    ck_assert_int_eq(status, FL_OK);
    ck_assert(same);
}
END_TEST

START_TEST(a_value_that_could_not_be_made_is_not_written)
{
    struct fl_buf out;
    fl_buf_init(&out, 10);
    ck_assert_int_eq(fl_json_append(&out, NULL), FL_ENOMEM);
    fl_buf_free(&out);
}
END_TEST

START_TEST(a_file_is_loaded_within_its_maximum)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    json_t *value;
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "config.json", &error), &error);
    fl_assert_ok(fl_fs_write(path, "{\"r\":8}", 7, 0600, &error), &error);
    fl_assert_ok(fl_json_load(path, 7, &value, &error), &error);
    json_decref(value);
    ck_assert_int_eq(fl_json_load(path, 6, &value, &error), FL_ERANGE);
    ck_assert_ptr_null(value);
    ck_assert_int_eq(fl_json_load(directory, 6, &value, &error), FL_EIO);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, what_is_not_one_json_document_is_refused_with_its_place);
    tcase_add_test(tc, a_document_nested_too_deep_is_refused);
    tcase_add_test(tc, numbers_of_more_than_64_bits_are_read_as_reals);
    tcase_add_test(tc, members_have_the_type_they_must_have);
    tcase_add_test(tc, writing_keeps_order_and_nine_digits);
    tcase_add_test(tc, a_value_that_could_not_be_made_is_not_written);
    tcase_add_test(tc, a_file_is_loaded_within_its_maximum);
}

FL_TEST_MAIN("base.json", add_tests)
