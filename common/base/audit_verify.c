/*
 * audit_verify.c - a whole log against its chain, its signatures and its head.
 *
 * A daemon may append meanwhile: the log is read between two equal readings of the head, and is
 * then what a crash could have left: as long as the head says, or one line longer, with a line
 * without its end behind at most.
 */
#include <stdio.h>
#include <string.h>

#include "base/audit_internal.h"
#include "base/fs.h"

#define READINGS 16

struct walk {
    const char *path;
    const uint8_t *wanted; /* NULL: any key */
    fl_audit_check check;
    const struct fl_audit_head *head;
    struct fl_audit_report *report;
    bool head_fits; /* the line that the head counts as the last has its hash */
};

static enum fl_status broken(struct walk *self, const char *why, struct fl_error *error)
{
    self->report->broken = self->report->lines + 1;
    return fl_fail(error, FL_EFORMAT, "%s:%llu: %s", self->path,
                   (unsigned long long)self->report->broken, why);
}

/* Whose line is it? The first signed one says. */
static enum fl_status check_signature(struct walk *self, const char *text,
                                      const struct fl_audit_line *line, struct fl_error *error)
{
    struct fl_audit_report *r = self->report;
    if (!line->is_signed)
        return r->is_signed ? broken(self, "it is not signed", error) : FL_OK;
    if (!r->is_signed && !line->names_key)
        return broken(self, "it is signed, and no line before it names the key", error);
    const uint8_t *key = r->is_signed ? r->key : line->key;
    if (self->wanted && memcmp(key, self->wanted, FL_AUDIT_KEY_BYTES) != 0)
        return broken(self, "it is signed by another key", error);
    if (!self->check(key, FL_AUDIT_LINE_LABEL, text, line->signed_bytes, line->signature))
        return broken(self, "its signature is not good: it was changed", error);
    if (!r->is_signed)
        memcpy(r->key, line->key, FL_AUDIT_KEY_BYTES);
    r->is_signed = true;
    return FL_OK;
}

static enum fl_status check_line(struct walk *self, const char *text, size_t length,
                                 struct fl_error *error)
{
    char what[FL_PATH_BYTES + 32], why[80];
    struct fl_audit_line line;
    struct fl_audit_report *r = self->report;
    (void)snprintf(what, sizeof(what), "%s:%llu", self->path, (unsigned long long)r->lines + 1);
    enum fl_status status = fl_audit_parse(text, length, what, &line, error);
    if (status != FL_OK) {
        r->broken = r->lines + 1;
        return status == FL_ENOMEM ? status : (error->status = FL_EFORMAT);
    }
    if (line.seq != r->lines + 1) {
        (void)snprintf(why, sizeof(why), "it is numbered %llu: lines were removed or moved",
                       (unsigned long long)line.seq);
        return broken(self, why, error);
    }
    if (memcmp(line.prev, r->last, FL_HASH_BYTES) != 0)
        return broken(self, "it does not follow from the line before it", error);
    status = check_signature(self, text, &line, error);
    if (status != FL_OK)
        return status;
    fl_sha256(text, length, r->last);
    r->lines++;
    if (!r->is_signed)
        r->unsigned_lines++;
    if (r->lines == 1)
        memcpy(r->first_time, line.time, sizeof(line.time));
    memcpy(r->last_time, line.time, sizeof(line.time));
    if (self->head->exists && self->head->lines == r->lines)
        self->head_fits = memcmp(self->head->last, r->last, FL_HASH_BYTES) == 0;
    return FL_OK;
}

static enum fl_status check_end(struct walk *self, struct fl_error *error)
{
    struct fl_audit_report *r = self->report;
    const struct fl_audit_head *head = self->head;
    char why[128];
    /* the line that names the key is the one that a log without a head may have */
    uint64_t counted = head->exists ? head->lines : r->unsigned_lines;
    if (!r->is_signed && head->exists)
        return broken(self, "no line is signed, and there is a signed head", error);
    if (!r->is_signed)
        return FL_OK;
    if (head->exists && memcmp(head->key, r->key, FL_AUDIT_KEY_BYTES) != 0)
        return broken(self, "the head is signed by another key", error);
    if (!head->exists && r->lines > counted + 1) {
        r->broken = r->lines;
        return fl_fail(error, FL_EFORMAT,
                       "%s:%llu: the head, %s.head, is missing: whether lines behind this one were "
                       "removed cannot be told (a copy needs both files)",
                       self->path, (unsigned long long)r->lines, self->path);
    }
    if (counted > r->lines) {
        (void)snprintf(why, sizeof(why), "it is missing: the head counts %llu lines",
                       (unsigned long long)counted);
        return broken(self, why, error);
    }
    r->ahead = r->lines == counted + 1;
    if ((head->exists && !self->head_fits) || r->lines > counted + 1 || (r->ahead && r->torn)) {
        r->lines = counted; /* the head vouches for no more */
        (void)snprintf(why, sizeof(why), "the head counts %llu lines and others",
                       (unsigned long long)counted);
        return broken(self, why, error);
    }
    return FL_OK;
}

/* Behind all that the head counts, bytes that are no line: what a power cut left of one. */
static bool is_rest_torn(const struct walk *self, const char *rest, size_t length)
{
    struct fl_audit_line line;
    struct fl_error ignored;
    if (self->head->exists && self->head->lines > self->report->lines)
        return false;
    for (size_t at = 0; at < length;) {
        const char *end = memchr(rest + at, '\n', length - at);
        size_t n = end ? (size_t)(end - rest) - at : length - at;
        if (end && fl_audit_parse(rest + at, n, self->path, &line, &ignored) != FL_EFORMAT)
            return false;
        at += n + 1;
    }
    return fl_audit_is_torn(rest, length);
}

static enum fl_status check_all(struct walk *self, const struct fl_mapping *file,
                                struct fl_error *error)
{
    enum fl_status status = FL_OK;
    for (size_t offset = 0; offset < file->length && status == FL_OK;) {
        const char *line = (const char *)file->data + offset;
        const char *end = memchr(line, '\n', file->length - offset);
        self->report->torn = !end || is_rest_torn(self, line, file->length - offset);
        if (self->report->torn)
            break;
        status = check_line(self, line, (size_t)(end - line), error);
        offset += (size_t)(end + 1 - line);
    }
    return status == FL_OK ? check_end(self, error) : status;
}

static bool same_head(const struct fl_audit_head *a, const struct fl_audit_head *b)
{
    return a->exists == b->exists && a->lines == b->lines &&
           memcmp(a->last, b->last, FL_HASH_BYTES) == 0;
}

enum fl_status fl_audit_verify(const char *path, const uint8_t *key, fl_audit_check check,
                               struct fl_audit_report *out, struct fl_error *error)
{
    struct fl_audit_head head = {0}, again;
    struct fl_mapping file = {NULL, 0};
    struct walk walk = {.path = path, .wanted = key, .check = check, .head = &head, .report = out};
    memset(out, 0, sizeof(*out));
    enum fl_status status = fl_audit_head_read(path, check, &again, error);
    for (int i = 0; status == FL_OK && (i == 0 || !same_head(&head, &again)) && i < READINGS; i++) {
        head = again;
        fl_fs_unmap(&file);
        status = fl_fs_map(path, &file, error);
        if (status == FL_ENOTFOUND && head.exists) { /* all of it was removed */
            out->broken = 1;
            error->status = status = FL_EFORMAT;
        }
        if (status == FL_OK)
            status = fl_audit_head_read(path, check, &again, error);
    }
    if (status == FL_OK)
        status = check_all(&walk, &file, error);
    fl_fs_unmap(&file);
    return status;
}
