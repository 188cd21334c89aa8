/*
 * glossary - what deploy/demo makes each institution's files with.
 *
 *   glossary rows NAME.dict NAME.index > rows.jsonl   a dictionary's entries as training rows
 *   glossary split SEED TRAIN EVAL < rows.jsonl       5 % held out, at most 24 of them evaluated
 *
 * A dictionary is the format of dictd(8), unpacked: NAME.index holds lines `term TAB offset TAB
 * size`, numbers in base 64 with the digits A-Z a-z 0-9 + /, most significant first; terms that
 * begin with 00 are metadata; several terms may name one entry, the first of them counts. A row is
 * {"prompt":"Define: TERM\n","completion":TEXT}, white space folded.
 *
 * Which rows are held out depends on seed and text only: those whose BLAKE2b-256(seed || row) is
 * smallest, at least one. What is held out is never trained on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"

#define TEXT_MAX      (256u << 20)
#define ROWS_MAX      10000000u
#define TERM_BYTES    256
#define HELD_OUT      20 /* one row in so many */
#define EVALUATED_MAX 24

struct entry {
    uint64_t offset, size;
    uint32_t line; /* of the index, to keep its order among equals */
    char term[TERM_BYTES];
};

struct line {
    const char *text;
    size_t length;
    uint8_t hash[FL_HASH_BYTES];
    bool held;
};

static bool number_of(const char *text, uint64_t *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = strlen(text);
    *out = 0;
    for (size_t i = 0; i < length; i++) {
        const char *digit = strchr(digits, text[i]);
        if (!digit || length > 8)
            return false;
        *out = *out << 6 | (uint64_t)(digit - digits);
    }
    return length > 0;
}

/* One line of the index. false: not an entry (metadata, or a term too long to be one). */
static bool parse_entry(char *line, struct entry *out)
{
    char *offset = strchr(line, '\t');
    char *size = offset ? strchr(offset + 1, '\t') : NULL;
    if (!size || (size_t)(offset - line) >= sizeof out->term || strncmp(line, "00", 2) == 0)
        return false;
    *offset++ = '\0';
    *size++ = '\0';
    size[strcspn(size, "\t\r")] = '\0';
    (void)snprintf(out->term, sizeof out->term, "%s", line);
    return number_of(offset, &out->offset) && number_of(size, &out->size);
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* Runs of white space become one space; none at the ends. Returns the length. */
static size_t fold(const uint8_t *text, size_t length, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        bool space = memchr(" \t\r\n\v\f", text[i], 6) != NULL;
        if (!space)
            out[n++] = (char)text[i];
        else if (n > 0 && out[n - 1] != ' ')
            out[n++] = ' ';
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    return n;
}

static enum fl_status print_row(const struct entry *entry, const uint8_t *text, char *scratch)
{
    char prompt[TERM_BYTES + 16];
    size_t length = fold(text, (size_t)entry->size, scratch);
    if (length == 0)
        return FL_OK;
    (void)snprintf(prompt, sizeof prompt, "Define: %s\n", entry->term);
    json_t *row = json_pack("{s:s, s:s%}", "prompt", prompt, "completion", scratch, length);
    enum fl_status status = row ? fl_json_print(row) : FL_OK; /* not UTF-8: left out */
    json_decref(row);
    return status;
}

/* The index's entries by offset; *count of them. */
static struct entry *read_index(struct fl_buf *index, size_t *count)
{
    size_t lines = 0;
    for (size_t i = 0; i < index->length; i++)
        lines += index->data[i] == '\n';
    struct entry *entries = lines > 0 && lines < ROWS_MAX ? fl_calloc(lines, sizeof *entries)
                                                          : NULL;
    char *next = entries ? (char *)index->data : NULL;
    *count = 0;
    for (size_t i = 0; next && i < lines; i++) {
        char *end = memchr(next, '\n', index->length - (size_t)(next - (char *)index->data));
        *end = '\0';
        entries[*count].line = (uint32_t)i;
        *count += parse_entry(next, &entries[*count]);
        next = end + 1;
    }
    if (*count > 0)
        qsort(entries, *count, sizeof *entries, by_offset);
    return entries;
}

static enum fl_status rows(const char *dict_path, const char *index_path, struct fl_error *error)
{
    struct fl_buf dict, index;
    size_t count = 0;
    struct entry *entries = NULL;
    char *scratch = NULL;
    fl_buf_init(&index, TEXT_MAX);
    enum fl_status status = fl_fs_read(dict_path, TEXT_MAX, &dict, error);
    if (status == FL_OK)
        status = fl_fs_read(index_path, TEXT_MAX, &index, error);
    if (status == FL_OK && !(entries = read_index(&index, &count)))
        status = fl_fail(error, FL_EFORMAT, "%s: no dictionary index", index_path);
    if (status == FL_OK && !(scratch = fl_malloc(dict.length + 1)))
        status = fl_fail_memory(error);
    for (size_t i = 0; status == FL_OK && i < count; i++) {
        const struct entry *e = &entries[i];
        if (i > 0 && e->offset == entries[i - 1].offset)
            continue;
        if (e->offset > dict.length || e->size > dict.length - e->offset)
            status = fl_fail(error, FL_EFORMAT, "%s: '%s' lies outside %s", index_path, e->term,
                             dict_path);
        else if (print_row(e, dict.data + e->offset, scratch) != FL_OK)
            status = fl_fail(error, FL_EIO, "the rows cannot be written");
    }
    fl_free(scratch);
    fl_free(entries);
    fl_buf_free(&index);
    fl_buf_free(&dict);
    return status;
}

static int by_hash(const void *a, const void *b)
{
    const struct line *const *x = a, *const *y = b;
    return memcmp((*x)->hash, (*y)->hash, FL_HASH_BYTES);
}

static size_t read_lines(const struct fl_buf *text, const char *seed, struct line *lines)
{
    size_t count = 0;
    for (size_t at = 0; at < text->length;) {
        const char *start = (const char *)text->data + at;
        const char *end = memchr(start, '\n', text->length - at);
        size_t length = end ? (size_t)(end - start) : text->length - at;
        at += length + 1;
        if (length == 0)
            continue;
        struct line *line = &lines[count++];
        struct fl_blake2b hash;
        *line = (struct line){.text = start, .length = length};
        fl_blake2b_init(&hash, NULL, 0);
        fl_blake2b_update(&hash, seed, strlen(seed) + 1);
        fl_blake2b_update(&hash, start, length);
        fl_blake2b_final(&hash, line->hash);
    }
    return count;
}

static enum fl_status write_lines(const char *path, const struct line *lines, size_t count,
                                  bool held, struct fl_error *error)
{
    struct fl_buf out;
    fl_buf_init(&out, TEXT_MAX);
    size_t written = 0;
    for (size_t i = 0; i < count && !(held && written == EVALUATED_MAX); i++) {
        if (lines[i].held != held)
            continue;
        fl_buf_append(&out, lines[i].text, lines[i].length);
        fl_buf_append(&out, "\n", 1);
        written++;
    }
    enum fl_status status = fl_buf_status(&out) == FL_OK
                                ? fl_fs_write(path, out.data, out.length, 0600, error)
                                : fl_fail_memory(error);
    fl_buf_free(&out);
    return status;
}

static enum fl_status split(const char *seed, const char *train, const char *eval,
                            struct fl_error *error)
{
    struct fl_buf text;
    size_t newlines = 1, count = 0;
    fl_buf_init(&text, TEXT_MAX);
    enum fl_status status = fl_fs_read_stdin(TEXT_MAX, &text, error);
    for (size_t i = 0; i < text.length; i++)
        newlines += text.data[i] == '\n';
    struct line *lines = fl_calloc(newlines, sizeof *lines);
    struct line **order = fl_calloc(newlines, sizeof *order);
    if (status == FL_OK && (!lines || !order))
        status = fl_fail_memory(error);
    if (status == FL_OK && (count = read_lines(&text, seed, lines)) < 2)
        status = fl_fail(error, FL_EFORMAT, "fewer than two rows: nothing can be held out");
    for (size_t i = 0; i < count; i++)
        order[i] = &lines[i];
    if (status == FL_OK) {
        qsort(order, count, sizeof(struct line *), by_hash);
        for (size_t i = 0; i < (count + HELD_OUT - 1) / HELD_OUT; i++)
            order[i]->held = true;
        status = write_lines(train, lines, count, false, error);
    }
    if (status == FL_OK)
        status = write_lines(eval, lines, count, true, error);
    fl_free(order);
    fl_free(lines);
    fl_buf_free(&text);
    return status;
}

int main(int argc, char **argv)
{
    struct fl_error error = {0};
    enum fl_status status;
    fl_hash_init();
    fl_json_init();
    if (argc == 4 && strcmp(argv[1], "rows") == 0)
        status = rows(argv[2], argv[3], &error);
    else if (argc == 5 && strcmp(argv[1], "split") == 0)
        status = split(argv[2], argv[3], argv[4], &error);
    else
        status = fl_fail(&error, FL_EUSAGE,
                         "usage: glossary rows DICT INDEX | split SEED TRAIN EVAL");
    if (status != FL_OK)
        (void)fprintf(stderr, "glossary: %s\n", error.text);
    return fl_exit_code(status);
}
