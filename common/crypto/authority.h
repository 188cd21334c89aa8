/*
 * authority.h - the consortium's authority: an Ed25519 key that no coordinator holds, and the
 * numbered, signed list of the consortium's members that sites hold a cohort against.
 *
 * Public key, the string that sites pin: "fla1:" + base64(Ed25519), 49 chars. Fingerprint, for
 * comparing by telephone: 30 decimal digits in six groups, as in Signal's safety numbers: group i
 * is (bytes 5i..5i+4 of BLAKE2b-256("fedlora-authority-v1" || key), big-endian) mod 100,000. Making
 * another key with the same digits takes about 2^99 tries.
 * Key file: as in keys.h, with the label "fedlora-authority-v1 " and the Ed25519 seed.
 *
 * Signed list: ASCII text in one canonical form, so that what is signed is what is read:
 *   fedlora-roster-v1
 *   number 7
 *   authority fla1:...
 *   NAME fl1:... member        one line a member, sorted by name (bytes), one space between words
 *   NAME fl1:... revoked
 *   signature BASE64           Ed25519 over every byte before this line, label "fedlora-roster-v1"
 * Names and keys occur once each. Anything else, a byte behind the last newline too, is refused.
 * Threads: what is made is constant and may be read by any thread.
 */
#ifndef FL_CRYPTO_AUTHORITY_H
#define FL_CRYPTO_AUTHORITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/limits.h"
#include "crypto/keys.h"

#define FL_AUTHORITY_TEXT_BYTES   50         /* of the public key's string, with its NUL */
#define FL_FINGERPRINT_TEXT_BYTES 36         /* "12345 ... 67890" with its NUL */
#define FL_MEMBERS_TEXT_MAX       (1u << 20) /* bytes of a list of FL_WORKERS_MAX members, signed */

struct fl_authority; /* opaque: the key pair, in guarded memory */

/* FL_OK: the caller owns *out. FL_ENOMEM. */
FL_CHECKED enum fl_status fl_authority_generate(const struct fl_entropy *entropy,
                                                struct fl_authority **out);
/* As fl_keys_load() and fl_keys_save(). */
FL_CHECKED enum fl_status fl_authority_load(const char *path, struct fl_authority **out,
                                            struct fl_error *error);
FL_CHECKED enum fl_status fl_authority_save(const struct fl_authority *self, const char *path,
                                            struct fl_error *error);
/* Wipe and release; *self becomes NULL and may be NULL already. */
void fl_authority_destroy(struct fl_authority **self);
const uint8_t *fl_authority_public(const struct fl_authority *self); /* borrowed, FL_KEY_BYTES */

/* text has FL_AUTHORITY_TEXT_BYTES bytes. */
void fl_authority_encode(const uint8_t key[FL_KEY_BYTES], char *text);
/* Exactly one public key and nothing else. FL_EFORMAT. */
FL_CHECKED enum fl_status fl_authority_parse(const char *text, uint8_t key[FL_KEY_BYTES],
                                             struct fl_error *error);
/* text has FL_FINGERPRINT_TEXT_BYTES bytes. */
void fl_authority_fingerprint(const uint8_t key[FL_KEY_BYTES], char *text);

struct fl_member {
    char name[FL_NAME_BYTES];
    struct fl_identity identity;
    bool revoked;
};

struct fl_member_list {
    uint64_t number; /* 1.. */
    uint8_t authority[FL_KEY_BYTES];
    uint8_t hash[FL_HASH_BYTES]; /* BLAKE2b-256 of the signed bytes */
    uint32_t count;
    struct fl_member *members; /* (count), sorted by name; owned */
};

/* The newest list that a site has taken; number 0: none yet. */
struct fl_member_mark {
    uint64_t number;
    uint8_t hash[FL_HASH_BYTES];
};

/*
 * Read what people write, before it is signed: lines "NAME IDENTITY [revoked]" in any order, blank
 * lines and lines that begin with '#' skipped. number, authority and hash stay zero.
 * FL_EFORMAT with the line's number; FL_ENOMEM. Free *out in any case.
 */
FL_CHECKED enum fl_status fl_member_list_read(const char *text, size_t length,
                                              struct fl_member_list *out, struct fl_error *error);
/*
 * Set the list's number (>= 1), authority and hash, and append the signed text to out, whose
 * maximum is FL_MEMBERS_TEXT_MAX or more. FL_ENOMEM, FL_ERANGE.
 */
FL_CHECKED enum fl_status fl_member_list_sign(struct fl_member_list *self, uint64_t number,
                                              const struct fl_authority *authority,
                                              struct fl_buf *out);
/*
 * Read a signed list and check its signature by the authority that it names. authority (may be
 * NULL: any) is the pinned one: another is FL_EREFUSED, as is a signature that is not good.
 * FL_EFORMAT: not in the canonical form. FL_ENOMEM. Free *out in any case.
 */
FL_CHECKED enum fl_status fl_member_list_verify(const char *text, size_t length,
                                                const uint8_t *authority,
                                                struct fl_member_list *out, struct fl_error *error);
/*
 * May this list stand in for the one that was taken? FL_EREFUSED: it is older, or has the same
 * number and says something else (the authority signed two).
 */
FL_CHECKED enum fl_status fl_member_list_supersedes(const struct fl_member_list *self,
                                                    const struct fl_member_mark *taken,
                                                    struct fl_error *error);
/* Borrowed; NULL: no such member. */
const struct fl_member *fl_member_list_find(const struct fl_member_list *self, const char *name);
uint32_t fl_member_list_revoked(const struct fl_member_list *self); /* how many are */
void fl_member_list_free(struct fl_member_list *self);

#endif
