/* http_server.c - see http_server.h. One connection at a time, one request a connection. */
#include "worker/http_server.h"

#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REQUEST_BYTES = 16384 };

static void send_all(int fd, const void *bytes, size_t length)
{
    const char *next = bytes;
    while (length > 0) {
        ssize_t sent = send(fd, next, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        next += sent;
        length -= (size_t)sent;
    }
}

/* The header's value up to its line end into out; false: there is none. */
static bool header(const char *request, const char *name, char *out, size_t bytes)
{
    const char *at = strcasestr(request, name);
    if (!at)
        return false;
    at += strlen(name);
    (void)snprintf(out, bytes, "%.*s", (int)strcspn(at, "\r\n"), at);
    return true;
}

static void answer_page(int fd, const struct fl_test_page *page, struct fl_test_hits *hits,
                        const char *request)
{
    char head[512], range[64];
    size_t from = 0;
    hits->range = 0;
    if (header(request, "\r\nRange: bytes=", range, sizeof range)) {
        hits->range = strtol(range, NULL, 10);
        from = page->no_ranges ? 0 : (size_t)hits->range;
    }
    hits->authorization[0] = '\0';
    (void)header(request, "\r\nAuthorization: ", hits->authorization, sizeof hits->authorization);
    const bool first = hits->count++ == 0;
    int status = page->status ? page->status : from ? 206 : 200;
    if (page->location)
        status = 302;
    else if (from > page->length)
        status = 416;
    const size_t length = status >= 300 ? 0 : page->length - from;
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n%s%s%s\r\n",
                     status, length, page->location ? "Location: " : "",
                     page->location ? page->location : "", page->location ? "\r\n" : "");
    send_all(fd, head, (size_t)n);
    if (length > 0)
        send_all(fd, (const char *)page->body + from,
                 first && page->cut && page->cut < length ? page->cut : length);
}

static void serve_one(int fd, const struct fl_test_page *pages, size_t count,
                      struct fl_test_hits *hits)
{
    static char request[REQUEST_BYTES];
    size_t filled = 0;
    while (filled < sizeof request - 1) {
        ssize_t got = recv(fd, request + filled, sizeof request - 1 - filled, 0);
        if (got <= 0)
            break;
        filled += (size_t)got;
        request[filled] = '\0';
        if (strstr(request, "\r\n\r\n"))
            break;
    }
    request[filled] = '\0';
    const char *path = strchr(request, ' ');
    const size_t length = path ? strcspn(++path, " \r\n") : 0;
    for (size_t i = 0; path && i < count; i++) {
        if (strlen(pages[i].path) == length && memcmp(pages[i].path, path, length) == 0) {
            answer_page(fd, &pages[i], &hits[i], request);
            return;
        }
    }
    static const char missing[] =
        "HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    send_all(fd, missing, sizeof missing - 1);
}

void fl_test_server_start(struct fl_test_server *self, const struct fl_test_page *pages,
                          size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    ck_assert_uint_le(count, FL_TEST_PAGES_MAX);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 16), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    (void)snprintf(self->endpoint, sizeof self->endpoint, "http://127.0.0.1:%u",
                   (unsigned)ntohs(address.sin_port));
    self->hits = mmap(NULL, FL_TEST_PAGES_MAX * sizeof *self->hits, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(self->hits != MAP_FAILED);
    self->child = fork();
    ck_assert_int_ge(self->child, 0);
    if (self->child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            int fd = accept(listener, NULL, NULL);
            if (fd < 0)
                _exit(1);
            serve_one(fd, pages, count, self->hits);
            close(fd);
        }
    }
    close(listener);
}

void fl_test_server_stop(struct fl_test_server *self)
{
    if (self->child <= 0)
        return;
    (void)kill(self->child, SIGKILL);
    (void)waitpid(self->child, NULL, 0);
    (void)munmap(self->hits, FL_TEST_PAGES_MAX * sizeof *self->hits);
    self->child = 0;
}
