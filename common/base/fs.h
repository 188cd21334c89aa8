/*
 * fs.h - files as this project uses them: bounded reads, durable atomic writes, private
 * directories, one lock. Every write and fsync passes a fault-injection seam, so that tests can
 * fail the nth.
 *
 * Durability (Pillai et al., OSDI 2014): temporary file in the same directory, write, fsync,
 * rename, fsync the directory. A failed fsync is final for that file; the temporary is removed and
 * the old file stays.
 * Threads: no shared state but the fault counter (atomic).
 */
#ifndef FL_BASE_FS_H
#define FL_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/status.h"

#define FL_PATH_BYTES 4096

/*
 * Join with '/': FL_ERANGE (with *error filled) if the result does not fit FL_PATH_BYTES.
 * out has FL_PATH_BYTES bytes.
 */
FL_CHECKED enum fl_status fl_path_join(char *out, const char *directory, const char *name,
                                       struct fl_error *error);
/* The part after the last '/'. Borrowed from path. */
const char *fl_path_base(const char *path);
bool fl_path_is_directory(const char *path);
bool fl_path_exists(const char *path);

/*
 * The whole file into *out (initialised here; its maximum is maximum_bytes; free it in any case).
 * Refuses anything that is not a regular file. FL_ERANGE: it is longer than the maximum.
 */
FL_CHECKED enum fl_status fl_fs_read(const char *path, size_t maximum_bytes, struct fl_buf *out,
                                     struct fl_error *error);

/* All of stdin, bounded in the same way. */
FL_CHECKED enum fl_status fl_fs_read_stdin(size_t maximum_bytes, struct fl_buf *out,
                                           struct fl_error *error);

/* A file mapped read-only. length 0 gives data NULL. Release with fl_fs_unmap(). */
struct fl_mapping {
    const uint8_t *data;
    size_t length;
};
FL_CHECKED enum fl_status fl_fs_map(const char *path, struct fl_mapping *out,
                                    struct fl_error *error);
void fl_fs_unmap(struct fl_mapping *self);
/*
 * Bytes of such a mapping won't be read soon: the system may drop them from memory, and reads them
 * from the file again if they are. A hint; never for other memory, which would lose its contents.
 */
void fl_fs_forget(const void *data, size_t bytes);

/* Replace (or make) path durably with these bytes and this mode (0600 for secrets, else 0644). */
FL_CHECKED enum fl_status fl_fs_write(const char *path, const void *bytes, size_t length,
                                      mode_t mode, struct fl_error *error);

/*
 * A file written piece by piece and then committed durably under its name, or dropped. Until
 * commit nothing is visible under path but a temporary "path.tmp.XXXXXX".
 */
struct fl_fs_writer {
    int fd; /* -1 when closed */
    uint64_t offset;
    char path[FL_PATH_BYTES];
    char temporary[FL_PATH_BYTES];
};
FL_CHECKED enum fl_status fl_fs_writer_open(struct fl_fs_writer *self, const char *path,
                                            mode_t mode, struct fl_error *error);
FL_CHECKED enum fl_status fl_fs_writer_write(struct fl_fs_writer *self, const void *bytes,
                                             size_t length, struct fl_error *error);
FL_CHECKED enum fl_status fl_fs_writer_commit(struct fl_fs_writer *self, struct fl_error *error);
/* Drop what was not committed; harmless after a commit. */
void fl_fs_writer_close(struct fl_fs_writer *self);

/* write() until done, at the current offset of fd; passes the fault seam. */
FL_CHECKED enum fl_status fl_fs_write_all(int fd, const void *bytes, size_t length);
/* fsync(fd), past the fault seam. */
FL_CHECKED enum fl_status fl_fs_sync(int fd);
FL_CHECKED enum fl_status fl_fs_sync_directory(const char *path, struct fl_error *error);

/* Make path and its missing parents (mode applies to those that are made). */
FL_CHECKED enum fl_status fl_fs_make_directory(const char *path, mode_t mode,
                                               struct fl_error *error);
/* Remove a file or a whole directory tree (never follows links out of it); absent is FL_OK. */
FL_CHECKED enum fl_status fl_fs_remove(const char *path, struct fl_error *error);
/* rename(from, to), then fsync the directory that holds `to`. */
FL_CHECKED enum fl_status fl_fs_rename(const char *from, const char *to, struct fl_error *error);

/*
 * Put the finished directory `from` durably in the place of `to`, which may be there already: then
 * the two are exchanged in one step (where the file system can) and the old one is removed.
 */
FL_CHECKED enum fl_status fl_fs_replace_directory(const char *from, const char *to,
                                                  struct fl_error *error);

/*
 * Take flock(LOCK_EX | LOCK_NB) on the file, made if absent. FL_EBUSY: another process holds it.
 * *fd is the lock: keep it open for as long as the lock shall be held; close() gives it back.
 */
FL_CHECKED enum fl_status fl_fs_lock(const char *path, int *fd, struct fl_error *error);

/* Refuse the nth (0 = next) write or fsync from now with EIO, once; -1 disarms. Tests only. */
void fl_fs_fail_write_at(long n);
void fl_fs_fail_sync_at(long n);
int fl_fs_fault_fired(void);
/* Also set *shared to 1 at the fault that is armed now (a test runner's shared memory). */
void fl_fs_fault_report(volatile int *shared);

#endif
