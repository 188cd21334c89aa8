/* source.c - see source.h. */
#include "worker/data/source.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "worker/data/csv.h"
#include "worker/data/dataset.h"
#include "worker/data/files.h"
#include "worker/data/record.h"
#include "worker/data/unicode.h"

struct fl_source {
    struct fl_feed feed;
    enum fl_status (*next)(struct fl_source *self, json_t **record, bool *skippable,
                           struct fl_error *error);
    struct fl_place place; /* of the record at hand, or of what is wrong */
    struct fl_buf text;    /* one record of JSON */
    bool first, ended;     /* of an array: no element was read yet; its bracket closed */
    struct fl_csv csv;
    char *columns[FL_CSV_FIELDS_MAX]; /* (column_count), owned */
    size_t column_count;
};

/* ---- JSON ---- */

/* What was read into self->text, which begins at self->place. */
static enum fl_status parse_text(struct fl_source *self, json_t **record, bool *skippable,
                                 struct fl_error *error)
{
    enum fl_status status = fl_buf_status(&self->text);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT, "the record is longer than %zu bytes",
                       self->text.maximum);
    *skippable = true;
    return fl_record_parse(fl_buf_text(&self->text), self->text.length, record, &self->place,
                           error);
}

static enum fl_status next_line(struct fl_source *self, json_t **record, bool *skippable,
                                struct fl_error *error)
{
    static const bool STOPS[256] = {['\n'] = true};
    if (fl_feed_skip_blanks(&self->feed) < 0)
        return FL_OK;
    self->place = self->feed.place;
    self->text.length = 0;
    fl_feed_until(&self->feed, STOPS, &self->text);
    return parse_text(self, record, skippable, error);
}

/* Behind an opening quote: append up to and with the closing one. */
static void take_string(struct fl_source *self)
{
    static const bool STOPS[256] = {['"'] = true, ['\\'] = true};
    for (;;) {
        fl_feed_until(&self->feed, STOPS, &self->text);
        int byte = fl_buf_status(&self->text) == FL_OK ? fl_feed_next(&self->feed) : -1;
        if (byte < 0)
            return;
        fl_buf_append(&self->text, &(char){(char)byte}, 1);
        if (byte == '"')
            return;
        byte = fl_feed_next(&self->feed); /* what the backslash escapes */
        if (byte >= 0)
            fl_buf_append(&self->text, &(char){(char)byte}, 1);
    }
}

/* One element of an array, by its brackets and strings alone; the parser judges it afterwards. */
static enum fl_status take_element(struct fl_source *self, struct fl_error *error)
{
    static const bool STOPS[256] = {
        ['"'] = true, [','] = true, ['['] = true, [']'] = true, ['{'] = true, ['}'] = true};
    size_t depth = 0;
    self->text.length = 0;
    while (fl_buf_status(&self->text) == FL_OK) {
        fl_feed_until(&self->feed, STOPS, &self->text);
        int byte = fl_feed_peek(&self->feed);
        if (byte < 0)
            return fl_fail(error, FL_EFORMAT, "the file ends inside this element of its array");
        bool closes = byte == ']' || byte == '}';
        if (depth == 0 && (closes || byte == ','))
            return FL_OK;
        (void)fl_feed_next(&self->feed);
        fl_buf_append(&self->text, &(char){(char)byte}, 1);
        if (byte == '"')
            take_string(self);
        else if (byte == '[' || byte == '{')
            depth++;
        else if (closes && --depth == 0)
            return FL_OK;
    }
    return FL_OK; /* the status of the text tells */
}

/* In front of an element: past the comma. At the end: past the bracket, and *ended. */
static enum fl_status enter_element(struct fl_source *self, bool *ended, struct fl_error *error)
{
    int byte = fl_feed_skip_blanks(&self->feed);
    self->place = self->feed.place;
    *ended = byte == ']';
    if (byte < 0)
        return fl_fail(error, FL_EFORMAT, "the file ends inside its JSON array");
    if (!*ended && !self->first && byte != ',')
        return fl_fail(error, FL_EFORMAT, "a comma or the end of the array is expected");
    if (*ended || !self->first)
        (void)fl_feed_next(&self->feed);
    byte = fl_feed_skip_blanks(&self->feed);
    self->place = self->feed.place;
    self->first = false;
    if (*ended && byte >= 0)
        return fl_fail(error, FL_EFORMAT, "something follows the end of the JSON array");
    return FL_OK;
}

static enum fl_status next_element(struct fl_source *self, json_t **record, bool *skippable,
                                   struct fl_error *error)
{
    if (self->ended)
        return FL_OK;
    enum fl_status status = enter_element(self, &self->ended, error);
    if (status != FL_OK || self->ended)
        return status;
    status = take_element(self, error);
    return status == FL_OK ? parse_text(self, record, skippable, error) : status;
}

/* ---- CSV ---- */

static enum fl_status set_cell(struct fl_source *self, json_t *record, size_t column,
                               struct fl_error *error)
{
    const struct fl_csv_field *field = &self->csv.fields[column];
    const char *bytes = fl_buf_text(&self->csv.bytes) + field->at;
    if (!fl_utf8_valid(bytes, field->length))
        return fl_fail(error, FL_EFORMAT, "column \"%.64s\" is not UTF-8", self->columns[column]);
    json_t *cell = json_stringn_nocheck(bytes, field->length);
    return json_object_set_new_nocheck(record, self->columns[column], cell) == 0
               ? FL_OK
               : fl_fail_memory(error);
}

static enum fl_status next_csv(struct fl_source *self, json_t **record, bool *skippable,
                               struct fl_error *error)
{
    enum fl_status status = fl_csv_next(&self->csv, skippable, error);
    self->place = self->csv.place;
    if (status != FL_OK || self->csv.count == 0)
        return status;
    *skippable = true;
    if (self->csv.count != self->column_count)
        return fl_fail(error, FL_EFORMAT, "%zu fields, and the header has %zu", self->csv.count,
                       self->column_count);
    json_t *object = json_object();
    status = object != NULL ? FL_OK : fl_fail_memory(error);
    for (size_t i = 0; status == FL_OK && i < self->column_count; i++)
        status = set_cell(self, object, i, error);
    if (status != FL_OK) {
        json_decref(object);
        return status;
    }
    *record = object;
    return FL_OK;
}

static bool has_column(const struct fl_source *self, const char *name)
{
    for (size_t i = 0; i < self->column_count; i++) {
        if (strcmp(self->columns[i], name) == 0)
            return true;
    }
    return false;
}

static enum fl_status add_column(struct fl_source *self, const struct fl_csv_field *field,
                                 struct fl_error *error)
{
    const char *bytes = fl_buf_text(&self->csv.bytes) + field->at;
    if (!fl_utf8_valid(bytes, field->length) || memchr(bytes, '\0', field->length) != NULL)
        return fl_fail(error, FL_EFORMAT, "this is neither JSON nor the header of a CSV file");
    char *name = fl_malloc(field->length + 1);
    if (name == NULL)
        return fl_fail_memory(error);
    memcpy(name, bytes, field->length);
    name[field->length] = '\0';
    bool twice = has_column(self, name);
    self->columns[self->column_count++] = name;
    return twice ? fl_fail(error, FL_EFORMAT, "column %zu of the header is named as one before it",
                           self->column_count)
                 : FL_OK;
}

static enum fl_status read_header(struct fl_source *self, struct fl_error *error)
{
    bool skippable;
    enum fl_status status = fl_csv_next(&self->csv, &skippable, error);
    self->place = self->csv.place;
    for (size_t i = 0; status == FL_OK && i < self->csv.count; i++)
        status = add_column(self, &self->csv.fields[i], error);
    if (status != FL_OK)
        return status;
    bool known = has_column(self, "text") ||
                 (has_column(self, "prompt") && has_column(self, "completion")) ||
                 (has_column(self, "instruction") && has_column(self, "output"));
    return known ? FL_OK
                 : fl_fail(error, FL_EFORMAT,
                           "neither JSON nor a CSV header that names the columns text, prompt and "
                           "completion, or instruction and output");
}

/* ---- which of them ---- */

/* A zero among so many first bytes: a model, a program, UTF-16 without its mark. */
#define BINARY_BYTES 16

/* Known by their first bytes; the command line that converts them is BEFORE NAME BETWEEN NAME
 * AFTER. */
static const struct {
    const char *magic, *what, *before, *between, *after;
} FOREIGN[] = {
    {"PAR1", "a Parquet file", "python3 -c \"import pandas; pandas.read_parquet('", "').to_json('",
     ".jsonl', orient='records', lines=True)\""},
    {"\x1F\x8B", "compressed with gzip", "gunzip -c '", "' > '", ".jsonl'"},
    {"\x28\xB5\x2F\xFD", "compressed with zstd", "zstd -dc '", "' > '", ".jsonl'"},
    {"BZh", "compressed with bzip2", "bunzip2 -c '", "' > '", ".jsonl'"},
    {"\xFD\x37zXZ", "compressed with xz", "xz -dc '", "' > '", ".jsonl'"},
    {"PK\3\4", "a zip archive or a spreadsheet", "unzip -p '", "' > '", ".csv'"},
    {"\xFF\xFE", "in UTF-16", "iconv -f UTF-16 -t UTF-8 '", "' > '", ".jsonl'"},
    {"\xFE\xFF", "in UTF-16", "iconv -f UTF-16 -t UTF-8 '", "' > '", ".jsonl'"},
};

static enum fl_status refuse_foreign(struct fl_source *self, struct fl_error *error)
{
    size_t length;
    const char *name = fl_path_base(self->feed.path);
    const unsigned char *ahead = fl_feed_ahead(&self->feed, &length);
    for (size_t i = 0; i < sizeof FOREIGN / sizeof FOREIGN[0]; i++) {
        size_t magic_length = strlen(FOREIGN[i].magic);
        if (length >= magic_length && memcmp(ahead, FOREIGN[i].magic, magic_length) == 0)
            return fl_fail(error, FL_EFORMAT, "%.200s: it is %s; convert it: %s%.100s%s%.100s%s",
                           self->feed.path, FOREIGN[i].what, FOREIGN[i].before, name,
                           FOREIGN[i].between, name, FOREIGN[i].after);
    }
    if (memchr(ahead, '\0', length < BINARY_BYTES ? length : BINARY_BYTES) != NULL)
        return fl_fail(error, FL_EFORMAT,
                       "%.200s: it begins with binary data, not with text; name a JSONL, JSON, CSV "
                       "or .txt file",
                       self->feed.path);
    return FL_OK;
}

static enum fl_status choose(struct fl_source *self, struct fl_error *error)
{
    const char *path = self->feed.path;
    enum fl_status status = refuse_foreign(self, error);
    if (status != FL_OK)
        return status;
    int byte = fl_feed_skip_blanks(&self->feed);
    self->next = next_line;
    if (byte == '[') {
        (void)fl_feed_next(&self->feed);
        self->next = next_element;
        self->first = true;
    } else if (byte >= 0 && byte != '{' && !fl_name_ends_with(path, ".jsonl") &&
               !fl_name_ends_with(path, ".ndjson")) {
        self->next = next_csv;
        fl_csv_begin(&self->csv, &self->feed, FL_DATASET_RECORD_BYTES_MAX);
        status = read_header(self, error);
        if (status == FL_EFORMAT)
            fl_source_blame(self, error);
    }
    return status;
}

enum fl_status fl_source_begin(FILE *file, const char *path, struct fl_source **out,
                               struct fl_error *error)
{
    *out = NULL;
    struct fl_source *self = fl_calloc(1, sizeof *self);
    if (self == NULL) {
        fclose(file);
        return fl_fail_memory(error);
    }
    fl_feed_begin(&self->feed, file, path);
    fl_buf_init(&self->text, FL_DATASET_RECORD_BYTES_MAX);
    enum fl_status status = choose(self, error);
    if (status == FL_OK)
        status = fl_feed_status(&self->feed, error);
    if (status != FL_OK) {
        fl_source_close(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

enum fl_status fl_source_open(const char *path, struct fl_source **out, struct fl_error *error)
{
    *out = NULL;
    FILE *file = fopen(path, "rbe");
    return file != NULL ? fl_source_begin(file, path, out, error)
                        : fl_fail_errno(error, errno, "%s: can't open", path);
}

void fl_source_close(struct fl_source *self)
{
    if (self == NULL)
        return;
    for (size_t i = 0; i < self->column_count; i++)
        fl_free(self->columns[i]);
    fl_feed_close(&self->feed);
    fl_buf_free(&self->text);
    fl_csv_end(&self->csv);
    fl_free(self);
}

enum fl_status fl_source_next(struct fl_source *self, json_t **record, bool *skippable,
                              struct fl_error *error)
{
    *record = NULL;
    *skippable = false;
    enum fl_status status = self->next(self, record, skippable, error);
    if (self->feed.problem != 0) {
        json_decref(*record);
        *record = NULL;
        *skippable = false;
        return fl_feed_status(&self->feed, error);
    }
    if (status == FL_EFORMAT)
        fl_source_blame(self, error);
    return status;
}

void fl_source_blame(const struct fl_source *self, struct fl_error *error)
{
    fl_error_prefix(error, "%s:%" PRIu64 ":%" PRIu64, self->feed.path, self->place.line,
                    self->place.column);
}
