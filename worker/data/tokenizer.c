/*
 * tokenizer.c - the pipeline: added tokens, normaliser, pre-tokenizer, BPE, template; and back.
 * Invariant: whatever fails, the caller's list of ids keeps what it had.
 */
#include "worker/data/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/limits.h"
#include "format/hfcache.h"
#include "worker/data/tokenizer_internal.h"
#include "worker/data/unicode.h"

#define TEXT_BYTES_MAX (1u << 30)

/* ---- lists of ids ---- */

static enum fl_status reserve(struct fl_ids *self, size_t more)
{
    if (more <= self->capacity - self->count)
        return FL_OK;
    size_t capacity = self->capacity * 2 + 64;
    if (capacity - self->count < more)
        capacity = self->count + more;
    int32_t *grown = fl_reallocarray(self->ids, capacity, sizeof *grown);
    if (grown == NULL)
        return FL_ENOMEM;
    self->ids = grown;
    self->capacity = capacity;
    return FL_OK;
}

enum fl_status fl_ids_push(struct fl_ids *self, int32_t id)
{
    return fl_ids_append(self, &id, 1);
}

enum fl_status fl_ids_append(struct fl_ids *self, const int32_t *ids, size_t count)
{
    enum fl_status status = reserve(self, count);
    if (status != FL_OK)
        return status;
    if (count > 0)
        memcpy(self->ids + self->count, ids, count * sizeof *ids);
    self->count += count;
    return FL_OK;
}

void fl_ids_free(struct fl_ids *self)
{
    fl_free(self->ids);
    *self = (struct fl_ids){0};
}

/* ---- opening ---- */

enum fl_status fl_tokenizer_add(struct fl_tokenizer *self, const struct fl_added_token *token,
                                bool normalized, const char *what, struct fl_error *error)
{
    struct fl_added_token entry = *token;
    enum fl_status status = FL_OK;
    if (normalized) {
        const char *form;
        status = fl_marks_normalise(self, token->content, token->length, false, &form,
                                    &entry.length);
        entry.content = (char *)form;
    }
    const char *bytes;
    size_t length;
    bool known = fl_bpe_token(self->bpe, (uint32_t)token->id, &bytes, &length);
    if (status == FL_OK && !known)
        status = fl_bpe_add_token(self->bpe, (uint32_t)token->id, token->content, token->length,
                                  false);
    if (status == FL_OK)
        status = fl_added_push(normalized ? &self->normalized : &self->raw, &entry);
    /* decoded as it is matched: with its mark in front, as Hugging Face does it */
    if (status == FL_OK &&
        (entry.length != token->length || memcmp(entry.content, token->content, entry.length) != 0))
        status = fl_bpe_set_shown(self->bpe, (uint32_t)token->id, entry.content, entry.length);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "%s: added token with id %d is empty, longer than %d "
                       "bytes, or one too many",
                       what, token->id, FL_ADDED_TOKEN_BYTES_MAX);
    return FL_OK;
}

void fl_tokenizer_add_eos(struct fl_tokenizer *self, int64_t id)
{
    const char *bytes;
    size_t length;
    if (id < 0 || id >= FL_VOCAB_MAX || self->eos_count == FL_EOS_IDS_MAX)
        return;
    if (!fl_bpe_token(self->bpe, (uint32_t)id, &bytes, &length))
        return;
    if (!fl_tokenizer_is_eos(self, (int32_t)id))
        self->eos[self->eos_count++] = (int32_t)id;
}

static enum fl_status seal(struct fl_tokenizer *self, const char *what, struct fl_error *error)
{
    const char *duplicate;
    enum fl_status status = fl_added_seal(&self->raw, &duplicate);
    if (status == FL_OK)
        status = fl_added_seal(&self->normalized, &duplicate);
    if (status == FL_EEXIST)
        return fl_fail(error, FL_EFORMAT, "%s: added token '%.64s' is there twice", what,
                       duplicate);
    return status;
}

enum fl_status fl_tokenizer_open(const char *model, struct fl_tokenizer **out,
                                 struct fl_error *error)
{
    char model_path[FL_PATH_BYTES];
    *out = NULL;
    enum fl_status status = fl_hfcache_find(model, model_path, error);
    if (status != FL_OK)
        return status;
    struct fl_tokenizer *self = fl_calloc(1, sizeof *self);
    if (self == NULL)
        return fl_fail_memory(error);
    self->bos = -1;
    fl_buf_init(&self->scratch, 4ull * TEXT_BYTES_MAX);
    fl_buf_init(&self->marked, 4ull * TEXT_BYTES_MAX);
    fl_buf_init(&self->prefixed, 4ull * TEXT_BYTES_MAX);
    status = fl_path_is_directory(model_path) ? fl_tokenizer_read_json(self, model_path, error)
                                              : fl_tokenizer_read_gguf(self, model_path, error);
    if (status == FL_OK)
        status = seal(self, model_path, error);
    if (status == FL_OK && self->decoder != FL_DECODE_AS_IS &&
        (status = fl_marks_show(self)) != FL_OK)
        (void)fl_fail(error, status, "%s: the vocabulary is too large", model_path);
    if (status != FL_OK) {
        fl_tokenizer_close(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

void fl_tokenizer_close(struct fl_tokenizer *self)
{
    if (self == NULL)
        return;
    fl_bpe_free(self->bpe);
    fl_added_free(&self->raw);
    fl_added_free(&self->normalized);
    fl_free(self->chat_template);
    fl_buf_free(&self->scratch);
    fl_buf_free(&self->marked);
    fl_buf_free(&self->prefixed);
    fl_free(self);
}

/* ---- encoding ---- */

static enum fl_place place_by_flags(unsigned flags)
{
    if ((flags & FL_ENCODE_CONTINUES) != 0)
        return FL_PLACE_CONTINUES;
    return (flags & FL_ENCODE_BEHIND) != 0 ? FL_PLACE_INSIDE : FL_PLACE_START;
}

static enum fl_place place_of(enum fl_place whole, size_t start)
{
    return start == 0 ? whole : FL_PLACE_INSIDE;
}

static enum fl_status prefix_space(struct fl_tokenizer *self, const char **text, size_t *length)
{
    if (!self->add_prefix_space || (*text)[0] == ' ')
        return FL_OK;
    self->prefixed.length = 0;
    fl_buf_append(&self->prefixed, " ", 1);
    fl_buf_append(&self->prefixed, *text, *length);
    *text = fl_buf_text(&self->prefixed);
    *length = self->prefixed.length;
    return fl_buf_status(&self->prefixed);
}

/* A stretch of text without added tokens. */
static enum fl_status encode_plain(struct fl_tokenizer *self, const char *text, size_t length,
                                   enum fl_place place, struct fl_ids *out)
{
    enum fl_status status = FL_OK;
    if (self->metaspace)
        status = fl_marks_prefix(self, text, length, place, &text, &length);
    else if (place != FL_PLACE_CONTINUES)
        status = prefix_space(self, &text, &length);
    struct fl_pre_iter iter;
    fl_pre_begin(&iter, self->pre, text, length);
    const char *piece;
    size_t piece_length;
    while (status == FL_OK && fl_pre_next(&iter, &piece, &piece_length))
        status = fl_bpe_word(self->bpe, piece, piece_length, out);
    return status;
}

/* A stretch between added tokens of the raw text: normalise it, match the normalised ones. */
static enum fl_status encode_raw(struct fl_tokenizer *self, const char *text, size_t length,
                                 enum fl_place place, bool specials_plain, struct fl_ids *out)
{
    enum fl_status status = fl_marks_normalise(self, text, length, place == FL_PLACE_CONTINUES,
                                               &text, &length);
    if (status != FL_OK)
        return status;
    struct fl_added_iter iter;
    struct fl_added_split split;
    fl_added_begin(&iter, &self->normalized, text, length, specials_plain);
    while (status == FL_OK && fl_added_next(&iter, &split)) {
        status = split.token != NULL
                     ? fl_ids_push(out, split.token->id)
                     : encode_plain(self, text + split.start, split.end - split.start,
                                    place_of(place, split.start), out);
    }
    return status;
}

static enum fl_status encode_text(struct fl_tokenizer *self, const char *text, size_t length,
                                  enum fl_place place, bool specials_plain, struct fl_ids *out)
{
    struct fl_added_iter iter;
    struct fl_added_split split;
    enum fl_status status = FL_OK;
    fl_added_begin(&iter, &self->raw, text, length, specials_plain);
    while (status == FL_OK && fl_added_next(&iter, &split)) {
        status = split.token != NULL
                     ? fl_ids_push(out, split.token->id)
                     : encode_raw(self, text + split.start, split.end - split.start,
                                  place_of(place, split.start), specials_plain, out);
    }
    return status;
}

enum fl_status fl_tokenizer_encode(struct fl_tokenizer *self, const char *text, size_t length,
                                   unsigned flags, struct fl_ids *out, struct fl_error *error)
{
    if (length > TEXT_BYTES_MAX)
        return fl_fail(error, FL_ERANGE, "a text of %zu bytes is too long to tokenize at once",
                       length);
    size_t start = out->count;
    enum fl_status status = FL_OK;
    if ((flags & (FL_ENCODE_ADD_SPECIAL | FL_ENCODE_PREFIX_ONLY)) != 0)
        status = fl_ids_append(out, self->prefix.ids, self->prefix.count);
    if (status == FL_OK)
        status = encode_text(self, text, length, place_by_flags(flags),
                             (flags & FL_ENCODE_SPECIALS_PLAIN) != 0, out);
    if (status == FL_OK && (flags & FL_ENCODE_ADD_SPECIAL) != 0 &&
        (flags & FL_ENCODE_PREFIX_ONLY) == 0)
        status = fl_ids_append(out, self->suffix.ids, self->suffix.count);
    if (status == FL_OK)
        return FL_OK;
    out->count = start;
    return status == FL_ENOMEM ? fl_fail_memory(error)
                               : fl_fail(error, status, "the text is too long to tokenize");
}

/* ---- decoding and questions ---- */

/* The first token of a text: the space that encoding put there goes. */
static void append_first(const struct fl_tokenizer *self, int32_t id, const char *bytes,
                         size_t length, struct fl_buf *out)
{
    if (!self->strip_space) {
        fl_buf_append(out, bytes, length);
    } else if (self->decoder == FL_DECODE_METASPACE) {
        if (fl_bpe_token(self->bpe, (uint32_t)id, &bytes, &length))
            fl_marks_append_spaces(out, bytes, length, "");
    } else {
        const size_t skipped = bytes[0] == ' ';
        fl_buf_append(out, bytes + skipped, length - skipped);
    }
}

enum fl_status fl_tokenizer_decode(const struct fl_tokenizer *self, const int32_t *ids,
                                   size_t count, struct fl_buf *out, struct fl_error *error)
{
    bool at_start = true;
    for (size_t i = 0; i < count; i++) {
        const char *bytes;
        size_t length;
        if (!fl_tokenizer_token(self, ids[i], &bytes, &length))
            return fl_fail(error, FL_EFORMAT, "id %d (number %zu) has no token in this vocabulary",
                           ids[i], i);
        if (length == 0)
            continue;
        if (at_start)
            append_first(self, ids[i], bytes, length, out);
        else
            fl_buf_append(out, bytes, length);
        at_start = false;
    }
    enum fl_status status = fl_buf_status(out);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "the decoded text is too long");
}

bool fl_tokenizer_token(const struct fl_tokenizer *self, int32_t id, const char **bytes,
                        size_t *length)
{
    return id >= 0 && fl_bpe_shown(self->bpe, (uint32_t)id, bytes, length);
}

bool fl_tokenizer_is_written(const struct fl_tokenizer *self, int32_t id, const char *text,
                             size_t length)
{
    const char *bytes;
    size_t found;
    return fl_bpe_token(self->bpe, (uint32_t)id, &bytes, &found) && found == length &&
           memcmp(bytes, text, length) == 0;
}

int32_t fl_tokenizer_find(const struct fl_tokenizer *self, const char *text, size_t length)
{
    const struct fl_added_token *token = fl_added_find(&self->raw, text, length);
    if (token == NULL)
        token = fl_added_find(&self->normalized, text, length);
    if (token != NULL)
        return token->id;
    /* the normaliser may have changed what is matched */
    for (size_t i = 0; i < self->normalized.count; i++) {
        if (fl_tokenizer_is_written(self, self->normalized.tokens[i].id, text, length))
            return self->normalized.tokens[i].id;
    }
    return fl_bpe_find(self->bpe, text, length);
}

uint32_t fl_tokenizer_vocab_size(const struct fl_tokenizer *self)
{
    return fl_bpe_size(self->bpe);
}

int32_t fl_tokenizer_bos(const struct fl_tokenizer *self)
{
    return self->bos;
}

int32_t fl_tokenizer_eos(const struct fl_tokenizer *self)
{
    return self->eos_count > 0 ? self->eos[0] : -1;
}

const int32_t *fl_tokenizer_eos_ids(const struct fl_tokenizer *self, size_t *count)
{
    *count = self->eos_count;
    return self->eos;
}

bool fl_tokenizer_is_eos(const struct fl_tokenizer *self, int32_t id)
{
    for (size_t i = 0; i < self->eos_count; i++) {
        if (self->eos[i] == id)
            return true;
    }
    return false;
}

const char *fl_tokenizer_pre_name(const struct fl_tokenizer *self)
{
    return fl_pre_name(self->pre);
}

const char *fl_tokenizer_chat_template(const struct fl_tokenizer *self)
{
    return self->chat_template;
}
