/* download.c - see download.h. */
#include "worker/download.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"

enum { ANSWER_BYTES_MAX = 16 << 20, PATH_BYTES = 1024, SPARE_BYTES = 64 << 20 };

struct job {
    struct fl_download *self;
    const struct fl_hfcache_name *model;
    struct fl_hub_plan plan;
    struct fl_http *http;
    char directory[FL_PATH_BYTES]; /* of the model in the cache */
    const struct fl_hub_file *file;
    int lock;
};

/* ---- attempts ---- */

static bool stopped(const struct fl_download *self)
{
    return self->stop && atomic_load(self->stop) != 0;
}

/* Sleep before attempt `next`, in short pieces that a stop ends. */
static void pause_before(const struct fl_download *self, unsigned next)
{
    uint64_t left_ms = (uint64_t)self->pause_ms << (next > 6 ? 6 : next - 1);
    while (left_ms > 0 && !stopped(self)) {
        const uint64_t part_ms = left_ms < 50 ? left_ms : 50;
        const struct timespec time = {.tv_nsec = (long)part_ms * 1000000};
        (void)nanosleep(&time, NULL);
        left_ms -= part_ms;
    }
}

static bool may_be_better(enum fl_status status)
{
    return status == FL_EIO || status == FL_ETIMEOUT;
}

/* Call `try` until it works, fails for good, or was tried often enough. */
static enum fl_status persist(struct job *job,
                              enum fl_status (*try)(struct job *job, struct fl_error *error),
                              struct fl_error *error)
{
    enum fl_status status = try(job, error);
    for (unsigned n = 1; may_be_better(status) && n < job->self->attempts; n++) {
        if (!job->self->quiet) {
            fprintf(stderr, "%s%s; trying again\n", job->self->terminal ? "\r\x1b[K" : "",
                    error->text);
        }
        pause_before(job->self, n);
        status = stopped(job->self) ? fl_fail(error, FL_ESTOPPED, "stopped") : try(job, error);
    }
    return status;
}

/* ---- the plan ---- */

/* '/' in a revision ("refs/pr/1") is written %2F. */
static void encode(const char *text, char *out, size_t bytes)
{
    size_t used = 0;
    for (; *text && used + 4 < bytes; text++) {
        if (*text == '/') {
            memcpy(out + used, "%2F", 3);
            used += 3;
        } else {
            out[used++] = *text;
        }
    }
    out[used] = '\0';
}

static enum fl_status try_plan(struct job *job, struct fl_error *error)
{
    char path[PATH_BYTES], revision[3 * FL_HFCACHE_NAME_BYTES];
    struct fl_buf answer;
    fl_buf_init(&answer, ANSWER_BYTES_MAX);
    encode(job->model->revision, revision, sizeof revision);
    (void)snprintf(path, sizeof path, "/api/models/%s/revision/%s?blobs=true", job->model->model,
                   revision);
    enum fl_status status = fl_http_text(job->http, path, &answer, error);
    if (status == FL_OK) {
        status = fl_hub_plan_read(fl_buf_text(&answer), answer.length, job->self->only, &job->plan,
                                  error);
    }
    fl_buf_free(&answer);
    return status;
}

/* ---- one file ---- */

static enum fl_status path_of(const struct job *job, const char *folder, const char *name,
                              const char *end, char out[FL_PATH_BYTES], struct fl_error *error)
{
    if (snprintf(out, FL_PATH_BYTES, "%s/%s/%s%s", job->directory, folder, name, end) >=
        FL_PATH_BYTES) {
        return fl_fail(error, FL_ERANGE, "the path of the cache is too long");
    }
    return FL_OK;
}

/* Bytes of a regular file, or -1. */
static int64_t size_of(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (int64_t)s.st_size : -1;
}

static void show(void *context, uint64_t bytes)
{
    const struct job *job = context;
    if (job->self->terminal && !job->self->quiet) {
        fprintf(stderr, "\r\x1b[K%s  %.1f of %.1f MB", job->file->name, (double)bytes * 1e-6,
                (double)job->file->bytes * 1e-6);
        fflush(stderr);
    }
}

/* Continue HASH.incomplete to its end. */
static enum fl_status transfer(struct job *job, int fd, uint64_t offset, struct fl_error *error)
{
    char path[PATH_BYTES];
    struct stat s;
    (void)snprintf(path, sizeof path, "/%s/resolve/%s/%s", job->model->model, job->plan.commit,
                   job->file->name);
    enum fl_status status = FL_OK;
    if (offset < job->file->bytes) {
        status = fl_http_file(job->http, path, fd, offset, job->file->bytes, show, job, error);
    }
    if (fstat(fd, &s) == 0 && (uint64_t)s.st_size > offset) {
        job->self->downloaded += (uint64_t)s.st_size - offset;
    }
    if (status == FL_OK && (fstat(fd, &s) != 0 || (uint64_t)s.st_size != job->file->bytes)) {
        status = fl_fail(error, FL_EIO, "%s ended too early", job->file->name);
    }
    if (status == FL_OK && fl_fs_sync(fd) != FL_OK) {
        status = fl_fail(error, FL_EIO, "%s can't be made durable", job->file->name);
    }
    return status;
}

static enum fl_status check_hash(const struct job *job, const char *path, struct fl_error *error)
{
    uint8_t hash[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    if (!job->file->sha256) {
        return FL_OK;
    }
    enum fl_status status = fl_sha256_file(path, hash, error);
    if (status != FL_OK) {
        return status;
    }
    fl_hex(hash, sizeof hash, hex);
    if (strcmp(hex, job->file->hash) != 0) {
        return fl_fail(error, FL_EFORMAT, "%s: its SHA-256 is %s, the hub announced %s",
                       job->file->name, hex, job->file->hash);
    }
    return FL_OK;
}

static enum fl_status try_file(struct job *job, struct fl_error *error)
{
    char partial[FL_PATH_BYTES], blob[FL_PATH_BYTES];
    enum fl_status status = path_of(job, "blobs", job->file->hash, ".incomplete", partial, error);
    if (status == FL_OK) {
        status = path_of(job, "blobs", job->file->hash, "", blob, error);
    }
    if (status != FL_OK || size_of(blob) == (int64_t)job->file->bytes) {
        return status;
    }
    int fd = open(partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return fl_fail_errno(error, errno, "%s", partial);
    }
    const int64_t there = size_of(partial);
    const bool usable = there >= 0 && (uint64_t)there <= job->file->bytes;
    if (!usable && ftruncate(fd, 0) != 0) {
        status = fl_fail_errno(error, errno, "%s", partial);
    }
    if (status == FL_OK) {
        status = transfer(job, fd, usable ? (uint64_t)there : 0, error);
    }
    close(fd);
    if (status == FL_OK) {
        status = check_hash(job, partial, error);
    }
    if (status == FL_EFORMAT) { /* wrong bytes are not continued */
        (void)unlink(partial);
    }
    return status == FL_OK ? fl_fs_rename(partial, blob, error) : status;
}

/* snapshots/COMMIT/NAME -> ../../blobs/HASH, put there at once. */
static enum fl_status link_file(struct job *job, struct fl_error *error)
{
    char target[FL_PATH_BYTES], link[FL_PATH_BYTES + 1], temporary[FL_PATH_BYTES + 32];
    (void)snprintf(target, sizeof target, "../../blobs/%s", job->file->hash);
    if (snprintf(link, FL_PATH_BYTES, "%s/%s", job->self->snapshot, job->file->name) >=
        FL_PATH_BYTES) {
        return fl_fail(error, FL_ERANGE, "the path of the cache is too long");
    }
    (void)snprintf(temporary, sizeof temporary, "%s.tmp.%ld", link, (long)getpid());
    (void)unlink(temporary);
    if (symlink(target, temporary) != 0) {
        return fl_fail_errno(error, errno, "%s", temporary);
    }
    enum fl_status status = fl_fs_rename(temporary, link, error);
    if (status != FL_OK) {
        (void)unlink(temporary);
    }
    return status;
}

static enum fl_status fetch_file(struct job *job, struct fl_error *error)
{
    const uint64_t before = job->self->downloaded;
    enum fl_status status = persist(job, try_file, error);
    if (status == FL_OK) {
        status = link_file(job, error);
    }
    if (status == FL_OK && !job->self->quiet) {
        fprintf(stderr, "%s%s  %.1f MB%s\n", job->self->terminal ? "\r\x1b[K" : "", job->file->name,
                (double)job->file->bytes * 1e-6,
                job->self->downloaded == before ? " (was there)" : "");
    }
    return status;
}

/* ---- the whole ---- */

static enum fl_status make_folders(struct job *job, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = path_of(job, "blobs", "", "", path, error);
    if (status == FL_OK) {
        path[strlen(path) - 1] = '\0';
        status = fl_fs_make_directory(path, 0755, error);
    }
    if (status == FL_OK) {
        status = path_of(job, "snapshots", job->plan.commit, "", job->self->snapshot, error);
    }
    return status == FL_OK ? fl_fs_make_directory(job->self->snapshot, 0755, error) : status;
}

/* ROOT/.locks/models--ORG--NAME/fedlora.lock */
static enum fl_status take_lock(struct job *job, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/.locks/%s", job->self->root,
                 fl_path_base(job->directory)) >= (int)sizeof path - 16) {
        return fl_fail(error, FL_ERANGE, "the path of the cache is too long");
    }
    enum fl_status status = fl_fs_make_directory(path, 0755, error);
    if (status == FL_OK) {
        (void)snprintf(path + strlen(path), 16, "/fedlora.lock");
        status = fl_fs_lock(path, &job->lock, error);
    }
    if (status == FL_EBUSY) {
        status = fl_fail(error, FL_EBUSY, "another process is fetching %s", job->model->model);
    }
    return status;
}

/* What is still missing must fit the disk. */
static enum fl_status check_space(const struct job *job, struct fl_error *error)
{
    struct statvfs disk;
    uint64_t missing = SPARE_BYTES;
    for (size_t i = 0; i < job->plan.count; i++) {
        char path[FL_PATH_BYTES];
        const struct fl_hub_file *file = &job->plan.files[i];
        enum fl_status status = path_of(job, "blobs", file->hash, "", path, error);
        if (status != FL_OK) {
            return status;
        }
        missing += size_of(path) == (int64_t)file->bytes ? 0 : file->bytes;
    }
    if (statvfs(job->directory, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize < missing) {
        return fl_fail(error, FL_ENOSPC, "%s: %.1f GB are needed, %.1f GB are free",
                       job->self->root, (double)missing * 1e-9,
                       (double)disk.f_bavail * (double)disk.f_frsize * 1e-9);
    }
    return FL_OK;
}

/* refs/REVISION, for those who ask for a branch without the network. */
static enum fl_status write_ref(struct job *job, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    const char *revision = job->model->revision;
    if (strchr(revision, '/') || strcmp(revision, job->plan.commit) == 0) {
        return FL_OK;
    }
    enum fl_status status = fl_path_join(path, job->directory, "refs", error);
    if (status == FL_OK) {
        status = fl_fs_make_directory(path, 0755, error);
    }
    if (status == FL_OK) {
        status = path_of(job, "refs", revision, "", path, error);
    }
    return status == FL_OK
               ? fl_fs_write(path, job->plan.commit, strlen(job->plan.commit), 0644, error)
               : status;
}

static enum fl_status fetch_all(struct job *job, struct fl_error *error)
{
    enum fl_status status = make_folders(job, error);
    if (status == FL_OK) {
        status = check_space(job, error);
    }
    for (size_t i = 0; status == FL_OK && i < job->plan.count; i++) {
        job->file = &job->plan.files[i];
        status = fetch_file(job, error);
    }
    return status == FL_OK ? write_ref(job, error) : status;
}

enum fl_status fl_download(struct fl_download *self, const struct fl_hfcache_name *model,
                           struct fl_error *error)
{
    struct job job = {.self = self, .model = model, .lock = -1};
    enum fl_status status = fl_hfcache_directory(self->root, model, job.directory, error);
    if (status == FL_OK) {
        status = fl_http_open(self->endpoint, self->token, self->stop, &job.http, error);
    }
    if (status == FL_OK) {
        status = take_lock(&job, error);
    }
    if (status == FL_OK) {
        status = persist(&job, try_plan, error);
    }
    if (status == FL_OK) {
        status = fetch_all(&job, error);
    }
    if (status == FL_OK) {
        (void)snprintf(self->commit, sizeof self->commit, "%s", job.plan.commit);
        self->files = job.plan.count;
        self->bytes = job.plan.bytes;
    }
    if (job.lock >= 0) {
        close(job.lock);
    }
    fl_hub_plan_free(&job.plan);
    fl_http_close(&job.http);
    return status;
}
