/*
 * trust_store.h - what a site keeps on disk to tell who its partners are, below SITE:
 *
 *   roster.txt              the newest list of members that was taken, as the authority signed it
 *   state/roster-HEX.mark   its number and hash, one file an authority, so that no older list and
 *                           no second list of the same number is taken, whatever is put in place
 *   pins.txt                partners whose identity a person has pinned: "fedlora-pins-v1", then
 *                           "NAME fl1:..." a line, sorted by name (bytes)
 *   state/first-use.txt     the key that each name first came with: "fedlora-first-use-v1", then
 *                           "NAME ED25519" (64 hex digits) a line, sorted by name
 *   state/trust.lock        held while any of them changes: daemon and commands share them
 *
 * Each is replaced atomically and durably, and has one form only: anything else is damage. Messages
 * name files relative to SITE, so that they may be sent to a coordinator.
 * Threads: no state in memory; the lock keeps apart whoever changes files.
 */
#ifndef FL_WORKER_TRUST_STORE_H
#define FL_WORKER_TRUST_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "crypto/authority.h"
#include "crypto/keys.h"

enum fl_partner_file { FL_PARTNERS_PINNED, FL_PARTNERS_FIRST_USE };

struct fl_partner {
    char name[FL_NAME_BYTES];
    struct fl_identity identity; /* FL_PARTNERS_FIRST_USE: x25519 is zeros */
};

/* Sorted by name; names and Ed25519 keys occur once each. Zeroed is empty. */
struct fl_partners {
    uint32_t count, room;
    struct fl_partner *rows; /* owned */
};

/* Borrowed; NULL: none. */
const struct fl_partner *fl_partners_find(const struct fl_partners *self, const char *name);
const struct fl_partner *fl_partners_find_key(const struct fl_partners *self,
                                              const uint8_t ed25519[FL_KEY_BYTES]);
/* FL_EEXIST: the name or the key is there; FL_ERANGE: FL_WORKERS_MAX are; FL_ENOMEM. */
FL_CHECKED enum fl_status fl_partners_add(struct fl_partners *self, const char *name,
                                          const struct fl_identity *identity);
void fl_partners_free(struct fl_partners *self);

/*
 * Take state/trust.lock (the folder is made if it is missing), waiting up to 2 s. FL_EBUSY.
 * close(*lock) gives it back.
 */
FL_CHECKED enum fl_status fl_trust_store_lock(const char *site, int *lock, struct fl_error *error);

/* No file is an empty list. FL_EFORMAT: damaged. Free *out in any case. */
FL_CHECKED enum fl_status fl_partners_load(const char *site, enum fl_partner_file which,
                                           struct fl_partners *out, struct fl_error *error);
/* The caller holds the lock since it loaded the list. */
FL_CHECKED enum fl_status fl_partners_save(const char *site, enum fl_partner_file which,
                                           const struct fl_partners *list, struct fl_error *error);

/*
 * Pin a partner; once more is FL_OK. FL_EREFUSED: the name is pinned with another key, or the key
 * under another name; FL_EFORMAT: no name. *count (may be NULL): how many are pinned now.
 */
FL_CHECKED enum fl_status fl_trust_store_pin(const char *site, const char *name,
                                             const struct fl_identity *identity, uint32_t *count,
                                             struct fl_error *error);
/* Forget a partner's key: its pin and what was remembered at first use. FL_ENOTFOUND: neither. */
FL_CHECKED enum fl_status fl_trust_store_unpin(const char *site, const char *name,
                                               struct fl_error *error);

/*
 * Read roster.txt: signed by this authority, and not older than the mark. settle: a list newer than
 * the mark becomes the mark, durably, before it is believed; the caller then holds the lock.
 * FL_ENOTFOUND: there is no list. FL_EFORMAT, FL_EREFUSED (not the pinned authority's, a signature
 * that does not fit, older than the mark). Free *out in any case.
 */
FL_CHECKED enum fl_status fl_trust_store_list(const char *site,
                                              const uint8_t authority[FL_KEY_BYTES], bool settle,
                                              struct fl_member_list *out, struct fl_error *error);
/* Hold a signed list to the same rules and make it roster.txt. what names it in messages. */
FL_CHECKED enum fl_status fl_trust_store_accept(const char *site,
                                                const uint8_t authority[FL_KEY_BYTES],
                                                const struct fl_buf *text, const char *what,
                                                struct fl_member_list *out, struct fl_error *error);

#endif
