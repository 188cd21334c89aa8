/*
 * zmq_link.c - a worker's end: one DEALER, replaced whenever its connection ends.
 *
 * Until a connection is authenticated the link retries by itself, silently, with a jittered
 * back-off and a new socket each time, because libzmq 4.3 gives up for good after some handshake
 * errors. A host name is tried over IPv4 and IPv6 in turn. Once the link was up, or was denied, the
 * caller decides what comes next (fl_link_reset).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include <sodium.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/zmq_internal.h"

#define BACKOFF_FIRST_MS 250
#define BACKOFF_MAX_MS   8000
#define FAMILY_TURN_MS   10000 /* a name that does not answer over one family: the other */
#define LINK_EVENTS                                                                                \
    (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |                             \
     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |                  \
     ZMQ_EVENT_DISCONNECTED)

enum link_state {
    LINK_CONNECTING,
    LINK_WAITING, /* for retry_at_ms, without a socket */
    LINK_UP,
    LINK_ENDING, /* the connection ended; what it brought is still read */
    LINK_IDLE    /* told the caller; waits for reset */
};

struct fl_zmq_link {
    struct fl_link base;
    void *context, *dealer, *monitor;
    enum link_state state;
    char endpoint[FL_ENDPOINT_BYTES];
    bool curve;
    uint8_t server_key[FL_KEY_BYTES];
    const struct fl_keys *keys;
    int wake_fd;
    bool ipv6, two_families;
    int64_t backoff_ms, retry_at_ms, family_until_ms;
    bool wants_drained, holding;
    zmq_msg_t frame;
};

static int64_t now_ms(void)
{
    return fl_clock_now(fl_clock_system());
}

static void close_sockets(struct fl_zmq_link *self)
{
    if (self->holding)
        (void)zmq_msg_close(&self->frame);
    self->holding = false;
    self->wants_drained = false;
    if (self->dealer && self->monitor)
        (void)zmq_socket_monitor(self->dealer, NULL, 0);
    if (self->monitor)
        (void)zmq_close(self->monitor);
    if (self->dealer)
        (void)zmq_close(self->dealer);
    self->monitor = self->dealer = NULL;
}

static enum fl_status set_dealer(struct fl_zmq_link *self, struct fl_error *error)
{
    const int64_t frame_max = self->curve ? FL_FRAME_BYTES_MAX + FL_ZMQ_CURVE_BYTES
                                          : FL_CONTROL_REPLY_BYTES_MAX;
    const int ipv6 = self->ipv6;
    static const struct fl_zmq_option retry[] = {{ZMQ_RECONNECT_IVL, 500},
                                                 {ZMQ_RECONNECT_IVL_MAX, BACKOFF_MAX_MS},
                                                 {ZMQ_CONNECT_TIMEOUT, 10000},
                                                 {ZMQ_SNDHWM, 4 * FL_ZMQ_HWM}};
    enum fl_status status = fl_zmq_set_common(self->dealer, error);
    if (status == FL_OK)
        status = fl_zmq_set_options(self->dealer, retry, 4, error);
    if (status == FL_OK &&
        (zmq_setsockopt(self->dealer, ZMQ_IPV6, &ipv6, sizeof(ipv6)) != 0 ||
         zmq_setsockopt(self->dealer, ZMQ_MAXMSGSIZE, &frame_max, sizeof(frame_max)) != 0))
        status = fl_zmq_fail(error, "a socket option is refused");
    if (status == FL_OK && self->curve)
        status = fl_zmq_set_keys(self->dealer, self->keys, error);
    if (status == FL_OK && self->curve &&
        zmq_setsockopt(self->dealer, ZMQ_CURVE_SERVERKEY, self->server_key, FL_KEY_BYTES) != 0)
        status = fl_zmq_fail(error, "the coordinator's key is refused");
    return status;
}

static enum fl_status open_sockets(struct fl_zmq_link *self, struct fl_error *error)
{
    self->dealer = zmq_socket(self->context, ZMQ_DEALER);
    if (!self->dealer)
        return fl_zmq_fail(error, "no socket");
    const enum fl_status status = set_dealer(self, error);
    if (status != FL_OK)
        return status;
    self->monitor = fl_zmq_monitor(self->context, self->dealer, LINK_EVENTS);
    if (!self->monitor)
        return fl_zmq_fail(error, "no monitor socket");
    if (zmq_connect(self->dealer, self->endpoint) != 0)
        return fl_zmq_fail(error, self->endpoint);
    self->state = LINK_CONNECTING;
    self->family_until_ms = now_ms() + FAMILY_TURN_MS;
    return FL_OK;
}

/* Give up this socket and come again after a while. */
static void retry_later(struct fl_zmq_link *self)
{
    close_sockets(self);
    self->state = LINK_WAITING;
    self->retry_at_ms = now_ms() + self->backoff_ms / 2 +
                        randombytes_uniform((uint32_t)self->backoff_ms);
    self->backoff_ms = self->backoff_ms * 2 < BACKOFF_MAX_MS ? self->backoff_ms * 2
                                                             : BACKOFF_MAX_MS;
}

/* Timers of a link that is not up. */
static enum fl_status keep_trying(struct fl_zmq_link *self)
{
    const int64_t now = now_ms();
    const bool other_family = self->state == LINK_CONNECTING && self->two_families &&
                              now >= self->family_until_ms;
    if (!other_family && (self->state != LINK_WAITING || now < self->retry_at_ms))
        return FL_OK;
    if (other_family)
        self->ipv6 = !self->ipv6;
    close_sockets(self);
    const enum fl_status status = open_sockets(self, NULL);
    if (status != FL_OK)
        retry_later(self); /* no descriptors left, most likely */
    return status == FL_ENOMEM ? status : FL_OK;
}

/* true: *event is for the caller */
static bool on_monitor(struct fl_zmq_link *self, int kind, int value, struct fl_link_event *event)
{
    switch (kind) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        if (self->state != LINK_CONNECTING)
            return false;
        self->state = LINK_UP;
        self->backoff_ms = BACKOFF_FIRST_MS;
        event->kind = FL_LINK_UP;
        return true;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        if (value < 400 || value >= 500) {
            retry_later(self);
            return false;
        }
        close_sockets(self);
        self->state = LINK_IDLE;
        event->kind = FL_LINK_DENIED;
        return true;
    case ZMQ_EVENT_DISCONNECTED:
        if (self->state == LINK_UP)
            self->state = LINK_ENDING;
        else if (self->state == LINK_CONNECTING)
            retry_later(self);
        return false;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if (self->state == LINK_CONNECTING)
            retry_later(self);
        return false;
    default:
        return false;
    }
}

/* FL_OK: an event; FL_ENOTFOUND: none */
static enum fl_status next_monitor(struct fl_zmq_link *self, struct fl_link_event *event)
{
    int kind, value;
    while (self->monitor && fl_zmq_monitor_next(self->monitor, &kind, &value) == FL_OK)
        if (on_monitor(self, kind, value, event))
            return FL_OK;
    return FL_ENOTFOUND;
}

static enum fl_status next_frame(struct fl_zmq_link *self, struct fl_link_event *event)
{
    while (self->state == LINK_UP || self->state == LINK_ENDING) {
        (void)zmq_msg_init(&self->frame);
        self->holding = true;
        if (zmq_msg_recv(&self->frame, self->dealer, ZMQ_DONTWAIT) < 0) {
            if (errno == EINTR)
                continue;
            return FL_ENOTFOUND;
        }
        if (zmq_msg_more(&self->frame)) { /* the coordinator never does that */
            (void)zmq_msg_close(&self->frame);
            self->holding = false;
            self->state = LINK_ENDING;
            continue;
        }
        event->kind = FL_LINK_FRAME;
        event->frame = zmq_msg_data(&self->frame);
        event->length = zmq_msg_size(&self->frame);
        return FL_OK;
    }
    return FL_ENOTFOUND;
}

/* FL_OK with DRAINED or WAKE, FL_ENOTFOUND, FL_ESTOPPED, FL_EIO */
static enum fl_status wait_event(struct fl_zmq_link *self, int64_t wait_ms,
                                 struct fl_link_event *event)
{
    zmq_pollitem_t items[3];
    int count = 0, wake = -1;
    if (self->monitor)
        items[count++] = (zmq_pollitem_t){.socket = self->monitor, .events = ZMQ_POLLIN};
    if (self->wake_fd >= 0) {
        wake = count;
        items[count++] = (zmq_pollitem_t){.fd = self->wake_fd, .events = ZMQ_POLLIN};
    }
    const bool up = self->state == LINK_UP;
    if (up)
        items[count++] = (zmq_pollitem_t){
            .socket = self->dealer,
            .events = (short)(ZMQ_POLLIN | (self->wants_drained ? ZMQ_POLLOUT : 0))};
    if (zmq_poll(items, count, (long)wait_ms) < 0)
        return errno == EINTR ? FL_ESTOPPED : FL_EIO;
    if (wake >= 0 && items[wake].revents) {
        event->kind = FL_LINK_WAKE;
        return FL_OK;
    }
    if (up && (items[count - 1].revents & ZMQ_POLLOUT)) {
        self->wants_drained = false;
        event->kind = FL_LINK_DRAINED;
        return FL_OK;
    }
    return FL_ENOTFOUND;
}

static int64_t wait_for(const struct fl_zmq_link *self, int64_t deadline)
{
    const int64_t now = now_ms();
    int64_t until = deadline;
    if (self->state == LINK_WAITING && self->retry_at_ms < until)
        until = self->retry_at_ms;
    if (self->state == LINK_CONNECTING && self->two_families && self->family_until_ms < until)
        until = self->family_until_ms;
    return until > now ? until - now : 0;
}

static enum fl_status link_next(struct fl_link *base, int64_t timeout_ms,
                                struct fl_link_event *event)
{
    struct fl_zmq_link *self = (struct fl_zmq_link *)base;
    const int64_t deadline = now_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    memset(event, 0, sizeof(*event));
    if (self->holding)
        (void)zmq_msg_close(&self->frame);
    self->holding = false;
    for (bool polled = false;; polled = true) {
        if (next_monitor(self, event) == FL_OK || next_frame(self, event) == FL_OK)
            return FL_OK;
        if (self->holding)
            (void)zmq_msg_close(&self->frame);
        self->holding = false;
        if (self->state == LINK_ENDING) { /* all that it brought is read */
            close_sockets(self);
            self->state = LINK_IDLE;
            event->kind = FL_LINK_DOWN;
            return FL_OK;
        }
        if (keep_trying(self) != FL_OK)
            return FL_ENOMEM;
        if (polled && now_ms() >= deadline)
            return FL_ETIMEOUT;
        const enum fl_status status = wait_event(self, wait_for(self, deadline), event);
        if (status != FL_ENOTFOUND)
            return status;
    }
}

static enum fl_status link_send(struct fl_link *base, const void *frame, size_t length)
{
    struct fl_zmq_link *self = (struct fl_zmq_link *)base;
    if (self->state != LINK_UP)
        return FL_ENOTFOUND;
    if (length > FL_FRAME_BYTES_MAX && self->curve)
        return FL_ERANGE;
    for (int tries = 0; tries < 2; tries++) {
        if (zmq_send(self->dealer, frame, length, ZMQ_DONTWAIT) >= 0)
            return FL_OK;
        int events; /* asking makes the socket take note of what its peer has read */
        size_t size = sizeof(events);
        const int code = errno;
        (void)zmq_getsockopt(self->dealer, ZMQ_EVENTS, &events, &size);
        errno = code;
    }
    if (errno != EAGAIN && errno != EINTR)
        return FL_ENOTFOUND;
    self->wants_drained = true;
    return FL_EBUSY;
}

static enum fl_status link_reset(struct fl_link *base)
{
    struct fl_zmq_link *self = (struct fl_zmq_link *)base;
    close_sockets(self);
    if (open_sockets(self, NULL) != FL_OK)
        retry_later(self);
    return FL_OK;
}

static const struct fl_link_table link_table = {
    .next = link_next, .send = link_send, .reset = link_reset};

static enum fl_status configure(struct fl_zmq_link *self, const struct fl_link_config *config,
                                struct fl_error *error)
{
    const enum fl_host_kind kind = fl_zmq_host_kind(config->endpoint);
    const size_t length = strlen(config->endpoint);
    if (length >= sizeof(self->endpoint) || kind == FL_HOST_ANY ||
        (kind == FL_HOST_OTHER && config->server_key))
        return fl_fail(error, FL_EINVAL, "\"%.200s\" is no address to connect to",
                       config->endpoint);
    memcpy(self->endpoint, config->endpoint, length + 1);
    self->ipv6 = kind == FL_HOST_IPV6;
    self->two_families = kind == FL_HOST_NAME;
    self->wake_fd = config->wake_fd;
    self->keys = config->keys;
    self->curve = config->server_key != NULL;
    if (self->curve)
        memcpy(self->server_key, config->server_key, FL_KEY_BYTES);
    self->backoff_ms = BACKOFF_FIRST_MS;
    return FL_OK;
}

enum fl_status fl_link_open(const struct fl_link_config *config, struct fl_link **out,
                            struct fl_error *error)
{
    assert(config && config->endpoint && out);
    assert((config->server_key == NULL) == (config->keys == NULL));
    *out = NULL;
    struct fl_zmq_link *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    struct fl_link *base = &self->base;
    self->base.table = &link_table;
    enum fl_status status = configure(self, config, error);
    if (status == FL_OK) {
        self->context = zmq_ctx_new();
        status = self->context ? FL_OK : fl_zmq_fail(error, "no ZeroMQ context");
    }
    if (status == FL_OK)
        status = open_sockets(self, error);
    if (status != FL_OK)
        fl_link_close(&base);
    *out = base;
    return status;
}

void fl_link_close(struct fl_link **base)
{
    struct fl_zmq_link *self = (struct fl_zmq_link *)*base;
    if (!self)
        return;
    static const int farewell_ms = 250; /* a GOODBYE may leave */
    if (self->state == LINK_UP)
        (void)zmq_setsockopt(self->dealer, ZMQ_LINGER, &farewell_ms, sizeof(int));
    close_sockets(self);
    if (self->context)
        while (zmq_ctx_term(self->context) != 0 && errno == EINTR)
            continue;
    fl_free(self);
    *base = NULL;
}
