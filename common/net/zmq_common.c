/*
 * zmq_common.c - addresses, socket options and monitors of both ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "crypto/token.h"
#include "net/zmq_internal.h"

#define SCHEME "tcp://"

enum fl_status fl_zmq_fail(struct fl_error *error, const char *what)
{
    const int code = errno;
    enum fl_status status = FL_EIO;
    if (code == EADDRINUSE)
        status = FL_EBUSY;
    else if (code == EINVAL || code == EPROTONOSUPPORT || code == ENODEV || code == EADDRNOTAVAIL)
        status = FL_EINVAL;
    else if (code == ENOMEM)
        status = FL_ENOMEM;
    return fl_fail(error, status, "%s: %s", what, zmq_strerror(code));
}

enum fl_status fl_zmq_set_options(void *socket, const struct fl_zmq_option *options, size_t count,
                                  struct fl_error *error)
{
    for (size_t i = 0; i < count; i++)
        if (zmq_setsockopt(socket, options[i].name, &options[i].value, sizeof(int)) != 0)
            return fl_zmq_fail(error, "a socket option is refused");
    return FL_OK;
}

enum fl_status fl_zmq_set_common(void *socket, struct fl_error *error)
{
    static const struct fl_zmq_option options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, FL_ZMQ_HWM},
        {ZMQ_RCVHWM, FL_ZMQ_HWM},
        {ZMQ_HANDSHAKE_IVL, 5000},
        {ZMQ_HEARTBEAT_IVL, 5000},
        {ZMQ_HEARTBEAT_TIMEOUT, 15000},
        {ZMQ_HEARTBEAT_TTL, 30000},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 60},
        {ZMQ_TCP_KEEPALIVE_INTVL, 10},
        {ZMQ_TCP_KEEPALIVE_CNT, 6},
    };
    return fl_zmq_set_options(socket, options, sizeof(options) / sizeof(options[0]), error);
}

enum fl_status fl_zmq_set_keys(void *socket, const struct fl_keys *keys, struct fl_error *error)
{
    if (zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, fl_keys_public(keys)->x25519, FL_KEY_BYTES) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, fl_keys_x25519_secret(keys), FL_KEY_BYTES))
        return fl_zmq_fail(error, "CURVE keys are refused");
    return FL_OK;
}

void *fl_zmq_monitor(void *context, void *socket, int events)
{
    static atomic_uint serial;
    static const int no_limit = 0; /* a full monitor would block ZeroMQ's I/O thread */
    char name[64];
    (void)snprintf(name, sizeof(name), "inproc://fl-monitor-%u", atomic_fetch_add(&serial, 1));
    void *monitor = zmq_socket(context, ZMQ_PAIR);
    if (!monitor)
        return NULL;
    if (zmq_setsockopt(monitor, ZMQ_RCVHWM, &no_limit, sizeof(int)) == 0 &&
        zmq_setsockopt(monitor, ZMQ_LINGER, &no_limit, sizeof(int)) == 0 &&
        zmq_socket_monitor(socket, name, events) == 0 && zmq_connect(monitor, name) == 0)
        return monitor;
    (void)zmq_close(monitor);
    return NULL;
}

enum fl_status fl_zmq_monitor_next(void *monitor, int *event, int *value)
{
    uint8_t head[6]; /* event (u16), value (u32), both in host order */
    char address[FL_ENDPOINT_BYTES];
    const int n = zmq_recv(monitor, head, sizeof(head), ZMQ_DONTWAIT);
    if (n < 0)
        return FL_ENOTFOUND;
    (void)zmq_recv(monitor, address, sizeof(address), ZMQ_DONTWAIT);
    uint16_t kind = 0;
    int32_t number = 0;
    if (n == (int)sizeof(head)) {
        memcpy(&kind, head, sizeof(kind));
        memcpy(&number, head + sizeof(kind), sizeof(number));
    }
    *event = kind;
    *value = number;
    return FL_OK;
}

/* HOST of "tcp://HOST:PORT": its length, and where ":PORT" begins; NULL: not of that form. */
static const char *find_port(const char *endpoint, const char **host, size_t *host_length)
{
    if (strncmp(endpoint, SCHEME, strlen(SCHEME)) != 0)
        return NULL;
    *host = endpoint + strlen(SCHEME);
    const char *colon = strrchr(*host, ':');
    if (!colon || colon == *host)
        return NULL;
    *host_length = (size_t)(colon - *host);
    return colon;
}

static bool is_ipv4(const char *host, size_t length)
{
    char text[64];
    struct in_addr address;
    if (length >= sizeof(text))
        return false;
    memcpy(text, host, length);
    text[length] = '\0';
    return inet_pton(AF_INET, text, &address) == 1;
}

static bool is_bracketed_ipv6(const char *host, size_t length)
{
    char text[64];
    struct in6_addr address;
    if (length < 4 || length >= sizeof(text) || host[0] != '[' || host[length - 1] != ']')
        return false;
    memcpy(text, host + 1, length - 2);
    text[length - 2] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

static bool is_host_name(const char *host, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_";
    return length > 0 && length <= 253 && host[0] != '.' && host[0] != '-' &&
           strspn(host, allowed) >= length;
}

enum fl_host_kind fl_zmq_host_kind(const char *endpoint)
{
    const char *host = NULL;
    size_t length = 0;
    if (!find_port(endpoint, &host, &length))
        return FL_HOST_OTHER;
    if (length == 1 && host[0] == '*')
        return FL_HOST_ANY;
    if (is_ipv4(host, length))
        return FL_HOST_IPV4;
    if (is_bracketed_ipv6(host, length))
        return FL_HOST_IPV6;
    return is_host_name(host, length) ? FL_HOST_NAME : FL_HOST_OTHER;
}

enum fl_status fl_endpoint_shift(const char *endpoint, int shift, char *out, struct fl_error *error)
{
    const char *host = NULL;
    size_t length = 0;
    uint64_t port = 0;
    const char *colon = find_port(endpoint, &host, &length);
    if (!colon || fl_zmq_host_kind(endpoint) == FL_HOST_OTHER ||
        fl_parse_u64(colon + 1, 0, 65535, &port) != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "\"%.200s\" is not an address of the form tcp://HOST:PORT", endpoint);
    const int64_t shifted = (int64_t)port + shift;
    if (shifted < 0 || shifted > 65535)
        return fl_fail(error, FL_EFORMAT, "\"%.200s\": the enrolment port would be %lld", endpoint,
                       (long long)shifted);
    if (out)
        (void)snprintf(out, FL_ADDRESS_BYTES, SCHEME "%.*s:%d", (int)length, host, (int)shifted);
    return FL_OK;
}
