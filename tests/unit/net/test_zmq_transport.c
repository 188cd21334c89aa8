/*
 * Goal: only keys of the roster speak, under the name that the roster gives them; a revoked, slow,
 * rude or lying peer costs nobody else anything; every connection can be won back.
 * Method: real sockets with CURVE on 127.0.0.1; server and links take turns in one thread.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "net/zmq_transport.h"
#include "runner.h"

#define SITES       3
#define PATIENCE_MS 8000

static struct fl_error error;

struct site {
    struct fl_keys *keys;
    enum fl_zap_answer answer; /* what the roster says of it */
    struct fl_link *link;
    bool deaf; /* its link is not read */
    int up, down, denied, drained, woken, frames;
    uint32_t next_number; /* of numbered frames, which must come in order */
    char last[64];
};

static struct {
    struct fl_keys *keys;
    struct fl_transport *server;
    char session[64], join[64];
    struct site sites[SITES]; /* "site0", "site1", ... */
    int opened, gone, drained, woken, frames;
    fl_peer peer[SITES], last_peer; /* by user */
    enum fl_port last_port;
    char last[64], last_user[FL_USER_BYTES];
    size_t last_length;
    bool echo;
    int64_t silent_ms;
} world;

static enum fl_zap_answer decide(void *context, const uint8_t key[FL_KEY_BYTES], char *user)
{
    (void)context;
    for (int i = 0; i < SITES; i++)
        if (memcmp(fl_keys_public(world.sites[i].keys)->x25519, key, FL_KEY_BYTES) == 0) {
            (void)snprintf(user, FL_USER_BYTES, "site%d", i);
            return world.sites[i].answer;
        }
    return FL_ZAP_DENY;
}

static void open_server_with(const char *session, const char *join, const char *control, int wake,
                             uint32_t peers_max)
{
    const struct fl_server_config config = {.session = session,
                                            .join = join,
                                            .control = control,
                                            .keys = world.keys,
                                            .decide = decide,
                                            .wake_fd = wake,
                                            .peers_max = peers_max,
                                            .silent_ms = world.silent_ms};
    fl_assert_ok(fl_server_open(&config, &world.server, &error), &error);
    (void)snprintf(world.session, sizeof(world.session), "%s",
                   fl_server_endpoint(world.server, FL_PORT_SESSION));
    (void)snprintf(world.join, sizeof(world.join), "%s",
                   fl_server_endpoint(world.server, FL_PORT_JOIN));
}

static void open_server(void)
{
    open_server_with("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", NULL, -1, 0);
}

static void open_link(int i)
{
    const struct fl_link_config config = {.endpoint = world.session,
                                          .server_key = fl_keys_public(world.keys)->x25519,
                                          .keys = world.sites[i].keys,
                                          .wake_fd = -1};
    fl_assert_ok(fl_link_open(&config, &world.sites[i].link, &error), &error);
}

static void set_up(void)
{
    memset(&world, 0, sizeof(world));
    world.echo = true;
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &world.keys), FL_OK);
    for (int i = 0; i < SITES; i++)
        ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &world.sites[i].keys), FL_OK);
}

static void tear_down(void)
{
    for (int i = 0; i < SITES; i++) {
        fl_link_close(&world.sites[i].link);
        fl_keys_destroy(&world.sites[i].keys);
    }
    fl_server_close(&world.server);
    fl_keys_destroy(&world.keys);
}

static void note(char *last, size_t capacity, const uint8_t *frame, size_t length)
{
    const size_t n = length < capacity - 1 ? length : capacity - 1;
    memcpy(last, frame, n);
    last[n] = '\0';
}

static void on_server_frame(const struct fl_transport_event *event)
{
    int i = -1;
    world.frames++;
    world.last_peer = event->peer;
    world.last_port = event->port;
    world.last_length = event->length;
    note(world.last, sizeof(world.last), event->frame, event->length);
    (void)snprintf(world.last_user, sizeof(world.last_user), "%s", event->user);
    if (sscanf(event->user, "site%d", &i) == 1 && i >= 0 && i < SITES)
        world.peer[i] = event->peer;
    if (world.echo)
        (void)!fl_transport_send(world.server, event->peer, event->frame, event->length);
}

static void turn_server(void)
{
    struct fl_transport_event event;
    for (int n = 0; world.server && n < 200; n++) {
        if (fl_transport_next(world.server, 0, &event) != FL_OK)
            return;
        world.opened += event.kind == FL_TRANSPORT_OPENED;
        world.gone += event.kind == FL_TRANSPORT_GONE;
        world.drained += event.kind == FL_TRANSPORT_DRAINED;
        world.woken += event.kind == FL_TRANSPORT_WAKE;
        if (event.kind == FL_TRANSPORT_FRAME)
            on_server_frame(&event);
        if (event.kind == FL_TRANSPORT_WAKE)
            return;
    }
}

static void turn_site(struct site *site)
{
    struct fl_link_event event;
    for (int n = 0; site->link && !site->deaf && n < 200; n++) {
        if (fl_link_next(site->link, 0, &event) != FL_OK)
            return;
        site->up += event.kind == FL_LINK_UP;
        site->down += event.kind == FL_LINK_DOWN;
        site->denied += event.kind == FL_LINK_DENIED;
        site->drained += event.kind == FL_LINK_DRAINED;
        if (event.kind != FL_LINK_FRAME)
            continue;
        site->frames++;
        note(site->last, sizeof(site->last), event.frame, event.length);
        if (event.length == FL_CHUNK_BYTES)
            ck_assert_uint_eq(fl_load_u32(event.frame), site->next_number++);
    }
}

static void turn(void)
{
    turn_server();
    for (int i = 0; i < SITES; i++)
        turn_site(&world.sites[i]);
    (void)usleep(1000);
}

static void run_for(int64_t ms)
{
    const int64_t end = fl_clock_now(fl_clock_system()) + ms;
    while (fl_clock_now(fl_clock_system()) < end)
        turn();
}

#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        const int64_t end_ = fl_clock_now(fl_clock_system()) + PATIENCE_MS;                        \
        while (!(condition)) {                                                                     \
            ck_assert_msg(fl_clock_now(fl_clock_system()) < end_, "no: " #condition);              \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

/* Site i says text and hears it back. */
static void talk(int i, const char *text)
{
    const int before = world.sites[i].frames;
    ck_assert_int_eq(fl_link_send(world.sites[i].link, text, strlen(text)), FL_OK);
    WAIT_UNTIL(world.sites[i].frames > before);
    ck_assert_str_eq(world.sites[i].last, text);
}

static void connect_site(int i)
{
    open_link(i);
    WAIT_UNTIL(world.sites[i].up == 1);
}

/* A client made by hand, with a site's keys (or without CURVE). */
struct raw {
    void *context, *socket;
};

static struct raw raw_open(const struct fl_keys *keys, const char *endpoint, const char *id)
{
    static const int no_linger = 0;
    struct raw raw = {.context = zmq_ctx_new()};
    raw.socket = zmq_socket(raw.context, ZMQ_DEALER);
    (void)zmq_setsockopt(raw.socket, ZMQ_LINGER, &no_linger, sizeof(int));
    if (id)
        (void)zmq_setsockopt(raw.socket, ZMQ_ROUTING_ID, id, strlen(id));
    if (keys) {
        (void)zmq_setsockopt(raw.socket, ZMQ_CURVE_SERVERKEY, fl_keys_public(world.keys)->x25519,
                             FL_KEY_BYTES);
        (void)zmq_setsockopt(raw.socket, ZMQ_CURVE_PUBLICKEY, fl_keys_public(keys)->x25519,
                             FL_KEY_BYTES);
        (void)zmq_setsockopt(raw.socket, ZMQ_CURVE_SECRETKEY, fl_keys_x25519_secret(keys),
                             FL_KEY_BYTES);
    }
    ck_assert_int_eq(zmq_connect(raw.socket, endpoint), 0);
    return raw;
}

static void raw_close(struct raw *raw)
{
    (void)zmq_close(raw->socket);
    (void)zmq_ctx_term(raw->context);
}

START_TEST(a_site_of_the_roster_speaks_under_the_name_the_roster_gives_it)
{
    open_server();
    connect_site(0);
    connect_site(1);
    talk(0, "hello");
    ck_assert_str_eq(world.last_user, "site0");
    ck_assert_int_eq(world.last_port, FL_PORT_SESSION);
    talk(1, "good day");
    ck_assert_str_eq(world.last_user, "site1");
    ck_assert(world.peer[0] != world.peer[1]);
    ck_assert_int_eq(world.opened, 2);
    ck_assert_int_eq(fl_transport_send(world.server, 12345, "x", 1), FL_ENOTFOUND);
}
END_TEST

START_TEST(an_unknown_key_gets_nothing_and_returns_once_it_is_allowed)
{
    open_server();
    world.sites[0].answer = FL_ZAP_DENY;
    open_link(0);
    WAIT_UNTIL(world.sites[0].denied == 1);
    ck_assert_int_eq(fl_link_send(world.sites[0].link, "x", 1), FL_ENOTFOUND);
    ck_assert_int_eq(fl_link_reset(world.sites[0].link), FL_OK);
    WAIT_UNTIL(world.sites[0].denied == 2);
    ck_assert_int_eq(world.opened + world.frames + world.sites[0].up, 0);
    world.sites[0].answer = FL_ZAP_ALLOW;
    ck_assert_int_eq(fl_link_reset(world.sites[0].link), FL_OK);
    WAIT_UNTIL(world.sites[0].up == 1);
    talk(0, "at last");
}
END_TEST

START_TEST(while_the_roster_loads_nobody_is_denied)
{
    open_server();
    world.sites[0].answer = FL_ZAP_LOADING;
    open_link(0);
    run_for(800);
    ck_assert_int_eq(world.sites[0].denied + world.sites[0].up + world.sites[0].down, 0);
    world.sites[0].answer = FL_ZAP_ALLOW;
    WAIT_UNTIL(world.sites[0].up == 1);
    talk(0, "loaded");
}
END_TEST

START_TEST(revocation_ends_a_live_session)
{
    open_server();
    connect_site(0);
    connect_site(1);
    talk(0, "before");
    world.sites[0].answer = FL_ZAP_DENY;
    const int frames = world.frames;
    ck_assert_int_eq(fl_transport_send(world.server, world.peer[0], "goodbye", 7), FL_OK);
    fl_transport_drop(world.server, world.peer[0]);
    ck_assert_int_eq(fl_transport_send(world.server, world.peer[0], "x", 1), FL_ENOTFOUND);
    ck_assert_int_eq(fl_link_send(world.sites[0].link, "still here?", 11), FL_OK);
    WAIT_UNTIL(world.sites[0].down == 1 && world.gone == 1);
    ck_assert_str_eq(world.sites[0].last, "goodbye");
    ck_assert_int_eq(world.frames, frames); /* not one more frame of it */
    ck_assert_int_eq(fl_link_reset(world.sites[0].link), FL_OK);
    WAIT_UNTIL(world.sites[0].denied == 1);
    talk(1, "others go on");
    ck_assert_int_eq(world.gone, 1);
}
END_TEST

START_TEST(a_site_that_leaves_is_gone_and_its_handle_is_void)
{
    open_server();
    connect_site(0);
    talk(0, "hello");
    const fl_peer old = world.peer[0];
    ck_assert_int_eq(fl_link_send(world.sites[0].link, "last words", 10), FL_OK);
    fl_link_close(&world.sites[0].link);
    WAIT_UNTIL(world.gone == 1);
    ck_assert_str_eq(world.last, "last words");
    ck_assert_int_eq(fl_transport_send(world.server, old, "x", 1), FL_ENOTFOUND);
    fl_transport_drop(world.server, old);
    world.sites[0].up = 0;
    connect_site(0);
    talk(0, "again");
    ck_assert(world.peer[0] != old);
    run_for(100);
    ck_assert_int_eq(world.gone, 1);
}
END_TEST

START_TEST(frames_of_an_old_session_do_not_reach_the_new_one)
{
    open_server();
    connect_site(0);
    talk(0, "hello");
    char endpoint[64];
    (void)snprintf(endpoint, sizeof(endpoint), "%s", world.session);
    fl_server_close(&world.server); /* the coordinator is killed */
    for (int i = 0; i < 5; i++)
        (void)!fl_link_send(world.sites[0].link, "stale", 5);
    WAIT_UNTIL(world.sites[0].down == 1);
    ck_assert_int_eq(fl_link_send(world.sites[0].link, "stale", 5), FL_ENOTFOUND);
    ck_assert_int_eq(fl_link_reset(world.sites[0].link), FL_OK);
    run_for(300);
    world.frames = 0;
    open_server_with(endpoint, NULL, NULL, -1, 0);
    WAIT_UNTIL(world.sites[0].up == 2);
    talk(0, "HELLO");
    ck_assert_int_eq(world.frames, 1);
    ck_assert_str_eq(world.last, "HELLO");
}
END_TEST

START_TEST(a_peer_that_sends_parts_is_dropped_while_others_go_on)
{
    open_server();
    connect_site(0);
    struct raw raw = raw_open(world.sites[1].keys, world.session, NULL);
    ck_assert_int_eq(zmq_send(raw.socket, "one", 3, ZMQ_SNDMORE), 3);
    ck_assert_int_eq(zmq_send(raw.socket, "two", 3, 0), 3);
    run_for(600);
    ck_assert_int_eq(world.frames, 0);
    ck_assert_int_eq(world.opened, 0);
    talk(0, "undisturbed");
    raw_close(&raw);
    raw = raw_open(world.sites[1].keys, world.session, NULL);
    ck_assert_int_eq(zmq_send(raw.socket, "fine", 4, 0), 4);
    WAIT_UNTIL(world.frames == 2);
    ck_assert_int_eq(zmq_send(raw.socket, "one", 3, ZMQ_SNDMORE), 3);
    ck_assert_int_eq(zmq_send(raw.socket, "two", 3, 0), 3);
    WAIT_UNTIL(world.gone == 1);
    talk(0, "still undisturbed");
    raw_close(&raw);
}
END_TEST

START_TEST(who_never_finishes_a_frame_is_cut_off)
{
    world.silent_ms = 700;
    open_server();
    connect_site(0);
    talk(0, "in time");
    connect_site(1); /* and says nothing */
    struct raw raw = raw_open(world.sites[2].keys, world.session, NULL);
    ck_assert_int_eq(zmq_send(raw.socket, "no end", 6, ZMQ_SNDMORE), 6);
    WAIT_UNTIL(world.sites[1].down == 1);
    run_for(1000);
    ck_assert_int_eq(world.sites[0].down + world.gone, 0);
    talk(0, "still there");
    raw_close(&raw);
}
END_TEST

START_TEST(a_frame_beyond_the_limit_ends_its_connection_only)
{
    open_server();
    connect_site(0);
    uint8_t *frame = fl_calloc(1, FL_FRAME_BYTES_MAX + 1);
    ck_assert_ptr_nonnull(frame);
    world.echo = false;
    ck_assert_int_eq(fl_link_send(world.sites[0].link, frame, FL_FRAME_BYTES_MAX + 1), FL_ERANGE);
    ck_assert_int_eq(fl_link_send(world.sites[0].link, frame, FL_FRAME_BYTES_MAX), FL_OK);
    WAIT_UNTIL(world.frames == 1);
    ck_assert_uint_eq(world.last_length, FL_FRAME_BYTES_MAX);
    ck_assert_int_eq(
        fl_transport_send(world.server, world.last_peer, frame, FL_FRAME_BYTES_MAX + 1), FL_ERANGE);
    struct raw raw = raw_open(world.sites[1].keys, world.session, NULL);
    ck_assert_int_eq(zmq_send(raw.socket, "hi", 2, 0), 2);
    WAIT_UNTIL(world.frames == 2);
    ck_assert_int_ge(zmq_send(raw.socket, frame, FL_FRAME_BYTES_MAX + 1, 0), 0);
    WAIT_UNTIL(world.gone == 1);
    ck_assert_int_eq(world.frames, 2);
    world.echo = true;
    talk(0, "undisturbed");
    raw_close(&raw);
    fl_free(frame);
}
END_TEST

START_TEST(rubbish_on_the_wire_disturbs_nobody)
{
    open_server();
    connect_site(0);
    int fds[20];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *port = strrchr(world.session, ':');
    uint64_t number = 0;
    ck_assert_int_eq(fl_parse_u64(port + 1, 1, 65535, &number), FL_OK);
    address.sin_port = htons((uint16_t)number);
    for (int i = 0; i < 20; i++) {
        uint8_t noise[400];
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(fds[i], (struct sockaddr *)&address, sizeof(address)), 0);
        fl_entropy_bytes(fl_entropy_system(), noise, sizeof(noise));
        if (i % 2)
            memcpy(noise, "\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE", 17);
        ck_assert_int_eq(send(fds[i], noise, (size_t)(i * 20), MSG_NOSIGNAL), i * 20);
    }
    talk(0, "undisturbed");
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(close(fds[i]), 0);
    talk(0, "still undisturbed");
    ck_assert_int_eq(world.opened, 1);
    ck_assert_int_eq(world.gone, 0);
}
END_TEST

START_TEST(a_client_without_curve_or_with_the_wrong_server_key_never_gets_in)
{
    open_server();
    struct raw raw = raw_open(NULL, world.session, NULL);
    (void)zmq_send(raw.socket, "let me in", 9, ZMQ_DONTWAIT);
    const struct fl_link_config config = {.endpoint = world.session,
                                          .server_key = fl_keys_public(world.sites[2].keys)->x25519,
                                          .keys = world.sites[0].keys,
                                          .wake_fd = -1};
    fl_assert_ok(fl_link_open(&config, &world.sites[0].link, &error), &error);
    run_for(1000);
    ck_assert_int_eq(world.frames + world.opened + world.sites[0].up, 0);
    raw_close(&raw);
    connect_site(1);
    talk(1, "the door still works");
}
END_TEST

START_TEST(a_chosen_routing_id_gives_nobody_anothers_name_or_frames)
{
    open_server();
    struct raw one = raw_open(world.sites[0].keys, world.session, "site1");
    ck_assert_int_eq(zmq_send(one.socket, "first", 5, 0), 5);
    WAIT_UNTIL(world.frames == 1);
    ck_assert_str_eq(world.last_user, "site0");
    struct raw two = raw_open(world.sites[1].keys, world.session, "site1");
    (void)zmq_send(two.socket, "second", 6, ZMQ_DONTWAIT);
    run_for(500);
    ck_assert_int_eq(world.frames, 1); /* the id is taken: refused, and the first lives on */
    ck_assert_int_eq(zmq_send(one.socket, "third", 5, 0), 5);
    WAIT_UNTIL(world.frames == 2);
    ck_assert_str_eq(world.last_user, "site0");
    raw_close(&one);
    raw_close(&two);
}
END_TEST

START_TEST(a_peer_that_does_not_read_is_parked_and_gets_all_in_order)
{
    open_server();
    connect_site(0);
    connect_site(1);
    talk(0, "hello");
    talk(1, "hello");
    world.sites[0].deaf = true;
    uint8_t *chunk = fl_calloc(1, FL_CHUNK_BYTES);
    ck_assert_ptr_nonnull(chunk);
    uint32_t sent = 0;
    for (int refused = 0; refused < 3 && sent < 10000;) { /* until kernel and ZeroMQ are full too */
        fl_store_u32(chunk, sent);
        const enum fl_status status = fl_transport_send(world.server, world.peer[0], chunk,
                                                        FL_CHUNK_BYTES);
        ck_assert(status == FL_OK || status == FL_EBUSY);
        sent += status == FL_OK;
        refused = status == FL_OK ? 0 : refused + 1;
        if (status == FL_EBUSY)
            run_for(200);
    }
    ck_assert_uint_lt(sent, 10000);
    world.drained = 0;
    talk(1, "undisturbed");
    ck_assert_int_eq(world.drained, 0);
    world.sites[0].deaf = false;
    WAIT_UNTIL(world.drained == 1);
    WAIT_UNTIL(world.sites[0].next_number == sent);
    talk(0, "all there");
    fl_free(chunk);
}
END_TEST

START_TEST(a_link_that_is_full_says_so_and_drains)
{
    open_server();
    connect_site(0);
    uint8_t *chunk = fl_calloc(1, FL_CHUNK_BYTES);
    ck_assert_ptr_nonnull(chunk);
    world.echo = false;
    int sent = 0;
    enum fl_status status;
    do {
        status = fl_link_send(world.sites[0].link, chunk, FL_CHUNK_BYTES);
        sent += status == FL_OK;
    } while (status == FL_OK && sent < 10000);
    ck_assert_int_eq(status, FL_EBUSY);
    WAIT_UNTIL(world.sites[0].drained == 1);
    WAIT_UNTIL(world.frames == sent);
    fl_free(chunk);
}
END_TEST

START_TEST(anyone_may_enrol_and_is_known_by_its_key)
{
    open_server();
    world.sites[0].answer = FL_ZAP_DENY; /* not in the roster */
    (void)snprintf(world.session, sizeof(world.session), "%s", world.join);
    connect_site(0);
    talk(0, "join");
    char hex[FL_KEY_HEX_BYTES];
    fl_hex(fl_keys_public(world.sites[0].keys)->x25519, FL_KEY_BYTES, hex);
    ck_assert_int_eq(world.last_port, FL_PORT_JOIN);
    ck_assert_str_eq(world.last_user, hex);
}
END_TEST

START_TEST(the_control_endpoint_answers_at_length)
{
    char directory[FL_PATH_BYTES], endpoint[128];
    fl_test_directory(directory);
    ck_assert_int_eq(chdir(directory), 0);
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://control.sock");
    open_server_with("tcp://127.0.0.1:0", NULL, endpoint, -1, 0);
    const struct fl_link_config config = {.endpoint = endpoint, .wake_fd = -1};
    fl_assert_ok(fl_link_open(&config, &world.sites[0].link, &error), &error);
    WAIT_UNTIL(world.sites[0].up == 1);
    talk(0, "status");
    ck_assert_int_eq(world.last_port, FL_PORT_CONTROL);
    ck_assert_str_eq(world.last_user, "");
    uint8_t *answer = fl_calloc(1, 3000000);
    ck_assert_ptr_nonnull(answer);
    ck_assert_int_eq(fl_transport_send(world.server, world.last_peer, answer, 3000000), FL_OK);
    WAIT_UNTIL(world.sites[0].frames == 2);
    fl_free(answer);
}
END_TEST

START_TEST(the_wake_descriptor_wakes_the_loop)
{
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const uint64_t one = 1;
    struct fl_transport_event event;
    open_server_with("tcp://127.0.0.1:0", NULL, NULL, fd, 0);
    ck_assert_int_eq(fl_transport_next(world.server, 20, &event), FL_ETIMEOUT);
    ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
    ck_assert_int_eq(fl_transport_next(world.server, 5000, &event), FL_OK);
    ck_assert_int_eq(event.kind, FL_TRANSPORT_WAKE);
    uint64_t count;
    ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
    ck_assert_int_eq(fl_transport_next(world.server, 20, &event), FL_ETIMEOUT);
    ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(more_peers_than_agreed_are_turned_away)
{
    open_server_with("tcp://127.0.0.1:0", NULL, NULL, -1, 2);
    connect_site(0);
    connect_site(1);
    talk(0, "one");
    talk(1, "two");
    connect_site(2);
    ck_assert_int_eq(fl_link_send(world.sites[2].link, "three", 5), FL_OK);
    WAIT_UNTIL(world.sites[2].down == 1);
    ck_assert_int_eq(world.opened, 2);
    talk(0, "undisturbed");
    fl_link_close(&world.sites[1].link);
    WAIT_UNTIL(world.gone == 1);
    ck_assert_int_eq(fl_link_reset(world.sites[2].link), FL_OK);
    WAIT_UNTIL(world.sites[2].up == 2);
    talk(2, "a seat at last");
}
END_TEST

START_TEST(addresses_are_understood_and_shifted)
{
    char out[272];
    fl_assert_ok(fl_endpoint_shift("tcp://10.1.2.3:9750", 1, out, &error), &error);
    ck_assert_str_eq(out, "tcp://10.1.2.3:9751");
    fl_assert_ok(fl_endpoint_shift("tcp://[::1]:9750", 1, out, &error), &error);
    ck_assert_str_eq(out, "tcp://[::1]:9751");
    fl_assert_ok(fl_endpoint_shift("tcp://*:0", 0, out, &error), &error);
    fl_assert_ok(fl_endpoint_shift("tcp://lab.example.org:1", 0, NULL, &error), &error);
    static const char *const bad[] = {"",
                                      "10.1.2.3:9750",
                                      "tcp://:9750",
                                      "tcp://host",
                                      "tcp://host:",
                                      "tcp://host:70000",
                                      "tcp://host:12a",
                                      "tcp://::1:9750",
                                      "tcp://ho st:1",
                                      "tcp://host/x:1",
                                      "ipc://x:1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(fl_endpoint_shift(bad[i], 0, out, &error) == FL_EFORMAT, "%s", bad[i]);
    ck_assert_int_eq(fl_endpoint_shift("tcp://host:65535", 1, out, &error), FL_EFORMAT);
}
END_TEST

START_TEST(an_address_in_use_is_named)
{
    open_server();
    const struct fl_server_config config = {
        .session = world.session, .keys = world.keys, .decide = decide, .wake_fd = -1};
    struct fl_transport *second = NULL;
    ck_assert_int_eq(fl_server_open(&config, &second, &error), FL_EBUSY);
    ck_assert_ptr_null(second);
    ck_assert_ptr_nonnull(strstr(error.text, world.session));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_site_of_the_roster_speaks_under_the_name_the_roster_gives_it);
    tcase_add_test(tc, an_unknown_key_gets_nothing_and_returns_once_it_is_allowed);
    tcase_add_test(tc, while_the_roster_loads_nobody_is_denied);
    tcase_add_test(tc, revocation_ends_a_live_session);
    tcase_add_test(tc, a_site_that_leaves_is_gone_and_its_handle_is_void);
    tcase_add_test(tc, frames_of_an_old_session_do_not_reach_the_new_one);
    tcase_add_test(tc, a_peer_that_sends_parts_is_dropped_while_others_go_on);
    tcase_add_test(tc, who_never_finishes_a_frame_is_cut_off);
    tcase_add_test(tc, a_frame_beyond_the_limit_ends_its_connection_only);
    tcase_add_test(tc, rubbish_on_the_wire_disturbs_nobody);
    tcase_add_test(tc, a_client_without_curve_or_with_the_wrong_server_key_never_gets_in);
    tcase_add_test(tc, a_chosen_routing_id_gives_nobody_anothers_name_or_frames);
    tcase_add_test(tc, a_peer_that_does_not_read_is_parked_and_gets_all_in_order);
    tcase_add_test(tc, a_link_that_is_full_says_so_and_drains);
    tcase_add_test(tc, anyone_may_enrol_and_is_known_by_its_key);
    tcase_add_test(tc, the_control_endpoint_answers_at_length);
    tcase_add_test(tc, the_wake_descriptor_wakes_the_loop);
    tcase_add_test(tc, more_peers_than_agreed_are_turned_away);
    tcase_add_test(tc, addresses_are_understood_and_shifted);
    tcase_add_test(tc, an_address_in_use_is_named);
}

FL_TEST_MAIN("net.zmq_transport", add_tests)
