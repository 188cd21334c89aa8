/* One record of data, every kind of it. */
#include "worker/data/record.h"

#include <string.h>

#include "runner.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/tokenizer/"

static struct fl_error error;
static struct fl_tokenizer *tokenizer;
static struct fl_dataset_options options;
static struct fl_example example;

static void set_up(void)
{
    fl_assert_ok(fl_tokenizer_open(GOLDEN "llama3", &tokenizer, &error), &error);
    options = (struct fl_dataset_options){.seq_len = 100, .add_eos = true};
}

static void tear_down(void)
{
    fl_tokenizer_close(tokenizer);
    fl_example_free(&example);
}

static enum fl_status read_with(const char *line, struct fl_tokenizer *with,
                                const struct fl_dataset_options *how)
{
    json_t *record;
    struct fl_reader reader = {with, how, NULL};
    struct fl_place place = {1, 1};
    enum fl_status status = fl_record_parse(line, strlen(line), &record, &place, &error);
    if (status == FL_OK)
        status = fl_record_row(record, &reader, &example, &error);
    json_decref(record);
    fl_reader_end(&reader);
    return status;
}

static enum fl_status read_row(const char *line)
{
    return read_with(line, tokenizer, &options);
}

static void refused(const char *line, const char *expected)
{
    ck_assert_msg(read_row(line) == FL_EFORMAT, "%s", line);
    ck_assert_msg(strstr(error.text, expected) != NULL, "%s", error.text);
}

/* The ids of text by the tokenizer, appended to out. */
static void encode(const char *text, unsigned flags, struct fl_ids *out)
{
    fl_assert_ok(fl_tokenizer_encode(tokenizer, text, strlen(text), flags, out, &error), &error);
}

static void row_is(const struct fl_ids *expected, size_t unscored)
{
    ck_assert_uint_eq(example.ids.count, expected->count);
    ck_assert_uint_eq(example.labels.count, expected->count);
    for (size_t i = 0; i < example.ids.count; i++) {
        ck_assert_int_eq(example.ids.ids[i], expected->ids[i]);
        ck_assert_int_eq(example.labels.ids[i], i < unscored ? FL_IGNORE : expected->ids[i]);
    }
}

START_TEST(a_text_has_the_template_and_an_end)
{
    struct fl_ids expected = {0};
    fl_assert_ok(read_row("{\"text\":\"Hello world\",\"other\":[1]}"), &error);
    encode("Hello world", FL_ENCODE_ADD_SPECIAL, &expected);
    ck_assert_int_eq(fl_ids_push(&expected, fl_tokenizer_eos(tokenizer)), FL_OK);
    row_is(&expected, 0);
    options.add_eos = false;
    fl_assert_ok(read_row("{\"text\":\"Hello world\"}"), &error);
    expected.count--;
    row_is(&expected, 0);
    fl_ids_free(&expected);
}
END_TEST

START_TEST(prompt_and_completion_are_tokenised_apart)
{
    struct fl_ids expected = {0};
    fl_assert_ok(read_row("{\"prompt\":\"Hel\",\"completion\":\"lo\"}"), &error);
    encode("Hel", FL_ENCODE_PREFIX_ONLY, &expected);
    size_t unscored = expected.count;
    encode("lo", 0, &expected);
    ck_assert_int_eq(fl_ids_push(&expected, fl_tokenizer_eos(tokenizer)), FL_OK);
    row_is(&expected, unscored);
    fl_ids_free(&expected);
}
END_TEST

START_TEST(an_instruction_becomes_the_alpaca_prompt)
{
    struct fl_ids expected = {0};
    fl_assert_ok(read_row("{\"instruction\":\"Add.\",\"input\":\"1 2\",\"output\":\"3\"}"), &error);
    encode("Below is an instruction that describes a task, paired with an input that provides "
           "further context. Write a response that appropriately completes the request.\n\n"
           "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n",
           FL_ENCODE_PREFIX_ONLY, &expected);
    size_t unscored = expected.count;
    encode("3", 0, &expected);
    ck_assert_int_eq(fl_ids_push(&expected, fl_tokenizer_eos(tokenizer)), FL_OK);
    row_is(&expected, unscored);
    expected.count = 0;
    fl_assert_ok(read_row("{\"instruction\":\"Add.\",\"input\":\"\",\"output\":\"3\"}"), &error);
    encode("Below is an instruction that describes a task. Write a response that appropriately "
           "completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n",
           FL_ENCODE_PREFIX_ONLY, &expected);
    unscored = expected.count;
    encode("3", 0, &expected);
    ck_assert_int_eq(fl_ids_push(&expected, fl_tokenizer_eos(tokenizer)), FL_OK);
    row_is(&expected, unscored);
    fl_ids_free(&expected);
}
END_TEST

START_TEST(given_ids_are_used_as_they_are)
{
    static const int32_t LABELS[] = {-100, 2, -100};
    fl_assert_ok(read_row("{\"input_ids\":[1,2,3]}"), &error);
    row_is(&(struct fl_ids){.ids = (int32_t[]){1, 2, 3}, .count = 3}, 0);
    fl_assert_ok(read_row("{\"input_ids\":[1,2,3],\"labels\":[-100,2,-100]}"), &error);
    ck_assert_int_eq(memcmp(example.labels.ids, LABELS, sizeof LABELS), 0);
    refused("{\"input_ids\":[1,2],\"labels\":[1]}", "2 input_ids but 1 labels");
    refused("{\"input_ids\":[1,-1]}", "number 2 is no token id");
    refused("{\"input_ids\":[-100]}", "no token id");
    refused("{\"input_ids\":[1.5]}", "no token id");
    refused("{\"input_ids\":[100000]}", "no token id");
    refused("{\"input_ids\":\"1\"}", "not an array");
    options.vocab_size = 3;
    refused("{\"input_ids\":[1,2,3]}", "(0..2)");
}
END_TEST

START_TEST(specials_can_be_text)
{
    fl_assert_ok(read_row("{\"text\":\"<|im_end|>\"}"), &error);
    ck_assert_uint_eq(example.ids.count, 3);
    options.specials_plain = true;
    fl_assert_ok(read_row("{\"text\":\"<|im_end|>\"}"), &error);
    ck_assert_uint_gt(example.ids.count, 5);
}
END_TEST

START_TEST(a_record_without_words_is_empty)
{
    static const char *const EMPTY[] = {
        "{\"text\":\" \\n\"}",
        "{\"prompt\":\"a\",\"completion\":\"\"}",
        "{\"instruction\":\"a\",\"output\":\"\\t\"}",
        "{\"input_ids\":[]}",
    };
    for (size_t i = 0; i < sizeof EMPTY / sizeof EMPTY[0]; i++) {
        fl_assert_ok(read_row(EMPTY[i]), &error);
        ck_assert_msg(example.empty, "%s", EMPTY[i]);
    }
    fl_assert_ok(read_row("{\"prompt\":\"\",\"completion\":\"a\"}"), &error);
    ck_assert(!example.empty);
}
END_TEST

START_TEST(the_head_of_a_long_prompt_is_known)
{
    options.seq_len = 4;
    fl_assert_ok(read_row("{\"prompt\":\"one two three\",\"completion\":\"four five\"}"), &error);
    ck_assert_uint_eq(example.head, 1); /* the template's prefix */
    fl_assert_ok(read_row("{\"instruction\":\"Add.\",\"output\":\"3\"}"), &error);
    ck_assert_uint_gt(example.head, 20);
    ck_assert_uint_lt(example.head, example.ids.count - 5);
}
END_TEST

START_TEST(a_nul_character_is_text)
{
    fl_assert_ok(read_row("{\"text\":\"a\\u0000b\"}"), &error);
    ck_assert_uint_eq(example.ids.count, 5);
}
END_TEST

START_TEST(broken_lines_say_what_is_wrong)
{
    refused("", "not valid JSON");
    refused("{\"text\":", "not valid JSON");
    refused("{\"text\":\"\xFF\"}", "not valid JSON");
    refused("{\"text\":\"a secret\" a secret}", "not valid JSON: '}' expected");
    ck_assert_ptr_null(strstr(error.text, "secret"));
    refused("[]", "not a JSON object");
    refused("3", "not valid JSON");
    refused("{}", "none of the keys");
    refused("{\"text\":3}", "\"text\" is missing or not a string");
    refused("{\"prompt\":\"x\"}", "\"completion\" is missing");
    refused("{\"instruction\":\"x\"}", "\"output\" is missing");
    refused("{\"text\":\"a\",\"text\":\"b\"}", "not valid JSON");
}
END_TEST

START_TEST(without_a_tokenizer_only_ids_can_be_read)
{
    struct fl_dataset_options plain = {.seq_len = 8, .vocab_size = 10};
    const char *line = "{\"input_ids\":[1,2]}", *text = "{\"text\":\"a\"}";
    fl_assert_ok(read_with(line, NULL, &plain), &error);
    ck_assert_int_eq(read_with(text, NULL, &plain), FL_EINVAL);
}
END_TEST

static double draw(const char *line, uint64_t seed)
{
    json_t *record;
    double out;
    struct fl_place place = {1, 1};
    fl_assert_ok(fl_record_parse(line, strlen(line), &record, &place, &error), &error);
    ck_assert_int_eq(fl_record_draw(record, seed, &out), FL_OK);
    json_decref(record);
    return out;
}

START_TEST(a_record_draws_the_same_number_wherever_it_stands)
{
    double drawn = draw("{\"prompt\":\"a\",\"completion\":\"b\"}", 1);
    ck_assert(drawn >= 0 && drawn < 1);
    ck_assert(drawn == draw(" { \"completion\" : \"b\", \"prompt\" : \"\\u0061\" }", 1));
    ck_assert(drawn != draw("{\"prompt\":\"a\",\"completion\":\"b\"}", 2));
    ck_assert(drawn != draw("{\"prompt\":\"b\",\"completion\":\"a\"}", 1));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_text_has_the_template_and_an_end);
    tcase_add_test(tc, prompt_and_completion_are_tokenised_apart);
    tcase_add_test(tc, an_instruction_becomes_the_alpaca_prompt);
    tcase_add_test(tc, given_ids_are_used_as_they_are);
    tcase_add_test(tc, specials_can_be_text);
    tcase_add_test(tc, a_record_without_words_is_empty);
    tcase_add_test(tc, the_head_of_a_long_prompt_is_known);
    tcase_add_test(tc, a_nul_character_is_text);
    tcase_add_test(tc, broken_lines_say_what_is_wrong);
    tcase_add_test(tc, a_record_draws_the_same_number_wherever_it_stands);
    tcase_add_test(tc, without_a_tokenizer_only_ids_can_be_read);
}
FL_TEST_MAIN("data record", add_tests)
