/*
 * http_get.c - see http_get.h.
 *
 * libcurl is opened when something is to be fetched and not when the program starts: it brings
 * thirty libraries with it, which is half of the time that a start takes, and a site that lets no
 * program out into the internet need not have it at all.
 */
#include "worker/http_get.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"

enum { URL_BYTES = 2048, CONNECT_SECONDS = 30, STALL_SECONDS = 60, REDIRECTS_MAX = 5 };

/* What is used of libcurl. */
struct library {
    void *handle;
    CURLcode (*global_init)(long flags);
    void (*global_cleanup)(void);
    CURL *(*init)(void);
    CURLcode (*set)(CURL *curl, CURLoption option, ...);
    CURLcode (*get)(CURL *curl, CURLINFO info, ...);
    CURLcode (*perform)(CURL *curl);
    void (*cleanup)(CURL *curl);
    const char *(*text)(CURLcode code);
};

struct fl_http {
    struct library lib;
    CURL *curl;
    const char *endpoint, *token;
    const atomic_int *stop;
    char reason[CURL_ERROR_SIZE];
};

/* Where one response goes. */
struct sink {
    struct fl_http *http;
    struct fl_buf *text; /* or */
    int fd;
    uint64_t at, bytes; /* of the file: written, and at most */
    bool begun;
    enum fl_status status; /* why it was refused */
    fl_http_progress progress;
    void *context;
};

static bool is_local(const char *endpoint)
{
    static const char *const hosts[] = {"http://127.0.0.1", "http://localhost"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        const size_t length = strlen(hosts[i]);
        const char next = strncmp(endpoint, hosts[i], length) == 0 ? endpoint[length] : '?';
        if (next == '\0' || next == ':' || next == '/') {
            return true;
        }
    }
    return false;
}

/* The library's names carry their version: another soname has another interface. */
static enum fl_status load(struct library *lib, struct fl_error *error)
{
    const struct {
        const char *name;
        void *function; /* where its pointer goes */
    } names[] = {
        {"curl_global_init", &lib->global_init}, {"curl_global_cleanup", &lib->global_cleanup},
        {"curl_easy_init", &lib->init},          {"curl_easy_setopt", &lib->set},
        {"curl_easy_getinfo", &lib->get},        {"curl_easy_perform", &lib->perform},
        {"curl_easy_cleanup", &lib->cleanup},    {"curl_easy_strerror", &lib->text}};
    lib->handle = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!lib->handle) {
        return fl_fail(error, FL_ENOTFOUND,
                       "downloads need libcurl (%s): install libcurl4, or copy the model's folder "
                       "here by other means",
                       dlerror());
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *symbol = dlsym(lib->handle, names[i].name);
        if (!symbol) {
            (void)dlclose(lib->handle);
            return fl_fail(error, FL_ENOTFOUND, "this libcurl has no %s: install libcurl4",
                           names[i].name);
        }
        memcpy(names[i].function, &symbol, sizeof symbol);
    }
    return FL_OK;
}

enum fl_status fl_http_open(const char *endpoint, const char *token, const atomic_int *stop,
                            struct fl_http **out, struct fl_error *error)
{
    *out = NULL;
    const bool local = is_local(endpoint);
    if ((!local && strncmp(endpoint, "https://", 8) != 0) || strpbrk(endpoint, " @?#")) {
        return fl_fail(error, FL_EUSAGE,
                       "%.100s: only https:// is spoken (http:// to 127.0.0.1 and localhost)",
                       endpoint);
    }
    struct fl_http *self = fl_calloc(1, sizeof *self);
    if (!self) {
        return fl_fail_memory(error);
    }
    *self = (struct fl_http){.endpoint = endpoint, .token = token, .stop = stop};
    enum fl_status status = load(&self->lib, error);
    if (status != FL_OK) {
        fl_free(self);
        return status;
    }
    const struct library *lib = &self->lib;
    if (lib->global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(self->curl = lib->init())) {
        fl_free(self);
        return fl_fail(error, FL_ENOMEM, "libcurl can't be started");
    }
    CURL *c = self->curl;
    const char *protocols = local ? "http" : "https";
    (void)lib->set(c, CURLOPT_PROTOCOLS_STR, protocols);
    (void)lib->set(c, CURLOPT_REDIR_PROTOCOLS_STR, protocols);
    (void)lib->set(c, CURLOPT_FOLLOWLOCATION, 1L);
    (void)lib->set(c, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    (void)lib->set(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    (void)lib->set(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)lib->set(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    (void)lib->set(c, CURLOPT_NOSIGNAL, 1L);
    (void)lib->set(c, CURLOPT_USERAGENT, "fedlora/" FL_VERSION);
    (void)lib->set(c, CURLOPT_ERRORBUFFER, self->reason);
    if (token && token[0]) { /* curl keeps it from other hosts that a redirect leads to */
        (void)lib->set(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        (void)lib->set(c, CURLOPT_XOAUTH2_BEARER, token);
    }
    *out = self;
    return FL_OK;
}

void fl_http_close(struct fl_http **self)
{
    if (!*self) {
        return;
    }
    (*self)->lib.cleanup((*self)->curl);
    (*self)->lib.global_cleanup(); /* it stays loaded: what it started may not be unloaded */
    fl_free(*self);
    *self = NULL;
}

static long code_of(const struct sink *sink)
{
    long code = 0;
    (void)sink->http->lib.get(sink->http->curl, CURLINFO_RESPONSE_CODE, &code);
    return code;
}

/* A server that knows no ranges sends all: then the file begins anew. */
static bool begin_file(struct sink *sink, long code)
{
    if (code == 200 && sink->at > 0) {
        sink->at = 0;
        if (ftruncate(sink->fd, 0) != 0 || lseek(sink->fd, 0, SEEK_SET) != 0) {
            sink->status = FL_EIO;
        }
    }
    sink->begun = true;
    return sink->status == FL_OK;
}

/* CURLOPT_WRITEFUNCTION: anything but `length` ends the transfer. */
static size_t receive(char *data, size_t size, size_t count, void *context)
{
    struct sink *sink = context;
    const size_t length = size * count;
    const long code = code_of(sink);
    if (code != 200 && code != 206) {
        return length; /* the page of an error: nobody reads it */
    }
    if (sink->text) {
        fl_buf_append(sink->text, data, length);
        sink->status = fl_buf_status(sink->text);
    } else if (sink->begun || begin_file(sink, code)) {
        sink->status = length > sink->bytes - sink->at ? FL_EFORMAT
                                                       : fl_fs_write_all(sink->fd, data, length);
        sink->at += sink->status == FL_OK ? length : 0;
    }
    return sink->status == FL_OK ? length : 0;
}

/* CURLOPT_XFERINFOFUNCTION */
static int watch(void *context, curl_off_t total, curl_off_t now, curl_off_t up, curl_off_t sent)
{
    const struct sink *sink = context;
    (void)total, (void)now, (void)up, (void)sent;
    if (sink->progress) {
        sink->progress(sink->context, sink->at);
    }
    return sink->http->stop && atomic_load(sink->http->stop) != 0;
}

static enum fl_status explain_code(long code, const char *url, struct fl_error *error)
{
    if (code == 401 || code == 403) {
        return fl_fail(error, FL_EREFUSED,
                       "%s: refused (%ld); a private or gated model needs its terms accepted and "
                       "a token in HF_TOKEN; a name may be misspelt, too",
                       url, code);
    }
    if (code == 404) {
        return fl_fail(error, FL_ENOTFOUND, "%s: not there", url);
    }
    return fl_fail(error, FL_EIO, "%s: the server answers %ld", url, code);
}

static enum fl_status explain(struct sink *sink, CURLcode result, const char *url,
                              struct fl_error *error)
{
    const char *reason = sink->http->reason[0] ? sink->http->reason : sink->http->lib.text(result);
    switch (sink->status) {
    case FL_OK:
        break;
    case FL_ERANGE:
    case FL_EFORMAT:
        return fl_fail(error, sink->status, "%s: more bytes come than it has", url);
    default:
        return fl_fail(error, sink->status, "%s: its bytes can't be kept: %s", url,
                       fl_status_text(sink->status));
    }
    if (result == CURLE_ABORTED_BY_CALLBACK) {
        return fl_fail(error, FL_ESTOPPED, "stopped");
    }
    if (result == CURLE_OPERATION_TIMEDOUT) {
        return fl_fail(error, FL_ETIMEOUT, "%s: %s", url, reason);
    }
    return fl_fail(error, FL_EIO, "%s: %s", url, reason);
}

static enum fl_status perform(struct fl_http *self, const char *path, uint64_t offset,
                              struct sink *sink, struct fl_error *error)
{
    char url[URL_BYTES], range[32];
    CURL *c = self->curl;
    size_t host = strlen(self->endpoint);
    host -= host > 0 && self->endpoint[host - 1] == '/';
    if (snprintf(url, sizeof url, "%.*s%s", (int)host, self->endpoint, path) >= (int)sizeof url) {
        return fl_fail(error, FL_ERANGE, "the address is too long");
    }
    self->reason[0] = '\0';
    sink->http = self;
    (void)self->lib.set(c, CURLOPT_URL, url);
    /* not RESUME_FROM: that refuses servers that send the whole file instead */
    (void)snprintf(range, sizeof range, "%llu-", (unsigned long long)offset);
    (void)self->lib.set(c, CURLOPT_RANGE, offset ? range : NULL);
    (void)self->lib.set(c, CURLOPT_WRITEFUNCTION, receive);
    (void)self->lib.set(c, CURLOPT_WRITEDATA, sink);
    (void)self->lib.set(c, CURLOPT_NOPROGRESS, 0L);
    (void)self->lib.set(c, CURLOPT_XFERINFOFUNCTION, watch);
    (void)self->lib.set(c, CURLOPT_XFERINFODATA, sink);
    const CURLcode result = self->lib.perform(c);
    const long code = code_of(sink);
    if (code >= 400) {
        return explain_code(code, url, error);
    }
    if (result != CURLE_OK) {
        return explain(sink, result, url, error);
    }
    return code == 200 || code == 206 ? FL_OK : explain_code(code, url, error);
}

enum fl_status fl_http_text(struct fl_http *self, const char *path, struct fl_buf *out,
                            struct fl_error *error)
{
    struct sink sink = {.text = out, .fd = -1};
    return perform(self, path, 0, &sink, error);
}

enum fl_status fl_http_file(struct fl_http *self, const char *path, int fd, uint64_t offset,
                            uint64_t bytes, fl_http_progress progress, void *context,
                            struct fl_error *error)
{
    struct sink sink = {
        .fd = fd, .at = offset, .bytes = bytes, .progress = progress, .context = context};
    if (lseek(fd, (off_t)offset, SEEK_SET) < 0) {
        return fl_fail(error, FL_EIO, "the file can't be continued");
    }
    return perform(self, path, offset, &sink, error);
}
