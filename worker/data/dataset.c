/*
 * dataset.c - rows in one arena of numbers. A row's labels are its ids wherever everything is
 * scored, so that plain text is held once.
 */
#include "worker/data/dataset.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/limits.h"
#include "worker/data/lines.h"
#include "worker/data/record.h"

#define TEXT_FILE_BYTES_MAX (1u << 30)
#define FILES_MAX           65536

struct entry {
    size_t ids, labels; /* offsets into values */
    uint32_t length;
    bool truncated;
    uint64_t order; /* scratch of fl_dataset_keep() */
};

struct fl_dataset {
    struct fl_ids values;
    struct entry *entries; /* (counts.rows) */
    size_t capacity;
    struct fl_dataset_counts counts;
    struct fl_dataset *valid; /* owned; NULL: nothing is held out */
};

/* What reading needs beside the data set. */
struct reading {
    struct fl_dataset *set, *valid; /* the row at hand goes into one of them; valid may be NULL */
    struct fl_tokenizer *tokenizer;
    const struct fl_dataset_options *options;
    struct fl_ids ids, labels; /* of the row at hand */
    struct fl_error *error;
};

/* ---- rows ---- */

static uint64_t count_scored(const int32_t *labels, uint32_t length)
{
    uint64_t scored = 0;
    for (uint32_t i = 1; i < length; i++)
        scored += labels[i] != FL_IGNORE;
    return scored;
}

static enum fl_status reserve_entry(struct fl_dataset *self)
{
    if (self->counts.rows < self->capacity)
        return FL_OK;
    size_t capacity = self->capacity * 2 + 64;
    struct entry *grown = fl_reallocarray(self->entries, capacity, sizeof *grown);
    if (grown == NULL)
        return FL_ENOMEM;
    self->entries = grown;
    self->capacity = capacity;
    return FL_OK;
}

static void count_row(struct fl_dataset *self, const struct entry *entry)
{
    self->counts.rows++;
    self->counts.truncated += entry->truncated;
    self->counts.tokens += entry->length;
    self->counts.scored_tokens += count_scored(self->values.ids + entry->labels, entry->length);
}

/* Cut, drop or keep one row of `count` ids. */
static enum fl_status add_row(struct reading *r, struct fl_dataset *set, const int32_t *ids,
                              const int32_t *labels, size_t count)
{
    bool truncated = count > r->options->seq_len;
    uint32_t length = truncated ? r->options->seq_len : (uint32_t)count;
    if (length < 2 || count_scored(labels, length) == 0) {
        set->counts.dropped++;
        return FL_OK;
    }
    if (set->counts.rows >= FL_DATASET_ROWS_MAX)
        return fl_fail(r->error, FL_ERANGE, "more than %u rows", FL_DATASET_ROWS_MAX);
    struct entry entry = {.ids = set->values.count, .length = length, .truncated = truncated};
    entry.labels = entry.ids;
    enum fl_status status = reserve_entry(set);
    if (status == FL_OK)
        status = fl_ids_append(&set->values, ids, length);
    /* position 0 is never scored: its label does not matter */
    if (status == FL_OK && memcmp(ids + 1, labels + 1, (length - 1) * sizeof *ids) != 0) {
        entry.labels = set->values.count;
        status = fl_ids_append(&set->values, labels, length);
    }
    if (status != FL_OK)
        return fl_fail_memory(r->error);
    set->entries[set->counts.rows] = entry;
    count_row(set, &entry);
    return FL_OK;
}

/* ---- files ---- */

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    }
    return true;
}

/* The side of the split that a record is on. */
static enum fl_status side_of(const struct reading *r, const json_t *record,
                              struct fl_dataset **side)
{
    double drawn = 1.0;
    enum fl_status status = FL_OK;
    if (r->valid != NULL)
        status = fl_record_draw(record, r->options->split_seed, &drawn);
    *side = drawn < r->options->valid_split ? r->valid : r->set;
    return status == FL_OK ? FL_OK : fl_fail_memory(r->error);
}

static enum fl_status read_record(struct reading *r, const char *text, size_t length)
{
    json_t *record;
    struct fl_dataset *side = NULL;
    enum fl_status status = fl_record_parse(text, length, &record, r->error);
    if (status == FL_OK)
        status = fl_record_row(record, r->tokenizer, r->options, &r->ids, &r->labels, r->error);
    if (status == FL_OK)
        status = side_of(r, record, &side);
    if (status == FL_OK)
        status = add_row(r, side, r->ids.ids, r->labels.ids, r->ids.count);
    json_decref(record);
    return status;
}

static enum fl_status read_line(struct reading *r, const struct fl_lines *lines, const char *text,
                                size_t length)
{
    if (is_blank(text, length))
        return FL_OK;
    enum fl_status status = read_record(r, text, length);
    if (status == FL_OK)
        return FL_OK;
    if (status == FL_EFORMAT && r->options->skip_bad_rows) {
        r->set->counts.bad++;
        return FL_OK;
    }
    fl_error_prefix(r->error, "%s:%" PRIu64, lines->path, lines->number);
    return status;
}

static enum fl_status read_lines(struct reading *r, struct fl_lines *lines)
{
    for (;;) {
        const char *text;
        size_t length;
        enum fl_status status = fl_lines_next(lines, &text, &length, r->error);
        if (status == FL_OK && text == NULL)
            return FL_OK;
        if (status == FL_OK)
            status = read_line(r, lines, text, length);
        if (status != FL_OK)
            return status;
    }
}

static enum fl_status read_jsonl(struct reading *r, const char *path)
{
    struct fl_lines *lines = fl_calloc(1, sizeof *lines); /* too large for the stack */
    if (lines == NULL)
        return fl_fail_memory(r->error);
    enum fl_status status = fl_lines_open(lines, path, FL_DATASET_LINE_BYTES_MAX, r->error);
    if (status == FL_OK)
        status = read_lines(r, lines);
    fl_lines_close(lines);
    fl_free(lines);
    return status;
}

/* A stretch of text is a record of its own: its ids decide on which side it is. */
static enum fl_status add_text_row(struct reading *r, const int32_t *ids, size_t count)
{
    struct fl_dataset *side = r->set;
    if (r->valid != NULL &&
        fl_record_draw_ids(ids, count, r->options->split_seed) < r->options->valid_split)
        side = r->valid;
    return add_row(r, side, ids, ids, count);
}

/* The whole file is one text: its ids are cut into consecutive rows. */
static enum fl_status read_text(struct reading *r, const char *path)
{
    if (r->tokenizer == NULL)
        return fl_fail(r->error, FL_EINVAL, "%s: a text file needs a tokenizer", path);
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, TEXT_FILE_BYTES_MAX, &text, r->error);
    unsigned flags = FL_ENCODE_ADD_SPECIAL;
    if (r->options->specials_plain)
        flags |= FL_ENCODE_SPECIALS_PLAIN;
    size_t bom = text.length >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    r->ids.count = 0;
    if (status == FL_OK)
        status = fl_tokenizer_encode(r->tokenizer, fl_buf_text(&text) + bom, text.length - bom,
                                     flags, &r->ids, r->error);
    fl_buf_free(&text);
    for (size_t at = 0; status == FL_OK && at < r->ids.count; at += r->options->seq_len) {
        size_t left = r->ids.count - at;
        size_t count = left < r->options->seq_len ? left : r->options->seq_len;
        status = add_text_row(r, r->ids.ids + at, count);
    }
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static enum fl_status read_file(struct reading *r, const char *path)
{
    return ends_with(path, ".txt") ? read_text(r, path) : read_jsonl(r, path);
}

/* ---- directories ---- */

struct names {
    char **names; /* (count), owned */
    size_t count, capacity;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum fl_status push_name(struct names *self, const char *name)
{
    if (self->count == FILES_MAX)
        return FL_ERANGE;
    if (self->count == self->capacity) {
        size_t capacity = self->capacity * 2 + 16;
        char **grown = fl_reallocarray(self->names, capacity, sizeof *grown);
        if (grown == NULL)
            return FL_ENOMEM;
        self->names = grown;
        self->capacity = capacity;
    }
    char *copy = fl_strdup(name);
    if (copy == NULL)
        return FL_ENOMEM;
    self->names[self->count++] = copy;
    return FL_OK;
}

static enum fl_status list_files(const char *path, struct names *out, struct fl_error *error)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return fl_fail_errno(error, errno, "%s: can't list", path);
    enum fl_status status = FL_OK;
    for (const struct dirent *e; status == FL_OK && (e = readdir(directory)) != NULL;) {
        bool wanted = ends_with(e->d_name, ".jsonl") || ends_with(e->d_name, ".txt");
        if (e->d_name[0] != '.' && wanted)
            status = push_name(out, e->d_name);
    }
    closedir(directory);
    if (status == FL_ERANGE)
        return fl_fail(error, status, "%s: more than %d data files", path, FILES_MAX);
    if (status != FL_OK)
        return fl_fail_memory(error);
    if (out->count == 0)
        return fl_fail(error, FL_EFORMAT, "%s: no *.jsonl or *.txt inside", path);
    qsort(out->names, out->count, sizeof *out->names, compare_names);
    return FL_OK;
}

static enum fl_status read_directory(struct reading *r, const char *path)
{
    struct names names = {0};
    enum fl_status status = list_files(path, &names, r->error);
    for (size_t i = 0; status == FL_OK && i < names.count; i++) {
        char file[FL_PATH_BYTES];
        status = fl_path_join(file, path, names.names[i], r->error);
        if (status == FL_OK)
            status = read_file(r, file);
    }
    for (size_t i = 0; i < names.count; i++)
        fl_free(names.names[i]);
    fl_free(names.names);
    return status;
}

/* ---- the contract ---- */

static enum fl_status check_options(const struct fl_dataset_options *options,
                                    struct fl_error *error)
{
    if (options->seq_len < 2 || options->seq_len > FL_SEQ_MAX)
        return fl_fail(error, FL_EINVAL, "a row length of %u tokens is outside 2..%d",
                       options->seq_len, FL_SEQ_MAX);
    if (!(options->valid_split >= 0 && options->valid_split <= FL_VALID_SPLIT_MAX))
        return fl_fail(error, FL_EINVAL, "a validation share of %g is outside 0..%g",
                       options->valid_split, FL_VALID_SPLIT_MAX);
    return FL_OK;
}

static enum fl_status check_rows(const struct fl_dataset *self, const char *path,
                                 struct fl_error *error)
{
    if (self->counts.rows == 0)
        return fl_fail(error, FL_EFORMAT,
                       "%s: no row with anything to learn from (%" PRIu64 " dropped, %" PRIu64
                       " broken lines)",
                       path, self->counts.dropped, self->counts.bad);
    if (self->valid != NULL && self->valid->counts.rows == 0)
        return fl_fail(error, FL_EFORMAT,
                       "%s: none of its %" PRIu64 " rows fell into the validation share; choose a "
                       "larger one, or another seed",
                       path, self->counts.rows);
    return FL_OK;
}

enum fl_status fl_dataset_open(const char *path, struct fl_tokenizer *tokenizer,
                               const struct fl_dataset_options *options, struct fl_dataset **out,
                               struct fl_error *error)
{
    *out = NULL;
    enum fl_status status = check_options(options, error);
    if (status != FL_OK)
        return status;
    struct fl_dataset *self = fl_calloc(1, sizeof *self);
    if (self != NULL && options->valid_split > 0)
        self->valid = fl_calloc(1, sizeof *self->valid);
    struct reading r = {.set = self,
                        .valid = self != NULL ? self->valid : NULL,
                        .tokenizer = tokenizer,
                        .options = options,
                        .error = error};
    if (self == NULL || (options->valid_split > 0 && self->valid == NULL))
        status = fl_fail_memory(error);
    else
        status = fl_path_is_directory(path) ? read_directory(&r, path) : read_file(&r, path);
    if (status == FL_OK)
        status = check_rows(self, path, error);
    fl_ids_free(&r.ids);
    fl_ids_free(&r.labels);
    if (status != FL_OK) {
        fl_dataset_close(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

void fl_dataset_close(struct fl_dataset *self)
{
    if (self == NULL)
        return;
    fl_dataset_close(self->valid);
    fl_ids_free(&self->values);
    fl_free(self->entries);
    fl_free(self);
}

struct fl_dataset *fl_dataset_valid(struct fl_dataset *self)
{
    return self->valid;
}

size_t fl_dataset_rows(const struct fl_dataset *self)
{
    return (size_t)self->counts.rows;
}

struct fl_row fl_dataset_row(const struct fl_dataset *self, size_t index)
{
    const struct entry *entry = &self->entries[index];
    return (struct fl_row){.ids = self->values.ids + entry->ids,
                           .labels = self->values.ids + entry->labels,
                           .length = entry->length};
}

const struct fl_dataset_counts *fl_dataset_counts(const struct fl_dataset *self)
{
    return &self->counts;
}

static void hash_numbers(struct fl_blake2b *hash, const int32_t *values, size_t count)
{
    uint8_t bytes[4 * 256];
    for (size_t at = 0; at < count;) {
        size_t n = count - at < 256 ? count - at : 256;
        for (size_t i = 0; i < n; i++)
            fl_store_u32(bytes + 4 * i, (uint32_t)values[at + i]);
        fl_blake2b_update(hash, bytes, 4 * n);
        at += n;
    }
}

void fl_dataset_hash(const struct fl_dataset *self, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, NULL, 0);
    for (size_t i = 0; i < self->counts.rows; i++) {
        struct fl_row row = fl_dataset_row(self, i);
        int32_t length = (int32_t)row.length;
        hash_numbers(&hash, &length, 1);
        hash_numbers(&hash, row.ids, row.length);
        hash_numbers(&hash, row.labels, row.length);
    }
    fl_blake2b_final(&hash, out);
}

static uint64_t row_order(uint64_t seed, uint64_t index)
{
    uint8_t key[16] = {0}, message[8], digest[FL_HASH_BYTES];
    struct fl_blake2b hash;
    fl_store_u64(key, seed);
    fl_store_u64(message, index);
    fl_blake2b_init(&hash, key, sizeof key);
    fl_blake2b_update(&hash, message, sizeof message);
    fl_blake2b_final(&hash, digest);
    return fl_load_u64(digest);
}

static int compare_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->ids < y->ids ? -1 : x->ids > y->ids;
}

static int compare_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->ids < y->ids ? -1 : x->ids > y->ids;
}

enum fl_status fl_dataset_keep(struct fl_dataset *self, size_t count, uint64_t seed,
                               struct fl_error *error)
{
    if (count == 0)
        return fl_fail(error, FL_EINVAL, "at least one row must be kept");
    size_t rows = fl_dataset_rows(self);
    if (rows <= count)
        return FL_OK;
    for (size_t i = 0; i < rows; i++)
        self->entries[i].order = row_order(seed, i);
    qsort(self->entries, rows, sizeof *self->entries, compare_order);
    qsort(self->entries, count, sizeof *self->entries, compare_place);
    self->counts.rows = self->counts.truncated = 0;
    self->counts.tokens = self->counts.scored_tokens = 0;
    for (size_t i = 0; i < count; i++)
        count_row(self, &self->entries[i]);
    return FL_OK;
}
