/* masks.c - see masks.h. */
#include "secagg/masks.h"

#include <endian.h>
#include <string.h>

/*
 * Keystream at a time: with the piece of the vector that it is added to it stays in the first-level
 * cache. A multiple of ChaCha20's block.
 */
#define BLOCK_BYTES  16384u
#define CHACHA_BYTES 64u

static void stream_key(const uint8_t seed[FL_HASH_BYTES], const uint8_t cohort[FL_HASH_BYTES],
                       const char *label, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, seed, FL_HASH_BYTES);
    fl_blake2b_update(&hash, "fedlora-mask-v1", 15);
    fl_blake2b_update(&hash, cohort, FL_HASH_BYTES);
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_final(&hash, out);
}

/* Keystream as bytes and as the little-endian words that are added. */
union block {
    uint8_t bytes[BLOCK_BYTES];
    uint32_t words[BLOCK_BYTES / 4];
    uint64_t longs[BLOCK_BYTES / 8];
};

/* The first `bytes` bytes of block `index` of the stream. */
static void keystream(const uint8_t key[FL_HASH_BYTES], uint64_t index, size_t bytes,
                      union block *out)
{
    static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    memset(out, 0, bytes);
    crypto_stream_chacha20_xor_ic(out->bytes, out->bytes, bytes, nonce,
                                  index * (BLOCK_BYTES / CHACHA_BYTES), key);
}

static void apply_vector(const uint8_t key[FL_HASH_BYTES], bool subtract, uint32_t *vector,
                         uint64_t elements, union block *block)
{
    const uint64_t words = BLOCK_BYTES / 4;
    for (uint64_t at = 0; at < elements; at += words) {
        const uint64_t count = elements - at < words ? elements - at : words;
        uint32_t *piece = vector + at;
        keystream(key, at / words, (size_t)count * 4, block);
        if (subtract) {
            for (uint64_t i = 0; i < count; i++)
                piece[i] -= le32toh(block->words[i]);
        } else {
            for (uint64_t i = 0; i < count; i++)
                piece[i] += le32toh(block->words[i]);
        }
    }
}

static void apply_scalars(const uint8_t key[FL_HASH_BYTES], bool subtract, uint64_t *scalars,
                          uint32_t count, union block *block)
{
    const uint32_t words = BLOCK_BYTES / 8;
    for (uint32_t at = 0; at < count; at += words) {
        const uint32_t n = count - at < words ? count - at : words;
        keystream(key, at / words, (size_t)n * 8, block);
        for (uint32_t i = 0; i < n; i++) {
            const uint64_t mask = le64toh(block->longs[i]);
            scalars[at + i] += subtract ? 0u - mask : mask;
        }
    }
}

void fl_mask_apply(const uint8_t seed[FL_HASH_BYTES], const uint8_t cohort[FL_HASH_BYTES],
                   bool subtract, uint32_t *vector, uint64_t elements, uint64_t *scalars,
                   uint32_t scalar_count)
{
    uint8_t key[FL_HASH_BYTES];
    union block block;
    stream_key(seed, cohort, "vector", key);
    apply_vector(key, subtract, vector, elements, &block);
    stream_key(seed, cohort, "scalars", key);
    apply_scalars(key, subtract, scalars, scalar_count, &block);
    sodium_memzero(key, sizeof(key));
    sodium_memzero(&block, sizeof(block));
}

static void labelled(const char *label, const uint8_t *bytes, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_update(&hash, bytes, FL_HASH_BYTES);
    fl_blake2b_final(&hash, out);
    sodium_memzero(&hash, sizeof(hash));
}

void fl_mask_secret_key(const uint8_t scalar[FL_SCALAR_BYTES], uint8_t secret[FL_KEY_BYTES])
{
    labelled("fedlora-mask-key-v1", scalar, secret);
}

void fl_mask_self_seed(const uint8_t scalar[FL_SCALAR_BYTES], uint8_t seed[FL_HASH_BYTES])
{
    labelled("fedlora-self-mask-v1", scalar, seed);
}

void fl_mask_commitment(const uint8_t seed[FL_HASH_BYTES], uint8_t commitment[FL_HASH_BYTES])
{
    labelled("fedlora-self-mask-commitment-v1", seed, commitment);
}

enum fl_status fl_mask_agree(const uint8_t secret[FL_KEY_BYTES],
                             const uint8_t own_public[FL_KEY_BYTES],
                             const uint8_t other_public[FL_KEY_BYTES],
                             const uint8_t cohort[FL_HASH_BYTES], const char *label,
                             uint8_t out[FL_HASH_BYTES])
{
    uint8_t point[crypto_scalarmult_BYTES];
    if (crypto_scalarmult(point, secret, other_public) != 0)
        return FL_EREFUSED;
    bool own_first = memcmp(own_public, other_public, FL_KEY_BYTES) < 0;
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, point, sizeof(point));
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_update(&hash, cohort, FL_HASH_BYTES);
    fl_blake2b_update(&hash, own_first ? own_public : other_public, FL_KEY_BYTES);
    fl_blake2b_update(&hash, own_first ? other_public : own_public, FL_KEY_BYTES);
    fl_blake2b_final(&hash, out);
    sodium_memzero(point, sizeof(point));
    sodium_memzero(&hash, sizeof(hash));
    return FL_OK;
}
