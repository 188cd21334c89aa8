/* authority.c - the authority's key; its lists are members.c. See authority.h. */
#include "crypto/authority.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "crypto/authority_internal.h"

#define FILE_LABEL        "fedlora-authority-v1 "
#define FINGERPRINT_LABEL "fedlora-authority-v1"
#define KEY_PREFIX        "fla1:"
#define GROUPS            6
#define GROUP_BYTES       5

struct fl_authority {
    uint8_t public_key[FL_KEY_BYTES];
    uint8_t seed[crypto_sign_SEEDBYTES];
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
};

static enum fl_status derive(struct fl_authority *self)
{
    return crypto_sign_seed_keypair(self->public_key, self->secret, self->seed) == 0 ? FL_OK
                                                                                     : FL_EFORMAT;
}

enum fl_status fl_authority_generate(const struct fl_entropy *entropy, struct fl_authority **out)
{
    *out = NULL;
    struct fl_authority *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return FL_ENOMEM;
    fl_entropy_bytes(entropy, self->seed, sizeof(self->seed));
    const enum fl_status status = derive(self);
    if (status != FL_OK) {
        sodium_free(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

enum fl_status fl_authority_load(const char *path, struct fl_authority **out,
                                 struct fl_error *error)
{
    *out = NULL;
    struct fl_authority *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = fl_keyfile_load(path, FILE_LABEL, self->seed, sizeof(self->seed),
                                            error);
    if (status == FL_OK) {
        status = derive(self);
        if (status != FL_OK)
            (void)fl_fail(error, status, "%s: the key is unusable", path);
    }
    if (status != FL_OK)
        sodium_free(self);
    else
        *out = self;
    return status;
}

enum fl_status fl_authority_save(const struct fl_authority *self, const char *path,
                                 struct fl_error *error)
{
    return fl_keyfile_save(path, FILE_LABEL, self->seed, sizeof(self->seed), error);
}

void fl_authority_destroy(struct fl_authority **self)
{
    if (!*self)
        return;
    sodium_free(*self);
    *self = NULL;
}

const uint8_t *fl_authority_public(const struct fl_authority *self)
{
    return self->public_key;
}

void fl_authority_sign(const struct fl_authority *self, const char *label, const void *message,
                       size_t length, uint8_t signature[FL_SIGNATURE_BYTES])
{
    uint8_t hash[FL_HASH_BYTES];
    fl_sign_digest(label, message, length, hash);
    const int failed = crypto_sign_detached(signature, NULL, hash, sizeof(hash), self->secret);
    assert(failed == 0); /* it has no way to fail */
    (void)failed;
}

void fl_authority_encode(const uint8_t key[FL_KEY_BYTES], char *text)
{
    const size_t prefix = strlen(KEY_PREFIX);
    memcpy(text, KEY_PREFIX, prefix);
    sodium_bin2base64(text + prefix, FL_AUTHORITY_TEXT_BYTES - prefix, key, FL_KEY_BYTES,
                      sodium_base64_VARIANT_ORIGINAL);
}

enum fl_status fl_authority_parse(const char *text, uint8_t key[FL_KEY_BYTES],
                                  struct fl_error *error)
{
    memset(key, 0, FL_KEY_BYTES);
    const size_t prefix = strlen(KEY_PREFIX);
    uint8_t raw[FL_KEY_BYTES];
    size_t length = 0;
    if (strncmp(text, KEY_PREFIX, prefix) != 0)
        return fl_fail(error, FL_EFORMAT,
                       "not an authority's public key: it begins with \"" KEY_PREFIX
                       "\" (`fedlora-worker roster init` prints it)");
    /* a key of low order would verify signatures that nobody made */
    if (strlen(text) != FL_AUTHORITY_TEXT_BYTES - 1 ||
        sodium_base642bin(raw, sizeof(raw), text + prefix, FL_AUTHORITY_TEXT_BYTES - 1 - prefix,
                          NULL, &length, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
        length != sizeof(raw) || crypto_core_ed25519_is_valid_point(raw) != 1)
        return fl_fail(error, FL_EFORMAT,
                       "the authority's public key is damaged: it must be \"" KEY_PREFIX
                       "\" and 44 characters of base64");
    memcpy(key, raw, FL_KEY_BYTES);
    return FL_OK;
}

void fl_authority_fingerprint(const uint8_t key[FL_KEY_BYTES], char *text)
{
    struct fl_blake2b hash;
    uint8_t bytes[FL_HASH_BYTES];
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, FINGERPRINT_LABEL, strlen(FINGERPRINT_LABEL));
    fl_blake2b_update(&hash, key, FL_KEY_BYTES);
    fl_blake2b_final(&hash, bytes);
    for (size_t i = 0; i < GROUPS; i++) {
        uint64_t value = 0;
        for (size_t k = 0; k < GROUP_BYTES; k++)
            value = value << 8 | bytes[i * GROUP_BYTES + k];
        (void)snprintf(text + i * (GROUP_BYTES + 1), GROUP_BYTES + 1, "%05u",
                       (unsigned)(value % 100000));
        text[i * (GROUP_BYTES + 1) + GROUP_BYTES] = i + 1 < GROUPS ? ' ' : '\0';
    }
}
