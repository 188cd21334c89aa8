/*
 * sitestore.h - every durable file of a site's daemon below SITE:
 *
 *   site.keys                      both key pairs (crypto/keys.h)
 *   worker.conf                    configuration
 *   state/identity.json            name at the coordinator
 *   state/seen.json                the highest (round, attempt) of the last job, its newest version
 *   state/deltas/J-R-HASH.delta    a finished delta, encrypted to the site itself, kept until its
 *                                  round is committed, so that no attempt trains twice
 *   state/uploads/J-R-A.sealed     the sealed update of one attempt: only these bytes are sent
 *   adapters/J/                    the newest global adapter of job J as a PEFT directory;
 *   adapters/J@N/                  the last keep_versions versions, each under its number
 *   adapters-KEY/                  what adapters/ held of another coordinator, by its key
 *   audit.log, audit.log.head      chained and signed: what left the site, and what was answered
 *   status.json                    what `status` shows
 *
 * Durable before sent: each save returns only after fsync. Threads: one owner (see compute.h for
 * which thread uses which part); the struct itself is read-only after open.
 */
#ifndef FL_WORKER_SITESTORE_H
#define FL_WORKER_SITESTORE_H

#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/layout.h"
#include "base/fs.h"
#include "base/hash.h"
#include "crypto/keys.h"

#define FL_SITE_KEYS "site.keys" /* within SITE */

struct fl_sitestore {
    char site[FL_PATH_BYTES];
    struct fl_keys *keys; /* owned */
    int lock;             /* flock on SITE/lock, -1: not held */
};

struct fl_seen {
    uint64_t job;            /* the last one that this site worked on */
    uint32_t round, attempt; /* the highest of that job, in the order of job/attempt.h */
    bool has_version;
    uint32_t number; /* of the version in adapters/JOB/; 0: not known */
    uint8_t version[FL_HASH_BYTES];
    char coordinator[17]; /* the first digits of its key; "": not known */
};

/* What is kept of a finished round besides the delta. */
struct fl_delta_stats {
    struct fl_update_stats stats;
    uint32_t steps;
    double seconds;
};

/*
 * Open SITE: its keys must be there. exclusive: take the daemon's lock; FL_EBUSY: another daemon
 * runs on this directory. Makes the folders that are missing (0700).
 */
FL_CHECKED enum fl_status fl_sitestore_open(const char *site, bool exclusive,
                                            struct fl_sitestore *out, struct fl_error *error);
void fl_sitestore_close(struct fl_sitestore *self);
/* SITE/name; name may hold '/'. out has FL_PATH_BYTES bytes. */
FL_CHECKED enum fl_status fl_sitestore_path(const struct fl_sitestore *self, const char *name,
                                            char *out, struct fl_error *error);

FL_CHECKED enum fl_status fl_sitestore_load_seen(const struct fl_sitestore *self,
                                                 struct fl_seen *out, struct fl_error *error);
FL_CHECKED enum fl_status fl_sitestore_save_seen(const struct fl_sitestore *self,
                                                 const struct fl_seen *seen,
                                                 struct fl_error *error);

/*
 * The site has another coordinator than the one whose key began with `former`: job numbers mean
 * something else now. adapters/ becomes adapters-FORMER/ (or, where that is taken, .2, .3 and so
 * on), and what is kept of rounds that were going on is removed. May be called again after a crash.
 */
FL_CHECKED enum fl_status fl_sitestore_part(const struct fl_sitestore *self, const char *former,
                                            struct fl_error *error);

/*
 * delta may be NULL (a round that only evaluated). The file is sealed to the site's own key.
 */
FL_CHECKED enum fl_status fl_sitestore_save_delta(const struct fl_sitestore *self, uint64_t job,
                                                  uint32_t round,
                                                  const uint8_t fingerprint[FL_HASH_BYTES],
                                                  const struct fl_adapter *delta,
                                                  const struct fl_delta_stats *stats,
                                                  struct fl_error *error);
/*
 * FL_ENOTFOUND: none is kept. shape (may be NULL when nothing was trained) is an adapter of the
 * site's ranks whose A and B are filled in. A file that does not open is removed and is
 * FL_ENOTFOUND too: the work is done again rather than trusted.
 */
FL_CHECKED enum fl_status fl_sitestore_load_delta(const struct fl_sitestore *self, uint64_t job,
                                                  uint32_t round,
                                                  const uint8_t fingerprint[FL_HASH_BYTES],
                                                  struct fl_adapter *shape,
                                                  struct fl_delta_stats *stats,
                                                  struct fl_error *error);
/* Remove kept deltas and sealed updates of a job's rounds up to and with `round`. */
void fl_sitestore_forget(const struct fl_sitestore *self, uint64_t job, uint32_t round);
/* Path of an attempt's sealed update. */
FL_CHECKED enum fl_status fl_sitestore_upload_path(const struct fl_sitestore *self, uint64_t job,
                                                   uint32_t round, uint32_t attempt, char *out,
                                                   struct fl_error *error);

/* What was sealed last for a job of one coordinator; round 0: nothing yet. */
struct fl_sealed_mark {
    uint32_t round, attempt;
    uint8_t binding[FL_HASH_BYTES]; /* of all that shaped the sealed bytes */
};
/* Outlives the sealed file, so that no attempt is ever sealed a second time. */
FL_CHECKED enum fl_status fl_sitestore_load_mark(const struct fl_sitestore *self,
                                                 const char *coordinator, uint64_t job,
                                                 struct fl_sealed_mark *out,
                                                 struct fl_error *error);
FL_CHECKED enum fl_status fl_sitestore_save_mark(const struct fl_sitestore *self,
                                                 const char *coordinator, uint64_t job,
                                                 const struct fl_sealed_mark *mark,
                                                 struct fl_error *error);

/*
 * Put a version of the global adapter into adapters/JOB@N/ with a model card, then into
 * adapters/JOB/, and remove those before it but for keep - 1 (keep: at least 1). Whenever the
 * process dies, what stands in adapters/JOB/ is among the numbered ones, whole. path receives where
 * it is (FL_PATH_BYTES).
 */
FL_CHECKED enum fl_status fl_sitestore_keep_adapter(const struct fl_sitestore *self, uint64_t job,
                                                    uint32_t version,
                                                    const struct fl_adapter *adapter,
                                                    const char *card, uint64_t keep, char *path,
                                                    struct fl_error *error);
/* The versions above `after` that adapters/JOB@N/ has, the newest first, at most `most`. */
uint32_t fl_sitestore_versions(const struct fl_sitestore *self, uint64_t job, uint32_t after,
                               uint32_t *out, uint32_t most);

#endif
