/* fs.c - the reading half of fs.h: paths, bounded reads, mappings, removal, the lock. */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FL_FS_PIECE_BYTES  32768
#define FL_FS_REMOVE_DEPTH 64 /* our own trees are 4 deep; also the bound of open descriptors */

enum fl_status fl_path_join(char *out, const char *directory, const char *name,
                            struct fl_error *error)
{
    size_t length = strlen(directory);
    const char *between = length == 0 || directory[length - 1] == '/' ? "" : "/";
    int needed = snprintf(out, FL_PATH_BYTES, "%s%s%s", directory, between, name);
    if (needed < 0 || needed >= FL_PATH_BYTES)
        return fl_fail(error, FL_ERANGE, "path too long: %.200s", name);
    return FL_OK;
}

const char *fl_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool fl_path_is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool fl_path_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Open a regular file for reading; its size into *bytes. Never blocks on a FIFO. */
static enum fl_status open_regular(const char *path, int *fd, uint64_t *bytes,
                                   struct fl_error *error)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *bytes = (uint64_t)info.st_size;
        return FL_OK;
    }
    close(*fd);
    *fd = -1;
    return fl_fail(error, FL_EIO, "%s: not a regular file", path);
}

/* Read fd to its end into out. what names it in messages. */
static enum fl_status read_to_end(int fd, const char *what, struct fl_buf *out,
                                  struct fl_error *error)
{
    uint8_t piece[FL_FS_PIECE_BYTES];
    for (;;) {
        ssize_t got = read(fd, piece, sizeof(piece));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fl_fail_errno(error, errno, "reading %s", what);
        if (got == 0)
            return FL_OK;
        fl_buf_append(out, piece, (size_t)got);
        enum fl_status status = fl_buf_status(out);
        if (status == FL_ERANGE)
            return fl_fail(error, status, "%s: larger than %zu bytes", what, out->maximum);
        if (status != FL_OK)
            return fl_fail_memory(error);
    }
}

enum fl_status fl_fs_read(const char *path, size_t maximum_bytes, struct fl_buf *out,
                          struct fl_error *error)
{
    fl_buf_init(out, maximum_bytes);
    int fd;
    uint64_t bytes;
    enum fl_status status = open_regular(path, &fd, &bytes, error);
    if (status != FL_OK)
        return status;
    if (bytes > maximum_bytes)
        status = fl_fail(error, FL_ERANGE, "%s: larger than %zu bytes", path, maximum_bytes);
    else
        status = read_to_end(fd, path, out, error);
    close(fd);
    return status;
}

enum fl_status fl_fs_read_stdin(size_t maximum_bytes, struct fl_buf *out, struct fl_error *error)
{
    fl_buf_init(out, maximum_bytes);
    return read_to_end(STDIN_FILENO, "standard input", out, error);
}

enum fl_status fl_fs_map(const char *path, struct fl_mapping *out, struct fl_error *error)
{
    *out = (struct fl_mapping){NULL, 0};
    int fd;
    uint64_t bytes;
    enum fl_status status = open_regular(path, &fd, &bytes, error);
    if (status != FL_OK)
        return status;
    if (bytes > 0) {
        void *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = fl_fail_errno(error, errno, "mapping %s", path);
        else
            *out = (struct fl_mapping){data, bytes};
    }
    close(fd);
    return status;
}

void fl_fs_unmap(struct fl_mapping *self)
{
    if (self->data)
        munmap((void *)(uintptr_t)self->data, self->length);
    *self = (struct fl_mapping){NULL, 0};
}

void fl_fs_forget(const void *data, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + bytes) / page * page; /* whole pages alone */
    if (first < end)
        (void)madvise((void *)first, end - first, MADV_DONTNEED);
}

static int remove_at(int directory, const char *name, int depth);

/* Empty the directory that fd refers to; takes fd over. 0, or -1 with errno. */
static int remove_children(int fd, int depth)
{
    DIR *stream = fdopendir(fd);
    if (!stream) {
        close(fd);
        return -1;
    }
    int result = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry) {
            result = errno ? -1 : result;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        result = remove_at(dirfd(stream), entry->d_name, depth + 1);
        if (result != 0)
            break;
    }
    int reason = errno;
    closedir(stream);
    errno = reason;
    return result;
}

/* Remove one name, whatever it is; links are removed, never followed. 0, or -1 with errno. */
static int remove_at(int directory, const char *name, int depth)
{
    struct stat info;
    if (fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : -1;
    if (!S_ISDIR(info.st_mode))
        return unlinkat(directory, name, 0) == 0 || errno == ENOENT ? 0 : -1;
    if (depth >= FL_FS_REMOVE_DEPTH) {
        errno = ELOOP;
        return -1;
    }
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || remove_children(fd, depth) != 0)
        return -1;
    return unlinkat(directory, name, AT_REMOVEDIR);
}

enum fl_status fl_fs_remove(const char *path, struct fl_error *error)
{
    if (remove_at(AT_FDCWD, path, 0) != 0)
        return fl_fail_errno(error, errno, "removing %s", path);
    return FL_OK;
}

enum fl_status fl_fs_lock(const char *path, int *fd, struct fl_error *error)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return FL_OK;
    int reason = errno;
    close(*fd);
    *fd = -1;
    if (reason == EWOULDBLOCK)
        return fl_fail(error, FL_EBUSY, "%s: held by another process", path);
    return fl_fail_errno(error, reason, "locking %s", path);
}
