/* fs_write.c - the writing half of fs.h: faults, whole and piecewise durable writes, renames. */
#include "base/fs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long write_countdown = -1, sync_countdown = -1;
static atomic_int fired;
static volatile int *report; /* of the fault armed now; tests only, one thread */

static bool refused(atomic_long *countdown)
{
    if (atomic_load_explicit(countdown, memory_order_relaxed) < 0)
        return false;
    if (atomic_fetch_sub(countdown, 1) != 0)
        return false;
    atomic_store(&fired, 1);
    if (report)
        *report = 1;
    errno = EIO;
    return true;
}

void fl_fs_fail_write_at(long n)
{
    report = NULL;
    atomic_store(&fired, 0);
    atomic_store(&write_countdown, n);
}

void fl_fs_fail_sync_at(long n)
{
    report = NULL;
    atomic_store(&fired, 0);
    atomic_store(&sync_countdown, n);
}

int fl_fs_fault_fired(void)
{
    return atomic_load(&fired);
}

void fl_fs_fault_report(volatile int *shared)
{
    report = shared;
}

enum fl_status fl_fs_write_all(int fd, const void *bytes, size_t length)
{
    if (refused(&write_countdown))
        return FL_EIO;
    const uint8_t *next = bytes;
    while (length > 0) {
        ssize_t wrote = write(fd, next, length);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return errno == ENOSPC || errno == EDQUOT ? FL_ENOSPC : FL_EIO;
        next += wrote;
        length -= (size_t)wrote;
    }
    return FL_OK;
}

enum fl_status fl_fs_sync(int fd)
{
    if (refused(&sync_countdown) || fsync(fd) != 0)
        return errno == ENOSPC || errno == EDQUOT ? FL_ENOSPC : FL_EIO;
    return FL_OK;
}

enum fl_status fl_fs_sync_directory(const char *path, struct fl_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    enum fl_status status = fl_fs_sync(fd);
    if (status != FL_OK)
        status = fl_fail_errno(error, errno, "fsync of %s", path);
    close(fd);
    return status;
}

/* fsync the directory that holds path. */
static enum fl_status sync_parent(const char *path, struct fl_error *error)
{
    char parent[FL_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof(parent))
        return fl_fail(error, FL_ERANGE, "path too long");
    memcpy(parent, path, length);
    parent[length] = 0;
    return fl_fs_sync_directory(!slash ? "." : length == 0 ? "/" : parent, error);
}

/* "path.tmp.XXXXXX" with six random letters into self->temporary. */
static enum fl_status name_temporary(struct fl_fs_writer *self)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
    uint8_t noise[6];
    if (getrandom(noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
        return FL_EIO;
    char suffix[sizeof(noise) + 1] = {0};
    for (size_t i = 0; i < sizeof(noise); i++)
        suffix[i] = letters[noise[i] & 31];
    int length = snprintf(self->temporary, sizeof(self->temporary), "%s.tmp.%s", self->path,
                          suffix);
    return length < (int)sizeof(self->temporary) ? FL_OK : FL_ERANGE;
}

enum fl_status fl_fs_writer_open(struct fl_fs_writer *self, const char *path, mode_t mode,
                                 struct fl_error *error)
{
    self->fd = -1;
    self->offset = 0;
    self->temporary[0] = 0;
    if (strlen(path) >= sizeof(self->path))
        return fl_fail(error, FL_ERANGE, "path too long");
    memcpy(self->path, path, strlen(path) + 1);
    for (int attempt = 0; attempt < 64; attempt++) {
        enum fl_status status = name_temporary(self);
        if (status != FL_OK)
            return fl_fail(error, status, "%s: cannot name a temporary file", path);
        self->fd = open(self->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (self->fd >= 0)
            return FL_OK;
        if (errno != EEXIST)
            break;
    }
    self->temporary[0] = 0;
    return fl_fail_errno(error, errno, "cannot write %s", path);
}

enum fl_status fl_fs_writer_write(struct fl_fs_writer *self, const void *bytes, size_t length,
                                  struct fl_error *error)
{
    assert(self->fd >= 0);
    if (fl_fs_write_all(self->fd, bytes, length) != FL_OK)
        return fl_fail_errno(error, errno, "writing %s", self->path);
    self->offset += length;
    return FL_OK;
}

enum fl_status fl_fs_writer_commit(struct fl_fs_writer *self, struct fl_error *error)
{
    assert(self->fd >= 0);
    enum fl_status status = FL_OK;
    if (fl_fs_sync(self->fd) != FL_OK) {
        status = fl_fail_errno(error, errno, "fsync of %s", self->path);
        goto out;
    }
    int fd = self->fd;
    self->fd = -1;
    if (close(fd) != 0) { /* NFS reports a failed write as late as this */
        status = fl_fail_errno(error, errno, "closing %s", self->path);
        goto out;
    }
    if (rename(self->temporary, self->path) != 0) {
        status = fl_fail_errno(error, errno, "renaming to %s", self->path);
        goto out;
    }
    self->temporary[0] = 0;
    status = sync_parent(self->path, error);
out:
    fl_fs_writer_close(self);
    return status;
}

void fl_fs_writer_close(struct fl_fs_writer *self)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    if (self->temporary[0])
        unlink(self->temporary);
    self->temporary[0] = 0;
}

enum fl_status fl_fs_write(const char *path, const void *bytes, size_t length, mode_t mode,
                           struct fl_error *error)
{
    struct fl_fs_writer writer;
    enum fl_status status = fl_fs_writer_open(&writer, path, mode, error);
    if (status == FL_OK)
        status = fl_fs_writer_write(&writer, bytes, length, error);
    if (status == FL_OK)
        status = fl_fs_writer_commit(&writer, error);
    fl_fs_writer_close(&writer);
    return status;
}

enum fl_status fl_fs_rename(const char *from, const char *to, struct fl_error *error)
{
    if (rename(from, to) != 0)
        return fl_fail_errno(error, errno, "renaming %s to %s", from, to);
    return sync_parent(to, error);
}

enum fl_status fl_fs_replace_directory(const char *from, const char *to, struct fl_error *error)
{
    if (!fl_path_exists(to))
        return fl_fs_rename(from, to, error);
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) != 0) {
        /* a file system that cannot exchange: there is a moment without either name */
        enum fl_status status = fl_fs_remove(to, error);
        return status == FL_OK ? fl_fs_rename(from, to, error) : status;
    }
    enum fl_status status = sync_parent(to, error);
    return status == FL_OK ? fl_fs_remove(from, error) : status;
}

/* mkdir one directory. FL_EEXIST: it is there. */
static enum fl_status make_one(const char *path, mode_t mode, struct fl_error *error)
{
    if (mkdir(path, mode) == 0)
        return sync_parent(path, error);
    if (errno == EEXIST && fl_path_is_directory(path))
        return FL_EEXIST;
    return fl_fail_errno(error, errno, "cannot make directory %s", path);
}

/*
 * The deepest of the directories that were there may be one that we made ourselves, and died, or
 * failed, before its parent was fsynced; those above it were durable before it was made. A parent
 * that we may not even read is not one that we made anything in.
 */
static enum fl_status settle_found(const char *path, struct fl_error *error)
{
    char parent[FL_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    memcpy(parent, slash ? path : ".", slash ? length : 1);
    parent[slash ? length : 1] = 0;
    if (access(length || !slash ? parent : "/", R_OK) != 0)
        return FL_OK;
    return sync_parent(path, error);
}

enum fl_status fl_fs_make_directory(const char *path, mode_t mode, struct fl_error *error)
{
    char part[FL_PATH_BYTES], found[FL_PATH_BYTES] = "";
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || length >= sizeof(part))
        return fl_fail(error, FL_ERANGE, "path empty or too long");
    memcpy(part, path, length);
    part[length] = 0;
    for (size_t i = 1; i <= length; i++) {
        if (i < length && part[i] != '/')
            continue;
        part[i] = 0;
        enum fl_status status = FL_OK;
        bool there = fl_path_is_directory(part);
        if (there)
            memcpy(found, part, i + 1);
        if (found[0] && (!there || i == length)) {
            status = settle_found(found, error);
            found[0] = 0;
        }
        if (status == FL_OK && !there)
            status = make_one(part, mode, error);
        if (i < length)
            part[i] = '/';
        if (status != FL_OK && status != FL_EEXIST)
            return status;
    }
    return FL_OK;
}
