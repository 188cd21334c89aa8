/*
 * audit.c - see audit.h. Invariant: `length` bytes of the file are whole acknowledged lines; an
 * append that fails is cut off again, and if that or an fsync fails, the file is written anew
 * before the next line, since what the disk holds is then unknown. The head counts next - 1 lines,
 * or one less; it never counts a line that the log does not hold durably.
 */
#include "base/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/audit_internal.h"
#include "base/escape.h"
#include "base/fs.h"

#define FL_AUDIT_MEND_BYTES 65536 /* copied at a time */

struct fl_audit {
    int fd;
    bool broken;
    bool begun;      /* the log names our key */
    uint64_t length; /* bytes */
    uint64_t next;   /* "seq" of the next line; the first is 1 */
    uint64_t headed; /* lines that the head on disk counts */
    uint8_t last[FL_HASH_BYTES];
    struct fl_audit_signer signer;
    char path[FL_PATH_BYTES];
};

/* ---- opening ---- */

static enum fl_status tampered(const struct fl_audit *self, const char *why, struct fl_error *error)
{
    return fl_fail(error, FL_EFORMAT,
                   "%s: %s; `audit verify` tells more. Nothing is added to such a log: to begin a "
                   "new one, move it and its .head away",
                   self->path, why);
}

/* Hold the log's last line against the head. line: NULL when there is none. */
static enum fl_status judge_end(struct fl_audit *self, const char *text,
                                const struct fl_audit_line *line, const struct fl_audit_head *head,
                                struct fl_error *error)
{
    const struct fl_audit_signer *signer = &self->signer;
    uint64_t lines = line ? line->seq : 0;
    if (line && line->is_signed &&
        !signer->check(signer->key, FL_AUDIT_LINE_LABEL, text, line->signed_bytes, line->signature))
        return tampered(self, "its last line is not signed by this key", error);
    if (!head->exists && line && line->is_signed && !line->names_key)
        return tampered(self, "its head is missing", error);
    if (!head->exists)
        return FL_OK;
    if (!line || !line->is_signed)
        return tampered(self, "it is not the log that its head was written for", error);
    bool same = head->lines == lines && memcmp(head->last, self->last, FL_HASH_BYTES) == 0;
    bool ahead = head->lines + 1 == lines && memcmp(head->last, line->prev, FL_HASH_BYTES) == 0;
    return same || ahead ? FL_OK : tampered(self, "it does not end where its head says", error);
}

static enum fl_status take_end(struct fl_audit *self, const char *text, size_t length,
                               struct fl_error *error)
{
    struct fl_audit_line line;
    struct fl_audit_head head;
    enum fl_status status = fl_audit_head_read(self->path, self->signer.check, &head, error);
    if (status != FL_OK)
        return status;
    if (head.exists && memcmp(head.key, self->signer.key, FL_AUDIT_KEY_BYTES) != 0)
        return fl_fail(error, FL_EREFUSED,
                       "%s: signed by another key; to begin a new log, move it and its .head away",
                       self->path);
    if (text) {
        status = fl_audit_parse(text, length, self->path, &line, error);
        if (status != FL_OK)
            return status;
        self->next = line.seq + 1;
        self->begun = line.is_signed;
        fl_sha256(text, length, self->last);
    }
    self->headed = head.lines;
    return judge_end(self, text, text ? &line : NULL, &head, error);
}

/*
 * Find the last line within the last bytes of the file; *line: NULL, none. (*whole) bytes stand
 * before what a power cut left of one that was being written, and was never acknowledged.
 */
static enum fl_status find_line(const struct fl_audit *self, const char *tail, size_t length,
                                size_t *whole, const char **line, struct fl_error *error)
{
    struct fl_audit_line parsed;
    enum fl_status status = FL_OK;
    *line = NULL;
    for (*whole = length; *whole > 0 && !*line;) {
        const char *end = memrchr(tail, '\n', *whole);
        const char *before = end && end > tail ? memrchr(tail, '\n', (size_t)(end - tail)) : NULL;
        const char *begin = before ? before + 1 : tail;
        if (end)
            status = fl_audit_parse(begin, (size_t)(end - begin), self->path, &parsed, error);
        if (end && status == FL_OK)
            *line = begin;
        else if (end && status != FL_EFORMAT)
            return status;
        *whole = *line ? (size_t)(end + 1 - tail) : (size_t)(begin - tail);
    }
    if (!fl_audit_is_torn(tail + *whole, length - *whole))
        return tampered(self, "its last line is none", error);
    if (!*line && self->length > length)
        return fl_fail(error, FL_EFORMAT, "%s: the last line is too long", self->path);
    return FL_OK;
}

static enum fl_status read_tail(struct fl_audit *self, const char *tail, size_t length,
                                struct fl_error *error)
{
    const char *line;
    size_t whole;
    enum fl_status status = find_line(self, tail, length, &whole, &line, error);
    if (status == FL_OK)
        status = take_end(self, line, line ? (size_t)(tail + whole - 1 - line) : 0, error);
    if (status == FL_OK && whole < length) {
        self->length -= length - whole;
        if (ftruncate(self->fd, (off_t)self->length) != 0)
            return fl_fail_errno(error, errno, "%s", self->path);
    }
    return status;
}

static enum fl_status resume(struct fl_audit *self, struct fl_error *error)
{
    struct stat info;
    if (fstat(self->fd, &info) != 0 || !S_ISREG(info.st_mode))
        return fl_fail(error, FL_EIO, "%s: not a regular file", self->path);
    self->length = (uint64_t)info.st_size;
    size_t length = self->length < 2 * FL_AUDIT_LINE_BYTES ? (size_t)self->length
                                                           : 2 * FL_AUDIT_LINE_BYTES;
    char *tail = fl_malloc(length + 1);
    if (!tail)
        return fl_fail_memory(error);
    ssize_t got = pread(self->fd, tail, length, (off_t)(self->length - length));
    enum fl_status status;
    if (got != (ssize_t)length)
        status = fl_fail(error, FL_EIO, "%s: cannot read the last line", self->path);
    else
        status = read_tail(self, tail, length, error);
    fl_free(tail);
    return status;
}

enum fl_status fl_audit_open(const char *path, const struct fl_audit_signer *signer,
                             struct fl_audit **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_audit *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    self->next = 1;
    self->signer = *signer;
    enum fl_status status = FL_OK;
    self->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (self->fd < 0)
        status = fl_fail_errno(error, errno, "%s", path);
    else if (strlen(path) >= sizeof(self->path))
        status = fl_fail(error, FL_ERANGE, "path too long");
    if (status != FL_OK)
        goto out;
    memcpy(self->path, path, strlen(path) + 1);
    /* the names of the log and its head: whoever made them may have failed behind that */
    char parent[FL_PATH_BYTES];
    size_t length = (size_t)(fl_path_base(path) - path);
    memcpy(parent, path, length);
    parent[length] = 0;
    status = fl_fs_sync_directory(length ? parent : ".", error);
    if (status == FL_OK)
        status = resume(self, error);
    /* a line that no head counts may be one whose fsync failed: the file is written anew */
    self->broken = self->headed != self->next - 1;
out:
    if (status == FL_OK)
        *out = self;
    else
        fl_audit_close(&self);
    return status;
}

void fl_audit_close(struct fl_audit **self)
{
    if (!*self)
        return;
    if ((*self)->fd >= 0)
        close((*self)->fd);
    fl_free(*self);
    *self = NULL;
}

/* ---- a line ---- */

static void append_text(struct fl_buf *out, const char *text)
{
    char piece[FL_ESCAPE_BYTES];
    size_t length = strlen(text);
    fl_buf_append(out, "\"", 1);
    for (size_t i = 0; i < length;) {
        i += fl_escape(text + i, length - i, piece);
        fl_buf_append(out, piece, strlen(piece));
    }
    fl_buf_append(out, "\"", 1);
}

static void append_field(struct fl_buf *out, const struct fl_field *field)
{
    fl_buf_printf(out, ",\"%s\":", field->key);
    if (field->kind == FL_FIELD_STRING && field->value.string)
        append_text(out, field->value.string);
    else if (field->kind == FL_FIELD_I64)
        fl_buf_printf(out, "%lld", (long long)field->value.i64);
    else if (field->kind == FL_FIELD_U64)
        fl_buf_printf(out, "%llu", (unsigned long long)field->value.u64);
    else if (field->kind == FL_FIELD_DOUBLE && isfinite(field->value.number))
        fl_buf_printf(out, "%.9g", field->value.number);
    else
        fl_buf_printf(out, "null");
}

static void build_line(const struct fl_audit *self, int64_t wall_ms, const char *event,
                       const struct fl_field *fields, struct fl_buf *line)
{
    char stamp[FL_TIME_TEXT_BYTES], prev[FL_HASH_HEX_BYTES];
    fl_time_text(wall_ms, stamp);
    fl_hex(self->last, FL_HASH_BYTES, prev);
    fl_buf_printf(line, "{\"seq\":%llu,\"ts\":\"%s\",\"event\":", (unsigned long long)self->next,
                  stamp);
    append_text(line, event);
    for (; fields && fields->kind != FL_FIELD_END; fields++)
        append_field(line, fields);
    fl_buf_printf(line, ",\"prev\":\"%s\"", prev);
    fl_audit_sign(line, FL_AUDIT_LINE_LABEL, &self->signer);
}

/* The first bytes of a file into a writer. */
static enum fl_status copy(int fd, const char *path, uint64_t bytes, struct fl_fs_writer *writer,
                           struct fl_error *error)
{
    uint8_t *piece = fl_malloc(FL_AUDIT_MEND_BYTES);
    enum fl_status status = piece ? FL_OK : fl_fail_memory(error);
    for (uint64_t at = 0; status == FL_OK && at < bytes;) {
        uint64_t left = bytes - at;
        size_t want = left < FL_AUDIT_MEND_BYTES ? (size_t)left : FL_AUDIT_MEND_BYTES;
        ssize_t got = pread(fd, piece, want, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            status = fl_fail(error, FL_EIO, "%s: it has become shorter", path);
        else
            status = fl_fs_writer_write(writer, piece, (size_t)got, error);
        at += got > 0 ? (uint64_t)got : 0;
    }
    fl_free(piece);
    return status;
}

/*
 * A file whose fsync failed can't be trusted: what it held before is written anew, durably, under
 * its name. Then it goes on; a daemon shall not need a restart because a disk refused once.
 */
static enum fl_status mend(struct fl_audit *self, struct fl_error *error)
{
    struct fl_fs_writer writer;
    enum fl_status status = fl_fs_writer_open(&writer, self->path, 0600, error);
    if (status == FL_OK)
        status = copy(self->fd, self->path, self->length, &writer, error);
    if (status == FL_OK)
        status = fl_fs_writer_commit(&writer, error);
    fl_fs_writer_close(&writer);
    if (status != FL_OK)
        return status;
    int fd = open(self->path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", self->path);
    (void)close(self->fd);
    self->fd = fd;
    self->broken = false;
    return FL_OK;
}

static enum fl_status add_line(struct fl_audit *self, int64_t wall_ms, const char *event,
                               const struct fl_field *fields, struct fl_error *error)
{
    struct fl_buf line;
    fl_buf_init(&line, FL_AUDIT_LINE_BYTES);
    build_line(self, wall_ms, event, fields, &line);
    enum fl_status status = fl_buf_status(&line);
    if (status != FL_OK) {
        status = fl_fail(error, status, "%s: line too long or out of memory", self->path);
        goto out;
    }
    status = fl_fs_write_all(self->fd, line.data, line.length);
    if (status != FL_OK) {
        int reason = errno;
        self->broken = ftruncate(self->fd, (off_t)self->length) != 0;
        fl_fail_errno(error, reason, "writing %s", self->path);
        goto out;
    }
    status = fl_fs_sync(self->fd);
    if (status != FL_OK) {
        self->broken = true;
        fl_fail_errno(error, errno, "fsync of %s", self->path);
        goto out;
    }
    fl_sha256(line.data, line.length - 1, self->last);
    self->length += line.length;
    self->next++;
out:
    fl_buf_free(&line);
    return status;
}

/* Let the head count every line. Until it does, no line is added. */
static enum fl_status catch_up(struct fl_audit *self, struct fl_error *error)
{
    if (!self->begun || self->headed == self->next - 1)
        return FL_OK;
    enum fl_status status = fl_audit_head_write(self->path, self->next - 1, self->last,
                                                &self->signer, error);
    if (status == FL_OK)
        self->headed = self->next - 1;
    return status;
}

static enum fl_status name_key(struct fl_audit *self, int64_t wall_ms, struct fl_error *error)
{
    char key[2 * FL_AUDIT_KEY_BYTES + 1];
    fl_hex(self->signer.key, FL_AUDIT_KEY_BYTES, key);
    const struct fl_field fields[] = {FL_STR("key", key), {.kind = FL_FIELD_END}};
    enum fl_status status = add_line(self, wall_ms, FL_AUDIT_KEY_EVENT, fields, error);
    self->begun = status == FL_OK;
    return status;
}

enum fl_status fl_audit_append(struct fl_audit *self, int64_t wall_ms, const char *event,
                               const struct fl_field *fields, struct fl_error *error)
{
    struct fl_error late;
    enum fl_status status = self->broken ? mend(self, error) : FL_OK;
    if (status == FL_OK && !self->begun)
        status = name_key(self, wall_ms, error);
    if (status == FL_OK)
        status = catch_up(self, error);
    if (status == FL_OK)
        status = add_line(self, wall_ms, event, fields, error);
    if (status == FL_OK && catch_up(self, &late) != FL_OK)
        fl_log(FL_LOG_WARN, "audit_head_late", late.text);
    return status;
}
