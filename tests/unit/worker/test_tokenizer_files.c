/* A tokenizer translated to the other format gives the same ids. */
#include "runner.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "worker/data/tokenizer.h"
#include "worker/tokenizer_files.h"

#define TOKENIZERS FL_TEST_SOURCE_DIR "/golden/tokenizer/"

enum { VOCAB = 1000 };

static struct fl_error error;
static char directory[FL_PATH_BYTES];

/* Tokens that swallow spaces or want word ends have no form in GGUF: texts with them (é is one in
 * two of the fixtures) are left out. */
static bool comparable(const char *text, size_t length)
{
    return !memchr(text, '<', length) && !memmem(text, length, "word", 4) &&
           !memmem(text, length, "\xC3\xA9", 2) && !memmem(text, length, "\xCC\x81", 2);
}

static void same_ids(struct fl_tokenizer *a, struct fl_tokenizer *b, const char *text,
                     size_t length, unsigned flags)
{
    struct fl_ids x = {0}, y = {0};
    fl_assert_ok(fl_tokenizer_encode(a, text, length, flags, &x, &error), &error);
    fl_assert_ok(fl_tokenizer_encode(b, text, length, flags, &y, &error), &error);
    ck_assert_uint_eq(x.count, y.count);
    for (size_t i = 0; i < x.count; i++)
        ck_assert_int_eq(x.ids[i], y.ids[i]);
    fl_ids_free(&x);
    fl_ids_free(&y);
}

static void same_tokenizer(const char *first, const char *second, const char *cases)
{
    char line[65536];
    struct fl_tokenizer *a = NULL, *b = NULL;
    unsigned compared = 0;
    fl_assert_ok(fl_tokenizer_open(first, &a, &error), &error);
    fl_assert_ok(fl_tokenizer_open(second, &b, &error), &error);
    ck_assert_str_eq(fl_tokenizer_pre_name(a), fl_tokenizer_pre_name(b));
    ck_assert_int_eq(fl_tokenizer_eos(a), fl_tokenizer_eos(b));
    same_ids(a, b, "", 0, FL_ENCODE_ADD_SPECIAL);
    same_ids(a, b, "<|im_start|>x<|im_end|>", 23, 0);
    same_ids(a, b, "<|im_start|>x<|im_end|>", 23, FL_ENCODE_SPECIALS_PLAIN);
    FILE *file = fopen(cases, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file)) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(row);
        const json_t *text = json_object_get(row, "text");
        if (json_is_string(text) && comparable(json_string_value(text), json_string_length(text))) {
            same_ids(a, b, json_string_value(text), json_string_length(text),
                     FL_ENCODE_ADD_SPECIAL);
            compared++;
        }
        json_decref(row);
    }
    ck_assert_uint_gt(compared, 10);
    ck_assert_int_eq(fclose(file), 0);
    fl_tokenizer_close(a);
    fl_tokenizer_close(b);
}

static const char *const names[] = {"smollm", "llama3", "gpt2", "qwen2"};

START_TEST(what_was_gguf_becomes_a_tokenizer_json)
{
    char gguf[FL_PATH_BYTES], cases[FL_PATH_BYTES];
    bool written;
    (void)snprintf(gguf, sizeof gguf, TOKENIZERS "%s.gguf", names[_i]);
    (void)snprintf(cases, sizeof cases, TOKENIZERS "%s.cases.jsonl", names[_i]);
    fl_test_directory(directory);
    fl_assert_ok(fl_tokenizer_files_write(gguf, directory, &written, &error), &error);
    ck_assert_msg(written, "%s", error.text);
    same_tokenizer(gguf, directory, cases);
}
END_TEST

/* A GGUF file of the tokenizer's keys alone. */
static bool write_keys(const char *from, char path[FL_PATH_BYTES])
{
    struct fl_gguf_writer writer;
    struct fl_buf out;
    bool written;
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "t.gguf", &error), &error);
    fl_buf_init(&out, 1 << 24);
    fl_gguf_writer_init(&writer);
    fl_assert_ok(fl_tokenizer_keys_put(from, VOCAB, &writer, &written, &error), &error);
    ck_assert_int_eq(fl_gguf_writer_header(&writer, &out), FL_OK);
    fl_assert_ok(fl_fs_write(path, out.data, out.length, 0644, &error), &error);
    fl_gguf_writer_free(&writer);
    fl_buf_free(&out);
    return written;
}

START_TEST(what_was_a_tokenizer_json_becomes_gguf)
{
    char from[FL_PATH_BYTES], cases[FL_PATH_BYTES], path[FL_PATH_BYTES];
    (void)snprintf(from, sizeof from, TOKENIZERS "%s", names[_i]);
    (void)snprintf(cases, sizeof cases, TOKENIZERS "%s.cases.jsonl", names[_i]);
    ck_assert_msg(write_keys(from, path), "%s", error.text);
    same_tokenizer(from, path, cases);
}
END_TEST

START_TEST(what_has_no_form_is_left_out_with_its_reason)
{
    char path[FL_PATH_BYTES];
    bool written = true;
    ck_assert(!write_keys(TOKENIZERS "prefix", path));
    ck_assert_ptr_nonnull(strstr(error.text, "space"));
    fl_assert_ok(fl_tokenizer_files_write(FL_TEST_SOURCE_DIR "/golden/cases/gqa-tied", directory,
                                          &written, &error),
                 &error);
    ck_assert(!written);
    ck_assert_str_ne(error.text, "");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, what_was_gguf_becomes_a_tokenizer_json, 0, 2);
    tcase_add_loop_test(tc, what_was_a_tokenizer_json_becomes_gguf, 0, 4);
    tcase_add_test(tc, what_has_no_form_is_left_out_with_its_reason);
}

FL_TEST_MAIN("tokenizer_files", add_tests)
