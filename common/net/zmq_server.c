/*
 * zmq_server.c - the coordinator's end: three ROUTERs, one ZAP handler, one thread.
 *
 * A monitor's DISCONNECTED is written before the connection's last frames are out of its pipe, so a
 * closure is applied only after its ROUTER was read empty (or too many closures wait).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/zmq_internal.h"

#define CLOSURES_MAX         256
#define SERVICE_EVERY        64 /* frames between two looks at all else, when frames never end */
#define JOIN_FRAME_BYTES_MAX 8192
#define SILENT_MS            10000
#define SILENT_LOOK_MS       500

struct port {
    void *router, *monitor;
    bool readable; /* worth a try */
    char endpoint[FL_ENDPOINT_BYTES];
};

struct closure {
    enum fl_port port;
    int fd;
    uint64_t horizon; /* peers made later have another connection under this number */
};

struct fl_server {
    struct fl_transport base;
    void *context, *zap;
    fl_zap_decide decide;
    void *decide_context;
    int wake_fd;
    struct port ports[FL_PORT_COUNT];
    struct fl_zmq_peers peers;
    struct fl_zmq_silents silents;
    int64_t silent_ms;
    struct closure closures[CLOSURES_MAX];
    size_t closure_count;
    unsigned frames_since_service;
    enum fl_port turn; /* which port is read next */
    fl_peer going;     /* its GONE was just given out; its user is borrowed until now */
    fl_peer opening;   /* OPENED was given out; `frame` follows */
    bool holding;      /* frame is initialised */
    zmq_msg_t frame;
};

static int64_t now_ms(void)
{
    return fl_clock_now(fl_clock_system());
}

/* ------------------------------------------------------------------ receiving */

static void apply_closures(struct fl_server *self, enum fl_port port)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->closure_count; i++) {
        const struct closure closure = self->closures[i];
        if (closure.port != port) {
            self->closures[kept++] = closure;
            continue;
        }
        for (uint32_t slot = 0; slot < self->peers.high; slot++) {
            struct fl_zmq_peer *peer = &self->peers.slots[slot];
            if (!peer->handle || peer->port != port || peer->fd != closure.fd ||
                peer->handle >> 16 > closure.horizon)
                continue;
            peer->fd = -1; /* never shut a number that is someone else's by now */
            fl_zmq_peers_kill(&self->peers, peer, now_ms());
            peer->forget_at_ms = 0;
        }
    }
    self->closure_count = kept;
}

static void read_monitor(struct fl_server *self, enum fl_port port)
{
    int event, fd;
    while (fl_zmq_monitor_next(self->ports[port].monitor, &event, &fd) == FL_OK) {
        if (event == ZMQ_EVENT_ACCEPTED && port != FL_PORT_CONTROL)
            fl_zmq_silents_add(&self->silents, fd, now_ms() + self->silent_ms);
        if (event != ZMQ_EVENT_DISCONNECTED)
            continue;
        fl_zmq_silents_remove(&self->silents, fd);
        if (self->closure_count == CLOSURES_MAX)
            for (enum fl_port p = 0; p < FL_PORT_COUNT; p++)
                apply_closures(self, p);
        self->closures[self->closure_count++] =
            (struct closure){.port = port, .fd = fd, .horizon = self->peers.serial};
        self->ports[port].readable = true; /* so that it is read empty, then the closure applied */
    }
}

/* Take the rest of a message whose sender broke the framing. */
static void drain_parts(void *router)
{
    int more = 1;
    size_t size = sizeof(more);
    while (more) {
        zmq_msg_t part;
        (void)zmq_msg_init(&part);
        const int n = zmq_msg_recv(&part, router, ZMQ_DONTWAIT);
        (void)zmq_msg_close(&part);
        if (n < 0 || zmq_getsockopt(router, ZMQ_RCVMORE, &more, &size) != 0)
            return;
    }
}

/* The peer that a frame belongs to, made at its first frame. NULL: drop the frame. */
static struct fl_zmq_peer *peer_of(struct fl_server *self, enum fl_port port, const void *id,
                                   size_t id_length, zmq_msg_t *frame, bool *is_new)
{
    const int fd = zmq_msg_get(frame, ZMQ_SRCFD);
    const char *user = port == FL_PORT_CONTROL ? "" : zmq_msg_gets(frame, "User-Id");
    struct fl_zmq_peer *peer = fl_zmq_peers_find(&self->peers, port, id, id_length);
    if (!user || (port != FL_PORT_CONTROL && !user[0]))
        return NULL; /* not authenticated: cannot happen behind ZAP */
    if (peer && !peer->dead && (fd != peer->fd || strcmp(user, peer->user) != 0)) {
        /* the same routing id on another connection is another peer; close both */
        fl_zmq_peers_kill(&self->peers, peer, now_ms());
        return NULL;
    }
    if (peer)
        return peer->dead ? NULL : peer;
    peer = fl_zmq_peers_add(&self->peers, port, id, id_length, fd, user);
    const char *address = zmq_msg_gets(frame, "Peer-Address");
    if (peer && address)
        memcpy(peer->address, address, strnlen(address, sizeof(peer->address) - 1));
    *is_new = peer != NULL;
    fl_zmq_silents_remove(&self->silents, fd);
    if (!peer) {
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) == 0)
            fl_zmq_shut(fd, st.st_ino);
        fl_log(FL_LOG_WARN, "peers_full", "too many peers; a connection was closed",
               FL_STR("user", user));
    }
    return peer;
}

/* FL_OK: a frame was taken (peer may be NULL); FL_ENOTFOUND: none waits; FL_EIO. */
static enum fl_status take_frame(struct fl_server *self, enum fl_port port,
                                 struct fl_zmq_peer **peer, bool *is_new)
{
    void *router = self->ports[port].router;
    uint8_t id[256];
    const int id_length = zmq_recv(router, id, sizeof(id), ZMQ_DONTWAIT);
    if (id_length < 0)
        return errno == EAGAIN ? FL_ENOTFOUND : errno == EINTR ? FL_OK : FL_EIO;
    (void)zmq_msg_init(&self->frame);
    self->holding = true;
    if (zmq_msg_recv(&self->frame, router, ZMQ_DONTWAIT) < 0)
        return FL_OK;
    const bool extra = zmq_msg_more(&self->frame) != 0;
    *peer = peer_of(self, port, id, (size_t)id_length, &self->frame, is_new);
    if (extra) {
        drain_parts(router);
        fl_log(FL_LOG_WARN, "peer_dropped", "a peer sent a message of several parts",
               FL_STR("user", *peer ? (*peer)->user : ""));
        if (*peer) {
            fl_zmq_peers_kill(&self->peers, *peer, now_ms());
            (*peer)->gone_due = !*is_new; /* nobody has heard of a new one */
            self->peers.ready -= *is_new;
        }
        *peer = NULL;
    }
    return FL_OK;
}

static void release_frame(struct fl_server *self)
{
    if (self->holding)
        (void)zmq_msg_close(&self->frame);
    self->holding = false;
}

static void fill(struct fl_server *self, const struct fl_zmq_peer *peer,
                 enum fl_transport_event_kind kind, struct fl_transport_event *event)
{
    *event = (struct fl_transport_event){.kind = kind,
                                         .port = peer->port,
                                         .peer = peer->handle,
                                         .user = peer->user,
                                         .address = peer->address};
    if (kind == FL_TRANSPORT_FRAME) {
        event->frame = zmq_msg_data(&self->frame);
        event->length = zmq_msg_size(&self->frame);
    }
}

/* One frame from any port, in turn. FL_ENOTFOUND: none waits anywhere. */
static enum fl_status next_frame(struct fl_server *self, struct fl_transport_event *event)
{
    for (unsigned tried = 0; tried < FL_PORT_COUNT;) {
        const enum fl_port port = self->turn;
        struct fl_zmq_peer *peer = NULL;
        bool is_new = false;
        enum fl_status status = FL_ENOTFOUND;
        self->turn = (self->turn + 1) % FL_PORT_COUNT;
        if (self->ports[port].readable)
            status = take_frame(self, port, &peer, &is_new);
        if (status == FL_EIO)
            return status;
        if (status == FL_ENOTFOUND) {
            if (self->ports[port].readable)
                apply_closures(self, port);
            self->ports[port].readable = false;
            tried++;
            continue;
        }
        if (!peer) {
            release_frame(self);
            if (++self->frames_since_service >= SERVICE_EVERY)
                return FL_ENOTFOUND;
            continue;
        }
        self->frames_since_service++;
        if (is_new)
            self->opening = peer->handle;
        fill(self, peer, is_new ? FL_TRANSPORT_OPENED : FL_TRANSPORT_FRAME, event);
        return FL_OK;
    }
    return FL_ENOTFOUND;
}

/* ------------------------------------------------------------------ sending */

/* FL_OK, FL_EBUSY (try later), FL_ENOTFOUND (no such connection) */
static enum fl_status hand_over(struct fl_server *self, const struct fl_zmq_peer *peer,
                                const void *frame, size_t length)
{
    void *router = self->ports[peer->port].router;
    if (zmq_send(router, peer->id, peer->id_length, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return errno == EAGAIN || errno == EINTR ? FL_EBUSY
               : errno == ENOMEM                 ? FL_ENOMEM
                                                 : FL_ENOTFOUND;
    if (zmq_send(router, frame, length, ZMQ_DONTWAIT) < 0)
        return FL_ENOTFOUND;
    return FL_OK;
}

static enum fl_status server_send(struct fl_transport *base, fl_peer handle, const void *frame,
                                  size_t length)
{
    struct fl_server *self = (struct fl_server *)base;
    struct fl_zmq_peer *peer = fl_zmq_peers_get(&self->peers, handle);
    if (!peer || peer->dead)
        return FL_ENOTFOUND;
    if (length > (peer->port == FL_PORT_CONTROL ? FL_CONTROL_REPLY_BYTES_MAX : FL_FRAME_BYTES_MAX))
        return FL_ERANGE;
    if (!peer->head) {
        const enum fl_status status = hand_over(self, peer, frame, length);
        if (status != FL_EBUSY)
            return status;
    }
    return fl_zmq_peers_park(&self->peers, peer, frame, length);
}

static void flush_outboxes(struct fl_server *self)
{
    for (uint32_t i = 0; self->peers.parked > 0 && i < self->peers.high; i++) {
        struct fl_zmq_peer *peer = &self->peers.slots[i];
        const void *frame;
        size_t length;
        while (peer->handle && !peer->dead && fl_zmq_peers_parked(peer, &frame, &length)) {
            const enum fl_status status = hand_over(self, peer, frame, length);
            if (status == FL_EBUSY)
                break;
            fl_zmq_peers_unpark(&self->peers, peer); /* sent, or nobody is there to have it */
        }
    }
}

static void server_drop(struct fl_transport *base, fl_peer handle)
{
    struct fl_server *self = (struct fl_server *)base;
    struct fl_zmq_peer *peer = fl_zmq_peers_get(&self->peers, handle);
    if (!peer || peer->dead)
        return;
    flush_outboxes(self);
    fl_zmq_peers_kill(&self->peers, peer, now_ms());
    if (self->opening == handle)
        self->opening = 0;
}

/* ------------------------------------------------------------------ the loop's turn */

/* FL_OK with the WAKE event; FL_ENOTFOUND: nothing for the caller; FL_ESTOPPED; FL_EIO. */
static enum fl_status service(struct fl_server *self, int64_t wait_ms,
                              struct fl_transport_event *event)
{
    zmq_pollitem_t items[2 + 2 * FL_PORT_COUNT];
    int count = 0;
    items[count++] = (zmq_pollitem_t){.socket = self->zap, .events = ZMQ_POLLIN};
    enum fl_port order[FL_PORT_COUNT];
    size_t open = 0;
    for (enum fl_port port = 0; port < FL_PORT_COUNT; port++) {
        if (!self->ports[port].router)
            continue;
        order[open++] = port;
        items[count++] = (zmq_pollitem_t){.socket = self->ports[port].router, .events = ZMQ_POLLIN};
        items[count++] = (zmq_pollitem_t){.socket = self->ports[port].monitor,
                                          .events = ZMQ_POLLIN};
    }
    if (self->wake_fd >= 0)
        items[count++] = (zmq_pollitem_t){.fd = self->wake_fd, .events = ZMQ_POLLIN};
    if (zmq_poll(items, count, (long)wait_ms) < 0)
        return errno == EINTR ? FL_ESTOPPED : FL_EIO;

    if (items[0].revents)
        fl_zmq_zap_answer(self->zap, self->decide, self->decide_context);
    for (size_t i = 0; i < open; i++) {
        if (items[1 + 2 * i].revents)
            self->ports[order[i]].readable = true;
        if (items[2 + 2 * i].revents)
            read_monitor(self, order[i]);
    }
    flush_outboxes(self);
    fl_zmq_peers_bury(&self->peers, now_ms());
    fl_zmq_silents_expire(&self->silents, &self->peers, now_ms());
    self->frames_since_service = 0;
    if (self->wake_fd < 0 || !items[count - 1].revents)
        return FL_ENOTFOUND;
    *event = (struct fl_transport_event){.kind = FL_TRANSPORT_WAKE, .user = ""};
    return FL_OK;
}

/* GONE and DRAINED */
static bool next_ready(struct fl_server *self, struct fl_transport_event *event)
{
    struct fl_zmq_peer *peer = fl_zmq_peers_ready(&self->peers);
    if (!peer)
        return false;
    self->peers.ready--;
    fill(self, peer, peer->gone_due ? FL_TRANSPORT_GONE : FL_TRANSPORT_DRAINED, event);
    if (peer->gone_due)
        self->going = peer->handle;
    peer->gone_due = peer->drained_due = false;
    return true;
}

static bool next_opened_frame(struct fl_server *self, struct fl_transport_event *event)
{
    struct fl_zmq_peer *peer = fl_zmq_peers_get(&self->peers, self->opening);
    self->opening = 0;
    if (!peer || peer->dead)
        return false;
    fill(self, peer, FL_TRANSPORT_FRAME, event);
    return true;
}

/* What the last event lent to the caller is given back. */
static void take_back(struct fl_server *self)
{
    if (self->opening == 0)
        release_frame(self);
    struct fl_zmq_peer *peer = fl_zmq_peers_get(&self->peers, self->going);
    if (peer && peer->forget_at_ms == 0)
        fl_zmq_peers_remove(&self->peers, peer);
    self->going = 0;
}

static int64_t wait_for(const struct fl_server *self, int64_t deadline)
{
    int64_t wait = deadline - now_ms();
    if (wait > 0 && self->peers.parked > 0 && wait > FL_ZMQ_PARK_RETRY_MS)
        wait = FL_ZMQ_PARK_RETRY_MS;
    if (wait > 0 && self->peers.dead > 0 && wait > FL_ZMQ_DROP_LINGER_MS / 4)
        wait = FL_ZMQ_DROP_LINGER_MS / 4;
    if (wait > SILENT_LOOK_MS && self->silents.count > 0)
        wait = SILENT_LOOK_MS;
    return wait > 0 ? wait : 0;
}

static enum fl_status server_next(struct fl_transport *base, int64_t timeout_ms,
                                  struct fl_transport_event *event)
{
    struct fl_server *self = (struct fl_server *)base;
    const int64_t deadline = now_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    memset(event, 0, sizeof(*event));
    take_back(self);
    if (self->opening && next_opened_frame(self, event))
        return FL_OK;
    release_frame(self);
    for (bool polled = false;; polled = true) {
        if (next_ready(self, event))
            return FL_OK;
        enum fl_status status = FL_ENOTFOUND;
        if (self->frames_since_service < SERVICE_EVERY)
            status = next_frame(self, event);
        if (status != FL_ENOTFOUND)
            return status;
        if (self->peers.ready > 0)
            continue;
        const int64_t wait = wait_for(self, deadline);
        if (polled && wait == 0 && self->frames_since_service < SERVICE_EVERY)
            return FL_ETIMEOUT;
        status = service(self, self->frames_since_service < SERVICE_EVERY ? wait : 0, event);
        if (status != FL_ENOTFOUND)
            return status;
    }
}

static const struct fl_transport_table server_table = {
    .next = server_next, .send = server_send, .drop = server_drop};

/* ------------------------------------------------------------------ opening */

static enum fl_status set_curve(const struct fl_server_config *config, enum fl_port port,
                                void *router, struct fl_error *error)
{
    static const struct fl_zmq_option server[] = {{ZMQ_CURVE_SERVER, 1},
                                                  {ZMQ_ZAP_ENFORCE_DOMAIN, 1}};
    const char *domain = port == FL_PORT_SESSION ? FL_ZMQ_DOMAIN_SESSION : FL_ZMQ_DOMAIN_JOIN;
    enum fl_status status = fl_zmq_set_options(router, server, 2, error);
    if (status == FL_OK)
        status = fl_zmq_set_keys(router, config->keys, error);
    if (status == FL_OK && zmq_setsockopt(router, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) != 0)
        status = fl_zmq_fail(error, "the ZAP domain is refused");
    return status;
}

static enum fl_status set_router(enum fl_port port, const char *endpoint, void *router,
                                 struct fl_error *error)
{
    static const int64_t frame_max[FL_PORT_COUNT] = {[FL_PORT_SESSION] = FL_FRAME_BYTES_MAX +
                                                                         FL_ZMQ_CURVE_BYTES,
                                                     [FL_PORT_JOIN] = JOIN_FRAME_BYTES_MAX,
                                                     [FL_PORT_CONTROL] = 1 << 20};
    static const struct fl_zmq_option options[] = {
        {ZMQ_ROUTER_MANDATORY, 1}, {ZMQ_ROUTER_HANDOVER, 0}, {ZMQ_BACKLOG, 4096}};
    enum fl_status status = fl_zmq_set_common(router, error);
    if (status == FL_OK)
        status = fl_zmq_set_options(router, options, 3, error);
    const enum fl_host_kind kind = fl_zmq_host_kind(endpoint);
    const int ipv6 = kind == FL_HOST_IPV6 ||
                     (kind == FL_HOST_ANY && access("/proc/net/if_inet6", R_OK) == 0);
    if (status == FL_OK &&
        (zmq_setsockopt(router, ZMQ_IPV6, &ipv6, sizeof(ipv6)) != 0 ||
         zmq_setsockopt(router, ZMQ_MAXMSGSIZE, &frame_max[port], sizeof(int64_t)) != 0))
        status = fl_zmq_fail(error, "a socket option is refused");
    return status;
}

static enum fl_status open_port(struct fl_server *self, const struct fl_server_config *config,
                                enum fl_port port, const char *endpoint, struct fl_error *error)
{
    struct port *p = &self->ports[port];
    if (!endpoint)
        return FL_OK;
    p->router = zmq_socket(self->context, ZMQ_ROUTER);
    if (!p->router)
        return fl_zmq_fail(error, "no socket");
    enum fl_status status = set_router(port, endpoint, p->router, error);
    if (status == FL_OK && port != FL_PORT_CONTROL)
        status = set_curve(config, port, p->router, error);
    if (status != FL_OK)
        return status;
    p->monitor = fl_zmq_monitor(self->context, p->router,
                                ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_ACCEPTED);
    if (!p->monitor)
        return fl_zmq_fail(error, "no monitor socket");
    if (zmq_bind(p->router, endpoint) != 0) {
        status = fl_zmq_fail(error, endpoint);
        if (status != FL_EBUSY)
            return status;
        return fl_fail(error, status,
                       "%s: another program has this port; end it, or listen on another (enrolment "
                       "takes the port behind that of sessions)",
                       endpoint);
    }
    size_t size = sizeof(p->endpoint);
    if (zmq_getsockopt(p->router, ZMQ_LAST_ENDPOINT, p->endpoint, &size) != 0)
        return fl_zmq_fail(error, endpoint);
    p->readable = true;
    return FL_OK;
}

static enum fl_status open_context(struct fl_server *self, const struct fl_server_config *config,
                                   struct fl_error *error)
{
    static const int no_linger = 0;
    self->context = zmq_ctx_new();
    if (!self->context)
        return fl_zmq_fail(error, "no ZeroMQ context");
    if (!zmq_has("curve"))
        return fl_fail(error, FL_EINVAL, "this libzmq was built without CURVE encryption");
    (void)zmq_ctx_set(self->context, ZMQ_IO_THREADS, config->io_threads ? config->io_threads : 1);
    self->zap = zmq_socket(self->context, ZMQ_REP); /* before any bind: nobody slips past it */
    if (!self->zap || zmq_setsockopt(self->zap, ZMQ_LINGER, &no_linger, sizeof(int)) != 0 ||
        zmq_bind(self->zap, "inproc://zeromq.zap.01") != 0)
        return fl_zmq_fail(error, "no ZAP handler");
    return FL_OK;
}

enum fl_status fl_server_open(const struct fl_server_config *config, struct fl_transport **out,
                              struct fl_error *error)
{
    assert(config && config->keys && out);
    const char *const endpoints[FL_PORT_COUNT] = {[FL_PORT_SESSION] = config->session,
                                                  [FL_PORT_JOIN] = config->join,
                                                  [FL_PORT_CONTROL] = config->control};
    *out = NULL;
    struct fl_server *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    struct fl_transport *base = &self->base;
    self->base.table = &server_table;
    self->decide = config->decide;
    self->decide_context = config->context;
    self->wake_fd = config->wake_fd;
    self->silent_ms = config->silent_ms > 0 ? config->silent_ms : SILENT_MS;
    const uint32_t peers_max = config->peers_max ? config->peers_max : FL_ZMQ_PEERS_MAX;
    enum fl_status status = fl_zmq_peers_init(&self->peers, peers_max);
    if (status == FL_OK)
        status = fl_zmq_silents_init(&self->silents, 2 * peers_max + 64);
    if (status != FL_OK)
        (void)fl_fail_memory(error);
    if (status == FL_OK)
        status = open_context(self, config, error);
    for (enum fl_port port = 0; status == FL_OK && port < FL_PORT_COUNT; port++)
        status = open_port(self, config, port, endpoints[port], error);
    if (status != FL_OK)
        fl_server_close(&base);
    *out = base;
    return status;
}

const char *fl_server_endpoint(const struct fl_transport *base, enum fl_port port)
{
    return ((const struct fl_server *)base)->ports[port].endpoint;
}

void fl_server_close(struct fl_transport **base)
{
    struct fl_server *self = (struct fl_server *)*base;
    if (!self)
        return;
    release_frame(self);
    for (enum fl_port port = 0; port < FL_PORT_COUNT; port++) {
        struct port *p = &self->ports[port];
        if (p->router && p->monitor)
            (void)zmq_socket_monitor(p->router, NULL, 0);
        if (p->monitor)
            (void)zmq_close(p->monitor);
        if (p->router)
            (void)zmq_close(p->router);
    }
    if (self->zap)
        (void)zmq_close(self->zap);
    if (self->context)
        while (zmq_ctx_term(self->context) != 0 && errno == EINTR)
            continue;
    fl_zmq_silents_free(&self->silents);
    fl_zmq_peers_free(&self->peers);
    fl_free(self);
    *base = NULL;
}
