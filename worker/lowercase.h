/*
 * lowercase.h - lower case of Unicode text, as Python's str.lower() gives it, but for one thing: a
 * Greek capital sigma at the end of a word becomes the ordinary small sigma.
 * Threads: pure functions over a constant table.
 */
#ifndef FL_WORKER_LOWERCASE_H
#define FL_WORKER_LOWERCASE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Every step-th code point from first to last maps to itself plus distance; sorted by first. */
struct fl_lowercase_run {
    uint32_t first, last, step;
    int32_t distance;
};
extern const struct fl_lowercase_run fl_lowercase_runs[];
extern const size_t fl_lowercase_run_count;

/* The lower case of one character, or the character itself. */
uint32_t fl_lowercase(uint32_t code_point);
/* Append text in lower case. Bytes outside valid UTF-8 pass through. */
void fl_lowercase_append(struct fl_buf *out, const char *text, size_t length);

#endif
