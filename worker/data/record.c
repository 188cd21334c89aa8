/*
 * record.c - see record.h. Prompt and completion are tokenised apart and joined, so that the
 * boundary between what is scored and what is not is known and needs no search.
 */
#include "worker/data/record.h"

#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "worker/data/chat.h"

/* What the kinds of rows need, in one place. */
struct context {
    const json_t *row;
    struct fl_reader *reader;
    struct fl_tokenizer *tokenizer; /* the reader's */
    const struct fl_dataset_options *options;
    struct fl_example *out;
    struct fl_error *error;
};

struct text {
    const char *bytes;
    size_t length;
};

/* Encode, and label what came out. */
static enum fl_status put(struct context *c, const struct text *text, unsigned flags, bool scored)
{
    if (c->options->specials_plain)
        flags |= FL_ENCODE_SPECIALS_PLAIN;
    enum fl_status status = fl_tokenizer_encode(c->tokenizer, text->bytes, text->length, flags,
                                                &c->out->ids, c->error);
    return status == FL_OK ? fl_example_label(c->out, scored, c->error) : status;
}

static enum fl_status put_eos(struct context *c)
{
    int32_t eos = fl_tokenizer_eos(c->tokenizer);
    if (!c->options->add_eos)
        return FL_OK;
    if (eos < 0)
        return fl_fail(c->error, FL_EINVAL,
                       "the model's tokenizer names no end-of-sequence token to append");
    if (fl_ids_push(&c->out->ids, eos) != FL_OK)
        return fl_fail_memory(c->error);
    return fl_example_label(c->out, true, c->error);
}

static bool is_blank(const struct text *text)
{
    for (size_t i = 0; i < text->length; i++) {
        if (memchr(" \t\r\n", text->bytes[i], 4) == NULL)
            return false;
    }
    return true;
}

/* A member that must be a string. */
static enum fl_status text_of(struct context *c, const char *key, struct text *out)
{
    const json_t *value = json_object_get(c->row, key);
    if (!json_is_string(value))
        return fl_fail(c->error, FL_EFORMAT, "\"%s\" is missing or not a string", key);
    *out = (struct text){json_string_value(value), json_string_length(value)};
    return FL_OK;
}

static enum fl_status row_text(struct context *c)
{
    struct text text;
    enum fl_status status = text_of(c, "text", &text);
    if (status != FL_OK)
        return status;
    c->out->empty = is_blank(&text);
    status = put(c, &text, FL_ENCODE_ADD_SPECIAL, true);
    return status == FL_OK ? put_eos(c) : status;
}

/*
 * Prompt, completion and end. Only where the row is too long for its options it matters which ids
 * of the prompt come from its first head_bytes (and the template's prefix).
 */
static enum fl_status put_pair(struct context *c, const struct text *prompt, size_t head_bytes,
                               const struct text *completion)
{
    c->out->empty = is_blank(completion);
    enum fl_status status = put(c, prompt, FL_ENCODE_PREFIX_ONLY, false);
    if (status == FL_OK)
        status = put(c, completion, 0, true);
    if (status == FL_OK)
        status = put_eos(c);
    if (status != FL_OK || c->out->ids.count <= c->options->seq_len)
        return status;
    struct fl_ids head = {0};
    status = fl_tokenizer_encode(c->tokenizer, prompt->bytes, head_bytes, FL_ENCODE_PREFIX_ONLY,
                                 &head, c->error);
    c->out->head = head.count;
    fl_ids_free(&head);
    return status;
}

static enum fl_status row_prompt(struct context *c)
{
    struct text prompt, completion;
    enum fl_status status = text_of(c, "prompt", &prompt);
    if (status == FL_OK)
        status = text_of(c, "completion", &completion);
    return status == FL_OK ? put_pair(c, &prompt, 0, &completion) : status;
}

static void put_bytes(struct fl_buf *out, const char *title, const struct text *text)
{
    fl_buf_append(out, title, strlen(title));
    fl_buf_append(out, text->bytes, text->length);
}

/* Stanford Alpaca's prompt, which the models of that family are trained with. */
static void write_alpaca(struct fl_buf *out, const struct text *instruction,
                         const struct text *input, size_t *head_bytes)
{
    const bool has_input = input->length > 0;
    fl_buf_printf(out,
                  "Below is an instruction that describes a task%s. Write a response that "
                  "appropriately completes the request.\n\n### Instruction:\n",
                  has_input ? ", paired with an input that provides further context" : "");
    *head_bytes = out->length;
    put_bytes(out, "", instruction);
    if (has_input)
        put_bytes(out, "\n\n### Input:\n", input);
    put_bytes(out, "\n\n### Response:\n", &(struct text){"", 0});
}

static enum fl_status row_instruction(struct context *c)
{
    struct text instruction, output, input = {"", 0};
    enum fl_status status = text_of(c, "instruction", &instruction);
    if (status == FL_OK)
        status = text_of(c, "output", &output);
    const json_t *given = json_object_get(c->row, "input");
    if (status == FL_OK && given != NULL && !json_is_null(given))
        status = text_of(c, "input", &input);
    if (status != FL_OK)
        return status;
    size_t head_bytes;
    struct fl_buf prompt;
    fl_buf_init(&prompt, 2ull * FL_DATASET_RECORD_BYTES_MAX);
    write_alpaca(&prompt, &instruction, &input, &head_bytes);
    status = fl_buf_status(&prompt);
    struct text text = {fl_buf_text(&prompt), prompt.length};
    status = status == FL_OK ? put_pair(c, &text, head_bytes, &output) : fl_fail_memory(c->error);
    fl_buf_free(&prompt);
    return status;
}

/* An array of whole numbers within [0, vocabulary), or FL_IGNORE where that is allowed. */
static enum fl_status numbers(struct context *c, const char *key, bool ignore, struct fl_ids *out)
{
    const json_t *array = json_object_get(c->row, key);
    uint32_t vocab = c->options->vocab_size;
    if (vocab == 0 && c->tokenizer != NULL)
        vocab = fl_tokenizer_vocab_size(c->tokenizer);
    if (!json_is_array(array))
        return fl_fail(c->error, FL_EFORMAT, "\"%s\" is not an array", key);
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *value = json_array_get(array, i);
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        bool fine = (id >= 0 && id < vocab) || (ignore && id == FL_IGNORE);
        if (!fine)
            return fl_fail(c->error, FL_EFORMAT,
                           "\"%s\" number %zu is no token id of this model (0..%u)", key, i + 1,
                           vocab > 0 ? vocab - 1 : 0);
        if (fl_ids_push(out, (int32_t)id) != FL_OK)
            return fl_fail_memory(c->error);
    }
    return FL_OK;
}

static enum fl_status row_ids(struct context *c)
{
    struct fl_example *out = c->out;
    enum fl_status status = numbers(c, "input_ids", false, &out->ids);
    const json_t *labels = json_object_get(c->row, "labels");
    if (status != FL_OK)
        return status;
    out->empty = out->ids.count == 0;
    out->given = labels != NULL && !json_is_null(labels);
    if (!out->given)
        return fl_example_label(out, true, c->error);
    out->head = c->tokenizer != NULL && out->ids.count > 0 &&
                out->ids.ids[0] == fl_tokenizer_bos(c->tokenizer);
    status = numbers(c, "labels", true, &out->labels);
    if (status == FL_OK && out->labels.count != out->ids.count)
        return fl_fail(c->error, FL_EFORMAT, "%zu input_ids but %zu labels", out->ids.count,
                       out->labels.count);
    return status;
}

static enum fl_status row_chat(struct context *c)
{
    bool sharegpt = json_object_get(c->row, "messages") == NULL;
    const json_t *messages = json_object_get(c->row, sharegpt ? "conversations" : "messages");
    enum fl_status status = FL_OK;
    if (c->reader->chat == NULL)
        status = fl_chat_open(c->tokenizer, c->options->chat_template, &c->reader->chat, c->error);
    return status == FL_OK ? fl_chat_row(c->reader->chat, messages, sharegpt,
                                         c->options->specials_plain, c->out, c->error)
                           : status;
}

static const struct {
    const char *key;
    bool needs_tokenizer;
    enum fl_status (*read)(struct context *c);
} KINDS[] = {
    {"input_ids", false, row_ids},          {"messages", true, row_chat},
    {"conversations", true, row_chat},      {"prompt", true, row_prompt},
    {"instruction", true, row_instruction}, {"text", true, row_text},
};

static enum fl_status read_row(struct context *c)
{
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (json_object_get(c->row, KINDS[i].key) == NULL)
            continue;
        if (KINDS[i].needs_tokenizer && c->tokenizer == NULL)
            return fl_fail(c->error, FL_EINVAL, "\"%s\" needs a tokenizer, and none is given",
                           KINDS[i].key);
        return KINDS[i].read(c);
    }
    return fl_fail(c->error, FL_EFORMAT,
                   "none of the keys text, prompt, instruction, messages, conversations and "
                   "input_ids is there");
}

enum fl_status fl_record_parse(const char *text, size_t length, json_t **out,
                               struct fl_place *place, struct fl_error *error)
{
    json_error_t reason = {.line = 0};
    bool refused;
    *out = fl_json_read(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason, &refused);
    if (*out != NULL)
        return FL_OK;
    if (refused || json_error_code(&reason) == json_error_out_of_memory)
        return fl_fail_memory(error);
    uint64_t line = reason.line > 1 ? (uint64_t)reason.line - 1 : 0;
    uint64_t column = reason.column > 1 ? (uint64_t)reason.column : 1;
    *place = (struct fl_place){place->line + line, line > 0 ? column : place->column + column - 1};
    /* not what stands there: a site's reasons may be told to others, its data never */
    const char *quote = strstr(reason.text, " near ");
    size_t told = quote != NULL ? (size_t)(quote - reason.text) : strlen(reason.text);
    return fl_fail(error, FL_EFORMAT, "not valid JSON: %.*s", (int)told, reason.text);
}

void fl_reader_end(struct fl_reader *self)
{
    fl_chat_close(self->chat);
    self->chat = NULL;
}

enum fl_status fl_record_row(const json_t *record, struct fl_reader *reader, struct fl_example *out,
                             struct fl_error *error)
{
    fl_example_clear(out);
    struct context c = {record, reader, reader->tokenizer, reader->options, out, error};
    return json_is_object(record) ? read_row(&c)
                                  : fl_fail(error, FL_EFORMAT, "it is not a JSON object");
}

static int hash_piece(const char *bytes, size_t length, void *context)
{
    fl_blake2b_update(context, bytes, length);
    return 0;
}

static void begin_draw(struct fl_blake2b *hash, uint64_t seed)
{
    uint8_t key[16] = {0};
    fl_store_u64(key, seed);
    fl_blake2b_init(hash, key, sizeof key);
}

static double end_draw(struct fl_blake2b *hash)
{
    uint8_t digest[FL_HASH_BYTES];
    fl_blake2b_final(hash, digest);
    return (double)(fl_load_u64(digest) >> 11) * 0x1p-53;
}

enum fl_status fl_record_draw(const json_t *record, uint64_t seed, double *out)
{
    struct fl_blake2b hash;
    begin_draw(&hash, seed);
    int failed = json_dump_callback(record, hash_piece, &hash,
                                    JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    *out = end_draw(&hash);
    return failed ? FL_ENOMEM : FL_OK;
}

double fl_record_draw_ids(const int32_t *ids, size_t count, uint64_t seed)
{
    struct fl_blake2b hash;
    begin_draw(&hash, seed);
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[4];
        fl_store_u32(bytes, (uint32_t)ids[i]);
        fl_blake2b_update(&hash, bytes, sizeof bytes);
    }
    return end_draw(&hash);
}
