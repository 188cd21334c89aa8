/* escape.c - see escape.h. UTF-8 as in RFC 3629: no overlong forms, no surrogates. */
#include "base/escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The code point at text, or -1; *length is its number of bytes. */
static int32_t decode(const uint8_t *text, size_t left, size_t *length)
{
    static const int32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = text[0] < 0x80                      ? 1
               : text[0] >= 0xc2 && text[0] < 0xe0 ? 2
               : text[0] >= 0xe0 && text[0] < 0xf0 ? 3
               : text[0] >= 0xf0 && text[0] < 0xf5 ? 4
                                                   : 0;
    *length = n;
    if (n == 0 || n > left)
        return -1;
    int32_t point = n == 1 ? text[0] : text[0] & (0x7f >> n);
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return -1;
        point = point << 6 | (text[i] & 0x3f);
    }
    bool surrogate = point >= 0xd800 && point <= 0xdfff;
    return point < smallest[n] || point > 0x10ffff || surrogate ? -1 : point;
}

size_t fl_utf8_length(const char *text, size_t left)
{
    size_t length;
    return decode((const uint8_t *)text, left, &length) < 0 ? 0 : length;
}

static bool is_harmful(int32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
           (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069) ||
           point == 0x2028 || point == 0x2029;
}

size_t fl_escape(const char *text, size_t left, char out[FL_ESCAPE_BYTES])
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    size_t length;
    int32_t point = decode((const uint8_t *)text, left, &length);
    if (point < 0) {
        memcpy(out, "\\ufffd", 7);
        return 1;
    }
    const char *special = point > 0 && point < 0x80 ? strchr(plain, point) : NULL;
    if (special) {
        out[0] = '\\';
        out[1] = letters[special - plain];
        out[2] = '\0';
    } else if (is_harmful(point))
        snprintf(out, FL_ESCAPE_BYTES, "\\u%04x", (unsigned)point);
    else {
        memcpy(out, text, length);
        out[length] = '\0';
    }
    return length;
}
