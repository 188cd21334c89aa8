/* The tokenizer inside a GGUF file. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "runner.h"
#include "worker/data/tokenizer.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/tokenizer/"

static struct fl_error error;
static const char *const NAMES[] = {"smollm", "llama3", "spm"};

/* The format has no place for the flags of added tokens: texts with such tokens are left out. */
static bool flagged(const char *text)
{
    return strstr(text, "<mask>") || strstr(text, "<left>") || strstr(text, "<right>") ||
           strstr(text, "word");
}

static void ids_are(struct fl_tokenizer *tokenizer, const json_t *row, const char *key,
                    unsigned flags)
{
    const json_t *text = json_object_get(row, "text"), *expected = json_object_get(row, key);
    struct fl_ids ids = {0};
    fl_assert_ok(fl_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                     flags, &ids, &error),
                 &error);
    ck_assert_msg(ids.count == json_array_size(expected), "%s of '%s'", key,
                  json_string_value(text));
    for (size_t i = 0; i < ids.count; i++)
        ck_assert_int_eq(ids.ids[i], json_integer_value(json_array_get(expected, i)));
    fl_ids_free(&ids);
}

START_TEST(a_gguf_gives_the_ids_of_what_it_was_made_from)
{
    char path[FL_PATH_BYTES];
    struct fl_buf file;
    struct fl_tokenizer *tokenizer;
    snprintf(path, sizeof path, GOLDEN "%s.gguf", NAMES[_i]);
    fl_assert_ok(fl_tokenizer_open(path, &tokenizer, &error), &error);
    snprintf(path, sizeof path, GOLDEN "%s.cases.jsonl", NAMES[_i]);
    fl_assert_ok(fl_fs_read(path, 1 << 20, &file, &error), &error);
    for (char *line = (char *)file.data, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(row);
        if (_i == 2 || !flagged(json_string_value(json_object_get(row, "text")))) {
            ids_are(tokenizer, row, "ids", FL_ENCODE_ADD_SPECIAL);
            ids_are(tokenizer, row, "bare", 0);
            ids_are(tokenizer, row, "plain", FL_ENCODE_SPECIALS_PLAIN);
        }
        json_decref(row);
    }
    fl_buf_free(&file);
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(special_ids_come_from_the_file)
{
    struct fl_tokenizer *tokenizer;
    size_t count;
    fl_assert_ok(fl_tokenizer_open(GOLDEN "smollm.gguf", &tokenizer, &error), &error);
    ck_assert_int_eq(fl_tokenizer_eos(tokenizer), fl_tokenizer_find(tokenizer, "<|im_end|>", 10));
    ck_assert_int_eq(fl_tokenizer_bos(tokenizer), fl_tokenizer_find(tokenizer, "<|im_start|>", 12));
    fl_tokenizer_eos_ids(tokenizer, &count);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(fl_tokenizer_pre_name(tokenizer), "smollm");
    ck_assert_ptr_nonnull(fl_tokenizer_chat_template(tokenizer));
    fl_tokenizer_close(tokenizer);
}
END_TEST

/* The file with every occurrence of one word replaced by another of the same length. */
static void open_changed_file(const char *name, const char *from, const char *to, size_t length,
                              const char *expected)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_buf file;
    struct fl_tokenizer *tokenizer;
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "m.gguf", &error), &error);
    fl_assert_ok(fl_fs_read(name, 1 << 20, &file, &error), &error);
    for (size_t at = 0; at + length <= file.length; at++) {
        if (memcmp(file.data + at, from, length) == 0)
            memcpy(file.data + at, to, length);
    }
    fl_assert_ok(fl_fs_write(path, file.data, file.length, 0644, &error), &error);
    fl_buf_free(&file);
    ck_assert_int_ne(fl_tokenizer_open(path, &tokenizer, &error), FL_OK);
    ck_assert_ptr_null(tokenizer);
    ck_assert_msg(strstr(error.text, expected) != NULL, "%s", error.text);
}

static void open_changed(const char *from, const char *to, const char *expected)
{
    open_changed_file(GOLDEN "smollm.gguf", from, to, strlen(from), expected);
}

START_TEST(what_is_not_known_is_refused_by_name)
{
    open_changed("smollm", "smo11m", "pre-tokenizer 'smo11m' is not supported");
    open_changed("gpt2", "bert", "tokenizer model 'bert' is not supported");
    open_changed("tokenizer.ggml.pre", "tokenizer.ggml.pro", "does not name its pre-tokenizer");
    open_changed("tokenizer.ggml.model", "tokenizer.ggml.madel", "holds no tokenizer");
    open_changed("tokenizer.ggml.tokens", "tokenizer.ggml.tokans", "tokens is no usable list");
    open_changed("tokenizer.ggml.merges", "tokenizer.ggml.margas", "merges is no usable list");
}
END_TEST

START_TEST(scores_that_do_not_fit_are_refused)
{
    static const char FILE[] = GOLDEN "spm.gguf";
    /* the score of the piece behind "he", little-endian: -3 becomes NaN */
    open_changed_file(FILE, "\0\0\x40\xc0", "\0\0\xc0\x7f", 4, "without a score");
    open_changed_file(FILE, "tokenizer.ggml.scores", "tokenizer.ggml.scares", 21,
                      "scores does not fit");
}
END_TEST

/* spm.gguf with one more key, of type bool and true. */
static enum fl_status open_with_key(const char *key, struct fl_tokenizer **out)
{
    enum { COUNT_AT = 16, KEYS_AT = 24, BOOL = 7 };
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_buf file, changed;
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "m.gguf", &error), &error);
    fl_assert_ok(fl_fs_read(GOLDEN "spm.gguf", 1 << 20, &file, &error), &error);
    fl_buf_init(&changed, 1 << 20);
    fl_buf_append(&changed, file.data, COUNT_AT);
    fl_buf_u64(&changed, fl_load_u64(file.data + COUNT_AT) + 1);
    fl_buf_u64(&changed, strlen(key));
    fl_buf_append(&changed, key, strlen(key));
    fl_buf_u32(&changed, BOOL);
    fl_buf_append(&changed, "\1", 1);
    fl_buf_append(&changed, file.data + KEYS_AT, file.length - KEYS_AT);
    ck_assert_int_eq(fl_buf_status(&changed), FL_OK);
    fl_assert_ok(fl_fs_write(path, changed.data, changed.length, 0644, &error), &error);
    fl_buf_free(&file);
    fl_buf_free(&changed);
    return fl_tokenizer_open(path, out, &error);
}

START_TEST(a_normaliser_that_rewrites_text_is_refused)
{
    static const char *const KEYS[] = {"tokenizer.ggml.precompiled_charsmap",
                                       "tokenizer.ggml.remove_extra_whitespaces"};
    struct fl_tokenizer *tokenizer;
    fl_assert_ok(open_with_key("tokenizer.ggml.other", &tokenizer), &error);
    fl_tokenizer_close(tokenizer);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(open_with_key(KEYS[i], &tokenizer), FL_EFORMAT);
        ck_assert_ptr_nonnull(strstr(error.text, "rewrites characters or removes spaces"));
    }
}
END_TEST

START_TEST(sentencepiece_tokens_are_told_apart_by_their_types)
{
    struct fl_tokenizer *tokenizer;
    struct fl_ids ids = {0};
    struct fl_buf text;
    fl_assert_ok(fl_tokenizer_open(GOLDEN "spm.gguf", &tokenizer, &error), &error);
    ck_assert_int_eq(fl_tokenizer_bos(tokenizer), 1);
    ck_assert_int_eq(fl_tokenizer_eos(tokenizer), 2);
    ck_assert_str_eq(fl_tokenizer_pre_name(tokenizer), "whole");
    fl_assert_ok(fl_tokenizer_encode(tokenizer, "a\n", 2, FL_ENCODE_ADD_SPECIAL, &ids, &error),
                 &error);
    ck_assert_uint_eq(ids.count, 3);
    ck_assert_int_eq(ids.ids[0], 1);
    fl_buf_init(&text, 100);
    fl_assert_ok(fl_tokenizer_decode(tokenizer, ids.ids + 1, 2, &text, &error), &error);
    ck_assert_str_eq(fl_buf_text(&text), "a\n");
    fl_buf_free(&text);
    fl_ids_free(&ids);
    fl_tokenizer_close(tokenizer);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, a_gguf_gives_the_ids_of_what_it_was_made_from, 0, 3);
    tcase_add_test(tc, special_ids_come_from_the_file);
    tcase_add_test(tc, what_is_not_known_is_refused_by_name);
    tcase_add_test(tc, scores_that_do_not_fit_are_refused);
    tcase_add_test(tc, a_normaliser_that_rewrites_text_is_refused);
    tcase_add_test(tc, sentencepiece_tokens_are_told_apart_by_their_types);
}
FL_TEST_MAIN("data tokenizer_gguf", add_tests)
