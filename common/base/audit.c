/*
 * audit.c - see audit.h. Invariant: `length` bytes of the file are whole acknowledged lines; an
 * append that fails is cut off again, and if that or an fsync fails, the log refuses all further
 * appends, since what the disk holds is then unknown.
 */
#include "base/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"

#define FL_AUDIT_MEND_BYTES ((size_t)1 << 30)
#define FL_AUDIT_LINE_BYTES 16384

struct fl_audit {
    int fd;
    bool broken;
    uint64_t length; /* bytes */
    uint64_t next;   /* "seq" of the next line; the first is 1 */
    uint8_t last[FL_HASH_BYTES];
    char path[FL_PATH_BYTES];
};

/* Read "seq" of one line (without its newline). */
static enum fl_status read_seq(const char *line, size_t length, const char *what, uint64_t *seq,
                               char prev[FL_HASH_HEX_BYTES], struct fl_error *error)
{
    json_t *object;
    enum fl_status status = fl_json_parse(line, length, what, &object, error);
    if (status != FL_OK)
        return status;
    json_int_t number = json_integer_value(json_object_get(object, "seq"));
    const char *hash = json_string_value(json_object_get(object, "prev"));
    if (number < 1 || !hash || strlen(hash) != FL_HASH_HEX_BYTES - 1)
        status = fl_fail(error, FL_EFORMAT, "%s: not a line of an audit log", what);
    else
        memcpy(prev, hash, FL_HASH_HEX_BYTES);
    *seq = (uint64_t)number;
    json_decref(object);
    return status;
}

/* Find the last whole line within the last bytes of the file; cut off a torn one behind it. */
static enum fl_status read_tail(struct fl_audit *self, const char *tail, size_t length,
                                struct fl_error *error)
{
    const char *end = memrchr(tail, '\n', length);
    if (!end) {
        if (self->length > length)
            return fl_fail(error, FL_EFORMAT, "%s: the last line is too long", self->path);
        end = tail - 1; /* nothing but a torn first line */
    }
    size_t whole = (size_t)(end + 1 - tail);
    if (whole < length) { /* a crash in mid-write: never acknowledged */
        self->length -= length - whole;
        if (ftruncate(self->fd, (off_t)self->length) != 0)
            return fl_fail_errno(error, errno, "%s", self->path);
    }
    if (whole == 0)
        return FL_OK;
    const char *before = whole > 1 ? memrchr(tail, '\n', whole - 1) : NULL;
    const char *line = before ? before + 1 : tail;
    char prev[FL_HASH_HEX_BYTES];
    enum fl_status status = read_seq(line, (size_t)(end - line), self->path, &self->next, prev,
                                     error);
    if (status != FL_OK)
        return status;
    self->next++;
    fl_sha256(line, (size_t)(end - line), self->last);
    return FL_OK;
}

static enum fl_status resume(struct fl_audit *self, struct fl_error *error)
{
    struct stat info;
    if (fstat(self->fd, &info) != 0 || !S_ISREG(info.st_mode))
        return fl_fail(error, FL_EIO, "%s: not a regular file", self->path);
    self->length = (uint64_t)info.st_size;
    size_t length = self->length < 2 * FL_AUDIT_LINE_BYTES ? (size_t)self->length
                                                           : 2 * FL_AUDIT_LINE_BYTES;
    if (length == 0)
        return FL_OK;
    char *tail = fl_malloc(length);
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

enum fl_status fl_audit_open(const char *path, struct fl_audit **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_audit *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    self->next = 1;
    enum fl_status status = FL_OK;
    bool is_new = !fl_path_exists(path);
    self->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (self->fd < 0)
        status = fl_fail_errno(error, errno, "%s", path);
    else if (strlen(path) >= sizeof(self->path))
        status = fl_fail(error, FL_ERANGE, "path too long");
    if (status != FL_OK)
        goto out;
    memcpy(self->path, path, strlen(path) + 1);
    if (is_new) {
        char parent[FL_PATH_BYTES];
        memcpy(parent, path, strlen(path) + 1);
        size_t length = (size_t)(fl_path_base(path) - path);
        parent[length] = 0;
        status = fl_fs_sync_directory(length ? parent : ".", error);
    } else {
        status = resume(self, error);
    }
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
    fl_buf_printf(line, ",\"prev\":\"%s\"}\n", prev);
}

/*
 * A file whose fsync failed can't be trusted: what it held before is written anew, durably, under
 * its name. Then it goes on; a daemon shall not need a restart because a disk refused once.
 */
static enum fl_status mend(struct fl_audit *self, struct fl_error *error)
{
    struct fl_buf kept;
    enum fl_status status = fl_fs_read(self->path, FL_AUDIT_MEND_BYTES, &kept, error);
    if (status == FL_OK && kept.length < self->length)
        status = fl_fail(error, FL_EFORMAT, "%s: it has become shorter", self->path);
    if (status == FL_OK)
        status = fl_fs_write(self->path, kept.data, self->length, 0600, error);
    fl_buf_free(&kept);
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

enum fl_status fl_audit_append(struct fl_audit *self, int64_t wall_ms, const char *event,
                               const struct fl_field *fields, struct fl_error *error)
{
    if (self->broken && mend(self, error) != FL_OK)
        return error ? error->status : FL_EIO;
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

/* Check one line against the hash of the one before, and put its own into last. */
static enum fl_status verify_line(const char *line, size_t length, const char *what,
                                  uint64_t expected, uint8_t last[FL_HASH_BYTES],
                                  struct fl_error *error)
{
    uint64_t seq;
    char prev[FL_HASH_HEX_BYTES], hash[FL_HASH_HEX_BYTES];
    enum fl_status status = read_seq(line, length, what, &seq, prev, error);
    if (status != FL_OK)
        return status;
    fl_hex(last, FL_HASH_BYTES, hash);
    if (seq != expected)
        return fl_fail(error, FL_EFORMAT, "%s: numbered %llu, not %llu", what,
                       (unsigned long long)seq, (unsigned long long)expected);
    if (strcmp(prev, hash) != 0)
        return fl_fail(error, FL_EFORMAT, "%s: does not follow from the line before it", what);
    fl_sha256(line, length, last);
    return FL_OK;
}

enum fl_status fl_audit_verify(const char *path, uint64_t *lines, struct fl_error *error)
{
    *lines = 0;
    struct fl_mapping file;
    enum fl_status status = fl_fs_map(path, &file, error);
    if (status != FL_OK)
        return status;
    uint8_t last[FL_HASH_BYTES] = {0};
    char what[FL_PATH_BYTES + 32];
    for (size_t offset = 0; offset < file.length;) {
        const char *line = (const char *)file.data + offset;
        const char *end = memchr(line, '\n', file.length - offset);
        snprintf(what, sizeof(what), "%s:%llu", path, (unsigned long long)*lines + 1);
        if (!end)
            status = fl_fail(error, FL_EFORMAT, "%s: the line has no end", what);
        else
            status = verify_line(line, (size_t)(end - line), what, *lines + 1, last, error);
        if (status != FL_OK)
            break;
        (*lines)++;
        offset += (size_t)(end + 1 - line);
    }
    fl_fs_unmap(&file);
    return status;
}
