/*
 * lines.h - a text file read line by line with a bound on the line, so that a file of any size
 * takes the memory of its longest line. LF and CRLF ends, a UTF-8 byte order mark at the start and
 * a last line without an end are all fine. Records of a data set are read through source.h.
 * Threads: a reader belongs to one thread.
 */
#ifndef FL_DATA_LINES_H
#define FL_DATA_LINES_H

#include "worker/data/feed.h"

struct fl_lines {
    struct fl_feed feed;
    struct fl_buf line;
    uint64_t number; /* of the line last returned, from 1 */
};

/* path is borrowed. Close with fl_lines_close() in any case. maximum_bytes bounds one line. */
FL_CHECKED enum fl_status fl_lines_open(struct fl_lines *self, const char *path,
                                        size_t maximum_bytes, struct fl_error *error);
/*
 * The next line without its end, borrowed until the next call; *text is NULL at the end of the
 * file. FL_EFORMAT with "path:line: ..." for a line beyond the bound.
 */
FL_CHECKED enum fl_status fl_lines_next(struct fl_lines *self, const char **text, size_t *length,
                                        struct fl_error *error);
void fl_lines_close(struct fl_lines *self);

#endif
