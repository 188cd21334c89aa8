/*
 * backup.c - see backup.h.
 *
 * Order: while this process holds the writers back for a moment, the sealing keys (which end with
 * their jobs) are copied and the view of the database is pinned; versions never change once a row
 * names them, so they are copied afterwards, while the daemon goes on. All is built in a directory
 * of its own beside out and gets its name last.
 */
#include "coordinator/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "coordinator/desk.h"
#include "coordinator/list.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"
#include "job/attempt.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define DEPTH_MAX   8 /* of a tree that is copied; ours have 2 */

struct work {
    const char *directory;
    char staging[FL_PATH_BYTES];
    struct fl_backup *result;
    uint8_t *piece; /* owned, PIECE_BYTES */
};

/* ---- files ---- */

static enum fl_status open_from(const char *path, int *fd, struct fl_error *error)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode))
        return FL_OK;
    (void)close(*fd);
    *fd = -1;
    return fl_fail(error, FL_EIO, "%s: not a regular file", path);
}

static enum fl_status pour(struct work *self, int from, const char *name,
                           struct fl_fs_writer *writer, struct fl_sha256 *sha,
                           struct fl_error *error)
{
    for (;;) {
        ssize_t got = read(from, self->piece, PIECE_BYTES);
        if (got == 0)
            return FL_OK;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fl_fail_errno(error, errno, "reading %s", name);
        fl_sha256_update(sha, self->piece, (size_t)got);
        enum fl_status status = fl_fs_writer_write(writer, self->piece, (size_t)got, error);
        if (status != FL_OK)
            return status;
        self->result->bytes += (uint64_t)got;
    }
}

/* DIR/name to the staging directory, 0600. FL_ENOTFOUND. sha256 may be NULL. */
static enum fl_status copy_file(struct work *self, const char *name, uint8_t *sha256,
                                struct fl_error *error)
{
    char from[FL_PATH_BYTES], to[FL_PATH_BYTES];
    uint8_t hash[FL_HASH_BYTES];
    struct fl_sha256 sha;
    struct fl_fs_writer writer;
    int fd;
    enum fl_status status = fl_path_join(from, self->directory, name, error);
    if (status == FL_OK)
        status = fl_path_join(to, self->staging, name, error);
    if (status == FL_OK)
        status = open_from(from, &fd, error);
    if (status != FL_OK)
        return status;
    fl_sha256_init(&sha);
    status = fl_store_make_parent(to, error);
    if (status == FL_OK)
        status = fl_fs_writer_open(&writer, to, 0600, error);
    if (status == FL_OK) {
        status = pour(self, fd, from, &writer, &sha, error);
        if (status == FL_OK)
            status = fl_fs_writer_commit(&writer, error);
        fl_fs_writer_close(&writer);
    }
    (void)close(fd);
    fl_sha256_final(&sha, hash);
    if (sha256)
        memcpy(sha256, hash, sizeof hash);
    self->result->files += status == FL_OK;
    return status;
}

static enum fl_status copy_tree(struct work *self, const char *name, int depth,
                                struct fl_error *error);

/* What vanishes meanwhile was removed with its job, and the copy does without it. */
static enum fl_status copy_entry(struct work *self, const char *folder, const char *entry,
                                 int depth, struct fl_error *error)
{
    char name[FL_PATH_BYTES], path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(name, folder, entry, error);
    if (status == FL_OK)
        status = fl_path_join(path, self->directory, name, error);
    if (status != FL_OK)
        return status;
    if (fl_path_is_directory(path))
        return copy_tree(self, name, depth + 1, error);
    status = copy_file(self, name, NULL, error);
    return status == FL_ENOTFOUND ? FL_OK : status;
}

static enum fl_status copy_tree(struct work *self, const char *name, int depth,
                                struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, self->directory, name, error);
    if (status != FL_OK)
        return status;
    if (depth > DEPTH_MAX)
        return fl_fail(error, FL_ERANGE, "%s: nested too deeply", path);
    DIR *folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? FL_OK : fl_fail_errno(error, errno, "%s", path);
    struct dirent *entry;
    while (status == FL_OK && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.' && !strstr(entry->d_name, ".tmp."))
            status = copy_entry(self, name, entry->d_name, depth, error);
    }
    (void)closedir(folder);
    return status;
}

/* ---- the moment ---- */

static enum fl_status append_id(void *context, const struct fl_row *row)
{
    const int64_t id = fl_row_i64(row, 0);
    return fl_list_append(context, &id);
}

/* The ids of the jobs that may still run. *ids is released with fl_free(). */
static enum fl_status unfinished(struct fl_store *store, int64_t **ids, uint32_t *count,
                                 struct fl_error *error)
{
    struct fl_list list = {.item_bytes = sizeof(int64_t)};
    enum fl_status status = fl_store_select(
        store, error, append_id, &list, NULL, "SELECT id FROM jobs WHERE state IN (?, ?, ?)", "iii",
        (int64_t)FL_JOB_QUEUED, (int64_t)FL_JOB_RUNNING, (int64_t)FL_JOB_PAUSED);
    return fl_list_take(&list, status, (void **)ids, count);
}

static enum fl_status copy_keys(struct work *self, struct fl_store *store, struct fl_error *error)
{
    int64_t *ids = NULL;
    uint32_t count = 0;
    char name[64];
    enum fl_status status = unfinished(store, &ids, &count, error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        (void)snprintf(name, sizeof name, "jobs/%lld.key", (long long)ids[i]);
        status = copy_file(self, name, NULL, error);
    }
    fl_free(ids);
    return status;
}

static enum fl_status count_rows(struct fl_store *store, const char *sql, uint64_t *rows,
                                 struct fl_error *error)
{
    return fl_store_select(store, error, NULL, NULL, rows, sql, "");
}

/* Keys and database of one and the same moment. */
static enum fl_status copy_state(struct work *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_store *guard = NULL, *view = NULL;
    enum fl_status status = fl_path_join(path, self->staging, "state.db", error);
    if (status == FL_OK)
        status = fl_store_open_beside(self->directory, &guard, error);
    if (status == FL_OK)
        status = fl_store_open_beside(self->directory, &view, error);
    if (status == FL_OK)
        status = fl_store_begin(guard, error); /* no job begins or ends now */
    if (status == FL_OK)
        status = copy_keys(self, guard, error);
    if (status == FL_OK)
        status = fl_store_pin(view, error);
    if (guard)
        fl_store_rollback(guard);
    if (status == FL_OK)
        status = fl_store_copy(view, path, error);
    if (status == FL_OK)
        status = count_rows(view, "SELECT id FROM jobs", &self->result->jobs, error);
    fl_store_close(&view);
    fl_store_close(&guard);
    return status;
}

/* ---- the audit log ---- */

#define AUDIT_TRIES 100
#define AUDIT_BYTES 4096 /* of the head, at most */

static enum fl_status read_head(const struct work *self, struct fl_buf *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    fl_buf_init(out, AUDIT_BYTES);
    enum fl_status status = fl_path_join(path, self->directory, "audit.log.head", error);
    if (status != FL_OK || !fl_path_exists(path))
        return status;
    return fl_fs_read(path, AUDIT_BYTES, out, error);
}

static bool same_bytes(const struct fl_buf *a, const struct fl_buf *b)
{
    return a->length == b->length && (a->length == 0 || memcmp(a->data, b->data, a->length) == 0);
}

/*
 * The log and its head are of one moment when the head did not change meanwhile: each line is
 * written before the head that counts it, and a log may be one line ahead. *steady: they are.
 */
static enum fl_status try_audit(struct work *self, bool *steady, struct fl_error *error)
{
    char to[FL_PATH_BYTES];
    struct fl_buf before, after;
    const struct fl_backup counted = *self->result;
    fl_buf_init(&after, AUDIT_BYTES);
    enum fl_status status = read_head(self, &before, error);
    if (status == FL_OK)
        status = copy_file(self, "audit.log", NULL, error);
    if (status == FL_ENOTFOUND) { /* nothing was recorded yet */
        *steady = before.length == 0;
        status = FL_OK;
        goto out;
    }
    if (status == FL_OK)
        status = read_head(self, &after, error);
    *steady = status == FL_OK && same_bytes(&before, &after);
    if (status == FL_OK && !*steady)
        *self->result = counted;
    if (!*steady || before.length == 0)
        goto out;
    status = fl_path_join(to, self->staging, "audit.log.head", error);
    if (status == FL_OK)
        status = fl_fs_write(to, before.data, before.length, 0600, error);
    self->result->bytes += before.length;
    self->result->files++;
out:
    fl_buf_free(&after);
    fl_buf_free(&before);
    return status;
}

static enum fl_status copy_audit(struct work *self, struct fl_error *error)
{
    const struct timespec wait = {.tv_nsec = 20000000};
    bool steady = false;
    enum fl_status status = FL_OK;
    for (int i = 0; status == FL_OK && !steady && i < AUDIT_TRIES; i++) {
        if (i > 0)
            (void)nanosleep(&wait, NULL);
        status = try_audit(self, &steady, error);
    }
    if (status == FL_OK && !steady)
        status = fl_fail(error, FL_EBUSY, "%s/audit.log grows faster than it can be copied",
                         self->directory);
    return status;
}

/* ---- versions ---- */

struct version_copy {
    struct work *work;
    struct fl_error *error;
};

static enum fl_status copy_version(void *context, const struct fl_row *row)
{
    const struct version_copy *copy = context;
    uint8_t expected[FL_HASH_BYTES], actual[FL_HASH_BYTES];
    char name[96];
    enum fl_status status = fl_row_copy_blob(row, 2, expected, sizeof expected);
    if (status != FL_OK)
        return status;
    (void)snprintf(name, sizeof name, "versions/%lld/%lld.safetensors",
                   (long long)fl_row_i64(row, 0), (long long)fl_row_i64(row, 1));
    status = copy_file(copy->work, name, actual, copy->error);
    if (status == FL_OK && memcmp(expected, actual, sizeof actual) != 0)
        status = fl_fail(copy->error, FL_EFORMAT,
                         "%s/%s: damaged: its hash is not the recorded one; nothing was written",
                         copy->work->directory, name);
    return status;
}

static enum fl_status copy_versions(struct work *self, struct fl_store *copy,
                                    struct fl_error *error)
{
    struct fl_error why = {FL_OK, ""}, walk;
    struct version_copy each = {self, &why};
    enum fl_status status =
        fl_store_select(copy, &walk, copy_version, &each, &self->result->versions,
                        "SELECT job, version, sha256 FROM versions ORDER BY job, version", "");
    if (status != FL_OK)
        *error = why.status != FL_OK ? why : walk;
    return status;
}

/* ---- what makes it a copy ---- */

static enum fl_status set_job_ids(struct fl_store *copy, struct fl_error *error)
{
    enum fl_status status =
        fl_store_run(copy, error,
                     "INSERT INTO sqlite_sequence(name, seq) SELECT 'jobs', 0 "
                     "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'jobs')",
                     "");
    if (status != FL_OK)
        return status;
    return fl_store_run(copy, error,
                        "UPDATE sqlite_sequence SET seq = (seq / ?1 + 1) * ?1 WHERE name = 'jobs'",
                        "i", (int64_t)FL_ATTEMPT_HUNDRED);
}

/* The spool is not in it: an attempt that was under way begins again, in the next hundred. */
static enum fl_status renumber(struct fl_store *copy, struct fl_error *error)
{
    enum fl_status status = fl_store_begin(copy, error);
    if (status != FL_OK)
        return status;
    status = fl_store_run(copy, error,
                          "UPDATE jobs SET attempt = (attempt / ?1 + 1) * ?1 + 1, "
                          "phase = CASE WHEN phase BETWEEN ?2 AND ?3 THEN ?2 ELSE phase END "
                          "WHERE state IN (?4, ?5, ?6)",
                          "iiiiii", (int64_t)FL_ATTEMPT_HUNDRED, (int64_t)FL_ROUND_SELECT,
                          (int64_t)FL_ROUND_COMMIT, (int64_t)FL_JOB_QUEUED, (int64_t)FL_JOB_RUNNING,
                          (int64_t)FL_JOB_PAUSED);
    if (status == FL_OK) /* to be held against what the sites have seen (recall.h) */
        status = fl_store_run(copy, error,
                              "INSERT INTO recalls(job, restored) SELECT id, 1 FROM jobs "
                              "WHERE state IN (?1, ?2, ?3) "
                              "ON CONFLICT(job) DO UPDATE SET restored = 1, settled = 0, lone = 0",
                              "iii", (int64_t)FL_JOB_QUEUED, (int64_t)FL_JOB_RUNNING,
                              (int64_t)FL_JOB_PAUSED);
    if (status == FL_OK)
        status = fl_store_run(copy, error, "DELETE FROM masks", "");
    if (status == FL_OK)
        status = set_job_ids(copy, error);
    if (status == FL_OK)
        return fl_store_commit(copy, error);
    fl_store_rollback(copy);
    return status;
}

/* Without the token that its configuration names the copy could not be served. One that lies
   elsewhere is there for the copy too. */
static enum fl_status copy_token(struct work *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_coordinator_conf conf;
    enum fl_status status = fl_path_join(path, self->staging, "coordinator.conf", error);
    if (status == FL_OK)
        status = fl_config_load(fl_coordinator_conf_table(), path, &conf, NULL, error);
    if (status != FL_OK || !conf.http_token_file[0] || strchr(conf.http_token_file, '/'))
        return status;
    status = copy_file(self, conf.http_token_file, NULL, error);
    return status == FL_ENOTFOUND ? FL_OK : status;
}

static enum fl_status fill(struct work *self, struct fl_error *error)
{
    static const char *const files[] = {"coordinator.conf", "coordinator.key"};
    char path[FL_PATH_BYTES];
    struct stat info;
    struct fl_store *copy = NULL;
    enum fl_status status = copy_state(self, error);
    for (size_t i = 0; status == FL_OK && i < sizeof files / sizeof files[0]; i++)
        status = copy_file(self, files[i], NULL, error);
    if (status == FL_OK)
        status = copy_token(self, error);
    if (status == FL_OK)
        status = copy_audit(self, error);
    if (status == FL_OK)
        status = fl_store_open(self->staging, &copy, error);
    if (status == FL_OK)
        status = copy_versions(self, copy, error);
    if (status == FL_OK)
        status = copy_tree(self, "rounds", 0, error);
    if (status == FL_OK)
        status = copy_tree(self, "starts", 0, error);
    if (status == FL_OK)
        status = renumber(copy, error);
    fl_store_close(&copy);
    if (status == FL_OK)
        status = fl_path_join(path, self->staging, "state.db", error);
    if (status == FL_OK && stat(path, &info) == 0) {
        self->result->bytes += (uint64_t)info.st_size;
        self->result->files++;
    }
    return status == FL_OK ? fl_fs_sync_directory(self->staging, error) : status;
}

/* ---- the whole ---- */

/* Absolute: the parent must be there, the name must not. */
static enum fl_status resolve(const char *out, char *path, struct fl_error *error)
{
    char text[FL_PATH_BYTES], parent[FL_PATH_BYTES];
    int length = snprintf(text, sizeof text, "%s", out);
    if (length <= 0 || (size_t)length >= sizeof text)
        return fl_fail(error, FL_EUSAGE, "--out: no path, or one that is too long");
    while (length > 1 && text[length - 1] == '/')
        text[--length] = '\0';
    struct stat info;
    if (lstat(text, &info) == 0)
        return fl_fail(error, FL_EEXIST, "%s is there already; a backup replaces nothing", text);
    char *slash = strrchr(text, '/');
    const char *name = slash ? slash + 1 : text;
    if (slash)
        *slash = '\0';
    const char *where = !slash ? "." : slash == text ? "/" : text;
    if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return fl_fail(error, FL_EUSAGE, "--out %s: not a name that can be made", out);
    if (!realpath(where, parent))
        return fl_fail_errno(error, errno, "--out: %s", where);
    return fl_path_join(path, parent, name, error);
}

static enum fl_status make_staging(struct work *self, struct fl_error *error)
{
    int length = snprintf(self->staging, sizeof self->staging, "%s.tmp.XXXXXX", self->result->out);
    if (length < 0 || (size_t)length >= sizeof self->staging)
        return fl_fail(error, FL_ERANGE, "--out: the path is too long");
    if (!mkdtemp(self->staging)) /* 0700 */
        return fl_fail_errno(error, errno, "%s cannot be made", self->result->out);
    return FL_OK;
}

enum fl_status fl_backup_make(const char *directory, const char *out, struct fl_backup *result,
                              struct fl_error *error)
{
    char here[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_error ignored;
    struct work self = {.directory = here, .result = result};
    memset(result, 0, sizeof *result);
    if (!realpath(directory, here))
        return fl_fail_errno(error, errno, "%s", directory);
    enum fl_status status = fl_path_join(path, here, "state.db", error);
    if (status == FL_OK && !fl_path_exists(path))
        status = fl_fail(error, FL_ENOTFOUND, "%s: no coordinator here", directory);
    if (status == FL_OK)
        status = resolve(out, result->out, error);
    if (status != FL_OK)
        return status;
    self.piece = fl_malloc(PIECE_BYTES);
    if (!self.piece)
        return fl_fail_memory(error);
    status = make_staging(&self, error);
    if (status == FL_OK) {
        status = fill(&self, error);
        if (status == FL_OK)
            status = fl_fs_rename(self.staging, result->out, error);
        if (status != FL_OK)
            (void)!fl_fs_remove(self.staging, &ignored);
    }
    fl_free(self.piece);
    return status;
}
