/* Conversations in ChatML. */
#include "worker/data/chat.h"

#include <string.h>

#include "base/fs.h"
#include "runner.h"
#include "worker/data/row.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/tokenizer/"

static struct fl_error error;

static struct fl_tokenizer *open_with_template(const char *template)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_buf file;
    struct fl_tokenizer *tokenizer;
    fl_test_directory(directory);
    fl_assert_ok(fl_fs_read(GOLDEN "gpt2/tokenizer.json", 1 << 20, &file, &error), &error);
    fl_assert_ok(fl_path_join(path, directory, "tokenizer.json", &error), &error);
    fl_assert_ok(fl_fs_write(path, file.data, file.length, 0644, &error), &error);
    fl_buf_free(&file);
    fl_assert_ok(fl_path_join(path, directory, "chat_template.jinja", &error), &error);
    fl_assert_ok(fl_fs_write(path, template, strlen(template), 0644, &error), &error);
    fl_assert_ok(fl_tokenizer_open(directory, &tokenizer, &error), &error);
    return tokenizer;
}

/* ids decoded, scored parts in square brackets. */
static void row_is(const char *template, const char *conversation, bool sharegpt,
                   const char *expected)
{
    struct fl_tokenizer *tokenizer = open_with_template(template);
    json_t *messages;
    struct fl_ids ids = {0}, labels = {0};
    struct fl_buf out;
    fl_buf_init(&out, 4096);
    fl_assert_ok(fl_json_parse(conversation, strlen(conversation), "test", &messages, &error),
                 &error);
    fl_assert_ok(fl_chat_row(tokenizer, messages, sharegpt, true, &ids, &labels, &error), &error);
    ck_assert_uint_eq(ids.count, labels.count);
    for (size_t i = 0; i < ids.count; i++) {
        bool scored = labels.ids[i] != FL_IGNORE;
        bool before = i > 0 && labels.ids[i - 1] != FL_IGNORE;
        if (scored != before)
            fl_buf_append(&out, scored ? "[" : "]", 1);
        fl_assert_ok(fl_tokenizer_decode(tokenizer, &ids.ids[i], 1, &out, &error), &error);
    }
    ck_assert_str_eq(fl_buf_text(&out), expected);
    json_decref(messages);
    fl_ids_free(&ids);
    fl_ids_free(&labels);
    fl_buf_free(&out);
    fl_tokenizer_close(tokenizer);
}

START_TEST(the_assistants_words_and_their_end_are_scored)
{
    row_is("<|im_start|>",
           "[{\"role\":\"user\",\"content\":\"Hi\"},"
           "{\"role\":\"assistant\",\"content\":\"Yo\"}]",
           false, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yo<|im_end|>]\n");
    row_is("<|im_start|>",
           "[{\"from\":\"human\",\"value\":\"Hi\"},"
           "{\"from\":\"gpt\",\"value\":\"Yo\"}]",
           true, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yo<|im_end|>]\n");
}
END_TEST

START_TEST(the_templates_default_system_message_is_used)
{
    row_is("{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}",
           "[{\"role\":\"user\",\"content\":\"Hi\"}]", false,
           "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    row_is("'<|im_start|>system\\n' + x }} '<|im_start|>system\\nBe kind<|im_end|>\\n'",
           "[{\"role\":\"user\",\"content\":\"Hi\"}]", false,
           "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    row_is("{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}",
           "[{\"role\":\"system\",\"content\":\"No\"}]", false,
           "<|im_start|>system\nNo<|im_end|>\n");
}
END_TEST

START_TEST(marks_inside_a_message_are_text)
{
    row_is("<|im_start|>", "[{\"role\":\"user\",\"content\":\"<|im_end|>\"}]", false,
           "<|im_start|>user\n<|im_end|><|im_end|>\n");
}
END_TEST

START_TEST(a_prompt_ends_where_the_reply_begins)
{
    struct fl_tokenizer *tokenizer = open_with_template("<|im_start|>");
    struct fl_ids ids = {0};
    struct fl_buf out;
    fl_buf_init(&out, 4096);
    fl_assert_ok(fl_chat_prompt(tokenizer, "Hi", 2, &ids, &error), &error);
    fl_assert_ok(fl_tokenizer_decode(tokenizer, ids.ids, ids.count, &out, &error), &error);
    ck_assert_str_eq(fl_buf_text(&out), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    fl_ids_free(&ids);
    fl_buf_free(&out);
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(other_templates_and_broken_conversations_are_refused)
{
    static const char *const BAD[] = {"{}", "[3]", "[{\"role\":\"user\"}]",
                                      "[{\"role\":\"boss\",\"content\":\"x\"}]"};
    struct fl_tokenizer *tokenizer = open_with_template("[INST]");
    ck_assert_int_eq(fl_chat_check(tokenizer, &error), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "not ChatML"));
    fl_tokenizer_close(tokenizer);
    tokenizer = open_with_template("<|im_start|>");
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        json_t *messages;
        struct fl_ids ids = {0}, labels = {0};
        fl_assert_ok(fl_json_parse(BAD[i], strlen(BAD[i]), "test", &messages, &error), &error);
        ck_assert_int_eq(fl_chat_row(tokenizer, messages, false, true, &ids, &labels, &error),
                         FL_EFORMAT);
        json_decref(messages);
        fl_ids_free(&ids);
        fl_ids_free(&labels);
    }
    fl_tokenizer_close(tokenizer);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_assistants_words_and_their_end_are_scored);
    tcase_add_test(tc, the_templates_default_system_message_is_used);
    tcase_add_test(tc, marks_inside_a_message_are_text);
    tcase_add_test(tc, a_prompt_ends_where_the_reply_begins);
    tcase_add_test(tc, other_templates_and_broken_conversations_are_refused);
}
FL_TEST_MAIN("data chat", add_tests)
