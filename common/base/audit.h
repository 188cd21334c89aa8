/*
 * audit.h - an append-only log: each line is one JSON object whose "prev" is the SHA-256 of the
 * line before it (64 zeros for the first) and whose "sig" is the owner's signature over all of the
 * line before `,"sig"`. The first signed line, of the event "signed_by", names the public key.
 * A line that was changed, removed, inserted or moved, or signed by another key, shows.
 *
 * Beside the log lies PATH.head, written durably behind each line: how many lines there are and
 * the hash of the last one, signed. An end that was cut off shows by it. A crash between the two
 * leaves a log that is one line ahead of its head, or a piece of a line behind what the
 * head counts: both are good, and mended by the next append.
 *
 * A log of unsigned lines, as they were written formerly, is continued: its first signed line
 * vouches for what stood before. This room knows no keys: crypto/audit_keys.h makes the signer.
 * Threads: one owner.
 */
#ifndef FL_BASE_AUDIT_H
#define FL_BASE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"

#define FL_AUDIT_KEY_BYTES       32
#define FL_AUDIT_SIGNATURE_BYTES 64

/* Is this the key's signature of the bytes under that label? */
typedef bool (*fl_audit_check)(const uint8_t key[FL_AUDIT_KEY_BYTES], const char *label,
                               const void *bytes, size_t length,
                               const uint8_t signature[FL_AUDIT_SIGNATURE_BYTES]);

struct fl_audit_signer {
    const void *context; /* of sign; borrowed for as long as a log is open with it */
    uint8_t key[FL_AUDIT_KEY_BYTES];
    void (*sign)(const void *context, const char *label, const void *bytes, size_t length,
                 uint8_t signature[FL_AUDIT_SIGNATURE_BYTES]);
    fl_audit_check check;
};

struct fl_audit; /* opaque */

/*
 * Open (or make, mode 0600) the log at path and read its end. The caller owns *out.
 * FL_EREFUSED: it is signed by another key. FL_EFORMAT: no log, or its end is not what its head
 * says: nothing is appended to a log that was tampered with.
 */
FL_CHECKED enum fl_status fl_audit_open(const char *path, const struct fl_audit_signer *signer,
                                        struct fl_audit **out, struct fl_error *error);
void fl_audit_close(struct fl_audit **self);
/*
 * Append {"seq","ts","event",fields...,"prev","sig"}; wall_ms is the time to record. The line is
 * durable on FL_OK. After a failed write or fsync the line is not there, and the next call goes on
 * behind the last good one (after a failed fsync in a file written anew). A head that could not be
 * written behind a line is written before the next.
 */
FL_CHECKED enum fl_status fl_audit_append(struct fl_audit *self, int64_t wall_ms, const char *event,
                                          const struct fl_field *fields, struct fl_error *error);

struct fl_audit_report {
    uint64_t lines;          /* good ones, from the first on */
    uint64_t unsigned_lines; /* of them, those before the first signed one */
    bool is_signed;
    bool ahead;                      /* one line ahead of the head, as a crash leaves it */
    bool torn;                       /* behind them lies a line without its end, as a crash does */
    uint8_t key[FL_AUDIT_KEY_BYTES]; /* who signed; zeros while not signed */
    uint8_t last[FL_HASH_BYTES];     /* SHA-256 of the last good line; zeros: none */
    char first_time[FL_TIME_TEXT_BYTES], last_time[FL_TIME_TEXT_BYTES]; /* "": none */
    uint64_t broken; /* the number of the line that is wrong or missing; 0: none is */
};
/*
 * Check a whole log and its head. key: who must have signed what is signed; NULL: anyone. A log
 * that is not signed at all is good if its chain holds: look at is_signed. FL_EFORMAT names the
 * line, and *out says how far it is good. A daemon may go on appending meanwhile.
 */
FL_CHECKED enum fl_status fl_audit_verify(const char *path, const uint8_t *key,
                                          fl_audit_check check, struct fl_audit_report *out,
                                          struct fl_error *error);

#endif
