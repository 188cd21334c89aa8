/*
 * audit_keys.h - audit logs (base/audit.h) signed with the Ed25519 key of a site or a coordinator,
 * and the command that both programs have to verify one.
 * Threads: any.
 */
#ifndef FL_CRYPTO_AUDIT_KEYS_H
#define FL_CRYPTO_AUDIT_KEYS_H

#include "base/audit.h"
#include "crypto/keys.h"

/* keys are borrowed for as long as a log is open with the signer. */
struct fl_audit_signer fl_audit_signer_of(const struct fl_keys *keys);
/* An fl_audit_check. */
bool fl_audit_check_ed25519(const uint8_t key[FL_AUDIT_KEY_BYTES], const char *label,
                            const void *bytes, size_t length,
                            const uint8_t signature[FL_AUDIT_SIGNATURE_BYTES]);

/* 64 hexadecimal digits, or a public identity "fl1:..." whose Ed25519 key is meant. FL_EFORMAT. */
FL_CHECKED enum fl_status fl_audit_key_parse(const char *text, uint8_t key[FL_AUDIT_KEY_BYTES],
                                             struct fl_error *error);

struct fl_audit_place {
    const char *program;  /* "fedlora-worker audit verify" */
    const char *value;    /* what --help shows behind --dir: "SITE" */
    const char *doc;      /* of --dir */
    const char *key_file; /* within the directory: whose log it must be, where the file is there */
};
/* `audit verify` on DIR/audit.log; returns the exit code: 0 good, 3 broken. */
int fl_audit_verify_command(const struct fl_audit_place *place, int argc, char **argv);

#endif
