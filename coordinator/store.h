/*
 * store.h - the seam of every durable byte of the coordinator: one SQLite database (DIR/state.db)
 * and the files beside it (versions, start adapters, spool).
 *
 * SQLite: WAL, synchronous = FULL, foreign keys, STRICT tables, trusted_schema off, secure_delete
 * on, quick_check at opening, the schema's number in user_version, one connection. The directory is
 * locked by the caller (DIR/lock) before it is opened.
 * Queries are constants; their parameters are given by a format, one letter each:
 * 'i' int64_t, 'd' double, 's' const char * (NULL is null), 'b' const void * and size_t (NULL is
 * null).
 * A simulator plays a crash with fl_store_crash_at(): from the nth durable step on everything is
 * refused, as if the process had died there.
 * Threads: the database belongs to one thread; the file functions may be called from any.
 */
#ifndef FL_COORDINATOR_STORE_H
#define FL_COORDINATOR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/status.h"

#define FL_STORE_SCHEMA 2

struct fl_store;
struct fl_row; /* one row of a result, valid during the callback */

/* A failure stops the walk and is returned by fl_store_select(). */
typedef enum fl_status (*fl_row_function)(void *context, const struct fl_row *row);

/* Make the database in an existing directory. FL_EEXIST: there is one. */
FL_CHECKED enum fl_status fl_store_create(const char *directory, struct fl_error *error);
/* Open it. FL_ENOTFOUND: the directory holds none; FL_EFORMAT: damaged, or of another schema. */
FL_CHECKED enum fl_status fl_store_open(const char *directory, struct fl_store **out,
                                        struct fl_error *error);
/*
 * Is all that it shows on the disk? On a full disk the log of a process that died may not be, until
 * there is space to bring it into the database; this tries again. FL_ENOSPC: not yet; until then
 * nothing can be written either, and a daemon must not act on what it reads.
 */
FL_CHECKED enum fl_status fl_store_settle(struct fl_store *self, struct fl_error *error);
void fl_store_close(struct fl_store **self);
/* Absolute, without a '/' at the end. */
const char *fl_store_directory(const struct fl_store *self);

/*
 * For a copy while another process writes. Opened beside it, the database and its log are left as
 * they are. From fl_store_pin() on this connection only reads, and sees the database as it is now,
 * until it is closed. fl_store_copy() makes a database at path (0600) of what it sees. FL_EEXIST:
 * there is a file.
 */
FL_CHECKED enum fl_status fl_store_open_beside(const char *directory, struct fl_store **out,
                                               struct fl_error *error);
FL_CHECKED enum fl_status fl_store_pin(struct fl_store *self, struct fl_error *error);
FL_CHECKED enum fl_status fl_store_copy(struct fl_store *self, const char *path,
                                        struct fl_error *error);

/* Transactions nest: only the outermost commit is one. A rollback inside spoils the outer one. */
FL_CHECKED enum fl_status fl_store_begin(struct fl_store *self, struct fl_error *error);
FL_CHECKED enum fl_status fl_store_commit(struct fl_store *self, struct fl_error *error);
void fl_store_rollback(struct fl_store *self);

/* Run a statement that gives no rows. FL_EEXIST: a uniqueness rule was broken. */
FL_CHECKED enum fl_status fl_store_run(struct fl_store *self, struct fl_error *error,
                                       const char *sql, const char *format, ...);
/* Call row for each row of a result. *rows (may be NULL) is their number. */
FL_CHECKED enum fl_status fl_store_select(struct fl_store *self, struct fl_error *error,
                                          fl_row_function row, void *context, uint64_t *rows,
                                          const char *sql, const char *format, ...);
/* The id that the last INSERT gave, and how many rows the last statement changed. */
int64_t fl_store_last_id(const struct fl_store *self);
int64_t fl_store_changes(const struct fl_store *self);
/* Rows changed since it was opened: where this is what it was, so is all that the database holds.
 */
int64_t fl_store_total_changes(const struct fl_store *self);

int64_t fl_row_i64(const struct fl_row *row, int column);
/* NaN for null */
double fl_row_double(const struct fl_row *row, int column);
bool fl_row_is_null(const struct fl_row *row, int column);
/* "" for null; borrowed */
const char *fl_row_text(const struct fl_row *row, int column);
/* A copy of a text, cut to bytes - 1. */
void fl_row_copy_text(const struct fl_row *row, int column, char *out, size_t bytes);
/* FL_EFORMAT when the blob is not exactly that long. */
FL_CHECKED enum fl_status fl_row_copy_blob(const struct fl_row *row, int column, void *out,
                                           size_t length);
/* Borrowed; NULL with *length 0 for null. */
const void *fl_row_blob(const struct fl_row *row, int column, size_t *length);

/* ---- files; names are relative to the directory ---- */

/* DIR/name, formatted; out has FL_PATH_BYTES bytes. */
FL_CHECKED enum fl_status fl_store_path(const struct fl_store *self, char *out,
                                        struct fl_error *error, const char *format, ...)
    FL_PRINTF(4, 5);
/* Write durably, making the parent directories (0700). */
FL_CHECKED enum fl_status fl_store_put_file(const struct fl_store *self, const char *path,
                                            const void *bytes, size_t length, mode_t mode,
                                            struct fl_error *error);
/* Make the directory that shall hold path. */
FL_CHECKED enum fl_status fl_store_make_parent(const char *path, struct fl_error *error);
/* fsync a finished file and give it its name. One whose fsync fails is removed. */
FL_CHECKED enum fl_status fl_store_adopt_file(const char *from, const char *to,
                                              struct fl_error *error);
/* Remove a file or a tree; absent is FL_OK. */
FL_CHECKED enum fl_status fl_store_remove(const char *path, struct fl_error *error);

/* ---- faults ---- */

/* Refuse the nth durable step from now (0 = the next) and all later ones; -1 disarms. */
void fl_store_crash_at(long n);
/* Was the armed crash met? */
bool fl_store_crashed(void);

#endif
