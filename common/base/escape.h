/*
 * escape.h - text from outside made safe for one line of JSON, a log or a terminal.
 * Threads: pure functions.
 */
#ifndef FL_BASE_ESCAPE_H
#define FL_BASE_ESCAPE_H

#include <stddef.h>

#define FL_ESCAPE_BYTES 13 /* the longest replacement of one character, with its NUL */

/* Bytes of the valid UTF-8 character at text (1 to 4; left >= 1 bytes follow), 0: invalid. */
size_t fl_utf8_length(const char *text, size_t left);

/*
 * Write what stands for the character at text inside a JSON string to out, NUL-terminated: itself,
 * or an escape for quotes, backslashes, control characters (C0, DEL, C1) and the bidirectional
 * overrides with which a terminal can be made to lie (Boucher and Anderson 2021). Invalid UTF-8
 * gives U+FFFD a byte. Returns the number of bytes consumed, at least 1; left >= 1.
 */
size_t fl_escape(const char *text, size_t left, char out[FL_ESCAPE_BYTES]);

#endif
