/*
 * web.c - the HTTP thread; see web.h.
 *
 * It polls libmicrohttpd's epoll descriptor itself rather than leave that to the library, because
 * the library's timeout is one of inactivity: who sends a byte a second is never late by it. So
 * each connection has a visit with a deadline of its own, kept by this thread alone.
 */
#include "web/web.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/clock.h"
#include "base/log.h"
#include "web/prom.h"

#define CONNECTIONS_MAX  64
#define CONNECTIONS_OF_1 32
#define FILES_MAX        4
#define REQUEST_BYTES    8192
#define BACKLOG          64
#define IDLE_SECONDS     30
#define HEADERS_MS       10000
#define PAGE_MS          60000
#define FILE_MS          3600000
#define STEP_MS          1000 /* how late a deadline may be kept */
#define FRESH_MS         500
#define STALE_MS         5000
#define NOTES_MAX        16
#define PATH_BYTES_MAX   200
#define ADDRESS_BYTES    64

static const char security_policy[] =
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct visit { /* a connection */
    struct visit *before, *after;
    int fd;
    int64_t deadline_ms;
    bool is_file, cut;
    char address[ADDRESS_BYTES];
};

enum { CODE_OK, CODE_REFUSED, CODE_NOT_FOUND, CODE_OTHER, CODE_COUNT };

struct fl_web {
    struct fl_web_access access;
    fl_web_answer answer;
    void *context;
    struct MHD_Daemon *daemon;
    int socket, wake;
    uint16_t port;
    pthread_t thread;
    bool has_thread;
    atomic_bool stopping;
    /* between the threads */
    atomic_llong beat_ms;
    _Atomic(const char *) unready;
    atomic_bool asked;
    pthread_mutex_t lock;
    struct fl_web_view *view; /* under lock, as are the notes */
    struct fl_web_note notes[NOTES_MAX];
    uint32_t note_count;
    /* the loop's */
    int64_t wanted_ms; /* when a view was last asked for; 0: never */
    /* the HTTP thread's */
    struct visit *visits;
    uint32_t visit_count, files;
    uint64_t requests[CODE_COUNT], cut;
};

static const char *const code_names[CODE_COUNT] = {"ok", "refused", "not_found", "other"};

static int64_t now(void)
{
    return fl_clock_now(fl_clock_system());
}

/* ---- views ---- */

static void release(struct fl_web *self, struct fl_web_view *view)
{
    if (!view)
        return;
    (void)pthread_mutex_lock(&self->lock);
    bool last = --view->references == 0;
    (void)pthread_mutex_unlock(&self->lock);
    if (last)
        view->destroy(view);
}

static struct fl_web_view *newest(struct fl_web *self)
{
    (void)pthread_mutex_lock(&self->lock);
    struct fl_web_view *view = self->view;
    if (view)
        view->references++;
    (void)pthread_mutex_unlock(&self->lock);
    return view;
}

void fl_web_publish(struct fl_web *self, struct fl_web_view *view)
{
    view->references = 1;
    (void)pthread_mutex_lock(&self->lock);
    struct fl_web_view *old = self->view;
    self->view = view;
    (void)pthread_mutex_unlock(&self->lock);
    release(self, old);
}

bool fl_web_wants(struct fl_web *self, int64_t now_ms)
{
    int64_t age = now_ms - self->wanted_ms;
    bool first = self->wanted_ms == 0;
    if (!first && (age < FRESH_MS || (age < STALE_MS && !atomic_load(&self->asked))))
        return false;
    atomic_store(&self->asked, false);
    self->wanted_ms = now_ms;
    return true;
}

void fl_web_beat(struct fl_web *self, int64_t now_ms, const char *unready)
{
    atomic_store(&self->unready, unready);
    atomic_store(&self->beat_ms, now_ms);
}

bool fl_web_take_note(struct fl_web *self, struct fl_web_note *out)
{
    (void)pthread_mutex_lock(&self->lock);
    bool any = self->note_count > 0;
    if (any) {
        *out = self->notes[0];
        memmove(self->notes, self->notes + 1, --self->note_count * sizeof self->notes[0]);
    }
    (void)pthread_mutex_unlock(&self->lock);
    return any;
}

static bool leave_note(struct fl_web *self, const struct fl_web_note *note)
{
    (void)pthread_mutex_lock(&self->lock);
    bool room = self->note_count < NOTES_MAX;
    if (room)
        self->notes[self->note_count++] = *note;
    (void)pthread_mutex_unlock(&self->lock);
    return room;
}

/* ---- answers ---- */

static void plain(struct fl_web_reply *reply, unsigned code, const char *text)
{
    reply->code = code;
    reply->type = "text/plain; charset=utf-8";
    fl_buf_printf(&reply->body, "%s\n", text);
}

/* true: the path was one of the two. */
static bool answer_probe(struct fl_web *self, const char *path, struct fl_web_reply *reply)
{
    bool ready = strcmp(path, "/readyz") == 0;
    if (!ready && strcmp(path, "/healthz") != 0)
        return false;
    int64_t beat = atomic_load(&self->beat_ms), silent = now() - beat;
    const char *unready = atomic_load(&self->unready);
    if (beat == 0 || silent > (ready ? FL_WEB_READY_MS : FL_WEB_LIVE_MS))
        plain(reply, MHD_HTTP_SERVICE_UNAVAILABLE, "the daemon's loop is silent");
    else if (ready && unready)
        plain(reply, MHD_HTTP_SERVICE_UNAVAILABLE, unready);
    else
        plain(reply, MHD_HTTP_OK, "ok");
    return true;
}

static void append_own_metrics(const struct fl_web *self, struct fl_buf *out)
{
    fl_prom_head(out, "fedlora_http_requests_total", "counter",
                 "HTTP requests by what came of them.");
    for (int i = 0; i < CODE_COUNT; i++)
        fl_prom(out, "fedlora_http_requests_total", "", (double)self->requests[i], "result",
                code_names[i], NULL);
    fl_prom_head(out, "fedlora_http_late_total", "counter",
                 "HTTP connections that were ended because they took too long.");
    fl_prom(out, "fedlora_http_late_total", "", (double)self->cut, NULL);
    fl_prom_head(out, "fedlora_http_connections", "gauge", "Open HTTP connections.");
    fl_prom(out, "fedlora_http_connections", "", self->visit_count, NULL);
}

static void answer_view(struct fl_web *self, const char *path, struct fl_web_reply *reply)
{
    struct fl_web_view *view = newest(self);
    if (!view) {
        plain(reply, MHD_HTTP_SERVICE_UNAVAILABLE, "the daemon is starting");
        return;
    }
    self->answer(self->context, view, path, reply);
    release(self, view);
    if (reply->code == MHD_HTTP_OK && strcmp(path, "/metrics") == 0)
        append_own_metrics(self, &reply->body);
    if (reply->code == MHD_HTTP_NOT_FOUND && reply->body.length == 0)
        plain(reply, MHD_HTTP_NOT_FOUND, "no such page");
}

static void log_refused(const struct visit *visit, const char *why, const char *path)
{
    fl_log(FL_LOG_WARN, "http_refused", why, FL_STR("address", visit->address),
           FL_STR("path", path));
}

/* Is it refused already? The reply is then made. */
static bool refuse(struct fl_web *self, struct MHD_Connection *connection, struct visit *visit,
                   const char *method, const char *path, struct fl_web_reply *reply)
{
    static const char *const why[] = {[FL_WEB_NO_TOKEN] = "no token was given",
                                      [FL_WEB_WRONG_TOKEN] = "a wrong token was given",
                                      [FL_WEB_OTHER_HOST] = "asked for under a foreign name"};
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        plain(reply, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD");
        log_refused(visit, "a method other than GET and HEAD", path);
        return true;
    }
    if (strlen(path) > PATH_BYTES_MAX) {
        plain(reply, MHD_HTTP_URI_TOO_LONG, "the path is too long");
        log_refused(visit, "a path that is too long", path);
        return true;
    }
    if (answer_probe(self, path, reply))
        return true;
    enum fl_web_decision decision = fl_web_access_decide(
        &self->access,
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST),
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION));
    if (decision == FL_WEB_ALLOWED)
        return false;
    if (decision == FL_WEB_OTHER_HOST)
        plain(reply, MHD_HTTP_MISDIRECTED_REQUEST,
              "without a token only localhost and 127.0.0.1 are answered to; set token_file");
    else
        plain(reply, MHD_HTTP_UNAUTHORIZED, "a token is needed: any name, the token as password");
    log_refused(visit, why[decision], path);
    return true;
}

static void count(struct fl_web *self, unsigned code)
{
    if (code == MHD_HTTP_OK)
        self->requests[CODE_OK]++;
    else if (code == MHD_HTTP_NOT_FOUND)
        self->requests[CODE_NOT_FOUND]++;
    else
        self->requests[code >= 400 && code < 500 ? CODE_REFUSED : CODE_OTHER]++;
}

static void add_headers(struct MHD_Response *response, const struct fl_web_reply *reply)
{
    char save[FL_WEB_FILE_BYTES + 32];
    const char *const headers[][2] = {
        {MHD_HTTP_HEADER_CONTENT_TYPE, reply->type},
        {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
        {MHD_HTTP_HEADER_CONNECTION, "close"},
        {"Content-Security-Policy", security_policy},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        (void)MHD_add_response_header(response, headers[i][0], headers[i][1]);
    if (reply->code == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    if (reply->code == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                      "Basic realm=\"fedlora\", charset=\"UTF-8\"");
    if (reply->file_name[0]) {
        (void)snprintf(save, sizeof save, "attachment; filename=\"%s\"", reply->file_name);
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_DISPOSITION, save);
    }
}

/* A file goes out only when the loop will know of it, and a place for it is free. */
static void check_file(struct fl_web *self, struct visit *visit, struct fl_web_reply *reply)
{
    if (reply->file < 0 && !reply->has_note)
        return;
    (void)snprintf(reply->note.address, sizeof reply->note.address, "%s", visit->address);
    if ((reply->file < 0 || self->files < FILES_MAX) &&
        (!reply->has_note || leave_note(self, &reply->note)))
        return;
    if (reply->file >= 0)
        (void)close(reply->file);
    reply->file = -1;
    reply->file_name[0] = '\0';
    fl_buf_free(&reply->body);
    plain(reply, MHD_HTTP_SERVICE_UNAVAILABLE, "too many downloads at once; try again");
}

static enum MHD_Result send_reply(struct fl_web *self, struct MHD_Connection *connection,
                                  struct visit *visit, struct fl_web_reply *reply)
{
    struct MHD_Response *response;
    check_file(self, visit, reply);
    if (reply->file >= 0) {
        response = MHD_create_response_from_fd64(reply->file_bytes, reply->file);
        if (!response)
            (void)close(reply->file);
    } else
        response = MHD_create_response_from_buffer(reply->body.length, reply->body.data,
                                                   MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO; /* memory: the library ends the connection */
    add_headers(response, reply);
    count(self, reply->code);
    visit->is_file = reply->file >= 0;
    self->files += visit->is_file;
    visit->deadline_ms = now() + (visit->is_file ? FILE_MS : PAGE_MS);
    enum MHD_Result result = MHD_queue_response(connection, reply->code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *body, size_t *body_bytes, void **state)
{
    struct fl_web *self = context;
    struct fl_web_reply reply = {.code = MHD_HTTP_NOT_FOUND, .file = -1};
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct visit *visit = info ? info->socket_context : NULL;
    (void)version;
    (void)body;
    (void)body_bytes;
    (void)state;
    if (!visit)
        return MHD_NO;
    fl_buf_init(&reply.body, FL_WEB_PAGE_BYTES);
    if (!refuse(self, connection, visit, method, path, &reply)) {
        atomic_store(&self->asked, true);
        answer_view(self, path, &reply);
    }
    if (fl_buf_status(&reply.body) != FL_OK) {
        fl_buf_free(&reply.body);
        plain(&reply, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
    }
    enum MHD_Result result = fl_buf_status(&reply.body) == FL_OK
                                 ? send_reply(self, connection, visit, &reply)
                                 : MHD_NO;
    fl_buf_free(&reply.body);
    return result;
}

/* ---- connections ---- */

static void begin_visit(struct fl_web *self, struct MHD_Connection *connection, void **state)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct visit *visit = info ? fl_calloc(1, sizeof *visit) : NULL;
    *state = visit;
    if (!visit)
        return; /* without a visit no request is answered, and the library's timeout ends it */
    visit->fd = info->connect_fd;
    visit->deadline_ms = now() + HEADERS_MS;
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info)
        (void)getnameinfo(info->client_addr,
                          info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                                   : sizeof(struct sockaddr_in),
                          visit->address, sizeof visit->address, NULL, 0, NI_NUMERICHOST);
    visit->after = self->visits;
    if (self->visits)
        self->visits->before = visit;
    self->visits = visit;
    self->visit_count++;
}

static void end_visit(struct fl_web *self, struct visit *visit)
{
    if (!visit)
        return;
    if (visit->before)
        visit->before->after = visit->after;
    else if (self->visits == visit)
        self->visits = visit->after;
    if (visit->after)
        visit->after->before = visit->before;
    self->visit_count--;
    self->files -= visit->is_file;
    fl_free(visit);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        begin_visit(context, connection, state);
    else
        end_visit(context, *state);
}

/* The library sees its end on its next turn, and tells of it. */
static void cut_late(struct fl_web *self, int64_t now_ms)
{
    for (struct visit *v = self->visits; v; v = v->after) {
        if (v->cut || now_ms < v->deadline_ms)
            continue;
        v->cut = true;
        self->cut++;
        fl_log(FL_LOG_WARN, "http_refused", "a connection took too long",
               FL_STR("address", v->address));
        (void)shutdown(v->fd, SHUT_RDWR);
    }
}

static int wait_ms(const struct fl_web *self)
{
    MHD_UNSIGNED_LONG_LONG library;
    if (MHD_get_timeout(self->daemon, &library) == MHD_YES && library < STEP_MS)
        return (int)library;
    return self->visit_count > 0 ? STEP_MS : -1;
}

static void *serve(void *argument)
{
    struct fl_web *self = argument;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(self->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct pollfd fds[2] = {{.fd = info->epoll_fd, .events = POLLIN},
                            {.fd = self->wake, .events = POLLIN}};
    while (!atomic_load(&self->stopping)) {
        (void)poll(fds, 2, wait_ms(self));
        (void)MHD_run(self->daemon);
        cut_late(self, now());
    }
    return NULL;
}

/* ---- life ---- */

static void on_library_log(void *context, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static void on_library_log(void *context, const char *format, va_list args)
{
    char text[256];
    (void)context;
    (void)vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\r\n")] = '\0';
    char *page = strstr(text, " ('<"); /* of HTML: the code before it says enough */
    if (page)
        *page = '\0';
    fl_log(FL_LOG_WARN, "http_trouble", text);
}

static enum fl_status bind_socket(struct fl_web *self, const char *listen_on,
                                  struct fl_error *error)
{
    const int on = 1;
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    self->socket = socket(self->access.address.ss_family,
                          SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->socket < 0)
        return fl_fail_errno(error, errno, "[http] listen = %s", listen_on);
    (void)setsockopt(self->socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(self->socket, (const struct sockaddr *)&self->access.address,
             self->access.address_length) != 0 ||
        listen(self->socket, BACKLOG) != 0 ||
        getsockname(self->socket, (struct sockaddr *)&bound, &length) != 0) {
        if (errno != EADDRINUSE)
            return fl_fail_errno(error, errno, "[http] listen = %s", listen_on);
        return fl_fail(error, FL_EBUSY,
                       "[http] listen = %s: another program has this port; end it, or listen on "
                       "another",
                       listen_on);
    }
    char port[16] = "";
    uint64_t number = 0;
    (void)getnameinfo((const struct sockaddr *)&bound, length, NULL, 0, port, sizeof port,
                      NI_NUMERICSERV);
    if (fl_parse_u64(port, 1, 65535, &number) == FL_OK)
        self->port = (uint16_t)number;
    return FL_OK;
}

static enum fl_status start_library(struct fl_web *self, struct fl_error *error)
{
    self->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, self,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_log, self, MHD_OPTION_LISTEN_SOCKET, self->socket,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_OF_1, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, self, MHD_OPTION_END);
    if (!self->daemon)
        return fl_fail(error, FL_EIO, "the HTTP server cannot start");
    self->socket = -1; /* the library closes it */
    return FL_OK;
}

/* Signals are for the loop. */
static enum fl_status start_thread(struct fl_web *self, struct fl_error *error)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = pthread_create(&self->thread, NULL, serve, self);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    self->has_thread = code == 0;
    return code == 0 ? FL_OK : fl_fail_errno(error, code, "the HTTP thread cannot start");
}

static enum fl_status open_access(struct fl_web *self, const struct fl_web_config *config,
                                  struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    const char *token = config->token_file;
    if (token[0] && token[0] != '/') {
        enum fl_status status = fl_path_join(path, config->directory, token, error);
        if (status != FL_OK)
            return status;
        token = path;
    }
    return fl_web_access_open(config->listen, token, &self->access, error);
}

enum fl_status fl_web_open(const struct fl_web_config *config, struct fl_web **out,
                           struct fl_error *error)
{
    *out = NULL;
    struct fl_web *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->answer = config->answer;
    self->context = config->context;
    self->socket = -1;
    (void)pthread_mutex_init(&self->lock, NULL);
    enum fl_status status = FL_OK;
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake < 0)
        status = fl_fail_errno(error, errno, "eventfd");
    if (status == FL_OK)
        status = open_access(self, config, error);
    if (status == FL_OK)
        status = bind_socket(self, config->listen, error);
    if (status == FL_OK)
        status = start_library(self, error);
    if (status == FL_OK)
        status = start_thread(self, error);
    if (status != FL_OK)
        fl_web_close(&self);
    else
        fl_log(FL_LOG_INFO, "http_serving", "metrics and a status page are served by HTTP",
               FL_STR("listen", config->listen), FL_U64("port", fl_web_port(self)),
               FL_STR("token", config->token_file[0] ? "needed" : "none"));
    *out = self;
    return status;
}

void fl_web_close(struct fl_web **out)
{
    struct fl_web *self = *out;
    const uint64_t one = 1;
    if (!self)
        return;
    if (self->has_thread) {
        atomic_store(&self->stopping, true);
        while (write(self->wake, &one, sizeof one) < 0 && errno == EINTR)
            continue;
        (void)pthread_join(self->thread, NULL);
    }
    if (self->daemon)
        MHD_stop_daemon(self->daemon);
    if (self->socket >= 0)
        (void)close(self->socket);
    if (self->wake >= 0)
        (void)close(self->wake);
    release(self, self->view);
    (void)pthread_mutex_destroy(&self->lock);
    fl_free(self);
    *out = NULL;
}

uint16_t fl_web_port(const struct fl_web *self)
{
    return self->port;
}
