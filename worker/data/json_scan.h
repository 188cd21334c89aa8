/*
 * json_scan.h - walk a large JSON text in place, without building a tree: a tokenizer.json of 17 MB
 * is mostly two tables that go straight into ours. Small members are cut out and given to jansson.
 *
 * Errors are sticky: after the first one every call does nothing and answers false, so that a
 * caller tests fl_scan_failed() once. Nesting is bounded, strings must be valid UTF-8.
 * Threads: a scan belongs to one thread.
 */
#ifndef FL_DATA_JSON_SCAN_H
#define FL_DATA_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define FL_SCAN_DEPTH_MAX        64
#define FL_SCAN_STRING_BYTES_MAX (16u << 20)

struct fl_scan {
    const char *start, *at, *end; /* borrowed text */
    const char *problem;          /* NULL while all is well; else what is wrong at `at` */
    struct fl_buf string;         /* the last string or key read, unescaped */
};

void fl_scan_begin(struct fl_scan *self, const char *text, size_t length);
void fl_scan_end(struct fl_scan *self);
bool fl_scan_failed(const struct fl_scan *self);
/* Bytes before the place of the problem, for a message. */
size_t fl_scan_offset(const struct fl_scan *self);

/* The next significant byte, '\0' at the end. */
char fl_scan_peek(struct fl_scan *self);
/* Enter an object or an array: consumes '{' or '['. */
bool fl_scan_open(struct fl_scan *self, char bracket);
/*
 * Before each element or member: true when there is one (its comma is consumed), false at the
 * closing bracket (consumed) or after an error. first is true for the first call after open.
 */
bool fl_scan_more(struct fl_scan *self, char close, bool first);
/* A member's key and its colon, into self->string. */
bool fl_scan_key(struct fl_scan *self);
/* A string value, into self->string. */
bool fl_scan_string(struct fl_scan *self);
/* A whole number 0..2^32-1. */
bool fl_scan_u32(struct fl_scan *self, uint32_t *out);
/* Any value: its text is [*text, *text + *length). */
bool fl_scan_value(struct fl_scan *self, const char **text, size_t *length);
/* Nothing but spaces is left. */
bool fl_scan_finish(struct fl_scan *self);

#endif
