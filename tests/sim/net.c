/*
 * net.c - connections between the hub and the sites. A frame arrives in the order of its
 * connection, or not at all; connections know nothing of each other.
 */
#include <string.h>

#include "base/alloc.h"
#include "disk.h"
#include "sim.h"

#define LINGER_MS 20000 /* how long an end may believe in a connection that is dead */

struct sim_conn *sim_conn_at(struct sim *self, uint64_t id)
{
    return id && id <= self->conn_count ? &self->conns[id - 1] : NULL;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t delay(struct sim *self)
{
    int64_t ms = 1 + sim_below(self, (uint32_t)self->latency_ms);
    return sim_chance(self, 2) && self->faults ? ms + 10 * self->latency_ms : ms;
}

static struct sim_event *put(struct sim *self, int64_t at, enum sim_kind kind, uint64_t id)
{
    struct sim_event *event = sim_schedule(self, at, kind);
    const struct sim_conn *conn = sim_conn_at(self, id);
    event->conn = id;
    event->site = conn->site;
    event->life = kind <= SIM_HUB_START ? self->hub.life : self->sites[conn->site].life;
    return event;
}

static void put_frame(struct sim *self, uint64_t id, bool to_hub, const void *frame, size_t length)
{
    struct sim_conn *conn = sim_conn_at(self, id);
    int64_t *last = to_hub ? &conn->to_hub_at : &conn->to_site_at;
    uint8_t *copy = fl_malloc(length);
    if (!copy)
        return;
    memcpy(copy, frame, length);
    *last = later(*last, self->now + delay(self));
    struct sim_event *event = put(self, *last, to_hub ? SIM_HUB_FRAME : SIM_SITE_FRAME, id);
    event->frame = copy;
    event->length = length;
    *(to_hub ? &conn->to_hub_bytes : &conn->to_site_bytes) += length;
    self->counts.frames++;
}

/* ---- the hub's end ---- */

static enum fl_status hub_next(struct fl_transport *transport, int64_t timeout_ms,
                               struct fl_transport_event *event)
{
    (void)transport, (void)timeout_ms, (void)event;
    return FL_ETIMEOUT;
}

static enum fl_status hub_send(struct fl_transport *transport, fl_peer peer, const void *frame,
                               size_t length)
{
    struct sim *self = ((struct sim_hub *)transport)->sim;
    struct sim_conn *conn = sim_conn_at(self, peer);
    if (length > FL_FRAME_BYTES_MAX)
        return FL_ERANGE;
    if (!conn || !conn->hub_open)
        return FL_ENOTFOUND;
    if (fl_store_crashed() || sim_disk_is_dead(SIM_MACHINE_HUB) || conn->cut || !conn->site_open)
        return FL_OK; /* said by a dead process, or into the void */
    if (conn->to_site_bytes > 0 && conn->to_site_bytes + length > self->outbox_bytes) {
        conn->hub_blocked = true;
        return FL_EBUSY;
    }
    put_frame(self, peer, false, frame, length);
    return FL_OK;
}

static void hub_drop(struct fl_transport *transport, fl_peer peer)
{
    struct sim *self = ((struct sim_hub *)transport)->sim;
    struct sim_conn *conn = sim_conn_at(self, peer);
    if (!conn || !conn->hub_open)
        return;
    conn->hub_open = false;
    (void)put(self, self->now + 1, SIM_HUB_GONE, peer);
    if (conn->site_open && !conn->cut) {
        conn->to_site_at = later(conn->to_site_at, self->now + delay(self));
        (void)put(self, conn->to_site_at, SIM_SITE_DOWN, peer);
    }
}

static const struct fl_transport_table hub_table = {
    .next = hub_next, .send = hub_send, .drop = hub_drop};

void sim_net_init_hub(struct sim *self)
{
    self->hub.transport.table = &hub_table;
    self->hub.sim = self;
}

/* ---- a site's end ---- */

static enum fl_status site_next(struct fl_link *link, int64_t timeout_ms,
                                struct fl_link_event *event)
{
    struct sim_site *site = (struct sim_site *)link;
    (void)timeout_ms;
    if (!site->pending)
        return FL_ETIMEOUT;
    *event = *site->pending;
    site->pending = NULL;
    return FL_OK;
}

void sim_net_say(struct sim_site *site, const void *frame, size_t length)
{
    put_frame(site->sim, site->conn, true, frame, length);
}

static enum fl_status site_send(struct fl_link *link, const void *frame, size_t length)
{
    struct sim_site *site = (struct sim_site *)link;
    struct sim *self = site->sim;
    struct sim_conn *conn = sim_conn_at(self, site->conn);
    if (length > FL_FRAME_BYTES_MAX)
        return FL_ERANGE;
    if (!conn || !conn->site_open)
        return FL_ENOTFOUND;
    if (sim_disk_is_dead(site->index + 1) || conn->cut || !conn->hub_open)
        return FL_OK;
    if (conn->to_hub_bytes > 0 && conn->to_hub_bytes + length > self->outbox_bytes) {
        conn->site_blocked = true;
        return FL_EBUSY;
    }
    if (!sim_hostile_say(site, frame, length)) {
        sim_check_frame(site, frame, length);
        sim_net_say(site, frame, length);
    }
    sim_hostile_keep(site, frame, length);
    if (self->faults && length <= FL_CONTROL_BYTES_MAX && sim_chance(self, 1))
        sim_net_say(site, frame, length);
    return FL_OK;
}

/* What was sent still arrives; then the hub hears of the end, at once or only much later. */
static void close_site_end(struct sim *self, uint64_t id)
{
    struct sim_conn *conn = sim_conn_at(self, id);
    if (!conn || !conn->site_open)
        return;
    conn->site_open = false;
    if (!conn->hub_open || conn->cut)
        return;
    int64_t at = self->now + delay(self);
    if (self->faults && sim_chance(self, 20))
        at += sim_below(self, LINGER_MS);
    conn->to_hub_at = later(conn->to_hub_at, at);
    (void)put(self, conn->to_hub_at, SIM_HUB_GONE, id);
}

void sim_net_dial(struct sim_site *site)
{
    struct sim *self = site->sim;
    if (self->conn_count == self->conn_capacity) {
        size_t capacity = self->conn_capacity ? 2 * self->conn_capacity : 64;
        struct sim_conn *grown = fl_reallocarray(self->conns, capacity, sizeof(*grown));
        if (!grown) {
            sim_violation(self, "out of memory");
            return;
        }
        self->conns = grown;
        self->conn_capacity = capacity;
    }
    self->conns[self->conn_count++] = (struct sim_conn){.site = site->index};
    site->conn = self->conn_count;
    (void)put(self, self->now + delay(self), SIM_SITE_DIAL, site->conn);
}

static enum fl_status site_reset(struct fl_link *link)
{
    struct sim_site *site = (struct sim_site *)link;
    close_site_end(site->sim, site->conn);
    sim_net_dial(site);
    return FL_OK;
}

static const struct fl_link_table site_table = {
    .next = site_next, .send = site_send, .reset = site_reset};

void sim_net_init_site(struct sim_site *site)
{
    site->link.table = &site_table;
}

/* ---- arrivals ---- */

static void dial(struct sim *self, const struct sim_event *event)
{
    struct sim_site *site = &self->sites[event->site];
    struct sim_conn *conn = sim_conn_at(self, event->conn);
    char user[FL_USER_BYTES];
    if (site->conn != event->conn)
        return;
    if (!self->hub.server || site->dark_until > self->now) {
        (void)put(self, self->now + 100 + sim_below(self, 400), SIM_SITE_DIAL, event->conn);
        return;
    }
    bool known = fl_server_zap(self->hub.server, site->identity.x25519, user) == FL_ZAP_ALLOW;
    conn->site_open = conn->hub_open = known;
    if (known && self->faults && sim_chance(self, 15))
        sim_hostile_replay(site);
    const struct fl_link_event up = {.kind = known ? FL_LINK_UP : FL_LINK_DENIED};
    sim_site_turn(site, &up);
}

static struct fl_transport_event of_conn(struct sim *self, const struct sim_event *event,
                                         enum fl_transport_event_kind kind)
{
    struct sim_site *site = &self->sites[event->site];
    return (struct fl_transport_event){.kind = kind,
                                       .port = FL_PORT_SESSION,
                                       .peer = event->conn,
                                       .user = site->name,
                                       .address = "127.0.0.1",
                                       .frame = event->frame,
                                       .length = event->length};
}

/* A byte was changed on the way: the frame fails its authentication, the connection ends. */
static bool is_corrupt(struct sim *self, uint64_t id)
{
    if (!sim_conn_at(self, id)->corrupt)
        return false;
    sim_net_cut(self, id);
    return true;
}

static void hub_frame(struct sim *self, const struct sim_event *event)
{
    struct sim_conn *conn = sim_conn_at(self, event->conn);
    conn->to_hub_bytes -= event->length;
    if (conn->site_blocked && conn->to_hub_bytes <= self->outbox_bytes / 2) {
        conn->site_blocked = false;
        (void)put(self, self->now, SIM_SITE_DRAINED, event->conn);
    }
    if (conn->cut || !conn->hub_open || is_corrupt(self, event->conn))
        return;
    if (!conn->hub_told) {
        const struct fl_transport_event opened = of_conn(self, event, FL_TRANSPORT_OPENED);
        conn->hub_told = true;
        sim_hub_event(self, &opened);
        conn = sim_conn_at(self, event->conn);
        if (!self->hub.server || !conn->hub_open)
            return;
    }
    const struct fl_transport_event frame = of_conn(self, event, FL_TRANSPORT_FRAME);
    sim_hub_event(self, &frame);
}

static void site_frame(struct sim *self, const struct sim_event *event)
{
    struct sim_site *site = &self->sites[event->site];
    struct sim_conn *conn = sim_conn_at(self, event->conn);
    conn->to_site_bytes -= event->length;
    if (conn->hub_blocked && conn->to_site_bytes <= self->outbox_bytes / 2) {
        conn->hub_blocked = false;
        (void)put(self, self->now, SIM_HUB_DRAINED, event->conn);
    }
    if (conn->cut || !conn->site_open || site->conn != event->conn || is_corrupt(self, event->conn))
        return;
    const struct fl_link_event frame = {
        .kind = FL_LINK_FRAME, .frame = event->frame, .length = event->length};
    sim_site_turn(site, &frame);
}

static void hub_plain(struct sim *self, const struct sim_event *event)
{
    struct sim_conn *conn = sim_conn_at(self, event->conn);
    bool gone = event->kind == SIM_HUB_GONE;
    if (!conn->hub_told || (!gone && !conn->hub_open))
        return;
    if (gone) {
        conn->hub_told = false;
        conn->hub_open = false;
    }
    const struct fl_transport_event plain =
        of_conn(self, event, gone ? FL_TRANSPORT_GONE : FL_TRANSPORT_DRAINED);
    sim_hub_event(self, &plain);
}

static void site_plain(struct sim *self, const struct sim_event *event)
{
    struct sim_site *site = &self->sites[event->site];
    struct sim_conn *conn = sim_conn_at(self, event->conn);
    if (site->conn != event->conn || !conn->site_open)
        return;
    if (event->kind == SIM_SITE_DOWN)
        conn->site_open = false;
    const struct fl_link_event plain = {.kind = event->kind == SIM_SITE_DOWN ? FL_LINK_DOWN
                                                                             : FL_LINK_DRAINED};
    sim_site_turn(site, &plain);
}

void sim_net_event(struct sim *self, struct sim_event *event)
{
    bool for_hub = event->kind <= SIM_HUB_START;
    const struct sim_site *site = &self->sites[event->site];
    bool alive = for_hub ? self->hub.server && event->life == self->hub.life
                         : site->client && event->life == site->life;
    if (!alive)
        return;
    if (event->kind == SIM_HUB_FRAME)
        hub_frame(self, event);
    else if (event->kind == SIM_SITE_FRAME)
        site_frame(self, event);
    else if (event->kind == SIM_SITE_DIAL)
        dial(self, event);
    else if (for_hub)
        hub_plain(self, event);
    else
        site_plain(self, event);
}

/* ---- deaths and weather ---- */

void sim_net_site_died(struct sim_site *site)
{
    if (sim_chance(site->sim, 70))
        close_site_end(site->sim, site->conn);
    else
        sim_net_cut(site->sim, site->conn);
    site->conn = 0;
}

void sim_net_hub_died(struct sim *self)
{
    for (size_t i = 0; i < self->conn_count; i++) {
        struct sim_conn *conn = &self->conns[i];
        conn->hub_open = conn->hub_told = false;
        if (!conn->site_open || conn->cut)
            continue;
        bool silent = sim_chance(self, 10); /* the machine went with it: no one says goodbye */
        int64_t at = self->now + (silent ? sim_below(self, LINGER_MS) : delay(self));
        conn->to_site_at = later(conn->to_site_at, at);
        (void)put(self, conn->to_site_at, SIM_SITE_DOWN, i + 1);
    }
}

void sim_net_cut(struct sim *self, uint64_t id)
{
    struct sim_conn *conn = sim_conn_at(self, id);
    if (!conn || conn->cut || (!conn->hub_open && !conn->site_open))
        return;
    conn->cut = true;
    self->counts.cuts++;
    uint32_t hub_after = sim_chance(self, 30) ? LINGER_MS : 500;
    uint32_t site_after = sim_chance(self, 30) ? LINGER_MS : 500;
    if (conn->hub_open)
        (void)put(self, self->now + sim_below(self, hub_after), SIM_HUB_GONE, id);
    if (conn->site_open)
        (void)put(self, self->now + sim_below(self, site_after), SIM_SITE_DOWN, id);
}

void sim_net_clog(struct sim *self, uint64_t id, int64_t until)
{
    struct sim_conn *conn = sim_conn_at(self, id);
    if (!conn || conn->cut)
        return;
    self->counts.clogs++;
    if (sim_chance(self, 70))
        conn->to_hub_at = later(conn->to_hub_at, until);
    if (sim_chance(self, 70))
        conn->to_site_at = later(conn->to_site_at, until);
}

void sim_net_corrupt(struct sim *self, uint64_t id)
{
    struct sim_conn *conn = sim_conn_at(self, id);
    if (conn && !conn->cut)
        conn->corrupt = true;
}

void sim_net_rubbish(struct sim *self, uint64_t id, bool to_hub)
{
    uint8_t frame[96];
    struct sim_conn *conn = sim_conn_at(self, id);
    if (!conn || conn->cut || !conn->hub_open || !conn->site_open)
        return;
    size_t length = 1 + sim_below(self, sizeof(frame) - 1);
    for (size_t i = 0; i < length; i++)
        frame[i] = (uint8_t)sim_random(self);
    memset(frame + (length > 12 ? length - 12 : 0), 0xff, length > 12 ? 12 : length);
    self->counts.rubbish++;
    put_frame(self, id, to_hub, frame, length);
}
