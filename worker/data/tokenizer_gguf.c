/*
 * tokenizer_gguf.c - read the tokenizer that a GGUF file carries (tokenizer.ggml.*).
 *
 * Model "gpt2" is byte-level BPE with merges, model "llama" is SentencePiece's BPE with scores. Of
 * the latter, unused tokens take no part in merges (llama.cpp's way; SentencePiece would cut them
 * up again), and a stretch behind an added token gets its space in front as the text does. The
 * file's own `pre` decides the pre-tokenizer. Flags of added tokens (lstrip, ...) are not in the
 * format: control and user-defined tokens match as they are written. A byte that the vocabulary
 * does not have vanishes, as it does in Hugging Face where unk_token is null;
 * unknown_token_id is not used for it.
 * Source: the GGUF specification; llama.cpp's converter for which key means what.
 */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/limits.h"
#include "format/gguf.h"
#include "worker/data/spm.h"
#include "worker/data/tokenizer_internal.h"
#include "worker/data/tokenizer_pipeline.h"

#define KEY(name)          "tokenizer.ggml." name
#define TOKEN_BYTES_MAX    65536
#define TEMPLATE_BYTES_MAX (1u << 20)

enum token_type { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

struct source {
    const struct fl_gguf *file;
    const char *what;   /* the path */
    struct fl_buf text; /* the string at hand, to be changed in place */
    struct fl_gguf_array scores;
    struct fl_spm_piece *pieces; /* (tokens), owned: what merges make, of model "llama" */
    uint32_t piece_count;
    int32_t unknown;
};

static bool is(const struct fl_gguf_string *string, const char *text)
{
    return string->length == strlen(text) && memcmp(string->data, text, string->length) == 0;
}

/* Copy a string of the file into source->text. */
static enum fl_status hold(struct source *source, const struct fl_gguf_string *string)
{
    source->text.length = 0;
    fl_buf_append(&source->text, string->data, string->length);
    return fl_buf_status(&source->text);
}

static bool read_flag(const struct source *source, const char *key, bool fallback)
{
    bool value;
    return fl_gguf_bool(source->file, key, &value) == FL_OK ? value : fallback;
}

/* SentencePiece's way: what its normaliser would do to a text is refused where we don't do it. */
static enum fl_status read_spm(struct fl_tokenizer *self, struct source *source,
                               struct fl_error *error)
{
    struct fl_gguf_array tokens;
    if (fl_gguf_has(source->file, KEY("precompiled_charsmap")) ||
        read_flag(source, KEY("remove_extra_whitespaces"), false))
        return fl_fail(error, FL_EFORMAT,
                       "%s: a SentencePiece tokenizer that rewrites characters or removes spaces "
                       "is not supported",
                       source->what);
    if (fl_gguf_array(source->file, KEY("tokens"), &tokens) != FL_OK ||
        tokens.count > FL_VOCAB_MAX ||
        fl_gguf_array(source->file, KEY("scores"), &source->scores) != FL_OK ||
        source->scores.type != FL_GGUF_F32 || source->scores.count != tokens.count)
        return fl_fail(error, FL_EFORMAT, "%s: tokenizer.ggml.scores does not fit the tokens",
                       source->what);
    self->characters = self->mark_spaces = true;
    self->mark_prefix = self->strip_space = read_flag(source, KEY("add_space_prefix"), true);
    self->pre = FL_PRE_WHOLE;
    self->decoder = FL_DECODE_PIECES;
    source->pieces = fl_calloc((size_t)tokens.count + 1, sizeof *source->pieces);
    return source->pieces != NULL ? FL_OK : fl_fail_memory(error);
}

static enum fl_status read_kind(struct fl_tokenizer *self, struct source *source,
                                struct fl_error *error)
{
    struct fl_gguf_string model, pre;
    if (fl_gguf_string(source->file, KEY("model"), &model) != FL_OK)
        return fl_fail(error, FL_ENOTFOUND, "%s: the file holds no tokenizer", source->what);
    if (is(&model, "llama"))
        return read_spm(self, source, error);
    if (!is(&model, "gpt2"))
        return fl_fail(error, FL_EFORMAT,
                       "%s: tokenizer model '%.*s' is not supported (gpt2, byte-level BPE, and "
                       "llama, SentencePiece's BPE, are)",
                       source->what, (int)(model.length < 40 ? model.length : 40), model.data);
    if (fl_gguf_string(source->file, KEY("pre"), &pre) != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "%s: the file does not name its pre-tokenizer (tokenizer.ggml.pre); "
                       "convert the model again with a newer converter",
                       source->what);
    char name[64] = "";
    if (pre.length < sizeof name)
        memcpy(name, pre.data, pre.length);
    if (!fl_pre_from_gguf(name, &self->pre))
        return fl_fail(error, FL_EFORMAT,
                       "%s: pre-tokenizer '%.*s' is not supported (gpt-2, llama-bpe, qwen2 and "
                       "smollm are)",
                       source->what, (int)(pre.length < 40 ? pre.length : 40), pre.data);
    self->nfc = self->pre == FL_PRE_QWEN2;
    return FL_OK;
}

/*
 * A normal token is written in the printable alphabet. Control and user-defined ones are written as
 * they are; they can take part in merges only where both writings agree.
 */
static enum fl_status add_token(struct fl_tokenizer *self, struct source *source, uint32_t id,
                                int64_t type)
{
    char *text = (char *)source->text.data;
    size_t length = source->text.length, raw_length = length;
    bool added = type == TYPE_CONTROL || type == TYPE_USER;
    bool mergeable = length > 0 && (type == TYPE_NORMAL || added);
    if (mergeable && added) {
        for (size_t i = 0; i < length; i++)
            mergeable = mergeable && text[i] > ' ' && text[i] < 0x7F;
        mergeable = mergeable && fl_bpe_find(self->bpe, text, length) < 0;
    } else if (mergeable) {
        mergeable = fl_bpe_from_alphabet(text, &length);
    }
    enum fl_status status = fl_bpe_add_token(self->bpe, id, fl_buf_text(&source->text), length,
                                             mergeable);
    if (status != FL_OK || !added)
        return status;
    const struct fl_added_token token = {
        .content = text, .length = raw_length, .id = (int32_t)id, .special = type == TYPE_CONTROL};
    return fl_added_push(&self->raw, &token);
}

/* What stands in raw text for an added token: its marks are spaces there. */
static enum fl_status push_added(struct fl_tokenizer *self, const struct source *source,
                                 uint32_t id, bool special)
{
    struct fl_buf text;
    fl_buf_init(&text, TOKEN_BYTES_MAX);
    fl_marks_append_spaces(&text, fl_buf_text(&source->text), source->text.length, " ");
    enum fl_status status = fl_buf_status(&text);
    const struct fl_added_token token = {.content = (char *)fl_buf_text(&text),
                                         .length = text.length,
                                         .id = (int32_t)id,
                                         .special = special};
    if (status == FL_OK)
        status = fl_added_push(&self->raw, &token);
    fl_buf_free(&text);
    return status;
}

/* A token of SentencePiece's: as it is written, and by its type. */
static enum fl_status add_piece(struct fl_tokenizer *self, struct source *source, uint32_t id,
                                int64_t type)
{
    const char *text = fl_buf_text(&source->text);
    const size_t length = source->text.length;
    const float score = (float)fl_gguf_array_f64(&source->scores, id);
    const bool normal = type == TYPE_NORMAL && length > 0;
    if (isnan(score) || (normal && length > FL_SPM_TOKEN_BYTES_MAX))
        return FL_ERANGE;
    enum fl_status status = fl_bpe_add_token(self->bpe, id, text, length, normal);
    if (status != FL_OK)
        return status;
    if (normal)
        source->pieces[source->piece_count++] = (struct fl_spm_piece){id, score};
    if (type == TYPE_BYTE && fl_marks_byte(text, length) >= 0)
        fl_bpe_set_fallback(self->bpe, (uint8_t)fl_marks_byte(text, length), (int32_t)id);
    if (type == TYPE_UNKNOWN)
        source->unknown = (int32_t)id;
    if (type == TYPE_CONTROL || type == TYPE_UNKNOWN || type == TYPE_USER)
        return push_added(self, source, id, type != TYPE_USER);
    return FL_OK;
}

static enum fl_status read_tokens(struct fl_tokenizer *self, struct source *source,
                                  struct fl_error *error)
{
    struct fl_gguf_array tokens, types = {0};
    if (fl_gguf_array(source->file, KEY("tokens"), &tokens) != FL_OK ||
        tokens.type != FL_GGUF_STRING || tokens.count == 0 || tokens.count > FL_VOCAB_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: tokenizer.ggml.tokens is no usable list",
                       source->what);
    if (fl_gguf_has(source->file, KEY("token_type")) &&
        (fl_gguf_array(source->file, KEY("token_type"), &types) != FL_OK ||
         types.type == FL_GGUF_STRING || types.count != tokens.count))
        return fl_fail(error, FL_EFORMAT, "%s: tokenizer.ggml.token_type does not fit the tokens",
                       source->what);
    struct fl_gguf_string text;
    for (uint32_t id = 0; fl_gguf_array_next_string(&tokens, &text); id++) {
        int64_t type = types.count > 0 ? fl_gguf_array_i64(&types, id) : TYPE_NORMAL;
        enum fl_status status = hold(source, &text);
        if (status == FL_OK)
            status = self->characters ? add_piece(self, source, id, type)
                                      : add_token(self, source, id, type);
        if (status == FL_ENOMEM)
            return fl_fail_memory(error);
        if (status != FL_OK)
            return fl_fail(error, FL_EFORMAT, "%s: token %u is %s", source->what, id,
                           status == FL_EEXIST ? "there twice"
                                               : "empty, too long, without a score or too many");
    }
    return FL_OK;
}

static enum fl_status read_merges(struct fl_tokenizer *self, struct source *source,
                                  struct fl_gguf_array merges, struct fl_error *error)
{
    struct fl_gguf_string line;
    for (uint32_t rank = 0; fl_gguf_array_next_string(&merges, &line); rank++) {
        enum fl_status status = hold(source, &line);
        if (status == FL_ENOMEM)
            return fl_fail_memory(error);
        if (status != FL_OK)
            return fl_fail(error, FL_EFORMAT, "%s: merge number %u is too long", source->what,
                           rank);
        status = fl_tokenizer_add_merge_line(self, (char *)source->text.data, source->text.length,
                                             rank, source->what, error);
        if (status != FL_OK)
            return status;
    }
    return FL_OK;
}

/* A token id among the metadata that exists as a token, or -1. */
static int32_t read_id(const struct fl_tokenizer *self, const struct source *source,
                       const char *key)
{
    uint64_t id;
    const char *bytes;
    size_t length;
    if (fl_gguf_u64(source->file, key, &id) != FL_OK || id >= FL_VOCAB_MAX)
        return -1;
    return fl_bpe_token(self->bpe, (uint32_t)id, &bytes, &length) ? (int32_t)id : -1;
}

static void read_special(struct fl_tokenizer *self, const struct source *source)
{
    self->bos = read_id(self, source, KEY("bos_token_id"));
    fl_tokenizer_add_eos(self, read_id(self, source, KEY("eos_token_id")));
    if (read_flag(source, KEY("add_bos_token"), self->pre == FL_PRE_LLAMA3 || self->characters) &&
        self->bos >= 0)
        self->prefix.ids[self->prefix.count++] = self->bos;
    if (read_flag(source, KEY("add_eos_token"), false) && self->eos_count > 0)
        self->suffix.ids[self->suffix.count++] = self->eos[0];
    fl_tokenizer_add_eos(self, read_id(self, source, KEY("eot_token_id")));
    fl_tokenizer_add_eos(self, read_id(self, source, KEY("eom_token_id")));
}

static enum fl_status read_template(struct fl_tokenizer *self, const struct source *source,
                                    struct fl_error *error)
{
    struct fl_gguf_string text;
    if (fl_gguf_string(source->file, "tokenizer.chat_template", &text) != FL_OK)
        return FL_OK;
    if (text.length > TEMPLATE_BYTES_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: the chat template is too long", source->what);
    self->chat_template = fl_malloc(text.length + 1);
    if (self->chat_template == NULL)
        return fl_fail_memory(error);
    memcpy(self->chat_template, text.data, text.length);
    self->chat_template[text.length] = '\0';
    return FL_OK;
}

/* Tokens with scores: model "llama". */
static enum fl_status read_pieces(struct fl_tokenizer *self, struct source *source,
                                  struct fl_error *error)
{
    self->bpe = fl_bpe_new((size_t)source->scores.count, 4 * (size_t)source->scores.count);
    if (self->bpe == NULL)
        return fl_fail_memory(error);
    enum fl_status status = read_tokens(self, source, error);
    if (status != FL_OK)
        return status;
    if (fl_spm_add_merges(self->bpe, source->pieces, source->piece_count) != FL_OK)
        return fl_fail_memory(error);
    const struct fl_bpe_rules rules = {
        .unk = source->unknown, .fuse_unk = true, .characters = true};
    fl_bpe_set_rules(self->bpe, &rules);
    return FL_OK;
}

/* Tokens with merges: model "gpt2". */
static enum fl_status read_ranked(struct fl_tokenizer *self, struct source *source,
                                  struct fl_error *error)
{
    struct fl_gguf_array tokens, merges;
    enum fl_status status;
    if (fl_gguf_array(source->file, KEY("merges"), &merges) != FL_OK ||
        merges.type != FL_GGUF_STRING || merges.count > 2 * (uint64_t)FL_VOCAB_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: tokenizer.ggml.merges is no usable list",
                       source->what);
    bool counted = fl_gguf_array(source->file, KEY("tokens"), &tokens) == FL_OK;
    self->bpe = fl_bpe_new(counted && tokens.count <= FL_VOCAB_MAX ? (size_t)tokens.count : 0,
                           (size_t)merges.count);
    if (self->bpe == NULL)
        return fl_fail_memory(error);
    status = read_tokens(self, source, error);
    if (status == FL_OK)
        status = read_merges(self, source, merges, error);
    const struct fl_bpe_rules rules = {.ignore_merges = self->pre == FL_PRE_LLAMA3, .unk = -1};
    fl_bpe_set_rules(self->bpe, &rules);
    return status;
}

static enum fl_status read_all(struct fl_tokenizer *self, struct source *source,
                               struct fl_error *error)
{
    enum fl_status status = read_kind(self, source, error);
    if (status != FL_OK)
        return status;
    status = self->characters ? read_pieces(self, source, error) : read_ranked(self, source, error);
    if (status != FL_OK)
        return status;
    read_special(self, source);
    return read_template(self, source, error);
}

enum fl_status fl_tokenizer_read_gguf(struct fl_tokenizer *self, const char *path,
                                      struct fl_error *error)
{
    struct fl_gguf *file;
    enum fl_status status = fl_gguf_open(path, &file, error);
    if (status != FL_OK)
        return status;
    struct source source = {.file = file, .what = path, .unknown = -1};
    fl_buf_init(&source.text, TOKEN_BYTES_MAX);
    status = read_all(self, &source, error);
    fl_buf_free(&source.text);
    fl_free(source.pieces);
    fl_gguf_close(&file);
    return status;
}
