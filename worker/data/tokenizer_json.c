/*
 * tokenizer_json.c - read a Hugging Face directory's tokenizer. First
 * tokenizer.json itself (vocabulary and merges scanned in place, the pipeline recognised exactly),
 * then the special ids from tokenizer_config.json, config.json and generation_config.json.
 *
 * tokenizer.json may list `model` before or after the pipeline: its members are cut out first and
 * read in the order in which they depend on each other.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"
#include "worker/data/json_scan.h"
#include "worker/data/tokenizer_internal.h"
#include "worker/data/tokenizer_pipeline.h"

#define TOKENIZER_JSON_BYTES_MAX (128u << 20)
#define CONFIG_BYTES_MAX         (16u << 20)

struct span {
    const char *text; /* NULL: the member is absent */
    size_t length;
};

struct member {
    const char *name;
    struct span span;
};

enum { M_ADDED, M_NORMALIZER, M_PRE, M_POST, M_DECODER, M_MODEL, M_COUNT };
enum {
    B_TYPE,
    B_DROPOUT,
    B_UNK,
    B_PREFIX,
    B_SUFFIX,
    B_FUSE,
    B_FALLBACK,
    B_IGNORE,
    B_VOCAB,
    B_MERGES,
    B_COUNT
};

static enum fl_status scan_error(const struct fl_scan *scan, const char *what,
                                 struct fl_error *error)
{
    if (fl_buf_status(&scan->string) == FL_ENOMEM)
        return fl_fail_memory(error);
    return fl_fail(error, FL_EFORMAT, "%s: not a usable tokenizer: %s (byte %zu)", what,
                   scan->problem, fl_scan_offset(scan));
}

/* Cut an object's members; names that are not in the list are passed over. */
static enum fl_status cut(struct span object, struct member *members, size_t count,
                          const char *what, struct fl_error *error)
{
    struct fl_scan scan;
    fl_scan_begin(&scan, object.text, object.length);
    fl_scan_open(&scan, '{');
    for (bool first = true; fl_scan_more(&scan, '}', first); first = false) {
        struct span value = {0};
        if (!fl_scan_key(&scan))
            break;
        struct member *hit = NULL;
        for (size_t i = 0; i < count; i++) {
            if (strcmp(members[i].name, fl_buf_text(&scan.string)) == 0)
                hit = &members[i];
        }
        if (!fl_scan_value(&scan, &value.text, &value.length))
            break;
        if (hit != NULL && hit->span.text != NULL)
            scan.problem = "a member is there twice";
        if (hit != NULL)
            hit->span = value;
    }
    if (!fl_scan_failed(&scan))
        fl_scan_finish(&scan);
    enum fl_status status = fl_scan_failed(&scan) ? scan_error(&scan, what, error) : FL_OK;
    fl_scan_end(&scan);
    return status;
}

/* A small member as a jansson value; absent gives NULL. */
static enum fl_status load(const struct member *member, const char *what, json_t **out,
                           struct fl_error *error)
{
    *out = NULL;
    if (member->span.text == NULL)
        return FL_OK;
    if (member->span.length > CONFIG_BYTES_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: member %s is too large", what, member->name);
    /* jansson takes arrays and objects only at the top: [value] holds any value */
    struct fl_buf wrapped;
    fl_buf_init(&wrapped, CONFIG_BYTES_MAX + 2);
    fl_buf_append(&wrapped, "[", 1);
    fl_buf_append(&wrapped, member->span.text, member->span.length);
    fl_buf_append(&wrapped, "]", 1);
    json_t *array = NULL;
    enum fl_status status = fl_buf_status(&wrapped);
    if (status == FL_ENOMEM)
        fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_json_parse(fl_buf_text(&wrapped), wrapped.length, what, &array, error);
    fl_buf_free(&wrapped);
    if (status == FL_OK)
        *out = json_incref(json_array_get(array, 0));
    json_decref(array);
    if (json_is_null(*out))
        *out = NULL;
    return status;
}

/* ---- model: vocabulary and merges ---- */

static size_t count_byte(struct span span, char byte)
{
    size_t count = 0;
    for (size_t i = 0; i < span.length; i++)
        count += span.text[i] == byte;
    return count;
}

static enum fl_status add_vocab_entry(struct fl_tokenizer *self, struct fl_scan *scan,
                                      const char *what, struct fl_error *error)
{
    uint32_t id;
    struct fl_buf *text = &scan->string;
    if (!fl_scan_key(scan) || !fl_scan_u32(scan, &id))
        return scan_error(scan, what, error);
    size_t length = text->length;
    bool mergeable = length > 0 &&
                     (self->characters || fl_bpe_from_alphabet((char *)text->data, &length));
    enum fl_status status = fl_bpe_add_token(self->bpe, id, fl_buf_text(text), length, mergeable);
    if (status == FL_OK)
        return FL_OK;
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    return fl_fail(error, FL_EFORMAT, "%s: vocabulary entry with id %u %s", what, id,
                   status == FL_EEXIST ? "repeats an id or a token" : "is out of range");
}

static enum fl_status read_vocab(struct fl_tokenizer *self, struct span vocab, const char *what,
                                 struct fl_error *error)
{
    struct fl_scan scan;
    enum fl_status status = FL_OK;
    fl_scan_begin(&scan, vocab.text, vocab.length);
    fl_scan_open(&scan, '{');
    for (bool first = true; status == FL_OK && fl_scan_more(&scan, '}', first); first = false)
        status = add_vocab_entry(self, &scan, what, error);
    if (status == FL_OK && fl_scan_failed(&scan))
        status = scan_error(&scan, what, error);
    fl_scan_end(&scan);
    return status;
}

/* left and right are the two halves as in the file; bytes outside the alphabet never merge. */
static enum fl_status add_merge(struct fl_tokenizer *self, char *left, size_t left_length,
                                char *right, size_t right_length, uint32_t rank, const char *what,
                                struct fl_error *error)
{
    if (!self->characters &&
        (!fl_bpe_from_alphabet(left, &left_length) || !fl_bpe_from_alphabet(right, &right_length)))
        return FL_OK;
    enum fl_status status = fl_bpe_add_merge(self->bpe, left, left_length, right, right_length,
                                             rank);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "%s: merge number %u joins tokens that the vocabulary does not have", what,
                       rank);
    return FL_OK;
}

enum fl_status fl_tokenizer_add_merge_line(struct fl_tokenizer *self, char *line, size_t length,
                                           uint32_t rank, const char *what, struct fl_error *error)
{
    char *space = length > 0 ? memchr(line, ' ', length) : NULL;
    if (space == NULL || memchr(space + 1, ' ', length - (size_t)(space + 1 - line)) != NULL)
        return fl_fail(error, FL_EFORMAT, "%s: merge number %u is not a pair", what, rank);
    return add_merge(self, line, (size_t)(space - line), space + 1,
                     length - (size_t)(space + 1 - line), rank, what, error);
}

static enum fl_status read_pair(struct fl_tokenizer *self, struct fl_scan *scan,
                                struct fl_buf *left, uint32_t rank, const char *what,
                                struct fl_error *error)
{
    bool fine = fl_scan_open(scan, '[') && fl_scan_more(scan, ']', true) && fl_scan_string(scan);
    left->length = 0;
    if (fine)
        fl_buf_append(left, fl_buf_text(&scan->string), scan->string.length);
    fine = fine && fl_scan_more(scan, ']', false) && fl_scan_string(scan) &&
           !fl_scan_more(scan, ']', false) && !fl_scan_failed(scan);
    if (!fine && !fl_scan_failed(scan))
        scan->problem = "a merge is not a pair";
    if (!fine)
        return scan_error(scan, what, error);
    if (fl_buf_status(left) != FL_OK)
        return fl_fail_memory(error);
    if (left->length == 0 || scan->string.length == 0)
        return fl_fail(error, FL_EFORMAT, "%s: merge number %u has an empty half", what, rank);
    return add_merge(self, (char *)left->data, left->length, (char *)scan->string.data,
                     scan->string.length, rank, what, error);
}

static enum fl_status read_merges(struct fl_tokenizer *self, struct span merges, const char *what,
                                  struct fl_error *error)
{
    struct fl_scan scan;
    struct fl_buf left;
    enum fl_status status = FL_OK;
    uint32_t rank = 0;
    fl_buf_init(&left, FL_SCAN_STRING_BYTES_MAX);
    fl_scan_begin(&scan, merges.text, merges.length);
    fl_scan_open(&scan, '[');
    for (bool first = true; status == FL_OK && fl_scan_more(&scan, ']', first); first = false) {
        if (fl_scan_peek(&scan) == '[') {
            status = read_pair(self, &scan, &left, rank++, what, error);
        } else if (fl_scan_string(&scan)) {
            if (strncmp(fl_buf_text(&scan.string), "#version", 8) == 0)
                continue;
            status = fl_tokenizer_add_merge_line(self, (char *)scan.string.data, scan.string.length,
                                                 rank++, what, error);
        }
    }
    if (status == FL_OK && fl_scan_failed(&scan))
        status = scan_error(&scan, what, error);
    fl_scan_end(&scan);
    fl_buf_free(&left);
    return status;
}

static bool is(const struct member *member, const char *text)
{
    return member->span.text != NULL && member->span.length == strlen(text) &&
           memcmp(member->span.text, text, member->span.length) == 0;
}

/* Absent, null, "" or 0: the feature is not used. */
static bool unused(const struct member *member)
{
    return member->span.text == NULL || is(member, "null") || is(member, "\"\"") ||
           is(member, "0") || is(member, "0.0");
}

static enum fl_status set_rules(struct fl_tokenizer *self, const struct member *b, const char *what,
                                struct fl_error *error)
{
    json_t *unk;
    enum fl_status status = load(&b[B_UNK], what, &unk, error);
    if (status != FL_OK)
        return status;
    struct fl_bpe_rules rules = {.ignore_merges = is(&b[B_IGNORE], "true"),
                                 .unk = -1,
                                 .fuse_unk = is(&b[B_FUSE], "true"),
                                 .characters = self->characters};
    if (json_is_string(unk) && json_string_length(unk) > 0)
        rules.unk = fl_bpe_find(self->bpe, json_string_value(unk), json_string_length(unk));
    json_decref(unk);
    fl_bpe_set_rules(self->bpe, &rules);
    for (int byte = 0; is(&b[B_FALLBACK], "true") && byte < 256; byte++) {
        char name[8];
        (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        fl_bpe_set_fallback(self->bpe, (uint8_t)byte, fl_bpe_find(self->bpe, name, 6));
    }
    return FL_OK;
}

static enum fl_status check_model(const struct fl_tokenizer *self, const struct member *b,
                                  const char *what, struct fl_error *error)
{
    const struct span *type = &b[B_TYPE].span;
    if (type->text != NULL && !is(&b[B_TYPE], "\"BPE\""))
        return fl_fail(error, FL_EFORMAT, "%s: model type %.*s is not supported (only BPE is)",
                       what, (int)(type->length < 40 ? type->length : 40), type->text);
    if (!unused(&b[B_DROPOUT]) || !unused(&b[B_PREFIX]) || !unused(&b[B_SUFFIX]))
        return fl_fail(error, FL_EFORMAT,
                       "%s: BPE with dropout, continuing_subword_prefix or "
                       "end_of_word_suffix is not supported",
                       what);
    if (is(&b[B_FALLBACK], "true") && !self->characters)
        return fl_fail(error, FL_EFORMAT,
                       "%s: byte_fallback with a ByteLevel pre_tokenizer is not supported", what);
    if (b[B_VOCAB].span.text == NULL || b[B_MERGES].span.text == NULL)
        return fl_fail(error, FL_EFORMAT, "%s: model has no vocab or no merges", what);
    return FL_OK;
}

static enum fl_status read_model(struct fl_tokenizer *self, struct span model, const char *what,
                                 struct fl_error *error)
{
    struct member b[B_COUNT] = {
        [B_TYPE] = {.name = "type"},
        [B_DROPOUT] = {.name = "dropout"},
        [B_UNK] = {.name = "unk_token"},
        [B_PREFIX] = {.name = "continuing_subword_prefix"},
        [B_SUFFIX] = {.name = "end_of_word_suffix"},
        [B_FUSE] = {.name = "fuse_unk"},
        [B_FALLBACK] = {.name = "byte_fallback"},
        [B_IGNORE] = {.name = "ignore_merges"},
        [B_VOCAB] = {.name = "vocab"},
        [B_MERGES] = {.name = "merges"},
    };
    enum fl_status status = cut(model, b, B_COUNT, what, error);
    if (status == FL_OK)
        status = check_model(self, b, what, error);
    if (status != FL_OK)
        return status;
    self->bpe = fl_bpe_new(count_byte(b[B_VOCAB].span, ':'), count_byte(b[B_MERGES].span, '"') / 2);
    if (self->bpe == NULL)
        return fl_fail_memory(error);
    status = read_vocab(self, b[B_VOCAB].span, what, error);
    if (status == FL_OK)
        status = read_merges(self, b[B_MERGES].span, what, error);
    if (status == FL_OK)
        status = set_rules(self, b, what, error);
    return status;
}

/* ---- the file ---- */

typedef enum fl_status (*reader)(struct fl_tokenizer *self, const json_t *value, const char *what,
                                 struct fl_error *error);

static enum fl_status read_member(struct fl_tokenizer *self, const struct member *member,
                                  reader read, const char *what, struct fl_error *error)
{
    json_t *value;
    enum fl_status status = load(member, what, &value, error);
    if (status == FL_OK)
        status = read(self, value, what, error);
    json_decref(value);
    return status;
}

static enum fl_status read_tokenizer(struct fl_tokenizer *self, struct span text, const char *what,
                                     struct fl_error *error)
{
    struct member m[M_COUNT] = {
        [M_ADDED] = {.name = "added_tokens"}, [M_NORMALIZER] = {.name = "normalizer"},
        [M_PRE] = {.name = "pre_tokenizer"},  [M_POST] = {.name = "post_processor"},
        [M_DECODER] = {.name = "decoder"},    [M_MODEL] = {.name = "model"},
    };
    enum fl_status status = cut(text, m, M_COUNT, what, error);
    if (status != FL_OK)
        return status;
    if (m[M_MODEL].span.text == NULL)
        return fl_fail(error, FL_EFORMAT, "%s: no member \"model\"", what);
    status = read_member(self, &m[M_NORMALIZER], fl_pipeline_normalizer, what, error);
    if (status == FL_OK)
        status = read_member(self, &m[M_PRE], fl_pipeline_pre_tokenizer, what, error);
    if (status == FL_OK)
        status = read_model(self, m[M_MODEL].span, what, error);
    if (status == FL_OK)
        status = read_member(self, &m[M_DECODER], fl_pipeline_decoder, what, error);
    if (status == FL_OK)
        status = read_member(self, &m[M_ADDED], fl_pipeline_added, what, error);
    if (status == FL_OK)
        status = read_member(self, &m[M_POST], fl_pipeline_template, what, error);
    return status;
}

/* A configuration file that may be absent, handed to read as an object. */
static enum fl_status read_config(struct fl_tokenizer *self, const char *directory,
                                  const char *name, reader read, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, name, error);
    if (status != FL_OK || !fl_path_exists(path))
        return status;
    json_t *object;
    status = fl_json_load(path, CONFIG_BYTES_MAX, &object, error);
    if (status != FL_OK)
        return status == FL_ERANGE ? FL_EFORMAT : status;
    status = json_is_object(object) ? read(self, object, path, error)
                                    : fl_fail(error, FL_EFORMAT, "%s: not an object", path);
    json_decref(object);
    return status;
}

static enum fl_status read_template_file(struct fl_tokenizer *self, const char *directory,
                                         struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, "chat_template.jinja", error);
    if (status != FL_OK || self->chat_template != NULL || !fl_path_exists(path))
        return status;
    struct fl_buf text;
    status = fl_fs_read(path, CONFIG_BYTES_MAX, &text, error);
    if (status == FL_OK) {
        self->chat_template = fl_strdup(fl_buf_text(&text));
        if (self->chat_template == NULL)
            status = fl_fail_memory(error);
    }
    fl_buf_free(&text);
    return status;
}

enum fl_status fl_tokenizer_read_json(struct fl_tokenizer *self, const char *directory,
                                      struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_mapping file;
    enum fl_status status = fl_path_join(path, directory, "tokenizer.json", error);
    if (status != FL_OK)
        return status;
    status = fl_fs_map(path, &file, error);
    if (status != FL_OK)
        return status;
    if (file.length == 0 || file.length > TOKENIZER_JSON_BYTES_MAX) {
        status = fl_fail(error, FL_EFORMAT, "%s: empty, or larger than %u bytes", path,
                         TOKENIZER_JSON_BYTES_MAX);
    } else {
        status = read_tokenizer(self, (struct span){(const char *)file.data, file.length}, path,
                                error);
    }
    fl_fs_unmap(&file);
    if (status == FL_OK)
        status = read_config(self, directory, "tokenizer_config.json", fl_pipeline_config, error);
    if (status == FL_OK)
        status = read_config(self, directory, "config.json", fl_pipeline_model_config, error);
    if (status == FL_OK)
        status = read_config(self, directory, "generation_config.json", fl_pipeline_model_config,
                             error);
    if (status == FL_OK)
        status = read_template_file(self, directory, error);
    return status;
}
