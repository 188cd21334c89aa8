/*
 * prg.h - reproducible randomness: ChaCha20 streams that can seek, seeds derived by a keyed hash,
 * and numbers drawn from them. The same seed gives the same bytes on any machine.
 *
 * Stream: ChaCha20 (64-bit counter, zero nonce) keyed by the seed: one seed, one stream.
 * PRF: BLAKE2b-256 keyed by the seed over the label and each part, all length-prefixed.
 * Gaussians: Marsaglia's polar method in double with our own logarithm (only + - * / and sqrt, all
 * exactly rounded by IEEE 754, and no contraction), since libm's last bit differs among machines.
 * Not for keys: those come from fl_entropy. Threads: a stream belongs to one thread at a time.
 */
#ifndef FL_CRYPTO_PRG_H
#define FL_CRYPTO_PRG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

#define FL_SEED_BYTES       32
#define FL_PRG_BUFFER_BYTES 512 /* a multiple of ChaCha20's 64-byte block */

struct fl_prg {
    uint8_t key[FL_SEED_BYTES];
    uint8_t buffer[FL_PRG_BUFFER_BYTES];
    uint64_t block; /* the block that follows the buffer */
    size_t used;    /* bytes of the buffer already given out */
    bool has_spare;
    double spare; /* the polar method makes two */
};

void fl_prg_init(struct fl_prg *self, const uint8_t seed[FL_SEED_BYTES]);
/* The next byte given out is the stream's byte at this offset. */
void fl_prg_seek(struct fl_prg *self, uint64_t offset_bytes);
void fl_prg_wipe(struct fl_prg *self);

void fl_prg_bytes(struct fl_prg *self, void *out, size_t length);
uint32_t fl_prg_u32(struct fl_prg *self); /* little-endian from the stream */
uint64_t fl_prg_u64(struct fl_prg *self);
/* Uniform in [0, bound), without bias (rejection). bound >= 1. */
uint64_t fl_prg_below(struct fl_prg *self, uint64_t bound);
/* Uniform in [0, 1), a multiple of 2^-53. */
double fl_prg_unit(struct fl_prg *self);
/* Standard normal. */
double fl_prg_gaussian(struct fl_prg *self);
/* Fisher-Yates over n indices. */
void fl_prg_shuffle(struct fl_prg *self, uint32_t *items, size_t n);

/* A seed derived from a seed: begin, any number of parts, end. */
struct fl_prf {
    struct fl_blake2b hash;
};
void fl_prf_begin(struct fl_prf *self, const uint8_t seed[FL_SEED_BYTES], const char *label);
/* From a job's seed number: the 32-byte seed is the number as u64le, then zeros. */
void fl_prf_begin_u64(struct fl_prf *self, uint64_t seed, const char *label);
void fl_prf_bytes(struct fl_prf *self, const void *bytes, size_t length);
void fl_prf_text(struct fl_prf *self, const char *text);
void fl_prf_u64(struct fl_prf *self, uint64_t value);
void fl_prf_end(struct fl_prf *self, uint8_t seed[FL_SEED_BYTES]);

#endif
