/*
 * trust.h - whether the members of a secure-aggregation cohort are real: a coordinator that enrols
 * two sites of its own in a cohort of three reads the third, so a site holds the members' names and
 * keys against what it knows by another way than the coordinator.
 *
 * [policy] roster of worker.conf decides what verifies a member (its name and Ed25519 key):
 *   authority   the newest list that the pinned authority signed: a member that the list does not
 *               name, names with another key, or revokes is refused with the whole cohort
 *   pinned      SITE/pins.txt, kept by `fedlora-worker roster pin`: members that are not pinned may
 *               take part, but only pinned ones and this site count towards the minimum
 *   first-use   a name keeps the key that it first came with: against a later swap, not against a
 *               coordinator that lies from the start
 * In every mode: a pin is never contradicted (a pinned name with another key, or a pinned key under
 * another name, is refused); names and keys occur once each; this site is among the members; and at
 * least min_known members beside this site are in known_sites, on the authority's list or pinned (a
 * name that came with first use counts only once it is pinned).
 *
 * The files are read anew at each check (0.2 s for the largest list, once an attempt), so that what
 * a person just accepted or pinned holds at once, beside a running daemon too. See trust_store.h.
 * Threads: fl_trust_check() one at a time (the work thread); fl_trust_describe() from any thread.
 */
#ifndef FL_WORKER_TRUST_H
#define FL_WORKER_TRUST_H

#include <stdint.h>

#include "base/status.h"
#include "crypto/keys.h"
#include "secagg/secagg.h"
#include "worker/siteconf.h"

#define FL_TRUST_REASON     "roster" /* each refusal's text begins with it and ": " */
#define FL_TRUST_TEXT_BYTES 512      /* of a statement, with its NUL */

struct fl_trust; /* opaque */

/* What a site can say of its root of trust. */
enum fl_trust_standing {
    FL_TRUST_ROOTED,    /* members are verified by keys that did not come from the coordinator */
    FL_TRUST_FIRST_USE, /* by what the coordinator first said: protects if it is curious only */
    FL_TRUST_MISSING    /* the mode needs something that is not there: every cohort is refused */
};

/*
 * site: the site's directory; conf is borrowed for the life of *out; own is this site's Ed25519
 * key. Damaged or missing files are no failure here: the statement and each check tell of them.
 * FL_OK: the caller owns *out. FL_ENOMEM; FL_ERANGE (the path is too long).
 */
FL_CHECKED enum fl_status fl_trust_open(const char *site, const struct fl_siteconf *conf,
                                        const uint8_t own[FL_KEY_BYTES], struct fl_trust **out,
                                        struct fl_error *error);
/* *self becomes NULL and may be NULL already. */
void fl_trust_close(struct fl_trust **self);

/*
 * May this site join the cohort of these adverts (count of them, in any order, this site's own
 * included)? minimum: the fewest verified members, this site counted. verified (count; may be NULL)
 * says whose keys the mode vouches for, in the order of adverts. Signatures are not looked at: call
 * it with adverts that passed fl_secagg_cohort_check(), so that a key that is remembered is one
 * that its owner has. FL_OK: yes, and what first-use has to remember is on the disk. FL_EREFUSED:
 * no; the text, "roster: ...", names the member and the rule and holds no path, so that it may be
 * sent to the coordinator. Any other status is a no as well: FL_EIO, FL_ENOSPC, FL_EBUSY (another
 * process keeps the files locked), FL_ENOMEM.
 */
FL_CHECKED enum fl_status fl_trust_check(struct fl_trust *self,
                                         const struct fl_secagg_advert *adverts, uint32_t count,
                                         uint32_t minimum, bool *verified, struct fl_error *error);

/*
 * One line for people, as of the last open or check: the mode, the authority's fingerprint and
 * list, or what is missing and how to get it; without a root of trust, that secure aggregation
 * protects against a curious coordinator only. text has FL_TRUST_TEXT_BYTES bytes.
 */
enum fl_trust_standing fl_trust_describe(struct fl_trust *self, char *text);

#endif
