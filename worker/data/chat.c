/* chat.c - ChatML; see chat.h. Source: OpenAI's chat markup as in the templates of SmolLM2, Qwen.
 */
#include "worker/data/chat.h"

#include <string.h>

#include "worker/data/row.h"

#define START             "<|im_start|>"
#define STOP              "<|im_end|>"
#define MESSAGE_BYTES_MAX (64u << 20)

struct chat {
    struct fl_tokenizer *tokenizer;
    int32_t start, stop;
    unsigned flags;
    struct fl_ids *ids, *labels; /* labels may be NULL */
    struct fl_error *error;
};

enum fl_status fl_chat_check(const struct fl_tokenizer *tokenizer, struct fl_error *error)
{
    const char *template = fl_tokenizer_chat_template(tokenizer);
    if (template == NULL)
        return fl_fail(error, FL_EINVAL,
                       "this model has no chat template; give prompt and "
                       "completion instead of a conversation");
    if (strstr(template, START) == NULL || fl_tokenizer_find(tokenizer, START, strlen(START)) < 0 ||
        fl_tokenizer_find(tokenizer, STOP, strlen(STOP)) < 0)
        return fl_fail(error, FL_EINVAL,
                       "this model's chat template is not ChatML, the only one "
                       "supported; give prompt and completion instead of a conversation");
    return FL_OK;
}

static enum fl_status begin(struct chat *self, struct fl_tokenizer *tokenizer, bool specials_plain,
                            struct fl_error *error)
{
    self->tokenizer = tokenizer;
    self->error = error;
    self->flags = specials_plain ? FL_ENCODE_SPECIALS_PLAIN : 0;
    self->start = fl_tokenizer_find(tokenizer, START, strlen(START));
    self->stop = fl_tokenizer_find(tokenizer, STOP, strlen(STOP));
    return fl_chat_check(tokenizer, error);
}

static enum fl_status label_rest(struct chat *self, bool scored)
{
    enum fl_status status = FL_OK;
    if (self->labels == NULL)
        return FL_OK;
    for (size_t i = self->labels->count; status == FL_OK && i < self->ids->count; i++)
        status = fl_ids_push(self->labels, scored ? self->ids->ids[i] : FL_IGNORE);
    return status == FL_OK ? FL_OK : fl_fail_memory(self->error);
}

static enum fl_status put_text(struct chat *self, const char *text, size_t length, bool scored)
{
    enum fl_status status = fl_tokenizer_encode(self->tokenizer, text, length, self->flags,
                                                self->ids, self->error);
    return status == FL_OK ? label_rest(self, scored) : status;
}

static enum fl_status put_id(struct chat *self, int32_t id, bool scored)
{
    if (fl_ids_push(self->ids, id) != FL_OK)
        return fl_fail_memory(self->error);
    return label_rest(self, scored);
}

/* "<|im_start|>ROLE\n" and, unless scored, the text tokenised with it as the template has it. */
static enum fl_status put_message(struct chat *self, const char *role, const char *text,
                                  size_t length)
{
    bool scored = strcmp(role, "assistant") == 0;
    struct fl_buf head;
    fl_buf_init(&head, MESSAGE_BYTES_MAX + 64);
    fl_buf_printf(&head, "%s\n", role);
    if (!scored)
        fl_buf_append(&head, text, length);
    enum fl_status status = fl_buf_status(&head);
    if (status != FL_OK)
        fl_fail(self->error, status, "a message is too long");
    if (status == FL_OK)
        status = put_id(self, self->start, false);
    if (status == FL_OK)
        status = put_text(self, fl_buf_text(&head), head.length, false);
    fl_buf_free(&head);
    if (status == FL_OK && scored)
        status = put_text(self, text, length, true);
    if (status == FL_OK)
        status = put_id(self, self->stop, scored);
    return status == FL_OK ? put_text(self, "\n", 1, false) : status;
}

/*
 * The default system message: text between "<|im_start|>system\n" and "<|im_end|>" that is one
 * literal of the template (no quote, no brace inside). NULL when there is none.
 */
static const char *default_system(const char *template, size_t *length)
{
    static const char MARK[] = START "system";
    for (const char *at = strstr(template, MARK); at != NULL; at = strstr(at, MARK)) {
        at += sizeof MARK - 1;
        const char *text = *at == '\n' ? at + 1 : strncmp(at, "\\n", 2) == 0 ? at + 2 : NULL;
        const char *stop = text != NULL ? strstr(text, STOP) : NULL;
        if (stop == NULL)
            continue;
        *length = (size_t)(stop - text);
        if (strcspn(text, "'\"{}\\") >= *length)
            return text;
    }
    return NULL;
}

static enum fl_status put_default_system(struct chat *self)
{
    size_t length;
    const char *text = default_system(fl_tokenizer_chat_template(self->tokenizer), &length);
    return text != NULL ? put_message(self, "system", text, length) : FL_OK;
}

/* The role that a name stands for, or NULL. */
static const char *role_of(const char *name)
{
    static const char *const ROLES[][2] = {
        {"system", "system"}, {"user", "user"},  {"assistant", "assistant"},
        {"tool", "tool"},     {"human", "user"}, {"gpt", "assistant"},
    };
    for (size_t i = 0; name != NULL && i < sizeof ROLES / sizeof ROLES[0]; i++) {
        if (strcmp(ROLES[i][0], name) == 0)
            return ROLES[i][1];
    }
    return NULL;
}

static enum fl_status put_entry(struct chat *self, const json_t *entry, bool sharegpt, bool first)
{
    const char *role =
        role_of(json_string_value(json_object_get(entry, sharegpt ? "from" : "role")));
    const json_t *content = json_object_get(entry, sharegpt ? "value" : "content");
    if (role == NULL || !json_is_string(content))
        return fl_fail(self->error, FL_EFORMAT, "a message has no known role or no text");
    enum fl_status status = FL_OK;
    if (first && strcmp(role, "system") != 0)
        status = put_default_system(self);
    if (status != FL_OK)
        return status;
    return put_message(self, role, json_string_value(content), json_string_length(content));
}

enum fl_status fl_chat_row(struct fl_tokenizer *tokenizer, const json_t *messages, bool sharegpt,
                           bool specials_plain, struct fl_ids *ids, struct fl_ids *labels,
                           struct fl_error *error)
{
    struct chat self = {.ids = ids, .labels = labels};
    enum fl_status status = begin(&self, tokenizer, specials_plain, error);
    if (status == FL_OK && !json_is_array(messages))
        return fl_fail(error, FL_EFORMAT, "the conversation is not an array");
    for (size_t i = 0; status == FL_OK && i < json_array_size(messages); i++)
        status = put_entry(&self, json_array_get(messages, i), sharegpt, i == 0);
    return status;
}

enum fl_status fl_chat_prompt(struct fl_tokenizer *tokenizer, const char *user, size_t length,
                              struct fl_ids *ids, struct fl_error *error)
{
    struct chat self = {.ids = ids};
    enum fl_status status = begin(&self, tokenizer, true, error);
    if (status == FL_OK)
        status = put_default_system(&self);
    if (status == FL_OK)
        status = put_message(&self, "user", user, length);
    if (status == FL_OK)
        status = put_id(&self, self.start, false);
    return status == FL_OK ? put_text(&self, "assistant\n", 10, false) : status;
}
