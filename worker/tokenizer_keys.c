/* tokenizer_keys.c - see tokenizer_files.h: from tokenizer.json to GGUF. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"
#include "worker/data/tokenizer.h"
#include "worker/tokenizer_files.h"
#include "worker/tokenizer_files_internal.h"

enum { JSON_BYTES_MAX = 256 << 20 };

struct token {
    const char *text; /* borrowed from the JSON; NULL: the id has none */
    size_t length;
    enum fl_gguf_token type;
};

struct table {
    struct token *tokens; /* (count), owned */
    uint32_t count;
};

static enum fl_status place(struct table *table, const char *text, size_t length, const json_t *id,
                            enum fl_gguf_token type, struct fl_error *error)
{
    const json_int_t at = json_is_integer(id) ? json_integer_value(id) : -1;
    if (at < 0 || at >= table->count) {
        return fl_fail(error, FL_EFORMAT,
                       "tokenizer.json: token '%.60s' has an id outside the model's vocabulary",
                       text);
    }
    table->tokens[at] = (struct token){text, length, type};
    return FL_OK;
}

static enum fl_status fill(struct table *table, const json_t *root, struct fl_error *error)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    enum fl_status status = FL_OK;
    const char *name;
    size_t length;
    json_t *id;
    json_object_keylen_foreach(vocab, name, length, id)
    {
        if (status == FL_OK) {
            status = place(table, name, length, id, FL_GGUF_TOKEN_NORMAL, error);
        }
    }
    for (size_t i = 0; status == FL_OK && i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const json_t *text = json_object_get(token, "content");
        const bool special = json_is_true(json_object_get(token, "special"));
        if (!json_is_string(text)) {
            return fl_fail(error, FL_EFORMAT, "tokenizer.json: an added token has no content");
        }
        status = place(table, json_string_value(text), json_string_length(text),
                       json_object_get(token, "id"),
                       special ? FL_GGUF_TOKEN_CONTROL : FL_GGUF_TOKEN_USER, error);
    }
    return status;
}

static void put_tokens(const struct table *table, struct fl_gguf_writer *writer)
{
    fl_gguf_put_array(writer, "tokenizer.ggml.tokens", FL_GGUF_STRING, table->count);
    for (uint32_t i = 0; i < table->count; i++) {
        const struct token *token = &table->tokens[i];
        char filler[32];
        (void)snprintf(filler, sizeof filler, "[PAD%u]", i);
        fl_gguf_put_element_string(writer, token->text ? token->text : filler,
                                   token->text ? token->length : strlen(filler));
    }
    fl_gguf_put_array(writer, "tokenizer.ggml.token_type", FL_GGUF_I32, table->count);
    for (uint32_t i = 0; i < table->count; i++) {
        fl_gguf_put_element_i32(writer, table->tokens[i].text ? (int32_t)table->tokens[i].type
                                                              : FL_GGUF_TOKEN_UNUSED);
    }
}

/* A merge is "a b", or ["a", "b"] in newer files. */
static enum fl_status put_merges(const json_t *root, struct fl_gguf_writer *writer,
                                 struct fl_error *error)
{
    const json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    struct fl_buf line;
    fl_buf_init(&line, 1 << 20);
    fl_gguf_put_array(writer, "tokenizer.ggml.merges", FL_GGUF_STRING, json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i);
        const json_t *left = json_is_array(merge) ? json_array_get(merge, 0) : merge;
        const json_t *right = json_is_array(merge) ? json_array_get(merge, 1) : NULL;
        line.length = 0;
        fl_buf_append(&line, json_string_value(left), json_string_length(left));
        if (right) {
            fl_buf_append(&line, " ", 1);
            fl_buf_append(&line, json_string_value(right), json_string_length(right));
        }
        fl_gguf_put_element_string(writer, fl_buf_text(&line), line.length);
    }
    enum fl_status status = fl_buf_status(&line);
    fl_buf_free(&line);
    return status == FL_OK ? FL_OK : fl_fail_memory(error);
}

/* "bos_token" of tokenizer_config.json as an id key; a name that is not there puts none. */
static void put_named(const struct fl_tokenizer *tokenizer, const json_t *config, const char *name,
                      const char *key, struct fl_gguf_writer *writer)
{
    const json_t *value = json_object_get(config, name);
    value = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(value)) {
        return;
    }
    const int32_t id = fl_tokenizer_find(tokenizer, json_string_value(value),
                                         json_string_length(value));
    if (id >= 0) {
        fl_gguf_put_u32(writer, key, (uint32_t)id);
    }
}

static enum fl_status put_specials(struct fl_tokenizer *tokenizer, const char *directory,
                                   struct fl_gguf_writer *writer, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    json_t *config = NULL;
    struct fl_ids front = {0}, around = {0};
    struct fl_error absent = {0};
    size_t count = 0;
    const int32_t *eos = fl_tokenizer_eos_ids(tokenizer, &count);
    const int32_t bos = fl_tokenizer_bos(tokenizer);
    const char *template = fl_tokenizer_chat_template(tokenizer);
    enum fl_status status = fl_path_join(path, directory, "tokenizer_config.json", error);
    if (status == FL_OK && fl_json_load(path, JSON_BYTES_MAX, &config, &absent) == FL_ENOMEM) {
        status = fl_fail_memory(error);
    }
    if (status == FL_OK) {
        status = fl_tokenizer_encode(tokenizer, "", 0, FL_ENCODE_PREFIX_ONLY, &front, error);
    }
    if (status == FL_OK) {
        status = fl_tokenizer_encode(tokenizer, "", 0, FL_ENCODE_ADD_SPECIAL, &around, error);
    }
    if (status == FL_OK) {
        const bool starts = front.count == 1, ends = around.count == front.count + 1;
        if (bos >= 0 || starts) {
            fl_gguf_put_u32(writer, "tokenizer.ggml.bos_token_id",
                            (uint32_t)(starts ? front.ids[0] : bos));
        }
        if (count > 0) {
            fl_gguf_put_u32(writer, "tokenizer.ggml.eos_token_id", (uint32_t)eos[0]);
        }
        if (count > 1) {
            fl_gguf_put_u32(writer, "tokenizer.ggml.eot_token_id", (uint32_t)eos[1]);
        }
        fl_gguf_put_bool(writer, "tokenizer.ggml.add_bos_token", starts);
        fl_gguf_put_bool(writer, "tokenizer.ggml.add_eos_token", ends);
        put_named(tokenizer, config, "unk_token", "tokenizer.ggml.unknown_token_id", writer);
        put_named(tokenizer, config, "pad_token", "tokenizer.ggml.padding_token_id", writer);
        if (template) {
            fl_gguf_put_string(writer, "tokenizer.chat_template", template);
        }
    }
    json_decref(config);
    fl_ids_free(&front);
    fl_ids_free(&around);
    return status;
}

/* Does the tokenizer set a space in front of every text? GGUF has no word for that here. */
static enum fl_status adds_space(struct fl_tokenizer *tokenizer, bool *adds, struct fl_error *error)
{
    struct fl_ids bare = {0}, spaced = {0};
    enum fl_status status = fl_tokenizer_encode(tokenizer, "x", 1, 0, &bare, error);
    if (status == FL_OK) {
        status = fl_tokenizer_encode(tokenizer, " x", 2, 0, &spaced, error);
    }
    *adds = bare.count == spaced.count &&
            memcmp(bare.ids, spaced.ids, bare.count * sizeof *bare.ids) == 0;
    fl_ids_free(&bare);
    fl_ids_free(&spaced);
    return status;
}

static enum fl_status put_all(struct fl_tokenizer *tokenizer, const char *directory,
                              const json_t *root, uint32_t vocab, struct fl_gguf_writer *writer,
                              struct fl_error *error)
{
    struct table table = {.count = vocab};
    const uint32_t used = fl_tokenizer_vocab_size(tokenizer);
    if (used > vocab) {
        return fl_fail(error, FL_EFORMAT, "the tokenizer has %u tokens, the model %u", used, vocab);
    }
    table.tokens = fl_calloc(vocab, sizeof *table.tokens);
    if (!table.tokens) {
        return fl_fail_memory(error);
    }
    enum fl_status status = fill(&table, root, error);
    if (status == FL_OK) {
        fl_gguf_put_string(writer, "tokenizer.ggml.model", "gpt2");
        fl_gguf_put_string(writer, "tokenizer.ggml.pre", fl_tokenizer_pre_name(tokenizer));
        put_tokens(&table, writer);
        status = put_merges(root, writer, error);
    }
    if (status == FL_OK) {
        status = put_specials(tokenizer, directory, writer, error);
    }
    fl_free(table.tokens);
    return status;
}

enum fl_status fl_tokenizer_keys_put(const char *directory, uint32_t vocab,
                                     struct fl_gguf_writer *writer, bool *written,
                                     struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_tokenizer *tokenizer = NULL;
    json_t *root = NULL;
    bool spaced = false;
    *written = false;
    enum fl_status status = fl_tokenizer_open(directory, &tokenizer, error);
    if (status == FL_OK) {
        status = fl_path_join(path, directory, "tokenizer.json", error);
    }
    if (status == FL_OK) {
        status = fl_json_load(path, JSON_BYTES_MAX, &root, error);
    }
    if (status == FL_OK) {
        status = adds_space(tokenizer, &spaced, error);
    }
    if (status == FL_OK && spaced) {
        status = fl_fail(error, FL_EFORMAT,
                         "%s: it sets a space in front of texts, which GGUF can't say", path);
    }
    if (status == FL_ENOTFOUND || status == FL_EFORMAT) {
        status = FL_OK; /* the reason stands in *error */
    } else if (status == FL_OK) {
        status = put_all(tokenizer, directory, root, vocab, writer, error);
        *written = status == FL_OK;
    }
    json_decref(root);
    fl_tokenizer_close(tokenizer);
    return status;
}
