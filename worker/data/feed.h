/*
 * feed.h - a file read byte by byte through one buffer of fixed size, with the place of the next
 * byte, so that a reader of any format takes the memory of its longest record and can say where
 * something is wrong. A UTF-8 byte order mark at the start is passed over.
 * Threads: a feed belongs to one thread.
 */
#ifndef FL_DATA_FEED_H
#define FL_DATA_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/status.h"

/* Where something stands in a file; both count from 1, columns in bytes. */
struct fl_place {
    uint64_t line, column;
};

struct fl_feed {
    const char *path;      /* borrowed, for messages */
    FILE *file;            /* owned */
    struct fl_place place; /* of the next byte */
    size_t at, filled;
    int problem; /* errno of a failed read, else 0 */
    unsigned char chunk[65536];
};

/* Close with fl_feed_close() in any case. FL_ENOTFOUND, FL_EIO. */
FL_CHECKED enum fl_status fl_feed_open(struct fl_feed *self, const char *path,
                                       struct fl_error *error);
/* The same for an open file, which the feed owns from here on. */
void fl_feed_begin(struct fl_feed *self, FILE *file, const char *path);
void fl_feed_close(struct fl_feed *self);

/* The next byte, or -1 at the end of the file or after a failed read. */
int fl_feed_peek(struct fl_feed *self);
/* The same, and go past it. */
int fl_feed_next(struct fl_feed *self);
/* Go past spaces, tabs and ends of lines, and peek. */
int fl_feed_skip_blanks(struct fl_feed *self);
/*
 * Append to out all bytes in front of the first one that is a stop, or of the end. Ends early when
 * out refuses more (its status tells).
 */
void fl_feed_until(struct fl_feed *self, const bool stops[256], struct fl_buf *out);
/* What has been read and not been taken yet: at the start up to 64 KiB of the file. Borrowed. */
const unsigned char *fl_feed_ahead(struct fl_feed *self, size_t *length);

/* FL_OK, or the failed read in *error. A reader asks once at the end. */
FL_CHECKED enum fl_status fl_feed_status(const struct fl_feed *self, struct fl_error *error);

#endif
