/* server.c - the loop: events of the transport, time, finished work. */
#include "coordinator/server.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/server_internal.h"
#include "coordinator/sweep.h"

#define TICK_MS     200 /* the longest sleep: timers are coarse */
#define SHORTEST_MS 5

#define ENDING_WAIT_MS (6 * FL_ROUND_RETRY_MS)

/* ---- what commands see ---- */

static void live_worker(void *context, uint32_t site, struct fl_live_worker *out)
{
    struct fl_server *self = context;
    const struct fl_seat *seat = fl_seat_of(self, site);
    *out = (struct fl_live_worker){.last_seen_ms_ago = -1};
    if (!seat)
        return;
    out->online = true;
    out->training = seat->activity == FL_ACTIVITY_TRAINING ||
                    seat->activity == FL_ACTIVITY_EVALUATING;
    out->last_seen_ms_ago = fl_server_now(self) - seat->heard_ms;
}

/* The names of those that may still come, as far as they fit. */
static void name_missing(const struct fl_server *self, char *out, size_t bytes)
{
    size_t used = strlen(out);
    const char *before = ": ";
    for (uint32_t i = 0; i < self->round->count; i++) {
        const struct fl_member *m = &self->round->members[i];
        const struct fl_site *site = fl_roster_by_id(self->desk->roster, m->site);
        if (!site || m->revoked || m->online || m->answer == FL_ANSWER_REFUSED)
            continue;
        int length = snprintf(out + used, bytes - used, "%s%s", before, site->name);
        if (length < 0 || (size_t)length >= bytes - used) {
            out[used] = '\0';
            return;
        }
        used += (size_t)length;
        before = ", ";
    }
}

/* Who of the cohort has still to train, or to send its update: an operator asks just that. */
static void name_late(const struct fl_server *self, char *out, size_t bytes)
{
    size_t used = 0;
    bool training = self->round->state == FL_ROUND_TRAIN;
    for (uint32_t i = 0; i < self->round->count && used < bytes; i++) {
        const struct fl_member *m = &self->round->members[i];
        const struct fl_site *site = fl_roster_by_id(self->desk->roster, m->site);
        if (!m->cohort || m->failed || !site || (training ? m->trained : m->uploaded))
            continue;
        int n = snprintf(out + used, bytes - used, "%s%s%s", used ? ", " : "waiting for ",
                         site->name, m->online ? "" : " (offline)");
        if (n < 0 || (size_t)n >= bytes - used) {
            out[used] = '\0';
            return;
        }
        used += (size_t)n;
    }
}

static void live_waiting(void *context, char *out, size_t bytes)
{
    struct fl_server *self = context;
    out[0] = '\0';
    if (!self->job.id)
        return;
    (void)snprintf(out, bytes, "%s", self->round->reason);
    if (!out[0] && (self->round->state == FL_ROUND_TRAIN || self->round->state == FL_ROUND_COLLECT))
        name_late(self, out, bytes);
    if (self->round->state != FL_ROUND_SELECT)
        return;
    uint32_t online = fl_round_online(self->round), least = self->round->rules.min_workers;
    if (online >= least)
        return;
    (void)snprintf(out, bytes, "waiting for %u more of at least %u sites", least - online, least);
    name_missing(self, out, bytes);
}

static int64_t live_running_job(void *context)
{
    return ((struct fl_server *)context)->job.id;
}

static void live_queue_changed(void *context)
{
    struct fl_server *self = context;
    self->next_look_ms = 0;
    self->idle = false;
}

static void live_site_revoked(void *context, uint32_t site)
{
    struct fl_server *self = context;
    fl_conduct_site(self, FL_EVENT_REVOKED, site);
    for (uint32_t i = 0; i < self->seat_count; i++) {
        if (self->seats[i]->site == site)
            fl_seat_dismiss(self, self->seats[i], FL_GOODBYE_REVOKED, "this site's key was revoked",
                            0);
    }
    fl_conduct_tick(self, fl_server_now(self));
}

static enum fl_status live_cancel(void *context, struct fl_error *error)
{
    struct fl_server *self = context;
    const struct fl_round_input input = {.event = FL_EVENT_CANCEL,
                                         .reason = "cancelled by the operator"};
    int64_t id = self->job.id;
    fl_conduct(self, &input);
    if (self->job.id == id)
        return fl_fail(error, FL_EBUSY, "the job cannot be cancelled at this moment; try again");
    return FL_OK;
}

const struct fl_live *fl_server_live(struct fl_server *self)
{
    return &self->live;
}

/* ---- life ---- */

enum fl_status fl_server_create(struct fl_desk *desk, const struct fl_server_options *options,
                                struct fl_server **out, struct fl_error *error)
{
    *out = NULL;
    enum fl_status status = fl_store_settle(desk->store, error);
    if (status != FL_OK)
        return status;
    struct fl_server *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->desk = desk;
    self->options = *options;
    self->live = (struct fl_live){.context = self,
                                  .worker = live_worker,
                                  .waiting = live_waiting,
                                  .running_job = live_running_job,
                                  .queue_changed = live_queue_changed,
                                  .site_revoked = live_site_revoked,
                                  .cancel = live_cancel};
    fl_buf_init(&self->frame, FL_FRAME_BYTES_MAX);
    if (fl_sweep_ended(desk->store, error) != FL_OK) /* nothing depends on it */
        fl_log(FL_LOG_WARN, "clean_failed", error->text);
    fl_conduct_write_endings(self); /* of jobs whose end was the last thing that was committed */
    self->round = fl_calloc(1, sizeof *self->round);
    self->next = fl_calloc(1, sizeof *self->next);
    status = self->round && self->next ? fl_shelf_create(&self->shelf) : FL_ENOMEM;
    if (status != FL_OK)
        (void)fl_fail_memory(error);
    else
        status = fl_mill_start(options->threaded, &self->mill, error);
    if (status != FL_OK)
        fl_server_destroy(&self);
    *out = self;
    return status;
}

void fl_server_destroy(struct fl_server **out)
{
    struct fl_server *self = *out;
    if (!self)
        return;
    fl_mill_stop(&self->mill);
    fl_conduct_drop_job(self);
    fl_recall_free(&self->recall);
    for (uint32_t i = 0; i < self->seat_count; i++) {
        fl_fetch_close(&self->seats[i]->fetch);
        fl_serve_destroy(&self->seats[i]->serve);
        fl_free(self->seats[i]);
    }
    fl_free(self->seats);
    fl_shelf_destroy(&self->shelf);
    fl_buf_free(&self->frame);
    fl_free(self->round);
    fl_free(self->next);
    fl_free(self);
    *out = NULL;
}

void fl_server_attach(struct fl_server *self, struct fl_transport *transport)
{
    self->transport = transport;
}

void fl_server_show(struct fl_server *self, struct fl_http_desk *http)
{
    self->http = http;
}

int fl_server_wake_fd(const struct fl_server *self)
{
    return fl_mill_fd(self->mill);
}

enum fl_zap_answer fl_server_zap(void *context, const uint8_t x25519[FL_KEY_BYTES], char *user)
{
    const struct fl_server *self = context;
    const struct fl_site *site = fl_roster_by_key(self->desk->roster, x25519);
    if (!site || site->revoked)
        return FL_ZAP_DENY;
    (void)snprintf(user, FL_USER_BYTES, "%s", site->name);
    return FL_ZAP_ALLOW;
}

/* ---- events ---- */

/* The answer in parts of one frame each. */
static void answer_control(struct fl_server *self, fl_peer peer, const struct fl_buf *answer)
{
    uint8_t *frame = fl_malloc(FL_CONTROL_PART_BYTES + 1);
    size_t offset = 0;
    while (frame) {
        size_t left = answer->length - offset;
        size_t part = left < FL_CONTROL_PART_BYTES ? left : FL_CONTROL_PART_BYTES;
        frame[0] = part == left ? 'E' : 'M';
        if (part > 0)
            memcpy(frame + 1, answer->data + offset, part);
        if (fl_transport_send(self->transport, peer, frame, part + 1) != FL_OK) {
            fl_transport_drop(self->transport, peer);
            break;
        }
        offset += part;
        if (part == left)
            break;
    }
    fl_free(frame);
}

static void take_command(struct fl_server *self, const struct fl_transport_event *event)
{
    struct fl_buf answer;
    fl_buf_init(&answer, FL_CONTROL_ANSWER_BYTES);
    if (fl_control_bytes(self->desk, &self->live, event->frame, event->length, &answer) == FL_OK)
        answer_control(self, event->peer, &answer);
    else
        fl_transport_drop(self->transport, event->peer);
    fl_buf_free(&answer);
}

static void session_event(struct fl_server *self, const struct fl_transport_event *event)
{
    struct fl_seat *seat = fl_seat_find(self, event->peer);
    switch (event->kind) {
    case FL_TRANSPORT_OPENED:
        if (!seat && !fl_seat_open(self, event->peer, event->user))
            fl_transport_drop(self->transport, event->peer);
        break;
    case FL_TRANSPORT_FRAME:
        if (!seat)
            seat = fl_seat_open(self, event->peer, event->user);
        if (seat)
            fl_intake_frame(self, seat, event->frame, event->length);
        break;
    case FL_TRANSPORT_DRAINED:
        if (seat)
            fl_seat_drained(self, seat);
        break;
    case FL_TRANSPORT_GONE:
        fl_seat_gone(self, event->peer);
        break;
    case FL_TRANSPORT_WAKE:
        break;
    }
}

void fl_server_event(struct fl_server *self, const struct fl_transport_event *event)
{
    if (event->kind == FL_TRANSPORT_WAKE) {
        fl_mill_collect(self->mill, self);
        return;
    }
    if (event->port == FL_PORT_SESSION)
        session_event(self, event);
    else if (event->kind == FL_TRANSPORT_FRAME && event->port == FL_PORT_JOIN)
        fl_intake_join(self, event);
    else if (event->kind == FL_TRANSPORT_FRAME && event->port == FL_PORT_CONTROL)
        take_command(self, event);
}

void fl_server_tick(struct fl_server *self)
{
    int64_t now = fl_server_now(self);
    for (uint32_t i = 0; i < self->seat_count; i++)
        fl_seat_tick(self, self->seats[i], now);
    fl_conduct_tick(self, now);
    fl_http_tick(self->http, self);
}

int64_t fl_server_wait_ms(const struct fl_server *self)
{
    int64_t now = fl_server_now(self), wait = TICK_MS;
    int64_t wake = self->job.id ? fl_round_wake_ms(self->round) : INT64_MAX;
    if (wake > now && wake - now < wait)
        wait = wake - now;
    for (uint32_t i = 0; i < self->seat_count; i++) {
        const struct fl_seat *seat = self->seats[i];
        int64_t due = seat->fetch ? fl_fetch_due(seat->fetch) : INT64_MAX;
        if (due <= now)
            return 0;
        if (due - now < wait)
            wait = due - now;
    }
    return wait < SHORTEST_MS ? SHORTEST_MS : wait;
}

/* A line of the audit log that the disk refused is tried again before a daemon without work ends:
   nobody may start the next one soon. */
static bool waits_for_ending(struct fl_server *self, int64_t now_ms)
{
    if (self->ending_ms == 0)
        return false;
    if (self->ending_until_ms == 0)
        self->ending_until_ms = now_ms + ENDING_WAIT_MS;
    return now_ms < self->ending_until_ms;
}

static bool finished(struct fl_server *self)
{
    int64_t now = fl_server_now(self);
    if (self->options.exit_when_idle && self->idle && !self->job.id && now >= self->busy_until_ms)
        return !waits_for_ending(self, now);
    self->ending_until_ms = 0;
    return false;
}

/* Whatever the reason to end is: once more, and then it is the next process's. */
static void write_last_endings(struct fl_server *self)
{
    if (self->ending_ms == 0)
        return;
    fl_conduct_write_endings(self);
    if (self->ending_ms != 0)
        fl_log(FL_LOG_WARN, "ending_owed",
               "the audit log still lacks that a job ended: free its disk, and the next start "
               "writes it");
}

static void say_goodbye(struct fl_server *self)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        if (self->seats[i]->live)
            fl_seat_dismiss(self, self->seats[i], FL_GOODBYE_SHUTDOWN,
                            "the coordinator is being stopped", 1000);
    }
}

enum fl_status fl_server_run(struct fl_server *self, const volatile int *stop,
                             struct fl_error *error)
{
    int64_t ticked = 0;
    while (!*stop && !finished(self)) {
        struct fl_transport_event event;
        enum fl_status status = fl_transport_next(self->transport, fl_server_wait_ms(self), &event);
        if (status == FL_EIO)
            return fl_fail(error, FL_EIO, "the network layer failed");
        if (status == FL_OK)
            fl_server_event(self, &event);
        int64_t now = fl_server_now(self);
        if (status != FL_OK || now - ticked >= SHORTEST_MS) {
            ticked = now;
            fl_server_tick(self);
        }
    }
    write_last_endings(self);
    /* the round stays as the database has it: nothing of this end is part of it */
    fl_conduct_drop_job(self);
    say_goodbye(self);
    return FL_OK;
}
