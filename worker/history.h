/*
 * history.h - what a site has sent and received so far, over restarts: its last uploads, and the
 * newest global adapter that is still there. The audit log has both before anything else does;
 * status.json and the daemon's page show them from here.
 *
 * A display, not a proof: lines are taken as they stand, and one that cannot be read is passed over
 * (`audit verify` is what checks them).
 * Threads: plain values; a struct belongs to one thread.
 */
#ifndef FL_WORKER_HISTORY_H
#define FL_WORKER_HISTORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/status.h"
#include "worker/compute.h"

#define FL_SENT_KEPT 32

struct fl_kept_sent { /* what left the site */
    struct fl_attempt key;
    uint64_t bytes;
    char sha256[FL_HASH_HEX_BYTES];
    int64_t wall_ms;
    bool answered; /* what became of it stands in the audit log, or is not waited for */
};

struct fl_history {
    struct fl_kept_sent sent[FL_SENT_KEPT]; /* a ring: number n (from 0) at n % FL_SENT_KEPT */
    uint32_t sent_count;                    /* all that left the site */
    uint64_t job;                           /* of the newest adapter */
    uint32_t version;
    char adapter[FL_PATH_BYTES]; /* where it is; empty: none yet */
};

/*
 * Read SITE/audit.log into *out. No log: FL_OK, and nothing in it. FL_EIO, FL_ENOMEM. Uploads of
 * earlier runs count as answered: whoever sent them is gone.
 */
FL_CHECKED enum fl_status fl_history_load(const char *site, struct fl_history *out,
                                          struct fl_error *error);
/* A new place behind the newest upload, for the caller to fill in; it counts from ++sent_count on.
 */
struct fl_kept_sent *fl_history_next(struct fl_history *self);
/* How many of the uploads are kept; the i-th newest of these, i from 0. */
uint32_t fl_history_kept(const struct fl_history *self);
const struct fl_kept_sent *fl_history_newest(const struct fl_history *self, uint32_t i);
/*
 * Set the members of status.json: "sent" (oldest first), "adapter", "adapter_job" and
 * "adapter_version" (null: none yet). Memory that ran out leaves members out.
 */
void fl_history_put(const struct fl_history *self, json_t *status);

#endif
