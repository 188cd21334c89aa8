/* The tokenizer inside a GGUF file. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "runner.h"
#include "worker/data/tokenizer.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/tokenizer/"

static struct fl_error error;
static const char *const NAMES[] = {"smollm", "llama3"};

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

START_TEST(a_gguf_gives_the_ids_of_the_directory_it_came_from)
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
        if (!flagged(json_string_value(json_object_get(row, "text")))) {
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
static void open_changed(const char *from, const char *to, const char *expected)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_buf file;
    struct fl_tokenizer *tokenizer;
    size_t length = strlen(from);
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "m.gguf", &error), &error);
    fl_assert_ok(fl_fs_read(GOLDEN "smollm.gguf", 1 << 20, &file, &error), &error);
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

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, a_gguf_gives_the_ids_of_the_directory_it_came_from, 0, 2);
    tcase_add_test(tc, special_ids_come_from_the_file);
    tcase_add_test(tc, what_is_not_known_is_refused_by_name);
}
FL_TEST_MAIN("data tokenizer_gguf", add_tests)
