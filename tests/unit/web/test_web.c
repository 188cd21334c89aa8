/* Tests of the HTTP thread: its answers, its bounds, and the seam to the loop. */
#include "web/web.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "runner.h"

struct view {
    struct fl_web_view base;
    int number, sum; /* sum = 3 number: torn views would differ */
    char file[FL_PATH_BYTES];
};

static char directory[FL_PATH_BYTES], answer[65536];
static struct fl_web *web;
static struct fl_error error;
static int destroyed;

static void destroy(struct fl_web_view *view)
{
    __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST);
    fl_free(view);
}

static void respond(void *context, const struct fl_web_view *base, const char *path,
                    struct fl_web_reply *reply)
{
    const struct view *view = (const struct view *)base;
    (void)context;
    ck_assert_int_eq(view->sum, 3 * view->number);
    if (strcmp(path, "/file") == 0) {
        reply->code = 200;
        reply->type = "application/octet-stream";
        reply->file = open(view->file, O_RDONLY | O_CLOEXEC);
        reply->file_bytes = 5;
        reply->has_note = true;
        reply->note.values[0] = 7;
        (void)snprintf(reply->file_name, sizeof reply->file_name, "x.bin");
    } else if (strcmp(path, "/file/none") != 0) {
        reply->code = strcmp(path, "/missing") == 0 ? 404 : 200;
        reply->type = "text/plain; charset=utf-8";
        if (reply->code == 200)
            fl_buf_printf(&reply->body, "number %d\n", view->number);
    }
}

static void publish(int number)
{
    struct view *view = fl_calloc(1, sizeof *view);
    ck_assert_ptr_nonnull(view);
    view->base.destroy = destroy;
    view->number = number;
    view->sum = 3 * number;
    fl_assert_ok(fl_path_join(view->file, directory, "file", &error), &error);
    fl_web_publish(web, &view->base);
}

static void open_web(const char *token_file)
{
    const struct fl_web_config config = {
        .listen = "127.0.0.1:0", .token_file = token_file, .answer = respond};
    fl_assert_ok(fl_web_open(&config, &web, &error), &error);
}

static void setup(void)
{
    char path[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "file", &error), &error);
    fl_assert_ok(fl_fs_write(path, "bytes", 5, 0600, &error), &error);
    open_web("");
}

static void teardown(void)
{
    fl_web_close(&web);
}

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(fl_web_port(web)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void say(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        length -= (size_t)n;
    }
}

/* All that comes until the end, within 20 s; the status code. */
static int hear(int fd)
{
    size_t used = 0;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (used < sizeof answer - 1 && poll(&wait, 1, 20000) > 0) {
        ssize_t n = recv(fd, answer + used, sizeof answer - 1 - used, 0);
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    answer[used] = '\0';
    (void)close(fd);
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

static int ask(const char *request)
{
    int fd = dial();
    say(fd, request, strlen(request));
    return hear(fd);
}

static int get(const char *path, const char *more)
{
    char request[4096];
    (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path,
                   more);
    return ask(request);
}

START_TEST(a_page_comes_from_the_newest_view_with_all_guards)
{
    static const char *const guards[] = {"Content-Security-Policy: default-src 'none'",
                                         "Cache-Control: no-store",
                                         "X-Content-Type-Options: nosniff",
                                         "X-Frame-Options: DENY",
                                         "Referrer-Policy: no-referrer",
                                         "Connection: close"};
    ck_assert_int_eq(get("/", ""), 503);
    publish(1);
    publish(2);
    ck_assert_int_eq(get("/?x=1", ""), 200);
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nnumber 2\n"));
    for (size_t i = 0; i < sizeof guards / sizeof guards[0]; i++)
        ck_assert_msg(strstr(answer, guards[i]) != NULL, "%s is not in %s", guards[i], answer);
    ck_assert_int_eq(get("/missing", ""), 404);
    ck_assert_int_eq(ask("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200);
    ck_assert_ptr_null(strstr(answer, "number"));
    ck_assert_int_eq(destroyed, 1);
    fl_web_close(&web);
    ck_assert_int_eq(destroyed, 2);
}
END_TEST

START_TEST(probes_say_whether_the_loop_lives)
{
    int64_t now = fl_clock_now(fl_clock_system());
    ck_assert_int_eq(get("/healthz", ""), 503);
    fl_web_beat(web, now, NULL);
    ck_assert_int_eq(get("/healthz", ""), 200);
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nok\n"));
    ck_assert_int_eq(get("/readyz", ""), 200);
    fl_web_beat(web, now, "the database cannot be read");
    ck_assert_int_eq(get("/healthz", ""), 200);
    ck_assert_int_eq(get("/readyz", ""), 503);
    ck_assert_ptr_nonnull(strstr(answer, "the database cannot be read"));
    fl_web_beat(web, now - FL_WEB_READY_MS - 1000, NULL);
    ck_assert_int_eq(get("/healthz", ""), 200);
    ck_assert_int_eq(get("/readyz", ""), 503);
    fl_web_beat(web, now - FL_WEB_LIVE_MS - 1000, NULL);
    ck_assert_int_eq(get("/healthz", ""), 503);
}
END_TEST

START_TEST(other_methods_and_hosts_are_refused)
{
    publish(1);
    ck_assert_int_eq(ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"),
                     405);
    ck_assert_ptr_nonnull(strstr(answer, "Allow: GET, HEAD"));
    ck_assert_int_eq(ask("DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
    ck_assert_int_eq(ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 421);
    ck_assert_int_eq(ask("GET / HTTP/1.1\r\n\r\n"), 400);
    ck_assert_int_ne(ask("\x16\x03\x01\x02garbage\r\n\r\n"), 200);
    ck_assert_int_eq(get("/metrics", ""), 200);
    ck_assert_ptr_nonnull(strstr(answer, "fedlora_http_requests_total{result=\"refused\"} 3\n"));
}
END_TEST

START_TEST(without_the_token_nothing_is_told)
{
    char path[FL_PATH_BYTES];
    fl_web_close(&web);
    fl_assert_ok(fl_path_join(path, directory, "token", &error), &error);
    fl_assert_ok(fl_fs_write(path, "correct-horse-battery\n", 22, 0600, &error), &error);
    open_web(path);
    publish(1);
    fl_web_beat(web, fl_clock_now(fl_clock_system()), NULL);
    ck_assert_int_eq(get("/", ""), 401);
    ck_assert_ptr_nonnull(strstr(answer, "WWW-Authenticate: Basic realm=\"fedlora\""));
    ck_assert_int_eq(get("/missing", ""), 401); /* nor what there is */
    ck_assert_int_eq(get("/?token=correct-horse-battery", ""), 401);
    ck_assert_int_eq(get("/", "Authorization: Bearer wrong-horse-battery\r\n"), 401);
    ck_assert_int_eq(get("/", "Authorization: Bearer correct-horse-battery\r\n"), 200);
    ck_assert_int_eq(get("/healthz", ""), 200);
}
END_TEST

START_TEST(requests_are_bounded)
{
    char long_path[512], header[16384];
    publish(1);
    memset(long_path, 'a', sizeof long_path);
    long_path[0] = '/';
    long_path[sizeof long_path - 1] = '\0';
    ck_assert_int_eq(get(long_path, ""), 414);
    int length = snprintf(header, sizeof header, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ");
    memset(header + length, 'b', sizeof header - (size_t)length);
    int fd = dial();
    say(fd, header, sizeof header);
    int code = hear(fd);
    ck_assert_msg(code == 431 || code == 413 || code == 0, "code %d", code);
    ck_assert_int_eq(get("/", ""), 200);
}
END_TEST

START_TEST(who_trickles_is_cut_though_never_idle)
{
    publish(1);
    int64_t began = fl_clock_now(fl_clock_system());
    int fd = dial();
    const struct timespec pause = {.tv_nsec = 300000000};
    say(fd, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ", 36);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (poll(&wait, 1, 0) == 0 && fl_clock_now(fl_clock_system()) - began < 20000) {
        say(fd, "y", 1);
        (void)nanosleep(&pause, NULL);
    }
    int64_t took = fl_clock_now(fl_clock_system()) - began;
    ck_assert_int_eq(hear(fd), 0);
    ck_assert_msg(took >= 9000 && took < 16000, "%lld ms", (long long)took);
    ck_assert_int_eq(get("/metrics", ""), 200);
    ck_assert_ptr_nonnull(strstr(answer, "fedlora_http_late_total 1\n"));
}
END_TEST

START_TEST(one_address_cannot_take_all_connections)
{
    int fds[80], open_ones = 0;
    publish(1);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        fds[i] = dial();
    const struct timespec pause = {.tv_nsec = 500000000};
    (void)nanosleep(&pause, NULL);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        struct pollfd wait = {.fd = fds[i], .events = POLLIN};
        open_ones += poll(&wait, 1, 0) == 0;
    }
    ck_assert_int_le(open_ones, 32);
    ck_assert_int_ge(open_ones, 16);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        (void)close(fds[i]);
    (void)nanosleep(&pause, NULL);
    ck_assert_int_eq(get("/", ""), 200);
}
END_TEST

START_TEST(a_file_leaves_only_when_the_loop_will_know)
{
    struct fl_web_note note;
    publish(1);
    ck_assert(!fl_web_take_note(web, &note));
    for (int i = 0; i < 16; i++) {
        ck_assert_int_eq(get("/file", ""), 200);
        ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nbytes"));
        ck_assert_ptr_nonnull(strstr(answer, "attachment; filename=\"x.bin\""));
    }
    ck_assert_int_eq(get("/file", ""), 503);
    ck_assert_ptr_null(strstr(answer, "bytes"));
    for (int i = 0; i < 16; i++) {
        ck_assert(fl_web_take_note(web, &note));
        ck_assert_int_eq(note.values[0], 7);
        ck_assert_str_eq(note.address, "127.0.0.1");
    }
    ck_assert(!fl_web_take_note(web, &note));
    ck_assert_int_eq(get("/file", ""), 200);
}
END_TEST

START_TEST(views_change_while_they_are_read)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    publish(0);
    for (int i = 1; i <= 50; i++) {
        int fd = dial();
        say(fd, request, strlen(request));
        for (int k = 0; k < 20; k++)
            publish(20 * i + k);
        ck_assert_int_eq(hear(fd), 200);
    }
    fl_web_close(&web);
    ck_assert_int_eq(destroyed, 1001);
}
END_TEST

START_TEST(a_view_is_wanted_when_asked_for_and_not_too_often)
{
    ck_assert(fl_web_wants(web, 1000000));
    ck_assert(!fl_web_wants(web, 1000499)); /* though none was made: a disk that fails is spared */
    ck_assert(!fl_web_wants(web, 1000501)); /* nobody asks */
    ck_assert_int_eq(get("/", ""), 503);
    ck_assert(fl_web_wants(web, 1000501));
    ck_assert_int_eq(get("/", ""), 503);
    ck_assert(!fl_web_wants(web, 1000999));
    ck_assert(fl_web_wants(web, 1001002));
    ck_assert(!fl_web_wants(web, 1005000));
    ck_assert(fl_web_wants(web, 1006003));
}
END_TEST

START_TEST(an_address_that_is_taken_is_told)
{
    char listen_[64];
    struct fl_web *second;
    (void)snprintf(listen_, sizeof listen_, "127.0.0.1:%u", fl_web_port(web));
    const struct fl_web_config config = {.listen = listen_, .token_file = "", .answer = respond};
    ck_assert_int_ne(fl_web_open(&config, &second, &error), FL_OK);
    ck_assert_ptr_null(second);
    ck_assert_ptr_nonnull(strstr(error.text, listen_));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_page_comes_from_the_newest_view_with_all_guards);
    tcase_add_test(tc, probes_say_whether_the_loop_lives);
    tcase_add_test(tc, other_methods_and_hosts_are_refused);
    tcase_add_test(tc, without_the_token_nothing_is_told);
    tcase_add_test(tc, requests_are_bounded);
    tcase_add_test(tc, who_trickles_is_cut_though_never_idle);
    tcase_add_test(tc, one_address_cannot_take_all_connections);
    tcase_add_test(tc, a_file_leaves_only_when_the_loop_will_know);
    tcase_add_test(tc, views_change_while_they_are_read);
    tcase_add_test(tc, a_view_is_wanted_when_asked_for_and_not_too_often);
    tcase_add_test(tc, an_address_that_is_taken_is_told);
}

FL_TEST_MAIN("web.web", add_tests)
