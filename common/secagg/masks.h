/*
 * masks.h - the keystreams that hide a vector, and the keys they grow from.
 * mask = ChaCha20 under BLAKE2b-256(key = seed, "fedlora-mask-v1" || cohort hash || label), as
 * little-endian words; vectors are masked mod 2^32, scalars mod 2^64, under different labels.
 * Threads: pure functions.
 */
#ifndef FL_SECAGG_MASKS_H
#define FL_SECAGG_MASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "crypto/keys.h"
#include "crypto/shamir.h"

/* Add (or subtract) the masks grown from seed to vector (elements) and scalars (scalar_count). */
void fl_mask_apply(const uint8_t seed[FL_HASH_BYTES], const uint8_t cohort[FL_HASH_BYTES],
                   bool subtract, uint32_t *vector, uint64_t elements, uint64_t *scalars,
                   uint32_t scalar_count);

/* The X25519 secret that a shared scalar stands for. */
void fl_mask_secret_key(const uint8_t scalar[FL_SCALAR_BYTES], uint8_t secret[FL_KEY_BYTES]);
/* The self-mask seed that a shared scalar stands for, and the commitment to it. */
void fl_mask_self_seed(const uint8_t scalar[FL_SCALAR_BYTES], uint8_t seed[FL_HASH_BYTES]);
void fl_mask_commitment(const uint8_t seed[FL_HASH_BYTES], uint8_t commitment[FL_HASH_BYTES]);

/*
 * The key that two members share: BLAKE2b-256(key = X25519(secret, other), label || cohort hash ||
 * the two public keys in byte order). The same from both sides. FL_EREFUSED: a weak key.
 */
FL_CHECKED enum fl_status fl_mask_agree(const uint8_t secret[FL_KEY_BYTES],
                                        const uint8_t own_public[FL_KEY_BYTES],
                                        const uint8_t other_public[FL_KEY_BYTES],
                                        const uint8_t cohort[FL_HASH_BYTES], const char *label,
                                        uint8_t out[FL_HASH_BYTES]);

#endif
