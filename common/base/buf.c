/* buf.c - see buf.h. Invariant: data is NULL, or data[length] is a NUL within capacity. */
#include "base/buf.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define FL_BUF_FIRST_BYTES 64

void fl_buf_init(struct fl_buf *self, size_t maximum)
{
    *self = (struct fl_buf){.maximum = maximum};
}

void fl_buf_free(struct fl_buf *self)
{
    fl_free(self->data);
    fl_buf_init(self, self->maximum);
}

/* Make room for `more` bytes and the NUL behind them. False: refused, and the status says why. */
static bool reserve(struct fl_buf *self, size_t more)
{
    if (self->status != FL_OK)
        return false;
    size_t maximum = self->maximum < SIZE_MAX - 1 ? self->maximum : SIZE_MAX - 1;
    if (more > maximum || self->length > maximum - more) {
        self->status = FL_ERANGE;
        return false;
    }
    size_t needed = self->length + more + 1;
    if (needed <= self->capacity)
        return true;
    size_t capacity = self->capacity ? self->capacity : FL_BUF_FIRST_BYTES;
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    if (capacity > maximum)
        capacity = maximum + 1;
    uint8_t *data = fl_reallocarray(self->data, capacity, 1);
    if (!data) {
        self->status = FL_ENOMEM;
        return false;
    }
    self->data = data;
    self->capacity = capacity;
    return true;
}

void fl_buf_append(struct fl_buf *self, const void *bytes, size_t length)
{
    if (!reserve(self, length))
        return;
    if (length > 0)
        memcpy(self->data + self->length, bytes, length);
    self->length += length;
    self->data[self->length] = 0;
}

uint8_t *fl_buf_extend(struct fl_buf *self, size_t length)
{
    if (!reserve(self, length))
        return NULL;
    uint8_t *start = self->data + self->length;
    memset(start, 0, length + 1);
    self->length += length;
    return start;
}

void fl_buf_printf(struct fl_buf *self, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length >= 0 && reserve(self, (size_t)length)) {
        vsnprintf((char *)self->data + self->length, (size_t)length + 1, format, again);
        self->length += (size_t)length;
    } else if (self->status == FL_OK) {
        self->status = FL_ERANGE; /* longer than an int can say */
    }
    va_end(again);
}

void fl_buf_u32(struct fl_buf *self, uint32_t value)
{
    uint8_t bytes[4];
    fl_store_u32(bytes, value);
    fl_buf_append(self, bytes, sizeof(bytes));
}

void fl_buf_u64(struct fl_buf *self, uint64_t value)
{
    uint8_t bytes[8];
    fl_store_u64(bytes, value);
    fl_buf_append(self, bytes, sizeof(bytes));
}

enum fl_status fl_buf_status(const struct fl_buf *self)
{
    return self->status;
}

const char *fl_buf_text(const struct fl_buf *self)
{
    return self->data ? (const char *)self->data : "";
}

uint16_t fl_load_u16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t fl_load_u32(const void *p)
{
    const uint8_t *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t fl_load_u64(const void *p)
{
    const uint8_t *b = p;
    return (uint64_t)fl_load_u32(b) | (uint64_t)fl_load_u32(b + 4) << 32;
}

void fl_store_u32(void *p, uint32_t value)
{
    uint8_t *b = p;
    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(value >> 8 * i);
}

void fl_store_u64(void *p, uint64_t value)
{
    uint8_t *b = p;
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(value >> 8 * i);
}

void fl_hex(const void *bytes, size_t length, char *hex)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = bytes;
    for (size_t i = 0; i < length; i++) {
        hex[2 * i] = digits[b[i] >> 4];
        hex[2 * i + 1] = digits[b[i] & 15];
    }
    hex[2 * length] = 0;
}

/* The value of one hexadecimal digit, or -1. */
static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum fl_status fl_unhex(const char *hex, void *bytes, size_t length)
{
    if (strnlen(hex, 2 * length + 1) != 2 * length)
        return FL_EFORMAT;
    uint8_t *b = bytes;
    for (size_t i = 0; i < length; i++) {
        int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return FL_EFORMAT;
        b[i] = (uint8_t)(high << 4 | low);
    }
    return FL_OK;
}

/* Read digits at text; *end is behind the last. FL_ERANGE when the number exceeds 64 bits. */
static enum fl_status read_digits(const char *text, const char **end, uint64_t *out)
{
    enum fl_status status = FL_OK;
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            status = FL_ERANGE;
    }
    *end = p;
    *out = value;
    return p == text ? FL_EFORMAT : status;
}

enum fl_status fl_parse_u64(const char *text, uint64_t low, uint64_t high, uint64_t *out)
{
    const char *end;
    uint64_t value;
    enum fl_status status = read_digits(text, &end, &value);
    if (*end)
        return FL_EFORMAT;
    if (status != FL_OK)
        return status;
    if (value < low || value > high)
        return FL_ERANGE;
    *out = value;
    return FL_OK;
}

enum fl_status fl_parse_double(const char *text, double *out)
{
    /* strtod() also takes blanks, hexadecimal, "inf" and "nan": none of them is meant here */
    if (*text == 0 || text[strspn(text, "0123456789+-.eE")] != 0)
        return FL_EFORMAT;
    char *end;
    double value = strtod(text, &end);
    if (*end)
        return FL_EFORMAT;
    if (!isfinite(value))
        return FL_ERANGE;
    *out = value;
    return FL_OK;
}

enum fl_status fl_parse_bytes(const char *text, uint64_t *out)
{
    static const char units[] = "KMG";
    const char *unit;
    uint64_t count;
    enum fl_status status = read_digits(text, &unit, &count);
    if (status == FL_EFORMAT)
        return status;
    const char *found = *unit ? strchr(units, *unit) : units;
    if (!found || (*unit && unit[1]))
        return FL_EFORMAT;
    const unsigned shift = *unit ? 10 * (unsigned)(found - units + 1) : 0;
    if (status != FL_OK || count > UINT64_MAX >> shift)
        return FL_ERANGE;
    *out = count << shift;
    return FL_OK;
}

enum fl_status fl_parse_duration(const char *text, int64_t *out_ms)
{
    static const struct {
        const char *suffix;
        int64_t milliseconds;
    } units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const char *suffix;
    uint64_t count;
    enum fl_status status = read_digits(text, &suffix, &count);
    if (status == FL_EFORMAT)
        return status;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(suffix, units[i].suffix) != 0)
            continue;
        int64_t value;
        if (status != FL_OK || __builtin_mul_overflow(count, units[i].milliseconds, &value))
            return FL_ERANGE;
        *out_ms = value;
        return FL_OK;
    }
    return FL_EFORMAT;
}
