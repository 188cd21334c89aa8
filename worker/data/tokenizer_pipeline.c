/*
 * tokenizer_pipeline.c - which pipelines are ours. Whatever is not recognised exactly is refused:
 * a tokenizer that is nearly right trains a model on the wrong ids without anyone noticing.
 */
#include "worker/data/tokenizer_pipeline.h"

#include <string.h>

#include "base/alloc.h"
#include "base/limits.h"

#define TEMPLATE_BYTES_MAX (1u << 20)

static const char *type_of(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    return type != NULL ? type : "?";
}

static bool has_type(const json_t *value, const char *type)
{
    return strcmp(type_of(value), type) == 0;
}

static bool flag(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

/* ---- normalizer ---- */

/* {"pattern": {"String": from}, "content": to} */
static bool replaces(const json_t *value, const char *from, const char *to)
{
    const char *pattern =
        json_string_value(json_object_get(json_object_get(value, "pattern"), "String"));
    const char *content = json_string_value(json_object_get(value, "content"));
    return has_type(value, "Replace") && pattern != NULL && content != NULL &&
           strcmp(pattern, from) == 0 && strcmp(content, to) == 0;
}

/* The steps do not touch each other's characters: their order does not matter. */
static bool read_normalizer(struct fl_tokenizer *self, const json_t *value)
{
    const char *prefix = json_string_value(json_object_get(value, "prepend"));
    if (has_type(value, "NFC")) {
        self->nfc = true;
        return true;
    }
    if (has_type(value, "Prepend") && prefix != NULL && strcmp(prefix, FL_MARK) == 0 &&
        !self->mark_prefix) {
        self->mark_prefix = true;
        return true;
    }
    if (!replaces(value, " ", FL_MARK))
        return false;
    self->mark_spaces = true;
    return true;
}

enum fl_status fl_pipeline_normalizer(struct fl_tokenizer *self, const json_t *value,
                                      const char *what, struct fl_error *error)
{
    if (value == NULL)
        return FL_OK;
    const json_t *parts = json_object_get(value, "normalizers");
    bool fine = has_type(value, "Sequence") ? json_is_array(parts) : read_normalizer(self, value);
    for (size_t i = 0; fine && i < json_array_size(parts); i++)
        fine = read_normalizer(self, json_array_get(parts, i));
    if (fine)
        return FL_OK;
    return fl_fail(error, FL_EFORMAT,
                   "%s: normalizer %.40s is not supported (NFC, Prepend and Replace of spaces by "
                   "U+2581 are)",
                   what, type_of(value));
}

/* ---- pre_tokenizer ---- */

/* Split by a known regular expression, every match a piece. */
static bool read_split(const json_t *split, enum fl_pre *out)
{
    const char *regex =
        json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    return has_type(split, "Split") && regex != NULL && behavior != NULL &&
           strcmp(behavior, "Isolated") == 0 && !flag(split, "invert", false) &&
           fl_pre_from_regex(regex, out);
}

/* [Split, ByteLevel without regex] or [Digits, ByteLevel with regex] */
static bool read_sequence(const json_t *value, enum fl_pre *out)
{
    const json_t *parts = json_object_get(value, "pretokenizers");
    const json_t *first = json_array_get(parts, 0), *second = json_array_get(parts, 1);
    if (!has_type(value, "Sequence") || json_array_size(parts) != 2)
        return false;
    if (!has_type(second, "ByteLevel") || flag(second, "add_prefix_space", true))
        return false;
    bool use_regex = flag(second, "use_regex", true);
    if (!use_regex)
        return read_split(first, out);
    *out = FL_PRE_SMOLLM;
    return has_type(first, "Digits") && flag(first, "individual_digits", false);
}

/* {"replacement": "▁", "prepend_scheme": ..., "split": ...}, or the older add_prefix_space */
static bool read_metaspace(struct fl_tokenizer *self, const json_t *value)
{
    static const char *const SCHEMES[] = {"never", "first", "always"};
    const char *mark = json_string_value(json_object_get(value, "replacement"));
    const json_t *scheme = json_object_get(value, "prepend_scheme");
    const char *name = scheme != NULL ? json_string_value(scheme) : "always";
    if (mark == NULL || strcmp(mark, FL_MARK) != 0 || name == NULL)
        return false;
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(name, SCHEMES[i]) != 0)
            continue;
        self->scheme = (enum fl_scheme)i;
        self->metaspace = self->characters = true;
        self->pre = flag(value, "split", true) ? FL_PRE_METASPACE : FL_PRE_WHOLE;
        return i == 0 || flag(value, "add_prefix_space", true);
    }
    return false;
}

/* Splitting at spaces does nothing where the normaliser has left none. */
static bool splits_at_spaces(const json_t *value)
{
    const char *pattern =
        json_string_value(json_object_get(json_object_get(value, "pattern"), "String"));
    return has_type(value, "Split") && pattern != NULL && strcmp(pattern, " ") == 0;
}

enum fl_status fl_pipeline_pre_tokenizer(struct fl_tokenizer *self, const json_t *value,
                                         const char *what, struct fl_error *error)
{
    const bool marked = self->mark_prefix || self->mark_spaces;
    if (!marked && has_type(value, "ByteLevel") && flag(value, "use_regex", true)) {
        self->pre = FL_PRE_GPT2;
        self->add_prefix_space = flag(value, "add_prefix_space", true);
        return FL_OK;
    }
    if (!marked && read_sequence(value, &self->pre))
        return FL_OK;
    if (self->mark_spaces && (value == NULL || splits_at_spaces(value))) {
        self->pre = FL_PRE_WHOLE;
        self->characters = true;
        return FL_OK;
    }
    if (has_type(value, "Metaspace") && read_metaspace(self, value))
        return FL_OK;
    return fl_fail(error, FL_EFORMAT,
                   "%s: pre_tokenizer %.40s is not one of those that are supported (GPT-2, "
                   "Llama-3, Qwen2 and SmolLM byte-level BPE; Metaspace)",
                   what, value != NULL ? type_of(value) : "null");
}

/* ---- decoder ---- */

/* [Replace "▁" by " ", ByteFallback, Fuse] and perhaps Strip of one space at the start */
static bool read_pieces(struct fl_tokenizer *self, const json_t *value)
{
    const json_t *parts = json_object_get(value, "decoders"), *strip = json_array_get(parts, 3);
    const char *content = json_string_value(json_object_get(strip, "content"));
    const size_t count = json_array_size(parts);
    if (!has_type(value, "Sequence") || count < 3 || count > 4 ||
        !replaces(json_array_get(parts, 0), FL_MARK, " ") ||
        !has_type(json_array_get(parts, 1), "ByteFallback") ||
        !has_type(json_array_get(parts, 2), "Fuse"))
        return false;
    self->decoder = FL_DECODE_PIECES;
    self->strip_space = count == 4;
    return count == 3 ||
           (has_type(strip, "Strip") && content != NULL && strcmp(content, " ") == 0 &&
            json_integer_value(json_object_get(strip, "start")) == 1 &&
            json_integer_value(json_object_get(strip, "stop")) == 0);
}

static bool read_metaspace_decoder(struct fl_tokenizer *self, const json_t *value)
{
    const char *mark = json_string_value(json_object_get(value, "replacement"));
    const char *scheme = json_string_value(json_object_get(value, "prepend_scheme"));
    self->decoder = FL_DECODE_METASPACE;
    self->strip_space = scheme == NULL || strcmp(scheme, "never") != 0;
    return has_type(value, "Metaspace") && mark != NULL && strcmp(mark, FL_MARK) == 0;
}

enum fl_status fl_pipeline_decoder(struct fl_tokenizer *self, const json_t *value, const char *what,
                                   struct fl_error *error)
{
    if (!self->characters && (value == NULL || has_type(value, "ByteLevel")))
        return FL_OK;
    if (self->characters && (read_pieces(self, value) || read_metaspace_decoder(self, value)))
        return FL_OK;
    return fl_fail(error, FL_EFORMAT, "%s: decoder %.40s is not supported with this pre_tokenizer",
                   what, value != NULL ? type_of(value) : "null");
}

/* ---- added_tokens ---- */

/* The vocabulary may have the token already: then id and text must agree. */
static bool agrees(const struct fl_tokenizer *self, const struct fl_added_token *token)
{
    const char *bytes;
    size_t length;
    if (!fl_bpe_token(self->bpe, (uint32_t)token->id, &bytes, &length))
        return true;
    if (length == token->length && memcmp(bytes, token->content, length) == 0)
        return true;
    char copy[FL_ADDED_TOKEN_BYTES_MAX];
    size_t copied = token->length;
    if (self->characters || copied > sizeof copy)
        return false;
    memcpy(copy, token->content, copied);
    return fl_bpe_from_alphabet(copy, &copied) && copied == length &&
           memcmp(copy, bytes, length) == 0;
}

static enum fl_status read_added(struct fl_tokenizer *self, const json_t *entry, const char *what,
                                 struct fl_error *error)
{
    const json_t *content = json_object_get(entry, "content");
    uint32_t id;
    if (!json_is_string(content) || fl_json_u32(entry, "id", UINT32_MAX, &id) != FL_OK ||
        id >= FL_VOCAB_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: an added token has no content or no usable id",
                       what);
    struct fl_added_token token = {
        .content = (char *)json_string_value(content),
        .length = json_string_length(content),
        .id = (int32_t)id,
        .single_word = flag(entry, "single_word", false),
        .lstrip = flag(entry, "lstrip", false),
        .rstrip = flag(entry, "rstrip", false),
        .special = flag(entry, "special", false),
    };
    if (!agrees(self, &token))
        return fl_fail(error, FL_EFORMAT,
                       "%s: added token '%.64s' has id %u, which the "
                       "vocabulary gives to another token",
                       what, token.content, id);
    return fl_tokenizer_add(self, &token, flag(entry, "normalized", !token.special), what, error);
}

enum fl_status fl_pipeline_added(struct fl_tokenizer *self, const json_t *value, const char *what,
                                 struct fl_error *error)
{
    if (value == NULL)
        return FL_OK;
    if (!json_is_array(value))
        return fl_fail(error, FL_EFORMAT, "%s: added_tokens is not an array", what);
    enum fl_status status = FL_OK;
    for (size_t i = 0; status == FL_OK && i < json_array_size(value); i++)
        status = read_added(self, json_array_get(value, i), what, error);
    return status;
}

/* ---- post_processor ---- */

static bool push_template_id(struct fl_tokenizer *self, struct fl_template_ids *side,
                             const json_t *id)
{
    json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
    const char *bytes;
    size_t length;
    if (number < 0 || number >= FL_VOCAB_MAX || side->count == FL_TEMPLATE_IDS_MAX)
        return false;
    if (!fl_bpe_token(self->bpe, (uint32_t)number, &bytes, &length))
        return false;
    side->ids[side->count++] = (int32_t)number;
    return true;
}

static bool push_special(struct fl_tokenizer *self, struct fl_template_ids *side,
                         const json_t *value, const json_t *piece)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *ids = NULL;
    if (name != NULL)
        ids = json_object_get(json_object_get(json_object_get(value, "special_tokens"), name),
                              "ids");
    if (!json_is_array(ids))
        return false;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        if (!push_template_id(self, side, json_array_get(ids, i)))
            return false;
    }
    return true;
}

/* {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...]} */
static bool read_template(struct fl_tokenizer *self, const json_t *value)
{
    const json_t *pieces = json_object_get(value, "single");
    size_t texts = 0;
    if (self->prefix.count + self->suffix.count > 0 || !json_is_array(pieces))
        return false;
    for (size_t i = 0; i < json_array_size(pieces); i++) {
        const json_t *piece = json_array_get(pieces, i);
        const json_t *special = json_object_get(piece, "SpecialToken");
        if (special != NULL) {
            struct fl_template_ids *side = texts == 0 ? &self->prefix : &self->suffix;
            if (!push_special(self, side, value, special))
                return false;
        } else {
            const char *id =
                json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
            if (id == NULL || strcmp(id, "A") != 0)
                return false;
            texts++;
        }
    }
    return texts == 1;
}

static bool read_post(struct fl_tokenizer *self, const json_t *value, unsigned depth)
{
    if (has_type(value, "ByteLevel"))
        return true;
    if (has_type(value, "TemplateProcessing"))
        return read_template(self, value);
    const json_t *parts = json_object_get(value, "processors");
    if (depth > 4 || !has_type(value, "Sequence") || !json_is_array(parts))
        return false;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        if (!read_post(self, json_array_get(parts, i), depth + 1))
            return false;
    }
    return true;
}

enum fl_status fl_pipeline_template(struct fl_tokenizer *self, const json_t *value,
                                    const char *what, struct fl_error *error)
{
    if (value == NULL || read_post(self, value, 0))
        return FL_OK;
    return fl_fail(error, FL_EFORMAT,
                   "%s: post_processor %.40s is not supported, or names tokens that do not exist "
                   "(ByteLevel and one TemplateProcessing are supported)",
                   what, type_of(value));
}

/* ---- special ids ---- */

/* "<s>" or {"content": "<s>", ...}: its id, or -1. */
static int32_t named_id(const struct fl_tokenizer *self, const json_t *value)
{
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (!json_is_string(value))
        return -1;
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    /* the sets are not sorted yet while reading: look through them one by one */
    const struct fl_added_tokens *sets[2] = {&self->raw, &self->normalized};
    for (size_t s = 0; s < 2; s++) {
        for (size_t i = 0; i < sets[s]->count; i++) {
            const struct fl_added_token *token = &sets[s]->tokens[i];
            if ((token->length == length && memcmp(token->content, text, length) == 0) ||
                fl_tokenizer_is_written(self, token->id, text, length))
                return token->id;
        }
    }
    return fl_bpe_find(self->bpe, text, length);
}

/* A template is a string, or a list of {name, template} of which "default" counts. */
static const json_t *pick_template(const json_t *value)
{
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_object_get(entry, "template");
    }
    return value;
}

enum fl_status fl_pipeline_config(struct fl_tokenizer *self, const json_t *value, const char *what,
                                  struct fl_error *error)
{
    fl_tokenizer_add_eos(self, named_id(self, json_object_get(value, "eos_token")));
    self->bos = named_id(self, json_object_get(value, "bos_token"));
    const json_t *template = pick_template(json_object_get(value, "chat_template"));
    if (!json_is_string(template))
        return FL_OK;
    if (json_string_length(template) > TEMPLATE_BYTES_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: the chat template is too long", what);
    self->chat_template = fl_strdup(json_string_value(template));
    return self->chat_template != NULL ? FL_OK : fl_fail_memory(error);
}

enum fl_status fl_pipeline_model_config(struct fl_tokenizer *self, const json_t *value,
                                        const char *what, struct fl_error *error)
{
    (void)what;
    (void)error;
    const json_t *eos = json_object_get(value, "eos_token_id");
    const json_t *bos = json_object_get(value, "bos_token_id");
    if (json_is_integer(eos))
        fl_tokenizer_add_eos(self, json_integer_value(eos));
    for (size_t i = 0; json_is_array(eos) && i < json_array_size(eos); i++) {
        if (json_is_integer(json_array_get(eos, i)))
            fl_tokenizer_add_eos(self, json_integer_value(json_array_get(eos, i)));
    }
    const char *bytes;
    size_t length;
    if (self->bos < 0 && json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        json_integer_value(bos) < FL_VOCAB_MAX &&
        fl_bpe_token(self->bpe, (uint32_t)json_integer_value(bos), &bytes, &length))
        self->bos = (int32_t)json_integer_value(bos);
    return FL_OK;
}
