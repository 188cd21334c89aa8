/*
 * keys.c - making, using and naming keys; files are keyfile.c.
 */
#include "crypto/keys.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/hash.h"
#include "crypto/keys_internal.h"

#define IDENTITY_PREFIX "fl1:"
#define SIGN_PREFIX     "fedlora-sign-v1"

void *fl_secret_malloc(size_t bytes)
{
    /* the seam is asked first, so that tests can refuse locked memory like any other */
    void *probe = fl_malloc(1);
    if (!probe)
        return NULL;
    fl_free(probe);
    void *block = sodium_malloc(bytes);
    if (block)
        memset(block, 0, bytes);
    return block;
}

enum fl_status fl_box_keys_derive(struct fl_box_keys *self)
{
    return crypto_scalarmult_base(self->public_key, self->secret_key) == 0 ? FL_OK : FL_EFORMAT;
}

enum fl_status fl_keys_derive(struct fl_keys *self)
{
    if (crypto_scalarmult_base(self->identity.x25519, self->x25519_secret) != 0)
        return FL_EFORMAT;
    if (crypto_sign_seed_keypair(self->identity.ed25519, self->ed25519_secret,
                                 self->ed25519_seed) != 0)
        return FL_EFORMAT;
    return FL_OK;
}

enum fl_status fl_keys_generate(const struct fl_entropy *entropy, struct fl_keys **out)
{
    assert(entropy && out);
    *out = NULL;
    struct fl_keys *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return FL_ENOMEM;
    fl_entropy_bytes(entropy, self->x25519_secret, sizeof(self->x25519_secret));
    fl_entropy_bytes(entropy, self->ed25519_seed, sizeof(self->ed25519_seed));
    const enum fl_status status = fl_keys_derive(self);
    if (status != FL_OK) {
        sodium_free(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

void fl_keys_destroy(struct fl_keys **self)
{
    if (!*self)
        return;
    sodium_free(*self);
    *self = NULL;
}

const struct fl_identity *fl_keys_public(const struct fl_keys *self)
{
    return &self->identity;
}

const uint8_t *fl_keys_x25519_secret(const struct fl_keys *self)
{
    return self->x25519_secret;
}

void fl_sign_digest(const char *label, const void *message, size_t length,
                    uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    uint8_t size[4];
    fl_store_u32(size, (uint32_t)strlen(label));
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, SIGN_PREFIX, strlen(SIGN_PREFIX));
    fl_blake2b_update(&hash, size, sizeof(size));
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_update(&hash, message, length);
    fl_blake2b_final(&hash, out);
}

void fl_keys_sign(const struct fl_keys *self, const char *label, const void *message, size_t length,
                  uint8_t signature[FL_SIGNATURE_BYTES])
{
    uint8_t hash[FL_HASH_BYTES];
    fl_sign_digest(label, message, length, hash);
    const int failed = crypto_sign_detached(signature, NULL, hash, sizeof(hash),
                                            self->ed25519_secret);
    assert(failed == 0); /* it has no way to fail */
    (void)failed;
}

enum fl_status fl_verify(const uint8_t ed25519[FL_KEY_BYTES], const char *label,
                         const void *message, size_t length,
                         const uint8_t signature[FL_SIGNATURE_BYTES])
{
    uint8_t hash[FL_HASH_BYTES];
    fl_sign_digest(label, message, length, hash);
    return crypto_sign_verify_detached(signature, hash, sizeof(hash), ed25519) == 0 ? FL_OK
                                                                                    : FL_EREFUSED;
}

void fl_identity_encode(const struct fl_identity *self, char *text)
{
    uint8_t both[2 * FL_KEY_BYTES];
    memcpy(both, self->x25519, FL_KEY_BYTES);
    memcpy(both + FL_KEY_BYTES, self->ed25519, FL_KEY_BYTES);
    const size_t prefix = strlen(IDENTITY_PREFIX);
    memcpy(text, IDENTITY_PREFIX, prefix);
    sodium_bin2base64(text + prefix, FL_IDENTITY_TEXT_BYTES - prefix, both, sizeof(both),
                      sodium_base64_VARIANT_ORIGINAL);
}

/* A low-order point makes every shared secret zero; libsodium's scalarmult says so. */
static bool is_weak_x25519(const uint8_t key[FL_KEY_BYTES])
{
    static const uint8_t any_scalar[FL_KEY_BYTES] = {8};
    uint8_t shared[FL_KEY_BYTES];
    return crypto_scalarmult(shared, any_scalar, key) != 0;
}

enum fl_status fl_identity_parse(const char *text, struct fl_identity *out, struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    const size_t prefix = strlen(IDENTITY_PREFIX);
    if (strncmp(text, IDENTITY_PREFIX, prefix) != 0)
        return fl_fail(error, FL_EFORMAT,
                       "not a public identity: it begins with \"fl1:\" (`fedlora-worker keys` "
                       "prints it)");
    uint8_t both[2 * FL_KEY_BYTES];
    size_t length = 0;
    if (strlen(text) != FL_IDENTITY_TEXT_BYTES - 1 ||
        sodium_base642bin(both, sizeof(both), text + prefix, FL_IDENTITY_TEXT_BYTES - 1 - prefix,
                          NULL, &length, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
        length != sizeof(both))
        return fl_fail(error, FL_EFORMAT,
                       "the public identity is damaged: it must be \"fl1:\" and 88 characters of "
                       "base64");
    static const uint8_t zero[FL_KEY_BYTES];
    if (is_weak_x25519(both) || memcmp(both + FL_KEY_BYTES, zero, FL_KEY_BYTES) == 0)
        return fl_fail(error, FL_EFORMAT, "the public identity holds a key that protects nothing");
    memcpy(out->x25519, both, FL_KEY_BYTES);
    memcpy(out->ed25519, both + FL_KEY_BYTES, FL_KEY_BYTES);
    return FL_OK;
}

/* Z85 (ZeroMQ RFC 32): 4 bytes, big-endian, as 5 digits of base 85. */
static const char z85_digits[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

void fl_z85_encode(const uint8_t key[FL_KEY_BYTES], char *text)
{
    for (size_t i = 0; i < FL_KEY_BYTES; i += 4) {
        uint32_t value = (uint32_t)key[i] << 24 | (uint32_t)key[i + 1] << 16 |
                         (uint32_t)key[i + 2] << 8 | (uint32_t)key[i + 3];
        for (size_t k = 5; k-- > 0; value /= 85)
            text[i / 4 * 5 + k] = z85_digits[value % 85];
    }
    text[FL_Z85_KEY_BYTES - 1] = '\0';
}

enum fl_status fl_z85_decode(const char *text, uint8_t key[FL_KEY_BYTES])
{
    if (strlen(text) != FL_Z85_KEY_BYTES - 1)
        return FL_EFORMAT;
    for (size_t group = 0; group < FL_KEY_BYTES / 4; group++) {
        uint64_t value = 0;
        for (size_t k = 0; k < 5; k++) {
            const char *digit = strchr(z85_digits, text[group * 5 + k]);
            if (!digit)
                return FL_EFORMAT;
            value = value * 85 + (uint64_t)(digit - z85_digits);
        }
        if (value > UINT32_MAX)
            return FL_EFORMAT;
        for (size_t k = 0; k < 4; k++)
            key[group * 4 + k] = (uint8_t)(value >> (24 - 8 * k));
    }
    return FL_OK;
}

enum fl_status fl_box_keys_generate(const struct fl_entropy *entropy, struct fl_box_keys **out)
{
    assert(entropy && out);
    *out = NULL;
    struct fl_box_keys *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return FL_ENOMEM;
    fl_entropy_bytes(entropy, self->secret_key, sizeof(self->secret_key));
    const enum fl_status status = fl_box_keys_derive(self);
    if (status != FL_OK) {
        sodium_free(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

void fl_box_keys_destroy(struct fl_box_keys **self)
{
    if (!*self)
        return;
    sodium_free(*self);
    *self = NULL;
}

const uint8_t *fl_box_keys_public(const struct fl_box_keys *self)
{
    return self->public_key;
}

const uint8_t *fl_box_keys_secret(const struct fl_box_keys *self)
{
    return self->secret_key;
}
