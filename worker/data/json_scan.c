/*
 * json_scan.c - see json_scan.h. Grammar: RFC 8259; values that are cut out are checked for
 * brackets and strings only, since jansson reads them again.
 */
#include "worker/data/json_scan.h"

#include <string.h>

#include "worker/data/unicode.h"

void fl_scan_begin(struct fl_scan *self, const char *text, size_t length)
{
    *self = (struct fl_scan){.start = text, .at = text, .end = text + length};
    fl_buf_init(&self->string, FL_SCAN_STRING_BYTES_MAX);
}

void fl_scan_end(struct fl_scan *self)
{
    fl_buf_free(&self->string);
}

bool fl_scan_failed(const struct fl_scan *self)
{
    return self->problem != NULL;
}

size_t fl_scan_offset(const struct fl_scan *self)
{
    return (size_t)(self->at - self->start);
}

static bool fail(struct fl_scan *self, const char *problem)
{
    if (self->problem == NULL)
        self->problem = problem;
    return false;
}

char fl_scan_peek(struct fl_scan *self)
{
    while (self->at < self->end &&
           (*self->at == ' ' || *self->at == '\t' || *self->at == '\n' || *self->at == '\r'))
        self->at++;
    return self->at < self->end && self->problem == NULL ? *self->at : '\0';
}

static bool expect(struct fl_scan *self, char byte, const char *problem)
{
    if (fl_scan_peek(self) != byte)
        return fail(self, problem);
    self->at++;
    return true;
}

bool fl_scan_open(struct fl_scan *self, char bracket)
{
    return expect(self, bracket, bracket == '{' ? "an object is expected" : "an array is expected");
}

bool fl_scan_more(struct fl_scan *self, char close, bool first)
{
    if (self->problem != NULL)
        return false;
    if (fl_scan_peek(self) == close) {
        self->at++;
        return false;
    }
    return first || expect(self, ',', "a comma or a closing bracket is expected");
}

/* Four hexadecimal digits at p, or -1. */
static int32_t hex4(const char *p, const char *end)
{
    int32_t value = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* \uXXXX, with its second half where it is a surrogate pair; at is behind the 'u'. */
static bool unicode_escape(struct fl_scan *self)
{
    int32_t code = hex4(self->at, self->end);
    if (code < 0)
        return fail(self, "bad \\u escape");
    self->at += 4;
    if (code >= 0xD800 && code < 0xE000) {
        bool pair = self->end - self->at >= 6 && self->at[0] == '\\' && self->at[1] == 'u';
        int32_t low = pair ? hex4(self->at + 2, self->end) : -1;
        if (code >= 0xDC00 || low < 0xDC00 || low >= 0xE000)
            return fail(self, "lone surrogate");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        self->at += 6;
    }
    char bytes[4];
    fl_buf_append(&self->string, bytes, fl_utf8_put((uint32_t)code, bytes));
    return true;
}

static bool escape(struct fl_scan *self)
{
    static const char NAMES[] = "\"\\/bfnrt", VALUES[] = "\"\\/\b\f\n\r\t";
    self->at++; /* the backslash */
    if (self->at >= self->end)
        return fail(self, "a string does not end");
    char name = *self->at++;
    if (name == 'u')
        return unicode_escape(self);
    const char *known = name != '\0' ? strchr(NAMES, name) : NULL;
    if (known == NULL)
        return fail(self, "bad escape");
    fl_buf_append(&self->string, &VALUES[known - NAMES], 1);
    return true;
}

/* The end of a stretch without escapes, quotes and control bytes. */
static const char *plain_end(const struct fl_scan *self)
{
    const char *p = self->at;
    while (p < self->end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    return p;
}

bool fl_scan_string(struct fl_scan *self)
{
    if (!expect(self, '"', "a string is expected"))
        return false;
    self->string.length = 0;
    for (;;) {
        const char *stop = plain_end(self);
        size_t length = (size_t)(stop - self->at);
        if (!fl_utf8_valid(self->at, length))
            return fail(self, "a string is not UTF-8");
        if (length > 0)
            fl_buf_append(&self->string, self->at, length);
        self->at = stop;
        if (stop == self->end)
            return fail(self, "a string does not end");
        if (*stop == '"')
            break;
        if (*stop != '\\')
            return fail(self, "a control character in a string");
        if (!escape(self))
            return false;
    }
    self->at++;
    enum fl_status status = fl_buf_status(&self->string);
    if (status == FL_ENOMEM)
        return fail(self, "out of memory");
    return status == FL_OK || fail(self, "a string is too long");
}

bool fl_scan_key(struct fl_scan *self)
{
    return fl_scan_string(self) && expect(self, ':', "a colon is expected");
}

bool fl_scan_u32(struct fl_scan *self, uint32_t *out)
{
    uint64_t value = 0;
    int digits = 0;
    fl_scan_peek(self);
    while (self->problem == NULL && self->at < self->end && *self->at >= '0' && *self->at <= '9') {
        value = value * 10 + (uint64_t)(*self->at++ - '0');
        if (++digits > 10)
            break;
    }
    if (digits == 0 || value > UINT32_MAX)
        return fail(self, "a whole number is expected");
    *out = (uint32_t)value;
    return true;
}

/* Pass over a string without unescaping it. */
static bool skip_string(struct fl_scan *self)
{
    self->at++;
    for (;;) {
        self->at = plain_end(self);
        if (self->at == self->end)
            return fail(self, "a string does not end");
        if (*self->at == '"')
            break;
        self->at += *self->at == '\\' && self->at + 1 < self->end ? 2 : 1;
    }
    self->at++;
    return true;
}

bool fl_scan_value(struct fl_scan *self, const char **text, size_t *length)
{
    char closers[FL_SCAN_DEPTH_MAX];
    size_t depth = 0;
    char c = fl_scan_peek(self);
    const char *start = self->at;
    if (c == '\0')
        return fail(self, "a value is expected");
    while (self->at < self->end) {
        c = *self->at;
        if (c == '"') {
            if (!skip_string(self))
                return false;
            if (depth == 0)
                break;
            continue;
        }
        if (depth == 0 && (c == ',' || c == '}' || c == ']'))
            break;
        self->at++;
        if (c == '{' || c == '[') {
            if (depth == FL_SCAN_DEPTH_MAX)
                return fail(self, "nested too deep");
            closers[depth++] = c == '{' ? '}' : ']';
        } else if (c == '}' || c == ']') {
            if (closers[--depth] != c)
                return fail(self, "brackets do not match");
            if (depth == 0)
                break;
        }
    }
    if (depth > 0)
        return fail(self, "a bracket does not close");
    const char *stop = self->at;
    while (stop > start && (stop[-1] == ' ' || (stop[-1] >= '\t' && stop[-1] <= '\r')))
        stop--;
    if (stop == start)
        return fail(self, "a value is expected");
    *text = start;
    *length = (size_t)(stop - start);
    return true;
}

bool fl_scan_finish(struct fl_scan *self)
{
    return fl_scan_peek(self) == '\0' && self->at == self->end
               ? true
               : fail(self, "something follows the document");
}
