/*
 * audit.h - an append-only, hash-chained log: each line is one JSON object whose "prev" is the
 * SHA-256 of the line before it (64 zeros for the first), so that a change, a removal or a
 * reordering of past lines shows. Lines are fsynced before the call returns.
 * Threads: one owner.
 */
#ifndef FL_BASE_AUDIT_H
#define FL_BASE_AUDIT_H

#include <stdint.h>

#include "base/log.h"
#include "base/status.h"

struct fl_audit; /* opaque */

/* Open (or make, mode 0600) the log at path and read its last line. The caller owns *out. */
FL_CHECKED enum fl_status fl_audit_open(const char *path, struct fl_audit **out,
                                        struct fl_error *error);
void fl_audit_close(struct fl_audit **self);
/*
 * Append {"seq","ts","event",fields...,"prev"}; wall_ms is the time to record. Durable on FL_OK.
 * After a failed write or fsync the line is not there, and the next call goes on behind the last
 * good one (after a failed fsync in a file written anew).
 */
FL_CHECKED enum fl_status fl_audit_append(struct fl_audit *self, int64_t wall_ms, const char *event,
                                          const struct fl_field *fields, struct fl_error *error);
/* Check the whole chain of a file; *lines is the number of good lines. FL_EFORMAT names the line.
 */
FL_CHECKED enum fl_status fl_audit_verify(const char *path, uint64_t *lines,
                                          struct fl_error *error);

#endif
