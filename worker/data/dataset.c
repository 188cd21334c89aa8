/*
 * dataset.c - rows in one arena of numbers. A row's labels are its ids wherever everything is
 * scored, so that plain text is held once.
 */
#include "worker/data/dataset.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/limits.h"
#include "worker/data/example.h"
#include "worker/data/files.h"
#include "worker/data/record.h"
#include "worker/data/source.h"

#define TEXT_FILE_BYTES_MAX (1u << 30)

struct entry {
    size_t ids, labels; /* offsets into values */
    uint32_t length;
    bool completion_cut;
    size_t tokens_cut;
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
    struct fl_dataset *set;  /* what is opened */
    struct fl_dataset *side; /* where rows go that are not drawn: set, or set->valid */
    struct fl_reader reader;
    const struct fl_dataset_options *options;
    struct fl_example example; /* the record at hand */
    struct fl_error *error;
};

/* ---- rows ---- */

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
    self->counts.truncated += entry->tokens_cut > 0;
    self->counts.completions_cut += entry->completion_cut;
    self->counts.tokens_cut += entry->tokens_cut;
    self->counts.tokens += entry->length;
    self->counts.scored_tokens += fl_labels_scored(self->values.ids + entry->labels, entry->length);
}

static enum fl_status store_row(struct fl_dataset *set, struct entry *entry, const int32_t *ids,
                                const int32_t *labels)
{
    entry->ids = entry->labels = set->values.count;
    enum fl_status status = reserve_entry(set);
    if (status == FL_OK)
        status = fl_ids_append(&set->values, ids, entry->length);
    /* position 0 is never scored: its label does not matter */
    if (status == FL_OK && memcmp(ids + 1, labels + 1, (entry->length - 1) * sizeof *ids) != 0) {
        entry->labels = set->values.count;
        status = fl_ids_append(&set->values, labels, entry->length);
    }
    if (status != FL_OK)
        return status;
    set->entries[set->counts.rows] = *entry;
    count_row(set, entry);
    return FL_OK;
}

/* Cut, drop or keep the example at hand. */
static enum fl_status add_row(struct reading *r, struct fl_dataset *set)
{
    struct fl_example *example = &r->example;
    struct fl_example_cut cut;
    if (example->empty) {
        set->counts.empty++;
        return FL_OK;
    }
    fl_example_cut(example, r->options->seq_len, &cut);
    size_t length = example->ids.count;
    if (length < 2 || fl_labels_scored(example->labels.ids, length) == 0) {
        set->counts.dropped++;
        return FL_OK;
    }
    if (set->counts.rows >= FL_DATASET_ROWS_MAX)
        return fl_fail(r->error, FL_ERANGE, "more than %u rows", FL_DATASET_ROWS_MAX);
    if (r->options->loss_all)
        fl_example_score_all(example);
    struct entry entry = {
        .length = (uint32_t)length, .completion_cut = cut.scored > 0, .tokens_cut = cut.tokens};
    return store_row(set, &entry, example->ids.ids, example->labels.ids) == FL_OK
               ? FL_OK
               : fl_fail_memory(r->error);
}

/* ---- files ---- */

/* The side of the split that a record is on. */
static enum fl_status side_of(const struct reading *r, const json_t *record,
                              struct fl_dataset **side)
{
    double drawn = 1.0;
    enum fl_status status = FL_OK;
    *side = r->side;
    if (r->options->valid_split > 0)
        status = fl_record_draw(record, r->options->split_seed, &drawn);
    if (drawn < r->options->valid_split)
        *side = r->set->valid;
    return status == FL_OK ? FL_OK : fl_fail_memory(r->error);
}

static enum fl_status read_record(struct reading *r, const json_t *record)
{
    struct fl_dataset *side = NULL;
    enum fl_status status = fl_record_row(record, &r->reader, &r->example, r->error);
    if (status == FL_OK)
        status = side_of(r, record, &side);
    return status == FL_OK ? add_row(r, side) : status;
}

/* *ended tells that the source has no more records. */
static enum fl_status read_next(struct reading *r, struct fl_source *source, bool *ended)
{
    json_t *record;
    bool skippable;
    enum fl_status status = fl_source_next(source, &record, &skippable, r->error);
    *ended = status == FL_OK && record == NULL;
    if (record != NULL) {
        status = read_record(r, record);
        skippable = true;
        if (status != FL_OK)
            fl_source_blame(source, r->error);
    }
    json_decref(record);
    if (status != FL_EFORMAT || !skippable || !r->options->skip_bad_rows)
        return status;
    r->side->counts.bad++;
    return FL_OK;
}

static enum fl_status read_records(struct reading *r, const char *path)
{
    struct fl_source *source;
    bool ended = false;
    enum fl_status status = fl_source_open(path, &source, r->error);
    while (status == FL_OK && !ended)
        status = read_next(r, source, &ended);
    fl_source_close(source);
    return status;
}

/* A stretch of text is a record of its own: its ids decide on which side it is. */
static enum fl_status add_text_row(struct reading *r, const int32_t *ids, size_t count)
{
    double share = r->options->valid_split;
    struct fl_dataset *side = r->side;
    if (share > 0 && fl_record_draw_ids(ids, count, r->options->split_seed) < share)
        side = r->set->valid;
    fl_example_clear(&r->example);
    if (fl_ids_append(&r->example.ids, ids, count) != FL_OK)
        return fl_fail_memory(r->error);
    enum fl_status status = fl_example_label(&r->example, true, r->error);
    return status == FL_OK ? add_row(r, side) : status;
}

static enum fl_status cut_text(struct reading *r, const struct fl_ids *ids)
{
    enum fl_status status = FL_OK;
    for (size_t at = 0; status == FL_OK && at < ids->count; at += r->options->seq_len) {
        size_t left = ids->count - at;
        size_t count = left < r->options->seq_len ? left : r->options->seq_len;
        status = add_text_row(r, ids->ids + at, count);
    }
    return status;
}

/* The whole file is one text: its ids are cut into consecutive rows. */
static enum fl_status read_text(struct reading *r, const char *path)
{
    if (r->reader.tokenizer == NULL)
        return fl_fail(r->error, FL_EINVAL, "%s: a text file needs a tokenizer", path);
    struct fl_buf text;
    struct fl_ids ids = {0};
    enum fl_status status = fl_fs_read(path, TEXT_FILE_BYTES_MAX, &text, r->error);
    unsigned flags = FL_ENCODE_ADD_SPECIAL;
    if (r->options->specials_plain)
        flags |= FL_ENCODE_SPECIALS_PLAIN;
    size_t bom = text.length >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    if (status == FL_OK)
        status = fl_tokenizer_encode(r->reader.tokenizer, fl_buf_text(&text) + bom,
                                     text.length - bom, flags, &ids, r->error);
    fl_buf_free(&text);
    if (status == FL_OK)
        status = cut_text(r, &ids);
    fl_ids_free(&ids);
    return status;
}

static enum fl_status read_file(struct reading *r, const char *path)
{
    return fl_name_ends_with(path, ".txt") ? read_text(r, path) : read_records(r, path);
}

/* ---- directories ---- */

static enum fl_status open_valid(struct fl_dataset *self, struct fl_error *error)
{
    self->valid = fl_calloc(1, sizeof *self->valid);
    return self->valid != NULL ? FL_OK : fl_fail_memory(error);
}

/* Whether a file of this role is read, and into which side. */
static bool wanted(struct reading *r, const struct fl_files *files, enum fl_file_role role)
{
    r->side = r->set;
    if (r->options->part == FL_PART_EVAL) {
        if (files->of_role[FL_FILE_TEST] > 0)
            return role == FL_FILE_TEST;
        return files->of_role[FL_FILE_VALID] == 0 || role == FL_FILE_VALID;
    }
    if (role == FL_FILE_VALID)
        r->side = r->set->valid;
    if (files->of_role[FL_FILE_TRAIN] > 0 && role == FL_FILE_OTHER)
        return false;
    return role != FL_FILE_TEST;
}

static enum fl_status check_files(struct reading *r, const struct fl_files *files, const char *path)
{
    if (r->options->part == FL_PART_EVAL)
        return FL_OK;
    if (files->of_role[FL_FILE_TRAIN] + files->of_role[FL_FILE_OTHER] == 0)
        return fl_fail(r->error, FL_EFORMAT,
                       "%s: only files for validation and test are inside, none to train on", path);
    if (files->of_role[FL_FILE_VALID] > 0 && r->options->valid_split > 0)
        return fl_fail(r->error, FL_EINVAL,
                       "%s: it has files for validation; a share to hold out can't be given too",
                       path);
    bool held_out = files->of_role[FL_FILE_VALID] > 0 || r->options->valid_split > 0;
    return held_out ? open_valid(r->set, r->error) : FL_OK;
}

static enum fl_status read_directory(struct reading *r, const char *path)
{
    struct fl_files files = {0};
    enum fl_status status = fl_files_list(path, &files, r->error);
    if (status == FL_OK)
        status = check_files(r, &files, path);
    for (size_t i = 0; status == FL_OK && i < files.count; i++) {
        char file[FL_PATH_BYTES];
        status = fl_path_join(file, path, files.files[i].name, r->error);
        if (status == FL_OK && wanted(r, &files, files.files[i].role))
            status = read_file(r, file);
    }
    fl_files_free(&files);
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
                       " empty, %" PRIu64 " broken)",
                       path, self->counts.dropped, self->counts.empty, self->counts.bad);
    if (self->valid != NULL && self->valid->counts.rows == 0)
        return fl_fail(error, FL_EFORMAT,
                       "%s: no row to validate on beside its %" PRIu64 " rows; hold out a larger "
                       "share, or look at its files for validation",
                       path, self->counts.rows);
    return FL_OK;
}

static enum fl_status read_path(struct reading *r, const char *path)
{
    enum fl_status status = FL_OK;
    if (r->options->valid_split > 0 && !fl_path_is_directory(path))
        status = open_valid(r->set, r->error);
    if (status != FL_OK)
        return status;
    status = fl_path_is_directory(path) ? read_directory(r, path) : read_file(r, path);
    return status == FL_OK ? check_rows(r->set, path, r->error) : status;
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
    if (self == NULL)
        return fl_fail_memory(error);
    struct reading r = {.set = self,
                        .side = self,
                        .reader = {tokenizer, options, NULL},
                        .options = options,
                        .error = error};
    status = read_path(&r, path);
    fl_reader_end(&r.reader);
    fl_example_free(&r.example);
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
    self->counts = (struct fl_dataset_counts){
        .dropped = self->counts.dropped, .empty = self->counts.empty, .bad = self->counts.bad};
    for (size_t i = 0; i < count; i++)
        count_row(self, &self->entries[i]);
    return FL_OK;
}
