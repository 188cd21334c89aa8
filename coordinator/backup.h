/*
 * backup.h - a copy of a coordinator's directory that another `serve` takes as it is, made while a
 * daemon works on it or not.
 *
 * In it: the database as it was at one moment, keys, coordinator.conf, the sealing keys and start
 * adapters of unfinished jobs, every version (each held against its recorded SHA-256) and the audit
 * log. Not in it: the spool. So the attempt that was under way cannot be finished from a copy, and
 * the copy's numbers (attempts of unfinished jobs, ids of the jobs to come) go on in the next
 * hundred (job/attempt.h): what the original still does after the copy is never done a second time
 * under one number. A copy knows that it is one, and asks the sites what they saw (recall.h).
 * Threads: any; no state.
 */
#ifndef FL_COORDINATOR_BACKUP_H
#define FL_COORDINATOR_BACKUP_H

#include <stdint.h>

#include "base/status.h"
#include "coordinator/store.h"

struct fl_backup {
    char out[FL_PATH_BYTES]; /* absolute */
    uint64_t bytes, files, jobs, versions;
};

/*
 * Copy directory to out, which appears whole (0700) or not at all. FL_EEXIST: out is there;
 * FL_ENOTFOUND: no coordinator in directory; FL_EFORMAT: its database or a version is damaged;
 * FL_ENOSPC, FL_EIO.
 */
FL_CHECKED enum fl_status fl_backup_make(const char *directory, const char *out,
                                         struct fl_backup *result, struct fl_error *error);

#endif
