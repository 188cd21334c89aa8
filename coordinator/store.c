/*
 * store.c - the database connection, its statements and transactions, and the files beside it.
 *
 * Invariants: one connection; a statement is reset before its function returns; no text from
 * outside is ever part of a query.
 */
#include "coordinator/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define DATABASE       "state.db"
#define STATEMENTS_MAX 96

struct fl_store {
    sqlite3 *db;
    char directory[FL_PATH_BYTES];
    int depth;      /* of nested transactions */
    bool spoiled;   /* a nested one was rolled back */
    bool unsettled; /* the log of the last process could not be brought in: the disk is full */
    struct {
        const char *sql; /* the constant itself is the key */
        sqlite3_stmt *statement;
    } cache[STATEMENTS_MAX];
    int cached;
};

struct fl_row {
    sqlite3_stmt *statement;
};

static const char schema[] =
    "CREATE TABLE sites("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " x25519 BLOB NOT NULL UNIQUE, ed25519 BLOB NOT NULL, revoked INTEGER NOT NULL DEFAULT 0,"
    " created_ms INTEGER NOT NULL, revoked_ms INTEGER, last_seen_ms INTEGER) STRICT;"
    "CREATE TABLE invitations("
    " id BLOB PRIMARY KEY, name TEXT NOT NULL, key_hash BLOB NOT NULL,"
    " created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, used_ms INTEGER,"
    " failures INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE TABLE jobs("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, spec TEXT NOT NULL,"
    " sha256 BLOB NOT NULL, state INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '',"
    " round INTEGER NOT NULL DEFAULT 1, attempt INTEGER NOT NULL DEFAULT 1,"
    " breaks INTEGER NOT NULL DEFAULT 0, phase INTEGER NOT NULL DEFAULT 0,"
    " sealing_public BLOB NOT NULL, inventory BLOB, inventory_root BLOB,"
    " current_version INTEGER, base_loss REAL, base_tokens INTEGER,"
    " created_ms INTEGER NOT NULL, ended_ms INTEGER) STRICT;"
    "CREATE TABLE attempts("
    " job INTEGER NOT NULL REFERENCES jobs(id), round INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, plan BLOB NOT NULL, start_root BLOB NOT NULL,"
    " start_bytes INTEGER NOT NULL, version_hash BLOB NOT NULL, range_a REAL, range_b REAL,"
    " range_m REAL, PRIMARY KEY(job, round, attempt)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE members("
    " job INTEGER NOT NULL REFERENCES jobs(id), round INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, site INTEGER NOT NULL REFERENCES sites(id),"
    " trained INTEGER NOT NULL DEFAULT 0, uploaded INTEGER NOT NULL DEFAULT 0,"
    " failed INTEGER NOT NULL DEFAULT 0, advertised INTEGER NOT NULL DEFAULT 0,"
    " shared INTEGER NOT NULL DEFAULT 0, signed INTEGER NOT NULL DEFAULT 0,"
    " answered INTEGER NOT NULL DEFAULT 0, steps INTEGER, seconds REAL, eval_loss_sum REAL,"
    " eval_tokens INTEGER, PRIMARY KEY(job, round, attempt, site)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE masks("
    " job INTEGER NOT NULL REFERENCES jobs(id), round INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, site INTEGER NOT NULL REFERENCES sites(id),"
    " kind INTEGER NOT NULL, bytes BLOB NOT NULL,"
    " PRIMARY KEY(job, round, attempt, site, kind)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE refusals("
    " job INTEGER NOT NULL REFERENCES jobs(id), site INTEGER NOT NULL REFERENCES sites(id),"
    " code INTEGER NOT NULL, permanent INTEGER NOT NULL, reason TEXT NOT NULL,"
    " at_ms INTEGER NOT NULL, PRIMARY KEY(job, site)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE versions("
    " job INTEGER NOT NULL REFERENCES jobs(id), version INTEGER NOT NULL,"
    " round INTEGER NOT NULL, strategy TEXT NOT NULL, sha256 BLOB NOT NULL, sum_sha256 BLOB,"
    " root BLOB NOT NULL, bytes INTEGER NOT NULL, ranks BLOB NOT NULL, rank INTEGER NOT NULL,"
    " workers INTEGER NOT NULL, created_ms INTEGER NOT NULL, train_loss REAL,"
    " train_tokens INTEGER, eval_loss REAL, eval_tokens INTEGER, delta_norm REAL,"
    " cut_fraction REAL, parent_sha256 BLOB, PRIMARY KEY(job, version)) STRICT, WITHOUT ROWID;"
    "PRAGMA user_version=2;";

/*
 * What a coordinator knows of having been restored (recall.h). restored: this database is a copy
 * and has not been held against the sites yet; settled: it was; floor: no attempt begins at or
 * below it; lone: how far single sites have raised it. A job without a row was never behind.
 */
static const char recall_schema[] =
    "CREATE TABLE IF NOT EXISTS recalls("
    " job INTEGER PRIMARY KEY REFERENCES jobs(id), restored INTEGER NOT NULL DEFAULT 0,"
    " settled INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0,"
    " lone INTEGER NOT NULL DEFAULT 0) STRICT;";

/* How a job stands to its sites, beyond the attempt that runs (round.h). No row: as to any other.
 */
static const char standing_schema[] =
    "CREATE TABLE IF NOT EXISTS standings("
    " job INTEGER NOT NULL REFERENCES jobs(id), site INTEGER NOT NULL REFERENCES sites(id),"
    " left_out INTEGER NOT NULL, failed_sums INTEGER NOT NULL,"
    " PRIMARY KEY(job, site)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS retrainings("
    " job INTEGER PRIMARY KEY REFERENCES jobs(id), round INTEGER NOT NULL,"
    " count INTEGER NOT NULL, anew_from INTEGER NOT NULL) STRICT;";

/* Lines of the audit log that are still to be written (ending.h). */
static const char ending_schema[] =
    "CREATE TABLE IF NOT EXISTS endings("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL REFERENCES jobs(id),"
    " state INTEGER NOT NULL, reason TEXT NOT NULL) STRICT;";

static const char settings[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
    "PRAGMA trusted_schema=OFF; PRAGMA secure_delete=ON; PRAGMA cache_size=-2000;"
    "PRAGMA busy_timeout=5000; PRAGMA journal_size_limit=4194304;";

/* ---- faults ---- */

static atomic_long crash_countdown = -1;
static atomic_bool crash_met;

void fl_store_crash_at(long n)
{
    atomic_store(&crash_met, false);
    atomic_store(&crash_countdown, n);
}

bool fl_store_crashed(void)
{
    return atomic_load(&crash_met);
}

static enum fl_status durable_step(struct fl_error *error)
{
    if (atomic_load(&crash_met))
        return fl_fail(error, FL_EIO, "the store is gone");
    long left = atomic_load(&crash_countdown);
    if (left < 0)
        return FL_OK;
    if (left > 0) {
        atomic_store(&crash_countdown, left - 1);
        return FL_OK;
    }
    atomic_store(&crash_countdown, -1);
    atomic_store(&crash_met, true);
    return fl_fail(error, FL_EIO, "the store is gone");
}

/* ---- connection ---- */

static enum fl_status fail_sqlite(const struct fl_store *self, struct fl_error *error,
                                  const char *what)
{
    int code = sqlite3_extended_errcode(self->db);
    enum fl_status status = FL_EIO;
    if ((code & 0xff) == SQLITE_FULL)
        status = FL_ENOSPC;
    else if ((code & 0xff) == SQLITE_NOMEM)
        status = FL_ENOMEM;
    else if (code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY)
        status = FL_EEXIST;
    else if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB)
        status = FL_EFORMAT;
    return fl_fail(error, status, "%s/%s: %s: %s", self->directory, DATABASE, what,
                   sqlite3_errmsg(self->db));
}

static enum fl_status execute(struct fl_store *self, const char *sql, const char *what,
                              struct fl_error *error)
{
    if (sqlite3_exec(self->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail_sqlite(self, error, what);
    return FL_OK;
}

static enum fl_status has_later_column(struct fl_store *self, bool *out, struct fl_error *error)
{
    uint64_t there = 0;
    enum fl_status status =
        fl_store_select(self, error, NULL, NULL, &there,
                        "SELECT 1 FROM pragma_table_info('attempts') WHERE name = 'range_m'", "");
    *out = there > 0;
    return status;
}

/* Another process may do the same at this moment. */
static enum fl_status make_later_column(struct fl_store *self, struct fl_error *error)
{
    bool there;
    enum fl_status status = has_later_column(self, &there, error);
    if (status != FL_OK || there)
        return status;
    status = fl_store_begin(self, error);
    if (status != FL_OK)
        return status;
    status = has_later_column(self, &there, error);
    if (status == FL_OK && !there)
        status = execute(self, "ALTER TABLE attempts ADD COLUMN range_m REAL",
                         "the tables cannot be made", error);
    if (status == FL_OK)
        return fl_store_commit(self, error);
    fl_store_rollback(self);
    return status;
}

/* A database that an earlier program made has none of them. */
static enum fl_status make_later_tables(struct fl_store *self, struct fl_error *error)
{
    static const char *const schemas[] = {recall_schema, standing_schema, ending_schema};
    enum fl_status status = FL_OK;
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0] && status == FL_OK; i++)
        status = execute(self, schemas[i], "the tables cannot be made", error);
    return status == FL_OK ? make_later_column(self, error) : status;
}

static enum fl_status connect(const char *directory, int flags, struct fl_store **out,
                              struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *out = NULL;
    struct fl_store *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = FL_OK;
    if (!realpath(directory, self->directory))
        status = fl_fail_errno(error, errno, "%s", directory);
    if (status == FL_OK)
        status = fl_path_join(path, self->directory, DATABASE, error);
    if (status == FL_OK && sqlite3_open_v2(path, &self->db, flags | SQLITE_OPEN_NOMUTEX, NULL))
        status = self->db ? fail_sqlite(self, error, "cannot be opened") : fl_fail_memory(error);
    if (status == FL_OK)
        status = execute(self, settings, "cannot be set up", error);
    if (status != FL_OK)
        fl_store_close(&self);
    *out = self;
    return status;
}

enum fl_status fl_store_create(const char *directory, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, DATABASE, error);
    if (status != FL_OK)
        return status;
    /* made by hand first, so that it never exists with wider rights */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    (void)close(fd);
    struct fl_store *self = NULL;
    status = connect(directory, SQLITE_OPEN_READWRITE, &self, error);
    if (status == FL_OK)
        status = fl_store_begin(self, error);
    if (status == FL_OK)
        status = execute(self, schema, "the tables cannot be made", error);
    if (status == FL_OK)
        status = make_later_tables(self, error);
    if (status == FL_OK)
        status = fl_store_commit(self, error);
    fl_store_close(&self);
    if (status != FL_OK)
        (void)unlink(path);
    return status;
}

static enum fl_status read_schema(void *context, const struct fl_row *row)
{
    *(int64_t *)context = fl_row_i64(row, 0);
    return FL_OK;
}

static enum fl_status read_check(void *context, const struct fl_row *row)
{
    *(bool *)context = strcmp(fl_row_text(row, 0), "ok") == 0;
    return FL_OK;
}

static enum fl_status verify(struct fl_store *self, struct fl_error *error)
{
    int64_t number = -1;
    bool sound = false;
    enum fl_status status = fl_store_select(self, error, read_check, &sound, NULL,
                                            "PRAGMA quick_check(1)", "");
    if (status != FL_OK)
        return status;
    if (!sound)
        return fl_fail(error, FL_EFORMAT, "%s/%s: damaged (quick_check); restore a backup",
                       self->directory, DATABASE);
    status = fl_store_select(self, error, read_schema, &number, NULL, "PRAGMA user_version", "");
    if (status == FL_OK && number != FL_STORE_SCHEMA)
        status = fl_fail(error, FL_EFORMAT, "%s/%s: schema %lld, but this program knows schema %d",
                         self->directory, DATABASE, (long long)number, FL_STORE_SCHEMA);
    return status;
}

/* SQLite cuts the log and leaves it to the disk when that is so. */
static int sync_log(const struct fl_store *self)
{
    sqlite3_file *log = NULL;
    int code = sqlite3_file_control(self->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (code != SQLITE_OK || !log || !log->pMethods)
        return code;
    return log->pMethods->xSync(log, SQLITE_SYNC_FULL);
}

/*
 * Bring the log into the database and empty it. An fsync that failed leaves a commit in the page
 * cache that the disk may never see; a process that was restarted since takes it for good and puts
 * its own commits behind it, and all of them would go with it in a power cut. Written again into
 * the database they are durable, once the log is empty on the disk too: else what the disk has of
 * it, without that commit, would be played over the database again. A full disk is no reason not
 * to read, but nothing is written, or done because of what stands there, before that.
 */
static enum fl_status settle_log(struct fl_store *self, struct fl_error *error)
{
    int code = sqlite3_wal_checkpoint_v2(self->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    self->unsettled = (code & 0xff) == SQLITE_FULL;
    if (self->unsettled)
        return FL_OK;
    if (code != SQLITE_OK)
        return fail_sqlite(self, error, "its log cannot be brought in");
    code = sync_log(self);
    return code == SQLITE_OK ? FL_OK
                             : fl_fail(error, FL_EIO, "%s/%s: its log cannot be emptied: %s",
                                       self->directory, DATABASE, sqlite3_errstr(code));
}

enum fl_status fl_store_settle(struct fl_store *self, struct fl_error *error)
{
    enum fl_status status = self->unsettled ? settle_log(self, error) : FL_OK;
    if (status == FL_OK && self->unsettled)
        status =
            fl_fail(error, FL_ENOSPC,
                    "%s/%s: the disk is full, and what was written last may not be on it: free "
                    "some space",
                    self->directory, DATABASE);
    return status;
}

enum fl_status fl_store_open_beside(const char *directory, struct fl_store **out,
                                    struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *out = NULL;
    enum fl_status status = fl_path_join(path, directory, DATABASE, error);
    if (status != FL_OK)
        return status;
    if (!fl_path_exists(path))
        return fl_fail(error, FL_ENOTFOUND,
                       "%s: no coordinator here (make one with fedlora-coordinator init --dir %s)",
                       directory, directory);
    status = connect(directory, SQLITE_OPEN_READWRITE, out, error);
    if (status == FL_OK)
        status = verify(*out, error);
    if (status != FL_OK)
        fl_store_close(out);
    return status;
}

enum fl_status fl_store_open(const char *directory, struct fl_store **out, struct fl_error *error)
{
    enum fl_status status = fl_store_open_beside(directory, out, error);
    if (status != FL_OK)
        return status;
    status = settle_log(*out, error);
    if (status == FL_OK)
        status = make_later_tables(*out, error);
    if (status != FL_OK)
        fl_store_close(out);
    return status;
}

void fl_store_close(struct fl_store **self)
{
    if (!*self)
        return;
    for (int i = 0; i < (*self)->cached; i++)
        (void)sqlite3_finalize((*self)->cache[i].statement);
    (void)sqlite3_close((*self)->db);
    fl_free(*self);
    *self = NULL;
}

const char *fl_store_directory(const struct fl_store *self)
{
    return self->directory;
}

/* ---- a copy ---- */

enum fl_status fl_store_pin(struct fl_store *self, struct fl_error *error)
{
    /* a read is what opens the view */
    return execute(self, "BEGIN; SELECT count(*) FROM sqlite_schema", "cannot be read", error);
}

enum fl_status fl_store_copy(struct fl_store *self, const char *path, struct fl_error *error)
{
    enum fl_status status = durable_step(error);
    if (status != FL_OK)
        return status;
    /* made by hand first, so that it never exists with wider rights */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    (void)close(fd);
    sqlite3 *copy = NULL;
    int code = sqlite3_open_v2(path, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    sqlite3_backup *backup = NULL;
    if (code == SQLITE_OK)
        backup = sqlite3_backup_init(copy, "main", self->db, "main");
    if (backup) {
        (void)sqlite3_backup_step(backup, -1);
        code = sqlite3_backup_finish(backup);
    } else
        code = copy ? sqlite3_errcode(copy) : SQLITE_NOMEM;
    if (code != SQLITE_OK)
        status = fl_fail(error, (code & 0xff) == SQLITE_FULL ? FL_ENOSPC : FL_EIO,
                         "%s: the database cannot be copied: %s", path, sqlite3_errstr(code));
    (void)sqlite3_close(copy);
    if (status != FL_OK)
        (void)unlink(path);
    return status;
}

/* ---- transactions ---- */

enum fl_status fl_store_begin(struct fl_store *self, struct fl_error *error)
{
    if (self->depth == 0) {
        self->spoiled = false;
        enum fl_status status = fl_store_settle(self, error);
        if (status == FL_OK)
            status = execute(self, "BEGIN IMMEDIATE", "cannot begin", error);
        if (status != FL_OK)
            return status;
    }
    self->depth++;
    return FL_OK;
}

enum fl_status fl_store_commit(struct fl_store *self, struct fl_error *error)
{
    assert(self->depth > 0);
    if (self->depth > 1) {
        self->depth--;
        return FL_OK;
    }
    enum fl_status status = FL_OK;
    if (self->spoiled)
        status = fl_fail(error, FL_EIO, "a part of the transaction failed");
    if (status == FL_OK)
        status = durable_step(error);
    if (status == FL_OK)
        status = execute(self, "COMMIT", "cannot commit", error);
    if (status != FL_OK) {
        fl_store_rollback(self);
        return status;
    }
    self->depth = 0;
    return FL_OK;
}

void fl_store_rollback(struct fl_store *self)
{
    if (self->depth > 1) {
        self->depth--;
        self->spoiled = true;
        return;
    }
    if (self->depth == 1 && !sqlite3_get_autocommit(self->db))
        (void)sqlite3_exec(self->db, "ROLLBACK", NULL, NULL, NULL);
    self->depth = 0;
}

/* ---- statements ---- */

static enum fl_status prepare(struct fl_store *self, const char *sql, sqlite3_stmt **out,
                              struct fl_error *error)
{
    for (int i = 0; i < self->cached; i++) {
        if (self->cache[i].sql == sql) {
            *out = self->cache[i].statement;
            return FL_OK;
        }
    }
    assert(self->cached < STATEMENTS_MAX);
    *out = NULL;
    if (sqlite3_prepare_v3(self->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
        return fail_sqlite(self, error, "a statement failed");
    self->cache[self->cached].sql = sql;
    self->cache[self->cached++].statement = *out;
    return FL_OK;
}

static int bind_one(sqlite3_stmt *statement, int index, char kind, va_list *arguments)
{
    if (kind == 'i')
        return sqlite3_bind_int64(statement, index, va_arg(*arguments, int64_t));
    if (kind == 'd') {
        double number = va_arg(*arguments, double);
        return isnan(number) ? sqlite3_bind_null(statement, index)
                             : sqlite3_bind_double(statement, index, number);
    }
    const char *bytes = va_arg(*arguments, const char *);
    if (kind == 's')
        return sqlite3_bind_text(statement, index, bytes, -1, SQLITE_STATIC);
    assert(kind == 'b');
    size_t length = va_arg(*arguments, size_t);
    if (bytes && length == 0)
        return sqlite3_bind_zeroblob(statement, index, 0);
    return sqlite3_bind_blob64(statement, index, bytes, length, SQLITE_STATIC);
}

static enum fl_status bind(struct fl_store *self, sqlite3_stmt *statement, const char *format,
                           va_list *arguments, struct fl_error *error)
{
    assert((int)strlen(format) == sqlite3_bind_parameter_count(statement));
    for (int i = 0; format[i]; i++) {
        if (bind_one(statement, i + 1, format[i], arguments) != SQLITE_OK)
            return fail_sqlite(self, error, "a value cannot be bound");
    }
    return FL_OK;
}

static void release(sqlite3_stmt *statement)
{
    (void)sqlite3_reset(statement);
    (void)sqlite3_clear_bindings(statement);
}

static enum fl_status walk(struct fl_store *self, sqlite3_stmt *statement, fl_row_function row,
                           void *context, uint64_t *rows, struct fl_error *error)
{
    struct fl_row view = {statement};
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        ++*rows;
        enum fl_status status = row ? row(context, &view) : FL_OK;
        if (status != FL_OK)
            return fl_fail(error, status, "%s/%s: a row cannot be read", self->directory, DATABASE);
    }
    return code == SQLITE_DONE ? FL_OK : fail_sqlite(self, error, "a statement failed");
}

static enum fl_status run(struct fl_store *self, struct fl_error *error, fl_row_function row,
                          void *context, uint64_t *rows, const char *sql, const char *format,
                          va_list *arguments)
{
    sqlite3_stmt *statement;
    enum fl_status status = prepare(self, sql, &statement, error);
    if (status != FL_OK)
        return status;
    status = bind(self, statement, format, arguments, error);
    if (status == FL_OK)
        status = walk(self, statement, row, context, rows, error);
    release(statement);
    return status;
}

enum fl_status fl_store_run(struct fl_store *self, struct fl_error *error, const char *sql,
                            const char *format, ...)
{
    if (self->depth == 0) { /* a commit of its own */
        enum fl_status status = fl_store_settle(self, error);
        if (status == FL_OK)
            status = durable_step(error);
        if (status != FL_OK)
            return status;
    }
    uint64_t rows = 0;
    va_list arguments;
    va_start(arguments, format);
    enum fl_status status = run(self, error, NULL, NULL, &rows, sql, format, &arguments);
    va_end(arguments);
    return status;
}

enum fl_status fl_store_select(struct fl_store *self, struct fl_error *error, fl_row_function row,
                               void *context, uint64_t *rows, const char *sql, const char *format,
                               ...)
{
    uint64_t seen = 0;
    va_list arguments;
    va_start(arguments, format);
    enum fl_status status = run(self, error, row, context, &seen, sql, format, &arguments);
    va_end(arguments);
    if (rows)
        *rows = seen;
    return status;
}

int64_t fl_store_last_id(const struct fl_store *self)
{
    return sqlite3_last_insert_rowid(self->db);
}

int64_t fl_store_changes(const struct fl_store *self)
{
    return sqlite3_changes(self->db);
}

int64_t fl_store_total_changes(const struct fl_store *self)
{
    return sqlite3_total_changes(self->db);
}

int64_t fl_row_i64(const struct fl_row *row, int column)
{
    return sqlite3_column_int64(row->statement, column);
}

double fl_row_double(const struct fl_row *row, int column)
{
    return fl_row_is_null(row, column) ? (double)NAN
                                       : sqlite3_column_double(row->statement, column);
}

bool fl_row_is_null(const struct fl_row *row, int column)
{
    return sqlite3_column_type(row->statement, column) == SQLITE_NULL;
}

const char *fl_row_text(const struct fl_row *row, int column)
{
    const unsigned char *text = sqlite3_column_text(row->statement, column);
    return text ? (const char *)text : "";
}

void fl_row_copy_text(const struct fl_row *row, int column, char *out, size_t bytes)
{
    const char *text = fl_row_text(row, column);
    size_t length = strnlen(text, bytes - 1);
    memcpy(out, text, length);
    out[length] = '\0';
}

const void *fl_row_blob(const struct fl_row *row, int column, size_t *length)
{
    const void *bytes = sqlite3_column_blob(row->statement, column);
    *length = (size_t)sqlite3_column_bytes(row->statement, column);
    return bytes;
}

enum fl_status fl_row_copy_blob(const struct fl_row *row, int column, void *out, size_t length)
{
    size_t actual;
    const void *bytes = fl_row_blob(row, column, &actual);
    if (!bytes || actual != length)
        return FL_EFORMAT;
    memcpy(out, bytes, length);
    return FL_OK;
}

/* ---- files ---- */

enum fl_status fl_store_path(const struct fl_store *self, char *out, struct fl_error *error,
                             const char *format, ...)
{
    char name[FL_PATH_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof name)
        return fl_fail(error, FL_ERANGE, "a file name is too long");
    return fl_path_join(out, self->directory, name, error);
}

enum fl_status fl_store_make_parent(const char *path, struct fl_error *error)
{
    char parent[FL_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    assert(slash && (size_t)(slash - path) < sizeof parent);
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    return fl_fs_make_directory(parent, 0700, error);
}

enum fl_status fl_store_put_file(const struct fl_store *self, const char *path, const void *bytes,
                                 size_t length, mode_t mode, struct fl_error *error)
{
    (void)self;
    enum fl_status status = durable_step(error);
    if (status == FL_OK)
        status = fl_store_make_parent(path, error);
    return status == FL_OK ? fl_fs_write(path, bytes, length, mode, error) : status;
}

enum fl_status fl_store_adopt_file(const char *from, const char *to, struct fl_error *error)
{
    enum fl_status status = durable_step(error);
    if (status != FL_OK)
        return status;
    int fd = open(from, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", from);
    errno = 0;
    status = fl_fs_sync(fd);
    if (status != FL_OK)
        status = fl_fail_errno(error, errno ? errno : EIO, "%s: fsync", from);
    if (status != FL_OK) /* a second fsync would say yes to bytes that the disk never saw */
        (void)unlink(from);
    if (close(fd) != 0 && status == FL_OK)
        status = fl_fail_errno(error, errno, "%s: close", from);
    return status == FL_OK ? fl_fs_rename(from, to, error) : status;
}

enum fl_status fl_store_remove(const char *path, struct fl_error *error)
{
    enum fl_status status = durable_step(error);
    return status == FL_OK ? fl_fs_remove(path, error) : status;
}
