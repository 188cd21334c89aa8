/* keys_internal.h - what keys.c, keyfile.c and authority.c share. */
#ifndef FL_CRYPTO_KEYS_INTERNAL_H
#define FL_CRYPTO_KEYS_INTERNAL_H

#include <sodium.h>

#include "base/hash.h"
#include "crypto/keys.h"

/* Lives in sodium_malloc memory: guard pages, locked, not dumped, wiped when freed. */
struct fl_keys {
    struct fl_identity identity;
    uint8_t x25519_secret[FL_KEY_BYTES];
    uint8_t ed25519_seed[crypto_sign_SEEDBYTES];
    uint8_t ed25519_secret[crypto_sign_SECRETKEYBYTES];
};

struct fl_box_keys {
    uint8_t public_key[FL_KEY_BYTES];
    uint8_t secret_key[FL_KEY_BYTES];
};

/* sodium_malloc behind the allocation seam; zeroed. Release with sodium_free(). */
void *fl_secret_malloc(size_t bytes);

/* Compute what follows from the secrets. FL_EFORMAT: they make no usable key. */
FL_CHECKED enum fl_status fl_keys_derive(struct fl_keys *self);
FL_CHECKED enum fl_status fl_box_keys_derive(struct fl_box_keys *self);

/* What a signature is made over: see keys.h. */
void fl_sign_digest(const char *label, const void *message, size_t length,
                    uint8_t out[FL_HASH_BYTES]);

/* A key file with this label (it ends with a space) and at most 64 secret bytes; the rules of
 * fl_keys_load() and fl_keys_save(). */
FL_CHECKED enum fl_status fl_keyfile_load(const char *path, const char *label, uint8_t *secrets,
                                          size_t length, struct fl_error *error);
FL_CHECKED enum fl_status fl_keyfile_save(const char *path, const char *label,
                                          const uint8_t *secrets, size_t length,
                                          struct fl_error *error);

#endif
