/* tokenizer_files.c - see tokenizer_files.h: from GGUF to tokenizer.json. */
#include "worker/tokenizer_files.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/data/tokenizer.h"
#include "worker/tokenizer_files_internal.h"

#define LLAMA3_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define LLAMA3_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What is being translated. */
struct source {
    struct fl_tokenizer *tokenizer;
    struct fl_gguf *file;
    struct fl_gguf_array tokens, types, merges;
    const char *directory;
    struct fl_error *error;
};

/* As JSON text, indented as Hugging Face does, into directory/name. Releases value. */
static enum fl_status write_json(const struct source *s, const char *name, json_t *value)
{
    char path[FL_PATH_BYTES];
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(value);
    if (!text) {
        return fl_fail_memory(s->error);
    }
    enum fl_status status = fl_path_join(path, s->directory, name, s->error);
    if (status == FL_OK) {
        status = fl_fs_write(path, text, strlen(text), 0644, s->error);
    }
    fl_free(text);
    return status;
}

static int64_t type_of(const struct source *s, uint64_t id)
{
    return s->types.count ? fl_gguf_array_i64(&s->types, id) : FL_GGUF_TOKEN_NORMAL;
}

/* {"token": id, ...}; tokens that fill up the table are left out. */
static enum fl_status vocab_of(const struct source *s, json_t **out)
{
    struct fl_gguf_array tokens = s->tokens;
    struct fl_gguf_string text;
    *out = json_object();
    for (uint64_t id = 0; *out && fl_gguf_array_next_string(&tokens, &text); id++) {
        if (type_of(s, id) == FL_GGUF_TOKEN_UNUSED) {
            continue;
        }
        json_t *name = json_stringn(text.data, text.length);
        json_decref(name);
        if (!name) {
            json_decref(*out);
            *out = NULL;
            return fl_fail(s->error, FL_EFORMAT, "token %llu is no UTF-8 text",
                           (unsigned long long)id);
        }
        if (json_object_setn_new(*out, text.data, text.length, json_integer((json_int_t)id)) != 0) {
            json_decref(*out);
            *out = NULL;
        }
    }
    return *out ? FL_OK : fl_fail_memory(s->error);
}

/* [["a", "b"], ...]: each line's halves stand around its first space behind the first character. */
static json_t *merges_of(const struct source *s)
{
    struct fl_gguf_array merges = s->merges;
    struct fl_gguf_string line;
    json_t *out = json_array();
    while (out && fl_gguf_array_next_string(&merges, &line)) {
        const char *space = line.length > 2 ? memchr(line.data + 1, ' ', line.length - 1) : NULL;
        const size_t left = space ? (size_t)(space - line.data) : 0;
        json_t *pair = space ? json_pack("[s%, s%]", line.data, left, space + 1,
                                         line.length - left - 1)
                             : NULL;
        if (!pair || json_array_append_new(out, pair) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *added_tokens_of(const struct source *s)
{
    struct fl_gguf_array tokens = s->tokens;
    struct fl_gguf_string text;
    json_t *out = json_array();
    for (uint64_t id = 0; out && fl_gguf_array_next_string(&tokens, &text); id++) {
        const int64_t type = type_of(s, id);
        if (type != FL_GGUF_TOKEN_CONTROL && type != FL_GGUF_TOKEN_USER) {
            continue;
        }
        json_t *token = json_pack("{s:I, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id,
                                  "content", text.data, text.length, "single_word", 0, "lstrip", 0,
                                  "rstrip", 0, "normalized", 0, "special",
                                  type == FL_GGUF_TOKEN_CONTROL);
        if (!token || json_array_append_new(out, token) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *byte_level(bool trim, bool use_regex, bool prefix)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", (int)prefix,
                     "trim_offsets", (int)trim, "use_regex", (int)use_regex);
}

static json_t *pre_tokenizer_of(const char *pre)
{
    if (strcmp(pre, "gpt-2") == 0) {
        return byte_level(true, true, false);
    }
    if (strcmp(pre, "smollm") == 0) {
        return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type",
                         "Digits", "individual_digits", 1, byte_level(true, true, false));
    }
    const char *regex = strcmp(pre, "qwen2") == 0 ? LLAMA3_HEAD "\\p{N}" LLAMA3_TAIL
                                                  : LLAMA3_HEAD "\\p{N}{1,3}" LLAMA3_TAIL;
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers",
                     "type", "Split", "pattern", "Regex", regex, "behavior", "Isolated", "invert",
                     0, byte_level(true, false, false));
}

/* One piece of a template, and the token in its table. */
static bool add_special(const struct source *s, int32_t id, json_t *pieces, json_t *table)
{
    const char *bytes;
    size_t length;
    if (!fl_tokenizer_token(s->tokenizer, id, &bytes, &length)) {
        return false;
    }
    json_t *piece = json_pack("{s:{s:s%, s:i}}", "SpecialToken", "id", bytes, length, "type_id", 0);
    json_t *entry = json_pack("{s:s%, s:[i], s:[s%]}", "id", bytes, length, "ids", (int)id,
                              "tokens", bytes, length);
    return json_array_append_new(pieces, piece) == 0 &&
           json_object_setn_new(table, bytes, length, entry) == 0;
}

/* The tokens that the GGUF file's flags put around a text, as a TemplateProcessing. */
static json_t *template_of(const struct source *s, const struct fl_ids *around, size_t front)
{
    json_t *pieces = json_array(), *table = json_object(), *pair = NULL;
    bool fine = pieces && table;
    for (size_t i = 0; fine && i <= around->count; i++) {
        if (i == front) {
            fine = json_array_append_new(pieces, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A",
                                                           "type_id", 0)) == 0;
        }
        if (fine && i < around->count) {
            fine = add_special(s, around->ids[i], pieces, table);
        }
    }
    if (fine) {
        pair = json_copy(pieces);
        fine = pair && json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id",
                                                             "B", "type_id", 1)) == 0;
    }
    if (!fine) {
        json_decref(pieces);
        json_decref(table);
        json_decref(pair);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", pieces, "pair",
                     pair, "special_tokens", table);
}

static enum fl_status post_processor_of(const struct source *s, json_t **out)
{
    struct fl_ids around = {0}, front = {0};
    enum fl_status status = fl_tokenizer_encode(s->tokenizer, "", 0, FL_ENCODE_ADD_SPECIAL, &around,
                                                s->error);
    if (status == FL_OK) {
        status = fl_tokenizer_encode(s->tokenizer, "", 0, FL_ENCODE_PREFIX_ONLY, &front, s->error);
    }
    if (status == FL_OK) {
        json_t *bytes = byte_level(false, true, true);
        *out = around.count == 0 ? bytes
                                 : json_pack("{s:s, s:[o, o]}", "type", "Sequence", "processors",
                                             bytes, template_of(s, &around, front.count));
        status = *out ? FL_OK : fl_fail_memory(s->error);
    }
    fl_ids_free(&around);
    fl_ids_free(&front);
    return status;
}

static enum fl_status write_tokenizer(const struct source *s)
{
    const char *pre = fl_tokenizer_pre_name(s->tokenizer);
    json_t *post = NULL, *vocab = NULL;
    enum fl_status status = post_processor_of(s, &post);
    if (status == FL_OK) {
        status = vocab_of(s, &vocab);
    }
    if (status != FL_OK) {
        json_decref(post);
        return status;
    }
    json_t *model = json_pack(
        "{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
        "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
        "ignore_merges", strcmp(pre, "llama-bpe") == 0, "vocab", vocab, "merges", merges_of(s));
    json_t *normalizer = strcmp(pre, "qwen2") == 0 ? json_pack("{s:s}", "type", "NFC")
                                                   : json_null();
    return write_json(s, "tokenizer.json",
                      json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0",
                                "truncation", "padding", "added_tokens", added_tokens_of(s),
                                "normalizer", normalizer, "pre_tokenizer", pre_tokenizer_of(pre),
                                "post_processor", post, "decoder", byte_level(true, true, true),
                                "model", model));
}

/* The text of a token by its id among the metadata, or JSON null. */
static json_t *named_token(const struct source *s, const char *key)
{
    uint64_t id;
    const char *bytes;
    size_t length;
    if (fl_gguf_u64(s->file, key, &id) != FL_OK || id > INT32_MAX ||
        !fl_tokenizer_token(s->tokenizer, (int32_t)id, &bytes, &length)) {
        return json_null();
    }
    return json_stringn(bytes, length);
}

static enum fl_status write_companions(const struct source *s)
{
    const char *template = fl_tokenizer_chat_template(s->tokenizer);
    const int32_t bos = fl_tokenizer_bos(s->tokenizer);
    size_t count = 0;
    const int32_t *eos = fl_tokenizer_eos_ids(s->tokenizer, &count);
    json_t *ids = json_array();
    for (size_t i = 0; ids && i < count; i++) {
        if (json_array_append_new(ids, json_integer(eos[i])) != 0) {
            json_decref(ids);
            ids = NULL;
        }
    }
    enum fl_status status =
        write_json(s, "tokenizer_config.json",
                   json_pack("{s:s, s:o, s:o, s:o, s:o, s:s*, s:b}", "tokenizer_class",
                             "PreTrainedTokenizerFast", "bos_token",
                             named_token(s, "tokenizer.ggml.bos_token_id"), "eos_token",
                             named_token(s, "tokenizer.ggml.eos_token_id"), "unk_token",
                             named_token(s, "tokenizer.ggml.unknown_token_id"), "pad_token",
                             named_token(s, "tokenizer.ggml.padding_token_id"), "chat_template",
                             template, "clean_up_tokenization_spaces", 0));
    if (status != FL_OK) {
        json_decref(ids);
        return status;
    }
    return write_json(s, "generation_config.json",
                      json_pack("{s:o, s:o}", "bos_token_id",
                                bos >= 0 ? json_integer(bos) : json_null(), "eos_token_id", ids));
}

enum fl_status fl_tokenizer_files_write(const char *gguf_path, const char *directory, bool *written,
                                        struct fl_error *error)
{
    struct source s = {.directory = directory, .error = error};
    *written = false;
    enum fl_status status = fl_tokenizer_open(gguf_path, &s.tokenizer, error);
    if (status != FL_OK) {
        return status == FL_ENOTFOUND || status == FL_EFORMAT ? FL_OK : status;
    }
    status = fl_gguf_open(gguf_path, &s.file, error);
    if (status == FL_OK && (fl_gguf_array(s.file, "tokenizer.ggml.tokens", &s.tokens) != FL_OK ||
                            fl_gguf_array(s.file, "tokenizer.ggml.merges", &s.merges) != FL_OK)) {
        (void)fl_fail(error, FL_EFORMAT, "%s: its tokenizer is no byte-level BPE", gguf_path);
        goto out; /* nothing is written */
    }
    if (status == FL_OK && fl_gguf_array(s.file, "tokenizer.ggml.token_type", &s.types) != FL_OK) {
        s.types.count = 0;
    }
    if (status == FL_OK) {
        status = write_tokenizer(&s);
    }
    if (status == FL_OK) {
        status = write_companions(&s);
    }
    *written = status == FL_OK;
out:
    fl_gguf_close(&s.file);
    fl_tokenizer_close(s.tokenizer);
    return status;
}
