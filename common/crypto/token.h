/*
 * token.h - the join token that an operator hands to a site, and the proof that the site then
 * makes.
 *
 * Token: "fljoin1:" + base64url without padding of
 *   invitation (16) || secret (32) || coordinator's X25519 (32) || expiry (u64le, wall ms since
 *   1970) || public address (text) || first 4 bytes of BLAKE2b-256("fljoin1:" || all before).
 * The checksum tells a typing or copying error from a wrong token.
 * Join MAC = BLAKE2b-256(key = secret, "fedlora-join-v1" || coordinator's X25519 || site's X25519
 * || site's Ed25519 || name); the site signs the MAC under the label "fedlora-join-v1". Threads:
 * pure functions of their arguments.
 */
#ifndef FL_CRYPTO_TOKEN_H
#define FL_CRYPTO_TOKEN_H

#include "crypto/keys.h"

#define FL_INVITATION_BYTES  16
#define FL_JOIN_SECRET_BYTES 32
#define FL_JOIN_MAC_BYTES    32
#define FL_ADDRESS_BYTES     272 /* "tcp://HOST:PORT" with its NUL */
#define FL_TOKEN_TEXT_BYTES  512 /* with its NUL */
#define FL_JOIN_LABEL        "fedlora-join-v1"

struct fl_token {
    char address[FL_ADDRESS_BYTES]; /* the public session address; enrolment is its port + 1 */
    uint8_t coordinator[FL_KEY_BYTES];
    uint8_t invitation[FL_INVITATION_BYTES];
    uint8_t secret[FL_JOIN_SECRET_BYTES];
    int64_t expires_ms; /* wall time */
};

/* Draw invitation and secret; address, coordinator and expiry are the caller's. */
void fl_token_draw(struct fl_token *self, const struct fl_entropy *entropy);
/* text has FL_TOKEN_TEXT_BYTES bytes. The address must be printable and not empty. */
void fl_token_encode(const struct fl_token *self, char *text);
/* White space around the token is ignored. FL_EFORMAT says whether it is a typo or no token. */
FL_CHECKED enum fl_status fl_token_parse(const char *text, struct fl_token *out,
                                         struct fl_error *error);

void fl_join_mac(const uint8_t secret[FL_JOIN_SECRET_BYTES],
                 const uint8_t coordinator[FL_KEY_BYTES], const struct fl_identity *site,
                 const char *name, uint8_t mac[FL_JOIN_MAC_BYTES]);
/*
 * The coordinator's check of a Join: MAC (constant time) and signature over it. FL_EREFUSED. That
 * site->x25519 is the CURVE key of the connection is the caller's to check.
 */
FL_CHECKED enum fl_status fl_join_check(const uint8_t secret[FL_JOIN_SECRET_BYTES],
                                        const uint8_t coordinator[FL_KEY_BYTES],
                                        const struct fl_identity *site, const char *name,
                                        const uint8_t mac[FL_JOIN_MAC_BYTES],
                                        const uint8_t signature[FL_SIGNATURE_BYTES]);

#endif
