/*
 * token.c - see token.h.
 */
#include "crypto/token.h"

#include <assert.h>
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include <sodium.h>

#include "base/buf.h"
#include "base/hash.h"

#define TOKEN_PREFIX   "fljoin1:"
#define CHECKSUM_BYTES 4
#define FIXED_BYTES    (FL_INVITATION_BYTES + FL_JOIN_SECRET_BYTES + FL_KEY_BYTES + 8)
#define PAYLOAD_MAX    (FIXED_BYTES + FL_ADDRESS_BYTES + CHECKSUM_BYTES)
#define VARIANT        sodium_base64_VARIANT_URLSAFE_NO_PADDING

static_assert(sizeof(TOKEN_PREFIX) + (PAYLOAD_MAX * 4 + 2) / 3 <= FL_TOKEN_TEXT_BYTES,
              "the longest token fits its text");

void fl_token_draw(struct fl_token *self, const struct fl_entropy *entropy)
{
    fl_entropy_bytes(entropy, self->invitation, sizeof(self->invitation));
    fl_entropy_bytes(entropy, self->secret, sizeof(self->secret));
}

static void checksum(const uint8_t *payload, size_t length, uint8_t out[CHECKSUM_BYTES])
{
    struct fl_blake2b hash;
    uint8_t full[FL_HASH_BYTES];
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, TOKEN_PREFIX, strlen(TOKEN_PREFIX));
    fl_blake2b_update(&hash, payload, length);
    fl_blake2b_final(&hash, full);
    memcpy(out, full, CHECKSUM_BYTES);
}

void fl_token_encode(const struct fl_token *self, char *text)
{
    uint8_t payload[PAYLOAD_MAX];
    uint8_t *p = payload;
    const size_t address = strnlen(self->address, FL_ADDRESS_BYTES - 1);
    assert(address > 0);
    memcpy(p, self->invitation, FL_INVITATION_BYTES);
    p += FL_INVITATION_BYTES;
    memcpy(p, self->secret, FL_JOIN_SECRET_BYTES);
    p += FL_JOIN_SECRET_BYTES;
    memcpy(p, self->coordinator, FL_KEY_BYTES);
    p += FL_KEY_BYTES;
    fl_store_u64(p, (uint64_t)self->expires_ms);
    p += 8;
    memcpy(p, self->address, address);
    p += address;
    checksum(payload, (size_t)(p - payload), p);
    p += CHECKSUM_BYTES;

    const size_t prefix = strlen(TOKEN_PREFIX);
    memcpy(text, TOKEN_PREFIX, prefix);
    sodium_bin2base64(text + prefix, FL_TOKEN_TEXT_BYTES - prefix, payload, (size_t)(p - payload),
                      VARIANT);
    sodium_memzero(payload, sizeof(payload));
}

static bool is_address(const uint8_t *text, size_t length)
{
    static const char scheme[] = "tcp://";
    if (length <= sizeof(scheme) - 1 || memcmp(text, scheme, sizeof(scheme) - 1) != 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return false;
    return true;
}

/* payload holds at least the fixed fields, one byte of address and the checksum */
static enum fl_status unpack(const uint8_t *payload, size_t length, struct fl_token *out,
                             struct fl_error *error)
{
    const size_t body = length - CHECKSUM_BYTES, address = body - FIXED_BYTES;
    uint8_t sum[CHECKSUM_BYTES];
    checksum(payload, body, sum);
    if (memcmp(sum, payload + body, CHECKSUM_BYTES) != 0)
        return fl_fail(error, FL_EFORMAT,
                       "the join token has a typing error or is cut short; copy it whole");
    const uint8_t *p = payload;
    memcpy(out->invitation, p, FL_INVITATION_BYTES);
    p += FL_INVITATION_BYTES;
    memcpy(out->secret, p, FL_JOIN_SECRET_BYTES);
    p += FL_JOIN_SECRET_BYTES;
    memcpy(out->coordinator, p, FL_KEY_BYTES);
    p += FL_KEY_BYTES;
    const uint64_t expires = fl_load_u64(p);
    p += 8;
    if (expires > INT64_MAX || address >= FL_ADDRESS_BYTES || !is_address(p, address))
        return fl_fail(error, FL_EFORMAT, "the join token holds no usable address or date");
    out->expires_ms = (int64_t)expires;
    memcpy(out->address, p, address);
    out->address[address] = '\0';
    return FL_OK;
}

enum fl_status fl_token_parse(const char *text, struct fl_token *out, struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    const size_t prefix = strlen(TOKEN_PREFIX);
    if (strncmp(text, TOKEN_PREFIX, prefix) != 0)
        return fl_fail(error, FL_EFORMAT,
                       "not a join token: it begins with \"" TOKEN_PREFIX
                       "\" (`fedlora-coordinator invite` prints it)");
    uint8_t payload[PAYLOAD_MAX];
    size_t got = 0;
    enum fl_status status;
    if (length >= FL_TOKEN_TEXT_BYTES ||
        sodium_base642bin(payload, sizeof(payload), text + prefix, length - prefix, NULL, &got,
                          NULL, VARIANT) != 0 ||
        got <= FIXED_BYTES + CHECKSUM_BYTES)
        status = fl_fail(error, FL_EFORMAT,
                         "the join token has a typing error or is cut short; copy it whole");
    else
        status = unpack(payload, got, out, error);
    sodium_memzero(payload, sizeof(payload));
    if (status != FL_OK)
        sodium_memzero(out, sizeof(*out));
    return status;
}

void fl_join_mac(const uint8_t secret[FL_JOIN_SECRET_BYTES],
                 const uint8_t coordinator[FL_KEY_BYTES], const struct fl_identity *site,
                 const char *name, uint8_t mac[FL_JOIN_MAC_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, secret, FL_JOIN_SECRET_BYTES);
    fl_blake2b_update(&hash, FL_JOIN_LABEL, strlen(FL_JOIN_LABEL));
    fl_blake2b_update(&hash, coordinator, FL_KEY_BYTES);
    fl_blake2b_update(&hash, site->x25519, FL_KEY_BYTES);
    fl_blake2b_update(&hash, site->ed25519, FL_KEY_BYTES);
    fl_blake2b_update(&hash, name, strlen(name));
    fl_blake2b_final(&hash, mac);
    sodium_memzero(&hash, sizeof(hash));
}

enum fl_status fl_join_check(const uint8_t secret[FL_JOIN_SECRET_BYTES],
                             const uint8_t coordinator[FL_KEY_BYTES],
                             const struct fl_identity *site, const char *name,
                             const uint8_t mac[FL_JOIN_MAC_BYTES],
                             const uint8_t signature[FL_SIGNATURE_BYTES])
{
    uint8_t expected[FL_JOIN_MAC_BYTES];
    fl_join_mac(secret, coordinator, site, name, expected);
    const int differs = sodium_memcmp(expected, mac, FL_JOIN_MAC_BYTES);
    sodium_memzero(expected, sizeof(expected));
    if (differs != 0)
        return FL_EREFUSED;
    return fl_verify(site->ed25519, FL_JOIN_LABEL, mac, FL_JOIN_MAC_BYTES, signature);
}
