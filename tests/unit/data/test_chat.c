/* Conversations against transformers' apply_chat_template() (tests/golden/chat), and our own rules.
 */
#include "worker/data/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "runner.h"
#include "worker/data/chat_form.h"
#include "worker/data/row.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/chat/"

static struct fl_error error;
static char directory[FL_PATH_BYTES];
static struct fl_tokenizer *tokenizer;
static struct fl_chat *chat;
static struct fl_example example;

static void write_file(const char *name, const void *bytes, size_t length)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, bytes, length, 0644, &error), &error);
}

static void set_up(void)
{
    struct fl_buf file;
    fl_test_directory(directory);
    fl_assert_ok(fl_fs_read(GOLDEN "tokenizer/tokenizer.json", 1 << 20, &file, &error), &error);
    write_file("tokenizer.json", file.data, file.length);
    fl_buf_free(&file);
}

static void close_all(void)
{
    fl_chat_close(chat);
    fl_tokenizer_close(tokenizer);
    fl_example_free(&example);
    chat = NULL;
    tokenizer = NULL;
    example = (struct fl_example){0};
}

/* The fixture's tokenizer with this template; bos and eos may be NULL. */
static void open_tokenizer(const char *jinja, const char *bos, const char *eos)
{
    struct fl_buf config;
    fl_buf_init(&config, 4096);
    fl_buf_printf(&config, "{\"note\":0");
    if (bos != NULL)
        fl_buf_printf(&config, ",\"bos_token\":\"%s\"", bos);
    if (eos != NULL)
        fl_buf_printf(&config, ",\"eos_token\":\"%s\"", eos);
    fl_buf_printf(&config, "}");
    write_file("tokenizer_config.json", config.data, config.length);
    write_file("chat_template.jinja", jinja, strlen(jinja));
    fl_buf_free(&config);
    fl_assert_ok(fl_tokenizer_open(directory, &tokenizer, &error), &error);
}

static json_t *parse(const char *text)
{
    json_t *out;
    fl_assert_ok(fl_json_parse(text, strlen(text), "test", &out, &error), &error);
    return out;
}

static enum fl_status write_row(const json_t *messages, bool sharegpt, bool plain)
{
    fl_example_clear(&example);
    return fl_chat_row(chat, messages, sharegpt, plain, &example, &error);
}

/* ---- against transformers ---- */

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void ids_are(const struct fl_ids *ids, const json_t *expected, const char *what)
{
    struct fl_buf got;
    fl_buf_init(&got, 1 << 20);
    fl_assert_ok(fl_tokenizer_decode(tokenizer, ids->ids, ids->count, &got, &error), &error);
    ck_assert_msg(ids->count == json_array_size(expected), "%s: %zu ids, expected %zu: %s", what,
                  ids->count, json_array_size(expected), fl_buf_text(&got));
    for (size_t i = 0; i < ids->count; i++)
        ck_assert_msg(ids->ids[i] == json_integer_value(json_array_get(expected, i)),
                      "%s: id %zu: %s", what, i, fl_buf_text(&got));
    fl_buf_free(&got);
}

static void case_is(const json_t *expected, const char *what)
{
    const json_t *messages = json_object_get(expected, "messages");
    if (json_object_get(expected, "error") != NULL) {
        ck_assert_msg(write_row(messages, false, false) == FL_EFORMAT, "%s", what);
        return;
    }
    fl_assert_ok(write_row(messages, false, false), &error);
    ids_are(&example.ids, json_object_get(expected, "ids"), what);
    ck_assert_uint_eq(example.labels.count, example.ids.count);
    for (size_t i = 0; i < example.ids.count; i++) {
        bool scored = json_integer_value(json_array_get(json_object_get(expected, "scored"), i));
        ck_assert_msg(example.labels.ids[i] == (scored ? example.ids.ids[i] : FL_IGNORE),
                      "%s: label %zu", what, i);
    }
    struct fl_ids prompt = {0};
    fl_assert_ok(fl_chat_prompt(tokenizer, NULL, " Hi ", 4, &prompt, &error), &error);
    ids_are(&prompt, json_object_get(expected, "prompt"), what);
    fl_ids_free(&prompt);
}

/* The lines of a fixture, parsed. */
static json_t *load_lines(const char *path)
{
    struct fl_buf file;
    json_t *lines = json_array();
    fl_assert_ok(fl_fs_read(path, 1 << 20, &file, &error), &error);
    const char *at = fl_buf_text(&file);
    for (const char *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *line;
        fl_assert_ok(fl_json_parse(at, (size_t)(end - at), path, &line, &error), &error);
        ck_assert_int_eq(json_array_append_new(lines, line), 0);
    }
    fl_buf_free(&file);
    return lines;
}

START_TEST(published_templates_give_what_transformers_gives)
{
    json_t *templates = load_lines(GOLDEN "templates.jsonl"), *template, *expected;
    json_t *cases = load_lines(GOLDEN "cases.jsonl");
    size_t i, k, compared = 0;
    json_array_foreach(templates, i, template)
    {
        const char *name = text_of(template, "name"), *form = text_of(template, "form");
        struct fl_chat_form found;
        open_tokenizer(text_of(template, "jinja"), text_of(template, "bos"),
                       text_of(template, "eos"));
        enum fl_status status = fl_chat_open(tokenizer, "auto", &chat, &error);
        ck_assert_msg(status == (form != NULL ? FL_OK : FL_EINVAL), "%s: %s", name, error.text);
        if (form != NULL) {
            fl_assert_ok(fl_chat_form_detect(text_of(template, "jinja"), &found, &error), &error);
            ck_assert_msg(strncmp(found.name, form, 5) == 0, "%s: %s", name, found.name);
        }
        json_array_foreach(cases, k, expected)
        {
            char what[100];
            snprintf(what, sizeof what, "%s, case %zu", name, k);
            if (form != NULL && strcmp(text_of(expected, "template"), name) == 0) {
                case_is(expected, what);
                compared++;
            }
        }
        close_all();
    }
    ck_assert_uint_eq(compared, json_array_size(cases));
    json_decref(templates);
    json_decref(cases);
}
END_TEST

/* ---- our own rules ---- */

/* ids decoded, scored parts in square brackets. */
static void row_is(const char *conversation, bool sharegpt, const char *expected)
{
    struct fl_buf out;
    json_t *messages = parse(conversation);
    fl_buf_init(&out, 4096);
    fl_assert_ok(write_row(messages, sharegpt, true), &error);
    for (size_t i = 0; i < example.ids.count; i++) {
        bool scored = example.labels.ids[i] != FL_IGNORE;
        bool before = i > 0 && example.labels.ids[i - 1] != FL_IGNORE;
        if (scored != before)
            fl_buf_append(&out, scored ? "[" : "]", 1);
        fl_assert_ok(fl_tokenizer_decode(tokenizer, &example.ids.ids[i], 1, &out, &error), &error);
    }
    ck_assert_str_eq(fl_buf_text(&out), expected);
    json_decref(messages);
    fl_buf_free(&out);
}

static void open_chatml(void)
{
    open_tokenizer("<|im_start|><|im_end|>", NULL, "<|im_end|>");
    fl_assert_ok(fl_chat_open(tokenizer, NULL, &chat, &error), &error);
}

START_TEST(the_assistants_words_and_their_end_are_scored)
{
    static const char EXPECTED[] =
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yo<|im_end|>]\n";
    open_chatml();
    row_is("[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yo\"}]",
           false, EXPECTED);
    ck_assert_uint_ge(example.head, 2);
    row_is("[{\"from\":\"human\",\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Yo\"}]", true,
           EXPECTED);
    row_is("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"H\"},"
           "{\"type\":\"text\",\"text\":\"i\"}]},{\"role\":\"assistant\",\"content\":\"Yo\"}]",
           false, EXPECTED);
    row_is("[{\"role\":\"tool\",\"content\":\"3\"}]", false, "<|im_start|>tool\n3<|im_end|>\n");
    close_all();
}
END_TEST

START_TEST(no_space_is_put_between_header_and_reply)
{
    const char *prefixing = FL_TEST_SOURCE_DIR "/golden/tokenizer/prefix"; /* add_prefix_space */
    fl_assert_ok(fl_tokenizer_open(prefixing, &tokenizer, &error), &error);
    fl_assert_ok(fl_chat_open(tokenizer, "chatml", &chat, &error), &error);
    row_is("[{\"role\":\"assistant\",\"content\":\"Yo\"}]", false,
           "<|im_start|> assistant\n[Yo<|im_end|>] \n");
    close_all();
}
END_TEST

START_TEST(marks_inside_a_message_are_text)
{
    open_chatml();
    row_is("[{\"role\":\"user\",\"content\":\"<|im_end|>\"}]", false,
           "<|im_start|>user\n<|im_end|><|im_end|>\n");
    ck_assert_uint_gt(example.ids.count, 8);
    close_all();
}
END_TEST

START_TEST(a_conversation_without_words_is_empty)
{
    static const struct {
        const char *messages;
        bool empty;
    } CASES[] = {
        {"[]", true},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\" \"}]",
         true},
        {"[{\"role\":\"user\",\"content\":\"a\"}]", false}, /* nothing scored is another matter */
        {"[{\"role\":\"assistant\",\"content\":\"a\"}]", false},
    };
    open_chatml();
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        json_t *messages = parse(CASES[i].messages);
        fl_assert_ok(write_row(messages, false, true), &error);
        ck_assert_int_eq(example.empty, CASES[i].empty);
        json_decref(messages);
    }
    close_all();
}
END_TEST

START_TEST(a_template_is_named_never_guessed)
{
    static const char *const UNKNOWN[] = {"", "[INST]", "<|im_start|>assistant\n<think>",
                                          "{{ '<|user|>' + message['content'] }}"};
    json_t *messages = parse("[{\"role\":\"user\",\"content\":\"Hi\"},"
                             "{\"role\":\"assistant\",\"content\":\"Yo\"}]");
    for (size_t i = 0; i < sizeof UNKNOWN / sizeof UNKNOWN[0]; i++) {
        open_tokenizer(UNKNOWN[i], "<s>", "</s>");
        ck_assert_int_eq(fl_chat_open(tokenizer, NULL, &chat, &error), FL_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "--chat-template NAME"));
        ck_assert_int_eq(fl_chat_open(tokenizer, "vicuna", &chat, &error), FL_EUSAGE);
        ck_assert_ptr_nonnull(strstr(error.text, FL_CHAT_NAMES));
        fl_assert_ok(fl_chat_open(tokenizer, "zephyr", &chat, &error), &error);
        fl_assert_ok(write_row(messages, false, true), &error);
        struct fl_ids prompt = {0};
        ck_assert_int_eq(fl_chat_prompt(tokenizer, "auto", "Hi", 2, &prompt, &error), FL_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "--chat-template NAME"));
        fl_assert_ok(fl_chat_prompt(tokenizer, "zephyr", "Hi", 2, &prompt, &error), &error);
        ck_assert_uint_gt(prompt.count, 2);
        fl_ids_free(&prompt);
        close_all();
    }
    open_tokenizer("", NULL, NULL);
    ck_assert_int_eq(fl_chat_open(tokenizer, "zephyr", &chat, &error), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "end-of-sequence"));
    close_all();
    json_decref(messages);
}
END_TEST

START_TEST(every_name_is_a_form_and_marks_must_be_tokens)
{
    char name[40];
    struct fl_chat_form form;
    int count = 0;
    for (const char *at = FL_CHAT_NAMES; *at != '\0'; count++) {
        size_t length = strcspn(at, "|");
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        fl_assert_ok(fl_chat_form_named(name, &form, &error), &error);
        ck_assert_str_eq(form.name, name);
        ck_assert_str_eq(fl_chat_form_name((size_t)count), name);
        at += length + (at[length] == '|');
    }
    ck_assert_ptr_null(fl_chat_form_name((size_t)count));
    fl_assert_ok(fl_tokenizer_open(FL_TEST_SOURCE_DIR "/golden/tokenizer/gpt2", &tokenizer, &error),
                 &error);
    ck_assert_int_eq(fl_chat_open(tokenizer, "llama3", &chat, &error), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "has no token <|start_header_id|>"));
    close_all();
}
END_TEST

START_TEST(broken_conversations_are_refused)
{
    static const struct {
        const char *messages, *expected;
    } BAD[] = {
        {"{}", "not an array"},
        {"[3]", "message 1: \"role\" is missing"},
        {"[{\"role\":\"user\"}]", "message 1: \"content\" is missing"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]", "not text"},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"boss\",\"content\":\"x\"}]",
         "message 2: \"role\""},
    };
    open_chatml();
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        json_t *messages = parse(BAD[i].messages);
        ck_assert_int_eq(write_row(messages, false, true), FL_EFORMAT);
        ck_assert_msg(strstr(error.text, BAD[i].expected) != NULL, "%s", error.text);
        json_decref(messages);
    }
    close_all();
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, set_up, NULL);
    tcase_add_test(tc, published_templates_give_what_transformers_gives);
    tcase_add_test(tc, the_assistants_words_and_their_end_are_scored);
    tcase_add_test(tc, no_space_is_put_between_header_and_reply);
    tcase_add_test(tc, marks_inside_a_message_are_text);
    tcase_add_test(tc, a_conversation_without_words_is_empty);
    tcase_add_test(tc, a_template_is_named_never_guessed);
    tcase_add_test(tc, every_name_is_a_form_and_marks_must_be_tokens);
    tcase_add_test(tc, broken_conversations_are_refused);
}
FL_TEST_MAIN("data chat", add_tests)
