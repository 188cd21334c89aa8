/*
 * csv.h - records of comma-separated values as RFC 4180 has them: a field may be quoted, a quoted
 * one may hold commas, ends of lines and doubled quotes; lines end with CRLF or LF. Lines without a
 * single character are passed over.
 * Threads: a reader belongs to one thread.
 */
#ifndef FL_DATA_CSV_H
#define FL_DATA_CSV_H

#include "worker/data/feed.h"

#define FL_CSV_FIELDS_MAX 1024

struct fl_csv_field {
    size_t at, length; /* in fl_csv.bytes */
};

struct fl_csv {
    struct fl_feed *feed; /* borrowed */
    struct fl_buf bytes;  /* of all fields of the record at hand, unquoted */
    struct fl_csv_field fields[FL_CSV_FIELDS_MAX];
    size_t count;          /* 0: the end of the file */
    struct fl_place place; /* of the record; after an error, of what is wrong */
};

/* maximum_bytes bounds one record. Release with fl_csv_end(). */
void fl_csv_begin(struct fl_csv *self, struct fl_feed *feed, size_t maximum_bytes);
void fl_csv_end(struct fl_csv *self);
/*
 * The next record into self->fields; count 0 is the end of the file. FL_EFORMAT without file and
 * line; then, if *skippable, the next call goes on with the line behind the broken record.
 */
FL_CHECKED enum fl_status fl_csv_next(struct fl_csv *self, bool *skippable, struct fl_error *error);

#endif
