/* audit_keys.c - see audit_keys.h; the command is audit_command.c. */
#include "crypto/audit_keys.h"

#include <assert.h>
#include <string.h>

#include "base/buf.h"

static_assert(FL_AUDIT_KEY_BYTES == FL_KEY_BYTES, "an Ed25519 key");
static_assert(FL_AUDIT_SIGNATURE_BYTES == FL_SIGNATURE_BYTES, "an Ed25519 signature");

static void sign(const void *context, const char *label, const void *bytes, size_t length,
                 uint8_t signature[FL_AUDIT_SIGNATURE_BYTES])
{
    fl_keys_sign(context, label, bytes, length, signature);
}

bool fl_audit_check_ed25519(const uint8_t key[FL_AUDIT_KEY_BYTES], const char *label,
                            const void *bytes, size_t length,
                            const uint8_t signature[FL_AUDIT_SIGNATURE_BYTES])
{
    return fl_verify(key, label, bytes, length, signature) == FL_OK;
}

struct fl_audit_signer fl_audit_signer_of(const struct fl_keys *keys)
{
    struct fl_audit_signer out = {.context = keys, .sign = sign, .check = fl_audit_check_ed25519};
    memcpy(out.key, fl_keys_public(keys)->ed25519, FL_AUDIT_KEY_BYTES);
    return out;
}

enum fl_status fl_audit_key_parse(const char *text, uint8_t key[FL_AUDIT_KEY_BYTES],
                                  struct fl_error *error)
{
    struct fl_identity identity;
    if (strncmp(text, "fl1:", 4) == 0) {
        enum fl_status status = fl_identity_parse(text, &identity, error);
        memcpy(key, identity.ed25519, FL_AUDIT_KEY_BYTES);
        return status;
    }
    if (fl_unhex(text, key, FL_AUDIT_KEY_BYTES) == FL_OK)
        return FL_OK;
    return fl_fail(error, FL_EFORMAT,
                   "--key: neither 64 hexadecimal digits nor a public identity fl1:...");
}
