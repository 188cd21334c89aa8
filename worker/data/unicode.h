/*
 * unicode.h - what a tokenizer needs of Unicode: UTF-8 decoding that survives any bytes, character
 * classes, and normalisation form C. The classes are those of Hugging Face's tokenizers, whose
 * parts follow different Unicode versions (see tests/golden/make_unicode.py).
 * Threads: pure functions over constant tables.
 */
#ifndef FL_DATA_UNICODE_H
#define FL_DATA_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum fl_unicode_class {
    FL_UC_LETTER = 1,   /* \p{L} of the regex engine */
    FL_UC_NUMBER = 2,   /* \p{N} of the regex engine */
    FL_UC_SPACE = 4,    /* \s, White_Space */
    FL_UC_DIGIT = 8,    /* what the Digits pre-tokenizer splits at (a little more than \p{N}) */
    FL_UC_WORD = 16,    /* \w around single_word added tokens */
    FL_UC_COMPOSES = 32 /* a text that contains it may not be in NFC */
};

#define FL_UTF8_INVALID 0xFFFFFFFFu /* stands for one byte outside valid UTF-8; it has no class */

/* The character at text[0], length > 0 bytes at hand; *used is 1 to 4. */
uint32_t fl_utf8_next(const char *text, size_t length, size_t *used);
/* The character that ends at text[length - 1], length > 0. */
uint32_t fl_utf8_last(const char *text, size_t length, size_t *used);
bool fl_utf8_valid(const char *text, size_t length);
/* Bytes written (1 to 4); code_point is a scalar value. */
size_t fl_utf8_put(uint32_t code_point, char out[4]);

/* FL_UC_* bits; 0 for FL_UTF8_INVALID. */
unsigned fl_unicode_class(uint32_t code_point);

/* true: surely in form C already. */
bool fl_unicode_is_nfc(const char *text, size_t length);
/*
 * Append form C of text. Bytes outside valid UTF-8 pass through and stand apart: nothing is
 * reordered or composed across them. FL_ENOMEM, or FL_ERANGE at the buffer's maximum.
 */
FL_CHECKED enum fl_status fl_unicode_nfc(const char *text, size_t length, struct fl_buf *out);

#endif
