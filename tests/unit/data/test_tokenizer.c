/* The whole pipeline against Hugging Face's answers, and what tokenizer.h promises beside. */
#include "worker/data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "runner.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/tokenizer/"

static struct fl_error error;
/* byte-level BPE, then SentencePiece's way (make_tokenizer.py, make_tokenizer_spm.py) */
static const char *const NAMES[] = {"gpt2",   "prefix",  "llama3", "qwen2", "smollm",
                                    "llama2", "mistral", "always", "never", "gemma"};
#define NAMES_COUNT 10

static struct fl_tokenizer *open_golden(const char *name)
{
    char path[FL_PATH_BYTES];
    struct fl_tokenizer *tokenizer;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    fl_assert_ok(fl_tokenizer_open(path, &tokenizer, &error), &error);
    return tokenizer;
}

static void ids_are(struct fl_tokenizer *tokenizer, const json_t *row, const char *key,
                    unsigned flags)
{
    const json_t *text = json_object_get(row, "text"), *expected = json_object_get(row, key);
    struct fl_ids ids = {0};
    fl_assert_ok(fl_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                     flags, &ids, &error),
                 &error);
    ck_assert_msg(ids.count == json_array_size(expected), "%s of '%s': %zu ids, not %zu", key,
                  json_string_value(text), ids.count, json_array_size(expected));
    for (size_t i = 0; i < ids.count; i++)
        ck_assert_msg(ids.ids[i] == json_integer_value(json_array_get(expected, i)),
                      "%s of '%s': id %zu", key, json_string_value(text), i);
    fl_ids_free(&ids);
}

/* Where the answers hold the decoded text of "ids": the same bytes. */
static void decoded_is(const struct fl_tokenizer *tokenizer, const json_t *row)
{
    const json_t *text = json_object_get(row, "decoded"), *list = json_object_get(row, "ids");
    struct fl_ids ids = {0};
    struct fl_buf out;
    if (text == NULL)
        return;
    fl_buf_init(&out, 1 << 20);
    for (size_t i = 0; i < json_array_size(list); i++)
        ck_assert_int_eq(fl_ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i))),
                         FL_OK);
    fl_assert_ok(fl_tokenizer_decode(tokenizer, ids.ids, ids.count, &out, &error), &error);
    ck_assert_msg(out.length == json_string_length(text) &&
                      memcmp(fl_buf_text(&out), json_string_value(text), out.length) == 0,
                  "'%s', not '%s'", fl_buf_text(&out), json_string_value(text));
    fl_ids_free(&ids);
    fl_buf_free(&out);
}

/* Decoding what stands for the bare text gives the text, where nothing was stripped or lost. */
static void text_returns(const struct fl_tokenizer *tokenizer, const json_t *row)
{
    const json_t *text = json_object_get(row, "text"), *list = json_object_get(row, "plain");
    struct fl_ids ids = {0};
    struct fl_buf out;
    fl_buf_init(&out, 1 << 20);
    for (size_t i = 0; i < json_array_size(list); i++)
        ck_assert_int_eq(fl_ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i))),
                         FL_OK);
    fl_assert_ok(fl_tokenizer_decode(tokenizer, ids.ids, ids.count, &out, &error), &error);
    if (strstr(json_string_value(text), "<left>") == NULL &&
        strstr(json_string_value(text), "<right>") == NULL) {
        ck_assert_uint_eq(out.length, json_string_length(text));
        ck_assert_int_eq(memcmp(fl_buf_text(&out), json_string_value(text), out.length), 0);
    }
    fl_ids_free(&ids);
    fl_buf_free(&out);
}

START_TEST(every_hard_case_has_the_ids_of_hugging_face)
{
    const char *name = NAMES[_i];
    char path[FL_PATH_BYTES];
    struct fl_buf file;
    snprintf(path, sizeof path, GOLDEN "%s.cases.jsonl", name);
    fl_assert_ok(fl_fs_read(path, 1 << 20, &file, &error), &error);
    struct fl_tokenizer *tokenizer = open_golden(name);
    int cases = 0;
    for (char *line = (char *)file.data, *end; *line != '\0'; line = end + 1, cases++) {
        end = strchr(line, '\n');
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(row);
        ids_are(tokenizer, row, "ids", FL_ENCODE_ADD_SPECIAL);
        ids_are(tokenizer, row, "bare", 0);
        ids_are(tokenizer, row, "plain", FL_ENCODE_SPECIALS_PLAIN);
        decoded_is(tokenizer, row);
        if (_i == 0 || _i == 2)
            text_returns(tokenizer, row);
        json_decref(row);
    }
    ck_assert_int_gt(cases, 80);
    fl_tokenizer_close(tokenizer);
    fl_buf_free(&file);
}
END_TEST

START_TEST(any_bytes_survive_encoding_and_decoding)
{
    struct fl_tokenizer *tokenizer = open_golden("llama3");
    unsigned state = 7;
    for (int round = 0; round < 500; round++) {
        char text[50];
        struct fl_ids ids = {0};
        struct fl_buf out;
        fl_buf_init(&out, 4096);
        for (size_t i = 0; i < sizeof text; i++) {
            state = state * 1103515245u + 12345u;
            text[i] = (char)(state >> 16);
        }
        fl_assert_ok(fl_tokenizer_encode(tokenizer, text, sizeof text, FL_ENCODE_SPECIALS_PLAIN,
                                         &ids, &error),
                     &error);
        fl_assert_ok(fl_tokenizer_decode(tokenizer, ids.ids, ids.count, &out, &error), &error);
        ck_assert_uint_eq(out.length, sizeof text);
        ck_assert_int_eq(memcmp(out.data, text, sizeof text), 0);
        fl_ids_free(&ids);
        fl_buf_free(&out);
    }
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(special_ids_come_from_the_configuration)
{
    struct fl_tokenizer *tokenizer = open_golden("llama3");
    size_t count;
    int32_t eos = fl_tokenizer_find(tokenizer, "<|im_end|>", 10);
    ck_assert_int_eq(fl_tokenizer_eos(tokenizer), eos);
    ck_assert_int_eq(fl_tokenizer_bos(tokenizer), fl_tokenizer_find(tokenizer, "<|im_start|>", 12));
    ck_assert_int_eq(fl_tokenizer_eos_ids(tokenizer, &count)[0], eos);
    ck_assert_uint_eq(count, 1);
    ck_assert(fl_tokenizer_is_eos(tokenizer, eos) && !fl_tokenizer_is_eos(tokenizer, 1));
    ck_assert_str_eq(fl_tokenizer_pre_name(tokenizer), "llama-bpe");
    ck_assert_ptr_nonnull(strstr(fl_tokenizer_chat_template(tokenizer), "<|im_start|>"));
    ck_assert_int_eq(fl_tokenizer_find(tokenizer, "<none>", 6), -1);
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(the_prefix_alone_leaves_the_end_out)
{
    struct fl_tokenizer *tokenizer = open_golden("llama3");
    struct fl_ids ids = {0};
    fl_assert_ok(fl_tokenizer_encode(tokenizer, "a", 1, FL_ENCODE_PREFIX_ONLY, &ids, &error),
                 &error);
    ck_assert_uint_eq(ids.count, 2);
    ck_assert_int_eq(ids.ids[0], fl_tokenizer_bos(tokenizer));
    fl_ids_free(&ids);
    fl_tokenizer_close(tokenizer);
}
END_TEST

static void append_ids(struct fl_tokenizer *tokenizer, const char *text, unsigned flags,
                       struct fl_ids *ids)
{
    fl_assert_ok(fl_tokenizer_encode(tokenizer, text, strlen(text), flags, ids, &error), &error);
}

/* A conversation is encoded piece by piece; the ids are those of the whole text. */
START_TEST(a_text_behind_a_special_token_has_the_ids_it_has_in_the_whole)
{
    static const char *const tails[] = {"Hello there", " Hello", "\nx"};
    struct fl_tokenizer *tokenizer = open_golden(NAMES[_i]);
    const char *special = fl_tokenizer_find(tokenizer, "<|im_end|>", 10) >= 0 ? "<|im_end|>"
                                                                              : "<|endoftext|>";
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        char text[64];
        struct fl_ids whole = {0}, parts = {0};
        snprintf(text, sizeof text, "%s%s", special, tails[i]);
        append_ids(tokenizer, text, 0, &whole);
        append_ids(tokenizer, special, 0, &parts);
        append_ids(tokenizer, tails[i], FL_ENCODE_BEHIND, &parts);
        ck_assert_msg(whole.count == parts.count, "'%s': %zu ids, not %zu", text, parts.count,
                      whole.count);
        ck_assert_mem_eq(whole.ids, parts.ids, whole.count * sizeof *whole.ids);
        fl_ids_free(&whole);
        fl_ids_free(&parts);
    }
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(ids_without_a_token_are_refused)
{
    struct fl_tokenizer *tokenizer = open_golden("gpt2");
    static const int32_t BAD[] = {-1, 100000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        struct fl_buf out;
        fl_buf_init(&out, 100);
        ck_assert_int_eq(fl_tokenizer_decode(tokenizer, &BAD[i], 1, &out, &error), FL_EFORMAT);
        fl_buf_free(&out);
    }
    fl_tokenizer_close(tokenizer);
}
END_TEST

/* FL_TEST_MODEL=a SmolLM2 file or directory: its first ids are known. */
START_TEST(the_real_smollm2_splits_digits)
{
    const char *model = getenv("FL_TEST_MODEL");
    if (model == NULL)
        return;
    struct fl_tokenizer *tokenizer;
    struct fl_ids ids = {0};
    static const int32_t EXPECTED[] = {19556, 905, 216, 33, 34, 35, 17};
    fl_assert_ok(fl_tokenizer_open(model, &tokenizer, &error), &error);
    fl_assert_ok(fl_tokenizer_encode(tokenizer, "Hello world 123!", 16, 0, &ids, &error), &error);
    ck_assert_uint_eq(ids.count, 7);
    ck_assert_int_eq(memcmp(ids.ids, EXPECTED, sizeof EXPECTED), 0);
    fl_ids_free(&ids);
    fl_tokenizer_close(tokenizer);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, every_hard_case_has_the_ids_of_hugging_face, 0, NAMES_COUNT);
    tcase_add_test(tc, any_bytes_survive_encoding_and_decoding);
    tcase_add_test(tc, special_ids_come_from_the_configuration);
    tcase_add_test(tc, the_prefix_alone_leaves_the_end_out);
    tcase_add_loop_test(tc, a_text_behind_a_special_token_has_the_ids_it_has_in_the_whole, 0,
                        NAMES_COUNT);
    tcase_add_test(tc, ids_without_a_token_are_refused);
    tcase_add_test(tc, the_real_smollm2_splits_digits);
}
FL_TEST_MAIN("data tokenizer", add_tests)
