/*
 * keys.h - who a site or a coordinator is: an X25519 pair (CURVE on the wire, sealing at rest) and
 * an Ed25519 pair (signatures), kept in one file, with the secrets in guarded, locked memory.
 *
 * Public identity, the string that people exchange: "fl1:" + base64(X25519 || Ed25519), 92 chars.
 * A signature covers BLAKE2b-256("fedlora-sign-v1" || u32le label length || label || message), so
 * that one made for one purpose (label) is worth nothing for another.
 * Key file: text, one line "fedlora-keys-v1 " + base64(X25519 secret || Ed25519 seed || checksum).
 * Call fl_hash_init() before anything here.
 * Threads: a struct fl_keys is constant once made; any thread may read it.
 */
#ifndef FL_CRYPTO_KEYS_H
#define FL_CRYPTO_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "crypto/entropy.h"

#define FL_KEY_BYTES           32 /* X25519 public and secret, Ed25519 public */
#define FL_SIGNATURE_BYTES     64
#define FL_IDENTITY_TEXT_BYTES 93 /* with its NUL */
#define FL_KEY_HEX_BYTES       65 /* with its NUL */
#define FL_Z85_KEY_BYTES       41 /* with its NUL */

struct fl_identity {
    uint8_t x25519[FL_KEY_BYTES];
    uint8_t ed25519[FL_KEY_BYTES];
};

struct fl_keys; /* opaque: both pairs */

/*
 * Fresh keys. FL_OK: the caller owns *out. FL_ENOMEM. The memory is guarded, left out of core dumps
 * and wiped when released; it is locked too as far as RLIMIT_MEMLOCK allows.
 */
FL_CHECKED enum fl_status fl_keys_generate(const struct fl_entropy *entropy, struct fl_keys **out);
/*
 * Read a key file. It must be a regular file (no link), owned by us or root, with no permission for
 * others, and none for its group unless root owns it; its directory must be ours or root's too, and
 * nobody else may write it (unless it is sticky): FL_EREFUSED otherwise, with what to do.
 * FL_ENOTFOUND, FL_EFORMAT (damaged), FL_ENOMEM, FL_EIO.
 */
FL_CHECKED enum fl_status fl_keys_load(const char *path, struct fl_keys **out,
                                       struct fl_error *error);
/*
 * Write the key file (0600), durably and at once. FL_EEXIST: there is one; it is never replaced.
 * FL_EREFUSED: its directory is not safe.
 */
FL_CHECKED enum fl_status fl_keys_save(const struct fl_keys *self, const char *path,
                                       struct fl_error *error);
/* fl_keys_load(), or, where no file is, generate and save. */
FL_CHECKED enum fl_status fl_keys_load_or_make(const char *path, const struct fl_entropy *entropy,
                                               struct fl_keys **out, struct fl_error *error);
/* Wipe and release; *self becomes NULL and may be NULL already. */
void fl_keys_destroy(struct fl_keys **self);

const struct fl_identity *fl_keys_public(const struct fl_keys *self); /* borrowed */
const uint8_t *fl_keys_x25519_secret(const struct fl_keys *self);     /* borrowed, 32 bytes */

void fl_keys_sign(const struct fl_keys *self, const char *label, const void *message, size_t length,
                  uint8_t signature[FL_SIGNATURE_BYTES]);
/* FL_OK or FL_EREFUSED. */
FL_CHECKED enum fl_status fl_verify(const uint8_t ed25519[FL_KEY_BYTES], const char *label,
                                    const void *message, size_t length,
                                    const uint8_t signature[FL_SIGNATURE_BYTES]);

/* text has FL_IDENTITY_TEXT_BYTES bytes. */
void fl_identity_encode(const struct fl_identity *self, char *text);
/* Exactly one identity and nothing else; weak (low-order) keys are refused. FL_EFORMAT. */
FL_CHECKED enum fl_status fl_identity_parse(const char *text, struct fl_identity *out,
                                            struct fl_error *error);

/* A key as ZeroMQ's Z85 text; text has FL_Z85_KEY_BYTES bytes. */
void fl_z85_encode(const uint8_t key[FL_KEY_BYTES], char *text);
FL_CHECKED enum fl_status fl_z85_decode(const char *text, uint8_t key[FL_KEY_BYTES]);

/*
 * A lone X25519 pair, such as a job's sealing key. The secret lies in guarded memory; save and load
 * follow the rules of the key file (fl_keys_load).
 */
struct fl_box_keys; /* opaque */
FL_CHECKED enum fl_status fl_box_keys_generate(const struct fl_entropy *entropy,
                                               struct fl_box_keys **out);
FL_CHECKED enum fl_status fl_box_keys_load(const char *path, struct fl_box_keys **out,
                                           struct fl_error *error);
FL_CHECKED enum fl_status fl_box_keys_save(const struct fl_box_keys *self, const char *path,
                                           struct fl_error *error);
void fl_box_keys_destroy(struct fl_box_keys **self);
const uint8_t *fl_box_keys_public(const struct fl_box_keys *self);
const uint8_t *fl_box_keys_secret(const struct fl_box_keys *self);

#define FL_SECRET_TEXT_BYTES 192

/*
 * A short secret text of the operator's (a token), as it stands in a file that follows the rules of
 * the key file (fl_keys_load); text has FL_SECRET_TEXT_BYTES bytes and is NUL-terminated. The
 * caller wipes it. FL_ERANGE: the file is longer.
 */
FL_CHECKED enum fl_status fl_secret_text_load(const char *path, char *text, struct fl_error *error);

#endif
