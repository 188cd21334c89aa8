/* http.c - see http.h. */
#include "coordinator/http.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/http_view.h"
#include "coordinator/server_internal.h"
#include "web/html.h"
#include "web/prom.h"
#include "web/web.h"

struct fl_http_desk {
    struct fl_web *web;
    struct fl_view_maker maker;
    const char *unready;
};

/* "/a/12/3/..." behind its first word: a number, and where it ends; false: none. */
static bool take_number(const char **path, uint64_t low, uint64_t high, uint64_t *out)
{
    char digits[24];
    size_t length = strspn(*path, "0123456789");
    if (length == 0 || length >= sizeof digits)
        return false;
    (void)snprintf(digits, sizeof digits, "%.*s", (int)length, *path);
    *path += length;
    return fl_parse_u64(digits, low, high, out) == FL_OK;
}

/* The file of a version is written once and stays; its name is made of numbers alone. */
static void answer_weights(const struct fl_view *view, const struct fl_view_job *job,
                           const struct fl_view_version *version, struct fl_web_reply *reply)
{
    char path[FL_PATH_BYTES];
    struct stat info;
    int length = snprintf(path, sizeof path, "%s/versions/%lld/%u.safetensors", view->directory,
                          (long long)job->row.id, version->version);
    int fd = length > 0 && (size_t)length < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(fd);
        return;
    }
    reply->code = 200;
    reply->type = "application/octet-stream";
    reply->file = fd;
    reply->file_bytes = (uint64_t)info.st_size;
    (void)snprintf(reply->file_name, sizeof reply->file_name, "adapter_model.safetensors");
    reply->has_note = true;
    reply->note.values[0] = job->row.id;
    reply->note.values[1] = version->version;
}

static void answer_config(const struct fl_view_job *job, const struct fl_view_version *version,
                          struct fl_web_reply *reply)
{
    struct fl_adapter *adapter = NULL;
    struct fl_error error;
    if (version->rank == 0 || job->targets.count == 0)
        return;
    enum fl_status status = fl_registry_shape(&job->targets, job->spec, version->ranks, &adapter,
                                              &error);
    if (status == FL_OK)
        status = fl_adapter_config(adapter, &reply->body);
    fl_adapter_destroy(&adapter);
    if (status != FL_OK)
        return;
    reply->code = 200;
    reply->type = "application/json";
    (void)snprintf(reply->file_name, sizeof reply->file_name, "adapter_config.json");
}

/* JOB/VERSION/FILE */
static void answer_adapter(const struct fl_view *view, const char *rest, struct fl_web_reply *reply)
{
    uint64_t job_id, number;
    if (!take_number(&rest, 1, INT64_MAX, &job_id) || *rest++ != '/' ||
        !take_number(&rest, 1, UINT32_MAX, &number))
        return;
    const struct fl_view_job *job = fl_view_find_job(view, (int64_t)job_id);
    const struct fl_view_version *version = job ? fl_view_find_version(job, (uint32_t)number)
                                                : NULL;
    if (version && strcmp(rest, "/adapter_model.safetensors") == 0)
        answer_weights(view, job, version, reply);
    else if (version && strcmp(rest, "/adapter_config.json") == 0)
        answer_config(job, version, reply);
}

static void answer_page(const struct fl_view *view, const char *path, struct fl_web_reply *reply)
{
    const struct fl_view_job *job = NULL;
    uint64_t id;
    if (strcmp(path, "/") != 0) {
        path += strlen("/jobs/");
        job = take_number(&path, 1, INT64_MAX, &id) && *path == '\0'
                  ? fl_view_find_job(view, (int64_t)id)
                  : NULL;
        if (!job)
            return;
    }
    reply->code = 200;
    reply->type = "text/html; charset=utf-8";
    fl_view_page(view, job, &reply->body);
}

/* On the HTTP thread. */
static void answer(void *context, const struct fl_web_view *base, const char *path,
                   struct fl_web_reply *reply)
{
    const struct fl_view *view = (const struct fl_view *)base;
    (void)context;
    if (strcmp(path, "/metrics") == 0) {
        reply->code = 200;
        reply->type = FL_PROM_TYPE;
        fl_view_metrics(view, &reply->body);
    } else if (strcmp(path, "/status.json") == 0) {
        bool made = fl_view_json(view, &reply->body) == FL_OK;
        reply->code = made ? 200 : 500;
        reply->type = "application/json";
    } else if (strcmp(path, "/") == 0 || strncmp(path, "/jobs/", strlen("/jobs/")) == 0)
        answer_page(view, path, reply);
    else if (strncmp(path, "/adapters/", strlen("/adapters/")) == 0)
        answer_adapter(view, path + strlen("/adapters/"), reply);
    else
        (void)fl_html_asset(path, reply);
}

/* What was handed out stands in the audit log, as an export does. */
static void audit_downloads(struct fl_http_desk *self, struct fl_server *server)
{
    struct fl_web_note note;
    struct fl_error error;
    while (fl_web_take_note(self->web, &note)) {
        const struct fl_field fields[] = {FL_I64("job", note.values[0]),
                                          FL_I64("version", note.values[1]),
                                          FL_STR("address", note.address),
                                          {.kind = FL_FIELD_END}};
        (void)!fl_desk_audit(server->desk, "version_downloaded", fields, &error);
    }
}

enum fl_status fl_http_open(const struct fl_desk *desk, struct fl_http_desk **out,
                            struct fl_error *error)
{
    *out = NULL;
    if (!desk->conf.http_listen[0])
        return FL_OK;
    struct fl_http_desk *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->maker.changes = -1;
    self->maker.started_ms = fl_clock_wall(desk->clock);
    const struct fl_web_config config = {.listen = desk->conf.http_listen,
                                         .token_file = desk->conf.http_token_file,
                                         .directory = desk->directory,
                                         .answer = answer,
                                         .context = self};
    enum fl_status status = fl_web_open(&config, &self->web, error);
    if (status != FL_OK)
        fl_http_close(&self);
    *out = self;
    return status;
}

void fl_http_close(struct fl_http_desk **out)
{
    struct fl_http_desk *self = *out;
    if (!self)
        return;
    fl_web_close(&self->web);
    fl_view_maker_free(&self->maker);
    fl_free(self);
    *out = NULL;
}

void fl_http_tick(struct fl_http_desk *self, struct fl_server *server)
{
    struct fl_error error;
    if (!self)
        return;
    int64_t now = fl_server_now(server);
    audit_downloads(self, server);
    if (fl_web_wants(self->web, now)) {
        struct fl_view *view;
        enum fl_status status = fl_view_make(&self->maker, server, &view, &error);
        if (status == FL_OK)
            fl_web_publish(self->web, &view->base);
        else
            fl_log(FL_LOG_WARN, "http_stale", error.text);
        self->unready = status == FL_OK ? NULL : "the database cannot be read";
    }
    fl_web_beat(self->web, now, self->unready);
}
