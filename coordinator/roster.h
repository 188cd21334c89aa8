/*
 * roster.h - the sites that may take part, and the invitations by which they come in.
 *
 * An invitation's secret is PRF(coordinator's secret key, invitation id): the database holds only a
 * hash of the id, so that nobody who reads it can join. An invitation expires, works once, and is
 * spent after FL_INVITATION_TRIES failed proofs. Sites are never deleted: a revoked one keeps its
 * row, and `add` with the same key allows it again.
 * Threads: the loop's.
 */
#ifndef FL_COORDINATOR_ROSTER_H
#define FL_COORDINATOR_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "coordinator/store.h"
#include "crypto/keys.h"
#include "crypto/token.h"
#include "proto/wire.h"

#define FL_INVITATION_TRIES 5

struct fl_site {
    uint32_t id;
    char name[FL_NAME_BYTES];
    struct fl_identity identity;
    bool revoked;
    int64_t created_ms;   /* wall time */
    int64_t last_seen_ms; /* wall time; 0: never */
};

struct fl_roster; /* opaque: the sites in memory, as the database has them */

FL_CHECKED enum fl_status fl_roster_load(struct fl_store *store, struct fl_roster **out,
                                         struct fl_error *error);
void fl_roster_free(struct fl_roster **self);
uint32_t fl_roster_count(const struct fl_roster *self);
/* In order of names. Borrowed until the roster changes, as those below. */
const struct fl_site *fl_roster_at(const struct fl_roster *self, uint32_t index);
const struct fl_site *fl_roster_by_name(const struct fl_roster *self, const char *name);
const struct fl_site *fl_roster_by_key(const struct fl_roster *self,
                                       const uint8_t x25519[FL_KEY_BYTES]);
const struct fl_site *fl_roster_by_id(const struct fl_roster *self, uint32_t id);

/*
 * Enrol a site, or allow a revoked one again. FL_EEXIST: the name has another key, or the key
 * another name; FL_EINVAL: not a name; FL_ERANGE: FL_WORKERS_MAX are enrolled.
 */
FL_CHECKED enum fl_status fl_roster_add(struct fl_roster *self, const char *name,
                                        const struct fl_identity *identity, int64_t wall_ms,
                                        struct fl_error *error);
/* FL_ENOTFOUND. Revoking twice is FL_OK. */
FL_CHECKED enum fl_status fl_roster_revoke(struct fl_roster *self, const char *name,
                                           int64_t wall_ms, struct fl_error *error);
/* Remember when a site was last heard of. */
FL_CHECKED enum fl_status fl_roster_touch(struct fl_roster *self, uint32_t id, int64_t wall_ms,
                                          struct fl_error *error);

/*
 * A new invitation for that name; token gets invitation, secret and expiry (address and
 * coordinator are the caller's). FL_EEXIST: the name is taken by a site that is not revoked.
 */
FL_CHECKED enum fl_status fl_roster_invite(struct fl_roster *self, const struct fl_keys *keys,
                                           const char *name, int64_t ttl_ms, int64_t wall_ms,
                                           struct fl_token *token, struct fl_error *error);
/*
 * Check a Join (wire_key: the CURVE key of its connection) and enrol its site. FL_EREFUSED with a
 * reason that may be told: unknown, expired or used invitation, wrong proof. The site gets the
 * invitation's name, whatever it called itself.
 */
FL_CHECKED enum fl_status fl_roster_join(struct fl_roster *self, const struct fl_keys *keys,
                                         const struct fl_wire_join *join,
                                         const uint8_t wire_key[FL_KEY_BYTES], int64_t wall_ms,
                                         struct fl_error *error);

#endif
