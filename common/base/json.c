/* json.c - see json.h. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/escape.h"
#include "base/fs.h"

#define FL_JSON_RESERVE_BYTES 16384
#define FL_JSON_LINE_BYTES    (256u << 20) /* what fl_json_print() is ready to hold */

/*
 * jansson 2.14 asserts when its token buffer cannot grow. While a thread parses, a refused
 * allocation therefore takes from a reserve, and the input is cut off right behind: the document
 * is dropped with FL_ENOMEM, and the process lives on.
 */
struct parse {
    const char *next;
    size_t left;
    void *reserve;
    bool refused;
};
static _Thread_local struct parse *parsing;

static void *allocate(size_t bytes)
{
    void *block = fl_malloc(bytes);
    if (block || !parsing)
        return block;
    parsing->refused = true;
    fl_free(parsing->reserve);
    parsing->reserve = NULL;
    return fl_malloc(bytes);
}

void fl_json_init(void)
{
    json_set_alloc_funcs(allocate, fl_free);
}

/* jansson's reader: up to `room` bytes of the text. */
static size_t feed(void *buffer, size_t room, void *data)
{
    struct parse *self = data;
    if (self->refused)
        return (size_t)-1;
    size_t length = self->left < room ? self->left : room;
    memcpy(buffer, self->next, length);
    self->next += length;
    self->left -= length;
    return length;
}

json_t *fl_json_read(const char *text, size_t length, size_t flags, json_error_t *reason,
                     bool *refused)
{
    struct parse self = {.next = text, .left = length};
    /* the token buffer doubles, and the old one lives until it is copied */
    self.reserve = fl_malloc(4 * length + FL_JSON_RESERVE_BYTES);
    *refused = true;
    if (!self.reserve)
        return NULL;
    parsing = &self;
    json_t *value = json_load_callback(feed, &self, flags, reason);
    parsing = NULL;
    fl_free(self.reserve);
    *refused = self.refused;
    if (value && self.refused) {
        json_decref(value);
        value = NULL;
    }
    return value;
}

enum fl_status fl_json_parse(const char *text, size_t length, const char *what, json_t **out,
                             struct fl_error *error)
{
    json_error_t reason = {.line = 0};
    bool refused;
    *out = NULL;
    if (memchr(text, 0, length)) /* jansson skips it: "1<NUL>2" would be read as 12 */
        return fl_fail(error, FL_EFORMAT, "%s: not valid JSON: a NUL byte", what);
    *out = fl_json_read(text, length, JSON_REJECT_DUPLICATES, &reason, &refused);
    /* Hugging Face writes "no limit" as 1e30 in digits: such a document is read with reals */
    if (!*out && !refused && json_error_code(&reason) == json_error_numeric_overflow)
        *out = fl_json_read(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &reason,
                            &refused);
    if (*out)
        return FL_OK;
    if (refused || json_error_code(&reason) == json_error_out_of_memory)
        return fl_fail_memory(error);
    return fl_fail(error, FL_EFORMAT, "%s: not valid JSON: %s (line %d, column %d)", what,
                   reason.text, reason.line, reason.column);
}

enum fl_status fl_json_load(const char *path, size_t maximum_bytes, json_t **out,
                            struct fl_error *error)
{
    *out = NULL;
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, maximum_bytes, &text, error);
    if (status == FL_OK)
        status = fl_json_parse(fl_buf_text(&text), text.length, path, out, error);
    fl_buf_free(&text);
    return status;
}

/* The member, or NULL when it is absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

enum fl_status fl_json_u32(const json_t *object, const char *key, uint32_t fallback, uint32_t *out)
{
    const json_t *value = member(object, key);
    *out = fallback;
    if (!value)
        return FL_OK;
    if (!json_is_number(value))
        return FL_EFORMAT;
    double number = json_number_value(value);
    if (number < 0 || number > UINT32_MAX)
        return FL_ERANGE;
    if (number != floor(number))
        return FL_EFORMAT;
    *out = (uint32_t)number;
    return FL_OK;
}

enum fl_status fl_json_double(const json_t *object, const char *key, double fallback, double *out)
{
    const json_t *value = member(object, key);
    *out = fallback;
    if (!value)
        return FL_OK;
    if (!json_is_number(value))
        return FL_EFORMAT;
    *out = json_number_value(value);
    return FL_OK;
}

enum fl_status fl_json_bool(const json_t *object, const char *key, bool fallback, bool *out)
{
    const json_t *value = member(object, key);
    *out = fallback;
    if (!value)
        return FL_OK;
    if (!json_is_boolean(value))
        return FL_EFORMAT;
    *out = json_is_true(value);
    return FL_OK;
}

enum fl_status fl_json_string(const json_t *object, const char *key, const char *fallback,
                              const char **out)
{
    const json_t *value = member(object, key);
    *out = fallback;
    if (!value)
        return FL_OK;
    if (!json_is_string(value))
        return FL_EFORMAT;
    *out = json_string_value(value);
    return FL_OK;
}

static void append_string(struct fl_buf *out, const char *text, size_t length)
{
    char piece[FL_ESCAPE_BYTES];
    fl_buf_append(out, "\"", 1);
    for (size_t i = 0; i < length;) {
        i += fl_escape(text + i, length - i, piece);
        fl_buf_append(out, piece, strlen(piece));
    }
    fl_buf_append(out, "\"", 1);
}

static void append_real(struct fl_buf *out, double value)
{
    char text[40];
    if (!isfinite(value)) {
        fl_buf_append(out, "null", 4);
        return;
    }
    snprintf(text, sizeof(text), "%.9g", value);
    fl_buf_printf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void append_value(struct fl_buf *out, const json_t *value);

static void append_object(struct fl_buf *out, const json_t *object)
{
    const char *between = "{";
    json_t *mutable_object = (json_t *)(uintptr_t)object; /* jansson's iterators lack const */
    for (void *i = json_object_iter(mutable_object); i;
         i = json_object_iter_next(mutable_object, i)) {
        fl_buf_append(out, between, 1);
        append_string(out, json_object_iter_key(i), json_object_iter_key_len(i));
        fl_buf_append(out, ":", 1);
        append_value(out, json_object_iter_value(i));
        between = ",";
    }
    fl_buf_append(out, *between == '{' ? "{}" : "}", *between == '{' ? 2 : 1);
}

static void append_array(struct fl_buf *out, const json_t *array)
{
    fl_buf_append(out, "[", 1);
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i > 0)
            fl_buf_append(out, ",", 1);
        append_value(out, json_array_get(array, i));
    }
    fl_buf_append(out, "]", 1);
}

static void append_value(struct fl_buf *out, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        append_object(out, value);
        break;
    case JSON_ARRAY:
        append_array(out, value);
        break;
    case JSON_STRING:
        append_string(out, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        fl_buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        append_real(out, json_real_value(value));
        break;
    case JSON_TRUE:
        fl_buf_append(out, "true", 4);
        break;
    case JSON_FALSE:
        fl_buf_append(out, "false", 5);
        break;
    case JSON_NULL:
        fl_buf_append(out, "null", 4);
        break;
    }
}

enum fl_status fl_json_append(struct fl_buf *out, const json_t *value)
{
    if (!value) /* a constructor of jansson that was refused memory */
        return FL_ENOMEM;
    append_value(out, value);
    return fl_buf_status(out);
}

enum fl_status fl_json_print(const json_t *value)
{
    struct fl_buf line;
    fl_buf_init(&line, FL_JSON_LINE_BYTES);
    enum fl_status status = fl_json_append(&line, value);
    if (status == FL_OK) {
        fl_buf_append(&line, "\n", 1);
        status = fl_buf_status(&line);
    }
    if (status == FL_OK &&
        (fwrite(line.data, 1, line.length, stdout) != line.length || fflush(stdout) != 0))
        status = FL_EIO;
    fl_buf_free(&line);
    return status;
}
