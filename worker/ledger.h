/*
 * ledger.h - the durable record of which sums a site has helped to open, against differencing: the
 * same deltas summed twice, with one site less, would show that site.
 *
 * What was trained is named by a fingerprint that leaves out job id and attempt, which a
 * coordinator can choose anew for the same work. For each fingerprint one survivor set is answered,
 * as often as it is asked for; any other is refused with the reason `differencing`. So each delta
 * is in one sum at most, and no combination of sums tells more than they do. (Sets that only differ
 * by many sites would not do: eleven cohorts of five, any two of which differ by three both ways,
 * are as many equations as there are sites.)
 *
 * The delta's own numbers are a fingerprint too, under the same rule: other work that gave the same
 * delta is the same work.
 *
 * Of each fingerprint one form only is answered (masking.c): it has a line of its own, under a key
 * that follows from the fingerprint, with the form's hash as its one member.
 *
 * A site is told apart by its Ed25519 key alone, never by its name, which a coordinator gives: else
 * two names for one site would count as two sites. The file holds no key, only truncated hashes.
 *
 * File (0600, append only): two text lines an answer,
 *   1 SEQ FINGERPRINT MEMBER,MEMBER,... CHECK
 *   =MARK
 * SEQ from 1; fingerprint 64 hex digits; members 32 hex digits each, ascending, at most
 * FL_COHORT_MAX; check = 64 hex digits of BLAKE2b-256(check of the answer before || this line up to
 * the check), so that a line changed, lost or moved is found; the mark is the check's first 16. The
 * line is on the disk before its mark is written, and the mark before the answer is allowed. So
 * what a crash left behind the last whole line, anything in it, was never acknowledged if no mark
 * follows, and is cut off; any other damage is refused, since what was answered is then unknown.
 * (An answer without a mark is an older program's, or was cut short: it counts, and is marked when
 * the file is opened.) A full file refuses too: forgetting old answers would allow what they
 * forbid. Threads: one at a time. One process: the file is locked while open.
 */
#ifndef FL_WORKER_LEDGER_H
#define FL_WORKER_LEDGER_H

#include <stdint.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"
#include "crypto/keys.h"

#define FL_LEDGER_BYTES_MAX                                                                        \
    (64u << 20) /* of the file: 250,000 lines of 3 sites, 18,000 of 100                            \
                 */
#define FL_LEDGER_REASON "differencing"

/* What decides which delta comes out of a training round. */
struct fl_ledger_work {
    uint8_t manifest[FL_HASH_BYTES]; /* base model */
    uint8_t start[FL_HASH_BYTES];    /* starting adapter */
    uint8_t settings[FL_HASH_BYTES]; /* training settings, without job id, name and attempt */
    uint8_t data[FL_HASH_BYTES];     /* the site's data set */
    uint64_t seed;
    const uint32_t *ranks; /* (rank_count) of this site's modules, in order; borrowed */
    uint32_t rank_count;
};

/* BLAKE2b-256("fedlora-ledger-v1" || the four hashes || u64le seed || u32le count || u32le ranks)
 */
void fl_ledger_fingerprint(const struct fl_ledger_work *work, uint8_t out[FL_HASH_BYTES]);

struct fl_ledger; /* opaque */

/*
 * Open (or make) the file and read all of it. FL_EFORMAT: damaged; FL_EBUSY: another process has
 * it; FL_EIO, FL_ENOMEM, FL_ERANGE (longer than it may be).
 */
FL_CHECKED enum fl_status fl_ledger_open(const char *path, struct fl_ledger **out,
                                         struct fl_error *error);
void fl_ledger_close(struct fl_ledger **self);
uint64_t fl_ledger_count(const struct fl_ledger *self); /* answers on record */

/*
 * May the site answer for the sum over these survivors (count Ed25519 keys, all different, in any
 * order)? FL_OK: yes, and that it did is on the disk. FL_EREFUSED: the rule says no, the text
 * begins with FL_LEDGER_REASON. Any other status is a no as well: FL_EINVAL (count 0 or above
 * FL_COHORT_MAX, a key twice), FL_EFORMAT (the file was changed meanwhile), FL_ENOSPC
 * (file or disk full), FL_EIO. After a failed write or fsync every later call is FL_EIO until the
 * ledger is opened again.
 */
FL_CHECKED enum fl_status fl_ledger_admit(struct fl_ledger *self,
                                          const uint8_t fingerprint[FL_HASH_BYTES],
                                          const uint8_t (*survivors)[FL_KEY_BYTES], uint32_t count,
                                          struct fl_error *error);

#endif
