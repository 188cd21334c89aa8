/*
 * seats.c - the sessions: who is connected, frames out, objects both ways, liveness.
 *
 * Invariants: at most one live seat a site; a seat that is leaving neither sends nor is heard.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/server_internal.h"
#include "net/bulk.h"

#define PROGRESS_MS 60000 /* a fetch without any new chunk for so long is given up */

struct fl_seat *fl_seat_find(struct fl_server *self, fl_peer peer)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        if (self->seats[i]->peer == peer)
            return self->seats[i];
    }
    return NULL;
}

struct fl_seat *fl_seat_of(struct fl_server *self, uint32_t site)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        struct fl_seat *seat = self->seats[i];
        if (seat->site == site && seat->live && !seat->leaving)
            return seat;
    }
    return NULL;
}

static bool grow(struct fl_server *self)
{
    if (self->seat_count < self->seat_capacity)
        return true;
    uint32_t capacity = self->seat_capacity ? 2 * self->seat_capacity : 16;
    struct fl_seat **grown = fl_reallocarray(self->seats, capacity, sizeof *grown);
    if (!grown)
        return false;
    self->seats = grown;
    self->seat_capacity = capacity;
    return true;
}

/* One session and what its reconnections leave behind: more is a site that takes others' places. */
static bool crowds(const struct fl_server *self, const struct fl_site *site)
{
    uint32_t seats = 0;
    for (uint32_t i = 0; i < self->seat_count; i++)
        seats += self->seats[i]->site == site->id;
    if (seats >= FL_SEATS_OF_A_SITE)
        fl_log(FL_LOG_WARN, "peer_dropped", "a site has too many connections",
               FL_STR("worker", site->name));
    return seats >= FL_SEATS_OF_A_SITE;
}

struct fl_seat *fl_seat_open(struct fl_server *self, fl_peer peer, const char *user)
{
    const struct fl_site *site = fl_roster_by_name(self->desk->roster, user);
    if (!site || site->revoked || crowds(self, site) || !grow(self))
        return NULL;
    struct fl_seat *seat = fl_calloc(1, sizeof *seat);
    if (!seat)
        return NULL;
    if (fl_serve_create(self->shelf, &seat->serve) != FL_OK) {
        fl_free(seat);
        return NULL;
    }
    seat->peer = peer;
    seat->site = site->id;
    seat->heard_ms = seat->credit_ms = fl_server_now(self);
    seat->credit = FL_SEAT_CREDIT;
    seat->liveness_ms = self->desk->conf.liveness_ms;
    (void)snprintf(seat->name, sizeof seat->name, "%s", site->name);
    self->seats[self->seat_count++] = seat;
    return seat;
}

static void free_seat(struct fl_seat *seat)
{
    fl_fetch_close(&seat->fetch);
    fl_serve_destroy(&seat->serve);
    fl_free(seat);
}

/* The site's session is over, though the connection may still be closing. */
static void leave(struct fl_server *self, struct fl_seat *seat)
{
    bool was_live = seat->live;
    struct fl_error error;
    seat->live = false;
    seat->leaving = true;
    fl_serve_clear(seat->serve);
    fl_seat_stop_fetch(seat);
    if (!was_live || fl_seat_of(self, seat->site))
        return;
    fl_log(FL_LOG_INFO, "site_offline", "a site's session ended", FL_STR("worker", seat->name));
    (void)!fl_roster_touch(self->desk->roster, seat->site, fl_clock_wall(self->desk->clock),
                           &error);
    fl_conduct_site(self, FL_EVENT_OFFLINE, seat->site);
}

void fl_seat_gone(struct fl_server *self, fl_peer peer)
{
    struct fl_seat *seat = fl_seat_find(self, peer);
    if (!seat)
        return;
    leave(self, seat);
    for (uint32_t i = 0; i < self->seat_count; i++) {
        if (self->seats[i] == seat) {
            self->seats[i] = self->seats[--self->seat_count];
            break;
        }
    }
    free_seat(seat);
}

/* ---- frames out ---- */

static enum fl_status send_wire(struct fl_server *self, struct fl_seat *seat,
                                struct fl_wire *message)
{
    message->has_nonce = true;
    memcpy(message->nonce, seat->nonce, FL_NONCE_BYTES);
    fl_buf_free(&self->frame);
    fl_buf_init(&self->frame, FL_FRAME_BYTES_MAX);
    enum fl_status status = fl_wire_encode(message, &self->frame);
    if (status != FL_OK) {
        fl_log(FL_LOG_ERROR, "encode_failed", "a message cannot be encoded",
               FL_STR("kind", fl_wire_kind_name(message->kind)),
               FL_STR("status", fl_status_text(status)));
        return FL_OK; /* sending it again would not help */
    }
    status = fl_transport_send(self->transport, seat->peer, self->frame.data, self->frame.length);
    if (status == FL_OK)
        self->tally.sent_bytes += self->frame.length;
    seat->beat_ms = fl_server_now(self) + seat->liveness_ms / 3;
    return status;
}

void fl_seat_send(struct fl_server *self, struct fl_seat *seat, struct fl_wire *message)
{
    if (seat->leaving)
        return;
    enum fl_status status = send_wire(self, seat, message);
    if (status != FL_EBUSY && status != FL_ENOMEM)
        return;
    seat->owed = true;
    if (message->kind == FL_WIRE_VERSION || message->kind == FL_WIRE_JOB_END)
        seat->missed_job = message->job;
}

void fl_seat_dismiss(struct fl_server *self, struct fl_seat *seat, enum fl_goodbye reason,
                     const char *text, uint32_t wait_ms)
{
    if (seat->leaving)
        return;
    struct fl_wire message = {.kind = FL_WIRE_GOODBYE};
    message.as.goodbye.reason = reason;
    message.as.goodbye.wait_ms = wait_ms;
    fl_wire_set_text(message.as.goodbye.text, sizeof message.as.goodbye.text, text);
    fl_seat_send(self, seat, &message);
    fl_transport_drop(self->transport, seat->peer);
    leave(self, seat);
}

void fl_seat_pump(struct fl_server *self, struct fl_seat *seat)
{
    struct fl_chunk_message chunk;
    while (!seat->leaving && fl_serve_next(seat->serve, &chunk) == FL_OK) {
        struct fl_wire message = {.job = (uint64_t)self->job.id};
        fl_bulk_to_wire(&chunk, &message);
        enum fl_status status = send_wire(self, seat, &message);
        self->busy_until_ms = fl_server_now(self) + 2000;
        if (status != FL_OK)
            return; /* DRAINED or GONE follows */
        fl_serve_sent(seat->serve);
    }
}

static void send_owed(struct fl_server *self, struct fl_seat *seat)
{
    const struct fl_wire_hello missed = {.last_job = seat->missed_job};
    seat->owed = false;
    seat->missed_job = 0;
    fl_send_missed(self, seat, &missed);
    fl_send_due(self, seat);
}

void fl_seat_drained(struct fl_server *self, struct fl_seat *seat)
{
    if (seat->owed && seat->live)
        send_owed(self, seat);
    fl_seat_pump(self, seat);
}

/* ---- sessions ---- */

static int64_t liveness(const struct fl_server *self)
{
    return self->facts ? self->facts->spec->liveness_timeout : self->desk->conf.liveness_ms;
}

static void supersede(struct fl_server *self, const struct fl_seat *by)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        struct fl_seat *other = self->seats[i];
        if (other == by || other->site != by->site || other->leaving)
            continue;
        fl_log(FL_LOG_WARN, "session_superseded", "a newer session of the same site began",
               FL_STR("worker", by->name));
        fl_seat_dismiss(self, other, FL_GOODBYE_DUPLICATE, "another process uses this site's key",
                        FL_DUPLICATE_WAIT_MS);
    }
}

static void welcome(struct fl_server *self, struct fl_seat *seat)
{
    struct fl_wire message = {.kind = FL_WIRE_WELCOME};
    fl_entropy_bytes(fl_entropy_system(), seat->nonce, sizeof seat->nonce);
    memcpy(message.as.welcome.nonce, seat->nonce, FL_NONCE_BYTES);
    (void)snprintf(message.as.welcome.name, FL_NAME_BYTES, "%s", seat->name);
    message.as.welcome.heartbeat_ms = (uint32_t)(seat->liveness_ms / 3);
    message.as.welcome.liveness_ms = (uint32_t)seat->liveness_ms;
    fl_seat_send(self, seat, &message);
}

void fl_seat_hello(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    struct fl_error error;
    bool again = seat->live;
    fl_serve_clear(seat->serve);
    fl_seat_stop_fetch(seat);
    seat->live = true;
    seat->fresh = true;
    seat->liveness_ms = liveness(self);
    supersede(self, seat);
    welcome(self, seat);
    if (!again)
        fl_log(FL_LOG_INFO, "site_online", "a site's session began", FL_STR("worker", seat->name),
               FL_STR("software", message->as.hello.software));
    if (fl_roster_touch(self->desk->roster, seat->site, fl_clock_wall(self->desk->clock), &error) !=
        FL_OK)
        fl_log(FL_LOG_WARN, "store_failed", error.text);
    seat->hello = message->as.hello;
    if (!fl_recall_hear(self, seat))
        fl_send_missed(self, seat, &message->as.hello);
    fl_conduct_site(self, FL_EVENT_ONLINE, seat->site);
    fl_conduct_tick(self, fl_server_now(self));
}

void fl_seat_tick(struct fl_server *self, struct fl_seat *seat, int64_t now_ms)
{
    if (seat->leaving)
        return;
    if (now_ms - seat->heard_ms >= seat->liveness_ms) {
        fl_log(FL_LOG_WARN, "site_silent", "a session said nothing for too long",
               FL_STR("worker", seat->name), FL_I64("liveness_ms", seat->liveness_ms));
        fl_seat_dismiss(self, seat, FL_GOODBYE_SHUTDOWN, "nothing was heard for too long", 0);
        return;
    }
    if (seat->live && now_ms >= seat->beat_ms) {
        struct fl_wire message = {.kind = FL_WIRE_HEARTBEAT};
        fl_seat_send(self, seat, &message);
    }
    if (seat->retry_ms && now_ms >= seat->retry_ms) {
        seat->retry_ms = 0;
        send_owed(self, seat);
    }
    if (seat->fetch && now_ms >= fl_fetch_due(seat->fetch))
        fl_seat_step_fetch(self, seat, FL_FETCH_TICK, NULL);
}

/* ---- objects in ---- */

void fl_seat_stop_fetch(struct fl_seat *seat)
{
    fl_fetch_close(&seat->fetch);
}

void fl_seat_fetch(struct fl_server *self, struct fl_seat *seat, enum fl_fetch_purpose purpose,
                   const struct fl_object_ref *ref, const char *part_path)
{
    struct fl_error error;
    if (seat->fetch && memcmp(seat->fetching.root, ref->root, FL_HASH_BYTES) == 0)
        return;
    fl_seat_stop_fetch(seat);
    struct fl_fetch_config config = {
        .size = ref->size,
        .size_max = purpose == FL_FETCH_INVENTORY ? FL_INVENTORY_BYTES_MAX : ref->size,
        .part_path = part_path,
        .progress_ms = PROGRESS_MS};
    memcpy(config.root, ref->root, FL_HASH_BYTES);
    seat->purpose = purpose;
    seat->fetching = *ref;
    if (fl_fetch_open(&config, &seat->fetch, &error) != FL_OK) {
        fl_log(FL_LOG_WARN, "fetch_failed", error.text, FL_STR("worker", seat->name));
        seat->retry_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
        return;
    }
    fl_seat_step_fetch(self, seat, FL_FETCH_ONLINE, NULL);
}

void fl_seat_step_fetch(struct fl_server *self, struct fl_seat *seat, enum fl_fetch_event event,
                        const struct fl_chunk_message *message)
{
    struct fl_fetch_effects effects = {0};
    enum fl_fetch_state state = fl_fetch_step(seat->fetch, event, message, fl_server_now(self),
                                              &effects);
    for (size_t i = 0; i < effects.count; i++) {
        struct fl_wire need = {.job = (uint64_t)self->job.id};
        fl_bulk_to_wire(&effects.messages[i], &need);
        fl_seat_send(self, seat, &need);
    }
    if (state == FL_FETCH_DONE || state == FL_FETCH_FAILED)
        fl_intake_fetched(self, seat);
}
