/* audit_internal.h - lines and heads, as audit.c writes and audit_verify.c reads them. */
#ifndef FL_BASE_AUDIT_INTERNAL_H
#define FL_BASE_AUDIT_INTERNAL_H

#include "base/audit.h"
#include "base/buf.h"

#define FL_AUDIT_LINE_BYTES 16384 /* with its newline */
#define FL_AUDIT_LINE_LABEL "fedlora-audit-line-v1"
#define FL_AUDIT_HEAD_LABEL "fedlora-audit-head-v1"
#define FL_AUDIT_KEY_EVENT  "signed_by"

struct fl_audit_line {
    uint64_t seq;
    uint8_t prev[FL_HASH_BYTES];
    char time[FL_TIME_TEXT_BYTES];
    bool names_key; /* of the event FL_AUDIT_KEY_EVENT */
    uint8_t key[FL_AUDIT_KEY_BYTES];
    bool is_signed;
    size_t signed_bytes; /* how many of its bytes the signature covers */
    uint8_t signature[FL_AUDIT_SIGNATURE_BYTES];
};
/* Read one line (without its newline); what names it in messages. FL_EFORMAT, FL_ENOMEM. */
FL_CHECKED enum fl_status fl_audit_parse(const char *line, size_t length, const char *what,
                                         struct fl_audit_line *out, struct fl_error *error);

/*
 * Are these bytes behind the last good line what a power cut may leave of one that was being
 * written? Either they have no end, or sectors are missing before it, and bytes stand there that
 * are no printed ASCII. Lines that somebody put there are another matter.
 */
bool fl_audit_is_torn(const char *text, size_t length);

struct fl_audit_head {
    bool exists;
    uint64_t lines;
    uint8_t last[FL_HASH_BYTES];
    uint8_t key[FL_AUDIT_KEY_BYTES];
};
/* Read PATH.head and check its signature by the key that it names. Absent is FL_OK. */
FL_CHECKED enum fl_status fl_audit_head_read(const char *path, fl_audit_check check,
                                             struct fl_audit_head *out, struct fl_error *error);
FL_CHECKED enum fl_status fl_audit_head_write(const char *path, uint64_t lines,
                                              const uint8_t last[FL_HASH_BYTES],
                                              const struct fl_audit_signer *signer,
                                              struct fl_error *error);
/* Append `,"sig":"..."}` and a newline to text that lacks its closing brace, signed. */
void fl_audit_sign(struct fl_buf *text, const char *label, const struct fl_audit_signer *signer);

#endif
