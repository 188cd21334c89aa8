/*
 * config.c - see config.h. inih finds sections, keys, comments; what it lacks is done here, around
 * it: line numbers (our reader counts them), values and section names beyond its fixed lengths
 * (kept aside while inih sees a stand-in of one control byte, which the text itself may not
 * contain), and indented lines, which it would take for a continuation of the value before.
 */
#include "base/config.h"

#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cli.h"
#include "base/config_internal.h"
#include "base/fs.h"

#define FL_CONFIG_FILE_BYTES (1u << 20)
#define FL_CONFIG_NAME_BYTES 160 /* a section or a key with its NUL */
#define FL_CONFIG_HANDLED_MAX                                                                      \
    4096 /* keys for the handler in one file: bounds the search for twins */
#define FL_CONFIG_NAMES_MAX 256
#define FL_CONFIG_STAND_IN  "\001"

struct parse {
    const struct fl_config_table *table;
    void *target, *context;
    const char *what;
    const char *next, *end; /* what the reader has not handed out */
    int line;
    char section[FL_CONFIG_NAME_BYTES];
    struct fl_buf value;   /* the long value that stands behind a stand-in */
    bool *seen;            /* (table->count) */
    struct fl_buf handled; /* "section\nkey\0" of each key that went to the handler */
    size_t handled_count;
    int failed_line; /* 0: none */
    struct fl_error *error;
};

/* Record the first failure, which ends the reading. */
static void fail_here(struct parse *self)
{
    if (self->failed_line == 0)
        self->failed_line = self->line;
}

static bool is_known_section(const struct fl_config_table *table, const char *section)
{
    for (size_t i = 0; i < table->count; i++) {
        if (fl_config_matches(table->keys[i].section, section))
            return true;
    }
    return false;
}

/* The nearest section (section NULL), or the nearest key of that section. May be NULL. */
static const char *suggest(const struct fl_config_table *table, const char *section,
                           const char *word)
{
    const char *names[FL_CONFIG_NAMES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < table->count && count < FL_CONFIG_NAMES_MAX; i++) {
        const struct fl_config_key *key = &table->keys[i];
        if (!section)
            names[count++] = key->section;
        else if (fl_config_matches(key->section, section) && !fl_config_is_pattern(key->key))
            names[count++] = key->key;
    }
    return fl_nearest(word, names, count);
}

/* Remember the section of a line "[name]"; false when it is refused. */
static bool enter_section(struct parse *self, const char *line, size_t length)
{
    const char *close = memchr(line, ']', length);
    size_t bytes = close ? (size_t)(close - line) - 1 : 0;
    if (!close || bytes == 0 || bytes >= sizeof(self->section)) {
        fl_fail(self->error, FL_EFORMAT, "not a section such as [name]");
        return false;
    }
    memcpy(self->section, line + 1, bytes);
    self->section[bytes] = 0;
    if (is_known_section(self->table, self->section))
        return true;
    const char *near = suggest(self->table, NULL, self->section);
    if (near)
        fl_fail(self->error, FL_EFORMAT, "unknown section [%s]; did you mean [%s]?", self->section,
                near);
    else
        fl_fail(self->error, FL_EFORMAT, "unknown section [%s]", self->section);
    return false;
}

/* The value inih would find: up to a blank and ';', without blanks around. */
static void hold_value(struct parse *self, const char *text, size_t length)
{
    for (size_t i = 1; i < length; i++) {
        if (text[i] == ';' && (text[i - 1] == ' ' || text[i - 1] == '\t'))
            length = i;
    }
    while (length > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        length--;
    }
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    fl_buf_free(&self->value);
    fl_buf_append(&self->value, text, length);
}

/* Hand inih "key = <stand-in>" for a line longer than it takes. */
static bool shorten(struct parse *self, const char *line, size_t length, char *out, size_t room)
{
    size_t key = 0;
    while (key < length && line[key] != '=' && line[key] != ':')
        key++;
    if (key == length || key + 3 > room || key >= FL_CONFIG_NAME_BYTES) {
        fl_fail(self->error, FL_EFORMAT, "line too long for a key");
        return false;
    }
    hold_value(self, line + key + 1, length - key - 1);
    if (fl_buf_status(&self->value) != FL_OK) {
        fl_fail_memory(self->error);
        return false;
    }
    snprintf(out, room, "%.*s=%s", (int)key, line, FL_CONFIG_STAND_IN);
    return true;
}

/* inih's reader: one physical line a call. */
static char *read_line(char *out, int room, void *stream)
{
    struct parse *self = stream;
    if (self->failed_line || self->next == self->end)
        return NULL;
    const char *start = self->next;
    const char *feed = memchr(start, '\n', (size_t)(self->end - start));
    const char *stop = feed ? feed : self->end;
    self->next = feed ? feed + 1 : self->end;
    self->line++;
    if (self->line == 1 && stop - start >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0)
        start += 3;
    while (start < stop && (*start == ' ' || *start == '\t'))
        start++;
    while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t' || stop[-1] == '\r'))
        stop--;
    size_t length = (size_t)(stop - start);
    bool good = true;
    out[0] = 0;
    if (length == 0 || *start == ';' || *start == '#')
        return out;
    if (*start == '[') {
        good = enter_section(self, start, length);
        snprintf(out, (size_t)room, "[%s]", FL_CONFIG_STAND_IN);
    } else if (length + 1 < (size_t)room) {
        snprintf(out, (size_t)room, "%.*s", (int)length, start);
    } else {
        good = shorten(self, start, length, out, (size_t)room);
    }
    if (!good)
        fail_here(self);
    return good ? out : NULL;
}

static enum fl_status fail_unknown_key(const struct parse *self, const char *name)
{
    if (!self->section[0])
        return fl_fail(self->error, FL_EFORMAT, "key '%s' stands before any [section]", name);
    const char *near = suggest(self->table, self->section, name);
    if (near)
        return fl_fail(self->error, FL_EFORMAT, "unknown key '%s' in [%s]; did you mean '%s'?",
                       name, self->section, near);
    return fl_fail(self->error, FL_EFORMAT, "unknown key '%s' in [%s]", name, self->section);
}

static enum fl_status fail_twice(const struct parse *self, const char *name)
{
    return fl_fail(self->error, FL_EFORMAT, "key '%s' is given twice in [%s]", name, self->section);
}

/* The row for a key: one that names it before one that matches it. NULL: unknown. */
static const struct fl_config_key *find_key(const struct parse *self, const char *name)
{
    const struct fl_config_key *match = NULL;
    for (size_t i = 0; i < self->table->count; i++) {
        const struct fl_config_key *key = &self->table->keys[i];
        if (!fl_config_matches(key->section, self->section))
            continue;
        if (strcmp(key->key, name) == 0)
            return key;
        if (!match && fl_config_matches(key->key, name))
            match = key;
    }
    return match;
}

static enum fl_status give_to_handler(struct parse *self, const char *name, const char *value)
{
    char twin[2 * FL_CONFIG_NAME_BYTES + 64];
    snprintf(twin, sizeof(twin), "%s\n%s", self->section, name);
    const char *entry = fl_buf_text(&self->handled), *end = entry + self->handled.length;
    for (; entry < end; entry += strlen(entry) + 1) {
        if (strcmp(entry, twin) == 0)
            return fail_twice(self, name);
    }
    if (++self->handled_count > FL_CONFIG_HANDLED_MAX)
        return fl_fail(self->error, FL_EFORMAT, "more than %d keys", FL_CONFIG_HANDLED_MAX);
    fl_buf_append(&self->handled, twin, strlen(twin) + 1);
    if (fl_buf_status(&self->handled) != FL_OK)
        return fl_fail_memory(self->error);
    return self->table->handler(self->context, self->section, name, value, self->error);
}

/* inih's handler: 1 to go on, 0 on failure. */
static int take(void *user, const char *section, const char *name, const char *value)
{
    (void)section; /* ours is not cut */
    struct parse *self = user;
    if (self->failed_line)
        return 0;
    if (strcmp(value, FL_CONFIG_STAND_IN) == 0)
        value = fl_buf_text(&self->value);
    const struct fl_config_key *key = find_key(self, name);
    enum fl_status status;
    if (!key) {
        status = fail_unknown_key(self, name);
    } else if (fl_config_is_handled(key)) {
        status = give_to_handler(self, name, value);
    } else if (self->seen[key - self->table->keys]) {
        status = fail_twice(self, name);
    } else {
        self->seen[key - self->table->keys] = true;
        status = fl_config_set(key, value, self->target, self->error);
        if (status != FL_OK)
            fl_error_prefix(self->error, "[%s] %s", self->section, name);
    }
    if (status != FL_OK)
        fail_here(self);
    return status == FL_OK;
}

static enum fl_status set_defaults(const struct fl_config_table *table, void *target,
                                   struct fl_error *error)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct fl_config_key *key = &table->keys[i];
        if (fl_config_is_handled(key) || !key->fallback)
            continue;
        enum fl_status status = fl_config_set(key, key->fallback, target, error);
        if (status != FL_OK) { /* the table is wrong: a unit test of its owner meets this */
            fl_error_prefix(error, "default of [%s] %s", key->section, key->key);
            return status;
        }
    }
    return FL_OK;
}

static enum fl_status check_required(const struct parse *self)
{
    for (size_t i = 0; i < self->table->count; i++) {
        const struct fl_config_key *key = &self->table->keys[i];
        if (!fl_config_is_handled(key) && !key->fallback && !self->seen[i])
            return fl_fail(self->error, FL_EFORMAT, "%s: key '%s' is missing in [%s]", self->what,
                           key->key, key->section);
    }
    return FL_OK;
}

/* Control bytes hide text from the reader's eye, and our stand-in is one. */
static enum fl_status check_bytes(const char *text, size_t length, const char *what,
                                  struct fl_error *error)
{
    int line = 1;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n')
            line++;
        else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
            return fl_fail(error, FL_EFORMAT, "%s:%d: control byte 0x%02x", what, line, c);
    }
    return FL_OK;
}

static enum fl_status read_all(struct parse *self)
{
    int bad = ini_parse_stream(read_line, self, take, self);
    if (self->failed_line && (bad <= 0 || bad >= self->failed_line)) {
        if (self->error)
            fl_error_prefix(self->error, "%s:%d", self->what, self->failed_line);
        return self->error ? self->error->status : FL_EFORMAT;
    }
    if (bad > 0)
        return fl_fail(self->error, FL_EFORMAT, "%s:%d: neither [section] nor key = value",
                       self->what, bad);
    return check_required(self);
}

enum fl_status fl_config_parse(const struct fl_config_table *table, const char *text, size_t length,
                               const char *what, void *target, void *context,
                               struct fl_error *error)
{
    struct fl_error own;
    struct parse parse = {.table = table,
                          .target = target,
                          .context = context,
                          .what = what,
                          .next = text,
                          .end = text + length,
                          .error = error ? error : &own};
    fl_buf_init(&parse.value, FL_CONFIG_FILE_BYTES);
    fl_buf_init(&parse.handled, 2 * FL_CONFIG_FILE_BYTES);
    enum fl_status status = set_defaults(table, target, parse.error);
    if (status == FL_OK)
        status = check_bytes(text, length, what, parse.error);
    if (status != FL_OK)
        return status;
    parse.seen = fl_calloc(table->count, sizeof(*parse.seen));
    if (!parse.seen)
        return fl_fail_memory(parse.error);
    status = read_all(&parse);
    fl_free(parse.seen);
    fl_buf_free(&parse.value);
    fl_buf_free(&parse.handled);
    return status;
}

/* Is [text, end) word, with nothing but blanks around it? */
static bool is_word(const char *text, const char *end, const char *word)
{
    const size_t length = strlen(word);
    while (text < end && (*text == ' ' || *text == '\t'))
        text++;
    while (end > text && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (size_t)(end - text) == length && memcmp(text, word, length) == 0;
}

int fl_config_line(const char *text, size_t length, const char *section, const char *key)
{
    const char *end = text + length;
    bool inside = false;
    for (int line = 1; text < end; line++) {
        const char *feed = memchr(text, '\n', (size_t)(end - text));
        const char *stop = feed ? feed : end, *start = text;
        while (start < stop && (*start == ' ' || *start == '\t'))
            start++;
        const char *close = memchr(start, ']', (size_t)(stop - start)), *sign = start;
        while (sign < stop && *sign != '=' && *sign != ':')
            sign++;
        if (start < stop && *start == '[')
            inside = close && is_word(start + 1, close, section);
        else if (inside && sign < stop && is_word(start, sign, key))
            return line;
        text = feed ? feed + 1 : end;
    }
    return 0;
}

enum fl_status fl_config_load(const struct fl_config_table *table, const char *path, void *target,
                              void *context, struct fl_error *error)
{
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, FL_CONFIG_FILE_BYTES, &text, error);
    if (status == FL_OK)
        status = fl_config_parse(table, fl_buf_text(&text), text.length, path, target, context,
                                 error);
    fl_buf_free(&text);
    return status;
}
