/*
 * disk_calls.c - the C library's calls that change files, as the programs see them here: the linker
 * puts these in front of the real ones (--wrap).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "disk.h"
#include "sim.h"

#define SLOTS 8192

int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_write(int fd, const void *bytes, size_t length);
int __real_fsync(int fd);
int __real_ftruncate(int fd, off_t length);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags);
int __real_unlink(const char *path);
int __real_unlinkat(int at, const char *path, int flags);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
ssize_t __wrap_write(int fd, const void *bytes, size_t length);
int __wrap_fsync(int fd);
int __wrap_ftruncate(int fd, off_t length);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int at, const char *path, int flags);
int __wrap_mkdir(const char *path, mode_t mode);

static struct slot { /* an open descriptor of a simulated process */
    struct sim_disk *disk;
    struct sim_node *node; /* NULL: a directory */
    char *directory;       /* without '/' at its end */
    bool appends;
} slots[SLOTS];

static struct slot *slot_of(int fd)
{
    return fd >= 0 && fd < SLOTS && slots[fd].disk ? &slots[fd] : NULL;
}

static bool exists(const char *path, bool *is_directory)
{
    struct stat info;
    if (lstat(path, &info) != 0)
        return false;
    *is_directory = S_ISDIR(info.st_mode);
    return true;
}

/* ---- descriptors ---- */

static void remember(int fd, struct sim_disk *disk, const char *path, int flags)
{
    if (fd < 0 || fd >= SLOTS)
        return;
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (!writes && !(flags & O_DIRECTORY))
        return;
    slots[fd] = (struct slot){.disk = disk, .appends = flags & O_APPEND};
    if (writes) {
        slots[fd].node = sim_node_open(disk, path, false);
        return;
    }
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    slots[fd].directory = fl_calloc(1, length + 1);
    assert(slots[fd].directory);
    memcpy(slots[fd].directory, path, length);
}

int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    bool is_directory;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    struct sim_disk *disk = sim_disk_of(path);
    if (!disk)
        return __real_open(path, flags, mode);
    bool creates = (flags & O_CREAT) && !exists(path, &is_directory);
    if (creates && !sim_disk_may_write(disk, true))
        return -1;
    int fd = __real_open(path, flags, mode);
    if (fd >= 0 && creates)
        sim_disk_named(disk, SIM_NAME_CREATED, path, NULL, NULL);
    remember(fd, disk, path, flags);
    return fd;
}

int __wrap_close(int fd)
{
    struct slot *slot = slot_of(fd);
    if (slot) {
        if (slot->node)
            sim_node_close(slot->node);
        fl_free(slot->directory);
        *slot = (struct slot){0};
    }
    return __real_close(fd);
}

/* What stands at that place; zeros beyond the end. NULL: no memory. */
static uint8_t *present(const struct sim_node *node, uint64_t size, uint64_t offset, size_t length)
{
    uint8_t *was = fl_calloc(1, length ? length : 1);
    int fd = offset < size ? __real_open(node->path, O_RDONLY | O_CLOEXEC) : -1;
    assert(was);
    if (fd >= 0) {
        if (pread(fd, was, length, (off_t)offset) < 0)
            memset(was, 0, length);
        (void)__real_close(fd);
    }
    return was;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    struct slot *slot = slot_of(fd);
    struct stat info;
    if (!slot || !slot->node)
        return __real_write(fd, bytes, length);
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0 || fstat(fd, &info) != 0)
        return -1;
    uint64_t size = (uint64_t)info.st_size, offset = slot->appends ? size : (uint64_t)at;
    bool grows = offset + length > size;
    if (!sim_disk_may_write(slot->disk, grows)) {
        if (errno != ENOSPC || length < 2)
            return -1;
        if ((length ^ size) & 1) /* at times a part of it still finds room */
            return -1;
        length /= 2;
    }
    uint8_t *was = present(slot->node, size, offset, length);
    sim_node_note(slot->node, size, offset, was, bytes, length, false);
    fl_free(was);
    return __real_write(fd, bytes, length);
}

int __wrap_fsync(int fd)
{
    struct slot *slot = slot_of(fd);
    if (!slot)
        return __real_fsync(fd);
    return sim_disk_sync(slot->disk, slot->node, slot->directory) ? 0 : -1;
}

int __wrap_ftruncate(int fd, off_t length)
{
    struct slot *slot = slot_of(fd);
    struct stat info;
    if (!slot || !slot->node)
        return __real_ftruncate(fd, length);
    if (fstat(fd, &info) != 0 || !sim_disk_may(slot->disk))
        return -1;
    uint64_t size = (uint64_t)info.st_size, left = (uint64_t)length;
    if (left < size) {
        uint8_t *was = present(slot->node, size, left, (size_t)(size - left));
        sim_node_note(slot->node, size, left, was, NULL, (size_t)(size - left), true);
        fl_free(was);
    }
    return __real_ftruncate(fd, length);
}

/* ---- names ---- */

int __wrap_rename(const char *from, const char *to)
{
    struct sim_disk *disk = sim_disk_of(to);
    char grave[FL_PATH_BYTES];
    bool is_directory = false, replaces = disk && exists(to, &is_directory) && !is_directory;
    if (!disk)
        return __real_rename(from, to);
    if (!sim_disk_may(disk))
        return -1;
    sim_disk_grave(grave);
    if (replaces && __real_rename(to, grave) != 0)
        return -1;
    if (__real_rename(from, to) != 0) {
        int reason = errno;
        if (replaces)
            (void)!__real_rename(grave, to);
        errno = reason;
        return -1;
    }
    if (replaces)
        sim_disk_move(disk, to, grave);
    sim_disk_move(disk, from, to);
    sim_disk_named(disk, SIM_NAME_RENAMED, to, from, replaces ? grave : NULL);
    return 0;
}

int __wrap_renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    struct sim_disk *disk = sim_disk_of(to);
    char aside[FL_PATH_BYTES];
    if (!disk || flags != RENAME_EXCHANGE)
        return __real_renameat2(from_at, from, to_at, to, flags);
    if (!sim_disk_may(disk))
        return -1;
    if (__real_renameat2(from_at, from, to_at, to, flags) != 0)
        return -1;
    sim_disk_grave(aside);
    sim_disk_move(disk, to, aside);
    sim_disk_move(disk, from, to);
    sim_disk_move(disk, aside, from);
    sim_disk_named(disk, SIM_NAME_EXCHANGED, to, from, NULL);
    return 0;
}

static int bury(struct sim_disk *disk, const char *path)
{
    char grave[FL_PATH_BYTES];
    bool is_directory;
    if (!exists(path, &is_directory)) {
        errno = ENOENT;
        return -1;
    }
    if (!sim_disk_may(disk))
        return -1;
    sim_disk_grave(grave);
    if (__real_rename(path, grave) != 0)
        return -1;
    sim_disk_move(disk, path, grave);
    sim_disk_named(disk, SIM_NAME_REMOVED, path, NULL, grave);
    return 0;
}

int __wrap_unlink(const char *path)
{
    struct sim_disk *disk = sim_disk_of(path);
    return disk ? bury(disk, path) : __real_unlink(path);
}

static bool full_path(int at, const char *path, char *out)
{
    char link[64], directory[FL_PATH_BYTES / 2];
    if (at == AT_FDCWD || path[0] == '/')
        return snprintf(out, FL_PATH_BYTES, "%s", path) < FL_PATH_BYTES;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, directory, sizeof(directory) - 1);
    if (length < 0)
        return false;
    directory[length] = '\0';
    return snprintf(out, FL_PATH_BYTES, "%s/%s", directory, path) < FL_PATH_BYTES;
}

int __wrap_unlinkat(int at, const char *path, int flags)
{
    char full[FL_PATH_BYTES];
    struct sim_disk *disk = full_path(at, path, full) ? sim_disk_of(full) : NULL;
    if (!disk)
        return __real_unlinkat(at, path, flags);
    if (!(flags & AT_REMOVEDIR))
        return bury(disk, full);
    if (!sim_disk_may(disk) || __real_unlinkat(at, path, flags) != 0)
        return -1;
    sim_disk_named(disk, SIM_NAME_DIRECTORY_REMOVED, full, NULL, NULL);
    return 0;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    struct sim_disk *disk = sim_disk_of(path);
    bool is_directory;
    if (!disk || exists(path, &is_directory))
        return __real_mkdir(path, mode);
    if (!sim_disk_may_write(disk, true) || __real_mkdir(path, mode) != 0)
        return -1;
    sim_disk_named(disk, SIM_NAME_DIRECTORY_MADE, path, NULL, NULL);
    return 0;
}
