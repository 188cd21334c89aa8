/*
 * disk_vfs.c - SQLite's files, in memory: what a database wrote and did not sync may be lost as
 * anything else (disk.h). One thread, and no two connections that write: locks are nothing but who
 * is the last to close, and the WAL-index is plain memory.
 */
#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "disk.h"
#include "sim.h"

#define SHARED_MAX 64

struct file {
    sqlite3_file base; /* first: SQLite sees this */
    struct sim_node *node;
    bool shares;
};

static struct sim_node *node_of(sqlite3_file *file)
{
    return ((struct file *)file)->node;
}

/* ---- a file ---- */

static int file_close(sqlite3_file *file)
{
    sim_node_close(node_of(file));
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *out, int amount, sqlite3_int64 offset)
{
    const struct sim_node *node = node_of(file);
    size_t length = (size_t)amount;
    size_t have = (size_t)offset < node->size ? node->size - (size_t)offset : 0;
    have = have < length ? have : length;
    if (have > 0)
        memcpy(out, node->bytes + offset, have);
    memset((uint8_t *)out + have, 0, length - have);
    return have == length ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static void note(struct sim_node *node, uint64_t offset, const void *bytes, size_t length, bool cut)
{
    size_t have = offset < node->size ? node->size - (size_t)offset : 0;
    if (!node->disk)
        return;
    if (have >= length) {
        sim_node_note(node, node->size, offset, node->bytes + offset, bytes, length, cut);
        return;
    }
    uint8_t *was = fl_calloc(1, length);
    if (!was)
        return;
    if (have > 0)
        memcpy(was, node->bytes + offset, have);
    sim_node_note(node, node->size, offset, was, bytes, length, cut);
    fl_free(was);
}

static int file_write(sqlite3_file *file, const void *bytes, int amount, sqlite3_int64 offset)
{
    struct sim_node *node = node_of(file);
    bool grows = (size_t)offset + (size_t)amount > node->size;
    if (node->disk && !sim_disk_may_write(node->disk, grows))
        return errno == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    note(node, (uint64_t)offset, bytes, (size_t)amount, false);
    sim_node_put(node, (uint64_t)offset, bytes, (size_t)amount);
    return SQLITE_OK;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct sim_node *node = node_of(file);
    if (node->disk && !sim_disk_may(node->disk))
        return SQLITE_IOERR_TRUNCATE;
    if ((size_t)size >= node->size)
        return SQLITE_OK;
    note(node, (uint64_t)size, NULL, node->size - (size_t)size, true);
    memset(node->bytes + size, 0, node->size - (size_t)size);
    node->size = (size_t)size;
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *file, int flags)
{
    struct sim_node *node = node_of(file);
    (void)flags;
    return !node->disk || sim_disk_sync(node->disk, node, NULL) ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size)
{
    *size = (sqlite3_int64)node_of(file)->size;
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *file, int level)
{
    return level == SQLITE_LOCK_EXCLUSIVE && node_of(file)->references > 1 ? SQLITE_BUSY
                                                                           : SQLITE_OK;
}

static int file_unlock(sqlite3_file *file, int level)
{
    (void)file, (void)level;
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *file, int *result)
{
    (void)file;
    *result = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int what, void *argument)
{
    (void)file, (void)what, (void)argument;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *file)
{
    (void)file;
    return 4096;
}

/* As the unix VFS says: what a write does not touch stays whole. */
static int file_traits(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int shared_map(sqlite3_file *file, int region, int bytes, int extend, void volatile **out)
{
    struct sim_node *node = node_of(file);
    *out = NULL;
    node->sharers += !((struct file *)file)->shares;
    ((struct file *)file)->shares = true;
    if (region >= SHARED_MAX)
        return SQLITE_IOERR_SHMSIZE;
    if (!node->shared)
        node->shared = fl_calloc(SHARED_MAX, sizeof(*node->shared));
    if (!node->shared)
        return SQLITE_NOMEM;
    if (!node->shared[region] && extend)
        node->shared[region] = fl_calloc(1, (size_t)bytes);
    *out = node->shared[region];
    return !extend || *out ? SQLITE_OK : SQLITE_NOMEM;
}

static int shared_lock(sqlite3_file *file, int offset, int n, int flags)
{
    (void)file, (void)offset, (void)n, (void)flags;
    return SQLITE_OK;
}

static void shared_barrier(sqlite3_file *file)
{
    (void)file;
}

void sim_vfs_forget(struct sim_node *node)
{
    for (int i = 0; node->shared && i < SHARED_MAX; i++)
        fl_free(node->shared[i]);
    fl_free(node->shared);
    node->shared = NULL;
}

static int shared_unmap(sqlite3_file *file, int remove)
{
    struct sim_node *node = node_of(file);
    (void)remove; /* the last connection goes: no one will find it */
    if (((struct file *)file)->shares && --node->sharers == 0)
        sim_vfs_forget(node);
    ((struct file *)file)->shares = false;
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {.iVersion = 2,
                                           .xClose = file_close,
                                           .xRead = file_read,
                                           .xWrite = file_write,
                                           .xTruncate = file_truncate,
                                           .xSync = file_sync,
                                           .xFileSize = file_size,
                                           .xLock = file_lock,
                                           .xUnlock = file_unlock,
                                           .xCheckReservedLock = file_reserved,
                                           .xFileControl = file_control,
                                           .xSectorSize = file_sector,
                                           .xDeviceCharacteristics = file_traits,
                                           .xShmMap = shared_map,
                                           .xShmLock = shared_lock,
                                           .xShmBarrier = shared_barrier,
                                           .xShmUnmap = shared_unmap};

/* ---- the file system ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    struct sim_disk *disk = name ? sim_disk_of(name) : NULL;
    (void)vfs;
    file->pMethods = NULL;
    if (name && !disk)
        return SQLITE_CANTOPEN;
    if (disk && !sim_node_find(disk, name, true)) {
        if (!(flags & SQLITE_OPEN_CREATE) && !fl_path_exists(name))
            return SQLITE_CANTOPEN;
        if (!sim_disk_may_write(disk, true))
            return errno == ENOSPC ? SQLITE_FULL : SQLITE_IOERR;
    }
    ((struct file *)file)->node = sim_node_open(disk, name ? name : "", true);
    ((struct file *)file)->shares = false;
    file->pMethods = &methods;
    if (out)
        *out = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct sim_disk *disk = sim_disk_of(name);
    struct sim_node *node = disk ? sim_node_find(disk, name, true) : NULL;
    (void)vfs, (void)sync;
    if (!node)
        return SQLITE_IOERR_DELETE_NOENT;
    if (node->references > 0 || !sim_disk_may(disk))
        return SQLITE_IOERR_DELETE;
    sim_node_delete(node);
    return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    struct sim_disk *disk = sim_disk_of(name);
    (void)vfs, (void)flags;
    *result = (disk && sim_node_find(disk, name, true)) || fl_path_exists(name);
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    size_t length = strlen(name) + 1;
    (void)vfs;
    if (length > (size_t)bytes)
        return SQLITE_CANTOPEN;
    memcpy(out, name, length);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int bytes, char *out)
{
    (void)vfs;
    memset(out, 7, (size_t)bytes);
    return bytes;
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return microseconds;
}

static int vfs_time(sqlite3_vfs *vfs, sqlite3_int64 *now)
{
    (void)vfs;
    *now = 212650000000000; /* no query asks for it */
    return SQLITE_OK;
}

static int vfs_error(sqlite3_vfs *vfs, int bytes, char *out)
{
    (void)vfs, (void)bytes, (void)out;
    return 0;
}

static sqlite3_vfs table = {.iVersion = 2,
                            .szOsFile = sizeof(struct file),
                            .mxPathname = FL_PATH_BYTES,
                            .zName = "sim",
                            .xOpen = vfs_open,
                            .xDelete = vfs_delete,
                            .xAccess = vfs_access,
                            .xFullPathname = vfs_full_path,
                            .xRandomness = vfs_randomness,
                            .xSleep = vfs_sleep,
                            .xGetLastError = vfs_error,
                            .xCurrentTimeInt64 = vfs_time};

bool sim_vfs_register(void)
{
    return sqlite3_vfs_register(&table, 1) == SQLITE_OK;
}
