/*
 * source.h - the records of a data file, one after the other, whatever form the file has. Its
 * content decides:
 *
 *   {...          JSONL, one object a line; blank lines are fine. A file named *.jsonl or *.ndjson
 *                 is that even when its first line is broken.
 *   [...          one JSON array of objects
 *   else          CSV (RFC 4180) whose first line names the columns; a record is then an object of
 *                 strings. The header must name text, prompt and completion, or instruction and
 *                 output.
 *
 * What is none of these (Parquet, compressed files, UTF-16) is refused with the line that converts
 * it. No more than one record is held, of at most FL_DATASET_RECORD_BYTES_MAX bytes.
 * Threads: a source belongs to one thread.
 */
#ifndef FL_DATA_SOURCE_H
#define FL_DATA_SOURCE_H

#include <stdbool.h>
#include <stdio.h>

#include "base/json.h"
#include "worker/data/feed.h"

struct fl_source;

/* path is borrowed for as long as the source lives. FL_ENOTFOUND, FL_EIO, FL_EFORMAT. */
FL_CHECKED enum fl_status fl_source_open(const char *path, struct fl_source **out,
                                         struct fl_error *error);
/* The same for an open file, which the source owns from here on, also when this fails. */
FL_CHECKED enum fl_status fl_source_begin(FILE *file, const char *path, struct fl_source **out,
                                          struct fl_error *error);
/* NULL is fine. */
void fl_source_close(struct fl_source *self);

/*
 * The next record, a new reference; *record is NULL at the end of the file. FL_EFORMAT with
 * "path:line:column: ..." for a broken one; then, if *skippable, the next call goes on behind it. A
 * break that hides where the next record begins (a quote or a bracket that never closes) is not
 * skippable.
 */
FL_CHECKED enum fl_status fl_source_next(struct fl_source *self, json_t **record, bool *skippable,
                                         struct fl_error *error);
/* Put "path:line:column: " of the record last returned in front of an error about it. */
void fl_source_blame(const struct fl_source *self, struct fl_error *error);

#endif
