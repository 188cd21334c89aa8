/*
 * stubs.c - what costs time and is not what the simulator looks at: the linker puts these in front
 * of libsodium's functions for our own code. Locked memory is plain memory everywhere. A signature
 * that many sites check is checked once. In sim_wide, where hundreds of sites take part, or a few
 * in very many rounds, key agreement and signatures are arithmetic that only keeps their equations:
 * both sides of an agreement get the same secret, a signature verifies under its own key and
 * message alone; and no site writes its status. No program outside the tests can be linked so by
 * mistake: it would have to name this file.
 */
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/client_internal.h"

void *__wrap_sodium_malloc(size_t bytes);
void __wrap_sodium_free(void *block);
int __wrap_crypto_sign_verify_detached(const unsigned char *signature, const unsigned char *message,
                                       unsigned long long bytes, const unsigned char *public_key);

void *__wrap_sodium_malloc(size_t bytes)
{
    return fl_malloc(bytes);
}

void __wrap_sodium_free(void *block)
{
    fl_free(block);
}

#ifdef SIM_WIDE
int __wrap_crypto_scalarmult_base(unsigned char *public_key, const unsigned char *secret);
int __wrap_crypto_scalarmult(unsigned char *shared, const unsigned char *secret,
                             const unsigned char *public_key);
int __wrap_crypto_sign_detached(unsigned char *signature, unsigned long long *length,
                                const unsigned char *message, unsigned long long bytes,
                                const unsigned char *secret);
void __wrap_fl_client_write_status(struct fl_client *self);

#define WORD_BYTES 32

/* Nobody here reads how a site says that it is. */
void __wrap_fl_client_write_status(struct fl_client *self)
{
    self->status_dirty = false;
}

/* secret + base, so that secret + other's public is the same on both sides */
int __wrap_crypto_scalarmult_base(unsigned char *public_key, const unsigned char *secret)
{
    for (size_t i = 0; i < WORD_BYTES; i++)
        public_key[i] = secret[i] ^ 0x5a;
    return 0;
}

int __wrap_crypto_scalarmult(unsigned char *shared, const unsigned char *secret,
                             const unsigned char *public_key)
{
    for (size_t i = 0; i < WORD_BYTES; i++)
        shared[i] = secret[i] ^ public_key[i];
    return sodium_is_zero(public_key, WORD_BYTES) ? -1 : 0;
}

static void sign(unsigned char *signature, const unsigned char *message, unsigned long long bytes,
                 const unsigned char *public_key)
{
    (void)crypto_generichash(signature, crypto_sign_BYTES, message, bytes, public_key, WORD_BYTES);
}

int __wrap_crypto_sign_detached(unsigned char *signature, unsigned long long *length,
                                const unsigned char *message, unsigned long long bytes,
                                const unsigned char *secret)
{
    sign(signature, message, bytes, secret + WORD_BYTES);
    if (length)
        *length = crypto_sign_BYTES;
    return 0;
}

int __wrap_crypto_sign_verify_detached(const unsigned char *signature, const unsigned char *message,
                                       unsigned long long bytes, const unsigned char *public_key)
{
    unsigned char own[crypto_sign_BYTES];
    sign(own, message, bytes, public_key);
    return memcmp(own, signature, sizeof(own)) == 0 ? 0 : -1;
}
#else
int __real_crypto_sign_verify_detached(const unsigned char *signature, const unsigned char *message,
                                       unsigned long long bytes, const unsigned char *public_key);

#define KEPT_ANSWERS 4096
#define DIGEST_BYTES 32

/* What libsodium answered to exactly these bytes is its answer to them again. */
int __wrap_crypto_sign_verify_detached(const unsigned char *signature, const unsigned char *message,
                                       unsigned long long bytes, const unsigned char *public_key)
{
    static struct {
        bool known;
        int answer;
        unsigned char digest[DIGEST_BYTES];
    } kept[KEPT_ANSWERS];
    unsigned char digest[DIGEST_BYTES];
    crypto_generichash_state hash;
    (void)crypto_generichash_init(&hash, NULL, 0, sizeof(digest));
    (void)crypto_generichash_update(&hash, signature, crypto_sign_BYTES);
    (void)crypto_generichash_update(&hash, public_key, crypto_sign_PUBLICKEYBYTES);
    (void)crypto_generichash_update(&hash, message, bytes);
    (void)crypto_generichash_final(&hash, digest, sizeof(digest));
    size_t place = (digest[0] | (size_t)digest[1] << 8) % KEPT_ANSWERS;
    if (!kept[place].known || memcmp(kept[place].digest, digest, sizeof(digest)) != 0) {
        memcpy(kept[place].digest, digest, sizeof(digest));
        kept[place].answer = __real_crypto_sign_verify_detached(signature, message, bytes,
                                                                public_key);
        kept[place].known = true;
    }
    return kept[place].answer;
}
#endif
