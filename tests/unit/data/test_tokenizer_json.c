/* tokenizer.json in forms that are known, and in forms that must be refused with a clear line. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "runner.h"
#include "worker/data/tokenizer.h"

#define PRE "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define MODEL                                                                                      \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

static struct fl_error error;

static enum fl_status open_text(const char *json, struct fl_tokenizer **out)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "tokenizer.json", &error), &error);
    fl_assert_ok(fl_fs_write(path, json, strlen(json), 0644, &error), &error);
    return fl_tokenizer_open(directory, out, &error);
}

static void refused(const char *json, const char *expected)
{
    struct fl_tokenizer *tokenizer;
    enum fl_status status = open_text(json, &tokenizer);
    ck_assert_msg(status == FL_EFORMAT, "%s for %.200s", fl_status_text(status), json);
    ck_assert_ptr_null(tokenizer);
    ck_assert_msg(strstr(error.text, expected) != NULL, "%s", error.text);
}

static void accepted(const char *json)
{
    struct fl_tokenizer *tokenizer;
    struct fl_ids ids = {0};
    fl_assert_ok(open_text(json, &tokenizer), &error);
    fl_assert_ok(fl_tokenizer_encode(tokenizer, "ab", 2, 0, &ids, &error), &error);
    ck_assert_uint_eq(ids.count, 1);
    ck_assert_int_eq(ids.ids[0], 2);
    fl_ids_free(&ids);
    fl_tokenizer_close(tokenizer);
}

START_TEST(merges_may_be_strings_or_pairs_and_members_in_any_order)
{
    accepted("{" PRE "," MODEL "}");
    accepted("{" MODEL "," PRE
             ",\"normalizer\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"x\":[1]}");
    accepted("{" PRE ",\"model\":{\"merges\":[[\"a\",\"b\"]],\"vocab\":{\"ab\":2,\"b\":1,\"a\":0},"
             "\"dropout\":null,\"continuing_subword_prefix\":\"\" ,\"unk_token\":null\n}}");
    accepted("{" PRE ",\"model\":{\"vocab\":{\"ab\":2,\"b\":1,\"a\":0},"
             "\"merges\":[\"#version: 0.2\",\"a b\"]}}");
}
END_TEST

START_TEST(unknown_pipelines_are_refused_by_name)
{
    refused("{" MODEL "}", "pre_tokenizer null is not one of those");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\"}}", "pre_tokenizer Metaspace");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":false}}",
            "pre_tokenizer");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
            "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x\"},\"behavior\":\"Isolated\"},"
            "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}}",
            "pre_tokenizer Sequence");
    refused("{" MODEL "," PRE ",\"normalizer\":{\"type\":\"NFKC\"}}", "normalizer NFKC");
    refused("{" MODEL "," PRE ",\"normalizer\":[]}", "normalizer ?");
    refused("{" MODEL "," PRE ",\"decoder\":{\"type\":\"Metaspace\"}}", "decoder Metaspace");
    refused("{" MODEL "," PRE ",\"post_processor\":{\"type\":\"BertProcessing\"}}",
            "post_processor BertProcessing");
}
END_TEST

#define MARKED(normalizer, pre, decoder)                                                           \
    "{" MODEL ",\"normalizer\":" normalizer ",\"pre_tokenizer\":" pre ",\"decoder\":" decoder "}"
#define REPLACE    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}"
#define UNMARK     "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"}"
#define SEQUENCE   "{\"type\":\"Sequence\",\"decoders\":[" UNMARK ",{\"type\":\"ByteFallback\"},"
#define PIECES     SEQUENCE "{\"type\":\"Fuse\"}]}"
#define META(rest) "{\"type\":\"Metaspace\",\"replacement\":\"\u2581\"" rest "}"

START_TEST(the_forms_of_sentencepiece_are_known)
{
    accepted(MARKED(REPLACE, "null", PIECES));
    accepted(MARKED("{\"type\":\"Sequence\",\"normalizers\":[" REPLACE ",{\"type\":\"NFC\"}]}",
                    "null", PIECES));
    accepted(MARKED("null", META(",\"prepend_scheme\":\"never\",\"split\":false"), PIECES));
    accepted(MARKED("null", META(",\"prepend_scheme\":\"never\",\"add_prefix_space\":false"),
                    META(",\"prepend_scheme\":\"never\"")));
    accepted(MARKED(REPLACE,
                    "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                    "\"behavior\":\"MergedWithPrevious\"}",
                    SEQUENCE
                    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,"
                    "\"stop\":0}]}"));
}
END_TEST

START_TEST(what_is_nearly_sentencepiece_is_refused)
{
    refused(MARKED("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "null", PIECES),
            "normalizer Prepend");
    refused(MARKED("{\"type\":\"Prepend\",\"prepend\":\"\u2581\"}", "null", PIECES),
            "pre_tokenizer null");
    refused(MARKED(REPLACE, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "null"),
            "pre_tokenizer ByteLevel");
    refused(MARKED("null", "{\"type\":\"Metaspace\",\"replacement\":\"_\"}", PIECES),
            "pre_tokenizer Metaspace");
    refused(MARKED("null", META(",\"prepend_scheme\":\"last\""), PIECES),
            "pre_tokenizer Metaspace");
    refused(MARKED("null", META(",\"prepend_scheme\":3"), PIECES), "pre_tokenizer Metaspace");
    refused(MARKED("null", META(",\"add_prefix_space\":false"), PIECES), "pre_tokenizer Metaspace");
    refused(MARKED(REPLACE, "null", "null"), "decoder null");
    refused(MARKED(REPLACE, "null", "{\"type\":\"ByteLevel\"}"), "decoder ByteLevel");
    refused(MARKED(REPLACE, "null", SEQUENCE "{\"type\":\"Strip\"}]}"), "decoder Sequence");
    refused(MARKED(REPLACE, "null",
                   SEQUENCE "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \","
                            "\"start\":2,\"stop\":0}]}"),
            "decoder Sequence");
}
END_TEST

START_TEST(unknown_models_are_refused_by_name)
{
    refused("{" PRE ",\"model\":{\"type\":\"Unigram\"}}", "model type \"Unigram\"");
    refused("{" PRE ",\"model\":{\"byte_fallback\":true,\"vocab\":{},\"merges\":[]}}",
            "byte_fallback");
    refused("{" PRE ",\"model\":{\"dropout\":0.1,\"vocab\":{},\"merges\":[]}}", "dropout");
    refused("{" PRE ",\"model\":{\"vocab\":{}}}", "no vocab or no merges");
    refused("{" PRE "}", "no member \"model\"");
}
END_TEST

START_TEST(hostile_vocabularies_are_refused)
{
    refused("{" PRE ",\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "repeats an id");
    refused("{" PRE ",\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "repeats an id");
    refused("{" PRE ",\"model\":{\"vocab\":{\"a\":4294967295},\"merges\":[]}}", "out of range");
    refused("{" PRE ",\"model\":{\"vocab\":{\"a\":99999999999},\"merges\":[]}}", "whole number");
    refused("{" PRE ",\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "whole number");
    refused("{" PRE ",\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", "comma");
    refused("{" PRE ",\"model\":{\"vocab\":[],\"merges\":[]}}", "an object is expected");
    refused("{" PRE ",\"model\":{\"vocab\":{\"\xFF\":0},\"merges\":[]}}", "not UTF-8");
}
END_TEST

START_TEST(hostile_merges_are_refused)
{
    static const char *const BAD[][2] = {
        {"\"a\"", "not a pair"},       {"\"a b c\"", "not a pair"},
        {"[\"a\"]", "comma"},          {"[\"a\",\"b\",\"c\"]", "not a pair"},
        {"[]", "not a pair"},          {"\"a c\"", "does not have"},
        {"\"b a\"", "does not have"},  {"[\"\",\"a\"]", "empty half"},
        {"3", "a string is expected"}, {"\"a \"", "does not have"},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        char json[512];
        snprintf(json, sizeof json,
                 "{" PRE ",\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[%s]}}",
                 BAD[i][0]);
        struct fl_tokenizer *tokenizer;
        ck_assert_msg(open_text(json, &tokenizer) == FL_EFORMAT, "%s", json);
    }
}
END_TEST

START_TEST(hostile_added_tokens_and_templates_are_refused)
{
    refused("{" PRE "," MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"\"}]}", "is empty");
    refused("{" PRE "," MODEL ",\"added_tokens\":[{\"id\":1e30,\"content\":\"x\"}]}", "usable id");
    refused("{" PRE "," MODEL ",\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]}",
            "gives to another token");
    refused("{" PRE "," MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"x\",\"normalized\":true},"
            "{\"id\":4,\"content\":\"x\",\"normalized\":true}]}",
            "there twice");
    refused("{" PRE "," MODEL ",\"added_tokens\":{}}", "not an array");
    refused("{" PRE "," MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
            "{\"SpecialToken\":{\"id\":\"x\"}},{\"Sequence\":{\"id\":\"A\"}}],"
            "\"special_tokens\":{\"x\":{\"ids\":[7]}}}}",
            "post_processor TemplateProcessing");
    refused("{" PRE "," MODEL
            ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}}",
            "post_processor TemplateProcessing");
}
END_TEST

START_TEST(broken_documents_are_refused)
{
    refused(" ", "an object is expected");
    refused("[]", "an object is expected");
    refused("{" PRE "," MODEL, "closing bracket");
    refused("{" PRE "," MODEL "} x", "something follows");
    refused("{" PRE "," MODEL "," MODEL "}", "twice");
    struct fl_buf deep;
    fl_buf_init(&deep, 1 << 20);
    fl_buf_printf(&deep, "{\"x\":");
    for (int i = 0; i < 100000; i++)
        fl_buf_append(&deep, "[", 1);
    ck_assert_int_eq(fl_buf_status(&deep), FL_OK);
    refused(fl_buf_text(&deep), "nested too deep");
    fl_buf_free(&deep);
}
END_TEST

START_TEST(every_cut_of_a_good_file_is_refused_cleanly)
{
    static const char GOOD[] = "{" PRE "," MODEL
                               ",\"added_tokens\":[{\"id\":3,\"content\":\"x\"}]}";
    char cut[sizeof GOOD];
    for (size_t length = 1; length < sizeof GOOD - 1; length += 7) {
        memcpy(cut, GOOD, length);
        cut[length] = '\0';
        struct fl_tokenizer *tokenizer;
        ck_assert_int_eq(open_text(cut, &tokenizer), FL_EFORMAT);
    }
}
END_TEST

START_TEST(a_directory_without_a_tokenizer_says_so)
{
    char directory[FL_PATH_BYTES];
    struct fl_tokenizer *tokenizer;
    fl_test_directory(directory);
    ck_assert_int_eq(fl_tokenizer_open(directory, &tokenizer, &error), FL_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(error.text, "tokenizer.json"));
    ck_assert_int_eq(fl_tokenizer_open("/no/such/model", &tokenizer, &error), FL_ENOTFOUND);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, merges_may_be_strings_or_pairs_and_members_in_any_order);
    tcase_add_test(tc, unknown_pipelines_are_refused_by_name);
    tcase_add_test(tc, the_forms_of_sentencepiece_are_known);
    tcase_add_test(tc, what_is_nearly_sentencepiece_is_refused);
    tcase_add_test(tc, unknown_models_are_refused_by_name);
    tcase_add_test(tc, hostile_vocabularies_are_refused);
    tcase_add_test(tc, hostile_merges_are_refused);
    tcase_add_test(tc, hostile_added_tokens_and_templates_are_refused);
    tcase_add_test(tc, broken_documents_are_refused);
    tcase_add_test(tc, every_cut_of_a_good_file_is_refused_cleanly);
    tcase_add_test(tc, a_directory_without_a_tokenizer_says_so);
}
FL_TEST_MAIN("data tokenizer_json", add_tests)
