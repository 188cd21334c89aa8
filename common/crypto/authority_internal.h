/* authority_internal.h - what authority.c and members.c share. */
#ifndef FL_CRYPTO_AUTHORITY_INTERNAL_H
#define FL_CRYPTO_AUTHORITY_INTERNAL_H

#include "crypto/authority.h"
#include "crypto/keys_internal.h"

void fl_authority_sign(const struct fl_authority *self, const char *label, const void *message,
                       size_t length, uint8_t signature[FL_SIGNATURE_BYTES]);

#endif
