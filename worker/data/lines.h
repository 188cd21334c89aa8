/*
 * lines.h - a text file read line by line with a bound on the line, so that a file of any size
 * takes the memory of its longest line. LF and CRLF ends, a UTF-8 byte order mark at the start and
 * a last line without an end are all fine.
 * Threads: a reader belongs to one thread.
 */
#ifndef FL_DATA_LINES_H
#define FL_DATA_LINES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/status.h"

struct fl_lines {
    const char *path; /* borrowed */
    FILE *file;
    struct fl_buf line;
    uint64_t number; /* of the line last returned, from 1 */
    size_t at, filled;
    char chunk[65536];
};

/* Close with fl_lines_close() in any case. maximum_bytes bounds one line. */
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
