/*
 * chat.c - see chat.h. A conversation is written from left to right: literals of the form and texts
 * of messages are gathered until a mark (a token of its own) or a border between what is scored and
 * what is not, and encoded then.
 */
#include "worker/data/chat.h"

#include <string.h>

#include "base/alloc.h"
#include "worker/data/chat_form.h"
#include "worker/data/row.h"
#include "worker/data/tokenizer_internal.h"
#include "worker/data/unicode.h"

#define GATHERED_BYTES_MAX                                                                         \
    (192u << 20) /* a system message in a user's, and the form's own words                         \
                  */

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };

/* A string of the form that is one token here. */
struct mark {
    const char *text;
    size_t length;
    int32_t id;
    bool lstrip, rstrip; /* it takes the spaces in front of it, behind it */
};

struct fl_chat {
    struct fl_tokenizer *tokenizer;
    struct fl_chat_form form;
    struct mark marks[FL_CHAT_MARKS_MAX + 2]; /* (mark_count); those of the form, BOS and EOS */
    size_t mark_count;
};

struct text {
    const char *bytes;
    size_t length;
};

struct message {
    enum role role;
    struct text text;
    struct fl_buf joined; /* holds the text where it was given in parts */
};

/* One conversation on its way into an example. */
struct writer {
    const struct fl_chat *chat;
    struct fl_example *out;
    struct fl_error *error;
    unsigned flags;         /* for encoding */
    unsigned place;         /* FL_ENCODE_BEHIND, FL_ENCODE_CONTINUES: where the next piece stands */
    struct fl_buf gathered; /* the next piece */
    bool scored;            /* whether it is */
    bool rstrip;            /* spaces are swallowed by the mark in front */
    bool headed;            /* out->head is known */
};

/* ---- spaces ---- */

/* As Python's str.strip(), which the templates use. */
static bool is_space(uint32_t code)
{
    return (code >= 0x1C && code <= 0x1F) || (fl_unicode_class(code) & FL_UC_SPACE) != 0;
}

static struct text trim_left(struct text text)
{
    size_t used;
    while (text.length > 0 && is_space(fl_utf8_next(text.bytes, text.length, &used))) {
        text.bytes += used;
        text.length -= used;
    }
    return text;
}

static struct text trim_right(struct text text)
{
    size_t used;
    while (text.length > 0 && is_space(fl_utf8_last(text.bytes, text.length, &used)))
        text.length -= used;
    return text;
}

static struct text trim(struct text text)
{
    return trim_left(trim_right(text));
}

/* ---- opening ---- */

static void add_mark(struct fl_chat *self, const char *text, const char *written, size_t length)
{
    const struct fl_added_token *token = fl_added_find(&self->tokenizer->raw, written, length);
    if (token == NULL)
        token = fl_added_find(&self->tokenizer->normalized, written, length);
    struct mark mark = {.text = text, .length = strlen(text)};
    mark.id = fl_tokenizer_find(self->tokenizer, written, length);
    if (token != NULL) {
        mark.lstrip = token->lstrip;
        mark.rstrip = token->rstrip;
    }
    if (mark.id >= 0)
        self->marks[self->mark_count++] = mark;
}

static void add_own(struct fl_chat *self, const char *text, int32_t id)
{
    const char *bytes;
    size_t length;
    if (id >= 0 && fl_tokenizer_token(self->tokenizer, id, &bytes, &length))
        add_mark(self, text, bytes, length);
}

static enum fl_status find_marks(struct fl_chat *self, struct fl_error *error)
{
    for (size_t i = 0; i < FL_CHAT_MARKS_MAX && self->form.marks[i] != NULL; i++) {
        const char *mark = self->form.marks[i];
        size_t before = self->mark_count;
        add_mark(self, mark, mark, strlen(mark));
        if (self->mark_count == before && self->form.needs_marks)
            return fl_fail(error, FL_EINVAL,
                           "the tokenizer has no token %s, which the chat template %s needs", mark,
                           self->form.name);
    }
    add_own(self, FL_CHAT_BOS, fl_tokenizer_bos(self->tokenizer));
    add_own(self, FL_CHAT_EOS, fl_tokenizer_eos(self->tokenizer));
    if (fl_tokenizer_eos(self->tokenizer) < 0 && strstr(self->form.stop, FL_CHAT_EOS) != NULL)
        return fl_fail(error, FL_EINVAL,
                       "the tokenizer names no end-of-sequence token, which the chat template %s "
                       "needs",
                       self->form.name);
    return FL_OK;
}

enum fl_status fl_chat_open(struct fl_tokenizer *tokenizer, const char *name, struct fl_chat **out,
                            struct fl_error *error)
{
    *out = NULL;
    struct fl_chat *self = fl_calloc(1, sizeof *self);
    if (self == NULL)
        return fl_fail_memory(error);
    self->tokenizer = tokenizer;
    enum fl_status status = name == NULL || strcmp(name, "auto") == 0
                                ? fl_chat_form_detect(fl_tokenizer_chat_template(tokenizer),
                                                      &self->form, error)
                                : fl_chat_form_named(name, &self->form, error);
    if (status == FL_OK)
        status = find_marks(self, error);
    if (status != FL_OK) {
        fl_chat_close(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

void fl_chat_close(struct fl_chat *self)
{
    fl_free(self);
}

/* ---- writing ---- */

static enum fl_status flush(struct writer *w)
{
    enum fl_status status = fl_buf_status(&w->gathered);
    if (status == FL_ENOMEM)
        return fl_fail_memory(w->error);
    if (status != FL_OK)
        return fl_fail(w->error, FL_EFORMAT, "a message is too long");
    if (w->gathered.length == 0)
        return FL_OK;
    status = fl_tokenizer_encode(w->chat->tokenizer, fl_buf_text(&w->gathered), w->gathered.length,
                                 w->flags | w->place, &w->out->ids, w->error);
    w->gathered.length = 0;
    w->place = FL_ENCODE_CONTINUES;
    return status == FL_OK ? fl_example_label(w->out, w->scored, w->error) : status;
}

static enum fl_status turn_scored(struct writer *w, bool scored)
{
    enum fl_status status = w->scored != scored ? flush(w) : FL_OK;
    w->scored = scored;
    return status;
}

static void gather(struct writer *w, struct text text)
{
    if (w->rstrip)
        text = trim_left(text);
    if (text.length == 0)
        return;
    w->rstrip = false;
    fl_buf_append(&w->gathered, text.bytes, text.length);
}

static enum fl_status put_mark(struct writer *w, const struct mark *mark)
{
    if (mark->lstrip)
        w->gathered.length =
            trim_right((struct text){fl_buf_text(&w->gathered), w->gathered.length}).length;
    enum fl_status status = flush(w);
    if (status == FL_OK && fl_ids_push(&w->out->ids, mark->id) != FL_OK)
        status = fl_fail_memory(w->error);
    w->place = FL_ENCODE_BEHIND;
    w->rstrip = mark->rstrip;
    return status == FL_OK ? fl_example_label(w->out, w->scored, w->error) : status;
}

static const struct mark *mark_at(const struct fl_chat *chat, const char *text)
{
    for (size_t i = 0; i < chat->mark_count; i++) {
        if (strncmp(text, chat->marks[i].text, chat->marks[i].length) == 0)
            return &chat->marks[i];
    }
    return NULL;
}

/* A literal of the form. BOS and EOS that the tokenizer does not have are left out. */
static enum fl_status put_literal(struct writer *w, const char *literal, bool scored)
{
    enum fl_status status = turn_scored(w, scored);
    for (const char *at = literal; status == FL_OK && *at != '\0';) {
        const struct mark *mark = mark_at(w->chat, at);
        if (mark != NULL)
            status = put_mark(w, mark);
        else if (*at != FL_CHAT_BOS[0] && *at != FL_CHAT_EOS[0])
            gather(w, (struct text){at, 1});
        at += mark != NULL ? mark->length : 1;
    }
    return status;
}

static enum fl_status put_text(struct writer *w, struct text text, bool scored)
{
    enum fl_status status = turn_scored(w, scored);
    if (status == FL_OK)
        gather(w, text);
    return status;
}

/* What stands in front of the first message's text is the head, which a cut takes last. */
static enum fl_status note_head(struct writer *w)
{
    struct fl_ids literal = {0};
    enum fl_status status = FL_OK;
    if (w->headed)
        return FL_OK;
    if (w->gathered.length > 0)
        status = fl_tokenizer_encode(w->chat->tokenizer, fl_buf_text(&w->gathered),
                                     w->gathered.length, w->flags | w->place, &literal, w->error);
    w->out->head = w->out->ids.count + literal.count;
    w->headed = true;
    fl_ids_free(&literal);
    return status;
}

/* ---- turns ---- */

static enum fl_status put_turn(struct writer *w, const struct fl_chat_turn *turn, struct text text)
{
    enum fl_status status = put_literal(w, turn->open, false);
    if (status == FL_OK)
        status = note_head(w);
    if (status == FL_OK)
        status = put_text(w, text, false);
    return status == FL_OK ? put_literal(w, turn->close, false) : status;
}

static enum fl_status put_reply(struct writer *w, struct text text)
{
    const struct fl_chat_form *form = &w->chat->form;
    enum fl_status status = put_literal(w, form->header, false);
    if (status == FL_OK)
        status = put_literal(w, form->lead, true);
    if (status == FL_OK)
        status = put_text(w, form->trims || form->trims_reply ? trim(text) : text, true);
    if (status == FL_OK)
        status = put_literal(w, form->stop, true);
    return status == FL_OK ? put_literal(w, form->tail, false) : status;
}

/* A user's turn; system: NULL, or a text that stands in front of its own. */
static enum fl_status put_user(struct writer *w, struct text text, const struct text *system)
{
    const struct fl_chat_form *form = &w->chat->form;
    if (form->trims)
        text = system != NULL && form->trims_joined ? trim_right(text) : trim(text);
    if (system == NULL)
        return put_turn(w, &form->user, text);
    enum fl_status status = put_literal(w, form->user.open, false);
    if (status == FL_OK)
        status = put_literal(w, form->system.open, false);
    if (status == FL_OK)
        status = note_head(w);
    if (status == FL_OK)
        status = put_text(w, form->trims_system ? trim(*system) : *system, false);
    if (status == FL_OK)
        status = put_literal(w, form->system.close, false);
    if (status == FL_OK)
        status = put_text(w, text, false);
    return status == FL_OK ? put_literal(w, form->user.close, false) : status;
}

static enum fl_status put_system(struct writer *w, struct text text)
{
    const struct fl_chat_form *form = &w->chat->form;
    return put_turn(w, &form->system, form->trims || form->trims_system ? trim(text) : text);
}

/* In front of the messages; first: the role of the first one. */
static enum fl_status put_start(struct writer *w, enum role first)
{
    const struct fl_chat_form *form = &w->chat->form;
    enum fl_status status = put_literal(w, form->start, false);
    bool absent = first != ROLE_SYSTEM && form->system_place == FL_CHAT_SYSTEM_OWN;
    if (status != FL_OK || !absent || (!form->always_system && form->default_system_length == 0))
        return status;
    return put_turn(w, &form->system,
                    (struct text){form->default_system, form->default_system_length});
}

/* ---- messages as they are given ---- */

static bool role_of(const char *name, enum role *out)
{
    static const struct {
        const char *name;
        enum role role;
    } ROLES[] = {
        {"system", ROLE_SYSTEM},       {"user", ROLE_USER},     {"human", ROLE_USER},
        {"assistant", ROLE_ASSISTANT}, {"gpt", ROLE_ASSISTANT}, {"chatgpt", ROLE_ASSISTANT},
        {"tool", ROLE_TOOL},
    };
    for (size_t i = 0; name != NULL && i < sizeof ROLES / sizeof ROLES[0]; i++) {
        *out = ROLES[i].role;
        if (strcmp(ROLES[i].name, name) == 0)
            return true;
    }
    return false;
}

/* A list of parts, which must all be text. */
static bool join_parts(const json_t *parts, struct fl_buf *out)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        if (!json_is_string(text))
            return false;
        fl_buf_append(out, json_string_value(text), json_string_length(text));
    }
    return true;
}

static enum fl_status read_message(const json_t *entry, bool sharegpt, struct message *out,
                                   struct fl_error *error)
{
    const json_t *content = json_object_get(entry, sharegpt ? "value" : "content");
    fl_buf_init(&out->joined, GATHERED_BYTES_MAX);
    if (!role_of(json_string_value(json_object_get(entry, sharegpt ? "from" : "role")), &out->role))
        return fl_fail(error, FL_EFORMAT, "\"%s\" is missing or no role that is known",
                       sharegpt ? "from" : "role");
    out->text = (struct text){json_string_value(content), json_string_length(content)};
    bool fine = json_is_string(content);
    if (json_is_array(content)) {
        fine = join_parts(content, &out->joined);
        if (fl_buf_status(&out->joined) != FL_OK)
            return fl_fail_memory(error);
        out->text = (struct text){fl_buf_text(&out->joined), out->joined.length};
    }
    return fine ? FL_OK
                : fl_fail(error, FL_EFORMAT, "\"%s\" is missing or not text",
                          sharegpt ? "value" : "content");
}

/* ---- a conversation ---- */

struct conversation {
    const json_t *messages;
    bool sharegpt;
    size_t count, at;
    struct message system; /* the first message where that is the system's */
    bool has_system;
    bool answered, worded; /* there is an assistant's turn; one has words */
};

/* The roles that the form's template would refuse. */
static enum fl_status check_role(const struct writer *w, const struct conversation *c,
                                 enum role role)
{
    const struct fl_chat_form *form = &w->chat->form;
    bool own = form->system_place == FL_CHAT_SYSTEM_OWN;
    if (role == ROLE_TOOL && form->tool.open == NULL)
        return fl_fail(w->error, FL_EFORMAT, "a tool's message in the chat template %s is not read",
                       form->name);
    if (role == ROLE_SYSTEM && form->system_place == FL_CHAT_SYSTEM_REFUSED)
        return fl_fail(w->error, FL_EFORMAT, "the chat template %s has no system messages",
                       form->name);
    if (role == ROLE_SYSTEM && c->at > 0 && (!own || form->always_system))
        return fl_fail(w->error, FL_EFORMAT,
                       "in the chat template %s only the first message can be the system's",
                       form->name);
    enum role due = (c->at - c->has_system) % 2 == 0 ? ROLE_USER : ROLE_ASSISTANT;
    if (form->alternates && role != ROLE_SYSTEM && role != due)
        return fl_fail(w->error, FL_EFORMAT,
                       "in the chat template %s user and assistant take turns, the user first",
                       form->name);
    return FL_OK;
}

static const struct text *joined_system(const struct writer *w, const struct conversation *c)
{
    enum fl_chat_system place = w->chat->form.system_place;
    bool here = (place == FL_CHAT_SYSTEM_IN_FIRST && c->at == 1) ||
                (place == FL_CHAT_SYSTEM_IN_LAST && c->at + 1 == c->count);
    return c->has_system && here ? &c->system.text : NULL;
}

static enum fl_status put_message(struct writer *w, struct conversation *c,
                                  const struct message *message)
{
    enum fl_status status = check_role(w, c, message->role);
    if (status == FL_OK && c->at == 0)
        status = put_start(w, message->role);
    if (status != FL_OK)
        return status;
    switch (message->role) {
    case ROLE_SYSTEM:
        return w->chat->form.system_place == FL_CHAT_SYSTEM_OWN ? put_system(w, message->text)
                                                                : FL_OK;
    case ROLE_ASSISTANT:
        c->answered = true;
        c->worded = c->worded || trim(message->text).length > 0;
        return put_reply(w, message->text);
    case ROLE_TOOL:
        return put_turn(w, &w->chat->form.tool, message->text);
    case ROLE_USER:
        break;
    }
    return put_user(w, message->text, joined_system(w, c));
}

static enum fl_status put_next(struct writer *w, struct conversation *c)
{
    struct message message = {.role = ROLE_USER};
    enum fl_status status = read_message(json_array_get(c->messages, c->at), c->sharegpt, &message,
                                         w->error);
    if (status == FL_OK)
        status = put_message(w, c, &message);
    if (status == FL_EFORMAT)
        fl_error_prefix(w->error, "message %zu", c->at + 1);
    if (c->at == 0 && status == FL_OK && message.role == ROLE_SYSTEM) {
        c->has_system = true; /* it lives until the conversation has been written */
        c->system = message;
    } else {
        fl_buf_free(&message.joined);
    }
    return status;
}

static void begin(struct writer *w)
{
    fl_buf_init(&w->gathered, GATHERED_BYTES_MAX);
}

/* status, or that of what was still gathered. */
static enum fl_status finish(struct writer *w, enum fl_status status)
{
    if (status == FL_OK)
        status = flush(w);
    fl_buf_free(&w->gathered);
    return status;
}

enum fl_status fl_chat_row(struct fl_chat *self, const json_t *messages, bool sharegpt,
                           bool specials_plain, struct fl_example *out, struct fl_error *error)
{
    struct writer w = {.chat = self,
                       .out = out,
                       .error = error,
                       .flags = specials_plain ? FL_ENCODE_SPECIALS_PLAIN : 0};
    struct conversation c = {
        .messages = messages, .sharegpt = sharegpt, .count = json_array_size(messages)};
    if (!json_is_array(messages))
        return fl_fail(error, FL_EFORMAT, "the conversation is not an array");
    begin(&w);
    enum fl_status status = FL_OK;
    for (; status == FL_OK && c.at < c.count; c.at++)
        status = put_next(&w, &c);
    if (status == FL_OK && c.count > 0)
        status = put_literal(&w, self->form.end, false);
    status = finish(&w, status);
    if (c.has_system)
        fl_buf_free(&c.system.joined);
    out->empty = c.count == 0 || (c.answered && !c.worded);
    return status;
}

enum fl_status fl_chat_prompt(struct fl_tokenizer *tokenizer, const char *name, const char *user,
                              size_t length, struct fl_ids *ids, struct fl_error *error)
{
    struct fl_chat *chat;
    struct fl_example example = {0};
    enum fl_status status = fl_chat_open(tokenizer, name, &chat, error);
    if (status != FL_OK)
        return status;
    struct writer w = {
        .chat = chat, .out = &example, .error = error, .flags = FL_ENCODE_SPECIALS_PLAIN};
    begin(&w);
    status = put_start(&w, ROLE_USER);
    if (status == FL_OK)
        status = put_user(&w, (struct text){user, length}, NULL);
    if (status == FL_OK)
        status = put_literal(&w, chat->form.header, false);
    status = finish(&w, status);
    if (status == FL_OK && fl_ids_append(ids, example.ids.ids, example.ids.count) != FL_OK)
        status = fl_fail_memory(error);
    fl_example_free(&example);
    fl_chat_close(chat);
    return status;
}
