/* http.c - see http.h. */
#include "coordinator/http.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/http_view.h"
#include "coordinator/server_internal.h"
#include "web/prom.h"
#include "web/web.h"

struct fl_http_desk {
    struct fl_web *web;
    struct fl_view_maker maker;
    const char *unready;
};

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
    }
}

/* A relative name is one in the directory. */
static enum fl_status token_path(const struct fl_desk *desk, char *out, struct fl_error *error)
{
    const char *name = desk->conf.http_token_file;
    out[0] = '\0';
    if (name[0] != '/')
        return name[0] ? fl_path_join(out, desk->directory, name, error) : FL_OK;
    (void)snprintf(out, FL_PATH_BYTES, "%s", name);
    return FL_OK;
}

enum fl_status fl_http_open(const struct fl_desk *desk, struct fl_http_desk **out,
                            struct fl_error *error)
{
    char token[FL_PATH_BYTES];
    *out = NULL;
    if (!desk->conf.http_listen[0])
        return FL_OK;
    struct fl_http_desk *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->maker.changes = -1;
    self->maker.started_ms = fl_clock_wall(desk->clock);
    const struct fl_web_config config = {
        .listen = desk->conf.http_listen, .token_path = token, .answer = answer, .context = self};
    enum fl_status status = token_path(desk, token, error);
    if (status == FL_OK)
        status = fl_web_open(&config, &self->web, error);
    if (status != FL_OK)
        fl_http_close(&self);
    else
        fl_log(FL_LOG_INFO, "http_serving", "metrics and a status page are served by HTTP",
               FL_STR("listen", desk->conf.http_listen), FL_U64("port", fl_web_port(self->web)),
               FL_STR("token", token[0] ? "needed" : "none"));
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
    if (fl_web_wants(self->web, now)) {
        struct fl_view *view;
        enum fl_status status = fl_view_make(&self->maker, server, &view, &error);
        if (status == FL_OK)
            fl_web_publish(self->web, &view->base, now);
        else
            fl_log(FL_LOG_WARN, "http_stale", error.text);
        self->unready = status == FL_OK ? NULL : "the database cannot be read";
    }
    fl_web_beat(self->web, now, self->unready);
}
