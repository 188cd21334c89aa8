/*
 * hash.h - SHA-256 (what users compare: models, adapters) and BLAKE2b-256 (what the protocol uses),
 * both from libsodium. Call fl_hash_init() once at program start (it is sodium_init()).
 * Threads: free of global state after fl_hash_init().
 */
#ifndef FL_BASE_HASH_H
#define FL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include <sodium.h>

#include "base/status.h"

#define FL_HASH_BYTES     32
#define FL_HASH_HEX_BYTES (2 * FL_HASH_BYTES + 1)

/* Start libsodium; aborts the program when it can't (no usable source of entropy). */
void fl_hash_init(void);

struct fl_sha256 {
    crypto_hash_sha256_state state;
};
void fl_sha256_init(struct fl_sha256 *self);
void fl_sha256_update(struct fl_sha256 *self, const void *bytes, size_t length);
void fl_sha256_final(struct fl_sha256 *self, uint8_t out[FL_HASH_BYTES]);
void fl_sha256(const void *bytes, size_t length, uint8_t out[FL_HASH_BYTES]);
/* Of a whole file, read in 1 MiB pieces. FL_ENOTFOUND, FL_EIO with *error filled. */
FL_CHECKED enum fl_status fl_sha256_file(const char *path, uint8_t out[FL_HASH_BYTES],
                                         struct fl_error *error);

struct fl_blake2b {
    crypto_generichash_blake2b_state state;
};
/* key may be NULL (key_length 0), at most 64 bytes. */
void fl_blake2b_init(struct fl_blake2b *self, const void *key, size_t key_length);
void fl_blake2b_update(struct fl_blake2b *self, const void *bytes, size_t length);
/* Wipes the state: nothing of a key or of what was hashed stays in it. */
void fl_blake2b_final(struct fl_blake2b *self, uint8_t out[FL_HASH_BYTES]);
void fl_blake2b(const void *bytes, size_t length, uint8_t out[FL_HASH_BYTES]);

#endif
